"""Literal proxies: HTTP by CONNECT, and SOCKS 4, 4a and 5.

Owns what they read and write as RFC 9110, RFC 1928 and RFC 1929 draw it, and keeps all that they
have seen. They run as the script of any literal server, over sockets or in memory.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
from anyio.streams.tls import TLSStream

import anyws
from tests.tls import server_context
from tests.wire import Peer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    import pytest
    from anyio.abc import ByteStream

    Dial = Callable[[str, int], Awaitable[ByteStream]]
    Script = Callable[[Peer], Coroutine[object, object, None]]

# What a stream raises when the other side leaves; one over TLS has an OSError more.
LEFT = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def uninstall_python_socks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have python-socks missing, until the test ends."""
    monkeypatch.setitem(sys.modules, "python_socks", None)
    monkeypatch.delitem(sys.modules, "anyws._socks", raising=False)
    monkeypatch.delattr(anyws, "_socks", raising=False)


class LiteralProxy:
    """A proxy that lets everybody through, and keeps what it sees.

    Args:
        dial: how it connects to servers; None does it over TCP.
    """

    def __init__(self, dial: Dial | None = None) -> None:
        self._dial: Dial = anyio.connect_tcp if dial is None else dial
        self.asked: list[str] = []
        """What it was asked for, as host:port."""
        self.heads: list[bytes] = []
        """What it was asked by."""
        self.relayed = bytearray()
        """What clients have sent through it, in clear text or not."""

    async def http(self, peer: Peer, answer: bytes = ESTABLISHED) -> None:
        """Serve one client by CONNECT."""
        head = await peer.read_until(b"\r\n\r\n")
        self.heads.append(head)
        method, target, version = head.split(b"\r\n")[0].split(b" ")
        assert (method, version) == (b"CONNECT", b"HTTP/1.1")
        host, _, port = target.decode().rpartition(":")
        await self._connect(peer, host.strip("[]"), int(port), answer)

    async def socks(self, peer: Peer) -> None:
        """Serve one client by SOCKS, of the version that it speaks."""
        (version,) = await peer.read(1)
        if version == 4:
            host, port = await self._read_socks4(peer)
            await self._connect(peer, host, port, b"\x00\x5a" + bytes(6))
        else:
            assert version == 5
            host, port = await self._read_socks5(peer)
            await self._connect(peer, host, port, b"\x05\x00\x00\x01" + bytes(6))

    async def _read_socks4(self, peer: Peer) -> tuple[str, int]:
        head = await peer.read(7)
        user = await peer.read_until(b"\0")
        host = socket.inet_ntoa(head[3:7])
        if head[3:6] == bytes(3):  # 4a
            host = (await peer.read_until(b"\0"))[:-1].decode()
        self.heads.append(b"\x04" + head + user)
        assert head[0] == 1
        return host, int.from_bytes(head[1:3], "big")

    async def _read_socks5(self, peer: Peer) -> tuple[str, int]:
        methods = await peer.read((await peer.read(1))[0])
        head = b"\x05" + methods
        if 2 in methods:
            await peer.send_bytes(b"\x05\x02")
            version, size = await peer.read(2)
            user = await peer.read(size)
            password = await peer.read((await peer.read(1))[0])
            assert version == 1
            head += user + b":" + password
            await peer.send_bytes(b"\x01\x00")
        else:
            await peer.send_bytes(b"\x05\x00")
        self.heads.append(head)
        version, command, reserved, kind = await peer.read(4)
        assert (version, command, reserved) == (5, 1, 0)
        if kind == 3:
            host = (await peer.read((await peer.read(1))[0])).decode()
        elif kind == 1:
            host = socket.inet_ntoa(await peer.read(4))
        else:
            assert kind == 4
            host = socket.inet_ntop(socket.AF_INET6, await peer.read(16))
        return host, int.from_bytes(await peer.read(2), "big")

    async def _connect(self, peer: Peer, host: str, port: int, answer: bytes) -> None:
        self.asked.append(f"{host}:{port}")
        async with await self._dial(host, port) as server:
            await peer.send_bytes(answer)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._relay_back, server, peer.stream, tasks.cancel_scope)
                await self._relay(peer, server)
                tasks.cancel_scope.cancel()
            with suppress(*LEFT):
                await peer.stream.aclose()

    async def _relay(self, peer: Peer, server: ByteStream) -> None:
        try:
            while True:
                data = peer.buffer or await peer.stream.receive()
                peer.buffer = b""
                self.relayed += data
                await server.send(data)
        except LEFT:
            pass

    async def _relay_back(
        self, server: ByteStream, client: ByteStream, both: anyio.CancelScope
    ) -> None:
        try:
            while True:
                await client.send(await server.receive())
        except LEFT:
            both.cancel()


def over_tls(script: Script, *names: str) -> Script:
    """Have a script run over TLS, with a certificate for these names."""
    context = server_context(*names)

    async def run(peer: Peer) -> None:
        stream = await TLSStream.wrap(peer.stream, server_side=True, ssl_context=context)
        await script(Peer(stream, masks=False))

    return run
