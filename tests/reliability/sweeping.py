"""The cancellation sweep: a scenario is run again and again, cancelled at another point each time.

Owns the points, the ways to cancel, and the counts of what was found; knows no WebSocket. A
scenario is an async function that takes a `Cut` and does what is to be cancelled through
`cut.call()`. It is run on a new event loop for each point, until a run comes to its end before it
meets its point. What it finds wrong it tells the cut, or raises.

A point is one of two things. "within": a place where the coroutine that is called yields to the
event loop, or is about to go on; it is counted by driving the coroutine by hand, and the
cancellation comes from the task itself. "beside": each step of the event loop while the call lasts,
whoever makes it; so the cancellation comes from outside, and also between the moment when the call
could go on and the one when it does. It comes from an anyio scope around the call, or, on asyncio,
by the task's own `cancel()`, as `asyncio.timeout` and `asyncio.wait_for` do it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple

import anyio
from anyio.lowlevel import checkpoint

from tests.reliability.loops import Loop

if TYPE_CHECKING:
    from collections.abc import (
        Awaitable,
        Callable,
        Coroutine,
        Generator,
        Hashable,
        Iterable,
        Iterator,
        Sequence,
    )

    from tests.reliability.loops import Leftovers, Steps

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Seconds that a run takes only if it hangs, in virtual time and in real time.
_VIRTUAL_LIMIT = 120.0
_REAL_LIMIT = 5.0

# Where so many points are faulty, more of them say nothing new, and each may hang.
_MAX_FAULTY = 6

# Turns after which whatever was about to end has ended.
_SETTLING_TURNS = 12

# Runs in which calls are cancelled again and again.
_SEEDS = 40

# A sweep that has not come to the end of its scenario after so many points never will.
_MAX_POINTS = 20_000


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
class Scenario:
    """What is swept."""

    name: str
    run: Callable[[Cut], Coroutine[Any, Any, None]]
    virtual: bool
    """Whether all of it is in memory, and so runs in virtual time."""
    bound: float = 0.0
    """Seconds that a cancelled call may take to end, in virtual time."""
    repeats: bool = False
    """Whether it bears that several of its calls are cancelled."""


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
        self._armed = False
        # The last point that is of interest once it is cancelled.
        self._last = -1 if at is None else at + (way.again or 0)
        self._random = random.Random(at)
        self._cancel: Callable[[], object] = _nothing
        self._cancelled_at = math.nan
        self._steps: Steps | None = None

    def start(self, steps: Steps) -> None:
        """Take the event loop that the scenario runs on."""
        self._steps = steps
        if self.way.beside:
            steps.listen(self.meet_point)

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
            values = (await self._drive(func, *args),)
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
            self._meet_point()
            answer = error = None
            try:
                answer = yield wanted
            except BaseException as exc:  # noqa: BLE001  # the coroutine gets it
                error = exc
                # Those of anyio's scopes say so.
                self.told = self.told or (isinstance(exc, asyncio.CancelledError) and not exc.args)


class _Records(logging.Handler):
    """Keeps what is logged at WARNING or above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.texts.append(f"{record.name}: {record.getMessage()} {error!r}")


@dataclass
class SweepResult:
    """What a sweep did and found.

    It is one row of a report; rows can be added up.
    """

    scenario: str
    loop: str
    points: int = 0
    """How often the scenario was cancelled, mostly each time at another point."""
    longest: float = 0.0
    """Seconds from a cancellation to the end of the call; virtual where all is in memory."""
    findings: Findings = field(default_factory=Findings)
    faults: list[str] = field(default_factory=list)
    """What was found, and where: one line each."""

    def add(self, other: SweepResult) -> None:
        """Take the numbers of another sweep too."""
        self.points += other.points
        self.longest = max(self.longest, other.longest)
        self.findings.add(other.findings)
        self.faults += other.faults


def sweep(
    scenario: Scenario, loop: str, *, ways: Sequence[Way] = WAYS, limit: int | None = None
) -> SweepResult:
    """Cancel a scenario at each point, on one event loop.

    Args:
        scenario: what is cancelled.
        loop: "asyncio", "uvloop" or "trio".
        ways: how; those that the loop does not have are left out.
        limit: points for each way; where there are more, they are spread evenly. None is no limit.
    """
    result = SweepResult(scenario.name, loop)
    for way in ways_on(loop, ways):
        if way.often and not scenario.repeats:
            continue
        faulty = 0
        for at in _points(scenario, loop, way, limit):
            cut = run_once(scenario, loop, way, at)
            _take(result, cut, scenario)
            faulty += cut.findings.any
            if faulty > _MAX_FAULTY or not (cut.cancelled or at is None or way.often):
                break
    return result


def _points(scenario: Scenario, loop: str, way: Way, limit: int | None) -> Iterator[int | None]:
    """Give those to cancel at; None is a run that is not cancelled."""
    yield None
    if way.often:
        yield from range(_SEEDS if limit is None else limit)
        return
    if limit is not None:
        count = run_once(scenario, loop, way, None).points
        if count > limit:
            yield from spread(count, limit)
            return
    yield from range(_MAX_POINTS)
    raise AssertionError(f"{scenario.name} has no end after {_MAX_POINTS} points")


def spread(count: int, limit: int) -> list[int]:
    """Give `limit` of the numbers under `count`, evenly, the first and the last among them."""
    return sorted({round(index * (count - 1) / (limit - 1)) for index in range(limit)})


def _take(result: SweepResult, cut: Cut, scenario: Scenario) -> None:
    if scenario.virtual and cut.longest > scenario.bound + 1e-6:
        cut.fault(f"took {cut.longest} seconds to end, expected at most {scenario.bound}")
    result.points += cut.cancellations
    result.longest = max(result.longest, cut.longest)
    result.findings.add(cut.findings)
    place = "not cancelled" if cut.at is None else f"{cut.way.name}, point {cut.at}"
    result.faults += [f"{scenario.name} on {result.loop}, {place}: {text}" for text in cut.faults]


def run_once(scenario: Scenario, loop: str, way: Way, at: int | None) -> Cut:
    """Run a scenario once, cancelled at one point."""
    cut = Cut(way, at)
    records = _Records()

    async def main(steps: Steps) -> None:
        await settle()
        before = steps.count()
        cut.start(steps)
        try:
            with anyio.fail_after(_VIRTUAL_LIMIT if scenario.virtual else _REAL_LIMIT):
                await scenario.run(cut)
        except Exception as exc:  # noqa: BLE001  # it is told
            for error in flatten(exc):
                cut.fault(f"raised {error!r}")
        except anyio.get_cancelled_exc_class():
            cut.fault("a cancellation that nobody asked for")
        await settle()
        cut.leave(steps.count().since(before))
        for text in steps.complaints:
            cut.fault(f"the event loop was told: {text}")

    logger = logging.getLogger("anyws")
    logger.addHandler(records)
    try:
        Loop(loop, scenario.virtual).run(main)
    finally:
        logger.removeHandler(records)
    for text in records.texts:
        cut.fault(f"logged: {text}")
    return cut


async def settle() -> None:
    """Let all tasks have a few turns."""
    for _ in range(_SETTLING_TURNS):
        await checkpoint()


def flatten(error: BaseException) -> list[BaseException]:
    """Give the errors in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [one for inner in error.exceptions for one in flatten(inner)]
    return [error]


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
