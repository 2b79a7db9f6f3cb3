"""How the bytes of a fuzzer become choices, and a stream that comes in pieces.

Owns the format of the files in `corpus/`: choices stand in front, a byte each, and what is to be
parsed is the rest, as it is. So a fuzzer that changes bytes at random changes one thing at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")

WHOLE = 255
"""The pattern that cuts nothing."""


class Choices:
    """Takes choices off the front of some bytes; where none is left, each is the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    def byte(self) -> int:
        """Take a number, 0 to 255."""
        data = self.take(1)
        return data[0] if data else 0

    def pick(self, options: Sequence[T]) -> T:
        """Take one of several."""
        return options[self.byte() % len(options)]

    def flags(self, count: int) -> list[bool]:
        """Take up to eight answers of yes or no."""
        bits = self.byte()
        return [bool(bits >> index & 1) for index in range(count)]

    def take(self, size: int) -> bytes:
        """Take bytes as they are; fewer where fewer are left."""
        start = self._position
        self._position = min(start + size, len(self._data))
        return self._data[start : self._position]

    def rest(self) -> bytes:
        """Take all that is left."""
        return self.take(len(self._data))


def cut(data: bytes, pattern: int) -> Iterator[bytes]:
    """Cut a stream into pieces: of two sizes in turns, 1 to 16 and 1 to 241 bytes.

    Args:
        data: the stream; a long one has larger pieces, for there would be too many.
        pattern: the two sizes, in four bits each: 0 is byte by byte; but 255 leaves it whole.
    """
    if pattern == WHOLE:
        yield data
        return
    scale = 1 + len(data) // 4096
    sizes = (scale * ((pattern & 0x0F) + 1), scale * ((pattern >> 4) * 16 + 1))
    position = turn = 0
    while position < len(data):
        yield data[position : position + sizes[turn]]
        position += sizes[turn]
        turn = 1 - turn
