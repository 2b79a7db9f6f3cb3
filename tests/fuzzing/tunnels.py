"""Proxies as targets of a fuzzer: see `targets`.

Owns what must come of any answer to CONNECT, of any text as the URI of a proxy, and of any entry of
no_proxy.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from anyws._proxies import is_exempt
from anyws.exceptions import ProxyError
from anyws.sansio._handshake import MAX_BODY_SIZE, MAX_HEAD_SIZE
from anyws.sansio._tunnel import TunnelHandshake
from anyws.sansio._uri import ProxyURI, parse_proxy_uri
from tests.fuzzing.choices import Choices, cut

if TYPE_CHECKING:
    from collections.abc import Iterable

PROXY = ProxyURI("http", "localhost", 80, ("alice", "secret"))


def fuzz_tunnel(data: bytes) -> None:
    """Answer CONNECT with any bytes."""
    choices = Choices(data)
    pattern = choices.byte()
    wire = choices.rest()
    whole = _ask([wire])
    assert _ask(cut(wire, pattern)) == whole
    if "rest" in whole:
        assert wire.endswith(whole["rest"])
        heads = wire[: len(wire) - len(whole["rest"])]
        assert heads.endswith((b"\n\n", b"\n\r\n"))
        assert len(heads) <= MAX_HEAD_SIZE
        first_lines = re.findall(rb"(?:\A|\n\r?\n)([^\r\n]+)", heads)
        assert re.match(rb"HTTP/1\.[01] 2", first_lines[-1])


def _ask(pieces: Iterable[bytes]) -> dict[str, Any]:
    """Give all that can be told of an answer."""
    handshake = TunnelHandshake(PROXY, "example.com", 443)
    assert handshake.data_to_send().endswith(b"\r\n\r\n")
    rest = iter(pieces)
    try:
        for piece in rest:
            response = handshake.receive_data(piece)
            if response is not None:
                break
        else:
            handshake.receive_eof()
    except ProxyError as exc:
        assert "secret" not in str(exc)
        if exc.response is not None:
            assert exc.response.status >= 300
            assert len(exc.response.body) <= MAX_BODY_SIZE
        return {"error": (str(exc), exc.response)}
    assert response is not None
    assert 200 <= response.status < 300
    return {"response": response, "rest": b"".join([handshake.trailing_data, *rest])}


def fuzz_proxy_uri(data: bytes) -> None:
    """Parse any text as the URI of a proxy, and as what no_proxy has."""
    text = data.decode("utf-8", "surrogateescape")
    is_exempt(text, "example.com", 80)
    is_exempt(text, "::1", 80)
    try:
        proxy = parse_proxy_uri(text)
    except ValueError as exc:
        # A UnicodeError would have all of the text, with the password.
        assert type(exc) is ValueError
        assert str(exc).isprintable()
        return
    assert 1 <= proxy.port <= 65535
    again = parse_proxy_uri(str(proxy))
    host = proxy.host.partition("%")[0]  # a zone is no one else's business
    assert (again.scheme, again.host, again.port) == (proxy.scheme, host, proxy.port)
    assert again.user_info is None
    if not proxy.speaks_socks:
        TunnelHandshake(proxy, proxy.host, proxy.port)
    elif proxy.user_info is not None:
        assert max(map(len, proxy.user_info)) <= 255
        assert "".join(proxy.user_info).isascii()
