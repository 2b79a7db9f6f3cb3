"""No WebSocket: bytes come back as they came, from sockets that the loop only watches.

The least that a library in Python can pay: calls of the system, and what the loop's public API for
a socket costs. A long message comes back when it is complete, as that of a WebSocket does; so its
length is read, and nothing else of it is looked at.
"""

from __future__ import annotations

import asyncio
import socket

import trio

from .command import HOST, announce, read_options, run_asyncio

_SCRATCH = memoryview(bytearray(2**18))


class Echo:
    """One connection.

    Args:
        client: a connected, non-blocking socket.
    """

    def __init__(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = client
        # The message that is not complete, and how much of it has come.
        self._message = memoryview(b"")
        self._come = 0
        self.unsent = memoryview(b"")
        """What the socket has not taken yet."""

    def read(self) -> bool:
        """Read once, and send what is complete; False when the client has left."""
        try:
            size = self._socket.recv_into(_SCRATCH)
        except BlockingIOError:
            return True
        except OSError:
            size = 0
        if not size:
            self._socket.close()
            return False
        data = _SCRATCH[:size]
        if not self._message:
            length = _frame_length(data)
            if length <= size:
                self._send(data)
                return True
            self._message = memoryview(bytearray(length))
        self._message[self._come : self._come + size] = data
        self._come += size
        if self._come == len(self._message):
            message, self._message, self._come = self._message, memoryview(b""), 0
            self._send(message)
        return True

    def _send(self, data: memoryview) -> None:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            # A copy: the scratch buffer is everybody's.
            self.unsent = memoryview(bytes(data[sent:]))

    def send_rest(self) -> None:
        """Send what the socket takes now."""
        self.unsent = self.unsent[self._socket.send(self.unsent) :]


def _frame_length(data: memoryview) -> int:
    """Give the bytes of the masked frame that begins here, 0 if its header is not complete."""
    if len(data) < 14:
        return 0
    length = data[1] & 127
    if length == 126:
        return 8 + int.from_bytes(data[2:4], "big")
    if length == 127:
        return 14 + int.from_bytes(data[2:10], "big")
    return 6 + length


def listen() -> socket.socket:
    """Listen, and say where."""
    listener = socket.create_server((HOST, 0), backlog=1000)
    listener.setblocking(False)
    announce(listener.getsockname()[1])
    return listener


def accept(listener: socket.socket) -> socket.socket | None:
    """Accept a connection, if there is one."""
    try:
        client, _ = listener.accept()
    except BlockingIOError:
        return None
    client.setblocking(False)
    return client


async def serve_asyncio() -> None:
    loop = asyncio.get_running_loop()
    listener = listen()

    def serve(client: socket.socket) -> None:
        descriptor = client.fileno()
        echo = Echo(client)

        def read() -> None:
            if not echo.read():
                loop.remove_reader(descriptor)
            elif echo.unsent:
                loop.remove_reader(descriptor)
                loop.add_writer(descriptor, send_rest)

        def send_rest() -> None:
            echo.send_rest()
            if not echo.unsent:
                loop.remove_writer(descriptor)
                loop.add_reader(descriptor, read)

        loop.add_reader(descriptor, read)

    def accept_all() -> None:
        while (client := accept(listener)) is not None:
            serve(client)

    loop.add_reader(listener.fileno(), accept_all)
    await asyncio.Event().wait()  # the benchmark ends the process


async def serve_trio() -> None:
    listener = listen()

    async def serve(client: socket.socket) -> None:
        echo = Echo(client)
        while True:
            await trio.lowlevel.wait_readable(client)
            if not echo.read():
                return
            while echo.unsent:
                await trio.lowlevel.wait_writable(client)
                echo.send_rest()

    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(listener)
            while (client := accept(listener)) is not None:
                nursery.start_soon(serve, client)


if __name__ == "__main__":
    options = read_options()
    if options.loop == "trio":
        trio.run(serve_trio)
    else:
        run_asyncio(serve_asyncio, options.loop)
