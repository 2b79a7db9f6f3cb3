"""What makes DEFLATE streams: the standard library's zlib, or isal where it is installed.

Owns the choice. Both write the same format; isal takes half of the time of zlib's level 3 for 1 KiB
of JSON, and an eighth for 64 KiB, for as many bytes. Inflating is zlib's alone: for small messages
isal gains nothing there, and takes twice the memory.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

try:
    from isal import isal_zlib
except ImportError:
    isal_zlib = None  # type: ignore[assignment]  # an extra: anyws[speed]

if TYPE_CHECKING:
    from .._types import BytesLike

Backend: TypeAlias = Literal["zlib", "isal"]

DEFAULT_BACKEND: Final[Backend] = "zlib" if isal_zlib is None else "isal"
"""Who compresses where the user does not say: isal if it is installed."""

# isal's levels 1 to 3 differ by 1 % in size and nothing in time for messages of 1 KiB, but level 1
# takes 31 KiB of memory and the others 80 KiB.
_ISAL_LEVEL = 1

# A window of 256 bytes cannot be had for raw DEFLATE; 9 bits is the least.
MIN_WINDOW_BITS: Final = 9


class Compressor(Protocol):
    """The part of zlib's interface that is used."""

    def compress(self, data: BytesLike, /) -> bytes:
        """Take data, and give what is ready of the stream."""

    def flush(self, mode: int, /) -> bytes:
        """Give the rest of what was taken, up to a whole byte."""


def choose_backend(backend: Backend | None) -> Backend:
    """Give what is to be used; None leaves the choice to us.

    Raises:
        ValueError: there is no such backend, or it is not installed.
    """
    if backend is None:
        return DEFAULT_BACKEND
    if backend not in {"zlib", "isal"}:
        raise ValueError(f"backend {backend!r}, expected 'zlib', 'isal' or None")
    if backend == "isal" and isal_zlib is None:
        raise ValueError("backend 'isal' is not installed: pip install 'anyws[speed]'")
    return backend


def make_compressor(backend: Backend, *, level: int, bits: int, mem_level: int) -> Compressor:
    """Make what writes a raw DEFLATE stream.

    Args:
        backend: who writes it; what isal cannot do zlib does.
        level: -1 to 9; isal has one for all but 0.
        bits: those of the window, 8 to 15. With 8, references go to the byte before and no further
            back: that stays inside 256 bytes, whatever window zlib is given.
        mem_level: 1 to 9.
    """
    # A negative window is zlib's word for raw DEFLATE.
    if bits < MIN_WINDOW_BITS:
        return zlib.compressobj(level, zlib.DEFLATED, -MIN_WINDOW_BITS, mem_level, zlib.Z_RLE)
    if backend == "isal" and level:
        return isal_zlib.compressobj(_ISAL_LEVEL, isal_zlib.DEFLATED, -bits, mem_level)
    return zlib.compressobj(level, zlib.DEFLATED, -bits, mem_level)
