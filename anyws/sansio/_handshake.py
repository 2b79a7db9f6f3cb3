"""What opening handshakes share: the bounded reading of an HTTP head, and of a response.

Owns the limits of a head and a body, and where they end; knows no WebSocket. h11 does the parsing.
RFC 9112 sections 2 to 6; RFC 6455 section 4 is in `_client_handshake` and `_server_handshake`, and
the tunnel through a proxy in `_tunnel`.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import h11

from .._http import Headers, Response
from .._version import __version__
from ..exceptions import InvalidHeader, InvalidMessage, InvalidUpgrade
from ._headers import parse_connection

if TYPE_CHECKING:
    from collections.abc import Container

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
"""The default of the User-Agent and Server fields (RFC 9110 sections 10.1.5 and 10.2.4)."""

Kind = Literal["request", "response"]

_FIRST_LINES: dict[Kind, str] = {"request": "request line", "response": "status line"}

# What TLS begins with: the type of a record, and its major version (RFC 8446 section 5.1). A client
# sends a handshake; a server that cannot read ours, an alert.
_TLS_TYPES = (b"\x16", b"\x15")
_TLS_BEGINNINGS = tuple(record_type + b"\x03" for record_type in _TLS_TYPES)

# What an empty line begins with.
_LINE_BEGINNINGS = (b"\r", b"\r\n")

_TLS_ADVICE: dict[Kind, str] = {
    "request": "TLS came to a port without it",
    "response": "TLS is spoken there; wss:// and, for a proxy, https:// ask for it",
}

# h11 lets most control characters pass. It also splits values from white space with a pattern
# that takes quadratic time (33 million steps for a line of 8 KiB) if such a character ends it.
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")

# The Connection field of most clients and servers, and that of Firefox, in lower case: to know them
# takes 0.4 us, and to parse a list 1.2.
_USUAL_CONNECTIONS = frozenset({"upgrade", "keep-alive, upgrade"})

REQUEST_LINE = re.compile(rb"[^ \r\n]+ [^ \r\n]+ HTTP/([0-9]\.[0-9])\r?\n")
"""What a request begins with, and its version: more than h11 takes."""

# What a status line begins with.
_HTTP = b"HTTP/"

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
        # RFC 9112 section 2.2: a server "SHOULD ignore at least one empty line (CRLF) received
        # prior to the request-line".
        self._may_skip_line = kind == "request"
        self._line_count = 0
        self._line_start = 0
        self._searched = 0
        self.rest = b""
        """What came after the head, once it is complete."""

    @property
    def started(self) -> bool:
        """Whether a byte of it has come."""
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
        # The first byte tells what is no HTTP, such as TLS, and empty lines.
        if self._buffer and self._buffer[0] <= 0x20:
            if self._may_skip_line and self._buffer[:2] in _LINE_BEGINNINGS:
                return self._skip_line(data[len(taken) :])
            if self._buffer in _TLS_TYPES:
                return None  # the next byte makes sure
            problem = f"illegal {_FIRST_LINES[self._kind]}"
            if self._buffer.startswith(_TLS_BEGINNINGS):
                problem += f" ({_TLS_ADVICE[self._kind]})"
            raise self._malformed(problem)
        # Who speaks something else may never send an empty line.
        if self._kind == "response" and not _HTTP.startswith(self._buffer[: len(_HTTP)]):
            raise self._malformed("illegal status line")
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

    def _skip_line(self, rest: bytes) -> bytes | None:
        if self._buffer == b"\r":
            return None
        del self._buffer[:2]
        self._may_skip_line = False
        return self.receive(rest) if self._buffer or rest else None

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
                self._check_first_line()
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
            if self._line_count == 1:
                self._check_first_line()
        self._searched = len(self._buffer)
        self._measure_line(self._searched)
        return False

    def _check_first_line(self) -> None:
        # As soon as it is there: who speaks something else may never send an empty line.
        if self._kind == "request" and REQUEST_LINE.match(self._buffer) is None:
            raise self._malformed("illegal request line")

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


class ResponseReader:
    """Reads the response to one request, within the limits, however the bytes come.

    Args:
        parser: has sent the request.
        opening: the statuses that make the connection something else than HTTP: what comes behind
            their heads is no body.
    """

    def __init__(self, parser: h11.Connection, opening: Container[int]) -> None:
        self._parser = parser
        self._opening = opening
        self._head_size = 0
        self._head = HeadReader("response")
        self._refusal: Response | None = None
        self._body = bytearray()
        self.rest = b""
        """What came after the head of a response that opens."""

    @property
    def started(self) -> bool:
        """Whether a byte has come."""
        return self._head.started or self._head_size > 0

    def receive(self, data: bytes) -> Response | None:
        """Take bytes of the stream.

        Returns:
            The response: one that opens as soon as its head is there; another one with its body, of
            which at most MAX_BODY_SIZE bytes are kept. None if more is needed.

        Raises:
            InvalidMessage: it is not HTTP/1.1, or exceeds a limit.
        """
        if self._refusal is not None:
            return self._receive_body(data, self._refusal)
        while (head := self._head.receive(data)) is not None:
            data = self._head.rest
            response = self._parse_head(head)
            if response.status in self._opening:
                self.rest = data
                return response
            if response.status >= 200:
                self._refusal = response
                return self._receive_body(data, response)
            # RFC 9110 section 15.2: "A client MUST be able to parse one or more 1xx responses
            # received prior to a final response"; all of them share one limit.
            self._head_size += len(head)
            self._head = HeadReader("response", used=self._head_size)
        return None

    @property
    def refusal(self) -> Response | None:
        """A response that does not open, with what has come of its body; None before its head.

        One whose body stalls or is cut short still says more than an error that it is.
        """
        return None if self._refusal is None else self._with_body(self._refusal)

    def receive_eof(self) -> Response:
        """Take the end of the stream.

        Returns:
            The response, whose body ends here.

        Raises:
            InvalidMessage: the stream ended before the end of the head.
        """
        if self._refusal is None:
            raise self._head.eof_error()
        return self._with_body(self._refusal)

    def _parse_head(self, head: bytes) -> Response:
        self._parser.receive_data(head)
        event = next_event(self._parser, "response")
        assert isinstance(event, h11.InformationalResponse | h11.Response)
        # A proxy may well refuse in HTTP/1.0; but no HTTP/1.0 response can switch protocols.
        if event.status_code == 101 and event.http_version != b"1.1":
            version = event.http_version.decode()
            raise InvalidMessage(f"malformed HTTP response: 101 in HTTP/{version}, not HTTP/1.1")
        return Response(
            event.status_code,
            event.reason.decode("latin-1"),
            Headers.of_parsed(event.headers.raw_items()),
        )

    def _receive_body(self, data: bytes, response: Response) -> Response | None:
        try:
            if self._read_body():
                return self._with_body(response)
            # In slices: h11 keeps all that it is given.
            for start in range(0, len(data), MAX_LINE_SIZE):
                self._parser.receive_data(data[start : start + MAX_LINE_SIZE])
                if self._read_body():
                    return self._with_body(response)
        except InvalidMessage:
            # Its chunks are none. The status, and what came before, still say why.
            return self._with_body(response)
        return None

    def _read_body(self) -> bool:
        """Take what has come of the body; say whether no more of it is wanted."""
        while (event := next_event(self._parser, "response")) is not h11.NEED_DATA:
            if isinstance(event, h11.Data):
                self._body += event.data[: MAX_BODY_SIZE - len(self._body)]
            if isinstance(event, h11.EndOfMessage) or len(self._body) == MAX_BODY_SIZE:
                return True
        return False

    def _with_body(self, response: Response) -> Response:
        return replace(response, body=bytes(self._body))


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
    if connection is not None and connection.lower() in _USUAL_CONNECTIONS:
        return
    if connection is None or "upgrade" not in map(str.lower, parse_connection(connection)):
        raise InvalidUpgrade("Connection", connection)
