"""Pings and who waits for their Pongs, keepalive, and the close watchdog: the only place with a clock.

Owns what happens because time passes; knows no bytes. RFC 6455 sections 5.5.2 and 5.5.3.
"""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

from anyio import CancelScope, Event, current_time

from .exceptions import ConcurrencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .exceptions import ConnectionClosed

# The payload of a Ping that the caller gives none: short, and not to be guessed from outside.
_PING_SIZE = 4


def _clocks() -> tuple[float, float]:
    # The clock of uvloop goes in steps of 1 ms, longer than a loopback takes; the clock of a test may go
    # on its own. The longer of the two times is the right one for both.
    return current_time(), time.perf_counter()


class PongWaiter:
    """What `ping()` gives: await it for the latency in seconds, as often as you like.

    Raises:
        ConnectionClosed: the connection ended before the Pong came.

    Cancellation: harmless.
    """

    __slots__ = ("_error", "_event", "_latency", "_sent_at")

    def __init__(self) -> None:
        self._sent_at = _clocks()
        self._event = Event()
        self._latency = math.nan
        self._error: Callable[[], ConnectionClosed] | None = None

    def __await__(self) -> Generator[object, object, float]:
        # The Pong, or the end of the connection, ends it.
        yield from self._event.wait().__await__()
        if self._error is not None:
            raise self._error()
        return self._latency

    @property
    def done(self) -> bool:
        """Whether awaiting it would give the latency, or raise, at once."""
        return self._event.is_set()

    def _resolve(self, now: tuple[float, float]) -> float:
        self._latency = max(now[0] - self._sent_at[0], now[1] - self._sent_at[1])
        self._event.set()
        return self._latency

    def _fail(self, error: Callable[[], ConnectionClosed]) -> None:
        self._error = error
        self._event.set()


class Pings:
    """The Pings that no Pong has answered yet, oldest first."""

    def __init__(self) -> None:
        self._waiters: dict[bytes, PongWaiter] = {}

    def new_payload(self) -> bytes:
        """Give a random payload that no pending Ping has."""
        payload = os.urandom(_PING_SIZE)
        while payload in self._waiters:
            payload = os.urandom(_PING_SIZE)
        return payload

    def check(self, data: bytes) -> None:
        """See that no pending Ping has this payload.

        Raises:
            ConcurrencyError: one has.
        """
        if data in self._waiters:
            raise ConcurrencyError(
                f"a ping with the payload {data!r} is still waiting for its pong"
            )

    def add(self, data: bytes) -> PongWaiter:
        """Note a Ping that goes out now."""
        waiter = self._waiters[data] = PongWaiter()
        return waiter

    def receive_pong(self, data: bytes) -> float | None:
        """Resolve the Ping that `data` answers, and all before it.

        Returns:
            The latency in seconds; None for an unsolicited Pong.
        """
        if data not in self._waiters:
            return None
        now = _clocks()
        # RFC 6455 section 5.5.3: an endpoint may "send a Pong frame for only the most recently
        # processed Ping frame", so the ones before are answered too.
        for payload in list(self._waiters):
            latency = self._waiters.pop(payload)._resolve(now)
            if payload == data:
                break
        return latency

    def fail(self, error: Callable[[], ConnectionClosed]) -> None:
        """Let all pending waiters raise what `error` makes."""
        waiters = list(self._waiters.values())
        self._waiters.clear()
        for waiter in waiters:
            waiter._fail(error)


class Keepalive:
    """Sends a Ping every `interval` seconds and finds out a peer that shows no life.

    Args:
        interval: seconds between Pings; None sends none.
        timeout: seconds that a Pong may take; None is no limit. Any byte that comes starts them
            anew, and they stand still while the application holds back reading.
        send_ping: sends one.
        expire: what to do when the time is over.
    """

    def __init__(
        self,
        interval: float | None,
        timeout: float | None,
        send_ping: Callable[[], PongWaiter],
        expire: Callable[[], None],
    ) -> None:
        self._interval = interval
        self._timeout = timeout
        self._send_ping = send_ping
        self._expire = expire
        self._scope = CancelScope(shield=True)
        self._oldest: PongWaiter | None = None
        self._life_at = 0.0
        self._reading = True
        self._resumed = Event()
        self.watching = False
        """Whether a sign of life is worth to be told: a Ping is out."""

    def see_life(self) -> None:
        """Take that something came from the peer."""
        self._life_at = current_time()

    def pause(self) -> None:
        """Take that nothing is read any more, so that nothing can be seen of the peer."""
        self._reading = False

    def resume(self) -> None:
        """Take that reading goes on: the peer gets its whole time anew."""
        self._reading = True
        self._life_at = current_time()
        self._resumed.set()

    def stop(self) -> None:
        """End `run()`."""
        self._scope.cancel()

    async def run(self) -> None:
        """Work until `stop()`, or until the time is over."""
        if self._interval is None:
            return
        with self._scope:
            next_ping_at = current_time() + self._interval
            while True:
                now = current_time()
                if now >= next_ping_at:
                    next_ping_at = now + self._interval
                    waiter = self._send_ping()
                    if self._oldest is None or self._oldest.done:
                        self._oldest = waiter
                        self._life_at = now
                deadline = self._deadline()
                if deadline <= now:
                    self._expire()
                    return
                self._resumed = Event()
                with CancelScope(deadline=min(next_ping_at, deadline)):
                    await self._resumed.wait()

    def _deadline(self) -> float:
        if self._timeout is None or self._oldest is None or self._oldest.done:
            self.watching = False
            return math.inf
        self.watching = True
        return self._life_at + self._timeout if self._reading else math.inf


class Watchdog:
    """Bounds the end of a connection: one deadline over flush, Close, TLS and TCP.

    Args:
        timeout: seconds from the beginning of the end; None is no limit.
        closed: set when the connection has ended.
        expire: what to do when the time is over.
    """

    def __init__(self, timeout: float | None, closed: Event, expire: Callable[[], None]) -> None:
        self._timeout = timeout
        self._closed = closed
        self._expire = expire
        self.deadline = math.inf
        self._scope: CancelScope | None = None

    def begin(self) -> None:
        """Start the clock."""
        if self._timeout is not None:
            self.deadline = current_time() + self._timeout

    def hasten(self, timeout: float) -> None:
        """Leave at most `timeout` seconds from now."""
        self.deadline = min(self.deadline, current_time() + timeout)
        if self._scope is not None:
            self._scope.deadline = self.deadline

    async def run(self) -> None:
        """Wait for the end of the connection, until the deadline at the most."""
        with CancelScope(deadline=self.deadline, shield=True) as self._scope:
            await self._closed.wait()
        if not self._closed.is_set():
            self._expire()
