"""The pytest fixtures `ws_pair` and `ws_server`, for whoever has anyws installed.

Owns the fixtures alone; what they give stands in `anyws.testing`, which is imported when one is
used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .testing import connection_pair, memory_server


@pytest.fixture
def ws_pair() -> Callable[..., connection_pair]:
    """Give what opens two connected connections, as `anyws.testing.connection_pair`."""
    from .testing import connection_pair  # noqa: PLC0415  # pytest imports this module at each start

    return connection_pair


@pytest.fixture
def ws_server() -> Callable[..., memory_server]:
    """Give what serves in memory, as `anyws.testing.memory_server`."""
    from .testing import memory_server  # noqa: PLC0415  # likewise

    return memory_server
