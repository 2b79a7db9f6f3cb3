"""Scenarios of the cancellation sweep: a server with clients at each stage of a connection.

Owns the clients, which speak literal bytes; each must see its end, with at most one Close.
"""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, aclose_forcefully
from anyio.abc import SocketStream
from anyio.lowlevel import checkpoint

import anyws
from anyws.testing import MemoryListener
from tests.blocks import BodyError, echo
from tests.reliability.closing import call_block
from tests.reliability.pairs import Kind, Setting, over, secure
from tests.transports import context
from tests.wire import REQUEST, TEXT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import ByteStream

    from tests.reliability.cutting import Cut
    from tests.reliability.strict import StrictPeer
    from tests.reliability.sweeping import Scenario

    Handler = Callable[[anyws.Connection], Awaitable[None]]
    Body = Callable[[Cut, anyws.Server, "Site"], Awaitable[None]]

KINDS = (
    Kind(client=False),
    Kind(client=False, tcp=True),
    Kind(client=False, tcp=True, tls=True),
    Kind(client=False, tls=True),
)

# Codes that a client of a server that goes may see, or no Close at all.
_CODES = {None, 1000, 1001}


async def ignores(ws: anyws.Connection) -> None:
    """Handle a connection without ever looking at it."""
    await anyio.sleep_forever()


@dataclass
class Site:
    """A server that is not there yet, and its clients.

    Args:
        cut: what is told of faults.
        setting: what the server and its clients are told.
        handler: the server's.
        expected: how many clients there are.
    """

    cut: Cut
    setting: Setting
    handler: Handler
    expected: int
    peers: list[StrictPeer] = field(default_factory=list)
    staying: list[StrictPeer] = field(default_factory=list)
    """Those that are open until the server ends."""
    _listening: anyio.Event = field(default_factory=anyio.Event)
    _here: list[StrictPeer] = field(default_factory=list)
    _all_here: bool = False
    _changed: anyio.Event = field(default_factory=anyio.Event)
    _memory: MemoryListener = field(default_factory=MemoryListener)
    _port: int = 0

    def serve(self) -> AbstractAsyncContextManager[anyws.Server]:
        """Make the server's block; its body says `listen()`."""
        arguments: dict[str, Any] = self.setting.all_arguments
        if self.setting.kind.tcp:
            return anyws.serve(self.handler, "127.0.0.1", **arguments)
        return anyws.serve(self.handler, listeners=[self._memory], **arguments)

    def listen(self, server: anyws.Server) -> None:
        """Let the clients come."""
        if self.setting.kind.tcp:
            self._port = server.port
        self._listening.set()

    async def dial(self) -> ByteStream:
        """Connect a client.

        Raises:
            OSError: nobody listens any more; for memory, ClosedResourceError.
        """
        await self._listening.wait()
        if not self.setting.kind.tcp:
            return await self._memory.connect()
        # On the loopback interface it needs no waiting.
        raw = socket.create_connection(("127.0.0.1", self._port))
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return await SocketStream.from_socket(raw)
        except BaseException:
            raw.close()
            raise

    async def turn_away(self) -> None:
        """Let those go who wait for a server that never was."""
        await self._memory.aclose()
        self._listening.set()

    async def visit(self, script: Callable[[Site, StrictPeer], Awaitable[None]]) -> None:
        """Be a client, until its stream ends."""
        with suppress(OSError, ValueError, EndOfStream, BrokenResourceError, ClosedResourceError):
            far = await self.dial()
            try:
                stream = await secure(self.setting.kind, far, server_side=False)
                peer = self.setting.peer(stream, self.cut)
                self.peers.append(peer)
                await script(self, peer)
            finally:
                with anyio.CancelScope(shield=True):
                    await aclose_forcefully(far)

    def judge(self) -> None:
        """See that no client was told anything that is not so, and who has stayed the truth."""
        for peer in self.peers:
            # One whose handler runs is told; before all are here, it may still be opening.
            codes = {1001} if self._all_here and peer in self.staying else _CODES
            if peer.close_code not in codes:
                self.cut.fault(f"a client was closed with {peer.close_code}, expected {codes}")

    async def all_here(self) -> None:
        """Wait until each client has come to where it is to be met."""
        while len(self._here) < self.expected:
            await self._changed.wait()
        self._all_here = True

    def here(self, peer: StrictPeer) -> None:
        """Take that a client is there."""
        self._here.append(peer)
        self._changed.set()
        self._changed = anyio.Event()


# Clients.


async def talks(site: Site, peer: StrictPeer) -> None:
    """Open, exchange three messages, close, and see the end."""
    await peer.open()
    messages = [b"message %d" % index for index in range(3)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.run)
        for message in messages:
            await peer.send(TEXT, message)
        await peer.wait_for(messages[-1])
        await peer.send_close()
    site.here(peer)
    site.cut.compare(peer.messages, messages, optional=messages if site.cut.cancelled else ())


async def stays(site: Site, peer: StrictPeer) -> None:
    """Open, and see the end."""
    await peer.open()
    site.staying.append(peer)
    site.here(peer)
    await peer.run()


async def hesitates(site: Site, peer: StrictPeer) -> None:
    """Send half a request, and see the end."""
    await peer.stream.send(REQUEST[:40])
    site.here(peer)
    while True:
        await peer.stream.receive()


# What is cancelled.


async def _lives(cut: Cut, server: anyws.Server, site: Site) -> None:
    await site.all_here()


async def _leaves(cut: Cut, server: anyws.Server, site: Site) -> None:
    await site.all_here()
    cut.arm()


async def _fails(cut: Cut, server: anyws.Server, site: Site) -> None:
    await site.all_here()
    cut.arm()
    raise BodyError


def _block(
    name: str, body: Body, kind: Kind, *, handler: Handler = echo, armed: bool = False
) -> Scenario:
    """Cancel the block of a server."""

    async def run(cut: Cut) -> None:
        async with _clients(cut, kind, handler) as site:

            async def inside(cut: Cut, server: anyws.Server) -> None:
                site.listen(server)
                await body(cut, server, site)

            await call_block(cut, site.serve, inside, armed=armed)

    return over(kind, name, run)


def _closing(name: str, kind: Kind, *, handler: Handler = echo) -> Scenario:
    """Cancel server.close(); the server must go on closing."""

    async def run(cut: Cut) -> None:
        async with _clients(cut, kind, handler) as site:
            async with site.serve() as server:
                site.listen(server)
                await site.all_here()
                await cut.call(server.close)
                if server.connections:
                    cut.fault(f"open still: {server.connections}")
                await server.serve_forever()

    return over(kind, name, run)


def _waiting_for_the_end(kind: Kind) -> Scenario:
    """Cancel serve_forever(); the server goes on."""

    async def run(cut: Cut) -> None:
        async with _clients(cut, kind, echo) as site, anyio.create_task_group() as tasks:
            async with site.serve() as server:
                tasks.start_soon(_close_when_all_are_here, site, server)
                await cut.call(server.serve_forever)
                await server.serve_forever()

    return over(kind, "server.serve_forever", run)


async def _close_when_all_are_here(site: Site, server: anyws.Server) -> None:
    site.listen(server)
    await site.all_here()
    await server.close()


def _leaving_client(kind: Kind) -> Scenario:
    """Cancel a client of a server that has room for one: the next finds it."""

    async def run(cut: Cut) -> None:
        site = Site(cut, Setting(kind, {"max_connections": 1}), echo, 0)
        async with site.serve() as server:
            site.listen(server)

            async def talk() -> None:
                async with anyws.wrap_client(await site.dial(), **client_arguments) as ws:
                    await ws.send("message")
                    await ws.recv()

            client_arguments: dict[str, Any] = {}
            if kind.tls:
                client_arguments = {"server_hostname": "localhost", "ssl": context(False)}
            await cut.call(talk)
            while True:
                try:
                    await talk()
                except anyws.InvalidStatus:  # the server has not seen yet that the first has left
                    await checkpoint()
                else:
                    break

    return over(kind, "client of a full server", run)


@asynccontextmanager
async def _clients(cut: Cut, kind: Kind, handler: Handler) -> AsyncGenerator[Site, None]:
    """Give a site with a client of each sort, and wait for their ends."""
    scripts = (talks, hesitates, stays) if handler is echo else (hesitates, stays)
    site = Site(cut, Setting(kind), handler, len(scripts))
    async with anyio.create_task_group() as tasks:
        for script in scripts:
            tasks.start_soon(site.visit, script)
        yield site
        await site.turn_away()
    site.judge()


def _scenarios() -> Iterator[Scenario]:
    for kind in KINDS:
        yield _block("serve, whole life", _lives, kind, armed=True)
        yield _block("serve, left", _leaves, kind)
        yield _block("serve, left by an error", _fails, kind)
        yield _closing("server.close", kind)
        yield _waiting_for_the_end(kind)
        yield _leaving_client(kind)
        if kind.virtual:  # its handlers have 10 seconds
            yield _block("serve, left, handlers ignore it", _leaves, kind, handler=ignores)
            yield _closing("server.close, handlers ignore it", kind, handler=ignores)


SCENARIOS = tuple(_scenarios())
