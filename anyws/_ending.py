"""How a connection has ended: what there is to raise, and whose error one is.

Owns the cause and the error; what makes it end stands in `_link`. It is apart from that because it
is needed when the connection is over, and must not keep it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from .exceptions import ConnectionClosed, ConnectionClosedOK, KeepaliveTimeout

if TYPE_CHECKING:
    from ._parking import Latch
    from .sansio._protocol import Protocol


class Ending:
    """What is known of the end of one connection.

    Args:
        protocol: has the Close frames.
        settled: set when nothing more can be received, so that no more will be known.
    """

    __slots__ = ("_mark", "_protocol", "cause", "keepalive_expired", "settled")

    def __init__(self, protocol: Protocol, settled: Latch) -> None:
        self._protocol = protocol
        # What tells our errors from those of another connection that ended in the same way; no part
        # of us, for an error may be pickled, and kept long after.
        self._mark = object()
        self.settled: Latch = settled
        """Set when it is known."""
        self.cause: BaseException | None = None
        """What it came of, where that was an error."""
        self.keepalive_expired: bool = False
        """Whether it came of a Pong that did not come."""

    def error(self) -> ConnectionClosed:
        """Make the error that says how the connection ended, as far as it has."""
        error = self._protocol.close_exc()
        if self.keepalive_expired:
            error = KeepaliveTimeout(error.rcvd, error.sent, error.rcvd_then_sent)
        error.__cause__ = self.cause
        error._mark = self._mark
        return error

    def iteration_end(self) -> ConnectionClosed | StopAsyncIteration:
        """Make what ends an iteration over the messages."""
        error = self.error()
        return StopAsyncIteration() if isinstance(error, ConnectionClosedOK) else error

    async def raise_error(self) -> NoReturn:
        """Raise how the connection ended, once the peer has answered our Close, or will not.

        Raises:
            ConnectionClosed: always.
        """
        await self.settled.wait()  # the watchdog bounds it
        raise self.error()

    def is_of(self, exc: BaseException) -> bool:
        """Say whether `exc` tells nothing but this end, alone or in groups."""
        if isinstance(exc, BaseExceptionGroup):
            return all(self.is_of(error) for error in exc.exceptions)
        return isinstance(exc, ConnectionClosed) and exc._mark is self._mark
