"""What may go to a terminal: nothing that acts on it, and colours only where they are wanted."""

from __future__ import annotations

import io

import pytest

import anyws
from anyws._cli._formatting import (
    Palette,
    complain,
    escape,
    hex_dump,
    palette_for,
    show_message,
    show_response,
)

PLAIN = Palette(enabled=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本 👍🏽", "plain é 日本 👍🏽"),
        ("\x1b[2J\x07\x7f\x9b", r"\x1b[2J\x07\x7f\x9b"),
        ("right\u202eleft\u2066", r"right\u202eleft\u2066"),
        ("line\u2028line\nline\r", r"line\u2028line\nline\r"),
        ("tab\tjoined 👩\u200d👧 nbsp\xa0", "tab\tjoined 👩\u200d👧 nbsp\xa0"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_acts_on_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_hex_dump_has_offset_digits_and_ascii() -> None:
    assert list(hex_dump(b"0123456789abcdef\x00\xff~")) == [
        "00000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef",
        "00000010  00 ff 7e                                         ..~",
    ]


def test_hex_dump_is_bounded() -> None:
    assert list(hex_dump(bytes(1020), limit=20)) == [
        "00000000  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................",
        "00000010  00 00 00 00                                      ....",
        "... 1,000 more bytes",
    ]


def test_text_is_shown_with_its_lines_indented() -> None:
    assert show_message("one\ntwo\x1b", PLAIN) == "< one\n  two\\x1b"


def test_text_is_bounded() -> None:
    assert show_message("x" * 12_345, PLAIN) == f"< {'x' * 10_000}\n  ... 2,345 more characters"


def test_binary_is_shown_with_its_size() -> None:
    assert show_message(b"\x01A", PLAIN) == (f"< 2 bytes\n  00000000  01 41{' ' * 42}  .A")


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert palette_for(Terminal())("red", "x") == "\x1b[31mx\x1b[0m"
    assert palette_for(io.StringIO())("red", "x") == "x"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_terminal_has_no_colours_when_the_environment_says_so(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    assert not palette_for(Terminal()).enabled


def test_notice_is_lost_when_stderr_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    complain("nobody reads this")


def test_secrets_of_the_handshake_are_hidden() -> None:
    fields = anyws.Headers([("Set-Cookie", "id=secret"), ("Server", "test")])
    assert show_response(anyws.Response(403, "Forbidden", fields)) == [
        "< HTTP/1.1 403 Forbidden",
        "< Set-Cookie: <hidden>",
        "< Server: test",
    ]
