"""permessage-deflate: what is offered and answered, and what goes over the wire (RFC 7692)."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyws.exceptions import NegotiationError, PayloadTooBig, ProtocolError
from anyws.sansio import _compressors, _deflate
from anyws.sansio._compressors import DEFAULT_BACKEND, choose_backend, make_compressor
from anyws.sansio._deflate import Deflate, PerMessageDeflate

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyws._types import BytesLike
    from anyws.sansio._compressors import Backend
    from anyws.sansio._extensions import Parameter

# Who compresses where a test does not say.
pytestmark = pytest.mark.usefixtures("deflate_backend")

S_FLAG = "server_no_context_takeover"
C_FLAG = "client_no_context_takeover"
S_BITS = "server_max_window_bits"
C_BITS = "client_max_window_bits"

# RFC 7692 sections 7.2.3.1 to 7.2.3.6
HELLO = bytes.fromhex("f2 48 cd c9 c9 07 00")
HELLO_AGAIN = bytes.fromhex("f2 00 11 00 00")
HELLO_STORED = bytes.fromhex("00 05 00 fa ff 48 65 6c 6c 6f 00")
HELLO_FINAL = bytes.fromhex("f3 48 cd c9 c9 07 00 00")
HELLO_IN_TWO_BLOCKS = bytes.fromhex("f2 48 05 00 00 00 ff ff ca c9 c9 07 00")
EMPTY = b"\x00"
EMPTY_OF_ISAL = b"\x02\x00"
"""An empty block with fixed codes in front of it."""

A_FINAL = bytes.fromhex("4b 04 00")
"""A block with BFINAL that holds one "a"."""

EMPTY_FINAL = bytes.fromhex("03 00")

STORED = bytes.fromhex("00 ff ff 00 00") + bytes(65535)
"""The largest of blocks without compression."""

PLAIN = PerMessageDeflate(server_max_window_bits=None, client_max_window_bits=None)
"""A configuration that asks for nothing."""


def noise(size: int) -> bytes:
    """Give bytes that do not compress."""
    return random.Random(size).randbytes(size)


def terms(extension: Deflate) -> tuple[bool, int, bool, int]:
    """Give what is agreed on: no context takeover and window bits, of ours and of the peer's."""
    return (
        extension.local_no_context_takeover,
        extension.local_max_window_bits,
        extension.remote_no_context_takeover,
        extension.remote_max_window_bits,
    )


# Configuration


def test_name_is_that_of_the_registry() -> None:
    assert PerMessageDeflate.name == "permessage-deflate"
    assert Deflate(()).name == "permessage-deflate"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: PerMessageDeflate(server_max_window_bits=7), f"{S_BITS} of 7 is not between 8"),
        (lambda: PerMessageDeflate(server_max_window_bits=16), f"{S_BITS} of 16 is not between 8"),
        (lambda: PerMessageDeflate(client_max_window_bits=7), f"{C_BITS} of 7 is not between 8"),
        (lambda: PerMessageDeflate(client_max_window_bits=16), f"{C_BITS} of 16 is not between 8"),
        (lambda: PerMessageDeflate(level=-2), "level of -2 is not between -1 and 9"),
        (lambda: PerMessageDeflate(level=10), "level of 10 is not between -1 and 9"),
        (lambda: PerMessageDeflate(mem_level=0), "mem_level of 0 is not between 1 and 9"),
        (lambda: PerMessageDeflate(mem_level=10), "mem_level of 10 is not between 1 and 9"),
        (lambda: PerMessageDeflate(threshold=-1), "threshold of -1 is under 0"),
        (
            lambda: PerMessageDeflate(backend=cast("Any", "gzip")),
            "backend 'gzip', expected 'zlib', 'isal' or",
        ),
    ],
)
def test_configuration_is_refused_when_a_value_is_outside_its_limits(
    config: Callable[[], PerMessageDeflate], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config()


@pytest.mark.parametrize("name", [S_FLAG, C_FLAG])
def test_flag_is_refused_when_it_is_no_bool(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be a bool, not str$"):
        PerMessageDeflate(**{name: cast("Any", "no")})


@pytest.mark.parametrize(
    "config",
    [
        PerMessageDeflate(server_max_window_bits=8, client_max_window_bits=8),
        PerMessageDeflate(server_max_window_bits=15, client_max_window_bits=15),
        PerMessageDeflate(level=-1, mem_level=1, threshold=0),
        PerMessageDeflate(level=0, mem_level=9),
        PerMessageDeflate(level=9),
    ],
)
def test_messages_pass_when_values_are_at_their_limits(config: PerMessageDeflate) -> None:
    server = config.accept_offer(config.offer())
    client = config.accept_answer(server.parameters)
    assert client.decode(server.encode(b"Hello", fin=True), 5, fin=True) == b"Hello"
    assert server.decode(client.encode(b"Hello", fin=True), 5, fin=True) == b"Hello"


# The client's offer and the server's answer to it


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (PerMessageDeflate(), [(S_BITS, "12"), (C_BITS, "12")]),
        (PLAIN, []),
        (PerMessageDeflate(True, False, None, None), [(S_FLAG, None)]),
        (PerMessageDeflate(False, True, None, None), [(C_FLAG, None)]),
        (PerMessageDeflate(False, False, 8, None), [(S_BITS, "8")]),
        (PerMessageDeflate(False, False, None, 15), [(C_BITS, "15")]),
        (PerMessageDeflate(False, False, None, client_max_window_bits=True), [(C_BITS, None)]),
        (
            PerMessageDeflate(True, True, 10, 9),
            [(S_FLAG, None), (C_FLAG, None), (S_BITS, "10"), (C_BITS, "9")],
        ),
    ],
)
def test_client_offers_what_is_configured(
    config: PerMessageDeflate, parameters: list[Parameter]
) -> None:
    assert list(config.offer()) == parameters


@pytest.mark.parametrize(
    ("config", "answer", "agreed"),
    [
        # (we start anew, our window bits, the server starts anew, its window bits)
        (PLAIN, [], (False, 15, False, 15)),
        (PLAIN, [(S_FLAG, None)], (False, 15, True, 15)),
        (PLAIN, [(C_FLAG, None)], (True, 15, False, 15)),
        (PLAIN, [(S_BITS, "10")], (False, 15, False, 10)),
        (PerMessageDeflate(True, False, None, None), [(S_FLAG, None)], (False, 15, True, 15)),
        (PerMessageDeflate(False, True, None, None), [], (True, 15, False, 15)),
        (PerMessageDeflate(False, True, None, None), [(C_FLAG, None)], (True, 15, False, 15)),
        (PerMessageDeflate(), [(S_BITS, "12"), (C_BITS, "12")], (False, 12, False, 12)),
        (PerMessageDeflate(), [(C_BITS, "9"), (S_BITS, "8")], (False, 9, False, 8)),
        # The server ignores the window that we offered for it.
        (PerMessageDeflate(), [], (False, 12, False, 15)),
        # The server allows us a larger window than we said that we would use.
        (PerMessageDeflate(), [(S_BITS, "12"), (C_BITS, "15")], (False, 12, False, 12)),
        (PerMessageDeflate(client_max_window_bits=True), [(C_BITS, "8")], (False, 8, False, 15)),
        (PerMessageDeflate(client_max_window_bits=True), [], (False, 15, False, 15)),
    ],
)
def test_client_takes_the_answer(
    config: PerMessageDeflate, answer: list[Parameter], agreed: tuple[bool, int, bool, int]
) -> None:
    extension = config.accept_answer(answer)
    assert terms(extension) == agreed
    assert list(extension.parameters) == answer


@pytest.mark.parametrize(
    ("config", "answer", "message"),
    [
        (PerMessageDeflate(True), [(S_BITS, "12")], f"lacks {S_FLAG}, which was offered"),
        (
            PerMessageDeflate(),
            [(S_BITS, "13")],
            f"{S_BITS} of 13 in the answer exceeds the offered 12",
        ),
        (PLAIN, [(C_BITS, "15")], f"answer has {C_BITS}, which was not offered"),
        (PerMessageDeflate(), [(C_BITS, None)], f"{C_BITS} of None is not an integer"),
    ],
)
def test_client_refuses_the_answer_when_it_does_not_fit_the_offer(
    config: PerMessageDeflate, answer: list[Parameter], message: str
) -> None:
    with pytest.raises(NegotiationError, match=message):
        config.accept_answer(answer)


# The server's answer to an offer


@pytest.mark.parametrize(
    ("config", "offer", "answer", "agreed"),
    [
        # (we start anew, our window bits, the client starts anew, its window bits)
        (PLAIN, [], [], (False, 15, False, 15)),
        (PLAIN, [(S_FLAG, None)], [(S_FLAG, None)], (True, 15, False, 15)),
        (PLAIN, [(C_FLAG, None)], [(C_FLAG, None)], (False, 15, True, 15)),
        (PLAIN, [(S_BITS, "15")], [(S_BITS, "15")], (False, 15, False, 15)),
        (PLAIN, [(S_BITS, "8")], [(S_BITS, "8")], (False, 8, False, 15)),
        (PLAIN, [(C_BITS, None)], [], (False, 15, False, 15)),
        (PLAIN, [(C_BITS, "15")], [], (False, 15, False, 15)),
        (PLAIN, [(C_BITS, "10")], [(C_BITS, "10")], (False, 15, False, 10)),
        (PerMessageDeflate(), [], [(S_BITS, "12")], (False, 12, False, 15)),
        (PerMessageDeflate(), [(S_BITS, "15")], [(S_BITS, "12")], (False, 12, False, 15)),
        (PerMessageDeflate(), [(S_BITS, "9")], [(S_BITS, "9")], (False, 9, False, 15)),
        (
            PerMessageDeflate(),
            [(C_BITS, None)],
            [(S_BITS, "12"), (C_BITS, "12")],
            (False, 12, False, 12),
        ),
        (
            PerMessageDeflate(),
            [(C_BITS, "15")],
            [(S_BITS, "12"), (C_BITS, "12")],
            (False, 12, False, 12),
        ),
        (
            PerMessageDeflate(),
            [(C_BITS, "9")],
            [(S_BITS, "12"), (C_BITS, "9")],
            (False, 12, False, 9),
        ),
        (
            PerMessageDeflate(True, True, None, client_max_window_bits=True),
            [(C_BITS, None)],
            [(S_FLAG, None), (C_FLAG, None)],
            (True, 15, True, 15),
        ),
        (
            PLAIN,
            [(C_BITS, "11"), (S_BITS, "10"), (C_FLAG, None), (S_FLAG, None)],
            [(S_FLAG, None), (C_FLAG, None), (S_BITS, "10"), (C_BITS, "11")],
            (True, 10, True, 11),
        ),
    ],
)
def test_server_answers_the_offer(
    config: PerMessageDeflate,
    offer: list[Parameter],
    answer: list[Parameter],
    agreed: tuple[bool, int, bool, int],
) -> None:
    extension = config.accept_offer(offer)
    assert list(extension.parameters) == answer
    assert terms(extension) == agreed


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ([("foo", None)], "permessage-deflate has no parameter 'foo'"),
        ([(S_FLAG.upper(), None)], "permessage-deflate has no parameter 'SERVER_NO"),
        ([(S_FLAG, None), (S_FLAG, None)], f"permessage-deflate has {S_FLAG} twice"),
        ([(C_FLAG, None), (C_FLAG, None)], f"permessage-deflate has {C_FLAG} twice"),
        ([(S_BITS, "9"), (S_BITS, "9")], f"permessage-deflate has {S_BITS} twice"),
        ([(C_BITS, "9"), (C_BITS, "9")], f"permessage-deflate has {C_BITS} twice"),
        ([(S_FLAG, "true")], f"{S_FLAG} takes no value, not 'true'"),
        ([(C_FLAG, "")], f"{C_FLAG} takes no value, not ''"),
        ([(S_BITS, None)], f"{S_BITS} of None is not an integer between 8 and 15"),
        ([(S_BITS, "7")], f"{S_BITS} of '7' is not an integer between 8 and 15"),
        ([(S_BITS, "16")], f"{S_BITS} of '16' is not an integer between 8 and 15"),
        ([(S_BITS, "08")], f"{S_BITS} of '08' is not an integer between 8 and 15"),
        ([(C_BITS, "7")], f"{C_BITS} of '7' is not an integer between 8 and 15"),
        ([(C_BITS, "16")], f"{C_BITS} of '16' is not an integer between 8 and 15"),
        ([(C_BITS, "010")], f"{C_BITS} of '010' is not an integer between 8 and 15"),
        ([(C_BITS, "")], f"{C_BITS} of '' is not an integer between 8 and 15"),
        ([(C_BITS, "+9")], f"{C_BITS} of '\\+9' is not an integer between 8 and 15"),
        ([(C_BITS, " 9")], f"{C_BITS} of ' 9' is not an integer between 8 and 15"),
        ([(C_BITS, "\u0669")], f"{C_BITS} of '\u0669' is not an integer between 8 and 15"),
    ],
)
def test_parameters_are_refused_when_they_are_malformed(
    parameters: list[Parameter], message: str
) -> None:
    config = PerMessageDeflate(False, False, 15, 15)
    with pytest.raises(NegotiationError, match=message):
        config.accept_offer(parameters)
    with pytest.raises(NegotiationError, match=message):
        config.accept_answer(parameters)


@pytest.mark.parametrize("side", ["client", "server"])
def test_choices_of_the_endpoint_reach_its_extension(side: str) -> None:
    config = PerMessageDeflate(level=1, mem_level=9, threshold=7)
    extension = config.accept_answer(()) if side == "client" else config.accept_offer(())
    assert (extension.level, extension.mem_level, extension.threshold) == (1, 9, 7)


# What is worth compressing


def test_a_message_is_wanted_when_it_reaches_the_threshold() -> None:
    extension = Deflate((), threshold=64)
    assert not extension.wants(63)
    assert extension.wants(64)


def test_no_message_is_wanted_when_our_window_has_8_bits() -> None:
    assert not Deflate((), local_max_window_bits=8).wants(2**20)


# Compressing


def test_message_is_encoded_as_in_the_rfc() -> None:
    assert Deflate(()).encode(b"Hello", fin=True) == HELLO


@pytest.mark.parametrize("payload", [b"Hello", bytearray(b"Hello"), memoryview(b"Hello")])
def test_any_bytes_like_object_is_encoded(payload: BytesLike) -> None:
    assert Deflate(()).encode(payload, fin=True) == HELLO


def test_second_message_is_shorter_when_the_context_is_taken_over() -> None:
    extension = Deflate(())
    first = extension.encode(b"Hello", fin=True)
    assert len(extension.encode(b"Hello", fin=True)) < len(first)


def test_second_message_is_as_the_first_when_the_context_is_not_taken_over() -> None:
    extension = Deflate((), local_no_context_takeover=True)
    assert extension.encode(b"Hello", fin=True) == HELLO
    assert extension.encode(b"Hello", fin=True) == HELLO


def test_fragments_share_a_window_when_the_context_is_not_taken_over() -> None:
    extension = Deflate((), local_no_context_takeover=True)
    first = extension.encode(b"Hello", fin=False)
    second = extension.encode(b"Hello", fin=True)
    assert len(second) < len(HELLO)
    assert Deflate(()).decode(first + second, None, fin=True) == b"HelloHello"


def test_tail_is_removed_from_the_last_fragment_alone(deflate_backend: Backend) -> None:
    extension = Deflate(())
    assert extension.encode(b"Hello", fin=False) == HELLO + b"\x00\x00\xff\xff"
    assert extension.encode(b"", fin=True) == (
        EMPTY if deflate_backend == "zlib" else EMPTY_OF_ISAL
    )


@pytest.mark.parametrize("level", [0, 1, 6])
def test_empty_message_is_encoded_as_in_the_rfc(level: int) -> None:
    extension = Deflate((), level=level, backend="zlib")
    assert extension.encode(b"", fin=True) == EMPTY
    assert extension.encode(b"", fin=True) == EMPTY


def test_empty_message_of_isal_is_decoded_to_nothing() -> None:
    extension = Deflate((), backend="isal")
    for _ in range(2):
        assert extension.encode(b"", fin=True) == EMPTY_OF_ISAL
        assert extension.decode(EMPTY_OF_ISAL, 0, fin=True) == b""


class IdleCompressor:
    """A compressor that leaves out the empty block where it has nothing to flush."""

    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self, mode: int) -> bytes:
        return b""


def test_empty_message_is_encoded_as_in_the_rfc_when_the_codec_flushes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_deflate, "make_compressor", lambda *_, **__: IdleCompressor())
    assert Deflate(()).encode(b"", fin=True) == EMPTY


def test_no_reference_reaches_further_back_than_a_byte_when_our_window_has_8_bits() -> None:
    extension = Deflate((), local_max_window_bits=8)
    assert len(extension.encode(noise(100) * 2, fin=True)) > 200
    assert len(extension.encode(bytes(200), fin=True)) < 20


@pytest.mark.parametrize("bits", range(8, 16))
def test_no_reference_reaches_further_back_than_our_window(bits: int) -> None:
    # Every distance up to well over the window would be worth a reference.
    message = b"".join(noise(1 << n) * 2 for n in range(4, 16))
    rest = Deflate((), local_max_window_bits=bits).encode(message, fin=True)
    # An inflater with that very window which gives byte by byte can see no further.
    inflater = zlib.decompressobj(-bits)
    inflated = bytearray()
    while rest:
        inflated += inflater.decompress(rest, 1)
        rest = inflater.unconsumed_tail
    assert inflated + inflater.flush() == message


# Inflating


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (HELLO, b"Hello"),
        (HELLO_STORED, b"Hello"),
        (HELLO_FINAL, b"Hello"),
        (HELLO_IN_TWO_BLOCKS, b"Hello"),
        (EMPTY, b""),
    ],
)
def test_message_of_the_rfc_is_decoded_wherever_it_is_cut(payload: bytes, message: bytes) -> None:
    for first in range(len(payload) + 1):
        for second in range(first, len(payload) + 1):
            extension = Deflate(())
            # Twice, to see that the first leaves nothing behind.
            for _ in range(2):
                decoded = extension.decode(payload[:first], None, fin=False)
                decoded += extension.decode(payload[first:second], None, fin=False)
                decoded += extension.decode(payload[second:], None, fin=True)
                assert decoded == message


def test_fragments_of_the_rfc_are_decoded() -> None:
    extension = Deflate(())
    first = extension.decode(bytes.fromhex("f2 48 cd"), None, fin=False)
    assert first + extension.decode(bytes.fromhex("c9 c9 07 00"), None, fin=True) == b"Hello"


def test_second_message_of_the_rfc_is_decoded_when_the_context_is_taken_over() -> None:
    extension = Deflate(())
    assert extension.decode(HELLO, None, fin=True) == b"Hello"
    assert extension.decode(HELLO_AGAIN, None, fin=True) == b"Hello"


def test_reference_to_the_message_before_fails_when_the_context_is_not_taken_over() -> None:
    extension = Deflate((), remote_no_context_takeover=True)
    assert extension.decode(HELLO, None, fin=True) == b"Hello"
    with pytest.raises(ProtocolError, match="invalid distance too far back"):
        extension.decode(HELLO_AGAIN, None, fin=True)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_object_is_decoded_to_bytes(kind: type[BytesLike]) -> None:
    extension = Deflate(())
    first = extension.decode(kind(HELLO[:3]), None, fin=False)
    second = extension.decode(kind(HELLO[3:]), None, fin=True)
    assert (type(first), type(second)) == (bytes, bytes)
    assert first + second == b"Hello"


@pytest.mark.parametrize("bits", range(8, 16))
def test_message_is_decoded_when_the_peer_uses_all_of_its_window(bits: int) -> None:
    # A peer that is held to 8 bits may have an inflater of 256 bytes; zlib's deflater has 512.
    message = noise((1 << max(bits, 9)) - 262) * 2
    deflater = zlib.compressobj(wbits=-max(bits, 9))
    payload = (deflater.compress(message) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(payload) < len(message) * 0.9
    extension = Deflate((), remote_max_window_bits=bits)
    decoded = b"".join(
        extension.decode(payload[n : n + 1], 1000, fin=False) for n in range(len(payload))
    )
    assert decoded + extension.decode(b"", 1000, fin=True) == message


# Final blocks (section 7.2.3.4)


def test_message_after_a_final_block_can_refer_to_the_one_before() -> None:
    extension = Deflate(())
    assert extension.decode(HELLO_FINAL, None, fin=True) == b"Hello"
    assert extension.decode(HELLO_AGAIN, None, fin=True) == b"Hello"


def test_final_block_ends_no_more_than_its_message_when_the_context_is_not_taken_over() -> None:
    extension = Deflate((), remote_no_context_takeover=True)
    assert extension.decode(HELLO_FINAL, None, fin=True) == b"Hello"
    with pytest.raises(ProtocolError, match="invalid distance too far back"):
        extension.decode(HELLO_AGAIN, None, fin=True)


def test_blocks_that_follow_final_blocks_are_decoded_wherever_they_are_cut() -> None:
    payload = HELLO_STORED[:-1] + A_FINAL * 2 + EMPTY_FINAL + HELLO_FINAL[:-1] + HELLO_AGAIN
    for cut in range(len(payload) + 1):
        extension = Deflate(())
        decoded = extension.decode(payload[:cut], 17, fin=False)
        decoded += extension.decode(payload[cut:], 17 - len(decoded), fin=True)
        assert decoded == b"HelloaaHelloHello"


@pytest.mark.parametrize("cut", [0, 3, 7])
def test_message_is_decoded_when_the_empty_block_after_a_final_one_is_missing(cut: int) -> None:
    extension = Deflate(())
    payload = HELLO_FINAL[:-1]
    decoded = extension.decode(payload[:cut], None, fin=False)
    assert decoded + extension.decode(payload[cut:], None, fin=True) == b"Hello"
    assert extension.decode(HELLO_AGAIN, None, fin=True) == b"Hello"


@pytest.mark.parametrize("payload", [b"", HELLO_FINAL[:-1]])
def test_no_stream_begins_with_nothing(payload: bytes) -> None:
    extension = Deflate(())
    extension.decode(payload, None, fin=True)
    for fin in (True, False, True, True):
        assert extension.decode(b"", None, fin=fin) == b""
    assert extension.decode(HELLO, None, fin=True) == b"Hello"


@pytest.mark.parametrize("piece_size", [100, 5000, 10**6])
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_block_after_a_final_one_can_refer_to_all_of_the_window(bits: int, piece_size: int) -> None:
    first = noise(40000)
    window = first[-(1 << bits) :]
    deflater = zlib.compressobj(wbits=-15)
    payload = deflater.compress(first) + deflater.flush(zlib.Z_FINISH)
    # Of 15 bits, for a deflater does not use the last 262 bytes of its own window.
    deflater = zlib.compressobj(wbits=-15, zdict=window)
    second = window[262:] if bits == 15 else window
    reference = deflater.compress(second) + deflater.flush(zlib.Z_SYNC_FLUSH)
    assert len(reference) < len(second) / 3
    payload += reference[:-4]
    extension = Deflate((), remote_max_window_bits=bits)
    pieces = [payload[n : n + piece_size] for n in range(0, len(payload), piece_size)]
    decoded = b"".join(extension.decode(piece, None, fin=False) for piece in pieces)
    assert decoded + extension.decode(b"", None, fin=True) == first + second


class Inflaters:
    """A stand-in for zlib.decompressobj that counts what its inflaters do."""

    def __init__(self) -> None:
        self.calls = 0
        self.bytes_in = 0
        self.bytes_out = 0

    def __call__(self, wbits: int, zdict: bytearray) -> CountingInflater:
        return CountingInflater(self, wbits, zdict)


class CountingInflater:
    """The part of zlib's interface that is used for inflating."""

    def __init__(self, inflaters: Inflaters, wbits: int, zdict: bytearray) -> None:
        self._inflaters = inflaters
        self._inflater = zlib.decompressobj(wbits, zdict=zdict)

    def decompress(self, data: BytesLike, max_length: int) -> bytes:
        inflated = self._inflater.decompress(data, max_length)
        self._inflaters.calls += 1
        self._inflaters.bytes_in += len(data)
        self._inflaters.bytes_out += len(inflated)
        return inflated

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data


@pytest.fixture
def inflaters(monkeypatch: pytest.MonkeyPatch) -> Inflaters:
    inflaters = Inflaters()
    monkeypatch.setattr(_deflate, "decompressobj", inflaters)
    return inflaters


@pytest.mark.parametrize("start", [b"", A_FINAL + STORED])
@pytest.mark.parametrize("block", [EMPTY_FINAL, A_FINAL])
def test_work_grows_in_step_with_the_number_of_final_blocks(
    start: bytes, block: bytes, inflaters: Inflaters
) -> None:
    Deflate(()).decode(start + block * 10000, None, fin=True)
    work = inflaters.bytes_in
    Deflate(()).decode(start + block * 20000, None, fin=True)
    assert inflaters.bytes_in - work < 2.1 * work


def test_large_block_after_a_final_one_is_inflated_in_few_calls(inflaters: Inflaters) -> None:
    assert len(Deflate(()).decode(A_FINAL + STORED * 16, None, fin=True)) == 1 + 16 * 65535
    assert inflaters.calls < 20


# Limits


def test_message_of_exactly_max_size_passes() -> None:
    assert Deflate(()).decode(HELLO, 5, fin=True) == b"Hello"


@pytest.mark.parametrize("payload", [HELLO, HELLO_STORED, HELLO_FINAL, HELLO_IN_TWO_BLOCKS])
def test_message_is_too_big_when_it_has_one_byte_more_than_max_size(payload: bytes) -> None:
    with pytest.raises(PayloadTooBig, match="more than the 4 bytes it may have") as caught:
        Deflate(()).decode(payload, 4, fin=True)
    assert caught.value.code == 1009


def test_empty_message_passes_when_no_byte_may_follow() -> None:
    assert Deflate(()).decode(EMPTY, 0, fin=True) == b""


def test_message_is_too_big_when_no_byte_may_follow() -> None:
    with pytest.raises(PayloadTooBig):
        Deflate(()).decode(HELLO, 0, fin=True)


def test_message_of_final_blocks_passes_when_it_has_exactly_max_size() -> None:
    assert Deflate(()).decode(A_FINAL * 9 + EMPTY, 9, fin=True) == b"a" * 9


def test_message_of_final_blocks_is_too_big_when_it_has_one_byte_more() -> None:
    with pytest.raises(PayloadTooBig):
        Deflate(()).decode(A_FINAL * 9 + EMPTY, 8, fin=True)


@pytest.mark.parametrize("start", [b"", A_FINAL])
def test_one_byte_over_max_size_is_inflated_and_no_more(start: bytes, inflaters: Inflaters) -> None:
    with pytest.raises(PayloadTooBig):
        Deflate(()).decode(start + STORED * 2, 1000, fin=True)
    assert inflaters.bytes_out == 1001


@pytest.mark.parametrize("start", [b"", A_FINAL])
def test_inflating_a_gibibyte_stops_at_max_size(start: bytes) -> None:
    deflater = zlib.compressobj(wbits=-15)
    mebibyte = deflater.compress(bytes(2**20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    bomb = start + mebibyte * 1024
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooBig):
            Deflate(()).decode(bomb, 2**20, fin=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The bomb with its tail, what zlib did not use of it, and a result that grows by copying.
    assert peak < 2 * len(bomb) + 4 * 2**20


# Errors


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"\xff", "invalid block type"),
        (b"\x00\x05\x00\x05\x00", "invalid stored block lengths"),
        (HELLO_AGAIN, "invalid distance too far back"),
        (A_FINAL + b"\xff", "invalid block type"),
    ],
)
def test_corrupt_message_is_a_protocol_error(payload: bytes, problem: str) -> None:
    with pytest.raises(
        ProtocolError, match=f"compressed message is corrupt: .*{problem}"
    ) as caught:
        Deflate(()).decode(payload, None, fin=True)
    assert caught.value.code == 1002
    assert isinstance(caught.value.__cause__, zlib.error)


# Memory


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Give the list of the codecs that are made, with their window bits."""
    codecs: list[tuple[str, int]] = []

    def make(backend: Backend, *, level: int, bits: int, mem_level: int) -> object:
        codecs.append(("compressor", bits))
        return make_compressor(backend, level=level, bits=bits, mem_level=mem_level)

    def decompressobj(wbits: int, zdict: bytearray) -> object:
        codecs.append(("decompressor", -wbits))
        return zlib.decompressobj(wbits, zdict=zdict)

    monkeypatch.setattr(_deflate, "make_compressor", make)
    monkeypatch.setattr(_deflate, "decompressobj", decompressobj)
    return codecs


def test_codecs_are_made_when_they_are_first_used(made: list[tuple[str, int]]) -> None:
    extension = Deflate((), local_max_window_bits=10, remote_max_window_bits=11)
    assert extension.wants(1000)
    assert made == []
    extension.encode(b"Hello", fin=True)
    assert made == [("compressor", 10)]
    extension.decode(HELLO, None, fin=True)
    assert made == [("compressor", 10), ("decompressor", 11)]


def test_codecs_are_kept_when_the_context_is_taken_over(made: list[tuple[str, int]]) -> None:
    extension = Deflate(())
    for _ in range(3):
        extension.decode(extension.encode(b"Hello", fin=True), None, fin=True)
    assert made == [("compressor", 15), ("decompressor", 15)]


def test_codecs_are_made_for_each_message_when_the_context_is_not_taken_over(
    made: list[tuple[str, int]],
) -> None:
    extension = Deflate((), local_no_context_takeover=True, remote_no_context_takeover=True)
    for _ in range(2):
        extension.decode(extension.encode(b"Hello", fin=True), None, fin=True)
    assert made == [("compressor", 15), ("decompressor", 15)] * 2


def memory_after(pieces: list[tuple[bytes, bool]]) -> int:
    """Give the bytes of memory that an extension holds after it has decoded `pieces`."""
    tracemalloc.start()
    try:
        extension = Deflate(())
        for piece, fin in pieces:
            extension.decode(piece, None, fin=fin)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return size


def test_memory_does_not_grow_with_the_message() -> None:
    assert memory_after([(STORED, False)] * 64) < memory_after([(STORED, False)] * 2) + 2**15


def test_message_in_pieces_leaves_no_more_in_memory_than_one_in_a_piece() -> None:
    whole = memory_after([(STORED * 2 + EMPTY, True)])
    assert memory_after([(STORED, False), (STORED, False), (EMPTY, True)]) < whole + 2**12


# Both ends

window_bits = st.one_of(st.none(), st.integers(8, 15))
configs = st.builds(
    PerMessageDeflate,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    server_max_window_bits=window_bits,
    client_max_window_bits=st.one_of(window_bits, st.just(True)),
    level=st.integers(-1, 9),
    mem_level=st.integers(1, 9),
)
fragments = st.one_of(
    st.binary(max_size=100),
    st.builds(lambda part, count: part * count, st.binary(max_size=300), st.integers(0, 40)),
    st.builds(noise, st.integers(0, 3000)),
)


def split(data: st.DataObject, payload: bytes) -> list[bytes]:
    """Cut a payload at drawn places."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    return [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]


def transfer(data: st.DataObject, sender: Deflate, receiver: Deflate) -> None:
    """Send drawn messages in fragments, and receive each as the pieces of one stream."""
    for message in data.draw(st.lists(st.lists(fragments, min_size=1, max_size=3), max_size=4)):
        ends = [n == len(message) - 1 for n in range(len(message))]
        payloads = [sender.encode(part, fin=end) for part, end in zip(message, ends, strict=True)]
        *pieces, last = split(data, b"".join(payloads))
        room = len(b"".join(message))
        received = b""
        for piece in pieces:
            received += receiver.decode(piece, room - len(received), fin=False)
        received += receiver.decode(last, room - len(received), fin=True)
        assert received == b"".join(message)


@given(client_config=configs, server_config=configs, data=st.data())
def test_messages_arrive_as_they_were_sent(
    client_config: PerMessageDeflate, server_config: PerMessageDeflate, data: st.DataObject
) -> None:
    server = server_config.accept_offer(client_config.offer())
    client = client_config.accept_answer(server.parameters)
    transfer(data, client, server)
    transfer(data, server, client)


@given(
    blocks=st.lists(st.tuples(fragments, st.booleans()), max_size=5),
    takeover=st.booleans(),
    data=st.data(),
)
def test_message_of_final_and_other_blocks_is_decoded_in_any_pieces(
    blocks: list[tuple[bytes, bool]], takeover: bool, data: st.DataObject
) -> None:
    extension = Deflate((), remote_no_context_takeover=not takeover)
    for _ in range(2):
        message = b""
        payload = b""
        for content, is_final in blocks:
            deflater = zlib.compressobj(wbits=-15, zdict=message[-32768:])
            payload += deflater.compress(content)
            payload += deflater.flush(zlib.Z_FINISH if is_final else zlib.Z_SYNC_FLUSH)
            message += content
        *pieces, last = split(data, payload + EMPTY)
        decoded = b"".join(extension.decode(piece, len(message), fin=False) for piece in pieces)
        decoded += extension.decode(last, len(message) - len(decoded), fin=True)
        assert decoded == message


# Who compresses


def test_isal_compresses_where_it_is_installed(deflate_backend: Backend) -> None:
    assert DEFAULT_BACKEND == "isal"
    assert choose_backend(None) == deflate_backend
    assert PerMessageDeflate().accept_offer([]).backend == deflate_backend
    assert PerMessageDeflate(backend="zlib").accept_offer([]).backend == "zlib"
    assert PerMessageDeflate(backend="isal").accept_offer([]).backend == "isal"


def test_isal_is_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compressors, "isal_zlib", None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'anyws\[speed\]'"):
        PerMessageDeflate(backend="isal")


@pytest.mark.parametrize(
    ("backend", "level", "bits", "module"),
    [
        ("zlib", 6, 12, "zlib"),
        ("isal", 6, 12, "isal_zlib"),
        ("isal", -1, 15, "isal_zlib"),
        ("isal", 0, 12, "zlib"),
        ("isal", 6, 8, "zlib"),
    ],
)
def test_zlib_does_what_isal_cannot(backend: Backend, level: int, bits: int, module: str) -> None:
    compressor = make_compressor(backend, level=level, bits=bits, mem_level=5)
    assert type(compressor).__module__ == module


def test_frames_of_two_backends_are_not_shared() -> None:
    one, other = Deflate((), backend="zlib"), Deflate((), backend="isal")
    assert one.sharing != other.sharing


def test_package_works_where_isal_is_not_installed() -> None:
    program = (
        "import sys; sys.modules['isal'] = None\n"
        "from anyws.sansio._deflate import Deflate\n"
        "deflate = Deflate(())\n"
        "assert deflate.backend == 'zlib'\n"
        "assert deflate.encode(b'Hello', fin=True) == bytes.fromhex('f248cdc9c90700')"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30)


@pytest.mark.parametrize(
    "name",
    ["server_max_window_bits", "client_max_window_bits", "level", "mem_level", "threshold"],
)
@pytest.mark.parametrize("value", [9.0, "9", False, float("nan")], ids=repr)
def test_configuration_is_refused_when_a_value_is_no_integer(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be an int, not {type(value).__name__}$"):
        PerMessageDeflate(**{name: value})


def test_repr_tells_what_was_agreed_on() -> None:
    parameters = [("server_no_context_takeover", None), ("server_max_window_bits", "12")]
    expected = "<permessage-deflate; server_no_context_takeover; server_max_window_bits=12>"
    assert repr(Deflate(parameters)) == expected
