"""Many clients at once, as literal bytes over blocking sockets, in a thread of their own.

Owns the clients' side of an overload: opening, echoes that are compared byte for byte, clients that
stop reading, and every way to leave. Knows nothing of the server but its port.
"""

from __future__ import annotations

import itertools
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field

from tests.wire import BINARY, CLOSE, REQUEST, TEXT, frame

KEY = b"\x01\x02\x03\x04"

# Seconds that a single answer may take at the most: a server that serves needs a few milliseconds.
PATIENCE = 30.0

# What a client that does not read sends until the server takes no more.
FLOOD = frame(BINARY, bytes(16384), mask=KEY)

# Bytes that the system keeps for a client that does not read, so that the server meets it soon.
_SMALL_BUFFER = 4096


class UnservedError(Exception):
    """A client got another answer than the right one, or none."""


@dataclass
class Crowd:
    """Clients of one server.

    Args:
        port: where the server listens on the loopback interface.
    """

    port: int
    readers: list[socket.socket] = field(default_factory=list)
    """Those that read what they are sent."""
    stalled: list[socket.socket] = field(default_factory=list)
    """Those that do not."""
    echoes: int = 0
    """Messages that came back right."""

    def open(self, readers: int, stalled: int = 0) -> None:
        """Connect many at once, and then run their opening handshakes.

        Raises:
            UnservedError: one was not accepted.
        """
        new_readers = [self._connect() for _ in range(readers)]
        new_stalled = [self._connect(_SMALL_BUFFER) for _ in range(stalled)]
        for client in itertools.chain(new_readers, new_stalled):
            self._receive_response(client)
        self.readers += new_readers
        self.stalled += new_stalled

    def _connect(self, buffer_size: int | None = None) -> socket.socket:
        client = socket.socket()
        client.settimeout(PATIENCE)
        if buffer_size is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_size)
        client.connect(("127.0.0.1", self.port))
        client.sendall(REQUEST + b"\r\n")
        return client

    def _receive_response(self, client: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = client.recv(4096)
            if not data:
                raise UnservedError(f"no connection: {head!r}")
            head += data
        if not head.startswith(b"HTTP/1.1 101 "):
            raise UnservedError(f"no connection: {head!r}")

    def stall(self) -> int:
        """Let those that do not read send until the server takes no more.

        Returns:
            The bytes that it has taken.
        """
        taken = 0
        for client in self.stalled:
            client.settimeout(0)
            with suppress(BlockingIOError):
                while True:
                    taken += client.send(FLOOD)
        return taken

    def echo(self, rounds: int) -> None:
        """Let all that read send a message at once, and receive it, again and again.

        Raises:
            UnservedError: what came back is not what was sent.
        """
        for number in range(rounds):
            for place, client in enumerate(self.readers):
                client.sendall(frame(TEXT, b"%d of %d" % (number, place), mask=KEY))
            for place, client in enumerate(self.readers):
                expected = frame(TEXT, b"%d of %d" % (number, place))
                received = receive_exactly(client, len(expected))
                if received != expected:
                    raise UnservedError(f"received {received!r}, expected {expected!r}")
                self.echoes += 1

    def leave(self) -> None:
        """Leave in every way: by the closing handshake, by a reset, and by ending TCP.

        Raises:
            UnservedError: a Close frame is not answered by one.
        """
        for place, client in enumerate(self.readers):
            if place % 3 == 0:
                client.sendall(frame(CLOSE, b"\x03\xe8", mask=KEY))
                if (received := receive_exactly(client, 4)) != frame(CLOSE, b"\x03\xe8"):
                    raise UnservedError(f"received {received!r}, expected a Close frame")
            elif place % 3 == 1:
                reset(client)
            client.close()
        for client in self.stalled:
            client.close()
        self.readers.clear()
        self.stalled.clear()


def receive_exactly(client: socket.socket, size: int) -> bytes:
    """Receive so many bytes.

    Raises:
        UnservedError: the stream ends before.
    """
    data = b""
    while len(data) < size:
        more = client.recv(size - len(data))
        if not more:
            raise UnservedError(f"the stream ended after {data!r}")
        data += more
    return data


def reset(client: socket.socket) -> None:
    """Let the closing of a socket send a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
