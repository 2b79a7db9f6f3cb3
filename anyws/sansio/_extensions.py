"""What an extension must be able to do: be offered, be accepted, and transform messages.

Owns the interface; knows no extension in particular. RFC 6455 sections 5.8 and 9.

An extension of anyws transforms the payload of whole data messages and marks them with RSV1, as
permessage-deflate does; so one connection has at most one. An extension that needs other bits, or
that touches control frames, does not fit this interface.
"""

import abc
from collections.abc import Hashable, Sequence

from .._types import BytesLike

Parameter = tuple[str, str | None]
"""One parameter of an extension: its name, and its value if it has one."""


class Extension(abc.ABC):
    """An extension in use on one connection; it holds the state of both directions."""

    name: str
    parameters: Sequence[Parameter]
    """What was agreed on: the parameters of the server's answer."""
    sharing: Hashable = None
    """Equal where, after a `restart()`, the same message is encoded alike; None: never."""

    @abc.abstractmethod
    def wants(self, size: int) -> bool:
        """Say whether a message (or first fragment) of `size` bytes is worth transforming."""

    @abc.abstractmethod
    def encode(self, payload: BytesLike, *, fin: bool) -> bytes:
        """Transform the payload of a frame that is sent.

        Args:
            payload: all of an unfragmented message, or the next fragment of one.
            fin: whether the message ends with it.
        """

    def restart(self) -> None:  # noqa: B027  # nothing to forget, unless an extension shares
        """Refer to nothing that was encoded before: what follows may be sent by others too."""

    @abc.abstractmethod
    def decode(self, payload: BytesLike, max_size: int | None, *, fin: bool) -> bytes:
        """Transform back what is received; called with pieces as they come.

        Args:
            payload: the next piece of the message.
            max_size: how many bytes the result may have at the most; None is no limit.
            fin: whether the message ends with this piece.

        Raises:
            PayloadTooBig: the result has more than `max_size` bytes; it was made up to the first
                byte over that and no further. The object is not used again.
            ProtocolError: the payload is not what the extension's encoding produces. The object
                is not used again.
        """


class ClientExtension(abc.ABC):
    """An extension that a client can offer."""

    name: str

    @abc.abstractmethod
    def offer(self) -> Sequence[Parameter]:
        """Give the parameters to offer it with."""

    @abc.abstractmethod
    def accept_answer(self, parameters: Sequence[Parameter]) -> Extension:
        """Take the parameters that the server answered with.

        Raises:
            NegotiationError: they are no answer to the offer.
        """


class ServerExtension(abc.ABC):
    """An extension that a server can accept."""

    name: str

    @abc.abstractmethod
    def accept_offer(self, parameters: Sequence[Parameter]) -> Extension | None:
        """Take a client's offer, or decline it with None; the answer is `parameters` of the result.

        Raises:
            NegotiationError: the offer is malformed; it is declined.
        """
