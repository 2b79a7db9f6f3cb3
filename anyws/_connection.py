"""The connection: what a user holds.

Owns the public methods; what happens behind them stands in `_link`, and who runs its tasks in
`_lifespan`. Knows no socket, and no frame but the short ones of a burst. RFC 6455 sections 5 to 7.

Invariants, each with a test in tests/test_invariants.py:

1. The reader never awaits a write.
2. A frame is whole: what `write` took goes out, whatever is cancelled.
3. Memory is bounded both ways: a full inbox stops reading and decoding, a full buffer makes `send`
   wait, Pongs coalesce to the newest Ping.
4. Every wait ends within `close_timeout` of peer, network or user giving up. Every shield has a
   deadline.
5. The connection's own tasks never raise; the body's exception leaves as itself.
6. State changes only in `Protocol`, with no await between check and change.
7. What came before the Close frame is delivered before ConnectionClosed.
"""

import logging
import math
import uuid
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypeVar, TypeVarTuple, overload

import anyio
from anyio import CancelScope
from anyio.abc import ObjectStream
from anyio.lowlevel import checkpoint

from ._fragments import OutgoingMessage, StreamedMessage, as_type
from ._http import Request, Response
from ._inbox import Inbox
from ._keepalive import PongWaiter
from ._leaving import end_link, raise_interruption
from ._link import Link
from ._options import ConnectionOptions
from ._outbox import LARGE_SIZE
from ._stats import Stats, take_stats
from ._transports import GATHERED_COUNT, Transport
from ._types import (
    DATA_TYPES,
    MAX_CONTROL_SIZE,
    OPEN,
    BytesLike,
    Close,
    CloseCode,
    Data,
    DataLike,
    Opcode,
    State,
)
from .sansio._closing import check_close
from .sansio._codec import encode_frame
from .sansio._extensions import Extension
from .sansio._messages import encode_data, wrong_type
from .sansio._protocol import SHORT_FRAME_SIZE, Protocol
from .sansio._pyqueue import MessageQueue

_Args = TypeVarTuple("_Args")

_T = TypeVar("_T")

# An attribute of an enumeration costs as much as encoding a small frame.
_TEXT = Opcode.TEXT
_BINARY = Opcode.BINARY

# No iterator itself, so that type checkers find who forgets the block.
_Fragments = AbstractAsyncContextManager[AsyncIterator[_T], None]

MessageLike = DataLike | Iterable[DataLike] | AsyncIterable[DataLike]
"""What send() takes: a whole message, or its fragments."""


class Connection(ObjectStream[Data]):
    """An open WebSocket connection, of a client or of a server.

    It is given by `connect`, `serve` and their like, never made by hand. Iterating over it gives
    the messages until the connection is closed with 1000, 1001 or no code; any other end raises.

    It is for the tasks of its own event loop. A thread calls it by `anyio.from_thread`: there
    `from_thread.run(ws.send, message)` stands for `await ws.send(message)`.
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
        inbox = self._make_inbox(protocol.decoder.queue, transport, options)
        self._link = Link(transport, protocol, options, logger, inbox)
        # What is needed for each message stands here too.
        self._transport = transport
        self._protocol = protocol
        self._decoder = protocol.decoder
        self._intake = self._link.intake
        self._inbox = inbox
        self._sends = inbox.fairness.sends
        self._outbox = self._link.outbox
        self._ending = self._link.ending
        self._request = request
        self._response = response
        self._subprotocol = subprotocol
        self._logger = logger
        self._id: uuid.UUID | None = None
        # Asked for now: a socket that is closed does not know them any more.
        if request.remote_address is None:
            self._local_address, self._remote_address = transport.addresses()
        else:
            self._local_address = request.local_address
            self._remote_address = request.remote_address

    def _make_inbox(
        self, queue: MessageQueue, transport: Transport, options: ConnectionOptions
    ) -> Inbox:
        return Inbox(
            queue, options.queue_marks, options.read_marks, transport.make_parking, transport.rest
        )

    def __repr__(self) -> str:
        return f"<anyws.Connection {self.id} {self.state.value}>"

    # What is known of the connection.

    @property
    def id(self) -> uuid.UUID:
        """A random identifier, for logs."""
        if self._id is None:
            self._id = uuid.uuid4()  # it asks the system for random bytes: not unless it is wanted
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
        """Path and query of the request."""
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
        return self._local_address

    @property
    def remote_address(self) -> Any:
        """The peer's address as the socket below gives it; None if there is no socket.

        Of a connection through a proxy it is the proxy's.
        """
        return self._remote_address

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
        return self._protocol.state is OPEN

    @property
    def closed(self) -> bool:
        """Whether the connection is over; False while it is closing."""
        return self._protocol.state is State.CLOSED

    @property
    def close_code(self) -> int | None:
        """The close code that the peer sent, 1006 if none came; None until closed.

        When the last message has been received the connection may still be closing: the `code` of
        the ConnectionClosed has it already, and `wait_closed()` waits for it.
        """
        return self._protocol.close_exc().code if self.closed else None

    @property
    def close_reason(self) -> str | None:
        """The close reason that the peer sent, empty if none came; None until closed, likewise."""
        return self._protocol.close_exc().reason if self.closed else None

    @property
    def latency(self) -> float:
        """Seconds from the last answered Ping to its Pong; 0 before the first."""
        return self._link.latency

    @property
    def stats(self) -> Stats:
        """What the connection has done up to now, in numbers; after its end too."""
        return take_stats(self._link)

    # Receiving.

    @overload
    async def recv(self, decode: Literal[True]) -> str: ...
    @overload
    async def recv(self, decode: Literal[False]) -> bytes: ...
    @overload
    async def recv(self, decode: bool | None = None) -> Data: ...
    async def recv(self, decode: bool | None = None) -> Data:
        """Receive the next message (RFC 6455 section 5.6).

        Args:
            decode: True gives Binary messages as str too, False gives Text messages as UTF-8 bytes.

        Returns:
            A str for Text, bytes for Binary.

        Raises:
            ConnectionClosedOK: the connection was closed with 1000, 1001 or no code. What was
                received before is given first.
            ConnectionClosedError: it ended in any other way.
            ConcurrencyError: another task is receiving.
            UnicodeDecodeError: a Binary message that `decode` asks to be str is not UTF-8; it stays
                the next message.

        Cancellation: no message is lost; the next call gets it.
        """
        if decode is None:
            message = self._decoder.take()
            if message is not None:
                return message
        intake = self._intake
        intake.check_not_streaming()
        received = await self._link.next_message()
        if decode is not None:
            received = as_type(received, text=decode)  # type: ignore[arg-type]  # no fragment
        intake.pop()
        return received  # type: ignore[return-value]  # fragments are for recv_streaming()

    def __aiter__(self) -> AsyncIterator[Data]:  # type: ignore[override]  # no stream: the messages
        # It gives what waits already without a coroutine for each message.
        return self._decoder.iterate(self._next)

    async def __anext__(self) -> Data:
        message = self._decoder.take()
        return await self._next() if message is None else message

    async def _next(self) -> Data:
        """Wait for the next message, as an iteration does."""
        intake = self._intake
        if intake.streaming:
            intake.check_not_streaming()
        inbox = self._inbox
        if not inbox.queue and self._protocol.held_failure is not None:
            self._link.release_failure()
        if not await inbox.ready():
            raise self._ending.iteration_end()  # not kept: its traceback has this frame
        message = self._decoder.take()
        return intake.pop() if message is None else message  # type: ignore[return-value]  # fragments are for recv_streaming()

    async def receive(self) -> Data:
        """Receive the next message: `recv()` by the name that anyio's streams have for it.

        Raises:
            ConnectionClosed, ConcurrencyError: as `recv()`.

        Cancellation: no message is lost; the next call gets it.
        """
        return await self.recv()

    @overload
    def recv_streaming(self, decode: Literal[True]) -> _Fragments[str]: ...
    @overload
    def recv_streaming(self, decode: Literal[False]) -> _Fragments[bytes]: ...
    @overload
    def recv_streaming(self, decode: bool | None = None) -> _Fragments[Data]: ...
    def recv_streaming(self, decode: bool | None = None) -> Any:
        """Receive the next message in fragments, as they come (RFC 6455 section 5.4).

        Use it as `async with ws.recv_streaming() as fragments:` and iterate over `fragments` with
        `async for`. A message that has already come whole is one fragment. Leaving the block early
        skips the rest of the message; where none of it was given, the next `recv()` gets it whole.

        Args:
            decode: as in `recv()`. A code point that is cut by fragments comes with the one that
                completes it.

        Raises:
            ConcurrencyError: on entering the block, when another task is receiving; in the
                iteration, when another task is iterating.
            ConnectionClosed: in the iteration, when the connection ends before the message does.
            UnicodeDecodeError: in the iteration, when a Binary fragment that `decode` asks to be
                str is not UTF-8.

        Cancellation: the iteration loses no fragment; leaving the block by it skips the rest, or
        nothing where no fragment was given.
        """
        return StreamedMessage(self._link, decode)

    # Sending.

    async def send(
        self, message: MessageLike, *, text: bool | None = None, compress: bool | None = None
    ) -> None:
        """Send a message.

        An iterable or asynchronous iterable is one message, each of its items a fragment (RFC 6455
        section 5.4); other messages wait until it is complete. That the connection has ended is
        seen at its next item; `with ws.cancel_on_close():` waits for none.

        Args:
            message: str for Text; bytes, bytearray or memoryview for Binary; or items of one of the
                two.
            text: True sends bytes-like data as Text, False sends a str as Binary. Bytes sent as
                Text must be UTF-8: that is not checked here, and the peer closes with 1007 if they
                are not.
            compress: whether to compress the message where that was agreed on; None decides by its
                size.

        Raises:
            ConnectionClosed: the connection is no longer open.
            TypeError: the message is of another type; nothing was sent. Where a later item of an
                iterable is, the message cannot be completed: the connection is closed with 1011.
            ValueError: a str has a lone surrogate, and so no UTF-8; nothing was sent.
            ConcurrencyError: the caller makes an item of an iterable that its own task is sending.

        Cancellation: a message in one piece goes out whole or not at all. Once the first item of an
        iterable is sent, the message cannot be completed: the connection is closed with 1011.
        """
        transport = self._transport
        if transport.gathering and (type(message) is str or type(message) is bytes):
            # A burst: for a short frame, what stands below comes to this, without its three calls.
            # Each of 64 messages that come together is echoed in 0.72 us, which took 0.88.
            protocol = self._protocol
            sends = self._sends
            if (
                text is None
                and len(message) < SHORT_FRAME_SIZE
                and protocol.sends_payload_as_is
                and sends.left
                and not self._outbox.occupied
                and len(transport.gathered) < GATHERED_COUNT
            ):
                frame = encode_frame(_TEXT if type(message) is str else _BINARY, message)
                if len(frame) <= SHORT_FRAME_SIZE:
                    transport.gathered.append(frame)
                    sends.left -= 1
                    return
        if isinstance(message, DATA_TYPES):
            # The outbox's ready() and wait_behind() once more: two coroutines less for a message.
            sends = self._sends
            outbox = self._outbox
            protocol = self._protocol
            if (
                not sends.left
                or protocol.state is not OPEN
                or outbox.occupied
                or transport.write_buffer_size > outbox.high
            ):
                await outbox.ready()
            if (
                type(message) is bytes
                and len(message) >= LARGE_SIZE
                and (text is None or text is False)
                and protocol.sends_payload_as_is
            ):
                transport.write_pair(protocol.send_header(len(message)), message)
            else:
                transport.write(protocol.send_message(message, text, compress))
            if transport.write_buffer_size > outbox.high:
                await outbox.drain()
            if sends.left and (protocol.extension is None or len(message) < LARGE_SIZE):
                sends.left -= 1
            else:
                await outbox.yield_behind()
        elif isinstance(message, Mapping):
            raise TypeError(wrong_type(message, or_iterable=True))
        elif isinstance(message, Iterable) or isinstance(message, AsyncIterable):  # noqa: SIM101  # narrows
            await OutgoingMessage(self._link, text, compress).send(message)
        else:
            raise TypeError(wrong_type(message, or_iterable=True))

    def send_nowait(
        self, message: DataLike, *, text: bool | None = None, compress: bool | None = None
    ) -> None:
        """Send a message if that needs no waiting.

        Args:
            message: as in `send()`, but no iterable.
            text: as in `send()`.
            compress: as in `send()`.

        Raises:
            anyio.WouldBlock: more than the high-water mark waits to be sent, a fragmented message
                is being sent, or others wait to send; nothing was sent.
            ConnectionClosed, TypeError, ValueError: as in `send()`.
        """
        if self._protocol.state is not OPEN:
            raise self._ending.error()
        if self._outbox.must_wait:
            encode_data(message, text)  # what cannot be sent at all is told first
            raise anyio.WouldBlock
        self._transport.write(self._protocol.send_message(message, text=text, compress=compress))

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
            TypeError: it is neither str nor bytes-like.

        Cancellation: the Ping goes out whole or not at all.
        """
        pings = self._link.pings
        payload = pings.new_payload() if data is None else _control_payload(data)
        await self._ready_to_control()
        pings.check(payload)
        self._transport.write(self._protocol.send_ping(payload))
        waiter = pings.add(payload)
        self._transport.attend()
        await self._outbox.drain()
        return waiter

    async def pong(self, data: str | BytesLike = b"") -> None:
        """Send an unsolicited Pong (RFC 6455 section 5.5.3); Pings are answered without it.

        Args:
            data: up to 125 bytes, a str as UTF-8.

        Raises:
            ConnectionClosed: the connection is no longer open.
            ValueError: it has more than 125 bytes.
            TypeError: it is neither str nor bytes-like.

        Cancellation: the Pong goes out whole or not at all.
        """
        payload = _control_payload(data)
        await self._ready_to_control()
        self._transport.write(self._protocol.send_pong(payload))
        await self._outbox.drain()

    async def _ready_to_control(self) -> None:
        """Be fair to other tasks, and wait for room.

        Control frames may go between the fragments of a message. Who is cancelled while he waits,
        again and again, must not leave more each time.
        """
        await self._outbox.yield_if_due()
        await self._outbox.drain()
        await self._link.check_open()

    # Closing.

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection and wait until it is closed (RFC 6455 section 7).

        Sends what was written before, then a Close frame; waits for the peer's and for the end of
        the stream; all within `close_timeout`, after which the stream is dropped. It may be called
        by any task and any number of times; only the first sends a Close frame.

        A task that receives goes on doing so, and gets all that the peer has sent before its Close.
        Where none does, or has taken nothing for a second, what finds no room in the queue is
        dropped.

        Args:
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999; 1005 sends no code.
            reason: up to 123 bytes of UTF-8.

        Raises:
            ValueError: the code or the reason is none that may be sent; the connection lives on.
            TypeError: the code is no int, or the reason no str; likewise.

        Cancellation: the connection goes on closing; `wait_closed()` waits for it.
        """
        close = check_close(code, reason)
        self._link.start_close(close, patience=self._intake.patience)
        await self._link.closed.wait()  # the watchdog ends it

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close as leaving the block of `connect` does: with 1000, 1011 or 1001.

        Another task that receives gets all that the peer has sent, as with `close()`.

        Cancellation: the connection is dropped; what the block raises leaves all the same.
        """
        patience = self._intake.patience
        raise_interruption(exc, await end_link(self._link, exc, patience=patience))

    async def aclose(self) -> None:
        """Close the connection with 1000: `close()` by the name that anyio's streams have for it.

        Cancellation: the connection goes on closing; `wait_closed()` waits for it.
        """
        await self.close()

    async def send_eof(self) -> None:
        """Send a Close frame with 1000, and wait for nothing; `recv()` still gets what comes.

        Who does not receive all of it within `close_timeout` loses the rest.

        Cancellation: nothing is waited for.
        """
        self._link.start_close(Close(CloseCode.NORMAL_CLOSURE), patience=math.inf)
        await checkpoint()

    async def wait_closed(self) -> None:
        """Wait until the connection is over, whatever ends it.

        Cancellation: harmless.
        """
        await self._link.closed.wait()

    def abort(self) -> None:
        """Drop the connection now, without a Close frame; its code is 1006."""
        self._link.abort()

    # Tasks.

    def start_soon(
        self,
        func: Callable[[*_Args], Awaitable[Any]],
        *args: *_Args,
        name: object = None,
    ) -> None:
        """Start a task that is cancelled when the connection ends.

        An exception that leaves it is logged, closes the connection with 1011, and is chained to
        the ConnectionClosedError that follows. The ConnectionClosed of this connection ends it
        quietly.

        Args:
            func: an async function.
            args: its arguments.
            name: the name of the task, for debuggers.

        Raises:
            ConnectionClosed: the connection has ended.
            TypeError: `func` cannot be called.
        """
        if not callable(func):
            raise TypeError(f"func must be an async function, not {type(func).__name__}")
        link = self._link
        if link.task_group is None or link.closed.is_set():
            raise self._ending.error()
        link.task_group.start_soon(
            link.user_tasks.run,
            partial(link.fail_user_task, self),
            func,
            args,
            name=name or func,
        )

    def cancel_on_close(self) -> CancelScope:
        """Give a cancel scope that is cancelled as soon as the connection is no longer open."""
        return self._link.closing_scopes.new()


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
