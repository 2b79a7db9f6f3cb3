"""What a fuzzer drives: functions of some bytes, each of which raises where anyws does wrong.

Owns what must hold whatever the bytes are: the documented errors and no others, the same result
however a stream is cut, and bounds. The opening handshakes are in `handshakes`, proxies in
`tunnels`. What the bytes mean is described in `choices`. Knows no fuzzer: `test_corpus`,
`test_targets` and `run` are three.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from anyws._http import Headers, describe_flaw, is_token
from anyws._types import CloseCode, Ping, Role, State
from anyws.exceptions import (
    ConnectionClosed,
    InvalidHeader,
    InvalidOrigin,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
)
from anyws.sansio import _headers
from anyws.sansio._deflate import TAIL, Deflate, PerMessageDeflate
from anyws.sansio._origins import SAME_HOST, AllowedOrigins, is_host
from anyws.sansio._protocol import Protocol
from tests.fuzzing.choices import WHOLE, Choices, cut
from tests.fuzzing.decoding import CODECS, LIMITS, Course, check_decoders
from tests.fuzzing.handshakes import fuzz_client_handshake, fuzz_server_handshake, fuzz_uri
from tests.fuzzing.tunnels import fuzz_proxy_uri, fuzz_tunnel
from tests.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, Frame, frame, parse_frames

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from anyws._types import Event

# Frames.


def fuzz_decoder(data: bytes) -> None:
    """Decode what may be no frames at all."""
    choices = Choices(data)
    course = Course.choose(choices)
    check_decoders(choices.rest(), course)


OPCODES = (TEXT, BINARY, CONT, CONT, PING, PONG, CLOSE, 3)

# Around what each form of a length holds; a size under 200 is that many bytes of the data.
SIZES = (125, 126, 127, 1000, 65535, 65536, 70000)

# Bytes of frames after which no other follows.
MOST = 65536


def fuzz_frames(data: bytes) -> None:
    """Decode frames whose form is right, in an order that may be wrong."""
    choices = Choices(data)
    course = Course.choose(choices)
    key = choices.take(4).ljust(4, b"\0") if course.masked else None
    deflate = Deflate((), local_no_context_takeover=course.no_context_takeover, backend="zlib")
    compressing = False
    wire = bytearray()
    while choices and len(wire) < MOST:
        what = choices.byte()
        opcode, fin, compressed, wrong = OPCODES[what & 7], what & 8, what & 16, what & 32
        size = choices.byte()
        if size < 200:
            payload = choices.take(size)
        else:
            size = SIZES[size % len(SIZES)]
            payload = (choices.take(1 + choices.byte() % 16) * size)[:size]
        rsv = 1 if wrong else 0
        if opcode in {TEXT, BINARY}:
            compressing = bool(course.deflate and compressed)
            rsv |= 4 if compressing else 0
        if compressing and opcode in {TEXT, BINARY, CONT}:
            payload = deflate.encode(payload, fin=bool(fin))
        wire += frame(opcode, payload, fin=bool(fin), rsv=rsv, mask=key)
    check_decoders(bytes(wire), course)


def fuzz_encoder(data: bytes) -> None:
    """Encode a frame by each codec, and decode it."""
    choices = Choices(data)
    opcode = choices.pick((TEXT, BINARY, PING, PONG))
    fin, rsv1, masked, text, view, repeated = choices.flags(6)
    key = choices.take(4).ljust(4, b"\0") if masked else None
    payload = choices.rest()
    if repeated:
        payload = (payload * 70000)[: 65536 + len(payload) - 2]
    given: Any = memoryview(payload)[::-1] if view else payload
    if view:
        payload = payload[::-1]
    if text:
        given = payload.decode("latin-1")
        payload = given.encode()
    wires = [
        codec.encode_frame(opcode, given, fin=fin, rsv1=rsv1, masking_key=key) for codec in CODECS
    ]
    assert wires == [wires[0]] * len(CODECS)
    assert parse_frames(wires[0]) == [Frame(opcode, payload, fin, 4 if rsv1 else 0, masked)]
    extended = 0 if len(payload) < 126 else 2 if len(payload) < 65536 else 8
    assert len(wires[0]) == 2 + extended + len(key or b"") + len(payload)
    assert key is None or wires[0][2 + extended :].startswith(key)
    if key is not None and not text:
        for codec in CODECS:
            assert codec.apply_mask(given, key) == wires[0][6 + extended :]


# An open connection.

ALLOWED = {
    State.OPEN: {State.OPEN, State.CLOSING, State.CLOSED},
    State.CLOSING: {State.CLOSING, State.CLOSED},
    State.CLOSED: {State.CLOSED},
}

STEPS: tuple[Callable[[Protocol, int], object], ...] = (
    lambda it, _: it.send_message("text"),
    lambda it, number: it.send_message(bytes(number * 10)),
    lambda it, number: it.send_fragment("naïve", fin=number % 2 == 0),
    lambda it, number: it.send_ping(bytes([number])),
    lambda it, number: it.send_pong(bytes([number])),
    lambda it, number: it.data_to_send(newest_pong=number % 2 == 0),
    lambda it, number: it.send_close((1000, 1005, 3000)[number % 3]),
    lambda it, _: it.fail(CloseCode.INTERNAL_ERROR, "reason " * 30),
    lambda it, _: it.receive_eof(),
    lambda it, _: it.lose_write(),
    lambda it, _: it.release_failure(),
    lambda it, number: setattr(it.decoder, "fragments", number % 2 == 0),
)


def fuzz_protocol(data: bytes) -> None:
    """Let a peer send anything while we send, close and fail at any time."""
    first, *others = [_converse(Choices(data), codec) for codec in CODECS]
    for other in others:
        assert other == first


def _converse(choices: Choices, codec: ModuleType) -> tuple[list[Event], list[Frame]]:
    """Have a conversation; give what was received and what was sent."""
    server, deflate, holds_failure = choices.flags(3)
    role = Role.SERVER if server else Role.CLIENT
    extension = Deflate(()) if deflate else None
    max_size = choices.pick(LIMITS)
    protocol = Protocol(role, max_size=max_size, extension=extension)
    protocol.decoder = codec.Decoder(masked=server, max_size=max_size, inflate=extension)
    protocol.holds_failure = holds_failure
    max_messages = choices.pick((None, 1, 2))
    steps = choices.take(choices.byte() % 32)
    wire = choices.rest()
    sent = bytearray()
    seen: list[Event] = []
    for step in steps:
        state = protocol.state
        # Half of the steps receive, the other half do something else.
        if step & 1:
            piece, wire = wire[: step >> 1], wire[step >> 1 :]
            seen += protocol.receive_data(piece, None, max_messages)
        else:
            sent += _take_step(protocol, step >> 1)
        assert protocol.state in ALLOWED[state]
    seen += protocol.receive_data(wire)
    protocol.release_failure()
    sent += protocol.data_to_send()
    assert protocol.data_to_send() == b""
    frames = parse_frames(bytes(sent))
    _check_sent(frames, seen, protocol)
    protocol.receive_eof()
    assert protocol.state is State.CLOSED
    assert protocol.receive_data(b"\x81\x00") == []
    return seen, frames


def _take_step(protocol: Protocol, number: int) -> bytes:
    state = protocol.state
    try:
        result = STEPS[number % len(STEPS)](protocol, number // len(STEPS))
    except ConnectionClosed as exc:
        assert state is not State.OPEN
        assert exc.args == protocol.close_exc().args
        return b""
    except RuntimeError:
        assert protocol.sending_fragments
        return b""
    return result if isinstance(result, bytes) else b""


def _check_sent(frames: list[Frame], seen: list[Event], protocol: Protocol) -> None:
    """Check what a protocol has sent: by RFC 6455 sections 5.4 and 5.5."""
    closes = [index for index, it in enumerate(frames) if it.opcode == CLOSE]
    assert closes in ([], [len(frames) - 1])
    assert bool(closes) is (protocol.close_sent is not None)
    if closes and protocol.close_sent is not None and protocol.close_sent.code != 1005:
        assert frames[-1].code == protocol.close_sent.code
        assert frames[-1].reason == protocol.close_sent.reason
    within = False
    pings = iter([event.data for event in seen if type(event) is Ping])
    for it in frames:
        assert it.masked is (protocol.role is Role.CLIENT)
        assert it.rsv in ({0, 4} if protocol.extension and it.opcode in {TEXT, BINARY} else {0})
        if it.opcode >= CLOSE:
            assert it.fin
            assert len(it.payload) <= 125
        else:
            assert (it.opcode == CONT) is within
            within = not it.fin
    # The answers are the Pongs that our own steps did not send: those of two bytes or more.
    for it in frames:
        if it.opcode == PONG and len(it.payload) > 1:
            assert it.payload in pings, "Pong without a Ping, or out of order"


# Compression.


def fuzz_deflate(data: bytes) -> None:
    """Inflate messages in pieces: anything, or what was compressed and then changed."""
    choices = Choices(data)
    no_context_takeover, compress, isal, fragmented, final = choices.flags(5)
    bits = 8 + choices.byte() % 8
    limit = choices.pick(LIMITS)
    pattern = choices.byte()
    changes = choices.take(choices.byte() % 16)
    deflater = Deflate(
        (),
        local_no_context_takeover=no_context_takeover,
        local_max_window_bits=bits,
        backend="isal" if isal else "zlib",
    )
    plain: list[bytes] = []
    messages: list[bytes] = []
    while choices and len(messages) < 8:
        size = choices.byte()
        message = choices.take(size if size < 192 else (size - 191) * 16)
        plain.append(message)
        half = len(message) // 2
        if compress and final:
            message = _deflate_finally(message[:half], message[half:], bits)
        elif compress and fragmented:
            first = deflater.encode(message[:half], fin=False)
            message = first + deflater.encode(message[half:], fin=True)
        elif compress:
            message = deflater.encode(message, fin=True)
        messages.append(_change(message, changes))
    terms = _Terms(bits, limit, no_context_takeover)
    whole = _inflate(messages, WHOLE, terms)
    pieces = _inflate(messages, pattern, terms)
    # In pieces, what is wrong can stand behind the byte that is too many.
    assert [isinstance(it, bytes) and it for it in pieces] == [
        isinstance(it, bytes) and it for it in whole
    ]
    for it, reference in zip(whole, _inflate_at_once(messages, terms), strict=False):
        if isinstance(it, bytes):
            assert limit is None or len(it) <= limit
            assert reference is None or it == reference
        elif it is PayloadTooBig and reference is not None:
            assert limit is not None
            assert len(reference) > limit
    if compress and limit is None and not any(changes[1::2]):
        assert whole == plain


def _deflate_finally(first: bytes, second: bytes, bits: int) -> bytes:
    """Compress to a final block, and to more that refers to it (RFC 7692 section 7.2.3.4)."""
    bits = max(bits, 9)
    deflater = zlib.compressobj(wbits=-bits)
    payload = deflater.compress(first) + deflater.flush(zlib.Z_FINISH)
    if not second:
        return payload
    deflater = zlib.compressobj(wbits=-bits, zdict=first[-(1 << bits) :])
    payload += deflater.compress(second) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return payload.removesuffix(TAIL)


class _Terms(NamedTuple):
    """What a peer compresses by, and the bytes of the largest message."""

    bits: int
    limit: int | None
    no_context_takeover: bool


def _change(data: bytes, changes: bytes) -> bytes:
    """Change bytes of `data`: where, and by which bits, in turns."""
    changed = bytearray(data)
    if changed:
        for place, bits in zip(changes[::2], changes[1::2], strict=False):
            changed[place % len(changed)] ^= bits
    return bytes(changed)


def _inflate(
    messages: list[bytes], pattern: int, terms: _Terms
) -> list[bytes | type[ProtocolError]]:
    """Give the messages, and at the end the error if there is one."""
    inflater = Deflate(
        (),
        remote_no_context_takeover=terms.no_context_takeover,
        remote_max_window_bits=terms.bits,
    )
    results: list[bytes | type[ProtocolError]] = []
    for message in messages:
        pieces = list(cut(message, pattern)) or [b""]
        if pattern & 1 and pattern != WHOLE:
            pieces.append(b"")  # an empty last fragment
        output = b""
        try:
            for number, piece in enumerate(pieces, 1):
                room = None if terms.limit is None else terms.limit - len(output)
                output += inflater.decode(piece, room, fin=number == len(pieces))
        except ProtocolError as exc:
            results.append(type(exc))
            break
        results.append(output)
    return results


def _inflate_at_once(messages: list[bytes], terms: _Terms) -> list[bytes | None]:
    """Inflate as RFC 7692 section 7.2.2 says; None from where that has no answer.

    That is behind what is corrupt, behind a final block, and where a stream begins with nothing.
    """
    results: list[bytes | None] = []
    inflater = None
    for message in messages:
        if inflater is None or terms.no_context_takeover:
            if not message:
                break
            inflater = zlib.decompressobj(-max(terms.bits, 9))
        try:
            output = inflater.decompress(message + TAIL, 2**22)
        except zlib.error:
            break
        if inflater.eof or inflater.unconsumed_tail:
            break
        results.append(output)
    return results + [None] * (len(messages) - len(results))


CONFIGURATIONS = (
    PerMessageDeflate(),
    PerMessageDeflate(server_max_window_bits=None, client_max_window_bits=None),
    PerMessageDeflate(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=8,
        client_max_window_bits=True,
    ),
)


def fuzz_negotiation(data: bytes) -> None:
    """Offer and answer permessage-deflate with any parameters."""
    choices = Choices(data)
    configuration = choices.pick(CONFIGURATIONS)
    other = choices.pick(CONFIGURATIONS)
    try:
        extensions = _headers.parse_extensions(choices.rest().decode("latin-1"))
    except InvalidHeader:
        return
    for _, parameters in extensions:
        with suppress(NegotiationError):
            configuration.accept_answer(parameters)
        try:
            server = configuration.accept_offer(parameters)
        except NegotiationError:
            continue
        assert server is not None
        text = _headers.build_extensions([(server.name, server.parameters)])
        assert _headers.parse_extensions(text) == [(server.name, list(server.parameters))]
        names = [name for name, _ in parameters]
        assert all(8 <= int(value) <= 15 for _, value in server.parameters if value is not None)
        answered = [name for name, _ in server.parameters]
        assert "client_max_window_bits" in names or "client_max_window_bits" not in answered
        # RFC 7692 sections 7.1.1.1 and 7.1.2.1: these are accepted by the answer that has them.
        for name in ("server_no_context_takeover", "server_max_window_bits"):
            assert name not in names or name in answered
    client = other.accept_answer(configuration.accept_offer(other.offer()).parameters)
    server = configuration.accept_offer(other.offer())
    message = data * 20
    assert server.decode(client.encode(message, fin=True), None, fin=True) == message
    assert client.decode(server.encode(message, fin=True), None, fin=True) == message


# Fields of the opening handshake.

PARSERS: tuple[Callable[[str], list[str]], ...] = (
    _headers.parse_connection,
    _headers.parse_upgrade,
    _headers.parse_subprotocols,
    lambda value: _headers.parse_token_list(value, "Name"),
)

ORIGINS = [AllowedOrigins(policy) for policy in (SAME_HOST, "*", ["https://example.com"])]


def fuzz_headers(data: bytes) -> None:
    """Parse the value of a field by each parser."""
    value = data.decode("latin-1")
    for parse in PARSERS:
        try:
            elements = parse(value)
        except InvalidHeader as exc:
            assert exc.value == value
            continue
        assert elements
        assert all(is_token(part) for element in elements for part in element.split("/"))
        assert parse(" ,, ".join(elements)) == elements
    try:
        extensions = _headers.parse_extensions(value)
    except InvalidHeader:
        pass
    else:
        assert extensions
        assert _headers.parse_extensions(_headers.build_extensions(extensions)) == extensions
    if _headers.is_valid_key(value):
        assert len(value) == 24
        assert len(_headers.accept_key(value)) == 28
    _check_origin(value)


def _check_origin(value: str) -> None:
    """Check the part behind the first space as the Origin of a request to the part before it."""
    host, _, origin = value.partition(" ")
    if not is_host(host) or describe_flaw(origin) is not None:
        return
    headers = Headers({"Host": host, "Origin": origin})
    for policy in ORIGINS:
        try:
            policy.check(headers)
        except InvalidOrigin as exc:
            assert exc.value == headers["Origin"]
        else:
            if policy is ORIGINS[0]:
                theirs = headers["Origin"].partition("://")[2]
                assert _without_port(theirs) == _without_port(host) != ""


def _without_port(host: str) -> str:
    before, colon, port = host.lower().rpartition(":")
    return before if colon and "]" not in port else host.lower()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "client_handshake": fuzz_client_handshake,
    "decoder": fuzz_decoder,
    "deflate": fuzz_deflate,
    "encoder": fuzz_encoder,
    "frames": fuzz_frames,
    "headers": fuzz_headers,
    "negotiation": fuzz_negotiation,
    "protocol": fuzz_protocol,
    "proxy_uri": fuzz_proxy_uri,
    "server_handshake": fuzz_server_handshake,
    "tunnel": fuzz_tunnel,
    "uri": fuzz_uri,
}
"""Each target by the name of its folder in `corpus/`."""
