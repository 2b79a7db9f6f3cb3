"""Servers with many connections: those that read are served, whatever the others do.

Owns what is asserted of it; the full size is `slow`.
"""

from __future__ import annotations

import resource
import sys
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import to_thread

import anyws
from anyws._transports import native
from tests.reliability import soak
from tests.reliability.crowd import Crowd
from tests.reliability.overload import Overload, overload, settle, warm_up
from tests.reliability.resources import Resources, count_resources
from tests.reliability.soak import Sample
from tests.sockets import LIMIT, echo

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="it counts by means of Linux's /proc"),
]

# Bytes that a connection may take for a peer that sends and does not read: what was read and waits
# (read_limit), what waits to be sent (write_limit), a message of the flood in each, and the chunk
# that the decoder has in hand.
STALLED_SIZE = 2 * 2**16 + 2 * 16384 + 2**18


@pytest.fixture
def many_files() -> Iterator[None]:
    """Raise the limit of open files to what the system allows, for the time of a test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def check(result: Overload) -> None:
    """See that nothing is left behind, and that memory is bounded."""
    assert (result.after.tasks, result.after.descriptors) == (
        result.before.tasks,
        result.before.descriptors,
    )
    # What anyio's own streams keep is theirs: on uvloop one reads up to 2 MiB before it pauses.
    if native():
        assert result.stalled_size < STALLED_SIZE


@pytest.mark.usefixtures("many_files")
async def test_clients_that_read_are_served_while_others_do_not() -> None:
    with anyio.fail_after(6 * LIMIT):
        result = await overload(100, 20, rounds=3)
    assert result.echoes == 80 * 4
    check(result)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("many_files")
async def test_4500_clients_are_served_while_500_do_not_read() -> None:
    with anyio.fail_after(280):
        result = await overload(5000, 500, rounds=3)
    assert result.echoes == 4500 * 4
    check(result)


# The system of a client that is beyond it tries again after a second.
@pytest.mark.slow
async def test_clients_beyond_the_backlog_are_accepted_in_their_turn() -> None:
    with anyio.fail_after(50):
        async with anyws.serve(echo, "127.0.0.1", backlog=8) as server:
            crowd = Crowd(server.port)
            await to_thread.run_sync(crowd.open, 64)
            await to_thread.run_sync(crowd.echo, 1)
            await to_thread.run_sync(crowd.leave)
    assert crowd.echoes == 64


class Restarts:
    """Clients that connect again and again to a server that is closed and started again."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.port = 0
        self.connections = 0
        self.done = 0
        self.changed = anyio.Event()

    async def client(self, name: int) -> None:
        """Get so many echoes, however many connections that takes."""
        echoes = 0
        while echoes < self.wanted:
            try:
                async with anyws.connect(f"ws://127.0.0.1:{self.port}/") as ws:
                    self.connections += 1
                    while echoes < self.wanted:
                        message = f"{name}: {echoes}"
                        await ws.send(message)
                        assert await ws.recv() == message
                        echoes += 1
            except (anyws.ConnectionClosed, anyws.InvalidHandshake, OSError):
                await anyio.lowlevel.checkpoint()
        self.done += 1
        self.changed.set()
        self.changed = anyio.Event()


@pytest.mark.parametrize(
    "clients", [pytest.param(20, id="20"), pytest.param(200, id="200", marks=pytest.mark.slow)]
)
async def test_clients_get_all_their_echoes_from_a_server_that_is_restarted(clients: int) -> None:
    await warm_up()
    before = count_resources()
    restarts = Restarts(wanted=50)
    with anyio.fail_after(6 * LIMIT):
        async with anyio.create_task_group() as tg:
            for number in range(10):
                serving = partial(anyws.serve, echo, "127.0.0.1", restarts.port)
                async with serving() as server:
                    if number == 0:
                        restarts.port = server.port
                        for name in range(clients):
                            tg.start_soon(restarts.client, name)
                    # All are in the midst of their work when the server goes, the last time not.
                    wanted = clients if number == 9 else 1
                    while len(server.connections) < min(wanted, clients - restarts.done):
                        await anyio.lowlevel.checkpoint()
                    while number == 9 and restarts.done < clients:
                        await restarts.changed.wait()
    assert restarts.done == clients
    assert restarts.connections > clients
    await settle()
    after = count_resources()
    assert (after.tasks, after.descriptors) == (before.tasks, before.descriptors)


async def test_soak_finds_what_grows_and_passes_what_does_not() -> None:
    def grown(growth: Resources) -> list[Sample]:
        return [
            Sample(
                float(number),
                number,
                number,
                Resources(
                    10 + number * growth.tasks,
                    20 + number * growth.descriptors,
                    2**25 + number * growth.memory,
                ),
            )
            for number in range(30)
        ]

    soak.check(grown(Resources(0, 0, 0)))
    for growth in (Resources(1, 0, 0), Resources(0, 1, 0), Resources(0, 0, 2**20)):
        with pytest.raises(soak.GrowthError):
            soak.check(grown(growth))


async def test_soak_serves_generation_after_generation() -> None:
    with anyio.fail_after(6 * LIMIT):
        samples = await soak.soak(minutes=0.001)
    assert samples[0].messages == soak.READERS * soak.ROUNDS + 4
    assert "<polyline" in soak.render_svg(samples, "title")
