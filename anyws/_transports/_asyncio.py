"""The transport over a socket that an asyncio event loop watches, uvloop's likewise.

Owns how to wait for a socket there: no task, but callbacks of the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import os
import socket
import sys
from typing import TYPE_CHECKING

from anyio import ClosedResourceError

from .._parking import AsyncioParking
from ._socket import SocketTransport

if TYPE_CHECKING:
    from collections.abc import Callable


class AsyncioTransport(SocketTransport):
    """A connected socket as a transport, on asyncio.

    Args:
        raw_socket: as for `SocketTransport`.
    """

    __slots__ = (
        "_context",
        "_descriptor",
        "_loop",
        "_read_waiter",
        "_reading",
        "_timer",
        "_watched_once",
        "_write_waiter",
        "_writing",
    )

    def __init__(self, raw_socket: socket.socket) -> None:
        super().__init__(raw_socket)
        self._loop = asyncio.get_running_loop()
        # Not the socket: a selector makes a text of it, with calls of the system, when it looks for
        # one that it does not know.
        self._descriptor = raw_socket.fileno()
        self._context = contextvars.copy_context()
        # Where it is installed, anyio asks sniffio which event loop runs; it finds the task that
        # runs, and in a callback there is none.
        sniffio = sys.modules.get("sniffio")
        if sniffio is not None:
            self._context.run(sniffio.current_async_library_cvar.set, "asyncio")
        # libuv watches a socket no more once it has seen an error on it, though data may still be
        # in front of that.
        self._watched_once = type(self._loop).__module__.partition(".")[0] in {"uvloop", "winloop"}
        self._reading = False
        self._writing = False
        self._timer: asyncio.TimerHandle | None = None
        self._read_waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None

    def _watch_reading(self) -> None:
        self._reading = True
        # A copy, because the context itself is entered where one of its callbacks calls this.
        read = self._read_and_watch if self._watched_once else self._read
        self._context.copy().run(self._loop.add_reader, self._descriptor, read)

    def _read_and_watch(self) -> None:
        self._read()
        if self._reading:
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._read_error = OSError(error, os.strerror(error))
                self._loop.remove_reader(self._descriptor)
                self._watch_reading()

    def _ignore_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._descriptor)

    def _watch_writing(self) -> None:
        self._writing = True
        self._context.copy().run(self._loop.add_writer, self._descriptor, self._send_blocked)

    def _ignore_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._descriptor)

    def set_timer(self, deadline: float, callback: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline < math.inf:
            self._timer = self._loop.call_at(deadline, callback, context=self._context)

    def _call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback, context=self._context)

    async def _wait_readable(self) -> None:
        self._read_waiter = self._loop.create_future()
        try:
            if not self._reading:
                self._reading = True
                self._loop.add_reader(self._descriptor, self._wake_reader)
            await self._read_waiter
        finally:
            self._read_waiter = None

    def _wake_reader(self) -> None:
        # It stays watched as long as somebody waits each time: a handshake takes two or three.
        if self._read_waiter is None or self._watched_once:
            self._ignore_reading()
        if self._read_waiter is not None and not self._read_waiter.done():
            self._read_waiter.set_result(None)

    async def _wait_writable(self) -> None:
        self._write_waiter = self._loop.create_future()
        try:
            self._writing = True
            self._loop.add_writer(self._descriptor, self._wake_writer)
            await self._write_waiter
        finally:
            self._write_waiter = None
            self._ignore_writing()

    def _wake_writer(self) -> None:
        if self._write_waiter is not None and not self._write_waiter.done():
            self._write_waiter.set_result(None)

    def _leave_socket(self) -> None:
        for waiter in (self._read_waiter, self._write_waiter):
            if waiter is not None and not waiter.done():
                waiter.set_exception(ClosedResourceError())


class AsyncioReadiness:
    """Waits, again and again, until a socket has something to read: a connection to be accepted.

    Args:
        raw_socket: the socket; `close()` comes before its end.
    """

    def __init__(self, raw_socket: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = raw_socket.fileno()
        self._parking = AsyncioParking()
        self._waiting = False
        self._watching = False
        self._closed = False

    async def wait(self) -> None:
        """Wait until there is something.

        Raises:
            ClosedResourceError: it was closed.

        Cancellation: loses nothing.
        """
        self._waiting = True
        try:
            if not self._watching:
                self._watching = True
                self._loop.add_reader(self._descriptor, self._wake)
            await self._parking.park()  # _wake() or close() ends it
        finally:
            self._waiting = False
        if self._closed:
            raise ClosedResourceError

    def _wake(self) -> None:
        if self._waiting:
            self._parking.wake()
        else:
            self._ignore()

    def _ignore(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._descriptor)

    def close(self) -> None:
        """Let who waits go."""
        self._closed = True
        self._ignore()
        self._parking.wake()
