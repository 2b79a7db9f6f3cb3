"""Whatever is cancelled, and wherever: nothing is lost, torn or left behind.

Owns how much of the sweep is run: a few points of each scenario, and with `-m slow` all.
"""

from __future__ import annotations

import pytest

from tests.reliability.cutting import OFTEN, TWICE, WAYS
from tests.reliability.loops import LOOPS
from tests.reliability.scenarios import ALL, REDUCED
from tests.reliability.sweeping import Scenario, SweepResult, sweep

# Points of each way in a reduced sweep, spread evenly.
_FEW = 7

on_all_loops = pytest.mark.parametrize("loop", LOOPS)


def _check(result: SweepResult) -> None:
    assert result.points > 0
    assert not result.faults, "\n".join(result.faults)
    assert not result.findings.any


@pytest.mark.behaviour(26, 37, 52, 75, 83, 88, 89, 90, 101)
@on_all_loops
@pytest.mark.parametrize("scenario", [one for one in REDUCED if not one.storm], ids=str)
def test_cancelling_at_some_points_breaks_nothing(scenario: Scenario, loop: str) -> None:
    _check(sweep(scenario, loop, limit=_FEW))


@on_all_loops
@pytest.mark.parametrize("scenario", [one for one in REDUCED if one.storm], ids=str)
def test_cancelling_many_tasks_again_and_again_breaks_nothing(
    scenario: Scenario, loop: str
) -> None:
    _check(sweep(scenario, loop, ways=OFTEN, limit=1))


@pytest.mark.slow
@pytest.mark.timeout(900)
@on_all_loops
@pytest.mark.parametrize("scenario", [one for one in ALL if not one.storm], ids=str)
def test_cancelling_at_every_point_breaks_nothing(scenario: Scenario, loop: str) -> None:
    _check(sweep(scenario, loop, ways=WAYS))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("loop", [loop for loop in LOOPS if loop != "trio"])
@pytest.mark.parametrize("scenario", [one for one in ALL if not one.storm], ids=str)
def test_cancelling_a_task_twice_breaks_nothing(scenario: Scenario, loop: str) -> None:
    _check(sweep(scenario, loop, ways=TWICE, limit=15))


@pytest.mark.slow
@pytest.mark.timeout(900)
@on_all_loops
@pytest.mark.parametrize("scenario", [one for one in ALL if one.repeats], ids=str)
def test_cancelling_again_and_again_breaks_nothing(scenario: Scenario, loop: str) -> None:
    _check(sweep(scenario, loop, ways=OFTEN))
