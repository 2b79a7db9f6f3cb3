"""Serving: from listeners, or from one accepted stream, to Connections and their handlers.

Owns who is accepted, who runs the handlers, and the bounded end of all; knows no byte of a handshake.
RFC 6455 section 4.2.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn

from anyio import (
    TASK_STATUS_IGNORED,
    BrokenResourceError,
    CancelScope,
    ClosedResourceError,
    Event,
    create_task_group,
    get_cancelled_exc_class,
    move_on_after,
    sleep,
)
from anyio.abc import Listener, SocketAttribute
from anyio.streams.stapled import MultiListener

from . import _transports
from ._connection import ConnectionOptions
from ._http import Response, text_response
from ._lifespan import Lifespan, raise_as_is, raise_bare
from ._opening import ServerOpening, ServerSettings, choose_compression
from ._types import Close, CloseCode
from .exceptions import ConnectionClosed, InvalidMessage
from .sansio._handshake import PRODUCT
from .sansio._origins import SAME_HOST
from .sansio._protocol import check_close
from .sansio._server_handshake import ServerHandshake

if TYPE_CHECKING:
    import ssl as ssl_module
    from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
    from os import PathLike
    from types import TracebackType

    from anyio.abc import ByteStream, TaskGroup, TaskStatus

    from ._connection import Connection
    from ._inbox import Limits
    from ._opening import ProcessRequest, ProcessResponse
    from .sansio._deflate import PerMessageDeflate
    from .sansio._extensions import ServerExtension
    from .sansio._origins import OriginPolicy
    from .sansio._server_handshake import SubprotocolSelector

__all__ = ["Server", "serve", "serve_forever", "unix_serve", "wrap_server"]

_LOGGER = logging.getLogger("anyws.server")

# Seconds before accepting is tried again after it failed, as it does when descriptors run out.
_FIRST_ACCEPT_DELAY = 0.05
_MAX_ACCEPT_DELAY = 1.0

# Seconds in which a transport that no connection has taken must be closed in peace.
_CLOSE_TIMEOUT = 1.0


class Server:
    """A running server, as `serve` gives it."""

    def __init__(
        self,
        handler: Callable[[Connection], Awaitable[None]],
        listeners: Sequence[Listener[ByteStream]],
        settings: ServerSettings,
        *,
        ssl: ssl_module.SSLContext | None,
        max_connections: int | None,
        open_timeout: float | None,
        fail: Callable[[Exception], None] | None,
    ) -> None:
        self._handler = handler
        self._listeners = listeners
        self._settings = settings
        self._ssl = ssl
        self._max_connections = max_connections
        self._open_timeout = open_timeout
        # What to do with the error of a handler; None logs it.
        self._fail = fail
        self._logger = settings.logger
        self._accepted = 0
        self._places_taken = 0
        self._connections: set[Connection] = set()
        self._openings: set[CancelScope] = set()
        self._closing = False
        self._accept_scope = CancelScope()
        self._task_group = create_task_group()
        self._closed = Event()

    @property
    def port(self) -> int:
        """The TCP port, which is one for all addresses.

        Raises:
            TypedAttributeLookupError: the server does not listen on TCP.
        """
        return self._listeners[0].extra(SocketAttribute.local_port)

    @property
    def addresses(self) -> list[Any]:
        """The addresses that the server listens on, as their sockets give them."""
        return [listener.extra(SocketAttribute.local_address) for listener in self._listeners]

    @property
    def connections(self) -> frozenset[Connection]:
        """The open connections whose handlers run."""
        return frozenset(connection for connection in self._connections if connection.open)

    async def serve_forever(self) -> None:
        """Wait until the server is closed.

        Cancellation: the server goes on; the block that owns it ends it.
        """
        await self._closed.wait()

    async def close(
        self, code: int = CloseCode.GOING_AWAY, reason: str = "", grace: float = 10.0
    ) -> None:
        """Stop listening, end all connections, and wait for their handlers.

        Half-open handshakes get a 503, open connections a Close frame. Handlers that have not ended
        after `grace` seconds are cancelled, and their connections dropped.

        Args:
            code: as in `Connection.close`.
            reason: likewise.
            grace: seconds.

        Raises:
            ValueError: the code or the reason is none that may be sent; the server goes on.

        Cancellation: the server goes on closing, without mercy: handlers are cancelled at once.
        """
        close = check_close(code, reason)
        if not self._closing:
            self._closing = True
            self._accept_scope.cancel()
            for scope in list(self._openings):
                scope.cancel()
            for connection in list(self._connections):
                connection._start_close(close)
        try:
            with move_on_after(grace):
                await self._closed.wait()
        finally:
            self._abort()
        await self._closed.wait()  # cancelled handlers, which their connections' tasks do not hold

    def _abort(self) -> None:
        """End everything now, without waiting for it."""
        self._closing = True
        self._task_group.cancel_scope.cancel()

    async def _run(self) -> None:
        """Accept and serve until closed."""
        try:
            async with self._task_group:
                with self._accept_scope:
                    async with create_task_group() as accepting:
                        for listener in self._listeners:
                            accepting.start_soon(self._accept, listener)
        finally:
            self._closed.set()

    async def _accept(self, listener: Listener[ByteStream]) -> None:
        """Accept until cancelled; running out of descriptors or memory only delays it."""
        delay = _FIRST_ACCEPT_DELAY
        try:
            while True:
                accepted = self._accepted
                try:
                    await listener.serve(self._serve_stream, self._task_group)
                    return
                except ClosedResourceError:
                    self._logger.info("listener closed")
                    return
                except (OSError, BrokenResourceError) as exc:
                    if self._accepted > accepted:
                        delay = _FIRST_ACCEPT_DELAY
                    self._logger.error("cannot accept, next try in %.2f s: %r", delay, exc)
                    await sleep(delay)
                    delay = min(2 * delay, _MAX_ACCEPT_DELAY)
        finally:
            with CancelScope(shield=True):  # closing a listener waits for nobody
                await listener.aclose()

    async def _serve_stream(self, stream: ByteStream) -> None:
        """Serve one accepted stream from its first byte to its last."""
        self._accepted += 1
        took_place = False

        def admit() -> Response | None:
            nonlocal took_place
            if self._max_connections is not None and self._places_taken >= self._max_connections:
                return text_response(503, "the server has no room for another connection\n")
            took_place = True
            self._places_taken += 1
            return None

        try:
            opened = await self._open(stream, admit)
            if opened is not None:
                await self._handle(*opened)
        finally:
            if took_place:
                self._places_taken -= 1

    async def _open(
        self, stream: ByteStream, admit: Callable[[], Response | None]
    ) -> tuple[Connection, bytes] | None:
        """Run the opening handshake, within open_timeout; close the stream if nothing comes of it."""
        transport: _transports.Transport | None = None
        opening: ServerOpening | None = None
        opened = None
        try:
            with move_on_after(self._open_timeout) as timeout, CancelScope() as scope:
                self._openings.add(scope)
                if self._closing:
                    scope.cancel()
                if self._ssl is not None:
                    stream = await _transports.wrap_tls(stream, self._ssl, server_side=True)
                transport = _transports.wrap(stream)
                opening = ServerOpening(transport, self._settings, admit)
                opened = await opening.run()
            if opening is not None and opened is None:
                if scope.cancelled_caught:
                    with move_on_after(_CLOSE_TIMEOUT):
                        await opening.refuse(503, "the server is going away\n")
                elif timeout.cancelled_caught:
                    self._logger.info("no handshake within %s seconds", self._open_timeout)
                else:
                    self._logger.debug("no connection: %s", opening.error)
        except OSError as exc:  # of TLS; ssl.SSLError is one
            self._logger.info("TLS handshake failed: %s", exc)
        finally:
            self._openings.discard(scope)
            if opened is None:
                await _close_stream(transport or stream)
        return opened

    async def _handle(self, connection: Connection, trailing_data: bytes) -> None:
        self._connections.add(connection)
        try:
            async with Lifespan(connection, trailing_data) as ws:
                if self._closing:
                    ws._start_close(Close(CloseCode.GOING_AWAY))
                await self._call_handler(ws)
        except Exception as exc:
            if self._fail is not None:
                self._fail(exc)
            else:
                self._logger.error("connection handler failed", exc_info=exc)
        finally:
            self._connections.discard(connection)

    async def _call_handler(self, connection: Connection) -> None:
        try:
            await self._handler(connection)
        except Exception as exc:
            # The end of its own connection is no error of a handler, alone or in the handler's groups.
            if connection.open or not _is_end_of(connection, exc):
                raise
            self._logger.debug("handler ended with its connection: %s", exc)


def _is_end_of(connection: Connection, exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(_is_end_of(connection, error) for error in exc.exceptions)
    if not isinstance(exc, ConnectionClosed):
        return False
    end = connection._closed_error()
    return exc.rcvd == end.rcvd or exc.sent == end.sent


async def _close_stream(stream: ByteStream) -> None:
    """Close a stream that no connection has taken.

    Cancellation: it is closed without ceremony.
    """
    try:
        with move_on_after(_CLOSE_TIMEOUT):
            await stream.aclose()
    except (OSError, BrokenResourceError, ClosedResourceError):
        pass  # TLS says that it was not ended in its way: it is closed all the same


class serve:  # noqa: N801  # it is used as a function: `async with serve(handler) as server`
    """Serve WebSocket connections: `async with serve(handler, host, port) as server`.

    The block owns the server. Left normally, `server.close()`; left by an exception or by cancellation,
    all connections are dropped. What the body raises leaves as itself.

    Args:
        handler: an async function; it is called with each connection. Its return closes the connection
            with 1000, its exception with 1011.
        host: a name or address to listen on; None is all interfaces.
        port: the TCP port; 0 picks one for all addresses.
        listeners: listeners to accept from, instead of host and port; the server closes them.
        ssl: the context for TLS.
        backlog: connections that the system may hold before they are accepted; None is its maximum.
        reuse_port: whether other processes may listen on the same port.
        origins: which pages may connect: SAME_HOST, those from the host that the request names; a
            sequence of str, re.Pattern and None (no Origin field); or "*", any.
        subprotocols: what the server speaks, in order of preference.
        select_subprotocol: called with the request and what it offers, to choose one or none.
        extensions: what the server accepts besides permessage-deflate.
        compression: "deflate", a PerMessageDeflate with other parameters, or None.
        process_request: called with each request, plain or async; a Response answers it.
        process_response: called with the request and our response, plain or async; a Response
            takes its place.
        server_header: the Server field; None leaves it out.
        max_connections: above it the answer is 503; None is no limit.
        open_timeout: seconds for TLS and the opening handshake together; None is no limit.
        ping_interval: as for `connect`, and so are the parameters from here to `write_limit`.
        ping_timeout: see there.
        close_timeout: see there.
        max_size: see there.
        max_queue: see there.
        read_limit: see there.
        write_limit: see there.
        handler_errors: "log" logs what a handler raises; "raise" ends the server and raises it out of
            the block, for tests.
        logger: where to log; None takes "anyws.server".

    Raises:
        ValueError: an argument is out of its range.
        TypeError: an argument has the wrong type.
        OSError: on entering: listening fails.

    Cancellation: on entering, nothing is left open.
    """

    def __init__(
        self,
        handler: Callable[[Connection], Awaitable[None]],
        host: str | None = "localhost",
        port: int = 0,
        *,
        listeners: Iterable[Listener[Any]] | None = None,
        ssl: ssl_module.SSLContext | None = None,
        backlog: int | None = None,
        reuse_port: bool = False,
        origins: OriginPolicy = SAME_HOST,
        subprotocols: Sequence[str] | None = None,
        select_subprotocol: SubprotocolSelector | None = None,
        extensions: Sequence[ServerExtension] | None = None,
        compression: str | PerMessageDeflate | None = "deflate",
        process_request: ProcessRequest | None = None,
        process_response: ProcessResponse | None = None,
        server_header: str | None = PRODUCT,
        max_connections: int | None = None,
        open_timeout: float | None = 10,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_size: int | None | tuple[int | None, int | None] = 2**20,
        max_queue: Limits = 2**5,
        read_limit: Limits = 2**16,
        write_limit: Limits = 2**16,
        handler_errors: str = "log",
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
    ) -> None:
        if handler_errors not in {"log", "raise"}:
            raise ValueError(f"handler_errors {handler_errors!r}, expected 'log' or 'raise'")
        if max_connections is not None and max_connections < 0:
            raise ValueError(f"max_connections of {max_connections} is negative")
        if open_timeout is not None and not open_timeout > 0:
            raise ValueError(f"open_timeout of {open_timeout} seconds is not above 0")
        deflate = choose_compression(compression)
        accepted = [*(extensions or ()), *(() if deflate is None else (deflate,))]

        def make_handshake() -> ServerHandshake:
            return ServerHandshake(
                origins=origins,
                subprotocols=subprotocols,
                select_subprotocol=select_subprotocol,
                extensions=accepted,
                server_header=server_header,
            )

        make_handshake()  # its ValueErrors belong to this call
        self._handler = handler
        self._host = host
        self._port = port
        self._unix_path: str | PathLike[str] | None = None
        self._own_listeners = listeners
        self._ssl = ssl
        self._backlog = backlog
        self._reuse_port = reuse_port
        self._max_connections = max_connections
        self._open_timeout = open_timeout
        self._raise_errors = handler_errors == "raise"
        self._settings = ServerSettings(
            make_handshake=make_handshake,
            process_request=process_request,
            process_response=process_response,
            options=ConnectionOptions(
                ping_interval=ping_interval,
                ping_timeout=ping_timeout,
                close_timeout=close_timeout,
                max_size=max_size,
                max_queue=max_queue,
                read_limit=read_limit,
                write_limit=write_limit,
            ),
            logger=_LOGGER if logger is None else logger,
        )
        self._server: Server | None = None
        self._handler_error: Exception | None = None

    def __await__(self) -> Generator[None, None, NoReturn]:
        raise TypeError(
            "serve() cannot be awaited, because a server owns tasks and they need a block that ends:"
            " use `async with serve(...) as server`, or `await tg.start(serve_forever, ...)`"
        )

    async def __aenter__(self) -> Server:
        if self._server is not None:
            raise RuntimeError("serve() can be entered only once: call it again")
        listeners = await self._listen()
        self._task_group = create_task_group()
        self._server = Server(
            self._handler,
            listeners,
            self._settings,
            ssl=self._ssl,
            max_connections=self._max_connections,
            open_timeout=self._open_timeout,
            fail=self._take_handler_error if self._raise_errors else None,
        )
        await self._task_group.__aenter__()
        self._task_group.start_soon(self._server._run, name="anyws server")
        return self._server

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        interruption: BaseException | None = None
        try:
            if exc is None:
                await self._server.close()
        except BaseException as error:  # raised below, unless the body raised or a handler did
            interruption = error
        self._server._abort()
        failed = self._handler_error is not None and (
            exc is None or isinstance(exc, get_cancelled_exc_class())
        )
        try:
            if failed and exc is not None:
                # This cancellation is the one of our own scope, which takes it in.
                await self._task_group.__aexit__(exc_type, exc, traceback)
            else:
                await self._task_group.__aexit__(None, None, None)
        except get_cancelled_exc_class() as cancelled:
            interruption = cancelled
        except BaseExceptionGroup as group:
            raise_bare(group)
        if failed:
            assert self._handler_error is not None
            raise_as_is(self._handler_error)
        if exc is None and interruption is not None:
            raise interruption

    async def _listen(self) -> list[Listener[ByteStream]]:
        if self._own_listeners is not None:
            given = list(self._own_listeners)
        elif self._unix_path is not None:
            given = [await _transports.listen_unix(self._unix_path, backlog=self._backlog)]
        else:
            given = [
                await _transports.listen_tcp(
                    self._host, self._port, backlog=self._backlog, reuse_port=self._reuse_port
                )
            ]
        listeners: list[Listener[ByteStream]] = []
        for listener in given:
            listeners.extend(
                listener.listeners if isinstance(listener, MultiListener) else [listener]
            )
        return listeners

    def _take_handler_error(self, error: Exception) -> None:
        if self._handler_error is None:
            self._handler_error = error
        self._task_group.cancel_scope.cancel()


class unix_serve(serve):  # noqa: N801  # it is used as a function
    """Serve on a UNIX socket: `async with unix_serve(handler, path) as server`.

    Args:
        handler: as for `serve`.
        path: the path of the socket; a socket that nobody listens on any more is replaced.
        arguments: those of `serve`, but host, port and listeners.

    Raises:
        OSError: on entering: listening fails.

    Cancellation: on entering, nothing is left open.
    """

    def __init__(
        self,
        handler: Callable[[Connection], Awaitable[None]],
        path: str | PathLike[str],
        **arguments: Any,
    ) -> None:
        super().__init__(handler, **arguments)
        self._unix_path = path


async def serve_forever(
    handler: Callable[[Connection], Awaitable[None]],
    host: str | None = "localhost",
    port: int = 0,
    *,
    task_status: TaskStatus[Server] = TASK_STATUS_IGNORED,
    **arguments: Any,
) -> None:
    """Serve until cancelled or closed: `server = await tg.start(serve_forever, handler, host, port)`.

    Args:
        handler: as for `serve`.
        host: likewise.
        port: likewise.
        task_status: is given the Server once it listens.
        arguments: those of `serve`.

    Raises:
        OSError: listening fails.

    Cancellation: all connections are dropped.
    """
    async with serve(handler, host, port, **arguments) as server:
        task_status.started(server)
        await server.serve_forever()


class wrap_server:  # noqa: N801  # it is used as a function: `async with wrap_server(stream) as ws`
    """Accept a connection over any byte stream: `async with wrap_server(stream) as ws`.

    Args:
        stream: a connected stream; the block closes it.
        arguments: those of `serve` that are about one connection.

    Raises:
        InvalidHandshake: on entering: the request was refused, or what came was none.
        TimeoutError: on entering: `open_timeout` is over.

    Cancellation: on entering, the stream is closed.
    """

    def __init__(self, stream: ByteStream, **arguments: Any) -> None:
        self._stream = stream
        self._serve = serve(_no_handler, **arguments)
        self._lifespan: Lifespan | None = None

    async def __aenter__(self) -> Connection:
        if self._lifespan is not None:
            raise RuntimeError("wrap_server() can be entered only once: call it again")
        opened = None
        timeout = self._serve._open_timeout
        opening: ServerOpening | None = None
        stream = self._stream
        try:
            with move_on_after(timeout) as scope:
                if self._serve._ssl is not None:
                    stream = await _transports.wrap_tls(stream, self._serve._ssl, server_side=True)
                opening = ServerOpening(_transports.wrap(stream), self._serve._settings)
                opened = await opening.run()
        finally:
            if opened is None:
                await _close_stream(stream)
        if opened is None:
            if scope.cancelled_caught:
                raise TimeoutError(f"no handshake within {timeout} seconds (open_timeout)")
            assert opening is not None
            raise opening.error or InvalidMessage("no handshake")
        self._lifespan = Lifespan(*opened)
        return await self._lifespan.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._lifespan is not None
        await self._lifespan.__aexit__(exc_type, exc, traceback)


async def _no_handler(connection: Connection) -> None:
    """Stand where wrap_server() has a block instead."""
