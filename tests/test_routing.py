"""Which handler a connection is for, and what answers a request that is for none."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from werkzeug.routing import BaseConverter, ValidationError

import anyws
from anyws.testing import memory_server
from tests.sockets import loud_records, open_peer, parse_answer, serving_memory
from tests.wire import CLOSE, REQUEST, close_payload

if TYPE_CHECKING:
    from tests.sockets import Answer

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def tell(ws: anyws.Connection) -> None:
    """Send what the handler of a route knows."""
    data = ws.data
    await ws.send(repr((data["endpoint"], data["args"], ws.subprotocol)))


def router_with(*rules: str, **options: Any) -> anyws.Router:
    """Make a router with a route for each rule, whose endpoint is the rule itself."""
    router = anyws.Router()
    for rule in rules:
        router.route(rule, endpoint=rule, **options)(tell)
    return router


def request_for(
    target: str, headers: str = "", *, method: str = "GET", host: str = "localhost"
) -> bytes:
    head = REQUEST.replace(b"GET /chat", f"{method} {target}".encode())
    return head.replace(b"localhost", host.encode()) + headers.encode() + b"\r\n"


async def answer_to(router: anyws.Router, request: bytes, **arguments: Any) -> Answer:
    """Give what a request that does not open a connection is answered with."""
    async with serving_memory(
        router.handler, process_request=router.process_request, **arguments
    ) as (_, connect):
        peer = await connect()
        await peer.send_bytes(request)
        answer = parse_answer(await peer.read_until_eof())
    assert answer.status != 101
    return answer


async def told(router: anyws.Router, request: bytes, **arguments: Any) -> Any:
    """Give the endpoint, the arguments and the subprotocol that a request arrives with."""
    async with serving_memory(
        router.handler, process_request=router.process_request, **arguments
    ) as (_, connect):
        peer = await connect()
        await peer.send_bytes(request)
        head = await peer.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        message = (await peer.read_frame()).payload.decode()
        await peer.answer_close()
    return eval(message, {"UUID": uuid.UUID})


async def location_of(router: anyws.Router, request: bytes) -> str:
    answer = await answer_to(router, request)
    assert answer.status == 308
    return answer.fields["location"]


# Rules


@pytest.mark.parametrize(
    ("rule", "target", "args"),
    [
        ("/", "/", {}),
        ("/rooms", "/rooms?since=5", {}),
        ("/rooms/<name>", "/rooms/lobby", {"name": "lobby"}),
        ("/rooms/<name>", "/rooms/caf%C3%A9%20%231%0D%0A", {"name": "caf\xe9 #1\r\n"}),
        ("/rooms/<name>", "/rooms/a%3Fb?c", {"name": "a?b"}),
        ("/rooms/<int:number>", "/rooms/042", {"number": 42}),
        ("/at/<float:x>,<float(signed=True):y>", "/at/1.5,-2.0", {"x": 1.5, "y": -2.0}),
        ("/files/<path:name>", "/files/a/b/c", {"name": "a/b/c"}),
        ("/<any(cats, dogs):animals>/", "/dogs/", {"animals": "dogs"}),
        (
            "/of/<uuid:id>",
            "/of/12345678-1234-5678-1234-567812345678",
            {"id": uuid.UUID("12345678-1234-5678-1234-567812345678")},
        ),
        ("/<a>/x/<b>", "/1/x/2", {"a": "1", "b": "2"}),
    ],
)
async def test_variable_parts_are_converted(rule: str, target: str, args: dict[str, Any]) -> None:
    assert await told(router_with(rule), request_for(target)) == (rule, args, None)


async def test_rule_with_more_fixed_parts_wins() -> None:
    router = router_with("/<path:any>", "/rooms/<name>", "/rooms/lobby", "/rooms/<int:number>")
    for target, rule in [
        ("/rooms/lobby", "/rooms/lobby"),
        ("/rooms/7", "/rooms/<int:number>"),
        ("/rooms/seven", "/rooms/<name>"),
        ("/else/where", "/<path:any>"),
    ]:
        assert (await told(router, request_for(target)))[0] == rule


async def test_converter_of_ones_own_is_used() -> None:
    class Hex(BaseConverter):
        regex = "[0-9a-f]+"

        def to_python(self, value: str) -> int:
            if len(value) > 4:
                raise ValidationError
            return int(value, 16)

        def to_url(self, value: int) -> str:
            return f"{value:x}"

    router = anyws.Router(converters={"hex": Hex})
    router.route("/<hex:number>", endpoint="n")(tell)
    router.route("/<hex:number>", endpoint="m", host="b.example")(tell)
    assert await told(router, request_for("/ff")) == ("n", {"number": 255}, None)
    assert router.url_for("n", number=255) == "/ff"
    assert (await answer_to(router, request_for("/12345"))).status == 404


async def test_value_that_a_converter_fails_to_convert_is_a_404(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Month(BaseConverter):
        def to_python(self, value: str) -> int:
            return ["jan", "feb", "mar"].index(value) + 1  # a plain ValueError

    router = anyws.Router(converters={"month": Month})
    router.route("/<month:month>", endpoint="month")(tell)
    assert await told(router, request_for("/mar")) == ("month", {"month": 3}, None)
    assert (await answer_to(router, request_for("/dec"))).status == 404
    assert loud_records(caplog) == []


async def test_absolute_form_of_the_target_is_taken() -> None:
    router = router_with("/", "/rooms/<name>")
    router.route("/rooms/<name>", endpoint="hosted", host="a.example")(tell)
    for target, endpoint in [
        ("http://b.example/rooms/lobby?x=y", "/rooms/<name>"),
        ("ws://A.example:8765/rooms/lobby", "hosted"),
        ("http://b.example", "/"),
        ("http://b.example?x=y", "/"),
    ]:
        assert (await told(router, request_for(target, host="a.example")))[0] == endpoint


# What has no route


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/room",
        "/rooms/",
        "/rooms/a/b",
        "/Rooms/7",
        "/rooms/seven",
        "/rooms/-7",
        "/rooms/7/",
        "/rooms/7%FF",
        "/rooms/" + "9" * 5000,
        "/rooms/7%2Fx",
        "/rooms/7#x",
        "*",
        "rooms/7",
    ],
)
async def test_path_without_a_route_is_a_404(target: str, caplog: pytest.LogCaptureFixture) -> None:
    answer = await answer_to(router_with("/rooms/<int:number>"), request_for(target))
    assert answer.raw.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert answer.fields["content-type"] == "text/plain; charset=utf-8"
    assert answer.body == b"no route has this path\n"
    assert loud_records(caplog) == []


async def test_absolute_form_whose_host_is_no_name_is_a_404() -> None:
    router = router_with("/", host="<tenant>.example")
    answer = await answer_to(router, request_for("http://b..example/"))
    assert answer.status == 404


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "BREW"])
async def test_method_but_get_is_a_405_where_there_is_a_route(method: str) -> None:
    router = router_with("/rooms/<name>")
    answer = await answer_to(router, request_for("/rooms/lobby", method=method))
    assert answer.raw.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert answer.fields["allow"] == "GET"
    assert answer.body == (b"" if method == "HEAD" else b"method %b is not GET\n" % method.encode())
    answer = await answer_to(router, request_for("/", method=method))
    assert answer.status == 404


async def test_request_that_is_no_handshake_is_a_426_where_there_is_a_route() -> None:
    router = router_with("/rooms", subprotocols=["chat"])
    answer = await answer_to(router, b"GET /rooms HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.status == 426


# Slashes


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/rooms", "/rooms/"),
        ("/rooms?since=5&a=#b", "/rooms/?since=5&a=#b"),
        ("/rooms?", "/rooms/"),
        ("/caf%C3%A9%0D%0AX:%20y", "/caf%C3%A9%0D%0AX:%20y/"),
        ("//rooms//", "/rooms/"),
        ("//evil.example", "/evil.example/"),
        ("/\\evil.example", "/%5Cevil.example/"),
        ("http://localhost:8765/rooms", "/rooms/"),
        ("/files//a//b", "/files/a/b"),
    ],
)
async def test_wrong_slashes_are_redirected(target: str, location: str) -> None:
    router = router_with("/rooms/", "/<name>/", "/files/<a>/<b>")
    answer = await answer_to(router, request_for(target))
    assert answer.raw.startswith(b"HTTP/1.1 308 Permanent Redirect\r\n")
    assert answer.fields["location"] == location
    assert answer.body == b"this path is now %b\n" % location.encode()


async def test_slashes_are_not_redirected_when_they_are_not_strict() -> None:
    router = router_with("/rooms/", "/leaf", strict_slashes=False)
    for target in ("/rooms", "/rooms/"):
        assert (await told(router, request_for(target)))[0] == "/rooms/"
    for target in ("/leaf", "/leaf/"):
        assert (await told(router, request_for(target)))[0] == "/leaf"


# Defaults


def paged(**options: Any) -> anyws.Router:
    router = anyws.Router()
    router.route("/log/", endpoint="log", defaults={"page": 1}, **options)(tell)
    router.route("/log/<int:page>", endpoint="log")(tell)
    return router


async def test_defaults_are_among_the_arguments() -> None:
    assert await told(paged(), request_for("/log/")) == ("log", {"page": 1}, None)
    assert await told(paged(), request_for("/log/2")) == ("log", {"page": 2}, None)


async def test_path_that_spells_out_the_defaults_is_redirected() -> None:
    assert await location_of(paged(), request_for("/log/1?a=b")) == "/log/?a=b"


async def test_redirect_to_another_host_keeps_the_port() -> None:
    router = anyws.Router()
    router.route("/", endpoint="log", defaults={"page": 1}, host="log.example")(tell)
    router.route("/log/<int:page>", endpoint="log", host="old.example")(tell)
    for port in ("", ":8765"):
        location = await location_of(router, request_for("/log/1", host=f"old.example{port}"))
        assert location == f"//log.example{port}/"


# Hosts


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("chat.example", ("chat", {})),
        ("CHAT.example:8765", ("chat", {})),
        ("acme.chat.example", ("tenant", {"tenant": "acme"})),
        ("acme.chat.example:443", ("tenant", {"tenant": "acme"})),
        ("[::1]:8765", ("six", {})),
        ("chat.example.evil", ("any", {})),
        ("a.b.chat.example", ("tenant", {"tenant": "a.b"})),
        ("localhost", ("any", {})),
        ("a..b", ("any", {})),
        ("x" * 64, ("any", {})),
        ("", ("any", {})),
    ],
)
async def test_host_chooses_the_route(host: str, found: tuple[str, dict[str, str]]) -> None:
    router = anyws.Router()
    router.route("/", endpoint="any")(tell)
    router.route("/", endpoint="chat", host="Chat.Example")(tell)
    router.route("/", endpoint="tenant", host="<tenant>.CHAT.example")(tell)
    router.route("/", endpoint="six", host="[::1]")(tell)
    assert await told(router, request_for("/", host=host), origins="*") == (*found, None)


async def test_path_of_another_host_is_a_404() -> None:
    router = router_with("/", host="chat.example")
    assert (await answer_to(router, request_for("/"))).status == 404


async def test_slash_is_redirected_on_the_host_of_the_request() -> None:
    router = router_with("/rooms/", host="<tenant>.example")
    request = request_for("/rooms", host="acme.example:8765")
    assert await location_of(router, request) == "/rooms/"


# Subprotocols


async def test_connection_gets_a_subprotocol_of_its_route() -> None:
    router = anyws.Router()
    router.route("/a", endpoint="a", subprotocols=["v2", "v1"])(tell)
    router.route("/b", endpoint="b", subprotocols=["b"])(tell)
    router.route("/c", endpoint="c")(tell)
    offer = "Sec-WebSocket-Protocol: b, v1, v2, c\r\n"
    for path, subprotocol in [("/a", "v2"), ("/b", "b"), ("/c", "c")]:
        found = await told(router, request_for(path, offer), subprotocols=["c", "b"])
        assert found == (path[1:], {}, subprotocol)


@pytest.mark.parametrize(
    ("offer", "theirs"),
    [("", "none offered"), ("Sec-WebSocket-Protocol: V1, c\r\n", "V1, c offered")],
)
async def test_no_subprotocol_of_the_route_is_a_400(offer: str, theirs: str) -> None:
    router = router_with("/a", subprotocols=["v2", "v1"])
    answer = await answer_to(router, request_for("/a", offer), subprotocols=["c"])
    assert answer.status == 400
    assert answer.body == f"no subprotocol in common: v2, v1 spoken, {theirs}\n".encode()


def versioned() -> anyws.Router:
    router = anyws.Router()
    for endpoint, subprotocols in [("one", ["v1"]), ("two", ["v2", "v1"]), ("any", [])]:
        router.route("/<int:n>", endpoint=endpoint, subprotocols=subprotocols)(tell)
    return router


@pytest.mark.parametrize(
    ("offer", "found"),
    [
        ("v1", ("one", {"n": 5}, "v1")),
        ("v2", ("two", {"n": 5}, "v2")),
        ("v2, v1", ("one", {"n": 5}, "v1")),
        ("v3", ("any", {"n": 5}, None)),
    ],
)
async def test_first_route_that_speaks_what_is_offered_takes_the_connection(
    offer: str, found: tuple[str, dict[str, int], str | None]
) -> None:
    request = request_for("/5", f"Sec-WebSocket-Protocol: {offer}\r\n")
    assert await told(versioned(), request) == found


async def test_subprotocols_of_all_routes_with_the_rule_are_named_in_a_400() -> None:
    router = anyws.Router()
    router.route("/a", endpoint="one", subprotocols=["v1"])(tell)
    router.route("/a", endpoint="two", subprotocols=["v2", "v1"])(tell)
    answer = await answer_to(router, request_for("/a"))
    assert answer.body == b"no subprotocol in common: v1, v2 spoken, none offered\n"


# Handlers


async def test_endpoint_is_the_name_of_the_function_which_is_given_back() -> None:
    router = anyws.Router()
    assert router.route("/a")(tell) is tell
    assert router.route("/b")(tell) is tell
    assert await told(router, request_for("/b")) == ("tell", {}, None)
    assert router.url_for("tell") == "/a"


async def test_bound_method_may_have_two_routes() -> None:
    class Chat:
        async def talk(self, ws: anyws.Connection) -> None:
            await tell(ws)

    chat = Chat()
    router = anyws.Router()
    router.route("/a")(chat.talk)
    router.route("/b")(chat.talk)
    assert await told(router, request_for("/b")) == ("talk", {}, None)


async def test_error_of_one_handler_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    router = router_with("/good")

    @router.route("/bad")
    async def fail(ws: anyws.Connection) -> None:
        raise KeyError("endpoint")

    async with serving_memory(router.handler, process_request=router.process_request) as (
        _,
        connect,
    ):
        good, bad = await connect(), await connect()
        await good.send_bytes(request_for("/good"))
        await good.read_until(b"\r\n\r\n")
        await bad.send_bytes(request_for("/bad"))
        await bad.read_until(b"\r\n\r\n")
        close = await bad.answer_close()
        assert (close.opcode, close.payload) == (CLOSE, close_payload(1011))
        assert b"'/good'" in (await good.read_frame()).payload
        close = await good.answer_close()
        assert close.payload == close_payload(1000)
    assert loud_records(caplog) == ["anyws.server: connection handler failed"]


async def test_client_is_served_by_route() -> None:
    router = router_with("/rooms/<name>")
    async with memory_server(router.handler, process_request=router.process_request) as connect:
        async with connect("ws://localhost/rooms/lobby") as ws:
            assert await ws.recv() == "('/rooms/<name>', {'name': 'lobby'}, None)"
        with pytest.raises(anyws.InvalidStatus) as caught:
            async with connect("ws://localhost/"):
                raise AssertionError
    assert caught.value.response.status == 404


async def test_handler_without_process_request_is_an_error_that_says_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = router_with("/chat")
    async with serving_memory(router.handler) as (_, connect):
        peer = await connect()
        await open_peer(peer)
        assert (await peer.answer_close()).payload == close_payload(1011)
    assert "process_request=router.process_request" in caplog.text


async def test_route_may_be_added_while_the_server_runs() -> None:
    router = router_with("/a")
    assert (await told(router, request_for("/a")))[0] == "/a"
    assert (await answer_to(router, request_for("/b"))).status == 404
    router.route("/b", endpoint="b")(tell)
    assert (await told(router, request_for("/b")))[0] == "b"


# A process_request before the routes


async def check_later(name: str, password: str) -> bool:
    return (name, password) == ("Aladdin", "open sesame")


async def test_router_asks_another_process_request_first() -> None:
    router = anyws.Router(
        process_request=anyws.basic_auth(realm="rooms", check_credentials=check_later)
    )
    names: list[object] = []

    @router.route("/rooms/<name>")
    async def room(ws: anyws.Connection) -> None:
        names.append((ws.data["username"], ws.data["args"]["name"]))
        await tell(ws)

    answer = await answer_to(router, request_for("/"))
    assert (answer.status, answer.body) == (401, b"a name and a password are needed\n")
    right = "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"
    assert (await answer_to(router, request_for("/", right))).status == 404
    assert await told(router, request_for("/rooms/a", right)) == ("room", {"name": "a"}, None)
    assert names == [("Aladdin", "a")]


async def test_plain_process_request_may_answer_paths_without_a_route() -> None:
    def check_health(request: anyws.Request) -> anyws.Response | None:
        return request.respond(200, "OK\n") if request.path == "/health" else None

    router = anyws.Router(process_request=check_health)
    assert (await answer_to(router, request_for("/health"))).body == b"OK\n"
    assert (await answer_to(router, request_for("/"))).status == 404


def give_nonsense(request: anyws.Request) -> Any:
    return 403


def fail_now(request: anyws.Request) -> None:
    raise RuntimeError("the database is down")


@pytest.mark.parametrize("hook", [give_nonsense, fail_now])
async def test_error_of_that_process_request_is_a_500_and_logged_once(
    hook: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await answer_to(anyws.Router(process_request=hook), request_for("/"))
    assert answer.status == 500
    assert loud_records(caplog) == ["anyws.server: process_request failed (a local peer, /)"]
