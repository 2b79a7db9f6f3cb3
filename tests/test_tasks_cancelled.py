"""asyncio's own cancellation of all tasks at once, ours among them, as `asyncio.run` ends.

A task that is cancelled so before it has begun never runs at all, its `finally` neither.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import Listener, SocketAttribute

import anyws
from anyws._transports._asyncio import Guest
from anyws.testing import MemoryListener
from tests.sockets import echo, loud_records
from tests.tls import client_context, server_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[("asyncio", {}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@asynccontextmanager
async def over_memory() -> AsyncGenerator[anyws.Connection]:
    listener = MemoryListener()
    async with (
        anyws.serve(echo, listeners=[listener]),
        anyws.wrap_client(await listener.connect()) as ws,
    ):
        yield ws


@asynccontextmanager
async def over_tcp() -> AsyncGenerator[anyws.Connection]:
    async with (
        anyws.serve(echo, "127.0.0.1") as server,
        anyws.connect(f"ws://127.0.0.1:{server.port}/") as ws,
    ):
        yield ws


@asynccontextmanager
async def over_tls() -> AsyncGenerator[anyws.Connection]:
    async with (
        anyws.serve(echo, "127.0.0.1", ssl=server_context()) as server,
        anyws.connect(f"wss://127.0.0.1:{server.port}/", ssl=client_context()) as ws,
    ):
        yield ws


# anyio's task groups make a coroutine when a task is started, and leave it alone if the task never
# begins.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.behaviour(89, 90, 91)
@pytest.mark.parametrize("times", [1, 15])
@pytest.mark.parametrize(
    ("opening", "native"),
    [
        (over_memory, True),
        (over_tcp, True),
        (over_tcp, False),
        (over_tls, True),
        (over_tls, False),
    ],
    ids=["memory", "tcp", "tcp-stream", "tls", "tls-stream"],
)
async def test_all_ends_when_all_tasks_are_cancelled_at_any_turn_of_an_end(
    opening: Callable[[], Any],
    native: bool,
    times: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("ANYWS_NATIVE_TRANSPORTS", str(int(native)))
    mine = asyncio.all_tasks()
    for turns in range(16):
        opened = asyncio.Event()

        async def run(opened: asyncio.Event = opened) -> None:
            async with opening() as ws:
                opened.set()
                await ws.close()

        main = asyncio.create_task(run())
        await opened.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        for _ in range(times):
            for task in asyncio.all_tasks() - mine:
                task.cancel()
            await asyncio.sleep(0)
        _, pending = await asyncio.wait({main, *(asyncio.all_tasks() - mine)}, timeout=2)
        assert not pending, turns
    gc.collect()  # the coroutines that are left alone are to be told of here
    assert loud_records(caplog) == []


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.behaviour(89)
@pytest.mark.parametrize("native", [True, False], ids=["native", "streams"])
async def test_listeners_are_closed_when_all_tasks_are_cancelled_at_any_turn_of_a_beginning(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANYWS_NATIVE_TRANSPORTS", str(int(native)))
    mine = asyncio.all_tasks()
    listeners: list[Listener[Any]] = []

    async def run() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        listeners.extend(listener.listeners)
        async with anyws.serve(echo, listeners=[listener]) as server:
            await server.serve_forever()

    for turns in range(12):
        main = asyncio.create_task(run())
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - mine:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await main
    gc.collect()
    assert all(it.extra(SocketAttribute.raw_socket).fileno() == -1 for it in listeners)


class Interrupted(Guest):
    """A guest that a second interrupt of the user's meets on its way, as between any two calls."""

    async def wait(self) -> None:
        await self

    def go_on_soon(self) -> None:
        interrupts.append(self)
        if len(interrupts) == 1:
            raise KeyboardInterrupt
        super().go_on_soon()


interrupts: list[Guest] = []


@pytest.mark.behaviour(90)
@pytest.mark.parametrize("woken", [True, False])
async def test_task_that_waits_for_a_message_can_be_cancelled_after_an_interrupt(
    woken: bool,
) -> None:
    interrupts.clear()
    guest = Interrupted(loop=asyncio.get_running_loop())
    task = asyncio.create_task(guest.wait())
    await asyncio.sleep(0)
    if woken:
        guest.set_result(None)  # and the callback that does so does not come to its end
        interrupts.append(guest)
    else:
        with pytest.raises(KeyboardInterrupt):
            task.cancel()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=2)
    assert done
    assert task.cancelled()
