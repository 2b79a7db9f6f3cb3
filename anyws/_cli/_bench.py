"""`anyws bench`: a small load on an echo server, and what it took.

Owns the load, which is bounded, and its figures: those of client and server together.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter, deque
from contextlib import AsyncExitStack
from time import perf_counter
from typing import TYPE_CHECKING

from anyio import (
    CancelScope,
    CapacityLimiter,
    Event,
    WouldBlock,
    create_task_group,
    move_on_after,
    sleep,
)

from ..exceptions import ConnectionClosed, InvalidHandshake
from ._arguments import MAX_SECONDS
from ._connecting import Interruption, make_connection
from ._descriptors import Descriptor
from ._formatting import complain
from ._statuses import FAILED, OK, SIGNALLED, TIMED_OUT, describe_failure, status_of_failure

if TYPE_CHECKING:
    from .._connection import Connection
    from ._arguments import BenchArguments

# Connections that are opened at the same time: more would wait in the server's backlog.
_OPENING_AT_ONCE = 50

# Seconds between two states of the progress bar.
_PROGRESS_INTERVAL = 0.1
_BAR_WIDTH = 30

# Seconds beyond those of the load, for opening, late answers and closing.
_MORE_SECONDS = 60

# Of latencies, which are counted by their logarithm: each class is 1 % wide.
_CLASSES = 1 / math.log(1.01)


class Latencies:
    """Times, counted in classes of 1 %: as many as come take no more memory than a few."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.largest = 0.0

    def add(self, seconds: float) -> None:
        """Count a time."""
        self._counts[round(math.log(max(seconds, 1e-9)) * _CLASSES)] += 1
        self.count += 1
        self.largest = max(self.largest, seconds)

    def percentile(self, percent: float) -> float:
        """Give the seconds that this share of the times does not exceed, to half a percent."""
        wanted = self.count * percent / 100
        seen = 0
        for name in sorted(self._counts):
            seen += self._counts[name]
            if seen >= wanted:
                return min(math.exp(name / _CLASSES), self.largest)
        return self.largest

    def figures(self) -> dict[str, float]:
        """Give the usual percentiles and the largest, in seconds."""
        return {
            "p50": self.percentile(50),
            "p90": self.percentile(90),
            "p99": self.percentile(99),
            "max": self.largest,
        }


class BenchError(Exception):
    """The server does not do what an echo server does."""


class Bench:
    """One measurement.

    Args:
        arguments: what the user wants.
    """

    def __init__(self, arguments: BenchArguments) -> None:
        self._arguments = arguments
        self.opening = Latencies()
        self.latencies = Latencies()
        self.opening_seconds = 0.0
        """From the beginning of the first connection until all are open."""
        self.seconds = 0.0
        """From the first message to the last answer."""
        self.error: Exception | None = None
        self._payload = os.urandom(arguments.size)
        self._unsent = arguments.messages
        self._opened = 0
        self._ended = 0
        self._all_opened = Event()
        self._all_ended = Event()
        self._started_at = perf_counter()

    @property
    def progress(self) -> float:
        """How much is done, from 0 to 1."""
        arguments = self._arguments
        if not self._all_opened.is_set():
            return 0.0
        if arguments.seconds is None:
            return self.latencies.count / arguments.messages
        return min((perf_counter() - self._started_at) / arguments.seconds, 1.0)

    @property
    def rate(self) -> float:
        """Messages a second, there and back, so far."""
        return self.latencies.count / (self.seconds or perf_counter() - self._started_at)

    async def run(self, interruption: Interruption) -> None:
        """Open all connections, then send on all of them; `error` is set if that fails.

        Cancellation: all connections are dropped.
        """
        with interruption.cancels(CancelScope()) as scope:
            async with create_task_group() as tasks:
                limiter = CapacityLimiter(_OPENING_AT_ONCE)
                for _ in range(self._arguments.connections):
                    tasks.start_soon(self._connect, limiter, scope)

    async def _connect(self, limiter: CapacityLimiter, scope: CancelScope) -> None:
        try:
            async with AsyncExitStack() as stack:
                async with limiter:
                    started_at = perf_counter()
                    connection = make_connection(self._arguments)
                    ws = await stack.enter_async_context(connection)
                    self.opening.add(perf_counter() - started_at)
                self._count_opened()
                await self._all_opened.wait()
                await self._exchange(ws)
                self._count_ended()
                # Closing would be measured with the messages of the others.
                await self._all_ended.wait()
        except (BenchError, ConnectionClosed, InvalidHandshake, OSError, ImportError) as exc:
            self.error = self.error or exc
            scope.cancel()

    def _count_opened(self) -> None:
        self._opened += 1
        if self._opened == self._arguments.connections:
            now = perf_counter()
            self.opening_seconds = now - self._started_at
            self._started_at = now
            self._all_opened.set()

    def _count_ended(self) -> None:
        self._ended += 1
        if self._ended == self._arguments.connections:
            self.seconds = perf_counter() - self._started_at
            self._all_ended.set()

    async def _exchange(self, ws: Connection) -> None:
        """Send and receive until there is nothing more to send, and all is answered.

        Raises:
            BenchError: what came is not what was sent.
            ConnectionClosed: the connection has ended.
        """
        payload = self._payload
        sent_at: deque[float] = deque()
        while True:
            while len(sent_at) < self._arguments.window and self._may_send():
                try:
                    ws.send_nowait(payload)
                except WouldBlock:
                    break  # to wait here would be to wait for a peer that waits for us to receive
                self._unsent -= 1
                sent_at.append(perf_counter())
            if not sent_at:
                return
            if await ws.recv() != payload:
                raise BenchError("the server does not send back what it gets")
            self.latencies.add(perf_counter() - sent_at.popleft())

    def _may_send(self) -> bool:
        seconds = self._arguments.seconds
        if seconds is None:
            return self._unsent > 0
        return perf_counter() < self._started_at + seconds


async def bench(arguments: BenchArguments) -> int:
    """Measure, print the result, and give the exit status.

    Raises:
        SystemExit: an argument is wrong.

    Cancellation: all connections are dropped.
    """
    make_connection(arguments)  # a wrong argument ends it here, and not in a task of many
    interruption = Interruption()
    measurement = Bench(arguments)
    timeout = arguments.timeout or MAX_SECONDS + _MORE_SECONDS
    async with create_task_group() as tasks:
        await tasks.start(interruption.watch)
        if sys.stderr is not None and sys.stderr.isatty():
            tasks.start_soon(_show_progress, measurement)
        with move_on_after(timeout) as whole:
            await measurement.run(interruption)
        tasks.cancel_scope.cancel()
    if interruption.signum is not None:
        return SIGNALLED + interruption.signum
    if whole.cancelled_caught:
        complain(f"time-out: {timeout:g} seconds are over")
        return TIMED_OUT
    if measurement.error is not None:
        return _complain_of(measurement.error)
    return await _print(
        _build_json(measurement) if arguments.json else _build_text(measurement, arguments)
    )


async def _print(text: str) -> int:
    """Write the result to standard output, and give the exit status."""
    if sys.stdout is None:
        return OK  # who has closed it wants the status alone
    # Not by print(): what its buffer keeps would fail once more when the interpreter ends.
    try:
        await Descriptor(sys.stdout.fileno()).write(f"{text}\n".encode())
    except BrokenPipeError:
        return OK  # `| head -1` has what it wants
    except OSError as exc:
        complain(f"cannot write the output: {exc.strerror}")
        return FAILED
    return OK


def _complain_of(error: Exception) -> int:
    if isinstance(error, BenchError):
        complain(str(error))
        return FAILED
    complain(describe_failure(error))
    return status_of_failure(error) or FAILED  # a good end is none before the end


async def _show_progress(measurement: Bench) -> None:
    """Keep a bar on stderr, until cancelled.

    Cancellation: the bar is removed.
    """
    try:
        while True:
            sys.stderr.write(f"\r{build_bar(measurement.progress)} {measurement.rate:,.0f}/s\x1b[K")
            sys.stderr.flush()
            await sleep(_PROGRESS_INTERVAL)
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def build_bar(progress: float) -> str:
    """Draw how much is done, from 0 to 1."""
    done = round(progress * _BAR_WIDTH)
    return f"[{'#' * done}{'.' * (_BAR_WIDTH - done)}] {progress:4.0%}"


def _build_text(measurement: Bench, arguments: BenchArguments) -> str:
    latencies = measurement.latencies
    size, window = arguments.size, arguments.window
    lines = [
        "client and server together:",
        f"{arguments.connections:,} connections, open after {_show(measurement.opening_seconds)}",
        f"{latencies.count:,} messages of {size:,} bytes, {window:,} at a time",
        f"rate     {measurement.rate:,.0f} messages/s, there and back",
        f"opening  {_join(measurement.opening)}",
        f"latency  {_join(latencies)}",
    ]
    return "\n".join(lines)


def _join(latencies: Latencies) -> str:
    figures = latencies.figures().items()
    return "   ".join(f"{name} {_show(seconds)}" for name, seconds in figures)


def _show(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"


def _build_json(measurement: Bench) -> str:
    return json.dumps(
        {
            "connections": measurement.opening.count,
            "messages": measurement.latencies.count,
            "seconds": measurement.seconds,
            "rate": measurement.rate,
            "opening_seconds": measurement.opening_seconds,
            "opening": measurement.opening.figures(),
            "latency": measurement.latencies.figures(),
        }
    )
