"""Who may send a message, and when: the turn, the room, and the fairness to other tasks.

Owns the waiting before and after a write; what is written, and its frames, it does not know. The
counterpart of `_intake`. RFC 6455 section 5.4.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from anyio import Event, get_current_task
from anyio.lowlevel import checkpoint_if_cancelled

from ._stalls import Stalls
from ._types import OPEN
from .exceptions import ConcurrencyError

if TYPE_CHECKING:
    from ._ending import Ending
    from ._fairness import Fairness
    from ._transports import Transport
    from .sansio._protocol import Protocol


LARGE_SIZE = 2**15
"""From how many bytes on a message is large: to compress it takes a fifth of a millisecond. Nor is
it copied behind its header: an echo of 1 MiB took 820 microseconds, and takes 580 without that copy
and the one of what is received."""


class Outbox:
    """The way out of a connection, for the tasks that send.

    Args:
        transport: has the bytes that are not sent yet.
        protocol: says whether the connection is open.
        fairness: counts the calls that have not yielded, of those that receive too.
        write_marks: unsent bytes above which a message has to wait, and down to which it does.
        ending: raises how the connection ended.
    """

    __slots__ = (
        "_ending",
        "_fairness",
        "_fragmenter",
        "_line",
        "_low",
        "_protocol",
        "_transport",
        "fragmenting",
        "high",
        "occupied",
        "stalls",
    )

    def __init__(
        self,
        transport: Transport,
        protocol: Protocol,
        fairness: Fairness,
        write_marks: tuple[int | None, int | None],
        ending: Ending,
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._fairness = fairness
        self._ending = ending
        high, low = write_marks
        self.high: float = math.inf if high is None else high
        """Unsent bytes above which a message has to wait."""
        self._low = low or 0
        self.fragmenting: Event | None = None
        """There while a fragmented message is being sent; its set() lets the next sender go."""
        self._fragmenter = 0  # by which task
        # Those who wait for their turns, in the order in which they came. The event tells the first
        # that it is.
        self._line: list[Event] = []
        self.occupied: bool = False
        """Whether a message has to wait for others: a fragmented one, or some in the line."""
        self.stalls: Stalls = Stalls()
        """When a sender waits for room."""

    @property
    def must_wait(self) -> bool:
        """Whether a message cannot be sent at once."""
        return self.occupied or self._transport.write_buffer_size > self.high

    def begin_fragments(self) -> None:
        """Take that a fragmented message is being sent, after `ready()`."""
        self.fragmenting = Event()
        self._fragmenter = get_current_task().id
        self.occupied = True

    def end_fragments(self) -> None:
        """Take that it is over, and let the next sender go."""
        assert self.fragmenting is not None
        self.fragmenting.set()
        self.fragmenting = None
        self.occupied = bool(self._line)

    async def ready(self) -> None:
        """Wait for our turn and for room; the peer's reading, or the end, ends it.

        Who sends again and again does not come before who waits already.

        Raises:
            ConnectionClosed: the connection is no longer open.
            ConcurrencyError: our own task is sending a message in fragments, and makes one of them.

        Cancellation: nothing was sent.
        """
        if not self._fairness.may_send():
            await checkpoint_if_cancelled()
        if self.must_wait:
            if (
                self.fragmenting is not None
                and self._fragmenter == get_current_task().id
                and self._protocol.state is OPEN
            ):
                raise ConcurrencyError(
                    "this task is sending a fragmented message, and would wait for its end for ever"
                )
            await self._wait_in_line()
        if self._protocol.state is not OPEN:
            await self._ending.raise_error()

    def release(self) -> None:
        """Let all go who wait for their turn: nothing can be sent any more. Never waits."""
        if self.fragmenting is not None:
            # Its sender may wait for the next fragment for ever; others must not.
            self.fragmenting.set()
        for turn in self._line:
            turn.set()

    async def _wait_in_line(self) -> None:
        turn = Event()
        self._line.append(turn)
        self.occupied = True
        try:
            if self._line[0] is not turn:
                await turn.wait()  # who leaves the line before us ends it
            await self._wait_for_room()
        finally:
            self._line.remove(turn)
            if self._line:
                self._line[0].set()
            else:
                self.occupied = self.fragmenting is not None

    async def _wait_for_room(self) -> None:
        while self._protocol.state is OPEN:
            if self.fragmenting is not None:
                await self.fragmenting.wait()  # its sender ends it, or the end of the connection
            elif self._transport.write_buffer_size <= self.high:
                return
            elif not await self._drain():
                # It gives that at once from now on, and we are told of the loss only later.
                await self._ending.raise_error()

    async def drain(self) -> None:
        """Wait while more than the high-water mark is unsent.

        Raises:
            ConnectionClosed: the connection ended before.

        Cancellation: what was written goes out.
        """
        if self._transport.write_buffer_size > self.high and not await self._drain():
            await self._ending.raise_error()

    async def _drain(self) -> bool:
        """Wait until the buffer is down to its low-water mark; False when the end came before."""
        self.stalls.begin()
        try:
            return await self._transport.drain(self._low)
        finally:
            self.stalls.end()

    async def wait_behind(self, size: int) -> None:
        """Wait for room behind a message that was written, or let others run if that is due.

        They run also after a large message that was compressed: so little is left of it that none
        would ever wait for room, and each took its milliseconds.

        Args:
            size: bytes, or characters, of the message.

        Raises:
            ConnectionClosed: the connection ended before there was room.

        Cancellation: the message has gone.
        """
        if self._transport.write_buffer_size > self.high:
            await self.drain()
        if self._fairness.sends.left and (size < LARGE_SIZE or self._protocol.extension is None):
            self._fairness.sends.left -= 1
        else:
            await self.yield_behind()

    async def yield_if_due(self) -> None:
        """Let other tasks run if they have not for a while."""
        if self._fairness.may_send():
            self._fairness.sends.left -= 1
        else:
            self._fairness.renew()
            await self._transport.rest()

    async def yield_behind(self) -> None:
        """Let other tasks run after a message was written: before, theirs would overtake it.

        Cancellation: the message has gone.
        """
        self._fairness.renew()
        await self._transport.rest()
