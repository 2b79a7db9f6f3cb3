"""The scenarios: what is sent, over how many connections, and what is counted.

Owns one table; knows no library and no process.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class Kind(enum.Enum):
    """What a scenario does with the endpoint that it measures."""

    ECHO = "echo"
    """A server sends back each message."""
    HANDSHAKE = "handshake"
    """A server opens and closes connections."""
    IDLE = "idle"
    """A server has connections on which nothing happens."""
    BROADCAST = "broadcast"
    """A server sends a message from one to all."""
    CLIENT_ECHO = "client echo"
    """A client sends back each message."""
    CLIENT_COUNT = "client count"
    """A client counts messages, and says from time to time how many it has."""


@dataclass(frozen=True)
class Scenario:
    """One thing that is measured.

    Args:
        key: its short name, for the command line and the tables.
        title: what it is, in words; "{}" stands for the number of connections.
        kind: what happens.
        size: bytes of a message.
        connections: how many there are; for IDLE, those that are open before the first mark.
        more: for IDLE, the connections that are opened between the marks.
        window: messages under way at a time on each connection.
        batch: for CLIENT_COUNT, messages between two answers.
        deflate: whether permessage-deflate is negotiated.
        tls: whether it runs over TLS.
        max_operations: where a measurement ends at the latest, whatever the time.
        times: how many times as long as others it takes. Where a message of each connection fills
            the time of one, a single collection of garbage would be most of the figure.
    """

    key: str
    title: str
    kind: Kind = Kind.ECHO
    size: int = 64
    connections: int = 1
    more: int = 0
    window: int = 1
    batch: int = 1
    deflate: bool = False
    tls: bool = False
    max_operations: int = 1_000_000
    times: int = 1

    @property
    def description(self) -> str:
        """What it is, in words."""
        return self.title.format(f"{self.connections:,}")

    @property
    def unit(self) -> str:
        """What its figures count."""
        return "KiB/connection" if self.kind is Kind.IDLE else "µs"

    @property
    def of_client(self) -> bool:
        """Whether it measures a client."""
        return self.kind in {Kind.CLIENT_ECHO, Kind.CLIENT_COUNT}

    def quick(self) -> Scenario:
        """Give a small form of it, which shows that it works and no more."""
        return replace(
            self,
            connections=min(self.connections, 100),
            more=min(self.more, 100),
            batch=min(self.batch, 500),
            max_operations=min(self.max_operations, 2_000),
            times=1,
        )


_IDLE = Scenario("", "", Kind.IDLE, connections=50, more=1000)
_GROWTH = "64 B, {} connections with one in flight each"

SCENARIOS = (
    Scenario("S1", "ping-pong of 64 B"),
    Scenario("S2", "64 B, 64 in flight", window=64),
    Scenario("S3", _GROWTH, connections=100),
    Scenario("S4", "ping-pong of 64 KiB", size=2**16),
    Scenario("S5", "ping-pong of 1 MiB", size=2**20),
    Scenario("S6", "ping-pong of 1 KiB JSON, permessage-deflate", size=2**10, deflate=True),
    replace(_IDLE, key="S7", title="memory of an idle connection"),
    replace(
        _IDLE,
        key="S7d",
        title="memory after one message with permessage-deflate",
        size=2**10,
        deflate=True,
    ),
    Scenario("S8", "opening and closing a connection", Kind.HANDSHAKE, max_operations=5_000),
    Scenario("S1t", "ping-pong of 64 B over TLS", tls=True),
    Scenario("S4t", "ping-pong of 64 KiB over TLS", size=2**16, tls=True),
    Scenario("B1000", "broadcast of 64 B to {} connections", Kind.BROADCAST, connections=1000),
    Scenario("N10", _GROWTH, connections=10),
    Scenario("N1000", _GROWTH, connections=1000),
    Scenario("N5000", _GROWTH + ", for 8 times as long", connections=5000, times=8),
    Scenario("S9a", "a client is fed 64 B messages", Kind.CLIENT_COUNT, batch=20_000),
    Scenario("S9b", "a client is fed 64 KiB messages", Kind.CLIENT_COUNT, size=2**16, batch=200),
    Scenario("S10", "a client's ping-pong of 64 B", Kind.CLIENT_ECHO),
)

GROUPS = {
    "Messages through a server": ("S1", "S2", "S3", "S4", "S5", "S6"),
    "Connections of a server": ("S7", "S7d", "S8", "B1000"),
    "A server over TLS": ("S1t", "S4t"),
    "A server with more and more connections": ("S1", "N10", "S3", "N1000", "N5000"),
    "Messages through a client": ("S9a", "S9b", "S10"),
}
"""The tables of the report, by their titles."""
