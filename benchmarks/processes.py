"""Processes: each on its core, what it costs and holds as the kernel counts it, and its end.

Owns the life of child processes and the reading of /proc; knows no scenario.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

ROOT = Path(__file__).parent.parent
"""Where processes are started: `benchmarks` and `anyws` are imported from there."""

# Seconds that a process gets to end when it is asked to, before it is made to.
_END_TIMEOUT = 3.0


class ProcessError(Exception):
    """A process ended, or did not say what it should in time."""


class Process:
    """A child process on one core; it is ended by leaving the block.

    Args:
        command: what to run.
        core: the core to run on.
        environment: what is added to our environment.
        pass_fds: file descriptors that it inherits.
    """

    def __init__(
        self,
        command: Sequence[str],
        core: int,
        *,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self._unread = b""
        # Until it has a core of its own it may cost nothing on another's: so it inherits the core.
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        try:
            self._popen = subprocess.Popen(  # noqa: S603  # our own programs
                command,
                bufsize=0,
                cwd=ROOT,
                env=clean_environment() | dict(environment or {}),
                pass_fds=pass_fds,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
            )
        except BaseException:
            self._errors.close()
            raise
        finally:
            os.sched_setaffinity(0, before)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        popen = self._popen
        popen.terminate()
        try:
            popen.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
        for stream in (popen.stdin, popen.stdout, self._errors):
            assert stream is not None
            stream.close()

    def read_line(self, timeout: float) -> str:
        """Give the next line that it says.

        Raises:
            ProcessError: there is none after `timeout` seconds, or it has ended.
        """
        assert self._popen.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._unread:
            wait = max(0.0, deadline - time.monotonic())
            if not select.select([self._popen.stdout], [], [], wait)[0]:
                raise ProcessError(f"silent for {timeout:g} seconds{self.last_words()}")
            more = self._popen.stdout.read(65536)
            if not more:
                raise ProcessError(f"ended{self.last_words()}")
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def write_line(self, line: str = "") -> None:
        """Say a line to it."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line.encode() + b"\n")

    def last_words(self) -> str:
        """Give the last line of its errors with a colon before it, if there is one."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def cpu_ns(self) -> int:
        """Give the CPU time of all its threads, in the kernel and out of it, in nanoseconds.

        It is exact only while they sleep: the kernel counts when it takes a thread off its core.
        """
        threads = Path(f"/proc/{self._popen.pid}/task").glob("*/schedstat")
        return sum(int(path.read_text().split()[0]) for path in threads)

    def resident_size(self) -> int:
        """Give the bytes of memory that it holds, without those of the kernel's sockets."""
        rollup = Path(f"/proc/{self._popen.pid}/smaps_rollup").read_text(encoding="ascii")
        (line,) = (line for line in rollup.splitlines() if line.startswith("Rss:"))
        return int(line.split()[1]) * 1024


def clean_environment() -> dict[str, str]:
    """Give our environment less what sends clients through proxies or changes the codec."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and name != "ANYWS_PURE_PYTHON"
    }


def python_module(name: str, *arguments: str) -> list[str]:
    """Give the command that runs a module of ours."""
    return [sys.executable, "-m", f"{__package__}.{name}", *arguments]


def core_busy_ns(core: int) -> int:
    """Give the nanoseconds that a core has worked, for whomever; in steps of the kernel's tick."""
    text = Path("/proc/stat").read_text(encoding="ascii")
    (line,) = (line for line in text.splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
    ticks = user + nice + system + irq + softirq + steal
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
