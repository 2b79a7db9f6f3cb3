"""What tests of endings share: both roles, elapsed time, and peers that do not end as they should.

Owns no frame and no clock (see `wire` and `clocks`).
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVarTuple

import anyio
import pytest

import anyws
from anyws.testing import MemoryListener
from tests.wire import CLOSE, REQUEST, TEXT, Frame, Peer, client_and_peer, server_and_peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator

    Pair = Callable[..., AbstractAsyncContextManager[tuple[anyws.Connection, Peer]]]
    Misbehaviour = Callable[[Peer], Coroutine[Any, Any, object]]

_Args = TypeVarTuple("_Args")

both_roles = pytest.mark.parametrize(
    "pair",
    [pytest.param(client_and_peer, id="client"), pytest.param(server_and_peer, id="server")],
)


@contextmanager
def takes(seconds: float) -> Iterator[None]:
    """See that the block takes exactly so long, in virtual time."""
    start = anyio.current_time()
    yield
    elapsed = anyio.current_time() - start
    assert elapsed == pytest.approx(seconds), f"took {elapsed} seconds, expected {seconds}"


@asynccontextmanager
async def background(
    func: Callable[[*_Args], Coroutine[Any, Any, object]], *args: *_Args
) -> AsyncGenerator[None, None]:
    """Run a task beside the block, which ends it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(func, *args)
        yield
        tasks.cancel_scope.cancel()


async def never_reads(peer: Peer) -> None:
    """Leave everything where it is."""
    await anyio.sleep_forever()


async def never_answers(peer: Peer) -> None:
    """Read all that comes."""
    await peer.read_until_eof()


async def never_ends(peer: Peer) -> None:
    """Answer the Close frame, and keep TCP."""
    while (close := await peer.read_frame()).opcode != CLOSE:
        pass
    await peer.send(CLOSE, close.payload)
    await peer.read_until_eof()


async def floods(peer: Peer) -> None:
    """Send messages all the time, and read nothing."""
    try:
        while True:
            await peer.send(TEXT, b"x" * 1000)
            await anyio.sleep(0.1)
    except anyio.BrokenResourceError:
        pass  # the other end is gone at last


async def read_closes(peer: Peer) -> list[Frame]:
    """Read up to the end of the stream, and give the Close frames."""
    closes = []
    try:
        while True:
            frame = await peer.read_frame()
            if frame.opcode == CLOSE:
                closes.append(frame)
    except anyio.EndOfStream:
        return closes


async def closes_well(peer: Peer) -> Frame:
    """Read up to the Close frame, answer it, and end TCP after the server; give the Close frame."""
    close = await peer.answer_close()
    await peer.read_until_eof()
    await peer.finish()
    return close


@asynccontextmanager
async def peer_of_handler(
    handler: Callable[[anyws.Connection], Coroutine[Any, Any, None]], **arguments: Any
) -> AsyncGenerator[Peer, None]:
    """Serve in memory, and give the literal client of one connection."""
    listener = MemoryListener()
    async with anyws.serve(handler, listeners=[listener], compression=None, **arguments):
        async with await listener.connect() as stream:
            await stream.send(REQUEST + b"\r\n")
            peer = Peer(stream, masks=True)
            await peer.read_until(b"\r\n\r\n")
            yield peer


async def fails_to_receive(ws: anyws.Connection) -> anyws.ConnectionClosed:
    """Give the error that recv() raises."""
    with pytest.raises(anyws.ConnectionClosed) as caught:
        await ws.recv()
    return caught.value
