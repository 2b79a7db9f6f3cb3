"""What a case of the hostile table is, and the whole table.

Owns the forms of a case: frames or a head in literal bytes, or a small program; knows no library.
Line breaks in arguments that end in a head need no peer: they stand in tests/test_injection.py. The
rows stand in `hostile_frames`, `hostile_handshakes`, `hostile_floods` and `hostile_quiet`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from tests.reliability.hostile_peer import DEFLATE, HostilePeer
from tests.wire import MASK, xor

if TYPE_CHECKING:
    from collections.abc import Callable

SERVER, CLIENT = "server", "client"
BOTH = (SERVER, CLIENT)

# What a client's application may get when the connection was open: nothing but the end of it.
CLOSED = ("done", "ConnectionClosedOK", "ConnectionClosedError", "KeepaliveTimeout")


class Case(Protocol):
    """A row of the table."""

    @property
    def name(self) -> str:
        """What is wrong with the peer."""

    @property
    def victims(self) -> tuple[str, ...]:
        """The roles that it attacks."""

    @property
    def expected(self) -> tuple[str, ...]:
        """The outcomes that are right: ours, and behind it what others may do.

        Each is a pattern for what `judge` gives, or several with bars between them.
        """

    @property
    def errors(self) -> tuple[str, ...]:
        """What the application of a client may get: names of errors, or "done"."""

    @property
    def path(self) -> str:
        """Which application the victim runs."""

    @property
    def hasty(self) -> bool:
        """Whether the victim's time-outs are short, because the case waits for one."""

    @property
    def compression(self) -> bool:
        """Whether permessage-deflate is agreed on."""

    def attack(self, peer: HostilePeer) -> str:
        """Do it; give the outcome."""


def is_expected(case: Case, outcome: str, *, strict: bool) -> bool:
    """Say whether an outcome is right.

    Args:
        case: the row.
        outcome: what was seen.
        strict: whether it must be the one of anyws.
    """
    patterns = case.expected[:1]
    if not strict:
        patterns = case.expected
        # What came before a bad frame need not be answered, and a Pong may follow a Close frame.
        outcome = re.sub(r"^(close [0-9]+), (echoed .*|then opcodes \[10\])$", r"\1", outcome)
    return any(fnmatchcase(outcome, it) for pattern in patterns for it in pattern.split("|"))


def draw_frames(text: str, *, masks: bool) -> bytes:
    """Draw frames that are written in hexadecimal digits.

    Args:
        text: the frames, with commas between them; each has its header as a server sends it, a
            bar, and its payload; "!" before one has it masked wrongly.
        masks: whether the peer is a client: then the mask bit is set, the masking key stands
            behind the header, and the payload is masked.
    """
    drawn = []
    for part in text.split(",") if text else ():
        header_digits, _, payload_digits = part.strip().removeprefix("!").partition("|")
        header, payload = bytearray.fromhex(header_digits), bytes.fromhex(payload_digits)
        if masks is not part.strip().startswith("!"):
            header[1] |= 0x80
            header += MASK
            payload = xor(payload, MASK)
        drawn.append(bytes(header) + payload)
    return b"".join(drawn)


def open_connection(peer: HostilePeer, case: Case) -> None:
    """Run the opening handshake as it should be."""
    headers = DEFLATE if case.compression else b""
    if peer.masks:
        peer.open_as_client(case.path, headers)
    else:
        peer.open_as_server(headers)


@dataclass(frozen=True)
class Frames:
    """Frames after a good opening handshake.

    Args:
        name: as in `Case`, and so are the others where nothing is said.
        frames: as in `draw_frames`.
        expected: see there.
        echoes: the payloads that a victim must send back before its verdict; None: any.
        bytewise: whether each byte comes alone.
        victims: see there.
        path: see there.
        compression: see there.
    """

    name: str
    frames: str
    expected: tuple[str, ...]
    echoes: tuple[str, ...] | None = None
    bytewise: bool = False
    victims: tuple[str, ...] = BOTH
    errors: tuple[str, ...] = CLOSED
    path: str = "/echo"
    hasty: bool = False
    compression: bool = False

    def attack(self, peer: HostilePeer) -> str:
        open_connection(peer, self)
        data = draw_frames(self.frames, masks=peer.masks)
        pieces = [data[i : i + 1] for i in range(len(data))] if self.bytewise else [data]
        for piece in pieces:
            peer.send(piece)
        outcome = peer.judge(asks=self.expected[0] == "open", echoes=len(self.echoes or ()))
        if self.echoes is None or peer.messages == [bytes.fromhex(echo) for echo in self.echoes]:
            return outcome
        return f"{outcome}, echoed {peer.messages!r}"


@dataclass(frozen=True)
class Head:
    """A request or a response in literal bytes.

    Args:
        name: as in `Case`, and so are the others where nothing is said.
        head: the bytes; in a response ACCEPT stands for the accept key.
        expected: see there.
        ends: whether our half of TCP ends behind them.
        victims: the one role that it attacks.
        errors: see there.
    """

    name: str
    head: bytes
    expected: tuple[str, ...]
    ends: bool = False
    victims: tuple[str, ...] = (SERVER,)
    errors: tuple[str, ...] = CLOSED
    path: str = "/echo"
    hasty: bool = False
    compression: bool = False

    def attack(self, peer: HostilePeer) -> str:
        if peer.masks:
            peer.send(self.head)
            if self.ends:
                peer.end()
            outcome = peer.judge_status()
            if outcome != "status 101" or self.expected[0] == outcome:
                return outcome
            return peer.judge(asks=self.expected[0] == "open")
        accept = peer.read_request()
        peer.send(self.head.replace(b"ACCEPT", accept))
        if self.ends:
            peer.end()
        return peer.judge(asks=self.expected[0] == "open")


@dataclass(frozen=True)
class Program:
    """Anything else.

    Args:
        name: as in `Case`, and so are the others where nothing is said.
        program: what the peer does; it gives the outcome.
        expected: see there.
        opens: whether a good opening handshake comes before.
    """

    name: str
    program: Callable[[HostilePeer], str]
    expected: tuple[str, ...]
    opens: bool = True
    victims: tuple[str, ...] = BOTH
    errors: tuple[str, ...] = CLOSED
    path: str = "/echo"
    hasty: bool = False
    compression: bool = False

    def attack(self, peer: HostilePeer) -> str:
        if self.opens:
            open_connection(peer, self)
        return self.program(peer)


@cache
def all_cases() -> tuple[Case, ...]:
    """Give the whole table."""
    cases: list[Case] = []
    for part in ("frames", "handshakes", "floods", "quiet"):
        # By name, since each of them needs the forms above.
        cases += import_module(f"tests.reliability.hostile_{part}").CASES
    names = [(case.name, victim) for case in cases for victim in case.victims]
    assert len(set(names)) == len(names), "two cases have one name"
    return tuple(cases)


def cases_for(victim: str, *parts: str) -> list[Case]:
    """Give the rows that attack a role, of these parts of the table."""
    cases: list[Case] = []
    for part in parts:
        cases += import_module(f"tests.reliability.hostile_{part}").CASES
    return [case for case in cases if victim in case.victims]
