"""The main job: an echo server and a client in one process, over TCP, on asyncio and then on trio.

Usage: python examples/demo.py
"""

from __future__ import annotations

import anyio

import anyws


async def echo(ws: anyws.Connection) -> None:
    async for message in ws:
        await ws.send(message)


async def main(backend: str) -> None:
    async with anyws.serve(echo) as server:
        print(f"{backend}: echo server on port {server.port}")
        async with anyws.connect(f"ws://localhost:{server.port}/") as ws:
            print(f"{backend}: compression: {ws.response.headers['Sec-WebSocket-Extensions']}")
            for message in ("Hello, world!", "\N{SNOWMAN} " * 8, b"\x00\x01\x02"):
                await ws.send(message)
                print(f"{backend}: sent {message!r}, received {await ws.recv()!r}")
            latency = await (await ws.ping())
            print(f"{backend}: latency: {latency * 1e6:.0f} microseconds")
        print(f"{backend}: closed with {ws.close_code}")


if __name__ == "__main__":
    for backend in ("asyncio", "trio"):
        anyio.run(main, backend, backend=backend)
