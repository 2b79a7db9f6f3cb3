"""Received messages that wait for the application: a queue with one waiter and water marks.

Owns the order, the count and the bytes of what waits; knows no frame and no stream.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from ._parking import make_parking
from ._types import Fragment
from .exceptions import ConcurrencyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._parking import Parking
    from ._types import Data, Event

# How often in a row calls may return without yielding to the event loop: so often that the yield
# costs a message little, and so rarely that other tasks wait for well under a millisecond.
MAX_CALLS_WITHOUT_YIELD = 64


class Inbox:
    """The messages between the decoder and recv().

    Args:
        max_messages: the high and the low mark for the number of messages.
        max_bytes: likewise for their bytes; a character of a str counts as one.
        make_parking: makes the place where recv() waits.
    """

    __slots__ = (
        "_closed",
        "_low_bytes",
        "_low_messages",
        "_make_parking",
        "_parking",
        "_paused",
        "_streaming",
        "calls_left",
        "floor",
        "high_bytes",
        "high_messages",
        "messages",
        "next_messages",
        "next_size",
        "peak_messages",
        "peak_size",
        "receiving",
        "size",
    )

    def __init__(
        self,
        max_messages: tuple[int | None, int | None],
        max_bytes: tuple[int | None, int | None],
        make_parking: Callable[[], Parking] = make_parking,
    ) -> None:
        high_messages, low_messages = max_messages
        high_bytes, low_bytes = max_bytes
        self.high_messages: int = sys.maxsize if high_messages is None else high_messages
        """How many messages make it full; sys.maxsize is no limit."""
        self.high_bytes: int = sys.maxsize if high_bytes is None else high_bytes
        """Likewise for their bytes."""
        self._low_messages = sys.maxsize if low_messages is None else low_messages
        self._low_bytes = sys.maxsize if low_bytes is None else low_bytes
        self.messages: deque[Data | Fragment] = deque()
        """Oldest first."""
        self.size: int = 0
        """Their bytes."""
        self.peak_messages: int = 0
        """How many there have been at the most, as far as `note_peaks()` was told."""
        self.peak_size: int = 0
        """Likewise for their bytes."""
        self.next_messages: int = 1
        """From how many on there is something to see to: more than ever, or it is full."""
        self.next_size: int = 1
        """Likewise for their bytes."""
        self.floor: int = 0
        """How many must be left by who simply takes the oldest out: when reading is to go on there
        is more to do; and while somebody waits, or takes fragments, nothing is simple.
        """
        self._streaming = False
        self._paused = False
        self._closed = False
        self.receiving: bool = False
        """Whether a task waits for a message."""
        self._make_parking = make_parking
        self._parking: Parking | None = None
        self.calls_left: int = MAX_CALLS_WITHOUT_YIELD
        """How many calls may still return without yielding, those that send among them. It is here
        because both ways of a connection share it, and each looks at it for each message."""

    def __len__(self) -> int:
        return len(self.messages)

    @property
    def full(self) -> bool:
        """Whether it has reached a high-water mark: then reading stops."""
        return len(self.messages) >= self.high_messages or self.size >= self.high_bytes

    @property
    def low(self) -> bool:
        """Whether it is at or under both low-water marks: then reading goes on."""
        return len(self.messages) <= self._low_messages and self.size <= self._low_bytes

    def note_peaks(self) -> None:
        """Take how much there is now for a peak, where it is one."""
        self.peak_messages = max(self.peak_messages, len(self.messages))
        self.peak_size = max(self.peak_size, self.size)
        self.next_messages = min(self.peak_messages + 1, self.high_messages)
        self.next_size = min(self.peak_size + 1, self.high_bytes)

    def note_fragment(self, fragment: Fragment) -> None:
        """Take that a fragment has come which is kept elsewhere, for who watches what comes."""

    def put(self, message: Data | Fragment) -> None:
        """Add a message and wake who waits for one."""
        self.put_told(message)

    def put_told(self, message: Data | Fragment) -> None:
        """Add a message whose fragments `note_fragment()` was told of already."""
        self.messages.append(message)
        self.size += len(message.data) if type(message) is Fragment else len(message)
        if self.receiving and self._parking is not None:
            self._parking.wake()

    def put_all(self, messages: list[Data], size: int) -> None:
        """Add messages, and wake who waits for one.

        Args:
            messages: at least one.
            size: their bytes.
        """
        self.messages.extend(messages)
        self.size += size
        if self.receiving and self._parking is not None:
            self._parking.wake()

    def put_messages(self, events: list[Event]) -> int:
        """Add the messages and fragments among `events`, and wake who waits for one.

        Returns:
            How many there were.
        """
        messages = self.messages
        count = len(messages)
        size = self.size
        for event in events:
            kind = type(event)
            if kind is str or kind is bytes:
                messages.append(event)  # type: ignore[arg-type]  # one of the two
                size += len(event)  # type: ignore[arg-type]  # likewise
            elif kind is Fragment:
                messages.append(event)  # type: ignore[arg-type]  # its exact type
                size += len(event.data)  # type: ignore[union-attr]  # likewise
        self.size = size
        count = len(messages) - count
        if count and self.receiving and self._parking is not None:
            self._parking.wake()
        return count

    def put_back(self, message: Data | Fragment) -> None:
        """Put a message in front of all others, while nobody waits for one."""
        self.messages.appendleft(message)
        self.size += len(message.data) if type(message) is Fragment else len(message)

    def close(self) -> None:
        """Say that nothing more will come; what is here can still be had."""
        self._closed = True
        if self.receiving and self._parking is not None:
            self._parking.wake()
        # Nobody waits again: what the place is of need not be kept.
        self._parking = None
        self._make_parking = make_parking

    def check_not_receiving(self) -> None:
        """See that no task waits.

        Raises:
            ConcurrencyError: one does.
        """
        if self.receiving:
            raise ConcurrencyError("another task is already receiving from this connection")

    def hold(self, *, streaming: bool, paused: bool) -> None:
        """Say what makes taking a message out more than that.

        Args:
            streaming: fragments are asked for.
            paused: reading has stopped, and goes on at the low marks.
        """
        self._streaming = streaming
        self._paused = paused
        self._set_floor()

    def _set_floor(self) -> None:
        if self._streaming or self.receiving:
            self.floor = sys.maxsize
        else:
            # The one that brings it to the low mark lets reading go on: at 0 no other would.
            self.floor = self._low_messages + 1 if self._paused else 0

    async def ready(self) -> bool:
        """Wait until `head` has a message; put() or close() ends it.

        Returns:
            False when there is none and nothing more will come.

        Raises:
            ConcurrencyError: another task waits.

        Cancellation: loses nothing.
        """
        if self.receiving:
            self.check_not_receiving()
        if (self.messages or self._closed) and self.calls_left:
            self.calls_left -= 1
            return bool(self.messages)
        self.receiving = True
        self.floor = sys.maxsize
        try:
            if self.messages or self._closed:
                await checkpoint()
            while not self.messages and not self._closed:
                if self._parking is None:
                    self._parking = self._make_parking()
                await self._parking.park()
        finally:
            self.receiving = False
            self.floor = 0
            if self._streaming or self._paused:
                self._set_floor()
            # Others have run, also where it was cancelled: who polls must not starve.
            self.calls_left = MAX_CALLS_WITHOUT_YIELD
        return bool(self.messages)

    @property
    def head(self) -> Data | Fragment:
        """The oldest message, after `ready()` was true."""
        return self.messages[0]

    def pop(self) -> Data | Fragment:
        """Take the oldest message out."""
        message = self.messages.popleft()
        self.size -= len(message.data) if type(message) is Fragment else len(message)
        return message
