"""What a WebSocket must bear with a reverse proxy in front of our server.

Owns the tests that are the same for every such proxy; a class that inherits them says which it is
and how it is configured.
"""

from __future__ import annotations

import abc
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import anyws
from tests.counterparts.programs import HOST, free_port
from tests.interop.dialogues import FRAGMENTS, LIMIT, MESSAGES, NOISE
from tests.sockets import echo
from tests.tls import AUTHORITY, client_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

IDLE_TIMEOUT = 1
"""Seconds after which the proxy drops a connection on which nothing was sent."""

# Seconds between Pings that keep it open, and for how long it is watched.
_PING_INTERVAL = 0.25
_WATCHED = 2.5 * IDLE_TIMEOUT


@dataclass(frozen=True)
class Place:
    """What a front is configured with.

    Args:
        folder: for its files.
        port: where it listens.
        upstream: the port of our server.
        certificate: a file with its chain and its key; None serves without TLS.
        passes_host: whether our server sees the Host that the client has sent.
    """

    folder: Path
    port: int
    upstream: int
    certificate: Path | None = None
    passes_host: bool = True


class Fronts(abc.ABC):
    """Tests of a client and a server of ours with a reverse proxy between them."""

    unavailable: int
    """The status that it answers with when our server is down."""

    @abc.abstractmethod
    def run(self, place: Place) -> AbstractContextManager[None]:
        """Run the proxy until the block is left."""

    @asynccontextmanager
    async def site(
        self,
        folder: Path,
        handler: Callable[[anyws.Connection], Awaitable[None]] = echo,
        *,
        tls: bool = False,
        passes_host: bool = True,
        **arguments: Any,
    ) -> AsyncGenerator[str, None]:
        """Run our server, with arguments of `serve`, and the proxy; give the URI to connect to."""
        certificate = None
        if tls:
            certificate = folder / "front.pem"
            AUTHORITY.issue_cert("localhost", HOST).private_key_and_cert_chain_pem.write_to_path(
                certificate
            )
        with anyio.fail_after(LIMIT):
            async with anyws.serve(handler, HOST, **arguments) as server:
                place = Place(folder, free_port(), server.port, certificate, passes_host)
                with self.run(place):
                    yield f"{'wss' if tls else 'ws'}://localhost:{place.port}/"

    # Messages.

    @pytest.mark.parametrize("message", MESSAGES)
    async def test_message_comes_back(self, tmp_path: Path, message: str | bytes) -> None:
        async with self.site(tmp_path) as uri, anyws.connect(uri) as ws:
            await ws.send(message)
            assert await ws.recv() == message

    @pytest.mark.parametrize("fragments", FRAGMENTS)
    async def test_fragments_come_back_as_one_message(
        self, tmp_path: Path, fragments: list[str] | list[bytes]
    ) -> None:
        async with self.site(tmp_path) as uri, anyws.connect(uri) as ws:
            await ws.send(fragments)
            assert await ws.recv() == type(fragments[0])().join(fragments)  # type: ignore[arg-type]  # one of the two

    async def test_large_messages_pass_each_other(self, tmp_path: Path) -> None:
        async def give(ws: anyws.Connection) -> None:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(ws.send, NOISE)
                assert await ws.recv() == NOISE

        async with (
            self.site(tmp_path, give, handler_errors="raise") as uri,
            anyws.connect(uri) as ws,
            anyio.create_task_group() as task_group,
        ):
            task_group.start_soon(ws.send, NOISE)
            assert await ws.recv() == NOISE

    async def test_message_larger_than_what_all_buffers_hold_comes_back(
        self, tmp_path: Path
    ) -> None:
        size = 16 * 2**20
        async with (
            self.site(tmp_path, max_size=size) as uri,
            anyws.connect(uri, max_size=size, compression=None) as ws,
        ):
            await ws.send(b"\0" * size)
            message = await ws.recv()
        assert message == b"\0" * size

    async def test_compression_is_between_the_two_ends(self, tmp_path: Path) -> None:
        async with self.site(tmp_path) as uri, anyws.connect(uri) as ws:
            assert [extension.name for extension in ws.extensions] == ["permessage-deflate"]
            for _ in range(3):
                await ws.send("the same words " * 1000, compress=True)
                assert await ws.recv() == "the same words " * 1000

    async def test_what_follows_the_handshake_at_once_is_not_lost(self, tmp_path: Path) -> None:
        async def greet(ws: anyws.Connection) -> None:
            await ws.send("hello")
            await ws.wait_closed()

        async with self.site(tmp_path, greet) as uri:
            for _ in range(20):
                async with anyws.connect(uri) as ws:
                    assert await ws.recv() == "hello"

    async def test_subprotocol_is_agreed_on(self, tmp_path: Path) -> None:
        async with (
            self.site(tmp_path, subprotocols=["chat.v2", "chat.v1"]) as uri,
            anyws.connect(uri, subprotocols=["chat.v1", "chat.v0"]) as ws,
        ):
            assert ws.subprotocol == "chat.v1"

    # The end.

    async def test_close_codes_and_reasons_pass(self, tmp_path: Path) -> None:
        ends: list[tuple[int | None, str | None]] = []

        async def handler(ws: anyws.Connection) -> None:
            if ws.path == "/ours":
                await ws.close(4001, "bis später")
            await ws.wait_closed()
            ends.append((ws.close_code, ws.close_reason))

        async with self.site(tmp_path, handler) as uri:
            async with anyws.connect(f"{uri}theirs") as ws:
                await ws.close(4002, "adieu")
            async with anyws.connect(f"{uri}ours") as ws:
                await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (4001, "bis später")
        assert ends == [(4002, "adieu"), (4001, "bis später")]

    async def test_client_that_breaks_off_is_seen_by_the_server(self, tmp_path: Path) -> None:
        over = anyio.Event()

        async def handler(ws: anyws.Connection) -> None:
            await ws.wait_closed()
            assert ws.close_code == 1006
            over.set()

        async with self.site(tmp_path, handler, handler_errors="raise") as uri:
            async with anyws.connect(uri) as ws:
                ws.abort()
            await over.wait()

    async def test_server_that_breaks_off_is_seen_by_the_client(self, tmp_path: Path) -> None:
        async def handler(ws: anyws.Connection) -> None:
            ws.abort()

        async with self.site(tmp_path, handler) as uri, anyws.connect(uri) as ws:
            with pytest.raises(anyws.ConnectionClosedError) as raised:
                await ws.recv()
        assert raised.value.rcvd is None
        assert ws.close_code == 1006

    async def test_server_that_is_closed_tells_its_clients(self, tmp_path: Path) -> None:
        with anyio.fail_after(LIMIT):
            async with anyws.serve(echo, HOST) as server:
                place = Place(tmp_path, free_port(), server.port)
                with self.run(place):
                    async with anyws.connect(f"ws://{HOST}:{place.port}/") as ws:
                        await ws.send("hello")
                        assert await ws.recv() == "hello"
                        await server.close(1012, "back soon")
                        await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (1012, "back soon")

    # Its idle time-out.

    async def test_idle_connection_ends_on_both_sides_when_nobody_pings(
        self, tmp_path: Path
    ) -> None:
        errors: list[anyws.ConnectionClosed] = []
        over = anyio.Event()

        async def handler(ws: anyws.Connection) -> None:
            try:
                await ws.recv()
            except anyws.ConnectionClosed as exc:
                errors.append(exc)
            over.set()

        async with self.site(tmp_path, handler, ping_interval=None) as uri:
            async with anyws.connect(uri, ping_interval=None) as ws:
                with pytest.raises(anyws.ConnectionClosedError) as raised:
                    await ws.recv()
            await over.wait()
        for error in (raised.value, *errors):
            assert type(error) is anyws.ConnectionClosedError
            assert (error.rcvd, error.code) == (None, 1006)
        assert len(errors) == 1

    @pytest.mark.parametrize("pinging", ["client", "server"])
    async def test_keepalive_of_either_side_keeps_an_idle_connection_open(
        self, tmp_path: Path, pinging: str
    ) -> None:
        ours, theirs = (_PING_INTERVAL if pinging == it else None for it in ("client", "server"))
        async with (
            self.site(tmp_path, ping_interval=theirs) as uri,
            anyws.connect(uri, ping_interval=ours) as ws,
        ):
            with anyio.move_on_after(_WATCHED) as watched:
                await ws.wait_closed()
            assert watched.cancelled_caught
            await ws.send("still here")
            assert await ws.recv() == "still here"

    # What is not a WebSocket.

    async def test_server_that_is_down_is_an_invalidstatus_with_the_body(
        self, tmp_path: Path
    ) -> None:
        place = Place(tmp_path, free_port(), free_port())
        with anyio.fail_after(LIMIT), self.run(place):
            with pytest.raises(anyws.InvalidStatus) as raised:
                async with anyws.connect(f"ws://{HOST}:{place.port}/"):
                    pass
        response = raised.value.response
        assert response.status == self.unavailable
        assert b"</html>" in response.body
        assert anyws.default_retry(raised.value)

    async def test_reconnect_comes_back_when_the_server_does(self, tmp_path: Path) -> None:
        upstream = free_port()
        place = Place(tmp_path, free_port(), upstream)
        backoff = anyws.Backoff(initial=0.02, max=0.05)
        with anyio.fail_after(LIMIT), self.run(place):
            uri = f"ws://{HOST}:{place.port}/"
            async with anyio.create_task_group() as task_group:
                failed = anyio.Event()

                def retry(exc: Exception) -> bool:
                    failed.set()
                    return anyws.default_retry(exc)

                async def come_up() -> None:
                    await failed.wait()
                    await anyws.serve_forever(echo, HOST, upstream)

                task_group.start_soon(come_up)
                async with anyws.reconnect(uri, backoff=backoff, retry=retry) as session:
                    async for ws in session:
                        await ws.send("hello")
                        assert await ws.recv() == "hello"
                        break
                    assert isinstance(session.last_error, anyws.InvalidStatus)
                task_group.cancel_scope.cancel()

    async def test_answer_of_a_hook_passes_with_its_body(self, tmp_path: Path) -> None:
        def refuse(request: anyws.Request) -> anyws.Response:
            return request.respond(401, "who are you?\n", {"WWW-Authenticate": 'Basic realm="x"'})

        async with self.site(tmp_path, process_request=refuse) as uri:
            with pytest.raises(anyws.InvalidStatus) as raised:
                async with anyws.connect(uri):
                    pass
        response = raised.value.response
        assert (response.status, response.body) == (401, b"who are you?\n")
        assert response.headers["WWW-Authenticate"] == 'Basic realm="x"'

    # TLS, the host and the origin.

    async def test_tls_ends_at_the_front(self, tmp_path: Path) -> None:
        async with (
            self.site(tmp_path, tls=True) as uri,
            anyws.connect(uri, ssl=client_context()) as ws,
        ):
            for message in ("hello", NOISE):
                await ws.send(message)
                assert await ws.recv() == message
            await ws.close(1000, "adieu")
        assert (ws.close_code, ws.close_reason) == (1000, "adieu")

    async def test_idle_connection_over_tls_ends_when_nobody_pings(self, tmp_path: Path) -> None:
        async with (
            self.site(tmp_path, tls=True, ping_interval=None) as uri,
            anyws.connect(uri, ssl=client_context(), ping_interval=None) as ws,
        ):
            with pytest.raises(anyws.ConnectionClosedError) as raised:
                await ws.recv()
        assert (raised.value.rcvd, raised.value.code) == (None, 1006)

    async def test_page_of_the_same_host_may_connect_when_the_host_is_passed(
        self, tmp_path: Path
    ) -> None:
        seen: list[anyws.Request] = []

        async def handler(ws: anyws.Connection) -> None:
            seen.append(ws.request)

        async with self.site(tmp_path, handler) as uri:
            async with anyws.connect(uri, origin="http://localhost") as ws:
                await ws.wait_closed()
            assert ws.close_code == 1000
        (request,) = seen
        assert request.headers["Host"].startswith("localhost")
        assert request.origin == "http://localhost"
        assert request.headers["X-Forwarded-For"] == HOST

    async def test_page_of_another_host_is_refused(self, tmp_path: Path) -> None:
        async with self.site(tmp_path) as uri:
            with pytest.raises(anyws.InvalidStatus) as raised:
                async with anyws.connect(uri, origin="http://evil.example"):
                    pass
        response = raised.value.response
        assert response.status == 403
        assert b"evil.example" in response.body
