"""trio-websocket as a server."""

from __future__ import annotations

import functools

import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    serve_websocket,
)

from .command import HOST, MAX_SIZE, Options, announce, read_options

connections: set[WebSocketConnection] = set()


async def echo(request: WebSocketRequest) -> None:
    ws = await request.accept()
    try:
        while True:
            await ws.send_message(await ws.get_message())
    except ConnectionClosed:
        pass


async def broadcast(request: WebSocketRequest) -> None:
    ws = await request.accept()
    connections.add(ws)
    try:
        while True:
            message = await ws.get_message()
            for connection in tuple(connections):
                await connection.send_message(message)
    except ConnectionClosed:
        connections.discard(ws)


async def main(options: Options) -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            functools.partial(
                serve_websocket,
                broadcast if options.broadcast else echo,
                HOST,
                0,
                options.ssl,
                max_message_size=MAX_SIZE,
            )
        )
        announce(server.port, broadcast="plain sends")


if __name__ == "__main__":
    trio.run(main, read_options())
