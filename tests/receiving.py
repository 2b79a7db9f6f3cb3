"""What the tests of receiving share: compression that was agreed on, and frames of either role.

Owns no test and no clock (see `wire`, `endings` and `clocks`).
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from tests.wire import CLOSE, MASK, frame

if TYPE_CHECKING:
    from tests.wire import Peer

KIB = 2**10
MIB = 2**20

# It holds an opening handshake, and less than any message that a test counts as sent.
STREAM_SIZE = 256

# What both sides of `client_and_peer` and `server_and_peer` need for compression.
DEFLATE: dict[str, Any] = {
    "headers": "Sec-WebSocket-Extensions: permessage-deflate\r\n",
    "compression": "deflate",
}
RSV1 = 4
SNOWMAN = "\N{SNOWMAN}".encode()


def draw(peer: Peer, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """Draw a frame as the role of the peer wants it."""
    return frame(opcode, payload, fin=fin, rsv=rsv, mask=MASK if peer.masks else None)


async def receive_all(ws: anyws.Connection) -> list[str | bytes]:
    """Receive what there is, and what comes within a second."""
    messages = []
    with anyio.move_on_after(1):
        while True:
            messages.append(await ws.recv())
    return messages


deflated_too = pytest.mark.parametrize("options", [{}, DEFLATE], ids=["plain", "deflate"])


def deflate(data: bytes) -> bytes:
    """Compress one message as RFC 7692 section 7.2.1 says, with an empty window at its end."""
    compressor = zlib.compressobj(wbits=-15)
    compressed = compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH)
    return compressed[:-4]


async def expect_too_big(ws: anyws.Connection, peer: Peer) -> anyws.PayloadTooBig:
    """See that the connection fails with 1009, and give the cause."""
    with pytest.raises(anyws.ConnectionClosedError) as caught:
        await ws.recv()
    assert caught.value.sent is not None
    assert caught.value.sent.code == 1009
    close = await peer.read_frame()
    assert (close.opcode, close.code) == (CLOSE, 1009)
    assert isinstance(caught.value.__cause__, anyws.PayloadTooBig)
    return caught.value.__cause__
