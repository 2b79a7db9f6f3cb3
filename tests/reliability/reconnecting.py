"""Scenarios of the cancellation sweep: a session of `reconnect`, wherever it is.

Owns the sessions, whose connections follow each other: what is cancelled is an attempt, a body, the
end of a connection, or the wait before the next one.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope, create_task_group
from anyio.lowlevel import checkpoint

import anyws
from tests.blocks import BodyError
from tests.network import memory_network
from tests.reliability.closing import call_block
from tests.reliability.pairs import TCP, TLS, Kind, Setting, listening, meet, over
from tests.wire import TEXT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import ByteStream

    from tests.reliability.cutting import Cut
    from tests.reliability.strict import StrictPeer
    from tests.reliability.sweeping import Scenario

    Session = Any
    Make = Callable[[], AbstractAsyncContextManager[Session]]
    Body = Callable[[Cut, Session], Awaitable[None]]

_MEMORY = Kind(client=True)
_KINDS = (_MEMORY, TCP[0], TLS[0])

_CONNECTIONS = 3

# Calls that are cancelled in a row, where they are cancelled again and again.
_CANCELLATIONS = 5

# Where time is real, a wait is to have points and not to be long.
_BACKOFFS = {
    True: anyws.Backoff(jitter=False),
    False: anyws.Backoff(initial=0.001, max=0.001, jitter=False),
}


class _Peers:
    """The servers that a session meets one after the other, in memory.

    Args:
        cut: what is told of faults.
        setting: what each is told.
        refusals: how many of the first hang up before they answer.
    """

    def __init__(self, cut: Cut, setting: Setting, refusals: int) -> None:
        self.met: list[StrictPeer] = []
        self._cut = cut
        self._setting = setting
        self._refusals = refusals

    async def meet(self, far: ByteStream) -> None:
        if self._refusals:
            self._refusals -= 1
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await far.receive()
            with CancelScope(shield=True):
                await far.aclose()
        else:
            await meet(self._cut, self._setting, far, self.met)


@asynccontextmanager
async def _in_memory(
    cut: Cut, setting: Setting, refusals: int
) -> AsyncGenerator[tuple[Make, list[StrictPeer]], None]:
    peers = _Peers(cut, setting, refusals)
    async with memory_network() as network, create_task_group() as tasks:
        accepting = CancelScope()

        async def accept() -> None:
            with accepting:
                await listener.serve(peers.meet, tasks)

        listener = network.listen()
        tasks.start_soon(accept)
        backoff = _BACKOFFS[True]
        yield (
            lambda: anyws.reconnect("ws://localhost/", backoff=backoff, **setting.all_arguments),
            peers.met,
        )
        accepting.cancel()
        await listener.aclose()


def _surroundings(
    cut: Cut, kind: Kind, refusals: int = 0
) -> AbstractAsyncContextManager[tuple[Make, list[StrictPeer]]]:
    """Give what makes the block, and the peers that it has met."""
    setting = Setting(kind)
    if kind.tcp:
        return listening(cut, setting, partial(anyws.reconnect, backoff=_BACKOFFS[False]))
    return _in_memory(cut, setting, refusals)


# Bodies.


async def _talk(ws: anyws.Connection, number: int) -> None:
    """Exchange a Ping and send a message; with the Pong the message has arrived."""
    await ws.send(f"message {number}")
    await (await ws.ping())


async def _loops(cut: Cut, session: Session) -> None:
    number = 0
    async for ws in session:
        await _talk(ws, number)
        number += 1
        if number == _CONNECTIONS:
            break


async def _loops_and_fails(cut: Cut, session: Session) -> None:
    number = 0
    async for ws in session:
        await _talk(ws, number)
        number += 1
        if number == _CONNECTIONS:
            raise BodyError


async def _runs(cut: Cut, session: Session) -> None:
    numbers = iter(range(_CONNECTIONS))

    async def handler(ws: anyws.Connection) -> None:
        number = next(numbers)
        await _talk(ws, number)
        if number == _CONNECTIONS - 1:
            raise BodyError

    await session.run(handler)


async def _leaves(cut: Cut, session: Session) -> None:
    """Begin the sweep where the block is left, with an open connection."""
    async for ws in session:
        await _talk(ws, 0)
        break
    cut.arm()


async def _fails(cut: Cut, session: Session) -> None:
    """Begin the sweep where an error leaves the block."""
    async for ws in session:
        await _talk(ws, 0)
        cut.arm()
        raise BodyError


async def _waits(cut: Cut, session: Session) -> None:
    """Begin the sweep where a connection is left and the wait for the next one begins."""
    async for ws in session:
        await _talk(ws, 0)
        break
    cut.arm()
    await anext(session)
    cut.disarm()


def _block(name: str, body: Body, kind: Kind, *, armed: bool, refusals: int = 0) -> Scenario:
    async def run(cut: Cut) -> None:
        async with _surroundings(cut, kind, refusals) as (make, peers):
            await call_block(cut, make, body, armed=armed)
        _judge(cut, peers)
        expected = {_loops: _CONNECTIONS, _loops_and_fails: _CONNECTIONS, _runs: _CONNECTIONS}
        if not cut.cancelled and body in expected and len(peers) != expected[body]:
            cut.fault(f"{len(peers)} connections, expected {expected[body]}")

    return over(kind, f"reconnect, {name}", run)


def _next_connection(kind: Kind) -> Scenario:
    """Cancel what gives the next connection; the session goes on, and gives one later."""

    async def run(cut: Cut) -> None:
        if cut.way.native:
            return  # that way has a task of its own, and a session belongs to one
        async with _surroundings(cut, kind) as (make, peers), make() as session:
            first = await anext(session)
            await _talk(first, 0)
            for _ in range(_CANCELLATIONS):
                outcome = await cut.call(session.__anext__)
                if not outcome.cancelled:
                    break
            ws = await anext(session) if outcome.cancelled else outcome.value
            if not first.closed:
                cut.fault("the first connection is still open")
            await _talk(ws, 1)
        _judge(cut, peers)
        messages = [message for peer in peers for message in peer.messages]
        cut.compare(messages, [b"message 0", b"message 1"])

    return over(kind, "reconnect, next connection", run, repeats=True)


def _broken_off(kind: Kind) -> Scenario:
    """Cancel a loop whose server closes each connection in its turn."""

    async def run(cut: Cut) -> None:
        async with _surroundings(cut, kind) as (make, peers):

            async def body(cut: Cut, session: Session) -> None:
                number = 0
                async for ws in session:
                    peer = peers[-1]
                    await peer.send(TEXT, b"hello")
                    await peer.send_close()
                    async for message in ws:
                        assert message == "hello"
                    number += 1
                    if number == _CONNECTIONS:
                        break

            await call_block(cut, make, body, armed=True)
        _judge(cut, peers)

    return over(kind, "reconnect, server closes", run)


async def _careless(cut: Cut, session: Session) -> None:
    """Raise, cancelled or not, as a careless user does."""
    try:
        await _loops(cut, session)
        await checkpoint()
    except BaseException:  # noqa: BLE001  # that is what is tried
        error = BodyError()
        error.__suppress_context__ = True
    else:
        error = BodyError()
    raise error


def _judge(cut: Cut, peers: list[StrictPeer]) -> None:
    for number, peer in enumerate(peers):
        codes = {1000, 1001, 1011, None} if cut.cancelled else {1000, 1011}
        if cut.cancellations < 2 and number < len(peers) - 2:
            codes = {1000}  # it was left in peace, before what was cancelled
        if peer.open_now.is_set() and peer.close_code not in codes:
            cut.fault(f"closed with {peer.close_code}, expected one of {codes}")


def _scenarios() -> Iterator[Scenario]:
    for kind in _KINDS:
        yield _block("whole life", _loops, kind, armed=True)
        yield _block("whole life and an error", _careless, kind, armed=True)
        yield _block("left by an error", _fails, kind, armed=False)
        yield _block("left", _leaves, kind, armed=False)
        yield _block("back-off", _waits, kind, armed=False)
        yield _block("run", _runs, kind, armed=True)
        yield _next_connection(kind)
        yield _broken_off(kind)
    yield _block("refused, then whole life", _loops, _MEMORY, armed=True, refusals=2)
    yield _block("whole life, left by an error", _loops_and_fails, _MEMORY, armed=True)


SCENARIOS = tuple(_scenarios())
