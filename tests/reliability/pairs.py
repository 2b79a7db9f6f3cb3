"""Connections of anyws that face a strict peer: over memory, TCP and TLS, as client and as server.

Owns the streams between the two; what the peer lets pass stands in `strict`. The stream of anyws is
closed by nobody else, so that one which it forgets is found.
"""

from __future__ import annotations

import itertools
import socket
import sys
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anyio import (
    BrokenResourceError,
    CancelScope,
    ClosedResourceError,
    EndOfStream,
    aclose_forcefully,
    create_task_group,
    wait_readable,
)
from anyio.abc import SocketStream
from anyio.streams.tls import TLSStream

import anyws
from anyws._transports import socket_transport
from anyws.testing import memory_stream_pair
from tests.reliability.strict import StrictPeer
from tests.reliability.sweeping import Scenario
from tests.transports import SOCKET_BUFFER_SIZE, context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from anyio.abc import ByteStream, TaskGroup

    from tests.reliability.cutting import Cut


@dataclass(frozen=True)
class Kind:
    """What a connection runs over, and which side of it is ours."""

    client: bool
    """Whether anyws is the client."""
    tcp: bool = False
    """Whether it runs over a socket, not over memory."""
    tls: bool = False
    foreign: bool = False
    """Whether the stream is anyio's, TLS included, as a user of wrap_client() may have it."""

    @property
    def virtual(self) -> bool:
        """Whether it can run in virtual time."""
        return not self.tcp

    def __str__(self) -> str:
        below = "anyio's " if self.foreign else ""
        below += "TLS over " if self.tls else ""
        return (
            f"{'client' if self.client else 'server'} over {below}{'TCP' if self.tcp else 'memory'}"
        )


MEMORY = (Kind(client=True), Kind(client=False))
TCP = (Kind(client=True, tcp=True), Kind(client=False, tcp=True))
TLS = (Kind(client=True, tcp=True, tls=True), Kind(client=False, tcp=True, tls=True))
MEMORY_TLS = (Kind(client=True, tls=True), Kind(client=False, tls=True))
FOREIGN = tuple(
    Kind(client, tcp, tls, foreign=True)
    for tcp, tls in ((True, False), (True, True), (False, True))
    for client in (True, False)
)
PLAIN = MEMORY + TCP
ALL = PLAIN + TLS + MEMORY_TLS + FOREIGN


# A connection that has ended keeps its port for a minute, and a sweep makes more of them than one
# address has ports. Elsewhere than on Linux there may be one address alone.
_ADDRESSES = itertools.cycle(
    [f"127.0.0.{number}" for number in range(1, 255)] if sys.platform == "linux" else ["127.0.0.1"]
)


def tcp_sockets() -> tuple[socket.socket, socket.socket]:
    """Connect two sockets on the loopback interface, which needs no waiting."""
    with socket.create_server((next(_ADDRESSES), 0)) as server:
        far = socket.create_connection(server.getsockname())
        near, _ = server.accept()
    for one in (near, far):
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_SIZE)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_SIZE)
    return near, far


async def streams(kind: Kind, max_buffer_size: int = 65536) -> tuple[ByteStream, ByteStream]:
    """Give the stream that anyws takes, and the one at its other end, which has no TLS yet."""
    if not kind.tcp:
        return memory_stream_pair(max_buffer_size)
    near, far = tcp_sockets()
    far_stream = await SocketStream.from_socket(far)
    if kind.foreign:
        return await SocketStream.from_socket(near), far_stream
    return socket_transport()(near), far_stream


async def secure(kind: Kind, stream: ByteStream, *, server_side: bool) -> ByteStream:
    """Add anyio's TLS, where the kind has it."""
    if not kind.tls:
        return stream
    hostname = None if server_side else "localhost"
    return await TLSStream.wrap(
        stream, server_side=server_side, hostname=hostname, ssl_context=context(server_side)
    )


@dataclass
class Pair:
    """A connection of anyws, its peer, and where the peer's own tasks run."""

    ws: anyws.Connection
    peer: StrictPeer
    tasks: TaskGroup


@dataclass(frozen=True)
class Setting:
    """What a connection and its peer are told."""

    kind: Kind
    arguments: dict[str, Any] = field(default_factory=dict)
    """Those of `wrap_client` and `wrap_server`."""
    max_buffer_size: int = 65536
    """Bytes that each direction of a stream in memory holds."""
    read_size: int = 65536
    deflate: bool = False
    answers: bool = True
    may_be_cut: bool = False

    def peer(self, stream: ByteStream, cut: Cut) -> StrictPeer:
        """Make the peer over a stream that has TLS if it is to have it."""
        return StrictPeer(
            stream,
            masks=not self.kind.client,
            cut=cut,
            deflate=self.deflate,
            answers=self.answers,
            read_size=self.read_size,
            may_be_cut=self.may_be_cut,
        )

    def manager(self, stream: ByteStream) -> AbstractAsyncContextManager[anyws.Connection]:
        """Make the block of anyws over a stream."""
        return _Secured(self, stream) if self.kind.foreign else self.wrap(stream)

    def wrap(self, stream: ByteStream) -> AbstractAsyncContextManager[anyws.Connection]:
        """Make it over a stream that has TLS if it is to have a user's."""
        wrap = anyws.wrap_client if self.kind.client else anyws.wrap_server
        return wrap(stream, **self.all_arguments)

    @property
    def all_arguments(self) -> dict[str, Any]:
        """What anyws is told."""
        arguments = {"compression": "deflate" if self.deflate else None, **self.arguments}
        if self.kind.tls and not self.kind.foreign:
            arguments["ssl"] = context(not self.kind.client)
            if self.kind.client:
                arguments["server_hostname"] = "localhost"
        return arguments


class _Secured(AbstractAsyncContextManager[anyws.Connection]):
    """The block of a user who brings his own TLS."""

    def __init__(self, setting: Setting, stream: ByteStream) -> None:
        self._setting = setting
        self._stream = stream

    async def __aenter__(self) -> anyws.Connection:
        kind = self._setting.kind
        try:
            stream = await secure(kind, self._stream, server_side=not kind.client)
        except BaseException:
            await aclose_forcefully(self._stream)
            raise
        self._block = self._setting.wrap(stream)
        return await self._block.__aenter__()

    async def __aexit__(self, *exc_info: Any) -> None:  # noqa: PYI036  # handed on
        await self._block.__aexit__(*exc_info)


@asynccontextmanager
async def paired(cut: Cut, setting: Setting) -> AsyncGenerator[Pair, None]:
    """Give an open connection and its peer, which reads; leaving it closes both."""
    near, far = await streams(setting.kind, setting.max_buffer_size)
    made: list[StrictPeer] = []

    async def run_peer() -> None:
        peer = setting.peer(await secure(setting.kind, far, server_side=setting.kind.client), cut)
        made.append(peer)
        await peer.open()
        await peer.run()

    async with create_task_group() as tasks:
        tasks.start_soon(run_peer)
        async with setting.manager(near) as ws:
            (peer,) = made
            await peer.open_now.wait()
            yield Pair(ws, peer, tasks)
        await peer.ended.wait()


async def meet(
    cut: Cut, setting: Setting, far: ByteStream, peers: list[StrictPeer], *, held: bool = False
) -> None:
    """Be the peer of a connection that may end at any time from its beginning on.

    Args:
        cut: what is told of faults.
        setting: what the peer is told.
        far: the stream, without TLS yet.
        peers: is given the peer.
        held: whether nothing is read until it is told to.
    """
    try:
        peer = setting.peer(await secure(setting.kind, far, server_side=setting.kind.client), cut)
        if held:
            peer.hold()
        peers.append(peer)
        await peer.open()
        await peer.run()
    except (EndOfStream, BrokenResourceError, ClosedResourceError, OSError):
        pass  # who is cancelled while opening leaves
    finally:
        with CancelScope(shield=True):
            await aclose_forcefully(far)


@asynccontextmanager
async def meeting(
    cut: Cut, setting: Setting, *, held: bool = False
) -> AsyncGenerator[
    tuple[Callable[[], AbstractAsyncContextManager[anyws.Connection]], list[StrictPeer]], None
]:
    """Give what makes the block of anyws, over two streams, and its peer once there is one.

    Leaving it waits until the peer has seen the end of the stream, wherever it was.
    """
    near, far = await streams(setting.kind, setting.max_buffer_size)
    peers: list[StrictPeer] = []
    async with create_task_group() as tasks:
        tasks.start_soon(lambda: meet(cut, setting, far, peers, held=held))
        yield lambda: setting.manager(near), peers
        for peer in peers:
            peer.read_on()


@asynccontextmanager
async def listening(
    cut: Cut,
    setting: Setting,
    connect: Callable[..., AbstractAsyncContextManager[Any]] = anyws.connect,
) -> AsyncGenerator[tuple[Callable[[], AbstractAsyncContextManager[Any]], list[StrictPeer]], None]:
    """Give the same for connect() or reconnect(), whose peers are those that it dials to."""
    peers: list[StrictPeer] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        scheme = "wss" if setting.kind.tls else "ws"
        uri = f"{scheme}://127.0.0.1:{server.getsockname()[1]}/"

        async with create_task_group() as tasks:
            accepting = CancelScope()

            async def accept() -> None:
                with accepting:
                    while True:
                        await wait_readable(server)
                        raw, _ = server.accept()
                        tasks.start_soon(take, raw)

            async def take(raw: socket.socket) -> None:
                raw.setblocking(False)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    stream = await SocketStream.from_socket(raw)
                except (OSError, ValueError):  # it has left again
                    raw.close()
                else:
                    await meet(cut, setting, stream, peers)

            tasks.start_soon(accept)
            yield lambda: connect(uri, **setting.all_arguments), peers
            accepting.cancel()


def over(
    kind: Kind, subject: str, run: Callable[[Cut], Coroutine[Any, Any, None]], **options: Any
) -> Scenario:
    """Make a scenario of a connection of some kind."""
    return Scenario(subject, str(kind), run, virtual=kind.virtual, **options)
