"""What an application may say in an opening handshake: hooks, subprotocols, fields of its own."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from tests.sockets import (
    loud_records,
    open_peer,
    parse_answer,
    serving_memory,
)
from tests.wire import REQUEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Connect = Callable[..., Awaitable[Any]]

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

ASK = REQUEST + b"\r\n"


async def answer_of(connect: Connect, request: bytes = ASK) -> Any:
    peer = await connect()
    await peer.send_bytes(request)
    return parse_answer(await peer.read_until_eof())


# process_request


@pytest.mark.behaviour(106)
async def test_response_of_process_request_goes_out_as_it_is() -> None:
    def refuse(request: anyws.Request) -> anyws.Response:
        headers = anyws.Headers({"X-Reason": "tired", "Server": "teapot"})
        return anyws.Response(418, "I'm a teapot", headers, b"\x00short and stout\xff")

    async with serving_memory(process_request=refuse) as (_, connect):
        answer = await answer_of(connect)
    assert answer.raw.startswith(b"HTTP/1.1 418 I'm a teapot\r\n")
    assert answer.fields["x-reason"] == "tired"
    assert answer.fields["server"] == "teapot"
    assert answer.fields["content-length"] == "17"
    assert answer.body == b"\x00short and stout\xff"


@pytest.mark.behaviour(106)
async def test_set_cookie_is_sent_as_often_as_it_is_given() -> None:
    def refuse(request: anyws.Request) -> anyws.Response:
        return request.respond(401, headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])

    async with serving_memory(process_request=refuse) as (_, connect):
        peer = await connect()
        await peer.send_bytes(ASK)
        data = await peer.read_until_eof()
    assert b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n" in data


@pytest.mark.behaviour(106)
async def test_wrong_framing_in_a_response_is_put_right() -> None:
    def refuse(request: anyws.Request) -> anyws.Response:
        headers = anyws.Headers({"Content-Length": "999", "Transfer-Encoding": "chunked"})
        return anyws.Response(200, "OK", headers, b"hello")

    async with serving_memory(process_request=refuse) as (_, connect):
        answer = await answer_of(connect)
    assert answer.fields["content-length"] == "5"
    assert "transfer-encoding" not in answer.fields


@pytest.mark.behaviour(106)
async def test_process_request_may_be_async() -> None:
    async def check_health(request: anyws.Request) -> anyws.Response | None:
        await anyio.sleep(1)
        return request.respond(200, "OK\n") if request.path == "/health" else None

    async with serving_memory(process_request=check_health) as (_, connect):
        answer = await answer_of(connect, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await open_peer(await connect())
    assert (answer.status, answer.body) == (200, b"OK\n")


@pytest.mark.behaviour(106)
async def test_head_request_to_process_request_gets_no_body() -> None:
    async with serving_memory(process_request=lambda r: r.respond(200, "OK\n")) as (_, connect):
        answer = await answer_of(connect, b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (answer.status, answer.fields["content-length"], answer.body) == (200, "3", b"")


@pytest.mark.behaviour(106)
@pytest.mark.parametrize("status", [204, 304])
async def test_response_that_has_no_body_has_no_length(status: int) -> None:
    async with serving_memory(process_request=lambda r: r.respond(status)) as (_, connect):
        answer = await answer_of(connect)
    assert (answer.status, answer.body) == (status, b"")
    assert "content-length" not in answer.fields


async def fail_later(request: anyws.Request) -> None:
    await anyio.sleep(0.001)
    raise RuntimeError("the database is down")


def fail_now(request: anyws.Request) -> None:
    raise RuntimeError("the database is down")


def give_nonsense(request: anyws.Request) -> object:
    return 403


def give_plain_dict(request: anyws.Request) -> anyws.Response:
    return anyws.Response(200, "OK", {"X": "a\r\nSet-Cookie: evil"})  # type: ignore[arg-type]  # that


def give_text_body(request: anyws.Request) -> anyws.Response:
    return anyws.Response(200, "OK", anyws.Headers(), "text")  # type: ignore[arg-type]  # that is it


def give_101(request: anyws.Request) -> anyws.Response:
    return anyws.Response(101, "Switching Protocols")


@pytest.mark.behaviour(106)
@pytest.mark.parametrize(
    "hook", [fail_later, fail_now, give_nonsense, give_plain_dict, give_text_body, give_101]
)
async def test_error_of_process_request_is_a_500_and_logged_once(
    hook: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_memory(process_request=hook) as (_, connect):
        answer = await answer_of(connect)
    assert answer.status == 500
    assert b"Traceback" not in answer.raw
    assert b"database" not in answer.raw
    assert b"evil" not in answer.raw
    assert loud_records(caplog) == ["anyws.server: process_request failed (a local peer, /chat)"]
    assert caplog.records[-1].exc_info is not None


@pytest.mark.parametrize("name", ["process_request", "process_response"])
async def test_error_of_a_hook_is_logged_when_the_server_is_dropped_meanwhile(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    waits = anyio.Event()

    async def hook(*_: Any) -> None:
        try:
            waits.set()
            await anyio.sleep_forever()
        finally:
            raise ValueError("no clean end")

    async def hook_with_tasks(*_: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hook)
            await anyio.sleep_forever()

    with pytest.raises(KeyError):
        async with serving_memory(**{name: hook_with_tasks}) as (_, connect):
            peer = await connect()
            await peer.send_bytes(REQUEST + b"\r\n")
            await waits.wait()
            raise KeyError
    assert loud_records(caplog) == [f"anyws.server: {name} failed (a local peer, /chat)"]


@pytest.mark.behaviour(106)
async def test_process_request_sees_the_request_and_fills_its_data() -> None:
    requests: list[anyws.Request] = []
    connections: list[anyws.Connection] = []

    def authenticate(request: anyws.Request) -> None:
        request.data["user"] = "alice"
        requests.append(request)

    async def handler(ws: anyws.Connection) -> None:
        connections.append(ws)

    async with serving_memory(handler, process_request=authenticate, subprotocols=["b"]) as (
        _,
        connect,
    ):
        peer = await connect()
        await open_peer(
            peer, b"Origin: http://localhost\r\nSec-WebSocket-Protocol: a, b\r\nX-Y: z\r\n"
        )
        await peer.answer_close()
    (request,) = requests
    assert (request.method, request.path) == ("GET", "/chat")
    assert request.headers["X-Y"] == "z"
    assert request.subprotocols == ("a", "b")
    assert request.origin == "http://localhost"
    (ws,) = connections
    assert ws.request is request
    assert ws.data == {"user": "alice"}
    assert (ws.path, ws.subprotocol) == ("/chat", "b")


@pytest.mark.behaviour(98, 106)
async def test_process_request_that_takes_too_long_is_ended_by_open_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def hang(request: anyws.Request) -> None:
        await anyio.sleep_forever()

    async with serving_memory(process_request=hang, open_timeout=3) as (_, connect):
        peer = await connect()
        started_at = anyio.current_time()
        await peer.send_bytes(ASK)
        assert await peer.read_until_eof() == b""
        assert anyio.current_time() - started_at == pytest.approx(3)
    assert loud_records(caplog) == []


@pytest.mark.behaviour(91, 106)
@pytest.mark.parametrize("status", [None, 403])
async def test_client_that_leaves_while_process_request_works_is_not_worth_a_warning(
    status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(request: anyws.Request) -> anyws.Response | None:
        await anyio.sleep(1)
        return None if status is None else request.respond(status)

    async with serving_memory(process_request=work) as (server, connect):
        peer = await connect()
        await peer.send_bytes(ASK)
        await anyio.sleep(0.5)
        await peer.finish()
        await anyio.sleep(1)
        assert server.connections == frozenset()
    assert loud_records(caplog) == []


# process_response


@pytest.mark.behaviour(106)
async def test_process_response_may_add_to_the_response() -> None:
    def add_cookie(request: anyws.Request, response: anyws.Response) -> None:
        response.headers["Set-Cookie"] = f"path={request.path}"

    async with serving_memory(process_response=add_cookie) as (_, connect):
        head = await open_peer(await connect())
    assert b"Set-Cookie: path=/chat\r\n" in head


async def test_response_of_a_connection_is_what_was_sent() -> None:
    seen: list[dict[str, str]] = []

    def note(request: anyws.Request, response: anyws.Response) -> None:
        seen.append({name.lower(): value for name, value in response.headers.items()})

    async def handler(ws: anyws.Connection) -> None:
        seen.append({name.lower(): value for name, value in ws.response.headers.items()})

    async with serving_memory(handler, process_response=note, server_header="ours") as (_, connect):
        peer = await connect()
        answer = await open_peer(peer)
        await peer.answer_close()
    sent = parse_answer(answer).fields
    assert {"date", "server", "upgrade", "sec-websocket-accept"} <= sent.keys()
    assert seen == [sent, sent]


@pytest.mark.behaviour(106)
async def test_process_response_may_put_another_101_in_its_place() -> None:
    async def rename(request: anyws.Request, response: anyws.Response) -> anyws.Response:
        await anyio.sleep(1)
        return dataclasses.replace(response, reason="Come In")

    async with serving_memory(process_response=rename) as (_, connect):
        assert (await open_peer(await connect())).startswith(b"HTTP/1.1 101 Come In\r\n")


@pytest.mark.behaviour(106)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Upgrade", None),
        ("Connection", "close"),
        ("Sec-WebSocket-Accept", "AAAA"),
        ("Sec-WebSocket-Protocol", "chat"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
    ],
)
async def test_process_response_may_not_change_what_was_agreed_on(
    name: str, value: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    def change(request: anyws.Request, response: anyws.Response) -> None:
        if value is None:
            del response.headers[name]
        else:
            response.headers[name] = value

    async with serving_memory(process_response=change) as (_, connect):
        answer = await answer_of(connect, REQUEST + b"\r\n")
    assert answer.status == 500
    assert loud_records(caplog) == ["anyws.server: process_response failed (a local peer, /chat)"]
    assert f"{name} of a response with the status 101 was changed" in caplog.text


@pytest.mark.behaviour(106)
async def test_process_response_may_refuse() -> None:
    def refuse(request: anyws.Request, response: anyws.Response) -> anyws.Response:
        return request.respond(403, "no\n")

    async with serving_memory(process_response=refuse) as (_, connect):
        answer = await answer_of(connect)
    assert (answer.status, answer.body) == (403, b"no\n")


@pytest.mark.behaviour(106)
async def test_process_response_sees_refusals_too() -> None:
    statuses: list[int] = []

    def note(request: anyws.Request, response: anyws.Response) -> None:
        statuses.append(response.status)

    async with serving_memory(process_response=note) as (_, connect):
        answer = await answer_of(connect, REQUEST + b"Origin: http://evil.example\r\n\r\n")
    assert answer.status == 403
    assert statuses == [403]


@pytest.mark.behaviour(106)
@pytest.mark.parametrize("status", [100, 101])
async def test_process_response_cannot_accept_what_was_refused(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    def accept(request: anyws.Request, response: anyws.Response) -> anyws.Response:
        return anyws.Response(status, "Come In")

    async with serving_memory(process_response=accept) as (_, connect):
        answer = await answer_of(connect, REQUEST + b"Origin: http://evil.example\r\n\r\n")
    assert answer.status == 500
    assert loud_records(caplog) == ["anyws.server: process_response failed (a local peer, /chat)"]


@pytest.mark.behaviour(106)
async def test_error_of_process_response_is_a_500_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(request: anyws.Request, response: anyws.Response) -> None:
        raise KeyError("user")

    async with serving_memory(process_response=fail) as (server, connect):
        answer = await answer_of(connect)
        assert server.connections == frozenset()
    assert answer.status == 500
    assert loud_records(caplog) == ["anyws.server: process_response failed (a local peer, /chat)"]


@pytest.mark.behaviour(106)
async def test_answer_of_a_hook_is_logged_in_plain_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "anyws.server")
    async with serving_memory(process_request=lambda r: r.respond(200)) as (_, connect):
        await answer_of(connect)
    assert "answered with HTTP 200 (a local peer, /chat)" in caplog.messages


# Subprotocols (RFC 6455 section 1.9)


@pytest.mark.behaviour(106)
@pytest.mark.parametrize(
    ("spoken", "offer", "chosen"),
    [
        (["a", "b"], b"Sec-WebSocket-Protocol: b, a\r\n", b"Sec-WebSocket-Protocol: a\r\n"),
        (["a", "b"], b"Sec-WebSocket-Protocol: b\r\n", b"Sec-WebSocket-Protocol: b\r\n"),
        (
            ["b"],
            b"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n",
            b"Sec-WebSocket-Protocol: b\r\n",
        ),
    ],
    ids=["server-order", "second-choice", "two-fields"],
)
async def test_first_subprotocol_of_the_server_that_is_offered_is_chosen(
    spoken: list[str], offer: bytes, chosen: bytes
) -> None:
    async with serving_memory(subprotocols=spoken) as (_, connect):
        assert chosen in await open_peer(await connect(), offer)


@pytest.mark.behaviour(106)
@pytest.mark.parametrize(
    ("spoken", "offer"),
    [
        (["a"], b"Sec-WebSocket-Protocol: b\r\n"),
        (["a"], b"Sec-WebSocket-Protocol: A\r\n"),
        (["a"], b""),
        (None, b"Sec-WebSocket-Protocol: a\r\n"),
    ],
)
async def test_field_is_left_out_when_no_subprotocol_is_common(
    spoken: list[str] | None, offer: bytes
) -> None:
    async with serving_memory(subprotocols=spoken) as (_, connect):
        assert b"Sec-WebSocket-Protocol" not in await open_peer(await connect(), offer)


@pytest.mark.behaviour(106)
async def test_select_subprotocol_chooses_instead_of_the_order() -> None:
    calls: list[tuple[str, Sequence[str]]] = []

    def select(request: anyws.Request, offered: Sequence[str]) -> str:
        calls.append((request.path, offered))
        return "b"

    async with serving_memory(subprotocols=["a"], select_subprotocol=select) as (_, connect):
        head = await open_peer(await connect(), b"Sec-WebSocket-Protocol: a, b\r\n")
    assert b"Sec-WebSocket-Protocol: b\r\n" in head
    assert calls == [("/chat", ("a", "b"))]


@pytest.mark.behaviour(106)
async def test_select_subprotocol_may_refuse() -> None:
    def select(request: anyws.Request, offered: Sequence[str]) -> None:
        raise anyws.NegotiationError("no subprotocol that is good enough")

    async with serving_memory(select_subprotocol=select) as (_, connect):
        answer = await answer_of(connect)
    assert (answer.status, answer.body) == (400, b"no subprotocol that is good enough\n")


def choose_unknown(request: anyws.Request, offered: Sequence[str]) -> str:
    return "evil\r\nX: y"


def fail_to_choose(request: anyws.Request, offered: Sequence[str]) -> str:
    raise KeyError("subprotocol")


@pytest.mark.behaviour(106)
@pytest.mark.parametrize("select", [choose_unknown, fail_to_choose])
async def test_error_of_select_subprotocol_is_a_500_and_logged_once(
    select: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_memory(select_subprotocol=select) as (_, connect):
        answer = await answer_of(connect)
        await answer_of(connect)  # the server has survived it
    assert answer.status == 500
    assert b"evil" not in answer.raw
    assert len(loud_records(caplog)) == 2


# Fields


@pytest.mark.parametrize(
    ("server_header", "line"),
    [("nginx", b"\r\nServer: nginx\r\n"), ("", b"\r\nServer: \r\n")],
)
async def test_server_header_is_what_was_given(server_header: str, line: bytes) -> None:
    async with serving_memory(server_header=server_header) as (_, connect):
        assert line in await open_peer(await connect())


async def test_server_header_names_us_by_default() -> None:
    async with serving_memory() as (_, connect):
        head = await open_peer(await connect())
    assert f" anyws/{anyws.__version__}\r\n".encode() in head


async def test_server_header_is_left_out_when_it_is_none() -> None:
    async with serving_memory(server_header=None) as (_, connect):
        assert b"Server" not in await open_peer(await connect())


async def test_late_process_request_is_cancelled_when_the_server_is_left_by_an_exception() -> None:
    cancelled = anyio.Event()
    entered = anyio.Event()

    async def hang(request: anyws.Request) -> None:
        entered.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    with pytest.raises(LookupError):
        async with serving_memory(process_request=hang) as (_, connect):
            peer = await connect()
            await peer.send_bytes(ASK)
            await entered.wait()
            raise LookupError
    assert cancelled.is_set()
