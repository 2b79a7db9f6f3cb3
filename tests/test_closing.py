"""The closing handshake (RFC 6455 section 7): who begins it, what is sent, and when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

import anyws
from tests.blocks import settle
from tests.endings import (
    background,
    both_roles,
    closes_well,
    peer_of_handler,
    read_closes,
    takes,
)
from tests.wire import (
    TEXT,
    client_and_peer,
    server_and_peer,
)

if TYPE_CHECKING:
    from tests.endings import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


# Who begins it.


@both_roles
@pytest.mark.behaviour(15)
async def test_leaving_the_block_closes_with_1000(pair: Pair) -> None:
    closes = []

    async def run_peer() -> None:
        closes.append(await closes_well(peer))

    async with anyio.create_task_group() as tasks:
        async with pair() as (ws, peer):
            tasks.start_soon(run_peer)
        assert ws.closed
    assert [close.payload for close in closes] == [b"\x03\xe8"]
    assert (ws.close_code, ws.close_reason) == (1000, "")


@both_roles
async def test_leaving_the_block_by_an_exception_closes_with_1011(pair: Pair) -> None:
    closes = []

    async def run_peer() -> None:
        closes.append(await closes_well(peer))

    async with anyio.create_task_group() as tasks:
        with pytest.raises(ZeroDivisionError):
            async with pair() as (_, peer):
                tasks.start_soon(run_peer)
                raise ZeroDivisionError
    assert [close.payload for close in closes] == [b"\x03\xf3"]


@both_roles
async def test_leaving_the_block_by_cancellation_sends_1001_and_drops_the_stream(
    pair: Pair,
) -> None:
    closes = []

    async def run_peer() -> None:
        closes.extend(await read_closes(peer))

    async with anyio.create_task_group() as tasks:
        with takes(1), anyio.move_on_after(1):
            async with pair() as (ws, peer):
                tasks.start_soon(run_peer)
                await anyio.sleep_forever()
        assert ws.close_code == 1006
    assert [close.payload for close in closes] == [b"\x03\xe9"]


@both_roles
@pytest.mark.behaviour(29)
async def test_leaving_the_block_sends_nothing_when_the_peer_has_closed_already(
    pair: Pair,
) -> None:
    closes = []

    async def run_peer() -> None:
        closes.append(await peer.read_frame())
        await anyio.sleep(0.5)
        await peer.stream.send_eof()
        closes.extend(await read_closes(peer))

    async with anyio.create_task_group() as tasks:
        with takes(0.5):
            async with pair() as (ws, peer):
                tasks.start_soon(run_peer)
                await peer.send_close(1001)
                with pytest.raises(anyws.ConnectionClosedOK):
                    await ws.recv()
    assert [close.code for close in closes] == [1001]


@pytest.mark.behaviour(16)
async def test_return_of_the_handler_closes_with_1000() -> None:
    async def handler(ws: anyws.Connection) -> None:
        await ws.send("Hello")

    async with peer_of_handler(handler) as peer:
        assert (await peer.read_frame()).payload == b"Hello"
        assert (await closes_well(peer)).payload == b"\x03\xe8"


async def test_exception_of_the_handler_closes_with_1011() -> None:
    async def handler(ws: anyws.Connection) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with peer_of_handler(handler, handler_errors="raise") as peer:
            assert (await closes_well(peer)).payload == b"\x03\xf3"
            await anyio.sleep_forever()


async def test_return_of_the_handler_sends_nothing_when_it_has_closed_itself() -> None:
    async def handler(ws: anyws.Connection) -> None:
        await ws.close(4000, "enough")

    async with peer_of_handler(handler) as peer:
        close = await closes_well(peer)
        assert (close.code, close.reason) == (4000, "enough")


# What close() waits for.


@both_roles
@pytest.mark.behaviour(17)
async def test_close_waits_for_the_close_frame_of_the_peer(pair: Pair) -> None:
    async def run_peer() -> None:
        await anyio.sleep(3)
        await closes_well(peer)

    async with pair() as (ws, peer), background(run_peer):
        with takes(3):
            await ws.close()


@pytest.mark.behaviour(18)
async def test_close_of_a_client_waits_for_the_server_to_end_tcp() -> None:
    async def run_peer() -> None:
        await peer.read_frame()
        await peer.send_close()
        await anyio.sleep(3)
        assert peer.buffer == b""
        await peer.stream.send_eof()

    async with client_and_peer() as (ws, peer), background(run_peer):
        with takes(3):
            await ws.close()


@pytest.mark.behaviour(18)
async def test_client_does_not_end_tcp_before_the_server() -> None:
    async with client_and_peer() as (_, peer):
        await peer.send_close()
        assert (await peer.read_frame()).code == 1000
        with anyio.move_on_after(5) as scope:
            await peer.stream.receive()
        assert scope.cancelled_caught
        await peer.stream.send_eof()
        assert await peer.read_until_eof() == b""


@pytest.mark.behaviour(18)
async def test_server_ends_tcp_first_and_close_waits_for_the_client_to_follow() -> None:
    async def run_peer() -> None:
        await peer.read_frame()
        await peer.send_close()
        with takes(0):
            assert await peer.read_until_eof() == b""
        await anyio.sleep(0.5)
        await peer.finish()

    async with server_and_peer() as (ws, peer), background(run_peer):
        with takes(0.5):
            await ws.close()


@both_roles
@pytest.mark.behaviour(19)
async def test_nothing_is_left_to_wait_for_after_close(pair: Pair) -> None:
    async with pair() as (ws, peer), background(closes_well, peer):
        await ws.close()
        assert ws.closed
        with takes(0):
            await ws.wait_closed()


@both_roles
@pytest.mark.behaviour(20)
async def test_close_again_returns_at_once_and_sends_nothing(pair: Pair) -> None:
    async with pair() as (ws, peer):
        async with background(closes_well, peer):
            await ws.close()
            with takes(0):
                await ws.close(4000, "again")
        assert ws.close_code == 1000


@both_roles
@pytest.mark.behaviour(20)
async def test_close_returns_when_the_stream_has_ended_without_it(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.finish()
        await ws.close()
        with takes(0):
            await ws.close()
        assert ws.close_code == 1006


@both_roles
@pytest.mark.behaviour(21, 29)
async def test_concurrent_calls_of_close_all_return_and_send_one_close_frame(pair: Pair) -> None:
    closes = []

    async def run_peer() -> None:
        closes.append(await peer.read_frame())
        await anyio.sleep(2)
        await peer.send_close()
        if not peer.masks:
            await peer.stream.send_eof()
        closes.extend(await read_closes(peer))
        await peer.finish()

    async with anyio.create_task_group() as tasks:
        async with pair() as (ws, peer):
            tasks.start_soon(run_peer)
            with takes(2):
                async with anyio.create_task_group() as closers:
                    for code in range(4000, 4010):
                        closers.start_soon(ws.close, code)
    assert len(closes) == 1
    assert closes[0].code in range(4000, 4010)


@both_roles
@pytest.mark.behaviour(22)
async def test_close_sends_1000_and_no_reason_by_default(pair: Pair) -> None:
    async with pair() as (ws, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.close)
            assert (await closes_well(peer)).payload == b"\x03\xe8"


@both_roles
@pytest.mark.behaviour(22)
async def test_aclose_closes_with_1000(pair: Pair) -> None:
    async with pair() as (ws, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.aclose)
            assert (await closes_well(peer)).payload == b"\x03\xe8"
        assert ws.closed


@both_roles
@pytest.mark.behaviour(23)
@pytest.mark.parametrize("reason", ["", "r\u00e9sum\u00e9", "x" * 123, "\u20ac" * 41])
async def test_code_and_reason_reach_the_peer(pair: Pair, reason: str) -> None:
    async with pair() as (ws, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.close, 4999, reason)
            close = await closes_well(peer)
        assert close.payload == b"\x13\x87" + reason.encode()
        assert close.masked is not peer.masks


@both_roles
@pytest.mark.behaviour(23)
async def test_code_and_reason_of_the_peer_are_told(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.send_close(4321, "r\u00e9sum\u00e9")
        await peer.stream.send_eof()
        await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (4321, "r\u00e9sum\u00e9")


@both_roles
@pytest.mark.behaviour(23)
async def test_close_sends_no_code_when_the_code_is_1005(pair: Pair) -> None:
    async with pair() as (ws, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.close, 1005)
            assert (await closes_well(peer)).payload == b""


@both_roles
@pytest.mark.behaviour(23)
async def test_close_frame_follows_all_that_was_sent(pair: Pair) -> None:
    async with pair(max_buffer_size=1000, write_limit=1_000_000) as (ws, peer):
        for _ in range(50):
            await ws.send(b"x" * 2000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.close)
            for _ in range(50):
                assert (await peer.read_frame()).payload == b"x" * 2000
            await closes_well(peer)
        assert ws.close_code == 1000


@both_roles
async def test_close_frame_is_not_compressed(pair: Pair) -> None:
    deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    async with pair(headers=deflate, compression="deflate") as (ws, peer):
        await ws.send("Hello", compress=True)
        assert (await peer.read_frame()).rsv == 4
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.close, 1000, "x" * 123)
            close = await closes_well(peer)
        assert (close.rsv, close.reason) == (0, "x" * 123)
        assert ws.close_code == 1000


# From any task, and cancelled.


@both_roles
@pytest.mark.behaviour(25)
async def test_close_ends_a_recv_of_another_task(pair: Pair) -> None:
    async def recv() -> None:
        with pytest.raises(anyws.ConnectionClosedOK):
            await ws.recv()

    async with pair() as (ws, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recv)
            tasks.start_soon(closes_well, peer)
            await anyio.wait_all_tasks_blocked()
            await ws.close()


@both_roles
@pytest.mark.behaviour(25)
async def test_close_works_from_a_task_of_start_soon(pair: Pair) -> None:
    returned: list[bool] = []

    async def close() -> None:
        await ws.close(4000)
        returned.append(ws.closed)

    async with pair() as (ws, peer), background(closes_well, peer):
        ws.start_soon(close)
        await ws.wait_closed()
    assert returned == [True]
    assert ws.close_code == 4000


@both_roles
@pytest.mark.behaviour(25)
async def test_close_works_from_many_tasks_of_start_soon_and_the_block_at_once(pair: Pair) -> None:
    async with anyio.create_task_group() as tasks:
        async with pair() as (ws, peer):
            tasks.start_soon(closes_well, peer)
            for _ in range(10):
                ws.start_soon(ws.close)
        assert ws.close_code == 1000


@both_roles
@pytest.mark.behaviour(20, 25)
async def test_close_works_after_the_block(pair: Pair) -> None:
    async with pair() as (ws, peer):
        await peer.finish()
    with takes(0):
        await ws.close()


@both_roles
async def test_messages_have_no_gap_when_one_found_no_room_while_we_close(pair: Pair) -> None:
    async with pair(max_queue=2) as (ws, peer), anyio.create_task_group() as tasks:
        for message in (b"1", b"2", b"3"):
            await peer.send(TEXT, message)
        await settle()
        tasks.start_soon(ws.close)
        await settle()
        assert await ws.recv() == "1"
        await peer.send(TEXT, b"4")
        await settle()
        assert await ws.recv() == "2"
        await closes_well(peer)
        with pytest.raises(anyws.ConnectionClosedOK):
            await ws.recv()


@both_roles
@pytest.mark.behaviour(25)
async def test_close_works_inside_recv_streaming(pair: Pair) -> None:
    async with pair() as (ws, peer), background(closes_well, peer):
        await peer.send(TEXT, b"Hel", fin=False)
        async with ws.recv_streaming() as fragments:
            async for fragment in fragments:
                assert fragment == "Hel"
                await ws.close()
                break
        with pytest.raises(anyws.ConnectionClosedOK):
            await ws.recv()


@both_roles
@pytest.mark.behaviour(25)
async def test_close_ends_an_iteration_over_fragments_with_an_error(pair: Pair) -> None:
    async def close() -> None:
        await anyio.sleep(1)
        await ws.close()

    async with pair() as (ws, peer), background(closes_well, peer), background(close):
        await peer.send(TEXT, b"Hel", fin=False)
        received = []
        with pytest.raises(anyws.ConnectionClosedOK):
            async with ws.recv_streaming() as fragments:
                async for fragment in fragments:
                    received.append(fragment)  # noqa: PERF401  # what came before the error counts
        assert received == ["Hel"]


@both_roles
@pytest.mark.behaviour(25)
async def test_close_works_in_an_iteration_over_messages(pair: Pair) -> None:
    async with pair() as (ws, peer), background(closes_well, peer):
        await peer.send(TEXT, b"Hello")
        await peer.send(TEXT, b"again")
        received = []
        async for message in ws:
            received.append(message)
            await ws.close()
        assert received == ["Hello", "again"]


@both_roles
@pytest.mark.behaviour(26)
async def test_cancelled_close_still_ends_the_connection(pair: Pair) -> None:
    async def run_peer() -> None:
        await anyio.sleep(3)
        await closes_well(peer)

    async with pair() as (ws, peer), background(run_peer):
        with takes(3):
            with anyio.move_on_after(1) as scope:
                await ws.close(4000)
            assert scope.cancelled_caught
            assert not ws.closed
            await ws.wait_closed()
        assert ws.close_code == 4000


@both_roles
@pytest.mark.behaviour(26)
async def test_close_in_a_cancelled_scope_still_ends_the_connection(pair: Pair) -> None:
    async with pair() as (ws, peer), background(closes_well, peer):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ws.close(4000)
        await ws.wait_closed()
        assert ws.close_code == 4000


@both_roles
@pytest.mark.behaviour(26)
async def test_cancelled_close_still_drops_a_silent_peer(pair: Pair) -> None:
    async with pair(close_timeout=7) as (ws, _):
        with takes(7):
            with anyio.move_on_after(1):
                await ws.close()
            await ws.wait_closed()
        assert ws.close_code == 1006
