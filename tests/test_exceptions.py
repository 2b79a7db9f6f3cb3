"""The tree of errors: what each is, what it says, and what of it survives a copy."""

from __future__ import annotations

import copy
import pickle

import anyio
import pytest

import anyws
from anyws import exceptions
from anyws._http import Headers, Response
from anyws._types import Close
from anyws.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidOrigin,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    KeepaliveTimeout,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
    ProxyError,
    WebSocketException,
)

OK = Close(1000)
RESPONSE = Response(403, "Forbidden", Headers([("Content-Type", "text/plain")]), b"no")

# Of each error one, and what it says.
ERRORS = [
    (WebSocketException("text"), "text"),
    (ConnectionClosed(None, None), "no close frame received or sent"),
    (ConnectionClosedOK(OK, OK, True), "received 1000 (OK); then sent 1000 (OK)"),
    (
        ConnectionClosedOK(OK, Close(1001, "bye"), False),
        "sent 1001 (going away) bye; then received 1000 (OK)",
    ),
    (
        ConnectionClosedError(None, Close(1002, "no")),
        "sent 1002 (protocol error) no; no close frame received",
    ),
    (
        ConnectionClosedError(Close(1011, "oops"), None),
        "received 1011 (internal error) oops; no close frame sent",
    ),
    (KeepaliveTimeout(None, Close(1011)), "sent 1011 (internal error); no close frame received"),
    (InvalidURI("http://a", "bad scheme"), "'http://a' is not a WebSocket URI: bad scheme"),
    (InvalidHandshake("text"), "text"),
    (InvalidStatus(RESPONSE), "server answered with HTTP 403, expected 101"),
    (
        InvalidStatus(RESPONSE, "in a loop"),
        "server answered with HTTP 403, expected 101: in a loop",
    ),
    (InvalidMessage("junk"), "junk"),
    (InvalidMessage("too long", 431), "too long"),
    (InvalidHeader("Host"), "missing Host header"),
    (InvalidHeader("Host", None, "given twice"), "Host header: given twice"),
    (InvalidHeader("Host", "a b"), "invalid Host header: 'a b'"),
    (InvalidHeader("Host", "a b", "it has a space"), "invalid Host header: 'a b': it has a space"),
    (InvalidUpgrade("Upgrade", "h2c"), "invalid Upgrade header: 'h2c'"),
    (InvalidOrigin(None), "missing Origin header"),
    (InvalidOrigin("http://evil"), "invalid Origin header: 'http://evil'"),
    (
        InvalidOrigin("http://evil", "not allowed"),
        "invalid Origin header: 'http://evil': not allowed",
    ),
    (NegotiationError("text"), "text"),
    (ProxyError("text"), "text"),
    (ProxyError("refused", RESPONSE), "refused"),
    (ProxyError("refused", None, 5), "refused"),
    (ProtocolError("text"), "text"),
    (ProtocolError("text", 1007), "text"),
    (PayloadTooBig("text"), "text"),
    (ConcurrencyError("text"), "text"),
]

BASES = {
    "ConnectionClosed": (WebSocketException,),
    "ConnectionClosedOK": (ConnectionClosed, anyio.EndOfStream),
    "ConnectionClosedError": (ConnectionClosed, anyio.BrokenResourceError),
    "KeepaliveTimeout": (ConnectionClosedError,),
    "InvalidURI": (WebSocketException, ValueError),
    "InvalidHandshake": (WebSocketException,),
    "InvalidStatus": (InvalidHandshake,),
    "InvalidMessage": (InvalidHandshake,),
    "InvalidHeader": (InvalidHandshake,),
    "InvalidUpgrade": (InvalidHeader,),
    "InvalidOrigin": (InvalidHeader,),
    "NegotiationError": (InvalidHandshake,),
    "ProxyError": (InvalidHandshake,),
    "ProtocolError": (WebSocketException,),
    "PayloadTooBig": (ProtocolError,),
    "ConcurrencyError": (WebSocketException, RuntimeError, anyio.BusyResourceError),
    "WebSocketException": (Exception,),
}


def test_tree_is_all_that_the_module_gives() -> None:
    assert set(exceptions.__all__) == set(BASES)
    assert exceptions.__all__ == sorted(exceptions.__all__)


@pytest.mark.parametrize("name", BASES)
def test_error_has_its_place_in_the_tree(name: str) -> None:
    assert getattr(exceptions, name).__bases__ == BASES[name]


@pytest.mark.parametrize("name", BASES)
def test_error_is_a_name_of_the_package(name: str) -> None:
    assert getattr(anyws, name) is getattr(exceptions, name)


def test_each_error_is_tried_here() -> None:
    assert {type(error).__name__ for error, _ in ERRORS} == set(BASES)


@pytest.mark.parametrize(("error", "text"), ERRORS, ids=repr)
def test_error_says_what_went_wrong(error: Exception, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(("error", "text"), ERRORS, ids=repr)
def test_error_survives_copy_and_pickle(error: Exception, text: str) -> None:
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert str(twin) == text
        assert twin.args == error.args
        assert vars(twin) == vars(error)


@pytest.mark.behaviour(33, 35)
@pytest.mark.parametrize(
    ("rcvd", "code", "reason"),
    [
        (None, 1006, ""),
        (Close(1000), 1000, ""),
        (Close(1005), 1005, ""),
        (Close(3000, "bye"), 3000, "bye"),
    ],
)
def test_connection_closed_has_the_code_and_reason_of_the_peer(
    rcvd: Close | None, code: int, reason: str
) -> None:
    error = ConnectionClosed(rcvd, Close(1011, "ours"), None)
    assert (error.code, error.reason) == (code, reason)
    assert (error.rcvd, error.sent, error.rcvd_then_sent) == (rcvd, Close(1011, "ours"), None)


def test_protocol_error_has_the_code_that_answers_it() -> None:
    assert ProtocolError("text").code == 1002
    assert ProtocolError("text", 1007).code == 1007
    assert PayloadTooBig("text").code == 1009
    assert PayloadTooBig("text").problem == "text"


def test_errors_of_the_handshake_have_their_parts() -> None:
    status = InvalidStatus(RESPONSE, "in a loop")
    assert (status.response.body, status.problem) == (b"no", "in a loop")
    assert InvalidMessage("junk").status == 400
    assert InvalidMessage("too long", 431).status == 431
    origin = InvalidOrigin("http://evil", "not allowed")
    assert (origin.name, origin.value, origin.problem) == ("Origin", "http://evil", "not allowed")
    proxy = ProxyError("refused", RESPONSE)
    assert (proxy.problem, proxy.response, proxy.reply) == ("refused", RESPONSE, None)
    assert ProxyError("refused", reply=5).reply == 5
    uri = InvalidURI("http://a", "bad scheme")
    assert (uri.uri, uri.problem) == ("http://a", "bad scheme")
