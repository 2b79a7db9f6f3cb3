"""The command line as a person sees it: the screen of a pseudo-terminal."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from websockets.sync.server import ServerConnection, serve

if sys.platform == "win32":
    pytest.skip("Windows has no pseudo-terminals of this kind", allow_module_level=True)

from tests.cli.terminals import DEADLINE, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator


class Peer:
    """A server whose only connection a test plays."""

    def __init__(self) -> None:
        self.uri = ""
        self._connected = threading.Event()
        self._done = threading.Event()
        self._ws: ServerConnection | None = None

    @property
    def ws(self) -> ServerConnection:
        assert self._connected.wait(DEADLINE)
        assert self._ws is not None
        return self._ws

    def handle(self, ws: ServerConnection) -> None:
        self._ws = ws
        self._connected.set()
        self._done.wait()

    def finish(self) -> None:
        self._done.set()


@contextmanager
def peer() -> Iterator[Peer]:
    here = Peer()
    with serve(here.handle, "127.0.0.1", 0) as server:
        here.uri = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/chat"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield here
        finally:
            here.finish()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
def test_messages_appear_above_what_is_being_typed(backend: str) -> None:
    with peer() as here, Terminal("--backend", backend, here.uri) as terminal:
        terminal.wait_for("connected to 127.0.0.1:", ">")
        terminal.type("half a li")
        terminal.wait_for("> half a li")
        here.ws.send("one\ntwo\x1b[2J")
        terminal.wait_for("< one", "  two\\x1b[2J", "> half a li")
        here.ws.send(b"\x00A")
        terminal.wait_for("< 2 bytes", "  00000000  00 41", "> half a li")
        terminal.type("ne\r")
        assert here.ws.recv(DEADLINE) == "half a line"
        terminal.wait_for("> half a line", ">")
        terminal.type("\x1b[200~pasted\nlines\x1b[201~")
        terminal.wait_for("> pasted", "lines")
        terminal.type("\r/ping\r")
        assert here.ws.recv(DEADLINE) == "pasted\nlines"
        terminal.wait_for("> /ping", "pong after ", ">")
        terminal.type("/close 1001 bye\r")
        terminal.wait_for("> /close 1001 bye", "closed: sent 1001 (going away) bye; then received")
        assert terminal.wait_end() == 0
        assert b"\x1b[32m<\x1b[0m one" in terminal.raw


def test_window_can_be_resized_while_a_line_is_typed() -> None:
    with peer() as here, Terminal(here.uri) as terminal:
        terminal.wait_for("connected to 127.0.0.1:", ">")
        terminal.type("x" * 50)
        terminal.wait_for("> " + "x" * 50)
        terminal.resize(40, 24)
        terminal.wait_for("x" * 12)
        here.ws.send("hello")
        terminal.wait_for("< hello", "> " + "x" * 38, "x" * 12)
        terminal.type("\x03")
        assert terminal.wait_end() == 130
        assert terminal.lines()[-2:] == ["closed: sent 1000 (OK); then received 10", "00 (OK)"]


def test_end_by_the_peer_is_told_without_colours_where_they_are_not_wanted() -> None:
    with peer() as here, Terminal(here.uri, NO_COLOR="1") as terminal:
        terminal.wait_for("connected to 127.0.0.1:", ">")
        here.ws.close(1011, "no more\x1b[2J")
        terminal.wait_for(
            "connected",
            "anyws: closed: received 1011 (internal error) 'no more\\x1b[2J'; then sent 1011 (",
            "internal error)",
        )
        assert terminal.wait_end() == 111
        assert b"\x1b[3" not in terminal.raw.replace(b"\x1b[?", b"")


def test_dumb_terminal_has_lines_and_ctrl_d() -> None:
    with peer() as here, Terminal(here.uri, TERM="dumb") as terminal:
        terminal.wait_for("connected to 127.0.0.1:")
        terminal.type("hello\n")
        assert here.ws.recv(DEADLINE) == "hello"
        here.ws.send("you too")
        terminal.wait_for("hello", "< you too")
        terminal.type("\x04")
        terminal.wait_for("closed: sent 1000")
        assert terminal.wait_end() == 0


def test_signal_ends_the_prompt_and_leaves_the_terminal_as_it_was() -> None:
    with peer() as here, Terminal("--backend", "trio", here.uri) as terminal:
        terminal.wait_for("connected to 127.0.0.1:", ">")
        terminal.type("half")
        terminal.wait_for("> half")
        terminal.process.send_signal(signal.SIGTERM)
        terminal.wait_for("> half", "closed: sent 1001")
        assert terminal.wait_end() == 143


def test_nobody_who_listens_is_one_red_line() -> None:
    with peer() as here:
        uri = here.uri
    with Terminal(uri) as terminal:
        assert terminal.wait_end() == 4
        assert terminal.raw.startswith(b"\x1b[31manyws: Connection refused (while connecting to")
        assert terminal.raw.count(b"\n") == 1
