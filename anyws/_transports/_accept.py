"""Accepting sockets, many at a time.

Owns the calls of `accept`; the listening socket is that of an anyio listener.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Any, Protocol

from anyio import ClosedResourceError, create_task_group
from anyio.abc import Listener, SocketAttribute
from anyio.lowlevel import checkpoint

from ._base import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import TaskGroup

# Connections that are accepted before other tasks have their turn.
_MAX_ACCEPTED_WITHOUT_YIELD = 64


class Readiness(Protocol):
    """Waits for a socket, again and again."""

    async def wait(self) -> None:
        """Wait until it has something to read; ClosedResourceError once it is closed."""

    def close(self) -> None:
        """Let who waits go; before the socket is closed."""


class NativeListener(Listener[Transport]):
    """A listener that gives transports over its sockets.

    Args:
        listener: listens; it is closed with this one.
        make_transport: makes one of a non-blocking socket and its peer's address.
        make_readiness: makes what waits for the listening socket.
    """

    def __init__(
        self,
        listener: Listener[Any],
        make_transport: Callable[[socket.socket, Any], Transport],
        make_readiness: Callable[[socket.socket], Readiness],
    ) -> None:
        self._listener = listener
        self._make_transport = make_transport
        self._socket = listener.extra(SocketAttribute.raw_socket)
        self._is_tcp = listener.extra(SocketAttribute.family) != socket.AF_UNIX
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._readiness = make_readiness(self._socket)

    async def serve(
        self, handler: Callable[[Transport], Any], task_group: TaskGroup | None = None
    ) -> None:
        """Start a task for each connection that comes.

        Raises:
            OSError: accepting fails; it may be called again.
            ClosedResourceError: the listener is closed.

        Cancellation: loses no connection.
        """
        if task_group is None:
            async with create_task_group() as own_task_group:
                await self._serve(handler, own_task_group)
        else:
            await self._serve(handler, task_group)

    async def _serve(self, handler: Callable[[Transport], Any], task_group: TaskGroup) -> None:
        while True:
            for _ in range(_MAX_ACCEPTED_WITHOUT_YIELD):
                try:
                    raw, address = self._socket.accept()
                except BlockingIOError:
                    break
                except OSError as exc:
                    if self._socket.fileno() == -1:
                        raise ClosedResourceError from exc
                    raise
                try:
                    raw.setblocking(False)
                    if self._is_tcp:
                        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                except OSError:
                    # Its client has left already, which macOS says here.
                    raw.close()
                    continue
                task_group.start_soon(handler, self._make_transport(raw, address))
                # An accept() that fails takes ten times as long.
                if not self._poll.poll(0):
                    break
            else:
                await checkpoint()
                continue
            await self._readiness.wait()  # a connection, or aclose(), ends it

    async def aclose(self) -> None:
        if self._socket.fileno() != -1:
            self._readiness.close()
        await self._listener.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._listener.extra_attributes
