"""The tests of the codec, for each of the codecs that are there.

Owns that `test_pycodec*.py`, which say what a codec does, are run for the compiled one too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anyws.sansio import _pycodec

if TYPE_CHECKING:
    from types import ModuleType

CODECS: list[ModuleType] = [_pycodec]
try:
    from anyws.sansio import _speedups
except ImportError:  # installed without a compiler
    pass
else:
    CODECS.append(_speedups)

NAMES = ("Decoder", "apply_mask", "encode_frame")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of the specification once for each codec."""
    if "test_pycodec" in metafunc.module.__name__:
        ids = [module.__name__.rpartition("_")[2] for module in CODECS]
        metafunc.parametrize("codec", CODECS, ids=ids, indirect=True)


@pytest.fixture(autouse=True)  # a name added to metafunc.fixturenames would be dropped again
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType | None:
    """Put another codec into the module of the test; None leaves it as it is."""
    module: ModuleType | None = getattr(request, "param", None)
    if module is not None:
        for name in NAMES:
            if hasattr(request.module, name):
                monkeypatch.setattr(request.module, name, getattr(module, name))
    return module
