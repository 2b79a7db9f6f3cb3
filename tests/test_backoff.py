"""When to try again, without a clock: the delays, what a server asks for, and which errors."""

from __future__ import annotations

import email.utils
import math
import ssl
import time
from itertools import islice
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyws import (
    Backoff,
    ConnectionClosedError,
    Headers,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    KeepaliveTimeout,
    NegotiationError,
    Response,
    default_retry,
)
from anyws._reconnect import parse_retry_after


def first(count: int, backoff: Backoff) -> list[float]:
    return list(islice(backoff.delays(), count))


def test_delays_grow_by_the_factor_up_to_the_maximum() -> None:
    assert first(9, Backoff(jitter=False)) == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert first(3, Backoff(initial=1, factor=10, max=50, jitter=False)) == [1, 10, 50]
    assert first(3, Backoff(initial=7, factor=1, max=7, jitter=False)) == [7, 7, 7]


def test_delays_never_end_and_never_exceed_the_maximum() -> None:
    assert first(3000, Backoff(jitter=False))[-1] == 60


def test_jitter_takes_a_random_part_of_the_whole_delay() -> None:
    backoff = Backoff(initial=1, factor=1, max=1)
    delays = first(1000, backoff)
    assert all(0 <= delay <= 1 for delay in delays)
    # Full jitter: the odds that a thousand of them leave out a tenth are 1 to 10**44.
    assert {math.floor(delay * 10) for delay in delays} >= set(range(10))
    assert all(
        delay <= limit
        for delay, limit in zip(first(8, Backoff()), first(8, Backoff(jitter=False)), strict=True)
    )


def test_each_series_of_delays_begins_anew() -> None:
    backoff = Backoff(jitter=False)
    first(5, backoff)
    assert first(2, backoff) == [0.5, 1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"initial": 0}, "initial of 0 is not above 0 and finite"),
        ({"max": math.inf}, "max of inf is not above 0 and finite"),
        ({"stable_after": -1}, "stable_after of -1 is not above 0 and finite"),
        ({"factor": math.nan}, "factor of nan is not above 0 and finite"),
        ({"factor": 0.5}, "factor of 0.5 is under 1"),
        ({"initial": 61}, "initial of 61 seconds exceeds max of 60.0 seconds"),
    ],
)
def test_number_out_of_range_is_a_valueerror(arguments: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Backoff(**arguments)


def test_jitter_that_is_no_bool_is_a_typeerror() -> None:
    value: Any = "no"
    with pytest.raises(TypeError, match="jitter must be a bool, not str"):
        Backoff(jitter=value)


@pytest.mark.parametrize(("value", "kind"), [("1", "str"), (True, "bool")])
def test_what_is_no_number_is_a_typeerror(value: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=f"initial must be a number, not {kind}"):
        Backoff(initial=value)


# Retry-After.


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


def refusal(status: int, **fields: str) -> InvalidStatus:
    headers = Headers({name.replace("_", "-"): value for name, value in fields.items()})
    return InvalidStatus(Response(status, "", headers))


DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("00120", 120),
        ("86401", 86400),
        ("9" * 5000, 86400),
        ("Sun, 06 Nov 1994 08:50:07 GMT", 30),
        ("Sunday, 06-Nov-94 08:50:07 GMT", 30),
        ("Sun Nov  6 08:50:07 1994", 30),
        ("Sun, 06 Nov 1994 08:49:07 GMT", 0),
        ("Sun, 06 Nov 2094 08:49:07 GMT", 86400),
        ("soon", 0),
        ("-1", 0),
        ("1.5", 0),
        ("\u00b2", 0),
        ("", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(status: int, value: str, seconds: float) -> None:
    assert parse_retry_after(refusal(status, Retry_After=value, Date=DATE)) == seconds


def test_date_is_compared_with_our_clock_when_the_server_does_not_tell_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_000_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    value = email.utils.formatdate(now + 90, usegmt=True)
    assert parse_retry_after(refusal(503, Retry_After=value)) == 90
    assert parse_retry_after(refusal(503, Retry_After=value, Date="today")) == 90


def test_retry_after_of_anything_else_means_nothing() -> None:
    assert parse_retry_after(refusal(500, Retry_After="120")) == 0
    assert parse_retry_after(refusal(503)) == 0
    assert parse_retry_after(OSError()) == 0


# latin-1 is what a field of HTTP can hold.
@given(st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"])))
def test_any_retry_after_is_a_bounded_time(value: str) -> None:
    assert 0 <= parse_retry_after(refusal(503, Retry_After=value)) <= 86400


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 06 Nov 1994 08:49:37 +9999999999999",
        "Sun, 06 Nov 1994 08:49:37 +9959",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Sun, 99 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 99999999999999 08:49:37 GMT",
    ],
)
def test_strange_date_is_a_bounded_time(value: str) -> None:
    assert 0 <= parse_retry_after(refusal(503, Retry_After=value)) <= 86400


# default_retry.


def caused(exc: Exception, cause: Exception) -> Exception:
    exc.__cause__ = cause
    return exc


@pytest.mark.parametrize(
    "exc",
    [
        ConnectionRefusedError(),
        OSError("no address answered"),
        TimeoutError("no connection after 10 seconds"),
        ssl.SSLError("wrong version number"),
        *(refusal(status) for status in (429, 500, 502, 503, 504, 599)),
        caused(InvalidMessage("connection closed"), anyio.EndOfStream()),
        caused(InvalidMessage("connection lost"), anyio.BrokenResourceError()),
        caused(InvalidMessage("connection lost"), anyio.ClosedResourceError()),
        alert("TLSV1_ALERT_INTERNAL_ERROR"),
        ConnectionClosedError(None, None),
        KeepaliveTimeout(None, None),
    ],
    ids=repr,
)
def test_passing_error_is_worth_another_try(exc: Exception) -> None:
    assert default_retry(exc)


@pytest.mark.parametrize(
    "exc",
    [
        *(refusal(status) for status in (200, 302, 400, 401, 403, 404, 426, 600)),
        InvalidURI("http://h/", "bad scheme"),
        InvalidMessage("malformed HTTP response"),
        InvalidUpgrade("Upgrade", "h2c"),
        InvalidHandshake("text"),
        NegotiationError("text"),
        ssl.SSLCertVerificationError(),
        alert("TLSV1_ALERT_UNKNOWN_CA"),
        alert("TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        alert("SSLV3_ALERT_CERTIFICATE_EXPIRED"),
        ValueError(),
    ],
    ids=repr,
)
def test_lasting_error_is_not(exc: Exception) -> None:
    assert not default_retry(exc)
