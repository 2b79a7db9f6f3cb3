"""Event loops that tell each of their steps, and what is left on them.

Owns the steps of asyncio, uvloop and trio, and the count of tasks, timers, watched sockets and open
sockets; knows nothing of anyws. A step is what runs between two looks of the loop for something to
do: on asyncio and uvloop a callback, on trio a turn of a task. `Loop.run()` makes a new event loop
each time, so that whatever is left on it belongs to that run.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVarTuple

import anyio
import trio
from trio.testing import MockClock

from tests import clocks
from tests.conftest import open_sockets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

Ts = TypeVarTuple("Ts")


class SteppingLoop(asyncio.AbstractEventLoop):
    """Mixed in before a real event loop: it tells each callback, and keeps what it was told to do.

    Callbacks that the loop makes for itself, such as those of its own transports, do not count;
    what they lead to does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on_step: Callable[[], None] = _ignore
        self.readers: set[int] = set()
        self.writers: set[int] = set()
        self._kept_timers: list[asyncio.TimerHandle] = []

    def _step(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        self.on_step()
        callback(*args)

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        return super().call_soon(self._step, callback, *args, context=context)

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        self.readers.add(fd)
        super().add_reader(fd, self._step, callback, *args)

    def remove_reader(self, fd: Any) -> bool:
        self.readers.discard(fd)
        return super().remove_reader(fd)

    def add_writer(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        self.writers.add(fd)
        super().add_writer(fd, self._step, callback, *args)

    def remove_writer(self, fd: Any) -> bool:
        self.writers.discard(fd)
        return super().remove_writer(fd)

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        def fire() -> None:
            self._kept_timers.remove(timer)
            callback(*args)

        timer = self._call_at(when, fire, context)
        self._kept_timers.append(timer)
        return timer

    def _call_at(
        self, when: float, fire: Callable[[], None], context: Context | None
    ) -> asyncio.TimerHandle:
        return super().call_at(when, fire, context=context)

    @property
    def pending_timers(self) -> int:
        """How many have neither fired nor been cancelled."""
        self._kept_timers = [timer for timer in self._kept_timers if not timer.cancelled()]
        return len(self._kept_timers)


class AsyncioLoop(SteppingLoop, asyncio.SelectorEventLoop):
    """The event loop of the standard library."""


class AsyncioVirtualLoop(SteppingLoop, clocks.AsyncioVirtualLoop):
    """The event loop of the standard library in virtual time."""


if sys.platform != "win32":
    import uvloop

    # The stubs of uvloop describe methods in other words than typeshed does.
    class UvloopLoop(SteppingLoop, uvloop.Loop):  # type: ignore[misc]
        """The event loop of uvloop."""

        def _call_at(
            self, when: float, fire: Callable[[], None], context: Context | None
        ) -> asyncio.TimerHandle:
            # Its call_at() calls call_later(), which is ours.
            return uvloop.Loop.call_later(self, when - self.time(), fire, context=context)

    class UvloopVirtualLoop(SteppingLoop, clocks.UvloopVirtualLoop):  # type: ignore[misc]  # likewise
        """The event loop of uvloop in virtual time."""


class TrioSteps(trio.abc.Instrument):
    """Tells each turn of each task."""

    def __init__(self) -> None:
        self.on_step: Callable[[], None] = _ignore

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.on_step()


def _ignore() -> None:
    pass


@dataclass(frozen=True)
class Leftovers:
    """What is there at one time, or how much more there is than before."""

    tasks: int
    timers: int
    watched: int
    """Sockets that the loop watches for somebody."""
    sockets: frozenset[str]

    def since(self, before: Leftovers) -> Leftovers:
        """Give what has come since `before`."""
        return Leftovers(
            max(0, self.tasks - before.tasks),
            max(0, self.timers - before.timers),
            max(0, self.watched - before.watched),
            self.sockets - before.sockets,
        )


@dataclass(frozen=True)
class Loop:
    """A kind of event loop.

    Args:
        name: "asyncio", "uvloop" or "trio".
        virtual: whether its clock jumps to the next timer when nothing else runs; then its streams
            must be in memory.
    """

    name: str
    virtual: bool

    def run(self, main: Callable[[Steps], Awaitable[None]]) -> None:
        """Run `main` on a new one."""
        if self.name == "trio":
            instrument = TrioSteps()
            options: dict[str, Any] = {"instruments": [instrument]}
            if self.virtual:
                options["clock"] = MockClock(autojump_threshold=0)
            anyio.run(main, Steps(instrument), backend="trio", backend_options=options)
            return
        if self.name == "uvloop":
            factory: type[SteppingLoop] = UvloopVirtualLoop if self.virtual else UvloopLoop
        else:
            factory = AsyncioVirtualLoop if self.virtual else AsyncioLoop
        steps: list[Steps] = []

        def make() -> SteppingLoop:
            loop = factory()
            steps.append(Steps(loop))
            return loop

        async def run() -> None:
            await main(steps[0])

        anyio.run(run, backend_options={"loop_factory": make})


class Steps:
    """The steps of one event loop, and what is on it.

    Args:
        source: what tells them.
    """

    def __init__(self, source: SteppingLoop | TrioSteps) -> None:
        self._source = source
        self._listeners: list[Callable[[], None]] = []
        self.complaints: list[str] = []
        """What the loop told its exception handler."""
        if isinstance(source, SteppingLoop):
            source.set_exception_handler(
                lambda _, context: self.complaints.append(
                    f"{context['message']}: {context.get('exception')!r}"
                )
            )

    def listen(self, on_step: Callable[[], None]) -> None:
        """Call `on_step` too before each step."""
        self._listeners.append(on_step)
        self._source.on_step = self._tell

    def _tell(self) -> None:
        for on_step in self._listeners:
            on_step()

    def time(self) -> float:
        """Give the loop's time, in any place."""
        if isinstance(self._source, SteppingLoop):
            return self._source.time()
        return trio.current_time()

    def count(self) -> Leftovers:
        """Count what is there now; called by a task."""
        if isinstance(self._source, SteppingLoop):
            loop = self._source
            return Leftovers(
                len(asyncio.all_tasks(loop)),
                loop.pending_timers,
                len(loop.readers) + len(loop.writers),
                frozenset(open_sockets()),
            )
        statistics = trio.lowlevel.current_statistics()
        io: Any = statistics.io_statistics
        return Leftovers(
            statistics.tasks_living,
            0 if math.isinf(statistics.seconds_to_next_deadline) else 1,
            sum(value for name, value in Counter(_numbers(io)).items() if "waiting" in name),
            frozenset(open_sockets()),
        )


def _numbers(statistics: Any) -> dict[str, int]:
    """Give the numbers that trio tells of its sockets, which have other names on other systems."""
    return {name: getattr(statistics, name) for name in dir(statistics) if name.startswith("tasks")}


LOOPS = ("asyncio", "uvloop", "trio") if sys.platform != "win32" else ("asyncio", "trio")
