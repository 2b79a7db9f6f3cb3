"""For tests: connections and servers in memory, and streams that misbehave as told.

Owns streams that need no socket, so that a virtual clock works; what runs over them is the real
thing.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack

from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    Event,
    aclose_forcefully,
    create_task_group,
    sleep,
    sleep_forever,
)
from anyio.abc import ByteStream, Listener, TaskGroup
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from ._arguments import ConnectionArguments, UnixServeArguments, WrapClientArguments
from ._client import wrap_client
from ._connection import Connection
from ._lifespan import Lifespan
from ._opening import client_connection, server_connection
from ._patience import PATIENCE
from ._serving import serve, wrap_server
from ._transports import wrap

if TYPE_CHECKING:
    from ._server import Server

__all__ = [
    "FaultyStream",
    "MemoryListener",
    "MemoryStream",
    "connection_pair",
    "memory_server",
    "memory_stream_pair",
]


class _Pipe:
    """One direction of a memory stream: bytes that were sent and not received yet."""

    def __init__(self, max_buffer_size: int) -> None:
        self.max_buffer_size = max_buffer_size
        self.data: bytearray = bytearray()
        self.ended = False
        """Whether the sender has ended its half."""
        self.broken = False
        """Whether the receiver is gone."""
        self.changed: Event = Event()

    def notify(self) -> None:
        """Wake all who wait for a change."""
        self.changed.set()
        self.changed = Event()


class MemoryStream(ByteStream):
    """One end of a byte stream in memory, made by `memory_stream_pair`.

    It behaves like a socket: it holds a bounded number of bytes, sends what fits, and a cancelled
    send may have sent a part of its data.
    """

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive, as any ByteStream does.

        Raises:
            EndOfStream, ClosedResourceError: as any ByteStream does.

        Cancellation: nothing is lost.
        """
        await checkpoint()
        pipe = self._incoming
        while True:
            if self._closed:
                raise ClosedResourceError
            if pipe.data:
                data = bytes(pipe.data[:max_bytes])
                del pipe.data[:max_bytes]
                pipe.notify()
                return data
            if pipe.ended:
                raise EndOfStream
            await pipe.changed.wait()

    async def send(self, item: bytes) -> None:
        """Send, as any ByteStream does.

        Raises:
            BrokenResourceError, ClosedResourceError: as any ByteStream does.

        Cancellation: a part of the data may have been sent.
        """
        await checkpoint()
        pipe = self._outgoing
        view = memoryview(item)
        while True:
            if self._closed or pipe.ended:
                raise ClosedResourceError
            if pipe.broken:
                raise BrokenResourceError
            if not view:
                return
            room = pipe.max_buffer_size - len(pipe.data)
            if room > 0:
                pipe.data += view[:room]
                view = view[room:]
                pipe.notify()
            else:
                await pipe.changed.wait()

    async def send_eof(self) -> None:
        """End this half, as any ByteStream does.

        Cancellation: it has ended all the same.
        """
        self._outgoing.ended = True
        self._outgoing.notify()
        await checkpoint()

    async def aclose(self) -> None:
        """Close, as any ByteStream does.

        Cancellation: it is closed all the same.
        """
        self._closed = True
        self._outgoing.ended = True
        self._incoming.broken = True
        self._outgoing.notify()
        self._incoming.notify()
        await checkpoint()


def memory_stream_pair(max_buffer_size: int = 65536) -> tuple[MemoryStream, MemoryStream]:
    """Make the two ends of a byte stream in memory.

    Args:
        max_buffer_size: bytes that each direction holds before send() waits.

    Raises:
        ValueError: it is under 1.
    """
    if max_buffer_size < 1:
        raise ValueError(f"max_buffer_size of {max_buffer_size} bytes is under 1")
    there, back = _Pipe(max_buffer_size), _Pipe(max_buffer_size)
    return MemoryStream(back, there), MemoryStream(there, back)


class FaultyStream(ByteStream):
    """A byte stream that misbehaves as told, over another that does not.

    Args:
        stream: the other.
        split: bytes that one send or receive moves at the most; None leaves them as they are.
        delay: seconds that each of them takes longer.
        reset_after: bytes, sent and received together, after which the stream is broken; None is
            never.
        stall_after: likewise, after which nothing moves any more.

    Raises:
        ValueError: `split` is under 1, or another number under 0.
    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        split: int | None = None,
        delay: float = 0.0,
        reset_after: int | None = None,
        stall_after: int | None = None,
    ) -> None:
        if split is not None and split < 1:
            raise ValueError(f"split of {split} bytes is under 1")
        numbers = {"delay": delay, "reset_after": reset_after, "stall_after": stall_after}
        for name, number in numbers.items():
            if number is not None and number < 0:
                raise ValueError(f"{name} of {number} is negative")
        self._stream = stream
        self._split = split
        self._delay = delay
        self._reset_after = reset_after
        self._stall_after = stall_after
        self._moved = 0
        self._reset = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive, as any ByteStream does.

        Raises:
            BrokenResourceError: it was told to break here; and what the stream below raises.

        Cancellation: as for the stream below.
        """
        while True:
            room = await self._misbehave(max_bytes)
            try:
                data = await self._stream.receive(room)
            except ClosedResourceError:
                self._check_reset()
                raise
            # What was sent meanwhile has had its part; what is over will never be received.
            data = data[: self._room(len(data))]
            if data:
                self._moved += len(data)
                return data

    async def send(self, item: bytes) -> None:
        """Send, as any ByteStream does.

        Raises:
            BrokenResourceError: it was told to break here; and what the stream below raises.

        Cancellation: a part of the data may have been sent.
        """
        view = memoryview(item)
        while True:
            room = await self._misbehave(len(view))
            self._moved += room
            try:
                await self._stream.send(bytes(view[:room]))
            except ClosedResourceError:
                self._check_reset()
                raise
            view = view[room:]
            if not view:
                return

    async def send_eof(self) -> None:
        """End this half, as any ByteStream does.

        Cancellation: as for the stream below; during a delay, nothing has happened.
        """
        await self._misbehave(1)
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close, as any ByteStream does.

        Cancellation: as for the stream below.
        """
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Give those of the stream below."""
        return self._stream.extra_attributes

    def _check_reset(self) -> None:
        # Closing the other stream is how it is broken, also for a task that is waiting in it.
        if self._reset:
            raise BrokenResourceError(f"reset after {self._reset_after} bytes, as told")

    async def _misbehave(self, size: int) -> int:
        """Wait, hang or break as told; give how many of `size` bytes may move now."""
        if self._delay:
            await sleep(self._delay)
        if self._reset_after is not None and self._moved >= self._reset_after:
            self._reset = True
            await self._stream.aclose()
            self._check_reset()
        if self._stall_after is not None and self._moved >= self._stall_after:
            await sleep_forever()  # the cancellation of the caller ends it
        return self._room(size)

    def _room(self, size: int) -> int:
        """Say how many of `size` bytes may move."""
        ends = (self._reset_after, self._stall_after)
        rooms = [end - self._moved for end in ends if end is not None]
        return min(size, self._split or size, *rooms)


class MemoryListener(Listener[ByteStream]):
    """A listener for `serve(handler, listeners=[...])` that is connected to in memory."""

    def __init__(self) -> None:
        self._accept: Callable[[ByteStream], None] | None = None
        self._accepting = Event()
        self._closed = Event()

    async def connect(self, max_buffer_size: int = 65536) -> MemoryStream:
        """Give the client's end of a new stream, once the listener is served.

        Raises:
            ClosedResourceError: it is closed.

        Cancellation: nothing is left open.
        """
        await self._accepting.wait()  # serve() or aclose() ends it
        if self._accept is None:
            await checkpoint_if_cancelled()  # what has closed it may have cancelled us too
            raise ClosedResourceError
        client, server = memory_stream_pair(max_buffer_size)
        self._accept(server)
        return client

    async def serve(
        self, handler: Callable[[ByteStream], Any], task_group: TaskGroup | None = None
    ) -> None:
        """Call `handler` in a task for each stream, until closed or cancelled.

        Cancellation: nothing more is accepted; the handlers are those of the task group.
        """
        async with AsyncExitStack() as stack:
            if task_group is None:
                task_group = await stack.enter_async_context(create_task_group())
            start_soon = task_group.start_soon

            def accept(stream: ByteStream) -> None:
                start_soon(handler, stream)

            self._accept = accept
            self._accepting.set()
            try:
                await self._closed.wait()
            finally:
                self._accept = None

    async def aclose(self) -> None:
        """Stop listening.

        Cancellation: it is closed all the same.
        """
        self._closed.set()
        self._accepting.set()
        await checkpoint()


class connection_pair:  # noqa: N801  # it is used as a function
    """Give two connected Connections in memory: `async with connection_pair() as (client, server)`.

    Args:
        max_buffer_size: bytes that each direction of the stream between them holds.
        arguments: what `connect` and `serve` both take, such as `ping_interval`, for both.

    Cancellation: on entering, nothing is left open.
    """

    def __init__(
        self, *, max_buffer_size: int = 65536, **arguments: Unpack[ConnectionArguments]
    ) -> None:
        self._max_buffer_size = max_buffer_size
        self._arguments = arguments
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> tuple[Connection, Connection]:
        near, far = memory_stream_pair(self._max_buffer_size)
        client = wrap_client(near, **self._arguments)
        server = wrap_server(far, **self._arguments)
        # Both handshakes here and now: the bytes need not travel.
        theirs = server._serve._settings.make_handshake()
        request = theirs.receive_data(client._handshake.data_to_send())
        assert request is not None
        answer = theirs.accept(request)
        response = client._handshake.receive_data(theirs.send_response(answer, request))
        assert response is not None
        await self._stack.__aenter__()
        settings = server._serve._settings
        accepted = server_connection(wrap(far), theirs, request, answer, settings)
        opened = client_connection(
            wrap(near),
            client._handshake,
            response,
            client._options,
            client._logger,
            client._hooks,
        )
        try:
            self._server_side = await self._stack.enter_async_context(Lifespan(*accepted))
            client_side = await self._stack.enter_async_context(Lifespan(*opened))
        except BaseException as exc:
            await self._stack.__aexit__(type(exc), exc, exc.__traceback__)
            raise
        return client_side, self._server_side

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A full queue must not keep the client's Close from being read, unless a task receives.
        self._server_side._link.intake.be_patient(PATIENCE)
        await self._stack.__aexit__(exc_type, exc, traceback)


class memory_server:  # noqa: N801  # it is used as a function: `async with memory_server(handler) as connect`
    """Serve in memory: `async with memory_server(handler) as connect`.

    Then `async with connect() as ws` gives a client.

    The server and the handshakes are real; only the sockets are not.

    Args:
        handler: as for `serve`.
        arguments: those of `serve`; `handler_errors` is "raise" unless given.

    Cancellation: on entering, nothing is left open.
    """

    def __init__(
        self,
        handler: Callable[[Connection], Awaitable[None]],
        **arguments: Unpack[UnixServeArguments],
    ) -> None:
        self._listener = MemoryListener()
        arguments.setdefault("handler_errors", "raise")
        self._serve = serve(handler, listeners=[self._listener], **arguments)

    async def __aenter__(self) -> "Callable[..., memory_connect]":
        self.server: Server = await self._serve.__aenter__()
        return self._connect

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._serve.__aexit__(exc_type, exc, traceback)

    def _connect(
        self, uri: str = "ws://localhost/", **arguments: Unpack[WrapClientArguments]
    ) -> "memory_connect":
        return memory_connect(self._listener, uri, arguments)


class memory_connect:  # noqa: N801  # see memory_server
    """A client of a `memory_server`: an asynchronous context manager like `connect`."""

    def __init__(self, listener: MemoryListener, uri: str, arguments: WrapClientArguments) -> None:
        self._listener = listener
        self._uri = uri
        self._arguments = arguments

    async def __aenter__(self) -> Connection:
        stream = await self._listener.connect()
        try:
            self._client = wrap_client(stream, self._uri, **self._arguments)
        except BaseException:
            await aclose_forcefully(stream)
            raise
        return await self._client.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(exc_type, exc, traceback)
