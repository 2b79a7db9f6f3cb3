"""The life of a connection as a block of code: its tasks, and what leaving the block does.

Owns the task group and its ways out; what the tasks do stands in `_link`.

Three rules decide the form of it. The tasks are shielded from what cancels the block, because a
frame that has begun to leave must be completed; `Lifespan.__aexit__` ends them in every case,
within `close_timeout`. The exception of the block never enters the task group, so no group can wrap
it: the group is left as if nothing had happened. And where an outer scope is cancelled while the
block's own exception is on its way, the exception wins: it is the user's, and the cancellation will
be met again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from anyio import CancelScope, create_task_group, get_cancelled_exc_class

from ._cancellation import bare, ends_the_program, raise_as_is
from ._leaving import end_link, raise_interruption

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import TaskGroup

    from ._connection import Connection


class Lifespan:
    """An asynchronous context manager: the connection lives inside, and is over after it.

    Args:
        connection: an open connection whose tasks do not run yet.
        trailing_data: what came after the opening handshake.
    """

    def __init__(self, connection: Connection, trailing_data: bytes) -> None:
        self._connection = connection
        self._trailing_data = trailing_data
        self._task_group = create_task_group()

    async def __aenter__(self) -> Connection:
        await self._task_group.__aenter__()
        try:
            await begin_connection(self._connection, self._task_group, self._trailing_data)
        except BaseException:
            self._task_group.cancel_scope.cancel()
            await self._task_group.__aexit__(None, None, None)
            raise
        return self._connection

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        interruption = await end_link(self._connection._link, exc)
        await leave_task_group(self._task_group, exc, interruption)


async def begin_connection(
    connection: Connection, task_group: TaskGroup, trailing_data: bytes
) -> None:
    """Let a connection begin to live; its transport is closed where that fails.

    Args:
        connection: as for `Lifespan`.
        task_group: where its tasks are to run.
        trailing_data: as for `Lifespan`.

    Cancellation: it waits for nothing.
    """
    link = connection._link
    try:
        link.start(task_group, trailing_data)
    except BaseException:  # an interrupt, or what the event loop has against the socket
        link.transport.abort()
        # An aborted transport is closed without waiting, which bounds the shield.
        with CancelScope(shield=True), suppress(Exception):
            await link.transport.aclose()
        # Who waits for the end is told of it, and its timer and tasks end too.
        with suppress(Exception):
            await link.drop()
        raise


async def leave_task_group(
    task_group: TaskGroup, exc: BaseException | None, interruption: BaseException | None
) -> None:
    """Leave the group of connections that have ended, and raise what interrupted that.

    Args:
        task_group: the group.
        exc: what its block was left by; it is raised by the block itself.
        interruption: what `end_link` gave.
    """
    # Tasks of start_soon() have been cancelled with the end of the connection; ours are over.
    try:
        await task_group.__aexit__(None, None, None)
    except get_cancelled_exc_class() as cancelled:
        interruption = cancelled
    except BaseExceptionGroup as group:
        # Only KeyboardInterrupt and its like come out of a task of ours: they stay bare.
        if interruption is None or not ends_the_program(interruption):
            raise_as_is(bare(group))
    raise_interruption(exc, interruption)
