"""The hostile table: frames that no endpoint may send, and some odd ones that it may.

Owns their bytes, and how RFC 6455 sections 5 to 8 and RFC 7692 have each taken.
"""

from __future__ import annotations

import zlib
from functools import cache

from tests.reliability.hostile_cases import Frames

FAILS = ("close 1002",)
INVALID = ("close 1007",)
TOO_BIG = ("close 1009",)
OPEN = ("open",)

# RFC 6455 section 5.2: "the minimal number of bytes MUST be used to encode the length"; what a
# receiver does with more it does not say.
LENIENT = (*FAILS, "open")

# What is wrong already may be found out when all of it has come.
LAZY = (*INVALID, "open*", "hang")

# RFC 6455 section 5.5.1: "the endpoint typically echos the status code it received".
ECHOED = ("close *",)

# RFC 7692 names no code for a stream that is no DEFLATE.
CORRUPT = ("close 1002", "close 1007", "close 1003", "close 1011")

OPCODES = {"continuation": 0, "text": 1, "binary": 2, "close": 8, "ping": 9, "pong": 10}


def reserved_bits() -> list[Frames]:
    rows = []
    for rsv in range(1, 8):
        for name, opcode in OPCODES.items():
            # A continuation is one: it follows a first fragment.
            begin = "01 01 | 61, " if name == "continuation" else ""
            rows.append(
                Frames(
                    f"reserved bits {rsv:03b} on {name}",
                    f"{begin}{0x80 | rsv << 4 | opcode:02x} 00",
                    FAILS,
                )
            )
    return rows


def opcodes() -> list[Frames]:
    return [
        Frames(
            f"reserved opcode {opcode:x}{'' if fin else ' not final'}",
            f"{fin | opcode:02x} 01 | 61",
            FAILS,
        )
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
        for fin in (0x80, 0)
    ]


MASKING = [
    Frames("wrong masking of text", "! 81 05 | 48656c6c6f", FAILS),
    Frames("wrong masking of an empty text", "! 81 00", FAILS),
    Frames("wrong masking of a long binary", "! 82 7e 0080 | " + "00" * 128, FAILS),
    Frames("wrong masking of a continuation", "01 01 | 61, ! 80 01 | 62", FAILS),
    Frames("wrong masking of a ping", "! 89 00", FAILS),
    Frames("wrong masking of a pong", "! 8a 01 | 61", FAILS),
    Frames("wrong masking of a close", "! 88 02 | 03e8", FAILS),
    Frames("wrong masking behind a good message", "81 01 | 61, ! 81 01 | 62", FAILS, ("61",)),
]

LENGTHS = [
    Frames("length 0 in 16 bits", "81 7e 0000", LENIENT),
    Frames("length 125 in 16 bits", "82 7e 007d | " + "00" * 125, LENIENT),
    Frames("length 126 in 16 bits", "82 7e 007e | " + "00" * 126, OPEN, ("00" * 126,)),
    Frames("length 0 in 64 bits", "81 7f 0000000000000000", LENIENT),
    Frames("length 126 in 64 bits", "81 7f 000000000000007e | " + "61" * 126, LENIENT),
    Frames("length 65535 in 64 bits", "82 7f 000000000000ffff | " + "00" * 65535, LENIENT),
    Frames("length 65536 in 64 bits", "82 7f 0000000000010000 | " + "00" * 65536, OPEN),
    # RFC 6455 section 5.2: "the most significant bit MUST be 0". What is wrong with it otherwise
    # is its size.
    Frames("length with the top bit set", "82 7f 8000000000000000", ("close 1002", "close 1009")),
    Frames("length of only ones", "82 7f ffffffffffffffff", ("close 1002", "close 1009")),
    Frames("length of all but the top bit", "82 7f 7fffffffffffffff", TOO_BIG),
    Frames("length of 4 GiB", "82 7f 0000000100000000", TOO_BIG),
    Frames("length one over max_size", "82 7f 0000000000100001", TOO_BIG),
    Frames("length top bit in a fragment", "01 7f 8000000000000000", ("close 1002", "close 1009")),
    Frames("fragments over max_size together", "01 01 | 61, 80 7f 0000000000100000", TOO_BIG),
    Frames(
        "length 64 bits, byte by byte",
        "82 7f ffffffffffffffff",
        ("close 1002", "close 1009"),
        bytewise=True,
    ),
]

CONTROL = [
    *(
        Frames(f"{name} not final", f"{opcode:02x} 01 | 61", FAILS)
        for name, opcode in list(OPCODES.items())[3:]
    ),
    *(
        Frames(f"{name} not final, empty", f"{opcode:02x} 00", FAILS)
        for name, opcode in list(OPCODES.items())[3:]
    ),
    *(
        Frames(f"{name} of 126 bytes", f"{0x80 | opcode:02x} 7e 007e | " + "61" * 126, FAILS)
        for name, opcode in list(OPCODES.items())[3:]
    ),
    *(
        # Who waits for its payload first waits for ever.
        Frames(
            f"{name} of 64 bits of length",
            f"{0x80 | opcode:02x} 7f 0000000000010000",
            (*FAILS, "hang"),
        )
        for name, opcode in list(OPCODES.items())[3:]
    ),
    Frames("ping of 125 bytes", "89 7d | " + "61" * 125, OPEN),
    Frames("ping of 5 bytes in 16 bits", "89 7e 0005 | 68656c6c6f", LENIENT),
    Frames("ping in a fragmented message", "01 01 | 61, 89 00, 80 01 | 62", OPEN, ("6162",)),
    Frames("ping not final in a fragmented message", "01 01 | 61, 09 00, 80 01 | 62", FAILS),
    Frames("ping in fragments", "01 01 | 61, 09 01 | 61, 80 01 | 61", FAILS),
]

CONTINUATIONS = [
    Frames("continuation of nothing", "80 01 | 61", FAILS),
    Frames("continuation of nothing, not final", "00 01 | 61", FAILS),
    Frames("continuation of nothing, empty", "80 00", FAILS),
    Frames("continuation behind a whole message", "81 01 | 61, 80 01 | 62", FAILS, ("61",)),
    Frames(
        "continuation behind the last fragment",
        "01 01 | 61, 80 01 | 62, 80 01 | 63",
        FAILS,
        ("6162",),
    ),
    Frames("text in a fragmented text", "01 01 | 61, 81 01 | 62", FAILS, ()),
    Frames("binary in a fragmented text", "01 01 | 61, 82 01 | 62", FAILS, ()),
    Frames("text not final in a fragmented binary", "02 01 | 61, 01 01 | 62", FAILS, ()),
    Frames("new message behind empty fragments", "01 00, 00 00, 81 00", FAILS, ()),
    Frames("all fragments empty", "01 00, 00 00, 80 00", OPEN, ("",)),
    Frames(
        "fragments of one byte",
        "01 01 | 61, 00 01 | 62, 00 01 | 63, 80 01 | 64",
        OPEN,
        ("61626364",),
    ),
]

GOOD_CODES = (
    1000,
    1001,
    1002,
    1003,
    1007,
    1008,
    1009,
    1010,
    1011,
    1012,
    1013,
    1014,
    3000,
    3999,
    4000,
    4999,
)
BAD_CODES = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 9999, 32768, 65535)

CLOSES = [
    Frames("close without a code", "88 00", ("close 1005", "close 1000")),
    Frames("close of one byte", "88 01 | 03", FAILS),
    *(
        Frames(f"close with {code}", f"88 02 | {code:04x}", (f"close {code}", *ECHOED))
        for code in GOOD_CODES
    ),
    *(
        Frames(f"close with the wrong code {code}", f"88 02 | {code:04x}", FAILS)
        for code in BAD_CODES
    ),
    Frames("close with a reason of 123 bytes", "88 7d | 03e8" + "61" * 123, ("close 1000",)),
    Frames("close with a reason of 124 bytes", "88 7e 007e | 03e8" + "61" * 124, FAILS),
    Frames("close with a reason that is no UTF-8", "88 04 | 03e8 c328", INVALID + FAILS),
    Frames("close with a reason cut in a code point", "88 04 | 03e8 e282", INVALID + FAILS),
    Frames("close with a surrogate in the reason", "88 05 | 03e8 eda080", INVALID + FAILS),
    Frames("close with a wrong code and reason", "88 04 | 03e7 c328", ("close 1002", "close 1007")),
    Frames(
        "close in a fragmented message", "01 01 | 61, 88 02 | 03e8", ("close 1000", *ECHOED), ()
    ),
    Frames("text behind a close", "88 02 | 03e8, 81 01 | 61", ("close 1000",), ()),
    Frames("ping behind a close", "88 02 | 03e8, 89 00", ("close 1000",), ()),
    Frames("second close", "88 02 | 03e8, 88 02 | 03e9", ("close 1000",), ()),
    Frames("junk behind a close", "88 02 | 03e8, ff 7f ffffffffffffffff", ("close 1000",), ()),
    Frames("close behind a bad frame", "83 00, 88 02 | 03e8", FAILS),
    Frames("message behind a bad frame", "83 00, 81 01 | 61", FAILS, ()),
    Frames("messages before a bad frame", "81 01 | 61, 82 01 | 62, 83 00", FAILS, ("61", "62")),
]

# What is not UTF-8, by why not; and what is, at its limits.
WRONG_TEXTS = {
    "a lone continuation byte": "61 80",
    "a sequence that is cut short": "61 c3 28",
    "an overlong slash": "c0 af",
    "an overlong NUL of 3 bytes": "e0 80 80",
    "an overlong NUL of 4 bytes": "f0 80 80 80",
    "a high surrogate": "61 ed a0 80",
    "a pair of surrogates": "ed a0 80 ed b0 80",
    "a code point over 10FFFF": "f4 90 80 80",
    "a sequence of 5 bytes": "f8 88 80 80 80",
    "the byte FE": "61 fe",
    "the byte FF": "ff",
}
CUT_TEXTS = {"one of 2 bytes": "61 c3", "one of 3 bytes": "e2 82", "one of 4 bytes": "f0 9f 98"}
GOOD_TEXTS = {
    "the least of each size": "00 c280 e0a080 f0908080",
    "the greatest of each size": "7f dfbf efbfbf f48fbfbf",
    "those beside the surrogates": "ed9fbf ee8080",
}


def in_fragments(payload: bytes, cut: int) -> str:
    head, tail = payload[:cut], payload[cut:]
    return f"01 {len(head):02x} | {head.hex()}, 80 {len(tail):02x} | {tail.hex()}"


def texts() -> list[Frames]:
    rows = []
    for kinds, expected, verb in (
        (WRONG_TEXTS, INVALID, "is"),
        (CUT_TEXTS, INVALID, "ends within"),
        (GOOD_TEXTS, OPEN, "is"),
    ):
        for kind, digits in kinds.items():
            payload = bytes.fromhex(digits)
            echoes = (payload.hex(),) if expected == OPEN else ()
            whole = f"81 {len(payload):02x} | {payload.hex()}"
            name = f"text {verb} {kind}"
            rows.append(Frames(name, whole, expected, echoes))
            rows.append(Frames(f"{name}, byte by byte", whole, expected, echoes, bytewise=True))
            rows += [
                Frames(
                    f"{name}, in fragments cut at {cut}",
                    in_fragments(payload, cut),
                    expected,
                    echoes,
                )
                for cut in range(len(payload) + 1)
            ]
    # Fail fast: the message is not complete, and need not be.
    rows.append(Frames("text is wrong in its first fragment", "01 02 | 61ff", LAZY, ()))
    rows.append(Frames("text is wrong in half a frame", "81 7d | 61ff", LAZY, ()))
    return rows


@cache
def deflated(data: bytes, *, last: bool = False) -> bytes:
    """Compress a message as RFC 7692 section 7.2 says."""
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    if last:
        return encoder.compress(data) + encoder.flush(zlib.Z_FINISH) + b"\x00"
    return (encoder.compress(data) + encoder.flush(zlib.Z_SYNC_FLUSH))[:-4]


def draw(first: int, payload: bytes) -> str:
    size = len(payload)
    length = (
        f"{size:02x}" if size < 126 else f"7e {size:04x}" if size < 65536 else f"7f {size:016x}"
    )
    return f"{first:02x} {length} | {payload.hex()}"


def compressed(
    name: str, frames: str, expected: tuple[str, ...], echoes: tuple[str, ...] | None = None
) -> Frames:
    return Frames(name, frames, expected, echoes, compression=True)


HELLO = deflated(b"Hello")
TOO_LONG = deflated(bytes(2**20 + 1))
TAIL = b"\x00\x00\xff\xff"

COMPRESSION = [
    compressed("deflate: block of the reserved type", "c1 01 | 07", CORRUPT, ()),
    compressed("deflate: only ones", draw(0xC2, b"\xff" * 20), CORRUPT, ()),
    compressed(
        "deflate: stored block with a wrong length", "c2 0a | 00 0500 00fa 48656c6c6f", CORRUPT, ()
    ),
    compressed("deflate: reference before the first byte", "c2 05 | f200 1100 00", CORRUPT, ()),
    compressed(
        "deflate: tree with too many codes",
        draw(0xC2, b"\x05\xff\xff\xff\xff\xff\xff"),
        CORRUPT,
        (),
    ),
    compressed(
        "deflate: garbage behind a good block", draw(0xC2, HELLO + b"\xff" * 20), CORRUPT, ()
    ),
    compressed(
        "deflate: broken in the second fragment",
        f"{draw(0x42, HELLO + TAIL)}, 80 01 | 07",
        CORRUPT,
        (),
    ),
    compressed(
        "deflate: broken in half a message", draw(0x42, b"\xff" * 20), (*CORRUPT, "open*"), ()
    ),
    compressed(
        "deflate: good, then broken", f"{draw(0xC1, HELLO)}, c1 01 | 07", CORRUPT, (b"Hello".hex(),)
    ),
    # The tail that section 7.2.2 appends completes nearly all of it, and zlib says no more.
    compressed("deflate: stored block cut short", "c2 05 | 00 0500 faff", ("open", "close *")),
    compressed("deflate: empty payload", "c1 00", OPEN, ("",)),
    compressed("deflate: empty block", "c1 01 | 00", OPEN, ("",)),
    compressed(
        "deflate: final block", draw(0xC1, deflated(b"Hello", last=True)), OPEN, (b"Hello".hex(),)
    ),
    compressed(
        "deflate: RSV1 on a continuation",
        f"{draw(0x41, HELLO[:3])}, {draw(0xC0, HELLO[3:])}",
        FAILS,
        (),
    ),
    compressed(
        "deflate: RSV1 on a continuation alone", f"01 01 | 61, {draw(0xC0, HELLO)}", FAILS, ()
    ),
    compressed("deflate: RSV1 on a ping", "c9 00", FAILS),
    compressed("deflate: RSV1 on a pong", "ca 00", FAILS),
    compressed("deflate: RSV1 on a close", "c8 02 | 03e8", FAILS),
    compressed("deflate: RSV2 with it", "e1 01 | 00", FAILS),
    compressed("deflate: not used", "81 01 | 61", OPEN, ("61",)),
    *(
        compressed(
            f"deflate: text {kind}", draw(0xC1, deflated(bytes.fromhex(digits))), INVALID, ()
        )
        for kind, digits in (WRONG_TEXTS | CUT_TEXTS).items()
    ),
    compressed("deflate: one byte over max_size", draw(0xC2, TOO_LONG), TOO_BIG, ()),
    compressed(
        "deflate: one byte over max_size in fragments",
        f"{draw(0x42, TOO_LONG[:9])}, {draw(0x80, TOO_LONG[9:])}",
        TOO_BIG,
        (),
    ),
]

CASES = [
    *reserved_bits(),
    *opcodes(),
    *MASKING,
    *LENGTHS,
    *CONTROL,
    *CONTINUATIONS,
    *CLOSES,
    *texts(),
    *COMPRESSION,
]
