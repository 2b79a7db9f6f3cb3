"""What every transport does alike, whatever it runs over: see `transports` for the kinds."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest
from anyio import CancelScope, EndOfStream, create_task_group, fail_after, move_on_after
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint

from tests.blocks import park
from tests.transports import (
    DATA,
    FLOOD,
    KINDS,
    LIMIT,
    Kind,
    fill,
    linked,
    numbered,
    opened,
    read_exactly,
    read_until_end,
    running,
    settle,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


WITH_HALVES = pytest.mark.parametrize(
    "kind", [name for name, kind in KINDS.items() if kind.has_halves], indirect=True
)


# A byte stream, for the opening handshake.


async def test_transport_is_a_byte_stream(kind: Kind) -> None:
    async with linked(kind) as (transport, peer):
        await transport.send(b"Hello")
        assert await read_exactly(peer, 5) == b"Hello"
        await peer.send(b"Goodbye")
        assert await transport.receive(4) == b"Good"
        assert await transport.receive() == b"bye"


async def test_rest_of_what_was_received_before_the_transport_runs_is_fed(kind: Kind) -> None:
    async with linked(kind) as (transport, peer):
        await peer.send(b"Hello")
        assert await transport.receive(1) == b"H"
        async with running(transport) as run:
            await run.receive(4)
        assert run.received == b"ello"


async def test_transport_has_the_attributes_of_its_stream(kind: Kind) -> None:
    async with linked(kind) as (transport, peer):
        if kind is not KINDS["memory"]:
            near = transport.extra(SocketAttribute.raw_socket).fileno()
            assert near not in (-1, peer.extra(SocketAttribute.raw_socket).fileno())
        assert transport.extra(SocketAttribute.remote_address, None) == peer.extra(
            SocketAttribute.local_address, None
        )


async def test_transport_closes_its_stream(kind: Kind) -> None:
    async with linked(kind) as (transport, peer), create_task_group() as tg:
        tg.start_soon(transport.aclose)
        with pytest.raises(EndOfStream):
            await peer.receive()
        # Of TLS in TLS the peer answers the end of each, and we may be gone at the second.
        with suppress(anyio.BrokenResourceError):
            await peer.aclose()


async def test_half_of_a_stream_can_end_before_the_transport_runs(kind: Kind) -> None:
    async with linked(kind) as (transport, peer):
        if not kind.has_halves:
            with pytest.raises(NotImplementedError):
                await transport.send_eof()
            return
        await transport.send_eof()
        with pytest.raises(EndOfStream):
            await peer.receive()
        await peer.send(b"a")
        assert await transport.receive() == b"a"


# Writing.


async def test_what_is_written_arrives_whole_and_in_order(kind: Kind) -> None:
    async with opened(kind) as (_, transport, link):
        parts = [numbered(4 * size) for size in (1, 10, 0, 30000, 1, 1)]
        for part in parts:
            transport.write(part)
        data = b"".join(parts)
        assert await read_exactly(link.peer, len(data)) == data


async def test_what_is_written_before_the_transport_runs_is_sent(kind: Kind) -> None:
    with fail_after(LIMIT):
        async with kind.link() as link:
            link.transport.write(b"Hello")
            async with running(link.transport):
                assert await read_exactly(link.peer, 5) == b"Hello"


async def test_pair_arrives_joined_and_in_order(kind: Kind) -> None:
    body = numbered(100_000)
    async with opened(kind) as (_, transport, link):
        transport.write_pair(b"head", body)
        transport.write(b"between")
        transport.write_pair(b"HEAD", body)
        expected = b"head" + body + b"between" + b"HEAD" + body
        assert await read_exactly(link.peer, len(expected)) == expected
        transport.write_eof()
        transport.write_pair(b"head", body)
        assert await read_until_end(link.peer) == b""


async def test_write_takes_all_and_counts_what_has_not_left(kind: Kind) -> None:
    async with opened(kind) as (_, transport, link):
        assert transport.write_buffer_size == 0
        await fill(transport)
        assert 0 < transport.write_buffer_size <= FLOOD + FLOOD // 100  # TLS adds to it
        assert transport.sent_size < FLOOD
        assert await read_exactly(link.peer, FLOOD) == DATA
        assert await transport.drain(0)
        assert transport.write_buffer_size == 0
        assert transport.sent_size >= FLOOD


async def test_nothing_is_lost_when_the_peer_reads_while_we_write(kind: Kind) -> None:
    async with opened(kind) as (_, transport, link):

        async def write() -> None:
            for start in range(0, FLOOD, 10000):
                transport.write(DATA[start : start + 10000])
                assert await transport.drain(100000)

        async with create_task_group() as tg:
            tg.start_soon(write)
            assert await read_exactly(link.peer, FLOOD) == DATA


async def test_both_directions_flow_at_once(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        transport.write(DATA)
        async with create_task_group() as tg:
            tg.start_soon(link.peer.send, DATA)
            assert await read_exactly(link.peer, FLOOD) == DATA
            await run.receive(FLOOD)
        assert run.received == DATA


# The newest of several.


async def test_latest_is_sent(kind: Kind) -> None:
    async with opened(kind) as (_, transport, link):
        transport.write_latest(b"one")
        assert await read_exactly(link.peer, 3) == b"one"
        assert await transport.drain(0)
        transport.write_latest(b"two")
        assert await read_exactly(link.peer, 3) == b"two"


@pytest.mark.behaviour(86)
async def test_latest_replaces_the_one_before_while_that_cannot_leave(kind: Kind) -> None:
    async with opened(kind) as (_, transport, link):
        await fill(transport)
        size = transport.write_buffer_size
        for number in range(1000):
            transport.write_latest(b"%d" % number)
        assert transport.write_buffer_size == size + 3
        transport.write(b"end")
        received = await read_exactly(link.peer, FLOOD + 6)
        assert received[FLOOD:] == b"999end"
        assert await transport.drain(0)


async def test_latest_is_kept_when_something_was_written_after_it(kind: Kind) -> None:
    async with opened(kind) as (_, transport, link):
        await fill(transport)
        transport.write_latest(b"one")
        transport.write(b"two")
        transport.write_latest(b"three")
        transport.write_latest(b"four")
        transport.write_eof()
        assert (await read_until_end(link.peer))[FLOOD:] == b"onetwofour"


# Waiting for room.


async def test_drain_returns_at_once_when_few_bytes_wait(kind: Kind) -> None:
    async with linked(kind) as (transport, _):
        assert await transport.drain(0)
        transport.write(b"abc")
        assert await transport.drain(3)


async def test_drain_waits_until_few_enough_bytes_wait(kind: Kind) -> None:
    async with opened(kind) as (_, transport, link):
        await fill(transport)
        order: list[int] = []

        async def drain(limit: int) -> None:
            assert await transport.drain(limit)
            assert transport.write_buffer_size <= limit
            order.append(limit)

        async with create_task_group() as tg:
            for limit in (0, FLOOD // 4, FLOOD // 2):
                tg.start_soon(drain, limit)
                await settle()
            assert order == []
            await read_exactly(link.peer, FLOOD)
        assert order == [FLOOD // 2, FLOOD // 4, 0]


async def test_drain_was_reached_when_others_write_again_before_it_returns(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        results: list[bool] = []

        async def drain() -> None:
            results.append(await transport.drain(0))
            transport.write(bytes(FLOOD))

        await fill(transport)
        async with create_task_group() as tg:
            for _ in range(10):
                tg.start_soon(drain)
            await settle()
            await read_exactly(link.peer, FLOOD)
        assert results == [True] * 10
        assert not run.written.is_set()


async def test_drain_that_is_cancelled_loses_nothing(kind: Kind) -> None:
    async with opened(kind) as (_, transport, link):
        await fill(transport)
        with move_on_after(0) as scope:
            await transport.drain(0)
        assert scope.cancelled_caught
        transport.write(b"end")
        assert await read_exactly(link.peer, FLOOD + 3) == DATA + b"end"
        assert await transport.drain(0)


async def test_release_lets_those_who_drain_go(kind: Kind) -> None:
    async with opened(kind) as (_, transport, link):
        await fill(transport)
        results: list[bool] = []

        async def drain() -> None:
            results.append(await transport.drain(0))

        async with create_task_group() as tg:
            tg.start_soon(drain)
            tg.start_soon(drain)
            await settle()
            transport.release()
        assert results == [False, False]
        # What was written still leaves.
        assert await read_exactly(link.peer, FLOOD) == DATA


# The end of our half.


async def test_end_is_seen_after_all_that_was_written(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        await fill(transport)
        transport.write_eof()
        transport.write(b"dropped")
        transport.write_latest(b"dropped")
        assert await read_until_end(link.peer) == DATA
        await run.written.wait()
        assert run.write_error is None
        assert transport.write_buffer_size == 0
        await link.peer.aclose()
        await run.read.wait()
        assert run.read_error is None


async def test_end_may_be_written_twice_and_before_the_transport_runs(kind: Kind) -> None:
    with fail_after(LIMIT):
        async with kind.link() as link:
            link.transport.write(b"Hello")
            link.transport.write_eof()
            link.transport.write_eof()
            async with running(link.transport):
                assert await read_until_end(link.peer) == b"Hello"


@WITH_HALVES
async def test_peer_may_go_on_after_the_end_of_our_half(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        transport.pause_reading()
        transport.write_eof()
        await run.written.wait()
        # Reading goes on by itself: what else would see the end?
        await link.peer.send(b"Hello")
        await link.peer.send_eof()
        await run.read.wait()
        assert run.received == b"Hello"
        assert run.read_error is None


async def test_peer_reads_our_last_bytes_when_it_goes_on_sending(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        sending = CancelScope()

        async def flood() -> None:
            with sending, suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                while True:
                    await link.peer.send(bytes(10000))

        async with create_task_group() as tg:
            tg.start_soon(flood)
            await run.receive(100000)
            transport.write(b"last")
            transport.write_eof()
            assert await read_until_end(link.peer) == b"last"
            sending.cancel()
        await link.below.aclose()
        await run.read.wait()


# Reading.


async def test_what_the_peer_sends_is_fed(kind: Kind) -> None:
    async with opened(kind) as (run, _, link):
        await link.peer.send(b"Hello")
        await run.receive(5)
        await link.peer.send(b", again")
        await run.receive(12)
        assert run.received == b"Hello, again"


async def test_reading_ends_with_the_half_of_the_peer(kind: Kind) -> None:
    async with opened(kind) as (run, _, link):
        await link.peer.send(b"Hello")
        if kind.has_halves:
            await link.peer.send_eof()
            await run.read.wait()
        else:
            async with create_task_group() as tg:
                tg.start_soon(link.peer.aclose)
                await run.read.wait()
                tg.start_soon(link.transport.aclose)
        assert run.received == b"Hello"
        assert run.read_error is None


@WITH_HALVES
async def test_we_may_go_on_after_the_half_of_the_peer(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        await link.peer.send_eof()
        await run.read.wait()
        transport.write(b"Hello")
        transport.write_eof()
        assert await read_until_end(link.peer) == b"Hello"


async def test_nothing_is_fed_while_reading_is_paused(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        transport.pause_reading()
        transport.pause_reading()
        await link.peer.send(b"Hello")
        await settle()
        assert run.received == b""
        transport.resume_reading()
        await run.receive(5)
        assert run.received == b"Hello"


async def test_peer_is_held_back_while_reading_is_paused(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        run.on_feed = transport.pause_reading
        transport.pause_reading()
        async with create_task_group() as tg:
            sent = False

            async def send() -> None:
                nonlocal sent
                await link.peer.send(DATA)
                sent = True

            tg.start_soon(send)
            await settle()
            assert not sent
            while len(run.received) < FLOOD:
                before = len(run.received)
                transport.resume_reading()
                await run.changed.wait()
                assert 0 < len(run.received) - before <= 2**18
        assert run.received == DATA


async def test_pause_that_follows_a_resume_at_once_holds(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        transport.pause_reading()
        await link.peer.send(b"Hello")
        await settle()
        transport.resume_reading()
        transport.pause_reading()
        for _ in range(10):
            await checkpoint()
        assert run.received == b""
        transport.resume_reading()
        await run.receive(5)


# Where the application waits.


async def test_who_parks_is_woken_by_what_comes_again_and_again(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        parking = transport.make_parking()
        run.on_feed = parking.wake
        for number in range(1, 20):
            await link.peer.send(b"Hello")
            while len(run.received) < 5 * number:
                await parking.park()
        assert run.received == 19 * b"Hello"


async def test_what_comes_is_fed_when_who_was_woken_does_not_come_back(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        parking = transport.make_parking()
        run.on_feed = parking.wake
        await link.peer.send(b"Hello")
        while len(run.received) < 5:
            await parking.park()
        await link.peer.send(b", again")
        await run.receive(12)


async def test_what_comes_is_fed_at_once_when_it_is_attended_to(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        parking = transport.make_parking()
        run.on_feed = parking.wake
        await link.peer.send(b"Hello")
        while len(run.received) < 5:
            await parking.park()
        for number in range(1, 50):
            transport.attend()
            await link.peer.send(b"Hello")
            await run.receive(5 + 5 * number)
        assert run.received == 50 * b"Hello"


async def test_what_comes_is_fed_when_who_parked_is_cancelled(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        parking = transport.make_parking()
        run.on_feed = parking.wake
        for number in range(1, 20):
            async with create_task_group() as tg:
                tg.start_soon(park, parking)
                await settle()
                tg.cancel_scope.cancel()
            await link.peer.send(b"Hello")
            await run.receive(5 * number)


async def test_who_parks_may_be_woken_from_outside(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        parking = transport.make_parking()
        for number in range(1, 4):
            async with create_task_group() as tg:
                tg.start_soon(park, parking)
                await settle()
                parking.wake()
                parking.wake()
            await link.peer.send(b"Hello")
            await run.receive(5 * number)
        parking.wake()


async def test_waking_who_parks_leaves_what_is_to_be_sent(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        parking = transport.make_parking()
        await fill(transport)
        for _ in range(3):
            async with create_task_group() as tg:
                tg.start_soon(park, parking)
                await settle()
                parking.wake()
        assert await read_exactly(link.peer, FLOOD) == DATA
        assert run.write_error is None


async def test_nothing_is_fed_to_who_parks_while_reading_is_paused(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        parking = transport.make_parking()
        woken = 0

        async def park() -> None:
            nonlocal woken
            for _ in range(2):
                await parking.park()
                woken += 1

        run.on_feed = parking.wake
        async with create_task_group() as tg:
            tg.start_soon(park)
            await settle()
            transport.pause_reading()
            await link.peer.send(b"Hello")
            await settle()
            assert woken == 0
            parking.wake()
            await settle()
            assert woken == 1
            assert run.received == b""
            transport.resume_reading()
            await run.receive(5)
        assert woken == 2


async def test_who_parks_may_be_cancelled_while_reading_is_paused(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        parking = transport.make_parking()
        run.on_feed = parking.wake
        async with create_task_group() as tg:
            tg.start_soon(park, parking)
            await settle()
            transport.pause_reading()
            await link.peer.send(b"Hello")
            await settle()
            tg.cancel_scope.cancel()
        parking.wake()
        transport.resume_reading()
        await run.receive(5)


@pytest.mark.parametrize("abort", [False, True])
async def test_who_parks_may_be_woken_by_the_end(kind: Kind, abort: bool) -> None:
    async with opened(kind) as (run, transport, link):
        parking = transport.make_parking()

        async def park() -> None:
            while not run.read.is_set():
                await parking.park()

        async def wake() -> None:
            await run.read.wait()
            parking.wake()

        async with create_task_group() as tg:
            tg.start_soon(park)
            tg.start_soon(wake)
            await settle()
            if abort:
                transport.abort()
            else:
                tg.start_soon(link.below.aclose)
        assert run.received == b""


async def test_flows_both_ways_when_who_parks_and_writes_is_one(kind: Kind) -> None:
    """The echo of more than the stream holds, by one task."""
    async with opened(kind) as (run, transport, link):
        parking = transport.make_parking()
        run.on_feed = parking.wake
        sent = 0

        async def echo() -> None:
            nonlocal sent
            while sent < FLOOD:
                while len(run.received) == sent:
                    await parking.park()
                transport.write(bytes(run.received[sent:]))
                sent = len(run.received)
                assert await transport.drain(1000)

        async with create_task_group() as tg:
            tg.start_soon(echo)
            tg.start_soon(link.peer.send, DATA)
            assert await read_exactly(link.peer, FLOOD) == DATA


async def test_transports_are_looked_after_when_one_of_them_ends(kind: Kind) -> None:
    async with opened(kind) as one, opened(kind) as two, opened(kind) as three:
        for run, transport, link in (one, two, three):
            parking = transport.make_parking()
            run.on_feed = parking.wake
            await link.peer.send(b"Hello")
            while len(run.received) < 5:
                await parking.park()
        one[1].abort()
        for run, _, link in (two, three):
            await link.peer.send(b", again")
            await run.receive(12)
