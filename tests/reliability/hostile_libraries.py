"""Other libraries as victims, to compare with: websockets and aiohttp.

Owns the same applications as `hostile_victims`, written for them, with the same limits and
time-outs where they have such. They are no dependency: each is imported where it is attacked.
"""

from __future__ import annotations

import asyncio
import importlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.reliability.hostile_victims import HASTY, PATIENT, settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.reliability.hostile_victims import Endings


class Websockets:
    """websockets, with its newer implementation for asyncio."""

    def __init__(self) -> None:
        self._server: Any = importlib.import_module("websockets.asyncio.server")
        self._client: Any = importlib.import_module("websockets.asyncio.client")

    @asynccontextmanager
    async def servers(self, endings: Endings) -> AsyncGenerator[dict[bool, int], None]:
        async def handler(ws: Any) -> None:
            await endings.note(_websockets_application(ws, ws.request.path))

        serve = self._server.serve
        async with (
            serve(handler, "127.0.0.1", 0, **PATIENT) as patient,
            serve(handler, "127.0.0.1", 0, **HASTY) as hasty,
        ):
            yield {
                is_hasty: server.sockets[0].getsockname()[1]
                for is_hasty, server in ((False, patient), (True, hasty))
            }

    async def connect(self, port: int, path: str, *, hasty: bool, compression: bool) -> str:
        try:
            async with self._client.connect(
                f"ws://127.0.0.1:{port}{path}",
                compression="deflate" if compression else None,
                proxy=None,
                **settings(hasty=hasty),
            ) as ws:
                await _websockets_application(ws, path)
        except Exception as exc:  # noqa: BLE001  # whatever it is, it is the outcome
            return _name(exc)
        return "done"


async def _websockets_application(ws: Any, path: str) -> None:
    name = path.rpartition("/")[2]
    if name == "echo":
        async for message in ws:
            await ws.send(message)
    elif name == "sink":
        async for _ in ws:
            pass
    elif name == "deaf":
        await ws.wait_closed()
    elif name == "talk":
        while True:
            await ws.send(bytes(1000))


class Aiohttp:
    """aiohttp's server and client; heartbeat is what it has for keepalive."""

    def __init__(self) -> None:
        self._aiohttp: Any = importlib.import_module("aiohttp")
        self._web: Any = importlib.import_module("aiohttp.web")

    @asynccontextmanager
    async def servers(self, endings: Endings) -> AsyncGenerator[dict[bool, int], None]:
        web = self._web
        ports: dict[bool, int] = {}
        runners = []
        for hasty in (False, True):

            def make_handler(arguments: dict[str, Any]) -> Any:
                async def handler(request: Any) -> Any:
                    ws = web.WebSocketResponse(max_msg_size=2**20, **arguments)
                    await ws.prepare(request)
                    await endings.note(self._run(ws, request.path))
                    await ws.close()
                    return ws

                return handler

            application = web.Application()
            application.router.add_get("/{name}", make_handler(self._arguments(hasty=hasty)))
            # What it has that is nearest to a time-out of opening handshakes.
            runner = web.AppRunner(
                application, lingering_time=settings(hasty=hasty)["close_timeout"]
            )
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            runners.append(runner)
            ports[hasty] = runner.addresses[0][1]
        try:
            yield ports
        finally:
            for runner in runners:
                await runner.cleanup()

    def _arguments(self, *, hasty: bool) -> dict[str, Any]:
        chosen = settings(hasty=hasty)
        arguments = {"timeout": chosen["close_timeout"]}
        if chosen["ping_interval"] is not None:
            # Its heartbeat gives a Pong half of the time until the next Ping.
            arguments["heartbeat"] = chosen["ping_interval"] + chosen["ping_timeout"]
        return arguments

    async def connect(self, port: int, path: str, *, hasty: bool, compression: bool) -> str:
        aiohttp = self._aiohttp
        arguments = self._arguments(hasty=hasty)
        timeout = aiohttp.ClientWSTimeout(ws_close=arguments.pop("timeout"))
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(sock_read=settings(hasty=hasty)["open_timeout"])
                ) as session,
                session.ws_connect(
                    f"ws://127.0.0.1:{port}{path}",
                    compress=15 if compression else 0,
                    max_msg_size=2**20,
                    timeout=timeout,
                    **arguments,
                ) as ws,
            ):
                await self._run(ws, path)
        except Exception as exc:  # noqa: BLE001  # likewise
            return _name(exc)
        return "done"

    async def _run(self, ws: Any, path: str) -> None:
        kinds = self._aiohttp.WSMsgType
        name = path.rpartition("/")[2]
        if name == "echo":
            async for message in ws:
                if message.type is kinds.TEXT:
                    await ws.send_str(message.data)
                elif message.type is kinds.BINARY:
                    await ws.send_bytes(message.data)
        elif name == "sink":
            async for _ in ws:
                pass
        elif name == "deaf":
            while not ws.closed:  # noqa: ASYNC110  # it has nothing to wait for
                await asyncio.sleep(0.01)
        elif name == "talk":
            while True:
                await ws.send_bytes(bytes(1000))


def _name(error: Exception) -> str:
    """Give the name of an error as the table has it."""
    names = {"ConnectionClosedOK", "ConnectionClosedError"}
    return type(error).__name__ if type(error).__name__ in names else "error"
