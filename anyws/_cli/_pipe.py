"""A connection between standard input and output: a line in is a message out, and the reverse.

Owns what scripts rely on. The end of the input sends Close 1000, one round trip later; what arrives
until the connection has ended is still written. With `--count` or `--no-close`, the end of the
input closes nothing.
"""

from __future__ import annotations

import codecs
from contextlib import aclosing
from typing import TYPE_CHECKING

from anyio import create_task_group, move_on_after

from ..exceptions import ConnectionClosed
from ._descriptors import Descriptor
from ._formatting import complain
from ._messages import InputError, build_output, parse_line
from ._statuses import FAILED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio import CancelScope

    from .._connection import Connection
    from .._types import Data
    from ._arguments import ClientArguments


class Pipe:
    """Moves messages until the connection, the input or the output has ended.

    Args:
        ws: an open connection.
        arguments: what the user wants.
        stdin: the descriptor to read from.
        stdout: the descriptor to write to.
        terminal: whether `stdout` is a terminal.
    """

    def __init__(
        self,
        ws: Connection,
        arguments: ClientArguments,
        stdin: int,
        stdout: int,
        *,
        terminal: bool = False,
    ) -> None:
        self._ws = ws
        self._arguments = arguments
        self._input = Descriptor(stdin)
        self._output = Descriptor(stdout)
        self._terminal = terminal
        self._status: int | None = None

    async def run(self) -> int | None:
        """Move messages; the connection is left as it is then, open or not.

        Returns:
            The exit status if it failed by itself.

        Cancellation: at once; what was written of a message may be a part of it.
        """
        async with create_task_group() as tasks:
            tasks.start_soon(self._send, tasks.cancel_scope)
            await self._receive()
            tasks.cancel_scope.cancel()
        return self._status

    def _fail(self, problem: str) -> None:
        complain(problem)
        self._status = FAILED

    async def _receive(self) -> None:
        left = self._arguments.count
        try:
            while left is None or left > 0:
                message = await self._ws.recv()
                await self._output.write(
                    build_output(message, self._arguments.form, terminal=self._terminal)
                )
                if left is not None:
                    left -= 1
        except ConnectionClosed:
            return  # the caller tells of it
        except BrokenPipeError:
            return  # `| head -1` has what it wants
        except OSError as exc:
            self._fail(f"cannot write the output: {exc.strerror}")

    async def _send(self, scope: CancelScope) -> None:
        try:
            if self._arguments.whole:
                await self._send_whole()
            else:
                await self._send_lines()
            if self._arguments.count is None and not self._arguments.no_close:
                await self._end()
        except ConnectionClosed:
            return  # likewise
        except OSError as exc:
            self._fail(f"cannot read the input: {exc.strerror}")
        except (InputError, ValueError) as exc:
            self._fail(f"input: {exc}")
        if self._status is not None:
            scope.cancel()

    async def _end(self) -> None:
        """Send Close 1000, after a Ping and its Pong.

        A server that gets a Close behind the last message, and at once, cannot answer that message
        any more. The Pong gives it one round trip for that.
        """
        with move_on_after(self._arguments.close_timeout):
            await (await self._ws.ping())
        await self._ws.send_eof()

    async def _send_lines(self) -> None:
        while (line := await self._input.read_line()) is not None:
            await self._ws.send(parse_line(line, self._arguments.form))

    async def _send_whole(self) -> None:
        """Send all of the input as one message, a fragment for each chunk that comes."""
        try:
            async with aclosing(self._fragments()) as fragments:
                await self._ws.send(fragments)
        except UnicodeDecodeError:
            raise InputError("it is not UTF-8; --binary sends any bytes") from None

    async def _fragments(self) -> AsyncGenerator[Data, None]:
        decoder = codecs.getincrementaldecoder("utf-8")()
        binary = self._arguments.form == "binary"
        ended = False
        while not ended:
            chunk = await self._input.read()
            ended = not chunk
            # The empty fragment at the end is the whole of an empty input.
            yield chunk if binary else decoder.decode(chunk, final=ended)
