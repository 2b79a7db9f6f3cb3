"""TLS under a connection: who is trusted, and what is no TLS at all."""

from __future__ import annotations

import logging
import socket
import ssl
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute, TLSListener, TLSStream

import anyws
from anyws.testing import MemoryListener, memory_stream_pair
from tests.sockets import (
    echo,
    loud_records,
    parse_answer,
    raw_client,
    serving,
)
from tests.tls import AUTHORITY, STRANGER, client_context, server_context, tls_peer, tls_server
from tests.wire import MASK, REQUEST, TEXT, Peer, frame

if TYPE_CHECKING:
    from pathlib import Path

    import trustme

pytestmark = pytest.mark.anyio

# Who is trusted.


async def test_connection_over_tls_works() -> None:
    async with serving(ssl=server_context()) as server:
        uri = f"wss://localhost:{server.port}/"
        async with anyws.connect(uri, ssl=client_context()) as ws:
            assert ws.extra(TLSAttribute.tls_version) == "TLSv1.3"
            for message in ("hello", b"x" * 300_000):
                await ws.send(message)
                assert await ws.recv() == message
        assert ws.close_code == 1000


async def test_name_of_the_certificate_may_be_an_address() -> None:
    async with serving(ssl=server_context()) as server:
        async with anyws.connect(f"wss://127.0.0.1:{server.port}/", ssl=client_context()) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


async def test_certificate_of_an_unknown_authority_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(ssl=server_context(by=STRANGER)) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
            async with anyws.connect(f"wss://localhost:{server.port}/", ssl=client_context()):
                raise AssertionError
    assert loud_records(caplog) == []


async def test_default_context_trusts_no_unknown_authority() -> None:
    async with serving(ssl=server_context()) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with anyws.connect(f"wss://localhost:{server.port}/"):
                raise AssertionError


async def test_default_context_checks_certificate_and_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    bundle = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))  # what OpenSSL takes for the system's
    async with serving(ssl=server_context("localhost")) as server:
        async with anyws.connect(f"wss://localhost:{server.port}/") as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
        with pytest.raises(ssl.SSLCertVerificationError, match=r"127\.0\.0\.1"):
            async with anyws.connect(f"wss://127.0.0.1:{server.port}/"):
                raise AssertionError


async def test_wrong_host_name_is_refused() -> None:
    async with serving(ssl=server_context("other.example")) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            async with anyws.connect(f"wss://localhost:{server.port}/", ssl=client_context()):
                raise AssertionError


async def test_server_hostname_takes_the_place_of_the_host() -> None:
    async with serving(ssl=server_context("other.example")) as server:
        async with anyws.connect(
            f"wss://localhost:{server.port}/",
            ssl=client_context(),
            server_hostname="other.example",
        ) as ws:
            assert ws.request.headers["Host"] == f"localhost:{server.port}"


async def test_server_hostname_is_sent_as_sni() -> None:
    names: list[str | None] = []
    context = server_context("other.example")
    context.sni_callback = lambda _obj, name, _context: names.append(name)
    async with serving(ssl=context) as server:
        async with anyws.connect(
            f"wss://localhost:{server.port}/",
            ssl=client_context(),
            server_hostname="other.example",
        ):
            pass
    assert names == ["other.example"]


async def test_name_of_the_server_has_no_dot_at_its_end() -> None:
    names: list[str | None] = []
    context = server_context()
    context.sni_callback = lambda _obj, name, _context: names.append(name)
    async with serving(ssl=context) as server:
        stream = await anyio.connect_tcp("localhost", server.port)
        async with anyws.connect("wss://localhost./", stream=stream, ssl=client_context()) as ws:
            assert ws.request.headers["Host"] == "localhost."
    assert names == ["localhost"]


async def test_server_hostname_that_cannot_be_one_is_a_valueerror() -> None:
    async with serving(ssl=server_context()) as server:
        with pytest.raises(ValueError, match=r"server_hostname|label"):
            async with anyws.connect(
                f"wss://localhost:{server.port}/",
                ssl=client_context(),
                server_hostname=".example",
            ):
                raise AssertionError


async def test_client_certificate_reaches_the_server() -> None:
    found: list[Any] = []

    async def handler(ws: anyws.Connection) -> None:
        found.append(ws.extra(TLSAttribute.peer_certificate))

    def process_request(request: anyws.Request) -> None:
        found.append(request.extra(TLSAttribute.peer_certificate, None))

    theirs, ours = server_context(), client_context()
    AUTHORITY.configure_trust(theirs)
    theirs.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.issue_cert("alice@example.com").configure_cert(ours)
    async with serving(handler, ssl=theirs, process_request=process_request) as server:
        async with anyws.connect(f"wss://localhost:{server.port}/", ssl=ours) as ws:
            assert [message async for message in ws] == []
    assert found[0]["subjectAltName"] == (("email", "alice@example.com"),)
    assert found == found[:1] * 2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("issuer", [None, STRANGER], ids=["none", "unknown"])
async def test_missing_or_unknown_client_certificate_is_refused(
    version: ssl.TLSVersion, issuer: trustme.CA | None, caplog: pytest.LogCaptureFixture
) -> None:
    theirs, ours = server_context(), client_context()
    AUTHORITY.configure_trust(theirs)
    theirs.verify_mode = ssl.CERT_REQUIRED
    theirs.maximum_version = version
    if issuer is not None:
        issuer.issue_cert("mallory@example.com").configure_cert(ours)
    async with serving(ssl=theirs) as server:
        # In TLS 1.3 a client has done its part before it can be refused.
        with pytest.raises((OSError, anyws.InvalidHandshake)):
            async with anyws.connect(f"wss://localhost:{server.port}/", ssl=ours):
                raise AssertionError
    assert loud_records(caplog) == []


@pytest.mark.virtual_time
async def test_client_certificate_that_is_missed_behind_the_tls_handshake_is_an_sslerror() -> None:
    # In TLS 1.3 the client has done its part by then, and waits for the answer to its request.
    theirs = server_context()
    AUTHORITY.configure_trust(theirs)
    theirs.verify_mode = ssl.CERT_REQUIRED
    theirs.minimum_version = ssl.TLSVersion.TLSv1_3
    near, far = memory_stream_pair()

    async def refuse() -> None:
        with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
            async with anyws.wrap_server(far, ssl=theirs):
                raise AssertionError

    async with anyio.create_task_group() as tg:
        tg.start_soon(refuse)
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            async with anyws.wrap_client(near, "wss://localhost/", ssl=client_context()):
                raise AssertionError


async def test_tls_versions_without_a_common_one_are_an_sslerror(
    caplog: pytest.LogCaptureFixture,
) -> None:
    theirs, ours = server_context(), client_context()
    theirs.minimum_version = ssl.TLSVersion.TLSv1_3
    ours.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(ssl=theirs) as server:
        with pytest.raises(OSError, match=r"."):
            async with anyws.connect(f"wss://localhost:{server.port}/", ssl=ours):
                raise AssertionError
    assert loud_records(caplog) == []


# What is no TLS.


@pytest.mark.behaviour(91)
async def test_plain_http_to_a_tls_port_is_dropped_without_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "anyws.server")
    async with serving(ssl=server_context()) as server:
        async with raw_client(server.port) as peer:
            await peer.send_bytes(REQUEST + b"\r\n")
            assert b"HTTP/1.1" not in await peer.read_until_eof()
        async with anyws.connect(f"wss://localhost:{server.port}/", ssl=client_context()) as ws:
            await ws.send("still here")
            assert await ws.recv() == "still here"
    assert loud_records(caplog) == []
    assert any("opening handshake failed: SSLError" in text for text in caplog.messages)


async def test_plain_client_of_a_tls_port_gets_an_error_that_names_wss() -> None:
    async with serving(ssl=server_context()) as server:
        with pytest.raises(anyws.InvalidMessage) as caught:
            async with anyws.connect(f"ws://localhost:{server.port}/"):
                raise AssertionError
    assert caught.value.__notes__ == ["nothing came; if TLS is spoken there, wss:// asks for it"]


@pytest.mark.behaviour(91, 104)
async def test_tls_client_of_a_plain_port_gets_an_sslerror_that_names_ws(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as server:
        with pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER") as caught:
            async with anyws.connect(f"wss://localhost:{server.port}/", ssl=client_context()):
                raise AssertionError
    assert caught.value.__notes__ == [
        "no TLS is spoken there; ws:// and, for a proxy, http:// do without"
    ]
    assert loud_records(caplog) == []


@pytest.mark.behaviour(91)
async def test_client_that_leaves_during_the_tls_handshake_is_not_worth_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(ssl=server_context()) as server:
        for data in (b"", b"\x16\x03\x01\x02\x00\x01"):
            async with raw_client(server.port) as peer:
                if data:
                    await peer.send_bytes(data)
                await peer.stream.send_eof()
                await peer.read_until_eof()
    assert loud_records(caplog) == []


async def test_server_that_leaves_during_the_tls_handshake_is_an_oserror() -> None:
    near, far = memory_stream_pair()
    await far.aclose()
    with pytest.raises(ConnectionResetError, match="connection lost during the TLS handshake"):
        async with anyws.wrap_client(near, "wss://localhost/", ssl=client_context()):
            raise AssertionError


@pytest.mark.virtual_time
@pytest.mark.behaviour(98)
async def test_silent_client_of_a_tls_port_is_dropped_after_open_timeout() -> None:
    listener = MemoryListener()
    async with anyws.serve(echo, listeners=[listener], ssl=server_context(), open_timeout=3):
        peer = Peer(await listener.connect(), masks=True)
        started_at = anyio.current_time()
        assert await peer.read_until_eof() == b""
        assert anyio.current_time() - started_at == pytest.approx(3)


@pytest.mark.virtual_time
@pytest.mark.behaviour(97)
async def test_half_open_tls_handshake_is_dropped_when_the_server_closes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = MemoryListener()
    async with anyws.serve(echo, listeners=[listener], ssl=server_context()) as server:
        peer = Peer(await listener.connect(), masks=True)
        await anyio.sleep(1)
        started_at = anyio.current_time()
        await server.close()
        assert anyio.current_time() - started_at < 2
        assert await peer.read_until_eof() == b""
    assert loud_records(caplog) == []


@pytest.mark.virtual_time
@pytest.mark.behaviour(107)
async def test_silent_server_is_a_timeouterror_during_the_tls_handshake() -> None:
    near, far = memory_stream_pair()
    with pytest.raises(TimeoutError, match=r"no connection to wss://localhost/ after 3 seconds"):
        async with anyws.wrap_client(
            near, "wss://localhost/", ssl=client_context(), open_timeout=3
        ):
            raise AssertionError
    assert (await far.receive())[:1] == b"\x16"
    with pytest.raises(anyio.EndOfStream):
        await far.receive()


# Handshakes inside it.


@pytest.mark.behaviour(104)
async def test_refusal_over_tls_arrives_whole_and_ends_in_peace() -> None:
    async with serving(ssl=server_context()) as server:
        peer = await tls_peer(server.port)
        await peer.send_bytes(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        # An end without close_notify would be a BrokenResourceError.
        answer = parse_answer(await peer.read_until_eof())
        await peer.finish()
    assert answer.status == 426
    assert answer.fields["content-length"] == str(len(answer.body))


@pytest.mark.behaviour(97)
async def test_half_open_handshake_over_tls_gets_503() -> None:
    asked = anyio.Event()

    async def hang(request: anyws.Request) -> None:
        asked.set()
        await anyio.sleep_forever()

    async with serving(ssl=server_context(), process_request=hang) as server:
        peer = await tls_peer(server.port)
        await peer.send_bytes(REQUEST + b"\r\n")
        await asked.wait()
        async with anyio.create_task_group() as tg:
            tg.start_soon(server.close)
            answer = parse_answer(await peer.read_until_eof())
            await peer.finish()
    assert answer.status == 503


@pytest.mark.behaviour(105)
async def test_frame_in_the_same_record_as_the_request_is_delivered() -> None:
    async with serving(ssl=server_context()) as server:
        peer = await tls_peer(server.port)
        await peer.send_bytes(REQUEST + b"\r\n" + frame(TEXT, b"early", mask=MASK))
        assert (await peer.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert (await peer.read_frame()).payload == b"early"
        await peer.send_close()
        await peer.read_until_eof()
        await peer.finish()


@pytest.mark.behaviour(107)
async def test_refusal_of_a_server_that_cuts_tls_off_is_still_an_invalidstatus() -> None:
    async def script(stream: TLSStream) -> None:
        await Peer(stream, masks=False).read_until(b"\r\n\r\n")
        await stream.send(b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nwhy")
        await anyio.aclose_forcefully(stream)

    async with tls_server(script) as port:
        with pytest.raises(anyws.InvalidStatus) as caught:
            async with anyws.connect(f"wss://localhost:{port}/", ssl=client_context()):
                raise AssertionError
    assert caught.value.response.body == b"why"


async def test_listener_of_the_caller_may_speak_tls() -> None:
    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = plain.extra(SocketAttribute.local_port)
    async with serving(listeners=[TLSListener(plain, server_context())]):
        async with anyws.connect(f"wss://localhost:{port}/", ssl=client_context()) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


async def test_port_of_a_listener_of_the_caller_that_speaks_tls_is_known() -> None:
    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = plain.extra(SocketAttribute.local_port)
    async with serving(listeners=[TLSListener(plain, server_context())]) as server:
        assert server.port == port
        assert server.addresses == [("127.0.0.1", port)]


@pytest.mark.virtual_time
async def test_connection_runs_over_tls_in_tls() -> None:
    near, far = memory_stream_pair()

    async def serve() -> None:
        outer = await TLSStream.wrap(far, server_side=True, ssl_context=server_context())
        async with anyws.wrap_server(outer, ssl=server_context()) as ws:
            await echo(ws)

    async with anyio.create_task_group() as tg:
        tg.start_soon(serve)
        outer = await TLSStream.wrap(near, hostname="localhost", ssl_context=client_context())
        async with anyws.wrap_client(outer, "wss://localhost/", ssl=client_context()) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


@pytest.mark.virtual_time
async def test_stream_with_a_wss_uri_gets_no_tls_unless_ssl_is_given() -> None:
    near, far = memory_stream_pair()

    async def serve() -> None:
        head = await Peer(far, masks=False).read_until(b"\r\n\r\n")
        assert b"\r\nHost: example.com\r\n" in head
        await far.aclose()

    async with anyio.create_task_group() as tg:
        tg.start_soon(serve)
        with pytest.raises(anyws.InvalidMessage):
            async with anyws.connect("wss://example.com/", stream=near):
                raise AssertionError


async def test_nothing_is_opened_when_the_default_context_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "no" / "such" / "file"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        with pytest.raises(FileNotFoundError):
            async with anyws.connect(f"wss://127.0.0.1:{listener.getsockname()[1]}/", proxy=None):
                pass
        with pytest.raises(BlockingIOError):
            listener.accept()
