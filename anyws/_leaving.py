"""Leaving a block that has a connection: how that closes it.

Owns which close code goes with what a block was left by, and that the connection is over in every
case; the block's tasks are the business of `_lifespan`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._cancellation import ends_the_program, is_cancellation
from ._types import Close, CloseCode

if TYPE_CHECKING:
    from ._link import Link


async def end_link(
    link: Link, exc: BaseException | None, *, patience: float = 0
) -> BaseException | None:
    """Close as what has left the block asks for; give what interrupted it, if anything did.

    That is a closing handshake with 1000; with 1011 after an error; and with 1001, waiting for
    nothing, after a cancellation.

    Args:
        link: that of an open connection, or of one that is over already.
        exc: what the block was left by.
        patience: as for `Link.start_close`; where the block had the connection alone, nobody
            receives any more.
    """
    try:
        if exc is None:
            link.start_close(Close(CloseCode.NORMAL_CLOSURE), patience=patience)
            await link.closed.wait()  # the watchdog ends it
        elif is_cancellation(exc) or ends_the_program(exc):
            await link.drop()
        else:
            link.start_close(Close(CloseCode.INTERNAL_ERROR), patience=patience)
            await link.closed.wait()  # likewise
    except BaseException as interruption:  # given back, and raised unless `exc` is
        return await _drop_in_any_case(link, interruption)
    return None


async def _drop_in_any_case(link: Link, interruption: BaseException) -> BaseException:
    """Drop the connection, and give what interrupted that, or else `interruption`."""
    # Each turn of it needs somebody who interrupts once more: a KeyboardInterrupt, or asyncio's own
    # cancellation, which no shield keeps out.
    while True:
        try:
            await link.drop()
        except BaseException as again:
            link.abort()
            interruption = again
            if isinstance(again, Exception):
                return again  # once more it would not end in another way
        else:
            return interruption


def raise_interruption(exc: BaseException | None, interruption: BaseException | None) -> None:
    """Raise what `end_link` gave, unless what the block was left by wins over it.

    Args:
        exc: what that is; the block raises it itself.
        interruption: what `end_link` gave.
    """
    if interruption is not None and (exc is None or not is_cancellation(interruption)):
        raise interruption  # a KeyboardInterrupt wins over everything
