"""Each input that was made by hand or found by a fuzzer: what was mended stays mended."""

from __future__ import annotations

import pytest

from tests.fuzzing.seeds import CORPUS, read_inputs
from tests.fuzzing.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_found_with_what_is_known(target: str) -> None:
    inputs = read_inputs(target)
    assert inputs
    for name, data in inputs.items():
        try:
            TARGETS[target](data)
        except Exception as exc:
            exc.add_note(f"with the input {name}")
            raise


def test_corpus_has_nothing_but_inputs_of_targets() -> None:
    for path in CORPUS.rglob("*.*"):
        assert path.suffix == ".bin"
        assert path.parent.parent == CORPUS
        assert path.parent.name in TARGETS
