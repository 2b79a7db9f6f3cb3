"""websockets as a client, its trio implementation."""

from __future__ import annotations

import trio
from websockets.trio.client import connect

from .command import Counter, Options, read_options


async def main(options: Options) -> None:
    counter = Counter()
    async with connect(options.uri, compression=None) as ws:
        async for message in ws:
            if not options.count:
                await ws.send(message)
            elif counter.add(len(message)):
                await ws.send(counter.answer())


if __name__ == "__main__":
    trio.run(main, read_options())
