"""Connections and servers in memory, for the tests of applications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from anyio import ClosedResourceError

import anyws
from anyws import testing
from anyws.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from anyws.sansio import PerMessageDeflate
from anyws.testing import connection_pair, memory_server

if TYPE_CHECKING:
    from anyws import Connection, Request, Response

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def echo(ws: Connection) -> None:
    async for message in ws:
        await ws.send(message)


def test_names_are_sorted() -> None:
    assert testing.__all__ == sorted(testing.__all__)


# connection_pair.


async def test_pair_talks_in_both_directions() -> None:
    async with connection_pair() as (client, server):
        await client.send("Hello")
        assert await server.recv() == "Hello"
        await server.send(b"Goodbye")
        assert await client.recv() == b"Goodbye"


async def test_pair_is_a_client_and_a_server_with_their_handshake() -> None:
    async with connection_pair() as (client, server):
        assert client.request.headers["Host"] == server.request.headers["Host"] == "localhost"
        assert client.response.status == server.response.status == 101
        assert client.path == server.path == "/"
        assert client.open
        assert server.open


async def test_pair_compresses_as_told() -> None:
    async with connection_pair() as (client, server):
        assert [one.name for one in client.extensions] == ["permessage-deflate"]
        assert [one.name for one in server.extensions] == ["permessage-deflate"]
        await client.send("a" * 1000)
        assert await server.recv() == "a" * 1000
    async with connection_pair(compression=None) as (client, server):
        assert client.extensions == server.extensions == ()
    terms = PerMessageDeflate(server_no_context_takeover=True)
    async with connection_pair(compression=terms) as (client, server):
        assert ("server_no_context_takeover", None) in client.extensions[0].parameters


async def test_pair_takes_arguments_for_both_sides() -> None:
    async with connection_pair(max_size=3) as (client, server):
        for near, far in ((client, server), (server, client)):
            await near.send("abc")
            assert await far.recv() == "abc"
        await client.send("abcd")
        with pytest.raises(ConnectionClosedError) as info:
            await server.recv()
        assert info.value.sent is not None
        assert info.value.sent.code == 1009


@pytest.mark.parametrize("argument", ["handler", "origin", "nonsense"])
async def test_pair_refuses_arguments_of_one_side_alone(argument: str) -> None:
    arguments: dict[str, Any] = {argument: None}
    with pytest.raises(TypeError, match=argument):
        async with connection_pair(**arguments):
            pytest.fail("it was entered")


async def test_pair_holds_so_many_bytes_between_its_sides() -> None:
    async with connection_pair(
        max_buffer_size=10, write_limit=5, compression=None, close_timeout=1
    ) as (client, server):
        with anyio.move_on_after(5) as scope:
            while True:
                await client.send(bytes(1000))
        assert scope.cancelled_caught
        assert await server.recv() == bytes(1000)


async def test_pair_lives_in_virtual_time() -> None:
    async with connection_pair(ping_interval=20) as (client, server):
        await anyio.sleep(100)
        assert client.open
        assert server.open
        assert anyio.current_time() >= 100


async def test_pair_is_closed_when_the_block_is_left() -> None:
    async with connection_pair() as (client, server):
        pass
    assert client.closed
    assert server.closed
    assert client.close_code == server.close_code == 1000


async def test_pair_is_closed_in_a_second_though_neither_side_receives() -> None:
    async with connection_pair(max_buffer_size=10, write_limit=None) as (client, server):
        for sender in (client, server):
            for _ in range(100):
                await sender.send(b"x" * 5_000)
        started_at = anyio.current_time()
    assert anyio.current_time() - started_at < 1.5
    assert (client.close_code, server.close_code) == (1000, 1000)


async def test_task_that_receives_gets_all_though_the_block_of_a_pair_is_left() -> None:
    received: list[str | bytes] = []

    async def receive() -> None:
        async for message in server:
            received.append(message)
            await anyio.sleep(0.001)

    async with anyio.create_task_group() as tg:
        async with connection_pair() as (client, server):
            tg.start_soon(receive)
            for number in range(200):
                await client.send(str(number))
    assert len(received) == 200


async def test_other_side_sees_the_close_of_one() -> None:
    async with connection_pair() as (client, server):
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.close, 3000, "bye")
            with pytest.raises(ConnectionClosedError) as info:
                await server.recv()
        assert (info.value.code, info.value.reason) == (3000, "bye")


@pytest.mark.behaviour(88)
async def test_error_leaves_the_block_of_a_pair_as_itself() -> None:
    error = KeyError("mine")
    context = ValueError("its context")
    error.__context__ = context
    with pytest.raises(KeyError) as info:
        async with connection_pair() as (client, server):
            raise error
    assert info.value is error
    assert error.__context__ is context
    assert client.closed
    assert server.closed


@pytest.mark.behaviour(90)
async def test_pair_is_over_when_it_is_cancelled() -> None:
    with anyio.move_on_after(5) as scope:
        async with connection_pair() as (client, server):
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert client.closed
    assert server.closed
    assert anyio.current_time() < 30


async def test_pair_is_over_when_it_is_cancelled_on_entering() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with connection_pair() as (client, _):
            await client.recv()
    assert scope.cancelled_caught


# memory_server.


async def test_memory_server_serves_clients() -> None:
    async with memory_server(echo) as connect:
        async with connect() as first, connect() as second:
            await first.send("one")
            await second.send("two")
            assert await second.recv() == "two"
            assert await first.recv() == "one"


async def test_handshake_with_a_memory_server_is_real() -> None:
    async def check(request: Request) -> Response | None:
        if request.path != "/rooms?id=1":
            return request.respond(404, "no such room\n")
        return None

    async def handler(ws: Connection) -> None:
        await ws.send(f"{ws.path} {ws.subprotocol} {ws.request.headers['X-Name']}")

    async with memory_server(handler, process_request=check, subprotocols=["chat"]) as connect:
        uri = "ws://example.com/rooms?id=1"
        async with connect(uri, subprotocols=["chat"], additional_headers={"X-Name": "Ada"}) as ws:
            assert ws.request.headers["Host"] == "example.com"
            assert await ws.recv() == "/rooms?id=1 chat Ada"
        with pytest.raises(InvalidStatus) as info:
            async with connect():
                pytest.fail("it was entered")
        assert info.value.response.status == 404
        assert info.value.response.body == b"no such room\n"


async def test_memory_server_has_its_server() -> None:
    serving = memory_server(echo)
    async with serving as connect, connect():
        assert len(serving.server.connections) == 1


async def test_error_of_a_handler_leaves_the_block_of_a_memory_server() -> None:
    async def fail(ws: Connection) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        async with memory_server(fail) as connect, connect() as ws:
            await ws.wait_closed()


async def test_error_of_a_handler_is_logged_when_that_is_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(ws: Connection) -> None:
        raise KeyError("mine")

    async with memory_server(fail, handler_errors="log") as connect, connect() as ws:
        with pytest.raises(ConnectionClosedError) as info:
            await ws.recv()
    assert info.value.code == 1011
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_clients_are_closed_when_the_block_of_a_memory_server_is_left() -> None:
    async with anyio.create_task_group() as tg:
        async with memory_server(anyws.Connection.wait_closed) as connect:

            async def client() -> None:
                async with connect() as ws:
                    with pytest.raises(ConnectionClosedOK) as info:
                        await ws.recv()
                    assert info.value.code == 1001

            tg.start_soon(client)
            await anyio.wait_all_tasks_blocked()


async def test_nobody_connects_to_a_memory_server_that_is_over() -> None:
    async with memory_server(echo) as connect:
        pass
    with pytest.raises(ClosedResourceError):
        async with connect():
            pytest.fail("it was entered")


async def test_nothing_is_left_open_when_the_arguments_of_a_client_are_wrong() -> None:
    async with memory_server(echo) as connect:
        with pytest.raises(ValueError, match="open_timeout"):
            async with connect(open_timeout=-1):
                pytest.fail("it was entered")
    # The server did not wait for a request that never comes.
    assert anyio.current_time() < 1


async def test_client_of_a_memory_server_is_closed_when_its_block_is_left() -> None:
    async with memory_server(echo) as connect:
        async with connect() as ws:
            assert ws.open
        assert ws.closed
        assert ws.close_code == 1000
        error = KeyError("mine")
        with pytest.raises(KeyError) as info:
            async with connect() as ws:
                raise error
        assert info.value is error
        assert ws.closed


@pytest.mark.behaviour(90)
async def test_memory_server_is_over_when_it_is_cancelled() -> None:
    with anyio.move_on_after(5) as scope:
        async with memory_server(echo) as connect, connect() as ws:
            await ws.recv()
    assert scope.cancelled_caught
    assert ws.closed


async def test_connection_pair_leaves_nothing_when_its_second_half_cannot_be_entered() -> None:
    class Ending(anyws.Hooks):
        opened_count = 0

        def opened(self, ws: anyws.Connection) -> None:
            self.opened_count += 1
            if self.opened_count == 2:
                raise SystemExit("no")

    with pytest.raises(SystemExit):
        async with connection_pair(hooks=Ending()):
            pass
    await anyio.lowlevel.checkpoint()
