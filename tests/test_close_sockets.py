"""Endings over real sockets: the Close frame arrives before TCP ends, every time."""

from __future__ import annotations

import base64
import hashlib
import ssl
from typing import TYPE_CHECKING

import anyio
import pytest
import trustme
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSStream

import anyws
from tests.endings import background, read_closes
from tests.sockets import open_peer, raw_client, serving
from tests.wire import BINARY, CLOSE, MASK, REQUEST, Peer, frame, parse_frames

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import SocketStream

pytestmark = pytest.mark.anyio

# On three event loops, that makes a thousand.
ROUNDS = 334
AT_ONCE = 20

# What is in flight behind the frame that breaks the protocol: it lies unread in the socket of who
# answers with a Close frame, and closing such a socket resets the stream.
BEHIND = 20_000


async def receive_until_closed(ws: anyws.Connection) -> None:
    with pytest.raises(anyws.ConnectionClosedError) as caught:
        await ws.recv()
    assert isinstance(caught.value.__cause__, anyws.ProtocolError)


async def break_protocol(peer: Peer) -> None:
    """Send a bad frame with data in flight behind it; see a Close frame, then EOF, and no reset."""
    mask = MASK if peer.masks else None
    await peer.send_bytes(frame(0x3, mask=mask) + frame(BINARY, bytes(BEHIND // 2), mask=mask))
    await peer.send_bytes(frame(BINARY, bytes(BEHIND // 2), mask=mask))
    (close,) = parse_frames(await peer.read_until_eof())
    assert (close.opcode, close.code) == (CLOSE, 1002)


async def repeat(rounds: int, play: Callable[[], Awaitable[None]]) -> None:
    """Play so many rounds, some of them at once."""
    left = rounds

    async def work() -> None:
        nonlocal left
        while left:
            left -= 1
            await play()

    with anyio.fail_after(50):
        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(work)


@pytest.mark.behaviour(29)
async def test_client_that_breaks_the_protocol_reads_a_close_frame_then_eof_every_time() -> None:
    ended = 0

    async def handle(ws: anyws.Connection) -> None:
        nonlocal ended
        await receive_until_closed(ws)
        await ws.wait_closed()
        ended += 1

    async with anyws.serve(handle, "127.0.0.1", compression=None, handler_errors="raise") as server:

        async def play() -> None:
            async with raw_client(server.port) as peer:
                await open_peer(peer)
                await break_protocol(peer)

        await repeat(ROUNDS, play)
    assert ended == ROUNDS


@pytest.mark.behaviour(29)
async def test_server_that_breaks_the_protocol_reads_a_close_frame_then_eof_every_time() -> None:
    broken = 0

    async def accept(stream: SocketStream) -> None:
        nonlocal broken
        async with stream:
            peer = Peer(stream, masks=False)
            await answer_handshake(peer)
            await break_protocol(peer)
            broken += 1

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        uri = f"ws://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/"

        async def play() -> None:
            async with anyws.connect(uri, compression=None) as ws:
                await receive_until_closed(ws)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, accept)
            await repeat(ROUNDS, play)
            tasks.cancel_scope.cancel()
    assert broken == ROUNDS


async def answer_handshake(peer: Peer) -> None:
    head = await peer.read_until(b"\r\n\r\n")
    _, _, rest = head.partition(b"Sec-WebSocket-Key: ")
    key, _, _ = rest.partition(b"\r\n")
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    await peer.send_bytes(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


@pytest.mark.behaviour(29)
async def test_client_that_goes_on_sending_reads_a_close_frame_then_eof() -> None:
    async def flood(peer: Peer) -> None:
        await peer.send(0x3)
        while True:
            await peer.send(BINARY, bytes(1000))

    async with serving(receive_until_closed, compression=None, handler_errors="raise") as server:

        async def play() -> None:
            async with raw_client(server.port) as peer:
                await open_peer(peer)
                async with background(flood, peer):
                    (close,) = await read_closes(peer)
                    assert close.code == 1002

        await repeat(100, play)


@pytest.mark.behaviour(29)
async def test_tls_client_that_breaks_the_protocol_reads_a_close_frame_then_the_end() -> None:
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client_context)

    async with serving(
        receive_until_closed, ssl=server_context, compression=None, handler_errors="raise"
    ) as server:

        async def play() -> None:
            async with raw_client(server.port) as peer:
                assert isinstance(peer.stream, anyio.abc.SocketStream)
                stream = await TLSStream.wrap(
                    peer.stream, hostname="localhost", ssl_context=client_context
                )
                await stream.send(REQUEST + b"\r\n")
                secure_peer = Peer(stream, masks=True)
                await secure_peer.read_until(b"\r\n\r\n")
                await break_protocol(secure_peer)

        await repeat(100, play)


@pytest.mark.behaviour(29)
async def test_close_frames_are_exchanged_over_sockets() -> None:
    closed: list[int | None] = []

    async def handle(ws: anyws.Connection) -> None:
        await ws.send("Hello")
        await ws.close(4000, "enough")
        closed.append(ws.close_code)

    async with serving(handle, compression=None, handler_errors="raise") as server:

        async def play() -> None:
            async with raw_client(server.port) as peer:
                await open_peer(peer)
                await peer.read_frame()
                close = await peer.answer_close()
                assert (close.code, close.reason) == (4000, "enough")
                assert await peer.read_until_eof() == b""

        await repeat(100, play)
    assert closed == [4000] * 100
