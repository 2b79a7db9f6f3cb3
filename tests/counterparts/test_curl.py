"""Owns the proof that curl understands each HTTP answer of our server, and ends at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import pytest

import anyws
from tests.counterparts.programs import HOST, find_program
from tests.sockets import echo, parse_answer, serving
from tests.tls import AUTHORITY, server_context

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sockets import Answer

pytestmark = [pytest.mark.anyio, pytest.mark.interop, pytest.mark.counterpart]

# Seconds; each call takes milliseconds. One that waits for us ends with the exit status 28.
MAX_TIME = 5

UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
HANDSHAKE = (
    *UPGRADE,
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3


@dataclass(frozen=True)
class Called:
    """How a call of curl ended: its exit status, and what it printed."""

    status: int
    output: bytes
    complaints: str

    @property
    def answer(self) -> Answer:
        """The answer, of a call that ended well."""
        assert (self.status, self.complaints) == (0, "")
        return parse_answer(self.output)


async def curl(*arguments: str, headers: tuple[str, ...] = ()) -> Called:
    """Call curl, which prints the head of each response before its body."""
    # Neither the proxies of this machine nor the configuration of this user.
    command = [find_program("curl"), "--disable", "--noproxy", "*", "--silent", "--show-error"]
    command += ["--include", "--http1.1", "--max-time", str(MAX_TIME)]
    command += [part for header in headers for part in ("--header", header)]
    result = await anyio.run_process([*command, *arguments], check=False)
    return Called(result.returncode, result.stdout, result.stderr.decode())


# What the handshake answers by itself.


async def test_101_is_followed_by_frames() -> None:
    async def greet(ws: anyws.Connection) -> None:
        await ws.send("hi")

    # Curl does not answer the Close, and we wait for that no longer than this.
    async with serving(greet, close_timeout=0.1) as server:
        called = await curl(f"http://{HOST}:{server.port}/", headers=HANDSHAKE)
    answer = called.answer
    assert answer.status == 101
    assert answer.fields["upgrade"] == "websocket"
    assert answer.fields["connection"] == "Upgrade"
    assert answer.fields["sec-websocket-accept"] == ACCEPT
    assert answer.body == b"\x81\x02hi\x88\x02\x03\xe8"


@pytest.mark.parametrize(
    ("status", "arguments", "headers", "fields", "text"),
    [
        pytest.param(
            *(426, [], ()),
            {"upgrade": "websocket", "connection": "Upgrade, close"},
            "use a WebSocket client",
            id="426-no-handshake",
        ),
        pytest.param(
            *(426, ["--http2"], ()), {"upgrade": "websocket"}, "'h2c'", id="426-h2c-offered"
        ),
        pytest.param(
            *(426, [], (*UPGRADE, "Sec-WebSocket-Version: 8")),
            {"upgrade": "websocket", "sec-websocket-version": "13"},
            "the version here is 13",
            id="426-version",
        ),
        pytest.param(*(400, [], UPGRADE), {}, "Sec-WebSocket-Version", id="400-no-version"),
        pytest.param(*(400, [], HANDSHAKE[:-1]), {}, "Sec-WebSocket-Key", id="400-no-key"),
        pytest.param(
            *(400, [], ("Upgrade: websocket",)), {}, "missing Connection", id="400-no-connection"
        ),
        pytest.param(*(400, [], ("Host:",)), {}, "missing mandatory Host", id="400-no-host"),
        pytest.param(*(400, ["--data", "x"], ()), {}, "Content-Length is 1", id="400-body"),
        pytest.param(
            *(400, ["--data", "x"], ("Expect: 100-continue",)),
            *({}, "Content-Length is 1"),
            id="400-body-expects",
        ),
        pytest.param(
            *(400, ["--data", "x"], ("Transfer-Encoding: chunked",)),
            *({}, "Transfer-Encoding"),
            id="400-chunked-body",
        ),
        pytest.param(
            *(403, [], (*HANDSHAKE, "Origin: https://evil.example")),
            {},
            "add 'https://evil.example' to the server's origins argument",
            id="403",
        ),
        pytest.param(*(405, ["-X", "POST"], HANDSHAKE), {"allow": "GET"}, "POST", id="405-post"),
        pytest.param(*(405, ["-X", "OPTIONS"], ()), {"allow": "GET"}, "OPTIONS", id="405-options"),
        pytest.param(*(414, [], ()), {}, "request line exceeds the limit of 8192 bytes", id="414"),
        pytest.param(
            *(431, [], ("X: " + "a" * 9000,)),
            *({}, "header line exceeds the limit of 8192 bytes"),
            id="431-line",
        ),
        pytest.param(
            *(431, [], tuple(f"X-{number}: a" for number in range(200))),
            *({}, "exceeds the limit of"),
            id="431-lines",
        ),
        pytest.param(*(505, ["--http1.0"], ()), {}, "HTTP version 1.0 is not supported", id="505"),
    ],
)
async def test_refusal_is_complete(
    status: int,
    arguments: list[str],
    headers: tuple[str, ...],
    fields: dict[str, str],
    text: str,
) -> None:
    path = "a" * 9000 if status == 414 else ""
    async with serving() as server:
        uri = f"http://{HOST}:{server.port}/{path}"
        answer = (await curl(uri, *arguments, headers=headers)).answer
    assert answer.status == status
    assert text in answer.body.decode()
    assert answer.fields["content-length"] == str(len(answer.body))
    assert answer.fields["content-type"] == "text/plain; charset=utf-8"
    assert {name: answer.fields[name] for name in fields} == fields
    assert answer.fields["connection"].endswith("close")


async def test_head_has_no_body() -> None:
    async with serving() as server:
        answer = (await curl("--head", f"http://{HOST}:{server.port}/")).answer
    assert (answer.status, answer.fields["allow"], answer.body) == (405, "GET", b"")


async def test_large_upload_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\0" * 2**25)
    async with serving() as server:
        called = await curl("--upload-file", str(file), f"http://{HOST}:{server.port}/")
    # Curl sees the answer while it still sends, and stops; it may say that it could not send all.
    assert parse_answer(called.output).status == 400
    assert called.status in {0, 55, 56}, called.complaints


async def test_404_of_a_plain_request_over_tls_is_complete(tmp_path: Path) -> None:
    authority = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(authority)

    def refuse(request: anyws.Request) -> anyws.Response:
        return request.respond(404, "nothing here\n" * 1000)

    async with serving(ssl=server_context(), process_request=refuse) as server:
        called = await curl("--cacert", str(authority), f"https://{HOST}:{server.port}/")
    answer = called.answer
    assert (answer.status, answer.body) == (404, b"nothing here\n" * 1000)


async def test_503_is_complete_when_the_server_is_full() -> None:
    async with serving(max_connections=1) as server:
        async with anyws.connect(f"ws://{HOST}:{server.port}/"):
            answer = (await curl(f"http://{HOST}:{server.port}/", headers=HANDSHAKE)).answer
    assert answer.status == 503
    assert answer.body == b"the server has no room for another connection\n"


async def test_503_is_complete_when_the_server_is_closed_meanwhile() -> None:
    asked = anyio.Event()

    async def hesitate(request: anyws.Request) -> None:
        asked.set()
        await anyio.sleep_forever()

    called: list[Called] = []
    async with serving(process_request=hesitate) as server, anyio.create_task_group() as tasks:

        async def call() -> None:
            called.append(await curl(f"http://{HOST}:{server.port}/", headers=HANDSHAKE))

        tasks.start_soon(call)
        await asked.wait()
        await server.close()
    assert called[0].answer.status == 503
    assert called[0].answer.body == b"the server is going away\n"


async def test_500_says_nothing_of_the_error() -> None:
    def fail(request: anyws.Request) -> None:
        raise LookupError("a secret")

    async with serving(process_request=fail) as server:
        answer = (await curl(f"http://{HOST}:{server.port}/")).answer
    assert answer.status == 500
    assert answer.body == b"the server met an error of its own\n"


# Hooks, passwords and routes.


def check_health(request: anyws.Request) -> anyws.Response | None:
    if request.path == "/health":
        return request.respond(200, "alive\n", {"Cache-Control": "no-store"})
    return None


async def test_health_check_is_answered() -> None:
    async with serving(process_request=check_health) as server:
        uri = f"http://{HOST}:{server.port}/health"
        answer = (await curl(uri)).answer
        head = (await curl("--head", uri)).answer
    assert (answer.status, answer.body) == (200, b"alive\n")
    assert (head.status, head.body) == (200, b"")
    for it in (answer, head):
        assert it.fields["cache-control"] == "no-store"
        assert it.fields["content-length"] == "6"


async def test_client_that_would_keep_the_connection_opens_another() -> None:
    async with serving(process_request=check_health) as server:
        uri = f"http://{HOST}:{server.port}/health"
        called = await curl(
            *("--keepalive-time", "60", "--write-out", "[%{http_code} %{num_connects}]"),
            *(uri, uri, uri),
            headers=("Connection: keep-alive",),
        )
    assert (called.status, called.complaints) == (0, "")
    assert called.output.count(b"alive\n[200 1]") == 3


@pytest.mark.parametrize("arguments", [[], ["--head"]], ids=["GET", "HEAD"])
async def test_fail_option_tells_scripts_that_it_is_not_well(arguments: list[str]) -> None:
    def refuse(request: anyws.Request) -> anyws.Response:
        return request.respond(503, "not yet\n", {"Retry-After": "5"})

    async with serving(process_request=refuse) as server:
        called = await curl("--fail", *arguments, f"http://{HOST}:{server.port}/health")
    assert called.status == 22
    assert "503" in called.complaints


async def test_204_and_304_have_no_body() -> None:
    def answer_nothing(request: anyws.Request) -> anyws.Response:
        return request.respond(int(request.path[1:]), "no body")

    async with serving(process_request=answer_nothing) as server:
        for status in (204, 304):
            answer = (await curl(f"http://{HOST}:{server.port}/{status}")).answer
            assert (answer.status, answer.body) == (status, b"")


async def test_basic_auth_asks_for_a_password() -> None:
    auth = anyws.basic_auth(realm="a „place“".encode().decode("latin-1"), credentials=("ü", "pä:ß"))
    async with serving(close_timeout=0.1, process_request=auth, handler=say_name) as server:
        uri = f"http://{HOST}:{server.port}/"
        for arguments in ([], ["--user", "ü:wrong"], ["--user", "u:pä:ß"]):
            answer = (await curl(*arguments, uri, headers=HANDSHAKE)).answer
            assert answer.status == 401
            assert answer.fields["www-authenticate"].startswith('Basic realm="a ')
            assert answer.fields["www-authenticate"].endswith('", charset="UTF-8"')
        answer = (await curl("--user", "ü:pä:ß", uri, headers=HANDSHAKE)).answer
        assert answer.status == 101
        assert answer.body.startswith(b"\x81\x02" + "ü".encode())
        # Asked for any way to log in, curl tries without first, and then with what we ask for.
        called = await curl("--anyauth", "--user", "ü:pä:ß", uri, headers=HANDSHAKE)
        assert (called.status, called.complaints) == (0, "")
        assert called.output.startswith(b"HTTP/1.1 401 ")
        assert b"HTTP/1.1 101 " in called.output


async def say_name(ws: anyws.Connection) -> None:
    await ws.send(str(ws.data["username"]))


def make_router() -> anyws.Router:
    router = anyws.Router(process_request=check_health)
    router.route("/rooms/<name>/", endpoint="room")(echo)
    router.route("/chat", endpoint="chat", subprotocols=["chat.v1"])(echo)
    return router


@pytest.mark.parametrize(
    ("path", "arguments", "status", "fields"),
    [
        ("/nowhere", [], 404, {}),
        ("/rooms/caf%C3%A9/", [], 426, {"upgrade": "websocket"}),
        ("/rooms/lobby/", ["-X", "POST"], 405, {"allow": "GET"}),
        ("/rooms/lobby/", ["-X", "OPTIONS"], 405, {"allow": "GET"}),
        ("/rooms/lobby", [], 308, {"location": "/rooms/lobby/"}),
        ("/rooms/caf%C3%A9?a=1&b=%20", [], 308, {"location": "/rooms/caf%C3%A9/?a=1&b=%20"}),
        ("/rooms//lobby/", [], 308, {"location": "/rooms/lobby/"}),
        ("*", ["-X", "OPTIONS", "--request-target", "*"], 404, {}),
    ],
)
async def test_answer_of_a_router_is_complete(
    path: str, arguments: list[str], status: int, fields: dict[str, str]
) -> None:
    router = make_router()
    async with serving(router.handler, process_request=router.process_request) as server:
        uri = f"http://{HOST}:{server.port}{path if path != '*' else '/'}"
        answer = (await curl(*arguments, uri)).answer
    assert answer.status == status
    assert answer.body
    assert answer.fields["content-length"] == str(len(answer.body))
    assert {name: answer.fields[name] for name in fields} == fields


async def test_curl_follows_the_redirect_of_a_router() -> None:
    router = anyws.Router()

    @router.route("/rooms/<name>/")
    async def enter(ws: anyws.Connection) -> None:
        await ws.send(ws.data["args"]["name"])

    hook = router.process_request
    async with serving(router.handler, process_request=hook, close_timeout=0.1) as server:
        uri = f"http://{HOST}:{server.port}/rooms/lobby?since=5"
        called = await curl("--location", uri, headers=HANDSHAKE)
    assert (called.status, called.complaints) == (0, "")
    assert called.output.startswith(b"HTTP/1.1 308 ")
    assert b"HTTP/1.1 101 " in called.output
    assert b"\x81\x05lobby" in called.output


async def test_route_without_a_subprotocol_in_common_is_a_400() -> None:
    router = make_router()
    async with serving(router.handler, process_request=router.process_request) as server:
        uri = f"http://{HOST}:{server.port}/chat"
        answer = (await curl(uri, headers=(*HANDSHAKE, "Sec-WebSocket-Protocol: v0"))).answer
    assert answer.status == 400
    assert answer.body == b"no subprotocol in common: chat.v1 spoken, v0 offered\n"


# Curl's own WebSocket, where it was built with it.


async def test_ws_uri_of_curl_is_understood() -> None:
    version = await anyio.run_process([find_program("curl"), "--version"])
    if b" ws" not in version.stdout:
        pytest.skip("this curl was built without ws://")

    async def greet(ws: anyws.Connection) -> None:
        await ws.send("hello")

    async with serving(greet, close_timeout=1) as server:
        called = await curl("--no-include", f"ws://{HOST}:{server.port}/")
    assert (called.status, called.output) == (0, b"hello")
