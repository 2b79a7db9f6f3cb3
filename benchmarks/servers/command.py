"""The command line of all servers, and the line in which they say that they listen.

Owns what the servers have in common; knows no library. It stands in the measured process, so what
is here runs once, at the start.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

HOST = "127.0.0.1"
MAX_SIZE = 2**22
"""Bytes of a message that each server is told to accept: more than any scenario sends."""

PING_INTERVAL = 60
"""Seconds between keepalive Pings, where a library has them: none disturbs a measurement."""

# Seconds. A server that nobody has ended by then ends itself.
_LIFETIME = 300


@dataclass(frozen=True)
class Options:
    """What a server is asked for.

    Args:
        loop: "asyncio", "uvloop" or "trio".
        deflate: whether permessage-deflate is negotiated.
        broadcast: whether each message goes to all connections, not back to its own.
        ssl: the context for TLS.
    """

    loop: str
    deflate: bool
    broadcast: bool
    ssl: ssl.SSLContext | None


def read_options() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], required=True)
    parser.add_argument("--deflate", action="store_true")
    parser.add_argument("--broadcast", action="store_true")
    parser.add_argument(
        "--certificate", help="a file with the key and the certificate; it turns on TLS"
    )
    arguments = parser.parse_args()
    signal.alarm(_LIFETIME)
    context = None
    if arguments.certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(arguments.certificate)
    return Options(arguments.loop, arguments.deflate, arguments.broadcast, context)


def announce(port: int, **details: str) -> None:
    """Say in one line where the server listens, and what else is of interest."""
    print(json.dumps({"port": port, **details}), flush=True)


def run_asyncio(main: Callable[[], Coroutine[Any, Any, None]], loop: str) -> None:
    """Run `main` on asyncio's own loop or on uvloop, until the process is ended."""
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415  # the other variants of the same module do without

        uvloop.run(main())
    else:
        asyncio.run(main())
