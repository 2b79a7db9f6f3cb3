"""Ping and Pong: behaviours 76 to 86, and `_keepalive.Pings` and `PongWaiter`.

Keepalive is off here, so that no Ping goes out but those of the test.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import create_task_group, current_time, move_on_after, sleep

import anyws
from anyws._keepalive import Pings, PongWaiter
from anyws._types import BytesLike, Close
from anyws.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
)
from tests.wire import (
    BINARY,
    CLOSE,
    CONT,
    MASK,
    PING,
    PONG,
    TEXT,
    Frame,
    Peer,
    client_and_peer,
    close_payload,
    frame,
    server_and_peer,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

Pair = Callable[..., AbstractAsyncContextManager[tuple[anyws.Connection, Peer]]]

HANDSHAKE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"


@pytest.fixture(params=[client_and_peer, server_and_peer], ids=["client", "server"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """Give what connects anyws, in each of its roles, to the literal peer; without keepalive."""

    def connect(
        **arguments: Any,
    ) -> AbstractAsyncContextManager[tuple[anyws.Connection, Peer]]:
        arguments.setdefault("close_timeout", 1)
        give: Pair = request.param
        return give(ping_interval=None, **arguments)

    return connect


def drawn(
    peer: Peer, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0
) -> bytes:
    """Draw a frame as the peer sends it."""
    return frame(opcode, payload, fin=fin, rsv=rsv, mask=MASK if peer.masks else None)


async def read_frames(peer: Peer, count: int) -> list[Frame]:
    return [await peer.read_frame() for _ in range(count)]


async def is_silent(peer: Peer) -> bool:
    """Say whether the peer gets nothing for a long time."""
    with move_on_after(1000) as scope:
        await peer.read(1)
    return scope.cancelled_caught


# ping().


@pytest.mark.behaviour(76)
async def test_awaiting_a_ping_gives_the_latency(pair: Pair) -> None:
    async with pair() as (ws, peer):
        pong = await ws.ping(b"abc")
        ping = await peer.read_frame()
        assert (ping.opcode, ping.payload, ping.fin, ping.rsv) == (PING, b"abc", True, 0)
        assert ping.masked is not peer.masks
        await sleep(0.25)
        await peer.send(PONG, b"abc")
        assert await pong == pytest.approx(0.25)
        assert ws.latency == pytest.approx(0.25)


@pytest.mark.behaviour(76)
async def test_ping_returns_before_its_pong_comes(pair: Pair) -> None:
    async with pair() as (ws, _):
        start = current_time()
        await ws.ping()
        assert current_time() == start


@pytest.mark.behaviour(76)
async def test_pong_may_be_awaited_late_often_and_by_many(pair: Pair) -> None:
    async with pair() as (ws, peer):
        latencies = []

        async def wait() -> None:
            latencies.append(await pong)

        pong = await ws.ping(b"abc")
        async with create_task_group() as tasks:
            tasks.start_soon(wait)
            tasks.start_soon(wait)
            await sleep(2)
            await peer.send(PONG, b"abc")
        await sleep(100)
        await wait()
        await wait()
        assert latencies == pytest.approx([2, 2, 2, 2])


@pytest.mark.behaviour(76)
async def test_latency_begins_with_the_call_when_the_ping_waits_behind_a_message(
    pair: Pair,
) -> None:
    async with pair(max_buffer_size=300, write_limit=1_000_000) as (ws, peer):
        await ws.send(b"x" * 10_000)
        pong = await ws.ping(b"abc")
        await sleep(3)
        assert (await peer.read_frame()).opcode == BINARY
        assert (await peer.read_frame()).payload == b"abc"
        await peer.send(PONG, b"abc")
        assert await pong == pytest.approx(3)


@pytest.mark.behaviour(76)
async def test_pong_split_into_single_bytes_is_recognised(pair: Pair) -> None:
    async with pair() as (ws, peer):
        pong = await ws.ping(b"abc")
        for byte in drawn(peer, PONG, b"abc"):
            assert not pong.done
            await peer.send_bytes(bytes([byte]))
            await sleep(1)
        assert pong.done
        assert await pong == pytest.approx(len(drawn(peer, PONG, b"abc")) - 1)


@pytest.mark.behaviour(76)
async def test_pong_between_the_fragments_of_a_message_is_recognised(pair: Pair) -> None:
    async with pair() as (ws, peer):
        pong = await ws.ping(b"abc")
        await peer.send(TEXT, b"Hel", fin=False)
        await peer.send(PONG, b"abc")
        assert await pong < 1
        await peer.send(CONT, b"lo")
        assert await ws.recv() == "Hello"


@pytest.mark.behaviour(76)
async def test_ping_is_not_compressed_and_passes_between_compressed_fragments(pair: Pair) -> None:
    async def items() -> AsyncGenerator[bytes, None]:
        yield b"x" * 1000
        await ws.ping(b"x" * 100)
        yield b"x" * 1000

    async with pair(compression="deflate", headers=HANDSHAKE) as (ws, peer):
        await ws.send(items())
        first, ping, second = await read_frames(peer, 3)
        assert (first.opcode, first.rsv, first.fin) == (BINARY, 4, False)
        assert (ping.opcode, ping.rsv, ping.fin, ping.payload) == (PING, 0, True, b"x" * 100)
        assert (second.opcode, second.rsv) == (CONT, 0)


@pytest.mark.behaviour(77)
async def test_default_payload_of_a_ping_is_4_random_bytes(pair: Pair) -> None:
    async with pair() as (ws, peer):
        for _ in range(20):
            await ws.ping()
        payloads = [ping.payload for ping in await read_frames(peer, 20)]
        assert {len(payload) for payload in payloads} == {4}
        assert len(set(payloads)) == 20


@pytest.mark.behaviour(78)
@pytest.mark.parametrize(
    ("data", "payload"),
    [
        ("", b""),
        ("h\u00e9llo", b"h\xc3\xa9llo"),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (b"x" * 125, b"x" * 125),
        ("\u00e9" * 62 + "e", b"\xc3\xa9" * 62 + b"e"),
    ],
    ids=["empty", "text", "bytes", "bytearray", "memoryview", "125 bytes", "125 bytes of text"],
)
async def test_ping_takes_text_as_utf8_and_bytes_as_they_are(
    pair: Pair, data: str | BytesLike, payload: bytes
) -> None:
    async with pair() as (ws, peer):
        pong = await ws.ping(data)
        assert (await peer.read_frame()).payload == payload
        await peer.send(PONG, payload)
        assert await pong < 1


@pytest.mark.behaviour(78)
@pytest.mark.parametrize(
    ("data", "size"), [(b"x" * 126, 126), ("\u00e9" * 63, 126)], ids=["bytes", "text"]
)
async def test_ping_over_125_bytes_is_a_value_error_and_the_connection_lives_on(
    pair: Pair, data: str | bytes, size: int
) -> None:
    async with pair() as (ws, peer):
        with pytest.raises(ValueError, match=rf"^data of {size} bytes exceeds the limit of 125"):
            await ws.ping(data)
        with pytest.raises(ValueError, match=rf"^data of {size} bytes exceeds the limit of 125"):
            await ws.pong(data)
        await ws.ping(b"next")
        assert (await peer.read_frame()).payload == b"next"


@pytest.mark.behaviour(78)
async def test_ping_of_another_type_is_a_type_error_and_the_connection_lives_on(
    pair: Pair,
) -> None:
    wrong: Any = 4
    async with pair() as (ws, peer):
        with pytest.raises(TypeError, match=r"^data of type int, expected str"):
            await ws.ping(wrong)
        with pytest.raises(TypeError, match=r"^data of type int, expected str"):
            await ws.pong(wrong)
        await ws.ping(b"next")
        assert (await peer.read_frame()).payload == b"next"


@pytest.mark.behaviour(79)
@pytest.mark.parametrize(("first", "second"), [(b"abc", "abc"), (b"", "")], ids=["abc", "empty"])
async def test_ping_is_refused_when_its_payload_is_still_pending(
    pair: Pair, first: bytes, second: str
) -> None:
    async with pair() as (ws, peer):
        pong = await ws.ping(first)
        with pytest.raises(ConcurrencyError, match="still waiting for its pong"):
            await ws.ping(second)
        assert (await peer.read_frame()).payload == first
        assert await is_silent(peer)
        await peer.send(PONG, first)
        assert await pong > 0
        await ws.ping(second)
        assert (await peer.read_frame()).payload == first


@pytest.mark.behaviour(80)
async def test_pong_resolves_the_earlier_pings_too(pair: Pair) -> None:
    async with pair() as (ws, peer):
        pongs = []
        for payload in (b"1", b"2", b"3"):
            pongs.append(await ws.ping(payload))
            await sleep(1)
        await peer.send(PONG, b"2")
        assert await pongs[0] == pytest.approx(3)
        assert await pongs[1] == pytest.approx(2)
        assert not pongs[2].done
        assert ws.latency == pytest.approx(2)
        await peer.send(PONG, b"3")
        assert await pongs[2] == pytest.approx(1)


@pytest.mark.behaviour(80, 81)
async def test_pong_of_a_ping_that_a_later_one_has_resolved_is_ignored(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await ws.ping(b"1")
        second = await ws.ping(b"2")
        await sleep(1)
        await peer.send(PONG, b"2")
        assert await second == pytest.approx(1)
        await sleep(1)
        third = await ws.ping(b"3")
        await peer.send(PONG, b"1")
        await sleep(1)
        assert ws.latency == pytest.approx(1)
        assert not third.done


@pytest.mark.behaviour(81)
@pytest.mark.parametrize("payload", [b"", b"abc", b"x" * 125], ids=["empty", "short", "longest"])
async def test_unsolicited_pong_is_ignored(pair: Pair, payload: bytes) -> None:
    async with pair() as (ws, peer):
        pending = await ws.ping(b"pending")
        await peer.send(PONG, payload)
        await peer.send(TEXT, b"Hello")
        assert await ws.recv() == "Hello"
        assert not pending.done
        assert ws.latency == 0
        assert (await peer.read_frame()).opcode == PING
        assert await is_silent(peer)


async def _peer_closes(ws: anyws.Connection, peer: Peer) -> None:
    await peer.send_close(1000)


async def _peer_fails(ws: anyws.Connection, peer: Peer) -> None:
    await peer.send_close(1011)


async def _peer_goes(ws: anyws.Connection, peer: Peer) -> None:
    await peer.finish()


async def _peer_breaks_the_protocol(ws: anyws.Connection, peer: Peer) -> None:
    await peer.send(0x3)


async def _we_close(ws: anyws.Connection, peer: Peer) -> None:
    await ws.close()


async def _we_abort(ws: anyws.Connection, peer: Peer) -> None:
    ws.abort()


@pytest.mark.behaviour(82)
@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (_peer_closes, ConnectionClosedOK(Close(1000), Close(1000), True)),
        (_peer_fails, ConnectionClosedError(Close(1011), Close(1011), True)),
        (_peer_goes, ConnectionClosedError(None, None)),
        (
            _peer_breaks_the_protocol,
            ConnectionClosedError(None, Close(1002, "unknown opcode 3")),
        ),
        (_we_close, ConnectionClosedError(None, Close(1000))),
        (_we_abort, ConnectionClosedError(None, None)),
    ],
)
async def test_pending_ping_raises_when_the_connection_ends(
    pair: Pair,
    end: Callable[[anyws.Connection, Peer], Awaitable[None]],
    expected: ConnectionClosed,
) -> None:
    async with pair() as (ws, peer):
        errors: list[ConnectionClosed] = []

        async def wait() -> None:
            with pytest.raises(ConnectionClosed) as caught:
                await pong
            errors.append(caught.value)

        pong = await ws.ping()
        async with create_task_group() as tasks:
            tasks.start_soon(wait)
            tasks.start_soon(wait)
            await sleep(1)
            await end(ws, peer)
        await wait()
        await ws.wait_closed()
        await wait()
        assert [type(error) for error in errors] == [type(expected)] * 4
        assert [str(error) for error in errors] == [str(expected)] * 4
        # Each has a traceback of its own.
        assert len(set(map(id, errors))) == 4


@pytest.mark.behaviour(82)
async def test_ping_that_nobody_awaits_leaves_no_trace_when_the_connection_ends(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as (ws, peer):
        await ws.ping()
        await peer.finish()
        await ws.wait_closed()
    assert caplog.records == []


@pytest.mark.behaviour(82)
async def test_pong_before_the_close_in_one_chunk_resolves_the_ping(pair: Pair) -> None:
    async with pair() as (ws, peer):
        pong = await ws.ping(b"abc")
        close = drawn(peer, CLOSE, close_payload(1000))
        await peer.send_bytes(drawn(peer, PONG, b"abc") + close)
        await ws.wait_closed()
        assert await pong < 5


@pytest.mark.behaviour(82)
async def test_pong_while_we_wait_for_the_peers_close_resolves_the_ping(pair: Pair) -> None:
    async with pair(close_timeout=100) as (ws, peer), create_task_group() as tasks:
        pong = await ws.ping(b"abc")
        tasks.start_soon(ws.close)
        await sleep(2)
        await peer.send(PONG, b"abc")
        assert await pong == pytest.approx(2)
        await peer.answer_close()
        await peer.finish()


@pytest.mark.behaviour(83)
async def test_cancelling_the_wait_for_a_pong_is_harmless(pair: Pair) -> None:
    async with pair() as (ws, peer):
        pong = await ws.ping(b"abc")
        with move_on_after(1) as scope:
            await pong
        assert scope.cancelled_caught
        with pytest.raises(ConcurrencyError):
            await ws.ping(b"abc")
        await peer.send(TEXT, b"Hello")
        assert await ws.recv() == "Hello"
        await peer.send(PONG, b"abc")
        assert await pong == pytest.approx(1)


@pytest.mark.behaviour(83)
async def test_cancelling_one_of_many_waits_leaves_the_others(pair: Pair) -> None:
    async with pair() as (ws, peer):
        latencies = []

        async def wait() -> None:
            latencies.append(await pong)

        pong = await ws.ping(b"abc")
        async with create_task_group() as tasks:
            tasks.start_soon(wait)
            with move_on_after(1):
                await pong
            await peer.send(PONG, b"abc")
        assert latencies == pytest.approx([1])


@pytest.mark.behaviour(83)
async def test_cancelled_ping_goes_out_whole_when_the_peer_does_not_read(pair: Pair) -> None:
    async with pair(max_buffer_size=300, write_limit=950) as (ws, peer):
        await ws.send(b"z" * 900)  # there is room for no more than the Ping
        with move_on_after(1) as scope:
            await ws.ping(b"x" * 125)
        assert scope.cancelled_caught
        _, ping = await read_frames(peer, 2)
        assert (ping.opcode, ping.payload) == (PING, b"x" * 125)
        with pytest.raises(ConcurrencyError):
            await ws.ping(b"x" * 125)
        await peer.send(PONG, b"x" * 125)
        await sleep(1)
        assert ws.latency == pytest.approx(1)
        await ws.ping(b"x" * 125)
        assert (await peer.read_frame()).payload == b"x" * 125


@pytest.mark.behaviour(83)
@pytest.mark.parametrize("control", ["ping", "pong"])
async def test_nothing_is_left_by_each_that_is_cancelled_while_the_peer_does_not_read(
    pair: Pair, control: str
) -> None:
    async with pair(max_buffer_size=300, write_limit=100) as (ws, peer):
        with move_on_after(1):
            await ws.send(b"z" * 1000)
        unsent = ws._transport.write_buffer_size
        for _ in range(100):
            with move_on_after(1) as scope:
                await getattr(ws, control)(b"y" * 125)
            assert scope.cancelled_caught
        assert ws._transport.write_buffer_size == unsent
        assert (await peer.read_frame()).payload == b"z" * 1000
        await ws.ping(b"y" * 125)  # none of those waits for its Pong
        assert (await peer.read_frame()).opcode == PING


@pytest.mark.behaviour(83)
async def test_ping_in_a_cancelled_scope_goes_out_whole_or_not_at_all(pair: Pair) -> None:
    async with pair() as (ws, peer):
        sent = 0
        with anyio.CancelScope() as scope:
            scope.cancel()
            for number in range(1000):
                await ws.ping(b"%03d" % number)
                sent += 1
        # Calls that need not wait may return, but not for ever.
        assert sent <= 64
        assert scope.cancelled_caught
        await ws.ping(b"end")
        payloads = [ping.payload for ping in await read_frames(peer, sent + 1)]
        assert payloads == [*(b"%03d" % number for number in range(sent)), b"end"]


# pong().


@pytest.mark.behaviour(84)
async def test_pong_is_empty_by_default(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await ws.pong()
        pong = await peer.read_frame()
        assert (pong.opcode, pong.payload, pong.rsv) == (PONG, b"", 0)
        assert pong.masked is not peer.masks


@pytest.mark.behaviour(84)
async def test_pong_carries_what_it_is_given(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await ws.pong("h\u00e9")
        await ws.pong(bytearray(125))
        first, second = await read_frames(peer, 2)
        assert (first.payload, second.payload) == (b"h\xc3\xa9", bytes(125))


@pytest.mark.behaviour(85)
async def test_ping_and_pong_raise_once_closed(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send_close(1001, "bye")
        await ws.wait_closed()
        for call in (ws.ping, ws.pong):
            with pytest.raises(ConnectionClosedOK) as caught:
                await call()
            assert str(caught.value) == (
                "received 1001 (going away) bye; then sent 1001 (going away) bye"
            )


@pytest.mark.behaviour(85)
async def test_ping_and_pong_raise_once_closing_is_over_when_called_in_its_midst(
    pair: Pair,
) -> None:
    async with pair(close_timeout=100) as (ws, peer):
        ended = []

        async def call(send: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(ConnectionClosedOK):
                await send()
            ended.append(current_time())

        async with create_task_group() as tasks:
            tasks.start_soon(ws.close)
            await sleep(1)
            tasks.start_soon(call, ws.ping)
            tasks.start_soon(call, ws.pong)
            await sleep(1)
            assert ended == []
            await peer.answer_close()
            answered_at = current_time()
            await peer.finish()
        assert ended == [answered_at, answered_at]


@pytest.mark.behaviour(85)
async def test_waiting_ping_and_pong_raise_when_the_connection_is_lost(pair: Pair) -> None:
    async with pair(max_buffer_size=300, write_limit=100) as (ws, peer):
        with move_on_after(1):
            await ws.send(b"x" * 1000)
        async with create_task_group() as tasks:

            async def call(send: Callable[[], Awaitable[object]]) -> None:
                with pytest.raises(ConnectionClosedError):
                    await send()

            tasks.start_soon(call, lambda: ws.ping(b"y" * 125))
            tasks.start_soon(call, lambda: ws.pong(b"z" * 125))
            await sleep(1)
            await peer.finish()


# Pings of the peer.


@pytest.mark.behaviour(86)
@pytest.mark.parametrize("payload", [b"", b"Hello", b"x" * 125], ids=["empty", "short", "longest"])
async def test_ping_of_the_peer_is_answered_without_a_recv(pair: Pair, payload: bytes) -> None:
    async with pair() as (_, peer):
        await peer.send(PING, payload)
        pong = await peer.read_frame()
        assert (pong.opcode, pong.payload, pong.fin, pong.rsv) == (PONG, payload, True, 0)
        assert pong.masked is not peer.masks


@pytest.mark.behaviour(86)
async def test_ten_pings_in_one_chunk_are_answered_in_their_order(pair: Pair) -> None:
    async with pair() as (_, peer):
        await peer.send_bytes(b"".join(drawn(peer, PING, b"%d" % number) for number in range(10)))
        pongs = await read_frames(peer, 10)
        assert [pong.opcode for pong in pongs] == [PONG] * 10
        assert [pong.payload for pong in pongs] == [b"%d" % number for number in range(10)]
        assert await is_silent(peer)


@pytest.mark.behaviour(86)
async def test_ping_in_single_bytes_between_fragments_is_answered_at_its_last_byte(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"Hel", fin=False)
        ping = drawn(peer, PING, b"abc")
        for byte in ping[:-1]:
            await peer.send_bytes(bytes([byte]))
        assert await is_silent(peer)
        await peer.send_bytes(ping[-1:])
        assert (await peer.read_frame()).payload == b"abc"
        await peer.send(CONT, b"lo")
        assert await ws.recv() == "Hello"


@pytest.mark.behaviour(86)
async def test_ping_that_came_with_the_opening_handshake_is_answered() -> None:
    head = frame(PING, b"early", mask=MASK)

    async with server_and_peer(ping_interval=None, close_timeout=1) as (_, peer):
        await peer.send_bytes(head)
        assert (await peer.read_frame()).payload == b"early"


@pytest.mark.behaviour(86)
async def test_ping_is_answered_between_the_fragments_that_we_send(pair: Pair) -> None:
    async def items() -> AsyncGenerator[str, None]:
        yield "Hel"
        await peer.send(PING, b"abc")
        await sleep(1)
        yield "lo"

    async with pair() as (ws, peer):
        await ws.send(items())
        first, pong, second = await read_frames(peer, 3)
        assert (first.opcode, first.payload) == (TEXT, b"Hel")
        assert (pong.opcode, pong.payload) == (PONG, b"abc")
        assert (second.opcode, second.payload) == (CONT, b"lo")


@pytest.mark.behaviour(86)
async def test_pongs_to_a_peer_that_does_not_read_stay_within_the_write_limit(pair: Pair) -> None:
    async with pair(max_buffer_size=1000, write_limit=2000) as (ws, peer):
        for number in range(1000):
            await peer.send(PING, b"%03d" % number + b"x" * 100)
        await sleep(1)
        # One chunk that came when there was room, and one Pong over it.
        assert ws._transport.write_buffer_size <= 2000 + 1000 + 2 * 109
        payloads = []
        with move_on_after(10):
            while True:
                pong = await peer.read_frame()
                assert pong.opcode == PONG
                payloads.append(pong.payload[:3])
        assert payloads[-1] == b"999"
        assert payloads == sorted(set(payloads))
        # What was written, what was on its way and the newest; not a thousand.
        assert 10 <= len(payloads) <= 40
        assert ws.open


@pytest.mark.behaviour(86)
async def test_newest_ping_is_answered_when_the_peer_reads_again(pair: Pair) -> None:
    async with pair(max_buffer_size=300, write_limit=100) as (ws, peer):
        with move_on_after(1):
            await ws.send(b"x" * 1000)
        for number in range(1000):
            await peer.send(PING, b"%d" % number)
        await sleep(1)
        assert (await peer.read_frame()).payload == b"x" * 1000
        assert (await peer.read_frame()).payload == b"999"
        await peer.send(PING, b"last")
        assert (await peer.read_frame()).payload == b"last"
        assert await is_silent(peer)


@pytest.mark.behaviour(86)
async def test_flood_of_empty_pings_is_bounded_when_the_peer_does_not_read(pair: Pair) -> None:
    async with pair(max_buffer_size=3000, write_limit=1000) as (ws, peer):
        # The smallest Pings give the most Pongs a chunk.
        for _ in range(20):
            await peer.send_bytes(drawn(peer, PING) * 500)
        await peer.send(PING, b"newest")
        await sleep(1)
        # Of a chunk a client makes thrice as many bytes: its Pongs have masks.
        assert ws._transport.write_buffer_size <= 1000 + 3 * 3000
        pongs = []
        with move_on_after(10):
            while True:
                pongs.append(await peer.read_frame())
        assert pongs[-1].payload == b"newest"
        assert len(pongs) < 5000


@pytest.mark.behaviour(86)
async def test_ping_of_ours_goes_out_behind_the_newest_pong_when_the_peer_does_not_read(
    pair: Pair,
) -> None:
    async with pair(max_buffer_size=300, write_limit=(100, 99)) as (ws, peer):
        with move_on_after(1):
            await ws.send(b"x" * 1000)
        for number in range(100):
            await peer.send(PING, b"%d" % number)
        await sleep(1)
        ws._link.send_ping()  # that of keepalive, which waits for nothing
        await sleep(1)
        for number in range(100, 200):
            await peer.send(PING, b"%d" % number)
        await sleep(1)
        message, early, ping, late = await read_frames(peer, 4)
        assert message.payload == b"x" * 1000
        assert (early.opcode, early.payload) == (PONG, b"99")
        assert ping.opcode == PING
        assert (late.opcode, late.payload) == (PONG, b"199")


@pytest.mark.behaviour(86)
async def test_no_ping_is_answered_after_a_close(pair: Pair) -> None:
    async with pair() as (ws, peer):
        close = drawn(peer, CLOSE, close_payload(1000))
        await peer.send_bytes(drawn(peer, PING, b"1") + close + drawn(peer, PING, b"2"))
        await ws.wait_closed()
        pong, answer = await read_frames(peer, 2)
        assert (pong.opcode, pong.payload) == (PONG, b"1")
        assert (answer.opcode, answer.code) == (CLOSE, 1000)
        assert await peer.read_until_eof() == b""


@pytest.mark.behaviour(86)
async def test_no_ping_is_answered_behind_our_own_close(pair: Pair) -> None:
    async with pair(close_timeout=100) as (ws, peer), create_task_group() as tasks:
        tasks.start_soon(ws.close)
        await sleep(1)
        await peer.send(PING, b"1")
        await peer.answer_close()
        await peer.finish()
        await ws.wait_closed()
        assert peer.buffer == b""


# The classes, alone.


def closed() -> ConnectionClosed:
    return ConnectionClosedOK(Close(1000), Close(1000), True)


async def test_pings_give_a_payload_that_none_of_them_has() -> None:
    given = iter([b"aaaa", b"aaaa", b"aaaa", b"bbbb"])

    def give(size: int) -> bytes:
        assert size == 4
        return next(given)

    pings = Pings(give)
    pings.add(pings.new_payload())
    assert pings.new_payload() == b"bbbb"


async def test_old_ping_of_keepalive_takes_nobody_along_who_has_its_payload_now() -> None:
    pings = Pings()
    pings.add_keepalive(b"same")
    pings.receive_pong(b"same")
    waiter = pings.add(b"same")
    for number in range(100):
        pings.add_keepalive(b"%d" % number)
    assert not waiter.done
    pings.receive_pong(b"same")
    assert waiter.done


async def test_pings_check_only_what_is_pending() -> None:
    pings = Pings()
    pings.check(b"1")
    pings.add(b"1")
    pings.check(b"2")
    with pytest.raises(ConcurrencyError, match=r"^a ping with the payload b'1' is still waiting"):
        pings.check(b"1")
    pings.receive_pong(b"1")
    pings.check(b"1")


async def test_pings_give_the_latency_of_the_one_that_is_answered() -> None:
    pings = Pings()
    pings.add(b"1")
    await sleep(2)
    pings.add(b"2")
    pings.add(b"3")
    await sleep(1)
    assert pings.receive_pong(b"2") == pytest.approx(1)
    assert pings.receive_pong(b"1") is None
    assert pings.receive_pong(b"3") == pytest.approx(1)


async def test_pings_fail_all_that_are_pending_and_no_other() -> None:
    pings = Pings()
    answered, first, second = pings.add(b"1"), pings.add(b"2"), pings.add(b"3")
    pings.receive_pong(b"1")
    pings.fail(closed)
    assert await answered < 1
    for waiter in (first, second):
        with pytest.raises(ConnectionClosedOK):
            await waiter
    assert pings.receive_pong(b"2") is None


async def test_pings_keep_the_newest_of_keepalive_and_all_others() -> None:
    pings = Pings()
    others = [pings.add(b"other %d" % number) for number in range(20)]
    kept = [pings.add_keepalive(b"%d" % number) for number in range(17)]
    pings.check(b"0")
    with pytest.raises(ConcurrencyError):
        pings.check(b"1")
    assert pings.receive_pong(b"16") is not None
    assert all(waiter.done for waiter in others)
    assert [waiter.done for waiter in kept] == [False] + [True] * 16


async def test_pong_waiter_is_done_when_it_was_answered_or_failed() -> None:
    pings = Pings()
    answered, failed = pings.add(b"1"), pings.add(b"2")
    assert not answered.done
    pings.receive_pong(b"1")
    assert answered.done
    assert not failed.done
    pings.fail(closed)
    assert failed.done


async def test_latency_is_more_than_0_when_the_clock_of_the_loop_stands_still() -> None:
    pings = Pings()
    waiter: PongWaiter = pings.add(b"1")
    pings.receive_pong(b"1")
    assert 0 < await waiter < 1
