"""Tasks and cancel scopes that an application ties to a connection.

Owns when they are cancelled; knows no frame and no stream.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, TypeVarTuple

from anyio import CancelScope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_Args = TypeVarTuple("_Args")


class ClosingScopes:
    """The scopes that are cancelled as soon as a connection is no longer open."""

    def __init__(self) -> None:
        # Who has left his scope has let go of it.
        self._scopes: weakref.WeakSet[CancelScope] = weakref.WeakSet()
        self._cancelled = False

    def new(self) -> CancelScope:
        """Give another one, cancelled already if it is too late."""
        scope = CancelScope()
        if self._cancelled:
            scope.cancel()
        else:
            self._scopes.add(scope)
        return scope

    def cancel(self) -> None:
        """Cancel them all, and those that are still to come."""
        self._cancelled = True
        for scope in list(self._scopes):
            scope.cancel()


class UserTasks:
    """The tasks that end with a connection.

    Args:
        fail: what to do with the error of one.
    """

    def __init__(self, fail: Callable[[Exception], None]) -> None:
        self._fail = fail
        self._scopes: set[CancelScope] = set()
        self._cancelled = False

    def cancel(self) -> None:
        """Cancel them all, and those that have not begun yet."""
        self._cancelled = True
        for scope in list(self._scopes):
            scope.cancel()

    async def run(self, func: Callable[[*_Args], Awaitable[Any]], args: tuple[*_Args]) -> None:
        """Run one."""
        with CancelScope() as scope:
            self._scopes.add(scope)
            if self._cancelled:
                scope.cancel()
            try:
                await func(*args)
            except Exception as exc:
                self._fail(exc)
            finally:
                self._scopes.discard(scope)
