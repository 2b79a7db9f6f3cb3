"""The seven invariants at the top of anyws/_connection.py, one test for each.

Owns the proof that each holds at all, before a peer of literal bytes; its edges stand with the
promises that need it.
"""

from __future__ import annotations

import ast
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

import anyws
from anyws.testing import memory_stream_pair
from tests.endings import both_roles
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
    split_frames,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

KIBIBYTE = 1024
LIMIT = 64 * KIBIBYTE  # what read_limit, write_limit and the stream of these tests hold by default


def masked(peer: Peer, opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return frame(opcode, payload, fin=fin, mask=MASK if peer.masks else None)


async def read_all(peer: Peer, data: bytearray, chunk_size: int = LIMIT) -> None:
    """Read until the stream ends, a little in each turn."""
    try:
        while True:
            data += await peer.stream.receive(chunk_size)
            await checkpoint()
    except anyio.EndOfStream:
        pass


@both_roles
async def test_invariant_1_the_reader_never_awaits_a_write(pair: Pair) -> None:
    async with pair() as (ws, peer):
        ws.send_nowait(b"x" * 4 * LIMIT)
        await anyio.sleep(1)
        # Our bytes do not leave any more, and each of these asks for more of them.
        for index in range(100):
            await peer.send(PING, str(index).encode())
            await peer.send(TEXT, str(index).encode())
            with anyio.fail_after(1):
                assert await ws.recv() == str(index)
        assert (await peer.read_frame()).opcode == BINARY
        pong = await peer.read_frame()
        assert (pong.opcode, pong.payload) == (PONG, b"99")
        await peer.finish()


@both_roles
async def test_invariant_2_a_frame_is_whole_whatever_is_cancelled(pair: Pair) -> None:
    sent: set[bytes] = set()

    async def send(number: int) -> None:
        message = b"%d," % number * 20_000
        await ws.send(message)
        sent.add(message)

    async def cancel_after(scope: anyio.CancelScope, turns: int) -> None:
        for _ in range(turns):
            await checkpoint()
        scope.cancel()

    async with pair() as (ws, peer):
        data = bytearray(peer.buffer)
        async with anyio.create_task_group() as readers:
            readers.start_soon(read_all, peer, data, 5_000)
            numbers = itertools.count(1000)
            for turns in range(0, 60, 4):
                async with anyio.create_task_group() as senders:
                    for _ in range(3):
                        senders.start_soon(send, next(numbers))
                    senders.start_soon(ws.ping)
                    senders.start_soon(peer.send, PING, b"ping")
                    senders.start_soon(cancel_after, senders.cancel_scope, turns)
            await ws.send(b"last")
            await anyio.sleep(1)
            readers.cancel_scope.cancel()
        frames, rest = split_frames(bytes(data))
        assert rest == b""
        assert {frame.opcode for frame in frames} == {BINARY, PING, PONG}
        *messages, last = [frame.payload for frame in frames if frame.opcode == BINARY]
        assert last == b"last"
        assert sent <= set(messages)
        assert 0 < len(sent) < 45
        for message in messages:
            number = message.split(b",")[0]
            assert message == (number + b",") * 20_000
        await peer.finish()


@both_roles
async def test_invariant_3_memory_is_bounded_both_ways(pair: Pair) -> None:
    taken = 0

    async def flood(peer: Peer) -> None:
        nonlocal taken
        data = masked(peer, TEXT, b"x" * 1000) + masked(peer, PING, b"p" * 100)
        while True:
            await peer.send_bytes(data)
            taken += len(data)

    async def send(ws: anyws.Connection) -> None:
        while True:
            await ws.send(b"x" * 1000)

    async with pair(max_queue=None) as (ws, peer), anyio.create_task_group() as tg:
        tg.start_soon(flood, peer)
        for _ in range(10):
            tg.start_soon(send, ws)
        await anyio.sleep(5)
        # In: the inbox, a chunk that was read and not decoded, and the stream are full.
        assert LIMIT < taken <= 3 * LIMIT + 2000
        # Out: the high-water mark, one message over it, and one Pong.
        assert LIMIT < ws._transport.write_buffer_size <= LIMIT + 2000
        tg.cancel_scope.cancel()


@both_roles
async def test_invariant_4_every_wait_ends_within_close_timeout(pair: Pair) -> None:
    ended: dict[str, float] = {}

    async def wait(name: str, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            await call()
        except anyws.ConnectionClosedError:
            pass
        finally:
            ended[name] = anyio.current_time() - began

    async def stalled() -> AsyncIterator[bytes]:
        yield b"x" * 4 * LIMIT
        raise AssertionError("it cannot go on after the end")

    async with pair(close_timeout=5) as (ws, _):
        pong = await ws.ping()

        async def wait_for_pong() -> None:
            await pong

        async def stay_in_scope() -> None:
            with ws.cancel_on_close():
                await anyio.sleep_forever()

        ws.start_soon(wait, "task", anyio.sleep_forever)
        async with anyio.create_task_group() as tg:
            tg.start_soon(wait, "recv", ws.recv)
            tg.start_soon(wait, "pong", wait_for_pong)
            tg.start_soon(wait, "fragments", lambda: ws.send(stalled()))
            await anyio.sleep(1)
            tg.start_soon(wait, "send", lambda: ws.send("text"))
            tg.start_soon(wait, "ping", ws.ping)
            tg.start_soon(wait, "wait_closed", ws.wait_closed)
            tg.start_soon(wait, "scope", stay_in_scope)
            await anyio.sleep(1)
            began = anyio.current_time()
            tg.start_soon(wait, "close", ws.close)
            tg.start_soon(wait, "close again", ws.close)
    # The fragmented message makes it a failure, after which only the stream has to end.
    assert ended.pop("scope") == 0
    assert max(ended.values()) == pytest.approx(5)
    assert set(ended) == {
        *("task", "recv", "pong", "fragments", "send", "ping", "wait_closed", "close"),
        "close again",
    }


class OddError(Exception):
    """What no stream should raise."""


class OddStream(ByteStream):
    """A stream whose every call fails, once told, in a way that no stream should."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.odd = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await self._stream.receive(max_bytes)
        self._check()
        return data

    async def send(self, item: bytes) -> None:
        self._check()
        await self._stream.send(item)

    async def send_eof(self) -> None:
        self._check()
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
        self._check()

    def _check(self) -> None:
        if self.odd:
            raise OddError


async def test_invariant_5_own_tasks_never_raise_and_the_error_of_the_body_leaves_as_itself() -> (
    None
):
    async def fail() -> None:
        failed.append(True)
        raise OddError

    failed: list[bool] = []
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    stream = OddStream(near)
    error = LookupError("body")
    with pytest.raises(LookupError) as raised:
        async with anyws.wrap_server(stream) as ws:
            ws.start_soon(fail)
            stream.odd = True
            ws.send_nowait("text")
            await far.send(frame(TEXT, b"text", mask=MASK))
            await ws.wait_closed()
            raise error
    assert raised.value is error
    assert error.__context__ is None
    assert failed
    await far.aclose()


ANYWS = Path(anyws.__file__).parent


@both_roles
async def test_invariant_6_state_changes_only_in_protocol_and_at_once(pair: Pair) -> None:
    writers = {
        path.relative_to(ANYWS).as_posix()
        for path in ANYWS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr == "state")
        and isinstance(node.ctx, ast.Store)
    }
    assert writers == {"sansio/_protocol.py"}
    # So of all who close, fail and send at once, one closes, and nothing follows.
    async with pair() as (ws, peer):
        data = bytearray(peer.buffer)
        async with anyio.create_task_group() as tg:
            tg.start_soon(read_all, peer, data)

            async def send() -> None:
                with pytest.raises(anyws.ConnectionClosed):
                    while True:
                        await ws.send("text")

            for code in range(4000, 4010):
                tg.start_soon(send)
                tg.start_soon(ws.close, code)
                tg.start_soon(peer.send, CLOSE, close_payload(code))
                tg.start_soon(peer.send_bytes, b"\xff")
                tg.start_soon(ws.send_eof)
            await ws.wait_closed()
        frames, rest = split_frames(bytes(data))
        assert rest == b""
        assert [frame.opcode for frame in frames].count(CLOSE) == 1
        assert frames[-1].opcode == CLOSE


@both_roles
async def test_invariant_7_what_came_before_the_close_frame_is_delivered_before_connection_closed(
    pair: Pair,
) -> None:
    async with pair(max_queue=4) as (ws, peer):
        texts = [str(index) for index in range(100)]
        data = b"".join(masked(peer, TEXT, text.encode()) for text in texts)
        data += masked(peer, TEXT, b"in ", fin=False) + masked(peer, CONT, b"two")
        await peer.send_bytes(data + masked(peer, CLOSE, close_payload(1000)) + b"junk")
        await peer.stream.send_eof()
        await anyio.sleep(1)
        assert [await ws.recv() for _ in range(101)] == [*texts, "in two"]
        with pytest.raises(anyws.ConnectionClosedOK):
            await ws.recv()
        await peer.finish()
