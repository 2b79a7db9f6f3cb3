"""The compiled codec against the one in Python: equal events for equal bytes, however cut."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from anyws.sansio import _codec, _pycodec
from anyws.sansio._deflate import Deflate
from tests.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame

if TYPE_CHECKING:
    from types import ModuleType

try:
    from anyws.sansio import _speedups
except ImportError:
    compiled: ModuleType | None = None
else:
    compiled = _speedups

needs_compiler = pytest.mark.skipif(compiled is None, reason="the extension is not built")

both_codecs = pytest.mark.parametrize(
    "codec",
    [
        pytest.param(_pycodec, id="python"),
        pytest.param(compiled, id="c", marks=needs_compiler),
    ],
)

TEXTS = [
    "",
    "ascii " * 20,
    "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
    "\N{SNOWMAN}" * 50,
    "\U0001f600",
]
KEY = b"\x01\xfe\x80\x37"


def random_stream(choose: random.Random, *, masked: bool, deflate: Deflate | None) -> bytes:
    """Build frames that are mostly right: the wrong ones end the stream."""
    key = KEY if masked else None
    frames = []
    for _ in range(choose.randrange(1, 8)):
        opcode = choose.choice([TEXT, BINARY])
        size = choose.choice([0, 1, 5, 124, 125, 126, 127, 1000, 65535, 65536])
        payload = choose.randbytes(size)
        if opcode == TEXT:
            payload = (choose.choice(TEXTS) * choose.choice([1, 1, 30])).encode()
        rsv1 = False
        if deflate is not None and choose.random() < 0.5:
            payload, rsv1 = deflate.encode(payload, fin=True), True
        pieces = choose.choice([1, 1, 2, 4])
        cuts = sorted(choose.randrange(len(payload) + 1) for _ in range(pieces - 1))
        for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(payload)], strict=True)):
            last = number == pieces - 1
            head = frame(
                CONT if number else opcode,
                payload[start:stop],
                fin=last,
                mask=key,
                rsv=4 if rsv1 and not number else 0,
            )
            frames.append(head)
            if choose.random() < 0.2:
                frames.append(frame(choose.choice([PING, PONG]), choose.randbytes(5), mask=key))
    if choose.random() < 0.3:
        frames.append(frame(CLOSE, b"\x03\xe8bye", mask=key))
    stream = bytearray(b"".join(frames))
    if choose.random() < 0.4:
        stream[choose.randrange(len(stream))] ^= 1 << choose.randrange(8)
    return bytes(stream)


def run(module: Any, stream: bytes, seed: int, *, masked: bool, deflate: bool) -> list[object]:
    """Decode a stream in pieces, with budgets and fragments now and then; give all that is seen."""
    choose = random.Random(seed)
    decoder = module.Decoder(
        masked=masked,
        max_size=choose.choice([None, 100, 2000, 2**20, 2**70]),
        max_fragment_size=choose.choice([None, None, 1000]),
        inflate=Deflate(()) if deflate else None,
        fragments=choose.random() < 0.2,
    )
    most = choose.choice([1, 7, 300, 10**6])
    seen: list[object] = []
    position = 0
    while position < len(stream):
        step = choose.randrange(1, most + 1)
        chunk = stream[position : position + step]
        position += step
        budgets = (choose.choice([None, None, 1, 5000]), choose.choice([None, None, 1, 2]))
        if choose.random() < 0.1:
            decoder.fragments = True
        # What is lent to feed() may change behind it.
        lent = bytearray(chunk)
        given = memoryview(lent) if choose.random() < 0.5 else chunk
        while True:
            events = decoder.feed(given, *budgets)
            lent[:] = bytes(len(lent))
            seen.append((events, [type(event) for event in events], decoder.pending))
            seen.append((decoder.fragments, decoder.plain_size))
            seen.append((decoder.message_count, decoder.payload_size))
            given = b""
            if not decoder.pending:
                break
    return seen


@needs_compiler
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
@pytest.mark.parametrize("masked", [False, True], ids=["client", "server"])
def test_events_are_equal_for_random_streams_cut_at_random(masked: bool, deflate: bool) -> None:
    for seed in range(80):
        choose = random.Random(seed)
        stream = random_stream(choose, masked=masked, deflate=Deflate(()) if deflate else None)
        expected = run(_pycodec, stream, seed, masked=masked, deflate=deflate)
        assert run(compiled, stream, seed, masked=masked, deflate=deflate) == expected, seed


def receive(module: Any, stream: bytes, seed: int, *, masked: bool) -> list[object]:
    """Be an application that receives a stream in pieces, with a queue; give all that is seen.

    What is simply taken is; else what its owner does is done here.
    """
    choose = random.Random(seed)
    decoder = module.Decoder(masked=masked, max_size=choose.choice([None, 50]))
    queue = decoder.queue
    queue.low_messages = choose.randrange(5)
    queue.high_messages = max(1, queue.low_messages + choose.randrange(10))
    queue.low_bytes = choose.choice([0, 10, 100])
    queue.high_bytes = max(1, queue.low_bytes + choose.choice([0, 5, 100]))
    queue.replenishes = choose.random() < 0.9
    seen: list[object] = []

    def feed(chunk: bytes) -> None:
        room = max(1, queue.high_bytes - queue.size)
        places = max(1, queue.high_messages - len(queue))
        events = decoder.feed(chunk, room, places)
        if decoder.plain_size >= 0:
            queue.extend(events, decoder.plain_size)
        else:
            for event in events:
                if isinstance(event, str | bytes):
                    queue.append(event)
                else:
                    seen.append(event)
        if queue.full:
            queue.paused = True

    def look() -> tuple[object, ...]:
        return (
            (len(queue), queue.size, queue.full, queue.low, queue.paused, queue.starved),
            (queue.calls_left, queue.taken, queue.peak_count, queue.peak_size),
            (decoder.pending, decoder.message_count, decoder.payload_size),
        )

    position = 0
    while position < len(stream) or queue:
        if not queue.paused and position < len(stream):
            step = choose.randrange(1, 200)
            feed(stream[position : position + step])
            position += step
        queue.calls_left = choose.randrange(9)
        for _ in range(choose.randrange(12)):
            message = decoder.take()
            if message is None and queue:
                message = queue.popleft()
                if queue.paused and (queue.low or queue.starved):
                    queue.starved = False
                    feed(b"")
                    queue.paused = queue.full
            seen.append((message, look()))
    return seen


@needs_compiler
@pytest.mark.parametrize("masked", [False, True], ids=["client", "server"])
def test_queues_are_equal_for_random_streams_and_marks(masked: bool) -> None:
    replenished = 0
    for seed in range(150):
        choose = random.Random(seed)
        key = KEY if masked else None
        short = [
            frame(choose.choice([TEXT, BINARY]), b"x" * choose.randrange(30), mask=key)
            for _ in range(choose.randrange(60))
        ]
        mixed = random_stream(choose, masked=masked, deflate=None)
        stream = b"".join([*short, mixed, *reversed(short)])
        expected = receive(_pycodec, stream, seed, masked=masked)
        assert receive(compiled, stream, seed, masked=masked) == expected, seed
        replenished += len(expected)
    assert replenished > 5000


@both_codecs
def test_chunk_may_have_gaps(codec: Any) -> None:
    decoder = codec.Decoder(masked=False, max_size=None)
    assert decoder.feed(memoryview(b"\x81-\x01-a-")[::2]) == ["a"]


@needs_compiler
def test_each_byte_is_refused_by_both_in_the_same_place() -> None:
    for text in (*TEXTS, "\ud7ff\ue000\uffff\U0010ffff"):
        good = text.encode()
        for index in range(len(good)):
            for byte in (
                0x00,
                0x7F,
                0x80,
                0x8F,
                0x90,
                0x9F,
                0xA0,
                0xBF,
                0xC1,
                0xED,
                0xF4,
                0xF5,
                0xFF,
            ):
                bad = good[:index] + bytes([byte]) + good[index + 1 :]
                for step in (1, 3, len(bad) + 20):
                    seen = []
                    for module in (_pycodec, compiled):
                        assert module is not None
                        decoder = module.Decoder(masked=True, max_size=None)
                        stream = frame(TEXT, bad, mask=KEY)
                        seen.append(
                            [
                                decoder.feed(stream[i : i + step])
                                for i in range(0, len(stream), step)
                            ]
                        )
                    assert seen[0] == seen[1]


@needs_compiler
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 125, 126, 65535, 65536, 100_001])
@pytest.mark.parametrize("key", [None, KEY])
def test_frames_are_equal(size: int, key: bytes | None) -> None:
    assert compiled is not None
    payload = random.Random(size).randbytes(size)
    for data in (payload, bytearray(payload), memoryview(payload), memoryview(payload)[::-1]):
        for fin, rsv1 in ((True, False), (False, True)):
            options: dict[str, Any] = {"fin": fin, "rsv1": rsv1, "masking_key": key}
            assert compiled.encode_frame(2, data, **options) == _pycodec.encode_frame(
                2, data, **options
            )
        if key is not None:
            assert compiled.apply_mask(data, key) == _pycodec.apply_mask(data, key)


@needs_compiler
def test_wrong_arguments_are_told() -> None:
    assert compiled is not None
    decoder = compiled.Decoder(masked=True, max_size=None)
    calls: list[tuple[type[Exception], Any]] = [
        (TypeError, compiled.Decoder),
        (TypeError, lambda: compiled.Decoder(masked=True, max_size="1")),
        (TypeError, lambda: compiled.encode_frame(1)),
        (TypeError, lambda: compiled.encode_frame(1, b"", mask=b"")),
        (TypeError, lambda: compiled.encode_frame("1", b"")),
        (TypeError, decoder.feed),
        (TypeError, lambda: decoder.feed("text")),
        (TypeError, lambda: decoder.feed(5)),
        (TypeError, lambda: decoder.feed(b"", None, None, None)),
        (ValueError, lambda: compiled.encode_frame(1, b"", masking_key=b"abc")),
        (ValueError, lambda: compiled.apply_mask(b"", b"abcde")),
    ]
    for error, call in calls:
        with pytest.raises(error):
            call()
    assert decoder.feed(bytearray(frame(TEXT, b"a", mask=KEY)), max_messages=1) == ["a"]


@needs_compiler
def test_error_of_an_extension_leaves_the_decoder() -> None:
    assert compiled is not None

    class Broken(Deflate):
        def decode(self, *_: Any, **__: Any) -> bytes:
            raise OSError("mine")

    decoder = compiled.Decoder(masked=False, max_size=None, inflate=Broken(()))
    with pytest.raises(OSError, match="mine"):
        decoder.feed(frame(TEXT, b"abc", rsv=4))


@needs_compiler
def test_header_takes_no_memory_for_what_has_not_come() -> None:
    assert compiled is not None
    decoder = compiled.Decoder(masked=False, max_size=None)
    tracemalloc.start()
    try:
        decoder.feed(b"\x82\x7f" + (2**62).to_bytes(8, "big") + b"x")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@needs_compiler
def test_no_memory_is_lost() -> None:
    def work() -> None:
        for seed in range(10):
            stream = random_stream(random.Random(seed), masked=True, deflate=Deflate(()))
            run(compiled, stream, seed, masked=True, deflate=True)
            receive(compiled, frame(TEXT, b"short", mask=KEY) * 50 + stream, seed, masked=True)

    work()
    tracemalloc.start()
    try:
        work()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            work()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", ["1", "0", "", None])
def test_environment_chooses_the_codec(value: str | None) -> None:
    environment = {key: text for key, text in os.environ.items() if key != "ANYWS_PURE_PYTHON"}
    if value is not None:
        environment["ANYWS_PURE_PYTHON"] = value
    code = (
        "from anyws.sansio import IMPLEMENTATION, Decoder, _pycodec, apply_mask, encode_frame;"
        "print(IMPLEMENTATION, *[it is getattr(_pycodec, it.__name__)"
        " for it in (Decoder, apply_mask, encode_frame)])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True
    )
    if value == "1" or compiled is None:
        assert found.stdout == "python True True True\n"
    else:
        assert found.stdout == "c False False False\n"


def test_codec_in_use_is_named() -> None:
    module = {"c": compiled, "python": _pycodec}[_codec.IMPLEMENTATION]
    assert module is not None
    assert _codec.Decoder is module.Decoder


@both_codecs
@pytest.mark.parametrize("key", [None, b"abcd"])
@pytest.mark.parametrize("text", ["", "text", "naïve", "\N{SNOWMAN}" * 300, "\N{GRINNING FACE}"])
def test_str_is_encoded_as_its_utf8(codec: Any, key: bytes | None, text: str) -> None:
    frame = codec.encode_frame(1, text, masking_key=key)
    assert frame == codec.encode_frame(1, text.encode(), masking_key=key)


@both_codecs
def test_str_without_utf8_is_refused(codec: Any) -> None:
    with pytest.raises(UnicodeEncodeError):
        codec.encode_frame(1, "\ud800")
