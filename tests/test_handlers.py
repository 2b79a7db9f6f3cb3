"""Handlers: what a server gives them, and what their errors do."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute

import anyws
from anyws.testing import memory_stream_pair
from tests.conftest import backend_options
from tests.sockets import (
    echo,
    loud_records,
    open_peer,
    raw_client,
    serving,
    serving_memory,
)
from tests.wire import CLOSE, REQUEST, TEXT, Peer

pytestmark = pytest.mark.anyio


async def test_connections_are_those_that_are_open() -> None:
    served = anyio.Event()

    async def handler(ws: anyws.Connection) -> None:
        served.set()
        await ws.wait_closed()

    async with serving(handler) as server:
        assert server.connections == frozenset()
        async with raw_client(server.port) as peer:
            await open_peer(peer)
            await served.wait()
            (ws,) = server.connections
            assert ws.remote_address == peer.stream.extra(SocketAttribute.local_address)
            assert ws.local_address == ("127.0.0.1", server.port)
            assert ws.request.remote_address == ws.remote_address
            await peer.send_close()
            await peer.read_until_eof()
            assert server.connections == frozenset()


@pytest.mark.behaviour(89)
async def test_addresses_of_a_connection_are_known_after_its_end() -> None:
    found: list[anyws.Connection] = []

    async def handler(ws: anyws.Connection) -> None:
        found.append(ws)
        await ws.wait_closed()

    async with serving(handler) as server:
        async with raw_client(server.port) as peer:
            address = peer.stream.extra(SocketAttribute.local_address)
            await open_peer(peer)
    assert found[0].remote_address == address
    assert found[0].local_address == ("127.0.0.1", server.port)


@pytest.mark.behaviour(16)
async def test_return_of_the_handler_closes_with_1000() -> None:
    async def handler(ws: anyws.Connection) -> None:
        await ws.send("bye")

    async with serving(handler) as server, raw_client(server.port) as peer:
        await open_peer(peer)
        assert (await peer.read_frame()).payload == b"bye"
        close = await peer.answer_close()
        assert (close.opcode, close.code, close.reason) == (CLOSE, 1000, "")
        assert await peer.read_until_eof() == b""


@pytest.mark.behaviour(100)
async def test_error_of_a_handler_is_logged_once_closes_with_1011_and_harms_no_sibling(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: anyws.Connection) -> None:
        async for message in ws:
            if message == "fail":
                raise LookupError("of the handler")
            await ws.send(message)

    async with serving(handler) as server:
        async with raw_client(server.port) as sibling, raw_client(server.port) as peer:
            await open_peer(sibling)
            await open_peer(peer)
            await peer.send(TEXT, b"fail")
            close = await peer.answer_close()
            assert (close.code, close.reason) == (1011, "")
            await peer.read_until_eof()
            await sibling.send(TEXT, b"unharmed")
            assert (await sibling.read_frame()).payload == b"unharmed"
    assert loud_records(caplog) == ["anyws.server: connection handler failed"]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert repr(record.exc_info[1]) == "LookupError('of the handler')"


@pytest.mark.virtual_time
@pytest.mark.parametrize(("made", "kind"), [(None, "NoneType"), ((m for m in ""), "generator")])
async def test_handler_that_is_no_async_function_is_told_so(
    caplog: pytest.LogCaptureFixture, made: Any, kind: str
) -> None:
    def handler(ws: anyws.Connection) -> Any:
        return made

    async with serving_memory(handler) as (_, connect):
        peer = await connect()
        await open_peer(peer)
        assert (await peer.read_frame()).code == 1011
    (record,) = [one for one in caplog.records if one.name == "anyws.server" and one.exc_info]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == (
        f"handler returned {kind}, expected a coroutine: it must be an async function, without"
        " yield"
    )


@pytest.mark.virtual_time
@pytest.mark.behaviour(100)
async def test_error_of_a_handler_is_logged_before_the_peer_answers_our_close(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: anyws.Connection) -> None:
        raise LookupError

    async with serving_memory(handler) as (_, connect):
        peer = await connect()
        await open_peer(peer)
        assert (await peer.read_frame()).code == 1011
        assert loud_records(caplog) == ["anyws.server: connection handler failed"]


@pytest.mark.virtual_time
@pytest.mark.behaviour(100)
async def test_error_beside_the_cancellation_of_a_handler_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise LookupError

    async def handler(ws: anyws.Connection) -> None:
        # On trio one group has the error and the cancellation.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            tasks.start_soon(anyio.sleep_forever)

    async with serving_memory(handler) as (server, connect):
        peer = await connect()
        await open_peer(peer)
        await server.close(grace=1)
    assert loud_records(caplog) == ["anyws.server: connection handler failed"]
    await peer.stream.aclose()


@pytest.mark.parametrize("anyio_backend", [backend_options("asyncio", virtual=False)])
@pytest.mark.behaviour(100)
@pytest.mark.parametrize("message", [b"cancel", b"cancel in a group"])
async def test_cancellation_of_a_task_that_a_handler_waited_for_is_an_error_of_the_handler(
    anyio_backend: tuple[str, dict[str, Any]], message: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: anyws.Connection) -> None:
        async for data in ws:
            if data == "cancel":
                other = asyncio.create_task(asyncio.sleep(1))
                other.cancel()
                await other
            if data == "cancel in a group":
                raise BaseExceptionGroup("cancelled", [asyncio.CancelledError()])
            await ws.send(data)

    async with serving(handler) as server:
        async with raw_client(server.port) as sibling, raw_client(server.port) as peer:
            await open_peer(sibling)
            await open_peer(peer)
            await peer.send(TEXT, message)
            assert (await peer.answer_close()).code == 1011
            await sibling.send(TEXT, b"unharmed")
            assert (await sibling.read_frame()).payload == b"unharmed"
    assert loud_records(caplog) == ["anyws.server: connection handler failed"]
    assert caplog.records[-1].exc_info is not None
    error = caplog.records[-1].exc_info[1]
    assert str(error) == "the handler was left by the cancellation of a task that it waited for"


@pytest.mark.parametrize("anyio_backend", [backend_options("asyncio", virtual=False)])
async def test_handler_whose_task_is_cancelled_by_asyncio_harms_no_sibling(
    anyio_backend: tuple[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: anyws.Connection) -> None:
        async for data in ws:
            if data == "cancel":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            await ws.send(data)

    async with serving(handler) as server:
        async with raw_client(server.port) as sibling, raw_client(server.port) as peer:
            await open_peer(sibling)
            await open_peer(peer)
            await peer.send(TEXT, b"cancel")
            assert (await peer.read_frame()).payload == b"cancel"
            assert (await peer.read_frame()).code == 1001
            with suppress(anyio.BrokenResourceError):  # dropped: the end may be a reset
                await peer.read_until_eof()
            await sibling.send(TEXT, b"unharmed")
            assert (await sibling.read_frame()).payload == b"unharmed"
    assert loud_records(caplog) == []


class ErrorsOfTheApplication(ExceptionGroup[Exception]):
    """A group that an application has a class of its own for."""


@pytest.mark.behaviour(100)
async def test_group_of_a_handler_leaves_the_block_as_itself_when_it_is_to_raise() -> None:
    error = ErrorsOfTheApplication("several", [LookupError()])

    async def handler(ws: anyws.Connection) -> None:
        raise error

    with pytest.raises(ErrorsOfTheApplication) as caught:
        async with serving(handler, handler_errors="raise") as server:
            async with raw_client(server.port) as peer:
                await open_peer(peer)
                await anyio.sleep_forever()
    assert caught.value is error


@pytest.mark.behaviour(100)
async def test_own_connectionclosed_that_leaves_a_handler_is_only_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "anyws.server")

    async def handler(ws: anyws.Connection) -> None:
        while True:
            await ws.recv()

    async with serving(handler) as server, raw_client(server.port) as peer:
        await open_peer(peer)
        await peer.send_close(1008, "enough")
        await peer.read_until_eof()
    (record,) = (record for record in caplog.records if record.levelno == logging.DEBUG)
    assert loud_records(caplog) == []
    assert "received 1008 (policy violation) enough" in record.getMessage()
    assert record.exc_info is None


@pytest.mark.behaviour(100)
async def test_own_connectionclosed_in_a_group_of_the_handler_is_only_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def receive(ws: anyws.Connection) -> None:
        await ws.recv()

    async def handler(ws: anyws.Connection) -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(receive, ws)
            await ws.wait_closed()
            await ws.send("too late")

    async with serving(handler) as server, raw_client(server.port) as peer:
        await open_peer(peer)
        await peer.send_close(1008)
        await peer.read_until_eof()
    assert loud_records(caplog) == []


@pytest.mark.behaviour(100)
async def test_log_says_whose_handler_failed(caplog: pytest.LogCaptureFixture) -> None:
    connections: list[anyws.Connection] = []

    async def handler(ws: anyws.Connection) -> None:
        connections.append(ws)
        raise LookupError

    async with serving(handler) as server, raw_client(server.port) as peer:
        port = peer.stream.extra(SocketAttribute.local_port)
        await open_peer(peer)
        await peer.answer_close()
    (record,) = caplog.records
    assert record.getMessage() == f"connection handler failed (127.0.0.1:{port}, /chat)"
    assert vars(record)["websocket"] is connections[0]


@pytest.mark.behaviour(100)
async def test_own_connectionclosed_beside_another_error_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: anyws.Connection) -> None:
        await ws.wait_closed()
        try:
            await ws.recv()
        except anyws.ConnectionClosed as closed:
            raise ExceptionGroup("both", [closed, LookupError()]) from None

    async with serving(handler) as server, raw_client(server.port) as peer:
        await open_peer(peer)
        await peer.send_close(1008)
        await peer.read_until_eof()
    assert loud_records(caplog) == ["anyws.server: connection handler failed"]


@pytest.mark.behaviour(100)
async def test_connectionclosed_of_another_connection_is_an_error_of_the_handler(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: anyws.Connection) -> None:
        raise anyws.ConnectionClosedError(anyws.Close(4000, "another"), None)

    async with serving(handler) as server, raw_client(server.port) as peer:
        await open_peer(peer)
        assert (await peer.answer_close()).code == 1011
    assert loud_records(caplog) == ["anyws.server: connection handler failed"]


@pytest.mark.virtual_time
@pytest.mark.behaviour(100)
async def test_connectionclosed_of_another_connection_that_ended_alike_is_an_error_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: anyws.Connection) -> None:
        near, far = memory_stream_pair()
        await far.send(REQUEST + b"\r\n")
        async with anyws.wrap_server(near) as other:
            other.abort()
            ws.abort()
            await ws.wait_closed()
            await other.recv()

    async with serving_memory(handler) as (_, connect):
        peer = await connect()
        await open_peer(peer)
        await peer.read_until_eof()
    assert loud_records(caplog) == ["anyws.server: connection handler failed"]


@pytest.mark.behaviour(100)
async def test_error_of_a_handler_after_the_peer_has_left_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: anyws.Connection) -> None:
        await ws.wait_closed()
        raise LookupError

    async with serving(handler) as server, raw_client(server.port) as peer:
        await open_peer(peer)
        await peer.send_close()
        await peer.read_until_eof()
    assert loud_records(caplog) == ["anyws.server: connection handler failed"]


@pytest.mark.behaviour(91)
async def test_reset_by_the_peer_is_not_worth_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    over = anyio.Event()

    async def handler(ws: anyws.Connection) -> None:
        try:
            await echo(ws)
        finally:
            over.set()

    async with serving(handler) as server:
        async with raw_client(server.port) as peer:
            await open_peer(peer)
            await reset(peer)
        await over.wait()
    assert loud_records(caplog) == []


@pytest.mark.behaviour(91)
async def test_reset_during_the_handshake_is_not_worth_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as server:
        for data in (b"G", REQUEST):
            async with raw_client(server.port) as peer:
                await peer.send_bytes(data)
                await reset(peer)
        async with raw_client(server.port) as peer:
            await open_peer(peer)
    assert loud_records(caplog) == []


async def reset(peer: Peer) -> None:
    """End a TCP connection with a reset."""
    raw_socket = peer.stream.extra(SocketAttribute.raw_socket)
    with socket.socket(fileno=os.dup(raw_socket.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await peer.stream.aclose()


async def test_records_go_to_the_logger_that_was_given(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: anyws.Connection) -> None:
        raise LookupError

    logger = logging.getLogger("chat.server")
    async with serving(handler, logger=logger) as server, raw_client(server.port) as peer:
        await open_peer(peer)
        await peer.answer_close()
    assert [record.name for record in caplog.records] == ["chat.server"]


# Errors of handlers that are to be raised.


@pytest.mark.behaviour(100)
async def test_error_of_a_handler_leaves_the_block_as_itself_when_it_is_to_raise() -> None:
    error = LookupError("of the handler")

    async def handler(ws: anyws.Connection) -> None:
        raise error

    with pytest.raises(LookupError) as caught:
        async with serving(handler, handler_errors="raise") as server:
            async with raw_client(server.port) as peer:
                await open_peer(peer)
                await anyio.sleep_forever()
    assert caught.value is error
    assert error.__context__ is None


@pytest.mark.behaviour(88, 100)
async def test_error_of_the_block_wins_over_that_of_a_handler_which_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed = anyio.Event()

    async def handler(ws: anyws.Connection) -> None:
        failed.set()
        raise LookupError("of the handler")

    with pytest.raises(ValueError, match="of the block"):
        async with serving(handler, handler_errors="raise") as server:
            with anyio.CancelScope(shield=True):
                async with raw_client(server.port) as peer:
                    await open_peer(peer)
                    await failed.wait()
            raise ValueError("of the block")
    assert loud_records(caplog) == ["anyws.server: connection handler failed"]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert repr(record.exc_info[1]) == "LookupError('of the handler')"


@pytest.mark.behaviour(100)
async def test_first_of_several_errors_is_raised_and_the_others_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: anyws.Connection) -> None:
        try:
            await ws.recv()
        finally:
            raise LookupError(ws.path)

    with pytest.raises(LookupError, match="/chat"):
        async with serving(handler, handler_errors="raise") as server:
            async with raw_client(server.port) as first, raw_client(server.port) as second:
                await open_peer(first)
                await open_peer(second)
                await first.send(TEXT, b"go")
                await anyio.sleep_forever()
    assert loud_records(caplog) == ["anyws.server: connection handler failed"]


async def test_block_that_ends_first_still_raises_the_error_of_a_handler() -> None:
    async def handler(ws: anyws.Connection) -> None:
        await ws.wait_closed()
        raise LookupError("late")

    with pytest.raises(LookupError, match="late"):
        async with serving(handler, handler_errors="raise") as server:
            async with raw_client(server.port) as peer:
                await open_peer(peer)
                await peer.send_close()


async def test_each_connection_has_an_id_of_its_own() -> None:
    async def handler(ws: anyws.Connection) -> None:
        await ws.send(str(ws.id))

    async with (
        anyws.serve(handler) as server,
        anyws.connect(f"ws://localhost:{server.port}") as one,
        anyws.connect(f"ws://localhost:{server.port}") as other,
    ):
        ids = {str(one.id), str(other.id), await one.recv(), await other.recv()}
    assert len(ids) == 4
    assert str(one.id) in repr(one)
