"""The life of an open connection without I/O: messages, Pings, and what may no longer be sent.

The tests of its end stand in `test_protocol_closing`.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import pytest

from anyws._types import Close, Fragment, Ping, Pong, Role, State
from anyws.exceptions import ConnectionClosedError, ConnectionClosedOK
from anyws.sansio._closing import cut_reason
from anyws.sansio._deflate import Deflate
from anyws.sansio._limits import parse_max_size
from anyws.sansio._messages import SharedMessage
from anyws.sansio._protocol import Protocol
from tests.wire import BINARY, CONT, MASK, PING, PONG, TEXT, Frame, frame, parse_frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyws._types import DataLike

BOTH = pytest.mark.parametrize("role", [Role.CLIENT, Role.SERVER])


def only_frame(data: bytes) -> Frame:
    """Read the one frame that `data` is."""
    (only,) = parse_frames(data)
    return only


def mask_for(role: Role) -> bytes | None:
    """Give the masking key of what a protocol of `role` receives."""
    return MASK if role is Role.SERVER else None


# Messages.


@BOTH
@pytest.mark.parametrize(
    ("message", "text", "opcode", "payload"),
    [
        ("Hé", None, TEXT, b"H\xc3\xa9"),
        ("", None, TEXT, b""),
        (b"Hello", None, BINARY, b"Hello"),
        (bytearray(b"Hello"), None, BINARY, b"Hello"),
        (memoryview(b"Hello"), None, BINARY, b"Hello"),
        (memoryview(array("H", [0x4141])), None, BINARY, b"AA"),
        ("Hé", True, TEXT, b"H\xc3\xa9"),
        ("Hé", False, BINARY, b"H\xc3\xa9"),
        (b"Hello", True, TEXT, b"Hello"),
        (b"Hello", False, BINARY, b"Hello"),
        (bytearray(b"Hello"), True, TEXT, b"Hello"),
        (memoryview(b"Hello"), True, TEXT, b"Hello"),
    ],
)
def test_message_is_one_frame(
    role: Role, message: DataLike, text: bool | None, opcode: int, payload: bytes
) -> None:
    sent = only_frame(Protocol(role).send_message(message, text=text))
    assert sent == Frame(opcode, payload, fin=True, rsv=0, masked=role is Role.CLIENT)


def test_each_frame_of_a_client_has_another_masking_key() -> None:
    protocol = Protocol(Role.CLIENT)
    keys = {protocol.send_message(b"")[2:] for _ in range(50)}
    keys |= {protocol.send_ping(b"")[2:] for _ in range(50)}
    assert len(keys) == 100


def test_frame_of_a_server_is_literal() -> None:
    protocol = Protocol(Role.SERVER)
    assert protocol.send_message("Hello") == b"\x81\x05Hello"
    assert protocol.send_fragment(b"He", fin=False) == b"\x02\x02He"
    assert protocol.send_ping(b"a") == b"\x89\x01a"
    assert protocol.send_pong(b"a") == b"\x8a\x01a"
    assert protocol.send_fragment(b"", fin=True) == b"\x80\x00"
    assert protocol.send_close() == b"\x88\x02\x03\xe8"


@BOTH
def test_messages_are_received(role: Role) -> None:
    protocol = Protocol(role)
    mask = mask_for(role)
    data = frame(TEXT, b"a", mask=mask) + frame(PONG, b"b", mask=mask)
    assert protocol.receive_data(data + frame(BINARY, b"c", mask=mask)) == ["a", Pong(b"b"), b"c"]
    assert protocol.data_to_send() == b""
    assert protocol.state is State.OPEN
    assert protocol.expects_data


def test_budgets_are_those_of_the_decoder() -> None:
    protocol = Protocol(Role.CLIENT)
    data = b"\x81\x01a\x81\x01b\x81\x02cd\x81\x01e"
    assert protocol.receive_data(data, None, 1) == ["a"]
    assert protocol.decoder.pending
    assert protocol.receive_data(b"", 2) == ["b", "cd"]
    assert protocol.receive_data(b"") == ["e"]
    assert not protocol.decoder.pending


def test_fragments_are_received_when_asked_for() -> None:
    protocol = Protocol(Role.CLIENT)
    protocol.decoder.fragments = True
    assert protocol.receive_data(b"\x01\x01a") == [Fragment("a", False)]


@pytest.mark.parametrize("message", [1, None, ["a"], {"a": 1}, object()])
def test_message_of_another_type_is_refused(message: Any) -> None:
    protocol = Protocol(Role.SERVER)
    text = (
        f"^message of type {type(message).__name__}, expected str, bytes, bytearray or memoryview$"
    )
    with pytest.raises(TypeError, match=text):
        protocol.send_message(message)
    with pytest.raises(TypeError, match=text):
        protocol.send_fragment(message, fin=False)
    assert not protocol.sending_fragments
    assert protocol.send_message("a") == b"\x81\x01a"


def test_str_without_utf8_is_refused() -> None:
    protocol = Protocol(Role.SERVER)
    with pytest.raises(ValueError, match="surrogates not allowed"):
        protocol.send_message("\ud800")
    with pytest.raises(ValueError, match="surrogates not allowed"):
        protocol.send_fragment("\ud800", fin=False)
    assert not protocol.sending_fragments


# Fragments.


@BOTH
def test_fragments_make_one_message(role: Role) -> None:
    protocol = Protocol(role)
    assert not protocol.sending_fragments
    first = only_frame(protocol.send_fragment("a", fin=False))
    assert protocol.sending_fragments
    second = only_frame(protocol.send_fragment("", fin=False))
    last = only_frame(protocol.send_fragment("b", fin=True))
    assert not protocol.sending_fragments
    assert [(f.opcode, f.payload, f.fin) for f in (first, second, last)] == [
        (TEXT, b"a", False),
        (CONT, b"", False),
        (CONT, b"b", True),
    ]


def test_fragment_that_is_the_only_one_is_a_message() -> None:
    protocol = Protocol(Role.SERVER)
    assert protocol.send_fragment(b"a", fin=True) == b"\x82\x01a"
    assert not protocol.sending_fragments


@pytest.mark.parametrize(
    ("text", "first", "wire"), [(True, b"a", b"\x01\x01a"), (False, "a", b"\x02\x01a")]
)
def test_first_fragment_decides_the_type(text: bool, first: DataLike, wire: bytes) -> None:
    protocol = Protocol(Role.SERVER)
    assert protocol.send_fragment(first, fin=False, text=text) == wire
    assert protocol.send_fragment(first, fin=True, text=text) == b"\x80\x01a"


@pytest.mark.behaviour(66)
@pytest.mark.parametrize(("first", "second"), [("a", b"b"), (b"a", "b"), (bytearray(b"a"), "b")])
def test_fragments_of_mixed_types_are_refused(first: DataLike, second: DataLike) -> None:
    protocol = Protocol(Role.SERVER)
    protocol.send_fragment(first, fin=False)
    with pytest.raises(
        TypeError, match=r"^fragments of one message must be all str or all bytes-like$"
    ):
        protocol.send_fragment(second, fin=False)
    assert protocol.sending_fragments
    assert protocol.send_fragment(first, fin=True) == b"\x80\x01a"


@pytest.mark.behaviour(70)
def test_message_is_refused_when_a_fragmented_one_is_not_complete() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.send_fragment("a", fin=False)
    with pytest.raises(RuntimeError, match=r"^a fragmented message is not complete yet$"):
        protocol.send_message("b")
    assert protocol.send_ping(b"") == b"\x89\x00"
    protocol.send_fragment("a", fin=True)
    assert protocol.send_message("b") == b"\x81\x01b"


# Compression.


def deflating(role: Role) -> Protocol:
    return Protocol(role, extension=Deflate((), threshold=10))


@BOTH
@pytest.mark.parametrize(
    ("message", "compress", "rsv"),
    [
        ("a" * 9, None, 0),
        ("a" * 10, None, 4),
        ("a" * 9, True, 4),
        ("a" * 10, False, 0),
        ("", True, 4),
        (memoryview(b"a" * 10), None, 4),
        (bytearray(b"a" * 10), True, 4),
    ],
)
def test_message_is_compressed_when_it_is_worth_it_or_asked_for(
    role: Role, message: DataLike, compress: bool | None, rsv: int
) -> None:
    sent = only_frame(deflating(role).send_message(message, compress=compress))
    expected = message.encode() if isinstance(message, str) else bytes(message)
    payload = sent.payload
    if rsv:
        payload = Deflate(()).decode(payload, None, fin=True)
    assert (sent.rsv, payload) == (rsv, expected)


@pytest.mark.parametrize("compress", [None, True, False])
def test_nothing_is_compressed_when_that_was_not_agreed_on(compress: bool | None) -> None:
    assert only_frame(Protocol(Role.SERVER).send_message("a" * 100, compress=compress)).rsv == 0


@pytest.mark.parametrize(
    ("compress", "second_compress", "first", "rsv"),
    [
        (None, None, b"a" * 10, 4),
        (True, False, b"a", 4),
        (True, None, b"a", 4),
        (None, True, b"a", 0),
        (False, True, b"a" * 10, 0),
    ],
)
def test_first_fragment_decides_on_compression(
    compress: bool | None, second_compress: bool | None, first: bytes, rsv: int
) -> None:
    protocol = deflating(Role.SERVER)
    one = only_frame(protocol.send_fragment(first, fin=False, compress=compress))
    two = only_frame(protocol.send_fragment(b"b" * 20, fin=True, compress=second_compress))
    # RFC 7692 section 6.1: RSV1 is set on the first fragment alone.
    assert (one.rsv, two.rsv) == (rsv, 0)
    other = Protocol(Role.CLIENT, extension=Deflate(()))
    wire = frame(BINARY, one.payload, fin=False, rsv=one.rsv) + frame(CONT, two.payload)
    assert other.receive_data(wire) == [first + b"b" * 20]


def test_messages_after_a_fragmented_one_decide_anew() -> None:
    protocol = deflating(Role.SERVER)
    protocol.send_fragment(b"a", fin=False, compress=True)
    protocol.send_fragment(b"a", fin=True)
    assert only_frame(protocol.send_message(b"a")).rsv == 0
    assert only_frame(protocol.send_message(b"a" * 20)).rsv == 4


def test_control_frames_are_never_compressed() -> None:
    protocol = deflating(Role.SERVER)
    assert protocol.send_ping(b"a" * 20) == b"\x89\x14" + b"a" * 20
    protocol.receive_data(frame(PING, b"a" * 20, mask=MASK))
    assert protocol.data_to_send() == b"\x8a\x14" + b"a" * 20


# Pings and Pongs.


@pytest.mark.behaviour(86)
@BOTH
def test_ping_is_answered_with_its_data(role: Role) -> None:
    protocol = Protocol(role)
    assert protocol.receive_data(frame(PING, b"Hello", mask=mask_for(role))) == [Ping(b"Hello")]
    assert protocol.pong_to_send
    answer = only_frame(protocol.data_to_send())
    assert answer == Frame(PONG, b"Hello", fin=True, rsv=0, masked=role is Role.CLIENT)
    assert not protocol.pong_to_send
    assert protocol.data_to_send() == b""


@pytest.mark.behaviour(86)
def test_pings_are_answered_in_their_order() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.receive_data(frame(PING, b"1", mask=MASK))
    protocol.receive_data(frame(PING, b"2", mask=MASK) + frame(PING, b"", mask=MASK))
    assert protocol.data_to_send() == b"\x8a\x011\x8a\x012\x8a\x00"


@pytest.mark.behaviour(86)
def test_newest_ping_alone_is_answered_when_asked_for() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.receive_data(frame(PING, b"1", mask=MASK) + frame(PING, b"2", mask=MASK))
    assert protocol.data_to_send(newest_pong=True) == b"\x8a\x012"
    assert protocol.data_to_send() == b""
    assert protocol.data_to_send(newest_pong=True) == b""


def test_pong_goes_out_before_the_close_that_came_after_its_ping() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.receive_data(frame(PING, b"1", mask=MASK) + frame(8, b"\x03\xe8", mask=MASK))
    assert not protocol.pong_to_send
    assert protocol.data_to_send() == b"\x8a\x011\x88\x02\x03\xe8"


def test_pong_goes_out_before_our_own_close() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.receive_data(frame(PING, b"1", mask=MASK))
    assert protocol.send_close() == b"\x8a\x011\x88\x02\x03\xe8"
    assert protocol.data_to_send() == b""


def test_ping_is_not_answered_when_our_close_is_sent() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.send_close()
    assert protocol.receive_data(frame(PING, b"1", mask=MASK)) == [Ping(b"1")]
    assert protocol.data_to_send() == b""


@BOTH
def test_pong_is_not_answered(role: Role) -> None:
    protocol = Protocol(role)
    assert protocol.receive_data(frame(PONG, b"a", mask=mask_for(role))) == [Pong(b"a")]
    assert protocol.data_to_send() == b""


@pytest.mark.parametrize(
    "data", [b"", b"a" * 125, bytearray(b"a" * 125), memoryview(array("H", [0x4141] * 62))]
)
def test_ping_and_pong_carry_up_to_125_bytes(data: bytes) -> None:
    protocol = Protocol(Role.CLIENT)
    assert only_frame(protocol.send_ping(data)).payload == bytes(data)
    assert only_frame(protocol.send_pong(data)).payload == bytes(data)


def test_ping_and_pong_are_refused_when_their_data_is_a_str() -> None:
    protocol = Protocol(Role.CLIENT)
    data: Any = "\N{LATIN SMALL LETTER E WITH ACUTE}" * 100  # 200 bytes
    text = "^data of a control frame must be bytes-like, not str$"
    with pytest.raises(TypeError, match=text):
        protocol.send_ping(data)
    with pytest.raises(TypeError, match=text):
        protocol.send_pong(data)


@pytest.mark.parametrize("data", [b"a" * 126, bytearray(126), memoryview(array("H", [0] * 63))])
def test_ping_and_pong_are_refused_when_they_are_over_125_bytes(data: bytes) -> None:
    protocol = Protocol(Role.CLIENT)
    text = "^control frame of 126 bytes exceeds the limit of 125 bytes$"
    with pytest.raises(ValueError, match=text):
        protocol.send_ping(data)
    with pytest.raises(ValueError, match=text):
        protocol.send_pong(data)
    assert protocol.state is State.OPEN


# What may no longer be sent.

SENDS: list[Callable[[Protocol], bytes]] = [
    lambda protocol: protocol.send_message("a"),
    lambda protocol: protocol.send_fragment("a", fin=True),
    lambda protocol: protocol.send_ping(b""),
    lambda protocol: protocol.send_pong(b""),
    lambda protocol: protocol.send_close(),
]


@pytest.mark.behaviour(71, 85)
@BOTH
@pytest.mark.parametrize("send", SENDS)
def test_nothing_is_sent_after_our_close(role: Role, send: Callable[[Protocol], bytes]) -> None:
    protocol = Protocol(role)
    protocol.send_close(1001, "bye")
    with pytest.raises(
        ConnectionClosedError, match=r"^sent 1001 \(going away\) bye; no close frame received$"
    ) as info:
        send(protocol)
    assert (info.value.rcvd, info.value.sent) == (None, Close(1001, "bye"))
    assert protocol.data_to_send() == b""


@pytest.mark.behaviour(71, 85)
@BOTH
@pytest.mark.parametrize("send", SENDS)
def test_nothing_is_sent_after_the_close_of_the_peer(
    role: Role, send: Callable[[Protocol], bytes]
) -> None:
    protocol = Protocol(role)
    protocol.receive_data(frame(8, b"\x03\xe8", mask=mask_for(role)))
    with pytest.raises(ConnectionClosedOK, match=r"^received 1000 \(OK\); then sent 1000 \(OK\)$"):
        send(protocol)


@pytest.mark.behaviour(71, 85)
@BOTH
@pytest.mark.parametrize("send", SENDS)
@pytest.mark.parametrize("lose", [Protocol.receive_eof, Protocol.lose_write])
def test_nothing_is_sent_after_the_stream_is_lost(
    role: Role, send: Callable[[Protocol], bytes], lose: Callable[[Protocol], None]
) -> None:
    protocol = Protocol(role)
    lose(protocol)
    with pytest.raises(ConnectionClosedError, match=r"^no close frame received or sent$"):
        send(protocol)


def test_wrong_argument_is_told_before_the_end_of_the_connection() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.send_close()
    with pytest.raises(ValueError, match=r"^close code 1 may not be sent"):
        protocol.send_close(1)
    with pytest.raises(ValueError, match=r"^control frame of 126 bytes"):
        protocol.send_ping(bytes(126))


# Limits.


@pytest.mark.parametrize(
    ("max_size", "limits"),
    [
        (None, (None, None)),
        (0, (0, None)),
        (100, (100, None)),
        ((100, 10), (100, 10)),
        ((None, 10), (None, 10)),
        ((100, None), (100, None)),
    ],
)
def test_max_size_is_of_a_message_or_of_a_message_and_a_fragment(
    max_size: int | tuple[int | None, int | None] | None, limits: tuple[int | None, int | None]
) -> None:
    assert parse_max_size(max_size) == limits


@pytest.mark.parametrize("max_size", [-1, (-1, None), (None, -1), (5, -1)])
def test_max_size_is_refused_when_it_is_negative(
    max_size: int | tuple[int | None, int | None],
) -> None:
    with pytest.raises(ValueError, match=r"^max_size of -1 bytes is negative$"):
        Protocol(Role.SERVER, max_size=max_size)


@BOTH
def test_max_size_is_1_mib_unless_given(role: Role) -> None:
    protocol = Protocol(role)
    mask = bytes(4) if role is Role.SERVER else None
    exact = frame(BINARY, bytes(2**20), mask=mask)
    assert protocol.receive_data(exact[:100]) == []
    assert protocol.receive_data(exact[100:]) == [bytes(2**20)]
    head = frame(BINARY, bytes(2**20 + 1), mask=mask)[:10]
    protocol.receive_data(head)
    assert protocol.close_sent == Close(
        1009, "message of 1048577 bytes exceeds the limit of 1048576 bytes"
    )


@pytest.mark.parametrize(
    ("reason", "cut"),
    [
        ("", ""),
        ("a" * 123, "a" * 123),
        ("a" * 124, "a" * 123),
        ("a" * 122 + "é", "a" * 122),
        ("😀" * 31, "😀" * 30),
    ],
)
def test_reason_is_cut_between_code_points(reason: str, cut: str) -> None:
    assert cut_reason(reason) == cut


def test_shared_message_waits_for_the_end_of_a_fragmented_one() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.send_fragment("a", fin=False)
    with pytest.raises(RuntimeError, match="fragmented message is not complete"):
        protocol.send_shared(SharedMessage("b", None))
    protocol.send_fragment("c", fin=True)
    assert protocol.send_shared(SharedMessage("b", None)) == b"\x81\x01b"


# What is counted.


def sent(protocol: Protocol) -> tuple[int, int]:
    return protocol.messages_sent, protocol.payload_size_sent


@BOTH
@pytest.mark.parametrize("extension", [None, Deflate(())], ids=["plain", "deflate"])
def test_messages_that_are_sent_are_counted(role: Role, extension: Deflate | None) -> None:
    protocol = Protocol(role, extension=extension)
    protocol.send_message("na\xefve")
    assert sent(protocol) == (1, 6)
    protocol.send_message(bytearray(1000))
    assert sent(protocol) == (2, 1006)
    protocol.send_message(memoryview(array("H", [1, 2])), text=False)
    assert sent(protocol) == (3, 1010)
    shared = SharedMessage("abc", None)
    protocol.send_shared(shared)
    protocol.send_shared(shared)
    assert sent(protocol) == (5, 1016)
    protocol.send_fragment("ab", fin=False)
    assert sent(protocol) == (5, 1016)
    protocol.send_fragment("", fin=False)
    protocol.send_fragment("c", fin=True)
    assert sent(protocol) == (6, 1019)
    protocol.send_fragment(b"a", fin=True)
    assert sent(protocol) == (7, 1020)


@BOTH
@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_payload_is_counted_without_its_header_and_in_utf_8(role: Role, size: int) -> None:
    protocol = Protocol(role)
    protocol.send_message(bytes(size))
    assert sent(protocol) == (1, size)
    protocol.send_message("\xe9" * size)
    assert sent(protocol) == (2, 3 * size)


def test_message_whose_payload_follows_its_header_is_counted() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.send_header(70000)
    assert sent(protocol) == (1, 70000)


@BOTH
def test_message_that_is_refused_is_not_counted(role: Role) -> None:
    protocol = Protocol(role)
    protocol.send_fragment("a", fin=False)
    with pytest.raises(RuntimeError):
        protocol.send_message("b")
    protocol.send_close()
    with pytest.raises(ConnectionClosedError):
        protocol.send_message("b")
    with pytest.raises(ConnectionClosedError):
        protocol.send_ping(b"")
    assert sent(protocol) == (0, 0)
    assert protocol.pings_sent == 0


@BOTH
def test_control_frames_are_counted(role: Role) -> None:
    protocol = Protocol(role)
    protocol.send_ping(b"a")
    protocol.send_ping(b"b")
    protocol.send_pong(b"")
    pings = [frame(PING, bytes([number]), mask=mask_for(role)) for number in range(3)]
    protocol.receive_data(b"".join(pings) + frame(PONG, b"a", mask=mask_for(role)))
    assert (protocol.pings_sent, protocol.pongs_sent) == (2, 1)
    assert (protocol.pings_received, protocol.pongs_received) == (3, 1)
    protocol.data_to_send()
    assert protocol.pongs_sent == 4
    protocol.receive_data(b"".join(pings))
    protocol.data_to_send(newest_pong=True)
    assert (protocol.pings_received, protocol.pongs_sent) == (6, 5)


def test_interrupt_while_keys_are_made_leaves_the_client_able_to_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Protocol(Role.CLIENT)

    def interrupt(size: int) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.urandom", interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.send_message("never")
        with pytest.raises(KeyboardInterrupt):
            client.send_ping(b"")
    server = Protocol(Role.SERVER)
    assert server.receive_data(client.send_message("hello")) == ["hello"]
    assert server.receive_data(client.send_ping(b"x")) == [Ping(b"x")]
