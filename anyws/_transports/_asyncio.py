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
from typing import TYPE_CHECKING, Any

from anyio import ClosedResourceError

from ._socket import SocketTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from .._parking import Parking


class Guest(asyncio.Future[None]):
    """What one task waits for, to go on within the callback that has something for it.

    With a plain Future it would go on in the next turn of the event loop, which asks the system for
    more events first: a fifth of what a small message costs when nothing else happens.
    """

    __slots__ = ("_context", "_go_on", "_gone")

    def add_done_callback(
        self, fn: Callable[[Guest], object], /, *, context: Context | None = None
    ) -> None:
        """Take how the task goes on: the task that awaits it calls this, and nobody else does."""
        assert context is not None
        self._go_on = fn
        self._context = context
        self._gone = False

    def cancel(self, msg: Any = None) -> bool:
        """Let the task go on with a cancellation, in the next turn."""
        # First, and also if it is done but has not gone on: an interrupt of the user's may come
        # between any two calls, and a task that nobody lets go on could never be cancelled.
        self.go_on_soon()
        return super().cancel(msg)

    def go_on(self) -> None:
        """Let the task run until it waits again; only where no task runs."""
        self._gone = True
        self._context.run(self._go_on, self)

    def go_on_soon(self) -> None:
        """Let it go on in the next turn of the event loop."""
        self.get_loop().call_soon(self._go_on_late, context=self._context)

    def _go_on_late(self) -> None:
        if not self._gone:
            super().cancel()  # without effect if it is done, as nearly always
            self._gone = True
            self._go_on(self)


class AsyncioTransport(SocketTransport):
    """A connected socket as a transport, on asyncio.

    Args:
        raw_socket: as for `SocketTransport`.
        peer: likewise.
    """

    __slots__ = (
        "_context",
        "_descriptor",
        "_guest",
        "_in_turn",
        "_loop",
        "_read_waiter",
        "_reading",
        "_timer",
        "_watched_once",
        "_woken",
        "_write_waiter",
        "_writing",
    )

    def __init__(self, raw_socket: socket.socket, peer: Any = None) -> None:
        super().__init__(raw_socket, peer)
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
        # What the task that waits for messages waits for; the same once there is one, until it goes
        # on; and whether a callback runs that lets it go on at its end, and then sends what was
        # written.
        self._guest: Guest | None = None
        self._woken: Guest | None = None
        self._in_turn = False
        self._timer: asyncio.TimerHandle | None = None
        self._read_waiter: Guest | None = None
        self._write_waiter: asyncio.Future[None] | None = None

    def _watch_reading(self) -> None:
        # An opening handshake that has waited leaves it watched.
        if not self._reading:
            self._reading = True
            # A copy, because the context itself is entered where one of its callbacks calls this.
            self._context.copy().run(self._loop.add_reader, self._descriptor, self._take_turn)

    def _take_turn(self) -> None:
        """Read, let who waits for a message go on with it, and send what that has written."""
        if self._receiver is None:
            self._wake_reader()
            return
        self._in_turn = True
        try:
            self._read()
            if self._watched_once:
                self._watch_again()
            while self._woken is not None:
                guest, self._woken = self._woken, None
                guest.go_on()
        finally:
            self._in_turn = False
            if self._flush_due:
                self._end_turn()

    def _end_turn(self) -> None:
        guest = self._guest
        if guest is None or not guest.done():
            self._flush_due_now()
        elif not self._blocked:
            # It goes on in the next turn, before this.
            super()._flush_soon()

    def _flush_soon(self) -> None:
        if self._in_turn:
            self._flush_due = True
        else:
            super()._flush_soon()

    def make_parking(self) -> Parking:
        return self

    def park(self) -> Awaitable[None]:
        """Give what waits for `wake()`.

        Cancellation: loses nothing.
        """
        self._guest = Guest(loop=self._loop)
        return self._guest

    def wake(self) -> None:
        """Let the guest go on; without effect if there is none."""
        guest = self._guest
        if guest is not None and not guest.done():
            guest.set_result(None)
            if self._in_turn:
                self._woken = guest
            else:
                guest.go_on_soon()

    def _watch_again(self) -> None:
        if self._reading:
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._read_error = OSError(error, os.strerror(error))
            # The socket tells an error once: a reply may have met it before.
            if error or self._write_error is not None:
                self._ignore_reading()
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

    def set_timer(self, deadline: float, callback: Callable[[], None] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if callback is not None and deadline < math.inf:
            self._timer = self._loop.call_at(deadline, callback, context=self._context)

    def _call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback, context=self._context)

    async def _wait_readable(self) -> None:
        self._read_waiter = Guest(loop=self._loop)
        try:
            self._watch_reading()
            await self._read_waiter
        finally:
            self._read_waiter = None

    def _wake_reader(self) -> None:
        waiter = self._read_waiter
        # It stays watched as long as somebody waits each time: a handshake takes two or three.
        if waiter is None or self._watched_once:
            self._ignore_reading()
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
            waiter.go_on()

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
        if self._read_waiter is not None and not self._read_waiter.done():
            self._read_waiter.set_result(None)  # it sees for itself
            self._read_waiter.go_on_soon()
        if self._write_waiter is not None and not self._write_waiter.done():
            self._write_waiter.set_exception(ClosedResourceError())


class AsyncioReadiness:
    """Waits, again and again, until a socket has something to read: a connection to be accepted.

    Args:
        raw_socket: the socket; `close()` comes before its end.
    """

    def __init__(self, raw_socket: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = raw_socket.fileno()
        self._guest: Guest | None = None
        self._watching = False
        self._closed = False

    async def wait(self) -> None:
        """Wait until there is something.

        Raises:
            ClosedResourceError: it was closed.

        Cancellation: loses nothing.
        """
        self._guest = Guest(loop=self._loop)
        try:
            if not self._watching:
                self._watching = True
                self._loop.add_reader(self._descriptor, self._wake)
            await self._guest  # _wake() or close() ends it
        finally:
            self._guest = None
        if self._closed:
            raise ClosedResourceError

    def _wake(self) -> None:
        guest = self._guest
        if guest is None:
            self._ignore()
        elif not guest.done():
            guest.set_result(None)
            guest.go_on()

    def _ignore(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._descriptor)

    def close(self) -> None:
        """Let who waits go."""
        self._closed = True
        self._ignore()
        if self._guest is not None and not self._guest.done():
            self._guest.set_result(None)
            self._guest.go_on_soon()
