"""Conversations in every way, with options at their extremes: a few seeds of what `talks` searches.

Owns the choice of the seeds; `python -m tests.reliability.talks --seconds 600` tries more.
"""

from __future__ import annotations

import pytest

from tests.reliability.talks import MEMORY, SOCKETS, talk

pytestmark = pytest.mark.anyio

BEHAVIOURS = pytest.mark.behaviour(43, 46, 47, 52, 53, 55, 74, 75, 90)


@BEHAVIOURS
@pytest.mark.virtual_time
@pytest.mark.parametrize("kind", MEMORY)
@pytest.mark.parametrize("seed", range(6))
async def test_all_comes_in_order_and_each_talk_ends_in_memory(kind: str, seed: int) -> None:
    await talk(seed, kind)


@BEHAVIOURS
@pytest.mark.parametrize("kind", SOCKETS)
@pytest.mark.parametrize("seed", range(5))
async def test_all_comes_in_order_and_each_talk_ends_over_sockets(kind: str, seed: int) -> None:
    await talk(seed, kind)
