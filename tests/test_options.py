"""The options of a connection: the marks that they stand for, and values that make no sense."""

from __future__ import annotations

from typing import Any

import pytest

from anyws._options import ConnectionOptions, Limits, parse_marks


@pytest.mark.parametrize(
    ("limits", "marks"),
    [
        pytest.param(100, (100, 25), id="high"),
        pytest.param(1, (1, 0), id="least"),
        pytest.param(7, (7, 1), id="rounded-down"),
        pytest.param((100, 40), (100, 40), id="both"),
        pytest.param((100, 100), (100, 100), id="equal"),
        pytest.param((100, 0), (100, 0), id="low-is-zero"),
        pytest.param((100, None), (100, 25), id="high-alone"),
        pytest.param(None, (None, None), id="none"),
        pytest.param((None, None), (None, None), id="none-twice"),
        pytest.param((None, 40), (None, None), id="low-alone"),
    ],
)
def test_limits_give_the_high_and_the_low_mark(
    limits: Limits, marks: tuple[int | None, int | None]
) -> None:
    assert parse_marks("max_queue", limits, 4) == marks


@pytest.mark.parametrize("limits", [0, -1, (0, 0)])
def test_limits_are_refused_when_the_high_mark_is_under_1(limits: Limits) -> None:
    with pytest.raises(ValueError, match=r"^max_queue of (0|-1) is under 1$"):
        parse_marks("max_queue", limits, 4)


@pytest.mark.parametrize("low", [-1, 11])
def test_limits_are_refused_when_the_low_mark_is_outside(low: int) -> None:
    with pytest.raises(
        ValueError, match=f"^low mark {low} of read_limit is not between 0 and the high mark 10$"
    ):
        parse_marks("read_limit", (10, low), 2)


def test_low_marks_are_a_quarter_of_the_high_ones_and_half_of_the_read_limit() -> None:
    options = ConnectionOptions(max_queue=100, read_limit=100, write_limit=100)
    assert options.queue_marks() == (100, 25)
    assert options.read_marks() == (100, 50)
    assert options.write_marks() == (100, 25)


@pytest.mark.parametrize("name", ["ping_interval", "ping_timeout", "close_timeout"])
@pytest.mark.parametrize("seconds", [0, -1.5, float("nan")])
def test_time_that_is_not_above_0_is_refused(name: str, seconds: float) -> None:
    arguments: dict[str, Any] = {name: seconds}
    with pytest.raises(ValueError, match=f"^{name} of {seconds} seconds is not above 0$"):
        ConnectionOptions(**arguments)


def test_none_is_no_limit() -> None:
    options = ConnectionOptions(None, None, None, None, None, None, None)
    assert options.queue_marks() == options.read_marks() == options.write_marks() == (None, None)


def test_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^max_size of -1 bytes is negative$"):
        ConnectionOptions(max_size=(None, -1))
