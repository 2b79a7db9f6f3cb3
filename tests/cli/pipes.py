"""Pipes in the place of standard input and output, and arguments as a user writes them.

Owns their descriptors, all of which are closed after a test.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

import anyio

from anyws._cli._arguments import ClientArguments, parse_arguments

if TYPE_CHECKING:
    from types import TracebackType


def client_arguments(*options: str, uri: str = "ws://localhost/") -> ClientArguments:
    arguments = parse_arguments([*options, uri])
    assert isinstance(arguments, ClientArguments)
    return arguments


class OpenPipe:
    """A pipe, whose ends are closed with the block if a test has not done it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._open = {self.reader, self.writer}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close_reader()
        self.close_writer()

    def close_reader(self) -> None:
        self._close(self.reader)

    def close_writer(self) -> None:
        self._close(self.writer)

    def _close(self, end: int) -> None:
        if end in self._open:
            self._open.remove(end)
            os.close(end)

    def put(self, data: bytes, *, end: bool = True) -> Self:
        """Write what fits into the pipe; then it ends, unless it is to stay open."""
        os.write(self.writer, data)
        if end:
            self.close_writer()
        return self

    async def take(self, size: int) -> bytes:
        """Read so many bytes; fewer if it ends."""
        data = b""
        while len(data) < size:
            await anyio.wait_readable(self.reader)
            chunk = os.read(self.reader, size - len(data))
            if not chunk:
                break
            data += chunk
        return data

    def rest(self) -> bytes:
        """Close the writer, and give all that is in the pipe."""
        self.close_writer()
        data = b""
        while chunk := os.read(self.reader, 65536):
            data += chunk
        return data
