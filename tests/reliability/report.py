"""Runs all that is tried here: `python -m tests.reliability.report` writes docs/reliability.md.

Owns the order of the runs and the table; what is tried, and what is right, stands in the modules
that it runs. It fails where one of the numbers that must be 0 is not.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import json
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio

import anyws
from anyws.sansio import IMPLEMENTATION
from tests.conftest import backend_options
from tests.reliability.fault_report import run_matrix
from tests.reliability.loops import LOOPS
from tests.reliability.scenarios import ALL, sweep_all
from tests.reliability.sweeping import SweepResult

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"

# What a quick run tries: cancellation points of a scenario and way, and each so many bytes.
_QUICK_POINTS = 7
_QUICK_STEP = 11

_DOCUMENT = """# Reliability

What was tried to make anyws hang, lose, tear or leave something, and what came of it. All numbers
of the third column must be 0. Made by `{command}`
on {date}, with anyws {version}, Python {python} on {system}, the codec in {codec}.

| what was tried | how often | what went wrong | |
| --- | --- | --- | --- |
{rows}

A call is cancelled at each place where it yields to the event loop, and at each step of the loop
while it lasts, or with `--points` at so many of them in each way, spread evenly: from within, from
beside, by a scope, by its task, twice, again and again. A fault is something that happens
to the stream at one byte of a session, in both directions. A hostile case is a peer that breaks a
rule, floods or falls silent; its victim runs in a process of its own, whose memory, logs and
leftovers are looked at. The peers speak literal bytes, parse all that comes strictly, and number
their messages. `SECURITY.md` says what is promised, and `nox -s fuzz` searches for inputs that
break a parser.

Ten minutes of service with clients that leave in every way, which `nox -s soak` draws:

![Memory, tasks and files over ten minutes](soak.svg)

## The hostile cases against other libraries

The same cases, in the same run. Other libraries are free to choose other ends where the RFC leaves
a choice, and a case counts as expected there with any of them; their limits of size and time are
set alike.

{others}
"""


@dataclass
class Row:
    """One line of the table.

    Args:
        what: what was tried.
        tried: how often.
        bad: what went wrong, by kind; all of it must be 0.
        note: what else is worth to be known.
    """

    what: str
    tried: int
    bad: Counter[str] = field(default_factory=Counter)
    note: str = ""

    def render(self) -> str:
        """Give the line."""
        bad = ", ".join(f"{kind} {count}" for kind, count in self.bad.items())
        return f"| {self.what} | {self.tried:,} | {bad} | {self.note} |"


def cancel_all(limit: int | None) -> list[Row]:
    """Cancel every scenario at its points, on every loop."""
    totals = {loop: SweepResult("all", "", loop) for loop in LOOPS}
    for result in sweep_all(limit=limit):
        tell(*result.faults)
        totals[result.loop].add(result)
    return [
        Row(
            f"cancellations, {loop}",
            total.points,
            Counter({name: int(value) for name, value in asdict(total.findings).items()}),
            f"{len(ALL)} scenarios, the longest end after {total.longest:.1f} s of virtual time",
        )
        for loop, total in totals.items()
    ]


def injure_all(step: int) -> list[Row]:
    """Put a fault at each byte of a session, or at every so many, on every loop."""
    rows = []
    for over in ("memory", "tcp"):
        for loop in LOOPS:
            backend, options = backend_options(loop, virtual=over == "memory")
            tally = anyio.run(
                functools.partial(run_matrix, over, step), backend=backend, backend_options=options
            )
            tell(*tally.broken)
            bad = Counter(
                {"hangs": tally.hangs, "lost": tally.lost, "rules broken": len(tally.broken)}
            )
            kinds = ", ".join(sorted(tally.faults))
            note = f"{kinds}; {tally.delivered:,} messages delivered"
            rows.append(Row(f"faults over {over}, {loop}", tally.faults.total(), bad, note))
    return rows


def overload_all(connections: int, stalled: int) -> list[Row]:
    """Hold many connections, each loop in a process of its own."""
    rows = []
    for loop in LOOPS:
        words = ["--loop", loop, "--connections", str(connections), "--stalled", str(stalled)]
        result = json.loads(run("tests.reliability.overload", *words))
        before, after = result["before"], result["after"]
        bad = Counter(
            {
                "unserved": (connections - stalled) * 4 - result["echoes"],
                "tasks left": after["tasks"] - before["tasks"],
                "files left": after["descriptors"] - before["descriptors"],
            }
        )
        idle = (result["crowded"]["memory"] - before["memory"]) / connections / 1024
        note = (
            f"{stalled} do not read and take {result['stalled_size'] / 1024:.0f} KiB each;"
            f" {idle:.1f} KiB for an idle one, its client in the same process included"
        )
        rows.append(Row(f"connections held, {loop}", connections, bad, note))
    return rows


def attack_all() -> list[dict[str, Any]]:
    """Run the hostile table against anyws, and against others."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "hostile.json"
        run("tests.reliability.hostile_report", "--json", str(output), "--loops", *LOOPS)
        return read_tallies(output)


def read_tallies(path: Path) -> list[dict[str, Any]]:
    """Read what hostile_report has written."""
    tallies: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return tallies


def compare(tallies: list[dict[str, Any]]) -> tuple[list[Row], list[str]]:
    """Give the rows of anyws, and a table of all libraries."""
    ours = [tally for tally in tallies if tally["library"] == "anyws"]
    tell(*(text for tally in ours for text in tally["failures"]))
    kinds = ("wrong", "hangs", "over the memory limit", "with complaints")
    rows = [
        Row(
            f"hostile cases against a {tally['role']}, {tally['loop']}",
            tally["cases"],
            Counter({kind: tally[kind] for kind in kinds}),
            f"memory grew by {tally['worst memory in MiB']} MiB at the most",
        )
        for tally in ours
    ]
    columns = [
        "library",
        "loop",
        "role",
        "cases",
        "expected",
        "wrong",
        "hangs",
        "over-4-MiB",
        "complaints",
        "growth",
    ]
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    lines += [
        f"| {tally['library']} {'' if tally['library'] == 'anyws' else tally['version']}"
        f" | {tally['loop']} | {tally['role']} | {tally['cases']} | {tally['passed']}"
        f" | {tally['wrong']} | {tally['hangs']} | {tally['over the memory limit']}"
        f" | {tally['with complaints']} | {tally['worst memory in MiB']} MiB |"
        for tally in tallies
    ]
    return rows, lines


def run(module: str, *words: str) -> str:
    """Run a module as a command, and give what it prints; its status is told by what it wrote."""
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout


def tell(*lines: str) -> None:
    """Say what went wrong; the document has the numbers alone."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def render(command: str, rows: list[Row], others: list[str]) -> str:
    """Give the document."""
    return _DOCUMENT.format(
        command=command,
        date=f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        version=anyws.__version__,
        python=platform.python_version(),
        system=platform.system(),
        codec=IMPLEMENTATION.capitalize(),
        rows="\n".join(row.render() for row in rows),
        others="\n".join(others),
    )


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.report", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer points and connections")
    parser.add_argument(
        "--points", type=int, help="cancel each scenario in each way at so many points, not at all"
    )
    parser.add_argument(
        "--hostile", type=Path, help="what hostile_report --json wrote; without, it is run"
    )
    parser.add_argument("--output", type=Path, default=DOCUMENT)
    arguments = parser.parse_args()
    rows = cancel_all(arguments.points or (_QUICK_POINTS if arguments.quick else None))
    rows += injure_all(_QUICK_STEP if arguments.quick else 1)
    attacks, others = compare(
        attack_all() if arguments.hostile is None else read_tallies(arguments.hostile)
    )
    rows += attacks
    rows += overload_all(*((500, 50) if arguments.quick else (5000, 500)))
    command = "python -m tests.reliability.report" + (" --quick" if arguments.quick else "")
    if arguments.points is not None:
        command += f" --points {arguments.points}"
    arguments.output.write_text(render(command, rows, others), encoding="utf-8")
    return int(any(count for row in rows for count in row.bad.values()))


if __name__ == "__main__":
    sys.exit(main())
