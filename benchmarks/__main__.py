"""The command: `python -m benchmarks` measures all libraries in turn and writes the report.

Owns the command line and the order of things.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .chart import render_svg
from .generator import Generator
from .measure import Measurement, Setup, measure
from .report import observe, render_json, render_markdown
from .scenarios import SCENARIOS, Scenario
from .summary import summarize
from .variants import VARIANTS, Variant, select_variants

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS = 5
SECONDS = 0.6
WARMUP = 0.3
# Microseconds: a round trip within a data centre.
PAUSE = 100.0
# Enough to see that everything works.
QUICK_SECONDS = 0.05


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--scenarios", default="", help="keys with commas between, such as S1,S3; all by default"
    )
    parser.add_argument(
        "--variants",
        default="*",
        help='names or patterns with commas between, such as "anyws-*,picows-asyncio"',
    )
    parser.add_argument(
        "--rounds", type=int, help=f"how often everything is measured; {ROUNDS} by default"
    )
    parser.add_argument("--seconds", type=float, help=f"of each measurement; {SECONDS} by default")
    parser.add_argument(
        "--quick", action="store_true", help="one round of tiny measurements: does everything work?"
    )
    parser.add_argument(
        "--pause",
        type=float,
        default=PAUSE,
        help="microseconds that the load generator takes to answer, where one message is under way"
        f" at a time; {PAUSE:g} by default",
    )
    parser.add_argument(
        "--sleep",
        action="store_true",
        help="let the load generator sleep while it waits: the endpoint pays for waking it",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="FILE.md for the report; FILE.json and FILE.svg are put beside it",
    )
    parser.add_argument("--list", action="store_true", help="list scenarios and variants, and end")
    arguments = parser.parse_args(words)
    try:
        arguments.scenarios = select_scenarios(split(arguments.scenarios))
        arguments.variants = select_variants(split(arguments.variants))
    except ValueError as exc:
        parser.error(str(exc))
    if arguments.rounds is None:
        arguments.rounds = 1 if arguments.quick else ROUNDS
    if arguments.seconds is None:
        arguments.seconds = QUICK_SECONDS if arguments.quick else SECONDS
    if arguments.quick:
        arguments.scenarios = [scenario.quick() for scenario in arguments.scenarios]
    return arguments


def split(words: str) -> list[str]:
    """Split words with commas between."""
    return [word.strip() for word in words.split(",") if word.strip()]


def select_scenarios(keys: Sequence[str]) -> list[Scenario]:
    """Give the scenarios with these keys, in the order of the table; all where there is none.

    Raises:
        ValueError: there is no scenario with such a key.
    """
    known = {scenario.key: scenario for scenario in SCENARIOS}
    for key in keys:
        if key not in known:
            raise ValueError(f"no scenario {key!r}; there are: {', '.join(known)}")
    return [scenario for key, scenario in known.items() if not keys or key in keys]


def run(
    setup: Setup,
    scenarios: Sequence[Scenario],
    variants: Sequence[Variant],
    rounds: int,
    measurements: list[Measurement],
) -> None:
    """Measure everything, within each round all variants in turn, and add it to `measurements`."""
    for scenario in scenarios:
        able = [variant for variant in variants if variant.obstacle(scenario) is None]
        for number in range(rounds):
            for variant in able:
                measurement = measure(setup, variant, scenario, number)
                tell(measurement)
                measurements.append(measurement)


def tell(measurement: Measurement) -> None:
    """Say how it goes; the report goes elsewhere."""
    result = measurement.problem
    if result is None:
        result = f"{measurement.cost:.2f} ({measurement.operations} operations)"
    print(
        f"{measurement.scenario} round {measurement.round + 1} {measurement.variant}: {result}",
        file=sys.stderr,
        flush=True,
    )


def choose_cores() -> tuple[int, int]:
    """Give a core for what is measured, and another for the load generator if there is one."""
    cores = sorted(os.sched_getaffinity(0))
    # The kernel's own work prefers the first.
    return cores[-1], cores[0]


def allow_many_files() -> None:
    """Raise the limit of open files to what the system allows; children inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def write_certificates(directory: Path) -> None:
    """Make an authority and a certificate for localhost."""
    import trustme  # noqa: PLC0415  # only for TLS

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        str(directory / "server.pem")
    )


def main(words: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0, or 1 where a measurement of anyws failed.
    """
    arguments = parse(words)
    if arguments.list:
        print("\n".join(f"{scenario.key:6} {scenario.description}" for scenario in SCENARIOS))
        print("\n".join(variant.name for variant in VARIANTS))
        return 0
    if sys.platform != "linux":
        print("the CPU time of a process is read from Linux's /proc", file=sys.stderr)
        return 2
    allow_many_files()
    scenarios, variants = arguments.scenarios, arguments.variants
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory() as name:
        cores = choose_cores()
        # On one core it would keep the endpoint from working.
        sleep = arguments.sleep or cores[0] == cores[1]
        generator = Generator(Path(name), sleep=sleep, pause=arguments.pause / 1e6)
        if any(scenario.tls for scenario in scenarios):
            write_certificates(Path(name))
        warmup = min(WARMUP, arguments.seconds)
        setup = Setup(generator, Path(name), *cores, arguments.seconds, warmup)
        given = sys.argv[1:] if words is None else words
        circumstances = observe(
            shlex.join(["python", "-m", "benchmarks", *given]),
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            language=generator.language,
            cores=cores,
            sleep=sleep,
            pause=arguments.pause,
            quick=arguments.quick,
        )
        # This process has nothing to do while one is measured, and does it elsewhere.
        os.sched_setaffinity(0, {setup.load_core})
        try:
            run(setup, scenarios, variants, arguments.rounds, measurements)
        except KeyboardInterrupt:
            print("interrupted: the report has what was measured before", file=sys.stderr)
    summary = summarize(measurements)
    report = render_markdown(circumstances, summary, measurements, scenarios, variants)
    if arguments.output is None:
        print(report, end="")
    else:
        arguments.output.write_text(report, encoding="utf-8")
        raw = json.dumps(render_json(circumstances, measurements), indent=1)
        arguments.output.with_suffix(".json").write_text(raw + "\n", encoding="utf-8")
        chart = render_svg(circumstances, summary, scenarios, variants)
        arguments.output.with_suffix(".svg").write_text(chart, encoding="utf-8")
    ours = {variant.name for variant in variants if variant.ours}
    return int(any(m.problem is not None and m.variant in ours for m in measurements))


if __name__ == "__main__":
    sys.exit(main())
