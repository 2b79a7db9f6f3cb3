"""Keepalive and the close watchdog: behaviours 1 to 13, and `_keepalive.Keepalive` and `Watchdog`.

The seconds are those of a virtual clock, so that they are exact.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
import pytest
import trio
from anyio import create_task_group, current_time, move_on_after, sleep, sleep_until
from anyio.lowlevel import checkpoint
from trio.testing import MockClock

import anyws
from anyws._keepalive import Keepalive, Pings, PongWaiter, Watchdog
from anyws._transports._timer import TaskTimer
from anyws._types import Close, State
from anyws.exceptions import ConnectionClosedError, ConnectionClosedOK, KeepaliveTimeout
from anyws.testing import memory_stream_pair
from tests.clocks import VirtualTimeLoop
from tests.wire import (
    BINARY,
    CLOSE,
    CONT,
    MASK,
    PING,
    PONG,
    REQUEST,
    TEXT,
    Peer,
    client_and_peer,
    frame,
    server_and_peer,
    split_frames,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable

    from anyio.abc import TaskGroup

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

Pair = Callable[..., AbstractAsyncContextManager[tuple[anyws.Connection, Peer]]]


@pytest.fixture(params=[client_and_peer, server_and_peer], ids=["client", "server"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """Give what connects anyws, in each of its roles, to the literal peer."""
    give: Pair = request.param
    return give


def let_time_pass(seconds: float) -> None:
    """Move the clock while no task runs, as work that blocks the event loop does."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        clock.jump(seconds)
    else:
        assert isinstance(loop, VirtualTimeLoop)
        loop._now += seconds


async def read_ping(peer: Peer) -> bytes:
    """Read a Ping and give its payload."""
    ping = await peer.read_frame()
    assert ping.opcode == PING
    return ping.payload


async def answer_pings(peer: Peer, sending: anyio.Lock) -> None:
    """Answer each Ping at once, in turn with who else has the lock, until a Close frame comes."""
    while (received := await peer.read_frame()).opcode == PING:
        async with sending:
            await peer.send(PONG, received.payload)


# When a Ping goes out.


@pytest.mark.behaviour(1)
async def test_ping_goes_out_every_ping_interval(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=4) as (ws, peer):
        start = current_time()
        times = []
        for _ in range(4):
            payload = await read_ping(peer)
            times.append(current_time() - start)
            await peer.send(PONG, payload)
        assert times == pytest.approx([5, 10, 15, 20])
        assert ws.open


@pytest.mark.behaviour(1)
async def test_pings_keep_to_the_interval_while_others_wait_for_their_pong(pair: Pair) -> None:
    async with pair(ping_interval=2, ping_timeout=7) as (_, peer):
        start = current_time()
        times = []
        payloads = set()
        for _ in range(4):
            payloads.add(await read_ping(peer))
            times.append(current_time() - start)
        assert times == pytest.approx([2, 4, 6, 8])
        assert len(payloads) == 4


@pytest.mark.behaviour(1)
async def test_ping_goes_out_in_time_while_messages_flow(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=4) as (ws, peer):
        for second in range(1, 5):
            await sleep(1)
            await ws.send(str(second))
            await peer.send(TEXT, b"x")
            assert await ws.recv() == "x"
            assert (await peer.read_frame()).payload == b"%d" % second
        await sleep(1.5)
        assert (await peer.read_frame()).opcode == PING


@pytest.mark.behaviour(1)
async def test_ping_passes_between_the_fragments_of_a_message(pair: Pair) -> None:
    async def items() -> AsyncGenerator[str, None]:
        yield "Hel"
        await sleep(7)
        yield "lo"

    async with pair(ping_interval=5, ping_timeout=4) as (ws, peer), create_task_group() as tasks:
        tasks.start_soon(ws.send, items())
        first = await peer.read_frame()
        assert (first.opcode, first.payload, first.fin) == (TEXT, b"Hel", False)
        await peer.send(PONG, await read_ping(peer))
        second = await peer.read_frame()
        assert (second.opcode, second.payload) == (CONT, b"lo")


@pytest.mark.behaviour(2)
async def test_no_ping_goes_out_before_the_interval_is_over(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=4) as (_, peer):
        with move_on_after(4.999) as before:
            await peer.read(1)
        assert before.cancelled_caught
        with move_on_after(0.002) as after:
            await read_ping(peer)
        assert not after.cancelled_caught


@pytest.mark.behaviour(1, 2)
async def test_interval_begins_when_the_opening_handshake_is_over() -> None:
    near, far = memory_stream_pair()
    peer = Peer(far, masks=True)

    async def ask_late() -> None:
        await sleep(3)
        await far.send(REQUEST + b"\r\n")

    async with create_task_group() as tasks:
        tasks.start_soon(ask_late)
        start = current_time()
        async with anyws.wrap_server(near, ping_interval=5, open_timeout=10):
            await peer.read_until(b"\r\n\r\n")
            assert current_time() - start == pytest.approx(3)
            await read_ping(peer)
            assert current_time() - start == pytest.approx(8)
            await far.aclose()


@pytest.mark.behaviour(3)
async def test_no_ping_goes_out_when_ping_interval_is_none(pair: Pair) -> None:
    async with pair(ping_interval=None, ping_timeout=1) as (ws, peer):
        with move_on_after(100_000) as scope:
            await peer.read(1)
        assert scope.cancelled_caught
        assert ws.open


# When no Pong comes.


@pytest.mark.behaviour(4)
@pytest.mark.parametrize(
    ("interval", "timeout"), [(5, 3), (5, 5), (2, 7)], ids=["shorter", "equal", "longer"]
)
async def test_connection_is_closed_with_1011_when_no_pong_comes_in_time(
    pair: Pair, interval: float, timeout: float
) -> None:
    async with pair(ping_interval=interval, ping_timeout=timeout) as (ws, peer):
        start = current_time()
        while (received := await peer.read_frame()).opcode == PING:
            pass
        assert current_time() - start == pytest.approx(interval + timeout)
        assert (received.opcode, received.code) == (CLOSE, 1011)
        assert received.reason == "keepalive ping timeout"
        assert await peer.read_until_eof() == b""
        with pytest.raises(KeepaliveTimeout) as caught:
            await ws.recv()
        assert caught.value.sent == Close(1011, "keepalive ping timeout")
        assert caught.value.rcvd is None
        assert str(caught.value) == (
            "sent 1011 (internal error) keepalive ping timeout; no close frame received"
        )


@pytest.mark.behaviour(4)
async def test_dead_peer_is_dropped_within_close_timeout_after_ping_timeout(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3, close_timeout=2) as (ws, _):
        start = current_time()
        await ws.wait_closed()
        assert current_time() - start == pytest.approx(5 + 3 + 2)
        assert ws.close_code == 1006
        with pytest.raises(KeepaliveTimeout):
            await ws.send("late")


@pytest.mark.behaviour(4)
async def test_connection_that_was_answered_before_is_closed_when_pongs_cease(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3) as (ws, peer):
        start = current_time()
        for _ in range(3):
            await peer.send(PONG, await read_ping(peer))
        with pytest.raises(KeepaliveTimeout):
            await ws.recv()
        assert current_time() - start == pytest.approx(20 + 3)


@pytest.mark.behaviour(4)
async def test_later_ping_has_its_own_time_when_the_pong_of_an_earlier_one_comes(
    pair: Pair,
) -> None:
    async with pair(ping_interval=10, ping_timeout=15) as (ws, peer):
        start = current_time()
        first = await read_ping(peer)
        await read_ping(peer)
        await sleep_until(start + 24)
        await peer.send(PONG, first)
        with pytest.raises(KeepaliveTimeout):
            await ws.recv()
        # The Ping of second 20 was never answered, and the last sign of life came at 24.
        assert current_time() - start == pytest.approx(24 + 15)


@pytest.mark.behaviour(4)
async def test_wrong_pong_does_not_end_the_watch(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3) as (ws, peer):
        start = current_time()
        await read_ping(peer)
        await sleep(1)
        await peer.send(PONG, b"not asked for")
        with pytest.raises(KeepaliveTimeout):
            await ws.recv()
        assert current_time() - start == pytest.approx(6 + 3)


@pytest.mark.behaviour(4)
async def test_asking_for_a_message_is_no_sign_of_life(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3) as (ws, _):
        start = current_time()
        with pytest.raises(KeepaliveTimeout):
            while current_time() < start + 100:
                with move_on_after(1):
                    async with ws.recv_streaming() as fragments:
                        await anext(fragments)
                with move_on_after(1):
                    await ws.recv()
        assert current_time() - start == pytest.approx(5 + 3)


@pytest.mark.behaviour(4)
async def test_pong_after_the_timeout_does_not_reopen_the_connection(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3, close_timeout=10) as (ws, peer):
        payload = await read_ping(peer)
        await sleep(4)
        assert ws.state is State.CLOSING
        await peer.send(PONG, payload)
        await peer.send(TEXT, b"too late")
        with pytest.raises(KeepaliveTimeout):
            await ws.recv()
        assert ws.latency == 0


@pytest.mark.behaviour(5)
async def test_silent_peer_is_kept_when_ping_timeout_is_none(pair: Pair) -> None:
    async with pair(ping_interval=20, ping_timeout=None) as (ws, peer):
        for _ in range(1000):
            await read_ping(peer)
        assert ws.open
        await peer.send(TEXT, b"still here")
        assert await ws.recv() == "still here"


@pytest.mark.behaviour(5, 45)
async def test_pings_that_the_peer_never_answers_are_not_kept_for_ever(pair: Pair) -> None:
    async with pair(ping_interval=20, ping_timeout=None) as (ws, peer):
        pong = await ws.ping(b"ours")
        assert (await peer.read_frame()).payload == b"ours"
        for _ in range(1000):
            payload = await read_ping(peer)
        assert len(ws._link.pings._waiters) == 1 + 16
        await peer.send(PONG, payload)
        assert await pong == pytest.approx(20_000)
        assert len(ws._link.pings._waiters) == 0


# Who is told.


async def _recv(ws: anyws.Connection) -> object:
    return await ws.recv()


async def _iterate(ws: anyws.Connection) -> object:
    return [message async for message in ws]


async def _recv_streaming(ws: anyws.Connection) -> object:
    async with ws.recv_streaming() as fragments:
        return [fragment async for fragment in fragments]


async def _await_pong(ws: anyws.Connection) -> object:
    return await (await ws.ping())


@pytest.mark.behaviour(6)
@pytest.mark.parametrize("wait", [_recv, _iterate, _recv_streaming, _await_pong])
async def test_pending_receiver_raises_at_the_timeout(
    pair: Pair, wait: Callable[[anyws.Connection], Awaitable[object]]
) -> None:
    async with pair(ping_interval=5, ping_timeout=3) as (ws, _):
        start = current_time()
        with pytest.raises(KeepaliveTimeout) as caught:
            await wait(ws)
        assert current_time() - start == pytest.approx(5 + 3)
        assert isinstance(caught.value, ConnectionClosedError)


@pytest.mark.behaviour(6)
async def test_partial_message_is_dropped_at_the_timeout(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3) as (ws, peer):
        await peer.send(TEXT, b"whole")
        await peer.send(TEXT, b"half", fin=False)
        await sleep(9)
        assert await ws.recv() == "whole"
        with pytest.raises(KeepaliveTimeout):
            await ws.recv()


async def _send(ws: anyws.Connection) -> None:
    await ws.send(b"x" * 1_000_000)


async def _send_fragments(ws: anyws.Connection) -> None:
    await ws.send([b"x" * 500_000, b"y" * 500_000])


async def _send_twice(ws: anyws.Connection) -> None:
    with move_on_after(1):
        await ws.send(b"x" * 1_000_000)
    await ws.send("next")


async def _ping(ws: anyws.Connection) -> object:
    with move_on_after(1):
        await ws.send(b"x" * 1_000_000)
    return await ws.ping()


async def _pong(ws: anyws.Connection) -> None:
    with move_on_after(1):
        await ws.send(b"x" * 1_000_000)
    await ws.pong()


@pytest.mark.behaviour(6, 13)
@pytest.mark.parametrize("wait", [_send, _send_fragments, _send_twice, _ping, _pong])
async def test_pending_sender_raises_at_the_timeout_when_the_peer_does_not_read(
    pair: Pair, wait: Callable[[anyws.Connection], Awaitable[object]]
) -> None:
    async with pair(ping_interval=5, ping_timeout=3, close_timeout=2) as (ws, _):
        start = current_time()
        with pytest.raises(KeepaliveTimeout):
            await wait(ws)
        assert current_time() - start == pytest.approx(5 + 3)
        await ws.wait_closed()
        assert current_time() - start == pytest.approx(5 + 3 + 2)


@pytest.mark.behaviour(6)
async def test_sender_that_waits_for_a_fragmented_message_raises_at_the_timeout(
    pair: Pair,
) -> None:
    never = anyio.Event()

    async def items() -> AsyncGenerator[str, None]:
        yield "Hel"
        await never.wait()

    async def send_fragments() -> None:
        with pytest.raises(KeepaliveTimeout):
            await ws.send(items())

    async with pair(ping_interval=5, ping_timeout=3) as (ws, _), create_task_group() as tasks:
        start = current_time()
        tasks.start_soon(send_fragments)
        await sleep(1)
        with move_on_after(100), pytest.raises(KeepaliveTimeout):
            await ws.send("after it")
        assert current_time() - start == pytest.approx(5 + 3)
        never.set()


@pytest.mark.behaviour(6)
async def test_timeout_reaches_the_caller_as_itself_when_the_body_does_not_catch_it(
    pair: Pair,
) -> None:
    with pytest.raises(KeepaliveTimeout) as caught:
        async with pair(ping_interval=5, ping_timeout=3) as (ws, _):
            await ws.recv()
    assert caught.value.sent == Close(1011, "keepalive ping timeout")


@pytest.mark.behaviour(7)
@pytest.mark.parametrize("delay", [0.0, 1.5, 2.999])
async def test_pong_inside_the_timeout_keeps_the_connection_open(pair: Pair, delay: float) -> None:
    async with pair(ping_interval=5, ping_timeout=3) as (ws, peer):
        for _ in range(3):
            payload = await read_ping(peer)
            await sleep(delay)
            await peer.send(PONG, payload)
        await sleep(4.5 - delay)
        assert ws.open
        await ws.send("on")
        assert (await peer.read_frame()).payload == b"on"


@pytest.mark.behaviour(7)
async def test_pong_that_waits_while_the_event_loop_is_blocked_keeps_the_connection_open(
    pair: Pair,
) -> None:
    async with pair(ping_interval=5, ping_timeout=3) as (ws, peer):
        payload = await read_ping(peer)
        await peer.send(PONG, payload)
        let_time_pass(60)
        await sleep(1)
        assert ws.open
        assert ws.latency > 0


# When closing starts.


@pytest.mark.behaviour(8)
async def test_no_ping_follows_our_close(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3, close_timeout=100) as (ws, peer):
        async with create_task_group() as tasks:
            tasks.start_soon(ws.close)
            close = await peer.read_frame()
            assert (close.opcode, close.code) == (CLOSE, 1000)
            with move_on_after(99) as scope:
                await peer.read(1)
            assert scope.cancelled_caught
            assert ws.state is State.CLOSING
            await peer.send_close()
            await peer.finish()
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()


@pytest.mark.behaviour(8)
async def test_unanswered_ping_is_forgotten_when_closing_starts(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3, close_timeout=10) as (ws, peer):
        start = current_time()
        await read_ping(peer)
        await sleep(1)
        await ws.close()
        assert current_time() - start == pytest.approx(6 + 10)
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert type(caught.value) is ConnectionClosedError
        assert caught.value.sent == Close(1000)


@pytest.mark.behaviour(8)
async def test_no_ping_follows_the_close_of_the_peer() -> None:
    async with client_and_peer(ping_interval=0.25, ping_timeout=0.25) as (ws, peer):
        await peer.send_close()
        assert (await peer.read_frame()).opcode == CLOSE
        # The client leaves it to the server to end the stream, for a while.
        await ws.wait_closed()
        assert await peer.read_until_eof() == b""


@pytest.mark.behaviour(8)
async def test_closing_is_quiet_when_a_ping_is_due_in_the_same_turn_of_the_loop(
    pair: Pair,
) -> None:
    async with pair(ping_interval=5, ping_timeout=3, max_queue=1, close_timeout=1) as (ws, peer):
        await peer.send(TEXT, b"fills the queue")
        await sleep(1)
        let_time_pass(4.5)
        # recv() wakes the keepalive; when its turn comes, nothing is open to send a Ping over.
        assert await ws.recv() == "fills the queue"
        await ws.close()
        close = await peer.read_frame()
        assert (close.opcode, close.code) == (CLOSE, 1000)
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert type(caught.value) is ConnectionClosedError


# The latency.


@pytest.mark.behaviour(9)
async def test_each_pong_updates_the_latency(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=4) as (ws, peer):
        latencies = []
        for delay in (2.0, 0.5, 3.0):
            payload = await read_ping(peer)
            await sleep(delay)
            await peer.send(PONG, payload)
            await sleep(0.001)
            latencies.append(ws.latency)
        assert latencies == pytest.approx([2.0, 0.5, 3.0])


@pytest.mark.behaviour(9)
async def test_pong_that_comes_after_the_next_ping_updates_the_latency(pair: Pair) -> None:
    async with pair(ping_interval=2, ping_timeout=20) as (ws, peer):
        payload = await read_ping(peer)
        await read_ping(peer)
        await sleep(1)
        await peer.send(PONG, payload)
        await sleep(0.001)
        assert ws.latency == pytest.approx(3)


@pytest.mark.behaviour(9)
async def test_unsolicited_pong_leaves_the_latency_alone(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=4) as (ws, peer):
        payload = await read_ping(peer)
        await sleep(2)
        await peer.send(PONG, payload)
        await sleep(1)
        await peer.send(PONG, payload)
        await peer.send(PONG)
        await sleep(0.001)
        assert ws.latency == pytest.approx(2)


@pytest.mark.behaviour(10)
async def test_latency_is_0_before_the_first_pong(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=4) as (ws, peer):
        assert ws.latency == 0
        await read_ping(peer)
        await peer.send(PONG, b"not asked for")
        await sleep(1)
        assert ws.latency == 0


# Signs of life.


@pytest.mark.behaviour(11)
@pytest.mark.parametrize("opcode", [TEXT, PING, PONG], ids=["message", "ping", "unsolicited pong"])
async def test_any_frame_keeps_the_connection_open(pair: Pair, opcode: int) -> None:
    async with pair(ping_interval=5, ping_timeout=3) as (ws, peer):
        for _ in range(12):
            await sleep(2)
            await peer.send(opcode, b"x")
        assert ws.open
        assert ws.latency == 0


@pytest.mark.behaviour(11)
async def test_each_byte_of_an_incomplete_frame_counts_as_life(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3) as (ws, peer):
        start = current_time()
        message = frame(BINARY, b"0123456789", mask=MASK if peer.masks else None)
        for index in range(len(message) - 1):
            await peer.send_bytes(message[index : index + 1])
            await sleep(2.9)
        last = start + 2.9 * (len(message) - 2)
        assert ws.open
        with pytest.raises(KeepaliveTimeout):
            await ws.recv()
        assert current_time() == pytest.approx(last + 3)


# While the application holds back reading.


@pytest.mark.behaviour(12)
@pytest.mark.parametrize("limits", [{"max_queue": 1}, {"read_limit": 4}], ids=["messages", "bytes"])
async def test_pong_may_wait_unread_while_the_inbox_is_full(
    pair: Pair, limits: dict[str, int]
) -> None:
    async with pair(ping_interval=5, ping_timeout=3, **limits) as (ws, peer):
        await peer.send(TEXT, b"one and full")
        payload = await read_ping(peer)
        await peer.send(PONG, payload)
        await peer.send(TEXT, b"two")
        await sleep(60)
        assert ws.open
        assert await ws.recv() == "one and full"
        assert await ws.recv() == "two"
        assert ws.latency == pytest.approx(60)


@pytest.mark.behaviour(12)
async def test_dead_peer_is_found_out_a_whole_timeout_after_reading_went_on(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3, max_queue=1) as (ws, peer):
        start = current_time()
        await peer.send(TEXT, b"the last")
        await sleep(101)
        assert ws.open
        assert await ws.recv() == "the last"
        with pytest.raises(KeepaliveTimeout):
            await ws.recv()
        assert current_time() - start == pytest.approx(101 + 3)


@pytest.mark.behaviour(12)
async def test_clock_stops_when_the_inbox_fills_after_the_ping(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3, max_queue=1) as (ws, peer):
        start = current_time()
        await read_ping(peer)
        await sleep(2.5)
        await peer.send(TEXT, b"the last")
        await sleep(0.25)
        await peer.send(TEXT, b"not read yet")
        await sleep_until(start + 51)
        assert ws.open
        assert await ws.recv() == "the last"
        await sleep(1)
        # The second message has filled the inbox again.
        await sleep_until(start + 101)
        assert ws.open
        assert await ws.recv() == "not read yet"
        with pytest.raises(KeepaliveTimeout):
            await ws.recv()
        assert current_time() - start == pytest.approx(101 + 3)


@pytest.mark.behaviour(12)
async def test_dead_peer_is_found_out_in_time_when_reading_went_on_before_the_ping(
    pair: Pair,
) -> None:
    async with pair(ping_interval=5, ping_timeout=3, max_queue=1) as (ws, peer):
        start = current_time()
        await peer.send(TEXT, b"the last")
        await sleep(4)
        assert await ws.recv() == "the last"
        with pytest.raises(KeepaliveTimeout):
            await ws.recv()
        assert current_time() - start == pytest.approx(5 + 3)


@pytest.mark.behaviour(12)
async def test_slow_consumer_of_a_busy_peer_is_never_killed(pair: Pair) -> None:
    sending = anyio.Lock()

    async def flood() -> None:
        for number in range(100):
            async with sending:
                await peer.send(BINARY, b"%03d" % number + bytes(4000))

    async with (
        pair(ping_interval=5, ping_timeout=3, max_queue=4, close_timeout=1) as (ws, peer),
        create_task_group() as tasks,
    ):
        tasks.start_soon(flood)
        tasks.start_soon(answer_pings, peer, sending)
        for number in range(100):
            await sleep(50)
            message = await ws.recv()
            assert message[:3] == b"%03d" % number
        assert ws.open
        await ws.close()


@pytest.mark.behaviour(12)
async def test_slow_consumer_of_fragments_is_never_killed(pair: Pair) -> None:
    sending = anyio.Lock()

    async def flood() -> None:
        for number in range(20):
            async with sending:
                await peer.send(CONT if number else TEXT, b"%02d" % number, fin=number == 19)

    async with (
        pair(ping_interval=5, ping_timeout=3, max_queue=2, close_timeout=1) as (ws, peer),
        create_task_group() as tasks,
    ):
        received = []
        async with ws.recv_streaming() as fragments:
            tasks.start_soon(flood)
            tasks.start_soon(answer_pings, peer, sending)
            async for fragment in fragments:
                received.append(fragment)
                await sleep(50)
        assert received == [f"{number:02}" for number in range(20)]
        assert ws.open
        await ws.close()


@pytest.mark.behaviour(12)
async def test_pings_go_on_while_reading_is_held_back(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3, max_queue=1) as (ws, peer):
        start = current_time()
        await peer.send(TEXT, b"fills the queue")
        for _ in range(10):
            await read_ping(peer)
        assert current_time() - start == pytest.approx(50)
        assert ws.open


@pytest.mark.behaviour(12)
async def test_small_chunk_that_inflates_to_many_messages_stops_the_clock(pair: Pair) -> None:
    headers = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n"
    async with pair(
        ping_interval=5, ping_timeout=3, max_queue=2, compression="deflate", headers=headers
    ) as (ws, peer):
        # "Hello" as RFC 7692 section 7.2.3.2 has it: with no context taken over.
        hello = bytes.fromhex("f248cdc9c90700")
        mask = MASK if peer.masks else None
        await peer.send_bytes(frame(TEXT, hello, rsv=4, mask=mask) * 10)
        for _ in range(10):
            await sleep(100)
            assert await ws.recv() == "Hello"
        assert ws.open
        with pytest.raises(KeepaliveTimeout):
            await ws.recv()


@pytest.mark.behaviour(12)
async def test_keepalive_ends_with_the_connection_while_reading_is_held_back(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3, max_queue=1, close_timeout=1) as (ws, peer):
        start = current_time()
        await peer.send(TEXT, b"fills the queue")
        await sleep(51)
        await ws.close()
        assert current_time() - start == pytest.approx(51 + 1)
        assert await ws.recv() == "fills the queue"
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert type(caught.value) is ConnectionClosedError


# A peer that does not read.


@pytest.mark.behaviour(13)
async def test_peer_that_stops_reading_in_the_midst_of_a_message_is_found_out(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3, max_buffer_size=1000) as (ws, peer):
        start = current_time()
        async with create_task_group() as tasks:
            tasks.start_soon(peer.read, 500_000)
            with pytest.raises(KeepaliveTimeout):
                await ws.send(b"x" * 1_000_000)
        assert current_time() - start == pytest.approx(5 + 3)


@pytest.mark.behaviour(13)
async def test_peer_that_reads_on_gets_the_message_and_the_ping_behind_it(pair: Pair) -> None:
    async with (
        pair(ping_interval=5, ping_timeout=3, max_buffer_size=1000) as (ws, peer),
        create_task_group() as tasks,
    ):
        tasks.start_soon(ws.send, b"x" * 100_000)
        await sleep(7)
        assert (await peer.read_frame()).payload == b"x" * 100_000
        await peer.send(PONG, await read_ping(peer))
        await sleep(1.5)
        assert ws.open
        # From the Ping, not from when it could leave.
        assert ws.latency == pytest.approx(2)


@pytest.mark.behaviour(13)
async def test_peer_that_reads_slowly_is_not_found_out_while_the_ping_waits_behind_a_message(
    pair: Pair,
) -> None:
    size = 1_000_000
    async with (
        pair(ping_interval=5, ping_timeout=3, max_buffer_size=1000) as (ws, peer),
        create_task_group() as tasks,
    ):
        start = current_time()
        tasks.start_soon(ws.send, b"x" * size)
        left = size + 10 + (4 if peer.masks is False else 0)
        while left:
            await sleep(2)
            left -= len(await peer.read(min(left, 65536)))
        assert current_time() - start > 30
        for _ in range(6):
            await peer.send(PONG, await read_ping(peer))
        await sleep(4)
        assert ws.open


@pytest.mark.behaviour(13)
async def test_peer_that_reads_slowly_and_stops_is_found_out(pair: Pair) -> None:
    stopped_at = 0.0

    async def read_slowly() -> None:
        nonlocal stopped_at
        for _ in range(6):
            await sleep(2)
            await peer.read(65536)
        stopped_at = current_time()

    async with (
        pair(ping_interval=5, ping_timeout=3, close_timeout=2, max_buffer_size=1000) as (ws, peer),
        create_task_group() as tasks,
    ):
        tasks.start_soon(read_slowly)
        with pytest.raises(KeepaliveTimeout):
            await ws.send(b"x" * 1_000_000)
        # It is looked at so often that this is how late it is found out.
        assert 3 <= current_time() - stopped_at <= 3 + 3 / 16


@pytest.mark.behaviour(4)
async def test_peer_is_found_out_in_time_when_a_message_leaves_with_the_ping(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=4, close_timeout=1) as (ws, _):

        async def send_each_second() -> None:
            with suppress(anyws.ConnectionClosed):
                while True:
                    await ws.send("x")
                    await sleep(1)

        start = current_time()
        async with create_task_group() as tasks:
            tasks.start_soon(send_each_second)
            with pytest.raises(KeepaliveTimeout):
                await ws.recv()
            assert 5 + 4 <= current_time() - start <= 5 + 4 + 4 / 16


async def read_steadily(peer: Peer, size: int, seconds: float) -> None:
    """Read so many bytes in so many seconds, again and again, and answer each Ping there."""
    data = b""
    with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
        while True:
            await sleep(seconds)
            data += await peer.read(size)
            frames, data = split_frames(data)
            for one in frames:
                if one.opcode == PING:
                    await peer.send(PONG, one.payload)


@pytest.mark.behaviour(13)
@pytest.mark.parametrize(("interval", "timeout"), [(20, 10), (5, 3), (1, 3)])
async def test_steady_reader_of_message_after_message_is_alive(
    pair: Pair, interval: float, timeout: float
) -> None:
    async with (
        pair(
            ping_interval=interval, ping_timeout=timeout, close_timeout=1, max_buffer_size=1000
        ) as (ws, peer),
        create_task_group() as tasks,
    ):
        tasks.start_soon(read_steadily, peer, 10_000, 0.1)
        for _ in range(10):
            await ws.send(b"x" * 1_000_000)
        assert ws.open
        tasks.cancel_scope.cancel()


async def echo(ws: anyws.Connection) -> None:
    async for message in ws:
        await ws.send(message)


@pytest.mark.behaviour(13)
async def test_peer_that_sends_and_never_reads_is_found_out(pair: Pair) -> None:
    """It holds up our sending, and we our reading: nobody would ever end that."""

    async def flood() -> None:
        with suppress(anyio.BrokenResourceError):
            while True:
                await peer.send(BINARY, bytes(10_000))
                await sleep(0.01)  # the time goes on while we read what nobody wants

    async with (
        pair(ping_interval=5, ping_timeout=3, close_timeout=2, max_buffer_size=1000) as (ws, peer),
        create_task_group() as tasks,
    ):
        start = current_time()
        tasks.start_soon(flood)
        with pytest.raises(KeepaliveTimeout):
            await echo(ws)
        assert current_time() - start == pytest.approx(5 + 3)
        await ws.wait_closed()
        tasks.cancel_scope.cancel()


@pytest.mark.behaviour(12)
async def test_peer_that_sends_much_and_reads_slowly_is_alive(pair: Pair) -> None:
    async def flood() -> None:
        with suppress(anyio.BrokenResourceError):
            while True:
                await peer.send(BINARY, bytes(10_000))

    async with (
        pair(ping_interval=5, ping_timeout=3, close_timeout=2, max_buffer_size=1000) as (ws, peer),
        create_task_group() as tasks,
    ):
        tasks.start_soon(flood)
        tasks.start_soon(echo, ws)
        for _ in range(100):
            await sleep(2)
            await peer.read(60_000)
        assert ws.open
        tasks.cancel_scope.cancel()


@pytest.mark.behaviour(13)
async def test_cancelled_send_does_not_hide_that_the_peer_stopped_reading(pair: Pair) -> None:
    async with pair(ping_interval=5, ping_timeout=3, close_timeout=2) as (ws, _):
        start = current_time()
        with move_on_after(1) as scope:
            await ws.send(b"x" * 1_000_000)
        assert scope.cancelled_caught
        with pytest.raises(KeepaliveTimeout):
            await ws.recv()
        assert current_time() - start == pytest.approx(5 + 3)


# The class, alone.


class Quiet:
    """A line on which nothing waits to leave unless told, and its timer.

    Args:
        tasks: where the timer runs.
    """

    def __init__(self, tasks: TaskGroup) -> None:
        self.tasks = tasks
        self.sent_size = 0
        self.write_buffer_size = 0
        self.settings = 0
        self._timer = TaskTimer(tasks)

    def set_timer(self, deadline: float, callback: Callable[[], None] | None) -> None:
        self.settings += 1
        self._timer.set(deadline, callback)


class Station:
    """What a Keepalive is given: it counts the Pings and the expiries."""

    def __init__(self) -> None:
        self.pings = Pings()
        self.waiters: list[PongWaiter] = []
        self.sent: list[bytes] = []
        self.expired = 0

    def send_ping(self) -> PongWaiter:
        payload = self.pings.new_payload()
        self.sent.append(payload)
        waiter = self.pings.add(payload)
        self.waiters.append(waiter)
        return waiter

    def expire_keepalive(self) -> None:
        self.expired += 1


@asynccontextmanager
async def keeping_alive(
    station: Station, interval: float | None, timeout: float | None
) -> AsyncGenerator[tuple[Keepalive, Quiet], None]:
    """Run a Keepalive until the block is left, and stop it then."""
    async with create_task_group() as tasks:
        line = Quiet(tasks)
        keepalive = Keepalive(interval, timeout)
        keepalive.start(station, line, tasks)
        yield keepalive, line
        keepalive.stop()
        line.set_timer(math.inf, None)


async def test_keepalive_sends_nothing_without_an_interval() -> None:
    station = Station()
    async with keeping_alive(station, None, 3):
        await sleep(1000)
    assert station.sent == []


async def test_keepalive_runs_until_stopped() -> None:
    station = Station()
    async with keeping_alive(station, 5, None) as (keepalive, _):
        await sleep(26)
        keepalive.stop()
        await sleep(26)
    assert len(station.sent) == 5
    assert station.expired == 0


async def test_keepalive_sends_nothing_when_stopped_before_it_starts() -> None:
    station = Station()
    async with create_task_group() as tasks:
        keepalive = Keepalive(5, 3)
        keepalive.stop()
        keepalive.start(station, Quiet(tasks), tasks)
        await sleep(26)
    assert station.sent == []


async def test_keepalive_sends_nothing_when_it_is_stopped_as_reading_goes_on() -> None:
    station = Station()
    async with keeping_alive(station, 5, 3) as (keepalive, _):
        await sleep(1)
        keepalive.pause()
        let_time_pass(10)
        keepalive.resume()
        keepalive.stop()
    assert station.sent == []
    assert station.expired == 0


async def test_keepalive_leaves_the_timer_alone_when_its_ping_is_the_end() -> None:
    calls: list[float] = []

    class Ending(Station):
        def send_ping(self) -> PongWaiter:
            waiter = super().send_ping()
            keepalive.stop()
            line.set_timer(current_time() + 7, lambda: calls.append(current_time()))
            return waiter

    station = Ending()
    async with create_task_group() as tasks:
        line = Quiet(tasks)
        keepalive = Keepalive(5, 3)
        start = current_time()
        keepalive.start(station, line, tasks)
    assert calls == [pytest.approx(start + 5 + 7)]
    assert len(station.sent) == 1


async def test_keepalive_runs_on_when_the_scope_around_it_is_cancelled() -> None:
    station = Station()
    async with keeping_alive(station, 5, None) as (_, line):
        await sleep(1)
        line.tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await sleep(10)
    assert len(station.sent) == 2


async def test_keepalive_watches_only_while_a_ping_is_out() -> None:
    station = Station()
    watching = []
    async with keeping_alive(station, 5, 3) as (keepalive, _):
        await sleep(4)
        watching.append(keepalive.watching)
        await sleep(2)
        watching.append(keepalive.watching)
        station.pings.receive_pong(station.sent[0])
        await sleep(3)
        watching.append(keepalive.watching)
    assert watching == [False, True, False]


async def test_keepalive_expires_once() -> None:
    station = Station()
    async with keeping_alive(station, 5, 3):
        await sleep(7.5)
        assert station.expired == 0
        await sleep(1000)
    assert station.expired == 1


async def test_what_has_left_before_a_later_ping_is_no_life() -> None:
    station = Station()
    async with keeping_alive(station, 5, 20) as (_, line):
        await sleep(6)
        line.sent_size += 10  # the first Ping
        await sleep(13)
        line.write_buffer_size = 1000  # a message that stays, in front of the fourth Ping
        await sleep(5.9)
        assert station.expired == 0
        await sleep(0.2)
        assert station.expired == 1


async def test_keepalive_looks_at_what_leaves_only_until_the_pong_has_come() -> None:
    station = Station()
    async with keeping_alive(station, 3600, 20) as (_, line):
        line.write_buffer_size = 1000
        await sleep(3605)
        line.sent_size, line.write_buffer_size = 1000, 0
        station.pings.receive_pong(station.sent[0])
        await sleep(5)
        settings = line.settings
        await sleep(3500)
        assert line.settings == settings
        assert station.expired == 0


async def test_keepalive_lets_the_reader_run_before_it_expires() -> None:
    station = Station()

    async def read_what_waits() -> None:
        for _ in range(3):
            await checkpoint()
        keepalive.see_life()

    async with keeping_alive(station, 5, 3) as (keepalive, line):
        await sleep(6)
        let_time_pass(60)
        line.tasks.start_soon(read_what_waits)
        await sleep(1)
    assert station.expired == 0


@pytest.mark.parametrize("turns", range(16))
async def test_keepalive_does_not_expire_when_stopped_in_the_last_moment(turns: int) -> None:
    station = Station()
    async with keeping_alive(station, 5, 3) as (keepalive, _):
        await sleep(6)
        let_time_pass(60)
        for _ in range(turns):
            await checkpoint()
        expired = station.expired
        keepalive.stop()
    assert station.expired == expired


class Watch:
    """What a Watchdog is given: it keeps when it expired."""

    def __init__(self) -> None:
        self.expired: list[float] = []

    def expire(self) -> None:
        self.expired.append(current_time())


async def test_watchdog_expires_at_its_deadline() -> None:
    watch = Watch()
    start = current_time()
    async with create_task_group() as tasks:
        Watchdog(10, Quiet(tasks)).begin(watch.expire)
    assert watch.expired == pytest.approx([start + 10])


async def test_watchdog_is_quiet_when_the_connection_ends_in_time() -> None:
    watch = Watch()
    async with create_task_group() as tasks:
        watchdog = Watchdog(10, Quiet(tasks))
        watchdog.begin(watch.expire)
        await sleep(9)
        watchdog.end()
        watchdog.hasten(1, watch.expire)
    assert watch.expired == []


@pytest.mark.parametrize("begun", [False, True], ids=["at once", "while it runs"])
@pytest.mark.parametrize(
    ("timeout", "hastened"), [(10, 2), (10, 10_000), (None, 2)], ids=["less", "more", "unlimited"]
)
async def test_watchdog_can_only_be_hastened(
    timeout: float | None, hastened: float, begun: bool
) -> None:
    watch = Watch()
    start = current_time()
    async with create_task_group() as tasks:
        watchdog = Watchdog(timeout, Quiet(tasks))
        watchdog.begin(watch.expire)
        if begun:
            await checkpoint()
        watchdog.hasten(hastened, watch.expire)
    assert watch.expired == pytest.approx([start + min(hastened, 10)])


@pytest.mark.parametrize(("timeout", "deadline"), [(10, 2), (1, 1), (None, 2)])
async def test_watchdog_that_is_hastened_first_keeps_the_shorter_time(
    timeout: float | None, deadline: float
) -> None:
    watch = Watch()
    start = current_time()
    async with create_task_group() as tasks:
        watchdog = Watchdog(timeout, Quiet(tasks))
        watchdog.hasten(2, watch.expire)
        watchdog.begin(watch.expire)
    assert watch.expired == pytest.approx([start + deadline])


async def test_watchdog_waits_for_ever_without_a_timeout() -> None:
    watch = Watch()
    async with create_task_group() as tasks:
        watchdog = Watchdog(None, Quiet(tasks))
        watchdog.begin(watch.expire)
        await sleep(80_000)
        watchdog.end()
    assert watch.expired == []


async def test_watchdog_runs_on_when_the_scope_around_it_is_cancelled() -> None:
    watch = Watch()
    start = current_time()
    async with create_task_group() as tasks:
        Watchdog(10, Quiet(tasks)).begin(watch.expire)
        tasks.cancel_scope.cancel()
    assert watch.expired == pytest.approx([start + 10])
