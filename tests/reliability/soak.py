"""A long run: `python -m tests.reliability.soak --minutes 10 --output docs/soak.svg`.

Owns the course of it: clients that come, talk and leave in every way, minute after minute, while
memory, tasks and descriptors are counted; and the chart. It fails where one of them grows.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

import anyws
from tests.reliability.crowd import Crowd
from tests.reliability.resources import Resources, count_resources
from tests.sockets import echo

if TYPE_CHECKING:
    from collections.abc import Sequence

# Clients at a time; some of them do not read.
READERS = 100
STALLED = 5
ROUNDS = 20

# Seconds between two counts.
INTERVAL = 1.0

# Those who left without ceremony, or never read, have a second each to end.
_SETTLING_INTERVAL = 0.05
_SETTLING_TURNS = 80

# Bytes that the median of the last third of a run may lie above that of the second: a leak of 100
# bytes for each connection would be more than that after two minutes.
TOLERANCE = 2 * 2**20


_END = 'text-anchor="end"'


@dataclass(frozen=True)
class Sample:
    """What was in use at one time, between two generations of clients."""

    seconds: float
    connections: int
    messages: int
    resources: Resources


class GrowthError(Exception):
    """Something grows from generation to generation."""


async def soak(minutes: float) -> list[Sample]:
    """Serve generation after generation of clients.

    Returns:
        A sample each second, taken when all clients of a generation have left.
    """
    samples: list[Sample] = []
    connections = messages = 0
    async with anyws.serve(echo, "127.0.0.1", close_timeout=1) as server:
        await anyio.sleep(_SETTLING_INTERVAL)  # until it accepts
        idle = count_resources().tasks
        start = anyio.current_time()
        while not samples or anyio.current_time() < start + 60 * minutes:
            crowd = Crowd(server.port)
            await to_thread.run_sync(crowd.open, READERS, STALLED)
            await to_thread.run_sync(crowd.stall)
            await to_thread.run_sync(crowd.echo, ROUNDS)
            async with anyws.connect(f"ws://127.0.0.1:{server.port}/") as ws:
                for size in (0, 1000, 100_000, 1_000_000):
                    await ws.send("x" * size)
                    assert len(await ws.recv()) == size
                await ws.ping()
            await to_thread.run_sync(crowd.leave)
            connections += READERS + STALLED + 1
            messages += crowd.echoes + 4
            elapsed = anyio.current_time() - start
            if not samples or elapsed >= samples[-1].seconds + INTERVAL:
                resources = await _settle(idle)
                samples.append(Sample(elapsed, connections, messages, resources))
    return samples


async def _settle(idle: int) -> Resources:
    """Count what is in use when the tasks of those who have left are over, or should be."""
    for _ in range(_SETTLING_TURNS):
        resources = count_resources()
        if resources.tasks <= idle:
            break
        await anyio.sleep(_SETTLING_INTERVAL)  # nothing else tells when a server is idle
    return resources


def check(samples: Sequence[Sample]) -> None:
    """See that nothing grows.

    Raises:
        GrowthError: something does.
    """
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]

    def median(part: Sequence[Sample], name: str) -> float:
        return float(statistics.median(getattr(sample.resources, name) for sample in part))

    for name, tolerance in (("memory", TOLERANCE), ("tasks", 0), ("descriptors", 0)):
        growth = median(last, name) - median(middle, name)
        if growth > tolerance:
            raise GrowthError(f"{name} grew by {growth:.0f}, over the tolerance of {tolerance}")


def render_svg(samples: Sequence[Sample], title: str) -> str:
    """Draw memory, tasks and descriptors over time, each on a scale of its own from 0."""
    width, height, left, top, panel = 760, 470, 70, 50, 110
    end = max(samples[-1].seconds, 1.0)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="24" font-weight="bold">{title}</text>',
    ]
    panels = (("memory", "memory, MiB", 2**20), ("tasks", "tasks", 1), ("descriptors", "files", 1))
    for number, (name, label, unit) in enumerate(panels):
        values = [getattr(sample.resources, name) / unit for sample in samples]
        most = max(*values, 1) * 1.15
        base = top + (panel + 25) * number + panel
        points = " ".join(
            f"{left + (width - left - 20) * sample.seconds / end:.1f},"
            f"{base - panel * value / most:.1f}"
            for sample, value in zip(samples, values, strict=True)
        )
        lines += [
            f'<line x1="{left}" y1="{base}" x2="{width - 20}" y2="{base}" stroke="#999"/>',
            f'<text x="8" y="{base - panel + 12}">{label}</text>',
            f'<text x="{left - 8}" y="{base}" {_END}>0</text>',
            f'<text x="{width - 20}" y="{base - panel * values[-1] / most - 6:.1f}" {_END}>',
            f"{values[-1]:.0f}</text>",
            f'<polyline points="{points}" fill="none" stroke="#1f77b4" stroke-width="1.5"/>',
        ]
    lines += [
        f'<text x="{left}" y="{height - 8}">0</text>',
        f'<text x="{width - 20}" y="{height - 8}" {_END}>{end / 60:.1f} minutes</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--output", type=Path, help="where to write the chart, as SVG")
    arguments = parser.parse_args()
    samples = anyio.run(
        functools.partial(soak, arguments.minutes),
        backend="trio" if arguments.loop == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if arguments.loop == "uvloop" else {},
    )
    last = samples[-1]
    title = (
        f"{arguments.loop}: {last.connections:,} connections,"
        f" {last.messages:,} messages in {last.seconds / 60:.1f} minutes"
    )
    print(title)
    print(f"first sample: {samples[0].resources}\nlast sample:  {last.resources}")
    if arguments.output is not None:
        arguments.output.write_text(render_svg(samples, title), encoding="utf-8")
    try:
        check(samples)
    except GrowthError as exc:
        print(f"failed: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
