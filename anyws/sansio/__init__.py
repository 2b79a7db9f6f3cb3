"""The protocol without I/O, for authors of libraries: bytes in, events out, and the reverse.

Owns the face of the package; no await, no clock, no socket. RFC 6455 and RFC 7692.
"""

from __future__ import annotations

from types import FunctionType

from .._http import Headers, Request, Response
from .._types import (
    Close,
    CloseCode,
    Event,
    Failure,
    Fragment,
    Opcode,
    Ping,
    Pong,
    Role,
    State,
)
from ._client_handshake import ClientHandshake
from ._codec import IMPLEMENTATION, Decoder, apply_mask, encode_frame
from ._deflate import PerMessageDeflate
from ._extensions import ClientExtension, Extension, Parameter, ServerExtension
from ._origins import SAME_HOST, OriginPolicy
from ._protocol import Protocol
from ._server_handshake import ServerHandshake
from ._uri import WebSocketURI, parse_uri

__all__ = [
    "IMPLEMENTATION",
    "SAME_HOST",
    "ClientExtension",
    "ClientHandshake",
    "Close",
    "CloseCode",
    "Decoder",
    "Event",
    "Extension",
    "Failure",
    "Fragment",
    "Headers",
    "Opcode",
    "OriginPolicy",
    "Parameter",
    "PerMessageDeflate",
    "Ping",
    "Pong",
    "Protocol",
    "Request",
    "Response",
    "Role",
    "ServerExtension",
    "ServerHandshake",
    "State",
    "WebSocketURI",
    "apply_mask",
    "encode_frame",
    "parse_uri",
]

# As in `anyws`, which does the same after this for what it has too.
for _item in [globals()[name] for name in __all__]:
    if isinstance(_item, type | FunctionType):
        _item.__module__ = __name__
del _item
