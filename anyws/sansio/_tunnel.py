"""The request for a tunnel through an HTTP proxy: bytes in, a Response out.

Owns CONNECT and what answers it; knows no stream, and nothing of what goes through the tunnel.
RFC 9110 section 9.3.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import h11

from .._http import Headers
from ..exceptions import InvalidMessage, ProxyError
from ._handshake import MAX_LINE_SIZE, PRODUCT, ResponseReader
from ._headers import build_authority, build_basic_authorization

if TYPE_CHECKING:
    from .._http import Response
    from ._uri import ProxyURI

# RFC 9110 section 9.3.6: "Any 2xx (Successful) response indicates that the sender (and all inbound
# proxies) will switch to tunnel mode immediately after the response header section".
_OPENING = range(200, 300)


class TunnelHandshake:
    """The request for a tunnel; everything is checked before a byte goes out.

    Send what `data_to_send` gives, then pass what comes to `receive_data` until that gives the
    response; what `trailing_data` has then came out of the tunnel.

    Args:
        proxy: who is asked; user and password go to it as Basic authentication.
        host: where the tunnel leads to; an IPv6 address without brackets.
        port: likewise.
        user_agent: the User-Agent field; None leaves it out.

    Raises:
        ValueError: an argument has something that cannot be sent.
    """

    def __init__(
        self, proxy: ProxyURI, host: str, port: int, *, user_agent: str | None = PRODUCT
    ) -> None:
        self.trailing_data: bytes = b""
        """What came after the response: the server's first bytes."""
        self._proxy = proxy
        self._target = build_authority(host, port)
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_LINE_SIZE)
        self._unsent = self._encode_request(user_agent)
        self._reader = ResponseReader(self._parser, _OPENING)

    def _encode_request(self, user_agent: str | None) -> bytes:
        headers = Headers({"Host": self._target})
        if self._proxy.user_info is not None:
            headers["Proxy-Authorization"] = build_basic_authorization(*self._proxy.user_info)
        if user_agent is not None:
            headers["User-Agent"] = user_agent
        fields = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        # h11 must have sent the request to know what may follow.
        data = self._parser.send(
            h11.Request(method="CONNECT", target=self._target.encode(), headers=fields)
        )
        self._parser.send(h11.EndOfMessage())
        assert data is not None
        return data

    def data_to_send(self) -> bytes:
        """Give the request, once; then nothing."""
        data, self._unsent = self._unsent, b""
        return data

    def receive_data(self, data: bytes) -> Response | None:
        """Take bytes that the proxy sent.

        Args:
            data: what came; split and joined in any way.

        Returns:
            The response that opens the tunnel; None if more is needed.

        Raises:
            ProxyError: the proxy refused, and the error has its response with the body, of which at
                most MAX_BODY_SIZE bytes are kept; or what came is not HTTP/1.1, or exceeds a limit.
        """
        try:
            response = self._reader.receive(data)
        except InvalidMessage as exc:
            raise self._broken(exc) from exc
        if response is not None:
            if response.status not in _OPENING:
                raise self._refused(response)
            # RFC 9110 section 9.3.6: "A client MUST ignore any Content-Length or Transfer-Encoding
            # header fields received in a successful response to CONNECT": no body is taken off.
            self.trailing_data = self._reader.rest
        return response

    @property
    def refusal(self) -> ProxyError | None:
        """That the proxy refuses, with what has come of its body; None as long as it has not."""
        response = self._reader.refusal
        return None if response is None else self._refused(response)

    def receive_eof(self) -> NoReturn:
        """Take the end of the stream.

        Raises:
            ProxyError: the proxy refused, and closed at or before the end of the body; or it closed
                before the end of the head.
        """
        try:
            response = self._reader.receive_eof()
        except InvalidMessage as exc:
            raise self._broken(exc) from exc
        raise self._refused(response)

    def _broken(self, error: InvalidMessage) -> ProxyError:
        return ProxyError(f"proxy {self._proxy}, asked for {self._target}: {error}")

    def _refused(self, response: Response) -> ProxyError:
        text = f"proxy {self._proxy} answered with HTTP {response.status}, asked for {self._target}"
        return ProxyError(f"{text}{self._advise(response)}", response)

    def _advise(self, response: Response) -> str:
        """Say what to do about a response, if that can be known."""
        # Some proxies answer with the status of a server.
        if response.status not in {401, 407}:
            return ""
        challenges = response.headers.get_all("Proxy-Authenticate")
        if challenges and not any("basic" in challenge.lower() for challenge in challenges):
            return ": it does not take Basic authentication, and anyws knows no other"
        if self._proxy.user_info is not None:
            return ": the user or the password in its URL is wrong"
        if response.status == 401:
            return ""
        return f": it wants a user and a password, {self._proxy.scheme}://user:password@host:port"
