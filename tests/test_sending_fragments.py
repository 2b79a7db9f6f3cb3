"""What send() does with an iterable: one message, a frame for each item.

Owns lines 64 to 67, 70 and 73 of docs/behaviours.md; knows nothing of receiving.
"""

from __future__ import annotations

import itertools
import zlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import anyws
from tests.endings import both_roles
from tests.sending import DEFLATE, Sink, fragments, next_data
from tests.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, close_payload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time, both_roles]


def generate(*items: str) -> Iterator[str]:
    yield from items


@pytest.mark.behaviour(64)
@pytest.mark.parametrize(
    "make", [lambda: ["a", "", "é"], lambda: ("a", "", "é"), lambda: generate("a", "", "é")]
)
async def test_iterable_is_sent_as_one_frame_an_item(pair: Pair, make: Callable[[], Any]) -> None:
    async with pair() as (ws, peer):
        await ws.send(make())
        assert await next_data(peer) == (TEXT, b"a", False)
        assert await next_data(peer) == (CONT, b"", False)
        assert await next_data(peer) == (CONT, "é".encode(), True)
        await peer.finish()


@pytest.mark.behaviour(64)
async def test_iterable_of_one_item_is_one_frame(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await ws.send([b"only"])
        assert await next_data(peer) == (BINARY, b"only", True)
        await peer.finish()


@pytest.mark.behaviour(64)
async def test_bytes_like_items_may_be_mixed_with_each_other(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await ws.send([b"a", bytearray(b"b"), memoryview(b"c")])
        assert await next_data(peer) == (BINARY, b"a", False)
        assert await next_data(peer) == (CONT, b"b", False)
        assert await next_data(peer) == (CONT, b"c", True)
        await peer.finish()


@pytest.mark.behaviour(64, 65)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_compressed_fragments_are_one_deflate_stream_with_rsv1_on_the_first(
    pair: Pair, asynchronous: bool
) -> None:
    items = ["one " * 300, "two " * 300, "three"]
    async with pair(**DEFLATE) as (ws, peer):
        await ws.send(fragments(*items) if asynchronous else items, compress=True)
        payload = b""
        rsv = []
        while True:
            frame = await peer.read_frame()
            rsv.append(frame.rsv)
            payload += frame.payload
            if frame.fin:
                break
        assert rsv == [4, 0, 0, 0] if asynchronous else [4, 0, 0]
        inflated = zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
        assert inflated == "".join(items).encode()
        await peer.finish()


@pytest.mark.behaviour(65)
async def test_async_iterable_is_sent_as_one_frame_an_item(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await ws.send(fragments(b"a", b"b"))
        assert await next_data(peer) == (BINARY, b"a", False)
        assert await next_data(peer) == (CONT, b"b", False)
        # That it was the last item was not known before.
        assert await next_data(peer) == (CONT, b"", True)
        await peer.finish()


@pytest.mark.behaviour(65)
async def test_item_of_an_async_iterable_is_sent_before_the_next_is_there(
    pair: Pair,
) -> None:
    seen = anyio.Event()

    async def items() -> AsyncIterator[str]:
        yield "first"
        await seen.wait()
        yield "second"

    async with pair() as (ws, peer), anyio.create_task_group() as tg:
        tg.start_soon(ws.send, items())
        assert await next_data(peer) == (TEXT, b"first", False)
        seen.set()
        assert await next_data(peer) == (CONT, b"second", False)
        assert await next_data(peer) == (CONT, b"", True)
        await peer.finish()


@pytest.mark.behaviour(66)
async def test_wrong_first_item_is_told_before_the_next_is_asked_for(pair: Pair) -> None:
    def items() -> Iterator[Any]:
        yield 1
        raise LookupError("in items")

    async with pair() as (ws, peer):
        with pytest.raises(TypeError, match="message of type int"):
            await ws.send(items())
        await ws.send("next")
        assert await next_data(peer) == (TEXT, b"next", True)
        await peer.finish()


@pytest.mark.behaviour(66)
@pytest.mark.parametrize("items", [("a", b"b"), (b"a", "b"), ("a", 1), (b"a", None, b"c")])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("text", [None, False, True])
async def test_mixed_types_are_a_type_error_and_close_the_connection(
    pair: Pair, items: tuple[Any, ...], asynchronous: bool, text: bool | None
) -> None:
    async with pair() as (ws, peer):
        with pytest.raises(TypeError):
            await ws.send(fragments(*items) if asynchronous else items, text=text)
        frame = await peer.read_frame()
        assert (frame.payload, frame.fin) == (b"a", False)
        close = await peer.read_frame()
        assert (close.opcode, close.code) == (CLOSE, 1011)
        with pytest.raises(anyws.ConnectionClosedError):
            await ws.send("next")
        await peer.finish()


@pytest.mark.behaviour(67)
async def test_empty_iterable_sends_nothing(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await ws.send([])
        await ws.send(iter(()))
        await ws.send(fragments())
        await ws.send("next")
        assert await next_data(peer) == (TEXT, b"next", True)
        await peer.finish()


@pytest.mark.behaviour(70)
async def test_other_sends_wait_for_a_fragmented_message(pair: Pair) -> None:
    go_on = anyio.Event()

    async def items() -> AsyncIterator[str]:
        yield "begin"
        await go_on.wait()
        yield "end"

    async with pair() as (ws, peer), anyio.create_task_group() as tg:
        tg.start_soon(ws.send, items())
        assert await next_data(peer) == (TEXT, b"begin", False)
        tg.start_soon(ws.send, b"whole")
        tg.start_soon(ws.send, [b"in", b"two"])
        with pytest.raises(anyio.WouldBlock):
            ws.send_nowait("now")
        await anyio.sleep(1)
        go_on.set()
        assert await next_data(peer) == (CONT, b"end", False)
        assert await next_data(peer) == (CONT, b"", True)
        frames = [await next_data(peer) for _ in range(3)]
        whole = (BINARY, b"whole", True)
        parts = [(BINARY, b"in", False), (CONT, b"two", True)]
        assert frames in ([whole, *parts], [*parts, whole])
        await peer.finish()


@pytest.mark.behaviour(70)
async def test_control_frames_pass_between_fragments(pair: Pair) -> None:
    go_on = anyio.Event()

    async def items() -> AsyncIterator[str]:
        yield "begin"
        await go_on.wait()

    async with pair() as (ws, peer), anyio.create_task_group() as tg:
        tg.start_soon(ws.send, items())
        assert await next_data(peer) == (TEXT, b"begin", False)
        await ws.ping(b"ping")
        assert await next_data(peer) == (PING, b"ping", True)
        await ws.pong(b"pong")
        assert await next_data(peer) == (PONG, b"pong", True)
        await peer.send(PING, b"theirs")
        assert await next_data(peer) == (PONG, b"theirs", True)
        go_on.set()
        assert await next_data(peer) == (CONT, b"", True)
        await peer.finish()


@pytest.mark.behaviour(70, 71)
async def test_send_that_waits_for_a_fragmented_message_ends_with_the_connection(
    pair: Pair,
) -> None:
    async def stalled() -> AsyncIterator[str]:
        yield "begin"
        await anyio.sleep_forever()

    ended = []

    async def send(ws: anyws.Connection, message: Any) -> None:
        with pytest.raises(anyws.ConnectionClosedError):
            await ws.send(message)
        ended.append(message)

    async with pair() as (ws, peer), anyio.create_task_group() as tg:
        tg.start_soon(ws.send, stalled())
        assert await next_data(peer) == (TEXT, b"begin", False)
        tg.start_soon(send, ws, "whole")
        tg.start_soon(send, ws, ("in", "two"))
        await anyio.sleep(1)
        await peer.finish()
        with anyio.fail_after(10):
            await ws.wait_closed()
            while len(ended) < 2:
                await checkpoint()
        tg.cancel_scope.cancel()


@pytest.mark.behaviour(70)
async def test_cancelled_wait_for_a_fragmented_message_sends_nothing(
    pair: Pair,
) -> None:
    go_on = anyio.Event()

    async def items() -> AsyncIterator[str]:
        yield "begin"
        await go_on.wait()

    async with pair() as (ws, peer), anyio.create_task_group() as tg:
        tg.start_soon(ws.send, items())
        assert await next_data(peer) == (TEXT, b"begin", False)
        with anyio.move_on_after(1) as scope:
            await ws.send(["never", "sent"])
        assert scope.cancelled_caught
        go_on.set()
        assert await next_data(peer) == (CONT, b"", True)
        await ws.send("next")
        assert await next_data(peer) == (TEXT, b"next", True)
        await peer.finish()


class IteratorError(Exception):
    """What an iterator of a test fails with."""


def failing() -> Iterator[str]:
    yield "a"
    raise IteratorError


async def failing_async() -> AsyncIterator[str]:
    yield "a"
    raise IteratorError


@pytest.mark.behaviour(73)
@pytest.mark.parametrize("make", [failing, failing_async])
async def test_iterator_that_fails_midway_closes_the_connection(
    pair: Pair, make: Callable[[], Any]
) -> None:
    async with pair() as (ws, peer):
        with pytest.raises(IteratorError):
            await ws.send(make())
        assert not ws.open
        while (frame := await peer.read_frame()).opcode != CLOSE:
            assert (frame.opcode, frame.payload, frame.fin) == (TEXT, b"a", False)
        assert frame.code == 1011
        with pytest.raises(anyws.ConnectionClosedError) as caught:
            await ws.recv()
        assert isinstance(caught.value.__cause__, IteratorError)
        await peer.finish()


@pytest.mark.behaviour(73)
async def test_iterator_that_fails_at_once_leaves_the_connection_open(
    pair: Pair,
) -> None:
    def items() -> Iterator[str]:
        raise IteratorError
        yield "never"

    async with pair() as (ws, peer):
        with pytest.raises(IteratorError):
            await ws.send(items())
        await ws.send("next")
        assert await next_data(peer) == (TEXT, b"next", True)
        await peer.finish()


@pytest.mark.behaviour(73, 75)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_iterable_is_not_begun_in_a_scope_that_is_cancelled(
    pair: Pair, asynchronous: bool
) -> None:
    async with pair() as (ws, peer):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ws.send(fragments("a", "b") if asynchronous else ["a", "b"])
        assert scope.cancelled_caught
        await ws.send("next")
        assert await next_data(peer) == (TEXT, b"next", True)
        await peer.finish()


@pytest.mark.behaviour(73)
async def test_async_iterator_that_is_cancelled_midway_closes_the_connection(
    pair: Pair,
) -> None:
    async def items() -> AsyncIterator[str]:
        yield "a"
        await anyio.sleep_forever()

    async with pair() as (ws, peer):
        with anyio.move_on_after(1) as scope:
            await ws.send(items())
        assert scope.cancelled_caught
        assert await next_data(peer) == (TEXT, b"a", False)
        close = await peer.read_frame()
        assert (close.opcode, close.code) == (CLOSE, 1011)
        await peer.finish()


@pytest.mark.behaviour(73, 75)
async def test_iterable_that_is_cancelled_over_the_high_mark_closes_behind_whole_frames(
    pair: Pair,
) -> None:
    part = b"p" * 50_000
    async with pair() as (ws, peer):
        with anyio.move_on_after(1) as scope:
            await ws.send(itertools.repeat(part, 100))
        assert scope.cancelled_caught
        sink = Sink(peer)
        await sink.read_until_idle()
        *parts, close = sink.frames()
        assert len(parts) >= 1
        assert all(frame.payload == part and not frame.fin for frame in parts)
        assert (close.opcode, close.payload[:2]) == (CLOSE, close_payload(1011))
        await peer.finish()


@pytest.mark.behaviour(73)
async def test_iterable_that_is_cancelled_before_its_first_item_sends_nothing(
    pair: Pair,
) -> None:
    async def items() -> AsyncIterator[str]:
        await anyio.sleep_forever()
        yield "never"

    async with pair() as (ws, peer):
        with anyio.move_on_after(1) as scope:
            await ws.send(items())
        assert scope.cancelled_caught
        await ws.send("next")
        assert await next_data(peer) == (TEXT, b"next", True)
        await peer.finish()


@pytest.mark.behaviour(74)
async def test_send_by_who_makes_the_fragments_is_an_error_and_no_wait_for_ever(pair: Pair) -> None:
    async with pair() as (ws, peer):

        async def items() -> AsyncIterator[str]:
            yield "a"
            with pytest.raises(anyws.ConcurrencyError, match="a fragmented message"):
                await ws.send("between")
            with pytest.raises(anyws.ConcurrencyError, match="a fragmented message"):
                await ws.send(["be", "tween"])
            await ws.ping()
            yield "b"

        with anyio.fail_after(5):
            await ws.send(items())
            await ws.send("next")
        assert await next_data(peer) == (TEXT, b"a", False)
        assert (await peer.read_frame()).opcode == PING
        assert await next_data(peer) == (CONT, b"b", False)
        assert await next_data(peer) == (CONT, b"", True)
        assert await next_data(peer) == (TEXT, b"next", True)
        await peer.finish()


@pytest.mark.behaviour(74)
async def test_concurrent_fragmented_sends_never_interleave(pair: Pair) -> None:
    letters = "abcdef"
    async with pair() as (ws, peer):
        sink = Sink(peer, 5_000)
        async with anyio.create_task_group() as tg:
            for letter in letters:
                parts = [letter * 9_000] * 5
                tg.start_soon(ws.send, fragments(*parts) if letter in "ace" else parts)
            tg.start_soon(sink.read_slowly)
            await sink.wait_until_idle()
            tg.cancel_scope.cancel()
        messages = []
        message = b""
        for frame in sink.frames():
            assert (frame.opcode == CONT) is bool(message)
            message += frame.payload
            if frame.fin:
                messages.append(message)
                message = b""
        assert sorted(messages) == [letter.encode() * 45_000 for letter in letters]
        await peer.finish()
