"""Those who wait until few enough bytes are left to be sent.

Owns the waiting; who has sent something tells it how much is left.
"""

from __future__ import annotations

from anyio import Event


class _Waiter:
    """One who waits; others may write again before its task runs."""

    __slots__ = ("event", "limit", "reached")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reached = False
        self.event = Event()


class Draining:
    """All who wait in `Transport.drain`."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[_Waiter] = []

    async def wait(self, limit: int) -> bool:
        """Wait until `note()` is told so few bytes, or until `release()`.

        Returns:
            Whether so few were left.

        Cancellation: loses nothing.
        """
        waiter = _Waiter(limit)
        self._waiters.append(waiter)
        try:
            await waiter.event.wait()  # note() or release() ends it
        finally:
            self._waiters.remove(waiter)
        return waiter.reached

    def note(self, size: int) -> None:
        """Let those go who wait for so few bytes."""
        for waiter in self._waiters:
            if size <= waiter.limit:
                waiter.reached = True
                waiter.event.set()

    def release(self) -> None:
        """Let all go."""
        for waiter in self._waiters:
            waiter.event.set()
