"""trio-websocket as a client."""

from __future__ import annotations

import trio
from trio_websocket import ConnectionClosed, open_websocket_url

from .command import Counter, Options, read_options


async def main(options: Options) -> None:
    counter = Counter()
    async with open_websocket_url(options.uri) as ws:
        try:
            while True:
                message = await ws.get_message()
                if not options.count:
                    await ws.send_message(message)
                elif counter.add(len(message)):
                    await ws.send_message(counter.answer())
        except ConnectionClosed:
            pass


if __name__ == "__main__":
    trio.run(main, read_options())
