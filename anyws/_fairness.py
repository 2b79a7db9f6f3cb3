"""How often calls may return without letting other tasks run.

Owns the number, and how the two ways of a connection share it; who lets others run, and where,
stands in `_inbox` and `_outbox`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sansio._pyqueue import MessageQueue

# How often in a row calls may return without yielding to the event loop: so often that the yield
# costs a message little, and so rarely that other tasks wait for well under a millisecond.
MAX_CALLS_WITHOUT_YIELD = 64

_HALF = MAX_CALLS_WITHOUT_YIELD // 2


class Sends:
    """The calls that send, of all connections of a thread: one task may send to many in a row."""

    __slots__ = ("left", "sharer")

    def __init__(self) -> None:
        self.left: int = _HALF
        """How many may still return so."""
        self.sharer: int | None = None
        """Whose calls that receive share these, or lend theirs, until others have run: one
        connection's alone, or each of many would have as many."""


class _Local(threading.local):
    def __init__(self) -> None:
        self.sends = Sends()


_LOCAL = _Local()


class Fairness:
    """The calls that may still return so: half are for who receives, and half for who sends.

    Each counts its own, without a look at the other; who has none left takes over what the other
    has.

    Args:
        queue: counts those of who receives.
    """

    __slots__ = ("_queue", "sends")

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue
        self.sends: Sends = _LOCAL.sends
        """Counts those of who sends."""
        self.renew()  # a connection opens after some waiting

    def renew(self) -> None:
        """Take that others have run, or will before this call returns."""
        self._queue.calls_left = self.sends.left = _HALF
        self.sends.sharer = None

    def may_receive(self) -> bool:
        """Say whether a call that receives may return so, taking over if need be.

        It counts itself then.
        """
        queue = self._queue
        if not queue.calls_left and self._shares():
            queue.calls_left, self.sends.left = self.sends.left, 0
        return queue.calls_left > 0

    def may_send(self) -> bool:
        """Say whether a call that sends may return so, likewise."""
        sends = self.sends
        if not sends.left and self._shares():
            sends.left, self._queue.calls_left = self._queue.calls_left, 0
        return sends.left > 0

    def _shares(self) -> bool:
        if self.sends.sharer is None:
            self.sends.sharer = id(self)
        return self.sends.sharer == id(self)
