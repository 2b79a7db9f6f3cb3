"""Opening handshakes that a server refuses or accepts, in literal bytes: RFC 6455 section 4.2."""

from __future__ import annotations

import itertools
import re
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

import anyws
from tests.endings import background
from tests.sockets import (
    ACCEPT,
    exchange,
    loud_records,
    open_peer,
    parse_answer,
    raw_client,
    serving,
    serving_memory,
)
from tests.wire import MASK, PING, PONG, REQUEST, TEXT, frame

pytestmark = pytest.mark.anyio

END = b"\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
HOST = b"Host: localhost\r\n"
UPGRADE = b"Upgrade: websocket\r\n"
CONNECTION = b"Connection: Upgrade\r\n"
VERSION = b"Sec-WebSocket-Version: 13\r\n"
LINE = b"GET /chat HTTP/1.1\r\n"

REFUSALS = [
    (REQUEST.replace(UPGRADE, b"") + END, 426, b"missing Upgrade header"),
    (REQUEST.replace(UPGRADE, b"Upgrade: h2c\r\n") + END, 426, b"h2c"),
    (REQUEST.replace(UPGRADE, b"Upgrade: @\r\n") + END, 426, b"not a protocol"),
    (REQUEST.replace(KEY, b"") + END, 400, b"missing Sec-WebSocket-Key header"),
    (REQUEST.replace(b"ZQ==", b"Z===") + END, 400, b"16 bytes in base64"),
    (REQUEST.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"AAAA") + END, 400, b"16 bytes in base64"),
    (REQUEST + KEY + END, 400, b"given 2 times"),
    (REQUEST.replace(CONNECTION, b"") + END, 400, b"missing Connection header"),
    (REQUEST.replace(CONNECTION, b"Connection: keep-alive\r\n") + END, 400, b"keep-alive"),
    (REQUEST.replace(HOST, b"") + END, 400, b"missing mandatory Host"),
    (REQUEST.replace(HOST, b"Host: a/b\r\n") + END, 400, b"Host is not a host"),
    (REQUEST + HOST + END, 400, b"Host"),
    (REQUEST.replace(VERSION, b"") + END, 400, b"missing Sec-WebSocket-Version header"),
    (REQUEST.replace(b"Version: 13", b"Version: 8") + END, 426, b"the version here is 13"),
    (REQUEST.replace(b"Version: 13", b"Version: 99999") + END, 426, b"the version here is 13"),
    (REQUEST + VERSION + END, 400, b"given 2 times"),
    (REQUEST + b"Origin: http://localhost\r\n" * 2 + END, 400, b"given 2 times"),
    (REQUEST.replace(b"GET", b"PUT") + END, 405, b"method PUT is not GET"),
    (b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + END, 405, b"method CONNECT is not GET"),
    (REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0") + END, 505, b"HTTP version 1.0"),
    (b"GET / HTTP/1.0\r\n\r\n", 505, b"HTTP version 1.0"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, b"HTTP version 2.0"),
    (REQUEST + b"Content-Length: 6\r\n" + END + b"\x81\x01a\x81\x01b", 400, b"Content-Length is 6"),
    (REQUEST + b"Transfer-Encoding: chunked\r\n" + END, 400, b"Transfer-Encoding"),
    (LINE.replace(b"chat", b"c" * 8200) + HOST + END, 414, b"limit of 8192 bytes"),
    (b"G" * 8200, 414, b"limit of 8192 bytes"),
    (REQUEST + b"Cookie: " + b"c" * 8200 + END + END, 431, b"limit of 8192 bytes"),
    (REQUEST + b"Cookie: " + b"c" * 8200, 431, b"limit of 8192 bytes"),
    (REQUEST + (b"X: " + b"x" * 4096 + END) * 9, 431, b"limit of 32768 bytes"),
    (REQUEST + b"X: y\r\n" * 200 + END, 431, b"limit of 128 header lines"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, b"illegal request line"),
    (b"hello\r\n\r\n", 400, b"malformed HTTP request"),
    (b"\r\n\r\n", 400, b"malformed HTTP request"),
    (LINE + b"Host\r\n\r\n", 400, b"malformed HTTP request"),
    (REQUEST + b"X: a\0b\r\n\r\n", 400, b"control character"),
    (REQUEST + b"Sec-WebSocket-Protocol: a b\r\n\r\n", 400, b"not a token"),
    (REQUEST + b"Sec-WebSocket-Extensions: ;\r\n\r\n", 400, b"Sec-WebSocket-Extensions"),
    (frame(TEXT, b"hello", mask=MASK) + END + END, 400, b"malformed HTTP request"),
]


@pytest.mark.behaviour(104)
@pytest.mark.parametrize(
    ("request_", "status", "text"), REFUSALS, ids=[f"{i}-{r[1]}" for i, r in enumerate(REFUSALS)]
)
async def test_request_is_refused_with_its_status_and_a_short_answer(
    request_: bytes, status: int, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as server:
        answer = await exchange(server.port, request_)
    assert answer.status == status
    assert text in answer.body
    assert b"Traceback" not in answer.body
    assert answer.fields["content-length"] == str(len(answer.body))
    assert answer.fields["content-type"] == "text/plain; charset=utf-8"
    assert "close" in answer.fields["connection"]
    assert len(answer.raw) < 1024
    assert loud_records(caplog) == []


@pytest.mark.behaviour(104)
async def test_another_version_is_told_ours() -> None:
    async with serving() as server:
        answer = await exchange(server.port, REQUEST.replace(b": 13", b": 7") + END)
    assert answer.fields["sec-websocket-version"] == "13"
    assert answer.fields["upgrade"] == "websocket"


@pytest.mark.behaviour(104)
async def test_plain_request_is_told_to_upgrade() -> None:
    async with serving() as server:
        answer = await exchange(server.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.status == 426
    assert answer.fields["upgrade"] == "websocket"
    assert answer.fields["connection"] == "Upgrade, close"
    assert b"use a WebSocket client" in answer.body


@pytest.mark.behaviour(104)
async def test_another_method_is_told_the_one_that_is_allowed() -> None:
    async with serving() as server:
        answer = await exchange(server.port, REQUEST.replace(b"GET", b"DELETE") + END)
    assert answer.fields["allow"] == "GET"


@pytest.mark.behaviour(104)
async def test_head_request_is_answered_without_a_body() -> None:
    async with serving() as server:
        answer = await exchange(server.port, REQUEST.replace(b"GET", b"HEAD") + END)
    assert answer.status == 405
    assert int(answer.fields["content-length"]) > 0
    assert answer.body == b""


@pytest.mark.behaviour(104)
async def test_request_behind_a_refused_one_is_not_answered() -> None:
    async with serving() as server:
        answer = await exchange(server.port, REQUEST.replace(KEY, b"") + END + REQUEST + END)
    assert answer.status == 400
    assert answer.fields["content-length"] == str(len(answer.body))


@pytest.mark.behaviour(104)
async def test_refusals_leave_the_server_alive() -> None:
    async with serving() as server:
        for request, status, _ in REFUSALS[:3]:
            assert (await exchange(server.port, request)).status == status
        async with anyws.connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("still here")
            assert await ws.recv() == "still here"


@pytest.mark.behaviour(104)
async def test_answer_arrives_although_the_client_is_still_sending() -> None:
    # Unread bytes would make the system answer them with a reset, which overtakes the response.
    async with serving() as server, raw_client(server.port) as peer:
        await peer.send_bytes(REQUEST + b"X: " + b"x" * 10_000)
        for _ in range(50):
            await peer.send_bytes(b"x" * 10_000)
        await peer.stream.send_eof()
        answer = parse_answer(await peer.read_until_eof())
    assert answer.status == 431


@pytest.mark.virtual_time
@pytest.mark.behaviour(90, 104)
async def test_client_that_never_stops_sending_is_dropped_soon_after_its_refusal() -> None:
    async with serving_memory() as (_, connect):
        peer = await connect()
        started_at = anyio.current_time()
        with pytest.raises(anyio.BrokenResourceError):
            while True:
                await peer.send_bytes(b"x" * 10_000)
                await anyio.sleep(0.01)
        assert anyio.current_time() - started_at < 3
        assert (await peer.read_until(END)).startswith(b"HTTP/1.1 414 ")


class Firehose(ByteStream):
    """A client that always has something to be read, and ends after a while."""

    def __init__(self) -> None:
        self.chunks = [b"nonsense\r\n\r\n", *[b"x" * 65536] * 1000]

    async def receive(self, max_bytes: int = 65536) -> bytes:
        # Like a socket that is read without waiting.
        if not self.chunks:
            raise anyio.EndOfStream
        return self.chunks.pop(0)

    async def send(self, item: bytes) -> None:
        pass

    async def send_eof(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


@pytest.mark.behaviour(90, 104)
async def test_others_have_their_turn_while_a_client_floods_its_refusal() -> None:
    stream = Firehose()
    seen: list[int] = []

    async def watch() -> None:
        while True:
            seen.append(len(stream.chunks))
            await checkpoint()

    async with background(watch):
        with pytest.raises(anyws.InvalidMessage):
            async with anyws.wrap_server(stream):
                raise AssertionError
    gaps = [before - after for before, after in itertools.pairwise(seen)]
    assert len(seen) > 1
    assert max(gaps) <= 64, "more chunks were read at a stretch"


@pytest.mark.virtual_time
@pytest.mark.behaviour(90, 104)
async def test_client_that_does_not_read_its_refusal_is_dropped_after_open_timeout() -> None:
    async with serving_memory(open_timeout=3) as (_, connect):
        peer = await connect(16)
        started_at = anyio.current_time()
        await peer.send_bytes(b"nonsense\r\n\r\n")
        with pytest.raises(anyio.BrokenResourceError):
            while True:
                await peer.send_bytes(b"x")
                await anyio.sleep(0.1)
        assert anyio.current_time() - started_at < 4.5


@pytest.mark.behaviour(104)
async def test_longest_lines_are_accepted() -> None:
    request = REQUEST.replace(b"/chat", b"/" + b"c" * 8000) + b"Cookie: " + b"c" * 8000 + END
    async with serving() as server, raw_client(server.port) as peer:
        await peer.send_bytes(request + END)
        assert (await peer.read_until(END)).startswith(b"HTTP/1.1 101 ")


@pytest.mark.behaviour(104)
async def test_good_request_is_accepted_with_the_key_of_the_rfc() -> None:
    async with serving() as server, raw_client(server.port) as peer:
        head = await open_peer(peer)
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert UPGRADE in head
    assert CONNECTION in head
    assert ACCEPT in head
    assert re.search(rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", head)
    assert b"Content-Length" not in head


@pytest.mark.behaviour(104)
@pytest.mark.parametrize(
    "request_",
    [
        REQUEST.replace(CONNECTION, b"connection: keep-alive, uPgRaDe\r\n"),
        REQUEST.replace(UPGRADE, b"UPGRADE: WebSocket\r\n"),
        REQUEST + b"Content-Length: 0\r\n",
        REQUEST.replace(b"GET /chat", b"GET http://localhost/chat"),
        REQUEST.replace(b"\r\n", b"\n"),
    ],
    ids=["connection-list", "case", "empty-body", "absolute-form", "bare-lf"],
)
async def test_unusual_but_valid_request_is_accepted(request_: bytes) -> None:
    async with serving() as server, raw_client(server.port) as peer:
        await peer.send_bytes(request_ + (END if END in request_ else b"\n"))
        assert (await peer.read_until(END)).startswith(b"HTTP/1.1 101 ")


# Bytes that are split or joined.


@pytest.mark.behaviour(105)
async def test_frame_in_the_same_segment_as_the_request_is_delivered() -> None:
    async with serving() as server, raw_client(server.port) as peer:
        await peer.send_bytes(REQUEST + END + frame(TEXT, b"early", mask=MASK))
        assert (await peer.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert (await peer.read_frame()).payload == b"early"


@pytest.mark.behaviour(105)
async def test_half_of_a_frame_in_the_same_segment_as_the_request_is_joined_with_the_rest() -> None:
    data = frame(PING, b"early", mask=MASK)
    async with serving() as server, raw_client(server.port) as peer:
        await peer.send_bytes(REQUEST + END + data[:3])
        await peer.read_until(b"\r\n\r\n")
        await peer.send_bytes(data[3:])
        pong = await peer.read_frame()
    assert (pong.opcode, pong.payload) == (PONG, b"early")


@pytest.mark.behaviour(105)
async def test_many_frames_behind_the_request_are_all_delivered() -> None:
    messages = b"".join(frame(TEXT, b"%d" % i, mask=MASK) for i in range(100))
    async with serving() as server, raw_client(server.port) as peer:
        await peer.send_bytes(REQUEST + END + messages)
        await peer.read_until(b"\r\n\r\n")
        assert [(await peer.read_frame()).payload for _ in range(100)] == [
            b"%d" % i for i in range(100)
        ]


@pytest.mark.behaviour(105)
async def test_request_that_comes_byte_by_byte_is_accepted() -> None:
    async with serving() as server, raw_client(server.port) as peer:
        for byte in REQUEST + END + frame(TEXT, b"slow", mask=MASK):
            await peer.send_bytes(bytes([byte]))
        assert (await peer.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert (await peer.read_frame()).payload == b"slow"


@pytest.mark.virtual_time
@pytest.mark.behaviour(105)
async def test_slow_request_is_accepted_within_open_timeout() -> None:
    async with serving_memory(open_timeout=10) as (_, connect):
        peer = await connect()
        await peer.send_bytes(REQUEST)
        await anyio.sleep(9.9)
        await peer.send_bytes(END)
        assert (await peer.read_until(END)).startswith(b"HTTP/1.1 101 ")


@pytest.mark.virtual_time
@pytest.mark.behaviour(98)
async def test_client_that_dribbles_its_handshake_is_dropped_after_open_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving_memory(open_timeout=3) as (_, connect):
        peer = await connect()
        started_at = anyio.current_time()
        with pytest.raises(anyio.BrokenResourceError):
            for byte in REQUEST * 10:
                await peer.send_bytes(bytes([byte]))
                await anyio.sleep(0.25)
        assert 3 <= anyio.current_time() - started_at < 3.5
        assert await peer.read_until_eof() == b""
    assert loud_records(caplog) == []


@pytest.mark.virtual_time
@pytest.mark.behaviour(98)
async def test_silent_client_is_dropped_after_open_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "anyws.server")
    async with serving_memory(open_timeout=3) as (_, connect):
        peer = await connect()
        started_at = anyio.current_time()
        assert await peer.read_until_eof() == b""
        assert anyio.current_time() - started_at == pytest.approx(3)
    assert "no handshake within 3 seconds (a local peer)" in caplog.messages


@pytest.mark.virtual_time
@pytest.mark.behaviour(98)
async def test_client_may_take_any_time_when_open_timeout_is_none() -> None:
    async with serving_memory(open_timeout=None) as (_, connect):
        peer = await connect()
        await peer.send_bytes(REQUEST)
        await anyio.sleep(1000)
        await peer.send_bytes(END)
        assert (await peer.read_until(END)).startswith(b"HTTP/1.1 101 ")


# Clients that leave: ordinary behaviour, of which nobody needs to hear.


@pytest.mark.behaviour(91)
@pytest.mark.parametrize("data", [b"", REQUEST, b"GE"], ids=["probe", "half", "two-bytes"])
async def test_client_that_leaves_during_the_handshake_is_not_worth_a_warning(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as server:
        async with raw_client(server.port) as peer:
            if data:
                await peer.send_bytes(data)
            await peer.stream.send_eof()
            await peer.read_until_eof()
        assert server.connections == frozenset()
    assert loud_records(caplog) == []


# Origins (RFC 6455 section 10.2).


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        (anyws.SAME_HOST, b""),
        (anyws.SAME_HOST, b"Origin: http://localhost\r\n"),
        (anyws.SAME_HOST, b"Origin: https://LOCALHOST:8443\r\n"),
        (["https://example.com"], b"Origin: https://example.com\r\n"),
        ([re.compile(r"https://[a-z]+\.example\.com")], b"Origin: https://a.example.com\r\n"),
        (["https://example.com", None], b""),
        ("*", b"Origin: https://evil.example\r\n"),
        ("*", b""),
    ],
)
@pytest.mark.virtual_time
async def test_origin_is_allowed(origins: Any, origin: bytes) -> None:
    async with serving_memory(origins=origins) as (_, connect):
        await open_peer(await connect(), origin)


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        (anyws.SAME_HOST, b"Origin: https://evil.example\r\n"),
        (anyws.SAME_HOST, b"Origin: null\r\n"),
        (anyws.SAME_HOST, b"Origin: http://localhost.evil.example\r\n"),
        (["https://example.com"], b""),
        (["https://example.com"], b"Origin: http://example.com\r\n"),
        ([re.compile(r"https://[a-z]+\.example\.com")], b"Origin: https://a.example.com.evil\r\n"),
        ([], b"Origin: http://localhost\r\n"),
    ],
)
async def test_other_origin_gets_403_with_a_hint(origins: Any, origin: bytes) -> None:
    async with serving(origins=origins) as server:
        answer = await exchange(server.port, REQUEST + origin + END)
    assert answer.status == 403
    assert b"origins argument" in answer.body
