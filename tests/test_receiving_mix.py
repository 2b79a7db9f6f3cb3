"""recv(), recv_streaming(), small queues, split bytes and cancellation, mixed by a seed."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import anyws
from tests.endings import both_roles
from tests.wire import BINARY, CLOSE, CONT, MASK, PING, TEXT, Peer, close_payload, frame

if TYPE_CHECKING:
    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

COUNT = 30
"""How many messages the peer sends."""


def text(number: int) -> str:
    """Give the message of a number; it begins with the number."""
    return f"{number}:" + "\N{SNOWMAN}\N{LATIN SMALL LETTER E WITH ACUTE}" * (number % 4) + "x" * 40


def draw_messages(choice: random.Random, mask: bytes | None, compressor: Any) -> bytes:
    """Draw all messages, and a Close, in frames as it happens."""
    data = b""
    for number in range(COUNT):
        payload = text(number).encode()
        rsv = 0
        if compressor is not None and choice.random() < 0.5:
            payload = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
            rsv = 4
        cuts = sorted(choice.randrange(len(payload) + 1) for _ in range(choice.randrange(4)))
        starts, ends = [0, *cuts], [*cuts, len(payload)]
        for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
            opcode = CONT if index else (TEXT if number % 2 else BINARY)
            fin = index == len(cuts)
            data += frame(opcode, payload[start:end], fin=fin, rsv=0 if index else rsv, mask=mask)
            if choice.random() < 0.1:
                data += frame(PING, b"p", mask=mask)
    return data + frame(CLOSE, close_payload(1000), mask=mask)


async def send_in_pieces(choice: random.Random, peer: Peer, data: bytes) -> None:
    while data:
        size = choice.choice([1, 5, 30, 60, 200, 1000])
        await peer.send_bytes(data[:size])
        data = data[size:]
        if choice.random() < 0.6:
            await anyio.sleep(0.01)


class Consumer:
    """Receives in this way and that, and sees that nothing is lost, doubled or out of order.

    Args:
        choice: what happens.
        ws: the connection.
    """

    def __init__(self, choice: random.Random, ws: anyws.Connection) -> None:
        self.choice = choice
        self.ws = ws
        # What may come next: a message whose block is left before any of it was taken is skipped
        # if some of it had come.
        self.expected = {0}
        self.ended = False

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            while not self.ended:
                if self.choice.random() < 0.1:
                    await anyio.sleep(0.02)
                with anyio.CancelScope() as scope:
                    if self.choice.random() < 0.4:
                        tasks.start_soon(_cancel_after, scope, self.choice.choice([0, 1, 2, 5, 20]))
                    await self.receive()

    async def receive(self) -> None:
        try:
            if self.choice.random() < 0.5:
                self.see_whole(await self.ws.recv(decode=True))
            else:
                await self.stream()
        except anyws.ConnectionClosedOK:
            self.ended = True

    async def stream(self) -> None:
        wanted = self.choice.choice([0, 1, 1, 2, 99])
        taken: list[str] = []
        whole = False
        try:
            async with self.ws.recv_streaming(decode=True) as fragments:
                while not whole and len(taken) < wanted:
                    fragment = await anext(fragments, None)
                    whole = fragment is None
                    taken.append(str(fragment or ""))
        finally:
            if whole:
                self.see_whole("".join(taken))
            elif taken:
                self.see_part("".join(taken))
            else:
                self.expected.add(max(self.expected) + 1)

    def see_whole(self, message: str | bytes) -> None:
        assert message in {text(number) for number in self.expected}
        self.expected = {int(str(message).partition(":")[0]) + 1}

    def see_part(self, part: str) -> None:
        begun = {number for number in self.expected if text(number).startswith(part)}
        assert begun
        self.expected = {number + 1 for number in begun}


async def _cancel_after(scope: anyio.CancelScope, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await checkpoint()
    scope.cancel()


@pytest.mark.behaviour(42, 43, 46, 52, 55, 56, 61)
@both_roles
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "deflate"])
@pytest.mark.parametrize("seed", range(12))
async def test_nothing_is_lost_or_doubled_in_any_mix_of_receiving_and_cancelling(
    pair: Pair, compressed: bool, seed: int
) -> None:
    choice = random.Random(seed)
    options: dict[str, Any] = {
        "max_queue": choice.choice([1, 2, 5, 32, None]),
        "read_limit": choice.choice([1, 40, 1000, 65536, None]),
        "max_buffer_size": choice.choice([512, 65536]),
    }
    if compressed:
        options["headers"] = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
        options["compression"] = "deflate"
    async with pair(**options) as (ws, peer), anyio.create_task_group() as tasks:
        compressor = zlib.compressobj(wbits=-15) if compressed else None
        data = draw_messages(choice, MASK if peer.masks else None, compressor)
        tasks.start_soon(send_in_pieces, choice, peer, data)
        consumer = Consumer(choice, ws)
        await consumer.run()
        assert COUNT in consumer.expected
