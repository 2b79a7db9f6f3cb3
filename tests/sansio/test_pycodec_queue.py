"""What was decoded and not taken yet: the queue of a decoder, and how messages leave it."""

from __future__ import annotations

import gc
import sys
import weakref
from collections import deque
from collections.abc import Coroutine
from random import Random
from types import coroutine
from typing import TYPE_CHECKING, Any

import pytest

from anyws._types import Data, Failure, Fragment, Ping
from anyws.sansio._deflate import Deflate
from anyws.sansio._pycodec import Decoder
from tests.wire import BINARY, CONT, MASK, PING, TEXT, frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from anyws.sansio._pyqueue import MessageQueue

ONE = b"\x81\x011"
"""A frame that is the message "1"."""


def new_queue() -> MessageQueue:
    return Decoder(masked=False, max_size=None).queue


def marked_queue(messages: tuple[int, int], size: tuple[int, int] | None = None) -> MessageQueue:
    """Give a queue with the high and low marks for messages, and those for bytes."""
    queue = new_queue()
    queue.high_messages, queue.low_messages = messages
    if size is not None:
        queue.high_bytes, queue.low_bytes = size
    return queue


def full_decoder(
    stream: bytes, high: int = 4, low: int = 1, *, masked: bool = False, max_size: int | None = None
) -> Any:
    """Give a decoder that was fed a stream, whose queue is full, so that reading is paused."""
    decoder = Decoder(masked=masked, max_size=max_size)
    queue = decoder.queue
    queue.high_messages, queue.low_messages = high, low
    queue.replenishes = True
    events: list[Any] = decoder.feed(stream, None, high)
    queue.extend(events, decoder.plain_size)
    assert queue.full
    queue.paused = True
    return decoder


def drain(decoder: Any) -> list[Data]:
    """Take out what can be simply taken."""
    return list(iter(decoder.take, None))


# What it holds.


def test_messages_leave_in_their_order() -> None:
    queue = new_queue()
    queue.append("b")
    queue.extend([b"c", "d"], 2)
    queue.appendleft("a")
    queue.append(Fragment("e", fin=False))
    seen = []
    while queue:
        seen.append(queue.head)
        assert queue.popleft() is seen[-1]
    assert seen == ["a", "b", b"c", "d", Fragment("e", fin=False)]


def test_nothing_is_taken_from_an_empty_queue() -> None:
    queue = new_queue()
    with pytest.raises(IndexError):
        queue.popleft()
    with pytest.raises(IndexError):
        _ = queue.head
    assert (len(queue), queue.size, queue.taken) == (0, 0, 0)


def test_queue_is_that_of_its_decoder() -> None:
    decoder = Decoder(masked=False, max_size=None)
    decoder.queue.append("a")
    assert decoder.queue is decoder.queue
    assert decoder.take() == "a"


def test_queue_outlives_its_decoder() -> None:
    queue = new_queue()
    queue.append("a")
    assert queue.popleft() == "a"


def test_queue_does_as_a_deque_does() -> None:
    choose = Random(6455)
    queue = new_queue()
    model: deque[str] = deque()
    for number in range(3000):
        text = str(number)
        action = choose.choice(["append", "extend", "appendleft", *["popleft"] * 3])
        if action == "append":
            queue.append(text)
            model.append(text)
        elif action == "appendleft":
            queue.appendleft(text)
            model.appendleft(text)
        elif action == "extend":
            many = [text] * choose.randrange(40 if number % 100 == 0 else 3)
            queue.extend(list(many), len(many) * len(text))
            model.extend(many)
        elif model:
            assert queue.popleft() == model.popleft()
        assert len(queue) == len(model)
        assert queue.size == sum(map(len, model))
    while model:
        assert queue.popleft() == model.popleft()


@pytest.mark.parametrize(
    "message",
    [b"1234", "1234", "\N{SNOWMAN}" * 4, Fragment(b"1234", fin=True), Fragment("1234", fin=False)],
    ids=repr,
)
def test_size_counts_bytes_and_characters(message: Data | Fragment) -> None:
    queue = new_queue()
    for _ in range(3):
        queue.append(message)
    assert queue.size == 12
    queue.popleft()
    queue.appendleft(message)
    queue.popleft()
    assert queue.size == 8


def test_what_is_no_message_is_refused() -> None:
    queue = new_queue()
    wrong: list[Any] = [5, bytearray(b"a"), [], Fragment([], fin=True), type("Text", (str,), {})()]  # type: ignore[arg-type]  # that is the point
    for message in wrong:
        kind = type(message).__name__
        with pytest.raises(TypeError, match=f"of type {kind}, expected str, bytes or Fragment"):
            queue.append(message)
        with pytest.raises(TypeError, match=f"of type {kind}, expected str, bytes or Fragment"):
            queue.appendleft(message)
    assert (len(queue), queue.size) == (0, 0)


def test_nothing_makes_it_full_when_there_are_no_marks() -> None:
    queue = new_queue()
    for _ in range(1000):
        queue.append(bytes(1000))
    assert not queue.full
    assert queue.low


@pytest.mark.parametrize(
    ("messages", "size"),
    [((2, 1), None), ((1000, 1000), (20, 10)), ((2, 1), (20, 10))],
    ids=["messages", "bytes", "both"],
)
def test_full_begins_at_a_high_mark_and_low_at_the_low_marks(
    messages: tuple[int, int], size: tuple[int, int] | None
) -> None:
    queue = marked_queue(messages, size)
    states = []
    for _ in range(2):
        states.append((queue.full, queue.low))
        queue.append(bytes(10))
    states.append((queue.full, queue.low))
    queue.popleft()
    states.append((queue.full, queue.low))
    queue.popleft()
    states.append((queue.full, queue.low))
    assert states == [(False, True), (False, True), (True, False), (False, True), (False, True)]


def test_full_when_one_message_is_over_the_byte_mark() -> None:
    queue = marked_queue((32, 8), (10, 5))
    queue.append(bytes(1000))
    assert queue.full


@pytest.mark.parametrize(
    ("sizes", "low"),
    [([0, 0], False), ([6], False), ([5], True)],
    ids=["too-many", "too-large", "neither"],
)
def test_low_needs_both_marks(sizes: list[int], low: bool) -> None:
    queue = marked_queue((4, 1), (10, 5))
    for size in sizes:
        queue.append(bytes(size))
    assert queue.low is low


def test_peaks_and_what_was_taken_are_counted() -> None:
    queue = new_queue()
    queue.append("abc")
    queue.extend(["d", "e"], 2)
    queue.popleft()
    queue.popleft()
    queue.append("f" * 10)
    assert (queue.peak_count, queue.peak_size, queue.taken) == (3, 11, 2)


def test_what_is_put_back_makes_no_peak() -> None:
    queue = new_queue()
    queue.append(Fragment("ab", fin=True))
    queue.popleft()
    queue.appendleft(Fragment("b", fin=True))
    queue.appendleft(Fragment("a", fin=False))
    assert (queue.peak_count, queue.peak_size) == (1, 2)


# What is kept for later.


def test_kept_chunk_is_decoded_behind_what_was_left_over() -> None:
    decoder = Decoder(masked=False, max_size=None)
    assert decoder.feed(ONE + b"\x81\x01") == ["1"]
    assert not decoder.pending
    lent = bytearray(b"2\x81\x013\x81")
    decoder.keep(memoryview(lent))
    lent[:] = bytes(len(lent))
    assert decoder.pending
    assert decoder.message_count == 1
    decoder.keep(b"\x014")
    assert decoder.feed(b"", None, 1) == ["2"]
    assert decoder.feed(ONE) == ["3", "4", "1"]
    assert not decoder.pending


def test_nothing_is_kept_behind_a_failure() -> None:
    decoder = Decoder(masked=False, max_size=None)
    assert len(decoder.feed(b"\xff\x00")) == 1
    decoder.keep(ONE)
    assert not decoder.pending
    assert decoder.feed(b"") == []


def test_kept_chunk_is_bytes() -> None:
    decoder = Decoder(masked=False, max_size=None)
    with pytest.raises(TypeError):
        decoder.keep("text")  # type: ignore[arg-type]  # that is the point
    assert not decoder.pending


# What is simply taken.


def test_messages_are_taken_in_their_order() -> None:
    decoder = Decoder(masked=False, max_size=None)
    decoder.queue.extend(["a", b"bc"], 3)
    assert (decoder.take(), decoder.take(), decoder.take()) == ("a", b"bc", None)
    assert (decoder.queue.size, decoder.queue.taken) == (0, 2)


def test_none_is_taken_while_the_queue_is_held() -> None:
    decoder = Decoder(masked=False, max_size=None)
    decoder.queue.append("a")
    decoder.queue.held = True
    assert decoder.take() is None
    decoder.queue.held = False
    assert decoder.take() == "a"


def test_no_more_are_taken_than_calls_are_left() -> None:
    decoder = Decoder(masked=False, max_size=None)
    decoder.queue.extend(["a", "b", "c"], 3)
    decoder.queue.calls_left = 2
    assert drain(decoder) == ["a", "b"]
    assert decoder.queue.calls_left == 0
    decoder.queue.calls_left = 1
    assert drain(decoder) == ["c"]


def test_the_one_that_brings_it_to_the_low_mark_is_left_while_reading_is_paused() -> None:
    decoder = full_decoder(ONE * 4)
    assert not decoder.pending
    assert drain(decoder) == ["1", "1"]
    assert (len(decoder.queue), decoder.queue.starved) == (2, False)
    decoder.queue.paused = False
    assert drain(decoder) == ["1", "1"]


def test_low_is_at_both_marks() -> None:
    decoder = full_decoder(frame(TEXT, b"a" * 10) * 4)
    decoder.queue.low_bytes = 5
    assert drain(decoder) == ["a" * 10] * 3  # one more of 10 bytes is over the mark for bytes
    assert len(decoder.queue) == 1


# Replenishing.


@pytest.mark.parametrize("masked", [False, True])
def test_queue_is_filled_again_at_its_low_mark(masked: bool) -> None:
    texts = [str(number) for number in range(10)]
    key = MASK if masked else None
    stream = b"".join(frame(TEXT, text.encode(), mask=key) for text in texts)
    decoder = full_decoder(stream, masked=masked)
    assert (decoder.message_count, len(decoder.queue)) == (4, 4)
    assert [decoder.take(), decoder.take(), decoder.take()] == texts[:3]
    # 1 was left, to which 3 have come.
    assert (decoder.message_count, len(decoder.queue), decoder.pending) == (7, 4, True)
    assert decoder.payload_size == 7
    assert not decoder.queue.starved
    assert drain(decoder) == texts[3:8]  # now all have come, and that is not simple any more
    assert (decoder.message_count, len(decoder.queue), decoder.pending) == (10, 2, False)
    assert decoder.feed(b"") == []


@pytest.mark.parametrize("payload", [b"", b"x", b"y" * 125, "\N{SNOWMAN}".encode()], ids=repr)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_all_short_messages_fill_it(opcode: int, payload: bytes) -> None:
    decoder = full_decoder(ONE * 4 + frame(opcode, payload) * 6)
    message = payload.decode() if opcode == TEXT else payload
    assert drain(decoder)[:5] == ["1"] * 4 + [message]
    assert decoder.message_count == 10
    assert decoder.payload_size == 4 + 6 * len(payload)


@pytest.mark.parametrize("masked", [False, True])
def test_no_message_is_under_way_after_it_is_filled(masked: bool) -> None:
    key = MASK if masked else None
    half = frame(TEXT, b"half", fin=False, mask=key)
    decoder = full_decoder(frame(TEXT, b"1", mask=key) * 7 + half, masked=masked)
    assert drain(decoder) == ["1"] * 5
    assert decoder.feed(b"") == []
    assert decoder.feed(frame(CONT, b" and half", mask=key)) == ["half and half"]


def test_peaks_are_those_behind_the_message_that_leaves() -> None:
    decoder = full_decoder(ONE * 4 + frame(BINARY, bytes(100)) * 4)
    decoder.queue.calls_left = 3
    drain(decoder)
    assert (decoder.queue.peak_count, decoder.queue.peak_size) == (4, 301)


def test_bytes_fill_it_too() -> None:
    decoder = full_decoder(ONE * 4 + frame(BINARY, bytes(100)) * 4)
    decoder.queue.high_bytes = 150
    decoder.queue.low_bytes = 60
    assert [decoder.take() for _ in range(3)] == ["1"] * 3
    assert (len(decoder.queue), decoder.queue.size) == (3, 201)


@pytest.mark.parametrize(
    "behind",
    [
        b"",
        b"\x81",
        b"\x81\x05abc",
        frame(PING, b"ping"),
        frame(TEXT, b"a" * 126),
        frame(TEXT, b"a", fin=False),
        frame(TEXT, b"\xff"),
        frame(TEXT, b"a", rsv=4),
        frame(TEXT, b"a", mask=MASK),
        frame(TEXT, b"too large"),
        frame(CONT, b"a"),
    ],
    ids=repr,
)
def test_all_else_is_left_to_feed(behind: bytes) -> None:
    stream = ONE * 5 + behind
    decoder = full_decoder(stream, max_size=5 if b"large" in behind else None)
    assert drain(decoder) == ["1", "1"]
    # One has come, which does not fill it: so more is to be done than to take one out.
    queue = decoder.queue
    assert (len(queue), queue.starved, decoder.pending) == (3, True, bool(behind))
    assert decoder.take() is None
    queue.starved = queue.paused = False
    reference = Decoder(masked=False, max_size=5 if b"large" in behind else None)
    assert [*drain(decoder), *decoder.feed(b"")] == reference.feed(stream)[2:]
    assert decoder.message_count == reference.message_count


def test_fragment_over_its_limit_is_left_to_feed() -> None:
    decoder = Decoder(masked=False, max_size=None, max_fragment_size=5)
    queue = decoder.queue
    queue.high_messages, queue.low_messages, queue.replenishes = 2, 1, True
    queue.extend(decoder.feed(ONE * 2 + frame(TEXT, b"123456"), None, 2), 2)  # type: ignore[arg-type]  # messages
    queue.paused = True
    assert decoder.take() is None
    assert queue.starved
    (failure,) = decoder.feed(b"")
    assert isinstance(failure, Failure)
    assert failure.reason == "fragment of 6 bytes exceeds the limit of 5 bytes"


def test_chunk_is_let_go_once_all_of_it_is_decoded() -> None:
    stream = b"".join([ONE] * 6)
    before = sys.getrefcount(stream)
    decoder = full_decoder(stream)
    assert sys.getrefcount(stream) == before + 1
    drain(decoder)
    assert not decoder.pending
    assert sys.getrefcount(stream) == before


def test_nothing_fills_it_where_its_owner_wants_to_see_all() -> None:
    decoder = full_decoder(ONE * 10)
    decoder.queue.replenishes = False
    assert drain(decoder) == ["1", "1"]
    assert (decoder.message_count, decoder.queue.starved) == (4, False)


def test_nothing_fills_it_where_fragments_are_asked_for() -> None:
    decoder = full_decoder(ONE * 10)
    decoder.fragments = True
    assert drain(decoder) == ["1", "1"]
    assert decoder.feed(b"", None, 1) == [Fragment("1", fin=True)]


def test_nothing_fills_it_in_the_middle_of_a_message() -> None:
    decoder = full_decoder(ONE * 4 + frame(TEXT, b"a", fin=False) + frame(PING, b"") * 2000)
    events = decoder.feed(b"", None, 1)  # so many control frames that it stops behind a thousand
    assert events[0] == Ping(b"")
    assert decoder.pending
    assert drain(decoder) == ["1", "1"]
    assert not decoder.queue.starved


def test_queue_whose_marks_are_equal_is_filled_by_each_that_leaves() -> None:
    decoder = full_decoder(ONE * 6, 2, 2)
    seen = [(decoder.take(), len(decoder.queue)) for _ in range(4)]
    assert seen == [("1", 2)] * 4
    assert (decoder.take(), decoder.queue.peak_count) == (None, 2)


def test_queue_that_is_full_behind_the_one_that_leaves_is_not_filled() -> None:
    decoder = full_decoder(ONE * 6, 2, 2)
    decoder.queue.append("late")
    assert decoder.take() == "1"
    assert (len(decoder.queue), decoder.message_count) == (2, 2)


# The iteration.


class Waiting(Exception):
    """Comes out of what an iterator gives where there is no message."""


async def waiting() -> Data:
    """Be what waits for a message."""
    raise Waiting


def run(awaitable: Coroutine[Any, Any, Data]) -> Data:
    """Run what does not wait."""
    try:
        awaitable.send(None)
    except StopIteration as stop:
        message: Data = stop.value
        return message
    raise AssertionError("it waits")


async def following(messages: AsyncIterator[Data]) -> Data:
    return await anext(messages)


async def following_or(messages: AsyncIterator[Data], default: Data) -> Data:
    return await anext(messages, default)


def test_iterator_is_one() -> None:
    decoder = Decoder(masked=False, max_size=None)
    messages = decoder.iterate(waiting)
    assert aiter(messages) is messages


def test_iterator_gives_what_waits_and_then_waits() -> None:
    decoder = Decoder(masked=False, max_size=None)
    decoder.queue.extend(["a", b"b"], 2)
    seen = []

    async def iterate() -> Data:
        async for message in decoder.iterate(waiting):
            seen.append(message)  # noqa: PERF401  # what waits ends it by an error
        raise AssertionError("it has ended")

    with pytest.raises(Waiting):
        run(iterate())
    assert seen == ["a", b"b"]


def test_iterator_waits_where_none_may_be_simply_taken() -> None:
    decoder = full_decoder(ONE * 4)
    messages = decoder.iterate(waiting)
    assert [run(following(messages)), run(following(messages))] == ["1", "1"]
    with pytest.raises(Waiting):
        run(following(messages))
    decoder.queue.paused = False
    decoder.queue.calls_left = 1
    assert run(following(messages)) == "1"
    with pytest.raises(Waiting):
        run(following(messages))
    decoder.queue.calls_left = 1
    decoder.queue.held = True
    with pytest.raises(Waiting):
        run(following(messages))


def test_iterator_waits_where_reading_is_to_go_on_first() -> None:
    decoder = full_decoder(ONE * 5)
    messages = decoder.iterate(waiting)
    assert [run(following(messages)), run(following(messages))] == ["1", "1"]
    with pytest.raises(Waiting):
        run(following(messages))
    assert decoder.take() is None
    assert (len(decoder.queue), decoder.queue.starved) == (3, True)
    with pytest.raises(Waiting):
        run(following(messages))


def test_what_the_iterator_gives_are_coroutines_of_their_own() -> None:
    decoder = Decoder(masked=False, max_size=None)
    decoder.queue.extend(["a", "b", "c"], 3)
    messages = decoder.iterate(waiting)
    for _ in range(2):  # nobody has what was given before
        unused: Any = anext(messages)
        unused.close()
        del unused
    first: Any = anext(messages)
    second: Any = anext(messages)
    assert isinstance(first, Coroutine)
    assert first is not second
    assert [run(first), run(second)] == ["a", "b"]
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        run(first)
    assert run(following(messages)) == "c"


def test_iterator_is_no_plain_one() -> None:
    decoder = Decoder(masked=False, max_size=None)
    decoder.queue.append("a")
    with pytest.raises(TypeError):
        list(decoder.iterate(waiting))  # type: ignore[call-overload]  # that is the point
    assert decoder.take() == "a"


def test_message_stays_when_what_gives_it_is_cancelled_or_closed_before() -> None:
    decoder = Decoder(masked=False, max_size=None)
    decoder.queue.append("a")
    messages = decoder.iterate(waiting)
    given: Any = anext(messages)
    with pytest.raises(OSError, match="mine"):
        given.throw(OSError("mine"))
    with pytest.raises(RuntimeError):
        run(given)
    given = anext(messages)
    assert given.close() is None
    with pytest.raises(RuntimeError):
        run(given)
    assert decoder.take() == "a"


@coroutine
def suspended(seen: list[Any]) -> Generator[Any, Any, Data]:
    """Be what waits: give 1, note what comes, and give "message"."""
    try:
        seen.append((yield 1))
    except BaseException as exc:
        seen.append(type(exc))
        raise
    return "message"


def late(decoder: Any, seen: list[Any]) -> Any:
    """Give what an iterator gives for a message that goes before it is awaited."""
    decoder.queue.append("gone")
    given = anext(decoder.iterate(lambda: suspended(seen)))
    assert decoder.take() == "gone"
    return given


def test_what_waits_after_all_is_a_coroutine_too() -> None:
    decoder = Decoder(masked=False, max_size=None)
    seen: list[Any] = []
    given = late(decoder, seen)
    assert given.send(None) == 1
    with pytest.raises(StopIteration) as stop:
        given.send("sent")
    assert (stop.value.value, seen) == ("message", ["sent"])
    seen.clear()
    given = late(decoder, seen)
    assert given.send(None) == 1
    with pytest.raises(OSError, match="mine"):
        given.throw(OSError("mine"))
    assert seen == [OSError]
    seen.clear()
    given = late(decoder, seen)
    assert given.send(None) == 1
    given.close()
    assert seen == [GeneratorExit]


def test_what_waits_after_all_is_waited_for_by_who_asks_as_an_iterator() -> None:
    decoder = Decoder(masked=False, max_size=None)
    seen: list[Any] = []
    wrapped = late(decoder, seen).__await__()
    assert next(wrapped) == 1
    with pytest.raises(StopIteration) as stop:
        next(wrapped)
    assert (stop.value.value, seen) == ("message", [None])


def test_cycles_through_an_iterator_are_collected() -> None:
    class Owner(Deflate):
        messages: AsyncIterator[Data]

        async def wait(self) -> Data:
            raise Waiting

    def cycle(inflate: bool) -> weakref.ref[Owner]:
        owner = Owner(())
        decoder = Decoder(masked=False, max_size=None, inflate=owner if inflate else None)
        decoder.queue.append("a")
        owner.messages = decoder.iterate(waiting if inflate else owner.wait)
        run(following(owner.messages))
        return weakref.ref(owner)

    owners = [cycle(inflate=True), cycle(inflate=False)]
    gc.collect()
    assert [owner() for owner in owners] == [None, None]


def test_iterator_ends_where_what_waits_says_so() -> None:
    async def over() -> Data:
        raise StopAsyncIteration

    messages = Decoder(masked=False, max_size=None).iterate(over)
    with pytest.raises(StopAsyncIteration):
        run(following(messages))
    assert run(following_or(messages, "default")) == "default"


def test_default_is_not_taken_where_there_is_a_message() -> None:
    decoder = Decoder(masked=False, max_size=None)
    decoder.queue.append("a")
    assert run(following_or(decoder.iterate(waiting), "default")) == "a"


def test_message_stays_when_what_gives_it_is_not_awaited() -> None:
    decoder = Decoder(masked=False, max_size=None)
    decoder.queue.append("a")
    awaitable: Any = anext(decoder.iterate(waiting))
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()  # a coroutine would complain
    assert decoder.take() == "a"


def test_iterator_waits_when_the_message_goes_before_it_is_awaited() -> None:
    decoder = Decoder(masked=False, max_size=None)
    decoder.queue.append("a")
    messages = decoder.iterate(waiting)

    async def follow(awaitable: Any) -> Data:
        message: Data = await awaitable
        return message

    awaitable = follow(anext(messages))
    assert decoder.take() == "a"
    with pytest.raises(Waiting):
        run(awaitable)


def test_iterator_gives_messages_under_a_tracer() -> None:
    decoder = Decoder(masked=False, max_size=None)
    decoder.queue.extend(["a", b"b"], 2)
    messages = decoder.iterate(waiting)
    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        seen = [run(following(messages)), run(following(messages))]
    finally:
        sys.settrace(before)
    assert seen == ["a", b"b"]


def test_error_of_what_waits_is_that_of_the_iteration() -> None:
    def broken() -> Any:
        raise OSError("mine")

    messages = Decoder(masked=False, max_size=None).iterate(broken)
    with pytest.raises(OSError, match="mine"):
        run(following(messages))
