"""A chat: what one member says goes to all of them; Ctrl+C ends it.

Usage: python examples/chat_server.py [PORT]
"""

from __future__ import annotations

import sys

import anyio

import anyws

members: set[anyws.Connection] = set()


async def chat(ws: anyws.Connection) -> None:
    members.add(ws)
    anyws.broadcast(members, f"* {len(members)} here")
    try:
        async for message in ws:
            anyws.broadcast(members, message)
    finally:
        members.discard(ws)
        anyws.broadcast(members, f"* {len(members)} here")


async def main(port: int) -> None:
    async with anyws.serve(chat, "localhost", port) as server:
        print(f"listening on port {server.port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    try:
        anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 8765)
    except KeyboardInterrupt:
        print("stopped")
