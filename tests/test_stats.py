"""What `ws.stats` counts, in memory and on the loopback interface.

What `server.stats` counts stands in `test_server_stats`.
"""

from __future__ import annotations

import dataclasses
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from anyws import _stalls
from anyws.testing import memory_stream_pair
from tests.endings import both_roles, closes_well
from tests.receiving import DEFLATE, RSV1, deflate
from tests.sending import fragments
from tests.sockets import open_peer, serving
from tests.tls import client_context, server_context
from tests.wire import BINARY, CONT, MASK, PING, PONG, REQUEST, TEXT, Peer, frame

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.endings import Pair

pytestmark = pytest.mark.anyio
virtual = pytest.mark.virtual_time

HEAD = 2  # bytes of the header of a small frame of a server; a client's key has 4 more
KEY = 4


def counted(stats: anyws.Stats, *names: str) -> tuple[float, ...]:
    return tuple(getattr(stats, name) for name in names)


def received(stats: anyws.Stats) -> tuple[float, ...]:
    return counted(stats, "messages_received", "bytes_received", "wire_bytes_received")


def sent(stats: anyws.Stats) -> tuple[float, ...]:
    return counted(stats, "messages_sent", "bytes_sent", "wire_bytes_sent")


async def until_idle() -> None:
    """Wait until nothing happens any more; in virtual time that takes none."""
    await anyio.sleep(1)


def cost(peer: Peer, *sizes: int) -> int:
    """Give the bytes of small frames that the peer sends."""
    return sum(HEAD + KEY * peer.masks + size for size in sizes)


# A snapshot.


@virtual
@both_roles
async def test_all_is_0_when_nothing_has_happened(pair: Pair) -> None:
    async with pair() as (ws, peer):
        assert ws.stats == anyws.Stats()
        await peer.finish()


@virtual
@both_roles
async def test_stats_are_a_snapshot_that_does_not_change(pair: Pair) -> None:
    async with pair() as (ws, peer):
        before = ws.stats
        await ws.send("abc")
        assert before.messages_sent == 0
        assert ws.stats.messages_sent == 1
        with pytest.raises(dataclasses.FrozenInstanceError):
            before.messages_sent = 1  # type: ignore[misc]  # that is the point
        await peer.finish()


@virtual
@both_roles
async def test_stats_can_be_read_after_the_end(pair: Pair) -> None:
    async with pair() as (ws, peer), anyio.create_task_group() as tasks:
        ours = Peer(peer.stream, masks=not peer.masks)
        await ws.send("abc")
        await peer.send(TEXT, b"na\xc3\xafve")
        assert await ws.recv() == "naïve"
        tasks.start_soon(closes_well, peer)
        await ws.close()
        # Both have sent a Close frame with a code.
        assert received(ws.stats) == (1, 6, cost(peer, 6, 2))
        assert sent(ws.stats) == (1, 3, cost(ours, 3, 2))


# Messages that come.


@virtual
@both_roles
@pytest.mark.parametrize("way", ["recv", "iteration", "not at all"])
async def test_messages_are_counted_however_they_are_received(pair: Pair, way: str) -> None:
    async with pair() as (ws, peer):
        mask = MASK if peer.masks else None
        payloads = [b"abc", b"", b"x" * 100]
        await peer.send_bytes(b"".join(frame(BINARY, data, mask=mask) for data in payloads))
        if way == "recv":
            assert [await ws.recv() for _ in payloads] == payloads
        elif way == "iteration":
            assert [await anext(ws) for _ in payloads] == payloads
        else:
            await until_idle()
        assert received(ws.stats) == (3, 103, cost(peer, 3, 0, 100))
        await peer.finish()


@virtual
@both_roles
async def test_message_in_fragments_is_counted_once_it_is_complete(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"ab", fin=False)
        await until_idle()
        assert received(ws.stats) == (0, 0, cost(peer, 2))
        await peer.send(CONT, b"c")
        assert await ws.recv() == "abc"
        assert received(ws.stats) == (1, 3, cost(peer, 2, 1))
        await peer.finish()


@virtual
@both_roles
@pytest.mark.parametrize("left", [False, True], ids=["read-to-its-end", "left-midway"])
async def test_message_of_recv_streaming_is_counted_once_it_is_complete(
    pair: Pair, left: bool
) -> None:
    async with pair() as (ws, peer):
        async with ws.recv_streaming() as parts:
            await peer.send(TEXT, b"ab", fin=False)
            assert await anext(parts) == "ab"
            assert received(ws.stats) == (0, 0, cost(peer, 2))
            if not left:
                await peer.send(CONT, b"c")
                assert await anext(parts) == "c"
        if left:
            await peer.send(CONT, b"c")
        await peer.send(TEXT, b"next")
        assert await ws.recv() == "next"
        assert received(ws.stats) == (2, 7, cost(peer, 2, 1, 4))
        await peer.finish()


@virtual
@both_roles
async def test_bytes_that_come_are_counted_inflated_and_on_the_wire_as_they_came(
    pair: Pair,
) -> None:
    async with pair(**DEFLATE) as (ws, peer):
        compressed = deflate(b"x" * 1000)
        await peer.send(BINARY, compressed, rsv=RSV1)
        assert await ws.recv() == b"x" * 1000
        assert received(ws.stats) == (1, 1000, cost(peer, len(compressed)))
        await peer.finish()


@virtual
async def test_what_is_glued_to_the_opening_handshake_is_counted() -> None:
    async with serving_glued(b"glued") as (ws, peer):
        assert await ws.recv() == "glued"
        assert received(ws.stats) == (1, 5, cost(peer, 5))


@asynccontextmanager
async def serving_glued(message: bytes) -> AsyncGenerator[tuple[anyws.Connection, Peer], None]:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n" + frame(TEXT, message, mask=MASK))
    async with far, anyws.wrap_server(near, compression=None) as ws:
        yield ws, Peer(far, masks=True)
        await far.aclose()


@virtual
@both_roles
async def test_messages_that_closing_drops_are_counted_too(pair: Pair) -> None:
    async with pair(max_queue=1) as (ws, peer), anyio.create_task_group() as tasks:
        for _ in range(3):
            await peer.send(TEXT, b"abc")
        await until_idle()
        assert ws.stats.messages_received == 1  # the others wait to be decoded
        tasks.start_soon(closes_well, peer)
        await ws.close()
        assert received(ws.stats)[:2] == (3, 9)


@virtual
@both_roles
async def test_what_comes_behind_a_close_frame_is_no_message(pair: Pair) -> None:
    async with pair() as (ws, peer):
        mask = MASK if peer.masks else None
        close = frame(8, b"\x03\xe8", mask=mask)
        await peer.send_bytes(close + frame(TEXT, b"abc", mask=mask))
        await anyio.sleep(0.1)
        assert received(ws.stats) == (0, 0, cost(peer, 2, 3))
        await peer.send(TEXT, b"d")
        await anyio.sleep(0.1)
        assert received(ws.stats) == (0, 0, cost(peer, 2, 3, 1))
        await peer.finish()


# Messages that leave.


@virtual
@both_roles
async def test_messages_are_counted_however_they_are_sent(pair: Pair) -> None:
    async with pair() as (ws, peer):
        ours = Peer(peer.stream, masks=not peer.masks)
        await ws.send("naïve")
        assert sent(ws.stats)[:2] == (1, 6)
        await ws.send(bytearray(10), text=False)
        ws.send_nowait(memoryview(b"abc"))
        assert sent(ws.stats)[:2] == (3, 19)
        await ws.send(["ab", "c"])
        assert sent(ws.stats)[:2] == (4, 22)
        await ws.send(fragments(b"ab", b"c"))
        assert sent(ws.stats)[:2] == (5, 25)
        anyws.broadcast([ws], "abc")
        await anyws.broadcast_wait([ws], b"abc")
        await until_idle()
        sizes = (6, 10, 3, 2, 1, 2, 1, 0, 3, 3)
        assert sent(ws.stats) == (7, 31, cost(ours, *sizes))
        await peer.finish()


@virtual
@both_roles
async def test_large_message_is_counted(pair: Pair) -> None:
    async with pair(write_limit=None, max_buffer_size=2**20) as (ws, peer):
        await ws.send(bytes(70000))
        await until_idle()
        assert sent(ws.stats) == (1, 70000, 70010 + KEY * (not peer.masks))
        await peer.finish()


@virtual
@both_roles
async def test_message_that_is_refused_is_not_counted(pair: Pair) -> None:
    async with pair() as (ws, peer):
        with pytest.raises(ValueError, match="surrogates"):
            await ws.send("\ud800")
        with pytest.raises(TypeError):
            ws.send_nowait(5)  # type: ignore[arg-type]  # that is the point
        assert sent(ws.stats) == (0, 0, 0)
        await peer.finish()
        await ws.wait_closed()
        with pytest.raises(anyws.ConnectionClosed):
            await ws.send("abc")
        assert ws.stats.messages_sent == 0


@virtual
@both_roles
async def test_bytes_that_leave_are_counted_before_compression(pair: Pair) -> None:
    async with pair(**DEFLATE) as (ws, peer):
        await ws.send("x" * 1000)
        await until_idle()
        stats = ws.stats
        assert (stats.messages_sent, stats.bytes_sent) == (1, 1000)
        assert 0 < stats.wire_bytes_sent < 50
        await peer.finish()


@virtual
@both_roles
async def test_what_an_abort_drops_was_sent_but_has_not_left(pair: Pair) -> None:
    async with pair(max_buffer_size=256) as (ws, _):
        await ws.send(bytes(10000))
        ws.abort()
        await ws.wait_closed()
        stats = ws.stats
        assert (stats.messages_sent, stats.bytes_sent) == (1, 10000)
        assert stats.wire_bytes_sent < 10000
        assert stats.peak_write_buffer > 10000


# Pings and Pongs.


@virtual
@both_roles
async def test_pings_and_pongs_are_counted(pair: Pair) -> None:
    async with pair(ping_interval=20) as (ws, peer):
        await ws.ping(b"a")
        await ws.pong()
        await peer.send(PONG, b"a")
        await peer.send(PONG, b"unsolicited")
        for number in range(3):
            await peer.send(PING, bytes([number]))
        await until_idle()
        names = ("pings_sent", "pongs_sent", "pings_received", "pongs_received")
        assert counted(ws.stats, *names) == (1, 4, 3, 2)
        await anyio.sleep(20)
        assert counted(ws.stats, *names) == (2, 4, 3, 2)  # that of keepalive
        assert ws.stats.messages_received == ws.stats.messages_sent == 0
        await peer.finish()


@virtual
@both_roles
async def test_pong_whose_place_a_newer_one_takes_is_not_counted(pair: Pair) -> None:
    async with pair(write_limit=100, max_buffer_size=1000) as (ws, peer):
        ws.send_nowait(bytes(5000))
        for number in range(20):
            await peer.send(PING, bytes([number]))
            await anyio.sleep(1)
        assert (await peer.read_frame()).payload == bytes(5000)
        pongs = [(await peer.read_frame()).payload]
        while pongs[-1] != bytes([19]):
            pongs.append((await peer.read_frame()).payload)
        assert len(pongs) < 20
        assert counted(ws.stats, "pings_received", "pongs_sent") == (20, len(pongs))
        await peer.finish()


# What waited, and for how long.


@pytest.fixture
def virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure stalls by the clock of the event loop, which is the test's own."""
    monkeypatch.setattr(_stalls, "monotonic", anyio.current_time)


@virtual
@both_roles
@pytest.mark.usefixtures("virtual_clock")
async def test_longest_stall_of_the_reader_is_that_of_a_full_inbox(pair: Pair) -> None:
    async with pair(max_queue=(2, 0), ping_interval=None) as (ws, peer):
        await peer.send(TEXT, b"1")
        await until_idle()
        assert ws.stats.longest_read_stall == 0
        await ws.recv()
        for seconds in (5, 7, 3):
            for _ in range(2):
                await peer.send(TEXT, b"2")
            await anyio.sleep(seconds)
            for _ in range(2):
                await ws.recv()
            await anyio.sleep(100)  # it reads
        assert ws.stats.longest_read_stall == pytest.approx(7)
        await peer.finish()


@virtual
@both_roles
@pytest.mark.usefixtures("virtual_clock")
async def test_stall_of_the_reader_ends_with_the_connection(pair: Pair) -> None:
    async with pair(max_queue=1, ping_interval=None) as (ws, peer):
        await peer.send(TEXT, b"1")
        await anyio.sleep(2)
        assert ws.stats.longest_read_stall == pytest.approx(2)  # as far as it has come
        ws.abort()
        await ws.wait_closed()
        await anyio.sleep(100)
        assert ws.stats.longest_read_stall == pytest.approx(2)
        assert await ws.recv() == "1"
        assert ws.stats.longest_read_stall == pytest.approx(2)
        await peer.finish()


@virtual
@both_roles
@pytest.mark.usefixtures("virtual_clock")
async def test_longest_stall_of_the_writer_is_that_of_who_waits_for_room(pair: Pair) -> None:
    limits: dict[str, Any] = {"write_limit": 1000, "max_buffer_size": 256}
    async with pair(**limits) as (ws, peer), anyio.create_task_group() as tasks:
        ws.send_nowait(bytes(5000))
        await anyio.sleep(10)
        assert ws.stats.longest_write_stall == 0  # nobody waits
        tasks.start_soon(ws.send, b"first")
        await anyio.sleep(3)
        tasks.start_soon(ws.send, b"second")
        await anyio.sleep(4)
        assert ws.stats.longest_write_stall == pytest.approx(7)  # as far as it has come
        await peer.read(5000)
        await until_idle()
        await anyio.sleep(100)
        assert ws.stats.longest_write_stall == pytest.approx(7)
        assert ws.stats.peak_write_buffer == 5004 + KEY * (not peer.masks)
        await peer.finish()


@virtual
@both_roles
@pytest.mark.usefixtures("virtual_clock")
async def test_stall_of_the_writer_ends_when_who_waits_is_cancelled(pair: Pair) -> None:
    async with pair(write_limit=1000, max_buffer_size=256) as (ws, peer):
        with anyio.move_on_after(5):
            await ws.send(bytes(5000))
        await anyio.sleep(100)
        assert ws.stats.longest_write_stall == pytest.approx(5)
        await peer.finish()


@virtual
@both_roles
async def test_peaks_of_the_inbox_are_what_has_waited_at_a_time(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send(TEXT, b"na\xc3\xafve")
        await peer.send(BINARY, b"xx")
        await until_idle()
        assert [await ws.recv() for _ in range(2)] == ["naïve", b"xx"]
        async with ws.recv_streaming() as parts:
            await peer.send(BINARY, b"abc", fin=False)
            await peer.send(CONT, b"def")
            await until_idle()
            assert [part async for part in parts] == [b"abc", b"def"]
        await peer.send(TEXT, b"x")
        await ws.recv()
        assert counted(ws.stats, "peak_inbox_messages", "peak_inbox_bytes") == (2, 7)
        await peer.finish()


# Over each kind of transport.


@pytest.fixture(params=["streams", "native"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Let connections run over anyio's streams, or over transports of our own."""
    monkeypatch.setenv("ANYWS_NATIVE_TRANSPORTS", str(int(request.param == "native")))
    return bool(request.param == "native")


MESSAGES: list[str | bytes] = [
    "naïve",
    b"",
    bytes(200),
    "x" * 70000,
    bytes(2**20),
    *["burst"] * 100,
]
SIZES = [6, 0, 200, 70000, 2**20, *[5] * 100]


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.usefixtures("native")
async def test_both_ends_count_the_same_on_the_loopback_interface(
    secure: bool, compression: str | None
) -> None:
    served: list[anyws.Connection] = []

    async def echo(ws: anyws.Connection) -> None:
        served.append(ws)
        async for message in ws:
            await ws.send(message)

    arguments: dict[str, Any] = {"compression": compression, "max_size": None}
    async with serving(echo, ssl=server_context() if secure else None, **arguments) as server:
        uri = f"{'wss' if secure else 'ws'}://localhost:{server.port}/"
        if secure:
            arguments["ssl"] = client_context()
        async with anyws.connect(uri, **arguments) as ws:
            for message in MESSAGES[:5]:
                await ws.send(message)
                assert await ws.recv() == message
            for message in MESSAGES[5:]:
                ws.send_nowait(message)
            for message in MESSAGES[5:]:
                assert await ws.recv() == message
    (theirs,) = served
    expected = (len(MESSAGES), sum(SIZES))
    for stats in (ws.stats, theirs.stats):
        assert received(stats)[:2] == sent(stats)[:2] == expected
    assert ws.stats.wire_bytes_sent == theirs.stats.wire_bytes_received
    assert ws.stats.wire_bytes_received == theirs.stats.wire_bytes_sent
    if compression is None:
        # Headers of 2, 4 and 10 bytes, those of a client with a key; and the Close frames.
        headers = 102 * 2 + 4 + 2 * 10
        assert theirs.stats.wire_bytes_sent == sum(SIZES) + headers + 4
        assert ws.stats.wire_bytes_sent == sum(SIZES) + headers + 105 * 4 + 8
    else:
        assert ws.stats.wire_bytes_sent < 10000


@pytest.mark.usefixtures("native")
async def test_write_buffer_that_a_peer_does_not_read_is_seen() -> None:
    size = 2**24  # more than the system holds
    release = anyio.Event()

    async def send(ws: anyws.Connection) -> None:
        ws.send_nowait(bytes(size))
        assert ws.stats.messages_sent == 1
        assert size // 4 < ws.stats.peak_write_buffer <= size + 10
        release.set()
        await ws.send("behind")
        assert ws.stats.longest_write_stall > 0
        assert ws.stats.peak_write_buffer > size // 4

    async with (
        serving(send, compression=None, handler_errors="raise") as server,
        await anyio.connect_tcp("127.0.0.1", server.port) as stream,
    ):
        peer = Peer(stream, masks=True)
        await open_peer(peer)
        await release.wait()
        await peer.read(size + 10)
        assert (await peer.read_frame()).payload == b"behind"
        await peer.answer_close()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.usefixtures("native")
async def test_what_waits_for_a_peer_that_does_not_read_has_not_left(secure: bool) -> None:
    size = 2**24  # more than the system holds
    arrived = anyio.Event()
    over = anyio.Event()

    async def send(ws: anyws.Connection) -> None:
        await ws.send("first")
        await arrived.wait()
        ws.send_nowait(bytes(size))
        before = ws.stats.wire_bytes_sent
        ws.abort()
        assert HEAD + 5 <= before == ws.stats.wire_bytes_sent < size
        over.set()

    context = server_context() if secure else None
    tls: dict[str, Any] = {}
    if secure:
        tls = {"ssl_context": client_context(), "tls_standard_compatible": False}
    async with (
        serving(send, ssl=context, compression=None, handler_errors="raise") as server,
        await anyio.connect_tcp("localhost", server.port, **tls) as stream,
    ):
        peer = Peer(stream, masks=True)
        await open_peer(peer)
        assert (await peer.read_frame()).payload == b"first"
        arrived.set()
        await over.wait()
