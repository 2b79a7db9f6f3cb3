"""Who waits for a received message: one task, which lets others run now and then.

Owns the waiting and the waking; what waits to be received is in the queue of the decoder, which
takes it out where nothing else is to be done. Knows no frame and no stream.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from ._fairness import Fairness
from ._parking import make_parking
from ._types import Fragment
from .exceptions import ConcurrencyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._parking import Parking
    from ._types import Data, Event
    from .sansio._pyqueue import MessageQueue


class Inbox:
    """Between the decoder, with the messages that it has decoded, and recv().

    Args:
        queue: has them; `Decoder.take()` takes out of it where nothing else is to be done.
        max_messages: the high and the low mark for the number of messages.
        max_bytes: likewise for their bytes; a character of a str counts as one.
        make_parking: makes the place where recv() waits.
        rest: lets other tasks run.
    """

    __slots__ = (
        "_closed",
        "_make_parking",
        "_parking",
        "_rest",
        "_streaming",
        "fairness",
        "queue",
        "receiving",
    )

    def __init__(
        self,
        queue: MessageQueue,
        max_messages: tuple[int | None, int | None],
        max_bytes: tuple[int | None, int | None],
        make_parking: Callable[[], Parking] = make_parking,
        rest: Callable[[], Awaitable[None]] = checkpoint,
    ) -> None:
        self.queue: MessageQueue = queue
        """What waits, and how much of it may."""
        queue.high_messages, queue.low_messages = map(_mark, max_messages)
        queue.high_bytes, queue.low_bytes = map(_mark, max_bytes)
        queue.replenishes = True
        self.fairness: Fairness = Fairness(queue)
        """How many calls may still return without yielding, those that send among them."""
        self._streaming = False
        self._closed = False
        self.receiving: bool = False
        """Whether a task waits for a message."""
        self._make_parking = make_parking
        self._parking: Parking | None = None
        self._rest = rest

    def note_fragment(self, fragment: Fragment) -> None:
        """Take that a fragment has come which is kept elsewhere, for who watches what comes."""

    def put(self, message: Data | Fragment) -> None:
        """Add a message and wake who waits for one."""
        self.put_told(message)

    def put_told(self, message: Data | Fragment) -> None:
        """Add a message whose fragments `note_fragment()` was told of already."""
        self.queue.append(message)
        if self.receiving and self._parking is not None:
            self._parking.wake()

    def put_all(self, messages: list[Data], size: int) -> None:
        """Add messages, and wake who waits for one.

        Args:
            messages: at least one.
            size: their bytes.
        """
        self.queue.extend(messages, size)
        if self.receiving and self._parking is not None:
            self._parking.wake()

    def put_messages(self, events: list[Event]) -> int:
        """Add the messages and fragments among `events`, and wake who waits for one.

        Returns:
            How many there were.
        """
        append = self.queue.append
        count = 0
        for event in events:
            kind = type(event)
            if kind is str or kind is bytes or kind is Fragment:
                append(event)  # type: ignore[arg-type]  # one of the three
                count += 1
        if count and self.receiving and self._parking is not None:
            self._parking.wake()
        return count

    def close(self) -> None:
        """Say that nothing more will come; what is here can still be had."""
        self._closed = True
        if self.receiving and self._parking is not None:
            self._parking.wake()
        # Nobody waits again: what these are of need not be kept.
        self._parking = None
        self._make_parking = make_parking
        self._rest = checkpoint

    def check_not_receiving(self) -> None:
        """See that no task waits.

        Raises:
            ConcurrencyError: one does.
        """
        if self.receiving:
            raise ConcurrencyError("another task is already receiving from this connection")

    def hold(self, *, streaming: bool) -> None:
        """Say whether fragments are asked for: then nobody simply takes a message out."""
        self._streaming = streaming
        self.queue.held = streaming or self.receiving

    async def ready(self) -> bool:
        """Wait until the queue has a message; put() or close() ends it.

        Returns:
            False when there is none and nothing more will come.

        Raises:
            ConcurrencyError: another task waits.

        Cancellation: loses nothing.
        """
        if self.receiving:
            self.check_not_receiving()
        queue = self.queue
        if (queue or self._closed) and self.fairness.may_receive():
            queue.calls_left -= 1
            return bool(queue)
        self.receiving = queue.held = True
        try:
            if queue or self._closed:
                await self._rest()
            while not queue and not self._closed:
                if self._parking is None:
                    self._parking = self._make_parking()
                await self._parking.park()
        finally:
            self.receiving = False
            queue.held = self._streaming
            # Others have run, also where it was cancelled: who polls must not starve.
            self.fairness.renew()
        return bool(queue)


def _mark(mark: int | None) -> int:
    return sys.maxsize if mark is None else min(mark, sys.maxsize)
