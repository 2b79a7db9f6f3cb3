"""How bytes move: opens, accepts and wraps the streams that connections run over.

Owns the choice of a transport: over a socket of our own where the event loop can watch one, over
anyio's stream where it cannot; knows no WebSocket.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import anyio
from anyio import EndOfStream, aclose_forcefully
from anyio.abc import SocketAttribute, SocketStream, UNIXSocketStream
from anyio.streams.stapled import MultiListener

from ._accept import NativeListener
from ._asyncio import AsyncioTransport
from ._base import Receiver, Transport
from ._dial import dial_tcp, dial_unix
from ._stream import StreamTransport
from ._tls import TLSTransport

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, Mapping
    from os import PathLike

    from anyio.abc import ByteStream, Listener, SocketListener

    from ._trio import TrioTransport

__all__ = [
    "NativeListener",
    "Receiver",
    "StreamTransport",
    "Transport",
    "addresses",
    "listen_tcp",
    "listen_unix",
    "open_tcp",
    "open_unix",
    "socket_transport",
    "wrap",
    "wrap_tls",
]


def socket_transport() -> type[AsyncioTransport | TrioTransport]:
    """Give the transport over a socket for the event loop that runs now."""
    trio = sys.modules.get("trio")
    if trio is None or not trio.lowlevel.in_trio_task():
        return AsyncioTransport
    from ._trio import TrioTransport  # noqa: PLC0415  # trio is an extra

    return TrioTransport


def native_transport() -> type[AsyncioTransport | TrioTransport] | None:
    """Give the transport for what is opened or accepted here.

    Returns:
        None for anyio's own streams: on Windows, whose asyncio watches no sockets by default, and
        where the environment variable ANYWS_NATIVE_TRANSPORTS is 0, for tests.
    """
    if sys.platform == "win32" or os.environ.get("ANYWS_NATIVE_TRANSPORTS", "1") == "0":
        return None
    return socket_transport()


async def open_tcp(host: str, port: int) -> ByteStream:
    """Connect over TCP, to the first address of `host` that answers (RFC 8305).

    Raises:
        OSError: none did.

    Cancellation: nothing is left open.
    """
    native = native_transport()
    try:
        raw = await dial_tcp(host, port)
        return native(raw) if native else await _stream(raw, SocketStream.from_socket)
    except OSError as exc:
        exc.add_note(f"while connecting to {host} port {port}")
        raise


async def open_unix(path: str | PathLike[str]) -> ByteStream:
    """Connect to a UNIX socket.

    Raises:
        OSError: it failed.

    Cancellation: nothing is left open.
    """
    native = native_transport()
    try:
        raw = await dial_unix(path)
        return native(raw) if native else await _stream(raw, UNIXSocketStream.from_socket)
    except OSError as exc:
        exc.add_note(f"while connecting to {os.fsdecode(path)}")
        raise


async def _stream(
    raw: socket.socket, make: Callable[[socket.socket], Awaitable[SocketStream]]
) -> SocketStream:
    try:
        return await make(raw)
    except BaseException:
        raw.close()
        raise


async def wrap_tls(
    stream: ByteStream,
    context: ssl.SSLContext,
    *,
    server_side: bool,
    server_hostname: str | None = None,
) -> Transport:
    """Run the TLS handshake over `stream`; when that fails, the stream is closed.

    Raises:
        ssl.SSLError: the two sides do not agree, or the certificate is refused.
        ConnectionResetError: the stream ended in the midst of it.

    Cancellation: the stream is closed.
    """
    try:
        transport = TLSTransport(
            wrap(stream), context, server_side=server_side, server_hostname=server_hostname
        )
        await transport.shake_hands()
    except (EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError) as exc:
        await aclose_forcefully(stream)
        raise ConnectionResetError("connection lost during the TLS handshake") from exc
    except BaseException:
        await aclose_forcefully(stream)
        raise
    return transport


def addresses(stream: ByteStream) -> tuple[Any, Any]:
    """Give our address and the peer's; None for what the socket below does not know."""
    attributes: Mapping[Any, Callable[[], Any]] = stream.extra_attributes
    local = attributes.get(SocketAttribute.local_address)
    remote = attributes.get(SocketAttribute.remote_address)
    return (None if local is None else local(), None if remote is None else remote())


def wrap(stream: ByteStream, *, chunk_size: int = 65536) -> Transport:
    """Make a transport of a connected stream, unless it is one."""
    return stream if isinstance(stream, Transport) else StreamTransport(stream, chunk_size)


async def listen_tcp(
    host: str | None, port: int, *, backlog: int | None, reuse_port: bool
) -> list[Listener[Any]]:
    """Listen on every address of `host`, or on all interfaces.

    Raises:
        OSError: it failed.
    """
    # 65536 is cut by the system to what it allows, as anyio does by default.
    return _split(
        await anyio.create_tcp_listener(
            local_host=host,
            local_port=port,
            backlog=65536 if backlog is None else backlog,
            reuse_port=reuse_port,
        )
    )


async def listen_unix(path: str | PathLike[str], *, backlog: int | None) -> list[Listener[Any]]:
    """Listen on a UNIX socket; a socket file that is there already is replaced, in use or not.

    Raises:
        OSError: it failed.
    """
    listener = await anyio.create_unix_listener(path, backlog=65536 if backlog is None else backlog)
    return _split(listener)


def _split(listener: MultiListener[Any] | SocketListener) -> list[Listener[Any]]:
    listeners = listener.listeners if isinstance(listener, MultiListener) else [listener]
    native = native_transport()
    return [NativeListener(one, native) for one in listeners] if native else list(listeners)
