"""Streams to a server that lead through a proxy.

Owns the I/O with the proxy, until the server's bytes come; which proxy it is, `_proxies` says.
SOCKS is python-socks's business, behind `_socks`. RFC 9110 section 9.3.6 for CONNECT.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, aclose_forcefully
from anyio.streams.buffered import BufferedByteStream

from . import _transports
from .exceptions import ProxyError

if TYPE_CHECKING:
    import ssl
    from types import ModuleType

    from anyio.abc import ByteStream

    from .sansio._tunnel import TunnelHandshake
    from .sansio._uri import ProxyURI, WebSocketURI


def load_socks(proxy: ProxyURI) -> ModuleType:
    """Give the module that speaks SOCKS.

    Raises:
        ImportError: python-socks is not installed.
    """
    try:
        from . import _socks  # noqa: PLC0415  # python-socks is an extra
    except ModuleNotFoundError as exc:
        raise ImportError(f"proxy {proxy} needs python-socks: pip install 'anyws[socks]'") from exc
    return _socks


async def open_tunnel(
    proxy: ProxyURI,
    uri: WebSocketURI,
    context: ssl.SSLContext | None,
    handshake: TunnelHandshake | None,
) -> ByteStream:
    """Connect to a server through a proxy.

    Args:
        proxy: the proxy.
        uri: host and port of the server are taken from it, and nothing else.
        context: the context for TLS with the proxy, if it is an https proxy.
        handshake: what to say to an HTTP proxy; None for one that speaks SOCKS.

    Raises:
        OSError: there is no connection to the proxy, or TLS with it fails (ssl.SSLError); or a name
            cannot be resolved here.
        ProxyError: the proxy refuses, or what it answers is not what was asked for.
        ImportError: it speaks SOCKS, and python-socks is not installed.

    Cancellation: nothing is left open.
    """
    socks = load_socks(proxy) if handshake is None else None
    try:
        stream = await _transports.open_tcp(proxy.host, proxy.port)
        if context is not None:
            stream = await _transports.wrap_tls(
                stream, context, server_side=False, server_hostname=proxy.host
            )
    except OSError as exc:
        exc.add_note(f"at the proxy {proxy}")
        raise
    try:
        if handshake is not None:
            return await _request_tunnel(stream, proxy, handshake)
        assert socks is not None
        await socks.request_tunnel(stream, proxy, uri.host, uri.port)
        return stream
    except BaseException:
        with suppress(Exception):  # the error that is on its way says more
            await aclose_forcefully(stream)
        raise


async def _request_tunnel(
    stream: ByteStream, proxy: ProxyURI, handshake: TunnelHandshake
) -> ByteStream:
    try:
        await stream.send(handshake.data_to_send())
        while handshake.receive_data(await stream.receive()) is None:
            pass  # the proxy, or the caller's time-out, ends it
    except EndOfStream as exc:
        try:
            handshake.receive_eof()
        except ProxyError as error:
            raise error from exc
    except (BrokenResourceError, ClosedResourceError) as exc:
        raise ProxyError(f"connection to the proxy {proxy} lost") from exc
    if not handshake.trailing_data:
        return stream
    # The server has spoken first: nothing that a connection begins with, but it may be a refusal.
    buffered = BufferedByteStream(stream)
    buffered.feed_data(handshake.trailing_data)
    return buffered
