"""All scenarios of the cancellation sweep, and those of a reduced one.

Owns the choice; run as `python -m tests.reliability.scenarios` it sweeps all and prints a table,
which takes the best part of an hour of one core. With a number behind it, so many points of each.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from tests.reliability import (
    closing,
    receiving,
    reconnecting,
    sending,
    serving,
    storm,
    surroundings,
    tunnelling,
)
from tests.reliability.cutting import OFTEN, TWICE, WAYS, Findings
from tests.reliability.loops import LOOPS
from tests.reliability.sweeping import SweepResult, sweep

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


ALL = (
    *receiving.SCENARIOS,
    *sending.SCENARIOS,
    *closing.SCENARIOS,
    *serving.SCENARIOS,
    *reconnecting.SCENARIOS,
    *surroundings.SCENARIOS,
    *tunnelling.SCENARIOS,
    *storm.SCENARIOS,
)

# What a change breaks first, and what it runs over.
_REDUCED = {
    "recv, idle": ("client over memory", "server over memory", "client over TCP"),
    "recv, mid-message": ("client over memory", "server over TCP"),
    "recv, queue full": ("server over memory", "client over TCP"),
    "recv as the peer closes": ("server over TCP", "client over TLS over TCP"),
    "recv, then a Ping": ("client over TCP",),
    "recv and fragments, mixed as 1": ("client over memory",),
    "send, small": ("client over memory", "server over TCP"),
    "send, compressed": ("server over memory", "client over TCP"),
    "send, async iterable": ("client over memory", "server over TCP"),
    "send beside another task": ("client over TCP", "server over memory"),
    "ping": ("client over memory", "server over TCP"),
    "close": ("client over memory", "server over TCP", "client over TLS over TCP"),
    "block, opening": (
        "client over TLS over TCP",
        "server over memory",
        "server over TLS over TCP",
    ),
    "block, left by an error": ("client over memory", "server over TCP"),
    "block, cancelled inside": ("client over TCP", "server over memory"),
    "block, left, peer never reads": ("client over memory",),
    "connect, opening": ("client over TCP",),
    "connect, left": ("client over TCP",),
    "connect, through a proxy": ("https", "socks5"),
    "reconnect, whole life": ("client over memory", "client over TCP"),
    "reconnect, next connection": ("client over memory",),
    "reconnect, refused, then whole life": ("client over memory",),
    "serve, whole life": ("server over TCP", "server over TLS over TCP"),
    "serve, left by an error": ("server over memory",),
    "server.close": ("server over memory", "server over TCP"),
    "storm": ("client over memory", "server over TCP"),
}
REDUCED = tuple(one for one in ALL if one.where in _REDUCED.get(one.subject, ()))


def sweep_all(limit: int | None = None) -> Iterator[SweepResult]:
    """Sweep all scenarios in all ways on all loops, a process for each core; in their order."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn) as pool:
        yield from pool.map(
            functools.partial(_sweep_one, limit=limit),
            *zip(*itertools.product(range(len(ALL)), LOOPS), strict=True),
        )


def _sweep_one(number: int, loop: str, *, limit: int | None) -> SweepResult:
    """Sweep a scenario on one loop; its number goes from process to process, it cannot itself."""
    return sweep(ALL[number], loop, ways=(*WAYS, *TWICE, *OFTEN), limit=limit)


def by_subject(results: Iterable[SweepResult]) -> list[SweepResult]:
    """Add up what was found of one subject on one loop, whatever it ran over."""
    sums: dict[tuple[str, str], SweepResult] = {}
    for result in results:
        key = (result.subject, result.loop)
        sums.setdefault(key, SweepResult(result.subject, "", result.loop)).add(result)
    return list(sums.values())


def build_table(results: Iterable[SweepResult]) -> str:
    """Draw them as a table in Markdown, with the numbers of what was found."""
    columns = ["what", "loop", "cancelled", *vars(Findings())]
    lines = [columns, ["---"] * len(columns)]
    for result in results:
        counts = [result.points, *vars(result.findings).values()]
        lines.append([result.subject, result.loop, *map(str, counts)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(limit: int | None) -> None:
    """Print the table, and each fault as it is found."""
    results = []
    for result in sweep_all(limit=limit):
        results.append(result)
        for fault in result.faults:
            sys.stderr.write(f"{fault}\n")
    sys.stdout.write(f"{build_table(by_subject(results))}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
