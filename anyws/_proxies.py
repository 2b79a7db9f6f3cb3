"""Which proxy leads to a server: what the caller says, or else what the environment does.

Owns the choice, and who is reached without one; opens nothing. RFC 6455 section 4.1, and what users
know from curl and from the standard library.
"""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.request
from typing import TYPE_CHECKING, Literal

from anyio import to_thread

from ._checks import check_ssl
from .exceptions import ProxyError
from .sansio._headers import build_authority
from .sansio._uri import ProxyURI, parse_proxy_uri

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from .sansio._uri import WebSocketURI

# Whose proxy is taken, by whether TLS goes through it. For ws, RFC 6455 section 4.1 prefers that of
# https to that of http: the one is there for CONNECT, the other may not allow it.
_SCHEMES = {True: ("wss", "https", "socks", "all"), False: ("ws", "https", "http", "socks", "all")}

# What stands between the entries of no_proxy.
_SEPARATORS = re.compile(r"[,\s]+")


def parse_proxy(
    proxy: str | Literal[True] | None, proxy_ssl: ssl.SSLContext | None, *, possible: bool
) -> ProxyURI | Literal[True] | None:
    """Check what a caller says of proxies, and parse it.

    Args:
        proxy: the argument of `connect`.
        proxy_ssl: likewise.
        possible: whether a proxy can be on the way at all.

    Raises:
        ValueError: it is not the URL of a proxy, which is named without user and password; or there
            can be none, or no TLS with it.
        TypeError: an argument has the wrong type.
    """
    check_ssl(proxy_ssl, "proxy_ssl")
    if proxy is not None and proxy is not True and not isinstance(proxy, str):
        raise TypeError(f"proxy must be a str, True or None, not {type(proxy).__name__}")
    parsed = parse_proxy_uri(proxy) if isinstance(proxy, str) else proxy
    if not possible:
        if isinstance(parsed, ProxyURI) or proxy_ssl is not None:
            name = "proxy_ssl" if proxy_ssl is not None else "proxy"
            raise ValueError(f"{name} is given, but no proxy leads to a stream or a UNIX socket")
        return None
    if proxy_ssl is not None and parsed is None:
        raise ValueError("proxy_ssl is given, but proxy is None")
    if proxy_ssl is not None and isinstance(parsed, ProxyURI) and parsed.scheme != "https":
        raise ValueError(f"proxy_ssl is given, but {parsed} is not an https proxy")
    return parsed


async def find_proxy(uri: WebSocketURI) -> ProxyURI | None:
    """Give the proxy that the environment names for a server; None if there is to be none.

    Raises:
        ProxyError: what it names is not the URL of a proxy.

    Cancellation: loses nothing.
    """
    settings = _read_variables()
    if settings:
        if is_exempt(settings.get("no", ""), uri.host, uri.port):
            return None
        return _choose(settings, uri)
    if urllib.request.getproxies is urllib.request.getproxies_environment:
        return None
    # What the system says, on macOS and on Windows.
    settings = urllib.request.getproxies()
    proxy = _choose(settings, uri)
    if proxy is None:
        return None
    # It may resolve names to find out. Nobody waits for the thread if this is cancelled.
    exempt = await to_thread.run_sync(
        urllib.request.proxy_bypass, build_authority(uri.host, uri.port), abandon_on_cancel=True
    )
    return None if exempt else proxy


def _read_variables() -> dict[str, str]:
    """Give the variables by what stands before "_proxy" in their names."""
    # Where there are none, as mostly, the names tell it in 30 of the 200 microseconds that the
    # standard library takes to read 80 variables twice.
    if not any(name[-6:].lower() == "_proxy" for name in os.environ):
        return {}
    return urllib.request.getproxies_environment()


def _choose(settings: Mapping[str, str], uri: WebSocketURI) -> ProxyURI | None:
    for scheme in _SCHEMES[uri.secure]:
        value = settings.get(scheme)
        if value:
            try:
                return parse_proxy_uri(_complete(scheme, value))
            except ValueError as exc:
                raise ProxyError(f"{scheme}_proxy of the environment: {exc}") from None
    return None


def _complete(scheme: str, value: str) -> str:
    """Give the URL that a setting stands for."""
    if scheme == "socks":
        # macOS says "http://" here, and means SOCKS5 with names resolved at the proxy.
        value = value.removeprefix("http://")
        return value if "://" in value else f"socks5h://{value}"
    return value if "://" in value else f"http://{value}"


def is_exempt(no_proxy: str, host: str, port: int) -> bool:
    """Say whether a server is reached without a proxy.

    Args:
        no_proxy: entries between commas or white space. "*" is all servers; a name is that one and
            those below it, with a leading dot or without; an address is that one, and a network in
            CIDR notation all addresses in it. Each may have a port. Nothing is resolved.
        host: a name in lower case, or an address.
        port: the port.
    """
    host = host.partition("%")[0].rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry in _SEPARATORS.split(no_proxy):
        if entry == "*":
            return True
        name, only_port = _split_entry(entry)
        if only_port not in {"", str(port)}:
            continue
        if _has_name(name, host) if address is None else _has_address(name, address):
            return True
    return False


def _split_entry(entry: str) -> tuple[str, str]:
    """Give the host of an entry, without brackets, and its port, which may be empty."""
    port = ""
    # Several colons are those of an IPv6 address, unless a bracket says where that ends.
    if entry.count(":") == 1 or "]:" in entry:
        entry, _, port = entry.rpartition(":")
    return entry.replace("[", "").replace("]", ""), port


def _has_name(name: str, host: str) -> bool:
    name = name.removeprefix("*.").strip(".").lower()
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            return False
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _has_address(name: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False
