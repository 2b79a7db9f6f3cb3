"""What ends with a connection: tasks of start_soon(), scopes of cancel_on_close(), and waiters."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from anyws.testing import FaultyStream, memory_stream_pair
from tests.conftest import backend_options
from tests.endings import background, both_roles, closes_well, fails_to_receive, read_closes, takes
from tests.wire import REQUEST, TEXT, client_and_peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import ByteStream

    from tests.endings import Pair
    from tests.wire import Peer

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


# Tasks of start_soon().


@both_roles
async def test_task_gets_its_arguments_and_its_name(pair: Pair) -> None:
    seen: list[tuple[str, int, str | None]] = []

    async def work(text: str, number: int) -> None:
        seen.append((text, number, anyio.get_current_task().name))

    async with pair() as (ws, peer), background(closes_well, peer):
        ws.start_soon(work, "Hello", 3, name="worker")
        await anyio.wait_all_tasks_blocked()
        assert seen == [("Hello", 3, "worker")]
        assert ws.open


@both_roles
@pytest.mark.behaviour(89)
async def test_tasks_are_cancelled_when_the_connection_ends(pair: Pair) -> None:
    ended: list[bool] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(ws.closed)

    async with pair() as (ws, peer), background(closes_well, peer):
        for _ in range(3):
            ws.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        await ws.close()
        await anyio.wait_all_tasks_blocked()
        assert ended == [True, True, True]


@both_roles
async def test_tasks_go_on_while_the_connection_closes(pair: Pair) -> None:
    received: list[str | bytes] = []

    async def work() -> None:
        received.append(await ws.recv())

    async with pair() as (ws, peer):
        ws.start_soon(work)
        await ws.send_eof()
        await anyio.sleep(3)
        await peer.send(TEXT, b"Hello")
        await closes_well(peer)
        await ws.wait_closed()
        assert received == ["Hello"]


@both_roles
async def test_task_that_is_started_while_the_connection_closes_is_run(pair: Pair) -> None:
    ran = anyio.Event()

    async def work() -> None:
        ran.set()

    async with pair() as (ws, peer), background(closes_well, peer):
        await ws.send_eof()
        ws.start_soon(work)
        await ran.wait()


class LastMomentStream(FaultyStream):
    """A stream that calls a function in the moment before its connection is over."""

    def __init__(self, stream: ByteStream, call: Callable[[], None]) -> None:
        super().__init__(stream)
        self._call = call

    async def aclose(self) -> None:
        await super().aclose()
        self._call()


async def test_task_that_is_started_in_the_last_moment_is_cancelled_at_once() -> None:
    steps: list[str] = []

    async def work() -> None:
        steps.append("began")
        await anyio.sleep_forever()

    def call() -> None:
        ws.start_soon(work)
        steps.append("started")

    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    with takes(0):
        async with anyws.wrap_server(LastMomentStream(near, call)) as ws:
            await far.aclose()
            await ws.wait_closed()
            assert steps[0] == "started"


@both_roles
async def test_start_soon_of_what_cannot_be_called_is_a_type_error_and_the_connection_lives_on(
    pair: Pair,
) -> None:
    wrong: Any = "work"
    async with pair() as (ws, peer):
        with pytest.raises(TypeError, match=r"^func must be an async function, not str$"):
            ws.start_soon(wrong)
        await peer.send(TEXT, b"a")
        assert await ws.recv() == "a"
        await peer.finish()


@both_roles
async def test_start_soon_raises_connection_closed_when_the_connection_has_ended(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        async with background(closes_well, peer):
            await ws.close()
        with pytest.raises(anyws.ConnectionClosedOK):
            ws.start_soon(anyio.sleep_forever)


@both_roles
async def test_error_of_a_task_closes_with_1011_and_is_the_cause(pair: Pair) -> None:
    error = ZeroDivisionError("of a task")

    async def fail() -> None:
        raise error

    async with pair() as (ws, peer):
        ws.start_soon(fail)
        with takes(0):
            closed = await fails_to_receive(ws)
        assert closed.__cause__ is error
        assert str(closed) == "sent 1011 (internal error); no close frame received"
        assert [close.payload for close in await read_closes(peer)] == [b"\x03\xf3"]
        await peer.finish()
        await ws.wait_closed()
        with pytest.raises(anyws.ConnectionClosedError) as caught:
            await ws.send("Hello")
        assert caught.value.__cause__ is error


@both_roles
async def test_function_that_is_not_async_is_told_by_its_name(pair: Pair) -> None:
    def work() -> Any:
        """Give nothing to await."""

    async with pair() as (ws, peer), background(closes_well, peer):
        ws.start_soon(work)
        closed = await fails_to_receive(ws)
    assert str(closed.__cause__) == (
        "work returned NoneType, expected a coroutine: it must be an async function, without yield"
    )


@both_roles
async def test_error_of_a_task_is_logged_once_with_its_traceback(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async with pair() as (ws, peer), background(closes_well, peer):
        ws.start_soon(fail)
        await ws.wait_closed()
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.levelno for record in records] == [logging.ERROR]
    assert records[0].exc_info is not None
    assert records[0].exc_info[0] is ZeroDivisionError


@both_roles
async def test_log_says_whose_task_failed(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async with pair() as (ws, peer), background(closes_well, peer):
        ws.start_soon(fail)
        await ws.wait_closed()
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert vars(record)["websocket"] is ws


@both_roles
async def test_error_of_a_task_does_not_leave_the_block(pair: Pair) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    reached = False
    async with pair() as (ws, peer), background(closes_well, peer):
        ws.start_soon(fail)
        await ws.wait_closed()
        reached = True
    assert reached


@both_roles
async def test_error_of_a_task_leaves_other_tasks_until_the_connection_ends(pair: Pair) -> None:
    steps: list[str] = []

    async def fail() -> None:
        raise ZeroDivisionError

    async def work() -> None:
        try:
            await anyio.sleep(3)
            steps.append("slept")
            await anyio.sleep_forever()
        finally:
            steps.append("ended")

    async with pair() as (ws, peer):
        ws.start_soon(work)
        ws.start_soon(fail)
        await anyio.sleep(4)
        assert steps == ["slept"]
        await peer.finish()
        await ws.wait_closed()
        await anyio.wait_all_tasks_blocked()
        assert steps == ["slept", "ended"]


@both_roles
async def test_error_of_a_task_sends_no_other_close_frame_when_the_connection_closes(
    pair: Pair,
) -> None:
    async def fail() -> None:
        await anyio.sleep(1)
        raise ZeroDivisionError

    async with pair() as (ws, peer):
        ws.start_soon(fail)
        await ws.send_eof()
        await anyio.sleep(2)
        assert (await peer.read_frame()).code == 1000
        await peer.send_close()
        await peer.stream.send_eof()
        assert await read_closes(peer) == []
        await peer.finish()
        await ws.wait_closed()
        assert ws.close_code == 1000


@both_roles
async def test_connection_closed_ends_a_task_quietly(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async def recv_in_a_group() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.recv)

    async def send() -> None:
        await ws.send(b"x" * 1_000_000)

    async with pair() as (ws, peer):
        ws.start_soon(recv_in_a_group)
        ws.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        await peer.send_close(4000)
        await anyio.sleep(1)
        await peer.finish()
        await ws.wait_closed()
        assert ws.close_code == 4000
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@both_roles
async def test_error_beside_the_cancellation_of_a_task_does_not_leave_the_block(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ZeroDivisionError

    async def work() -> None:
        # On trio one group has the error and the cancellation.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            tasks.start_soon(anyio.sleep_forever)

    async with pair() as (ws, peer), background(closes_well, peer):
        ws.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        await ws.close()
    assert [record.getMessage() for record in caplog.records] == ["task of a connection failed"]


@both_roles
async def test_group_of_a_task_whose_connection_ends_is_quiet(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async def lingers() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)
            await anyio.sleep_forever()

    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.recv)
            tasks.start_soon(lingers)

    async with pair() as (ws, peer), background(closes_well, peer):
        ws.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        await ws.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    "anyio_backend", [backend_options(name, virtual=True) for name in ("asyncio", "uvloop")]
)
@both_roles
async def test_task_that_is_cancelled_by_asyncio_ends_alone(
    pair: Pair, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    async def work() -> None:
        other = asyncio.create_task(asyncio.sleep(1))
        other.cancel()
        await other

    async with pair() as (ws, peer), background(closes_well, peer):
        ws.start_soon(work)
        await anyio.sleep(1)
        assert ws.open


@both_roles
async def test_connection_closed_of_another_connection_is_an_error_of_the_task(pair: Pair) -> None:
    async def recv_from_other() -> None:
        await other.recv()

    async with client_and_peer() as (other, other_peer):
        async with pair() as (ws, peer):
            ws.start_soon(recv_from_other)
            await other_peer.send_close(4000)
            error = await fails_to_receive(ws)
            assert isinstance(error.__cause__, anyws.ConnectionClosed)
            assert error.__cause__.code == 4000
            assert [close.code for close in await read_closes(peer)] == [1011]
            await peer.finish()
        await other_peer.stream.send_eof()


@both_roles
async def test_error_of_a_task_that_has_a_group_is_the_cause_as_it_is(pair: Pair) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)

    async with pair() as (ws, peer), background(closes_well, peer):
        ws.start_soon(work)
        error = await fails_to_receive(ws)
        assert isinstance(error.__cause__, ExceptionGroup)


@both_roles
@pytest.mark.behaviour(88)
async def test_error_of_a_task_that_is_no_exception_leaves_the_block_bare(pair: Pair) -> None:
    class StopEverythingError(BaseException):
        pass

    async def leave() -> None:
        raise StopEverythingError

    with takes(0), pytest.raises(StopEverythingError):
        async with pair() as (ws, _):
            ws.start_soon(leave)
            await anyio.sleep_forever()


# Scopes of cancel_on_close().


@both_roles
async def test_scope_is_cancelled_as_soon_as_closing_begins(pair: Pair) -> None:
    async def close() -> None:
        await anyio.sleep(2)
        await ws.close()

    async with pair() as (ws, _), background(close):
        with takes(2):
            with ws.cancel_on_close() as scope:
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert not ws.closed


@both_roles
@pytest.mark.parametrize("ending", ["close frame", "error", "end of the stream", "abort"])
async def test_scope_is_cancelled_by_every_ending(pair: Pair, ending: str) -> None:
    async def end(ws: anyws.Connection, peer: Peer) -> None:
        if ending == "close frame":
            await peer.send_close()
        elif ending == "error":
            await peer.send(0x3)
        elif ending == "end of the stream":
            await peer.finish()
        else:
            ws.abort()

    async with pair() as (ws, peer):
        with takes(0):
            with ws.cancel_on_close() as scope:
                await end(ws, peer)
                await anyio.sleep_forever()
        assert scope.cancelled_caught


@both_roles
async def test_scope_is_cancelled_from_the_beginning_when_the_connection_closes_already(
    pair: Pair,
) -> None:
    async with pair() as (ws, _):
        await ws.send_eof()
        with ws.cancel_on_close() as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught


@both_roles
async def test_all_scopes_are_cancelled(pair: Pair) -> None:
    async def close() -> None:
        await anyio.sleep(2)
        await ws.close()

    async with pair() as (ws, _), background(close):
        with takes(2), ws.cancel_on_close() as outer:
            with ws.cancel_on_close() as inner:
                await anyio.sleep_forever()
        assert outer.cancel_called
        assert inner.cancel_called


@both_roles
async def test_scope_that_was_left_is_not_cancelled_later(pair: Pair) -> None:
    async with pair() as (ws, peer), background(closes_well, peer):
        with ws.cancel_on_close() as scope:
            await ws.send("Hello")
        await ws.close()
        assert not scope.cancelled_caught


# Who waits in wait_closed().


@both_roles
@pytest.mark.behaviour(37)
@pytest.mark.parametrize(
    "ending", ["close frame", "error", "end of the stream", "abort", "silence"]
)
async def test_wait_closed_returns_for_many_waiters_whatever_the_cause(
    pair: Pair, ending: str
) -> None:
    returned: list[bool] = []

    async def wait() -> None:
        await ws.wait_closed()
        returned.append(ws.closed)

    async with pair() as (ws, peer):
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            if ending == "close frame":
                await peer.send_close()
                await peer.stream.send_eof()
            elif ending == "error":
                await peer.send(0x3)
                await peer.stream.send_eof()
            elif ending == "end of the stream":
                await peer.finish()
            elif ending == "abort":
                ws.abort()
            else:
                await ws.send_eof()
        assert returned == [True] * 20


@both_roles
@pytest.mark.behaviour(37)
async def test_wait_closed_returns_after_the_fact(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.finish()
        await ws.wait_closed()
        with takes(0):
            await ws.wait_closed()
    with takes(0):
        await ws.wait_closed()


@both_roles
@pytest.mark.behaviour(37)
async def test_cancelling_wait_closed_changes_nothing(pair: Pair) -> None:
    async with pair() as (ws, peer), background(closes_well, peer):
        with anyio.move_on_after(1) as scope:
            await ws.wait_closed()
        assert scope.cancelled_caught
        assert ws.open
        await peer.send(TEXT, b"Hello")
        assert await ws.recv() == "Hello"


@both_roles
@pytest.mark.behaviour(37)
async def test_wait_closed_does_not_close(pair: Pair) -> None:
    async with pair(ping_interval=None) as (ws, _):
        with anyio.move_on_after(1000) as scope:
            await ws.wait_closed()
        assert scope.cancelled_caught
        assert ws.open
