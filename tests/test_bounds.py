"""Connections and servers as blocks of code: what they leave behind, and how long they take to end.

Owns lines 89 and 90 of docs/behaviours.md, in memory; knows no sockets.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

import anyws
from anyws.testing import MemoryListener, memory_stream_pair
from tests import clocks
from tests.blocks import BodyError, all_blocks, background_peer, connect_and_stay, echo, settle
from tests.endings import (
    both_roles,
    closes_well,
    floods,
    never_answers,
    never_ends,
    never_reads,
    takes,
)
from tests.wire import REQUEST, TEXT, Peer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.blocks import Block
    from tests.endings import Misbehaviour, Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


# Nothing is left behind (line 89). Of sockets, conftest.py sees to that after each test.


def pending_timers(backend: str) -> list[Any]:
    """Give what the event loop still waits for in time."""
    if backend == "trio":
        seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
        return [] if math.isinf(seconds) else [seconds]
    loop = asyncio.get_running_loop()
    assert isinstance(loop, clocks.VirtualTimeLoop)
    return [timer for _, _, timer in loop._timers if not timer.cancelled()]


def count_tasks(backend: str) -> int:
    if backend == "trio":
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


async def answers_close(ws: anyws.Connection, peer: Peer) -> None:
    ws.start_soon(closes_well, peer)


async def never_answers_close(ws: anyws.Connection, peer: Peer) -> None:
    ws.start_soon(ws.recv)


async def peer_closes(ws: anyws.Connection, peer: Peer) -> None:
    await peer.send_close(4000)


async def peer_leaves(ws: anyws.Connection, peer: Peer) -> None:
    await peer.finish()


async def peer_leaves_while_we_send(ws: anyws.Connection, peer: Peer) -> None:
    ws.start_soon(ws.send, b"x" * 200_000)
    await settle()
    await peer.finish()


async def peer_breaks_the_protocol(ws: anyws.Connection, peer: Peer) -> None:
    await peer.send_bytes(b"\xff" * 20)


async def peer_stays_silent(ws: anyws.Connection, peer: Peer) -> None:
    with pytest.raises(anyws.KeepaliveTimeout):
        await ws.recv()


async def aborts(ws: anyws.Connection, peer: Peer) -> None:
    ws.abort()


async def raises(ws: anyws.Connection, peer: Peer) -> None:
    raise BodyError


async def interrupts_itself(ws: anyws.Connection, peer: Peer) -> None:
    raise KeyboardInterrupt


async def is_cancelled(ws: anyws.Connection, peer: Peer) -> None:
    await anyio.sleep_forever()


async def is_cancelled_with_a_full_buffer(ws: anyws.Connection, peer: Peer) -> None:
    ws.send_nowait(b"x" * 200_000)
    await anyio.sleep_forever()


async def has_tasks_and_waiters(ws: anyws.Connection, peer: Peer) -> None:
    waiter = await ws.ping()

    async def wait_for_pong() -> None:
        await waiter

    async def stay_in_scope() -> None:
        with ws.cancel_on_close():
            await anyio.sleep(1000)

    for task in (wait_for_pong, stay_in_scope, ws.recv, ws.wait_closed, anyio.sleep_forever):
        ws.start_soon(task)
    await settle()


async def has_a_full_inbox(ws: anyws.Connection, peer: Peer) -> None:
    for _ in range(40):
        await peer.send(TEXT, b"x")
    await settle()


async def fails_in_a_task(ws: anyws.Connection, peer: Peer) -> None:
    async def fail() -> None:
        raise BodyError

    ws.start_soon(fail)
    await ws.wait_closed()


endings = pytest.mark.parametrize(
    "ending",
    [
        answers_close,
        never_answers_close,
        peer_closes,
        peer_leaves,
        peer_leaves_while_we_send,
        peer_breaks_the_protocol,
        peer_stays_silent,
        aborts,
        raises,
        interrupts_itself,
        is_cancelled,
        is_cancelled_with_a_full_buffer,
        has_tasks_and_waiters,
        has_a_full_inbox,
        fails_in_a_task,
    ],
)


@pytest.mark.behaviour(89, 90)
@both_roles
@endings
async def test_no_task_and_no_timer_is_left_behind_by_any_ending(
    pair: Pair,
    ending: Callable[[anyws.Connection, Peer], Awaitable[None]],
    anyio_backend_name: str,
) -> None:
    tasks, start = count_tasks(anyio_backend_name), anyio.current_time()
    with suppress(BodyError, KeyboardInterrupt), anyio.move_on_after(100):
        async with pair(close_timeout=5) as (ws, peer):
            await ending(ws, peer)
    assert ws.closed
    assert count_tasks(anyio_backend_name) == tasks
    assert pending_timers(anyio_backend_name) == []
    # The longest are those that wait for the 100 seconds above, with a close_timeout behind.
    assert anyio.current_time() - start <= 105


@pytest.mark.behaviour(89)
@all_blocks
@pytest.mark.parametrize("way_out", ["normal", "error", "cancelled", "cancelled at once"])
async def test_no_task_and_no_timer_is_left_behind_by_any_block(
    block: Block, way_out: str, anyio_backend_name: str
) -> None:
    tasks = count_tasks(anyio_backend_name)
    async with block() as manager:
        with suppress(BodyError), anyio.CancelScope() as scope:
            if way_out == "cancelled at once":
                scope.cancel()
            async with manager:
                await settle()
                if way_out == "error":
                    raise BodyError
                if way_out == "cancelled":
                    scope.cancel()
                    await anyio.sleep_forever()
    assert count_tasks(anyio_backend_name) == tasks
    assert pending_timers(anyio_backend_name) == []


@pytest.mark.behaviour(89, 90)
@pytest.mark.parametrize("data", [b"", REQUEST], ids=["silent", "half a request"])
@pytest.mark.parametrize(
    ("way_out", "seconds"),
    [("client leaves", 0), ("open_timeout", 7), ("server is closed", 1), ("cancelled", 0)],
)
async def test_no_task_and_no_timer_is_left_behind_by_a_handshake_that_fails(
    data: bytes, way_out: str, seconds: float, anyio_backend_name: str
) -> None:
    tasks = count_tasks(anyio_backend_name)
    listener = MemoryListener()
    with anyio.CancelScope() as scope, takes(seconds):
        async with anyws.serve(echo, listeners=[listener], open_timeout=7):
            stream = await listener.connect()
            await stream.send(data)
            if way_out == "client leaves":
                await stream.aclose()
            elif way_out == "open_timeout":
                await Peer(stream, masks=True).read_until_eof()
            elif way_out == "cancelled":
                scope.cancel()
                await anyio.sleep_forever()
    assert count_tasks(anyio_backend_name) == tasks
    assert pending_timers(anyio_backend_name) == []
    await stream.aclose()


# Every ending is bounded (line 90).

bad_peers = pytest.mark.parametrize(
    "peer_does", [never_reads, never_answers, never_ends, floods], ids=lambda func: func.__name__
)


@contextmanager
def takes_at_most(seconds: float) -> Iterator[None]:
    start = anyio.current_time()
    yield
    assert anyio.current_time() - start <= seconds


@pytest.mark.behaviour(90)
@both_roles
@bad_peers
@pytest.mark.parametrize("unsent", [0, 200_000])
async def test_leaving_the_block_takes_close_timeout_at_most(
    pair: Pair, peer_does: Misbehaviour, unsent: int
) -> None:
    async with background_peer() as start:
        with takes_at_most(5):
            async with pair(close_timeout=5) as (ws, peer):
                start(peer_does, peer)
                ws.send_nowait(b"x" * unsent)
        with takes_at_most(5), pytest.raises(BodyError):
            async with pair(close_timeout=5) as (ws, peer):
                start(peer_does, peer)
                ws.send_nowait(b"x" * unsent)
                raise BodyError


@pytest.mark.behaviour(90)
@both_roles
@bad_peers
@pytest.mark.parametrize("unsent", [0, 200_000])
@pytest.mark.parametrize("close_timeout", [5, None])
async def test_cancellation_ends_the_block_at_once(
    pair: Pair, peer_does: Misbehaviour, unsent: int, close_timeout: float | None
) -> None:
    async with background_peer() as start:
        with takes(2), anyio.move_on_after(2) as scope:
            async with pair(close_timeout=close_timeout) as (ws, peer):
                start(peer_does, peer)
                ws.send_nowait(b"x" * unsent)
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert ws.closed


@pytest.mark.behaviour(90)
@both_roles
@pytest.mark.parametrize("peer_does", [never_reads, never_answers, floods])
@pytest.mark.parametrize("error", [None, BodyError()])
async def test_cancellation_ends_at_once_what_leaving_the_block_waits_for(
    pair: Pair, peer_does: Misbehaviour, error: BodyError | None
) -> None:
    async with background_peer() as start:
        with takes(2), suppress(BodyError), anyio.move_on_after(2):
            async with pair(close_timeout=None) as (ws, peer):
                start(peer_does, peer)
                ws.send_nowait(b"x" * 200_000)
                if error is not None:
                    raise error
        assert ws.closed


@pytest.mark.behaviour(90)
@both_roles
@pytest.mark.parametrize("peer_does", [never_reads, never_answers, floods])
async def test_time_of_a_cancelled_close_counts_when_the_block_is_left(
    pair: Pair, peer_does: Misbehaviour
) -> None:
    async with background_peer() as start:
        with takes(5):
            async with pair(close_timeout=5) as (ws, peer):
                start(peer_does, peer)
                ws.send_nowait(b"x" * 200_000)
                with takes(1), anyio.move_on_after(1):
                    await ws.close()
                with takes(1), anyio.move_on_after(1):
                    await ws.wait_closed()
                with takes(1), anyio.move_on_after(1), suppress(anyws.ConnectionClosed):
                    await ws.send("never")
                with takes(2):
                    await ws.wait_closed()


@pytest.mark.behaviour(90)
@both_roles
async def test_waits_end_with_the_connection_when_the_close_is_cancelled(pair: Pair) -> None:
    ended = []

    async def wait(func: Callable[[], Awaitable[Any]]) -> None:
        with pytest.raises(anyws.ConnectionClosedError):
            await func()
        ended.append(anyio.current_time() - began)

    async with pair(close_timeout=5) as (ws, _):
        waiter = await ws.ping()
        ws.send_nowait(b"x" * 200_000)

        async def wait_for_pong() -> None:
            await waiter

        async with anyio.create_task_group() as tg:
            tg.start_soon(wait, ws.recv)
            tg.start_soon(wait, wait_for_pong)
            tg.start_soon(wait, lambda: ws.send("waits"))
            tg.start_soon(wait, lambda: ws.send(["waits", "too"]))
            await settle()
            began = anyio.current_time()
            with anyio.move_on_after(0):
                await ws.close()
    assert ended == pytest.approx([5, 5, 5, 5])


class HangingStream(ByteStream):
    """A stream whose calls of one name never return."""

    def __init__(self, stream: ByteStream, name: str) -> None:
        self._stream = stream
        self._name = name

    async def _hang(self, name: str) -> None:
        if name == self._name:
            await anyio.sleep_forever()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._stream.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._hang("send_eof")
        await self._stream.send_eof()

    async def aclose(self) -> None:
        try:
            await self._hang("aclose")
        finally:
            await self._stream.aclose()


@pytest.mark.behaviour(90)
@pytest.mark.parametrize("name", ["aclose", "send_eof"])
@pytest.mark.parametrize("way_out", ["normal", "error", "cancelled", "cancelled later"])
async def test_block_is_left_in_time_when_its_stream_hangs(name: str, way_out: str) -> None:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    peer = Peer(far, masks=True)
    async with background_peer() as start:
        seconds = {"cancelled": 0, "cancelled later": 2}.get(way_out, 5)
        with takes_at_most(seconds), suppress(BodyError), anyio.CancelScope() as scope:
            async with anyws.wrap_server(HangingStream(near, name), close_timeout=5) as ws:
                await peer.read_until(b"\r\n\r\n")
                start(closes_well, peer)
                if way_out == "error":
                    raise BodyError
                if way_out == "cancelled":
                    scope.cancel()
                if way_out == "cancelled later":
                    scope.deadline = anyio.current_time() + 2
        assert ws.closed


@pytest.mark.behaviour(90)
@pytest.mark.parametrize("name", ["aclose", "send_eof"])
@pytest.mark.parametrize("way_out", ["cancelled", "aborted"])
async def test_giving_up_ends_at_once_what_a_stream_that_hangs_waits_for(
    name: str, way_out: str
) -> None:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    peer = Peer(far, masks=True)
    async with background_peer() as start:
        with anyio.CancelScope() as scope:
            async with anyws.wrap_server(HangingStream(near, name), close_timeout=None) as ws:
                await peer.read_until(b"\r\n\r\n")
                start(closes_well, peer)
                with anyio.move_on_after(0.5):
                    await ws.close()
                assert not ws.closed
                began = anyio.current_time()
                if way_out == "aborted":
                    ws.abort()
                else:
                    scope.cancel()
        assert ws.closed
        assert anyio.current_time() == began


async def stays(ws: anyws.Connection) -> None:
    await anyio.sleep_forever()


@pytest.mark.behaviour(90)
@pytest.mark.parametrize(
    ("way_out", "seconds"), [("normal", 10), ("error", 0), ("cancelled", 0), ("cancelled later", 3)]
)
async def test_server_is_left_in_time_when_a_handler_does_not_look_at_its_connection(
    way_out: str, seconds: float
) -> None:
    async with anyio.create_task_group() as tg:
        listener = MemoryListener()
        tg.start_soon(connect_and_stay, listener)
        with takes(seconds), suppress(BodyError), anyio.CancelScope() as scope:
            async with anyws.serve(stays, listeners=[listener]) as server:
                while not server.connections:
                    await checkpoint()
                if way_out == "error":
                    raise BodyError
                if way_out == "cancelled":
                    scope.cancel()
                    await anyio.sleep_forever()
                if way_out == "cancelled later":
                    scope.deadline = anyio.current_time() + 3


@pytest.mark.behaviour(90)
async def test_cancelled_close_of_a_server_cancels_its_handlers_at_once() -> None:
    listener = MemoryListener()
    async with anyws.serve(stays, listeners=[listener]) as server:
        async with anyws.wrap_client(await listener.connect()) as ws:
            with takes(2), anyio.move_on_after(2):
                await server.close(grace=100)
            with takes(0):
                await ws.wait_closed()
