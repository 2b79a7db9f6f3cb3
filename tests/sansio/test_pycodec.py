"""Frames and messages: what a codec gives for literal bytes (RFC 6455 section 5).

The tests of what it refuses stand in `test_pycodec_failures`, those of sizes in
`test_pycodec_limits`.
"""

from __future__ import annotations

from array import array

import pytest

from anyws._types import Close, Event, Failure, Fragment, Ping, Pong
from anyws.exceptions import PayloadTooBig, ProtocolError
from anyws.sansio._deflate import Deflate
from anyws.sansio._extensions import Extension
from anyws.sansio._pycodec import Decoder, apply_mask, encode_frame
from tests.wire import BINARY, CONT, MASK, PING, TEXT, frame
from tests.wire import xor as slow_mask

HELLO_DEFLATED = bytes.fromhex("f248cdc9c90700")  # RFC 7692 section 7.2.3.1


def decode(*chunks: bytes, masked: bool = False, fragments: bool = False) -> list[Event]:
    """Give the events of `chunks`, each fed in its turn."""
    decoder = Decoder(masked=masked, max_size=None, fragments=fragments)
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def test_codec_is_the_one_that_the_test_is_named_after(request: pytest.FixtureRequest) -> None:
    # Not by its fixture: a test that asks for that gets it in any case.
    codec = request.node.callspec.params["codec"]
    assert Decoder is codec.Decoder
    assert encode_frame is codec.encode_frame
    assert apply_mask is codec.apply_mask


# Masking.


def test_mask_is_that_of_the_rfc() -> None:
    assert apply_mask(b"Hello", bytes.fromhex("37fa213d")) == bytes.fromhex("7f9f4d5158")


# 512 is where another way of masking begins.
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 511, 512, 513, 514, 515, 516, 70001])
def test_mask_takes_each_byte_with_its_byte_of_the_key(size: int) -> None:
    data = bytes(index * 7 & 0xFF for index in range(size))
    assert apply_mask(data, MASK) == slow_mask(data, MASK)


@pytest.mark.parametrize("size", [5, 600])
def test_mask_takes_any_bytes_like_object(size: int) -> None:
    data = bytes(size)
    expected = slow_mask(data, MASK)
    assert apply_mask(bytearray(data), MASK) == expected
    assert apply_mask(memoryview(data), MASK) == expected
    assert type(apply_mask(bytearray(data), MASK)) is bytes


@pytest.mark.parametrize("key", [b"", b"\x01\x02\x03", b"\x01\x02\x03\x04\x05"])
def test_mask_is_refused_when_the_key_is_not_of_4_bytes(key: bytes) -> None:
    with pytest.raises(ValueError, match=f"^masking key of {len(key)} bytes, expected 4 bytes$"):
        apply_mask(b"Hello", key)
    with pytest.raises(ValueError, match=f"^masking key of {len(key)} bytes, expected 4 bytes$"):
        encode_frame(1, b"Hello", masking_key=key)


# Encoding.


@pytest.mark.parametrize(
    ("encoded", "wire"),
    [
        (encode_frame(1, b"Hello"), "81 05 48 65 6c 6c 6f"),
        (encode_frame(1, b"Hello", masking_key=MASK), "81 85 37 fa 21 3d 7f 9f 4d 51 58"),
        (encode_frame(1, b"Hel", fin=False), "01 03 48 65 6c"),
        (encode_frame(0, b"lo"), "80 02 6c 6f"),
        (encode_frame(9, b"Hello"), "89 05 48 65 6c 6c 6f"),
        (encode_frame(10, b"Hello", masking_key=MASK), "8a 85 37 fa 21 3d 7f 9f 4d 51 58"),
        (encode_frame(1, HELLO_DEFLATED, rsv1=True), "c1 07 f2 48 cd c9 c9 07 00"),
        (encode_frame(1, b"", fin=False, rsv1=True), "41 00"),
        (encode_frame(8, b"", masking_key=MASK), "88 80 37 fa 21 3d"),
    ],
)
def test_frames_are_encoded_as_in_the_examples_of_the_rfcs(encoded: bytes, wire: str) -> None:
    assert encoded == bytes.fromhex(wire)
    assert type(encoded) is bytes


@pytest.mark.parametrize(
    ("size", "unmasked", "masked"),
    [
        (0, "82 00", "82 80"),
        (125, "82 7d", "82 fd"),
        (126, "82 7e 00 7e", "82 fe 00 7e"),
        (65535, "82 7e ff ff", "82 fe ff ff"),
        (65536, "82 7f 00 00 00 00 00 01 00 00", "82 ff 00 00 00 00 00 01 00 00"),
    ],
)
def test_length_is_encoded_in_the_fewest_bytes(size: int, unmasked: str, masked: str) -> None:
    payload = b"\xa5" * size
    assert encode_frame(2, payload) == bytes.fromhex(unmasked) + payload
    assert encode_frame(2, payload, masking_key=MASK) == (
        bytes.fromhex(masked) + MASK + slow_mask(payload, MASK)
    )


@pytest.mark.parametrize("key", [None, MASK])
def test_payload_is_any_bytes_like_object(key: bytes | None) -> None:
    expected = encode_frame(2, b"Hello", masking_key=key)
    assert encode_frame(2, bytearray(b"Hello"), masking_key=key) == expected
    assert encode_frame(2, memoryview(b"Hello"), masking_key=key) == expected
    assert encode_frame(2, memoryview(b"H.e.l.l.o")[::2], masking_key=key) == expected
    words = array("H", [0x4142, 0x4344])
    assert encode_frame(2, memoryview(words), masking_key=key) == encode_frame(
        2, words.tobytes(), masking_key=key
    )


# Whole messages.


@pytest.mark.parametrize(
    ("wire", "masked", "events"),
    [
        ("81 05 48 65 6c 6c 6f", False, ["Hello"]),
        ("81 85 37 fa 21 3d 7f 9f 4d 51 58", True, ["Hello"]),
        ("82 05 48 65 6c 6c 6f", False, [b"Hello"]),
        ("82 85 37 fa 21 3d 7f 9f 4d 51 58", True, [b"Hello"]),
        ("81 00 82 00", False, ["", b""]),
        ("81 80 37 fa 21 3d 82 80 37 fa 21 3d", True, ["", b""]),
        ("01 03 48 65 6c 80 02 6c 6f", False, ["Hello"]),
        ("01 00 00 00 80 00", False, [""]),
        ("02 00 00 02 48 65 80 00", False, [b"He"]),
        ("89 05 48 65 6c 6c 6f 8a 00", False, [Ping(b"Hello"), Pong(b"")]),
        ("8a 85 37 fa 21 3d 7f 9f 4d 51 58 89 80 00 00 00 00", True, [Pong(b"Hello"), Ping(b"")]),
        ("88 00", False, [Close(1005, "")]),
        ("88 02 03 e8", False, [Close(1000, "")]),
        ("88 05 03 e9 62 79 65", False, [Close(1001, "bye")]),
        ("88 82 37 fa 21 3d 34 12", True, [Close(1000, "")]),
    ],
)
def test_frames_give_their_events_however_they_are_cut(
    wire: str, masked: bool, events: list[Event]
) -> None:
    data = bytes.fromhex(wire)
    assert decode(data, masked=masked) == events
    assert decode(*[data[i : i + 1] for i in range(len(data))], masked=masked) == events
    for cut in range(len(data) + 1):
        assert decode(data[:cut], b"", data[cut:], masked=masked) == events


@pytest.mark.behaviour(48, 49)
def test_messages_are_plain_str_and_bytes() -> None:
    events = decode(
        frame(TEXT, b"a"),
        frame(BINARY, b"a"),
        frame(TEXT, b"a", fin=False) + frame(CONT, b"b"),
        frame(BINARY, b"a", fin=False) + frame(CONT, b"b"),
        frame(TEXT, b"a" * 200),
        frame(BINARY, b"a" * 200),
    )
    assert [type(event) for event in events] == [str, bytes] * 3


def test_masked_binary_messages_are_bytes_whatever_their_size() -> None:
    chunks = [frame(BINARY, b"a" * size, mask=MASK) for size in (1, 125, 126, 511, 512, 66000)]
    chunks.append(frame(PING, b"a" * 125, mask=MASK))
    events = decode(*chunks, masked=True)
    assert [len(e) for e in events if type(e) is bytes] == [1, 125, 126, 511, 512, 66000]
    assert events[-1] == Ping(b"a" * 125)
    assert type(events[-1].data) is bytes


@pytest.mark.parametrize("size", [125, 126, 65535, 65536])
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("step", [5, 1000, 100000])
def test_each_form_of_the_length_is_understood(size: int, mask: bytes | None, step: int) -> None:
    payload = bytes(index & 0x7F for index in range(size))
    wire = frame(BINARY, payload, mask=mask) + frame(TEXT, payload, mask=mask)
    chunks = [wire[i : i + step] for i in range(0, len(wire), step)]
    assert decode(*chunks, masked=mask is not None) == [payload, payload.decode()]


@pytest.mark.behaviour(56)
def test_control_frames_pass_between_the_fragments_of_a_message() -> None:
    wire = bytes.fromhex("01 03 48 65 6c 89 01 61 00 00 8a 01 62 80 02 6c 6f")
    assert decode(wire) == [Ping(b"a"), Pong(b"b"), "Hello"]


@pytest.mark.behaviour(56)
def test_close_ends_a_message_that_is_not_complete() -> None:
    assert decode(bytes.fromhex("01 03 48 65 6c 88 02 03 e8")) == [Close(1000)]


def test_messages_follow_each_other_after_fragmented_ones() -> None:
    text = bytes.fromhex("01 02 c3 a9 80 01 61")
    binary = bytes.fromhex("02 01 ff 80 01 fe")
    assert decode(text + binary + text + binary) == ["éa", b"\xff\xfe", "éa", b"\xff\xfe"]


@pytest.mark.behaviour(30)
@pytest.mark.parametrize("wire", ["88 00", "88 02 03 e8", "ff ff"])
def test_nothing_comes_of_what_follows_a_close_or_a_failure(wire: str) -> None:
    decoder = Decoder(masked=False, max_size=None)
    (event,) = decoder.feed(bytes.fromhex(wire) + frame(TEXT, b"Hello") + bytes.fromhex("ff ff"))
    assert type(event) in (Close, Failure)
    assert decoder.feed(frame(TEXT, b"Hello")) == []
    assert decoder.feed(b"") == []
    assert not decoder.pending


@pytest.mark.behaviour(51)
def test_messages_before_a_bad_frame_are_given_before_the_failure() -> None:
    events = decode(bytes.fromhex("81 01 61 02 01 62 89 01 63 80 01 64 83 00 81 01 65"))
    assert events == ["a", Ping(b"c"), b"bd", Failure(1002, "unknown opcode 3")]


# Budgets.

THREE = bytes.fromhex("81 02 61 62  89 00  82 02 63 64  8a 00  81 02 65 66")
"""Two bytes each of Text, Binary and Text, a Ping and a Pong between them."""


@pytest.mark.parametrize(
    ("max_bytes", "max_messages"), [(None, 1), (1, None), (2, None), (2, 5), (100, 1), (0, 0)]
)
def test_decoding_stops_after_one_message_when_that_is_the_budget(
    max_bytes: int | None, max_messages: int | None
) -> None:
    decoder = Decoder(masked=False, max_size=None)
    assert decoder.feed(THREE, max_bytes, max_messages) == ["ab"]
    assert decoder.pending
    assert decoder.feed(b"", max_bytes, max_messages) == [Ping(b""), b"cd"]
    assert decoder.pending
    assert decoder.feed(b"", max_bytes, max_messages) == [Pong(b""), "ef"]
    assert not decoder.pending


@pytest.mark.parametrize(("max_bytes", "max_messages"), [(None, 2), (3, None), (4, None), (4, 2)])
def test_decoding_stops_after_two_messages_when_those_are_the_budget(
    max_bytes: int | None, max_messages: int | None
) -> None:
    decoder = Decoder(masked=False, max_size=None)
    assert decoder.feed(THREE, max_bytes, max_messages) == ["ab", Ping(b""), b"cd"]
    assert decoder.pending
    assert decoder.feed(b"", max_bytes, max_messages) == [Pong(b""), "ef"]
    assert not decoder.pending


@pytest.mark.parametrize(("max_bytes", "max_messages"), [(7, None), (None, 4), (None, None)])
def test_all_is_decoded_when_the_budget_is_not_spent(
    max_bytes: int | None, max_messages: int | None
) -> None:
    decoder = Decoder(masked=False, max_size=None)
    assert len(decoder.feed(THREE, max_bytes, max_messages)) == 5
    assert not decoder.pending


@pytest.mark.behaviour(45)
@pytest.mark.parametrize(("max_bytes", "max_messages"), [(1, None), (None, 1), (100, 100)])
def test_control_frames_come_in_batches_when_there_is_a_budget(
    max_bytes: int | None, max_messages: int | None
) -> None:
    decoder = Decoder(masked=False, max_size=None)
    events = decoder.feed(bytes.fromhex("89 00") * 3000, max_bytes, max_messages)
    assert len(events) == 1024
    assert decoder.pending
    while decoder.pending:
        events += decoder.feed(b"", max_bytes, max_messages)
    assert events == [Ping(b"")] * 3000


def test_control_frames_come_all_at_once_when_there_is_no_budget() -> None:
    decoder = Decoder(masked=False, max_size=None)
    assert len(decoder.feed(bytes.fromhex("8a 00") * 3000)) == 3000
    assert not decoder.pending


def test_new_data_goes_behind_what_a_budget_left_over() -> None:
    decoder = Decoder(masked=False, max_size=None)
    assert decoder.feed(THREE, None, 1) == ["ab"]
    assert decoder.feed(bytes.fromhex("81 01 67"), None, 2) == [Ping(b""), b"cd", Pong(b""), "ef"]
    assert decoder.pending
    assert decoder.feed(b"") == ["g"]


def test_rest_is_pending_when_it_is_not_a_whole_frame() -> None:
    decoder = Decoder(masked=False, max_size=None)
    assert decoder.feed(bytes.fromhex("81 01 61 81"), None, 1) == ["a"]
    assert decoder.pending
    assert decoder.feed(b"") == []
    assert not decoder.pending
    assert decoder.feed(bytes.fromhex("01 62")) == ["b"]


def test_failure_waits_behind_a_budget() -> None:
    decoder = Decoder(masked=False, max_size=None)
    assert decoder.feed(bytes.fromhex("81 01 61 83 00"), None, 1) == ["a"]
    assert decoder.feed(b"", None, 1) == [Failure(1002, "unknown opcode 3")]
    assert not decoder.pending


def test_budget_counts_a_message_that_was_begun_in_an_earlier_call() -> None:
    decoder = Decoder(masked=False, max_size=None)
    assert decoder.feed(bytes.fromhex("02 04 61 62")) == []
    assert decoder.feed(bytes.fromhex("63 64 80 01 65 82 01 66"), 5) == [b"abcde"]
    assert decoder.pending


# Fragments.


def test_fragments_are_given_as_their_frames_end() -> None:
    decoder = Decoder(masked=False, max_size=None, fragments=True)
    assert decoder.feed(bytes.fromhex("01 02 61")) == []
    assert decoder.feed(bytes.fromhex("62 00 01 63")) == [
        Fragment("ab", False),
        Fragment("c", False),
    ]
    assert decoder.feed(bytes.fromhex("00 00")) == [Fragment("", False)]
    assert decoder.feed(bytes.fromhex("80 01 64")) == [Fragment("d", True)]


@pytest.mark.parametrize(
    ("wire", "event"),
    [
        ("81 02 61 62", Fragment("ab", True)),
        ("82 02 61 62", Fragment(b"ab", True)),
        ("81 00", Fragment("", True)),
        ("82 00", Fragment(b"", True)),
    ],
)
def test_message_in_one_frame_is_one_fragment(wire: str, event: Fragment) -> None:
    data = bytes.fromhex(wire)
    for cut in range(len(data) + 1):
        assert decode(data[:cut], data[cut:], fragments=True) == [event]


def test_fragments_of_binary_are_bytes() -> None:
    assert decode(bytes.fromhex("02 01 ff 89 00 00 00 80 01 fe"), fragments=True) == [
        Fragment(b"\xff", False),
        Ping(b""),
        Fragment(b"", False),
        Fragment(b"\xfe", True),
    ]


def test_messages_are_whole_again_after_the_one_in_fragments() -> None:
    decoder = Decoder(masked=False, max_size=None, fragments=True)
    assert decoder.feed(bytes.fromhex("01 01 61 80 01 62  01 01 63 80 01 64  81 01 65")) == [
        Fragment("a", False),
        Fragment("b", True),
        "cd",
        "e",
    ]
    assert not decoder.fragments


@pytest.mark.parametrize(
    ("head", "first", "rest", "last"),
    [
        # at a border of frames, with something to give, and with nothing
        ("01 02 61 62", Fragment("ab", False), "80 01 63", Fragment("c", True)),
        ("02 02 61 62", Fragment(b"ab", False), "80 01 63", Fragment(b"c", True)),
        ("01 00", None, "80 01 63", Fragment("c", True)),
        ("02 01 61 80", Fragment(b"a", False), "01 62", Fragment(b"b", True)),
        # within a frame: its border is waited for
        ("01 02 61 62 80 02 63", None, "64", Fragment("abcd", True)),
        ("82 03 61", None, "62 63", Fragment(b"abc", True)),
        # within a code point: it goes with the fragment that completes it
        ("01 02 61 c3", Fragment("a", False), "80 01 a9", Fragment("é", True)),
        ("01 01 c3", None, "80 01 a9", Fragment("é", True)),
    ],
)
def test_message_in_progress_goes_on_in_fragments_when_that_is_switched_on(
    head: str, first: Fragment | None, rest: str, last: Fragment
) -> None:
    decoder = Decoder(masked=False, max_size=None)
    assert decoder.feed(bytes.fromhex(head)) == []
    decoder.fragments = True
    assert decoder.feed(b"") == ([] if first is None else [first])
    assert decoder.feed(bytes.fromhex(rest)) == [last]
    assert decoder.feed(bytes.fromhex("81 01 61")) == ["a"]


def test_fragment_is_not_given_twice_when_nothing_new_has_come() -> None:
    decoder = Decoder(masked=False, max_size=None)
    decoder.feed(bytes.fromhex("01 02 61 62"))
    decoder.fragments = True
    assert decoder.feed(b"") == [Fragment("ab", False)]
    assert decoder.feed(b"") == []


def test_code_point_that_frames_cut_is_in_the_fragment_that_completes_it() -> None:
    wire = bytes.fromhex("01 02 61 f0  00 01 9f  00 01 98  00 02 80 62  80 01 63")
    assert decode(wire, fragments=True) == [
        Fragment("a", False),
        Fragment("", False),
        Fragment("", False),
        Fragment("\U0001f600b", False),
        Fragment("c", True),
    ]


def test_budget_counts_fragments() -> None:
    decoder = Decoder(masked=False, max_size=None, fragments=True)
    wire = bytes.fromhex("02 02 61 62 00 02 63 64 80 02 65 66")
    assert decoder.feed(wire, None, 1) == [Fragment(b"ab", False)]
    assert decoder.pending
    assert decoder.feed(b"", 3) == [Fragment(b"cd", False), Fragment(b"ef", True)]
    assert not decoder.pending


# Extensions.


class Doubling(Extension):
    """Writes each byte twice."""

    name = "doubling"
    parameters = ()

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, bool]] = []
        self._half = b""

    def wants(self, size: int) -> bool:
        return True

    def encode(self, payload: bytes | bytearray | memoryview, *, fin: bool) -> bytes:
        return bytes(byte for byte in bytes(payload) for _ in range(2))

    def decode(
        self, payload: bytes | bytearray | memoryview, max_size: int | None, *, fin: bool
    ) -> bytes:
        self.calls.append((bytes(payload), fin))
        data = self._half + bytes(payload)
        if data[::2][: len(data) // 2] != data[1::2]:
            raise ProtocolError("bytes are not in pairs", 1007)
        self._half = data[-1:] if len(data) % 2 else b""
        if max_size is not None and len(data) // 2 > max_size:
            raise PayloadTooBig(f"over {max_size}")
        return data[1::2]


def test_extension_sees_the_messages_that_have_rsv1_and_no_others() -> None:
    extension = Doubling()
    decoder = Decoder(masked=False, max_size=None, inflate=extension)
    assert decoder.feed(bytes.fromhex("c1 02 61 61 81 01 62 42 02 63 63 89 01 64 80 02 65 65")) == [
        "a",
        "b",
        Ping(b"d"),
        b"ce",
    ]
    assert extension.calls == [(b"aa", True), (b"cc", False), (b"ee", True)]


def test_extension_gets_the_pieces_as_they_come() -> None:
    extension = Doubling()
    decoder = Decoder(masked=True, max_size=None, inflate=extension)
    wire = frame(BINARY, b"aabb", rsv=4, mask=MASK)
    assert decoder.feed(wire[:7]) == []
    assert decoder.feed(wire[7:]) == [b"ab"]
    assert extension.calls == [(b"a", False), (b"abb", True)]


def test_extension_is_told_of_the_end_when_the_last_frame_is_empty() -> None:
    extension = Doubling()
    decoder = Decoder(masked=False, max_size=None, inflate=extension)
    assert decoder.feed(bytes.fromhex("41 02 61 61 80 00")) == ["a"]
    assert extension.calls == [(b"aa", False), (b"", True)]


def test_error_of_the_extension_is_a_failure_with_its_code_and_text() -> None:
    decoder = Decoder(masked=False, max_size=None, inflate=Doubling())
    events = decoder.feed(bytes.fromhex("81 01 61 c1 02 61 62"))
    assert events == ["a", Failure(1007, "bytes are not in pairs")]
    assert type(events[1]) is Failure
    assert type(events[1].code) is int
    assert decoder.feed(bytes.fromhex("81 01 61")) == []


@pytest.mark.behaviour(109)
def test_deflated_messages_are_inflated_however_they_are_cut() -> None:
    wire = bytes.fromhex(
        "c1 07 f2 48 cd c9 c9 07 00"  # RFC 7692 section 7.2.3.1
        "41 03 f2 48 cd 80 04 c9 c9 07 00"  # fragmented, as in the same section
        "81 05 48 65 6c 6c 6f"
        "c1 0b 00 05 00 fa ff 48 65 6c 6c 6f 00"  # section 7.2.3.3: a block without compression
        "c2 01 00"  # section 7.2.3.6: an empty message
    )
    for cut in range(len(wire) + 1):
        decoder = Decoder(masked=False, max_size=5, inflate=Deflate(()))
        events = decoder.feed(wire[:cut]) + decoder.feed(wire[cut:])
        assert events == ["Hello", "Hello", "Hello", "Hello", b""]


@pytest.mark.behaviour(109)
def test_corrupt_deflated_message_is_a_failure() -> None:
    decoder = Decoder(masked=False, max_size=None, inflate=Deflate(()))
    (event,) = decoder.feed(bytes.fromhex("c1 03 ff ff ff"))
    assert type(event) is Failure
    assert event.code == 1002
    assert event.reason.startswith("compressed message is corrupt: ")


def test_deflated_message_is_given_in_fragments_as_its_frames_end() -> None:
    deflate = Deflate(())
    first = deflate.encode(b"Hel", fin=False)
    last = deflate.encode(b"lo", fin=True)
    decoder = Decoder(masked=False, max_size=None, inflate=Deflate(()), fragments=True)
    assert decoder.feed(frame(TEXT, first, fin=False, rsv=4)) == [Fragment("Hel", False)]
    assert decoder.feed(frame(CONT, last)) == [Fragment("lo", True)]


# What is counted.


def counts(decoder: Decoder) -> tuple[int, int]:
    return decoder.message_count, decoder.payload_size


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        pytest.param([], (0, 0), id="nothing"),
        pytest.param([frame(TEXT, b"abc") + frame(BINARY, b"")], (2, 3), id="short"),
        pytest.param([frame(BINARY, bytes(70000))], (1, 70000), id="long"),
        pytest.param([frame(TEXT, "na\xefve".encode())], (1, 6), id="characters-of-two-bytes"),
        pytest.param([frame(TEXT, b"ab", fin=False)], (0, 0), id="begun"),
        pytest.param(
            [frame(TEXT, b"ab", fin=False), frame(PING, b"x"), frame(CONT, b"c")],
            (1, 3),
            id="joined",
        ),
        pytest.param([frame(TEXT, b"abc")[:4]], (0, 0), id="cut"),
        pytest.param([frame(TEXT, b"abc"), frame(TEXT, b"\xff")], (1, 3), id="failure"),
        pytest.param([frame(8), frame(TEXT, b"abc")], (0, 0), id="behind-a-close-frame"),
    ],
)
def test_complete_messages_are_counted(chunks: list[bytes], expected: tuple[int, int]) -> None:
    decoder = Decoder(masked=False, max_size=None)
    for chunk in chunks:
        decoder.feed(chunk)
    assert counts(decoder) == expected


def test_message_in_fragments_is_counted_with_its_last() -> None:
    decoder = Decoder(masked=False, max_size=None, fragments=True)
    decoder.feed(frame(TEXT, b"ab", fin=False))
    assert counts(decoder) == (0, 0)
    decoder.feed(frame(CONT, b"c"))
    assert counts(decoder) == (1, 3)


def test_bytes_are_counted_as_they_were_before_compression() -> None:
    decoder = Decoder(masked=False, max_size=None, inflate=Deflate(()))
    decoder.feed(frame(TEXT, HELLO_DEFLATED, rsv=4))
    assert counts(decoder) == (1, 5)
