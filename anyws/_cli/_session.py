"""A conversation on a terminal: what is typed is sent, what arrives appears above it.

Owns the commands that begin with a slash, and what is shown; how lines are edited is the screen's.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from anyio import create_task_group

from ..exceptions import ConcurrencyError, ConnectionClosed
from ._descriptors import Descriptor
from ._formatting import escape, palette_for, show_agreement, show_handshake, show_message, tell
from ._messages import InputError, parse_hex, parse_line

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import TaskGroup

    from .. import PongWaiter
    from .._connection import Connection
    from ._arguments import ClientArguments
    from ._connecting import Interruption
    from ._formatting import Palette

_HELP = """\
/ping [TEXT]           send a Ping; tells the latency when its Pong comes
/binary HEX            send a Binary message, such as /binary 00 ff
/close [CODE [REASON]] close, such as /close 1001 bye; the code is 1000 unless given
/info                  show the opening handshake, addresses and latency
/help                  show this
//...                  send a message that begins with a slash
Ctrl-D or Ctrl-C closes with 1000.
"""


class Screen(Protocol):
    """A terminal on which lines are typed while others are shown."""

    help: str
    """How messages are typed on it."""

    async def read(self) -> str | None:
        """Give what was typed next; None when there will be no more."""

    async def show(self, text: str) -> None:
        """Show lines above what is being typed."""


class PlainScreen:
    """A terminal that does the editing itself, for where prompt_toolkit is not installed.

    Args:
        stdin: the descriptor of the terminal to read from.
        stdout: likewise, to write to.
    """

    help = "Each line is a message."

    def __init__(self, stdin: int, stdout: int) -> None:
        self._input = Descriptor(stdin)
        self._output = Descriptor(stdout)

    async def read(self) -> str | None:
        """Give the next line; None after Ctrl-D.

        Cancellation: nothing is lost.
        """
        line = await self._input.read_line()
        return None if line is None else line.decode(errors="replace")

    async def show(self, text: str) -> None:
        """Write lines.

        Cancellation: a part of them may have been written.
        """
        await self._output.write(f"{text}\n".encode(errors="replace"))


async def talk_on_terminal(
    ws: Connection, arguments: ClientArguments, interruption: Interruption
) -> None:
    """Talk until the user or the peer ends it.

    Cancellation: at once; the terminal is left as it was.
    """
    palette = palette_for(sys.stdout)
    where = f"{ws.request.headers.get('Host', '')}{ws.path.partition('?')[0]}"
    tell(f"connected to {escape(where)}; /help lists the commands, Ctrl-D ends")
    async with _open_screen(interruption, palette) as screen:
        await Session(ws, screen, arguments, palette).run()


@asynccontextmanager
async def _open_screen(
    interruption: Interruption, palette: Palette
) -> AsyncGenerator[Screen, None]:
    if os.environ.get("TERM", "dumb") == "dumb":
        yield PlainScreen(sys.stdin.fileno(), sys.stdout.fileno())
    elif find_spec("prompt_toolkit") is None:
        tell("for line editing and history: pip install 'anyws[cli]'")
        yield PlainScreen(sys.stdin.fileno(), sys.stdout.fileno())
    else:
        from ._prompt import open_prompt  # noqa: PLC0415  # an extra

        async with open_prompt(lambda: interruption(signal.SIGINT), palette) as screen:
            yield screen


class Session:
    """One conversation.

    Args:
        ws: an open connection.
        screen: where it is typed and shown.
        arguments: what the user wants.
        palette: the colours.
    """

    def __init__(
        self, ws: Connection, screen: Screen, arguments: ClientArguments, palette: Palette
    ) -> None:
        self._ws = ws
        self._screen = screen
        self._arguments = arguments
        self._palette = palette

    async def run(self) -> None:
        """Talk until no more is typed, the connection has ended, or `--count` messages have come.

        Cancellation: at once.
        """
        async with create_task_group() as tasks:
            tasks.start_soon(self._type, tasks)
            await self._receive()
            tasks.cancel_scope.cancel()

    async def _note(self, text: str, colour: str = "yellow") -> None:
        await self._screen.show(self._palette(colour, text))

    async def _receive(self) -> None:
        left = self._arguments.count
        try:
            while left is None or left > 0:
                message = await self._ws.recv()
                await self._screen.show(show_message(message, self._palette))
                if left is not None:
                    left -= 1
        except ConnectionClosed:
            return  # the caller tells of it

    async def _type(self, tasks: TaskGroup) -> None:
        try:
            while (text := await self._screen.read()) is not None:
                try:
                    await self._take(text, tasks)
                except (InputError, ValueError, ConcurrencyError) as exc:
                    await self._note(escape(str(exc)), "red")
        except ConnectionClosed:
            return  # likewise
        tasks.cancel_scope.cancel()

    async def _take(self, text: str, tasks: TaskGroup) -> None:
        """Send what was typed, or do what it commands.

        Raises:
            InputError: it is no command, or nothing that can be sent.
            ValueError: likewise.
            ConcurrencyError: a Ping with this text waits for its Pong.
            ConnectionClosed: the connection is no longer open.
        """
        if not text:
            return
        if "\n" in text or not text.startswith("/") or text.startswith("//"):
            message = text[1:] if text.startswith("//") and "\n" not in text else text
            # What a terminal could not decode is a lone surrogate.
            line = message.encode("utf-8", "surrogateescape")
            await self._ws.send(parse_line(line, self._arguments.form))
            return
        command, _, rest = text.partition(" ")
        rest = rest.strip()
        if command == "/ping":
            tasks.start_soon(self._tell_latency, await self._ws.ping(rest or None))
        elif command == "/binary":
            await self._ws.send(parse_hex(rest))
        elif command == "/close":
            await self._close(rest)
        elif command == "/info":
            await self._tell_info()
        elif command == "/help":
            await self._note(_HELP + self._screen.help)
        else:
            raise InputError(f"no command {command}; /help lists them, // sends a slash")

    async def _tell_latency(self, pong: PongWaiter) -> None:
        try:
            seconds = await pong
        except ConnectionClosed:
            return  # likewise
        await self._note(f"pong after {1000 * seconds:.1f} ms")

    async def _close(self, arguments: str) -> None:
        code, _, reason = arguments.partition(" ")
        if code and not code.isdecimal():
            raise InputError(f"'{code}' is no close code; write /close 1001 bye")
        # The end of the connection ends the session, and this wait if the peer does not answer.
        await self._ws.close(int(code or 1000), reason.strip())

    async def _tell_info(self) -> None:
        ws = self._ws
        lines = [
            *show_handshake(ws),
            show_agreement(ws),
            f"addresses: {ws.local_address} to {ws.remote_address}",
            f"latency: {1000 * ws.latency:.1f} ms" if ws.latency else "latency: no Pong yet",
        ]
        await self._note("\n".join(lines))
