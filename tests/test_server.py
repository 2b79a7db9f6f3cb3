"""Serving: where a server listens, how it is begun and ended, and its arguments."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from anyio import TypedAttributeLookupError
from anyio.abc import SocketAttribute

import anyws
from anyws.testing import MemoryListener
from tests.sockets import (
    LIMIT,
    echo,
    loud_records,
    open_peer,
    raw_client,
    serving,
    serving_memory,
)
from tests.wire import TEXT

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

pytestmark = pytest.mark.anyio


# Where it listens.


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", None, ""])
async def test_port_0_picks_one_port_for_all_addresses(host: str | None) -> None:
    async with serving(echo, host) as server:
        assert server.port > 0
        assert {address[1] for address in server.addresses} == {server.port}
        async with anyws.connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


async def test_server_listens_on_ipv6() -> None:
    async with serving(echo, "::1") as server:
        async with anyws.connect(f"ws://[::1]:{server.port}/") as ws:
            assert ws.request.headers["Host"] == f"[::1]:{server.port}"
            assert ws.remote_address[:2] == ("::1", server.port)


async def test_port_and_addresses_are_known_after_the_end() -> None:
    async with serving() as server:
        port, addresses = server.port, server.addresses
    assert (server.port, server.addresses) == (port, addresses)


async def test_port_that_is_in_use_is_an_oserror() -> None:
    async with serving() as server:
        with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
            async with anyws.serve(echo, "127.0.0.1", server.port):
                raise AssertionError


async def test_two_servers_share_a_port_when_reuse_port_is_true() -> None:
    async with serving(reuse_port=True) as first:
        async with anyws.serve(echo, "127.0.0.1", first.port, reuse_port=True) as second:
            assert second.port == first.port


async def test_port_is_free_again_after_the_end() -> None:
    async with serving() as server:
        async with anyws.connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("hello")
    async with anyws.serve(echo, "127.0.0.1", server.port) as again:
        assert again.port == server.port


async def test_listeners_of_the_caller_are_served_and_closed() -> None:
    first = await anyio.create_tcp_listener(local_host="127.0.0.1")
    second = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with serving(listeners=(listener for listener in [first, second])) as server:
        ports = [listener.extra(SocketAttribute.local_port) for listener in (first, second)]
        assert server.addresses == [("127.0.0.1", port) for port in ports]
        assert server.port == ports[0]
        for port in ports:
            async with anyws.connect(f"ws://127.0.0.1:{port}/") as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
    for port in ports:
        with pytest.raises(OSError, match="connection attempts failed"):
            await anyio.connect_tcp("127.0.0.1", port)


@pytest.mark.virtual_time
async def test_server_without_tcp_has_no_port() -> None:
    async with serving_memory() as (server, _):
        assert server.addresses == []
        with pytest.raises(TypedAttributeLookupError, match="does not listen on TCP"):
            _ = server.port


async def test_server_whose_listeners_are_closed_is_over() -> None:
    listener = MemoryListener()
    with anyio.fail_after(LIMIT):
        async with anyws.serve(echo, listeners=[listener]) as server:
            await listener.aclose()
            await server.serve_forever()


async def test_closing_a_listener_of_the_caller_leaves_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = await anyio.create_tcp_listener(local_host="127.0.0.1")
    second = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = second.extra(SocketAttribute.local_port)
    async with serving(listeners=[first, second]):
        async with raw_client(first.extra(SocketAttribute.local_port)) as peer:
            await open_peer(peer)
            await first.aclose()
            await peer.send(TEXT, b"still open")
            assert (await peer.read_frame()).payload == b"still open"
            async with anyws.connect(f"ws://127.0.0.1:{port}/") as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
    assert loud_records(caplog) == []


async def test_backlog_holds_connections_before_they_are_accepted() -> None:
    async with serving(backlog=5) as server:
        async with raw_client(server.port) as peer:
            await open_peer(peer)


# How it is begun and ended.


async def test_serve_cannot_be_awaited() -> None:
    with pytest.raises(TypeError, match="use `async with serve"):
        await anyws.serve(echo)  # type: ignore[misc]  # so


async def test_serve_can_be_entered_only_once() -> None:
    server = anyws.serve(echo, "127.0.0.1")
    async with server:
        pass
    with pytest.raises(RuntimeError, match="only once"):
        await server.__aenter__()


async def test_serve_forever_runs_under_a_task_group() -> None:
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            server = await tg.start(anyws.serve_forever, echo, "127.0.0.1", 0)
            async with anyws.connect(f"ws://127.0.0.1:{server.port}/") as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
            tg.cancel_scope.cancel()


async def test_serve_forever_takes_the_arguments_of_serve() -> None:
    async def serve(*, task_status: TaskStatus[anyws.Server]) -> None:
        await anyws.serve_forever(echo, "127.0.0.1", subprotocols=["chat"], task_status=task_status)

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            server: anyws.Server = await tg.start(serve)
            uri = f"ws://127.0.0.1:{server.port}/"
            async with anyws.connect(uri, subprotocols=["chat"]) as ws:
                assert ws.subprotocol == "chat"
            await server.close()


async def test_serve_forever_ends_when_the_server_is_closed() -> None:
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            server: anyws.Server = await tg.start(anyws.serve_forever, echo, "127.0.0.1")
            await server.close()


async def test_serve_forever_raises_the_oserror_of_listening() -> None:
    async with serving() as server:
        with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
            await anyws.serve_forever(echo, "127.0.0.1", server.port)


async def test_serve_forever_of_a_server_can_be_cancelled_without_ending_it() -> None:
    async with serving() as server:
        with anyio.move_on_after(0.01):
            await server.serve_forever()
        async with anyws.connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


@pytest.mark.behaviour(88)
async def test_exception_of_the_block_leaves_as_itself_and_drops_the_connections() -> None:
    error = LookupError("of the block")
    with pytest.raises(LookupError) as caught:
        async with serving() as server:
            async with raw_client(server.port) as peer:
                await open_peer(peer)
                raise error
    assert caught.value is error


@pytest.mark.virtual_time
@pytest.mark.behaviour(88, 90)
async def test_exception_of_the_block_does_not_wait_for_handlers() -> None:
    async def hang(ws: anyws.Connection) -> None:
        await anyio.sleep_forever()

    started_at = anyio.current_time()
    with pytest.raises(LookupError):
        async with serving_memory(hang) as (_, connect):
            peer = await connect()
            await open_peer(peer)
            raise LookupError
    assert anyio.current_time() - started_at < 0.5
    assert (await peer.read_frame()).code == 1001
    assert await peer.read_until_eof() == b""


@pytest.mark.virtual_time
@pytest.mark.behaviour(90)
async def test_cancelled_block_drops_the_connections_at_once() -> None:
    async def hang(ws: anyws.Connection) -> None:
        await anyio.sleep_forever()

    started_at = anyio.current_time()
    with anyio.CancelScope() as scope:
        async with serving_memory(hang) as (_, connect):
            peer = await connect()
            await open_peer(peer)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert anyio.current_time() - started_at < 0.5
    assert (await peer.read_frame()).code == 1001


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"handler_errors": "ignore"}, "handler_errors 'ignore', expected 'log' or 'raise'"),
        ({"max_connections": -1}, "max_connections of -1 is negative"),
        ({"open_timeout": 0}, "open_timeout of 0 seconds is not above 0"),
        ({"open_timeout": float("nan")}, "open_timeout of nan seconds is not above 0"),
        ({"ping_interval": 0}, "ping_interval of 0 seconds is not above 0"),
        ({"ping_timeout": -1}, "ping_timeout of -1 seconds is not above 0"),
        ({"close_timeout": 0}, "close_timeout of 0 seconds is not above 0"),
        ({"max_size": -1}, "max_size of -1 bytes is negative"),
        ({"max_size": (10, -1)}, "max_size of -1 bytes is negative"),
        ({"max_queue": 0}, "max_queue of 0 is under 1"),
        ({"read_limit": (10, 20)}, "low mark 20 of read_limit"),
        ({"write_limit": -1}, "write_limit of -1 is under 1"),
        ({"compression": "brotli"}, "compression 'brotli', expected"),
        ({"origins": ["example.com"]}, "'example.com' in origins is not an origin"),
        ({"subprotocols": ["a", "a"]}, "subprotocol 'a' is given more than once"),
    ],
)
async def test_bad_argument_is_a_valueerror_of_the_call(arguments: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("(", r"\(")):
        anyws.serve(echo, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"subprotocols": "chat"},
        {"origins": "http://a.example"},
        {"server_header": 1},
        {"compression": 5},
        {"handler_errors": []},
    ],
)
async def test_argument_of_a_wrong_type_is_a_typeerror_of_the_call(arguments: Any) -> None:
    with pytest.raises(TypeError):
        anyws.serve(echo, **arguments)


def test_interrupt_at_the_beginning_of_a_connection_leaves_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(timeout: float | None) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    async def serve() -> None:
        async with anyws.serve(echo, "127.0.0.1", 0) as server:
            monkeypatch.setattr("anyws._server.move_on_after", interrupt)
            with socket.create_connection(("127.0.0.1", server.port)):
                await server.serve_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(serve)  # on asyncio it would end the event loop itself
