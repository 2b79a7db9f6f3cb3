"""Which web origins may connect (RFC 6455 section 10.2)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from anyws._http import Headers
from anyws.exceptions import InvalidHeader, InvalidOrigin
from anyws.sansio._origins import SAME_HOST, AllowedOrigins, is_host

if TYPE_CHECKING:
    from anyws.sansio._origins import OriginPolicy


def is_allowed(policy: OriginPolicy, origin: str | None, host: str = "example.com") -> bool:
    headers = Headers({"Host": host})
    if origin is not None:
        headers["Origin"] = origin
    try:
        AllowedOrigins(policy).check(headers)
    except InvalidOrigin:
        return False
    return True


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "example.com"),
        ("https://example.com", "example.com"),
        ("http://example.com", "example.com:8000"),
        ("http://example.com:3000", "example.com:8000"),
        ("http://Example.COM", "eXample.com"),
        ("http://[::1]:3000", "[::1]:8000"),
        ("http://[2001:db8::a]", "[2001:DB8::A]"),
        ("http://127.0.0.1", "127.0.0.1:8000"),
    ],
)
def test_the_same_host_is_allowed(origin: str | None, host: str) -> None:
    assert is_allowed(SAME_HOST, origin, host)


@pytest.mark.parametrize("listed", ["https://a.example", "https://a.example:443"])
@pytest.mark.parametrize("origin", ["https://A.example", "https://a.example:443"])
def test_the_default_port_may_be_left_out(listed: str, origin: str) -> None:
    assert is_allowed([listed], origin)
    assert not is_allowed([listed], "https://a.example:8443")
    assert not is_allowed([listed], "http://a.example:443")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.com", "example.com"),
        ("https://example.com.evil.com", "example.com"),
        ("https://www.example.com", "example.com"),
        ("https://evil.com/example.com", "example.com"),
        ("https://evil.com?example.com", "example.com"),
        ("https://example.com@evil.com", "example.com"),
        ("https://example.com/", "example.com"),
        ("https://example.com https://example.com", "example.com"),
        ("https://example.com:a", "example.com"),
        ("http://[::1]", "[::2]"),
        ("null", "null"),
        ("null", "example.com"),
        ("example.com", "example.com"),
        ("", "example.com"),
        ("", ""),
        ("file://", ""),
        ("http://:80", ":80"),
        ("https://example.com", "example.com/"),
    ],
)
def test_another_host_is_refused(origin: str, host: str) -> None:
    assert not is_allowed(SAME_HOST, origin, host)


@pytest.mark.parametrize("origin", [None, "https://evil.com", "null", "junk"])
def test_any_origin_is_allowed_by_a_star(origin: str | None) -> None:
    assert is_allowed("*", origin)


@pytest.mark.parametrize(
    ("policy", "origin"),
    [
        (["https://a.com"], "https://a.com"),
        (["https://b.com", "https://a.com"], "https://a.com"),
        (("https://A.com",), "HTTPS://a.com"),
        (["https://a.com:8443"], "https://a.com:8443"),
        (["null"], "null"),
        (["file://"], "file://"),
        (["chrome-extension://abc"], "chrome-extension://abc"),
        ([re.compile(r"https://[a-z]+\.a\.com")], "https://b.a.com"),
        ([None], None),
        (["https://a.com", None], None),
        (["https://a.com", None], "https://a.com"),
    ],
)
def test_a_listed_origin_is_allowed(policy: OriginPolicy, origin: str | None) -> None:
    assert is_allowed(policy, origin)


@pytest.mark.parametrize(
    ("policy", "origin"),
    [
        ([], None),
        ([], "https://example.com"),
        (["https://a.com"], None),
        (["https://a.com"], "http://a.com"),
        (["https://a.com"], "https://a.com:8443"),
        (["https://a.com"], "https://a.com.evil.com"),
        (["https://a.com"], "null"),
        ([re.compile(r"https://a\.com")], "https://a.com.evil.com"),
        ([re.compile(r"https://a\.com")], "xhttps://a.com"),
        ([re.compile(".*")], None),
        ([None], "https://example.com"),
    ],
)
def test_an_origin_that_is_not_listed_is_refused(policy: OriginPolicy, origin: str | None) -> None:
    assert not is_allowed(policy, origin)


def test_the_error_has_the_origin() -> None:
    with pytest.raises(InvalidOrigin, match="invalid Origin header: 'null': it is not allowed"):
        AllowedOrigins(SAME_HOST).check(Headers({"Host": "h", "Origin": "null"}))


def test_the_error_says_when_the_origin_is_missing() -> None:
    with pytest.raises(InvalidOrigin, match="missing Origin header"):
        AllowedOrigins([]).check(Headers({"Host": "h"}))


def test_two_origins_are_refused_even_by_a_star() -> None:
    headers = Headers([("Host", "h"), ("Origin", "http://h"), ("Origin", "http://h")])
    with pytest.raises(InvalidHeader, match="it is given 2 times"):
        AllowedOrigins("*").check(headers)


@pytest.mark.parametrize("policy", ["https://a.com", "", "null"])
def test_a_str_is_no_policy(policy: str) -> None:
    with pytest.raises(TypeError, match=r"origins must be a list such as \["):
        AllowedOrigins(policy)


@pytest.mark.parametrize("policy", [None, 5, True])
def test_what_is_no_list_is_no_policy(policy: Any) -> None:
    kind = type(policy).__name__
    with pytest.raises(
        TypeError, match=rf'^origins must be a list, SAME_HOST or "\*" for any origin, not {kind}$'
    ):
        AllowedOrigins(policy)


def test_a_pattern_of_bytes_is_refused() -> None:
    pattern: Any = re.compile(b"https://.*")
    with pytest.raises(TypeError, match=r"^pattern b'https://\.\*' of origins must be of str$"):
        AllowedOrigins([pattern])


def test_an_entry_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match=r"must be a str, a re\.Pattern or None, not bytes"):
        AllowedOrigins([b"https://a.com"])  # type: ignore[list-item]  # the mistake that is tested


@pytest.mark.parametrize("entry", ["a.com", "*", "https://a.com/", "https://a.com/b", ""])
def test_an_entry_that_could_never_match_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="in origins is not an origin such as"):
        AllowedOrigins([entry])


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("example.com", True),
        ("example.com:80", True),
        ("[::1]:80", True),
        ("", True),
        ("a b", False),
        ("a/b", False),
        ("a@b", False),
        ("a, b", False),
        ("a:b", False),
        ("[::1", False),
        ("::1", False),
    ],
)
def test_a_host_is_told_from_other_text(host: str, expected: bool) -> None:
    assert is_host(host) is expected
