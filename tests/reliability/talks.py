"""Conversations from beginning to end: the streams, who relays, who ends it how, what must hold.

Owns what `talking` draws nothing of; run as a program, it searches for a seed that fails.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import time
import traceback
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Literal

import anyio
from anyio.abc import SocketAttribute

import anyws
from anyws._transports import socket_transport, wrap_tls
from anyws._transports._dial import dial_tcp
from anyws.testing import FaultyStream, memory_stream_pair
from tests.conftest import backend_options
from tests.reliability.ledger import Ledger
from tests.reliability.literal_talks import LiteralTalk
from tests.reliability.talking import Listener, Progress, Speaker, draw_options
from tests.tls import client_context, server_context
from tests.transports import accept, limit_buffers, listen

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator

    from anyio.abc import ByteStream

    from anyws import Connection

# Seconds. The slowest needs one or two, in virtual time and over sockets, unless it waits for a
# peer that is silent.
VIRTUAL_LIMIT = 100
REAL_LIMIT = 20

MEMORY = ("memory", "memory-faulty", "memory-tls")
SOCKETS = ("tcp", "tcp-tls")


@cache
def context(server_side: bool) -> ssl.SSLContext:
    return server_context() if server_side else client_context()


@asynccontextmanager
async def streams(
    choice: random.Random, kind: str, *, large: bool
) -> AsyncGenerator[tuple[ByteStream, ByteStream], None]:
    """Give the two ends of a stream: the client's and the server's."""
    async with AsyncExitStack() as stack:
        near: ByteStream
        far: ByteStream
        if kind.startswith("memory"):
            # TLS ends its handshake with what the other side reads only later.
            small = kind != "memory-tls" and not large
            near, far = memory_stream_pair(choice.choice([30, 512]) if small else 65536)
            stack.push_async_callback(near.aclose)
            stack.push_async_callback(far.aclose)
        else:
            listener = await stack.enter_async_context(await listen())
            raw = await dial_tcp("127.0.0.1", listener.extra(SocketAttribute.local_port))
            near = await stack.enter_async_context(socket_transport()(raw))
            far = await stack.enter_async_context(await accept(listener))
            if choice.random() < 0.5:
                limit_buffers(near)
        if kind == "memory-faulty":
            split = choice.choice([1, 3, 100])
            near = FaultyStream(near, split=split, delay=0.001 if split == 100 else 0)
        if kind.endswith("-tls"):
            ends: list[ByteStream] = []

            async def shake_hands() -> None:
                ends.append(await wrap_tls(far, context(True), server_side=True))

            async with anyio.create_task_group() as tg:
                tg.start_soon(shake_hands)
                near = await wrap_tls(
                    near, context(False), server_side=False, server_hostname="localhost"
                )
            far = ends[0]
        yield near, far


@asynccontextmanager
async def connections(
    choice: random.Random, kind: str, close_timeout: float, *, large: bool
) -> AsyncGenerator[tuple[Connection, Connection], None]:
    """Give the two ends of a connection, in a drawn order."""
    compression: Literal["deflate"] | None = choice.choice([None, None, "deflate"])
    async with streams(choice, kind, large=large) as (near, far), AsyncExitStack() as stack:
        ends: dict[str, Connection] = {}
        options = [draw_options(choice, close_timeout) for _ in range(2)]
        entered = anyio.Event()
        leaving = anyio.Event()

        async def serve() -> None:
            # A task of its own, as a handler is.
            with suppress(anyws.ConnectionClosed):
                async with anyws.wrap_server(far, compression=compression, **options[1]) as ws:
                    ends["server"] = ws
                    entered.set()
                    await leaving.wait()

        tg = await stack.enter_async_context(anyio.create_task_group())
        tg.start_soon(serve)
        async with anyws.wrap_client(near, compression=compression, **options[0]) as ws:
            await entered.wait()
            pair = [ws, ends["server"]]
            choice.shuffle(pair)
            try:
                yield pair[0], pair[1]
            finally:
                leaving.set()


async def relay(here: Connection, there: Connection) -> None:
    """Send on what comes, then the end of it."""
    with suppress(anyws.ConnectionClosed):
        async for message in here:
            await there.send(message)
    await there.close()


async def talk(seed: int, kind: str) -> None:
    """Hold the conversation of a seed over a kind of stream.

    Raises:
        AssertionError: something came that must not, or did not that must.
        TimeoutError: it hangs.
    """
    choice = random.Random(f"{seed} {kind}")
    virtual = kind.startswith("memory")
    limit = VIRTUAL_LIMIT if virtual else REAL_LIMIT
    large = kind != "memory-faulty" and choice.random() < 0.4
    with anyio.fail_after(limit):
        drawn = choice.random()
        if drawn < 0.4:
            close_timeout = 1 if virtual else 0.2
            async with streams(choice, kind, large=large) as (near, far):
                await LiteralTalk(choice, near, far, large=large, close_timeout=close_timeout).run()
        elif drawn < 0.6:
            async with (
                connections(choice, kind, limit / 4, large=large) as (one, here),
                connections(choice, kind, limit / 4, large=large) as (other, there),
                anyio.create_task_group() as tg,
            ):
                tg.start_soon(relay, here, there)
                tg.start_soon(relay, there, here)
                await converse(choice, one, other, large=large, relayed=True)
        else:
            close_timeout = choice.choice([limit / 4, limit / 4, 0.01])
            async with connections(choice, kind, close_timeout, large=large) as (one, other):
                await converse(choice, one, other, large=large, patient=close_timeout > 1)


async def converse(
    choice: random.Random,
    one: Connection,
    other: Connection,
    *,
    large: bool,
    relayed: bool = False,
    patient: bool = True,
) -> None:
    """Let both ends send and receive, and end it in a drawn way.

    Args:
        choice: what happens.
        one: who ends it.
        other: the other.
        large: whether some of the messages may be.
        relayed: whether others stand between them.
        patient: whether its end may take as long as the receiving of all that was sent before.
    """
    progress = Progress()
    ending = choice.choice(["agreed", "agreed", "behind", "abrupt"])
    there = Ledger(choice.choice([1, 1, 2, 3]))
    back = Ledger(choice.choice([1, 1, 2, 3]))
    listeners = [
        Listener(choice, ws, ledger, progress, leaves=ending != "agreed")
        for ws, ledger in ((one, back), (other, there))
    ]
    speaking = {"there": 0, "back": 0}

    async def speak(name: str, speaker: Speaker) -> None:
        await speaker.run()
        speaking[name] -= 1
        progress.tell()

    async def end() -> None:
        if ending == "abrupt":
            for _ in range(choice.choice([1, 20, 200])):
                await anyio.lowlevel.checkpoint()
        else:
            while speaking["there"] or (
                ending == "agreed" and (speaking["back"] or not (there.complete and back.complete))
            ):
                await progress.changed.wait()
        way = choice.choice(["close", "send_eof", "abort"])
        if way == "abort" and ending in {"abrupt", "agreed"}:
            one.abort()
        elif way == "send_eof":
            await one.send_eof()
            await one.wait_closed()
        else:
            await one.close()

    async with anyio.create_task_group() as tg:
        for name, ws, ledger in (("there", one, there), ("back", other, back)):
            count = choice.choice([0, 5, 20, 80]) // ledger.tasks
            for task in range(ledger.tasks):
                speaking[name] += 1
                tg.start_soon(speak, name, Speaker(choice, ws, ledger, task, count, large))
        for listener in listeners:
            tg.start_soon(listener.run)
        tg.start_soon(end)
    if ending == "agreed" or (ending == "behind" and patient):
        assert there.complete, f"{ending}: {there}, {listeners[1].error}"
    if ending == "agreed":
        assert back.complete, f"{back}, {listeners[0].error}"
    await one.wait_closed()
    await other.wait_closed()


def run(seed: int, kind: str, loop: str) -> None:
    """Hold one conversation on a new event loop."""
    backend, options = backend_options(loop, virtual=kind in MEMORY)
    anyio.run(talk, seed, kind, backend=backend, backend_options=options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--kind", choices=[*MEMORY, *SOCKETS])
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"])
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    seed = arguments.seed
    failed = 0
    while time.monotonic() < end:
        for kind in [arguments.kind] if arguments.kind else [*MEMORY, *SOCKETS]:
            for loop in [arguments.loop] if arguments.loop else ["asyncio", "uvloop", "trio"]:
                # What does not let anything else run is no matter of a time-out.
                faulthandler.dump_traceback_later(30, exit=True)
                begun = time.monotonic()
                try:
                    run(seed, kind, loop)
                except Exception:  # noqa: BLE001  # it is told, and the search goes on
                    failed += 1
                    print(f"seed {seed} {kind} {loop}: failed")
                    traceback.print_exc()
                taken = time.monotonic() - begun
                if taken > 3:
                    print(f"seed {seed} {kind} {loop}: {taken:.1f} seconds", flush=True)
        seed += 1
    print(f"{seed - arguments.seed} seeds, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
