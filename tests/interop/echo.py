"""Our side of the Autobahn test suite, as a program: an echo server, and a client that echoes.

Owns no check. It is a process of its own because it runs on any event loop, while the suite runs on
asyncio alone; what it writes to stderr is a fault.

    python echo.py serve BACKEND               print the port, serve until stdin ends
    python echo.py drive BACKEND URI TASKS     run all cases of a fuzzing server, so many at once
    python echo.py drive BACKEND URI TASKS no-context-takeover
"""

from __future__ import annotations

import contextlib
import sys
from typing import Literal

import anyio
import anyio.to_thread

import anyws

AGENT = "anyws"

# The largest messages of the suite, in its cases 9.1.6 and 9.2.6; all else is our default.
MAX_SIZE = 16 * 2**20


async def echo(ws: anyws.Connection) -> None:
    # The suite cannot judge a short message that it compressed and gets back uncompressed, which is
    # what our threshold makes of it: it finds a str where it wants bytes.
    async for message in ws:
        await ws.send(message, compress=True)


async def serve() -> None:
    async with anyws.serve(echo, "127.0.0.1", max_size=MAX_SIZE) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        await anyio.to_thread.run_sync(sys.stdin.read)


async def drive(
    uri: str, tasks: int, compression: Literal["deflate"] | anyws.PerMessageDeflate
) -> None:
    """Run each case in its own connection, then say that it was the last."""
    async with anyws.connect(f"{uri}/getCaseCount") as ws:
        count = int(await ws.recv())
    limiter = anyio.CapacityLimiter(tasks)

    async def run_case(number: int) -> None:
        target = f"{uri}/runCase?case={number}&agent={AGENT}"
        async with (
            limiter,
            anyws.connect(target, compression=compression, max_size=MAX_SIZE) as ws,
        ):
            # The case is over, in the midst of an echo or by a wrong frame.
            with contextlib.suppress(anyws.ConnectionClosed):
                await echo(ws)

    async with anyio.create_task_group() as task_group:
        for number in range(1, count + 1):
            task_group.start_soon(run_case, number)
    async with anyws.connect(f"{uri}/updateReports?agent={AGENT}") as ws:
        await ws.wait_closed()


def main(mode: str, backend: str, *arguments: str) -> None:
    name = "trio" if backend == "trio" else "asyncio"
    options = {"use_uvloop": True} if backend == "uvloop" else {}
    if mode == "serve":
        anyio.run(serve, backend=name, backend_options=options)
        return
    uri, tasks, *flags = arguments
    compression: Literal["deflate"] | anyws.PerMessageDeflate = (
        anyws.PerMessageDeflate(client_no_context_takeover=True)
        if flags == ["no-context-takeover"]
        else "deflate"
    )
    anyio.run(drive, uri, int(tasks), compression, backend=name, backend_options=options)


if __name__ == "__main__":
    main(*sys.argv[1:])
