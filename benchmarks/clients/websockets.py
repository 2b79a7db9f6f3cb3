"""websockets as a client, its asyncio implementation."""

from __future__ import annotations

from websockets.asyncio.client import connect

from .command import Counter, read_options, run_asyncio


async def main() -> None:
    counter = Counter()
    async with connect(options.uri, compression=None) as ws:
        async for message in ws:
            if not options.count:
                await ws.send(message)
            elif counter.add(len(message)):
                await ws.send(counter.answer())


if __name__ == "__main__":
    options = read_options()
    run_asyncio(main, options.loop)
