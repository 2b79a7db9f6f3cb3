"""Owns the proof that our server and our client work with nginx between them."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import anyws
from tests.counterparts.fronts import IDLE_TIMEOUT, Fronts, Place
from tests.counterparts.programs import HOST, free_port, running_server
from tests.sockets import serving

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

pytestmark = [pytest.mark.anyio, pytest.mark.interop, pytest.mark.counterpart]

ROOT = Path(__file__).parents[2]

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
        {location}
    }}
}}
"""

# Plain requests, such as those for a page, go through it too.
LOCATION = """
location / {{
    proxy_pass http://{host}:{upstream};
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    {passed_host}
    proxy_read_timeout {idle}s;
}}
"""


def location_for(place: Place) -> str:
    return LOCATION.format(
        host=HOST,
        upstream=place.upstream,
        passed_host="proxy_set_header Host $host;" if place.passes_host else "",
        idle=IDLE_TIMEOUT,
    )


def location_of_the_readme(place: Place) -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (location,) = re.findall(r"^```nginx\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert isinstance(location, str)
    return location.replace(":8765;", f":{place.upstream};")


@contextmanager
def running_nginx(place: Place, location: str) -> Generator[None, None, None]:
    """Run it until the block is left."""
    tls = ""
    if place.certificate is not None:
        file = place.certificate
        tls = f"ssl; ssl_certificate {file}; ssl_certificate_key {file}"
    file = place.folder / "nginx.conf"
    file.write_text(
        CONFIGURATION.format(
            # The workers of root would be another user's, who may not read the folder.
            user="user root;" if os.geteuid() == 0 else "",
            folder=place.folder,
            host=HOST,
            port=place.port,
            tls=tls,
            location=location,
        )
    )
    command = ["nginx", "-p", str(place.folder), "-c", str(file), "-e", "stderr"]
    with running_server(command, place.port, place.folder / "nginx.log"):
        yield


class TestFront(Fronts):
    unavailable = 502

    def run(self, place: Place) -> AbstractContextManager[None]:
        return running_nginx(place, location_for(place))

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


async def test_configuration_of_the_readme_lets_a_page_of_the_same_host_connect(
    tmp_path: Path,
) -> None:
    async with serving() as server:
        place = Place(tmp_path, free_port(), server.port)
        with running_nginx(place, location_of_the_readme(place)):
            uri = f"ws://localhost:{place.port}/chat"
            async with anyws.connect(uri, origin="http://localhost") as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
