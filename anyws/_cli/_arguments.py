"""The arguments of the three commands, and the texts of `--help`.

Owns their syntax; opens nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from typing import TYPE_CHECKING, Any, NoReturn

from .._version import __version__
from . import _statuses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DESCRIPTION = """\
Connect to a WebSocket server.

On a terminal, lines that you type are sent as messages, and messages that
arrive appear above them; /help lists the commands. In a pipe, each line of the
input is sent as a message, and each message that arrives is a line of the
output; everything else goes to stderr.
"""

_EPILOG = f"""\
examples:
  anyws ws://localhost:8765/
  echo hello | anyws --count 1 ws://localhost:8765/
  anyws --no-close ws://localhost:8765/ </dev/null >log
  anyws --binary --whole --count 1 ws://localhost:8765/ <photo.jpg >answer

other commands:
  anyws serve       an echo or broadcast server; see anyws serve --help
  anyws bench URI   a small load test; see anyws bench --help

{_statuses.TABLE}
A Binary message is a line of hexadecimal digits in the output, unless --binary
is given. A Text message with line ends takes several lines.
"""

_SERVE_DESCRIPTION = """\
Serve: send each message back, or to all who are connected. Ctrl-C or SIGTERM
closes the connections with 1001; a second one does not wait for them.
"""

_BENCH_DESCRIPTION = """\
Measure an echo server with a small load. The figures are those of the client
and of the server together: where both run on one machine, they share it.
"""

# The load stays one that a laptop takes, and that no server takes for an attack.
MAX_CONNECTIONS = 1000
MAX_SECONDS = 600.0
MAX_MESSAGES = 10_000_000
MAX_WINDOW = 1000
MAX_PAYLOAD_SIZE = 2**20


class ConnectArguments(argparse.Namespace):
    """What `anyws URI` and `anyws bench URI` have in common."""

    uri: str
    headers: list[tuple[str, str]]
    subprotocols: list[str]
    origin: str | None
    insecure: bool
    cacert: str | None
    proxy: str | None
    max_size: int
    no_compression: bool
    close_timeout: float
    timeout: float | None
    backend: str


class ClientArguments(ConnectArguments):
    """What `anyws URI` is told."""

    verbose: bool
    form: str
    whole: bool
    count: int | None
    no_close: bool


class ServeArguments(argparse.Namespace):
    """What `anyws serve` is told."""

    host: str
    port: int
    broadcast: bool
    path: str | None
    origins: list[str]
    certfile: str | None
    keyfile: str | None
    max_size: int
    no_compression: bool
    backend: str


class BenchArguments(ConnectArguments):
    """What `anyws bench URI` is told."""

    connections: int
    messages: int
    seconds: float | None
    size: int
    window: int
    json: bool


Arguments = ClientArguments | ServeArguments | BenchArguments


class _Parser(argparse.ArgumentParser):
    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument(
            "--backend",
            choices=["asyncio", "uvloop", "trio"],
            default="asyncio",
            help="the event loop to run on (default: asyncio)",
        )
        self.add_argument("--version", action="version", version=f"anyws {__version__}")


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Parse the arguments of the command line.

    Raises:
        SystemExit: they are wrong (2), or ask for help or the version (0).
    """
    arguments: Arguments
    if argv[:1] == ["serve"]:
        parser = _serve_parser()
        arguments = parser.parse_args(argv[1:], namespace=ServeArguments())
        if arguments.keyfile and not arguments.certfile:
            parser.error("--keyfile needs --certfile")
    elif argv[:1] == ["bench"]:
        parser = _bench_parser()
        arguments = parser.parse_args(argv[1:], namespace=BenchArguments())
    else:
        parser = _client_parser()
        arguments = parser.parse_args(argv, namespace=ClientArguments())
        if arguments.whole and arguments.form == "hex":
            parser.error("--whole sends the input as it is: it does not go with --hex")
    if arguments.backend != "asyncio" and importlib.util.find_spec(arguments.backend) is None:
        extra = "'anyws[trio]'" if arguments.backend == "trio" else arguments.backend
        parser.error(f"{arguments.backend} is not installed: pip install {extra}")
    return arguments


def fail_usage(problem: str, program: str = "anyws") -> NoReturn:
    """End the program as a wrong argument does, for what shows only when it is used.

    Args:
        problem: what is wrong.
        program: which command it is an argument of.

    Raises:
        SystemExit: always.
    """
    argparse.ArgumentParser(program, usage=f"see {program} --help").error(problem)


def _client_parser() -> _Parser:
    parser = _Parser("anyws", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "uri", metavar="URI", help="ws://, wss:// or ws+unix:///path.sock:/resource"
    )
    group = parser.add_argument_group("messages")
    forms = group.add_mutually_exclusive_group()
    _add = forms.add_argument
    parser.set_defaults(form="text")
    _add(
        *("-b", "--binary"),
        dest="form",
        action="store_const",
        const="binary",
        help="send Binary messages; in a pipe, write those that arrive as they are,"
        " without line ends",
    )
    _add(
        "--hex",
        dest="form",
        action="store_const",
        const="hex",
        help="likewise, but lines are hexadecimal digits, in and out",
    )
    group.add_argument(
        "--whole",
        action="store_true",
        help="in a pipe, send all of the input as one message, while it is read",
    )
    group.add_argument(
        "--count",
        type=_integer(1),
        metavar="N",
        help="close after N messages have arrived, and not at the end of the input",
    )
    group.add_argument(
        "--no-close",
        action="store_true",
        help="do not close at the end of the input: the server does, or --count or --timeout",
    )
    _add_connecting(parser)
    parser.add_argument(
        *("-v", "--verbose"), action="store_true", help="show the opening handshake, and the end"
    )
    return parser


def _serve_parser() -> _Parser:
    parser = _Parser("anyws serve", _SERVE_DESCRIPTION)
    parser.add_argument("--host", default="localhost", help="where to listen (default: localhost)")
    parser.add_argument(
        "--port",
        type=_integer(0, 65535),
        default=8765,
        help="likewise (default: 8765); 0 takes a free one",
    )
    parser.add_argument(
        "--broadcast", action="store_true", help="send each message to all, and not only back"
    )
    parser.add_argument(
        "--path", type=_path, help="the only path that is served, such as /chat; others: 404"
    )
    parser.add_argument(
        "--origin",
        dest="origins",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a web page that may connect, such as https://example.com, or '*' for any; may be"
        " repeated (default: pages of the same host); clients that are no pages always may",
    )
    parser.add_argument("--certfile", metavar="FILE", help="a certificate, in PEM: serve wss")
    parser.add_argument("--keyfile", metavar="FILE", help="its key, if it is in another file")
    _add_limits(parser)
    return parser


def _bench_parser() -> _Parser:
    parser = _Parser("anyws bench", _BENCH_DESCRIPTION)
    parser.add_argument("uri", metavar="URI", help="an echo server, such as `anyws serve`")
    parser.add_argument(
        "--connections",
        type=_integer(1, MAX_CONNECTIONS),
        default=10,
        metavar="N",
        help=f"connections at the same time (default: 10, at most {MAX_CONNECTIONS})",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--messages",
        type=_integer(1, MAX_MESSAGES),
        default=10_000,
        metavar="N",
        help="messages in all (default: 10,000)",
    )
    length.add_argument(
        "--seconds",
        type=_seconds(MAX_SECONDS),
        metavar="S",
        help=f"send for so long instead (at most {MAX_SECONDS:g})",
    )
    parser.add_argument(
        "--size",
        type=_integer(0, MAX_PAYLOAD_SIZE),
        default=32,
        metavar="BYTES",
        help="bytes of a message (default: 32)",
    )
    parser.add_argument(
        "--window",
        type=_integer(1, MAX_WINDOW),
        default=1,
        metavar="N",
        help="messages of a connection that are on their way at the same time (default: 1)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON; times are in seconds"
    )
    _add_connecting(parser)
    return parser


def _add_connecting(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("connection")
    group.add_argument(
        *("-H", "--header"),
        dest="headers",
        type=_header,
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a field of the request; may be repeated",
    )
    group.add_argument(
        *("-s", "--subprotocol"),
        dest="subprotocols",
        action="append",
        default=[],
        metavar="NAME",
        help="a subprotocol to offer; may be repeated, the best one first",
    )
    group.add_argument(
        *("-o", "--origin"), metavar="ORIGIN", help="the Origin field, as a browser sends it"
    )
    group.add_argument(
        "--proxy", metavar="URL", help="http://, https://, socks5h://, ...: connect through it"
    )
    trust = group.add_mutually_exclusive_group()
    trust.add_argument(
        "--cacert", metavar="FILE", help="trust the authorities in this file (PEM), and no others"
    )
    trust.add_argument(
        *("-k", "--insecure"),
        action="store_true",
        help="do not check the certificate of the server: whoever it is can read all",
    )
    group.add_argument(
        "--timeout",
        type=_seconds(),
        metavar="SECONDS",
        help="give up after so long, wherever it stands",
    )
    group.add_argument(
        "--close-timeout",
        type=_seconds(),
        default=10.0,
        metavar="SECONDS",
        help="how long the closing handshake may take (default: 10)",
    )
    _add_limits(group)


def _add_limits(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--max-size",
        type=_integer(0),
        default=2**20,
        metavar="BYTES",
        help="the largest message to accept (default: 1 MiB); 0: no limit",
    )
    group.add_argument(
        "--no-compression", action="store_true", help="do not use permessage-deflate"
    )


def _integer(low: int, high: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < low or (high is not None and number > high):
            limit = f"at least {low}" if high is None else f"in {low}..{high}"
            raise argparse.ArgumentTypeError(f"{number} is not {limit}")
        return number

    parse.__name__ = "integer"  # argparse says "invalid integer value"
    return parse


def _seconds(high: float = math.inf) -> Callable[[str], float]:
    def parse(text: str) -> float:
        seconds = float(text)
        if not 0 < seconds <= high or math.isinf(seconds):
            limit = "" if math.isinf(high) else f" and at most {high:g}"
            raise argparse.ArgumentTypeError(f"{text} is not above 0{limit}")
        return seconds

    parse.__name__ = "number of seconds"
    return parse


def _path(text: str) -> str:
    # No request would have another one: the server would answer 404 to all.
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or "?" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no path such as /chat")
    return text


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} has no colon: write 'Name: value'")
    return name, value.strip()


def backend_of(arguments: Arguments) -> tuple[str, dict[str, Any]]:
    """Give the backend and its options, as `anyio.run` takes them."""
    if arguments.backend == "uvloop":
        return "asyncio", {"use_uvloop": True}
    return arguments.backend, {}
