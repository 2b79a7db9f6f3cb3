"""anyws as a client: on anyio, so on all three loops."""

from __future__ import annotations

import functools

import anyio

import anyws

from .command import Counter, Options, read_options


async def main(options: Options) -> None:
    counter = Counter()
    async with anyws.connect(options.uri, compression=None) as ws:
        async for message in ws:
            if not options.count:
                await ws.send(message)
            elif counter.add(len(message)):
                await ws.send(counter.answer())


if __name__ == "__main__":
    given = read_options()
    anyio.run(
        functools.partial(main, given),
        backend="trio" if given.loop == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if given.loop == "uvloop" else {},
    )
