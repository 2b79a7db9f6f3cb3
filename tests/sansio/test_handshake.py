"""Where an HTTP head ends, and what it may not exceed, however its bytes come."""

from __future__ import annotations

import h11
import pytest

from anyws._http import Headers
from anyws.exceptions import InvalidHeader, InvalidMessage, InvalidUpgrade
from anyws.sansio._handshake import (
    MAX_HEAD_SIZE,
    MAX_HEADERS,
    MAX_LINE_SIZE,
    HeadReader,
    Kind,
    check_connection,
    next_event,
    single_value,
)

HEAD = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def feed(reader: HeadReader, data: bytes, size: int) -> bytes | None:
    """Feed a reader in pieces of `size` bytes, until it gives the head."""
    for start in range(0, len(data), size):
        head = reader.receive(data[start : start + size])
        if head is not None:
            assert start + size >= len(data)
            return head
    return None


def first_line(kind: Kind, size: int) -> bytes:
    """Make a first line of so many bytes."""
    if kind == "response":
        return b"HTTP/1.1 200 ".ljust(size, b"a")
    return b"GET /".ljust(size - 9, b"a") + b" HTTP/1.1"


def padded_head(size: int) -> bytes:
    """Make a head of `size` bytes of which no line is over the limit."""
    head = b"GET / HTTP/1.1\r\n" + 4 * (b"A: " + 8000 * b"a" + b"\r\n")
    return head + b"B: " + (size - len(head) - 7) * b"b" + b"\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_a_head_is_cut_off_however_it_is_split(size: int) -> None:
    reader = HeadReader("request")
    assert (feed(reader, HEAD, size), reader.rest) == (HEAD, b"")


def test_what_follows_the_head_is_kept() -> None:
    reader = HeadReader("request")
    assert (reader.receive(HEAD + b"\x81\x00\n\r\n\r\n"), reader.rest) == (
        HEAD,
        b"\x81\x00\n\r\n\r\n",
    )


def test_what_follows_the_head_is_kept_when_it_exceeds_the_limit_of_the_head() -> None:
    reader = HeadReader("request")
    reader.receive(HEAD + MAX_HEAD_SIZE * b"x")
    assert reader.rest == MAX_HEAD_SIZE * b"x"


def test_lines_may_end_without_a_carriage_return() -> None:
    reader = HeadReader("request")
    assert reader.receive(b"GET / HTTP/1.1\nHost: h\n\nrest") == b"GET / HTTP/1.1\nHost: h\n\n"


def test_nothing_has_started_before_the_first_byte() -> None:
    reader = HeadReader("request")
    reader.receive(b"")
    assert not reader.started


def test_a_byte_starts_it() -> None:
    reader = HeadReader("request")
    reader.receive(b"G")
    assert reader.started


@pytest.mark.parametrize("size", [1000, 100_000])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_first_line_at_the_limit_passes(size: int, end: bytes) -> None:
    head = first_line("request", MAX_LINE_SIZE) + end + end
    assert feed(HeadReader("request"), head, size) == head


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\n", b"\r\n\r\n"])
@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("request", "request line exceeds the limit of 8192 bytes"),
        ("response", "status line exceeds the limit of 8192 bytes"),
    ],
)
def test_a_first_line_over_the_limit_is_refused(kind: Kind, problem: str, end: bytes) -> None:
    with pytest.raises(InvalidMessage) as caught:
        HeadReader(kind).receive(first_line(kind, MAX_LINE_SIZE + 1) + end)
    assert caught.value.args == (problem, 414)


def test_a_carriage_return_at_the_limit_is_not_taken_for_a_part_of_the_line() -> None:
    reader = HeadReader("request")
    assert reader.receive(b"G" * MAX_LINE_SIZE + b"\r") is None


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_header_line_at_the_limit_passes(size: int) -> None:
    head = b"GET / HTTP/1.1\r\nA: " + b"a" * (MAX_LINE_SIZE - 3) + b"\r\n\r\n"
    assert feed(HeadReader("request"), head, size) == head


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_header_line_over_the_limit_is_refused(end: bytes) -> None:
    with pytest.raises(InvalidMessage) as caught:
        HeadReader("request").receive(b"GET / HTTP/1.1\r\nA: " + b"a" * (MAX_LINE_SIZE - 2) + end)
    assert caught.value.args == ("header line exceeds the limit of 8192 bytes", 431)


def test_as_many_headers_as_the_limit_pass() -> None:
    head = b"GET / HTTP/1.1\r\n" + MAX_HEADERS * b"A: a\r\n" + b"\r\n"
    assert HeadReader("request").receive(head) == head


def test_more_headers_than_the_limit_are_refused() -> None:
    with pytest.raises(InvalidMessage) as caught:
        HeadReader("request").receive(b"GET / HTTP/1.1\r\n" + (MAX_HEADERS + 1) * b"A: a\r\n")
    assert caught.value.args == ("request head exceeds the limit of 128 header lines", 431)


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_head_at_the_limit_passes(size: int) -> None:
    head = padded_head(MAX_HEAD_SIZE)
    assert feed(HeadReader("request"), head, size) == head


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_head_over_the_limit_is_refused(size: int) -> None:
    with pytest.raises(InvalidMessage) as caught:
        feed(HeadReader("request"), padded_head(MAX_HEAD_SIZE + 1), size)
    assert caught.value.args == ("request head exceeds the limit of 32768 bytes", 431)


def test_heads_before_it_count_for_the_limit() -> None:
    with pytest.raises(InvalidMessage, match="response head exceeds the limit of 32768 bytes"):
        HeadReader("response", used=MAX_HEAD_SIZE - 10).receive(b"HTTP/1.1 1")


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_an_empty_line_before_a_request_is_ignored(size: int) -> None:
    assert feed(HeadReader("request"), b"\r\n" + HEAD, size) == HEAD


def test_an_empty_line_starts_nothing() -> None:
    reader = HeadReader("request")
    assert reader.receive(b"\r\n") is None
    assert not reader.started


def test_an_empty_line_before_a_response_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="malformed HTTP response: illegal status line"):
        HeadReader("response").receive(b"\r\nHTTP/1.1 101 Switching Protocols\r\n\r\n")


@pytest.mark.parametrize("data", [b"\x16\x02\x01", b" GET /", b"\r\n\r\n", b"\rG", b"\n", b"\0"])
def test_an_illegal_first_byte_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(InvalidMessage) as caught:
        HeadReader("request").receive(data)
    assert caught.value.args == ("malformed HTTP request: illegal request line", 400)


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize(
    ("kind", "data", "problem"),
    [
        (
            "request",
            b"\x16\x03\x01\x02\x00\x01",
            "malformed HTTP request: illegal request line (TLS came to a port without it)",
        ),
        (
            "response",
            b"\x15\x03\x03\x00\x02\x02\x32",
            (
                "malformed HTTP response: illegal status line"
                " (TLS is spoken there; wss:// and, for a proxy, https:// ask for it)"
            ),
        ),
    ],
)
def test_tls_is_told_by_its_first_two_bytes(
    kind: Kind, data: bytes, problem: str, size: int
) -> None:
    with pytest.raises(InvalidMessage) as caught:
        feed(HeadReader(kind), data, size)
    assert caught.value.args == (problem, 400)


@pytest.mark.parametrize("char", [b"\0", b"\x01", b"\x0b", b"\x0c", b"\r", b"\x1f", b"\x7f"])
def test_a_control_character_is_refused(char: bytes) -> None:
    with pytest.raises(InvalidMessage, match="malformed HTTP response: control character"):
        HeadReader("response").receive(b"HTTP/1.1 200 OK\r\nA: b" + char + b"c\r\n\r\n")


@pytest.mark.parametrize(
    ("kind", "data", "problem"),
    [
        ("request", b"", "connection closed while reading HTTP request line"),
        ("request", b"GET / HTTP/1.1\r", "connection closed while reading HTTP request line"),
        ("request", b"GET / HTTP/1.1\r\n", "connection closed while reading HTTP request head"),
        ("response", b"HTTP/1.1", "connection closed while reading HTTP status line"),
        ("response", b"HTTP/1.1 101\r\nA", "connection closed while reading HTTP response head"),
    ],
)
def test_the_error_at_the_end_says_where_that_is(kind: Kind, data: bytes, problem: str) -> None:
    reader = HeadReader(kind)
    reader.receive(data)
    assert str(reader.eof_error()) == problem


def test_what_is_not_http_is_refused_without_quoting_it() -> None:
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(b"GET / HTTP/1.1\r\nCookie\r\n secret\r\n\r\n")
    with pytest.raises(InvalidMessage) as caught:
        next_event(parser, "request")
    assert caught.value.args == ("malformed HTTP request: illegal header line", 400)


def test_headers_keep_spelling_and_order() -> None:
    fields = [(b"Host", b"H"), (b"hOST", b"h"), (b"A", b"\xe9"), (b"a", b"")]
    assert list(Headers.of_parsed(fields).items()) == [
        ("Host", "H"),
        ("hOST", "h"),
        ("A", "\xe9"),
        ("a", ""),
    ]


def test_a_single_value_is_given() -> None:
    assert single_value(Headers({"A": "1"}), "A") == "1"


def test_a_single_value_may_be_missing() -> None:
    assert single_value(Headers(), "A") is None


def test_a_doubled_field_is_refused() -> None:
    with pytest.raises(InvalidHeader) as caught:
        single_value(Headers([("A", "1"), ("a", "1")]), "A")
    assert caught.value.args == ("A", "1, 1", "it is given 2 times")


@pytest.mark.parametrize("value", ["Upgrade", "upgrade", "keep-alive, UPGRADE"])
def test_connection_may_have_other_options(value: str) -> None:
    headers = Headers({"Connection": value})
    check_connection(headers)
    assert headers["Connection"] == value


@pytest.mark.parametrize("value", ["keep-alive", "upgraded", "keep alive, Upgrade", ""])
def test_a_connection_without_upgrade_is_refused(value: str) -> None:
    with pytest.raises(InvalidUpgrade) as caught:
        check_connection(Headers({"Connection": value}))
    assert (caught.value.name, caught.value.value) == ("Connection", value)


def test_a_missing_connection_is_refused() -> None:
    with pytest.raises(InvalidUpgrade, match="missing Connection header"):
        check_connection(Headers())
