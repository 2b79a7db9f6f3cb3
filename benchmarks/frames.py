"""The bytes that the load generator sends, and those that it wants back.

Owns the building of frames and of handshakes, apart from anyws on purpose: what is measured does
not judge itself. Knows no process and no socket.
RFC 6455 sections 1.3 and 5.2, RFC 7692 section 7.2.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
RSV1 = 0x40

_FIN = 0x80
_MASKED = 0x80
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Any 16 bytes do (RFC 6455 section 4.1); the same key is always answered alike.
_KEY = base64.b64encode(b"anyws benchmarks")
_MASKING_KEY = b"\x37\xfa\x21\x3d"
# What DEFLATE ends a message with, and permessage-deflate leaves out (RFC 7692 section 7.2.1).
_TAIL = b"\x00\x00\xff\xff"
# An empty block with BFINAL, fixed codes.
_FINAL_BLOCK = b"\x03\x00"

DEFLATE_OFFER = "permessage-deflate; client_no_context_takeover; client_max_window_bits"
"""Our frames are built once, so no message may refer to the one before; the server's may."""

COUNT_MARK = b"?"
"""The message after which a counting client says how many messages it has, and their bytes."""


def accept_key(key: bytes = _KEY) -> str:
    """Give the Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()


def build_request(host: str, offer: str | None = None) -> bytes:
    """Build a client's opening handshake, with `offer` as its Sec-WebSocket-Extensions."""
    lines = [
        "GET / HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {_KEY.decode()}",
        "Sec-WebSocket-Version: 13",
    ]
    if offer is not None:
        lines.append(f"Sec-WebSocket-Extensions: {offer}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def build_response(key: str) -> bytes:
    """Build a server's answer to an opening handshake."""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key.encode())}\r\n\r\n"
    ).encode()


def parse_head(head: bytes) -> tuple[str, dict[str, str]]:
    """Give the first line of an HTTP head, and its fields by their names in lower case."""
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return first, {name.lower(): value.strip() for name, _, value in pairs}


def build_frame(
    payload: bytes, *, opcode: int = BINARY, masking_key: bytes | None = None, rsv1: bool = False
) -> bytes:
    """Build a whole frame (RFC 6455 section 5.2)."""
    size = len(payload)
    masked = 0 if masking_key is None else _MASKED
    first = _FIN | opcode | (RSV1 if rsv1 else 0)
    if size < 126:
        header = struct.pack("!BB", first, masked | size)
    elif size < 65536:
        header = struct.pack("!BBH", first, masked | 126, size)
    else:
        header = struct.pack("!BBQ", first, masked | 127, size)
    if masking_key is None:
        return header + payload
    return header + masking_key + apply_mask(payload, masking_key)


def apply_mask(data: bytes, masking_key: bytes) -> bytes:
    """Mask or unmask (RFC 6455 section 5.3)."""
    return bytes(byte ^ key for byte, key in zip(data, itertools.cycle(masking_key), strict=False))


def client_frame(payload: bytes, *, opcode: int = BINARY, rsv1: bool = False) -> bytes:
    """Build a frame as a client sends it, with a key that is always the same."""
    return build_frame(payload, opcode=opcode, rsv1=rsv1, masking_key=_MASKING_KEY)


def expected_client_frame(payload: bytes, *, opcode: int = BINARY) -> bytes:
    """Build a client's frame with a key of zeros, which the load generator compares others to."""
    return build_frame(payload, opcode=opcode, masking_key=bytes(4))


def close_frame(code: int = 1000) -> bytes:
    """Build the payload of a Close frame (RFC 6455 section 5.5.1)."""
    return struct.pack("!H", code)


def build_payload(size: int) -> bytes:
    """Make a payload that masking in the wrong place would show."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def build_json(size: int, number: int = 7) -> bytes:
    """Make JSON text of exactly `size` bytes, of which DEFLATE leaves a quarter or so.

    Args:
        size: bytes of it.
        number: another one gives other text.
    """
    rows: list[dict[str, object]] = []
    text = b"[]"
    while True:
        number = number * 48271 % 2147483647
        side = "buy" if number % 2 else "sell"
        row: dict[str, object] = {"id": number, "side": side, "price": number % 99991 / 100}
        longer = json.dumps([*rows, row]).encode()
        if len(longer) > size:
            return text.ljust(size)  # JSON may end with spaces
        rows.append(row)
        text = longer


def deflate(data: bytes) -> bytes:
    """Compress a message on its own; its window is small enough for whatever a server asks for."""
    compressor = zlib.compressobj(wbits=-10)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_TAIL)


def split_frame(data: bytes | bytearray, start: int = 0) -> tuple[bytes, bytes] | None:
    """Give header and payload of the unmasked frame that begins at `start`, if it is whole.

    Raises:
        ValueError: it is masked.
    """
    header = bytes(data[start : start + 2])
    if len(header) < 2:
        return None
    if header[1] & _MASKED:
        raise ValueError("is masked")
    size = header[1]
    if size >= 126:
        extended = bytes(data[start + 2 : start + (4 if size == 126 else 10)])
        if len(extended) < (2 if size == 126 else 8):
            return None
        header += extended
        size = int.from_bytes(extended, "big")
    begin = start + len(header)
    payload = bytes(data[begin : begin + size])
    return (header, payload) if len(payload) == size else None


def check_deflated(record: bytes, messages: Sequence[bytes]) -> int:
    """Check recorded replies that are compressed: on each connection the messages, in turn.

    Args:
        record: chunks in the order in which they came: four bytes each for the number of the
            connection and for the size, the lowest first, and the bytes.
        messages: what the replies are to be; after the last comes the first again.

    Returns:
        How many replies there are.

    Raises:
        ValueError: a reply is not compressed, or corrupt, or not the message, or not whole.
    """
    streams: dict[int, bytearray] = {}
    at = 0
    while at < len(record):
        connection, size = struct.unpack_from("<II", record, at)
        streams.setdefault(connection, bytearray()).extend(record[at + 8 : at + 8 + size])
        at += 8 + size
    return sum(_check_stream(n, bytes(data), messages) for n, data in streams.items())


def _check_stream(connection: int, data: bytes, messages: Sequence[bytes]) -> int:
    decompressor = zlib.decompressobj(wbits=-15)
    number = at = 0
    while at < len(data):
        where = f"reply {number} on connection {connection}"
        parts = split_frame(data, at)
        if parts is None:
            raise ValueError(f"{where} is no whole frame")
        header, payload = parts
        if header[0] != _FIN | RSV1 | TEXT:
            raise ValueError(f"{where} is not compressed Text, but {header[0]:#x}")
        try:
            message = decompressor.decompress(payload + _TAIL)
            # What a final block behind it does not end was cut.
            ended = decompressor.copy()
            ended.decompress(_FINAL_BLOCK)
        except zlib.error as exc:
            raise ValueError(f"{where} is corrupt: {exc}") from exc
        if message != messages[number % len(messages)]:
            raise ValueError(f"{where} is another message")
        if decompressor.eof or not ended.eof or ended.unused_data:
            raise ValueError(f"{where} has more or less than its blocks")
        at += len(header) + len(payload)
        number += 1
    return number


def pack(frames: Sequence[bytes]) -> bytes:
    """Give the file that the load generator reads its requests or replies from."""
    return b"".join(struct.pack("<I", len(frame)) + frame for frame in frames)
