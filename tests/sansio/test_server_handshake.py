"""The server's side of the opening handshake, against literal bytes (RFC 6455 section 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyws._http import Headers, Request, Response
from anyws.exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidOrigin,
    InvalidUpgrade,
    NegotiationError,
)
from anyws.sansio._extensions import Extension, ServerExtension
from anyws.sansio._server_handshake import ServerHandshake

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyws._types import BytesLike
    from anyws.sansio._extensions import Parameter

HEAD = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)
REQUEST = HEAD + b"\r\n"

RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"\r\n"
)


class Shift(Extension):
    """An extension that does nothing."""

    name = "x-shift"

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = parameters

    def wants(self, size: int) -> bool:
        raise NotImplementedError

    def encode(self, payload: BytesLike, *, fin: bool) -> bytes:
        raise NotImplementedError

    def decode(self, payload: BytesLike, max_size: int | None, *, fin: bool) -> bytes:
        raise NotImplementedError


class AcceptShift(ServerExtension):
    """Accepts Shift by a number of bits; an offer without bits is malformed."""

    name = "x-shift"

    def __init__(self, bits: str) -> None:
        self.bits = bits

    def accept_offer(self, parameters: Sequence[Parameter]) -> Extension | None:
        if not parameters:
            raise NegotiationError("offer without bits")
        return Shift(parameters) if parameters == [("bits", self.bits)] else None


def with_lines(*lines: bytes) -> bytes:
    """Add header lines to the request of the RFC."""
    return b"".join([HEAD, *(line + b"\r\n" for line in lines), b"\r\n"])


def parse(server: ServerHandshake, data: bytes) -> Request:
    request = server.receive_data(data)
    assert request is not None
    return request


def answer(data: bytes = REQUEST, **arguments: Any) -> tuple[ServerHandshake, Response]:
    """Let a server answer a request."""
    server = ServerHandshake(server_header=None, **arguments)
    return server, server.accept(parse(server, data))


def parse_error(data: bytes) -> tuple[str, int]:
    """Give problem and status of what is no request."""
    with pytest.raises(InvalidMessage) as caught:
        ServerHandshake().receive_data(data)
    return caught.value.problem, caught.value.status


# The request


def test_the_request_of_the_rfc_is_parsed() -> None:
    request = parse(ServerHandshake(), REQUEST)
    assert (request.method, request.path) == ("GET", "/chat")
    assert list(request.headers.items()) == [
        ("Host", "example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ]


def test_the_request_may_come_byte_by_byte() -> None:
    server = ServerHandshake()
    requests = [server.receive_data(bytes([byte])) for byte in REQUEST]
    assert requests[:-1] == [None] * (len(REQUEST) - 1)
    assert requests[-1] is not None


def test_frames_glued_to_the_request_are_kept() -> None:
    server = ServerHandshake()
    server.receive_data(REQUEST + b"\x81\x80\0\0\0\0\r\n\r\n")
    assert server.trailing_data == b"\x81\x80\0\0\0\0\r\n\r\n"


def test_what_the_client_offers_is_told() -> None:
    request = parse(
        ServerHandshake(),
        with_lines(
            b"Sec-WebSocket-Protocol: a, b",
            b"Sec-WebSocket-Protocol: c",
            b"Origin: https://example.com",
        ),
    )
    assert (request.subprotocols, request.origin) == (("a", "b", "c"), "https://example.com")


def test_nothing_is_told_when_the_client_offers_nothing() -> None:
    request = parse(ServerHandshake(), REQUEST)
    assert (request.subprotocols, request.origin) == ((), None)


@pytest.mark.parametrize(
    "lines", [[b"Sec-WebSocket-Protocol: a b"], [b"Origin: http://a", b"Origin: http://a"]]
)
def test_malformed_fields_are_told_as_missing(lines: list[bytes]) -> None:
    request = parse(ServerHandshake(), with_lines(*lines))
    assert (request.subprotocols, request.origin) == ((), None)


@pytest.mark.parametrize("target", [b"/", b"/a?b=c", b"//a", b"*", b"/%00"])
def test_the_path_is_given_as_it_is_sent(target: bytes) -> None:
    request = parse(ServerHandshake(), b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    assert request.path == target.decode()


def test_a_content_length_of_zero_is_no_body() -> None:
    request = parse(ServerHandshake(), with_lines(b"Content-Length: 0"))
    assert request.headers["Content-Length"] == "0"


@pytest.mark.parametrize(
    ("data", "problem", "status"),
    [
        (b"\x16\x02\x01\x02\x00", "malformed HTTP request: illegal request line", 400),
        (b"\r\n\r\n", "malformed HTTP request: illegal request line", 400),
        (b"junk\r\n\r\n", "malformed HTTP request: illegal request line", 400),
        (b"GET /\r\n\r\n", "malformed HTTP request: illegal request line", 400),
        (b"GET / a HTTP/1.1\r\n\r\n", "malformed HTTP request: illegal request line", 400),
        (b"GET  HTTP/1.1\r\n\r\n", "malformed HTTP request: illegal request line", 400),
        (b"G@T / HTTP/1.1\r\n\r\n", "malformed HTTP request: illegal request line", 400),
        (b"GET /\xe9 HTTP/1.1\r\n\r\n", "malformed HTTP request: illegal request line", 400),
        (b"GET / http/1.1\r\n\r\n", "malformed HTTP request: illegal request line", 400),
        (b"GET / HTTP/1.0\r\n\r\n", "HTTP version 1.0 is not supported, only 1.1", 505),
        (b"GET / HTTP/1.0\n\n", "HTTP version 1.0 is not supported, only 1.1", 505),
        (b"GET / HTTP/3.0\r\n\r\n", "HTTP version 3.0 is not supported, only 1.1", 505),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "HTTP version 2.0 is not supported, only 1.1",
            505,
        ),
        (b"GET / HTTP/1.1\r\n\r\n", "malformed HTTP request: missing mandatory Host: header", 400),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "malformed HTTP request: found multiple Host: headers",
            400,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "malformed HTTP request: Host is not a host and a port",
            400,
        ),
        (
            b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "malformed HTTP request: illegal header line",
            400,
        ),
        (
            b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "malformed HTTP request: continuation line at start of headers",
            400,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nA: b\0\r\n\r\n",
            "malformed HTTP request: control character in the head",
            400,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nA: b\rB: c\r\n\r\n",
            "malformed HTTP request: control character in the head",
            400,
        ),
        (
            with_lines(b"Content-Length: 1"),
            "request with a body: its Content-Length is 1",
            400,
        ),
        (
            with_lines(b"Content-Length: 0", b"Content-Length: 1"),
            "malformed HTTP request: conflicting Content-Length headers",
            400,
        ),
        (
            with_lines(b"Content-Length: -1"),
            "malformed HTTP request: bad Content-Length",
            400,
        ),
        (
            with_lines(b"Transfer-Encoding: chunked"),
            "request with a body: it has a Transfer-Encoding field",
            400,
        ),
        (
            with_lines(b"Transfer-Encoding: gzip"),
            "malformed HTTP request: only Transfer-Encoding: chunked is supported",
            400,
        ),
        (b"GET /" + 8192 * b"a", "request line exceeds the limit of 8192 bytes", 414),
        (
            with_lines(b"A: " + 8192 * b"a"),
            "header line exceeds the limit of 8192 bytes",
            431,
        ),
        (
            with_lines(*5 * [b"A: " + 8000 * b"a"]),
            "request head exceeds the limit of 32768 bytes",
            431,
        ),
        (with_lines(*124 * [b"A: a"]), "request head exceeds the limit of 128 header lines", 431),
    ],
)
def test_what_is_no_request_is_refused(data: bytes, problem: str, status: int) -> None:
    assert parse_error(data) == (problem, status)


@pytest.mark.parametrize(
    "line", [b"HELO mail.example\r\n", b"*1\r\n", b"GET / HTTP/1\n", b"A\r\nB C HTTP/1.1\r\n"]
)
def test_another_protocol_is_told_by_its_first_line(line: bytes) -> None:
    end = line.index(b"\n")
    byte_by_byte, at_once = ServerHandshake(), ServerHandshake()
    for byte in line[:end]:
        assert byte_by_byte.receive_data(bytes([byte])) is None
    for server, data in ((byte_by_byte, line[end : end + 1]), (at_once, line)):
        with pytest.raises(InvalidMessage, match=r"^malformed HTTP request: illegal request line$"):
            server.receive_data(data)


@given(st.binary(max_size=20), st.integers(0, len(REQUEST)), st.integers(0, 20))
def test_any_bytes_are_answered(junk: bytes, place: int, size: int) -> None:
    server = ServerHandshake()
    try:
        request = server.receive_data(REQUEST[:place] + junk + REQUEST[place + size :])
    except InvalidMessage as exc:
        assert server.refuse(exc).status >= 400  # noqa: PT017 - whichever way it goes is right
        return
    if request is not None:
        response = server.accept(request)
        assert (response.status == 101) == (server.error is None)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"G", "connection closed while reading HTTP request line"),
        (REQUEST[:-1], "connection closed while reading HTTP request head"),
    ],
)
def test_the_end_of_the_stream_in_the_request_says_where(data: bytes, problem: str) -> None:
    server = ServerHandshake()
    server.receive_data(data)
    assert server.started
    with pytest.raises(InvalidMessage) as caught:
        server.receive_eof()
    assert caught.value.problem == problem


def test_the_end_of_the_stream_is_no_error_when_nothing_came() -> None:
    server = ServerHandshake()
    server.receive_eof()
    assert not server.started


# The response that opens


def test_the_response_is_that_of_the_rfc() -> None:
    server = ServerHandshake(server_header=None)
    request = parse(server, REQUEST)
    assert server.send_response(server.accept(request), request) == RESPONSE


def test_the_response_has_all_that_is_asked_for() -> None:
    server = ServerHandshake(
        subprotocols=["chat"], extensions=[AcceptShift("1")], server_header="server/1"
    )
    request = parse(
        server,
        with_lines(b"Sec-WebSocket-Protocol: chat", b"Sec-WebSocket-Extensions: x-shift; bits=1"),
    )
    response = server.accept(request)
    response.headers.add("Set-Cookie", "a=1")
    response.headers.add("Set-Cookie", "b=2")
    data = server.send_response(response, request, date="Sun, 06 Nov 1994 08:49:37 GMT")
    assert data == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"Server: server/1\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: chat\r\n"
        b"Sec-WebSocket-Extensions: x-shift; bits=1\r\n"
        b"Set-Cookie: a=1\r\n"
        b"Set-Cookie: b=2\r\n"
        b"\r\n"
    )


def test_there_is_no_error_when_the_request_is_accepted() -> None:
    server, _ = answer()
    assert (server.error, server.subprotocol, server.extension) == (None, None, None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Upgrade: websocket", b"UPGRADE: WebSocket"),
        (b"Upgrade: websocket", b"Upgrade: h2c/1.0, websocket"),
        (b"Connection: Upgrade", b"connection: keep-alive, upgrade"),
        (b"Connection: Upgrade", b"Connection: keep-alive\r\nConnection: UPGRADE"),
        (b"example.com", b"EXAMPLE.com:8000\r\nOrigin: http://example.com:3000"),
    ],
)
def test_an_unusual_request_is_accepted(old: bytes, new: bytes) -> None:
    _, response = answer(REQUEST.replace(old, new))
    assert response.status == 101


# Subprotocols


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [
        (["a", "b"], b"b, a", "a"),
        (["a", "b"], b"c, b", "b"),
        (["a"], b"b", None),
        (["a"], b"A", None),
        ([], b"a", None),
        (None, b"a", None),
    ],
)
def test_the_order_of_the_server_chooses_the_subprotocol(
    ours: list[str] | None, theirs: bytes, chosen: str | None
) -> None:
    server, response = answer(with_lines(b"Sec-WebSocket-Protocol: " + theirs), subprotocols=ours)
    assert server.subprotocol == chosen
    assert response.headers.get("Sec-WebSocket-Protocol") == chosen


def test_no_subprotocol_is_chosen_when_none_is_offered() -> None:
    server, response = answer(subprotocols=["a"])
    assert server.subprotocol is None
    assert "Sec-WebSocket-Protocol" not in response.headers


def test_the_application_can_choose_the_subprotocol() -> None:
    seen = []

    def select(request: Request, offered: Sequence[str]) -> str | None:
        seen.append((request.path, offered))
        return offered[-1]

    server, _ = answer(
        with_lines(b"Sec-WebSocket-Protocol: a, b"), subprotocols=["a"], select_subprotocol=select
    )
    assert server.subprotocol == "b"
    assert seen == [("/chat", ("a", "b"))]


def test_the_application_can_choose_no_subprotocol() -> None:
    server, response = answer(
        with_lines(b"Sec-WebSocket-Protocol: a"), select_subprotocol=lambda _, __: None
    )
    assert server.subprotocol is None
    assert response.status == 101


@pytest.mark.parametrize("chosen", ["b", "a\r\nX-Evil: 1"])
def test_the_application_cannot_choose_what_is_not_offered(chosen: str) -> None:
    with pytest.raises(ValueError, match=r"select_subprotocol chose .* not one of those offered"):
        answer(with_lines(b"Sec-WebSocket-Protocol: a"), select_subprotocol=lambda _, __: chosen)


@pytest.mark.parametrize(
    ("offer", "required", "chosen"),
    [(b"a, b", ["b"], "b"), (b"a, b", ["b", "a"], "b"), (b"a", ("b", "a"), "a")],
)
def test_required_subprotocols_of_a_request_come_before_those_of_the_server(
    offer: bytes, required: Sequence[str], chosen: str
) -> None:
    def select(request: Request, offered: Sequence[str]) -> None:
        raise AssertionError

    server = ServerHandshake(subprotocols=["a"], select_subprotocol=select)
    request = server.receive_data(with_lines(b"Sec-WebSocket-Protocol: " + offer))
    assert request is not None
    request.required_subprotocols = required
    response = server.accept(request)
    assert (response.status, server.subprotocol) == (101, chosen)
    assert response.headers["Sec-WebSocket-Protocol"] == chosen


@pytest.mark.parametrize(
    ("lines", "theirs"),
    [(b"", b"none offered"), (b"Sec-WebSocket-Protocol: c, B\r\n", b"c, B offered")],
)
def test_request_that_offers_no_required_subprotocol_is_refused(
    lines: bytes, theirs: bytes
) -> None:
    server = ServerHandshake(subprotocols=["c"])
    request = server.receive_data(HEAD + lines + b"\r\n")
    assert request is not None
    request.required_subprotocols = ["a", "b"]
    response = server.accept(request)
    assert (response.status, server.subprotocol) == (400, None)
    assert response.body == b"no subprotocol in common: a, b spoken, " + theirs + b"\n"
    assert isinstance(server.error, NegotiationError)


@pytest.mark.parametrize(("required", "error"), [("a", TypeError), (["a, b"], ValueError)])
def test_required_subprotocol_that_is_no_token_is_an_error(
    required: Any, error: type[Exception]
) -> None:
    server = ServerHandshake()
    request = server.receive_data(with_lines(b"Sec-WebSocket-Protocol: a"))
    assert request is not None
    request.required_subprotocols = required
    with pytest.raises(error):
        server.accept(request)


def test_the_application_can_refuse_all_subprotocols() -> None:
    def select(request: Request, offered: Sequence[str]) -> str | None:
        raise NegotiationError("subprotocol chat is needed")

    server, response = answer(select_subprotocol=select)
    assert (response.status, response.body) == (400, b"subprotocol chat is needed\n")
    assert isinstance(server.error, NegotiationError)


# Extensions


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        (b"x-shift; bits=1", "x-shift; bits=1"),
        (b"x-shift; bits=2, x-shift; bits=1", "x-shift; bits=2"),
        (b"x-shift; bits=3, x-shift; bits=1", "x-shift; bits=1"),
        (b"x-shift, x-shift; bits=2", "x-shift; bits=2"),
        (b"foo, x-shift; bits=1, bar", "x-shift; bits=1"),
        (b"x-shift; bits=3", None),
        (b"x-shift", None),
        (b"foo", None),
    ],
)
def test_the_first_acceptable_offer_of_an_extension_wins(offers: bytes, chosen: str | None) -> None:
    server, response = answer(
        with_lines(b"Sec-WebSocket-Extensions: " + offers),
        extensions=[AcceptShift("1"), AcceptShift("2")],
    )
    assert response.headers.get("Sec-WebSocket-Extensions") == chosen
    assert (server.extension is None) == (chosen is None)


def test_an_extension_cannot_answer_with_a_line_break() -> None:
    class Evil(AcceptShift):
        def accept_offer(self, parameters: Sequence[Parameter]) -> Extension | None:
            return Shift([("bits", "1\r\nX-Evil: 1")])

    with pytest.raises(ValueError, match="name or parameter of an extension"):
        answer(with_lines(b"Sec-WebSocket-Extensions: x-shift"), extensions=[Evil("1")])


# The response that refuses


@pytest.mark.parametrize(
    ("old", "new", "status", "error"),
    [
        (b"GET", b"POST", 405, InvalidMessage),
        (b"GET", b"HEAD", 405, InvalidMessage),
        (b"Upgrade: websocket\r\n", b"", 426, InvalidUpgrade),
        (b"Upgrade: websocket", b"Upgrade: h2c", 426, InvalidUpgrade),
        (b"Upgrade: websocket", b"Upgrade: a b", 426, InvalidUpgrade),
        (b"Connection: Upgrade\r\n", b"", 400, InvalidUpgrade),
        (b"Connection: Upgrade", b"Connection: close", 400, InvalidUpgrade),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 400, InvalidHeader),
        (b"Version: 13", b"Version: 13\r\nSec-WebSocket-Version: 13", 400, InvalidHeader),
        (b"Version: 13", b"Version: 8", 426, InvalidHeader),
        (b"Version: 13", b"Version: 13, 8", 426, InvalidHeader),
        (b"Version: 13", b"Version:", 426, InvalidHeader),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", 400, InvalidHeader),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZQ", 400, InvalidHeader),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"\xe9", 400, InvalidHeader),
        (b"Sec-WebSocket-V", b"Sec-WebSocket-Key: a\r\nSec-WebSocket-V", 400, InvalidHeader),
        (b"\r\n\r\n", b"\r\nOrigin: https://evil.com\r\n\r\n", 403, InvalidOrigin),
        (b"\r\n\r\n", b"\r\nOrigin: null\r\n\r\n", 403, InvalidOrigin),
        (b"\r\n\r\n", b"\r\nOrigin: a\r\nOrigin: a\r\n\r\n", 400, InvalidHeader),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: a b\r\n\r\n", 400, InvalidHeader),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol:\r\n\r\n", 400, InvalidHeader),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: a b\r\n\r\n", 400, InvalidHeader),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: ;\r\n\r\n", 400, InvalidHeader),
    ],
)
def test_a_request_that_asks_for_something_else_is_refused(
    old: bytes, new: bytes, status: int, error: type[InvalidHandshake]
) -> None:
    server, response = answer(REQUEST.replace(old, new), subprotocols=["a"])
    assert (response.status, type(server.error)) == (status, error)


@pytest.mark.parametrize(
    ("old", "new", "data"),
    [
        (
            b"GET",
            b"POST",
            (
                b"HTTP/1.1 405 Method Not Allowed\r\n"
                b"Allow: GET\r\n"
                b"Content-Type: text/plain; charset=utf-8\r\n"
                b"Connection: close\r\n"
                b"Content-Length: 23\r\n"
                b"\r\n"
                b"method POST is not GET\n"
            ),
        ),
        (
            b"Upgrade: websocket\r\n",
            b"",
            (
                b"HTTP/1.1 426 Upgrade Required\r\n"
                b"Upgrade: websocket\r\n"
                b"Connection: Upgrade, close\r\n"
                b"Content-Type: text/plain; charset=utf-8\r\n"
                b"Content-Length: 86\r\n"
                b"\r\n"
                b"missing Upgrade header; "
                b"this is a WebSocket server, use a WebSocket client to connect\n"
            ),
        ),
        (
            b"Version: 13",
            b"Version: 8",
            (
                b"HTTP/1.1 426 Upgrade Required\r\n"
                b"Upgrade: websocket\r\n"
                b"Connection: Upgrade, close\r\n"
                b"Sec-WebSocket-Version: 13\r\n"
                b"Content-Type: text/plain; charset=utf-8\r\n"
                b"Content-Length: 66\r\n"
                b"\r\n"
                b"invalid Sec-WebSocket-Version header: '8': the version here is 13\n"
            ),
        ),
        (
            b"\r\n\r\n",
            b"\r\nOrigin: https://evil.com\r\n\r\n",
            (
                b"HTTP/1.1 403 Forbidden\r\n"
                b"Content-Type: text/plain; charset=utf-8\r\n"
                b"Connection: close\r\n"
                b"Content-Length: 131\r\n"
                b"\r\n"
                b"invalid Origin header: 'https://evil.com': it is not allowed; "
                b"to allow it, add 'https://evil.com' to the server's origins argument\n"
            ),
        ),
        (
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            b"",
            (
                b"HTTP/1.1 400 Bad Request\r\n"
                b"Content-Type: text/plain; charset=utf-8\r\n"
                b"Connection: close\r\n"
                b"Content-Length: 33\r\n"
                b"\r\n"
                b"missing Sec-WebSocket-Key header\n"
            ),
        ),
    ],
)
def test_a_refusal_says_what_would_help(old: bytes, new: bytes, data: bytes) -> None:
    server = ServerHandshake(server_header=None)
    request = parse(server, REQUEST.replace(old, new))
    assert server.send_response(server.accept(request), request) == data


@pytest.mark.parametrize(("origin", "status"), [("a.example", 101), ("b.example", 403)])
def test_the_host_of_a_target_in_absolute_form_counts(origin: str, status: int) -> None:
    data = REQUEST.replace(b"GET /", b"GET ws://a.example:80/", 1).replace(
        b"\r\n\r\n", b"\r\nOrigin: http://%b\r\n\r\n" % origin.encode()
    )
    assert b"Host: a.example" not in data
    server = ServerHandshake()
    request = parse(server, data)
    assert request.headers.get_all("Host") == ["a.example:80"]
    assert server.accept(request).status == status


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("ws://a.example/chat?x=/y", "/chat?x=/y"),
        ("http://a.example:80", "/"),
        ("WSS://a.example?x", "/?x"),
        ("/ws://a.example/chat", "/ws://a.example/chat"),
    ],
)
def test_the_path_of_a_target_in_absolute_form_is_what_follows_its_host(
    target: str, path: str
) -> None:
    data = REQUEST.replace(b"GET /chat ", b"GET %b " % target.encode(), 1)
    server = ServerHandshake()
    request = parse(server, data)
    assert request.path == path
    assert server.accept(request).status == 101


@pytest.mark.parametrize("target", ["*", "localhost:80", "chat", "?x", "mailto:a"])
def test_a_target_that_is_neither_a_path_nor_a_uri_is_refused(target: str) -> None:
    data = REQUEST.replace(b"GET /chat ", b"GET %b " % target.encode(), 1)
    server = ServerHandshake()
    response = server.accept(parse(server, data))
    assert (response.status, response.body) == (
        400,
        b"malformed HTTP request: target is neither a path nor a URI\n",
    )


@pytest.mark.parametrize(
    "authority", ["user@b.example", "b.example:80:80", 'b".example', "", ":80"]
)
def test_a_target_whose_authority_is_no_host_is_refused(authority: str) -> None:
    data = REQUEST.replace(b"GET /", b"GET ws://%b/" % authority.encode(), 1)
    with pytest.raises(InvalidMessage, match="target is not of a host and a port"):
        ServerHandshake().receive_data(data)


@pytest.mark.parametrize("origin", ["http://localhost/", "", "localhost"])
def test_no_hint_names_an_origin_that_cannot_be_listed(origin: str) -> None:
    request = REQUEST.replace(b"\r\n\r\n", b"\r\nOrigin: " + origin.encode() + b"\r\n\r\n")
    server = ServerHandshake()
    response = server.accept(parse(server, request))
    assert response.status == 403
    assert response.body == f"invalid Origin header: {origin!r}: it is not allowed\n".encode()


def test_a_missing_origin_is_refused_when_it_is_not_listed() -> None:
    _, response = answer(origins=["https://a.com"])
    assert (response.status, response.body) == (
        403,
        b"missing Origin header; to allow it, add None to the server's origins argument\n",
    )


def test_what_is_no_request_is_answered() -> None:
    server = ServerHandshake(server_header="server/1")
    error = InvalidMessage("HTTP version 1.0 is not supported, only 1.1", 505)
    data = server.send_response(server.refuse(error), None, date="today")
    assert server.error is error
    assert data == (
        b"HTTP/1.1 505 HTTP Version Not Supported\r\n"
        b"Date: today\r\n"
        b"Server: server/1\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Connection: close\r\n"
        b"Content-Length: 44\r\n"
        b"\r\n"
        b"HTTP version 1.0 is not supported, only 1.1\n"
    )


# Encoding


def encode(
    response: Response, method: str | None = "GET", server_header: str | None = None
) -> bytes:
    request = None if method is None else Request(method, "/", Headers())
    return ServerHandshake(server_header=server_header).send_response(response, request)


def test_a_response_of_the_application_is_completed() -> None:
    assert encode(Response(200, "OK", Headers({"Content-Type": "text/json"}), b"{}")) == (
        b"HTTP/1.1 200 OK\r\n"
        b"Content-Type: text/json\r\n"
        b"Connection: close\r\n"
        b"Content-Length: 2\r\n"
        b"\r\n"
        b"{}"
    )


def test_the_default_server_field_tells_python_and_anyws() -> None:
    data = ServerHandshake().send_response(Response(200, "OK"), None)
    assert data.startswith(b"HTTP/1.1 200 OK\r\nServer: Python/3.")
    assert b" anyws/" in data


def test_a_server_field_of_the_application_is_kept() -> None:
    data = encode(Response(200, "OK", Headers({"server": "mine"})), server_header="ours")
    assert data == (
        b"HTTP/1.1 200 OK\r\nserver: mine\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )


def test_the_framing_of_the_application_is_replaced() -> None:
    headers = Headers({"Content-Length": "99", "Transfer-Encoding": "chunked"})
    assert encode(Response(200, "OK", headers, b"abc")) == (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
    )


@pytest.mark.parametrize(
    ("connection", "sent"),
    [
        ("keep-alive", b"Connection: close\r\n"),
        ("Close", b"Connection: close\r\n"),
        ("Upgrade, Keep-Alive, X-A", b"Connection: Upgrade, X-A, close\r\n"),
    ],
)
def test_the_connection_ends_with_the_response(connection: str, sent: bytes) -> None:
    data = encode(Response(200, "OK", Headers({"Connection": connection})))
    assert data == b"HTTP/1.1 200 OK\r\n" + sent + b"Content-Length: 0\r\n\r\n"


def test_a_response_to_head_has_no_body() -> None:
    assert encode(Response(200, "OK", body=b"abc"), "HEAD") == (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n"
    )


def test_a_response_to_no_request_has_a_body() -> None:
    assert encode(Response(200, "OK", body=b"abc"), None) == (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
    )


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_without_content_has_no_body(status: int) -> None:
    assert encode(Response(status, "", body=b"abc")) == (
        b"HTTP/1.1 %d \r\nConnection: close\r\n\r\n" % status
    )


def test_a_response_that_switches_has_no_body_and_stays_open() -> None:
    assert encode(Response(101, "", Headers({"Connection": "Upgrade"}), b"abc")) == (
        b"HTTP/1.1 101 \r\nConnection: Upgrade\r\n\r\n"
    )


def test_encoding_changes_nothing_in_the_response() -> None:
    response = Response(200, "OK", Headers({"Content-Length": "99"}))
    encode(response, server_header="server/1")
    assert response == Response(200, "OK", Headers({"Content-Length": "99"}))


def test_fields_and_reason_are_sent_in_latin_1() -> None:
    assert encode(Response(204, "d\xe9j\xe0", Headers({"A": "\xe9"}))) == (
        b"HTTP/1.1 204 d\xe9j\xe0\r\nA: \xe9\r\nConnection: close\r\n\r\n"
    )


# Arguments


@pytest.mark.parametrize("evil", ["\r", "\n", "\r\nX-Evil: 1", "\0"])
def test_a_line_break_or_a_nul_in_the_date_is_refused(evil: str) -> None:
    with pytest.raises(ValueError, match="value of header 'Date' has a"):
        ServerHandshake().send_response(Response(200, "OK"), None, date="today" + evil)


@pytest.mark.parametrize("evil", ["\r", "\n", "\r\nX-Evil: 1", "\0"])
@pytest.mark.parametrize("name", ["server_header", "subprotocols"])
def test_a_line_break_or_a_nul_is_refused_in_every_argument(name: str, evil: str) -> None:
    arguments: dict[str, Any] = {"server_header": "a" + evil, "subprotocols": ["a" + evil]}
    with pytest.raises(ValueError, match="has a"):
        ServerHandshake(**{name: arguments[name]})


@pytest.mark.parametrize(
    "arguments", [{"origins": "https://a.com"}, {"subprotocols": "chat"}, {"server_header": 1}]
)
def test_an_argument_of_another_type_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="must be"):
        ServerHandshake(**arguments)
