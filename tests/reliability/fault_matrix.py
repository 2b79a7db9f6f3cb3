"""Sessions with each fault: in memory under a virtual clock, and over TCP.

Owns how a session is run with one fault, and what is left of it; the faults stand in `fault_links`
and `fault_proxy`, what may come of them in `fault_session`.
"""

from __future__ import annotations

import asyncio
import math
import sys
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketAttribute

import anyws
from anyws.testing import memory_stream_pair
from tests.clocks import VirtualTimeLoop
from tests.reliability.fault_links import DOWN, UP, CuttingStream, Fault, faulty_link
from tests.reliability.fault_proxy import FaultProxy
from tests.reliability.fault_session import (
    LONGEST,
    SESSIONS,
    TIMEOUTS,
    Side,
    Tally,
)
from tests.transports import accept, listen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anyio.abc import ByteStream

# Seconds, over TCP: where no time-out is to end the session, and where one is.
LONG_TIMEOUTS: dict[str, Any] = {
    "open_timeout": 20,
    "ping_interval": 20,
    "ping_timeout": 20,
    "close_timeout": 20,
}
SHORT_TIMEOUTS: dict[str, Any] = {
    "open_timeout": 1,
    "ping_interval": 0.2,
    "ping_timeout": 0.5,
    "close_timeout": 0.5,
}

# Seconds in which a session over TCP must have ended, though many have theirs at once.
TCP_LIMIT = 30

# Sessions over TCP at a time: those with a stall do nothing but wait.
AT_ONCE = 40

TCP_KINDS = ["split", "delay", "stall", "half-close", "reset"]
MEMORY_KINDS = ["split", "delay", "stall", "half-close", "break", "freeze", "pieces", "slow"]


async def run_session(session: str, near: ByteStream, far: ByteStream) -> tuple[Side, Side]:
    """Let a client and a server have a session over these two ends."""
    script = SESSIONS[session]
    client, server = script.sides()
    with anyio.move_on_after(2 * LONGEST):  # what hangs has no ending
        async with anyio.create_task_group() as tg:
            tg.start_soon(server.run, anyws.wrap_server(far, **TIMEOUTS), script.server)
            await client.run(anyws.wrap_client(near, **TIMEOUTS), script.client)
    return client, server


async def measure_session(session: str) -> dict[str, int]:
    """Give the bytes of a session without a fault, by direction."""
    near, far = (CuttingStream(end, None) for end in memory_stream_pair())
    await run_session(session, near, far)
    return {UP: near.sent, DOWN: far.sent}


async def run_in_memory(session: str, faults: Iterable[Fault]) -> Tally:
    """Have a session with each of the faults, within the time-outs, that leaves nothing behind."""
    tally = Tally()
    tasks = count_tasks()
    for fault in faults:
        began = anyio.current_time()
        near, far = faulty_link(fault)
        client, server = await run_session(session, near, far)
        tally.note(str(fault), client, server, harmless=fault.harmless)
        elapsed = anyio.current_time() - began
        if elapsed > LONGEST:
            tally.broken.append(f"{fault}: took {elapsed} seconds")
        left = count_tasks() - tasks
        if left or (timers := count_timers()):
            tally.broken.append(f"{fault}: leaves {left} tasks, {timers} timers")
    return tally


def count_tasks() -> int:
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        living: int = trio.lowlevel.current_statistics().tasks_living
        return living
    return len(asyncio.all_tasks())


def count_timers() -> int:
    """Count what a virtual event loop still waits for in time."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return int(trio.lowlevel.current_statistics().seconds_to_next_deadline < math.inf)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return sum(not timer.cancelled() for _, _, timer in loop._timers)


async def measure_session_over_tcp(session: str) -> dict[str, int]:
    """Give the bytes of a session without a fault, by direction."""
    sizes: dict[str, int] = {}
    await _run_over_tcp(session, Fault("split", "nowhere", 0), Tally(), sizes)
    return sizes


async def run_over_tcp(session: str, faults: Sequence[Fault]) -> Tally:
    """Have a session with each of the faults, many at once, over TCP through a proxy for each."""
    tally = Tally()
    for start in range(0, len(faults), AT_ONCE):
        async with anyio.create_task_group() as tg:
            for fault in faults[start : start + AT_ONCE]:
                tg.start_soon(_run_over_tcp, session, fault, tally, {})
    return tally


async def _run_over_tcp(session: str, fault: Fault, tally: Tally, sizes: dict[str, int]) -> None:
    script = SESSIONS[session]
    client, server = script.sides()
    timeouts = LONG_TIMEOUTS if fault.harmless else SHORT_TIMEOUTS
    with anyio.move_on_after(TCP_LIMIT):  # likewise
        async with await listen() as listener, anyio.create_task_group() as tg:

            async def serve() -> None:
                stream = await accept(listener)
                await server.run(anyws.wrap_server(stream, **timeouts), script.server)

            async def connect(port: int) -> None:
                uri = f"ws://127.0.0.1:{port}/"
                await client.run(anyws.connect(uri, **timeouts), script.client)

            proxy = FaultProxy(fault, listener.extra(SocketAttribute.local_port))
            port = await tg.start(proxy.run)
            async with anyio.create_task_group() as ends:
                ends.start_soon(serve)
                ends.start_soon(connect, port)
            tg.cancel_scope.cancel()  # the proxy may have stalled
            sizes.update(proxy.passed)
    tally.note(str(fault), client, server, harmless=fault.harmless)
