"""The table in docs/behaviours.md: which test proves which promise.

Owns the way from `@pytest.mark.behaviour` to the table; run as `python -m tests.behaviours` it
writes the table anew.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
TABLE = TESTS.parent / "docs" / "behaviours.md"

_ROW = re.compile(r"\| (\d+) \| (.*?) \|(.*)\|")


@dataclass(frozen=True, order=True)
class Proof:
    """A test that carries the number of a promise."""

    file: str
    name: str
    on_all_loops: bool

    def __str__(self) -> str:
        return f"`{self.file}::{self.name}`"


def find_proofs() -> dict[int, list[Proof]]:
    """Give the tests of each number, as the files have them."""
    proofs: dict[int, list[Proof]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        marked = any(
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "pytestmark"
            and "mark.anyio" in ast.unparse(node.value)
            for node in tree.body
        )
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            marks = [ast.unparse(decorator) for decorator in node.decorator_list]
            on_all_loops = isinstance(node, ast.AsyncFunctionDef) and (
                marked or "pytest.mark.anyio" in marks
            )
            proof = Proof(str(path.relative_to(TESTS)), node.name, on_all_loops)
            for number in _numbers(marks):
                proofs.setdefault(number, []).append(proof)
    return proofs


def _numbers(marks: list[str]) -> set[int]:
    return {
        int(number)
        for mark in marks
        if mark.startswith("pytest.mark.behaviour(")
        for number in re.findall(r"\d+", mark)
    }


def read_promises() -> dict[int, str]:
    """Give the promises of the table by their numbers."""
    rows = _ROW.findall(TABLE.read_text(encoding="utf-8"))
    return {int(number): promise for number, promise, _ in rows}


def build_table() -> str:
    """Give the file with the column of tests as it should be."""
    proofs = find_proofs()

    def row(match: re.Match[str]) -> str:
        names = ", ".join(str(proof) for proof in sorted(proofs.get(int(match[1]), [])))
        return f"| {match[1]} | {match[2]} | {names} |"

    return _ROW.sub(row, TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    TABLE.write_text(build_table(), encoding="utf-8")
