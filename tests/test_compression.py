"""permessage-deflate on the wire: what is agreed on, and what breaks it (RFC 7692)."""

from __future__ import annotations

import zlib
from typing import Any

import anyio
import pytest

import anyws
from anyws.testing import memory_server
from tests.sockets import open_peer, serving_memory
from tests.wire import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Frame,
    client_and_peer,
    server_and_peer,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.virtual_time,
    pytest.mark.usefixtures("deflate_backend"),
]

RSV1, RSV2, RSV3 = 4, 2, 1

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"

# RFC 7692 section 7.2.3: "Hello" in its several forms.
HELLO = bytes.fromhex("f248cdc9c90700")
HELLO_AGAIN = bytes.fromhex("f200110000")
HELLO_STORED = bytes.fromhex("000500faff48656c6c6f00")
HELLO_FINAL = bytes.fromhex("f348cdc9c9070000")
HELLO_TWO_BLOCKS = bytes.fromhex("f248050000 00ffffcac9c90700".replace(" ", ""))

both_sides = pytest.mark.parametrize(
    "side", [client_and_peer, server_and_peer], ids=["client", "server"]
)


def compressing(side: Any, headers: str = DEFLATE, **arguments: Any) -> Any:
    """Give one side of a connection that has agreed on permessage-deflate."""
    arguments.setdefault("compression", "deflate")
    return side(headers=headers, close_timeout=1, **arguments)


def inflate(*payloads: bytes) -> bytes:
    """Inflate messages that share one window (RFC 7692 section 7.2.2)."""
    decoder = zlib.decompressobj(wbits=-15)
    return b"".join(decoder.decompress(payload + b"\x00\x00\xff\xff") for payload in payloads)


# What a server answers (RFC 7692 section 7.1).


@pytest.mark.behaviour(109)
@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("", None),
        ("x-other", None),
        ("permessage-deflate", "permessage-deflate"),
        (
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover",
        ),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        ),
        (
            "permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; server_max_window_bits=10",
        ),
        (
            'permessage-deflate; server_max_window_bits="10"',
            "permessage-deflate; server_max_window_bits=10",
        ),
        (
            "permessage-deflate; client_max_window_bits=10",
            "permessage-deflate; client_max_window_bits=10",
        ),
        ("permessage-deflate; client_max_window_bits", "permessage-deflate"),
        ("x-other, permessage-deflate", "permessage-deflate"),
        (
            "permessage-deflate; server_max_window_bits=7, permessage-deflate",
            "permessage-deflate",
        ),
        (
            "permessage-deflate; server_max_window_bits=9, permessage-deflate",
            "permessage-deflate; server_max_window_bits=9",
        ),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=08", None),
        ("permessage-deflate; client_max_window_bits=1", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; unknown", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
    ],
)
async def test_offer_is_answered_as_the_rfc_says(offer: str, answer: str | None) -> None:
    server = anyws.PerMessageDeflate(server_max_window_bits=None, client_max_window_bits=None)
    field = f"Sec-WebSocket-Extensions: {offer}\r\n".encode() if offer else b""
    async with serving_memory(compression=server) as (_, connect):
        head = await open_peer(await connect(), field)
    if answer is None:
        assert b"Sec-WebSocket-Extensions" not in head
    else:
        assert f"\r\nSec-WebSocket-Extensions: {answer}\r\n".encode() in head


@pytest.mark.behaviour(109)
async def test_offer_is_not_answered_when_compression_is_none() -> None:
    async with serving_memory(compression=None) as (_, connect):
        head = await open_peer(await connect(), DEFLATE.encode())
    assert b"Sec-WebSocket-Extensions" not in head


# Messages.


@both_sides
@pytest.mark.behaviour(40, 109)
@pytest.mark.parametrize(
    "payload",
    [HELLO, HELLO_STORED, HELLO_FINAL, HELLO_TWO_BLOCKS],
    ids=["fixed", "stored", "final", "two-blocks"],
)
async def test_each_form_of_the_rfc_is_inflated(side: Any, payload: bytes) -> None:
    async with compressing(side) as (ws, peer):
        await peer.send(TEXT, payload, rsv=RSV1)
        assert await ws.recv() == "Hello"
        await ws.ping()
        assert (await peer.read_frame()).opcode == PING
        await peer.send_close()


@both_sides
@pytest.mark.behaviour(109)
async def test_window_is_kept_from_message_to_message(side: Any) -> None:
    async with compressing(side) as (ws, peer):
        await peer.send(TEXT, HELLO, rsv=RSV1)
        await peer.send(TEXT, HELLO_AGAIN, rsv=RSV1)
        assert [await ws.recv(), await ws.recv()] == ["Hello", "Hello"]
        await peer.send_close()


@both_sides
@pytest.mark.behaviour(109)
async def test_message_after_a_final_block_is_inflated(side: Any) -> None:
    async with compressing(side) as (ws, peer):
        await peer.send(TEXT, HELLO_FINAL, rsv=RSV1)
        await peer.send(TEXT, HELLO, rsv=RSV1)
        assert [await ws.recv(), await ws.recv()] == ["Hello", "Hello"]
        await peer.send_close()


@both_sides
@pytest.mark.behaviour(109)
async def test_blocks_behind_a_final_block_belong_to_the_message(side: Any) -> None:
    async with compressing(side) as (ws, peer):
        await peer.send(TEXT, HELLO_FINAL[:-1] + HELLO, rsv=RSV1)
        assert await ws.recv() == "HelloHello"
        await peer.send_close()


@both_sides
@pytest.mark.behaviour(56, 109)
async def test_fragments_split_anywhere_are_inflated_around_control_frames(side: Any) -> None:
    async with compressing(side) as (ws, peer):
        await peer.send(TEXT, HELLO[:3], rsv=RSV1, fin=False)
        await peer.send(PING, b"now")
        await peer.send(CONT, b"", fin=False)
        await peer.send(CONT, HELLO[3:])
        assert await ws.recv() == "Hello"
        pong = await peer.read_frame()
        assert (pong.opcode, pong.payload, pong.rsv) == (PONG, b"now", 0)
        await peer.send_close()


@both_sides
@pytest.mark.behaviour(109)
async def test_message_without_rsv1_is_taken_as_it_is(side: Any) -> None:
    async with compressing(side) as (ws, peer):
        await peer.send(TEXT, b"Hello")
        assert await ws.recv() == "Hello"
        await peer.send_close()


@both_sides
@pytest.mark.behaviour(109)
async def test_empty_message_is_inflated(side: Any) -> None:
    async with compressing(side) as (ws, peer):
        await peer.send(BINARY, b"\x00", rsv=RSV1)
        await peer.send(BINARY, b"", rsv=RSV1)
        assert [await ws.recv(), await ws.recv()] == [b"", b""]
        await peer.send_close()


@both_sides
@pytest.mark.behaviour(109)
async def test_sent_messages_are_compressed_and_share_a_window(side: Any) -> None:
    async with compressing(side) as (ws, peer):
        await ws.send("Hello " * 100)
        await ws.send("Hello " * 100)
        first, second = await peer.read_frame(), await peer.read_frame()
        assert (first.rsv, second.rsv) == (RSV1, RSV1)
        assert len(second.payload) <= len(first.payload) < 100
        assert inflate(first.payload, second.payload) == b"Hello " * 200
        await peer.send_close()


@both_sides
@pytest.mark.behaviour(109)
async def test_window_is_not_kept_when_that_was_agreed_on(side: Any) -> None:
    headers = DEFLATE.replace(
        "\r\n", "; server_no_context_takeover; client_no_context_takeover\r\n"
    )
    async with compressing(side, headers) as (ws, peer):
        await ws.send("Hello " * 100)
        await ws.send("Hello " * 100)
        for _ in range(2):
            assert inflate((await peer.read_frame()).payload) == b"Hello " * 100
        await peer.send_close()


@both_sides
@pytest.mark.behaviour(109)
async def test_compress_false_sends_a_message_as_it_is(side: Any) -> None:
    async with compressing(side) as (ws, peer):
        await ws.send("Hello " * 100, compress=False)
        sent = await peer.read_frame()
        assert (sent.rsv, sent.payload) == (0, b"Hello " * 100)
        await peer.send_close()


# What breaks it.


async def close_code_of(side: Any, headers: str, *frames: dict[str, Any], **arguments: Any) -> int:
    """Send frames and give the code of the Close that answers them."""
    async with compressing(side, headers, **arguments) as (ws, peer):
        for one in frames:
            await peer.send(**one)
        close: Frame = await peer.read_frame()
        assert close.opcode == CLOSE
        with pytest.raises(anyws.ConnectionClosedError) as caught:
            while True:
                await ws.recv()
        assert isinstance(caught.value.__cause__, anyws.ProtocolError)
        await peer.finish()
        return close.code


def rsv_frames(opcode: int, rsv: int) -> list[dict[str, Any]]:
    begin = [{"opcode": TEXT, "payload": HELLO[:3], "rsv": RSV1, "fin": False}]
    return [*(begin if opcode == CONT else []), {"opcode": opcode, "payload": b"", "rsv": rsv}]


@both_sides
@pytest.mark.behaviour(109)
@pytest.mark.parametrize(
    ("opcode", "rsv"),
    [
        (CONT, RSV1),
        (PING, RSV1),
        (PONG, RSV1),
        (CLOSE, RSV1),
        (TEXT, RSV2),
        (TEXT, RSV3),
        (TEXT, RSV1 | RSV2),
        (PING, RSV3),
    ],
)
async def test_rsv_bit_where_it_may_not_be_is_1002(side: Any, opcode: int, rsv: int) -> None:
    assert await close_code_of(side, DEFLATE, *rsv_frames(opcode, rsv)) == 1002


@both_sides
@pytest.mark.behaviour(109)
async def test_rsv1_without_the_extension_is_1002(side: Any) -> None:
    frame: dict[str, Any] = {"opcode": TEXT, "payload": HELLO, "rsv": RSV1}
    assert await close_code_of(side, "", frame, compression=None) == 1002


@both_sides
@pytest.mark.behaviour(60, 109)
@pytest.mark.parametrize(
    "payload",
    [b"\xff" * 20, b"\x06garbage", b"\x00\x05\x00\xfa\x00Hello", HELLO_AGAIN],
    ids=["block-type", "block-type-not-final", "length", "distance"],
)
async def test_corrupt_stream_closes_the_connection(side: Any, payload: bytes) -> None:
    frame: dict[str, Any] = {"opcode": BINARY, "payload": payload, "rsv": RSV1}
    assert await close_code_of(side, DEFLATE, frame) in {1002, 1007}


@both_sides
@pytest.mark.behaviour(40, 109)
async def test_bomb_is_1009(side: Any) -> None:
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = encoder.compress(bytes(10_000_000)) + encoder.flush(zlib.Z_SYNC_FLUSH)
    assert len(data) < 65536
    frame: dict[str, Any] = {"opcode": BINARY, "payload": data[:-4], "rsv": RSV1}
    assert await close_code_of(side, DEFLATE, frame) == 1009


async def test_client_and_server_of_ours_agree_on_deflate() -> None:
    async def handler(ws: anyws.Connection) -> None:
        async for message in ws:
            await ws.send(message)

    with anyio.fail_after(10):
        async with memory_server(handler) as connect, connect() as ws:
            assert [extension.name for extension in ws.extensions] == ["permessage-deflate"]
            for message in ("Hello " * 1000, b"\x00" * 100_000, "", "Hello " * 1000):
                await ws.send(message)
                assert await ws.recv() == message
