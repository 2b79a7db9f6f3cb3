"""A session with a fault at each of its bytes: one of the documented ends, and never a hang.

Owns which faults run when; what may come of them stands in `fault_session`. Every byte is for
`-m slow`, and for `python -m tests.reliability.fault_report`, which says what they came to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.reliability.fault_links import UP, Fault, faults
from tests.reliability.fault_matrix import (
    MEMORY_KINDS,
    TCP_KINDS,
    measure_session,
    measure_session_over_tcp,
    run_in_memory,
    run_over_tcp,
)
from tests.reliability.fault_session import MESSAGES, SESSIONS, BrokenRule, Side, Tally, check

if TYPE_CHECKING:
    from typing import Any

pytestmark = pytest.mark.anyio

# Bytes from one fault to the next in the normal suite; each loop begins at another one.
MEMORY_STEP = 97
TCP_STEP = 307
FIRST = {"asyncio": 0, "uvloop": 16, "trio": 31}

each_session = pytest.mark.parametrize("session", SESSIONS)
many_minutes = pytest.mark.timeout(1200)


def check_tally(tally: Tally, count: int) -> None:
    assert not tally.broken, "\n".join(tally.broken)
    assert tally.lost == tally.hangs == 0
    assert sum(tally.faults.values()) == count > 0


@pytest.fixture
def first(request: pytest.FixtureRequest) -> int:
    """Give where the faults begin, by the event loop."""
    return next(FIRST[name] for name in FIRST if name in request.node.callspec.id)


@each_session
@pytest.mark.virtual_time
async def test_session_in_memory_ends_as_documented_at_some_bytes(session: str, first: int) -> None:
    sizes = await measure_session(session)
    some = faults(MEMORY_KINDS, sizes, step=MEMORY_STEP, first=first)
    check_tally(await run_in_memory(session, some), len(some))


@each_session
async def test_session_over_tcp_ends_as_documented_at_some_bytes(session: str, first: int) -> None:
    sizes = await measure_session_over_tcp(session)
    some = faults(TCP_KINDS, sizes, step=TCP_STEP, first=first)
    check_tally(await run_over_tcp(session, some), len(some))


@pytest.mark.slow
@many_minutes
@each_session
@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", MEMORY_KINDS)
async def test_session_in_memory_ends_as_documented_at_each_byte(session: str, kind: str) -> None:
    each = faults([kind], await measure_session(session))
    check_tally(await run_in_memory(session, each), len(each))


@pytest.mark.slow
@many_minutes
@each_session
@pytest.mark.parametrize("kind", TCP_KINDS)
async def test_session_over_tcp_ends_as_documented_at_each_byte(session: str, kind: str) -> None:
    each = faults([kind], await measure_session_over_tcp(session))
    check_tally(await run_over_tcp(session, each), len(each))


# The rules themselves: what they must not let pass.


def complete() -> tuple[Side, Side]:
    """Give what the two sides have seen of a session without a fault."""
    client, server = SESSIONS["client closes"].sides()
    for side in (client, server):
        side.opened, side.ending = True, "done"
        side.sent = [str(message) for message in MESSAGES]
        side.received = side.sent.copy()
    return client, server


def wrong_ending(client: Side, server: Side) -> None:
    client.ending = "KeyError"


def wrong_opening(client: Side, server: Side) -> None:
    client.opened, client.ending = False, "ConnectionClosedError"


def message_in_between_is_missing(client: Side, server: Side) -> None:
    server.ending = "ConnectionClosedError"
    del server.received[1]


def last_message_is_missing_at_an_end_in_order(client: Side, server: Side) -> None:
    server.received.pop()


def error_after_no_more_than_a_delay(client: Side, server: Side) -> None:
    server.ending = "KeepaliveTimeout"


@pytest.mark.parametrize(
    "change",
    [
        wrong_ending,
        wrong_opening,
        message_in_between_is_missing,
        last_message_is_missing_at_an_end_in_order,
        error_after_no_more_than_a_delay,
    ],
)
def test_rules_refuse_what_is_not_documented(change: Any) -> None:
    client, server = complete()
    check(client, server, harmless=True)
    change(client, server)
    with pytest.raises(BrokenRule):
        check(client, server, harmless=True)


def test_session_without_an_end_is_a_hang() -> None:
    tally = Tally()
    client, server = complete()
    server.ending = ""
    tally.note(str(Fault("stall", UP, 7)), client, server, harmless=False)
    assert (tally.hangs, tally.broken) == (1, ["stall up at 7: hangs"])
