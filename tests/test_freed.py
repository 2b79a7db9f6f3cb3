"""Memory, given back: what a connection took is freed with the last who uses it.

Not by the garbage collector some time later, which stops the event loop to look for it: a server
whose connections come and go spent a tenth of its time on that.
"""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import anyws
from anyws.testing import MemoryListener
from tests.sockets import LIMIT, echo
from tests.tls import client_context, server_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

    from anyws import Connection

    Way = Callable[[], contextlib.AbstractAsyncContextManager[tuple[anyws.Server, Any]]]

pytestmark = pytest.mark.anyio

# Over anyio's own streams, a task that was cancelled within one (by the end of TLS on trio, by a
# cancelled block) has its error until the collector comes, and that has its frames.
NATIVE = os.environ.get("ANYWS_NATIVE_TRANSPORTS") != "0"


class Told(anyws.Hooks):
    """Takes all that there is to tell, so that each connection has its watcher."""

    def opened(self, ws: Connection) -> None:
        """Do nothing."""

    def message_received(self, ws: Connection, message: Any) -> None:
        """Do nothing."""


@contextlib.asynccontextmanager
async def over_tcp(**arguments: Any) -> AsyncGenerator[tuple[anyws.Server, Any]]:
    async with anyws.serve(echo, "127.0.0.1", **arguments) as server:
        yield server, lambda: anyws.connect(f"ws://127.0.0.1:{server.port}", **arguments)


@contextlib.asynccontextmanager
async def over_tls() -> AsyncGenerator[tuple[anyws.Server, Any]]:
    async with anyws.serve(echo, "127.0.0.1", ssl=server_context()) as server:
        url = f"wss://127.0.0.1:{server.port}"
        yield server, lambda: anyws.connect(url, ssl=client_context())


@contextlib.asynccontextmanager
async def over_a_stream() -> AsyncGenerator[tuple[anyws.Server, Any]]:
    listener = MemoryListener()
    async with anyws.serve(echo, listeners=[listener]) as server:

        @contextlib.asynccontextmanager
        async def connect() -> AsyncGenerator[Connection]:
            async with anyws.connect("ws://memory/", stream=await listener.connect()) as ws:
                yield ws

        yield server, connect


WAYS: dict[str, Way] = {
    "tcp": over_tcp,
    "stream": over_a_stream,
    "hooks": lambda: over_tcp(hooks=Told()),
    "no keepalive": lambda: over_tcp(ping_interval=None),
}
if NATIVE:
    WAYS["tls"] = over_tls


async def talk(ws: Connection) -> None:
    await ws.send("a")
    assert await ws.recv() == "a"


async def close(ws: Connection) -> None:
    await ws.close()


async def ask_for_the_end(ws: Connection) -> None:
    await ws.send(b"x" * (2**20 + 1))  # more than the server takes
    with contextlib.suppress(anyws.ConnectionClosedError):
        await ws.recv()


async def abort(ws: Connection) -> None:
    ws.abort()


async def lose_a_ping(ws: Connection) -> None:
    waiter = await ws.ping()
    ws.abort()
    with contextlib.suppress(anyws.ConnectionClosedError):
        await waiter


async def stream(ws: Connection) -> None:
    await ws.send(["a", "b"])
    async with ws.recv_streaming() as fragments:
        assert "".join([str(fragment) async for fragment in fragments]) == "ab"


async def tie_tasks(ws: Connection) -> None:
    ws.start_soon(anyio.sleep_forever)
    with ws.cancel_on_close():
        await checkpoint()


async def fail(_: Connection) -> None:
    raise KeyError


@contextlib.contextmanager
def without_the_collector() -> Iterator[list[object]]:
    """Give what of ours only the garbage collector would have freed, once the block is left."""
    left: list[object] = []
    gc.disable()
    gc.freeze()  # what is here already is none of our business
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield left
        gc.collect()
        left += [thing for thing in gc.garbage if type(thing).__module__.startswith("anyws")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()


async def until_idle(server: anyws.Server) -> None:
    with anyio.fail_after(LIMIT):
        while server.connections:
            await checkpoint()
        for _ in range(10):  # until its task has ended too
            await checkpoint()


@pytest.mark.parametrize(
    "course",
    [talk, close, ask_for_the_end, abort, lose_a_ping, stream, tie_tasks, fail],
    ids=lambda course: course.__name__,
)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_connection_is_freed_with_the_last_who_uses_it(
    way: Way, course: Callable[[Connection], Awaitable[None]]
) -> None:
    async with way() as (server, connect):
        with without_the_collector() as left:
            with contextlib.suppress(KeyError):
                async with connect() as ws:
                    reference = weakref.ref(ws)
                    await course(ws)
            del ws
            await until_idle(server)
            freed = reference() is None
        assert freed
        assert left == []


async def test_what_a_transport_tells_late_is_nothing() -> None:
    async with over_tcp() as (_, connect), connect() as ws:
        await ws.close()
        ws._link.intake.end_reading(OSError())
        ws._link.intake.end_writing(OSError())
        with pytest.raises(anyws.ConnectionClosedOK) as caught:
            await ws.recv()
    assert caught.value.__cause__ is None


@pytest.mark.skipif(not NATIVE, reason="a cancelled task of anyio's streams keeps its frames")
async def test_connection_is_freed_when_its_block_is_cancelled() -> None:
    async with over_tcp() as (server, connect):
        with without_the_collector() as left:
            with anyio.CancelScope() as scope:
                async with connect() as ws:
                    reference = weakref.ref(ws)
                    scope.cancel()
                    await ws.recv()
            del ws
            await until_idle(server)
            freed = reference() is None
        assert freed
        assert left == []
