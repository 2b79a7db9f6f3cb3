"""recv(), receive() and iteration: what they give, what ends them, and what cancels them."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from anyws.testing import FaultyStream, memory_stream_pair
from tests.endings import both_roles
from tests.receiving import DEFLATE, RSV1, SNOWMAN, deflated_too, draw
from tests.wire import (
    BINARY,
    CLOSE,
    CONT,
    MASK,
    PING,
    PONG,
    REQUEST,
    TEXT,
    Peer,
    close_payload,
    frame,
)

if TYPE_CHECKING:
    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

# Types.


@pytest.mark.behaviour(48)
@both_roles
@pytest.mark.parametrize("text", ["", "Hello", "\N{SNOWMAN}" * 100, "\U0001f600" * 30_000])
async def test_text_gives_str(pair: Pair, text: str) -> None:
    async with pair(max_buffer_size=2**18) as (ws, peer):
        await peer.send(TEXT, text.encode())
        assert await ws.recv() == text


@pytest.mark.behaviour(49)
@both_roles
@pytest.mark.parametrize("data", [b"", b"Hello", b"\xff" * 1000, bytes(100_000)], ids=len)
async def test_binary_gives_bytes(pair: Pair, data: bytes) -> None:
    async with pair(max_buffer_size=2**18) as (ws, peer):
        await peer.send(BINARY, data)
        message = await ws.recv()
        assert message == data
        assert type(message) is bytes


@pytest.mark.behaviour(48, 49)
@both_roles
@pytest.mark.parametrize("cut", [1, 2, 3])
async def test_fragments_give_one_message_of_the_type_of_the_first(pair: Pair, cut: int) -> None:
    async with pair() as (ws, peer):
        for opcode, expected in ((TEXT, "\N{SNOWMAN}a"), (BINARY, SNOWMAN + b"a")):
            await peer.send(opcode, SNOWMAN[:cut], fin=False)
            await peer.send(CONT, SNOWMAN[cut:] + b"a")
            assert await ws.recv() == expected


@pytest.mark.behaviour(48, 49)
@both_roles
async def test_decode_overrides_the_type(pair: Pair) -> None:
    async with pair() as (ws, peer):
        for opcode in (TEXT, BINARY):
            await peer.send(opcode, SNOWMAN)
            text: str = await ws.recv(decode=True)  # no need to narrow its type
            assert text == "\N{SNOWMAN}"
            await peer.send(opcode, SNOWMAN)
            data: bytes = await ws.recv(decode=False)
            assert data == SNOWMAN


@pytest.mark.behaviour(49)
@both_roles
async def test_binary_that_is_not_utf_8_stays_the_next_message_when_it_cannot_be_decoded(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        await peer.send(BINARY, b"\xff")
        for _ in range(2):
            with pytest.raises(UnicodeDecodeError):
                await ws.recv(decode=True)
        assert await ws.recv() == b"\xff"
        assert ws.open


@pytest.mark.behaviour(48, 49)
@both_roles
async def test_compressed_messages_give_what_was_compressed(pair: Pair) -> None:
    async with pair(**DEFLATE) as (ws, peer):
        # RFC 7692 section 7.2.3.1 and, with the window of the first, 7.2.3.2
        await peer.send(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=RSV1)
        assert await ws.recv() == "Hello"
        await peer.send(BINARY, bytes.fromhex("f200110000"), rsv=RSV1)
        assert await ws.recv() == b"Hello"
        await peer.send(TEXT, b"Hello")
        assert await ws.recv() == "Hello"


@pytest.mark.behaviour(48, 49)
@both_roles
async def test_receive_is_recv_by_the_name_of_anyio(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"a")
        await peer.send(BINARY, b"b")
        assert [await ws.receive(), await ws.receive()] == ["a", b"b"]


# The end.


@pytest.mark.behaviour(50)
@both_roles
@pytest.mark.parametrize(
    "payload", [close_payload(1000), close_payload(1001, "bye"), b""], ids=["1000", "1001", "none"]
)
async def test_recv_raises_closed_ok_on_1000_1001_and_no_code(pair: Pair, payload: bytes) -> None:
    async with pair() as (ws, peer):
        await peer.send(CLOSE, payload)
        for _ in range(2):
            with pytest.raises(anyws.ConnectionClosedOK):
                await ws.recv()


@pytest.mark.behaviour(51)
@both_roles
@pytest.mark.parametrize("code", [1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999])
async def test_recv_raises_closed_error_on_every_other_code(pair: Pair, code: int) -> None:
    async with pair() as (ws, peer):
        await peer.send_close(code, "why")
        with pytest.raises(anyws.ConnectionClosedError) as caught:
            await ws.recv()
        assert (caught.value.code, caught.value.reason) == (code, "why")


@pytest.mark.behaviour(51)
@both_roles
async def test_recv_raises_closed_error_when_the_stream_ends_without_a_close(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send_bytes(draw(peer, TEXT, b"cut off")[:-1])
        await peer.finish()
        for _ in range(2):
            with pytest.raises(anyws.ConnectionClosedError) as caught:
                await ws.recv()
            assert caught.value.code == 1006


@pytest.mark.behaviour(50, 51)
@both_roles
async def test_a_waiting_recv_raises_when_the_connection_is_aborted(pair: Pair) -> None:
    async with pair() as (ws, _), anyio.create_task_group() as tasks:
        tasks.start_soon(_abort_later, ws)
        with pytest.raises(anyws.ConnectionClosedError), anyio.fail_after(2):
            await ws.recv()


async def _abort_later(ws: anyws.Connection) -> None:
    await anyio.sleep(1)
    ws.abort()


@pytest.mark.behaviour(51, 55)
@both_roles
@pytest.mark.parametrize("in_one_chunk", [True, False])
@pytest.mark.parametrize(
    ("bad", "code"),
    [
        pytest.param({"opcode": 3}, 1002, id="unknown-opcode"),
        pytest.param({"opcode": CONT}, 1002, id="continuation-of-nothing"),
        pytest.param({"opcode": TEXT, "payload": b"\xff"}, 1007, id="invalid-utf-8"),
        pytest.param({"opcode": BINARY, "payload": bytes(101)}, 1009, id="too-big"),
        pytest.param({"opcode": TEXT, "rsv": 4}, 1002, id="rsv1"),
        pytest.param({"opcode": CLOSE, "payload": b"\x03"}, 1002, id="bad-close"),
    ],
)
async def test_messages_before_a_bad_frame_are_delivered_first(
    pair: Pair, in_one_chunk: bool, bad: dict[str, Any], code: int
) -> None:
    async with pair(max_size=100, max_queue=2) as (ws, peer):
        frames = [draw(peer, TEXT, b"%d" % i) for i in range(5)]
        frames += [draw(peer, TEXT, b"never whole", fin=False), draw(peer, **bad)]
        if bad["opcode"] != CLOSE:
            del frames[-2]
        for data in [b"".join(frames)] if in_one_chunk else frames:
            await peer.send_bytes(data)
        assert await _receive_until_closed(ws) == ["0", "1", "2", "3", "4"]
        with pytest.raises(anyws.ConnectionClosedError) as caught:
            await ws.recv()
        assert isinstance(caught.value.__cause__, anyws.ProtocolError)
        close = await peer.read_frame()
        assert (close.opcode, close.code) == (CLOSE, code)


async def _receive_until_closed(ws: anyws.Connection) -> list[str | bytes]:
    messages = []
    with pytest.raises(anyws.ConnectionClosed):
        while True:
            messages.append(await ws.recv())
    return messages


@pytest.mark.behaviour(55)
@both_roles
@pytest.mark.parametrize("max_queue", [1, 32, None])
@pytest.mark.parametrize("code", [1000, 1011])
@pytest.mark.parametrize("in_one_chunk", [True, False])
async def test_messages_before_the_close_are_delivered_first(
    pair: Pair, max_queue: int | None, code: int, in_one_chunk: bool
) -> None:
    async with pair(max_queue=max_queue) as (ws, peer):
        frames = [draw(peer, BINARY, b"%d" % i) for i in range(40)]
        frames.append(draw(peer, CLOSE, close_payload(code)))
        for data in [b"".join(frames)] if in_one_chunk else frames:
            await peer.send_bytes(data)
        await anyio.sleep(1)
        assert await _receive_until_closed(ws) == [b"%d" % i for i in range(40)]


@pytest.mark.behaviour(55)
@both_roles
async def test_messages_before_the_end_of_the_stream_are_delivered_first(pair: Pair) -> None:
    async with pair(max_queue=4, ping_interval=None) as (ws, peer):
        await peer.send_bytes(b"".join(draw(peer, BINARY, b"%d" % i) for i in range(40)))
        await peer.finish()
        await anyio.sleep(100)  # longer than every time-out: it is recv() that reads on
        assert await _receive_until_closed(ws) == [b"%d" % i for i in range(40)]


@pytest.mark.behaviour(55)
@both_roles
async def test_messages_are_delivered_that_come_between_our_close_and_the_peers(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"before")
        await ws.send_eof()
        assert (await peer.read_frame()).opcode == CLOSE
        await peer.send(TEXT, b"after")
        await peer.send_close()
        await ws.wait_closed()
        assert await _receive_until_closed(ws) == ["before", "after"]


@pytest.mark.behaviour(51, 55)
@both_roles
async def test_no_message_is_delivered_once_recv_has_raised(pair: Pair) -> None:
    async with pair() as (ws, peer), anyio.create_task_group() as tasks:
        ws.start_soon(_fail)
        with pytest.raises(anyws.ConnectionClosedError):
            await ws.recv()
        tasks.start_soon(peer.send, TEXT, b"late")
        await anyio.sleep(1)
        with pytest.raises(anyws.ConnectionClosedError):
            await ws.recv()


async def _fail() -> None:
    raise OSError("the database is gone")


# Two at once.


@pytest.mark.behaviour(54)
@both_roles
async def test_second_recv_is_refused_and_the_first_gets_the_message(pair: Pair) -> None:
    received = []

    async def receive(ws: anyws.Connection) -> None:
        received.append(await ws.recv())

    async with pair() as (ws, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive, ws)
            await anyio.sleep(1)
            for second in (ws.recv, ws.receive, ws.__anext__):
                with pytest.raises(anyws.ConcurrencyError):
                    await second()
            await peer.send(TEXT, b"a")
        assert received == ["a"]
        await peer.send(TEXT, b"b")
        assert await ws.recv() == "b"


@pytest.mark.behaviour(54)
@both_roles
async def test_recv_is_free_again_when_the_first_was_cancelled(pair: Pair) -> None:
    async with pair() as (ws, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.recv)
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()
        await peer.send(TEXT, b"a")
        assert await ws.recv() == "a"


# Fragments and control frames.


@pytest.mark.behaviour(56)
@both_roles
@deflated_too
async def test_fragments_are_joined_around_control_frames(
    pair: Pair, options: dict[str, Any]
) -> None:
    payload = b"abc"
    if options:
        compressor = zlib.compressobj(wbits=-15)
        payload = (compressor.compress(b"abc") + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    async with pair(**options) as (ws, peer):
        await peer.send(TEXT, payload[:1], fin=False, rsv=RSV1 if options else 0)
        await peer.send(PING, b"1")
        await peer.send(CONT, payload[1:2], fin=False)
        await peer.send(PONG, b"unsolicited")
        await peer.send(PING, b"2")
        await peer.send(CONT, payload[2:])
        assert await ws.recv() == "abc"
        pongs = [await peer.read_frame() for _ in range(2)]
        assert [(pong.opcode, pong.payload) for pong in pongs] == [(PONG, b"1"), (PONG, b"2")]


@pytest.mark.behaviour(56)
@both_roles
async def test_close_between_fragments_ends_the_connection_without_the_message(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"never", fin=False)
        await peer.send_close()
        with pytest.raises(anyws.ConnectionClosedOK):
            await ws.recv()


# UTF-8. Each ends with the first byte after which no text can follow.
INVALID_UTF8 = [
    b"a\x80",
    b"a\xbf",
    b"a\xc0",
    b"a\xc1",
    b"\xc3\x28",
    b"\xc3\xc3",
    b"\xe0\x80",
    b"\xe0\x9f",
    b"\xe2\x28",
    b"\xe2\x98\x28",
    b"\xed\xa0",
    b"\xed\xbf",
    b"\xf0\x80",
    b"\xf0\x8f",
    b"\xf0\x9f\x28",
    b"\xf0\x9f\x98\x28",
    b"\xf4\x90",
    b"a\xf5",
    b"a\xff",
]
invalid_utf8 = pytest.mark.parametrize("data", INVALID_UTF8, ids=bytes.hex)


async def _expect_invalid_text(ws: anyws.Connection, peer: Peer) -> None:
    with pytest.raises(anyws.ConnectionClosedError) as caught, anyio.fail_after(1):
        await ws.recv()
    assert isinstance(caught.value.__cause__, anyws.ProtocolError)
    close = await peer.read_frame()
    assert (close.opcode, close.code) == (CLOSE, 1007)


@pytest.mark.behaviour(57)
@both_roles
@invalid_utf8
async def test_invalid_utf_8_closes_with_1007_as_soon_as_it_is_certain(
    pair: Pair, data: bytes
) -> None:
    async with pair() as (ws, peer):
        unfinished = draw(peer, TEXT, data + bytes(200))[:-200]
        await peer.send_bytes(unfinished[:-1])
        await anyio.sleep(1)
        assert ws.open
        await peer.send_bytes(unfinished[-1:])
        await _expect_invalid_text(ws, peer)


@pytest.mark.behaviour(57)
@both_roles
@invalid_utf8
async def test_invalid_utf_8_across_fragments_closes_with_1007_before_the_message_ends(
    pair: Pair, data: bytes
) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"", fin=False)
        for index in range(len(data)):
            assert ws.open
            await peer.send(CONT, data[index : index + 1], fin=False)
            await anyio.sleep(1)
        await _expect_invalid_text(ws, peer)


@pytest.mark.behaviour(57)
@both_roles
@invalid_utf8
async def test_invalid_utf_8_in_a_short_message_closes_with_1007(pair: Pair, data: bytes) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, data + b"...")
        await _expect_invalid_text(ws, peer)


@pytest.mark.behaviour(57)
@both_roles
@invalid_utf8
async def test_invalid_utf_8_in_a_compressed_message_closes_with_1007_before_it_ends(
    pair: Pair, data: bytes
) -> None:
    compressor = zlib.compressobj(wbits=-15)
    async with pair(**DEFLATE) as (ws, peer):
        compressed = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        await peer.send(TEXT, compressed, fin=False, rsv=RSV1)
        await _expect_invalid_text(ws, peer)


@pytest.mark.behaviour(57)
@both_roles
@pytest.mark.parametrize("cut_off", [b"\xc3", b"\xe2\x98", b"\xf0\x9f\x98"], ids=bytes.hex)
async def test_text_that_ends_within_a_code_point_closes_with_1007(
    pair: Pair, cut_off: bytes
) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"a" + cut_off)
        await _expect_invalid_text(ws, peer)
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"a" + cut_off, fin=False)
        await anyio.sleep(1)
        assert ws.open
        await peer.send(CONT)
        await _expect_invalid_text(ws, peer)


@pytest.mark.behaviour(57)
@both_roles
async def test_every_length_of_code_point_passes_at_any_byte(pair: Pair) -> None:
    text = "\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"
    async with pair() as (ws, peer):
        data = text.encode()
        for cut in range(len(data) + 1):
            await peer.send(TEXT, data[:cut], fin=False)
            await peer.send(CONT, data[cut:])
            assert await ws.recv() == text


@pytest.mark.behaviour(57)
@both_roles
async def test_binary_may_be_any_bytes_in_any_fragments(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send(BINARY, b"\xff\xc3", fin=False)
        await peer.send(CONT, b"\xc0")
        assert await ws.recv() == b"\xff\xc3\xc0"


# Iteration.


@pytest.mark.behaviour(58)
@both_roles
@pytest.mark.parametrize(
    "payload", [close_payload(1000), close_payload(1001, "bye"), b""], ids=["1000", "1001", "none"]
)
async def test_iteration_gives_the_messages_and_ends_on_ok_codes(
    pair: Pair, payload: bytes
) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"a")
        await peer.send(BINARY, b"b")
        await peer.send(CLOSE, payload)
        assert [message async for message in ws] == ["a", b"b"]
        assert [message async for message in ws] == []


@pytest.mark.behaviour(58)
@both_roles
async def test_iteration_ends_when_we_close(pair: Pair) -> None:
    async with pair() as (ws, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(peer.answer_close)
        await ws.close()
        assert [message async for message in ws] == []


@pytest.mark.behaviour(59)
@both_roles
@pytest.mark.parametrize("code", [1002, 1011, 3000, 4999])
async def test_iteration_gives_the_messages_and_raises_on_other_codes(
    pair: Pair, code: int
) -> None:
    messages = []
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"a")
        await peer.send_close(code)
        with pytest.raises(anyws.ConnectionClosedError) as caught:
            async for message in ws:
                messages.append(message)  # noqa: PERF401  # what came before the error counts
        assert messages == ["a"]
        assert caught.value.code == code


@pytest.mark.behaviour(59)
@both_roles
async def test_iteration_raises_when_the_stream_ends_without_a_close(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.finish()
        with pytest.raises(anyws.ConnectionClosedError):
            async for _ in ws:
                pass


@pytest.mark.behaviour(59)
@both_roles
async def test_iteration_raises_when_only_our_close_has_an_error_code(pair: Pair) -> None:
    async with pair() as (ws, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(_close_with_1000_at_a_close, peer)
        await ws.close(1011)
        with pytest.raises(anyws.ConnectionClosedError):
            await anext(ws)


async def _close_with_1000_at_a_close(peer: Peer) -> None:
    assert (await peer.read_frame()).code == 1011
    await peer.send_close(1000)
    await peer.finish()


# Causes.


@pytest.mark.behaviour(60)
@both_roles
async def test_protocol_error_is_the_cause_of_every_closed_error(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send(3)
        for receive in (ws.recv, ws.receive, ws.__anext__):
            with pytest.raises(anyws.ConnectionClosedError) as caught:
                await receive()
            assert isinstance(caught.value.__cause__, anyws.ProtocolError)
            assert str(caught.value.__cause__) == "unknown opcode 3"


@pytest.mark.behaviour(60)
async def test_loss_of_the_stream_is_the_cause() -> None:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    async with anyws.wrap_server(FaultyStream(near, reset_after=5000)) as ws:
        await far.send(frame(BINARY, bytes(6000), mask=MASK))
        with pytest.raises(anyws.ConnectionClosedError) as caught:
            await ws.recv()
        assert isinstance(caught.value.__cause__, anyio.BrokenResourceError)
        assert str(caught.value.__cause__) == "reset after 5000 bytes, as told"
    await far.aclose()


@pytest.mark.behaviour(60)
@both_roles
async def test_failure_of_a_task_of_the_connection_is_the_cause(pair: Pair) -> None:
    async with pair() as (ws, _):
        ws.start_soon(_fail)
        with pytest.raises(anyws.ConnectionClosedError) as caught:
            await ws.recv()
        assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.behaviour(60)
@both_roles
async def test_there_is_no_cause_when_the_peer_closed(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send_close(1011)
        with pytest.raises(anyws.ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.__cause__ is None
