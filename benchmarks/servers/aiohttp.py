"""aiohttp as a server."""

from __future__ import annotations

import asyncio

from aiohttp import WSMsgType, web

from .command import HOST, MAX_SIZE, announce, read_options, run_asyncio

connections: set[web.WebSocketResponse] = set()


async def open_websocket(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(compress=options.deflate, max_msg_size=MAX_SIZE)
    await ws.prepare(request)
    return ws


async def echo(request: web.Request) -> web.WebSocketResponse:
    ws = await open_websocket(request)
    async for message in ws:
        if message.type is WSMsgType.BINARY:
            await ws.send_bytes(message.data)
        else:
            await ws.send_str(message.data)
    return ws


async def broadcast(request: web.Request) -> web.WebSocketResponse:
    ws = await open_websocket(request)
    connections.add(ws)
    try:
        async for message in ws:
            for connection in tuple(connections):
                await connection.send_bytes(message.data)
    finally:
        connections.discard(ws)
    return ws


async def main() -> None:
    application = web.Application()
    application.router.add_get("/", broadcast if options.broadcast else echo)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0, ssl_context=options.ssl).start()
    announce(runner.addresses[0][1], broadcast="plain sends")
    await asyncio.Event().wait()  # the end of the process ends it


if __name__ == "__main__":
    options = read_options()
    run_asyncio(main, options.loop)
