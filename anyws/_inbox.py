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

# How often in a row a call may return without yielding to the event loop (API rule R7).
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
        "_held",
        "_high_bytes",
        "_high_messages",
        "_low_bytes",
        "_low_messages",
        "_make_parking",
        "_parking",
        "_receiving",
        "calls_left",
        "direct",
        "floor",
        "messages",
        "size",
    )

    def __init__(
        self,
        max_messages: tuple[int | None, int | None],
        max_bytes: tuple[int | None, int | None],
        make_parking: Callable[[], Parking] = make_parking,
    ) -> None:
        self._high_messages, self._low_messages = max_messages
        self._high_bytes, self._low_bytes = max_bytes
        self.messages: deque[Data | Fragment] = deque()
        """Oldest first."""
        self.size: int = 0
        """Their bytes."""
        self.direct: bool = True
        """Whether the oldest may simply be taken out: nobody waits for it, or holds it back."""
        self.floor: int = 0
        """How many must be left then, for there is more to do when reading is to go on."""
        self._held = False
        self._closed = False
        self._receiving = False
        self._make_parking = make_parking
        self._parking: Parking | None = None
        self.calls_left: int = MAX_CALLS_WITHOUT_YIELD

    def __len__(self) -> int:
        return len(self.messages)

    @property
    def message_room(self) -> int | None:
        """How many messages may be decoded now; at least 1, None is no limit."""
        if self._high_messages is None:
            return None
        return max(1, self._high_messages - len(self.messages))

    @property
    def byte_room(self) -> int | None:
        """How many bytes may be decoded now; at least 1, None is no limit."""
        return None if self._high_bytes is None else max(1, self._high_bytes - self.size)

    @property
    def full(self) -> bool:
        """Whether it has reached a high-water mark: then reading stops."""
        return (self._high_messages is not None and len(self.messages) >= self._high_messages) or (
            self._high_bytes is not None and self.size >= self._high_bytes
        )

    @property
    def low(self) -> bool:
        """Whether it is at or under both low-water marks: then reading goes on."""
        return (self._low_messages is None or len(self.messages) <= self._low_messages) and (
            self._low_bytes is None or self.size <= self._low_bytes
        )

    def put(self, message: Data | Fragment) -> None:
        """Add a message and wake who waits for one."""
        self.messages.append(message)
        self.size += len(message.data) if type(message) is Fragment else len(message)
        if self._receiving and self._parking is not None:
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
        if count and self._receiving and self._parking is not None:
            self._parking.wake()
        return count

    def close(self) -> None:
        """Say that nothing more will come; what is here can still be had."""
        self._closed = True
        if self._receiving and self._parking is not None:
            self._parking.wake()

    def check_not_receiving(self) -> None:
        """See that no task waits.

        Raises:
            ConcurrencyError: one does.
        """
        if self._receiving:
            raise ConcurrencyError("another task is already receiving from this connection")

    def hold(self, *, streaming: bool, paused: bool) -> None:
        """Say what makes taking a message out more than that.

        Args:
            streaming: fragments are asked for.
            paused: reading has stopped, and goes on at the low marks.
        """
        self._held = streaming
        self.direct = not streaming and not self._receiving
        self.floor = 0
        if paused:
            self.floor = sys.maxsize if self._low_messages is None else self._low_messages

    async def ready(self) -> bool:
        """Wait until `head` has a message; put() or close() ends it.

        Returns:
            False when there is none and nothing more will come.

        Raises:
            ConcurrencyError: another task waits.

        Cancellation: loses nothing.
        """
        if self._receiving:
            self.check_not_receiving()
        if self.messages and self.calls_left:
            self.calls_left -= 1
            return True
        self._receiving = True
        self.direct = False
        try:
            if self.messages or self._closed:
                await checkpoint()
            while not self.messages and not self._closed:
                if self._parking is None:
                    self._parking = self._make_parking()
                await self._parking.park()
        finally:
            self._receiving = False
            self.direct = not self._held
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
