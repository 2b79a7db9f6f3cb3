"""A server in an asyncio program: SIGTERM and Ctrl+C end it in good order.

Usage: python examples/graceful_asyncio.py [PORT]

`server.close()` stops listening, sends each connection a Close frame with 1001 (going away), gives
the handlers `grace` seconds to end, and drops what is left. Its duration is bounded.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import anyws


async def echo(ws: anyws.Connection) -> None:
    async for message in ws:
        await ws.send(message)


async def main(port: int) -> None:
    stop = asyncio.Event()
    # Windows has no signals for event loops: there, end the program in another way.
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with anyws.serve(echo, "localhost", port) as server:
        print(f"listening on port {server.port}", flush=True)
        await stop.wait()
        print(f"closing {len(server.connections)} connections")
        await server.close(reason="restarting", grace=5)
    print("stopped")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8765))
