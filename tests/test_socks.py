"""Connecting through SOCKS proxies: 4, 4a, 5 and 5h, and all the ways in which they refuse."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from anyws import _transports
from tests.endings import never_answers, takes
from tests.network import MemoryNetwork, memory_network
from tests.proxying import LiteralProxy
from tests.sockets import echo
from tests.test_redirects import Target, redirecting
from tests.tls import client_context, server_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import ByteStream

    from tests.wire import Peer

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

SCHEMES = ["socks5", "socks5h", "socks4", "socks4a"]


@pytest.fixture(autouse=True)
def resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let names under "known" have an address, and others none."""

    async def getaddrinfo(host: str, port: int, *, family: int = 0, **_: Any) -> list[Any]:
        await anyio.lowlevel.checkpoint()
        if not host.endswith("known"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        inet6 = (socket.AF_INET6, 1, 6, "", ("2001:db8::1", port, 0, 0))
        inet = (socket.AF_INET, 1, 6, "", ("10.0.0.1", port))
        return [inet] if family == socket.AF_INET else [inet6, inet]

    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)


def proxied(network: MemoryNetwork) -> LiteralProxy:
    proxy = LiteralProxy(network.open_tcp)
    network.script(proxy.socks, "proxy", 1080)
    return proxy


async def fails(error: type[Exception], uri: str = "ws://server.known/", **arguments: Any) -> Any:
    """Give the error that connecting raises."""
    arguments.setdefault("proxy", "socks5h://proxy")
    with pytest.raises(error) as caught:
        async with anyws.connect(uri, **arguments):
            raise AssertionError
    return caught.value


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_messages_go_through_the_proxy(scheme: str, secure: bool) -> None:
    port = 443 if secure else 80
    context = server_context("server.known") if secure else None
    host = "server.known" if scheme in {"socks5h", "socks4a"} else "10.0.0.1"
    async with memory_network() as network:
        proxy = proxied(network)
        listener = network.listen(host, port)
        async with anyws.serve(echo, listeners=[listener], ssl=context):
            async with anyws.connect(
                f"{'wss' if secure else 'ws'}://server.known/",
                ssl=client_context() if secure else None,
                proxy=f"{scheme}://proxy",
            ) as ws:
                for message in ("hello", b"x" * 300_000):
                    await ws.send(message)
                    assert await ws.recv() == message
        assert network.dialled == [("proxy", 1080), (host, port)]
    assert proxy.asked == [f"{host}:{port}"]


@pytest.mark.parametrize(
    ("uri", "scheme", "asked"),
    [
        ("ws://10.0.0.2:81/", "socks5", "10.0.0.2:81"),
        ("ws://10.0.0.2:81/", "socks5h", "10.0.0.2:81"),
        ("ws://10.0.0.2:81/", "socks4", "10.0.0.2:81"),
        ("ws://10.0.0.2:81/", "socks4a", "10.0.0.2:81"),
        ("ws://[2001:db8::2]/", "socks5", "2001:db8::2:80"),
        ("ws://[fe80::2%25eth0]/", "socks5h", "fe80::2:80"),
        ("ws://unresolved/", "socks5h", "unresolved:80"),
        ("ws://unresolved/", "socks4a", "unresolved:80"),
    ],
)
async def test_addresses_and_names_are_told_to_the_proxy(uri: str, scheme: str, asked: str) -> None:
    async with memory_network() as network:
        proxy = proxied(network)
        host, _, port = asked.rpartition(":")
        network.script(Target(), host, int(port))
        async with anyws.connect(uri, proxy=f"{scheme}://proxy"):
            pass
    assert proxy.asked == [asked]


@pytest.mark.parametrize(
    ("proxy", "head"),
    [
        ("socks5://alice:s%40cret@proxy", b"\x05\x00\x02alice:s@cret"),
        ("socks5h://proxy", b"\x05\x00"),
        ("socks4://alice@proxy", b"\x04\x01\x00\x50\x0a\x00\x00\x01alice\x00"),
        ("socks4a://alice@proxy", b"\x04\x01\x00\x50\x00\x00\x00\x01alice\x00"),
        ("socks4://proxy", b"\x04\x01\x00\x50\x0a\x00\x00\x01\x00"),
    ],
)
async def test_credentials_go_to_the_proxy_alone(
    proxy: str, head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with memory_network() as network:
        literal = proxied(network)
        for host in ("server.known", "10.0.0.1"):
            network.script(Target(), host)
        async with anyws.connect("ws://bob:hidden@server.known/", proxy=proxy):
            pass
    assert literal.heads == [head]
    assert b"cret" not in literal.relayed
    assert b"Authorization: Basic Ym9iOmhpZGRlbg==\r\n" in literal.relayed
    assert "cret" not in caplog.text


async def test_redirect_goes_through_the_proxy() -> None:
    async with memory_network() as network:
        proxy = proxied(network)
        network.script(redirecting("ws://b.example/"), "a.example")
        network.script(Target(), "b.example")
        async with anyws.connect("ws://a.example/", proxy="socks5h://proxy"):
            pass
    assert proxy.asked == ["a.example:80", "b.example:80"]


async def test_server_that_speaks_first_is_heard() -> None:
    async def script(peer: Peer) -> None:
        await peer.read(3)
        await peer.send_bytes(b"\x05\x00")
        await peer.read(4 + 1 + len("server.known") + 2)
        early = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
        await peer.send_bytes(b"\x05\x00\x00\x03\x02ab\x00\x50" + early)
        await peer.read_until_eof()

    async with memory_network() as network:
        network.script(script, "proxy", 1080)
        error = await fails(anyws.InvalidStatus)
    assert error.response.status == 503


# Refusals.


def answering(*answers: bytes, dribble: bool = False) -> Callable[[Peer], Awaitable[None]]:
    """Make a proxy that answers each thing that comes with the next of these, and then leaves."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.stream.receive()
            for part in [answer[i : i + 1] for i in range(len(answer))] if dribble else [answer]:
                await peer.send_bytes(part)
        await peer.read_until_eof()

    return script


async def refused(*answers: bytes, proxy: str = "socks5h://proxy") -> anyws.ProxyError:
    async with memory_network() as network:
        network.script(answering(*answers), "proxy", 1080)
        error = await fails(anyws.ProxyError, proxy=proxy)
    assert isinstance(error, anyws.ProxyError)
    assert error.response is None
    assert isinstance(error.__cause__, Exception)
    return error


@pytest.mark.parametrize(
    ("code", "text", "again"),
    [
        (1, "General SOCKS server failure", True),
        (2, "Connection not allowed by ruleset", False),
        (3, "Network unreachable", True),
        (4, "Host unreachable", True),
        (5, "Connection refused by destination host", True),
        (6, "TTL expired", True),
        (7, "Command not supported or protocol error", False),
        (8, "Address type not supported", False),
    ],
)
async def test_reply_of_socks5_is_told(code: int, text: str, again: bool) -> None:
    error = await refused(b"\x05\x00", bytes([5, code, 0, 1]) + bytes(6))
    assert str(error) == f"proxy socks5h://proxy:1080, asked for server.known:80: {text}"
    assert error.reply == code
    assert anyws.default_retry(error) is again


@pytest.mark.parametrize(
    ("code", "text", "again"),
    [
        (91, "Request rejected or failed", True),
        (92, "cannot connect to identd", False),
        (93, "report different user-ids", False),
    ],
)
@pytest.mark.parametrize("scheme", ["socks4", "socks4a"])
async def test_reply_of_socks4_is_told(scheme: str, code: int, text: str, again: bool) -> None:
    error = await refused(bytes([0, code]) + bytes(6), proxy=f"{scheme}://proxy")
    assert text in str(error)
    assert error.reply == code
    assert anyws.default_retry(error) is again


@pytest.mark.parametrize("answer", [b"\x05\xff", b"\x05\x02", b"\x05\x01"])
async def test_proxy_that_wants_a_password_is_told_of(answer: bytes) -> None:
    error = await refused(answer)
    text = "; it may want a user and a password, socks5h://user:password@host:port"
    assert str(error).endswith(text)
    assert not anyws.default_retry(error)


async def test_wrong_password_is_told_without_it() -> None:
    error = await refused(b"\x05\x02", b"\x01\x01", proxy="socks5://alice:secret@proxy")
    assert str(error) == (
        "proxy socks5://proxy:1080, asked for server.known:80:"
        " Username and password authentication failure"
    )
    assert "secret" not in repr(error.__cause__)
    assert not anyws.default_retry(error)


@pytest.mark.parametrize(
    ("proxy", "answers"),
    [
        ("socks5h://proxy", [b"HTTP/1.1 400 Bad Request\r\n\r\n"]),
        ("socks5h://proxy", [b"\x04\x00"]),
        ("socks5h://proxy", [b"\x05\x09"]),
        ("socks5h://proxy", [b"\x05\x00", b"\x04\x00\x00\x01" + bytes(6)]),
        ("socks5h://proxy", [b"\x05\x00", b"\x05\x99\x00\x01" + bytes(6)]),
        ("socks5h://proxy", [b"\x05\x00", b"\x05\x00\x01\x01" + bytes(6)]),
        ("socks5h://proxy", [b"\x05\x00", b"\x05\x00\x00\x07" + bytes(6)]),
        ("socks5h://a:b@proxy", [b"\x05\x02", b"\x05\x00"]),
        ("socks4a://proxy", [b"HTTP/1.1 400 Bad Request\r\n\r\n"]),
        ("socks4a://proxy", [b"\x00\x99" + bytes(6)]),
    ],
)
async def test_answer_that_is_no_socks_is_a_proxyerror(proxy: str, answers: list[bytes]) -> None:
    error = await refused(*answers, proxy=proxy)
    assert error.reply is None
    assert not anyws.default_retry(error)


@pytest.mark.parametrize("answers", [[], [b"\x05"], [b"\x05\x00"], [b"\x05\x00", b"\x05\x00\x00"]])
@pytest.mark.parametrize("resets", [False, True])
async def test_end_before_the_answer_is_a_proxyerror(answers: list[bytes], resets: bool) -> None:
    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.stream.receive()
            await peer.send_bytes(answer)
        if not resets:
            await peer.stream.send_eof()
            await peer.read_until_eof()

    async with memory_network() as network:
        network.script(script, "proxy", 1080)
        error = await fails(anyws.ProxyError)
    text = "proxy socks5h://proxy:1080, asked for server.known:80: connection closed before it answ"
    assert str(error).startswith(text)
    assert anyws.default_retry(error)


async def test_answers_may_come_byte_by_byte() -> None:
    async with memory_network() as network:
        reply = b"\x05\x05\x00\x01" + bytes(6)
        network.script(answering(b"\x05\x00", reply, dribble=True), "proxy", 1080)
        error = await fails(anyws.ProxyError)
    assert error.reply == 5


@pytest.mark.parametrize("scheme", ["socks5", "socks4"])
async def test_name_that_cannot_be_resolved_here_is_an_oserror(scheme: str) -> None:
    async with memory_network() as network:
        proxied(network)
        error = await fails(OSError, "ws://nowhere/", proxy=f"{scheme}://proxy")
    assert isinstance(error, socket.gaierror)
    note = f"while resolving nowhere, for the proxy {scheme}://proxy:1080"
    assert error.__notes__ == [note]


async def test_ipv6_is_not_for_socks4() -> None:
    async with memory_network() as network:
        proxied(network)
        error = await fails(anyws.ProxyError, "ws://[::1]/", proxy="socks4://proxy")
    assert str(error) == (
        "proxy socks4://proxy:1080 cannot reach [::1]:80: SOCKS4 has no IPv6 addresses"
    )


async def test_host_that_has_no_room_is_a_proxyerror() -> None:
    host = ".".join(["a" * 60] * 5)
    async with memory_network() as network:
        proxied(network)
        error = await fails(anyws.ProxyError, f"ws://{host}/")
    assert str(error).endswith("a host that SOCKS has no room for")


async def test_error_says_that_it_was_the_proxy_who_is_not_there() -> None:
    async with memory_network():
        error = await fails(ConnectionRefusedError)
    assert error.__notes__ == ["at the proxy socks5h://proxy:1080"]


# The deadline, and cancellation.


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_timeout_names_the_proxy_when_that_is_slow(scheme: str) -> None:
    async with memory_network() as network:
        network.script(never_answers, "proxy", 1080)
        with takes(10):
            error = await fails(TimeoutError, proxy=f"{scheme}://proxy")
    assert str(error) == (
        "no connection to ws://server.known/ after 10 seconds (open_timeout),"
        f" at the proxy {scheme}://proxy:1080"
    )


async def test_no_other_deadline_counts() -> None:
    async def slow(peer: Peer) -> None:
        await anyio.sleep(3600)
        await LiteralProxy(network.open_tcp).socks(peer)

    async with memory_network() as network:
        network.script(slow, "proxy", 1080)
        network.script(Target(), "server.known")
        async with anyws.connect("ws://server.known/", proxy="socks5h://proxy", open_timeout=None):
            pass


@pytest.mark.parametrize("proxy", ["socks5://a:b@proxy", "socks5h://proxy", "socks4://proxy"])
async def test_nothing_is_left_open_wherever_opening_is_cancelled(proxy: str) -> None:
    ended = opened = 0
    streams: list[ByteStream] = []
    async with memory_network() as network:
        proxied(network)
        listeners = [network.listen(host) for host in ("server.known", "10.0.0.1")]
        real = network.open_tcp

        async def open_tcp(host: str, port: int) -> ByteStream:
            streams.append(await real(host, port))
            return streams[-1]

        async def connect() -> None:
            nonlocal opened
            async with anyws.connect("ws://server.known/", proxy=proxy):
                opened += 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_transports, "open_tcp", open_tcp)
            async with anyws.serve(echo, listeners=listeners):
                for turns in range(200):
                    async with anyio.create_task_group() as tasks:
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
