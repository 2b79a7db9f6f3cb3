"""What a process has in use: tasks of its event loop, descriptors, and memory.

Owns how each is counted.
"""

from __future__ import annotations

import asyncio
import gc
import os
from dataclasses import dataclass
from pathlib import Path

import sniffio
import trio

_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Resources:
    """What is in use at one time.

    Args:
        tasks: of the event loop that runs.
        descriptors: files and sockets that are open.
        memory: bytes of the resident set.
    """

    tasks: int
    descriptors: int
    memory: int


def count_resources() -> Resources:
    """Count what is in use now, after what is garbage has gone; on an event loop only."""
    gc.collect()
    if sniffio.current_async_library() == "trio":
        tasks = trio.lowlevel.current_statistics().tasks_living
    else:
        tasks = len(asyncio.all_tasks())
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return Resources(tasks, len(os.listdir("/proc/self/fd")), resident * _PAGE_SIZE)  # noqa: PTH208  # it is no path
