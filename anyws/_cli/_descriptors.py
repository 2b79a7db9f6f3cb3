"""Reading and writing the descriptors of standard input and output, so that it can be cancelled.

Owns the waits for pipes, terminals and files; knows no message. A thread that is blocked in read()
cannot be cancelled, and would keep the program from ending. So pipes, terminals and sockets are
waited for by the event loop. Regular files, of which no event loop tells anything, are read and
written in a thread: that always comes to an end.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from anyio import to_thread, wait_readable, wait_writable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_CHUNK_SIZE = 2**16

# A pipe or a terminal that is ready takes this many bytes without blocking (POSIX: PIPE_BUF, at
# least 512; the figure of Linux for both).
_WRITE_SIZE = 4096

# Bytes of a line. What has no line end would fill the memory; hardly a peer takes that much.
_MAX_LINE_SIZE = 2**26


class Descriptor:
    """An open descriptor, which somebody else closes.

    Args:
        number: its number.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._waits = True
        """Whether an event loop can tell when it is ready."""
        self._line = bytearray()
        self._lines: list[bytes] = []
        """Whole lines that were read and not given yet, the last one first."""
        self._ended = False

    async def read(self) -> bytes:
        """Read what is there; nothing at the end.

        Raises:
            OSError: it cannot be read.

        Cancellation: nothing is lost, unless it is a regular file.
        """
        if self._waits and await self._ready(wait_readable):
            return self._read_now()
        return await to_thread.run_sync(self._read_now)

    async def read_line(self) -> bytes | None:
        r"""Read a line, without its `\n` or `\r\n`; None at the end. The last may have no line end.

        Raises:
            OSError: it cannot be read.
            ValueError: the line is too long.

        Cancellation: as for `read`.
        """
        while not self._lines:
            if self._ended:
                return None
            chunk = await self.read()
            if chunk:
                self._split(chunk)
            else:
                self._ended = True
                if self._line:
                    self._lines.append(bytes(self._line))
        return self._lines.pop()

    async def write(self, data: bytes) -> None:
        """Write all of it; who reads it slowly makes this wait.

        Raises:
            BrokenPipeError: nobody will read it.
            OSError: it cannot be written.

        Cancellation: a part of it may have been written.
        """
        view = memoryview(data)
        while view:
            if self._waits and await self._ready(wait_writable):
                view = view[os.write(self._number, view[:_WRITE_SIZE]) :]
            else:
                view = view[await to_thread.run_sync(os.write, self._number, view) :]

    async def _ready(self, wait: Callable[[int], Awaitable[None]]) -> bool:
        """Wait until it is; False if no event loop tells."""
        try:
            await wait(self._number)
        except OSError:  # EPERM, as epoll says it of a regular file
            self._waits = False
        return self._waits

    def _read_now(self) -> bytes:
        try:
            return os.read(self._number, _CHUNK_SIZE)
        except OSError as exc:
            if exc.errno == errno.EIO:
                return b""  # the terminal has gone, which is its way to end
            raise

    def _split(self, chunk: bytes) -> None:
        first, *others = chunk.split(b"\n")
        self._line += first
        if len(self._line) > _MAX_LINE_SIZE:
            raise ValueError(f"line of more than {_MAX_LINE_SIZE} bytes")
        if others:
            lines = [bytes(self._line), *others]
            self._line = bytearray(lines.pop())
            self._lines = [line.removesuffix(b"\r") for line in reversed(lines)]
