"""Connecting: from a URI, or from a stream, to a Connection.

Owns the course of a client's opening, redirects and proxies included, under one deadline; knows no
byte of it. RFC 6455 section 4.1.
"""

import logging
import ssl as ssl_module
from collections.abc import Sequence
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Unpack

from anyio import move_on_after
from anyio.abc import ByteStream

from . import _transports
from ._arguments import WrapClientArguments
from ._checks import (
    check_arguments,
    check_extensions,
    check_logger,
    check_path,
    check_seconds,
    check_server_hostname,
    check_ssl,
    check_stream,
)
from ._connection import Connection
from ._hooks import Hooks, check_hooks
from ._http import HeadersLike, Response
from ._lifespan import Lifespan
from ._opening import choose_compression, open_client
from ._options import ConnectionOptions, Limits
from ._proxies import find_proxy, parse_proxy
from ._tunnels import load_socks, open_tunnel
from .exceptions import InvalidHandshake, InvalidMessage, InvalidStatus
from .sansio._client_handshake import ClientHandshake
from .sansio._deflate import PerMessageDeflate
from .sansio._extensions import ClientExtension
from .sansio._handshake import PRODUCT
from .sansio._headers import check_subprotocols
from .sansio._limits import check_int
from .sansio._redirects import Redirects, is_redirect
from .sansio._tunnel import TunnelHandshake
from .sansio._uri import ProxyURI, WebSocketURI, parse_uri

__all__ = ["connect", "unix_connect", "wrap_client"]

_LOGGER = logging.getLogger("anyws.client")

# What OpenSSL makes of an answer in plain text, such as that of an HTTP server.
_NO_TLS = "WRONG_VERSION_NUMBER"

# How much of what a server says about its refusal is worth a note, in bytes.
_MAX_REASON_SIZE = 200


class connect:  # noqa: N801  # it is used as a function: `async with connect(uri) as ws`
    """Connect to a WebSocket server: `async with connect(uri) as ws`.

    The block owns the connection. Left normally, it is closed with 1000; left by an exception, with
    1011, and the exception leaves as itself; left by cancellation, by KeyboardInterrupt or by
    SystemExit, it says 1001 if that needs no waiting, and is dropped.

    Args:
        uri: "ws://", "wss://", or "ws+unix:///path.sock:/resource"; user information becomes Basic
            authentication.
        stream: a byte stream that is connected already; no TLS is added to it unless `ssl` is
            given, and no redirect is followed.
        ssl: the context for TLS, with a client certificate if the server wants one; None takes the
            default of the standard library for wss, which checks the server's certificate and name.
        server_hostname: the name that the server's certificate must have; None takes the URI's
            host, and so does a redirect to another origin.
        origin: the Origin field.
        subprotocols: what to offer, in order of preference.
        extensions: what to offer before permessage-deflate.
        compression: "deflate", a PerMessageDeflate with other parameters, or None.
        additional_headers: more fields of the request. Authorization, Cookie and Host are left out
            after a redirect to another origin (scheme, host or port), and so is the Basic
            authentication of the URI.
        user_agent_header: the User-Agent field, for an HTTP proxy too; None leaves it out.
        proxy: the URL of a proxy: "http://", "https://", "socks5://", "socks5h://", "socks4://" or
            "socks4a://" (with "h" and "a" the proxy resolves the name of the server); user
            information is for the proxy. None uses none. True takes what the environment says, anew
            after each redirect: see below.
        proxy_ssl: the context for TLS with an https proxy; None takes the default of the standard
            library.
        max_redirects: how many redirects (HTTP 301, 302, 303, 307, 308) are followed; 0 follows
            none. `request` of the connection tells where they have led. They may go to http and
            https, which stand for ws and wss, but not from wss to ws. Over a UNIX socket none is
            followed.
        open_timeout: seconds for DNS, TCP, the proxy, TLS and the opening handshake together, over
            all redirects; None is no limit.
        ping_interval: seconds between keepalive Pings; None sends none.
        ping_timeout: seconds that the Pong may take; None is no limit.
        close_timeout: seconds for the end of the connection, from its beginning; None is no limit.
        max_size: bytes of a message after decompression, or (message, fragment); None is no limit.
        max_queue: messages that wait for recv() before reading stops, or (high, low); None is no
            limit.
        read_limit: likewise for their bytes.
        write_limit: bytes that wait to be sent before send() waits, or (high, low); None is no
            limit.
        logger: where to log; None takes "anyws.client".
        hooks: what to call as things happen on the connection.

    The environment is read as the standard library does it (`urllib.request.getproxies`): variables
    whose names are in lower case, which count first, or in upper case, and where there are none the
    settings of macOS or Windows. For wss the proxy is that of `wss_proxy`, `https_proxy`,
    `socks_proxy` or `all_proxy`, the first that is set; for ws that of `ws_proxy`, `https_proxy`,
    `http_proxy`, `socks_proxy` or `all_proxy`: RFC 6455 section 4.1 prefers the proxy of https,
    since one for http may not open tunnels. A value without a scheme is that of an http proxy.

    `no_proxy` has the servers that are reached without one, between commas or spaces: "*" is all;
    "example.com" and ".example.com" are that name and those below it; "10.0.0.1", "10.0.0.0/8",
    "::1" and "fd00::/8" are addresses; each may end in a port ("example.com:8080", "[::1]:8080").
    Names are not resolved for that, and localhost is no exception: as for curl, it has to be there
    like the others. A proxy that `proxy` names by its URL is used for all servers.

    Raises:
        ValueError: an argument has something that cannot be sent, or is out of its range;
            InvalidURI is one.
        TypeError: an argument has the wrong type.
        ImportError: the proxy speaks SOCKS, and python-socks is not installed: `pip install
            'anyws[socks]'`; on entering where the environment names it.
        OSError: on entering: there is no connection to the server or to the proxy, or TLS fails
            (ssl.SSLError).
        InvalidHandshake: on entering: the server refuses, or what it answers is no handshake. A
            redirect that is not followed is an InvalidStatus, whose text says why. It is a
            ProxyError if the proxy refuses, or if what the environment names is no proxy.
        TimeoutError: on entering: `open_timeout` is over.

    Cancellation: on entering, nothing is left open.
    """

    def __init__(
        self,
        uri: str,
        *,
        stream: ByteStream | None = None,
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        origin: str | None = None,
        subprotocols: Sequence[str] | None = None,
        extensions: Sequence[ClientExtension] | None = None,
        compression: Literal["deflate"] | PerMessageDeflate | None = "deflate",
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = PRODUCT,
        proxy: str | Literal[True] | None = True,
        proxy_ssl: ssl_module.SSLContext | None = None,
        max_redirects: int = 10,
        open_timeout: float | None = 10,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_size: int | tuple[int | None, int | None] | None = 2**20,
        max_queue: Limits = 2**5,
        read_limit: Limits = 2**16,
        write_limit: Limits = 2**16,
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        start = parse_uri(uri)
        check_ssl(ssl)
        check_logger(logger)
        check_hooks(hooks)
        offered = check_extensions(extensions, ClientExtension)
        if stream is not None:
            check_stream(stream)
        if ssl is not None and not start.secure and stream is None:
            raise ValueError(f"ssl is given, but {start} is not a wss URI")
        check_server_hostname(server_hostname, tls=start.secure if stream is None else bool(ssl))
        self._stream = stream
        self._ssl = ssl
        self._server_hostname = server_hostname
        deflate = choose_compression(compression)
        self._origin = origin
        self._subprotocols = check_subprotocols(subprotocols or ())
        self._extensions = [*offered, *(() if deflate is None else (deflate,))]
        self._user_agent = user_agent_header
        check_max_redirects(max_redirects)
        over_tcp = stream is None and start.unix_path is None
        self._redirects = Redirects(start, additional_headers, max_redirects if over_tcp else 0)
        self._proxy = parse_proxy(proxy, proxy_ssl, possible=over_tcp)
        self._proxy_ssl = proxy_ssl
        if isinstance(self._proxy, ProxyURI) and self._proxy.speaks_socks:
            load_socks(self._proxy)  # what is missing is told now
        # The proxy of this attempt, and whether it has not let us through yet.
        self._proxy_used: ProxyURI | None = None
        self._tunnel: TunnelHandshake | None = None
        self._before_proxy = False
        self._handshake = self._make_handshake()
        check_seconds("open_timeout", open_timeout)
        self._open_timeout = open_timeout
        self._options = ConnectionOptions(
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_size=max_size,
            max_queue=max_queue,
            read_limit=read_limit,
            write_limit=write_limit,
        )
        self._logger = _LOGGER if logger is None else logger
        self._hooks = hooks
        self._entered = False
        self._lifespan: Lifespan | None = None

    if not TYPE_CHECKING:  # type checkers find the mistakes by the lack of these

        def __await__(self) -> NoReturn:
            raise TypeError(
                f"{type(self).__name__}() cannot be awaited, because a connection owns tasks and"
                f" they need a block that ends: use `async with {type(self).__name__}(...) as ws`,"
                " or contextlib.AsyncExitStack"
            )

        def __aiter__(self) -> NoReturn:
            raise TypeError(
                f"{type(self).__name__}() cannot be iterated over: use `async with reconnect(...)"
                " as session`, and `async for ws in session` in it"
            )

    async def __aenter__(self) -> Connection:
        if self._entered:
            raise RuntimeError(f"{type(self).__name__}() can be entered only once: call it again")
        self._entered = True
        self._lifespan = Lifespan(*await self._open_in_time())
        return await self._lifespan.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._lifespan is not None
        await self._lifespan.__aexit__(exc_type, exc, traceback)

    def _make_handshake(self) -> ClientHandshake:
        return ClientHandshake(
            self._redirects.uri,
            origin=self._origin,
            subprotocols=self._subprotocols,
            extensions=self._extensions,
            additional_headers=self._redirects.headers,
            user_agent=self._user_agent,
        )

    async def _open_in_time(self) -> tuple[Connection, bytes]:
        """Open a connection whose tasks do not run yet; give it and what came behind its opening.

        Cancellation: nothing is left open.
        """
        with move_on_after(self._open_timeout):
            return await self._open()
        problem = f"its body did not end within {self._open_timeout} seconds (open_timeout)"
        refusal = self._handshake.refusal
        if refusal is not None:
            error = InvalidStatus(refusal, problem)
            self._add_notes(error)
            raise error
        if self._before_proxy and self._tunnel is not None:
            refused = self._tunnel.refusal
            if refused is not None:
                self._add_notes(refused)
                refused.add_note(problem)
                raise refused
        where = f", at the proxy {self._proxy_used}" if self._before_proxy else ""
        raise TimeoutError(
            f"no connection to {self._redirects} after {self._open_timeout} seconds (open_timeout)"
            f"{where}"
        )

    async def _open(self) -> tuple[Connection, bytes]:
        redirects = self._redirects
        while True:
            try:
                return await self._open_at(redirects.uri)
            except (OSError, InvalidHandshake) as exc:
                if not isinstance(exc, InvalidStatus) or not is_redirect(exc.response):
                    self._add_notes(exc)
                    raise
                response = exc.response
            redirects.follow(response)
            self._logger.info("redirected: %s", redirects)
            self._handshake = self._make_handshake()

    def _add_notes(self, exc: OSError | InvalidHandshake) -> None:
        """Say on which way an attempt has failed, and what may help."""
        if self._redirects:
            exc.add_note(f"after redirects: {self._redirects}")
        if self._proxy_used is not None and not self._before_proxy:
            exc.add_note(f"through the proxy {self._proxy_used}")
        # One that was made in Python has no reason.
        if isinstance(exc, ssl_module.SSLError) and getattr(exc, "reason", None) == _NO_TLS:
            exc.add_note("no TLS is spoken there; ws:// and, for a proxy, http:// do without")
        if isinstance(exc, InvalidStatus) and (reason := _reason(exc.response)):
            exc.add_note(f"the server says {reason!r}")
        plain = self._stream is None and not self._redirects.uri.secure
        if plain and isinstance(exc, InvalidMessage) and not self._handshake.started:
            # OpenSSL has its server close without a word when TLS does not begin as it must.
            exc.add_note("nothing came; if TLS is spoken there, wss:// asks for it")

    async def _open_at(self, uri: WebSocketURI) -> tuple[Connection, bytes]:
        stream = self._stream
        context = self._ssl
        if stream is None:
            if context is None and uri.secure:
                context = default_ssl_context()  # before there is anything that it could leave open
            stream = await self._connect(uri)
        if context is not None:
            hostname = None if self._redirects.changed_origin else self._server_hostname
            stream = await _transports.wrap_tls(
                stream,
                context,
                server_side=False,
                server_hostname=hostname or uri.host,
            )
        transport = _transports.wrap(stream)
        return await open_client(
            transport, self._handshake, self._options, self._logger, self._hooks
        )

    async def _connect(self, uri: WebSocketURI) -> ByteStream:
        """Open the stream that TLS, or the opening handshake, runs over."""
        if uri.unix_path is not None:
            return await _transports.open_unix(uri.unix_path)
        self._proxy_used = None
        proxy = await find_proxy(uri) if self._proxy is True else self._proxy
        if proxy is None:
            return await _transports.open_tcp(uri.host, uri.port)
        # A record may be kept with its arguments, and the repr of a URI has the query.
        self._logger.debug("%s through the proxy %s", str(uri), proxy)
        self._proxy_used = proxy
        self._before_proxy = True
        context = None
        if proxy.scheme == "https":
            context = self._proxy_ssl or default_ssl_context()
        self._tunnel = None
        if not proxy.speaks_socks:
            self._tunnel = TunnelHandshake(proxy, uri.host, uri.port, user_agent=self._user_agent)
        stream = await open_tunnel(proxy, uri, context, self._tunnel)
        self._before_proxy = False
        return stream


class unix_connect(connect):  # noqa: N801  # it is used as a function
    """Connect to a server that listens on a UNIX socket: `async with unix_connect(path) as ws`.

    Args:
        path: the path of the socket.
        uri: what the request asks for; wss adds TLS.
        arguments: those of `connect`, but `stream`, `proxy` and `proxy_ssl`, and `max_redirects`:
            none is followed.

    Raises:
        OSError: and others, as `connect`.

    Cancellation: on entering, nothing is left open.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        uri: str = "ws://localhost/",
        **arguments: Unpack[WrapClientArguments],
    ) -> None:
        check_arguments(
            "unix_connect", arguments, {"stream", "proxy", "proxy_ssl", "max_redirects"}
        )
        check_path(path)
        super().__init__(uri, proxy=None, max_redirects=0, **arguments)
        self._path = path

    async def _connect(self, uri: WebSocketURI) -> ByteStream:
        return await _transports.open_unix(self._path)


class wrap_client(connect):  # noqa: N801  # it is used as a function
    """Open a connection over any byte stream: `async with wrap_client(stream) as ws`.

    Args:
        stream: a connected stream: TLS in TLS, an SSH channel, memory. The block closes it.
        uri: what the request asks for.
        arguments: those of `connect`, but `proxy` and `proxy_ssl`, and `max_redirects`: none is
            followed; TLS is added only if `ssl` is given.

    Raises:
        InvalidHandshake: and others, as `connect`.

    Cancellation: on entering, the stream is closed.
    """

    def __init__(
        self,
        stream: ByteStream,
        uri: str = "ws://localhost/",
        **arguments: Unpack[WrapClientArguments],
    ) -> None:
        check_arguments("wrap_client", arguments, {"proxy", "proxy_ssl", "max_redirects"})
        check_stream(stream)
        super().__init__(uri, stream=stream, **arguments)


def check_max_redirects(max_redirects: int) -> None:
    """See that it is a number of redirects.

    Raises:
        ValueError: it is negative.
        TypeError: it is no integer.
    """
    check_int("max_redirects", max_redirects)
    if max_redirects < 0:
        raise ValueError(f"max_redirects of {max_redirects} is negative")


def _reason(response: Response) -> str:
    """Give the beginning of what a server says about its refusal, where that is plain text."""
    if not response.headers.get("Content-Type", "").lower().startswith("text/plain"):
        return ""
    lines = response.body[:_MAX_REASON_SIZE].decode(errors="replace").splitlines()
    return lines[0] if lines else ""


def default_ssl_context() -> ssl_module.SSLContext:
    """Make the context for wss: the system's certificates, the server's name checked."""
    return ssl_module.create_default_context()
