"""The limits that a user sets, as one number or as two.

Owns what they may be; what they limit is known to who asks.
"""

from __future__ import annotations


def check_int(name: str, value: object) -> None:
    """See that it is an integer, and no bool.

    Raises:
        TypeError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")


def parse_max_size(
    max_size: int | tuple[int | None, int | None] | None,
) -> tuple[int | None, int | None]:
    """Give the limits of a message and of a fragment.

    Raises:
        ValueError: one is negative.
        TypeError: one is no integer.
    """
    message, fragment = parse_pair("max_size", max_size)
    for limit in (message, fragment):
        if limit is not None and limit < 0:
            raise ValueError(f"max_size of {limit} bytes is negative")
    return message, fragment


def parse_pair(
    name: str, limits: int | tuple[int | None, int | None] | None
) -> tuple[int | None, int | None]:
    """Give two limits, or the one that there is and None.

    Raises:
        TypeError: they are no integers, for which the codec has no use.
    """
    pair = limits if isinstance(limits, tuple) and len(limits) == 2 else (limits, None)
    for limit in pair:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            kind = type(limit).__name__
            raise TypeError(f"{name} must be an int, a pair of ints, or None, not {kind}")
    return pair
