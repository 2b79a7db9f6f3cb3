"""What the transports over sockets do of their own: when they call the socket, and its errors."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import struct
import sys
import weakref
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from anyio import CancelScope, EndOfStream, create_task_group, fail_after
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint

from anyws._transports import (
    NativeListener,
    StreamTransport,
    Transport,
    listen_tcp,
    listen_unix,
    native_listener,
    open_tcp,
    open_unix,
    socket_transport,
)
from anyws._transports._socket import SocketTransport
from anyws._transports._unix import UnixListener
from tests.blocks import park
from tests.transports import (
    DATA,
    FLOOD,
    LIMIT,
    Run,
    fill,
    listen,
    native_streams,
    read_exactly,
    running,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


class CountedSocket(socket.socket):
    """A socket that says how many bytes each call has sent."""

    def __init__(self, raw: socket.socket) -> None:
        super().__init__(raw.family, raw.type, raw.proto, raw.detach())
        self.setblocking(False)
        self.sent: list[int] = []

    def send(self, data: Any, flags: int = 0) -> int:
        size = super().send(data, flags)
        self.sent.append(size)
        return size

    def sendmsg(self, buffers: Any, *arguments: Any) -> int:
        size = super().sendmsg(buffers, *arguments)
        self.sent.append(size)
        return size


@asynccontextmanager
async def counted() -> AsyncGenerator[tuple[Transport, CountedSocket, socket.socket], None]:
    """Give a transport, its socket, and the socket at the other end."""
    with fail_after(LIMIT):
        near, far = socket.socketpair()
        raw = CountedSocket(near)
        transport = socket_transport()(raw)
        with far:
            async with transport:
                yield transport, raw, far


def receive_all(far: socket.socket) -> bytes:
    far.setblocking(False)
    data = b""
    while True:
        try:
            data += far.recv(FLOOD)
        except BlockingIOError:
            return data


# When small writes leave.


async def test_first_write_leaves_at_once_and_the_others_of_its_turn_together() -> None:
    async with counted() as (transport, raw, far), running(transport):
        for number in range(10):
            transport.write(b"%d" % number)
        assert raw.sent == [1]
        assert transport.write_buffer_size == 9
        await settle()
        assert raw.sent == [1, 9]
        assert receive_all(far) == b"0123456789"


async def test_write_leaves_at_once_after_each_turn() -> None:
    async with counted() as (transport, raw, _), running(transport):
        for _ in range(3):
            transport.write(b"a")
            transport.write(b"b")
            await settle()
        assert raw.sent == [1] * 6


async def test_reply_leaves_at_once() -> None:
    async with counted() as (transport, raw, far), running(transport) as run:
        run.on_feed = lambda: transport.write(b"pong")
        for number in range(1, 4):
            far.send(b"ping")
            await run.receive(4 * number)
            assert raw.sent == [4] * number


async def test_replies_leave_together_when_several_are_to_be_expected() -> None:
    async with counted() as (transport, raw, far), running(transport) as run:
        run.several = True
        far.send(b"pings")
        await run.receive(5)
        for _ in range(5):
            transport.write(b"pong")
        assert raw.sent == []
        await settle()
        assert raw.sent == [20]


async def test_write_leaves_at_once_when_another_socket_has_read_since_the_last() -> None:
    async with counted() as (transport, raw, _), running(transport):
        async with counted() as (other, _, far), running(other) as run:

            def write_thrice() -> None:
                for _ in range(3):
                    transport.write(b"a")

            run.on_feed = write_thrice
            for number in range(1, 4):
                far.send(b"ping")
                await run.receive(4 * number)
        assert raw.sent[:2] == [1, 2]
        assert sum(raw.sent) == 9


async def test_write_leaves_at_once_when_another_socket_has_read_in_the_same_turn() -> None:
    async with counted() as (transport, raw, _), running(transport):
        async with counted() as (other, _, far), running(other) as run:
            assert isinstance(other, SocketTransport)
            run.on_feed = lambda: transport.write(b"b")
            transport.write(b"a")
            far.send(b"ping")
            other._read()
            assert raw.sent == [1, 1]


@pytest.mark.parametrize("pair", [False, True])
async def test_write_does_not_overtake_the_latest_though_it_might_leave_at_once(pair: bool) -> None:
    async with counted() as (transport, _, far), running(transport):
        transport.write_latest(b"latest")
        if pair:
            transport.write_pair(b"he", b"ad")
        else:
            transport.write(b"head")
        await settle()
        assert receive_all(far) == b"latesthead"


async def test_many_bytes_leave_before_the_turn_ends() -> None:
    async with counted() as (transport, raw, _), running(transport):
        transport.write(b"first")
        for _ in range(4):
            transport.write(bytes(16384))
        assert raw.sent == [5, 65536]
        assert transport.write_buffer_size == 0


# What is gathered.


def begin_to_gather(transport: Transport, limit: float = 65536) -> None:
    """Write twice, so that what follows is gathered if it may be."""
    transport.gather_below(limit)
    transport.write(b"1")
    transport.write(b"2")


async def test_what_is_gathered_leaves_with_what_was_written_around_it() -> None:
    async with counted() as (transport, raw, far), running(transport):
        begin_to_gather(transport)
        assert transport.gathering
        transport.gathered += [b"34", b"5"]
        assert transport.write_buffer_size == 1
        transport.write(b"6")
        assert transport.write_buffer_size == 5
        transport.gathered.append(b"7")
        await settle()
        assert raw.sent == [1, 6]
        assert receive_all(far) == b"1234567"
        assert not transport.gathering
        assert transport.peak_buffer_size == 6
        assert transport.sent_size == 7
        assert transport.count_gathered() == (3, 4)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda transport: transport.write_pair(b"he", b"ad"), b"1234head"),
        (lambda transport: transport.write_latest(b"latest"), b"1234latest"),
        (lambda transport: transport.write_eof(), b"1234"),
        (lambda transport: transport.count_gathered(), b"1234"),
    ],
    ids=["write_pair", "write_latest", "write_eof", "count_gathered"],
)
async def test_nothing_overtakes_what_is_gathered(
    write: Callable[[Transport], object], expected: bytes
) -> None:
    async with counted() as (transport, _, far), running(transport):
        begin_to_gather(transport)
        transport.gathered += [b"3", b"4"]
        write(transport)
        assert transport.count_gathered() == (2, 2)
        assert transport.write_buffer_size == len(expected) - 1
        await settle()
        assert far.recv(FLOOD) == expected


async def test_drain_sends_what_is_gathered() -> None:
    async with counted() as (transport, raw, far), running(transport):
        begin_to_gather(transport)
        transport.gathered.append(b"3")
        assert await transport.drain(0)
        assert raw.sent == [1, 2]
        assert receive_all(far) == b"123"


async def test_what_is_gathered_is_dropped_by_abort_and_counts() -> None:
    async with counted() as (transport, raw, _), running(transport):
        begin_to_gather(transport)
        transport.gathered.append(b"345")
        transport.abort()
        assert not transport.gathering
        assert transport.count_gathered() == (1, 3)
        await settle()
        assert raw.sent == [1]


@pytest.mark.parametrize("written", [False, True])
async def test_burst_that_was_gathered_goes_on_in_the_next_turn(written: bool) -> None:
    async with counted() as (transport, raw, far), running(transport):
        begin_to_gather(transport)
        transport.gathered += [b"3"] * 8
        if written:
            transport.write(b"4")
        await settle()
        before = len(raw.sent)
        transport.write(b"5")
        transport.write(b"6")
        assert len(raw.sent) == before  # it is not sent at once
        await settle()
        assert raw.sent[before:] == [2]
        transport.write(b"7")
        assert raw.sent[before:] == [2, 1]
        assert receive_all(far).endswith(b"33567" if not written else b"4567")


async def test_nothing_is_gathered_where_somebody_waits_for_fewer_bytes() -> None:
    async with counted() as (transport, _, _), running(transport):
        begin_to_gather(transport, 65535)
        assert not transport.gathering


async def test_nothing_is_gathered_before_there_is_a_burst() -> None:
    async with counted() as (transport, _, _), running(transport):
        transport.gather_below(65536)
        assert not transport.gathering
        transport.write(b"1")
        assert not transport.gathering


async def test_nothing_is_gathered_while_the_socket_takes_no_more() -> None:
    async with counted() as (transport, _, far), running(transport):
        transport.gather_below(65536)
        await fill(transport)
        transport.write(b"1")
        transport.write(b"2")
        assert not transport.gathering
        assert transport.count_gathered() == (0, 0)
        data = b""
        while len(data) < FLOOD + 2:
            data += receive_all(far)
            await settle()  # the test's own time-out ends it
        assert data == DATA + b"12"


async def test_nothing_is_gathered_when_many_bytes_wait() -> None:
    async with counted() as (transport, raw, far), running(transport):
        begin_to_gather(transport)
        transport.write(bytes(57407))
        assert transport.gathering
        transport.gathered.append(b"3")
        transport.write(b"4")
        assert not transport.gathering
        assert transport.write_buffer_size == 57410
        transport.write(b"5")
        await settle()
        assert raw.sent == [1, 57411]
        assert receive_all(far)[-3:] == b"345"


async def test_nothing_is_gathered_behind_a_large_write() -> None:
    async with counted() as (transport, _, _), running(transport):
        transport.gather_below(65536)
        transport.write(b"1")
        transport.write(bytes(57409))
        assert not transport.gathering


# Who rests.


async def test_task_that_rests_goes_on_with_its_burst(anyio_backend_name: str) -> None:
    async with counted() as (transport, raw, far), running(transport):
        transport.write(b"1")
        transport.write(b"2")
        await transport.rest()
        transport.write(b"3")
        await settle()
        assert receive_all(far) == b"123"
        if anyio_backend_name == "trio":
            assert raw.sent == [1, 2]


async def test_what_is_written_is_put_off_by_one_rest_alone() -> None:
    async with counted() as (transport, raw, far), running(transport):
        for turn in range(5):
            transport.write(b"a")
            transport.write(b"b")
            for _ in range(4):  # trio runs what is due in any order
                await transport.rest()
            assert sum(raw.sent) == 2 * turn + 2
        assert receive_all(far) == b"ab" * 5


async def test_what_is_written_leaves_when_a_rest_is_cancelled() -> None:
    async with counted() as (transport, _, far), running(transport):
        transport.write(b"1")
        transport.write(b"2")
        with CancelScope() as scope:
            scope.cancel()
            await transport.rest()
        assert scope.cancelled_caught
        await settle()
        assert receive_all(far) == b"12"


async def test_transport_may_be_closed_while_a_task_rests() -> None:
    async with counted() as (transport, _, _), running(transport):
        transport.write(b"1")
        transport.write(b"2")
        async with create_task_group() as tg:
            tg.start_soon(transport.rest)
            tg.start_soon(transport.rest)
            tg.start_soon(transport.aclose)
        await transport.rest()


# Pairs.


async def test_pair_leaves_at_once_in_one_call() -> None:
    async with counted() as (transport, raw, far), running(transport):
        transport.write_pair(b"head", b"body")
        assert raw.sent == [8]
        transport.write_pair(b"HEAD", b"BODY")
        assert raw.sent == [8]
        await settle()
        assert raw.sent == [8, 8]
        assert receive_all(far) == b"headbodyHEADBODY"


class NarrowSocket(CountedSocket):
    """A socket that takes so many bytes of the first pair, and all of the rest."""

    taken = 0

    def sendmsg(self, buffers: Any, *arguments: Any) -> int:
        taken, self.taken = self.taken, 0
        if not taken:
            raise BlockingIOError
        return super().send(b"".join(buffers)[:taken])


@pytest.mark.parametrize("taken", [0, 1, 4, 5, 11])
async def test_rest_of_a_pair_is_kept(taken: int) -> None:
    near, far = socket.socketpair()
    raw = NarrowSocket(near)
    raw.taken = taken
    transport = socket_transport()(raw)
    with far, fail_after(LIMIT):
        async with transport, running(transport):
            transport.write_pair(b"head", b"the body")
            assert transport.write_buffer_size == 12 - taken
            assert transport.sent_size == taken
            transport.write(b" and more")
            assert await transport.drain(0)
            assert receive_all(far) == b"headthe body and more"


async def test_pair_does_not_overtake_what_the_socket_has_not_taken_yet() -> None:
    async with counted() as (transport, raw, far), running(transport):
        await fill(transport)
        data = b""
        while not data or len(raw.sent) < 2:
            data += far.recv(2 * FLOOD)
            await settle()
            assert transport.write_buffer_size
        # There is room again, and the loop has not told yet.
        data += far.recv(2 * FLOOD)
        transport.write_pair(b"head", b"body")
        while len(data) < FLOOD + 8:
            data += receive_all(far)
            await settle()  # the test's own time-out ends it
        assert data == DATA + b"headbody"


@pytest.mark.parametrize("end", [SocketTransport.write_eof, SocketTransport.abort])
async def test_what_comes_behind_the_end_is_dropped_though_others_wait_to_leave_together(
    end: Callable[[SocketTransport], None],
) -> None:
    async with counted() as (transport, raw, far), running(transport):
        assert isinstance(transport, SocketTransport)
        transport.write(b"a")
        transport.write(b"b")
        end(transport)
        transport.write(b"c")
        await settle()
        assert far.recv(3) in {b"a", b"ab"}
        assert raw.sent in ([1], [1, 1])


async def test_pair_is_dropped_when_the_socket_is_lost() -> None:
    async with native_streams() as (near, far), running(near) as run:
        near.pause_reading()
        await settle()
        reset(far)
        await far.aclose()
        await settle()
        near.write_pair(b"head", b"body")
        near.write_pair(b"head", b"body")
        await run.written.wait()
        assert isinstance(run.write_error, OSError)
        assert near.write_buffer_size == 0


async def test_drain_sends_what_waits_for_the_end_of_the_turn() -> None:
    async with counted() as (transport, raw, _), running(transport):
        transport.write(b"a")
        transport.write(b"b")
        assert await transport.drain(0)
        assert raw.sent == [1, 1]


async def test_nothing_is_sent_before_the_start() -> None:
    async with counted() as (transport, raw, _):
        transport.write(bytes(100_000))
        transport.write_latest(b"latest")
        await settle()
        assert raw.sent == []
        async with running(transport):
            assert await transport.drain(0)
        assert sum(raw.sent) == 100_006


async def test_end_leaves_at_once_but_not_before_the_start() -> None:
    async with counted() as (transport, _, far):
        transport.write_eof()
        far.setblocking(False)
        with pytest.raises(BlockingIOError):
            far.recv(1)
        async with running(transport) as run:
            await run.written.wait()
            assert far.recv(1) == b""
    async with counted() as (transport, _, far), running(transport):
        transport.write_eof()
        assert far.recv(1, socket.MSG_DONTWAIT) == b""


async def test_paused_before_the_start_is_paused_after_it() -> None:
    async with counted() as (transport, _, far):
        transport.pause_reading()
        far.send(b"Hello")
        async with running(transport) as run:
            await settle()
            assert run.received == b""
            transport.resume_reading()
            await run.receive(5)


# Errors of the socket.


def reset(stream: anyio.abc.SocketStream) -> None:
    """Let the closing of a stream send a reset."""
    raw = stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_data_in_front_of_a_reset_is_fed() -> None:
    async with native_streams() as (near, far), running(near) as run:
        near.pause_reading()
        await settle()
        await far.send(bytes(50_000))
        reset(far)
        await far.aclose()
        near.resume_reading()
        with fail_after(LIMIT):
            await run.read.wait()
        assert len(run.received) == 50_000
        assert isinstance(run.read_error, ConnectionResetError)


async def test_reset_is_found_when_a_reply_has_met_it_first() -> None:
    async with native_streams() as (near, far), running(near) as run:
        run.on_feed = lambda: near.write(b"reply")
        near.pause_reading()
        await settle()
        await far.send(b"Hello")
        reset(far)
        await far.aclose()
        near.resume_reading()
        with fail_after(LIMIT):
            await run.written.wait()
            await run.read.wait()
        assert run.received == b"Hello"
        assert isinstance(run.write_error, OSError)


async def test_socket_is_closed_in_peace_as_a_guest_is_woken_and_bytes_wait() -> None:
    async with native_streams() as (near, _far), running(near):
        await fill(near)
        parking = near.make_parking()
        async with create_task_group() as tg:
            tg.start_soon(park, parking)
            await settle()
            parking.wake()
            near.abort()
            await near.aclose()


async def test_nothing_is_read_after_abort_although_reading_is_resumed() -> None:
    async with counted() as (transport, _, far), running(transport) as run:
        transport.pause_reading()
        far.send(b"Hello")
        transport.abort()
        transport.resume_reading()
        await run.read.wait()
        await settle()
        assert run.received == b""


class MistakenSocket(CountedSocket):
    """A socket that once has nothing to read although it said that it has."""

    mistaken = True

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        if self.mistaken:
            self.mistaken = False
            raise BlockingIOError
        return super().recv_into(buffer, nbytes, flags)


async def test_reading_goes_on_when_there_was_nothing_to_read() -> None:
    near, far = socket.socketpair()
    transport = socket_transport()(MistakenSocket(near))
    with far:
        async with transport, running(transport) as run:
            far.send(b"Hello")
            await run.receive(5)


@pytest.mark.parametrize("at_once", [True, False])
async def test_write_to_a_peer_that_has_gone_ends_writing(at_once: bool) -> None:
    async with counted() as (transport, _, far), running(transport) as run:
        transport.pause_reading()
        far.close()
        if not at_once:
            transport.write_latest(b"latest")
        transport.write(b"a")
        transport.write(b"dropped")
        await run.written.wait()
        assert isinstance(run.write_error, BrokenPipeError)
        assert not await transport.drain(-1)


async def test_error_of_the_receiver_ends_reading() -> None:
    error = LookupError("in feed")

    def fail() -> None:
        raise error

    async with counted() as (transport, _, far), running(transport) as run:
        run.on_feed = fail
        far.send(b"Hello")
        await run.read.wait()
        assert run.read_error is error


async def test_stream_breaks_with_its_peer() -> None:
    async with native_streams() as (near, far):
        reset(far)
        await far.aclose()
        with pytest.raises(anyio.BrokenResourceError):
            await near.receive()
        with pytest.raises(anyio.BrokenResourceError):
            for _ in range(10):
                await near.send(b"a")
        with pytest.raises(anyio.BrokenResourceError):
            await near.send_eof()


async def test_stream_ends_with_its_peer() -> None:
    async with native_streams() as (near, far):
        await far.send_eof()
        with pytest.raises(EndOfStream):
            await near.receive()


async def test_send_waits_until_the_peer_has_read() -> None:
    async with native_streams() as (near, far), create_task_group() as tg:
        tg.start_soon(near.send, DATA)
        received = bytearray()
        while len(received) < FLOOD:
            received += await far.receive()
        assert received == DATA


async def test_stream_is_of_no_use_once_it_is_closed() -> None:
    async with native_streams() as (near, _far):
        await near.aclose()
        await near.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await near.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await near.send(b"a")
        with pytest.raises(anyio.ClosedResourceError):
            await near.send_eof()
        assert SocketAttribute.remote_address not in near.extra_attributes


async def test_those_who_use_a_stream_are_told_when_it_is_closed() -> None:
    async with native_streams() as (near, _far), create_task_group() as tg:

        async def receive() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await near.receive()

        async def send() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await near.send(DATA)

        tg.start_soon(receive)
        tg.start_soon(send)
        await settle()
        await near.aclose()


async def test_receive_that_is_cancelled_loses_nothing() -> None:
    async with native_streams() as (near, far):
        async with create_task_group() as tg:
            tg.start_soon(near.receive)
            await settle()
            tg.cancel_scope.cancel()
        await far.send(b"Hello")
        await settle()  # nobody waits for it
        assert await near.receive() == b"Hello"


async def test_call_in_a_scope_that_is_cancelled_does_nothing() -> None:
    async with counted() as (transport, raw, far):
        far.send(b"Hello")
        for call in (transport.receive, partial(transport.send, b"a"), transport.send_eof):
            with CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught
        assert raw.sent == []
        assert await transport.receive() == b"Hello"
        await transport.send(b"later")
        assert receive_all(far) == b"later"


async def test_send_that_is_cancelled_lets_the_stream_be_read() -> None:
    async with native_streams() as (near, far):
        async with create_task_group() as tg:
            tg.start_soon(near.send, DATA)
            await settle()
            tg.cancel_scope.cancel()
        await far.send(b"Hello")
        assert await near.receive() == b"Hello"


async def test_closed_transport_lets_go_of_its_receiver() -> None:
    async with counted() as (transport, _, _far), create_task_group() as tg:
        run = Run(transport)
        reference = weakref.ref(run)
        transport.start(run, tg)
        transport.write(b"a")
        transport.write(b"b")
        await transport.aclose()
        transport.abort()
        await settle()
        # Who has closed it knows of the end: nothing is told to anybody.
        assert (run.read.is_set(), run.written.is_set()) == (False, False)
        del run
        assert reference() is None


async def test_loss_of_writing_is_told_when_the_transport_is_closed_in_the_same_turn() -> None:
    async with counted() as (transport, _, far), create_task_group() as tg:
        run = Run(transport)
        transport.start(run, tg)
        far.close()
        transport.write(b"a")
        assert transport.close()
        assert isinstance(run.write_error, BrokenPipeError)


# Interrupts.


def test_interrupt_of_the_user_does_not_undo_what_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> bytes:
        async with counted() as (transport, _, far), running(transport):
            tasks = transport._task_group  # type: ignore[attr-defined]  # that of a TrioTransport

            def start_soon(*arguments: Any) -> None:
                signal.raise_signal(signal.SIGINT)
                tasks.start_soon(*arguments)

            with monkeypatch.context() as patch:
                patch.setattr(transport, "_task_group", SimpleNamespace(start_soon=start_soon))
                with pytest.raises(KeyboardInterrupt):
                    transport.write(b"a")
                    transport.write(b"b")  # it is sent at the end of the turn
                    await checkpoint()
            await settle()
            return receive_all(far)

    assert trio.run(main) == b"ab"


# Accepting.


class GoneSocket(socket.socket):
    """A socket of a client that has left, of which macOS says so when an option is set."""

    def setsockopt(self, *arguments: Any) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")


async def test_client_that_has_left_before_it_is_taken_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accepted: list[socket.socket] = []
    served = anyio.Event()

    def accept(listening: socket.socket) -> tuple[socket.socket, Any]:
        descriptor, address = listening._accept()  # type: ignore[attr-defined]  # what it does
        kind = socket.socket if accepted else GoneSocket
        accepted.append(kind(listening.family, listening.type, listening.proto, descriptor))
        return accepted[-1], address

    async def serve(transport: Transport) -> None:
        await transport.aclose()
        served.set()

    async with await listen() as listener, create_task_group() as tg:
        monkeypatch.setattr(socket.socket, "accept", accept)
        port = listener.extra(SocketAttribute.local_port)
        with fail_after(LIMIT):
            tg.start_soon(listener.serve, serve)
            for _ in range(2):
                async with await anyio.connect_tcp("127.0.0.1", port):
                    await settle()
            await served.wait()
        tg.cancel_scope.cancel()
    assert accepted[0].fileno() == -1


# Addresses.


async def test_addresses_are_those_that_anyio_gives() -> None:
    async with native_streams() as (near, far):
        assert near.extra(SocketAttribute.family) == socket.AF_INET
        assert near.extra(SocketAttribute.local_port) == far.extra(SocketAttribute.remote_port)
        assert near.extra(SocketAttribute.remote_port) == far.extra(SocketAttribute.local_port)
        assert near.extra(SocketAttribute.local_address) == far.extra(
            SocketAttribute.remote_address
        )


class ScopedSocket(socket.socket):
    """A socket of IPv6 with a scope in its addresses."""

    def getsockname(self) -> Any:
        return ("fe80::1", 80, 0, 2)

    def getpeername(self) -> Any:
        return ("::1", 81, 0, 0)


async def test_scope_of_an_address_stands_behind_it() -> None:
    transport = socket_transport()(ScopedSocket(socket.AF_INET6))
    async with transport:
        assert transport.extra(SocketAttribute.local_address) == ("fe80::1%2", 80)
        assert transport.extra(SocketAttribute.remote_address) == ("::1", 81)


async def test_address_of_a_client_is_known_though_it_has_reset_the_connection() -> None:
    addresses: list[tuple[Any, Any]] = []
    served = anyio.Event()

    async def serve(transport: Transport) -> None:
        with pytest.raises(anyio.BrokenResourceError):
            await transport.receive()
        addresses.append(transport.addresses())
        await transport.aclose()
        served.set()

    async with await listen() as listener, create_task_group() as tg:
        server = ("127.0.0.1", listener.extra(SocketAttribute.local_port))
        tg.start_soon(listener.serve, serve)
        with socket.create_connection(server) as client:
            address = client.getsockname()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with fail_after(LIMIT):
            await served.wait()
        tg.cancel_scope.cancel()
    assert addresses == [(server, address)]


async def test_connections_that_come_together_are_accepted_in_one_turn() -> None:
    accepted: list[Transport] = []

    async def serve(transport: Transport) -> None:
        accepted.append(transport)
        await anyio.sleep_forever()

    async with await listen() as listener, create_task_group() as tg:
        server = ("127.0.0.1", listener.extra(SocketAttribute.local_port))
        clients = [socket.create_connection(server) for _ in range(10)]
        tg.start_soon(listener.serve, serve, tg)
        # It begins, it accepts, and their tasks begin; on trio each may come behind us.
        for _ in range(4):
            await checkpoint()
        assert len(accepted) == len(clients)
        tg.cancel_scope.cancel()
    for transport in accepted:
        await transport.aclose()
    for client in clients:
        client.close()


async def test_listener_serves_in_a_task_group_of_its_own() -> None:
    served = anyio.Event()

    async def handle(transport: Transport) -> None:
        await transport.aclose()
        served.set()

    async with await listen() as listener, create_task_group() as tg:
        tg.start_soon(listener.serve, handle)
        port = listener.extra(SocketAttribute.local_port)
        with socket.create_connection(("127.0.0.1", port)):
            await served.wait()
        tg.cancel_scope.cancel()


async def test_listener_that_is_closed_ends_serving() -> None:
    async def handle(transport: Transport) -> None:
        raise AssertionError

    listener = await listen()

    async def serve() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await listener.serve(handle, tg)

    async with create_task_group() as tg:
        tg.start_soon(serve)
        await settle()
        await listener.aclose()
        await listener.aclose()
        await serve()


async def test_listener_may_be_closed_at_once_when_serving_is_cancelled() -> None:
    listener = await listen()
    async with create_task_group() as tg:
        tg.start_soon(listener.serve, Transport.aclose, tg)
        await settle()
        tg.cancel_scope.cancel()
        with CancelScope(shield=True):
            await listener.aclose()


async def test_connection_that_comes_when_serving_is_cancelled_is_served_by_the_next() -> None:
    served: list[Transport] = []

    async def handle(transport: Transport) -> None:
        served.append(transport)
        await transport.aclose()

    async with await listen() as listener, create_task_group() as tg:
        port = listener.extra(SocketAttribute.local_port)
        async with create_task_group() as first:
            first.start_soon(listener.serve, handle, tg)
            await settle()
            client = socket.create_connection(("127.0.0.1", port))
            await checkpoint()  # it is seen in this turn, after the cancellation
            first.cancel_scope.cancel()
        tg.start_soon(listener.serve, handle, tg)
        with client, fail_after(LIMIT):
            while not served:
                await checkpoint()
        tg.cancel_scope.cancel()
    assert len(served) == 1


async def test_others_have_their_turn_while_many_connect() -> None:
    accepted = 0
    turns: list[int] = []

    async def handle(transport: Transport) -> None:
        nonlocal accepted
        accepted += 1
        await transport.aclose()

    async with await listen() as listener:
        port = listener.extra(SocketAttribute.local_port)
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        with fail_after(LIMIT):
            async with create_task_group() as tg:
                tg.start_soon(listener.serve, handle, tg)
                while accepted < 200:
                    await checkpoint()
                    turns.append(accepted)
                tg.cancel_scope.cancel()
        for client in clients:
            client.close()
    assert set(turns) & set(range(1, 200))


class Exhausted:
    """Stands in for a listener, and for its socket, where the descriptors have run out."""

    def extra(self, _: object) -> Exhausted:
        return self

    def accept(self) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def fileno(self) -> int:
        return 3


async def test_lack_of_descriptors_is_told() -> None:
    listener = native_listener(Exhausted())  # type: ignore[arg-type]
    async with create_task_group() as tg:
        with pytest.raises(OSError, match="Too many open files"):
            await listener.serve(Transport.aclose, tg)


# The choice.


async def test_transport_does_without_sniffio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sniffio")
    async with socket_transport()(socket.socket()):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="there are none on Windows")
@pytest.mark.parametrize("native", [True, False])
async def test_native_transports_can_be_switched_off(
    native: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANYWS_NATIVE_TRANSPORTS", "1" if native else "0")
    path = tmp_path / "socket"
    (tcp,) = await listen_tcp("127.0.0.1", 0, backlog=None, reuse_port=False)
    (unix,) = await listen_unix(path, backlog=None)
    async with tcp, unix:
        assert isinstance(tcp, NativeListener) is native
        assert isinstance(unix, UnixListener)
        assert isinstance(unix.listener, NativeListener) is native
        port = tcp.extra(SocketAttribute.local_port)
        for opened in (await open_tcp("127.0.0.1", port), await open_unix(path)):
            async with opened as stream:
                assert not isinstance(stream, StreamTransport)
                assert isinstance(stream, socket_transport()) is native


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
async def test_task_is_cancelled_though_it_was_woken_in_the_same_turn() -> None:
    async with counted() as (transport, _, _), running(transport):
        parking = transport.make_parking()

        async def wait() -> None:
            await parking.park()
            await checkpoint()

        task = asyncio.get_running_loop().create_task(wait())
        await checkpoint()
        parking.wake()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
async def test_task_goes_on_and_writes_in_the_turn_in_which_comes_what_it_waits_for() -> None:
    async with counted() as (transport, raw, far), running(transport) as run:
        parking = transport.make_parking()
        sent_in_turn: list[int] = []

        def wake() -> None:
            asyncio.get_running_loop().call_soon(lambda: sent_in_turn.extend(raw.sent))
            parking.wake()

        async def answer() -> None:
            while True:
                await parking.park()
                for _ in range(3):
                    transport.write(b"a")

        run.on_feed = wake
        async with create_task_group() as tg:
            tg.start_soon(answer)
            await settle()
            far.send(b"Hello")
            await settle()
            tg.cancel_scope.cancel()
        assert sent_in_turn == [1, 2]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)  # uvloop does not tell
async def test_socket_is_watched_once_for_its_handshake_and_for_what_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    watched: list[int] = []
    add_reader = loop.add_reader

    def count(descriptor: int, *arguments: Any) -> None:
        watched.append(descriptor)
        add_reader(descriptor, *arguments)

    monkeypatch.setattr(loop, "add_reader", count)
    async with counted() as (transport, _, far):
        received: list[bytes] = []

        async def shake_hands() -> None:
            received.extend([await transport.receive(), await transport.receive()])

        async with create_task_group() as tg:
            tg.start_soon(shake_hands)
            for data in (b"Hello", b"world"):
                await settle()
                far.send(data)
        assert received == [b"Hello", b"world"]
        async with running(transport) as run:
            far.send(b"!")
            await run.receive(1)
            assert run.received == b"!"
        assert len(watched) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)  # uvloop does not tell
async def test_event_loop_rests_when_nothing_waits_to_be_sent_any_more() -> None:
    async with native_streams() as (near, far), running(near):
        await fill(near)
        assert await read_exactly(far, FLOOD) == DATA
        assert await near.drain(0)
        raw = near.extra(SocketAttribute.raw_socket)
        assert not asyncio.get_running_loop().remove_writer(raw.fileno())


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)  # uvloop does not tell
async def test_event_loop_rests_when_what_comes_is_not_to_be_read() -> None:
    async with native_streams() as (near, far), running(near) as run:
        near.pause_reading()
        await far.send(b"Hello")
        await settle()
        raw = near.extra(SocketAttribute.raw_socket)
        assert not asyncio.get_running_loop().remove_reader(raw.fileno())
        near.resume_reading()
        await run.receive(5)
