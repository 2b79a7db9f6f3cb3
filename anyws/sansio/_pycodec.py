"""Frames in pure Python: the specification that the compiled codec follows.

Owns the decoding of frames and the assembly of messages from them; what is sent is encoded in
`_pyencoder`. Knows no state of a connection, no stream and no clock. RFC 6455 sections 5.2 to 5.6
and 8.1.
"""

import sys
from codecs import utf_8_decode
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Self

from .._types import (
    MAX_CONTROL_SIZE,
    BytesLike,
    Close,
    CloseCode,
    Data,
    Event,
    Failure,
    Fragment,
    Opcode,
    Ping,
    Pong,
    is_valid_close_code,
)
from ..exceptions import PayloadTooBig, ProtocolError
from ._extensions import Extension
from ._pyencoder import apply_mask, encode_frame, mask_slice
from ._pyqueue import MessageQueue

__all__ = ["Decoder", "apply_mask", "encode_frame"]

# Control frames that one call gives at the most if it has a budget. A chunk of 256 KiB may hold
# 131072 of them, which made objects of 27 MiB, their answers included.
_MAX_CONTROL_FRAMES = 1024

# As plain int: an attribute of an enumeration and a comparison with it take several times as long.
_CONT = int(Opcode.CONT)
_TEXT = int(Opcode.TEXT)
_BINARY = int(Opcode.BINARY)
_CLOSE = int(Opcode.CLOSE)
_PING = int(Opcode.PING)
_PONG = int(Opcode.PONG)


class _Failed(Exception):
    """The peer broke the protocol; becomes the Failure event."""

    def __init__(self, reason: str, code: int = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


def _invalid_text(where: str = "text") -> _Failed:
    # No more details: Python's depend on where the stream happened to be cut.
    return _Failed(f"invalid UTF-8 in {where}", CloseCode.INVALID_DATA)


class _Messages:
    """The messages of a connection, one after the other."""

    def __init__(
        self, decoder: "Decoder", otherwise: Callable[[], Coroutine[Any, Any, Data]]
    ) -> None:
        self._decoder = decoder
        self._otherwise = otherwise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Data:
        message = self._decoder.take()
        return await self._otherwise() if message is None else message


class Decoder:
    """Frames in, messages and control frames out.

    A message is given as one str or bytes. Text is checked as it arrives, so that a wrong byte is
    found in the piece that has it. Limits are checked when a header says how much will come.

    Args:
        masked: whether the peer must mask, that is, whether it is the client.
        max_size: bytes of a whole message after decompression; None is no limit.
        max_fragment_size: bytes of one fragment of it, likewise.
        inflate: the extension that transforms messages with RSV1; None forbids RSV1.
        fragments: give the message in progress, or else the next, as Fragment events.
    """

    __slots__ = (
        "_data",
        "_finished",
        "_frame_fin",
        "_frame_size",
        "_in_frame",
        "_inflate",
        "_key",
        "_largest_short",
        "_masked",
        "_max_fragment_size",
        "_max_size",
        "_message",
        "_message_compressed",
        "_message_size",
        "_opcode",
        "_position",
        "_remaining",
        "_utf8_tail",
        "fragments",
        "message_count",
        "payload_size",
        "pending",
        "plain_size",
        "queue",
    )

    def __init__(
        self,
        *,
        masked: bool,
        max_size: int | None,
        max_fragment_size: int | None = None,
        inflate: Extension | None = None,
        fragments: bool = False,
    ) -> None:
        self._masked = masked
        self._max_size = max_size
        self._max_fragment_size = max_fragment_size
        self._inflate = inflate
        # The most bytes that a message in one frame without an extended length may have.
        self._largest_short = min(
            size for size in (125, max_size, max_fragment_size) if size is not None
        )
        self.fragments: bool = fragments
        self.pending: bool = False
        """Whether the last feed() stopped at its budget, with bytes left to decode."""
        self.plain_size: int = 0
        """Bytes of what the last feed() gave (a str counts a character as a byte), where that was
        whole messages alone; -1 where it was not."""
        self.message_count: int = 0
        """Messages that were complete, in all, those given as fragments included."""
        self.payload_size: int = 0
        """Bytes of their payloads, inflated."""
        self.queue: MessageQueue = MessageQueue()
        """What `take()` takes from; who feeds the decoder puts there what that has given."""
        self._finished = False
        # What has come and is not decoded yet.
        self._data = b""
        self._position = 0
        # The message in progress; no opcode: none.
        self._opcode = 0
        self._message_compressed = False
        self._message = bytearray()
        self._message_size = 0
        self._utf8_tail = b""
        # The data frame in progress.
        self._in_frame = False
        self._frame_fin = False
        self._frame_size = 0
        self._remaining = 0
        self._key = b""

    def feed(
        self, data: BytesLike, max_bytes: int | None = None, max_messages: int | None = None
    ) -> list[Event]:
        """Decode a chunk, and what an earlier call left over.

        Decoding stops once the messages given by this call reach one of the two budgets; then
        `pending` is true, the rest is kept, and the next call goes on with it. So a small chunk
        that inflates to many large messages takes the memory of the budget and of one message.
        Where there is a budget, decoding stops as well after a thousand control frames.

        Args:
            data: what was received; empty to go on with the rest. It is not kept.
            max_bytes: the budget for payloads (a str counts a character as a byte).
            max_messages: the budget for messages and fragments.

        Returns:
            The events in their order. After a Close or a Failure there are no more, ever.
        """
        events: list[Event] = []
        self.plain_size = 0
        if self._finished:
            return events
        if data:
            if self._position < len(self._data):
                self._data = b"".join((self._data[self._position :], data))
            else:
                self._data = data if type(data) is bytes else bytes(data)
            self._position = 0
        self.pending = False
        try:
            self._decode(events, max_bytes, max_messages)
        except _Failed as failed:
            self._fail(events, int(failed.code), failed.reason)
        except ProtocolError as error:
            self._fail(events, int(error.code), str(error))
        if self._position == len(self._data):
            self._data = b""
            self._position = 0
        elif not self.pending:
            # Part of a header or of a control frame, to be kept without the chunk that had it.
            self._data = self._data[self._position :]
            self._position = 0
        return events

    def keep(self, data: BytesLike) -> None:
        """Keep a chunk for the next `feed()`, behind what an earlier one left over.

        Args:
            data: what was received, at least a byte; it is copied.
        """
        if not self._finished:
            self._data = b"".join((self._data[self._position :], data))
            self._position = 0
            self.pending = True

    def take(self) -> Data | None:
        """Take the oldest message out of the queue if that is all that there is to do.

        While reading is paused, and the queue would come to its low marks, short messages that an
        earlier `feed()` left over are decoded first. Where they fill the queue, that was all; where
        they do not, reading is to go on, and the queue is `starved`.

        Returns:
            None where there is no message, none may be taken now, or reading is to go on first.
        """
        queue = self.queue
        messages = queue.messages
        if not messages or queue.held or not queue.calls_left:
            return None
        if queue.paused:
            near = queue.starved or len(messages) - 1 <= queue.low_messages
            if near and not self._replenish():
                return None
        queue.calls_left -= 1
        message = messages.popleft()
        queue.size -= len(message)  # type: ignore[arg-type]  # no fragment: held where there are any
        return message  # type: ignore[return-value]  # likewise

    def iterate(self, otherwise: Callable[[], Coroutine[Any, Any, Data]]) -> AsyncIterator[Data]:
        """Give an asynchronous iterator over the messages that `take()` gives.

        Args:
            otherwise: waits for the next one where that gives none.
        """
        return _Messages(self, otherwise)

    def _replenish(self) -> bool:
        """Say whether to take the oldest message out is all that there is to do, while paused."""
        queue = self.queue
        if queue.starved:
            return False
        leaving = len(queue.messages[0])  # type: ignore[arg-type]  # no fragment, as in take()
        left = len(queue) - 1
        size_left = queue.size - leaving
        if left > queue.low_messages or size_left > queue.low_bytes:
            return True
        if not self.pending or not queue.replenishes:
            return False
        if self._opcode or self._in_frame or self.fragments:
            return False
        places = queue.high_messages - left
        room = queue.high_bytes - size_left
        given: list[Event] = []
        size = self._decode_short(given, room, places) if places > 0 and room > 0 else 0
        queue.add(given, size)  # type: ignore[arg-type]  # messages alone
        queue.note_peaks(1, leaving)
        self.pending = self._position < len(self._data)
        if not self.pending:
            self._data = b""
            self._position = 0
        queue.starved = len(given) < places and size < room
        return not queue.starved

    def _decode(self, events: list[Event], max_bytes: int | None, max_messages: int | None) -> None:
        end = len(self._data)
        has_budget = max_bytes is not None or max_messages is not None
        room = sys.maxsize if max_bytes is None else max_bytes
        places = sys.maxsize if max_messages is None else max_messages
        messages = 0
        if self.fragments and not self._in_frame and len(self._message) > len(self._utf8_tail):
            events.append(self._fragment(fin=False))
            self.plain_size = -1
        while True:
            given = len(events)
            if self._in_frame:
                size = self._decode_payload(events)
                if self._in_frame:
                    return
            elif end - self._position < 2:
                return
            else:
                size = 0
                if not self._opcode and not self.fragments:
                    size = self._decode_short(events, room, places)
                if len(events) == given:
                    if not self._decode_header(events):
                        return
                    if has_budget and len(events) - messages >= _MAX_CONTROL_FRAMES:
                        self.pending = self._position < end
                        return
                    continue
            given = len(events) - given
            messages += given
            places -= given
            room -= size
            if self.plain_size >= 0:
                self.plain_size += size
            if given and (places <= 0 or room <= 0):
                self.pending = self._position < end
                return

    def _decode_short(self, events: list[Event], room: int, places: int) -> int:
        """Decode the messages of up to 125 bytes in one frame that come next, within a budget.

        All else is left to the general way, errors too. In one loop, because each call that a
        message costs counts here.

        Returns:
            The bytes of what it gave (a str counts a character as a byte).
        """
        data = self._data
        end = len(data) - 1
        masked = self._masked
        largest = self._largest_short
        from_bytes = int.from_bytes
        position = self._position
        count = total = payload_size = 0
        while position < end:
            # 0x81 and 0x82: Text and Binary.
            first = data[position]
            size = data[position + 1]
            start = position + 2
            if masked:
                size -= 128
                start += 4
            stop = start + size
            if not 0 <= size <= largest or stop > end + 1 or (first != 0x81 and first != 0x82):
                break
            payload = data[start:stop]
            if masked:
                # As mask_slice() does it; a call less.
                keys = data[start - 4 : start] * ((size + 3) >> 2)
                if size & 3:
                    keys = keys[:size]
                payload = (from_bytes(payload, "little") ^ from_bytes(keys, "little")).to_bytes(
                    size, "little"
                )
            message: str | bytes = payload
            if first == 0x81:
                try:
                    message = payload.decode()
                except UnicodeDecodeError:
                    break
            events.append(message)
            position = stop
            count += 1
            payload_size += size
            total += len(message)
            if count >= places or total >= room:
                break
        self._position = position
        self.message_count += count
        self.payload_size += payload_size
        return total

    def _decode_header(self, events: list[Event]) -> bool:
        """Decode a header, and the whole frame if it is a control frame.

        Returns:
            Whether it was there, and more may come.
        """
        data = self._data
        position = self._position + 2
        available = len(data) - position
        first = data[position - 2]
        second = data[position - 1]
        opcode = first & 0x0F
        size = second & 0x7F
        self._check_start(first, opcode, second > 0x7F)
        if opcode >= _CLOSE:
            if not first & 0x80:
                raise _Failed("fragmented control frame")
            if size > MAX_CONTROL_SIZE:
                raise _Failed(f"control frame over the limit of {MAX_CONTROL_SIZE} bytes")
        elif size == 126:
            if available < 2:
                return False
            size = int.from_bytes(data[position : position + 2], "big")
            position += 2
            if size < 126:
                raise _Failed(f"length {size} is not encoded in the fewest bytes")
        elif size == 127:
            if available < 8:
                return False
            size = int.from_bytes(data[position : position + 8], "big")
            position += 8
            if size >> 63:
                raise _Failed(f"length {size} has its highest bit set")
            if size < 0x10000:
                raise _Failed(f"length {size} is not encoded in the fewest bytes")
        if opcode < _CLOSE:
            self._check_size(size, opcode, compressed=bool(first & 0x40))
        key = b""
        if self._masked:
            key = data[position : position + 4]
            if len(key) < 4:
                return False
            position += 4
        if opcode >= _CLOSE:
            return self._decode_control(opcode, position, size, key, events)
        if opcode:
            self._opcode = opcode
            self._message_compressed = bool(first & 0x40)
        self._in_frame = True
        self._frame_fin = first > 0x7F
        self._frame_size = 0
        self._remaining = size
        self._key = key
        self._position = position
        return True

    def _check_start(self, first: int, opcode: int, masked: bool) -> None:
        if first & 0x30:
            raise _Failed("reserved bit RSV2 or RSV3 is set")
        if first & 0x40:
            if self._inflate is None:
                raise _Failed("reserved bit RSV1 is set, and no extension uses it")
            if opcode != _TEXT and opcode != _BINARY:
                raise _Failed("reserved bit RSV1 is set on a frame that does not begin a message")
        if opcode > _PONG or _BINARY < opcode < _CLOSE:
            raise _Failed(f"unknown opcode {opcode}")
        if masked is not self._masked:
            raise _Failed(
                "frame of a client is not masked" if self._masked else "frame of a server is masked"
            )
        if opcode == _CONT:
            if not self._opcode:
                raise _Failed("continuation without a message to continue")
        elif opcode < _CLOSE and self._opcode:
            raise _Failed("new message before the end of the last")

    def _check_size(self, size: int, opcode: int, *, compressed: bool) -> None:
        # What a compressed frame will inflate to is not known yet; that is bounded while inflating.
        if compressed or (not opcode and self._message_compressed):
            return
        if self._max_fragment_size is not None and size > self._max_fragment_size:
            raise _Failed(
                f"fragment of {size} bytes exceeds the limit of {self._max_fragment_size} bytes",
                CloseCode.MESSAGE_TOO_BIG,
            )
        if self._max_size is not None and self._message_size + size > self._max_size:
            raise _Failed(
                f"message of {self._message_size + size} bytes exceeds the limit"
                f" of {self._max_size} bytes",
                CloseCode.MESSAGE_TOO_BIG,
            )

    def _decode_control(
        self, opcode: int, position: int, size: int, key: bytes, events: list[Event]
    ) -> bool:
        stop = position + size
        if stop > len(self._data):
            return False
        payload = self._data[position:stop]
        if key:
            payload = bytes(mask_slice(payload, 0, size, key))
        self._position = stop
        self.plain_size = -1
        if opcode == _PING:
            events.append(Ping(payload))
        elif opcode == _PONG:
            events.append(Pong(payload))
        else:
            events.append(self._decode_close(payload))
            self._finish()
            return False
        return True

    def _decode_close(self, payload: bytes) -> Close:
        if not payload:
            return Close(CloseCode.NO_STATUS_RCVD)
        if len(payload) == 1:
            raise _Failed("Close frame of 1 byte, expected none or at least 2 bytes")
        code = int.from_bytes(payload[:2], "big")
        if not is_valid_close_code(code):
            raise _Failed(f"invalid close code {code}")
        try:
            return Close(code, payload[2:].decode())
        except UnicodeDecodeError:
            raise _invalid_text("close reason") from None

    def _decode_payload(self, events: list[Event]) -> int:
        """Take what has come of the data frame; give a message or fragment at its end.

        Returns:
            The bytes of what it gave, as `_decode_short` counts them.
        """
        data = self._data
        start = self._position
        stop = min(start + self._remaining, len(data))
        size = stop - start
        self._position = stop
        self._remaining -= size
        frame_ends = not self._remaining
        piece: bytes | bytearray | memoryview
        if self._key and size:
            piece = mask_slice(data, start, stop, self._key)
            turn = size & 3
            if turn and not frame_ends:
                self._key = self._key[turn:] + self._key[:turn]
        elif self._message or not frame_ends:
            piece = memoryview(data)[start:stop]  # it is copied behind what has come before
        else:
            piece = data[start:stop]
        fin = self._frame_fin and frame_ends
        if self._message_compressed:
            piece = self._inflate_piece(piece, fin)
        self._frame_size += len(piece)
        self._message_size += len(piece)
        if not frame_ends:
            self._append(piece)
            return 0
        self._in_frame = False
        if fin:
            message = self._end_message(piece)
        else:
            self._append(piece)
            if not self.fragments:
                return 0
            message = self._fragment(fin=False)
        events.append(message)
        if isinstance(message, Fragment):
            self.plain_size = -1
            return len(message.data)
        return len(message)

    def _inflate_piece(self, piece: BytesLike, fin: bool) -> bytes:
        assert self._inflate is not None
        what, limit, room = "message", self._max_size, None
        if limit is not None:
            room = limit - self._message_size
        if self._max_fragment_size is not None:
            fragment_room = self._max_fragment_size - self._frame_size
            if room is None or fragment_room < room:
                what, limit, room = "fragment", self._max_fragment_size, fragment_room
        try:
            return self._inflate.decode(piece, room, fin=fin)
        except PayloadTooBig:
            raise _Failed(
                f"{what} exceeds the limit of {limit} bytes after decompression",
                CloseCode.MESSAGE_TOO_BIG,
            ) from None

    def _append(self, piece: BytesLike) -> None:
        if self._opcode == _TEXT:
            self._check_text(piece)
        self._message += piece

    def _check_text(self, piece: BytesLike) -> None:
        # RFC 6455 section 8.1: invalid UTF-8 fails the connection; we do it at the first wrong
        # byte.
        unchecked = self._utf8_tail + piece
        try:
            _, checked = utf_8_decode(unchecked, "strict", False)
        except UnicodeDecodeError:
            raise _invalid_text() from None
        self._utf8_tail = tail = bytes(unchecked[checked:])
        # Python waits for the third byte before it rejects a surrogate, the second tells already.
        if len(tail) > 1 and tail[0] == 0xED and tail[1] > 0x9F:
            raise _invalid_text()

    def _end_message(self, piece: BytesLike) -> str | bytes | Fragment:
        message: str | bytes | Fragment
        if self.fragments or self._message:
            self._append(piece)
            if self._utf8_tail:
                raise _invalid_text()
            if self.fragments:
                message = self._fragment(fin=True)
                self.fragments = False
            else:
                message = self._message.decode() if self._opcode == _TEXT else bytes(self._message)
        elif self._opcode == _TEXT:
            try:
                message = str(piece, "utf-8")
            except UnicodeDecodeError:
                raise _invalid_text() from None
        else:
            message = bytes(piece)
        self.message_count += 1
        self.payload_size += self._message_size
        self._message = bytearray()
        self._utf8_tail = b""
        self._message_size = 0
        self._opcode = 0
        return message

    def _fragment(self, *, fin: bool) -> Fragment:
        message = self._message
        if self._opcode != _TEXT:
            self._message = bytearray()
            return Fragment(bytes(message), fin)
        # A code point that is cut by the frames goes with the fragment that completes it.
        cut = len(message) - len(self._utf8_tail)
        self._message = message[cut:]
        return Fragment(message[:cut].decode(), fin)

    def _fail(self, events: list[Event], code: int, reason: str) -> None:
        self._finish()
        self.plain_size = -1
        events.append(Failure(code, reason))

    def _finish(self) -> None:
        self._finished = True
        self._data = b""
        self._position = 0
        self._message = bytearray()
