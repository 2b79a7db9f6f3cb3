"""A server that keeps no promise; see `benchmarks.bare`."""

from __future__ import annotations

import asyncio

import trio

from anyws.sansio import ServerHandshake

from ..bare import AsyncioConnection, BareConnection, TrioConnection
from .command import read_options, run_asyncio
from .raw_socket import accept, listen


async def echo(connection: BareConnection, handshake: ServerHandshake) -> None:
    await connection.accept(handshake)
    async for message in connection:
        await connection.send(message)
    await connection.end()


async def serve_asyncio() -> None:
    loop = asyncio.get_running_loop()
    handshake = ServerHandshake()
    tasks = set()
    listener = listen()

    def accept_all() -> None:
        while (client := accept(listener)) is not None:
            connection = AsyncioConnection(client, masks=False)
            task = loop.create_task(echo(connection, handshake.another()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    loop.add_reader(listener.fileno(), accept_all)
    await asyncio.Event().wait()  # the benchmark ends the process


async def serve_trio() -> None:
    handshake = ServerHandshake()
    listener = listen()
    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(listener)
            while (client := accept(listener)) is not None:
                connection = TrioConnection(client, masks=False)
                nursery.start_soon(echo, connection, handshake.another())


if __name__ == "__main__":
    options = read_options()
    if options.loop == "trio":
        trio.run(serve_trio)
    else:
        run_asyncio(serve_asyncio, options.loop)
