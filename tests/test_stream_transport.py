"""What StreamTransport does of its own: how it calls the stream, and the end of TLS."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import EndOfStream, create_task_group
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSStream

from anyws._transports import StreamTransport, wrap
from anyws.testing import FaultyStream, memory_stream_pair
from tests.tls import client_context, server_context
from tests.transports import Run, read_exactly, read_until_end, running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from anyws.testing import MemoryStream

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


class Recorder(ByteStream):
    """Keeps what each call gets; sends when it is let."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.asked: list[int] = []
        self.ready = anyio.Event()
        self.ready.set()
        self.closed = anyio.Event()
        self.end_error: Exception | None = None

    async def send(self, item: bytes) -> None:
        await self.ready.wait()
        self.sent.append(item)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        self.asked.append(max_bytes)
        await self.closed.wait()
        raise EndOfStream

    async def send_eof(self) -> None:
        if self.end_error is not None:
            raise self.end_error
        await checkpoint()

    async def aclose(self) -> None:
        self.closed.set()
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {"recorder": lambda: self}


async def test_wrap_gives_a_transport_over_any_stream() -> None:
    transport = wrap(Recorder())
    assert type(transport) is StreamTransport
    assert transport.write_buffer_size == 0


# Writing.


@pytest.mark.parametrize(
    ("sizes", "sent"),
    [
        ([1, 2, 3], [6]),
        ([65535, 1], [65536]),
        ([65535, 2], [65535, 2]),
        ([65536, 1, 1], [65536, 2]),
        ([1, 65536], [1, 65536]),
        ([30000, 30000, 10000, 1], [60000, 10001]),
        ([200000, 1, 2], [65536, 65536, 65536, 3392, 3]),
        ([0, 1], [1]),
    ],
)
async def test_small_writes_leave_together(sizes: list[int], sent: list[int]) -> None:
    stream = Recorder()
    transport = StreamTransport(stream)
    for number, size in enumerate(sizes):
        transport.write(bytes([number]) * size)
    async with running(transport):
        assert await transport.drain(0)
        await anyio.wait_all_tasks_blocked()
    assert [len(one) for one in stream.sent] == sent
    assert b"".join(stream.sent) == b"".join(bytes([n]) * size for n, size in enumerate(sizes))


async def test_what_is_written_during_a_send_leaves_together_after_it() -> None:
    stream = Recorder()
    transport = StreamTransport(stream)
    stream.ready = anyio.Event()
    async with running(transport):
        transport.write(b"first")
        await anyio.wait_all_tasks_blocked()
        transport.write(b"one")
        transport.write(b"two")
        transport.write_latest(b"old")
        transport.write_latest(b"new")
        assert transport.write_buffer_size == 14
        stream.ready.set()
        assert await transport.drain(0)
    assert stream.sent == [b"first", b"onetwonew"]


async def test_latest_that_has_begun_to_leave_is_not_replaced() -> None:
    stream = Recorder()
    transport = StreamTransport(stream)
    stream.ready = anyio.Event()
    async with running(transport):
        transport.write_latest(b"one")
        await anyio.wait_all_tasks_blocked()
        transport.write_latest(b"two")
        assert transport.write_buffer_size == 6
        stream.ready.set()
        assert await transport.drain(0)
    assert stream.sent == [b"one", b"two"]


# Reading.


@pytest.mark.parametrize("size", [1, 65536])
async def test_stream_is_asked_for_chunks_of_the_size_that_was_given(size: int) -> None:
    stream = Recorder()
    async with running(wrap(stream, chunk_size=size)):
        await anyio.wait_all_tasks_blocked()
    assert stream.asked == [size]


class BytearrayStream(FaultyStream):
    """A stream that gives what trio's may give."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return bytearray(await super().receive(max_bytes))  # type: ignore[return-value]  # so does anyio's


async def test_chunks_are_bytes_whatever_the_stream_gives() -> None:
    near, far = memory_stream_pair()
    async with running(wrap(BytearrayStream(near))) as run:
        chunks: list[bytes] = []

        def feed(data: bytes | memoryview) -> bool:
            assert isinstance(data, bytes)
            chunks.append(data)
            return False

        run.feed = feed  # type: ignore[method-assign]
        await far.send(b"chunk")
        await far.aclose()
        await run.read.wait()
    assert chunks == [b"chunk"]


async def test_chunk_that_is_held_back_comes_before_the_end() -> None:
    near, far = memory_stream_pair()
    transport = StreamTransport(near)
    async with running(transport) as run:
        await anyio.wait_all_tasks_blocked()  # the stream is being read
        transport.pause_reading()
        await far.send(b"Hello")
        await far.send_eof()
        await anyio.wait_all_tasks_blocked()
        assert run.received == b""
        transport.resume_reading()
        await run.read.wait()
        assert run.received == b"Hello"
    await far.aclose()


# The end of our half.


@pytest.mark.parametrize("error", [NotImplementedError("no halves"), anyio.BrokenResourceError()])
async def test_reading_ends_when_the_stream_cannot_end_our_half(error: Exception) -> None:
    stream = Recorder()
    stream.end_error = error
    transport = StreamTransport(stream)
    async with running(transport) as run:
        transport.write(b"last")
        transport.write_eof()
        await run.written.wait()
        await run.read.wait()
        assert (run.read_error, run.write_error) == (None, None)
    assert stream.sent == [b"last"]


@pytest.mark.parametrize(
    "error", [OSError("not connected"), AttributeError("no socket"), ValueError("descriptor -1")]
)
async def test_attributes_are_none_when_the_stream_is_lost(error: Exception) -> None:
    class Lost(Recorder):
        @property
        def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
            raise error

    assert StreamTransport(Lost()).extra_attributes == {}


# TLS.


@asynccontextmanager
async def tls_over_memory() -> AsyncGenerator[tuple[Run, TLSStream, MemoryStream], None]:
    """Give a transport over TLS that runs, the peer's TLS, and the peer's stream below."""
    near, far = memory_stream_pair()
    streams: list[TLSStream] = []

    async def accept() -> None:
        context = server_context()
        streams.append(await TLSStream.wrap(near, server_side=True, ssl_context=context))

    async with near, far:
        async with create_task_group() as tg:
            tg.start_soon(accept)
            peer = await TLSStream.wrap(far, hostname="localhost", ssl_context=client_context())
        async with running(wrap(streams[0])) as run:
            yield run, peer, far


async def test_end_of_tls_waits_for_the_peer_until_abort() -> None:
    async with tls_over_memory() as (run, peer, _):
        run.transport.write(b"last")
        run.transport.write_eof()
        await run.written.wait()
        assert await read_until_end(peer) == b"last"
        await anyio.sleep(1000)
        assert not run.read.is_set()
        run.transport.abort()
        await run.read.wait()
        assert run.read_error is None


async def test_stream_below_is_closed_when_tls_has_ended() -> None:
    async with tls_over_memory() as (run, peer, far):
        run.transport.write_eof()
        async with create_task_group() as tg:
            tg.start_soon(peer.unwrap)
            await run.read.wait()
        await run.transport.aclose()
        with pytest.raises(EndOfStream):
            await far.receive()
        assert run.read_error is None


async def test_tls_is_ended_by_close_when_the_peer_was_the_first() -> None:
    async with tls_over_memory() as (run, peer, far):
        async with create_task_group() as tg:
            tg.start_soon(peer.unwrap)
            await run.read.wait()
            await run.transport.aclose()
        with pytest.raises(EndOfStream):
            await far.receive()
        assert run.read_error is None


async def test_what_the_peer_sends_during_the_end_of_tls_is_dropped() -> None:
    async with tls_over_memory() as (run, peer, far):
        run.transport.write(b"last")
        run.transport.write_eof()
        await run.written.wait()
        await peer.send(b"late")
        assert await read_exactly(peer, 4) == b"last"
        await anyio.sleep(1)
        assert not run.read.is_set()  # it waits for the end of the stream below
        await far.send_eof()
        await run.read.wait()
        assert run.read_error is None
        assert run.received == b""
        await run.transport.aclose()
        with pytest.raises((anyio.ClosedResourceError, anyio.BrokenResourceError)):
            await far.send(b"a")


async def test_tls_that_is_cut_off_is_an_error() -> None:
    async with tls_over_memory() as (run, peer, far):
        await peer.send(b"Hello")
        await run.receive(5)
        await far.send_eof()
        await run.read.wait()
        assert isinstance(run.read_error, anyio.BrokenResourceError)
        assert run.received == b"Hello"
