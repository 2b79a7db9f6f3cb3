"""Who may connect, by name and password: a hook for `process_request`.

Owns the challenge and the comparison of credentials; knows no connection. RFC 7617, RFC 9110
section 11.
"""

import hmac
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable

from ._checks import check_callable
from ._http import Request, Response, describe_flaw
from .sansio._headers import build_basic_authorization, parse_basic_authorization

__all__ = ["basic_auth"]

# RFC 9110 section 5.6.4: what a quoted-string must escape.
_QUOTED = re.compile(r'(["\\])')


def basic_auth(
    *,
    realm: str = "",
    credentials: tuple[str, str] | Iterable[tuple[str, str]] | None = None,
    check_credentials: Callable[[str, str], Awaitable[bool] | bool] | None = None,
) -> Callable[[Request], Awaitable[Response | None]]:
    """Make a `process_request` that asks for a name and a password (RFC 7617).

    A request without the right ones gets HTTP 401. With them, the name is in `ws.data["username"]`.
    They travel in clear text: serve with TLS, or behind a proxy that does.

    Args:
        realm: what the name and the password are for; browsers may show it.
        credentials: a pair (name, password), or several; all of them are compared each time, in
            constant time.
        check_credentials: called with a name and a password instead, plain or async; says whether
            they are right.

    Returns:
        An async function for `serve(..., process_request=...)` or `Router(process_request=...)`.

    Raises:
        TypeError: not exactly one of credentials and check_credentials is given, or a wrong type.
        ValueError: the realm cannot stand in a field, or no client can send such credentials.
    """
    if (credentials is None) == (check_credentials is None):
        raise TypeError("basic_auth() takes either credentials or check_credentials")
    challenge = {"WWW-Authenticate": _build_challenge(realm)}
    if credentials is not None:
        check: Callable[[str, str], Awaitable[bool] | bool] = _Comparison(credentials)
    else:
        check_callable("check_credentials", check_credentials)
        assert check_credentials is not None
        check = check_credentials

    async def process_request(request: Request) -> Response | None:
        """Let a request pass, or answer it with 401.

        Cancellation: check_credentials is cancelled, and the request has not passed.
        """
        authorization = request.headers.get("Authorization")
        if authorization is None:
            return request.respond(401, "a name and a password are needed\n", challenge)
        try:
            name, password = parse_basic_authorization(authorization)
        except ValueError as exc:
            return request.respond(401, f"malformed Authorization header: {exc}\n", challenge)
        allowed = check(name, password)
        if inspect.isawaitable(allowed):
            allowed = await allowed
        if not allowed:
            return request.respond(401, "wrong name or password\n", challenge)
        request.data["username"] = name
        return None

    return process_request


def _build_challenge(realm: str) -> str:
    """Build a WWW-Authenticate field (RFC 7617 sections 2 and 2.1).

    Raises:
        TypeError: the realm is no str.
        ValueError: it has a character that no field may have.
    """
    if not isinstance(realm, str):
        raise TypeError(f"realm must be a str, not {type(realm).__name__}")
    flaw = describe_flaw(realm)
    if flaw is not None:
        raise ValueError(f"realm {realm!r} {flaw}")
    quoted = _QUOTED.sub(r"\\\1", realm)
    return f'Basic realm="{quoted}", charset="UTF-8"'


class _Comparison:
    """Compares with known credentials; how long it takes tells nothing about which were close.

    Args:
        credentials: a pair of name and password, or several.

    Raises:
        TypeError: they are something else.
        ValueError: no client can send them.
    """

    def __init__(self, credentials: tuple[str, str] | Iterable[tuple[str, str]]) -> None:
        if isinstance(credentials, str | bytes):
            raise _wrong_credentials(credentials)
        try:
            pairs = list(credentials)
        except TypeError:
            raise _wrong_credentials(credentials) from None
        if isinstance(credentials, tuple) and any(isinstance(it, str) for it in pairs):
            pairs = [credentials]
        self._pairs = [_encode_pair(pair) for pair in pairs]

    def __call__(self, name: str, password: str) -> bool:
        given_name, given_password = name.encode(), password.encode()
        found = False
        for known_name, known_password in self._pairs:
            # No `and`, and no way out of the loop: each comparison is made.
            same_name = hmac.compare_digest(known_name, given_name)
            same_password = hmac.compare_digest(known_password, given_password)
            found |= same_name & same_password
        return found


def _encode_pair(pair: object) -> tuple[bytes, bytes]:
    if not isinstance(pair, tuple | list):
        raise _wrong_credentials(pair)
    if len(pair) != 2:
        raise TypeError(f"credentials of {len(pair)} values are not a pair (name, password)")
    for value in pair:
        if not isinstance(value, str):
            raise _wrong_credentials(value)
    name, password = pair
    build_basic_authorization(name, password)  # raises what keeps them from being sent
    return name.encode(), password.encode()


def _wrong_credentials(value: object) -> TypeError:
    # The value itself may be a secret.
    return TypeError(
        "credentials must be a pair (name, password) of str, or an iterable of such pairs, "
        f"not {type(value).__name__}"
    )
