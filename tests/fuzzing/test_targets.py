"""The targets with bytes that hypothesis makes up: for seconds, where `run` searches for hours."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzzing.seeds import REQUESTS, RESPONSES, read_inputs
from tests.fuzzing.targets import TARGETS

each_target = pytest.mark.parametrize("target", TARGETS)


@each_target
@given(data=st.binary(max_size=300))
@settings(max_examples=30)
def test_nothing_is_found_with_any_bytes(target: str, data: bytes) -> None:
    TARGETS[target](data)


@cache
def short_inputs(target: str) -> list[bytes]:
    return [data for data in read_inputs(target).values() if len(data) < 2000]


@st.composite
def changed(draw: st.DrawFn, data: bytes, others: list[bytes]) -> bytes:
    """Give an input after some changes: bytes replaced, left out, put in, or another's end."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 8)))
        new = draw(st.one_of(st.binary(max_size=8), st.just(data[start:stop] * 2)))
        data = data[:start] + new + data[stop:]
    if draw(st.booleans()):
        other = draw(st.sampled_from(others))
        data = data[: draw(st.integers(0, len(data)))] + other[draw(st.integers(0, len(other))) :]
    return data


@each_target
@given(draw=st.data())
@settings(max_examples=60)
def test_nothing_is_found_with_what_is_known_after_changes(
    target: str, draw: st.DataObject
) -> None:
    known = [data for data in read_inputs(target).values() if len(data) < 2000]
    TARGETS[target](draw.draw(changed(draw.draw(st.sampled_from(known)), known)))


def lines(heads: dict[str, bytes]) -> list[bytes]:
    """Give the different lines of heads, without those that are long or many."""
    found = {line for head in heads.values() if len(head) < 1000 for line in head.split(b"\r\n")}
    return sorted(found)


@st.composite
def heads(draw: st.DrawFn, known: dict[str, bytes]) -> bytes:
    """Give a head that is made of the lines of others, and what follows it."""
    choices = bytes(draw(st.lists(st.integers(0, 5), min_size=5, max_size=5)))
    head, *rest = draw(st.sampled_from(sorted(known.values()))).split(b"\r\n")
    chosen = draw(st.lists(st.sampled_from(lines(known)), max_size=8))
    body = draw(st.binary(max_size=20))
    kept = rest if draw(st.booleans()) else []
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\n"]))
    return choices + end.join([head, *chosen, *kept, b"", body])


@given(data=heads(REQUESTS))
@settings(max_examples=150)
def test_nothing_is_found_with_requests_of_any_lines(data: bytes) -> None:
    TARGETS["server_handshake"](data)


@given(data=heads(RESPONSES))
@settings(max_examples=150)
def test_nothing_is_found_with_responses_of_any_lines(data: bytes) -> None:
    TARGETS["client_handshake"](data[2:])
