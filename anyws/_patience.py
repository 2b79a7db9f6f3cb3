"""How long a full inbox is waited for once a connection closes.

Owns the time, and when it begins anew; what is dropped then stands in `_intake`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import move_on_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._parking import Latch
    from .sansio._pyqueue import MessageQueue

PATIENCE = 1.0
"""Seconds in which the application has to take a message out of a full inbox once we have begun to
close: else it is taken not to receive any more."""

# How often it is looked at in that time.
_LOOKS = 4


class Patience:
    """Tells when nobody makes room in a full inbox any more.

    Args:
        queue: the messages in it.
        seconds: how long nothing may be taken out of it.
    """

    __slots__ = ("_looks", "_queue", "_seconds", "_taken", "waiting")

    def __init__(self, queue: MessageQueue, seconds: float) -> None:
        self._queue = queue
        self._seconds = seconds
        # How many had been taken out at the last look, and how many looks have found the same.
        self._taken = -1
        self._looks = 0
        self.waiting: bool = False
        """Whether `wait()` was called; who calls it says so."""

    def shorten(self, seconds: float) -> None:
        """Let it be no more than so many seconds."""
        self._seconds = min(self._seconds, seconds)

    def begin_anew(self) -> None:
        """Take that something was taken out, or that the inbox has become full only now."""
        self._taken = -1

    async def wait(self, is_full: Callable[[], bool], over: Latch) -> bool:
        """Wait until it has been full for that time, and nothing was taken out of it.

        Args:
            is_full: whether more is to come, and finds no room.
            over: what makes it all the same.

        Returns:
            False where `over` has come first.

        Cancellation: it is not seen; one of the two ends it, as the watchdog does in the end.
        """
        while not over.is_set():
            taken = self._queue.taken
            if taken != self._taken or not is_full():
                self._taken = taken
                self._looks = 0
            elif self._looks == _LOOKS:
                return True
            self._looks += 1
            with move_on_after(self._seconds / _LOOKS, shield=True):
                await over.wait()
        return False
