"""Whose a cancellation is, and what stays of an error beside it.

Owns the telling apart of errors, cancellations and what ends the program, alone and in groups; it
knows no connection. trio raises all that has happened at a time in one group; on asyncio a
CancelledError may be that of another task.
"""

from __future__ import annotations

import asyncio
import sys

from anyio import get_cancelled_exc_class


def without_cancellation(error: BaseException) -> BaseException | None:
    """Give what there is in `error` besides cancellation; trio makes one group of both."""
    cancelled = get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        found, rest = error.split(cancelled)
        return error if found is None else rest  # itself: it may be of the application's own class
    return None if isinstance(error, cancelled) else error


def is_cancellation(error: BaseException) -> bool:
    """Say whether `error` is a cancellation, and nothing else; trio makes a group of many."""
    return without_cancellation(error) is None


def application_error(name: str, error: BaseException) -> BaseException | None:
    """Give what there is in what has left a function of the application's, but its cancellation.

    A cancellation beside an error, which trio gives in one group, will be met again. On asyncio a
    CancelledError may also be that of another task, whose result was asked for.
    """
    rest = without_cancellation(error)
    if rest is not None or _is_cancelled():
        return rest
    foreign = RuntimeError(f"{name} was left by the cancellation of a task that it waited for")
    foreign.__cause__ = error
    return foreign


def _is_cancelled() -> bool:
    """Say whether the task that runs now is being cancelled, where its being met does not tell."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return True
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def ends_the_program(error: BaseException) -> bool:
    """Say whether `error` is, or has in it, a KeyboardInterrupt or SystemExit.

    On trio Ctrl-C interrupts the task that runs; on asyncio it cancels the main one. Neither is an
    error of the endpoint, but "an endpoint is going away" (RFC 6455 section 7.4.1), at once.
    """
    ends = (KeyboardInterrupt, SystemExit)
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(ends) is not None
    return isinstance(error, ends)


def bare(group: BaseExceptionGroup[BaseException], depth: int = 1) -> BaseException:
    """Give the first KeyboardInterrupt, SystemExit or the like in a group of ours.

    Or else its error, where it has but one; or the group.

    Args:
        group: what has left a task group.
        depth: how many task groups, one in the other, it has left: what else is a group in it is
            the application's own.
    """
    end = _find_end(group)
    if end is not None:
        return end
    error: BaseException = group
    for _ in range(depth):
        if not isinstance(error, BaseExceptionGroup) or len(error.exceptions) > 1:
            break
        error = error.exceptions[0]
    return error


def _find_end(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            end = _find_end(error)
            if end is not None:
                return end
        elif not isinstance(error, Exception) and not is_cancellation(error):
            return error
    return None


def raise_as_is(error: BaseException) -> None:
    """Raise `error` with the context that it has, not with the one of this place."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error, context  # no cycle through this frame
