"""Hooks: what an application has called as things happen on its connections.

Owns the interface, the calls, and what becomes of an error in one. Who has no hooks pays nothing
for them: a connection that tells its messages is of a class of its own, with an inbox of its own.
"""

import logging
from collections.abc import Awaitable, Callable
from types import MethodType
from typing import Any
from weakref import ref

from ._cancellation import ends_the_program
from ._checks import check_plain_function
from ._connection import Connection, MessageLike
from ._http import Request, Response
from ._inbox import Inbox
from ._options import ConnectionOptions, Marks
from ._parking import Parking
from ._transports import Transport
from ._types import DATA_TYPES, Data, DataLike, Event, Fragment
from .sansio._protocol import Protocol
from .sansio._pyqueue import MessageQueue

__all__ = ["Hooks"]


class Hooks:
    """What is called as things happen on connections; each method does nothing until overridden.

    An instance is given as `hooks=` to `connect`, `reconnect`, `serve` and their like, and is
    called for all connections of theirs. Methods are plain functions, and must not block: they run
    where the thing happens, in a callback of the event loop or in a task, which need not be that of
    the handler. They may call what does not wait, such as `send_nowait()`, `start_soon()` and
    `abort()`.

    A message is given either whole, to `message_received` or `message_sent`, or in fragments, to
    `fragment_received` or `fragment_sent`, of which `fin` marks the last.

    What a hook raises harms no connection. It is logged with its traceback, at ERROR: the first
    time for each method on each connection, and not again.
    """

    def opened(self, ws: Connection) -> None:
        """Take that a connection has opened, before its first message and before its handler."""

    def closed(self, ws: Connection) -> None:
        """Take that a connection is over: once for each that has opened, whatever has ended it.

        Its `close_code` and `close_reason` tell how, and its `stats` do not change any more.
        """

    def message_received(self, ws: Connection, message: Data) -> None:
        """Take that a message has come and waits for `recv()`, whether that is called or not."""

    def fragment_received(self, ws: Connection, fragment: Data, *, fin: bool) -> None:
        """Take that a fragment has come and waits for `recv_streaming()`, likewise.

        A message that is left midway has no last one: what is skipped of it is not given.
        """

    def message_sent(self, ws: Connection, message: DataLike) -> None:
        """Take that a message was taken to be sent, whether it has left or not.

        Args:
            ws: where to; `broadcast()` calls this for each connection.
            message: what `send()` and its like were given.
        """

    def fragment_sent(self, ws: Connection, fragment: DataLike, *, fin: bool) -> None:
        """Take that a fragment was, of an iterable; an asynchronous one ends with an empty one."""


_NAMES = tuple(name for name in vars(Hooks) if not name.startswith("_"))
_MESSAGE_NAMES = tuple(name for name in _NAMES if name not in {"opened", "closed"})


def check_hooks(hooks: Hooks | None) -> None:
    """See that they can be called, or are None.

    Raises:
        TypeError: they cannot.
    """
    if hooks is None:
        return
    if not isinstance(hooks, Hooks):
        kind = "the class itself" if isinstance(hooks, type) else type(hooks).__name__
        raise TypeError(f"hooks must be an instance of anyws.Hooks or None, not {kind}")
    for name in _NAMES:
        check_plain_function(f"{name} of hooks", getattr(hooks, name))


def make_connection(
    transport: Transport,
    protocol: Protocol,
    request: Request,
    response: Response,
    subprotocol: str | None,
    options: ConnectionOptions,
    logger: logging.Logger | logging.LoggerAdapter[Any],
    hooks: Hooks | None,
) -> Connection:
    """Make a connection, one that tells its hooks if there are any."""
    arguments = (transport, protocol, request, response, subprotocol, options, logger)
    if hooks is not None and _wants_messages(hooks):
        return WatchedConnection(*arguments, hooks)
    connection = Connection(*arguments)
    if hooks is not None:
        connection._link.watcher = _Watcher(connection, hooks)
    return connection


def _wants_messages(hooks: Hooks) -> bool:
    """Say whether any of those that are called for messages does something."""
    return any(
        getattr(hooks, name) != MethodType(getattr(Hooks, name), hooks) for name in _MESSAGE_NAMES
    )


class WatchedConnection(Connection):
    """A connection that tells its hooks of messages too.

    Args:
        arguments: those of `Connection`.
        hooks: the hooks.
    """

    def __init__(
        self,
        transport: Transport,
        protocol: Protocol,
        request: Request,
        response: Response,
        subprotocol: str | None,
        options: ConnectionOptions,
        logger: logging.Logger | logging.LoggerAdapter[Any],
        hooks: Hooks,
    ) -> None:
        self._watcher = _Watcher(self, hooks)
        super().__init__(transport, protocol, request, response, subprotocol, options, logger)
        self._link.watcher = self._watcher

    def _make_inbox(
        self, queue: MessageQueue, transport: Transport, options: ConnectionOptions
    ) -> Inbox:
        return _WatchedInbox(
            self._watcher,
            queue,
            options.queue_marks,
            options.read_marks,
            transport.make_parking,
            transport.rest,
        )

    async def send(
        self, message: MessageLike, *, text: bool | None = None, compress: bool | None = None
    ) -> None:
        """Send a message, as any connection does.

        Cancellation: likewise.
        """
        if not isinstance(message, DATA_TYPES):
            await super().send(message, text=text, compress=compress)  # it tells the fragments
            return
        link = self._link
        await link.outbox.ready()
        self._transport.write(self._protocol.send_message(message, text, compress))
        # Behind it: what the hook may send must not overtake it.
        self._watcher.message_sent(message)
        await link.outbox.wait_behind(len(message))

    def send_nowait(
        self, message: DataLike, *, text: bool | None = None, compress: bool | None = None
    ) -> None:
        """Send a message if that needs no waiting, as any connection does."""
        super().send_nowait(message, text=text, compress=compress)
        self._watcher.message_sent(message)


class _Watcher:
    """Calls the hooks for one connection."""

    def __init__(self, ws: Connection, hooks: Hooks) -> None:
        # The connection has us: without a cycle it is freed with the last who uses it.
        self._ref = ref(ws)
        self._hooks = hooks
        self._failed: set[str] = set()

    @property
    def _ws(self) -> Connection:
        ws = self._ref()
        assert ws is not None  # as long as there is something to tell, its block has it
        return ws

    def opened(self) -> None:
        # Not by one method for all: a message that is echoed took half a microsecond longer.
        try:
            self._hooks.opened(self._ws)
        except BaseException as exc:
            self._take("opened", exc)

    def closed(self) -> None:
        try:
            self._hooks.closed(self._ws)
        except BaseException as exc:
            self._take("closed", exc)

    def message_received(self, message: Data) -> None:
        try:
            self._hooks.message_received(self._ws, message)
        except BaseException as exc:
            self._take("message_received", exc)

    def fragment_received(self, fragment: Data, *, fin: bool) -> None:
        try:
            self._hooks.fragment_received(self._ws, fragment, fin=fin)
        except BaseException as exc:
            self._take("fragment_received", exc)

    def message_sent(self, message: DataLike) -> None:
        try:
            self._hooks.message_sent(self._ws, message)
        except BaseException as exc:
            self._take("message_sent", exc)

    def fragment_sent(self, fragment: DataLike, *, fin: bool) -> None:
        try:
            self._hooks.fragment_sent(self._ws, fragment, fin=fin)
        except BaseException as exc:
            self._take("fragment_sent", exc)

    def _take(self, name: str, exc: BaseException) -> None:
        if ends_the_program(exc):
            raise exc
        # Any other is an error of the hook, a cancellation too: what does not wait is not
        # cancelled, so that is one of another task, whose result it has asked for.
        if name not in self._failed:
            self._failed.add(name)
            ws = self._ws
            ws.logger.error(
                "hook %s failed, told once for the connection",
                name,
                exc_info=exc,
                extra={"websocket": ws},
            )


class _WatchedInbox(Inbox):
    """An inbox that tells what is put into it.

    Args:
        watcher: whom to tell.
        queue: as for `Inbox`.
        max_messages: likewise.
        max_bytes: likewise.
        make_parking: likewise.
        rest: likewise.
    """

    __slots__ = ("_watcher",)

    def __init__(
        self,
        watcher: _Watcher,
        queue: MessageQueue,
        max_messages: Marks,
        max_bytes: Marks,
        make_parking: Callable[[], Parking],
        rest: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(queue, max_messages, max_bytes, make_parking, rest)
        queue.replenishes = False  # what the decoder puts there by itself is not told
        self._watcher = watcher

    def note_fragment(self, fragment: Fragment) -> None:
        self._tell(fragment)

    def put(self, message: Data | Fragment) -> None:
        super().put(message)
        self._tell(message)

    def put_all(self, messages: list[Data], size: int) -> None:
        super().put_all(messages, size)
        for message in messages:
            self._watcher.message_received(message)

    def put_messages(self, events: list[Event]) -> int:
        count = super().put_messages(events)
        for event in events:
            self._tell(event)
        return count

    def _tell(self, event: Event) -> None:
        if isinstance(event, str | bytes):
            self._watcher.message_received(event)
        elif isinstance(event, Fragment):
            self._watcher.fragment_received(event.data, fin=event.fin)
