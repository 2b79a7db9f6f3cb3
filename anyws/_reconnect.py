"""Connecting again and again: one block, in which one connection follows the other.

Owns when the next attempt is made, and which errors end it all; how a connection is opened stands
in `_client`, how it is left in `_lifespan`.

The session has one task group, entered with its block, for the tasks of all its connections. So a
connection is opened and left without a cancel scope that would have to be left before another: the
loop may stand in any scope of the caller's, and be left at any point.
"""

import datetime as dt
import email.utils
import logging
import math
import random
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Unpack

from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    create_task_group,
    current_time,
    get_current_task,
    sleep,
    sleep_until,
)

from ._arguments import ReconnectArguments
from ._checks import (
    check_arguments,
    check_callable,
    check_extensions,
    check_plain_function,
)
from ._client import connect
from ._connection import Connection
from ._http import Headers, Response
from ._leaving import end_link
from ._lifespan import begin_connection, leave_task_group
from ._tasks import UserTasks, check_awaitable
from .exceptions import (
    ConnectionClosed,
    ConnectionClosedOK,
    InvalidMessage,
    InvalidStatus,
    ProxyError,
)
from .sansio._extensions import ClientExtension
from .sansio._headers import check_subprotocols
from .sansio._uri import parse_uri

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Backoff", "Session", "default_retry", "reconnect"]

_LOGGER = logging.getLogger("anyws.client")

# Seconds; a day. By mistake or not, no server is to silence a client for longer.
_MAX_RETRY_AFTER = 86400.0

# Replies of SOCKS proxies: that something failed, that network or host cannot be reached, that the
# connection was refused, that it took too long (RFC 1928 section 6); and the one of SOCKS4 for all
# of these. The others are rules and passwords, or protocols that a proxy does not have.
_PASSING_REPLIES = {1, 3, 4, 5, 6, 91}

# What the other side of TLS says of our certificate, or of its absence, as OpenSSL names it
# (RFC 8446 section 6.2).
_CERTIFICATE = re.compile("ALERT_.*CERTIFICATE|ALERT_UNKNOWN_CA")

_DIGITS = re.compile("[0-9]+")

_USAGE = "use `async with reconnect(...) as session`, and `async for ws in session` in it"


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt: longer each time, up to a limit.

    Args:
        initial: seconds before the second attempt, at the most.
        factor: by what each further wait is longer.
        max: seconds that no wait exceeds.
        jitter: whether to wait for a random part of that time, from none to all of it ("full
            jitter"): clients that a server has lost together do not come back together.
        stable_after: seconds that a connection must stay open before the waits begin anew.

    Raises:
        ValueError: a number is out of its range.
        TypeError: it is no number, or `jitter` no bool.
    """

    initial: float = 0.5
    factor: float = 2.0
    max: float = 60.0
    jitter: bool = True
    stable_after: float = 10.0

    def __post_init__(self) -> None:
        if not isinstance(self.jitter, bool):
            raise TypeError(f"jitter must be a bool, not {type(self.jitter).__name__}")
        for name in ("initial", "factor", "max", "stable_after"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, not {type(value).__name__}")
            if not 0 < value < math.inf:
                raise ValueError(f"{name} of {value} is not above 0 and finite")
        if self.factor < 1:
            raise ValueError(f"factor of {self.factor} is under 1")
        if self.initial > self.max:
            raise ValueError(f"initial of {self.initial} seconds exceeds max of {self.max} seconds")

    def delays(self) -> Iterator[float]:
        """Give the seconds to wait before each further attempt, without end."""
        limit = self.initial
        while True:
            # Not for secrets: it spreads clients over time.
            yield random.uniform(0.0, limit) if self.jitter else limit  # noqa: S311
            limit = min(limit * self.factor, self.max)


_BACKOFF = Backoff()


def default_retry(exc: Exception) -> bool:
    """Say whether an error may be gone at the next attempt to connect.

    Errors of the network, time-outs, and HTTP 429 and 5xx may; other statuses, an answer that is no
    handshake, and a certificate that is refused, theirs or ours, may not. The answers of a proxy
    count likewise.

    Args:
        exc: what entering `connect` raised.
    """
    response = _response(exc)
    if response is not None:
        return response.status == 429 or 500 <= response.status <= 599
    if isinstance(exc, InvalidMessage | ProxyError):
        if isinstance(exc, ProxyError) and exc.reply is not None:
            return exc.reply in _PASSING_REPLIES
        # The server, or the proxy, has gone in the midst of its answer.
        ends = EndOfStream | BrokenResourceError | ClosedResourceError
        return isinstance(exc.__cause__, ends)
    if isinstance(exc, ssl.SSLCertVerificationError):
        return False
    if isinstance(exc, ssl.SSLError) and _CERTIFICATE.search(getattr(exc, "reason", None) or ""):
        return False
    return isinstance(exc, OSError | ConnectionClosed)  # a TimeoutError is an OSError


class reconnect:  # noqa: N801  # it is used as a function: `async with reconnect(uri) as session`
    """Connect, and connect again: `async with reconnect(uri) as session`.

    Then `async for ws in session` gives one connection after the other. Each is closed when the
    body of the loop ends, with 1000, and the next one is opened after a wait. The loop may be left
    in any way: by `break`, `return`, an exception or cancellation. Then leaving the block closes
    the connection, as leaving that of `connect` does. A ConnectionClosed that leaves the body of
    the loop leaves the block too, unless it is caught; `async for message in ws` alone ends quietly
    when the server closes in good order.

    Args:
        uri: as for `connect`.
        backoff: how long to wait between attempts. To that the Retry-After of an HTTP 429 or 503
            is added, one day at the most.
        retry: a plain function; says whether an error of an attempt is worth another one; if not,
            it is raised as it is.
        max_attempts: after so many failures in a row the last error is raised; None is no limit. A
            connection that the other side ended before `backoff.stable_after` is a failure; one
            that has stayed open for so long ends the row.
        arguments: those of `connect`, but `stream`.

    Raises:
        ValueError: an argument is out of its range; InvalidURI is one.
        TypeError: an argument has the wrong type.

    Cancellation: nothing is left open.
    """

    def __init__(
        self,
        uri: str,
        *,
        backoff: Backoff = _BACKOFF,
        retry: Callable[[Exception], bool] = default_retry,
        max_attempts: int | None = None,
        **arguments: Unpack[ReconnectArguments],
    ) -> None:
        check_arguments("reconnect", arguments, {"stream"})
        if not isinstance(backoff, Backoff):
            raise TypeError(f"backoff must be a Backoff, not {type(backoff).__name__}")
        check_plain_function("retry", retry)  # what an async one gives would count as True
        check_max_attempts(max_attempts)
        # They are read for each attempt, and an iterator could be read only once.
        if "additional_headers" in arguments:
            arguments["additional_headers"] = Headers(arguments["additional_headers"])
        if "subprotocols" in arguments:
            arguments["subprotocols"] = check_subprotocols(arguments["subprotocols"] or ())
        if "extensions" in arguments:
            arguments["extensions"] = check_extensions(arguments["extensions"], ClientExtension)
        connect(uri, **arguments)  # what is wrong with them is told now
        self._entered = False
        self._session = Session(uri, arguments, backoff, retry, max_attempts)

    if not TYPE_CHECKING:  # type checkers find the mistakes by the lack of these

        def __await__(self) -> NoReturn:
            raise TypeError(f"reconnect() cannot be awaited: {_USAGE}")

        def __aiter__(self) -> NoReturn:
            raise TypeError(f"reconnect() cannot be iterated over: {_USAGE}")

    async def __aenter__(self) -> "Session":
        if self._entered:
            raise RuntimeError(f"{type(self).__name__}() can be entered only once: call it again")
        self._entered = True
        await self._session._enter()
        return self._session

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session._leave(exc)


class Session:
    """One connection after the other: `async for ws in session`; made by `reconnect`.

    All of it is for the task that has entered the block.
    """

    def __init__(
        self,
        uri: str,
        arguments: ReconnectArguments,
        backoff: Backoff,
        retry: Callable[[Exception], bool],
        max_attempts: int | None,
    ) -> None:
        self.attempts: int = 0
        """How many attempts to connect there have been, since the block was entered."""
        self.last_error: Exception | None = None
        """Why the last attempt that failed did so, or why the last connection that the other side
        has ended did; None before there is one."""
        self._uri = uri
        self._place = parse_uri(uri)
        self._arguments = arguments
        self._backoff = backoff
        self._retry = retry
        self._max_attempts = max_attempts
        self._logger = arguments.get("logger") or _LOGGER
        self._connection: Connection | None = None
        # Those of the last connection.
        self._tasks = UserTasks()
        # Whether it has stayed open for long enough.
        self._stable = False
        # Since the last one that did: what to wait, and how many failures there were.
        self._delays = backoff.delays()
        self._failures = 0
        # When the next attempt may be made, by the clock of the event loop.
        self._due = -math.inf
        self._task_group: TaskGroup  # in the block
        # The task that is inside the block, from its beginning to its end.
        self._task_id = 0
        self._left = False

    def __aiter__(self) -> "Session":
        return self

    async def __anext__(self) -> Connection:
        """Leave the last connection, wait, and open the next one.

        Raises:
            Exception: what `retry` refused, or what came after `max_attempts` failures.
            RuntimeError: the block is not that of this task.

        Cancellation: there is no open connection; the next call goes on waiting.
        """
        if self._left:
            raise RuntimeError("the block of reconnect() has been left")
        if self._task_id != get_current_task().id:
            raise RuntimeError(
                "a session of reconnect() gives connections only to the task that has entered its"
                " block; pass it the connection, or enter reconnect() in the other task"
            )
        if self._connection is not None:
            self._tasks = self._connection._link.user_tasks
            await self._end(self._connection)
        # As the block of a connection does: what uses the last one is over before the next comes.
        await self._tasks.wait()
        while True:
            await sleep_until(self._due)
            connection = await self._attempt()
            if connection is not None:
                return connection

    async def run(self, handler: Callable[[Connection], Awaitable[object]]) -> NoReturn:
        """Call `handler` with each connection; when it returns, close that and open the next one.

        The ConnectionClosed of its connection that leaves the handler means: connect again.

        Args:
            handler: an async function.

        Raises:
            TypeError: the handler cannot be called, or is no async function.
            Exception: what else leaves the handler; and as `async for ws in session`.

        Cancellation: the handler is cancelled; leaving the block drops its connection.
        """
        check_callable("handler", handler)
        while True:
            connection = await anext(self)
            try:
                await check_awaitable("handler", handler(connection))
            except Exception as exc:
                if not connection._link.ending.is_of(exc):
                    raise

    async def _enter(self) -> None:
        self._task_group = create_task_group()
        await self._task_group.__aenter__()
        self._task_id = get_current_task().id

    async def _leave(self, exc: BaseException | None) -> None:
        self._left = True
        interruption = None
        if self._connection is not None:
            interruption = await end_link(self._connection._link, exc)
        await leave_task_group(self._task_group, exc, interruption)

    async def _attempt(self) -> Connection | None:
        """Open a connection; give None if that failed and is worth another attempt."""
        self.attempts += 1
        try:
            opened = await connect(self._uri, **self._arguments)._open_in_time()
        except Exception as exc:
            self.last_error = exc
            wanted = self._retry(exc)
            if not isinstance(wanted, bool):
                # Such as the exception that websockets' process_exception returns to stop.
                kind = type(wanted).__name__
                raise TypeError(f"retry returned {kind}, expected a bool") from exc
            if not wanted or self._count_failure():
                raise
            self._schedule(f"{type(exc).__name__}: {exc}", parse_retry_after(exc))
            return None
        connection, trailing_data = opened
        self._connection = connection
        self._stable = False
        try:
            await begin_connection(connection, self._task_group, trailing_data)
        except BaseException:
            self._connection = None  # it is over already
            raise
        self._task_group.start_soon(self._watch, connection, name="anyws reconnect")
        return connection

    async def _watch(self, connection: Connection) -> None:
        """Begin the back-off anew once the connection has stayed open for long enough."""
        with connection.cancel_on_close():
            await sleep(self._backoff.stable_after)
            self._stable = True
            self._delays = self._backoff.delays()
            self._failures = 0

    async def _end(self, connection: Connection) -> None:
        """Close a connection that the body of the loop is done with, and take how it ended."""
        self._connection = None
        was_open = connection.open
        interruption = await end_link(connection._link, None)
        error = connection._link.ending.error()
        ours = isinstance(error, ConnectionClosedOK) and not error.rcvd_then_sent
        if was_open or ours:
            self._schedule("the last connection was left")
        else:
            self.last_error = error
            if not self._stable and self._count_failure() and interruption is None:
                raise error
            self._schedule(f"{type(error).__name__}: {error}")
        if interruption is not None:
            raise interruption

    def _count_failure(self) -> bool:
        """Take that there was another failure; say whether it was one too many."""
        self._failures += 1
        return self._failures == self._max_attempts

    def _schedule(self, reason: str, retry_after: float = 0.0) -> None:
        """Decide when the next attempt is made, and tell it."""
        # Not the longer of the two: all who were sent away would come back at the same time.
        delay = retry_after + next(self._delays)
        self._due = current_time() + delay
        self._logger.info(
            "attempt %d to connect to %s in %.2f s: %s",
            self.attempts + 1,
            self._place,
            delay,
            reason,
        )


def check_max_attempts(max_attempts: int | None) -> None:
    """See that it is a number of attempts, or None.

    Raises:
        ValueError: it is under 1.
        TypeError: it is no integer.
    """
    if max_attempts is None:
        return
    if isinstance(max_attempts, bool) or not isinstance(max_attempts, int):
        kind = type(max_attempts).__name__
        raise TypeError(f"max_attempts must be an int or None, not {kind}")
    if max_attempts < 1:
        raise ValueError(f"max_attempts of {max_attempts} is under 1")


def parse_retry_after(exc: Exception) -> float:
    """Give the seconds for which a server wants to be left alone (RFC 9110 section 10.2.3)."""
    response = _response(exc)
    if response is None or response.status not in {429, 503}:
        return 0.0
    value = response.headers.get("Retry-After", "")
    if _DIGITS.fullmatch(value):
        return min(float(value), _MAX_RETRY_AFTER)
    at = _parse_date(value)
    if at is None:
        return 0.0
    return min(max(at - _date(response), 0.0), _MAX_RETRY_AFTER)


def _response(exc: Exception) -> Response | None:
    """Give the answer in HTTP that an error is about, of the server or of a proxy."""
    return exc.response if isinstance(exc, InvalidStatus | ProxyError) else None


def _date(response: Response) -> float:
    """Give when a response was made, by the clock of its server if that tells."""
    date = _parse_date(response.headers.get("Date", ""))
    return time.time() if date is None else date


def _parse_date(text: str) -> float | None:
    """Give an HTTP date as seconds since 1970; None if it is none."""
    try:
        date = email.utils.parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=dt.UTC)
        return date.timestamp()
    except (ValueError, OverflowError):
        return None
