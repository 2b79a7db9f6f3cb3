"""A peer that speaks literal bytes and lets nothing pass: it reads all that comes, and judges it.

Owns what may come over the wire, as RFC 6455 says it: whole frames in a legal order, masked by
clients alone, one Close and nothing behind it. It answers as a good peer does, Pings and Close,
unless it is told to be silent.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, Event
from anyio.lowlevel import checkpoint

from tests.sockets import GOOD, read_request
from tests.wire import (
    BINARY,
    CLOSE,
    CONT,
    MASK,
    PING,
    PONG,
    REQUEST,
    TEXT,
    Frame,
    Peer,
    close_payload,
    frame,
    split_frames,
)

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from tests.reliability.cutting import Cut

_TAIL = b"\x00\x00\xff\xff"


class StrictPeer:
    """The other end of a connection.

    Args:
        stream: the stream to anyws.
        masks: whether it is the client, whose frames are masked.
        cut: what is told of each fault.
        deflate: whether permessage-deflate was agreed on.
        answers: whether it answers a Close.
        read_size: bytes that it reads at once at the most.
        may_be_cut: whether the stream may end in the midst of a frame, since anyws is to give up
            while the peer has not read all.
    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        masks: bool,
        cut: Cut,
        deflate: bool = False,
        answers: bool = True,
        read_size: int = 65536,
        may_be_cut: bool = False,
    ) -> None:
        self.stream = stream
        self.masks = masks
        self.messages: list[bytes] = []
        """Whole ones, in order."""
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.close: bytes | None = None
        self.open_now = Event()
        """Set when its part of the opening handshake is done."""
        self.ended = Event()
        """Set when nothing more comes."""
        self._cut = cut
        self._inflate = zlib.decompressobj(-15) if deflate else None
        self._answers = answers
        self._read_size = read_size
        self._may_be_cut = may_be_cut
        self._buffer = b""
        self._parts: list[bytes] | None = None
        self._text = False
        self._rsv1 = False
        self._replies: list[bytes] = []
        # Whether our own Close is out.
        self._closing = False
        self._reading = Event()
        self._reading.set()
        self._changed = Event()
        self._sending = anyio.Lock()

    # The opening handshake.

    async def open(self) -> None:
        """Run it, in the role that is not that of anyws."""
        # On trio its end may have come at the other end before sending it has returned here.
        async with self._sending:
            peer = Peer(self.stream, masks=self.masks)
            if self.masks:
                request = REQUEST + self._offer + b"\r\n"
                for piece in (request[:40], request[40:-1], request[-1:]):
                    await peer.send_bytes(piece)
                head = await peer.read_until(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 101 "), head
            else:
                _, accept = await read_request(peer)
                await peer.send_bytes(GOOD.replace(b"ACCEPT", accept) + self._offer + b"\r\n")
        self._buffer = peer.buffer
        self.open_now.set()

    @property
    def _offer(self) -> bytes:
        return b"" if self._inflate is None else b"Sec-WebSocket-Extensions: permessage-deflate\r\n"

    # Sending.

    def draw(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
        """Give the bytes of a frame."""
        drawn = frame(opcode, payload, fin=fin)
        return _mask(drawn, len(drawn) - len(payload)) if self.masks else drawn

    async def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        await self.send_bytes(self.draw(opcode, payload, fin=fin))

    async def send_bytes(self, data: bytes) -> None:
        """Send, unless our Close is out, or anyws has left: that may be what is tried."""
        with suppress(BrokenResourceError, ClosedResourceError):
            async with self._sending:
                if not self._closing:
                    await self.stream.send(data)

    async def _answer_close(self, payload: bytes) -> None:
        async with self._sending:
            if not self._closing:
                self._closing = True
                await self.stream.send(self.draw(CLOSE, payload))
            if not self.masks:
                # RFC 6455 section 7.1.1: the server closes TCP first.
                await self._end_half()

    async def _end_half(self) -> None:
        try:
            await self.stream.send_eof()
        except NotImplementedError:  # TLS has no halves: the end of the run ends it
            raise EndOfStream from None
        except (RuntimeError, AttributeError) as exc:  # anyio's stream on uvloop, after a reset
            raise BrokenResourceError from exc

    async def send_close(self, code: int = 1000) -> None:
        """Begin the closing handshake."""
        await self.send(CLOSE, close_payload(code))
        self._closing = True

    # Receiving.

    async def run(self) -> None:
        """Read until the end, whatever it is, and end our own side."""
        try:
            data = b""  # what came behind the opening handshake is here already
            while True:
                self._take(data)
                await self._reply()
                await self._reading.wait()
                data = await self.stream.receive(self._read_size)
        except EndOfStream:
            self._judge_end()
        except (BrokenResourceError, ClosedResourceError):
            pass  # a reset: what was on its way is lost
        finally:
            self.ended.set()
            self._note_change()
            with anyio.CancelScope(shield=True), suppress(Exception):
                await self.stream.aclose()

    async def _reply(self) -> None:
        replies, self._replies = self._replies, []
        for reply in replies:
            await self.send_bytes(reply)
        if self.close is not None and self._answers:
            await self._answer_close(self.close)

    async def ping(self, payload: bytes) -> None:
        """Send a Ping, and wait for its Pong."""
        await self.send(PING, payload)
        while payload not in self.pongs and not self.ended.is_set():
            await self._changed.wait()

    def hold(self) -> None:
        """Read nothing more until `read_on()`; one chunk may be on its way."""
        self._reading = Event()

    async def read_on_soon(self) -> None:
        """Read on after a few turns of the loop."""
        for _ in range(8):
            await checkpoint()
        self.read_on()

    def read_on(self) -> None:
        """Read again."""
        self._reading.set()

    async def wait_for(self, payload: bytes) -> None:
        """Wait until this message has come, or nothing more will."""
        while payload not in self.messages and not self.ended.is_set():
            await self._changed.wait()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = Event()

    def _take(self, data: bytes) -> None:
        self._buffer += data
        frames, self._buffer = split_frames(self._buffer)
        for one in frames:
            fault = self._find_fault(one)
            if fault is not None:
                self._cut.torn(f"{fault}: {one.opcode:#x}, {one.payload[:40]!r}")
            else:
                self._take_frame(one)
        if frames:
            self._note_change()

    def _find_fault(self, one: Frame) -> str | None:
        is_control = bool(one.opcode & 8)
        rsv1_may_be = self._inflate is not None and one.opcode in {TEXT, BINARY}
        checks = {
            "frame behind the Close": self.close is not None,
            "unknown opcode": one.opcode not in {CONT, TEXT, BINARY, CLOSE, PING, PONG},
            "masked by the wrong side": one.masked is self.masks,
            "reserved bit": one.rsv not in ({0, 4} if rsv1_may_be else {0}),
            "fragmented control frame": is_control and not one.fin,
            "control frame too long": is_control and len(one.payload) > 125,
            "continuation of nothing": one.opcode == CONT and self._parts is None,
            "message inside a message": one.opcode in {TEXT, BINARY} and self._parts is not None,
            "close code cut": one.opcode == CLOSE and len(one.payload) == 1,
        }
        return next((text for text, found in checks.items() if found), None)

    def _take_frame(self, one: Frame) -> None:
        if one.opcode == PING:
            self.pings.append(one.payload)
            self._replies.append(self.draw(PONG, one.payload))
        elif one.opcode == PONG:
            self.pongs.append(one.payload)
        elif one.opcode == CLOSE:
            self.close = one.payload
        else:
            if one.opcode != CONT:
                self._text = one.opcode == TEXT
                self._rsv1 = one.rsv == 4
            parts = self._parts = [*(self._parts or ()), one.payload]
            if one.fin:
                self._parts = None
                self._take_message(b"".join(parts))

    def _take_message(self, data: bytes) -> None:
        if self._rsv1:
            assert self._inflate is not None
            try:
                data = self._inflate.decompress(data + _TAIL)
            except zlib.error as exc:
                self._cut.torn(f"compressed data: {exc}")
                return
        if self._text:
            try:
                data.decode()
            except UnicodeDecodeError as exc:
                self._cut.torn(f"text: {exc}")
        self.messages.append(data)

    def _judge_end(self) -> None:
        if self._buffer and self.open_now.is_set() and not self._may_be_cut:
            self._cut.torn(f"the stream ended within a frame: {self._buffer[:40]!r}")
        if self._parts is not None and self.close is None and not self._may_be_cut:
            self._cut.torn("the stream ended within a message, and without a Close")

    @property
    def close_code(self) -> int | None:
        """The code of the Close that came; None if none did."""
        return None if self.close is None else int.from_bytes(self.close[:2], "big")


def _mask(drawn: bytes, header_size: int) -> bytes:
    """Mask a frame in one go: many of them are drawn."""
    payload = drawn[header_size:]
    key = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    header = bytes([drawn[0], drawn[1] | 0x80]) + drawn[2:header_size]
    return header + MASK + masked.to_bytes(len(payload), "big")
