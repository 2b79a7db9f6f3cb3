"""Scenarios of the cancellation sweep: many tasks at one connection, all cancelled again and again.

Owns the tasks; what each of them must find is that of `receiving` and `sending`.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from tests.reliability.cutting import Cut, awaiting
from tests.reliability.pairs import ALL, PLAIN, Kind, Setting, over, paired
from tests.reliability.sending import END, numbered
from tests.wire import BINARY

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anyws
    from tests.reliability.strict import StrictPeer
    from tests.reliability.sweeping import Scenario

_MESSAGES = 24


async def _send(cut: Cut, ws: anyws.Connection, first: int, maybe: list[bytes]) -> None:
    """Send messages of all sizes; those that may be missing go into `maybe`."""
    chance = random.Random(first)
    for index in range(_MESSAGES):
        message = numbered(first + index, chance.choice([0, 100, 5000, 40_000]))
        outcome = await cut.call(ws.send, message)
        if outcome.cancelled:
            maybe.append(message)


async def _receive(cut: Cut, ws: anyws.Connection) -> None:
    received: list[str | bytes] = []
    while END not in received:
        outcome = await cut.call(ws.recv)
        received += outcome.values
    cut.compare(received, [*(b"%d" % index for index in range(_MESSAGES)), END])


async def _ping(cut: Cut, ws: anyws.Connection) -> None:
    for index in range(_MESSAGES // 2):
        outcome = await cut.call(ws.ping, b"ping %d" % index)
        for waiter in outcome.values:
            await cut.call(awaiting(waiter))
        await cut.call(ws.pong, b"pong %d" % index)


async def _feed(peer: StrictPeer) -> None:
    for index in range(_MESSAGES):
        for _ in range(index % 5):
            await checkpoint()
        await peer.send(BINARY, b"%d" % index)
    await peer.send(BINARY, END)


def _storm(kind: Kind, *, deflate: bool = False) -> Scenario:
    setting = Setting(
        kind,
        {"write_limit": 4096, "max_queue": 4},
        read_size=8192,
        max_buffer_size=8192,
        deflate=deflate,
    )

    async def run(cut: Cut) -> None:
        maybe: list[bytes] = []
        async with paired(cut, setting) as pair:
            ws = pair.ws
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_feed, pair.peer)
                tasks.start_soon(_send, cut.another(), ws, 100, maybe)
                tasks.start_soon(_send, cut.another(), ws, 200, maybe)
                tasks.start_soon(_receive, cut.another(), ws)
                tasks.start_soon(_ping, cut.another(), ws)
            await ws.send(END)
            await pair.peer.wait_for(END)
            for first in (100, 200):
                chance = random.Random(first)
                sent = [
                    numbered(first + index, chance.choice([0, 100, 5000, 40_000]))
                    for index in range(_MESSAGES)
                ]
                came = [one for one in pair.peer.messages if one in set(sent)]
                cut.compare(came, sent, optional=maybe)

    name = "storm, compressed" if deflate else "storm"
    return over(kind, name, run, repeats=True, storm=True)


def _scenarios() -> Iterator[Scenario]:
    for kind in ALL:
        yield _storm(kind)
    for kind in PLAIN:
        yield _storm(kind, deflate=True)


SCENARIOS = tuple(_scenarios())
