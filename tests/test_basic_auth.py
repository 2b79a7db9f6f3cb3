"""Names and passwords: what `basic_auth` lets pass and how it answers the rest (RFC 7617)."""

from __future__ import annotations

import base64
import hmac
import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from anyws.testing import memory_server
from tests.sockets import loud_records, open_peer, parse_answer, serving_memory
from tests.wire import REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sockets import Answer

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

CHALLENGE = 'Basic realm="members", charset="UTF-8"'

# RFC 7617 sections 2 and 2.1.
ALADDIN = b"Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"
TEST = b"Authorization: Basic dGVzdDoxMjPCow==\r\n"


def authorization(credentials: bytes) -> bytes:
    return b"Authorization: Basic " + base64.b64encode(credentials) + b"\r\n"


async def answer_to(headers: bytes, hook: Callable[..., object]) -> Answer:
    """Give what a request that does not open a connection is answered with."""
    async with serving_memory(process_request=hook) as (_, connect):
        peer = await connect()
        await peer.send_bytes(REQUEST + headers + b"\r\n")
        return parse_answer(await peer.read_until_eof())


async def name_after(headers: bytes, hook: Callable[..., object]) -> object:
    """Give the name that the handler sees."""
    names: list[object] = []

    async def handler(ws: anyws.Connection) -> None:
        names.append(ws.data["username"])

    async with serving_memory(handler, process_request=hook) as (_, connect):
        peer = await connect()
        await open_peer(peer, headers)
        await peer.answer_close()
    (name,) = names
    return name


# Right credentials


@pytest.mark.parametrize(
    ("headers", "credentials", "name"),
    [
        (ALADDIN, ("Aladdin", "open sesame"), "Aladdin"),
        (ALADDIN, [("test", "123\xa3"), ("Aladdin", "open sesame")], "Aladdin"),
        (TEST, [["test", "123\xa3"]], "test"),
        (TEST, {"test": "123\xa3", "a": "b"}.items(), "test"),
        (ALADDIN.replace(b"Basic", b"bAsIc"), ("Aladdin", "open sesame"), "Aladdin"),
        (authorization(b"a:b:c"), ("a", "b:c"), "a"),
        (authorization(b":"), ("", ""), ""),
        (authorization("j\xfcrg:\u540d".encode()), {("j\xfcrg", "\u540d")}, "j\xfcrg"),
    ],
)
async def test_right_credentials_connect_and_the_name_is_in_data(
    headers: bytes, credentials: Any, name: str
) -> None:
    hook = anyws.basic_auth(realm="members", credentials=credentials)
    assert await name_after(headers, hook) == name


async def test_client_with_user_info_in_its_uri_connects() -> None:
    async def handler(ws: anyws.Connection) -> None:
        await ws.send(ws.data["username"])

    hook = anyws.basic_auth(credentials=("j\xfcrg", "p@:"))
    async with memory_server(handler, process_request=hook) as connect:
        async with connect("ws://j%C3%BCrg:p%40%3A@localhost/") as ws:
            assert await ws.recv() == "j\xfcrg"
        with pytest.raises(anyws.InvalidStatus) as caught:
            async with connect("ws://localhost/"):
                raise AssertionError
    assert caught.value.response.status == 401


# Wrong ones


async def test_request_without_credentials_gets_the_challenge() -> None:
    hook = anyws.basic_auth(realm="members", credentials=("Aladdin", "open sesame"))
    answer = await answer_to(b"", hook)
    assert answer.raw.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert answer.fields["www-authenticate"] == CHALLENGE
    assert answer.fields["content-type"] == "text/plain; charset=utf-8"
    assert answer.body == b"a name and a password are needed\n"


@pytest.mark.parametrize(
    "headers",
    [
        TEST,
        authorization(b"Aladdin:open sesam"),
        authorization(b"Aladdin:open sesame!"),
        authorization(b"Aladdin:"),
        authorization(b"aladdin:open sesame"),
        authorization(b"Ali:open sesame"),
        authorization(b":open sesame"),
        # The name of one and the password of another.
        authorization(b"Aladdin:secret"),
    ],
)
async def test_wrong_name_or_password_is_a_401(headers: bytes) -> None:
    credentials = [("Aladdin", "open sesame"), ("Cassim", "secret")]
    answer = await answer_to(headers, anyws.basic_auth(realm="members", credentials=credentials))
    assert (answer.status, answer.body) == (401, b"wrong name or password\n")
    assert answer.fields["www-authenticate"] == CHALLENGE


async def test_nobody_connects_when_there_are_no_credentials() -> None:
    assert (await answer_to(ALADDIN, anyws.basic_auth(credentials=[]))).status == 401


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        (b"Authorization:\r\n", b"the scheme is not Basic"),
        (b"Authorization: Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n", b"the scheme is not Basic"),
        (b"Authorization: Basic\r\n", b"the credentials have no colon"),
        (b"Authorization: Basic ****\r\n", b"the credentials are not in base64"),
        (b"Authorization: Basic \xff\xfe\r\n", b"the credentials are not in base64"),
        (ALADDIN + ALADDIN, b"the credentials are not in base64"),
        (authorization(b"Aladdin"), b"the credentials have no colon"),
        (authorization(b"test:123\xa3"), b"the credentials are not in UTF-8"),
        (authorization(b"a:b\r\nX: y"), b"the credentials have a control character"),
    ],
)
async def test_malformed_authorization_is_a_401_and_not_worth_a_warning(
    headers: bytes, problem: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    hook = anyws.basic_auth(realm="members", credentials=("Aladdin", "open sesame"))
    answer = await answer_to(headers, hook)
    assert answer.body == b"malformed Authorization header: " + problem + b"\n"
    assert (answer.status, answer.fields["www-authenticate"]) == (401, CHALLENGE)
    assert loud_records(caplog) == []


async def test_log_says_nothing_of_the_credentials(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await answer_to(ALADDIN, anyws.basic_auth(credentials=("Cassim", "secret")))
    assert "answered with HTTP 401" in caplog.text
    for word in ("Aladdin", "sesame", "QWxh", "Cassim", "secret"):
        assert word not in caplog.text


async def test_each_name_and_each_password_is_compared_in_constant_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[Any, Any]] = []
    compare_digest = hmac.compare_digest

    def record(known: bytes, given: bytes) -> bool:
        compared.append((known, given))
        return compare_digest(known, given)

    monkeypatch.setattr(hmac, "compare_digest", record)
    hook = anyws.basic_auth(credentials=[("test", "123\xa3"), ("Aladdin", "open sesame")])
    assert await name_after(TEST, hook) == "test"
    given = "123\xa3".encode()
    assert compared == [
        (b"test", b"test"),
        (given, given),
        (b"Aladdin", b"test"),
        (b"open sesame", given),
    ]


# check_credentials


async def check_later(name: str, password: str) -> bool:
    await anyio.sleep(1)
    return (name, password) == ("Aladdin", "open sesame")


def check_now(name: str, password: str) -> bool:
    return (name, password) == ("Aladdin", "open sesame")


@pytest.mark.parametrize("check", [check_later, check_now])
async def test_check_credentials_may_be_plain_or_async(check: Any) -> None:
    hook = anyws.basic_auth(realm="members", check_credentials=check)
    assert await name_after(ALADDIN, hook) == "Aladdin"
    answer = await answer_to(TEST, hook)
    assert (answer.status, answer.fields["www-authenticate"]) == (401, CHALLENGE)


async def test_check_credentials_that_takes_too_long_is_cancelled() -> None:
    cancelled = []

    async def check(name: str, password: str) -> bool:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(anyio.current_time())
        return True

    hook = anyws.basic_auth(check_credentials=check)
    async with serving_memory(process_request=hook, open_timeout=10) as (server, connect):
        started = anyio.current_time()
        peer = await connect()
        await peer.send_bytes(REQUEST + ALADDIN + b"\r\n")
        assert await peer.read_until_eof() == b""
        assert not server.connections
    assert cancelled == [pytest.approx(started + 10)]


async def test_error_of_check_credentials_is_a_500_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(name: str, password: str) -> bool:
        raise RuntimeError("the database is down")

    answer = await answer_to(ALADDIN, anyws.basic_auth(check_credentials=fail))
    assert answer.status == 500
    assert b"database" not in answer.raw
    assert loud_records(caplog) == ["anyws.server: process_request failed (a local peer, /chat)"]


async def test_basic_auth_is_composed_with_another_hook_by_a_function() -> None:
    authenticate = anyws.basic_auth(credentials=("Aladdin", "open sesame"))

    async def process_request(request: anyws.Request) -> anyws.Response | None:
        if request.path == "/health":
            return request.respond(200, "OK\n")
        return await authenticate(request)

    async with serving_memory(process_request=process_request) as (_, connect):
        peer = await connect()
        await peer.send_bytes(REQUEST.replace(b"/chat", b"/health") + b"\r\n")
        assert parse_answer(await peer.read_until_eof()).status == 200
        await open_peer(await connect(), ALADDIN)


# The realm and the arguments


@pytest.mark.parametrize(
    ("realm", "quoted"),
    [("", '""'), ('the "best" \\ club', r'"the \"best\" \\ club"'), ("caf\xe9", '"caf\xe9"')],
)
async def test_realm_is_quoted(realm: str, quoted: str) -> None:
    answer = await answer_to(b"", anyws.basic_auth(realm=realm, credentials=("a", "b")))
    assert answer.fields["www-authenticate"] == f'Basic realm={quoted}, charset="UTF-8"'


@pytest.mark.parametrize(
    ("realm", "problem"),
    [
        ("a\r\nSet-Cookie: b", r"^realm 'a\\r\\nSet-Cookie: b' has a line break$"),
        ("a\n", "has a line break"),
        ("a\0", "has a NUL"),
        ("\u540d", "which is not in Latin-1"),
    ],
)
def test_realm_that_cannot_be_sent_is_a_valueerror_of_the_call(realm: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        anyws.basic_auth(realm=realm, credentials=("a", "b"))


@pytest.mark.parametrize(
    ("credentials", "problem"),
    [
        (("a:b", "c"), "has a colon"),
        ([("a", "b"), ("a", "b\n")], "has a control character"),
        (("a", "\ud800"), "surrogates not allowed"),
    ],
)
def test_credentials_that_no_client_can_send_are_a_valueerror_of_the_call(
    credentials: Any, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        anyws.basic_auth(credentials=credentials)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "takes either credentials or check_credentials"),
        ({"credentials": ("a", "b"), "check_credentials": check_now}, "takes either credentials"),
        ({"credentials": ("a", "b"), "realm": None}, "realm must be a str, not NoneType"),
        ({"check_credentials": "a:b"}, "check_credentials must be a function, not str"),
        ({"credentials": "ab"}, "credentials must be a pair .* not str"),
        ({"credentials": 1}, "credentials must be a pair .* not int"),
        ({"credentials": ["a", "b"]}, "credentials must be a pair .* not str"),
        ({"credentials": ("a", b"b")}, "credentials must be a pair .* not bytes"),
        ({"credentials": [(b"a", "b")]}, "credentials must be a pair .* not bytes"),
        ({"credentials": ("a", "b", "c")}, "credentials of 3 values are not a pair"),
        ({"credentials": {"alice": "secret"}}, "credentials must be a pair .* not str"),
    ],
)
def test_wrong_arguments_are_a_typeerror_of_the_call(
    arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(TypeError, match=problem) as caught:
        anyws.basic_auth(**arguments)
    assert "secret" not in str(caught.value)
