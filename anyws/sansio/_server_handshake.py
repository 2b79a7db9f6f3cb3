"""The server's side of the opening handshake: bytes in, a Request out, a Response back.

Owns whether a request opens a connection, and what the answer says; knows no stream, no clock and
no frame. RFC 6455 sections 4.2 and 10.2.
"""

from collections.abc import Callable, Sequence

import h11

from .._http import Headers, HeadersLike, Request, Response, describe_flaw, text_response
from ..exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidOrigin,
    InvalidUpgrade,
    NegotiationError,
)
from ._extensions import Extension, ServerExtension
from ._handshake import (
    PRODUCT,
    REQUEST_LINE,
    HeadReader,
    check_connection,
    next_event,
    single_value,
)
from ._headers import (
    accept_key,
    build_extensions,
    check_subprotocols,
    is_valid_key,
    parse_extensions,
    parse_subprotocols,
    parse_upgrade,
)
from ._origins import ABSOLUTE_FORM, SAME_HOST, AllowedOrigins, OriginPolicy, is_host, is_origin

SubprotocolSelector = Callable[[Request, Sequence[str]], str | None]
"""Chooses one of the subprotocols that a client offers, or None."""

_UPGRADE_HEADERS = Headers({"Upgrade": "websocket", "Connection": "Upgrade"})


class _Refused(Exception):
    """A handshake error with the response that tells the client."""

    def __init__(
        self,
        error: InvalidHandshake,
        status: int,
        *,
        hint: str = "",
        headers: HeadersLike | None = None,
    ) -> None:
        super().__init__(error)
        self.error = error
        self.response = _error_response(status, f"{error}; {hint}" if hint else str(error), headers)


def _error_response(status: int, text: str, headers: HeadersLike | None = None) -> Response:
    response = text_response(status, f"{text}\n", headers)
    _close(response.headers)
    return response


def _close(headers: Headers) -> None:
    """Make the Connection field say that the connection ends with this response."""
    options = [option.strip(" \t") for option in headers.get("Connection", "").split(",")]
    kept = [option for option in options if option.lower() not in {"", "close", "keep-alive"}]
    headers["Connection"] = ", ".join([*kept, "close"])


class ServerHandshake:
    """The opening handshake of a server.

    Pass what comes to `receive_data` until that gives the request; let `accept` answer it, or
    `refuse` where there is none; send what `send_response` makes of the answer.

    Args:
        origins: which origins are allowed.
        subprotocols: what the server speaks, in order of preference; its order wins.
        select_subprotocol: chooses the subprotocol instead; called for every valid request, also
            one that offers none; it may raise NegotiationError to refuse with 400.
        extensions: what the server accepts.
        server_header: the Server field; None leaves it out.

    Raises:
        ValueError: an argument has something that cannot be sent, or an origin is none.
        TypeError: an argument has the wrong type.
    """

    def __init__(
        self,
        *,
        origins: OriginPolicy = SAME_HOST,
        subprotocols: Sequence[str] | None = None,
        select_subprotocol: SubprotocolSelector | None = None,
        extensions: Sequence[ServerExtension] = (),
        server_header: str | None = PRODUCT,
    ) -> None:
        self._origins = AllowedOrigins(origins)
        self._subprotocols = check_subprotocols(subprotocols or ())
        self._select_subprotocol = select_subprotocol
        self._extensions = tuple(extensions)
        fields = Headers({} if server_header is None else {"Server": server_header})
        fields.update(_UPGRADE_HEADERS)
        self._opening_fields = fields
        self._server_header = server_header
        self._begin()

    def _begin(self) -> None:
        self._head = HeadReader("request")
        self.error: InvalidHandshake | None = None
        """Why the request was refused; None if it was not."""
        self.subprotocol: str | None = None
        """The subprotocol that was agreed on, after `accept`."""
        self.extension: Extension | None = None
        """The extension that both sides use, after `accept`."""

    def another(self) -> "ServerHandshake":
        """Give one with the same arguments, which need not be checked again, at its beginning."""
        handshake = object.__new__(type(self))
        vars(handshake).update(vars(self))
        handshake._begin()
        return handshake

    @property
    def started(self) -> bool:
        """Whether a byte has come; a TCP probe sends none."""
        return self._head.started

    @property
    def trailing_data(self) -> bytes:
        """What came after the request: the start of the first frames."""
        return self._head.rest

    def receive_data(self, data: bytes) -> Request | None:
        """Take bytes that the client sent, up to the end of the request.

        Args:
            data: what came; split and joined in any way.

        Returns:
            The request; None if more is needed.

        Raises:
            InvalidMessage: what came is not an HTTP/1.1 request without a body, or exceeds a limit.
        """
        head = self._head.receive(data)
        return None if head is None else _parse_request(head)

    def receive_eof(self) -> None:
        """Take the end of the stream before the end of the request.

        Raises:
            InvalidMessage: the request is incomplete; not raised if nothing came at all.
        """
        if self._head.started:
            raise self._head.eof_error()

    def accept(self, request: Request, *, date: str | None = None) -> Response:
        """Answer a request (RFC 6455 section 4.2).

        Args:
            request: the request.
            date: as for `send_response`, for an answer that opens: so it has all its fields, those
                of the server's own among them.

        Returns:
            A response with the status 101, or one that refuses; then `error` says why.

        Raises:
            ValueError: `select_subprotocol` chose what was not offered, a required subprotocol is
                no token, or the date cannot be sent.
        """
        try:
            return self._accept(request, date)
        except _Refused as refused:
            self.error = refused.error
            return refused.response
        except InvalidHandshake as exc:
            self.error = exc
            return _error_response(400, str(exc))

    def refuse(self, error: InvalidMessage) -> Response:
        """Answer what is no request.

        Args:
            error: what `receive_data` raised.
        """
        self.error = error
        return _error_response(error.status, str(error))

    def send_response(
        self, response: Response, request: Request | None, *, date: str | None = None
    ) -> bytes:
        """Encode a response: one of `accept` or `refuse`, or the application's own.

        Adds Date and Server if they are missing; but for 101, makes Content-Length right and lets
        the connection end.

        Args:
            response: the response; it is not changed.
            request: what it answers; None if no request could be parsed.
            date: the Date field, from `email.utils.formatdate(usegmt=True)`; None leaves it out.

        Raises:
            ValueError: the date cannot be sent.
        """
        # What is no Headers, though it should be, is not checked yet.
        checked = type(response.headers) is Headers
        headers = response.headers.copy() if checked else Headers(response.headers)
        # The framing is ours to tell: an application that is mistaken about it must not make what
        # follows look like another response.
        for name in ("Content-Length", "Transfer-Encoding"):
            if name in headers:
                del headers[name]
        flaw = None if date is None else describe_flaw(date)
        if flaw is not None:
            raise ValueError(f"value of header 'Date' {flaw}")
        added = (("Date", date), ("Server", self._server_header))
        body = b""
        if response.status != 101:
            _close(headers)
            # RFC 9110 section 8.6: no Content-Length with 1xx and 204; sections 9.3.2 and 15.4.5:
            # no body after HEAD and with 304.
            if response.status >= 200 and response.status not in {204, 304}:
                headers["Content-Length"] = str(len(response.body))
                if request is None or request.method != "HEAD":
                    body = response.body
        lines = [f"HTTP/1.1 {response.status} {response.reason}"]
        for name, value in added:
            if value is not None and name not in headers:
                lines.append(f"{name}: {value}")
        lines.extend([f"{name}: {value}" for name, value in headers.items()])
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def _accept(self, request: Request, date: str | None) -> Response:
        headers = request.headers
        _check_method(request.method)
        _check_target(request.path)
        _check_upgrade(headers)
        check_connection(headers)
        _check_version(headers)
        key = _check_key(headers)
        _check_origin(headers, self._origins)
        offered = _parse_offered_subprotocols(headers)
        offers = headers.get("Sec-WebSocket-Extensions")
        extension = None if offers is None else self._choose_extension(offers)
        subprotocol = self._choose_subprotocol(request, offered)
        answer = self._opening_fields.copy()
        if date is not None:
            answer.add("Date", date)
        answer.add("Sec-WebSocket-Accept", accept_key(key))
        if subprotocol is not None:
            answer.add("Sec-WebSocket-Protocol", subprotocol)
        if extension is not None:
            chosen = build_extensions([(extension.name, extension.parameters)])
            answer.add("Sec-WebSocket-Extensions", chosen)
        self.subprotocol = subprotocol
        self.extension = extension
        return Response(101, "Switching Protocols", answer)

    def _choose_subprotocol(self, request: Request, offered: Sequence[str]) -> str | None:
        if request.required_subprotocols:
            return _choose_required(request.required_subprotocols, offered)
        if self._select_subprotocol is None:
            return next((it for it in self._subprotocols if it in offered), None)
        chosen = self._select_subprotocol(request, offered)
        if chosen is not None and chosen not in offered:
            raise ValueError(
                f"select_subprotocol chose {chosen!r}, which is not one of those offered: "
                f"{list(offered)}"
            )
        return chosen

    def _choose_extension(self, offers: str) -> Extension | None:
        """Take the first offer that one of our extensions accepts."""
        for name, parameters in parse_extensions(offers):
            for candidate in self._extensions:
                if candidate.name == name:
                    try:
                        extension = candidate.accept_offer(parameters)
                    except NegotiationError:
                        # RFC 7692 section 5.1 lets a server decline a bad offer and go on.
                        continue
                    if extension is not None:
                        return extension
        return None


def _parse_request(head: bytes) -> Request:
    """Parse the head of a request.

    Raises:
        InvalidMessage: it is not HTTP/1.1, or announces a body.
    """
    # Before h11, which wants a Host first.
    line = REQUEST_LINE.match(head)
    if line is not None and line[1] != b"1.1":
        raise InvalidMessage(f"HTTP version {line[1].decode()} is not supported, only 1.1", 505)
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(head)
    event = next_event(parser, "request")
    assert isinstance(event, h11.Request)
    headers = Headers.of_parsed(event.headers.raw_items())
    if not is_host(headers["Host"]):
        raise InvalidMessage("malformed HTTP request: Host is not a host and a port")
    target = event.target.decode("ascii")
    absolute = ABSOLUTE_FORM.match(target) if target[0] != "/" else None
    if absolute is not None:
        # RFC 9112 section 3.2.2: "the origin server MUST ignore the received Host header field (if
        # any) and instead replace it with the host information of the request-target".
        # RFC 9110 section 4.2.1: a URI "with an empty host identifier" is invalid.
        if not is_host(absolute[1]) or absolute[1].partition(":")[0] == "":
            raise InvalidMessage("malformed HTTP request: target is not of a host and a port")
        headers["Host"] = absolute[1]
        # RFC 6455 section 4.2.1: the target is a resource name, or a URI "containing the /resource
        # name/".
        target = target[absolute.end() :]
        if not target.startswith("/"):
            target = f"/{target}"
    # A body could be taken for frames, or frames for a body.
    if "Transfer-Encoding" in headers:
        raise InvalidMessage("request with a body: it has a Transfer-Encoding field")
    size = int(headers.get("Content-Length", "0"))  # h11 has seen to it that it is one number
    if size:
        raise InvalidMessage(f"request with a body: its Content-Length is {size}")
    request = Request(event.method.decode("ascii"), target, headers)
    try:
        request.subprotocols = _parse_offered_subprotocols(headers)
        request.origin = single_value(headers, "Origin")
    except InvalidHeader:
        pass  # `accept` refuses it, after the application's hook had its say.
    return request


def _check_method(method: str) -> None:
    # RFC 6455 section 4.1: "The method of the request MUST be GET".
    if method != "GET":
        error = InvalidMessage(f"method {method} is not GET", 405)
        raise _Refused(error, 405, headers={"Allow": "GET"})


def _check_target(path: str) -> None:
    # RFC 9112 section 3.2: the other forms go with CONNECT and OPTIONS alone.
    if not path.startswith("/"):
        raise InvalidMessage("malformed HTTP request: target is neither a path nor a URI")


def _check_upgrade(headers: Headers) -> None:
    try:
        _find_websocket(headers)
    except InvalidUpgrade as exc:
        hint = "this is a WebSocket server, use a WebSocket client to connect"
        raise _Refused(exc, 426, hint=hint, headers=_UPGRADE_HEADERS) from None


def _find_websocket(headers: Headers) -> None:
    upgrade = headers.get("Upgrade")
    if upgrade is not None and upgrade.lower() == "websocket":
        return  # alone, as nearly always: 0.3 us, and to parse a list takes 1.2
    if upgrade is None or "websocket" not in map(str.lower, parse_upgrade(upgrade)):
        raise InvalidUpgrade("Upgrade", upgrade)


def _check_version(headers: Headers) -> None:
    version = single_value(headers, "Sec-WebSocket-Version")
    if version is None:
        raise InvalidHeader("Sec-WebSocket-Version")
    if version != "13":
        # RFC 6455 section 4.4: "it MUST respond with a |Sec-WebSocket-Version| header field [...]
        # containing all versions it is willing to use"; RFC 9110 section 15.5.22 wants Upgrade too.
        error = InvalidHeader("Sec-WebSocket-Version", version, "the version here is 13")
        required = _UPGRADE_HEADERS.copy()
        required.add("Sec-WebSocket-Version", "13")
        raise _Refused(error, 426, headers=required)


def _check_key(headers: Headers) -> str:
    key = single_value(headers, "Sec-WebSocket-Key")
    if key is None:
        raise InvalidHeader("Sec-WebSocket-Key")
    if not is_valid_key(key):
        raise InvalidHeader("Sec-WebSocket-Key", key, "it is not 16 bytes in base64")
    return key


def _check_origin(headers: Headers, origins: AllowedOrigins) -> None:
    # RFC 6455 section 4.2.2: "If the server does not wish to accept this connection, it MUST return
    # an appropriate HTTP error code (e.g., 403 Forbidden)".
    try:
        origins.check(headers)
    except InvalidOrigin as exc:
        hint = ""
        if exc.value is None or is_origin(exc.value):
            hint = f"to allow it, add {exc.value!r} to the server's origins argument"
        raise _Refused(exc, 403, hint=hint) from None


def _choose_required(required: Sequence[str], offered: Sequence[str]) -> str:
    for subprotocol in check_subprotocols(required):
        if subprotocol in offered:
            return subprotocol
    theirs = f"{', '.join(offered)} offered" if offered else "none offered"
    raise NegotiationError(f"no subprotocol in common: {', '.join(required)} spoken, {theirs}")


def _parse_offered_subprotocols(headers: Headers) -> tuple[str, ...]:
    # RFC 6455 section 11.3.4: the field "MAY appear multiple times in an HTTP request (which is
    # logically the same as a single [...] field that contains all values)".
    offer = headers.get("Sec-WebSocket-Protocol")
    return () if offer is None else tuple(parse_subprotocols(offer))
