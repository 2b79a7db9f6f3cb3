"""What tests of sending share: a peer that reads slowly, and fragments.

Owns no connection and no clock (see `wire` and `clocks`).
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from tests.wire import BINARY, TEXT, Frame, Peer, split_frames

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEFLATE = {
    "compression": "deflate",
    "headers": "Sec-WebSocket-Extensions: permessage-deflate\r\n",
}


class Sink:
    """A peer that reads a little in each turn of the loop, and keeps all of it."""

    def __init__(self, peer: Peer, chunk_size: int = 16384) -> None:
        self.peer = peer
        self.chunk_size = chunk_size
        self.data = bytearray(peer.buffer)

    async def read_slowly(self) -> None:
        """Read until the stream ends or is lost."""
        try:
            while True:
                self.data += await self.peer.stream.receive(self.chunk_size)
                await checkpoint()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass

    async def read_until_idle(self) -> None:
        """Read until nothing more comes."""
        async with anyio.create_task_group() as tg:
            tg.start_soon(self.read_slowly)
            await self.wait_until_idle()
            tg.cancel_scope.cancel()

    async def wait_until_idle(self) -> None:
        """Wait until nothing more comes: in virtual time, until all other tasks wait."""
        size = -1
        while size != len(self.data):
            size = len(self.data)
            await anyio.sleep(0.001)

    def frames(self) -> list[Frame]:
        frames, rest = split_frames(bytes(self.data))
        assert rest == b""
        return frames

    def messages(self, *, deflate: bool = False) -> list[bytes]:
        """Give the payloads of unfragmented messages, decompressed in their order."""
        inflate = zlib.decompressobj(-15)
        messages = []
        for frame in self.frames():
            assert frame.fin
            assert frame.opcode in {TEXT, BINARY}
            assert frame.rsv == (4 if deflate else 0)
            tail = b"\x00\x00\xff\xff"
            messages.append(inflate.decompress(frame.payload + tail) if deflate else frame.payload)
        return messages


async def fragments(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        await checkpoint()
        yield item


async def next_data(peer: Peer) -> tuple[int, bytes, bool]:
    frame = await peer.read_frame()
    assert frame.rsv == 0
    assert frame.masked is not peer.masks
    return frame.opcode, frame.payload, frame.fin
