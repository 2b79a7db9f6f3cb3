"""No WebSocket: bytes come back as they came. The least that the loop and its sockets cost."""

from __future__ import annotations

import trio

from .command import HOST, announce, read_options

CHUNK_SIZE = 2**16


async def echo(stream: trio.SocketStream) -> None:
    socket = stream.socket
    while data := await socket.recv(CHUNK_SIZE):
        sent = await socket.send(data)
        while sent < len(data):
            sent += await socket.send(data[sent:])


async def main() -> None:
    listeners = await trio.open_tcp_listeners(0, host=HOST)
    announce(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(echo, listeners)


if __name__ == "__main__":
    read_options()
    trio.run(main)
