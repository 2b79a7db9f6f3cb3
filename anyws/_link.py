"""A transport and a protocol joined: chunks to messages, replies to writes, and the end of both.

Owns the synchronous path from a chunk to the inbox, the waiters and the replies, the state of the
end, and what the connection's own tasks do. What a user calls stands in `_connection`; who may
send, in `_outbox`; who runs the tasks, in `_lifespan`. Knows no frame and no socket. RFC 6455
sections 5 to 7.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn
from typing import Protocol as Interface

from anyio import CancelScope, move_on_after
from anyio.lowlevel import checkpoint

from ._inbox import Inbox
from ._keepalive import PATIENCE, Keepalive, Patience, Pings, PongWaiter, Stalls, Watchdog
from ._outbox import Outbox
from ._parking import Latch
from ._tasks import ClosingScopes, UserTasks
from ._types import OPEN, BytesLike, Close, CloseCode, Data, DataLike, Event, Fragment, Pong
from .exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedOK,
    KeepaliveTimeout,
)

if TYPE_CHECKING:
    import logging

    from anyio.abc import TaskGroup

    from ._options import ConnectionOptions
    from ._transports import Transport
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
    """

    __slots__ = (
        "_cause",
        "_closing_transport",
        "_detour",
        "_discarding",
        "_dropping",
        "_ending",
        "_flushed",
        "_given",
        "_keepalive",
        "_keepalive_expired",
        "_mark",
        "_patience",
        "_pong_limit",
        "_reading_paused",
        "_settled",
        "_skipped",
        "_skipping",
        "_watchdog",
        "closed",
        "closing_scopes",
        "inbox",
        "latency",
        "logger",
        "outbox",
        "pings",
        "protocol",
        "read_stalls",
        "received_size",
        "streaming",
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
    ) -> None:
        self.transport: Transport = transport
        self.protocol: Protocol = protocol
        self.logger: logging.Logger | logging.LoggerAdapter[Any] = logger
        self.inbox: Inbox = Inbox(options.queue_marks, options.read_marks, transport.make_parking)
        self.pings: Pings = Pings()
        self.latency: float = 0.0
        self.closing_scopes: ClosingScopes = ClosingScopes()
        self.user_tasks: UserTasks = UserTasks(self._fail_user_task)
        self.task_group: TaskGroup | None = None
        self.watcher: Watcher | None = None
        self.closed: Latch = Latch()
        """Set when the connection is over and its transport closed."""
        self.outbox: Outbox = Outbox(transport, protocol, self.inbox, options.write_marks, self)
        # What the application lifts for itself it does not lift for its peers.
        limited = self.outbox.high < math.inf
        self._pong_limit = self.outbox.high if limited else _PONG_LIMIT
        self._keepalive = Keepalive(
            options.ping_interval,
            options.ping_timeout,
            self._send_ping,
            self._expire_keepalive,
            transport.set_timer,
            lambda: (transport.sent_size, transport.write_buffer_size),
        )
        self._keepalive_expired = False
        # Receiving.
        self.received_size: int = 0
        """Bytes that have come, in all."""
        self.read_stalls: Stalls = Stalls()
        """When reading is paused."""
        self._reading_paused = False
        self.streaming: bool = False
        """Whether a recv_streaming() is in use."""
        # Whether what still comes of a message that recv_streaming() left is to be dropped; and
        # whether the last of it has just been.
        self._skipping = False
        self._skipped = False
        # Whether the application has ever been given a message.
        self._given = False
        protocol.holds_failure = True
        # Whether a message may not simply be put into the inbox: one is skipped, we have given up,
        # or the end has begun or is due.
        self._detour = False
        # Whether we have given up, so that what finds no room in the inbox is dropped; whether
        # something was; and what waits before.
        self._discarding = False
        self._dropping = False
        self._patience: Patience | None = None
        # The end. It begins when the state is no longer open, and is settled when nothing more can
        # be received.
        self._ending = False
        # Whether our half of the stream has ended, behind all that was written.
        self._flushed = False
        self._settled = Latch()
        self._cause: BaseException | None = None
        # What tells our errors from those of another connection that ended in the same way.
        self._mark = object()
        self._watchdog = Watchdog(options.close_timeout, self.abort, transport.set_timer)
        self._closing_transport: CancelScope | None = None

    # Receiving.

    def feed(self, data: BytesLike) -> bool:
        """Take a chunk from the transport; empty to go on with what was left over. Never waits.

        Returns:
            Whether more than one message waits for the application.
        """
        if data and self._keepalive.watching:
            self._keepalive.see_life()
        self.received_size += len(data)
        protocol = self.protocol
        if self._detour and not self._heeds_data:
            # It is read on only to find the end of the stream.
            return False
        # _decode() once more: a call less for each chunk.
        inbox = self.inbox
        max_bytes = inbox.high_bytes - inbox.size
        max_messages = inbox.high_messages - len(inbox.messages)
        events = protocol.receive_data(
            data, max_bytes if max_bytes > 0 else 1, max_messages if max_messages > 0 else 1
        )
        if self._detour or protocol.decoder.plain_size < 0:
            self._take(events)
        elif events:
            # Whole messages alone, as nearly always.
            self._given = True
            inbox.put_all(events, protocol.decoder.plain_size)  # type: ignore[arg-type]  # so
        while protocol.decoder.pending and (self._discarding or not inbox.full):
            self._take(self._decode(b""))
        if protocol.held_failure is not None:
            self._take_failure()
        # Neither by the inbox's own property nor by max(): what they would cost pays for the peaks.
        waiting = len(inbox.messages)
        size = inbox.size
        if size > inbox.peak_size:  # noqa: PLR1730  # a call takes four times as long
            inbox.peak_size = size
        if waiting > inbox.peak_messages:  # noqa: PLR1730  # likewise
            inbox.peak_messages = waiting
        if (waiting >= inbox.high_messages or size >= inbox.high_bytes) and not self._discarding:
            self._pause_reading()
        return waiting > 1

    @property
    def _heeds_data(self) -> bool:
        """Whether what still comes from the peer has a meaning."""
        return self.protocol.held_failure is None and self.protocol.expects_data

    def _decode(self, data: BytesLike) -> list[Event]:
        """Decode as much as the inbox has room for, and one message in any case."""
        inbox = self.inbox
        max_bytes = inbox.high_bytes - inbox.size
        max_messages = inbox.high_messages - len(inbox.messages)
        return self.protocol.receive_data(
            data, max_bytes if max_bytes > 0 else 1, max_messages if max_messages > 0 else 1
        )

    def _take(self, events: list[Event]) -> None:
        """Do all that events ask for."""
        protocol = self.protocol
        messages = 0
        if self._skipping or self._discarding:
            for event in events:
                self._take_or_drop(event)
        elif events:
            messages = self.inbox.put_messages(events)
            if messages:
                self._given = True
        if messages != len(events):
            for event in events:
                if type(event) is Pong:
                    self._take_pong(event)
        if self._skipped:
            self._skipped = False
            if self.streaming and not self.inbox:
                # Another recv_streaming() has waited for the message behind it. Some of that may
                # have been decoded already.
                protocol.decoder.fragments = True
                self._take(self._decode(b""))
                return
        if protocol.replying or protocol.state is not OPEN:
            self._write_replies()
            if not protocol.expects_data:
                self._settle(protocol.failure)

    def _pause_reading(self) -> None:
        if self._reading_paused:
            return
        self._reading_paused = True
        self._hold()
        self.read_stalls.begin()
        self._keepalive.pause()
        self.transport.pause_reading()
        if self._patience is not None:
            self._wait_for_room(self._patience)

    def _take_or_drop(self, message: object) -> None:
        if not isinstance(message, (str, bytes, Fragment)):
            return
        if self._skipping and type(message) is Fragment:
            self._skipped = message.fin
            self._skipping = not message.fin
            self._detour = self._skipping or self._discarding or self._ending
        elif self._discarding and (self._dropping or self.inbox.full):
            # We have given up, and nobody has made room for what the peer sent before its Close: it
            # is dropped, and all after it, or else that Close would not be reached.
            self._dropping = True
        else:
            self._given = True
            self.inbox.put(message)

    def _take_failure(self) -> None:
        """Fail the connection, after what the application still answers to earlier messages."""
        self._detour = True
        inbox = self.inbox
        answering = self._given and (inbox.messages or not inbox.receiving)
        if self.protocol.state is OPEN and answering:
            assert self.task_group is not None
            self.task_group.start_soon(self._release_failure_in_time, name="anyws failure")
        else:
            self._fail_as_found()

    async def _release_failure_in_time(self) -> None:
        with move_on_after(_ANSWER_TIMEOUT, shield=True):
            await self._settled.wait()
        self.release_failure()

    def release_failure(self) -> None:
        """Fail the connection if a bad frame has come and waits; for the rest without effect."""
        if self.protocol.held_failure is not None and self.protocol.state is OPEN:
            self._fail_as_found()

    def _fail_as_found(self) -> None:
        self.protocol.release_failure()
        # Before the Close frame is written: where it cannot be any more, that came of it.
        self._cause = self._cause or self.protocol.failure
        self._write_replies()
        self._settle(None)

    def _take_pong(self, pong: Pong) -> None:
        latency = self.pings.receive_pong(pong.data)
        if latency is not None:
            self.latency = latency

    def _write_replies(self) -> None:
        protocol = self.protocol
        if protocol.pong_to_send and self.transport.write_buffer_size > self._pong_limit:
            # The peer does not read: one Pong is kept for it, whatever it sends.
            self.transport.write_latest(protocol.data_to_send(newest_pong=True))
            return
        replies = protocol.data_to_send()
        if replies:
            self.transport.write(replies)
        if protocol.state is not OPEN:
            self.begin_end()

    async def next_message(self) -> Data | Fragment:
        """Wait for the next message and give it; `pop()` takes it out.

        Cancellation: loses nothing.
        """
        inbox = self.inbox
        if not inbox.messages:
            self.release_failure()  # it has answered all that came before
        if not await inbox.ready():
            raise self.closed_error()
        return inbox.messages[0]

    def pop(self) -> Data | Fragment:
        """Take the oldest message out of the inbox, and read on if there is room again."""
        message = self.inbox.pop()
        if self._reading_paused:
            self._read_on()
        return message

    def _read_on(self) -> None:
        """Read on if there is room again."""
        if self._patience is not None:
            self._patience.begin_anew()
        inbox = self.inbox
        if inbox.low:
            # What was read before comes first; if that fills the inbox, reading stays paused.
            self.feed(b"")
            if self._reading_paused and not inbox.full:
                self._reading_paused = False
                self._hold()
                self.read_stalls.end()
                self._keepalive.resume()
                self.transport.resume_reading()

    def _hold(self) -> None:
        self.inbox.hold(streaming=self.streaming, paused=self._reading_paused)

    def check_not_streaming(self) -> None:
        """See that no recv_streaming() is in use.

        Raises:
            ConcurrencyError: one is.
        """
        if self.streaming:
            raise ConcurrencyError("recv_streaming() is in use on this connection")

    def begin_streaming(self) -> None:
        """Give the message in progress, or else the next, as fragments.

        Raises:
            ConcurrencyError: recv() or another recv_streaming() is in use.
        """
        self.check_not_streaming()
        self.inbox.check_not_receiving()
        self.streaming = True
        self._hold()
        if not self.inbox:
            self.protocol.decoder.fragments = True
            self.feed(b"")

    def end_streaming(self, *, begun: bool, complete: bool) -> None:
        """Drop what has come of the message that recv_streaming() left, and what will."""
        self.streaming = False
        self._hold()
        inbox = self.inbox
        if complete:
            return
        if not begun and not inbox:
            # Nothing of it has come: the next recv() gets it whole. What is still skipped of the
            # message before is told from it by being fragments.
            self.protocol.decoder.fragments = self._skipping
            return
        while inbox:
            message = inbox.head
            self.pop()
            if type(message) is not Fragment or message.fin:
                return
        self._skipping = self._detour = True

    # Sending.

    async def check_open(self) -> None:
        """See that the connection is open; if it closes, wait until it is known how.

        Raises:
            ConnectionClosed: it is not.
        """
        if self.protocol.state is not OPEN:
            await self.raise_closed()

    async def raise_closed(self) -> NoReturn:
        """Raise how the connection ended, once the peer has answered our Close, or will not.

        Raises:
            ConnectionClosed: always.
        """
        await self._settled.wait()  # the watchdog bounds it
        raise self.closed_error()

    def _send_ping(self) -> PongWaiter:
        payload = self.pings.new_payload()
        self.transport.write(self.protocol.send_ping(payload))
        return self.pings.add_keepalive(payload)

    def _expire_keepalive(self) -> None:
        self._keepalive_expired = True
        self.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")

    # The end.

    @property
    def patience(self) -> float:
        """What `start_close` is to be told where nobody knows better.

        It is 0 if the application has not been seen to receive.
        """
        taken = self.protocol.decoder.message_count > len(self.inbox.messages)
        return PATIENCE if taken or self.streaming or self.inbox.receiving else 0

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
            self._discard()
        elif patience < math.inf:
            self._be_patient(min(patience, self._watchdog.timeout / 2))

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection (RFC 6455 section 7.1.7). Never waits."""
        self.protocol.fail(code, reason)
        self._write_replies()
        self._settle(None)
        self._discard()

    def abort(self) -> None:
        """Drop the transport; without effect if it is closed already. Never waits."""
        if self.closed.is_set():
            return
        self.protocol.lose_write()
        self.transport.abort()
        if self._closing_transport is not None:
            self._closing_transport.cancel()
        self.begin_end()

    def begin_end(self) -> None:
        """Do what is due once the connection is not open any more; may be called again."""
        protocol = self.protocol
        beginning = not self._ending
        if beginning:
            self._ending = self._detour = True
            self._keepalive.stop()
            self.closing_scopes.cancel()
        if protocol.eof_to_send:
            self.transport.write_eof()
            if self._flushed and protocol.close_rcvd is not None:
                self._watchdog.hasten(_LINGER_TIMEOUT)
        if beginning:
            # Behind that, which may have set the timer already.
            self._watchdog.begin()
            self.transport.attend()

    def _be_patient(self, seconds: float) -> None:
        if self._patience is not None:
            self._patience.shorten(seconds)
            return
        self._patience = Patience(self.inbox, seconds)
        if self._reading_paused:
            self._wait_for_room(self._patience)

    def _wait_for_room(self, patience: Patience) -> None:
        """See to it that a full inbox is given up once nobody takes anything out of it."""
        patience.begin_anew()
        if not patience.waiting:
            patience.waiting = True
            assert self.task_group is not None
            self.task_group.start_soon(self._discard_in_time, patience, name="anyws close")

    async def _discard_in_time(self, patience: Patience) -> None:
        if await patience.wait(lambda: self._reading_paused, self._settled):
            self._discard()

    def _discard(self) -> None:
        """Read on without regard to room: the peer's Close comes after all that it has sent."""
        self._discarding = self._detour = True
        if self._reading_paused:
            self._reading_paused = False
            self._hold()
            self.read_stalls.end()
            self.feed(b"")
            self.transport.resume_reading()

    def _settle(self, cause: BaseException | None) -> None:
        """Take that nothing more will be received, and let all who wait for something know it."""
        if not self._settled.is_set():
            self._settled.set()
            self._cause = self._cause or cause
            self.inbox.close()
            self.read_stalls.stop()
            self.pings.fail(self.closed_error)
            self.transport.release()
            if self.outbox.fragmenting is not None:
                # Its sender may wait for the next fragment for ever; others must not.
                self.outbox.fragmenting.set()
        self.begin_end()

    def closed_error(self) -> ConnectionClosed:
        """Make the error that says how the connection ended, as far as it has."""
        error = self.protocol.close_exc()
        if self._keepalive_expired:
            error = KeepaliveTimeout(error.rcvd, error.sent, error.rcvd_then_sent)
        error.__cause__ = self._cause
        error._mark = self._mark
        return error

    def iteration_end(self) -> ConnectionClosed | StopAsyncIteration:
        """Make what ends an iteration over the messages."""
        error = self.closed_error()
        return StopAsyncIteration() if isinstance(error, ConnectionClosedOK) else error

    def is_end(self, exc: BaseException) -> bool:
        """Say whether `exc` tells nothing but the end of this connection, alone or in groups."""
        if isinstance(exc, BaseExceptionGroup):
            return all(self.is_end(error) for error in exc.exceptions)
        return isinstance(exc, ConnectionClosed) and exc._mark is self._mark

    def _fail_user_task(self, exc: Exception) -> None:
        if self.is_end(exc):
            self.logger.debug("task ended with its connection: %s", exc)
            return
        self.logger.error("task of a connection failed", exc_info=exc)
        self._cause = self._cause or exc
        if self.protocol.state is OPEN:
            self.fail(CloseCode.INTERNAL_ERROR, "")

    # What `_lifespan` runs.

    def start(self, task_group: TaskGroup, trailing_data: bytes) -> None:
        """Begin to live: start the tasks, after what came with the opening handshake."""
        self.task_group = task_group
        self.transport.start(self, task_group)
        self._keepalive.start(task_group)
        if self.watcher is not None:
            self.watcher.opened()
        if trailing_data:
            self.feed(trailing_data)

    def end_reading(self, error: Exception | None) -> None:
        """Take from the transport that nothing more will come, and see to the end of all."""
        self._lose(error)
        if self.transport.close():
            self._end()
            return
        assert self.task_group is not None
        self.task_group.start_soon(self._finish, error is None, name="anyws end")

    def end_writing(self, error: Exception | None) -> None:
        """Take from the transport that nothing more will leave."""
        if error is None:
            self._flushed = True
        else:
            # What the peer has sent before is still to be read; reading finds the end of it.
            self._cause = self._cause or error
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
        if self.watcher is not None:
            self.watcher.closed()

    def _lose(self, cause: BaseException | None) -> None:
        self.release_failure()
        self.protocol.lose_write()
        self._settle(cause)

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
