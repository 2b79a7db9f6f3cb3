"""Each transport, connected to a plain stream: the parameters of the tests in `test_transports`.

Owns how the two ends of a connection are made over memory, TCP, UNIX sockets and TLS. A new
transport adds an entry to LINKS and passes the same tests.
"""

from __future__ import annotations

import socket
import tempfile
from array import array
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import Event, TypedAttributeProvider, create_task_group, fail_after
from anyio.abc import SocketAttribute, SocketListener
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSStream

from anyws._transports import (
    NativeListener,
    Transport,
    native_listener,
    socket_transport,
    wrap,
    wrap_tls,
)
from anyws._transports._dial import dial_tcp
from anyws.testing import memory_stream_pair
from tests.tls import client_context, server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import ByteStream, SocketStream


# Seconds. Each test takes a few milliseconds: one that comes near it hangs.
LIMIT = 10

# Our sockets are told to hold little, so this is more than a connection holds.
FLOOD = 2**20
SOCKET_BUFFER_SIZE = 32768


@dataclass
class Link:
    """A transport, the stream at its other end, and what that one runs over."""

    transport: Transport
    peer: ByteStream
    below: ByteStream


@asynccontextmanager
async def memory() -> AsyncGenerator[Link, None]:
    near, far = memory_stream_pair()
    async with near, far:
        yield Link(wrap(near), far, far)


def limit_buffers(*streams: TypedAttributeProvider) -> None:
    for stream in streams:
        raw = stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_SIZE)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_SIZE)


@asynccontextmanager
async def tcp_streams() -> AsyncGenerator[tuple[SocketStream, SocketStream], None]:
    """Give the two ends of a TCP connection, as anyio's streams."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        (one,) = listener.listeners
        far = await anyio.connect_tcp("127.0.0.1", one.extra(SocketAttribute.local_port))
        assert isinstance(one, SocketListener)
        near = await one.accept()
        limit_buffers(near, far)
        async with near, far:
            yield near, far


@asynccontextmanager
async def native_streams() -> AsyncGenerator[tuple[Transport, SocketStream], None]:
    """Give the two ends of a TCP connection, of which the first is a transport of our own."""
    async with await listen() as listener:
        far = await anyio.connect_tcp("127.0.0.1", listener.extra(SocketAttribute.local_port))
        near = await accept(listener)
        limit_buffers(far)
        async with near, far:
            yield near, far


async def listen() -> NativeListener:
    """Listen on the loopback, for transports of our own."""
    below = await anyio.create_tcp_listener(local_host="127.0.0.1")
    return native_listener(below.listeners[0])


async def accept(listener: NativeListener) -> Transport:
    """Take one connection from a listener of our own."""
    accepted: list[Transport] = []

    async def take(transport: Transport) -> None:
        accepted.append(transport)
        tg.cancel_scope.cancel()

    async with create_task_group() as tg:
        await listener.serve(take, tg)
    (transport,) = accepted
    limit_buffers(transport)
    return transport


@asynccontextmanager
async def tcp() -> AsyncGenerator[Link, None]:
    async with tcp_streams() as (near, far):
        yield Link(wrap(near), far, far)


@asynccontextmanager
async def native_tcp() -> AsyncGenerator[Link, None]:
    async with native_streams() as (near, far):
        yield Link(near, far, far)


@asynccontextmanager
async def native_dialled() -> AsyncGenerator[Link, None]:
    async with await listen() as listener:
        raw = await dial_tcp("127.0.0.1", listener.extra(SocketAttribute.local_port))
        near = socket_transport()(raw)
        # A stream of anyio's that asyncio has accepted reads before it is asked to.
        far = await accept(listener)
        limit_buffers(near)
        async with near, far:
            yield Link(near, far, far)


@asynccontextmanager
async def native_unix() -> AsyncGenerator[Link, None]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "socket")
        below = await anyio.create_unix_listener(path)
        async with native_listener(below) as listener:
            far = await anyio.connect_unix(path)
            near = await accept(listener)
            limit_buffers(far)
            async with near, far:
                yield Link(near, far, far)


@cache
def context(server_side: bool) -> ssl.SSLContext:
    return server_context() if server_side else client_context()


@asynccontextmanager
async def tls() -> AsyncGenerator[Link, None]:
    async with tcp_streams() as (near, far), tls_over(near, far) as link:
        yield link


@asynccontextmanager
async def native_tls() -> AsyncGenerator[Link, None]:
    async with native_streams() as (near, far), tls_over(near, far) as link:
        yield link


@asynccontextmanager
async def native_tls_in_tls() -> AsyncGenerator[Link, None]:
    """Give what leads to a server with TLS through a proxy with TLS."""
    async with native_streams() as (near, far), tls_over(near, far) as outer:
        async with tls_over(outer.transport, outer.peer) as inner:
            yield Link(inner.transport, inner.peer, far)


@asynccontextmanager
async def tls_over(near: ByteStream, far: ByteStream) -> AsyncGenerator[Link, None]:
    transports: list[Transport] = []

    async def shake_hands() -> None:
        transports.append(await wrap_tls(near, context(True), server_side=True))

    async with create_task_group() as tg:
        tg.start_soon(shake_hands)
        peer = await TLSStream.wrap(far, hostname="localhost", ssl_context=context(False))
    yield Link(transports[0], peer, far)


@dataclass(frozen=True)
class Kind:
    """A kind of transport, and what it cannot do."""

    link: Callable[[], AbstractAsyncContextManager[Link]]
    has_halves: bool = True
    """Whether one direction can end without the other."""
    has_resets: bool = True
    """Whether the peer can break off so that our reading fails."""
    closes_at_once: bool = False
    """Whether it closes without waiting when nothing is unsent."""


KINDS = {
    "memory": Kind(memory, has_resets=False),
    "tcp": Kind(tcp),
    "tls": Kind(tls, has_halves=False),
    "native-tcp": Kind(native_tcp, closes_at_once=True),
    "native-dialled": Kind(native_dialled, closes_at_once=True),
    "native-unix": Kind(native_unix, has_resets=False, closes_at_once=True),
    "native-tls": Kind(native_tls, has_halves=False),
    "native-tls-in-tls": Kind(native_tls_in_tls, has_halves=False),
}


@dataclass
class Run:
    """Stands in for a connection: what a transport gives it, and how it ends."""

    transport: Transport
    received: bytearray = field(default_factory=bytearray)
    read_error: Exception | None = None
    write_error: Exception | None = None
    read: Event = field(default_factory=Event)
    """Set when nothing more will come."""
    written: Event = field(default_factory=Event)
    """Set when nothing more will leave."""
    changed: Event = field(default_factory=Event)
    on_feed: Callable[[], None] = lambda: None
    several: bool = False
    """What `feed` returns."""

    def feed(self, data: bytes | memoryview) -> bool:
        self.received += data
        self.on_feed()
        self.changed.set()
        self.changed = Event()
        return self.several

    def end_reading(self, error: Exception | None) -> None:
        assert not self.read.is_set()
        self.read_error = error
        self.read.set()

    def end_writing(self, error: Exception | None) -> None:
        assert not self.written.is_set()
        self.write_error = error
        self.written.set()

    async def receive(self, size: int) -> None:
        """Wait until so many bytes have been received in all."""
        while len(self.received) < size:
            await self.changed.wait()


@asynccontextmanager
async def running(transport: Transport) -> AsyncGenerator[Run, None]:
    """Run a transport as a connection does, and close it in the end."""
    run = Run(transport)
    async with create_task_group() as tg:
        transport.start(run, tg)
        try:
            yield run
        finally:
            transport.abort()
    await transport.aclose()


async def read_exactly(stream: ByteStream, size: int) -> bytes:
    """Read so many bytes and no more."""
    data = bytearray()
    while len(data) < size:
        data += await stream.receive(size - len(data))
    return bytes(data)


async def read_until_end(stream: ByteStream) -> bytes:
    """Read all that still comes; any end is one."""
    data = bytearray()
    try:
        while True:
            data += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return bytes(data)


@asynccontextmanager
async def linked(kind: Kind) -> AsyncGenerator[tuple[Transport, ByteStream], None]:
    """Give a transport that nothing runs on, and the stream at its other end."""
    with fail_after(LIMIT):
        async with kind.link() as link:
            yield link.transport, link.peer


@asynccontextmanager
async def opened(kind: Kind) -> AsyncGenerator[tuple[Run, Transport, Link], None]:
    """Give a transport that runs."""
    with fail_after(LIMIT):
        async with kind.link() as link, running(link.transport) as run:
            yield run, link.transport, link


def numbered(size: int) -> bytes:
    """Give bytes of which each four have their own place."""
    return array("I", range(size // 4)).tobytes()


DATA = numbered(FLOOD)


async def settle() -> None:
    """Let the tasks and the sockets come to where they wait.

    On asyncio `wait_all_tasks_blocked` takes a tenth of a second.
    """
    for _ in range(30):
        await checkpoint()


async def fill(transport: Transport) -> None:
    """Write more than the stream takes, and wait until it is stuck."""
    for start in range(0, FLOOD, 65536):
        transport.write(DATA[start : start + 65536])
    await settle()
