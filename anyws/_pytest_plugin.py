"""The pytest fixtures `ws_pair` and `ws_server`, for whoever has anyws installed.

Owns the fixtures alone; what they give stands in `anyws.testing`, which is imported when one is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .testing import connection_pair, memory_server


@pytest.fixture
def ws_pair() -> Callable[..., connection_pair]:
    """Give `connection_pair`: `async with ws_pair(max_size=100) as (client, server)`."""
    from .testing import connection_pair

    return connection_pair


@pytest.fixture
def ws_server() -> Callable[..., memory_server]:
    """Give `memory_server`: `async with ws_server(handler) as connect`."""
    from .testing import memory_server

    return memory_server
