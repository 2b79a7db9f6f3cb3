"""The faces of the package: what `__all__` has, and under which name it shows itself."""

from __future__ import annotations

import pickle
from types import FunctionType, ModuleType

import pytest

import anyws
import anyws.sansio
import anyws.testing

FACES = [anyws, anyws.exceptions, anyws.sansio, anyws.testing]


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_each_name_is_there_once(face: ModuleType) -> None:
    assert len(set(face.__all__)) == len(face.__all__)
    assert all(hasattr(face, name) for name in face.__all__)


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_each_class_and_function_shows_a_public_path(face: ModuleType) -> None:
    public = {other.__name__: other for other in FACES}
    for name in face.__all__:
        item = getattr(face, name)
        if isinstance(item, type | FunctionType):
            assert getattr(public[item.__module__], name) is item


def test_path_is_the_shortest_that_users_have() -> None:
    assert repr(anyws.Connection) == "<class 'anyws.Connection'>"
    assert repr(anyws.sansio.Headers) == "<class 'anyws.Headers'>"
    assert repr(anyws.sansio.Protocol) == "<class 'anyws.sansio.Protocol'>"
    assert repr(anyws.InvalidStatus) == "<class 'anyws.exceptions.InvalidStatus'>"


def test_pickle_names_the_public_path() -> None:
    pickled = pickle.dumps(anyws.Close(1000, "bye"), protocol=0)
    assert b"canyws\nClose\n" in pickled
    assert pickle.loads(pickled) == anyws.Close(1000, "bye")
