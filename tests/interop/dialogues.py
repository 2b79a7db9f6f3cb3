"""What two implementations of WebSocket must be able to say to each other, in both roles.

Owns the tests that are the same for every peer; a class that inherits them says who the peer is.
"""

from __future__ import annotations

import abc
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

import anyws

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from tests.interop.peers import Peer

    Pair = AbstractAsyncContextManager[tuple[anyws.Connection, Peer]]

# Seconds. Each test takes milliseconds: one that comes near it hangs.
LIMIT = 20

MIB = 2**20  # the default of max_size, on both sides

RANDOM = random.Random(6455)
NOISE = RANDOM.randbytes(MIB)
WORDS = " ".join(RANDOM.choices(["Öl", "naïve", "水", "🎉", "plain"], k=200_000))
LONG_TEXT = WORDS.encode()[:MIB].decode(errors="ignore").ljust(10)

MESSAGES = [
    pytest.param("", id="empty-text"),
    pytest.param(b"", id="empty-binary"),
    pytest.param("x", id="one-character"),
    pytest.param("Ġreetings 🎉 " * 20, id="text"),
    pytest.param(bytes(range(256)), id="binary"),
    pytest.param("a" * 125 + "é", id="two-byte-length"),
    pytest.param(b"\0" * 65536, id="eight-byte-length"),
    pytest.param(LONG_TEXT, id="long-text"),
    pytest.param(NOISE, id="1-MiB"),
]

FRAGMENTS = [
    pytest.param(["one ", "two ", "three"], id="text"),
    pytest.param([b"one ", b"two ", b"three"], id="binary"),
    pytest.param(["", "empty", "", "between", ""], id="empty-ones"),
    pytest.param(["", ""], id="nothing-but-empty-ones"),
    pytest.param([NOISE[:300_000], NOISE[300_000:300_001], NOISE[300_001:]], id="1-MiB"),
]


@asynccontextmanager
async def limited(pair: Pair) -> AsyncGenerator[tuple[anyws.Connection, Peer], None]:
    with anyio.fail_after(LIMIT):
        async with pair as both:
            yield both


class Dialogues(abc.ABC):
    """Tests of one connection of anyws with a peer of another implementation."""

    @abc.abstractmethod
    def open_pair(self, library: str, role: str, *, deflate: bool) -> Pair:
        """Open a connection.

        Args:
            library: "asyncio" or "trio".
            role: that of anyws, "client" or "server".
            deflate: whether the peer has permessage-deflate; anyws has it in any case.
        """

    @pytest.fixture(params=["client", "server"])
    def role(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture(params=[True, False], ids=["deflate", "plain"])
    def deflate(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param)

    @pytest.fixture
    def pair(self, anyio_backend_name: str, role: str, deflate: bool) -> Pair:
        return limited(self.open_pair(anyio_backend_name, role, deflate=deflate))

    @pytest.fixture
    def plain_pair(self, anyio_backend_name: str, role: str) -> Pair:
        return limited(self.open_pair(anyio_backend_name, role, deflate=False))

    async def test_compression_is_used_when_both_have_it(self, pair: Pair, deflate: bool) -> None:
        async with pair as (ws, peer):
            assert [extension.name for extension in ws.extensions] == (
                ["permessage-deflate"] if deflate else []
            )
            assert peer.compressed is deflate

    @pytest.mark.parametrize("message", MESSAGES)
    async def test_message_reaches_the_peer(self, pair: Pair, message: str | bytes) -> None:
        async with pair as (ws, peer):
            await ws.send(message)
            assert await peer.recv() == message

    @pytest.mark.parametrize("message", MESSAGES)
    async def test_message_of_the_peer_arrives(self, pair: Pair, message: str | bytes) -> None:
        async with pair as (ws, peer):
            await peer.send(message)
            assert await ws.recv() == message

    @pytest.mark.parametrize("fragments", FRAGMENTS)
    async def test_fragments_reach_the_peer(
        self, pair: Pair, fragments: list[str] | list[bytes]
    ) -> None:
        async with pair as (ws, peer):
            await ws.send(fragments)
            assert await peer.recv() == type(fragments[0])().join(fragments)  # type: ignore[arg-type]  # one of the two

    @pytest.mark.parametrize("fragments", FRAGMENTS)
    async def test_fragments_of_the_peer_arrive_as_one_message(
        self, pair: Pair, fragments: list[str] | list[bytes]
    ) -> None:
        async with pair as (ws, peer):
            await peer.send_fragments(fragments)
            assert await ws.recv() == type(fragments[0])().join(fragments)  # type: ignore[arg-type]  # likewise

    async def test_fragments_of_the_peer_arrive_one_by_one(self, pair: Pair) -> None:
        async with pair as (ws, peer), anyio.create_task_group() as task_group:
            task_group.start_soon(peer.send_fragments, ["one ", "two ", "three"])
            async with ws.recv_streaming() as fragments:
                assert "".join([str(fragment) async for fragment in fragments]) == "one two three"

    async def test_messages_cross_in_order_when_both_send_at_once(self, pair: Pair) -> None:
        messages = [f"{number} " * (number % 50) for number in range(200)]
        async with pair as (ws, peer), anyio.create_task_group() as task_group:

            async def send_ours() -> None:
                for message in messages:
                    await ws.send(message)

            async def send_theirs() -> None:
                for message in messages:
                    await peer.send(message.encode())

            async def receive_theirs() -> None:
                assert [await peer.recv() for _ in messages] == messages

            task_group.start_soon(send_ours)
            task_group.start_soon(send_theirs)
            task_group.start_soon(receive_theirs)
            assert [await ws.recv() for _ in messages] == [m.encode() for m in messages]

    async def test_large_messages_pass_each_other(self, pair: Pair) -> None:
        async with pair as (ws, peer), anyio.create_task_group() as task_group:
            task_group.start_soon(peer.send, NOISE)
            task_group.start_soon(ws.send, NOISE)
            assert await ws.recv() == NOISE
            assert await peer.recv() == NOISE

    async def test_ping_is_answered_by_the_peer(self, plain_pair: Pair) -> None:
        async with plain_pair as (ws, _):
            pong = await ws.ping(b"are you there?")
            assert await pong > 0

    @pytest.mark.parametrize("payload", [b"", b"\0" * 125], ids=["empty", "125-bytes"])
    async def test_ping_of_the_peer_is_answered(self, plain_pair: Pair, payload: bytes) -> None:
        async with plain_pair as (_, peer):
            await peer.ping(payload)  # waits for the Pong with its payload

    async def test_close_code_and_reason_reach_the_peer(self, plain_pair: Pair) -> None:
        async with plain_pair as (ws, peer):
            await ws.close(3999, "bis später")
            assert await peer.wait_closed() == (3999, "bis später")
            assert (ws.close_code, ws.close_reason) == (3999, "bis später")

    async def test_close_code_and_reason_of_the_peer_arrive(self, plain_pair: Pair) -> None:
        async with plain_pair as (ws, peer), anyio.create_task_group() as task_group:
            task_group.start_soon(peer.close, 4000, "bis später")
            with pytest.raises(anyws.ConnectionClosedError) as raised:
                await ws.recv()
            assert str(raised.value) == (
                "received 4000 (private use) bis später; then sent 4000 (private use) bis später"
            )
            assert await peer.wait_closed() == (4000, "bis später")
            await ws.wait_closed()
            assert (ws.close_code, ws.close_reason) == (4000, "bis später")

    async def test_iteration_ends_when_the_peer_closes(self, pair: Pair) -> None:
        async with pair as (ws, peer), anyio.create_task_group() as task_group:

            async def speak() -> None:
                await peer.send("one")
                await peer.send("two")
                await peer.close(1000, "")

            task_group.start_soon(speak)
            assert [message async for message in ws] == ["one", "two"]

    async def test_both_close_at_once(self, plain_pair: Pair) -> None:
        async with plain_pair as (ws, peer):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(ws.close, 1000)
                task_group.start_soon(peer.close, 1001, "")
            codes = ws.close_code, (await peer.wait_closed())[0]
            # The Close frames cross, or one of them is echoed.
            assert codes in {(1001, 1000), (1000, 1000), (1001, 1001)}

    async def test_leaving_the_block_closes_with_1000(self, plain_pair: Pair) -> None:
        async with plain_pair as (_, peer):
            pass
        assert (await peer.wait_closed())[0] == 1000

    async def test_abort_is_seen_by_the_peer(self, plain_pair: Pair) -> None:
        async with plain_pair as (ws, peer):
            ws.abort()
            assert await peer.wait_closed() == (1006, "")

    async def test_abort_of_the_peer_is_seen(self, plain_pair: Pair) -> None:
        async with plain_pair as (ws, peer):
            await peer.abort()
            with pytest.raises(anyws.ConnectionClosedError) as raised:
                await ws.recv()
            assert raised.value.rcvd is None
            await ws.wait_closed()
            assert ws.close_code == 1006
