"""The seam: picks the codec that decodes and encodes frames.

Owns the choice alone. The rest of anyws takes the three names from here.
"""

from __future__ import annotations

from typing import Final

from ._pycodec import Decoder, apply_mask, encode_frame

__all__ = ["IMPLEMENTATION", "Decoder", "apply_mask", "encode_frame"]

IMPLEMENTATION: Final = "python"
"""Which codec is in use."""
