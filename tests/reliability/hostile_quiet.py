"""The hostile table: peers that are silent, that take their time, or that leave in a wrong way.

Owns what they do, in small programs; each is bounded in time.
"""

from __future__ import annotations

from tests.reliability.hostile_cases import CLIENT, SERVER, Case, Program, draw_frames
from tests.reliability.hostile_floods import BAD, GONE, GOOD, OPEN, TIMEOUT
from tests.reliability.hostile_peer import PATIENCE, RESPONSE, HostilePeer
from tests.wire import CLOSE, PING, TEXT

# Seconds between the bytes of a peer that dribbles.
DRIBBLE = 0.01

# Seconds in which a hasty victim has given up a peer: by keepalive, and by its close_timeout.
GIVEN_UP = 0.7


# Closing handshakes that nobody ends.


def trickle_after_its_close(peer: HostilePeer) -> str:
    peer.dribble([peer.draw(PING)] * 300, interval=DRIBBLE)
    return peer.judge()


def silence_after_its_close(peer: HostilePeer) -> str:
    peer.wait_for_end(PATIENCE)
    return peer.judge()


def silence_after_our_close(peer: HostilePeer) -> str:
    """Begin the closing handshake, and keep TCP when it is over."""
    peer.send_frame(CLOSE, b"\x03\xe8")
    peer.read_to_end()
    return peer.end_seen


def silence_after_a_bad_frame(peer: HostilePeer) -> str:
    """Read the Close frame that answers it, and do nothing."""
    peer.send(draw_frames(BAD, masks=peer.masks))
    close = peer.read_frame()
    assert close is not None
    peer.read_to_end()
    return f"close {close.code}"


# Silence.


def silence(peer: HostilePeer) -> str:
    return peer.judge()


def silence_unread(peer: HostilePeer) -> str:
    peer.wait_for_end(GIVEN_UP)
    peer.read_to_end()
    return peer.end_seen


def half_a_frame(peer: HostilePeer) -> str:
    peer.send(peer.draw(TEXT, b"hello")[:-1])
    return peer.judge()


# Leaving.


def leave_at_once(peer: HostilePeer) -> str:
    peer.drop()
    return "left"


def leave_in_a_head(peer: HostilePeer) -> str:
    if not peer.masks:
        peer.read_request()
    peer.send(GOOD[:60] if peer.masks else RESPONSE[:60])
    peer.drop()
    return "left"


def leave_without_reading_the_answer(peer: HostilePeer) -> str:
    peer.send(GOOD)
    peer.drop()
    return "left"


def leave_in_a_frame(peer: HostilePeer) -> str:
    peer.send(peer.draw(TEXT, bytes(1000))[:500])
    peer.drop()
    return "left"


def leave_behind_messages(peer: HostilePeer) -> str:
    peer.send(peer.draw(TEXT, b"a" * 1000) * 20)
    peer.drop()
    return "left"


def leave_behind_a_close(peer: HostilePeer) -> str:
    peer.send_frame(CLOSE, b"\x03\xe8")
    peer.drop()
    return "left"


def end_in_a_frame(peer: HostilePeer) -> str:
    peer.send(peer.draw(TEXT, b"hello")[:-1])
    peer.end()
    return peer.judge()


def end_in_a_fragmented_message(peer: HostilePeer) -> str:
    peer.send_frame(TEXT, b"hello", fin=False)
    peer.end()
    return peer.judge()


# Opening handshakes that take their time, or do not end.


def head_byte_by_byte(peer: HostilePeer) -> str:
    head = GOOD if peer.masks else RESPONSE.replace(b"ACCEPT", peer.read_request()) + b"\r\n"
    for i in range(len(head)):
        peer.send(head[i : i + 1])
    if peer.masks:
        peer.read_head()
    return peer.judge(asks=True)


def dribbled_head(peer: HostilePeer) -> str:
    if not peer.masks:
        peer.read_request()
    head = (GOOD if peer.masks else RESPONSE)[:-2]
    peer.dribble((head[i : i + 1] for i in range(len(head))), interval=DRIBBLE)
    return peer.judge_status()


def silent_head(peer: HostilePeer) -> str:
    if not peer.masks:
        peer.read_request()
    return peer.judge_status()


def half_a_head(peer: HostilePeer) -> str:
    if not peer.masks:
        peer.read_request()
    peer.send((GOOD if peer.masks else RESPONSE)[:-4])
    return peer.judge_status()


def silent_body(peer: HostilePeer) -> str:
    peer.read_request()
    peer.send(b"HTTP/1.1 403 No\r\nContent-Length: 100\r\n\r\nwhy")
    return peer.judge_status()


def dribbled_body(peer: HostilePeer) -> str:
    peer.read_request()
    peer.send(b"HTTP/1.1 403 No\r\nContent-Length: 1000\r\n\r\n")
    peer.dribble([b"x"] * 300, interval=DRIBBLE)
    return peer.judge_status()


GIVES_UP = ("close 1011", *GONE)

# They wait for a time-out of the victim, and cost no more than time.
WAITS: list[Case] = [
    Program(
        "trickle of pings after its close",
        trickle_after_its_close,
        ("close 1000",),
        path="/leave",
        hasty=True,
    ),
    Program(
        "silence after its close",
        silence_after_its_close,
        ("close 1000",),
        path="/leave",
        hasty=True,
    ),
    Program("silence after our close", silence_after_our_close, ("ended",), hasty=True),
    Program("silence after a bad frame", silence_after_a_bad_frame, ("close 1002",), hasty=True),
    Program("silence from the first frame on", silence, GIVES_UP, hasty=True),
    Program("silence in a frame", half_a_frame, GIVES_UP, hasty=True),
    Program("silence, and nothing is read", silence_unread, GONE, path="/talk", hasty=True),
    Program(
        "head that is dribbled",
        dribbled_head,
        ("ended|reset", "status 408"),
        opens=False,
        errors=TIMEOUT,
        hasty=True,
    ),
    Program(
        "head that does not begin",
        silent_head,
        ("ended|reset", "status 408"),
        opens=False,
        errors=TIMEOUT,
        hasty=True,
    ),
    Program(
        "head that does not end",
        half_a_head,
        ("ended|reset", "status 408"),
        opens=False,
        errors=TIMEOUT,
        hasty=True,
    ),
    Program(
        "body that does not end",
        silent_body,
        GONE,
        opens=False,
        victims=(CLIENT,),
        errors=("InvalidStatus", "TimeoutError"),
        hasty=True,
    ),
    Program(
        "body that is dribbled",
        dribbled_body,
        GONE,
        opens=False,
        victims=(CLIENT,),
        errors=("InvalidStatus", "TimeoutError"),
        hasty=True,
    ),
]

LEAVES: list[Case] = [
    Program(
        "reset at once",
        leave_at_once,
        ("left",),
        opens=False,
        errors=("InvalidMessage", "ConnectionResetError", "error"),
    ),
    Program(
        "reset in a head",
        leave_in_a_head,
        ("left",),
        opens=False,
        errors=("InvalidMessage", "ConnectionResetError", "error"),
    ),
    Program(
        "reset behind a request",
        leave_without_reading_the_answer,
        ("left",),
        opens=False,
        victims=(SERVER,),
    ),
    Program("reset behind the opening handshake", leave_at_once, ("left",)),
    Program("reset in a frame", leave_in_a_frame, ("left",)),
    Program("reset behind messages", leave_behind_messages, ("left",)),
    Program("reset behind a close", leave_behind_a_close, ("left",)),
    Program("end in a frame", end_in_a_frame, ("ended", "close *")),
    Program("end in a fragmented message", end_in_a_fragmented_message, ("ended", "close *")),
    Program("head byte by byte", head_byte_by_byte, OPEN, opens=False),
]

CASES = [*WAITS, *LEAVES]
