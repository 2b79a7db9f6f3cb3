"""Two protocols talk to each other through streams that are cut anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from anyws._types import Close, Failure, Fragment, Ping, Pong, Role, State
from anyws.sansio._deflate import PerMessageDeflate
from anyws.sansio._protocol import Protocol
from tests.wire import CLOSE, split_frames

if TYPE_CHECKING:
    from anyws._types import Event

messages = st.one_of(
    st.text(max_size=300), st.binary(max_size=300), st.integers(0, 70000).map(bytes)
)
sides = st.sampled_from(["client", "server"])
codes = st.sampled_from([1000, 1001, 1005, 1011, 3000, 4999])


class Side:
    """A protocol, the bytes on their way to it, and all that it has sent and received."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.incoming = b""
        self.wire = b""
        self.sent: list[str | bytes] = []
        self.pings: list[bytes] = []
        self.parts: list[str | bytes] = []
        self.received: list[str | bytes] = []
        self.others: list[Event] = []
        self.fragments: list[str | bytes] = []

    def take(self, events: list[Event]) -> None:
        for event in events:
            if type(event) is Fragment:
                self.fragments.append(event.data)
                if event.fin:
                    self.received.append(join(self.fragments))
                    self.fragments = []
            elif isinstance(event, (str, bytes)):
                self.received.append(event)
            else:
                self.others.append(event)


def join(parts: list[Any]) -> str | bytes:
    """Join fragments, which are all of one type."""
    joined: str | bytes = type(parts[0])().join(parts)
    return joined


class Conversation(RuleBasedStateMachine):
    @initialize(compression=st.sampled_from([None, PerMessageDeflate(), PerMessageDeflate(True)]))
    def open(self, compression: PerMessageDeflate | None) -> None:
        client = server = None
        if compression is not None:
            server = compression.accept_offer(compression.offer())
            client = compression.accept_answer(server.parameters)
        self.sides = {
            "client": Side(Protocol(Role.CLIENT, extension=client)),
            "server": Side(Protocol(Role.SERVER, extension=server)),
        }

    def other(self, side: str) -> Side:
        return self.sides["server" if side == "client" else "client"]

    def write(self, side: str, data: bytes) -> None:
        self.sides[side].wire += data
        self.other(side).incoming += data

    def free(self, side: str) -> bool:
        protocol = self.sides[side].protocol
        return protocol.state is State.OPEN and not protocol.sending_fragments

    @rule(side=sides, message=messages, compress=st.sampled_from([None, True, False]))
    def send_message(self, side: str, message: str | bytes, compress: bool | None) -> None:
        if self.free(side):
            self.write(side, self.sides[side].protocol.send_message(message, compress=compress))
            self.sides[side].sent.append(message)

    @rule(side=sides, text=st.text(max_size=20), fin=st.booleans())
    def send_fragment(self, side: str, text: str, fin: bool) -> None:
        me = self.sides[side]
        if me.protocol.state is State.OPEN:
            self.write(side, me.protocol.send_fragment(text, fin=fin))
            me.parts.append(text)
            if fin:
                me.sent.append(join(me.parts))
                me.parts = []

    @rule(side=sides, data=st.binary(max_size=125))
    def ping(self, side: str, data: bytes) -> None:
        me = self.sides[side]
        if me.protocol.state is State.OPEN:
            self.write(side, me.protocol.send_ping(data))
            me.pings.append(data)

    @rule(side=sides)
    def ask_for_fragments(self, side: str) -> None:
        self.sides[side].protocol.decoder.fragments = True

    @rule(side=sides, code=codes, reason=st.text(max_size=20))
    def close(self, side: str, code: int, reason: str) -> None:
        protocol = self.sides[side].protocol
        if protocol.state is State.OPEN:
            self.write(side, protocol.send_close(code, "" if code == 1005 else reason))

    @precondition(lambda self: any(side.incoming for side in self.sides.values()))
    @rule(side=sides, size=st.one_of(st.integers(0, 20), st.just(100000)), budget=st.booleans())
    def deliver(self, side: str, size: int, budget: bool) -> None:
        me = self.sides[side]
        data, me.incoming = me.incoming[:size], me.incoming[size:]
        me.take(me.protocol.receive_data(data, None, 1 if budget else None))
        self.write(side, me.protocol.data_to_send())

    @rule(side=sides, chance=st.integers(0, 9))
    def cut_the_stream(self, side: str, chance: int) -> None:
        if chance == 0:
            self.sides[side].protocol.receive_eof()

    @invariant()
    def what_is_received_was_sent(self) -> None:
        for side, me in self.sides.items():
            sent = self.other(side).sent
            assert me.received == sent[: len(me.received)]
            assert [type(one) for one in me.received] == [
                type(one) for one in sent[: len(me.received)]
            ]

    @invariant()
    def nobody_fails(self) -> None:
        for me in self.sides.values():
            assert me.protocol.failure is None
            assert not any(type(event) is Failure for event in me.others)

    @invariant()
    def state_is_open_while_there_is_no_close(self) -> None:
        for me in self.sides.values():
            protocol = me.protocol
            if protocol.state is State.OPEN:
                assert protocol.close_sent is None
                assert protocol.close_rcvd is None

    def teardown(self) -> None:
        if not hasattr(self, "sides"):
            return
        for _ in range(3):  # there, back, and nothing any more
            for side in self.sides:
                self.deliver(side, 10**9, budget=False)
        for side, me in self.sides.items():
            self.check_end(me, self.other(side))

    def check_end(self, me: Side, other: Side) -> None:
        frames, rest = split_frames(me.wire)
        assert rest == b""
        assert all(frame.masked is (me.protocol.role is Role.CLIENT) for frame in frames)
        closes = [index for index, frame in enumerate(frames) if frame.opcode == CLOSE]
        # RFC 6455 section 5.5.1: nothing follows a Close frame.
        assert closes in ([], [len(frames) - 1])
        if not other.protocol.eof_to_send and other.protocol.state is not State.CLOSED:
            assert other.received == me.sent
        pongs = [event.data for event in me.others if type(event) is Pong]
        assert pongs == me.pings[: len(pongs)]
        pings = [event.data for event in other.others if type(event) is Ping]
        assert pings == me.pings[: len(pings)]
        if me.protocol.close_sent is not None and other.protocol.state is not State.CLOSED:
            assert other.protocol.close_rcvd == me.protocol.close_sent
            assert other.others[-1] == me.protocol.close_sent
            assert type(other.others[-1]) is Close


TestConversation = Conversation.TestCase
TestConversation.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
