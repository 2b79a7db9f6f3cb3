"""A proxy over TCP between one client and one server, with one fault at one byte.

Owns how each fault is made of what sockets can do; knows no WebSocket.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import SocketAttribute

from tests.reliability.fault_links import DOWN, UP, Fault

if TYPE_CHECKING:
    from anyio.abc import SocketStream, TaskStatus

# Seconds between two pieces that are to be read apart, and of what counts as a delay.
_PAUSE = 0.002
_DELAY = 0.05


class FaultProxy:
    """Takes one connection, and hands its bytes on but for one fault.

    Args:
        fault: "split", "delay", "stall" and "half-close" as in `Fault`; "reset" resets both
            connections.
        port: where the server listens.
    """

    def __init__(self, fault: Fault, port: int) -> None:
        self._fault = fault
        self._port = port
        self.passed = {UP: 0, DOWN: 0}
        """Bytes that came from either side."""

    async def run(self, *, task_status: TaskStatus[int] = TASK_STATUS_IGNORED) -> None:
        """Hand on until both directions have ended; the status is the port to connect to."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener:
            task_status.started(listener.extra(SocketAttribute.local_port))
            (one,) = listener.listeners
            near = await one.accept()  # type: ignore[attr-defined]  # it is a socket's
        async with near, await anyio.connect_tcp("127.0.0.1", self._port) as far:
            # Asked for now: uvloop does not give them once they are closed.
            self._sockets = {it: it.extra(SocketAttribute.raw_socket) for it in (near, far)}
            async with anyio.create_task_group() as tg:
                tg.start_soon(self._pump, near, far, UP)
                tg.start_soon(self._pump, far, near, DOWN)

    async def _pump(self, source: SocketStream, target: SocketStream, direction: str) -> None:
        fault = self._fault if self._fault.where == direction else None
        try:
            while True:
                data = await source.receive()
                passed = self.passed[direction]
                self.passed[direction] += len(data)
                if fault is not None and passed <= fault.at < passed + len(data):
                    cut = fault.at - passed
                    if cut:
                        await target.send(data[:cut])
                    if not await self._misbehave(source, target):
                        return
                    data, fault = data[cut:], None
                await target.send(data)
        except anyio.EndOfStream:
            if fault is None or await self._misbehave(source, target, ended=True):
                await self._end(target)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._reset(target)

    async def _misbehave(
        self, source: SocketStream, target: SocketStream, *, ended: bool = False
    ) -> bool:
        """Do it; say whether what comes behind is handed on, bytes or the end."""
        kind = self._fault.kind
        if kind == "split":
            await anyio.sleep(_PAUSE)
        elif kind == "delay":
            await anyio.sleep(_DELAY)
        elif kind == "stall":
            await anyio.sleep_forever()  # the end of the session ends it
        elif kind == "half-close":
            await self._end(target)
            while not ended:  # the end of the source raises
                await source.receive()
            return False
        else:
            assert kind == "reset"
            await self._reset(target)
            await self._reset(source)
            return False
        return True

    async def _end(self, target: SocketStream) -> None:
        try:
            await target.send_eof()
        except (OSError, RuntimeError, anyio.BrokenResourceError):  # it is gone, says each loop
            await self._reset(target)

    async def _reset(self, stream: SocketStream) -> None:
        """Close it so that its peer sees a reset."""
        with contextlib.suppress(OSError, ValueError):  # it is closed already
            linger = struct.pack("ii", 1, 0)
            self._sockets[stream].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await stream.aclose()
