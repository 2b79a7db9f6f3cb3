"""A peer that means harm: literal bytes over a blocking socket, and what its victim makes of them.

Owns one connection to the endpoint under attack and the judgement of how that behaves; knows no
library, so the same peer attacks each of them. It runs in a thread or process of its own, and has
patience of its own: a victim that does nothing is found out.
"""

from __future__ import annotations

import base64
import hashlib
import re
import select
import socket
import struct
import time
import zlib
from typing import TYPE_CHECKING

from tests.wire import CLOSE, MASK, PING, PONG, Frame, frame, split_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Seconds that a victim may take for anything: it needs milliseconds, or one of its own time-outs,
# which are shorter. One that takes longer hangs.
PATIENCE = 6.0

# Seconds of silence after which a victim that was to end the connection is asked whether it lives.
QUIET = 0.5

# Seconds without room in the socket after which a victim counts as having stopped reading.
STALL = 0.1

PROBE = b"are you there?"

REQUEST = (
    b"GET PATH HTTP/1.1\r\n"
    b"Host: 127.0.0.1\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)

RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: ACCEPT\r\n"
)

# Answers to empty Pings, of which a flood brings more than Python reads one by one: those of a
# server, and those of a client with any masking keys.
EMPTY_PONGS = {
    True: re.compile(rb"(?:\x8a\x00)*"),
    False: re.compile(rb"(?:\x8a\x80.{4})*", re.DOTALL),
}

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


class Hang(Exception):
    """The victim has done nothing for too long."""


class HostilePeer:
    """One end of a TCP connection; at the other is the victim.

    Args:
        stream: the connected socket, which belongs to the peer from now on.
        masks: whether the peer is the client, whose frames are masked.
    """

    def __init__(self, stream: socket.socket, *, masks: bool) -> None:
        self.socket = stream
        self.masks = masks
        self.path = "/echo"
        """Which application the victim runs on the connection, once its request is known."""
        self.messages: list[bytes] = []
        """Payloads of the messages that the victim has sent."""
        self._buffer = b""
        self._frames: list[Frame] = []
        # What of a flood has not been sent: the end of a frame, perhaps.
        self._unsent = b""
        self._inflater = zlib.decompressobj(-15)
        self._reset = False
        self._ended = False
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self.socket.close()

    def drop(self) -> None:
        """End TCP by a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def end(self) -> None:
        """End our half of TCP."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:  # the victim was faster
            self._reset = True

    # Sending.

    def send(self, data: bytes) -> None:
        """Send all of it, or as much as the victim lives to see."""
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.sendall(data)
        except TimeoutError:
            raise Hang("it reads nothing") from None
        except OSError:
            self._reset = True

    def send_frame(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0
    ) -> None:
        self.send(self.draw(opcode, payload, fin=fin, rsv=rsv))

    def draw(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
        return frame(opcode, payload, fin=fin, rsv=rsv, mask=MASK if self.masks else None)

    def flood(self, data: bytes, size: int) -> bool:
        """Send `data` again and again, and read nothing.

        It ends with `size` bytes, with a victim that has stopped reading, or with one that is gone.

        What is missing of the last `data` is sent while the peer reads.

        Returns:
            Whether the victim has taken it all.
        """
        self.socket.settimeout(STALL)
        view = memoryview(data)
        sent = 0
        try:
            while sent < size:
                sent += self.socket.send(view[sent % len(data) :])
        except TimeoutError:
            return False  # it has stopped reading
        except OSError:
            self._reset = True
        finally:
            self._unsent = data[sent % len(data) :] if sent % len(data) else b""
        return sent >= size

    def flood_until_dropped(self, data: bytes, limit: float = PATIENCE) -> str:
        """Send without end, until the victim ends TCP; give how.

        Raises:
            Hang: it does not, within so many seconds.
        """
        deadline = time.monotonic() + limit
        while not self._reset:
            self.flood(data, len(data) * 16)
            if time.monotonic() > deadline:
                raise Hang("it lets itself be flooded")
        return self.end_seen

    def dribble(self, data: Iterable[bytes], *, interval: float) -> None:
        """Send pieces one by one, until the victim ends its half or all are sent."""
        for piece in data:
            self.send(piece)
            self.socket.settimeout(interval)
            try:
                came = self.socket.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                self._reset = True
                return
            if not came:
                self._ended = True
                return
            self._buffer += came

    # Reading.

    def read(self, patience: float = PATIENCE) -> bool:
        """Read something; False at the end of what the victim sends.

        Raises:
            Hang: nothing comes.
        """
        if self._ended:
            return False
        deadline = time.monotonic() + patience
        while self._unsent:
            left = max(0.0, deadline - time.monotonic())
            readable, writable, _ = select.select([self.socket], [self.socket], [], left)
            if writable:
                try:
                    self._unsent = self._unsent[self.socket.send(self._unsent) :]
                except OSError:
                    self._unsent = b""
            if readable:
                break
            if not writable:
                raise Hang("it neither reads nor sends")
        self.socket.settimeout(patience)
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            raise Hang("it is silent") from None
        except OSError:
            self._reset = self._ended = True
            return False
        self._buffer += data
        self._ended = not data
        return bool(data)

    def read_head(self) -> bytes:
        """Read up to the empty line that ends an HTTP head; less if TCP ends before."""
        while b"\r\n\r\n" not in self._buffer:
            if not self.read():
                head, self._buffer = self._buffer, b""
                return head
        head, end, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head + end

    def read_frame(self, patience: float = PATIENCE) -> Frame | None:
        """Read a frame; None at the end."""
        while not self._frames:
            answers = EMPTY_PONGS[self.masks].match(self._buffer)
            assert answers is not None
            self._frames, self._buffer = split_frames(self._buffer[answers.end() :])
            if not self._frames and not self.read(patience):
                return None
        return self._frames.pop(0)

    def read_to_end(self, limit: float = PATIENCE) -> None:
        """Read and forget all that comes until the victim ends its half.

        Raises:
            Hang: it does not, within so many seconds.
        """
        deadline = time.monotonic() + limit
        while self.read():
            self._buffer = b""
            if time.monotonic() > deadline:
                raise Hang("it goes on sending")

    def wait_for_end(self, limit: float) -> None:
        """Read nothing, and wait until TCP ends or so many seconds are over."""
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP)
        poll.poll(limit * 1000)

    @property
    def end_seen(self) -> str:
        """How TCP ended without a Close frame."""
        return "reset" if self._reset else "ended"

    # The opening handshakes.

    def open_as_client(self, path: str, headers: bytes = b"") -> None:
        self.path = path
        self.send(REQUEST.replace(b"PATH", path.encode()) + headers + b"\r\n")
        head = self.read_head()
        assert head.startswith(b"HTTP/1.1 101 "), head

    def read_request(self) -> bytes:
        """Read the request of a victim, and give the accept key that answers it."""
        head = self.read_head()
        line = re.match(rb"GET (/\S*) HTTP/1.1\r\n", head)
        key = re.search(rb"\r\nSec-WebSocket-Key: *([A-Za-z0-9+/]{22}==)\r\n", head)
        assert line is not None, head
        assert key is not None, head
        self.path = line[1].decode()
        digest = hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        return base64.b64encode(digest)

    def open_as_server(self, headers: bytes = b"") -> None:
        accept = self.read_request()
        self.send(RESPONSE.replace(b"ACCEPT", accept) + headers + b"\r\n")

    # The judgement.

    def judge(self, *, asks: bool = False, echoes: int = 0) -> str:
        """See how the victim takes what was sent, up to the end of TCP.

        Args:
            asks: whether to ask at once if it lives; else it is asked after a silence.
            echoes: messages that are to come from it before it is asked to close.

        Returns:
            "open" if it answers a Ping and a Close, "close" with the code of its own Close frame,
            "ended" or "reset" if TCP ends without one, "hang" if it does nothing; or what it did
            that no endpoint may do.
        """
        try:
            return self._judge(asks, echoes)
        except Hang:
            return "hang"

    def _judge(self, asked: bool, echoes: int) -> str:
        if asked:
            self.send_frame(PING, PROBE)
        lives = False
        while not lives or len(self.messages) < echoes:
            try:
                came = self.read_frame(PATIENCE if asked else QUIET)
            except Hang:
                if asked:
                    raise
                asked = True
                self.send_frame(PING, PROBE)
                continue
            if came is None:
                return self.end_seen
            if came.masked is self.masks:
                return "wrong masking"
            if came.opcode == CLOSE:
                return self._end_after(came, f"close {came.code if came.payload else 1005}")
            if came.opcode == PONG:
                lives = lives or came.payload == PROBE
            elif came.opcode != PING:
                self.messages.append(self._inflate(came))
        return self._close_in_peace()

    def _inflate(self, came: Frame) -> bytes:
        """Give the payload as it was before permessage-deflate (RFC 7692 section 7.2.2)."""
        if not came.rsv & 4:
            return came.payload
        return self._inflater.decompress(came.payload + b"\x00\x00\xff\xff")

    def _close_in_peace(self) -> str:
        self.send_frame(CLOSE, b"\x03\xe8")
        while (came := self.read_frame()) is not None:
            if came.opcode == CLOSE:
                verdict = "open" if came.payload[:2] == b"\x03\xe8" else f"open, {came.payload!r}"
                return self._end_after(came, verdict, answers=False)
        return f"open, then {self.end_seen}"

    def _end_after(self, close: Frame, verdict: str, *, answers: bool = True) -> str:
        if answers:
            self.send_frame(CLOSE, close.payload)
        if not self.masks:
            self.end()
        opcodes = set()
        while (behind := self.read_frame()) is not None:
            opcodes.add(behind.opcode)
        if self._buffer:
            return f"{verdict}, then half a frame"
        # RFC 6455 section 5.5.1: "MUST NOT send any more data frames after sending a Close frame".
        return verdict if not opcodes else f"{verdict}, then opcodes {sorted(opcodes)}"

    def judge_status(self) -> str:
        """See what HTTP answer comes, up to the end of TCP: "status" and its code."""
        try:
            head = self.read_head()
            match = re.match(rb"HTTP/1\.[01] ([0-9]{3})", head)
            if match is None:
                return self.end_seen if not head else f"no HTTP: {head[:40]!r}"
            if match[1] == b"101":
                return "status 101"
            size = body_size(head)
            while (size is None or len(self._buffer) < size) and self.read():
                if len(self._buffer) > 65536:
                    return f"status {match[1].decode()} and a download"
            if b"Traceback" in self._buffer:
                return f"status {match[1].decode()} and a traceback"
            return f"status {match[1].decode()}"
        except Hang:
            return "hang"


def body_size(head: bytes) -> int | None:
    """Give the bytes of a response's body; None where it goes on to the end of TCP.

    A server that serves other things too may go on with the connection, if it says so.
    """
    length = re.search(rb"\r\nContent-Length: ([0-9]+)\r\n", head, re.IGNORECASE)
    closes = re.search(rb"\r\nConnection:[^\r]*close", head, re.IGNORECASE)
    return None if closes or not length else int(length[1])


def attack_server(port: int, attack: Callable[[HostilePeer], str]) -> str:
    """Connect to a server and attack it; give the outcome."""
    stream = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    return _attack(HostilePeer(stream, masks=True), attack)


def attack_client(listener: socket.socket, attack: Callable[[HostilePeer], str]) -> str:
    """Accept a client and attack it; give the outcome."""
    listener.settimeout(PATIENCE)
    stream, _ = listener.accept()
    return _attack(HostilePeer(stream, masks=False), attack)


def _attack(peer: HostilePeer, attack: Callable[[HostilePeer], str]) -> str:
    try:
        return attack(peer)
    except Hang:
        return "hang"
    finally:
        peer.close()


def listen() -> socket.socket:
    """Listen on the loopback interface, for clients to be attacked."""
    return socket.create_server(("127.0.0.1", 0), backlog=64)
