"""websockets as a server, its trio implementation."""

from __future__ import annotations

import functools

import trio
from websockets.trio.server import ServerConnection, serve

from .command import HOST, MAX_SIZE, PING_INTERVAL, Options, announce, read_options

connections: set[ServerConnection] = set()


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def broadcast(ws: ServerConnection) -> None:
    connections.add(ws)
    try:
        async for message in ws:
            for connection in tuple(connections):
                await connection.send(message)
    finally:
        connections.discard(ws)


async def main(options: Options) -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            functools.partial(
                serve,
                broadcast if options.broadcast else echo,
                0,
                host=HOST,
                ssl=options.ssl,
                compression="deflate" if options.deflate else None,
                max_size=MAX_SIZE,
                ping_interval=PING_INTERVAL,
            )
        )
        port = server.listeners[0].socket.getsockname()[1]
        announce(port, broadcast="plain sends")


if __name__ == "__main__":
    trio.run(main, read_options())
