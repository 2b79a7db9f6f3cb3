"""Scenarios of the cancellation sweep: calls that send, and Pings.

Owns what is sent; a message whose call was cancelled has gone out whole or not at all, and all
others come, in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio import create_task_group
from anyio.lowlevel import checkpoint

import anyws
from tests.reliability.cutting import Cut, awaiting
from tests.reliability.pairs import ALL, MEMORY, PLAIN, TCP, Kind, Pair, Setting, over, paired

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.reliability.sweeping import Scenario

END = b"end"

MIB = 2**20

# Less than a message of a MiB, so that its send() waits for the peer.
_TIGHT: dict[str, Any] = {"write_limit": 4096}


def numbered(index: int, size: int = 0) -> bytes:
    """Give a message that can be told from all others, at each of its bytes."""
    return (b"%d." % index) * max(1, size // 2)


async def _send_all(cut: Cut, pair: Pair, messages: list[bytes]) -> None:
    """Send all, one of them cancelled, and see what has come."""
    maybe = []
    for message in messages:
        outcome = await cut.call(pair.ws.send, message)
        if outcome.cancelled:
            maybe.append(message)
    await pair.ws.send(END)
    await pair.peer.wait_for(END)
    cut.compare(pair.peer.messages, [*messages, END], optional=maybe)


def _sending(name: str, sizes: list[int], setting: Setting) -> Scenario:
    async def run(cut: Cut) -> None:
        async with paired(cut, setting) as pair:
            messages = [numbered(index, size) for index, size in enumerate(sizes)]
            await _send_all(cut, pair, messages)

    return over(setting.kind, name, run, repeats=True)


def _sending_beside_another(kind: Kind) -> Scenario:
    """Cancel one of two tasks that send as fast as the peer reads."""
    setting = Setting(kind, _TIGHT, read_size=4096, max_buffer_size=4096)

    async def run(cut: Cut) -> None:
        async with paired(cut, setting) as pair:
            others = [numbered(100 + index, 6000) for index in range(8)]

            async def send_others() -> None:
                for message in others:
                    await pair.ws.send(message)

            own = [numbered(index, 6000) for index in range(8)]
            maybe = []
            async with create_task_group() as tasks:
                tasks.start_soon(send_others)
                for message in own:
                    outcome = await cut.call(pair.ws.send, message)
                    if outcome.cancelled:
                        maybe.append(message)
            await pair.ws.send(END)
            await pair.peer.wait_for(END)
            came = pair.peer.messages
            cut.compare([one for one in came if one not in others], [*own, END], optional=maybe)
            cut.compare([one for one in came if one in others], others)

    return over(kind, "send beside another task", run, repeats=True)


# Messages in fragments: once the first is out, the message cannot be completed.


def _parts(index: int) -> list[bytes]:
    return [numbered(index, 3000), numbered(index, 10), numbered(index, 3000)]


async def _async_parts(index: int) -> AsyncIterator[bytes]:
    for part in _parts(index):
        await checkpoint()
        yield part


class _AsyncParts:
    """The same, but no generator."""

    def __init__(self, index: int) -> None:
        self._items = iter(_parts(index))

    def __aiter__(self) -> _AsyncParts:
        return self

    async def __anext__(self) -> bytes:
        await checkpoint()
        for item in self._items:
            return item
        raise StopAsyncIteration


def _sending_parts(name: str, parts: Callable[[int], Any], setting: Setting) -> Scenario:
    async def run(cut: Cut) -> None:
        async with paired(cut, setting) as pair:
            messages = [b"".join(_parts(index)) for index in range(3)]
            sent: list[bytes] = []
            maybe: list[bytes] = []
            for index, message in enumerate(messages):
                if not pair.ws.open:
                    break
                outcome = await cut.call(pair.ws.send, parts(index))
                (maybe if outcome.cancelled else sent).append(message)
            if pair.ws.open:
                await pair.ws.send(END)
                await pair.peer.wait_for(END)
                expected = [*messages, END]
            else:
                await pair.peer.ended.wait()
                expected = messages[: len(sent) + 1]
                if not maybe:
                    cut.fault("the connection has ended, but nothing was cancelled")
                if pair.peer.close_code != 1011:
                    cut.fault(f"closed with {pair.peer.close_code}, expected 1011")
            cut.compare(pair.peer.messages, expected, optional=maybe)

    return over(setting.kind, name, run, repeats=True)


def _sending_behind_fragments(kind: Kind) -> Scenario:
    """Cancel one who waits until another task's message is complete; that message goes on."""

    async def run(cut: Cut) -> None:
        async with paired(cut, Setting(kind)) as pair:
            begun = anyio.Event()

            async def slow_parts() -> AsyncIterator[bytes]:
                for part in _parts(100):
                    yield part
                    begun.set()
                    for _ in range(4):
                        await checkpoint()

            own = [numbered(index, 100) for index in range(3)]
            maybe = []
            async with create_task_group() as tasks:
                tasks.start_soon(pair.ws.send, slow_parts())
                await begun.wait()
                for message in own:
                    outcome = await cut.call(pair.ws.send, message)
                    if outcome.cancelled:
                        maybe.append(message)
            await pair.ws.send(END)
            await pair.peer.wait_for(END)
            expected = [b"".join(_parts(100)), *own, END]
            cut.compare(pair.peer.messages, expected, optional=maybe)

    return over(kind, "send behind a fragmented message", run, repeats=True)


# Pings.


def _pinging(kind: Kind) -> Scenario:
    setting = Setting(kind, _TIGHT, read_size=4096, max_buffer_size=4096)

    async def run(cut: Cut) -> None:
        async with paired(cut, setting) as pair:
            ws, peer = pair.ws, pair.peer
            maybe = []
            # What is in front of them makes them wait, since the peer does not read yet.
            peer.hold()
            with anyio.move_on_after(0):
                await ws.send(numbered(0, 100_000))
            pair.tasks.start_soon(peer.read_on_soon)
            payloads = [b"ping %d" % index for index in range(3)]
            for payload in payloads:
                outcome = await cut.call(ws.ping, payload)
                if outcome.cancelled:
                    maybe.append(payload)
            await (await ws.ping(END))
            cut.compare(peer.pings, [*payloads, END], optional=maybe)

    return over(kind, "ping", run, repeats=True)


def _ponging(kind: Kind) -> Scenario:
    setting = Setting(kind, _TIGHT, read_size=4096, max_buffer_size=4096)

    async def run(cut: Cut) -> None:
        async with paired(cut, setting) as pair:
            ws, peer = pair.ws, pair.peer
            maybe = []
            peer.hold()
            with anyio.move_on_after(0):
                await ws.send(numbered(0, 100_000))
            pair.tasks.start_soon(peer.read_on_soon)
            payloads = [b"pong %d" % index for index in range(3)]
            for payload in payloads:
                outcome = await cut.call(ws.pong, payload)
                if outcome.cancelled:
                    maybe.append(payload)
            await ws.send(END)
            await peer.wait_for(END)
            cut.compare(peer.pongs, payloads, optional=maybe)

    return over(kind, "pong", run, repeats=True)


def _awaiting_a_pong(kind: Kind) -> Scenario:
    async def run(cut: Cut) -> None:
        async with paired(cut, Setting(kind)) as pair:
            for index in range(3):
                waiter = await pair.ws.ping(b"ping %d" % index)
                outcome = await cut.call(awaiting(waiter))
                latency = await waiter if outcome.cancelled else outcome.value
                if not latency >= 0 or not waiter.done:
                    cut.fault(f"latency of {latency} seconds")
            cut.compare(pair.peer.pings, [b"ping %d" % index for index in range(3)])

    return over(kind, "waiting for a Pong", run, repeats=True)


def _broadcasting(kind: Kind) -> Scenario:
    setting = Setting(kind, _TIGHT, read_size=4096, max_buffer_size=4096)

    async def run(cut: Cut) -> None:
        async with paired(cut, setting) as one, paired(cut, setting) as two:
            maybe = []
            messages = [numbered(index, 20_000) for index in range(3)]
            for message in messages:
                outcome = await cut.call(anyws.broadcast_wait, [one.ws, two.ws], message)
                if outcome.cancelled:
                    maybe.append(message)
            for pair in (one, two):
                await pair.ws.send(END)
                await pair.peer.wait_for(END)
                cut.compare(pair.peer.messages, [*messages, END], optional=maybe)

    return over(kind, "broadcast_wait", run, repeats=True)


def _scenarios() -> Iterator[Scenario]:
    for kind in ALL:
        tight = Setting(kind, _TIGHT, read_size=16384, max_buffer_size=16384)
        yield _sending("send, small", [0] * 70, Setting(kind))
        yield _sending("send, 1 MiB, slow reader", [0, MIB, 0], tight)
        yield _sending_parts("send, async iterable", _async_parts, Setting(kind, _TIGHT))
    for kind in PLAIN:
        deflating = Setting(kind, _TIGHT, read_size=4096, max_buffer_size=4096, deflate=True)
        yield _sending("send, compressed", [20_000] * 5, deflating)
        yield _sending_beside_another(kind)
        yield _sending_parts("send, iterable", _parts, Setting(kind, _TIGHT))
        yield _sending_parts("send, async iterator", _AsyncParts, Setting(kind, _TIGHT))
        slow = Setting(kind, _TIGHT, read_size=1024, max_buffer_size=1024)
        yield _sending_parts("send, iterable, slow reader", _parts, slow)
        yield _sending_behind_fragments(kind)
        yield _awaiting_a_pong(kind)
    for kind in MEMORY + TCP:
        yield _pinging(kind)
        yield _ponging(kind)
        yield _broadcasting(kind)


SCENARIOS = tuple(_scenarios())
