"""The whole tree of errors, on one page; all of it is re-exported by `anyws`.

Owns what went wrong and how it is said; decides nothing.
"""

import anyio

from ._http import Response
from ._types import Close, CloseCode

__all__ = [
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidMessage",
    "InvalidOrigin",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "KeepaliveTimeout",
    "NegotiationError",
    "PayloadTooBig",
    "ProtocolError",
    "ProxyError",
    "WebSocketException",
]


class WebSocketException(Exception):
    """The root: whatever anyws raises of its own is one of these."""


class ConnectionClosed(WebSocketException):
    """The connection is over, or on its way there.

    Args:
        rcvd: the Close frame that the peer sent, if one came.
        sent: the Close frame that we sent, if we did.
        rcvd_then_sent: which came first, where there were both.
    """

    def __init__(
        self, rcvd: Close | None, sent: Close | None, rcvd_then_sent: bool | None = None
    ) -> None:
        super().__init__(rcvd, sent, rcvd_then_sent)
        self.rcvd = rcvd
        self.sent = sent
        self.rcvd_then_sent = rcvd_then_sent
        # A mark of the connection that is over; an error that an application makes has none.
        self._mark: object = None

    def __str__(self) -> str:
        if self.rcvd is None and self.sent is None:
            return "no close frame received or sent"
        if self.rcvd is None:
            return f"sent {self.sent}; no close frame received"
        if self.sent is None:
            return f"received {self.rcvd}; no close frame sent"
        if self.rcvd_then_sent:
            return f"received {self.rcvd}; then sent {self.sent}"
        return f"sent {self.sent}; then received {self.rcvd}"

    @property
    def code(self) -> int:
        """The close code that the peer sent; 1006 where none came (RFC 6455 section 7.1.5)."""
        return CloseCode.ABNORMAL_CLOSURE if self.rcvd is None else self.rcvd.code

    @property
    def reason(self) -> str:
        """The close reason that the peer sent; empty where none came."""
        return "" if self.rcvd is None else self.rcvd.reason


class ConnectionClosedOK(ConnectionClosed, anyio.EndOfStream):
    """Both sides closed with 1000, 1001 or no code."""


class ConnectionClosedError(ConnectionClosed, anyio.BrokenResourceError):
    """The connection ended in any other way; the cause, where there is one, is chained."""


class KeepaliveTimeout(ConnectionClosedError):
    """The peer answered no Ping within `ping_timeout`."""


class InvalidURI(WebSocketException, ValueError):
    """A URI is not one of a WebSocket resource (RFC 6455 section 3)."""

    def __init__(self, uri: str, problem: str) -> None:
        super().__init__(uri, problem)
        self.uri = uri
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.uri!r} is not a WebSocket URI: {self.problem}"


class InvalidHandshake(WebSocketException):
    """The opening handshake failed (RFC 6455 section 4)."""


class InvalidStatus(InvalidHandshake):
    """The server answered with another HTTP status than 101; the response has its body.

    Args:
        response: the answer.
        problem: what there is to say beside the status, such as why a redirect was not followed.
    """

    def __init__(self, response: Response, problem: str | None = None) -> None:
        super().__init__(response, problem)
        self.response = response
        self.problem = problem

    def __str__(self) -> str:
        text = f"server answered with HTTP {self.response.status}, expected 101"
        return text if self.problem is None else f"{text}: {self.problem}"


class InvalidMessage(InvalidHandshake):
    """What came is not an HTTP/1.1 head or body, or one over the limits.

    Args:
        status: the HTTP status that a server answers it with.
    """

    def __init__(self, problem: str, status: int = 400) -> None:
        super().__init__(problem, status)
        self.problem = problem
        self.status = status

    def __str__(self) -> str:
        return self.problem


class InvalidHeader(InvalidHandshake):
    """A field of the opening handshake is missing, doubled or has a wrong value."""

    def __init__(self, name: str, value: str | None = None, problem: str | None = None) -> None:
        super().__init__(name, value, problem)
        self.name = name
        self.value = value
        self.problem = problem

    def __str__(self) -> str:
        if self.value is None:
            return (
                f"missing {self.name} header"
                if self.problem is None
                else (f"{self.name} header: {self.problem}")
            )
        text = f"invalid {self.name} header: {self.value!r}"
        return text if self.problem is None else f"{text}: {self.problem}"


class InvalidUpgrade(InvalidHeader):
    """The Upgrade or the Connection field does not ask for, or grant, WebSocket."""


class InvalidOrigin(InvalidHeader):
    """The Origin of a request is not one that the server allows."""

    def __init__(self, value: str | None, problem: str | None = None) -> None:
        super().__init__("Origin", value, problem)
        # What copy and pickle make it of again.
        self.args: tuple[str | None, str | None] = (value, problem)


class NegotiationError(InvalidHandshake):
    """The two sides cannot agree on a subprotocol or on an extension."""


class ProxyError(InvalidHandshake):
    """A proxy did not give a connection to the server, or what the environment names is none.

    Args:
        problem: what it did.
        response: the answer of an HTTP proxy, with its body, if it is one that refuses.
        reply: the code by which a SOCKS proxy refuses, if it did (RFC 1928 section 6).
    """

    def __init__(
        self, problem: str, response: Response | None = None, reply: int | None = None
    ) -> None:
        super().__init__(problem, response, reply)
        self.problem = problem
        self.response = response
        self.reply = reply

    def __str__(self) -> str:
        return self.problem


class ProtocolError(WebSocketException):
    """The peer broke the protocol; chained to the ConnectionClosedError that follows.

    Args:
        problem: what it did, with the value and the limit.
        code: the close code that it was answered with.
    """

    def __init__(self, problem: str, code: int = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(problem, code)
        self.problem = problem
        self.code = code

    def __str__(self) -> str:
        return self.problem


class PayloadTooBig(ProtocolError):
    """A message or a fragment is over `max_size`."""

    def __init__(self, problem: str, code: int = CloseCode.MESSAGE_TOO_BIG) -> None:
        super().__init__(problem, code)


class ConcurrencyError(WebSocketException, RuntimeError, anyio.BusyResourceError):
    """Two tasks do at once what only one may do, such as recv()."""

    def __init__(self, problem: str) -> None:
        # BusyResourceError would put the text into a sentence of its own.
        Exception.__init__(self, problem)
