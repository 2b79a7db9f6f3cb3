"""Connections and servers as blocks of code over real sockets: progress, leftovers, silent logs.

Owns lines 87 and 91 of docs/behaviours.md, and what of lines 88 and 89 needs sockets; knows no
virtual time.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import math
import socket
import struct
import weakref
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import anyio
import pytest
import trio
from anyio.abc import SocketAttribute

import anyws
from anyws._transports._socket import SocketTransport
from anyws.testing import connection_pair
from tests.sockets import (
    LIMIT,
    echo,
    loud_records,
    open_peer,
    raw_client,
    scripted_server,
    serving,
)
from tests.transports import settle
from tests.wire import BINARY, MASK, REQUEST, TEXT, Peer, frame

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

pytestmark = pytest.mark.anyio

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE


class BodyError(Exception):
    """What the body of a block raises."""


# Both sides stream at each other at once (line 87).


async def stream_both_ways(
    here: anyws.Connection, there: anyws.Connection, *, count: int, size: int
) -> None:
    """Send `count` messages of `size` bytes from both ends at once, and receive them."""

    async def send(ws: anyws.Connection, letter: bytes) -> None:
        message = letter * size
        for _ in range(count):
            await ws.send(message)

    async def receive(ws: anyws.Connection, letter: bytes) -> None:
        message = letter * size
        for _ in range(count):
            assert await ws.recv() == message

    async with anyio.create_task_group() as tg:
        for ws, other, letter in ((here, there, b"h"), (there, here, b"t")):
            tg.start_soon(send, ws, letter)
            tg.start_soon(receive, other, letter)


@asynccontextmanager
async def pair_over_tcp(**arguments: Any) -> AsyncGenerator[tuple[anyws.Connection, ...], None]:
    """Give the two ends of a connection over the loopback interface."""
    accepted: list[anyws.Connection] = []
    ready = anyio.Event()

    async def handler(ws: anyws.Connection) -> None:
        accepted.append(ws)
        ready.set()
        await ws.wait_closed()

    async with serving(handler, **arguments) as server:
        async with anyws.connect(f"ws://127.0.0.1:{server.port}/", **arguments) as client:
            await ready.wait()
            yield client, accepted[0]


@pytest.mark.behaviour(87)
async def test_both_sides_stream_50_megabytes_at_each_other_at_once_over_tcp() -> None:
    async with pair_over_tcp(compression=None) as (client, server):
        await stream_both_ways(client, server, count=200, size=256 * KIBIBYTE)


@pytest.mark.behaviour(87)
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("max_buffer_size", [1, 4 * KIBIBYTE, 64 * KIBIBYTE])
async def test_both_sides_stream_at_each_other_at_once_in_memory(
    max_buffer_size: int, compression: Literal["deflate"] | None
) -> None:
    count, size = (20, 256 * KIBIBYTE) if max_buffer_size > 1 else (4, KIBIBYTE)
    with anyio.fail_after(LIMIT):
        async with connection_pair(max_buffer_size=max_buffer_size, compression=compression) as (
            client,
            server,
        ):
            await stream_both_ways(client, server, count=count, size=size)


@pytest.mark.behaviour(87)
async def test_both_sides_finish_when_each_sends_all_before_it_receives() -> None:
    # Neither receives while it sends: two messages fit into its inbox, and one on the way there.
    async def send_then_receive(ws: anyws.Connection) -> None:
        for _ in range(3):
            await ws.send(b"x" * 32 * KIBIBYTE)
        for _ in range(3):
            assert await ws.recv() == b"x" * 32 * KIBIBYTE

    with anyio.fail_after(LIMIT):
        async with connection_pair(max_buffer_size=16 * KIBIBYTE, compression=None) as ends:
            async with anyio.create_task_group() as tg:
                for ws in ends:
                    tg.start_soon(send_then_receive, ws)


# The body's exception leaves connect and serve as itself (line 88).


@pytest.mark.behaviour(88)
@pytest.mark.parametrize("cancelled_too", [False, True])
async def test_error_leaves_connect_and_serve_as_itself(cancelled_too: bool) -> None:
    error = BodyError()
    with anyio.fail_after(LIMIT), pytest.raises(BodyError) as raised:
        with anyio.CancelScope() as scope:
            async with anyws.serve(echo, "127.0.0.1") as server:
                async with anyws.connect(f"ws://127.0.0.1:{server.port}/") as ws:
                    await ws.send("on its way")
                    try:
                        if cancelled_too:
                            scope.cancel()
                            await anyio.sleep_forever()
                    finally:
                        raise error
    assert raised.value is error
    assert (error.__context__ is not None) is cancelled_too


# Nothing is left behind (line 89); conftest.py looks for tasks and sockets after every test.


def pending_timers(backend: str) -> list[Any]:
    """Give what the event loop still waits for in time; uvloop does not tell."""
    if backend == "trio":
        seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
        return [] if math.isinf(seconds) else [seconds]
    scheduled: list[asyncio.TimerHandle] = getattr(asyncio.get_running_loop(), "_scheduled", [])
    return [timer for timer in scheduled if not timer.cancelled()]


async def leaves(ws: anyws.Connection) -> None:
    await ws.send("text")


async def raises(ws: anyws.Connection) -> None:
    raise BodyError


async def aborts(ws: anyws.Connection) -> None:
    ws.send_nowait(b"x" * MEBIBYTE)
    ws.abort()


async def is_cancelled(ws: anyws.Connection) -> None:
    ws.start_soon(anyio.sleep_forever)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await ws.close()


async def sends_what_is_too_big(ws: anyws.Connection) -> None:
    await ws.send(b"x" * 2 * MEBIBYTE)
    with pytest.raises(anyws.ConnectionClosedError):
        await ws.recv()


async def waits_for_a_close_that_never_comes(ws: anyws.Connection) -> None:
    # The other end closes at the same moment.
    await ws.close()


@pytest.mark.behaviour(89)
@pytest.mark.parametrize(
    "ending",
    [
        leaves,
        raises,
        aborts,
        is_cancelled,
        sends_what_is_too_big,
        waits_for_a_close_that_never_comes,
    ],
)
async def test_no_timer_is_left_behind_over_tcp(
    ending: Callable[[anyws.Connection], Awaitable[None]], anyio_backend_name: str
) -> None:
    before = pending_timers(anyio_backend_name)
    with suppress(BodyError):
        async with pair_over_tcp() as (client, _):
            await ending(client)
    with suppress(BodyError):
        async with pair_over_tcp() as (_, server_side):
            await ending(server_side)
    assert pending_timers(anyio_backend_name) == before


# A peer's ordinary behaviour is not worth a record at WARNING or above (line 91).


def visit(port: int, data: bytes, *, reset: bool) -> None:
    """Connect, send, and leave at once, with a reset or not."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(data)


OPENING = REQUEST + b"\r\n"

leavings = pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="TCP probe"),
        pytest.param(b"GET / HT", id="half a line"),
        pytest.param(REQUEST, id="half a request"),
        pytest.param(OPENING, id="a request"),
        pytest.param(OPENING + frame(TEXT, b"text", mask=MASK), id="a message"),
        pytest.param(OPENING + frame(TEXT, b"text", mask=MASK)[:5], id="half a frame"),
        pytest.param(OPENING + frame(BINARY, b"x" * 99_999, mask=MASK)[:70_000], id="a lot"),
    ],
)


@pytest.mark.behaviour(91)
@pytest.mark.parametrize("reset", [False, True])
@leavings
async def test_client_that_leaves_is_not_worth_a_record(
    data: bytes, reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as server:
        for _ in range(3):
            visit(server.port, data, reset=reset)
        async with anyws.connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("still there")
            assert await ws.recv() == "still there"
    gc.collect()
    assert loud_records(caplog) == []


@pytest.mark.behaviour(91)
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("answer", ["101", "403"])
async def test_client_that_leaves_while_its_request_is_looked_at_is_not_worth_a_record(
    reset: bool, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    left = anyio.Event()
    looking = anyio.Event()

    async def process_request(request: anyws.Request) -> anyws.Response | None:
        if request.path == "/chat":
            looking.set()
            await left.wait()
            if answer == "403":
                return request.respond(403, "no\n")
        return None

    async with serving(process_request=process_request) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(OPENING)
            await looking.wait()
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        left.set()
        async with anyws.connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("still there")
            assert await ws.recv() == "still there"
    gc.collect()
    assert loud_records(caplog) == []


@pytest.mark.behaviour(91)
@pytest.mark.parametrize("reset", [False, True])
async def test_client_that_leaves_while_much_is_sent_to_it_is_not_worth_a_record(
    reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ended = anyio.Event()

    async def handler(ws: anyws.Connection) -> None:
        try:
            while True:
                await ws.send(b"x" * MEBIBYTE)
        finally:
            ended.set()

    async with serving(handler) as server:
        async with raw_client(server.port) as peer:
            await open_peer(peer)
            await peer.read(100_000)
            if reset:
                raw_socket = peer.stream.extra(SocketAttribute.raw_socket)
                raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await ended.wait()
    gc.collect()
    assert loud_records(caplog) == []


@pytest.mark.behaviour(13, 71)
async def test_senders_that_wait_end_when_the_peer_is_lost_while_reading_is_paused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drain = SocketTransport.drain
    calls = 0

    async def drain_counted(transport: SocketTransport, limit: int) -> bool:
        # Who asks again and again, without waiting, lets nobody else run: no time-out would end it.
        nonlocal calls
        calls += 1
        assert calls < 20
        return await drain(transport, limit)

    monkeypatch.setattr(SocketTransport, "drain", drain_counted)
    errors: list[anyws.ConnectionClosed] = []
    sending, ended = anyio.Event(), anyio.Event()

    async def send(ws: anyws.Connection) -> None:
        try:
            await ws.send(b"x" * 16 * MEBIBYTE)
        except anyws.ConnectionClosed as exc:
            errors.append(exc)

    async def handler(ws: anyws.Connection) -> None:
        async with anyio.create_task_group() as tg:
            for _ in range(3):
                tg.start_soon(send, ws)
            await settle()
            sending.set()
        ended.set()

    async with serving(handler, max_queue=1, close_timeout=0.2) as server:
        async with raw_client(server.port) as peer:
            await open_peer(peer)
            # One more than the queue holds: the reset is met by what sends.
            await peer.send_bytes(2 * frame(TEXT, b"text", mask=MASK))
            await sending.wait()
            raw_socket = peer.stream.extra(SocketAttribute.raw_socket)
            raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await ended.wait()
    assert len(errors) == 3


@pytest.mark.behaviour(91)
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("stage", ["at once", "in the response", "when open", "in a frame"])
async def test_server_that_leaves_is_not_worth_a_record(
    stage: str, reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(peer: Peer) -> None:
        if stage != "at once":
            request = await peer.read_until(b"\r\n\r\n")
            response = response_to(request)
            await peer.send_bytes(response[:20] if stage == "in the response" else response)
        if stage == "in a frame":
            await peer.send_bytes(frame(TEXT, b"text")[:4])
        if reset:
            raw_socket = peer.stream.extra(SocketAttribute.raw_socket)
            raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with scripted_server(script) as port:
        # A reset may come as soon as TCP stands, before there is a handshake that could fail.
        with pytest.raises(
            (anyws.InvalidHandshake, anyws.ConnectionClosedError, ConnectionResetError)
        ):
            async with anyws.connect(f"ws://127.0.0.1:{port}/") as ws:
                await ws.recv()
    gc.collect()
    assert loud_records(caplog) == []


def response_to(request: bytes) -> bytes:
    """Draw the response that opens a connection (RFC 6455 section 4.2.2)."""
    key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


# What comes after the end.


async def test_abort_has_no_effect_after_the_end() -> None:
    connections: list[anyws.Connection] = []

    async def keep(ws: anyws.Connection) -> None:
        connections.append(ws)
        await echo(ws)

    async with anyws.serve(keep, "127.0.0.1", 0) as server:
        async with anyws.connect(f"ws://127.0.0.1:{server.port}/") as ws:
            connections.append(ws)
        await connections[0].wait_closed()
        for connection in connections:
            connection.abort()
            assert connection.close_code == 1000


@pytest.mark.parametrize("receive", ["recv", "iterate"])
async def test_connection_that_was_lost_is_no_garbage(receive: str) -> None:
    async def use() -> weakref.ref[anyws.Connection]:
        async with connection_pair() as (ws, other):
            other.abort()
            with suppress(anyws.ConnectionClosedError):
                if receive == "recv":
                    await ws.recv()
                async for _ in ws:
                    raise AssertionError
            return weakref.ref(ws)

    gc.collect()
    gc.disable()
    try:
        kept = await use()
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        assert kept() is None
    finally:
        gc.enable()
