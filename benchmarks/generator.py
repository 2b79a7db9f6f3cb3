"""The load generator: compiling it, its files and its command line.

Owns what load.c and load.py are given; knows no library. Both are told all that they send and
expect.
"""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from . import frames
from .processes import python_module
from .scenarios import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .scenarios import Scenario

_MODES = {
    Kind.ECHO: "echo",
    Kind.HANDSHAKE: "handshake",
    Kind.IDLE: "idle",
    Kind.BROADCAST: "broadcast",
    Kind.CLIENT_ECHO: "echo",
    Kind.CLIENT_COUNT: "echo",
}
# Together they are more than the largest window of DEFLATE, 32 KiB: none is a repetition in it.
_DEFLATE_MESSAGES = 64
# Masked replies are small, so their masking key stands after two bytes (RFC 6455 section 5.2).
_KEY_OFFSET = 2


class Generator:
    """How to start the load generator.

    Args:
        directory: where its files go.
        compiler: the C compiler; where it fails, the generator is the one in Python.
        sleep: whether it sleeps while it waits, so that the endpoint has to wake it.
        pause: seconds after which it answers, where one message is under way at a time.
    """

    def __init__(
        self,
        directory: Path,
        compiler: Sequence[str] | None = None,
        *,
        sleep: bool = False,
        pause: float = 0.0,
    ) -> None:
        self._directory = directory
        self._sleep = sleep
        self._pause = pause
        program = directory / "load"
        source = Path(__file__).parent / "load.c"
        words = default_compiler() if compiler is None else compiler
        try:
            subprocess.run(  # noqa: S603  # the compiler that Python was built with
                [*words, "-O2", "-o", program, source], check=True, capture_output=True
            )
        except (OSError, subprocess.CalledProcessError):
            self._program: Path | None = None
        else:
            self._program = program

    @property
    def language(self) -> str:
        """What the generator is written in, for all but TLS."""
        return "Python" if self._program is None else "C"

    def command(
        self,
        scenario: Scenario,
        seconds: float,
        warmup: float,
        *,
        port: int = 0,
        fd: int | None = None,
        raw: bool = False,
    ) -> list[str]:
        """Write the files for a scenario, and give the command.

        Args:
            scenario: what is to be done.
            seconds: how long, between the marks.
            warmup: how long before them.
            port: where the server listens.
            fd: for clients: the connection, whose handshake is done.
            raw: whether the server speaks no WebSocket.
        """
        requests = build_load(scenario)
        options: dict[str, object] = {
            "connections": scenario.connections,
            "more": scenario.more,
            "window": scenario.window,
            "seconds": seconds,
            "warmup": warmup,
            "max-operations": max(scenario.connections, scenario.max_operations // scenario.batch),
            "requests": self._file("requests", frames.pack(requests)),
        }
        if scenario.deflate:
            self._record.unlink(missing_ok=True)
            options["record"] = self._record
        else:
            replies = requests if raw else build_replies(scenario)
            options["replies"] = self._file("replies", frames.pack(replies))
        if fd is not None:
            options |= {"fd": fd, "key-offset": _KEY_OFFSET}
        else:
            options["port"] = port
        if fd is None and not raw:
            offer = frames.DEFLATE_OFFER if scenario.deflate else None
            options["handshake"] = self._file(
                "handshake", frames.build_request(f"localhost:{port}", offer)
            )
            options["accept"] = frames.accept_key()
        if scenario.tls:
            options["tls"] = self._directory / "ca.pem"
        words = [f"--{name}={value}" for name, value in options.items()]
        if self._sleep:
            words.append("--sleep")
        if self._pause and scenario.connections * scenario.window == 1:
            words.append(f"--pause={self._pause}")
        mode = _MODES[scenario.kind]
        if self._program is None or scenario.tls:
            return python_module("load", *words, mode)
        return [str(self._program), *words, mode]

    def check_record(self, scenario: Scenario, operations: int) -> None:
        """Check the replies of the last run, where that could not be done meanwhile.

        Raises:
            ValueError: one is wrong, or there are fewer than operations.
        """
        if scenario.deflate:
            count = frames.check_deflated(self._record.read_bytes(), build_messages(scenario))
            if count < operations:  # those of the warm-up are more
                raise ValueError(f"{count} replies to {operations} messages")

    @property
    def _record(self) -> Path:
        return self._directory / "record"

    def _file(self, name: str, content: bytes) -> Path:
        path = self._directory / name
        path.write_bytes(content)
        return path


def default_compiler() -> list[str]:
    """Give the command of the C compiler that Python itself was built with, or else cc."""
    return str(sysconfig.get_config_var("CC") or "cc").split()


def build_messages(scenario: Scenario) -> list[bytes]:
    """Give the payloads of messages, one after the other."""
    if not scenario.deflate:
        return [frames.build_payload(scenario.size)]
    return [frames.build_json(scenario.size, number) for number in range(1, _DEFLATE_MESSAGES + 1)]


def build_load(scenario: Scenario) -> list[bytes]:
    """Give what the generator sends, each at a time."""
    messages = build_messages(scenario)
    match scenario.kind:
        case Kind.HANDSHAKE:
            return [frames.client_frame(frames.close_frame(), opcode=frames.CLOSE)]
        case Kind.CLIENT_ECHO:
            return [frames.build_frame(message) for message in messages]
        case Kind.CLIENT_COUNT:
            mark = frames.build_frame(frames.COUNT_MARK, opcode=frames.TEXT)
            return [frames.build_frame(message) * scenario.batch + mark for message in messages]
    if scenario.deflate:
        return [
            frames.client_frame(frames.deflate(message), opcode=frames.TEXT, rsv1=True)
            for message in messages
        ]
    return [frames.client_frame(message) for message in messages]


def build_replies(scenario: Scenario) -> list[bytes]:
    """Give what comes back for it, where it is not compressed."""
    (message,) = build_messages(scenario)
    match scenario.kind:
        case Kind.HANDSHAKE:
            return [frames.build_frame(frames.close_frame(), opcode=frames.CLOSE)]
        case Kind.CLIENT_ECHO:
            return [frames.expected_client_frame(message)]
        case Kind.CLIENT_COUNT:
            count = scenario.batch + 1
            total = scenario.batch * scenario.size + len(frames.COUNT_MARK)
            answer = f"{count} {total}".encode()
            return [frames.expected_client_frame(answer, opcode=frames.TEXT)]
    return [frames.build_frame(message)]
