"""The URI of a proxy: what it tells, what it hides, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyws.sansio._uri import ProxyURI, parse_proxy_uri


@pytest.mark.parametrize(
    ("uri", "scheme", "host", "port"),
    [
        ("http://proxy", "http", "proxy", 80),
        ("http://proxy/", "http", "proxy", 80),
        ("https://proxy", "https", "proxy", 443),
        ("HTTP://Proxy.Example:3128/", "http", "proxy.example", 3128),
        ("http://proxy:/", "http", "proxy", 80),
        ("socks5://proxy", "socks5", "proxy", 1080),
        ("socks5h://10.0.0.1:9050", "socks5h", "10.0.0.1", 9050),
        ("socks4://proxy", "socks4", "proxy", 1080),
        ("socks4a://proxy", "socks4a", "proxy", 1080),
        ("http://[::1]:3128", "http", "::1", 3128),
        ("http://pr\xf6xy", "http", "xn--prxy-6qa", 80),
    ],
)
def test_scheme_host_and_port_are_told(uri: str, scheme: str, host: str, port: int) -> None:
    assert parse_proxy_uri(uri) == ProxyURI(scheme, host, port)


@pytest.mark.parametrize(
    ("uri", "user_info"),
    [
        ("http://alice:s%40cret%3A@proxy", ("alice", "s@cret:")),
        ("http://alice@proxy", ("alice", "")),
        ("http://\xe9:%C3%A9@proxy", ("\xe9", "\xe9")),
        ("socks5://al%3Aice:secret@proxy", ("al:ice", "secret")),
        ("socks4://alice@proxy", ("alice", "")),
        ("socks4a://alice:@proxy", ("alice", "")),
    ],
)
def test_user_and_password_are_told(uri: str, user_info: tuple[str, str]) -> None:
    assert parse_proxy_uri(uri).user_info == user_info


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("http://alice:secret@proxy:3128", "http://proxy:3128"),
        ("https://proxy", "https://proxy:443"),
        ("socks5h://a:secret@[fe80::1%25eth0]", "socks5h://[fe80::1]:1080"),
    ],
)
def test_text_has_no_user_information(uri: str, text: str) -> None:
    parsed = parse_proxy_uri(uri)
    assert str(parsed) == text
    assert "secret" not in repr(parsed)


@pytest.mark.parametrize(
    ("uri", "shown", "problem"),
    [
        ("proxy:3128", "proxy:3128", "it does not start with a scheme such as http://"),
        ("", "", "it does not start with a scheme such as http://"),
        (
            "ftp://proxy",
            "ftp://proxy",
            "the scheme is not http, https, socks5, socks5h, socks4, socks4a",
        ),
        ("http://", "http://", "it has no host"),
        ("http://:80", "http://:80", "it has no host"),
        ("http://pro|xy", "http://pro|xy", "the host has a character that a host cannot have"),
        ("http://proxy:0", "http://proxy:0", "the port is not a number in 1..65535"),
        ("http://proxy:65536", "http://proxy:65536", "the port is not a number in 1..65535"),
        ("http://a:secret@proxy:x", "http://***@proxy:x", "the port is not a number in 1..65535"),
        ("http://[::1", "http://[::1", "the host is not an IPv6 address in brackets"),
        ("http://a b", "http://a b", "the character ' ' must be percent-encoded"),
        ("http://a:%zz@b", "http://***@b", "a percent sign is not followed by two hexadecimal"),
        ("http://proxy/path", "http://proxy/path", "something follows host and port"),
        ("http://proxy?q", "http://proxy?q", "something follows host and port"),
        ("http://proxy#f", "http://proxy#f", "something follows host and port"),
        ("http://a:sec/ret@proxy", "http://***@proxy", "in user and password, / ? # are %2F"),
        ("http://a:sec@ret@proxy", "http://***@proxy", "an @ in the user information must be"),
        ("http://a:%0A@proxy", "http://***@proxy", "cannot be used for Basic authentication"),
        ("http://a:%FF@proxy", "http://***@proxy", "the user information is not in UTF-8"),
        ("socks5://a:%FF@proxy", "socks5://***@proxy", "the user information is not in UTF-8"),
        ("socks5://a@proxy", "socks5://***@proxy", "SOCKS5 has a user and a password, or neither"),
        ("socks5h://:b@proxy", "socks5h://***@proxy", "SOCKS5 has a user and a password, or nei"),
        ("socks4://a:secret@proxy", "socks4://***@proxy", "SOCKS4 has a user, but no password"),
        ("socks4a://a%00@proxy", "socks4a://***@proxy", "up to 255 characters of ASCII"),
        ("socks5://\xe9:b@proxy", "socks5://***@proxy", "up to 255 characters of ASCII"),
        (f"socks5://a:{'b' * 256}@proxy", "socks5://***@proxy", "up to 255 characters of ASCII"),
    ],
)
def test_what_is_no_proxy_is_refused(uri: str, shown: str, problem: str) -> None:
    with pytest.raises(ValueError, match="is not the URL of a proxy: ") as caught:
        parse_proxy_uri(uri)
    text = str(caught.value)
    assert text.startswith(f"{shown!r} is not the URL of a proxy: ")
    assert problem in text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@given(uri=st.text(max_size=40) | st.from_regex(r"socks[45]a?h?://[^ ]{0,20}@?[a-z.:0-9]{0,9}"))
def test_nothing_but_a_valueerror_comes_of_any_text(uri: str) -> None:
    try:
        parsed = parse_proxy_uri(uri)
    except ValueError:
        return
    assert parse_proxy_uri(str(parsed)).host == parsed.host.partition("%")[0]
