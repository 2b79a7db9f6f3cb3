"""Virtual time keeps the promises of real time, and costs none of it."""

from __future__ import annotations

import asyncio
import sys
import time
from contextvars import ContextVar

import anyio
import pytest
from anyio.lowlevel import checkpoint

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def test_sleep_moves_the_clock_by_its_length_and_takes_no_time() -> None:
    real, virtual = time.monotonic(), anyio.current_time()
    await anyio.sleep(1000)
    assert anyio.current_time() - virtual == pytest.approx(1000)
    assert time.monotonic() - real < 10


async def test_clock_stands_still_while_a_task_runs() -> None:
    start = anyio.current_time()
    async with anyio.create_task_group() as tg:
        tg.start_soon(anyio.sleep, 1)
        for _ in range(1000):
            await checkpoint()
        assert anyio.current_time() == start


async def test_fail_after_raises_at_its_deadline() -> None:
    start = anyio.current_time()
    with pytest.raises(TimeoutError):
        with anyio.fail_after(5):
            await anyio.sleep_forever()
    assert anyio.current_time() - start == pytest.approx(5)


async def test_fail_after_passes_when_the_body_ends_before_its_deadline() -> None:
    with anyio.fail_after(5):
        await anyio.sleep(4)
    await anyio.sleep(10)


async def test_deadline_that_was_moved_is_kept() -> None:
    start = anyio.current_time()
    with anyio.move_on_after(5) as scope:
        await anyio.sleep(3)
        scope.deadline += 10
        await anyio.sleep_forever()
    assert anyio.current_time() - start == pytest.approx(15)


async def test_sleepers_wake_in_the_order_of_their_deadlines() -> None:
    woken = []

    async def sleeper(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append(seconds)

    async with anyio.create_task_group() as tg:
        for seconds in (3, 1, 1000, 2):
            tg.start_soon(sleeper, seconds)
    assert woken == [1, 2, 3, 1000]


async def test_tasks_that_wait_for_each_other_run_before_the_clock_moves() -> None:
    send, receive = anyio.create_memory_object_stream[int]()
    start = anyio.current_time()

    async def produce() -> None:
        async with send:
            for number in range(100):
                await send.send(number)

    async with anyio.create_task_group() as tg, receive:
        tg.start_soon(produce)
        with anyio.fail_after(0.001):
            assert [number async for number in receive] == list(range(100))
    assert anyio.current_time() == start


async def test_wait_all_tasks_blocked_returns_while_a_timer_is_pending() -> None:
    blocked = False

    async def wait() -> None:
        nonlocal blocked
        for _ in range(10):
            await checkpoint()
        blocked = True
        await anyio.sleep(3600)

    async with anyio.create_task_group() as tg:
        tg.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert blocked
        assert anyio.current_time() < 3600
        tg.cancel_scope.cancel()


@pytest.mark.parametrize(
    "anyio_backend",
    [
        "asyncio",
        pytest.param(
            "uvloop",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="uvloop has no Windows port"),
        ),
    ],
    indirect=True,
)
class TestLoop:
    async def test_time_starts_at_zero(self) -> None:
        assert asyncio.get_running_loop().time() == 0

    async def test_timers_of_one_moment_run_in_the_order_of_the_calls(self) -> None:
        loop = asyncio.get_running_loop()
        calls: list[int] = []
        for number in range(20):
            loop.call_at(1, calls.append, number)
        await asyncio.sleep(2)
        assert calls == list(range(20))

    async def test_cancelled_timer_does_not_run(self) -> None:
        loop = asyncio.get_running_loop()
        calls: list[int] = []
        handles = [loop.call_later(delay, calls.append, delay) for delay in (1, 2, 3)]
        handles[0].cancel()
        handles[1].cancel()
        await asyncio.sleep(4)
        assert calls == [3]
        assert [handle.cancelled() for handle in handles] == [True, True, False]

    async def test_timer_does_not_run_when_another_of_the_same_moment_cancels_it(self) -> None:
        loop = asyncio.get_running_loop()
        calls: list[str] = []

        def cancel_second() -> None:
            second.cancel()

        loop.call_at(1, cancel_second)
        second = loop.call_at(1, calls.append, "second")
        await asyncio.sleep(2)
        assert calls == []

    async def test_timer_in_the_past_runs_without_a_jump(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(10)
        done = asyncio.Event()
        loop.call_at(1, done.set)
        await done.wait()
        assert loop.time() == 10

    async def test_callback_runs_in_the_context_that_was_given(self) -> None:
        variable: ContextVar[str] = ContextVar("variable", default="outer")
        loop = asyncio.get_running_loop()
        token = variable.set("inner")
        seen: list[str] = []
        loop.call_later(1, lambda: seen.append(variable.get()))
        variable.reset(token)
        await asyncio.sleep(2)
        assert seen == ["inner"]

    async def test_result_from_a_thread_arrives(self) -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, lambda: "done") == "done"
