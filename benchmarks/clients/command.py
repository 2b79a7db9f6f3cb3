"""The command line of all clients, and what they do with messages.

Owns what the clients have in common; knows no library.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

# Seconds. A client that nobody has ended by then ends itself.
_LIFETIME = 300


@dataclass(frozen=True)
class Options:
    """What a client is asked for.

    Args:
        uri: where to connect to.
        loop: "asyncio", "uvloop" or "trio".
        count: whether messages are counted, not sent back.
    """

    uri: str
    loop: str
    count: bool


def read_options() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], required=True)
    parser.add_argument("--count", action="store_true")
    arguments = parser.parse_args()
    signal.alarm(_LIFETIME)
    return Options(arguments.uri, arguments.loop, arguments.count)


class Counter:
    """Messages and bytes since the last answer; a message of one byte asks for the next."""

    def __init__(self) -> None:
        self._messages = 0
        self._bytes = 0

    def add(self, size: int) -> bool:
        """Count a message; say whether an answer is due."""
        self._messages += 1
        self._bytes += size
        return size == 1

    def answer(self) -> str:
        """Give the answer, and begin anew."""
        text = f"{self._messages} {self._bytes}"
        self._messages = self._bytes = 0
        return text


def run_asyncio(main: Callable[[], Coroutine[Any, Any, None]], loop: str) -> None:
    """Run `main` on asyncio's own loop or on uvloop."""
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415  # the other variants of the same module do without

        uvloop.run(main())
    else:
        asyncio.run(main())
