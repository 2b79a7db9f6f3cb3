"""A transport over a non-blocking socket, whatever event loop watches it.

Owns what is the same on each: the write buffer, coalescing, the calls of the socket, and how both
directions end. How to wait for the socket stands in `_asyncio` and `_trio`; knows no WebSocket.
"""

from __future__ import annotations

import abc
import socket
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from ._base import Transport
from ._coalescing import COALESCE_SIZE, GATHERED_SIZE, pop_coalesced
from ._draining import Draining

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import TaskGroup

    from ._base import Receiver

# More writes than that in one turn are a burst.
_BURST = 8

# Bytes to receive at once. A bytes object of that size for each call would cost more than the call:
# its pages come from the system, and go back to it.
_CHUNK_SIZE = 2**18


class _Turns:
    """Counts what is read: what is written before and after is not of one turn."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class _Scratch(threading.local):
    """Where the sockets of a thread receive, one after the other, and how often they have."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_CHUNK_SIZE))
        self.turns = _Turns()


_SCRATCH = _Scratch()


class SocketTransport(Transport):
    """A connected socket as a transport.

    The first write after something has come goes to the socket at once: the reply of a ping-pong,
    or what another socket has made us send. Those that follow, and all if the receiver expects
    several, are sent together at the end of the turn of the event loop, or when they are many
    bytes.

    Args:
        raw_socket: a connected, non-blocking socket; the transport owns it from now on.
        peer: the address of its peer, where that is known already.
    """

    __slots__ = (
        "_aborted",
        "_at_once",
        "_blocked",
        "_chunks",
        "_closed",
        "_corking",
        "_draining",
        "_eof_written",
        "_flush_due",
        "_gathered_count",
        "_gathered_size",
        "_gathers",
        "_joined",
        "_latest",
        "_paused",
        "_peer",
        "_read_ended",
        "_read_error",
        "_receiver",
        "_scratch",
        "_socket",
        "_task_group",
        "_turn",
        "_turns",
        "_watching",
        "_write_end_told",
        "_write_ended",
        "_write_error",
        "gathered",
        "gathering",
        "peak_buffer_size",
        "sent_size",
        "write_buffer_size",
    )

    def __init__(self, raw_socket: socket.socket, peer: Any = None) -> None:
        self._socket = raw_socket
        self._peer = peer
        self._receiver: Receiver | None = None
        self._task_group: TaskGroup | None = None
        # Writing.
        self.write_buffer_size = 0
        self.sent_size = 0
        self.peak_buffer_size = 0
        # What is not sent yet. Made when something has to wait, since an empty deque takes 760
        # bytes, and much of what is said never waits.
        self._chunks: deque[bytes | memoryview] | None = None
        self._latest = b""
        self._draining = Draining()
        # Whether the next write goes to the socket at once, and whether one that did not will be
        # sent at the end of the turn, or once the socket takes more.
        self._at_once = False
        # When the last one did; another socket that has read since opens a new turn. So each
        # message of a broadcast goes at once: to send those to 1,000 later costs 3 ms more on
        # asyncio, and 12 on trio.
        self._turns = _SCRATCH.turns
        self._turn = sys.maxsize  # until start()
        # Whether a write has only to be kept until then.
        self._corking = False
        # Whether short writes may be gathered meanwhile, and how many have been, with their bytes.
        self._gathers = False
        self.gathering = False
        self.gathered: list[bytes] = []
        self._gathered_count = 0
        self._gathered_size = 0
        self._joined = 0  # how many writes of this turn are no chunks of their own
        self._flush_due = False
        self._blocked = False
        self._eof_written = False
        self._write_ended = False
        self._write_end_told = False
        self._write_error: Exception | None = None
        # Reading.
        self._scratch = _SCRATCH.view
        self._paused = False
        self._watching = False
        self._read_ended = False
        # What the loop has found out before the socket says it.
        self._read_error: Exception | None = None
        self._aborted = False
        self._closed = False

    # What each event loop does in its own way.

    @abc.abstractmethod
    def _watch_reading(self) -> None:
        """Call `_read()` whenever the socket has something to read."""

    @abc.abstractmethod
    def _ignore_reading(self) -> None:
        """Call it no more; without effect if it is not called anyway."""

    @abc.abstractmethod
    def _watch_writing(self) -> None:
        """Call `_send_blocked()` once the socket takes something."""

    @abc.abstractmethod
    def _ignore_writing(self) -> None:
        """Do not call it; without effect if it is not called anyway."""

    @abc.abstractmethod
    def _call_soon(self, callback: Callable[[], None]) -> None:
        """Call it in the next turn of the event loop; after `start()` only."""

    @abc.abstractmethod
    async def _wait_readable(self) -> None:
        """Wait until the socket has something to read, or is closed; before `start()` only."""

    @abc.abstractmethod
    async def _wait_writable(self) -> None:
        """Wait until the socket takes something, or is closed; before `start()` only."""

    @abc.abstractmethod
    def _leave_socket(self) -> None:
        """Let all who wait for the socket go: it is about to be closed."""

    # The ByteStream, for an opening handshake.

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await checkpoint_if_cancelled()
        while True:
            self._check_not_closed()
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                await self._wait_readable()  # the peer, the caller's scope, or aclose() ends it
            except OSError as exc:
                raise BrokenResourceError from exc
            else:
                if not data:
                    raise EndOfStream
                return data

    async def send(self, item: bytes) -> None:
        await checkpoint_if_cancelled()
        data = memoryview(item)
        while True:
            self._check_not_closed()
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                await self._wait_writable()  # the peer's reading, or likewise
            except OSError as exc:
                raise BrokenResourceError from exc
            if not data:
                return

    async def send_eof(self) -> None:
        await checkpoint_if_cancelled()
        self._check_not_closed()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise BrokenResourceError from exc

    async def aclose(self) -> None:
        self._close()
        await checkpoint()

    def close(self) -> bool:
        if self.write_buffer_size and not self._write_ended:
            return False
        self._close()
        return True

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._end_writing()
            self._ignore_reading()
            self._ignore_writing()
            self._leave_socket()
            self._socket.close()
            if self._receiver is not None:
                if self._write_error is not None:
                    self._tell_write_end()  # it may be due still
                self._read_ended = self._write_end_told = True
                self._receiver = None

    def _check_not_closed(self) -> None:
        if self._closed:
            raise ClosedResourceError

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        raw = self._socket
        attributes: dict[Any, Callable[[], Any]] = {
            SocketAttribute.family: lambda: raw.family,
            SocketAttribute.raw_socket: lambda: raw,
        }
        local, remote = self.addresses()
        if local is not None:
            attributes[SocketAttribute.local_address] = lambda: local
            if raw.family != socket.AF_UNIX:
                attributes[SocketAttribute.local_port] = lambda: local[1]
        if remote is not None:
            attributes[SocketAttribute.remote_address] = lambda: remote
            if raw.family != socket.AF_UNIX:
                attributes[SocketAttribute.remote_port] = lambda: remote[1]
        return attributes

    def addresses(self) -> tuple[Any, Any]:
        local = remote = None
        # One that was reset does not know its peer any more, and one that is closed not itself.
        with suppress(OSError):
            local = _plain_address(self._socket.getsockname())
            peer = self._socket.getpeername() if self._peer is None else self._peer
            remote = _plain_address(peer)
        return local, remote

    # The beginning.

    def start(self, receiver: Receiver, task_group: TaskGroup) -> None:
        self._receiver = receiver
        self._task_group = task_group
        if self._aborted:
            self._call_soon(self._tell_ends)
            return
        if not self._paused:
            self._watching = True
            self._watch_reading()
        self._at_once = True
        self._turn = self._turns.count
        if self._chunks or self._latest or self._eof_written:
            self._flush_soon()

    # Writing.

    def write(self, data: bytes) -> None:
        if self._corking:
            assert self._chunks is not None
            if self.gathered:
                self._take_gathered()
            self._chunks.append(data)
            self.write_buffer_size += len(data)
            if self.write_buffer_size > COALESCE_SIZE - GATHERED_SIZE:
                self.gathering = False
                if self.write_buffer_size >= COALESCE_SIZE:
                    self._flush()
            return
        if self._write_ended or self._eof_written:
            return
        new_turn = self._at_once or self._turn < self._turns.count
        if new_turn and not self._chunks and not self._latest:
            sent = self._send_at_once(self._socket.send, data)
            if sent < len(data) and not self._write_ended:
                self._keep(memoryview(data)[sent:])
                self._block()
            return
        if self._chunks is None:
            self._chunks = deque()
        if self._latest:
            self._chunks.append(self._latest)
            self._latest = b""
        self._chunks.append(data)
        self.write_buffer_size += len(data)
        if not self._flush_due:
            self._flush_soon()
        if not self._blocked:
            self._corking = self._flush_due
            if self.write_buffer_size >= COALESCE_SIZE:
                self._flush()
            elif self._corking and self._gathers:
                self.gathering = self.write_buffer_size <= COALESCE_SIZE - GATHERED_SIZE

    def gather_below(self, limit: float) -> None:
        self._gathers = limit >= COALESCE_SIZE

    def count_gathered(self) -> tuple[int, int]:
        if self.gathered:
            self._take_gathered()
        return self._gathered_count, self._gathered_size

    def _take_gathered(self) -> None:
        """Take what was gathered for written."""
        assert self._chunks is not None
        data = b"".join(self.gathered)
        self._chunks.append(data)
        self.write_buffer_size += len(data)
        self._gathered_count += len(self.gathered)
        self._gathered_size += len(data)
        self._joined += len(self.gathered) - 1
        self.gathered.clear()

    def _stop_corking(self) -> None:
        self._corking = self.gathering = False
        if self.gathered:
            self._take_gathered()

    def write_pair(self, head: bytes, body: bytes) -> None:
        if not self._at_once or self._chunks or self._latest:
            self.write(head)
            self.write(body)
            return
        if self._write_ended or self._eof_written:
            return
        # The body is not copied, neither behind the head nor from a buffer.
        sent = self._send_at_once(self._socket.sendmsg, (head, body))
        if sent < len(head) + len(body) and not self._write_ended:
            if sent < len(head):
                self._keep(memoryview(head)[sent:])
            self._keep(memoryview(body)[max(0, sent - len(head)) :])
            self._block()

    def _send_at_once(self, send: Callable[[Any], int], data: Any) -> int:
        """Send what the socket takes, and say how much that was."""
        self._at_once = False
        self._turn = self._turns.count
        try:
            sent = send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            self._lose_writing(exc)
            return 0
        self.sent_size += sent
        return sent

    def _keep(self, data: memoryview) -> None:
        if self._chunks is None:
            self._chunks = deque()
        self._chunks.append(data)
        self.write_buffer_size += len(data)

    def write_latest(self, data: bytes) -> bool:
        if self._write_ended or self._eof_written:
            return False
        replaces = bool(self._latest)
        self._stop_corking()
        self.write_buffer_size += len(data) - len(self._latest)
        self._latest = data
        if not self._flush_due:
            self._flush_soon()
        return replaces

    def write_eof(self) -> None:
        if self._eof_written or self._write_ended:
            return
        self._eof_written = True
        self._stop_corking()
        if self._receiver is not None and not self._chunks and not self._latest:
            self._end_half()
        elif not self._flush_due:
            self._flush_soon()

    async def drain(self, limit: int) -> bool:
        if self.write_buffer_size > limit and self._flush_due and not self._blocked:
            self._flush()
        if self.write_buffer_size <= limit:
            return True
        if self._write_ended:
            return False
        self.attend()
        return await self._draining.wait(limit)  # _flush(), release() or _end_writing() ends it

    def release(self) -> None:
        self._draining.release()

    def _flush_soon(self) -> None:
        if self._receiver is not None:  # start() does it otherwise
            self._flush_due = True
            self._call_soon(self._flush_due_now)

    def _flush_due_now(self) -> None:
        if not self._blocked:
            self._flush_due = False
            # Who has written much in this turn goes on in the next.
            if self.gathered:
                self._take_gathered()
            self._at_once = self._chunks is None or len(self._chunks) + self._joined <= _BURST
            self._joined = 0
            self._turn = self._turns.count
            self._flush()

    def _block(self) -> None:
        # Nothing else is to send meanwhile.
        self._blocked = True
        self._flush_due = True
        self._watch_writing()

    def _send_blocked(self) -> None:
        self._blocked = False
        self._flush_due = False
        self._ignore_writing()
        self._at_once = True
        self._flush()

    def _flush(self) -> None:
        """Send what the socket takes."""
        if self._write_ended or self._receiver is None:
            return
        self._stop_corking()
        # It grows from here to here: so it is looked at once for all that leaves together.
        size = self.write_buffer_size
        if size > self.peak_buffer_size:  # noqa: PLR1730  # a call takes four times as long
            self.peak_buffer_size = size
        chunks = self._chunks
        if chunks is None:
            chunks = self._chunks = deque()
        if len(chunks) > 1 and size <= COALESCE_SIZE and not self._latest:
            together = b"".join(chunks)
            chunks.clear()
            chunks.append(together)
        while chunks or self._latest:
            if self._latest:
                chunks.append(self._latest)
                self._latest = b""
            data = pop_coalesced(chunks)
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                chunks.appendleft(data)
                self._block()
                break
            except OSError as exc:
                self._lose_writing(exc)
                return
            self.write_buffer_size -= sent
            self.sent_size += sent
            if sent < len(data):
                chunks.appendleft(memoryview(data)[sent:])
        self._draining.note(self.write_buffer_size)
        if self._eof_written and not chunks:
            self._end_half()

    def _end_half(self) -> None:
        # Where the peer has gone, reading meets it, or has met it before.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._end_writing()
        self.resume_reading()  # what else would see the peer's end?
        self._tell_write_end()

    def _lose_writing(self, error: Exception) -> None:
        self._write_error = error
        self._end_writing()
        self._call_soon(self._tell_write_end)

    def _end_writing(self) -> None:
        self._write_ended = True
        self._stop_corking()
        self._chunks = None
        self._latest = b""
        self.release()

    def _tell_write_end(self) -> None:
        if not self._write_end_told:
            self._write_end_told = True
            assert self._receiver is not None
            self._receiver.end_writing(self._write_error)

    # Reading.

    def _read(self) -> None:
        """Read what there is, up to a chunk, and feed it."""
        receiver = self._receiver
        if receiver is None:
            return  # it was closed after the socket was found to have something
        if self._paused:
            self._watching = False
            self._ignore_reading()
            return
        try:
            scratch = self._scratch
            size = self._socket.recv_into(scratch)
            if size:
                turns = self._turns
                turns.count = self._turn = turns.count + 1
                # Lent, not copied: for 1 MiB that spares a tenth of all that a server spends.
                self._at_once = not receiver.feed(scratch[:size])
                return
        except BlockingIOError:
            return
        except Exception as exc:  # the receiver is told
            self._end_reading(exc)
        else:
            self._end_reading(self._read_error)

    def _end_reading(self, error: Exception | None) -> None:
        if not self._read_ended:
            self._read_ended = True
            self._ignore_reading()
            assert self._receiver is not None
            self._receiver.end_reading(error)

    def pause_reading(self) -> None:
        # The socket is watched on until there is something to read: most pauses end before.
        self._paused = True

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            over = self._read_ended or self._aborted or self._closed
            if self._receiver is not None and not over and not self._watching:
                self._watching = True
                self._watch_reading()

    # The end at once.

    def abort(self) -> None:
        if self._aborted:
            return
        self._aborted = True
        self._paused = True  # nor is it read if that is due already
        self._end_writing()
        self._ignore_reading()
        self._ignore_writing()
        if self._receiver is not None:
            self._call_soon(self._tell_ends)

    def _tell_ends(self) -> None:
        self._end_reading(None)
        self._tell_write_end()


def _plain_address(address: Any) -> Any:
    """Give an address of IPv6 without flow and scope, which anyio too leaves out or writes so."""
    if len(address) != 4 or isinstance(address, str | bytes):
        return address
    host, port, _, scope = address
    return (f"{host}%{scope}" if scope and "%" not in host else host), port
