"""Messages as a user gives them: their type and their bytes, and one for many connections.

Owns what can be sent; knows no frame and no connection. RFC 6455 section 5.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._types import BytesLike, DataLike, Opcode

if TYPE_CHECKING:
    from collections.abc import Hashable


class SharedMessage:
    """A message for many connections, and its frames by what the connections have agreed on.

    Args:
        message: str for Text, a bytes-like object for Binary.
        text: as in `Protocol.send_message`.

    Raises:
        TypeError: it is neither.
        ValueError: a str has a lone surrogate, and so no UTF-8.
    """

    def __init__(self, message: DataLike, text: bool | None) -> None:
        self.payload: BytesLike
        is_text, self.payload = encode_data(message, text)
        self.opcode: Opcode = Opcode.TEXT if is_text else Opcode.BINARY
        self.frames: dict[Hashable, bytes] = {}


def encode_data(data: DataLike, text: bool | None) -> tuple[bool, BytesLike]:
    """Give whether `data` is Text, and its bytes.

    Raises:
        TypeError: it is neither str nor bytes-like, or `text` is no bool.
        ValueError: it is a str with lone surrogates, which has no UTF-8.
    """
    if text is not None and not isinstance(text, bool):
        raise TypeError(f"text must be a bool or None, not {type(text).__name__}")
    if isinstance(data, str):
        return text is None or text, data.encode()
    if isinstance(data, (bytes, bytearray)):
        return bool(text), data
    if isinstance(data, memoryview):
        return bool(text), data.tobytes()
    raise TypeError(wrong_type(data))


def wrong_type(data: object, *, or_iterable: bool = False) -> str:
    """Say that `data` is nothing that can be sent.

    Args:
        data: what was to be.
        or_iterable: whether the fragments of a message would have been taken too.
    """
    wanted = "bytearray, memoryview, or an iterable of them"
    if not or_iterable:
        wanted = "bytearray or memoryview"
    return f"message of type {type(data).__name__}, expected str, bytes, {wanted}"
