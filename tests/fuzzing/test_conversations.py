"""Two protocols talk through a stream that is cut anywhere, and each does what its model says.

`tests/sansio/test_protocol_pair.py` checks what has arrived at the end; here each step is
predicted, with violations, lost streams, budgets, and replies that wait to be sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from anyws._types import Close, Failure, Ping, Pong, Role, State
from anyws.exceptions import ConnectionClosed
from anyws.sansio._deflate import PerMessageDeflate
from anyws.sansio._messages import SharedMessage
from anyws.sansio._protocol import Protocol
from tests.fuzzing.decoding import CODECS, check_budgets
from tests.fuzzing.model import Gone, Side, data_opcode
from tests.wire import BINARY, CLOSE, PING, PONG, TEXT, frame

if TYPE_CHECKING:
    from types import ModuleType

    from anyws.sansio._extensions import Extension

sides = st.sampled_from(["client", "server"])
messages = st.one_of(
    st.text(max_size=200),
    st.binary(max_size=200),
    st.sampled_from([125, 126, 65535, 65536]).map(bytes),
)
compress = st.sampled_from([None, None, True, False])
closes = st.one_of(
    st.builds(Close, st.sampled_from([1000, 1001, 1011, 3000, 4999]), st.text(max_size=20)),
    st.just(Close(1005)),
)
budgets = st.one_of(st.none(), st.integers(0, 3), st.integers(0, 300))
sizes = st.one_of(st.integers(0, 20), st.integers(0, 2000), st.just(10**6))

# What ends a conversation comes once in so many times that it is asked for.
RARE = 8
rarely = st.integers(1, RARE).map(lambda number: number == RARE)

COMPRESSIONS = (
    None,
    PerMessageDeflate(threshold=0),
    PerMessageDeflate(server_no_context_takeover=True, client_no_context_takeover=True),
    PerMessageDeflate(server_max_window_bits=8, client_max_window_bits=9, backend="zlib"),
)

# Frames that are wrong wherever they come, as a server sends them, and the code that answers them.
VIOLATIONS = (
    (frame(3), 1002),
    (frame(PING, fin=False), 1002),
    (frame(TEXT, b"a", rsv=2), 1002),
    (frame(CLOSE, b"\x03"), 1002),
    (frame(CLOSE, b"\x03\xed"), 1002),
    (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    (frame(PONG, rsv=4), 1002),
)


def new_side(role: Role, extension: Extension | None, codec: ModuleType) -> Side:
    protocol = Protocol(role, extension=extension)
    protocol.decoder = codec.Decoder(masked=role is Role.SERVER, max_size=2**20, inflate=extension)
    return Side(protocol, compression=extension is not None)


class Conversations(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.sides: dict[str, Side] = {}

    @initialize(
        compression=st.sampled_from(COMPRESSIONS),
        codecs=st.tuples(st.sampled_from(CODECS), st.sampled_from(CODECS)),
        holds_failure=st.booleans(),
    )
    def open(
        self,
        compression: PerMessageDeflate | None,
        codecs: tuple[ModuleType, ModuleType],
        holds_failure: bool,
    ) -> None:
        client = server = None
        if compression is not None:
            server = compression.accept_offer(compression.offer())
            client = compression.accept_answer(server.parameters)
        near = new_side(Role.CLIENT, client, codecs[0])
        far = new_side(Role.SERVER, server, codecs[1])
        near.peer, far.peer = far, near
        far.protocol.holds_failure = holds_failure
        self.sides = {"client": near, "server": far}

    # Sending.

    @rule(
        name=sides,
        message=messages,
        compress=compress,
        shared=st.booleans(),
    )
    def send_message(
        self, name: str, message: str | bytes, compress: bool | None, shared: bool
    ) -> None:
        me = self.sides[name]
        if me.message and me.state is State.OPEN:
            with pytest.raises(RuntimeError, match="not complete"):
                me.protocol.send_message(message)
            return
        if shared:
            data = self.send(me, "send_shared", SharedMessage(message, None))
        else:
            data = self.send(me, "send_message", message, compress=compress)
        if data is not None:
            payload = message.encode() if isinstance(message, str) else message
            opcode = data_opcode(text=isinstance(message, str), begins=True)
            me.put(data, (opcode, payload, message))

    @rule(size=st.sampled_from([126, 65535, 65536]))
    def send_payload_as_it_is(self, size: int) -> None:
        me = self.sides["server"]
        if me.protocol.sends_payload_as_is:
            assert me.state is State.OPEN
            data = me.protocol.send_header(size) + bytes(size)
            me.put(data, (BINARY, bytes(size), bytes(size)))

    @rule(
        name=sides,
        text=st.text(max_size=40),
        fin=st.booleans(),
        kind=st.integers(0, 2),
        compress=compress,
    )
    def send_fragment(
        self, name: str, text: str, fin: bool, kind: int, compress: bool | None
    ) -> None:
        me = self.sides[name]
        begins = not me.message
        if not begins:
            kind = me.message[0]
        # As str, as Binary, or as bytes of Text, cut within a code point if there is one.
        before = b"" if begins or kind != 2 else me.message.pop()
        data: Any = text if kind == 0 else before + text.encode()
        tail = data[-1:] if kind == 2 and not fin and data[-1:] > b"\x7f" else b""
        data = data[: len(data) - len(tail)]
        sent = self.send(me, "send_fragment", data, fin=fin, text=kind != 1, compress=compress)
        if sent is None:
            if kind == 2 and not begins:
                me.message.append(before)
            return
        parts = [*me.message[1:], data]
        me.message = [] if fin else [kind, *parts, *([tail] if kind == 2 else [])]
        whole: Any = type(data)().join(parts)
        if kind == 2 and fin:
            whole = whole.decode()
        opcode = data_opcode(text=kind != 1, begins=begins)
        payload = data.encode() if kind == 0 else data
        me.put(sent, (opcode, payload, whole if fin else Gone.FRAGMENT))

    @rule(name=sides, data=st.binary(max_size=125), pong=st.booleans())
    def send_ping_or_pong(self, name: str, data: bytes, pong: bool) -> None:
        me = self.sides[name]
        sent = self.send(me, "send_pong" if pong else "send_ping", data)
        if sent is not None:
            me.put(sent, (PONG, data, Pong(data)) if pong else (PING, data, Ping(data)))

    @rule(name=sides, close=closes, now=rarely)
    def send_close(self, name: str, close: Close, now: bool) -> None:
        me = self.sides[name]
        if now or me.state is not State.OPEN:
            sent = self.send(me, "send_close", close.code, close.reason)
            if sent is not None:
                me.begin_close(close)
                me.put(sent, *me.replies())

    @rule(name=sides, newest_pong=st.booleans())
    def reply(self, name: str, newest_pong: bool) -> None:
        me = self.sides[name]
        data = me.protocol.data_to_send(newest_pong=newest_pong)
        me.put(data, *me.replies(newest_pong=newest_pong))

    def send(self, me: Side, method: str, *args: Any, **kwargs: Any) -> bytes | None:
        """Send something if the connection is open; otherwise check the error."""
        send = getattr(me.protocol, method)
        if me.state is State.OPEN:
            data: bytes = send(*args, **kwargs)
            return data
        with pytest.raises(ConnectionClosed) as caught:
            send(*args, **kwargs)
        me.check_error(caught.value)
        return None

    # Receiving.

    @precondition(lambda self: any(side.incoming for side in self.sides.values()))
    @rule(name=sides, size=sizes, max_bytes=budgets, max_messages=budgets)
    def deliver(
        self, name: str, size: int, max_bytes: int | None, max_messages: int | None
    ) -> None:
        me = self.sides[name]
        events = me.protocol.receive_data(me.take(size), max_bytes, max_messages)
        check_budgets(events, max_bytes, max_messages)
        me.check_events(events)
        if not me.protocol.decoder.pending:
            assert me.next_event() is None
        else:
            assert max_bytes is not None or max_messages is not None

    @rule(name=sides)
    def ask_for_fragments(self, name: str) -> None:
        self.sides[name].protocol.decoder.fragments = True

    # Ends.

    @rule(name=sides, violation=st.sampled_from(VIOLATIONS), now=rarely)
    def break_the_protocol(self, name: str, violation: tuple[bytes, int], now: bool) -> None:
        me = self.sides[name]
        wire, code = violation
        if now and not me.lost and me.close_sent is None:
            if me.protocol.role is Role.CLIENT:
                wire = wire[:1] + bytes([wire[1] | 0x80]) + bytes(4) + wire[2:]
            me.send(Failure(code, ""), len(wire))
            me.peer.incoming += wire

    @rule(name=sides)
    def release_failure(self, name: str) -> None:
        me = self.sides[name]
        me.protocol.release_failure()
        me.release()

    @rule(name=sides, reason=st.text(max_size=60), now=rarely)
    def fail(self, name: str, reason: str, now: bool) -> None:
        me = self.sides[name]
        if now or me.state is not State.OPEN:
            me.protocol.fail(1011, reason)
            me.fail(1011, reason)

    @rule(name=sides, now=rarely)
    def lose_write(self, name: str, now: bool) -> None:
        me = self.sides[name]
        if now:
            me.protocol.lose_write()
            me.leave_open()
            me.lost = True

    @rule(name=sides, now=rarely)
    def end_the_stream(self, name: str, now: bool) -> None:
        me = self.sides[name]
        if now:
            me.protocol.receive_eof()
            me.state = State.CLOSED

    # What always holds.

    @invariant()
    def protocols_are_as_their_models(self) -> None:
        for me in self.sides.values():
            me.check()

    def teardown(self) -> None:
        for _ in range(3):  # there, back, and nothing any more
            for name in self.sides:
                self.deliver(name, 10**9, None, None)
                self.release_failure(name)
                self.reply(name, newest_pong=False)
                self.protocols_are_as_their_models()
        for me in self.sides.values():
            # Every message before the Close has come, unless one of the two went away.
            if me.expects_data:
                assert me.finished or me.seen == len(me.peer.sent)


TestConversations = Conversations.TestCase
TestConversations.settings = settings(max_examples=60, stateful_step_count=40)
