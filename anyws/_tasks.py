"""Tasks and cancel scopes that an application ties to a connection.

Owns when they are cancelled, and that what an application has called there is async; knows no frame
and no stream.
"""

from __future__ import annotations

import inspect
import weakref
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from anyio import CancelScope

from ._cancellation import without_cancellation
from ._parking import Latch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class ClosingScopes:
    """The scopes that are cancelled as soon as a connection is no longer open."""

    __slots__ = ("_cancelled", "_scopes")

    def __init__(self) -> None:
        # Who has left his scope has let go of it. Most connections have none.
        self._scopes: weakref.WeakSet[CancelScope] | None = None
        self._cancelled = False

    def new(self) -> CancelScope:
        """Give another one, cancelled already if it is too late."""
        scope = CancelScope()
        if self._cancelled:
            scope.cancel()
        else:
            if self._scopes is None:
                self._scopes = weakref.WeakSet()
            self._scopes.add(scope)
        return scope

    def cancel(self) -> None:
        """Cancel them all, and those that are still to come."""
        self._cancelled = True
        for scope in list(self._scopes or ()):
            scope.cancel()


class UserTasks:
    """The tasks that end with a connection."""

    __slots__ = ("_cancelled", "_over", "_scopes")

    def __init__(self) -> None:
        self._scopes: set[CancelScope] = set()
        self._over: Latch | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Cancel them all, and those that have not begun yet."""
        self._cancelled = True
        for scope in list(self._scopes):
            scope.cancel()

    async def run(
        self,
        fail: Callable[[Exception], None],
        func: Callable[[*_Args], Awaitable[Any]],
        args: tuple[*_Args],
    ) -> None:
        """Run one.

        Args:
            fail: what to do with its error.
            func: an async function.
            args: its arguments.
        """
        with CancelScope() as scope:
            self._scopes.add(scope)
            if self._cancelled:
                scope.cancel()
            try:
                await check_awaitable(getattr(func, "__name__", "func"), func(*args))
            except BaseException as exc:
                # Whoever cancelled it, the task is over. Let out, a cancellation that is not the
                # scope's (asyncio's own, or that of a task it awaited) would end the connection.
                error = without_cancellation(exc)
                if isinstance(error, Exception):
                    fail(error)
                elif error is not None:
                    raise
                del error  # whose traceback has this frame
            finally:
                self._scopes.discard(scope)
                if self._over is not None and not self._scopes:
                    self._over.set()

    async def wait(self) -> None:
        """Wait until those that run are over, after `cancel()`: what they clean up ends it.

        Cancellation: harmless.
        """
        if self._scopes:
            if self._over is None or self._over.is_set():
                self._over = Latch()
            await self._over.wait()


def check_awaitable(name: str, value: Awaitable[_T]) -> Awaitable[_T]:
    """See that what a function returned can be awaited, and give it.

    Raises:
        TypeError: it cannot: the function is no async one, or a generator.
    """
    if not inspect.isawaitable(value):
        kind = type(value).__name__
        raise TypeError(
            f"{name} returned {kind}, expected a coroutine: it must be an async function, without"
            " yield"
        )
    return value
