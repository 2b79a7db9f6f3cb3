"""Owns the proof that anyws and Node's `ws`, as a client and as a server, understand each other."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from anyws import PerMessageDeflate
from tests.counterparts.node import NodePeer, node_client, node_server
from tests.interop.dialogues import NOISE, Dialogues, limited
from tests.interop.peers import anyws_and_client, anyws_and_server

if TYPE_CHECKING:
    from tests.interop.dialogues import Pair

pytestmark = [pytest.mark.anyio, pytest.mark.interop, pytest.mark.counterpart]

TEXT = "the same words again and again, the same words again and again"

both_roles = pytest.mark.parametrize("role", ["client", "server"])


def open_pair(role: str, options: dict[str, Any], **arguments: Any) -> Pair:
    """Open a connection in which anyws has a role.

    Args:
        role: "client" or "server".
        options: those of Node's `ws`.
        arguments: those of `connect` or `serve`.
    """
    if role == "client":
        return limited(anyws_and_server(partial(node_server, **options), **arguments))
    return limited(anyws_and_client(partial(node_client, **options), **arguments))


class TestDialogues(Dialogues):
    def open_pair(self, library: str, role: str, *, deflate: bool) -> Pair:
        # It leaves uncompressed what is shorter than 1 KiB, unless told.
        return open_pair(role, {"perMessageDeflate": {"threshold": 0} if deflate else False})


# Each parameter of permessage-deflate, asked for by either side.

PARAMETERS = [
    pytest.param({}, {}, id="none"),
    pytest.param({"server_no_context_takeover": True}, {}, id="server-no-context-takeover"),
    pytest.param({"client_no_context_takeover": True}, {}, id="client-no-context-takeover"),
    pytest.param({"server_max_window_bits": 9}, {}, id="server-window-9"),
    pytest.param({"client_max_window_bits": 9}, {}, id="client-window-9"),
    pytest.param(
        {"server_max_window_bits": 15, "client_max_window_bits": 15}, {}, id="windows-of-15"
    ),
    pytest.param(
        {"server_max_window_bits": None, "client_max_window_bits": None}, {}, id="windows-of-none"
    ),
    pytest.param({}, {"serverNoContextTakeover": True}, id="theirs-server-no-context-takeover"),
    pytest.param({}, {"clientNoContextTakeover": True}, id="theirs-client-no-context-takeover"),
    pytest.param(
        {"server_max_window_bits": None}, {"serverMaxWindowBits": 9}, id="theirs-server-window-9"
    ),
    pytest.param(
        {"client_max_window_bits": True}, {"clientMaxWindowBits": 9}, id="theirs-client-window-9"
    ),
]


@both_roles
@pytest.mark.parametrize(("ours", "theirs"), PARAMETERS)
async def test_compressed_messages_are_understood(
    role: str, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    options = {"perMessageDeflate": {"threshold": 0, **theirs}}
    async with open_pair(role, options, compression=PerMessageDeflate(**ours)) as (ws, peer):
        assert peer.compressed
        for message in (TEXT, TEXT, TEXT.encode(), "", NOISE[:70_000], TEXT):
            await ws.send(message, compress=True)
            assert await peer.recv() == message
            await peer.send(message)
            assert await ws.recv() == message
        (extension,) = ws.extensions
        agreed = dict(extension.parameters)
    for name in ("server_no_context_takeover", "client_no_context_takeover"):
        camel = name.split("_")[0] + "NoContextTakeover"
        if ours.get(name) or theirs.get(camel):
            assert name in agreed
    for side in ("server", "client"):
        wanted = theirs.get(f"{side}MaxWindowBits")
        if wanted is not None:
            assert agreed[f"{side}_max_window_bits"] == str(wanted)


@both_roles
async def test_uncompressed_message_between_compressed_ones_is_understood(role: str) -> None:
    async with open_pair(role, {"perMessageDeflate": {"threshold": 0}}) as (ws, peer):
        for compress in (True, False, True, False):
            await ws.send(TEXT, compress=compress)
            assert await peer.recv() == TEXT


@both_roles
async def test_compressed_fragments_are_understood(role: str) -> None:
    async with open_pair(role, {"perMessageDeflate": {"threshold": 0}}) as (ws, peer):
        await ws.send([TEXT, "", TEXT], compress=True)
        assert await peer.recv() == TEXT * 2
        await peer.send_fragments([TEXT, "", TEXT])
        assert await ws.recv() == TEXT * 2


@both_roles
async def test_subprotocol_is_agreed_on(role: str) -> None:
    options: dict[str, Any] = {"protocol": "chat.v1"}
    if role == "server":
        options = {"protocols": ["chat.v0", "chat.v1"]}
    async with open_pair(role, options, subprotocols=["chat.v2", "chat.v1"]) as (ws, peer):
        assert ws.subprotocol == peer.subprotocol == "chat.v1"


@both_roles
async def test_keepalive_is_answered(role: str) -> None:
    async with open_pair(role, {}, ping_interval=0.01) as (ws, peer):
        assert isinstance(peer, NodePeer)
        while len(peer.pings) < 3:
            await peer._changed.wait()
        assert ws.open
        assert ws.latency > 0


# The end.


@both_roles
@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4999])
async def test_close_code_reaches_the_peer(role: str, code: int) -> None:
    async with open_pair(role, {}) as (ws, peer):
        await ws.close(code, "é" * 61)
        assert await peer.wait_closed() == (code, "é" * 61)


@both_roles
@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4999])
async def test_close_code_of_the_peer_arrives(role: str, code: int) -> None:
    async with open_pair(role, {}) as (ws, peer), anyio.create_task_group() as task_group:
        task_group.start_soon(peer.close, code, "é" * 61)
        with pytest.raises(anyws.ConnectionClosed):
            await ws.recv()
        await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (code, "é" * 61)


@both_roles
async def test_message_that_is_too_big_for_the_peer_is_a_1009(role: str) -> None:
    async with open_pair(role, {"maxPayload": 1000}) as (ws, peer):
        await ws.send(b"\0" * 1001, compress=False)
        await ws.wait_closed()
        assert ws.close_code == 1009
        assert isinstance(peer, NodePeer)
        await peer.wait_closed()
        assert peer.errors == ["RangeError: Max payload size exceeded"]


@both_roles
async def test_message_that_is_too_big_for_us_is_a_1009(role: str) -> None:
    async with open_pair(role, {}, max_size=1000) as (ws, peer):
        await peer.send(b"\0" * 1001)
        assert (await peer.wait_closed())[0] == 1009
        with pytest.raises(anyws.ConnectionClosedError):
            await ws.recv()


@both_roles
async def test_messages_before_the_close_are_not_lost(role: str) -> None:
    messages = [f"message {number}" for number in range(100)]
    async with open_pair(role, {}) as (ws, peer), anyio.create_task_group() as task_group:

        async def speak() -> None:
            for message in messages:
                await peer.send(message)
            await peer.close(1000, "")

        task_group.start_soon(speak)
        assert [message async for message in ws] == messages
