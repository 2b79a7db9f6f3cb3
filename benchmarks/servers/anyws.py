"""anyws as a server: on anyio, so on all three loops."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Literal

import anyio

import anyws
from anyws.sansio import IMPLEMENTATION, PerMessageDeflate

from .command import HOST, MAX_SIZE, PING_INTERVAL, Options, announce, read_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# zlib, which all have, unless isal is what is measured.
BACKEND: Literal["zlib", "isal"] = (
    "isal" if os.environ.get("BENCHMARKS_DEFLATE") == "isal" else "zlib"
)

# Not a name that the measured release must have.
_broadcast = vars(anyws).get("broadcast")


async def echo(ws: anyws.Connection) -> None:
    async for message in ws:
        await ws.send(message)


def broadcaster(servers: list[anyws.Server]) -> Callable[[anyws.Connection], Awaitable[None]]:
    async def handler(ws: anyws.Connection) -> None:
        async for message in ws:
            if _broadcast is not None:
                _broadcast(servers[0].connections, message)
                continue
            for connection in servers[0].connections:
                await connection.send(message)

    return handler


async def main(options: Options) -> None:
    servers: list[anyws.Server] = []
    async with anyws.serve(
        broadcaster(servers) if options.broadcast else echo,
        HOST,
        ssl=options.ssl,
        compression=PerMessageDeflate(backend=BACKEND) if options.deflate else None,
        max_size=MAX_SIZE,
        ping_interval=PING_INTERVAL,
    ) as server:
        servers.append(server)
        announce(
            server.port,
            codec=IMPLEMENTATION,
            broadcast="plain sends" if _broadcast is None else "anyws.broadcast",
        )
        await server.serve_forever()


if __name__ == "__main__":
    given = read_options()
    anyio.run(
        functools.partial(main, given),
        backend="trio" if given.loop == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if given.loop == "uvloop" else {},
    )
