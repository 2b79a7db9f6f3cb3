"""The end of a connection over TLS: in peace, or cut off."""

from __future__ import annotations

import ssl
from contextlib import suppress

import anyio
import pytest
from anyio.streams.tls import TLSStream

import anyws
from anyws.testing import memory_stream_pair
from tests.sockets import GOOD, loud_records, open_peer, read_request, serving
from tests.tls import client_context, server_context, tls_peer, tls_server
from tests.wire import CLOSE, TEXT, Peer, close_payload, frame

pytestmark = pytest.mark.anyio


@pytest.mark.behaviour(14, 18)
async def test_close_over_tls_ends_with_close_notify_on_both_sides() -> None:
    async with serving(ssl=server_context()) as server:
        peer = await tls_peer(server.port)
        await open_peer(peer)
        await peer.send_close(1000, "bye")
        close = await peer.read_frame()
        assert (close.opcode, close.payload) == (CLOSE, close_payload(1000, "bye"))
        assert await peer.read_until_eof() == b""
        await peer.finish()


@pytest.mark.behaviour(32, 35)
async def test_tls_cut_off_after_messages_delivers_them_and_is_a_1006(
    caplog: pytest.LogCaptureFixture,
) -> None:
    over = anyio.Event()
    ended: list[anyws.ConnectionClosed] = []
    messages: list[str | bytes] = []

    async def handler(ws: anyws.Connection) -> None:
        try:
            while True:
                messages.append(await ws.recv())
        except anyws.ConnectionClosed as exc:
            ended.append(exc)
            over.set()

    async with serving(handler, ssl=server_context()) as server:
        peer = await tls_peer(server.port)
        await open_peer(peer)
        await peer.send(TEXT, b"one")
        await peer.send(TEXT, b"two")
        # TCP ends without close_notify: an attacker could have done it (RFC 8446 section 6.1).
        assert isinstance(peer.stream, TLSStream)
        await peer.stream.transport_stream.send_eof()
        await over.wait()
        await anyio.aclose_forcefully(peer.stream)
    assert loud_records(caplog) == []
    assert messages == ["one", "two"]
    (error,) = ended
    assert isinstance(error, anyws.ConnectionClosedError)
    assert error.code == 1006
    assert str(error) == "no close frame received or sent"
    assert isinstance(error.__cause__, ssl.SSLEOFError)


@pytest.mark.behaviour(60)
async def test_bad_frame_is_the_cause_when_tls_is_cut_off_before_it_is_met() -> None:
    answered = anyio.Event()
    ended: list[anyws.ConnectionClosed] = []
    over = anyio.Event()

    async def handler(ws: anyws.Connection) -> None:
        assert await ws.recv() == "Hello"
        answered.set()
        await ws.wait_closed()  # it is busy with its answer when the stream ends
        with pytest.raises(anyws.ConnectionClosedError) as caught:
            await ws.recv()
        ended.append(caught.value)
        over.set()

    async with serving(handler, ssl=server_context()) as server:
        peer = await tls_peer(server.port)
        await open_peer(peer)
        await peer.send(TEXT, b"Hello")
        await answered.wait()
        await peer.send(TEXT, b"bad", rsv=2)
        assert isinstance(peer.stream, TLSStream)
        await peer.stream.transport_stream.send_eof()
        await over.wait()
        await anyio.aclose_forcefully(peer.stream)
    (error,) = ended
    assert isinstance(error.__cause__, anyws.ProtocolError)


@pytest.mark.behaviour(32)
async def test_tls_cut_off_by_the_server_is_a_1006() -> None:
    async def script(stream: TLSStream) -> None:
        _, accept = await read_request(Peer(stream, masks=False))
        await stream.send(GOOD.replace(b"ACCEPT", accept) + b"\r\n" + frame(TEXT, b"last"))
        await anyio.aclose_forcefully(stream)

    async with tls_server(script) as port:
        async with anyws.connect(f"wss://localhost:{port}/", ssl=client_context()) as ws:
            assert await ws.recv() == "last"
            with pytest.raises(anyws.ConnectionClosedError) as caught:
                await ws.recv()
        assert ws.close_code == 1006
    assert isinstance(caught.value.__cause__, ssl.SSLEOFError)


@pytest.mark.behaviour(33)
async def test_close_frame_counts_although_tls_is_cut_off_after_it() -> None:
    async def script(stream: TLSStream) -> None:
        peer = Peer(stream, masks=False)
        _, accept = await read_request(peer)
        await stream.send(GOOD.replace(b"ACCEPT", accept) + b"\r\n" + frame(CLOSE))
        await peer.read_frame()
        await anyio.aclose_forcefully(stream)

    async with tls_server(script) as port:
        async with anyws.connect(f"wss://localhost:{port}/", ssl=client_context()) as ws:
            assert [message async for message in ws] == []
        assert ws.close_code == 1005


async def test_garbage_instead_of_a_tls_record_is_a_1006_with_its_cause() -> None:
    async def script(stream: TLSStream) -> None:
        _, accept = await read_request(Peer(stream, masks=False))
        await stream.send(GOOD.replace(b"ACCEPT", accept) + b"\r\n")
        await stream.transport_stream.send(b"this is no TLS record at all")
        with suppress(Exception):
            await stream.receive()

    async with tls_server(script) as port:
        async with anyws.connect(f"wss://localhost:{port}/", ssl=client_context()) as ws:
            with pytest.raises(anyws.ConnectionClosedError) as caught:
                await ws.recv()
        assert ws.close_code == 1006
    assert isinstance(caught.value.__cause__, ssl.SSLError)


@pytest.mark.behaviour(14)
@pytest.mark.virtual_time
async def test_peer_that_never_answers_close_notify_is_dropped_within_close_timeout() -> None:
    near, far = memory_stream_pair()
    ready = anyio.Event()

    async def serve() -> None:
        stream = await TLSStream.wrap(far, server_side=True, ssl_context=server_context())
        peer = Peer(stream, masks=False)
        _, accept = await read_request(peer)
        await stream.send(GOOD.replace(b"ACCEPT", accept) + b"\r\n")
        ready.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tg:
        tg.start_soon(serve)
        async with anyws.wrap_client(
            near, "wss://localhost/", ssl=client_context(), close_timeout=3
        ) as ws:
            await ready.wait()
            started_at = anyio.current_time()
            await ws.close()
            assert anyio.current_time() - started_at == pytest.approx(3)
        tg.cancel_scope.cancel()


async def test_many_clients_at_once_over_tls_each_get_their_echo() -> None:
    async def talk(uri: str, number: int) -> None:
        async with anyws.connect(uri, ssl=client_context()) as ws:
            await ws.send(str(number))
            assert await ws.recv() == str(number)

    async with serving(ssl=server_context()) as server:
        async with anyio.create_task_group() as tg:
            for number in range(20):
                tg.start_soon(talk, f"wss://localhost:{server.port}/", number)
