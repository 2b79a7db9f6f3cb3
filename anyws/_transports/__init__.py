"""How bytes move: opens, accepts and wraps the streams that connections run over.

Owns the choice of a transport: over a socket of our own where the event loop can watch one, over
anyio's stream where it cannot; knows no WebSocket.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
from anyio import EndOfStream, aclose_forcefully
from anyio.abc import SocketStream, UNIXSocketStream
from anyio.streams.stapled import MultiListener

from ._accept import NativeListener
from ._asyncio import AsyncioReadiness, AsyncioTransport
from ._base import Receiver, Transport
from ._coalescing import GATHERED_COUNT
from ._dial import dial_tcp, dial_unix
from ._stream import StreamTransport
from ._tls import TLSTransport
from ._unix import UnixListener

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable
    from os import PathLike
    from types import ModuleType

    from anyio.abc import ByteStream, Listener, SocketListener

    from ._trio import TrioTransport

__all__ = [
    "GATHERED_COUNT",
    "NativeListener",
    "Receiver",
    "StreamTransport",
    "Transport",
    "listen_tcp",
    "listen_unix",
    "native_listener",
    "open_tcp",
    "open_unix",
    "socket_transport",
    "wrap",
    "wrap_tls",
]


def socket_transport() -> type[AsyncioTransport | TrioTransport]:
    """Give the transport over a socket for the event loop that runs now."""
    trio = _running_trio()
    return AsyncioTransport if trio is None else trio.TrioTransport


def native_listener(listener: Listener[Any]) -> NativeListener:
    """Make a listener of anyio's give such transports."""
    trio = _running_trio()
    if trio is None:
        return NativeListener(listener, AsyncioTransport, AsyncioReadiness)
    return NativeListener(listener, trio.TrioTransport, trio.TrioReadiness)


def _running_trio() -> ModuleType | None:
    """Give our module for trio if that is what runs now."""
    trio = sys.modules.get("trio")
    if trio is None or not trio.lowlevel.in_trio_task():
        return None
    from . import _trio  # noqa: PLC0415  # trio is an extra

    return _trio


def native() -> bool:
    """Say whether what is opened or accepted here has such a transport, not anyio's stream.

    It has anyio's stream on Windows, whose asyncio watches no sockets by default, and where the
    environment variable ANYWS_NATIVE_TRANSPORTS is 0, for tests.
    """
    return sys.platform != "win32" and os.environ.get("ANYWS_NATIVE_TRANSPORTS", "1") != "0"


async def open_tcp(host: str, port: int) -> ByteStream:
    """Connect over TCP, to the first address of `host` that answers (RFC 8305).

    Raises:
        OSError: none did.

    Cancellation: nothing is left open.
    """
    try:
        raw = await dial_tcp(host, port)
        if native():
            return socket_transport()(raw)
        return await _stream(raw, SocketStream.from_socket)
    except OSError as exc:
        exc.add_note(f"while connecting to {host} port {port}")
        raise


async def open_unix(path: str | PathLike[str]) -> ByteStream:
    """Connect to a UNIX socket.

    Raises:
        OSError: it failed.

    Cancellation: nothing is left open.
    """
    try:
        raw = await dial_unix(path)
        if native():
            return socket_transport()(raw)
        return await _stream(raw, UNIXSocketStream.from_socket)
    except OSError as exc:
        exc.add_note(f"while connecting to {os.fsdecode(path)}")
        raise


async def _stream(
    raw: socket.socket, make: Callable[[socket.socket], Awaitable[SocketStream]]
) -> SocketStream:
    try:
        return await make(raw)
    except ValueError as exc:  # its peer has left again
        raw.close()
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from exc
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
    if server_hostname is not None:
        # RFC 6066 section 3: SNI has the name "without a trailing dot", and so have certificates.
        server_hostname = server_hostname.removesuffix(".")
    try:
        transport = TLSTransport(
            wrap(stream), context, server_side=server_side, server_hostname=server_hostname
        )
        await transport.shake_hands()
    except (EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError) as exc:
        await _drop(stream)
        raise ConnectionResetError("connection lost during the TLS handshake") from exc
    except BaseException:
        await _drop(stream)
        raise
    return transport


async def _drop(stream: ByteStream) -> None:
    """Close a stream at once; what that meets must not take the place of why."""
    with suppress(Exception):
        await aclose_forcefully(stream)


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
    try:
        listener = await anyio.create_tcp_listener(
            local_host=host,
            local_port=port,
            backlog=65536 if backlog is None else backlog,
            reuse_port=reuse_port,
        )
    except OSError as exc:
        exc.add_note(f"while listening on {'all interfaces' if host is None else host} port {port}")
        raise
    return _split(listener)


async def listen_unix(path: str | PathLike[str], *, backlog: int | None) -> list[Listener[Any]]:
    """Listen on a UNIX socket; a socket file that is there already is replaced, in use or not.

    Closing a listener takes the file away.

    Raises:
        OSError: it failed.
    """
    try:
        listener = await anyio.create_unix_listener(
            path, backlog=65536 if backlog is None else backlog
        )
    except OSError as exc:
        exc.add_note(f"while listening on {os.fsdecode(path)}")
        raise
    return [UnixListener(one, path) for one in _split(listener)]


def _split(listener: MultiListener[Any] | SocketListener) -> list[Listener[Any]]:
    listeners = listener.listeners if isinstance(listener, MultiListener) else [listener]
    return [native_listener(one) for one in listeners] if native() else list(listeners)
