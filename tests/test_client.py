"""Connecting: what a client sends, takes for an answer, and raises; RFC 6455 section 4.1."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import sys
from contextlib import ExitStack
from typing import Any

import anyio
import pytest

import anyws
from anyws.testing import memory_stream_pair
from tests.sockets import LIMIT, serving
from tests.wire import Peer

pytestmark = pytest.mark.anyio


# The request.


async def request_of(uri: str = "ws://example.com/chat", **arguments: Any) -> bytes:
    """Give the head of the request that `connect` makes of its arguments."""
    near, far = memory_stream_pair()
    heads = []

    async def serve() -> None:
        heads.append(await Peer(far, masks=False).read_until(b"\r\n\r\n"))
        await far.aclose()

    async with anyio.create_task_group() as tg:
        tg.start_soon(serve)
        with pytest.raises(anyws.InvalidMessage):
            async with anyws.connect(uri, stream=near, **arguments):
                raise AssertionError
    return heads[0]


async def test_request_has_the_fields_of_the_rfc() -> None:
    head = await request_of(compression=None)
    lines = head.split(b"\r\n")
    assert lines[0] == b"GET /chat HTTP/1.1"
    assert b"Host: example.com" in lines
    assert b"Upgrade: websocket" in lines
    assert b"Connection: Upgrade" in lines
    assert b"Sec-WebSocket-Version: 13" in lines
    assert re.search(rb"Sec-WebSocket-Key: [A-Za-z0-9+/]{22}==\r\n", head)
    assert f"User-Agent: Python/3.{sys.version_info.minor}".encode() in head
    for name in (b"Origin", b"Sec-WebSocket-Protocol", b"Sec-WebSocket-Extensions"):
        assert name not in head


async def test_each_request_has_a_key_of_its_own() -> None:
    keys = {re.findall(rb"Sec-WebSocket-Key: (.*)\r\n", await request_of())[0] for _ in range(5)}
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("ws://example.com", b"GET / HTTP/1.1\r\n"),
        ("ws://example.com?a=b", b"GET /?a=b HTTP/1.1\r\n"),
        ("ws://example.com/r%C3%A9/é?q=ü", b"GET /r%C3%A9/%C3%A9?q=%C3%BC HTTP/1.1\r\n"),
        ("ws://example.com:80/", b"\r\nHost: example.com\r\n"),
        ("wss://example.com:443/", b"\r\nHost: example.com\r\n"),
        ("wss://example.com:80/", b"\r\nHost: example.com:80\r\n"),
        ("ws://EXAMPLE.com:8080/", b"\r\nHost: example.com:8080\r\n"),
        ("ws://bücher.example/", b"\r\nHost: xn--bcher-kva.example\r\n"),
        ("ws://[::1]:8080/", b"\r\nHost: [::1]:8080\r\n"),
        ("ws://alice:s%C3%A9same@h/", b"\r\nAuthorization: Basic YWxpY2U6c8Opc2FtZQ==\r\n"),
    ],
)
async def test_request_says_what_the_uri_says(uri: str, line: bytes) -> None:
    assert line in await request_of(uri)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"origin": "https://example.com"}, b"\r\nOrigin: https://example.com\r\n"),
        ({"subprotocols": ["b", "a"]}, b"\r\nSec-WebSocket-Protocol: b, a\r\n"),
        ({"user_agent_header": "robot/1"}, b"\r\nUser-Agent: robot/1\r\n"),
        ({"additional_headers": {"X-A": "1"}}, b"\r\nX-A: 1\r\n"),
        ({"additional_headers": [("X-A", "1"), ("X-A", "2")]}, b"\r\nX-A: 1\r\nX-A: 2\r\n"),
        ({"additional_headers": {"Host": "b.example"}}, b"\r\nHost: b.example\r\n"),
        ({"additional_headers": {"X-A": "é"}}, "\r\nX-A: é\r\n".encode("latin-1")),
        (
            {},
            b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=12\r\n",
        ),
        (
            {"compression": anyws.PerMessageDeflate(server_no_context_takeover=True)},
            b"permessage-deflate; server_no_context_takeover",
        ),
    ],
)
async def test_request_says_what_the_arguments_say(arguments: Any, line: bytes) -> None:
    assert line in await request_of(**arguments)


async def test_user_agent_is_left_out_when_it_is_none() -> None:
    assert b"User-Agent" not in await request_of(user_agent_header=None)


async def test_own_host_takes_the_place_of_ours() -> None:
    head = await request_of(
        additional_headers={"host": "other.example", "authorization": "Bearer x"}
    )
    assert head.lower().count(b"\r\nhost: ") == 1


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"open_timeout": 0}, "open_timeout of 0 seconds is not above 0"),
        ({"ping_interval": 0}, "ping_interval of 0 seconds is not above 0"),
        ({"ping_timeout": 0}, "ping_timeout of 0 seconds is not above 0"),
        ({"close_timeout": -1}, "close_timeout of -1 seconds is not above 0"),
        ({"max_size": -1}, "max_size of -1 bytes is negative"),
        ({"max_queue": 0}, "max_queue of 0 is under 1"),
        ({"read_limit": 0}, "read_limit of 0 is under 1"),
        ({"write_limit": (1, 2)}, "low mark 2 of write_limit"),
        ({"compression": "gzip"}, "compression 'gzip', expected 'deflate'"),
        ({"subprotocols": ["a b"]}, "subprotocol 'a b' is not a token"),
        ({"additional_headers": {"Upgrade": "h2c"}}, "additional_headers cannot have Upgrade"),
        ({"additional_headers": {"X Y": "z"}}, "header name 'X Y' is not a token"),
    ],
)
async def test_bad_argument_is_a_valueerror_of_the_call(arguments: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        anyws.connect("ws://localhost/", **arguments)


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("http://localhost/", "the scheme is not ws, wss or ws"),
        ("localhost:8080", "it does not start with a scheme"),
        ("ws://", "it has no host"),
        ("ws://localhost/#top", "it has a fragment"),
        ("ws://localhost:99999/", "the port is not a number in"),
        ("ws://user:secret@local host/", "must be percent-encoded"),
    ],
)
async def test_bad_uri_is_an_invaliduri_of_the_call(uri: str, text: str) -> None:
    with pytest.raises(anyws.InvalidURI, match=text) as caught:
        anyws.connect(uri)
    assert isinstance(caught.value, ValueError)
    assert "secret" not in str(caught.value)


async def test_ssl_with_a_plain_uri_is_a_valueerror() -> None:
    with pytest.raises(ValueError, match="ssl is given, but ws://localhost/ is not a wss URI"):
        anyws.connect("ws://user:secret@localhost/?token=secret", ssl=ssl.create_default_context())


async def test_connect_cannot_be_awaited() -> None:
    with pytest.raises(TypeError, match=r"use `async with connect.*AsyncExitStack"):
        await anyws.connect("ws://localhost/")  # type: ignore[misc]  # so


async def test_connect_cannot_be_iterated_over() -> None:
    with pytest.raises(TypeError, match=r"async with reconnect\(.*async for ws in session"):
        async for _ in anyws.connect("ws://localhost/"):  # type: ignore[attr-defined]  # so
            pass


async def test_connect_can_be_entered_only_once() -> None:
    connecting = anyws.connect("ws://127.0.0.1:1/")
    with pytest.raises(OSError, match="refused"):
        await connecting.__aenter__()
    with pytest.raises(RuntimeError, match=r"^connect\(\) can be entered only once"):
        await connecting.__aenter__()


async def test_block_that_is_entered_twice_is_called_by_its_own_name() -> None:
    near, far = memory_stream_pair()
    await far.aclose()
    connecting = anyws.wrap_client(near)
    with pytest.raises(anyws.InvalidMessage):
        await connecting.__aenter__()
    with pytest.raises(RuntimeError, match=r"^wrap_client\(\) can be entered only once"):
        await connecting.__aenter__()


async def test_subprotocols_and_extensions_may_be_iterators() -> None:
    async with serving(subprotocols=iter(["chat"])) as server:
        connecting = anyws.connect(
            f"ws://127.0.0.1:{server.port}/",
            subprotocols=iter(["chat"]),  # type: ignore[arg-type]  # so
            extensions=iter([anyws.PerMessageDeflate()]),  # type: ignore[arg-type]  # likewise
            compression=None,
        )
        async with connecting as ws:
            assert ws.subprotocol == "chat"
            assert [it.name for it in ws.extensions] == ["permessage-deflate"]


# No server at all.


async def test_refused_connection_is_an_oserror_that_says_where_to() -> None:
    with (
        anyio.fail_after(LIMIT),
        pytest.raises(OSError, match="refused") as caught,
    ):
        async with anyws.connect("ws://127.0.0.1:1/"):
            raise AssertionError
    assert caught.value.__notes__ == ["while connecting to 127.0.0.1 port 1"]
    assert isinstance(caught.value, ConnectionRefusedError)


async def test_unknown_host_is_an_oserror() -> None:
    with anyio.fail_after(LIMIT), pytest.raises(OSError, match=r"."):
        async with anyws.connect("ws://no-such-host.invalid/"):
            raise AssertionError


# The whole, with our own server.


async def test_client_and_server_talk_over_tcp() -> None:
    async with serving() as server:
        async with anyws.connect(f"ws://localhost:{server.port}/") as ws:
            for message in ("text", b"binary", "x" * 300_000):
                await ws.send(message)
                assert await ws.recv() == message
        assert (ws.close_code, ws.close_reason) == (1000, "")


async def test_redirect_is_followed_over_tcp() -> None:
    def process_request(request: anyws.Request) -> anyws.Response | None:
        if request.path == "/chat":
            return None
        return request.respond(307, headers={"Location": f"http://127.0.0.1:{other.port}/chat"})

    async with (
        serving(process_request=process_request) as server,
        serving(process_request=process_request) as other,
    ):
        async with anyws.connect(f"ws://127.0.0.1:{server.port}/") as ws:
            assert ws.remote_address == ("127.0.0.1", other.port)
            assert ws.path == "/chat"


async def test_records_go_to_the_logger_that_was_given(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.LoggerAdapter(logging.getLogger("robot"), {})

    async def fail() -> None:
        raise LookupError

    async with serving() as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        with pytest.raises(anyws.ConnectionClosedError):
            async with anyws.connect(uri, logger=logger) as ws:
                assert ws.logger is logger
                ws.start_soon(fail)
                await ws.recv()
    assert [record.name for record in caplog.records] == ["robot"]


async def test_many_clients_at_once_each_get_their_echo() -> None:
    async def talk(uri: str, number: int) -> None:
        async with anyws.connect(uri) as ws:
            await ws.send(str(number))
            assert await ws.recv() == str(number)

    async with serving() as server:
        async with anyio.create_task_group() as tg:
            for number in range(30):
                tg.start_soon(talk, f"ws://127.0.0.1:{server.port}/", number)
        assert server.connections == frozenset()


@pytest.mark.skipif(sys.platform != "linux", reason="others queue more than they are told")
async def test_tcp_handshake_that_hangs_is_ended_by_open_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as stack:
        port = server.getsockname()[1]
        for _ in range(3):  # what the queue has no room for waits without an answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        with anyio.fail_after(LIMIT), pytest.raises(TimeoutError, match=r"\(open_timeout\)"):
            async with anyws.connect(f"ws://127.0.0.1:{port}/", open_timeout=0.1):
                raise AssertionError
