"""`anyws serve`: an echo server, or one that gives each message to all.

Owns the two handlers, and the log that is read on stderr.
"""

from __future__ import annotations

import logging
import ssl
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anyio import CancelScope, create_task_group

from .. import SAME_HOST, broadcast
from .. import serve as serve_websocket
from .._names import describe_address, plain_path
from ._arguments import fail_usage
from ._connecting import Interruption
from ._formatting import complain, escape
from ._statuses import OK, UNREACHABLE

if TYPE_CHECKING:
    from collections.abc import Generator

    from .. import Connection, Request, Response, Server
    from ._arguments import ServeArguments

_LOGGER = logging.getLogger("anyws.server")


async def serve(arguments: ServeArguments) -> int:
    """Serve until SIGINT or SIGTERM; give the exit status.

    Raises:
        SystemExit: an argument is wrong.

    Cancellation: all connections are dropped.
    """
    try:
        block = _make_block(arguments)
    except OSError as exc:  # ssl.SSLError too
        advice = ""
        if isinstance(exc, ssl.SSLError) and arguments.keyfile is None:
            advice = "; --keyfile names its key, if that is in another file"
        fail_usage(f"cannot use {arguments.certfile}: {exc.strerror or exc}{advice}", "anyws serve")
    except ValueError as exc:
        fail_usage(str(exc), "anyws serve")
    interruption = Interruption()
    status = OK
    with _log_to_stderr():
        async with create_task_group() as tasks:
            await tasks.start(interruption.watch)
            try:
                with CancelScope() as everything:
                    async with block as server:
                        await _serve_until_interrupted(server, arguments, interruption, everything)
            except OSError as exc:
                where = f"{arguments.host} port {arguments.port}"
                complain(f"cannot listen on {where}: {exc.strerror or exc}")
                status = UNREACHABLE
            tasks.cancel_scope.cancel()
    return status


async def _serve_until_interrupted(
    server: Server,
    arguments: ServeArguments,
    interruption: Interruption,
    everything: CancelScope,
) -> None:
    _LOGGER.info("%s server: %s", _name(arguments), _uri(arguments, server.port))
    with interruption.cancels(CancelScope(), everything.cancel):
        await server.serve_forever()
    await server.close(1001)


def _make_block(arguments: ServeArguments) -> serve_websocket:
    """Make the block that serves.

    Raises:
        OSError: the certificate cannot be used.
        ValueError: an argument is wrong.
    """
    context = None
    if arguments.certfile:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.certfile, arguments.keyfile)
    members: set[Connection] = set()

    async def handle(ws: Connection) -> None:
        peer = describe_address(ws.remote_address)
        _LOGGER.info("connection of %s to %s opened", peer, escape(plain_path(ws.path)))
        members.add(ws)
        try:
            async for message in ws:
                if arguments.broadcast:
                    broadcast(members, message)
                else:
                    await ws.send(message)
        finally:
            members.discard(ws)

    def refuse_other_paths(request: Request) -> Response | None:
        if arguments.path in {None, plain_path(request.path)}:
            return None
        return request.respond(404, f"the path is {arguments.path}\n")

    names = arguments.origins
    return serve_websocket(
        handle,
        arguments.host,
        arguments.port,
        ssl=context,
        # What is no web page names none, such as our own client.
        origins="*" if "*" in names else [*names, None] if names else SAME_HOST,
        process_request=refuse_other_paths,
        max_size=arguments.max_size or None,
        compression=None if arguments.no_compression else "deflate",
    )


def _name(arguments: ServeArguments) -> str:
    return "broadcast" if arguments.broadcast else "echo"


def _uri(arguments: ServeArguments, port: int) -> str:
    """Give the URI that clients of this machine, or of others, may use."""
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    scheme = "wss" if arguments.certfile else "ws"
    return f"{scheme}://{host}:{port}{arguments.path or '/'}"


@contextmanager
def _log_to_stderr() -> Generator[None, None, None]:
    """Show what the server logs, as long as the block runs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    level = _LOGGER.level
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.addHandler(handler)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(level)
