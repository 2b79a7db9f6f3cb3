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
# Masked replies are small, so their masking key stands after two bytes (RFC 6455 section 5.2).
_KEY_OFFSET = 2


class Generator:
    """How to start the load generator.

    Args:
        directory: where its files go.
        compiler: the C compiler; where it fails, the generator is the one in Python.
    """

    def __init__(self, directory: Path, compiler: Sequence[str] | None = None) -> None:
        self._directory = directory
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
        replies: Sequence[bytes] | None = None,
    ) -> list[str]:
        """Write the files for a scenario, and give the command.

        Args:
            scenario: what is to be done.
            seconds: how long, between the marks.
            warmup: how long before them.
            port: where the server listens.
            fd: for clients: the connection, whose handshake is done.
            raw: whether the server speaks no WebSocket.
            replies: what comes back, where that is not plain from the scenario.
        """
        request = build_load(scenario)
        if replies is None:
            replies = [request] if raw else build_replies(scenario)
        options = {
            "connections": scenario.connections,
            "more": scenario.more,
            "window": scenario.window,
            "seconds": seconds,
            "warmup": warmup,
            "max-operations": max(scenario.connections, scenario.max_operations // scenario.batch),
            "request": self._file("request", request),
            "replies": self._file("replies", frames.pack_replies(replies)),
        }
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
        mode = _MODES[scenario.kind]
        if self._program is None or scenario.tls:
            return python_module("load", *words, mode)
        return [str(self._program), *words, mode]

    def _file(self, name: str, content: bytes) -> Path:
        path = self._directory / name
        path.write_bytes(content)
        return path


def default_compiler() -> list[str]:
    """Give the command of the C compiler that Python itself was built with, or else cc."""
    return str(sysconfig.get_config_var("CC") or "cc").split()


def build_message(scenario: Scenario) -> bytes:
    """Give the payload of a message."""
    return (frames.build_json if scenario.deflate else frames.build_payload)(scenario.size)


def build_load(scenario: Scenario) -> bytes:
    """Give what the generator sends at a time."""
    message = build_message(scenario)
    match scenario.kind:
        case Kind.HANDSHAKE:
            return frames.client_frame(frames.close_frame(), opcode=frames.CLOSE)
        case Kind.CLIENT_ECHO:
            return frames.build_frame(message)
        case Kind.CLIENT_COUNT:
            mark = frames.build_frame(frames.COUNT_MARK, opcode=frames.TEXT)
            return frames.build_frame(message) * scenario.batch + mark
    if scenario.deflate:
        return frames.client_frame(frames.deflate(message), opcode=frames.TEXT, rsv1=True)
    return frames.client_frame(message)


def build_replies(scenario: Scenario) -> list[bytes]:
    """Give what comes back for it."""
    message = build_message(scenario)
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
