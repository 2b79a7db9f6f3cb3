"""What both sides of the opening handshake share: the bounded reading of an HTTP head.

Owns the limits of a head and where it ends; knows no WebSocket. h11 does the parsing. RFC 9112
sections 2 to 5; RFC 6455 section 4 is in `_client_handshake` and `_server_handshake`.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Literal

import h11

from .._version import __version__
from ..exceptions import InvalidHeader, InvalidMessage, InvalidUpgrade
from ._headers import parse_connection

if TYPE_CHECKING:
    from .._http import Headers

MAX_LINE_SIZE = 8192
"""Bytes of a request line, a status line or a header line, without its end.

RFC 9112 section 3 recommends at least 8000; it is also what common servers and proxies take.
"""

MAX_HEAD_SIZE = 32768
"""Bytes of a head in all: four of the longest lines, as browsers with many cookies send them."""

MAX_HEADERS = 128
"""Header lines of a head: browsers and proxies together send about thirty."""

MAX_BODY_SIZE = 65536
"""Bytes that are kept of the body of a refused handshake: enough to read why; the rest is cut off.

A refused handshake must not become a download.
"""

PRODUCT = f"Python/{sys.version_info.major}.{sys.version_info.minor} anyws/{__version__}"
"""The default of the User-Agent and Server fields (RFC 9110 section 10.1.5)."""

Kind = Literal["request", "response"]

_FIRST_LINES: dict[Kind, str] = {"request": "request line", "response": "status line"}

# h11 lets most control characters pass. It also splits values from white space with a pattern
# that takes quadratic time (33 million steps for a line of 8 KiB) if such a character ends it.
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")

# A line end and an empty line.
_END = re.compile(rb"\n\r?\n")

# Where an error of h11 begins to quote: it does so by the repr of bytes or of a bytearray.
_QUOTATION = re.compile(r":? (?:bytearray\()?b['\"]")


class HeadReader:
    """Cuts an HTTP head off a stream of bytes, within the limits, however the bytes come.

    Args:
        kind: what the head belongs to.
        used: bytes of MAX_HEAD_SIZE that heads before this one have used up.
    """

    def __init__(self, kind: Kind, used: int = 0) -> None:
        self._kind: Kind = kind
        self._room = MAX_HEAD_SIZE - used
        self._buffer = bytearray()
        self._line_count = 0
        self._line_start = 0
        self._searched = 0
        self.rest = b""
        """What came after the head, once it is complete."""

    @property
    def started(self) -> bool:
        """Whether a byte has come."""
        return bool(self._buffer)

    def receive(self, data: bytes) -> bytes | None:
        """Take bytes of the stream.

        Returns:
            The head with the empty line that ends it; None if more is needed.

        Raises:
            InvalidMessage: a limit is exceeded, or this cannot be a head.
        """
        taken = data[: self._room]
        self._buffer += taken
        self._room -= len(taken)
        # The first byte tells TLS, where HTTP is expected, and empty lines.
        if self._buffer and self._buffer[0] <= 0x20:
            raise self._malformed(f"illegal {_FIRST_LINES[self._kind]}")
        if not self._find_end():
            if self._room == 0:
                raise InvalidMessage(
                    f"{self._kind} head exceeds the limit of {MAX_HEAD_SIZE} bytes", 431
                )
            return None
        head = bytes(self._buffer[: self._searched])
        if _CONTROL.search(head.replace(b"\r\n", b"\n")) is not None:
            raise self._malformed("control character in the head")
        self.rest = bytes(self._buffer[self._searched :]) + data[len(taken) :]
        return head

    def eof_error(self) -> InvalidMessage:
        """Say how far the head had come when the stream ended."""
        part = f"{self._kind} head" if self._line_count else _FIRST_LINES[self._kind]
        return InvalidMessage(f"connection closed while reading HTTP {part}")

    def _find_end(self) -> bool:
        """Look at the new lines; at the end of the head `_searched` is the place after it."""
        if not self._searched and len(self._buffer) <= MAX_LINE_SIZE:
            # No line is too long; nearly always the head has come whole.
            end = _END.search(self._buffer)
            if end is not None and self._buffer.count(b"\n", 0, end.end()) <= MAX_HEADERS + 2:
                self._searched = end.end()
                return True
        while (newline := self._buffer.find(b"\n", self._searched)) >= 0:
            size = self._measure_line(newline)
            self._searched = self._line_start = newline + 1
            if size == 0:
                return True
            if self._line_count > MAX_HEADERS:
                raise InvalidMessage(
                    f"{self._kind} head exceeds the limit of {MAX_HEADERS} header lines", 431
                )
            self._line_count += 1
        self._searched = len(self._buffer)
        self._measure_line(self._searched)
        return False

    def _measure_line(self, end: int) -> int:
        """Give the bytes of the line that starts at `_line_start`, without CRLF or LF."""
        size = end - self._line_start
        if size and self._buffer[end - 1] == 0x0D:
            size -= 1
        if size > MAX_LINE_SIZE:
            if self._line_count == 0:
                # RFC 9112 section 3: "A server that receives a request-target longer than any URI
                # it wishes to parse MUST respond with a 414 (URI Too Long) status code."
                line, status = _FIRST_LINES[self._kind], 414
            else:
                line, status = "header line", 431
            raise InvalidMessage(f"{line} exceeds the limit of {MAX_LINE_SIZE} bytes", status)
        return size

    def _malformed(self, problem: str) -> InvalidMessage:
        return InvalidMessage(f"malformed HTTP {self._kind}: {problem}")


def next_event(parser: h11.Connection, kind: Kind) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
    """Let h11 parse what it has.

    Raises:
        InvalidMessage: it is not HTTP/1.1.
    """
    try:
        return parser.next_event()
    except h11.RemoteProtocolError as exc:
        # Here h11 quotes what came: up to a whole head, and it may hold secrets.
        problem = _QUOTATION.split(str(exc), maxsplit=1)[0]
        problem = problem[:1].lower() + problem[1:]
        raise InvalidMessage(f"malformed HTTP {kind}: {problem}") from exc


def single_value(headers: Headers, name: str) -> str | None:
    """Give the value of a field that may be there once; None if it is not.

    Raises:
        InvalidHeader: there are several.
    """
    values = headers.get_all(name)
    if len(values) > 1:
        raise InvalidHeader(name, headers[name], f"it is given {len(values)} times")
    return values[0] if values else None


def check_connection(headers: Headers) -> None:
    """Check that the Connection field has the option that goes with Upgrade.

    Raises:
        InvalidUpgrade: it has not.
    """
    # RFC 6455 sections 4.1 and 4.2.1: a "token that is an ASCII case-insensitive match for the
    # value "Upgrade"", among others or alone.
    connection = headers.get("Connection")
    if connection is None or "upgrade" not in map(str.lower, parse_connection(connection)):
        raise InvalidUpgrade("Connection", connection)
