"""The connection: what a user holds, and the one place where bytes, messages and tasks meet.

Owns the public methods and the synchronous path from a received chunk to the inbox, the waiters and the
replies; knows no frame and no socket. RFC 6455 sections 5 to 7; its tasks are run by `_lifespan`.

Invariants, each with a test in tests/test_invariants.py:

1. The reader never awaits a write.
2. A frame is whole: what `write` took goes out, whatever is cancelled.
3. Memory is bounded both ways: a full inbox stops reading and decoding, a full buffer makes `send` wait,
   Pongs coalesce to the newest Ping.
4. Every wait ends within `close_timeout` of peer, network or user giving up. Every shield has a deadline.
5. The connection's own tasks never raise; the body's exception leaves as itself.
6. State changes only in `Protocol`, with no await between check and change.
7. What came before the Close frame is delivered before ConnectionClosed.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack

import anyio
from anyio import CancelScope, Event
from anyio.abc import ObjectStream, SocketAttribute
from anyio.lowlevel import checkpoint

from ._fragments import OutgoingMessage, StreamedMessage, as_type
from ._inbox import MAX_CALLS_WITHOUT_YIELD, Inbox, Limits, parse_limits
from ._keepalive import Keepalive, Pings, PongWaiter, Watchdog
from ._types import (
    MAX_CONTROL_SIZE,
    BytesLike,
    Close,
    CloseCode,
    Data,
    DataLike,
    Fragment,
    Pong,
    State,
)
from .exceptions import ConcurrencyError, ConnectionClosed, KeepaliveTimeout
from .sansio._protocol import check_close, wrong_type

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Sequence

    from anyio.abc import TaskGroup

    from ._http import Request, Response
    from ._transports import Transport
    from .sansio._extensions import Extension
    from .sansio._protocol import Protocol

_Args = TypeVarTuple("_Args")

MessageLike = DataLike | Iterable[DataLike] | AsyncIterable[DataLike]
"""What send() takes: a whole message, or its fragments."""

# After both Close frames are exchanged nothing more has to be waited for. This lets the peer's last
# bytes arrive before our socket goes, which would answer them with a reset that overtakes our Close.
_LINGER_TIMEOUT = 1.0

# How often other tasks may run before a cancelled connection is dropped: the flusher needs two or three
# turns to get a Close frame out where nothing is in its way.
_DROP_TURNS = 10


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What `connect` and `serve` let a user choose for the life of a connection."""

    ping_interval: float | None = 20.0
    ping_timeout: float | None = 20.0
    close_timeout: float | None = 10.0
    max_size: int | None | tuple[int | None, int | None] = 2**20
    max_queue: Limits = 2**5
    read_limit: Limits = 2**16
    write_limit: Limits = 2**16

    def __post_init__(self) -> None:
        for name in ("ping_interval", "ping_timeout", "close_timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} of {value} seconds is not above 0")
        parse_limits("max_queue", self.max_queue, 4)
        parse_limits("read_limit", self.read_limit, 2)
        parse_limits("write_limit", self.write_limit, 4)


class Connection(ObjectStream[Data]):
    """An open WebSocket connection, of a client or of a server.

    It is given by `connect`, `serve` and their like, never made by hand. Iterating over it gives the
    messages until the connection is closed with 1000, 1001 or no code; any other end raises.
    """

    def __init__(
        self,
        transport: Transport,
        protocol: Protocol,
        request: Request,
        response: Response,
        subprotocol: str | None,
        options: ConnectionOptions,
        logger: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._request = request
        self._response = response
        self._subprotocol = subprotocol
        self._options = options
        self._logger = logger
        self._id = uuid.uuid4()
        write_high, write_low = parse_limits("write_limit", options.write_limit, 4)
        self._write_high = write_high
        self._write_low = write_low or 0
        self._inbox = Inbox(
            parse_limits("max_queue", options.max_queue, 4),
            parse_limits("read_limit", options.read_limit, 2),
        )
        self._reading_paused = False
        self._streaming = False
        # Whether what still comes of a message that recv_streaming() left is to be dropped.
        self._skipping = False
        self._dropping = False
        # Set while a fragmented message is being sent: set() lets the next sender go.
        self._fragmenting: Event | None = None
        self._calls_left = MAX_CALLS_WITHOUT_YIELD
        self._pings = Pings()
        self._latency = 0.0
        self._keepalive = Keepalive(
            options.ping_interval, options.ping_timeout, self._send_ping, self._expire_keepalive
        )
        self._keepalive_expired = False
        self._cause: BaseException | None = None
        # The end: it begins when the state is no longer open, is settled when its Close frames can
        # change no more, and is over when the transport is closed.
        self._ending = False
        self._settled = Event()
        self._closed = Event()
        self._watchdog = Watchdog(options.close_timeout, self._closed, self.abort)
        self._closing_scopes: weakref.WeakSet[CancelScope] = weakref.WeakSet()
        self._user_scopes: set[CancelScope] = set()
        self._task_group: TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} {self._id} {self.state.value}>"

    # What is known of the connection.

    @property
    def id(self) -> uuid.UUID:
        """A random identifier, for logs."""
        return self._id

    @property
    def request(self) -> Request:
        """The request of the opening handshake."""
        return self._request

    @property
    def response(self) -> Response:
        """The response of the opening handshake."""
        return self._response

    @property
    def path(self) -> str:
        """The target of the request: path and query."""
        return self._request.path

    @property
    def data(self) -> dict[str, Any]:
        """For the application's own use; a server's `process_request` can fill it."""
        return self._request.data

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on."""
        return self._subprotocol

    @property
    def extensions(self) -> Sequence[Extension]:
        """The extensions in use, with the parameters that were agreed on."""
        return () if self._protocol.extension is None else (self._protocol.extension,)

    @property
    def local_address(self) -> Any:
        """Our address as the socket below gives it; None if there is no socket."""
        return self.extra(SocketAttribute.local_address, None)

    @property
    def remote_address(self) -> Any:
        """The peer's address as the socket below gives it; None if there is no socket."""
        return self.extra(SocketAttribute.remote_address, None)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The typed attributes of the stream below: TLS, addresses, the raw socket."""
        return self._transport.extra_attributes

    @property
    def logger(self) -> logging.Logger | logging.LoggerAdapter[Any]:
        """Where the connection logs."""
        return self._logger

    @property
    def state(self) -> State:
        """OPEN, CLOSING or CLOSED."""
        return self._protocol.state

    @property
    def open(self) -> bool:
        """Whether messages can be sent; False as soon as closing begins."""
        return self._protocol.state is State.OPEN

    @property
    def closed(self) -> bool:
        """Whether the connection is over; False while it is closing."""
        return self._protocol.state is State.CLOSED

    @property
    def close_code(self) -> int | None:
        """The close code that the peer sent, 1006 if none came; None until closed."""
        return self._protocol.close_exc().code if self.closed else None

    @property
    def close_reason(self) -> str | None:
        """The close reason that the peer sent, empty if none came; None until closed."""
        return self._protocol.close_exc().reason if self.closed else None

    @property
    def latency(self) -> float:
        """Seconds from the last answered Ping to its Pong; 0 before the first."""
        return self._latency

    # Receiving.

    async def recv(self, decode: bool | None = None) -> Data:
        """Receive the next message (RFC 6455 section 5.6).

        Args:
            decode: True gives Binary messages as str too, False gives Text messages as UTF-8 bytes.

        Returns:
            A str for Text, bytes for Binary.

        Raises:
            ConnectionClosedOK: the connection was closed with 1000, 1001 or no code. What was received
                before is given first.
            ConnectionClosedError: it ended in any other way.
            ConcurrencyError: another task is receiving.
            UnicodeDecodeError: a Binary message that `decode` asks to be str is not UTF-8; it stays the
                next message.

        Cancellation: no message is lost; the next call gets it.
        """
        if self._streaming:
            raise ConcurrencyError("recv_streaming() is in use on this connection")
        message = await self._next_message()
        assert type(message) is not Fragment
        if decode is not None:
            message = as_type(message, text=decode)
        self._pop()
        return message

    async def receive(self) -> Data:
        """Receive the next message: `recv()` by the name that anyio's streams have for it.

        Cancellation: no message is lost; the next call gets it.
        """
        return await self.recv()

    def recv_streaming(self, decode: bool | None = None) -> StreamedMessage:
        """Receive the next message in fragments, as they come (RFC 6455 section 5.4).

        Use it as `async with ws.recv_streaming() as fragments:` and iterate over `fragments` with
        `async for`. A message that has already come whole is one fragment. Leaving the block early
        skips the rest of the message.

        Args:
            decode: as in `recv()`.

        Raises:
            ConcurrencyError: on entering the block, when it is in use already; in the iteration, when
                another task is receiving.
            ConnectionClosed: in the iteration, when the connection ends before the message does.

        Cancellation: the iteration loses no fragment; leaving the block by it skips the rest.
        """
        return StreamedMessage(self, decode)

    def _begin_streaming(self) -> None:
        if self._streaming:
            raise ConcurrencyError("recv_streaming() is in use on this connection")
        self._streaming = True
        if not self._inbox:
            self._protocol.decoder.fragments = True
            self._feed(b"")

    def _end_streaming(self, *, begun: bool, complete: bool) -> None:
        """Drop what has come of the message that recv_streaming() left, and what will."""
        self._streaming = False
        inbox = self._inbox
        if complete:
            return
        if not begun and not inbox:
            # Nothing of it was seen: the next recv() gets it whole.
            self._protocol.decoder.fragments = False
            return
        while inbox:
            message = inbox.head
            self._pop()
            if type(message) is not Fragment or message.fin:
                return
        self._skipping = True

    async def _next_message(self) -> Data | Fragment:
        """Wait for the next message and give it, without taking it out of the inbox."""
        if not await self._inbox.ready():
            raise self._closed_error()
        return self._inbox.head

    def _pop(self) -> None:
        """Take the oldest message out of the inbox, and read on if there is room again."""
        inbox = self._inbox
        inbox.pop()
        if self._reading_paused and inbox.low:
            self._reading_paused = False
            self._feed(b"")
            if not self._reading_paused:
                self._keepalive.resume()
                self._transport.resume_reading()

    def _feed(self, data: bytes) -> None:
        """Take a chunk from the transport. Never waits."""
        protocol = self._protocol
        inbox = self._inbox
        if self._keepalive.watching:
            self._keepalive.see_life()
        while True:
            for event in protocol.receive_data(data, inbox.byte_room, inbox.message_room):
                kind = type(event)
                if kind is str or kind is bytes or kind is Fragment:
                    self._take_message(event)  # type: ignore[arg-type]  # one of the three
                elif kind is Pong:
                    self._take_pong(event)  # type: ignore[arg-type]  # its exact type is Pong
            self._write_replies()
            if not protocol.expects_data:
                self._settle(protocol.failure)
            if not protocol.decoder.pending:
                break
            if inbox.full and not self._ending:
                break
            data = b""
        if inbox.full and not self._ending:
            self._reading_paused = True
            self._keepalive.pause()
            self._transport.pause_reading()

    def _take_message(self, message: Data | Fragment) -> None:
        if self._skipping and type(message) is Fragment:
            self._skipping = not message.fin
        elif self._ending and (self._dropping or self._inbox.full):
            # We have sent our Close, and nobody has made room for what the peer sent before its own:
            # it is dropped, and all after it, or else that Close would not be reached.
            self._dropping = True
        else:
            self._inbox.put(message)

    def _take_pong(self, pong: Pong) -> None:
        latency = self._pings.receive_pong(pong.data)
        if latency is not None:
            self._latency = latency

    def _write_replies(self) -> None:
        protocol = self._protocol
        transport = self._transport
        if (
            protocol.pong_to_send
            and self._write_high is not None
            and transport.write_buffer_size > self._write_high
        ):
            # The peer does not read: one Pong is kept for it, whatever it sends.
            transport.write_latest(protocol.data_to_send(newest_pong=True))
            return
        replies = protocol.data_to_send()
        if replies:
            transport.write(replies)
        if protocol.state is not State.OPEN:
            self._begin_end()

    # Sending.

    async def send(
        self, message: MessageLike, *, text: bool | None = None, compress: bool | None = None
    ) -> None:
        """Send a message.

        An iterable or asynchronous iterable is one message, each of its items a fragment (RFC 6455
        section 5.4); other messages wait until it is complete.

        Args:
            message: str for Text; bytes, bytearray or memoryview for Binary; or items of one of the two.
            text: True sends bytes-like data (which must be UTF-8) as Text, False sends a str as Binary.
            compress: whether to compress the message where that was agreed on; None decides by its size.

        Raises:
            ConnectionClosed: the connection is no longer open.
            TypeError: the message is of another type; nothing was sent. Where a later item of an iterable
                is, the message cannot be completed: the connection is closed with 1011.
            ValueError: a str or Text that is not UTF-8.

        Cancellation: a message in one piece goes out whole or not at all. Once the first item of an
        iterable is sent, the message cannot be completed: the connection is closed with 1011.
        """
        if isinstance(message, (str, bytes, bytearray, memoryview)):
            await self._ready_to_send()
            self._transport.write(
                self._protocol.send_message(message, text=text, compress=compress)
            )
            await self._drain()
        elif isinstance(message, Mapping):
            raise TypeError(wrong_type(message))
        elif isinstance(message, Iterable) or isinstance(message, AsyncIterable):  # noqa: SIM101  # narrows
            await OutgoingMessage(self, text, compress).send(message)
        else:
            raise TypeError(wrong_type(message))

    def send_nowait(
        self, message: DataLike, *, text: bool | None = None, compress: bool | None = None
    ) -> None:
        """Send a message if that needs no waiting.

        Args:
            message: as in `send()`, but no iterable.
            text: as in `send()`.
            compress: as in `send()`.

        Raises:
            anyio.WouldBlock: more than the high-water mark waits to be sent, or a fragmented message is
                being sent; nothing was sent.
            ConnectionClosed, TypeError, ValueError: as in `send()`.
        """
        if self._protocol.state is State.OPEN and (
            self._over_high or self._fragmenting is not None
        ):
            raise anyio.WouldBlock
        self._check_open()
        self._transport.write(self._protocol.send_message(message, text=text, compress=compress))

    def _write_fragment(
        self, data: DataLike, *, fin: bool, text: bool | None, compress: bool | None
    ) -> None:
        self._check_open()
        self._transport.write(
            self._protocol.send_fragment(data, fin=fin, text=text, compress=compress)
        )

    @property
    def _over_high(self) -> bool:
        return self._write_high is not None and self._transport.write_buffer_size > self._write_high

    async def _ready_to_send(self) -> None:
        """Wait for our turn and for room; the peer's reading, or the end of the connection, ends it."""
        await self._yield_if_due()
        while self._protocol.state is State.OPEN and (
            self._over_high or self._fragmenting is not None
        ):
            if self._fragmenting is not None:
                await self._fragmenting.wait()
            else:
                await self._transport.drain(self._write_low)
        if self._protocol.state is not State.OPEN:
            await self._raise_closed()

    async def _drain(self) -> None:
        if self._over_high and not await self._transport.drain(self._write_low):
            raise self._closed_error()

    async def _yield_if_due(self) -> None:
        if self._calls_left:
            self._calls_left -= 1
        else:
            self._calls_left = MAX_CALLS_WITHOUT_YIELD
            await checkpoint()

    # Pings and Pongs.

    async def ping(self, data: str | BytesLike | None = None) -> PongWaiter:
        """Send a Ping (RFC 6455 section 5.5.2).

        Args:
            data: up to 125 bytes, a str as UTF-8; None sends 4 random bytes.

        Returns:
            What to await for the latency in seconds; it raises ConnectionClosed if no Pong comes.

        Raises:
            ConnectionClosed: the connection is no longer open.
            ConcurrencyError: a Ping with the same data waits for its Pong.
            ValueError: it has more than 125 bytes.

        Cancellation: the Ping goes out whole or not at all.
        """
        payload = self._pings.new_payload() if data is None else _control_payload(data)
        await self._ready_to_control()
        self._pings.check(payload)
        self._transport.write(self._protocol.send_ping(payload))
        waiter = self._pings.add(payload)
        await self._drain()
        return waiter

    async def pong(self, data: str | BytesLike = b"") -> None:
        """Send an unsolicited Pong (RFC 6455 section 5.5.3); Pings are answered without it.

        Args:
            data: up to 125 bytes, a str as UTF-8.

        Raises:
            ConnectionClosed: the connection is no longer open.
            ValueError: it has more than 125 bytes.

        Cancellation: the Pong goes out whole or not at all.
        """
        payload = _control_payload(data)
        await self._ready_to_control()
        self._transport.write(self._protocol.send_pong(payload))
        await self._drain()

    async def _ready_to_control(self) -> None:
        """Be fair to other tasks; control frames may go between the fragments of a message."""
        await self._yield_if_due()
        if self._protocol.state is not State.OPEN:
            await self._raise_closed()

    def _send_ping(self) -> PongWaiter:
        payload = self._pings.new_payload()
        self._transport.write(self._protocol.send_ping(payload))
        return self._pings.add(payload)

    def _expire_keepalive(self) -> None:
        self._keepalive_expired = True
        self._fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")

    # Closing.

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection and wait until it is closed (RFC 6455 section 7).

        Sends what was written before, then a Close frame; waits for the peer's and for the end of the
        stream; all within `close_timeout`, after which the stream is dropped. It may be called by any
        task and any number of times; only the first sends a Close frame.

        Args:
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999.
            reason: up to 123 bytes of UTF-8.

        Raises:
            ValueError: the code or the reason is none that may be sent; the connection lives on.

        Cancellation: the connection goes on closing; `wait_closed()` waits for it.
        """
        close = check_close(code, reason)
        self._start_close(close)
        await self._closed.wait()  # the watchdog ends it

    async def aclose(self) -> None:
        """Close the connection with 1000: `close()` by the name that anyio's streams have for it.

        Cancellation: the connection goes on closing; `wait_closed()` waits for it.
        """
        await self.close()

    async def send_eof(self) -> None:
        """Send a Close frame with 1000 and do not wait for the peer's; what it still sends is received.

        Cancellation: nothing is waited for.
        """
        self._start_close(Close(CloseCode.NORMAL_CLOSURE))
        await checkpoint()

    async def wait_closed(self) -> None:
        """Wait until the connection is over, whatever ends it.

        Cancellation: harmless.
        """
        await self._closed.wait()

    def abort(self) -> None:
        """Drop the connection now, without a Close frame; its code is 1006."""
        self._protocol.lose_write()
        self._transport.abort()
        self._begin_end()

    def _start_close(self, close: Close) -> None:
        """Begin the closing handshake, unless the connection is ending already. Never waits."""
        if self._protocol.state is not State.OPEN:
            return
        if self._protocol.sending_fragments:
            self._fail(CloseCode.INTERNAL_ERROR, "close during a fragmented message")
            return
        self._transport.write(self._protocol.send_close(close.code, close.reason))
        self._begin_end()

    def _fail(self, code: int, reason: str) -> None:
        """Fail the connection (RFC 6455 section 7.1.7). Never waits."""
        self._protocol.fail(code, reason)
        self._write_replies()
        self._settle(None)

    def _begin_end(self) -> None:
        """Do what is due once the connection is not open any more; may be called again."""
        protocol = self._protocol
        if not self._ending:
            self._ending = True
            self._keepalive.stop()
            for scope in list(self._closing_scopes):
                scope.cancel()
            self._watchdog.begin()
            if self._task_group is not None and not self._closed.is_set():
                self._task_group.start_soon(self._watchdog.run, name="anyws close watchdog")
            # The peer's Close, and its end of the stream, come after all that it has sent.
            self._reading_paused = False
            self._transport.resume_reading()
            if protocol.decoder.pending:
                self._feed(b"")
        if protocol.eof_to_send:
            if protocol.close_rcvd is not None:
                self._watchdog.hasten(_LINGER_TIMEOUT)
            self._transport.write_eof()

    def _settle(self, cause: BaseException | None) -> None:
        """Take that nothing more will be received, and let all who wait for something know it."""
        if not self._settled.is_set():
            self._settled.set()
            self._cause = self._cause or cause
            self._inbox.close()
            self._pings.fail(self._closed_error)
            self._transport.release()
        self._begin_end()

    def _closed_error(self) -> ConnectionClosed:
        error = self._protocol.close_exc()
        if self._keepalive_expired:
            error = KeepaliveTimeout(error.rcvd, error.sent, error.rcvd_then_sent)
        error.__cause__ = self._cause
        return error

    def _check_open(self) -> None:
        if self._protocol.state is not State.OPEN:
            raise self._closed_error()

    async def _raise_closed(self) -> None:
        # Until the peer has answered our Close, how it ended is not known; the watchdog bounds that.
        await self._settled.wait()
        raise self._closed_error()

    # Tasks.

    def start_soon(
        self,
        func: Callable[[Unpack[_Args]], Awaitable[Any]],
        *args: Unpack[_Args],
        name: object = None,
    ) -> None:
        """Start a task that is cancelled when the connection ends.

        An exception that leaves it is logged, closes the connection with 1011, and is chained to the
        ConnectionClosedError that follows. A ConnectionClosed ends it quietly.

        Args:
            func: an async function.
            args: its arguments.
            name: the name of the task, for debuggers.

        Raises:
            ConnectionClosed: the connection has ended.
        """
        if self._task_group is None or self._closed.is_set():
            raise self._closed_error()
        self._task_group.start_soon(self._run_user_task, func, args, name=name or func)

    async def _run_user_task(
        self, func: Callable[[Unpack[_Args]], Awaitable[Any]], args: tuple[Unpack[_Args]]
    ) -> None:
        with CancelScope() as scope:
            self._user_scopes.add(scope)
            if self._closed.is_set():
                scope.cancel()
            try:
                await func(*args)
            except ConnectionClosed as exc:
                self._logger.debug("task of connection %s ended: %s", self._id, exc)
            except Exception as exc:
                self._logger.exception("task of connection %s failed", self._id)
                self._cause = self._cause or exc
                if self._protocol.state is State.OPEN:
                    self._fail(CloseCode.INTERNAL_ERROR, "")
            finally:
                self._user_scopes.discard(scope)

    def cancel_on_close(self) -> CancelScope:
        """Give a cancel scope that is cancelled as soon as the connection is no longer open."""
        scope = CancelScope()
        if self._protocol.state is State.OPEN:
            self._closing_scopes.add(scope)
        else:
            scope.cancel()
        return scope

    # What `_lifespan` runs.

    def _start(self, task_group: TaskGroup, trailing_data: bytes) -> None:
        """Begin to live: start the tasks, after what came with the opening handshake."""
        self._task_group = task_group
        task_group.start_soon(self._read, name="anyws reader")
        task_group.start_soon(self._flush, name="anyws flusher")
        if self._options.ping_interval is not None:
            task_group.start_soon(self._keepalive.run, name="anyws keepalive")
        if trailing_data:
            self._feed(trailing_data)

    async def _read(self) -> None:
        """Read until the stream ends, then see the connection to its end. Never raises an Exception."""
        try:
            await self._transport.pump(self._feed)
            self._lose(None)
            # The peer has ended its half; our Close may still wait to be sent. The watchdog ends this.
            if self._protocol.close_sent is not None:
                await self._transport.drain(0)
        except Exception as exc:
            self._lose(exc)
        finally:
            self._lose(None)
            await self._close_transport()
            self._protocol.receive_eof()
            self._closed.set()
            for scope in list(self._user_scopes):
                scope.cancel()

    async def _flush(self) -> None:
        """Send what is written, until that is over. Never raises an Exception."""
        try:
            await self._transport.flush_forever()
        except Exception as exc:
            # What the peer has sent before is still to be read; the reader finds the end of it.
            self._cause = self._cause or exc
            self._protocol.lose_write()
            self._begin_end()

    def _lose(self, cause: BaseException | None) -> None:
        self._protocol.lose_write()
        self._settle(cause)

    async def _close_transport(self) -> None:
        with CancelScope(shield=True, deadline=self._watchdog.deadline) as scope:
            try:
                await self._transport.aclose()
            except Exception as exc:
                self._logger.debug("closing the transport of %s failed: %r", self._id, exc)
        self._transport.abort()  # ends the flusher, whatever it was at
        if scope.cancelled_caught:
            # Closing without ceremony waits for nothing.
            with CancelScope(shield=True):
                await self._transport.aclose()

    async def _drop(self) -> None:
        """End the connection now, after a Close with 1001 if that can leave without waiting."""
        if self._protocol.state is State.OPEN and not self._protocol.sending_fragments:
            self._start_close(Close(CloseCode.GOING_AWAY))
        with CancelScope(shield=True):
            for _ in range(_DROP_TURNS):
                if not self._transport.write_buffer_size:
                    break
                await checkpoint()
            self.abort()
            await self._closed.wait()


def _control_payload(data: str | BytesLike) -> bytes:
    if isinstance(data, str):
        payload = data.encode()
    elif isinstance(data, (bytes, bytearray, memoryview)):
        payload = bytes(data)
    else:
        raise TypeError(
            f"data of type {type(data).__name__}, expected str, bytes, bytearray or memoryview"
        )
    if len(payload) > MAX_CONTROL_SIZE:
        raise ValueError(
            f"data of {len(payload)} bytes exceeds the limit of {MAX_CONTROL_SIZE} bytes"
        )
    return payload
