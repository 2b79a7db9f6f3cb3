"""What a client takes for the answer to its opening handshake; RFC 6455 section 4.1."""

from __future__ import annotations

import ssl
import tracemalloc
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from anyws.testing import FaultyStream, memory_stream_pair
from tests.sockets import GOOD, answering, loud_records, read_request, scripted_server
from tests.wire import CLOSE, TEXT, Peer, frame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024

END = b"\r\n"


async def connect_to(script: Callable[[Peer], Awaitable[None]], **arguments: Any) -> None:
    """Connect to a literal server, and go at once."""
    async with scripted_server(script) as port:
        async with anyws.connect(f"ws://127.0.0.1:{port}/chat", close_timeout=1, **arguments):
            pass


# Answers that open a connection.


async def test_good_answer_gives_a_connection() -> None:
    async def finish(peer: Peer) -> None:
        await peer.answer_close()

    async with scripted_server(answering(GOOD + b"X-A: b\r\n" + END, then=finish)) as port:
        async with anyws.connect(f"ws://127.0.0.1:{port}/chat?x=y") as ws:
            assert ws.state is anyws.State.OPEN
            assert ws.path == "/chat?x=y"
            assert (ws.request.method, ws.response.status) == ("GET", 101)
            assert ws.response.headers["X-A"] == "b"
            assert (ws.subprotocol, ws.extensions) == (None, ())
            assert ws.remote_address == ("127.0.0.1", port)
            local = ws.local_address
        assert (ws.remote_address, ws.local_address) == (("127.0.0.1", port), local)


@pytest.mark.parametrize(
    "template",
    [
        GOOD.replace(b"websocket", b"WebSocket").replace(b": Upgrade", b": upgrade"),
        GOOD.replace(b": Upgrade", b": keep-alive, Upgrade"),
        GOOD.replace(b"Switching Protocols", b""),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + GOOD,
        GOOD.replace(b"\r\n", b"\n"),
    ],
    ids=["case", "list", "no-reason", "informational", "bare-lf"],
)
async def test_unusual_but_valid_answer_is_accepted(template: bytes) -> None:
    end = END if END in template else b"\n"
    await connect_to(answering(template + end, then=Peer.answer_close))


async def test_answer_that_comes_byte_by_byte_is_accepted() -> None:
    async def script(peer: Peer) -> None:
        _, accept = await read_request(peer)
        data = GOOD.replace(b"ACCEPT", accept) + END + frame(TEXT, b"slow")
        for byte in data:
            await peer.send_bytes(bytes([byte]))
        await peer.answer_close()

    async with scripted_server(script) as port:
        async with anyws.connect(f"ws://127.0.0.1:{port}/") as ws:
            assert await ws.recv() == "slow"


@pytest.mark.behaviour(105)
async def test_frames_in_the_same_segment_as_the_answer_are_delivered() -> None:
    data = GOOD + END + frame(TEXT, b"one") + frame(TEXT, b"two") + frame(CLOSE, b"\x03\xe8")
    async with scripted_server(answering(data, then=Peer.read_frame)) as port:
        async with anyws.connect(f"ws://127.0.0.1:{port}/") as ws:
            assert [message async for message in ws] == ["one", "two"]


async def test_subprotocol_of_the_server_is_taken() -> None:
    data = GOOD + b"Sec-WebSocket-Protocol: b\r\n" + END
    async with scripted_server(answering(data, then=Peer.answer_close)) as port:
        async with anyws.connect(f"ws://127.0.0.1:{port}/", subprotocols=["a", "b"]) as ws:
            assert ws.subprotocol == "b"


# Answers that do not.


REFUSALS: list[tuple[bytes, type[Exception], str]] = [
    (GOOD.replace(b"ACCEPT", b"AAAA"), anyws.InvalidHeader, "invalid Sec-WebSocket-Accept header"),
    (
        GOOD.replace(b"ACCEPT", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        anyws.InvalidHeader,
        "invalid Sec-WebSocket-Accept header: 's3pPLMBiTxaQ9kYGzzhZRbK",
    ),
    (
        GOOD.replace(b"Sec-WebSocket-Accept: ACCEPT\r\n", b""),
        anyws.InvalidHeader,
        "missing Sec-WebSocket-Accept header",
    ),
    (
        GOOD + b"Sec-WebSocket-Accept: ACCEPT\r\n",
        anyws.InvalidHeader,
        "Sec-WebSocket-Accept.*it is given 2 times",
    ),
    (
        GOOD.replace(b"Upgrade: websocket\r\n", b""),
        anyws.InvalidUpgrade,
        "missing Upgrade header",
    ),
    (GOOD.replace(b"websocket", b"h2c"), anyws.InvalidUpgrade, "invalid Upgrade header: 'h2c'"),
    (
        GOOD.replace(b"Connection: Upgrade\r\n", b""),
        anyws.InvalidUpgrade,
        "missing Connection header",
    ),
    (
        GOOD.replace(b": Upgrade", b": close"),
        anyws.InvalidUpgrade,
        "invalid Connection header: 'close'",
    ),
    (
        GOOD + b"Sec-WebSocket-Protocol: chat\r\n",
        anyws.NegotiationError,
        "server chose subprotocol 'chat', it was not offered",
    ),
    (
        GOOD + b"Sec-WebSocket-Extensions: x-other\r\n",
        anyws.NegotiationError,
        "server chose extension 'x-other', it was not offered",
    ),
    (
        GOOD + b"Sec-WebSocket-Extensions: permessage-deflate, permessage-deflate\r\n",
        anyws.NegotiationError,
        "server chose 2 extensions",
    ),
    (
        GOOD + b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7\r\n",
        anyws.NegotiationError,
        "server_max_window_bits",
    ),
    (GOOD + b"Sec-WebSocket-Extensions: ;\r\n", anyws.InvalidHeader, "Sec-WebSocket-Extensions"),
    (GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"), anyws.InvalidMessage, "101 in HTTP/1.0"),
    (b"SSH-2.0-OpenSSH_9.6\r\n", anyws.InvalidMessage, "malformed HTTP response"),
    (b"\x15\x03\x01\x00\x02\x02\x16", anyws.InvalidMessage, "illegal status line"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 9000, anyws.InvalidMessage, "limit of 8192 bytes"),
    (
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200,
        anyws.InvalidMessage,
        "limit of 128 header lines",
    ),
]


@pytest.mark.behaviour(107)
@pytest.mark.parametrize(
    ("template", "error", "text"),
    REFUSALS,
    ids=[f"{i}-{r[2][:30]}" for i, r in enumerate(REFUSALS)],
)
async def test_bad_answer_is_its_error_and_the_socket_is_closed(
    template: bytes,
    error: type[Exception],
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    closed = anyio.Event()

    async def wait_for_close(peer: Peer) -> None:
        try:
            await peer.read_until_eof()
        finally:
            closed.set()

    async with scripted_server(answering(template + END, then=wait_for_close)) as port:
        with pytest.raises(error, match=text) as caught:
            async with anyws.connect(f"ws://127.0.0.1:{port}/"):
                raise AssertionError
        await closed.wait()
    assert type(caught.value) is error
    assert isinstance(caught.value, anyws.InvalidHandshake)
    assert loud_records(caplog) == []


@pytest.mark.behaviour(107)
@pytest.mark.parametrize("status", [200, 204, 300, 400, 401, 404, 426, 429, 500, 503])
async def test_other_status_is_an_invalidstatus_with_fields_and_body(status: int) -> None:
    body = b"" if status == 204 else b"the reason why\n"
    length = b"" if status == 204 else b"Content-Length: 15\r\n"
    answer = b"HTTP/1.1 %d Whatever\r\nX-A: b\r\n" % status + length + END + body
    with pytest.raises(anyws.InvalidStatus) as caught:
        await connect_to(answering(answer))
    response = caught.value.response
    assert (response.status, response.reason, response.body) == (status, "Whatever", body)
    assert response.headers["X-A"] == "b"
    assert str(caught.value) == f"server answered with HTTP {status}, expected 101"


@pytest.mark.parametrize(
    ("kind", "body", "notes"),
    [
        ("text/plain", b"no\x1b page\nand more\n", ["the server says 'no\\x1b page'"]),
        ("text/plain; charset=utf-8", b"x" * 300, [f"the server says {'x' * 200!r}"]),
        ("text/plain", b"", []),
        ("text/html", b"<p>no</p>", []),
    ],
    ids=["line", "long", "empty", "html"],
)
async def test_plain_text_about_a_refusal_is_a_note_of_the_error(
    kind: str, body: bytes, notes: list[str]
) -> None:
    fields = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    with pytest.raises(anyws.InvalidStatus) as caught:
        await connect_to(answering(b"HTTP/1.1 403 No\r\n" + fields.encode() + body))
    assert getattr(caught.value, "__notes__", []) == notes


@pytest.mark.behaviour(107)
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwhy\r\n0\r\n\r\n",
        b"HTTP/1.1 403 No\r\nConnection: close\r\n\r\nwhy",
        b"HTTP/1.0 403 No\r\n\r\nwhy",
        b"HTTP/1.1 403 No\r\nContent-Length: 100\r\n\r\nwhy",
    ],
    ids=["chunked", "until-close", "http-1.0", "cut-short"],
)
async def test_body_is_read_however_it_is_framed(answer: bytes) -> None:
    with pytest.raises(anyws.InvalidStatus) as caught:
        await connect_to(answering(answer, then=lambda peer: peer.stream.send_eof()))
    assert caught.value.response.body == b"why"


@pytest.mark.behaviour(107)
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "connection closed while reading HTTP status line"),
        (b"HTTP/1.1 10", "connection closed while reading HTTP status line"),
        (GOOD, "connection closed while reading HTTP response head"),
    ],
)
async def test_end_before_the_end_of_the_head_is_an_invalidmessage(
    answer: bytes, text: str
) -> None:
    async def script(peer: Peer) -> None:
        _, accept = await read_request(peer)
        if answer:
            await peer.send_bytes(answer.replace(b"ACCEPT", accept))

    with pytest.raises(anyws.InvalidMessage, match=text):
        await connect_to(script)


@pytest.mark.behaviour(107)
async def test_reset_is_an_invalidmessage_with_its_cause() -> None:
    near, _ = memory_stream_pair()
    with pytest.raises(anyws.InvalidMessage, match="connection lost during the opening") as caught:
        async with anyws.wrap_client(FaultyStream(near, reset_after=50)):
            raise AssertionError
    assert isinstance(caught.value.__cause__, anyio.BrokenResourceError)


# Answers without an end, and without a beginning.


@pytest.mark.behaviour(107)
@pytest.mark.parametrize(
    ("begin", "more", "error"),
    [
        (b"", b"x" * 65536, anyws.InvalidMessage),
        (b"HTTP/1.1 101 Switching Protocols\r\nX: ", b"x" * 65536, anyws.InvalidMessage),
        (b"HTTP/1.1 101 Switching Protocols\r\n", b"X: y\r\n" * 10_000, anyws.InvalidMessage),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2000, anyws.InvalidMessage),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536, anyws.InvalidStatus),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            b"x" * 65536,
            anyws.InvalidStatus,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"10000\r\n" + b"x" * 65536 + END,
            anyws.InvalidStatus,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"10\r\n0123456789abcdef\r\n" * 3000,
            anyws.InvalidStatus,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
            b"x" * 65536,
            anyws.InvalidHandshake,
        ),
    ],
    ids=[
        "line",
        "field",
        "fields",
        "informational",
        "body",
        "length",
        "chunks",
        "small-chunks",
        "chunk-extension",
    ],
)
async def test_endless_answer_is_an_error_within_1_mib(
    begin: bytes, more: bytes, error: type[Exception]
) -> None:
    async def script(peer: Peer) -> None:
        await read_request(peer)
        await peer.send_bytes(begin)
        while True:
            await peer.send_bytes(more)

    async with scripted_server(script) as port:
        tracemalloc.start()
        try:
            with pytest.raises(error):
                async with anyws.connect(f"ws://127.0.0.1:{port}/"):
                    raise AssertionError
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < MIB


@pytest.mark.behaviour(107)
async def test_body_of_an_error_is_cut_off_at_64_kib() -> None:
    answer = b"HTTP/1.1 500 Oops\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    with pytest.raises(anyws.InvalidStatus) as caught:
        await connect_to(answering(answer))
    assert caught.value.response.body == b"x" * 65536


@pytest.mark.virtual_time
@pytest.mark.behaviour(107)
@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 101", GOOD],
    ids=["nothing", "line", "head"],
)
async def test_silence_is_a_timeouterror_after_open_timeout(answer: bytes) -> None:
    near, far = memory_stream_pair()
    if answer:
        await far.send(answer)
    started_at = anyio.current_time()
    uri = "ws://alice:secret@example.com:8080/chat?token=secret"
    with pytest.raises(TimeoutError) as caught:
        async with anyws.connect(uri, stream=near, open_timeout=3):
            raise AssertionError
    assert anyio.current_time() - started_at == pytest.approx(3)
    assert str(caught.value) == (
        "no connection to ws://example.com:8080/chat after 3 seconds (open_timeout)"
    )
    with pytest.raises(anyio.BrokenResourceError):
        await far.send(b"x")


@pytest.mark.virtual_time
@pytest.mark.behaviour(107)
async def test_server_that_dribbles_its_answer_is_given_up_after_open_timeout() -> None:
    near, far = memory_stream_pair()

    async def dribble() -> None:
        with pytest.raises(anyio.BrokenResourceError):
            for byte in GOOD * 10:
                await far.send(bytes([byte]))
                await anyio.sleep(0.25)

    started_at = anyio.current_time()
    async with anyio.create_task_group() as tg:
        tg.start_soon(dribble)
        with pytest.raises(TimeoutError):
            async with anyws.wrap_client(near, open_timeout=3):
                raise AssertionError
        assert anyio.current_time() - started_at == pytest.approx(3)


@pytest.mark.virtual_time
async def test_open_timeout_of_none_waits_for_ever() -> None:
    near, _ = memory_stream_pair()
    with anyio.move_on_after(1_000_000) as scope:
        async with anyws.wrap_client(near, open_timeout=None):
            raise AssertionError
    assert scope.cancelled_caught


@pytest.mark.virtual_time
async def test_open_timeout_ends_with_the_opening() -> None:
    near, far = memory_stream_pair()

    async def serve() -> None:
        await answering(GOOD + END, then=Peer.answer_close)(Peer(far, masks=False))

    async with anyio.create_task_group() as tg:
        tg.start_soon(serve)
        async with anyws.wrap_client(near, open_timeout=3, ping_interval=None) as ws:
            await anyio.sleep(100)
            assert ws.open


@pytest.mark.virtual_time
async def test_timeout_of_the_caller_is_not_ours() -> None:
    near, far = memory_stream_pair()
    with pytest.raises(TimeoutError) as caught:
        with anyio.fail_after(1):
            async with anyws.wrap_client(near, open_timeout=3):
                raise AssertionError
    assert "open_timeout" not in str(caught.value)
    with pytest.raises(anyio.BrokenResourceError):
        await far.send(b"x")


async def test_error_of_tls_that_a_stream_made_itself_leaves_as_itself() -> None:
    class Failing(FaultyStream):
        async def receive(self, max_bytes: int = 65536) -> bytes:
            raise error

    error = ssl.SSLError("made in Python, so it has no reason")
    near, far = memory_stream_pair()
    with pytest.raises(ssl.SSLError) as caught:
        async with anyws.wrap_client(Failing(near)):
            raise AssertionError
    assert caught.value is error
    await far.aclose()


# Refusals whose bodies do not end.


@pytest.mark.virtual_time
@pytest.mark.behaviour(107)
async def test_refusal_whose_body_stalls_is_an_invalidstatus_after_open_timeout() -> None:
    near, far = memory_stream_pair()
    await far.send(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nwhy")
    started_at = anyio.current_time()
    with pytest.raises(anyws.InvalidStatus) as caught:
        async with anyws.wrap_client(near, open_timeout=3):
            raise AssertionError
    assert anyio.current_time() - started_at == pytest.approx(3)
    assert (caught.value.response.status, caught.value.response.body) == (403, b"why")
    assert caught.value.problem == "its body did not end within 3 seconds (open_timeout)"
    with pytest.raises(anyio.BrokenResourceError):
        await far.send(b"x")


@pytest.mark.virtual_time
@pytest.mark.behaviour(107)
async def test_refusal_that_is_reset_in_its_body_is_an_invalidstatus() -> None:
    class Breaking(FaultyStream):
        """Breaks where it would wait."""

        answer = b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nwhy"

        async def receive(self, max_bytes: int = 65536) -> bytes:
            if not self.answer:
                raise anyio.BrokenResourceError
            data, self.answer = self.answer, b""
            return data

    near, _ = memory_stream_pair()
    with pytest.raises(anyws.InvalidStatus) as caught:
        async with anyws.wrap_client(Breaking(near)):
            raise AssertionError
    assert (caught.value.response.status, caught.value.response.body) == (403, b"why")
    assert isinstance(caught.value.__cause__, anyio.BrokenResourceError)
