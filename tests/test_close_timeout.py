"""How long every ending takes, to the second: `close_timeout` is one time for all of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from anyws._keepalive import Watchdog
from tests.endings import (
    background,
    both_roles,
    fails_to_receive,
    floods,
    never_answers,
    never_ends,
    never_reads,
    read_closes,
    takes,
)
from tests.wire import (
    CLOSE,
    MASK,
    TEXT,
    client_and_peer,
    close_payload,
    frame,
    server_and_peer,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.endings import Misbehaviour, Pair
    from tests.wire import Peer

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

# What the write buffer of a stuck connection holds: more than a stream in memory does here.
STUCK = b"x" * 100_000
STUCK_OPTIONS: dict[str, Any] = {"max_buffer_size": 1000, "write_limit": 1_000_000}

silent_peers = pytest.mark.parametrize("misbehave", [never_reads, never_answers, floods])
all_peers = pytest.mark.parametrize("misbehave", [never_reads, never_answers, never_ends, floods])


# What close() takes.


@pytest.mark.behaviour(14)
async def test_client_that_closes_first_and_keeps_tcp_is_dropped_within_close_timeout() -> None:
    async with server_and_peer(close_timeout=0.25) as (ws, peer):
        await peer.send_close()
        with takes(0.25):
            await ws.wait_closed()


async def test_haste_leaves_no_more_than_close_timeout() -> None:
    class Line:
        sent_size = write_buffer_size = 0
        deadline = math.inf

        def set_timer(self, deadline: float, callback: Callable[[], None] | None) -> None:
            self.deadline = deadline

    line = Line()
    Watchdog(0.25, line).hasten(1, lambda: None)
    assert line.deadline == anyio.current_time() + 0.25


@both_roles
@silent_peers
@pytest.mark.behaviour(14)
async def test_close_takes_close_timeout_when_the_peer_does_not_answer(
    pair: Pair, misbehave: Misbehaviour
) -> None:
    async with pair(close_timeout=7) as (ws, peer), background(misbehave, peer):
        with takes(7):
            await ws.close()
        assert ws.close_code == 1006


@both_roles
@silent_peers
@pytest.mark.behaviour(60)
async def test_close_timeout_is_the_cause_when_the_peer_does_not_answer(
    pair: Pair, misbehave: Misbehaviour
) -> None:
    async with pair(close_timeout=7) as (ws, peer), background(misbehave, peer):
        await ws.close()
        async for _ in _until_closed(ws):
            pass
        with pytest.raises(anyws.ConnectionClosedError) as caught:
            await ws.recv()
        assert isinstance(caught.value.__cause__, TimeoutError)
        assert str(caught.value.__cause__) == "no Close frame within 7 seconds (close_timeout)"


@both_roles
@pytest.mark.parametrize("misbehave", [never_reads, floods])
@pytest.mark.behaviour(14)
async def test_close_takes_close_timeout_when_written_data_is_stuck(
    pair: Pair, misbehave: Misbehaviour
) -> None:
    async with pair(close_timeout=7, **STUCK_OPTIONS) as (ws, peer):
        await ws.send(STUCK)
        async with background(misbehave, peer):
            with takes(7):
                await ws.close()


@both_roles
@pytest.mark.behaviour(14)
async def test_close_takes_close_timeout_when_a_sender_waits_too(pair: Pair) -> None:
    async def send() -> None:
        with pytest.raises(anyws.ConnectionClosedError):
            await ws.send(STUCK)

    async with pair(close_timeout=7, max_buffer_size=1000) as (ws, _), background(send):
        await anyio.wait_all_tasks_blocked()
        with takes(7):
            await ws.close()


@both_roles
@all_peers
@pytest.mark.behaviour(14)
async def test_close_is_bounded_when_the_inbox_is_full_and_nobody_reads(
    pair: Pair, misbehave: Misbehaviour
) -> None:
    async with pair(close_timeout=7, max_queue=4) as (ws, peer):
        for _ in range(20):
            await peer.send(TEXT, b"Hello")
        async with background(misbehave, peer):
            with anyio.fail_after(7.5):
                await ws.close()
        assert len([message async for message in _until_closed(ws)]) <= 5


@both_roles
@pytest.mark.behaviour(14)
async def test_close_takes_no_time_when_the_close_frame_of_the_peer_waits_behind_a_full_inbox(
    pair: Pair,
) -> None:
    async with pair(max_queue=4) as (ws, peer):
        mask = MASK if peer.masks else None
        await peer.send_bytes(
            frame(TEXT, b"Hello", mask=mask) * 100 + frame(CLOSE, close_payload(1001), mask=mask)
        )
        await peer.stream.send_eof()
        await anyio.wait_all_tasks_blocked()
        with takes(0):
            await ws.close()
        assert ws.close_code == 1001


@both_roles
@pytest.mark.behaviour(14)
async def test_error_of_our_own_takes_no_time_when_the_inbox_is_full_and_the_peer_ends_tcp(
    pair: Pair,
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async with pair(max_queue=4) as (ws, peer):
        for _ in range(20):
            await peer.send(TEXT, b"Hello")
        await anyio.wait_all_tasks_blocked()
        with takes(0):
            ws.start_soon(fail)
            assert [close.code for close in await read_closes(peer)] == [1011]
            await peer.stream.send_eof()
            await ws.wait_closed()


@pytest.mark.behaviour(14)
async def test_client_waits_close_timeout_for_a_server_that_does_not_end_tcp() -> None:
    async with client_and_peer(close_timeout=7) as (ws, peer), background(never_ends, peer):
        with takes(7):
            await ws.close()
        assert ws.close_code == 1000


@pytest.mark.behaviour(14)
async def test_server_waits_a_second_for_a_client_that_does_not_end_tcp() -> None:
    async with server_and_peer(close_timeout=7) as (ws, peer), background(never_ends, peer):
        with takes(1):
            await ws.close()
        assert ws.close_code == 1000


@pytest.mark.behaviour(14)
async def test_server_waits_no_longer_than_close_timeout_for_a_client_that_does_not_end_tcp() -> (
    None
):
    async with (
        server_and_peer(close_timeout=0.5) as (ws, peer),
        background(never_ends, peer),
    ):
        with takes(0.5):
            await ws.close()


@pytest.mark.behaviour(14)
async def test_server_waits_no_longer_than_close_timeout_for_a_client_that_answers_late() -> None:
    async def answers_late(peer: Peer) -> None:
        await anyio.sleep(6.5)
        await never_ends(peer)

    async with (
        server_and_peer(close_timeout=7) as (ws, peer),
        background(answers_late, peer),
    ):
        with takes(7):
            await ws.close()
        assert ws.close_code == 1000


@both_roles
@pytest.mark.behaviour(14)
async def test_close_takes_as_long_as_a_slow_peer_needs(pair: Pair) -> None:
    async with pair(close_timeout=7, **STUCK_OPTIONS) as (ws, peer):
        await ws.send(STUCK)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.close)
            with takes(6):
                await anyio.sleep(6)
                close = await peer.answer_close()
                await peer.finish()
                await ws.wait_closed()
        assert close.code == 1000
        assert ws.close_code == 1000


@both_roles
@pytest.mark.behaviour(14)
async def test_close_waits_for_the_peer_without_limit_when_close_timeout_is_none(
    pair: Pair,
) -> None:
    async with pair(close_timeout=None, ping_interval=None) as (ws, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.close)
            await anyio.sleep(10_000)
            assert not ws.closed
            await peer.answer_close()
            await peer.finish()


@both_roles
@pytest.mark.behaviour(14)
async def test_time_runs_from_the_first_close_when_others_follow(pair: Pair) -> None:
    async with pair(close_timeout=7) as (ws, _):
        with takes(7):
            await ws.send_eof()
            await anyio.sleep(3)
            with anyio.move_on_after(2):
                await ws.close()
            await ws.close()


@both_roles
@pytest.mark.behaviour(14)
async def test_close_takes_as_long_as_the_peer_lives_when_written_data_is_stuck(
    pair: Pair,
) -> None:
    async def leave() -> None:
        await anyio.sleep(3)
        await peer.finish()

    async with pair(close_timeout=7, **STUCK_OPTIONS) as (ws, peer):
        await ws.send(STUCK)
        async with background(leave):
            with takes(3):
                await ws.close()
        assert ws.close_code == 1006


# What the other endings take.


@both_roles
@all_peers
@pytest.mark.behaviour(14)
async def test_leaving_the_block_is_bounded(pair: Pair, misbehave: Misbehaviour) -> None:
    expected = 1 if misbehave is never_ends and pair is server_and_peer else 7
    with takes(expected):
        async with anyio.create_task_group() as tasks:
            async with pair(close_timeout=7) as (_, peer):
                tasks.start_soon(misbehave, peer)
            tasks.cancel_scope.cancel()


@both_roles
@all_peers
@pytest.mark.behaviour(14)
async def test_leaving_the_block_by_an_exception_is_bounded(
    pair: Pair, misbehave: Misbehaviour
) -> None:
    expected = 1 if misbehave is never_ends and pair is server_and_peer else 7
    async with anyio.create_task_group() as tasks:
        with takes(expected), pytest.raises(ZeroDivisionError):
            async with pair(close_timeout=7, **STUCK_OPTIONS) as (ws, peer):
                if misbehave is never_reads:
                    await ws.send(STUCK)
                tasks.start_soon(misbehave, peer)
                raise ZeroDivisionError
        tasks.cancel_scope.cancel()


@both_roles
@pytest.mark.behaviour(14)
async def test_leaving_the_block_by_cancellation_takes_no_time(pair: Pair) -> None:
    with takes(3), anyio.move_on_after(3):
        async with pair(close_timeout=7, **STUCK_OPTIONS) as (ws, _):
            await ws.send(STUCK)
            await anyio.sleep_forever()


@both_roles
@pytest.mark.behaviour(14)
async def test_cancelling_the_block_while_it_is_left_takes_no_time(pair: Pair) -> None:
    with takes(3), anyio.move_on_after(3):
        async with pair(close_timeout=7, **STUCK_OPTIONS) as (ws, _):
            await ws.send(STUCK)


@both_roles
@silent_peers
@pytest.mark.behaviour(14)
async def test_protocol_error_takes_close_timeout_when_the_peer_stays(
    pair: Pair, misbehave: Misbehaviour
) -> None:
    async with pair(close_timeout=7) as (ws, peer):
        await peer.send(0x3)
        async with background(misbehave, peer):
            with takes(7):
                await ws.wait_closed()


@both_roles
@pytest.mark.behaviour(14)
async def test_protocol_error_takes_close_timeout_when_written_data_is_stuck(pair: Pair) -> None:
    async with pair(close_timeout=7, **STUCK_OPTIONS) as (ws, peer):
        await ws.send(STUCK)
        await peer.send(0x3)
        with takes(7):
            await ws.wait_closed()


@both_roles
@pytest.mark.behaviour(14)
async def test_close_of_the_peer_takes_close_timeout_when_written_data_is_stuck(
    pair: Pair,
) -> None:
    async with pair(close_timeout=7, **STUCK_OPTIONS) as (ws, peer):
        await ws.send(STUCK)
        await peer.send_close()
        with takes(7):
            await ws.wait_closed()


@both_roles
@pytest.mark.behaviour(14, 28)
async def test_close_of_a_slow_peer_is_answered_behind_all_that_was_written(pair: Pair) -> None:
    async with pair(close_timeout=7, **STUCK_OPTIONS) as (ws, peer):
        await ws.send(STUCK)
        await peer.send_close()
        await anyio.sleep(6)
        assert (await peer.read_frame()).payload == STUCK
        assert (await peer.read_frame()).code == 1000
        await peer.finish()
        await ws.wait_closed()


@pytest.mark.behaviour(14)
async def test_close_of_a_client_that_keeps_tcp_takes_a_second() -> None:
    async with server_and_peer(close_timeout=7) as (ws, peer):
        await peer.send_close()
        with takes(1):
            await ws.wait_closed()


@pytest.mark.behaviour(14)
async def test_close_of_a_server_that_keeps_tcp_takes_close_timeout() -> None:
    async with client_and_peer(close_timeout=7) as (ws, peer):
        await peer.send_close()
        with takes(7):
            await ws.wait_closed()


@both_roles
@pytest.mark.behaviour(14)
async def test_end_of_the_stream_takes_no_time_when_written_data_is_stuck(pair: Pair) -> None:
    async with pair(close_timeout=7, **STUCK_OPTIONS) as (ws, peer):
        await ws.send(STUCK)
        await peer.stream.send_eof()
        with takes(0):
            await ws.wait_closed()


@both_roles
@pytest.mark.behaviour(14)
async def test_close_frame_is_written_to_a_peer_that_has_ended_its_half(pair: Pair) -> None:
    async with pair(close_timeout=7, **STUCK_OPTIONS) as (ws, peer):
        await ws.send(STUCK)
        await ws.send_eof()
        await peer.stream.send_eof()
        await anyio.sleep(6)
        with takes(0):
            assert [close.code for close in await read_closes(peer)] == [1000]
            await ws.wait_closed()


@both_roles
@pytest.mark.behaviour(14)
async def test_close_takes_close_timeout_when_a_peer_that_has_ended_its_half_does_not_read(
    pair: Pair,
) -> None:
    async with pair(close_timeout=7, **STUCK_OPTIONS) as (ws, peer):
        await ws.send(STUCK)
        with takes(7):
            await ws.send_eof()
            await peer.stream.send_eof()
            await ws.wait_closed()


@both_roles
@pytest.mark.behaviour(14)
async def test_abort_takes_no_time_when_written_data_is_stuck(pair: Pair) -> None:
    async with pair(close_timeout=7, **STUCK_OPTIONS) as (ws, _):
        await ws.send(STUCK)
        with takes(0):
            ws.abort()
            await ws.wait_closed()


@both_roles
@pytest.mark.behaviour(14)
async def test_keepalive_adds_no_time_of_its_own_once_closing_has_started(pair: Pair) -> None:
    async with pair(close_timeout=7, ping_interval=4, ping_timeout=2) as (ws, _):
        with takes(7):
            await ws.close()
        assert type(await fails_to_receive(ws)) is anyws.ConnectionClosedError


async def _until_closed(ws: anyws.Connection) -> AsyncIterator[str | bytes]:
    try:
        async for message in ws:
            yield message
    except anyws.ConnectionClosed:
        return
