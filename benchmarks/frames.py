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


def build_json(size: int) -> bytes:
    """Make JSON text of exactly `size` bytes, of which DEFLATE leaves a quarter or so."""
    rows: list[dict[str, object]] = []
    number = 7
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


def split_frame(data: bytes) -> tuple[bytes, bytes] | None:
    """Give header and payload of an unmasked frame that `data` begins with, if it is whole."""
    if len(data) < 2:
        return None
    extra = {126: 2, 127: 8}.get(data[1], 0)
    header = data[: 2 + extra]
    size = data[1] if not extra else int.from_bytes(header[2:], "big")
    payload = data[2 + extra : 2 + extra + size]
    return (header, payload) if len(header) == 2 + extra and len(payload) == size else None


def settle_deflated(replies: Sequence[bytes], message: bytes) -> list[bytes]:
    """Check compressed replies that all are `message`; leave out those that repeat the one before.

    A server that compresses with context takeover answers the same message in fewer bytes after the
    first, and from then on always alike.

    Args:
        replies: whole frames in the order in which they came on one connection.
        message: what each of them is to be.

    Returns:
        The replies up to the first from which on all are the same.

    Raises:
        ValueError: a reply is not compressed, or not the message, or they never settle.
    """
    decompressor = zlib.decompressobj(wbits=-15)
    for number, reply in enumerate(replies):
        parts = split_frame(reply)
        if parts is None:
            raise ValueError(f"reply {number} is no frame")
        header, payload = parts
        if header[0] != _FIN | RSV1 | TEXT:
            raise ValueError(f"reply {number} is not compressed Text, but {header[0]:#x}")
        if decompressor.decompress(payload + _TAIL) != message:
            raise ValueError(f"reply {number} is another message")
    last = len(replies) - 1
    while last > 0 and replies[last - 1] == replies[-1]:
        last -= 1
    if last > len(replies) // 2:
        raise ValueError("the compressed replies do not settle")
    return list(replies[: last + 1])


def pack_replies(replies: Sequence[bytes]) -> bytes:
    """Give the file that the load generator reads its replies from."""
    return b"".join(struct.pack("<I", len(reply)) + reply for reply in replies)
