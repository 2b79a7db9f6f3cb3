"""Closing while a task receives: it gets all that the peer has sent, unless it stops."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import anyio
import pytest

import anyws
from anyws.testing import MemoryListener
from tests.endings import background, both_roles, takes
from tests.wire import BINARY, CLOSE, MASK, REQUEST, TEXT, Peer, close_payload, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

COUNT = 50


def numbered(count: int, peer: Peer, *, closing: bool = False) -> bytes:
    """Encode messages that tell their place, with a Close frame behind them or without."""
    mask = MASK if peer.masks else None
    messages = b"".join(frame(TEXT, b"%d" % i, mask=mask) for i in range(count))
    return messages + frame(CLOSE, close_payload(1000), mask=mask) * closing


async def answer_close(peer: Peer, more: bytes = b"") -> None:
    """Send something more and a Close frame once a Close frame has come."""
    while (await peer.read_frame()).opcode != CLOSE:
        pass
    await peer.send_bytes(more)
    await peer.send_close()
    await peer.read_until_eof()
    await peer.finish()


async def leave(peer: Peer) -> None:
    """End TCP after the server."""
    await peer.read_until_eof()
    await peer.finish()


class Reader:
    """Receives, and takes its time for each message."""

    def __init__(self, ws: anyws.Connection, seconds: float) -> None:
        self.messages: list[str | bytes] = []
        self._ws = ws
        self._seconds = seconds

    async def iterate(self) -> None:
        async for message in self._ws:
            self.messages.append(message)
            await anyio.sleep(self._seconds)

    async def call(self) -> None:
        with suppress(anyws.ConnectionClosedOK):
            while True:
                self.messages.append(await self._ws.recv())
                await anyio.sleep(self._seconds)


EXPECTED = [str(i) for i in range(COUNT)]


@both_roles
@pytest.mark.parametrize("receive", [Reader.iterate, Reader.call])
@pytest.mark.parametrize("max_queue", [1, 4, (8, 3)])
@pytest.mark.parametrize("seconds", [0, 0.01, 0.9])
@pytest.mark.behaviour(55)
async def test_who_receives_slowly_gets_all_that_was_sent_before_the_close_frame_of_the_peer(
    pair: Pair,
    receive: Callable[[Reader], Coroutine[None, None, None]],
    max_queue: int | tuple[int, int],
    seconds: float,
) -> None:
    async with pair(max_queue=max_queue, close_timeout=60) as (ws, peer):
        reader = Reader(ws, seconds)
        async with anyio.create_task_group() as tg:
            await peer.send_bytes(numbered(COUNT, peer))
            tg.start_soon(receive, reader)
            await anyio.wait_all_tasks_blocked()
            tg.start_soon(answer_close, peer)
            await ws.close()
        assert reader.messages == EXPECTED
        assert ws.close_code == 1000


@both_roles
@pytest.mark.behaviour(55)
async def test_who_receives_gets_all_when_another_task_leaves_the_block_of_the_connection(
    pair: Pair,
) -> None:
    async with pair(max_queue=4, close_timeout=60) as (ws, peer):
        reader = Reader(ws, 0.01)
        async with anyio.create_task_group() as tg:
            await peer.send_bytes(numbered(COUNT, peer))
            tg.start_soon(reader.iterate)
            await anyio.wait_all_tasks_blocked()
            tg.start_soon(answer_close, peer)
            async with ws:
                await ws.send("last")
        assert reader.messages == EXPECTED


@both_roles
@pytest.mark.behaviour(55)
async def test_who_waits_for_a_message_gets_a_burst_that_comes_after_our_close_frame(
    pair: Pair,
) -> None:
    async with pair(max_queue=4) as (ws, peer):
        reader = Reader(ws, 0.1)
        async with anyio.create_task_group() as tg:
            tg.start_soon(reader.iterate)
            await anyio.wait_all_tasks_blocked()
            tg.start_soon(answer_close, peer, numbered(COUNT, peer))
            await ws.close()
        assert reader.messages == EXPECTED


@both_roles
async def test_who_streams_a_message_gets_the_rest_of_it(pair: Pair) -> None:
    async with pair(max_queue=4, read_limit=1000, max_size=None) as (ws, peer):
        fragments: list[str | bytes] = []

        async def stream() -> None:
            async with ws.recv_streaming() as message:
                async for fragment in message:
                    fragments.append(fragment)
                    await anyio.sleep(0.1)

        async def send() -> None:
            for i in range(30):
                await peer.send(0 if i else BINARY, b"x" * 900, fin=i == 29)
            await answer_close(peer)

        async with anyio.create_task_group() as tg:
            tg.start_soon(stream)
            tg.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            await ws.close()
        assert b"".join(map(bytes, fragments)) == b"x" * 900 * 30  # type: ignore[arg-type]  # bytes


@both_roles
@pytest.mark.behaviour(14)
async def test_close_takes_a_second_more_when_the_task_that_received_has_stopped(
    pair: Pair,
) -> None:
    async with pair(max_queue=4) as (ws, peer):
        await peer.send_bytes(numbered(COUNT, peer, closing=True))
        await peer.stream.send_eof()
        assert await ws.recv() == "0"
        with takes(1):
            await ws.close()
        assert ws.close_code == 1000
        assert [message async for message in ws] == ["1", "2", "3", "4"]


@both_roles
async def test_time_begins_anew_with_each_message_that_is_taken(pair: Pair) -> None:
    async with pair(max_queue=1, close_timeout=20) as (ws, peer):

        async def receive() -> None:
            for _ in range(3):
                await anyio.sleep(0.8)
                await ws.recv()

        await peer.send_bytes(numbered(COUNT, peer, closing=True))
        await peer.stream.send_eof()
        await ws.recv()
        async with background(receive):
            with takes(3.5):  # after 2.4 nothing is taken any more; that is seen at 2.5
                await ws.close()


@both_roles
async def test_leaving_the_block_waits_for_nobody_who_receives(pair: Pair) -> None:
    with takes(0):
        async with pair(max_queue=4) as (ws, peer):
            await peer.send_bytes(numbered(COUNT, peer, closing=True))
            await peer.stream.send_eof()
            async for message in ws:
                assert message == "0"
                break


@pytest.mark.parametrize("seconds", [0, 0.01, 0.9])
@pytest.mark.behaviour(96)
async def test_handler_gets_all_when_its_server_closes(seconds: float) -> None:
    readers: list[Reader] = []

    async def handler(ws: anyws.Connection) -> None:
        readers.append(Reader(ws, seconds))
        await anyio.sleep(0.5)
        await readers[0].iterate()

    listener = MemoryListener()
    async with anyws.serve(handler, listeners=[listener], max_queue=4, close_timeout=60) as server:
        async with await listener.connect() as stream:
            await stream.send(REQUEST + b"\r\n")
            peer = Peer(stream, masks=True)
            await peer.read_until(b"\r\n\r\n")
            await peer.send_bytes(numbered(COUNT, peer))
            await anyio.sleep(0.1)
            async with anyio.create_task_group() as tg:
                tg.start_soon(answer_close, peer)
                await server.close(grace=60)
    assert readers[0].messages == EXPECTED


@both_roles
@pytest.mark.behaviour(55)
async def test_closing_twice_is_no_reason_to_drop_messages(pair: Pair) -> None:
    async with pair(max_queue=4, close_timeout=60) as (ws, peer):
        reader = Reader(ws, 0.5)
        async with anyio.create_task_group() as tg:
            tg.start_soon(reader.iterate)
            await peer.send_bytes(numbered(COUNT, peer))
            await anyio.wait_all_tasks_blocked()
            tg.start_soon(answer_close, peer)
            while not ws.closed:
                with anyio.move_on_after(0.2):
                    await ws.close()
        assert reader.messages == EXPECTED


@both_roles
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.behaviour(55)
async def test_no_mix_of_sizes_and_times_loses_a_message(pair: Pair, seed: int) -> None:
    random = Random(seed)
    messages = [random.randbytes(random.choice([0, 1, 300, 900, 3000])) for _ in range(COUNT)]
    received: list[str | bytes] = []

    async def receive() -> None:
        async for message in ws:
            received.append(message)
            await anyio.sleep(random.choice([0, 0.3, 0.55, 0.8]))

    async def send() -> None:
        for message in messages:
            await peer.send(BINARY, message)
            await anyio.sleep(random.choice([0, 0, 0.4]))
        await answer_close(peer)

    async with pair(max_queue=8, read_limit=1000, close_timeout=100) as (ws, peer):
        async with anyio.create_task_group() as tg:
            tg.start_soon(receive)
            tg.start_soon(send)
            await anyio.sleep(random.random() * 10)
            await ws.close()
    assert received == messages


@both_roles
@pytest.mark.behaviour(14)
async def test_little_time_to_close_in_is_enough_when_nobody_receives_any_more(
    pair: Pair,
) -> None:
    async with pair(max_queue=4, close_timeout=0.5) as (ws, peer):
        await peer.send_bytes(numbered(COUNT, peer, closing=True))
        await peer.stream.send_eof()
        assert await ws.recv() == "0"
        with takes(0.25):
            await ws.close()
        assert ws.close_code == 1000


@pytest.mark.behaviour(96)
async def test_little_grace_is_enough_when_a_handler_does_not_receive() -> None:
    codes: list[int | None] = []

    async def handler(ws: anyws.Connection) -> None:
        await ws.wait_closed()
        codes.append(ws.close_code)

    listener = MemoryListener()
    async with anyws.serve(handler, listeners=[listener], max_queue=4) as server:
        async with await listener.connect() as stream:
            await stream.send(REQUEST + b"\r\n")
            peer = Peer(stream, masks=True)
            await peer.read_until(b"\r\n\r\n")
            await peer.send_bytes(numbered(COUNT, peer, closing=True))
            await anyio.sleep(0.1)
            async with anyio.create_task_group() as tg:
                tg.start_soon(leave, peer)
                await server.close(grace=0.5)
    assert codes == [1000]
