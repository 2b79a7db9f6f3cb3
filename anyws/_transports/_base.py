"""What a connection needs of the thing that moves its bytes.

Owns the interface; knows no WebSocket, no socket and no backend.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from anyio.abc import ByteStream

if TYPE_CHECKING:
    from collections.abc import Callable


class Transport(ByteStream):
    """A byte stream that also takes writes without waiting.

    An opening handshake uses it as the ByteStream that it is. From then on one task runs `pump` and
    one runs `flush_forever`, and everybody else calls what is not async.
    """

    write_buffer_size: int
    """Bytes that `write` took and that have not left yet."""

    @abc.abstractmethod
    def write(self, data: bytes) -> None:
        """Take all of `data`, to be sent whole and in order. Never waits.

        What comes after `write_eof()`, `abort()` or the loss of the stream is dropped.
        """

    @abc.abstractmethod
    def write_latest(self, data: bytes) -> None:
        """Take `data`, which the next call replaces as long as it has not begun to leave.

        A later `write` goes out after it.
        """

    @abc.abstractmethod
    def write_eof(self) -> None:
        """End our half of the stream once all that was written has left. Never waits."""

    @abc.abstractmethod
    async def drain(self, limit: int) -> bool:
        """Wait until at most `limit` bytes wait to be sent, or none will be sent any more.

        It ends with the progress of the stream, with its loss, with `abort()` or with `release()`.

        Returns:
            Whether so few are left; False when it ended before.

        Cancellation: loses nothing.
        """

    @abc.abstractmethod
    def release(self) -> None:
        """Let all who wait in `drain` go now."""

    @abc.abstractmethod
    async def pump(self, feed: Callable[[bytes], None]) -> None:
        """Read, and call `feed` with each chunk, until the peer ends its half or `abort()`.

        It runs on when the caller's scope is cancelled, so that a connection ends in its own way.

        Raises:
            Exception: whatever the stream raises when it is lost.
        """

    @abc.abstractmethod
    def pause_reading(self) -> None:
        """Make `pump` feed nothing until `resume_reading()`; it may hold one chunk back."""

    @abc.abstractmethod
    def resume_reading(self) -> None:
        """Make `pump` go on."""

    @abc.abstractmethod
    async def flush_forever(self) -> None:
        """Send what is written, until that is over by `write_eof()`, loss or `abort()`.

        It runs on when the caller's scope is cancelled: a frame that has begun to leave is
        completed.

        Raises:
            Exception: whatever the stream raises when it is lost.
        """

    @abc.abstractmethod
    def abort(self) -> None:
        """Drop what has not left, and end `pump` and `flush_forever`. Never waits.

        `aclose()` afterwards closes without ceremony.
        """
