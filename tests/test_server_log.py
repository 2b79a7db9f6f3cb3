"""What a server logs at INFO: where it listens, one line for each connection, and its end.

Owns the texts; what is logged of errors stands with their tests.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import anyio
import pytest

import anyws
from tests.sockets import LIMIT, echo, open_peer, raw_client, serving, serving_memory
from tests.wire import CLOSE, REQUEST, close_payload

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _informed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "anyws.server")


async def test_connection_has_one_line_when_it_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        async with raw_client(server.port) as peer:
            await peer.send_bytes(REQUEST.replace(b"GET / ", b"GET /chat?token=secret ") + b"\r\n")
            await peer.read_until(b"\r\n\r\n")
            await peer.send(CLOSE, close_payload(1000, "bye"))
            await peer.read_until_eof()
        await server.close()
    assert caplog.messages[0] == f"listening on 127.0.0.1:{server.port}"
    assert re.fullmatch(
        r"connection of 127\.0\.0\.1:[0-9]+ to /chat ended after [0-9]+\.[0-9]{3} s:"
        r" received 1000 \(OK\) bye; then sent 1000 \(OK\) bye",
        caplog.messages[1],
    )
    assert caplog.messages[2:] == ["server closed"]
    assert {record.levelname for record in caplog.records} == {"INFO"}


async def test_line_break_in_a_close_reason_makes_no_line_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as server:
        async with raw_client(server.port) as peer:
            await open_peer(peer)
            await peer.send(CLOSE, close_payload(1000, "bye\nERROR all is lost"))
            await peer.read_until_eof()
        await server.close()
    assert "\n" not in caplog.text.rstrip("\n").replace("\nINFO", "")
    assert r"received 1000 (OK) 'bye\nERROR all is lost'" in caplog.text


async def test_addresses_of_ipv6_stand_in_brackets(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(host="::1") as server, anyws.connect(f"ws://[::1]:{server.port}/"):
        pass
    assert caplog.messages[0] == f"listening on [::1]:{server.port}"
    assert caplog.messages[1].startswith("connection of [::1]:")


async def test_path_of_a_unix_socket_is_told(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    with anyio.fail_after(LIMIT):
        async with anyws.unix_serve(echo, path), anyws.unix_connect(path):
            pass
    assert caplog.messages[0] == f"listening on {path}"
    assert caplog.messages[1].startswith("connection of a local peer to / ended after ")


@pytest.mark.virtual_time
async def test_peer_in_memory_has_no_address(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_memory() as (_, connect):
        peer = await connect()
        await open_peer(peer)
        await peer.send(CLOSE)
        await peer.read_until_eof()
        await peer.finish()
    assert caplog.messages[0] == "listening on listeners without an address"
    assert caplog.messages[1].startswith("connection of a local peer to /chat ended after ")


async def test_nothing_is_asked_for_a_line_that_nobody_reads(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "anyws.server")
    async with serving() as server, anyws.connect(f"ws://127.0.0.1:{server.port}/"):
        pass
    assert caplog.messages == []
