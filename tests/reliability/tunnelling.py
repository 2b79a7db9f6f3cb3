"""Scenarios of the cancellation sweep: opening a connection through a proxy.

Owns the proxies on the way; both ends of the connection are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyws
from tests.blocks import echo
from tests.proxying import LiteralProxy, over_tls
from tests.reliability.closing import call_block
from tests.reliability.sweeping import Scenario
from tests.sockets import scripted_server
from tests.transports import context

if TYPE_CHECKING:
    from tests.reliability.cutting import Cut


async def _exchange(cut: Cut, ws: anyws.Connection) -> None:
    await ws.send("message")
    await ws.recv()


def _through(scheme: str) -> Scenario:
    """Connect with TLS to the server, through a proxy of one kind."""

    async def run(cut: Cut) -> None:
        proxy = LiteralProxy()
        script = proxy.socks if scheme.startswith("socks") else proxy.http
        async with (
            anyws.serve(echo, "127.0.0.1", ssl=context(server_side=True)) as server,
            scripted_server(over_tls(script) if scheme == "https" else script) as port,
        ):
            uri = f"wss://localhost:{server.port}/"
            await call_block(
                cut,
                lambda: anyws.connect(
                    uri,
                    ssl=context(server_side=False),
                    proxy=f"{scheme}://127.0.0.1:{port}",
                    proxy_ssl=context(server_side=False) if scheme == "https" else None,
                ),
                _exchange,
                armed=True,
            )

    return Scenario("connect, through a proxy", scheme, run, virtual=False)


SCENARIOS = tuple(map(_through, ("http", "https", "socks5", "socks4a")))
