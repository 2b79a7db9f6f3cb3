"""A peer that speaks literal bytes, and connections of anyws that face it in memory.

Owns frames as the RFC draws them, written anew here so that no mistake of anyws hides in its own
mirror.
"""

from __future__ import annotations

import base64
import hashlib
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ByteStream

import anyws
from anyws.testing import MemoryStream, memory_stream_pair

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

MASK = b"\x37\xfa\x21\x3d"  # the key of the example in RFC 6455 section 5.7

REQUEST = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: localhost\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)


def xor(payload: bytes, key: bytes) -> bytes:
    size = len(payload)
    keys = (key * (size // 4 + 1))[:size]
    whole = int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")
    return whole.to_bytes(size, "big")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = None,
) -> bytes:
    """Draw one frame; `rsv` has RSV1 as 4, RSV2 as 2 and RSV3 as 1."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if mask is not None else 0
    size = len(payload)
    if size < 126:
        head = bytes([first, bit | size])
    elif size < 65536:
        head = bytes([first, bit | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, bit | 127]) + size.to_bytes(8, "big")
    return head + payload if mask is None else head + mask + xor(payload, mask)


def close_payload(code: int, reason: str = "") -> bytes:
    return code.to_bytes(2, "big") + reason.encode()


@dataclass(frozen=True)
class Frame:
    """A frame that was read."""

    opcode: int
    payload: bytes
    fin: bool
    rsv: int
    masked: bool

    @property
    def code(self) -> int:
        """The close code of a Close frame."""
        return int.from_bytes(self.payload[:2], "big")

    @property
    def reason(self) -> str:
        """The close reason of a Close frame."""
        return self.payload[2:].decode()


def split_frames(data: bytes) -> tuple[list[Frame], bytes]:
    """Read the frames in `data`; give them and what is behind the last whole one."""
    frames = []
    start = 0
    while len(data) - start >= 2:
        first, second = data[start : start + 2]
        extended = {126: 2, 127: 8}.get(second & 0x7F, 0)
        at = start + 2 + extended
        size = int.from_bytes(data[start + 2 : at], "big") if extended else second & 0x7F
        masked = bool(second & 0x80)
        key = data[at : at + 4] if masked else b""
        at += 4 * masked
        payload = data[at : at + size]
        if len(data) < at + size:
            break
        if masked:
            payload = xor(payload, key)
        frames.append(Frame(first & 0x0F, payload, bool(first & 0x80), first >> 4 & 7, masked))
        start = at + size
    return frames, data[start:]


def parse_frames(data: bytes) -> list[Frame]:
    """Read the frames that `data` consists of."""
    frames, rest = split_frames(data)
    assert not rest, "the last frame is not whole"
    return frames


class Peer:
    """The other end: it sends what it is told and reads frames, however wrong.

    Args:
        stream: the stream to anyws.
        masks: whether it is the client, whose frames are masked.
    """

    def __init__(self, stream: ByteStream, *, masks: bool) -> None:
        self.stream = stream
        self.masks = masks
        self.buffer = b""

    async def send_bytes(self, data: bytes) -> None:
        await self.stream.send(data)

    async def send(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0
    ) -> None:
        """Send one frame, masked as the role wants it."""
        await self.stream.send(
            frame(opcode, payload, fin=fin, rsv=rsv, mask=MASK if self.masks else None)
        )

    async def send_close(self, code: int = 1000, reason: str = "") -> None:
        await self.send(CLOSE, close_payload(code, reason))

    async def read(self, size: int) -> bytes:
        """Read exactly so many bytes."""
        while len(self.buffer) < size:
            self.buffer += await self.stream.receive()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    async def read_until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            self.buffer += await self.stream.receive()
        data, _, self.buffer = self.buffer.partition(end)
        return data + end

    async def read_frame(self) -> Frame:
        first, second = await self.read(2)
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await self.read(2), "big")
        elif size == 127:
            size = int.from_bytes(await self.read(8), "big")
        masked = bool(second & 0x80)
        key = await self.read(4) if masked else b""
        payload = await self.read(size)
        return Frame(
            opcode=first & 0x0F,
            payload=xor(payload, key) if masked else payload,
            fin=bool(first & 0x80),
            rsv=first >> 4 & 7,
            masked=masked,
        )

    async def read_until_eof(self) -> bytes:
        """Read all that still comes."""
        try:
            while True:
                self.buffer += await self.stream.receive()
        except anyio.EndOfStream:
            data, self.buffer = self.buffer, b""
            return data

    async def answer_close(self) -> Frame:
        """Read up to a Close frame and echo it; as a server, end the stream."""
        while (close := await self.read_frame()).opcode != CLOSE:
            pass
        await self.send(CLOSE, close.payload)
        if not self.masks:
            await self.stream.send_eof()
        return close

    async def finish(self) -> None:
        """End the stream like a client or server that is done."""
        await self.stream.aclose()


class _AnsweringStream(ByteStream):
    """The client's end of a stream on which the request is answered as it is sent."""

    def __init__(self, stream: ByteStream, far: ByteStream, headers: str) -> None:
        self._stream = stream
        self._far = far
        self._headers = headers
        self.request = b""

    async def send(self, item: bytes) -> None:
        if self.request:
            await self._stream.send(item)
            return
        self.request = bytes(item)
        match = re.search(rb"Sec-WebSocket-Key: ([^\r]*)\r\n", self.request)
        assert match is not None
        digest = hashlib.sha1(match[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        accept = base64.b64encode(digest).decode()
        await self._far.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{self._headers}\r\n".encode()
        )

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._stream.receive(max_bytes)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._stream.extra_attributes


@asynccontextmanager
async def client_and_peer(
    *, headers: str = "", max_buffer_size: int = 65536, **arguments: Any
) -> AsyncGenerator[tuple[anyws.Connection, Peer], None]:
    """Give a client of anyws and the literal server that it is connected to.

    Leaving the block closes the client; the peer must have answered its Close, or be gone, or the
    close time-out runs. At the end the peer's stream is closed too.

    Args:
        headers: more fields of the 101 response, each with its CRLF.
        max_buffer_size: bytes that each direction between them holds.
        arguments: those of `connect`.
    """
    near, far = memory_stream_pair(max_buffer_size)
    arguments.setdefault("compression", None)
    async with (
        _closing(far),
        anyws.wrap_client(_AnsweringStream(near, far, headers), **arguments) as ws,
    ):
        yield ws, Peer(far, masks=False)


@asynccontextmanager
async def server_and_peer(
    *, headers: str = "", max_buffer_size: int = 65536, **arguments: Any
) -> AsyncGenerator[tuple[anyws.Connection, Peer], None]:
    """Give a server's connection of anyws and the literal client that is connected to it.

    Args:
        headers: more fields of the request, each with its CRLF.
        max_buffer_size: bytes that each direction between them holds.
        arguments: those of `serve` that are about one connection.
    """
    near, far = memory_stream_pair(max_buffer_size)
    arguments.setdefault("compression", None)
    await far.send(REQUEST + headers.encode() + b"\r\n")
    peer = Peer(far, masks=True)
    async with _closing(far), anyws.wrap_server(near, **arguments) as ws:
        head = await peer.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        yield ws, peer


@asynccontextmanager
async def _closing(stream: MemoryStream) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):  # closing memory waits for nobody
            await stream.aclose()
