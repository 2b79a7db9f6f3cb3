"""Owns the proof that our client gets through tinyproxy, with a password and without."""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

import anyws
from tests.counterparts.programs import HOST, free_port, running_server
from tests.interop.dialogues import NOISE
from tests.sockets import LIMIT, serving
from tests.tls import STRANGER, client_context, server_context

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.interop, pytest.mark.counterpart]

CONFIGURATION = """
User {user}
Port {port}
Listen {host}
PidFile "{folder}/tinyproxy.pid"
LogFile "{folder}/requests.log"
LogLevel Connect
Timeout 30
MaxClients 20
Allow {host}
{more}
"""


@contextmanager
def running_tinyproxy(folder: Path, *lines: str) -> Generator[int, None, None]:
    """Run it; give its port."""
    port = free_port()
    file = folder / "tinyproxy.conf"
    user = pwd.getpwuid(os.geteuid()).pw_name
    more = "\n".join(lines)
    file.write_text(CONFIGURATION.format(user=user, port=port, host=HOST, folder=folder, more=more))
    with running_server(["tinyproxy", "-d", "-c", str(file)], port, folder / "tinyproxy.log"):
        yield port


def tunnels(folder: Path) -> int:
    """Say how many it was asked for."""
    return (folder / "requests.log").read_text().count(": CONNECT ")


async def exchange(ws: anyws.Connection) -> None:
    for message in ("hello", "", NOISE):
        await ws.send(message)
        assert await ws.recv() == message
    await ws.close(4000, "bis später")
    assert (ws.close_code, ws.close_reason) == (4000, "bis später")


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("password", [None, "pa-ss_w0.rd"], ids=["open", "password"])
async def test_connection_goes_through(tmp_path: Path, tls: bool, password: str | None) -> None:
    lines = [] if password is None else [f"BasicAuth us {password}"]
    user_info = "" if password is None else "us:pa-ss_w0%2Erd@"
    context = server_context() if tls else None
    with running_tinyproxy(tmp_path, *lines) as port:
        async with (
            serving(ssl=context) as server,
            anyws.connect(
                f"{'wss' if tls else 'ws'}://localhost:{server.port}/",
                ssl=client_context() if tls else None,
                proxy=f"http://{user_info}{HOST}:{port}",
            ) as ws,
        ):
            await exchange(ws)
        assert tunnels(tmp_path) == 1


async def test_proxy_of_the_environment_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "all_proxy", "http_proxy", "ws_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with running_tinyproxy(tmp_path) as port:
        monkeypatch.setenv("https_proxy", f"http://{HOST}:{port}")
        async with serving() as server:
            uri = f"ws://{HOST}:{server.port}/"
            async with anyws.connect(uri) as ws:
                await exchange(ws)
            assert tunnels(tmp_path) == 1
            monkeypatch.setenv("no_proxy", "127.0.0.0/8")
            async with anyws.connect(uri) as ws:
                await exchange(ws)
            assert tunnels(tmp_path) == 1


# It says 401 where credentials are wrong, though RFC 9110 section 15.5.8 has 407 for that.
@pytest.mark.parametrize(
    ("user_info", "status"), [("", 407), ("us:swordfish@", 401), ("other:secret@", 401)]
)
async def test_wrong_password_is_a_proxyerror(tmp_path: Path, user_info: str, status: int) -> None:
    with running_tinyproxy(tmp_path, "BasicAuth us secret") as port, anyio.fail_after(LIMIT):
        with pytest.raises(anyws.ProxyError) as raised:
            async with anyws.connect(
                f"ws://{HOST}:{free_port()}/", proxy=f"http://{user_info}{HOST}:{port}"
            ):
                pass
        response = raised.value.response
        assert response is not None
        assert response.status == status
        assert b"</html>" in response.body
        assert "swordfish" not in str(raised.value)
        assert not anyws.default_retry(raised.value)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_target_that_refuses_is_a_proxyerror(tmp_path: Path, scheme: str) -> None:
    with running_tinyproxy(tmp_path) as port, anyio.fail_after(LIMIT):
        with pytest.raises(anyws.ProxyError) as raised:
            async with anyws.connect(
                f"{scheme}://{HOST}:{free_port()}/", proxy=f"http://{HOST}:{port}"
            ):
                pass
        response = raised.value.response
        assert response is not None
        assert response.status >= 500
        assert anyws.default_retry(raised.value)


async def test_port_that_the_proxy_forbids_is_a_proxyerror(tmp_path: Path) -> None:
    with running_tinyproxy(tmp_path, "ConnectPort 443") as port:
        async with serving() as server:
            with pytest.raises(anyws.ProxyError) as raised:
                async with anyws.connect(
                    f"ws://{HOST}:{server.port}/", proxy=f"http://{HOST}:{port}"
                ):
                    pass
        response = raised.value.response
        assert response is not None
        assert response.status == 403
        assert not anyws.default_retry(raised.value)


async def test_proxy_that_is_down_is_an_oserror() -> None:
    with anyio.fail_after(LIMIT), pytest.raises(OSError, match="Connect"):
        async with anyws.connect("ws://localhost/", proxy=f"http://{HOST}:{free_port()}"):
            pass


async def test_certificate_is_checked_through_the_proxy(tmp_path: Path) -> None:
    with running_tinyproxy(tmp_path) as port:
        async with serving(ssl=server_context(by=STRANGER)) as server:
            with pytest.raises(OSError, match="certificate verify failed"):
                async with anyws.connect(
                    f"wss://localhost:{server.port}/",
                    ssl=client_context(),
                    proxy=f"http://{HOST}:{port}",
                ):
                    pass


async def test_refusal_of_the_server_is_an_invalidstatus_with_the_body(tmp_path: Path) -> None:
    auth = anyws.basic_auth(credentials=("name", "password"))
    with running_tinyproxy(tmp_path) as port:
        async with serving(process_request=auth) as server:
            with pytest.raises(anyws.InvalidStatus) as raised:
                async with anyws.connect(
                    f"ws://{HOST}:{server.port}/", proxy=f"http://{HOST}:{port}"
                ):
                    pass
    assert raised.value.response.status == 401
    assert raised.value.response.body == b"a name and a password are needed\n"


async def test_redirects_go_through_the_proxy(tmp_path: Path) -> None:
    requests: list[anyws.Request] = []

    def see(request: anyws.Request) -> anyws.Response | None:
        requests.append(request)
        if request.path == "/old":
            return request.respond(307, "", {"Location": "/new"})
        if request.path == "/new":
            return request.respond(307, "", {"Location": f"ws://localhost:{other.port}/there"})
        return None

    with running_tinyproxy(tmp_path, "BasicAuth us secret") as port:
        async with (
            serving(process_request=see) as other,
            serving(process_request=see) as server,
            anyws.connect(
                f"ws://name:password@{HOST}:{server.port}/old",
                proxy=f"http://us:secret@{HOST}:{port}",
            ) as ws,
        ):
            assert ws.path == "/there"
            await exchange(ws)
        assert tunnels(tmp_path) == 3
    assert [request.path for request in requests] == ["/old", "/new", "/there"]
    assert ["Authorization" in request.headers for request in requests] == [True, True, False]
    for request in requests:
        assert "Proxy-Authorization" not in request.headers


async def test_keepalive_and_abort_pass(tmp_path: Path) -> None:
    over = anyio.Event()

    async def handler(ws: anyws.Connection) -> None:
        assert await (await ws.ping()) > 0
        await ws.send("seen")
        await ws.wait_closed()
        assert ws.close_code == 1006
        over.set()

    with running_tinyproxy(tmp_path) as port:
        async with serving(handler, handler_errors="raise") as server:
            uri = f"ws://{HOST}:{server.port}/"
            async with anyws.connect(uri, proxy=f"http://{HOST}:{port}") as ws:
                assert await ws.recv() == "seen"
                ws.abort()
            await over.wait()


async def test_reconnect_comes_back_through_the_proxy(tmp_path: Path) -> None:
    backoff = anyws.Backoff(initial=0.01, max=0.02)

    async def leave(ws: anyws.Connection) -> None:
        await ws.send("hello")

    with running_tinyproxy(tmp_path) as port:
        async with (
            serving(leave) as server,
            anyws.reconnect(
                f"ws://{HOST}:{server.port}/", backoff=backoff, proxy=f"http://{HOST}:{port}"
            ) as session,
        ):
            async for ws in session:
                assert [message async for message in ws] == ["hello"]
                if session.attempts == 5:
                    break
        assert tunnels(tmp_path) == 5
