"""How streams are connected, listened for and wrapped in TLS, and what is left when that fails."""

from __future__ import annotations

import socket
import ssl
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import EndOfStream, create_task_group, fail_after
from anyio.abc import SocketAttribute

from anyws import _transports
from anyws._transports import listen_tcp, listen_unix, open_tcp, open_unix, wrap_tls
from anyws.testing import MemoryStream, memory_stream_pair
from tests.tls import STRANGER, client_context, server_context
from tests.transports import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.abc import ByteStream

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder whose path is short enough for the name of a socket."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture
def free_port() -> Iterator[int]:
    """Give a port that is bound and on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def test_error_says_where_to_when_tcp_is_refused(free_port: int) -> None:
    with fail_after(LIMIT):
        with pytest.raises(OSError, match="refused") as info:
            await open_tcp("127.0.0.1", free_port)
    assert info.value.__notes__ == [f"while connecting to 127.0.0.1 port {free_port}"]


async def test_error_says_where_when_nothing_can_be_listened_for() -> None:
    (listener,) = await listen_tcp("127.0.0.1", 0, backlog=None, reuse_port=False)
    async with listener:
        port = listener.extra(SocketAttribute.local_port)
        with pytest.raises(OSError, match="in use") as info:
            await listen_tcp("127.0.0.1", port, backlog=None, reuse_port=False)
    assert info.value.__notes__ == [f"while listening on 127.0.0.1 port {port}"]


async def test_error_says_where_to_when_there_is_no_unix_socket(folder: Path) -> None:
    path = folder / "socket"
    for argument in (path, str(path)):
        with pytest.raises(FileNotFoundError) as info:
            await open_unix(argument)
        assert info.value.__notes__ == [f"while connecting to {path}"]


async def test_error_says_where_when_there_is_no_folder_for_a_unix_socket(folder: Path) -> None:
    path = folder / "none" / "socket"
    for argument in (path, str(path)):
        with pytest.raises(FileNotFoundError) as info:
            await listen_unix(argument, backlog=None)
        assert info.value.__notes__ == [f"while listening on {path}"]


async def test_all_interfaces_are_listened_on_when_the_host_is_none() -> None:
    with fail_after(LIMIT):
        listeners = await listen_tcp(None, 0, backlog=None, reuse_port=False)
        port = listeners[0].extra(SocketAttribute.local_port)
        async with await open_tcp("127.0.0.1", port):
            pass
        for listener in listeners:
            await listener.aclose()


async def test_port_is_refused_when_it_is_in_use(free_port: int) -> None:
    with pytest.raises(OSError, match="in use"):
        await listen_tcp("127.0.0.1", free_port, backlog=5, reuse_port=False)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SO_REUSEPORT")
async def test_port_is_shared_when_that_is_asked_for() -> None:
    (first,) = await listen_tcp("127.0.0.1", 0, backlog=5, reuse_port=True)
    async with first:
        port = first.extra(SocketAttribute.local_port)
        (second,) = await listen_tcp("127.0.0.1", port, backlog=5, reuse_port=True)
        async with second:
            assert second.extra(SocketAttribute.local_port) == port


async def test_peer_that_has_left_again_is_a_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def dial(*_: object) -> socket.socket:
        await anyio.lowlevel.checkpoint()
        return socket.socket()  # as one is after a reset: not connected

    monkeypatch.setenv("ANYWS_NATIVE_TRANSPORTS", "0")
    monkeypatch.setattr(_transports, "dial_tcp", dial)
    with pytest.raises(ConnectionResetError, match="reset by peer") as info:
        await open_tcp("127.0.0.1", 80)
    assert info.value.__notes__ == ["while connecting to 127.0.0.1 port 80"]


async def test_nothing_is_left_open_when_the_caller_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANYWS_NATIVE_TRANSPORTS", "0")
    for turns in range(20):
        with socket.create_server(("127.0.0.1", 0)) as server:
            opened: list[ByteStream] = []

            async def open_one(port: int, opened: list[ByteStream]) -> None:
                opened.append(await open_tcp("127.0.0.1", port))

            async with create_task_group() as tg:
                tg.start_soon(open_one, server.getsockname()[1], opened)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                tg.cancel_scope.cancel()
            for stream in opened:
                await stream.aclose()
    assert opened


@pytest.mark.parametrize("backlog", [None, 5])
async def test_unix_socket_that_was_left_behind_is_replaced(
    folder: Path, backlog: int | None
) -> None:
    path = folder / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with fail_after(LIMIT):
        (listener,) = await listen_unix(path, backlog=backlog)
        async with listener, await open_unix(path):
            pass


async def test_unix_socket_is_refused_when_it_has_no_folder(folder: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await listen_unix(folder / "missing" / "socket", backlog=None)


# TLS over memory, so in virtual time.


async def check_closed(stream: ByteStream) -> None:
    with pytest.raises(anyio.ClosedResourceError):
        await stream.receive()


@pytest.mark.virtual_time
async def test_stream_is_closed_when_it_ends_within_the_tls_handshake() -> None:
    near, far = memory_stream_pair()
    await far.send_eof()
    with pytest.raises(
        ConnectionResetError, match=r"^connection lost during the TLS handshake$"
    ) as info:
        await wrap_tls(near, server_context(), server_side=True)
    assert isinstance(info.value.__cause__, (EndOfStream, anyio.BrokenResourceError))
    await check_closed(near)


@pytest.mark.virtual_time
async def test_stream_is_closed_when_the_peer_does_not_speak_tls() -> None:
    near, far = memory_stream_pair()
    await far.send(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ssl.SSLError):
        await wrap_tls(near, server_context(), server_side=True)
    await check_closed(near)


@pytest.mark.virtual_time
@pytest.mark.parametrize("hostname", ["localhost", "example.com"])
async def test_stream_is_closed_when_the_certificate_is_refused(hostname: str) -> None:
    near, far = memory_stream_pair()
    context = server_context(by=STRANGER) if hostname == "localhost" else server_context()

    async def serve() -> None:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await wrap_tls(far, context, server_side=True)

    async with create_task_group() as tg:
        tg.start_soon(serve)
        with pytest.raises(ssl.SSLCertVerificationError):
            await wrap_tls(near, client_context(), server_side=False, server_hostname=hostname)
    await check_closed(near)
    await check_closed(far)


class BadlyClosed(MemoryStream):
    """A stream whose end fails."""

    async def aclose(self) -> None:
        await super().aclose()
        raise anyio.BrokenResourceError


@pytest.mark.virtual_time
async def test_error_of_closing_does_not_hide_that_of_tls() -> None:
    near, far = memory_stream_pair()
    await far.send(b"GET / HTTP/1.1\r\n\r\n")
    near.__class__ = BadlyClosed
    with pytest.raises(ssl.SSLError):
        await wrap_tls(near, server_context(), server_side=True)


@pytest.mark.virtual_time
async def test_stream_is_closed_when_the_tls_handshake_is_cancelled() -> None:
    near, _far = memory_stream_pair()
    with anyio.move_on_after(5) as scope:
        await wrap_tls(near, client_context(), server_side=False, server_hostname="localhost")
    assert scope.cancelled_caught
    await check_closed(near)
