"""The report: Markdown for people, JSON for programs.

Owns the words and the tables; the arithmetic stands in `summary`, the picture in `chart`.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .scenarios import GROUPS
from .summary import NOISE, count_disturbed, find_losses
from .variants import BASELINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .measure import Measurement
    from .scenarios import Scenario
    from .summary import Cell, Summary
    from .variants import Variant

PACKAGES = (
    "anyws",
    "anyio",
    "h11",
    "trio",
    "uvloop",
    "websockets",
    "picows",
    "aiofastnet",
    "aiohttp",
    "trio-websocket",
    "wsproto",
)


@dataclass(frozen=True)
class Circumstances:
    """Where and how the figures came about.

    Args:
        date: of the run, in UTC.
        machine: CPU, cores, kernel and Python.
        versions: of the packages.
        command: the command line.
        rounds: how many there were.
        seconds: between the marks of a measurement.
        language: what the load generator is written in.
        cores: of the endpoint and of the load generator.
        sleep: whether the load generator sleeps while it waits.
        pause: microseconds that it takes to answer, where one message is under way at a time.
        load: the system's load when it began, of 1 minute.
        quick: whether it only shows that everything works.
    """

    date: str
    machine: str
    versions: dict[str, str]
    command: str
    rounds: int
    seconds: float
    language: str
    cores: tuple[int, int]
    sleep: bool
    pause: float
    load: float
    quick: bool


def observe(
    command: str,
    *,
    rounds: int,
    seconds: float,
    language: str,
    cores: tuple[int, int],
    sleep: bool,
    pause: float,
    quick: bool,
) -> Circumstances:
    """Note the circumstances of a run that begins now."""
    machine = (
        f"{cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.release()},"
        f" {platform.python_implementation()} {platform.python_version()}"
    )
    return Circumstances(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine,
        versions=installed_versions(),
        command=command,
        rounds=rounds,
        seconds=seconds,
        language=language,
        cores=cores,
        sleep=sleep,
        pause=pause,
        load=os.getloadavg()[0],
        quick=quick,
    )


def cpu_model() -> str:
    """Give the name of the CPU."""
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def installed_versions() -> dict[str, str]:
    """Give the versions of what is measured, and of what it stands on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def render_json(circumstances: Circumstances, measurements: Sequence[Measurement]) -> Any:
    """Give the raw numbers, as values for `json.dump`."""
    return {
        "circumstances": asdict(circumstances),
        "measurements": [asdict(measurement) for measurement in measurements],
    }


def render_markdown(
    circumstances: Circumstances,
    summary: Summary,
    measurements: Sequence[Measurement],
    scenarios: Sequence[Scenario],
    variants: Sequence[Variant],
) -> str:
    """Give the report."""
    lines = ["# What a WebSocket costs", "", *_describe(circumstances)]
    lines += _warn(circumstances, measurements, variants)
    chosen = {scenario.key: scenario for scenario in scenarios}
    for title, keys in GROUPS.items():
        columns = [chosen[key] for key in keys if key in chosen]
        if columns:
            lines += ["", f"## {title}", "", *_render_table(columns, summary, variants)]
    lines += _render_losses(summary, variants)
    lines += _render_problems(summary)
    return "\n".join(lines) + "\n"


def _describe(circumstances: Circumstances) -> list[str]:
    endpoint, load = circumstances.cores
    versions = ", ".join(f"{name} {number}" for name, number in circumstances.versions.items())
    meaning = (
        "CPU time of a server or client for one operation, with the kernel's part, in microseconds;"
        " or memory for one connection, in KiB. Each figure is the median of"
        f" {circumstances.rounds} round{'s' * (circumstances.rounds > 1)}. Then comes how many"
        f" times cheaper that is than `{BASELINE}` in the same round: the median, and from the"
        " least to the greatest. **Above 1 is cheaper.** The rows `raw-*` speak no WebSocket, and"
        " `bare-*` keeps none of the promises of a connection: they are what it can cost at least."
    )
    course = (
        f"- Each measurement: {circumstances.seconds:g} seconds after a warm-up, of a new process"
        f" on core {endpoint}; the load generator in {circumstances.language} on core {load}, which"
        f" {'sleeps' if circumstances.sleep else 'does not sleep'} while it waits, and takes"
        f" {circumstances.pause:g} µs to answer where one message is under way at a time; all"
        " libraries in turn within each round. Over TLS, the generator is always the one in Python."
    )
    return [
        meaning,
        "",
        f"- Date: {circumstances.date}",
        f"- Machine: {circumstances.machine}",
        f"- Versions: {versions}",
        f"- Command: `{circumstances.command}`",
        course,
    ]


def _warn(
    circumstances: Circumstances,
    measurements: Sequence[Measurement],
    variants: Sequence[Variant],
) -> list[str]:
    warnings = []
    if circumstances.quick:
        warnings.append("A quick run: it shows that everything works; its figures mean nothing.")
    if circumstances.language == "Python":
        warnings.append(
            "There was no C compiler: the load generator is the one in Python, which is slower than"
            " some servers, so servers sleep and wake more often than they would."
        )
    if circumstances.cores[0] == circumstances.cores[1]:
        warnings.append("There is one core: endpoint and load generator share it.")
    if disturbed := count_disturbed(measurements):
        warnings.append(
            f"In {disturbed} of {len(measurements)} measurements other processes used more than"
            f" {NOISE:.0%} of the endpoint's core. The load was {circumstances.load:.1f} at first."
        )
    warnings += _codec_warnings(measurements, variants)
    return [line for warning in warnings for line in ("", f"> {warning}")]


def _codec_warnings(measurements: Iterable[Measurement], variants: Sequence[Variant]) -> list[str]:
    wanted = {variant.name: variant.codec for variant in variants if variant.codec is not None}
    found = {m.variant: m.details["codec"] for m in measurements if "codec" in m.details}
    return [
        f"`{name}` ran with the codec {codec!r}: there was no other."
        for name, codec in found.items()
        if codec != wanted.get(name, codec)
    ]


def _render_table(
    columns: Sequence[Scenario], summary: Summary, variants: Sequence[Variant]
) -> list[str]:
    lines = [f"- {scenario.key}: {scenario.description} ({scenario.unit})" for scenario in columns]
    lines += ["", "| | " + " | ".join(scenario.key for scenario in columns) + " |"]
    lines.append("| --- |" + " ---: |" * len(columns))
    for variant in variants:
        cells = [
            _render_cell(variant.obstacle(scenario), summary.get((scenario.key, variant.name)))
            for scenario in columns
        ]
        name = f"**{variant.name}**" if variant.ours else variant.name
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _render_cell(obstacle: str | None, cell: Cell | None) -> str:
    if obstacle is not None:
        return obstacle
    if cell is None:
        return "not run"
    if cell.cost is None:
        return "FAILED"
    text = format_cost(cell.cost)
    if cell.ratio is not None:
        text += f" [{cell.ratio:.2f}; {cell.low:.2f} to {cell.high:.2f}]"
    if cell.failures:
        text += f" ({cell.failures} FAILED)"
    return text


def format_cost(cost: float) -> str:
    """Give a cost with three digits that count, and no more."""
    if cost >= 100:
        return f"{cost:.0f}"
    if cost >= 10:
        return f"{cost:.1f}"
    return f"{cost:.2f}"


def _render_losses(summary: Summary, variants: Sequence[Variant]) -> list[str]:
    losses = find_losses(summary, variants)
    lines = ["", "## Where a peer is cheaper", ""]
    if not losses:
        return [*lines, "Nowhere in this run, comparing ours and the peers on the same event loop."]
    lines += [
        "The cheapest of ours and the cheapest peer on the same event loop.",
        "",
        "| scenario | loop | ours | peer | ours costs |",
        "| --- | --- | --- | --- | ---: |",
    ]
    for loss in losses:
        words = (loss.scenario, loss.loop, loss.ours, loss.peer, f"{loss.factor:.2f} times as much")
        lines.append(f"| {' | '.join(words)} |")
    return lines


def _render_problems(summary: Summary) -> list[str]:
    lines = [
        f"- {scenario}, {variant}, {cell.failures} round{'s' * (cell.failures > 1)}: {cell.problem}"
        for (scenario, variant), cell in summary.items()
        if cell.problem is not None
    ]
    return ["", "## What failed", "", *lines] if lines else []
