"""Each example runs as it stands, with every warning an error, and says what it should say."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
# Seconds; an example takes less than two.
DEADLINE = 30


def command(name: str, *args: str) -> list[str]:
    # Not -X dev: asyncio tells there what takes 0.1 s, as anything may on a busy machine.
    return [sys.executable, "-W", "error", str(EXAMPLES / name), *args]


@pytest.fixture(autouse=True)
def sigint_not_ignored() -> Iterator[None]:
    """Let programs be interrupted: a shell starts its background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def environment() -> dict[str, str]:
    """The environment in which the examples find this checkout, installed or not."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


def run(name: str, *args: str) -> str:
    """Run an example to its end; give what it printed."""
    done = subprocess.run(
        command(name, *args),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


class Server:
    """An example that serves, in a process of its own; it says first on which port."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        line = process.stdout.readline()
        found = re.fullmatch(r"listening on port (\d+)\n", line)
        if not found:
            process.kill()
            pytest.fail(f"no port in {line!r}; {process.communicate()[1]}")
        self.uri = f"ws://localhost:{found[1]}/"

    def connect(self, resource: str = "") -> ClientConnection:
        return connect(self.uri + resource, open_timeout=DEADLINE, close_timeout=DEADLINE)

    def stop(self, signum: signal.Signals) -> str:
        """End it by a signal; give what else it printed."""
        self.process.send_signal(signum)
        out, err = self.process.communicate(timeout=DEADLINE)
        assert (err, self.process.returncode) == ("", 0)
        return out


@contextlib.contextmanager
def serving(name: str, port: str = "0") -> Iterator[Server]:
    with subprocess.Popen(
        command(name, port),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


def test_every_example_is_run_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in source] == []


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_has_fewer_than_60_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60


def test_demo_echoes_on_both_backends() -> None:
    lines = run("demo.py").splitlines()
    for backend in ("asyncio", "trio"):
        said = [line.removeprefix(f"{backend}: ") for line in lines if line.startswith(backend)]
        assert re.fullmatch(r"echo server on port \d+", said[0])
        assert said[1].startswith("compression: permessage-deflate")
        assert said[2] == "sent 'Hello, world!', received 'Hello, world!'"
        assert said[4] == r"sent b'\x00\x01\x02', received b'\x00\x01\x02'"
        assert re.fullmatch(r"latency: \d+ microseconds", said[5])
        assert said[6:] == ["closed with 1000"]


def test_echo_server_echoes() -> None:
    with serving("echo_server.py") as server:
        with server.connect() as ws:
            ws.send("hello")
            assert ws.recv(DEADLINE) == "hello"
        assert server.stop(signal.SIGINT) == "stopped\n"


def test_echo_client_prints_what_comes_back() -> None:
    with serving("echo_server.py") as server:
        assert run("echo_client.py", server.uri, "one", "two") == "< 'one'\n< 'two'\n"


def test_echo_client_tells_the_error_in_one_line_when_nobody_listens() -> None:
    with serving("echo_server.py") as server:
        server.stop(signal.SIGINT)
        done = subprocess.run(
            command("echo_client.py", server.uri, "one"),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["echo_client.py", "reconnecting_client.py"])
def test_client_tells_its_usage_when_it_has_no_uri(name: str) -> None:
    done = subprocess.run(
        command(name),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"Usage: python examples/{name} ws://localhost:8765/")
    assert len(done.stderr.splitlines()) == 1


def test_chat_server_tells_all_members() -> None:
    with serving("chat_server.py") as server:
        with server.connect() as alice:
            assert alice.recv(DEADLINE) == "* 1 here"
            with server.connect() as bob:
                assert bob.recv(DEADLINE) == "* 2 here"
                assert alice.recv(DEADLINE) == "* 2 here"
                bob.send("hello")
                assert alice.recv(DEADLINE) == "hello"
                assert bob.recv(DEADLINE) == "hello"
            assert alice.recv(DEADLINE) == "* 1 here"
        assert server.stop(signal.SIGINT) == "stopped\n"


def test_routed_server_finds_the_room_and_asks_for_the_password_of_one_route() -> None:
    with serving("routed_server.py") as server:
        with server.connect("rooms/lobby") as ws:
            ws.send("hello")
            assert ws.recv(DEADLINE) == "lobby: 'hello'"
        for resource, status in [("health", 200), ("lobby", 404), ("%61dmin/", 401)]:
            with pytest.raises(InvalidStatus) as caught:
                server.connect(resource)
            assert caught.value.response.status_code == status
        uri = server.uri.replace("ws://", "ws://admin:secret@")
        said = run("echo_client.py", f"{uri}admin/", "hello")
        assert said == """< "admin said 'hello'"\n"""
        assert server.stop(signal.SIGINT) == "stopped\n"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["graceful_asyncio.py", "graceful_trio.py"])
def test_graceful_server_closes_its_connections_on_a_signal(
    name: str, signum: signal.Signals
) -> None:
    with serving(name) as server, server.connect() as ws:
        ws.send("hello")
        assert ws.recv(DEADLINE) == "hello"
        assert server.stop(signum) == "closing 1 connections\nstopped\n"
        ws.close()
        assert (ws.close_code, ws.close_reason) == (1001, "restarting")


def test_reconnecting_client_comes_back_to_a_server_that_starts_again() -> None:
    with serving("chat_server.py") as server:
        port = re.findall(r":(\d+)/", server.uri)[0]
        with subprocess.Popen(
            command("reconnecting_client.py", server.uri, "1000"),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as client:
            try:
                assert client.stdout is not None
                assert client.stdout.readline() == "* 1 here\n"
                server.stop(signal.SIGINT)
                assert client.stdout.readline().startswith(
                    f"attempt 2 to connect to {server.uri} in"
                )
                with serving("chat_server.py", port):
                    while (line := client.stdout.readline()).startswith("attempt "):
                        pass
                    assert line == "* 1 here\n"
                    client.send_signal(signal.SIGINT)
                    out, err = client.communicate(timeout=DEADLINE)
            finally:
                client.kill()
    assert (out, err, client.returncode) == ("stopped\n", "", 0)


def test_reconnecting_client_gives_up_when_nobody_listens() -> None:
    with serving("echo_server.py") as server:
        server.stop(signal.SIGINT)
        done = subprocess.run(
            command("reconnecting_client.py", server.uri, "2"),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert re.fullmatch(r"gave up: .*\n", done.stderr)


def test_opentelemetry_server_prints_spans_and_counters() -> None:
    trace_id, parent_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with serving("opentelemetry_server.py") as server:
        headers = {"Traceparent": f"00-{trace_id}-{parent_id}-01"}
        with connect(server.uri, additional_headers=headers) as ws:
            for message in ("one", "two"):
                ws.send(message)
                assert ws.recv(DEADLINE) == message
        printed = server.stop(signal.SIGINT)
    span, end = json.JSONDecoder().raw_decode(printed)
    assert (span["context"]["trace_id"], span["parent_id"]) == (f"0x{trace_id}", f"0x{parent_id}")
    assert span["attributes"] == {"websocket.close_code": 1000, "websocket.bytes_received": 6}
    (metric,) = json.loads(printed[end:])["resource_metrics"][0]["scope_metrics"][0]["metrics"]
    assert metric["name"] == "websocket.messages"
    points = metric["data"]["data_points"]
    assert {point["attributes"]["direction"]: point["value"] for point in points} == {
        "received": 2,
        "sent": 2,
    }


def test_own_stream_client_counts_the_bytes() -> None:
    first, second = run("own_stream_client.py").splitlines()
    assert first == "received 1000 characters back"
    found = re.search(r"took (\d+) bytes", second)
    assert found
    assert 0 < int(found[1]) < 100
