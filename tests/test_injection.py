"""CR, LF and NUL in whatever ends in the head of a request or response: RFC 9110 section 5.5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from anyws.sansio import ClientExtension, Extension, ServerExtension
from anyws.testing import memory_stream_pair
from tests.sockets import echo, open_peer, parse_answer, serving_memory
from tests.wire import REQUEST, Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyws._types import BytesLike

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

EVIL = ["\r", "\n", "\0", "\r\nX-Evil: yes\r\n\r\n"]

every_evil = pytest.mark.parametrize("evil", EVIL, ids=repr)


class Named(ClientExtension, ServerExtension):
    """An extension that offers and answers what it is told."""

    def __init__(self, name: str, parameter: str = "a", value: str = "b") -> None:
        self.name = name
        self.parameters = [(parameter, value)]

    def offer(self) -> Sequence[tuple[str, str | None]]:
        return self.parameters

    def accept_answer(self, parameters: Sequence[tuple[str, str | None]]) -> Extension:
        raise AssertionError

    def accept_offer(self, parameters: Sequence[tuple[str, str | None]]) -> Extension:
        return Idle(self.name, self.parameters)


class Idle(Extension):
    """An extension that does nothing."""

    def __init__(self, name: str, parameters: Sequence[tuple[str, str | None]]) -> None:
        self.name = name
        self.parameters = parameters

    def wants(self, size: int) -> bool:
        return False

    def encode(self, payload: BytesLike, *, fin: bool) -> bytes:
        raise AssertionError

    def decode(self, payload: BytesLike, max_size: int | None, *, fin: bool) -> bytes:
        raise AssertionError


CLIENT_ARGUMENTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "origin": lambda evil: {"origin": f"http://a{evil}"},
    "origin-begin": lambda evil: {"origin": f"{evil}http://a"},
    "subprotocols": lambda evil: {"subprotocols": ["chat", f"chat{evil}"]},
    "extension-name": lambda evil: {"extensions": [Named(f"x{evil}")]},
    "extension-parameter": lambda evil: {"extensions": [Named("x", f"a{evil}")]},
    "extension-value": lambda evil: {"extensions": [Named("x", "a", f"b{evil}")]},
    "header-name": lambda evil: {"additional_headers": {f"X-A{evil}": "b"}},
    "header-value": lambda evil: {"additional_headers": {"X-A": f"b{evil}"}},
    "header-pairs": lambda evil: {"additional_headers": [("X-A", f"{evil}b")]},
    "host-header": lambda evil: {"additional_headers": {"Host": f"a{evil}"}},
    "user-agent": lambda evil: {"user_agent_header": f"robot{evil}"},
}


@every_evil
@pytest.mark.behaviour(108)
@pytest.mark.parametrize("argument", list(CLIENT_ARGUMENTS))
async def test_argument_of_a_client_is_a_valueerror_before_a_byte_goes_out(
    argument: str, evil: str
) -> None:
    near, far = memory_stream_pair()
    with pytest.raises(ValueError, match=r"line break|NUL|token|character"):
        async with anyws.wrap_client(near, **CLIENT_ARGUMENTS[argument](evil)):
            raise AssertionError
    await near.aclose()
    with pytest.raises(anyio.EndOfStream):
        await far.receive()


@every_evil
@pytest.mark.behaviour(108)
@pytest.mark.parametrize(
    "uri",
    [
        "ws://localhost{}/",
        "ws://{}localhost/",
        "ws://localhost:80{}/",
        "ws://user{}:password@localhost/",
        "ws://user:password{}@localhost/",
        "ws://localhost/chat{}",
        "ws://localhost/chat?{}",
        "ws+unix:///run/a.sock{}:/chat",
        "ws+unix:///run/a.sock:/chat{}",
        "{}ws://localhost/",
    ],
)
async def test_uri_is_an_invaliduri_before_a_byte_goes_out(uri: str, evil: str) -> None:
    with pytest.raises(anyws.InvalidURI):
        anyws.connect(uri.format(evil))


@pytest.mark.behaviour(108)
@pytest.mark.parametrize("escaped", ["%0D", "%0A", "%0d%0aX-Evil:%20yes", "%00"])
@pytest.mark.parametrize(
    "uri", ["ws://user{}:password@localhost/", "ws://user:password{}@localhost/", "ws://host{}/"]
)
async def test_escaped_characters_that_would_be_decoded_are_an_invaliduri(
    uri: str, escaped: str
) -> None:
    with pytest.raises(anyws.InvalidURI):
        anyws.connect(uri.format(escaped))


@pytest.mark.behaviour(108)
async def test_escaped_characters_in_path_and_query_stay_escaped() -> None:
    near, far = memory_stream_pair()

    async def serve() -> None:
        head = await Peer(far, masks=False).read_until(b"\r\n\r\n")
        assert head.startswith(b"GET /a%0D%0AX:%20y?b%00 HTTP/1.1\r\n")
        await far.aclose()

    async with anyio.create_task_group() as tg:
        tg.start_soon(serve)
        with pytest.raises(anyws.InvalidMessage):
            async with anyws.wrap_client(near, "ws://localhost/a%0D%0AX:%20y?b%00"):
                raise AssertionError


@every_evil
@pytest.mark.behaviour(108)
@pytest.mark.parametrize("argument", ["subprotocols", "server_header"])
async def test_argument_of_a_server_is_a_valueerror_of_the_call(argument: str, evil: str) -> None:
    value: Any = [f"chat{evil}"] if argument == "subprotocols" else f"nginx{evil}"
    with pytest.raises(ValueError, match=r"line break|NUL|token"):
        anyws.serve(echo, **{argument: value})


HOOKS: dict[str, Callable[[str], dict[str, Any]]] = {
    "respond-name": lambda evil: {
        "process_request": lambda r: r.respond(200, "", {f"X{evil}": "a"})
    },
    "respond-value": lambda evil: {
        "process_request": lambda r: r.respond(200, "", {"X": f"a{evil}"})
    },
    "reason": lambda evil: {"process_request": lambda _: anyws.Response(200, f"OK{evil}")},
    "headers": lambda evil: {
        "process_request": lambda _: anyws.Response(200, "OK", anyws.Headers({"X": f"a{evil}"}))
    },
    "dict-for-headers": lambda evil: {
        "process_request": lambda _: anyws.Response(200, "OK", {"X": f"a{evil}"})  # type: ignore[arg-type]  # the mistake
    },
    "process-response": lambda evil: {
        "process_response": lambda _, response: response.headers.add("X", f"a{evil}")
    },
    "process-response-101": lambda evil: {
        "process_response": lambda _, r: anyws.Response(101, "", {**r.headers, "X": f"a{evil}"})  # type: ignore[arg-type]  # the mistake
    },
    "select-subprotocol": lambda evil: {"select_subprotocol": lambda _, _offered: f"a{evil}"},
    "extension-parameter": lambda evil: {"extensions": [Named("x", f"a{evil}")]},
    "extension-value": lambda evil: {"extensions": [Named("x", "a", f"b{evil}")]},
}


@every_evil
@pytest.mark.behaviour(106, 108)
@pytest.mark.parametrize("hook", list(HOOKS))
async def test_what_a_hook_gives_is_a_500_without_it(hook: str, evil: str) -> None:
    async with serving_memory(**HOOKS[hook](evil)) as (_, connect):
        peer = await connect()
        await peer.send_bytes(REQUEST + b"Sec-WebSocket-Extensions: x\r\n\r\n")
        answer = parse_answer(await peer.read_until_eof())
        await peer.finish()
    assert answer.status == 500
    assert b"vil" not in answer.raw
    assert "x" not in answer.fields


@every_evil
@pytest.mark.behaviour(108)
async def test_body_of_a_response_may_have_them(evil: str) -> None:
    async with serving_memory(process_request=lambda r: r.respond(200, evil)) as (_, connect):
        peer = await connect()
        await peer.send_bytes(REQUEST + b"\r\n")
        answer = parse_answer(await peer.read_until_eof())
        await peer.finish()
    assert answer.body == evil.encode()
    assert answer.fields["content-length"] == str(len(evil))


@pytest.mark.behaviour(108)
async def test_what_a_client_sends_does_not_get_into_the_head_of_a_refusal() -> None:
    request = REQUEST + b"Origin: http://evil.example%0d%0aX-Evil: yes\tX-Evil: yes\r\n\r\n"
    async with serving_memory() as (_, connect):
        peer = await connect()
        await peer.send_bytes(request)
        answer = parse_answer(await peer.read_until_eof())
        await peer.finish()
    assert answer.status == 403
    assert "x-evil" not in answer.fields
    assert set(answer.fields) == {"date", "server", "content-type", "content-length", "connection"}


async def test_server_extension_of_the_application_is_answered() -> None:
    async with serving_memory(extensions=[Named("x", "a", "b")]) as (_, connect):
        head = await open_peer(await connect(), b"Sec-WebSocket-Extensions: x; q\r\n")
    assert b"Sec-WebSocket-Extensions: x; a=b\r\n" in head
