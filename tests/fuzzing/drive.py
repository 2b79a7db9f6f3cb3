"""The process of one search: atheris drives a target of what it instruments as it is imported.

Owns what is instrumented; `run` starts it. Nothing of anyws may be imported before.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

INSTRUMENTED = ["anyws.sansio", "h11"]


def main() -> None:
    """Drive the target that is named first, with the options of libFuzzer that follow."""
    # Not among the tools for tests: `nox -s fuzz` installs it.
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED):
        targets = importlib.import_module("tests.fuzzing.targets")
    _, target, *options = sys.argv
    # libFuzzer starts itself again where it merges: by the words of its command, put together.
    command = f"{sys.executable} -m tests.fuzzing.drive {target}"
    atheris.Setup([command, *options], targets.TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
