"""A server that writes down each message before it acknowledges it, as a process to be killed.

    python -m tests.reliability.receipts BACKEND PORT LEDGER

Owns what is true of a message that was acknowledged: it stands in the ledger, whatever happens to
the server then. It prints the port once it listens, and serves until it is killed or its stdin
ends, so that it does not outlive who has started it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import anyio.to_thread

import anyws


async def serve(port: int, ledger: Path) -> None:
    # Unbuffered: a line is whole in the file, or not in it, when the process is killed.
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def handler(ws: anyws.Connection) -> None:
        async for message in ws:
            assert isinstance(message, str)
            os.write(descriptor, f"{message}\n".encode())
            await ws.send(f"ack {message}")

    async with anyws.serve(handler, "127.0.0.1", port, ping_interval=None) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        await anyio.to_thread.run_sync(sys.stdin.read)


def main(backend: str, port: str, ledger: str) -> None:
    options = {"use_uvloop": True} if backend == "uvloop" else {}
    name = "trio" if backend == "trio" else "asyncio"
    anyio.run(serve, int(port), Path(ledger), backend=name, backend_options=options)


if __name__ == "__main__":
    main(*sys.argv[1:])
