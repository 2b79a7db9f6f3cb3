"""One connection after the other: the loop, and every way out of it."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import anyws
from tests.blocks import BodyError, settle
from tests.endings import takes
from tests.network import memory_network
from tests.reconnecting import (
    STEADY,
    Script,
    Server,
    closes_after,
    first_message,
    leaves,
    never_answers,
    never_closes,
    stays,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


# The loop.


async def test_next_connection_follows_when_the_body_ends() -> None:
    server = Server(stays)
    async with memory_network() as network:
        network.script(server)
        async with anyws.reconnect("ws://localhost/", backoff=STEADY) as session:
            seen: list[anyws.Connection] = []
            async for ws in session:
                assert all(before.closed for before in seen)
                assert ws.open
                assert await ws.recv() == "hello"
                seen.append(ws)
                if len(seen) == 3:
                    break
            assert session.attempts == 3
            assert session.last_error is None
    assert server.codes == [1000, 1000, 1000]
    assert server.waits == [0.5, 1]


async def clean_up_slowly(events: list[str]) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(20)
        events.append("cleaned up")


async def test_tasks_of_a_connection_are_over_before_the_next_follows() -> None:
    events: list[str] = []

    server = Server(stays)
    async with memory_network() as network:
        network.script(server)
        async with anyws.reconnect("ws://localhost/", backoff=STEADY) as session:
            async for ws in session:
                events.append("connection")
                if len(events) > 1:
                    break
                ws.start_soon(clean_up_slowly, events)
    assert events == ["connection", "cleaned up", "connection"]


async def test_wait_for_the_tasks_of_a_connection_may_be_cancelled() -> None:
    events: list[str] = []

    server = Server(closes_after(1, 1011), stays)
    async with memory_network() as network:
        network.script(server)
        async with anyws.reconnect("ws://localhost/", backoff=STEADY) as session:
            ws = await anext(session)
            ws.start_soon(clean_up_slowly, events)
            await ws.wait_closed()
            for _ in range(2):
                with anyio.move_on_after(1) as scope:
                    await anext(session)
                assert scope.cancelled_caught
            assert isinstance(session.last_error, anyws.ConnectionClosedError)
            await anext(session)
            assert events == ["cleaned up"]


async def test_next_connection_follows_when_the_server_closes() -> None:
    server = Server(closes_after(15), closes_after(15, 1001), stays)
    _, attempts = await first_message(server)
    assert attempts == 3
    assert server.waits == [15.5, 15.5]


async def test_connectionclosed_may_be_caught_in_the_body() -> None:
    async with memory_network() as network:
        network.script(Server(closes_after(1, 1011), stays))
        async with anyws.reconnect("ws://localhost/", backoff=STEADY) as session:
            async for ws in session:
                try:
                    message = await ws.recv()
                except anyws.ConnectionClosedError:
                    continue
                break
            assert message == "hello"
            assert isinstance(session.last_error, anyws.ConnectionClosedError)
            assert session.last_error.code == 1011


async def test_connectionclosed_that_leaves_the_body_leaves_the_block() -> None:
    async with memory_network() as network:
        network.script(Server(closes_after(1, 1011)))
        with pytest.raises(anyws.ConnectionClosedError) as caught:
            async with anyws.reconnect("ws://localhost/") as session:
                async for ws in session:
                    await ws.recv()
    assert caught.value.code == 1011


async def test_loop_may_be_entered_again() -> None:
    server = Server(stays)
    async with memory_network() as network:
        network.script(server)
        async with anyws.reconnect("ws://localhost/", backoff=STEADY) as session:
            async for ws in session:
                assert await ws.recv() == "hello"
                break
            await ws.send("still open")
            async for other in session:
                assert ws.closed
                assert other.open
                break
    assert server.codes == [1000, 1000]


# Ways out of it.


@pytest.mark.behaviour(101)
async def test_break_closes_the_connection_at_the_end_of_the_block() -> None:
    server = Server(stays)
    async with memory_network() as network:
        network.script(server)
        async with anyws.reconnect("ws://localhost/") as session:
            async for ws in session:
                assert await ws.recv() == "hello"
                break
            assert ws.open
        assert ws.closed
    assert server.codes == [1000]


@pytest.mark.behaviour(101)
async def test_return_closes_the_connection() -> None:
    server = Server(stays)
    await first_message(server)
    assert server.codes == [1000]


@pytest.mark.behaviour(101)
async def test_exception_leaves_as_itself_and_closes_with_1011() -> None:
    server = Server(stays)
    error = BodyError()
    context = error.__context__ = LookupError()
    async with memory_network() as network:
        network.script(server)
        with pytest.raises(BodyError) as caught:
            async with anyws.reconnect("ws://localhost/") as session:
                async for _ in session:
                    raise error
    assert caught.value is error
    assert error.__context__ is context
    assert server.codes == [1011]


@pytest.mark.behaviour(101)
async def test_cancellation_of_the_body_closes_with_1001() -> None:
    server = Server(stays)
    async with memory_network() as network:
        network.script(server)
        with anyio.move_on_after(5) as scope:
            async with anyws.reconnect("ws://localhost/") as session:
                async for _ in session:
                    await anyio.sleep_forever()
        await settle()
    assert scope.cancelled_caught
    assert server.codes == [1001]


@pytest.mark.behaviour(101)
async def test_exception_wins_over_a_cancellation_around_it() -> None:
    server = Server(stays)
    async with memory_network() as network:
        network.script(server)
        with pytest.raises(BodyError), anyio.CancelScope() as scope:
            async with anyws.reconnect("ws://localhost/") as session:
                async for _ in session:
                    scope.cancel()
                    raise BodyError


# Attempts are made at 0 and 0.5 seconds, and what is cancelled is the wait between them, an attempt
# that gets no answer, the closing of the last connection, and the body.
@pytest.mark.behaviour(101)
@pytest.mark.parametrize(
    ("script", "deadline"),
    [(leaves, 0.25), (never_answers, 5), (never_closes, 3), (stays, 0.25)],
    ids=["wait", "attempt", "close", "wait-after-close"],
)
async def test_cancellation_at_any_point_leaves_nothing_behind(
    script: Script, deadline: float
) -> None:
    async with memory_network() as network:
        network.script(script)
        with takes(deadline), anyio.move_on_after(deadline) as scope:
            async with anyws.reconnect("ws://localhost/", backoff=STEADY) as session:
                async for _ in session:
                    await settle()
                    continue
        await settle()
    assert scope.cancelled_caught


@pytest.mark.behaviour(101)
async def test_every_turn_of_the_loop_may_be_cancelled() -> None:
    """Cancel at the first turn of the event loop, at the second, and so on."""
    cancelled_after = 0
    async with memory_network() as network:
        network.script(Server(stays))
        finished = False
        while not finished:
            async with anyio.create_task_group() as tg:
                tg.start_soon(cancel_after, cancelled_after, tg.cancel_scope)
                async with anyws.reconnect("ws://localhost/") as session:
                    async for ws in session:
                        assert await ws.recv() == "hello"
                        break
                finished = True
                tg.cancel_scope.cancel()
            cancelled_after += 1
    assert cancelled_after > 5


async def cancel_after(turns: int, scope: anyio.CancelScope) -> None:
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
    scope.cancel()


@pytest.mark.behaviour(101)
async def test_loop_may_stand_in_a_scope_that_ends_before_the_block() -> None:
    server = Server(stays)
    async with memory_network() as network:
        network.script(server)
        async with anyws.reconnect("ws://localhost/", backoff=STEADY) as session:
            with anyio.move_on_after(5) as scope:
                async for ws in session:
                    assert await ws.recv() == "hello"
                    await anyio.sleep_forever()
            assert scope.cancelled_caught
            assert ws.open
            with anyio.fail_after(5):
                other = await anext(session)
            assert ws.closed
            assert await other.recv() == "hello"
    assert server.codes == [1000, 1000]


@pytest.mark.behaviour(101)
async def test_generator_around_the_loop_may_be_closed() -> None:
    server = Server(stays)

    async def messages() -> AsyncGenerator[str | bytes, None]:
        async with anyws.reconnect("ws://localhost/") as session:
            async for ws in session:
                async for message in ws:
                    yield message

    async with memory_network() as network:
        network.script(server)
        async with aclosing(messages()) as stream:
            async for message in stream:
                assert message == "hello"
                break
    assert server.codes == [1011]


async def test_task_of_a_connection_ends_with_it() -> None:
    ended = []

    async def work(ws: anyws.Connection) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(ws)

    async with memory_network() as network:
        network.script(Server(stays))
        async with anyws.reconnect("ws://localhost/") as session:
            seen: list[anyws.Connection] = []
            async for ws in session:
                assert ended == seen
                seen.append(ws)
                ws.start_soon(work, ws)
                await settle()
                if len(seen) == 3:
                    break
    assert ended == seen


async def test_error_of_a_task_that_is_no_exception_leaves_the_block_bare() -> None:
    class StopEverythingError(BaseException):
        pass

    async def stop() -> None:
        raise StopEverythingError

    async with memory_network() as network:
        network.script(stays)
        with pytest.raises(StopEverythingError):
            async with anyws.reconnect("ws://localhost/") as session:
                async for ws in session:
                    ws.start_soon(stop)
                    await anyio.sleep_forever()


# Which task.


async def test_other_task_is_refused() -> None:
    async def iterate(session: Any) -> None:
        with pytest.raises(RuntimeError, match="only to the task that has entered its block"):
            await anext(session)

    async with memory_network() as network:
        network.script(Server(stays))
        async with anyws.reconnect("ws://localhost/") as session:
            async with anyio.create_task_group() as tg:
                tg.start_soon(iterate, session)
            assert (await anext(session)).open


async def test_session_gives_nothing_after_its_block() -> None:
    async with anyws.reconnect("ws://localhost/") as session:
        pass
    with pytest.raises(RuntimeError, match=r"the block of reconnect\(\) has been left"):
        await anext(session)


async def test_reconnect_cannot_be_awaited() -> None:
    with pytest.raises(TypeError, match=r"reconnect\(\) cannot be awaited: use `async with"):
        await anyws.reconnect("ws://localhost/")  # type: ignore[misc]  # so


async def test_reconnect_cannot_be_iterated_over() -> None:
    with pytest.raises(TypeError, match=r"reconnect\(\) cannot be iterated over: use `async with"):
        async for _ in anyws.reconnect("ws://localhost/"):  # type: ignore[attr-defined]  # so
            pass


async def test_reconnect_can_be_entered_only_once() -> None:
    again = anyws.reconnect("ws://localhost/")
    async with again:
        pass
    with pytest.raises(RuntimeError, match="only once"):
        await again.__aenter__()


# session.run().


async def test_run_calls_the_handler_with_each_connection() -> None:
    seen: list[int] = []

    async def handler(ws: anyws.Connection) -> None:
        seen.append(len(seen))
        if len(seen) == 1:
            await ws.wait_closed()
            await ws.recv()  # raises
        if len(seen) == 2:
            async with anyio.create_task_group() as tg:
                tg.start_soon(ws.recv)
        if len(seen) == 4:
            raise BodyError
        assert await ws.recv() == "hello"

    server = Server(closes_after(1), closes_after(1, 1011), stays)
    with pytest.raises(BodyError):
        async with memory_network() as network:
            network.script(server)
            async with anyws.reconnect("ws://localhost/") as session:
                await session.run(handler)
    assert seen == [0, 1, 2, 3]
    assert server.codes[2:] == [1000, 1011]


async def test_run_refuses_what_cannot_be_called_before_it_connects() -> None:
    async with memory_network() as network:
        async with anyws.reconnect("ws://localhost/") as session:
            with pytest.raises(TypeError, match=r"^handler must be a function, not NoneType$"):
                await session.run(None)  # type: ignore[arg-type]  # the mistake
    assert network.dialled == []
    assert session.attempts == 0


async def test_run_tells_that_the_handler_is_no_async_function() -> None:
    async with memory_network() as network:
        network.script(stays)
        async with anyws.reconnect("ws://localhost/") as session:
            with pytest.raises(TypeError, match=r"^handler returned int, expected a"):
                await session.run(id)  # type: ignore[arg-type]  # the mistake


async def test_run_raises_the_connectionclosed_of_another_connection() -> None:
    error = anyws.ConnectionClosedError(None, None)

    async def handler(ws: anyws.Connection) -> None:
        raise error

    with pytest.raises(anyws.ConnectionClosedError) as caught:
        async with memory_network() as network:
            network.script(stays)
            async with anyws.reconnect("ws://localhost/") as session:
                await session.run(handler)
    assert caught.value is error
