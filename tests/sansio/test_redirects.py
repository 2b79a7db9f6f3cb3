"""Where a redirect leads, and what travels along (RFC 9110 section 15.4)."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyws import Headers, InvalidStatus, Response
from anyws.sansio._redirects import Redirects, is_redirect
from anyws.sansio._uri import parse_uri


def redirect(location: str | None, status: int = 302) -> Response:
    return Response(status, "", Headers({} if location is None else {"Location": location}))


def way(uri: str = "ws://a.example/dir/file?q=1", max_redirects: int = 10) -> Redirects:
    return Redirects(parse_uri(uri), None, max_redirects)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_one_to_follow(status: int) -> None:
    assert is_redirect(redirect("/", status))


@pytest.mark.parametrize("status", [200, 300, 304, 305, 306, 403, 503])
def test_other_answer_is_none(status: int) -> None:
    assert not is_redirect(redirect("/", status))


@pytest.mark.parametrize(
    ("location", "uri"),
    [
        ("/chat", "ws://a.example/chat"),
        ("chat", "ws://a.example/dir/chat"),
        ("../chat?x=y", "ws://a.example/chat?x=y"),
        ("?x=y", "ws://a.example/dir/file?x=y"),
        ("/chat#top", "ws://a.example/chat"),
        ("/caf\u00c3\u00a9", "ws://a.example/caf%C3%A9"),
        ("/a:b", "ws://a.example/a:b"),
        ("//b.example/chat", "ws://b.example/chat"),
        ("ws://b.example", "ws://b.example/"),
        ("WS://B.example:81/chat?x=y", "ws://b.example:81/chat?x=y"),
        ("wss://a.example/chat", "wss://a.example/chat"),
        ("http://b.example/", "ws://b.example/"),
        ("https://b.example:444/", "wss://b.example:444/"),
        ("ws://[::1]:81/", "ws://[::1]:81/"),
        ("ws://alice:secret@b.example/", "ws://alice:secret@b.example/"),
    ],
)
def test_location_is_seen_from_the_uri_that_gave_it(location: str, uri: str) -> None:
    redirects = way()
    redirects.follow(redirect(location))
    assert redirects.uri == parse_uri(uri)


def test_location_keeps_the_zone_of_an_address() -> None:
    redirects = way("ws://[fe80::1%25eth0]/")
    redirects.follow(redirect("/chat"))
    assert redirects.uri == parse_uri("ws://[fe80::1%25eth0]/chat")


def test_location_that_stays_in_tls_keeps_it() -> None:
    redirects = way("wss://a.example/")
    redirects.follow(redirect("//b.example/"))
    assert redirects.uri == parse_uri("wss://b.example/")


@pytest.mark.parametrize(
    ("location", "text"),
    [
        (None, "redirect from ws://a.example/dir/file with a Location missing"),
        ("ftp://b.example/", "to 'ftp://b.example/': the scheme is not ws, wss, http, https"),
        ("ws+unix:///run/docker.sock:/", "the scheme is not ws, wss, http, https"),
        ("b.example:81/chat", "to 'b.example:81/chat': the scheme is not ws"),
        ("ws:chat", "it does not start with a scheme such as ws://"),
        ("ws://", "it has no host"),
        ("//b.example:x/", "the port is not a number in 1..65535"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("/a b", "to '/a b': the character ' ' must be percent-encoded"),
        ("/%zz", "a percent sign is not followed by two hexadecimal digits"),
        ("ws://u:secret@/", r"to 'ws://\*\*\*@/': it has no host"),
    ],
)
def test_location_that_leads_nowhere_is_an_invalidstatus_that_names_it(
    location: str | None, text: str
) -> None:
    response = redirect(location)
    with pytest.raises(InvalidStatus, match=text) as caught:
        way().follow(response)
    assert caught.value.response is response
    assert "secret" not in str(caught.value)


def test_two_locations_are_an_invalidstatus() -> None:
    response = Response(302, "", Headers([("Location", "/a"), ("Location", "/b")]))
    with pytest.raises(InvalidStatus, match="with a Location given several times"):
        way().follow(response)


# latin-1: what a field of HTTP can hold.
@given(st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"])))
def test_any_location_leads_somewhere_or_is_an_invalidstatus(location: str) -> None:
    redirects = way()
    with suppress(InvalidStatus):
        redirects.follow(redirect(location))
    assert redirects.uri.unix_path is None


def test_redirect_out_of_tls_is_refused() -> None:
    redirects = way("wss://a.example/")
    text = "redirect out of TLS, from wss://a.example/ to ws://a.example/chat"
    with pytest.raises(InvalidStatus, match=text):
        redirects.follow(redirect("ws://a.example/chat"))


def test_loop_is_named() -> None:
    redirects = way("ws://a.example/")
    redirects.follow(redirect("ws://b.example/"))
    text = "in a loop: ws://a.example/ -> ws://b.example/ -> ws://a.example/$"
    with pytest.raises(InvalidStatus, match=text):
        redirects.follow(redirect("ws://a.example/"))


def test_too_many_redirects_are_named() -> None:
    redirects = way("ws://h/0", max_redirects=2)
    redirects.follow(redirect("/1"))
    redirects.follow(redirect("/2"))
    text = "more than 2 redirects: ws://h/0 -> ws://h/1 -> ws://h/2$"
    with pytest.raises(InvalidStatus, match=text):
        redirects.follow(redirect("/3"))
    assert len(redirects) == 2


FIELDS = [
    ("authorization", "Bearer x"),
    ("Cookie", "a=b"),
    ("Cookie", "c=d"),
    ("Proxy-Authorization", "Basic x"),
    ("Host", "virtual.example"),
    ("X-A", "1"),
]


@pytest.mark.parametrize(
    "location", ["ws://b.example/", "ws://a.example:81/", "wss://a.example:80/", "//b.example/"]
)
def test_secrets_stay_behind_when_the_origin_changes(location: str) -> None:
    redirects = Redirects(parse_uri("ws://u:secret@a.example/"), FIELDS, 10)
    redirects.follow(redirect(location))
    assert list(redirects.headers.items()) == [("X-A", "1")]
    assert redirects.uri.user_info is None
    assert redirects.changed_origin
    # They do not come back on the way back.
    redirects.follow(redirect("wss://a.example/back"))
    assert list(redirects.headers.items()) == [("X-A", "1")]
    assert redirects.uri.user_info is None


@pytest.mark.parametrize("location", ["/chat", "ws://A.example:80/chat", "//a.example/chat"])
def test_secrets_travel_along_within_an_origin(location: str) -> None:
    redirects = Redirects(parse_uri("ws://u:secret@a.example/"), FIELDS, 10)
    redirects.follow(redirect(location))
    assert list(redirects.headers.items()) == FIELDS
    assert redirects.uri == parse_uri("ws://u:secret@a.example/chat")
    assert not redirects.changed_origin


def test_user_information_of_a_location_is_for_that_location() -> None:
    redirects = way("ws://u:secret@a.example/")
    redirects.follow(redirect("ws://v:other@a.example/chat"))
    assert redirects.uri.user_info == ("v", "other")


def test_fields_of_the_caller_are_left_as_they_are() -> None:
    headers = Headers(FIELDS)
    redirects = Redirects(parse_uri("ws://a.example/"), headers, 10)
    redirects.follow(redirect("ws://b.example/"))
    assert list(headers.items()) == FIELDS
