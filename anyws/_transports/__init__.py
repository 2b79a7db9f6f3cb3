"""How bytes move: opens, accepts and wraps the streams that connections run over.

Owns the choice of a transport; knows no WebSocket.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
from anyio import EndOfStream, aclose_forcefully
from anyio.streams.tls import TLSStream

from ._base import Transport
from ._stream import StreamTransport

if TYPE_CHECKING:
    import ssl
    from os import PathLike

    from anyio.abc import ByteStream, Listener, SocketListener, SocketStream, UNIXSocketStream

__all__ = [
    "StreamTransport",
    "Transport",
    "listen_tcp",
    "listen_unix",
    "open_tcp",
    "open_unix",
    "wrap",
    "wrap_tls",
]


async def open_tcp(host: str, port: int) -> SocketStream:
    """Connect over TCP, to the first address of `host` that answers (RFC 8305).

    Raises:
        OSError: none did.

    Cancellation: nothing is left open.
    """
    try:
        return await anyio.connect_tcp(host, port)
    except OSError as exc:
        exc.add_note(f"while connecting to {host} port {port}")
        raise


async def open_unix(path: str | PathLike[str]) -> UNIXSocketStream:
    """Connect to a UNIX socket.

    Raises:
        OSError: it failed.

    Cancellation: nothing is left open.
    """
    try:
        return await anyio.connect_unix(path)
    except OSError as exc:
        exc.add_note(f"while connecting to {os.fsdecode(path)}")
        raise


async def wrap_tls(
    stream: ByteStream,
    context: ssl.SSLContext,
    *,
    server_side: bool,
    server_hostname: str | None = None,
) -> TLSStream:
    """Run the TLS handshake over `stream`; when that fails, the stream is closed.

    Raises:
        ssl.SSLError: the two sides do not agree, or the certificate is refused.
        ConnectionResetError: the stream ended in the midst of it.

    Cancellation: the stream is closed.
    """
    try:
        return await TLSStream.wrap(
            stream, server_side=server_side, hostname=server_hostname, ssl_context=context
        )
    except (EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError) as exc:
        await aclose_forcefully(stream)
        raise ConnectionResetError("connection lost during the TLS handshake") from exc
    except BaseException:
        await aclose_forcefully(stream)
        raise


def wrap(stream: ByteStream, *, chunk_size: int = 65536) -> Transport:
    """Make a transport of a connected stream."""
    return StreamTransport(stream, chunk_size)


async def listen_tcp(
    host: str | None, port: int, *, backlog: int | None, reuse_port: bool
) -> Listener[SocketStream]:
    """Listen on every address of `host`, or on all interfaces.

    Raises:
        OSError: it failed.
    """
    # 65536 is cut by the system to what it allows, as anyio does by default.
    return await anyio.create_tcp_listener(
        local_host=host,
        local_port=port,
        backlog=65536 if backlog is None else backlog,
        reuse_port=reuse_port,
    )


async def listen_unix(path: str | PathLike[str], *, backlog: int | None) -> SocketListener:
    """Listen on a UNIX socket; a socket file that is there already is replaced, in use or not.

    Raises:
        OSError: it failed.
    """
    return await anyio.create_unix_listener(path, backlog=65536 if backlog is None else backlog)
