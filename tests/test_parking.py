"""The place where one task waits for a callback."""

from __future__ import annotations

import anyio
import pytest
from anyio import CancelScope, create_task_group, fail_after

from anyws._parking import AsyncioParking, TrioParking, make_parking
from tests.blocks import park, settle

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def test_each_backend_has_its_own(anyio_backend_name: str) -> None:
    kind = TrioParking if anyio_backend_name == "trio" else AsyncioParking
    assert type(make_parking()) is kind


async def test_task_waits_until_it_is_woken_and_may_wait_again() -> None:
    parking = make_parking()
    turns: list[int] = []

    async def wait() -> None:
        for turn in range(3):
            await parking.park()
            turns.append(turn)

    with fail_after(5):
        async with create_task_group() as tg:
            tg.start_soon(wait)
            for turn in range(3):
                await settle()
                assert turns == list(range(turn))
                parking.wake()


async def test_waking_again_or_nobody_has_no_effect() -> None:
    parking = make_parking()
    parking.wake()
    woken = 0

    async def wait() -> None:
        nonlocal woken
        await parking.park()
        woken += 1
        await parking.park()

    async with create_task_group() as tg:
        tg.start_soon(wait)
        await settle()
        parking.wake()
        parking.wake()
        await settle()
        assert woken == 1
        tg.cancel_scope.cancel()


@pytest.mark.parametrize("wake_first", [True, False])
async def test_cancellation_and_waking_at_once_leave_it_usable(wake_first: bool) -> None:
    parking = make_parking()
    with CancelScope() as scope:
        async with create_task_group() as tg:
            tg.start_soon(park, parking)
            await settle()
            if wake_first:
                parking.wake()
            scope.cancel()
            parking.wake()
    parking.wake()
    with fail_after(5):
        async with create_task_group() as tg:
            tg.start_soon(park, parking)
            await anyio.sleep(1)
            parking.wake()
