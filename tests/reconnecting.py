"""Servers for tests of `reconnect`: literal ones in memory that do one thing after the other.

Owns what they do to a connection, and when; knows no frame (see `wire`) and no place (see
`network`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio

import anyws
from tests.network import memory_network
from tests.sockets import GOOD, answering, read_request
from tests.wire import CLOSE, TEXT, Frame, Peer

Script = Callable[[Peer], Awaitable[object]]

STEADY = anyws.Backoff(jitter=False)


class Server:
    """A literal server that does one thing after the other, and the last again and again.

    It keeps the time of each connection, and the Close frames that came.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.times: list[float] = []
        self.closes: list[Frame] = []

    async def __call__(self, peer: Peer) -> None:
        self.times.append(anyio.current_time())
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        closes = await script(peer)
        if isinstance(closes, Frame):
            self.closes.append(closes)

    @property
    def waits(self) -> list[float]:
        """The seconds between the connections."""
        return [
            round(late - early, 6) for early, late in zip(self.times, self.times[1:], strict=False)
        ]

    @property
    def codes(self) -> list[int]:
        return [close.code for close in self.closes]


async def open_peer(peer: Peer) -> None:
    """Accept the handshake, as a server."""
    _, accept = await read_request(peer)
    await peer.send_bytes(GOOD.replace(b"ACCEPT", accept) + b"\r\n")


async def leaves(peer: Peer) -> None:
    """End the stream before there is an answer."""
    await read_request(peer)


async def stays(peer: Peer) -> Frame:
    """Be open until the client closes; give its Close frame."""
    await open_peer(peer)
    await peer.send(TEXT, b"hello")
    while (close := await peer.read_frame()).opcode != CLOSE:
        pass
    with suppress(anyio.BrokenResourceError):  # a client that was cancelled waits for no answer
        await peer.send(CLOSE, close.payload)
        await peer.stream.send_eof()
    return close


def closes_after(seconds: float, code: int = 1000) -> Script:
    async def script(peer: Peer) -> Frame:
        await open_peer(peer)
        await anyio.sleep(seconds)
        await peer.send_close(code)
        close = await peer.read_frame()
        assert close.opcode == CLOSE
        await peer.stream.send_eof()
        return close

    return script


def refuses(status: int, *fields: str) -> Script:
    lines = [f"HTTP/1.1 {status} No", "Content-Length: 0", *fields, "", ""]
    return answering("\r\n".join(lines).encode())


async def first_message(server: Server, **arguments: Any) -> tuple[Server, int]:
    """Connect until a message comes; give the server and how many attempts it took."""
    async with memory_network() as network:
        network.script(server)
        async with anyws.reconnect("ws://localhost/", backoff=STEADY, **arguments) as session:
            async for ws in session:
                async for message in ws:
                    assert message == "hello"
                    return server, session.attempts
    raise AssertionError


async def never_answers(peer: Peer) -> None:
    await peer.read_until_eof()


async def never_closes(peer: Peer) -> None:
    await open_peer(peer)
    await peer.read_until_eof()
