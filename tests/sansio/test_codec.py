"""Codecs under random bytes, splits and budgets, against a reference that is slow and obvious."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyws._types import Close, Event, Failure, Fragment, Ping, Pong
from anyws.sansio import _codec, _pycodec
from anyws.sansio._extensions import Extension
from tests.sansio.reference import Config, Reference
from tests.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame, xor

if TYPE_CHECKING:
    from collections.abc import Callable

# The one in use, and the one that is its specification, if that is another.
DECODERS = list(dict.fromkeys([_codec.Decoder, _pycodec.Decoder]))
ENCODERS = list(dict.fromkeys([_codec.encode_frame, _pycodec.encode_frame]))
MASKERS = list(dict.fromkeys([_codec.apply_mask, _pycodec.apply_mask]))


class Inverting(Extension):
    """Inverts each byte, so that what it is given in pieces comes out in the same pieces."""

    name = "inverting"
    parameters = ()

    def wants(self, size: int) -> bool:
        return True

    def encode(self, payload: bytes | bytearray | memoryview, *, fin: bool) -> bytes:
        return bytes(0xFF - byte for byte in bytes(payload))

    def decode(
        self, payload: bytes | bytearray | memoryview, max_size: int | None, *, fin: bool
    ) -> bytes:
        return self.encode(payload, fin=fin)


# What is fed.

# Some valid UTF-8, some that is not, and cuts in code points.
payloads = st.one_of(
    st.text(max_size=8).map(str.encode),
    st.binary(max_size=8),
    st.sampled_from([b"\xc3", b"\xa9", b"\xed\xa0", b"\xf0\x9f", b"\x98\x80", b"\xf4\x90"]),
    st.integers(120, 130).map(bytes),
)
controls = st.tuples(
    st.sampled_from([PING, PONG]), st.binary(max_size=5), st.just(True), st.just(0)
)
closes = st.tuples(
    st.just(CLOSE),
    st.one_of(
        st.binary(max_size=4),
        st.sampled_from([b"\x03\xe8", b"\x0b\xb8\xc3\xa9", b"\x03\xed", b"\x03\xe8\xff"]),
    ),
    st.just(True),
    st.just(0),
)
FrameArguments = tuple[int, bytes, bool, int]


@st.composite
def messages(draw: st.DrawFn) -> list[FrameArguments]:
    """Give the frames of a message in one or more fragments, with control frames between."""
    parts = draw(st.lists(payloads, min_size=1, max_size=4))
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    frames: list[FrameArguments] = []
    for index, part in enumerate(parts):
        if index:
            frames += draw(st.lists(controls, max_size=1))
        rsv = 0 if index else draw(st.sampled_from([0, 0, 0, 4]))
        frames.append((CONT if index else opcode, part, index == len(parts) - 1, rsv))
    return frames


wild_frames = st.tuples(
    st.integers(0, 15), payloads, st.booleans(), st.sampled_from([0, 0, 0, 4, 2, 1])
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, Config]:
    """Give the bytes of a peer that mostly keeps to the rules."""
    config = Config(
        masked=draw(st.booleans()),
        max_size=draw(st.sampled_from([None, None, 10, 127])),
        max_fragment_size=draw(st.sampled_from([None, None, 5, 125])),
        extension=draw(st.booleans()),
    )
    if config.extension:
        config.max_size = config.max_fragment_size = None
    frames: list[FrameArguments] = []
    for _ in range(draw(st.integers(0, 5))):
        frames += draw(
            st.one_of(
                messages(),
                messages(),
                controls.map(lambda one: [one]),
                closes.map(lambda one: [one]),
                wild_frames.map(lambda one: [one]),
            )
        )
    data = b"".join(
        frame(
            opcode,
            payload,
            fin=fin,
            rsv=rsv,
            mask=draw(st.binary(min_size=4, max_size=4)) if config.masked else None,
        )
        for opcode, payload, fin, rsv in frames
    )
    if draw(st.booleans()):
        data = data[: draw(st.integers(0, len(data)))]
    if data and draw(st.sampled_from([False, False, False, True])):
        index = draw(st.integers(0, len(data) - 1))
        data = data[:index] + draw(st.binary(min_size=1, max_size=1)) + data[index + 1 :]
    return data, config


budgets = st.one_of(st.none(), st.integers(0, 4), st.integers(0, 200))


def cut(draw: st.DrawFn, data: bytes, most: int = 8) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=most)))
    return [data[a:b] for a, b in itertools.pairwise([0, *places, len(data)])]


@st.composite
def splits(draw: st.DrawFn) -> tuple[bytes, list[bytes], Config]:
    data, config = draw(streams())
    if draw(st.booleans()):
        return data, [data[i : i + 1] for i in range(len(data))], config
    return data, cut(draw, data), config


@st.composite
def crowds(draw: st.DrawFn) -> tuple[bytes, list[bytes], Config]:
    """Give several messages in few chunks, so that a budget is spent before the end of one."""
    config = Config(draw(st.booleans()), None, None, extension=False)
    mask = draw(st.binary(min_size=4, max_size=4)) if config.masked else None
    frames = []
    for text in draw(st.lists(st.text(max_size=8), min_size=3, max_size=8)):
        payload = text.encode()
        pieces = cut(draw, payload, 2)
        for number, piece in enumerate(pieces):
            opcode = CONT if number else draw(st.sampled_from([TEXT, BINARY]))
            frames.append(frame(opcode, piece, fin=number == len(pieces) - 1, mask=mask))
            frames += [frame(PING, piece, mask=mask)] * draw(st.booleans())
    data = b"".join(frames)
    return data, cut(draw, data, 2), config


def new_decoder(kind: type[_codec.Decoder], config: Config) -> _codec.Decoder:
    return kind(
        masked=config.masked,
        max_size=config.max_size,
        max_fragment_size=config.max_fragment_size,
        inflate=Inverting() if config.extension else None,
    )


def without_reason(events: list[Event]) -> list[Event]:
    return [Failure(e.code, "") if type(e) is Failure else e for e in events]


def typed(events: list[Event]) -> list[tuple[type, Event]]:
    return [(type(event), event) for event in events]


@pytest.mark.parametrize("kind", DECODERS)
@given(stream=splits())
def test_events_are_those_of_the_reference_however_the_bytes_are_cut(
    kind: type[_codec.Decoder], stream: tuple[bytes, list[bytes], Config]
) -> None:
    data, chunks, config = stream
    whole = new_decoder(kind, config).feed(data)
    decoder = new_decoder(kind, config)
    assert [event for chunk in chunks for event in decoder.feed(chunk)] == whole
    assert typed(without_reason(whole)) == typed(Reference(data, config).run())


@pytest.mark.parametrize("kind", DECODERS)
@given(data=st.binary(max_size=40), extension=st.booleans(), masked=st.booleans())
def test_events_are_those_of_the_reference_when_the_bytes_are_random(
    kind: type[_codec.Decoder], data: bytes, extension: bool, masked: bool
) -> None:
    config = Config(masked, None, None, extension)
    events = new_decoder(kind, config).feed(data)
    assert without_reason(events) == Reference(data, config).run()


@pytest.mark.parametrize("kind", DECODERS)
@given(
    stream=st.one_of(crowds(), splits()),
    max_bytes=budgets,
    max_messages=budgets,
    eager=st.booleans(),
)
def test_budgets_delay_events_and_change_none(
    kind: type[_codec.Decoder],
    stream: tuple[bytes, list[bytes], Config],
    max_bytes: int | None,
    max_messages: int | None,
    eager: bool,
) -> None:
    data, chunks, config = stream
    decoder = new_decoder(kind, config)
    seen: list[Event] = []

    def feed(chunk: bytes) -> None:
        events = decoder.feed(chunk, max_bytes, max_messages)
        seen.extend(events)
        sizes = [len(event) for event in events if isinstance(event, (str, bytes))]
        # The message that spends the budget is the last.
        assert max_messages is None or len(sizes) <= max(1, max_messages)
        assert max_bytes is None or not sizes[:-1] or sum(sizes[:-1]) < max_bytes

    for chunk in chunks:
        feed(chunk)
        while eager and decoder.pending:
            feed(b"")
    while decoder.pending:
        feed(b"")
    assert seen == new_decoder(kind, config).feed(data)


@pytest.mark.parametrize("kind", DECODERS)
@given(stream=splits(), switches=st.lists(st.booleans(), min_size=9, max_size=9))
def test_fragments_join_to_the_same_messages_whenever_they_are_asked_for(
    kind: type[_codec.Decoder],
    stream: tuple[bytes, list[bytes], Config],
    switches: list[bool],
) -> None:
    data, chunks, config = stream
    decoder = new_decoder(kind, config)
    seen: list[Event] = []
    chunks = [*chunks[:8], b"".join(chunks[8:])]
    for chunk, switch in zip(chunks, switches, strict=False):
        decoder.fragments |= switch
        seen += decoder.feed(chunk)
    joined: list[str | bytes] = []
    parts: list[str | bytes] = []
    for event in seen:
        if type(event) is Fragment:
            parts.append(event.data)
            if event.fin:
                joined.append(type(event.data)().join(parts))  # type: ignore[arg-type]  # all of one type
                parts = []
        elif isinstance(event, (str, bytes)):
            assert not parts
            joined.append(event)
    whole = new_decoder(kind, config).feed(data)
    assert joined == [event for event in whole if isinstance(event, (str, bytes))]
    kinds = (Ping, Pong, Close, Failure)
    assert [e for e in seen if isinstance(e, kinds)] == [e for e in whole if isinstance(e, kinds)]


# What was given.


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize(
    ("wire", "size"),
    [
        (b"", 0),
        (frame(TEXT, b"abc") + frame(BINARY, b"de"), 5),
        (frame(TEXT, "\N{SNOWMAN}".encode()), 1),
        (frame(TEXT, b"abc", fin=False) + frame(CONT, b"de"), 5),
        (frame(TEXT, b"abc", fin=False), 0),
        (frame(TEXT, b"abc") + frame(PING), -1),
        (frame(PONG), -1),
        (frame(TEXT, b"abc") + frame(CLOSE), -1),
        (frame(TEXT, b"abc") + frame(7), -1),
    ],
    ids=[
        "nothing",
        "messages",
        "characters",
        "joined",
        "begun",
        "ping",
        "pong",
        "close",
        "failure",
    ],
)
def test_plain_size_tells_whole_messages_from_all_else(
    kind: type[_codec.Decoder], wire: bytes, size: int
) -> None:
    decoder = kind(masked=False, max_size=None)
    decoder.feed(wire)
    assert decoder.plain_size == size
    decoder.feed(b"")
    assert decoder.plain_size == 0


@pytest.mark.parametrize("kind", DECODERS)
def test_plain_size_tells_fragments_from_messages(kind: type[_codec.Decoder]) -> None:
    decoder = kind(masked=False, max_size=None, fragments=True)
    decoder.feed(frame(TEXT, b"abc"))
    assert decoder.plain_size == -1


@pytest.mark.parametrize("kind", DECODERS)
def test_plain_size_tells_the_fragment_of_a_message_that_has_begun(
    kind: type[_codec.Decoder],
) -> None:
    decoder = kind(masked=False, max_size=None)
    decoder.feed(frame(TEXT, b"abc", fin=False))
    decoder.fragments = True
    decoder.feed(b"")
    assert decoder.plain_size == -1


# There and back.


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("encode", ENCODERS)
@given(
    payload=st.one_of(st.binary(max_size=200), st.integers(65530, 65540).map(bytes)),
    key=st.one_of(st.none(), st.binary(min_size=4, max_size=4)),
    text=st.booleans(),
)
def test_encoded_frame_is_decoded_to_its_payload(
    kind: type[_codec.Decoder],
    encode: Callable[..., bytes],
    payload: bytes,
    key: bytes | None,
    text: bool,
) -> None:
    decoder = kind(masked=key is not None, max_size=None)
    if text:
        payload = payload.decode("latin-1").encode()
    wire = encode(TEXT if text else BINARY, payload, masking_key=key)
    assert wire == frame(TEXT if text else BINARY, payload, mask=key)
    assert decoder.feed(wire) == [payload.decode() if text else payload]


@pytest.mark.parametrize("mask", MASKERS)
@given(
    data=st.one_of(st.binary(), st.binary(min_size=500, max_size=1100)),
    key=st.binary(min_size=4, max_size=4),
)
def test_masking_twice_gives_the_data_again(
    mask: Callable[[bytes, bytes], bytes], data: bytes, key: bytes
) -> None:
    masked = mask(data, key)
    assert masked == xor(data, key)
    assert mask(masked, key) == data
