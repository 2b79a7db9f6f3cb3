"""From arguments to a connection, to its end, to an exit status; and what signals do meanwhile.

Owns the order of these; what is said over the connection is its caller's.
"""

from __future__ import annotations

import signal
import ssl
from typing import TYPE_CHECKING, Any

from anyio import (
    TASK_STATUS_IGNORED,
    CancelScope,
    create_task_group,
    move_on_after,
    open_signal_receiver,
)

from .. import connect
from ..exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from ._arguments import fail_usage
from ._formatting import complain, escape, show_agreement, show_handshake, show_response, tell
from ._statuses import (
    OK,
    SIGNALLED,
    TIMED_OUT,
    describe_end,
    describe_failure,
    status_of_end,
    status_of_failure,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskStatus

    from .._connection import Connection
    from ._arguments import ClientArguments, ConnectArguments


class Interruption:
    """What Ctrl-C and SIGTERM do: the first ends in good order, the second does not wait for it."""

    def __init__(self) -> None:
        self.signum: int | None = None
        """The signal that came first."""
        self._scope: CancelScope | None = None
        self._abort: Callable[[], None] | None = None

    def __call__(self, signum: int) -> None:
        """Do what a signal does."""
        scope, self._scope = self._scope, None
        if self.signum is None:
            self.signum = signum
        if scope is not None:
            scope.cancel()
        elif self._abort is not None:
            self._abort()

    def cancels(self, scope: CancelScope, abort: Callable[[], None] | None = None) -> CancelScope:
        """Give `scope`, which the first signal cancels.

        Args:
            scope: around what is to end; one that came already cancels it at once.
            abort: called by the second signal; and by the first one after `ends`.
        """
        self._scope = scope
        self._abort = abort
        if self.signum is not None:
            self(self.signum)
        return scope

    def ends(self) -> None:
        """Say that the end has begun already: there is nothing to cancel, only to hurry."""
        self._scope = None

    async def watch(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Receive signals until cancelled.

        Cancellation: from then on they do what they did before.
        """
        try:
            with open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for signum in signals:
                    self(signum)
        except NotImplementedError:
            # asyncio on Windows has no signals: Ctrl-C is a KeyboardInterrupt there.
            task_status.started()


def connect_arguments(arguments: ConnectArguments) -> dict[str, Any]:
    """Give what `connect` is to be told.

    Raises:
        OSError: the file of certificates cannot be read.
    """
    options: dict[str, Any] = {
        "additional_headers": arguments.headers,
        "subprotocols": arguments.subprotocols or None,
        "origin": arguments.origin,
        "compression": None if arguments.no_compression else "deflate",
        "max_size": arguments.max_size or None,
        "close_timeout": arguments.close_timeout,
    }
    if arguments.proxy is not None:
        options["proxy"] = arguments.proxy
    if arguments.uri.lower().startswith("wss:"):
        options["ssl"] = _client_context(arguments)
    return options


def make_connection(arguments: ConnectArguments) -> connect:
    """Make the block that connects.

    Raises:
        SystemExit: an argument is wrong.
    """
    try:
        return connect(arguments.uri, **connect_arguments(arguments))
    except OSError as exc:
        fail_usage(f"cannot read {arguments.cacert}: {exc.strerror or exc}")
    except (ValueError, ImportError) as exc:  # InvalidURI is one; an extra is missing
        fail_usage(escape(str(exc)))


def _client_context(arguments: ConnectArguments) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=arguments.cacert)
    if arguments.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def run_connected(
    arguments: ClientArguments,
    talk: Callable[[Connection, Interruption], Awaitable[int | None]],
    *,
    tells_end: bool,
) -> int:
    """Connect, talk, close and give the exit status; what fails is told.

    Args:
        arguments: what the user wants.
        talk: returns when the connection is to be closed or has ended, with an exit status if it
            failed by itself; a signal cancels it.
        tells_end: whether the end is told also when it is a good one.

    Raises:
        SystemExit: an argument is wrong.

    Cancellation: the connection is dropped.
    """
    connection = make_connection(arguments)
    interruption = Interruption()
    status = OK
    async with create_task_group() as tasks:
        await tasks.start(interruption.watch)
        with move_on_after(arguments.timeout) as whole:
            status = await _run(connection, arguments, talk, interruption, tells_end=tells_end)
        tasks.cancel_scope.cancel()
    if whole.cancelled_caught:
        complain(f"time-out: {arguments.timeout:g} seconds are over")
        status = TIMED_OUT
    if interruption.signum is not None:
        return SIGNALLED + interruption.signum
    return status


async def _run(
    connection: connect,
    arguments: ClientArguments,
    talk: Callable[[Connection, Interruption], Awaitable[int | None]],
    interruption: Interruption,
    *,
    tells_end: bool,
) -> int:
    failed: int | None = None
    closed: ConnectionClosed | None = None
    try:
        with interruption.cancels(CancelScope()):
            async with connection as ws:
                if arguments.verbose:
                    tell("\n".join([*show_handshake(ws), show_agreement(ws)]))
                with interruption.cancels(CancelScope(), ws.abort):
                    failed = await talk(ws, interruption)
                interruption.ends()
                closed = await _close(ws, interruption)
    except (InvalidHandshake, OSError, ImportError) as exc:
        # TimeoutError and ssl.SSLError are OSErrors; an extra may be missing for the proxy of the
        # environment.
        complain(describe_failure(exc))
        if arguments.verbose and isinstance(exc, InvalidStatus):
            tell("\n".join(show_response(exc.response)))
        return status_of_failure(exc)
    if closed is None:
        return OK  # interrupted while connecting: the signal gives the status
    status = status_of_end(closed)
    if status != OK and interruption.signum is None and failed is None:
        complain(describe_end(closed))
    elif tells_end or arguments.verbose:
        tell(describe_end(closed))
    return status if failed is None else failed


async def _close(ws: Connection, interruption: Interruption) -> ConnectionClosed:
    """Close, and give how it ended."""
    await ws.close(1001 if interruption.signum == signal.SIGTERM else 1000)
    while True:
        try:
            await ws.recv()
        except ConnectionClosed as exc:
            return exc
