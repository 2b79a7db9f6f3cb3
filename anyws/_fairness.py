"""How often calls may return without letting other tasks run.

Owns the number, and how the two ways of a connection share it; who lets others run, and where,
stands in `_inbox` and `_outbox`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sansio._pyqueue import MessageQueue

# How often in a row calls may return without yielding to the event loop: so often that the yield
# costs a message little, and so rarely that other tasks wait for well under a millisecond.
MAX_CALLS_WITHOUT_YIELD = 64

_HALF = MAX_CALLS_WITHOUT_YIELD // 2


class Fairness:
    """The calls that may still return so: half are for who receives, and half for who sends.

    Each counts its own, without a look at the other; who has none left takes over what the other
    has.

    Args:
        queue: counts those of who receives.
    """

    __slots__ = ("_queue", "sends_left")

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue
        self.sends_left: int = 0
        """How many calls that send may still return so."""
        self.renew()

    def renew(self) -> None:
        """Take that others have run, or will before this call returns."""
        self._queue.calls_left = _HALF
        self.sends_left = _HALF

    @property
    def may_receive(self) -> bool:
        """Whether a call that receives may return so; it counts itself then."""
        queue = self._queue
        if not queue.calls_left:
            queue.calls_left, self.sends_left = self.sends_left, 0
        return queue.calls_left > 0

    @property
    def may_send(self) -> bool:
        """Whether a call that sends may return so; it counts itself then."""
        if not self.sends_left:
            queue = self._queue
            self.sends_left, queue.calls_left = queue.calls_left, 0
        return self.sends_left > 0
