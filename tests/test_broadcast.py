"""broadcast() and broadcast_wait(): one message to many connections.

Owns lines 92 to 95 of docs/behaviours.md.
"""

from __future__ import annotations

import logging
import zlib
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import anyio
import pytest
from anyio import create_task_group, fail_after
from anyio.lowlevel import checkpoint

import anyws
from anyws import broadcast, broadcast_wait, sansio
from anyws._cancellation import bare
from anyws.testing import connection_pair
from tests.blocks import settle
from tests.endings import takes
from tests.wire import BINARY, CLOSE, CONT, TEXT, client_and_peer, server_and_peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from tests.wire import Peer

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


async def send(
    connections: Iterable[anyws.Connection], message: Any, wait: bool, **arguments: Any
) -> None:
    if wait:
        await broadcast_wait(connections, message, **arguments)
    else:
        broadcast(connections, message, **arguments)


either = pytest.mark.parametrize("wait", [False, True], ids=["broadcast", "broadcast_wait"])


@asynccontextmanager
async def servers(
    count: int, **arguments: Any
) -> AsyncGenerator[tuple[list[anyws.Connection], list[Peer]], None]:
    """Give connections of a server, and a literal client of each."""
    async with AsyncExitStack() as stack:
        pairs = [
            await stack.enter_async_context(server_and_peer(close_timeout=1, **arguments))
            for _ in range(count)
        ]
        yield [ws for ws, _ in pairs], [peer for _, peer in pairs]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Collect the frames that are encoded."""
    frames: list[bytes] = []
    encode = sansio.encode_frame

    def encode_and_note(*args: Any, **kwargs: Any) -> bytes:
        frames.append(encode(*args, **kwargs))
        return frames[-1]

    monkeypatch.setattr("anyws.sansio._protocol.encode_frame", encode_and_note)
    return frames


# What may be sent (line 92).


@pytest.mark.behaviour(92)
@either
@pytest.mark.parametrize(
    ("message", "text", "opcode", "payload"),
    [
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", None, TEXT, b"caf\xc3\xa9"),
        ("abc", False, BINARY, b"abc"),
        (b"abc", None, BINARY, b"abc"),
        (b"abc", True, TEXT, b"abc"),
        (bytearray(b"abc"), None, BINARY, b"abc"),
        (memoryview(b"abcdef")[::2], None, BINARY, b"ace"),
        ("", None, TEXT, b""),
    ],
)
async def test_str_and_bytes_reach_everybody(
    wait: bool, message: Any, text: bool | None, opcode: int, payload: bytes
) -> None:
    async with servers(3) as (connections, peers):
        await send(connections, message, wait, text=text)
        for peer in peers:
            frame = await peer.read_frame()
            assert (frame.opcode, frame.payload) == (opcode, payload)


@pytest.mark.behaviour(92)
@either
@pytest.mark.parametrize(
    ("message", "error"),
    [(["a", "b"], TypeError), (iter("a"), TypeError), (1, TypeError), ("\ud800", ValueError)],
    ids=["list", "iterator", "int", "surrogate"],
)
async def test_iterable_is_a_typeerror_and_nothing_is_sent(
    wait: bool, message: Any, error: type[Exception]
) -> None:
    async with servers(1) as (connections, (peer,)):
        with pytest.raises(error):
            await send(connections, message, wait)
        await send(connections, "next", wait)
        assert (await peer.read_frame()).payload == b"next"


@pytest.mark.behaviour(92)
async def test_wrong_arguments_are_told_before_anything_is_sent() -> None:
    async with servers(1) as (connections, (peer,)):
        with pytest.raises(ValueError, match="slow 'wait', expected 'close' or 'drop'"):
            broadcast(connections, "a", slow="wait")  # type: ignore[arg-type]  # likewise
        with pytest.raises(TypeError, match=r"slow \[\], expected 'close' or 'drop'"):
            broadcast(connections, "a", slow=[])  # type: ignore[arg-type]  # that is it
        with pytest.raises(ValueError, match="timeout of 0 seconds is not above 0"):
            await broadcast_wait(connections, "a", timeout=0)
        broadcast(connections, "next")
        assert (await peer.read_frame()).payload == b"next"


@either
async def test_nobody_is_reached_when_there_is_nobody(wait: bool) -> None:
    await send([], "a", wait)


# Once for all who have agreed on the same.


@either
async def test_frame_is_encoded_once(wait: bool, encoded: list[bytes]) -> None:
    async with servers(5) as (connections, peers):
        await send(connections, "abc", wait)
        assert encoded == [b"\x81\x03abc"]
        for peer in peers:
            assert (await peer.read_frame()).payload == b"abc"


async def test_frame_of_a_client_is_masked_anew_for_each(encoded: list[bytes]) -> None:
    async with (
        client_and_peer(close_timeout=1) as (one, peer),
        client_and_peer(close_timeout=1) as (other, other_peer),
    ):
        broadcast([one, other], b"abc")
        frames = [await peer.read_frame(), await other_peer.read_frame()]
        assert [frame.payload for frame in frames] == [b"abc", b"abc"]
        assert encoded[0][2:6] != encoded[1][2:6]


@pytest.mark.parametrize("takeover", [True, False])
async def test_compressed_message_is_encoded_once_and_understood_by_all(
    takeover: bool, encoded: list[bytes]
) -> None:
    message = "all the same, " * 100
    offer = DEFLATE if takeover else DEFLATE + "; server_no_context_takeover"
    async with servers(3, headers=offer + "\r\n", compression="deflate") as (connections, peers):
        inflaters = [zlib.decompressobj(-15) for _ in peers]

        async def read_all() -> list[str]:
            found = []
            for index, peer in enumerate(peers):
                frame = await peer.read_frame()
                if not takeover:
                    inflaters[index] = zlib.decompressobj(-15)
                data = inflaters[index].decompress(frame.payload + b"\x00\x00\xff\xff")
                found.append(data.decode())
            return found

        for index, ws in enumerate(connections):
            await ws.send(f"{index} {message}")  # each has a window of its own now
        assert await read_all() == [f"{index} {message}" for index in range(3)]
        encoded.clear()
        broadcast(connections, message)
        assert len(encoded) == 1
        assert len(encoded[0]) < 100
        assert await read_all() == [message] * 3
        for index, ws in enumerate(connections):
            await ws.send(f"{message} {index}")
        assert await read_all() == [f"{message} {index}" for index in range(3)]


async def test_those_who_agreed_on_something_else_get_frames_of_their_own(
    encoded: list[bytes],
) -> None:
    message = b"x" * 2000
    async with (
        servers(2) as (plain, plain_peers),
        servers(2, headers=DEFLATE + "\r\n", compression="deflate") as (deflate, deflate_peers),
    ):
        broadcast([*plain, *deflate], message)
        assert [len(frame) > 2000 for frame in encoded] == [True, False]
        for peer in plain_peers:
            assert (await peer.read_frame()).payload == message
        for peer in deflate_peers:
            payload = (await peer.read_frame()).payload
            inflater = zlib.decompressobj(-15)
            assert inflater.decompress(payload + b"\x00\x00\xff\xff") == message


class Rot13(sansio.Extension):
    """An extension that shares nothing."""

    name = "x-rot13"
    parameters = ()

    def wants(self, size: int) -> bool:
        return True

    def encode(self, payload: Any, *, fin: bool) -> bytes:
        return bytes(payload)[::-1]

    def decode(self, payload: Any, max_size: int | None, *, fin: bool) -> bytes:
        return bytes(payload)


async def test_extension_that_shares_nothing_encodes_for_each(encoded: list[bytes]) -> None:
    async with servers(2) as (connections, peers):
        for ws in connections:
            ws._protocol.extension = Rot13()
        broadcast(connections, b"abc")
        assert len(encoded) == 2
        for peer in peers:
            assert (await peer.read_frame()).payload == b"cba"


# Who is skipped (line 94).


@pytest.mark.behaviour(94)
@either
async def test_connections_that_are_not_open_are_skipped(wait: bool) -> None:
    async with servers(3) as (connections, peers):
        connections[0].abort()
        await connections[1].send_eof()
        with takes(0):
            await send(connections, "a", wait)
        assert (await peers[2].read_frame()).payload == b"a"
        assert (await peers[1].read_frame()).opcode == CLOSE


async def fragments(gate: anyio.Event) -> AsyncGenerator[str, None]:
    yield "first"
    await gate.wait()


@pytest.mark.behaviour(94)
async def test_connection_in_a_fragmented_message_is_skipped_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = anyio.Event()
    async with servers(2) as (connections, peers), create_task_group() as tg:
        tg.start_soon(connections[0].send, fragments(gate))
        assert (await peers[0].read_frame()).payload == b"first"
        with caplog.at_level(logging.WARNING, "anyws"):
            broadcast(connections, "a")
        assert [record.getMessage() for record in caplog.records] == [
            "message left out: a fragmented message is being sent"
        ]
        caplog.clear()
        assert (await peers[1].read_frame()).payload == b"a"
        gate.set()
        assert (await peers[0].read_frame()).fin
        broadcast(connections, "b")
        assert (await peers[0].read_frame()).payload == b"b"


async def test_broadcast_wait_waits_for_the_end_of_a_fragmented_message() -> None:
    gate = anyio.Event()
    async with servers(1) as (connections, (peer,)), create_task_group() as tg:
        tg.start_soon(connections[0].send, fragments(gate))
        assert (await peer.read_frame()).payload == b"first"
        tg.start_soon(broadcast_wait, connections, "a")
        await settle()
        gate.set()
        assert (await peer.read_frame()).opcode == CONT
        assert (await peer.read_frame()).payload == b"a"


# Who is slow (lines 93 and 95).


@pytest.mark.behaviour(93)
@pytest.mark.parametrize("slow", ["close", "drop"])
async def test_stalled_client_delays_nobody(slow: Literal["close", "drop"]) -> None:
    async with servers(3, max_buffer_size=400, write_limit=800) as (connections, peers):
        for turn in range(10):
            with takes(0):
                broadcast(connections, bytes([turn]) * 500, slow=slow)
                for peer in peers[1:]:
                    assert (await peer.read_frame()).payload == bytes([turn]) * 500
            await settle()


@pytest.mark.behaviour(95)
async def test_slow_connection_is_closed_with_1013() -> None:
    async with servers(2, max_buffer_size=400, write_limit=800) as (connections, peers):
        for _ in range(3):
            broadcast(connections, bytes(500))
            await peers[1].read_frame()
            await settle()
        assert not connections[0].open
        assert connections[1].open
        for _ in range(2):
            assert (await peers[0].read_frame()).payload == bytes(500)
        close = await peers[0].read_frame()
        assert (close.code, close.reason) == (1013, "too slow")


@pytest.mark.behaviour(95)
async def test_slow_connection_is_left_out_and_gets_the_next() -> None:
    async with servers(1, max_buffer_size=400, write_limit=800) as (connections, (peer,)):
        for turn in range(5):
            broadcast(connections, bytes([turn]) * 500, slow="drop")
            await settle()
        assert connections[0].open
        assert (await peer.read_frame()).payload == bytes([0]) * 500
        assert (await peer.read_frame()).payload == bytes([1]) * 500
        await settle()
        broadcast(connections, b"next", slow="drop")
        assert (await peer.read_frame()).payload == b"next"


@pytest.mark.behaviour(95)
async def test_connection_is_not_slow_at_its_high_water_mark() -> None:
    async with servers(1, max_buffer_size=400, write_limit=800) as (connections, (peer,)):
        broadcast(connections, bytes(796))  # in a frame of 800 bytes
        broadcast(connections, b"next")
        assert (await peer.read_frame()).payload == bytes(796)
        assert (await peer.read_frame()).payload == b"next"


@either
async def test_who_comes_later_understands_a_compressed_message_too(wait: bool) -> None:
    text = "the same words again and again " * 10
    async with connection_pair() as (client, server):
        await send([server], text, wait)
        async with connection_pair() as (late_client, late_server):
            await send([server, late_server], text, wait)
            assert await late_client.recv() == text
        assert [await client.recv(), await client.recv()] == [text, text]


@pytest.mark.behaviour(95)
async def test_broadcast_wait_waits_for_each_and_closes_those_that_take_too_long() -> None:
    async with servers(3, max_buffer_size=400, write_limit=800) as (connections, peers):

        async def read_late() -> None:
            await anyio.sleep(2)
            assert (await peers[1].read_frame()).payload == bytes(2000)

        async with create_task_group() as tg:
            tg.start_soon(read_late)
            with takes(3):
                await broadcast_wait(connections, bytes(2000), timeout=3)
        assert [ws.open for ws in connections] == [False, True, False]
        assert (await peers[0].read_frame()).payload == bytes(2000)
        assert (await peers[0].read_frame()).payload[:2] == (1013).to_bytes(2)


async def test_broadcast_wait_ends_with_the_connection() -> None:
    async with servers(2, max_buffer_size=400, write_limit=800) as (connections, _):
        with takes(1):
            async with create_task_group() as tg:
                tg.start_soon(broadcast_wait, connections, bytes(2000))
                await anyio.sleep(1)
                for ws in connections:
                    ws.abort()
        with fail_after(1):
            await broadcast_wait(connections, "a")


async def test_cancelled_broadcast_wait_leaves_messages_whole() -> None:
    async with servers(2, max_buffer_size=400, write_limit=800) as (connections, peers):
        with anyio.move_on_after(1):
            await broadcast_wait(connections, bytes(2000))
        for peer in peers:
            assert (await peer.read_frame()).payload == bytes(2000)
        broadcast(connections, "next")
        for peer in peers:
            assert (await peer.read_frame()).payload == b"next"


async def test_pair_of_connections_can_be_told_too() -> None:
    async with connection_pair() as (client, server):
        broadcast([client, server], "both " * 100)
        assert await client.recv() == await server.recv() == "both " * 100


class Interrupt(BaseException):
    """Stands in for KeyboardInterrupt: on asyncio that would stop the loop."""


async def test_interrupt_among_cancellations_stays_bare() -> None:
    cancelled = anyio.get_cancelled_exc_class()
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except cancelled as exc:
            found: BaseException = exc
            raise
    group = BaseExceptionGroup("", [found, BaseExceptionGroup("", [found, Interrupt()])])
    with pytest.raises((Interrupt, cancelled)) as raised:
        raise bare(group) from None
    assert raised.type is Interrupt


async def test_interrupt_of_broadcast_wait_stays_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupt(_: object) -> None:
        raise Interrupt

    monkeypatch.setattr("anyws._outbox.Outbox.drain", interrupt)
    async with servers(2, max_buffer_size=400, write_limit=800) as (connections, _):
        with pytest.raises(Interrupt):
            await broadcast_wait(connections, bytes(2000))


@either
async def test_what_is_no_connection_is_told_before_anything_is_sent(wait: bool) -> None:
    async with servers(1) as (connections, peers):
        wrong: Any = [*connections, 5]
        with pytest.raises(TypeError, match=r"^connections has a int, expected anyws\.Connection$"):
            await send(wrong, "hello", wait)
        connections[0].abort()
        assert await peers[0].read_until_eof() == b""
