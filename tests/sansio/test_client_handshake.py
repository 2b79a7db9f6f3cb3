"""The client's side of the opening handshake, against literal bytes (RFC 6455 section 4.1)."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyws._http import Headers
from anyws.exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
)
from anyws.sansio._client_handshake import ClientHandshake
from anyws.sansio._extensions import ClientExtension, Extension
from anyws.sansio._uri import WebSocketURI, parse_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyws._http import Response
    from anyws._types import BytesLike
    from anyws.sansio._extensions import Parameter

URI = parse_uri("ws://example.com/chat")
KEY = b"the sample nonce"

REQUEST = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)

HEAD = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
)
RESPONSE = HEAD + b"\r\n"

EVIL = ["\r", "\n", "\r\nX-Evil: 1", "\0"]


class Shift(Extension):
    """An extension that agrees to everything and does nothing."""

    name = "x-shift"

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = parameters

    def wants(self, size: int) -> bool:
        raise NotImplementedError

    def encode(self, payload: BytesLike, *, fin: bool) -> bytes:
        raise NotImplementedError

    def decode(self, payload: BytesLike, max_size: int | None, *, fin: bool) -> bytes:
        raise NotImplementedError


class OfferShift(ClientExtension):
    """Offers Shift by a number of bits, and accepts that number alone."""

    name = "x-shift"

    def __init__(self, bits: str | None = None) -> None:
        self.bits = bits

    def offer(self) -> Sequence[Parameter]:
        return [("bits", self.bits)]

    def accept_answer(self, parameters: Sequence[Parameter]) -> Extension:
        if parameters != [("bits", self.bits)]:
            raise NegotiationError(f"answer to bits={self.bits} is {parameters}")
        return Shift(parameters)


def handshake(**arguments: Any) -> ClientHandshake:
    """Make a handshake whose request was sent."""
    client = ClientHandshake(URI, key=KEY, **arguments)
    client.data_to_send()
    return client


def lines_of(client: ClientHandshake) -> list[bytes]:
    return client.data_to_send().split(b"\r\n")


def open_with(client: ClientHandshake, *lines: bytes) -> Response | None:
    return client.receive_data(b"".join([HEAD, *(line + b"\r\n" for line in lines), b"\r\n"]))


# The request


def test_the_request_is_that_of_the_rfc() -> None:
    assert ClientHandshake(URI, key=KEY, user_agent=None).data_to_send() == REQUEST


def test_the_request_is_given_once() -> None:
    client = ClientHandshake(URI)
    client.data_to_send()
    assert client.data_to_send() == b""


def test_the_request_has_all_that_is_asked_for() -> None:
    client = ClientHandshake(
        parse_uri("wss://Aladdin:open%20sesame@[::1]:8443/chat?room=1"),
        key=KEY,
        origin="https://example.com",
        subprotocols=["chat", "superchat"],
        extensions=[OfferShift("1"), OfferShift()],
        additional_headers=[("Cookie", "a=1"), ("X-A", "1"), ("X-A", "\xe9")],
        user_agent="agent/1",
    )
    assert client.data_to_send() == (
        b"GET /chat?room=1 HTTP/1.1\r\n"
        b"Host: [::1]:8443\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: chat, superchat\r\n"
        b"Sec-WebSocket-Extensions: x-shift; bits=1, x-shift; bits\r\n"
        b"Origin: https://example.com\r\n"
        b"Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"
        b"User-Agent: agent/1\r\n"
        b"Cookie: a=1\r\n"
        b"X-A: 1\r\n"
        b"X-A: \xe9\r\n"
        b"\r\n"
    )


def test_the_user_agent_tells_python_and_anyws() -> None:
    (line,) = [line for line in lines_of(ClientHandshake(URI)) if line.startswith(b"User-Agent")]
    assert line.startswith(b"User-Agent: Python/3.")
    assert line.partition(b" anyws/")[2][:1].isdigit()


def test_the_key_is_another_each_time() -> None:
    one, other = ClientHandshake(URI), ClientHandshake(URI)
    assert one.request.headers["Sec-WebSocket-Key"] != other.request.headers["Sec-WebSocket-Key"]


def test_no_subprotocols_leave_the_field_out() -> None:
    assert "Sec-WebSocket-Protocol" not in handshake(subprotocols=[]).request.headers


def test_the_request_is_told() -> None:
    request = handshake(origin="https://a.com", subprotocols=["chat"]).request
    assert (request.method, request.path, request.origin, request.subprotocols) == (
        "GET",
        "/chat",
        "https://a.com",
        ("chat",),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "proxy.example"),
        ("hOST", "proxy.example"),
        ("Origin", "https://b.com"),
        ("Authorization", "Bearer token"),
        ("User-Agent", "agent/1"),
    ],
)
def test_an_additional_header_takes_the_place_of_ours(name: str, value: str) -> None:
    client = ClientHandshake(
        parse_uri("ws://user:password@example.com/"),
        origin="https://a.com",
        additional_headers={name: value},
    )
    sent = [line for line in lines_of(client) if line.lower().startswith(name.lower().encode())]
    assert sent == [f"{name}: {value}".encode()]


def test_an_additional_origin_is_told() -> None:
    client = ClientHandshake(URI, additional_headers={"Origin": "https://b.com"})
    assert client.request.origin == "https://b.com"


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("Sec-WebSocket-Protocol", "pass subprotocols instead"),
        ("sec-websocket-extensions", "pass extensions instead"),
        ("Sec-WebSocket-Key", "the handshake sets it"),
        ("Sec-WebSocket-Version", "the handshake sets it"),
        ("Sec-WebSocket-Accept", "the handshake sets it"),
        ("Upgrade", "the handshake sets it"),
        ("Connection", "the handshake sets it"),
        ("Content-Length", "the request has no body"),
        ("Transfer-Encoding", "the request has no body"),
    ],
)
def test_fields_of_the_handshake_are_no_additional_headers(name: str, instead: str) -> None:
    with pytest.raises(ValueError, match=f"additional_headers cannot have {name}: {instead}"):
        ClientHandshake(URI, additional_headers={name: "1"})


def test_two_hosts_are_refused() -> None:
    with pytest.raises(ValueError, match="Found multiple Host"):
        ClientHandshake(URI, additional_headers=[("Host", "a"), ("Host", "b")])


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(lambda evil: {"origin": "https://a" + evil}, id="origin"),
        pytest.param(lambda evil: {"subprotocols": ["a" + evil]}, id="subprotocols"),
        pytest.param(lambda evil: {"extensions": [OfferShift("1" + evil)]}, id="extensions"),
        pytest.param(lambda evil: {"additional_headers": {"A": "a" + evil}}, id="header value"),
        pytest.param(lambda evil: {"additional_headers": {"A" + evil: "a"}}, id="header name"),
        pytest.param(lambda evil: {"user_agent": "a" + evil}, id="user_agent"),
        pytest.param(lambda evil: {"uri": replace(URI, host="a" + evil)}, id="host"),
        pytest.param(lambda evil: {"uri": replace(URI, path="/a" + evil)}, id="path"),
        pytest.param(lambda evil: {"uri": replace(URI, query="a" + evil)}, id="query"),
        pytest.param(lambda evil: {"uri": replace(URI, user_info=(evil, ""))}, id="user"),
        pytest.param(lambda evil: {"uri": replace(URI, user_info=("", evil))}, id="password"),
    ],
)
def test_a_line_break_or_a_nul_is_refused_in_every_argument(arguments: Any, evil: str) -> None:
    with pytest.raises(ValueError, match=r"has a (line break|NUL|control|colon)|Illegal target"):
        ClientHandshake(**{"uri": URI, **arguments(evil)})


def test_the_path_must_be_ascii() -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        ClientHandshake(WebSocketURI(secure=False, host="h", port=80, path="/\xe9"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"origin": b"https://a.com"},
        {"subprotocols": "chat"},
        {"subprotocols": [1]},
        {"additional_headers": {"A": 1}},
        {"additional_headers": "A: 1"},
        {"user_agent": 1},
        {"key": "the sample nonce"},
    ],
)
def test_an_argument_of_another_type_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="must be"):
        ClientHandshake(URI, **arguments)


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="key of 3 bytes does not have 16 bytes"):
        ClientHandshake(URI, key=b"abc")


# The response that opens


def test_the_response_of_the_rfc_is_accepted() -> None:
    response = handshake().receive_data(RESPONSE)
    assert response is not None
    assert (response.status, response.reason) == (101, "Switching Protocols")
    assert response.headers == Headers(
        {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        }
    )


def test_nothing_is_agreed_on_when_the_response_does_not_say_so() -> None:
    client = handshake(subprotocols=["chat"], extensions=[OfferShift()])
    client.receive_data(RESPONSE)
    assert (client.subprotocol, client.extension, client.trailing_data) == (None, None, b"")


def test_the_response_may_come_byte_by_byte() -> None:
    client = handshake()
    responses = [client.receive_data(bytes([byte])) for byte in RESPONSE]
    assert [response is not None for response in responses] == [False] * 128 + [True]


def test_frames_glued_to_the_response_are_kept() -> None:
    client = handshake()
    client.receive_data(RESPONSE + b"\x81\x05Hello\r\n\r\n")
    assert client.trailing_data == b"\x81\x05Hello\r\n\r\n"


def test_many_frames_glued_to_the_response_are_kept() -> None:
    client = handshake()
    client.receive_data(RESPONSE + 100_000 * b"\x81\x00")
    assert client.trailing_data == 100_000 * b"\x81\x00"


def test_case_does_not_matter_in_the_response() -> None:
    response = handshake().receive_data(
        b"HTTP/1.1 101\r\n"
        b"UPGRADE: WebSocket\r\n"
        b"CONNECTION: keep-alive, UPGRADE\r\n"
        b"SEC-WEBSOCKET-ACCEPT:\ts3pPLMBiTxaQ9kYGzzhZRbK+xOo= \r\n\r\n"
    )
    assert response is not None
    assert response.status == 101


def test_interim_responses_are_skipped() -> None:
    response = handshake().receive_data(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + RESPONSE
    )
    assert response is not None
    assert response.status == 101


def test_interim_responses_may_come_byte_by_byte() -> None:
    client = handshake()
    data = b"HTTP/1.1 100 Continue\r\n\r\n" + RESPONSE
    responses = [client.receive_data(bytes([byte])) for byte in data]
    assert responses[-1] is not None
    assert responses[-1].status == 101


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_endless_interim_responses_are_refused(size: int) -> None:
    client = handshake()
    data = 2000 * b"HTTP/1.1 100 Continue\r\n\r\n"
    with pytest.raises(InvalidMessage, match="response head exceeds the limit of 32768 bytes"):
        for start in range(0, len(data), size):
            client.receive_data(data[start : start + size])


def test_the_subprotocol_is_told() -> None:
    client = handshake(subprotocols=["chat", "superchat"])
    open_with(client, b"Sec-WebSocket-Protocol: superchat")
    assert client.subprotocol == "superchat"


def test_the_extension_is_told() -> None:
    client = handshake(extensions=[OfferShift("1")])
    open_with(client, b"Sec-WebSocket-Extensions: x-shift; bits=1")
    assert client.extension is not None
    assert client.extension.parameters == [("bits", "1")]


def test_the_extension_is_that_of_the_offer_which_takes_the_answer() -> None:
    client = handshake(extensions=[OfferShift("1"), OfferShift("2")])
    open_with(client, b"Sec-WebSocket-Extensions: x-shift; bits=2")
    assert client.extension is not None
    assert client.extension.parameters == [("bits", "2")]


# The response that does not open


@pytest.mark.parametrize(
    ("line", "replacement", "error", "name", "value"),
    [
        (b"Upgrade: websocket\r\n", b"", InvalidUpgrade, "Upgrade", None),
        (b"Upgrade: websocket", b"Upgrade: h2c", InvalidUpgrade, "Upgrade", "h2c"),
        (
            b"Upgrade: websocket",
            b"Upgrade: h2c, websocket",
            InvalidUpgrade,
            "Upgrade",
            "h2c, websocket",
        ),
        (b"Connection: Upgrade\r\n", b"", InvalidUpgrade, "Connection", None),
        (b"Connection: Upgrade", b"Connection: close", InvalidUpgrade, "Connection", "close"),
        (b"Connection: Upgrade", b"Connection: a b", InvalidUpgrade, "Connection", "a b"),
        (
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
            b"",
            InvalidHeader,
            "Sec-WebSocket-Accept",
            None,
        ),
        (
            b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            b"S3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            InvalidHeader,
            "Sec-WebSocket-Accept",
            "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        ),
        (
            b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Accept: 1",
            InvalidHeader,
            "Sec-WebSocket-Accept",
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=, 1",
        ),
    ],
)
def test_a_response_that_does_not_switch_is_refused(
    line: bytes, replacement: bytes, error: type[InvalidHeader], name: str, value: str | None
) -> None:
    with pytest.raises(error) as caught:
        handshake().receive_data(RESPONSE.replace(line, replacement))
    assert (type(caught.value), caught.value.name, caught.value.value) == (error, name, value)


@pytest.mark.parametrize("value", [b"chat", b"a, a", b"a, b", b""])
def test_a_subprotocol_that_was_not_offered_is_refused(value: bytes) -> None:
    with pytest.raises(NegotiationError, match="it was not offered"):
        open_with(handshake(subprotocols=["a", "b"]), b"Sec-WebSocket-Protocol: " + value)


def test_a_subprotocol_is_refused_when_none_was_offered() -> None:
    with pytest.raises(NegotiationError, match="server chose subprotocol 'chat'"):
        open_with(handshake(), b"Sec-WebSocket-Protocol: chat")


def test_a_doubled_subprotocol_is_refused() -> None:
    with pytest.raises(InvalidHeader, match="it is given 2 times"):
        open_with(
            handshake(subprotocols=["a"]),
            b"Sec-WebSocket-Protocol: a",
            b"Sec-WebSocket-Protocol: a",
        )


def test_an_extension_that_was_not_offered_is_refused() -> None:
    with pytest.raises(NegotiationError, match="server chose extension 'foo', it was not offered"):
        open_with(handshake(extensions=[OfferShift()]), b"Sec-WebSocket-Extensions: foo")


def test_an_extension_with_wrong_parameters_is_refused() -> None:
    with pytest.raises(NegotiationError, match="answer to bits=1 is"):
        open_with(
            handshake(extensions=[OfferShift("1")]), b"Sec-WebSocket-Extensions: x-shift; bits=2"
        )


@pytest.mark.parametrize(
    "lines",
    [
        [b"Sec-WebSocket-Extensions: x-shift; bits=1, x-shift; bits=1"],
        [b"Sec-WebSocket-Extensions: x-shift; bits=1"] * 2,
    ],
)
def test_two_extensions_are_refused(lines: list[bytes]) -> None:
    with pytest.raises(NegotiationError, match="server chose 2 extensions"):
        open_with(handshake(extensions=[OfferShift("1")]), *lines)


def test_malformed_extensions_are_refused() -> None:
    with pytest.raises(InvalidHeader, match="invalid Sec-WebSocket-Extensions header: ';'"):
        open_with(handshake(), b"Sec-WebSocket-Extensions: ;")


@pytest.mark.parametrize("version", [b"1.0", b"2.0"])
def test_another_version_of_http_cannot_switch(version: bytes) -> None:
    with pytest.raises(InvalidMessage, match=r"not HTTP/1\.1$"):
        handshake().receive_data(RESPONSE.replace(b"HTTP/1.1", b"HTTP/" + version))


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"HTTP/1.1 1O1 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 101 OK\r\nA b: c\r\n\r\n",
        b"HTTP/1.1 101 OK\r\nA\r\n\r\n",
        b"HTTP/1.1 101 OK\r\nA: \x01\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessage, match="malformed HTTP response: "):
        handshake().receive_data(data)


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.6\r\n", b"220 mail.example", b"HTTX"])
def test_another_protocol_is_told_by_its_beginning(data: bytes) -> None:
    with pytest.raises(InvalidMessage, match=r"^malformed HTTP response: illegal status line$"):
        handshake().receive_data(data)


def test_beginning_of_a_status_line_is_waited_for() -> None:
    assert handshake().receive_data(b"HTTP") is None


@given(st.binary(max_size=20), st.integers(0, len(RESPONSE)), st.integers(0, 20))
def test_any_bytes_are_a_response_or_an_error(junk: bytes, place: int, size: int) -> None:
    try:
        response = handshake().receive_data(RESPONSE[:place] + junk + RESPONSE[place + size :])
    except InvalidHandshake:
        return
    assert response is None or response.status == 101


def test_an_endless_head_is_refused_within_the_limit() -> None:
    client = handshake()
    with pytest.raises(InvalidMessage, match="response head exceeds the limit of 32768 bytes"):
        client.receive_data(b"HTTP/1.1 101 OK\r\n" + 100 * (b"A: " + 1000 * b"a" + b"\r\n"))


# The response that refuses


def refusal(client: ClientHandshake, data: bytes) -> Response:
    with pytest.raises(InvalidStatus) as caught:
        client.receive_data(data)
    return caught.value.response


def test_a_refusal_has_status_headers_and_body() -> None:
    response = refusal(
        handshake(), b"HTTP/1.1 403 Nope\r\nContent-Length: 5\r\nA: \xe9\r\n\r\nsorryrest"
    )
    assert (response.status, response.reason, response.headers["A"], response.body) == (
        403,
        "Nope",
        "\xe9",
        b"sorry",
    )


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_refusal_without_a_body_is_complete_at_once(data: bytes) -> None:
    assert refusal(handshake(), data).body == b""


def test_a_chunked_body_is_joined() -> None:
    head = b"HTTP/1.1 500 \r\nTransfer-Encoding: chunked\r\n\r\n"
    data = b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\nA: b\r\n\r\n"
    assert refusal(handshake(), head + data).body == b"abc"


def test_a_refusal_may_come_byte_by_byte() -> None:
    client = handshake()
    data = b"HTTP/1.1 500 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    assert [client.receive_data(bytes([byte])) for byte in data[:-1]] == [None] * (len(data) - 1)
    assert refusal(client, data[-1:]).body == b"abc"


@pytest.mark.parametrize("size", [1, 1000])
def test_a_body_of_bad_chunks_is_given_as_far_as_it_is_good(size: int) -> None:
    data = b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n"
    client = handshake()
    with pytest.raises(InvalidStatus) as caught:
        for start in range(0, len(data), size):
            client.receive_data(data[start : start + size])
    assert (caught.value.response.status, caught.value.response.body) == (401, b"abc")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_body_without_a_length_ends_with_the_stream(version: bytes) -> None:
    client = handshake()
    assert client.receive_data(b"HTTP/" + version + b" 502 \r\n\r\nbad gate") is None
    assert client.receive_data(b"way") is None
    with pytest.raises(InvalidStatus) as caught:
        client.receive_eof()
    assert caught.value.response.body == b"bad gateway"


def test_a_body_that_is_cut_short_is_given_as_it_came() -> None:
    client = handshake()
    client.receive_data(b"HTTP/1.1 502 \r\nContent-Length: 100\r\n\r\nbad gateway")
    with pytest.raises(InvalidStatus) as caught:
        client.receive_eof()
    assert caught.value.response.body == b"bad gateway"


@pytest.mark.parametrize("size", [1000, 1_000_000])
@pytest.mark.parametrize("head", [b"", b"Content-Length: 65536\r\n", b"Content-Length: 900000\r\n"])
def test_a_body_at_the_limit_is_complete(head: bytes, size: int) -> None:
    client = handshake()
    client.receive_data(b"HTTP/1.1 500 \r\n" + head + b"\r\n")
    body = 65536 * b"x"
    with pytest.raises(InvalidStatus) as caught:
        for start in range(0, len(body), size):
            client.receive_data(body[start : start + size])
    assert caught.value.response.body == body


def test_a_body_under_the_limit_is_waited_for() -> None:
    client = handshake()
    assert client.receive_data(b"HTTP/1.1 500 \r\n\r\n" + 65535 * b"x") is None


def test_a_body_over_the_limit_is_cut_off() -> None:
    response = refusal(handshake(), b"HTTP/1.1 500 \r\n\r\n" + 65537 * b"x")
    assert len(response.body) == 65536


def test_an_endless_body_stays_within_the_limit() -> None:
    client = handshake()
    client.receive_data(b"HTTP/1.1 500 \r\nTransfer-Encoding: chunked\r\n\r\n")
    data = b"F00000\r\n" + 0xF00000 * b"x"
    tracemalloc.start()
    try:
        response = refusal(client, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(response.body) == 65536
    assert peak < 2**19


def test_endless_trailers_end_the_body() -> None:
    client = handshake()
    client.receive_data(b"HTTP/1.1 500 \r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
    assert refusal(client, 10_000 * b"A: b\r\n").body == b"a"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "connection closed while reading HTTP status line"),
        (b"HTTP/1.1 101 Sw", "connection closed while reading HTTP status line"),
        (RESPONSE[:-1], "connection closed while reading HTTP response head"),
        (b"HTTP/1.1 100 \r\n\r\n", "connection closed while reading HTTP status line"),
    ],
)
def test_the_end_of_the_stream_in_the_head_says_where(data: bytes, problem: str) -> None:
    client = handshake()
    client.receive_data(data)
    with pytest.raises(InvalidMessage) as caught:
        client.receive_eof()
    assert str(caught.value) == problem
