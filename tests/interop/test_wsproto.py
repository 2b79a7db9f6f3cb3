"""Owns the proof that anyws and `wsproto` understand each other."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from wsproto.extensions import PerMessageDeflate

from tests.interop.dialogues import Dialogues, limited
from tests.interop.peers import (
    anyws_and_client,
    anyws_and_server,
    wsproto_client,
    wsproto_server,
)

if TYPE_CHECKING:
    from tests.interop.dialogues import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

TEXT = "the same words again and again, the same words again and again"


class TestDialogues(Dialogues):
    def open_pair(self, library: str, role: str, *, deflate: bool) -> Pair:
        extension = PerMessageDeflate() if deflate else None
        if role == "client":
            return anyws_and_server(partial(wsproto_server, deflate=extension))
        return anyws_and_client(partial(wsproto_client, deflate=extension))


@pytest.mark.parametrize(
    "parameters",
    [
        {"client_no_context_takeover": True},
        {"server_no_context_takeover": True},
        {"client_max_window_bits": 9, "server_max_window_bits": 9},
        {"client_no_context_takeover": True, "server_no_context_takeover": True},
    ],
)
@pytest.mark.parametrize("role", ["client", "server"])
async def test_compressed_messages_are_understood(role: str, parameters: dict[str, Any]) -> None:
    deflate = PerMessageDeflate(**parameters)
    pair = (
        anyws_and_server(partial(wsproto_server, deflate=deflate))
        if role == "client"
        else anyws_and_client(partial(wsproto_client, deflate=deflate))
    )
    async with limited(pair) as (ws, peer):
        for _ in range(2):
            await ws.send(TEXT)
            assert await peer.recv() == TEXT
            await peer.send(TEXT)
            assert await ws.recv() == TEXT
        (extension,) = ws.extensions
        agreed = dict(extension.parameters)
    assert {name for name in agreed if name.endswith("takeover")} == {
        name for name in parameters if name.endswith("takeover")
    }


async def test_client_takes_the_subprotocol_of_the_server() -> None:
    peer_server = partial(wsproto_server, deflate=None, subprotocol="chat.v1")
    pair = anyws_and_server(peer_server, subprotocols=["chat.v1", "chat.v0"])
    async with limited(pair) as (ws, peer):
        assert ws.subprotocol == peer.subprotocol == "chat.v1"


async def test_server_gives_the_client_its_subprotocol() -> None:
    peer_client = partial(wsproto_client, deflate=None, subprotocols=["chat.v1", "chat.v0"])
    pair = anyws_and_client(peer_client, subprotocols=["chat.v2", "chat.v1"])
    async with limited(pair) as (ws, peer):
        assert ws.subprotocol == peer.subprotocol == "chat.v1"
