"""The way in of a connection: from a chunk to the inbox, and from there to who receives.

Owns the decoding and its flow control, who is given fragments, and what is dropped once nobody
makes room any more; the counterpart of `_outbox`. How a connection ends stands in `_link`. Knows no
frame and no socket. RFC 6455 section 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Protocol as Interface

from ._parking import Latch
from ._patience import PATIENCE, Patience
from ._stalls import Stalls
from ._types import OPEN, BytesLike, Data, Event, Fragment, Pong
from .exceptions import ConcurrencyError

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from ._inbox import Inbox
    from ._keepalive import Keepalive
    from ._transports import Transport
    from .sansio._protocol import Protocol


# Fragments of a message for recv() that are kept one by one: small ones take more memory so.
_MAX_PARTS = 1000


class Owner(Interface):
    """Who is told what comes besides messages, and how it ends; none of it waits or raises."""

    def take_pong(self, pong: Pong) -> None:
        """Take a Pong."""

    def write_replies(self) -> None:
        """Answer what has come, and begin the end if it is due."""

    def take_failure(self, *, answering: bool) -> None:
        """Take that a bad frame has come, and waits.

        Args:
            answering: whether the application may still answer to what came before.
        """

    def settle(self, cause: BaseException | None) -> None:
        """Take that nothing more will be received."""

    def end_reading(self, error: Exception | None) -> None:
        """Take what the transport says of the end of reading."""

    def end_writing(self, error: Exception | None) -> None:
        """Take what it says of the end of writing."""


class Intake:
    """What a connection receives: the Receiver of its transport.

    Args:
        transport: brings the bytes, and is told when there is no room for more.
        protocol: says what they mean.
        inbox: where the messages wait for who receives.
        keepalive: is told of every sign of life, and when none can come.
        owner: is told of all that is no message.
    """

    __slots__ = (
        "_detour",
        "_discarding",
        "_dropping",
        "_ending",
        "_given",
        "_keepalive",
        "_owner",
        "_parts",
        "_patience",
        "_protocol",
        "_queue",
        "_skipped",
        "_skipping",
        "_task_group",
        "_transport",
        "inbox",
        "received_size",
        "settled",
        "stalls",
        "streaming",
    )

    def __init__(
        self,
        transport: Transport,
        protocol: Protocol,
        inbox: Inbox,
        keepalive: Keepalive,
        owner: Owner,
    ) -> None:
        self._transport = transport
        self._owner: Owner | None = owner  # until let_go()
        self._protocol = protocol
        self._keepalive = keepalive
        self._task_group: TaskGroup | None = None
        self.inbox: Inbox = inbox
        self._queue = inbox.queue
        self.received_size: int = 0
        """Bytes that have come, in all."""
        self.stalls: Stalls = Stalls()
        """When reading is paused."""
        self.streaming: bool = False
        """Whether a recv_streaming() is in use."""
        # Whether what still comes of a message that recv_streaming() left is to be dropped; and
        # whether the last of it has just been.
        self._skipping = False
        self._skipped = False
        # What has come of a message that recv_streaming() was left before any of it was given: the
        # next recv() gets it. None if there is none such.
        self._parts: _Parts | None = None
        # Whether the application has ever been given a message.
        self._given = False
        # Whether we have given up, so that what finds no room in the inbox is dropped; whether
        # something was; and what waits before.
        self._discarding = False
        self._dropping = False
        self._patience: Patience | None = None
        self._ending = False
        # Whether a message may not simply be put into the inbox: one is skipped or joined, we have
        # given up, or the end has begun or is due.
        self._detour = False
        self.settled: Latch = Latch()
        """Set when nothing more can be received."""

    def start(self, task_group: TaskGroup) -> None:
        """Take where to start tasks."""
        self._task_group = task_group

    # From a chunk to the inbox.

    def feed(self, data: BytesLike) -> bool:
        """Take a chunk from the transport; empty to go on with what was left over. Never waits.

        Returns:
            Whether more than one message waits for the application.
        """
        if data and self._keepalive.watching:
            self._keepalive.see_life()
        self.received_size += len(data)
        protocol = self._protocol
        if self._detour and not self._heeds_data:
            # It is read on only to find the end of the stream.
            return False
        queue = self._queue
        max_bytes = queue.high_bytes
        max_messages = queue.high_messages
        waiting = len(queue)
        if waiting:
            full = waiting >= max_messages or queue.size >= max_bytes
            if full and data and not self._discarding:
                # Reading was not paused for a message, see below, and who waits has not run.
                protocol.decoder.keep(data)
                self._pause()
                return waiting > 1
            # _decode() once more: a call less.
            max_bytes = max_bytes - queue.size if max_bytes > queue.size else 1
            max_messages = max_messages - waiting if max_messages > waiting else 1
        events = protocol.receive_data(data, max_bytes, max_messages)
        size = protocol.decoder.plain_size
        if size < 0 or self._detour:
            self._take_all(events)
        elif events:
            # Whole messages alone, as nearly always; where more could be decoded, it is full.
            self._given = True
            self.inbox.put_all(events, size)  # type: ignore[arg-type]  # so
        waiting = len(queue)
        # Who waits takes a single message at once: to pause for that, and to read on, would cost
        # one of 64 KiB 1.3 of 36 us, on trio 3 of 42. What comes before he does is kept undecoded.
        if (
            (waiting >= queue.high_messages or queue.size >= queue.high_bytes)
            and not (waiting == 1 and self.inbox.receiving and not protocol.decoder.pending)
            and not self._discarding
        ):
            self._pause()
        return waiting > 1

    @property
    def _heeds_data(self) -> bool:
        """Whether what still comes from the peer has a meaning."""
        return self._protocol.held_failure is None and self._protocol.expects_data

    def _decode(self, data: BytesLike) -> list[Event]:
        """Decode as much as the inbox has room for, and one message in any case."""
        queue = self._queue
        max_bytes = queue.high_bytes - queue.size
        max_messages = queue.high_messages - len(queue)
        return self._protocol.receive_data(
            data, max_bytes if max_bytes > 0 else 1, max_messages if max_messages > 0 else 1
        )

    def _take_all(self, events: list[Event]) -> None:
        """Do all that events ask for, and those that can be decoded without another chunk."""
        decoder = self._protocol.decoder
        self._take(events)
        while decoder.pending and (self._discarding or not self._queue.full):
            self._take(self._decode(b""))
        if self._protocol.held_failure is not None:
            self._take_failure()

    def _take(self, events: list[Event]) -> None:
        """Do all that events ask for."""
        owner = self._owner
        assert owner is not None
        protocol = self._protocol
        messages = 0
        if self._skipping or self._discarding or self._parts is not None:
            for event in events:
                self._take_or_drop(event)
        elif events:
            messages = self.inbox.put_messages(events)
            if messages:
                self._given = True
        if messages != len(events):
            for event in events:
                if type(event) is Pong:
                    owner.take_pong(event)
        if self._skipped:
            self._skipped = False
            if self.streaming and not self._queue:
                # Another recv_streaming() has waited for the message behind it. Some of that may
                # have been decoded already.
                protocol.decoder.fragments = True
                self._take(self._decode(b""))
                return
        if protocol.replying or protocol.state is not OPEN:
            owner.write_replies()
            if not protocol.expects_data:
                owner.settle(protocol.failure)

    def _take_or_drop(self, message: object) -> None:
        if not isinstance(message, (str, bytes, Fragment)):
            return
        if self._parts is not None and type(message) is Fragment:
            self._take_part(self._parts, message)
        elif self._skipping and type(message) is Fragment:
            self._skipped = message.fin
            self._skipping = not message.fin
            self._detour = self._skipping or self._discarding or self._ending
        elif self._discarding and (self._dropping or self._queue.full):
            # We have given up, and nobody has made room for what the peer sent before its Close: it
            # is dropped, and all after it, or else that Close would not be reached.
            self._dropping = True
        else:
            self._given = True
            self.inbox.put(message)

    def _take_part(self, parts: _Parts, fragment: Fragment) -> None:
        self.inbox.note_fragment(fragment)
        parts.add(fragment.data)
        if fragment.fin:
            self._parts = None
            self._detour = self._discarding or self._ending
            self.inbox.put_told(parts.join())

    def _take_failure(self) -> None:
        self._detour = True
        answering = self._given and (self._queue or not self.inbox.receiving)
        assert self._owner is not None
        self._owner.take_failure(answering=bool(answering))

    def end_reading(self, error: Exception | None) -> None:
        """Pass on that nothing more will come."""
        if self._owner is not None:
            self._owner.end_reading(error)

    def end_writing(self, error: Exception | None) -> None:
        """Pass on that nothing more will leave."""
        if self._owner is not None:
            self._owner.end_writing(error)

    def begin_end(self) -> None:
        """Take that the connection is not open any more."""
        self._ending = self._detour = True

    def end(self) -> None:
        """Take that nothing more will be received, and let who waits for a message know it."""
        self.settled.set()
        self._queue.replenishes = False  # what is not decoded yet has no meaning any more
        self.inbox.close()
        self.stalls.stop()

    def let_go(self) -> None:
        """Take that the connection is over, and that the owner knows it."""
        self._owner = None

    # From the inbox to who receives.

    def pop(self) -> Data | Fragment:
        """Take the oldest message out of the inbox, and read on if there is room again."""
        message = self._queue.popleft()
        if self._queue.paused:
            self._read_on()
        return message

    def _pause(self) -> None:
        if self._queue.paused:
            return
        self._queue.paused = True
        self.stalls.begin()
        self._keepalive.pause()
        self._transport.pause_reading()
        if self._patience is not None:
            self._wait_for_room(self._patience)

    def _read_on(self) -> None:
        """Read on if there is room again."""
        if self._patience is not None:
            self._patience.begin_anew()
        queue = self._queue
        if queue.low or queue.starved:
            queue.starved = False
            # What was read before comes first; if that fills the inbox, reading stays paused.
            self.feed(b"")
            if queue.paused and not queue.full:
                queue.paused = False
                self.stalls.end()
                self._keepalive.resume()
                self._transport.resume_reading()

    # Fragments.

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
        self.inbox.hold(streaming=True)
        if self._parts is not None:
            parts, self._parts = self._parts, None
            self._detour = self._discarding or self._ending
            for data in reversed(parts.all()):
                self._queue.appendleft(Fragment(data, fin=False))
        if not self._queue:
            self._protocol.decoder.fragments = True
            self.feed(b"")

    def end_streaming(self, *, begun: bool, complete: bool) -> None:
        """Drop what has come of the message that recv_streaming() left, and what will.

        Where nothing of it was given, the next recv() gets it whole instead.
        """
        self.streaming = False
        self.inbox.hold(streaming=False)
        queue = self._queue
        if complete:
            return
        if not begun:
            self._keep()
            return
        while queue:
            message = queue.head
            self.pop()
            if type(message) is not Fragment or message.fin:
                return
        self._skipping = self._detour = True

    def _keep(self) -> None:
        """Keep a message for the next recv(), in whatever pieces it has come and still comes."""
        queue = self._queue
        if not queue:
            # Nothing of it has come. What is still skipped of the message before is told from it by
            # being fragments.
            self._protocol.decoder.fragments = self._skipping
            return
        parts = _Parts()
        complete = True
        while queue and type(queue.head) is Fragment:
            fragment = queue.head
            queue.popleft()
            parts.add(fragment.data)
            complete = fragment.fin
            if complete:
                queue.appendleft(parts.join())
        if not complete and not self._dropping:  # of what was dropped, no part is worth anything
            self._parts = parts
            self._detour = True
        if queue.paused:
            self._read_on()

    # Giving up: the peer's Close comes after all that it has sent.

    @property
    def patience(self) -> float:
        """Seconds to wait for room while closing, where nobody knows better.

        It is 0 if the application has not been seen to receive.
        """
        taken = self._protocol.decoder.message_count > len(self._queue)
        return PATIENCE if taken or self.streaming or self.inbox.receiving else 0

    def be_patient(self, seconds: float) -> None:
        """Let a full inbox keep what waits, as long as a message is taken out of it in that time.

        Then what finds no room is dropped. The shortest time that was ever told counts.
        """
        if self._patience is not None:
            self._patience.shorten(seconds)
            return
        self._patience = Patience(self._queue, seconds)
        if self._queue.paused:
            self._wait_for_room(self._patience)

    def _wait_for_room(self, patience: Patience) -> None:
        patience.begin_anew()
        if not patience.waiting:
            patience.waiting = True
            assert self._task_group is not None
            self._task_group.start_soon(self._discard_in_time, patience, name="anyws close")

    async def _discard_in_time(self, patience: Patience) -> None:
        if await patience.wait(lambda: self._queue.paused, self.settled):
            self.discard()

    def discard(self) -> None:
        """Read on without regard to room from now on. Never waits."""
        self._discarding = self._detour = True
        if self._queue.paused:
            self._queue.paused = self._queue.starved = False
            self.stalls.end()
            self.feed(b"")
            self._transport.resume_reading()


class _Parts:
    """The fragments of a message that is given whole in the end."""

    __slots__ = ("_joined", "_latest")

    def __init__(self) -> None:
        self._joined: list[Data] = []
        self._latest: list[Data] = []

    def add(self, data: Data) -> None:
        """Take one more."""
        self._latest.append(data)
        if len(self._latest) == _MAX_PARTS:
            self._joined.append(_join(self._latest))
            self._latest.clear()

    def all(self) -> list[Data]:
        """Give what has come, if in fewer pieces; one at least."""
        return self._joined + self._latest

    def join(self) -> Data:
        """Give the message."""
        return _join(self.all())


def _join(parts: list[Data]) -> Data:
    return parts[0][:0].join(parts)  # type: ignore[arg-type]  # all are of the type of the first
