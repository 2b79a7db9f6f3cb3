"""Endings over streams that hang or fail, and over TLS: they take no more than `close_timeout`."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import anyio
import pytest
import trustme
from anyio.streams.tls import TLSStream

import anyws
from anyws.testing import FaultyStream, memory_stream_pair
from tests.endings import background, closes_well, takes
from tests.wire import BINARY, REQUEST, Peer

if TYPE_CHECKING:
    from anyio.abc import ByteStream


pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


# Streams that hang where a memory stream does not.


class HangingStream(FaultyStream):
    """A stream on which the named methods wait for ever."""

    def __init__(self, stream: ByteStream, *hanging: str) -> None:
        super().__init__(stream)
        self._hanging = hanging

    async def send_eof(self) -> None:
        if "send_eof" in self._hanging:
            await anyio.sleep_forever()
        await super().send_eof()

    async def aclose(self) -> None:
        try:
            if "aclose" in self._hanging:
                await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await super().aclose()


@pytest.mark.parametrize("hanging", [("send_eof",), ("aclose",), ("send_eof", "aclose")])
@pytest.mark.behaviour(14)
async def test_endings_share_one_close_timeout_when_the_stream_hangs(
    hanging: tuple[str, ...],
) -> None:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    async with anyws.wrap_server(HangingStream(near, *hanging), close_timeout=7) as ws:
        peer = Peer(far, masks=True)
        await peer.read_until(b"\r\n\r\n")
        with takes(7):
            async with background(ws.close):
                await anyio.sleep(3)
                assert (await peer.read_frame()).code == 1000
                await anyio.sleep(3)
                await peer.send_close()
                if hanging == ("aclose",):
                    await peer.stream.send_eof()
                await ws.wait_closed()
    await far.aclose()


@pytest.mark.behaviour(14)
async def test_close_of_a_stream_that_hangs_takes_close_timeout_when_the_peer_left() -> None:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    with takes(7):
        async with anyws.wrap_server(HangingStream(near, "aclose"), close_timeout=7):
            await far.aclose()


class StubbornStream(FaultyStream):
    """A stream whose send() waits for ever, once told, even when it is closed."""

    stuck = False

    async def send(self, item: bytes) -> None:
        if self.stuck:
            await anyio.sleep_forever()
        await super().send(item)


async def test_block_ends_when_a_send_hangs_though_the_stream_is_closed() -> None:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    stream = StubbornStream(near)
    with anyio.fail_after(100), takes(0):
        async with anyws.wrap_server(stream, close_timeout=7) as ws:
            stream.stuck = True
            ws.send_nowait("text")
            await far.aclose()
            with pytest.raises(anyws.ConnectionClosedError):
                await ws.recv()


class UnclosableStream(FaultyStream):
    """A stream whose aclose() fails."""

    async def aclose(self) -> None:
        await super().aclose()
        raise OSError("cannot be closed")


@pytest.mark.behaviour(14)
async def test_close_returns_when_the_stream_cannot_be_closed() -> None:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    async with anyws.wrap_server(UnclosableStream(near), close_timeout=7) as ws:
        peer = Peer(far, masks=True)
        await peer.read_until(b"\r\n\r\n")
        async with background(closes_well, peer):
            with takes(0):
                await ws.close()
    assert ws.close_code == 1000


class OnceClosableStream(FaultyStream):
    """A stream whose aclose() hangs, and fails when it is called again."""

    closing = False

    async def aclose(self) -> None:
        if self.closing:
            raise RuntimeError("is closing already")
        self.closing = True
        await super().aclose()
        await anyio.sleep_forever()


@pytest.mark.behaviour(90)
async def test_close_returns_when_the_stream_cannot_be_closed_twice() -> None:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    with takes(7):
        async with anyws.wrap_server(OnceClosableStream(near), close_timeout=7):
            await far.aclose()


async def _fail_in_the_end() -> None:
    try:
        await anyio.sleep_forever()
    finally:
        raise OSError("cannot be closed")


class GroupStream(FaultyStream):
    """A stream whose aclose() has tasks; on trio, an error of one leaves with a cancellation."""

    async def aclose(self) -> None:
        await super().aclose()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_fail_in_the_end)
            tasks.start_soon(anyio.sleep_forever)


@pytest.mark.behaviour(90)
async def test_close_returns_when_tasks_of_the_stream_fail_in_the_end() -> None:
    near, far = memory_stream_pair()
    await far.send(REQUEST + b"\r\n")
    with takes(7):
        async with anyws.wrap_server(GroupStream(near), close_timeout=7):
            await far.aclose()


# TLS has an end of its own, which shares the time.


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return server, client


async def _tls_client(far: ByteStream, context: ssl.SSLContext) -> Peer:
    stream = await TLSStream.wrap(far, hostname="localhost", ssl_context=context)
    await stream.send(REQUEST + b"\r\n")
    return Peer(stream, masks=True)


@pytest.mark.behaviour(14)
async def test_tls_server_ends_in_close_timeout_when_the_client_never_reads(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    near, far = memory_stream_pair(4000)
    peers: list[Peer] = []

    async def connect() -> None:
        peers.append(await _tls_client(far, contexts[1]))
        await peers[0].read_until(b"\r\n\r\n")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connect)
        async with anyws.wrap_server(
            near, ssl=contexts[0], close_timeout=7, write_limit=1_000_000
        ) as ws:
            await ws.send(b"x" * 100_000)
            with takes(7):
                await ws.close()
    await far.aclose()


@pytest.mark.behaviour(14)
async def test_tls_server_ends_in_a_second_when_the_client_answers_all_but_close_notify(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    near, far = memory_stream_pair()

    async def run_peer() -> None:
        peer = await _tls_client(far, contexts[1])
        await peer.read_until(b"\r\n\r\n")
        assert (await peer.read_frame()).code == 1000
        await peer.send_close()
        assert await peer.read_until_eof() == b""

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_peer)
        async with anyws.wrap_server(near, ssl=contexts[0], close_timeout=7) as ws:
            with takes(1):
                await ws.close()
            assert ws.close_code == 1000
    await far.aclose()


@pytest.mark.behaviour(14)
async def test_tls_server_ends_in_close_timeout_when_the_client_goes_on_after_its_error(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    near, far = memory_stream_pair()
    closes: list[int] = []

    async def run_peer() -> None:
        peer = await _tls_client(far, contexts[1])
        await peer.read_until(b"\r\n\r\n")
        await peer.send(0x3)
        closes.append((await peer.read_frame()).code)
        try:
            while True:
                await peer.send(BINARY, b"x" * 1000)
                await anyio.sleep(0.1)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the server is gone at last

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_peer)
        async with anyws.wrap_server(near, ssl=contexts[0], close_timeout=7) as ws:
            with takes(7):
                await ws.wait_closed()
    assert closes == [1002]
    await far.aclose()
