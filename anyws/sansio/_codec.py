"""The seam: picks the codec that decodes and encodes frames.

Owns the choice alone. The rest of anyws takes the three names from here: from the compiled codec
where it is built, unless the environment variable ANYWS_PURE_PYTHON says not to.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

__all__ = ["IMPLEMENTATION", "Decoder", "apply_mask", "encode_frame"]

IMPLEMENTATION: str
"""Which codec is in use: "c" or "python"."""

if TYPE_CHECKING:
    from ._pycodec import Decoder, apply_mask, encode_frame
else:
    try:
        if os.environ.get("ANYWS_PURE_PYTHON", "0") not in {"", "0"}:
            raise ImportError("ANYWS_PURE_PYTHON is set")
        from ._speedups import Decoder, apply_mask, encode_frame
    except ImportError:
        from ._pycodec import Decoder, apply_mask, encode_frame

        IMPLEMENTATION = "python"
    else:
        IMPLEMENTATION = "c"
