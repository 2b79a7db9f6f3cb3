"""The rules of a Router: werkzeug's, for the targets of requests.

Owns what a target means to werkzeug, and what werkzeug's answers mean to us; knows no handler.
Werkzeug is an extra: nothing but a Router imports this module. RFC 9112 section 3.2, RFC 9110
section 4.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from werkzeug.exceptions import BadHost, NotFound
from werkzeug.routing import BuildError, Map, RequestRedirect, Rule

from .sansio._origins import is_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.routing import BaseConverter, MapAdapter

_PORT = re.compile(r":[0-9]*\Z")

# RFC 3986 section 5.2.4: segments that are removed when a reference is resolved.
_DOTS = {".", ".."}


@dataclass(frozen=True, slots=True)
class Match:
    """The rule that a request matches."""

    rule: str
    host: str | None
    args: dict[str, Any]


class Rules:
    """Rules of werkzeug for paths, with hosts or without.

    Args:
        converters: types of variable parts beyond werkzeug's own.
    """

    def __init__(self, converters: Mapping[str, type[BaseConverter]] | None) -> None:
        # Where hosts are matched, werkzeug's rules without one match no host at all: so two maps.
        self._hosted = Map(converters=converters, host_matching=True)
        self._plain = Map(converters=converters)
        self._hosted_endpoints: set[str] = set()

    def add(
        self,
        rule: str,
        host: str | None,
        endpoint: str,
        *,
        defaults: Mapping[str, object] | None,
        strict_slashes: bool | None,
        build_only: bool,
    ) -> None:
        """Add a rule.

        Args:
            rule: werkzeug's text for the path.
            host: likewise for the host, without a port and in lower case; None matches any.
            endpoint: its name for `build`.
            defaults: see `Router.route`.
            strict_slashes: likewise.
            build_only: whether `match` is to pass it by.

        Raises:
            ValueError: the rule is malformed.
            LookupError: it names a converter that does not exist.
        """
        rules = self._plain if host is None else self._hosted
        rules.add(
            Rule(
                rule,
                endpoint=endpoint,
                host=host,
                defaults=defaults,
                strict_slashes=strict_slashes,
                build_only=build_only,
            )
        )
        if host is not None:
            self._hosted_endpoints.add(endpoint)

    def match(self, target: str, authority: str) -> Match | str | None:
        """Find the rule for a request; those with a host come first.

        Args:
            target: path and query of the request.
            authority: the Host field.

        Returns:
            The rule; the location that the client is to be redirected to; or None.
        """
        path, _, query = target.partition("?")
        try:
            path = unquote(path, errors="strict")
        except UnicodeDecodeError:
            return None  # no rule has such a path
        if not path.startswith("/"):
            return None  # the asterisk of OPTIONS, or the authority of CONNECT
        port = _PORT.search(authority)
        host = authority if port is None else authority[: port.start()]
        for adapter in self._adapters(host):
            try:
                rule, args = adapter.match(path, query_args=query, return_rule=True)
            except (NotFound, ValueError):
                # A converter that meets a value it cannot take raises ValidationError, which
                # werkzeug catches; int() does not where there are more than 4300 digits, and nor
                # does werkzeug up to 3.1.6.
                continue
            except RequestRedirect as redirect:
                return _location(redirect, adapter, port[0] if port else "")
            return Match(rule.rule, rule.host, dict(args))
        return None

    def _adapters(self, host: str) -> list[MapAdapter]:
        plain = self._plain.bind("")
        try:
            return [self._hosted.bind(host), plain]
        except BadHost:
            return [plain]

    def build(self, endpoint: str, values: Mapping[str, object]) -> str:
        """Build the reference to a rule; see `Router.url_for`.

        Raises:
            LookupError: no rule of this endpoint takes these values.
            ValueError: a value is none that the variable part can have.
        """
        authority = ""
        rules = self._plain
        try:
            path = reference = self._plain.bind("").build(endpoint, values)
        except BuildError:
            if endpoint not in self._hosted_endpoints:
                raise
            rules = self._hosted
            reference = self._hosted.bind("", url_scheme="").build(endpoint, values)
            authority, _, path = reference.removeprefix("//").partition("/")
            path = f"/{path}"
        # Werkzeug lets a value have what its part never matches: a slash, dots that whoever
        # resolves the reference takes away, even another host.
        found = self.match(path, authority) if is_host(authority) else None
        ours = {(rule.rule, rule.host) for rule in rules.iter_rules(endpoint)}
        if (
            not isinstance(found, Match)
            or (found.rule, found.host) not in ours
            or not _DOTS.isdisjoint(path.partition("?")[0].split("/"))
        ):
            raise ValueError(f"{reference!r} does not lead to the endpoint {endpoint!r}")
        return reference


def _location(redirect: RequestRedirect, adapter: MapAdapter, port: str) -> str:
    """Give what the Location field says: a path, which stays right behind a proxy with TLS.

    Werkzeug gives an absolute URL, with the scheme and the host that the adapter was bound to.
    """
    # Not by urlsplit: a "#" in the query would end it.
    netloc, _, rest = redirect.new_url.removeprefix("http://").partition("/")
    return f"/{rest}" if netloc == adapter.server_name else f"//{netloc}{port}/{rest}"
