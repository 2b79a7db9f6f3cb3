"""The blocks that own servers: serve, unix_serve, serve_forever; wrap_server for one connection.

Owns their parameters and their ways out; what a server does stands in `_server`. RFC 6455 section
4.2.
"""

import logging
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Sequence
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Unpack

from anyio import (
    TASK_STATUS_IGNORED,
    create_task_group,
    get_cancelled_exc_class,
    move_on_after,
)
from anyio.abc import ByteStream, Listener, TaskStatus
from anyio.streams.stapled import MultiListener

from . import _transports
from ._arguments import ServeArguments, UnixServeArguments, WrapServerArguments
from ._cancellation import bare, ends_the_program, is_cancellation, raise_as_is
from ._checks import (
    check_arguments,
    check_callable,
    check_choice,
    check_extensions,
    check_listeners,
    check_logger,
    check_path,
    check_place,
    check_plain_function,
    check_seconds,
    check_ssl,
    check_stream,
)
from ._connection import Connection
from ._hooks import Hooks, check_hooks
from ._lifespan import Lifespan
from ._opening import (
    ProcessRequest,
    ProcessResponse,
    ServerOpening,
    ServerSettings,
    choose_compression,
)
from ._options import ConnectionOptions, Limits
from ._server import Server, close_stream
from .sansio._deflate import PerMessageDeflate
from .sansio._extensions import ServerExtension
from .sansio._handshake import PRODUCT
from .sansio._limits import check_int
from .sansio._origins import SAME_HOST, OriginPolicy
from .sansio._server_handshake import ServerHandshake, SubprotocolSelector

__all__ = ["serve", "serve_forever", "unix_serve", "wrap_server"]

_LOGGER = logging.getLogger("anyws.server")

# The arguments that are about listening on TCP, and those about more than one connection.
_TCP_ARGUMENTS = frozenset({"host", "port", "listeners", "reuse_port"})
_SERVER_ARGUMENTS = _TCP_ARGUMENTS | {"backlog", "max_connections", "handler_errors"}


# A listener runs in that of the block, in which there is the server's, in which all accept.
_TASK_GROUPS = 3


class serve:  # noqa: N801  # it is used as a function: `async with serve(handler) as server`
    """Serve WebSocket connections: `async with serve(handler, host, port) as server`.

    The block owns the server. Left normally, `server.close()`; left by an exception or by
    cancellation, all connections are dropped. What the body raises leaves as itself.

    Args:
        handler: an async function; it is called with each connection. Its return closes the
            connection with 1000, its exception with 1011.
        host: a name or address to listen on; None, or an empty str, is all interfaces.
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
        handler_errors: "log" logs what a handler raises; "raise" ends the server and raises it out
            of the block, for tests.
        logger: where to log; None takes "anyws.server".
        hooks: what to call as things happen on the connections.

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
        listeners: Iterable[Listener[ByteStream]] | None = None,
        ssl: ssl_module.SSLContext | None = None,
        backlog: int | None = None,
        reuse_port: bool = False,
        origins: OriginPolicy = SAME_HOST,
        subprotocols: Sequence[str] | None = None,
        select_subprotocol: SubprotocolSelector | None = None,
        extensions: Sequence[ServerExtension] | None = None,
        compression: Literal["deflate"] | PerMessageDeflate | None = "deflate",
        process_request: ProcessRequest | None = None,
        process_response: ProcessResponse | None = None,
        server_header: str | None = PRODUCT,
        max_connections: int | None = None,
        open_timeout: float | None = 10,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_size: int | tuple[int | None, int | None] | None = 2**20,
        max_queue: Limits = 2**5,
        read_limit: Limits = 2**16,
        write_limit: Limits = 2**16,
        handler_errors: Literal["log", "raise"] = "log",
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        check_callable("handler", handler, takes=("ws",))
        if select_subprotocol is not None:
            check_plain_function(
                "select_subprotocol", select_subprotocol, takes=("request", "offered")
            )
        if process_request is not None:
            check_callable("process_request", process_request, takes=("request",))
        if process_response is not None:
            check_callable("process_response", process_response, takes=("request", "response"))
        check_place(host, port)
        if backlog is not None:
            check_int("backlog", backlog)
            if backlog < 0:
                raise ValueError(f"backlog of {backlog} is negative")
        check_ssl(ssl, server_side=True)
        check_logger(logger)
        check_hooks(hooks)
        own = check_extensions(extensions, ServerExtension)
        if listeners is not None:
            listeners = check_listeners(listeners)
        if not isinstance(reuse_port, bool):
            raise TypeError(f"reuse_port must be a bool, not {type(reuse_port).__name__}")
        check_choice("handler_errors", handler_errors, ("log", "raise"))
        if max_connections is not None:
            check_int("max_connections", max_connections)
            if max_connections < 0:
                raise ValueError(f"max_connections of {max_connections} is negative")
        check_seconds("open_timeout", open_timeout)
        deflate = choose_compression(compression)
        accepted = [*own, *(() if deflate is None else (deflate,))]

        handshake = ServerHandshake(
            origins=origins,
            subprotocols=subprotocols,
            select_subprotocol=select_subprotocol,
            extensions=accepted,
            server_header=server_header,
        )
        self._handler = handler
        self._host = host or None
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
            make_handshake=handshake.another,
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
            hooks=hooks,
        )
        self._server: Server | None = None
        # What a handler has raised, which is to be raised here, and on which connection.
        self._handler_error: Exception | None = None
        self._failed_connection: Connection | None = None

    if not TYPE_CHECKING:  # type checkers find the mistake by the lack of it

        def __await__(self) -> NoReturn:
            raise TypeError(
                f"{type(self).__name__}() cannot be awaited, because a server owns tasks and they"
                f" need a block that ends: use `async with {type(self).__name__}(...) as server`,"
                " or `await tg.start(serve_forever, ...)`"
            )

    async def __aenter__(self) -> Server:
        if self._server is not None:
            raise RuntimeError(f"{type(self).__name__}() can be entered only once: call it again")
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
        failed = self._handler_error is not None and (exc is None or is_cancellation(exc))
        try:
            if failed and exc is not None:
                # This cancellation is the one of our own scope, which takes it in.
                await self._task_group.__aexit__(exc_type, exc, traceback)
            else:
                await self._task_group.__aexit__(None, None, None)
        except get_cancelled_exc_class() as cancelled:
            interruption = cancelled
        except BaseExceptionGroup as group:
            failure = bare(group, _TASK_GROUPS)
            if exc is None or is_cancellation(exc) or not isinstance(failure, Exception):
                raise_as_is(failure)
            # The body's own error leaves; this is one of a listener.
            self._server._log_failure(failure)
        finally:
            await self._server._close_listeners()
        if exc is None and interruption is not None and ends_the_program(interruption):
            raise interruption  # a KeyboardInterrupt wins over everything
        # It may have come while that was waited for; a cancellation that has come first stays one.
        if self._handler_error is not None:
            failed = failed or (interruption is None if exc is None else is_cancellation(exc))
        if self._handler_error is not None and not failed:
            # The body's own error leaves; it may well have come of this one.
            assert self._failed_connection is not None
            self._server._log_error(self._failed_connection, self._handler_error)
        if failed:
            assert self._handler_error is not None
            raise_as_is(self._handler_error)
        if exc is None and interruption is not None:
            raise interruption

    async def _listen(self) -> list[Listener[ByteStream]]:
        if self._unix_path is not None:
            return await _transports.listen_unix(self._unix_path, backlog=self._backlog)
        if self._own_listeners is None:
            return await _transports.listen_tcp(
                self._host, self._port, backlog=self._backlog, reuse_port=self._reuse_port
            )
        listeners: list[Listener[ByteStream]] = []
        for listener in self._own_listeners:
            listeners.extend(
                listener.listeners if isinstance(listener, MultiListener) else [listener]
            )
        return listeners

    def _take_handler_error(self, connection: Connection, error: Exception) -> bool:
        """Keep the first to raise it; say whether this is it."""
        if self._handler_error is not None:
            return False
        self._failed_connection = connection
        self._handler_error = error
        self._task_group.cancel_scope.cancel()
        return True


class unix_serve(serve):  # noqa: N801  # it is used as a function
    """Serve on a UNIX socket: `async with unix_serve(handler, path) as server`.

    Args:
        handler: as for `serve`.
        path: the path of the socket; a socket that is there already is replaced, in use or not. It
            is taken away when the server stops listening.
        arguments: those of `serve`, but host, port, listeners and reuse_port.

    Raises:
        ValueError, TypeError: as for `serve`.
        OSError: on entering: listening fails.

    Cancellation: on entering, nothing is left open.
    """

    def __init__(
        self,
        handler: Callable[[Connection], Awaitable[None]],
        path: str | PathLike[str],
        **arguments: Unpack[UnixServeArguments],
    ) -> None:
        check_arguments("unix_serve", arguments, _TCP_ARGUMENTS)
        check_path(path)
        super().__init__(handler, **arguments)
        self._unix_path = path


async def serve_forever(
    handler: Callable[[Connection], Awaitable[None]],
    host: str | None = "localhost",
    port: int = 0,
    *,
    task_status: TaskStatus[Server] = TASK_STATUS_IGNORED,
    **arguments: Unpack[ServeArguments],
) -> None:
    """Serve until cancelled or closed: `await tg.start(serve_forever, handler, host, port)`.

    Args:
        handler: as for `serve`.
        host: likewise.
        port: likewise.
        task_status: is given the Server once it listens.
        arguments: those of `serve`.

    Raises:
        ValueError, TypeError: as for `serve`.
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
        arguments: those of `serve` that are about one connection: not those about listening, nor
            handler, max_connections and handler_errors.

    Raises:
        ValueError, TypeError: as for `serve`.
        InvalidHandshake: on entering: the request was refused, or what came was none.
        ssl.SSLError, ConnectionResetError: on entering: TLS failed.
        TimeoutError: on entering: `open_timeout` is over.

    Cancellation: on entering, the stream is closed.
    """

    def __init__(self, stream: ByteStream, **arguments: Unpack[WrapServerArguments]) -> None:
        check_arguments("wrap_server", arguments, _SERVER_ARGUMENTS)
        check_stream(stream)
        self._stream = stream
        self._serve = serve(_no_handler, **arguments)
        self._entered = False
        self._lifespan: Lifespan | None = None

    if not TYPE_CHECKING:  # type checkers find the mistake by the lack of it

        def __await__(self) -> NoReturn:
            raise TypeError(
                "wrap_server() cannot be awaited, because a connection owns tasks and they need a"
                " block that ends: use `async with wrap_server(...) as ws`"
            )

    async def __aenter__(self) -> Connection:
        if self._entered:
            raise RuntimeError(f"{type(self).__name__}() can be entered only once: call it again")
        self._entered = True
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
                await close_stream(stream)
        if opened is None:
            if opening is not None and opening.error is not None:
                raise opening.error
            assert scope.cancelled_caught
            raise TimeoutError(f"no handshake within {timeout} seconds (open_timeout)")
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
