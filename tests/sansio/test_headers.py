"""The fields of the opening handshake, parsed and built (RFC 6455 sections 4 and 9.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyws.exceptions import InvalidHeader, InvalidUpgrade
from anyws.sansio._headers import (
    accept_key,
    build_basic_authorization,
    build_extensions,
    build_host,
    build_key,
    build_subprotocols,
    check_subprotocols,
    is_valid_key,
    parse_basic_authorization,
    parse_connection,
    parse_extensions,
    parse_subprotocols,
    parse_token_list,
    parse_upgrade,
)

if TYPE_CHECKING:
    from anyws.sansio._extensions import Parameter

TOKENS = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1)


# Lists of tokens


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        (" a\t, b ", ["a", "b"]),
        (",a,, ,b,", ["a", "b"]),
        ("!#$%&'*+-.^_`|~09azAZ", ["!#$%&'*+-.^_`|~09azAZ"]),
    ],
)
def test_a_list_is_split_into_tokens(value: str, tokens: list[str]) -> None:
    assert parse_token_list(value, "X-List") == tokens


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "it is empty"),
        (" , ,", "it is empty"),
        ("a b", "'a b' is not a token"),
        ("a, b/1", "'b/1' is not a token"),
        ('"a"', "'\"a\"' is not a token"),
        ("\xe9", "'\xe9' is not a token"),
    ],
)
def test_a_list_of_something_else_is_refused(value: str, problem: str) -> None:
    with pytest.raises(InvalidHeader) as caught:
        parse_token_list(value, "X-List")
    assert caught.value.args == ("X-List", value, problem)


def test_connection_is_split_into_options() -> None:
    assert parse_connection("keep-alive, Upgrade") == ["keep-alive", "Upgrade"]


def test_a_malformed_connection_is_an_invalid_upgrade() -> None:
    with pytest.raises(InvalidUpgrade, match="'keep alive' is not a token"):
        parse_connection("keep alive")


def test_upgrade_is_split_into_protocols_with_versions() -> None:
    assert parse_upgrade("TLS/1.0, websocket") == ["TLS/1.0", "websocket"]


@pytest.mark.parametrize("value", ["a/", "/1", "a/1/2", "a b", ""])
def test_a_malformed_upgrade_is_an_invalid_upgrade(value: str) -> None:
    with pytest.raises(InvalidUpgrade, match="invalid Upgrade header"):
        parse_upgrade(value)


# Subprotocols


def test_subprotocols_are_split() -> None:
    assert parse_subprotocols("chat, superchat") == ["chat", "superchat"]


def test_malformed_subprotocols_are_refused() -> None:
    with pytest.raises(InvalidHeader, match="invalid Sec-WebSocket-Protocol header: 'a b'"):
        parse_subprotocols("a b")


def test_subprotocols_are_joined() -> None:
    assert build_subprotocols(["chat", "superchat"]) == "chat, superchat"


@pytest.mark.parametrize(
    ("subprotocol", "flaw"),
    [
        ("", "is not a token"),
        ("a b", "is not a token"),
        ("a,b", "is not a token"),
        ("a\r\nB: 1", "has a line break"),
        ("a\n", "has a line break"),
        ("a\0", "has a NUL"),
    ],
)
def test_a_subprotocol_that_is_no_token_is_refused(subprotocol: str, flaw: str) -> None:
    with pytest.raises(ValueError, match="subprotocol") as caught:
        check_subprotocols(["chat", subprotocol])
    assert str(caught.value) == f"subprotocol {subprotocol!r} {flaw}"


def test_a_subprotocol_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="subprotocol 'a' is given more than once"):
        check_subprotocols(["a", "b", "a"])


@pytest.mark.parametrize("subprotocols", ["chat", b"chat"])
def test_one_str_is_no_sequence_of_subprotocols(subprotocols: str | bytes) -> None:
    with pytest.raises(TypeError, match="subprotocols must be a sequence of str such as a list"):
        check_subprotocols(subprotocols)  # type: ignore[arg-type]  # the mistake that is tested


def test_a_subprotocol_that_is_no_str_is_refused() -> None:
    with pytest.raises(TypeError, match="subprotocol must be a str, not bytes"):
        check_subprotocols([b"chat"])  # type: ignore[list-item]  # the mistake that is tested


# Extensions


@pytest.mark.parametrize(
    ("value", "extensions"),
    [
        ("foo", [("foo", [])]),
        ("foo, bar", [("foo", []), ("bar", [])]),
        (",, foo ,\t, bar ,", [("foo", []), ("bar", [])]),
        ("foo; a", [("foo", [("a", None)])]),
        ("foo;a=1;b", [("foo", [("a", "1"), ("b", None)])]),
        ("foo ; a = 1 ; b , bar", [("foo", [("a", "1"), ("b", None)]), ("bar", [])]),
        ('foo; a="1"; b="\\2\\3"', [("foo", [("a", "1"), ("b", "23")])]),
        ("foo; a=1; a=2", [("foo", [("a", "1"), ("a", "2")])]),
    ],
)
def test_extensions_are_split_into_names_and_parameters(
    value: str, extensions: list[tuple[str, list[Parameter]]]
) -> None:
    assert parse_extensions(value) == extensions


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "it is empty"),
        (" , ", "it is empty"),
        (";", "no extension name at character 0"),
        ("foo, ;", "no extension name at character 5"),
        ("foo bar", "unexpected text at character 3"),
        ("foo;", "unexpected text at character 3"),
        ("foo; =1", "unexpected text at character 3"),
        ("foo; a=", "unexpected text at character 6"),
        ("foo; a=1 2", "unexpected text at character 8"),
        ('foo; a="1', "unexpected text at character 6"),
        ('foo; a="1\\"', "unexpected text at character 6"),
        ('foo; a=""', "value of parameter 'a' is not a token"),
        ('foo; a="1 2"', "value of parameter 'a' is not a token"),
        ('foo; a="1,2"', "value of parameter 'a' is not a token"),
    ],
)
def test_malformed_extensions_are_refused(value: str, problem: str) -> None:
    with pytest.raises(InvalidHeader) as caught:
        parse_extensions(value)
    assert caught.value.args == ("Sec-WebSocket-Extensions", value, problem)


def test_extensions_are_built() -> None:
    assert build_extensions([("foo", [("a", "1"), ("b", None)]), ("bar", [])]) == (
        "foo; a=1; b, bar"
    )


@pytest.mark.parametrize("text", ["", "a b", "a;b", "a\r\nB: 1", "a\n", "a\0"])
def test_the_name_of_an_extension_must_be_a_token(text: str) -> None:
    with pytest.raises(ValueError, match="name or parameter of an extension"):
        build_extensions([(text, [])])


@pytest.mark.parametrize("text", ["", "a b", "a;b", "a\r\nB: 1", "a\n", "a\0"])
def test_the_name_of_a_parameter_must_be_a_token(text: str) -> None:
    with pytest.raises(ValueError, match="name or parameter of an extension"):
        build_extensions([("foo", [(text, None)])])


@pytest.mark.parametrize("text", ["", "a b", "a;b", "a\r\nB: 1", "a\n", "a\0"])
def test_the_value_of_a_parameter_must_be_a_token(text: str) -> None:
    with pytest.raises(ValueError, match="name or parameter of an extension"):
        build_extensions([("foo", [("a", text)])])


@given(
    st.lists(
        st.tuples(TOKENS, st.lists(st.tuples(TOKENS, st.none() | TOKENS), max_size=3)),
        min_size=1,
        max_size=3,
    )
)
def test_what_is_built_is_parsed_again(extensions: list[tuple[str, list[Parameter]]]) -> None:
    assert parse_extensions(build_extensions(extensions)) == extensions


@given(st.text(st.sampled_from('a;,="\\ \t')))
def test_any_text_is_parsed_or_refused(value: str) -> None:
    try:
        extensions = parse_extensions(value)
    except InvalidHeader:
        return
    assert parse_extensions(build_extensions(extensions)) == extensions


# The key


def test_the_accept_key_is_that_of_the_rfc() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_a_key_is_built() -> None:
    assert build_key(b"the sample nonce") == "dGhlIHNhbXBsZSBub25jZQ=="


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_nonce_must_have_16_bytes(size: int) -> None:
    with pytest.raises(ValueError, match=f"key of {size} bytes does not have 16 bytes"):
        build_key(b"x" * size)


def test_a_nonce_must_be_bytes() -> None:
    with pytest.raises(TypeError, match="key must be bytes, not str"):
        build_key("the sample nonce")  # type: ignore[arg-type]  # the mistake that is tested


@pytest.mark.parametrize(
    ("key", "valid"),
    [
        ("dGhlIHNhbXBsZSBub25jZQ==", True),
        ("dGhlIHNhbXBsZSBub25jZQ", False),
        ("dGhlIHNhbXBsZSBub25j", False),
        ("dGhlIHNhbXBsZSBub25jZSE=", False),
        ("dGhlIHNhbXBsZSBub25jZSEh", False),
        ("dGhlIHNhbXBsZS Bub25jZQ==", False),
        ("dGhlIHNhbXBsZSBub25jZQ==x", False),
        ("\xe9GhlIHNhbXBsZSBub25jZQ==", False),
        ("", False),
    ],
)
def test_a_key_is_16_bytes_in_base64(key: str, valid: bool) -> None:
    assert is_valid_key(key) is valid


# Authorization and Host


def test_basic_authorization_is_that_of_the_rfc() -> None:
    assert build_basic_authorization("Aladdin", "open sesame") == (
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    )


def test_basic_authorization_is_in_utf_8() -> None:
    assert build_basic_authorization("test", "123\xa3") == "Basic dGVzdDoxMjPCow=="


def test_the_password_of_basic_authorization_may_have_a_colon() -> None:
    assert build_basic_authorization("a", "b:c") == "Basic YTpiOmM="


def test_the_user_of_basic_authorization_cannot_have_a_colon() -> None:
    with pytest.raises(ValueError, match="user for Basic authentication has a colon"):
        build_basic_authorization("a:b", "c")


@pytest.mark.parametrize("char", ["\0", "\r", "\n", "\t", "\x7f", "\x9f"])
def test_basic_authorization_cannot_have_control_characters(char: str) -> None:
    with pytest.raises(ValueError, match="has a control character"):
        build_basic_authorization("a", char)


@pytest.mark.parametrize(
    ("value", "credentials"),
    [
        ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ("Aladdin", "open sesame")),
        ("basic dGVzdDoxMjPCow==", ("test", "123\xa3")),
        ("BASIC   YTpiOmM=", ("a", "b:c")),
        ("Basic Og==", ("", "")),
    ],
)
def test_basic_authorization_is_parsed(value: str, credentials: tuple[str, str]) -> None:
    assert parse_basic_authorization(value) == credentials


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "the scheme is not Basic"),
        ("Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "the scheme is not Basic"),
        ("BasicQWxhZGRpbjpvcGVuIHNlc2FtZQ==", "the scheme is not Basic"),
        ("Basic", "the credentials have no colon"),
        ("Basic secret!", "the credentials are not in base64"),
        ("Basic s\xe9cret==", "the credentials are not in base64"),
        ("Basic YTpiOmM", "the credentials are not in base64"),
        ("Basic YTpiOmM=, Basic YTpiOmM=", "the credentials are not in base64"),
        ("Basic dGVzdDoxMjOj", "the credentials are not in UTF-8"),
        ("Basic c2VjcmV0", "the credentials have no colon"),
        ("Basic YTpiCg==", "the credentials have a control character"),
    ],
)
def test_malformed_basic_authorization_is_an_error_that_quotes_nothing(
    value: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$") as caught:
        parse_basic_authorization(value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.text(), st.text())
def test_basic_authorization_that_is_built_can_be_parsed(user: str, password: str) -> None:
    try:
        value = build_basic_authorization(user, password)
    except ValueError:
        return
    assert parse_basic_authorization(value) == (user, password)


@pytest.mark.parametrize(
    ("host", "port", "secure", "expected"),
    [
        ("example.com", 80, False, "example.com"),
        ("example.com", 443, True, "example.com"),
        ("example.com", 443, False, "example.com:443"),
        ("example.com", 80, True, "example.com:80"),
        ("127.0.0.1", 8765, False, "127.0.0.1:8765"),
        ("::1", 80, False, "[::1]"),
        ("::1", 8765, False, "[::1]:8765"),
        ("fe80::1%eth0", 8765, False, "[fe80::1]:8765"),
    ],
)
def test_host_leaves_out_the_default_port_and_the_zone(
    host: str, port: int, secure: bool, expected: str
) -> None:
    assert build_host(host, port, secure) == expected
