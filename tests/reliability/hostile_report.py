"""The hostile table against several libraries: `python -m tests.reliability.hostile_report`.

Owns what is counted for each library: rows passed, wrong outcomes, hangs, memory over the limit,
and complaints; which outcomes are right stands in the table.
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.reliability.hostile_arena import (
    LIBRARIES,
    Arena,
    Attack,
    Result,
    VictimDied,
    attacks_on,
)
from tests.reliability.hostile_cases import BOTH, CLIENT, all_cases, is_expected
from tests.reliability.hostile_frames import CASES as FRAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

MEMORY_LIMIT = 4 * 2**20

# Which loops a library runs on.
LOOPS_OF = {
    "anyws": ["asyncio", "uvloop", "trio"],
    "websockets": ["asyncio", "uvloop"],
    "aiohttp": ["asyncio", "uvloop"],
}


@dataclass
class Tally:
    """What is counted for one library, loop and role."""

    library: str
    loop: str
    victim: str
    cases: int = 0
    passed: int = 0
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    memory: int = 0
    """Bytes of the worst row."""
    lag: float = 0.0
    """Seconds of the worst row that the event loop was kept from others."""
    failures: list[str] = field(default_factory=list)

    def note(self, attack: Attack, outcome: str, error: str, result: Result) -> None:
        """Count one row."""
        strict = self.library == "anyws"
        account = result.account
        flaws = []
        right = is_expected(attack.case, outcome, strict=strict)
        if account.leftovers or (outcome == "hang" and not right):
            flaws.append("hang")
        elif not right or not self._is_right(attack, error):
            flaws.append("wrong outcome")
        if account.memory > MEMORY_LIMIT:
            flaws.append("memory")
        self.cases += 1
        self.passed += not flaws
        self.counts.update(flaws)
        self.counts["complaints"] += bool(account.complaints)
        self.memory = max(self.memory, account.memory)
        self.lag = max(self.lag, account.lag)
        if flaws or account.complaints:
            seen = f"{outcome}{', ' if error else ''}{error}, expected {attack.case.expected[0]}"
            left = f", left {account.leftovers}" if account.leftovers else ""
            size = f"{account.memory / 2**20:.1f} MiB"
            noise = account.complaints[0].splitlines()[0] if account.complaints else ""
            text = f"{attack.case.name}: {', '.join(flaws) or 'complaint'}: {seen}, {size}{left}"
            self.failures.append(f"{text}; {noise}" if noise else text)

    def note_death(self, attack: Attack, error: VictimDied) -> None:
        """Count a row that the victim did not live to tell of."""
        self.cases += 1
        self.counts["hang"] += 1
        self.failures.append(f"{attack.case.name}: {error}")

    @staticmethod
    def _is_right(attack: Attack, error: str) -> bool:
        if attack.victim != CLIENT:
            return True
        # Errors of an open connection have other names elsewhere, and are as good.
        return error in attack.case.errors or (error == "error" and "done" in attack.case.errors)

    def as_json(self) -> dict[str, Any]:
        return {
            "library": self.library,
            "version": version(self.library),
            "loop": self.loop,
            "role": self.victim,
            "cases": self.cases,
            "passed": self.passed,
            "wrong": self.counts["wrong outcome"],
            "hangs": self.counts["hang"],
            "over the memory limit": self.counts["memory"],
            "with complaints": self.counts["complaints"],
            "worst memory in MiB": round(self.memory / 2**20, 1),
            "worst lag in seconds": round(self.lag, 3),
            "failures": self.failures,
        }


def version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:  # anyws, run from its clone
        return "clone"


def tally(library: str, loop: str, victim: str, attacks: Sequence[Attack]) -> Tally:
    """Run rows one after the other; a victim that hangs or dies is replaced."""
    result = Tally(library, loop, victim)
    left = list(attacks)
    while left:
        with Arena(library, loop) as arena:
            arena.attack(attacks_on([victim], FRAMES[-9:]))
            while left:
                attack = left.pop(0)
                try:
                    ((_, outcome, error),) = one = arena.attack([attack])
                except VictimDied as exc:
                    result.note_death(attack, exc)
                    break
                result.note(attack, outcome, error, one)
                if one.account.leftovers:
                    break
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--loops", nargs="+", default=["asyncio", "uvloop", "trio"])
    parser.add_argument("--roles", nargs="+", choices=BOTH, default=list(BOTH))
    parser.add_argument("--only", default="", help="rows whose name has this")
    parser.add_argument("--json", type=Path, help="where to write all that was seen")
    arguments = parser.parse_args()
    cases = [case for case in all_cases() if arguments.only in case.name]
    columns = (
        "library     loop     role    rows  passed  wrong  hang  memory  complain  worst MiB  lag s"
    )
    print(columns)
    tallies = []
    for library in arguments.libraries:
        for loop in (loop for loop in LOOPS_OF[library] if loop in arguments.loops):
            for victim in arguments.roles:
                one = tally(library, loop, victim, attacks_on([victim], cases))
                tallies.append(one.as_json())
                counts = one.counts
                print(
                    f"{library:<11} {loop:<8} {victim:<7}{one.cases:5}{one.passed:8}"
                    f"{counts['wrong outcome']:7}{counts['hang']:6}{counts['memory']:8}"
                    f"{counts['complaints']:10}{one.memory / 2**20:11.1f}{one.lag:7.2f}",
                    flush=True,
                )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(tallies, indent=1) + "\n", encoding="utf-8")
    ours = [it for it in tallies if it["library"] == "anyws" and it["passed"] < it["cases"]]
    sys.exit(bool(ours))


if __name__ == "__main__":
    main()
