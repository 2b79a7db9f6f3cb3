"""Servers and clients on UNIX sockets, and their URIs."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import TypedAttributeLookupError

import anyws
from tests.blocks import settle
from tests.sockets import LIMIT, echo, loud_records, open_peer
from tests.tls import client_context, server_context
from tests.wire import REQUEST, TEXT, Peer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="Python has no UNIX sockets there"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ws.sock"


async def test_client_and_server_talk_over_a_unix_socket(path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path) as server:
            assert await anyio.Path(path).is_socket()
            assert server.addresses == [str(path)]
            async with anyws.unix_connect(path) as ws:
                assert ws.remote_address == str(path)
                assert ws.path == "/"
                for message in ("hello", b"x" * 300_000):
                    await ws.send(message)
                    assert await ws.recv() == message
            assert ws.close_code == 1000


async def test_path_may_be_a_str(path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, str(path)):
            async with anyws.unix_connect(str(path)) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"


async def test_server_on_a_unix_socket_has_no_port(path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path) as server:
            with pytest.raises(TypedAttributeLookupError):
                _ = server.port


async def test_uri_says_what_the_request_asks_for(path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path):
            async with anyws.unix_connect(path, "ws://example.com/chat?a=b") as ws:
                assert ws.path == "/chat?a=b"
                assert ws.request.headers["Host"] == "example.com"


async def test_arguments_of_connect_and_serve_are_taken(path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path, subprotocols=["chat"], backlog=5):
            async with anyws.unix_connect(path, subprotocols=["chat"]) as ws:
                assert ws.subprotocol == "chat"


async def test_ws_unix_uri_connects_to_the_socket(path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path):
            async with anyws.connect(f"ws+unix://{path}:/chat?a=b") as ws:
                assert ws.path == "/chat?a=b"
                assert ws.request.headers["Host"] == "localhost"
                await ws.send("hello")
                assert await ws.recv() == "hello"


async def test_ws_unix_uri_without_a_resource_asks_for_the_root(path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path):
            async with anyws.connect(f"ws+unix://{path}") as ws:
                assert ws.path == "/"


async def test_path_with_strange_characters_is_escaped_in_a_uri(tmp_path: Path) -> None:
    path = tmp_path / "a b:c%.sock"
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path):
            async with anyws.connect(f"ws+unix://{tmp_path}/a%20b%3Ac%25.sock:/chat") as ws:
                assert ws.path == "/chat"


@pytest.mark.parametrize("way", ["unix_connect", "ws+unix"])
async def test_no_redirect_is_followed_over_a_unix_socket(path: Path, way: str) -> None:
    def process_request(request: anyws.Request) -> anyws.Response:
        return request.respond(302, headers={"Location": "/other"})

    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path, process_request=process_request):
            with pytest.raises(anyws.InvalidStatus, match=r"redirects are not followed$"):
                async with (
                    anyws.unix_connect(path)
                    if way == "unix_connect"
                    else anyws.connect(f"ws+unix://{path}")
                ):
                    raise AssertionError
            # anyio's own stream on asyncio bears no cancellation as the client ends.
            await settle()


async def test_wss_over_a_unix_socket_runs_tls(path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path, ssl=server_context("example.com")):
            async with anyws.unix_connect(path, "wss://example.com/", ssl=client_context()) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"


async def test_missing_socket_is_an_oserror_that_says_which(path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        async with anyws.unix_connect(path):
            raise AssertionError
    assert caught.value.__notes__ == [f"while connecting to {path}"]


async def test_socket_that_nobody_listens_on_is_an_oserror(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    with pytest.raises(ConnectionRefusedError):
        async with anyws.unix_connect(path):
            raise AssertionError


async def test_socket_that_nobody_listens_on_any_more_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path):
            async with anyws.unix_connect(path) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"


async def test_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    await anyio.Path(path).write_text("precious")
    with pytest.raises(OSError, match="in use"):
        async with anyws.unix_serve(echo, path):
            raise AssertionError
    assert await anyio.Path(path).read_text() == "precious"


async def test_server_can_be_started_again_on_its_path(path: Path) -> None:
    with anyio.fail_after(LIMIT):
        for _ in range(2):
            async with anyws.unix_serve(echo, path):
                async with anyws.unix_connect(path) as ws:
                    await ws.send("hello")
                    assert await ws.recv() == "hello"


@pytest.mark.behaviour(28, 91)
async def test_literal_client_is_served_and_the_stream_ends(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path):
            async with await anyio.connect_unix(path) as stream:
                peer = Peer(stream, masks=True)
                await open_peer(peer)
                await peer.send(TEXT, b"hello")
                assert (await peer.read_frame()).payload == b"hello"
                await peer.send_close(1000)
                assert (await peer.read_frame()).code == 1000
                assert await peer.read_until_eof() == b""
            async with await anyio.connect_unix(path) as stream:
                await stream.send(REQUEST)
    assert loud_records(caplog) == []


async def test_unix_connect_cannot_be_awaited(path: Path) -> None:
    with pytest.raises(TypeError, match=r"unix_connect\(\) cannot .* use `async with unix_connect"):
        await anyws.unix_connect(path)  # type: ignore[misc]  # so


async def test_ssl_with_a_ws_unix_uri_is_a_valueerror() -> None:
    with pytest.raises(ValueError, match=r"ws\+unix:///run/a.sock:/chat is not a wss URI"):
        anyws.connect("ws+unix:///run/a.sock:/chat?token=secret", ssl=client_context())


async def test_file_of_the_socket_goes_with_the_server(path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path) as server:
            assert await anyio.Path(path).exists()
            await server.close()
            assert not await anyio.Path(path).exists()


async def test_file_of_the_socket_goes_from_where_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, "ws.sock"):
            monkeypatch.chdir("/")
    assert not await anyio.Path(tmp_path / "ws.sock").exists()


async def test_file_of_the_server_that_came_after_stays(path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path) as server, anyws.unix_serve(echo, path):
            await server.close()
            async with anyws.unix_connect(path) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"


async def test_file_of_the_socket_may_be_gone_before_the_server(path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path):
            await anyio.Path(path).unlink()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has such names")
async def test_abstract_name_needs_no_file() -> None:
    name = f"\0anyws-test-{os.getpid()}"
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, name):
            async with anyws.unix_connect(name) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
