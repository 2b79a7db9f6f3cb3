"""A client over a stream of one's own: any anyio ByteStream will do.

Usage: python examples/own_stream_client.py

Here the stream counts the bytes that pass through it to an echo server.
"""

from __future__ import annotations

import anyio
from anyio.abc import ByteStream

import anyws


class CountingStream(ByteStream):
    """Hands all to the stream below, and counts."""

    def __init__(self, below: ByteStream) -> None:
        self.below = below
        self.received = self.sent = 0

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await self.below.receive(max_bytes)
        self.received += len(data)
        return data

    async def send(self, item: bytes) -> None:
        await self.below.send(item)
        self.sent += len(item)

    async def send_eof(self) -> None:
        await self.below.send_eof()

    async def aclose(self) -> None:
        await self.below.aclose()


async def echo(ws: anyws.Connection) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    async with anyws.serve(echo) as server:
        stream = CountingStream(await anyio.connect_tcp("localhost", server.port))
        async with anyws.wrap_client(stream, f"ws://localhost:{server.port}/") as ws:
            before = stream.sent
            await ws.send("z" * 1000)
            print(f"received {len(await ws.recv())} characters back")
            print(f"a message of 1000 bytes took {stream.sent - before} bytes, being compressed")


if __name__ == "__main__":
    anyio.run(main)
