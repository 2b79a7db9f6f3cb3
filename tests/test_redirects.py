"""Redirects of `connect`: which it follows, under one deadline, and what it then sends."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from anyws.testing import memory_stream_pair
from tests.endings import takes
from tests.network import MemoryNetwork, memory_network
from tests.sockets import GOOD, answering, read_request
from tests.tls import AUTHORITY, STRANGER, client_context, server_context
from tests.wire import Peer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


def redirecting(location: str, status: int = 302) -> Callable[[Peer], Awaitable[None]]:
    """Make a server that redirects each request."""
    head = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    return answering(head.encode())


class Target:
    """A server that opens connections and keeps the heads of the requests."""

    def __init__(self) -> None:
        self.heads: list[str] = []

    async def __call__(self, peer: Peer) -> None:
        head, accept = await read_request(peer)
        self.heads.append(head.decode())
        await peer.send_bytes(GOOD.replace(b"ACCEPT", accept) + b"\r\n")
        await peer.answer_close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_followed(status: int) -> None:
    target = Target()
    async with memory_network() as network:
        network.script(redirecting("ws://b.example:81/chat?x=y", status), "a.example")
        network.script(target, "b.example", 81)
        async with anyws.connect("ws://a.example/") as ws:
            assert ws.path == "/chat?x=y"
            assert ws.request.headers["Host"] == "b.example:81"
            assert ws.response.status == 101
        assert network.dialled == [("a.example", 80), ("b.example", 81)]
    assert len(target.heads) == 1


async def test_each_request_has_a_key_of_its_own() -> None:
    keys = []

    async def script(peer: Peer) -> None:
        head, accept = await read_request(peer)
        keys.append(accept)
        if b"GET /new " in head:
            await peer.send_bytes(GOOD.replace(b"ACCEPT", accept) + b"\r\n")
            await peer.answer_close()
        else:
            await peer.send_bytes(b"HTTP/1.1 307 Go\r\nLocation: new\r\nContent-Length: 0\r\n\r\n")

    async with memory_network() as network:
        network.script(script)
        async with anyws.connect("ws://localhost/old"):
            pass
    assert len(set(keys)) == 2


async def test_request_keeps_what_was_asked_for_when_redirected() -> None:
    target = Target()
    async with memory_network() as network:
        network.script(redirecting("ws://b.example/"), "a.example")
        network.script(target, "b.example")
        async with anyws.connect(
            "ws://u:secret@a.example/",
            origin="https://shop.example",
            subprotocols=["chat"],
            compression=None,
            additional_headers={"Authorization": "Bearer x", "Cookie": "a=b", "X-A": "1"},
            user_agent_header="robot/1",
        ):
            pass
    lines = target.heads[0].split("\r\n")
    assert "Origin: https://shop.example" in lines
    assert "Sec-WebSocket-Protocol: chat" in lines
    assert "User-Agent: robot/1" in lines
    assert "X-A: 1" in lines
    assert "Authorization" not in target.heads[0]
    assert "Cookie" not in target.heads[0]


async def test_userinfo_is_sent_again_within_an_origin() -> None:
    async def script(peer: Peer) -> None:
        head, _ = await read_request(peer)
        heads.append(head)
        location = b"/2" if b"GET /1" in head else b"/1"
        await peer.send_bytes(b"HTTP/1.1 302 Go\r\nLocation: " + location + b"\r\n\r\n")

    heads: list[bytes] = []
    async with memory_network() as network:
        network.script(script)
        with pytest.raises(anyws.InvalidStatus, match="in a loop"):
            async with anyws.connect("ws://alice:secret@localhost/1"):
                raise AssertionError
    assert [b"Authorization: Basic YWxpY2U6c2VjcmV0" in head for head in heads] == [True, True]


async def refused(network: MemoryNetwork, uri: str, **arguments: Any) -> anyws.InvalidStatus:
    with pytest.raises(anyws.InvalidStatus) as caught:
        async with anyws.connect(uri, **arguments):
            raise AssertionError
    return caught.value


async def test_loop_is_an_error_that_names_it() -> None:
    async with memory_network() as network:
        network.script(redirecting("ws://b.example/"), "a.example")
        network.script(redirecting("ws://a.example/"), "b.example")
        error = await refused(network, "ws://a.example/")
    assert str(error) == (
        "server answered with HTTP 302, expected 101:"
        " redirects in a loop: ws://a.example/ -> ws://b.example/ -> ws://a.example/"
    )
    assert error.response.headers["Location"] == "ws://a.example/"


@pytest.mark.parametrize("max_redirects", [1, 10])
async def test_more_than_max_redirects_are_an_error(max_redirects: int) -> None:
    async def script(peer: Peer) -> None:
        head, _ = await read_request(peer)
        location = b"/x" + head.split()[1][1:]
        await peer.send_bytes(b"HTTP/1.1 302 Go\r\nLocation: " + location + b"\r\n\r\n")

    async with memory_network() as network:
        network.script(script)
        error = await refused(network, "ws://localhost/", max_redirects=max_redirects)
        assert len(network.dialled) == max_redirects + 1
    assert f"more than {max_redirects} redirects: ws://localhost/ -> " in str(error)


async def test_no_redirect_is_followed_when_max_redirects_is_0() -> None:
    async with memory_network() as network:
        network.script(redirecting("ws://b.example/"))
        error = await refused(network, "ws://localhost/", max_redirects=0)
        assert len(network.dialled) == 1
    assert str(error) == "server answered with HTTP 302, expected 101: redirects are not followed"


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("ws+unix:///run/docker.sock:/", "the scheme is not ws, wss, http, https"),
        ("/a b", "redirect from ws://localhost/ to '/a b'"),
    ],
)
async def test_bad_location_is_an_error_that_names_it(location: str, text: str) -> None:
    async with memory_network() as network:
        network.script(redirecting(location))
        assert text in str(await refused(network, "ws://localhost/"))


async def test_redirect_without_location_is_an_error_with_its_body() -> None:
    async with memory_network() as network:
        network.script(answering(b"HTTP/1.1 301 Go\r\nContent-Length: 4\r\n\r\nawry"))
        error = await refused(network, "ws://localhost/")
    assert "with a Location missing" in str(error)
    assert error.response.body == b"awry"


@pytest.mark.parametrize("location", ["ws://a.example/", "http://a.example/"])
async def test_redirect_out_of_tls_is_refused(location: str) -> None:
    async with memory_network() as network:
        listener = network.listen("a.example", 443)

        def process_request(request: anyws.Request) -> anyws.Response:
            return request.respond(302, headers={"Location": location})

        context = server_context("a.example")
        async with anyws.serve(
            anyws.Connection.wait_closed,
            listeners=[listener],
            ssl=context,
            process_request=process_request,
        ):
            error = await refused(network, "wss://a.example/", ssl=client_context())
        assert network.dialled == [("a.example", 443)]
    assert "redirect out of TLS, from wss://a.example/ to ws://a.example/" in str(error)


async def test_redirect_into_tls_checks_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    trusted = [STRANGER, AUTHORITY]
    monkeypatch.setattr(anyws._client, "default_ssl_context", lambda: client_context(trusted.pop()))

    async def handler(ws: anyws.Connection) -> None:
        assert ws.request.headers["Host"] == "a.example"

    async with memory_network() as network:
        network.script(redirecting("https://a.example/"), "a.example")
        listener = network.listen("a.example", 443)
        async with anyws.serve(handler, listeners=[listener], ssl=server_context("a.example")):
            async with anyws.connect("ws://a.example/") as ws:
                await ws.wait_closed()
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED") as caught:
                async with anyws.connect("ws://a.example/"):
                    raise AssertionError
    assert caught.value.__notes__ == ["after redirects: ws://a.example/ -> wss://a.example/"]


async def test_server_hostname_is_for_the_first_origin_alone() -> None:
    def process_request(request: anyws.Request) -> anyws.Response | None:
        if request.path == "/":
            return request.respond(302, headers={"Location": "/same"})
        if request.headers["Host"] == "10.0.0.1":
            return request.respond(302, headers={"Location": "wss://b.example/"})
        return None

    async def handler(ws: anyws.Connection) -> None:
        await ws.wait_closed()

    async with memory_network() as network:
        first, second = network.listen("10.0.0.1", 443), network.listen("b.example", 443)
        async with (
            anyws.serve(
                handler,
                listeners=[first],
                ssl=server_context("a.example"),
                process_request=process_request,
            ),
            anyws.serve(handler, listeners=[second], ssl=server_context("b.example")),
        ):
            async with anyws.connect(
                "wss://10.0.0.1/", server_hostname="a.example", ssl=client_context()
            ) as ws:
                assert ws.request.headers["Host"] == "b.example"
        assert [host for host, _ in network.dialled] == ["10.0.0.1", "10.0.0.1", "b.example"]


async def test_one_deadline_is_over_all_redirects() -> None:
    async def script(peer: Peer) -> None:
        head, _ = await read_request(peer)
        await anyio.sleep(4)
        location = b"/x" + head.split()[1][1:]
        await peer.send_bytes(b"HTTP/1.1 302 Go\r\nLocation: " + location + b"\r\n\r\n")

    async with memory_network() as network:
        network.script(script)
        text = "no connection to ws://localhost/ -> ws://localhost/x -> ws://localhost/xx after 10"
        with takes(10), pytest.raises(TimeoutError, match=text):
            async with anyws.connect("ws://localhost/"):
                raise AssertionError


async def test_error_after_a_redirect_says_which_way_led_to_it() -> None:
    async with memory_network() as network:
        network.script(redirecting("ws://b.example/?token=secret"), "a.example")
        with pytest.raises(ConnectionRefusedError) as caught:
            async with anyws.connect("ws://a.example/"):
                raise AssertionError
    assert caught.value.__notes__ == ["after redirects: ws://a.example/ -> ws://b.example/"]


async def test_status_after_a_redirect_is_told() -> None:
    async with memory_network() as network:
        network.script(redirecting("ws://b.example/"), "a.example")
        network.script(answering(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"), "b.example")
        error = await refused(network, "ws://a.example/")
    assert error.response.status == 403
    assert error.__notes__ == ["after redirects: ws://a.example/ -> ws://b.example/"]


async def test_redirect_is_logged_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "anyws.client")
    async with memory_network() as network:
        network.script(redirecting("ws://v:secret@b.example/?t=secret"), "a.example")
        network.script(Target(), "b.example")
        async with anyws.connect("ws://u:secret@a.example/"):
            pass
    assert caplog.messages == ["redirected: ws://a.example/ -> ws://b.example/"]


# Where none is followed.


async def test_no_redirect_is_followed_over_a_stream_of_the_callers() -> None:
    near, far = memory_stream_pair()

    async def serve() -> None:
        await redirecting("ws://b.example/")(Peer(far, masks=False))

    async with anyio.create_task_group() as tg:
        tg.start_soon(serve)
        with pytest.raises(anyws.InvalidStatus, match=r"expected 101: redirects are not followed$"):
            async with anyws.connect("ws://localhost/", stream=near):
                raise AssertionError
    await far.aclose()


@pytest.mark.parametrize("name", ["unix_connect", "wrap_client"])
async def test_max_redirects_is_refused_where_none_is_followed(name: str) -> None:
    near, far = memory_stream_pair()
    first: Any = {"unix_connect": "/run/x.sock", "wrap_client": near}[name]
    with pytest.raises(TypeError, match=rf"{name}\(\) has no use for the argument 'max_redirects'"):
        getattr(anyws, name)(first, max_redirects=1)
    await near.aclose()
    await far.aclose()


@pytest.mark.parametrize("value", ["1", 1.0, None], ids=repr)
async def test_max_redirects_that_is_no_int_is_a_typeerror(value: Any) -> None:
    with pytest.raises(TypeError, match="max_redirects must be an int, not "):
        anyws.connect("ws://localhost/", max_redirects=value)


async def test_max_redirects_below_0_is_a_valueerror() -> None:
    with pytest.raises(ValueError, match="max_redirects of -1 is negative"):
        anyws.connect("ws://localhost/", max_redirects=-1)
