"""Rules that hold for every call of a connection: R1 and R5 to R8 of the API.

Owns what calls have in common; what leaves the blocks (R2 to R4) stands in test_structure.py.
"""

from __future__ import annotations

import inspect
import itertools
import types
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

import anyws
import anyws.testing
from anyws.testing import memory_stream_pair
from tests.endings import both_roles, closes_well, fails_to_receive
from tests.sending import fragments
from tests.wire import BINARY, CLOSE, MASK, PING, PONG, REQUEST, TEXT, Peer, close_payload, frame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

# Rule R7: as often as this a call may return without yielding, not once more.
MAX_CALLS = 64


def mask_of(peer: Peer) -> bytes | None:
    return MASK if peer.masks else None


# R1: a background task never raises; what went wrong is the cause of ConnectionClosed.


class OddError(Exception):
    """What no stream should raise."""


class OddStream(ByteStream):
    """A stream that raises, once told, what no stream should, in one of its calls."""

    def __init__(self, stream: ByteStream, name: str) -> None:
        self._stream = stream
        self._name = name
        self.error: Exception | None = None

    def _check(self, name: str) -> None:
        if self.error is not None and name == self._name:
            raise self.error

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await self._stream.receive(max_bytes)
        self._check("receive")
        return data

    async def send(self, item: bytes) -> None:
        self._check("send")
        await self._stream.send(item)

    async def send_eof(self) -> None:
        self._check("send_eof")
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
        self._check("aclose")


@pytest.mark.behaviour(60)
@pytest.mark.parametrize("name", ["receive", "send"])
async def test_error_of_the_stream_is_the_cause_of_connection_closed(name: str) -> None:
    near, far = memory_stream_pair()
    stream = OddStream(near, name)
    await far.send(REQUEST + b"\r\n")
    async with anyws.wrap_server(stream, close_timeout=5) as ws:
        error = stream.error = OddError()
        ws.send_nowait("text")
        await far.send(frame(TEXT, b"lost", mask=MASK))
        if name == "send":
            await far.send_eof()
            assert await ws.recv() == "lost"
        closed = await fails_to_receive(ws)
        assert isinstance(closed, anyws.ConnectionClosedError)
        assert closed.__cause__ is error
        with pytest.raises(anyws.ConnectionClosedError) as raised:
            await ws.send("text")
        assert raised.value.__cause__ is error
    await far.aclose()


@pytest.mark.parametrize("name", ["aclose", "send_eof"])
async def test_error_of_a_stream_that_is_closed_stays_inside(name: str) -> None:
    near, far = memory_stream_pair()
    stream = OddStream(near, name)
    await far.send(REQUEST + b"\r\n")
    peer = Peer(far, masks=True)
    async with anyio.create_task_group() as tg:
        async with anyws.wrap_server(stream) as ws:
            stream.error = OddError()
            await peer.read_until(b"\r\n\r\n")
            tg.start_soon(closes_well, peer)
        assert ws.close_code == 1000


@both_roles
async def test_error_of_a_task_is_the_cause_of_connection_closed(pair: Pair) -> None:
    error = LookupError("task")

    async def fail() -> None:
        raise error

    async with pair() as (ws, peer):
        ws.start_soon(fail)
        close = await peer.read_frame()
        assert (close.opcode, close.code) == (CLOSE, 1011)
        closed = await fails_to_receive(ws)
        assert closed.__cause__ is error
        await peer.finish()


# R5: a user's mistake raises at the call, and the connection lives on.

mistakes: list[tuple[Callable[[anyws.Connection], Awaitable[Any]], type[Exception]]] = [
    (lambda ws: ws.send(1), TypeError),  # type: ignore[arg-type]  # the mistake
    (lambda ws: ws.send({"a": "b"}), TypeError),
    (lambda ws: ws.send("\ud800"), ValueError),
    (lambda ws: ws.ping(1), TypeError),  # type: ignore[arg-type]  # the mistake
    (lambda ws: ws.ping(b"x" * 126), ValueError),
    (lambda ws: ws.ping("é" * 63), ValueError),
    (lambda ws: ws.ping("\ud800"), ValueError),
    (lambda ws: ws.pong(None), TypeError),  # type: ignore[arg-type]  # the mistake
    (lambda ws: ws.pong(b"x" * 126), ValueError),
    (lambda ws: ws.close(999), ValueError),
    (lambda ws: ws.close(1004), ValueError),
    (lambda ws: ws.close(1006), ValueError),
    (lambda ws: ws.close(1015), ValueError),
    (lambda ws: ws.close(5000), ValueError),
    (lambda ws: ws.close(1000, "x" * 124), ValueError),
    (lambda ws: ws.close(1000, "é" * 62), ValueError),
    (lambda ws: ws.close(1005, "reason"), ValueError),
    (lambda ws: ws.close("1000"), (TypeError, ValueError)),  # type: ignore[arg-type, list-item]  # the mistake
]


@both_roles
@pytest.mark.parametrize(("mistake", "error"), mistakes)
async def test_mistake_raises_at_the_call_and_the_connection_lives_on(
    pair: Pair,
    mistake: Callable[[anyws.Connection], Awaitable[Any]],
    error: type[Exception],
) -> None:
    async with pair() as (ws, peer):
        with pytest.raises(error):
            await mistake(ws)
        assert ws.open
        await ws.send("next")
        assert (await peer.read_frame()).payload == b"next"
        await peer.send(TEXT, b"back")
        assert await ws.recv() == "back"
        await peer.finish()


# R6: cancelling any call is safe.

PUBLIC = [
    *((name, getattr(anyws, name)) for name in anyws.__all__ if name.islower()),
    *((name, getattr(anyws.testing, name)) for name in anyws.testing.__all__ if name.islower()),
    *inspect.getmembers(anyws.Connection, inspect.iscoroutinefunction),
    *inspect.getmembers(anyws.Server, inspect.iscoroutinefunction),
    *inspect.getmembers(anyws.testing.FaultyStream, inspect.iscoroutinefunction),
    *inspect.getmembers(anyws.testing.MemoryListener, inspect.iscoroutinefunction),
    *inspect.getmembers(anyws.testing.MemoryStream, inspect.iscoroutinefunction),
]
COROUTINES = [
    (name, member)
    for name, member in PUBLIC
    if not name.startswith("_")
    and (inspect.iscoroutinefunction(member) or hasattr(member, "__aenter__"))
]


@pytest.mark.parametrize(("name", "member"), COROUTINES)
def test_docstring_of_each_coroutine_says_what_cancellation_does(name: str, member: Any) -> None:
    assert "Cancellation:" in inspect.cleandoc(member.__doc__)


def test_public_coroutines_are_found() -> None:
    names = {name for name, _ in COROUTINES}
    assert {"recv", "send", "ping", "close", "serve_forever", "connect", "memory_server"} <= names


async def cancel_after(scope: anyio.CancelScope, turns: int) -> None:
    for _ in range(turns):
        await checkpoint()
    scope.cancel()


@both_roles
async def test_recv_that_is_cancelled_at_any_turn_loses_no_message(pair: Pair) -> None:
    async with pair() as (ws, peer):
        data = b"".join(
            frame(TEXT, str(index).encode(), mask=mask_of(peer)) for index in range(200)
        )

        async def send_byte_by_byte() -> None:
            for index in range(len(data)):
                await peer.send_bytes(data[index : index + 1])

        received: list[str | bytes] = []
        async with anyio.create_task_group() as tg:
            tg.start_soon(send_byte_by_byte)
            for turns in itertools.cycle(range(12)):
                with anyio.CancelScope() as scope:
                    tg.start_soon(cancel_after, scope, turns)
                    received.append(await ws.recv())
                if len(received) == 200:
                    break
        assert received == [str(index) for index in range(200)]
        await peer.finish()


@both_roles
@pytest.mark.parametrize("opcode", [PING, PONG])
async def test_control_frame_goes_out_whole_when_its_call_is_cancelled_at_any_turn(
    pair: Pair, opcode: int
) -> None:
    async with pair(max_buffer_size=600, write_limit=600) as (ws, peer):
        call = ws.ping if opcode == PING else ws.pong
        for turns in range(12):
            payload = bytes([turns]) * 125
            ws.send_nowait(b"x" * 500)  # there is room for a part of the frame, so it has to wait
            async with anyio.create_task_group() as tg:
                with anyio.CancelScope() as scope:
                    tg.start_soon(cancel_after, scope, turns)
                    await call(payload)
                assert scope.cancelled_caught
            assert (await peer.read_frame()).opcode == BINARY
            control = await peer.read_frame()
            assert (control.opcode, control.payload) == (opcode, payload)
            await anyio.sleep(1)
            ws.send_nowait("next")
            assert (await peer.read_frame()).payload == b"next"
        await peer.finish()


@both_roles
@pytest.mark.parametrize("opcode", [PING, PONG])
async def test_control_frame_goes_out_whole_or_not_at_all_when_its_call_is_cancelled_before(
    pair: Pair, opcode: int
) -> None:
    async with pair() as (ws, peer):
        call = ws.ping if opcode == PING else ws.pong
        sent = 0
        with anyio.CancelScope() as scope:
            scope.cancel()
            while True:
                await call(bytes([sent]) * 125)
                sent += 1
        assert scope.cancelled_caught
        assert sent <= MAX_CALLS
        await ws.send("next")
        for index in range(sent):
            control = await peer.read_frame()
            assert (control.opcode, control.payload) == (opcode, bytes([index]) * 125)
        assert (await peer.read_frame()).payload == b"next"
        await peer.finish()


@both_roles
async def test_close_that_is_cancelled_goes_on_closing(pair: Pair) -> None:
    async with pair() as (ws, peer):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ws.close(4000, "bye")
        assert scope.cancelled_caught
        assert not ws.open
        close = await closes_well(peer)
        assert close.payload == close_payload(4000, "bye")
        await ws.wait_closed()
        assert ws.close_code == 4000


# R7: a call may return without yielding, but not more than 64 times in a row.


@types.coroutine
def yields(call: Coroutine[Any, Any, Any]) -> Generator[Any, Any, bool]:
    """Run `call` and say whether it has yielded to the event loop."""
    sent = None
    yielded = False
    while True:
        try:
            wanted = call.send(sent)
        except StopIteration:
            return yielded
        yielded = True
        sent = yield wanted


async def longest_row(call: Callable[[], Coroutine[Any, Any, Any]], count: int) -> int:
    """Give how often in a row `call` returned without yielding, of `count` times."""
    longest = row = 0
    for _ in range(count):
        row = 0 if await yields(call()) else row + 1
        longest = max(longest, row)
    return longest


@both_roles
@pytest.mark.parametrize("receive", [anyws.Connection.recv, anyws.Connection.__anext__])
async def test_receiving_lets_other_tasks_run_though_messages_wait(
    pair: Pair, receive: Callable[[anyws.Connection], Coroutine[Any, Any, Any]]
) -> None:
    async with pair(max_queue=None) as (ws, peer):
        await peer.send_bytes(frame(TEXT, b"x", mask=mask_of(peer)) * 500)
        await anyio.sleep(1)
        assert 0 < await longest_row(lambda: receive(ws), 500) <= MAX_CALLS
        await peer.finish()


@both_roles
async def test_sends_let_other_tasks_run_though_there_is_room(pair: Pair) -> None:
    async with pair() as (ws, peer):
        assert 0 < await longest_row(lambda: ws.send("x"), 500) <= MAX_CALLS
        await peer.finish()


class TellMessages(anyws.Hooks):
    """Hooks for messages: such a connection has ways of its own to receive and to send."""

    def message_received(self, ws: anyws.Connection, message: str | bytes) -> None:
        assert message == "x"


@both_roles
@pytest.mark.parametrize("hooks", [None, TellMessages()])
async def test_echo_lets_other_tasks_run_though_nothing_has_to_wait(
    pair: Pair, hooks: anyws.Hooks | None
) -> None:
    async def echo() -> None:
        await ws.send(await anext(ws))

    async with pair(max_queue=None, hooks=hooks) as (ws, peer):
        await peer.send_bytes(frame(TEXT, b"x", mask=mask_of(peer)) * 500)
        await anyio.sleep(1)
        assert await longest_row(echo, 500) <= MAX_CALLS // 2
        await peer.finish()


@both_roles
async def test_pings_and_pongs_let_other_tasks_run(pair: Pair) -> None:
    async with pair() as (ws, peer):
        assert await longest_row(ws.ping, 200) <= MAX_CALLS
        assert await longest_row(ws.pong, 200) <= MAX_CALLS
        await peer.finish()


@both_roles
async def test_fragments_let_other_tasks_run(pair: Pair) -> None:
    async with pair() as (ws, peer):
        assert await longest_row(lambda: ws.send(["x"] * 16), 50) <= MAX_CALLS // 16
        await peer.finish()


@both_roles
async def test_iterables_without_items_let_other_tasks_run(pair: Pair) -> None:
    async with pair() as (ws, peer):
        assert 0 < await longest_row(lambda: ws.send([]), 200) <= MAX_CALLS
        assert 0 < await longest_row(lambda: ws.send(fragments()), 200) <= MAX_CALLS
        await peer.finish()


@both_roles
async def test_iteration_is_cancelled_though_messages_wait(pair: Pair) -> None:
    async with pair(max_queue=None) as (ws, peer):
        await peer.send_bytes(frame(TEXT, b"x", mask=mask_of(peer)) * 500)
        await anyio.sleep(1)
        received = 0
        with anyio.CancelScope() as scope:
            scope.cancel()
            async for _ in ws:
                received += 1
        assert scope.cancelled_caught
        assert received <= MAX_CALLS
        await peer.finish()


# R8: what was received before the Close frame is delivered before ConnectionClosed is raised.

ends = pytest.mark.parametrize(
    "end",
    [
        pytest.param(frame(CLOSE, close_payload(1000)), id="close"),
        pytest.param(frame(CLOSE, close_payload(4000)), id="close with an error"),
        pytest.param(frame(0xB), id="protocol error"),
        pytest.param(b"", id="end of the stream"),
    ],
)


@pytest.mark.behaviour(55)
@both_roles
@ends
@pytest.mark.parametrize("chunk_size", [1, 10_000])
@pytest.mark.parametrize("count", [3, 100])
async def test_messages_before_the_end_are_delivered_first(
    pair: Pair, end: bytes, chunk_size: int, count: int
) -> None:
    async with pair() as (ws, peer):
        mask = mask_of(peer)
        data = b"".join(frame(TEXT, str(index).encode(), mask=mask) for index in range(count))
        if end:
            data += end if mask is None else end[:1] + bytes([end[1] | 0x80]) + mask + xor(end[2:])

        async def send() -> None:
            for start in range(0, len(data), chunk_size):
                await peer.send_bytes(data[start : start + chunk_size])
            if not end:
                await peer.stream.send_eof()

        async with anyio.create_task_group() as tg:
            tg.start_soon(send)
            await anyio.sleep(1)
            received = [await ws.recv() for _ in range(count)]
            assert received == [str(index) for index in range(count)]
            with pytest.raises(anyws.ConnectionClosed):
                await ws.recv()
        await peer.finish()


def xor(payload: bytes) -> bytes:
    return bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload))
