"""A faulty way between a client and a server in memory: one fault, at one byte.

Owns the faults and where they happen; knows no WebSocket. `FaultyStream` breaks or stalls one end
after so many bytes of both directions; what it cannot do happens in one direction alone here.
"""

from __future__ import annotations

from dataclasses import dataclass

import anyio
from anyio.abc import ByteStream

from anyws.testing import FaultyStream, MemoryStream, memory_stream_pair

UP, DOWN = "up", "down"
"""From the client to the server, and back."""

# Faults at a byte of one direction, of which a memory stream has all but the reset.
ONE_WAY = {"split", "delay", "stall", "half-close", "reset"}

# Faults after which all arrives.
HARMLESS = {"split", "delay", "pieces", "slow"}

# Bytes from which on a session is a long one, with faults at so many of its bytes.
LONG_SIZE = 5000
MAX_POINTS = 300

# Seconds, far less than any time-out.
DELAY = 0.5


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        kind: "split" and "delay" let what comes behind the byte arrive apart, the second later;
            "stall" lets nothing more pass in one direction; "half-close" ends that direction;
            "reset" ends both. "break" and "freeze" break or stall one end; "pieces" and "slow" are
            for a whole session.
        where: the direction; for the last four the end, the one that sends up or the one that
            sends down.
        at: how many bytes pass before, those of both directions at an end; for "pieces" and
            "slow" how many pass at once.
    """

    kind: str
    where: str
    at: int

    def __str__(self) -> str:
        return f"{self.kind} {self.where} at {self.at}"

    @property
    def harmless(self) -> bool:
        """Whether all arrives."""
        return self.kind in HARMLESS


class CuttingStream(ByteStream):
    """One end of a stream in memory, with a fault at one byte of what it sends.

    Args:
        stream: the end.
        fault: the fault; None has none.
    """

    def __init__(self, stream: MemoryStream, fault: Fault | None) -> None:
        self._stream = stream
        self._fault = fault
        self._ended = False
        self.sent = 0
        """Bytes that it was given to send, but for those of a direction that has ended."""

    async def send(self, item: bytes) -> None:
        fault = self._fault
        if self._ended:
            return
        if fault is not None and self.sent <= fault.at < self.sent + len(item):
            cut = fault.at - self.sent
            if cut:
                await self._stream.send(item[:cut])
            self.sent += cut
            item = item[cut:]
            await self._misbehave(fault)
            if self._ended:
                return
            self._fault = None
        await self._stream.send(item)
        self.sent += len(item)

    async def _misbehave(self, fault: Fault) -> None:
        if fault.kind == "split":
            await self._wait_until_received()
        elif fault.kind == "delay":
            await anyio.sleep(DELAY)
        elif fault.kind == "stall":
            await anyio.sleep_forever()  # who sends gives up
        else:
            assert fault.kind == "half-close"
            self._ended = True
            await self._stream.send_eof()

    async def _wait_until_received(self) -> None:
        pipe = self._stream._outgoing
        while pipe.data and not pipe.broken:
            await pipe.changed.wait()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._stream.receive(max_bytes)

    async def send_eof(self) -> None:
        fault, self._fault = self._fault, None
        if fault is not None and not self._ended:
            await self._misbehave(fault)
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


def faulty_link(fault: Fault) -> tuple[ByteStream, ByteStream]:
    """Make the client's and the server's end of a stream with one fault."""
    near, far = memory_stream_pair()
    up, down = fault.where == UP, fault.where == DOWN
    if fault.kind in ONE_WAY:
        return CuttingStream(near, fault if up else None), CuttingStream(
            far, fault if down else None
        )
    faulty = FaultyStream(
        near if up else far,
        split=fault.at if fault.kind in {"pieces", "slow"} else None,
        delay=0.001 if fault.kind == "slow" else 0,
        reset_after=fault.at if fault.kind == "break" else None,
        stall_after=fault.at if fault.kind == "freeze" else None,
    )
    return (faulty, far) if up else (near, faulty)


def faults(
    kinds: list[str], sizes: dict[str, int], *, step: int = 1, first: int = 0
) -> list[Fault]:
    """Give the faults of these kinds at each byte of a session, and behind the last.

    Args:
        kinds: which.
        sizes: bytes of a session, by direction.
        step: how many bytes from one to the next.
        first: where to begin.
    """
    given = []
    for kind in kinds:
        for where in (UP, DOWN):
            if kind in {"pieces", "slow"}:
                # With more, a session is in as many pieces as it is anyway; in very few, a long
                # one takes its time.
                least = 1 + sum(sizes.values()) // 2000
                ats = range(least, least + 64)
            elif kind in ONE_WAY:
                ats = range(sizes[where] + 1)
            else:
                ats = range(sum(sizes.values()) + 1)
            apart = step if len(ats) < LONG_SIZE else step * (len(ats) // MAX_POINTS)
            given += [Fault(kind, where, at) for at in ats[first % len(ats) :: apart]]
    return given
