"""Endings that go wrong: bad arguments, errors of the peer, lost streams, and what each says."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import anyio
import pytest

import anyws
from anyws.testing import FaultyStream, memory_stream_pair
from tests.endings import background, both_roles, closes_well, fails_to_receive, read_closes, takes
from tests.wire import (
    BINARY,
    CLOSE,
    MASK,
    PING,
    REQUEST,
    TEXT,
    Peer,
    client_and_peer,
    close_payload,
    frame,
    server_and_peer,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


# What may not be sent.


@both_roles
@pytest.mark.behaviour(24)
@pytest.mark.parametrize(
    "code", [-1, 0, 999, 1004, 1006, 1015, 1016, 1999, 2999, 5000, 65536, 66536]
)
async def test_bad_close_code_is_a_value_error_and_the_connection_lives_on(
    pair: Pair, code: int
) -> None:
    async with pair() as (ws, peer), background(closes_well, peer):
        with pytest.raises(ValueError, match=f"^close code {code} may not be sent"):
            await ws.close(code)
        await _check_alive(ws, peer)


@both_roles
@pytest.mark.behaviour(24)
@pytest.mark.parametrize(("reason", "size"), [("x" * 124, 124), ("\u00e9" * 62, 124)])
async def test_close_reason_over_123_bytes_is_a_value_error_and_the_connection_lives_on(
    pair: Pair, reason: str, size: int
) -> None:
    async with pair() as (ws, peer), background(closes_well, peer):
        with pytest.raises(ValueError, match=f"{size} bytes exceeds the limit of 123 bytes"):
            await ws.close(1000, reason)
        await _check_alive(ws, peer)


@both_roles
@pytest.mark.behaviour(24)
@pytest.mark.parametrize(("code", "reason"), [(1000, "\ud800"), (1005, "no code to go with")])
async def test_close_reason_that_cannot_be_sent_is_a_value_error_and_the_connection_lives_on(
    pair: Pair, code: int, reason: str
) -> None:
    async with pair() as (ws, peer), background(closes_well, peer):
        with pytest.raises(ValueError, match=r"close reason|surrogates not allowed"):
            await ws.close(code, reason)
        await _check_alive(ws, peer)


async def _check_alive(ws: anyws.Connection, peer: Peer) -> None:
    assert ws.open
    await peer.send(TEXT, b"alive")
    assert await ws.recv() == "alive"
    await ws.send("alive")


# A fragmented message that is not complete.


@both_roles
@pytest.mark.behaviour(27)
async def test_close_during_a_fragmented_message_fails_the_connection(pair: Pair) -> None:
    async def send() -> None:
        with pytest.raises(anyws.ConnectionClosedError):
            await ws.send(_unfinished())

    async with pair() as (ws, peer), background(send):
        assert (await peer.read_frame()).payload == b"Hel"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.close)
            assert [close.code for close in await read_closes(peer)] == [1011]
            await peer.finish()
        assert ws.close_code == 1006
        await anyio.sleep(2)


@both_roles
@pytest.mark.behaviour(27)
async def test_leaving_the_block_during_a_fragmented_message_fails_the_connection(
    pair: Pair,
) -> None:
    codes = []

    async def run_peer() -> None:
        codes.extend([close.code for close in await read_closes(peer)])
        await peer.finish()

    async def send() -> None:
        with pytest.raises(anyws.ConnectionClosedError):
            await ws.send(_unfinished())

    async with anyio.create_task_group() as tasks:
        with takes(0.5):
            async with pair() as (ws, peer):
                tasks.start_soon(run_peer)
                tasks.start_soon(send)
                await anyio.sleep(0.5)
    assert codes == [1011]


@both_roles
@pytest.mark.behaviour(27)
async def test_cancelling_the_block_during_a_fragmented_message_fails_the_connection(
    pair: Pair,
) -> None:
    codes = []

    async def run_peer() -> None:
        codes.extend([close.code for close in await read_closes(peer)])

    async def send() -> None:
        with pytest.raises(anyws.ConnectionClosedError):
            await ws.send(_unfinished())

    async with anyio.create_task_group() as tasks:
        with takes(0.5), anyio.move_on_after(0.5):
            async with pair() as (ws, peer):
                tasks.start_soon(run_peer)
                tasks.start_soon(send)
                await anyio.sleep_forever()
    assert codes == [1011]


async def _unfinished() -> AsyncIterator[str]:
    yield "Hel"
    await anyio.sleep(1)
    yield "lo"


# The peer breaks the protocol.


ERRORS = [
    pytest.param(0x83, 1002, b"", id="unknown opcode"),
    pytest.param(0x8B, 1002, b"", id="unknown control opcode"),
    pytest.param(0xC1, 1002, b"", id="RSV1 without an extension"),
    pytest.param(0xA1, 1002, b"", id="RSV2"),
    pytest.param(0x91, 1002, b"", id="RSV3"),
    pytest.param(0x80, 1002, b"x", id="continuation of nothing"),
    pytest.param(0xC8, 1002, b"", id="Close frame with RSV1"),
    pytest.param(0x09, 1002, b"", id="fragmented control frame"),
    pytest.param(0x89, 1002, b"x" * 126, id="control frame of 126 bytes"),
    pytest.param(0x88, 1002, b"\x03", id="Close frame of 1 byte"),
    pytest.param(0x88, 1002, close_payload(1005), id="Close frame with 1005"),
    pytest.param(0x88, 1007, b"\x03\xe8\xff", id="close reason that is not UTF-8"),
    pytest.param(0x81, 1007, b"\xff", id="text that is not UTF-8"),
    pytest.param(0x82, 1009, b"x" * 1001, id="message over max_size"),
]


def bad_frame(peer: Peer, first: int, payload: bytes) -> bytes:
    good = frame(first & 0x0F, payload, mask=MASK if peer.masks else None)
    return bytes([first]) + good[1:]


@both_roles
@pytest.mark.behaviour(29)
@pytest.mark.parametrize(("first", "code", "payload"), ERRORS)
async def test_error_of_the_peer_is_answered_by_one_close_frame_then_tcp_ends(
    pair: Pair, first: int, code: int, payload: bytes
) -> None:
    async with pair(max_size=1000) as (ws, peer):
        more = frame(PING, b"behind", mask=MASK if peer.masks else None) * 10
        await peer.send_bytes(bad_frame(peer, first, payload) + more)
        await peer.send_bytes(more)
        with takes(0):
            close = await peer.read_frame()
            assert (close.opcode, close.code) == (CLOSE, code)
            assert await peer.read_until_eof() == b""
        await peer.send_bytes(more)
        await peer.finish()
        await ws.wait_closed()


@pytest.mark.behaviour(29)
async def test_unmasked_frame_of_a_client_is_answered_by_a_close_frame() -> None:
    async with server_and_peer() as (_, peer):
        await peer.send_bytes(frame(TEXT, b"Hello"))
        assert [close.code for close in await read_closes(peer)] == [1002]


@pytest.mark.behaviour(29)
async def test_masked_frame_of_a_server_is_answered_by_a_close_frame() -> None:
    async with client_and_peer() as (_, peer):
        await peer.send_bytes(frame(TEXT, b"Hello", mask=MASK))
        assert [close.code for close in await read_closes(peer)] == [1002]


@both_roles
@pytest.mark.behaviour(29)
async def test_close_frame_after_an_error_is_flushed_behind_all_that_was_sent(pair: Pair) -> None:
    async with pair(max_buffer_size=1000, write_limit=1_000_000) as (ws, peer):
        await ws.send(b"x" * 100_000)
        await peer.send(0x3)
        await anyio.sleep(9)
        assert (await peer.read_frame()).payload == b"x" * 100_000
        assert [close.code for close in await read_closes(peer)] == [1002]


@both_roles
@pytest.mark.behaviour(29)
async def test_close_frame_is_sent_when_a_full_inbox_hides_an_error_until_it_is_read(
    pair: Pair,
) -> None:
    async with pair(max_queue=4) as (ws, peer):
        mask = MASK if peer.masks else None
        await peer.send_bytes(frame(TEXT, b"Hello", mask=mask) * 20 + bad_frame(peer, 0x83, b""))
        for _ in range(20):
            assert await ws.recv() == "Hello"
        assert [close.code for close in await read_closes(peer)] == [1002]


@both_roles
@pytest.mark.behaviour(29)
async def test_error_of_the_peer_after_our_close_frame_sends_no_other(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await ws.send_eof()
        await peer.send(0x3)
        with takes(0):
            assert [close.code for close in await read_closes(peer)] == [1000]
        await peer.finish()
        error = await fails_to_receive(ws)
        assert isinstance(error.__cause__, anyws.ProtocolError)


@both_roles
@pytest.mark.behaviour(29)
async def test_one_close_frame_is_sent_when_everything_ends_at_once(pair: Pair) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async with pair(ping_interval=1, ping_timeout=1) as (ws, peer):
        await anyio.sleep(1.999)
        await peer.send(0x3)
        ws.start_soon(fail)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.close, 4000)
            tasks.start_soon(ws.send_eof)
            tasks.start_soon(ws.close, 4001)
            assert len(await read_closes(peer)) == 1
            await peer.finish()


@both_roles
@pytest.mark.behaviour(29)
async def test_close_frame_is_sent_behind_the_newest_pong_when_the_peer_did_not_read(
    pair: Pair,
) -> None:
    async with pair(max_buffer_size=1000, write_limit=100) as (ws, peer):
        with anyio.move_on_after(1):
            await ws.send(b"x" * 100_000)
        for number in range(200):
            await peer.send(PING, b"%d" % number)
        await anyio.wait_all_tasks_blocked()
        await ws.send_eof()
        assert (await peer.read_frame()).payload == b"x" * 100_000
        frames = [await peer.read_frame()]
        while frames[-1].opcode != CLOSE:
            frames.append(await peer.read_frame())
        assert frames[-2].payload == b"199"
        assert len(frames) < 20


@both_roles
@pytest.mark.behaviour(35)
async def test_error_of_a_connection_can_be_copied_and_pickled(pair: Pair) -> None:
    async with pair() as (ws, peer), background(closes_well, peer):
        await ws.close()
        with pytest.raises(anyws.ConnectionClosedOK) as caught:
            await ws.recv()
    for twin in (copy.deepcopy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert type(twin) is anyws.ConnectionClosedOK
        assert str(twin) == str(caught.value)


@both_roles
async def test_error_of_the_peer_is_raised_at_once_with_its_cause(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send(0x3)
        with takes(0):
            error = await fails_to_receive(ws)
        assert not ws.closed
        assert isinstance(error.__cause__, anyws.ProtocolError)
        assert error.__cause__.code == 1002


@both_roles
@pytest.mark.behaviour(35)
async def test_error_of_the_peer_ends_a_recv_that_waits_already(pair: Pair) -> None:
    async def break_protocol() -> None:
        await anyio.sleep(1)
        await peer.send(0x3)

    async with pair() as (ws, peer), background(break_protocol):
        with takes(1):
            await fails_to_receive(ws)


@both_roles
@pytest.mark.behaviour(31)
async def test_responding_close_frame_is_not_processed_after_an_error_of_our_own(
    pair: Pair,
) -> None:
    async def items() -> AsyncIterator[str]:
        yield "Hel"
        raise ZeroDivisionError

    async with pair() as (ws, peer):
        with pytest.raises(ZeroDivisionError):
            await ws.send(items())
        await peer.send_close(1011)
        await peer.finish()
        await ws.wait_closed()
        assert ws.close_code == 1006


# The stream ends too soon, or too late.


@both_roles
@pytest.mark.behaviour(31)
async def test_close_code_is_1006_when_no_close_frame_comes_in_time(pair: Pair) -> None:
    async with pair(close_timeout=7) as (ws, _):
        await ws.close()
        assert (ws.close_code, ws.close_reason) == (1006, "")
        error = await fails_to_receive(ws)
        assert isinstance(error, anyws.ConnectionClosedError)
        assert (error.rcvd, error.sent) == (None, anyws.Close(1000))


@both_roles
@pytest.mark.behaviour(32)
async def test_close_code_is_1006_when_the_stream_ends_without_a_close_frame(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.stream.send_eof()
        with takes(0):
            error = await fails_to_receive(ws)
            await ws.wait_closed()
        assert isinstance(error, anyws.ConnectionClosedError)
        assert (error.code, error.reason, error.rcvd, error.sent) == (1006, "", None, None)
        assert (ws.close_code, ws.close_reason) == (1006, "")
        assert await peer.read_until_eof() == b""


@both_roles
@pytest.mark.behaviour(32)
@pytest.mark.parametrize("size", [1, 2, 6])
async def test_close_code_is_1006_when_the_stream_ends_inside_a_close_frame(
    pair: Pair, size: int
) -> None:
    async with pair() as (ws, peer):
        whole = frame(CLOSE, close_payload(1000, "bye-bye"), mask=MASK if peer.masks else None)
        await peer.send_bytes(whole[:size])
        await peer.stream.send_eof()
        await ws.wait_closed()
        assert ws.close_code == 1006


@both_roles
@pytest.mark.behaviour(32)
async def test_close_code_is_1006_when_the_stream_ends_inside_a_message(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"whole")
        await peer.send(TEXT, b"a part", fin=False)
        await peer.stream.send_eof()
        assert await ws.recv() == "whole"
        assert (await fails_to_receive(ws)).code == 1006


class FailingStream(FaultyStream):
    """A stream whose receive() fails at its second call with what no stream should raise."""

    calls = 0

    async def receive(self, max_bytes: int = 65536) -> bytes:
        self.calls += 1
        if self.calls > 1:
            raise ZeroDivisionError
        return await super().receive(max_bytes)


@pytest.mark.behaviour(32, 60)
async def test_any_exception_of_the_stream_is_the_cause_of_the_error() -> None:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    async with anyws.wrap_server(FailingStream(near), compression=None) as ws:
        error = await fails_to_receive(ws)
        assert isinstance(error.__cause__, ZeroDivisionError)
        await ws.wait_closed()
        assert ws.close_code == 1006
    await far.aclose()


@pytest.mark.behaviour(32, 60)
async def test_reset_is_the_cause_of_the_error() -> None:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    faulty = FaultyStream(near, reset_after=1000)
    async with anyws.wrap_server(faulty, compression=None) as ws:
        peer = Peer(far, masks=True)
        await peer.read_until(b"\r\n\r\n")
        await peer.send(BINARY, b"x" * 1000)
        error = await fails_to_receive(ws)
        assert isinstance(error.__cause__, anyio.BrokenResourceError)
        assert str(error) == "no close frame received or sent"
    await far.aclose()


@both_roles
@pytest.mark.behaviour(35)
async def test_send_that_waits_tells_the_close_frame_of_a_peer_that_is_gone(pair: Pair) -> None:
    async def leave() -> None:
        await anyio.sleep(1)
        await peer.send_close(4000, "bye")
        await peer.finish()

    async with pair(max_buffer_size=1000) as (ws, peer), background(leave):
        with pytest.raises(anyws.ConnectionClosedError, match="received 4000"):
            await ws.send(b"x" * 1_000_000)
