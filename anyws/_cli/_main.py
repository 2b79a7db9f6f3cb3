"""The way from arguments to an exit status.

Owns the choice of the command, of the event loop, and of how to talk: on a terminal or in a pipe.
"""

from __future__ import annotations

import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

import anyio

from ._arguments import BenchArguments, ServeArguments, backend_of, parse_arguments
from ._bench import bench
from ._connecting import run_connected
from ._formatting import complain
from ._pipe import Pipe
from ._serve import serve
from ._session import talk_on_terminal
from ._statuses import FAILED, SIGNALLED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._connection import Connection
    from ._arguments import ClientArguments
    from ._connecting import Interruption


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit status.

    Raises:
        SystemExit: the arguments are wrong, or ask for help.
    """
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    if isinstance(arguments, ServeArguments):
        command = partial(serve, arguments)
    elif isinstance(arguments, BenchArguments):
        command = partial(bench, arguments)
    else:
        command = partial(_connect, arguments)
    backend, options = backend_of(arguments)
    try:
        return anyio.run(command, backend=backend, backend_options=options)
    except KeyboardInterrupt:
        return SIGNALLED + signal.SIGINT  # before signals were watched, or after


async def _connect(arguments: ClientArguments) -> int:
    if sys.stdin is None or sys.stdout is None:
        complain("standard input or output is closed; </dev/null is an empty input")
        return FAILED
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()

    async def talk(ws: Connection, interruption: Interruption) -> int | None:
        if on_terminal:
            await talk_on_terminal(ws, arguments, interruption)
            return None
        return await Pipe(
            ws,
            arguments,
            sys.stdin.fileno(),
            sys.stdout.fileno(),
            terminal=sys.stdout.isatty(),
        ).run()

    return await run_connected(arguments, talk, tells_end=on_terminal)
