"""Clients in `reconnect` loops, and a server that is killed and started again, under load.

Owns what is asserted of it; the server that keeps the ledger stands in `receipts`.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from tests.reliability.overload import settle, warm_up
from tests.reliability.resources import count_resources

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="it counts by means of Linux's /proc"),
]

_ROOT = Path(__file__).parents[2]

# Quick, and all the same never so many attempts that the server cannot start beside them.
BACKOFF = anyws.Backoff(initial=0.02, max=0.1, stable_after=1)

# Seconds in which all clients must be back.
LIMIT = 20


@asynccontextmanager
async def receiving_server(backend: str, port: int, ledger: Path) -> AsyncGenerator[int, None]:
    """Run the server that writes down what it gets; it is killed when the block is left."""
    command = [sys.executable, "-m", "tests.reliability.receipts", backend, str(port), str(ledger)]
    process = await anyio.open_process(command, stderr=None, cwd=_ROOT)
    try:
        assert process.stdout is not None
        yield int(await process.stdout.receive())
    finally:
        with anyio.CancelScope(shield=True):  # what was killed ends
            with suppress(ProcessLookupError):
                process.kill()
            await process.aclose()


class Clients:
    """Clients that send one message after the other, each until it is acknowledged.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.acknowledged: set[str] = set()
        self.connections = 0
        self.finishing = False
        self._running = 0
        self._here: set[int] = set()
        self._changed = anyio.Event()

    async def run(self, uri: str, name: int) -> None:
        self._running += 1
        await self._run(uri, name)
        self._running -= 1
        self._changed.set()

    async def _run(self, uri: str, name: int) -> None:
        number = 0
        async with anyws.reconnect(uri, backoff=BACKOFF) as session:
            async for ws in session:
                self.connections += 1
                with suppress(anyws.ConnectionClosedError):
                    while not self.finishing:
                        message = f"{name}: {number}"
                        await ws.send(message)
                        assert await ws.recv() == f"ack {message}"
                        self.acknowledged.add(message)
                        self._here.add(name)
                        self._changed.set()
                        number += 1
                if self.finishing:
                    return

    async def finish(self) -> None:
        """Let all leave, while the server is there."""
        self.finishing = True
        while self._running:
            self._changed = anyio.Event()
            await self._changed.wait()

    async def all_back(self) -> None:
        """Wait until each has got an acknowledgement, from now on."""
        self._here.clear()
        while len(self._here) < self.count:
            self._changed = anyio.Event()
            await self._changed.wait()


async def restart(backend: str, ledger: Path, clients: int, kills: int) -> Clients:
    """Kill the server so often, each time when all clients are back, in the midst of their work."""
    crowd = Clients(clients)
    port = 0
    async with anyio.create_task_group() as tasks:
        for life in range(kills + 1):
            async with receiving_server(backend, port, ledger) as port:
                if life == 0:
                    for name in range(clients):
                        tasks.start_soon(crowd.run, f"ws://127.0.0.1:{port}/", name)
                with anyio.fail_after(LIMIT):
                    await crowd.all_back()
                    if life == kills:
                        await crowd.finish()
    return crowd


@pytest.mark.parametrize(
    ("clients", "kills"),
    [
        pytest.param(10, 1, id="10-clients"),
        pytest.param(
            *(100, 50),
            id="100-clients",
            marks=[pytest.mark.slow, pytest.mark.timeout(600)],
        ),
    ],
)
async def test_clients_come_back_each_time_and_no_acknowledged_message_is_lost(
    tmp_path: Path, anyio_backend: tuple[str, dict[str, Any]], clients: int, kills: int
) -> None:
    name, options = anyio_backend
    await warm_up()
    async with receiving_server(name, 0, tmp_path / "nothing"):
        pass  # asyncio watches processes by means that it keeps
    before = count_resources()
    ledger = tmp_path / "ledger"
    crowd = await restart("uvloop" if "use_uvloop" in options else name, ledger, clients, kills)
    assert crowd.connections >= clients * (kills + 1)
    assert len(crowd.acknowledged) >= clients * (kills + 1)
    assert crowd.acknowledged <= set(ledger.read_text().splitlines())
    await settle()
    after = count_resources()
    assert (after.tasks, after.descriptors) == (before.tasks, before.descriptors)
