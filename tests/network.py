"""A network in memory: servers by host and port, which `connect` finds as it finds those of TCP.

Owns who answers where; knows no frame (see `wire`). It works in virtual time.
"""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
import pytest

from anyws import _transports
from anyws.testing import MemoryListener, memory_stream_pair
from tests.wire import Peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from anyio.abc import ByteStream, TaskGroup


class MemoryNetwork:
    """Who listens where; nobody does unless told."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._listeners: dict[tuple[str, int], MemoryListener] = {}
        self._scripts: dict[tuple[str, int], Callable[[Peer], Awaitable[object]]] = {}
        self.dialled: list[tuple[str, int]] = []
        """Where was called, in order."""

    def listen(self, host: str = "localhost", port: int = 80) -> MemoryListener:
        """Give a listener for `serve`."""
        listener = self._listeners[host, port] = MemoryListener()
        return listener

    def script(
        self, script: Callable[[Peer], Awaitable[object]], host: str = "localhost", port: int = 80
    ) -> None:
        """Have a literal server run `script` for each connection."""
        self._scripts[host, port] = script

    async def open_tcp(self, host: str, port: int) -> ByteStream:
        """Connect as `_transports.open_tcp` does."""
        await anyio.lowlevel.checkpoint()
        self.dialled.append((host, port))
        if (host, port) in self._scripts:
            near, far = memory_stream_pair()
            self._tasks.start_soon(self._run, self._scripts[host, port], far)
            return near
        if (host, port) in self._listeners:
            with suppress(anyio.ClosedResourceError):
                return await self._listeners[host, port].connect()
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    async def _run(self, script: Callable[[Peer], Awaitable[object]], stream: ByteStream) -> None:
        async with stream:
            # The client leaves, as most of these tests want it to.
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
                await script(Peer(stream, masks=False))


@asynccontextmanager
async def memory_network() -> AsyncGenerator[MemoryNetwork, None]:
    """Put it in the place of TCP, for the time of a test."""
    error: Exception | None = None
    async with anyio.create_task_group() as tasks:
        network = MemoryNetwork(tasks)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_transports, "open_tcp", network.open_tcp)
            try:
                yield network
            except Exception as exc:  # noqa: BLE001  # it is to leave without a group around it
                error = exc
        tasks.cancel_scope.cancel()
    if error is not None:
        raise error
