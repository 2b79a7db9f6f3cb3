"""When `reconnect` tries again, what it then tells, and which errors end it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import anyws
from tests.endings import takes
from tests.network import memory_network
from tests.reconnecting import (
    STEADY,
    Server,
    closes_after,
    first_message,
    leaves,
    never_answers,
    never_closes,
    refuses,
    stays,
)
from tests.sockets import loud_records, read_request
from tests.tls import STRANGER, client_context, server_context

if TYPE_CHECKING:
    from tests.wire import Peer

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


# The back-off.


async def test_attempts_come_later_and_later() -> None:
    server = Server(*[leaves] * 10, stays)
    _, attempts = await first_message(server)
    assert attempts == 11
    assert server.waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.behaviour(102)
async def test_accept_then_close_does_not_reset_the_backoff() -> None:
    server = Server(*[closes_after(0)] * 4, stays)
    await first_message(server)
    assert server.waits == [0.5, 1, 2, 4]


@pytest.mark.behaviour(102)
async def test_backoff_begins_anew_after_a_stable_connection() -> None:
    server = Server(leaves, leaves, closes_after(9.5), closes_after(10.5), leaves, stays)
    await first_message(server)
    assert server.waits == [0.5, 1, 9.5 + 2, 10.5 + 0.5, 1]


@pytest.mark.behaviour(102)
async def test_body_that_goes_on_after_the_end_does_not_make_a_connection_stable() -> None:
    server = Server(closes_after(1), closes_after(1), stays)
    async with memory_network() as network:
        network.script(server)
        async with anyws.reconnect("ws://localhost/", backoff=STEADY) as session:
            async for _ in session:
                if session.attempts == 3:
                    break
                await anyio.sleep(100)
    assert server.waits == [100.5, 101]


async def test_wait_that_is_cancelled_goes_on() -> None:
    server = Server(leaves, leaves, leaves, stays)
    async with memory_network() as network:
        network.script(server)
        async with anyws.reconnect("ws://localhost/", backoff=STEADY) as session:
            ws = None
            while ws is None:
                with anyio.move_on_after(0.3):
                    ws = await anext(session)
            assert session.attempts == 4
    assert server.waits == [0.5, 1, 2]


async def test_closing_that_is_cancelled_drops_the_connection() -> None:
    async with memory_network() as network:
        network.script(Server(never_closes, stays))
        async with anyws.reconnect("ws://localhost/", backoff=STEADY) as session:
            ws = await anext(session)
            with takes(1), anyio.move_on_after(1):
                await anext(session)
            assert ws.closed
            with takes(0.5):
                other = await anext(session)
            assert await other.recv() == "hello"


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured(status: int) -> None:
    server = Server(refuses(status, "Retry-After: 120"), refuses(status), stays)
    await first_message(server)
    assert server.waits == [120.5, 1]


async def test_retry_after_is_honoured_behind_a_redirect() -> None:
    server = Server(refuses(302, "Location: /other"), refuses(503, "Retry-After: 120"), stays)
    await first_message(server)
    assert server.waits == [0, 120.5]


async def test_retry_after_may_be_a_date() -> None:
    server = Server(
        refuses(
            503,
            "Date: Sun, 06 Nov 1994 08:49:37 GMT",
            "Retry-After: Sun, 06 Nov 1994 08:50:07 GMT",
        ),
        stays,
    )
    await first_message(server)
    assert server.waits == [30.5]


# Which errors end it.


@pytest.mark.behaviour(103)
@pytest.mark.parametrize("status", [401, 403, 404])
async def test_status_that_is_not_worth_another_try_is_raised_as_itself(status: int) -> None:
    server = Server(leaves, refuses(status))
    with pytest.raises(anyws.InvalidStatus) as caught:
        await first_message(server)
    assert caught.value.response.status == status
    assert len(server.times) == 2


@pytest.mark.behaviour(103)
async def test_error_that_retry_refuses_is_raised_as_itself() -> None:
    asked: list[Exception] = []

    def retry(exc: Exception) -> bool:
        asked.append(exc)
        return len(asked) < 3

    with pytest.raises(anyws.InvalidMessage) as caught:
        await first_message(Server(leaves), retry=retry)
    assert caught.value is asked[2]


@pytest.mark.behaviour(103)
async def test_error_is_that_of_the_session_too() -> None:
    async with memory_network() as network:
        network.script(refuses(401))
        with pytest.raises(anyws.InvalidStatus) as caught:
            async with anyws.reconnect("ws://localhost/") as session:
                await anext(session)
    assert session.last_error is caught.value
    assert session.attempts == 1


@pytest.mark.behaviour(103)
async def test_bad_certificate_is_raised_at_once() -> None:
    async with memory_network() as network:
        listener = network.listen(port=443)
        async with anyws.serve(
            anyws.Connection.wait_closed,
            listeners=[listener],
            ssl=server_context(by=STRANGER),
        ):
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
                async with anyws.reconnect("wss://localhost/", ssl=client_context()) as session:
                    await anext(session)
        assert network.dialled == [("localhost", 443)]


async def test_last_error_is_raised_after_max_attempts() -> None:
    server = Server(leaves, refuses(503), refuses(500))
    with pytest.raises(anyws.InvalidStatus) as caught:
        await first_message(server, max_attempts=3)
    assert caught.value.response.status == 500
    assert server.waits == [0.5, 1]


async def test_connection_that_the_server_ends_at_once_is_a_failure() -> None:
    server = Server(closes_after(0), leaves, closes_after(0, 1013))
    with pytest.raises(anyws.ConnectionClosedError) as caught:
        async with memory_network() as network:
            network.script(server)
            async with anyws.reconnect("ws://localhost/", max_attempts=3) as session:
                async for ws in session:
                    await ws.wait_closed()
    assert caught.value.code == 1013
    assert caught.value is session.last_error
    assert len(server.times) == 3


async def test_stable_connection_ends_the_row_of_failures() -> None:
    server = Server(leaves, closes_after(11), leaves, closes_after(11), leaves, stays)
    _, attempts = await first_message(server, max_attempts=2)
    assert attempts == 6


@pytest.mark.parametrize("closes", [False, True], ids=["left", "closed"])
async def test_connection_that_we_end_is_no_failure(closes: bool) -> None:
    server = Server(stays)
    async with memory_network() as network:
        network.script(server)
        async with anyws.reconnect("ws://localhost/", max_attempts=1) as session:
            async for ws in session:
                if closes:
                    await ws.close()
                if session.attempts == 5:
                    break
            assert session.last_error is None
    assert server.codes == [1000] * 5


async def test_deadline_of_each_attempt_is_open_timeout() -> None:
    server = Server(never_answers, stays)
    await first_message(server, open_timeout=3)
    assert server.waits == [3.5]


# The log.


async def test_each_attempt_is_logged_with_its_reason_and_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    server = Server(leaves, refuses(503), closes_after(0, 1013), stays)
    async with memory_network() as network:
        network.script(server)
        uri = "ws://alice:secret@localhost/?token=secret"
        async with anyws.reconnect(uri, backoff=STEADY) as session:
            async for ws in session:
                if session.attempts == 5:
                    break
                if session.attempts == 3:
                    await ws.wait_closed()
    to = "to connect to ws://localhost/"
    cut_off = "connection closed while reading HTTP status line"
    received = "received 1013 (try again later); then sent 1013 (try again later)"
    assert caplog.messages == [
        f"attempt 2 {to} in 0.50 s: InvalidMessage: {cut_off}",
        f"attempt 3 {to} in 1.00 s: InvalidStatus: server answered with HTTP 503, expected 101",
        f"attempt 4 {to} in 2.00 s: ConnectionClosedError: {received}",
        f"attempt 5 {to} in 4.00 s: the last connection was left",
    ]
    assert {record.name for record in caplog.records} == {"anyws.client"}
    assert loud_records(caplog) == []


async def test_log_goes_to_the_logger_that_was_given(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await first_message(Server(leaves, stays), logger=logging.getLogger("robot"))
    assert [record.name for record in caplog.records] == ["robot"]


# Arguments.


async def retry_slowly(exc: Exception) -> bool:
    return True


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"backoff": 1.0}, "backoff must be a Backoff, not float"),
        ({"retry": True}, "retry must be a function, not bool"),
        ({"retry": retry_slowly}, "retry must be a plain function, not an async one"),
        ({"max_attempts": 1.0}, "max_attempts must be an int or None, not float"),
        ({"max_attempts": True}, "max_attempts must be an int or None, not bool"),
        ({"stream": None}, r"reconnect\(\) has no use for the argument 'stream'"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_argument_of_a_wrong_type_is_a_typeerror_of_the_call(
    arguments: Any, text: str
) -> None:
    with pytest.raises(TypeError, match=text):
        anyws.reconnect("ws://localhost/", **arguments)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max_attempts": 0}, "max_attempts of 0 is under 1"),
        ({"open_timeout": 0}, "open_timeout of 0 seconds is not above 0"),
        ({"uri": "http://localhost/"}, "the scheme is not ws"),
    ],
)
async def test_argument_out_of_range_is_a_valueerror_of_the_call(arguments: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        anyws.reconnect(**{"uri": "ws://localhost/"} | arguments)


def test_block_may_be_made_before_the_event_loop_runs() -> None:
    block = anyws.reconnect("ws://localhost:1/", proxy=None, retry=lambda _exc: False)

    async def enter() -> None:
        async with block as session:
            with pytest.raises(OSError, match="connect"):
                await anext(session)

    anyio.run(enter)


@pytest.mark.parametrize("answer", [None, 1, ValueError("stop")])
async def test_retry_that_gives_no_bool_is_a_typeerror(answer: Any) -> None:
    def retry(exc: Exception) -> Any:
        return answer

    kind = type(answer).__name__
    with pytest.raises(TypeError, match=f"^retry returned {kind}, expected a bool$") as caught:
        await first_message(Server(refuses(503)), retry=retry)
    assert isinstance(caught.value.__cause__, anyws.InvalidStatus)


@pytest.mark.parametrize(
    ("name", "values", "line"),
    [
        ("additional_headers", [("X-A", "1")], b"\r\nX-A: 1\r\n"),
        ("subprotocols", ["chat"], b"\r\nSec-WebSocket-Protocol: chat\r\n"),
        ("extensions", [anyws.PerMessageDeflate(server_max_window_bits=9)], b"max_window_bits=9"),
    ],
)
async def test_what_an_iterator_gives_is_sent_each_time(
    name: str, values: list[Any], line: bytes
) -> None:
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append((await read_request(peer))[0])

    arguments = {name: iter(values)}
    with pytest.raises(anyws.InvalidMessage):
        await first_message(Server(script), max_attempts=3, **arguments)
    assert [line in head for head in heads] == [True] * 3
