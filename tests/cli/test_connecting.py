"""From arguments to an exit status: what is told of it, and what signals do meanwhile."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from anyws._cli import _connecting, _main
from anyws._cli._connecting import Interruption, connect_arguments, run_connected
from tests.cli.pipes import client_arguments
from tests.proxying import uninstall_python_socks
from tests.sockets import answering, scripted_server, serving
from tests.tls import AUTHORITY, server_context

if TYPE_CHECKING:
    from pathlib import Path

    import anyws
    from tests.wire import Peer

pytestmark = pytest.mark.anyio


async def say_nothing(ws: anyws.Connection, interruption: Interruption) -> int | None:
    return None


async def listen(ws: anyws.Connection, interruption: Interruption) -> int | None:
    async for _ in ws:
        pass
    return None


async def run(
    port: int, *options: str, talk: Any = say_nothing, tells_end: bool = False, scheme: str = "ws"
) -> int:
    arguments = client_arguments(*options, uri=f"{scheme}://127.0.0.1:{port}/")
    return await run_connected(arguments, talk, tells_end=tells_end)


def test_connect_is_told_what_the_user_wants() -> None:
    arguments = client_arguments("-H", "A: b", "-s", "chat", "-o", "null", "--max-size", "0")
    assert connect_arguments(arguments) == {
        "additional_headers": [("A", "b")],
        "subprotocols": ["chat"],
        "origin": "null",
        "compression": "deflate",
        "max_size": None,
        "close_timeout": 10.0,
    }
    arguments = client_arguments("--no-compression", "--proxy", "http://proxy:8080")
    told = connect_arguments(arguments)
    assert (told["compression"], told["proxy"]) == (None, "http://proxy:8080")


async def test_good_end_is_told_where_it_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as server:
        assert await run(server.port) == 0
        assert capsys.readouterr().err == ""
        assert await run(server.port, tells_end=True) == 0
    assert capsys.readouterr().err == "closed: sent 1000 (OK); then received 1000 (OK)\n"


async def test_handshake_and_end_are_told_when_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(subprotocols=["chat"]) as server:
        await run(server.port, "-v", "-s", "chat", "-H", "Authorization: secret")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "> GET / HTTP/1.1"
    assert "> Authorization: <hidden>" in lines
    assert "< HTTP/1.1 101 Switching Protocols" in lines
    assert lines[-2].startswith("subprotocol: chat; extensions: permessage-deflate")
    assert lines[-1] == "closed: sent 1000 (OK); then received 1000 (OK)"


async def test_bad_end_is_told_and_gives_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(lambda ws: ws.close(4000, "no\x1b")) as server:
        assert await run(server.port, talk=listen_to_the_end) == 40
    close = r"4000 (private use) 'no\x1b'"
    assert capsys.readouterr().err == f"anyws: closed: received {close}; then sent {close}\n"


async def listen_to_the_end(ws: anyws.Connection, interruption: Interruption) -> int | None:
    await ws.wait_closed()
    return None


async def test_status_of_the_talk_counts(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail(ws: anyws.Connection, interruption: Interruption) -> int | None:
        await ws.send("unread")
        return 1

    async with serving() as server:
        assert await run(server.port, talk=fail) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("options", "head"), [([], ""), (["-v"], "< HTTP/1.1 403 Forbidden\n")])
async def test_refusal_has_3(
    options: list[str], head: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno!\n"
    async with scripted_server(answering(answer)) as port:
        assert await run(port, *options) == 3
    told = capsys.readouterr().err
    assert told.startswith(f"anyws: server answered with HTTP 403, expected 101\nno!\n{head}")
    assert (head == "") is ("HTTP/1.1" not in told)


async def test_nobody_who_listens_has_4(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as server:
        port = server.port
    assert await run(port) == 4
    assert capsys.readouterr().err.startswith("anyws: Connection refused (while connecting to")


async def test_certificate_is_checked_unless_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    authority = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(authority)
    async with serving(ssl=server_context()) as server:
        assert await run(server.port, scheme="wss") == 4
        assert "--insecure does without" in capsys.readouterr().err
        assert await run(server.port, "--insecure", scheme="wss") == 0
        assert await run(server.port, "--cacert", str(authority), scheme="WSS") == 0
    assert capsys.readouterr().err == ""


async def test_proxy_that_lacks_its_extra_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uninstall_python_socks(monkeypatch)
    with pytest.raises(SystemExit) as caught:
        await run(80, "--proxy", "socks5h://alice:secret@proxy")
    assert caught.value.code == 2
    problem = "proxy socks5h://proxy:1080 needs python-socks: pip install 'anyws[socks]'\n"
    assert capsys.readouterr().err == f"usage: see anyws --help\nanyws: error: {problem}"
    monkeypatch.setenv("all_proxy", "socks5h://alice:secret@proxy")
    assert await run(80) == 4
    assert capsys.readouterr().err == f"anyws: {problem}"


async def test_closed_stderr_changes_no_status(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server:
        port = server.port
    monkeypatch.setattr(sys, "stderr", None)
    assert await run(port) == 4


@pytest.mark.parametrize(
    ("uri", "options", "problem"),
    [
        ("wss://localhost/", ["--cacert", "/nowhere"], "cannot read /nowhere: No such file"),
        ("localhost:80", [], "is not a WebSocket URI"),
        ("ws://localhost/", ["-H", "A: \x1b\n"], r"value of header 'A'"),
        ("ws://localhost/", ["-s", "a b"], "a b"),
    ],
)
async def test_what_shows_to_be_wrong_when_used_is_wrong_usage(
    uri: str, options: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        await run_connected(client_arguments(*options, uri=uri), say_nothing, tells_end=False)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert problem in told
    assert "\x1b" not in told


async def test_time_out_has_5(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as server:
        assert await run(server.port, "--timeout", "0.1", talk=listen) == 5
    assert capsys.readouterr().err == "anyws: time-out: 0.1 seconds are over\n"


@pytest.mark.parametrize(
    ("signum", "status", "code"), [(signal.SIGINT, 130, 1000), (signal.SIGTERM, 143, 1001)]
)
async def test_signal_closes_in_good_order(
    signum: signal.Signals, status: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[int | None] = []

    async def handle(ws: anyws.Connection) -> None:
        await ws.wait_closed()
        codes.append(ws.close_code)

    async def talk(ws: anyws.Connection, interruption: Interruption) -> int | None:
        signal.raise_signal(signum)
        await anyio.sleep_forever()
        raise AssertionError

    async with serving(handle) as server:
        assert await run(server.port, talk=talk) == status
        while not codes:
            await anyio.lowlevel.checkpoint()
    assert codes == [code]
    assert capsys.readouterr().err == ""


async def test_signal_ends_an_opening() -> None:
    async with scripted_server(interrupt_and_wait) as port:
        assert await run(port) == 130


async def interrupt_and_wait(peer: Peer) -> None:
    signal.raise_signal(signal.SIGINT)
    await anyio.sleep_forever()


async def stay_silent(peer: Peer) -> None:
    await anyio.sleep_forever()


async def test_second_signal_does_not_wait_for_the_peer() -> None:
    good = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    good += b"Sec-WebSocket-Accept: ACCEPT\r\n\r\n"

    async def talk(ws: anyws.Connection, interruption: Interruption) -> int | None:
        ws.start_soon(interrupt_when_closing, ws, interruption)
        interruption(signal.SIGINT)
        await anyio.sleep_forever()
        raise AssertionError

    async def interrupt_when_closing(ws: anyws.Connection, interruption: Interruption) -> None:
        while ws.open:
            await anyio.lowlevel.checkpoint()
        interruption(signal.SIGINT)

    # A peer that never answers the Close.
    async with scripted_server(answering(good, then=stay_silent)) as port:
        assert await run(port, "--close-timeout", "1000", talk=talk) == 130


async def test_signal_is_a_hurry_when_the_end_has_begun() -> None:
    calls: list[str] = []
    interruption = Interruption()
    with interruption.cancels(anyio.CancelScope(), lambda: calls.append("abort")) as scope:
        interruption.ends()
        interruption(signal.SIGINT)
        assert not scope.cancel_called
    assert calls == ["abort"]


async def test_signal_that_came_already_cancels_at_once() -> None:
    interruption = Interruption()
    interruption(signal.SIGINT)
    interruption(signal.SIGTERM)
    assert interruption.signum == signal.SIGINT
    assert interruption.cancels(anyio.CancelScope()).cancel_called


async def test_system_without_signals_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*signals: int) -> None:
        raise NotImplementedError

    monkeypatch.setattr(_connecting, "open_signal_receiver", fail)
    async with serving() as server:
        assert await run(server.port) == 0


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
async def test_closed_standard_stream_is_told(
    stream: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, stream, None)
        assert await _main._connect(client_arguments()) == 1
    assert "standard input or output is closed" in capsys.readouterr().err


def test_interrupt_before_signals_are_watched_has_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(anyio, "run", interrupt)
    assert _main.main(["ws://localhost/"]) == 130
