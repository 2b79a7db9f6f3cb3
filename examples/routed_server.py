"""Routes, a password for one of them, and a path for health checks; Ctrl+C ends it.

Usage: python examples/routed_server.py [PORT]

Routes need werkzeug: pip install 'anyws[router]'. Try it with examples/echo_client.py and the URIs
ws://localhost:8765/rooms/lobby and ws://admin:secret@localhost:8765/admin/, and with
curl http://localhost:8765/health
"""

from __future__ import annotations

import sys

import anyio

import anyws

router = anyws.Router()
authenticate = anyws.basic_auth(realm="admin", credentials=("admin", "secret"))


@router.route("/rooms/<name>")
async def room(ws: anyws.Connection) -> None:
    async for message in ws:
        await ws.send(f"{ws.data['args']['name']}: {message!r}")


@router.route("/admin/")
async def admin(ws: anyws.Connection) -> None:
    async for message in ws:
        await ws.send(f"{ws.data['username']} said {message!r}")


async def process_request(request: anyws.Request) -> anyws.Response | None:
    if request.path == "/health":
        return request.respond(200, "OK\n")
    response = await router.process_request(request)
    # Not by the path: "/%61dmin/" is the same one.
    if response is None and request.data["endpoint"] == "admin":
        response = await authenticate(request)
    return response


async def main(port: int) -> None:
    async with anyws.serve(
        router.handler, "localhost", port, process_request=process_request
    ) as server:
        print(f"listening on port {server.port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    try:
        anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 8765)
    except KeyboardInterrupt:
        print("stopped")
