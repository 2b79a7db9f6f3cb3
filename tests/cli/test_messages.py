"""What a line is as a message, and what a message is as output, in the three forms."""

from __future__ import annotations

import pytest

from anyws._cli._messages import InputError, build_output, parse_hex, parse_line


@pytest.mark.parametrize(
    ("line", "form", "message"),
    [
        ("é".encode(), "text", "é"),
        (b"\xff\x00", "binary", b"\xff\x00"),
        (b"00 fF\t41", "hex", b"\x00\xffA"),
        (b"", "text", ""),
        (b"", "hex", b""),
    ],
)
def test_line_is_a_message(line: bytes, form: str, message: str | bytes) -> None:
    assert parse_line(line, form) == message


def test_line_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(InputError, match="line is not UTF-8 at byte 2; --binary sends any bytes"):
        parse_line(b"ab\xff", "text")


@pytest.mark.parametrize("text", ["0", "0x41", "zz", "é"])
def test_what_is_no_hexadecimal_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"'{text}' is not an even number of hexadecimal digits"):
        parse_hex(text)


def test_error_quotes_only_the_beginning_and_escapes_it() -> None:
    with pytest.raises(InputError) as caught:
        parse_hex("\x1b" + "x" * 100)
    assert str(caught.value).startswith(rf"'\x1b{'x' * 39}...' is")


@pytest.mark.parametrize(
    ("message", "form", "terminal", "output"),
    [
        ("é\n\x1b", "text", False, "é\n\x1b\n".encode()),
        ("é\n\x1b", "text", True, "é\n\\x1b\n".encode()),
        (b"\x00\xff", "text", False, b"00ff\n"),
        (b"\x00\xff", "binary", False, b"\x00\xff"),
        ("é", "binary", False, "é".encode()),
        (b"\x00\xff", "binary", True, b"00ff\n"),
        ("A", "hex", False, b"41\n"),
        (b"A", "hex", True, b"41\n"),
    ],
)
def test_message_is_output(message: str | bytes, form: str, terminal: bool, output: bytes) -> None:
    assert build_output(message, form, terminal=terminal) == output
