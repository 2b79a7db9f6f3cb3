"""The command line as scripts use it: in pipes, in a process of its own."""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if sys.platform == "win32":
    pytest.skip("Windows has neither these pipes nor these signals", allow_module_level=True)

from anyws.__main__ import main
from tests.cli.terminals import COMMAND, DEADLINE, ROOT, environment, obey_sigint, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])


@contextmanager
def echo_server(*options: str, signum: signal.Signals = signal.SIGTERM) -> Iterator[str]:
    """Run `anyws serve`; give its URI. It must end with 0, and have told nothing but its log."""
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *options],
        stderr=subprocess.PIPE,
        env=environment(),
        cwd=ROOT,
        text=True,
        preexec_fn=obey_sigint,  # noqa: PLW1509  # no thread of ours holds a lock
    ) as process:
        try:
            assert process.stderr is not None
            found = re.search(r" server: (.*)\n", process.stderr.readline())
            assert found
            yield found[1]
            process.send_signal(signum)
            told = process.communicate(timeout=DEADLINE)[1]
            assert process.returncode == 0
            assert "Traceback" not in told
        finally:
            process.kill()


@BACKENDS
def test_line_in_is_a_message_out_and_the_reverse(backend: str) -> None:
    with echo_server("--backend", backend, signum=signal.SIGINT) as uri:
        status = run("--backend", backend, "--count", "2", uri, data=b"one\ntwo\n")
        assert status == (0, b"one\ntwo\n", "")
        # Without --count, the end of the input closes when the last answer has had time to come.
        assert run("--backend", backend, uri, data=b"one\n") == (0, b"one\n", "")


@BACKENDS
def test_bytes_go_there_and_back_between_files(backend: str, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "in").write_bytes(data)
    with echo_server() as uri:
        with (tmp_path / "in").open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
            options = ["--backend", backend, "--binary", "--whole", "--count", "1"]
            subprocess.run(
                [*COMMAND, *options, uri],
                stdin=stdin,
                stdout=stdout,
                env=environment(),
                cwd=ROOT,
                timeout=DEADLINE,
                check=True,
            )
    assert (tmp_path / "out").read_bytes() == data


def test_reader_that_has_enough_ends_it_quietly() -> None:
    lines = b"".join(b"%d\n" % number for number in range(100_000))
    with echo_server() as uri:
        with subprocess.Popen(
            [*COMMAND, "--no-close", uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            cwd=ROOT,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(lines[:6])
            process.stdin.flush()
            assert process.stdout.readline() == b"0\n"
            process.stdout.close()
            process.stdin.write(b"more\n")
            process.stdin.flush()
            assert process.wait(DEADLINE) == 0
            assert process.stderr.read() == b""


@BACKENDS
def test_ctrl_c_ends_it_while_it_reads(backend: str) -> None:
    with echo_server() as uri:
        with subprocess.Popen(
            [*COMMAND, "--backend", backend, "-v", uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            cwd=ROOT,
            text=True,
            preexec_fn=obey_sigint,  # noqa: PLW1509  # no thread of ours holds a lock
        ) as process:
            assert process.stderr is not None
            while not process.stderr.readline().startswith("subprotocol: "):
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            out, told = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (130, "")
    assert told == "closed: sent 1000 (OK); then received 1000 (OK)\n"


def test_bench_measures() -> None:
    with echo_server() as uri:
        status, out, told = run("bench", uri, "--messages", "100", "--connections", "2")
    assert (status, told) == (0, "")
    assert out.startswith(b"client and server together:\n2 connections, ")


def test_package_does_not_import_the_command_line() -> None:
    code = (
        "import sys, anyws, anyws.testing\n"
        "assert not {'anyws._cli', 'prompt_toolkit', 'argparse'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True)


def test_script_is_installed() -> None:
    scripts = importlib.metadata.entry_points(group="console_scripts", name="anyws")
    assert [script.load() for script in scripts] == [main]
