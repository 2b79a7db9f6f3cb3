"""The request for a tunnel through a SOCKS proxy: python-socks's, over a stream of ours.

Owns what its answers mean to us. Python-socks is an extra: nothing imports this module but who is
about to ask a SOCKS proxy. It speaks SOCKS and does no more: the stream is opened before, and
closed by its owner. RFC 1928 and RFC 1929.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import python_socks
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
from python_socks.async_.anyio import Proxy

from .exceptions import ProxyError
from .sansio._headers import build_authority

if TYPE_CHECKING:
    from anyio.abc import ByteStream, SocketStream

    from .sansio._uri import ProxyURI

# The type, and whether names are resolved at the proxy.
_TYPES = {
    "socks5": (python_socks.ProxyType.SOCKS5, False),
    "socks5h": (python_socks.ProxyType.SOCKS5, True),
    "socks4": (python_socks.ProxyType.SOCKS4, False),
    "socks4a": (python_socks.ProxyType.SOCKS4, True),
}


async def request_tunnel(stream: ByteStream, proxy: ProxyURI, host: str, port: int) -> None:
    """Have a proxy connect to a server.

    Args:
        stream: the stream to the proxy, which stays the caller's in any case.
        proxy: the proxy.
        host: where to connect to; a name, or an address without brackets.
        port: likewise.

    Raises:
        ProxyError: the proxy refuses, or what it answers is not SOCKS.
        OSError: the name is to be resolved here, and cannot be.

    Cancellation: the stream is of no use any more.
    """
    target = build_authority(host, port)
    host = host.partition("%")[0]  # the zone of an address means something on this machine only
    if proxy.scheme == "socks4" and ":" in host:
        raise ProxyError(f"proxy {proxy} cannot reach {target}: SOCKS4 has no IPv6 addresses")
    user, password = proxy.user_info or (None, None)
    kind, remote = _TYPES[proxy.scheme]
    client = Proxy(
        kind,
        proxy.host,
        proxy.port,
        username=user,
        password=password or None,
        rdns=remote,
        # It takes the stream that another proxy gives: ours is one, as far as it can see.
        forward=_Opened(stream),
    )
    asked = f"proxy {proxy}, asked for {target}"
    try:
        # It has a time-out of its own unless told.
        await client.connect(host, port, timeout=math.inf)
    except python_socks.ProxyError as exc:
        reply = None if exc.error_code is None else int(exc.error_code)
        advice = ""
        if user is None and "authentication method" in str(exc):
            advice = (
                f"; it may want a user and a password, {proxy.scheme}://user:password@host:port"
            )
        raise ProxyError(f"{asked}: {exc}{advice}", reply=reply) from exc
    except (BrokenResourceError, ClosedResourceError) as exc:
        raise ProxyError(f"{asked}: connection closed before it answered") from exc
    except OSError as exc:
        exc.add_note(f"while resolving {host}, for the proxy {proxy}")
        raise
    except ValueError as exc:  # UnicodeError is one
        raise ProxyError(f"{asked}: a host that SOCKS has no room for") from exc


class _Opened(Proxy):
    """In the eyes of python-socks, the proxy before the proxy: it gives a stream to that.

    Args:
        stream: the stream.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = _Borrowed(stream)

    async def connect(self, *_: Any, **_options: Any) -> SocketStream:
        """Give the stream."""
        # It is no socket, but what is called of it is that of any stream.
        return self._stream  # type: ignore[return-value]


class _Borrowed:
    """A stream as python-socks uses it, and which it cannot close.

    Args:
        stream: the stream.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def receive(self, max_bytes: int) -> bytes:
        try:
            return await self._stream.receive(max_bytes)
        except EndOfStream as exc:
            # An end in the midst of an answer is an error, which python-socks would give as one
            # that is not public.
            raise BrokenResourceError from exc

    async def aclose(self) -> None:
        """Leave it to the owner, who closes it."""
