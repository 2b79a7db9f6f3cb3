"""Where one task waits for a callback: the cheapest wait that each backend has.

Owns the choice of the backend's own primitive. An `anyio.Event` costs twice as much to make, to
wait for and to set, and one of these is waited for at nearly every message.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Protocol

from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from trio.lowlevel import Abort, Task


class Parking(Protocol):
    """A place for one task; who waits is woken once, and not before it waits."""

    def park(self) -> Awaitable[None]:
        """Give what is to be awaited at once, and nowhere else: it waits for `wake()`.

        Cancellation: nothing is lost; a `wake()` that comes at the same time has no effect.
        """

    def wake(self) -> None:
        """Let the task that waits go on; without effect if none does. Never waits."""


class AsyncioParking:
    """A Future that is made anew for each wait."""

    __slots__ = ("_future", "_new_future")

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None
        # Asking for the loop each time would be a call of the system each time, for the process.
        self._new_future = asyncio.get_running_loop().create_future

    def park(self) -> Awaitable[None]:
        self._future = self._new_future()
        return self._future  # wake() ends it

    def wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class TrioParking:
    """The task itself, which is rescheduled."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: Task | None = None

    async def park(self) -> None:
        from trio import lowlevel  # noqa: PLC0415  # trio is an extra

        self._task = lowlevel.current_task()
        await lowlevel.wait_task_rescheduled(self._leave)  # wake() ends it

    def wake(self) -> None:
        from trio import lowlevel  # noqa: PLC0415  # likewise

        if self._task is not None:
            task, self._task = self._task, None
            lowlevel.reschedule(task)

    def _leave(self, _: object) -> Abort:
        from trio import lowlevel  # noqa: PLC0415  # likewise

        self._task = None
        return lowlevel.Abort.SUCCEEDED


class Latch:
    """Something that happens once, and who waits for it.

    Most connections have nobody who waits: what it takes is made when one does. An Event would have
    800 bytes on asyncio.
    """

    __slots__ = ("_parkings", "_set")

    def __init__(self) -> None:
        self._set = False
        self._parkings: list[Parking] | None = None

    def is_set(self) -> bool:
        """Say whether it has happened."""
        return self._set

    def set(self) -> None:
        """Take that it has happened, and let all who wait go on. Never waits."""
        self._set = True
        for parking in self._parkings or ():
            parking.wake()

    async def wait(self) -> None:
        """Wait for `set()`.

        Cancellation: harmless.
        """
        if self._set:
            await checkpoint()
            return
        parking = make_parking()
        if self._parkings is None:
            self._parkings = []
        self._parkings.append(parking)
        try:
            await parking.park()  # set() ends it
        finally:
            self._parkings.remove(parking)


def make_parking() -> Parking:
    """Make one for the event loop that runs now."""
    # The module is there if trio runs: nothing is imported for those who do not use it.
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return TrioParking()
    return AsyncioParking()
