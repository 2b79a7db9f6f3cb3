"""The words of the protocol: opcodes, close codes, states, roles and the events of a connection.

Owns plain values; knows no bytes, no streams and no clock. RFC 6455 sections 5.2, 5.5, 7.1 and 7.4.
"""

import enum
from dataclasses import dataclass
from typing import Final, final

Data = str | bytes
"""A message as it is received: str for Text, bytes for Binary."""

BytesLike = bytes | bytearray | memoryview
"""What is taken for binary payloads and for the data of control frames."""

DataLike = str | bytes | bytearray | memoryview
"""A message as it is sent: str for Text, a bytes-like object for Binary."""

DATA_TYPES: Final = (str, bytes, bytearray, memoryview)
"""The same for isinstance(), made once: send() asks it for each message."""


class Opcode(enum.IntEnum):
    """What a frame carries (RFC 6455 section 5.2)."""

    CONT = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(enum.IntEnum):
    """Why a connection is closed (RFC 6455 section 7.4 and the IANA registry)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


CLOSE_CODE_MEANINGS = {
    1000: "OK",
    1001: "going away",
    1002: "protocol error",
    1003: "unsupported data",
    1005: "no status received",
    1006: "abnormal closure",
    1007: "invalid frame payload data",
    1008: "policy violation",
    1009: "message too big",
    1010: "mandatory extension",
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
    1014: "bad gateway",
    1015: "TLS handshake failure",
}

OK_CLOSE_CODES = frozenset({1000, 1001, 1005})
"""The codes of an ordinary end: normal closure, going away, and a Close frame without a code."""

# RFC 6455 section 7.4.1: 1005, 1006 and 1015 "MUST NOT be set as a status code in a Close control
# frame by an endpoint"; 1004 is reserved. 1012 to 1014 were registered later with IANA.
SENDABLE_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})

MAX_CONTROL_SIZE = 125
"""Bytes of payload that a control frame may carry at the most (RFC 6455 section 5.5)."""

MAX_REASON_SIZE = MAX_CONTROL_SIZE - 2
"""Bytes of UTF-8 that a close reason may take: a control frame less the close code."""


def is_valid_close_code(code: int) -> bool:
    """Say whether a Close frame may carry `code` (RFC 6455 section 7.4)."""
    return code in SENDABLE_CLOSE_CODES or 3000 <= code <= 4999


class State(enum.Enum):
    """Where the life of an open connection stands; opening is another object's business."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


OPEN: Final = State.OPEN
"""For the hot path: to ask an enumeration costs more than to encode a small frame (63 to 25 ns)."""


class Role(enum.Enum):
    """Which endpoint we are: a client masks what it sends, a server closes TCP first."""

    CLIENT = "client"
    SERVER = "server"


@final
@dataclass(frozen=True, slots=True)
class Close:
    """A Close frame: its code and its reason (RFC 6455 section 5.5.1).

    A frame without payload has the code 1005 and an empty reason.
    """

    code: int
    reason: str = ""

    def __str__(self) -> str:
        if 3000 <= self.code <= 3999:
            meaning = "registered"
        elif 4000 <= self.code <= 4999:
            meaning = "private use"
        else:
            meaning = CLOSE_CODE_MEANINGS.get(self.code, "unknown")
        text = f"{self.code} ({meaning})"
        if not self.reason:
            return text
        # It ends in logs, and comes from the peer: a line break in it must not look like one.
        return f"{text} {self.reason if self.reason.isprintable() else repr(self.reason)}"


@final
@dataclass(frozen=True, slots=True)
class Ping:
    """A Ping frame that was received (RFC 6455 section 5.5.2)."""

    data: bytes


@final
@dataclass(frozen=True, slots=True)
class Pong:
    """A Pong frame that was received (RFC 6455 section 5.5.3)."""

    data: bytes


@final
@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a message, given before the whole has arrived (RFC 6455 section 5.4)."""

    data: Data
    fin: bool


@final
@dataclass(frozen=True, slots=True)
class Failure:
    """What the peer did wrong, as the Close frame that answers it (RFC 6455 section 7.1.7)."""

    code: int
    reason: str


Event = str | bytes | Ping | Pong | Close | Fragment | Failure
"""What a chunk of received bytes means; told apart by exact type."""
