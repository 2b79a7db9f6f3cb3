"""What TLSTransport does of its own: records, their order, and the end of TLS; in virtual time."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import EndOfStream, create_task_group
from anyio.streams.tls import TLSAttribute, TLSStream

from anyws._transports import wrap_tls
from anyws._transports._tls import TLSTransport
from anyws.testing import memory_stream_pair
from tests.tls import client_context, server_context
from tests.transports import read_exactly, read_until_end, running, settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from anyws.testing import MemoryStream

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


@asynccontextmanager
async def tls_pair() -> AsyncGenerator[tuple[TLSTransport, TLSStream, MemoryStream], None]:
    """Give a transport over TLS, the peer's TLS, and the peer's stream below."""
    near, far = memory_stream_pair()
    peers: list[TLSStream] = []

    async def accept() -> None:
        context = server_context()
        peers.append(await TLSStream.wrap(far, server_side=True, ssl_context=context))

    async with near, far:
        async with create_task_group() as tg:
            tg.start_soon(accept)
            transport = await wrap_tls(
                near, client_context(), server_side=False, server_hostname="localhost"
            )
        assert type(transport) is TLSTransport
        yield transport, peers[0], far


class Reluctant:
    """Stands in for an SSLObject that must hear the peer before it writes, or cannot write."""

    def __init__(self, ssl_object: ssl.SSLObject, error: ssl.SSLError) -> None:
        self._ssl_object = ssl_object
        self.error: ssl.SSLError | None = error

    def write(self, data: bytes) -> int:
        """Write not more than four bytes."""
        if self.error is not None:
            raise self.error
        return self._ssl_object.write(data[:4])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ssl_object, name)


def make_reluctant(transport: TLSTransport, error: ssl.SSLError) -> Reluctant:
    reluctant = Reluctant(transport._ssl, error)
    transport._ssl = reluctant  # type: ignore[assignment]  # it stands in for one
    return reluctant


# The ByteStream.


async def test_stream_ends_with_the_close_notify_of_the_peer() -> None:
    async with tls_pair() as (transport, peer, _), create_task_group() as tg:
        tg.start_soon(peer.aclose)
        with pytest.raises(EndOfStream):
            await transport.receive()
        await transport.aclose()


async def test_stream_breaks_when_it_is_cut_off() -> None:
    async with tls_pair() as (transport, _, far):
        await far.send_eof()
        with pytest.raises(anyio.BrokenResourceError) as info:
            await transport.receive()
        assert isinstance(info.value.__cause__, ssl.SSLEOFError)


async def test_stream_is_closed_although_the_peer_has_gone() -> None:
    async with tls_pair() as (transport, _, far):
        await far.aclose()
        await transport.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await transport._below.receive()


async def test_peer_is_told_when_the_stream_is_closed() -> None:
    async with tls_pair() as (transport, peer, _), create_task_group() as tg:
        tg.start_soon(transport.aclose)
        with pytest.raises(EndOfStream):
            await peer.receive()


async def test_attributes_are_those_of_anyio() -> None:
    async with tls_pair() as (transport, peer, _):
        for attribute in (TLSAttribute.tls_version, TLSAttribute.cipher):
            assert transport.extra(attribute) == peer.extra(attribute)
        assert transport.extra(TLSAttribute.ssl_object).version() == "TLSv1.3"
        assert transport.extra(TLSAttribute.server_side) is False
        assert transport.extra(TLSAttribute.standard_compatible) is True
        certificate = transport.extra(TLSAttribute.peer_certificate)
        assert certificate is not None
        assert "localhost" in str(certificate["subjectAltName"])
        der = transport.extra(TLSAttribute.peer_certificate_binary)
        assert der is not None
        assert ssl.DER_cert_to_PEM_cert(der).startswith("-----BEGIN CERTIFICATE")


# A peer that must be heard before we may write, as TLS 1.2 has it while it negotiates anew.


async def test_send_hears_the_peer_first_when_it_must() -> None:
    async with tls_pair() as (transport, peer, _), create_task_group() as tg:
        reluctant = make_reluctant(transport, ssl.SSLWantReadError())
        tg.start_soon(transport.send, b"Hello")
        await settle()
        reluctant.error = None
        await peer.send(b"first")
        assert await read_exactly(peer, 5) == b"Hello"
        assert await transport.receive() == b"first"


async def test_write_hears_the_peer_first_when_it_must() -> None:
    async with tls_pair() as (transport, peer, _):
        reluctant = make_reluctant(transport, ssl.SSLWantReadError())
        async with running(transport) as run:
            transport.write(b"Hello")
            transport.write(b", again")
            await settle()
            assert transport.write_buffer_size == 12
            reluctant.error = None
            await peer.send(b"first")
            assert await read_exactly(peer, 12) == b"Hello, again"
            assert await transport.drain(0)
            assert run.received == b"first"


async def test_drain_waits_when_the_peer_must_be_heard_first() -> None:
    async with tls_pair() as (transport, peer, _):
        reluctant = make_reluctant(transport, ssl.SSLWantReadError())
        async with running(transport), create_task_group() as tg:
            transport.write(b"Hello")
            with anyio.move_on_after(1):
                pytest.fail(f"drain() gave {await transport.drain(0)}")
            tg.start_soon(peer.send, b"first")
            reluctant.error = None
            assert await transport.drain(0)
            assert await read_exactly(peer, 5) == b"Hello"


@pytest.mark.parametrize("end", [TLSTransport.release, TLSTransport.abort])
async def test_drain_ends_although_the_peer_is_not_heard(
    end: Callable[[TLSTransport], None],
) -> None:
    async with tls_pair() as (transport, _peer, _):
        make_reluctant(transport, ssl.SSLWantReadError())
        async with running(transport), create_task_group() as tg:
            transport.write(b"Hello")

            async def end_soon() -> None:
                end(transport)

            tg.start_soon(end_soon)
            assert not await transport.drain(0)


async def test_send_breaks_when_nothing_can_be_encrypted() -> None:
    async with tls_pair() as (transport, _, _far):
        error = make_reluctant(transport, ssl.SSLError("no")).error
        with pytest.raises(anyio.BrokenResourceError) as info:
            await transport.send(b"Hello")
        assert info.value.__cause__ is error


async def test_writing_ends_when_nothing_can_be_encrypted() -> None:
    async with tls_pair() as (transport, _, _far):
        error = make_reluctant(transport, ssl.SSLError("no")).error
        async with running(transport) as run:
            transport.write(b"Hello")
            await run.written.wait()
            assert run.write_error is error
            transport.write(b"dropped")
            transport.write_latest(b"dropped")
            transport.write_eof()
            assert transport.write_buffer_size == 0
            assert not await transport.drain(-1)


# What is left of the peer's when reading goes on, or does not.


async def test_records_that_came_with_the_handshake_are_fed() -> None:
    async with tls_pair() as (transport, peer, _):
        await peer.send(b"Hello")
        await peer.send(b", again")
        assert await transport.receive() == b"Hello"
        async with running(transport) as run:
            await run.receive(7)
            assert run.received == b", again"


async def test_records_wait_while_reading_is_paused() -> None:
    async with tls_pair() as (transport, peer, _):
        await peer.send(b"Hello")
        await peer.send(b", again")
        assert await transport.receive() == b"Hello"
        transport.pause_reading()
        async with running(transport) as run:
            await settle()
            assert run.received == b""
            transport.resume_reading()
            transport.pause_reading()
            transport.resume_reading()
            await run.receive(7)


async def test_records_are_dropped_when_the_transport_is_aborted() -> None:
    async with tls_pair() as (transport, peer, _):
        await peer.send(b"Hello")
        await peer.send(b", again")
        assert await transport.receive() == b"Hello"
        transport.pause_reading()
        async with running(transport) as run:
            await settle()
            transport.resume_reading()
            transport.abort()
            await run.read.wait()
            assert run.received == b""
            assert run.read_error is None


async def test_records_wait_again_when_reading_is_paused_by_the_first() -> None:
    async with tls_pair() as (transport, peer, _):
        for data in (b"Hello", b", ", b"again"):
            await peer.send(data)
        assert await transport.receive() == b"Hello"
        async with running(transport) as run:
            run.on_feed = transport.pause_reading
            await run.receive(2)
            await settle()
            assert run.received == b", "
            transport.resume_reading()
            await run.receive(7)


async def test_stream_below_is_not_read_on_when_reading_is_paused_by_what_waited() -> None:
    async with tls_pair() as (transport, peer, _):
        for data in (b"Hello", b"again"):  # one chunk of the stream below
            await peer.send(data)
        async with running(transport) as run:
            run.on_feed = transport.pause_reading
            await run.receive(5)
            transport.resume_reading()
            await run.receive(10)
            with anyio.move_on_after(1) as scope:
                await peer.send(bytes(2**20))
            assert scope.cancelled_caught
            assert transport._incoming.pending == 0


async def test_end_of_the_peer_waits_while_reading_is_paused() -> None:
    async with tls_pair() as (transport, _, far), running(transport) as run:
        await settle()  # the stream below is being read
        transport.pause_reading()
        await far.send_eof()
        await settle()
        assert not run.read.is_set()
        transport.resume_reading()
        await run.read.wait()
        assert isinstance(run.read_error, ssl.SSLEOFError)


async def test_end_of_the_peer_that_waits_is_told_when_the_transport_is_aborted() -> None:
    async with tls_pair() as (transport, _, far), running(transport) as run:
        await settle()  # the stream below is being read
        transport.pause_reading()
        await far.send_eof()
        await settle()
        assert not run.read.is_set()
        transport.abort()
        assert not run.read.is_set()
        await run.read.wait()
        assert run.read_error is None


async def test_end_of_the_peer_is_told_once_when_reading_goes_on_as_the_transport_is_aborted() -> (
    None
):
    async with tls_pair() as (transport, _, far), running(transport) as run:
        await settle()
        transport.pause_reading()
        await far.send_eof()
        await settle()
        transport.resume_reading()
        transport.abort()
        await run.read.wait()
        await settle()
        assert run.read_error is None


async def test_garbage_ends_reading_once() -> None:
    async with tls_pair() as (transport, _, far), running(transport) as run:
        await far.send(b"this is no TLS record")
        await run.read.wait()
        await far.send(b"nor is this")
        await settle()
        assert isinstance(run.read_error, ssl.SSLError)


# The end of our half.


async def test_end_waits_for_the_peer_until_abort() -> None:
    async with tls_pair() as (transport, peer, _), running(transport) as run:
        transport.write(b"last")
        transport.write_eof()
        await run.written.wait()
        assert await read_until_end(peer) == b"last"
        await anyio.sleep(1000)
        assert not run.read.is_set()
        transport.abort()
        await run.read.wait()
        assert run.read_error is None


async def test_reading_ends_with_the_answer_of_the_peer_to_our_end() -> None:
    async with tls_pair() as (transport, peer, _), running(transport) as run:
        transport.write_eof()
        async with create_task_group() as tg:
            tg.start_soon(peer.unwrap)
            await run.read.wait()
        assert run.read_error is None


async def test_what_the_peer_sends_after_our_end_is_dropped() -> None:
    async with tls_pair() as (transport, peer, far), running(transport) as run:
        transport.write(b"last")
        transport.write_eof()
        await run.written.wait()
        await peer.send(b"late")
        await peer.send(b"later")
        assert await read_exactly(peer, 4) == b"last"
        await anyio.sleep(1)
        assert not run.read.is_set()
        await far.send_eof()
        await run.read.wait()
        assert run.received == b""
        assert run.read_error is None


async def test_latest_leaves_before_our_end() -> None:
    async with tls_pair() as (transport, peer, _), running(transport) as run:
        transport.write_latest(b"latest")
        transport.write_eof()
        assert await read_until_end(peer) == b"latest"
        transport.abort()
        await run.read.wait()


async def test_empty_write_leaves_nothing() -> None:
    async with tls_pair() as (transport, peer, _), running(transport):
        transport.write(b"")
        transport.write(b"Hello")
        assert await read_exactly(peer, 5) == b"Hello"


async def test_latest_leaves_before_drain_returns() -> None:
    async with tls_pair() as (transport, peer, _), running(transport):
        transport.write_latest(b"latest")
        assert await transport.drain(0)
        assert await read_exactly(peer, 6) == b"latest"


async def test_drain_waits_for_the_latest_when_less_is_left_of_what_is_before_it() -> None:
    async with tls_pair() as (transport, peer, _), running(transport), create_task_group() as tg:
        transport.write(bytes(200_000))
        await settle()
        stuck = transport.write_buffer_size
        assert stuck > 0
        transport.write_latest(b"latest")
        with anyio.move_on_after(1):
            pytest.fail(f"drain() gave {await transport.drain(stuck)}")
        tg.start_soon(read_exactly, peer, 200_006)
        assert await transport.drain(stuck)


async def test_peer_is_told_once_when_the_transport_is_closed_as_its_half_ends() -> None:
    async with tls_pair() as (transport, peer, _), running(transport):
        transport.write(b"last")
        transport.write_eof()
        await transport.aclose()
        assert await read_until_end(peer) == b"last"
