"""One stream decoded by each codec, in one piece and in many: what must be the same.

Owns the comparison; knows nothing of where a stream comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from anyws._types import Close, Event, Failure, Fragment, Ping, Pong
from anyws.sansio import _pycodec
from anyws.sansio._deflate import Deflate
from tests.fuzzing.choices import cut
from tests.sansio.reference import Config, Reference

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from tests.fuzzing.choices import Choices

CODECS: list[ModuleType] = [_pycodec]
try:
    from anyws.sansio import _speedups
except ImportError:  # installed without a compiler
    pass
else:
    CODECS.append(_speedups)

EVENTS = (str, bytes, Fragment, Ping, Pong, Close, Failure)

# Around what the forms of a length hold, and what a buffer is made for at once.
LIMITS = (None, 0, 1, 5, 125, 126, 1000, 65535, 65536, 2**20, 2**63 - 1)
BUDGETS = (None, None, 0, 1, 2, 7, 300)

# Bytes of a stream for which the reference, that takes quadratic time, is quick.
REFERENCE_SIZE = 2048


@dataclass(frozen=True)
class Course:
    """How a stream is decoded.

    Args:
        masked: whether it is a client's.
        deflate: whether messages may be compressed.
        no_context_takeover: whether each of these starts with an empty window.
        lent: whether pieces are overwritten after the call, as a transport does with its buffer.
        eager: whether all that waits for its budget is decoded before the next piece.
        max_size: as for the Decoder.
        max_fragment_size: likewise.
        max_bytes: the budget of a call.
        max_messages: likewise.
        pattern: how the stream is cut.
        fragments_at: the piece before which fragments are asked for; 255 is never.
    """

    masked: bool = False
    deflate: bool = False
    no_context_takeover: bool = False
    lent: bool = False
    eager: bool = False
    max_size: int | None = None
    max_fragment_size: int | None = None
    max_bytes: int | None = None
    max_messages: int | None = None
    pattern: int = 0
    fragments_at: int = 255

    @classmethod
    def choose(cls, choices: Choices) -> Course:
        """Take eight bytes for one."""
        masked, deflate, no_context_takeover, lent, eager = choices.flags(5)
        return cls(
            masked=masked,
            deflate=deflate,
            no_context_takeover=no_context_takeover,
            lent=lent,
            eager=eager,
            max_size=choices.pick(LIMITS),
            max_fragment_size=choices.pick(LIMITS),
            max_bytes=choices.pick(BUDGETS),
            max_messages=choices.pick(BUDGETS),
            pattern=choices.byte(),
            fragments_at=choices.byte(),
        )

    def make_decoder(self, codec: ModuleType) -> Any:
        extension = Deflate((), remote_no_context_takeover=self.no_context_takeover)
        return codec.Decoder(
            masked=self.masked,
            max_size=self.max_size,
            max_fragment_size=self.max_fragment_size,
            inflate=extension if self.deflate else None,
        )


class Turn(NamedTuple):
    """What one call of feed() gave, and what the decoder says after it."""

    events: list[Event]
    kinds: list[type]
    pending: bool
    fragments: bool
    plain_size: int
    message_count: int
    payload_size: int


def decode(codec: ModuleType, wire: bytes, course: Course) -> list[Turn]:
    """Decode a stream in pieces, up to its end and to that of all that waits for its budget."""
    decoder = course.make_decoder(codec)
    turns: list[Turn] = []

    def feed(data: bytes | bytearray | memoryview) -> None:
        events = decoder.feed(data, course.max_bytes, course.max_messages)
        kinds = [type(event) for event in events]
        said = (decoder.pending, decoder.fragments, decoder.plain_size)
        turns.append(Turn(events, kinds, *said, decoder.message_count, decoder.payload_size))

    for number, piece in enumerate(cut(wire, course.pattern)):
        if number == course.fragments_at:
            decoder.fragments = True
        if course.lent:
            lent = bytearray(piece)
            feed(memoryview(lent))
            lent[:] = bytes(len(lent))
        else:
            feed(piece)
        while course.eager and decoder.pending:
            feed(b"")
    while decoder.pending:
        feed(b"")
    return turns


def check_decoders(wire: bytes, course: Course) -> None:
    """Decode a stream by each codec; what differs or is out of bounds is an AssertionError."""
    first, *others = [decode(codec, wire, course) for codec in CODECS]
    for other in others:
        assert other == first
    for turn in first:
        _check_turn(turn, course)
    events = join_fragments(event for turn in first for event in turn.events)
    sizes = _check_sizes(events, wire, course)
    if first:
        assert (first[-1].message_count, first[-1].payload_size) == (len(sizes), sum(sizes))
    wholes = [course.make_decoder(codec).feed(wire) for codec in CODECS]
    for whole in wholes:
        assert whole == wholes[0]
        # Which of two faults of a compressed message is found depends on how much is inflated.
        assert _without_failure(whole, course.deflate) == _without_failure(events, course.deflate)
    if not course.deflate and len(wire) <= REFERENCE_SIZE:
        config = Config(course.masked, course.max_size, course.max_fragment_size, extension=False)
        assert _without_reason(events) == Reference(wire, config).run()


def join_fragments(events: Iterable[Event]) -> list[Event]:
    """Put messages in the place of their fragments; the first ones of an incomplete one go."""
    joined: list[Event] = []
    parts: list[Any] = []
    for event in events:
        if type(event) is not Fragment:
            assert not (parts and isinstance(event, str | bytes)), "message among fragments"
            joined.append(event)
            continue
        parts.append(event.data)
        if event.fin:
            joined.append(type(event.data)().join(parts))
            parts = []
    return joined


def check_budgets(
    events: list[Event], max_bytes: int | None, max_messages: int | None
) -> list[int]:
    """Check that decoding stopped in time; give the sizes of messages and fragments."""
    given = [event for event in events if isinstance(event, str | bytes | Fragment)]
    sizes = [len(event.data if isinstance(event, Fragment) else event) for event in given]
    # Neither budget counts what was there before fragments were asked for.
    counted = sizes[1:] if given and type(given[0]) is Fragment and not given[0].fin else sizes
    assert max_messages is None or len(counted) <= max(1, max_messages)
    assert max_bytes is None or not counted[:-1] or sum(counted[:-1]) < max_bytes
    return sizes


def _check_turn(turn: Turn, course: Course) -> None:
    assert all(kind in EVENTS for kind in turn.kinds)
    assert not any(kind in {Close, Failure} for kind in turn.kinds[:-1])
    sizes = check_budgets(turn.events, course.max_bytes, course.max_messages)
    if turn.plain_size >= 0:
        assert set(turn.kinds) <= {str, bytes}
        assert turn.plain_size == sum(sizes)
    else:
        assert set(turn.kinds) - {str, bytes}


def _check_sizes(events: list[Event], wire: bytes, course: Course) -> list[int]:
    """Check the sizes of whole messages in bytes, and give them."""
    sizes = [
        len(event.encode() if isinstance(event, str) else event)
        for event in events
        if isinstance(event, str | bytes)
    ]
    assert course.max_size is None or all(size <= course.max_size for size in sizes)
    assert course.deflate or sum(sizes) <= len(wire)
    return sizes


def _without_failure(events: list[Event], deflate: bool) -> list[Event]:
    return [Failure(0, "") if deflate and type(it) is Failure else it for it in events]


def _without_reason(events: list[Event]) -> list[Event]:
    return [Failure(it.code, "") if type(it) is Failure else it for it in events]
