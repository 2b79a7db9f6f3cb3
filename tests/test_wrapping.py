"""Connections over any byte stream, without a listener or a name: wrap_server and wrap_client."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint

import anyws
from anyws.testing import memory_stream_pair
from tests.sockets import echo
from tests.wire import BINARY, MASK, REQUEST, TEXT, frame

if TYPE_CHECKING:
    from anyio.abc import ByteStream

pytestmark = pytest.mark.anyio


@pytest.mark.virtual_time
async def test_wrap_server_can_be_entered_only_once() -> None:
    listener, _ = memory_stream_pair()
    wrapped = anyws.wrap_server(listener, open_timeout=1)
    with pytest.raises(TimeoutError):
        await wrapped.__aenter__()
    with pytest.raises(RuntimeError, match="only once"):
        await wrapped.__aenter__()


@pytest.mark.virtual_time
@pytest.mark.behaviour(98)
async def test_wrap_server_raises_timeouterror_and_closes_the_stream_when_nothing_comes() -> None:
    near, far = memory_stream_pair()
    started_at = anyio.current_time()
    with pytest.raises(TimeoutError, match=r"no handshake within 3 seconds \(open_timeout\)"):
        async with anyws.wrap_server(near, open_timeout=3):
            raise AssertionError
    assert anyio.current_time() - started_at == pytest.approx(3)
    with pytest.raises(anyio.EndOfStream):
        await far.receive()


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"nonsense\r\n\r\n", anyws.InvalidMessage, "malformed HTTP request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", anyws.InvalidUpgrade, "missing Upgrade header"),
        (REQUEST + b"Origin: http://b.example\r\n\r\n", anyws.InvalidOrigin, "b.example"),
        (REQUEST, anyws.InvalidMessage, "connection closed while reading HTTP request head"),
        (b"", anyws.InvalidMessage, "connection closed before a request came"),
    ],
)
async def test_wrap_server_raises_why_it_refused(
    data: bytes, error: type[Exception], text: str
) -> None:
    near, far = memory_stream_pair()
    await far.send(data)
    await far.send_eof()
    with pytest.raises(error, match=text):
        async with anyws.wrap_server(near):
            raise AssertionError


@pytest.mark.virtual_time
async def test_wrap_server_raises_invalidmessage_when_the_client_leaves_before_the_response() -> (
    None
):
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    await far.aclose()
    with pytest.raises(anyws.InvalidMessage, match="connection lost during the opening") as caught:
        async with anyws.wrap_server(near):
            raise AssertionError
    assert isinstance(caught.value.__cause__, anyio.BrokenResourceError)


@pytest.mark.virtual_time
async def test_wrap_server_raises_the_status_that_a_hook_answered() -> None:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    await far.send_eof()
    with pytest.raises(anyws.InvalidStatus) as caught:
        async with anyws.wrap_server(near, process_request=lambda r: r.respond(401, "who?")):
            raise AssertionError
    assert (caught.value.response.status, caught.value.response.body) == (401, b"who?")


@pytest.mark.virtual_time
async def test_wrap_server_closes_the_stream_when_it_is_cancelled() -> None:
    near, far = memory_stream_pair()
    with anyio.move_on_after(1) as scope:
        async with anyws.wrap_server(near):
            raise AssertionError
    assert scope.cancelled_caught
    with pytest.raises(anyio.BrokenResourceError):
        await far.send(b"x")


@pytest.mark.virtual_time
async def test_wrap_server_gives_a_connection_over_any_stream() -> None:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n" + frame(TEXT, b"hello", mask=MASK))
    async with anyws.wrap_server(near, close_timeout=1) as ws:
        assert await ws.recv() == "hello"
        assert (ws.local_address, ws.remote_address) == (None, None)


@pytest.mark.virtual_time
async def test_wrap_server_and_wrap_client_understand_each_other() -> None:
    near, far = memory_stream_pair()

    async def serve(stream: ByteStream) -> None:
        async with anyws.wrap_server(stream) as ws:
            await echo(ws)

    async with anyio.create_task_group() as tg:
        tg.start_soon(serve, far)
        async with anyws.wrap_client(near) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


async def test_wrap_server_cannot_be_awaited() -> None:
    near, far = memory_stream_pair()
    with pytest.raises(TypeError, match=r"use `async with wrap_server"):
        await anyws.wrap_server(near)  # type: ignore[misc]  # so
    await near.aclose()
    await far.aclose()


@pytest.mark.virtual_time
async def test_wrap_server_raises_why_it_refused_when_the_client_takes_its_time_to_leave() -> None:
    near, far = memory_stream_pair()
    await far.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    with pytest.raises(anyws.InvalidUpgrade, match="missing Upgrade header"):
        async with anyws.wrap_server(near, open_timeout=0.5):
            raise AssertionError
    await far.aclose()


async def test_flood_that_makes_no_pause_is_bounded_on_a_stream_that_anyio_accepted() -> None:
    listener: Any = (await anyio.create_tcp_listener(local_host="127.0.0.1")).listeners[0]
    port = listener.extra(SocketAttribute.local_port)
    message = frame(BINARY, b"x" * 60_000, mask=MASK)
    sent = 0
    flooded = anyio.Event()

    async def flood() -> None:
        nonlocal sent
        turns_without = 0
        while turns_without < 100 and sent < 100_000_000:
            turns_without += 1
            with suppress(BlockingIOError):
                while sent < 100_000_000:
                    sent += client.send(message)
                    turns_without = 0
            await checkpoint()
        flooded.set()

    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(REQUEST + b"\r\n" + message * 10)
        client.setblocking(False)
        async with listener, await listener.accept() as stream:
            async with anyio.create_task_group() as tg:
                tg.start_soon(flood)
                async with anyws.wrap_server(stream, max_queue=4, close_timeout=0.001) as ws:
                    await flooded.wait()
                    ws.abort()
    assert sent < 50_000_000
