"""The exit status of each end, and the line that tells of it."""

from __future__ import annotations

import ssl

import pytest

import anyws
from anyws import Close, ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from anyws._cli._statuses import (
    describe_end,
    describe_failure,
    status_of_end,
    status_of_failure,
)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (1000, 0),
        (1001, 0),
        (1005, 0),
        (1002, 102),
        (1011, 111),
        (1014, 114),
        (3000, 30),
        (4999, 40),
    ],
)
def test_code_of_the_peer_gives_the_status(code: int, status: int) -> None:
    assert status_of_end(ConnectionClosed(Close(code), Close(code), True)) == status


def test_connection_that_was_lost_has_106() -> None:
    assert status_of_end(ConnectionClosedError(None, Close(1000))) == 106
    assert status_of_end(anyws.KeepaliveTimeout(None, Close(1011))) == 106


def test_peer_that_broke_the_protocol_has_the_code_of_our_close() -> None:
    closed = ConnectionClosedError(None, Close(1009))
    closed.__cause__ = anyws.PayloadTooBig("too much\x1b")
    assert status_of_end(closed) == 109
    assert describe_end(closed) == (
        r"closed: sent 1009 (message too big); no close frame received: too much\x1b"
    )


def test_end_is_told() -> None:
    closed = ConnectionClosedOK(Close(1000, "bye\x1b"), Close(1000), True)
    assert describe_end(closed) == (r"closed: received 1000 (OK) 'bye\x1b'; then sent 1000 (OK)")


REFUSAL = anyws.InvalidStatus(
    anyws.Response(403, "Forbidden", anyws.Headers(), b"no\x1b \xff" + b"x" * 1000)
)
CERTIFICATE = ssl.SSLCertVerificationError(1, "bad")
CERTIFICATE.verify_code = 18
CERTIFICATE.verify_message = "self-signed certificate"
OTHER_HOST = ssl.SSLCertVerificationError(1, "bad")
OTHER_HOST.verify_code = 62
OTHER_HOST.verify_message = "Hostname mismatch, certificate is not valid for 'localhost'."
PROXY_CERTIFICATE = ssl.SSLCertVerificationError(1, "bad")
PROXY_CERTIFICATE.verify_code = 18
PROXY_CERTIFICATE.verify_message = "self-signed certificate"
PROXY_CERTIFICATE.add_note("at the proxy https://proxy:443")
NOTED = ConnectionRefusedError(111, "Connection refused")
NOTED.add_note("while connecting to nowhere")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (REFUSAL, 3, "server answered with HTTP 403, expected 101\nno\\x1b \ufffd" + "x" * 495),
        (anyws.InvalidStatus(anyws.Response(301, "")), 3, "server answered with HTTP 301"),
        (anyws.ProxyError("proxy says no"), 4, "proxy says no"),
        (NOTED, 4, "Connection refused (while connecting to nowhere)"),
        (OSError("all is lost"), 4, "all is lost"),
        (OSError(), 4, "OSError()"),
        (TimeoutError("10 seconds"), 5, "10 seconds"),
        (
            CERTIFICATE,
            4,
            "the certificate of the server is not trusted: self-signed certificate; --cacert FILE",
        ),
        (
            OTHER_HOST,
            4,
            (
                "the certificate of the server is not trusted: Hostname mismatch, certificate"
                " is not valid for 'localhost'; --insecure"
            ),
        ),
        (
            PROXY_CERTIFICATE,
            4,
            "the certificate of the proxy is not trusted: self-signed certificate; SSL_CERT_FILE=F",
        ),
        (ConnectionClosed(Close(1013), None), 113, "closed: received 1013 (try again later); no"),
    ],
)
def test_failure_has_a_status_and_a_line(error: Exception, status: int, line: str) -> None:
    assert status_of_failure(error) == status
    assert describe_failure(error).startswith(line)
