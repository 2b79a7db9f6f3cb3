"""`anyws.Hooks`: what is called as things happen on a connection, and what an error in it does.

The hooks of the opening handshake, `process_request` and its like, stand in `test_hooks`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint

import anyws
from anyws._connection import Connection
from anyws._inbox import Inbox
from anyws.testing import (
    FaultyStream,
    MemoryListener,
    connection_pair,
    memory_server,
    memory_stream_pair,
)
from tests.blocks import BodyError, counted_turns, echo
from tests.endings import both_roles, closes_well
from tests.receiving import STREAM_SIZE
from tests.sending import DEFLATE, fragments
from tests.sockets import LIMIT, serving
from tests.tls import client_context, server_context
from tests.wire import CLOSE, CONT, MASK, PING, REQUEST, TEXT, Peer, frame

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from tests.endings import Pair

pytestmark = pytest.mark.anyio
virtual = pytest.mark.virtual_time


class Recorder(anyws.Hooks):
    """Notes each call."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.connections: list[anyws.Connection] = []

    def opened(self, ws: anyws.Connection) -> None:
        assert ws.open
        self.connections.append(ws)
        self.calls.append(("opened",))

    def closed(self, ws: anyws.Connection) -> None:
        assert ws.closed
        assert ws in self.connections
        self.calls.append(("closed", ws.close_code, ws.close_reason))

    def message_received(self, ws: anyws.Connection, message: str | bytes) -> None:
        self.calls.append(("received", message))

    def fragment_received(self, ws: anyws.Connection, fragment: str | bytes, *, fin: bool) -> None:
        self.calls.append(("received", fragment, fin))

    def message_sent(self, ws: anyws.Connection, message: Any) -> None:
        self.calls.append(("sent", message))

    def fragment_sent(self, ws: anyws.Connection, fragment: Any, *, fin: bool) -> None:
        self.calls.append(("sent", fragment, fin))

    def count(self, name: str) -> int:
        return sum(call[0] == name for call in self.calls)


class Failing(anyws.Hooks):
    """Fails in each method."""

    def fragment_received(self, ws: anyws.Connection, fragment: object, *, fin: bool) -> None:
        raise BodyError("fragment_received")

    def fragment_sent(self, ws: anyws.Connection, fragment: object, *, fin: bool) -> None:
        raise BodyError("fragment_sent")

    def opened(self, ws: anyws.Connection) -> None:
        raise BodyError("opened")

    def closed(self, ws: anyws.Connection) -> None:
        raise BodyError("closed")

    def message_received(self, ws: anyws.Connection, message: str | bytes) -> None:
        raise BodyError("message_received")

    def message_sent(self, ws: anyws.Connection, message: object) -> None:
        raise BodyError("message_sent")


# When they are called.


@virtual
@both_roles
async def test_hooks_are_called_in_the_order_of_what_happens(pair: Pair) -> None:
    hooks = Recorder()
    async with pair(hooks=hooks) as (ws, peer):
        assert hooks.calls == [("opened",)]
        assert hooks.connections == [ws]
        await peer.send(TEXT, b"one")
        assert await ws.recv() == "one"
        await ws.send("two")
        await peer.read_frame()
        await peer.send_close(4000, "bye")
        await closes_well(peer)
        await ws.wait_closed()
        assert hooks.calls == [
            ("opened",),
            ("received", "one"),
            ("sent", "two"),
            ("closed", 4000, "bye"),
        ]


@virtual
async def test_opened_comes_before_what_is_glued_to_the_handshake() -> None:
    hooks = Recorder()
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n" + frame(TEXT, b"glued", mask=MASK))
    async with far, anyws.wrap_server(near, hooks=hooks) as ws:
        assert await ws.recv() == "glued"
        assert hooks.calls == [("opened",), ("received", "glued")]
        await far.aclose()


@virtual
async def test_nothing_is_called_when_the_handshake_fails() -> None:
    hooks = Recorder()
    listener = MemoryListener()
    async with anyws.serve(echo, listeners=[listener], max_connections=0, hooks=hooks):
        with pytest.raises(anyws.InvalidStatus):
            async with anyws.wrap_client(await listener.connect(), hooks=hooks):
                pass
    assert hooks.calls == []


@virtual
@both_roles
async def test_message_is_received_when_it_comes_and_not_when_it_is_asked_for(pair: Pair) -> None:
    hooks = Recorder()
    async with pair(hooks=hooks, max_queue=2) as (ws, peer):
        for number in range(3):
            await peer.send(TEXT, b"%d" % number)
        await anyio.sleep(1)
        assert hooks.calls[1:] == [("received", "0"), ("received", "1")]
        for _ in range(3):
            await ws.recv()
        assert hooks.calls[1:] == [("received", "0"), ("received", "1"), ("received", "2")]
        await peer.finish()


@virtual
@both_roles
async def test_messages_are_told_among_control_frames(pair: Pair) -> None:
    hooks = Recorder()
    async with pair(hooks=hooks) as (ws, peer):
        mask = MASK if peer.masks else None
        await peer.send_bytes(frame(TEXT, b"a", mask=mask) + frame(PING, b"", mask=mask))
        await anyio.sleep(1)
        assert hooks.calls[1:] == [("received", "a")]
        assert ws.stats.pongs_sent == 1
        await peer.finish()


@virtual
@both_roles
async def test_fragments_are_told_when_a_message_is_received_in_fragments(pair: Pair) -> None:
    hooks = Recorder()
    async with pair(hooks=hooks) as (ws, peer):
        async with ws.recv_streaming() as parts:
            await peer.send(TEXT, b"ab", fin=False)
            assert await anext(parts) == "ab"
            await peer.send(CONT, b"c")
            assert await anext(parts) == "c"
        async with ws.recv_streaming() as parts:
            await peer.send(TEXT, b"left", fin=False)
            assert await anext(parts) == "left"
        await peer.send(CONT, b"skipped")
        await peer.send(TEXT, b"whole", fin=False)
        await peer.send(CONT, b"")
        assert await ws.recv() == "whole"
        assert hooks.calls[1:] == [
            ("received", "ab", False),
            ("received", "c", True),
            ("received", "left", False),
            ("received", "whole"),
        ]
        await peer.finish()


@virtual
@both_roles
async def test_fragments_are_told_once_when_their_message_is_kept_for_recv(pair: Pair) -> None:
    hooks = Recorder()
    async with pair(hooks=hooks) as (ws, peer):
        async with ws.recv_streaming():
            await peer.send(TEXT, b"a", fin=False)
            await anyio.sleep(1)
        await peer.send(CONT, b"b")
        assert await ws.recv() == "ab"
        assert hooks.calls[1:] == [("received", "a", False), ("received", "b", True)]
        await peer.finish()


@virtual
@both_roles
async def test_messages_that_come_while_closing_are_told_as_long_as_there_is_room(
    pair: Pair,
) -> None:
    async def answer() -> None:
        while (await peer.read_frame()).opcode != CLOSE:
            pass
        for number in range(4):
            await peer.send(TEXT, b"%d" % number)
        await peer.send_close()
        await peer.read_until_eof()
        await peer.finish()

    hooks = Recorder()
    async with pair(hooks=hooks, max_queue=2) as (ws, peer), anyio.create_task_group() as tg:
        tg.start_soon(answer)
        await ws.close()
        told = [call[1] for call in hooks.calls if call[0] == "received"]
        assert told == [message async for message in ws] == ["0", "1"]


@virtual
@both_roles
async def test_messages_that_closing_drops_are_not_told(pair: Pair) -> None:
    hooks = Recorder()
    async with pair(hooks=hooks, max_queue=(2, 1)) as (ws, peer), anyio.create_task_group() as tg:
        for number in range(4):
            await peer.send(TEXT, b"%d" % number)
        await anyio.sleep(1)
        await ws.recv()  # makes room for one that is kept
        tg.start_soon(closes_well, peer)
        await ws.close()
        told = [call[1] for call in hooks.calls if call[0] == "received"]
        kept = [await ws.recv() for _ in range(2)]
        assert told == ["0", *kept]
        assert ws.stats.messages_received == 4


@virtual
@both_roles
async def test_messages_are_told_as_they_were_given_however_they_are_sent(pair: Pair) -> None:
    hooks = Recorder()
    async with pair(hooks=hooks) as (ws, peer):
        await ws.send("text")
        await ws.send(b"text", text=True)
        ws.send_nowait(bytearray(b"data"))
        await ws.send(["ab", "c"])
        await ws.send(fragments(b"ab", b"c"))
        anyws.broadcast([ws], "to all")
        await anyws.broadcast_wait([ws], b"to all")
        assert hooks.calls[1:] == [
            ("sent", "text"),
            ("sent", b"text"),
            ("sent", bytearray(b"data")),
            ("sent", "ab", False),
            ("sent", "c", True),
            ("sent", b"ab", False),
            ("sent", b"c", False),
            ("sent", b"", True),
            ("sent", "to all"),
            ("sent", b"to all"),
        ]
        await peer.finish()


@virtual
@both_roles
async def test_what_is_refused_is_not_told(pair: Pair) -> None:
    hooks = Recorder()
    async with pair(hooks=hooks) as (ws, peer):
        with pytest.raises(ValueError, match="surrogates"):
            await ws.send("\ud800")
        with pytest.raises(TypeError):
            await ws.send(5)  # type: ignore[arg-type]  # that is the point
        with pytest.raises(TypeError):
            ws.send_nowait(5)  # type: ignore[arg-type]  # likewise
        await peer.finish()
        await ws.wait_closed()
        with pytest.raises(anyws.ConnectionClosed):
            await ws.send("late")
        with pytest.raises(anyws.ConnectionClosed):
            ws.send_nowait("late")
        anyws.broadcast([ws], "late")
        assert hooks.count("sent") == 0


@virtual
@both_roles
async def test_send_that_is_cancelled_is_told_if_the_message_goes_out(pair: Pair) -> None:
    hooks = Recorder()
    async with pair(hooks=hooks, write_limit=1000, max_buffer_size=STREAM_SIZE) as (ws, peer):
        with anyio.move_on_after(1):
            await ws.send(b"x" * 2000)
        with anyio.move_on_after(1):
            await ws.send("never")
        with pytest.raises(anyio.WouldBlock):
            ws.send_nowait("never")
        anyws.broadcast([ws], "never", slow="drop")
        assert hooks.calls[1:] == [("sent", b"x" * 2000)]
        async with anyio.create_task_group() as tg:
            tg.start_soon(anyws.broadcast_wait, [ws], "late")
            await anyio.sleep(1)
            assert hooks.count("sent") == 1
            await peer.read(2000)
            await anyio.sleep(1)
        assert hooks.calls[2:] == [("sent", "late")]
        await peer.finish()


@virtual
async def test_other_tasks_run_while_much_is_sent_with_hooks() -> None:
    async with (
        connection_pair(hooks=Recorder(), max_queue=None, write_limit=None) as (ws, _),
        counted_turns() as turns,
    ):
        for _ in range(1000):
            await ws.send("x")
        assert turns.count >= 10


# Each connection that has opened is closed once, whatever ends it.


async def end_by_closing(ws: anyws.Connection, peer: Peer) -> None:
    async with anyio.create_task_group() as tg:
        tg.start_soon(closes_well, peer)
        await ws.close(3000, "enough")


async def end_by_its_block(ws: anyws.Connection, peer: Peer) -> None:
    pass  # nobody answers: close_timeout


async def end_by_the_peer(ws: anyws.Connection, peer: Peer) -> None:
    await peer.send_close(1001)
    await peer.read_frame()


async def end_by_abort(ws: anyws.Connection, peer: Peer) -> None:
    ws.abort()
    ws.abort()


async def end_by_the_stream(ws: anyws.Connection, peer: Peer) -> None:
    await peer.finish()


async def end_by_a_failure(ws: anyws.Connection, peer: Peer) -> None:
    await peer.send(7)


async def end_by_keepalive(ws: anyws.Connection, peer: Peer) -> None:
    await ws.wait_closed()


async def end_by_an_exception(ws: anyws.Connection, peer: Peer) -> None:
    raise BodyError


async def end_by_cancellation(ws: anyws.Connection, peer: Peer) -> None:
    with suppress(anyws.ConnectionClosed):
        await ws.recv()


async def end_by_cancelling_close(ws: anyws.Connection, peer: Peer) -> None:
    await ws.close()


@virtual
@both_roles
@pytest.mark.parametrize(
    ("end", "code"),
    [
        (end_by_closing, 3000),
        (end_by_its_block, 1006),
        (end_by_the_peer, 1001),
        (end_by_abort, 1006),
        (end_by_the_stream, 1006),
        (end_by_a_failure, 1006),
        (end_by_keepalive, 1006),
        (end_by_an_exception, 1006),
        (end_by_cancellation, 1006),
        (end_by_cancelling_close, 1006),
    ],
)
async def test_closed_is_called_once_whatever_ends_the_connection(
    pair: Pair, end: Callable[[anyws.Connection, Peer], Awaitable[None]], code: int
) -> None:
    hooks = Recorder()
    timeout = 3 if "cancel" in end.__name__ else 100
    with suppress(BodyError), anyio.move_on_after(timeout):
        async with pair(hooks=hooks) as (ws, peer):
            await end(ws, peer)
    reason = "enough" if code == 3000 else ""
    assert hooks.calls == [("opened",), ("closed", code, reason)]
    assert hooks.connections[0].closed


class SlowStream(FaultyStream):
    """A stream whose aclose() takes its time, also when it is cancelled."""

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)
        await super().aclose()


@virtual
async def test_closed_is_called_once_when_the_stream_of_a_dropped_connection_closes_slowly() -> (
    None
):
    hooks = Recorder()
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    with anyio.move_on_after(3):
        async with anyws.wrap_server(SlowStream(near), hooks=hooks):
            await anyio.sleep_forever()
    assert hooks.calls == [("opened",), ("closed", 1006, "")]
    await far.aclose()


@virtual
async def test_closed_is_called_once_for_each_connection_when_the_server_is_dropped() -> None:
    hooks = Recorder()
    listener = MemoryListener()

    async def client() -> None:
        with suppress(anyws.ConnectionClosed):
            async with anyws.wrap_client(await listener.connect()) as ws:
                await ws.wait_closed()

    async with anyio.create_task_group() as tg:
        with anyio.move_on_after(5):
            async with anyws.serve(echo, listeners=[listener], hooks=hooks):
                for _ in range(10):
                    tg.start_soon(client)
                await anyio.sleep_forever()
    assert hooks.count("opened") == hooks.count("closed") == 10
    assert len(set(hooks.connections)) == 10


@pytest.fixture(params=["streams", "native"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connections run over anyio's streams, or over transports of our own."""
    monkeypatch.setenv("ANYWS_NATIVE_TRANSPORTS", str(int(request.param == "native")))


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("end", ["close", "abort", "cancel", "raise"])
async def test_both_ends_are_told_alike_on_the_loopback_interface(secure: bool, end: str) -> None:
    ours, theirs = Recorder(), Recorder()
    context = server_context() if secure else None

    async with serving(echo, ssl=context, hooks=theirs) as server:
        uri = f"{'wss' if secure else 'ws'}://localhost:{server.port}/"
        options: dict[str, Any] = {"ssl": client_context()} if secure else {}
        with suppress(BodyError), anyio.CancelScope() as scope:
            async with anyws.connect(uri, hooks=ours, **options) as ws:
                for message in ("one", b"two", "x" * 100_000):
                    await ws.send(message)
                    assert await ws.recv() == message
                if end == "abort":
                    ws.abort()
                elif end == "cancel":
                    scope.cancel()
                    await checkpoint()
                elif end == "raise":
                    raise BodyError
        with anyio.fail_after(LIMIT):
            while server.connections:
                await checkpoint()
    messages = ["one", b"two", "x" * 100_000]
    for hooks in (ours, theirs):
        assert [call[1] for call in hooks.calls if call[0] == "sent"] == messages
        assert [call[1] for call in hooks.calls if call[0] == "received"] == messages
        assert (hooks.count("opened"), hooks.count("closed")) == (1, 1)
        assert (hooks.calls[0], hooks.calls[-1][0]) == (("opened",), "closed")


# What a hook may do.


@virtual
@both_roles
async def test_hook_may_send_behind_what_it_is_told_of(pair: Pair) -> None:
    class Shadow(anyws.Hooks):
        def message_sent(self, ws: anyws.Connection, message: object) -> None:
            if message != "shadow":
                ws.send_nowait("shadow")

        def message_received(self, ws: anyws.Connection, message: object) -> None:
            ws.send_nowait(f"got {message!r}")

    async with pair(hooks=Shadow()) as (ws, peer):
        await ws.send("a")
        assert [(await peer.read_frame()).payload for _ in range(2)] == [b"a", b"shadow"]
        await peer.send(TEXT, b"b")
        assert [(await peer.read_frame()).payload for _ in range(2)] == [b"got 'b'", b"shadow"]
        await peer.finish()


@virtual
@both_roles
@pytest.mark.parametrize("name", ["opened", "message_received", "message_sent"])
async def test_hook_may_abort(pair: Pair, name: str) -> None:
    closed: list[int | None] = []

    class Aborting(anyws.Hooks):
        def closed(self, ws: anyws.Connection) -> None:
            closed.append(ws.close_code)

    hooks = Aborting()
    setattr(hooks, name, lambda ws, *_: ws.abort())
    async with pair(hooks=hooks) as (ws, peer):
        if name == "message_received":
            await peer.send(TEXT, b"a")
        elif name == "message_sent":
            with suppress(anyws.ConnectionClosed):
                await ws.send("a")
        await ws.wait_closed()
        await peer.finish()
    assert closed == [1006]


@virtual
@both_roles
async def test_hook_may_start_a_task(pair: Pair) -> None:
    class Greeting(anyws.Hooks):
        def opened(self, ws: anyws.Connection) -> None:
            ws.start_soon(ws.send, "welcome")

    async with pair(hooks=Greeting()) as (_, peer):
        assert (await peer.read_frame()).payload == b"welcome"
        await peer.finish()


@virtual
@both_roles
async def test_send_of_a_large_message_that_compresses_well_lets_others_run(pair: Pair) -> None:
    async with (
        pair(hooks=Failing(), write_limit=None, **DEFLATE) as (ws, _),
        counted_turns() as turns,
    ):
        for _ in range(20):
            await ws.send("x" * 40_000)
        assert turns.count >= 10


# Errors.


@virtual
@both_roles
async def test_error_of_a_hook_is_logged_once_and_harms_nothing(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(hooks=Failing()) as (ws, peer), anyio.create_task_group() as tg:
        for number in range(3):
            await peer.send(TEXT, b"%d" % number)
            assert await ws.recv() == str(number)
            await ws.send("x")
            ws.send_nowait("y")
            assert [(await peer.read_frame()).payload for _ in range(2)] == [b"x", b"y"]
        async with ws.recv_streaming() as parts:
            await peer.send(TEXT, b"a", fin=False)
            await peer.send(CONT, b"b")
            assert [part async for part in parts] == ["a", "b"]
        await ws.send(["c", "d"])
        assert [(await peer.read_frame()).payload for _ in range(2)] == [b"c", b"d"]
        tg.start_soon(closes_well, peer)
        await ws.close()
        assert ws.close_code == 1000
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    messages = ["message_received", "message_sent", "fragment_received", "fragment_sent"]
    names = ["opened", *messages, "closed"]
    assert [record.getMessage() for record in records] == [
        f"hook {name} failed, told once for the connection" for name in names
    ]
    for record, name in zip(records, names, strict=True):
        assert record.exc_info is not None
        assert str(record.exc_info[1]) == name


class OfAnotherKind(BaseException):
    """As pytest's Failed, or a cancellation of a task whose result was asked for."""


@virtual
@both_roles
async def test_error_of_a_hook_that_is_no_exception_harms_nothing_either(
    pair: Pair, caplog: pytest.LogCaptureFixture, anyio_backend_name: str
) -> None:
    class Hooks(anyws.Hooks):
        def message_received(self, ws: anyws.Connection, message: object) -> None:
            raise OfAnotherKind if anyio_backend_name == "trio" else asyncio.CancelledError

        def closed(self, ws: anyws.Connection) -> None:
            raise OfAnotherKind

    async with pair(hooks=Hooks()) as (ws, peer), anyio.create_task_group() as tg:
        await peer.send(TEXT, b"a")
        assert await ws.recv() == "a"
        tg.start_soon(closes_well, peer)
        await ws.close()
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in records] == [
        f"hook {name} failed, told once for the connection"
        for name in ("message_received", "closed")
    ]
    assert all(vars(record)["websocket"] is ws for record in records)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_interrupt_of_a_hook_leaves_bare(interrupt: type[BaseException]) -> None:
    class Hooks(anyws.Hooks):
        def message_sent(self, ws: anyws.Connection, message: object) -> None:
            raise interrupt

    async def main() -> None:
        async with connection_pair(hooks=Hooks()) as (client, _):
            await client.send("a")

    with pytest.raises(interrupt):
        trio.run(main)


def test_interrupt_in_a_group_of_a_hook_is_no_error_of_it() -> None:
    class Hooks(anyws.Hooks):
        def message_sent(self, ws: anyws.Connection, message: object) -> None:
            raise BaseExceptionGroup("of a hook", [KeyboardInterrupt()])

    async def main() -> None:
        async with connection_pair(hooks=Hooks()) as (client, _):
            await client.send("a")

    with pytest.raises(BaseExceptionGroup):
        trio.run(main)


@pytest.mark.parametrize("block", ["connect", "reconnect"])
def test_interrupt_of_the_hook_that_opens_ends_the_connection(block: str) -> None:
    ended: list[anyws.Connection] = []

    class Hooks(anyws.Hooks):
        def opened(self, ws: anyws.Connection) -> None:
            ws.start_soon(anyio.sleep_forever)
            raise SystemExit

        def closed(self, ws: anyws.Connection) -> None:
            ended.append(ws)

    async def over_tcp() -> None:
        async with serving() as server:
            url = f"ws://127.0.0.1:{server.port}/"
            with anyio.fail_after(LIMIT):
                if block == "connect":
                    async with anyws.connect(url, hooks=Hooks()):
                        pass
                else:
                    async with anyws.reconnect(url, hooks=Hooks()) as session:
                        await anext(session)

    with pytest.raises(SystemExit):
        trio.run(over_tcp)
    (ws,) = ended
    assert ws.closed


@pytest.mark.parametrize(
    ("hooks", "error"),
    [
        (Recorder, "hooks must be an instance of anyws.Hooks or None, not the class itself"),
        (print, "hooks must be an instance of anyws.Hooks or None, not builtin_function_or_method"),
    ],
)
def test_hooks_of_a_wrong_type_are_refused(hooks: Any, error: str) -> None:
    for make in (
        lambda: anyws.connect("ws://localhost/", hooks=hooks),
        lambda: anyws.reconnect("ws://localhost/", hooks=hooks),
        lambda: anyws.serve(echo, hooks=hooks),
    ):
        with pytest.raises(TypeError, match=f"^{error}$"):
            make()


def test_async_hook_is_refused() -> None:
    class Async(anyws.Hooks):
        async def closed(self, ws: anyws.Connection) -> None:  # type: ignore[override]  # the point
            pass

    with pytest.raises(TypeError, match=r"^closed of hooks must be a plain function, not an async"):
        anyws.serve(echo, hooks=Async())


# Who takes hooks, and who has none.


@asynccontextmanager
async def of_connect(hooks: anyws.Hooks, path: Path) -> AsyncGenerator[None, None]:
    async with serving() as server, anyws.connect(f"ws://127.0.0.1:{server.port}/", hooks=hooks):
        yield


@asynccontextmanager
async def of_reconnect(hooks: anyws.Hooks, path: Path) -> AsyncGenerator[None, None]:
    async with (
        serving() as server,
        anyws.reconnect(f"ws://127.0.0.1:{server.port}/", hooks=hooks) as session,
    ):
        await anext(session)
        yield


@asynccontextmanager
async def of_unix_connect(hooks: anyws.Hooks, path: Path) -> AsyncGenerator[None, None]:
    async with anyws.unix_serve(echo, path), anyws.unix_connect(path, hooks=hooks):
        yield


@asynccontextmanager
async def of_unix_serve(hooks: anyws.Hooks, path: Path) -> AsyncGenerator[None, None]:
    async with anyws.unix_serve(echo, path, hooks=hooks), anyws.unix_connect(path):
        yield


@asynccontextmanager
async def of_wrap_client(hooks: anyws.Hooks, path: Path) -> AsyncGenerator[None, None]:
    listener = MemoryListener()
    async with (
        anyws.serve(echo, listeners=[listener]),
        anyws.wrap_client(await listener.connect(), hooks=hooks),
    ):
        yield


@asynccontextmanager
async def of_serve_forever(hooks: anyws.Hooks, path: Path) -> AsyncGenerator[None, None]:
    async def serve(*, task_status: Any) -> None:
        await anyws.serve_forever(echo, "127.0.0.1", hooks=hooks, task_status=task_status)

    async with anyio.create_task_group() as tg:
        server: anyws.Server = await tg.start(serve)
        async with anyws.connect(f"ws://127.0.0.1:{server.port}/"):
            yield
        await server.close()


@asynccontextmanager
async def of_memory_server(hooks: anyws.Hooks, path: Path) -> AsyncGenerator[None, None]:
    async with memory_server(echo, hooks=hooks) as connect, connect():
        yield


@pytest.mark.parametrize(
    "enter",
    [
        of_connect,
        of_reconnect,
        of_unix_connect,
        of_unix_serve,
        of_wrap_client,
        of_serve_forever,
        of_memory_server,
    ],
)
async def test_each_way_to_a_connection_takes_hooks(enter: Any, tmp_path: Path) -> None:
    hooks = Recorder()
    with anyio.fail_after(LIMIT):
        async with enter(hooks, tmp_path / "socket"):
            # A client may be here first.
            while not hooks.calls:
                await checkpoint()
    assert hooks.calls == [("opened",), ("closed", 1000, "")]


@virtual
async def test_connection_pair_gives_its_hooks_to_both_ends() -> None:
    hooks = Recorder()
    async with connection_pair(hooks=hooks) as (client, server):
        assert hooks.connections == [server, client]
    assert hooks.count("closed") == 2


@virtual
@both_roles
async def test_each_message_of_a_chunk_with_more_than_the_queue_takes_is_told(pair: Pair) -> None:
    hooks = Recorder()
    texts = [str(number) for number in range(100)]
    async with pair(hooks=hooks, max_queue=10) as (ws, peer):
        mask = MASK if peer.masks else None
        await peer.send_bytes(b"".join(frame(TEXT, text.encode(), mask=mask) for text in texts))
        for count in range(1, 101):
            assert await ws.recv() == texts[count - 1]
            told = hooks.count("received")
            assert told == ws.stats.messages_received
        await peer.finish()
    assert [call[1] for call in hooks.calls if call[0] == "received"] == texts


@virtual
@both_roles
async def test_connection_without_hooks_has_nothing_of_them(pair: Pair) -> None:
    async with pair() as (ws, peer):
        assert type(ws) is Connection
        assert type(ws._inbox) is Inbox
        assert ws._link.watcher is None
        await peer.finish()


@virtual
@both_roles
async def test_messages_cost_nothing_where_hooks_are_for_the_beginning_and_the_end(
    pair: Pair,
) -> None:
    closed: list[anyws.Connection] = []

    class Ends(anyws.Hooks):
        def closed(self, ws: anyws.Connection) -> None:
            closed.append(ws)

    async with pair(hooks=Ends()) as (ws, peer):
        assert type(ws) is Connection
        assert type(ws._inbox) is Inbox
        await peer.finish()
    assert closed == [ws]


@virtual
@both_roles
async def test_hooks_that_override_nothing_do_nothing(pair: Pair) -> None:
    async with pair(hooks=anyws.Hooks()) as (ws, peer):
        assert isinstance(ws, anyws.Connection)
        await peer.send(TEXT, b"a")
        assert await ws.recv() == "a"
        async with ws.recv_streaming() as parts:
            await peer.send(TEXT, b"b", fin=False)
            assert await anext(parts) == "b"
        await ws.send("c")
        await ws.send(["d"])
        await peer.finish()
