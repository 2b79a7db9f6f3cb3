"""A transport over any anyio byte stream.

Owns the write buffer and the only calls of `stream.send` once a connection is open; knows no
WebSocket.

A cancelled `ByteStream.send` does not say how much of its data went out: on trio a part may have.
So no task of the application ever sends: `write` keeps the bytes, and a task of the transport's
own, which no outer scope cancels, sends them. Another one reads.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from anyio import CancelScope, EndOfStream, Event, aclose_forcefully
from anyio.abc import SocketStream
from anyio.streams.tls import TLSStream

from ._base import Transport
from ._coalescing import COALESCE_SIZE, pop_coalesced
from ._draining import Draining
from ._timer import TaskTimer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import AnyByteStream, ByteStream, TaskGroup

    from ._base import Receiver


class StreamTransport(Transport):
    """Any anyio byte stream as a transport.

    Args:
        stream: the stream; the transport owns it from now on.
        chunk_size: bytes to receive at once at the most.
    """

    def __init__(self, stream: ByteStream, chunk_size: int = 65536) -> None:
        _bound_reading(stream)
        self._stream = stream
        self._chunk_size = chunk_size
        self.write_buffer_size = 0
        self.sent_size = 0
        self.peak_buffer_size = 0
        self._chunks: deque[bytes] = deque()
        self._latest = b""
        self._written = Event()
        self._draining = Draining()
        self._timer: TaskTimer | None = None
        self._eof_written = False
        self._write_ended = False
        self._aborted = False
        self._tls_ending = False
        self._tls_ended = False
        self._resumed = Event()
        self._resumed.set()
        # Both are cancelled by abort(), which the connection's close watchdog calls in the end:
        # that bounds the two shields. The first also to end TLS, or a stream without halves.
        self._pump_scope = CancelScope(shield=True)
        self._flush_scope = CancelScope(shield=True)

    # The ByteStream.

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._stream.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        if self._aborted:
            await aclose_forcefully(self._stream)
        elif self._tls_ended and isinstance(self._stream, TLSStream):
            await self._stream.transport_stream.aclose()
        else:
            await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        try:
            return self._stream.extra_attributes
        except (OSError, AttributeError, ValueError):
            # anyio asks the socket for the peer's address, which one that was reset does not know
            # any more; uvloop does not even have the socket then, or asks one without descriptor.
            return {}

    # Writing.

    def write(self, data: bytes) -> None:
        if self._write_ended or self._eof_written:
            return
        if self._latest:
            self._chunks.append(self._latest)
            self._latest = b""
        self._chunks.append(data)
        self.write_buffer_size += len(data)
        self._written.set()

    def write_latest(self, data: bytes) -> bool:
        if self._write_ended or self._eof_written:
            return False
        replaces = bool(self._latest)
        self.write_buffer_size += len(data) - len(self._latest)
        self._latest = data
        self._written.set()
        return replaces

    def write_eof(self) -> None:
        self._eof_written = True
        self._written.set()

    async def drain(self, limit: int) -> bool:
        if self.write_buffer_size <= limit:
            return True
        if self._write_ended:
            return False
        return await self._draining.wait(limit)  # _flush(), release() or _end_writing() ends it

    def release(self) -> None:
        self._draining.release()

    # The two tasks.

    def start(self, receiver: Receiver, task_group: TaskGroup) -> None:
        self._timer = TaskTimer(task_group)
        task_group.start_soon(self._read, receiver, name="anyws reader")
        task_group.start_soon(self._send, receiver, name="anyws flusher")

    async def _read(self, receiver: Receiver) -> None:
        error: Exception | None = None
        try:
            await self._pump(receiver)
        except Exception as exc:  # the receiver is told
            error = exc
        finally:
            receiver.end_reading(error)

    async def _send(self, receiver: Receiver) -> None:
        error: Exception | None = None
        try:
            await self._flush_forever()
        except Exception as exc:  # the receiver is told
            error = exc
        finally:
            self._end_writing()
            receiver.end_writing(error)

    async def _flush_forever(self) -> None:
        with self._flush_scope:
            while True:
                await self._flush()
                if self._eof_written:
                    await self._end_half()
                    return
                self._written = Event()
                await self._written.wait()  # write(), write_eof() or abort() ends it

    async def _flush(self) -> None:
        chunks = self._chunks
        while chunks or self._latest:
            if self._latest:
                chunks.append(self._latest)
                self._latest = b""
            self.peak_buffer_size = max(self.peak_buffer_size, self.write_buffer_size)
            data = pop_coalesced(chunks)
            for start in range(0, len(data), COALESCE_SIZE):
                # Piece by piece, so that it can be seen whether the peer reads.
                piece = data[start : start + COALESCE_SIZE]
                await self._stream.send(piece)  # the peer's reading, or abort(), ends it
                self.write_buffer_size -= len(piece)
                self.sent_size += len(piece)
                self._draining.note(self.write_buffer_size)

    async def _end_half(self) -> None:
        if isinstance(self._stream, TLSStream):
            # Only one task may use a TLSStream for this: the reader does it when it has stopped.
            self._tls_ending = True
            self._pump_scope.cancel()
            return
        try:
            await self._stream.send_eof()
        except Exception:
            # The stream has no halves, or is lost: nothing shows the peer our end but the end of
            # all.
            self._pump_scope.cancel()
        self.resume_reading()

    def _end_writing(self) -> None:
        self._write_ended = True
        self._chunks.clear()
        self._latest = b""
        self.release()

    # Reading.

    async def _pump(self, receiver: Receiver) -> None:
        stream = self._stream
        with self._pump_scope:
            while True:
                await self._resumed.wait()  # the application's recv(), or the end, ends it
                try:
                    data = await stream.receive(self._chunk_size)
                except EndOfStream:
                    return
                while not self._resumed.is_set():
                    await self._resumed.wait()  # paused while the chunk was on its way; likewise
                receiver.feed(bytes(data))  # some streams, like those of trio, may give a bytearray
        if self._tls_ending and not self._aborted:
            await self._end_tls()

    async def _end_tls(self) -> None:
        assert isinstance(self._stream, TLSStream)
        self._tls_ended = True
        self._pump_scope = CancelScope(shield=True)  # abort() ends this one too
        with self._pump_scope:
            try:
                await self._stream.unwrap()
            except Exception:
                # The peer goes on sending, so its close_notify is not the next that comes. Ending
                # only our half of the stream below lets it read our last bytes before a reset.
                await self._discard(self._stream.transport_stream)

    @staticmethod
    async def _discard(stream: AnyByteStream) -> None:
        try:
            await stream.send_eof()
            while True:
                await stream.receive()
        except Exception:  # noqa: S110  # the end that was waited for, in one form or another
            pass

    def pause_reading(self) -> None:
        if self._resumed.is_set():
            self._resumed = Event()

    def resume_reading(self) -> None:
        self._resumed.set()

    # The end.

    def set_timer(self, deadline: float, callback: Callable[[], None] | None) -> None:
        assert self._timer is not None
        self._timer.set(deadline, callback)

    def close(self) -> bool:
        return False

    def abort(self) -> None:
        self._aborted = True
        self._end_writing()
        self._pump_scope.cancel()
        self._flush_scope.cancel()


def _bound_reading(stream: AnyByteStream) -> None:
    """Have a stream read no more than is received from it.

    On asyncio, anyio lets a TCP socket that it has accepted be read without bounds until a first
    receive() has waited, and a peer that makes no pause lets none wait. Nothing public tells it to
    stop: where its transport is not to be found, this does nothing.
    """
    while isinstance(stream, TLSStream):
        stream = stream.transport_stream
    if isinstance(stream, SocketStream) and type(stream).__module__.startswith("anyio."):
        pause = getattr(getattr(stream, "_transport", None), "pause_reading", None)
        if pause is not None:
            pause()
