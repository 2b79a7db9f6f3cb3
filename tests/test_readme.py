"""What the README shows works as it stands there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from websockets.exceptions import ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Seconds; each program takes less than two.
DEADLINE = 30


def blocks(language: str) -> list[str]:
    """Give the README's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


SERVER, CLIENT, ROOMS, TASKS, TLS_SERVER, TLS_CLIENT, *OTHERS = blocks("python")
RECONNECTING, STOPPING, ROUTES, HOOKS, TESTING = OTHERS


def start(program: str, folder: Path = ROOT) -> subprocess.Popen[str]:
    """Start a program in a process of its own, with every warning an error."""
    return subprocess.Popen(
        # Not -X dev: asyncio tells there what takes 0.1 s, as anything may on a busy machine.
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_it_waits(process: subprocess.Popen[str]) -> None:
    """Wait until a process does: in the midst of its work, a Ctrl-C may meet any line of it."""
    stat = Path(f"/proc/{process.pid}/stat")
    # The state stands behind the name, which may have spaces. Where there is no /proc, nothing can
    # be seen.
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "R":
        os.sched_yield()


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


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_quick_start_server_tells_its_clients_on_ctrl_c_and_is_quiet_as_the_text_says(
    backend: str,
) -> None:
    found = re.search(r"`(with contextlib.*)`", README)
    assert found
    last_line = found[1].replace("main)", f"main, backend={backend!r})")
    program = SERVER.replace("8765", "0").replace("anyio.run(main)", last_line)
    with start(f"import contextlib\n{program}") as server:
        try:
            with connect(f"ws://localhost:{read_port(server)}/", open_timeout=DEADLINE) as ws:
                # A client's handshake is over before the server's: that one must not be met in it.
                ws.send("Hello")
                assert ws.recv(DEADLINE) == "Hello"
                until_it_waits(server)
                server.send_signal(signal.SIGINT)
                with pytest.raises(ConnectionClosedOK):
                    ws.recv(DEADLINE)
            out, err = server.communicate(timeout=DEADLINE)
        finally:
            server.kill()
    assert (out, err, server.returncode, ws.close_code) == ("", "", 0, 1001)


def test_chat_program_has_rooms() -> None:
    with start(ROOMS.replace("8765", "0")) as server:
        try:
            uri = f"ws://localhost:{read_port(server)}"
            with connect(f"{uri}/red") as alice, connect(f"{uri}/red") as bob:
                with connect(f"{uri}/blue") as other:
                    alice.send("Hello")
                    assert (alice.recv(DEADLINE), bob.recv(DEADLINE)) == ("Hello", "Hello")
                    other.send("blue")
                    assert other.recv(DEADLINE) == "blue"
        finally:
            server.kill()


def test_tasks_program_ticks_and_leaves_work_for_a_client_that_has_gone() -> None:
    with start(TASKS.replace("8765", "0").replace("sleep(1)", "sleep(0.05)")) as server:
        try:
            with connect(f"ws://localhost:{read_port(server)}/") as ws:
                assert ws.recv(DEADLINE) == "tick"
                ws.send("why")
                assert ws.recv(DEADLINE) == "tick"
            assert server.stdout is not None
            assert server.stdout.readline() == "nobody waits for 'why'\n"
        finally:
            server.kill()
    program = TASKS.replace("8765", "0").replace("sleep(2)", "sleep(0)")
    with start(program) as server:
        try:
            with connect(f"ws://localhost:{read_port(server)}/") as ws:
                ws.send("why")
                said = {ws.recv(DEADLINE), ws.recv(DEADLINE)}
        finally:
            server.kill()
    assert said == {"tick", "nothing found for 'why'"}


def test_tls_client_talks_to_tls_server(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "client.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(tmp_path / "server.pem", append=True)
    with start(TLS_SERVER.replace("8765", "0"), tmp_path) as server:
        try:
            port = read_port(server)
            with start(TLS_CLIENT.replace("8765", port), tmp_path) as client:
                out, err = client.communicate(timeout=DEADLINE)
        finally:
            server.kill()
    assert (out, err, client.returncode) == ("Hello, world!\n", "", 0)


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
