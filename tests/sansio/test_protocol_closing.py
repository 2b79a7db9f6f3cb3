"""How a connection ends: states, the closing handshake and failure (RFC 6455 section 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from anyws._types import Close, Failure, Ping, Role, State
from anyws.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    PayloadTooBig,
    ProtocolError,
)
from anyws.sansio._protocol import Protocol
from tests.wire import BINARY, CLOSE, MASK, PING, TEXT, Frame, close_payload, frame, parse_frames

if TYPE_CHECKING:
    from collections.abc import Callable

BOTH = pytest.mark.parametrize("role", [Role.CLIENT, Role.SERVER])


def received(protocol: Protocol, opcode: int, payload: bytes = b"") -> bytes:
    """Give a frame as the peer of `protocol` sends it."""
    return frame(opcode, payload, mask=MASK if protocol.role is Role.SERVER else None)


def close_frame(data: bytes) -> Frame:
    """Read the one Close frame that `data` is."""
    (close,) = parse_frames(data)
    assert (close.opcode, close.fin, close.rsv) == (CLOSE, True, 0)
    return close


# States.

STEPS: dict[str, Callable[[Protocol], object]] = {
    "send": lambda p: p.send_close() if p.state is State.OPEN else None,
    "receive": lambda p: p.receive_data(received(p, CLOSE)),
    "violate": lambda p: p.receive_data(b"\xff\xff"),
    "fail": lambda p: p.fail(1011),
    "lose": lambda p: p.lose_write(),
    "eof": lambda p: p.receive_eof(),
}
TO_CLOSING = ["send", "receive", "violate", "fail", "lose"]


@BOTH
def test_connection_is_born_open(role: Role) -> None:
    protocol = Protocol(role)
    assert protocol.state is State.OPEN
    assert protocol.expects_data
    assert not protocol.eof_to_send
    assert (protocol.close_sent, protocol.close_rcvd, protocol.rcvd_then_sent) == (None, None, None)
    assert protocol.failure is None
    assert protocol.extension is None


@BOTH
@pytest.mark.parametrize("step", TO_CLOSING)
def test_connection_is_closing_when_its_end_begins(role: Role, step: str) -> None:
    protocol = Protocol(role)
    STEPS[step](protocol)
    assert protocol.state is State.CLOSING


@BOTH
@pytest.mark.parametrize("first", TO_CLOSING)
@pytest.mark.parametrize("second", TO_CLOSING)
def test_connection_stays_closing_until_the_stream_ends(
    role: Role, first: str, second: str
) -> None:
    protocol = Protocol(role)
    STEPS[first](protocol)
    STEPS[second](protocol)
    before = protocol.state
    protocol.receive_eof()
    assert (before, protocol.state) == (State.CLOSING, State.CLOSED)


@BOTH
@pytest.mark.parametrize("step", STEPS)
def test_connection_stays_closed(role: Role, step: str) -> None:
    protocol = Protocol(role)
    protocol.receive_eof()
    assert protocol.state is State.CLOSED
    assert not protocol.expects_data
    STEPS[step](protocol)
    assert protocol.state is State.CLOSED


@BOTH
@pytest.mark.behaviour(29)
@pytest.mark.parametrize("first", STEPS)
@pytest.mark.parametrize("second", STEPS)
@pytest.mark.parametrize("third", STEPS)
def test_one_close_frame_is_sent_at_the_most(
    role: Role, first: str, second: str, third: str
) -> None:
    protocol = Protocol(role)
    sent = b""
    for step in (first, second, third):
        result = STEPS[step](protocol)
        sent += (result if isinstance(result, bytes) else b"") + protocol.data_to_send()
    closes = [one for one in parse_frames(sent) if one.opcode == CLOSE]
    assert len(closes) == (protocol.close_sent is not None) <= 1


# The closing handshake that we begin.


@BOTH
@pytest.mark.behaviour(22, 23)
@pytest.mark.parametrize(
    ("arguments", "payload"),
    [
        ((), b"\x03\xe8"),
        ((1001,), b"\x03\xe9"),
        ((3000, "bye é"), b"\x0b\xb8bye \xc3\xa9"),
        ((4999, "a" * 123), b"\x13\x87" + b"a" * 123),
        ((1005,), b""),
    ],
)
def test_close_is_sent_with_its_code_and_reason(
    role: Role, arguments: tuple[int] | tuple[int, str], payload: bytes
) -> None:
    protocol = Protocol(role)
    close = close_frame(protocol.send_close(*arguments))
    assert close.payload == payload
    assert close.masked is (role is Role.CLIENT)
    assert protocol.data_to_send() == b""
    assert protocol.expects_data
    assert not protocol.eof_to_send


@BOTH
def test_server_ends_the_stream_when_its_close_is_answered(role: Role) -> None:
    protocol = Protocol(role)
    protocol.send_close(1001, "bye")
    assert protocol.receive_data(received(protocol, CLOSE, b"\x03\xe9")) == [Close(1001)]
    assert (protocol.close_sent, protocol.close_rcvd) == (Close(1001, "bye"), Close(1001))
    assert protocol.rcvd_then_sent is False
    assert protocol.data_to_send() == b""
    assert not protocol.expects_data
    assert protocol.eof_to_send is (role is Role.SERVER)


@BOTH
def test_messages_still_come_after_our_close(role: Role) -> None:
    protocol = Protocol(role)
    protocol.send_close()
    data = received(protocol, TEXT, b"a") + received(protocol, PING) + received(protocol, CLOSE)
    assert protocol.receive_data(data) == ["a", Ping(b""), Close(1005)]
    assert protocol.data_to_send() == b""


@pytest.mark.behaviour(24)
@pytest.mark.parametrize(
    "code", [-1, 0, 999, 1004, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65536]
)
def test_close_is_refused_when_its_code_may_not_be_sent(code: int) -> None:
    protocol = Protocol(Role.CLIENT)
    text = (
        f"^close code {code} may not be sent, expected 1000 to 1003, 1007 to 1014 or 3000 to 4999$"
    )
    with pytest.raises(ValueError, match=text):
        protocol.send_close(code)
    assert protocol.state is State.OPEN
    assert protocol.close_sent is None


@pytest.mark.behaviour(24)
@pytest.mark.parametrize("reason", ["a" * 124, "é" * 62])
def test_close_is_refused_when_its_reason_is_over_123_bytes(reason: str) -> None:
    protocol = Protocol(Role.CLIENT)
    text = "^close reason of 124 bytes exceeds the limit of 123 bytes$"
    with pytest.raises(ValueError, match=text):
        protocol.send_close(1000, reason)
    assert protocol.state is State.OPEN
    assert close_frame(protocol.send_close(1000, "é" * 61)).reason == "é" * 61


def test_close_is_refused_when_it_has_a_reason_and_no_code() -> None:
    protocol = Protocol(Role.CLIENT)
    with pytest.raises(ValueError, match=r"^close reason 'bye' without a close code$"):
        protocol.send_close(1005, "bye")
    assert protocol.state is State.OPEN


@pytest.mark.parametrize(
    ("code", "reason", "problem"),
    [
        ("bye", "", "close code must be an int, not str"),
        (1000.5, "", "close code must be an int, not float"),
        (1000, b"bye", "close reason must be a str, not bytes"),
        (1000, None, "close reason must be a str, not NoneType"),
    ],
)
def test_close_is_refused_when_code_or_reason_has_a_wrong_type(
    code: Any, reason: Any, problem: str
) -> None:
    protocol = Protocol(Role.CLIENT)
    with pytest.raises(TypeError, match=f"^{problem}$"):
        protocol.send_close(code, reason)
    assert protocol.state is State.OPEN


# The closing handshake that the peer begins.


@BOTH
@pytest.mark.behaviour(28, 33)
@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe9bye", b"\x0f\xa0" + b"a" * 123])
def test_close_of_the_peer_is_echoed(role: Role, payload: bytes) -> None:
    protocol = Protocol(role)
    close = Close(int.from_bytes(payload[:2], "big") or 1005, payload[2:].decode())
    assert protocol.receive_data(received(protocol, CLOSE, payload)) == [close]
    echo = close_frame(protocol.data_to_send())
    assert (echo.payload, echo.masked) == (payload, role is Role.CLIENT)
    assert (protocol.close_rcvd, protocol.close_sent) == (close, close)
    assert protocol.rcvd_then_sent is True
    assert not protocol.expects_data
    assert protocol.eof_to_send is (role is Role.SERVER)
    assert protocol.data_to_send() == b""


@BOTH
@pytest.mark.behaviour(30)
def test_data_after_the_close_of_the_peer_is_ignored(role: Role) -> None:
    protocol = Protocol(role)
    data = received(protocol, CLOSE) + received(protocol, TEXT, b"a") + received(protocol, PING)
    assert protocol.receive_data(data) == [Close(1005)]
    protocol.data_to_send()
    assert protocol.receive_data(received(protocol, TEXT, b"a")) == []
    assert protocol.data_to_send() == b""


@BOTH
@pytest.mark.behaviour(55)
def test_messages_before_the_close_are_given(role: Role) -> None:
    protocol = Protocol(role)
    data = received(protocol, TEXT, b"a") + received(protocol, BINARY, b"b")
    assert protocol.receive_data(data + received(protocol, CLOSE)) == ["a", b"b", Close(1005)]


@BOTH
def test_closes_that_cross_each_other_are_both_kept(role: Role) -> None:
    protocol = Protocol(role)
    protocol.send_close(1000)
    protocol.receive_data(received(protocol, CLOSE, close_payload(1001, "bye")))
    assert protocol.data_to_send() == b""
    error = protocol.close_exc()
    assert str(error) == "sent 1000 (OK); then received 1001 (going away) bye"


# Failure.


@BOTH
@pytest.mark.behaviour(29, 35)
@pytest.mark.parametrize(
    ("wire", "code", "reason"),
    [
        ("ff 00", 1002, "reserved bit RSV2 or RSV3 is set"),
        ("83 00", 1002, "unknown opcode 3"),
        ("88 02 03 ed", 1002, "invalid close code 1005"),
        ("81 01 ff", 1007, "invalid UTF-8 in text"),
        ("82 0b", 1009, "message of 11 bytes exceeds the limit of 10 bytes"),
    ],
)
def test_violation_is_answered_with_a_close(role: Role, wire: str, code: int, reason: str) -> None:
    protocol = Protocol(role, max_size=10)
    data = bytearray.fromhex(wire)
    if role is Role.SERVER:
        data[1] |= 0x80
        data[2:2] = bytes(4)
    assert protocol.receive_data(bytes(data)) == [Failure(code, reason)]
    close = close_frame(protocol.data_to_send())
    assert (close.code, close.reason) == (code, reason)
    assert (protocol.close_rcvd, protocol.close_sent) == (None, Close(code, reason))
    assert protocol.eof_to_send
    assert not protocol.expects_data
    assert protocol.receive_data(received(protocol, TEXT, b"a")) == []
    assert protocol.data_to_send() == b""


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"\x82\x0b", PayloadTooBig("message of 11 bytes exceeds the limit of 10 bytes", 1009)),
        (b"\x81\x01\xff", ProtocolError("invalid UTF-8 in text", 1007)),
        (b"\x83\x00", ProtocolError("unknown opcode 3", 1002)),
    ],
)
def test_violation_is_kept_as_an_error(wire: bytes, error: ProtocolError) -> None:
    protocol = Protocol(Role.CLIENT, max_size=10)
    protocol.receive_data(wire)
    failure = protocol.failure
    assert failure is not None
    assert type(failure) is type(error)
    assert (str(failure), failure.code) == (str(error), error.code)


@BOTH
def test_violation_after_our_close_sends_no_other(role: Role) -> None:
    protocol = Protocol(role)
    protocol.send_close()
    assert protocol.receive_data(b"\xff\xff") == [Failure(1002, "reserved bit RSV2 or RSV3 is set")]
    assert protocol.data_to_send() == b""
    assert protocol.eof_to_send
    assert protocol.close_sent == Close(1000)
    assert protocol.failure is not None


@BOTH
@pytest.mark.behaviour(51)
def test_messages_before_a_violation_are_given_and_pings_answered(role: Role) -> None:
    protocol = Protocol(role)
    data = received(protocol, TEXT, b"a") + received(protocol, PING, b"b") + b"\xff\xff"
    assert protocol.receive_data(data)[:2] == ["a", Ping(b"b")]
    assert [one.opcode for one in parse_frames(protocol.data_to_send())] == [0xA, CLOSE]


@BOTH
def test_fail_sends_a_close_and_ends_the_stream(role: Role) -> None:
    protocol = Protocol(role)
    protocol.fail(1011, "keepalive ping timeout")
    close = close_frame(protocol.data_to_send())
    assert (close.code, close.reason) == (1011, "keepalive ping timeout")
    assert protocol.eof_to_send
    assert not protocol.expects_data
    assert protocol.failure is None


@BOTH
@pytest.mark.parametrize("opcode", [TEXT, PING, CLOSE])
def test_nothing_comes_of_what_the_peer_sends_after_fail(role: Role, opcode: int) -> None:
    protocol = Protocol(role)
    protocol.fail(1011)
    protocol.data_to_send()
    assert protocol.receive_data(received(protocol, opcode)) == []
    assert protocol.close_rcvd is None
    assert protocol.data_to_send() == b""


@BOTH
def test_messages_that_wait_for_a_budget_are_given_after_fail(role: Role) -> None:
    protocol = Protocol(role)
    data = received(protocol, TEXT, b"a") + received(protocol, TEXT, b"b")
    assert protocol.receive_data(data, None, 1) == ["a"]
    protocol.fail(1011)
    assert protocol.receive_data(received(protocol, TEXT, b"c")) == ["b"]


@BOTH
def test_violation_waits_when_failures_are_held(role: Role) -> None:
    protocol = Protocol(role)
    protocol.holds_failure = True
    failure = Failure(1002, "reserved bit RSV2 or RSV3 is set")
    data = received(protocol, TEXT, b"a") + received(protocol, PING, b"b") + b"\xff\xff"
    assert protocol.receive_data(data) == ["a", Ping(b"b"), failure]
    assert protocol.held_failure == failure
    assert protocol.state is State.OPEN
    assert protocol.failure is None
    assert [one.opcode for one in parse_frames(protocol.data_to_send())] == [0xA]
    protocol.release_failure()
    assert protocol.held_failure is None
    assert close_frame(protocol.data_to_send()).code == 1002
    assert protocol.failure is not None
    protocol.release_failure()
    assert protocol.data_to_send() == b""


def test_nothing_is_released_when_no_failure_is_held() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.holds_failure = True
    protocol.release_failure()
    assert protocol.state is State.OPEN
    assert protocol.data_to_send() == b""


def test_reason_of_fail_is_cut_to_what_fits() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.fail(1011, "é" * 100)
    assert protocol.data_to_send() == b"\x88\x7c\x03\xf3" + "é".encode() * 61
    assert protocol.close_sent == Close(1011, "é" * 61)


@pytest.mark.parametrize(("code", "error"), [(1006, ValueError), (0, ValueError), ("1", TypeError)])
def test_fail_sends_no_code_that_may_not_be_sent(code: Any, error: type[Exception]) -> None:
    protocol = Protocol(Role.SERVER)
    with pytest.raises(error):
        protocol.fail(code)
    assert protocol.state is State.OPEN
    assert protocol.data_to_send() == b""


# How it ended.


def ending(
    rcvd: Close | None, sent: Close | None, *, first: bool | None = None
) -> ConnectionClosed:
    """End a connection with these Close frames, and give its error."""
    protocol = Protocol(Role.CLIENT)
    if sent is not None and not first:
        protocol.send_close(sent.code, sent.reason)
    if rcvd is not None:
        payload = b"" if rcvd.code == 1005 else close_payload(rcvd.code, rcvd.reason)
        protocol.receive_data(frame(CLOSE, payload))
    protocol.receive_eof()
    return protocol.close_exc()


OK = Close(1000)


@pytest.mark.behaviour(31, 32, 33, 35, 50, 51)
@pytest.mark.parametrize(
    ("error", "kind", "text", "code"),
    [
        (ending(None, None), ConnectionClosedError, "no close frame received or sent", 1006),
        (
            ending(None, OK),
            ConnectionClosedError,
            "sent 1000 (OK); no close frame received",
            1006,
        ),
        (
            ending(OK, OK),
            ConnectionClosedOK,
            "sent 1000 (OK); then received 1000 (OK)",
            1000,
        ),
        (
            ending(OK, OK, first=True),
            ConnectionClosedOK,
            "received 1000 (OK); then sent 1000 (OK)",
            1000,
        ),
        (
            ending(Close(1001, "bye"), OK),
            ConnectionClosedOK,
            "sent 1000 (OK); then received 1001 (going away) bye",
            1001,
        ),
        (
            ending(Close(1005), OK),
            ConnectionClosedOK,
            "sent 1000 (OK); then received 1005 (no status received)",
            1005,
        ),
        (
            ending(Close(1005), None, first=True),
            ConnectionClosedOK,
            "received 1005 (no status received); then sent 1005 (no status received)",
            1005,
        ),
        (
            ending(Close(1011, "oops"), OK),
            ConnectionClosedError,
            "sent 1000 (OK); then received 1011 (internal error) oops",
            1011,
        ),
        (
            ending(OK, Close(1011)),
            ConnectionClosedError,
            "sent 1011 (internal error); then received 1000 (OK)",
            1000,
        ),
        (
            ending(Close(3000, "app"), OK, first=True),
            ConnectionClosedError,
            "received 3000 (registered) app; then sent 3000 (registered) app",
            3000,
        ),
    ],
    ids=str,
)
def test_error_says_how_the_connection_ended(
    error: ConnectionClosed, kind: type[ConnectionClosed], text: str, code: int
) -> None:
    assert type(error) is kind
    assert str(error) == text
    assert error.code == code


def test_error_after_a_violation_says_what_was_sent() -> None:
    protocol = Protocol(Role.CLIENT)
    protocol.receive_data(b"\x83\x00")
    assert str(protocol.close_exc()) == (
        "sent 1002 (protocol error) unknown opcode 3; no close frame received"
    )
