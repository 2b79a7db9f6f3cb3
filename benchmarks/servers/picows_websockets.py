"""picows as a server, its API of coroutines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from picows.websockets import Server, ServerConnection, broadcast, serve

from .command import HOST, MAX_SIZE, PING_INTERVAL, announce, read_options, run_asyncio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


def broadcaster(servers: list[Server]) -> Callable[[ServerConnection], Awaitable[None]]:
    async def handler(ws: ServerConnection) -> None:
        async for message in ws:
            broadcast(servers[0].connections, message)

    return handler


async def main() -> None:
    servers: list[Server] = []
    async with serve(
        broadcaster(servers) if options.broadcast else echo,
        HOST,
        0,
        ssl=options.ssl,
        compression="deflate" if options.deflate else None,
        max_size=MAX_SIZE,
        ping_interval=PING_INTERVAL,
    ) as server:
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        announce(port, broadcast="picows.websockets.broadcast")
        await server.serve_forever()


if __name__ == "__main__":
    options = read_options()
    run_asyncio(main, options.loop)
