"""What `server.stats` counts: those that were served, and those that were not."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import anyio
import pytest

import anyws
from anyws import _stats
from tests.endings import closes_well
from tests.sockets import open_peer, serving_memory
from tests.wire import REQUEST, TEXT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.wire import Peer

    Connect = Callable[..., Awaitable[Peer]]

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

NOBODY = anyws.ServerStats(accepted=0, opened=0, open=0, refused={}, failed=0, total=anyws.Stats())


async def talk(connect: Connect, *messages: bytes) -> None:
    """Open a connection, send messages that are echoed, and close it."""
    peer = await connect()
    await open_peer(peer)
    for message in messages:
        await peer.send(TEXT, message)
        assert (await peer.read_frame()).payload == message
    await leave(peer)


async def leave(peer: Peer) -> None:
    """Close a connection, and wait until the server has taken that."""
    await peer.send_close()
    await peer.read_until_eof()
    await peer.finish()
    await anyio.sleep(0.1)


async def test_all_is_0_before_anybody_comes() -> None:
    async with serving_memory() as (server, _):
        assert server.stats == NOBODY


async def test_open_and_past_connections_are_summed() -> None:
    async with serving_memory(compression=None) as (server, connect):
        await talk(connect, b"a", b"bc")
        await talk(connect, b"abc")
        peer = await connect()
        await open_peer(peer)
        await peer.send(TEXT, b"x" * 100)
        assert (await peer.read_frame()).payload == b"x" * 100
        stats = server.stats
        assert (stats.accepted, stats.opened, stats.open) == (3, 3, 1)
        assert (stats.refused, stats.failed) == ({}, 0)
        total = stats.total
        assert (total.messages_received, total.bytes_received) == (4, 106)
        assert (total.messages_sent, total.bytes_sent) == (4, 106)
        assert total.wire_bytes_received == 106 + 4 * 6 + 2 * 8
        assert total.wire_bytes_sent == 106 + 4 * 2 + 2 * 4
        # Not their sums.
        assert (total.peak_inbox_messages, total.peak_inbox_bytes) == (1, 100)
        await leave(peer)
        assert server.stats.open == 0
        assert server.stats.total.messages_received == 4
    assert server.stats.total.bytes_sent == 106


@pytest.mark.parametrize("many", [1, 2, 5])
async def test_past_connections_are_summed_however_many_there_are(
    many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_stats, "_BATCH", 3)
    async with serving_memory(compression=None) as (server, connect):
        for _ in range(many):
            await talk(connect, b"abc")
        stats = server.stats
        assert (stats.opened, stats.open) == (many, 0)
        assert (stats.total.messages_sent, stats.total.bytes_received) == (many, 3 * many)
        assert stats.total.peak_inbox_messages == 1


async def test_connection_that_is_closing_is_not_open_and_counts() -> None:
    async with serving_memory() as (server, connect):
        peer = await connect()
        await open_peer(peer)
        await peer.send(TEXT, b"abc")
        await peer.read_frame()
        await peer.send_close()
        await anyio.sleep(0.5)  # the server waits a second for the end of the stream
        assert (server.stats.opened, server.stats.open) == (1, 0)
        assert server.stats.total.messages_received == 1
        await peer.finish()


async def test_past_connections_are_not_kept() -> None:
    gone: list[weakref.ref[anyws.Connection]] = []

    async def handler(ws: anyws.Connection) -> None:
        gone.append(weakref.ref(ws))

    async with serving_memory(handler) as (server, connect):
        peer = await connect()
        await open_peer(peer)
        await closes_well(peer)
        await anyio.sleep(1)
        gc.collect()
        assert server.stats.opened == 1
        assert [ref() for ref in gone] == [None]


async def test_refused_requests_are_counted_by_their_status() -> None:
    def refuse(request: anyws.Request) -> anyws.Response | None:
        return request.respond(418) if request.path == "/teapot" else None

    async with serving_memory(process_request=refuse, max_connections=0) as (server, connect):
        for _ in range(2):
            peer = await connect()
            await peer.send_bytes(REQUEST + b"\r\n")
            assert b" 503 " in await peer.read_until_eof()
            await peer.finish()
        await anyio.sleep(1)
        assert server.stats.refused == {503: 2}
    async with serving_memory(process_request=refuse, origins=["https://a"]) as (server, connect):
        for head in (
            REQUEST.replace(b"/chat", b"/teapot"),
            REQUEST + b"Origin: https://b\r\n",
            b"GET / HTTP/1.1\r\n",
        ):
            peer = await connect()
            await peer.send_bytes(head + b"\r\n")
            await peer.read_until_eof()
            await peer.finish()
        await anyio.sleep(1)
        stats = server.stats
        assert stats.refused == {418: 1, 403: 1, 400: 1}
        assert (stats.accepted, stats.opened, stats.failed) == (3, 0, 0)


async def test_handshake_that_comes_to_nothing_has_failed() -> None:
    async with serving_memory(open_timeout=5) as (server, connect):
        gone = await connect()
        await gone.finish()
        silent = await connect()
        await anyio.sleep(1)
        assert (server.stats.accepted, server.stats.failed) == (2, 1)  # the other is under way
        await silent.read_until_eof()
        assert (server.stats.accepted, server.stats.failed) == (2, 2)
        assert server.stats.refused == {}


async def test_half_open_handshake_is_refused_when_the_server_closes() -> None:
    async with serving_memory() as (server, connect):
        peer = await connect()
        await peer.send_bytes(REQUEST)
        await anyio.sleep(1)
        await server.close()
        assert b" 503 " in await peer.read_until_eof()
    assert server.stats.refused == {503: 1}


async def test_connection_whose_answer_cannot_leave_has_failed() -> None:
    async def hang_up(request: anyws.Request) -> None:
        await peer.finish()

    async with serving_memory(process_request=hang_up) as (server, connect):
        peer = await connect()
        await peer.send_bytes(REQUEST + b"\r\n")
        await anyio.sleep(1)
        assert (server.stats.opened, server.stats.failed) == (0, 1)
