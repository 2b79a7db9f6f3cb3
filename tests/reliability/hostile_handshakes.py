"""The hostile table: requests and responses that open no connection, and some odd ones that do.

Owns their bytes, and how RFC 6455 section 4, RFC 9110 and RFC 9112 have each taken.
"""

from __future__ import annotations

from tests.reliability.hostile_cases import CLIENT, Case, Head
from tests.reliability.hostile_peer import REQUEST, RESPONSE
from tests.wire import MASK, frame

END = b"\r\n"
KIB, MIB = 2**10, 2**20

LINE = b"GET /echo HTTP/1.1\r\n"
GOOD = REQUEST.replace(b"PATH", b"/echo")
HOST = b"Host: 127.0.0.1\r\n"
UPGRADE = b"Upgrade: websocket\r\n"
CONNECTION = b"Connection: Upgrade\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
VERSION = b"Sec-WebSocket-Version: 13\r\n"

# RFC 6455 section 4.2.1: "If the server [...] finds that the client did not send a handshake that
# matches the description below [...] the server MUST stop processing the client's handshake and
# return an HTTP response with an appropriate error code". Which one it leaves open mostly; a server
# may also take what is no HTTP at all as nothing to be answered.
BAD_REQUEST = ("status 400", "status 4??", "status 5??")
UPGRADE_REQUIRED = ("status 426", "status 4??")
NO_HTTP = ("status 400", "status 4??", "status 5??", "ended", "reset")
# RFC 9112 section 2.2: "the server SHOULD respond with a 400 (Bad Request) response and close the
# connection".
BAD_HTTP = NO_HTTP
TOO_LONG = ("status 431", "status 4??", "ended", "reset")
OPEN = ("open",)


def without(field: bytes) -> bytes:
    return GOOD.replace(field, b"")


def instead(field: bytes, other: bytes) -> bytes:
    assert field in GOOD
    return GOOD.replace(field, other)


def refused(
    name: str, request: bytes, expected: tuple[str, ...] = BAD_REQUEST, *, ends: bool = False
) -> Head:
    return Head(f"request: {name}", request, expected, ends=ends)


def accepted(name: str, request: bytes) -> Head:
    return Head(f"request: {name}", request, OPEN)


FIELDS = [
    refused("no Host", without(HOST) + END),
    refused("two Hosts", GOOD + HOST + END),
    refused("two Hosts that differ", GOOD + b"Host: evil.example\r\n" + END),
    refused("Host with a path", instead(HOST, b"Host: a/b\r\n") + END),
    refused("Host with a user", instead(HOST, b"Host: a@b\r\n") + END, (*BAD_REQUEST, "open")),
    refused("no Upgrade", without(UPGRADE) + END, UPGRADE_REQUIRED),
    refused("Upgrade to h2c", instead(UPGRADE, b"Upgrade: h2c\r\n") + END, UPGRADE_REQUIRED),
    refused(
        "Upgrade to websocket2",
        instead(UPGRADE, b"Upgrade: websocket2\r\n") + END,
        UPGRADE_REQUIRED,
    ),
    refused("Upgrade that is empty", instead(UPGRADE, b"Upgrade: \r\n") + END, UPGRADE_REQUIRED),
    refused("no Connection", without(CONNECTION) + END),
    refused("Connection without Upgrade", instead(CONNECTION, b"Connection: close\r\n") + END),
    refused("Connection that is no list", instead(CONNECTION, b"Connection: Upgrade; a\r\n") + END),
    refused("no Key", without(KEY) + END),
    refused("Key that is empty", instead(KEY, b"Sec-WebSocket-Key:\r\n") + END),
    refused("Key of 15 bytes", instead(b"ZQ==", b"ZA") + END),
    refused("Key of 17 bytes", instead(b"ZQ==", b"ZWE=") + END, (*BAD_REQUEST, "open")),
    refused("Key without padding", instead(b"ZQ==", b"ZQ") + END),
    refused("Key that is no base64", instead(b"dGhl", b"@@@@") + END, (*BAD_REQUEST, "open")),
    refused("two Keys", GOOD + KEY + END),
    refused(
        "two Keys that differ", GOOD + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" + END
    ),
    refused("no Version", without(VERSION) + END),
    refused("Version 8", instead(b"Version: 13", b"Version: 8") + END, UPGRADE_REQUIRED),
    refused("Version 14", instead(b"Version: 13", b"Version: 14") + END, UPGRADE_REQUIRED),
    refused("Version 13 and 8", instead(b"Version: 13", b"Version: 13, 8") + END, UPGRADE_REQUIRED),
    refused("Version 013", instead(b"Version: 13", b"Version: 013") + END, UPGRADE_REQUIRED),
    refused("two Versions", GOOD + VERSION + END),
    refused("two Versions that differ", GOOD + b"Sec-WebSocket-Version: 8\r\n" + END),
    refused(
        "two Origins", GOOD + b"Origin: http://127.0.0.1\r\n" * 2 + END, (*BAD_REQUEST, "open")
    ),
    # Which origins are allowed is a choice of the server; that of anyws is its own host.
    refused(
        "another Origin", GOOD + b"Origin: http://evil.example\r\n" + END, ("status 403", "open")
    ),
    refused("Origin null", GOOD + b"Origin: null\r\n" + END, ("status 403", "open")),
    refused(
        "Origin with our host as user",
        GOOD + b"Origin: http://127.0.0.1@evil.example\r\n" + END,
        ("status 403", "open"),
    ),
    refused(
        "Origin with our host as prefix",
        GOOD + b"Origin: http://127.0.0.1.evil.example\r\n" + END,
        ("status 403", "open"),
    ),
    refused(
        "Protocol that is no token",
        GOOD + b"Sec-WebSocket-Protocol: a b\r\n" + END,
        (*BAD_REQUEST, "open"),
    ),
    refused(
        "Protocol that is empty",
        GOOD + b"Sec-WebSocket-Protocol:\r\n" + END,
        (*BAD_REQUEST, "open"),
    ),
    refused(
        "Extensions that are none",
        GOOD + b"Sec-WebSocket-Extensions: ;\r\n" + END,
        (*BAD_REQUEST, "open"),
    ),
    refused(
        "Extensions with an open quote",
        GOOD + b'Sec-WebSocket-Extensions: a; b="c\r\n' + END,
        (*BAD_REQUEST, "open"),
    ),
    accepted("Upgrade to h2c or websocket", instead(UPGRADE, b"Upgrade: h2c\r\n" + UPGRADE) + END),
    accepted(
        "two Connections", instead(CONNECTION, b"Connection: keep-alive\r\n" + CONNECTION) + END
    ),
    accepted(
        "deflate with a parameter that is unknown",
        GOOD + b"Sec-WebSocket-Extensions: permessage-deflate; a=b\r\n" + END,
    ),
    accepted(
        "deflate with a window of 7 bits",
        GOOD + b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7\r\n" + END,
    ),
    accepted(
        "deflate with a parameter twice",
        GOOD
        + b"Sec-WebSocket-Extensions: permessage-deflate"
        + b"; server_no_context_takeover" * 2
        + END
        + END,
    ),
    accepted(
        "five hundred extensions",
        GOOD
        + b"Sec-WebSocket-Extensions: "
        + b", ".join([b"permessage-deflate; a"] * 300)
        + END
        + END,
    ),
    accepted("two fields of extensions", GOOD + b"Sec-WebSocket-Extensions: a\r\n" * 2 + END),
    accepted("two fields of protocols", GOOD + b"Sec-WebSocket-Protocol: a\r\n" * 2 + END),
    accepted("absolute form", GOOD.replace(b"/echo", b"http://127.0.0.1/echo") + END),
    accepted("names in other cases", GOOD.replace(b"Sec-WebSocket", b"sEC-wEBSOCKET") + END),
]

# Heads that two parsers could take in two ways, bodies, and what is no HTTP at all.
HTTP = [
    refused("POST", instead(b"GET", b"POST") + END, ("status 405", "status 4??")),
    refused("HEAD", instead(b"GET", b"HEAD") + END, ("status 405", "status 4??")),
    refused(
        "CONNECT", b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n" + HOST + END, ("status 405", "status 4??")
    ),
    refused("get", instead(b"GET", b"get") + END, ("status 405", "status 4??")),
    refused(
        "HTTP/1.0", instead(b"HTTP/1.1", b"HTTP/1.0") + END, ("status 505", "status 4??", "ended")
    ),
    refused(
        "HTTP/2.0",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ("status 505", "status 4??", "ended", "reset"),
    ),
    refused("HTTP/0.9", b"GET /echo\r\n\r\n", NO_HTTP),
    refused("HTTP in lower case", instead(b"HTTP/1.1", b"http/1.1") + END, NO_HTTP),
    refused("body announced", GOOD + b"Content-Length: 5\r\n" + END, (*BAD_HTTP, "open")),
    refused(
        "body that is a frame",
        GOOD + b"Content-Length: 7\r\n" + END + frame(9, b"a", mask=MASK),
        BAD_REQUEST,
    ),
    refused(
        "two lengths that differ",
        GOOD + b"Content-Length: 0\r\nContent-Length: 9\r\n" + END,
        BAD_HTTP,
    ),
    refused("negative length", GOOD + b"Content-Length: -1\r\n" + END, BAD_HTTP),
    refused("length that is no number", GOOD + b"Content-Length: 0x0\r\n" + END, BAD_HTTP),
    refused("chunked body", GOOD + b"Transfer-Encoding: chunked\r\n" + END, (*BAD_HTTP, "open")),
    refused(
        "chunked body with a length",
        GOOD + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n" + END,
    ),
    refused("space before a colon", GOOD + b"X-A : b\r\n" + END, BAD_HTTP),
    refused("field without a name", GOOD + b": b\r\n" + END, BAD_HTTP),
    refused("field without a colon", GOOD + b"X-A\r\n" + END, BAD_HTTP),
    refused("first field folded", LINE + b" X: a\r\n" + GOOD.removeprefix(LINE) + END, BAD_HTTP),
    refused("bare CR in a value", GOOD + b"X-A: b\rX-B: c\r\n" + END, BAD_HTTP),
    refused("NUL in a value", GOOD + b"X-A: b\0c\r\n" + END, BAD_HTTP),
    refused("NUL in a name", GOOD + b"X\0A: b\r\n" + END, BAD_HTTP),
    refused("escape in a value", GOOD + b"X-A: \x1b[2J\r\n" + END, (*BAD_HTTP, "open")),
    refused("name that is no ASCII", GOOD + b"X-\xe9: b\r\n" + END, BAD_HTTP),
    refused("target that is no ASCII", instead(b"/echo", b"/\xe9") + END, (*BAD_HTTP, "open")),
    refused("target with a space", instead(b"/echo", b"/a b") + END, BAD_HTTP),
    refused("request behind a refused one", without(KEY) + END + GOOD + END),
    refused("empty lines first", END * 9 + GOOD + END, (*BAD_HTTP, "open")),
    refused("line of nothing", END * 2, (*NO_HTTP, "hang")),
    refused("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", NO_HTTP, ends=True),
    refused("SSH", b"SSH-2.0-OpenSSH_9.6\r\n" + END, NO_HTTP),
    refused("frames", frame(1, b"hello", mask=MASK) + END + END, NO_HTTP, ends=True),
    refused("half a request", GOOD, ("status 400", "status 4??", "ended"), ends=True),
    refused("half a line", b"GE", ("status 400", "status 4??", "ended"), ends=True),
    refused("nothing", b"", ("ended",), ends=True),
    Head("request: bare LF", GOOD.replace(b"\r\n", b"\n") + b"\n", (*OPEN, *BAD_HTTP)),
]

LIMITS = [
    refused("line of 1 MB", b"GET /" + b"a" * MIB, ("status 414", "status 4??", "ended", "reset")),
    refused(
        "line of 1 MB and an end",
        b"GET /" + b"a" * MIB + b" HTTP/1.1\r\n" + HOST + END,
        ("status 414", "status 4??", "ended", "reset"),
    ),
    refused("field of 1 MB", GOOD + b"X: " + b"x" * MIB + END + END, TOO_LONG),
    refused("name of 1 MB", GOOD + b"x" * MIB, TOO_LONG),
    refused("cookie of 9 KB", GOOD + b"Cookie: " + b"c" * 9000 + END + END, (*TOO_LONG, "open")),
    refused("head of 64 KB", GOOD + (b"X: " + b"x" * 4000 + END) * 16 + END, (*TOO_LONG, "open")),
    refused("two hundred fields", GOOD + b"X: y\r\n" * 200 + END, (*TOO_LONG, "open")),
    refused("a hundred thousand fields", GOOD + b"X: y\r\n" * 100_000 + END, TOO_LONG),
    refused("fields without an end", GOOD + b"X: y\r\n" * 100_000, TOO_LONG),
    refused(
        "value folded a thousand times",
        GOOD + b"X: y\r\n" + b" z\r\n" * 1000 + END,
        (*TOO_LONG, *BAD_REQUEST),
    ),
    accepted("cookie of 8000 bytes", GOOD + b"Cookie: " + b"c" * 8000 + END + END),
]

GLUED = [
    Head("request: bad frame glued to it", GOOD + END + frame(3, b"", mask=MASK), ("close 1002",)),
    Head("request: frame without a mask glued to it", GOOD + END + frame(1, b"a"), ("close 1002",)),
    Head(
        "request: close glued to it", GOOD + END + frame(8, b"\x03\xe8", mask=MASK), ("close 1000",)
    ),
    Head("request: message glued to it", GOOD + END + frame(1, b"a", mask=MASK), OPEN),
    Head(
        "request: half a frame glued to it",
        GOOD + END + frame(9, b"abc", mask=MASK)[:4],
        ("ended",),
        ends=True,
    ),
    Head("request: end glued to it", GOOD + END, ("ended", "close *", "reset"), ends=True),
    Head(
        "request: thousands of pings glued to it",
        GOOD + END + frame(9, b"a", mask=MASK) * 5000,
        OPEN,
    ),
]

# Responses. What a client's application gets is ours; others have names of their own for it.


def answered(
    name: str,
    response: bytes,
    error: str,
    expected: tuple[str, ...] = ("ended|reset",),
    *,
    ends: bool = False,
) -> Head:
    return Head(
        f"response: {name}",
        response,
        expected,
        ends=ends,
        victims=(CLIENT,),
        errors=(error, "error"),
    )


ACCEPT = b"Sec-WebSocket-Accept: ACCEPT\r\n"


def changed(old: bytes, new: bytes) -> bytes:
    assert old in RESPONSE
    return RESPONSE.replace(old, new)


STATUSES = (
    [
        answered(
            f"status {status}",
            b"HTTP/1.1 %d X\r\nContent-Length: 4\r\n\r\nbody" % status,
            "InvalidStatus",
        )
        for status in (200, 201, 400, 401, 403, 404, 426, 429, 500, 503, 599, 999)
    ]
    + [
        answered(
            f"status {status} to where nobody listens",
            b"HTTP/1.1 %d X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n" % status,
            "ConnectionRefusedError",
        )
        for status in (301, 302, 303, 307, 308)
    ]
    + [
        answered("status 204 with a body", b"HTTP/1.1 204 X\r\n\r\nbody", "InvalidStatus"),
        answered("status 304", b"HTTP/1.1 304 X\r\n\r\n", "InvalidStatus"),
        answered(
            "status 200 with all fields of 101",
            changed(b"101 Switching Protocols", b"200 OK") + END,
            "InvalidStatus",
            ends=True,
        ),
        answered(
            "status 200 before a 101",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + RESPONSE + END,
            "InvalidStatus",
        ),
        answered("status 099", changed(b"101", b"099") + END, "InvalidMessage"),
        answered("status 1010", changed(b"101", b"1010") + END, "InvalidMessage"),
        answered("status abc", changed(b"101", b"abc") + END, "InvalidMessage"),
    ]
)

ANSWERS = [
    answered("no Upgrade", changed(UPGRADE, b"") + END, "InvalidUpgrade"),
    answered("Upgrade to h2c", changed(b"websocket", b"h2c") + END, "InvalidUpgrade"),
    answered("two Upgrades that differ", RESPONSE + b"Upgrade: h2c\r\n" + END, "InvalidUpgrade"),
    answered("no Connection", changed(CONNECTION, b"") + END, "InvalidUpgrade"),
    answered("Connection close", changed(b": Upgrade", b": close") + END, "InvalidUpgrade"),
    answered("no Accept", changed(ACCEPT, b"") + END, "InvalidHeader"),
    answered("Accept that is empty", changed(b"ACCEPT", b"") + END, "InvalidHeader"),
    answered(
        "Accept for another key",
        changed(b"ACCEPT", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") + END,
        "InvalidHeader",
    ),
    answered("Accept that is cut short", changed(b"ACCEPT", b"s3pP") + END, "InvalidHeader"),
    answered("Accept in other letters", changed(b": ACCEPT", b": ACCEPTx") + END, "InvalidHeader"),
    answered("two Accepts", RESPONSE + ACCEPT + END, "InvalidHeader"),
    answered(
        "two Accepts that differ",
        RESPONSE + b"Sec-WebSocket-Accept: AAAA\r\n" + END,
        "InvalidHeader",
    ),
    answered(
        "subprotocol that nobody offered",
        RESPONSE + b"Sec-WebSocket-Protocol: a\r\n" + END,
        "NegotiationError",
    ),
    answered(
        "two subprotocols", RESPONSE + b"Sec-WebSocket-Protocol: a\r\n" * 2 + END, "InvalidHeader"
    ),
    answered(
        "extension that nobody offered",
        RESPONSE + b"Sec-WebSocket-Extensions: x-a\r\n" + END,
        "NegotiationError",
    ),
    answered(
        "deflate twice",
        RESPONSE + b"Sec-WebSocket-Extensions: permessage-deflate\r\n" * 2 + END,
        "NegotiationError",
    ),
    answered(
        "deflate with a window of 16 bits",
        RESPONSE
        + b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=16\r\n"
        + END,
        "NegotiationError",
    ),
    answered(
        "deflate with a parameter that is unknown",
        RESPONSE + b"Sec-WebSocket-Extensions: permessage-deflate; a\r\n" + END,
        "NegotiationError",
    ),
    answered(
        "extensions that are none",
        RESPONSE + b"Sec-WebSocket-Extensions: ;\r\n" + END,
        "InvalidHeader",
    ),
    answered("101 in HTTP/1.0", changed(b"HTTP/1.1", b"HTTP/1.0") + END, "InvalidMessage"),
    answered("HTTP/2", changed(b"HTTP/1.1", b"HTTP/2") + END, "InvalidMessage"),
    answered("bare CR in a value", RESPONSE + b"X: a\rb\r\n" + END, "InvalidMessage"),
    answered("NUL in a value", RESPONSE + b"X: a\0b\r\n" + END, "InvalidMessage"),
    answered("field without a colon", RESPONSE + b"X\r\n" + END, "InvalidMessage"),
    answered("space before a colon", RESPONSE + b"X : y\r\n" + END, "InvalidMessage"),
    answered(
        "control character in the reason", changed(b"Switching", b"\x1b[2J") + END, "InvalidMessage"
    ),
    answered("SSH", b"SSH-2.0-OpenSSH_9.6\r\n" + END, "InvalidMessage"),
    answered("TLS alert", b"\x15\x03\x01\x00\x02\x02\x16", "InvalidMessage", ends=True),
    answered("frames", frame(1, b"hello") + END + END, "InvalidMessage", ends=True),
    answered("nothing", b"", "InvalidMessage", ends=True),
    answered("half a line", b"HTTP/1.1 10", "InvalidMessage", ends=True),
    answered("half a head", RESPONSE, "InvalidMessage", ends=True),
    answered("field of 1 MB", RESPONSE + b"X: " + b"x" * MIB + END + END, "InvalidMessage"),
    answered("a hundred thousand fields", RESPONSE + b"X: y\r\n" * 100_000 + END, "InvalidMessage"),
    answered("line of 1 MB", b"HTTP/1.1 101 " + b"x" * MIB, "InvalidMessage"),
    answered(
        "ten thousand early hints", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000, "InvalidMessage"
    ),
    answered(
        "body of 1 MB",
        b"HTTP/1.1 500 X\r\nContent-Length: 1048576\r\n\r\n" + b"x" * MIB,
        "InvalidStatus",
    ),
    answered("body without an end", b"HTTP/1.1 500 X\r\n\r\n" + b"x" * MIB, "InvalidStatus"),
    answered(
        "chunks of one byte",
        b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 70_000,
        "InvalidStatus",
    ),
    answered(
        "chunk that is no chunk",
        b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "InvalidStatus",
    ),
]

OPENED = [
    Head(
        "response: bad frame glued to it",
        RESPONSE + END + frame(3),
        ("close 1002",),
        victims=(CLIENT,),
    ),
    Head(
        "response: masked frame glued to it",
        RESPONSE + END + frame(1, b"a", mask=MASK),
        ("close 1002",),
        victims=(CLIENT,),
    ),
    Head(
        "response: close glued to it",
        RESPONSE + END + frame(8, b"\x03\xe8"),
        ("close 1000",),
        victims=(CLIENT,),
    ),
    Head("response: message glued to it", RESPONSE + END + frame(1, b"a"), OPEN, victims=(CLIENT,)),
    Head(
        "response: end glued to it",
        RESPONSE + END,
        ("ended", "close *", "reset"),
        ends=True,
        victims=(CLIENT,),
    ),
    Head(
        "response: message and end glued to it",
        RESPONSE + END + frame(1, b"a"),
        ("ended", "close *", "reset"),
        ends=True,
        victims=(CLIENT,),
    ),
    Head(
        "response: thousands of pings glued to it",
        RESPONSE + END + frame(9, b"a") * 5000,
        OPEN,
        victims=(CLIENT,),
    ),
    Head(
        "response: early hints before it",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 + RESPONSE + END,
        OPEN,
        victims=(CLIENT,),
    ),
    Head(
        "response: length in a 101",
        RESPONSE + b"Content-Length: 9\r\n" + END + frame(9, b"a"),
        ("open", "ended"),
        victims=(CLIENT,),
        errors=("done", "error"),
    ),
]

CASES: list[Case] = [*FIELDS, *HTTP, *LIMITS, *GLUED, *STATUSES, *ANSWERS, *OPENED]
