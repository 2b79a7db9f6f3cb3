"""Node's `ws` as a peer of anyws: a process for each connection, driven by lines of JSON.

Owns that process and what its lines mean; checks nothing. The other end of the lines is `ws.mjs`.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.counterparts.programs import find_node_modules, find_program
from tests.interop.peers import Handover, Peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from anyio.abc import Process

_SCRIPT = Path(__file__).with_name("ws.mjs")

# Bytes of a line; a message of 1 MiB takes four thirds of that in base64.
_MAX_LINE_SIZE = 2**22


class NodePeer(Peer):
    """One connection of Node's `ws`."""

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None
        self._process = process
        self._lines = BufferedByteReceiveStream(process.stdout)
        self._messages: deque[str | bytes] = deque()
        self._pongs: list[bytes] = []
        self._end: tuple[int, str] | None = None
        self._changed = anyio.Event()
        self.pings: list[bytes] = []
        """What the Pings had in them that came."""
        self.errors: list[str] = []

    async def next_event(self) -> dict[str, Any]:
        """Give the next line; EndOfStream when the process has ended."""
        event: dict[str, Any] = json.loads(
            await self._lines.receive_until(b"\n", max_bytes=_MAX_LINE_SIZE)
        )
        return event

    async def open(self) -> None:
        """Wait until the connection is open."""
        event = await self.next_event()
        assert event["event"] == "open", event
        self.compressed = "permessage-deflate" in event["extensions"]
        self.subprotocol = event["protocol"] or None

    async def run(self) -> None:
        """Take what happens, until the connection has closed."""
        while self._end is None:
            event = await self.next_event()
            self._take(event)
            self._changed.set()
            self._changed = anyio.Event()

    def _take(self, event: dict[str, Any]) -> None:
        data = base64.b64decode(event.get("data", ""))
        match event["event"]:
            case "message":
                self._messages.append(data if event["binary"] else data.decode())
            case "ping":
                self.pings.append(data)
            case "pong":
                self._pongs.append(data)
            case "close":
                self._end = event["code"], event["reason"]
            case _:
                self.errors.append(event["text"])

    async def _tell(self, command: str, **fields: Any) -> None:
        assert self._process.stdin is not None
        line = json.dumps({"command": command, **fields})
        await self._process.stdin.send(line.encode() + b"\n")

    async def send(self, message: str | bytes) -> None:
        await self._send_fragment(message, fin=True)

    async def send_fragments(self, fragments: Sequence[str] | Sequence[bytes]) -> None:
        parts: Sequence[str | bytes] = fragments
        for number, fragment in enumerate(parts, 1):
            await self._send_fragment(fragment, fin=number == len(fragments))

    async def _send_fragment(self, data: str | bytes, *, fin: bool) -> None:
        binary = isinstance(data, bytes)
        await self._tell("send", data=_encode(data), binary=binary, fin=fin)

    async def recv(self) -> str | bytes:
        while not self._messages:
            await self._changed.wait()
        return self._messages.popleft()

    async def ping(self, payload: bytes) -> None:
        await self._tell("ping", data=_encode(payload))
        while payload not in self._pongs:
            await self._changed.wait()

    async def close(self, code: int, reason: str) -> None:
        await self._tell("close", code=code, reason=reason)
        await self.wait_closed()

    async def abort(self) -> None:
        await self._tell("abort")

    async def wait_closed(self) -> tuple[int | None, str | None]:
        while self._end is None:
            await self._changed.wait()
        return self._end


def _encode(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


@asynccontextmanager
async def _running_node(*arguments: str) -> AsyncGenerator[Process, None]:
    """Run the script; leaving the block ends its stdin, and then it whatever it does."""
    command = [find_program("node"), str(_SCRIPT), str(find_node_modules()), *arguments]
    process = await anyio.open_process(command, stderr=None)
    try:
        yield process
        assert process.returncode is None
        assert process.stdin is not None
        await process.stdin.aclose()
        assert await process.wait() == 0
    finally:
        with anyio.CancelScope(shield=True):  # a process that was killed ends
            if process.returncode is None:
                process.kill()
            await process.aclose()


@asynccontextmanager
async def node_client(port: int, **options: Any) -> AsyncGenerator[NodePeer, None]:
    """Connect with Node's `ws`; the options are those of its WebSocket, and `protocols`."""
    async with _running_node("client", str(port), json.dumps(options)) as process:
        peer = NodePeer(process)
        await peer.open()
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(peer.run)
            yield peer
            await peer.close(1000, "")


@asynccontextmanager
async def node_server(handover: Handover[Peer], **options: Any) -> AsyncGenerator[int, None]:
    """Serve one connection with Node's `ws`; give the port.

    The options are those of its WebSocketServer, and `protocol`, which it chooses.
    """
    async with _running_node("server", json.dumps(options)) as process:
        peer = NodePeer(process)
        listening = await peer.next_event()

        async def serve() -> None:
            await peer.open()
            async with anyio.create_task_group() as peer_group:
                peer_group.start_soon(peer.run)
                await handover.handle(peer)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(serve)  # until the process has told of the end
            yield listening["port"]
