"""TLS for tests: authorities, contexts, and literal peers that speak it."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import trustme
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from tests.sockets import scripted_server
from tests.wire import Peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

AUTHORITY = trustme.CA()
STRANGER = trustme.CA()


def server_context(*names: str, by: trustme.CA = AUTHORITY) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    by.issue_cert(*(names or ("localhost", "127.0.0.1"))).configure_cert(context)
    return context


def client_context(trusted: trustme.CA = AUTHORITY) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusted.configure_trust(context)
    return context


async def tls_peer(port: int) -> Peer:
    """Connect a literal client over TLS."""
    stream = await anyio.connect_tcp("127.0.0.1", port)
    wrapped = await TLSStream.wrap(stream, hostname="localhost", ssl_context=client_context())
    return Peer(wrapped, masks=True)


@asynccontextmanager
async def tls_server(
    script: Callable[[TLSStream], Awaitable[None]],
) -> AsyncGenerator[int, None]:
    """Run a literal server over TLS; give its port."""

    async def run(peer: Peer) -> None:
        assert isinstance(peer.stream, ByteStream)
        context = server_context()
        stream = await TLSStream.wrap(peer.stream, server_side=True, ssl_context=context)
        await script(stream)

    async with scripted_server(run) as port:
        yield port
