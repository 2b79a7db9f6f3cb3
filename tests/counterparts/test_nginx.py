"""Owns the proof that our server and our client work with nginx between them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import anyws
from tests.counterparts.fronts import IDLE_TIMEOUT, Fronts, Place
from tests.counterparts.programs import HOST, running_server

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.interop, pytest.mark.counterpart]

# As the README of every WebSocket library has it, but for files of its own.
CONFIGURATION = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' close;
    }}
    server {{
        listen {host}:{port} {tls};
        location / {{
            proxy_pass http://{host}:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            {passed_host}
            proxy_read_timeout {idle}s;
        }}
    }}
}}
"""


class TestFront(Fronts):
    unavailable = 502

    @contextmanager
    def run(self, place: Place) -> Generator[None, None, None]:
        tls = ""
        if place.certificate is not None:
            tls = (
                f"ssl; ssl_certificate {place.certificate}; ssl_certificate_key {place.certificate}"
            )
        file = place.folder / "nginx.conf"
        file.write_text(
            CONFIGURATION.format(
                # The workers of root would be another user's, who may not read the folder.
                user="user root;" if os.geteuid() == 0 else "",
                folder=place.folder,
                host=HOST,
                port=place.port,
                upstream=place.upstream,
                tls=tls,
                passed_host="proxy_set_header Host $host;" if place.passes_host else "",
                idle=IDLE_TIMEOUT,
            )
        )
        command = ["nginx", "-p", str(place.folder), "-c", str(file), "-e", "stderr"]
        with running_server(command, place.port, place.folder / "nginx.log"):
            yield

    async def test_refusal_says_how_to_allow_an_origin_when_the_host_is_not_passed(
        self, tmp_path: Path
    ) -> None:
        async with self.site(tmp_path, passes_host=False) as uri:
            with pytest.raises(anyws.InvalidStatus) as raised:
                async with anyws.connect(uri, origin="http://localhost"):
                    pass
        response = raised.value.response
        assert response.status == 403
        assert b"add 'http://localhost' to the server's origins argument" in response.body

    async def test_origin_that_was_added_may_connect_when_the_host_is_not_passed(
        self, tmp_path: Path
    ) -> None:
        async with (
            self.site(tmp_path, passes_host=False, origins=["http://localhost"]) as uri,
            anyws.connect(uri, origin="http://localhost") as ws,
        ):
            await ws.send("hello")
            assert await ws.recv() == "hello"
