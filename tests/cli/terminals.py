"""The command line in processes of its own: in pipes, and in a pseudo-terminal with a screen.

Owns the processes and the emulator of the terminal. What waits, waits for what is on the screen,
until a deadline that fails loudly.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyte
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

ROOT = Path(__file__).parent.parent.parent

# Seconds. All takes two or three; a machine that does much else takes longer.
DEADLINE = 30

COMMAND = (sys.executable, "-W", "error", "-m", "anyws")


def environment(**variables: str) -> dict[str, str]:
    """Give the environment in which this checkout is found, and a terminal like most."""
    clean = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    return clean | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **variables}


def obey_sigint() -> None:
    """Let a child be interrupted: a shell starts its background jobs with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def take_terminal() -> None:
    """Make standard input the terminal of a child, whose signals it gets."""
    obey_sigint()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def run(*arguments: str, data: bytes = b"") -> tuple[int, bytes, str]:
    """Run the command in pipes; give its exit status, its output, and what it told."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=data,
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode()


class _Screen(pyte.Screen):
    """A screen that answers what the program asks the terminal, such as where the cursor is."""

    answer: Callable[[str], None]

    def write_process_input(self, data: str) -> None:
        self.answer(data)


class Terminal:
    """The command in a pseudo-terminal.

    Args:
        arguments: those of the command.
        variables: of its environment, besides the usual ones.
    """

    def __init__(self, *arguments: str, **variables: str) -> None:
        self._arguments = arguments
        self._variables = variables
        self.screen = _Screen(80, 24)
        self.screen.answer = self.type
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        """All that was written to the terminal."""

    def __enter__(self) -> Self:
        self._master, slave = os.openpty()
        self.resize(80, 24)
        try:
            self.process = subprocess.Popen(
                [*COMMAND, *self._arguments],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=environment(**self._variables),
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=take_terminal,  # noqa: PLW1509  # no thread of ours holds a lock
            )
        finally:
            os.close(slave)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Give the window another size."""
        self.screen.resize(lines, columns)
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def lines(self) -> list[str]:
        """Give the lines that are not empty."""
        return [line for row in self.screen.display if (line := row.rstrip())]

    def wait_for(self, *beginnings: str) -> None:
        """Wait until the last lines on the screen begin so, and fail if they do not in time."""
        self._wait(lambda: self._ends_with(beginnings), str(beginnings))

    def wait_end(self) -> int:
        """Wait until the program has ended; give its exit status."""
        self._wait(lambda: self.process.poll() is not None, "the end of the program")
        while self._read(0):
            pass
        return self.process.returncode

    def _ends_with(self, beginnings: tuple[str, ...]) -> bool:
        lines = self.lines()[-len(beginnings) :]
        return len(lines) == len(beginnings) and all(map(str.startswith, lines, beginnings))

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(
                    f"no {what} after {DEADLINE} s; the screen:\n" + "\n".join(self.lines())
                )
            self._read(0.1)

    def _read(self, seconds: float) -> bool:
        """Read what comes within so many seconds; say whether anything did."""
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        # EIO: the last program that had the terminal open has ended.
        with contextlib.suppress(OSError):
            data = os.read(self._master, 65536)
            self.raw += data
            self._stream.feed(data)
            return True
        return False
