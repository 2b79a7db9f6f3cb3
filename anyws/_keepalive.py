"""Pings, keepalive and the close watchdog: what happens because time passes.

Owns the timer of a connection; knows no bytes. RFC 6455 sections 5.5.2 and 5.5.3.
"""

import math
import os
import time
from collections.abc import Callable, Generator
from typing import Protocol as Interface

from anyio import CancelScope, current_time
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from ._parking import Latch
from .exceptions import ConcurrencyError, ConnectionClosed

# How often, in the time of a Pong, it is looked whether bytes leave in front of the Ping: so much
# later than that time is a peer found out that has stopped reading them.
_LOOKS_AT_WRITING = 16

# The payload of a Ping that the caller gives none: short, and not to be guessed from outside.
_PING_SIZE = 4

# Pings of keepalive that may wait for their Pongs; the latency is known up to so many intervals.
_MAX_KEEPALIVE_PINGS = 16

# How often other tasks may run before a Pong counts as not come: after work that has blocked the
# event loop, what the peer sent meanwhile still waits to be read.
_LAST_TURNS = 10


def _clocks() -> tuple[float, float]:
    # The clock of uvloop goes in steps of 1 ms, longer than a loopback takes; the clock of a test
    # may go on its own. The longer of the two times is the right one for both.
    return current_time(), time.perf_counter()


class PongWaiter:
    """What `ping()` gives: await it for the latency in seconds, as often as you like.

    Raises:
        ConnectionClosed: the connection ended before the Pong came.

    Cancellation: harmless.
    """

    __slots__ = ("_error", "_latch", "_latency", "_sent_at")

    def __init__(self) -> None:
        self._sent_at = _clocks()
        self._latch = Latch()
        self._latency = math.nan
        self._error: Callable[[], ConnectionClosed] | None = None

    def __await__(self) -> Generator[object, object, float]:
        # The Pong, or the end of the connection, ends it.
        yield from self._latch.wait().__await__()
        if self._error is not None:
            raise self._error()
        return self._latency

    @property
    def done(self) -> bool:
        """Whether awaiting it would give the latency, or raise, at once."""
        return self._latch.is_set()

    def _resolve(self, now: tuple[float, float]) -> float:
        self._latency = max(now[0] - self._sent_at[0], now[1] - self._sent_at[1])
        self._latch.set()
        return self._latency

    def _fail(self, error: Callable[[], ConnectionClosed]) -> None:
        self._error = error
        self._latch.set()


class Pings:
    """The Pings that no Pong has answered yet, oldest first.

    Args:
        random_bytes: gives so many of them.
    """

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes
        self._keepalive: list[tuple[bytes, PongWaiter]] = []
        self._waiters: dict[bytes, PongWaiter] = {}

    def new_payload(self) -> bytes:
        """Give a random payload that no pending Ping has."""
        payload = self._random_bytes(_PING_SIZE)
        while payload in self._waiters:
            payload = self._random_bytes(_PING_SIZE)
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

    def add_keepalive(self, data: bytes) -> PongWaiter:
        """Note a Ping of keepalive; only the newest are kept, for a peer that answers none."""
        if len(self._keepalive) == _MAX_KEEPALIVE_PINGS:
            payload, oldest = self._keepalive.pop(0)
            # Where it was answered, another Ping may have its payload.
            if self._waiters.get(payload) is oldest:
                del self._waiters[payload]
        waiter = self.add(data)
        self._keepalive.append((data, waiter))
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
        while True:
            payload = next(iter(self._waiters))
            latency = self._waiters.pop(payload)._resolve(now)
            if payload == data:
                return latency

    def fail(self, error: Callable[[], ConnectionClosed]) -> None:
        """Let all pending waiters raise what `error` makes."""
        waiters = list(self._waiters.values())
        self._waiters.clear()
        for waiter in waiters:
            waiter._fail(error)


class Line(Interface):
    """What of a transport concerns who watches it."""

    sent_size: int
    """Bytes that have left, in all."""

    write_buffer_size: int
    """Bytes that wait to leave."""

    def set_timer(self, deadline: float, callback: Callable[[], None] | None) -> None:
        """Call back at a time, and not what was set before; never at math.inf."""


class Pinger(Interface):
    """Who does what keepalive has the time for."""

    def send_ping(self) -> PongWaiter:
        """Send one. Never waits."""

    def expire_keepalive(self) -> None:
        """Take that the time is over."""


class Keepalive:
    """Sends a Ping every `interval` seconds and finds out a peer that shows no life.

    Args:
        interval: seconds between Pings; None sends none.
        timeout: seconds that a Pong may take; None is no limit. Any byte that comes starts them
            anew, and so does each that is seen to leave in front of the Ping: the peer cannot
            answer what is not sent. What the system has taken has left. While the application holds
            back reading, nothing can be seen of the peer but that it reads: they stand still then,
            unless bytes wait and none of them leaves.
    """

    __slots__ = (
        "_behind",
        "_interval",
        "_life_at",
        "_line",
        "_looked",
        "_newest",
        "_next_ping_at",
        "_pinger",
        "_pings",
        "_read_at",
        "_reading",
        "_sent_size",
        "_stopped",
        "_task_group",
        "_timeout",
        "watching",
    )

    def __init__(self, interval: float | None, timeout: float | None) -> None:
        self._interval = interval
        self._timeout = timeout
        # There from start() to stop().
        self._pinger: Pinger | None = None
        self._line: Line | None = None
        self._task_group: TaskGroup | None = None
        # When the peer was last seen to read, and how much had left then.
        self._read_at = 0.0
        self._sent_size = 0
        # The Pings that may wait for their Pongs, oldest first, each with how much has left once it
        # has; whether one has not; and whether that was looked at.
        self._pings: list[tuple[PongWaiter, int]] = []
        self._behind = False
        self._looked = False
        self._next_ping_at = math.inf
        # Its Pong answers all Pings before it too.
        self._newest: PongWaiter | None = None
        self._life_at = 0.0
        self._reading = True
        self._stopped = False
        self.watching: bool = False
        """Whether a sign of life is worth to be told: a Ping is out."""

    def start(self, pinger: Pinger, line: Line, task_group: TaskGroup) -> None:
        """Begin, if there is anything to do.

        Args:
            pinger: sends the Pings, and is told when the time is over.
            line: has the timer, and what leaves.
            task_group: where to start a task when the time is over.
        """
        if self._interval is not None and not self._stopped:
            self._pinger = pinger
            self._line = line
            self._task_group = task_group
            self._next_ping_at = current_time() + self._interval
            self._arm()

    def see_life(self) -> None:
        """Take that something came from the peer."""
        self._life_at = current_time()

    def pause(self) -> None:
        """Take that nothing is read any more, so that nothing can be seen of the peer."""
        self._reading = False

    def resume(self) -> None:
        """Take that reading goes on: the peer gets its whole time anew."""
        self._reading = True
        if self.watching:
            self._life_at = current_time()
            self._arm()

    def stop(self) -> None:
        """Send nothing more; the timer is free for others."""
        self._stopped = True
        self.watching = False
        self._pinger = self._line = self._task_group = None

    def _tick(self) -> None:
        if self._stopped:
            return
        now = current_time()
        if self._deadline() <= now:
            assert self._task_group is not None
            self._task_group.start_soon(self._expire_unless_alive, name="anyws keepalive")
            return
        if now >= self._next_ping_at:
            assert self._interval is not None
            self._next_ping_at = now + self._interval
            self._ping(now)
        self._arm()

    def _ping(self, now: float) -> None:
        pinger, line = self._pinger, self._line
        assert pinger is not None
        assert line is not None
        sent_size, unsent_size = line.sent_size, line.write_buffer_size
        if not self._waiting:
            self._life_at = self._read_at = now
            self._sent_size = sent_size
            self._pings.clear()
        elif len(self._pings) == _MAX_KEEPALIVE_PINGS:
            del self._pings[0]
        self._newest = pinger.send_ping()
        self._pings.append((self._newest, line.sent_size + line.write_buffer_size))
        if unsent_size and not self._behind:
            self._behind = True
            self._looked = False
            if self._reading:
                self._sent_size = sent_size  # what has left before is no news

    def _arm(self) -> None:
        if self._line is None:
            # The Ping could not be written, and that is the end: the timer is the watchdog's now.
            return
        deadline = self._deadline()
        if self._behind and self._timeout is not None:
            # First at once: what is in front of the Ping may well leave in this turn.
            wait = self._timeout / _LOOKS_AT_WRITING if self._looked else 0
            self._looked = True
            deadline = min(deadline, current_time() + wait)
        self._line.set_timer(min(self._next_ping_at, deadline), self._tick)

    async def _expire_unless_alive(self) -> None:
        """Expire if the deadline has passed still when the reader has had its turn."""
        with CancelScope(shield=True):
            for _ in range(_LAST_TURNS):
                await checkpoint()
        if self._pinger is None:
            return
        if self._deadline() <= current_time():
            self._pinger.expire_keepalive()
        else:
            self._arm()

    @property
    def _waiting(self) -> bool:
        return self._newest is not None and not self._newest.done

    def _deadline(self) -> float:
        self.watching = self._timeout is not None and self._waiting
        if self._timeout is None or not self.watching:
            self._behind = False  # there is nothing to look at until the next Ping
            return math.inf
        if self._reading:
            if self._behind:
                while self._pings[0][0].done:  # the newest is not
                    del self._pings[0]
                if self._sent_size < self._pings[0][1]:
                    self._see_reading(current_time())
                self._behind = self._sent_size < self._pings[-1][1]
            return max(self._life_at, self._read_at) + self._timeout
        return self._read_at + self._timeout if self._see_reading(current_time()) else math.inf

    def _see_reading(self, now: float) -> bool:
        """Look whether the peer reads; say whether bytes wait for that."""
        line = self._line
        assert line is not None
        if line.sent_size != self._sent_size or not line.write_buffer_size:
            self._sent_size = line.sent_size
            self._read_at = now
        return line.write_buffer_size > 0


class Watchdog:
    """Bounds the end of a connection: one deadline over flush, Close, TLS and TCP.

    Args:
        timeout: seconds from the beginning of the end; None is no limit.
        line: has the timer, which is its own from the beginning of the end on.
    """

    __slots__ = ("_ended", "_hastened", "_line", "deadline", "timeout")

    def __init__(self, timeout: float | None, line: Line) -> None:
        self.timeout: float = math.inf if timeout is None else timeout
        self._line = line
        self._ended = False
        self._hastened = False
        self.deadline: float = math.inf

    def begin(self, expire: Callable[[], None]) -> None:
        """Start the clock, unless `hasten()` has.

        Args:
            expire: what to do when the time is over.
        """
        if self.deadline == math.inf:
            self._set(current_time() + self.timeout, expire)

    def hasten(self, timeout: float, expire: Callable[[], None]) -> None:
        """Leave at most `timeout` seconds from now, unless all is over; later calls do nothing."""
        if self._hastened:
            return
        self._hastened = True
        deadline = current_time() + min(timeout, self.timeout)
        if deadline < self.deadline and not self._ended:
            self._set(deadline, expire)

    def end(self) -> None:
        """Take that the connection has ended."""
        self._ended = True
        self._set(math.inf, None)

    def _set(self, deadline: float, expire: Callable[[], None] | None) -> None:
        self.deadline = deadline
        self._line.set_timer(deadline, expire)
