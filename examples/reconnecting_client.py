"""A client that comes back: prints what a server sends, over one connection after the other.

Usage: python examples/reconnecting_client.py ws://localhost:8765/ [ATTEMPTS]

It gives up after so many attempts in a row that failed, 10 unless told. What it does meanwhile
stands in the log: when the next attempt is made, and why.
"""

from __future__ import annotations

import logging
import sys

import anyio

import anyws


async def print_messages(ws: anyws.Connection) -> None:
    # When the server closes in good order, the loop ends. Any other end raises ConnectionClosed:
    # it leaves this function, and run() connects again all the same.
    async for message in ws:
        print(message, flush=True)


async def main(uri: str, attempts: int) -> None:
    backoff = anyws.Backoff(initial=0.1, max=5.0)
    async with anyws.reconnect(uri, backoff=backoff, max_attempts=attempts) as session:
        await session.run(print_messages)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit((__doc__ or "").splitlines()[2])
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    try:
        anyio.run(main, sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10)
    except (anyws.WebSocketException, OSError) as exc:
        sys.exit(f"gave up: {exc}")
    except KeyboardInterrupt:
        print("stopped")
