"""The client's side of the opening handshake: bytes in, a Response out.

Owns the request, and whether the answer to it opens a connection; knows no stream, no redirect and
no frame. RFC 6455 section 4.1.
"""

import secrets
from collections.abc import Sequence
from typing import NoReturn

import h11

from .._http import Headers, HeadersLike, Request, Response
from ..exceptions import InvalidHeader, InvalidStatus, InvalidUpgrade, NegotiationError
from ._extensions import ClientExtension, Extension, Parameter
from ._handshake import (
    MAX_LINE_SIZE,
    PRODUCT,
    ResponseReader,
    check_connection,
    single_value,
)
from ._headers import (
    KEY_SIZE,
    accept_key,
    build_basic_authorization,
    build_extensions,
    build_host,
    build_key,
    build_subprotocols,
    parse_extensions,
)
from ._uri import WebSocketURI

# Fields that additional_headers may not have, and what to do instead.
_RESERVED_FIELDS = {
    "sec-websocket-protocol": "pass subprotocols instead",
    "sec-websocket-extensions": "pass extensions instead",
    "upgrade": "the handshake sets it",
    "connection": "the handshake sets it",
    "content-length": "the request has no body",
    "transfer-encoding": "the request has no body",
    # It would go to the server.
    "proxy-authorization": "user and password stand in the URL of the proxy",
}


class ClientHandshake:
    """The opening handshake of a client; everything is checked before a byte goes out.

    Send what `data_to_send` gives, then pass what comes to `receive_data` until that gives the
    response; after that, the object only tells what was agreed on.

    Args:
        uri: where to connect; user information becomes Basic authentication.
        origin: the Origin field.
        subprotocols: what to offer, in order of preference.
        extensions: what to offer, in order of preference.
        additional_headers: more fields; a Host, Origin, Authorization or User-Agent among them
            takes the place of the one that the handshake makes.
        user_agent: the User-Agent field; None leaves it out.
        key: the 16 bytes of Sec-WebSocket-Key; None takes random ones, as RFC 6455 demands.

    Raises:
        ValueError: an argument has something that cannot be sent, such as a line break.
        TypeError: an argument has the wrong type.
    """

    def __init__(
        self,
        uri: WebSocketURI,
        *,
        origin: str | None = None,
        subprotocols: Sequence[str] | None = None,
        extensions: Sequence[ClientExtension] = (),
        additional_headers: HeadersLike | None = None,
        user_agent: str | None = PRODUCT,
        key: bytes | None = None,
    ) -> None:
        self._key = build_key(secrets.token_bytes(KEY_SIZE) if key is None else key)
        self._extensions = tuple(extensions)
        headers = Headers(
            {
                "Host": build_host(uri.host, uri.port, uri.secure),
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Key": self._key,
                "Sec-WebSocket-Version": "13",
            }
        )
        if subprotocols is not None and (offer := build_subprotocols(subprotocols)):
            headers["Sec-WebSocket-Protocol"] = offer
        if self._extensions:
            headers["Sec-WebSocket-Extensions"] = build_extensions(
                (extension.name, extension.offer()) for extension in self._extensions
            )
        if origin is not None:
            headers["Origin"] = origin
        if uri.user_info is not None:
            headers["Authorization"] = build_basic_authorization(*uri.user_info)
        if user_agent is not None:
            headers["User-Agent"] = user_agent
        _add_headers(headers, additional_headers)
        self.request: Request = Request(
            "GET",
            uri.resource_name,
            headers,
            subprotocols=tuple(subprotocols or ()),
            origin=headers.get("Origin"),
        )
        """What is sent."""
        self.subprotocol: str | None = None
        """The subprotocol that the server chose, once the response has come."""
        self.extension: Extension | None = None
        """The extension that both sides use, once the response has come."""
        self.trailing_data: bytes = b""
        """What came after the response: the start of the first frames."""
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_LINE_SIZE)
        self._unsent = self._encode_request()
        self._reader = ResponseReader(self._parser, (101,))

    @property
    def started(self) -> bool:
        """Whether a byte has come."""
        return self._reader.started

    @property
    def refusal(self) -> Response | None:
        """The response by which the server refuses, with what has come of its body so far."""
        return self._reader.refusal

    def _encode_request(self) -> bytes:
        request = self.request
        headers = request.headers
        fields = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        try:
            # h11 must have sent the request to know what may follow.
            data = self._parser.send(
                h11.Request(method=request.method, target=request.path.encode(), headers=fields)
            )
        except h11.LocalProtocolError as exc:
            raise ValueError(f"request for {request.path!r} cannot be sent: {exc}") from exc
        self._parser.send(h11.EndOfMessage())
        assert data is not None
        return data

    def data_to_send(self) -> bytes:
        """Give the request, once; then nothing."""
        data, self._unsent = self._unsent, b""
        return data

    def receive_data(self, data: bytes) -> Response | None:
        """Take bytes that the server sent.

        Args:
            data: what came; split and joined in any way.

        Returns:
            The response that opens the connection; None if more is needed.

        Raises:
            InvalidStatus: the server refused; the error has the response with its body, of which at
                most MAX_BODY_SIZE bytes are kept.
            InvalidMessage: what came is not HTTP/1.1, or exceeds a limit.
            InvalidUpgrade: the response does not switch to WebSocket.
            InvalidHeader: a field is missing, doubled or wrong.
            NegotiationError: the server chose what was not offered.
        """
        response = self._reader.receive(data)
        if response is None:
            return None
        if response.status != 101:
            raise InvalidStatus(response)
        self._accept(response.headers)
        self.trailing_data = self._reader.rest
        return response

    def receive_eof(self) -> NoReturn:
        """Take the end of the stream.

        Raises:
            InvalidStatus: the server refused, and closed at or before the end of the body.
            InvalidMessage: it closed before the end of the head.
        """
        raise InvalidStatus(self._reader.receive_eof())

    def _accept(self, headers: Headers) -> None:
        """Check the response in the order of RFC 6455 section 4.1, and take what it grants."""
        upgrade = headers.get("Upgrade")
        if upgrade is None or upgrade.lower() != "websocket":
            raise InvalidUpgrade("Upgrade", upgrade)
        check_connection(headers)
        accept = single_value(headers, "Sec-WebSocket-Accept")
        if accept != accept_key(self._key):
            raise InvalidHeader("Sec-WebSocket-Accept", accept)
        extensions = headers.get("Sec-WebSocket-Extensions")
        if extensions is not None:
            self.extension = self._accept_extensions(parse_extensions(extensions))
        subprotocol = single_value(headers, "Sec-WebSocket-Protocol")
        if subprotocol is not None and subprotocol not in self.request.subprotocols:
            raise NegotiationError(f"server chose subprotocol {subprotocol!r}, it was not offered")
        self.subprotocol = subprotocol

    def _accept_extensions(self, answers: list[tuple[str, list[Parameter]]]) -> Extension:
        (name, parameters), *more = answers
        if more:
            raise NegotiationError(f"server chose {len(answers)} extensions, at most one fits")
        problem = NegotiationError(f"server chose extension {name!r}, it was not offered")
        # One extension can be offered several times, with other parameters.
        for extension in self._extensions:
            if extension.name == name:
                try:
                    return extension.accept_answer(parameters)
                except NegotiationError as exc:
                    problem = exc
        raise problem


def _add_headers(headers: Headers, additional: HeadersLike | None) -> None:
    """Add the user's fields to those of the handshake.

    Raises:
        ValueError: a field is one that only the handshake may set.
    """
    additional = Headers(additional)
    for name in additional:
        instead = _RESERVED_FIELDS.get(name.lower())
        if instead is None and name.lower().startswith("sec-websocket-"):
            instead = "the handshake sets it"
        if instead is not None:
            raise ValueError(f"additional_headers cannot have {name}: {instead}")
        headers.pop(name, None)
    for name, value in additional.items():
        headers.add(name, value)
