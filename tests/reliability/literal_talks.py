"""A connection that talks to a literal peer, as a seed has it: one that is slow, rude or gone.

Owns what such a peer does, and what must hold of the frames that it gets; the other end is drawn by
`talking`.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
from anyio.abc import SocketAttribute

import anyws
from tests.reliability.ledger import Ledger, as_bytes
from tests.reliability.talking import (
    Listener,
    Progress,
    Speaker,
    cut,
    draw_message,
    draw_options,
    pause,
)
from tests.sockets import open_peer, read_request
from tests.wire import (
    BINARY,
    CLOSE,
    CONT,
    MASK,
    PING,
    PONG,
    TEXT,
    Frame,
    Peer,
    close_payload,
    frame,
    split_frames,
)

if TYPE_CHECKING:
    import random

    from anyio.abc import ByteStream

# What ends the stream in order, so that all that was sent before must be received.
ORDERLY = ("close", "eof", "bad frame")
ENDINGS = (*ORDERLY, "close", "reset", "silence")

_LOST = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class LiteralTalk:
    """One such conversation.

    Args:
        choice: what happens.
        near: the client's end of a stream.
        far: the server's.
        large: whether some of the messages may be.
        close_timeout: that of the connection.
    """

    def __init__(
        self,
        choice: random.Random,
        near: ByteStream,
        far: ByteStream,
        *,
        large: bool,
        close_timeout: float,
    ) -> None:
        self.choice = choice
        self.large = large
        self.client = choice.random() < 0.5
        self.stream, stream = (near, far) if self.client else (far, near)
        self.peer = Peer(stream, masks=not self.client)
        self.options = draw_options(choice, close_timeout)
        self.options["compression"] = None
        self.ending = choice.choice(ENDINGS)
        self.reading = choice.choice(["all", "all", "slowly", "never"])
        self.count = choice.choice([0, 5, 20, 80])
        self.there = Ledger(choice.choice([1, 1, 2, 3]))
        self.back = Ledger(1)
        self.progress = Progress()
        self.data = bytearray()
        self.over = anyio.Event()

    async def run(self) -> None:
        """Hold it.

        Raises:
            AssertionError: something came that must not, or did not that must.
        """
        async with anyio.create_task_group() as tg:
            tg.start_soon(self.play)
            if self.client:
                async with anyws.wrap_client(self.stream, **self.options) as ws:
                    await self.use(ws)
            else:
                async with anyws.wrap_server(self.stream, **self.options) as ws:
                    await self.use(ws)
            self.over.set()
        self.check_frames()

    # The end of anyws.

    async def use(self, ws: anyws.Connection) -> None:
        listener = Listener(self.choice, ws, self.back, self.progress, leaves=True)
        async with anyio.create_task_group() as tg:
            for task in range(self.there.tasks):
                count = self.count // self.there.tasks
                tg.start_soon(Speaker(self.choice, ws, self.there, task, count, self.large).run)
            tg.start_soon(listener.run)
            if self.ending == "silence":
                while not self.back.complete:
                    await self.progress.changed.wait()
                await ws.close()
            await ws.wait_closed()
        if self.ending in ORDERLY:
            assert self.back.complete, f"{self.ending}: {self.back}"

    # The peer.

    async def play(self) -> None:
        if self.client:
            _, accept = await read_request(self.peer)
            await self.peer.send_bytes(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
        else:
            await open_peer(self.peer)
        self.data += self.peer.buffer
        async with anyio.create_task_group() as tg:
            tg.start_soon(self.read)
            with suppress(*_LOST):
                await self.speak()
            await self.over.wait()
            tg.cancel_scope.cancel()
        await self.peer.finish()

    def draw_frames(self) -> bytes:
        mask = MASK if self.peer.masks else None
        data = bytearray()
        for number in range(self.choice.choice([0, 5, 20, 80])):
            message = draw_message(self.choice, 0, number, large=self.large)
            self.back.send(0, message)
            opcode = TEXT if isinstance(message, str) else BINARY
            payload = as_bytes(message)
            fragments = cut(self.choice, payload) if self.choice.random() < 0.4 else [payload]
            for index, fragment in enumerate(fragments):
                data += frame(
                    CONT if index else opcode,
                    as_bytes(fragment),
                    fin=index == len(fragments) - 1,
                    mask=mask,
                )
                if self.choice.random() < 0.2:
                    control = self.choice.choice([PING, PONG])
                    data += frame(
                        control, b"%d" % number * self.choice.choice([0, 1, 50]), mask=mask
                    )
        if self.ending == "close":
            data += frame(CLOSE, close_payload(1000), mask=mask)
        elif self.ending == "bad frame":
            data += frame(3, b"bad", mask=mask)
        return bytes(data)

    async def speak(self) -> None:
        data = self.draw_frames()
        # In a few hundred pieces at the most.
        size = max(self.choice.choice([1, 7, 100, 5000, len(data) + 1]), len(data) // 300)
        for start in range(0, len(data), size):
            await self.peer.send_bytes(data[start : start + size])
            await pause(self.choice)
        if self.ending == "eof":
            try:
                await self.peer.stream.send_eof()
            except NotImplementedError:
                # TLS has no halves: what the peer has not read makes a reset of its end.
                self.ending = "reset"
                await self.peer.finish()
        elif self.ending == "reset":
            raw = self.peer.stream.extra(SocketAttribute.raw_socket, None)
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await anyio.aclose_forcefully(self.peer.stream)

    async def read(self) -> None:
        if self.reading == "never":
            return
        with suppress(*_LOST):
            while True:
                if self.reading == "slowly":
                    self.data += await self.peer.stream.receive(self.choice.choice([1, 300, 5000]))
                    await anyio.sleep(0.001)
                else:
                    self.data += await self.peer.stream.receive()

    def check_frames(self) -> None:
        """See that what the peer has read are frames in their order, the last cut perhaps."""
        frames, _ = split_frames(bytes(self.data))
        message: list[Frame] = []
        for index, one in enumerate(frames):
            assert one.masked is self.client
            assert one.opcode in {CONT, TEXT, BINARY, CLOSE, PING, PONG}
            if one.opcode == CLOSE:
                assert index == len(frames) - 1
            elif one.opcode < CLOSE:
                assert (one.opcode == CONT) is bool(message)
                message.append(one)
                if one.fin:
                    payload = b"".join(part.payload for part in message)
                    text = message[0].opcode == TEXT
                    self.there.receive(payload.decode() if text else payload)
                    message.clear()
        if self.reading == "all" and self.ending in {"close", "bad frame"}:
            assert frames[-1].opcode == CLOSE
