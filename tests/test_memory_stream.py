"""Streams in memory behave like sockets, and FaultyStream misbehaves as told."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from anyws.testing import FaultyStream, MemoryListener, memory_stream_pair
from tests.blocks import counted_turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def raises(
    expected: type[BaseException], function: Callable[..., Awaitable[Any]], *args: Any
) -> None:
    """Wait in a task of its own for an error."""
    with pytest.raises(expected):
        await function(*args)


# MemoryStream.


async def test_bytes_arrive_in_both_directions() -> None:
    near, far = memory_stream_pair()
    await near.send(b"Hello")
    await far.send(b"Goodbye")
    assert await far.receive() == b"Hello"
    assert await near.receive() == b"Goodbye"


async def test_receive_gives_what_has_come_up_to_its_limit() -> None:
    near, far = memory_stream_pair()
    await near.send(b"abc")
    await near.send(b"de")
    assert await far.receive(2) == b"ab"
    assert await far.receive() == b"cde"


async def test_receive_waits_for_the_first_byte() -> None:
    near, far = memory_stream_pair()

    async def send_later() -> None:
        await anyio.sleep(5)
        await near.send(b"a")

    async with anyio.create_task_group() as tg:
        tg.start_soon(send_later)
        assert await far.receive() == b"a"
        assert anyio.current_time() >= 5


async def test_send_waits_while_the_buffer_is_full() -> None:
    near, far = memory_stream_pair(10)
    await near.send(bytes(10))
    with anyio.move_on_after(5) as scope:
        await near.send(b"a")
    assert scope.cancelled_caught
    assert await far.receive() == bytes(10)
    await near.send(b"b")
    assert await far.receive() == b"b"


async def test_each_direction_has_its_own_buffer() -> None:
    near, far = memory_stream_pair(10)
    await near.send(bytes(10))
    await far.send(bytes(10))
    assert await near.receive() == bytes(10)


async def test_send_that_is_cancelled_may_have_sent_a_part() -> None:
    near, far = memory_stream_pair(4)
    with anyio.move_on_after(5) as scope:
        await near.send(b"abcdefgh")
    assert scope.cancelled_caught
    assert await far.receive() == b"abcd"


async def test_send_of_more_than_the_buffer_goes_on_as_it_is_read() -> None:
    near, far = memory_stream_pair(3)
    received = b""
    async with anyio.create_task_group() as tg:
        tg.start_soon(near.send, b"abcdefgh")
        while len(received) < 8:
            received += await far.receive(2)
    assert received == b"abcdefgh"


async def test_receive_that_is_cancelled_loses_nothing() -> None:
    near, far = memory_stream_pair()
    await near.send(b"abc")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await far.receive()
    assert await far.receive() == b"abc"


async def test_receive_and_send_let_other_tasks_run() -> None:
    near, far = memory_stream_pair()
    async with counted_turns() as turns:
        await checkpoint()  # it begins
        await near.send(b"")
        await near.send(b"a")
        await far.receive()
        await near.send_eof()
        await near.aclose()
        # trio shuffles the tasks of a turn, so in the last one it may come too late.
        assert turns.count >= 4


async def test_end_comes_after_all_that_was_sent() -> None:
    near, far = memory_stream_pair()
    await near.send(b"abc")
    await near.send_eof()
    assert await far.receive() == b"abc"
    with pytest.raises(EndOfStream):
        await far.receive()
    with pytest.raises(EndOfStream):
        await far.receive()


async def test_other_direction_lives_on_after_the_end_of_one() -> None:
    near, far = memory_stream_pair()
    await near.send_eof()
    await far.send(b"abc")
    assert await near.receive() == b"abc"
    with pytest.raises(ClosedResourceError):
        await near.send(b"a")


async def test_close_is_the_end_for_a_peer_that_reads_and_breaks_one_that_sends() -> None:
    near, far = memory_stream_pair()
    await near.send(b"abc")
    await near.aclose()
    assert await far.receive() == b"abc"
    with pytest.raises(EndOfStream):
        await far.receive()
    with pytest.raises(BrokenResourceError):
        await far.send(b"a")


async def test_nothing_can_be_done_with_a_closed_stream() -> None:
    near, far = memory_stream_pair()
    await far.send(b"abc")
    await near.aclose()
    await near.aclose()
    with pytest.raises(ClosedResourceError):
        await near.receive()
    with pytest.raises(ClosedResourceError):
        await near.send(b"")


async def test_close_wakes_those_who_wait_on_both_sides() -> None:
    near, far = memory_stream_pair(1)
    await near.send(b"a")
    await far.send(b"a")
    await near.receive()
    async with anyio.create_task_group() as tg:
        tg.start_soon(raises, ClosedResourceError, near.receive)
        tg.start_soon(raises, ClosedResourceError, near.send, b"b")
        await anyio.wait_all_tasks_blocked()
        await near.aclose()
    near, far = memory_stream_pair(1)
    await far.send(b"a")
    async with anyio.create_task_group() as tg:
        tg.start_soon(raises, EndOfStream, far.receive)
        tg.start_soon(raises, BrokenResourceError, far.send, b"b")
        await anyio.wait_all_tasks_blocked()
        await near.aclose()


# FaultyStream.


async def test_faulty_stream_passes_all_on_when_it_is_told_nothing() -> None:
    near, far = memory_stream_pair()
    faulty = FaultyStream(near)
    await faulty.send(b"abc")
    assert await far.receive() == b"abc"
    await far.send(b"defg")
    assert await faulty.receive(3) == b"def"
    assert await faulty.receive() == b"g"
    await faulty.send_eof()
    with pytest.raises(EndOfStream):
        await far.receive()
    await faulty.aclose()
    with pytest.raises(BrokenResourceError):
        await far.send(b"a")
    with pytest.raises(ClosedResourceError):
        await faulty.receive()
    with pytest.raises(ClosedResourceError):
        await faulty.send(b"a")


class Recorder(ByteStream):
    """Keeps each piece apart."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await checkpoint()
        return bytes(max_bytes)

    async def send(self, item: bytes) -> None:
        await checkpoint()
        self.pieces.append(item)

    async def send_eof(self) -> None:
        await checkpoint()

    async def aclose(self) -> None:
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {"recorder": lambda: self}


async def test_split_bounds_what_moves_at_once() -> None:
    recorder = Recorder()
    faulty = FaultyStream(recorder, split=2)
    await faulty.send(b"abcde")
    await faulty.send(b"")
    assert recorder.pieces == [b"ab", b"cd", b"e", b""]
    assert await faulty.receive() == bytes(2)
    assert await faulty.receive(1) == bytes(1)


@pytest.mark.parametrize("split", [0, -1])
async def test_split_is_refused_when_nothing_would_move(split: int) -> None:
    with pytest.raises(ValueError, match=rf"^split of {split} bytes is under 1$"):
        FaultyStream(Recorder(), split=split)


async def test_faulty_stream_has_the_attributes_of_the_other() -> None:
    recorder = Recorder()
    assert FaultyStream(recorder).extra_attributes["recorder"]() is recorder


async def test_delay_is_taken_by_each_send_and_receive() -> None:
    faulty = FaultyStream(Recorder(), delay=1.5)
    start = anyio.current_time()
    await faulty.send(b"abc")
    assert anyio.current_time() - start == pytest.approx(1.5)
    await faulty.receive()
    assert anyio.current_time() - start == pytest.approx(3)
    await faulty.send_eof()
    assert anyio.current_time() - start == pytest.approx(4.5)


async def test_delay_is_taken_by_each_piece() -> None:
    faulty = FaultyStream(Recorder(), delay=1, split=1)
    start = anyio.current_time()
    await faulty.send(b"abc")
    assert anyio.current_time() - start == pytest.approx(3)


async def test_reset_comes_after_so_many_bytes_sent() -> None:
    near, far = memory_stream_pair()
    faulty = FaultyStream(near, reset_after=3)
    with pytest.raises(BrokenResourceError, match=r"^reset after 3 bytes, as told$"):
        await faulty.send(b"abcde")
    assert await far.receive() == b"abc"
    with pytest.raises(BrokenResourceError):
        await faulty.receive()
    with pytest.raises(BrokenResourceError):
        await far.send(b"a")


async def test_reset_counts_both_directions() -> None:
    near, far = memory_stream_pair()
    faulty = FaultyStream(near, reset_after=4)
    await faulty.send(b"ab")
    await far.send(b"cde")
    assert await faulty.receive() == b"cd"
    for function in (faulty.receive, faulty.send_eof):
        with pytest.raises(BrokenResourceError):
            await function()


async def test_reset_is_at_once_when_it_is_after_0_bytes() -> None:
    near, far = memory_stream_pair()
    with pytest.raises(BrokenResourceError):
        await FaultyStream(near, reset_after=0).receive()
    with pytest.raises(EndOfStream):
        await far.receive()


async def test_reset_breaks_those_who_wait() -> None:
    near, far = memory_stream_pair(4)
    faulty = FaultyStream(near, reset_after=5)
    async with anyio.create_task_group() as tg:
        tg.start_soon(raises, BrokenResourceError, faulty.receive)
        tg.start_soon(raises, BrokenResourceError, faulty.send, b"abcdef")
        tg.start_soon(raises, BrokenResourceError, faulty.send, b"abcdef")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(EndOfStream):
            while True:
                await far.receive()


async def test_stall_comes_after_so_many_bytes_and_has_no_end() -> None:
    near, far = memory_stream_pair()
    faulty = FaultyStream(near, stall_after=3)
    with anyio.move_on_after(1000) as scope:
        await faulty.send(b"abcde")
    assert scope.cancelled_caught
    assert await far.receive() == b"abc"
    await far.send(b"a")
    for function in (faulty.receive, faulty.send_eof):
        with anyio.move_on_after(1000) as scope:
            await function()
        assert scope.cancelled_caught
    await faulty.aclose()
    with pytest.raises(EndOfStream):
        await far.receive()


# MemoryListener.


async def test_listener_hands_each_stream_to_its_handler() -> None:
    listener = MemoryListener()

    async def shout(stream: ByteStream) -> None:
        async with stream:
            await stream.send((await stream.receive()).upper())

    async with anyio.create_task_group() as tg:
        tg.start_soon(listener.serve, shout)
        for data in (b"a", b"b"):
            async with await listener.connect() as client:
                await client.send(data)
                assert await client.receive() == data.upper()
        await listener.aclose()


async def test_listener_uses_the_task_group_that_it_is_given() -> None:
    listener = MemoryListener()
    served = anyio.Event()

    async def handle(stream: ByteStream) -> None:
        served.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as outer, anyio.create_task_group() as tg:
        tg.start_soon(listener.serve, handle, outer)
        await listener.connect()
        await listener.aclose()
        await served.wait()
        outer.cancel_scope.cancel()


async def test_connect_waits_until_the_listener_is_served() -> None:
    listener = MemoryListener()
    streams: list[ByteStream] = []

    async def keep(stream: ByteStream) -> None:
        streams.append(stream)

    async def serve_later() -> None:
        await anyio.sleep(5)
        await listener.serve(keep)

    async with anyio.create_task_group() as tg:
        tg.start_soon(serve_later)
        client = await listener.connect(max_buffer_size=3)
        assert anyio.current_time() >= 5
        await anyio.wait_all_tasks_blocked()
        with anyio.move_on_after(5):
            await client.send(b"abcde")
        assert await streams[0].receive() == b"abc"
        await listener.aclose()


@pytest.mark.parametrize("served", [False, True])
async def test_connect_is_refused_when_the_listener_is_closed(served: bool) -> None:
    listener = MemoryListener()
    async with AsyncExitStack() as stack:
        if served:
            tg = await stack.enter_async_context(anyio.create_task_group())
            tg.start_soon(listener.serve, ByteStream.aclose)
            await listener.connect()
        await listener.aclose()
    with pytest.raises(ClosedResourceError):
        await listener.connect()


async def test_connect_is_refused_after_serving_was_cancelled() -> None:
    listener = MemoryListener()
    async with anyio.create_task_group() as tg:
        tg.start_soon(listener.serve, ByteStream.aclose)
        await listener.connect()
        tg.cancel_scope.cancel()
    with pytest.raises(ClosedResourceError):
        await listener.connect()


async def test_close_wakes_those_who_wait_to_connect() -> None:
    listener = MemoryListener()
    async with anyio.create_task_group() as tg:
        tg.start_soon(raises, ClosedResourceError, listener.connect)
        await anyio.wait_all_tasks_blocked()
        await listener.aclose()


def test_stream_that_holds_nothing_is_a_valueerror() -> None:
    with pytest.raises(ValueError, match="max_buffer_size of 0 bytes is under 1"):
        memory_stream_pair(0)


@pytest.mark.parametrize("name", ["delay", "reset_after", "stall_after"])
def test_number_of_a_faulty_stream_that_is_negative_is_a_valueerror(name: str) -> None:
    near, _ = memory_stream_pair()
    numbers: Any = {name: -1}
    with pytest.raises(ValueError, match=f"{name} of -1 is negative"):
        FaultyStream(near, **numbers)


@pytest.mark.parametrize("way", ["reset_after", "stall_after"])
async def test_both_directions_share_what_may_move_also_while_one_waits(way: str) -> None:
    near, far = memory_stream_pair()
    faulty = FaultyStream(near, **{way: 100})
    received: list[bytes] = []

    async def receive() -> None:
        with anyio.move_on_after(1), suppress(BrokenResourceError):
            while True:
                received.append(await faulty.receive())

    async with far, near, anyio.create_task_group() as tg:
        tg.start_soon(receive)
        await checkpoint()
        await faulty.send(bytes(70))
        await far.send(bytes(50))
    assert [*map(len, received)] == [30]
