"""A session that has one of everything, and what may come of it when the way between is faulty.

Owns what a client and a server of anyws say to each other, whichever closes, and the rules for how
it may end; knows no fault (see `fault_links` in memory and `fault_proxy` over TCP).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

import anyws

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

# Text, fragments, and what is worth to be compressed, Text and Binary; each is echoed.
MESSAGES: list[Any] = ["text", ["frag", "men", "ts"], "deflate " * 20, [b"\0" * 90, b"\1" * 90]]

# Each side streams more than a memory stream, a write buffer and an inbox hold together.
STREAM_COUNT = 16
STREAM_SIZE = 30_000

# Seconds for each stage; a session takes no time but what a fault makes it wait.
TIMEOUTS: dict[str, Any] = {
    "open_timeout": 4,
    "ping_interval": 3,
    "ping_timeout": 3,
    "close_timeout": 2,
}

# All stages after each other, and the second that a server lingers.
LONGEST = 4 + 3 + 3 + 2 + 1

# How an opening may end, and how a connection may; nothing else is documented.
OPENING = {"InvalidMessage", "InvalidStatus", "TimeoutError", "OSError"}
CLOSING = {"done", "ConnectionClosedOK", "ConnectionClosedError", "KeepaliveTimeout"}


def joined(message: Any) -> Any:
    """Give a message as it arrives."""
    return message if isinstance(message, str) else type(message[0])().join(message)


@dataclass
class Side:
    """What one side has sent, received, and seen of the end."""

    expected: int
    """How many messages it receives if all goes well."""
    sent: list[Any] = field(default_factory=list)
    received: list[Any] = field(default_factory=list)
    opened: bool = False
    ending: str = ""

    async def run(
        self,
        block: AbstractAsyncContextManager[anyws.Connection],
        play: Play,
    ) -> None:
        """Enter the block, play, and leave it; note how that ended."""
        try:
            async with block as ws:
                self.opened = True
                await play(ws, self)
        except OSError as exc:
            self.ending = "TimeoutError" if isinstance(exc, TimeoutError) else "OSError"
        except Exception as exc:  # noqa: BLE001  # that it is one of ours is checked
            self.ending = type(exc).__name__
        else:
            self.ending = "done"


Play = Callable[[anyws.Connection, Side], Awaitable[None]]


async def talk(ws: anyws.Connection, side: Side) -> None:
    """Send all, each after the echo of the one before, and a Ping in the end."""
    for message in MESSAGES:
        side.sent.append(joined(message))
        await ws.send(message)
        side.received.append(await ws.recv())
    await (await ws.ping(b"ping"))


async def talk_and_stay(ws: anyws.Connection, side: Side) -> None:
    """Do the same, and wait for the peer to close."""
    await talk(ws, side)
    side.received += [message async for message in ws]


async def echo(ws: anyws.Connection, side: Side) -> None:
    """Echo all in other fragments, until the peer closes; begin with a Ping."""
    await ws.ping(b"ding")
    async for message in ws:
        await answer(ws, side, message)


async def echo_and_leave(ws: anyws.Connection, side: Side) -> None:
    """Do the same, and close behind the last message."""
    await ws.ping(b"ding")
    for _ in MESSAGES:
        await answer(ws, side, await ws.recv())


async def answer(ws: anyws.Connection, side: Side, message: Any) -> None:
    side.received.append(message)
    side.sent.append(message)
    half = len(message) // 2
    await ws.send([message[:half], message[half:]] if half > 2 else message)


async def stream(ws: anyws.Connection, side: Side) -> None:
    """Send more than the way holds, and receive meanwhile."""
    all_sent = anyio.Event()

    async def send() -> None:
        for number in range(STREAM_COUNT):
            message = bytes([number]) * STREAM_SIZE
            side.sent.append(message)
            await ws.send(message, compress=False)
        all_sent.set()

    ws.start_soon(send)
    for _ in range(STREAM_COUNT):
        side.received.append(await ws.recv())
    with ws.cancel_on_close():
        await all_sent.wait()


async def stream_and_stay(ws: anyws.Connection, side: Side) -> None:
    """Do the same, and wait for the peer to close."""
    await stream(ws, side)
    side.received += [message async for message in ws]


@dataclass(frozen=True)
class Session:
    """What the client and the server do, and how many messages each receives."""

    client: Play
    server: Play
    count: int

    def sides(self) -> tuple[Side, Side]:
        """Give the two before it begins."""
        return Side(self.count), Side(self.count)


SESSIONS = {
    "client closes": Session(talk, echo, len(MESSAGES)),
    "server closes": Session(talk_and_stay, echo_and_leave, len(MESSAGES)),
    "both stream": Session(stream, stream_and_stay, STREAM_COUNT),
}


class BrokenRule(AssertionError):
    """Something came of a fault that is not documented."""


def check(client: Side, server: Side, *, harmless: bool) -> None:
    """See that what came of a session is one of the documented outcomes.

    Args:
        client: what the client has seen.
        server: what the server has seen.
        harmless: whether the fault has only split or delayed bytes.

    Raises:
        BrokenRule: it is not.
    """
    for name, side, peer in (("client", client, server), ("server", server, client)):
        allowed = CLOSING if side.opened else OPENING
        if side.ending not in allowed:
            raise BrokenRule(f"{name} ended with {side.ending!r}, opened: {side.opened}")
        if side.received != peer.sent[: len(side.received)]:
            raise BrokenRule(f"{name} received {side.received!r}, but {peer.sent!r} was sent")
        # An end that is told to be in order must not hide that something is missing.
        if side.opened and side.ending in {"done", "ConnectionClosedOK"}:
            if len(side.received) != side.expected:
                raise BrokenRule(f"{name} has {len(side.received)} messages, and an end in order")
        elif harmless:
            raise BrokenRule(f"{name} ended with {side.ending!r}, though no byte was lost")


@dataclass
class Tally:
    """What many sessions have come to."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    delivered: int = 0
    """Messages that were received."""
    lost: int = 0
    """Messages that were sent and not received, where the fault should have lost none."""
    hangs: int = 0
    broken: list[str] = field(default_factory=list)
    """The faults that came to something else than they may."""

    def note(self, fault: str, client: Side, server: Side, *, harmless: bool) -> None:
        """Count a session."""
        self.faults[fault.partition(" ")[0]] += 1
        for name, side in (("client", client), ("server", server)):
            stage = "open" if side.opened else "opening"
            self.outcomes[f"{name}, {stage}: {side.ending or 'hangs'}"] += 1
            self.delivered += len(side.received)
        if harmless:
            self.lost += len(client.sent) - len(server.received)
            self.lost += len(server.sent) - len(client.received)
        if not client.ending or not server.ending:
            self.hangs += 1
            self.broken.append(f"{fault}: hangs")
            return
        try:
            check(client, server, harmless=harmless)
        except BrokenRule as exc:
            self.broken.append(f"{fault}: {exc}")

    def merge(self, other: Tally) -> None:
        """Add what others have come to."""
        self.outcomes += other.outcomes
        self.faults += other.faults
        self.delivered += other.delivered
        self.lost += other.lost
        self.hangs += other.hangs
        self.broken += other.broken
