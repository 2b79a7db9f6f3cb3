"""WebSocket without a promise: our codec and our handshakes, and the least code between them.

What is left of anyws where all that a connection promises is taken away: flow control, fairness,
limits, Pings and Pongs, keepalive and the close watchdog, cancellation, errors. So it is the least
that any library in Python can cost which has this codec, and gives messages by `async for` and
takes them by `await send()`.
"""

from __future__ import annotations

import abc
import asyncio
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Self

import trio

from anyws._transports._asyncio import Guest
from anyws._types import Close, Opcode
from anyws.sansio import ClientHandshake, ServerHandshake, parse_uri
from anyws.sansio._codec import Decoder, encode_frame

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from anyws._types import Data

_SCRATCH = memoryview(bytearray(2**18))
_HEAD_SIZE = 2**16

# From how many bytes on a payload is not copied behind its header.
_LARGE_SIZE = 2**15

# Masking keys that are drawn together.
_KEYS = 256


class BareConnection(abc.ABC):
    """One side of a connection, for one task.

    Args:
        raw_socket: a connected, non-blocking socket.
        masks: whether it is the client's side.
    """

    def __init__(self, raw_socket: socket.socket, *, masks: bool) -> None:
        raw_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = raw_socket
        self._masks = masks
        self._keys: list[bytes] = []
        self._decoder = Decoder(masked=not masks, max_size=None)
        self._messages: deque[Data] = deque()
        self._unsent: list[bytes | memoryview] = []
        self._over = False

    # What each event loop does in its own way.

    @abc.abstractmethod
    def wait_readable(self) -> Awaitable[None]:
        """Wait until the socket has something to read."""

    @abc.abstractmethod
    def wait_messages(self) -> Awaitable[None]:
        """Let what was written leave, and wait until something was read."""

    # The opening handshakes.

    async def accept(self, handshake: ServerHandshake) -> None:
        """Answer that of a client."""
        request = handshake.receive_data(await self._receive())
        assert request is not None
        response = handshake.accept(request)
        self._socket.send(handshake.send_response(response, request))
        self._take(handshake.trailing_data)

    async def open(self, uri: str) -> None:
        """Send one, and take the answer."""
        handshake = ClientHandshake(parse_uri(uri))
        self._socket.send(handshake.data_to_send())
        assert handshake.receive_data(await self._receive()) is not None
        self._take(handshake.trailing_data)

    async def _receive(self) -> bytes:
        while True:
            try:
                return self._socket.recv(_HEAD_SIZE)
            except BlockingIOError:
                await self.wait_readable()

    # Messages.

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Data:
        messages = self._messages
        while not messages:
            if self._over:
                raise StopAsyncIteration
            await self.wait_messages()
        return messages.popleft()

    async def send(self, message: Data) -> None:
        """Send a message, with all others of the turn."""
        opcode = Opcode.TEXT if type(message) is str else Opcode.BINARY
        if self._masks:
            frame = encode_frame(opcode, message, masking_key=self._next_key())
            self._unsent.append(frame)
        elif isinstance(message, str) or len(message) < _LARGE_SIZE:
            self._unsent.append(encode_frame(opcode, message))
        else:
            # RFC 6455 section 5.2: the length in 8 bytes, or in 2 if they are enough.
            size = len(message)
            wide = size >= 2**16
            head = bytes((0x80 | opcode, 127 if wide else 126)) + size.to_bytes(8 if wide else 2)
            self._unsent += (head, message)

    def _next_key(self) -> bytes:
        if not self._keys:
            drawn = os.urandom(4 * _KEYS)
            self._keys = [drawn[start : start + 4] for start in range(0, len(drawn), 4)]
        return self._keys.pop()

    def read(self) -> None:
        """Read what there is, up to a chunk."""
        try:
            size = self._socket.recv_into(_SCRATCH)
        except BlockingIOError:
            return
        self._over = self._over or not size
        self._take(_SCRATCH[:size])

    def _take(self, data: bytes | memoryview) -> None:
        decoder = self._decoder
        events = decoder.feed(data)
        if decoder.plain_size >= 0:
            self._messages.extend(events)  # type: ignore[arg-type]  # whole messages alone
            return
        for event in events:
            if isinstance(event, str | bytes):
                self._messages.append(event)
            elif isinstance(event, Close):
                self._unsent.append(encode_frame(Opcode.CLOSE, event.code.to_bytes(2)))
                self._over = True

    def flush(self) -> bool:
        """Send what the socket takes; say whether nothing is left."""
        unsent = self._unsent
        if not unsent:
            return True
        if len(unsent) > 2:
            unsent[:] = (b"".join(unsent),)
        try:
            if len(unsent) == 1:
                sent = self._socket.send(unsent[0])
            else:
                sent = self._socket.sendmsg(unsent)  # a header and its payload, mostly
        except BlockingIOError:
            sent = 0
        if sent == sum(map(len, unsent)):
            unsent.clear()
            return True
        unsent[:] = (memoryview(b"".join(unsent))[sent:],)
        return False

    # The end.

    async def end(self) -> None:
        """Send what was written, end our half, and close once the peer has ended its own."""
        self.flush()
        self._socket.shutdown(socket.SHUT_WR)
        while await self._receive():
            pass
        self.close()

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()


class AsyncioConnection(BareConnection):
    """One on asyncio or uvloop: its task goes on within the callback that has read.

    Args:
        raw_socket: as for `BareConnection`.
        masks: likewise.
    """

    def __init__(self, raw_socket: socket.socket, *, masks: bool) -> None:
        super().__init__(raw_socket, masks=masks)
        self._loop = asyncio.get_running_loop()
        self._descriptor = raw_socket.fileno()
        self._guest: Guest | None = None
        self._watching = False
        self._reading = False

    def wait_readable(self) -> Awaitable[None]:
        """Wait until the socket has something to read."""
        if not self._watching:
            self._watching = True
            self._loop.add_reader(self._descriptor, self._take_turn)
        self._guest = Guest(loop=self._loop)
        return self._guest

    def wait_messages(self) -> Awaitable[None]:
        """Let what was written leave, and wait until something was read."""
        if not self._reading:
            self._reading = True
            self._send()  # what has come with the handshake was answered outside of a turn
        return self.wait_readable()

    def _take_turn(self) -> None:
        if self._reading:
            self.read()
        guest = self._guest
        if guest is not None and not guest.done():
            guest.set_result(None)
            guest.go_on()
        self._send()

    def _send(self) -> None:
        if not self.flush():
            self._loop.remove_reader(self._descriptor)
            self._loop.add_writer(self._descriptor, self._send_rest)

    def _send_rest(self) -> None:
        if self.flush():
            self._loop.remove_writer(self._descriptor)
            self._loop.add_reader(self._descriptor, self._take_turn)

    async def end(self) -> None:
        """Send what was written, end our half, and close once the peer has ended its own."""
        self._reading = False
        await super().end()

    def close(self) -> None:
        """Let go of the socket."""
        if self._watching:
            self._loop.remove_reader(self._descriptor)
        super().close()


class TrioConnection(BareConnection):
    """One on trio: its task reads."""

    async def wait_readable(self) -> None:
        """Wait until the socket has something to read."""
        await trio.lowlevel.wait_readable(self._socket)

    async def wait_messages(self) -> None:
        """Let what was written leave, and wait until something was read."""
        while not self.flush():
            await trio.lowlevel.wait_writable(self._socket)
        await trio.lowlevel.wait_readable(self._socket)
        self.read()
