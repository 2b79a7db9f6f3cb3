"""Cancelling recv(): at any byte and at any turn of the event loop, nothing is lost."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint

import anyws
from tests.endings import both_roles
from tests.receiving import RSV1, SNOWMAN, deflated_too, draw, receive_all
from tests.wire import BINARY, CLOSE, CONT, PING, TEXT, Peer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


def _sample(peer: Peer, compressor: Any) -> tuple[bytes, list[str | bytes]]:
    """Give the bytes of messages of all kinds, and the messages."""
    rsv = 0
    fragments = [SNOWMAN[:1], SNOWMAN[1:], b"b"]
    if compressor is not None:
        rsv = RSV1
        payload = compressor.compress(SNOWMAN + b"b") + compressor.flush(zlib.Z_SYNC_FLUSH)
        fragments = [payload[:1], payload[1:2], payload[2:-4]]
    data = b"".join(
        [
            draw(peer, TEXT, SNOWMAN),
            draw(peer, BINARY),
            draw(peer, TEXT, fragments[0], fin=False, rsv=rsv),
            draw(peer, PING, b"p"),
            draw(peer, CONT, fragments[1], fin=False),
            draw(peer, CONT, fragments[2]),
            draw(peer, BINARY, b"\xff\xfe"),
        ]
    )
    return data, ["\N{SNOWMAN}", b"", "\N{SNOWMAN}b", b"\xff\xfe"]


def _compressor(options: dict[str, Any]) -> Any:
    return zlib.compressobj(wbits=-15) if options else None


@pytest.mark.behaviour(52)
@both_roles
@deflated_too
async def test_cancelling_recv_loses_nothing_at_any_byte(
    pair: Pair, options: dict[str, Any]
) -> None:
    async with pair(**options) as (ws, peer):
        compressor = _compressor(options)
        for split in range(70):  # more than the bytes of a sample
            data, expected = _sample(peer, compressor)
            await peer.send_bytes(data[:split])
            messages = await receive_all(ws)  # which ends by cancelling it
            await peer.send_bytes(data[split:])
            assert messages + await receive_all(ws) == expected


async def _dribble(peer: Peer, data: bytes) -> None:
    for index in range(len(data)):
        await peer.send_bytes(data[index : index + 1])


async def _cancel_after(scope: anyio.CancelScope, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await checkpoint()
    scope.cancel()


@pytest.mark.behaviour(52)
@both_roles
@deflated_too
@pytest.mark.parametrize("checkpoints", range(8))
async def test_cancelling_recv_again_and_again_loses_nothing_while_bytes_come(
    pair: Pair, options: dict[str, Any], checkpoints: int
) -> None:
    async with pair(**options) as (ws, peer), anyio.create_task_group() as tasks:
        data, expected = _sample(peer, _compressor(options))
        tasks.start_soon(_dribble, peer, data)
        messages: list[str | bytes] = []
        while len(messages) < len(expected):
            with anyio.CancelScope() as scope:
                tasks.start_soon(_cancel_after, scope, checkpoints)
                messages.append(await ws.recv())
            await checkpoint()
        assert messages == expected


@pytest.mark.behaviour(52)
@both_roles
async def test_cancelling_recv_at_each_turn_loses_nothing_of_a_full_queue(pair: Pair) -> None:
    async with pair(max_queue=4) as (ws, peer):
        expected = [b"%d" % i for i in range(16)]
        for checkpoints in range(16):
            messages: list[str | bytes] = []
            async with anyio.create_task_group() as tasks:
                chunk = b"".join(draw(peer, BINARY, message) for message in expected)
                tasks.start_soon(peer.send_bytes, chunk)
                with anyio.CancelScope() as scope:
                    tasks.start_soon(_cancel_after, scope, checkpoints)
                    while True:
                        messages.append(await ws.recv())
            assert messages + await receive_all(ws) == expected


@pytest.mark.behaviour(42, 52)
@both_roles
@pytest.mark.parametrize("checkpoints", range(16))
async def test_cancelled_recv_leaves_one_message_over_a_full_queue_at_most(
    pair: Pair, checkpoints: int
) -> None:
    expected = [b"%d" % i for i in range(4)]
    async with pair(max_queue=1) as (ws, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(_dribble, peer, b"".join(draw(peer, BINARY, data) for data in expected))
        messages: list[str | bytes] = []
        with anyio.CancelScope() as scope:
            tasks.start_soon(_cancel_after, scope, checkpoints)
            messages.append(await ws.recv())
        await anyio.sleep(1)
        assert ws.stats.messages_received <= len(messages) + 2
        assert messages + await receive_all(ws) == expected


@pytest.mark.behaviour(52)
@both_roles
async def test_cancelled_recv_takes_no_more_than_64_messages_and_loses_none(pair: Pair) -> None:
    async with pair(max_queue=None) as (ws, peer):
        expected = [b"%d" % i for i in range(200)]
        await peer.send_bytes(b"".join(draw(peer, BINARY, message) for message in expected))
        await anyio.sleep(1)
        messages: list[str | bytes] = []
        with anyio.CancelScope() as scope:
            scope.cancel()
            while True:
                messages.append(await ws.recv())
        assert len(messages) <= 64
        assert messages + await receive_all(ws) == expected


@pytest.mark.behaviour(52)
@both_roles
async def test_cancelling_recv_as_the_connection_closes_still_raises_closed_later(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer), anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(_send_and_cancel, peer, scope)
            await ws.recv()
        assert scope.cancelled_caught
        with pytest.raises(anyws.ConnectionClosedOK):
            await ws.recv()


async def _send_and_cancel(peer: Peer, scope: anyio.CancelScope) -> None:
    await peer.send_close()
    scope.cancel()


@pytest.mark.behaviour(53)
@both_roles
async def test_time_outs_of_anyio_work_around_recv(pair: Pair) -> None:
    async with pair() as (ws, peer):
        with anyio.move_on_after(1) as scope:
            await ws.recv()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError), anyio.fail_after(1):
            await ws.recv()
        await peer.send(TEXT, b"late")
        with anyio.fail_after(1):
            assert await ws.recv() == "late"


@pytest.mark.behaviour(53)
@both_roles
async def test_recv_gives_all_that_waits_when_the_time_is_over_before_each_call(pair: Pair) -> None:
    async with pair(max_queue=None) as (ws, peer):
        expected = [b"%d" % i for i in range(200)]
        await peer.send_bytes(b"".join(draw(peer, BINARY, message) for message in expected))
        await anyio.sleep(1)
        messages: list[str | bytes] = []
        for _ in range(210):  # each 65th call lets others run, and is cancelled there
            with anyio.move_on_after(0):
                messages.append(await ws.recv())
        assert messages == expected


@pytest.mark.behaviour(53)
@both_roles
@pytest.mark.parametrize("receive", [anyws.Connection.recv, anyws.Connection.__anext__])
async def test_end_is_told_when_the_time_is_over_before_each_call(
    pair: Pair, receive: Callable[[anyws.Connection], Awaitable[str | bytes]]
) -> None:
    async with pair() as (ws, peer):
        await peer.send_bytes(draw(peer, BINARY, b"last") + draw(peer, CLOSE, b"\x03\xeb"))
        await anyio.sleep(1)
        errors = 0
        for _ in range(140):  # each 65th call lets others run, and is cancelled there
            with anyio.move_on_after(0):
                try:
                    assert await receive(ws) == b"last"
                except anyws.ConnectionClosedError:
                    errors += 1
        assert errors == 137


@pytest.mark.behaviour(53)
@both_roles
async def test_time_outs_of_the_event_loop_work_around_recv(
    pair: Pair, anyio_backend_name: str
) -> None:
    async with pair() as (ws, peer):
        if anyio_backend_name == "trio":
            with pytest.raises(trio.TooSlowError), trio.fail_after(1):
                await ws.recv()
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await ws.recv()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ws.recv(), 1)
        await peer.send(TEXT, b"late")
        assert await ws.recv() == "late"
