"""One message to many connections: encoded once, written to each.

Owns who is skipped, who is waited for, and who is too slow.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Literal

from anyio import create_task_group, move_on_after
from anyio.lowlevel import checkpoint

from ._cancellation import bare, raise_as_is
from ._checks import check_choice, check_seconds
from ._connection import Connection
from ._link import Link
from ._patience import PATIENCE
from ._types import OPEN, Close, CloseCode, DataLike
from .exceptions import ConnectionClosed
from .sansio._messages import SharedMessage

__all__ = ["broadcast", "broadcast_wait"]


def broadcast(
    connections: Iterable[Connection],
    message: DataLike,
    *,
    text: bool | None = None,
    slow: Literal["close", "drop"] = "close",
) -> None:
    """Send a message to many connections. Never waits.

    It is encoded once for all connections of servers that have agreed on the same compression.
    Connections that are not open are skipped; so are those in the midst of a fragmented message,
    with a record in their log. It comes before tasks that wait to send.

    Who sends much in a row lets the event loop run in between: what was written leaves then, and a
    connection that could take it is not slow.

    Args:
        connections: to whom.
        message: str for Text; bytes, bytearray or memoryview for Binary.
        text: as in `Connection.send()`.
        slow: what happens to a connection with more than its high-water mark (`write_limit`)
            unsent: "close" closes it with 1013, "drop" leaves the message out.

    Raises:
        TypeError: the message is of another type, as an iterable is, one of the connections is
            none, or `slow` is no str; nothing was sent.
        ValueError: a str has a lone surrogate, and so no UTF-8, or `slow` is neither of the two;
            nothing was sent.
    """
    check_choice("slow", slow, ("close", "drop"))
    shared = SharedMessage(message, text)
    for link in _links(connections):
        protocol = link.protocol
        transport = link.transport
        if protocol.state is not OPEN:
            continue
        if link.outbox.fragmenting is not None:
            link.logger.warning("message left out: a fragmented message is being sent")
        elif transport.write_buffer_size <= link.outbox.high:
            transport.write(protocol.send_shared(shared))
            if link.watcher is not None:
                link.watcher.message_sent(message)
        elif slow == "close":
            _close_slow(link)
        else:
            link.logger.debug("message left out: %d bytes unsent", link.transport.write_buffer_size)


async def broadcast_wait(
    connections: Iterable[Connection],
    message: DataLike,
    *,
    text: bool | None = None,
    timeout: float | None = 10.0,
) -> None:
    """Send a message to many connections, and wait for those that are slow.

    It is encoded as by `broadcast()`. Each connection may take `timeout` seconds to end a
    fragmented message and to send all but its high-water mark (`write_limit`); who needs longer is
    closed with 1013, or with 1011 where the fragmented message is not complete. Connections that
    are not open are skipped.

    Args:
        connections: to whom.
        message: str for Text; bytes, bytearray or memoryview for Binary.
        text: as in `Connection.send()`.
        timeout: seconds for each connection, all at the same time; None is no limit.

    Raises:
        TypeError: the message is of another type, as an iterable is, or one of the connections is
            none; nothing was sent.
        ValueError: a str has a lone surrogate, and so no UTF-8, or the timeout is not above 0;
            nothing was sent.

    Cancellation: each connection has sent the message whole, or nothing of it.
    """
    check_seconds("timeout", timeout)
    shared = SharedMessage(message, text)
    late: list[tuple[Link, bool]] = []
    for link in _links(connections):
        if link.protocol.state is not OPEN:
            continue
        sent = not link.outbox.must_wait
        if sent:
            _send(link, shared, message)
        if link.outbox.must_wait:
            late.append((link, sent))
    if not late:
        await checkpoint()
        return
    try:
        async with create_task_group() as task_group:
            for link, sent in late:
                task_group.start_soon(_send_late, link, shared, sent, message, timeout)
    except BaseExceptionGroup as group:
        raise_as_is(bare(group))


def _links(connections: Iterable[Connection]) -> list[Link]:
    connections = list(connections)
    try:
        return [connection._link for connection in connections]
    except AttributeError:
        wrong = next(it for it in connections if not isinstance(it, Connection))
        kind = type(wrong).__name__
        raise TypeError(f"connections has a {kind}, expected anyws.Connection") from None


def _send(link: Link, shared: SharedMessage, message: DataLike) -> None:
    link.transport.write(link.protocol.send_shared(shared))
    if link.watcher is not None:
        link.watcher.message_sent(message)


async def _send_late(
    link: Link, shared: SharedMessage, sent: bool, message: DataLike, timeout: float | None
) -> None:
    # What ends the connection ends the wait: nothing more can be sent.
    with move_on_after(timeout) as scope, link.closing_scopes.new(), suppress(ConnectionClosed):
        if not sent:
            await link.outbox.ready()
            _send(link, shared, message)
        await link.outbox.drain()
    if scope.cancelled_caught:
        _close_slow(link)


def _close_slow(link: Link) -> None:
    link.logger.info("closed: too slow, with %d bytes unsent", link.transport.write_buffer_size)
    link.start_close(Close(CloseCode.TRY_AGAIN_LATER, "too slow"), patience=PATIENCE)
