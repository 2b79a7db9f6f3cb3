"""The values of HTTP: what fields do, and what none of them lets through."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest
from anyio.abc import SocketAttribute

from anyws._http import Headers, Request, Response, is_token, text_response

INJECTIONS = [
    ("a\rb", "has a line break"),
    ("a\nb", "has a line break"),
    ("a\r\nX-Evil: 1", "has a line break"),
    ("a\n", "has a line break"),
    ("\na", "has a line break"),
    ("a\0b", "has a NUL"),
    ("a\x01b", r"has a control character, '\x01'"),
    ("a\x7fb", r"has a control character, '\x7f'"),
    ("a\u20acb", "has '\u20ac', which is not in Latin-1"),
]


# Headers


@pytest.mark.parametrize("name", ["Host", "host", "HOST"])
def test_a_field_is_found_without_regard_to_case(name: str) -> None:
    assert Headers({"Host": "example.com"})[name] == "example.com"


def test_fields_of_one_name_are_joined() -> None:
    assert Headers([("A", "1"), ("B", "2"), ("a", "3")])["A"] == "1, 3"


def test_get_all_gives_each_value_of_a_name() -> None:
    assert Headers([("A", "1"), ("B", "2"), ("a", "3")]).get_all("a") == ["1", "3"]


def test_get_all_gives_an_empty_list_when_there_is_no_such_field() -> None:
    assert Headers().get_all("A") == []


def test_lookup_raises_key_error_when_there_is_no_such_field() -> None:
    with pytest.raises(KeyError, match="A"):
        Headers({"B": "1"})["A"]


def test_get_gives_the_default_when_there_is_no_such_field() -> None:
    assert Headers({"B": "1"}).get("A", "2") == "2"


def test_contains_ignores_case() -> None:
    assert "hOST" in Headers({"Host": "example.com"})


@pytest.mark.parametrize("name", ["Origin", 1, None])
def test_contains_is_false_when_there_is_no_such_field(name: object) -> None:
    assert name not in Headers({"Host": "example.com"})


def test_iteration_gives_each_name_once_as_it_was_first_written() -> None:
    assert list(Headers([("A", "1"), ("B", "2"), ("a", "3")])) == ["A", "B"]


def test_length_counts_names() -> None:
    assert len(Headers([("A", "1"), ("B", "2"), ("a", "3")])) == 2


def test_items_gives_all_fields_as_written() -> None:
    pairs = [("A", "1"), ("B", "2"), ("a", "3")]
    assert list(Headers(pairs).items()) == pairs


def test_the_length_of_items_counts_fields() -> None:
    assert len(Headers([("A", "1"), ("a", "3")]).items()) == 2


@pytest.mark.parametrize(("pair", "found"), [(("a", "3"), True), (("A", "1, 3"), False)])
def test_items_contains_single_fields(pair: tuple[str, str], found: bool) -> None:
    assert (pair in Headers([("A", "1"), ("a", "3")]).items()) is found


def test_headers_made_of_headers_keep_repeated_fields() -> None:
    headers = Headers([("A", "1"), ("a", "3")])
    assert list(Headers(headers).items()) == [("A", "1"), ("a", "3")]


def test_white_space_around_a_value_is_dropped() -> None:
    assert Headers({"A": " \t1 2\t "})["A"] == "1 2"


def test_a_value_may_have_tabs_and_latin_1() -> None:
    assert Headers({"A": "a\tb \xe9"})["A"] == "a\tb \xe9"


def test_setting_a_field_replaces_all_of_its_name_where_the_first_was() -> None:
    headers = Headers([("A", "1"), ("B", "2"), ("C", "3"), ("b", "4"), ("D", "5")])
    headers["b"] = "6"
    assert list(headers.items()) == [("A", "1"), ("b", "6"), ("C", "3"), ("D", "5")]


def test_setting_a_new_field_appends_it() -> None:
    headers = Headers({"A": "1"})
    headers["B"] = "2"
    assert list(headers.items()) == [("A", "1"), ("B", "2")]


def test_setting_a_bad_value_changes_nothing() -> None:
    headers = Headers({"A": "1"})
    with pytest.raises(ValueError, match="line break"):
        headers["A"] = "\n"
    assert list(headers.items()) == [("A", "1")]


def test_deleting_removes_all_fields_of_a_name() -> None:
    headers = Headers([("A", "1"), ("B", "2"), ("a", "3")])
    del headers["a"]
    assert list(headers.items()) == [("B", "2")]


def test_deleting_raises_key_error_when_there_is_no_such_field() -> None:
    headers = Headers({"A": "1"})
    with pytest.raises(KeyError, match="B"):
        del headers["B"]


def test_a_copy_can_be_changed_alone() -> None:
    headers = Headers({"A": "1"})
    copy = headers.copy()
    copy.add("A", "2")
    assert (headers["A"], copy["A"]) == ("1", "1, 2")


def test_headers_are_equal_without_regard_to_case_and_order_of_names() -> None:
    assert Headers([("A", "1"), ("B", "2")]) == Headers([("b", "2"), ("a", "1")])


def test_headers_differ_when_the_values_of_a_name_come_in_another_order() -> None:
    assert Headers([("A", "1"), ("A", "2")]) != Headers([("A", "2"), ("A", "1")])


def test_headers_do_not_equal_a_dict() -> None:
    assert Headers({"A": "1"}) != {"A": "1"}


def test_repr_shows_the_fields() -> None:
    assert repr(Headers([("A", "1"), ("a", "2")])) == "Headers([('A', '1'), ('a', '2')])"


@pytest.mark.parametrize("name", ["Authorization", "cookie", "Proxy-Authorization", "Set-Cookie"])
def test_repr_hides_secrets(name: str) -> None:
    assert repr(Headers({name: "secret"})) == f"Headers([({name!r}, '<hidden>')])"


@pytest.mark.parametrize(("value", "flaw"), INJECTIONS)
def test_a_value_that_cannot_stand_in_a_field_is_refused(value: str, flaw: str) -> None:
    with pytest.raises(ValueError, match="X-A") as caught:
        Headers({"X-A": value})
    assert str(caught.value) == f"value of header 'X-A' {flaw}"


@pytest.mark.parametrize(("name", "flaw"), INJECTIONS)
def test_a_name_that_cannot_stand_in_a_field_is_refused(name: str, flaw: str) -> None:
    with pytest.raises(ValueError, match="header name") as caught:
        Headers([(name, "1")])
    assert str(caught.value) == f"header name {name!r} {flaw}"


@pytest.mark.parametrize("name", ["", " ", "a b", "a:", "a ", "a\t", "\xe9", "(a)"])
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a token"):
        Headers({name: "1"})


def test_add_refuses_a_line_break() -> None:
    with pytest.raises(ValueError, match="value of header 'A' has a line break"):
        Headers().add("A", "1\r\nB: 2")


def test_a_value_that_is_no_str_is_refused() -> None:
    with pytest.raises(TypeError, match="value of header 'A' must be a str, not int"):
        Headers({"A": 1})  # type: ignore[arg-type]  # the mistake that is tested


def test_a_name_that_is_no_str_is_refused() -> None:
    with pytest.raises(TypeError, match="header name must be a str, not bytes"):
        Headers({b"A": "1"})  # type: ignore[arg-type]  # the mistake that is tested


@pytest.mark.parametrize("fields", ["A: 1", b"A: 1"])
def test_text_is_no_headers(fields: str | bytes) -> None:
    with pytest.raises(TypeError, match="must be a mapping or an iterable of pairs, not"):
        Headers(fields)  # type: ignore[arg-type]  # the mistake that is tested


@pytest.mark.parametrize(("text", "expected"), [("a-b.c", True), ("", False), ("a b", False)])
def test_a_token_is_told_from_other_text(text: str, expected: bool) -> None:
    assert is_token(text) is expected


# Response


@pytest.mark.parametrize("status", [-1, 0, 99, 1000])
def test_a_response_needs_three_digits(status: int) -> None:
    with pytest.raises(ValueError, match=f"status {status} does not have three digits"):
        Response(status, "")


@pytest.mark.parametrize(("reason", "flaw"), INJECTIONS)
def test_a_reason_phrase_cannot_break_its_line(reason: str, flaw: str) -> None:
    with pytest.raises(ValueError, match="reason phrase") as caught:
        Response(200, reason)
    assert str(caught.value) == f"reason phrase {flaw}"


def test_the_repr_of_a_response_has_the_size_of_the_body_alone() -> None:
    assert repr(Response(200, "OK", Headers({"A": "1"}), b"secret")) == (
        "Response(status=200, reason='OK', headers=Headers([('A', '1')]), body=<6 bytes>)"
    )


def test_a_response_has_the_names_that_users_of_websockets_know() -> None:
    response = Response(404, "Not Found")
    assert (response.status_code, response.reason_phrase) == (404, "Not Found")


def test_a_text_response_is_complete() -> None:
    assert text_response(404, "n\xf6\n") == Response(
        404,
        "Not Found",
        Headers({"Content-Type": "text/plain; charset=utf-8", "Content-Length": "4"}),
        b"n\xc3\xb6\n",
    )


# Request


def test_respond_gives_a_text_response() -> None:
    assert Request("GET", "/", Headers()).respond(200, "OK\n") == text_response(200, "OK\n")


def test_respond_takes_another_content_type() -> None:
    response = Request("GET", "/", Headers()).respond(200, "{}", {"content-type": "text/json"})
    assert response.headers.get_all("Content-Type") == ["text/json"]


def test_respond_sets_the_content_length_itself() -> None:
    response = Request("GET", "/", Headers()).respond(200, "abc", {"Content-Length": "99"})
    assert response.headers.get_all("Content-Length") == ["3"]


def test_respond_has_no_reason_phrase_when_the_status_is_unknown() -> None:
    assert Request("GET", "/", Headers()).respond(599).reason == ""


@pytest.mark.parametrize("status", [101, 199, 600])
def test_respond_refuses_a_status_that_is_not_final(status: int) -> None:
    with pytest.raises(ValueError, match=rf"status {status} is not in 200\.\.599"):
        Request("GET", "/", Headers()).respond(status)


def test_respond_refuses_a_line_break() -> None:
    with pytest.raises(ValueError, match="value of header 'Location' has a line break"):
        Request("GET", "/", Headers()).respond(302, headers={"Location": "/\r\nA: 1"})


def test_the_repr_of_a_request_leaves_out_the_data_of_the_application() -> None:
    assert repr(Request("GET", "/", Headers(), {"password": "secret"})) == (
        "Request(method='GET', path='/', headers=Headers([]), subprotocols=(), origin=None, "
        "local_address=None, remote_address=None)"
    )


def test_a_request_that_came_over_nothing_has_no_typed_attributes() -> None:
    request = Request("GET", "/", Headers())
    assert request.extra(SocketAttribute.raw_socket, "none") == "none"
    with pytest.raises(LookupError):
        request.extra(SocketAttribute.raw_socket)


def test_a_request_can_be_copied_and_stored_whatever_it_came_over() -> None:
    request = Request("GET", "/", Headers({"A": "b"}))
    request._come_over(object())
    for copied in (copy.deepcopy(request), pickle.loads(pickle.dumps(request))):  # ours
        assert copied == request
        assert copied.extra(SocketAttribute.raw_socket, "none") == "none"
    assert "stream" not in str(dataclasses.asdict(request))


def test_each_request_has_data_of_its_own() -> None:
    one, other = Request("GET", "/", Headers()), Request("GET", "/", Headers())
    one.data["user"] = "alice"
    assert other.data == {}


@pytest.mark.parametrize("fields", [5, object()], ids=["int", "object"])
def test_what_cannot_be_iterated_over_is_no_headers(fields: Any) -> None:
    kind = type(fields).__name__
    with pytest.raises(TypeError, match=f"^headers must be a mapping or an iterable of .*{kind}$"):
        Headers(fields)


@pytest.mark.parametrize("pair", [1, ("a",), ("a", "b", "c"), "abc"], ids=repr)
def test_what_is_no_pair_is_no_field(pair: Any) -> None:
    text = f"^headers must have pairs of name and value, not {type(pair).__name__}$"
    with pytest.raises(TypeError, match=text):
        Headers([pair])


@pytest.mark.parametrize("status", [200.5, "200", True], ids=repr)
def test_a_response_needs_a_status_that_is_an_int(status: Any) -> None:
    with pytest.raises(TypeError, match=f"^status must be an int, not {type(status).__name__}$"):
        Response(status, "OK")
    with pytest.raises(TypeError, match=f"^status must be an int, not {type(status).__name__}$"):
        text_response(status)


def test_a_response_needs_a_reason_that_is_a_str() -> None:
    wrong: Any = b"OK"
    with pytest.raises(TypeError, match=r"^reason phrase must be a str, not bytes$"):
        Response(200, wrong)


def test_a_text_response_needs_a_str() -> None:
    wrong: Any = b"OK"
    with pytest.raises(TypeError, match=r"^text must be a str, not bytes$"):
        text_response(200, wrong)
