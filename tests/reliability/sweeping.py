"""The cancellation sweep: a scenario is run again and again, cancelled at another point each time.

Owns the order of the runs and the sum of what they found; how one is cancelled stands in `cutting`.
A scenario is an async function that takes a `Cut` and does what is to be cancelled through
`cut.call()`. It is run on a new event loop for each point, until a run comes to its end before it
meets its point. What it finds wrong it tells the cut, or raises.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from tests.reliability.cutting import WAYS, Cut, Findings, ways_on
from tests.reliability.loops import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from tests.reliability.cutting import Way
    from tests.reliability.loops import Leftovers, Steps

# Seconds that a run takes only if it hangs, in virtual time and in real time.
_VIRTUAL_LIMIT = 120.0
_REAL_LIMIT = 10.0

# Where so many points are faulty, more of them say nothing new, and each may hang.
_MAX_FAULTY = 6

# Turns after which whatever was about to end has ended.
_SETTLING_TURNS = 12

# How often, and after how many seconds, sockets that are left over are looked for once more.
_THREAD_CHECKS = 100
_THREAD_DELAY = 0.005

# Runs in which calls are cancelled again and again.
_SEEDS = 40

# A sweep that has not come to the end of its scenario after so many points never will.
_MAX_POINTS = 20_000


@dataclass(frozen=True)
class Scenario:
    """What is swept."""

    subject: str
    """What is cancelled, and as what happens."""
    where: str
    """What it runs over, if that is not always the same."""
    run: Callable[[Cut], Coroutine[Any, Any, None]]
    virtual: bool
    """Whether all of it is in memory, and so runs in virtual time."""
    bound: float = 0.0
    """Seconds that a cancelled call may take to end, in virtual time."""
    repeats: bool = False
    """Whether it bears that several of its calls are cancelled."""
    storm: bool = False
    """Whether it makes sense only then."""

    def __str__(self) -> str:
        return f"{self.subject}, {self.where}" if self.where else self.subject


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

    subject: str
    where: str
    loop: str
    points: int = 0
    """How often the scenario was cancelled, mostly each time at another point."""
    longest: float = 0.0
    """Seconds from a cancellation to the end of the call, in virtual time if all is in memory."""
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
    result = SweepResult(scenario.subject, scenario.where, loop)
    for way in ways_on(loop, ways):
        if not (scenario.repeats if way.often else not scenario.storm):
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
    raise AssertionError(f"{scenario} has no end after {_MAX_POINTS} points")


def spread(count: int, limit: int) -> list[int]:
    """Give `limit` of the numbers under `count`, evenly, the first and the last among them."""
    return sorted({round(index * (count - 1) / max(1, limit - 1)) for index in range(limit)})


def _take(result: SweepResult, cut: Cut, scenario: Scenario) -> None:
    if scenario.virtual and cut.longest > scenario.bound + 1e-6:
        cut.fault(f"took {cut.longest} seconds to end, expected at most {scenario.bound}")
    result.points += cut.cancellations
    result.longest = max(result.longest, cut.longest)
    result.findings.add(cut.findings)
    place = "not cancelled" if cut.at is None else f"{cut.way.name}, point {cut.at}"
    result.faults += [f"{scenario} on {result.loop}, {place}: {text}" for text in cut.faults]


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
        for other in cut.others:
            cut.cancellations += other.cancellations
            cut.longest = max(cut.longest, other.longest)
            cut.findings.add(other.findings)
            cut.faults += other.faults
        cut.leave(count_leftovers(steps, before))
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


def count_leftovers(steps: Steps, before: Leftovers) -> Leftovers:
    """Count what there is more than before.

    A thread that resolves a name has sockets of its own for a moment, also when nobody waits for it
    any more; only threads run here.
    """
    for _ in range(_THREAD_CHECKS):
        leftovers = steps.count().since(before)
        if not leftovers.sockets:
            break
        time.sleep(_THREAD_DELAY)
    return leftovers


async def settle() -> None:
    """Let all tasks have a few turns."""
    for _ in range(_SETTLING_TURNS):
        await checkpoint()


def flatten(error: BaseException) -> list[BaseException]:
    """Give the errors in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [one for inner in error.exceptions for one in flatten(inner)]
    return [error]
