"""Owns the verdict of the Autobahn test suite, as the package kosoku has it, on both roles.

Each run is for one event loop. All cases of groups 1 to 10 run always, those of compression
(12 and 13) in a selection; all of them are `slow`: 1000 messages each, up to 128 KiB.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kosoku import FailureError, run_fuzzingclient, run_fuzzingserver

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence

    from kosoku._kosoku import CaseResult

    Run = Callable[..., Coroutine[None, None, list[CaseResult]]]

pytestmark = [
    pytest.mark.interop,
    # The suite leaves the files of its own test data open.
    pytest.mark.filterwarnings("ignore:unclosed file <_io:ResourceWarning"),
]

ECHO = Path(__file__).with_name("echo.py")

# What the suite itself says nothing about: data after a Close, and close codes over 4999.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}

# Cases at the same time. Most of them wait; those of compression want a core for each side, for the
# suite stops each after 20 seconds.
TASKS = 4

QUICK_GROUPS = ("1.*", "2.*", "3.*", "4.*", "5.*", "7.*", "10.*")
ALL_GROUPS = (*QUICK_GROUPS, "6.*", "9.*")
QUICK_COUNT, ALL_COUNT = 102, 301

# In these, the suite's server accepts no offer without client_no_context_takeover, though RFC 7692
# section 7.1.1.2 lets it answer with it unasked. Our default offer leaves it out, for it would be a
# promise to compress worse.
NO_CONTEXT_TAKEOVER_GROUPS = ("13.2", "13.5", "13.6")
COMPRESSION_GROUPS = (
    *("12.1", "12.2", "12.3", "12.4", "12.5"),
    *("13.1", "13.2", "13.3", "13.4", "13.5", "13.6", "13.7"),
)
SPREAD = ("12.1.1", "12.1.3", "12.2.2", "12.3.3", "12.4.4", "12.4.11", "12.5.2")
SPREAD_13 = ("13.1.1", "13.3.2", "13.4.3", "13.7.4")
SPREAD_NO_CONTEXT_TAKEOVER = ("13.2.1", "13.5.2", "13.6.3")


@asynccontextmanager
async def running_echo(*arguments: str) -> AsyncGenerator[Process, None]:
    """Run our side; leaving the block ends its stdin and sees that it has ended well."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(ECHO), *arguments),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
        _, errors = await process.communicate(b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert errors.decode() == ""
    assert process.returncode == 0


async def run_server(
    backend: str, cases: Sequence[str], tasks: int, *flags: str
) -> list[CaseResult]:
    """Let the suite's client loose on our server."""
    async with running_echo("serve", backend) as process:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        try:
            results = await run_fuzzingclient(f"ws://127.0.0.1:{port}", cases, concurrency=tasks)
        except FailureError as failure:
            results = failure.results
    return results


async def run_client(
    backend: str, cases: Sequence[str], tasks: int, *flags: str
) -> list[CaseResult]:
    """Let our client loose on the suite's server."""
    results: list[CaseResult] = []
    async with run_fuzzingserver(cases, port=0) as server:
        uri = f"ws://127.0.0.1:{server.port}"
        async with running_echo("drive", backend, uri, str(tasks), *flags):
            pass
        try:
            results = await server.get_result()
        except FailureError as failure:
            results = failure.results
    return results


both_roles = pytest.mark.parametrize(
    "run", [pytest.param(run_server, id="server"), pytest.param(run_client, id="client")]
)
on_asyncio_and_trio = pytest.mark.parametrize("backend", ["asyncio", "trio"])
on_all_loops = pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])


def faults(results: Sequence[CaseResult]) -> list[str]:
    """Say of each case that did not end as it best may how it did."""
    return [
        f"{result.case_id} {result.behavior.value}, close {result.behavior_close.value}:"
        f" {result.result} {result.result_close} ({result.duration} ms)"
        for result in results
        if (result.behavior.value, result.behavior_close.value)
        != (("INFORMATIONAL", "INFORMATIONAL") if result.case_id in INFORMATIONAL else ("OK", "OK"))
    ]


@both_roles
@on_asyncio_and_trio
def test_autobahn_cases_of_groups_1_to_10_pass(run: Run, backend: str) -> None:
    results = asyncio.run(run(backend, ALL_GROUPS, TASKS))
    assert faults(results) == []
    assert len(results) == ALL_COUNT


@both_roles
def test_autobahn_cases_of_quick_groups_pass_on_uvloop(run: Run) -> None:
    results = asyncio.run(run("uvloop", QUICK_GROUPS, TASKS))
    assert faults(results) == []
    assert len(results) == QUICK_COUNT


@both_roles
@on_all_loops
def test_autobahn_cases_of_compression_pass_in_a_selection(run: Run, backend: str) -> None:
    cases = (*SPREAD, *SPREAD_13)
    results = asyncio.run(run(backend, cases, TASKS))
    assert faults(results) == []
    assert [result.case_id for result in results] == list(cases)


@both_roles
@on_all_loops
def test_autobahn_cases_pass_when_context_takeover_is_refused(run: Run, backend: str) -> None:
    cases = SPREAD_NO_CONTEXT_TAKEOVER
    results = asyncio.run(run(backend, cases, TASKS, "no-context-takeover"))
    assert faults(results) == []
    assert [result.case_id for result in results] == list(cases)


@pytest.mark.slow
@pytest.mark.timeout(600)
@both_roles
@on_asyncio_and_trio
@pytest.mark.parametrize("group", COMPRESSION_GROUPS)
def test_all_autobahn_cases_of_compression_pass(run: Run, backend: str, group: str) -> None:
    flags = ["no-context-takeover"] if group in NO_CONTEXT_TAKEOVER_GROUPS else []
    results = asyncio.run(run(backend, [f"{group}.*"], 1, *flags))
    assert faults(results) == []
    assert len(results) == 18
