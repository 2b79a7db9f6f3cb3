"""The transport over a socket that trio watches.

Owns how to wait for a socket there: a task that reads, and another one only while the socket takes
no more.
"""

from __future__ import annotations

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

    def __init__(self, raw_socket: socket.socket) -> None:
        super().__init__(raw_socket)
        self._watching = False
        self._reader: trio.lowlevel.Task | None = None
        self._reader_runs = False
        # Both are cancelled by the end of reading and of writing, which the connection's close
        # watchdog brings about at the latest: that bounds the two shields.
        self._read_scope = trio.CancelScope(shield=True)
        self._write_scope = trio.CancelScope(shield=True)

    def _watch_reading(self) -> None:
        self._watching = True
        if not self._reader_runs:
            self._reader_runs = True
            assert self._task_group is not None
            self._task_group.start_soon(self._read_forever, name="anyws reader")
        elif self._reader is not None:
            trio.lowlevel.reschedule(self._reader)
            self._reader = None

    def _ignore_reading(self) -> None:
        self._watching = False
        if self._read_ended or self._aborted or self._closed:
            self._read_scope.cancel()

    async def _read_forever(self) -> None:
        with self._read_scope:
            while True:
                if self._watching:
                    await trio.lowlevel.wait_readable(self._socket)
                    if self._watching:
                        self._read()
                else:
                    self._reader = trio.lowlevel.current_task()
                    await trio.lowlevel.wait_task_rescheduled(self._leave)

    def _leave(self, _: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

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
