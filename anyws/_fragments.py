"""Messages in fragments: what recv_streaming() gives, and what send() does with an iterable.

Owns the course of one fragmented message; the frames and the order of messages are others'
business. RFC 6455 section 5.4.
"""

from codecs import getincrementaldecoder
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Final, Self

from anyio.lowlevel import checkpoint_if_cancelled

from ._link import Link
from ._types import DATA_TYPES, OPEN, CloseCode, Data, DataLike, Fragment
from .sansio._messages import wrong_type

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

    def __init__(self, link: Link, decode: bool | None) -> None:
        self._link = link
        self._decode = decode
        # Binary that is wanted as str may be cut within a code point, like Text.
        self._decoder = getincrementaldecoder("utf-8")()
        self._entered = False
        self._begun = False
        self._complete = False

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("recv_streaming() can be entered only once: call it again")
        self._link.intake.begin_streaming()
        self._entered = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._link.intake.end_streaming(begun=self._begun, complete=self._complete)
        self._complete = True

    async def __anext__(self) -> Data:
        if not self._entered:
            raise RuntimeError("recv_streaming() is to be used with `async with`")
        if self._complete:
            raise StopAsyncIteration
        message = await self._link.next_message()
        data, fin = (message.data, message.fin) if type(message) is Fragment else (message, True)
        if self._decode and isinstance(data, bytes):
            data = self._decoder.decode(data, fin)
        elif self._decode is not None:
            data = as_type(data, text=self._decode)
        self._begun = True
        self._complete = fin
        self._link.intake.pop()
        return data


class OutgoingMessage:
    """One message that is sent in fragments, each as soon as its item is there.

    Args:
        link: where to.
        text: as in `Connection.send`.
        compress: likewise.
    """

    def __init__(self, link: Link, text: bool | None, compress: bool | None) -> None:
        self._link = link
        self._text = text
        self._compress = compress
        self._begun = False
        self._complete = False

    async def send(self, items: Iterable[DataLike] | AsyncIterable[DataLike]) -> None:
        """Send `items`; see `Connection.send`.

        Cancellation: after the first item the message cannot be completed, and the connection
            fails.
        """
        link = self._link
        outbox = link.outbox
        await checkpoint_if_cancelled()  # what cannot be completed is not begun
        await outbox.ready()
        outbox.begin_fragments()
        try:
            if isinstance(items, AsyncIterable):
                await self._send_async(items)
            else:
                await self._send_sync(items)
        except BaseException as exc:
            if self._begun and not self._complete and link.protocol.state is OPEN:
                if isinstance(exc, Exception):
                    link.ending.cause = link.ending.cause or exc
                link.fail(CloseCode.INTERNAL_ERROR, "fragmented message is not complete")
            raise
        finally:
            outbox.end_fragments()
            if isinstance(items, AsyncGenerator):
                # One that is left in the midst would wait for the garbage collector, which trio
                # reports.
                await items.aclose()
        if not self._begun:
            await outbox.yield_if_due()

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
            # An iterator that fails after its first item ends the connection, sent or not; an item
            # that has no UTF-8 does so only if the message is begun on the wire.
            self._begun = True
            following = next(iterator, _END)
            self._begun = self._link.protocol.sending_fragments
            await self._send_fragment(item, fin=following is _END)
            item = following

    async def _send_fragment(self, item: object, *, fin: bool) -> None:
        data = _check_type(item)
        link = self._link
        await link.check_open()
        link.transport.write(
            link.protocol.send_fragment(data, fin=fin, text=self._text, compress=self._compress)
        )
        self._begun = True
        self._complete = fin
        if link.watcher is not None:
            link.watcher.fragment_sent(data, fin=fin)
        await link.outbox.wait_behind(len(data))


def _check_type(item: object) -> DataLike:
    if not isinstance(item, DATA_TYPES):
        raise TypeError(wrong_type(item))
    return item
