"""One side of a connection as it must be: what it has sent, what has come, what follows from it.

Owns the model that a Protocol is compared with, step by step; written anew from RFC 6455 sections 5
to 7, without a codec: it knows what each frame is and where in the stream it ends.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anyws._types import Close, Event, Failure, Fragment, Ping, Pong, Role, State
from anyws.exceptions import ConnectionClosedError, ConnectionClosedOK
from tests.wire import BINARY, CLOSE, CONT, PONG, TEXT, Frame, close_payload, parse_frames

if TYPE_CHECKING:
    from anyws.sansio._protocol import Protocol

OK_CODES = {1000, 1001, 1005}

MAX_REASON_SIZE = 123


class Gone(enum.Enum):
    """What no event comes of."""

    FRAGMENT = "a fragment, but the last of a message"


@dataclass
class Item:
    """A frame that was sent: the event that is to come of it, and its place in the stream."""

    event: Event | Gone
    start: int
    end: int


@dataclass
class Side:
    """One side: its Protocol, and the model of it.

    Args:
        protocol: what is tested.
        compression: whether permessage-deflate was agreed on.
    """

    protocol: Protocol
    compression: bool
    peer: Side = field(init=False)
    # What it has sent.
    sent: list[Item] = field(default_factory=list)
    sent_size: int = 0
    ended: bool = False
    """Whether it has sent its Close."""
    lost: bool = False
    """Whether nothing leaves any more."""
    # What is on its way to it, how much of that it has taken, and the events that came of that.
    incoming: bytes = b""
    taken: int = 0
    seen: int = 0
    finished: bool = False
    """Whether a Close or a Failure has come: it is the last event."""
    parts: list[Any] = field(default_factory=list)
    # What its Protocol must say.
    state: State = State.OPEN
    close_sent: Close | None = None
    close_rcvd: Close | None = None
    rcvd_then_sent: bool | None = None
    eof_to_send: bool = False
    failure: Failure | None = None
    held: Failure | None = None
    pongs: list[bytes] = field(default_factory=list)
    close_to_send: Close | None = None
    # The fragmented message that it is sending.
    message: list[Any] = field(default_factory=list)

    @property
    def expects_data(self) -> bool:
        return self.close_rcvd is None and not self.eof_to_send and self.state is not State.CLOSED

    # Sending.

    def put(self, data: bytes, *expected: tuple[int, bytes, Event | Gone]) -> None:
        """Send bytes; check that they are the frames that were expected.

        Args:
            data: the bytes.
            expected: the opcode of each, its payload in the clear, and what is to come of it.
        """
        frames = parse_frames(data)
        assert len(frames) == len(expected)
        for it, (opcode, payload, event) in zip(frames, expected, strict=True):
            assert self.lost or not self.ended, "a frame after our Close"
            assert it.opcode == opcode
            assert it.masked is (self.protocol.role is Role.CLIENT)
            assert it.fin is (event is not Gone.FRAGMENT)
            assert it.rsv == 0 or (it.rsv == 4 and self.compression and opcode in {TEXT, BINARY})
            if opcode >= CLOSE or not self.compression:
                assert it.payload == payload
            self.send(event, frame_size(it))
        if not self.lost:
            self.peer.incoming += data

    def send(self, event: Event | Gone, size: int) -> None:
        """Note what is on its way now, and in how many bytes."""
        if not self.lost:
            start, self.sent_size = self.sent_size, self.sent_size + size
            self.sent.append(Item(event, start, self.sent_size))
            self.ended = self.ended or type(event) is Close

    # Receiving.

    def take(self, size: int) -> bytes:
        """Take bytes that are on their way; where they have no meaning any more, they are lost."""
        data, self.incoming = self.incoming[:size], self.incoming[size:]
        if self.expects_data:
            self.taken += len(data)
        return data

    def check_events(self, events: list[Event]) -> None:
        """Compare events with what the peer has sent, and do what the RFC says of each."""
        for event in events:
            if type(event) is not Fragment:
                assert not (self.parts and isinstance(event, str | bytes))
                self._check_event(event)
                continue
            self.parts.append(event.data)
            if event.fin:
                self._check_event(type(event.data)().join(self.parts))
                self.parts = []

    def _check_event(self, event: Event) -> None:
        # What is wrong may be found before all of it has come.
        expected = self.next_event(begun=type(event) is Failure)
        assert type(event) is type(expected)
        if type(event) is Failure and type(expected) is Failure:
            assert event.code == expected.code
        else:
            assert event == expected
        self.seen += 1
        if type(event) is Ping and self.state is State.OPEN:
            self.pongs.append(event.data)
        elif type(event) is Close:
            self._receive_close(event)
        elif type(event) is Failure:
            self.finished = True
            self.held = event
            if not self.protocol.holds_failure:
                self.release()

    def next_event(self, *, begun: bool = False) -> Event | Gone | None:
        """Give the next event of what has been taken; None if there is none, or will never be.

        Args:
            begun: whether a part of its frame will do.
        """
        sent = self.peer.sent
        while self.seen < len(sent) and sent[self.seen].event is Gone.FRAGMENT:
            self.seen += 1
        if self.finished or self.seen == len(sent):
            return None
        item = sent[self.seen]
        return item.event if item.end <= self.taken or (begun and item.start < self.taken) else None

    # What follows from it.

    def _receive_close(self, close: Close) -> None:
        self.finished = True
        self.close_rcvd = close
        self.rcvd_then_sent = self.close_sent is None
        self.begin_close(close)
        if self.protocol.role is Role.SERVER:
            self.eof_to_send = True

    def release(self) -> None:
        if self.held is not None:
            self.failure, self.held = self.held, None
            self.fail(self.failure.code, self.failure.reason)

    def fail(self, code: int, reason: str) -> None:
        cut = reason.encode()[:MAX_REASON_SIZE].decode(errors="ignore")
        self.begin_close(Close(code, cut))
        self.eof_to_send = True

    def begin_close(self, close: Close) -> None:
        if self.close_sent is None:
            self.close_sent = self.close_to_send = close
        self.leave_open()

    def leave_open(self) -> None:
        if self.state is State.OPEN:
            self.state = State.CLOSING

    def replies(self, *, newest_pong: bool = False) -> list[tuple[int, bytes, Event | Gone]]:
        """Give the frames that are due, once."""
        pongs = self.pongs[-1:] if newest_pong else self.pongs
        frames: list[tuple[int, bytes, Event | Gone]] = [(PONG, it, Pong(it)) for it in pongs]
        if self.close_to_send is not None:
            close = self.close_to_send
            payload = b"" if close.code == 1005 else close_payload(close.code, close.reason)
            frames.append((CLOSE, payload, close))
        self.pongs = []
        self.close_to_send = None
        return frames

    def check(self) -> None:
        """Compare the Protocol with the model."""
        protocol = self.protocol
        assert protocol.state is self.state
        assert protocol.close_sent == self.close_sent
        assert protocol.close_rcvd == self.close_rcvd
        assert protocol.rcvd_then_sent is self.rcvd_then_sent
        assert protocol.eof_to_send is self.eof_to_send
        assert protocol.expects_data is self.expects_data
        assert protocol.held_failure == self.held
        assert (protocol.failure is None) is (self.failure is None)
        if protocol.failure is not None and self.failure is not None:
            assert protocol.failure.code == self.failure.code
        assert protocol.sending_fragments is bool(self.message)
        assert protocol.pong_to_send is (bool(self.pongs) and self.close_to_send is None)
        assert protocol.replying is (bool(self.pongs) or self.close_to_send is not None)
        self.check_error(protocol.close_exc())

    def check_error(self, error: Exception) -> None:
        """Check the error that says how the connection ended."""
        closes = (self.close_rcvd, self.close_sent)
        ok = all(close is not None and close.code in OK_CODES for close in closes)
        assert type(error) is (ConnectionClosedOK if ok else ConnectionClosedError)
        assert error.args == (*closes, self.rcvd_then_sent)


def frame_size(frame: Frame) -> int:
    size = len(frame.payload)
    extended = 0 if size < 126 else 2 if size < 65536 else 8
    return 2 + extended + (4 if frame.masked else 0) + size


def data_opcode(*, text: bool, begins: bool) -> int:
    """Give the opcode of a frame with data."""
    if not begins:
        return CONT
    return TEXT if text else BINARY
