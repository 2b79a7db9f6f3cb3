"""Redirects of an opening handshake: where they lead, and what may not travel along.

Owns the way that one attempt to connect has gone; knows no stream and no request. RFC 9110 section
15.4, RFC 6455 section 4.1.
"""

from __future__ import annotations

import urllib.parse
from dataclasses import replace
from typing import TYPE_CHECKING

from .._http import Headers
from ..exceptions import InvalidStatus, InvalidURI
from ._uri import parse_uri, redact

if TYPE_CHECKING:
    from .._http import HeadersLike, Response
    from ._uri import WebSocketURI

# What they differ in, which method to go on with, means nothing here: RFC 6455 knows GET alone.
_STATUSES = {301, 302, 303, 307, 308}

# Many servers know of themselves only how they serve browsers.
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}

# What is for one server alone: what it knows us by, and its own name.
_FIELDS_OF_AN_ORIGIN = ("Authorization", "Cookie", "Proxy-Authorization", "Host")

_ASCII = "".join(map(chr, range(0x80)))


def is_redirect(response: Response) -> bool:
    """Say whether a response leads elsewhere."""
    return response.status in _STATUSES


class Redirects:
    """The way from a URI to the one that opens a connection.

    Args:
        uri: where it begins.
        additional_headers: fields of the request that are the user's own.
        max_redirects: how many are followed; 0 follows none.
    """

    def __init__(
        self, uri: WebSocketURI, additional_headers: HeadersLike | None, max_redirects: int
    ) -> None:
        self.uri: WebSocketURI = uri
        """Where to connect now."""
        self.headers: Headers = Headers(additional_headers)
        """The fields that may be sent there."""
        self.changed_origin: bool = False
        """Whether this is, or the way has led through, another origin than the first."""
        self._max_redirects = max_redirects
        self._way = [uri]

    def __str__(self) -> str:
        """Give all URIs of the way, without user information and queries."""
        return " -> ".join(map(str, self._way))

    def __len__(self) -> int:
        """Give the number of redirects that were followed."""
        return len(self._way) - 1

    def follow(self, response: Response) -> None:
        """Go where a response leads.

        Raises:
            InvalidStatus: it leads nowhere, out of TLS, in a loop, or there were too many before.
        """
        if not self._max_redirects:
            raise InvalidStatus(response, "redirects are not followed")
        if len(self) == self._max_redirects:
            raise InvalidStatus(response, f"more than {self._max_redirects} redirects: {self}")
        uri = self._next_uri(response)
        came_back = uri in self._way
        if self.uri.secure and not uri.secure:
            raise InvalidStatus(response, f"redirect out of TLS, from {self.uri} to {uri}")
        self._way.append(uri)
        if came_back:
            raise InvalidStatus(response, f"redirects in a loop: {self}")
        if _origin(uri) != _origin(self.uri):
            self.changed_origin = True
            for name in _FIELDS_OF_AN_ORIGIN:
                self.headers.pop(name, None)
        self.uri = uri

    def _next_uri(self, response: Response) -> WebSocketURI:
        locations = response.headers.get_all("Location")
        if len(locations) != 1:
            problem = "given several times" if locations else "missing"
            raise InvalidStatus(response, f"redirect from {self.uri} with a Location {problem}")
        try:
            uri = _resolve(self.uri, locations[0])
        except ValueError as exc:
            problem = exc.problem if isinstance(exc, InvalidURI) else str(exc)
            shown = redact(locations[0])
            raise InvalidStatus(
                response, f"redirect from {self.uri} to {shown!r}: {problem}"
            ) from None
        if uri.user_info is None and _origin(uri) == _origin(self.uri):
            return replace(uri, user_info=self.uri.user_info)
        return uri


def _origin(uri: WebSocketURI) -> tuple[bool, str, int]:
    return uri.secure, uri.host, uri.port


def _resolve(base: WebSocketURI, location: str) -> WebSocketURI:
    """Give where a Location leads, seen from `base` (RFC 3986 section 5.2).

    Raises:
        ValueError: nowhere; InvalidURI is one.
    """
    # RFC 6455 section 3: a fragment is "meaningless in the context of WebSocket URIs". Bytes that
    # are not ASCII stay what they are.
    reference = urllib.parse.quote(location.partition("#")[0], safe=_ASCII, encoding="latin-1")
    parts = urllib.parse.urlsplit(reference)
    if not parts.scheme and not parts.netloc:
        # The host stands for that of `base`, whose zone, if it has one, no URI of its own would
        # bring back.
        target = parse_uri(urllib.parse.urljoin(f"ws://h{base.resource_name}", reference))
        return replace(base, path=target.path, query=target.query)
    scheme = parts.scheme or ("wss" if base.secure else "ws")
    if scheme not in _SCHEMES:
        # Among them ws+unix: no server has a say in which sockets of this machine are used.
        raise ValueError(f"the scheme is not {', '.join(_SCHEMES)}")
    rest = reference[len(parts.scheme) + 1 :] if parts.scheme else reference
    return parse_uri(f"{_SCHEMES[scheme]}:{rest}")
