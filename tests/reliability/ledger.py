"""What one end of a connection has sent, and what of it the other end may receive next.

Owns the model of the order and of what may be lost; knows no connection. Several tasks send, each
in its own order. A message whose sending was cancelled may have left or not; one whose block was
left before any of it was taken may be skipped or not. So there are several places where the
receiver may be, and each message must come from one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Place = tuple[int, ...]
"""How many messages of each task are behind."""


def as_bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


@dataclass
class Entry:
    """A message that was sent."""

    data: str | bytes
    optional: bool = False
    """Whether it may not have left."""

    def matches(self, data: str | bytes, *, typed: bool) -> bool:
        """Say whether it may have come as `data`, and as its own type if `typed`."""
        if typed:
            return type(data) is type(self.data) and data == self.data
        return as_bytes(data) == as_bytes(self.data)


@dataclass
class Ledger:
    """One direction of a connection.

    Args:
        tasks: how many send.
    """

    tasks: int
    sent: list[list[Entry]] = field(init=False)
    places: set[Place] = field(init=False)
    received: int = 0

    def __post_init__(self) -> None:
        self.sent = [[] for _ in range(self.tasks)]
        self.places = {(0,) * self.tasks}

    def send(self, task: int, data: str | bytes, *, optional: bool = False) -> Entry:
        """Note a message that a task is about to send."""
        entry = Entry(data, optional)
        self.sent[task].append(entry)
        return entry

    def receive(self, data: str | bytes, *, typed: bool = True) -> None:
        """See that this message is one that may come now."""
        self._go_on(
            {behind for behind, entry in self._next() if entry.matches(data, typed=typed)}, data
        )

    def skip(self, taken: str | bytes | None) -> None:
        """See that a message may begin so, and be skipped; None: nothing of it was taken."""
        if taken is None:
            self.places |= {behind for behind, _ in self._next()}
            return
        begun = as_bytes(taken)
        self._go_on(
            {behind for behind, entry in self._next() if as_bytes(entry.data).startswith(begun)},
            taken,
        )

    def _go_on(self, places: set[Place], data: str | bytes) -> None:
        assert places, f"{data[:40]!r} of {len(data)} may not come at {sorted(self.places)}"
        self.places = places
        self.received += 1

    @property
    def complete(self) -> bool:
        """Whether nothing is left that must come."""
        return any(
            all(
                entry.optional
                for entries, at in zip(self.sent, place, strict=True)
                for entry in entries[at:]
            )
            for place in self.places
        )

    def __str__(self) -> str:
        sent = [
            [(as_bytes(entry.data)[:9], entry.optional) for entry in entries]
            for entries in self.sent
        ]
        return f"{self.received} received of {sent}, now at {sorted(self.places)}"

    def _next(self) -> Iterator[tuple[Place, Entry]]:
        """Give what may come next, each with the place behind it."""
        for place in self.places:
            for task, entries in enumerate(self.sent):
                for at in range(place[task], len(entries)):
                    yield (*place[:task], at + 1, *place[task + 1 :]), entries[at]
                    if not entries[at].optional:
                        break
