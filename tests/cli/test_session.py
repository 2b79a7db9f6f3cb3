"""What is typed on a terminal is sent or done, and what arrives is shown."""

from __future__ import annotations

import io
import sys
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from anyws._cli import _session
from anyws._cli._connecting import Interruption
from anyws._cli._formatting import Palette
from anyws._cli._session import PlainScreen, Session, talk_on_terminal
from anyws.testing import connection_pair
from tests.cli.pipes import OpenPipe, client_arguments
from tests.sockets import LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyws import Connection

pytestmark = pytest.mark.anyio

PLAIN = Palette(enabled=False)


class ScriptedScreen:
    """A screen on which lines of a script are typed, each when the test says so."""

    help = "Messages are scripted."

    def __init__(self) -> None:
        self.shown: list[str] = []
        self._typed: deque[str | None] = deque()
        self._changed = anyio.Event()

    def type(self, *lines: str | None) -> None:
        self._typed.extend(lines)
        self._changed.set()

    async def read(self) -> str | None:
        while not self._typed:
            self._changed = anyio.Event()
            await self._changed.wait()
        return self._typed.popleft()

    async def show(self, text: str) -> None:
        self.shown.append(text)
        self._changed.set()

    async def until_shown(self, beginning: str) -> str:
        while not (found := [text for text in self.shown if text.startswith(beginning)]):
            await anyio.lowlevel.checkpoint()
        return found[0]


class Conversation:
    def __init__(self, ws: Connection, peer: Connection) -> None:
        self.ws = ws
        self.peer = peer
        self.screen = ScriptedScreen()

    async def run(self, *options: str) -> None:
        await Session(self.ws, self.screen, client_arguments(*options), PLAIN).run()


@asynccontextmanager
async def conversation() -> AsyncGenerator[Conversation, None]:
    with anyio.fail_after(LIMIT):
        async with connection_pair() as (ws, peer):
            yield Conversation(ws, peer)


@pytest.mark.parametrize(
    ("options", "typed", "message"),
    [
        ([], "hello", "hello"),
        ([], "//slash", "/slash"),
        ([], "/one\n//two", "/one\n//two"),
        (["--binary"], "é", "é".encode()),
        (["--hex"], "00 ff", b"\x00\xff"),
        ([], "/binary 00ff", b"\x00\xff"),
        ([], "/binary", b""),
    ],
)
async def test_what_is_typed_is_sent(options: list[str], typed: str, message: str | bytes) -> None:
    async with conversation() as talk:
        talk.screen.type("", typed, None)
        await talk.run(*options)
        assert await talk.peer.recv() == message


async def test_what_arrives_is_shown_until_the_peer_closes() -> None:
    async with conversation() as talk:
        await talk.peer.send("hello\x1b")
        await talk.peer.send(b"A")
        talk.peer.start_soon(talk.peer.close)
        await talk.run()
        assert talk.screen.shown == ["< hello\\x1b", f"< 1 byte\n  00000000  41{' ' * 45}  A"]


async def test_count_ends_it() -> None:
    async with conversation() as talk:
        for text in ("one", "two", "three"):
            await talk.peer.send(text)
        await talk.run("--count", "2")
        assert talk.screen.shown == ["< one", "< two"]
        assert talk.ws.open


@pytest.mark.parametrize(
    ("typed", "code", "reason"),
    [("/close", 1000, ""), ("/close 1001 see you", 1001, "see you"), ("/close 4000", 4000, "")],
)
async def test_close_has_code_and_reason(typed: str, code: int, reason: str) -> None:
    async with conversation() as talk:
        talk.screen.type(typed)
        await talk.run()
        await talk.peer.wait_closed()
        assert (talk.peer.close_code, talk.peer.close_reason) == (code, reason)


@pytest.mark.parametrize(
    ("typed", "note"),
    [
        ("/close 999", "close code 999 may not be sent"),
        ("/close now", "'now' is no close code; write /close 1001 bye"),
        ("/binary 0", "'0' is not an even number of hexadecimal digits"),
        ("/ping " + "x" * 126, "data of 126 bytes exceeds the limit of 125 bytes"),
        ("/nonsense", "no command /nonsense; /help lists them, // sends a slash"),
        ("/\x1b", r"no command /\x1b; /help"),
        ("/help", "/ping [TEXT]"),
        ("/ping", "pong after "),
        ("/ping hello", "pong after "),
    ],
)
async def test_command_is_answered_by_a_note(typed: str, note: str) -> None:
    async with conversation() as talk:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk.run)
            talk.screen.type(typed)
            await talk.screen.until_shown(note)
            tasks.cancel_scope.cancel()
        assert talk.ws.open


async def test_help_says_how_messages_are_typed_on_this_screen() -> None:
    async with conversation() as talk:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk.run)
            talk.screen.type("/help")
            told = await talk.screen.until_shown("/ping [TEXT]")
            tasks.cancel_scope.cancel()
    assert told.endswith("\nCtrl-D or Ctrl-C closes with 1000.\nMessages are scripted.")


async def test_info_shows_the_handshake_and_the_latency() -> None:
    async with conversation() as talk:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk.run)
            talk.screen.type("/info")
            before = await talk.screen.until_shown("> GET / HTTP/1.1")
            talk.screen.shown.clear()
            talk.screen.type("/ping")
            await talk.screen.until_shown("pong")
            talk.screen.type("/info")
            after = await talk.screen.until_shown("> GET")
            tasks.cancel_scope.cancel()
    assert "< HTTP/1.1 101 Switching Protocols\n" in before
    assert "\nsubprotocol: none; extensions: permessage-deflate" in before
    assert before.endswith("latency: no Pong yet")
    assert after.endswith(" ms")


async def test_ping_is_forgotten_when_the_connection_ends() -> None:
    async with conversation() as talk:
        session = Session(talk.ws, talk.screen, client_arguments(), PLAIN)
        pong = await talk.ws.ping()
        talk.ws.abort()
        await session._tell_latency(pong)
        assert talk.screen.shown == []


async def test_what_is_typed_too_late_is_nothing() -> None:
    async with conversation() as talk:
        await talk.ws.close()
        talk.screen.type("too late")
        session = Session(talk.ws, talk.screen, client_arguments(), PLAIN)
        async with anyio.create_task_group() as tasks:
            await session._type(tasks)
            assert not tasks.cancel_scope.cancel_called
        assert talk.screen.shown == []


class Terminal(io.StringIO):
    """Standard input or output of a process, with a pipe below it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def fileno(self) -> int:
        return self._number


@asynccontextmanager
async def plain_terminal(
    monkeypatch: pytest.MonkeyPatch, term: str
) -> AsyncGenerator[tuple[OpenPipe, OpenPipe, Conversation], None]:
    async with conversation() as talk:
        with OpenPipe() as stdin, OpenPipe() as stdout:
            monkeypatch.setenv("TERM", term)
            monkeypatch.setattr(sys, "stdin", Terminal(stdin.reader))
            monkeypatch.setattr(sys, "stdout", Terminal(stdout.writer))
            yield stdin, stdout, talk


async def test_dumb_terminal_has_plain_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with plain_terminal(monkeypatch, "dumb") as (stdin, stdout, talk):
        await talk.peer.send("first")
        stdin.put(b"second\n", end=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk_on_terminal, talk.ws, client_arguments(), Interruption())
            assert await stdout.take(8) == b"< first\n"
            assert await talk.peer.recv() == "second"
            stdin.put(b"third")  # and Ctrl-D, twice as it takes behind text
        assert await talk.peer.recv() == "third"
    assert (
        capsys.readouterr().err
        == "connected to localhost/; /help lists the commands, Ctrl-D ends\n"
    )


async def test_what_to_install_is_told_when_there_is_no_prompt_toolkit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_session, "find_spec", {}.get)
    async with plain_terminal(monkeypatch, "xterm") as (stdin, _, talk):
        stdin.put(b"hello\xff\n")
        await talk_on_terminal(talk.ws, client_arguments("--binary"), Interruption())
        assert await talk.peer.recv() == "hello\ufffd".encode()
    assert capsys.readouterr().err.endswith(
        "for line editing and history: pip install 'anyws[cli]'\n"
    )


async def test_lone_surrogates_do_not_end_a_plain_screen() -> None:
    with OpenPipe() as stdin, OpenPipe() as stdout, anyio.fail_after(LIMIT):
        await PlainScreen(stdin.reader, stdout.writer).show("\ud800")
        assert stdout.rest() == b"?\n"
