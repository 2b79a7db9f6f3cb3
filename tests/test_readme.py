"""What the README shows works as it stands there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Seconds; each program takes less than two.
DEADLINE = 30


def blocks(language: str) -> list[str]:
    """Give the README's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


SERVER, CLIENT, RECONNECTING, STOPPING, ROUTES, HOOKS, TESTING = blocks("python")


def start(program: str) -> subprocess.Popen[str]:
    """Start a program in a process of its own, with every warning an error."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_port(process: subprocess.Popen[str]) -> str:
    """Give the port that a server says it listens on."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"listening on port (\d+)\n", line)
    if not found:
        process.kill()
        pytest.fail(f"no port in {line!r}; {process.communicate()[1]}")
    return found[1]


def test_first_code_blocks_are_the_two_commands() -> None:
    demo, suite = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)[:2]
    assert (demo[0], suite[0]) == ("sh", "sh")
    assert demo[1].endswith("examples/demo.py\n")
    assert suite[1].endswith("-m pytest\n")


@pytest.mark.parametrize("program", [SERVER, CLIENT], ids=["server", "client"])
def test_quick_start_is_about_15_lines(program: str) -> None:
    assert len([line for line in program.splitlines() if line]) <= 15


def test_quick_start_client_talks_to_quick_start_server() -> None:
    with start(SERVER.replace("8765", "0")) as server:
        try:
            port = read_port(server)
            with start(CLIENT.replace("8765", port)) as client:
                out, err = client.communicate(timeout=DEADLINE)
        finally:
            server.kill()
    assert (err, client.returncode) == ("", 0)
    assert re.fullmatch(r"Hello, world!\nb'\\x00\\x01'\n0\.\d{6} seconds there and back\n", out), (
        out
    )


def test_reconnecting_program_comes_back_to_a_server_that_was_killed() -> None:
    with start(SERVER.replace("8765", "0")) as server:
        try:
            port = read_port(server)
            with start(RECONNECTING.replace("8765", port)) as client:
                try:
                    assert client.stdout is not None
                    assert client.stdout.readline() == "Hello again!\n"
                    server.kill()
                    assert client.stdout.readline().startswith("lost: no close frame received")
                    server.wait()
                    with start(SERVER.replace("8765", port)) as other:
                        try:
                            assert client.stdout.readline() == "Hello again!\n"
                        finally:
                            other.kill()
                finally:
                    client.kill()
        finally:
            server.kill()


def test_routes_program_asks_for_the_password_and_finds_the_seat() -> None:
    with start(ROUTES.replace("8765", "0")) as server:
        try:
            resource = f"localhost:{read_port(server)}/rooms/red/7"
            with connect(f"ws://alice:secret@{resource}", open_timeout=DEADLINE) as ws:
                assert ws.recv(DEADLINE) == "alice has seat 7 in red"
            with pytest.raises(InvalidStatus) as caught:
                connect(f"ws://{resource}", open_timeout=DEADLINE)
        finally:
            server.kill()
    assert caught.value.response.status_code == 401


def test_hooks_program_tells_what_happens() -> None:
    with start(HOOKS.replace("8765", "0")) as server:
        try:
            with connect(f"ws://localhost:{read_port(server)}/", open_timeout=DEADLINE) as ws:
                ws.send("Hello")
                assert ws.recv(DEADLINE) == "Hello"
            assert server.stdout is not None
            lines = [server.stdout.readline() for _ in range(2)]
        finally:
            server.kill()
    assert re.fullmatch(r"5 from \('.*', \d+\)\n", lines[0])
    assert lines[1] == "closed with 1000 after 1 echoes\n"


def test_tests_of_a_handler_pass(tmp_path: Path) -> None:
    path = tmp_path / "test_handler.py"
    path.write_text(TESTING, encoding="utf-8")
    # The fixtures come from an entry point where anyws is installed, and here by their module.
    options = ["-p", "anyws._pytest_plugin", "-p", "no:anyws", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *options, str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 passed" in done.stdout


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stopping_program_ends_in_good_order_on_a_signal(signum: signal.Signals) -> None:
    with start(STOPPING.replace("8765", "0")) as server:
        try:
            read_port(server)
            server.send_signal(signum)
            out, err = server.communicate(timeout=DEADLINE)
        finally:
            server.kill()
    assert (out, err, server.returncode) == ("", "", 0)
