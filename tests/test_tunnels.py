"""Connecting through HTTP proxies: the tunnel, TLS in it and around it, and what it may meet."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from anyws import _transports
from tests.endings import never_answers, takes
from tests.network import MemoryNetwork, memory_network
from tests.proxying import ESTABLISHED, LiteralProxy, over_tls
from tests.sockets import echo
from tests.test_redirects import Target, redirecting
from tests.tls import STRANGER, client_context, server_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from anyio.abc import ByteStream

    from tests.wire import Peer

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

HTTP = "http://proxy.example:3128"
HTTPS = "https://proxy.example:3128"


@asynccontextmanager
async def proxied_network(
    *, tls: bool = False
) -> AsyncGenerator[tuple[MemoryNetwork, LiteralProxy], None]:
    """Give a network in memory with a proxy in it."""
    async with memory_network() as network:
        proxy = LiteralProxy(network.open_tcp)
        script = over_tls(proxy.http, "proxy.example") if tls else proxy.http
        network.script(script, "proxy.example", 3128)
        yield network, proxy


async def fails(error: type[Exception], uri: str = "ws://server/", **arguments: Any) -> Any:
    """Give the error that connecting raises."""
    arguments.setdefault("proxy", HTTP)
    with pytest.raises(error) as caught:
        async with anyws.connect(uri, **arguments):
            raise AssertionError
    return caught.value


# The tunnel.


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_messages_go_through_the_tunnel(tls: bool, secure: bool) -> None:
    scheme, port = ("wss", 443) if secure else ("ws", 80)
    context = server_context("server.example") if secure else None
    async with proxied_network(tls=tls) as (network, proxy):
        listener = network.listen("server.example", port)
        async with anyws.serve(echo, listeners=[listener], ssl=context, max_size=None):
            async with anyws.connect(
                f"{scheme}://server.example/",
                ssl=client_context() if secure else None,
                proxy=HTTPS if tls else HTTP,
                proxy_ssl=client_context() if tls else None,
                compression=None,
            ) as ws:
                for message in ("hello", b"x" * 300_000, "\N{SNOWMAN}" * 1000):
                    await ws.send(message)
                    assert await ws.recv() == message
        assert network.dialled == [("proxy.example", 3128), ("server.example", port)]
    assert proxy.asked == [f"server.example:{port}"]
    assert (b"GET / HTTP/1.1" in proxy.relayed) is not secure


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_both_sides_stream_at_once_through_the_tunnel(tls: bool, secure: bool) -> None:
    async def flood(ws: anyws.Connection) -> None:
        for _ in range(10):
            await ws.send(b"x" * 2**18)

    async def handler(ws: anyws.Connection) -> None:
        ws.start_soon(flood, ws)
        for _ in range(10):
            await ws.recv()

    context = server_context("server.example") if secure else None
    async with proxied_network(tls=tls) as (network, _):
        listener = network.listen("server.example", 81)
        async with anyws.serve(handler, listeners=[listener], ssl=context):
            async with anyws.connect(
                f"{'wss' if secure else 'ws'}://server.example:81/",
                ssl=client_context() if secure else None,
                proxy=HTTPS if tls else HTTP,
                proxy_ssl=client_context() if tls else None,
                compression=None,
            ) as ws:
                ws.start_soon(flood, ws)
                assert [len(await ws.recv()) for _ in range(10)] == [2**18] * 10


async def test_server_hostname_is_that_of_the_server() -> None:
    async with proxied_network(tls=True) as (network, _):
        listener = network.listen("10.0.0.1", 443)
        context = server_context("server.example")
        async with anyws.serve(echo, listeners=[listener], ssl=context):
            async with anyws.connect(
                "wss://10.0.0.1/",
                server_hostname="server.example",
                ssl=client_context(),
                proxy=HTTPS,
                proxy_ssl=client_context(),
            ):
                pass


async def test_default_context_checks_the_certificate_of_an_https_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(anyws._client, "default_ssl_context", client_context)
    async with proxied_network(tls=True) as (network, _):
        network.script(Target(), "server")
        async with anyws.connect("ws://server/", proxy=HTTPS):
            pass


async def test_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "proxy.example:3128")
    monkeypatch.setenv("no_proxy", "direct.example")
    async with proxied_network() as (network, proxy):
        network.script(Target(), "server.example")
        network.script(Target(), "direct.example")
        for uri in ("ws://server.example/", "ws://direct.example/"):
            async with anyws.connect(uri):
                pass
        async with anyws.connect("ws://server.example/", proxy=None):
            pass
    assert proxy.asked == ["server.example:80"]


async def test_proxy_that_is_named_is_used_whatever_no_proxy_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    async with proxied_network() as (network, proxy):
        network.script(Target(), "server")
        async with anyws.connect("ws://server/", proxy=HTTP):
            pass
    assert proxy.asked == ["server:80"]


async def test_reconnect_passes_the_proxy_on() -> None:
    async with proxied_network() as (network, proxy):
        network.script(Target(), "server")
        async with anyws.reconnect("ws://server/", proxy=HTTP) as session:
            async for _ in session:
                if session.attempts == 2:
                    break
    assert proxy.asked == ["server:80"] * 2


@pytest.mark.parametrize("split", [False, True])
async def test_bytes_behind_the_answer_are_the_servers(split: bool) -> None:
    early = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"

    async def script(peer: Peer) -> None:
        await peer.read_until(b"\r\n\r\n")
        if split:
            await peer.send_bytes(ESTABLISHED)
            await peer.send_bytes(early)
        else:
            await peer.send_bytes(ESTABLISHED + early)
        await peer.read_until_eof()

    async with memory_network() as network:
        network.script(script, "proxy.example", 3128)
        error = await fails(anyws.InvalidStatus)
    assert (error.response.status, error.response.body) == (503, b"busy")
    assert error.__notes__ == ["through the proxy http://proxy.example:3128"]


async def test_connection_lives_when_bytes_came_behind_the_answer() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_until(b"\r\n\r\n")
        await peer.send_bytes(ESTABLISHED + b"HTTP/1.1 102 Wait\r\n\r\n")
        await Target()(peer)

    async with memory_network() as network:
        network.script(script, "proxy.example", 3128)
        async with anyws.connect("ws://server/", proxy=HTTP) as ws:
            await ws.send("hello")
        assert ws.close_code == 1000


# Secrets.


async def test_nothing_secret_reaches_the_wrong_party_or_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = ["YWxpY2U6c2VjcmV0LTE=", "Ym9iOnNlY3JldC0y", "secret", "Y29va2ll"]
    target = Target()
    async with proxied_network() as (network, proxy):
        network.script(target, "server")
        async with anyws.connect(
            "ws://bob:secret-2@server/?token=secret-3",
            proxy="http://alice:secret-1@proxy.example:3128",
            additional_headers={"Cookie": "Y29va2ll"},
            user_agent_header="robot/1",
        ):
            pass
    assert proxy.heads == [
        (
            b"CONNECT server:80 HTTP/1.1\r\n"
            b"Host: server:80\r\n"
            b"Proxy-Authorization: Basic YWxpY2U6c2VjcmV0LTE=\r\n"
            b"User-Agent: robot/1\r\n"
            b"\r\n"
        )
    ]
    (head,) = target.heads
    assert "Authorization: Basic Ym9iOnNlY3JldC0y\r\n" in head
    assert "Cookie: Y29va2ll\r\n" in head
    assert "proxy" not in head.lower()
    assert "YWxpY2U6" not in head
    assert b"YWxpY2U6" not in proxy.relayed
    assert "ws://server/ through the proxy http://proxy.example:3128" in caplog.messages
    for record in caplog.records:
        assert not [secret for secret in secrets if secret in repr(vars(record))]


async def test_no_error_has_a_password() -> None:
    async def refusing(peer: Peer) -> None:
        await peer.read_until(b"\r\n\r\n")
        await peer.send_bytes(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")

    arguments: dict[str, Any] = {"proxy": "http://alice:secret@proxy.example:3128"}
    async with memory_network() as network:
        errors = [await fails(OSError, **arguments)]
        network.script(refusing, "proxy.example", 3128)
        errors.append(await fails(anyws.ProxyError, **arguments))
        network.script(never_answers, "proxy.example", 3128)
        errors.append(await fails(TimeoutError, **arguments))
    for error in errors:
        texts = [str(error), repr(error), *getattr(error, "__notes__", []), repr(error.__cause__)]
        assert "secret" not in "".join(texts)
        assert "YWxpY2U6" not in "".join(texts)


def test_proxy_authorization_is_no_field_for_the_server() -> None:
    text = "cannot have Proxy-Authorization: user and password stand in the URL of the proxy"
    with pytest.raises(ValueError, match=text):
        anyws.connect("ws://server/", additional_headers={"Proxy-Authorization": "Basic x"})


@pytest.mark.parametrize("user_agent", ["robot/1", None])
async def test_user_agent_is_sent_unless_it_is_none(user_agent: str | None) -> None:
    async with proxied_network() as (network, proxy):
        network.script(Target(), "server")
        async with anyws.connect("ws://server/", proxy=HTTP, user_agent_header=user_agent):
            pass
    assert (b"User-Agent: robot/1" in proxy.heads[0]) is (user_agent is not None)


# Proxies that refuse, and that are none.


def answering_connect(answer: bytes, *, stays: bool = False) -> Callable[[Peer], Awaitable[None]]:
    """Make a proxy that answers in this way, and leaves or waits for the client to do so."""

    async def script(peer: Peer) -> None:
        await peer.read_until(b"\r\n\r\n")
        await peer.send_bytes(answer)
        if stays:
            await peer.read_until_eof()

    return script


async def asked(answer: bytes, *, stays: bool = False, **arguments: Any) -> anyws.ProxyError:
    """Give the error that this answer of a proxy makes."""
    async with memory_network() as network:
        network.script(answering_connect(answer, stays=stays), "proxy.example", 3128)
        error = await fails(anyws.ProxyError, **arguments)
    assert isinstance(error, anyws.ProxyError)
    return error


async def test_refusal_has_status_and_body() -> None:
    error = await asked(
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 9\r\n\r\nno route\n", stays=True
    )
    assert (
        str(error) == "proxy http://proxy.example:3128 answered with HTTP 502, asked for server:80"
    )
    assert error.response is not None
    assert error.response.body == b"no route\n"
    assert not hasattr(error, "__notes__")


async def test_refusal_ends_with_the_stream_when_it_has_no_length() -> None:
    error = await asked(b"HTTP/1.0 403 Filtered\r\n\r\nno")
    assert error.response is not None
    assert (error.response.status, error.response.body) == (403, b"no")


async def test_body_of_a_refusal_is_bounded() -> None:
    error = await asked(b"HTTP/1.1 500 Oops\r\n\r\n" + bytes(2**17), stays=True)
    assert error.response is not None
    assert len(error.response.body) == 2**16


async def test_407_says_how_to_give_a_password() -> None:
    error = await asked(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\n\r\n")
    assert str(error).endswith("it wants a user and a password, http://user:password@host:port")


async def test_redirect_of_a_proxy_is_not_followed() -> None:
    error = await asked(b"HTTP/1.1 302 Go\r\nLocation: ws://evil/\r\nContent-Length: 0\r\n\r\n")
    assert error.response is not None
    assert error.response.status == 302


@pytest.mark.parametrize(
    "answer",
    [
        b"\x05\xff\x00\x00\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 200 OK\r\nX: " + bytes(10_000),
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 1000,
        b"HTTP/1.1 100 Go on\r\n\r\n" * 5000,
    ],
    ids=["SOCKS", "SSH", "TLS", "long line", "many lines", "many heads"],
)
async def test_answer_that_is_no_http_is_a_proxyerror(answer: bytes) -> None:
    error = await asked(answer, stays=True)
    assert error.response is None
    assert str(error).startswith("proxy http://proxy.example:3128, asked for server:80: ")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nX: a"])
async def test_end_before_the_answer_is_a_proxyerror(answer: bytes) -> None:
    error = await asked(answer)
    assert "connection closed while reading HTTP" in str(error)
    assert isinstance(error.__cause__, anyio.EndOfStream)
    assert anyws.default_retry(error)


async def test_reset_before_the_answer_is_a_proxyerror() -> None:
    async with memory_network() as network:

        async def script(peer: Peer) -> None:
            await peer.stream.aclose()

        network.script(script, "proxy.example", 3128)
        real = network.open_tcp

        async def open_tcp(host: str, port: int) -> ByteStream:
            stream = await real(host, port)
            await anyio.wait_all_tasks_blocked()
            return stream

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_transports, "open_tcp", open_tcp)
            error = await fails(anyws.ProxyError)
    assert str(error) == "connection to the proxy http://proxy.example:3128 lost"
    assert isinstance(error.__cause__, anyio.BrokenResourceError)
    assert anyws.default_retry(error)


@pytest.mark.parametrize(
    ("status", "again"), [(429, True), (502, True), (503, True), (403, False), (407, False)]
)
async def test_answers_of_a_proxy_are_worth_another_try_like_those_of_a_server(
    status: int, again: bool
) -> None:
    head = f"HTTP/1.1 {status} No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    error = await asked(head.encode())
    assert anyws.default_retry(error) is again
    seconds = anyws._reconnect.parse_retry_after(error)
    assert seconds == (7 if status in {429, 503} else 0)


async def test_error_says_that_it_was_the_proxy_who_is_not_there() -> None:
    async with memory_network():
        error = await fails(ConnectionRefusedError)
    assert error.__notes__ == ["at the proxy http://proxy.example:3128"]
    assert anyws.default_retry(error)


async def test_error_behind_the_proxy_says_which_way_led_to_it() -> None:
    async with proxied_network() as (network, _):
        listener = network.listen("server.example", 443)
        async with anyws.serve(echo, listeners=[listener], ssl=server_context("other.example")):
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED") as caught:
                async with anyws.connect("wss://server.example/", ssl=client_context(), proxy=HTTP):
                    raise AssertionError
    assert caught.value.__notes__ == ["through the proxy http://proxy.example:3128"]


async def test_certificate_of_the_proxy_is_checked() -> None:
    for name, trusted in (("other.example", None), ("proxy.example", STRANGER)):
        context = client_context() if trusted is None else client_context(trusted)
        async with memory_network() as network:
            proxy = LiteralProxy(network.open_tcp)

            async def script(peer: Peer, proxy: LiteralProxy = proxy, name: str = name) -> None:
                with pytest.raises((OSError, anyio.BrokenResourceError, anyio.EndOfStream)):
                    await over_tls(proxy.http, name)(peer)

            network.script(script, "proxy.example", 3128)
            error = await fails(OSError, proxy=HTTPS, proxy_ssl=context)
        assert "CERTIFICATE_VERIFY_FAILED" in str(error)
        assert error.__notes__ == ["at the proxy https://proxy.example:3128"]
        assert not proxy.heads
        assert not anyws.default_retry(error)


# Redirects.


async def test_redirect_goes_through_the_same_proxy_when_it_is_named() -> None:
    target = Target()
    async with proxied_network() as (network, proxy):
        network.script(redirecting("ws://b.example:81/x"), "a.example")
        network.script(target, "b.example", 81)
        async with anyws.connect("ws://a.example/", proxy=HTTP) as ws:
            assert ws.path == "/x"
    assert proxy.asked == ["a.example:80", "b.example:81"]


async def test_proxy_is_chosen_anew_after_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://plain.example")
    monkeypatch.setenv("wss_proxy", "http://alice:secret@secure.example")
    monkeypatch.setenv("no_proxy", "direct.example")
    monkeypatch.setattr(anyws._client, "default_ssl_context", client_context)
    answers = {"/1": "ws://direct.example/2", "/2": "wss://c.example/3"}

    def process_request(request: anyws.Request) -> anyws.Response | None:
        location = answers.get(request.path)
        return None if location is None else request.respond(302, headers={"Location": location})

    async with memory_network() as network:
        plain, secure = LiteralProxy(network.open_tcp), LiteralProxy(network.open_tcp)
        network.script(plain.http, "plain.example")
        network.script(secure.http, "secure.example")
        hosts = (("a.example", 80), ("direct.example", 80), ("c.example", 443))
        first, second, third = (network.listen(*host) for host in hosts)
        async with (
            anyws.serve(echo, listeners=[first, second], process_request=process_request),
            anyws.serve(echo, listeners=[third], ssl=server_context("c.example")),
        ):
            async with anyws.connect("ws://a.example/1") as ws:
                assert ws.path == "/3"
        assert network.dialled[:3] == [("plain.example", 80), hosts[0], hosts[1]]
        assert network.dialled[3:] == [("secure.example", 80), hosts[2]]
    assert (plain.asked, secure.asked) == (["a.example:80"], ["c.example:443"])
    assert b"Proxy-Authorization" not in plain.heads[0]
    assert b"Proxy-Authorization" in secure.heads[0]


async def test_refusal_of_a_proxy_after_a_redirect_says_which_way_led_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ws_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "a.example")
    async with memory_network() as network:
        network.script(redirecting("ws://b.example/"), "a.example")
        network.script(answering_connect(b"HTTP/1.1 403 No\r\n\r\n"), "proxy.example", 3128)
        error = await fails(anyws.ProxyError, "ws://a.example/", proxy=True)
    assert error.__notes__ == ["after redirects: ws://a.example/ -> ws://b.example/"]


# The deadline, and cancellation.


async def dribble(peer: Peer, data: bytes) -> None:
    for byte in data:
        await anyio.sleep(1)
        await peer.send_bytes(bytes([byte]))


async def dribbling(peer: Peer) -> None:
    await peer.read_until(b"\r\n\r\n")
    await dribble(peer, ESTABLISHED)


async def silent_over_tls(peer: Peer) -> None:
    await over_tls(never_answers, "proxy.example")(peer)


async def refusing_slowly(peer: Peer) -> None:
    await peer.read_until(b"\r\n\r\n")
    await peer.send_bytes(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
    await dribble(peer, bytes(100))


@pytest.mark.parametrize(
    ("proxy", "script"),
    [
        (HTTP, never_answers),
        (HTTP, dribbling),
        (HTTPS, never_answers),
        (HTTPS, silent_over_tls),
    ],
)
async def test_timeout_names_the_proxy_when_that_is_slow(
    proxy: str, script: Callable[[Peer], Awaitable[None]]
) -> None:
    async with memory_network() as network:
        network.script(script, "proxy.example", 3128)
        with takes(10):
            error = await fails(TimeoutError, proxy=proxy, proxy_ssl=context_for(proxy))
    assert str(error) == (
        f"no connection to ws://server/ after 10 seconds (open_timeout), at the proxy {proxy}"
    )


async def test_refusal_whose_body_does_not_end_is_a_proxyerror() -> None:
    async with memory_network() as network:
        network.script(refusing_slowly, "proxy.example", 3128)
        with takes(10):
            error = await fails(anyws.ProxyError)
    assert str(error).startswith("proxy http://proxy.example:3128 answered with HTTP 502")
    assert error.__notes__ == ["its body did not end within 10 seconds (open_timeout)"]


def context_for(proxy: str) -> Any:
    return client_context() if proxy.startswith("https") else None


async def test_timeout_does_not_name_the_proxy_when_the_server_is_slow() -> None:
    async with proxied_network() as (network, _):
        network.script(never_answers, "server")
        with takes(10):
            error = await fails(TimeoutError)
    assert str(error) == "no connection to ws://server/ after 10 seconds (open_timeout)"


async def test_proxy_and_server_share_one_deadline() -> None:
    async def slow_proxy(peer: Peer) -> None:
        await anyio.sleep(6)
        await LiteralProxy(network.open_tcp).http(peer)

    async def slow_server(peer: Peer) -> None:
        await anyio.sleep(6)
        await Target()(peer)

    async with memory_network() as network:
        network.script(slow_proxy, "proxy.example", 3128)
        network.script(slow_server, "server")
        with takes(10):
            await fails(TimeoutError)
        async with anyws.connect("ws://server/", proxy=HTTP, open_timeout=13):
            pass


@pytest.mark.parametrize("proxy", [HTTP, HTTPS])
async def test_nothing_is_left_open_wherever_opening_is_cancelled(proxy: str) -> None:
    ended = opened = 0
    async with proxied_network(tls=proxy == HTTPS) as (network, _):
        listener = network.listen("server.example", 443)
        real = network.open_tcp
        streams = []

        async def open_tcp(host: str, port: int) -> ByteStream:
            streams.append(await real(host, port))
            return streams[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_transports, "open_tcp", open_tcp)
            async with anyws.serve(
                echo, listeners=[listener], ssl=server_context("server.example")
            ):
                for turns in range(200):
                    async with anyio.create_task_group() as tasks:

                        async def connect() -> None:
                            nonlocal opened
                            async with anyws.connect(
                                "wss://server.example/",
                                ssl=client_context(),
                                proxy=proxy,
                                proxy_ssl=context_for(proxy),
                            ):
                                opened += 1

                        tasks.start_soon(connect)
                        for _ in range(turns):
                            await anyio.lowlevel.checkpoint()
                        tasks.cancel_scope.cancel()
                    while streams:
                        ended += 1
                        with pytest.raises(anyio.ClosedResourceError):
                            await streams.pop().send(b"x")
                    if opened:
                        break
    assert opened == 1
    assert ended > 10
