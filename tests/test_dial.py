"""How sockets are connected: the race of addresses, and the queue of a UNIX socket."""

from __future__ import annotations

import errno
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, fail_after

from anyws._transports import _dial
from anyws._transports._dial import dial_tcp, dial_unix, interleave
from tests.transports import LIMIT, settle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyws._transports._dial import Address

pytestmark = pytest.mark.anyio

# Nobody may connect over TCP to this one, and no packet leaves for it.
NOBODY = ("255.255.255.255", 9)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def listening(stack: ExitStack) -> tuple[str, int]:
    """Give an address that answers."""
    address: tuple[str, int] = stack.enter_context(
        socket.create_server(("127.0.0.1", 0))
    ).getsockname()
    return address


@pytest.fixture
def refusing(stack: ExitStack) -> tuple[str, int]:
    """Give an address that refuses."""
    bound = stack.enter_context(socket.socket())
    bound.bind(("127.0.0.1", 0))
    address: tuple[str, int] = bound.getsockname()
    return address


@pytest.fixture
def silent(stack: ExitStack) -> tuple[str, int]:
    """Give an address that neither answers nor refuses, because its queue is full."""
    full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    address: tuple[str, int] = full.getsockname()
    for _ in range(3):
        client = stack.enter_context(socket.socket())
        client.setblocking(False)
        client.connect_ex(address)
    return address


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every name have these addresses."""

    async def getaddrinfo(*_args: Any, **_options: Any) -> list[Any]:
        await anyio.lowlevel.checkpoint()
        return [(socket.AF_INET, 0, 0, "", address) for address in addresses]

    monkeypatch.setattr(_dial, "getaddrinfo", getaddrinfo)


async def check_connected(host: str, to: tuple[str, int]) -> None:
    with fail_after(LIMIT):
        raw = await dial_tcp(host, to[1])
    with raw:
        assert raw.getpeername() == to
        assert raw.gettimeout() == 0
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_socket_is_connected_to_a_name_or_an_address(
    host: str, listening: tuple[str, int]
) -> None:
    await check_connected(host, listening)


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6")
async def test_socket_is_connected_to_an_address_of_ipv6(stack: ExitStack) -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("there is no IPv6 on the loopback")
    stack.enter_context(server)
    with await dial_tcp("::1", server.getsockname()[1]) as raw:
        assert raw.family == socket.AF_INET6


async def test_next_address_is_tried_at_once_when_one_refuses(
    monkeypatch: pytest.MonkeyPatch, refusing: tuple[str, int], listening: tuple[str, int]
) -> None:
    monkeypatch.setattr(_dial, "_ATTEMPT_DELAY", 3600)
    resolve_to(monkeypatch, refusing, listening)
    await check_connected("example", listening)


async def test_next_address_is_tried_after_a_while_when_one_is_silent(
    monkeypatch: pytest.MonkeyPatch, silent: tuple[str, int], listening: tuple[str, int]
) -> None:
    monkeypatch.setattr(_dial, "_ATTEMPT_DELAY", 0.001)
    resolve_to(monkeypatch, silent, listening)
    await check_connected("example", listening)


async def test_error_is_that_of_the_only_address(refusing: tuple[str, int]) -> None:
    with pytest.raises(ConnectionRefusedError) as info:
        await dial_tcp(*refusing)
    assert info.value.__cause__ is None


async def test_error_is_of_the_kind_that_all_addresses_gave(
    monkeypatch: pytest.MonkeyPatch, refusing: tuple[str, int]
) -> None:
    resolve_to(monkeypatch, refusing, ("127.0.0.2", refusing[1]))
    with pytest.raises(ConnectionRefusedError) as info:
        await dial_tcp("example", 80)
    assert isinstance(info.value.__cause__, ExceptionGroup)
    assert [
        error.errno for error in info.value.__cause__.exceptions if isinstance(error, OSError)
    ] == [errno.ECONNREFUSED] * 2


async def test_error_has_those_of_all_addresses_when_they_differ(
    monkeypatch: pytest.MonkeyPatch, refusing: tuple[str, int]
) -> None:
    resolve_to(monkeypatch, refusing, NOBODY)
    with pytest.raises(OSError, match=r"^no address answered$") as info:
        await dial_tcp("example", 80)
    assert isinstance(info.value.__cause__, ExceptionGroup)
    assert len(info.value.__cause__.exceptions) == 2


async def test_attempts_end_when_the_caller_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, silent: tuple[str, int]
) -> None:
    resolve_to(monkeypatch, silent)
    async with create_task_group() as tg:
        tg.start_soon(dial_tcp, "example", 80)
        await settle()
        tg.cancel_scope.cancel()


class Ends:
    """Stands in for connecting: gives connected sockets when it is told to."""

    def __init__(self, stack: ExitStack) -> None:
        self.given: list[socket.socket] = []
        self.let = anyio.Event()
        self._stack = stack

    async def connect(self, _: Address) -> socket.socket:
        near, far = socket.socketpair()
        self._stack.enter_context(near)
        self._stack.enter_context(far)
        with CancelScope(shield=True):
            await self.let.wait()
        self.given.append(near)
        return near


async def test_second_socket_is_closed_when_two_connect_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    ends = Ends(stack)
    monkeypatch.setattr(_dial, "_connect", ends.connect)
    monkeypatch.setattr(_dial, "_ATTEMPT_DELAY", 0)
    resolve_to(monkeypatch, ("one", 1), ("two", 2))
    async with create_task_group() as tg:
        winners: list[socket.socket] = []

        async def dial() -> None:
            winners.append(await dial_tcp("example", 80))

        tg.start_soon(dial)
        await settle()
        ends.let.set()
    assert [raw.fileno() != -1 for raw in ends.given] == [True, False]
    assert winners == ends.given[:1]


async def test_socket_is_closed_when_the_caller_is_cancelled_as_it_connects(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    ends = Ends(stack)
    monkeypatch.setattr(_dial, "_connect", ends.connect)
    resolve_to(monkeypatch, ("one", 1))
    async with create_task_group() as tg:
        tg.start_soon(dial_tcp, "example", 80)
        await settle()
        tg.cancel_scope.cancel()
        ends.let.set()
    assert [raw.fileno() for raw in ends.given] == [-1]


class Interrupt(BaseException):
    """Stands in for KeyboardInterrupt: on asyncio that would stop the loop."""


@pytest.mark.parametrize("cancelled", [False, True])
async def test_interrupt_of_an_attempt_stays_bare(
    monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    async def connect(_: Address) -> socket.socket:
        if cancelled:
            scope.cancel()
        raise Interrupt

    monkeypatch.setattr(_dial, "_connect", connect)
    resolve_to(monkeypatch, ("one", 1))
    with pytest.raises(Interrupt), CancelScope() as scope:
        await dial_tcp("example", 80)


def test_families_take_turns() -> None:
    six = [(socket.AF_INET6, (f"::{number}", 80, 0, 0)) for number in range(3)]
    four = [(socket.AF_INET, (f"127.0.0.{number}", 80)) for number in range(2)]
    ordered = [six[0], four[0], six[1], four[1], six[2]]
    assert interleave([*six, *four, six[0]]) == ordered
    assert interleave([*four, *six]) == [four[0], six[0], four[1], six[1], six[2]]
    assert interleave(list(four)) == four


async def test_unix_socket_is_connected_once_its_queue_has_room() -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder, "socket")
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(path))
        server.listen(0)
        while True:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(str(path))
            except BlockingIOError:
                break

        async def dial() -> None:
            stack.enter_context(await dial_unix(path))

        with fail_after(LIMIT):
            async with create_task_group() as tg:
                tg.start_soon(dial)
                await settle()
                stack.enter_context(server.accept()[0])


async def test_nothing_is_left_when_there_is_no_unix_socket() -> None:
    with pytest.raises(FileNotFoundError):
        await dial_unix("/no/such/socket")
