"""What happens to the process of a victim: memory, complaints and leftovers, seen from inside.

Owns how each is measured; knows no peer and no library.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from tests.reliability.hostile_victims import Endings

# Seconds in which a victim must have ended what a peer has left behind, and in which it must tell.
LIMIT = 5.0

# Seconds between two looks at how late the event loop is.
_TICK = 0.005


@dataclass
class Account:
    """What a victim tells of the time since it was asked last."""

    memory: int
    """Bytes that its process grew by at the most."""
    lag: float
    """Seconds that its event loop was kept from other tasks at the most."""
    endings: list[str]
    """How the applications of a server have ended."""
    complaints: list[str]
    """What was logged at WARNING or above, and what was written to stderr."""
    errors: dict[int, str]
    """What the applications of clients got, by the key of each."""
    leftovers: str
    """Applications, tasks and sockets that have not ended; empty if all have."""


class Witness(logging.Handler):
    """Sees what happens to the process that it is in.

    Args:
        endings: of the applications that run in it.
    """

    def __init__(self, endings: Endings) -> None:
        super().__init__(logging.WARNING)
        self.errors: dict[int, str] = {}
        self._endings = endings
        self._lag = 0.0
        self._complaints: list[str] = []
        logging.getLogger().addHandler(self)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        os.dup2(self._stderr.fileno(), sys.stderr.fileno())
        try:
            self._trim: Any = ctypes.CDLL(None).malloc_trim
        except AttributeError:  # another libc
            self._trim = lambda _: None

    def emit(self, record: logging.LogRecord) -> None:
        self._complaints.append(f"{record.name}: {self.format(record)}")

    async def measure_lag(self) -> None:
        """See all the time how late a short sleep ends."""
        while True:
            due = time.monotonic() + _TICK
            await anyio.sleep(_TICK)
            self._lag = max(self._lag, time.monotonic() - due)

    async def begin(self) -> None:
        """Begin a new account."""
        self._endings.seen.clear()
        self._complaints.clear()
        self.errors.clear()
        gc.collect()
        self._trim(0)
        self._tasks = _count_tasks()
        self._sockets = _count_sockets()
        await anyio.sleep(_TICK)  # what collecting took is over
        self._lag = 0.0
        _clear_peak()
        self._size = _status("VmRSS")

    async def end(self) -> Account:
        """Wait until all is over, and give the account."""
        deadline = time.monotonic() + LIMIT
        while (left := self._leftovers()) and time.monotonic() < deadline:  # noqa: ASYNC110
            await anyio.sleep(0.001)  # nothing tells when a descriptor is closed
        memory, lag = _status("VmHWM") - self._size, self._lag
        gc.collect()  # what was never awaited, closed or retrieved complains now
        self._stderr.seek(0)
        written = self._stderr.read().decode(errors="replace")
        self._stderr.seek(0)
        self._stderr.truncate()
        complaints = [*self._complaints, *([f"stderr: {written}"] if written else [])]
        return Account(memory, lag, list(self._endings.seen), complaints, dict(self.errors), left)

    def _leftovers(self) -> str:
        counts = {
            "applications": self._endings.running,
            "tasks": _count_tasks() - self._tasks,
            "sockets": _count_sockets() - self._sockets,
        }
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count > 0)


def _clear_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    match = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def _count_tasks() -> int:
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        living: int = trio.lowlevel.current_statistics().tasks_living
        return living
    return len(asyncio.all_tasks())


def _count_sockets() -> int:
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        # The one by which the folder is read is gone by now.
        with contextlib.suppress(FileNotFoundError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count
