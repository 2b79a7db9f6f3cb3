"""A bad frame behind messages: what the application answers to them still goes out, for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

import anyws
from anyws import State
from anyws._types import Failure, Role
from anyws.sansio import Protocol
from tests.blocks import settle
from tests.endings import background, both_roles, fails_to_receive, takes
from tests.wire import CLOSE, MASK, PING, TEXT, Peer, frame

if TYPE_CHECKING:
    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


def text_and_bad_frame(peer: Peer) -> bytes:
    """Draw a message, and behind it a frame with RSV2, which no extension uses."""
    mask = MASK if peer.masks else None
    return frame(TEXT, b"Hello", mask=mask) + frame(TEXT, b"bad", rsv=2, mask=mask)


async def send_bad_frame(peer: Peer) -> None:
    await peer.send(TEXT, b"bad", rsv=2)


@both_roles
@pytest.mark.behaviour(29, 51)
async def test_answer_leaves_before_the_close_when_a_bad_frame_follows_in_the_same_chunk(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        await peer.send_bytes(text_and_bad_frame(peer))
        with takes(0):
            assert await ws.recv() == "Hello"
            await ws.send("Hello to you")
            error = await fails_to_receive(ws)
        assert isinstance(error.__cause__, anyws.ProtocolError)
        answer, close = await peer.read_frame(), await peer.read_frame()
        assert (answer.opcode, answer.payload) == (TEXT, b"Hello to you")
        assert (close.opcode, close.code) == (CLOSE, 1002)
        await peer.finish()


@both_roles
@pytest.mark.behaviour(51, 59)
async def test_iteration_meets_a_bad_frame_at_once_behind_the_messages_before_it(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        await peer.send_bytes(text_and_bad_frame(peer))
        messages = []
        with takes(0), pytest.raises(anyws.ConnectionClosedError) as caught:
            async for message in ws:
                messages.append(message)  # noqa: PERF401  # what came before the error counts
        assert messages == ["Hello"]
        assert isinstance(caught.value.__cause__, anyws.ProtocolError)
        await peer.finish()


@both_roles
@pytest.mark.behaviour(29, 51)
async def test_answer_leaves_before_the_close_when_a_bad_frame_comes_meanwhile(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"Hello")
        assert await ws.recv() == "Hello"
        await send_bad_frame(peer)
        await anyio.sleep(0.9)
        assert ws.open
        await ws.send("Hello to you")
        with takes(0):
            await fails_to_receive(ws)
        answer, close = await peer.read_frame(), await peer.read_frame()
        assert (answer.opcode, answer.payload) == (TEXT, b"Hello to you")
        assert (close.opcode, close.code) == (CLOSE, 1002)
        await peer.finish()


@both_roles
@pytest.mark.behaviour(29, 35)
async def test_bad_frame_fails_the_connection_at_once_when_the_application_waits(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"Hello")
        assert await ws.recv() == "Hello"
        async with background(fails_to_receive, ws):
            await anyio.sleep(1)
            with takes(0):
                await send_bad_frame(peer)
                assert (await peer.read_frame()).code == 1002
        await peer.finish()


@both_roles
@pytest.mark.behaviour(29)
async def test_bad_frame_fails_the_connection_at_once_when_no_message_came(pair: Pair) -> None:
    async with pair() as (ws, peer):
        with takes(0):
            await send_bad_frame(peer)
            assert (await peer.read_frame()).code == 1002
        assert not ws.open
        await peer.finish()


@both_roles
@pytest.mark.behaviour(29)
async def test_bad_frame_fails_the_connection_after_a_second_when_nobody_receives(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        await peer.send_bytes(text_and_bad_frame(peer))
        with takes(1):
            assert (await peer.read_frame()).code == 1002
        assert await ws.recv() == "Hello"
        await fails_to_receive(ws)
        await peer.finish()


@both_roles
@pytest.mark.behaviour(29, 30)
async def test_frames_behind_a_bad_one_are_ignored_while_it_waits(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send_bytes(text_and_bad_frame(peer))
        await peer.send(PING, b"answer me")
        await peer.send(TEXT, b"read me")
        assert await ws.recv() == "Hello"
        await fails_to_receive(ws)
        close = await peer.read_frame()
        assert (close.opcode, close.code) == (CLOSE, 1002)
        assert await peer.read_until_eof() == b""
        await peer.finish()


@both_roles
async def test_what_comes_behind_a_bad_frame_that_waits_makes_no_tasks(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send_bytes(text_and_bad_frame(peer))
        await settle()
        before = len(anyio.get_running_tasks())
        for _ in range(20):
            await peer.send(PING, b"answer me")
            await settle()
        assert len(anyio.get_running_tasks()) == before
        assert await ws.recv() == "Hello"
        await fails_to_receive(ws)
        await peer.finish()


@both_roles
@pytest.mark.behaviour(29)
async def test_all_answers_leave_before_the_close_when_many_messages_precede_a_bad_frame(
    pair: Pair,
) -> None:
    async with pair(max_queue=None) as (ws, peer):
        mask = MASK if peer.masks else None
        hello = frame(TEXT, b"Hello", mask=mask)
        await peer.send_bytes(200 * hello + frame(TEXT, b"bad", rsv=2, mask=mask))
        with pytest.raises(anyws.ConnectionClosedError):
            async for message in ws:
                ws.send_nowait(message)
        for _ in range(200):
            assert (await peer.read_frame()).payload == b"Hello"
        assert (await peer.read_frame()).code == 1002
        await peer.finish()


@both_roles
@pytest.mark.behaviour(29)
async def test_close_sends_the_code_of_a_bad_frame_that_waits(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send_bytes(text_and_bad_frame(peer))
        assert await ws.recv() == "Hello"
        async with background(ws.close, 1000):
            with takes(0):
                close = await peer.read_frame()
        assert (close.opcode, close.code) == (CLOSE, 1002)
        await peer.finish()


@both_roles
@pytest.mark.behaviour(29, 35)
async def test_bad_frame_after_our_close_does_not_wait(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"Hello")
        assert await ws.recv() == "Hello"
        await ws.send_eof()
        assert (await peer.read_frame()).code == 1000
        with takes(0):
            await send_bad_frame(peer)
            assert await peer.read_until_eof() == b""
        await peer.finish()


@both_roles
@pytest.mark.behaviour(32, 60)
async def test_bad_frame_that_waits_is_the_cause_when_the_stream_ends(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send_bytes(text_and_bad_frame(peer))
        await peer.finish()
        with takes(0):
            await ws.wait_closed()
        assert await ws.recv() == "Hello"
        error = await fails_to_receive(ws)
        assert isinstance(error.__cause__, anyws.ProtocolError)


@both_roles
@pytest.mark.behaviour(29)
async def test_abort_drops_the_connection_while_a_bad_frame_waits(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send_bytes(text_and_bad_frame(peer))
        assert await ws.recv() == "Hello"
        with takes(0):
            ws.abort()
            await ws.wait_closed()
        assert ws.close_code == 1006
        assert str(await fails_to_receive(ws)) == "no close frame received or sent"


# The protocol core, where a connection asks for this.

BAD_FRAME = b"\xa1\x83\x37\xfa\x21\x3d\x55\x9b\x45"


def test_protocol_fails_at_once_when_nobody_holds_failures() -> None:
    protocol = Protocol(Role.SERVER)
    assert [type(event) for event in protocol.receive_data(BAD_FRAME)] == [Failure]
    assert protocol.state is State.CLOSING
    assert protocol.data_to_send()[:4] == b"\x88\x22\x03\xea"


def test_protocol_fails_when_the_failure_is_released() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.holds_failure = True
    assert [type(event) for event in protocol.receive_data(BAD_FRAME)] == [Failure]
    states = [protocol.state]
    assert protocol.failure is None
    assert protocol.data_to_send() == b""
    assert protocol.send_message("an answer") == b"\x81\x09an answer"
    protocol.release_failure()
    states.append(protocol.state)
    assert states == [State.OPEN, State.CLOSING]
    assert isinstance(protocol.failure, anyws.ProtocolError)
    assert protocol.data_to_send()[:4] == b"\x88\x22\x03\xea"
    protocol.release_failure()
    assert protocol.data_to_send() == b""
