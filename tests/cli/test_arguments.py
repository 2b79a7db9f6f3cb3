"""Arguments as users write them; what is wrong ends with status 2 and says why."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

import anyws
from anyws._cli._arguments import (
    BenchArguments,
    ServeArguments,
    backend_of,
    parse_arguments,
)
from anyws._cli._main import main
from tests.cli.pipes import client_arguments

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


def test_client_has_what_it_was_told() -> None:
    arguments = client_arguments(
        *("-H", "X-One: 1", "--header", "X-Two:2", "-s", "a", "--subprotocol", "b"),
        *("--hex", "--count", "3", "--timeout", "0.5", "--proxy", "http://proxy"),
    )
    assert arguments.headers == [("X-One", "1"), ("X-Two", "2")]
    assert arguments.subprotocols == ["a", "b"]
    assert (arguments.form, arguments.count, arguments.timeout) == ("hex", 3, 0.5)
    assert (arguments.proxy, arguments.backend) == ("http://proxy", "asyncio")


def test_client_lists_are_its_own() -> None:
    assert client_arguments("-s", "a").subprotocols == ["a"]
    assert client_arguments().subprotocols == []


def test_first_word_chooses_the_command() -> None:
    assert isinstance(parse_arguments(["serve", "--port", "0"]), ServeArguments)
    assert isinstance(parse_arguments(["bench", "ws://localhost/"]), BenchArguments)


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("asyncio", ("asyncio", {})),
        ("uvloop", ("asyncio", {"use_uvloop": True})),
        ("trio", ("trio", {})),
    ],
)
def test_backend_is_as_anyio_names_it(
    backend: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert backend_of(client_arguments("--backend", backend)) == expected


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ([], "the following arguments are required: URI"),
        (["ws://localhost/", "--count", "0"], "0 is not at least 1"),
        (["ws://localhost/", "--count", "x"], "invalid integer value: 'x'"),
        (["ws://localhost/", "--timeout", "0"], "0 is not above 0"),
        (["ws://localhost/", "--timeout", "inf"], "inf is not above 0"),
        (["ws://localhost/", "--header", "X"], "'X' has no colon: write 'Name: value'"),
        (["ws://localhost/", "--binary", "--hex"], "not allowed with argument"),
        (["ws://localhost/", "--whole", "--hex"], "it does not go with --hex"),
        (["ws://localhost/", "--insecure", "--cacert", "x"], "not allowed with argument"),
        (["ws://localhost/", "--backend", "curio"], "invalid choice: 'curio'"),
        (["bench", "ws://localhost/", "--connections", "1001"], "1001 is not in 1..1000"),
        (["bench", "ws://localhost/", "--seconds", "601"], "601 is not above 0 and at most 600"),
        (["bench", "ws://localhost/", "-v"], "unrecognized arguments: -v"),
        (["bench", "localhost"], "'localhost' is not a WebSocket URI"),
        (["serve", "--keyfile", "x"], "--keyfile needs --certfile"),
        (["serve", "--certfile", "/nowhere"], "cannot use /nowhere: No such file"),
        (["serve", "--origin", "nonsense"], "nonsense"),
        (["serve", "--path", "chat"], "'chat' is no path such as /chat"),
        (["serve", "--path", "/chat?x"], "'/chat?x' is no path such as /chat"),
    ],
)
def test_wrong_argument_is_told(
    argv: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("backend", "command"),
    [("trio", "pip install 'anyws[trio]'"), ("uvloop", "pip install uvloop")],
)
def test_backend_that_is_missing_can_be_installed(
    backend: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def find_nothing(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find_nothing)
    with pytest.raises(SystemExit):
        client_arguments("--backend", backend)
    assert capsys.readouterr().err.endswith(f"{backend} is not installed: {command}\n")


@pytest.mark.parametrize("command", [[], ["serve"], ["bench"]])
def test_help_fits_a_terminal_and_names_each_option(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "--backend" in text


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"anyws {anyws.__version__}\n"
