"""Accepting that fails for a while, as it does when file descriptors run out."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import ByteStream, Listener

import anyws
from anyws.testing import memory_stream_pair
from tests.sockets import echo, loud_records, open_peer
from tests.wire import TEXT, Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyio.abc import TaskGroup

pytestmark = pytest.mark.anyio


class FailingListener(Listener[ByteStream]):
    """Raises what it is told, one after the other, between the streams that it accepts."""

    def __init__(self, script: Sequence[Exception | ByteStream]) -> None:
        self._script = list(script)
        self.done = anyio.Event()
        self.times: list[float] = []

    async def serve(
        self, handler: Callable[[ByteStream], Any], task_group: TaskGroup | None = None
    ) -> None:
        assert task_group is not None
        self.times.append(anyio.current_time())
        while self._script:
            step = self._script.pop(0)
            if isinstance(step, Exception):
                raise step
            task_group.start_soon(handler, step)
            await anyio.sleep(0.001)  # so that it is served before the next
        self.done.set()
        await anyio.sleep_forever()

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


def emfile() -> OSError:
    return OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def broken(cause: OSError) -> anyio.BrokenResourceError:
    """Make what trio's listeners raise."""
    error = anyio.BrokenResourceError()
    error.__cause__ = cause
    return error


@pytest.mark.virtual_time
@pytest.mark.behaviour(90, 100)
async def test_accepting_goes_on_after_descriptors_ran_out_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    near, far = memory_stream_pair()
    peer = Peer(far, masks=True)
    listener = FailingListener([emfile(), emfile(), broken(emfile()), near])
    async with anyws.serve(echo, listeners=[listener]) as server:
        await open_peer(peer)
        await peer.send(TEXT, b"alive")
        assert (await peer.read_frame()).payload == b"alive"
        await server.close(grace=0)
    assert loud_records(caplog) == [
        "anyws.server: cannot accept, next try in 0.05 s: OSError(24, 'Too many open files')"
    ]


@pytest.mark.virtual_time
async def test_time_between_tries_doubles_up_to_a_second() -> None:
    listener = FailingListener([emfile() for _ in range(8)])
    async with anyws.serve(echo, listeners=[listener]):
        await listener.done.wait()
    delays = [after - before for before, after in itertools.pairwise(listener.times)]
    assert delays == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1, 1, 1])


@pytest.mark.virtual_time
async def test_next_outage_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    near, _ = memory_stream_pair()
    listener = FailingListener([emfile(), emfile(), near, broken(emfile()), emfile()])
    async with anyws.serve(echo, listeners=[listener]) as server:
        await listener.done.wait()
        await server.close(grace=0)
    assert (
        loud_records(caplog)
        == ["anyws.server: cannot accept, next try in 0.05 s: OSError(24, 'Too many open files')"]
        * 2
    )


@pytest.mark.virtual_time
@pytest.mark.behaviour(91)
async def test_client_that_leaves_before_it_is_accepted_is_not_worth_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = FailingListener([ConnectionAbortedError(), broken(ConnectionAbortedError())])
    async with anyws.serve(echo, listeners=[listener]):
        await listener.done.wait()
    assert loud_records(caplog) == []


@pytest.mark.virtual_time
async def test_other_listeners_accept_meanwhile() -> None:
    near, far = memory_stream_pair()
    peer = Peer(far, masks=True)
    failing = FailingListener([emfile() for _ in range(100)])
    async with anyws.serve(echo, listeners=[failing, FailingListener([near])]) as server:
        await open_peer(peer)
        assert not failing.done.is_set()
        await server.close(grace=0)


@pytest.mark.virtual_time
async def test_server_can_be_closed_while_accepting_fails() -> None:
    listener = FailingListener([emfile() for _ in range(100)])
    async with anyws.serve(echo, listeners=[listener]) as server:
        await anyio.sleep(10.5)
        started_at = anyio.current_time()
        await server.close()
        assert anyio.current_time() == started_at


@pytest.mark.virtual_time
async def test_listener_that_fails_for_good_ends_the_server() -> None:
    with pytest.raises(LookupError, match="a bug"):
        async with anyws.serve(echo, listeners=[FailingListener([LookupError("a bug")])]):
            await anyio.sleep_forever()


@pytest.mark.virtual_time
async def test_group_of_a_listener_leaves_as_itself() -> None:
    bug = LookupError("a bug")
    group = ExceptionGroup("of a listener", [bug])
    with pytest.raises(ExceptionGroup, match="of a listener") as caught:
        async with anyws.serve(echo, listeners=[FailingListener([group])]):
            await anyio.sleep_forever()
    assert caught.value.exceptions == (bug,)  # trio makes a new group of it, of the same class


@pytest.mark.virtual_time
async def test_error_of_the_block_wins_over_that_of_a_listener_which_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(KeyError):
        async with anyws.serve(echo, listeners=[FailingListener([LookupError("a bug")])]):
            try:
                await anyio.sleep_forever()
            finally:
                raise KeyError
    assert loud_records(caplog) == ["anyws.server: server failed"]


class BrokenStream(ByteStream):
    """A stream with bugs."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        raise LookupError("in receive")

    async def send(self, item: bytes) -> None:
        raise LookupError("in send")

    async def send_eof(self) -> None:
        raise LookupError("in send_eof")

    async def aclose(self) -> None:
        raise LookupError("in aclose")


@pytest.mark.virtual_time
@pytest.mark.behaviour(100)
async def test_stream_with_bugs_is_logged_once_and_harms_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    near, far = memory_stream_pair()
    peer = Peer(far, masks=True)
    listener = FailingListener([BrokenStream(), near])
    async with anyws.serve(echo, listeners=[listener], max_connections=1) as server:
        await open_peer(peer)
        await server.close(grace=0)
    assert loud_records(caplog) == ["anyws.server: connection failed"]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert repr(record.exc_info[1]) == "LookupError('in receive')"


SCRIPT = """
    import logging, resource, socket, sys
    import anyio
    import anyws

    logging.basicConfig(format="%(levelname)s %(message)s")

    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async def main():
        async with anyws.serve(echo, "127.0.0.1") as server:
            uri = f"ws://127.0.0.1:{server.port}/"
            async with anyws.connect(uri) as ws:
                await ws.send("before")
                print(await ws.recv())
            for _ in range(30):
                await anyio.lowlevel.checkpoint()  # both ends are closed
            # The client has its descriptor, and none is left for the server's end.
            spare = [socket.socket() for _ in range(10)]
            limit = max(sock.fileno() for sock in spare) + 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            while True:
                try:
                    spare.append(socket.socket())
                except OSError:
                    break
            client = spare.pop()
            client.connect(("127.0.0.1", server.port))
            await anyio.sleep(0.3)
            for sock in spare:
                sock.close()
            stream = await anyio.abc.SocketStream.from_socket(client)
            async with anyws.wrap_client(stream) as ws:
                await ws.send("after")
                print(await ws.recv())

    with_uvloop = {"use_uvloop": True} if sys.argv[1] == "uvloop" else {}
    backend = "trio" if sys.argv[1] == "trio" else "asyncio"
    anyio.run(main, backend=backend, backend_options=with_uvloop)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_real_server_survives_the_lack_of_descriptors(loop: str) -> None:
    script = textwrap.dedent(SCRIPT)
    process = subprocess.run(
        [sys.executable, "-c", script, loop],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert process.stdout.split() == ["before", "after"], process.stderr
    (record,) = process.stderr.splitlines()
    assert record.startswith("ERROR cannot accept, next try in 0.05 s: OSError(24, ")
