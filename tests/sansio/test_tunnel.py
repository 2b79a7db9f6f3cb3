"""The request for a tunnel: what is sent, what opens it, and what is made of everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anyws.exceptions import InvalidMessage, ProxyError
from anyws.sansio._tunnel import TunnelHandshake
from anyws.sansio._uri import parse_proxy_uri

if TYPE_CHECKING:
    from anyws._http import Response


def tunnel(
    proxy: str = "http://proxy:3128",
    host: str = "server.example",
    port: int = 443,
    *,
    user_agent: str | None = None,
) -> TunnelHandshake:
    return TunnelHandshake(parse_proxy_uri(proxy), host, port, user_agent=user_agent)


def refused(*pieces: bytes, proxy: str = "http://proxy:3128", eof: bool = False) -> ProxyError:
    handshake = tunnel(proxy)
    with pytest.raises(ProxyError) as caught:
        for piece in pieces:
            assert handshake.receive_data(piece) is None
        if eof:
            handshake.receive_eof()
    return caught.value


def test_request_is_that_of_rfc_9110() -> None:
    handshake = tunnel(user_agent="robot/1")
    assert handshake.data_to_send() == (
        b"CONNECT server.example:443 HTTP/1.1\r\n"
        b"Host: server.example:443\r\n"
        b"User-Agent: robot/1\r\n"
        b"\r\n"
    )
    assert handshake.data_to_send() == b""


@pytest.mark.parametrize(
    ("host", "port", "target"),
    [
        ("server.example", 80, b"server.example:80"),
        ("10.0.0.1", 8765, b"10.0.0.1:8765"),
        ("2001:db8::1", 443, b"[2001:db8::1]:443"),
        ("fe80::1%eth0", 80, b"[fe80::1]:80"),
    ],
)
def test_target_is_host_and_port_always(host: str, port: int, target: bytes) -> None:
    data = tunnel(host=host, port=port).data_to_send()
    assert data == b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n\r\n"


def test_credentials_are_sent_decoded() -> None:
    data = tunnel("http://alice:s%40cret@proxy").data_to_send()
    assert b"\r\nProxy-Authorization: Basic YWxpY2U6c0BjcmV0\r\n" in data  # alice:s@cret


def test_user_agent_that_cannot_be_sent_is_a_valueerror() -> None:
    with pytest.raises(ValueError, match="'User-Agent' has a line break"):
        tunnel(user_agent="a\r\nb")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nProxy-agent: tinyproxy\r\n\r\n",
        b"HTTP/1.1 204 \r\n\r\n",
        b"HTTP/1.1 299 Odd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_any_2xx_opens_however_it_comes(head: bytes) -> None:
    expected = int(head.split(b"HTTP/1.")[-1][2:5])
    for pieces in ([head], [head[i : i + 1] for i in range(len(head))]):
        handshake = tunnel()
        answers: list[Response | None] = [handshake.receive_data(piece) for piece in pieces]
        assert answers[:-1] == [None] * (len(pieces) - 1)
        assert answers[-1] is not None
        assert answers[-1].status == expected
        assert handshake.trailing_data == b""


@pytest.mark.parametrize("fields", [b"", b"Content-Length: 3\r\n"])
def test_what_follows_the_head_is_the_tunnels(fields: bytes) -> None:
    handshake = tunnel()
    assert handshake.receive_data(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\nhello") is not None
    assert handshake.trailing_data == b"hello"


def test_refusal_has_status_and_body() -> None:
    error = refused(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\n", b"awr", b"y")
    assert (
        str(error) == "proxy http://proxy:3128 answered with HTTP 502, asked for server.example:443"
    )
    assert error.response is not None
    assert (error.response.status, error.response.body) == (502, b"awry")
    assert error.reply is None


def test_refusal_without_a_length_ends_with_the_stream() -> None:
    error = refused(b"HTTP/1.0 403 No\r\n\r\n", b"aw", b"ry", eof=True)
    assert error.response is not None
    assert error.response.body == b"awry"


def test_body_of_a_refusal_is_cut_off() -> None:
    error = refused(b"HTTP/1.1 500 Oops\r\n\r\n", *[bytes(30000)] * 3)
    assert error.response is not None
    assert len(error.response.body) == 65536


def test_redirect_is_a_refusal() -> None:
    error = refused(b"HTTP/1.1 302 Go\r\nLocation: ws://elsewhere/\r\nContent-Length: 0\r\n\r\n")
    assert error.response is not None
    assert error.response.status == 302


WANTS = "it wants a user and a password, http://user:password@host:port"
WRONG = "the user or the password in its URL is wrong"


@pytest.mark.parametrize(
    ("proxy", "status", "challenge", "advice"),
    [
        ("http://proxy", 407, "Basic realm=x", WANTS),
        ("http://proxy", 407, "", WANTS),
        ("https://proxy", 407, "NTLM, basic", WANTS.replace("http:", "https:")),
        ("http://proxy", 407, "Negotiate", "it does not take Basic authentication, and anyws kno"),
        ("http://alice:hidden@proxy", 407, "Basic realm=x", WRONG),
        ("http://alice:hidden@proxy", 407, "", WRONG),
        ("http://alice:hidden@proxy", 407, "Negotiate", "it does not take Basic authentication"),
        ("http://alice:hidden@proxy", 401, "", WRONG),
        ("http://proxy", 401, "", "asked for server.example:443"),
    ],
)
def test_407_says_what_to_do(proxy: str, status: int, challenge: str, advice: str) -> None:
    field = f"Proxy-Authenticate: {challenge}\r\n" if challenge else ""
    head = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n{field}\r\n"
    error = refused(head.encode(), proxy=proxy)
    assert advice in str(error)
    assert "hidden" not in str(error)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x05\xff", "malformed HTTP response: illegal status line"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "malformed HTTP response: illegal status line"),
        (b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", "control character in the head"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 9000, "header line exceeds the limit of 8192 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200, "exceeds the limit of 128 header lines"),
        (b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"a" * 8000 + b"\r\n") * 5, "32768 bytes"),
        (b"HTTP/1.1 100 Go on\r\n\r\n" * 2000, "32768 bytes"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", "malformed HTTP response"),
    ],
)
def test_malformed_answer_is_a_proxyerror(data: bytes, problem: str) -> None:
    error = refused(data)
    assert str(error).startswith("proxy http://proxy:3128, asked for server.example:443: ")
    assert problem in str(error)
    assert error.response is None
    assert isinstance(error.__cause__, InvalidMessage)


def test_refusal_with_a_malformed_body_has_its_status() -> None:
    error = refused(b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert "answered with HTTP 500" in str(error)
    assert error.response is not None
    assert (error.response.status, error.response.body) == (500, b"")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "connection closed while reading HTTP status line"),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n", "connection closed while reading HTTP response head"),
    ],
)
def test_end_before_the_answer_is_a_proxyerror(data: bytes, problem: str) -> None:
    assert problem in str(refused(data, eof=True))
