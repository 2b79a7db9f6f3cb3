"""Received messages that wait for the application: a queue with one waiter and water marks.

Owns the order, the count and the bytes of what waits; knows no frame and no stream.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from ._parking import make_parking
from ._types import Fragment
from .exceptions import ConcurrencyError

if TYPE_CHECKING:
    from ._parking import Parking
    from ._types import Data

# How often in a row a call may return without yielding to the event loop (API rule R7).
MAX_CALLS_WITHOUT_YIELD = 64


class Inbox:
    """The messages between the decoder and recv().

    Args:
        max_messages: the high and the low mark for the number of messages.
        max_bytes: likewise for their bytes; a character of a str counts as one.
    """

    __slots__ = (
        "_closed",
        "_high_bytes",
        "_high_messages",
        "_low_bytes",
        "_low_messages",
        "_messages",
        "_parking",
        "_receiving",
        "_size",
        "calls_left",
    )

    def __init__(
        self,
        max_messages: tuple[int | None, int | None],
        max_bytes: tuple[int | None, int | None],
    ) -> None:
        self._high_messages, self._low_messages = max_messages
        self._high_bytes, self._low_bytes = max_bytes
        self._messages: deque[Data | Fragment] = deque()
        self._size = 0
        self._closed = False
        self._receiving = False
        self._parking: Parking | None = None
        self.calls_left: int = MAX_CALLS_WITHOUT_YIELD

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def message_room(self) -> int | None:
        """How many messages may be decoded now; at least 1, None is no limit."""
        if self._high_messages is None:
            return None
        return max(1, self._high_messages - len(self._messages))

    @property
    def byte_room(self) -> int | None:
        """How many bytes may be decoded now; at least 1, None is no limit."""
        return None if self._high_bytes is None else max(1, self._high_bytes - self._size)

    @property
    def full(self) -> bool:
        """Whether it has reached a high-water mark: then reading stops."""
        return (self._high_messages is not None and len(self._messages) >= self._high_messages) or (
            self._high_bytes is not None and self._size >= self._high_bytes
        )

    @property
    def low(self) -> bool:
        """Whether it is at or under both low-water marks: then reading goes on."""
        return (self._low_messages is None or len(self._messages) <= self._low_messages) and (
            self._low_bytes is None or self._size <= self._low_bytes
        )

    def put(self, message: Data | Fragment) -> None:
        """Add a message and wake who waits for one."""
        self._messages.append(message)
        self._size += len(message.data) if type(message) is Fragment else len(message)
        if self._receiving and self._parking is not None:
            self._parking.wake()

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

    def poll(self) -> bool:
        """Say whether `head` has a message that may be taken without a `ready()` before."""
        if self._messages and self.calls_left and not self._receiving:
            self.calls_left -= 1
            return True
        return False

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
        if self.poll():
            return True
        self._receiving = True
        try:
            if self._messages or self._closed:
                await checkpoint()
            while not self._messages and not self._closed:
                if self._parking is None:
                    self._parking = make_parking()
                await self._parking.park()
        finally:
            self._receiving = False
        self.calls_left = MAX_CALLS_WITHOUT_YIELD
        return bool(self._messages)

    @property
    def head(self) -> Data | Fragment:
        """The oldest message, after `ready()` was true."""
        return self._messages[0]

    def pop(self) -> Data | Fragment:
        """Take the oldest message out."""
        message = self._messages.popleft()
        self._size -= len(message.data) if type(message) is Fragment else len(message)
        return message
