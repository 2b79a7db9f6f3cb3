"""Owns the proof that our server and our client work with haproxy between them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.counterparts.fronts import IDLE_TIMEOUT, Fronts, Place
from tests.counterparts.programs import HOST, running_server

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = [pytest.mark.anyio, pytest.mark.interop, pytest.mark.counterpart]

CONFIGURATION = """
global
    maxconn 64
defaults
    mode http
    option forwardfor
    retries 0
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    timeout tunnel {idle}s
frontend front
    bind {host}:{port} {tls}
    default_backend ours
backend ours
    server ours {host}:{upstream}
"""


class TestFront(Fronts):
    unavailable = 503

    @contextmanager
    def run(self, place: Place) -> Generator[None, None, None]:
        file = place.folder / "haproxy.cfg"
        file.write_text(
            CONFIGURATION.format(
                host=HOST,
                port=place.port,
                upstream=place.upstream,
                tls="" if place.certificate is None else f"ssl crt {place.certificate}",
                idle=IDLE_TIMEOUT,
            )
        )
        command = ["haproxy", "-db", "-f", str(file)]
        with running_server(command, place.port, place.folder / "haproxy.log"):
            yield
