"""The transport over a socket that trio watches.

Owns how to wait for a socket there: one task that reads and is the timer, and another one only
while the socket takes no more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio
from anyio import ClosedResourceError

from ._socket import SocketTransport

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable


class TrioTransport(SocketTransport):
    """A connected socket as a transport, on trio.

    Args:
        raw_socket: as for `SocketTransport`.
    """

    __slots__ = (
        "_callback",
        "_deadline",
        "_over",
        "_parked",
        "_running",
        "_scope",
        "_wanted",
        "_write_scope",
    )

    def __init__(self, raw_socket: socket.socket) -> None:
        super().__init__(raw_socket)
        self._wanted = False
        self._over = False
        self._running = False
        self._parked: trio.lowlevel.Task | None = None
        self._deadline = math.inf
        self._callback: Callable[[], None] | None = None
        # What cancels them is the end of reading and the timer, which the connection's close
        # watchdog sets; and the end of writing.
        self._scope = trio.CancelScope(shield=True)
        self._write_scope = trio.CancelScope(shield=True)

    # The one task: it reads, and is the timer.

    async def _run(self) -> None:
        while not self._over or self._deadline < math.inf:
            with trio.CancelScope(shield=True, deadline=self._deadline) as self._scope:
                while self._wanted or not self._over:
                    if self._wanted:
                        await trio.lowlevel.wait_readable(self._socket)
                        self._read()
                    else:
                        self._parked = trio.lowlevel.current_task()
                        await trio.lowlevel.wait_task_rescheduled(self._leave)
                await trio.sleep_forever()
            if self._deadline <= trio.current_time():
                self._deadline = math.inf
                assert self._callback is not None
                self._callback()
        self._running = False

    def _leave(self, _: object) -> trio.lowlevel.Abort:
        self._parked = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _ensure_running(self) -> None:
        if not self._running:
            self._running = True
            assert self._task_group is not None
            self._task_group.start_soon(self._run, name="anyws reader")

    def _watch_reading(self) -> None:
        self._wanted = True
        self._ensure_running()
        if self._parked is not None:
            trio.lowlevel.reschedule(self._parked)
            self._parked = None

    def _ignore_reading(self) -> None:
        self._wanted = False
        if self._read_ended or self._aborted or self._closed:
            self._over = True
            self._scope.cancel()

    def set_timer(self, deadline: float, callback: Callable[[], None]) -> None:
        self._deadline = deadline
        self._callback = callback
        if deadline < math.inf:
            self._ensure_running()
            self._scope.deadline = deadline
        elif self._over:
            self._scope.cancel()
        else:
            self._scope.deadline = deadline

    def _watch_writing(self) -> None:
        assert self._task_group is not None
        self._write_scope = trio.CancelScope(shield=True)
        self._task_group.start_soon(self._wait_and_send, self._write_scope, name="anyws flusher")

    def _ignore_writing(self) -> None:
        self._write_scope.cancel()

    async def _wait_and_send(self, scope: trio.CancelScope) -> None:
        with scope:
            await trio.lowlevel.wait_writable(self._socket)
        if not scope.cancel_called:
            self._send_blocked()

    def _call_soon(self, callback: Callable[[], None]) -> None:
        assert self._task_group is not None

        async def call() -> None:
            callback()

        self._task_group.start_soon(call)

    async def _wait_readable(self) -> None:
        try:
            await trio.lowlevel.wait_readable(self._socket)
        except trio.ClosedResourceError:
            raise ClosedResourceError from None

    async def _wait_writable(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._socket)
        except trio.ClosedResourceError:
            raise ClosedResourceError from None

    def _leave_socket(self) -> None:
        trio.lowlevel.notify_closing(self._socket)


class TrioReadiness:
    """Waits, again and again, until a socket has something to read: a connection to be accepted.

    Args:
        raw_socket: the socket; `close()` comes before its end.
    """

    def __init__(self, raw_socket: socket.socket) -> None:
        self._socket = raw_socket

    async def wait(self) -> None:
        """Wait until there is something.

        Raises:
            ClosedResourceError: it was closed.

        Cancellation: loses nothing.
        """
        try:
            await trio.lowlevel.wait_readable(self._socket)
        except (trio.ClosedResourceError, ValueError):  # it is no descriptor any more
            raise ClosedResourceError from None

    def close(self) -> None:
        """Let who waits go."""
        trio.lowlevel.notify_closing(self._socket)
