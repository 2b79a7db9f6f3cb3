"""Two ends that talk to each other in every way that there is, as a seed has it.

Owns the draws: options at their extremes, messages around the sizes where the code takes another
way, all styles of sending and receiving mixed and cancelled, and the endings. What must come is the
business of `ledger`; over which streams, of `talks`. Everything that is awaited here must end: the
time-out stands with who calls it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

import anyws
from tests.reliability.ledger import Ledger, as_bytes

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Sequence

    from anyws import Connection

# A frame's header grows at 126 and 65536, a payload is not copied from 32768 on, writes leave
# together up to 65536, and one read gives up to 262144 bytes.
SIZES = (0, 1, 2, 5, 30, 124, 125, 126, 127, 600)
LARGE_SIZES = (5000, 16384, 32767, 32768, 32769, 65535, 65536, 65537, 262130, 262145)
QUEUES = (1, 2, 3, 5, 32, (1, 0), (1, 1), (5, 5), (8, 0), (20, 1), None)
READ_LIMITS = (1, 2, 40, 1000, 65536, (10, 0), (10, 10), (1000, 0), None)
WRITE_LIMITS = (1, 2, 1000, 65536, (10, 0), (10, 10), (300, 250), (65536, 65536), None)


def draw_options(choice: random.Random, close_timeout: float) -> dict[str, Any]:
    """Draw what one end of a connection is opened with."""
    return {
        "max_queue": choice.choice(QUEUES),
        "read_limit": choice.choice(READ_LIMITS),
        "write_limit": choice.choice(WRITE_LIMITS),
        "max_size": choice.choice([None, max(LARGE_SIZES), (None, max(LARGE_SIZES))]),
        "ping_interval": choice.choice([None, None, 0.01, 1]),
        "ping_timeout": None,
        "close_timeout": close_timeout,
    }


def draw_message(choice: random.Random, task: int, number: int, *, large: bool) -> str | bytes:
    """Draw a message; unless it is small, it says whose it is."""
    size = choice.choice(LARGE_SIZES if large and choice.random() < 0.15 else SIZES)
    text = f"{task}:{number}:"[:size]
    if choice.random() < 0.5:
        filler = bytes([choice.randrange(256)])
        return text.encode() + filler * (size - len(text))
    if size > 200 and choice.random() < 0.5:
        return text + "\N{SNOWMAN}x" * ((size - len(text)) // 4)
    return text + "x" * (size - len(text))


def cut(choice: random.Random, message: str | bytes) -> Sequence[str | bytes]:
    """Cut a message into fragments, some of them empty."""
    cuts = sorted(choice.randrange(len(message) + 1) for _ in range(choice.randrange(4)))
    starts, ends = [0, *cuts], [*cuts, len(message)]
    return [message[start:end] for start, end in zip(starts, ends, strict=True)]


async def pause(choice: random.Random) -> None:
    """Let others run, or time pass, or neither."""
    drawn = choice.random()
    if drawn < 0.1:
        await anyio.sleep(choice.choice([0.001, 0.003]))
    elif drawn < 0.4:
        for _ in range(choice.choice([1, 1, 2, 5])):
            await checkpoint()


async def cancel_after(scope: anyio.CancelScope, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await checkpoint()
    scope.cancel()


@dataclass
class Progress:
    """What the tasks of a conversation wait for each other with."""

    changed: anyio.Event = field(default_factory=anyio.Event)

    def tell(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class Speaker:
    """One of the tasks that send on a connection.

    Args:
        choice: what happens.
        ws: the connection.
        ledger: where to note what it sends.
        task: its number.
        count: how many messages.
        large: whether some of them may be.
    """

    def __init__(
        self,
        choice: random.Random,
        ws: Connection,
        ledger: Ledger,
        task: int,
        count: int,
        large: bool,
    ) -> None:
        self.choice = choice
        self.ws = ws
        self.ledger = ledger
        self.task = task
        self.count = count
        self.large = large
        self.hasty = choice.random() < 0.5

    async def run(self) -> None:
        """Send all, or what the end of the connection lets it."""
        for number in range(self.count):
            if not self.hasty:
                await pause(self.choice)
            message = draw_message(self.choice, self.task, number, large=self.large)
            entry = self.ledger.send(self.task, message, optional=True)
            try:
                entry.optional = not await self.send(message)
            except anyws.ConnectionClosed:
                return

    async def send(self, message: str | bytes) -> bool:
        """Send in one way or another; say if that is certain."""
        ws, choice = self.ws, self.choice
        drawn = choice.random()
        if drawn < 0.4:
            await ws.send(message, compress=choice.choice([None, None, True, False]))
            return True
        if drawn < 0.55:
            while True:
                with suppress(anyio.WouldBlock):
                    ws.send_nowait(message)
                    return True
                await anyio.sleep(0.001)
        if drawn < 0.65:
            await ws.send(cut(choice, message))
            return True
        if drawn < 0.7:
            await ws.send(self.dribble(cut(choice, message)))
            return True
        if drawn < 0.75:
            text = isinstance(message, str)
            await ws.send(memoryview(as_bytes(message)), text=text)
            return True
        if drawn < 0.8:
            await anyws.broadcast_wait([ws], message, timeout=None)
            return ws.open
        if drawn < 0.85:
            anyws.broadcast([ws], message, slow="drop")
            return False
        await self.control()
        return await self.send_and_cancel(message)

    async def dribble(self, fragments: Sequence[str | bytes]) -> AsyncIterator[str | bytes]:
        for fragment in fragments:
            await pause(self.choice)
            yield fragment

    async def control(self) -> None:
        if self.choice.random() < 0.5:
            await self.ws.pong(b"unasked")
            return
        with suppress(anyws.ConcurrencyError):
            await self.ws.ping(self.choice.choice([None, b"", b"x" * 125]))

    async def send_and_cancel(self, message: str | bytes) -> bool:
        async with anyio.create_task_group() as tg:
            with anyio.CancelScope() as scope:
                if self.choice.random() < 0.3:
                    scope.cancel()
                else:
                    tg.start_soon(cancel_after, scope, self.choice.choice([0, 1, 2, 5]))
                with suppress(anyws.ConnectionClosed):
                    await self.ws.send(message)
                    return self.ws.open
        return False


class Listener:
    """The task that receives on a connection, in this way and that, until the end of it.

    Args:
        choice: what happens.
        ws: the connection.
        ledger: what may come.
        progress: to tell of what has come.
        leaves: whether it may leave a message before it is whole; then it is not always certain
            what has come.
    """

    def __init__(
        self,
        choice: random.Random,
        ws: Connection,
        ledger: Ledger,
        progress: Progress,
        *,
        leaves: bool,
    ) -> None:
        self.choice = choice
        self.ws = ws
        self.ledger = ledger
        self.progress = progress
        self.hasty = choice.random() < 0.5
        ways = [self.recv, self.iterate, self.receive, self.decode, self.poll, self.stream]
        ways += [self.cancel, self.leave if leaves else self.iterate]
        self.ways = choice.sample(ways, choice.choice([1, 2, 4, 8]))
        self.error: anyws.ConnectionClosed | None = None

    async def run(self) -> None:
        """Receive until the connection is closed."""
        with suppress(StopAsyncIteration):
            while self.error is None:
                if not self.hasty:
                    await pause(self.choice)
                try:
                    await self.choice.choice(self.ways)()
                except anyws.ConnectionClosed as exc:
                    self.error = exc
                self.progress.tell()

    async def recv(self) -> None:
        self.ledger.receive(await self.ws.recv())

    async def receive(self) -> None:
        self.ledger.receive(await self.ws.receive())

    async def iterate(self) -> None:
        for _ in range(self.choice.choice([1, 3, 70])):
            self.ledger.receive(await anext(self.ws))
            self.progress.tell()

    async def decode(self) -> None:
        # A Binary message may be no UTF-8; and True is drawn for those that come then.
        self.ledger.receive(await self.ws.recv(decode=False), typed=False)

    async def poll(self) -> None:
        for _ in range(self.choice.choice([1, 10, 100])):
            with anyio.move_on_after(0):
                self.ledger.receive(await self.ws.recv())
        await anyio.sleep(0.001)  # in virtual time, none passes for who only looks again and again

    async def cancel(self) -> None:
        async with anyio.create_task_group() as tg:
            error = None
            with anyio.CancelScope() as scope:
                tg.start_soon(cancel_after, scope, self.choice.choice([0, 1, 2, 5]))
                try:
                    self.ledger.receive(await self.ws.recv())
                except anyws.ConnectionClosed as exc:
                    error = exc
        if error is not None:
            raise error
        if scope.cancelled_caught:
            await anyio.sleep(0.001)

    async def stream(self) -> None:
        async with self.ws.recv_streaming() as fragments:
            parts = [fragment async for fragment in fragments]
        self.ledger.receive(parts[0][:0].join(parts))  # type: ignore[arg-type]  # all of one type

    async def leave(self) -> None:
        wanted = self.choice.choice([0, 1, 1, 2])
        taken: str | bytes | None = None
        whole = False
        async with self.ws.recv_streaming() as fragments:
            while not whole and wanted:
                wanted -= 1
                fragment = await anext(fragments, None)
                whole = fragment is None
                if fragment is not None:
                    taken = fragment if taken is None else taken + fragment  # type: ignore[operator]  # likewise
        if whole:
            assert taken is not None
            self.ledger.receive(taken)
        else:
            self.ledger.skip(taken)
