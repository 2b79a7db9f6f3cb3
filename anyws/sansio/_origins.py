"""Which web origins a server allows to connect.

Owns the policy and what an origin is; knows nothing of the rest of the handshake. RFC 6455 section
10.2, RFC 6454.
"""

import enum
import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from .._http import Headers
from ..exceptions import InvalidOrigin
from ._handshake import single_value


class SameHost(enum.Enum):
    """The default of `origins`: pages of the host that the request names, and what is no page."""

    SAME_HOST = "same host"


SAME_HOST: Final = SameHost.SAME_HOST
"""The policy that allows an Origin with the host of the Host field, and requests without Origin.

Ports are not compared: cookies do not tell them apart either.
"""

OriginPolicy = Literal[SameHost.SAME_HOST, "*"] | Sequence[str | re.Pattern[str] | None]
"""Which origins a server allows: SAME_HOST, "*" for any, or a sequence.

In a sequence a str is an origin, a pattern matches all of one, and None stands for no Origin field.
"""

# RFC 3986 section 3.2: host [ ":" port ]. The group is the host.
_AUTHORITY = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]*)(?::[0-9]*)?"
_HOST = re.compile(_AUTHORITY)
_ORIGIN = re.compile(rf"[A-Za-z][A-Za-z0-9+.\-]*://{_AUTHORITY}")


_DEFAULT_PORTS = {"http": ":80", "https": ":443", "ws": ":80", "wss": ":443"}

ABSOLUTE_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://([^/?]*)")
"""The beginning of a target in absolute-form (RFC 9112 section 3.2.2). The group is what counts
instead of the Host field."""


def is_host(text: str) -> bool:
    """Say whether `text` can be a Host field (RFC 9110 section 7.2)."""
    return _HOST.fullmatch(text) is not None


def is_origin(text: str) -> bool:
    """Say whether `text` can be an Origin field (RFC 6454 section 7.1) that a policy can name."""
    return text == "null" or _ORIGIN.fullmatch(text) is not None


class AllowedOrigins:
    """A policy that has been checked, and that checks requests.

    Args:
        policy: which origins are allowed.

    Raises:
        TypeError: the policy is a str but "*", or has something else in it.
        ValueError: a str in it is not an origin, and so could never match.
    """

    def __init__(self, policy: OriginPolicy) -> None:
        self._same_host = policy is SAME_HOST
        self._any = policy == "*"
        self._names: set[str] = set()
        self._patterns: list[re.Pattern[str]] = []
        self._missing = self._same_host or self._any
        if isinstance(policy, SameHost) or self._any:
            return
        if isinstance(policy, str | bytes):
            raise TypeError(f'origins must be a list such as [{policy!r}], SAME_HOST or "*"')
        if not isinstance(policy, Iterable):
            kind = type(policy).__name__
            raise TypeError(f'origins must be a list, SAME_HOST or "*" for any origin, not {kind}')
        for entry in policy:
            self._add(entry)

    def _add(self, entry: str | re.Pattern[str] | None) -> None:
        if entry is None:
            self._missing = True
        elif isinstance(entry, re.Pattern):
            if not isinstance(entry.pattern, str):
                raise TypeError(f"pattern {entry.pattern!r} of origins must be of str")
            self._patterns.append(entry)
        elif not isinstance(entry, str):
            kind = type(entry).__name__
            raise TypeError(f"entry of origins must be a str, a re.Pattern or None, not {kind}")
        elif not is_origin(entry):
            raise ValueError(
                f"{entry!r} in origins is not an origin such as 'https://example.com': "
                "scheme, host, and the port if it is not the default one"
            )
        else:
            self._names.add(_without_default_port(entry))

    def check(self, headers: Headers) -> None:
        """Check the Origin field of a request.

        Raises:
            InvalidOrigin: it is not allowed.
            InvalidHeader: there are several.
        """
        origin = single_value(headers, "Origin")
        if origin is None:
            if not self._missing:
                raise InvalidOrigin(None)
        elif not self._allows(origin, headers["Host"]):
            raise InvalidOrigin(origin, "it is not allowed")

    def _allows(self, origin: str, host: str) -> bool:
        if self._any:
            return True
        if self._same_host:
            return _is_same_host(origin, host)
        return _without_default_port(origin) in self._names or any(
            pattern.fullmatch(origin) for pattern in self._patterns
        )


def _without_default_port(origin: str) -> str:
    """Give an origin as browsers write it (RFC 6454 section 6.2), in lower case."""
    origin = origin.lower()
    default = _DEFAULT_PORTS.get(origin.partition(":")[0])
    return origin if default is None else origin.removesuffix(default)


def _is_same_host(origin: str, host: str) -> bool:
    theirs, ours = _ORIGIN.fullmatch(origin), _HOST.fullmatch(host)
    if theirs is None or ours is None:
        return False
    # An empty host names nothing, so it equals nothing: "file://" is not at home anywhere.
    return theirs[1] != "" and theirs[1].lower() == ours[1].lower()
