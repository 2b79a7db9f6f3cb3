"""Messages in fragments: what recv_streaming() gives, and what send() does with an iterable.

Owns the course of one fragmented message; the frames and the order of messages are others' business.
RFC 6455 section 5.4.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, Final

from anyio import Event

from ._types import CloseCode, Data, DataLike, Fragment
from .sansio._protocol import wrong_type

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from ._connection import Connection

_END: Final = object()


def as_type(data: Data, *, text: bool) -> Data:
    """Give Text or Binary as str or as bytes.

    Raises:
        UnicodeDecodeError: a Binary message has no str.
    """
    if isinstance(data, str):
        return data if text else data.encode()
    return data.decode() if text else data


class StreamedMessage(AsyncIterator[Data]):
    """One message in fragments: an asynchronous context manager whose value is iterated over."""

    def __init__(self, connection: Connection, decode: bool | None) -> None:
        self._connection = connection
        self._decode = decode
        self._begun = False
        self._complete = False

    async def __aenter__(self) -> StreamedMessage:
        self._connection._begin_streaming()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection._end_streaming(begun=self._begun, complete=self._complete)
        self._complete = True

    async def __anext__(self) -> Data:
        if self._complete:
            raise StopAsyncIteration
        message = await self._connection._next_message()
        data, fin = (message.data, message.fin) if type(message) is Fragment else (message, True)
        if self._decode is not None:
            data = as_type(data, text=self._decode)
        self._begun = True
        self._complete = fin
        self._connection._pop()
        return data


class OutgoingMessage:
    """One message that is sent in fragments, each as soon as its item is there.

    Args:
        connection: where to.
        text: as in `Connection.send`.
        compress: likewise.
    """

    def __init__(self, connection: Connection, text: bool | None, compress: bool | None) -> None:
        self._connection = connection
        self._text = text
        self._compress = compress
        self._begun = False
        self._complete = False

    async def send(self, items: Iterable[DataLike] | AsyncIterable[DataLike]) -> None:
        """Send `items`; see `Connection.send`.

        Cancellation: after the first item the message cannot be completed, and the connection fails.
        """
        connection = self._connection
        await connection._ready_to_send()
        turn = connection._fragmenting = Event()
        try:
            if isinstance(items, AsyncIterable):
                await self._send_async(items)
            else:
                await self._send_sync(items)
        except BaseException:
            if self._begun and not self._complete and connection.open:
                connection._fail(CloseCode.INTERNAL_ERROR, "fragmented message is not complete")
            raise
        finally:
            connection._fragmenting = None
            turn.set()

    async def _send_async(self, items: AsyncIterable[DataLike]) -> None:
        # An item does not wait for the next to come; so the last is known too late, and the message
        # ends with an empty fragment.
        empty: DataLike = b""
        async for item in items:
            await self._send_fragment(item, fin=False)
            empty = "" if isinstance(item, str) else b""
        if self._begun:
            await self._send_fragment(empty, fin=True)

    async def _send_sync(self, items: Iterable[DataLike]) -> None:
        iterator = iter(items)
        item = next(iterator, _END)
        while item is not _END:
            _check_type(item)
            self._begun = True
            following = next(iterator, _END)
            await self._send_fragment(item, fin=following is _END)
            item = following

    async def _send_fragment(self, item: object, *, fin: bool) -> None:
        data = _check_type(item)
        self._begun = True
        connection = self._connection
        connection._write_fragment(data, fin=fin, text=self._text, compress=self._compress)
        self._complete = fin
        await connection._drain()
        await connection._yield_if_due()


def _check_type(item: object) -> DataLike:
    if not isinstance(item, (str, bytes, bytearray, memoryview)):
        raise TypeError(wrong_type(item))
    return item
