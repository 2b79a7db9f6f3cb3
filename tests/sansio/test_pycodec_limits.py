"""How much a codec takes of a peer: messages, fragments, and what they inflate to."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from anyws._types import Event, Failure, Ping
from anyws.sansio._deflate import Deflate
from anyws.sansio._pycodec import Decoder
from tests.wire import BINARY, CONT, MASK, TEXT, frame

if TYPE_CHECKING:
    from anyws.sansio._extensions import Extension

MIB = 2**20


def decode(
    *chunks: bytes,
    max_size: int | None,
    max_fragment_size: int | None = None,
    masked: bool = False,
    inflate: Extension | None = None,
) -> list[Event]:
    """Give the events of `chunks`, each fed in its turn."""
    decoder = Decoder(
        masked=masked, max_size=max_size, max_fragment_size=max_fragment_size, inflate=inflate
    )
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def too_big(text: str) -> list[Event]:
    return [Failure(1009, text)]


@pytest.mark.behaviour(38)
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("mask", [None, MASK])
def test_message_passes_when_it_is_as_big_as_the_limit(size: int, mask: bytes | None) -> None:
    payload = bytes(size)
    wire = frame(BINARY, payload, mask=mask)
    for chunks in ([wire], [wire[:-1], wire[-1:]]):
        assert decode(*chunks, max_size=size, masked=mask is not None) == [payload]
        assert decode(*chunks, max_size=size, max_fragment_size=size, masked=mask is not None) == [
            payload
        ]
        assert decode(*chunks, max_size=None, max_fragment_size=size, masked=mask is not None) == [
            payload
        ]


@pytest.mark.behaviour(38)
@pytest.mark.parametrize("size", [1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("mask", [None, MASK])
def test_message_fails_when_it_is_one_byte_over_the_limit(
    size: int, opcode: int, mask: bytes | None
) -> None:
    wire = frame(opcode, bytes(size), mask=mask)
    masked = mask is not None
    text = f"message of {size} bytes exceeds the limit of {size - 1} bytes"
    assert decode(wire, max_size=size - 1, masked=masked) == too_big(text)
    # The length is enough: neither the key nor the payload is waited for.
    head = wire[: -size - (4 if masked else 0)]
    assert decode(head, max_size=size - 1, masked=masked) == too_big(text)
    assert decode(head[:-1], max_size=size - 1, masked=masked) == []


@pytest.mark.behaviour(39)
def test_fragments_are_summed() -> None:
    two = bytes.fromhex("02 03 61 62 63 00 00 00 02 64 65")
    assert decode(two, bytes.fromhex("80 05") + b"fghij", max_size=10) == [b"abcdefghij"]
    assert decode(two, bytes.fromhex("80 06"), max_size=10) == too_big(
        "message of 11 bytes exceeds the limit of 10 bytes"
    )


@pytest.mark.behaviour(39)
def test_next_message_starts_at_nothing() -> None:
    wire = bytes.fromhex("02 03 61 62 63 80 02 64 65 89 02 66 67 82 05 61 62 63 64 65")
    assert decode(wire, max_size=5) == [b"abcde", Ping(b"fg"), b"abcde"]


def test_fragments_count_in_fragments_mode_too() -> None:
    decoder = Decoder(masked=False, max_size=5, fragments=True)
    assert len(decoder.feed(bytes.fromhex("02 03 61 62 63"))) == 1
    assert decoder.feed(bytes.fromhex("80 03")) == too_big(
        "message of 6 bytes exceeds the limit of 5 bytes"
    )


def test_limit_of_a_fragment_holds_for_each() -> None:
    wire = bytes.fromhex("02 03 61 62 63 00 03 64 65 66 80 03 67 68 69")
    assert decode(wire, max_size=9, max_fragment_size=3) == [b"abcdefghi"]
    assert decode(wire, max_size=8, max_fragment_size=3) == too_big(
        "message of 9 bytes exceeds the limit of 8 bytes"
    )
    assert decode(wire[:7], max_size=None, max_fragment_size=2) == too_big(
        "fragment of 3 bytes exceeds the limit of 2 bytes"
    )


@pytest.mark.parametrize("head", ["82 03", "81 03", "02 03", "82 01 61 82 03", "02 00 80 03"])
def test_fragment_fails_when_it_is_over_its_limit(head: str) -> None:
    events = decode(bytes.fromhex(head), max_size=100, max_fragment_size=2)
    assert events[-1:] == too_big("fragment of 3 bytes exceeds the limit of 2 bytes")


def test_control_frames_are_under_no_limit_but_their_own() -> None:
    assert decode(bytes.fromhex("89 03 61 62 63"), max_size=0, max_fragment_size=0) == [
        Ping(b"abc")
    ]


@pytest.mark.behaviour(41)
def test_no_limit_is_none() -> None:
    payload = bytes(3 * MIB)
    assert decode(frame(BINARY, payload), max_size=None) == [payload]


# After decompression.


@pytest.mark.behaviour(40)
@pytest.mark.parametrize("step", [1, 7, 10000])
def test_size_after_decompression_counts(step: int) -> None:
    wire = frame(TEXT, Deflate(()).encode(b"a" * 1000, fin=True), rsv=4)
    chunks = [wire[i : i + step] for i in range(0, len(wire), step)]
    assert decode(*chunks, max_size=1000, inflate=Deflate(())) == ["a" * 1000]
    assert decode(*chunks, max_size=999, inflate=Deflate(())) == too_big(
        "message exceeds the limit of 999 bytes after decompression"
    )
    assert decode(*chunks, max_size=0, inflate=Deflate(())) == too_big(
        "message exceeds the limit of 0 bytes after decompression"
    )
    assert decode(*chunks, max_size=None, inflate=Deflate(())) == ["a" * 1000]


def test_compressed_message_passes_when_it_was_longer_than_the_limit_before() -> None:
    stored = bytes.fromhex("00 05 00 fa ff 48 65 6c 6c 6f 00")  # 11 bytes for 5
    assert decode(frame(TEXT, stored, rsv=4), max_size=5, inflate=Deflate(())) == ["Hello"]


def test_compressed_fragments_are_summed() -> None:
    deflate = Deflate(())
    first = frame(BINARY, deflate.encode(b"a" * 500, fin=False), fin=False, rsv=4)
    last = frame(CONT, deflate.encode(b"b" * 500, fin=True))
    assert decode(first, last, max_size=1000, inflate=Deflate(())) == [b"a" * 500 + b"b" * 500]
    assert decode(first, last, max_size=999, inflate=Deflate(())) == too_big(
        "message exceeds the limit of 999 bytes after decompression"
    )


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_limit_of_a_fragment_holds_after_decompression(step: int) -> None:
    deflate = Deflate(())
    first = frame(BINARY, deflate.encode(b"a" * 500, fin=False), fin=False, rsv=4)
    wire = first + frame(CONT, deflate.encode(b"b" * 501, fin=True))
    chunks = [wire[i : i + step] for i in range(0, len(wire), step)]
    for max_size, max_fragment_size, events in [
        (None, 501, [b"a" * 500 + b"b" * 501]),
        (1001, 501, [b"a" * 500 + b"b" * 501]),
        (None, 500, too_big("fragment exceeds the limit of 500 bytes after decompression")),
        (1001, 500, too_big("fragment exceeds the limit of 500 bytes after decompression")),
        (1000, 501, too_big("message exceeds the limit of 1000 bytes after decompression")),
    ]:
        inflate = Deflate(())
        assert events == decode(
            *chunks, max_size=max_size, max_fragment_size=max_fragment_size, inflate=inflate
        )


@pytest.mark.behaviour(40)
def test_bomb_is_stopped_before_it_is_inflated() -> None:
    bomb = Deflate(()).encode(bytes(64 * MIB), fin=True)
    assert len(bomb) < 80000
    decoder = Decoder(masked=False, max_size=MIB, inflate=Deflate(()))
    wire = frame(BINARY, bomb, rsv=4)
    tracemalloc.start()
    try:
        events = decoder.feed(wire)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert events == too_big(f"message exceeds the limit of {MIB} bytes after decompression")
    assert peak < 4 * MIB


@pytest.mark.behaviour(45)
def test_memory_is_that_of_the_budget_and_one_message_when_a_chunk_inflates_to_many() -> None:
    deflate = Deflate((), local_no_context_takeover=True)
    one = frame(BINARY, deflate.encode(bytes(MIB), fin=True), rsv=4)
    count = 65536 // len(one)
    assert count > 40
    decoder = Decoder(
        masked=False, max_size=MIB, inflate=Deflate((), remote_no_context_takeover=True)
    )
    chunk = one * count
    tracemalloc.start()
    try:
        assert decoder.feed(chunk, 65536) == [bytes(MIB)]
        for _ in range(count - 1):
            assert decoder.pending
            assert len(decoder.feed(b"", 65536)) == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not decoder.pending
    assert peak < 6 * MIB


@pytest.mark.behaviour(45)
@pytest.mark.parametrize("payload", [b"", b"a"])
def test_fragments_are_kept_in_one_buffer_when_there_are_very_many(payload: bytes) -> None:
    decoder = Decoder(masked=False, max_size=MIB)
    assert decoder.feed(frame(BINARY, b"", fin=False)) == []
    chunk = frame(CONT, payload, fin=False) * 2000
    decoder.feed(chunk)
    tracemalloc.start()
    try:
        for _ in range(5):
            assert decoder.feed(chunk) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300_000
    assert decoder.feed(frame(CONT, b"")) == [payload * 12_000]


@pytest.mark.behaviour(45)
@pytest.mark.parametrize("start", ["82", "82 7e 01", "89 02 61"])
def test_chunk_is_not_kept_when_it_ends_within_a_header_or_a_control_frame(start: str) -> None:
    decoder = Decoder(masked=False, max_size=MIB)
    one = frame(BINARY, bytes(60_000))
    tracemalloc.start()
    try:
        assert len(decoder.feed(one * 4 + bytes.fromhex(start))) == 4
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 5000
    assert not decoder.pending


@pytest.mark.behaviour(45)
def test_rest_of_a_chunk_is_not_copied_for_each_message_of_it() -> None:
    decoder = Decoder(masked=False, max_size=MIB)
    chunk = frame(BINARY, bytes(1000)) * 250
    assert len(decoder.feed(chunk, None, 1)) == 1
    tracemalloc.start()
    try:
        while decoder.pending:
            assert decoder.feed(b"", None, 1) == [bytes(1000)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000
