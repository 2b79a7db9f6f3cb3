"""picows as a server, its own API of callbacks."""

from __future__ import annotations

from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

from .command import HOST, MAX_SIZE, announce, read_options, run_asyncio

connections: set[WSTransport] = set()


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


class Broadcast(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        connections.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        connections.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        for connection in connections:
            connection.send(frame.msg_type, payload)


async def main() -> None:
    def listener(_request: WSUpgradeRequest) -> WSListener:
        return Broadcast() if options.broadcast else Echo()

    server = await ws_create_server(listener, HOST, 0, max_frame_size=MAX_SIZE, ssl=options.ssl)
    port = server.sockets[0].getsockname()[1]
    announce(port, broadcast="plain sends")
    await server.serve_forever()


if __name__ == "__main__":
    options = read_options()
    run_asyncio(main, options.loop)
