"""ConnectionClosed: which of its classes is raised, what it carries and what it says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import anyio
import pytest

import anyws
from tests.endings import background, both_roles, closes_well, fails_to_receive
from tests.wire import CLOSE, TEXT, close_payload

if TYPE_CHECKING:
    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


# A Close frame without a code.


@both_roles
@pytest.mark.behaviour(33)
async def test_close_frame_without_payload_is_1005_and_counts_as_ok(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send(CLOSE)
        error = await fails_to_receive(ws)
        assert isinstance(error, anyws.ConnectionClosedOK)
        await peer.stream.send_eof()
        await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (1005, "")


@both_roles
@pytest.mark.behaviour(33, 58)
async def test_close_frame_without_payload_ends_an_iteration(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"Hello")
        await peer.send(CLOSE)
        assert [message async for message in ws] == ["Hello"]
        await peer.stream.send_eof()


# What a ConnectionClosed says.


@both_roles
@pytest.mark.behaviour(35)
@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", "received 1005 (no status received); then sent 1005 (no status received)"),
        (close_payload(1000), "received 1000 (OK); then sent 1000 (OK)"),
        (
            close_payload(1001, "bye"),
            "received 1001 (going away) bye; then sent 1001 (going away) bye",
        ),
        (close_payload(3000), "received 3000 (registered); then sent 3000 (registered)"),
        (
            close_payload(4000, "\u00e9t\u00e9"),
            "received 4000 (private use) \u00e9t\u00e9; then sent 4000 (private use) \u00e9t\u00e9",
        ),
    ],
)
async def test_error_tells_the_close_frame_of_the_peer_first(
    pair: Pair, payload: bytes, expected: str
) -> None:
    async with pair() as (ws, peer):
        await peer.send(CLOSE, payload)
        error = await fails_to_receive(ws)
        assert str(error) == expected
        assert error.rcvd_then_sent is True
        await peer.stream.send_eof()


@both_roles
@pytest.mark.behaviour(35)
@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (1000, "", "sent 1000 (OK); then received 1000 (OK)"),
        (1001, "bye", "sent 1001 (going away) bye; then received 1001 (going away) bye"),
        (1011, "", "sent 1011 (internal error); then received 1011 (internal error)"),
        (4999, "", "sent 4999 (private use); then received 4999 (private use)"),
    ],
)
async def test_error_tells_our_close_frame_first(
    pair: Pair, code: int, reason: str, expected: str
) -> None:
    async with pair() as (ws, peer), background(closes_well, peer):
        await ws.close(code, reason)
        error = await fails_to_receive(ws)
        assert str(error) == expected
        assert error.rcvd_then_sent is False


@both_roles
@pytest.mark.behaviour(35)
async def test_error_tells_an_answer_with_another_code(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await ws.send_eof()
        await peer.send_close(4000)
        error = await fails_to_receive(ws)
        assert str(error) == "sent 1000 (OK); then received 4000 (private use)"
        assert isinstance(error, anyws.ConnectionClosedError)
        await peer.stream.send_eof()


@both_roles
@pytest.mark.behaviour(35)
async def test_error_tells_that_no_close_frame_was_received(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await ws.send_eof()
        await peer.stream.send_eof()
        error = await fails_to_receive(ws)
        assert str(error) == "sent 1000 (OK); no close frame received"
        assert error.rcvd_then_sent is None


@both_roles
@pytest.mark.behaviour(35)
async def test_error_tells_that_no_close_frame_was_received_or_sent(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.finish()
        error = await fails_to_receive(ws)
        assert str(error) == "no close frame received or sent"
        assert error.rcvd_then_sent is None


@both_roles
@pytest.mark.behaviour(35)
async def test_error_tells_what_the_peer_did_wrong(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send(0x3)
        error = await fails_to_receive(ws)
        assert str(error) == "sent 1002 (protocol error) unknown opcode 3; no close frame received"
        assert str(error.__cause__) == "unknown opcode 3"


@both_roles
@pytest.mark.behaviour(35)
async def test_error_is_the_same_for_every_method(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send_close(4000)
        await peer.stream.send_eof()
        await ws.wait_closed()
        said = re.escape("received 4000 (private use); then sent 4000 (private use)")
        for call in (ws.recv, ws.ping, ws.pong):
            with pytest.raises(anyws.ConnectionClosedError, match=said):
                await call()
        with pytest.raises(anyws.ConnectionClosedError, match=said):
            await ws.send("Hello")
        with pytest.raises(anyws.ConnectionClosedError, match=said):
            ws.send_nowait("Hello")
        with pytest.raises(anyws.ConnectionClosedError, match=said):
            ws.start_soon(anyio.sleep_forever)
