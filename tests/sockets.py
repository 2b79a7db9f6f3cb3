"""Literal bytes over real sockets on the loopback interface, and over memory to a running server.

Owns the sockets that tests listen and connect with, the parsing of HTTP answers as RFC 9112 draws
them, and the seconds that a test with sockets may take. Virtual time is for memory alone.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketAttribute

import anyws
from anyws.testing import MemoryListener
from tests.wire import REQUEST, Peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    import pytest
    from anyio.abc import SocketStream

# Seconds. Each test takes a few milliseconds: one that comes near it hangs.
LIMIT = 10

ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"  # RFC 6455 section 1.3

# The response that opens a connection, but for its last line; ACCEPT stands for the key.
GOOD = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: ACCEPT\r\n"
)


async def echo(ws: anyws.Connection) -> None:
    async for message in ws:
        await ws.send(message)


@asynccontextmanager
async def serving(
    handler: Callable[[anyws.Connection], Awaitable[None]] = echo,
    host: str | None = "127.0.0.1",
    **arguments: Any,
) -> AsyncGenerator[anyws.Server, None]:
    """Serve on the loopback interface, for the time of a test."""
    with anyio.fail_after(LIMIT):
        async with anyws.serve(handler, host, **arguments) as server:
            yield server


@asynccontextmanager
async def serving_memory(
    handler: Callable[[anyws.Connection], Awaitable[None]] = echo, **arguments: Any
) -> AsyncGenerator[tuple[anyws.Server, Callable[..., Awaitable[Peer]]], None]:
    """Serve in memory; what comes with the server connects a literal client to it.

    It takes the bytes that each direction between the two holds.
    """
    listener = MemoryListener()

    async def connect(max_buffer_size: int = 65536) -> Peer:
        return Peer(await listener.connect(max_buffer_size), masks=True)

    async with anyws.serve(handler, listeners=[listener], **arguments) as server:
        yield server, connect


@asynccontextmanager
async def raw_client(port: int) -> AsyncGenerator[Peer, None]:
    """Connect a literal client over TCP."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        yield Peer(stream, masks=True)


HANDLER_FAILED = r"(?<=^connection handler failed) \(.*\)$"


async def open_peer(peer: Peer, headers: bytes = b"") -> bytes:
    """Run the opening handshake as a literal client; give the head of the response."""
    await peer.send_bytes(REQUEST + headers + b"\r\n")
    head = await peer.read_until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    return head


async def exchange(port: int, data: bytes) -> Answer:
    """Send `data` over TCP and give the answer, which is all that comes until the server ends."""
    async with raw_client(port) as peer:
        await peer.send_bytes(data)
        return parse_answer(await peer.read_until_eof())


@asynccontextmanager
async def scripted_server(
    script: Callable[[Peer], Awaitable[None]],
) -> AsyncGenerator[int, None]:
    """Run a literal server on the loopback interface, `script` for each connection.

    It gives the port.
    """

    async def run(stream: SocketStream) -> None:
        async with stream:
            # The client leaves, as most of these tests want it to.
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                await script(Peer(stream, masks=False))

    with anyio.fail_after(LIMIT):
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            error: Exception | None = None
            async with anyio.create_task_group() as tg:
                tg.start_soon(listener.serve, run)
                try:
                    yield listener.extra(SocketAttribute.local_port)
                except Exception as exc:  # noqa: BLE001  # it is to leave without a group around it
                    error = exc
                tg.cancel_scope.cancel()
            if error is not None:
                raise error


async def read_request(peer: Peer) -> tuple[bytes, bytes]:
    """Give the head of the request, and the accept key that answers it (RFC 6455 section 4.2.2)."""
    head = await peer.read_until(b"\r\n\r\n")
    match = re.search(rb"\r\nSec-WebSocket-Key: ([A-Za-z0-9+/]{22}==)\r\n", head)
    assert match is not None, head
    digest = hashlib.sha1(match[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return head, base64.b64encode(digest)


def answering(
    template: bytes, *, then: Callable[[Peer], Awaitable[object]] = Peer.read_until_eof
) -> Callable[[Peer], Awaitable[None]]:
    """Make a server that answers a request with `template`, in which ACCEPT stands for the key."""

    async def script(peer: Peer) -> None:
        _, accept = await read_request(peer)
        await peer.send_bytes(template.replace(b"ACCEPT", accept))
        await then(peer)

    return script


@dataclass(frozen=True)
class Answer:
    """An HTTP response, with all that came behind its head as the body."""

    raw: bytes
    status: int
    fields: dict[str, str]
    body: bytes


def parse_answer(data: bytes) -> Answer:
    """Parse an HTTP response whose fields all have names of their own."""
    head, end, body = data.partition(b"\r\n\r\n")
    assert end, f"no end of the head: {data[:200]!r}"
    line, *lines = head.decode("latin-1").split("\r\n")
    version, status, _ = line.split(" ", 2)
    assert version == "HTTP/1.1"
    pairs = [text.split(": ", 1) for text in lines]
    fields = {name.lower(): value for name, value in pairs}
    assert len(fields) == len(pairs), f"a field comes twice: {head!r}"
    return Answer(data, int(status), fields, body)


def loud_records(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give what was logged at WARNING or above, by any logger; without whose handler failed."""
    return [
        f"{record.name}: {re.sub(HANDLER_FAILED, '', record.getMessage())}"
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]
