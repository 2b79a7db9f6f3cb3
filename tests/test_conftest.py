"""The search for leftovers finds them: what leaves a task or a socket behind fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAD = """
import asyncio, socket
import anyio, pytest
kept = []
"""


def outcomes(folder: Path, test: str) -> str:
    """Run one test under a copy of our conftest; give pytest's closing line without the time."""
    path = folder / "test_it.py"
    path.write_text(HEAD + test, encoding="utf-8")
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", "pyproject.toml", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout.splitlines()[-1].partition(" in ")[0]


def test_task_that_is_left_behind_is_an_error(tmp_path: Path) -> None:
    test = """
@pytest.mark.anyio
async def test_it(anyio_backend_name):
    if anyio_backend_name == "asyncio":
        kept.append(asyncio.ensure_future(asyncio.sleep(3600)))
"""
    assert outcomes(tmp_path, test) == "3 passed, 2 errors"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="sockets are counted in /proc")
def test_socket_that_is_left_open_is_an_error(tmp_path: Path) -> None:
    test = """
def test_it():
    kept.append(socket.socket())
"""
    assert outcomes(tmp_path, test) == "1 passed, 1 error"


def test_socket_that_nobody_owns_is_a_failure(tmp_path: Path) -> None:
    test = """
def test_it():
    socket.socket()
"""
    assert outcomes(tmp_path, test) == "1 failed"


def test_sockets_that_are_closed_are_no_leftovers(tmp_path: Path) -> None:
    test = """
@pytest.mark.anyio
async def test_it():
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with await anyio.connect_tcp("127.0.0.1", port):
            pass
"""
    assert outcomes(tmp_path, test) == "3 passed"
