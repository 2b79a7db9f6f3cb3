"""The cancellation sweep: nothing is lost, torn or left, wherever a call is cancelled.

Owns how much of it runs when: a spread of the points of each scenario each time, all of them where
it is asked for with `-m slow`. The scenarios stand in the modules that it names.
"""

from __future__ import annotations

import pytest

from tests.reliability import closing, receiving, sending, serving, surroundings
from tests.reliability.sweeping import Scenario, sweep

SCENARIOS = [
    scenario
    for module in (receiving, sending, closing, serving, surroundings)
    for scenario in module.SCENARIOS
]

LOOPS = ("asyncio", "uvloop", "trio")

# Points of each scenario and way to cancel that are tried each time.
_POINTS = 3


def name_of(value: Scenario | str) -> str:
    return value if isinstance(value, str) else value.name


# Each scenario on one of the loops, by turns: all of them on all loops are for -m slow.
@pytest.mark.parametrize(
    ("scenario", "loop"),
    [(scenario, LOOPS[number % 3]) for number, scenario in enumerate(SCENARIOS)],
    ids=name_of,
)
def test_nothing_goes_wrong_at_a_spread_of_points(scenario: Scenario, loop: str) -> None:
    result = sweep(scenario, loop, limit=_POINTS)
    assert result.points > 0
    assert result.faults == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=name_of)
def test_nothing_goes_wrong_at_any_point(scenario: Scenario, loop: str) -> None:
    result = sweep(scenario, loop)
    assert result.points > 0
    assert result.faults == []
