"""The words of the protocol, against the registries of RFC 6455 sections 5.2, 7.4 and 11."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from anyws._types import (
    CLOSE_CODE_MEANINGS,
    Close,
    CloseCode,
    Failure,
    Fragment,
    Opcode,
    Ping,
    Pong,
    Role,
    State,
    is_valid_close_code,
)


def test_opcodes_are_those_of_the_rfc() -> None:
    assert {opcode.name: opcode.value for opcode in Opcode} == {
        "CONT": 0x0,
        "TEXT": 0x1,
        "BINARY": 0x2,
        "CLOSE": 0x8,
        "PING": 0x9,
        "PONG": 0xA,
    }


def test_close_codes_are_those_of_the_registry() -> None:
    assert {code.value: code.name for code in CloseCode} == {
        1000: "NORMAL_CLOSURE",
        1001: "GOING_AWAY",
        1002: "PROTOCOL_ERROR",
        1003: "UNSUPPORTED_DATA",
        1005: "NO_STATUS_RCVD",
        1006: "ABNORMAL_CLOSURE",
        1007: "INVALID_DATA",
        1008: "POLICY_VIOLATION",
        1009: "MESSAGE_TOO_BIG",
        1010: "MANDATORY_EXTENSION",
        1011: "INTERNAL_ERROR",
        1012: "SERVICE_RESTART",
        1013: "TRY_AGAIN_LATER",
        1014: "BAD_GATEWAY",
        1015: "TLS_HANDSHAKE",
    }


def test_each_close_code_has_a_meaning() -> None:
    assert set(CLOSE_CODE_MEANINGS) == set(CloseCode)


def test_close_codes_that_a_frame_may_carry_are_those_of_section_7_4() -> None:
    valid = {code for code in range(-10, 70000) if is_valid_close_code(code)}
    assert valid == {
        *(1000, 1001, 1002, 1003),
        *(1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014),
        *range(3000, 5000),
    }


@pytest.mark.behaviour(35)
@pytest.mark.parametrize(
    ("close", "text"),
    [
        (Close(1000), "1000 (OK)"),
        (Close(1001, "bye"), "1001 (going away) bye"),
        (Close(1002), "1002 (protocol error)"),
        (Close(1003), "1003 (unsupported data)"),
        (Close(1005), "1005 (no status received)"),
        (Close(1006), "1006 (abnormal closure)"),
        (Close(1007), "1007 (invalid frame payload data)"),
        (Close(1008), "1008 (policy violation)"),
        (Close(1009), "1009 (message too big)"),
        (Close(1010), "1010 (mandatory extension)"),
        (Close(1011, "oops é"), "1011 (internal error) oops é"),
        (Close(1012), "1012 (service restart)"),
        (Close(1013), "1013 (try again later)"),
        (Close(1014), "1014 (bad gateway)"),
        (Close(1015), "1015 (TLS handshake failure)"),
        (Close(1004), "1004 (unknown)"),
        (Close(2999), "2999 (unknown)"),
        (Close(3000), "3000 (registered)"),
        (Close(3999, "x"), "3999 (registered) x"),
        (Close(4000), "4000 (private use)"),
        (Close(4999), "4999 (private use)"),
        (Close(5000), "5000 (unknown)"),
    ],
)
def test_close_says_its_code_with_its_meaning_and_its_reason(close: Close, text: str) -> None:
    assert str(close) == text


EVENTS = [
    Close(1000, "bye"),
    Ping(b"a"),
    Pong(b"a"),
    Fragment("a", fin=True),
    Failure(1002, "no"),
]


@pytest.mark.parametrize("event", EVENTS)
def test_event_is_a_value(event: Any) -> None:
    twin = dataclasses.replace(event)
    assert event == twin
    assert hash(event) == hash(twin)
    assert copy.copy(event) == event
    assert pickle.loads(pickle.dumps(event)) == event
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, dataclasses.fields(event)[0].name, 1)


def test_events_of_two_kinds_are_never_equal() -> None:
    assert len({Ping(b"a"), Pong(b"a"), Close(1002, "no"), Failure(1002, "no")}) == 4


def test_states_and_roles_have_names_to_show() -> None:
    assert [state.value for state in State] == ["open", "closing", "closed"]
    assert [role.value for role in Role] == ["client", "server"]
