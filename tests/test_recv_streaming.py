"""recv_streaming(): a message in fragments, as they come, and what is left of one that was left."""

from __future__ import annotations

import functools
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

import anyws
from tests.endings import both_roles
from tests.receiving import DEFLATE, RSV1, SNOWMAN
from tests.wire import BINARY, CLOSE, CONT, MASK, PING, PONG, TEXT, Peer, frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def settle() -> None:
    """Let all run that can."""
    await anyio.sleep(0.001)  # the clock jumps there once nothing else runs


async def send_fragments(
    peer: Peer, *payloads: bytes, begin: bool = True, end: bool = True
) -> None:
    """Send fragments of Binary, and see that they have arrived."""
    for index, payload in enumerate(payloads):
        first = begin and not index
        last = end and index == len(payloads) - 1
        await peer.send(BINARY if first else CONT, payload, fin=last)
    await settle()


# Fragments as they come.


@pytest.mark.behaviour(61)
@both_roles
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_fragments_are_given_as_they_come(pair: Pair, opcode: int) -> None:
    async with pair() as (ws, peer), ws.recv_streaming() as fragments:
        given = []
        for number in range(5):
            await peer.send(CONT if number else opcode, b"%d" % number, fin=number == 4)
            with anyio.fail_after(1):
                given.append(await anext(fragments))
        with pytest.raises(StopAsyncIteration):
            await anext(fragments)
        assert given == (
            ["0", "1", "2", "3", "4"] if opcode == TEXT else [b"0", b"1", b"2", b"3", b"4"]
        )


@pytest.mark.behaviour(61)
@both_roles
@pytest.mark.parametrize("early", [True, False], ids=["before-the-block", "in-the-block"])
@pytest.mark.parametrize("payload", [b"", b"whole"], ids=["empty", "whole"])
async def test_message_in_one_frame_is_one_fragment(
    pair: Pair, early: bool, payload: bytes
) -> None:
    async with pair() as (ws, peer):
        if early:
            await peer.send(TEXT, payload)
            await settle()
        async with ws.recv_streaming() as fragments:
            if not early:
                await peer.send(TEXT, payload)
            assert [fragment async for fragment in fragments] == [payload.decode()]


@pytest.mark.behaviour(61)
@both_roles
async def test_message_that_came_whole_before_the_block_is_one_fragment(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await send_fragments(peer, b"a", b"b", b"c")
        await send_fragments(peer, b"next")
        async with ws.recv_streaming() as fragments:
            assert [fragment async for fragment in fragments] == [b"abc"]
        assert await ws.recv() == b"next"


@pytest.mark.behaviour(61)
@both_roles
async def test_entering_in_the_midst_of_a_message_gives_what_has_come_and_then_the_rest(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        await send_fragments(peer, b"a", b"b", end=False)
        async with ws.recv_streaming() as fragments:
            with anyio.fail_after(1):
                assert await anext(fragments) == b"ab"
            await send_fragments(peer, b"c", begin=False, end=False)
            assert await anext(fragments) == b"c"
            await send_fragments(peer, b"d", begin=False)
            assert [fragment async for fragment in fragments] == [b"d"]


@pytest.mark.behaviour(61)
@both_roles
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_entering_at_any_byte_gives_the_whole_message(pair: Pair, opcode: int) -> None:
    async with pair() as (ws, peer):
        mask = MASK if peer.masks else None
        data = frame(opcode, SNOWMAN[:1], fin=False, mask=mask)
        data += frame(PING, b"p", mask=mask)
        data += frame(CONT, SNOWMAN[1:], fin=False, mask=mask)
        data += frame(CONT, b"a", mask=mask)
        for split in range(len(data) + 1):
            await peer.send_bytes(data[:split])
            await settle()
            async with ws.recv_streaming() as fragments:
                await peer.send_bytes(data[split:])
                given = [fragment async for fragment in fragments]
            if opcode == TEXT:
                assert "".join(map(str, given)) == "\N{SNOWMAN}a"
            else:
                assert b"".join(map(_as_bytes, given)) == SNOWMAN + b"a"


def _as_bytes(data: str | bytes) -> bytes:
    assert isinstance(data, bytes)
    return data


@pytest.mark.behaviour(61)
@both_roles
async def test_text_that_is_cut_within_a_code_point_gives_it_when_it_is_complete(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer), ws.recv_streaming() as fragments:
        await peer.send(TEXT, b"a" + SNOWMAN[:1], fin=False)
        assert await anext(fragments) == "a"
        await peer.send(CONT, SNOWMAN[1:2], fin=False)
        assert await anext(fragments) == ""
        await peer.send(CONT, SNOWMAN[2:] + b"b")
        assert await anext(fragments) == "\N{SNOWMAN}b"


@pytest.mark.behaviour(61)
@both_roles
async def test_compressed_fragments_are_given_inflated(pair: Pair) -> None:
    compressor = zlib.compressobj(wbits=-15)
    pieces = [
        compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        for data in (b"ab", SNOWMAN[:2], SNOWMAN[2:] + b"c")
    ]
    async with pair(**DEFLATE) as (ws, peer), ws.recv_streaming() as fragments:
        await peer.send(TEXT, pieces[0], fin=False, rsv=RSV1)
        assert await anext(fragments) == "ab"
        await peer.send(CONT, pieces[1], fin=False)
        assert await anext(fragments) == ""
        await peer.send(CONT, pieces[2][:-4])
        assert await anext(fragments) == "\N{SNOWMAN}c"
        with pytest.raises(StopAsyncIteration):
            await anext(fragments)


@pytest.mark.behaviour(56, 61)
@both_roles
async def test_control_frames_between_fragments_are_answered(pair: Pair) -> None:
    async with pair() as (ws, peer), ws.recv_streaming() as fragments:
        await peer.send(TEXT, b"a", fin=False)
        await peer.send(PING, b"p")
        await peer.send(CONT, b"b")
        assert [fragment async for fragment in fragments] == ["a", "b"]
        pong = await peer.read_frame()
        assert (pong.opcode, pong.payload) == (PONG, b"p")


@pytest.mark.behaviour(61)
@both_roles
async def test_messages_after_the_streamed_one_come_whole(pair: Pair) -> None:
    async with pair() as (ws, peer):
        async with ws.recv_streaming() as fragments:
            mask = MASK if peer.masks else None
            await peer.send_bytes(
                frame(TEXT, b"a", fin=False, mask=mask)
                + frame(CONT, b"b", mask=mask)
                + frame(TEXT, b"c", fin=False, mask=mask)
                + frame(CONT, b"d", mask=mask)
            )
            assert [fragment async for fragment in fragments] == ["a", "b"]
            with pytest.raises(StopAsyncIteration):
                await anext(fragments)
        assert await ws.recv() == "cd"


@pytest.mark.behaviour(61)
@both_roles
async def test_messages_can_be_streamed_one_after_the_other(pair: Pair) -> None:
    async with pair() as (ws, peer):
        for number in range(3):
            async with ws.recv_streaming() as fragments:
                await send_fragments(peer, b"a", end=False)
                assert await anext(fragments) == b"a"
                await send_fragments(peer, b"%d" % number, begin=False)
                assert await anext(fragments) == b"%d" % number


# decode=


@pytest.mark.behaviour(48, 49, 61)
@both_roles
async def test_decode_overrides_the_type_of_fragments(pair: Pair) -> None:
    async with pair() as (ws, peer):
        for opcode in (TEXT, BINARY):
            for decode, expected in ((True, ["a", "b"]), (False, [b"a", b"b"])):
                async with ws.recv_streaming(decode=decode) as fragments:
                    await peer.send(opcode, b"a", fin=False)
                    await peer.send(CONT, b"b")
                    assert [fragment async for fragment in fragments] == expected


@pytest.mark.behaviour(49, 61)
@both_roles
async def test_decoded_binary_may_be_cut_within_a_code_point(pair: Pair) -> None:
    fragments: AsyncIterator[str]  # no need to narrow their type
    async with pair() as (ws, peer), ws.recv_streaming(decode=True) as fragments:
        await send_fragments(peer, b"a" + SNOWMAN[:1], SNOWMAN[1:2], SNOWMAN[2:] + b"b")
        assert [fragment async for fragment in fragments] == ["a", "", "\N{SNOWMAN}b"]


@pytest.mark.behaviour(49, 61)
@both_roles
@pytest.mark.parametrize("bad", [b"\xff", SNOWMAN[:2]], ids=["wrong", "cut-off"])
async def test_fragment_that_cannot_be_decoded_raises_and_the_connection_lives_on(
    pair: Pair, bad: bytes
) -> None:
    async with pair() as (ws, peer):
        async with ws.recv_streaming(decode=True) as fragments:
            await send_fragments(peer, b"a", bad)
            assert await anext(fragments) == "a"
            for _ in range(2):
                with pytest.raises(UnicodeDecodeError):
                    await anext(fragments)
        await send_fragments(peer, b"next")
        assert await ws.recv() == b"next"


# Leaving early.


class BodyError(Exception):
    pass


async def leave(way: str, scope: anyio.CancelScope) -> None:
    if way == "error":
        raise BodyError
    if way == "cancellation":
        scope.cancel()
        await checkpoint()


ways = pytest.mark.parametrize("way", ["end", "error", "cancellation"])


@pytest.mark.behaviour(61)
@both_roles
@ways
async def test_leaving_early_skips_the_rest_of_what_was_begun_wherever_it_is_left(
    pair: Pair, way: str
) -> None:
    payloads = [b"0", b"1", b"2", b"3"]
    async with pair() as (ws, peer):
        for sent in range(1, 5):
            for taken in range(sent + 1):
                await _leave_after(ws, peer, payloads, sent, taken, way)
                await send_fragments(peer, b"ne", b"xt")
                with anyio.fail_after(1):
                    if not taken:
                        assert await ws.recv() == b"0123"
                    assert await ws.recv() == b"next"


async def _leave_after(
    ws: anyws.Connection, peer: Peer, payloads: list[bytes], sent: int, taken: int, way: str
) -> None:
    """Send some fragments, take some, leave the block, and send the rest."""
    try:
        with anyio.CancelScope() as scope:
            async with ws.recv_streaming() as fragments:
                await send_fragments(peer, *payloads[:sent], end=sent == len(payloads))
                for number in range(taken):
                    assert await anext(fragments) == payloads[number]
                await leave(way, scope)
    except BodyError:
        assert way == "error"
    assert scope.cancelled_caught is (way == "cancellation")
    if sent < len(payloads):
        await send_fragments(peer, *payloads[sent:], begin=False)


@pytest.mark.behaviour(61)
@both_roles
async def test_leaving_early_within_any_frame_skips_the_rest(pair: Pair) -> None:
    async with pair() as (ws, peer):
        mask = MASK if peer.masks else None
        first = frame(TEXT, b"a" + SNOWMAN[:1], fin=False, mask=mask)
        rest = frame(CONT, SNOWMAN[1:], fin=False, mask=mask)
        rest += frame(PING, b"p", mask=mask) + frame(CONT, b"...", mask=mask)
        for split in range(len(rest) + 1):
            async with ws.recv_streaming() as fragments:
                await peer.send_bytes(first + rest[:split])
                assert await anext(fragments) == "a"
                await settle()
            await peer.send_bytes(rest[split:])
            await peer.send(TEXT, b"next")
            assert await ws.recv() == "next"


@pytest.mark.behaviour(61)
@both_roles
async def test_leaving_a_compressed_message_early_keeps_its_window_for_the_next(pair: Pair) -> None:
    compressor = zlib.compressobj(wbits=-15)
    text = b"the window has this sentence, and the next message refers to it"
    first = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
    second = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(second) < 15
    async with pair(**DEFLATE) as (ws, peer):
        async with ws.recv_streaming() as fragments:
            await peer.send(TEXT, first[:10], fin=False, rsv=RSV1)
            await anext(fragments)
        await peer.send(CONT, first[10:-4])
        await peer.send(TEXT, second[:-4], rsv=RSV1)
        assert await ws.recv() == text.decode()


@pytest.mark.behaviour(61)
@both_roles
@pytest.mark.parametrize("come", [b"", b"\x02", b"\x02\x01"], ids=["nothing", "byte", "header"])
async def test_message_of_which_no_fragment_has_come_is_not_skipped(
    pair: Pair, come: bytes
) -> None:
    async with pair() as (ws, peer):
        data = frame(BINARY, b"a", fin=False, mask=MASK if peer.masks else None)
        data += frame(CONT, b"b", mask=MASK if peer.masks else None)
        with anyio.move_on_after(1):
            async with ws.recv_streaming() as fragments:
                await peer.send_bytes(data[: len(come)])
                await anext(fragments)
        await peer.send_bytes(data[len(come) :])
        assert await ws.recv() == b"ab"


@pytest.mark.behaviour(52, 61)
@both_roles
@pytest.mark.parametrize("fragments", [[b"a"], [b"a", b"", b"b"]])
async def test_message_that_comes_with_the_cancellation_is_not_lost(
    pair: Pair, fragments: list[bytes]
) -> None:
    async def receive(scope: anyio.CancelScope) -> None:
        with scope:
            async with ws.recv_streaming() as streamed:
                async for fragment in streamed:
                    received.append(fragment)  # noqa: PERF401  # as far as it comes

    async with pair() as (ws, peer):
        for turns in range(12):
            received: list[str | bytes] = []
            scope = anyio.CancelScope()
            async with anyio.create_task_group() as tg:
                tg.start_soon(receive, scope)
                await settle()
                tg.start_soon(functools.partial(send_fragments, peer, *fragments))
                for _ in range(turns):
                    await checkpoint()
                scope.cancel()
            if not received:
                assert await ws.recv() == b"".join(fragments)


@pytest.mark.behaviour(61)
@both_roles
async def test_message_that_was_left_before_its_first_fragment_can_be_streamed_once_more(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        for _ in range(2):
            async with ws.recv_streaming():
                await peer.send(TEXT, b"a", fin=False)
                await settle()
            await peer.send(CONT, b"b", fin=False)
            await settle()
            async with ws.recv_streaming():
                await peer.send(CONT, b"c", fin=False)
                await settle()
            async with ws.recv_streaming() as fragments:
                assert [await anext(fragments) for _ in range(3)] == ["a", "b", "c"]
                await peer.send(CONT, b"d")
                assert [fragment async for fragment in fragments] == ["d"]
        await peer.send(TEXT, b"next")
        assert await ws.recv() == "next"


@pytest.mark.behaviour(45, 61)
@both_roles
@pytest.mark.parametrize("data", [b"", b"ab"])
async def test_many_small_fragments_take_little_memory_when_the_message_is_kept(
    pair: Pair, data: bytes
) -> None:
    count = 50_000
    async with pair(max_queue=4) as (ws, peer):
        mask = MASK if peer.masks else None
        async with ws.recv_streaming():
            await peer.send(BINARY, b"begin", fin=False)
            await settle()
        chunk = frame(CONT, data, fin=False, mask=mask) * 1_000
        tracemalloc.start()
        try:
            for _ in range(count // 1_000):
                await peer.send_bytes(chunk)
                await settle()
            assert tracemalloc.get_traced_memory()[0] < 600_000
        finally:
            tracemalloc.stop()
        await peer.send(CONT, b"end")
        assert await ws.recv() == b"begin" + data * count + b"end"


@pytest.mark.behaviour(61)
@both_roles
async def test_reading_goes_on_when_a_kept_message_leaves_room(pair: Pair) -> None:
    async with pair(max_queue=(4, 1)) as (ws, peer):
        async with ws.recv_streaming():
            await send_fragments(peer, b"a", b"b", b"c", b"d")
            await settle()
        await peer.send(PING, b"still there")
        assert (await peer.read_frame()).payload == b"still there"
        assert await ws.recv() == b"abcd"


@pytest.mark.behaviour(55, 61)
@both_roles
async def test_message_of_which_fragments_were_dropped_is_not_given(pair: Pair) -> None:
    async with pair(max_queue=2, close_timeout=20) as (ws, peer):
        async with ws.recv_streaming():
            await peer.send(BINARY, b"0", fin=False)
            await settle()
            with anyio.move_on_after(5):  # it waits a second for somebody who receives
                async with anyio.create_task_group() as tg:
                    tg.start_soon(ws.close)
                    for number in range(1, 6):
                        await peer.send(CONT, str(number).encode(), fin=False)
        await peer.send(CONT, b"6")
        await peer.send_close()
        with pytest.raises(anyws.ConnectionClosedOK):
            await ws.recv()


@pytest.mark.behaviour(61)
@both_roles
async def test_recv_waits_for_a_message_that_was_left_before_its_first_fragment(pair: Pair) -> None:
    async with pair(max_queue=1) as (ws, peer):
        async with ws.recv_streaming():
            await peer.send(TEXT, b"a", fin=False)
            await settle()
        with anyio.move_on_after(1) as scope:
            await ws.recv()
        assert scope.cancelled_caught
        async with anyio.create_task_group() as tg:
            tg.start_soon(peer.send, CONT, b"b")
            assert await ws.recv() == "ab"


@pytest.mark.behaviour(61)
@both_roles
async def test_leaving_after_the_end_skips_nothing(pair: Pair) -> None:
    async with pair() as (ws, peer):
        async with ws.recv_streaming() as fragments:
            await send_fragments(peer, b"a", b"b")
            await send_fragments(peer, b"next")
            assert [await anext(fragments), await anext(fragments)] == [b"a", b"b"]
        assert await ws.recv() == b"next"


@pytest.mark.behaviour(61)
@both_roles
async def test_leaving_early_with_a_full_queue_reads_on(pair: Pair) -> None:
    async with pair(max_queue=4, max_buffer_size=256) as (ws, peer):
        async with anyio.create_task_group() as tasks, ws.recv_streaming() as fragments:
            tasks.start_soon(send_fragments, peer, *[bytes(100)] * 100)
            assert await anext(fragments) == bytes(100)
            await anyio.sleep(1)
        await send_fragments(peer, b"next")
        with anyio.fail_after(1):
            assert await ws.recv() == b"next"


@pytest.mark.behaviour(61)
@both_roles
async def test_next_message_is_streamed_as_it_comes_when_the_rest_of_the_last_is_skipped(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        async with ws.recv_streaming() as fragments:
            await send_fragments(peer, b"old", end=False)
            assert await anext(fragments) == b"old"
        async with ws.recv_streaming() as fragments:
            await send_fragments(peer, b"old", begin=False)
            await send_fragments(peer, b"a", end=False)
            with anyio.fail_after(1):
                assert await anext(fragments) == b"a"
            await send_fragments(peer, b"b", begin=False)
            assert [fragment async for fragment in fragments] == [b"b"]


@pytest.mark.behaviour(61)
@both_roles
async def test_next_message_is_streamed_as_it_comes_when_it_begins_in_the_chunk_that_ends_the_last(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        async with ws.recv_streaming() as fragments:
            await send_fragments(peer, b"old", end=False)
            assert await anext(fragments) == b"old"
        async with ws.recv_streaming() as fragments:
            mask = MASK if peer.masks else None
            await peer.send_bytes(
                frame(CONT, b"old", mask=mask) + frame(TEXT, b"a", fin=False, mask=mask)
            )
            with anyio.fail_after(1):
                assert await anext(fragments) == "a"


@pytest.mark.behaviour(61)
@both_roles
async def test_rest_of_a_message_stays_skipped_when_another_block_is_left_before_it_comes(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        async with ws.recv_streaming() as fragments:
            await send_fragments(peer, b"old", end=False)
            assert await anext(fragments) == b"old"
        for _ in range(2):
            async with ws.recv_streaming():
                await send_fragments(peer, b"old", begin=False, end=False)
        await send_fragments(peer, b"old", begin=False)
        await send_fragments(peer, b"ne", b"xt")
        assert await ws.recv() == b"next"


@pytest.mark.behaviour(61)
@both_roles
async def test_rest_of_a_message_is_skipped_while_recv_waits(pair: Pair) -> None:
    received = []

    async def receive(ws: anyws.Connection) -> None:
        received.append(await ws.recv())

    async with pair() as (ws, peer):
        async with ws.recv_streaming() as fragments:
            await send_fragments(peer, b"old", end=False)
            assert await anext(fragments) == b"old"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive, ws)
            await send_fragments(peer, b"old", b"old", begin=False)
            assert received == []
            await send_fragments(peer, b"next")
        assert received == [b"next"]


# Cancellation inside.


@pytest.mark.behaviour(52, 53, 61)
@both_roles
@pytest.mark.parametrize("checkpoints", range(6))
async def test_cancelling_the_iteration_loses_no_fragment(pair: Pair, checkpoints: int) -> None:
    async with (
        pair() as (ws, peer),
        anyio.create_task_group() as tasks,
        ws.recv_streaming() as fragments,
    ):
        expected = [b"%d" % number for number in range(20)]
        tasks.start_soon(send_fragments, peer, *expected)
        given: list[str | bytes] = []
        while len(given) < len(expected):
            with anyio.CancelScope() as scope:
                tasks.start_soon(_cancel_after, scope, checkpoints)
                given.append(await anext(fragments))
            await checkpoint()
        assert given == expected


async def _cancel_after(scope: anyio.CancelScope, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await checkpoint()
    scope.cancel()


# Two at once.


@pytest.mark.behaviour(54, 61)
@both_roles
async def test_recv_is_refused_inside_the_block(pair: Pair) -> None:
    async with pair() as (ws, peer):
        async with ws.recv_streaming() as fragments:
            await send_fragments(peer, b"a", b"b")
            for receive in (ws.recv, ws.receive, ws.__anext__):
                with pytest.raises(anyws.ConcurrencyError):
                    await receive()
            assert [fragment async for fragment in fragments] == [b"a", b"b"]
        await send_fragments(peer, b"c")
        assert await ws.recv() == b"c"


@pytest.mark.behaviour(54, 61)
@both_roles
async def test_second_block_is_refused_and_the_first_goes_on(pair: Pair) -> None:
    async with pair() as (ws, peer), ws.recv_streaming() as fragments:
        await send_fragments(peer, b"a", end=False)
        with pytest.raises(anyws.ConcurrencyError):
            async with ws.recv_streaming():
                pass
        assert await anext(fragments) == b"a"
        await send_fragments(peer, b"b", begin=False)
        assert [fragment async for fragment in fragments] == [b"b"]


@pytest.mark.behaviour(54, 61)
@both_roles
async def test_block_is_refused_while_recv_waits_which_gets_its_message_whole(pair: Pair) -> None:
    received = []

    async def receive(ws: anyws.Connection) -> None:
        received.append(await ws.recv())

    async with pair() as (ws, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(receive, ws)
        await settle()
        with pytest.raises(anyws.ConcurrencyError):
            async with ws.recv_streaming():
                pass
        await send_fragments(peer, b"a", b"b")
        assert received == [b"ab"]


@pytest.mark.behaviour(54, 61)
@both_roles
async def test_second_task_in_the_iteration_is_refused(pair: Pair) -> None:
    given = []

    async with pair() as (ws, peer), ws.recv_streaming() as fragments:

        async def iterate() -> None:
            given.append(await anext(fragments))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(iterate)
            await settle()
            with pytest.raises(anyws.ConcurrencyError):
                await anext(fragments)
            await send_fragments(peer, b"a")
        assert given == [b"a"]


@pytest.mark.behaviour(61)
@both_roles
async def test_block_can_be_entered_only_once(pair: Pair) -> None:
    async with pair() as (ws, peer):
        streaming = ws.recv_streaming()
        async with streaming as fragments:
            await send_fragments(peer, b"a")
            assert [fragment async for fragment in fragments] == [b"a"]
        with pytest.raises(RuntimeError, match="only once"):
            async with streaming:
                pass
        await send_fragments(peer, b"b", b"c")
        assert await ws.recv() == b"bc"


@pytest.mark.behaviour(61)
@both_roles
async def test_fragments_are_given_inside_the_block_alone(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await send_fragments(peer, b"a")
        with pytest.raises(RuntimeError, match="async with"):
            # Type checkers find it too.
            await anext(ws.recv_streaming())  # type: ignore[call-overload]
        async with ws.recv_streaming() as fragments:
            pass
        with pytest.raises(StopAsyncIteration):
            await anext(fragments)


# The end.


@pytest.mark.behaviour(50, 61)
@both_roles
async def test_close_within_the_message_raises_and_does_not_end_the_iteration(pair: Pair) -> None:
    async with pair() as (ws, peer), ws.recv_streaming() as fragments:
        await send_fragments(peer, b"a", end=False)
        await peer.send_close()
        assert await anext(fragments) == b"a"
        with pytest.raises(anyws.ConnectionClosedOK):
            await anext(fragments)


@pytest.mark.behaviour(51, 61)
@both_roles
async def test_end_of_the_stream_within_the_message_raises(pair: Pair) -> None:
    async with pair() as (ws, peer), ws.recv_streaming() as fragments:
        await send_fragments(peer, b"a", end=False)
        await peer.finish()
        assert await anext(fragments) == b"a"
        with pytest.raises(anyws.ConnectionClosedError):
            await anext(fragments)


@pytest.mark.behaviour(50, 61)
@both_roles
async def test_iteration_raises_when_the_connection_was_closed_before(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send_close()
        await settle()
        async with ws.recv_streaming() as fragments:
            with pytest.raises(anyws.ConnectionClosedOK):
                await anext(fragments)
        with pytest.raises(anyws.ConnectionClosedOK):
            await ws.recv()


@pytest.mark.behaviour(55, 61)
@both_roles
async def test_streaming_gives_the_messages_before_the_close(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await send_fragments(peer, b"a", b"b")
        await send_fragments(peer, b"c")
        await peer.send_close()
        await settle()
        for expected in (b"ab", b"c"):
            async with ws.recv_streaming() as fragments:
                assert [fragment async for fragment in fragments] == [expected]


@pytest.mark.behaviour(57, 61)
@both_roles
async def test_fragments_before_invalid_utf_8_are_given_first(pair: Pair) -> None:
    async with pair() as (ws, peer), ws.recv_streaming() as fragments:
        await peer.send(TEXT, b"a", fin=False)
        await peer.send(CONT, b"\xff", fin=False)
        assert await anext(fragments) == "a"
        with pytest.raises(anyws.ConnectionClosedError) as caught:
            await anext(fragments)
        assert isinstance(caught.value.__cause__, anyws.ProtocolError)
        close = await peer.read_frame()
        assert (close.opcode, close.code) == (CLOSE, 1007)
