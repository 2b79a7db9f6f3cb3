"""A client: sends each of its arguments, and prints what comes back.

Usage: python examples/echo_client.py ws://localhost:8765/ hello "how are you?"
"""

from __future__ import annotations

import sys

import anyio

import anyws


async def main(uri: str, messages: list[str]) -> None:
    async with anyws.connect(uri) as ws:
        for message in messages:
            await ws.send(message)
            print(f"< {await ws.recv()!r}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit((__doc__ or "").splitlines()[2])
    uri, *messages = sys.argv[1:]
    try:
        anyio.run(main, uri, messages)
    except (anyws.WebSocketException, OSError) as exc:
        # One root for all that WebSocket can do wrong; the network's own errors are OSErrors, and
        # the time-out of connect() is a TimeoutError, which is one too.
        # Its notes say what there is to know besides, such as the host and port that were tried.
        sys.exit("; ".join([f"{type(exc).__name__}: {exc}", *getattr(exc, "__notes__", ())]))
