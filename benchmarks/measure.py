"""One measurement: an endpoint and the load generator, each on its core, and two marks.

Owns the course of it; what is sent stands in `generator`, what is measured in `scenarios` and
`variants`.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from . import frames
from .processes import Process, ProcessError, core_busy_ns, python_module
from .scenarios import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .generator import Generator
    from .scenarios import Scenario
    from .variants import Variant

HOST = "127.0.0.1"

# Seconds.
_START_TIMEOUT = 20.0
_EXCHANGE_TIMEOUT = 10.0
# The generator ends itself after 60 seconds more than it is asked for.
_LOAD_TIMEOUT = 70.0
# What an endpoint gets to go to sleep in, before its CPU time is read.
_SETTLE = 0.02


@dataclass(frozen=True)
class Setup:
    """What is the same for all measurements of a run.

    Args:
        generator: the load generator.
        directory: for files, such as certificates.
        endpoint_core: the core of the server or client that is measured.
        load_core: the core of the load generator.
        seconds: between the marks.
        warmup: seconds before them.
    """

    generator: Generator
    directory: Path
    endpoint_core: int
    load_core: int
    seconds: float
    warmup: float

    @property
    def certificate(self) -> Path:
        """The file with the key and the certificate of servers."""
        return self.directory / "server.pem"


@dataclass(frozen=True)
class Measurement:
    """One figure, or what went wrong.

    Args:
        scenario: the key of the scenario.
        variant: the name of the variant.
        round: the number of the round, from 0.
        cost: microseconds of CPU time for an operation, or KiB of memory for a connection.
        operations: how many there were.
        cpu_ns: CPU time of the endpoint between the marks.
        seconds: time between the marks.
        foreign: the share of the endpoint's core that others used meanwhile.
        problem: what went wrong.
        details: what the endpoint said of itself.
    """

    scenario: str
    variant: str
    round: int
    cost: float | None = None
    operations: int = 0
    cpu_ns: int = 0
    seconds: float = 0.0
    foreign: float = 0.0
    problem: str | None = None
    details: dict[str, str] = field(default_factory=dict)


def measure(setup: Setup, variant: Variant, scenario: Scenario, number: int) -> Measurement:
    """Measure a variant in a scenario once; what goes wrong is part of the result."""
    course = _measure_client if scenario.of_client else _measure_server
    try:
        return course(setup, variant, scenario, number)
    except (OSError, ProcessError, ValueError) as exc:
        problem = str(exc) or type(exc).__name__
        return Measurement(scenario.key, variant.name, number, problem=problem)


def _measure_server(setup: Setup, variant: Variant, scenario: Scenario, number: int) -> Measurement:
    words = ["--loop", variant.loop]
    if scenario.deflate:
        words.append("--deflate")
    if scenario.kind is Kind.BROADCAST:
        words.append("--broadcast")
    if scenario.tls:
        words.append(f"--certificate={setup.certificate}")
    command = python_module(f"servers.{variant.module}", *words)
    with Process(command, setup.endpoint_core, environment=variant.environment) as server:
        details = json.loads(server.read_line(_START_TIMEOUT))
        port = details.pop("port")
        if scenario.deflate:
            check_negotiation(port)
        command = setup.generator.command(
            scenario, setup.seconds * scenario.times, setup.warmup, port=port, raw=variant.raw
        )
        with Process(command, setup.load_core) as load:
            start = Measurement(scenario.key, variant.name, number, details=details)
            return _run(setup, scenario, server, load, start)


def _measure_client(setup: Setup, variant: Variant, scenario: Scenario, number: int) -> Measurement:
    with ExitStack() as stack, socket.create_server((HOST, 0)) as listener:
        words = [f"ws://{HOST}:{listener.getsockname()[1]}/", "--loop", variant.loop]
        if scenario.kind is Kind.CLIENT_COUNT:
            words.append("--count")
        command = python_module(f"clients.{variant.module}", *words)
        client = stack.enter_context(
            Process(command, setup.endpoint_core, environment=variant.environment)
        )
        with _accept(listener, client) as connection:
            fd = connection.fileno()
            command = setup.generator.command(
                scenario, setup.seconds * scenario.times, setup.warmup, fd=fd
            )
            load = stack.enter_context(Process(command, setup.load_core, pass_fds=[fd]))
        # Only the generator has the connection now.
        start = Measurement(scenario.key, variant.name, number)
        return _run(setup, scenario, client, load, start)


def _run(
    setup: Setup, scenario: Scenario, endpoint: Process, load: Process, start: Measurement
) -> Measurement:
    """Add to `start` what the endpoint used between the marks."""
    _hear(load, "ready", endpoint)
    time.sleep(_SETTLE)
    memory = endpoint.resident_size()
    busy = core_busy_ns(setup.endpoint_core)
    cpu = endpoint.cpu_ns()
    load.write_line()
    operations, seconds = _hear(load, "done", endpoint)
    time.sleep(_SETTLE)
    cpu = endpoint.cpu_ns() - cpu
    busy = core_busy_ns(setup.endpoint_core) - busy
    memory = endpoint.resident_size() - memory
    setup.generator.check_record(scenario, int(operations))
    count = int(operations) * scenario.batch
    if not count:
        raise ValueError("there was not one operation")
    return replace(
        start,
        cost=memory / 1024 / count if scenario.kind is Kind.IDLE else cpu / 1000 / count,
        operations=count,
        cpu_ns=cpu,
        seconds=float(seconds),
        foreign=max(0.0, busy - cpu) / 1e9 / (float(seconds) + _SETTLE),
    )


def _hear(load: Process, word: str, endpoint: Process) -> list[str]:
    """Give what follows `word` in what the load generator says."""
    try:
        first, *rest = load.read_line(_LOAD_TIMEOUT).split(" ")
    except ProcessError as exc:
        raise ProcessError(f"the load generator {exc}") from None
    if first != word:
        raise ProcessError(" ".join(rest) + endpoint.last_words())
    return rest


# What Python itself says on the wire: the handshake with a client, and a question to a server.


@contextmanager
def _accept(listener: socket.socket, client: Process) -> Iterator[socket.socket]:
    """Accept a client, and answer its opening handshake."""
    listener.settimeout(_START_TIMEOUT)
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        raise ProcessError(f"the client does not connect{client.last_words()}") from None
    with connection:
        connection.settimeout(_EXCHANGE_TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _, fields = frames.parse_head(_receive_head(connection))
        connection.sendall(frames.build_response(fields["sec-websocket-key"]))
        connection.setblocking(True)
        yield connection


def check_negotiation(port: int) -> None:
    """Ask a server for compression.

    Raises:
        ValueError: it negotiates none.
    """
    with socket.create_connection((HOST, port), timeout=_EXCHANGE_TIMEOUT) as connection:
        connection.sendall(frames.build_request(f"localhost:{port}", frames.DEFLATE_OFFER))
        first, fields = frames.parse_head(_receive_head(connection))
    if not fields.get("sec-websocket-extensions", "").startswith("permessage-deflate"):
        raise ValueError(f"compression was not negotiated: {first}")


def _receive_head(connection: socket.socket) -> bytes:
    """Give the head of an HTTP message; what comes behind it is left out."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(65536)
        if not more:
            raise ValueError("the connection ended in the opening handshake")
        received += more
    head, _, _ = received.partition(b"\r\n\r\n")
    return head
