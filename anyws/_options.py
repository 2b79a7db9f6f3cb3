"""The options of a connection's life, and what they stand for.

Owns the values that `connect` and `serve` have in common; does nothing with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ._checks import check_seconds
from .sansio._limits import parse_max_size, parse_pair

Limits = int | tuple[int | None, int | None] | None
"""A high-water mark, or (high, low); None is no limit."""

Marks = tuple[int | None, int | None]
"""A high-water mark and a low one; None is no limit."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What `connect` and `serve` let a user choose for the life of a connection."""

    ping_interval: float | None = 20.0
    ping_timeout: float | None = 20.0
    close_timeout: float | None = 10.0
    max_size: int | tuple[int | None, int | None] | None = 2**20
    max_queue: Limits = 2**5
    read_limit: Limits = 2**16
    write_limit: Limits = 2**16
    queue_marks: Marks = field(init=False)
    """The high and the low mark of `max_queue`, in messages."""
    read_marks: Marks = field(init=False)
    """Likewise of `read_limit`, in bytes."""
    write_marks: Marks = field(init=False)
    """Likewise of `write_limit`, in bytes."""

    def __post_init__(self) -> None:
        check_seconds("ping_interval", self.ping_interval)
        check_seconds("ping_timeout", self.ping_timeout)
        check_seconds("close_timeout", self.close_timeout)
        parse_max_size(self.max_size)
        # The way to set what is frozen; once for all connections of a server.
        object.__setattr__(self, "queue_marks", parse_marks("max_queue", self.max_queue, 4))
        object.__setattr__(self, "read_marks", parse_marks("read_limit", self.read_limit, 2))
        object.__setattr__(self, "write_marks", parse_marks("write_limit", self.write_limit, 4))


def parse_marks(name: str, limits: Limits, low_divisor: int) -> Marks:
    """Give the high-water and the low-water mark.

    Raises:
        ValueError: they are not 0 <= low <= high, or high is under 1.
        TypeError: they are no integers.
    """
    high, low = parse_pair(name, limits)
    if high is None:
        return None, None
    if low is None:
        low = high // low_divisor
    if high < 1:
        raise ValueError(f"{name} of {high} is under 1")
    if not 0 <= low <= high:
        raise ValueError(f"low mark {low} of {name} is not between 0 and the high mark {high}")
    return high, low
