"""All events of a byte string, by a decoder that is slow and obvious.

Owns what the codecs are compared with; knows none of them. RFC 6455 sections 5.2 to 5.6 and 8.1.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from anyws._types import Close, Event, Failure, Ping, Pong
from tests.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, xor

VALID_CODES = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}


class IncompleteError(Exception):
    """More bytes are needed."""


class FailedError(Exception):
    """The peer did wrong."""


def can_become_utf8(data: bytes) -> bool:
    """Try the completions that matter: the bounds of the ranges in RFC 3629."""
    edges = (0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF)
    for count in range(4):
        for end in itertools.product(edges, repeat=count):
            try:
                (data + bytes(end)).decode()
            except UnicodeDecodeError:
                continue
            return True
    return False


@dataclass
class Config:
    masked: bool
    max_size: int | None
    max_fragment_size: int | None
    extension: bool


class Reference:
    """All events of a byte string, by reading it from its beginning to its end."""

    def __init__(self, data: bytes, config: Config) -> None:
        self.data = data
        self.config = config
        self.events: list[Event] = []
        self.opcode = 0
        self.inverted = False
        self.payload = b""
        self.closed = False

    def run(self) -> list[Event]:
        try:
            while not self.closed:
                self.read_frame()
        except FailedError as error:
            self.events.append(Failure(error.args[0], ""))
        except IncompleteError:
            pass
        return self.events

    def take(self, size: int) -> bytes:
        if len(self.data) < size:
            raise IncompleteError
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def read_frame(self) -> None:
        first, second = self.take(2)
        fin, rsv1, opcode = bool(first & 0x80), bool(first & 0x40), first & 0x0F
        ok = (
            not first & 0x30
            and (not rsv1 or (self.config.extension and opcode in (TEXT, BINARY)))
            and opcode in (CONT, TEXT, BINARY, CLOSE, PING, PONG)
            and bool(second & 0x80) is self.config.masked
            and (opcode != CONT or bool(self.opcode))
            and (opcode not in (TEXT, BINARY) or not self.opcode)
        )
        if not ok:
            raise FailedError(1002)
        if opcode >= CLOSE:
            self.read_control(opcode, fin, second & 0x7F)
        else:
            self.read_data(opcode, fin, rsv1, second & 0x7F)

    def read_control(self, opcode: int, fin: bool, size: int) -> None:
        if not fin or size > 125:
            raise FailedError(1002)
        key = self.take(4) if self.config.masked else b"\0\0\0\0"
        payload = xor(self.take(size), key)
        if opcode == PING:
            self.events.append(Ping(payload))
        elif opcode == PONG:
            self.events.append(Pong(payload))
        else:
            self.closed = True
            if not payload:
                self.events.append(Close(1005))
                return
            code = int.from_bytes(payload[:2], "big")
            if len(payload) == 1 or code not in VALID_CODES:
                raise FailedError(1002)
            try:
                self.events.append(Close(code, payload[2:].decode()))
            except UnicodeDecodeError:
                raise FailedError(1007) from None

    def read_data(self, opcode: int, fin: bool, rsv1: bool, length: int) -> None:
        size = length
        if length == 126:
            size = int.from_bytes(self.take(2), "big")
            if size < 126:
                raise FailedError(1002)
        elif length == 127:
            size = int.from_bytes(self.take(8), "big")
            if not 65536 <= size < 2**63:
                raise FailedError(1002)
        limit = self.config.max_size
        if limit is not None and len(self.payload) + size > limit:
            raise FailedError(1009)
        limit = self.config.max_fragment_size
        if limit is not None and size > limit:
            raise FailedError(1009)
        key = self.take(4) if self.config.masked else b"\0\0\0\0"
        if opcode:
            self.opcode = opcode
            self.inverted = rsv1
        payload = xor(self.data[:size], key)
        if self.inverted:
            payload = xor(payload, b"\xff\xff\xff\xff")
        self.payload += payload
        if self.opcode == TEXT and not can_become_utf8(self.payload):
            raise FailedError(1007)
        self.take(size)
        if fin:
            self.end_message()

    def end_message(self) -> None:
        if self.opcode == TEXT:
            try:
                self.events.append(self.payload.decode())
            except UnicodeDecodeError:
                raise FailedError(1007) from None
        else:
            self.events.append(self.payload)
        self.opcode = 0
        self.payload = b""
