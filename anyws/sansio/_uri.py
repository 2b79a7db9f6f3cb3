"""Parse the URI of a WebSocket resource, and that of a proxy.

Owns the text of URIs; knows no network and resolves no name. RFC 6455 section 3, RFC 3986 and
RFC 6874.
"""

import ipaddress
import re
import urllib.parse
from dataclasses import dataclass, field

from ..exceptions import InvalidURI
from ._headers import build_authority, build_basic_authorization, build_host

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_AUTHORITY_END = re.compile(r"[/?]")
_BAD_CHARACTER = re.compile(r"[\x00-\x20\x7f-\x9f]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

# RFC 3986 section 3.2.2, reg-name; without percent-escapes, which no name of a host needs.
_HOST = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=]+")
_ZONE = re.compile(r"[A-Za-z0-9\-._~]+")

_MAX_LABEL_SIZE = 63

# Five digits hold every port; with more, int() could be made to work long.
_PORT = re.compile(r"[0-9]{1,5}")

# The schemes of proxies, with their default ports; that of SOCKS is IANA's.
_PROXY_PORTS = {
    "http": 80,
    "https": 443,
    "socks5": 1080,
    "socks5h": 1080,
    "socks4": 1080,
    "socks4a": 1080,
}

# What stays as it is in a path or a query: all visible ASCII, and so what is escaped already.
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True)
class WebSocketURI:
    """The parts of a WebSocket URI (RFC 6455 section 3).

    Args:
        secure: whether TLS is used.
        host: a name in ASCII and lower case, or an address; an IPv6 address without brackets.
        port: the port; the default one where the URI has none.
        path: the path without the query, in ASCII; never empty.
        query: what stands after the "?"; may be empty.
        user_info: user and password, decoded, if the URI has them; left out of the repr.
        unix_path: the path of a UNIX socket to connect to instead of host and port, if any.
    """

    secure: bool
    host: str
    port: int
    path: str = "/"
    query: str = ""
    user_info: tuple[str, str] | None = field(default=None, repr=False)
    unix_path: str | None = None

    def __str__(self) -> str:
        """Give the URI without user information and query, which may be secrets."""
        if self.unix_path is not None:
            return f"ws+unix://{self.unix_path}:{self.path}"
        scheme = "wss" if self.secure else "ws"
        return f"{scheme}://{build_host(self.host, self.port, self.secure)}{self.path}"

    @property
    def resource_name(self) -> str:
        """Path and query, as they stand in the request line (RFC 6455 section 3)."""
        return f"{self.path}?{self.query}" if self.query else self.path


@dataclass(frozen=True, slots=True)
class ProxyURI:
    """The parts of the URI of a proxy.

    Args:
        scheme: "http", "https", "socks5", "socks5h", "socks4" or "socks4a".
        host: a name in ASCII and lower case, or an address; an IPv6 address without brackets.
        port: the port; the default one where the URI has none.
        user_info: user and password, decoded, if the URI has them; left out of the repr.
    """

    scheme: str
    host: str
    port: int
    user_info: tuple[str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Give the URI without user information, which is a secret."""
        return f"{self.scheme}://{build_authority(self.host, self.port)}"

    @property
    def speaks_socks(self) -> bool:
        """Whether it is asked by SOCKS, and not by HTTP."""
        return self.scheme.startswith("socks")


def parse_uri(uri: str) -> WebSocketURI:
    """Parse "ws://", "wss://" and "ws+unix:///path/of.sock:/resource".

    In the last form a colon in the path of the socket is written "%3A".

    Raises:
        InvalidURI: it is no such URI; user and password are left out of the error.
        TypeError: `uri` is no str.
    """
    if not isinstance(uri, str):
        raise TypeError(f"uri must be a str, not {type(uri).__name__}")
    try:
        return _parse(uri)
    except _Flaw as flaw:
        # The flaw names no part of the URI, and it is not chained: what looks like a host or a
        # port in a malformed URI may be a piece of the password.
        raise InvalidURI(redact(uri), str(flaw)) from None


def parse_proxy_uri(uri: str) -> ProxyURI:
    """Parse "http://", "https://", "socks5://", "socks5h://", "socks4://" and "socks4a://".

    Raises:
        ValueError: it is no such URI; user and password are left out of the error.
    """
    try:
        return _parse_proxy(uri)
    except _Flaw as flaw:
        raise ValueError(f"{redact(uri)!r} is not the URL of a proxy: {flaw}") from None


class _Flaw(Exception):
    """What is wrong with a URI, without quoting it."""


def redact(uri: str) -> str:
    """Hide all that may be user information: what stands before the last "@"."""
    before, at, after = uri.rpartition("@")
    if not at:
        return uri
    scheme = _SCHEME.match(before)
    return f"{scheme[0] if scheme else ''}***@{after}"


def _split_scheme(uri: str, example: str) -> tuple[str, str]:
    """Give the scheme and what follows it, whose characters are checked."""
    bad_character = _BAD_CHARACTER.search(uri)
    if bad_character is not None:
        raise _Flaw(f"the character {bad_character[0]!r} must be percent-encoded")
    if _BAD_ESCAPE.search(uri) is not None:
        raise _Flaw("a percent sign is not followed by two hexadecimal digits")
    match = _SCHEME.match(uri)
    if match is None:
        raise _Flaw(f"it does not start with a scheme such as {example}")
    return match[1].lower(), uri[match.end() :]


def _parse(uri: str) -> WebSocketURI:
    scheme, rest = _split_scheme(uri, "ws://")
    if scheme not in {"ws", "wss", "ws+unix"}:
        raise _Flaw("the scheme is not ws, wss or ws+unix")
    if "#" in uri:
        # RFC 6455 section 3: "Fragment identifiers are meaningless in the context of WebSocket
        # URIs and MUST NOT be used on these URIs."
        raise _Flaw("it has a fragment; a # that is meant as such must be written %23")
    if scheme == "ws+unix":
        return _parse_unix(rest)
    authority = _AUTHORITY_END.split(rest, maxsplit=1)[0]
    path, _, query = rest[len(authority) :].partition("?")
    user_info, at, host_and_port = authority.rpartition("@")
    if "\\" in user_info:
        # Browsers take it for a slash: the host that they find is another one than the one here.
        raise _Flaw("user and password have a backslash; it is written %5C")
    host, port = _split_port(host_and_port)
    return WebSocketURI(
        secure=scheme == "wss",
        host=_parse_host(host),
        port=_parse_port(port) if port else 443 if scheme == "wss" else 80,
        path=_to_ascii(path) or "/",
        query=_to_ascii(query),
        user_info=_parse_user_info(user_info) if at else None,
    )


def _parse_proxy(uri: str) -> ProxyURI:
    scheme, rest = _split_scheme(uri, "http://")
    if scheme not in _PROXY_PORTS:
        raise _Flaw(f"the scheme is not {', '.join(_PROXY_PORTS)}")
    authority = rest.removesuffix("/")
    if _AUTHORITY_END.search(authority) is not None or "#" in authority:
        raise _Flaw("something follows host and port; in user and password, / ? # are %2F %3F %23")
    user_info, at, host_and_port = authority.rpartition("@")
    host, port = _split_port(host_and_port)
    return ProxyURI(
        scheme,
        _parse_host(host),
        _parse_port(port) if port else _PROXY_PORTS[scheme],
        _parse_proxy_user_info(scheme, user_info) if at else None,
    )


def _parse_proxy_user_info(scheme: str, text: str) -> tuple[str, str]:
    if scheme in {"http", "https"}:
        return _parse_user_info(text)
    user, password = _split_user_info(text)
    # RFC 1929 section 2 has a byte for the size of each; SOCKS4 ends its user with a NUL. Neither
    # says what is behind ASCII.
    if scheme.startswith("socks4"):
        if password:
            raise _Flaw("SOCKS4 has a user, but no password")
    elif not (user and password):
        raise _Flaw("SOCKS5 has a user and a password, or neither")
    if max(len(user), len(password)) > 255 or not (user + password).isascii() or "\0" in user:
        raise _Flaw("user and password for SOCKS must be up to 255 characters of ASCII each")
    return user, password


def _parse_unix(rest: str) -> WebSocketURI:
    path, _, query = rest.partition("?")
    socket_path, _, resource = path.partition(":")
    if not socket_path.startswith("/"):
        raise _Flaw("the path of the socket does not start with a slash; a host has no place here")
    if resource and not resource.startswith("/"):
        raise _Flaw("the resource after the colon does not start with a slash")
    # Paths are bytes to the system: those that are no UTF-8 pass as Python's file functions do it.
    unix_path = urllib.parse.unquote(socket_path, errors="surrogateescape")
    if "\0" in unix_path:
        raise _Flaw("the path of the socket has a NUL")
    return WebSocketURI(
        secure=False,
        host="localhost",
        port=80,
        path=_to_ascii(resource) or "/",
        query=_to_ascii(query),
        unix_path=unix_path,
    )


def _split_port(host_and_port: str) -> tuple[str, str]:
    """Cut at the colon before the port, which is not one of an IPv6 address."""
    if host_and_port.startswith("["):
        host, bracket, rest = host_and_port.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _Flaw("the host is not an IPv6 address in brackets")
        return host + bracket, rest[1:]
    host, _, port = host_and_port.partition(":")
    return host, port


def _parse_port(text: str) -> int:
    if _PORT.fullmatch(text) is None or not 1 <= int(text) <= 65535:
        raise _Flaw("the port is not a number in 1..65535")
    return int(text)


def _parse_host(host: str) -> str:
    if not host:
        raise _Flaw("it has no host")
    if host.startswith("["):
        return _parse_ipv6(host[1:-1])
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise _Flaw("the host is not a valid internationalized domain name") from None
    # Also after IDNA: it makes a "/" of a full-width solidus.
    if _HOST.fullmatch(host) is None:
        raise _Flaw("the host has a character that a host cannot have")
    # RFC 1035 section 2.3.4; a last dot is that of the root.
    if not all(1 <= len(label) <= _MAX_LABEL_SIZE for label in host.removesuffix(".").split(".")):
        raise _Flaw(f"a label of the host does not have 1 to {_MAX_LABEL_SIZE} characters")
    return host.lower()


def _parse_ipv6(text: str) -> str:
    # RFC 6874 section 2: the "%" between address and zone is written "%25".
    address, percent, zone = text.partition("%25")
    if not _is_ipv6(address):
        raise _Flaw("the host is not an IPv6 address in brackets")
    if not percent:
        return address.lower()
    zone = urllib.parse.unquote(zone)
    if _ZONE.fullmatch(zone) is None:
        raise _Flaw("the zone of the IPv6 address has a character that a zone cannot have")
    return f"{address.lower()}%{zone}"


def _is_ipv6(text: str) -> bool:
    try:
        # It has no scope_id: the standard library would take any "%" for the sign of a zone.
        return ipaddress.IPv6Address(text).scope_id is None
    except ValueError:
        return False


def _parse_user_info(text: str) -> tuple[str, str]:
    user, password = _split_user_info(text)
    try:
        # Only what can be sent is taken: RFC 7617 forbids some characters.
        build_basic_authorization(user, password)
    except ValueError:
        raise _Flaw("the user information cannot be used for Basic authentication") from None
    return user, password


def _split_user_info(text: str) -> tuple[str, str]:
    if "@" in text:
        raise _Flaw("an @ in the user information must be written %40")
    user, _, password = text.partition(":")
    try:
        return (
            urllib.parse.unquote(user, errors="strict"),
            urllib.parse.unquote(password, errors="strict"),
        )
    except ValueError:
        raise _Flaw("the user information is not in UTF-8") from None


def _to_ascii(text: str) -> str:
    """Percent-encode what is not ASCII, as UTF-8."""
    try:
        return urllib.parse.quote(text, safe=_VISIBLE)
    except UnicodeEncodeError:
        raise _Flaw("the path or the query has a lone surrogate") from None
