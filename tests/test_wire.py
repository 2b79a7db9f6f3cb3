"""The literal peer itself, against the examples of RFC 6455 section 5.7."""

from __future__ import annotations

import pytest

from tests.wire import (
    CLOSE,
    MASK,
    PING,
    TEXT,
    client_and_peer,
    close_payload,
    frame,
    server_and_peer,
)

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


def test_frames_are_those_of_the_rfc() -> None:
    assert frame(TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert frame(TEXT, b"Hello", mask=MASK) == bytes.fromhex("818537fa213d7f9f4d5158")
    assert frame(TEXT, b"Hel", fin=False) == bytes.fromhex("010348656c")
    assert frame(PING, b"Hello") == bytes.fromhex("890548656c6c6f")


async def test_client_talks_to_the_literal_server() -> None:
    async with client_and_peer() as (ws, peer):
        await ws.send("Hello")
        message = await peer.read_frame()
        assert (message.opcode, message.payload, message.masked) == (TEXT, b"Hello", True)
        await peer.send_bytes(bytes.fromhex("810548656c6c6f"))
        assert await ws.recv() == "Hello"
        await peer.send_close()
        assert (await peer.read_frame()).payload == close_payload(1000)
        await peer.finish()


async def test_server_talks_to_the_literal_client() -> None:
    async with server_and_peer() as (ws, peer):
        await ws.send(b"Hello")
        message = await peer.read_frame()
        assert (message.payload, message.masked) == (b"Hello", False)
        await peer.send_bytes(bytes.fromhex("818537fa213d7f9f4d5158"))
        assert await ws.recv() == "Hello"
        await peer.send_close()
        close = await peer.read_frame()
        assert (close.opcode, close.code) == (CLOSE, 1000)
        assert await peer.read_until_eof() == b""
        await peer.finish()
