"""permessage-deflate: its negotiation, and the codecs of a connection that uses it.

Owns RFC 7692, section 7 above all. Knows payloads and parameters; frames, masking, RSV1 and the
text of the Sec-WebSocket-Extensions field are the business of others.
"""

import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import Z_SYNC_FLUSH, decompressobj, error

from .._types import BytesLike
from ..exceptions import NegotiationError, PayloadTooBig, ProtocolError
from ._compressors import MIN_WINDOW_BITS as MIN_CODEC_WINDOW_BITS
from ._compressors import Backend, Compressor, choose_backend, make_compressor
from ._extensions import ClientExtension, Extension, Parameter, ServerExtension
from ._limits import check_int

if TYPE_CHECKING:
    from zlib import _Decompress

SERVER_NO_CONTEXT_TAKEOVER = "server_no_context_takeover"
CLIENT_NO_CONTEXT_TAKEOVER = "client_no_context_takeover"
SERVER_MAX_WINDOW_BITS = "server_max_window_bits"
CLIENT_MAX_WINDOW_BITS = "client_max_window_bits"

MIN_WINDOW_BITS = 8
MAX_WINDOW_BITS = 15
"""What holds where a window is not negotiated: 32 KiB, the largest of DEFLATE."""

# RFC 7692 section 7.1.2.1: "a decimal integer value without leading zeroes between 8 to 15,
# inclusive".
WINDOW_BITS = {str(bits): bits for bits in range(MIN_WINDOW_BITS, MAX_WINDOW_BITS + 1)}

TAIL = b"\x00\x00\xff\xff"
"""The end of the empty block that a flush leaves, taken off each message (section 7.2.1)."""

# Section 7.2.3.6: the header bits of an empty block, should a codec find nothing to flush.
EMPTY_MESSAGE = b"\x00"

# After a final block zlib copies all of the input that it did not use. Such blocks can be as small
# as two bytes, so what follows one is fed by slices of this many bytes, or copying would take
# quadratic time: 4.7 s instead of 0.6 s for 1 MiB of them.
STEP_SIZE = 256


@dataclass(frozen=True)
class PerMessageDeflate(ClientExtension, ServerExtension):
    """Compression of messages, as a client offers it or a server accepts it (RFC 7692).

    The windows and `mem_level` decide on memory: 12 bits and 5 take about 40 KiB for a connection,
    15 bits and 8 about five times as much. A JSON message of 1 KiB takes zlib 9 µs at level 3;
    level 6, zlib's own choice, makes it 3 to 10 % smaller in 13 µs, and level 1 is no faster.

    Args:
        server_no_context_takeover: the server starts each message with an empty window.
        client_no_context_takeover: the client starts each message with an empty window.
        server_max_window_bits: the most that the server's window may have, 8 to 15: it has 2 to
            the power of this many bytes; None is no limit.
        client_max_window_bits: the same for the client's window. In an offer an integer also
            says that the client keeps to it in any case, True lets the server choose freely, and
            None forbids the server to choose.
        level: how hard to compress, 0 (not at all) to 9; -1 is zlib's own choice.
        mem_level: how much memory to compress with, 1 to 9.
        threshold: messages of fewer bytes than this are sent uncompressed.
        backend: who compresses: "zlib"; "isal", which is faster and needs the extra `speed`, and
            has one level for all but 0; or None for isal where it is installed.

    Raises:
        ValueError: a value is outside its limits, or the backend is not installed.
        TypeError: a value is no integer, or a flag no bool.
    """

    name = "permessage-deflate"

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = 12
    client_max_window_bits: int | bool | None = 12
    level: int = 3
    mem_level: int = 5
    threshold: int = 64
    backend: Backend | None = None

    def __post_init__(self) -> None:
        for name in (SERVER_NO_CONTEXT_TAKEOVER, CLIENT_NO_CONTEXT_TAKEOVER):
            flag = getattr(self, name)
            if not isinstance(flag, bool):
                raise TypeError(f"{name} must be a bool, not {type(flag).__name__}")
        if self.server_max_window_bits is not None:
            _check_range(SERVER_MAX_WINDOW_BITS, self.server_max_window_bits, 8, 15)
        if self.client_max_window_bits is not None and self.client_max_window_bits is not True:
            _check_range(CLIENT_MAX_WINDOW_BITS, self.client_max_window_bits, 8, 15)
        _check_range("level", self.level, -1, 9)
        _check_range("mem_level", self.mem_level, 1, 9)
        check_int("threshold", self.threshold)
        if self.threshold < 0:
            raise ValueError(f"threshold of {self.threshold} is under 0")
        choose_backend(self.backend)

    def offer(self) -> Sequence[Parameter]:
        """Give the parameters of a client's offer (section 7.1)."""
        parameters: list[Parameter] = []
        if self.server_no_context_takeover:
            parameters.append((SERVER_NO_CONTEXT_TAKEOVER, None))
        if self.client_no_context_takeover:
            parameters.append((CLIENT_NO_CONTEXT_TAKEOVER, None))
        if self.server_max_window_bits is not None:
            parameters.append((SERVER_MAX_WINDOW_BITS, str(self.server_max_window_bits)))
        if self.client_max_window_bits is True:
            parameters.append((CLIENT_MAX_WINDOW_BITS, None))
        elif self.client_max_window_bits is not None:
            parameters.append((CLIENT_MAX_WINDOW_BITS, str(self.client_max_window_bits)))
        return parameters

    def accept_answer(self, parameters: Sequence[Parameter]) -> "Deflate":
        """Take the parameters that the server answered a client's offer with (section 7.1).

        An answer without `server_max_window_bits` is taken even if that was offered: some servers
        ignore it, and inflating with the largest window suits them. An answer with a larger
        `client_max_window_bits` than offered is taken as well: we keep to the smaller.

        Returns:
            The extension in use, whose local endpoint is the client.

        Raises:
            NegotiationError: a parameter is unknown, is given twice, has a wrong value, or is
                no answer to the offer.
        """
        flags, bits = _parse_parameters(parameters, is_offer=False)
        # Section 7.1.1.1: a server accepts the offer of it "by including" it in the answer.
        if self.server_no_context_takeover and SERVER_NO_CONTEXT_TAKEOVER not in flags:
            raise NegotiationError(f"answer lacks {SERVER_NO_CONTEXT_TAKEOVER}, which was offered")
        # Section 7.1.2.1: "with the same or smaller value as the offer".
        server_limit = _bits(self.server_max_window_bits)
        if bits.get(SERVER_MAX_WINDOW_BITS, 0) > server_limit:
            raise NegotiationError(
                f"{SERVER_MAX_WINDOW_BITS} of {bits[SERVER_MAX_WINDOW_BITS]} in the answer exceeds "
                f"the offered {server_limit}"
            )
        # Section 7.1.2.2: the answer to an offer without it "MUST NOT include" it.
        if self.client_max_window_bits is None and CLIENT_MAX_WINDOW_BITS in bits:
            raise NegotiationError(f"answer has {CLIENT_MAX_WINDOW_BITS}, which was not offered")
        return self._build(
            parameters,
            local_no_context_takeover=(
                self.client_no_context_takeover or CLIENT_NO_CONTEXT_TAKEOVER in flags
            ),
            remote_no_context_takeover=SERVER_NO_CONTEXT_TAKEOVER in flags,
            local_max_window_bits=min(
                _bits(self.client_max_window_bits),
                bits.get(CLIENT_MAX_WINDOW_BITS, MAX_WINDOW_BITS),
            ),
            remote_max_window_bits=bits.get(SERVER_MAX_WINDOW_BITS, MAX_WINDOW_BITS),
        )

    def accept_offer(self, parameters: Sequence[Parameter]) -> "Deflate":
        """Take a client's offer (section 7.1); every offer that is well-formed can be taken.

        Our own limit on the client's window is dropped where the client does not let us set it.

        Returns:
            The extension in use, whose local endpoint is the server.

        Raises:
            NegotiationError: a parameter is unknown, is given twice, or has a wrong value.
        """
        flags, bits = _parse_parameters(parameters, is_offer=True)
        server_flag = self.server_no_context_takeover or SERVER_NO_CONTEXT_TAKEOVER in flags
        client_flag = self.client_no_context_takeover or CLIENT_NO_CONTEXT_TAKEOVER in flags
        server_bits = min(
            _bits(self.server_max_window_bits),
            bits.get(SERVER_MAX_WINDOW_BITS, MAX_WINDOW_BITS),
        )
        client_bits = MAX_WINDOW_BITS
        if CLIENT_MAX_WINDOW_BITS in bits:
            client_bits = min(_bits(self.client_max_window_bits), bits[CLIENT_MAX_WINDOW_BITS])

        answer: list[Parameter] = []
        if server_flag:
            answer.append((SERVER_NO_CONTEXT_TAKEOVER, None))
        if client_flag:
            answer.append((CLIENT_NO_CONTEXT_TAKEOVER, None))
        # Section 7.1.2.1: an offer of it must be answered; the server MAY also include it unasked.
        if SERVER_MAX_WINDOW_BITS in bits or server_bits < MAX_WINDOW_BITS:
            answer.append((SERVER_MAX_WINDOW_BITS, str(server_bits)))
        if client_bits < MAX_WINDOW_BITS:
            answer.append((CLIENT_MAX_WINDOW_BITS, str(client_bits)))
        return self._build(
            answer,
            local_no_context_takeover=server_flag,
            remote_no_context_takeover=client_flag,
            local_max_window_bits=server_bits,
            remote_max_window_bits=client_bits,
        )

    def _build(
        self,
        parameters: Sequence[Parameter],
        *,
        local_no_context_takeover: bool,
        remote_no_context_takeover: bool,
        local_max_window_bits: int,
        remote_max_window_bits: int,
    ) -> "Deflate":
        """Give what was agreed on our own choices of how to compress."""
        return Deflate(
            parameters,
            local_no_context_takeover=local_no_context_takeover,
            remote_no_context_takeover=remote_no_context_takeover,
            local_max_window_bits=local_max_window_bits,
            remote_max_window_bits=remote_max_window_bits,
            level=self.level,
            mem_level=self.mem_level,
            threshold=self.threshold,
            backend=self.backend,
        )


class Deflate(Extension):
    """permessage-deflate in use on one connection: a compressor and a decompressor.

    Each is made when it is first used. After an error the object is not used again.

    Args:
        parameters: what was agreed on, as the server answered it.
        local_no_context_takeover: we start each message with an empty window.
        remote_no_context_takeover: the peer starts each message with an empty window.
        local_max_window_bits: the most that our window may have, 8 to 15. With 8 messages go
            uncompressed, for zlib has no such window, but those of `compress=True`.
        remote_max_window_bits: the most that the peer's window has, 8 to 15.
        level: how hard to compress, -1 to 9.
        mem_level: how much memory to compress with, 1 to 9.
        threshold: messages of fewer bytes than this are not worth compressing.
        backend: who compresses, as for `PerMessageDeflate`.
    """

    name: str = PerMessageDeflate.name

    def __init__(
        self,
        parameters: Sequence[Parameter],
        *,
        local_no_context_takeover: bool = False,
        remote_no_context_takeover: bool = False,
        local_max_window_bits: int = MAX_WINDOW_BITS,
        remote_max_window_bits: int = MAX_WINDOW_BITS,
        level: int = PerMessageDeflate.level,
        mem_level: int = PerMessageDeflate.mem_level,
        threshold: int = PerMessageDeflate.threshold,
        backend: Backend | None = None,
    ) -> None:
        self.parameters: Sequence[Parameter] = tuple(parameters)
        self.local_no_context_takeover = local_no_context_takeover
        self.remote_no_context_takeover = remote_no_context_takeover
        self.local_max_window_bits = local_max_window_bits
        self.remote_max_window_bits = remote_max_window_bits
        self.level = level
        self.mem_level = mem_level
        self.threshold = threshold
        self.backend: Backend = choose_backend(backend)
        self.sharing: Hashable = (self.name, local_max_window_bits, level, mem_level, self.backend)
        self._compresses = local_max_window_bits >= MIN_CODEC_WINDOW_BITS
        self._compressor: Compressor | None = None
        self._inflate_bits = max(remote_max_window_bits, MIN_CODEC_WINDOW_BITS)
        # None where a DEFLATE stream is to begin: at first, and after a final block.
        self._decompressor: _Decompress | None = None
        # The end of what the message being received has given so far: the window of a new stream.
        self._window = bytearray()

    def __repr__(self) -> str:
        values = "".join(
            f"; {name}" if value is None else f"; {name}={value}" for name, value in self.parameters
        )
        return f"<{self.name}{values}>"

    def wants(self, size: int) -> bool:
        """Say whether a message (or first fragment) of `size` bytes is worth compressing."""
        return self._compresses and size >= self.threshold

    def encode(self, payload: BytesLike, *, fin: bool) -> bytes:
        """Compress the payload of a frame (section 7.2.1).

        Args:
            payload: all of an unfragmented message, or the next fragment of one.
            fin: whether the message ends with it.
        """
        compressor = self._compressor
        if compressor is None:
            compressor = self._compressor = make_compressor(
                self.backend,
                level=self.level,
                bits=self.local_max_window_bits,
                mem_level=self.mem_level,
            )
        compressed = compressor.compress(payload)
        flushed = compressor.flush(Z_SYNC_FLUSH)
        if fin:
            if self.local_no_context_takeover:
                self._compressor = None
            # Section 7.2.1: "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
            flushed = flushed[:-4] or EMPTY_MESSAGE  # len(TAIL), as a constant
        return compressed + flushed if compressed else flushed

    def restart(self) -> None:
        """Begin the next message with an empty window, as without context takeover.

        RFC 7692 section 7.1.1 lets a sender refer to what came before; nothing makes it.
        """
        self._compressor = None

    def decode(self, payload: BytesLike, max_size: int | None, *, fin: bool) -> bytes:
        """Inflate a piece of a message (section 7.2.2).

        Args:
            payload: the next piece of the message: of any size, cut anywhere.
            max_size: how many bytes the result may have at the most; None is no limit.
            fin: whether the message ends with this piece.

        Raises:
            PayloadTooBig: the result has more than `max_size` bytes; one more was made at the most.
            ProtocolError: the payload is not valid DEFLATE.
        """
        # No stream begins with nothing, and where none has begun there is none to end: a sender
        # that forgot the empty block after a final one (section 7.2.3.4) is understood.
        begun = self._decompressor is not None or len(payload) > 0
        if fin and begun:
            payload = b"".join((payload, TAIL))
        # zlib takes 0 for no limit, and no number that is no size.
        room = 0
        if max_size is not None:
            room = max_size + 1 if max_size < sys.maxsize else sys.maxsize
        try:
            data = self._inflate(payload, room, fin) if begun else b""
        except error as exc:
            raise ProtocolError(f"compressed message is corrupt: {exc}") from exc
        if max_size is not None and len(data) > max_size:
            raise PayloadTooBig(f"message inflates to more than the {max_size} bytes it may have")
        if fin:
            if self.remote_no_context_takeover:
                self._decompressor = None
                self._window.clear()
            elif self._decompressor is not None:
                self._window.clear()
        return data

    def _inflate(self, payload: BytesLike, room: int, fin: bool) -> bytes:
        """Inflate `payload`, or as much of it as gives `room` bytes."""
        decompressor = self._decompressor
        if decompressor is None:
            decompressor = self._begin_stream()
        data = decompressor.decompress(payload, room)
        if decompressor.eof:
            self._remember(data)
            self._decompressor = None
            return self._inflate_on(data, decompressor.unused_data, room, fin=fin)
        if not fin:
            self._remember(data)
        return data

    def _inflate_on(self, data: bytes, rest: bytes, room: int, *, fin: bool) -> bytes:
        """Inflate what follows a block with BFINAL (section 7.2.3.4).

        Any number of such blocks may come. For zlib a stream ends with each, for the peer its
        window lives on. We hand over the part of it that this message wrote; older parts are
        inside the decompressor that has ended.

        Args:
            data: what the payload has given so far.
            rest: the part of the payload that is still to be inflated.
            room: how many bytes to stop at; 0 is no limit.
            fin: whether the message, and so the tail that was added to it, ends with `rest`.
        """
        output = bytearray(data)
        view = memoryview(rest)
        step = STEP_SIZE
        while view and (room == 0 or len(output) < room):
            decompressor = self._decompressor
            if decompressor is None:
                if fin and len(view) == len(TAIL):
                    break  # the tail alone, which has no stream to end
                decompressor = self._begin_stream()
            piece = view[:step]
            data = decompressor.decompress(piece, room and room - len(output))
            output += data
            self._remember(data)
            if decompressor.eof:
                self._decompressor = None
                view = view[len(piece) - len(decompressor.unused_data) :]
                step = STEP_SIZE
            else:
                view = view[len(piece) :]
                step *= 2
        return bytes(output)

    def _remember(self, data: bytes) -> None:
        """Keep the last window of this message, for the case that a final block ends the stream."""
        window = self._window
        window += data
        del window[: -(1 << self._inflate_bits)]

    def _begin_stream(self) -> "_Decompress":
        """Make the decompressor, with the window of a stream that has ended in this message."""
        decompressor = decompressobj(-self._inflate_bits, zdict=self._window)
        self._decompressor = decompressor
        return decompressor


def _parse_parameters(
    parameters: Sequence[Parameter], *, is_offer: bool
) -> tuple[set[str], dict[str, int]]:
    """Give the names that have no value, and the window bits of those that have one.

    `client_max_window_bits` without a value, as an offer may have it, lets the server choose from
    all: it counts as 15.

    Raises:
        NegotiationError: a parameter is unknown, is given twice, or has a wrong value
            (sections 7.1.1 and 7.1.2).
    """
    flags: set[str] = set()
    bits: dict[str, int] = {}
    for name, value in parameters:
        if name in flags or name in bits:
            raise NegotiationError(f"permessage-deflate has {name} twice")
        if name in (SERVER_NO_CONTEXT_TAKEOVER, CLIENT_NO_CONTEXT_TAKEOVER):
            if value is not None:
                raise NegotiationError(f"{name} takes no value, not {value!r}")
            flags.add(name)
        elif name not in (SERVER_MAX_WINDOW_BITS, CLIENT_MAX_WINDOW_BITS):
            raise NegotiationError(f"permessage-deflate has no parameter {name!r}")
        elif value is None and is_offer and name == CLIENT_MAX_WINDOW_BITS:
            bits[name] = MAX_WINDOW_BITS
        elif value is None or value not in WINDOW_BITS:
            raise NegotiationError(f"{name} of {value!r} is not an integer between 8 and 15")
        else:
            bits[name] = WINDOW_BITS[value]
    return flags, bits


def _bits(limit: int | None) -> int:
    """Give the window bits that a configured limit allows."""
    return MAX_WINDOW_BITS if limit is None or limit is True else limit


def _check_range(name: str, value: int, low: int, high: int) -> None:
    """Check a value of the configuration.

    Raises:
        ValueError: it is outside `low` to `high`.
        TypeError: it is no integer.
    """
    check_int(name, value)
    if not low <= value <= high:
        raise ValueError(f"{name} of {value} is not between {low} and {high}")
