"""What send() and send_nowait() do: types, water marks, order and cancellation.

Owns lines 62 to 75 of docs/behaviours.md but those of messages in fragments; knows nothing of
receiving.
"""

from __future__ import annotations

import array
import functools
import itertools
import random
import types
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import anyws
from tests.blocks import counted_turns
from tests.conftest import backend_options
from tests.endings import both_roles
from tests.sending import DEFLATE, Sink, fragments, next_data
from tests.wire import BINARY, CLOSE, CONT, TEXT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time, both_roles]

MEBIBYTE = 2**20


@pytest.fixture(params=[{}, DEFLATE], ids=["plain", "deflate"])
def arguments(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Give what opens a connection without and with compression."""
    given: dict[str, Any] = request.param
    return given


# Types.


@pytest.mark.behaviour(62)
@pytest.mark.parametrize("text", ["", "Hello", "é€😀", "x" * 126, "x" * 65536])
async def test_str_is_sent_as_text(pair: Pair, text: str) -> None:
    async with pair(max_buffer_size=2**17) as (ws, peer):
        await ws.send(text)
        assert await next_data(peer) == (TEXT, text.encode(), True)
        await peer.finish()


@pytest.mark.behaviour(63)
@pytest.mark.parametrize(
    "message",
    [
        b"\x00\xffab",
        bytearray(b"\x00\xffab"),
        memoryview(b"\x00\xffab"),
        memoryview(b"\x00_\xff_a_b_")[::2],
        memoryview(array.array("H", [0xFF00, 0x6261])),
    ],
    ids=["bytes", "bytearray", "memoryview", "strided", "two-byte items"],
)
async def test_bytes_like_is_sent_as_binary(
    pair: Pair, message: bytes | bytearray | memoryview
) -> None:
    async with pair() as (ws, peer):
        await ws.send(message)
        assert await next_data(peer) == (BINARY, b"\x00\xffab", True)
        ws.send_nowait(message)
        assert await next_data(peer) == (BINARY, b"\x00\xffab", True)
        await peer.finish()


@pytest.mark.behaviour(63)
@pytest.mark.parametrize("size", [2**15 - 1, 2**15, 2**16 - 1, 2**16, 2**20])
@pytest.mark.parametrize("text", [None, False, True])
async def test_large_bytes_are_sent_whole(pair: Pair, size: int, text: bool | None) -> None:
    message = b"abcdefghijklm" * (size // 13) + bytes(size % 13)
    async with pair(max_buffer_size=2**21) as (ws, peer):
        await ws.send(message, text=text)
        await ws.send("behind")
        assert await next_data(peer) == (TEXT if text else BINARY, message, True)
        assert await next_data(peer) == (TEXT, b"behind", True)
        await peer.finish()


@pytest.mark.behaviour(63)
async def test_text_argument_overrides_the_type(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await ws.send(b"caf\xc3\xa9", text=True)
        assert await next_data(peer) == (TEXT, b"caf\xc3\xa9", True)
        await ws.send("café", text=False)
        assert await next_data(peer) == (BINARY, b"caf\xc3\xa9", True)
        ws.send_nowait(bytearray(b"a"), text=True)
        assert await next_data(peer) == (TEXT, b"a", True)
        await ws.send([b"a", b"b"], text=True)
        assert await next_data(peer) == (TEXT, b"a", False)
        assert await next_data(peer) == (CONT, b"b", True)
        await peer.finish()


@pytest.mark.parametrize("text", [0, ""])
async def test_text_that_is_no_bool_is_a_typeerror_for_a_large_message_too(
    pair: Pair, arguments: dict[str, Any], text: Any
) -> None:
    async with pair(**arguments) as (ws, peer):
        with pytest.raises(TypeError, match="text must be a bool or None, not"):
            await ws.send(bytes(2**16), text=text)
        await peer.finish()


async def test_text_that_is_no_bool_is_a_typeerror_and_nothing_is_sent(
    pair: Pair, arguments: dict[str, Any]
) -> None:
    async with pair(**arguments) as (ws, peer):
        with pytest.raises(TypeError, match="text must be a bool or None, not str"):
            await ws.send("a", text="yes")  # type: ignore[arg-type]  # that is it
        await ws.send("b")
        assert await next_data(peer) == (TEXT, b"b", True)
        await peer.finish()


@pytest.mark.behaviour(63)
async def test_bytearray_may_change_once_it_was_sent(pair: Pair, arguments: dict[str, Any]) -> None:
    async with pair(**arguments) as (ws, peer):
        message = bytearray(b"before " * 100)
        ws.send_nowait(message)
        message[:] = b"behind " * 100
        sink = Sink(peer)
        await sink.read_until_idle()
        assert sink.messages(deflate=bool(arguments)) == [b"before " * 100]
        await peer.finish()


@pytest.mark.behaviour(68)
@pytest.mark.parametrize("mapping", [{}, {"type": "text"}, types.MappingProxyType({"a": "b"})])
async def test_mapping_is_a_type_error_and_the_connection_lives(pair: Pair, mapping: Any) -> None:
    async with pair() as (ws, peer):
        with pytest.raises(TypeError):
            await ws.send(mapping)
        with pytest.raises(TypeError):
            ws.send_nowait(mapping)
        await ws.send("next")
        assert await next_data(peer) == (TEXT, b"next", True)
        await peer.finish()


@pytest.mark.behaviour(69)
@pytest.mark.parametrize(
    "message",
    [
        None,
        1,
        1.5,
        pytest.param(object(), id="object"),
        [1],
        [None, "a"],
        array.array("B", [1, 2]),
        [["a"]],
    ],
    ids=repr,
)
async def test_other_type_is_a_type_error_and_the_connection_lives(
    pair: Pair, message: Any
) -> None:
    async with pair() as (ws, peer):
        with pytest.raises(TypeError, match=r"^message of type .*, expected str, bytes, bytearray"):
            await ws.send(message)
        with pytest.raises(TypeError, match=r"expected str, bytes, bytearray or memoryview$"):
            ws.send_nowait(message)
        await ws.send("next")
        assert await next_data(peer) == (TEXT, b"next", True)
        await peer.finish()


@pytest.mark.behaviour(69)
async def test_async_iterable_that_begins_with_another_type_sends_nothing(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        with pytest.raises(TypeError, match="int"):
            await ws.send(fragments(1, "a"))
        await ws.send("next")
        assert await next_data(peer) == (TEXT, b"next", True)
        await peer.finish()


@pytest.mark.behaviour(69)
@pytest.mark.parametrize(
    "make",
    [lambda: "\ud800", lambda: ["\ud800"], lambda: ["\ud800", "a"], lambda: fragments("\ud800")],
)
async def test_str_without_utf8_is_a_value_error_and_the_connection_lives(
    pair: Pair, make: Callable[[], Any]
) -> None:
    async with pair() as (ws, peer):
        with pytest.raises(ValueError, match="surrogates"):
            await ws.send(make())
        await ws.send("next")
        assert await next_data(peer) == (TEXT, b"next", True)
        await peer.finish()


# The end of the connection.


@pytest.mark.behaviour(71)
@pytest.mark.parametrize("message", ["text", b"binary", ["a", "b"], []], ids=repr)
async def test_send_raises_connection_closed_once_closed(pair: Pair, message: Any) -> None:
    async with pair() as (ws, peer):
        await peer.send_close(1000, "bye")
        await peer.read_frame()
        await peer.finish()
        await ws.wait_closed()
        with pytest.raises(anyws.ConnectionClosedOK) as raised:
            await ws.send(message)
        assert raised.value.rcvd == anyws.Close(1000, "bye")
        with pytest.raises(anyws.ConnectionClosedOK):
            await ws.send(fragments("a"))


@pytest.mark.behaviour(71)
async def test_send_nowait_raises_connection_closed_while_closing_and_once_closed(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        await ws.send_eof()
        with pytest.raises(anyws.ConnectionClosed):
            ws.send_nowait("text")
        close = await peer.read_frame()
        assert (close.opcode, close.code) == (CLOSE, 1000)
        await peer.send_close(1000)
        await peer.finish()
        await ws.wait_closed()
        with pytest.raises(anyws.ConnectionClosedOK):
            ws.send_nowait("text")


@pytest.mark.behaviour(71)
async def test_send_while_closing_raises_how_it_ended_once_that_is_known(
    pair: Pair,
) -> None:
    async with pair() as (ws, peer):
        await ws.send_eof()
        errors: list[anyws.ConnectionClosed] = []

        async def send() -> None:
            with pytest.raises(anyws.ConnectionClosed) as raised:
                await ws.send("late")
            errors.append(raised.value)

        async with anyio.create_task_group() as tg:
            tg.start_soon(send)
            await peer.read_frame()
            await anyio.sleep(1)
            assert errors == []
            await peer.send_close(1001, "away")
        assert str(errors[0]) == "sent 1000 (OK); then received 1001 (going away) away"
        await peer.finish()


@pytest.mark.behaviour(71, 72)
async def test_sends_over_the_high_mark_raise_when_the_connection_is_lost(
    pair: Pair,
) -> None:
    async def send(ws: anyws.Connection) -> None:
        with pytest.raises(anyws.ConnectionClosedError, match="no close frame received or sent"):
            await ws.send(b"x" * MEBIBYTE)

    async with pair() as (ws, peer), anyio.create_task_group() as tg:
        for _ in range(3):
            tg.start_soon(send, ws)
        await anyio.sleep(1)
        await peer.finish()
        with anyio.fail_after(1):
            await ws.wait_closed()


# Water marks.


@pytest.mark.behaviour(72)
async def test_send_returns_at_once_below_the_high_mark_and_waits_above(
    pair: Pair,
) -> None:
    async with pair(write_limit=10_000, max_buffer_size=512) as (ws, peer):
        with anyio.fail_after(0):
            await ws.send(b"x" * 9_000)
        with anyio.move_on_after(5) as scope:
            await ws.send(b"x" * 2_000)
        assert scope.cancelled_caught
        await peer.finish()


@pytest.mark.behaviour(72)
async def test_send_above_the_high_mark_waits_down_to_the_low_mark(
    pair: Pair,
) -> None:
    async with pair(write_limit=(200_000, 100_000), max_buffer_size=512) as (
        ws,
        peer,
    ):
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(3):
                await ws.send(b"x" * 70_000)
                sent += 1

        head = 14 if not peer.masks else 10
        async with anyio.create_task_group() as tg:
            tg.start_soon(send)
            await anyio.sleep(1)
            assert sent == 2
            await peer.read(head + 70_000)
            # It leaves in pieces of 64 KiB.
            await peer.read(60_000)
            await anyio.sleep(1)
            assert sent == 2
            await peer.read(6_000)
            await anyio.sleep(1)
            assert sent == 3
        await peer.finish()


@pytest.mark.behaviour(72, 74)
@pytest.mark.parametrize("whole", [True, False], ids=["messages", "fragments"])
async def test_send_is_not_kept_from_its_turn_by_a_task_that_sends_again_and_again(
    pair: Pair, whole: bool
) -> None:
    async def send_again_and_again() -> None:
        message = "x" * 2_000
        while True:
            await ws.send(message if whole else [message] * 3)

    async def read_all() -> None:
        while True:
            received.append((await peer.read_frame()).payload)

    async def send_once(message: str) -> None:
        await ws.send(message)
        sent.append(message)

    received: list[bytes] = []
    sent: list[str] = []
    async with pair(write_limit=1_000, max_buffer_size=512) as (ws, peer):
        async with anyio.create_task_group() as tg:
            tg.start_soon(send_again_and_again)
            await anyio.wait_all_tasks_blocked()
            tg.start_soon(send_once, "first")
            await anyio.wait_all_tasks_blocked()
            tg.start_soon(send_once, "second")
            await anyio.wait_all_tasks_blocked()
            assert not sent
            tg.start_soon(read_all)
            while len(sent) < 2:
                await checkpoint()
            while b"second" not in received:
                await checkpoint()
            tg.cancel_scope.cancel()
        # One message was under way before; another may have its turn between these two.
        assert received.index(b"first") <= (2 if whole else 6)
        assert received.index(b"first") < received.index(b"second") <= (4 if whole else 10)


@pytest.mark.behaviour(72)
async def test_sender_that_is_cancelled_in_the_line_holds_up_nobody(pair: Pair) -> None:
    async def send(message: str, scope: anyio.CancelScope) -> None:
        with scope:
            await ws.send(message)

    async with pair(write_limit=1_000, max_buffer_size=512) as (ws, peer):
        ws.send_nowait("x" * 2_000)
        scopes = [anyio.CancelScope() for _ in range(4)]
        async with anyio.create_task_group() as tg:
            for number, scope in enumerate(scopes):
                tg.start_soon(send, str(number), scope)
                await anyio.wait_all_tasks_blocked()
            scopes[0].cancel()
            scopes[2].cancel()
            await anyio.wait_all_tasks_blocked()
            assert len((await next_data(peer))[1]) == 2_000
            assert [(await next_data(peer))[1] for _ in range(2)] == [b"1", b"3"]
        ws.send_nowait("free again")
        assert (await next_data(peer))[1] == b"free again"
        await peer.finish()


@pytest.mark.behaviour(72)
async def test_send_waits_for_room_before_it_adds_to_a_full_buffer(
    pair: Pair,
) -> None:
    async with pair(write_limit=1_000, max_buffer_size=512) as (ws, peer):
        ws.send_nowait(b"x" * 2_000)
        with anyio.move_on_after(1) as scope:
            await ws.send("never")
        assert scope.cancelled_caught
        assert (await next_data(peer))[0] == BINARY
        await anyio.sleep(1)
        await ws.send("next")
        assert await next_data(peer) == (TEXT, b"next", True)
        await peer.finish()


@pytest.mark.behaviour(72)
async def test_send_nowait_would_block_over_the_high_mark_and_sends_nothing(
    pair: Pair,
) -> None:
    async with pair(write_limit=1_000, max_buffer_size=512) as (ws, peer):
        ws.send_nowait(b"x" * 2_000)
        with pytest.raises(anyio.WouldBlock):
            ws.send_nowait("never")
        with pytest.raises(TypeError, match="message of type list"):
            ws.send_nowait(["never"])  # type: ignore[arg-type]  # so
        assert (await next_data(peer))[0] == BINARY
        await anyio.sleep(1)
        ws.send_nowait("next")
        assert await next_data(peer) == (TEXT, b"next", True)
        await peer.finish()


@pytest.mark.behaviour(72)
async def test_send_never_waits_without_a_write_limit(pair: Pair) -> None:
    async with pair(write_limit=None) as (ws, peer):
        with anyio.fail_after(0):
            for _ in range(10):
                await ws.send(b"x" * MEBIBYTE)
        await peer.finish()


# Order.


@pytest.mark.behaviour(74)
async def test_concurrent_sends_never_interleave(pair: Pair, arguments: dict[str, Any]) -> None:
    messages = {bytes([65 + index]) * (1 + 7_919 * index) for index in range(20)}
    async with pair(**arguments) as (ws, peer):
        sink = Sink(peer, 5_000)
        async with anyio.create_task_group() as tg:
            for message in messages:
                tg.start_soon(functools.partial(ws.send, message, compress=True))
            tg.start_soon(sink.read_slowly)
            await sink.wait_until_idle()
            tg.cancel_scope.cancel()
        received = sink.messages(deflate=bool(arguments))
        assert len(received) == len(messages)
        assert set(received) == messages
        await peer.finish()


@pytest.mark.behaviour(74)
async def test_sends_of_one_task_keep_their_order(pair: Pair) -> None:
    async with pair(write_limit=1_000) as (ws, peer):
        sink = Sink(peer, 500)
        async with anyio.create_task_group() as tg:
            tg.start_soon(sink.read_slowly)
            for index in range(300):
                await ws.send(str(index))
            await sink.wait_until_idle()
            tg.cancel_scope.cancel()
        assert sink.messages() == [str(index).encode() for index in range(300)]
        await peer.finish()


@pytest.mark.behaviour(74)
@pytest.mark.parametrize(
    "anyio_backend", [backend_options(name, virtual=True) for name in ("asyncio", "uvloop")]
)
async def test_sends_of_many_tasks_keep_the_order_in_which_the_loop_runs_them(pair: Pair) -> None:
    async with pair(max_buffer_size=2**20) as (ws, peer):
        async with anyio.create_task_group() as tg:
            for index in range(300):  # trio runs its tasks in any order
                tg.start_soon(ws.send, str(index))
        for index in range(300):
            assert await next_data(peer) == (TEXT, b"%d" % index, True)
        await peer.finish()


async def test_send_lets_others_run_now_and_then_and_not_each_time(pair: Pair) -> None:
    async with pair(write_limit=None) as (ws, _), counted_turns() as turns:
        for _ in range(1000):
            await ws.send("x")
        assert 10 < turns.count < 100


async def test_send_of_a_large_message_that_compresses_well_lets_others_run(pair: Pair) -> None:
    async with pair(write_limit=None, **DEFLATE) as (ws, _), counted_turns() as turns:
        for _ in range(20):
            await ws.send("x" * 40_000)
        assert turns.count >= 10


# Cancellation.


async def cancel_after(scope: anyio.CancelScope, turns: int) -> None:
    for _ in range(turns):
        await checkpoint()
    scope.cancel()


@pytest.mark.behaviour(75)
async def test_message_goes_out_whole_or_not_at_all_when_its_send_is_cancelled_at_any_turn(
    pair: Pair,
) -> None:
    first, second = b"1" * MEBIBYTE, b"2" * MEBIBYTE
    outcomes = set()
    for turns in itertools.count(0, 7):
        async with pair() as (ws, peer):
            sink = Sink(peer)
            async with anyio.create_task_group() as tg:
                tg.start_soon(sink.read_slowly)
                ws.send_nowait(first)
                with anyio.CancelScope() as scope:
                    tg.start_soon(cancel_after, scope, turns)
                    await ws.send(second)
                with anyio.fail_after(1):
                    await ws.send("later")
                await sink.wait_until_idle()
                tg.cancel_scope.cancel()
            messages = sink.messages()
            assert messages in ([first, b"later"], [first, second, b"later"])
            outcomes.add((scope.cancelled_caught, second in messages))
            await peer.finish()
        if not scope.cancelled_caught:
            break
    assert outcomes == {(True, False), (True, True), (False, True)}


@pytest.mark.behaviour(75)
async def test_deflate_stream_stays_intact_when_a_send_is_cancelled_at_any_turn(
    pair: Pair,
) -> None:
    # What does not compress fills the buffer; what is sent after it refers back to it.
    noise = random.Random(62).randbytes(20_000)
    outcomes = set()
    for turns in itertools.count(0, 5):
        async with pair(write_limit=4_000, max_buffer_size=4_096, **DEFLATE) as (
            ws,
            peer,
        ):
            sink = Sink(peer, 1_024)
            async with anyio.create_task_group() as tg:
                tg.start_soon(sink.read_slowly)
                ws.send_nowait(noise)
                with anyio.CancelScope() as scope:
                    tg.start_soon(cancel_after, scope, turns)
                    await ws.send(noise[::-1])
                await ws.send(noise[:5_000])
                await sink.wait_until_idle()
                tg.cancel_scope.cancel()
            messages = sink.messages(deflate=True)
            later = noise[:5_000]
            assert messages in ([noise, later], [noise, noise[::-1], later])
            outcomes.add((scope.cancelled_caught, noise[::-1] in messages))
            await peer.finish()
        if not scope.cancelled_caught:
            break
    assert outcomes == {(True, False), (True, True), (False, True)}


@pytest.mark.behaviour(75)
async def test_message_that_was_taken_goes_out_whole_when_the_block_around_it_is_cancelled(
    pair: Pair,
) -> None:
    # The scope of the sender ends, the connection lives on: its own tasks do the sending.
    message = b"m" * MEBIBYTE
    async with pair() as (ws, peer):
        async with anyio.create_task_group() as tg:
            tg.start_soon(ws.send, message)
            await anyio.sleep(1)
            tg.cancel_scope.cancel()
        sink = Sink(peer)
        await sink.read_until_idle()
        assert sink.messages() == [message]
        await peer.finish()


@pytest.mark.behaviour(75)
async def test_shielded_send_goes_out_whole_though_the_block_of_the_connection_is_cancelled(
    pair: Pair,
) -> None:
    message = b"m" * MEBIBYTE
    with anyio.CancelScope() as scope:
        async with pair() as (ws, peer):
            sink = Sink(peer)
            scope.cancel()
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as tg:
                    tg.start_soon(sink.read_slowly)
                    with anyio.fail_after(1):
                        await ws.send(message)
                        await ws.send("later")
                    await sink.wait_until_idle()
                    tg.cancel_scope.cancel()
            assert sink.messages() == [message, b"later"]
            await anyio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.behaviour(75)
async def test_nothing_is_sent_in_a_scope_that_was_cancelled_before(
    pair: Pair,
) -> None:
    # A call may return without yielding, so some messages go; each of them goes whole.
    async with pair() as (ws, peer):
        sent = 0
        with anyio.CancelScope() as scope:
            scope.cancel()
            while True:
                await ws.send(str(sent))
                sent += 1
        assert scope.cancelled_caught
        assert sent <= 64
        await ws.send("next")
        for index in range(sent):
            assert await next_data(peer) == (TEXT, str(index).encode(), True)
        assert await next_data(peer) == (TEXT, b"next", True)
        await peer.finish()
