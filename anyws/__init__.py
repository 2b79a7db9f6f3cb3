"""WebSockets on anyio: one library for asyncio and trio."""

from __future__ import annotations

from types import FunctionType

from . import exceptions
from ._basic_auth import basic_auth
from ._broadcast import broadcast, broadcast_wait
from ._client import connect, unix_connect, wrap_client
from ._connection import Connection
from ._hooks import Hooks
from ._http import Headers, Request, Response
from ._keepalive import PongWaiter
from ._reconnect import Backoff, Session, default_retry, reconnect
from ._routing import Router
from ._server import Server
from ._serving import serve, serve_forever, unix_serve, wrap_server
from ._stats import ServerStats, Stats
from ._types import Close, CloseCode, State
from ._version import __version__
from .exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidOrigin,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    KeepaliveTimeout,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
    ProxyError,
    WebSocketException,
)
from .sansio import SAME_HOST, PerMessageDeflate

__all__ = [
    "SAME_HOST",
    "Backoff",
    "Close",
    "CloseCode",
    "ConcurrencyError",
    "Connection",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Headers",
    "Hooks",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidMessage",
    "InvalidOrigin",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "KeepaliveTimeout",
    "NegotiationError",
    "PayloadTooBig",
    "PerMessageDeflate",
    "PongWaiter",
    "ProtocolError",
    "ProxyError",
    "Request",
    "Response",
    "Router",
    "Server",
    "ServerStats",
    "Session",
    "State",
    "Stats",
    "WebSocketException",
    "__version__",
    "basic_auth",
    "broadcast",
    "broadcast_wait",
    "connect",
    "default_retry",
    "exceptions",
    "reconnect",
    "serve",
    "serve_forever",
    "unix_connect",
    "unix_serve",
    "wrap_client",
    "wrap_server",
]

# A repr, a traceback and a pickle name the place that users import from.
for _item in [globals()[name] for name in __all__]:
    if isinstance(_item, type | FunctionType) and _item.__module__ != exceptions.__name__:
        _item.__module__ = __name__
del _item
