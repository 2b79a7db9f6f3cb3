"""Connecting through proxies over real sockets: TCP, TLS, and TLS in TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from tests.proxying import LiteralProxy, over_tls
from tests.sockets import echo, scripted_server, serving
from tests.tls import client_context, server_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.proxying import Script
    from tests.wire import Peer

pytestmark = pytest.mark.anyio

PROXIES: dict[str, Callable[[LiteralProxy], Script]] = {
    "http": lambda proxy: proxy.http,
    "https": lambda proxy: over_tls(proxy.http),
    "socks5": lambda proxy: proxy.socks,
    "socks5h": lambda proxy: proxy.socks,
    "socks4": lambda proxy: proxy.socks,
    "socks4a": lambda proxy: proxy.socks,
}


def arguments(scheme: str, port: int, *, secure: bool) -> dict[str, Any]:
    """Give those of `connect` for a proxy on this port."""
    return {
        "proxy": f"{scheme}://alice{'' if 'socks4' in scheme else ':secret'}@127.0.0.1:{port}",
        "proxy_ssl": client_context() if scheme == "https" else None,
        "ssl": client_context() if secure else None,
    }


@pytest.mark.parametrize("native", ["1", "0"], ids=["native", "anyio"])
@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("scheme", PROXIES)
async def test_messages_go_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch, scheme: str, secure: bool, native: str
) -> None:
    monkeypatch.setenv("ANYWS_NATIVE_TRANSPORTS", native)
    proxy = LiteralProxy()
    context = server_context() if secure else None
    async with (
        serving(echo, ssl=context) as server,
        scripted_server(PROXIES[scheme](proxy)) as port,
    ):
        uri = f"{'wss' if secure else 'ws'}://localhost:{server.port}/"
        async with anyws.connect(uri, **arguments(scheme, port, secure=secure)) as ws:
            assert ws.remote_address == ("127.0.0.1", port)
            for message in ("hello", b"x" * 2**19):
                await ws.send(message)
                assert await ws.recv() == message
            assert await (await ws.ping()) > 0
        assert ws.close_code == 1000
    assert len(proxy.asked) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_nothing_is_left_open_when_a_proxy_is_silent(scheme: str) -> None:
    ended = anyio.Event()

    async def silent(peer: Peer) -> None:
        await peer.read_until_eof()
        ended.set()

    async with scripted_server(silent) as port:
        with anyio.move_on_after(0.01):
            async with anyws.connect("ws://h/", **arguments(scheme, port, secure=False)):
                raise AssertionError
        await ended.wait()


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_end_is_found_out_when_the_proxy_drops_the_connection(
    scheme: str, secure: bool
) -> None:
    dropped = anyio.Event()

    async def dropping(peer: Peer) -> None:
        proxy = LiteralProxy()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(PROXIES[scheme](proxy), peer)
            await dropped.wait()
            tasks.cancel_scope.cancel()

    context = server_context() if secure else None
    async with serving(echo, ssl=context) as server, scripted_server(dropping) as port:
        uri = f"{'wss' if secure else 'ws'}://localhost:{server.port}/"
        async with anyws.connect(uri, **arguments(scheme, port, secure=secure)) as ws:
            await ws.send("hello")
            await ws.recv()
            dropped.set()
            with pytest.raises(anyws.ConnectionClosedError) as caught:
                await ws.recv()
            assert caught.value.code == 1006
