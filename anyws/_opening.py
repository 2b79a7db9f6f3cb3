"""Opening handshakes over a transport: what reads and writes until there is a Connection.

Owns the I/O of the two opening handshakes; what their bytes mean stands in `sansio`, who calls them
in `_client`, `_server` and `_serving`. RFC 6455 section 4.
"""

from __future__ import annotations

import email.utils
import functools
import inspect
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    aclose_forcefully,
    move_on_after,
)
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from ._cancellation import application_error
from ._hooks import make_connection
from ._http import Request, Response, text_response
from ._names import describe_address, plain_path
from ._types import Role
from .exceptions import InvalidHandshake, InvalidMessage, InvalidStatus
from .sansio._deflate import PerMessageDeflate
from .sansio._protocol import Protocol

if TYPE_CHECKING:
    import logging

    from anyio.abc import ByteStream

    from ._connection import Connection
    from ._hooks import Hooks
    from ._http import Headers
    from ._options import ConnectionOptions
    from ._transports import Transport
    from .sansio._client_handshake import ClientHandshake
    from .sansio._server_handshake import ServerHandshake

# What a response with the status 101 says of what was agreed on.
_OPENING_FIELDS = (
    "Upgrade",
    "Connection",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
)

ProcessRequest = Callable[[Request], Awaitable[Response | None] | Response | None]
ProcessResponse = Callable[[Request, Response], Awaitable[Response | None] | Response | None]

# How long a refused client may take to read the answer and to end its half, before its unread bytes
# make the system answer them with a reset that can overtake ours.
_LINGER_TIMEOUT = 1.0


def choose_compression(compression: str | PerMessageDeflate | None) -> PerMessageDeflate | None:
    """Give what the argument `compression` stands for.

    Raises:
        ValueError: it stands for nothing.
        TypeError: it has the wrong type.
    """
    if compression is None or isinstance(compression, PerMessageDeflate):
        return compression
    if compression == "deflate":
        return PerMessageDeflate()
    error = ValueError if isinstance(compression, str) else TypeError
    raise error(f"compression {compression!r}, expected 'deflate', None or a PerMessageDeflate")


async def open_client(
    transport: Transport,
    handshake: ClientHandshake,
    options: ConnectionOptions,
    logger: logging.Logger | logging.LoggerAdapter[Any],
    hooks: Hooks | None,
) -> tuple[Connection, bytes]:
    """Run the client's opening handshake; when it fails, the transport is closed.

    Returns:
        The connection, and what the server has sent behind its response.

    Raises:
        InvalidHandshake: the server refuses, or what it answers is no handshake.

    Cancellation: the transport is closed.
    """
    try:
        response = await _exchange(transport, handshake)
    except BaseException:
        with suppress(Exception):  # the error that is on its way says more
            await aclose_forcefully(transport)
        raise
    return client_connection(transport, handshake, response, options, logger, hooks)


def client_connection(
    transport: Transport,
    handshake: ClientHandshake,
    response: Response,
    options: ConnectionOptions,
    logger: logging.Logger | logging.LoggerAdapter[Any],
    hooks: Hooks | None,
) -> tuple[Connection, bytes]:
    """Make the connection that a client's handshake has opened, and give what came behind it."""
    protocol = Protocol(Role.CLIENT, max_size=options.max_size, extension=handshake.extension)
    subprotocol = handshake.subprotocol
    connection = make_connection(
        transport, protocol, handshake.request, response, subprotocol, options, logger, hooks
    )
    return connection, handshake.trailing_data


async def _exchange(transport: Transport, handshake: ClientHandshake) -> Response:
    try:
        await transport.send(handshake.data_to_send())
        while True:
            data = await transport.receive()  # the server, or the caller's time-out, ends it
            response = handshake.receive_data(data)
            if response is not None:
                return response
    except EndOfStream as exc:
        try:
            handshake.receive_eof()
        except InvalidMessage as error:
            raise error from exc
    except (BrokenResourceError, ClosedResourceError) as exc:
        if handshake.refusal is not None:
            raise InvalidStatus(handshake.refusal) from exc
        cause = exc.__cause__
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            # An alert: in TLS 1.3 a client's certificate is refused behind the TLS handshake.
            raise cause from None
        raise InvalidMessage("connection lost during the opening handshake") from exc


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What `serve` lets a user choose for opening handshakes."""

    make_handshake: Callable[[], ServerHandshake]
    process_request: ProcessRequest | None
    process_response: ProcessResponse | None
    options: ConnectionOptions
    logger: logging.Logger | logging.LoggerAdapter[Any]
    hooks: Hooks | None


def server_connection(
    transport: Transport,
    handshake: ServerHandshake,
    request: Request,
    response: Response,
    settings: ServerSettings,
) -> tuple[Connection, bytes]:
    """Make the connection that a server's handshake has opened, and give what came behind it."""
    options = settings.options
    protocol = Protocol(Role.SERVER, max_size=options.max_size, extension=handshake.extension)
    connection = make_connection(
        transport,
        protocol,
        request,
        response,
        handshake.subprotocol,
        options,
        settings.logger,
        settings.hooks,
    )
    return connection, handshake.trailing_data


CALLER: ContextVar[ServerOpening | None] = ContextVar("anyws caller", default=None)
"""The opening whose hook runs now, for what that calls, in tasks and threads of its own too."""


class ServerOpening:
    """One opening handshake of a server.

    Args:
        transport: the accepted stream.
        settings: what the server was told.
        admit: says with a response that there is no room; None takes a place, which is given back
            when the connection is over.
    """

    def __init__(
        self,
        transport: Transport,
        settings: ServerSettings,
        admit: Callable[[], Response | None] = lambda: None,
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._admit = admit
        self._handshake = settings.make_handshake()
        self._request: Request | None = None
        self.status: int | None = None
        """That of the answer that went out, or was about to; None before there is one."""
        self.answering: bool = False
        """Whether the answer is being sent."""
        self.error: InvalidHandshake | None = None
        """Why there is no connection, after `run()` gave none."""

    async def run(self) -> tuple[Connection, bytes] | None:
        """Read a request and answer it.

        Returns:
            The connection, and what the client has sent behind its request; None where the answer
            was another than 101, or the client left.

        Cancellation: the transport stays open, and `refuse()` may still answer.
        """
        try:
            return await self._exchange()
        except (BrokenResourceError, ClosedResourceError) as exc:
            self.error = InvalidMessage("connection lost during the opening handshake")
            self.error.__cause__ = exc
            return None

    async def _exchange(self) -> tuple[Connection, bytes] | None:
        handshake = self._handshake
        try:
            request = await self._read_request()
        except InvalidMessage as exc:
            if not handshake.started:
                self.error = exc
                return None
            await self._refuse(handshake.refuse(exc), exc)
            return None
        self._request = request
        response = self._admit() or await self._process_request(request)
        if response is not None:
            await self._refuse(response, None)
            return None
        response = await self._process_response(request, self._accept(request))
        if handshake.error is not None or response.status != 101:
            await self._refuse(response, handshake.error)
            return None
        await self._send(response)
        return server_connection(self._transport, handshake, request, response, self._settings)

    async def refuse(self, status: int, text: str) -> None:
        """Answer with an error, whatever has been read, unless an answer is out already."""
        if self.status is None:
            await self._refuse(text_response(status, text), None)

    async def _read_request(self) -> Request:
        while True:
            try:
                data = await self._transport.receive()  # the client, or open_timeout, ends it
            except EndOfStream:
                self._handshake.receive_eof()
                raise InvalidMessage("connection closed before a request came") from None
            request = self._handshake.receive_data(data)
            if request is not None:
                request.local_address, request.remote_address = self._transport.addresses()
                request._come_over(self._transport)
                return request

    def _accept(self, request: Request) -> Response:
        try:
            return self._handshake.accept(request, date=_date())
        except Exception:
            self._settings.logger.exception("choosing a subprotocol failed")
            return _internal_error()

    async def _process_request(self, request: Request) -> Response | None:
        hook = self._settings.process_request
        if hook is None:
            return None
        try:
            response = await self._call_hook(hook, request)
            if response is not None:
                self._check(response, opens=False)
        except BaseException as exc:
            return self._take_hook_error("process_request", exc)
        return response

    async def _process_response(self, request: Request, response: Response) -> Response:
        hook = self._settings.process_response
        if hook is None:
            return response
        opens = response.status == 101
        # A hook may well change the response that it is given.
        ours = response.headers.copy()
        try:
            response = await self._call_hook(hook, request, response) or response
            self._check(response, opens=opens)
            if response.status == 101:
                _check_opening_fields(response.headers, ours)
        except BaseException as exc:
            return self._take_hook_error("process_response", exc)
        return response

    async def _call_hook(
        self, hook: Callable[..., Awaitable[Response | None] | Response | None], *args: Any
    ) -> Response | None:
        token = CALLER.set(self)
        try:
            return await call_hook(hook, *args)
        finally:
            CALLER.reset(token)

    def _take_hook_error(self, name: str, exc: BaseException) -> Response:
        """Log what a hook has raised, and give the answer to it; a cancellation goes on."""
        error = application_error(name, exc)
        if not isinstance(error, Exception):
            raise exc
        self._settings.logger.error("%s failed (%s)", name, self._who(), exc_info=error)
        return _internal_error()

    def _who(self) -> str:
        """Say for logs whose request it is, and what for."""
        request = self._request
        if request is None:
            return describe_peer(self._transport)
        return f"{describe_address(request.remote_address)}, {plain_path(request.path)}"

    def _check(self, response: Response, *, opens: bool) -> None:
        """See that what a hook made of a response can be sent in its place.

        Args:
            response: the response.
            opens: whether it may be one that opens a connection.

        Raises:
            ValueError: it has something that cannot be sent, or its status does not fit.
            Exception: it has something of a wrong type.
        """
        if response.status < 200 and not (opens and response.status == 101):
            raise ValueError(f"status {response.status} does not end a request that is refused")
        self._encode(response)

    def _encode(self, response: Response) -> bytes:
        return self._handshake.send_response(response, self._request, date=_date())

    async def _send(self, response: Response) -> None:
        await checkpoint_if_cancelled()  # as long as nothing went out, `refuse()` may answer
        self.status = response.status
        self.answering = True
        try:
            await self._transport.send(self._encode(response))  # the client's reading ends it
        finally:
            self.answering = False

    async def _refuse(self, response: Response, error: InvalidHandshake | None) -> None:
        """Send another answer than 101, and let the client read it."""
        self.error = error or InvalidStatus(response)
        logger = self._settings.logger
        if error is None:
            logger.info("answered with HTTP %d (%s)", response.status, self._who())
        else:
            logger.info("refused with HTTP %d: %s (%s)", response.status, error, self._who())
        try:
            await self._send(response)
            with move_on_after(_LINGER_TIMEOUT):
                await self._transport.send_eof()
                while True:
                    await self._transport.receive()
                    # A socket is read without waiting as long as it has something, and it has
                    # that for ever where the client sends faster than we read.
                    await checkpoint()
        except Exception as exc:  # it has left, or its stream has no halves
            logger.debug("end of a refused handshake: %r", exc)


def _check_opening_fields(headers: Headers, ours: Headers) -> None:
    """See that a response which opens still says what was agreed on.

    Raises:
        ValueError: it does not; the client would fail, or take for agreed what is not.
    """
    for name in _OPENING_FIELDS:
        # Two of them are names that may be written in any case.
        fold = str.lower if name in {"Upgrade", "Connection"} else str
        if [*map(fold, headers.get_all(name))] != [*map(fold, ours.get_all(name))]:
            raise ValueError(f"{name} of a response with the status 101 was changed")


def _date() -> str:
    """Give the Date field of this second."""
    return _format_date(int(time.time()))


@functools.lru_cache(maxsize=1)
def _format_date(timestamp: int) -> str:
    """Give that of a second, for all answers in it."""
    return email.utils.formatdate(timestamp, usegmt=True)


async def call_hook(
    hook: Callable[..., Awaitable[Response | None] | Response | None], *args: Any
) -> Response | None:
    """Call a hook of the application, plain or async.

    Raises:
        TypeError: it gives something else than a Response or None.

    Cancellation: that of the hook.
    """
    result = hook(*args)
    if inspect.isawaitable(result):
        result = await result
    if result is not None and not isinstance(result, Response):
        raise TypeError(
            f"hook returned {type(result).__name__}, expected None or a Response, which"
            " request.respond(status, text) makes"
        )
    return result


def describe_peer(stream: ByteStream) -> str:
    """Say for logs whose a stream is that was accepted."""
    address = None
    # One that was reset does not know it any more, and on uvloop anyio's has no socket then.
    with suppress(OSError, AttributeError):
        address = stream.extra(SocketAttribute.remote_address, None)
    return describe_address(address)


def _internal_error() -> Response:
    return text_response(500, "the server met an error of its own\n")
