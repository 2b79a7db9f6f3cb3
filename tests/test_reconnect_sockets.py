"""Coming back over real sockets, to a server that is stopped and started again."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest

import anyws
from anyws import Backoff
from anyws._link import Link
from anyws._types import Role
from tests.sockets import LIMIT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

pytestmark = pytest.mark.anyio

RESTARTS = 10


class Restarting:
    """A server that is started again on its port, and says to each client for which time."""

    def __init__(self) -> None:
        self.port = 0
        self.listening = anyio.Event()
        self.heard = [anyio.Event() for _ in range(RESTARTS)]

    async def run(self) -> None:
        for number, heard in enumerate(self.heard):
            # It closes its connections in good order, and drops them, by turns.
            with anyio.CancelScope() as scope:
                async with anyws.serve(greeter(str(number)), "127.0.0.1", self.port) as server:
                    self.port = server.port
                    self.listening.set()
                    await heard.wait()
                    if number % 2:
                        scope.cancel()


def greeter(message: str) -> Callable[[anyws.Connection], Awaitable[None]]:
    async def handler(ws: anyws.Connection) -> None:
        await ws.send(message)
        await ws.wait_closed()

    return handler


async def test_client_comes_back_to_a_server_that_is_restarted_10_times() -> None:
    restarting = Restarting()
    messages: list[str | bytes] = []
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            tg.start_soon(restarting.run)
            await restarting.listening.wait()
            uri = f"ws://127.0.0.1:{restarting.port}/"
            backoff = Backoff(initial=0.001, max=0.01, stable_after=1)
            async with anyws.reconnect(uri, backoff=backoff) as session:
                async for ws in session:
                    with suppress(anyws.ConnectionClosedError):
                        async for message in ws:
                            messages.append(message)
                            restarting.heard[int(message)].set()
                    if len(messages) == RESTARTS:
                        break
    assert messages == [str(number) for number in range(RESTARTS)]
    assert session.attempts >= RESTARTS


async def test_what_comes_up_as_a_connection_begins_to_live_leaves_the_block_as_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = ZeroDivisionError()
    start = Link.start

    def fail(link: Link, task_group: TaskGroup, trailing_data: bytes) -> None:
        if link.protocol.role is Role.CLIENT:
            raise error
        start(link, task_group, trailing_data)

    monkeypatch.setattr(Link, "start", fail)
    with anyio.fail_after(LIMIT):
        async with anyws.serve(greeter("Hello"), "127.0.0.1") as server:
            with pytest.raises(ZeroDivisionError) as caught:
                async with anyws.reconnect(f"ws://127.0.0.1:{server.port}/") as session:
                    await anext(session)
            await server.close()
    assert caught.value is error
