"""TLS over any transport.

Owns the TLS handshake, the records both ways, and the end of TLS; OpenSSL does the work, in memory.
Knows no socket and no WebSocket. RFC 8446 section 6.1 for the end.
"""

from __future__ import annotations

import ssl
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anyio import BrokenResourceError, CancelScope, EndOfStream
from anyio.streams.tls import TLSAttribute

from ._base import Transport
from ._draining import Draining

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import TaskGroup

    from .._parking import Parking
    from ._base import Receiver

# The most that a record holds (RFC 8446 section 5.1); a read never gives more.
_RECORD_SIZE = 16384


class TLSTransport(Transport):
    """A transport that encrypts what goes over another one.

    Args:
        below: the other one; it is closed with this one.
        context: keys and certificates.
        server_side: which side of the handshake we are.
        server_hostname: the name that the server's certificate must have.
    """

    def __init__(
        self,
        below: Transport,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None,
    ) -> None:
        self._below = below
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._server_side = server_side
        self._ssl = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        self._receiver: Receiver | None = None
        self._task_group: TaskGroup | None = None
        # What waits to be encrypted: while the peer must be heard first, and before the start.
        self._unencrypted: deque[memoryview] = deque()
        self._unencrypted_size = 0
        # What was encrypted since the start; of that, what has left; and for what has not, how far
        # the transport below is when it has.
        self._encrypted_size = 0
        self._left_size = 0
        self._leaving: deque[tuple[int, int]] = deque()
        self._latest = b""
        self._draining = Draining()
        self._waiting_to_send_latest = False
        self._eof_written = False
        self._write_ended = False
        self._paused = False
        self._feeding = False
        self._waiting_to_feed = False
        self._close_notify_sent = False
        self._read_ended = False
        # Whether the transport below has told us so, which it does once. We hold it back while
        # reading is paused.
        self._below_read_ended = False
        self._cut_off = False
        self._aborted = False

    @property
    def write_buffer_size(self) -> int:  # type: ignore[override]  # nobody sets it
        return self._below.write_buffer_size + self._unencrypted_size + len(self._latest)

    @property
    def sent_size(self) -> int:  # type: ignore[override]  # nobody sets it
        return self._below.sent_size

    @property
    def plain_sent_size(self) -> int:
        self._note_left()
        return self._left_size

    def _note_left(self) -> None:
        """See what has left since it was last looked."""
        leaving = self._leaving
        while leaving and leaving[0][0] <= self._below.sent_size:
            self._left_size = leaving.popleft()[1]

    @property
    def peak_buffer_size(self) -> int:  # type: ignore[override]  # likewise
        return self._below.peak_buffer_size

    def make_parking(self) -> Parking:
        return self._below.make_parking()

    def attend(self) -> None:
        self._below.attend()

    # The handshake, and the ByteStream.

    async def shake_hands(self) -> None:
        """Run the TLS handshake.

        Raises:
            ssl.SSLError: the two sides do not agree, or the certificate is refused; the peer has
                been told.
            EndOfStream: the stream ended in the midst of it; or what else the stream raises.

        Cancellation: the stream is of no use any more.
        """
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                await self._receive_more()
            except ssl.SSLError:
                with suppress(OSError, BrokenResourceError):
                    await self._send_records()  # the alert
                raise
            else:
                await self._send_records()
                return

    async def receive(self, max_bytes: int = 65536) -> bytes:
        while True:
            try:
                data = self._ssl.read(max_bytes)
            except ssl.SSLWantReadError:
                try:
                    await self._receive_more()
                except EndOfStream:
                    self._incoming.write_eof()
            except ssl.SSLError as exc:
                raise BrokenResourceError from exc
            else:
                if not data:
                    raise EndOfStream
                return data

    async def send(self, item: bytes) -> None:
        self._add(item)
        while self._unencrypted:
            try:
                self._encrypt()
            except ssl.SSLError as exc:
                raise BrokenResourceError from exc
            if self._unencrypted:
                await self._receive_more()
        await self._send_records()

    async def send_eof(self) -> None:
        raise NotImplementedError("TLS cannot end one direction alone")

    async def _receive_more(self) -> None:
        await self._send_records()
        self._incoming.write(await self._below.receive())

    async def _send_records(self) -> None:
        records = self._outgoing.read()
        if records:
            await self._below.send(records)

    async def aclose(self) -> None:
        try:
            if not self._aborted and not self._write_ended and not self._cut_off:
                self._write_close_notify()
                if self._receiver is None:
                    await self._send_records()
                else:
                    self._below.write(self._outgoing.read())
                    await self._below.drain(0)
        except (OSError, BrokenResourceError):
            pass  # the peer has gone, and does not miss it
        finally:
            await self._below.aclose()
            self._read_ended = self._write_ended = True
            self._receiver = None

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        ssl_object = self._ssl
        return {
            **self._below.extra_attributes,
            TLSAttribute.alpn_protocol: ssl_object.selected_alpn_protocol,
            TLSAttribute.channel_binding_tls_unique: ssl_object.get_channel_binding,
            TLSAttribute.cipher: ssl_object.cipher,
            TLSAttribute.peer_certificate: lambda: ssl_object.getpeercert(binary_form=False),
            TLSAttribute.peer_certificate_binary: lambda: ssl_object.getpeercert(binary_form=True),
            TLSAttribute.server_side: lambda: self._server_side,
            TLSAttribute.shared_ciphers: ssl_object.shared_ciphers,
            TLSAttribute.standard_compatible: lambda: True,
            TLSAttribute.ssl_object: lambda: ssl_object,
            TLSAttribute.tls_version: ssl_object.version,
        }

    # The beginning.

    def start(self, receiver: Receiver, task_group: TaskGroup) -> None:
        self._receiver = receiver
        self._task_group = task_group
        self._encrypted_size = 0
        self._below.start(self, task_group)
        if not self._aborted:
            self._write_records()
            if self._has_more:
                # The peer has sent it right behind its handshake.
                self._feed_soon()

    # Writing.

    def write(self, data: bytes) -> None:
        if self._write_ended or self._eof_written:
            return
        if self._latest:
            self._add(self._latest)
            self._latest = b""
        self._add(data)
        self._write_records()

    def write_latest(self, data: bytes) -> bool:
        if self._write_ended or self._eof_written:
            return False
        # A record has its number in the order of all, so it is made when it can leave.
        replaces = bool(self._latest)
        self._latest = data
        if not self._waiting_to_send_latest and self._task_group is not None:
            self._waiting_to_send_latest = True
            self._task_group.start_soon(self._send_latest, name="anyws TLS")
        return replaces

    async def _send_latest(self) -> None:
        with CancelScope(shield=True):
            await self._below.drain(0)  # abort() ends it at the latest
        self._waiting_to_send_latest = False
        self._write_latest_now()

    def _write_latest_now(self) -> None:
        if self._latest and not self._write_ended:
            self._add(self._latest)
            self._latest = b""
            self._write_records()

    def write_eof(self) -> None:
        if self._eof_written or self._write_ended:
            return
        self._eof_written = True
        if self._latest:
            self._add(self._latest)
            self._latest = b""
        self._write_records()

    async def drain(self, limit: int) -> bool:
        while self.write_buffer_size > limit:
            if self._write_ended:
                return False
            below = self._below
            if not below.write_buffer_size:
                self._write_latest_now()
            kept = self._unencrypted_size + len(self._latest)
            if not kept:
                return await below.drain(limit)
            # What is kept here leaves after all that is below, or once the peer has been heard.
            if below.write_buffer_size:
                drained = await below.drain(max(0, limit - kept))
            else:
                drained = await self._draining.wait(limit)  # _encrypt() or release() ends it
            if not drained:
                return False
        return True

    def release(self) -> None:
        self._draining.release()
        self._below.release()

    def _add(self, data: bytes) -> None:
        self._unencrypted.append(memoryview(data))
        self._unencrypted_size += len(data)

    def _encrypt(self) -> None:
        """Encrypt what waits for it, unless the peer must be heard first."""
        waiting = self._unencrypted
        try:  # suppress() would take a quarter of all this for a small message
            while waiting:
                data = waiting[0]
                # An empty write would give an empty record.
                size = self._ssl.write(data) if data else 0
                self._unencrypted_size -= size
                self._encrypted_size += size
                if size == len(data):
                    waiting.popleft()
                else:
                    waiting[0] = data[size:]
        except ssl.SSLWantReadError:
            pass
        self._draining.note(self._unencrypted_size)

    def _write_records(self) -> None:
        """Encrypt, and give the records to the transport below; after the start only."""
        if self._receiver is None or self._write_ended:
            return
        try:
            self._encrypt()
        except ssl.SSLError as exc:
            self.end_writing(exc)
            return
        end = self._eof_written and not self._unencrypted
        if end and not self._cut_off:
            self._write_close_notify()
        records = self._outgoing.read()
        if records:
            below = self._below
            self._note_left()
            behind = below.sent_size + below.write_buffer_size
            self._leaving.append((behind + len(records), self._encrypted_size))
            below.write(records)
        if end:
            # Where the peer goes on sending, it reads our last bytes before a reset.
            self._below.write_eof()

    def _write_close_notify(self) -> None:
        if not self._close_notify_sent:
            self._close_notify_sent = True
            # It wants the peer's own, which comes later or not at all.
            with suppress(ssl.SSLError):
                self._ssl.unwrap()

    # Reading.

    def feed(self, data: bytes | memoryview) -> bool:
        """Take records from the transport below."""
        if self._read_ended:
            return False
        self._incoming.write(data)
        more = self._feed_plain()
        if self._unencrypted or self._outgoing.pending:
            self._write_records()
        return more

    @property
    def _has_more(self) -> bool:
        """Whether there are bytes of the peer's that have not been decrypted and fed."""
        return bool(self._incoming.pending or self._incoming.eof or self._ssl.pending())

    def _feed_plain(self) -> bool:
        """Decrypt and feed what there is, as long as reading is not paused."""
        more = False
        if self._feeding or self._read_ended:
            return more
        assert self._receiver is not None
        self._feeding = True
        try:
            while self._has_more and (not self._paused or self._close_notify_sent):
                data = self._ssl.read(_RECORD_SIZE)
                if not data:
                    self._end_reading(None)
                    break
                if not self._close_notify_sent:
                    more = self._receiver.feed(data) or more
        except ssl.SSLWantReadError:
            pass
        except Exception as exc:  # the receiver is told
            # After our own end, what else comes is not what we wait for.
            self._end_reading(None if self._close_notify_sent else exc)
        finally:
            self._feeding = False
        return more

    def end_reading(self, error: Exception | None) -> None:
        """Take from the transport below that nothing more will come."""
        if error is not None or self._aborted:
            self._end_reading(error)
            return
        self._below_read_ended = True
        self._incoming.write_eof()
        if not self._paused or self._close_notify_sent:
            self._feed_plain()

    def _end_reading(self, error: Exception | None) -> None:
        if not self._read_ended:
            self._read_ended = True
            self._cut_off = error is not None
            assert self._receiver is not None
            self._receiver.end_reading(error)

    def end_writing(self, error: Exception | None) -> None:
        """Take from the transport below that nothing more will leave."""
        if not self._write_ended:
            self._write_ended = True
            self._drop_unsent()
            assert self._receiver is not None
            self._receiver.end_writing(error)

    def _drop_unsent(self) -> None:
        self._unencrypted.clear()
        self._unencrypted_size = 0
        self._latest = b""
        self._draining.release()

    def pause_reading(self) -> None:
        self._paused = True
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        if self._receiver is None or not self._has_more:
            self._below.resume_reading()
        elif not self._waiting_to_feed:
            self._feed_soon()

    def _feed_soon(self) -> None:
        assert self._task_group is not None
        self._waiting_to_feed = True
        self._task_group.start_soon(self._feed_rest, name="anyws TLS")

    async def _feed_rest(self) -> None:
        """Feed what was here before, then read on; or tell the end, once aborted."""
        self._waiting_to_feed = False
        if self._aborted:
            if self._below_read_ended:
                self._end_reading(None)
        else:
            self._feed_plain()
            if not self._paused:
                self._below.resume_reading()

    # The end.

    def set_timer(self, deadline: float, callback: Callable[[], None] | None) -> None:
        self._below.set_timer(deadline, callback)

    def close(self) -> bool:
        return False

    def abort(self) -> None:
        self._aborted = True
        self._drop_unsent()
        self._below.abort()
        if self._below_read_ended and not self._read_ended and not self._waiting_to_feed:
            self._feed_soon()  # nobody else would tell the end that was held back
