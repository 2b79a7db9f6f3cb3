"""The end of a server: Server.close, its grace, and everything that may stand in its way."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import ByteStream, Listener

import anyws
from anyws.testing import FaultyStream, MemoryListener, memory_stream_pair
from tests.sockets import (
    loud_records,
    open_peer,
    parse_answer,
    serving_memory,
)
from tests.wire import CLOSE, REQUEST, TEXT, Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def hang(ws: anyws.Connection) -> None:
    await anyio.sleep_forever()


async def hang_in_hook(request: anyws.Request) -> None:
    await anyio.sleep_forever()


# Open connections.


@pytest.mark.behaviour(96)
async def test_open_connections_get_the_close_code_and_reason() -> None:
    async with serving_memory() as (server, connect):
        peers = [await connect() for _ in range(3)]
        for peer in peers:
            await open_peer(peer)
        async with anyio.create_task_group() as tg:
            tg.start_soon(server.close, 1012, "back soon")
            for peer in peers:
                close = await peer.answer_close()
                assert (close.code, close.reason) == (1012, "back soon")
        assert server.connections == frozenset()


@pytest.mark.behaviour(96)
async def test_normal_end_of_the_block_closes_with_1001() -> None:
    async with anyio.create_task_group() as tg:
        async with serving_memory() as (_, connect):
            peer = await connect()
            await open_peer(peer)
            tg.start_soon(peer.send_close, 1001)  # as the answer to the server's, which is not read
    close = await peer.read_frame()
    assert (close.opcode, close.code) == (CLOSE, 1001)


@pytest.mark.behaviour(96)
async def test_close_is_immediate_when_peers_answer_and_handlers_end() -> None:
    async with serving_memory() as (server, connect):
        peer = await connect()
        await open_peer(peer)
        started_at = anyio.current_time()
        async with anyio.create_task_group() as tg:
            tg.start_soon(server.close)
            await peer.answer_close()
            assert await peer.read_until_eof() == b""
            await peer.finish()
        assert anyio.current_time() - started_at < 0.01


@pytest.mark.behaviour(96)
async def test_handler_that_never_looks_at_its_connection_is_cancelled_after_grace() -> None:
    ended_at = []

    async def handler(ws: anyws.Connection) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended_at.append(anyio.current_time())

    async with serving_memory(handler) as (server, connect):
        peer = await connect()
        await open_peer(peer)
        started_at = anyio.current_time()
        async with anyio.create_task_group() as tg:
            tg.start_soon(functools.partial(server.close, grace=3))
            await peer.answer_close()
        assert anyio.current_time() - started_at == pytest.approx(3)
        assert ended_at == [pytest.approx(started_at + 3)]


@pytest.mark.behaviour(90, 96)
async def test_close_is_bounded_when_neither_handler_nor_peer_does_anything() -> None:
    async with serving_memory(hang, close_timeout=100) as (server, connect):
        peer = await connect()
        await open_peer(peer)
        started_at = anyio.current_time()
        await server.close(grace=3)
        assert anyio.current_time() - started_at == pytest.approx(3)
    assert (await peer.read_frame()).code == 1001
    assert await peer.read_until_eof() == b""


@pytest.mark.behaviour(90, 96)
async def test_close_is_bounded_when_the_peer_does_not_read() -> None:
    async def flood(ws: anyws.Connection) -> None:
        while True:
            await ws.send(b"x" * 10_000)

    async with serving_memory(flood, close_timeout=100, ping_interval=None) as (server, connect):
        peer = await connect(1000)
        await open_peer(peer)
        await anyio.sleep(1)
        started_at = anyio.current_time()
        await server.close(grace=3)
        assert anyio.current_time() - started_at == pytest.approx(3)


@pytest.mark.behaviour(96)
async def test_end_of_the_block_waits_no_longer_than_the_default_grace() -> None:
    async with serving_memory(hang, close_timeout=None) as (_, connect):
        peer = await connect()
        await open_peer(peer)
        started_at = anyio.current_time()
    assert anyio.current_time() - started_at == pytest.approx(10)


@pytest.mark.behaviour(96)
async def test_grace_of_0_cancels_handlers_at_once() -> None:
    async with serving_memory(hang) as (server, connect):
        peer = await connect()
        await open_peer(peer)
        started_at = anyio.current_time()
        await server.close(grace=0)
        assert anyio.current_time() - started_at < 0.1


@pytest.mark.behaviour(96)
async def test_close_without_a_limit_waits_for_the_handlers() -> None:
    async def handler(ws: anyws.Connection) -> None:
        await anyio.sleep(1_000)

    async with serving_memory(handler) as (server, connect):
        peer = await connect()
        await open_peer(peer)
        started_at = anyio.current_time()
        async with anyio.create_task_group() as tg:
            tg.start_soon(functools.partial(server.close, grace=None))
            await peer.answer_close()
            await peer.finish()
        assert anyio.current_time() - started_at == pytest.approx(1_000)


async def test_handler_may_finish_its_work_within_grace() -> None:
    done = []

    async def handler(ws: anyws.Connection) -> None:
        await ws.wait_closed()
        await anyio.sleep(2)
        done.append("saved")

    async with serving_memory(handler) as (server, connect):
        peer = await connect()
        await open_peer(peer)
        async with anyio.create_task_group() as tg:
            tg.start_soon(server.close)
            await peer.answer_close()
    assert done == ["saved"]


@pytest.mark.behaviour(96)
async def test_handler_that_fails_while_the_server_closes_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: anyws.Connection) -> None:
        await ws.wait_closed()
        raise LookupError

    async with serving_memory(handler) as (server, connect):
        peer = await connect()
        await open_peer(peer)
        async with anyio.create_task_group() as tg:
            tg.start_soon(server.close)
            await peer.answer_close()
    assert loud_records(caplog) == ["anyws.server: connection handler failed"]


@pytest.mark.parametrize(
    ("code", "reason"), [(1006, ""), (999, ""), (1000, "x" * 124)], ids=["1006", "999", "reason"]
)
async def test_code_that_may_not_be_sent_is_a_valueerror_and_the_server_goes_on(
    code: int, reason: str
) -> None:
    async with serving_memory() as (server, connect):
        with pytest.raises(ValueError, match=r"close"):
            await server.close(code, reason)
        peer = await connect()
        await open_peer(peer)
        await peer.send(TEXT, b"alive")
        assert (await peer.read_frame()).payload == b"alive"


# Several calls, and calls from strange places.


async def test_close_may_be_called_twice() -> None:
    async with serving_memory() as (server, connect):
        await open_peer(await connect())
        await server.close(grace=1)
        await server.close(grace=1)


async def test_concurrent_calls_all_return_and_the_first_code_counts() -> None:
    async with serving_memory() as (server, connect):
        peer = await connect()
        await open_peer(peer)
        async with anyio.create_task_group() as tg:
            tg.start_soon(server.serve_forever)
            tg.start_soon(server.close, 1012)
            await anyio.sleep(0.1)
            tg.start_soon(server.close, 1001)
            assert (await peer.answer_close()).code == 1012


async def test_second_call_with_less_grace_hastens_the_end() -> None:
    async with serving_memory(hang, close_timeout=None) as (server, connect):
        await open_peer(await connect())
        started_at = anyio.current_time()
        async with anyio.create_task_group() as tg:
            tg.start_soon(functools.partial(server.close, grace=100))
            await anyio.sleep(1)
            await server.close(grace=1)
        assert anyio.current_time() - started_at == pytest.approx(2)


@pytest.mark.parametrize(
    ("grace", "error", "message"),
    [
        (-1, ValueError, "of -1 seconds is not 0 or more; None is no limit"),
        (float("nan"), ValueError, "of nan seconds is not 0 or more; None is no limit"),
        ("1", TypeError, "must be a number of seconds or None, not str"),
        (False, TypeError, "must be a number of seconds or None, not bool"),
    ],
)
async def test_grace_that_is_no_time_is_refused_and_the_server_goes_on(
    grace: Any, error: type[Exception], message: str
) -> None:
    async with serving_memory() as (server, connect):
        with pytest.raises(error, match=f"^grace {message}$"):
            await server.close(grace=grace)
        peer = await connect()
        await open_peer(peer)
        await peer.finish()


@pytest.mark.behaviour(96)
async def test_close_from_a_handler_ends_the_server_and_then_that_handler() -> None:
    ended = []
    found: list[anyws.Server] = []

    async def handler(ws: anyws.Connection) -> None:
        await ws.recv()
        try:
            await found[0].close(grace=3)
        finally:
            ended.append(ws.closed)

    async with serving_memory(handler) as (server, connect):
        found.append(server)
        peer = await connect()
        await open_peer(peer)
        started_at = anyio.current_time()
        await peer.send(TEXT, b"shut down")
        assert (await peer.answer_close()).code == 1001
        await server.serve_forever()
        assert anyio.current_time() - started_at == pytest.approx(3)
    assert ended == [True]


async def test_cancelled_close_drops_everything_at_once() -> None:
    async with serving_memory(hang, close_timeout=None) as (server, connect):
        peer = await connect()
        await open_peer(peer)
        started_at = anyio.current_time()
        with anyio.move_on_after(1):
            await server.close(grace=100)
        await server.serve_forever()
        assert anyio.current_time() - started_at == pytest.approx(1)


@pytest.mark.behaviour(90)
async def test_end_of_the_block_that_is_cancelled_drops_everything_at_once() -> None:
    started_at = anyio.current_time()
    with anyio.move_on_after(1) as scope:
        async with serving_memory(hang, close_timeout=None) as (_, connect):
            peer = await connect()
            await open_peer(peer)
    assert scope.cancelled_caught
    assert anyio.current_time() - started_at == pytest.approx(1)
    assert (await peer.read_frame()).code == 1001
    assert await peer.read_until_eof() == b""


async def test_server_can_be_closed_before_anyone_came() -> None:
    async with serving_memory() as (server, _):
        await server.close()
        assert server.connections == frozenset()


async def test_listeners_are_closed_first() -> None:
    listener = MemoryListener()
    async with anyws.serve(hang, listeners=[listener]) as server:
        stream = await listener.connect()
        await stream.send(REQUEST + b"\r\n")
        async with anyio.create_task_group() as tg:
            tg.start_soon(functools.partial(server.close, grace=3))
            await anyio.sleep(1)
            with pytest.raises(anyio.ClosedResourceError):
                await listener.connect()


# Half-open handshakes.


@pytest.mark.behaviour(97)
@pytest.mark.parametrize("sent", [b"", b"GET /chat", REQUEST, REQUEST + b"\r\n"])
async def test_half_open_handshake_gets_503(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving_memory(process_request=hang_in_hook) as (server, connect):
        peer = await connect()
        if sent:
            await peer.send_bytes(sent)
        await anyio.sleep(0.1)
        async with anyio.create_task_group() as tg:
            tg.start_soon(server.close)
            answer = parse_answer(await peer.read_until_eof())
            await peer.finish()
    assert (answer.status, answer.body) == (503, b"the server is going away\n")
    assert answer.fields["content-length"] == "25"
    assert loud_records(caplog) == []


@pytest.mark.behaviour(97)
@pytest.mark.parametrize("sent", [b"", REQUEST])
async def test_half_open_handshake_gets_503_without_any_grace(sent: bytes) -> None:
    for _ in range(10):  # trio draws lots for who goes first
        async with serving_memory() as (server, connect):
            peer = await connect()
            if sent:
                await peer.send_bytes(sent)
            await anyio.wait_all_tasks_blocked()
            await server.close(grace=0)
            assert parse_answer(await peer.read_until_eof()).status == 503


@pytest.mark.behaviour(90, 97)
async def test_half_open_client_that_does_not_read_holds_nobody_up() -> None:
    async with serving_memory() as (server, connect):
        await connect(10)
        await anyio.sleep(0.1)
        started_at = anyio.current_time()
        await server.close()
        assert anyio.current_time() - started_at < 3


@pytest.mark.behaviour(97, 106)
@pytest.mark.parametrize("grace", [10, None])
async def test_answer_that_is_being_sent_is_completed(grace: float | None) -> None:
    def refuse(request: anyws.Request) -> anyws.Response:
        return request.respond(403, "x" * 10_000)

    async with serving_memory(process_request=refuse) as (server, connect):
        peer = await connect(1000)
        await peer.send_bytes(REQUEST + b"\r\n")
        await anyio.sleep(1)
        async with anyio.create_task_group() as tg:
            tg.start_soon(functools.partial(server.close, grace=grace))
            await anyio.sleep(1)
            answer = parse_answer(await peer.read_until_eof())
            await peer.finish()
    assert (answer.status, len(answer.body)) == (403, 10_000)


@pytest.mark.behaviour(90, 97)
@pytest.mark.parametrize(("grace", "seconds"), [(2, 2), (None, 10)])
async def test_answer_that_nobody_reads_takes_no_longer_than_the_grace(
    grace: float | None, seconds: float
) -> None:
    def refuse(request: anyws.Request) -> anyws.Response:
        return request.respond(403, "x" * 10_000)

    async with serving_memory(process_request=refuse, open_timeout=None) as (server, connect):
        peer = await connect(1000)
        await peer.send_bytes(REQUEST + b"\r\n")
        await anyio.sleep(1)
        started_at = anyio.current_time()
        await server.close(grace=grace)
        assert anyio.current_time() - started_at == pytest.approx(seconds)


@pytest.mark.behaviour(96)
@pytest.mark.parametrize("hook", ["process_request", "process_response"])
async def test_close_from_a_hook_leaves_the_handlers_their_time(hook: str) -> None:
    events: list[str] = []

    async def handler(ws: anyws.Connection) -> None:
        async for _ in ws:
            pass
        await anyio.sleep(2)  # it cleans up
        events.append("cleaned up")

    async def close(request: anyws.Request, response: anyws.Response | None = None) -> None:
        if request.path == "/shutdown":
            async with anyio.create_task_group() as tg:
                tg.start_soon(functools.partial(server.close, grace=5))

    async with serving_memory(handler, open_timeout=3, **{hook: close}) as (server, connect):
        member = await connect()
        await open_peer(member)
        started_at = anyio.current_time()
        admin, half_open = await connect(), await connect()
        await admin.send_bytes(REQUEST.replace(b"/chat", b"/shutdown") + b"\r\n")
        assert (await member.answer_close()).code == 1001
        await member.finish()
        assert parse_answer(await half_open.read_until_eof()).status == 503
        assert await admin.read_until_eof() == b""
        assert anyio.current_time() - started_at == pytest.approx(5)
    assert events == ["cleaned up"]


@pytest.mark.behaviour(96)
async def test_two_hooks_that_close_at_a_time_leave_the_handlers_their_time() -> None:
    events: list[str] = []

    async def handler(ws: anyws.Connection) -> None:
        async for _ in ws:
            pass
        await anyio.sleep(2)  # it cleans up
        events.append("cleaned up")

    async def close(request: anyws.Request) -> None:
        if request.path == "/shutdown":
            await anyio.sleep(1)
            await server.close(grace=5)

    async with serving_memory(handler, process_request=close) as (server, connect):
        member, *admins = [await connect() for _ in range(3)]
        await open_peer(member)
        for admin in admins:
            await admin.send_bytes(REQUEST.replace(b"/chat", b"/shutdown") + b"\r\n")
        assert (await member.answer_close()).code == 1001
        await member.finish()
        for admin in admins:
            await admin.read_until_eof()
    assert events == ["cleaned up"]


@pytest.mark.behaviour(96)
async def test_close_without_limit_from_a_hook_ends_with_open_timeout() -> None:
    async def close(request: anyws.Request) -> None:
        await server.close(grace=None)

    async with serving_memory(process_request=close, open_timeout=2) as (server, connect):
        started_at = anyio.current_time()
        admin = await connect()
        await admin.send_bytes(REQUEST + b"\r\n")
        assert parse_answer(await admin.read_until_eof()).status == 503
        await admin.finish()
        await server.serve_forever()
        assert anyio.current_time() - started_at == pytest.approx(2)


@pytest.mark.behaviour(96)
async def test_listener_that_does_not_let_itself_be_closed_is_left_after_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class SlowListener(MemoryListener):
        async def aclose(self) -> None:
            await super().aclose()
            await anyio.sleep(30)

    started_at = anyio.current_time()
    async with anyws.serve(hang, listeners=[SlowListener()]) as server:
        await server.close()
    assert anyio.current_time() - started_at == pytest.approx(1)
    assert loud_records(caplog) == ["anyws.server: listener not closed within 1.0 seconds"]


@pytest.mark.behaviour(97)
async def test_client_that_was_refused_before_gets_no_second_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving_memory() as (server, connect):
        peer = await connect()
        await peer.send_bytes(b"nonsense\r\n\r\n")
        await peer.read_until(b"\r\n\r\n")
        # The server waits now for the client to read that and leave.
        await server.close()
        body = await peer.read_until_eof()
    assert body.startswith(b"malformed HTTP request")
    assert b"HTTP/1.1" not in body
    assert loud_records(caplog) == []


@pytest.mark.behaviour(97)
async def test_handshake_whose_hook_cannot_be_cancelled_gets_503_after_it() -> None:
    async def finish_first(request: anyws.Request) -> None:
        # As a hook that works in a thread.
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)

    async with serving_memory(hang, process_request=finish_first) as (server, connect):
        peer = await connect()
        await peer.send_bytes(REQUEST + b"\r\n")
        await anyio.sleep(0.5)
        async with anyio.create_task_group() as tg:
            tg.start_soon(server.close)
            assert parse_answer(await peer.read_until_eof()).status == 503
            await peer.finish()


@pytest.mark.behaviour(97)
async def test_handshake_whose_response_is_on_its_way_is_completed_and_closed() -> None:
    near, far = memory_stream_pair()
    peer = Peer(far, masks=True)
    async with anyws.serve(hang, listeners=[StubbornListener(near)]) as server:
        await peer.send_bytes(REQUEST + b"\r\n")
        await anyio.sleep(1.5)
        async with anyio.create_task_group() as tg:
            tg.start_soon(functools.partial(server.close, 1012, grace=3))
            assert (await peer.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            assert (await peer.answer_close()).code == 1012
            await peer.finish()


class StubbornListener(Listener[ByteStream]):
    """It accepts one stream, which takes a second for all, and sends on when it is cancelled."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = StubbornStream(stream, delay=1)

    async def serve(
        self, handler: Callable[[ByteStream], Any], task_group: TaskGroup | None = None
    ) -> None:
        assert task_group is not None
        task_group.start_soon(handler, self._stream)
        await anyio.sleep_forever()

    async def aclose(self) -> None:
        pass


class StubbornStream(FaultyStream):
    async def send(self, item: bytes) -> None:
        with anyio.CancelScope(shield=True):
            await super().send(item)


# How many: max_connections.


@pytest.mark.behaviour(99)
async def test_connection_above_max_connections_gets_503(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_memory(max_connections=2) as (server, connect):
        for _ in range(2):
            await open_peer(await connect())
        peer = await connect()
        await peer.send_bytes(REQUEST + b"\r\n")
        answer = parse_answer(await peer.read_until_eof())
        assert answer.status == 503
        assert b"no room" in answer.body
        assert len(server.connections) == 2
        await server.close(grace=0)
    assert loud_records(caplog) == []


@pytest.mark.behaviour(99)
async def test_place_is_free_again_once_a_connection_is_over() -> None:
    async with serving_memory(max_connections=1) as (_, connect):
        for _ in range(3):
            peer = await connect()
            await open_peer(peer)
            await peer.send_close()
            assert (await peer.read_frame()).opcode == CLOSE
            await peer.read_until_eof()
            await peer.finish()
            await anyio.sleep(0.1)


@pytest.mark.behaviour(99)
async def test_place_is_free_again_after_a_refused_handshake() -> None:
    async with serving_memory(max_connections=1) as (_, connect):
        for _ in range(3):
            peer = await connect()
            await peer.send_bytes(REQUEST + b"Origin: http://evil.example\r\n\r\n")
            assert parse_answer(await peer.read_until_eof()).status == 403
            await peer.finish()
            await anyio.sleep(0.1)


@pytest.mark.behaviour(99)
async def test_place_is_kept_until_the_handler_has_ended() -> None:
    async def linger(ws: anyws.Connection) -> None:
        await ws.wait_closed()
        await anyio.sleep(5)

    async with serving_memory(linger, max_connections=1) as (_, connect):
        first = await connect()
        await open_peer(first)
        await first.send_close()
        await first.read_until_eof()
        await first.finish()
        second = await connect()
        await second.send_bytes(REQUEST + b"\r\n")
        assert parse_answer(await second.read_until_eof()).status == 503
        await second.finish()
        await anyio.sleep(6)
        await open_peer(await connect())


@pytest.mark.behaviour(99)
async def test_max_connections_of_0_refuses_all() -> None:
    async with serving_memory(max_connections=0) as (_, connect):
        peer = await connect()
        await peer.send_bytes(REQUEST + b"\r\n")
        assert parse_answer(await peer.read_until_eof()).status == 503
