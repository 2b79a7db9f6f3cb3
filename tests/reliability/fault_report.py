"""What came of a fault at each byte of a session: `python -m tests.reliability.fault_report`.

Owns how it is printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial

import anyio

from tests.conftest import backend_options
from tests.reliability.fault_links import faults
from tests.reliability.fault_matrix import (
    MEMORY_KINDS,
    TCP_KINDS,
    measure_session,
    measure_session_over_tcp,
    run_in_memory,
    run_over_tcp,
)
from tests.reliability.fault_session import SESSIONS, Tally


async def run_matrix(over: str, step: int) -> Tally:
    """Run all sessions in memory or over TCP."""
    tally = Tally()
    for session in SESSIONS:
        if over == "memory":
            sizes = await measure_session(session)
            tally.merge(await run_in_memory(session, faults(MEMORY_KINDS, sizes, step=step)))
        else:
            sizes = await measure_session_over_tcp(session)
            tally.merge(await run_over_tcp(session, faults(TCP_KINDS, sizes, step=step)))
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loops", nargs="+", default=["asyncio", "uvloop", "trio"])
    parser.add_argument("--over", nargs="+", choices=["memory", "tcp"], default=["memory", "tcp"])
    parser.add_argument("--step", type=int, default=1, help="bytes from one fault to the next")
    arguments = parser.parse_args()
    whole = Tally()
    for over in arguments.over:
        for loop in arguments.loops:
            backend, options = backend_options(loop, virtual=over == "memory")
            began = time.monotonic()
            tally = anyio.run(
                partial(run_matrix, over, arguments.step), backend=backend, backend_options=options
            )
            count, seconds = sum(tally.faults.values()), time.monotonic() - began
            print(f"{over} on {loop}: {count} faults in {seconds:.0f} s", flush=True)
            whole.merge(tally)
    print(f"faults injected: {sum(whole.faults.values())}")
    for kind, count in sorted(whole.faults.items()):
        print(f"    {kind:<12}{count:7}")
    print("outcomes, one for each side:")
    for outcome, count in sorted(whole.outcomes.items()):
        print(f"    {outcome:<40}{count:7}")
    print(f"messages delivered: {whole.delivered}")
    print(f"messages lost where no byte was: {whole.lost}")
    print(f"hangs: {whole.hangs}")
    print(f"rules broken: {len(whole.broken)}")
    for text in whole.broken:
        print(f"    {text}")
    sys.exit(bool(whole.broken))


if __name__ == "__main__":
    main()
