"""A client that keeps no promise; see `benchmarks.bare`."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import trio

from ..bare import AsyncioConnection, BareConnection, TrioConnection
from .command import Counter, Options, read_options, run_asyncio


async def main(options: Options, kind: type[BareConnection]) -> None:
    where = urlsplit(options.uri)
    raw = socket.create_connection((where.hostname, where.port))
    raw.setblocking(False)
    counter = Counter()
    connection = kind(raw, masks=True)
    await connection.open(options.uri)
    async for message in connection:
        if not options.count:
            await connection.send(message)
        elif counter.add(len(message)):
            await connection.send(counter.answer())


if __name__ == "__main__":
    given = read_options()
    if given.loop == "trio":
        trio.run(main, given, TrioConnection)
    else:
        run_asyncio(lambda: main(given, AsyncioConnection), given.loop)
