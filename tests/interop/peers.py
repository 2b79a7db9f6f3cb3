"""Other implementations of WebSocket as peers of anyws, over TCP, all with one interface.

Owns how `websockets`, in its asyncio and its trio version, and `wsproto` are opened and driven;
checks nothing. Each runs in the event loop of its test.
"""

from __future__ import annotations

import abc
from collections import deque
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import trio
import websockets.asyncio.client
import websockets.asyncio.connection
import websockets.asyncio.server
import websockets.trio.client
import websockets.trio.connection
import websockets.trio.server
import wsproto
from anyio.abc import SocketAttribute
from wsproto import events
from wsproto.connection import ConnectionState

import anyws

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import SocketStream
    from wsproto.extensions import PerMessageDeflate

    WebsocketsConnection = (
        websockets.asyncio.connection.Connection | websockets.trio.connection.Connection
    )

T = TypeVar("T")

HOST = "127.0.0.1"


class Peer(abc.ABC):
    """An endpoint of another implementation; it answers Pings and Close frames by itself."""

    compressed: bool
    """Whether it uses permessage-deflate."""
    subprotocol: str | None

    @abc.abstractmethod
    async def send(self, message: str | bytes) -> None: ...

    @abc.abstractmethod
    async def send_fragments(self, fragments: Sequence[str] | Sequence[bytes]) -> None: ...

    @abc.abstractmethod
    async def recv(self) -> str | bytes: ...

    @abc.abstractmethod
    async def ping(self, payload: bytes) -> None:
        """Send a Ping and wait for its Pong."""

    @abc.abstractmethod
    async def close(self, code: int, reason: str) -> None: ...

    @abc.abstractmethod
    async def abort(self) -> None:
        """Drop the TCP connection."""

    @abc.abstractmethod
    async def wait_closed(self) -> tuple[int | None, str | None]:
        """Give the close code and the close reason that came; 1006 if none did."""


class WebsocketsPeer(Peer):
    """A connection of `websockets`; its two versions have the same names but for a few."""

    def __init__(self, connection: WebsocketsConnection) -> None:
        self.connection = connection
        self.compressed = bool(connection.protocol.extensions)
        self.subprotocol = connection.subprotocol

    async def send(self, message: str | bytes) -> None:
        await self.connection.send(message)

    async def send_fragments(self, fragments: Sequence[str] | Sequence[bytes]) -> None:
        await self.connection.send(fragments)

    async def recv(self) -> str | bytes:
        return await self.connection.recv()

    async def ping(self, payload: bytes) -> None:
        pong = await self.connection.ping(payload)
        if isinstance(pong, trio.Event):
            await pong.wait()
        else:
            await pong

    async def close(self, code: int, reason: str) -> None:
        if isinstance(self.connection, websockets.trio.connection.Connection):
            await self.connection.aclose(code, reason)
        else:
            await self.connection.close(code, reason)

    async def abort(self) -> None:
        if isinstance(self.connection, websockets.trio.connection.Connection):
            await trio.aclose_forcefully(self.connection.stream)
        else:
            self.connection.transport.abort()

    async def wait_closed(self) -> tuple[int | None, str | None]:
        await self.connection.wait_closed()
        return self.connection.close_code, self.connection.close_reason


class WsprotoPeer(Peer):
    """A connection of `wsproto`, which has no I/O, on a stream of anyio."""

    def __init__(self, stream: SocketStream, role: wsproto.ConnectionType) -> None:
        self.stream = stream
        self.connection = wsproto.WSConnection(role)
        self._sending = anyio.Lock()
        self._text = ""
        self._binary = b""
        self._messages: deque[str | bytes] = deque()
        self._arrived = anyio.Event()
        self._pongs: dict[bytes, anyio.Event] = {}
        self._end = (1006, "")
        self._closed = anyio.Event()

    async def connect(self, request: events.Request) -> None:
        """Run the opening handshake of a client."""
        await self._send_event(request)
        answer = await self._receive_event()
        assert isinstance(answer, events.AcceptConnection)
        self._open(answer)

    async def accept(self, answer: events.AcceptConnection) -> None:
        """Run the opening handshake of a server."""
        request = await self._receive_event()
        assert isinstance(request, events.Request)
        await self._send_event(answer)
        self._open(answer)

    def _open(self, answer: events.AcceptConnection) -> None:
        self.compressed = any(extension.enabled() for extension in answer.extensions)
        self.subprotocol = answer.subprotocol

    async def run(self) -> None:
        """Receive until the stream ends; a server ends it after the Close frames."""
        try:
            while self.connection.client or self.connection.state is not ConnectionState.CLOSED:
                await self._handle(await self._receive_event())
            await self.stream.send_eof()
            await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # however it ended, it is over
        finally:
            self._closed.set()
            await anyio.aclose_forcefully(self.stream)

    async def _receive_event(self) -> events.Event:
        while (event := next(self.connection.events(), None)) is None:
            self.connection.receive_data(await self.stream.receive())
        return event

    async def _handle(self, event: events.Event) -> None:
        match event:
            case events.TextMessage():
                self._text += event.data
                if event.message_finished:
                    self._deliver(self._text)
            case events.BytesMessage():
                self._binary += event.data
                if event.message_finished:
                    self._deliver(self._binary)
            case events.Ping():
                await self._send_event(event.response())
            case events.Pong():
                self._pongs.pop(bytes(event.payload)).set()
            case events.CloseConnection():
                self._end = (event.code, event.reason or "")
                if self.connection.state is ConnectionState.REMOTE_CLOSING:
                    await self._send_event(event.response())

    def _deliver(self, message: str | bytes) -> None:
        self._messages.append(message)
        self._text = ""
        self._binary = b""
        self._arrived.set()

    async def _send_event(self, event: events.Event) -> None:
        async with self._sending:
            await self.stream.send(self.connection.send(event))

    async def send(self, message: str | bytes) -> None:
        await self._send_fragment(message, fin=True)

    async def send_fragments(self, fragments: Sequence[str] | Sequence[bytes]) -> None:
        parts: Sequence[str | bytes] = fragments
        for number, fragment in enumerate(parts, 1):
            await self._send_fragment(fragment, fin=number == len(fragments))

    async def _send_fragment(self, data: str | bytes, *, fin: bool) -> None:
        if isinstance(data, str):
            await self._send_event(events.TextMessage(data, message_finished=fin))
        else:
            await self._send_event(events.BytesMessage(data, message_finished=fin))

    async def recv(self) -> str | bytes:
        while not self._messages:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        return self._messages.popleft()

    async def ping(self, payload: bytes) -> None:
        self._pongs[payload] = pong = anyio.Event()
        await self._send_event(events.Ping(payload))
        await pong.wait()

    async def close(self, code: int, reason: str) -> None:
        async with self._sending:
            if self.connection.state is ConnectionState.OPEN and not self._closed.is_set():
                close = events.CloseConnection(code, reason)
                await self.stream.send(self.connection.send(close))
        await self._closed.wait()

    async def abort(self) -> None:
        await anyio.aclose_forcefully(self.stream)

    async def wait_closed(self) -> tuple[int | None, str | None]:
        await self._closed.wait()
        return self._end


class Handover(Generic[T]):
    """The way of a connection from a server's handler, which waits, to the test."""

    def __init__(self) -> None:
        self._connection: T | None = None
        self._ready = anyio.Event()
        self._done = anyio.Event()

    async def handle(self, connection: T) -> None:
        self._connection = connection
        self._ready.set()
        await self._done.wait()

    async def get(self) -> T:
        await self._ready.wait()
        assert self._connection is not None
        return self._connection

    def finish(self) -> None:
        self._done.set()


@asynccontextmanager
async def anyws_and_client(
    peer_client: Callable[[int], AbstractAsyncContextManager[Peer]], **arguments: Any
) -> AsyncGenerator[tuple[anyws.Connection, Peer], None]:
    """Give a server's connection of anyws, with `arguments` of `serve`, and the peer's client."""
    handover = Handover[anyws.Connection]()
    async with anyws.serve(handover.handle, HOST, **arguments) as server:
        try:
            async with peer_client(server.port) as peer:
                yield await handover.get(), peer
        finally:
            handover.finish()


@asynccontextmanager
async def anyws_and_server(
    peer_server: Callable[[Handover[Peer]], AbstractAsyncContextManager[int]], **arguments: Any
) -> AsyncGenerator[tuple[anyws.Connection, Peer], None]:
    """Give a client of anyws, with `arguments` of `connect`, and the peer's server."""
    handover = Handover[Peer]()
    async with peer_server(handover) as port:
        try:
            async with anyws.connect(f"ws://{HOST}:{port}/", **arguments) as ws:
                yield ws, await handover.get()
        finally:
            handover.finish()


@asynccontextmanager
async def websockets_client(
    port: int, *, library: str, **arguments: Any
) -> AsyncGenerator[Peer, None]:
    """Connect with `websockets`, in the version for `library`."""
    connect: Any = (
        websockets.trio.client.connect if library == "trio" else websockets.asyncio.client.connect
    )
    async with connect(f"ws://{HOST}:{port}/", proxy=None, **arguments) as connection:
        yield WebsocketsPeer(connection)


@asynccontextmanager
async def websockets_server(
    handover: Handover[Peer], *, library: str, **arguments: Any
) -> AsyncGenerator[int, None]:
    """Serve with `websockets`, in the version for `library`; give the port."""

    async def handle(connection: WebsocketsConnection) -> None:
        await handover.handle(WebsocketsPeer(connection))

    if library == "trio":
        async with trio.open_nursery() as nursery:
            serve = partial(websockets.trio.server.serve, handle, 0, host=HOST, **arguments)
            async with await nursery.start(serve) as server:
                yield server.listeners[0].socket.getsockname()[1]
    else:
        async with websockets.asyncio.server.serve(handle, HOST, 0, **arguments) as server:
            yield next(iter(server.sockets)).getsockname()[1]


@asynccontextmanager
async def wsproto_client(
    port: int, *, deflate: PerMessageDeflate | None, subprotocols: Sequence[str] = ()
) -> AsyncGenerator[Peer, None]:
    """Connect with `wsproto`."""
    peer = WsprotoPeer(await anyio.connect_tcp(HOST, port), wsproto.ConnectionType.CLIENT)
    await peer.connect(
        events.Request(
            host=f"{HOST}:{port}",
            target="/",
            extensions=[] if deflate is None else [deflate],
            subprotocols=list(subprotocols),
        )
    )
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(peer.run)
        yield peer
        await peer.close(1000, "")


@asynccontextmanager
async def wsproto_server(
    handover: Handover[Peer], *, deflate: PerMessageDeflate | None, subprotocol: str | None = None
) -> AsyncGenerator[int, None]:
    """Serve with `wsproto`, one connection; give the port."""
    answer = events.AcceptConnection(
        subprotocol=subprotocol, extensions=[] if deflate is None else [deflate]
    )

    async def serve(stream: SocketStream) -> None:
        peer = WsprotoPeer(stream, wsproto.ConnectionType.SERVER)
        await peer.accept(answer)
        async with anyio.create_task_group() as peer_group:
            peer_group.start_soon(peer.run)
            await handover.handle(peer)

    async with (
        await anyio.create_tcp_listener(local_host=HOST) as listener,
        anyio.create_task_group() as task_group,
    ):
        task_group.start_soon(listener.serve, serve)
        yield listener.extra(SocketAttribute.local_port)
        task_group.cancel_scope.cancel()
