"""Owns the proof that anyws and `websockets`, on asyncio and on trio, understand each other."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)

from anyws import PerMessageDeflate
from tests.interop.dialogues import Dialogues, limited
from tests.interop.peers import (
    anyws_and_client,
    anyws_and_server,
    websockets_client,
    websockets_server,
)

if TYPE_CHECKING:
    from tests.interop.dialogues import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

TEXT = "the same words again and again, the same words again and again"

# `websockets` limits the bytes of a frame on the wire too: noise of 1 MiB is more when compressed.
MAX_SIZE = 2**21


class TestDialogues(Dialogues):
    def open_pair(self, library: str, role: str, *, deflate: bool) -> Pair:
        arguments: dict[str, Any] = {
            "compression": "deflate" if deflate else None,
            "max_size": MAX_SIZE,
        }
        if role == "client":
            return anyws_and_server(partial(websockets_server, library=library, **arguments))
        return anyws_and_client(partial(websockets_client, library=library, **arguments))


async def exchange_compressed(pair: Pair) -> str:
    """Send twice in each direction; give the parameters of permessage-deflate as in its header."""
    async with limited(pair) as (ws, peer):
        for _ in range(2):
            await ws.send(TEXT)
            assert await peer.recv() == TEXT
            await peer.send(TEXT)
            assert await ws.recv() == TEXT
        (extension,) = ws.extensions
        parameters = extension.parameters
    return "; ".join(name if value is None else f"{name}={value}" for name, value in parameters)


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        ({}, {}, "server_max_window_bits=12; client_max_window_bits=12"),
        (
            {"server_no_context_takeover": True},
            {},
            "server_no_context_takeover; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (
            {"client_no_context_takeover": True},
            {},
            "client_no_context_takeover; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (
            {},
            {"server_no_context_takeover": True, "client_no_context_takeover": True},
            (
                "server_no_context_takeover; client_no_context_takeover;"
                " server_max_window_bits=12; client_max_window_bits=12"
            ),
        ),
        (
            {"client_max_window_bits": True},
            {"client_max_window_bits": 9},
            "server_max_window_bits=12; client_max_window_bits=9",
        ),
        (
            {"server_max_window_bits": None},
            {"server_max_window_bits": 9},
            "server_max_window_bits=9; client_max_window_bits=12",
        ),
        ({"server_max_window_bits": None, "client_max_window_bits": None}, {}, ""),
        (
            {"server_max_window_bits": 9, "client_max_window_bits": 15},
            {},
            "server_max_window_bits=9; client_max_window_bits=15",
        ),
        ({"client_max_window_bits": 8}, {}, "server_max_window_bits=12; client_max_window_bits=8"),
    ],
)
async def test_client_and_server_agree_on_compression(
    anyio_backend_name: str, ours: dict[str, Any], theirs: dict[str, Any], agreed: str
) -> None:
    peer_server = partial(
        websockets_server,
        library=anyio_backend_name,
        extensions=[ServerPerMessageDeflateFactory(**theirs)],
        compression=None,
    )
    pair = anyws_and_server(peer_server, compression=PerMessageDeflate(**ours))
    assert await exchange_compressed(pair) == agreed


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        ({}, {}, "server_max_window_bits=12; client_max_window_bits=12"),
        (
            {"server_no_context_takeover": True},
            {},
            "server_no_context_takeover; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (
            {"client_no_context_takeover": True},
            {},
            "client_no_context_takeover; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (
            {},
            {"server_no_context_takeover": True, "client_no_context_takeover": True},
            (
                "server_no_context_takeover; client_no_context_takeover;"
                " server_max_window_bits=12; client_max_window_bits=12"
            ),
        ),
        (
            {"client_max_window_bits": 9},
            {"client_max_window_bits": True},
            "server_max_window_bits=12; client_max_window_bits=9",
        ),
        (
            {"client_max_window_bits": 9},
            {"client_max_window_bits": None},
            "server_max_window_bits=12",
        ),
        (
            {"server_max_window_bits": 9},
            {"server_max_window_bits": 10},
            "server_max_window_bits=9; client_max_window_bits=12",
        ),
        (
            {"server_max_window_bits": 15},
            {"server_max_window_bits": 8},
            "server_max_window_bits=8; client_max_window_bits=12",
        ),
        ({"server_max_window_bits": None, "client_max_window_bits": None}, {}, ""),
    ],
)
async def test_server_and_client_agree_on_compression(
    anyio_backend_name: str, ours: dict[str, Any], theirs: dict[str, Any], agreed: str
) -> None:
    peer_client = partial(
        websockets_client,
        library=anyio_backend_name,
        extensions=[ClientPerMessageDeflateFactory(**theirs)],
        compression=None,
    )
    pair = anyws_and_client(peer_client, compression=PerMessageDeflate(**ours))
    assert await exchange_compressed(pair) == agreed


async def test_client_and_server_agree_on_a_subprotocol(anyio_backend_name: str) -> None:
    peer_server = partial(
        websockets_server, library=anyio_backend_name, subprotocols=["chat.v2", "chat.v1"]
    )
    pair = anyws_and_server(peer_server, subprotocols=["chat.v1", "chat.v0"])
    async with limited(pair) as (ws, peer):
        assert ws.subprotocol == peer.subprotocol == "chat.v1"


async def test_server_and_client_agree_on_a_subprotocol(anyio_backend_name: str) -> None:
    peer_client = partial(
        websockets_client, library=anyio_backend_name, subprotocols=["chat.v1", "chat.v0"]
    )
    pair = anyws_and_client(peer_client, subprotocols=["chat.v2", "chat.v1"])
    async with limited(pair) as (ws, peer):
        assert ws.subprotocol == peer.subprotocol == "chat.v1"
