"""aiohttp as a client."""

from __future__ import annotations

from aiohttp import ClientSession

from .command import Counter, read_options, run_asyncio


async def main() -> None:
    counter = Counter()
    async with ClientSession() as session, session.ws_connect(options.uri) as ws:
        async for message in ws:
            if not options.count:
                await ws.send_bytes(message.data)
            elif counter.add(len(message.data)):
                await ws.send_str(counter.answer())


if __name__ == "__main__":
    options = read_options()
    run_asyncio(main, options.loop)
