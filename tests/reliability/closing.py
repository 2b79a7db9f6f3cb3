"""Scenarios of the cancellation sweep: opening a connection, closing it, and leaving its block.

Owns how it must have ended after the cancellation: the peer has seen the end of the stream, at most
one Close with the right code, and what the body of the block raised has come out as itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio import aclose_forcefully
from anyio.lowlevel import checkpoint

from tests import blocks
from tests.blocks import BodyError
from tests.reliability.pairs import (
    ALL,
    MEMORY,
    PLAIN,
    TCP,
    TLS,
    Kind,
    Setting,
    listening,
    meeting,
    over,
    paired,
)
from tests.reliability.receiving import END, fill, idle
from tests.reliability.sweeping import Scenario
from tests.wire import TEXT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    import anyws
    from tests.blocks import Block
    from tests.reliability.cutting import Cut
    from tests.reliability.strict import StrictPeer

    Body = Callable[[Cut, anyws.Connection], Awaitable[None]]


async def call_block(
    cut: Cut, make: Callable[[], AbstractAsyncContextManager[Any]], body: Any, *, armed: bool
) -> None:
    """Cancel a block, and see that what its body raises comes out as itself.

    Args:
        cut: what cancels it.
        make: makes the block.
        body: what runs in it; it may raise a BodyError.
        armed: whether the points of entering it count.
    """
    raised: list[BodyError] = []

    async def run() -> None:
        async with make() as inside:
            try:
                await body(cut, inside)
            except BodyError as exc:
                raised.append(exc)
                raise

    try:
        await cut.call(run, armed=armed)
    except BodyError as exc:
        if exc is not raised[0]:
            cut.fault(f"another error than that of the body: {exc!r}")
        if exc.__context__ is not None or exc.__cause__ is not None:
            cut.fault(f"the body's error has got a context: {exc.__context__!r}")
    else:
        if raised:
            cut.fault("the body's error is lost")


# Bodies.


async def opens(cut: Cut, ws: anyws.Connection) -> None:
    """End the sweep where the connection is open."""
    cut.disarm()
    await ws.send("open")


async def leaves(cut: Cut, ws: anyws.Connection) -> None:
    """Begin the sweep where the block is left."""
    await ws.send("leave")
    cut.arm()


async def fails(cut: Cut, ws: anyws.Connection) -> None:
    """Begin the sweep where an error leaves the block."""
    await ws.send("fail")
    cut.arm()
    raise BodyError


async def lives(cut: Cut, ws: anyws.Connection) -> None:
    """Do a bit of everything."""
    ws.start_soon(anyio.sleep_forever)
    for index in range(3):
        await ws.send(f"message {index}")
        await checkpoint()
    await (await ws.ping())
    await ws.send(["a", "b"])
    with anyio.move_on_after(0):
        await ws.recv()


async def lives_and_fails(cut: Cut, ws: anyws.Connection) -> None:
    """Do the same and raise, cancelled or not."""
    try:
        await lives(cut, ws)
    except BaseException:  # noqa: BLE001  # as a careless user does it
        error = BodyError()
        error.__suppress_context__ = True
    else:
        error = BodyError()
    raise error


def _codes_of(cut: Cut, body: Body) -> set[int | None]:
    """Give the close codes that the peer may see: each way out of a block has its own."""
    code = 1011 if body in {fails, lives_and_fails} else 1000
    if body in {leaves, fails} or not cut.cancelled:
        # The Close is written before anything is waited for; cancelled or not, it goes out.
        return {code}
    # There may be no connection yet, or a message that cannot be completed.
    return {code, 1001, 1011, None}


def _block(
    name: str, body: Body, setting: Setting, *, armed: bool, dials: bool = False
) -> Scenario:
    """Make a scenario of a block, over two streams or of connect() itself."""

    async def run(cut: Cut) -> None:
        async with (listening if dials else meeting)(cut, setting) as (make, peers):
            await call_block(cut, make, body, armed=armed)
        _judge(cut, peers, _codes_of(cut, body))

    by = "connect" if dials else "block"
    return over(setting.kind, f"{by}, {name}", run)


def _judge(cut: Cut, peers: list[StrictPeer], codes: set[int | None]) -> None:
    for peer in peers:
        if peer.open_now.is_set() and peer.close_code not in codes:
            cut.fault(f"closed with {peer.close_code}, expected one of {codes}")


def _bad_peer(name: str, body: Body, kind: Kind, *, reads: bool) -> Scenario:
    """Leave a block whose peer does not answer the Close, or does not even read."""
    setting = Setting(kind, {"write_limit": 1024}, answers=False, may_be_cut=True)

    async def run(cut: Cut) -> None:
        async with meeting(cut, setting, held=not reads) as (make, peers):

            async def fill(cut: Cut, ws: anyws.Connection) -> None:
                if not reads:
                    with anyio.move_on_after(0):
                        await ws.send(b"a" * 200_000)
                cut.arm()
                if body is fails:
                    raise BodyError

            await call_block(cut, make, fill, armed=False)
        _judge(cut, peers, {None, *_codes_of(cut, body)})

    peer = "never answers" if reads else "never reads"
    return over(kind, f"block, {name}, peer {peer}", run)


def _unread(name: str, body: Body, kind: Kind) -> Scenario:
    """Leave a block while the peer sends more than all buffers hold, before it reads the Close."""

    async def run(cut: Cut) -> None:
        async with meeting(cut, Setting(kind, may_be_cut=True)) as (make, peers):
            async with anyio.create_task_group() as tasks:

                async def receive_some(cut: Cut, ws: anyws.Connection) -> None:
                    tasks.start_soon(fill, peers[0])
                    for _ in range(3):
                        await ws.recv()
                    await body(cut, ws)

                await call_block(cut, make, receive_some, armed=False)
        _judge(cut, peers, {None, *_codes_of(cut, body)})

    return over(kind, f"block, {name}, much unread", run)


def _cancelled_inside(kind: Kind) -> Scenario:
    """Cancel a body that receives: the Close goes out, since nothing stands in its way."""

    async def run(cut: Cut) -> None:
        async with meeting(cut, Setting(kind)) as (make, peers):
            async with anyio.create_task_group() as tasks:

                async def receive(cut: Cut, ws: anyws.Connection) -> None:
                    tasks.start_soon(idle, peers[0])
                    cut.arm()
                    while await ws.recv() != END:
                        pass

                await call_block(cut, make, receive, armed=False)
        _judge(cut, peers, {1000, 1001} if cut.cancelled else {1000})

    return over(kind, "block, cancelled inside", run)


async def _resets(peer: StrictPeer) -> None:
    """Leave without a word."""
    for _ in range(4):
        await checkpoint()
    await aclose_forcefully(peer.stream)


def _reset(name: str, body: Body, kind: Kind) -> Scenario:
    """Leave a block as the peer breaks off."""

    async def run(cut: Cut) -> None:
        async with meeting(cut, Setting(kind, may_be_cut=True)) as (make, peers):
            async with anyio.create_task_group() as tasks:

                async def begin(cut: Cut, ws: anyws.Connection) -> None:
                    tasks.start_soon(_resets, peers[0])
                    await body(cut, ws)

                await call_block(cut, make, begin, armed=False)

    return over(kind, f"block, {name}, peer resets", run)


# The blocks of anyws.testing, and others with their own surroundings.

_SURROUNDED: dict[str, Block] = {
    "connect": blocks.connect_block,
    "serve": blocks.serve_block,
    "wrap_client": blocks.wrap_client_block,
    "wrap_server": blocks.wrap_server_block,
    "connection_pair": blocks.connection_pair_block,
    "memory_server": blocks.memory_server_block,
    "memory_server's client": blocks.memory_client_block,
}


def _surrounded(name: str, block: Block, *, error: bool) -> Scenario:
    async def run(cut: Cut) -> None:
        async def body(cut: Cut, _: Any) -> None:
            await checkpoint()
            if error:
                raise BodyError

        async with block() as manager:
            await call_block(cut, lambda: manager, body, armed=True)

    by = "left by an error" if error else "whole life"
    return Scenario(f"block of {name}, {by}", "", run, virtual=True)


# Calls that close.


def _closing(kind: Kind, call: str) -> Scenario:
    """Cancel a call that closes; wait_closed() must still come to its end."""

    async def run(cut: Cut) -> None:
        async with paired(cut, Setting(kind)) as pair:
            for index in range(3):
                await pair.ws.send(f"message {index}")
            await pair.peer.send(TEXT, b"unread")
            await cut.call(getattr(pair.ws, call))
            if pair.ws.open:
                cut.fault("it does not go on closing")
            await pair.ws.close()
            await pair.ws.wait_closed()
            await pair.peer.ended.wait()
            cut.compare(pair.peer.messages, [b"message %d" % index for index in range(3)])
            _judge(cut, [pair.peer], {1000})

    return over(kind, call, run)


def _waiting(kind: Kind) -> Scenario:
    async def run(cut: Cut) -> None:
        async with paired(cut, Setting(kind)) as pair:
            pair.tasks.start_soon(pair.peer.send_close)
            await cut.call(pair.ws.wait_closed)
            await pair.ws.wait_closed()
            _judge(cut, [pair.peer], {1000})

    return over(kind, "wait_closed", run)


def _scenarios() -> Iterator[Scenario]:
    for kind in ALL:
        yield _block("opening", opens, Setting(kind), armed=True)
        yield _block("left", leaves, Setting(kind), armed=False)
        yield _block("left by an error", fails, Setting(kind), armed=False)
        yield _cancelled_inside(kind)
        yield _closing(kind, "close")
    for kind in PLAIN:
        yield _block("whole life", lives, Setting(kind), armed=True)
        yield _block("whole life and an error", lives_and_fails, Setting(kind), armed=True)
        for name, body in (("left", leaves), ("left by an error", fails)):
            yield _unread(name, body, kind)
            yield _reset(name, body, kind)
        yield _closing(kind, "send_eof")
        yield _waiting(kind)
    for kind in (TCP[0], TLS[0]):
        yield _block("opening", opens, Setting(kind), armed=True, dials=True)
        yield _block("left", leaves, Setting(kind), armed=False, dials=True)
        yield _block("left by an error", fails, Setting(kind), armed=False, dials=True)
        yield _block("whole life", lives, Setting(kind), armed=True, dials=True)
    for kind in MEMORY:
        for reads in (True, False):
            yield _bad_peer("left", leaves, kind, reads=reads)
            yield _bad_peer("left by an error", fails, kind, reads=reads)
    for surrounded, block in _SURROUNDED.items():
        yield _surrounded(surrounded, block, error=False)
        yield _surrounded(surrounded, block, error=True)


SCENARIOS = tuple(_scenarios())
