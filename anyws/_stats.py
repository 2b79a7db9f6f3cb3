"""What connections have done, in numbers: the snapshots that `ws.stats` and `server.stats` give.

Owns what the numbers are called and how those of many connections become one; who counts them is
said there: `sansio` the messages and control frames, `_transports` what leaves, `_intake`
and `_outbox` what comes and how long either stood still, the decoder's queue the peaks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields

from ._link import Link
from .sansio._protocol import SHORT_HEADER_SIZE

__all__ = ["ServerStats", "Stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a connection has done up to now, or what many have; it does not change any more.

    Those of many have the sums, and of stalls and peaks the greatest.
    """

    messages_received: int = 0
    """Messages that have come whole, so that `recv()` could give them. Those that the application
    has not received yet, has left midway in `recv_streaming()`, or has dropped by closing are among
    them; those that stopped short, or came behind a Close frame or a failure, are not. While the
    inbox is full, nothing is decoded, and so nothing counted."""
    messages_sent: int = 0
    """Messages that were taken to be sent, whether they have left or not: by `send()`,
    `send_nowait()`, `broadcast()` and `broadcast_wait()`. One in fragments counts with its last."""
    bytes_received: int = 0
    """The payloads of `messages_received`, inflated; those of Text as UTF-8."""
    bytes_sent: int = 0
    """The payloads of `messages_sent`, before they were compressed; likewise."""
    wire_bytes_received: int = 0
    """All that the peer has sent behind its opening handshake, as far as it was read: frames with
    their headers, compressed as they came, and what came behind the last of them. Not TLS."""
    wire_bytes_sent: int = 0
    """All that has left behind our opening handshake, likewise. It has been taken by the system or
    the stream below; what waits in our write buffer has not, and what an abort drops never will."""
    pings_received: int = 0
    """Pings of the peer."""
    pings_sent: int = 0
    """Our Pings, those of keepalive included."""
    pongs_received: int = 0
    """Pongs of the peer, those that nobody asked for included."""
    pongs_sent: int = 0
    """Our Pongs, answers included. Fewer than `pings_received` where the peer does not read: only
    the newest Ping is answered then."""
    longest_read_stall: float = 0.0
    """Seconds that reading was paused at a stretch, because the inbox was full (`max_queue`,
    `read_limit`): the application is slower than the peer. A stall that lasts counts so far."""
    longest_write_stall: float = 0.0
    """Seconds at a stretch that anybody waited to send because more than the high-water mark
    (`write_limit`) was unsent: the peer, or the network, is slower than the application. Likewise.
    `send_nowait()` and `broadcast()` do not wait; of them `peak_write_buffer` tells."""
    peak_inbox_messages: int = 0
    """Messages, and fragments for `recv_streaming()`, that waited for the application at a time."""
    peak_inbox_bytes: int = 0
    """Likewise their bytes, as `read_limit` counts them: a character of a str as one."""
    peak_write_buffer: int = 0
    """Bytes that waited to be sent at a time, when some were about to leave; those of TLS where it
    runs on our own sockets. What leaves at once does not wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStats:
    """What a server has done up to now; it does not change any more."""

    accepted: int
    """Streams that were accepted from the listeners."""
    opened: int
    """Connections: opening handshakes that succeeded."""
    open: int
    """Connections that are open now, as in `Server.connections`."""
    refused: Mapping[int, int]
    """Requests that were answered with another HTTP status than 101, by that status."""
    failed: int
    """Opening handshakes that came to nothing without an answer: the client left or took too long,
    or TLS failed. What is neither opened, refused nor failed is under way."""
    total: Stats
    """All connections together, open and past."""


# In the order in which Stats has them.
_NAMES = tuple(field.name for field in fields(Stats))
_SUMMARIES = tuple(max if name.startswith(("longest", "peak")) else sum for name in _NAMES)

# To sum two costs 2.3 microseconds, each further one 0.15.
_BATCH = 64

_Numbers = tuple[float, ...]

_NONE: _Numbers = astuple(Stats())


def take_stats(link: Link) -> Stats:
    """Say what a connection has done up to now."""
    return _make_stats(_take_numbers(link))


def _make_stats(numbers: _Numbers) -> Stats:
    return Stats(**dict(zip(_NAMES, numbers, strict=True)))  # type: ignore[arg-type]  # each as its name has it


def _take_numbers(link: Link) -> _Numbers:
    protocol = link.protocol
    decoder = protocol.decoder
    transport = link.transport
    queue = link.inbox.queue
    gathered, gathered_size = transport.count_gathered()
    return (
        decoder.message_count,
        protocol.messages_sent + gathered,
        decoder.payload_size,
        protocol.payload_size_sent + gathered_size - SHORT_HEADER_SIZE * gathered,
        link.intake.received_size,
        transport.plain_sent_size,
        protocol.pings_received,
        protocol.pings_sent,
        protocol.pongs_received,
        protocol.pongs_sent,
        link.intake.stalls.longest,
        link.outbox.stalls.longest,
        queue.peak_count,
        queue.peak_size,
        max(transport.peak_buffer_size, transport.write_buffer_size),
    )


class Past:
    """The connections of a server that are over: their numbers without them."""

    def __init__(self) -> None:
        # Not as Stats: to make one takes 2.2 microseconds, and to ask for the numbers 0.6.
        self._numbers: list[_Numbers] = []

    def add(self, link: Link) -> None:
        """Take in one more."""
        self._numbers.append(_take_numbers(link))
        if len(self._numbers) >= _BATCH:
            self._numbers = [_sum(self._numbers)]

    def total(self, present: Iterable[Link]) -> Stats:
        """Say what they have done together, and those that are not over."""
        return _make_stats(_sum([*self._numbers, *map(_take_numbers, present)]))


def _sum(many: list[_Numbers]) -> _Numbers:
    """Say what connections have done together."""
    columns = zip(_NONE, *many, strict=True)
    return tuple(summary(column) for summary, column in zip(_SUMMARIES, columns, strict=True))
