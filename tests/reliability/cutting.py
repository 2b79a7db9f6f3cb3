"""One run of a scenario of the cancellation sweep: where it is cut, and what was found.

Owns the points, and the ways to cancel; knows no WebSocket and no event loop.

A point is one of two things. "within": a place where the coroutine that is called yields to the
event loop, or is about to go on; it is counted by driving the coroutine by hand, and the
cancellation comes from the task itself. "beside": each step of the event loop while the call lasts,
whoever makes it; so the cancellation comes from outside, and also between the moment when the call
could go on and the one when it does. It comes from an anyio scope around the call, or, on asyncio,
by the task's own `cancel()`, as `asyncio.timeout` and `asyncio.wait_for` do it.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple

import anyio

if TYPE_CHECKING:
    from collections.abc import (
        Awaitable,
        Callable,
        Coroutine,
        Generator,
        Hashable,
        Iterable,
        Sequence,
    )

    from tests.reliability.loops import Leftovers, Steps

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True)
class Way:
    """A way to cancel: where its points are, and what does it."""

    name: str
    beside: bool
    """Whether the points are the steps of the loop, not those of the call."""
    native: bool
    """Whether it is the task that is cancelled, not a scope."""
    again: int | None = None
    """How many points later it is cancelled once more, where a scope would not need that."""
    often: float = 0.0
    """Where it is not one point but any, of each call: how probable each is."""


WAYS = (
    Way("within", beside=False, native=False),
    Way("beside", beside=True, native=False),
    Way("within, by the task", beside=False, native=True),
    Way("beside, by the task", beside=True, native=True),
)
TWICE = tuple(
    Way(f"beside, by the task, and {again} steps later again", True, True, again)
    for again in (1, 2, 3, 5, 8)
)
OFTEN = tuple(
    Way(f"{way.name}, again and again", way.beside, way.native, often=often)
    for way in WAYS
    for often in (0.1, 0.4)
)


def ways_on(loop: str, ways: Sequence[Way] = WAYS) -> list[Way]:
    """Give those of the ways that an event loop has; trio knows nothing but scopes."""
    return [way for way in ways if loop != "trio" or not way.native]


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """How a call ended: with a value, or cancelled."""

    cancelled: bool
    values: tuple[T, ...] = ()

    @property
    def value(self) -> T:
        (value,) = self.values
        return value


@dataclass
class Findings:
    """What was counted; each number is best at 0."""

    lost: int = 0
    """Messages that did not come."""
    doubled: int = 0
    """Messages that came more than once."""
    torn: int = 0
    """Frames that were not whole, or not where a frame may be."""
    tasks: int = 0
    timers: int = 0
    watched: int = 0
    sockets: int = 0
    wrong: int = 0
    """Anything else that should not be."""

    def add(self, other: Findings) -> None:
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)

    @property
    def any(self) -> bool:
        return any(vars(self).values())


class Cut:
    """One run of a scenario: where it is cancelled, and what was found.

    Args:
        way: how it is cancelled.
        at: the point, from 0; None only counts the points. Where the way is to cancel often, the
            seed of where.
    """

    def __init__(self, way: Way, at: int | None) -> None:
        self.way = way
        self.at = at
        self.points = 0
        """How many were met."""
        self.cancelled = False
        """Whether the point was reached."""
        self.cancellations = 0
        self.findings = Findings()
        self.faults: list[str] = []
        self.longest = 0.0
        """Seconds from the cancellation to the end of the call."""
        self.others: list[Cut] = []
        self._armed = False
        # The last point that is of interest once it is cancelled.
        self._last = -1 if at is None or way.often else at + (way.again or 0)
        self._random = random.Random(at)
        self._cancel: Callable[[], object] = _nothing
        self._cancelled_at = math.nan
        self._steps: Steps | None = None

    def start(self, steps: Steps) -> None:
        """Take the event loop that the scenario runs on."""
        self._steps = steps
        if self.way.beside:
            steps.listen(self.meet_point)

    def another(self) -> Cut:
        """Give a cut for another task of the same run; it has the same way, and its own points."""
        assert self._steps is not None
        other = Cut(self.way, None if self.at is None else self.at + 1000 * (1 + len(self.others)))
        other.start(self._steps)
        self.others.append(other)
        return other

    def arm(self) -> None:
        """Count points from here on; during a call."""
        self._armed = True

    def disarm(self) -> None:
        """Count none from here on."""
        self._armed = False

    def meet_point(self) -> None:
        """Cancel, if this point is the one."""
        if not self._armed:
            return
        if self._is_due():
            assert self._steps is not None
            self.cancelled = True
            self.cancellations += 1
            self._cancelled_at = self._steps.time()
            self._cancel()
        elif self.cancelled and self.points == self._last:
            self._cancel()
        if not math.isnan(self._cancelled_at) and self.points >= self._last:
            self._armed = False
        self.points += 1

    def _is_due(self) -> bool:
        if self.way.often:
            return self.at is not None and self._random.random() < self.way.often
        return self.points == self.at

    async def call(
        self,
        func: Callable[[*Ts], Coroutine[Any, Any, T]],
        *args: *Ts,
        armed: bool = True,
    ) -> Outcome[T]:
        """Call what is to be cancelled.

        Args:
            func: an async function.
            args: its arguments.
            armed: whether its points count from the beginning; if not, it calls `arm()`.
        """
        if self.cancelled and not self.way.often:
            return Outcome(False, (await func(*args),))
        self._cancelled_at = math.nan
        try:
            if self.way.native:
                return await self._call_in_task(armed, func, *args)
            return await self._call_in_scope(armed, func, *args)
        finally:
            self._armed = False
            self._cancel = _nothing
            if not math.isnan(self._cancelled_at):
                assert self._steps is not None
                self.longest = max(self.longest, self._steps.time() - self._cancelled_at)

    async def _call_in_scope(
        self, armed: bool, func: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts
    ) -> Outcome[T]:
        values: tuple[T, ...] = ()
        requests = _cancel_requests()
        with anyio.CancelScope() as scope:
            self._cancel = scope.cancel
            self._armed = armed
            driven = self._drive(func, *args)
            values = (await driven,)
        if driven.grouped:
            self.fault("a group has left the call")
        if _cancel_requests() != requests:
            self.fault("a request to cancel the task is left over")
        return Outcome(not values, values)

    async def _call_in_task(
        self, armed: bool, func: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts
    ) -> Outcome[T]:
        values: list[T] = []
        driven: list[_Driven[T]] = []

        async def run() -> None:
            # A task that is cancelled before its first step does not begin, which is none of ours.
            self._armed = armed
            driven.append(self._drive(func, *args))
            # Kept here: one that is cancelled in its last step loses what it would return.
            values.append(await driven[0])

        task = asyncio.create_task(run())
        self._cancel = task.cancel
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()  # where the whole run hangs
        if driven and driven[0].grouped:
            self.fault("a group has left the call")
        if not task.cancelled():
            task.result()  # which may raise
            if driven and driven[0].told:
                self.fault("a cancellation was swallowed")
        return Outcome(not values, tuple(values))

    def _drive(self, func: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> _Driven[T]:
        return _Driven(func(*args), _nothing if self.way.beside else self.meet_point)

    # What a scenario tells.

    def fault(self, text: str) -> None:
        """Take something that is wrong."""
        self.findings.wrong += 1
        self.faults.append(text)

    def torn(self, text: str) -> None:
        """Take a frame that is none."""
        self.findings.torn += 1
        self.faults.append(f"torn: {text}")

    def compare(
        self,
        came: Sequence[Hashable],
        sent: Sequence[Hashable],
        *,
        optional: Iterable[Hashable] = (),
    ) -> None:
        """See that all came that was sent, once and in order.

        Args:
            came: what came.
            sent: what was sent, each of them unique.
            optional: which of it need not have come.
        """
        counts = Counter(came)
        may_miss = set(optional)
        lost = [item for item in sent if item not in counts and item not in may_miss]
        doubled = [item for item, count in counts.items() if count > 1]
        if lost:
            self.findings.lost += len(lost)
            self.faults.append(f"lost: {shorten(lost)}")
        if doubled:
            self.findings.doubled += len(doubled)
            self.faults.append(f"doubled: {shorten(doubled)}")
        unknown = [item for item in counts if item not in set(sent)]
        if unknown:
            self.fault(f"came without being sent: {shorten(unknown)}")
        elif not doubled and list(came) != [item for item in sent if item in counts]:
            self.fault(f"out of order: {shorten(came)}")

    def leave(self, leftovers: Leftovers) -> None:
        """Take what the scenario has left behind."""
        for name in ("tasks", "timers", "watched"):
            count = getattr(leftovers, name)
            if count:
                setattr(self.findings, name, getattr(self.findings, name) + count)
                self.faults.append(f"{count} {name} left")
        if leftovers.sockets:
            self.findings.sockets += len(leftovers.sockets)
            self.faults.append(f"sockets left: {sorted(leftovers.sockets)}")


class _Driven(Generic[T]):
    """Awaits a coroutine and tells when it yields to the event loop, and when it goes on."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], meet_point: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._meet_point = meet_point
        self.grouped = False
        """Whether a group of exceptions has left it."""
        self.told = False
        """Whether it was told of a cancellation that is not that of a scope."""

    def __await__(self) -> Generator[Any, Any, T]:
        coroutine = self._coroutine
        answer: Any = None
        error: BaseException | None = None
        while True:
            self._meet_point()
            try:
                wanted = coroutine.send(answer) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                value: T = stop.value
                return value
            except BaseExceptionGroup:
                # Who waits for a cancellation, or for an error of his own, would not know it.
                self.grouped = True
                raise
            self._meet_point()
            answer = error = None
            try:
                answer = yield wanted
            except BaseException as exc:  # noqa: BLE001  # handed on
                error = exc
                # Those of anyio's scopes say so.
                self.told = self.told or (isinstance(exc, asyncio.CancelledError) and not exc.args)


def shorten(items: Sequence[Any]) -> str:
    """Give the text of items whose payloads may be long."""
    texts = [text if len(text) < 40 else f"{text[:36]}..." for text in map(repr, items[:12])]
    return f"[{', '.join(texts)}{', ...' if len(items) > 12 else ''}]"


def _nothing() -> None:
    pass


def _cancel_requests() -> int:
    """Say how often this task was asked to be cancelled; 0 on trio, which has no such thing."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return 0
    return 0 if task is None else task.cancelling()


def awaiting(awaitable: Awaitable[T]) -> Callable[[], Coroutine[Any, Any, T]]:
    """Make an async function of something that can be awaited once."""

    async def wait() -> T:
        return await awaitable

    return wait
