"""The checks of what users give to `connect`, `serve` and their like.

Owns what each argument may be, and the words of the errors; keeps nothing. What the numbers of the
protocol may be stands in `sansio._limits`.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import socket
import ssl
import sys
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

from .sansio._limits import check_int

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from anyio.abc import Listener

_T = TypeVar("_T")


def check_seconds(name: str, seconds: float | None, *, or_zero: bool = False) -> None:
    """See that a time-out or interval is above 0.

    Args:
        name: what it is called.
        seconds: it; None is no limit.
        or_zero: whether it may also be 0.

    Raises:
        ValueError: it is not.
        TypeError: it is no number.
    """
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        kind = type(seconds).__name__
        raise TypeError(f"{name} must be a number of seconds or None, not {kind}")
    if or_zero and not seconds >= 0:
        raise ValueError(f"{name} of {seconds} seconds is not 0 or more; None is no limit")
    if not or_zero and not seconds > 0:
        raise ValueError(f"{name} of {seconds} seconds is not above 0; None does without")
    if sys.float_info.max < seconds < math.inf:
        raise ValueError(f"{name} has too many seconds for a clock; None does without")


def check_ssl(
    context: ssl.SSLContext | None, name: str = "ssl", *, server_side: bool = False
) -> None:
    """See that it is a context for TLS, of our side, or None.

    Raises:
        ValueError: it is one for the other side, with which no connection would ever open.
        TypeError: it is none.
    """
    if context is not None and not isinstance(context, ssl.SSLContext):
        raise TypeError(f"{name} must be a ssl.SSLContext or None, not {type(context).__name__}")
    if context is None:
        return
    if server_side and context.protocol is ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError(
            f"{name} is a context for clients, expected one for servers, such as"
            " ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)"
        )
    if not server_side and context.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise ValueError(
            f"{name} is a context for servers, expected one for clients, such as"
            " ssl.create_default_context()"
        )


def check_stream(stream: object) -> None:
    """See that it can be a stream.

    Raises:
        TypeError: it cannot.
    """
    if isinstance(stream, socket.socket):
        raise TypeError(
            "stream must be an anyio.abc.ByteStream, not a socket: SocketStream.from_socket() and"
            " UNIXSocketStream.from_socket() of anyio.abc make one of it"
        )
    if not _can(stream, "send", "receive"):
        raise TypeError(f"stream must be an anyio.abc.ByteStream, not {type(stream).__name__}")
    if not _takes(stream.receive, 1):  # type: ignore[attr-defined]  # it has one
        kind = type(stream).__name__
        raise TypeError(
            f"stream must be an anyio.abc.ByteStream, whose receive() takes a size, not {kind}"
        )


def _takes(function: Callable[..., object], count: int) -> bool:
    """Say whether it can be called with so many arguments, as far as that can be seen."""
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (NameError, TypeError, ValueError):  # it does not tell, as one that is written in C
        return True
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _can(value: object, *methods: str) -> bool:
    """Say whether something has the methods of an abstract class that it need not name."""
    return all(callable(getattr(value, method, None)) for method in methods)


def check_listeners(listeners: Iterable[Listener[Any]]) -> list[Listener[Any]]:
    """See that each can be one, and give them as a list.

    Raises:
        TypeError: one cannot.
        ValueError: there is none.
    """
    if _can(listeners, "serve", "aclose"):
        kind = type(listeners).__name__
        raise TypeError(f"listeners must be a list of listeners, not one that is a {kind}")
    checked = list(listeners)
    for listener in checked:
        if isinstance(listener, socket.socket):
            raise TypeError(
                "listeners must be of anyio.abc.Listener, not sockets:"
                " anyio.abc.SocketListener.from_socket() makes one of one"
            )
        if not _can(listener, "serve", "aclose"):
            kind = type(listener).__name__
            raise TypeError(f"listeners must be of anyio.abc.Listener, not {kind}")
    if not checked:
        raise ValueError("listeners has none; None listens on host and port")
    return checked


def check_extensions(extensions: Iterable[_T] | None, kind: type) -> tuple[_T, ...]:
    """See that each can do what one of its side must, and give them as a tuple.

    Raises:
        TypeError: one cannot.
    """
    checked = tuple(extensions or ())
    for extension in checked:
        if not isinstance(extension, kind):
            other = type(extension).__name__
            raise TypeError(f"extensions must be of anyws.sansio.{kind.__name__}, not {other}")
    return checked


def check_place(host: str | None, port: int) -> None:
    """See that a server can listen there, as far as that is known without asking for it.

    Raises:
        ValueError: the port is out of its range.
        TypeError: one of the two has the wrong type.
    """
    if host is not None and not isinstance(host, str):
        raise TypeError(f"host must be a str or None, not {type(host).__name__}")
    check_int("port", port)
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} is not in 0..65535")


def check_path(path: object) -> None:
    """See that it can be the path of a UNIX socket.

    Raises:
        ValueError: it is empty.
        TypeError: it is none.
    """
    text = os.fspath(path) if isinstance(path, PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"path must be a str or a path, not {type(path).__name__}")
    if not text:
        raise ValueError("path is empty")


def check_server_hostname(name: str | None, *, tls: bool) -> None:
    """See that it can be the name in a server's certificate, or is None.

    Args:
        name: the name.
        tls: whether there will be a certificate.

    Raises:
        ValueError: it is empty or no host name, or nobody would look at it.
        TypeError: it is no str.
    """
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"server_hostname must be a str or None, not {type(name).__name__}")
    if not name:
        raise ValueError("server_hostname is empty; None takes the host of the URI")
    try:
        name.encode("idna")
    except UnicodeError as exc:
        raise ValueError(f"server_hostname {name!r} is no host name: {exc}") from None
    if "\0" in name:
        raise ValueError(f"server_hostname {name!r} has a NUL")
    if not tls:
        raise ValueError(
            f"server_hostname={name!r} is given, but no TLS: that takes a wss URI, or ssl with a"
            " stream"
        )


def check_logger(logger: object) -> None:
    """See that it can be logged to, or is None.

    Raises:
        TypeError: it cannot.
    """
    if logger is not None and not isinstance(logger, logging.Logger | logging.LoggerAdapter):
        kind = type(logger).__name__
        raise TypeError(f"logger must be a logging.Logger, a LoggerAdapter or None, not {kind}")


def check_callable(name: str, value: object, *, takes: Sequence[str] = ()) -> None:
    """See that something can be called.

    Args:
        name: what it is called.
        value: it.
        takes: with what, if that is known; each is one argument.

    Raises:
        TypeError: it cannot.
    """
    if not callable(value):
        raise TypeError(f"{name} must be a function, not {type(value).__name__}")
    # What another object says of itself may be about what it passes its calls on to.
    plain = inspect.isroutine(value) and not hasattr(value, "__signature__")
    if takes and plain and not _takes(value, len(takes)):
        given = inspect.signature(value, follow_wrapped=False)
        raise TypeError(f"{name} must take ({', '.join(takes)}), and takes {given}")


def check_plain_function(
    name: str, value: Callable[..., object], *, takes: Sequence[str] = ()
) -> None:
    """See that something can be called for its result, which an async function does not give.

    Args:
        name: as for `check_callable`, as the others.
        value: likewise.
        takes: likewise.

    Raises:
        TypeError: it cannot.
    """
    check_callable(name, value, takes=takes)
    called = type(value).__call__  # where it is an object
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(called):
        raise TypeError(f"{name} must be a plain function, not an async one")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """See that something is one of a few words.

    Raises:
        ValueError: it is none of them.
        TypeError: it is no str.
    """
    expected = f"{name} {value!r}, expected {' or '.join(map(repr, choices))}"
    if not isinstance(value, str):
        raise TypeError(expected)
    if value not in choices:
        raise ValueError(expected)


def check_arguments(function: str, arguments: Iterable[str], others: Collection[str]) -> None:
    """See that a function was given none of those that only the one below it has a use for.

    Raises:
        TypeError: it was.
    """
    for name in arguments:
        if name in others:
            raise TypeError(f"{function}() has no use for the argument {name!r}")
