"""Sizes, queues and water marks: what a peer may send, and how much of it is held in memory."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from anyws import Connection
from tests.endings import both_roles
from tests.receiving import DEFLATE, KIB, MIB, RSV1, STREAM_SIZE, deflate, expect_too_big
from tests.wire import BINARY, CONT, MASK, PING, PONG, TEXT, Peer, client_and_peer, frame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


@cache
def large_frame(size: int, masks: bool) -> bytes:
    """Draw a Binary message of so many zeros, once: the peer's masking takes its time."""
    return frame(BINARY, bytes(size), mask=MASK if masks else None)


async def send_zeros(peer: Peer, size: int) -> None:
    await peer.send_bytes(large_frame(size, peer.masks))


# max_size.

# Around the two places where the length in the header becomes longer, and the default.
sizes = pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, MIB])


@pytest.mark.behaviour(38)
@both_roles
@sizes
async def test_message_of_exactly_max_size_passes(pair: Pair, size: int) -> None:
    async with pair(max_size=size) as (ws, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(send_zeros, peer, size)
        assert await ws.recv() == bytes(size)


@pytest.mark.behaviour(38)
@both_roles
@sizes
async def test_message_of_one_byte_more_closes_with_1009(pair: Pair, size: int) -> None:
    async with pair(max_size=size) as (ws, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(send_zeros, peer, size + 1)
        cause = await expect_too_big(ws, peer)
        assert str(cause) == f"message of {size + 1} bytes exceeds the limit of {size} bytes"
        tasks.cancel_scope.cancel()


@pytest.mark.behaviour(38)
@both_roles
async def test_max_size_is_1_mib_unless_told(pair: Pair) -> None:
    async with pair() as (ws, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(send_zeros, peer, MIB)
        assert len(await ws.recv()) == MIB
        tasks.start_soon(send_zeros, peer, MIB + 1)
        await expect_too_big(ws, peer)
        tasks.cancel_scope.cancel()


@pytest.mark.behaviour(38)
@both_roles
async def test_max_size_counts_the_bytes_of_text(pair: Pair) -> None:
    snowman = "\N{SNOWMAN}".encode()
    async with pair(max_size=6) as (ws, peer):
        await peer.send(TEXT, snowman * 2)
        assert await ws.recv() == "\N{SNOWMAN}\N{SNOWMAN}"
        await peer.send(TEXT, snowman * 2 + b".")
        await expect_too_big(ws, peer)


@pytest.mark.behaviour(38)
@both_roles
@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", id="8-EiB"),
        pytest.param(b"\x81\x7f\x00\x00\x00\x00\x00\x10\x00\x01", id="1-MiB-and-1"),
    ],
)
async def test_message_fails_by_its_header_alone(pair: Pair, header: bytes) -> None:
    async with pair() as (ws, peer):
        masked = header[:1] + bytes([header[1] | 0x80]) + header[2:] + MASK
        await peer.send_bytes(masked if peer.masks else header)
        await expect_too_big(ws, peer)


@pytest.mark.behaviour(38)
@both_roles
async def test_control_frames_do_not_count_for_max_size(pair: Pair) -> None:
    async with pair(max_size=1) as (ws, peer):
        await peer.send(BINARY, b"a", fin=False)
        await peer.send(PING, bytes(125))
        await peer.send(CONT)
        assert await ws.recv() == b"a"
        assert (await peer.read_frame()).payload == bytes(125)


@pytest.mark.behaviour(38, 39)
@both_roles
async def test_max_size_of_a_fragment_is_a_limit_of_its_own(pair: Pair) -> None:
    async with pair(max_size=(10, 4)) as (ws, peer):
        await peer.send(BINARY, b"1234", fin=False)
        await peer.send(CONT, b"5678", fin=False)
        await peer.send(CONT, b"90")
        assert await ws.recv() == b"1234567890"
        await peer.send(BINARY, b"12345")
        cause = await expect_too_big(ws, peer)
        assert str(cause) == "fragment of 5 bytes exceeds the limit of 4 bytes"


@pytest.mark.behaviour(38, 39)
@both_roles
async def test_later_fragment_over_its_limit_closes_with_1009(pair: Pair) -> None:
    async with pair(max_size=(None, 4)) as (ws, peer):
        await peer.send(BINARY, b"1", fin=False)
        await peer.send(CONT, b"12345")
        await expect_too_big(ws, peer)


@pytest.mark.behaviour(38)
@pytest.mark.parametrize("max_size", [-1, (-1, None), (None, -1)])
async def test_negative_max_size_is_refused(max_size: Any) -> None:
    with pytest.raises(ValueError, match=r"^max_size of -1 bytes is negative$"):
        async with client_and_peer(max_size=max_size):
            pass


@pytest.mark.behaviour(39)
@both_roles
async def test_fragments_of_exactly_max_size_together_pass(pair: Pair) -> None:
    async with pair(max_size=6) as (ws, peer):
        for _ in range(2):  # the sum begins anew with each message
            await peer.send(TEXT, b"abc", fin=False)
            await peer.send(CONT, b"", fin=False)
            await peer.send(CONT, b"def", fin=False)
            await peer.send(CONT, b"")
            assert await ws.recv() == "abcdef"


@pytest.mark.behaviour(39)
@both_roles
async def test_fragment_that_brings_the_sum_over_max_size_closes_with_1009(pair: Pair) -> None:
    async with pair(max_size=6) as (ws, peer):
        await peer.send(TEXT, b"abc", fin=False)
        await peer.send(CONT, b"def", fin=False)
        await peer.send(CONT, b"g")
        cause = await expect_too_big(ws, peer)
        assert str(cause) == "message of 7 bytes exceeds the limit of 6 bytes"


@pytest.mark.behaviour(39)
@both_roles
async def test_fragments_are_summed_when_recv_streaming_has_taken_them(pair: Pair) -> None:
    async with pair(max_size=6) as (ws, peer), ws.recv_streaming() as fragments:
        await peer.send(BINARY, b"abc", fin=False)
        assert await anext(fragments) == b"abc"
        await peer.send(CONT, b"def", fin=False)
        assert await anext(fragments) == b"def"
        await peer.send(CONT, b"g")
        with pytest.raises(anyws.ConnectionClosedError) as caught:
            await anext(fragments)
        assert isinstance(caught.value.__cause__, anyws.PayloadTooBig)
        assert (await peer.read_frame()).code == 1009


@pytest.mark.behaviour(40)
@both_roles
async def test_compressed_message_of_exactly_max_size_passes(pair: Pair) -> None:
    async with pair(max_size=10_000, **DEFLATE) as (ws, peer):
        await peer.send(BINARY, deflate(bytes(10_000)), rsv=RSV1)
        assert await ws.recv() == bytes(10_000)


@pytest.mark.behaviour(40)
@both_roles
async def test_compressed_message_of_one_byte_more_closes_with_1009(pair: Pair) -> None:
    async with pair(max_size=10_000, **DEFLATE) as (ws, peer):
        await peer.send(BINARY, deflate(bytes(10_001)), rsv=RSV1)
        cause = await expect_too_big(ws, peer)
        assert str(cause) == "message exceeds the limit of 10000 bytes after decompression"


@pytest.mark.behaviour(40)
@both_roles
async def test_message_that_is_larger_compressed_passes_by_its_size_inflated(pair: Pair) -> None:
    stored = b"\x00\x01\x00\xfe\xff" + b"a" + b"\x00"  # a block that is stored, of one byte
    async with pair(max_size=1, **DEFLATE) as (ws, peer):
        await peer.send(BINARY, stored, rsv=RSV1)
        assert await ws.recv() == b"a"


@pytest.mark.behaviour(39, 40)
@both_roles
async def test_compressed_fragments_are_summed_after_decompression(pair: Pair) -> None:
    compressed = deflate(bytes(10_001))
    async with pair(max_size=10_000, **DEFLATE) as (ws, peer):
        await peer.send(BINARY, compressed[:5], fin=False, rsv=RSV1)
        await peer.send(CONT, compressed[5:10], fin=False)
        await peer.send(CONT, compressed[10:])
        await expect_too_big(ws, peer)


@pytest.mark.behaviour(38, 40)
@both_roles
async def test_max_size_of_a_fragment_counts_after_decompression(pair: Pair) -> None:
    async with pair(max_size=(None, 10_000), **DEFLATE) as (ws, peer):
        await peer.send(BINARY, deflate(bytes(10_000)), rsv=RSV1)
        assert await ws.recv() == bytes(10_000)
        await peer.send(BINARY, deflate(bytes(10_001)), rsv=RSV1)
        await expect_too_big(ws, peer)


@pytest.mark.behaviour(41)
@both_roles
@pytest.mark.parametrize("max_size", [None, (None, None)])
async def test_none_lifts_max_size(pair: Pair, max_size: Any) -> None:
    async with pair(max_size=max_size) as (ws, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(send_zeros, peer, 3 * MIB)
        assert len(await ws.recv()) == 3 * MIB


@pytest.mark.behaviour(41)
@both_roles
async def test_none_lifts_max_size_when_the_message_is_compressed(pair: Pair) -> None:
    async with pair(max_size=None, **DEFLATE) as (ws, peer):
        await peer.send(BINARY, deflate(bytes(3 * MIB)), rsv=RSV1)
        assert len(await ws.recv()) == 3 * MIB


# The queue. A peer sends as much as it gets rid of; the stream between holds only a few bytes.


class Flood:
    """A peer that sends numbered messages of one size, and counts those that are out of its hands.

    Args:
        peer: the peer.
        size: bytes of payload of each.
        total: how many.
    """

    def __init__(self, peer: Peer, size: int, total: int = 1000) -> None:
        self.peer = peer
        self.size = size
        self.total = total
        self.sent = 0

    def message(self, number: int) -> bytes:
        return number.to_bytes(2, "big").ljust(self.size, b".")

    async def run(self) -> None:
        while self.sent < self.total:
            await self.peer.send(BINARY, self.message(self.sent))
            self.sent += 1

    async def settle(self) -> int:
        """Wait until it is stuck, and give how many it has sent."""
        await anyio.sleep(1)  # the clock jumps there once nothing else runs
        return self.sent


@pytest.mark.behaviour(42)
@both_roles
async def test_full_queue_stops_reading_and_the_peer_blocks(pair: Pair) -> None:
    async with (
        pair(max_queue=10, max_buffer_size=STREAM_SIZE) as (_, peer),
        anyio.create_task_group() as tasks,
    ):
        flood = Flood(peer, 600)
        tasks.start_soon(flood.run)
        assert await flood.settle() == 10
        tasks.cancel_scope.cancel()


@pytest.mark.behaviour(42)
@both_roles
async def test_queue_takes_no_more_than_it_holds_when_a_chunk_has_more(pair: Pair) -> None:
    async with pair(max_queue=10, max_buffer_size=MIB) as (ws, peer):
        mask = MASK if peer.masks else None
        await peer.send_bytes(b"".join(frame(BINARY, b"%d" % i, mask=mask) for i in range(1000)))
        await anyio.sleep(1)
        # Behind the queue nothing is decoded, so the peer's Close is not seen.
        await peer.send_close()
        await anyio.sleep(1)
        assert ws.open
        assert [await ws.recv() for _ in range(1000)] == [b"%d" % i for i in range(1000)]
        with pytest.raises(anyws.ConnectionClosedOK):
            await ws.recv()


@pytest.mark.behaviour(42)
@both_roles
async def test_queue_is_filled_again_at_its_low_mark_from_the_rest_of_a_chunk(pair: Pair) -> None:
    async with pair(max_queue=(10, 4), max_buffer_size=MIB) as (ws, peer):
        mask = MASK if peer.masks else None
        await peer.send_bytes(b"".join(frame(BINARY, b"%d" % i, mask=mask) for i in range(30)))
        await anyio.sleep(1)
        decoded = [ws.stats.messages_received]
        async for message in ws:
            decoded.append(ws.stats.messages_received)
            if message == b"29":
                break
        # 6 are taken out, and 6 come, but at the end, where the peer may send more.
        assert decoded == [10] * 6 + [16] * 6 + [22] * 6 + [28] * 6 + [30] * 7
        queue = ws._inbox.queue
        assert (queue.paused, queue.starved, queue.replenishes) == (False, False, True)
        assert (ws.stats.peak_inbox_messages, ws.stats.peak_inbox_bytes) == (10, 20)


@pytest.mark.behaviour(45)
@both_roles
@pytest.mark.parametrize("cancelled", [False, True])
async def test_one_message_alone_is_decoded_for_who_waits_though_more_come_before_he_runs(
    pair: Pair, cancelled: bool
) -> None:
    received: list[object] = []

    async def receive(ws: anyws.Connection) -> None:
        received.append(await ws.recv())

    async with pair(max_queue=1) as (ws, peer), anyio.create_task_group() as tasks:
        mask = MASK if peer.masks else None
        tasks.start_soon(receive, ws)
        await anyio.wait_all_tasks_blocked()
        # As TLS does with two records, and a socket where two turns come before his.
        for chunk in (b"a", b"b", b"c"):
            ws._intake.feed(frame(BINARY, chunk, mask=mask) + frame(PING, chunk, mask=mask))
        assert ws.stats.peak_inbox_messages == 1
        if cancelled:
            tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.wait_all_tasks_blocked()
            received += [await ws.recv() for _ in range(3 - len(received))]
            assert [(await peer.read_frame()).payload for _ in range(3)] == [b"a", b"b", b"c"]
            assert (ws.stats.peak_inbox_messages, ws.stats.pings_received) == (1, 3)
            await peer.finish()
    assert received == [b"a", b"b", b"c"]


@pytest.mark.behaviour(42)
@both_roles
async def test_queue_may_be_larger_than_any_number_of_the_machine(pair: Pair) -> None:
    async with pair(max_queue=2**70, read_limit=(2**80, 2**75)) as (ws, peer):
        for number in range(100):
            await peer.send(TEXT, b"%d" % number)
        assert [await ws.recv() for _ in range(100)] == [str(number) for number in range(100)]


@pytest.mark.behaviour(42)
@both_roles
async def test_pings_wait_behind_a_full_queue_and_are_answered_later(pair: Pair) -> None:
    async with pair(max_queue=1) as (ws, peer):
        await peer.send(TEXT, b"a")
        await peer.send(PING, b"late")
        with pytest.raises(TimeoutError), anyio.fail_after(1):
            await peer.read_frame()
        assert await ws.recv() == "a"
        pong = await peer.read_frame()
        assert (pong.opcode, pong.payload) == (PONG, b"late")


@pytest.mark.behaviour(42)
async def test_max_queue_is_32_unless_told() -> None:
    async with (
        client_and_peer(max_buffer_size=STREAM_SIZE) as (_, peer),
        anyio.create_task_group() as tasks,
    ):
        flood = Flood(peer, 600)
        tasks.start_soon(flood.run)
        assert await flood.settle() == 32
        tasks.cancel_scope.cancel()


@pytest.mark.behaviour(43)
@both_roles
@pytest.mark.parametrize(
    ("max_queue", "high", "low"),
    [(20, 20, 5), ((20, None), 20, 5), ((20, 8), 20, 8), ((20, 0), 20, 0), ((20, 20), 20, 20)],
)
@pytest.mark.parametrize("receive", [Connection.recv, Connection.__anext__])
async def test_reading_resumes_at_the_low_mark(
    pair: Pair,
    max_queue: Any,
    high: int,
    low: int,
    receive: Callable[[Connection], Awaitable[str | bytes]],
) -> None:
    async with (
        pair(max_queue=max_queue, max_buffer_size=STREAM_SIZE) as (ws, peer),
        anyio.create_task_group() as tasks,
    ):
        flood = Flood(peer, 600)
        tasks.start_soon(flood.run)
        stuck_at = await flood.settle()
        taken = 0
        while high - taken > low + 1:
            await receive(ws)
            taken += 1
            assert await flood.settle() == stuck_at
        await receive(ws)
        taken += 1
        assert await flood.settle() == stuck_at + taken
        tasks.cancel_scope.cancel()


@pytest.mark.behaviour(43)
@both_roles
async def test_flood_is_delivered_whole_and_in_order_when_it_is_received_slowly(pair: Pair) -> None:
    async with (
        pair(max_queue=4, read_limit=2000, max_buffer_size=STREAM_SIZE) as (ws, peer),
        anyio.create_task_group() as tasks,
    ):
        flood = Flood(peer, 600, total=100)
        tasks.start_soon(flood.run)
        for number in range(100):
            await anyio.sleep(0.1)
            assert await ws.recv() == flood.message(number)


@pytest.mark.behaviour(43)
@both_roles
@pytest.mark.parametrize("max_queue", [1, 3, (8, 0)])
async def test_iteration_gets_all_when_the_low_mark_is_0(pair: Pair, max_queue: Any) -> None:
    async with (
        pair(max_queue=max_queue, max_buffer_size=STREAM_SIZE) as (ws, peer),
        anyio.create_task_group() as tasks,
    ):
        flood = Flood(peer, 600, total=20)
        tasks.start_soon(flood.run)
        await flood.settle()
        with anyio.fail_after(1):
            assert [await anext(ws) for _ in range(20)] == [flood.message(i) for i in range(20)]


@pytest.mark.behaviour(44)
@both_roles
async def test_queue_without_a_limit_never_stops_reading(pair: Pair) -> None:
    async with (
        pair(max_queue=None, read_limit=None, max_buffer_size=STREAM_SIZE) as (ws, peer),
        anyio.create_task_group() as tasks,
    ):
        flood = Flood(peer, 600, total=200)
        tasks.start_soon(flood.run)
        assert await flood.settle() == 200
        assert [await ws.recv() for _ in range(200)] == [flood.message(i) for i in range(200)]


# read_limit.


@pytest.mark.behaviour(46)
@both_roles
async def test_read_limit_stops_reading_at_its_high_mark(pair: Pair) -> None:
    async with (
        pair(max_queue=None, read_limit=10_000, max_buffer_size=STREAM_SIZE) as (_, peer),
        anyio.create_task_group() as tasks,
    ):
        flood = Flood(peer, 1000)
        tasks.start_soon(flood.run)
        assert await flood.settle() == 10
        tasks.cancel_scope.cancel()


@pytest.mark.behaviour(46)
async def test_read_limit_is_64_kib_unless_told() -> None:
    async with (
        client_and_peer(max_queue=None, max_buffer_size=STREAM_SIZE) as (_, peer),
        anyio.create_task_group() as tasks,
    ):
        flood = Flood(peer, KIB)
        tasks.start_soon(flood.run)
        assert await flood.settle() == 64
        tasks.cancel_scope.cancel()


@pytest.mark.behaviour(46)
@both_roles
@pytest.mark.parametrize(
    ("read_limit", "low"),
    [(10_000, 5), ((10_000, None), 5), ((10_000, 2999), 2), ((10_000, 0), 0)],
)
async def test_read_limit_resumes_reading_at_its_low_mark(
    pair: Pair, read_limit: Any, low: int
) -> None:
    async with (
        pair(max_queue=None, read_limit=read_limit, max_buffer_size=STREAM_SIZE) as (ws, peer),
        anyio.create_task_group() as tasks,
    ):
        flood = Flood(peer, 1000)
        tasks.start_soon(flood.run)
        stuck_at = await flood.settle()
        for _ in range(10 - low - 1):
            await ws.recv()
            assert await flood.settle() == stuck_at
        await ws.recv()
        assert await flood.settle() == stuck_at + 10 - low
        tasks.cancel_scope.cancel()


@pytest.mark.behaviour(46)
@both_roles
async def test_message_over_the_read_limit_passes_alone(pair: Pair) -> None:
    async with (
        pair(read_limit=1, max_buffer_size=STREAM_SIZE) as (ws, peer),
        anyio.create_task_group() as tasks,
    ):
        flood = Flood(peer, 1000, total=20)
        tasks.start_soon(flood.run)
        for number in range(20):
            assert await flood.settle() <= number + 1
            assert await ws.recv() == flood.message(number)


@pytest.mark.behaviour(44, 46, 47)
@pytest.mark.parametrize("name", ["max_queue", "read_limit", "write_limit"])
@pytest.mark.parametrize("limits", [0, (10, 11), (10, -1)])
async def test_marks_that_make_no_sense_are_refused(name: str, limits: Any) -> None:
    with pytest.raises(ValueError, match=name):
        async with client_and_peer(**{name: limits}):
            pass


# write_limit.


@pytest.mark.behaviour(47)
@both_roles
async def test_send_returns_at_once_up_to_the_high_mark_and_waits_above(pair: Pair) -> None:
    async with pair(write_limit=10_000, max_buffer_size=STREAM_SIZE) as (ws, _):
        for _ in range(9):
            with anyio.fail_after(0.1):
                await ws.send(bytes(1000))  # 9 times 1000 and a header of 4 or 8 bytes
        with anyio.move_on_after(1) as scope:
            await ws.send(bytes(1000))
        assert scope.cancelled_caught
        with pytest.raises(anyio.WouldBlock):
            ws.send_nowait(b"")


@pytest.mark.behaviour(47)
@both_roles
@pytest.mark.parametrize(("write_limit", "low"), [(4000, 1000), ((4000, 2500), 2500)])
async def test_send_returns_when_the_peer_has_read_down_to_the_low_mark(
    pair: Pair, write_limit: Any, low: int
) -> None:
    async with (
        pair(write_limit=write_limit, max_buffer_size=STREAM_SIZE) as (ws, peer),
        anyio.create_task_group() as tasks,
    ):
        returned = anyio.Event()

        async def send() -> None:
            await ws.send(bytes(low - 100))
            returned.set()

        await ws.send(bytes(4000 - 100))
        await anyio.sleep(1)  # the first message is on its way, alone
        tasks.start_soon(send)
        await anyio.sleep(1)
        assert not returned.is_set()
        await peer.read(3000)
        await anyio.sleep(1)
        assert not returned.is_set()
        await peer.read(908)  # with the header, all of the first message
        await anyio.sleep(1)
        assert returned.is_set()


@pytest.mark.behaviour(47)
@both_roles
async def test_send_waits_for_one_message_over_the_high_mark(pair: Pair) -> None:
    async with pair(write_limit=10, max_buffer_size=STREAM_SIZE) as (ws, peer):
        with anyio.move_on_after(1) as scope:
            await ws.send(b"x" * 1000)
        assert scope.cancelled_caught
        assert (await peer.read_frame()).payload == b"x" * 1000


@pytest.mark.behaviour(47)
@both_roles
async def test_send_never_waits_when_write_limit_is_none(pair: Pair) -> None:
    async with pair(write_limit=None, max_buffer_size=STREAM_SIZE) as (ws, peer):
        with anyio.fail_after(0.1):
            for _ in range(100):
                await ws.send(bytes(10_000))
                ws.send_nowait(bytes(10_000))
        assert (await peer.read_frame()).payload == bytes(10_000)


@pytest.mark.behaviour(47)
async def test_write_limit_is_64_kib_unless_told() -> None:
    async with client_and_peer(max_buffer_size=STREAM_SIZE) as (ws, _):
        for _ in range(63):
            with anyio.fail_after(0.1):
                await ws.send(bytes(KIB))
        with anyio.move_on_after(1) as scope:
            await ws.send(bytes(KIB))
        assert scope.cancelled_caught


@both_roles
@pytest.mark.behaviour(45)
async def test_pongs_are_bounded_also_without_a_write_limit(pair: Pair) -> None:
    async with pair(write_limit=None, max_buffer_size=1000) as (ws, peer):
        for _ in range(40):
            await peer.send_bytes(frame(PING, bytes(125), mask=MASK if peer.masks else None) * 100)
        await anyio.sleep(1)
        assert ws.stats.pings_received == 4000
        assert 64 * KIB < ws.stats.peak_write_buffer < 80 * KIB
