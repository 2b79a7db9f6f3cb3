"""Messages that were decoded and that nobody has taken yet: what the compiled queue follows.

Owns their order, their number and their bytes, the marks that bound them, and what those who know
more say of taking them out; knows no frame, and not who waits for a message.
"""

import sys
from collections import deque
from collections.abc import Sequence

from .._types import Data, Fragment


class MessageQueue:
    """Messages and fragments, oldest first.

    The decoder takes out of it by `Decoder.take()`, which is told here what makes that more than
    taking one out.
    """

    __slots__ = (
        "_added",
        "calls_left",
        "held",
        "high_bytes",
        "high_messages",
        "low_bytes",
        "low_messages",
        "messages",
        "paused",
        "peak_count",
        "peak_size",
        "replenishes",
        "size",
        "starved",
    )

    def __init__(self) -> None:
        self.messages: deque[Data | Fragment] = deque()
        """For the decoder in Python alone: the compiled one keeps them elsewhere."""
        self.size: int = 0
        """Their bytes; a character of a str counts as one."""
        self.peak_count: int = 0
        """How many there have been at the most."""
        self.peak_size: int = 0
        """Likewise of their bytes."""
        self._added = 0  # how many, in all
        self.high_messages: int = sys.maxsize
        """How many make it full; sys.maxsize is no limit."""
        self.low_messages: int = sys.maxsize
        """From how few on it is low."""
        self.high_bytes: int = sys.maxsize
        """Likewise of their bytes."""
        self.low_bytes: int = sys.maxsize
        """Likewise."""
        self.calls_left: int = sys.maxsize
        """How many `take()` may still give."""
        self.held: bool = False
        """Whether it gives none: somebody waits for a message, or wants fragments."""
        self.paused: bool = False
        """Whether nothing comes until it is low."""
        self.replenishes: bool = False
        """Whether `take()` may decode more then."""
        self.starved: bool = False
        """Whether `take()` has decoded all that it could, and the queue is not full: reading is to
        go on before a message is taken."""

    @property
    def taken(self) -> int:
        """How often one was taken out."""
        return self._added - len(self.messages)

    def __len__(self) -> int:
        return len(self.messages)

    @property
    def head(self) -> Data | Fragment:
        """The oldest, of at least one."""
        return self.messages[0]

    @property
    def full(self) -> bool:
        """Whether it has reached a high-water mark: then reading stops."""
        return len(self.messages) >= self.high_messages or self.size >= self.high_bytes

    @property
    def low(self) -> bool:
        """Whether it is at or under both low-water marks: then reading goes on."""
        return len(self.messages) <= self.low_messages and self.size <= self.low_bytes

    def append(self, message: Data | Fragment) -> None:
        """Add a message or fragment behind the others."""
        self.add([message], _measure(message))
        self.note_peaks(0, 0)

    def appendleft(self, message: Data | Fragment) -> None:
        """Put one in front of the others that was there before, in one piece or in several."""
        self.size += _measure(message)
        self.messages.appendleft(message)
        self._added += 1

    def extend(self, messages: list[Data], size: int) -> None:
        """Add messages behind the others.

        Args:
            messages: the messages.
            size: their bytes.
        """
        # add() and note_peaks() once more: two calls less for each chunk.
        waiting = self.messages
        waiting.extend(messages)
        self._added += len(messages)
        self.size += size
        if len(waiting) > self.peak_count:  # noqa: PLR1730  # a call takes four times as long
            self.peak_count = len(waiting)
        if self.size > self.peak_size:  # noqa: PLR1730  # likewise
            self.peak_size = self.size

    def add(self, messages: Sequence[Data | Fragment], size: int) -> None:
        """Add messages behind the others, for the decoder in Python alone."""
        self.messages.extend(messages)
        self.size += size
        self._added += len(messages)

    def note_peaks(self, leaving: int, leaving_size: int) -> None:
        """Look whether there are more than ever, but for what is about to leave.

        For the decoder in Python alone.
        """
        count = len(self.messages) - leaving
        size = self.size - leaving_size
        if count > self.peak_count:  # noqa: PLR1730  # a call takes four times as long
            self.peak_count = count
        if size > self.peak_size:  # noqa: PLR1730  # likewise
            self.peak_size = size

    def popleft(self) -> Data | Fragment:
        """Take the oldest out, of at least one."""
        message = self.messages.popleft()
        self.size -= _measure(message)
        return message


def _measure(message: Data | Fragment) -> int:
    data = message.data if type(message) is Fragment else message
    if type(data) is not str and type(data) is not bytes:
        kind = type(message).__name__
        raise TypeError(f"message of type {kind}, expected str, bytes or Fragment")
    return len(data)
