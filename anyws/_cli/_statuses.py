"""The exit statuses, and which of them an error or the end of a connection has.

Owns the numbers that scripts rely on, and the one line that is said of a failure.
"""

from __future__ import annotations

import ssl
from typing import Final

from ..exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    KeepaliveTimeout,
    ProtocolError,
    ProxyError,
)
from ._formatting import escape

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
UNREACHABLE: Final = 4
TIMED_OUT: Final = 5
REGISTERED: Final = 30
PRIVATE: Final = 40
SIGNALLED: Final = 128

TABLE = """\
exit status:
  0         closed with 1000, 1001 or without a code
  1         the input is not what was asked for, or the output cannot be written
  2         wrong usage
  3         the server refused the opening handshake, or is none for WebSocket
  4         no connection: name, network, certificate or proxy
  5         a time-out
  30, 40    closed with a code in 3000..3999, in 4000..4999
  102-114   closed with 1002 to 1014: 1011 is 111; 106 is a lost connection
  130, 143  ended by Ctrl-C (SIGINT), by SIGTERM
"""

# OpenSSL's numbers of errors that no authority mends: a certificate that is not valid yet or any
# more, or that is for another host or address.
_NOT_FOR_THIS = {9, 10, 62, 64}

# A body may be a whole page; what a server says about a refusal stands at its beginning.
_MAX_BODY_SIZE = 500


def status_of_end(closed: ConnectionClosed) -> int:
    """Give the exit status of a connection that has ended (RFC 6455 section 7.1.5).

    It goes by the code that the peer closed with, or by ours where the peer broke the protocol.
    """
    code = closed.code
    if isinstance(closed.__cause__, ProtocolError):
        code = closed.__cause__.code
    if code in {1000, 1001, 1005}:
        return OK
    if code >= 4000:
        return PRIVATE
    if code >= 3000:
        return REGISTERED
    return code - 900


def describe_end(closed: ConnectionClosed) -> str:
    """Say how a connection has ended."""
    if isinstance(closed, KeepaliveTimeout) or closed.__cause__ is None:
        return f"closed: {closed}"
    return f"closed: {closed}: {escape(str(closed.__cause__) or repr(closed.__cause__))}"


def status_of_failure(error: Exception) -> int:
    """Give the exit status of a connection that was not opened, or of one that has ended."""
    if isinstance(error, ConnectionClosed):
        return status_of_end(error)
    if isinstance(error, TimeoutError):
        return TIMED_OUT
    if isinstance(error, InvalidHandshake) and not isinstance(error, ProxyError):
        return REFUSED
    return UNREACHABLE


def describe_failure(error: Exception) -> str:
    """Say why a connection was not opened, or how it has ended."""
    if isinstance(error, ConnectionClosed):
        return describe_end(error)
    text = (isinstance(error, OSError) and error.strerror) or str(error) or repr(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        whose, advice = "server", "--cacert FILE names who is, --insecure does without"
        # `connect` notes where it was. Neither option is for proxies.
        if any(note.startswith("at the proxy") for note in getattr(error, "__notes__", ())):
            whose, advice = "proxy", "SSL_CERT_FILE=FILE in the environment names who is"
        if error.verify_code in _NOT_FOR_THIS and whose == "server":
            advice = "--insecure does without"
        reason = error.verify_message.rstrip(".")
        text = f"the certificate of the {whose} is not trusted: {reason}; {advice}"
    elif isinstance(error, InvalidStatus) and error.response.body:
        text += f"\n{error.response.body[:_MAX_BODY_SIZE].decode(errors='replace').strip()}"
    # What the server says stands in its body, of which this is only the beginning.
    notes = "".join(
        f" ({note})"
        for note in getattr(error, "__notes__", ())
        if not note.startswith("the server says")
    )
    return escape(text + notes, keep="\n\t")
