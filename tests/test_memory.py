"""Memory, measured: what a peer can make a connection hold, whatever it sends and leaves unread."""

from __future__ import annotations

import contextlib
import gc
import tracemalloc
from functools import cache
from typing import TYPE_CHECKING

import anyio
import pytest

from anyws._transports import StreamTransport
from tests.endings import both_roles
from tests.receiving import DEFLATE, KIB, MIB, RSV1, STREAM_SIZE, deflate, expect_too_big
from tests.wire import BINARY, CONT, MASK, PING, PONG, TEXT, Peer, frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


@contextlib.contextmanager
def memory_at_most(limit: int) -> Iterator[None]:
    """See that the block takes at most so many bytes of memory at any time."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= limit


@pytest.mark.behaviour(45)
@both_roles
@pytest.mark.parametrize(
    "count", [4000, pytest.param(200_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
@pytest.mark.parametrize(
    ("opcode", "payload"),
    [
        pytest.param(CONT, b"", id="empty-fragments"),
        pytest.param(CONT, b"a", id="one-byte-fragments"),
        pytest.param(BINARY, b"", id="empty-messages"),
        pytest.param(TEXT, b"a", id="one-byte-messages"),
        pytest.param(PONG, b"", id="pongs"),
        pytest.param(PING, b"", id="pings-of-a-peer-that-does-not-read"),
        pytest.param(PING, bytes(125), id="large-pings-of-a-peer-that-does-not-read"),
    ],
)
async def test_memory_is_bounded_when_small_frames_come_by_the_thousand(
    pair: Pair, opcode: int, payload: bytes, count: int
) -> None:
    async with (
        pair(read_limit=4 * KIB, write_limit=4 * KIB, max_buffer_size=STREAM_SIZE) as (_, peer),
        anyio.create_task_group() as tasks,
    ):
        if opcode == CONT:
            await peer.send(BINARY, b"", fin=False)
        one = frame(opcode, payload, fin=opcode != CONT, mask=MASK if peer.masks else None)
        flood = one * (count // max(1, len(payload) // 8))
        # What is made at the first run of a line, such as a cache or the notes of coverage, is no
        # part of what is measured.
        tasks.start_soon(peer.send_bytes, one)
        await anyio.sleep(1)
        # The marks, what is worked on, and, while it grows, two copies of the message; a list of so
        # many would take 8 bytes for each, and what is in it more.
        with memory_at_most((48 if opcode == PING else 32) * KIB + 3 * count * (opcode == CONT)):
            tasks.start_soon(peer.send_bytes, flood)
            await anyio.sleep(1)
        tasks.cancel_scope.cancel()


@pytest.mark.behaviour(40, 45)
@both_roles
async def test_small_chunk_that_inflates_to_many_large_messages_is_decoded_as_they_are_received(
    pair: Pair,
) -> None:
    message = b"x" * MIB
    async with pair(max_buffer_size=MIB, **DEFLATE) as (ws, peer):
        one = frame(BINARY, deflate(message), rsv=RSV1, mask=MASK if peer.masks else None)
        chunk = one * 32
        assert len(chunk) < 64 * KIB
        # One message that waits, one that is received, and while one is decoded two copies of it.
        with memory_at_most(5 * MIB):
            await peer.send_bytes(chunk)
            await anyio.sleep(1)
            for _ in range(32):
                assert await ws.recv() == message


@pytest.mark.behaviour(42, 45)
@both_roles
async def test_one_message_is_decoded_when_each_is_over_the_read_limit(pair: Pair) -> None:
    async with pair(read_limit=1000, max_buffer_size=MIB, **DEFLATE) as (ws, peer):
        one = frame(BINARY, deflate(bytes(MIB)), rsv=RSV1, mask=MASK if peer.masks else None)
        with memory_at_most(4 * MIB):
            await peer.send_bytes(one * 16)
            await peer.send_bytes(frame(PING, b"behind", mask=MASK if peer.masks else None))
            await anyio.sleep(1)
        for _ in range(15):
            await ws.recv()
        with pytest.raises(TimeoutError), anyio.fail_after(1):
            await peer.read(1)
        await ws.recv()
        assert (await peer.read_frame()).payload == b"behind"


@pytest.mark.behaviour(42)
@both_roles
async def test_reading_stops_for_no_message_that_is_waited_for(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[StreamTransport] = []
    pause = StreamTransport.pause_reading

    def pause_reading(transport: StreamTransport) -> None:
        pauses.append(transport)
        pause(transport)

    monkeypatch.setattr(StreamTransport, "pause_reading", pause_reading)
    async with pair(max_queue=1) as (ws, peer), anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(peer.send, BINARY, b"a")
            assert await ws.recv() == b"a"
        assert not pauses
        await peer.send(BINARY, b"b")
        await anyio.sleep(1)
        assert len(pauses) == 1
        assert await ws.recv() == b"b"


@pytest.mark.behaviour(45)
@both_roles
@pytest.mark.parametrize("payload", [b"", b"a"], ids=["empty", "one-byte"])
async def test_fragments_that_recv_streaming_leaves_unread_stop_reading(
    pair: Pair, payload: bytes
) -> None:
    async with (
        pair(max_queue=10, max_buffer_size=STREAM_SIZE) as (ws, peer),
        anyio.create_task_group() as tasks,
    ):
        async with ws.recv_streaming() as fragments:
            await peer.send(BINARY, payload, fin=False)
            flood = frame(CONT, payload, fin=False, mask=MASK if peer.masks else None) * 4000
            with memory_at_most(32 * KIB):
                tasks.start_soon(peer.send_bytes, flood)
                await anyio.sleep(1)
            for _ in range(1001):
                assert await anext(fragments) == payload
        tasks.cancel_scope.cancel()


@pytest.mark.behaviour(45)
@both_roles
async def test_chunk_that_comes_when_reading_has_just_stopped_is_not_decoded(pair: Pair) -> None:
    async with pair(read_limit=1000, **DEFLATE) as (ws, peer):
        large = deflate(bytes(MIB))
        mask = MASK if peer.masks else None
        await peer.send(BINARY, bytes(2000), fin=False)
        await anyio.sleep(1)  # the connection waits for the next chunk
        async with ws.recv_streaming() as fragments:
            with memory_at_most(256 * KIB):
                await peer.send_bytes(
                    frame(CONT, mask=mask) + frame(BINARY, large, rsv=RSV1, mask=mask)
                )
                await anyio.sleep(1)
            assert [fragment async for fragment in fragments] == [bytes(2000), b""]
        assert await ws.recv() == bytes(MIB)


@pytest.mark.behaviour(45)
@both_roles
async def test_rest_of_a_message_that_recv_streaming_left_takes_no_memory(pair: Pair) -> None:
    async with (
        pair(max_buffer_size=4 * KIB) as (ws, peer),
        anyio.create_task_group() as tasks,
    ):
        await peer.send(BINARY, b"a", fin=False)
        async with ws.recv_streaming() as fragments:
            assert await anext(fragments) == b"a"
        flood = frame(CONT, b"x" * 1000, fin=False, mask=MASK if peer.masks else None) * 300
        with memory_at_most(64 * KIB):
            tasks.start_soon(peer.send_bytes, flood)
            await anyio.sleep(1)
        await peer.send(CONT)
        await peer.send(TEXT, b"next")
        assert await ws.recv() == "next"


@pytest.mark.behaviour(45)
@both_roles
async def test_memory_is_bounded_when_the_peer_goes_on_after_our_close(pair: Pair) -> None:
    async with (
        pair(max_buffer_size=4 * KIB) as (ws, peer),
        anyio.create_task_group() as tasks,
    ):
        await ws.send_eof()
        flood = frame(BINARY, b"x" * 1000, mask=MASK if peer.masks else None) * 300
        with memory_at_most(128 * KIB):
            tasks.start_soon(peer.send_bytes, flood)
            await anyio.sleep(1)
        assert not ws.closed
        # Who closes wants no more: what comes makes way for the Close frame of the peer.
        with memory_at_most(128 * KIB):
            tasks.start_soon(ws.close)
            await anyio.sleep(1)
        await peer.send_close()
        await ws.wait_closed()
        assert ws.close_code == 1000


@pytest.mark.behaviour(45)
@both_roles
async def test_memory_is_bounded_when_the_peer_goes_on_after_a_failure(pair: Pair) -> None:
    async with (
        pair(max_size=100, max_buffer_size=4 * KIB) as (ws, peer),
        anyio.create_task_group() as tasks,
    ):
        flood = frame(BINARY, b"x" * 1000, mask=MASK if peer.masks else None) * 300
        with memory_at_most(64 * KIB):
            tasks.start_soon(_send_until_broken, peer, flood)
            await ws.wait_closed()


async def _send_until_broken(peer: Peer, data: bytes) -> None:
    with contextlib.suppress(anyio.BrokenResourceError):
        await peer.send_bytes(data)


@cache
def _bomb() -> bytes:
    return deflate(bytes(64 * MIB))


@pytest.mark.behaviour(40)
@both_roles
async def test_bomb_is_stopped_before_it_is_inflated(pair: Pair) -> None:
    bomb = _bomb()
    async with pair(max_size=MIB, **DEFLATE) as (ws, peer), anyio.create_task_group() as tasks:
        data = frame(BINARY, bomb, rsv=RSV1, mask=MASK if peer.masks else None)
        with memory_at_most(4 * MIB):
            tasks.start_soon(peer.send_bytes, data)
            await expect_too_big(ws, peer)
        tasks.cancel_scope.cancel()
