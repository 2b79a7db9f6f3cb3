"""The queue between the decoder and recv(), by itself."""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import create_task_group

from anyws._inbox import MAX_CALLS_WITHOUT_YIELD, Inbox
from anyws._types import Fragment
from anyws.exceptions import ConcurrencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator


@coroutine
def interrupted(
    call: Coroutine[Any, Any, bool], act: Callable[[], object]
) -> Generator[Any, Any, bool]:
    """Run `call`, and `act` where it yields to the event loop for the first time."""
    wanted = call.send(None)
    act()
    try:
        while True:
            sent = yield wanted
            wanted = call.send(sent)
    except StopIteration as end:
        return bool(end.value)


def unlimited() -> Inbox:
    return Inbox((None, None), (None, None))


# What it holds.


def test_messages_leave_in_their_order() -> None:
    inbox = unlimited()
    for message in ("a", b"b", Fragment("c", fin=False)):
        inbox.put(message)
    seen = []
    while inbox:
        seen.append(inbox.head)
        inbox.pop()
    assert seen == ["a", b"b", Fragment("c", fin=False)]


def test_head_stays_until_it_is_popped() -> None:
    inbox = unlimited()
    inbox.put("a")
    assert (inbox.head, inbox.head, len(inbox)) == ("a", "a", 1)


def test_nothing_makes_it_full_when_there_are_no_marks() -> None:
    inbox = unlimited()
    for _ in range(1000):
        inbox.put(bytes(1000))
    assert not inbox.full
    assert inbox.low


def test_many_messages_are_put_at_once_in_their_order() -> None:
    inbox = unlimited()
    inbox.put("a")
    inbox.put_all(["b", b"cd"], 3)
    assert (list(inbox.messages), inbox.size) == (["a", "b", b"cd"], 4)


@pytest.mark.parametrize(
    "message",
    [b"1234", "1234", "\N{SNOWMAN}" * 4, Fragment(b"1234", fin=True), Fragment("1234", fin=False)],
    ids=repr,
)
def test_size_counts_bytes_and_characters(message: str | bytes | Fragment) -> None:
    inbox = unlimited()
    for _ in range(3):
        inbox.put(message)
    assert inbox.size == 12
    inbox.pop()
    assert inbox.size == 8


@pytest.mark.parametrize(
    "inbox", [Inbox((2, 1), (None, None)), Inbox((None, None), (20, 10)), Inbox((2, 1), (20, 10))]
)
def test_full_begins_at_a_high_mark_and_low_at_the_low_marks(inbox: Inbox) -> None:
    states = []
    for _ in range(2):
        states.append((inbox.full, inbox.low))
        inbox.put(bytes(10))
    states.append((inbox.full, inbox.low))
    inbox.pop()
    states.append((inbox.full, inbox.low))
    inbox.pop()
    states.append((inbox.full, inbox.low))
    assert states == [(False, True), (False, True), (True, False), (False, True), (False, True)]


def test_full_when_one_message_is_over_the_byte_mark() -> None:
    inbox = Inbox((32, 8), (10, 5))
    inbox.put(bytes(1000))
    assert inbox.full


@pytest.mark.parametrize(
    ("sizes", "low"),
    [([0, 0], False), ([6], False), ([5], True)],
    ids=["too-many", "too-large", "neither"],
)
def test_low_needs_both_marks(sizes: list[int], low: bool) -> None:
    inbox = Inbox((4, 1), (10, 5))
    for size in sizes:
        inbox.put(bytes(size))
    assert inbox.low is low


# Who waits.


@pytest.mark.anyio
@pytest.mark.virtual_time
class TestWaiting:
    async def test_ready_is_true_at_once_when_a_message_is_there(self) -> None:
        inbox = unlimited()
        inbox.put("a")
        assert await inbox.ready()

    async def test_ready_waits_until_a_message_is_put(self) -> None:
        inbox = unlimited()
        async with create_task_group() as tasks:
            tasks.start_soon(_put_later, inbox)
            assert await inbox.ready()
        assert inbox.head == "late"

    async def test_ready_is_false_when_it_is_closed_while_waiting(self) -> None:
        inbox = unlimited()
        async with create_task_group() as tasks:
            tasks.start_soon(_close_later, inbox)
            assert not await inbox.ready()

    async def test_ready_is_false_when_it_was_closed_empty(self) -> None:
        inbox = unlimited()
        inbox.close()
        assert not await inbox.ready()

    async def test_ready_is_true_when_it_was_closed_with_a_message(self) -> None:
        inbox = unlimited()
        inbox.put("a")
        inbox.close()
        assert await inbox.ready()
        inbox.pop()
        assert not await inbox.ready()

    async def test_ready_yields_after_so_many_calls_in_a_row(self) -> None:
        inbox = unlimited()
        for _ in range(MAX_CALLS_WITHOUT_YIELD + 1):
            inbox.put("a")
        calls = 0
        with anyio.CancelScope() as scope:
            scope.cancel()
            while True:
                await inbox.ready()
                calls += 1
                inbox.pop()
        assert calls == MAX_CALLS_WITHOUT_YIELD
        assert len(inbox) == 1

    @pytest.mark.parametrize(
        "put",
        [
            lambda inbox: inbox.put("b"),
            lambda inbox: inbox.put_all(["b"], 1),
            lambda inbox: inbox.put_messages(["b"]),
            Inbox.close,
        ],
        ids=["put", "put_all", "put_messages", "close"],
    )
    async def test_all_may_be_put_while_ready_yields_that_never_had_to_wait(
        self, put: Callable[[Inbox], object]
    ) -> None:
        inbox = unlimited()
        inbox.put("a")
        inbox.calls_left = 0
        assert await interrupted(inbox.ready(), lambda: put(inbox))
        assert inbox.head == "a"

    async def test_ready_yields_after_so_many_calls_in_a_row_when_it_is_closed(self) -> None:
        inbox = unlimited()
        inbox.close()
        calls = 0
        with anyio.CancelScope() as scope:
            scope.cancel()
            while True:
                await inbox.ready()
                calls += 1
        assert calls == MAX_CALLS_WITHOUT_YIELD

    async def test_a_wait_gives_all_the_calls_back(self) -> None:
        inbox = unlimited()
        calls = 2 * MAX_CALLS_WITHOUT_YIELD
        for _ in range(calls + 1):
            inbox.put("a")
        for _ in range(MAX_CALLS_WITHOUT_YIELD + 1):
            await inbox.ready()
            inbox.pop()
        with anyio.CancelScope() as scope:
            scope.cancel()
            while inbox:
                await inbox.ready()
                inbox.pop()
        assert not scope.cancelled_caught

    async def test_a_second_waiter_is_refused_and_the_first_waits_on(self) -> None:
        inbox = unlimited()
        answers = []

        async def wait() -> None:
            answers.append(await inbox.ready())

        async with create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(1)
            with pytest.raises(ConcurrencyError):
                await inbox.ready()
            with pytest.raises(ConcurrencyError):
                inbox.check_not_receiving()
            inbox.put("a")
        assert answers == [True]
        inbox.check_not_receiving()

    async def test_nothing_is_simply_taken_out_while_somebody_waits(self) -> None:
        inbox = Inbox((20, 1), (None, None))
        async with create_task_group() as tasks:
            tasks.start_soon(inbox.ready)
            await anyio.sleep(1)
            inbox.put_all(["a"] * 20, 20)
            assert len(inbox) <= inbox.floor
            inbox.hold(streaming=False, paused=True)
            assert len(inbox) <= inbox.floor
        inbox.hold(streaming=False, paused=False)
        assert len(inbox) > inbox.floor

    async def test_nothing_is_simply_taken_out_while_somebody_waits_for_fragments(self) -> None:
        inbox = unlimited()
        inbox.hold(streaming=True, paused=False)
        async with create_task_group() as tasks:
            tasks.start_soon(inbox.ready)
            await anyio.sleep(1)
            inbox.put("a")
            assert len(inbox) <= inbox.floor
        assert len(inbox) <= inbox.floor

    async def test_a_cancelled_wait_loses_nothing_and_can_be_repeated(self) -> None:
        inbox = unlimited()
        with anyio.move_on_after(1) as scope:
            await inbox.ready()
        assert scope.cancelled_caught
        inbox.put("a")
        assert await inbox.ready()
        assert inbox.head == "a"

    async def test_a_message_stays_when_the_wait_for_it_is_cancelled_as_it_comes(self) -> None:
        inbox = unlimited()
        with anyio.CancelScope() as scope:
            async with create_task_group() as tasks:
                tasks.start_soon(inbox.ready)
                await anyio.sleep(1)
                inbox.put("a")
                scope.cancel()
        assert await inbox.ready()
        assert inbox.head == "a"


async def _put_later(inbox: Inbox) -> None:
    await anyio.sleep(1)
    inbox.put("late")


async def _close_later(inbox: Inbox) -> None:
    await anyio.sleep(1)
    inbox.close()
