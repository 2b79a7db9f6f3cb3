"""How every transport ends: by abort, by loss, and not by cancellation; see `transports`."""

from __future__ import annotations

import math
import socket
import struct
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import CancelScope, create_task_group, fail_after, move_on_after
from anyio.abc import SocketAttribute

from tests.transports import (
    DATA,
    FLOOD,
    KINDS,
    LIMIT,
    Kind,
    Run,
    fill,
    opened,
    read_exactly,
    read_until_end,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyws._transports import Transport

pytestmark = pytest.mark.anyio


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


WITH_RESETS = pytest.mark.parametrize(
    "kind", [name for name, kind in KINDS.items() if kind.has_resets], indirect=True
)


# Cancellation from outside, and the end at once.


@pytest.mark.behaviour(75)
async def test_reading_and_writing_go_on_when_an_outer_scope_is_cancelled(kind: Kind) -> None:
    with fail_after(LIMIT):
        async with kind.link() as link:
            run = Run(link.transport)
            async with create_task_group() as outer:
                link.transport.start(run, outer)
                link.transport.write(DATA)
                await settle()
                outer.cancel_scope.cancel()
                with CancelScope(shield=True):
                    assert await read_exactly(link.peer, FLOOD) == DATA
                    await link.peer.send(b"Hello")
                    await run.receive(5)
                    assert not run.read.is_set()
                    assert not run.written.is_set()
                    link.transport.abort()
                    await run.read.wait()
                    await run.written.wait()
            await link.transport.aclose()


async def nothing(transport: Transport) -> None:
    """Abort it while it waits for whatever comes."""


async def stuck_writing(transport: Transport) -> None:
    """Abort it while the peer does not read."""
    await fill(transport)


async def paused(transport: Transport) -> None:
    """Abort it while it does not read."""
    transport.pause_reading()
    await settle()


async def ending(transport: Transport) -> None:
    """Abort it when its half has ended."""
    transport.write_eof()
    await settle()


async def ending_behind_a_flood(transport: Transport) -> None:
    """Abort it before its half has ended."""
    await fill(transport)
    transport.write_eof()
    await settle()


@pytest.mark.behaviour(90)
@pytest.mark.parametrize("stage", [nothing, stuck_writing, paused, ending, ending_behind_a_flood])
async def test_abort_ends_all_at_any_stage(
    kind: Kind, stage: Callable[[Transport], Awaitable[None]]
) -> None:
    with fail_after(LIMIT):
        async with kind.link() as link:
            transport = link.transport
            run = Run(transport)
            async with create_task_group() as tg:
                transport.start(run, tg)
                await settle()
                await stage(transport)
                transport.abort()
                await run.read.wait()
                await run.written.wait()
            assert (run.read_error, run.write_error) == (None, None)
            transport.abort()
            transport.write(b"dropped")
            transport.write_latest(b"dropped")
            transport.write_eof()
            await transport.aclose()
            received = await read_until_end(link.peer)
            assert b"dropped" not in received
            assert DATA.startswith(received)


async def test_abort_before_the_transport_runs_ends_it_at_once(kind: Kind) -> None:
    with fail_after(LIMIT):
        async with kind.link() as link:
            link.transport.write(b"dropped")
            link.transport.abort()
            run = Run(link.transport)
            async with create_task_group() as tg:
                link.transport.start(run, tg)
                await run.read.wait()
                await run.written.wait()
            await link.transport.aclose()
            assert (run.read_error, run.write_error) == (None, None)
            assert await read_until_end(link.peer) == b""


async def test_abort_lets_those_who_drain_go(kind: Kind) -> None:
    async with opened(kind) as (_, transport, _link):
        await fill(transport)
        results: list[bool] = []

        async def drain() -> None:
            results.append(await transport.drain(0))

        async with create_task_group() as tg:
            tg.start_soon(drain)
            await settle()
            transport.abort()
        assert results == [False]
        assert not await transport.drain(0)


@pytest.mark.behaviour(90)
async def test_close_after_abort_waits_for_nobody(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        await fill(transport)
        transport.abort()
        await run.written.wait()
        with move_on_after(1) as scope:
            await transport.aclose()
        assert not scope.cancelled_caught
        await link.below.aclose()


# Loss.


@pytest.mark.behaviour(91)
@WITH_RESETS
async def test_loss_ends_reading_with_an_error(kind: Kind) -> None:
    async with opened(kind) as (run, _, link):
        await link.peer.send(b"Hello")
        await run.receive(5)
        if link.below is link.peer:
            linger = struct.pack("ii", 1, 0)  # closing sends a reset
            raw = link.below.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await link.below.aclose()
        await run.read.wait()
        assert isinstance(run.read_error, (anyio.BrokenResourceError, OSError))
        assert run.received == b"Hello"


async def test_loss_ends_writing_with_an_error(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        await fill(transport)
        results: list[bool] = []

        async def drain() -> None:
            results.append(await transport.drain(0))

        async with create_task_group() as tg:
            tg.start_soon(drain)
            await settle()
            await link.below.aclose()
        assert results == [False]
        await run.written.wait()
        assert isinstance(run.write_error, (anyio.BrokenResourceError, OSError))
        size = transport.write_buffer_size
        transport.write(b"dropped")
        transport.write_latest(b"dropped")
        assert transport.write_buffer_size == size
        assert not await transport.drain(0)


async def test_end_of_our_half_after_the_loss_is_no_error(kind: Kind) -> None:
    async with opened(kind) as (run, transport, link):
        await link.below.aclose()
        await run.read.wait()
        transport.write_eof()
        await run.written.wait()
        assert run.write_error is None


# The timer, and the end without waiting.


async def test_timer_calls_back_once_at_the_last_deadline_that_was_set(kind: Kind) -> None:
    async with opened(kind) as (_, transport, _link):
        called: list[str] = []
        done = anyio.Event()

        def call_back() -> None:
            called.append("last")
            done.set()

        now = anyio.current_time()
        transport.set_timer(now + 0.001, lambda: called.append("first"))
        transport.set_timer(now + 1000, lambda: called.append("second"))
        transport.set_timer(now + 0.01, call_back)
        await done.wait()
        assert anyio.current_time() >= now + 0.009  # uvloop counts in steps of 1 ms
        await settle()
        assert called == ["last"]


async def test_timer_may_be_set_by_what_it_calls(kind: Kind) -> None:
    async with opened(kind) as (_, transport, _link):
        left = 3
        done = anyio.Event()

        def call_back() -> None:
            nonlocal left
            left -= 1
            if left:
                transport.set_timer(anyio.current_time(), call_back)
            else:
                done.set()

        call_back()
        await done.wait()


async def test_timer_goes_on_after_abort_until_it_is_taken_away(kind: Kind) -> None:
    async with opened(kind) as (run, transport, _link):
        done = anyio.Event()
        transport.set_timer(anyio.current_time() + 1000, done.set)
        transport.abort()
        await run.read.wait()
        await settle()
        transport.set_timer(anyio.current_time(), done.set)
        await done.wait()
        transport.set_timer(anyio.current_time(), done.set)
        transport.set_timer(math.inf, done.set)


async def test_timer_that_is_taken_away_is_quiet(kind: Kind) -> None:
    async with opened(kind) as (_, transport, _link):
        called: list[str] = []
        transport.set_timer(anyio.current_time() + 0.001, lambda: called.append("called"))
        transport.set_timer(math.inf, lambda: called.append("called"))
        done = anyio.Event()
        async with create_task_group() as tg:
            tg.start_soon(anyio.sleep, 0.01)
        transport.set_timer(anyio.current_time(), done.set)
        await done.wait()
        assert called == []


async def test_transport_that_closes_without_waiting_is_closed(kind: Kind) -> None:
    async with opened(kind) as (_, transport, link):
        assert transport.close() is kind.closes_at_once
        if kind.closes_at_once:
            assert await read_until_end(link.peer) == b""
            assert transport.close()
        else:
            # It has done nothing yet.
            transport.write(b"Hello")
            assert await read_exactly(link.peer, 5) == b"Hello"


async def test_transport_with_unsent_bytes_needs_to_wait(kind: Kind) -> None:
    async with opened(kind) as (_, transport, _link):
        await fill(transport)
        assert not transport.close()
