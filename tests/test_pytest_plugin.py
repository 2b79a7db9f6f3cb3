"""The fixtures that pytest finds where anyws is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyws import Connection
    from anyws.testing import connection_pair, memory_server

pytest_plugins = ["pytester"]


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_ws_pair_gives_two_connections(ws_pair: Callable[..., connection_pair]) -> None:
    async with ws_pair(max_size=100) as (client, server):
        await client.send("Hello")
        assert await server.recv() == "Hello"


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_ws_server_serves_a_handler(ws_server: Callable[..., memory_server]) -> None:
    async def greet(ws: Connection) -> None:
        await ws.send("Hello")

    async with ws_server(greet) as connect, connect("ws://localhost/path") as ws:
        assert ws.path == "/path"
        assert await ws.recv() == "Hello"


def test_fixtures_are_there_without_any_configuration(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.anyio

        async def test_pair(ws_pair):
            async with ws_pair() as (client, server):
                await client.send("Hello")
                assert await server.recv() == "Hello"

        async def test_server(ws_server):
            async def echo(ws):
                async for message in ws:
                    await ws.send(message)

            async with ws_server(echo) as connect, connect() as ws:
                await ws.send("Hello")
                assert await ws.recv() == "Hello"
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=4)  # on asyncio and on trio


def test_plugin_does_not_load_what_no_test_uses(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_modules():
            assert "anyws._pytest_plugin" in sys.modules
            assert "anyws.testing" not in sys.modules
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
