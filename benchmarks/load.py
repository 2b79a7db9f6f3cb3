"""The load generator in Python: for TLS, and where there is no C compiler. load.c is the usual one.

Owns connections and their timing; knows nothing of WebSocket but where the head of an HTTP response
ends, the masking key (RFC 6455 section 5.3) where a client's replies are masked, and frames where
replies are recorded. The command line and the lines that it says are those of load.c.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import selectors
import signal
import socket
import ssl
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

from . import frames

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST = "127.0.0.1"
SILENCE = 10.0
"""Seconds without a reply after which the other side has failed."""

# Seconds, besides those that are asked for. Nothing here lasts longer, whatever happens.
_LIFETIME = 60


class RestlessSelector(selectors.DefaultSelector):
    """A selector that asks again and again, so that nobody has to wake it; load.c says why."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events without sleeping, `timeout` seconds at the most."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (events := super().select(0)):
            if deadline is not None and time.monotonic() >= deadline:
                break
        return events


class LoadError(Exception):
    """The other side did what it should not, or did nothing."""


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["echo", "broadcast", "idle", "handshake"])
    parser.add_argument("--port", type=int)
    parser.add_argument("--fd", type=int)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--more", type=int, default=0)
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--warmup", type=float, default=0.0)
    parser.add_argument("--max-operations", type=int, default=1 << 40)
    parser.add_argument("--handshake", type=Path)
    parser.add_argument("--accept", default="")
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--replies", type=Path)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--sleep", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--key-offset", type=int)
    parser.add_argument("--tls", type=Path, help="the certificate that the server must show")
    return parser.parse_args(words)


def unpack(content: bytes) -> list[bytes]:
    """Read a file of frames: each is four bytes of size, the lowest first, and its bytes."""
    found = []
    while content:
        (size,) = struct.unpack_from("<I", content)
        found.append(content[4 : 4 + size])
        content = content[4 + size :]
    return found


def unmask(reply: bytes, key_offset: int) -> bytes:
    """Give a masked frame as it would be with a key of zeros."""
    start = key_offset + 4
    key = itertools.cycle(reply[key_offset:start])
    payload = bytes(byte ^ k for byte, k in zip(reply[start:], key, strict=False))
    return reply[:key_offset] + bytes(4) + payload


class Connection(asyncio.Protocol):
    """One connection: the head of its handshake first, then replies."""

    def __init__(self, load: Load, number: int) -> None:
        self._load = load
        self._number = number
        self.requests = itertools.cycle(load.requests)
        self._head: bytearray | None = bytearray() if load.handshake else None
        self._received = bytearray()
        self.reply_number = 0
        self.in_flight = 0
        self.opened = asyncio.get_running_loop().create_future()
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the opening handshake, if there is one."""
        self._transport = cast("asyncio.Transport", transport)
        if self._head is None:
            self.opened.set_result(None)
        else:
            self._transport.write(self._load.handshake)

    def data_received(self, data: bytes) -> None:
        """Compare what came with what was wanted."""
        if self._head is not None:
            self._read_head(data)
            return
        self._received += data
        before = self.reply_number
        try:
            (self._compare if self._load.record is None else self._record)(data)
        except ValueError as exc:
            self._load.fail(f"reply {self.reply_number} {exc}")
        else:
            if self.reply_number > before:
                self._load.count_replies(self, self.reply_number - before)

    def _compare(self, _: bytes) -> None:
        wanted = self._load.wanted(self.reply_number)
        while len(self._received) >= len(wanted):
            reply = bytes(self._received[: len(wanted)])
            del self._received[: len(wanted)]
            if self._load.key_offset is not None:
                reply = unmask(reply, self._load.key_offset)
            if reply != wanted:
                raise ValueError("differs from what was expected")
            self.reply_number += 1
            wanted = self._load.wanted(self.reply_number)

    def _record(self, data: bytes) -> None:
        assert self._load.record is not None
        self._load.record += [struct.pack("<II", self._number, len(data)), data]
        while (parts := frames.split_frame(self._received)) is not None:
            del self._received[: sum(map(len, parts))]
            self.reply_number += 1

    def _read_head(self, data: bytes) -> None:
        assert self._head is not None
        self._head += data
        head, end, rest = bytes(self._head).partition(b"\r\n\r\n")
        if not end:
            return
        if not head.startswith(b"HTTP/1.1 101") or self._load.accept not in head or rest:
            first = head.partition(b"\r\n")[0].decode("latin-1")
            self._load.fail(f"the opening handshake was answered with {first}")
            return
        self._head = None
        self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that the connection has ended."""
        self.ended.set_result(None)
        self._load.count_end(self)

    def send(self, data: bytes) -> None:
        """Send without waiting."""
        self._transport.write(data)


class Load:
    """All connections of one run, and what they are to send and to receive."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self.handshake = arguments.handshake.read_bytes() if arguments.handshake else b""
        self.accept = arguments.accept.encode()
        self.key_offset: int | None = arguments.key_offset
        self.requests = unpack(arguments.requests.read_bytes())
        self._replies = unpack(arguments.replies.read_bytes()) if arguments.replies else []
        self.record: list[bytes] | None = [] if arguments.record else None
        self._broadcast = arguments.mode == "broadcast"
        self._connections: list[Connection] = []
        self._in_flight = 0
        self._started = 0
        self._deadline = 0.0
        self._done: asyncio.Future[None] | None = None
        self.operations = 0

    def wanted(self, number: int) -> bytes:
        """Give the reply that comes as the one with this number."""
        return self._replies[min(number, len(self._replies) - 1)]

    def fail(self, problem: str) -> None:
        """End the run with an error."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(LoadError(problem))

    def count_end(self, connection: Connection) -> None:
        """Take note of the end of a connection, which is an error while replies are missing."""
        if self._arguments.mode != "handshake":
            self.fail(f"the connection ended after {connection.reply_number} replies")
        elif not connection.opened.done():
            self.fail("no response to the opening handshake, but the end")

    def count_replies(self, connection: Connection, count: int) -> None:
        """Take note of replies, and send as many requests if there is time for them."""
        if self._arguments.mode == "handshake":
            return
        if count > (self._in_flight if self._broadcast else connection.in_flight):
            self.fail("a reply that nobody asked for")
            return
        self._in_flight -= count
        connection.in_flight -= count
        if self._broadcast:
            if self._in_flight:
                return
            connection = self._connections[0]
            count = 1
        self.operations += count
        within = self._started + count <= self._arguments.max_operations
        if within and time.monotonic() < self._deadline:
            self._wait_a_while()
            self._start(connection, count)
        elif not self._in_flight and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _wait_a_while(self) -> None:
        end = time.perf_counter() + self._arguments.pause
        while time.perf_counter() < end:
            pass

    def _start(self, connection: Connection, count: int) -> None:
        self._started += count
        self._in_flight += count * (len(self._connections) if self._broadcast else 1)
        connection.in_flight += count
        connection.send(b"".join(itertools.islice(connection.requests, count)))

    async def open(self, count: int) -> list[Connection]:
        """Open connections, one after the other."""
        opened = []
        loop = asyncio.get_running_loop()
        context = None
        if self._arguments.tls is not None:
            context = ssl.create_default_context(cafile=str(self._arguments.tls))
        for number in range(len(self._connections), len(self._connections) + count):
            self._done = loop.create_future()
            if self._arguments.fd is None:
                given = socket.create_connection((HOST, self._arguments.port), SILENCE)
            else:
                given = socket.socket(fileno=self._arguments.fd)
            given.setblocking(False)
            _, connection = await loop.create_connection(
                functools.partial(Connection, self, number),
                sock=given,
                ssl=context,
                server_hostname="localhost" if context else None,
            )
            await self._either(connection.opened)
            opened.append(connection)
        self._connections += opened
        return opened

    async def _either(self, future: asyncio.Future[None]) -> None:
        """Wait for a future or for an error."""
        assert self._done is not None
        await asyncio.wait(
            {future, self._done}, timeout=SILENCE, return_when=asyncio.FIRST_COMPLETED
        )
        if self._done.done():
            self._done.result()
        elif not future.done():
            raise LoadError(f"nothing came for {SILENCE:g} seconds")

    async def work(self, seconds: float) -> float:
        """Do operations for so long; give the seconds that it took."""
        start = time.monotonic()
        self.operations = self._started = 0
        self._deadline = start + seconds
        if self._arguments.mode == "handshake":
            while self.operations < self._arguments.max_operations:
                await self._handshake_once()
                if time.monotonic() >= self._deadline:
                    break
        else:
            await self._exchange(self._connections[: 1 if self._broadcast else None])
        return time.monotonic() - start

    async def grow(self) -> float:
        """Open more connections, exchange one message on each, and let them be."""
        start = time.monotonic()
        self._deadline = 0
        connections = await self.open(self._arguments.more)
        self.operations = 0
        await self._exchange(connections, window=1)
        return time.monotonic() - start

    async def _exchange(self, connections: Sequence[Connection], window: int | None = None) -> None:
        self._done = asyncio.get_running_loop().create_future()
        for connection in connections:
            self._start(connection, window or self._arguments.window)
        seconds = max(0, self._deadline - time.monotonic()) + SILENCE
        try:
            async with asyncio.timeout(seconds):
                await self._done
        except TimeoutError:
            raise LoadError(f"no reply, with {self._in_flight} missing") from None

    async def _handshake_once(self) -> None:
        (connection,) = await self.open(1)
        self._connections.clear()
        self._wait_a_while()
        connection.send(self.requests[0])
        await self._either(connection.ended)
        if not connection.reply_number:
            raise LoadError("no answer to the Close frame")
        self.operations += 1


def say(line: str) -> None:
    """Say a line, and wait for one; without one, end."""
    print(line, flush=True)
    if not sys.stdin.readline():
        sys.exit()


async def main(arguments: argparse.Namespace) -> None:
    """Warm up, and work, as load.c does."""
    load = Load(arguments)
    if arguments.mode != "handshake":
        await load.open(arguments.connections)
    await load.work(arguments.warmup)
    say("ready")
    seconds = await (load.grow() if arguments.mode == "idle" else load.work(arguments.seconds))
    if load.record is not None:
        arguments.record.write_bytes(b"".join(load.record))
    say(f"done {load.operations} {seconds:.6f}")


if __name__ == "__main__":
    given = parse()
    signal.alarm(_LIFETIME + int(given.warmup + given.seconds))
    try:
        selector = selectors.DefaultSelector() if given.sleep else RestlessSelector()
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
            runner.run(main(given))
    except (LoadError, OSError) as exc:
        print(f"error {exc}", flush=True)
        sys.exit(1)
