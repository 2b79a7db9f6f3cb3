"""The faces of the package: what `__all__` has, under which name it shows itself, and its types."""

from __future__ import annotations

import inspect
import pickle
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, get_type_hints

import pytest

import anyws
import anyws.sansio
import anyws.testing

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def functions_of(item: type) -> Iterator[FunctionType]:
    """Give the public methods and properties of a class, and what a block or a loop calls."""
    called = {"__init__", "__aenter__", "__aexit__", "__aiter__", "__anext__", "__await__"}
    for name in dir(item):
        if name.startswith("_") and name not in called:
            continue
        member = inspect.getattr_static(item, name)
        if isinstance(member, property):
            member = member.fget
        elif isinstance(member, classmethod | staticmethod):
            member = member.__func__
        if isinstance(member, FunctionType):
            yield member


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_annotations_can_be_resolved_at_run_time(face: ModuleType) -> None:
    """As frameworks do that inject dependencies, check types or write documentation."""
    items = [getattr(face, name) for name in face.__all__]
    # What recv_streaming() gives is in no `__all__`, but users hold it.
    items.append(get_type_hints(anyws.Connection.recv_streaming)["return"])
    for item in items:
        if isinstance(item, type):
            get_type_hints(item, include_extras=True)
            if not issubclass(item, Exception):  # the signature of some is that of C: there is none
                inspect.signature(item, eval_str=True)
        functions = functions_of(item) if isinstance(item, type) else [item]
        for function in functions:
            if isinstance(function, FunctionType):
                get_type_hints(function, include_extras=True)
                inspect.signature(function, eval_str=True)
