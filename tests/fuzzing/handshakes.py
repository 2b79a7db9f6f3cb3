"""The opening handshakes and URIs as targets of a fuzzer: see `targets`.

Owns what must come of any request, of any response, and of any URI.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Any

import h11

from anyws.exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    NegotiationError,
)
from anyws.sansio._client_handshake import ClientHandshake
from anyws.sansio._deflate import PerMessageDeflate
from anyws.sansio._handshake import MAX_BODY_SIZE, MAX_HEAD_SIZE
from anyws.sansio._origins import SAME_HOST, OriginPolicy
from anyws.sansio._server_handshake import ServerHandshake
from anyws.sansio._uri import WebSocketURI, parse_uri
from tests.fuzzing.choices import Choices, cut

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anyws._http import Request, Response

# The nonce of the example in RFC 6455 section 1.3: a fuzzer cannot guess what answers another.
NONCE = b"the sample nonce"
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

SUBPROTOCOLS = ("chat", "superchat")

EXTENSIONS = (
    (),
    (PerMessageDeflate(),),
    (PerMessageDeflate(True), PerMessageDeflate(client_max_window_bits=None)),
)

POLICIES: tuple[OriginPolicy, ...] = (
    SAME_HOST,
    "*",
    ["https://example.com", re.compile(r"http://.*\.example\.com")],
)


# The server.


def fuzz_server_handshake(data: bytes) -> None:
    """Send a server any bytes for a request."""
    choices = Choices(data)
    arguments: dict[str, Any] = {
        "origins": choices.pick(POLICIES),
        "subprotocols": choices.pick((None, SUBPROTOCOLS)),
        "select_subprotocol": choices.pick((None, None, _choose_last)),
        "extensions": choices.pick(EXTENSIONS),
    }
    pattern = choices.byte()
    wire = choices.rest()
    whole = _serve(arguments, [wire])
    assert _serve(arguments, cut(wire, pattern)) == whole
    if whole.get("request") is not None:
        _check_head(wire, whole["rest"])


def _choose_last(request: Request, offered: Sequence[str]) -> str | None:
    if not offered:
        raise NegotiationError("a subprotocol is needed")
    return offered[-1]


def _serve(arguments: dict[str, Any], pieces: Iterable[bytes]) -> dict[str, Any]:
    """Give all that can be told of a handshake."""
    handshake = ServerHandshake(**arguments)
    rest = iter(pieces)
    request = None
    try:
        for piece in rest:
            request = handshake.receive_data(piece)
            if request is not None:
                break
        else:
            handshake.receive_eof()
            assert not handshake.started
            return {}
    except InvalidMessage as exc:
        assert 400 <= exc.status <= 599
        response = handshake.refuse(exc)
        assert response.status == exc.status
    else:
        _check_request(request)
        response = handshake.accept(request)
        assert (response.status == 101) is (handshake.error is None)
        # Offers that do not fit are declined, and no reason to refuse.
        chooses = arguments["select_subprotocol"] is not None
        assert chooses or not isinstance(handshake.error, NegotiationError)
        if response.status == 101:
            _check_accepted(request, response)
    answer = handshake.send_response(response, request)
    _check_answer(answer, "GET" if request is None else request.method, response)
    extension = handshake.extension
    return {
        "request": request,
        "answer": answer,
        "error": (type(handshake.error), str(handshake.error)),
        "subprotocol": handshake.subprotocol,
        "extension": None if extension is None else extension.parameters,
        # What follows the head is no business of an answer that refuses.
        "rest": b"" if request is None else b"".join([handshake.trailing_data, *rest]),
    }


def _check_request(request: Request) -> None:
    """Check what would be unsafe to hand on: a body, and a Host that is none."""
    assert "Transfer-Encoding" not in request.headers
    assert all(int(size) == 0 for size in request.headers.get_all("Content-Length"))
    (host,) = request.headers.get_all("Host")
    assert re.fullmatch(r"[^\s/?#@\\\"<>{}|^`]*", host, re.ASCII)
    assert request.path.isascii()
    assert request.path.isprintable()


def _check_accepted(request: Request, response: Response) -> None:
    """Check RFC 6455 section 4.2.1, which says what a request must have."""
    headers = request.headers
    assert request.method == "GET"
    assert "websocket" in headers["Upgrade"].lower()
    assert "upgrade" in headers["Connection"].lower()
    assert headers.get_all("Sec-WebSocket-Version") == ["13"]
    (key,) = headers.get_all("Sec-WebSocket-Key")
    assert len(base64.b64decode(key)) == 16
    accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
    assert response.headers["Sec-WebSocket-Accept"] == accept
    chosen = response.headers.get("Sec-WebSocket-Protocol")
    assert chosen is None or chosen in request.subprotocols


def _check_answer(answer: bytes, method: str, response: Response) -> None:
    """Read an answer as a client does that is not ours: it is one response and nothing else."""
    client = h11.Connection(h11.CLIENT)
    fields = [("Host", "localhost"), ("Upgrade", "websocket"), ("Connection", "Upgrade")]
    client.send(h11.Request(method=method, target="/", headers=fields))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    event = client.next_event()
    assert isinstance(event, h11.InformationalResponse | h11.Response)
    assert event.status_code == response.status
    if response.status == 101:
        assert answer.endswith(b"\r\n\r\n")
        return
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert body == (b"" if method == "HEAD" else response.body)
    assert client.trailing_data == (b"", False)


def _check_head(wire: bytes, rest: bytes) -> bytes:
    """Give what was taken for the head, or for several; nothing is between it and the rest."""
    assert wire.endswith(rest)
    head = wire[: len(wire) - len(rest)]
    assert head.endswith((b"\n\n", b"\n\r\n"))
    assert len(head) <= MAX_HEAD_SIZE
    return head


# The client.


def fuzz_client_handshake(data: bytes) -> None:
    """Answer a client with any bytes."""
    choices = Choices(data)
    arguments: dict[str, Any] = {
        "subprotocols": choices.pick((None, SUBPROTOCOLS)),
        "extensions": choices.pick(EXTENSIONS),
    }
    pattern = choices.byte()
    wire = choices.rest()
    whole = _ask(arguments, [wire])
    assert _ask(arguments, cut(wire, pattern)) == whole
    if "rest" in whole:
        heads = _check_head(wire, whole["rest"])
        first_lines = re.findall(rb"(?:\A|\n\r?\n)([^\r\n]+)", heads)
        assert first_lines[-1].startswith(b"HTTP/1.1 101")


def _ask(arguments: dict[str, Any], pieces: Iterable[bytes]) -> dict[str, Any]:
    """Give all that can be told of a handshake."""
    handshake = ClientHandshake(
        WebSocketURI(secure=False, host="localhost", port=80), key=NONCE, **arguments
    )
    assert handshake.data_to_send().endswith(b"\r\n\r\n")
    assert handshake.data_to_send() == b""
    rest = iter(pieces)
    try:
        for piece in rest:
            response = handshake.receive_data(piece)
            if response is not None:
                break
        else:
            handshake.receive_eof()
    except InvalidStatus as exc:
        refusal = exc.response
        assert 200 <= refusal.status <= 999
        assert len(refusal.body) <= MAX_BODY_SIZE
        return {"refusal": (refusal.status, refusal.reason, refusal.headers, refusal.body)}
    except InvalidHandshake as exc:
        assert isinstance(exc, InvalidMessage | InvalidHeader | NegotiationError)
        return {"error": (type(exc), str(exc))}
    assert response is not None
    assert response.status == 101
    assert response.headers.get_all("Sec-WebSocket-Accept") == [ACCEPT]
    assert handshake.subprotocol in {None, *(arguments["subprotocols"] or ())}
    extension = handshake.extension
    assert extension is None or arguments["extensions"]
    assert (extension is None) is ("Sec-WebSocket-Extensions" not in response.headers)
    return {
        "response": response,
        "subprotocol": handshake.subprotocol,
        "extension": None if extension is None else extension.parameters,
        "rest": b"".join([handshake.trailing_data, *rest]),
    }


# URIs.


def fuzz_uri(data: bytes) -> None:
    """Parse any text as a URI; what is one can be connected to."""
    # A lone byte becomes a lone surrogate, as in the arguments of a command.
    text = data.decode("utf-8", "surrogateescape")
    try:
        uri = parse_uri(text)
    except InvalidURI as exc:
        assert str(exc).isprintable()
        return
    assert re.search(r"%(?![0-9A-Fa-f]{2})", text) is None
    assert 1 <= uri.port <= 65535
    assert uri.host
    assert uri.host.isascii()
    if uri.unix_path is None:
        assert re.split(r"[/?]", text.partition("://")[2])[0].count("@") <= 1
        again = parse_uri(str(uri) + (f"?{uri.query}" if uri.query else ""))
        host = uri.host.partition("%")[0]  # a zone is no one else's business
        assert (again.secure, again.host, again.port) == (uri.secure, host, uri.port)
        assert again.resource_name == uri.resource_name
    _connect(uri)


def _connect(uri: WebSocketURI) -> None:
    """Open a connection, as far as our own server goes."""
    client = ClientHandshake(uri)
    server = ServerHandshake()
    request = server.receive_data(client.data_to_send())
    assert request is not None
    assert request.path == uri.resource_name
    authorization = request.headers.get("Authorization")
    assert (authorization is None) is (uri.user_info is None)
    if authorization is not None and uri.user_info is not None:
        credentials = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        assert credentials == ":".join(uri.user_info)
    answer = server.send_response(server.accept(request), request)
    response = client.receive_data(answer)
    assert response is not None
    assert client.trailing_data == b""
