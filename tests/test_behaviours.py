"""The table of promises and the tests that prove them: it cannot rot."""

from __future__ import annotations

from tests.behaviours import TABLE, build_table, find_proofs, read_promises

NUMBERS = {*range(1, 110)}


def test_table_has_each_promise() -> None:
    assert set(read_promises()) == NUMBERS


def test_each_promise_has_a_test_on_all_loops() -> None:
    proofs = find_proofs()
    missing = [
        number
        for number in sorted(NUMBERS)
        if not any(proof.on_all_loops for proof in proofs.get(number, []))
    ]
    assert missing == []


def test_no_test_claims_a_promise_that_does_not_exist() -> None:
    assert set(find_proofs()) <= NUMBERS


def test_table_names_the_tests() -> None:
    assert TABLE.read_text(encoding="utf-8") == build_table(), "run: python -m tests.behaviours"
