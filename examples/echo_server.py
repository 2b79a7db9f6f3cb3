"""An echo server; Ctrl+C ends it.

Usage: python examples/echo_server.py [PORT]
"""

from __future__ import annotations

import sys

import anyio

import anyws


async def echo(ws: anyws.Connection) -> None:
    async for message in ws:
        await ws.send(message)


async def main(port: int) -> None:
    async with anyws.serve(echo, "localhost", port) as server:
        print(f"listening on port {server.port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    try:
        anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 8765)
    except KeyboardInterrupt:
        print("stopped")
