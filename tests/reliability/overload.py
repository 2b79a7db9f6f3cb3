"""A server with more than it likes: many connections, clients that stop reading, and its end.

`python -m tests.reliability.overload --loop trio` has 5,000 connections, of which 500 do not read,
and prints what that came to as JSON. Owns the course of it and what is counted; the clients stand
in `crowd`.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
from dataclasses import asdict, dataclass

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint

import anyws
from tests.reliability.crowd import Crowd
from tests.reliability.resources import Resources, count_resources
from tests.sockets import echo

# Seconds that a handler has to end when the server is closed: those of clients that do not read
# never do of themselves.
GRACE = 0.5

_SETTLING_TURNS = 20


@dataclass(frozen=True)
class Overload:
    """What an overload came to.

    Args:
        connections: how many were open at once.
        stalled: how many of them stopped reading.
        echoes: messages that came back right meanwhile.
        before: what was in use before.
        crowded: what was in use with all connections open and idle.
        flooded: the same, after the stalled ones had sent all that the server took.
        after: what was in use when the server was closed.
    """

    connections: int
    stalled: int
    echoes: int
    before: Resources
    crowded: Resources
    flooded: Resources
    after: Resources

    @property
    def stalled_size(self) -> float:
        """Bytes that each connection to a client that does not read takes more than an idle one."""
        return (self.flooded.memory - self.crowded.memory) / max(1, self.stalled)


async def warm_up() -> None:
    """Have what a process gets once: a thread for the clients, and a descriptor of libuv's own."""
    await to_thread.run_sync(lambda: None)
    async with (
        anyws.serve(echo, "127.0.0.1") as server,
        anyws.connect(f"ws://127.0.0.1:{server.port}/"),
    ):
        pass


async def settle() -> None:
    """Let the event loop turn: libuv closes what it is told to close one turn later."""
    for _ in range(_SETTLING_TURNS):
        await checkpoint()


async def overload(connections: int, stalled: int, *, rounds: int) -> Overload:
    """Serve so many connections, of which some stop reading, and see that the others are served.

    Args:
        connections: how many there are, the stalled ones among them.
        stalled: how many stop reading while they go on sending.
        rounds: messages of each of the others.

    Raises:
        UnservedError: one of the others got no answer, or a wrong one.
    """
    await warm_up()
    before = count_resources()
    async with anyws.serve(echo, "127.0.0.1", close_timeout=1, ping_interval=None) as server:
        crowd = Crowd(server.port)
        await to_thread.run_sync(crowd.open, connections - stalled, stalled)
        assert len(server.connections) == connections
        await to_thread.run_sync(crowd.echo, 1)
        crowded = count_resources()
        await to_thread.run_sync(crowd.stall)
        await to_thread.run_sync(crowd.echo, rounds)
        flooded = count_resources()
        # Whoever does not read is dropped after `grace`; the others answer our Close by leaving.
        async with anyio.create_task_group() as tg:
            tg.start_soon(to_thread.run_sync, crowd.leave)
        await server.close(grace=GRACE)
    await settle()
    return Overload(connections, stalled, crowd.echoes, before, crowded, flooded, count_resources())


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.overload")
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--stalled", type=int, default=500)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    result = anyio.run(
        functools.partial(overload, arguments.connections, arguments.stalled, rounds=3),
        backend="trio" if arguments.loop == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if arguments.loop == "uvloop" else {},
    )
    print(json.dumps({**asdict(result), "stalled_size": result.stalled_size}))


if __name__ == "__main__":
    main()
