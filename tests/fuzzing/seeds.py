"""The inputs from which a fuzzer sets out: one for each thing that a parser knows, made by hand.

Owns their literal bytes. What a fuzzer has found since stands in `corpus/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anyws.sansio._handshake import MAX_HEAD_SIZE
from tests.fuzzing.choices import WHOLE
from tests.fuzzing.decoding import BUDGETS, LIMITS
from tests.fuzzing.handshakes import ACCEPT
from tests.wire import BINARY, CLOSE, CONT, MASK, PING, PONG, REQUEST, TEXT, close_payload, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CORPUS = Path(__file__).parent / "corpus"
"""A folder for each target: what a fuzzer has found to reach something new, and all findings."""


def flags(*answers: bool) -> bytes:
    return bytes([sum(1 << index for index, answer in enumerate(answers) if answer)])


def course(
    *switches: bool,
    limits: tuple[int | None, int | None] = (None, None),
    budgets: tuple[int | None, int | None] = (None, None),
    pattern: int = WHOLE,
    fragments_at: int = 255,
) -> bytes:
    """Give what Course.choose() takes: masked, deflate, no context takeover, lent, eager."""
    limit_bytes = [LIMITS.index(limit) for limit in limits]
    budget_bytes = [BUDGETS.index(budget) for budget in budgets]
    return flags(*switches) + bytes([*limit_bytes, *budget_bytes, pattern, fragments_at])


# Frames.

SNOWMAN = "\N{SNOWMAN}".encode()

# RFC 7692 sections 7.2.3.1 to 7.2.3.6, and blocks that follow a final one.
DEFLATED = {
    "hello": bytes.fromhex("f2 48 cd c9 c9 07 00"),
    "stored": bytes.fromhex("00 05 00 fa ff 48 65 6c 6c 6f 00"),
    "final": bytes.fromhex("f3 48 cd c9 c9 07 00 00"),
    "two-blocks": bytes.fromhex("f2 48 05 00 00 00 ff ff ca c9 c9 07 00"),
    "final-alone": bytes.fromhex("f3 48 cd c9 c9 07 00"),
    "final-blocks": bytes.fromhex("4b 04 00 4b 04 00 03 00 4a 04 00 00"),
    "dynamic": bytes.fromhex("05 c0 81 08 00 00 00 00 20 7f eb 0b 00 00"),
    "empty": b"\x00",
    "corrupt": b"\xff\xff",
}

STREAMS = {
    "text": frame(TEXT, b"Hello") + frame(TEXT, SNOWMAN * 2) + frame(TEXT),
    "binary": frame(BINARY, b"\x00\xff") + frame(BINARY, bytes(126)),
    "fragments": frame(TEXT, b"a\xe2", fin=False)
    + frame(PING, b"p")
    + frame(CONT, b"\x98", fin=False)
    + frame(CONT, b"\x83b"),
    "control": frame(PING, b"ping") + frame(PONG, b"pong") + frame(CLOSE, close_payload(1000, "é")),
    **{
        f"close-{code}": frame(CLOSE, close_payload(code))
        for code in (999, 1000, 1003, 1004, 1006, 1007, 1014, 1015, 1016, 2999, 3000, 4999, 5000)
    },
    "close-empty": frame(CLOSE),
    "close-1": frame(CLOSE, b"\x03"),
    "close-code": frame(CLOSE, close_payload(1005)),
    "close-text": frame(CLOSE, b"\x03\xe8\xff"),
    "ping-fragment": frame(PING, fin=False),
    "ping-long": b"\x89\x7e\x00\x7e" + bytes(126),
    "rsv1": frame(TEXT, b"a", rsv=4),
    "rsv2": frame(TEXT, b"a", rsv=2),
    "opcode-3": frame(3),
    "opcode-11": frame(11),
    "cont-alone": frame(CONT),
    "text-within": frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
    "length-2-short": b"\x82\x7e\x00\x7d",
    "length-8-short": b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff",
    "length-8-sign": b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00",
    "length-8-huge": b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xffabc",
    "utf8-bad": frame(TEXT, b"\xed\xa0\x80"),
    "utf8-cut": frame(TEXT, b"\xf0\x9f\x98"),
    "utf8-bad-long": frame(TEXT, bytes(130) + b"\xff"),
    "utf8-bad-at-the-end": frame(TEXT, b"a", fin=False) + frame(CONT, b"\xe2"),
    "two-sizes": frame(BINARY, b"abcde") + frame(BINARY, b"abcdef"),
}


def decoder_seeds() -> dict[str, bytes]:
    seeds = {name: course() + wire for name, wire in STREAMS.items()}
    seeds |= {f"{name}-bytes": course(pattern=0) + wire for name, wire in STREAMS.items()}
    masked = frame(TEXT, SNOWMAN * 50, mask=MASK) + frame(BINARY, b"Hello", mask=MASK)
    masked += frame(TEXT, b"a\xe2\x98", fin=False, mask=MASK) + frame(PONG, b"p", mask=MASK)
    masked += frame(CONT, b"\x83" * 2, mask=MASK)
    seeds["masked"] = course(True) + masked
    seeds["masked-lent"] = course(True, False, False, True, pattern=0x16) + masked
    seeds["masked-fragments"] = course(True, pattern=5, fragments_at=1) + masked
    seeds["unmasked"] = course(True) + frame(TEXT, b"a")
    seeds["masked-by-a-server"] = course() + frame(TEXT, b"a", mask=MASK)
    many = frame(TEXT, b"ab") * 3 + frame(PING) + frame(BINARY, b"abc", fin=False) + frame(CONT)
    for name, budgets in {"bytes": (2, None), "messages": (None, 2), "nothing": (0, 0)}.items():
        seeds[f"budget-{name}"] = course(budgets=budgets) + many
        seeds[f"budget-{name}-eager"] = (
            course(False, False, False, False, True, budgets=budgets, pattern=0x17) + many
        )
    seeds["fragments-on"] = course(fragments_at=0, pattern=2) + STREAMS["fragments"]
    seeds["fragments-of-binary"] = course(fragments_at=0, pattern=2) + STREAMS["two-sizes"]
    seeds["fragments-late"] = course(fragments_at=3, pattern=2) + STREAMS["fragments"]
    for limit in (0, 5, 1000):
        seeds[f"limit-{limit}"] = course(limits=(limit, None)) + STREAMS["two-sizes"]
        seeds[f"fragment-limit-{limit}"] = course(limits=(None, limit)) + STREAMS["fragments"]
    parts = frame(BINARY, bytes(200), fin=False) + frame(CONT, bytes(200))
    seeds["limit-of-each"] = course(limits=(1000, 1000), pattern=0x37) + parts * 4
    for name, payload in DEFLATED.items():
        wire = frame(TEXT, payload, rsv=4)
        seeds[f"deflate-{name}"] = course(False, True) + wire + wire
        seeds[f"deflate-{name}-bytes"] = course(False, True, pattern=0) + wire + wire
        cut = frame(TEXT, payload[:1], fin=False, rsv=4) + frame(CONT, payload[1:])
        seeds[f"deflate-{name}-cut"] = course(False, True, True, fragments_at=0) + cut + cut
        for kind, limits in {"message": (5, 125), "fragment": (125, 1)}.items():
            seeds[f"deflate-{name}-{kind}-limit"] = course(False, True, limits=limits) + wire
    return seeds


def op(opcode: int, payload: bytes = b"", *, fin: bool = True, compressed: bool = False) -> bytes:
    """Give what fuzz_frames() makes a frame of."""
    kinds = {TEXT: 0, BINARY: 1, CONT: 2, PING: 4, PONG: 5, CLOSE: 6}
    what = kinds[opcode] | (8 if fin else 0) | (16 if compressed else 0)
    return bytes([what, len(payload)]) + payload


def large(opcode: int, size: int, *, fin: bool = True, compressed: bool = False) -> bytes:
    """Likewise, for one of the large sizes."""
    number = next(
        n for n in range(200, 256) if (125, 126, 127, 1000, 65535, 65536, 70000)[n % 7] == size
    )
    head = op(opcode, fin=fin, compressed=compressed)[:1]
    return head + bytes([number, 2]) + b"abc"


def frame_seeds() -> dict[str, bytes]:
    seeds = {}
    for size in (125, 126, 127, 1000, 65535, 65536, 70000):
        seeds[f"size-{size}"] = course() + large(TEXT, size)
        seeds[f"size-{size}-masked"] = course(True) + MASK + large(BINARY, size)
        seeds[f"size-{size}-deflate"] = course(False, True) + large(TEXT, size, compressed=True)
    pieces = [op(TEXT, b"a", fin=False), op(PING, b"p"), large(CONT, 1000, fin=False)]
    pieces += [op(CONT, SNOWMAN), op(BINARY, b"b", compressed=True), op(CLOSE, b"\x03\xe8")]
    program = b"".join(pieces)
    seeds["fragments"] = course() + program
    seeds["fragments-asked-for"] = course(pattern=0x23, fragments_at=2) + program
    seeds["fragments-budget"] = course(pattern=0x23, budgets=(None, 1)) + program
    compressed = op(TEXT, b"abcabcabc", fin=False, compressed=True) + op(CONT, b"abc")
    seeds["deflate"] = course(False, True, pattern=3) + compressed * 3
    seeds["deflate-fragment-limit"] = course(False, True, limits=(1000, 5)) + compressed
    seeds["deflate-message-limit"] = course(False, True, limits=(5, 1000)) + compressed
    return seeds


def encoder_seeds() -> dict[str, bytes]:
    key = MASK
    return {
        "text": b"\x00" + flags(True, False, False, True) + b"na\xefve",
        "ascii-masked": b"\x00" + flags(True, False, True, True) + key + b"Hello",
        "binary": b"\x01" + flags(True, True) + bytes(range(200)),
        "masked": b"\x01" + flags(False, False, True) + key + bytes(range(126)),
        "view-masked": b"\x01" + flags(True, False, True, False, True) + key + b"Hello, world",
        "repeated": b"\x01" + flags(True, False, True, False, False, True) + key + b"ab",
        "repeated-less": b"\x01" + flags(True, False, False, False, False, True) + b"a",
        "ping": b"\x02" + flags(True),
    }


# An open connection.


def protocol_seeds() -> dict[str, bytes]:
    def conversation(steps: Iterable[int], wire: bytes, *answers: bool) -> bytes:
        taken = bytes(steps)
        return flags(*answers) + b"\x00\x00" + bytes([len(taken)]) + taken + wire

    masked = b"".join(frame(PING, bytes([65, n]), mask=MASK) for n in range(3))
    masked += frame(TEXT, b"a", fin=False, mask=MASK) + frame(CONT, b"b", mask=MASK)
    closing = frame(CLOSE, close_payload(1001, "bye"), mask=MASK)
    receive = 2 * 20 + 1
    seeds = {
        f"step-{number}": conversation([receive, 2 * number, receive], masked + closing, True)
        for number in range(12)
    }
    seeds |= {
        f"step-{number}-twice": conversation([2 * number, 2 * number + 24, receive], masked, True)
        for number in range(12)
    }
    seeds["failure"] = conversation([], frame(3), False)
    seeds["failure-held"] = conversation([255, 20, 255], frame(3) + frame(TEXT), False, False, True)
    seeds["deflate"] = conversation(
        [0, 2, 4, 28], frame(TEXT, DEFLATED["hello"], rsv=4), False, True
    )
    return seeds


# Compression.


def deflate_seeds() -> dict[str, bytes]:
    seeds = {}
    for name, payload in DEFLATED.items():
        message = bytes([len(payload)]) + payload
        for bits in (8, 12, 15):
            seeds[f"{name}-{bits}"] = flags() + bytes([bits - 8, 0, 0, 0]) + message * 2
        seeds[f"{name}-limit"] = flags() + bytes([7, LIMITS.index(5), 0x11, 0]) + message
        seeds[f"{name}-alone"] = flags(True) + bytes([7, 0, 0x11, 0]) + message * 2
    text = b"\x20" + b"Hello, Hello, Hello, Hello, Hell"
    for isal in (False, True):
        for alone in (False, True):
            head = flags(alone, True, isal, True)
            name = f"{'isal' if isal else 'zlib'}-{'alone' if alone else 'context'}"
            seeds[name] = head + bytes([1, 0, 3, 0]) + text * 3
            seeds[f"{name}-changed"] = head + bytes([1, 0, 3, 2, 3, 0x10]) + text * 3
    # The second half of a message refers to all of the first.
    text = b"\x20" + b"0123456789abcdef" * 2
    for pattern in (0, 1, 0x35, WHOLE):
        head = flags(False, True, False, False, True)
        seeds[f"finally-{pattern}"] = head + bytes([1, 0, pattern, 0]) + text * 3
    return seeds


EXTENSIONS = {
    "plain": "permessage-deflate",
    "all": "permessage-deflate; server_no_context_takeover; client_no_context_takeover;"
    " server_max_window_bits=10; client_max_window_bits=12",
    "no-value": "permessage-deflate; client_max_window_bits",
    "server-no-value": "permessage-deflate; server_max_window_bits",
    "leading-zero": "permessage-deflate; server_max_window_bits=08",
    "too-large": "permessage-deflate; client_max_window_bits=16",
    "twice": "permessage-deflate; client_max_window_bits; client_max_window_bits=9",
    "server-15": "permessage-deflate; server_max_window_bits=15",
    "unknown": "permessage-deflate; unknown",
    "flag-with-value": "permessage-deflate; server_no_context_takeover=1",
    "quoted": 'a; b="c\\d", permessage-deflate; server_max_window_bits="8"',
    "malformed": "permessage-deflate;",
}


def negotiation_seeds() -> dict[str, bytes]:
    return {
        f"{name}-{number}": bytes([number, number]) + value.encode()
        for name, value in EXTENSIONS.items()
        for number in range(3)
    }


# The opening handshake.

FIELDS = {
    "tokens": "a, b ,,c",
    "upgrade": "websocket/13, h2c",
    "connection": "keep-alive, Upgrade",
    "not-a-token": "a b",
    "empty": " , ",
    "extensions": 'permessage-deflate; client_max_window_bits; x="a\\"b", y; z=1',
    "quoted": 'a; b="c\\d"',
    "unfinished": 'a; b="c',
    "key": "dGhlIHNhbXBsZSBub25jZQ==",
    "bad-key": "dGhlIHNhbXBsZSBub25jZQ=",
    "origin": "example.com http://example.com",
    "origin-port": "example.com:8080 https://example.com",
    "origin-case": "EXAMPLE.com https://example.COM:1",
    "origin-ipv6": "[::1]:80 http://[::1]",
    "origin-null": "example.com null",
    "origin-empty": " http://",
    "origin-path": "example.com http://example.com/path",
}

URIS = {
    "host": "ws://example.com",
    "all": "wss://user:p%40ss@example.com:8443/path/%20?query=1",
    "ipv6": "ws://[::1]:8080/",
    "zone": "ws://[fe80::1%25eth0]/",
    "idna": "ws://m\xfcnchen.example/\xe4?\xf6",
    "unix": "ws+unix:///run/a%3Ab.sock:/path?query",
    "unix-bytes": "ws+unix:///run/%ff.sock",
    "no-scheme": "example.com",
    "http": "http://example.com",
    "no-host": "ws://:80",
    "port-0": "ws://a:0",
    "port-large": "ws://a:65536",
    "fragment": "ws://a/#b",
    "space": "ws://a/b c",
    "escape": "ws://a/%zz",
    "two-ats": "ws://a@b@c",
    "bad-password": "ws://a:%00@b",
    "solidus": "ws://a\N{FULLWIDTH SOLIDUS}b",
    "bracket": "ws://[::1",
    "no-ipv6": "ws://[1.2.3.4]",
    "idna-long": "ws://" + "\xe9" * 70,
    "idna-empty": "ws://\xe9..com",
    "surrogate": "ws://a/\udcff",
}


def request(*lines: str, start: str = "GET /chat HTTP/1.1", without: str = "-") -> bytes:
    """Give a request with more lines, and without those that begin so."""
    kept = [line for line in REQUEST.decode().split("\r\n")[1:-1] if not line.startswith(without)]
    return "\r\n".join([start, *kept, *lines, "", ""]).encode("latin-1")


def largest_request() -> bytes:
    """Give one whose head has as many bytes as a head may have."""
    lines = ["X: " + "a" * 8000] * 4
    missing = MAX_HEAD_SIZE - len(request(*lines, "Y: "))
    return request(*lines, "Y: " + "a" * missing)


OFFER = "Sec-WebSocket-Extensions: x, permessage-deflate; client_max_window_bits"
SUBPROTOCOLS = "Sec-WebSocket-Protocol: superchat, chat"
REQUESTS = {
    "plain": request(),
    "subprotocols": request(SUBPROTOCOLS, "Sec-WebSocket-Protocol: other"),
    "extensions": request(OFFER),
    "bad-offer": request("Sec-WebSocket-Extensions: permessage-deflate; x"),
    "malformed-offer": request("Sec-WebSocket-Extensions: ;"),
    "malformed-subprotocols": request("Sec-WebSocket-Protocol: a b"),
    "origin": request("Origin: http://localhost"),
    "other-origin": request("Origin: http://a.example.com"),
    "two-origins": request("Origin: http://localhost", "Origin: null"),
    "post": request(start="POST / HTTP/1.1"),
    "head": request(start="HEAD / HTTP/1.1"),
    "http-1.0": request(start="GET / HTTP/1.0"),
    "http-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http-0.9": b"GET /\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00",
    "lf": request().replace(b"\r\n", b"\n"),
    "bare-cr": request("X: a\rb"),
    "nul": request("X: a\0b"),
    "folded": request("X: a", " b"),
    "colon-space": request("X : a"),
    "body": request("Content-Length: 1") + b"x",
    "body-0": request("Content-Length: 0"),
    "two-lengths": request("Content-Length: 0", "Content-Length: 1"),
    "chunked": request("Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "no-host": request(without="Host"),
    "two-hosts": request("Host: a"),
    "bad-host": request("Host: a/b", without="Host"),
    "no-upgrade": request(without="Upgrade"),
    "other-upgrade": request("Upgrade: h2c", without="Upgrade"),
    "upgrade-list": request("Upgrade: h2c, WebSocket/13", without="Upgrade"),
    "no-connection": request(without="Connection"),
    "connection-list": request("Connection: keep-alive, upgrade", without="Connection"),
    "no-version": request(without="Sec-WebSocket-Version"),
    "version-8": request("Sec-WebSocket-Version: 8", without="Sec-WebSocket-Version"),
    "two-versions": request("Sec-WebSocket-Version: 13"),
    "no-key": request(without="Sec-WebSocket-Key"),
    "bad-key": request("Sec-WebSocket-Key: abc", without="Sec-WebSocket-Key"),
    "latin-1": request("Sec-WebSocket-Key: \xe9", "X: \xe9", without="Sec-WebSocket-Key"),
    "pipelined": request() + frame(TEXT, b"a", mask=MASK),
    "incomplete": request()[:-2],
    "long-line": b"GET /" + b"a" * 8200,
    "many-lines": request(*["a:"] * 130),
    "largest": largest_request() + b"rest",
    "nothing": b"",
}


def server_seeds() -> dict[str, bytes]:
    seeds = {}
    for name, wire in REQUESTS.items():
        seeds[name] = bytes([0, 0, 0, 0, 0x4F]) + wire
        seeds[f"{name}-all"] = bytes([1, 1, 0, 1, 0x13]) + wire
    for name in ("plain", "origin", "other-origin", "two-origins"):
        seeds[f"{name}-listed"] = bytes([2, 0, 0, 0, 0x4F]) + REQUESTS[name]
    for name in ("plain", "subprotocols"):
        seeds[f"{name}-chosen"] = bytes([1, 1, 2, 2, 0x4F]) + REQUESTS[name]
    return seeds


def response(
    *lines: str, start: str = "HTTP/1.1 101 Switching Protocols", without: str = "-"
) -> bytes:
    """Give a response with more lines, and without those that begin so."""
    usual = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {ACCEPT}"]
    kept = [line for line in usual if not line.startswith(without)]
    return "\r\n".join([start, *kept, *lines, "", ""]).encode("latin-1")


ANSWER = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9"
REFUSED = "HTTP/1.1 403 Forbidden"
RESPONSES = {
    "plain": response(),
    "frame": response() + frame(TEXT, b"a"),
    "subprotocol": response("Sec-WebSocket-Protocol: chat"),
    "other-subprotocol": response("Sec-WebSocket-Protocol: other"),
    "two-subprotocols": response(*["Sec-WebSocket-Protocol: chat"] * 2),
    "extension": response(ANSWER),
    "two-extensions": response(ANSWER, ANSWER),
    "other-extension": response("Sec-WebSocket-Extensions: x"),
    "bad-extension": response("Sec-WebSocket-Extensions: permessage-deflate; x"),
    "no-takeover": response(ANSWER + "; server_no_context_takeover"),
    "client-bits": response(ANSWER + "; client_max_window_bits=9"),
    "malformed-extension": response("Sec-WebSocket-Extensions: ;"),
    "no-upgrade": response(without="Upgrade"),
    "other-upgrade": response("Upgrade: h2c", without="Upgrade"),
    "no-connection": response(without="Connection"),
    "malformed-connection": response("Connection: a b", without="Connection"),
    "no-accept": response(without="Sec"),
    "other-accept": response("Sec-WebSocket-Accept: abc", without="Sec"),
    "two-accepts": response("Sec-WebSocket-Accept: abc"),
    "http-1.0": response(start="HTTP/1.0 101 Switching Protocols"),
    "http-2": response(start="HTTP/2 101"),
    "no-reason": response(start="HTTP/1.1 101"),
    "latin-1": response("X: \xe9", start="HTTP/1.1 101 \xe9"),
    "status-099": response(start="HTTP/1.1 099 x"),
    "status-1000": response(start="HTTP/1.1 1000 x"),
    "length": response("Content-Length: 3", start=REFUSED) + b"no.",
    "length-0": response("Content-Length: 0", start=REFUSED),
    "length-cut": response("Content-Length: 9", start=REFUSED) + b"no.",
    "length-wrong": response("Content-Length: -1", start=REFUSED),
    "two-lengths": response("Content-Length: 3", "Content-Length: 4", start=REFUSED),
    "chunked": response("Transfer-Encoding: chunked", start=REFUSED)
    + b"3;x\r\nno.\r\n0\r\nX: y\r\n\r\n",
    "chunked-wrong": response("Transfer-Encoding: chunked", start=REFUSED) + b"x\r\n",
    "gzip": response("Transfer-Encoding: gzip", start=REFUSED),
    "until-the-end": response(start=REFUSED) + b"no.",
    "http-1.0-refused": response(start="HTTP/1.0 403 Forbidden") + b"no.",
    "no-content": response(start="HTTP/1.1 204 No Content") + b"x",
    "not-modified": response(start="HTTP/1.1 304 Not Modified"),
    "redirect": response("Location: /", "Content-Length: 0", start="HTTP/1.1 302 Found"),
    "early-hints": response(start="HTTP/1.1 103 Early Hints") + response(),
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + response(start=REFUSED),
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "html": b"<html></html>",
    "lf": response().replace(b"\r\n", b"\n"),
    "folded": response("X: a", " b"),
    "incomplete": response()[:-3],
    "long-line": response("X: " + "a" * 8200),
    "many-lines": response(*["a:"] * 130),
    "many-heads": b"HTTP/1.1 100 Continue\r\n\r\n" * 1400 + response(),
    "nothing": b"",
}


def client_seeds() -> dict[str, bytes]:
    seeds = {}
    for name, wire in RESPONSES.items():
        seeds[name] = bytes([0, 0, 0x4F]) + wire
        seeds[f"{name}-all"] = bytes([1, 1, 0x13]) + wire
        if "xtension" in name or "bits" in name or "takeover" in name:
            seeds[f"{name}-two"] = bytes([1, 2, WHOLE]) + wire
    return seeds


# Proxies.

PROXY_URIS = {
    "http": "http://proxy",
    "all": "https://user:p%40ss@proxy.example:3128/",
    "socks5": "socks5://user:pass@[::1]",
    "socks5h": "socks5h://10.0.0.1:9050",
    "socks4": "socks4://user@proxy",
    "socks4a": "socks4a://proxy:1080/",
    "path": "http://proxy/path?query#fragment",
    "no-proxy": "localhost, .example.com:80 *.example *,10.0.0.0/8 [::1]:80,[2001:db8::]/32",
}

ANSWERS = {
    "established": b"HTTP/1.1 200 Connection established\r\n\r\n",
    "early": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab",
    "chunked": b"HTTP/1.1 299 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "407": b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 2\r\n\r\nno",
    "socks": b"\x05\xff",
}


SEEDS: dict[str, Callable[[], dict[str, bytes]]] = {
    "client_handshake": client_seeds,
    "decoder": decoder_seeds,
    "deflate": deflate_seeds,
    "encoder": encoder_seeds,
    "frames": frame_seeds,
    "headers": lambda: {name: value.encode("latin-1") for name, value in FIELDS.items()},
    "negotiation": negotiation_seeds,
    "protocol": protocol_seeds,
    "proxy_uri": lambda: {name: uri.encode() for name, uri in PROXY_URIS.items()},
    "server_handshake": server_seeds,
    "tunnel": lambda: {
        name: bytes([0x13]) + wire for name, wire in {**RESPONSES, **ANSWERS}.items()
    },
    "uri": lambda: {name: uri.encode("utf-8", "surrogateescape") for name, uri in URIS.items()},
}
"""Those made by hand, by target."""


def read_inputs(target: str) -> dict[str, bytes]:
    """Give all inputs of a target by their names: those made by hand, and those in its folder."""
    found = {path.name: path.read_bytes() for path in sorted((CORPUS / target).glob("*.bin"))}
    return {**SEEDS[target](), **found}
