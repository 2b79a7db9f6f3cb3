"""Owns what all tests share: the three event loops, virtual time, and the search for leftovers.

Knows nothing of anyws but who compresses for it. A module that says
`pytestmark = pytest.mark.anyio` runs its coroutine tests on asyncio, on asyncio with uvloop and on
trio; one that adds `pytest.mark.virtual_time` runs them there in virtual time, for which its
streams must be in memory (see `clocks`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from trio.testing import MockClock

from anyws.sansio import _compressors
from tests import clocks

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

FDS = Path("/proc/self/fd")

# A deadline for each example would measure the machine, not the code.
hypothesis.settings.register_profile("anyws", deadline=None, print_blob=True)
hypothesis.settings.load_profile("anyws")

# A shell starts what runs in its background with interrupts ignored, and some tests send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Nor is a developer's proxy for servers on the loopback, in this process and those that it starts.
for _name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[_name]


def backend_options(name: str, *, virtual: bool) -> tuple[str, dict[str, Any]]:
    """Give an event loop as anyio's pytest plugin wants it: the backend and its options.

    Args:
        name: "asyncio", "uvloop" or "trio".
        virtual: whether its clock jumps to the next timer when nothing else runs.
    """
    if name == "trio":
        # A clock belongs to one run of trio, so each test gets its own.
        return "trio", {"clock": MockClock(autojump_threshold=0)} if virtual else {}
    if name == "uvloop":
        return "asyncio", (
            {"loop_factory": clocks.UvloopVirtualLoop} if virtual else {"use_uvloop": True}
        )
    return "asyncio", {"loop_factory": clocks.AsyncioVirtualLoop} if virtual else {}


@pytest.fixture(
    params=[
        "asyncio",
        pytest.param(
            "uvloop",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="uvloop has no Windows port"),
        ),
        "trio",
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Give each of the three event loops, in virtual time where the test is marked so."""
    virtual = request.node.get_closest_marker("virtual_time") is not None
    return backend_options(request.param, virtual=virtual)


@pytest.fixture
async def running_loop(anyio_backend_name: str) -> asyncio.AbstractEventLoop | None:
    """Give the asyncio event loop of the test; None on trio, where no task outlives its nursery."""
    return asyncio.get_running_loop() if anyio_backend_name == "asyncio" else None


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves an asyncio task or an open socket behind."""
    loop: asyncio.AbstractEventLoop | None = None
    if "anyio_backend" in request.fixturenames:
        # Asked for here, it is torn down after this fixture: the loop is still there below.
        loop = request.getfixturevalue("running_loop")
    tasks_before = set() if loop is None else asyncio.all_tasks(loop)
    sockets_before = open_sockets()
    yield
    tasks = set() if loop is None else asyncio.all_tasks(loop) - tasks_before
    if loop is not None:
        # A closed asyncio transport gives its socket back in the loop's next turn.
        loop.run_until_complete(asyncio.sleep(0))
    sockets = open_sockets() - sockets_before
    if sockets:
        # Whatever has no owner any more is a ResourceWarning, so an error of its own.
        gc.collect()
        sockets = open_sockets() - sockets_before
    assert not tasks, f"tasks left behind: {tasks}"
    assert not sockets, f"sockets left open: {sockets}"


def open_sockets() -> set[str]:
    """Give the inodes of this process's open sockets; the empty set where there is no /proc."""
    if not FDS.exists():
        return set()
    names = set()
    for fd in FDS.iterdir():
        # The descriptor by which the folder itself is read is gone by now.
        with contextlib.suppress(FileNotFoundError):
            names.add(str(fd.readlink()))
    return {name for name in names if name.startswith("socket:")}


# Of a whole module: a fixture of each example would make hypothesis complain.
@pytest.fixture(scope="module", params=["zlib", "isal"])
def deflate_backend(request: pytest.FixtureRequest) -> Generator[str, None, None]:
    """Let one of the two compress where a test does not say who; both are installed for tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compressors, "DEFAULT_BACKEND", request.param)
        yield request.param
