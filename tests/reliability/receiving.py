"""Scenarios of the cancellation sweep: calls that receive.

Owns what is received meanwhile; after each cancelled call the next must go on exactly there.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

import anyws
from tests.reliability.pairs import ALL, PLAIN, Kind, Setting, over, paired
from tests.wire import CONT, PING, TEXT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator

    from tests.reliability.cutting import Cut
    from tests.reliability.strict import StrictPeer
    from tests.reliability.sweeping import Scenario

    Feed = Callable[[StrictPeer], Coroutine[Any, Any, None]]
    Receive = Callable[[Cut, anyws.Connection], Awaitable[list[str | bytes]]]

# The last message: what has not come before it does not come. Where it may be skipped, another one
# stands behind it.
END = "end"
SECOND_END = "second end"


def texts(count: int) -> list[str]:
    return [f"message {index}" for index in range(count)]


# What the peer sends.


async def idle(peer: StrictPeer) -> None:
    """Send one message after the other, so that recv() has to wait for each."""
    for text in (*texts(4), END):
        for _ in range(5):
            await checkpoint()
        await peer.send(TEXT, text.encode())


async def dribble(peer: StrictPeer) -> None:
    """Send a message, one in fragments with a Ping between them, and another, in small pieces."""
    first, second, third, _ = texts(4)
    data = b"".join(
        [
            peer.draw(TEXT, first.encode()),
            peer.draw(TEXT, second[:3].encode(), fin=False),
            peer.draw(PING, b"p"),
            peer.draw(CONT, second[3:].encode()),
            peer.draw(TEXT, third.encode()),
            peer.draw(TEXT, b"message 3"),
            peer.draw(TEXT, END.encode()),
            peer.draw(TEXT, SECOND_END.encode()),
        ]
    )
    for start in range(0, len(data), 7):
        await peer.send_bytes(data[start : start + 7])
        await checkpoint()


async def flood(peer: StrictPeer) -> None:
    """Send more at once than the queue holds."""
    await peer.send_bytes(b"".join(peer.draw(TEXT, text.encode()) for text in (*texts(20), END)))


async def fill(peer: StrictPeer) -> None:
    """Send more than queue, transport and sockets hold."""
    for text in (*texts(60), END):
        await peer.send(TEXT, text.ljust(6000).encode())


async def close(peer: StrictPeer) -> None:
    """Send two messages and a Close."""
    await peer.send_bytes(b"".join(peer.draw(TEXT, text.encode()) for text in texts(2)))
    await peer.send_close()


# How it is received.


async def by_recv(cut: Cut, ws: anyws.Connection) -> list[str | bytes]:
    received: list[str | bytes] = []
    while END not in received[-1:]:
        outcome = await cut.call(ws.recv)
        received += [_strip(value) for value in outcome.values]
    return received


async def by_iteration(cut: Cut, ws: anyws.Connection) -> list[str | bytes]:
    received: list[str | bytes] = []
    while END not in received[-1:]:
        outcome = await cut.call(ws.__anext__)
        received += [_strip(value) for value in outcome.values]
    return received


async def by_streaming(cut: Cut, ws: anyws.Connection) -> list[str | bytes]:
    received: list[str | bytes] = []
    while END not in received[-1:]:
        async with ws.recv_streaming() as fragments:
            parts: list[str] = []
            while True:
                try:
                    outcome = await cut.call(_next_of, fragments)
                except StopAsyncIteration:
                    break
                parts += [str(value) for value in outcome.values]
        received.append(_strip("".join(parts)))
    return received


async def _next_of(fragments: AsyncIterator[str | bytes]) -> str | bytes:
    return await anext(fragments)


def _strip(value: str | bytes) -> str | bytes:
    return value.rstrip() if isinstance(value, str) else value


async def by_streaming_block(cut: Cut, ws: anyws.Connection) -> list[str | bytes]:
    """Cancel the whole block, so that what is left of its message is skipped."""

    async def read() -> str:
        async with ws.recv_streaming() as fragments:
            return "".join([str(fragment) async for fragment in fragments])

    received: list[str | bytes] = []
    while not {END, SECOND_END}.intersection(received):
        outcome = await cut.call(read)
        received += outcome.values
    return received


def _receiving(
    name: str, feed: Feed, receive: Receive, kind: Kind, *, count: int = 4, **arguments: Any
) -> Scenario:
    """Make a scenario of something that is sent and of a way to receive it."""

    async def run(cut: Cut) -> None:
        async with paired(cut, Setting(kind, arguments)) as pair:
            pair.tasks.start_soon(feed, pair.peer)
            received = await receive(cut, pair.ws)
            expected = [*texts(count), END]
            missing = [text for text in expected if text not in received]
            if missing and cut.cancelled and receive is by_streaming_block:
                expected.remove(missing[0])  # the message that was left
                if missing[0] == END:
                    expected.append(SECOND_END)
            cut.compare(received, expected)

    repeats = receive is not by_streaming_block
    return over(kind, name, run, repeats=repeats)


def _then_idle(kind: Kind) -> Scenario:
    """Receive nothing for a while after the cancelled call: Pings are answered all the same."""

    async def run(cut: Cut) -> None:
        async with paired(cut, Setting(kind)) as pair:
            pair.tasks.start_soon(idle, pair.peer)
            received: list[str | bytes] = []
            while END not in received:
                outcome = await cut.call(pair.ws.recv)
                received += outcome.values
                if outcome.cancelled:
                    await pair.peer.ping(b"p")
            cut.compare(received, [*texts(4), END])

    return over(kind, "recv, then a Ping", run, repeats=True)


_MIXED = [f"{index}: " + "abcdefghij" * (index % 4) for index in range(16)]


async def mixed(peer: StrictPeer) -> None:
    """Send messages whole and in fragments, with Pings between them, cut anywhere."""
    chance = random.Random(1)
    data = b""
    for text in (*_MIXED, END, SECOND_END):
        payload = text.encode()
        cuts = sorted(chance.sample(range(len(payload) + 1), chance.choice([0, 0, 1, 3])))
        starts = [0, *cuts]
        for index, start in enumerate(starts):
            end = cuts[index] if index < len(cuts) else len(payload)
            opcode = TEXT if index == 0 else CONT
            data += peer.draw(opcode, payload[start:end], fin=index == len(cuts))
            if chance.random() < 0.3:
                data += peer.draw(PING, b"p")
    while data:
        size = chance.choice([1, 5, 30, 200])
        await peer.send_bytes(data[:size])
        data = data[size:]
        await checkpoint()


async def _receive_mixed(cut: Cut, ws: anyws.Connection, chance: random.Random) -> str:
    """Receive a message in one of three ways; give what there is of it."""
    how = chance.choice(["whole", "in fragments", "its beginning"])
    if how == "whole":
        while True:
            outcome = await cut.call(ws.recv)
            if not outcome.cancelled:
                return str(outcome.value)
    async with ws.recv_streaming() as fragments:
        parts = ""
        while how == "in fragments" or not parts:
            try:
                outcome = await cut.call(_next_of, fragments)
            except StopAsyncIteration:
                break
            parts += "".join(str(value) for value in outcome.values)
        return parts


def _mixing(kind: Kind, seed: int) -> Scenario:
    """Receive in all ways in turn; a message that is left early is skipped, and no other."""

    async def run(cut: Cut) -> None:
        async with paired(cut, Setting(kind, {"max_queue": 2})) as pair:
            pair.tasks.start_soon(mixed, pair.peer)
            chance = random.Random(seed)
            received = []
            for text in _MIXED:
                part = await _receive_mixed(cut, pair.ws, chance)
                received.append(text if part and text.startswith(part) else part)
            received.append(str(await pair.ws.recv()))
            cut.compare(received, [*_MIXED, END])

    return over(kind, f"recv and fragments, mixed as {seed}", run, repeats=True)


def _then_idle_beside_another(kind: Kind) -> Scenario:
    """The same with two connections, which may share what looks after them."""

    async def run(cut: Cut) -> None:
        setting = Setting(kind)
        async with paired(cut, setting) as one, paired(cut, setting) as two:
            for pair in (one, two, one):
                pair.tasks.start_soon(idle, pair.peer)
                received: list[str | bytes] = []
                while END not in received:
                    outcome = await cut.call(pair.ws.recv)
                    received += outcome.values
                    if outcome.cancelled:
                        await one.peer.ping(b"p")
                        await two.peer.ping(b"p")
                cut.compare(received, [*texts(4), END])

    return over(kind, "recv of two, then Pings", run, repeats=True)


def _with_keepalive(kind: Kind) -> Scenario:
    """Receive one message after the other while Pings go both ways; no time-out may come of it."""
    # Seconds. In real time, nothing may depend on how fast this machine is.
    interval, timeout = (1.0, 1.0) if kind.virtual else (0.002, 60.0)

    async def feed(peer: StrictPeer) -> None:
        for text in (*texts(4), END):
            await anyio.sleep(0.7 * interval)
            await peer.send(TEXT, text.encode())

    async def run(cut: Cut) -> None:
        setting = Setting(kind, {"ping_interval": interval, "ping_timeout": timeout})
        async with paired(cut, setting) as pair:
            pair.tasks.start_soon(feed, pair.peer)
            cut.compare(await by_recv(cut, pair.ws), [*texts(4), END])

    return over(kind, "recv with keepalive", run, repeats=True)


def _as_the_peer_closes(kind: Kind) -> Scenario:
    async def run(cut: Cut) -> None:
        async with paired(cut, Setting(kind)) as pair:
            pair.tasks.start_soon(close, pair.peer)
            received: list[str | bytes] = []
            while True:
                try:
                    outcome = await cut.call(pair.ws.recv)
                except anyws.ConnectionClosedOK:
                    break
                received += outcome.values
            cut.compare(received, texts(2))

    return over(kind, "recv as the peer closes", run, repeats=True)


def _scenarios() -> Iterator[Scenario]:
    for kind in ALL:
        yield _receiving("recv, idle", idle, by_recv, kind)
        yield _receiving("recv, mid-message", dribble, by_recv, kind)
        yield _receiving("recv, queue full", flood, by_recv, kind, count=20, max_queue=4)
        yield _as_the_peer_closes(kind)
        yield _then_idle(kind)
    for kind in PLAIN:
        yield _receiving("iteration, idle", idle, by_iteration, kind)
        yield _receiving("iteration, queue full", flood, by_iteration, kind, count=20, max_queue=4)
        yield _receiving("fragments, mid-message", dribble, by_streaming, kind)
        yield _receiving("block of fragments, mid-message", dribble, by_streaming_block, kind)
        yield _then_idle_beside_another(kind)
        yield _with_keepalive(kind)
        for seed in range(3):
            yield _mixing(kind, seed)
        yield _receiving("recv, all buffers full", fill, by_recv, kind, count=60)


SCENARIOS = tuple(_scenarios())
