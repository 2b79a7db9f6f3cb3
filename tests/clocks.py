"""Owns virtual time: event loops whose clock jumps to the next timer as soon as nothing else runs.

Knows neither anyws nor pytest. It is to asyncio and uvloop what `trio.testing.MockClock` with
`autojump_threshold=0` is to trio: `sleep(1000)` returns at once, and `loop.time()` has moved by
1000. For in-memory streams only: bytes that are still in a socket, or work in a thread, count as
idleness, and the clock jumps without waiting for them.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import sys
from typing import TYPE_CHECKING, Any, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

Ts = TypeVarTuple("Ts")


class VirtualTimer(asyncio.TimerHandle):
    """A timer of a VirtualTimeLoop; when it is due, its callback takes its turn in the loop."""

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self._call: Callable[[], asyncio.Handle] = lambda: loop.call_soon(
            callback, *args, context=context
        )
        self._ready: asyncio.Handle | None = None

    def fire(self) -> None:
        """Schedule the callback, as the loop would do with a timer that is due."""
        self._ready = self._call()

    def cancel(self) -> None:
        # Not TimerHandle.cancel: it reports to the loop's own queue of timers, where this is not.
        asyncio.Handle.cancel(self)
        if self._ready is not None:
            self._ready.cancel()


class VirtualTimeLoop(asyncio.AbstractEventLoop):
    """Mixed in before a real event loop, keeps its timers and tells its time.

    While there are timers, a probe goes round in the loop with the callbacks. When it comes by
    twice and nobody called `call_soon` in between, no task can go on before a timer fires: then
    the clock jumps.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._timers: list[tuple[float, int, VirtualTimer]] = []
        self._order = itertools.count()
        self._busy = False
        self._probing = False

    def time(self) -> float:
        return self._now

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        self._busy = True
        return super().call_soon(callback, *args, context=context)

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        self._busy = True
        return super().call_soon_threadsafe(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = VirtualTimer(when, callback, args, self, context)
        # The order of calls decides between timers of the same moment.
        heapq.heappush(self._timers, (when, next(self._order), timer))
        self._schedule_probe()
        return timer

    def _schedule_probe(self) -> None:
        if not self._probing:
            self._probing = True
            self._busy = True
            super().call_soon(self._probe)

    def _probe(self) -> None:
        self._probing = False
        idle, self._busy = not self._busy, False
        self._drop_cancelled()
        if idle and self._timers:
            self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            heapq.heappop(self._timers)[2].fire()
            self._drop_cancelled()
        if self._timers:
            self._probing = True
            super().call_soon(self._probe)

    def _drop_cancelled(self) -> None:
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)


class AsyncioVirtualLoop(VirtualTimeLoop, asyncio.SelectorEventLoop):
    """The event loop of the standard library in virtual time."""


if sys.platform != "win32":
    import uvloop

    # The stubs of uvloop describe methods that we do not touch in other words than typeshed does.
    class UvloopVirtualLoop(VirtualTimeLoop, uvloop.Loop):  # type: ignore[misc]
        """The event loop of uvloop in virtual time."""
