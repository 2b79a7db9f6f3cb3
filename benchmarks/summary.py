"""What many measurements say together: medians, ratios and their spread.

Owns the arithmetic; knows no process and no form of output.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from .variants import BASELINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .measure import Measurement
    from .variants import Variant

NOISE = 0.1
"""The share of a core used by others from which on a figure is called disturbed."""


@dataclass(frozen=True)
class Cell:
    """A variant in a scenario, over all rounds.

    Args:
        cost: the median of the costs; None where every round failed.
        ratio: the median of the baseline's cost over its own in the same round; above 1 is cheaper.
        low: the least of these ratios.
        high: the greatest.
        failures: how many rounds failed.
        problem: what went wrong in the first that did.
    """

    cost: float | None
    ratio: float | None
    low: float | None
    high: float | None
    failures: int
    problem: str | None


Summary = dict[tuple[str, str], Cell]
"""The cells by the key of the scenario and the name of the variant."""


def summarize(measurements: Iterable[Measurement]) -> Summary:
    """Bring the measurements of all rounds together."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault((measurement.scenario, measurement.variant), []).append(measurement)
    return {
        key: _summarize_one(group, groups.get((key[0], BASELINE), ()))
        for key, group in groups.items()
    }


def _summarize_one(group: Sequence[Measurement], baseline: Sequence[Measurement]) -> Cell:
    costs = {m.round: m.cost for m in group if m.cost is not None}
    base = {m.round: m.cost for m in baseline if m.cost is not None}
    # Memory that did not grow at all has no ratio.
    ratios = [base[n] / cost for n, cost in costs.items() if n in base and cost > 0]
    problems = [m.problem for m in group if m.problem is not None]
    return Cell(
        cost=median(costs.values()) if costs else None,
        ratio=median(ratios) if ratios else None,
        low=min(ratios, default=None),
        high=max(ratios, default=None),
        failures=len(problems),
        problem=problems[0] if problems else None,
    )


def count_disturbed(measurements: Iterable[Measurement]) -> int:
    """Count the measurements during which others used the endpoint's core."""
    return sum(m.foreign > NOISE for m in measurements)


@dataclass(frozen=True)
class Loss:
    """A scenario in which a peer is cheaper than the best of ours on the same loop.

    Args:
        scenario: its key.
        loop: the event loop.
        ours: the name of our cheapest variant.
        peer: the name of the cheapest peer.
        factor: how many times as much ours costs.
    """

    scenario: str
    loop: str
    ours: str
    peer: str
    factor: float


def find_losses(summary: Mapping[tuple[str, str], Cell], variants: Sequence[Variant]) -> list[Loss]:
    """Find where a peer is cheaper than ours; what is no library is no peer."""
    losses = []
    for scenario in dict.fromkeys(key for key, _ in summary):
        costs: dict[tuple[str, bool], list[tuple[float, str]]] = {}
        for variant in variants:
            cell = summary.get((scenario, variant.name))
            if cell is not None and cell.cost is not None and not variant.bound:
                costs.setdefault((variant.loop, variant.ours), []).append((cell.cost, variant.name))
        for loop in dict.fromkeys(variant.loop for variant in variants):
            if (loop, True) not in costs or (loop, False) not in costs:
                continue
            (cost, ours), (least, peer) = min(costs[loop, True]), min(costs[loop, False])
            if least < cost:
                losses.append(Loss(scenario, loop, ours, peer, cost / least))
    return losses
