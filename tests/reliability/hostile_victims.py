"""What is attacked: anyws with small applications, each chosen by the path of the request.

Owns the applications and the settings of all victims, a server's and a client's alike; those of
other libraries, which the report compares with, stand in `hostile_libraries`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import anyws

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable
    from contextlib import AbstractAsyncContextManager

# Time-outs in seconds, by the names of `connect` and `serve`: those that no case waits for, and
# those that one does.
PATIENT: dict[str, Any] = {"open_timeout": 10, "close_timeout": 4, "ping_interval": None}
HASTY: dict[str, Any] = {
    "open_timeout": 1.0,
    "close_timeout": 0.3,
    "ping_interval": 0.1,
    "ping_timeout": 0.2,
}


def settings(*, hasty: bool) -> dict[str, Any]:
    return HASTY if hasty else PATIENT


@dataclass
class Endings:
    """How applications have ended: "done", or the name of the error."""

    running: int = 0
    seen: list[str] = field(default_factory=list)

    async def note(self, application: Awaitable[None]) -> None:
        """Run one."""
        self.running += 1
        try:
            await application
        except Exception as exc:
            self.seen.append(type(exc).__name__)
            raise
        else:
            self.seen.append("done")
        finally:
            self.running -= 1


class Library(Protocol):
    """A library as a victim."""

    def servers(self, endings: Endings) -> AbstractAsyncContextManager[dict[bool, int]]:
        """Run a patient and a hasty server; give their ports, by whether it is the hasty one."""

    async def connect(self, port: int, path: str, *, hasty: bool, compression: bool) -> str:
        """Connect a client to a hostile server; give how its application ended."""


class Anyws:
    """The library that this table is for."""

    @asynccontextmanager
    async def servers(self, endings: Endings) -> AsyncGenerator[dict[bool, int], None]:
        async def handler(ws: anyws.Connection) -> None:
            await endings.note(application(ws))

        async with (
            anyws.serve(handler, "127.0.0.1", **PATIENT) as patient,
            anyws.serve(handler, "127.0.0.1", **HASTY) as hasty,
        ):
            yield {False: patient.port, True: hasty.port}

    async def connect(self, port: int, path: str, *, hasty: bool, compression: bool) -> str:
        try:
            async with anyws.connect(
                f"ws://127.0.0.1:{port}{path}",
                compression="deflate" if compression else None,
                **settings(hasty=hasty),
            ) as ws:
                await application(ws)
        except Exception as exc:  # noqa: BLE001  # whatever it is, it is the outcome
            return type(exc).__name__
        return "done"


async def application(ws: anyws.Connection) -> None:
    """Run what the path asks for."""
    name = ws.path.removeprefix("/")
    if name == "echo":
        async for message in ws:
            await ws.send(message)
    elif name == "sink":
        async for _ in ws:
            pass
    elif name == "deaf":
        await ws.wait_closed()
    elif name == "talk":
        while True:
            await ws.send(bytes(1000))
    # "leave" does nothing, and so closes at once.
