"""The hostile table, against servers and clients of anyws: the right end, in time and in memory.

Owns what is demanded of anyws, and which rows run when; the rows stand in `hostile_cases`, and
`hostile_arena` runs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.reliability.hostile_arena import LOOPS, Arena, Attack, Result, attacks_on
from tests.reliability.hostile_cases import BOTH, CLIENT, CLOSED, Case, is_expected
from tests.reliability.hostile_floods import FLOODS
from tests.reliability.hostile_frames import CASES as FRAMES
from tests.reliability.hostile_handshakes import CASES as HANDSHAKES
from tests.reliability.hostile_quiet import LEAVES, WAITS

if TYPE_CHECKING:
    from collections.abc import Sequence

_T = TypeVar("_T")

# Bytes that a peer may make its victim take, whatever it does.
MEMORY_LIMIT = 4 * 2**20

# uvloop reads a socket up to 32 times, 256 KiB each, before anybody can tell its transport to stop:
# that is 8 MiB of each connection, and one row has four.
UVLOOP_STREAM_LIMIT = 40 * 2**20

every_loop = pytest.mark.parametrize("loop", LOOPS)
every_transport = pytest.mark.parametrize("native", [True, False], ids=["native", "stream"])
each_victim = pytest.mark.parametrize("victim", BOTH)

# What is made at the first use, and no part of any account.
WARM_UP = attacks_on(BOTH, FRAMES[-9:])

# They take seconds of work, for what others prove in less.
HEAVY = {
    "flood of large pings, answers unread",
    "flood of pings within a message",
    "flood of small messages after its close",
    "flood after our close",
    "floods after refusals beside another",
}


def share(loop: str, items: Sequence[_T]) -> list[_T]:
    """Give the third of the table that runs on a loop where not all runs on each."""
    return list(items[list(LOOPS).index(loop) :: len(LOOPS)])


def check(result: Result, memory_limit: int = MEMORY_LIMIT) -> None:
    """See that all is as it should be with what came of the attacks."""
    wrong = []
    for attack, outcome, error in result:
        case, name = attack.case, f"{attack.victim}, {attack.case.name}"
        if not is_expected(case, outcome, strict=True):
            wrong.append(f"{name}: {outcome}, expected {case.expected[0]}")
        if attack.victim == CLIENT and error not in case.errors:
            wrong.append(f"{name}: its application got {error!r}, expected {case.errors[0]}")
    account = result.account
    wrong += [f"an application got {name}" for name in account.endings if name not in CLOSED]
    wrong += account.complaints
    if account.leftovers:
        wrong.append(f"left behind: {account.leftovers}")
    if account.memory > memory_limit:
        wrong.append(f"{account.memory / 2**20:.1f} MiB of memory")
    assert not wrong, "\n".join(wrong)


@every_loop
def test_connection_ends_as_it_should_whatever_comes(loop: str) -> None:
    cases = [*share(loop, FRAMES), *share(loop, HANDSHAKES), *LEAVES]
    with Arena("anyws", loop) as arena:
        arena.attack(WARM_UP)
        check(arena.attack(attacks_on(BOTH, cases)))


@every_loop
def test_connection_ends_in_time_when_its_peer_does_nothing(loop: str) -> None:
    with Arena("anyws", loop) as arena:
        arena.attack(WARM_UP)
        check(arena.attack(attacks_on(BOTH, WAITS), at_once=True))


@every_loop
def test_memory_is_bounded_in_floods(loop: str) -> None:
    attacks = attacks_on(BOTH, [case for case in FLOODS if case.name not in HEAVY])
    with Arena("anyws", loop) as arena:
        arena.attack(WARM_UP)
        for attack in share(loop, attacks):
            check(arena.attack([attack]))


# The whole table, on every loop and transport.


@pytest.mark.slow
@every_loop
@every_transport
@each_victim
@pytest.mark.parametrize(
    "cases", [FRAMES, HANDSHAKES, WAITS, LEAVES], ids=["frames", "handshakes", "waits", "leaves"]
)
def test_whole_table(cases: list[Case], victim: str, native: bool, loop: str) -> None:
    with Arena("anyws", loop, native=native) as arena:
        arena.attack(WARM_UP)
        check(arena.attack(attacks_on([victim], cases), at_once=cases is WAITS))


@pytest.mark.slow
@every_loop
@every_transport
@pytest.mark.parametrize(
    "attack", attacks_on(BOTH, FLOODS), ids=lambda attack: f"{attack.victim}, {attack.case.name}"
)
def test_memory_is_bounded_in_each_flood(attack: Attack, native: bool, loop: str) -> None:
    limit = UVLOOP_STREAM_LIMIT if loop == "uvloop" and not native else MEMORY_LIMIT
    with Arena("anyws", loop, native=native) as arena:
        arena.attack(WARM_UP)
        check(arena.attack([attack]), limit)
