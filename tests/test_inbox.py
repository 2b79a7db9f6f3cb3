"""Who waits for a message, by itself; what waits for him is tested in sansio/test_pycodec_queue."""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import create_task_group

from anyws._fairness import MAX_CALLS_WITHOUT_YIELD
from anyws._inbox import Inbox
from anyws.exceptions import ConcurrencyError
from anyws.sansio._codec import Decoder

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
    return Inbox(Decoder(masked=False, max_size=None).queue, (None, None), (None, None))


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
        assert inbox.queue.head == "late"

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
        inbox.queue.popleft()
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
                inbox.queue.popleft()
        assert calls == MAX_CALLS_WITHOUT_YIELD
        assert len(inbox.queue) == 1

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
        inbox.queue.calls_left = inbox.fairness.sends.left = 0
        assert await interrupted(inbox.ready(), lambda: put(inbox))
        assert inbox.queue.head == "a"

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
            inbox.queue.popleft()
        with anyio.CancelScope() as scope:
            scope.cancel()
            while inbox.queue:
                await inbox.ready()
                inbox.queue.popleft()
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
        inbox = unlimited()
        async with create_task_group() as tasks:
            tasks.start_soon(inbox.ready)
            await anyio.sleep(1)
            assert inbox.queue.held
            inbox.put("a")
            assert inbox.queue.held
        assert not inbox.queue.held

    async def test_nothing_is_simply_taken_out_while_somebody_waits_for_fragments(self) -> None:
        inbox = unlimited()
        inbox.hold(streaming=True)
        async with create_task_group() as tasks:
            tasks.start_soon(inbox.ready)
            await anyio.sleep(1)
            inbox.hold(streaming=False)
            assert inbox.queue.held
            inbox.hold(streaming=True)
            inbox.put("a")
        assert inbox.queue.held
        inbox.hold(streaming=False)
        assert not inbox.queue.held

    async def test_a_cancelled_wait_loses_nothing_and_can_be_repeated(self) -> None:
        inbox = unlimited()
        with anyio.move_on_after(1) as scope:
            await inbox.ready()
        assert scope.cancelled_caught
        inbox.put("a")
        assert await inbox.ready()
        assert inbox.queue.head == "a"

    async def test_a_message_stays_when_the_wait_for_it_is_cancelled_as_it_comes(self) -> None:
        inbox = unlimited()
        with anyio.CancelScope() as scope:
            async with create_task_group() as tasks:
                tasks.start_soon(inbox.ready)
                await anyio.sleep(1)
                inbox.put("a")
                scope.cancel()
        assert await inbox.ready()
        assert inbox.queue.head == "a"


async def _put_later(inbox: Inbox) -> None:
    await anyio.sleep(1)
    inbox.put("late")


async def _close_later(inbox: Inbox) -> None:
    await anyio.sleep(1)
    inbox.close()
