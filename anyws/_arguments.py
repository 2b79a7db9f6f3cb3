"""What functions pass on to `connect` and `serve`, so that type checkers know it.

Owns the names and the types; what each means, and its checks, stand in `_client` and `_serving`. A
test compares them.
"""

import logging
import ssl as ssl_module
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypedDict

from anyio.abc import ByteStream, Listener

from ._hooks import Hooks
from ._http import HeadersLike
from ._opening import ProcessRequest, ProcessResponse
from ._options import Limits
from .sansio._deflate import PerMessageDeflate
from .sansio._extensions import ClientExtension, ServerExtension
from .sansio._origins import OriginPolicy
from .sansio._server_handshake import SubprotocolSelector


class ConnectionArguments(TypedDict, total=False):
    """The arguments that `connect` and `serve` have in common."""

    subprotocols: Sequence[str] | None
    compression: Literal["deflate"] | PerMessageDeflate | None
    open_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    close_timeout: float | None
    max_size: int | tuple[int | None, int | None] | None
    max_queue: Limits
    read_limit: Limits
    write_limit: Limits
    logger: logging.Logger | logging.LoggerAdapter[Any] | None
    hooks: Hooks | None


class WrapClientArguments(ConnectionArguments, total=False):
    """The arguments of `connect` that need no host to connect to."""

    ssl: ssl_module.SSLContext | None
    server_hostname: str | None
    origin: str | None
    extensions: Sequence[ClientExtension] | None
    additional_headers: HeadersLike | None
    user_agent_header: str | None


class ReconnectArguments(WrapClientArguments, total=False):
    """The arguments of `connect` that hold for one connection after the other."""

    proxy: str | Literal[True] | None
    proxy_ssl: ssl_module.SSLContext | None
    max_redirects: int


class WrapServerArguments(ConnectionArguments, total=False):
    """The arguments of `serve` that are about one connection."""

    ssl: ssl_module.SSLContext | None
    origins: OriginPolicy
    select_subprotocol: SubprotocolSelector | None
    extensions: Sequence[ServerExtension] | None
    process_request: ProcessRequest | None
    process_response: ProcessResponse | None
    server_header: str | None


class UnixServeArguments(WrapServerArguments, total=False):
    """The arguments of `serve` that are not about TCP."""

    backlog: int | None
    max_connections: int | None
    handler_errors: Literal["log", "raise"]


class ServeArguments(UnixServeArguments, total=False):
    """All arguments of `serve` but handler, host and port."""

    listeners: Iterable[Listener[ByteStream]] | None
    reuse_port: bool
