"""The cancellation sweep finds what it is there to find: each defect is planted here.

Owns the defects; what anyws itself does stands in test_cancellation_sweep.py.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint

from anyws.testing import memory_stream_pair
from tests.blocks import BodyError
from tests.reliability.closing import call_block
from tests.reliability.cutting import OFTEN, TWICE, WAYS, Cut, Findings, Way
from tests.reliability.loops import LOOPS
from tests.reliability.pairs import MEMORY, Setting
from tests.reliability.scenarios import ALL, REDUCED, build_table, by_subject
from tests.reliability.strict import StrictPeer
from tests.reliability.sweeping import Scenario, SweepResult, run_once, spread, sweep
from tests.wire import TEXT, frame

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine
    from typing import Any

on_all_loops = pytest.mark.parametrize("loop", LOOPS)
on_asyncio = pytest.mark.parametrize("loop", [loop for loop in LOOPS if loop != "trio"])

WITHIN, BESIDE, WITHIN_BY_TASK, BESIDE_BY_TASK = WAYS


def _sweep(
    run: Callable[[Cut], Coroutine[Any, Any, None]],
    loop: str,
    *ways: Way,
    bound: float = 0.0,
    limit: int | None = None,
) -> SweepResult:
    scenario = Scenario("toy", "", run, virtual=True, bound=bound, repeats=True)
    return sweep(scenario, loop, ways=ways or WAYS, limit=limit)


async def _three_turns() -> int:
    for _ in range(3):
        await checkpoint()
    return 3


# The points.


@on_all_loops
def test_each_yield_and_each_resumption_is_a_point(loop: str) -> None:
    outcomes = []

    async def run(cut: Cut) -> None:
        outcomes.append(await cut.call(_three_turns))

    result = _sweep(run, loop, WITHIN)
    assert not result.faults
    # Before the first turn and on both sides of each yield.
    assert result.points == 7
    not_cancelled, *cancelled, last, end = outcomes
    assert not_cancelled.value == end.value == 3
    assert all(outcome.cancelled for outcome in cancelled)
    # trio looks for a cancellation at the end of a checkpoint too.
    assert last.cancelled is (loop == "trio")


@on_all_loops
def test_steps_of_other_tasks_are_points_beside(loop: str) -> None:
    counts = []

    async def run(cut: Cut) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(_three_turns)
            await cut.call(_three_turns)
        counts.append(cut.points)

    assert _sweep(run, loop, BESIDE).points >= 20
    assert counts[0] >= 20


@on_all_loops
def test_points_count_only_where_the_cut_is_armed(loop: str) -> None:
    async def run(cut: Cut) -> None:
        async def call() -> None:
            await _three_turns()
            cut.arm()
            await checkpoint()
            cut.disarm()
            await _three_turns()

        await cut.call(call, armed=False)

    assert _sweep(run, loop, WITHIN).points == 2


@on_asyncio
def test_task_is_cancelled_twice(loop: str) -> None:
    counts = set()

    async def run(cut: Cut) -> None:
        async def stubborn() -> None:
            count = 0
            try:
                for _ in range(10):
                    try:
                        await checkpoint()
                    except asyncio.CancelledError:
                        count += 1
            finally:
                counts.add(count)
            raise asyncio.CancelledError

        await cut.call(stubborn)

    _sweep(run, loop, TWICE[2])
    assert counts == {0, 1, 2}


@on_all_loops
def test_calls_are_cancelled_again_and_again(loop: str) -> None:
    async def run(cut: Cut) -> None:
        for _ in range(20):
            await cut.call(_three_turns)

    result = _sweep(run, loop, *OFTEN, limit=4)
    assert not result.faults
    assert result.points > 100


def test_spread_points_have_the_first_and_the_last() -> None:
    assert spread(100, 4) == [0, 33, 66, 99]


# What they find.


@on_all_loops
@pytest.mark.parametrize("way", [WITHIN, BESIDE], ids=lambda way: way.name)
def test_lost_message_is_found(loop: str, way: Way) -> None:
    async def run(cut: Cut) -> None:
        queue = list(range(5))

        async def take() -> int:
            item = queue.pop(0)
            await checkpoint()
            return item

        came: list[int] = []
        while queue:
            came += (await cut.call(take)).values
        cut.compare(came, range(5))

    assert _sweep(run, loop, way).findings.lost >= 5


@on_all_loops
def test_doubled_message_is_found(loop: str) -> None:
    async def run(cut: Cut) -> None:
        queue = list(range(5))
        came: list[int] = []

        async def take() -> None:
            came.append(queue[0])
            await checkpoint()
            queue.pop(0)

        while queue:
            await cut.call(take)
        cut.compare(came, range(5))

    assert _sweep(run, loop, WITHIN).findings.doubled >= 5


@on_all_loops
def test_messages_out_of_order_or_never_sent_are_found(loop: str) -> None:
    async def run(cut: Cut) -> None:
        await cut.call(checkpoint)
        cut.compare([2, 1], [1, 2])
        cut.compare([3], [])

    result = _sweep(run, loop, WITHIN)
    assert any("out of order" in fault for fault in result.faults)
    assert any("without being sent" in fault for fault in result.faults)


@on_all_loops
@pytest.mark.parametrize("ended", [True, False])
def test_torn_frame_is_found(loop: str, ended: bool) -> None:
    async def run(cut: Cut) -> None:
        near, far = memory_stream_pair()
        peer = StrictPeer(far, masks=True, cut=cut)
        peer.open_now.set()

        async def send() -> None:
            data = frame(TEXT, b"message")
            await near.send(data[:4])
            await near.send(data[4:])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.run)
            await cut.call(send)
            if not ended:
                await near.send(frame(TEXT, b"another"))
            await near.aclose()

    assert _sweep(run, loop, WITHIN).findings.torn


@on_all_loops
@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"masked", mask=b"mask"),
        frame(TEXT, b"reserved", rsv=4),
        frame(0x3, b"unknown"),
        frame(0x0, b"continuation of nothing"),
        frame(TEXT, b"begun", fin=False) + frame(TEXT, b"within") + frame(0x0),
        frame(0x9, b"fragmented", fin=False),
        frame(0x9, bytes(126)),
        frame(0x8, b"\x03"),
        frame(0x8) + frame(TEXT, b"behind the Close"),
        frame(TEXT, b"\xff"),
        frame(TEXT, b"no more of it", fin=False),
    ],
)
def test_frame_that_may_not_be_is_found(loop: str, data: bytes) -> None:
    async def run(cut: Cut) -> None:
        near, far = memory_stream_pair()
        peer = StrictPeer(far, masks=True, cut=cut)
        peer.open_now.set()
        await near.send(data)
        await near.send_eof()
        await peer.run()
        await near.aclose()

    scenario = Scenario("toy", "", run, virtual=True)
    assert run_once(scenario, loop, WITHIN, None).findings.torn == 1


@on_all_loops
def test_error_in_a_group_of_the_block_is_found(loop: str) -> None:
    @asynccontextmanager
    async def block() -> AsyncGenerator[None, None]:
        async with anyio.create_task_group():
            yield

    async def body(_: Cut, __: None) -> None:
        raise BodyError

    async def run(cut: Cut) -> None:
        await call_block(cut, block, body, armed=True)

    assert any("BodyError" in fault for fault in _sweep(run, loop).faults)


@on_all_loops
def test_error_that_a_cancellation_replaces_is_found(loop: str) -> None:
    @asynccontextmanager
    async def block() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await checkpoint()

    async def body(_: Cut, __: None) -> None:
        raise BodyError

    async def run(cut: Cut) -> None:
        await call_block(cut, block, body, armed=True)

    assert any("the body's error is lost" in fault for fault in _sweep(run, loop, WITHIN).faults)


@on_asyncio
@pytest.mark.parametrize("way", [WITHIN_BY_TASK, BESIDE_BY_TASK], ids=lambda way: way.name)
def test_swallowed_cancellation_is_found(loop: str, way: Way) -> None:
    async def swallow() -> None:
        with suppress(asyncio.CancelledError):
            await _three_turns()

    async def run(cut: Cut) -> None:
        await cut.call(swallow)

    assert any("swallowed" in fault for fault in _sweep(run, loop, way).faults)


@on_all_loops
def test_call_that_takes_its_time_to_end_is_found(loop: str) -> None:
    async def linger() -> None:
        try:
            await checkpoint()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)

    async def run(cut: Cut) -> None:
        await cut.call(linger)

    result = _sweep(run, loop, WITHIN, bound=1.0)
    assert any("took 2.0 seconds" in fault for fault in result.faults)
    assert _sweep(run, loop, WITHIN, bound=2.0).longest == pytest.approx(2)


@on_all_loops
def test_call_that_hangs_is_found(loop: str) -> None:
    async def run(cut: Cut) -> None:
        await cut.call(checkpoint)
        await anyio.sleep_forever()

    assert all("TimeoutError" in fault for fault in _sweep(run, loop, WITHIN).faults)


@on_all_loops
def test_task_timer_and_socket_that_are_left_are_found(loop: str) -> None:
    kept: list[Any] = []

    async def leave_all() -> None:
        kept.append(socket.socket())
        if loop == "trio":
            kept.append(trio.lowlevel.spawn_system_task(trio.sleep, 1000))
        else:
            kept.append(asyncio.create_task(asyncio.sleep(1000)))
        await checkpoint()

    async def run(cut: Cut) -> None:
        await cut.call(leave_all)

    cut = run_once(Scenario("toy", "", run, virtual=True), loop, WITHIN, None)
    kept[0].close()
    assert (cut.findings.tasks, cut.findings.timers, cut.findings.sockets) == (1, 1, 1)


@on_asyncio
def test_socket_that_is_watched_still_is_found(loop: str) -> None:
    near, far = socket.socketpair()

    async def run(cut: Cut) -> None:
        asyncio.get_running_loop().add_reader(near, print)

    with near, far:
        cut = run_once(Scenario("toy", "", run, virtual=False), loop, WITHIN, None)
    assert cut.findings.watched == 1


@on_asyncio
def test_what_the_event_loop_complains_of_is_found(loop: str) -> None:
    async def run(cut: Cut) -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await checkpoint()

    cut = run_once(Scenario("toy", "", run, virtual=True), loop, WITHIN, None)
    assert any("ZeroDivisionError" in fault for fault in cut.faults)


# The table.


def test_results_of_one_subject_are_added_up() -> None:
    rows = by_subject(
        [
            SweepResult("recv", "memory", "trio", 3, 0.5, Findings(lost=1), ["one"]),
            SweepResult("recv", "TCP", "trio", 4, 0.1, Findings(lost=2, torn=1), ["two"]),
            SweepResult("recv", "TCP", "uvloop", 5),
        ]
    )
    assert rows == [
        SweepResult("recv", "", "trio", 7, 0.5, Findings(lost=3, torn=1), ["one", "two"]),
        SweepResult("recv", "", "uvloop", 5),
    ]
    assert build_table(rows).splitlines() == [
        f"| what | loop | cancelled | {' | '.join(vars(Findings()))} |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| recv | trio | 7 | 3 | 0 | 1 | 0 | 0 | 0 | 0 | 0 |",
        "| recv | uvloop | 5 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |",
    ]


def test_scenarios_have_names_of_their_own() -> None:
    assert len({str(scenario) for scenario in ALL}) == len(ALL)
    assert len(REDUCED) > 35
    assert Setting(MEMORY[0]).all_arguments == {"compression": None}
