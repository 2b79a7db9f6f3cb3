"""What a connection needs of the thing that moves its bytes.

Owns the interface; knows no WebSocket, no socket and no backend.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, Protocol

from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint

from .._parking import make_parking

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import TaskGroup

    from .._parking import Parking


class Receiver(Protocol):
    """Who takes what a transport has read, and is told how it ends; none of it waits."""

    def feed(self, data: bytes | memoryview) -> bool:
        """Take a chunk.

        Args:
            data: the chunk; where it is a memoryview, it is lent for this call alone.

        Returns:
            Whether several writes are to be expected in answer, so that they may leave together.
        """

    def end_reading(self, error: Exception | None) -> None:
        """Take that nothing more will come; it is called once.

        Args:
            error: what the stream raised when it was lost; None when the peer ended its half, or
                after `abort()`.
        """

    def end_writing(self, error: Exception | None) -> None:
        """Take that nothing more will leave; it is called once.

        Args:
            error: what the stream raised when it was lost; None after `write_eof()` or `abort()`.
        """


class Transport(ByteStream):
    """A byte stream that also takes writes without waiting.

    An opening handshake uses it as the ByteStream that it is. From `start()` on it reads and sends
    by itself; what is not async may be called from any callback.
    """

    write_buffer_size: int
    """Bytes that `write` took and that have not left yet."""

    sent_size: int
    """Bytes that have left, in all: where they grow, the peer reads."""

    peak_buffer_size: int
    """The most that `write_buffer_size` has been when something was about to leave."""

    gathering: bool = False
    """Whether who writes may simply append to `gathered` instead: up to 127 bytes at a time, while
    fewer than GATHERED_COUNT are there. They leave before the next `write`, and count in
    `write_buffer_size` from then on, or from when they are about to leave."""

    gathered: list[bytes]
    """Where it is `gathering`."""

    @property
    def plain_sent_size(self) -> int:
        """Bytes of what `write` took that have left, in all, without what encrypts them."""
        return self.sent_size

    @abc.abstractmethod
    def start(self, receiver: Receiver, task_group: TaskGroup) -> None:
        """Begin to send what is written, and to feed what comes, though not within this call.

        It goes on when the scope of the task group is cancelled, so that a connection ends in its
        own way and a frame that has begun to leave is completed.

        Args:
            receiver: who is fed.
            task_group: where to start tasks, if any are needed.
        """

    @abc.abstractmethod
    def write(self, data: bytes) -> None:
        """Take all of `data`, to be sent whole and in order. Never waits.

        Small writes of one turn of the event loop may leave together, at its end. What comes after
        `write_eof()`, `abort()` or the loss of the stream is dropped.
        """

    def gather_below(self, limit: float) -> None:
        """Take that nobody waits before `limit` bytes are unsent: so some may be `gathered`."""

    def count_gathered(self) -> tuple[int, int]:
        """Say how many writes were gathered, in all, and their bytes."""
        return 0, 0

    def write_pair(self, head: bytes, body: bytes) -> None:
        """Take a head and the long body that belongs to it, as `write` takes them joined."""
        self.write(head + body)

    @abc.abstractmethod
    def write_latest(self, data: bytes) -> bool:
        """Take `data`, which the next call replaces as long as it has not begun to leave.

        A later `write` goes out after it.

        Returns:
            Whether it has replaced what an earlier call gave.
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
    def pause_reading(self) -> None:
        """Feed nothing until `resume_reading()`; one chunk may be held back."""

    @abc.abstractmethod
    def resume_reading(self) -> None:
        """Feed again."""

    def addresses(self) -> tuple[Any, Any]:
        """Give our address and the peer's; None for what the socket below does not know."""
        attributes: Mapping[Any, Callable[[], Any]] = self.extra_attributes
        local = attributes.get(SocketAttribute.local_address)
        remote = attributes.get(SocketAttribute.remote_address)
        return (None if local is None else local(), None if remote is None else remote())

    def make_parking(self) -> Parking:
        """Make the place where one task waits for what the receiver makes of what comes.

        It is here because who waits there may read meanwhile.
        """
        return make_parking()

    async def rest(self) -> None:
        """Let other tasks run, and go on.

        It is here because what was written may wait for what the caller writes then.

        Cancellation: loses nothing.
        """
        await checkpoint()

    def attend(self) -> None:
        """See that what comes is read at once, also while nobody waits for it."""

    @abc.abstractmethod
    def set_timer(self, deadline: float, callback: Callable[[], None] | None) -> None:
        """Call `callback` once at `deadline`, and not what was set before; after `start()` only.

        It is here because the cheapest timer is that of who waits for the stream anyway. It goes on
        when the scope of the task group is cancelled; its end is a deadline of math.inf.

        Args:
            deadline: a time of `anyio.current_time()`; math.inf is never.
            callback: it does not wait; None goes with math.inf.
        """

    @abc.abstractmethod
    def close(self) -> bool:
        """Close now, if that needs no waiting and nothing is left to be sent.

        What is closed, by this or by `aclose()`, holds its receiver no longer than its tasks run.

        Returns:
            Whether it is closed; if not, `aclose()` is due.
        """

    @abc.abstractmethod
    def abort(self) -> None:
        """Drop what has not left, and read no more. Never waits.

        `aclose()` afterwards closes without ceremony.
        """
