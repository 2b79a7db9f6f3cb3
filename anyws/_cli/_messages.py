"""What a line of input is as a message, and a message as output for a program.

Owns the three forms that scripts choose from: text, raw bytes (`--binary`) and hexadecimal digits
(`--hex`). What people see of a message stands in `_formatting`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ._formatting import escape

if TYPE_CHECKING:
    from .._types import Data


class InputError(Exception):
    """The input cannot be sent as it was asked to be."""


def parse_line(line: bytes, form: str) -> Data:
    """Make a message of a line.

    Args:
        line: without its end.
        form: "text", "binary" or "hex".

    Raises:
        InputError: it is no UTF-8, or no hexadecimal digits.
    """
    if form == "binary":
        return line
    if form == "hex":
        return parse_hex(line.decode("latin-1"))
    try:
        return line.decode()
    except UnicodeDecodeError as exc:
        problem = f"line is not UTF-8 at byte {exc.start}; --binary sends any bytes"
        raise InputError(problem) from None


def parse_hex(text: str) -> bytes:
    """Make bytes of hexadecimal digits, with or without white space between them.

    Raises:
        InputError: they are none.
    """
    digits = re.sub(r"\s", "", text)
    try:
        return bytes.fromhex(digits)
    except ValueError:
        shown = escape(text if len(text) <= 40 else f"{text[:40]}...")
        raise InputError(f"'{shown}' is not an even number of hexadecimal digits") from None


def build_output(message: Data, form: str, *, terminal: bool) -> bytes:
    """Make what goes to standard output of a message.

    A Binary message is a line of hexadecimal digits unless raw bytes are asked for; these never
    go to a terminal.

    Args:
        message: as it was received.
        form: "text", "binary" or "hex".
        terminal: whether the output is one.
    """
    if form == "binary" and not terminal:
        return message.encode() if isinstance(message, str) else message
    if form == "hex" and isinstance(message, str):
        message = message.encode()
    if isinstance(message, bytes):
        return message.hex().encode() + b"\n"
    return (escape(message, keep="\n\t") if terminal else message).encode() + b"\n"
