"""Owns the proof that our client gets through microsocks, with a password and without."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

import anyws
from tests.counterparts.programs import HOST, free_port, running_server
from tests.interop.dialogues import NOISE
from tests.sockets import LIMIT, serving
from tests.tls import client_context, server_context

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.interop, pytest.mark.counterpart]

schemes = pytest.mark.parametrize("scheme", ["socks5", "socks5h"])

# RFC 1928 section 6.
CONNECTION_REFUSED = 5


@contextmanager
def running_microsocks(folder: Path, *arguments: str) -> Generator[int, None, None]:
    """Run it; give its port."""
    port = free_port()
    command = ["microsocks", "-i", HOST, "-p", str(port), *arguments]
    with running_server(command, port, folder / "microsocks.log"):
        yield port


def targets(folder: Path) -> list[str]:
    """Say what it was asked for."""
    lines = (folder / "microsocks.log").read_text().splitlines()
    return [line.partition("connected to ")[2] for line in lines if "connected to " in line]


async def exchange(ws: anyws.Connection) -> None:
    for message in ("hello", "", NOISE):
        await ws.send(message)
        assert await ws.recv() == message
    await ws.close(4000, "bis später")
    assert (ws.close_code, ws.close_reason) == (4000, "bis später")


@schemes
@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("password", [None, "p@ss:w%rd"], ids=["open", "password"])
async def test_connection_goes_through(
    tmp_path: Path, scheme: str, tls: bool, password: str | None
) -> None:
    arguments = [] if password is None else ["-u", "us", "-P", password]
    user_info = "" if password is None else "us:p%40ss%3Aw%25rd@"
    context = server_context() if tls else None
    with running_microsocks(tmp_path, *arguments) as port:
        async with (
            serving(ssl=context) as server,
            anyws.connect(
                f"{'wss' if tls else 'ws'}://localhost:{server.port}/",
                ssl=client_context() if tls else None,
                proxy=f"{scheme}://{user_info}{HOST}:{port}",
            ) as ws,
        ):
            await exchange(ws)
        # With socks5h the name is resolved by the proxy, with socks5 by us.
        (target,) = targets(tmp_path)
    assert target == f"{'localhost' if scheme == 'socks5h' else HOST}:{server.port}"


@schemes
@pytest.mark.parametrize("user_info", ["", "us:swordfish@", "other:secret@"])
async def test_wrong_password_is_a_proxyerror(tmp_path: Path, scheme: str, user_info: str) -> None:
    with running_microsocks(tmp_path, "-u", "us", "-P", "secret") as port:
        with anyio.fail_after(LIMIT), pytest.raises(anyws.ProxyError) as raised:
            async with anyws.connect(
                f"ws://{HOST}:{free_port()}/", proxy=f"{scheme}://{user_info}{HOST}:{port}"
            ):
                pass
    assert raised.value.response is None
    assert "swordfish" not in str(raised.value)
    assert not anyws.default_retry(raised.value)


@schemes
async def test_target_that_refuses_is_a_proxyerror_with_the_reply(
    tmp_path: Path, scheme: str
) -> None:
    with running_microsocks(tmp_path) as port:
        with anyio.fail_after(LIMIT), pytest.raises(anyws.ProxyError) as raised:
            async with anyws.connect(
                f"ws://{HOST}:{free_port()}/", proxy=f"{scheme}://{HOST}:{port}"
            ):
                pass
    assert raised.value.reply == CONNECTION_REFUSED
    assert anyws.default_retry(raised.value)


async def test_redirects_go_through_the_proxy(tmp_path: Path) -> None:
    def see(request: anyws.Request) -> anyws.Response | None:
        if request.path == "/old":
            return request.respond(308, "", {"Location": f"ws://localhost:{other.port}/new"})
        return None

    with running_microsocks(tmp_path) as port:
        async with (
            serving() as other,
            serving(process_request=see) as server,
            anyws.connect(
                f"ws://localhost:{server.port}/old", proxy=f"socks5h://{HOST}:{port}"
            ) as ws,
        ):
            assert ws.path == "/new"
            await exchange(ws)
        assert targets(tmp_path) == [f"localhost:{it.port}" for it in (server, other)]


async def test_proxy_of_the_environment_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "https_proxy", "http_proxy", "ws_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with running_microsocks(tmp_path) as port:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://{HOST}:{port}")
        async with (
            serving() as server,
            anyws.connect(f"ws://localhost:{server.port}/") as ws,
        ):
            await exchange(ws)
        assert targets(tmp_path) == [f"localhost:{server.port}"]


async def test_proxy_that_is_down_is_an_oserror() -> None:
    with anyio.fail_after(LIMIT), pytest.raises(OSError, match="Connect"):
        async with anyws.connect("ws://localhost/", proxy=f"socks5h://{HOST}:{free_port()}"):
            pass


async def test_abort_passes(tmp_path: Path) -> None:
    over = anyio.Event()

    async def handler(ws: anyws.Connection) -> None:
        await ws.wait_closed()
        assert ws.close_code == 1006
        over.set()

    with running_microsocks(tmp_path) as port:
        async with serving(handler, handler_errors="raise") as server:
            uri = f"ws://{HOST}:{server.port}/"
            async with anyws.connect(uri, proxy=f"socks5://{HOST}:{port}") as ws:
                ws.abort()
            await over.wait()
