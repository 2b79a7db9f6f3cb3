"""Text for people: what may go to a terminal, hex dumps, heads of the handshake, colours.

Owns how things look; writes nothing but notices to stderr. What a peer sends must not reach a
terminal as it is: with control characters it could move the cursor, or make the terminal type.
"""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from typing import TYPE_CHECKING

from .._http import HIDDEN_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from .._connection import Connection
    from .._http import Headers, Response
    from .._types import Data

# Control, format, surrogate, line and paragraph separator: what acts, or deceives, when shown.
_ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

# Format characters that join and separate letters and emoji; they do nothing else.
_JOINERS = "\u200c\u200d"

# What is shown of one message: a few screens of text, and 16 lines of hex.
_MAX_SHOWN_CHARACTERS = 10_000
_MAX_SHOWN_BYTES = 256

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "cyan": 36}


class Palette:
    """Colours, or none.

    Args:
        enabled: whether to use them.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled

    def __call__(self, colour: str, text: str) -> str:
        """Give the text in a colour: red, green, yellow or cyan."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self.enabled else text


def palette_for(stream: TextIO) -> Palette:
    """Give the colours for a stream: none unless it is a terminal, and NO_COLOR is not set.

    See https://no-color.org.
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return Palette(enabled=stream.isatty() and not plain)


def tell(text: str, colour: str = "yellow") -> None:
    """Write a notice of our own to stderr, where no prompt is shown.

    Args:
        text: one line or several; nothing of the peer's that is not escaped.
        colour: its colour on a terminal.
    """
    if sys.stderr is None:
        return  # it was closed before the program began
    # Who has closed stderr wants no notices.
    with contextlib.suppress(OSError, ValueError):
        # In one piece with its line end: what is typed meanwhile is echoed behind it.
        sys.stderr.write(palette_for(sys.stderr)(colour, text) + "\n")
        sys.stderr.flush()


def complain(text: str) -> None:
    """Write to stderr what went wrong."""
    tell(f"anyws: {text}", "red")


def escape(text: str, keep: str = "\t") -> str:
    r"""Show what would act on a terminal as Python writes it: `\x1b`.

    Args:
        text: anything.
        keep: what passes all the same.
    """
    if text.isprintable():
        return text
    kept = keep + _JOINERS
    return "".join(
        character
        if character in kept or unicodedata.category(character) not in _ACTING
        else repr(character)[1:-1]
        for character in text
    )


def hex_dump(data: bytes, limit: int = _MAX_SHOWN_BYTES) -> Iterator[str]:
    """Give lines of 16 bytes: offset, hexadecimal digits, and ASCII.

    Args:
        data: anything.
        limit: bytes that are shown at the most.
    """
    for offset in range(0, min(len(data), limit), 16):
        row = data[offset : min(offset + 16, limit)]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{offset:08x}  {row.hex(' '):<47}  {text}"
    if len(data) > limit:
        yield f"... {len(data) - limit:,} more bytes"


def show_message(message: Data, palette: Palette) -> str:
    """Give a message that was received as it stands on a terminal, bounded."""
    mark = palette("green", "<")
    if isinstance(message, bytes):
        unit = "byte" if len(message) == 1 else "bytes"
        lines = [f"{len(message):,} {unit}", *hex_dump(message)]
    else:
        text = message[:_MAX_SHOWN_CHARACTERS]
        lines = escape(text, keep="\n\t").split("\n")
        if len(message) > len(text):
            lines.append(f"... {len(message) - len(text):,} more characters")
    return f"{mark} " + "\n  ".join(lines)


def show_handshake(ws: Connection) -> list[str]:
    """Give the heads of the request and of the response (RFC 6455 section 1.3)."""
    lines = [f"> {ws.request.method} {escape(ws.request.path)} HTTP/1.1"]
    lines += _show_fields(">", ws.request.headers)
    return lines + show_response(ws.response)


def show_response(response: Response) -> list[str]:
    """Give the head of a response."""
    line = f"< HTTP/1.1 {response.status} {escape(response.reason)}"
    return [line, *_show_fields("<", response.headers)]


def show_agreement(ws: Connection) -> str:
    """Say which subprotocol and which extensions were agreed on."""
    extensions = ws.response.headers.get("Sec-WebSocket-Extensions", "none")
    return f"subprotocol: {ws.subprotocol or 'none'}; extensions: {escape(extensions)}"


def _show_fields(mark: str, headers: Headers) -> list[str]:
    # As in a log: who copies the screen into a report must not copy a password.
    return [
        f"{mark} {name}: {'<hidden>' if name.lower() in HIDDEN_FIELDS else escape(value)}"
        for name, value in headers.items()
    ]
