"""The memory of a connection at its worst, as the formula in SECURITY.md has it.

Owns the attack that comes near it: a peer that sends the text which takes most as a str, to an
application that does not receive, and reads nothing of what that sends.
"""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

import anyws
from tests.sockets import open_peer, raw_client, serving
from tests.wire import TEXT

if TYPE_CHECKING:
    from anyws import Connection

pytestmark = pytest.mark.anyio

CONNECTIONS = 3

KIB = 2**10
READ_LIMIT = 64 * KIB
WRITE_LIMIT = 64 * KIB
MAX_SIZE = 1024 * KIB
CHUNK = 256 * KIB
IDLE = 64 * KIB
"""An idle connection, with what permessage-deflate takes once it was used."""
SENT = 64 * KIB
"""The largest message that the application sends."""

# One character of four bytes makes the str take four for each of its characters.
WIDE = "\N{GRINNING FACE}"


def worst_case(sent: int) -> int:
    """Give the formula: bytes for each connection at the most."""
    return IDLE + 4 * (READ_LIMIT + MAX_SIZE) + CHUNK + WRITE_LIMIT + sent


def text_of(size: int) -> bytes:
    """Give UTF-8 of `size` bytes, of which a str takes four times as many."""
    return WIDE.encode() + b"x" * (size - 4)


async def send_without_receiving(ws: Connection) -> None:
    """Be the application: it sends more than the peer reads, and receives nothing."""
    while True:
        await ws.send(bytes(SENT))


def at_its_worst(ws: Connection) -> bool:
    """Say whether all has come that is to come, and nothing more leaves."""
    link = ws._link
    received = READ_LIMIT - 1 - 3 + MAX_SIZE - 3
    return link.inbox.queue.size == received and link.transport.write_buffer_size > WRITE_LIMIT


async def test_connection_takes_no_more_than_the_formula_says() -> None:
    async with (
        serving(send_without_receiving, ping_interval=None, close_timeout=0.1) as server,
        anyio.create_task_group() as tg,
    ):

        async def attack() -> None:
            async with raw_client(server.port) as peer:
                await open_peer(peer)
                await peer.send(TEXT, text_of(READ_LIMIT - 1))
                await peer.send(TEXT, text_of(MAX_SIZE))
                await anyio.sleep_forever()

        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(CONNECTIONS):
                tg.start_soon(attack)
            while sum(map(at_its_worst, server.connections)) < CONNECTIONS:
                await anyio.lowlevel.checkpoint()
            gc.collect()
            taken = tracemalloc.get_traced_memory()[0] / CONNECTIONS
        finally:
            tracemalloc.stop()
        tg.cancel_scope.cancel()
        await server.close(grace=0)
    assert taken <= worst_case(SENT)
    assert taken > 4 * MAX_SIZE, "the attack does not come near the formula"


def test_formula_stands_in_the_document() -> None:
    text = (Path(__file__).parents[2] / "SECURITY.md").read_text(encoding="utf-8")
    assert f"{worst_case(0) / 2**20:.1f} MiB" in text
    options = anyws.serve.__init__.__kwdefaults__
    assert options is not None
    assert (options["read_limit"], options["write_limit"]) == (READ_LIMIT, WRITE_LIMIT)
    assert options["max_size"] == MAX_SIZE
