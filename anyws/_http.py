"""The values of HTTP: Headers, Request and Response.

Owns what a field, a request and a response are, and that no value can break out of its line; knows
no WebSocket and parses nothing. RFC 9110 sections 5 and 15.
"""

import http
import re
from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, overload

_T = TypeVar("_T")

HeadersLike = Mapping[str, str] | Iterable[tuple[str, str]]
"""What Headers are made of: a mapping, or pairs of name and value."""

HIDDEN_FIELDS = frozenset({"authorization", "cookie", "proxy-authorization", "set-cookie"})
"""The fields whose values are secrets: a repr ends up in logs, so it leaves them out."""

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
"""The pattern of a token (RFC 9110 section 5.6.2)."""

_TOKEN = re.compile(TOKEN)

# RFC 9110 section 5.5: "field values containing CR, LF, or NUL characters are invalid and
# dangerous"; the other control characters but the tab are merely invalid. What is behind Latin-1
# has no place in a head.
_FLAW = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


def is_token(text: str) -> bool:
    """Say whether `text` is a token (RFC 9110 section 5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def describe_flaw(text: str) -> str | None:
    """Say what keeps `text` from standing in a line of an HTTP head; None if nothing does."""
    flaw = _FLAW.search(text)
    if flaw is None:
        return None
    character = flaw[0]
    if character > "\xff":
        return f"has {character!r}, which is not in Latin-1"
    if character in "\r\n":
        return "has a line break"
    return "has a NUL" if character == "\0" else f"has a control character, {character!r}"


class Headers(MutableMapping[str, str]):
    """The fields of an HTTP head: a mapping that ignores case and can hold a name several times.

    Names keep their spelling and fields their order. White space around a value is no part of it
    and is dropped (RFC 9110 section 5.5).

    Args:
        fields: a mapping, or pairs of name and value; a name may come several times.

    Raises:
        ValueError: a name is no token, or a value has a character that no field may have.
        TypeError: a name or a value is no str.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: HeadersLike | None = None) -> None:
        # The name in lower case, the name as written, the value.
        self._fields: list[tuple[str, str, str]] = []
        if fields is None:
            return
        if isinstance(fields, str | bytes):
            kind = type(fields).__name__
            raise TypeError(f"headers must be a mapping or an iterable of pairs, not {kind}")
        if isinstance(fields, Mapping):
            fields = fields.items()
        try:
            pairs = iter(fields)
        except TypeError:
            kind = type(fields).__name__
            raise TypeError(
                f"headers must be a mapping or an iterable of pairs, not {kind}"
            ) from None
        for pair in pairs:
            try:
                name, value = pair
            except (TypeError, ValueError):
                kind = type(pair).__name__
                raise TypeError(f"headers must have pairs of name and value, not {kind}") from None
            self.add(name, value)

    @classmethod
    def of_parsed(cls, fields: Iterable[tuple[bytes, bytes]]) -> "Headers":
        """Make Headers of fields that a parser has found whole: they are not checked again.

        Args:
            fields: pairs of a name in ASCII, and a value that is read as Latin-1.
        """
        headers = cls()
        headers._fields = [
            (*(_USUAL_RAW_NAMES.get(name) or _both_names(name)), value.decode("latin-1"))
            for name, value in fields
        ]
        return headers

    def __getitem__(self, name: str) -> str:
        """Give the value of a field; of several with one name, the values joined with ", ".

        That is what they mean (RFC 9110 section 5.3); Set-Cookie is the exception, for which there
        is `get_all`.

        Raises:
            KeyError: there is no such field.
        """
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __setitem__(self, name: str, value: str) -> None:
        """Put one field in the place of all that have its name.

        Raises:
            ValueError: as for the constructor; nothing is changed.
            TypeError: likewise.
        """
        new = _checked(name, value)
        place = next(
            (i for i, (key, _, _) in enumerate(self._fields) if key == new[0]), len(self._fields)
        )
        self._fields[place:] = [new, *(it for it in self._fields[place:] if it[0] != new[0])]

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str) -> str: ...
    @overload
    def get(self, name: str, /, default: _T) -> str | _T: ...
    def get(self, name: str, /, default: object = None) -> object:
        """Give the value of a field as `headers[name]` does, or `default` if there is none."""
        values = self.get_all(name)  # no KeyError on the way: most handshakes ask for five in vain
        return ", ".join(values) if values else default

    def __delitem__(self, name: str) -> None:
        """Remove all fields of a name.

        Raises:
            KeyError: there is none.
        """
        wanted = name.lower()
        kept = [it for it in self._fields if it[0] != wanted]
        if len(kept) == len(self._fields):
            raise KeyError(name)
        self._fields = kept

    def __iter__(self) -> Iterator[str]:
        """Give each name once, as it was first written."""
        seen = set()
        for key, name, _ in self._fields:
            if key not in seen:
                seen.add(key)
                yield name

    def __len__(self) -> int:
        """Give the number of different names."""
        return len({key for key, _, _ in self._fields})

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        wanted = name.lower()
        for key, _, _ in self._fields:  # noqa: SIM110  # any() takes twice as long
            if key == wanted:
                return True
        return False

    def __eq__(self, other: object) -> bool:
        """Compare names without regard to case and order, the values of one name with regard."""
        if not isinstance(other, Headers):
            return NotImplemented
        return self._by_name() == other._by_name()

    __hash__ = None  # type: ignore[assignment]  # mutable; typeshed's Mapping does not say None

    def __repr__(self) -> str:
        shown = [
            (name, "<hidden>" if key in HIDDEN_FIELDS else value)
            for key, name, value in self._fields
        ]
        return f"Headers({shown!r})"

    def get_all(self, name: str) -> list[str]:
        """Give the values of all fields of a name, in order; an empty list if there are none."""
        wanted = name.lower()
        return [value for key, _, value in self._fields if key == wanted]

    def items(self) -> ItemsView[str, str]:
        """Give all fields as pairs of name and value, as written, repeated names too."""
        return _FieldsView(self, [(name, value) for _, name, value in self._fields])

    def add(self, name: str, value: str) -> None:
        """Add a field, beside those that have the same name.

        Raises:
            ValueError: as for the constructor; nothing is changed.
            TypeError: likewise.
        """
        self._fields.append(_checked(name, value))

    def copy(self) -> "Headers":
        """Give a copy that can be changed without changing this one."""
        copy = Headers()
        copy._fields = self._fields.copy()
        return copy

    def _by_name(self) -> dict[str, list[str]]:
        values: dict[str, list[str]] = {}
        for key, _, value in self._fields:
            values.setdefault(key, []).append(value)
        return values


class _FieldsView(ItemsView[str, str]):
    """The pairs of Headers as they are now; unlike those of a dict, a name may come twice."""

    __slots__ = ("_pairs",)

    def __init__(self, headers: Headers, pairs: list[tuple[str, str]]) -> None:
        super().__init__(headers)
        self._pairs = pairs

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __contains__(self, pair: object) -> bool:
        return pair in self._pairs


# The fields that come with most handshakes: they are no news, and one text of each is enough.
_USUAL_NAMES = {
    name: name.lower()
    for name in (
        *("Accept-Encoding", "Accept-Language", "Cache-Control", "Connection", "Cookie", "Date"),
        *("Host", "Origin", "Pragma", "Sec-WebSocket-Accept", "Sec-WebSocket-Extensions"),
        *("Sec-WebSocket-Key", "Sec-WebSocket-Protocol", "Sec-WebSocket-Version", "Server"),
        *("Upgrade", "User-Agent"),
    )
}
_USUAL_RAW_NAMES = {name.encode(): (key, name) for name, key in _USUAL_NAMES.items()}


def _both_names(raw: bytes) -> tuple[str, str]:
    name = raw.decode("ascii")
    return name.lower(), name


def _checked(name: str, value: str) -> tuple[str, str, str]:
    """Check a field and give it as Headers keep it."""
    key = _USUAL_NAMES.get(name)
    if key is None:
        key = _checked_name(name)
    if not isinstance(value, str):
        raise TypeError(f"value of header {name!r} must be a str, not {type(value).__name__}")
    flaw = describe_flaw(value)
    if flaw is not None:
        raise ValueError(f"value of header {name!r} {flaw}")
    return key, name, value.strip(" \t")


def _checked_name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"header name must be a str, not {type(name).__name__}")
    if not is_token(name):
        raise ValueError(f"header name {name!r} {describe_flaw(name) or 'is not a token'}")
    return name.lower()


@dataclass(frozen=True, slots=True, repr=False)
class Response:
    """An HTTP response.

    Args:
        status: the status code, three digits.
        reason: the reason phrase; may be empty.
        headers: the fields; they may still be changed.
        body: the content, as it is sent.

    Raises:
        ValueError: the status or the reason cannot stand in a status line.
        TypeError: the status is no int, or the reason no str.
    """

    status: int
    reason: str
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""

    def __post_init__(self) -> None:
        if isinstance(self.status, bool) or not isinstance(self.status, int):
            raise TypeError(f"status must be an int, not {type(self.status).__name__}")
        if not isinstance(self.reason, str):
            raise TypeError(f"reason phrase must be a str, not {type(self.reason).__name__}")
        if not 100 <= self.status <= 999:
            raise ValueError(f"status {self.status} does not have three digits")
        flaw = describe_flaw(self.reason)
        if flaw is not None:
            raise ValueError(f"reason phrase {flaw}")

    @property
    def status_code(self) -> int:
        """The status, by the name that users of `websockets` know."""
        return self.status

    @property
    def reason_phrase(self) -> str:
        """The reason, likewise."""
        return self.reason

    def __repr__(self) -> str:
        return (
            f"Response(status={self.status}, reason={self.reason!r}, headers={self.headers!r}, "
            f"body=<{len(self.body)} bytes>)"
        )


def text_response(status: int, text: str = "", headers: HeadersLike | None = None) -> Response:
    """Make a response that carries plain text.

    Args:
        status: the status code, 200 to 599.
        text: the body.
        headers: more fields; a Content-Type among them replaces "text/plain; charset=utf-8".

    Raises:
        ValueError: the status is none of a final response, or a field cannot be sent.
        TypeError: a name or a value of a field is no str.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {type(text).__name__}")
    if isinstance(status, int) and not isinstance(status, bool) and not 200 <= status <= 599:
        raise ValueError(f"status {status} is not in 200..599")
    try:
        reason = http.HTTPStatus(status).phrase
    except ValueError:
        reason = ""
    body = text.encode()
    fields = Headers(headers)
    fields.setdefault("Content-Type", "text/plain; charset=utf-8")
    fields["Content-Length"] = str(len(body))
    return Response(status, reason, fields, body)


class _Received:
    """What came over something: that is no field, for it can be neither copied nor stored."""

    __slots__ = ("_stream",)

    def _come_over(self, stream: Any) -> None:
        """Take what it came over, for `extra()`; servers do it."""
        self._stream = stream


@dataclass(slots=True)
class Request(_Received):
    """An HTTP request that opens a connection, or that was sent to open one.

    Args:
        method: the method, such as "GET".
        path: path and query, as they are sent. Of a target that is a whole URI, as proxies send it,
            they are what follows its host, which stands in the Host field of `headers`.
        headers: the fields.
        data: for the application's own use; the connection's `data` is the same dict.
        subprotocols: what the client offers, in its order of preference.
        origin: the Origin field, if there is one.
        local_address: where the request was received; set by the server.
        remote_address: whence it came; set by the server.
        required_subprotocols: where a server's `process_request` sets it, the connection gets one
            of these, in this order of preference, or is refused; what `serve` was told of
            subprotocols does not count then.
    """

    method: str
    path: str
    headers: Headers
    data: dict[str, Any] = field(default_factory=dict, repr=False)
    subprotocols: Sequence[str] = ()
    origin: str | None = None
    local_address: Any = None
    remote_address: Any = None
    required_subprotocols: Sequence[str] = field(default=(), repr=False)

    def __getstate__(self) -> list[Any]:
        return [getattr(self, it.name) for it in fields(self)]

    def __setstate__(self, state: list[Any]) -> None:
        for it, value in zip(fields(self), state, strict=True):
            setattr(self, it.name, value)

    def extra(self, attribute: Any, *default: Any) -> Any:
        """Give a typed attribute of what the request came over, as `Connection.extra` does.

        So `process_request` knows the client's certificate, among others:
        `request.extra(TLSAttribute.peer_certificate, None)`.

        Args:
            attribute: one of anyio's TLSAttribute, SocketAttribute and their like.
            default: what to give where there is none such.

        Raises:
            LookupError: there is none such, and no default.
        """
        stream = getattr(self, "_stream", None)
        if stream is not None:
            return stream.extra(attribute, *default)
        if default:
            return default[0]
        raise LookupError("the request came over nothing that has attributes")

    def respond(self, status: int, text: str = "", headers: HeadersLike | None = None) -> Response:
        """Make a response that carries plain text, to refuse the handshake with.

        Args:
            status: the status code, 200 to 599.
            text: the body.
            headers: more fields; a Content-Type among them replaces "text/plain; charset=utf-8".

        Returns:
            A response with the right Content-Length.

        Raises:
            ValueError: the status is none of a final response, or a field cannot be sent.
            TypeError: a name or a value of a field is no str.
        """
        return text_response(status, text, headers)
