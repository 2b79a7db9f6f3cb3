"""The hostile table: floods, bombs, silence, and peers that leave in any way but the right one.

Owns what they do, in small programs; each is bounded in bytes and in time.
"""

from __future__ import annotations

import zlib
from functools import cache
from threading import Thread

from tests.reliability.hostile_cases import SERVER, Case, Program, draw_frames
from tests.reliability.hostile_peer import (
    REQUEST,
    HostilePeer,
    attack_server,
)
from tests.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT

KIB, MIB = 2**10, 2**20

# Small frames make objects of ten times their size where they are kept, large ones do not: each
# flood is a multiple of what a victim may keep, if it kept all.
SMALL = MIB // 2
LARGE = 24 * MIB

GOOD = REQUEST.replace(b"PATH", b"/echo") + b"\r\n"

# A bad frame, as a server sends it.
BAD = "83 00"

# Seconds between the bytes of a peer that dribbles.
DRIBBLE = 0.01

# Seconds in which a hasty victim has given up a peer: by keepalive, and by its close_timeout.
GIVEN_UP = 0.7


# Floods.


def pings_unread(peer: HostilePeer) -> str:
    peer.flood(peer.draw(PING) * KIB, SMALL)
    return peer.judge(asks=True)


def large_pings_unread(peer: HostilePeer) -> str:
    peer.flood(peer.draw(PING, bytes(125)) * KIB, 4 * MIB)
    return peer.judge(asks=True)


def pongs(peer: HostilePeer) -> str:
    peer.flood(peer.draw(PONG, b"a") * KIB, SMALL)
    return peer.judge(asks=True)


def empty_messages(peer: HostilePeer) -> str:
    peer.flood(peer.draw(TEXT) * KIB, SMALL)
    return peer.judge(asks=True)


def empty_fragments(peer: HostilePeer) -> str:
    peer.send_frame(BINARY, fin=False)
    peer.flood(peer.draw(CONT, fin=False) * KIB, SMALL)
    peer.send_frame(CONT)
    return peer.judge(asks=True)


def one_byte_fragments(peer: HostilePeer) -> str:
    peer.send_frame(TEXT, fin=False)
    peer.flood(peer.draw(CONT, b"a", fin=False) * KIB, SMALL)
    peer.send_frame(CONT)
    return peer.judge(asks=True)


def pings_in_a_message(peer: HostilePeer) -> str:
    peer.send_frame(TEXT, b"a", fin=False)
    peer.flood(peer.draw(PING, b"a") * KIB, SMALL)
    peer.send_frame(CONT)
    return peer.judge(asks=True)


def message_over_the_limit_in_fragments(peer: HostilePeer) -> str:
    peer.send_frame(BINARY, fin=False)
    peer.flood(peer.draw(CONT, bytes(1000), fin=False) * 16, 2 * MIB)
    return peer.judge()


def to_nobody(peer: HostilePeer, data: bytes, size: int) -> str:
    took_all = peer.flood(data, size)
    peer.drop()
    return "took all" if took_all else "stopped reading"


def large_messages_to_nobody(peer: HostilePeer) -> str:
    return to_nobody(peer, peer.draw(BINARY, bytes(64 * KIB)), LARGE)


def small_messages_to_nobody(peer: HostilePeer) -> str:
    return to_nobody(peer, peer.draw(TEXT, b"a") * KIB, LARGE)


def messages_while_the_echo_is_unread(peer: HostilePeer) -> str:
    return to_nobody(peer, peer.draw(BINARY, bytes(16 * KIB)), LARGE)


def end_while_the_echo_is_unread(peer: HostilePeer) -> str:
    peer.flood(peer.draw(BINARY, bytes(16 * KIB)), LARGE)
    peer.end()
    peer.read_to_end()
    return peer.end_seen


# Bombs.


@cache
def zeros(mebibytes: float) -> bytes:
    """Give the DEFLATE stream of so many MiB, which is a thousand times shorter."""
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = encoder.compress(bytes(MIB // 2)) + encoder.flush(zlib.Z_FULL_FLUSH)
    return (block * int(2 * mebibytes))[:-4]


def bomb(peer: HostilePeer) -> str:
    peer.send_frame(BINARY, zeros(512), rsv=4)
    return peer.judge()


def bomb_in_fragments(peer: HostilePeer) -> str:
    data = zeros(64)
    peer.send_frame(BINARY, data[:10], fin=False, rsv=4)
    for start in range(10, len(data), 1000):
        peer.send_frame(CONT, data[start : start + 1000], fin=False)
    peer.send_frame(CONT)
    return peer.judge()


def bombs_under_the_limit(peer: HostilePeer) -> str:
    peer.flood(peer.draw(BINARY, zeros(0.5), rsv=4), 64 * KIB)
    return peer.judge(asks=True)


def bombs_to_nobody(peer: HostilePeer) -> str:
    return to_nobody(peer, peer.draw(BINARY, zeros(0.5), rsv=4), LARGE)


def final_blocks(peer: HostilePeer) -> str:
    # Each ends a DEFLATE stream, and the next begins another: RFC 7692 section 7.2.3.4.
    peer.send_frame(BINARY, b"\x03\x00" * 32 * KIB + b"\x00", rsv=4)
    return peer.judge(asks=True)


def stream_without_end(peer: HostilePeer) -> str:
    # Stored blocks of nothing: however many come, they inflate to nothing.
    peer.send_frame(BINARY, b"\x00\x00\x00\xff\xff", fin=False, rsv=4)
    peer.flood(peer.draw(CONT, b"\x00\x00\x00\xff\xff" * 200, fin=False) * 16, 2 * MIB)
    peer.send_frame(CONT, b"\x00")
    return peer.judge(asks=True)


# Closing handshakes of which a peer wants to know nothing.


def flood_after_its_close(peer: HostilePeer) -> str:
    return peer.flood_until_dropped(peer.draw(BINARY, bytes(64 * KIB)))


def small_flood_after_its_close(peer: HostilePeer) -> str:
    return peer.flood_until_dropped(peer.draw(TEXT, b"a") * KIB)


def flood_after_our_close(peer: HostilePeer) -> str:
    peer.send_frame(CLOSE, b"\x03\xe8")
    return peer.flood_until_dropped(peer.draw(BINARY, bytes(64 * KIB)))


def flood_after_a_bad_frame(peer: HostilePeer) -> str:
    peer.send(draw_frames(BAD, masks=peer.masks))
    return peer.flood_until_dropped(peer.draw(BINARY, bytes(64 * KIB)))


def flood_of_head(peer: HostilePeer) -> str:
    if not peer.masks:
        peer.read_request()
    return peer.flood_until_dropped(b"X: y\r\n" * KIB)


def flood_of_one_line(peer: HostilePeer) -> str:
    if not peer.masks:
        peer.read_request()
    return peer.flood_until_dropped(b"x" * 64 * KIB)


def flood_after_a_refusal(peer: HostilePeer) -> str:
    peer.send(GOOD.replace(b"Version: 13", b"Version: 7"))
    return peer.flood_until_dropped(b"x" * 64 * KIB)


def floods_beside_another(peer: HostilePeer) -> str:
    """See that another connection is served while four refused ones flood the victim."""
    port = peer.socket.getpeername()[1]
    outcomes: list[str] = []
    floods = [
        Thread(target=lambda: outcomes.append(attack_server(port, flood_after_a_refusal)))
        for _ in range(4)
    ]
    for thread in floods:
        thread.start()
    peer.open_as_client("/echo")
    outcome = peer.judge(asks=True)
    for thread in floods:
        thread.join()
    return outcome if set(outcomes) <= {"reset", "ended"} else f"{outcome}, beside {outcomes}"


OPEN = ("open",)
# RFC 6455 section 10.4 lets an endpoint have limits of its own.
LIMITED = (*OPEN, "close 1008", "close 1009")
GONE = ("ended|reset",)
GIVES_UP = ("close 1011", *GONE)
LOST = ("ConnectionClosedError",)
TIMEOUT = ("TimeoutError", "error")
STOPS = ("stopped reading", *GONE)

FLOODS: list[Case] = [
    Program("flood of pings, answers unread", pings_unread, OPEN),
    Program("flood of large pings, answers unread", large_pings_unread, OPEN),
    Program("flood of unsolicited pongs", pongs, OPEN),
    Program("flood of empty messages", empty_messages, OPEN, path="/sink"),
    Program("flood of empty fragments", empty_fragments, LIMITED),
    Program("flood of fragments of one byte", one_byte_fragments, LIMITED),
    Program("flood of pings within a message", pings_in_a_message, OPEN),
    Program(
        "flood of fragments over max_size", message_over_the_limit_in_fragments, ("close 1009",)
    ),
    Program(
        "flood of large messages that nobody receives",
        large_messages_to_nobody,
        STOPS,
        path="/deaf",
        hasty=True,
    ),
    Program(
        "flood of small messages that nobody receives",
        small_messages_to_nobody,
        STOPS,
        path="/deaf",
        hasty=True,
    ),
    Program("flood of messages, echo unread", messages_while_the_echo_is_unread, STOPS, hasty=True),
    Program("end behind messages whose echo is unread", end_while_the_echo_is_unread, GONE),
    Program("bomb of 512 MiB", bomb, ("close 1009",), compression=True),
    Program("bomb in fragments", bomb_in_fragments, ("close 1009",), compression=True),
    Program(
        "bombs of 512 KiB",
        bombs_under_the_limit,
        OPEN,
        compression=True,
        path="/sink",
    ),
    Program(
        "bombs that nobody receives",
        bombs_to_nobody,
        STOPS,
        compression=True,
        path="/deaf",
        hasty=True,
    ),
    Program(
        "bomb of final blocks",
        final_blocks,
        (*LIMITED, "close 1002", "close 1007"),
        compression=True,
    ),
    Program(
        "compressed message that inflates to nothing", stream_without_end, LIMITED, compression=True
    ),
    Program("flood behind a bad frame", flood_after_a_bad_frame, GONE, hasty=True),
    Program("flood after its close", flood_after_its_close, GONE, path="/leave", hasty=True),
    Program(
        "flood of small messages after its close",
        small_flood_after_its_close,
        GONE,
        path="/leave",
        hasty=True,
    ),
    Program("flood after our close", flood_after_our_close, GONE, hasty=True),
    Program(
        "head without an end",
        flood_of_head,
        GONE,
        opens=False,
        errors=("InvalidMessage", "error"),
        hasty=True,
    ),
    Program(
        "line without an end",
        flood_of_one_line,
        GONE,
        opens=False,
        errors=("InvalidMessage", "error"),
        hasty=True,
    ),
    Program(
        "flood after a refusal",
        flood_after_a_refusal,
        GONE,
        opens=False,
        victims=(SERVER,),
        hasty=True,
    ),
    Program(
        "floods after refusals beside another",
        floods_beside_another,
        OPEN,
        opens=False,
        victims=(SERVER,),
    ),
]

CASES = FLOODS
