"""Serving: from listeners, or from one accepted stream, to Connections and their handlers.

Owns who is accepted, who runs the handlers, and the bounded end of all; knows no byte of a
handshake. RFC 6455 section 4.2.
"""

import logging
import math
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from anyio import (
    BrokenResourceError,
    CancelScope,
    ClosedResourceError,
    Event,
    TypedAttributeLookupError,
    create_task_group,
    current_time,
    move_on_after,
    sleep,
)
from anyio.abc import ByteStream, Listener, SocketAttribute
from anyio.lowlevel import checkpoint
from anyio.streams.stapled import MultiListener
from anyio.streams.tls import TLSListener

from . import _transports
from ._cancellation import application_error, is_cancellation
from ._checks import check_seconds
from ._connection import Connection
from ._http import Response, text_response
from ._lifespan import Lifespan
from ._names import describe_address, plain_path
from ._opening import CALLER, ServerOpening, ServerSettings, describe_peer
from ._patience import PATIENCE
from ._stats import Past, ServerStats
from ._tasks import check_awaitable
from ._types import OPEN, Close, CloseCode
from .sansio._closing import check_close

_T = TypeVar("_T")

# Seconds before accepting is tried again after it failed, as it does when descriptors run out.
_FIRST_ACCEPT_DELAY = 0.05
_MAX_ACCEPT_DELAY = 1.0

# How often other tasks may run before half-open handshakes are dropped with all the rest: where a
# 503 needs no waiting, it leaves in the first of these turns or the second, also without any grace.
_REFUSAL_TURNS = 5

# Seconds in which a transport that no connection has taken must be closed in peace.
_CLOSE_TIMEOUT = 1.0

# Seconds that an answer to a request may still take to leave, when the server is closed without a
# limit of its own: as long as the whole opening handshake by default.
_ANSWER_TIMEOUT = 10.0


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
        fail: Callable[[Connection, Exception], bool] | None,
    ) -> None:
        self._handler = handler
        self._listeners = list(listeners)
        self._settings = settings
        self._ssl = ssl
        self._max_connections = max_connections
        self._open_timeout = open_timeout
        # Takes the error of a handler, to raise it; where it does not, that is logged.
        self._fail = fail
        self._logger = settings.logger
        # Asked for now: a socket that is closed does not know them any more.
        self._addresses = _extra(listeners, SocketAttribute.local_address)
        self._ports = _extra(listeners, SocketAttribute.local_port)
        self._accepted = 0
        self._opened = 0
        self._refused: dict[int, int] = {}
        self._failed = 0
        self._past = Past()
        self._places_taken = 0
        self._connections: set[Connection] = set()
        self._openings: dict[CancelScope, ServerOpening | None] = {}
        self._closing = False
        self._close = Close(CloseCode.GOING_AWAY)
        self._patience = PATIENCE
        # Around all that runs; not the scope of the task group, which on trio has none until it is
        # entered.
        self._scope = CancelScope()
        self._accept_scope = CancelScope()
        self._task_group = create_task_group()
        self._closed = Event()

    @property
    def port(self) -> int:
        """The TCP port, which is one for all addresses.

        Raises:
            TypedAttributeLookupError: the server does not listen on TCP.
        """
        if not self._ports:
            raise TypedAttributeLookupError("the server does not listen on TCP")
        return self._ports[0]

    @property
    def addresses(self) -> list[Any]:
        """The addresses that the server listens on, as their sockets give them."""
        return list(self._addresses)

    @property
    def connections(self) -> frozenset[Connection]:
        """The open connections whose handlers run."""
        # Of 1,000 it takes 0.15 ms; with a generator and `open`, 0.5.
        return frozenset([ws for ws in self._connections if ws._protocol.state is OPEN])

    @property
    def stats(self) -> ServerStats:
        """What the server has done up to now, in numbers; after its end too.

        It asks each connection whose handler runs: for 1,000 of them it takes some milliseconds.
        """
        return ServerStats(
            accepted=self._accepted,
            opened=self._opened,
            open=len(self.connections),
            refused=self._refused.copy(),
            failed=self._failed,
            total=self._past.total([ws._link for ws in self._connections]),
        )

    async def serve_forever(self) -> None:
        """Wait until the server is closed.

        Cancellation: the server goes on; the block that owns it ends it.
        """
        await self._closed.wait()

    async def close(
        self, code: int = CloseCode.GOING_AWAY, reason: str = "", grace: float | None = 10.0
    ) -> None:
        """Stop listening, end all connections, and wait for their handlers.

        Half-open handshakes get a 503, unless their answer is being sent; open connections a Close
        frame. Handlers that have not ended after `grace` seconds are cancelled, and their
        connections dropped; so is one, or a hook, that waits for this itself. A handler goes on
        receiving, and gets all that its peer has sent before its own Close frame; where one takes
        nothing for a second, what finds no room in its queue is dropped.

        Args:
            code: as in `Connection.close`.
            reason: likewise.
            grace: seconds; None is no limit.

        Raises:
            ValueError: the code or the reason is none that may be sent, or `grace` is under 0; the
                server goes on.
            TypeError: an argument has the wrong type; likewise.

        Cancellation: the server goes on closing, without mercy: handlers are cancelled at once.
        """
        close = check_close(code, reason)
        check_seconds("grace", grace, or_zero=True)
        # A hook that waits for this itself is not cancelled now, but after all others.
        caller = CALLER.get()
        own_scope = next(
            (scope for scope, it in self._openings.items() if caller is not None and it is caller),
            None,
        )
        if not self._closing:
            self._closing = True
            self._close = close
            self._accept_scope.cancel()
            for scope, opening in list(self._openings.items()):
                if scope is own_scope:
                    if grace is not None:
                        scope.deadline = math.inf
                elif opening is None or not opening.answering:
                    scope.cancel()
                elif grace is None:  # who does not read its answer must not hold us up for ever
                    scope.deadline = min(scope.deadline, current_time() + _ANSWER_TIMEOUT)
            if grace is not None:
                self._patience = min(PATIENCE, grace / 2)
            for connection in list(self._connections):
                connection._link.start_close(close, patience=self._patience)
        try:
            with CancelScope(shield=True):
                for _ in range(_REFUSAL_TURNS if self._openings else 0):
                    await checkpoint()
            with move_on_after(grace):
                await self._closed.wait()
        except BaseException as exc:
            # Where it was another's close() that has ended this hook, that has mercy still.
            ended = own_scope is not None and own_scope.cancel_called
            if not (ended and is_cancellation(exc)):
                self._abort()
            raise
        self._abort()
        await self._closed.wait()  # cancelled handlers, which their connections' tasks do not hold

    def _abort(self) -> None:
        """End everything now, without waiting for it."""
        self._closing = True
        self._scope.cancel()

    async def _run(self) -> None:
        """Accept and serve until closed."""
        places = " and ".join(map(describe_address, self._addresses))
        self._logger.info("listening on %s", places or "listeners without an address")
        try:
            with self._scope:
                async with self._task_group:
                    with self._accept_scope:
                        async with create_task_group() as accepting:
                            for listener in list(self._listeners):
                                accepting.start_soon(self._accept, listener)
        finally:
            self._closed.set()
            self._logger.info("server closed")

    async def _accept(self, listener: Listener[ByteStream]) -> None:
        """Accept until cancelled; running out of descriptors or memory only delays it."""
        delay = _FIRST_ACCEPT_DELAY
        told = False
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
                        told = False
                    cause = exc if isinstance(exc, OSError) else exc.__cause__ or exc
                    # Told once until it works again; a client that left before its turn is nothing.
                    quiet = told or isinstance(cause, ConnectionAbortedError)
                    told = told or not quiet
                    level = logging.DEBUG if quiet else logging.ERROR
                    self._logger.log(level, "cannot accept, next try in %.2f s: %r", delay, cause)
                    await sleep(delay)
                    delay = min(2 * delay, _MAX_ACCEPT_DELAY)
        finally:
            await self._close_listener(listener)

    async def _close_listener(self, listener: Listener[ByteStream]) -> None:
        self._listeners.remove(listener)
        # Those of anyio wait for nobody; one of the application's own may.
        with move_on_after(_CLOSE_TIMEOUT, shield=True) as scope:
            await listener.aclose()
        if scope.cancelled_caught:
            self._logger.warning("listener not closed within %s seconds", _CLOSE_TIMEOUT)

    async def _close_listeners(self) -> None:
        """Close those that still listen: asyncio may have cancelled a task before it began."""
        while self._listeners:
            await self._close_listener(self._listeners[0])

    async def _serve_stream(self, stream: ByteStream) -> None:
        """Serve one accepted stream from its first byte to its last."""
        self._accepted += 1
        took_place = False

        def admit() -> "Response | None":  # not evaluated anew for each connection
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
        except Exception:  # one connection's trouble is not that of the others
            self._logger.exception("connection failed")
        except BaseException as exc:
            # Whoever cancelled it, the task is over. Let out, a cancellation that is not the
            # server's (asyncio's own, or that of a task it awaited) would end the server.
            if not is_cancellation(exc):
                raise
            self._logger.debug("connection cancelled")
        finally:
            if took_place:
                self._places_taken -= 1

    async def _open(
        self, stream: ByteStream, admit: Callable[[], Response | None]
    ) -> tuple[Connection, bytes] | None:
        """Run the opening handshake, within open_timeout; close the stream if it fails."""
        transport: _transports.Transport | None = None
        opening: ServerOpening | None = None
        opened = None
        scope: CancelScope | None = None  # until then an interrupt of the user's may come
        try:
            # One scope for both: on asyncio each costs 6 microseconds, on trio 12.
            with move_on_after(self._open_timeout) as scope:
                self._openings[scope] = None
                if self._closing:
                    scope.cancel()
                if self._ssl is not None:
                    stream = await _transports.wrap_tls(stream, self._ssl, server_side=True)
                transport = _transports.wrap(stream)
                self._openings[scope] = opening = ServerOpening(transport, self._settings, admit)
                opened = await opening.run()
            if opening is not None and opened is None:
                if not scope.cancelled_caught:
                    self._logger.debug("no connection: %s", opening.error)
                elif self._closing:
                    with move_on_after(_CLOSE_TIMEOUT):
                        await opening.refuse(503, "the server is going away\n")
                else:
                    timeout, who = self._open_timeout, describe_peer(stream)
                    self._logger.info("no handshake within %s seconds (%s)", timeout, who)
        except (OSError, BrokenResourceError, ClosedResourceError) as exc:  # ssl.SSLError too
            self._logger.info("opening handshake failed: %r (%s)", exc, describe_peer(stream))
        finally:
            if scope is not None:
                self._openings.pop(scope, None)
            if opened is None:
                self._count_unopened(None if opening is None else opening.status)
                await close_stream(transport or stream)
        return opened

    def _count_unopened(self, status: int | None) -> None:
        if status is None or status == 101:
            self._failed += 1
        else:
            self._refused[status] = self._refused.get(status, 0) + 1

    async def _handle(self, connection: Connection, trailing_data: bytes) -> None:
        self._connections.add(connection)
        self._opened += 1
        opened_at = current_time()
        try:
            async with Lifespan(connection, trailing_data) as ws:
                if self._closing:
                    ws._link.start_close(self._close, patience=self._patience)
                await self._call_handler(ws)
        finally:
            self._connections.discard(connection)
            self._past.add(connection._link)
            if self._logger.isEnabledFor(logging.INFO):
                self._tell_end(connection, current_time() - opened_at)

    def _tell_end(self, connection: Connection, seconds: float) -> None:
        """Log the one line that an operator gets of a connection that was opened."""
        self._logger.info(
            "connection of %s to %s ended after %.3f s: %s",
            describe_address(connection.remote_address),
            plain_path(connection.path),
            seconds,
            connection._link.ending.error(),
        )

    async def _call_handler(self, connection: Connection) -> None:
        try:
            await check_awaitable("handler", self._handler(connection))
        except BaseException as exc:
            error = application_error("the handler", exc)
            if not isinstance(error, Exception):
                raise
            self._take_error(connection, error)
            del error  # whose traceback has this frame

    def _take_error(self, connection: Connection, error: Exception) -> None:
        # The end of its own connection is no error of a handler, alone or in the handler's groups.
        if connection._link.ending.is_of(error):
            self._logger.debug("handler ended with its connection: %s", error)
            return
        # Told now: the peer may take its time to answer our Close.
        connection._link.start_close(Close(CloseCode.INTERNAL_ERROR))
        if self._fail is None or not self._fail(connection, error):
            self._log_error(connection, error)

    def _log_failure(self, error: BaseException) -> None:
        """Log what has ended the server."""
        self._logger.error("server failed", exc_info=error)

    def _log_error(self, connection: Connection, error: Exception) -> None:
        """Log what a handler has raised, and whose it was."""
        self._logger.error(
            "connection handler failed (%s, %s)",
            describe_address(connection.remote_address),
            plain_path(connection.path),
            exc_info=error,
            extra={"websocket": connection},
        )


def _extra(listeners: Iterable[Listener[Any]], attribute: _T) -> list[_T]:
    """Give the values of a typed attribute, from the listeners that have it."""
    found: list[_T | None] = []
    for listener in listeners:
        if isinstance(listener, TLSListener):
            # It has none of the attributes of the one below it.
            found += _extra([listener.listener], attribute)
        elif isinstance(listener, MultiListener):
            found += _extra(listener.listeners, attribute)
        else:
            found.append(listener.extra(attribute, None))
    return [value for value in found if value is not None]


async def close_stream(stream: ByteStream) -> None:
    """Close a stream that no connection has taken.

    Cancellation: it is closed without ceremony.
    """
    try:
        with move_on_after(_CLOSE_TIMEOUT):
            await stream.aclose()
    except Exception:  # noqa: S110  # TLS says that it was not ended in its way: it is closed all the same
        pass
