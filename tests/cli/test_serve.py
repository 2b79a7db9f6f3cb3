"""`anyws serve`: an echo, a broadcast, its log, and its end."""

from __future__ import annotations

import logging
import re
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

import anyws
from anyws._cli import _serve
from anyws._cli._arguments import ServeArguments, parse_arguments
from anyws._cli._serve import serve
from tests.sockets import LIMIT, open_peer, raw_client
from tests.sockets import serving as serving_echo
from tests.tls import AUTHORITY, client_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

pytestmark = pytest.mark.anyio


def serve_arguments(*options: str) -> ServeArguments:
    arguments = parse_arguments(["serve", "--host", "127.0.0.1", "--port", "0", *options])
    assert isinstance(arguments, ServeArguments)
    return arguments


class Log(logging.Handler):
    """What the server has logged so far."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._changed = anyio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, pattern: str) -> re.Match[str]:
        while True:
            for line in self.lines:
                if match := re.fullmatch(pattern, line):
                    return match
            await self._changed.wait()


@asynccontextmanager
async def serving(
    *options: str, signum: signal.Signals | None = signal.SIGTERM
) -> AsyncGenerator[tuple[str, Log], None]:
    """Run the command, give its URI and its log, and end it by a signal, unless the test does."""
    log = Log()
    logger = logging.getLogger("anyws.server")
    logger.addHandler(log)
    statuses: list[int] = []

    async def run() -> None:
        statuses.append(await serve(serve_arguments(*options)))

    try:
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                match = await log.until(r"(echo|broadcast) server: (.*)")
                yield match[2], log
                if signum is not None:
                    signal.raise_signal(signum)
    finally:
        logger.removeHandler(log)
    assert statuses == [0]
    assert logger.level == logging.NOTSET


async def test_echo_sends_back() -> None:
    async with serving() as (uri, _), anyws.connect(uri) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"
        await ws.send(b"\x00")
        assert await ws.recv() == b"\x00"


async def test_broadcast_sends_to_all() -> None:
    async with serving("--broadcast") as (uri, log):
        async with anyws.connect(uri) as one, anyws.connect(uri) as two:
            await log.until(f"connection of {address(two)} to / opened")
            await one.send("hello")
            assert [await one.recv(), await two.recv()] == ["hello", "hello"]


def address(ws: anyws.Connection) -> str:
    return re.escape("{}:{}".format(*ws.local_address))


async def test_connection_has_a_line_at_its_beginning_and_at_its_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with serving() as (uri, log):
        async with anyws.connect(f"{uri}chat?token=secret") as ws:
            where = address(ws)
        await log.until(f"connection of {where} to /chat ended after .*: received 1000 .*")
    assert f"connection of {ws.local_address[0]}:{ws.local_address[1]} to /chat opened" in log.lines
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(log.lines)
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", line) for line in told)
    assert "secret" not in str(told)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_signal_closes_with_1001(signum: signal.Signals) -> None:
    ended: list[int | None] = []

    async def stay(uri: str, opened: anyio.Event) -> None:
        async with anyws.connect(uri) as ws:
            opened.set()
            await ws.wait_closed()
            ended.append(ws.close_code)

    async with anyio.create_task_group() as tasks:
        async with serving(signum=signum) as (uri, _):
            opened = anyio.Event()
            tasks.start_soon(stay, uri, opened)
            await opened.wait()
    assert ended == [1001]


async def test_second_signal_does_not_wait_for_the_peers() -> None:
    async with serving(signum=None) as (uri, _):
        async with raw_client(int(re.findall(r":(\d+)/", uri)[0])) as peer:
            await open_peer(peer)
            signal.raise_signal(signal.SIGTERM)
            assert await peer.read_until(b"\x03\xe9") == b"\x88\x02\x03\xe9"  # Close 1001
            # It gets no answer.
            signal.raise_signal(signal.SIGINT)
            await peer.read_until_eof()


async def test_other_paths_are_refused() -> None:
    async with serving("--path", "/chat") as (uri, _):
        assert uri.endswith("/chat")
        async with anyws.connect(f"{uri}?x=y"):
            pass
        with pytest.raises(anyws.InvalidStatus) as caught:
            async with anyws.connect(uri.replace("/chat", "/other")):
                pass
    response = caught.value.response
    assert (response.status, response.body) == (404, b"the path is /chat\n")


@pytest.mark.parametrize("options", [["--origin", "https://example.com"], ["--origin", "*"]])
async def test_origins_can_be_allowed(options: list[str]) -> None:
    async with serving(*options) as (uri, _):
        async with anyws.connect(uri, origin="https://example.com"):
            pass
        # The origin is that of a page: what is none, such as our own client, may always connect.
        async with anyws.connect(uri):
            pass


async def test_pages_of_other_hosts_are_refused() -> None:
    async with serving() as (uri, _):
        with pytest.raises(anyws.InvalidStatus, match="HTTP 403"):
            async with anyws.connect(uri, origin="https://example.com"):
                pass


async def test_certificate_serves_wss(tmp_path: Path) -> None:
    path = tmp_path / "server.pem"
    AUTHORITY.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    async with serving("--certfile", str(path)) as (uri, _):
        assert uri.startswith("wss://127.0.0.1:")
        async with anyws.connect(uri, ssl=client_context()) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


async def test_limits_are_those_of_the_options() -> None:
    async with serving("--max-size", "10", "--no-compression") as (uri, _):
        async with anyws.connect(uri) as ws:
            assert not ws.extensions
            await ws.send("x" * 11)
            with pytest.raises(anyws.ConnectionClosedError, match="1009"):
                await ws.recv()


async def test_certificate_without_its_key_is_told_with_the_option_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(path)
    with pytest.raises(SystemExit):
        await serve(serve_arguments("--certfile", str(path)))
    told = capsys.readouterr().err
    assert told.startswith("usage: see anyws serve --help\nanyws serve: error: cannot use ")
    assert f"cannot use {path}: " in told
    assert told.endswith("; --keyfile names its key, if that is in another file\n")


async def test_address_in_use_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving_echo() as server:
        assert await serve(serve_arguments("--port", str(server.port))) == 4
    line = f"anyws: cannot listen on 127.0.0.1 port {server.port}: Address already in use\n"
    assert capsys.readouterr().err.endswith(line)


def test_ipv6_address_is_in_brackets_in_the_uri() -> None:
    assert _serve._uri(serve_arguments("--host", "::1"), 80) == "ws://[::1]:80/"
