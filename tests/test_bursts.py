"""Many short messages that come together, and are answered together."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

import anyws
from tests.sockets import open_peer, raw_client, serving
from tests.wire import BINARY, CLOSE, CONT, MASK, PING, TEXT, close_payload, frame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio

COUNT = 200
LIMIT = 65536  # the high-water mark of what is not sent, if none is chosen
BURST = b"".join(frame(TEXT, b"%d" % number, mask=MASK) for number in range(COUNT))


async def answered(handler: Callable[[anyws.Connection], Awaitable[None]], size: int) -> bytes:
    """Send a burst to a handler, and give so many bytes of what it answers."""
    async with serving(handler, compression=None) as server, raw_client(server.port) as peer:
        await open_peer(peer)
        await peer.send_bytes(BURST)
        data = await peer.read(size)
        await peer.finish()
    return data


async def test_burst_is_echoed_in_its_order() -> None:
    async def echo(ws: anyws.Connection) -> None:
        async for message in ws:
            await ws.send(message)

    expected = b"".join(frame(TEXT, b"%d" % number) for number in range(COUNT))
    assert await answered(echo, len(expected)) == expected


# Around what the two forms of a length hold.
PAYLOADS: list[str | bytes] = [
    "",
    "a",
    "b" * 124,
    "c" * 125,
    "d" * 126,
    "\N{SNOWMAN}" * 41,
    "\N{SNOWMAN}" * 42,
    b"e",
]


async def test_all_kinds_of_messages_leave_in_their_order() -> None:
    async def answer(ws: anyws.Connection) -> None:
        async for message in ws:
            for payload in PAYLOADS:
                await ws.send(payload)
            await ws.send(message, text=False)
            if message == "100":
                await ws.send(["f", "g"])
                await ws.ping(b"ping")
                await ws.send(bytearray(b"h"))
                ws.send_nowait("i")
                await ws.send(b"j" * 40_000)
                anyws.broadcast([ws], "k")

    expected = b""
    for number in range(COUNT):
        for payload in PAYLOADS:
            data = payload.encode() if isinstance(payload, str) else payload
            expected += frame(TEXT if isinstance(payload, str) else BINARY, data)
        expected += frame(BINARY, b"%d" % number)
        if number == 100:
            expected += frame(TEXT, b"f", fin=False) + frame(CONT, b"g")
            expected += frame(PING, b"ping") + frame(BINARY, b"h")
            expected += frame(TEXT, b"i") + frame(BINARY, b"j" * 40_000) + frame(TEXT, b"k")
    assert await answered(answer, len(expected)) == expected


async def test_all_leave_before_the_close_frame() -> None:
    async def answer_and_close(ws: anyws.Connection) -> None:
        async for message in ws:
            await ws.send(message)
            if message == "100":
                await ws.close(4000, "enough")

    expected = b"".join(frame(TEXT, b"%d" % number) for number in range(101))
    expected += frame(CLOSE, close_payload(4000, "enough"))
    assert await answered(answer_and_close, len(expected)) == expected


async def test_text_without_utf8_is_refused_and_the_others_leave() -> None:
    async def answer(ws: anyws.Connection) -> None:
        async for message in ws:
            with pytest.raises(ValueError, match="surrogates"):
                await ws.send("\ud800")
            await ws.send(message)

    expected = b"".join(frame(TEXT, b"%d" % number) for number in range(COUNT))
    assert await answered(answer, len(expected)) == expected


async def test_each_message_counts_as_soon_as_it_is_sent() -> None:
    async def answer(ws: anyws.Connection) -> None:
        size = 0
        for count in range(1, COUNT + 1):
            message = await ws.recv()
            await ws.send(message)
            size += len(message)
            stats = ws.stats
            assert (stats.messages_sent, stats.bytes_sent) == (count, size)
        await ws.send("end")

    async with serving(answer, compression=None) as server, raw_client(server.port) as peer:
        await open_peer(peer)
        await peer.send_bytes(BURST)
        await peer.read_until(frame(TEXT, b"end"))
        await peer.finish()
    assert server.stats.total.messages_sent == COUNT + 1


async def test_messages_count_that_an_abort_drops() -> None:
    async def answer_and_abort(ws: anyws.Connection) -> None:
        async for message in ws:
            await ws.send(message)
            if message == "20":
                ws.abort()
                return

    async with serving(answer_and_abort, compression=None) as server:
        async with raw_client(server.port) as peer:
            await open_peer(peer)
            await peer.send_bytes(BURST)
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await peer.read(len(BURST))
        while server.stats.open:
            await checkpoint()  # the test's own time-out ends it
        total = server.stats.total
    assert (total.messages_sent, total.bytes_sent) == (21, 10 + 2 * 11)


async def test_sender_waits_when_the_peer_does_not_read() -> None:
    sizes = []

    async def send_all(ws: anyws.Connection) -> None:
        async def flood() -> None:
            while True:
                await ws.send("x" * 100)

        await ws.recv()
        async with anyio.create_task_group() as tg:
            tg.start_soon(flood)
            while ws._transport.write_buffer_size <= LIMIT:
                await checkpoint()  # the test's own time-out ends it
            for _ in range(10):
                await checkpoint()
            sizes.append(ws._transport.write_buffer_size)
            tg.cancel_scope.cancel()
        ws.abort()

    async with serving(send_all, compression=None) as server, raw_client(server.port) as peer:
        await open_peer(peer)
        await peer.send_bytes(BURST)
        while not sizes:
            await checkpoint()  # likewise
    assert LIMIT < sizes[0] < LIMIT + 2 * 102


async def test_burst_of_a_client_is_masked() -> None:
    texts = [str(number) for number in range(COUNT)]

    async def echo(ws: anyws.Connection) -> None:
        async for message in ws:
            await ws.send(message)

    async with (
        serving(echo, compression=None) as server,
        anyws.connect(f"ws://127.0.0.1:{server.port}/", compression=None) as ws,
    ):
        for text in texts:
            await ws.send(text)
        assert [await ws.recv() for _ in texts] == texts
        assert (ws.stats.messages_sent, ws.stats.bytes_sent) == (COUNT, len("".join(texts)))


async def test_no_more_is_gathered_than_leaves_room_for_it() -> None:
    sizes = []

    async def answer(ws: anyws.Connection) -> None:
        await ws.recv()
        for _ in range(1000):
            await ws.send("x" * 125)
            ws._inbox.fairness.renew()  # as calls do that write nothing
            transport = ws._transport
            waiting = len(transport.gathered) if transport.gathering else 0
            sizes.append((waiting, transport.write_buffer_size + 127 * waiting))

    async with serving(answer, compression=None) as server, raw_client(server.port) as peer:
        await open_peer(peer)
        await peer.send_bytes(BURST)
        await peer.read(1000 * 127)
        await peer.finish()
    assert max(count for count, _ in sizes) <= 64
    assert max(size for _, size in sizes) <= LIMIT


async def test_message_waits_for_one_in_fragments_that_has_begun_before() -> None:
    async def answer(ws: anyws.Connection) -> None:
        await ws.recv()
        for text in "abc":
            await ws.send(text)
        ws._outbox.begin_fragments()
        ws._outbox._fragmenter = 0  # another task
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ws.send("too early")
        assert scope.cancelled_caught
        ws._outbox.end_fragments()
        await ws.send("d")

    expected = b"".join(frame(TEXT, text) for text in (b"a", b"b", b"c", b"d"))
    assert await answered(answer, len(expected)) == expected


@pytest.mark.parametrize("write_limit", [1, 4, 1000, None])
async def test_others_run_while_short_messages_are_sent(write_limit: int | None) -> None:
    turns = 0

    async def answer(ws: anyws.Connection) -> None:
        async def count() -> None:
            nonlocal turns
            while True:
                await checkpoint()
                turns += 1

        async with anyio.create_task_group() as tg:
            tg.start_soon(count)
            await checkpoint()
            for _ in range(640):
                await ws.send("x")
            tg.cancel_scope.cancel()

    async with (
        serving(answer, compression=None, write_limit=write_limit) as server,
        raw_client(server.port) as peer,
    ):
        await open_peer(peer)
        await peer.read(640 * 3)
        await peer.finish()
    assert turns >= 8


async def test_others_run_while_one_task_sends_to_many_connections() -> None:
    connections: list[anyws.Connection] = []

    async def wait(ws: anyws.Connection) -> None:
        connections.append(ws)
        await ws.wait_closed()

    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await checkpoint()
            turns += 1

    async with serving(wait, compression=None) as server, AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(anyws.connect(f"ws://127.0.0.1:{server.port}/"))
        async with anyio.create_task_group() as tg:
            tg.start_soon(count)
            await checkpoint()
            for _ in range(32):
                for ws in connections:
                    await ws.send("x")
            tg.cancel_scope.cancel()
    assert len(connections) == 20
    assert turns >= 8
