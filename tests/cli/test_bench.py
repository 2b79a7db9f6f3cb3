"""`anyws bench`: a bounded load, its figures, and what ends it early."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from anyws._cli import _bench
from anyws._cli._arguments import BenchArguments, parse_arguments
from anyws._cli._bench import Bench, Latencies, bench, build_bar
from tests.cli.pipes import OpenPipe
from tests.proxying import uninstall_python_socks
from tests.sockets import serving

if TYPE_CHECKING:
    import anyws

pytestmark = pytest.mark.anyio


def bench_arguments(port: int, *options: str) -> BenchArguments:
    arguments = parse_arguments(["bench", f"ws://127.0.0.1:{port}/", *options])
    assert isinstance(arguments, BenchArguments)
    return arguments


def test_percentiles_are_right_to_a_percent() -> None:
    latencies = Latencies()
    for number in range(1, 1001):
        latencies.add(number / 1000)
    figures = latencies.figures()
    assert figures == {
        "p50": pytest.approx(0.5, rel=0.01),
        "p90": pytest.approx(0.9, rel=0.01),
        "p99": pytest.approx(0.99, rel=0.01),
        "max": 1.0,
    }


def test_no_percentile_is_above_the_largest() -> None:
    latencies = Latencies()
    latencies.add(0.001234)
    latencies.add(0)
    assert latencies.percentile(100) == 0.001234
    assert latencies.percentile(50) < 1e-8
    assert Latencies().percentile(50) == 0


def test_bar_grows() -> None:
    assert build_bar(0) == f"[{'.' * 30}]   0%"
    assert build_bar(0.5) == f"[{'#' * 15}{'.' * 15}]  50%"
    assert build_bar(1) == f"[{'#' * 30}] 100%"


async def test_result_has_rate_and_percentiles(capfd: pytest.CaptureFixture[str]) -> None:
    received: list[str | bytes] = []

    async def echo(ws: anyws.Connection) -> None:
        async for message in ws:
            received.append(message)
            await ws.send(message)

    async with serving(echo) as server:
        options = ("--connections", "3", "--messages", "50", "--size", "7", "--window", "4")
        assert await bench(bench_arguments(server.port, *options)) == 0
    told = capfd.readouterr()
    lines = told.out.splitlines()
    assert lines[0] == "client and server together:"
    assert lines[1].startswith("3 connections, open after ")
    assert lines[2] == "50 messages of 7 bytes, 4 at a time"
    assert lines[3].endswith(" messages/s, there and back")
    assert [line.split()[::3][:2] for line in lines[4:]] == [["opening", "ms"], ["latency", "ms"]]
    assert len(received) == 50
    assert {len(message) for message in received} == {7}
    assert told.err == ""


async def test_result_can_be_json(capfd: pytest.CaptureFixture[str]) -> None:
    async with serving() as server:
        arguments = bench_arguments(server.port, "--json", "--seconds", "0.05")
        assert await bench(arguments) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["connections"] == 10
    assert result["messages"] > 0  # how many fit into the time depends on what else runs
    assert result["seconds"] >= 0.05
    assert result["rate"] == pytest.approx(result["messages"] / result["seconds"])
    assert list(result["latency"]) == list(result["opening"]) == ["p50", "p90", "p99", "max"]


async def test_large_window_of_large_messages_does_not_stop() -> None:
    async with serving() as server:
        options = ("--connections", "1", "--messages", "60", "--size", "200000", "--window", "30")
        assert await bench(bench_arguments(server.port, *options, "--no-compression")) == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_progress_is_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(_bench, "_PROGRESS_INTERVAL", 0.001)
    async with serving() as server:
        await bench(bench_arguments(server.port, "--messages", "200"))
        await bench(bench_arguments(server.port, "--seconds", "0.02"))
    text = terminal.getvalue()
    assert f"\r[{'.' * 30}]   0% " in text
    assert text.endswith("\r\x1b[K")


async def test_progress_is_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    measurement = Bench(bench_arguments(80, "--messages", "4", "--connections", "1"))
    assert measurement.progress == 0
    measurement._count_opened()
    measurement.latencies.add(0.1)
    assert measurement.progress == 0.25
    timed = Bench(bench_arguments(80, "--seconds", "10", "--connections", "1"))
    timed._count_opened()
    monkeypatch.setattr(_bench, "perf_counter", lambda: timed._started_at + 5)
    assert timed.progress == 0.5
    monkeypatch.setattr(_bench, "perf_counter", lambda: timed._started_at + 50)
    assert timed.progress == 1


async def mirror(ws: anyws.Connection) -> None:
    async for message in ws:
        await ws.send(message[::-1])


async def hang_up(ws: anyws.Connection) -> None:
    await ws.recv()


async def fail(ws: anyws.Connection) -> None:
    await ws.recv()
    await ws.close(1013)


@pytest.mark.parametrize(
    ("handler", "status", "line"),
    [
        (mirror, 1, "anyws: the server does not send back what it gets\n"),
        (hang_up, 1, "anyws: closed: received 1000 (OK); then sent 1000 (OK)\n"),
        (fail, 113, "anyws: closed: received 1013"),
    ],
)
async def test_server_that_is_no_echo_ends_it(
    handler: object, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(handler) as server:  # type: ignore[arg-type]  # one of the three above
        assert await bench(bench_arguments(server.port)) == status
    told = capsys.readouterr()
    assert told.err.startswith(line)
    assert told.out == ""


async def test_nobody_who_listens_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as server:
        port = server.port
    assert await bench(bench_arguments(port)) == 4
    assert capsys.readouterr().err.count("\n") == 1


async def test_proxy_that_lacks_its_extra_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uninstall_python_socks(monkeypatch)
    monkeypatch.setenv("all_proxy", "socks5h://proxy")
    assert await bench(bench_arguments(80)) == 4
    problem = "proxy socks5h://proxy:1080 needs python-socks: pip install 'anyws[socks]'\n"
    assert capsys.readouterr().err == f"anyws: {problem}"


async def test_result_that_nobody_reads_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving() as server:
        arguments = bench_arguments(server.port, "--messages", "10")
        with OpenPipe() as pipe:
            pipe.close_reader()
            monkeypatch.setattr(sys, "stdout", SimpleNamespace(fileno=lambda: pipe.writer))
            assert await bench(arguments) == 0
        monkeypatch.setattr(sys, "stdout", None)
        assert await bench(arguments) == 0
    assert capfd.readouterr().err == ""


async def test_result_that_cannot_be_written_has_1(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    unwritable = os.open(__file__, os.O_RDONLY)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(fileno=lambda: unwritable))
    try:
        async with serving() as server:
            assert await bench(bench_arguments(server.port, "--messages", "10")) == 1
    finally:
        os.close(unwritable)
    assert capfd.readouterr().err == "anyws: cannot write the output: Bad file descriptor\n"


async def test_closed_stderr_shows_no_progress(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    async with serving() as server:
        assert await bench(bench_arguments(server.port, "--messages", "10")) == 0
    assert capfd.readouterr().out.startswith("client and server together:\n")


async def never_answer(ws: anyws.Connection) -> None:
    await ws.wait_closed()


async def test_time_out_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(never_answer) as server:
        assert await bench(bench_arguments(server.port, "--timeout", "0.1")) == 5
    assert capsys.readouterr().err == "anyws: time-out: 0.1 seconds are over\n"


async def test_signal_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    async def interrupt(ws: anyws.Connection) -> None:
        await ws.recv()
        signal.raise_signal(signal.SIGINT)
        await ws.wait_closed()

    async with serving(interrupt) as server:
        assert await bench(bench_arguments(server.port, "--connections", "1")) == 130
    assert capsys.readouterr() == ("", "")
