"""The URI of a WebSocket resource (RFC 6455 section 3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyws.exceptions import InvalidURI
from anyws.sansio._uri import WebSocketURI, parse_uri


@pytest.mark.parametrize(
    ("uri", "secure", "port"),
    [
        ("ws://example.com", False, 80),
        ("wss://example.com", True, 443),
        ("WSS://example.com", True, 443),
        ("ws://example.com:1", False, 1),
        ("ws://example.com:65535", False, 65535),
        ("wss://example.com:80", True, 80),
        ("ws://example.com:", False, 80),
        ("ws://example.com:00080", False, 80),
    ],
)
def test_scheme_and_port_are_told(uri: str, secure: bool, port: int) -> None:
    assert parse_uri(uri) == WebSocketURI(secure, "example.com", port)


@pytest.mark.parametrize(
    ("uri", "path", "query", "resource_name"),
    [
        ("ws://h", "/", "", "/"),
        ("ws://h/", "/", "", "/"),
        ("ws://h/a/b", "/a/b", "", "/a/b"),
        ("ws://h/a?b=c", "/a", "b=c", "/a?b=c"),
        ("ws://h?b=c", "/", "b=c", "/?b=c"),
        ("ws://h/a?", "/a", "", "/a"),
        ("ws://h/a?b?c/d", "/a", "b?c/d", "/a?b?c/d"),
        ("ws://h/a%20b?c%2Fd", "/a%20b", "c%2Fd", "/a%20b?c%2Fd"),
        ("ws://h/\xe9?\u20ac", "/%C3%A9", "%E2%82%AC", "/%C3%A9?%E2%82%AC"),
        ("ws://h/@me:1", "/@me:1", "", "/@me:1"),
        ("ws://h//a", "//a", "", "//a"),
    ],
)
def test_path_and_query_are_told(uri: str, path: str, query: str, resource_name: str) -> None:
    parsed = parse_uri(uri)
    assert (parsed.path, parsed.query, parsed.resource_name) == (path, query, resource_name)


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("ws://Example.COM/", "example.com"),
        ("ws://127.0.0.1:1/", "127.0.0.1"),
        ("ws://my_host/", "my_host"),
        ("ws://" + 63 * "a" + ".b./", 63 * "a" + ".b."),
        ("ws://[::1]/", "::1"),
        ("ws://[2001:DB8::1]:8765/", "2001:db8::1"),
        ("ws://[::ffff:127.0.0.1]/", "::ffff:127.0.0.1"),
        ("ws://[fe80::1%25eth0]:1/", "fe80::1%eth0"),
        ("ws://[fe80::1%25en%2D0]/", "fe80::1%en-0"),
        ("ws://m\xfcnchen.example/", "xn--mnchen-3ya.example"),
        ("ws://\uff48\uff4f\uff53\uff54/", "host"),
    ],
)
def test_the_host_is_told(uri: str, host: str) -> None:
    assert parse_uri(uri).host == host


@pytest.mark.parametrize(
    ("uri", "user_info"),
    [
        ("ws://h/", None),
        ("ws://user:password@h/", ("user", "password")),
        ("ws://user@h/", ("user", "")),
        ("ws://:password@h/", ("", "password")),
        ("ws://@h/", ("", "")),
        ("ws://a%40b:c%3Ad%2F@h/", ("a@b", "c:d/")),
        ("ws://a:b:c@h/", ("a", "b:c")),
        ("ws://%C3%A9:\xe9@h/", ("\xe9", "\xe9")),
    ],
)
def test_user_information_is_decoded(uri: str, user_info: tuple[str, str] | None) -> None:
    assert parse_uri(uri).user_info == user_info


@pytest.mark.parametrize(
    ("uri", "unix_path", "resource_name"),
    [
        ("ws+unix:///run/x.sock:/resource", "/run/x.sock", "/resource"),
        ("WS+UNIX:///run/x.sock:/a:b?c:d", "/run/x.sock", "/a:b?c:d"),
        ("ws+unix:///run/x.sock", "/run/x.sock", "/"),
        ("ws+unix:///run/x.sock:", "/run/x.sock", "/"),
        ("ws+unix:///run/x.sock:?a", "/run/x.sock", "/?a"),
        ("ws+unix:///run/x.sock?a:/b", "/run/x.sock", "/?a:/b"),
        ("ws+unix:///a%3Ab%20c:/", "/a:b c", "/"),
        ("ws+unix:///a%FF:/", "/a\udcff", "/"),
    ],
)
def test_a_unix_socket_is_told(uri: str, unix_path: str, resource_name: str) -> None:
    parsed = parse_uri(uri)
    assert (parsed.unix_path, parsed.resource_name) == (unix_path, resource_name)


def test_the_host_of_a_unix_socket_is_localhost() -> None:
    parsed = parse_uri("ws+unix:///run/x.sock")
    assert (parsed.secure, parsed.host, parsed.port) == (False, "localhost", 80)


def test_there_is_no_unix_socket_in_other_uris() -> None:
    assert parse_uri("ws://h/").unix_path is None


def test_repr_hides_user_information() -> None:
    assert repr(parse_uri("ws://user:password@h/")) == (
        "WebSocketURI(secure=False, host='h', port=80, path='/', query='', unix_path=None)"
    )


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("", "it does not start with a scheme such as ws://"),
        ("example.com", "it does not start with a scheme such as ws://"),
        ("//example.com", "it does not start with a scheme such as ws://"),
        ("ws:example.com", "it does not start with a scheme such as ws://"),
        ("http://example.com", "the scheme is not ws, wss or ws+unix"),
        ("wss+unix:///x", "the scheme is not ws, wss or ws+unix"),
        ("ws://h/#", "it has a fragment; a # that is meant as such must be written %23"),
        ("ws://h/?a#b", "it has a fragment; a # that is meant as such must be written %23"),
        ("ws://", "it has no host"),
        ("ws:///a", "it has no host"),
        ("ws://:80/", "it has no host"),
        ("ws://user@/", "it has no host"),
        ("ws://h:0/", "the port is not a number in 1..65535"),
        ("ws://h:65536/", "the port is not a number in 1..65535"),
        ("ws://h:000080/", "the port is not a number in 1..65535"),
        ("ws://h:-1/", "the port is not a number in 1..65535"),
        ("ws://h:a/", "the port is not a number in 1..65535"),
        ("ws://h:\u0661/", "the port is not a number in 1..65535"),
        ("ws://::1/", "it has no host"),
        ("ws://h:1:2/", "the port is not a number in 1..65535"),
        ("ws://h\\a/", "the host has a character that a host cannot have"),
        ("ws://a%41/", "the host has a character that a host cannot have"),
        ("ws://a]/", "the host has a character that a host cannot have"),
        ("ws://a\uff0fb/", "the host has a character that a host cannot have"),
        ("ws://\xe9..b/", "the host is not a valid internationalized domain name"),
        ("ws://\xe9" + 64 * "a" + "/", "the host is not a valid internationalized domain name"),
        ("ws://a..b/", "a label of the host does not have 1 to 63 characters"),
        ("wss://.a/", "a label of the host does not have 1 to 63 characters"),
        ("ws://./", "a label of the host does not have 1 to 63 characters"),
        ("ws://" + 64 * "a" + "/", "a label of the host does not have 1 to 63 characters"),
        ("ws://[::1/", "the host is not an IPv6 address in brackets"),
        ("ws://[]/", "the host is not an IPv6 address in brackets"),
        ("ws://[::1]a/", "the host is not an IPv6 address in brackets"),
        ("ws://[v1.a]/", "the host is not an IPv6 address in brackets"),
        ("ws://[127.0.0.1]/", "the host is not an IPv6 address in brackets"),
        ("ws://[fe80::1%41]/", "the host is not an IPv6 address in brackets"),
        ("ws://[%25eth0]/", "the host is not an IPv6 address in brackets"),
        ("ws://[::1%25]/", "the zone of the IPv6 address has a character that a zone cannot have"),
        (
            "ws://[::1%25%0D]/",
            "the zone of the IPv6 address has a character that a zone cannot have",
        ),
        ("ws://h/a b", "the character ' ' must be percent-encoded"),
        ("ws://h/\r\nA: 1", r"the character '\r' must be percent-encoded"),
        ("ws://h/\n", r"the character '\n' must be percent-encoded"),
        ("ws://h/\0", r"the character '\x00' must be percent-encoded"),
        ("ws://h/\x7f", r"the character '\x7f' must be percent-encoded"),
        ("ws://h/\x9f", r"the character '\x9f' must be percent-encoded"),
        (" ws://h/", "the character ' ' must be percent-encoded"),
        ("ws://h\t/", r"the character '\t' must be percent-encoded"),
        ("ws://h/%", "a percent sign is not followed by two hexadecimal digits"),
        ("ws://h/%4", "a percent sign is not followed by two hexadecimal digits"),
        ("ws://h/?%zz", "a percent sign is not followed by two hexadecimal digits"),
        ("ws://[fe80::1%eth0]/", "a percent sign is not followed by two hexadecimal digits"),
        ("ws://h\\@evil.example/", "user and password have a backslash; it is written %5C"),
        ("ws://h/\ud800", "the path or the query has a lone surrogate"),
        ("ws://h/?\ud800", "the path or the query has a lone surrogate"),
        (
            "ws+unix://",
            "the path of the socket does not start with a slash; a host has no place here",
        ),
        (
            "ws+unix://h/x",
            "the path of the socket does not start with a slash; a host has no place here",
        ),
        ("ws+unix:///x:a", "the resource after the colon does not start with a slash"),
        ("ws+unix:///x%00", "the path of the socket has a NUL"),
    ],
)
def test_what_is_no_websocket_uri_is_refused(uri: str, problem: str) -> None:
    with pytest.raises(InvalidURI) as caught:
        parse_uri(uri)
    assert caught.value.problem == problem


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("ws://a@b@h/", "an @ in the user information must be written %40"),
        ("ws://a%3Ab@h/", "the user information cannot be used for Basic authentication"),
        ("ws://a%0D%0A@h/", "the user information cannot be used for Basic authentication"),
        ("ws://%FF@h/", "the user information is not in UTF-8"),
        ("ws://\ud800@h/", "the user information cannot be used for Basic authentication"),
    ],
)
def test_bad_user_information_is_refused(uri: str, problem: str) -> None:
    with pytest.raises(InvalidURI) as caught:
        parse_uri(uri)
    assert caught.value.args == ("ws://***@h/", problem)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("ws://user:secret@h:x/", "ws://***@h:x/"),
        ("ws://user:se/cret@h/", "ws://***@h/"),
        ("ws://user:secret#@h/", "ws://***@h/"),
        ("ws://user:secret@x@h/", "ws://***@h/"),
        ("ws://user:secret%@h/", "ws://***@h/"),
        ("ws://user:secret @h/", "ws://***@h/"),
        ("ws://secret\xe9..:x/y@h/", "ws://***@h/"),
        ("http://user:secret@h/", "http://***@h/"),
        ("user:secret@h/", "***@h/"),
        ("user:secret://x@h/", "***@h/"),
    ],
)
def test_the_error_never_shows_the_password(uri: str, shown: str) -> None:
    with pytest.raises(InvalidURI) as caught:
        parse_uri(uri)
    assert str(caught.value) == f"{shown!r} is not a WebSocket URI: {caught.value.problem}"
    assert "secret" not in repr(caught.value)
    assert caught.value.__suppress_context__


def test_a_uri_that_is_no_str_is_refused() -> None:
    with pytest.raises(TypeError, match="uri must be a str, not bytes"):
        parse_uri(b"ws://h/")  # type: ignore[arg-type]  # the mistake that is tested


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_text_is_refused_or_safe_to_send(authority: str, rest: str) -> None:
    try:
        uri = parse_uri(f"ws://{authority}/{rest}")
    except InvalidURI:
        return
    assert all(0x21 <= ord(char) <= 0x7E for char in uri.host + uri.resource_name)
