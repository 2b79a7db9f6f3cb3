"""A server in a trio program: SIGTERM and Ctrl+C end it in good order.

Usage: python examples/graceful_trio.py [PORT]

The server is a task of the program's own nursery. `server.close()` stops listening, sends each
connection a Close frame with 1001 (going away), gives the handlers `grace` seconds to end, and
drops what is left; then `serve_forever` returns.
"""

from __future__ import annotations

import signal
import sys

import trio

import anyws


async def echo(ws: anyws.Connection) -> None:
    async for message in ws:
        await ws.send(message)


async def main(port: int) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            server: anyws.Server = await nursery.start(anyws.serve_forever, echo, "localhost", port)
            print(f"listening on port {server.port}", flush=True)
            await anext(signals)
            print(f"closing {len(server.connections)} connections")
            await server.close(reason="restarting", grace=5)
    print("stopped")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 8765)
