"""Parse and build the fields of the opening handshake, and the accept key.

Owns the text of single fields; knows no request, no response and no negotiation. RFC 6455 sections
4.1, 4.2.2, 9.1 and 11.3, RFC 9110 section 5.6, RFC 7617.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING

from .._http import TOKEN, describe_flaw, is_token
from ..exceptions import InvalidHeader, InvalidUpgrade

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._extensions import Parameter

ACCEPT_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What is appended to the key before it is hashed (RFC 6455 section 4.2.2)."""

KEY_SIZE = 16
"""Bytes of the nonce in Sec-WebSocket-Key (RFC 6455 section 4.1)."""

_TOKEN = re.compile(TOKEN)

# RFC 7617 section 2, which calls CTL what is a control character of US-ASCII; those of Unicode too.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# RFC 9110 section 7.8: protocol = protocol-name [ "/" protocol-version ]
_UPGRADE_PROTOCOL = re.compile(rf"{TOKEN}(?:/{TOKEN})?")

# The parts of RFC 6455 section 9.1. What follows each repetition is not in its set of characters,
# so nothing is tried twice and the time is linear.
_EXTENSION_NAME = re.compile(rf"[ \t]*({TOKEN})")
_EXTENSION_PARAMETER = re.compile(
    rf'[ \t]*;[ \t]*({TOKEN})(?:[ \t]*=[ \t]*(?:({TOKEN})|"((?:[^"\\]|\\.)*)"))?'
)
_EXTENSION_END = re.compile(r"[ \t]*(?:,[ \t,]*|\Z)")
_EMPTY_ELEMENTS = re.compile(r"[ \t,]*")
_QUOTED_PAIR = re.compile(r"\\(.)")


def parse_token_list(value: str, name: str) -> list[str]:
    """Parse a field that lists tokens (RFC 9110 section 5.6.1).

    Args:
        value: the value of the field.
        name: the name of the field, for the error.

    Returns:
        At least one token. Empty elements are skipped.

    Raises:
        InvalidHeader: an element is not a token, or there is none.
    """
    return _parse_list(value, name, _TOKEN, "a token", InvalidHeader)


def parse_connection(value: str) -> list[str]:
    """Parse a Connection field into its options (RFC 9110 section 7.6.1).

    Raises:
        InvalidUpgrade: an option is not a token, or there is none.
    """
    return _parse_list(value, "Connection", _TOKEN, "a token", InvalidUpgrade)


def parse_upgrade(value: str) -> list[str]:
    """Parse an Upgrade field into its protocols (RFC 9110 section 7.8).

    Raises:
        InvalidUpgrade: an element is not a name with or without a version, or there is none.
    """
    return _parse_list(value, "Upgrade", _UPGRADE_PROTOCOL, "a protocol", InvalidUpgrade)


def _parse_list(
    value: str, name: str, pattern: re.Pattern[str], noun: str, error: type[InvalidHeader]
) -> list[str]:
    # RFC 9110 section 5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty
    # list elements".
    elements = [element for part in value.split(",") if (element := part.strip(" \t"))]
    for element in elements:
        if pattern.fullmatch(element) is None:
            raise error(name, value, f"{element!r} is not {noun}")
    if not elements:
        raise error(name, value, "it is empty")
    return elements


def parse_subprotocols(value: str) -> list[str]:
    """Parse a Sec-WebSocket-Protocol field (RFC 6455 section 11.3.4).

    Raises:
        InvalidHeader: a subprotocol is not a token, or there is none.
    """
    return parse_token_list(value, "Sec-WebSocket-Protocol")


def build_subprotocols(subprotocols: Sequence[str]) -> str:
    """Build a Sec-WebSocket-Protocol field (RFC 6455 section 11.3.4).

    Raises:
        TypeError: `subprotocols` is one str, or has something else in it.
        ValueError: a subprotocol is not a token, or comes twice.
    """
    return ", ".join(check_subprotocols(subprotocols))


def check_subprotocols(subprotocols: Sequence[str]) -> tuple[str, ...]:
    """Check subprotocols that a user gives, and give them as a tuple.

    Raises:
        TypeError: `subprotocols` is one str, or has something else in it.
        ValueError: a subprotocol is not a token, or comes twice.
    """
    if isinstance(subprotocols, str | bytes):
        kind = type(subprotocols).__name__
        raise TypeError(f"subprotocols must be a sequence of str such as a list, not a {kind}")
    checked: list[str] = []
    for subprotocol in subprotocols:
        if not isinstance(subprotocol, str):
            raise TypeError(f"subprotocol must be a str, not {type(subprotocol).__name__}")
        if not is_token(subprotocol):
            flaw = describe_flaw(subprotocol) or "is not a token"
            raise ValueError(f"subprotocol {subprotocol!r} {flaw}")
        # RFC 6455 section 4.1: "the elements that comprise this value MUST be non-empty strings
        # [...] and MUST all be unique strings".
        if subprotocol in checked:
            raise ValueError(f"subprotocol {subprotocol!r} is given more than once")
        checked.append(subprotocol)
    return tuple(checked)


def parse_extensions(value: str) -> list[tuple[str, list[Parameter]]]:
    """Parse a Sec-WebSocket-Extensions field (RFC 6455 section 9.1).

    Returns:
        The name and the parameters of each extension, in order; quoted values are unquoted.

    Raises:
        InvalidHeader: the field does not follow the grammar, or lists nothing.
    """
    extensions: list[tuple[str, list[Parameter]]] = []
    position = _end_of(_EMPTY_ELEMENTS, value, 0)
    while position < len(value):
        match = _EXTENSION_NAME.match(value, position)
        if match is None:
            raise _bad_extensions(value, f"no extension name at character {position}")
        name = match[1]
        parameters: list[Parameter] = []
        position = match.end()
        while (match := _EXTENSION_PARAMETER.match(value, position)) is not None:
            parameters.append((match[1], _parameter_value(value, match)))
            position = match.end()
        end = _EXTENSION_END.match(value, position)
        if end is None:
            raise _bad_extensions(value, f"unexpected text at character {position}")
        position = end.end()
        extensions.append((name, parameters))
    if not extensions:
        raise _bad_extensions(value, "it is empty")
    return extensions


def _end_of(pattern: re.Pattern[str], value: str, position: int) -> int:
    """Give where a match of a pattern that can be empty ends."""
    match = pattern.match(value, position)
    return position if match is None else match.end()


def _parameter_value(field_value: str, match: re.Match[str]) -> str | None:
    if match[3] is None:
        return match[2]
    unquoted = _QUOTED_PAIR.sub(r"\1", match[3])
    # RFC 6455 section 9.1: "When using the quoted-string syntax variant, the value after
    # quoted-string unescaping MUST conform to the 'token' ABNF."
    if not is_token(unquoted):
        raise _bad_extensions(field_value, f"value of parameter {match[1]!r} is not a token")
    return unquoted


def _bad_extensions(value: str, problem: str) -> InvalidHeader:
    return InvalidHeader("Sec-WebSocket-Extensions", value, problem)


def build_extensions(extensions: Iterable[tuple[str, Iterable[Parameter]]]) -> str:
    """Build a Sec-WebSocket-Extensions field (RFC 6455 section 9.1).

    Args:
        extensions: the name and the parameters of each extension.

    Raises:
        ValueError: a name or a value is not a token.
    """
    return ", ".join(
        "; ".join([_extension_token(name), *(_build_parameter(*it) for it in parameters)])
        for name, parameters in extensions
    )


def _build_parameter(name: str, value: str | None) -> str:
    text = _extension_token(name)
    return text if value is None else f"{text}={_extension_token(value)}"


def _extension_token(text: str) -> str:
    if not is_token(text):
        flaw = describe_flaw(text) or "is not a token"
        raise ValueError(f"name or parameter of an extension, {text!r}, {flaw}")
    return text


def build_key(nonce: bytes) -> str:
    """Build a Sec-WebSocket-Key field (RFC 6455 section 4.1).

    Raises:
        TypeError: the nonce is not bytes.
        ValueError: it does not have 16 bytes.
    """
    if not isinstance(nonce, bytes):
        raise TypeError(f"key must be bytes, not {type(nonce).__name__}")
    if len(nonce) != KEY_SIZE:
        raise ValueError(f"key of {len(nonce)} bytes does not have {KEY_SIZE} bytes")
    return base64.b64encode(nonce).decode()


def is_valid_key(key: str) -> bool:
    """Say whether a Sec-WebSocket-Key is 16 bytes in base64 (RFC 6455 section 4.2.1)."""
    try:
        return len(base64.b64decode(key.encode(), validate=True)) == KEY_SIZE
    except binascii.Error:
        return False


def accept_key(key: str) -> str:
    """Compute the Sec-WebSocket-Accept that answers a key (RFC 6455 section 4.2.2)."""
    digest = hashlib.sha1((key + ACCEPT_GUID).encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def build_basic_authorization(user: str, password: str) -> str:
    """Build an Authorization field for Basic authentication, in UTF-8 (RFC 7617).

    Raises:
        ValueError: the user has a colon, or either has a control character.
    """
    # RFC 7617 section 2: "a user-id containing a colon character is invalid", and "The user-id and
    # password MUST NOT contain any control characters". Neither is shown: they are secrets.
    if ":" in user:
        raise ValueError("user for Basic authentication has a colon")
    if _CONTROL.search(user + password) is not None:
        raise ValueError("user or password for Basic authentication has a control character")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def parse_basic_authorization(value: str) -> tuple[str, str]:
    """Parse an Authorization field for Basic authentication, in UTF-8 (RFC 7617).

    Returns:
        The user and the password.

    Raises:
        ValueError: it is of another scheme or malformed; the error quotes nothing of it.
    """
    # RFC 9110 section 11.4: auth-scheme [ 1*SP ( token68 / ... ) ], the scheme without case.
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() != "basic":
        raise ValueError("the scheme is not Basic")
    # Not chained: these errors quote what is wrong with a secret.
    try:
        decoded = base64.b64decode(encoded.strip(" "), validate=True)
    except ValueError:
        raise ValueError("the credentials are not in base64") from None
    try:
        text = decoded.decode()
    except UnicodeDecodeError:
        raise ValueError("the credentials are not in UTF-8") from None
    # RFC 7617 section 2: the first colon ends the user; the password may have more of them.
    user, colon, password = text.partition(":")
    if not colon:
        raise ValueError("the credentials have no colon")
    if _CONTROL.search(text) is not None:
        raise ValueError("the credentials have a control character")
    return user, password


def build_authority(host: str, port: int) -> str:
    """Build the target of a CONNECT request: host and port (RFC 9112 section 3.2.3).

    Args:
        host: a name or an address; an IPv6 address without brackets.
        port: the port, which is never left out.
    """
    return f"{_bracket(host)}:{port}"


def build_host(host: str, port: int, secure: bool) -> str:
    """Build a Host field (RFC 9110 section 7.2).

    Args:
        host: a name or an address; an IPv6 address without brackets.
        port: the port; the default one is left out.
        secure: whether the default port is 443 instead of 80 (RFC 6455 section 3).
    """
    return _bracket(host) if port == (443 if secure else 80) else build_authority(host, port)


def _bracket(host: str) -> str:
    """Put an IPv6 address into brackets."""
    # RFC 6874 section 4: a zone identifier means something on this machine only, and must not be
    # sent.
    return f"[{host.partition('%')[0]}]" if ":" in host else host
