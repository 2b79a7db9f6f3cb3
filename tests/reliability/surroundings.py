"""Scenarios of the cancellation sweep: what else a block may meet.

Owns names to be resolved, UNIX sockets, streams of users that misbehave, and handlers that fail.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

import anyws
from anyws.testing import FaultyStream, MemoryListener, memory_stream_pair
from tests.blocks import BodyError, echo
from tests.reliability.closing import call_block
from tests.reliability.pairs import MEMORY, Kind, Setting, meet, over
from tests.reliability.sweeping import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.reliability.cutting import Cut
    from tests.reliability.strict import StrictPeer


async def _stays(cut: Cut, ws: anyws.Connection) -> None:
    """Exchange a message."""
    await ws.send("message")
    await ws.recv()


async def _fails(cut: Cut, ws: anyws.Connection) -> None:
    await _stays(cut, ws)
    raise BodyError


# Names and UNIX sockets, both sides of which are ours.


async def _by_name(cut: Cut) -> None:
    async with anyws.serve(echo, "127.0.0.1") as server:
        uri = f"ws://localhost:{server.port}/"
        await call_block(cut, lambda: anyws.connect(uri), _stays, armed=True)


async def _listening_by_name(cut: Cut) -> None:
    async def use(cut: Cut, server: anyws.Server) -> None:
        cut.disarm()
        async with anyws.connect(f"ws://localhost:{server.port}/") as ws:
            await _stays(cut, ws)

    await call_block(cut, lambda: anyws.serve(echo), use, armed=True)


async def _over_unix(cut: Cut) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "socket")
        async with anyws.unix_serve(echo, path):
            await call_block(cut, lambda: anyws.unix_connect(path), _stays, armed=True)


async def _listening_on_unix(cut: Cut) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "socket")

        async def use(cut: Cut, server: anyws.Server) -> None:
            cut.disarm()
            async with anyws.unix_connect(path) as ws:
                await _stays(cut, ws)

        await call_block(cut, lambda: anyws.unix_serve(echo, path), use, armed=True)


async def _serving_forever(cut: Cut) -> None:
    """Cancel the task that serves, and see that its clients have seen its end."""

    async def serve(listener: MemoryListener) -> None:
        async with anyio.create_task_group() as tasks:
            server = await tasks.start(
                lambda *, task_status: anyws.serve_forever(
                    echo, listeners=[listener], task_status=task_status
                )
            )
            async with anyws.wrap_client(await listener.connect()) as ws:
                await _stays(cut, ws)
            await server.close()

    await cut.call(serve, MemoryListener())


# Streams of users.


class SlowStream(FaultyStream):
    """A stream that takes its time to be closed."""

    async def aclose(self) -> None:
        try:
            await anyio.sleep(100)
        finally:
            await super().aclose()


class StuckStream(FaultyStream):
    """A stream that never takes anything once it is to be ended."""

    async def send_eof(self) -> None:
        await anyio.sleep_forever()


def _strange(name: str, kind: Kind, stream: type[FaultyStream], *, error: bool) -> Scenario:
    """Leave a block over a stream that misbehaves."""

    async def run(cut: Cut) -> None:
        near, far = memory_stream_pair()
        peers: list[StrictPeer] = []
        setting = Setting(kind, {"close_timeout": 10}, may_be_cut=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(meet, cut, setting, far, peers)

            async def body(cut: Cut, ws: anyws.Connection) -> None:
                await ws.send("message")
                await checkpoint()
                if error:
                    raise BodyError

            await call_block(cut, lambda: setting.manager(stream(near)), body, armed=True)

    by = "left by an error" if error else "whole life"
    return over(kind, f"block, {by}, {name}", run, bound=10.0)


# Handlers that fail.

_QUIET = logging.getLogger("quiet")
_QUIET.propagate = False
_QUIET.addHandler(logging.NullHandler())


def _failing_handler(*, body_fails: bool) -> Scenario:
    """Cancel a server as its handler's error ends it: whatever comes out is bare."""

    async def run(cut: Cut) -> None:
        errors: list[BodyError] = []
        listener = MemoryListener()

        async def handler(ws: anyws.Connection) -> None:
            await ws.recv()
            errors.append(BodyError("of the handler"))
            raise errors[-1]

        async def serve() -> None:
            arguments: dict[str, Any] = {"listeners": [listener], "handler_errors": "raise"}
            # What is not raised is logged there.
            async with anyws.serve(handler, **arguments, logger=_QUIET if body_fails else None):
                async with anyws.wrap_client(await listener.connect()) as ws:
                    await ws.send("message")
                    try:
                        await ws.wait_closed()
                    finally:
                        if body_fails:
                            errors.insert(0, BodyError("of the body"))
                            raise errors[0] from None

        try:
            await cut.call(serve)
        except BodyError as exc:
            if exc is not errors[0]:
                cut.fault(f"raised {exc!r}, expected {errors[0]!r}")
        else:
            if errors and not cut.cancelled:
                cut.fault("the error is lost")
        await listener.aclose()

    who = "handler and body fail" if body_fails else "handler fails"
    return Scenario(f"serve, {who}", "", run, virtual=True)


def _scenarios() -> Iterator[Scenario]:
    yield Scenario("connect, by name", "", _by_name, virtual=False)
    yield Scenario("serve, by name", "", _listening_by_name, virtual=False)
    yield Scenario("unix_connect", "", _over_unix, virtual=False)
    yield Scenario("unix_serve", "", _listening_on_unix, virtual=False)
    yield Scenario("serve_forever", "", _serving_forever, virtual=True)
    for body_fails in (False, True):
        yield _failing_handler(body_fails=body_fails)
    for kind in MEMORY:
        for error in (False, True):
            yield _strange("slow stream", kind, SlowStream, error=error)
            yield _strange("stuck stream", kind, StuckStream, error=error)


SCENARIOS = tuple(_scenarios())
