"""Endings that wait for nobody: abort() and send_eof()."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

import anyws
from tests.endings import background, both_roles, closes_well, fails_to_receive, read_closes, takes
from tests.wire import MASK, PING, PONG, TEXT, close_payload, frame

if TYPE_CHECKING:
    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


# The end by abort().


@both_roles
@pytest.mark.behaviour(32)
async def test_abort_ends_with_1006_and_sends_no_close_frame(pair: Pair) -> None:
    async with pair() as (ws, peer):
        ws.abort()
        assert (ws.open, ws.closed) == (False, False)
        with takes(0):
            error = await fails_to_receive(ws)
            await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (1006, "")
        assert str(error) == "no close frame received or sent"
        assert await peer.read_until_eof() == b""


@both_roles
async def test_abort_ends_who_receives_and_who_sends(pair: Pair) -> None:
    async def recv() -> None:
        await fails_to_receive(ws)

    async def send() -> None:
        with pytest.raises(anyws.ConnectionClosedError):
            await ws.send(b"x" * 1_000_000)

    async def ping() -> None:
        with pytest.raises(anyws.ConnectionClosedError):
            await (await ws.ping())

    async with pair() as (ws, _):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recv)
            tasks.start_soon(ping)
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            with takes(0):
                ws.abort()
                await ws.wait_closed()


@both_roles
async def test_nothing_is_decoded_any_more_after_abort(pair: Pair) -> None:
    async with pair(max_queue=(10, 4)) as (ws, peer):
        mask = MASK if peer.masks else None
        await peer.send_bytes(b"".join(frame(TEXT, b"%d" % i, mask=mask) for i in range(100)))
        await anyio.sleep(1)
        ws.abort()
        await ws.wait_closed()
        received = []
        with pytest.raises(anyws.ConnectionClosedError):
            async for message in ws:
                received.append(message)  # noqa: PERF401  # an error ends it
        assert received == [str(number) for number in range(10)]
        assert ws.stats.messages_received == 10


@both_roles
@pytest.mark.behaviour(25)
async def test_abort_ends_a_close_that_waits(pair: Pair) -> None:
    async def abort() -> None:
        await anyio.sleep(2)
        ws.abort()

    async with pair() as (ws, _), background(abort):
        with takes(2):
            await ws.close()
        assert ws.close_code == 1006


@both_roles
async def test_abort_may_come_at_any_time_and_again(pair: Pair) -> None:
    async with pair() as (ws, peer):
        async with background(closes_well, peer):
            await ws.close()
        ws.abort()
        ws.abort()
        assert (ws.state, ws.close_code) == (anyws.State.CLOSED, 1000)
    ws.abort()
    assert (ws.state, ws.close_code) == (anyws.State.CLOSED, 1000)


@both_roles
async def test_abort_keeps_the_code_when_the_close_frames_were_exchanged(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send_close(4000)
        await peer.read_frame()
        ws.abort()
        await ws.wait_closed()
        assert ws.close_code == 4000


@both_roles
async def test_abort_leaves_what_was_received_to_be_had(pair: Pair) -> None:
    async with pair(max_queue=4) as (ws, peer):
        mask = MASK if peer.masks else None
        await peer.send_bytes(
            b"".join(frame(TEXT, b"%d" % number, mask=mask) for number in range(6))
            + frame(0x8, close_payload(4000), mask=mask)
        )
        await anyio.wait_all_tasks_blocked()
        ws.abort()
        await ws.wait_closed()
        assert ws.close_code == 1006
        assert [await ws.recv() for _ in range(4)] == ["0", "1", "2", "3"]
        while not isinstance(error := await _received(ws), anyws.ConnectionClosed):
            pass
        assert error.code == ws.close_code == 1006


async def _received(ws: anyws.Connection) -> object:
    try:
        return await ws.recv()
    except anyws.ConnectionClosed as exc:
        return exc


# The end by send_eof().


@both_roles
async def test_send_eof_sends_a_close_frame_and_does_not_wait(pair: Pair) -> None:
    async with pair() as (ws, peer):
        with takes(0):
            await ws.send_eof()
        assert (await peer.read_frame()).payload == b"\x03\xe8"
        assert not ws.open


@both_roles
async def test_what_comes_after_send_eof_is_received(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await ws.send_eof()
        await peer.send(TEXT, b"Hello")
        assert await ws.recv() == "Hello"
        await peer.send(TEXT, b"again")
        await closes_well(peer)
        assert [message async for message in ws] == ["again"]


@both_roles
async def test_all_that_comes_after_send_eof_is_received_though_the_queue_holds_less(
    pair: Pair,
) -> None:
    sent = [str(number) for number in range(200)]
    async with pair(max_queue=4) as (ws, peer):
        await ws.send_eof()
        for text in sent:
            await peer.send(TEXT, text.encode())
        await anyio.sleep(1)
        received: list[str | bytes] = []
        async with background(closes_well, peer):
            async for message in ws:
                received.append(message)
                await checkpoint()
        assert received == sent


@both_roles
async def test_pings_after_send_eof_are_not_answered(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await ws.send_eof()
        await peer.send(PING, b"late")
        await peer.send(PONG)
        await peer.send_close()
        await peer.stream.send_eof()
        assert [close.code for close in await read_closes(peer)] == [1000]
        await peer.finish()
        await ws.wait_closed()


@both_roles
async def test_send_after_send_eof_tells_how_it_ended_once_that_is_known(pair: Pair) -> None:
    async def answer() -> None:
        await anyio.sleep(2)
        await peer.send_close(4000)

    async with pair() as (ws, peer), background(answer):
        await ws.send_eof()
        with takes(2), pytest.raises(anyws.ConnectionClosedError, match="then received 4000"):
            await ws.send("Hello")


@both_roles
@pytest.mark.behaviour(29)
async def test_send_eof_twice_sends_one_close_frame(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await ws.send_eof()
        await ws.send_eof()
        await peer.send_close()
        await peer.stream.send_eof()
        assert len(await read_closes(peer)) == 1
