"""Connections and servers as blocks of code: what leaves them.

Owns line 88 of docs/behaviours.md and the ways out of a block, in memory; knows no sockets. How
long they take to end stands in test_bounds.py.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

import anyws
from anyws._cancellation import bare
from anyws._lifespan import leave_task_group
from anyws._server import Server
from anyws.testing import (
    MemoryListener,
    MemoryStream,
    connection_pair,
    memory_server,
    memory_stream_pair,
)
from tests.blocks import BodyError, all_blocks, background_peer, echo, settle
from tests.conftest import backend_options
from tests.endings import (
    both_roles,
    closes_well,
    floods,
    never_answers,
    never_reads,
    peer_of_handler,
    takes,
)
from tests.wire import CLOSE, REQUEST, TEXT, Peer, close_payload, split_frames

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.blocks import Block
    from tests.endings import Misbehaviour, Pair

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


# What the body raises leaves the block as itself (line 88).


@pytest.mark.behaviour(88)
@all_blocks
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        BodyError,
        lambda: ExceptionGroup("mine", [BodyError()]),
        lambda: BaseExceptionGroup("mine", [KeyboardInterrupt(), BodyError()]),
        KeyboardInterrupt,
        SystemExit,
        StopAsyncIteration,
        lambda: anyws.ConnectionClosedOK(None, None),
        lambda: anyws.ConnectionClosedError(None, None),
        TimeoutError,
        anyio.WouldBlock,
    ],
)
async def test_what_the_body_raises_leaves_as_itself(
    block: Block, make: Callable[[], BaseException], at_once: bool
) -> None:
    error = make()
    async with block() as manager:
        with pytest.raises(type(error)) as raised:
            async with manager:
                if not at_once:
                    await settle()
                raise error
        assert raised.value is error
        assert error.__context__ is None
        assert error.__cause__ is None
        assert not error.__suppress_context__


@pytest.mark.behaviour(88)
@all_blocks
async def test_context_of_the_error_stays(block: Block) -> None:
    context = KeyError("context")
    error = BodyError()
    async with block() as manager:
        with pytest.raises(BodyError) as raised:
            async with manager:
                await settle()
                try:
                    raise context
                except KeyError:
                    raise error  # noqa: B904  # it is the context that is looked at
        assert raised.value is error
        assert error.__context__ is context
        assert context.__context__ is None


@pytest.mark.behaviour(88)
@all_blocks
async def test_context_of_the_error_stays_when_the_block_is_inside_an_except_clause(
    block: Block,
) -> None:
    outer = KeyError("outer")
    error = BodyError()
    async with block() as manager:
        with pytest.raises(BodyError) as raised:
            try:
                raise outer
            except KeyError:
                async with manager:
                    await settle()
                    raise error  # noqa: B904  # it is the context that is looked at
        assert raised.value is error
        assert error.__context__ is outer
        assert outer.__context__ is None


@pytest.mark.behaviour(88)
@all_blocks
@pytest.mark.parametrize(
    "make", [BodyError, lambda: ExceptionGroup("mine", [BodyError()]), KeyboardInterrupt]
)
async def test_error_wins_over_the_cancellation_of_an_outer_scope(
    block: Block, make: Callable[[], BaseException]
) -> None:
    error = make()
    contexts = []
    reached = []
    async with block() as manager:
        with anyio.CancelScope() as scope:
            with pytest.raises(type(error)) as raised:
                async with manager:
                    scope.cancel()
                    try:
                        await anyio.sleep_forever()
                    except anyio.get_cancelled_exc_class() as cancelled:
                        contexts.append(cancelled)
                        raise error  # noqa: B904  # it is the context that is looked at
            assert error.__context__ is contexts[0]
            reached.append(raised.value)
            # What has taken the error meets the cancellation again.
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert reached == [error]


@pytest.mark.behaviour(88)
@all_blocks
async def test_error_of_a_finally_wins_over_the_cancellation_of_an_outer_scope(
    block: Block,
) -> None:
    error = BodyError()
    async with block() as manager:
        with pytest.raises(BodyError) as raised:
            with anyio.CancelScope() as scope:
                async with manager:
                    try:
                        scope.cancel()
                        await anyio.sleep_forever()
                    finally:
                        raise error
        assert raised.value is error


@pytest.mark.behaviour(88, 90)
@all_blocks
async def test_error_wins_over_a_cancellation_that_comes_while_the_block_is_left(
    block: Block,
) -> None:
    error = BodyError()
    reached = []
    async with block() as manager:
        with anyio.CancelScope() as scope:
            with pytest.raises(BodyError) as raised:
                async with manager:
                    await settle()
                    scope.deadline = anyio.current_time()
                    raise error
            assert error.__context__ is None
            reached.append(raised.value)
        assert reached == [error]


@pytest.mark.behaviour(88, 90)
@both_roles
@pytest.mark.parametrize("peer_does", [never_reads, never_answers, floods])
async def test_error_wins_over_a_cancellation_that_comes_while_the_peer_does_not_answer(
    pair: Pair, peer_does: Misbehaviour
) -> None:
    error = BodyError()
    async with background_peer() as start:
        with takes(3), anyio.move_on_after(3) as scope:
            with pytest.raises(BodyError) as raised:
                async with pair() as (ws, peer):
                    start(peer_does, peer)
                    ws.send_nowait(b"x" * 200_000)
                    raise error
        assert raised.value is error
        assert error.__context__ is None
        assert scope.cancel_called


@pytest.mark.behaviour(88, 90)
@both_roles
@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
async def test_error_wins_over_asyncio_cancelling_the_task_twice_while_the_block_is_left(
    pair: Pair,
) -> None:
    error = BodyError()
    connections: list[anyws.Connection] = []

    async def leave() -> None:
        async with pair() as (ws, _):
            connections.append(ws)
            raise error

    task = asyncio.create_task(leave())
    await settle()
    task.cancel()  # the peer does not answer our Close: this ends the wait for it
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()  # and this the orderly end
    with pytest.raises(BodyError) as raised:
        await task
    assert raised.value is error
    assert connections[0].closed


@pytest.mark.behaviour(88)
@all_blocks
async def test_cancellation_leaves_the_block_as_cancellation(block: Block) -> None:
    async with block() as manager:
        with anyio.CancelScope() as scope:
            with pytest.raises(anyio.get_cancelled_exc_class()):
                async with manager:
                    scope.cancel()
                    await anyio.sleep_forever()
            await anyio.sleep_forever()
        assert scope.cancelled_caught


@pytest.mark.behaviour(88)
@both_roles
async def test_connection_closed_that_the_body_does_not_catch_leaves_the_block(pair: Pair) -> None:
    # Rule R3: iteration alone ends quietly.
    with pytest.raises(anyws.ConnectionClosedOK) as raised:
        async with pair() as (ws, peer):
            await peer.send_close(1000)
            await peer.finish()
            async for _ in ws:
                pass
            await ws.recv()
    assert raised.value.code == 1000


@pytest.mark.behaviour(88)
async def test_error_of_the_body_wins_over_the_error_of_a_handler() -> None:
    async def handler(ws: anyws.Connection) -> None:
        await ws.recv()
        raise RuntimeError("handler")

    error = BodyError()
    with pytest.raises(BodyError) as raised:
        async with memory_server(handler) as connect:
            async with connect() as ws:
                await ws.send("go")
                try:
                    await anyio.sleep_forever()
                finally:
                    raise error
    assert raised.value is error


@pytest.mark.behaviour(88)
@pytest.mark.parametrize("body", ["waits", "leaves", "has a group"])
async def test_error_of_a_handler_leaves_the_server_as_itself_when_told_to_raise(body: str) -> None:
    error = RuntimeError("handler")
    context = KeyError("context")

    async def handler(ws: anyws.Connection) -> None:
        await ws.recv()
        try:
            raise context
        except KeyError:
            raise error  # noqa: B904  # it is the context that is looked at

    listener = MemoryListener()
    with pytest.raises(RuntimeError) as raised:
        async with anyws.serve(handler, listeners=[listener], handler_errors="raise"):
            stream = await listener.connect()
            async with anyio.create_task_group() as tg, stream:
                await stream.send(REQUEST + b"\r\n")
                peer = Peer(stream, masks=True)
                await peer.read_until(b"\r\n\r\n")
                await peer.send(TEXT, b"go")
                if body == "waits":
                    await anyio.sleep_forever()
                if body == "has a group":
                    tg.start_soon(anyio.sleep_forever)
                    tg.start_soon(anyio.sleep_forever)
    assert raised.value is error
    assert error.__context__ is context
    assert error.__cause__ is None


@pytest.mark.behaviour(88)
@pytest.mark.parametrize("seconds", [0, 1])
async def test_error_of_a_handler_leaves_the_server_when_an_outer_scope_is_cancelled_too(
    seconds: float,
) -> None:
    error = RuntimeError("handler")

    async def handler(ws: anyws.Connection) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(seconds)
            raise error

    reached = []
    with anyio.CancelScope() as scope:
        with pytest.raises(RuntimeError) as raised:
            async with memory_server(handler) as connect:
                async with connect():
                    scope.cancel()
                    await anyio.sleep_forever()
        reached.append(raised.value)
    assert reached == [error]


@pytest.mark.behaviour(88)
async def test_interrupt_while_the_server_is_left_wins_over_the_error_of_a_handler() -> None:
    async def handler(ws: anyws.Connection) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise BodyError

    async with anyio.create_task_group() as tg:
        interrupt = KeyboardInterrupt()
        serving = memory_server(handler)
        connect = await serving.__aenter__()
        tg.start_soon(stay, connect)
        await settle()

        async def close(*arguments: Any) -> None:
            raise interrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Server, "close", close)
            with pytest.raises(KeyboardInterrupt) as raised:
                await serving.__aexit__(None, None, None)
        assert raised.value is interrupt


async def stay(connect: Callable[[], AbstractAsyncContextManager[anyws.Connection]]) -> None:
    async with connect() as ws:
        await ws.wait_closed()


# KeyboardInterrupt and SystemExit stay bare. On asyncio those of a task stop the loop, so
# each of these tests runs one of its own.

every_loop = pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
interrupts = pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])


def leave(loop: str, main: Callable[[], Awaitable[None]]) -> BaseException:
    """Run `main` and give what leaves it."""
    left: list[BaseException] = []

    async def run() -> None:
        try:
            await main()
        except BaseException as exc:  # noqa: BLE001  # it is what the tests are about
            left.append(exc)

    name, options = backend_options(loop, virtual=True)
    with suppress(KeyboardInterrupt, SystemExit):  # those of a task have left the loop already
        anyio.run(run, backend=name, backend_options=options)
    return left[0]


@pytest.mark.behaviour(88)
@every_loop
@interrupts
def test_interrupt_leaves_a_task_of_the_connection_bare(
    loop: str, interrupt: type[BaseException]
) -> None:
    error = interrupt()

    async def task() -> None:
        await settle()
        raise error

    async def main() -> None:
        async with connection_pair() as (client, _):
            client.start_soon(task)
            await anyio.sleep_forever()

    assert leave(loop, main) is error


@pytest.mark.behaviour(88)
@every_loop
@interrupts
def test_interrupt_leaves_a_task_of_the_connection_bare_when_the_body_is_over(
    loop: str, interrupt: type[BaseException]
) -> None:
    error = interrupt()

    async def task() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise error

    async def main() -> None:
        async with connection_pair() as (client, _):
            client.start_soon(task)
            await settle()

    assert leave(loop, main) is error


@pytest.mark.behaviour(88)
@every_loop
@interrupts
def test_interrupt_leaves_a_task_of_the_connection_bare_when_an_outer_scope_is_cancelled(
    loop: str, interrupt: type[BaseException]
) -> None:
    error = interrupt()

    async def task() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await settle()
            raise error

    async def main() -> None:
        with anyio.move_on_after(1):
            async with connection_pair() as (client, _):
                # On trio their cancellation leaves the nursery too, before the error and after.
                client.start_soon(anyio.sleep_forever)
                client.start_soon(task)
                client.start_soon(anyio.sleep_forever)
                await anyio.sleep_forever()

    assert leave(loop, main) is error


@pytest.mark.behaviour(88)
@pytest.mark.parametrize("make", [BodyError, KeyboardInterrupt])
@pytest.mark.parametrize(
    "place", ["anyws._transports.StreamTransport.start", "anyws._keepalive.Keepalive.start"]
)
async def test_what_comes_up_as_a_connection_begins_to_live_leaves_nothing_behind(
    place: str, make: Callable[[], BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = make()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(place, fail)
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    with pytest.raises(type(error)) as caught:
        async with anyws.wrap_server(near):
            pytest.fail("the block was entered")
    assert caught.value is error
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        for _ in range(3):
            await far.receive()


async def test_error_of_our_own_does_not_keep_a_block_that_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(_: object) -> None:
        raise BodyError

    monkeypatch.setattr("anyws._link.Link.drop", fail)
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    with suppress(BodyError), anyio.CancelScope() as scope:
        async with anyws.wrap_server(near):
            scope.cancel()
            await anyio.sleep_forever()
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        for _ in range(3):
            await far.receive()


@pytest.mark.behaviour(88)
@every_loop
@interrupts
def test_interrupt_leaves_a_handler_bare(loop: str, interrupt: type[BaseException]) -> None:
    error = interrupt()

    async def handler(ws: anyws.Connection) -> None:
        await ws.recv()
        raise error

    async def main() -> None:
        async with memory_server(handler) as connect, connect() as ws:
            await ws.send("go")
            await anyio.sleep_forever()

    assert leave(loop, main) is error


@pytest.mark.behaviour(88)
@every_loop
@interrupts
def test_interrupt_leaves_the_body_bare_when_a_handler_runs(
    loop: str, interrupt: type[BaseException]
) -> None:
    error = interrupt()

    async def main() -> None:
        async with memory_server(echo) as connect, connect() as ws:
            await ws.send("go")
            await ws.recv()
            raise error

    assert leave(loop, main) is error


@pytest.mark.behaviour(88)
def test_interrupt_that_comes_while_the_block_is_left_wins_over_the_error_of_the_body() -> None:
    # Where trio may not interrupt the task that runs, it interrupts the main task in its wait.
    @trio.lowlevel.enable_ki_protection
    async def interrupt() -> None:
        await anyio.sleep(1)
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(interrupt)
            near, far = memory_stream_pair()
            await far.send(REQUEST + b"\r\n")
            try:
                # Without timers, or the clock might jump before trio gets to the interrupt.
                async with anyws.wrap_server(near, close_timeout=None, ping_interval=None):
                    raise BodyError
            finally:
                tasks.cancel_scope.cancel()

    interrupted = leave("trio", main)
    assert isinstance(interrupted, BaseExceptionGroup)
    assert [type(error) for error in interrupted.exceptions] == [KeyboardInterrupt]


# The blocks inside what belongs to one event loop alone.


@pytest.mark.parametrize(
    "anyio_backend", [backend_options(name, virtual=True) for name in ("asyncio", "uvloop")]
)
@all_blocks
async def test_block_takes_part_in_the_cancellation_of_asyncio(block: Block) -> None:
    async with block() as manager:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), manager:
                await asyncio.sleep(1000)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


@pytest.mark.parametrize(
    "anyio_backend", [backend_options(name, virtual=True) for name in ("asyncio", "uvloop")]
)
@all_blocks
async def test_error_leaves_a_task_group_of_asyncio_as_its_only_one(block: Block) -> None:
    error = BodyError()
    async with block() as manager:
        with pytest.raises(ExceptionGroup) as raised:
            async with asyncio.TaskGroup() as tg, manager:
                tg.create_task(asyncio.sleep(1000))
                await settle()
                raise error
        assert raised.value.exceptions == (error,)


@pytest.mark.parametrize("anyio_backend", [backend_options("trio", virtual=True)])
@both_roles
async def test_cancelled_nursery_of_trio_in_the_body_counts_as_cancellation(pair: Pair) -> None:
    # It raises a group of nothing but Cancelled.
    with trio.CancelScope() as scope:
        async with pair() as (_, peer):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
    assert scope.cancelled_caught
    assert close_codes(peer) == [1001]


@pytest.mark.parametrize("anyio_backend", [backend_options("trio", virtual=True)])
async def test_error_of_a_handler_ends_a_nursery_of_trio_in_the_body_of_the_server() -> None:
    error = RuntimeError("handler")

    async def handler(ws: anyws.Connection) -> None:
        await ws.recv()
        raise error

    with pytest.raises(RuntimeError) as raised:
        async with memory_server(handler) as connect, connect() as ws:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await ws.send("go")
    assert raised.value is error


# What the wire shows of the ways out.


def close_codes(peer: Peer) -> list[int]:
    """Give the codes of the Close frames that came, read or not, after the connection is over."""
    stream = peer.stream
    assert isinstance(stream, MemoryStream)
    frames, rest = split_frames(peer.buffer + bytes(stream._incoming.data))
    assert rest == b""
    return [frame.code for frame in frames if frame.opcode == CLOSE]


@both_roles
async def test_block_that_is_left_normally_shows_the_closing_handshake(pair: Pair) -> None:
    async with anyio.create_task_group() as tg:
        async with pair() as (_, peer):
            tg.start_soon(closes_well_with, 1000, peer)


async def closes_well_with(code: int, peer: Peer) -> None:
    close = await closes_well(peer)
    assert close.payload == close_payload(code)


@both_roles
@pytest.mark.parametrize("make", [BodyError, lambda: BaseExceptionGroup("mine", [BodyError()])])
async def test_block_that_is_left_by_an_exception_shows_the_closing_handshake_with_1011(
    pair: Pair, make: Callable[[], BaseException]
) -> None:
    error = make()
    async with anyio.create_task_group() as tg:
        with pytest.raises(type(error)), takes(0):
            async with pair() as (_, peer):
                tg.start_soon(closes_well_with, 1011, peer)
                raise error


@pytest.mark.behaviour(90)
@both_roles
@pytest.mark.parametrize(
    "make",
    [
        KeyboardInterrupt,
        SystemExit,
        lambda: BaseExceptionGroup("mine", [BodyError(), KeyboardInterrupt()]),
    ],
)
async def test_block_that_is_left_by_the_end_of_the_program_shows_one_close_frame_and_the_end(
    pair: Pair, make: Callable[[], BaseException]
) -> None:
    error = make()
    with pytest.raises(type(error)), takes(0):
        async with pair() as (_, peer):  # a peer that never answers
            raise error
    assert close_codes(peer) == [1001]
    assert stream_has_ended(peer)


@pytest.mark.behaviour(88)
@both_roles
async def test_block_of_a_connection_itself_shows_its_end_likewise(pair: Pair) -> None:
    async with anyio.create_task_group() as tg, pair() as (ws, peer):
        tg.start_soon(closes_well_with, 1011, peer)
        with pytest.raises(BodyError), takes(0):
            async with ws:
                raise BodyError
    with anyio.CancelScope() as scope:
        async with pair() as (ws, peer):
            async with ws:
                scope.cancel()
                await anyio.sleep_forever()
    assert close_codes(peer) == [1001]
    assert stream_has_ended(peer)


@pytest.mark.behaviour(90)
@both_roles
async def test_block_that_is_left_by_cancellation_shows_one_close_frame_and_the_end(
    pair: Pair,
) -> None:
    with anyio.CancelScope() as scope:
        async with pair() as (_, peer):
            with takes(0):
                scope.cancel()
                await anyio.sleep_forever()
    assert close_codes(peer) == [1001]
    assert stream_has_ended(peer)


def stream_has_ended(peer: Peer) -> bool:
    stream = peer.stream
    assert isinstance(stream, MemoryStream)
    return stream._incoming.ended


@pytest.mark.behaviour(90)
@both_roles
async def test_cancellation_drops_the_stream_when_a_close_frame_would_have_to_wait(
    pair: Pair,
) -> None:
    with anyio.CancelScope() as scope:
        async with pair(max_buffer_size=1000) as (ws, peer):
            ws.send_nowait(b"x" * 5000)
            await settle()
            with takes(0):
                scope.cancel()
                await anyio.sleep_forever()
    assert ws.close_code == 1006
    assert stream_has_ended(peer)


@pytest.mark.parametrize(("error", "code"), [(None, 1000), (BodyError(), 1011)])
async def test_wire_shows_how_a_handler_ended(error: BodyError | None, code: int) -> None:
    async def handler(ws: anyws.Connection) -> None:
        if error is not None:
            raise error

    async with peer_of_handler(handler) as peer:
        await closes_well_with(code, peer)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_wire_shows_1001_when_the_server_is_left(cancelled: bool) -> None:
    listener = MemoryListener()
    async with anyio.create_task_group() as tg:
        with anyio.CancelScope() as scope:
            async with anyws.serve(anyws.Connection.wait_closed, listeners=[listener]):
                stream = await listener.connect()
                peer = Peer(stream, masks=True)
                await peer.send_bytes(REQUEST + b"\r\n")
                await peer.read_until(b"\r\n\r\n")
                if cancelled:
                    scope.cancel()
                    await anyio.sleep_forever()
                tg.start_soon(closes_well_with, 1001, peer)
        if cancelled:
            assert close_codes(peer) == [1001]
            assert stream_has_ended(peer)
            await stream.aclose()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(1)], ids=repr)
async def test_interrupt_while_the_block_is_left_wins_over_an_error_of_its_tasks(
    interruption: BaseException,
) -> None:
    class Failing:
        """Stands for a task group in which a task of ours has failed."""

        async def __aexit__(self, *_: object) -> None:
            raise BaseExceptionGroup("", [ValueError()])

    failing: Any = Failing()
    with pytest.raises(type(interruption)) as caught:
        await leave_task_group(failing, None, interruption)
    assert caught.value is interruption
    with pytest.raises(ValueError, match=r"^$"):  # itself: the group is ours
        await leave_task_group(failing, None, None)


async def test_interrupt_is_found_in_groups_of_groups() -> None:
    interrupt = KeyboardInterrupt()
    other = ExceptionGroup("", [ValueError()])
    group = BaseExceptionGroup("", [other, BaseExceptionGroup("", [ValueError(), interrupt])])
    assert bare(group) is interrupt
    assert bare(ExceptionGroup("", [other])) is other
    several = ExceptionGroup("", [ValueError(), ValueError()])
    assert bare(several) is several
