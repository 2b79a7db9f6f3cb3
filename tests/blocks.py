"""The blocks of anyws that own tasks, and what tests of leaving them share.

Owns their surroundings, all in memory; knows no frames (see `wire`) and no time (see `endings`).
"""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import anyws
from anyws.testing import MemoryListener, connection_pair, memory_server, memory_stream_pair
from tests.network import memory_network
from tests.wire import REQUEST

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from types import TracebackType

    from anyws._parking import Parking
    from tests.endings import Misbehaviour
    from tests.wire import Peer

    Block = Callable[[], AbstractAsyncContextManager[AbstractAsyncContextManager[Any]]]


async def echo(ws: anyws.Connection) -> None:
    async for message in ws:
        await ws.send(message)


class Turns:
    """How often another task has had its turn."""

    def __init__(self) -> None:
        self.count = 0


@asynccontextmanager
async def counted_turns() -> AsyncGenerator[Turns, None]:
    """Run a task beside the block that counts its own turns."""
    turns = Turns()

    async def count() -> None:
        while True:
            await checkpoint()
            turns.count += 1

    async with anyio.create_task_group() as tg:
        tg.start_soon(count)
        yield turns
        tg.cancel_scope.cancel()


# Every block of anyws that owns tasks, not entered yet, in the surroundings that it needs.


@asynccontextmanager
async def connect_block() -> AsyncGenerator[AbstractAsyncContextManager[Any], None]:
    listener = MemoryListener()
    async with anyws.serve(echo, listeners=[listener]):
        yield anyws.connect("ws://localhost/", stream=await listener.connect())


@asynccontextmanager
async def wrap_client_block() -> AsyncGenerator[AbstractAsyncContextManager[Any], None]:
    listener = MemoryListener()
    async with anyws.serve(echo, listeners=[listener]):
        yield anyws.wrap_client(await listener.connect())


@asynccontextmanager
async def wrap_server_block() -> AsyncGenerator[AbstractAsyncContextManager[Any], None]:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    yield anyws.wrap_server(near)
    await far.aclose()


@asynccontextmanager
async def serve_block() -> AsyncGenerator[AbstractAsyncContextManager[Any], None]:
    listener = MemoryListener()
    async with anyio.create_task_group() as tg:
        tg.start_soon(connect_and_stay, listener)
        yield anyws.serve(echo, listeners=[listener])


async def connect_and_stay(listener: MemoryListener) -> None:
    # The server may go before there is a connection.
    with suppress(anyio.ClosedResourceError, anyws.InvalidHandshake):
        async with anyws.wrap_client(await listener.connect()) as ws:
            await ws.wait_closed()


@asynccontextmanager
async def connection_pair_block() -> AsyncGenerator[AbstractAsyncContextManager[Any], None]:
    yield connection_pair()


@asynccontextmanager
async def memory_server_block() -> AsyncGenerator[AbstractAsyncContextManager[Any], None]:
    yield memory_server(echo)


@asynccontextmanager
async def memory_client_block() -> AsyncGenerator[AbstractAsyncContextManager[Any], None]:
    async with memory_server(echo) as connect:
        yield connect()


@asynccontextmanager
async def connection_block() -> AsyncGenerator[AbstractAsyncContextManager[Any], None]:
    async with connection_pair() as (client, _):
        yield client


class _Reconnecting:
    """The block of `reconnect` with a connection in it, as the blocks of the others have one."""

    def __init__(self) -> None:
        self._block = anyws.reconnect("ws://localhost/")

    async def __aenter__(self) -> anyws.Connection:
        session = await self._block.__aenter__()
        try:
            return await anext(session)
        except BaseException:
            await self._block.__aexit__(*sys.exc_info())
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._block.__aexit__(exc_type, exc, traceback)


@asynccontextmanager
async def reconnect_block() -> AsyncGenerator[AbstractAsyncContextManager[Any], None]:
    async with memory_network() as network:
        async with anyws.serve(echo, listeners=[network.listen()]):
            yield _Reconnecting()


all_blocks = pytest.mark.parametrize(
    "block",
    [
        pytest.param(connect_block, id="connect"),
        pytest.param(wrap_client_block, id="wrap_client"),
        pytest.param(wrap_server_block, id="wrap_server"),
        pytest.param(serve_block, id="serve"),
        pytest.param(connection_pair_block, id="connection_pair"),
        pytest.param(memory_server_block, id="memory_server"),
        pytest.param(memory_client_block, id="memory client"),
        pytest.param(reconnect_block, id="reconnect"),
        pytest.param(connection_block, id="a connection itself"),
    ],
)


class BodyError(Exception):
    """What the body of a block raises."""


async def park(parking: Parking) -> None:
    """Wait at a parking: what park() gives is no coroutine, as a task needs one."""
    await parking.park()


async def settle() -> None:
    """Let all that can happen at once happen."""
    await anyio.sleep(0.001)


@asynccontextmanager
async def background_peer() -> AsyncGenerator[Callable[[Misbehaviour, Peer], None], None]:
    """Give what starts a peer's task, which ends with the block or with its stream."""

    async def run(peer_does: Misbehaviour, peer: Peer) -> None:
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream):
            await peer_does(peer)

    async with anyio.create_task_group() as tg:

        def start(peer_does: Misbehaviour, peer: Peer) -> None:
            tg.start_soon(run, peer_does, peer)

        yield start
        tg.cancel_scope.cancel()
