"""The closing handshake that the peer begins, and what a connection tells of itself meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

import anyws
from tests.endings import background, both_roles, closes_well, read_closes, takes
from tests.wire import BINARY, CLOSE, MASK, PING, TEXT, close_payload, frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


# The peer begins it.


@both_roles
@pytest.mark.behaviour(28)
@pytest.mark.parametrize(
    "payload", [b"", b"\x03\xe8", close_payload(1001, "bye"), close_payload(4999, "x" * 123)]
)
async def test_close_frame_of_the_peer_is_echoed_then_tcp_ends(pair: Pair, payload: bytes) -> None:
    async with pair() as (ws, peer):
        await peer.send(CLOSE, payload)
        close = await peer.read_frame()
        assert (close.opcode, close.payload, close.fin, close.rsv) == (CLOSE, payload, True, 0)
        if not peer.masks:
            await peer.stream.send_eof()
        assert await peer.read_until_eof() == b""
        await peer.finish()
        with takes(0):
            await ws.wait_closed()


@both_roles
@pytest.mark.behaviour(28)
async def test_close_frame_of_the_peer_is_echoed_when_it_comes_byte_by_byte(pair: Pair) -> None:
    async with pair() as (_, peer):
        mask = MASK if peer.masks else None
        for byte in frame(CLOSE, close_payload(1000, "bye"), mask=mask):
            await peer.send_bytes(bytes([byte]))
            await anyio.wait_all_tasks_blocked()
        assert (await peer.read_frame()).payload == close_payload(1000, "bye")


@both_roles
@pytest.mark.behaviour(28)
async def test_close_frame_of_the_peer_is_echoed_between_the_fragments_of_our_message(
    pair: Pair,
) -> None:
    async def send() -> None:
        with pytest.raises(anyws.ConnectionClosedOK):
            await ws.send(items())

    async def items() -> AsyncIterator[str]:
        yield "Hel"
        await anyio.sleep(1)
        yield "lo"

    async with pair() as (ws, peer), background(send):
        assert (await peer.read_frame()).payload == b"Hel"
        await peer.send_close()
        assert (await peer.read_frame()).code == 1000
        await peer.stream.send_eof()
        assert await peer.read_until_eof() == b""
        await anyio.sleep(2)


@both_roles
@pytest.mark.behaviour(28, 86)
async def test_close_frame_of_the_peer_is_echoed_without_a_recv(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"Hello")
        await peer.send_close()
        assert (await peer.read_frame()).code == 1000
        await peer.stream.send_eof()
        await ws.wait_closed()
        assert await ws.recv() == "Hello"


@both_roles
@pytest.mark.behaviour(28, 91)
async def test_close_frame_of_a_peer_that_is_gone_at_once_is_told(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as (ws, peer):
        await peer.send_close(1001, "bye")
        await peer.finish()
        with takes(0):
            await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (1001, "bye")
        with pytest.raises(anyws.ConnectionClosed, match="received 1001"):
            await ws.recv()
    assert caplog.records == []


@both_roles
@pytest.mark.behaviour(30)
async def test_data_after_a_close_frame_is_ignored(pair: Pair) -> None:
    async with pair() as (ws, peer):
        mask = MASK if peer.masks else None
        await peer.send_bytes(
            frame(CLOSE, close_payload(1000), mask=mask)
            + frame(TEXT, b"late", mask=mask)
            + frame(PING, b"late", mask=mask)
            + frame(CLOSE, close_payload(4000), mask=mask)
            + b"\xff" * 100
        )
        with pytest.raises(anyws.ConnectionClosedOK):
            await ws.recv()
        await peer.send(BINARY, b"later")
        await peer.send(0x3)
        await peer.stream.send_eof()
        await ws.wait_closed()
        assert [close.code for close in await read_closes(peer)] == [1000]
        assert (ws.close_code, ws.close_reason) == (1000, "")
        with pytest.raises(anyws.ConnectionClosedOK):
            await ws.recv()


@both_roles
@pytest.mark.behaviour(30)
async def test_no_message_is_given_after_a_connection_closed(pair: Pair) -> None:
    async def items() -> AsyncIterator[str]:
        yield "Hel"
        raise ZeroDivisionError

    async with pair() as (ws, peer), background(peer.read_until_eof):
        with pytest.raises(ZeroDivisionError):
            await ws.send(items())
        with pytest.raises(anyws.ConnectionClosedError):
            await ws.recv()
        await peer.send(TEXT, b"late")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyws.ConnectionClosedError):
            await ws.recv()


@both_roles
async def test_close_frames_that_cross_end_the_connection(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send_close(4001)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.close, 4002)
            assert (await peer.read_frame()).opcode == CLOSE
            if not peer.masks:
                await peer.stream.send_eof()
            assert await peer.read_until_eof() == b""
            await peer.finish()
        assert ws.close_code == 4001


# What is told meanwhile.


@both_roles
@pytest.mark.behaviour(34, 36)
async def test_connection_is_neither_open_nor_closed_while_we_close_it(pair: Pair) -> None:
    async with pair() as (ws, peer):
        assert (ws.open, ws.closed, ws.state) == (True, False, anyws.State.OPEN)
        assert (ws.close_code, ws.close_reason) == (None, None)
        await ws.send_eof()
        assert (ws.open, ws.closed, ws.state) == (False, False, anyws.State.CLOSING)
        assert (ws.close_code, ws.close_reason) == (None, None)
        await closes_well(peer)
        await ws.wait_closed()
        assert (ws.open, ws.closed, ws.state) == (False, True, anyws.State.CLOSED)
        assert (ws.close_code, ws.close_reason) == (1000, "")


@both_roles
@pytest.mark.behaviour(34, 36)
async def test_connection_is_neither_open_nor_closed_while_the_peer_closes_it(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send_close(4000, "bye")
        await peer.read_frame()
        assert (ws.open, ws.closed, ws.state) == (False, False, anyws.State.CLOSING)
        assert (ws.close_code, ws.close_reason) == (None, None)
        await peer.stream.send_eof()
        await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (4000, "bye")


@both_roles
@pytest.mark.behaviour(36)
async def test_connection_is_neither_open_nor_closed_after_an_error_of_the_peer(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        await peer.send(0x3)
        await peer.read_frame()
        assert (ws.open, ws.closed) == (False, False)
        await peer.finish()
        await ws.wait_closed()
        assert (ws.open, ws.closed) == (False, True)
