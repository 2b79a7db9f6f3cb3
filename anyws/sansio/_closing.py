"""What a Close frame of ours may say: codes and reasons.

Owns their checks; knows no frame and no connection. RFC 6455 sections 5.5.1 and 7.4.
"""

from __future__ import annotations

from .._types import MAX_REASON_SIZE, Close, CloseCode, is_valid_close_code


def cut_reason(reason: str) -> str:
    """Cut a close reason to what a Close frame can carry."""
    return reason.encode()[:MAX_REASON_SIZE].decode(errors="ignore")


def check_close(code: int, reason: str) -> Close:
    """Make a Close of what a user gave.

    Raises:
        ValueError: the code or the reason is none that may be sent.
        TypeError: the code is no int, or the reason no str.
    """
    if not isinstance(code, int):
        raise TypeError(f"close code must be an int, not {type(code).__name__}")
    if not isinstance(reason, str):
        raise TypeError(f"close reason must be a str, not {type(reason).__name__}")
    if code != CloseCode.NO_STATUS_RCVD and not is_valid_close_code(code):
        raise ValueError(
            f"close code {code} may not be sent,"
            " expected 1000 to 1003, 1007 to 1014 or 3000 to 4999"
        )
    size = len(reason.encode())
    if size > MAX_REASON_SIZE:
        raise ValueError(
            f"close reason of {size} bytes exceeds the limit of {MAX_REASON_SIZE} bytes"
        )
    if reason and code == CloseCode.NO_STATUS_RCVD:
        raise ValueError(f"close reason {reason!r} without a close code")
    return Close(int(code), reason)
