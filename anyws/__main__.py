"""Runs the command line: `python -m anyws`, and the script `anyws`."""

from __future__ import annotations

import sys

from ._cli._main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
