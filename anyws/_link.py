"""A transport and a protocol joined: replies to writes, and the end of both.

Owns the waiters and the replies, the state of the end, and what the connection's own tasks do. What
a user calls stands in `_connection`; the way from a chunk to a message, in `_intake`; who may send,
in `_outbox`; who runs the tasks, in `_lifespan`. Knows no frame and no socket. RFC 6455 sections 5
to 7.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

from anyio import CancelScope, move_on_after
from anyio.lowlevel import checkpoint

from ._ending import Ending
from ._intake import Intake
from ._keepalive import Keepalive, Pings, PongWaiter, Watchdog
from ._outbox import Outbox
from ._parking import Latch
from ._tasks import ClosingScopes, UserTasks
from ._types import OPEN, Close, CloseCode

if TYPE_CHECKING:
    import logging

    from anyio.abc import TaskGroup

    from ._inbox import Inbox
    from ._options import ConnectionOptions
    from ._transports import Transport
    from ._types import Data, DataLike, Fragment, Pong
    from .sansio._protocol import Protocol

# After both Close frames are exchanged, and ours has left, nothing more has to be waited for. This
# lets the peer's last bytes arrive before our socket goes, which would answer them with a reset
# that overtakes our Close.
_LINGER_TIMEOUT = 1.0

# Seconds that the application has to answer the messages before a bad frame. Until it asks for the
# next message, or they are over, the connection stays open for its answers.
_ANSWER_TIMEOUT = 1.0

# Bytes that wait to be sent before Pongs coalesce, where write_limit is None.
_PONG_LIMIT = 65536

# How often other tasks may run before a cancelled connection is dropped: the flusher needs two or
# three turns to get a Close frame out where nothing is in its way.
_DROP_TURNS = 10


class Watcher(Interface):
    """Who is told what happens on a connection, at once; none of it waits or raises."""

    def opened(self) -> None:
        """Take that it lives."""

    def closed(self) -> None:
        """Take that it is over; it is called once."""

    def message_sent(self, message: DataLike) -> None:
        """Take that a message was written."""

    def fragment_sent(self, fragment: DataLike, *, fin: bool) -> None:
        """Take that a fragment of one was."""


class Link:
    """What a Connection is made of.

    Args:
        transport: moves the bytes.
        protocol: says what they mean.
        options: what the user chose.
        logger: where to log.
        inbox: where the messages wait.
    """

    __slots__ = (
        "_closing_transport",
        "_ends",
        "_flushed",
        "_keepalive",
        "_pong_limit",
        "_watchdog",
        "closed",
        "closing_scopes",
        "ending",
        "inbox",
        "intake",
        "latency",
        "logger",
        "outbox",
        "pings",
        "protocol",
        "task_group",
        "transport",
        "user_tasks",
        "watcher",
    )

    def __init__(
        self,
        transport: Transport,
        protocol: Protocol,
        options: ConnectionOptions,
        logger: logging.Logger | logging.LoggerAdapter[Any],
        inbox: Inbox,
    ) -> None:
        self.transport: Transport = transport
        self.protocol: Protocol = protocol
        self.logger: logging.Logger | logging.LoggerAdapter[Any] = logger
        self.pings: Pings = Pings()
        self.latency: float = 0.0
        self.closing_scopes: ClosingScopes = ClosingScopes()
        self.user_tasks: UserTasks = UserTasks()
        self.task_group: TaskGroup | None = None
        self.watcher: Watcher | None = None
        self.closed: Latch = Latch()
        """Set when the connection is over and its transport closed."""
        self._keepalive = Keepalive(options.ping_interval, options.ping_timeout)
        self.inbox: Inbox = inbox
        self.intake: Intake = Intake(transport, protocol, inbox, self._keepalive, self)
        protocol.holds_failure = True
        self.ending: Ending = Ending(protocol, self.intake.settled)
        """How it ends, as far as it has."""
        self.outbox: Outbox = Outbox(
            transport, protocol, inbox.fairness, options.write_marks, self.ending
        )
        transport.gather_below(self.outbox.high)
        # What the application lifts for itself it does not lift for its peers.
        limited = self.outbox.high < math.inf
        self._pong_limit = self.outbox.high if limited else _PONG_LIMIT
        # The end. It begins when the state is no longer open, and is settled when nothing more can
        # be received.
        self._ends = False
        # Whether our half of the stream has ended, behind all that was written.
        self._flushed = False
        self._watchdog = Watchdog(options.close_timeout, transport)
        self._closing_transport: CancelScope | None = None

    # What comes, besides messages.

    def take_pong(self, pong: Pong) -> None:
        """Take a Pong, which may tell how long it took."""
        latency = self.pings.receive_pong(pong.data)
        if latency is not None:
            self.latency = latency

    def write_replies(self) -> None:
        """Answer what has come, and begin the end if it is due. Never waits."""
        protocol = self.protocol
        if protocol.pong_to_send and self.transport.write_buffer_size > self._pong_limit:
            # The peer does not read: one Pong is kept for it, whatever it sends.
            if self.transport.write_latest(protocol.data_to_send(newest_pong=True)):
                protocol.drop_pong()
            return
        replies = protocol.data_to_send()
        if replies:
            self.transport.write(replies)
        if protocol.state is not OPEN:
            self.begin_end()

    async def next_message(self) -> Data | Fragment:
        """Wait for the next message and give it; `intake.pop()` takes it out.

        Raises:
            ConnectionClosed: no more will come.
            ConcurrencyError: another task waits.

        Cancellation: loses nothing.
        """
        queue = self.inbox.queue
        if not queue:
            self.release_failure()  # it has answered all that came before
        if not await self.inbox.ready():
            raise self.ending.error()
        return queue.head

    def take_failure(self, *, answering: bool) -> None:
        """Fail the connection, after what the application still answers to earlier messages."""
        if self.protocol.state is OPEN and answering:
            assert self.task_group is not None
            self.task_group.start_soon(self._release_failure_in_time, name="anyws failure")
        else:
            self._fail_as_found()

    async def _release_failure_in_time(self) -> None:
        with move_on_after(_ANSWER_TIMEOUT, shield=True):
            await self.ending.settled.wait()
        self.release_failure()

    def release_failure(self) -> None:
        """Fail the connection if a bad frame has come and waits; for the rest without effect."""
        if self.protocol.held_failure is not None and self.protocol.state is OPEN:
            self._fail_as_found()

    def _fail_as_found(self) -> None:
        self.protocol.release_failure()
        # Before the Close frame is written: where it cannot be any more, that came of it.
        self.ending.cause = self.ending.cause or self.protocol.failure
        self.write_replies()
        self.settle(None)

    # Sending.

    async def check_open(self) -> None:
        """See that the connection is open; if it closes, wait until it is known how.

        Raises:
            ConnectionClosed: it is not.
        """
        if self.protocol.state is not OPEN:
            await self.ending.raise_error()

    def send_ping(self) -> PongWaiter:
        """Send a Ping of keepalive. Never waits."""
        payload = self.pings.new_payload()
        self.transport.write(self.protocol.send_ping(payload))
        return self.pings.add_keepalive(payload)

    def expire_keepalive(self) -> None:
        """Fail the connection, since no Pong has come in time."""
        self.ending.keepalive_expired = True
        self.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")

    # The end.

    def start_close(self, close: Close, *, patience: float = 0) -> None:
        """Begin the closing handshake, unless the connection is ending already. Never waits.

        Args:
            close: what to send.
            patience: seconds in which the application has to take a message out of a full inbox;
                then what finds no room is dropped, since the peer's Close comes behind. With
                math.inf it may take its time; where the peer has little, half of that counts.
        """
        self.release_failure()
        if self.protocol.state is OPEN:
            if self.protocol.sending_fragments:
                self.fail(CloseCode.INTERNAL_ERROR, "close during a fragmented message")
                return
            self.transport.write(self.protocol.send_close(close.code, close.reason))
            self.begin_end()
        if patience <= 0:
            self.intake.discard()
        elif patience < math.inf:
            self.intake.be_patient(min(patience, self._watchdog.timeout / 2))

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection (RFC 6455 section 7.1.7). Never waits."""
        self.protocol.fail(code, reason)
        self.write_replies()
        self.settle(None)
        self.intake.discard()

    def abort(self) -> None:
        """Drop the transport; without effect if it is closed already. Never waits."""
        if self.closed.is_set():
            return
        self.protocol.lose_write()
        self.transport.abort()
        if self._closing_transport is not None:
            self._closing_transport.cancel()
        self.begin_end()

    def _give_up(self) -> None:
        """Drop the transport, because the time for closing is over."""
        ending = self.ending
        if not ending.settled.is_set() and ending.cause is None:
            seconds = self._watchdog.timeout
            ending.cause = TimeoutError(
                f"no Close frame within {seconds:g} seconds (close_timeout)"
            )
        self.abort()

    def begin_end(self) -> None:
        """Do what is due once the connection is not open any more; may be called again."""
        protocol = self.protocol
        beginning = not self._ends
        if beginning:
            self._ends = True
            self.intake.begin_end()
            self._keepalive.stop()
            self.closing_scopes.cancel()
        if protocol.eof_to_send:
            self.transport.write_eof()
            if self._flushed and protocol.close_rcvd is not None:
                self._watchdog.hasten(_LINGER_TIMEOUT, self._give_up)
        if beginning:
            # Behind that, which may have set the timer already.
            self._watchdog.begin(self._give_up)
            self.transport.attend()

    def settle(self, cause: BaseException | None) -> None:
        """Take that nothing more will be received, and let all who wait for something know it."""
        ending = self.ending
        if not ending.settled.is_set():
            ending.cause = ending.cause or cause
            self.intake.end()
            self.pings.fail(ending.error)
            self.transport.release()
            self.outbox.release()
        self.begin_end()

    def fail_user_task(self, connection: object, exc: Exception) -> None:
        """Take the error of a task that is tied to the connection, which the log is told."""
        if self.ending.is_of(exc):
            self.logger.debug("task ended with its connection: %s", exc)
            return
        self.logger.error(
            "task of a connection failed", exc_info=exc, extra={"websocket": connection}
        )
        self.ending.cause = self.ending.cause or exc
        if self.protocol.state is OPEN:
            self.fail(CloseCode.INTERNAL_ERROR, "")

    # What `_lifespan` runs.

    def start(self, task_group: TaskGroup, trailing_data: bytes) -> None:
        """Begin to live: start the tasks, after what came with the opening handshake."""
        self.task_group = task_group
        self.intake.start(task_group)
        self.transport.start(self.intake, task_group)
        self._keepalive.start(self, self.transport, task_group)
        if self.watcher is not None:
            self.watcher.opened()
        if trailing_data:
            self.intake.feed(trailing_data)

    def end_reading(self, error: Exception | None) -> None:
        """Take that nothing more will come, and see to the end of all."""
        self._lose(error)
        if self.transport.close():
            self._end()
            return
        assert self.task_group is not None
        self.task_group.start_soon(self._finish, error is None, name="anyws end")

    def end_writing(self, error: Exception | None) -> None:
        """Take that nothing more will leave."""
        if error is None:
            self._flushed = True
        else:
            # What the peer has sent before is still to be read; reading finds the end of it.
            self.ending.cause = self.ending.cause or error
            self.protocol.lose_write()
        self.begin_end()

    async def _finish(self, flush: bool) -> None:
        try:
            # The peer has ended its half; our Close may still wait to be sent. The watchdog, which
            # aborts the transport, ends this.
            if flush and self.protocol.close_sent is not None:
                with CancelScope(shield=True):
                    await self.transport.drain(0)
        finally:
            try:
                await self._close_transport()
            finally:  # all wait for it, also in shields
                self._end()

    def _end(self) -> None:
        """Take that all is over and the transport closed; later calls do nothing."""
        if self.closed.is_set():
            # drop() had to close a transport that took its time, and _finish() was at it too.
            return
        self._watchdog.end()
        self.protocol.receive_eof()
        self.closed.set()
        self.user_tasks.cancel()
        # Nothing refers to us now but who uses the connection: it is freed with the last of them,
        # and not by the garbage collector some time later.
        self.intake.let_go()
        if self.watcher is not None:
            self.watcher.closed()

    def _lose(self, cause: BaseException | None) -> None:
        self.release_failure()
        self.protocol.lose_write()
        self.settle(cause)

    async def _close_transport(self) -> None:
        self._closing_transport = CancelScope(shield=True, deadline=self._watchdog.deadline)
        await self._close_transport_in(self._closing_transport)
        self.transport.abort()  # ends the flusher, whatever it was at
        if self._closing_transport.cancelled_caught:
            # Closing without ceremony waits for nothing.
            await self._close_transport_in(CancelScope(shield=True))

    async def _close_transport_in(self, scope: CancelScope) -> None:
        try:
            with scope:
                await self.transport.aclose()
        except Exception as exc:
            self.logger.debug("closing the transport failed: %r", exc)

    async def drop(self) -> None:
        """End the connection now, after a Close frame if that can leave without waiting.

        It is 1001, and 1011 where a fragmented message is not complete.

        Cancellation: it ends all the same.
        """
        self.start_close(Close(CloseCode.GOING_AWAY))
        # An aborted transport is closed without waiting, which bounds the shield.
        with CancelScope(shield=True):
            for _ in range(_DROP_TURNS):
                if not self.transport.write_buffer_size:
                    break
                await checkpoint()
            self.abort()
            for _ in range(_DROP_TURNS):
                if self.closed.is_set():
                    return
                await checkpoint()
            # asyncio may have cancelled our tasks too, even before they began; or the transport
            # takes its time.
            self._lose(None)
            await self._close_transport()
            self._end()
