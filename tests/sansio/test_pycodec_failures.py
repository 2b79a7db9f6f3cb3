"""What a peer may not send: each is a Failure with its close code (RFC 6455 section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anyws._types import Close, Event, Failure
from anyws.sansio._deflate import Deflate
from anyws.sansio._pycodec import Decoder
from tests.wire import BINARY, CLOSE, CONT, MASK, PING, PONG, TEXT, close_payload, frame

if TYPE_CHECKING:
    from anyws.sansio._extensions import Extension

KEY = "37 fa 21 3d"


def decode(*chunks: bytes, masked: bool = False, inflate: Extension | None = None) -> list[Event]:
    """Give the events of `chunks`, each fed in its turn."""
    decoder = Decoder(masked=masked, max_size=None, inflate=inflate)
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def check_failure(
    wire: str, code: int, reason: str, *, masked: bool = False, deflate: bool = False
) -> None:
    """Check that the last byte of `wire` fails, whatever it is cut into, and none before does."""
    data = bytes.fromhex(wire)
    failure = Failure(code, reason)
    for cut in range(len(data)):
        chunks = [data[:cut], data[cut:]]
        assert decode(*chunks, masked=masked, inflate=Deflate(()) if deflate else None) == [failure]
    assert decode(data[:-1], masked=masked, inflate=Deflate(()) if deflate else None) == []
    # What follows makes no difference.
    more = data + b"\x00" * 200
    assert decode(more, masked=masked, inflate=Deflate(()) if deflate else None) == [failure]


# Headers.


@pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY, CLOSE, PING, PONG, 3, 11])
@pytest.mark.parametrize("rsv", [1, 2, 3, 5, 6, 7])
def test_reserved_bits_2_and_3_fail(opcode: int, rsv: int) -> None:
    check_failure(
        bytes([0x80 | rsv << 4 | opcode, 0]).hex(), 1002, "reserved bit RSV2 or RSV3 is set"
    )


@pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY, CLOSE, PING, PONG])
def test_reserved_bit_1_fails_when_no_extension_uses_it(opcode: int) -> None:
    check_failure(
        bytes([0xC0 | opcode, 0]).hex(), 1002, "reserved bit RSV1 is set, and no extension uses it"
    )


@pytest.mark.behaviour(109)
@pytest.mark.parametrize("wire", ["c0 00", "40 00", "c8 00", "c9 00", "ca 00", "41 01 00 c0 00"])
def test_reserved_bit_1_fails_when_the_frame_does_not_begin_a_message(wire: str) -> None:
    check_failure(
        wire,
        1002,
        "reserved bit RSV1 is set on a frame that does not begin a message",
        deflate=True,
    )


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("fin", [0x00, 0x80])
def test_unknown_opcode_fails(opcode: int, masked: bool, fin: int) -> None:
    wire = bytes([fin | opcode, 0x80 if masked else 0])
    check_failure(wire.hex(), 1002, f"unknown opcode {opcode}", masked=masked)


@pytest.mark.parametrize("first", ["81", "82", "01", "02", "88", "89", "8a"])
@pytest.mark.parametrize("length", [0, 1, 125])
def test_frame_of_a_client_fails_when_it_is_not_masked(first: str, length: int) -> None:
    check_failure(f"{first} {length:02x}", 1002, "frame of a client is not masked", masked=True)


@pytest.mark.parametrize("first", ["81", "82", "01", "02", "88", "89", "8a"])
@pytest.mark.parametrize("length", [0, 1, 125])
def test_frame_of_a_server_fails_when_it_is_masked(first: str, length: int) -> None:
    check_failure(f"{first} {length | 0x80:02x}", 1002, "frame of a server is masked")


@pytest.mark.parametrize("length", [0, 1, 125])
@pytest.mark.parametrize("masked", [False, True])
def test_length_of_2_bytes_fails_when_7_bits_would_do(length: int, masked: bool) -> None:
    check_failure(
        f"82 {'fe' if masked else '7e'} {length:04x}",
        1002,
        f"length {length} is not encoded in the fewest bytes",
        masked=masked,
    )


@pytest.mark.parametrize("length", [0, 125, 126, 65535])
@pytest.mark.parametrize("masked", [False, True])
def test_length_of_8_bytes_fails_when_2_would_do(length: int, masked: bool) -> None:
    check_failure(
        f"01 {'ff' if masked else '7f'} {length:016x}",
        1002,
        f"length {length} is not encoded in the fewest bytes",
        masked=masked,
    )


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1])
def test_length_fails_when_its_highest_bit_is_set(length: int) -> None:
    check_failure(f"82 7f {length:016x}", 1002, f"length {length} has its highest bit set")


def test_length_of_63_bits_is_taken() -> None:
    assert decode(bytes.fromhex("82 7f 7f ff ff ff ff ff ff ff") + b"payload") == []


# Control frames.


@pytest.mark.parametrize("first", ["08", "09", "0a"])
@pytest.mark.parametrize("length", ["00", "05", "7d"])
def test_control_frame_fails_when_it_is_fragmented(first: str, length: str) -> None:
    check_failure(f"{first} {length}", 1002, "fragmented control frame")


@pytest.mark.parametrize("first", ["88", "89", "8a"])
@pytest.mark.parametrize("length", ["7e", "7f"])
def test_control_frame_fails_when_it_is_over_125_bytes(first: str, length: str) -> None:
    check_failure(f"{first} {length}", 1002, "control frame over the limit of 125 bytes")


def test_control_frame_of_125_bytes_is_taken() -> None:
    assert decode(frame(CLOSE, close_payload(1000, "a" * 123))) == [Close(1000, "a" * 123)]


# Fragments.


@pytest.mark.parametrize("wire", ["80 00", "00 00", "80 7e", "81 01 61 80 00"])
def test_continuation_fails_when_no_message_was_begun(wire: str) -> None:
    data = bytes.fromhex(wire)
    failure = Failure(1002, "continuation without a message to continue")
    assert decode(data)[-1] == failure
    assert decode(data[:-1], data[-1:])[-1] == failure
    assert failure not in decode(data[:-1])


def test_continuation_fails_when_the_message_has_ended() -> None:
    assert decode(bytes.fromhex("01 01 61 80 01 62 80 01 63")) == [
        "ab",
        Failure(1002, "continuation without a message to continue"),
    ]


@pytest.mark.parametrize("begun", ["01 00", "02 01 61", "01 01 61 00 01 62", "01 00 "])
@pytest.mark.parametrize("first", ["81", "82", "01", "02"])
def test_new_message_fails_when_the_last_is_not_complete(begun: str, first: str) -> None:
    check_failure(f"{begun} {first} 01", 1002, "new message before the end of the last")


# Close frames.


def test_close_of_1_byte_fails() -> None:
    check_failure("88 01 03", 1002, "Close frame of 1 byte, expected none or at least 2 bytes")


@pytest.mark.parametrize(
    "code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 10000, 65535]
)
def test_close_fails_when_its_code_may_not_be_sent(code: int) -> None:
    check_failure(f"88 02 {code:04x}", 1002, f"invalid close code {code}")


@pytest.mark.parametrize(
    "code",
    [
        1000,
        1001,
        1002,
        1003,
        1007,
        1008,
        1009,
        1010,
        1011,
        1012,
        1013,
        1014,
        3000,
        3999,
        4000,
        4999,
    ],
)
def test_close_is_taken_when_its_code_may_be_sent(code: int) -> None:
    assert decode(bytes.fromhex(f"88 02 {code:04x}")) == [Close(code)]


def test_close_reason_is_utf8() -> None:
    assert decode(frame(CLOSE, close_payload(3000, "fin. é 😀"))) == [Close(3000, "fin. é 😀")]


@pytest.mark.parametrize("reason", ["ff", "61 c3", "ed a0 80", "f0 9f 98"])
def test_close_fails_when_its_reason_is_not_utf8(reason: str) -> None:
    payload = bytes.fromhex(f"03 e8 {reason}")
    check_failure(frame(CLOSE, payload).hex(), 1007, "invalid UTF-8 in close reason")


# UTF-8 (RFC 6455 section 8.1), as RFC 3629 section 4 has it.

BAD_TEXTS = [
    # how it begins, and the byte that makes it certain
    ("", "80"),
    ("", "bf"),
    ("", "c0"),  # overlong
    ("", "c1"),
    ("", "f5"),  # over U+10FFFF
    ("", "ff"),
    ("c2", "41"),
    ("c2", "c2"),
    ("df", "7f"),
    ("e0", "9f"),  # overlong
    ("e0", "41"),
    ("e0 a0", "c0"),
    ("e1 80", "41"),
    ("ed", "a0"),  # the first surrogate, U+D800
    ("ed", "bf"),  # and the last, U+DFFF
    ("ef bf", "ff"),
    ("f0", "8f"),  # overlong
    ("f0 90", "7f"),
    ("f0 90 80", "c0"),
    ("f4", "90"),  # U+110000
    ("f4 8f", "41"),
    ("f4 8f bf", "ff"),
]

GOOD_TEXTS = [
    "00",
    "7f",
    "c2 80",
    "df bf",
    "e0 a0 80",
    "ed 9f bf",
    "ee 80 80",
    "ef bf bf",
    "f0 90 80 80",
    "f4 8f bf bf",
    "ef bb bf",
]


def utf8_failure() -> list[Event]:
    return [Failure(1007, "invalid UTF-8 in text")]


@pytest.mark.behaviour(57)
@pytest.mark.parametrize(("begin", "byte"), BAD_TEXTS)
@pytest.mark.parametrize("before", [b"", b"a", "é".encode()])
@pytest.mark.parametrize("masked", [False, True])
def test_wrong_byte_fails_as_soon_as_it_comes(
    begin: str, byte: str, before: bytes, masked: bool
) -> None:
    good = before + bytes.fromhex(begin)
    bad = good + bytes.fromhex(byte)
    mask = MASK if masked else None
    # Within a frame that is far from complete, for each cut of what has come.
    wire = frame(TEXT, bad + bytes(100), mask=mask)[:-100]
    for cut in range(len(wire)):
        assert decode(wire[:cut], wire[cut:], masked=masked) == utf8_failure()
    assert decode(wire[:-1], masked=masked) == []
    # In frames of one byte.
    frames = [frame(TEXT, b"", fin=False, mask=mask)]
    frames += [frame(CONT, bad[i : i + 1], fin=False, mask=mask) for i in range(len(bad))]
    assert decode(*frames[:-1], masked=masked) == []
    assert decode(*frames, masked=masked) == utf8_failure()
    # In a message that has come whole.
    assert decode(frame(TEXT, bad, mask=mask), masked=masked) == utf8_failure()
    assert decode(frame(TEXT, bad + b"a" * 200, mask=mask), masked=masked) == utf8_failure()


@pytest.mark.behaviour(57)
@pytest.mark.parametrize("begin", sorted({begin for begin, _ in BAD_TEXTS if begin}))
def test_text_fails_when_it_ends_within_a_code_point(begin: str) -> None:
    payload = b"a" + bytes.fromhex(begin)
    wire = frame(TEXT, payload)
    for cut in range(len(wire)):
        assert decode(wire[:cut], wire[cut:]) == utf8_failure()
    fragment = frame(TEXT, payload, fin=False)
    assert decode(fragment) == []
    assert decode(fragment, frame(CONT, b"")) == utf8_failure()
    assert decode(fragment, frame(CONT, b"a")) == utf8_failure()


@pytest.mark.parametrize("payload", GOOD_TEXTS)
def test_text_is_taken_up_to_the_limits_of_utf8(payload: str) -> None:
    data = b"a" + bytes.fromhex(payload) + b"b"
    wire = frame(TEXT, data)
    for cut in range(len(wire)):
        assert decode(wire[:cut], wire[cut:]) == [data.decode()]
    for cut in range(len(data)):
        frames = frame(TEXT, data[:cut], fin=False) + frame(CONT, data[cut:])
        assert decode(frames) == [data.decode()]


@pytest.mark.behaviour(57)
def test_text_fails_when_it_is_wrong_after_decompression() -> None:
    payload = Deflate(()).encode(b"Hell\xff", fin=True)
    assert decode(frame(TEXT, payload, rsv=4), inflate=Deflate(())) == utf8_failure()


@pytest.mark.behaviour(57)
def test_text_fails_in_fragments_mode_as_soon_as_it_is_wrong() -> None:
    decoder = Decoder(masked=False, max_size=None, fragments=True)
    assert decoder.feed(frame(TEXT, b"\xed", fin=False)) != utf8_failure()
    assert decoder.feed(bytes.fromhex("80 05 a0")) == utf8_failure()


@pytest.mark.parametrize("wire", ["81 01 ff", "81 02 c3 28", "82 01", "c1 00"])
def test_messages_before_a_failure_are_counted(wire: str) -> None:
    decoder = Decoder(masked=False, max_size=None)
    assert decoder.feed(bytes.fromhex(f"82 01 61 81 02 62 63 {wire}"))[:2] == [b"a", "bc"]
    assert (decoder.message_count, decoder.payload_size) == (2, 3)


def test_binary_may_be_anything() -> None:
    assert decode(bytes.fromhex("02 01 ff 80 02 ed a0")) == [b"\xff\xed\xa0"]
