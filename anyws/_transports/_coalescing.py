"""What of many small writes leaves together.

Owns the size; when they leave is the business of each transport.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections import deque

_Chunk = TypeVar("_Chunk", bound="bytes | memoryview")

COALESCE_SIZE = 65536
"""What one call gets of many small writes at the most: more costs as much for each byte."""

GATHERED_COUNT = 64
"""How many short writes may be gathered before they are counted: as many messages as a connection
sends without letting others run."""

GATHERED_SIZE = GATHERED_COUNT * 127
"""Their bytes at the most: 127 are a frame with 125 bytes of payload."""


def pop_coalesced(chunks: deque[_Chunk]) -> _Chunk | bytes:
    """Take the oldest chunk out, and those behind it that leave with it.

    Args:
        chunks: at least one.
    """
    data = chunks.popleft()
    if not chunks or len(data) >= COALESCE_SIZE:
        return data
    parts: list[bytes | memoryview] = [data]
    size = len(data)
    while chunks and size + len(chunks[0]) <= COALESCE_SIZE:
        size += len(chunks[0])
        parts.append(chunks.popleft())
    return b"".join(parts)
