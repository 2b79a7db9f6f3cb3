"""Which handler a request is for: routes by path, host and subprotocol.

Owns the routes, their handlers, and what answers a request that none of them matches; what a rule
is, `_rules` knows, with werkzeug behind it.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ._checks import check_callable
from ._connection import Connection
from ._http import Request, Response
from ._opening import ProcessRequest, call_hook
from .sansio._headers import check_subprotocols

if TYPE_CHECKING:
    from werkzeug.routing import BaseConverter
else:
    # For whoever asks for the signature of Router at run time: werkzeug is an extra.
    BaseConverter = object

__all__ = ["Router"]

# What stands before, between and behind the variable parts of a rule for hosts.
_FIXED_PART = re.compile(r"(?:^|(?<=>))[^<]+")

_PORT = re.compile(r":[0-9]*\Z")

_Handler = TypeVar("_Handler", bound=Callable[[Connection], Awaitable[None]])


@dataclass(frozen=True, slots=True)
class _Route:
    """A handler, and what is said of it beside its rule and its host."""

    handler: Callable[[Connection], Awaitable[None]]
    endpoint: str
    subprotocols: tuple[str, ...]
    defaults: Mapping[str, object] | None
    strict_slashes: bool | None


class Router:
    """Routes connections to handlers by path, host and subprotocol, on werkzeug's rules.

    Give both of its methods to `serve`: `serve(router.handler,
    process_request=router.process_request)`. A path without a route gets HTTP 404, one that lacks a
    slash at its end, or has one too many in it, 308 with the right place.

    Args:
        process_request: called first with each request, as `serve` would call it: for passwords,
            or for paths that answer plain HTTP. A Response answers the request. A password for some
            of the routes belongs behind the Router, not here: a function that awaits
            `process_request` sees the route in `request.data["endpoint"]`, whereas one path can be
            written in many ways.
        converters: types of variable parts beyond werkzeug's string, int, float, path, any, uuid.

    Raises:
        ImportError: werkzeug is not installed: `pip install 'anyws[router]'`.
        TypeError: process_request cannot be called.
    """

    def __init__(
        self,
        *,
        process_request: ProcessRequest | None = None,
        converters: Mapping[str, type[BaseConverter]] | None = None,
    ) -> None:
        try:
            from . import _rules  # noqa: PLC0415  # werkzeug is an extra
        except ModuleNotFoundError as exc:
            raise ImportError("Router needs werkzeug: pip install 'anyws[router]'") from exc
        if process_request is not None:
            check_callable("process_request", process_request)
        self._process_request = process_request
        self._rules = _rules.Rules(converters)
        # By rule and host, in the order of registration.
        self._routes: dict[tuple[str, str | None], list[_Route]] = {}
        self._handlers: dict[str, Callable[[Connection], Awaitable[None]]] = {}

    def route(
        self,
        rule: str,
        *,
        endpoint: str | None = None,
        host: str | None = None,
        subprotocols: Sequence[str] | None = None,
        defaults: Mapping[str, object] | None = None,
        strict_slashes: bool | None = None,
    ) -> Callable[[_Handler], _Handler]:
        """Decorate a handler: `@router.route("/rooms/<name>")`.

        The handler is called with the connection alone. The variable parts of the rule, converted,
        are in `ws.data["args"]`, the name of the route in `ws.data["endpoint"]`.

        Several routes may have one rule and host if their subprotocols differ: the first takes the
        connection that the client offers one of its own for.

        Args:
            rule: a path of werkzeug: "/rooms/<name>", "/rooms/<int:number>", "/files/<path:name>".
            endpoint: the name for `url_for`; None takes that of the function.
            host: a host name, with variable parts or without: "<tenant>.example.com". Ports are not
                compared. Routes with a host come before those without.
            subprotocols: what the handler speaks, in order of preference, instead of what `serve`
                was told. A connection gets one of them; without one in common the answer is 400.
            defaults: variables that the rule does not have, with their values. A path that spells
                out what another route of the endpoint has as defaults is redirected there.
            strict_slashes: False takes "/rooms" for "/rooms/" without a redirect, and the reverse.

        Returns:
            A decorator that gives the handler back as it is.

        Raises:
            TypeError: an argument has the wrong type; when decorating: it is no function.
            ValueError: a rule, a host or a subprotocol is malformed; when decorating: another
                handler has the endpoint, or other routes leave nothing to this one.
            LookupError: when decorating: the rule names a converter that does not exist.
        """
        if not isinstance(rule, str):
            kind = type(rule).__name__
            raise TypeError(f"rule must be a str, not {kind}: use @router.route('/path')")
        spoken = check_subprotocols(subprotocols or ())
        if host is not None:
            host = _parse_host(host)

        def decorate(handler: _Handler) -> _Handler:
            check_callable("handler", handler)
            name = getattr(handler, "__name__", None) if endpoint is None else endpoint
            if name is None:
                raise TypeError(f"handler of {rule!r} has no name: give it one by endpoint=")
            self._add(rule, host, _Route(handler, name, spoken, defaults, strict_slashes))
            return handler

        return decorate

    def url_for(self, endpoint: str, /, **values: object) -> str:
        """Build the path that leads to a route.

        Args:
            endpoint: the name of the route.
            values: those of its variable parts; the others become the query.

        Returns:
            "/rooms/lobby?since=5"; "//acme.example.com/rooms/lobby" for a route with a host. Either
            can be given to `urllib.parse.urljoin` with the URI of the server.

        Raises:
            LookupError: there is no such route, or it needs other values.
            ValueError: a value is none that the variable part can have: the path would lead to
                another route, or to none.
        """
        return self._rules.build(endpoint, values)

    async def process_request(self, request: Request) -> Response | None:
        """Find the route of a request, for `serve`.

        Returns:
            What answers the request; None where it has a route.

        Raises:
            Exception: what the `process_request` of the Router raised.

        Cancellation: that of the `process_request` of the Router; no route is found.
        """
        if self._process_request is not None:
            response = await call_hook(self._process_request, request)
            if response is not None:
                return response
        found = self._rules.match(request.path, request.headers.get("Host", ""))
        if found is None:
            return request.respond(404, "no route has this path\n")
        if isinstance(found, str):
            # RFC 9110 section 15.4.9: with 308 the method stays as it is.
            return request.respond(308, f"this path is now {found}\n", {"Location": found})
        routes = self._routes[found.rule, found.host]
        route = next((it for it in routes if _speaks(it, request.subprotocols)), None)
        if route is None:
            # The handshake refuses it, when all else is right.
            route = routes[0]
            names = [name for it in routes for name in it.subprotocols]
            request.required_subprotocols = list(dict.fromkeys(names))
        elif route.subprotocols:
            request.required_subprotocols = route.subprotocols
        request.data["endpoint"] = route.endpoint
        request.data["args"] = found.args
        return None

    async def handler(self, connection: Connection) -> None:
        """Call the handler of the route that `process_request` has found, for `serve`.

        Raises:
            RuntimeError: it was not asked.
            Exception: what the handler raised.

        Cancellation: that of the handler.
        """
        endpoint = connection.data.get("endpoint")
        if endpoint not in self._handlers:
            raise RuntimeError(
                f"no route with the endpoint {endpoint!r}: "
                "use serve(router.handler, process_request=router.process_request)"
            )
        await self._handlers[endpoint](connection)

    def _add(self, rule: str, host: str | None, route: _Route) -> None:
        """Add a route.

        Raises:
            ValueError: it clashes with another, or its rule is malformed.
            LookupError: its rule names a converter that does not exist.
        """
        # By ==: a bound method is a new object each time.
        if self._handlers.get(route.endpoint, route.handler) != route.handler:
            raise ValueError(
                f"endpoint {route.endpoint!r} is that of another handler: give endpoint="
            )
        others = self._routes.get((rule, host), [])
        if others:
            _check_beside(route, others, rule)
        self._rules.add(
            rule,
            host,
            route.endpoint,
            defaults=route.defaults,
            strict_slashes=route.strict_slashes,
            build_only=bool(others),
        )
        self._routes.setdefault((rule, host), []).append(route)
        self._handlers[route.endpoint] = route.handler


def _speaks(route: _Route, offered: Sequence[str]) -> bool:
    """Say whether a route can take a connection whose client offers these subprotocols."""
    return not route.subprotocols or not set(route.subprotocols).isdisjoint(offered)


def _check_beside(route: _Route, others: Sequence[_Route], rule: str) -> None:
    """See that a route can be told from those that have its rule and its host.

    Raises:
        ValueError: it cannot.
    """
    taken = {name for other in others for name in other.subprotocols}
    if not all(other.subprotocols for other in others) or (
        route.subprotocols and taken.issuperset(route.subprotocols)
    ):
        raise ValueError(
            f"rule {rule!r} is that of the endpoint {others[-1].endpoint!r}, "
            "which leaves no subprotocol to another"
        )
    if (route.defaults, route.strict_slashes) != (others[0].defaults, others[0].strict_slashes):
        raise ValueError(
            f"rule {rule!r} has other defaults or strict_slashes for the endpoint "
            f"{others[0].endpoint!r}"
        )


def _parse_host(host: str) -> str:
    """Check a host of a route, and give it with its fixed parts in lower case.

    Raises:
        TypeError: it is no str.
        ValueError: it has a port, which no host has here, or a character that is not ASCII.
    """
    if not isinstance(host, str):
        raise TypeError(f"host must be a str, not {type(host).__name__}")
    fixed = "".join(_FIXED_PART.findall(host))
    if not host or not fixed.isascii():
        raise ValueError(f"host {host!r} is not a name in ASCII; IDNA has one for every name")
    if _PORT.search(fixed) is not None:
        raise ValueError(f"host {host!r} has a port; ports are not compared")
    return _FIXED_PART.sub(lambda part: part[0].lower(), host)
