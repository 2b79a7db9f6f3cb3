"""picows as a client, its own API of callbacks."""

from __future__ import annotations

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from .command import Counter, read_options, run_asyncio


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(frame.msg_type, frame.get_payload_as_bytes())


class Count(WSListener):
    def __init__(self) -> None:
        self._counter = Counter()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._counter.add(len(frame.get_payload_as_bytes())):
            transport.send(WSMsgType.TEXT, self._counter.answer().encode())


async def main() -> None:
    transport, _ = await ws_connect(Count if options.count else Echo, options.uri)
    await transport.wait_disconnected()


if __name__ == "__main__":
    options = read_options()
    run_asyncio(main, options.loop)
