"""Programs of others, run for the time of a test: found, started, waited for, and ended.

Owns their processes and their ports; knows nothing of what they do. A program that is not installed
is a failure, not a skip: whoever asks for these tests wants to know that they ran.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

HOST = "127.0.0.1"

# Debian keeps servers where the PATH of a user may not lead.
_FOLDERS = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"

# Seconds until a server must listen, and until it must have ended when it was asked to.
_START_TIMEOUT = 10.0
_END_TIMEOUT = 5.0

# A server of others does not say that it listens now; it is asked so often, in seconds.
_ASKING_INTERVAL = 0.005

NODE_MODULES = "ANYWS_NODE_MODULES"
"""The environment variable with the folder that npm has installed `ws` into."""

_SESSION = "`nox -s counterparts` installs what these tests need"


def find_program(name: str) -> str:
    """Give the path of a program; fail the test if it is not installed."""
    path = shutil.which(name, path=_FOLDERS)
    if path is None:
        pytest.fail(f"{name} is not installed: {_SESSION}")
    return path


def find_node_modules() -> Path:
    """Give the folder that has Node's `ws`; fail the test if there is none."""
    folder = Path(os.environ.get(NODE_MODULES, "node_modules"))
    if not (folder / "ws" / "package.json").exists():
        pytest.fail(f"{NODE_MODULES}={folder} has no package ws: {_SESSION}")
    return folder.absolute()


def free_port() -> int:
    """Give a port that nobody listens on now, for a program that cannot choose one by itself."""
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def running_server(
    command: Sequence[str], port: int, log: Path, *, signal_number: int = signal.SIGTERM
) -> Generator[None, None, None]:
    """Run a server until the block is left, from when it listens.

    Args:
        command: the program, which must stay in the foreground, and its arguments.
        port: where it listens.
        log: the file that takes what it prints.
        signal_number: what asks it to end at once.
    """
    # A group of its own, so that its workers can be ended where it does not do it itself.
    with log.open("wb") as output:
        process = subprocess.Popen(
            [find_program(command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_it_listens(process, port, log)
        yield
        assert process.poll() is None, f"{command[0]} has ended: {log.read_text()}"
    finally:
        _end(process, signal_number)


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            socket.create_connection((HOST, port), timeout=_START_TIMEOUT).close()
        except ConnectionRefusedError:
            problem = "has ended" if process.poll() is not None else "does not listen"
            if problem == "has ended" or time.monotonic() > deadline:
                pytest.fail(f"{process.args!r} {problem}: {log.read_text()}")
            time.sleep(_ASKING_INTERVAL)
        else:
            return


def _end(process: subprocess.Popen[bytes], signal_number: int) -> None:
    process.send_signal(signal_number)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_TIMEOUT)
    finally:
        with suppress(ProcessLookupError):  # all of it has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
