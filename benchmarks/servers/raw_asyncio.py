"""No WebSocket: bytes come back as they came. The least that the loop and its protocols cost."""

from __future__ import annotations

import asyncio
from typing import cast

from .command import HOST, announce, read_options, run_asyncio


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Echo, HOST, 0, ssl=options.ssl)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    options = read_options()
    run_asyncio(main, options.loop)
