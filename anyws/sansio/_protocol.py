"""The life of an open connection: which frames may come and go, and what answers them.

Everything that changes the state of a connection stands here, without I/O and without waiting.
Knows no stream, no task and no clock. RFC 6455 sections 5 to 7.

A Protocol is born OPEN, when an opening handshake has succeeded:

    OPEN ----- a Close frame was sent or received, or the connection failed ----> CLOSING
    OPEN ----- the stream ended --------------------------------------------------> CLOSED
    CLOSING -- the stream ended --------------------------------------------------> CLOSED
"""

import enum
import os
from typing import TYPE_CHECKING

from .._types import (
    MAX_CONTROL_SIZE,
    OK_CLOSE_CODES,
    OPEN,
    BytesLike,
    Close,
    CloseCode,
    DataLike,
    Event,
    Failure,
    Opcode,
    Ping,
    Pong,
    Role,
    State,
)
from ..exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    PayloadTooBig,
    ProtocolError,
)
from ._closing import check_close, cut_reason
from ._codec import Decoder, encode_frame
from ._extensions import Extension
from ._limits import parse_max_size
from ._messages import SharedMessage, encode_data

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Protocol"]


# An attribute of an enumeration costs as much as encoding a small frame.
_TEXT = Opcode.TEXT
_BINARY = Opcode.BINARY

SHORT_HEADER_SIZE = 2
"""The header of a frame with up to 125 bytes of payload and no masking key (section 5.2)."""

SHORT_FRAME_SIZE = SHORT_HEADER_SIZE + 125
"""Bytes of such a frame at the most."""

# Bytes of masking keys that a client asks the system for at once.
_POOL_SIZE = 128


class _Step(enum.Enum):
    CLOSE = enum.auto()
    """A Close frame went out or came in, the connection failed, or nothing more can be written."""
    END = enum.auto()
    """The stream ended."""


_TRANSITIONS = {
    (State.OPEN, _Step.CLOSE): State.CLOSING,
    (State.CLOSING, _Step.CLOSE): State.CLOSING,
    (State.OPEN, _Step.END): State.CLOSED,
    (State.CLOSING, _Step.END): State.CLOSED,
    (State.CLOSED, _Step.CLOSE): State.CLOSED,
    (State.CLOSED, _Step.END): State.CLOSED,
}


class Protocol:
    """One side of an open connection.

    Args:
        role: which side; a client masks what it sends, a server ends the stream first.
        max_size: bytes of a whole message after decompression, or (message, fragment) for a limit
            of each fragment too; None is no limit.
        extension: what transforms messages, as agreed on in the opening handshake.
    """

    __slots__ = (
        "_compressing",
        "_fragments_size",
        "_keys",
        "_plain",
        "_pongs",
        "_replies",
        "_sending_str",
        "close_rcvd",
        "close_sent",
        "decoder",
        "eof_to_send",
        "extension",
        "failure",
        "held_failure",
        "holds_failure",
        "messages_sent",
        "payload_size_sent",
        "pings_received",
        "pings_sent",
        "pongs_received",
        "pongs_sent",
        "rcvd_then_sent",
        "role",
        "sends_payload_as_is",
        "state",
    )

    def __init__(
        self,
        role: Role,
        *,
        max_size: int | tuple[int | None, int | None] | None = 2**20,
        extension: Extension | None = None,
    ) -> None:
        self.role: Role = role
        """Which side this is."""
        self.extension: Extension | None = extension
        """What transforms messages; None does not."""
        self.state: State = State.OPEN
        """OPEN, CLOSING from the first Close frame or failure on, and CLOSED after the stream."""
        self.close_sent: Close | None = None
        """Our Close frame, from when it was encoded on."""
        self.close_rcvd: Close | None = None
        """The peer's."""
        self.rcvd_then_sent: bool | None = None
        """Whether the peer's came first; None as long as there are not both."""
        self.failure: ProtocolError | None = None
        """What the peer did wrong, if it did."""
        self.holds_failure: bool = False
        """Whether a failure that is found waits for `release_failure()`."""
        self.held_failure: Failure | None = None
        """The failure that waits; nothing that still comes has a meaning."""
        self.eof_to_send: bool = False
        """Whether our half of the stream is to end once all that was to be sent is out."""
        max_message_size, max_fragment_size = parse_max_size(max_size)
        self.decoder: Decoder = Decoder(
            masked=role is Role.SERVER,
            max_size=max_message_size,
            max_fragment_size=max_fragment_size,
            inflate=extension,
        )
        # The keys to mask with, for a client; the last is the next.
        self._keys: list[bytes] | None = [] if role is Role.CLIENT else None
        self._pongs: list[bytes] = []
        self._replies: list[bytes] = []
        # The fragmented message that is being sent.
        self._sending_str: bool | None = None
        self._fragments_size = 0
        self._compressing = False
        # What was sent.
        self.messages_sent: int = 0
        """Messages that were encoded, those in fragments with their last."""
        self.payload_size_sent: int = 0
        """Bytes of their payloads, before compression."""
        self.pings_received: int = 0
        """Pings of the peer."""
        self.pings_sent: int = 0
        """Pings that were encoded."""
        self.pongs_received: int = 0
        """Pongs of the peer, those that nobody asked for included."""
        self.pongs_sent: int = 0
        """Answers to Pings included."""
        # Whether a message is one frame, with nothing to be seen to before.
        self._plain = extension is None
        self.sends_payload_as_is: bool = self._plain and self._keys is None
        """Whether `send_header()` may be used: nothing masks or compresses what is sent now."""

    # Receiving.

    def receive_data(
        self, data: BytesLike, max_bytes: int | None = None, max_messages: int | None = None
    ) -> list[Event]:
        """Take a chunk of what the peer sent.

        Afterwards `data_to_send()` has the answers: Pongs, and a Close frame for a Close frame or
        for a failure. Nothing comes of what follows those two (RFC 6455 section 5.5.1).

        Args:
            data: the chunk; empty to go on after a budget was spent.
            max_bytes: stop decoding once the messages of this call have that many bytes.
            max_messages: likewise for their number.

        Returns:
            Messages as str or bytes, Fragment, Ping, Pong, Close and Failure, in their order.
        """
        if self.state is not OPEN and not self.expects_data:
            # RFC 6455 section 7.1.7: after failing the connection an endpoint does not "continue to
            # attempt to process data (including a responding Close frame) from the remote
            # endpoint". What came before and waits for its budget is another matter.
            data = b""
        decoder = self.decoder
        events = decoder.feed(data, max_bytes, max_messages)
        if decoder.plain_size >= 0:
            return events
        for event in events:
            kind = type(event)
            if kind is Pong:
                self.pongs_received += 1
            elif kind is Ping:
                self._receive_ping(event)  # type: ignore[arg-type]  # its exact type is Ping
            elif kind is Close:
                self._receive_close(event)  # type: ignore[arg-type]  # its exact type is Close
            elif kind is Failure and not self.holds_failure:
                self._receive_failure(event)  # type: ignore[arg-type]  # its exact type is Failure
            elif kind is Failure:
                self.held_failure = event  # type: ignore[assignment]  # likewise
        return events

    def release_failure(self) -> None:
        """Fail the connection if a failure waits for it; `data_to_send()` has the Close frame."""
        if self.held_failure is not None:
            failure, self.held_failure = self.held_failure, None
            self._receive_failure(failure)

    def receive_eof(self) -> None:
        """Take the end of the stream, or the loss of it."""
        self._step(_Step.END)

    def lose_write(self) -> None:
        """Take that nothing more can be sent; what has been received is still good."""
        self._step(_Step.CLOSE)

    @property
    def expects_data(self) -> bool:
        """Whether anything that still comes from the peer has a meaning."""
        return self.close_rcvd is None and not self.eof_to_send and self.state is not State.CLOSED

    def _receive_ping(self, ping: Ping) -> None:
        self.pings_received += 1
        # RFC 6455 section 5.5.2: "an endpoint MUST send a Pong frame in response, unless it
        # already received a Close frame"; nothing may follow our own Close.
        if self.state is OPEN:
            self._pongs.append(self._encode(Opcode.PONG, ping.data))

    def _receive_close(self, close: Close) -> None:
        self.close_rcvd = close
        if self.close_sent is None:
            # RFC 6455 section 5.5.1: "the endpoint MUST send a Close frame in response. (When
            # sending a Close frame in response, the endpoint typically echos the status code it
            # received.)"
            self.rcvd_then_sent = True
            self._queue_close(close)
        else:
            self.rcvd_then_sent = False
        self._step(_Step.CLOSE)
        # RFC 6455 section 7.1.1: the server ends the TCP connection first.
        if self.role is Role.SERVER:
            self.eof_to_send = True

    def _receive_failure(self, failure: Failure) -> None:
        error = PayloadTooBig if failure.code == CloseCode.MESSAGE_TOO_BIG else ProtocolError
        self.failure = error(failure.reason, failure.code)
        self.fail(failure.code, failure.reason)

    # Sending.

    def data_to_send(self, *, newest_pong: bool = False) -> bytes:
        """Give the answers to what was received, once.

        Args:
            newest_pong: leave out all Pongs but the newest, for a peer that does not read them
                (RFC 6455 section 5.5.3 lets us).
        """
        pongs = self._pongs[-1:] if newest_pong else self._pongs
        self.pongs_sent += len(pongs)
        data = b"".join([*pongs, *self._replies])
        self._pongs = []
        self._replies = []
        return data

    def drop_pong(self) -> None:
        """Take that a Pong which `data_to_send()` gave will not be sent, since a newer one is."""
        self.pongs_sent -= 1

    @property
    def replying(self) -> bool:
        """Whether `data_to_send()` has anything."""
        return bool(self._pongs or self._replies)

    @property
    def pong_to_send(self) -> bool:
        """Whether `data_to_send()` has a Pong and nothing else."""
        return bool(self._pongs) and not self._replies

    def send_message(
        self, message: DataLike, text: bool | None = None, compress: bool | None = None
    ) -> bytes:
        """Encode a message in one frame.

        Args:
            message: str for Text, a bytes-like object for Binary.
            text: True or False to choose the type regardless of that; bytes sent as Text must be
                UTF-8, which is not checked.
            compress: whether to compress it; None decides by its size.

        Raises:
            TypeError: it is neither.
            ValueError: a str has a lone surrogate, and so no UTF-8.
            ConnectionClosed: the connection is no longer open.
            RuntimeError: a fragmented message is not complete yet.
        """
        if self._plain and text is None:
            # The messages of most connections: the codec takes them as they are.
            kind = type(message)
            if kind is str or kind is bytes:
                opcode = _TEXT if kind is str else _BINARY
                keys = self._keys
                if keys is None:
                    frame = encode_frame(opcode, message)
                    size = len(frame) - 2
                else:
                    if not keys:
                        _add_keys(keys)
                    frame = encode_frame(opcode, message, masking_key=keys.pop())
                    size = len(frame) - 6
                if size > MAX_CONTROL_SIZE:
                    # Its length stands in 2 or 8 bytes more. Of a str, this is its size in UTF-8.
                    size -= 2 if size < 0x10002 else 8
                self.messages_sent += 1
                self.payload_size_sent += size
                return frame
        self._check_open()
        if self._sending_str is not None:
            raise RuntimeError("a fragmented message is not complete yet")
        is_text, payload = encode_data(message, text)
        opcode = _TEXT if is_text else _BINARY
        frame = self._encode_data(opcode, payload, fin=True, compress=compress)
        self._count_sent(len(payload))
        return frame

    def _count_sent(self, size: int) -> None:
        self.messages_sent += 1
        self.payload_size_sent += size

    def send_header(self, size: int) -> bytes:
        """Encode the header of a Binary message in one frame; its payload is to follow as it is.

        Args:
            size: bytes of the payload, 126 or more.
        """
        self._count_sent(size)
        if size < 0x10000:
            return b"\x82\x7e" + size.to_bytes(2, "big")
        return b"\x82\x7f" + size.to_bytes(8, "big")

    def send_shared(self, message: SharedMessage) -> bytes:
        """Encode a message that others send too; encoded alike, it is encoded once.

        Raises:
            ConnectionClosed: the connection is no longer open.
            RuntimeError: a fragmented message is not complete yet.
        """
        if self.sends_payload_as_is:
            frame = message.frames.get(None)
            if frame is not None:
                self._count_sent(len(message.payload))
                return frame
        self._check_open()
        if self._sending_str is not None:
            raise RuntimeError("a fragmented message is not complete yet")
        extension = self.extension
        sharing: Hashable = None
        shared = self._keys is None  # a client masks each frame with a key of its own
        if extension is not None and extension.wants(len(message.payload)):
            sharing = extension.sharing
            shared = shared and sharing is not None
            if shared:
                extension.restart()
        frame = message.frames.get(sharing) if shared else None
        if frame is None:
            frame = self._encode_data(message.opcode, message.payload, fin=True, compress=None)
            if shared:
                message.frames[sharing] = frame
        self._count_sent(len(message.payload))
        return frame

    def send_fragment(
        self,
        data: DataLike,
        *,
        fin: bool,
        text: bool | None = None,
        compress: bool | None = None,
    ) -> bytes:
        """Encode the first or next fragment of a message (RFC 6455 section 5.4).

        Args:
            data: str or a bytes-like object; each fragment of a message the same of the two.
            fin: whether the message ends with it.
            text: as in `send_message`; the first fragment decides.
            compress: likewise.

        Raises:
            TypeError: it is neither, or the other than the fragments before.
            ValueError: a str has a lone surrogate, and so no UTF-8.
            ConnectionClosed: the connection is no longer open.
        """
        self._check_open()
        is_text, payload = encode_data(data, text)
        if self._sending_str is None:
            opcode = Opcode.TEXT if is_text else Opcode.BINARY
        elif isinstance(data, str) is not self._sending_str:
            raise TypeError("fragments of one message must be all str or all bytes-like")
        else:
            opcode = Opcode.CONT
        self._sending_str = None if fin else isinstance(data, str)
        self._note_plain()
        frame = self._encode_data(opcode, payload, fin=fin, compress=compress)
        self._fragments_size += len(payload)
        if fin:
            self._count_sent(self._fragments_size)
            self._fragments_size = 0
        return frame

    def send_ping(self, data: BytesLike) -> bytes:
        """Encode a Ping.

        Raises:
            ValueError: it has more than 125 bytes.
            TypeError: it is not bytes-like.
            ConnectionClosed: the connection is no longer open.
        """
        frame = self._send_control(Opcode.PING, data)
        self.pings_sent += 1
        return frame

    def send_pong(self, data: BytesLike) -> bytes:
        """Encode a Pong, with the errors of `send_ping`."""
        frame = self._send_control(Opcode.PONG, data)
        self.pongs_sent += 1
        return frame

    def send_close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> bytes:
        """Encode the Close frame that begins the closing handshake.

        Args:
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999; 1005 sends no code.
            reason: up to 123 bytes of UTF-8.

        Raises:
            ValueError: the code or the reason is none that may be sent.
            TypeError: the code is no int, or the reason no str.
            ConnectionClosed: the connection is no longer open.
        """
        close = check_close(code, reason)
        self._check_open()
        self._queue_close(close)
        self._step(_Step.CLOSE)
        return self.data_to_send()

    def fail(self, code: int, reason: str = "") -> None:
        """Fail the connection (RFC 6455 section 7.1.7): `data_to_send()` has the Close frame.

        The reason is cut to what fits. Nothing that still comes from the peer has a meaning.

        Raises:
            ValueError: the code is none that may be sent.
            TypeError: the code is no int, or the reason no str.
        """
        close = check_close(code, cut_reason(reason))
        if self.close_sent is None:
            self._queue_close(close)
        self._step(_Step.CLOSE)
        self.eof_to_send = True

    def close_exc(self) -> ConnectionClosed:
        """Make the error that says how the connection ended, as far as it has."""
        rcvd, sent = self.close_rcvd, self.close_sent
        ok = (
            rcvd is not None
            and sent is not None
            and rcvd.code in OK_CLOSE_CODES
            and sent.code in OK_CLOSE_CODES
        )
        error = ConnectionClosedOK if ok else ConnectionClosedError
        return error(rcvd, sent, self.rcvd_then_sent)

    @property
    def sending_fragments(self) -> bool:
        """Whether a fragmented message has been begun and not completed."""
        return self._sending_str is not None

    def _step(self, step: _Step) -> None:
        self.state = _TRANSITIONS[self.state, step]
        self._note_plain()

    def _note_plain(self) -> None:
        self._plain = self.state is OPEN and self._sending_str is None and self.extension is None
        self.sends_payload_as_is = self._plain and self._keys is None

    def _check_open(self) -> None:
        if self.state is not OPEN:
            raise self.close_exc()

    def _encode(
        self, opcode: int, payload: BytesLike, *, fin: bool = True, rsv1: bool = False
    ) -> bytes:
        keys = self._keys
        if keys is None:
            return encode_frame(opcode, payload, fin=fin, rsv1=rsv1)
        if not keys:
            _add_keys(keys)
        return encode_frame(opcode, payload, fin=fin, rsv1=rsv1, masking_key=keys.pop())

    def _encode_data(
        self, opcode: Opcode, payload: BytesLike, *, fin: bool, compress: bool | None
    ) -> bytes:
        extension = self.extension
        if extension is None:
            return self._encode(opcode, payload, fin=fin)
        if opcode is not Opcode.CONT:
            size = len(payload)
            self._compressing = extension.wants(size) if compress is None else compress
        if not self._compressing:
            return self._encode(opcode, payload, fin=fin)
        payload = extension.encode(payload, fin=fin)
        # RFC 7692 section 6.1: RSV1 is set on the first fragment alone.
        return self._encode(opcode, payload, fin=fin, rsv1=opcode is not Opcode.CONT)

    def _send_control(self, opcode: Opcode, data: BytesLike) -> bytes:
        if isinstance(data, memoryview):
            data = data.tobytes()
        elif not isinstance(data, (bytes, bytearray)):
            # The codec would take a str, and count its bytes only then.
            raise TypeError(
                f"data of a control frame must be bytes-like, not {type(data).__name__}"
            )
        if len(data) > MAX_CONTROL_SIZE:
            raise ValueError(
                f"control frame of {len(data)} bytes exceeds the limit of {MAX_CONTROL_SIZE} bytes"
            )
        self._check_open()
        return self._encode(opcode, data)

    def _queue_close(self, close: Close) -> None:
        payload = b""
        if close.code != CloseCode.NO_STATUS_RCVD:
            payload = close.code.to_bytes(2, "big") + close.reason.encode()
        self._replies.append(self._encode(Opcode.CLOSE, payload))
        self.close_sent = close


def _add_keys(keys: list[bytes]) -> None:
    """Add keys for the next frames, from a strong source of entropy (RFC 6455 section 10.3)."""
    # A call of the system costs more than all the rest of a small frame. No generator: one that an
    # interrupt of the user's meets is over for good.
    pool = os.urandom(_POOL_SIZE)
    keys.extend([pool[start : start + 4] for start in range(0, _POOL_SIZE, 4)])
