"""A line in is a message out, and the reverse; what ends it, and with which Close."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from anyws._cli._pipe import Pipe
from anyws.testing import connection_pair
from tests.cli.pipes import OpenPipe, client_arguments
from tests.sockets import LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    import anyws

pytestmark = pytest.mark.anyio


class Talk:
    """A Pipe with pipes at both ends, over a connection to a peer that a test plays."""

    def __init__(self, ws: anyws.Connection, peer: anyws.Connection) -> None:
        self.ws = ws
        self.peer = peer
        self.stdin = OpenPipe()
        self.stdout = OpenPipe()

    async def run(self, *options: str, terminal: bool = False) -> int | None:
        return await Pipe(
            self.ws,
            client_arguments(*options),
            self.stdin.reader,
            self.stdout.writer,
            terminal=terminal,
        ).run()


@asynccontextmanager
async def talking(
    play: Callable[[anyws.Connection], Awaitable[None]] | None = None, **arguments: Any
) -> AsyncGenerator[Talk, None]:
    """Give a Talk, with `play` in the place of the server; an echo unless told."""

    async def echo(peer: anyws.Connection) -> None:
        async for message in peer:
            await peer.send(message)

    with anyio.fail_after(LIMIT):
        async with connection_pair(**arguments) as (ws, peer):
            talk = Talk(ws, peer)
            with talk.stdin, talk.stdout:
                peer.start_soon(play or echo, peer)
                yield talk


async def collect(peer: anyws.Connection, messages: list[str | bytes]) -> None:
    messages.extend([message async for message in peer])


async def test_lines_are_messages_both_ways_and_their_end_closes() -> None:
    async with talking() as talk:
        talk.stdin.put(b"one\ntwo\r\n\nlast")
        assert await talk.run() is None
        await talk.ws.wait_closed()
        assert talk.ws.close_code == 1000
        assert talk.stdout.rest() == b"one\ntwo\n\nlast\n"


async def test_messages_that_come_behind_our_close_are_written() -> None:
    async def play(peer: anyws.Connection) -> None:
        async for message in peer:
            for _ in range(100):
                await peer.send(message)

    async with talking(play) as talk:
        talk.stdin.put(b"x\n")
        await talk.run()
        assert talk.stdout.rest() == b"x\n" * 100


async def test_binary_lines_are_binary_messages_and_come_out_raw() -> None:
    async with talking() as talk:
        talk.stdin.put(b"\xff\x00\nA\n")
        await talk.run("--binary")
        assert talk.stdout.rest() == b"\xff\x00A"


async def test_hex_lines_are_binary_messages() -> None:
    received: list[str | bytes] = []

    async def play(peer: anyws.Connection) -> None:
        async for message in peer:
            received.append(message)
            await peer.send(message)

    async with talking(play) as talk:
        talk.stdin.put(b"ff 00\n")
        await talk.run("--hex")
        assert talk.stdout.rest() == b"ff00\n"
    assert received == [b"\xff\x00"]


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        (["--whole"], "é\n".encode(), "é\n"),
        (["--whole"], b"", ""),
        (["--whole", "--binary"], b"\xff\n\x00", b"\xff\n\x00"),
    ],
)
async def test_whole_input_is_one_message(
    options: list[str], data: bytes, message: str | bytes
) -> None:
    received: list[str | bytes] = []
    async with talking(lambda peer: collect(peer, received)) as talk:
        talk.stdin.put(data)
        await talk.run(*options)
    assert received == [message]


async def test_count_ends_it_and_the_end_of_the_input_does_not() -> None:
    async def play(peer: anyws.Connection) -> None:
        assert await peer.recv() == "x"
        await anyio.wait_all_tasks_blocked()
        for number in range(5):
            await peer.send(f"{number}")

    async with talking(play) as talk:
        talk.stdin.put(b"x\n")
        assert await talk.run("--count", "2") is None
        assert talk.ws.open
        assert talk.stdout.rest() == b"0\n1\n"


async def test_no_close_leaves_the_end_to_the_server() -> None:
    async def play(peer: anyws.Connection) -> None:
        await anyio.wait_all_tasks_blocked()
        await peer.send("late")
        await peer.close(1001)

    async with talking(play) as talk:
        talk.stdin.close_writer()
        await talk.run("--no-close")
        await talk.ws.wait_closed()
        assert talk.ws.close_code == 1001
        assert talk.stdout.rest() == b"late\n"


async def test_end_of_the_connection_ends_it_while_the_input_is_open() -> None:
    async with talking(lambda peer: peer.close(4000)) as talk:
        assert await talk.run() is None
        await talk.ws.wait_closed()
        assert talk.ws.close_code == 4000


async def test_end_of_the_connection_ends_it_while_lines_are_sent(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"x\n" * 100_000)

    async def play(peer: anyws.Connection) -> None:
        await peer.recv()
        await peer.close(4000)

    async with talking(play) as talk:
        number = os.open(path, os.O_RDONLY)
        try:
            pipe = Pipe(talk.ws, client_arguments(), number, talk.stdout.writer)
            assert await pipe.run() is None
        finally:
            os.close(number)
        await talk.ws.wait_closed()
        assert talk.ws.close_code == 4000


async def test_line_that_comes_too_late_is_nothing() -> None:
    async with talking() as talk:
        await talk.ws.close()
        talk.stdin.put(b"x\n")
        with anyio.CancelScope() as scope:
            pipe = Pipe(talk.ws, client_arguments(), talk.stdin.reader, talk.stdout.writer)
            await pipe._send(scope)
        assert not scope.cancel_called


async def test_output_without_a_reader_ends_it_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    async with talking() as talk:
        talk.stdin.put(b"x\n", end=False)
        talk.stdout.close_reader()
        assert await talk.run() is None
        assert talk.ws.open
    assert capsys.readouterr().err == ""


async def test_output_that_cannot_be_written_is_a_failure(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.touch()
    number = os.open(path, os.O_RDONLY)
    try:
        async with talking() as talk:
            talk.stdin.put(b"x\n", end=False)
            pipe = Pipe(talk.ws, client_arguments(), talk.stdin.reader, number)
            assert await pipe.run() == 1
    finally:
        os.close(number)
    assert capsys.readouterr().err == "anyws: cannot write the output: Bad file descriptor\n"


async def test_input_that_cannot_be_read_is_a_failure(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    number = os.open(tmp_path, os.O_RDONLY)
    try:
        async with talking() as talk:
            pipe = Pipe(talk.ws, client_arguments(), number, talk.stdout.writer)
            assert await pipe.run() == 1
    finally:
        os.close(number)
    assert capsys.readouterr().err == "anyws: cannot read the input: Is a directory\n"


@pytest.mark.parametrize("options", [[], ["--whole"], ["--no-close"]])
async def test_input_that_is_no_text_is_a_failure(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    async with talking() as talk:
        talk.stdin.put(b"\xff")
        assert await talk.run(*options) == 1
    assert "not UTF-8" in capsys.readouterr().err


async def test_slow_output_stops_reading() -> None:
    sent = 0

    async def play(peer: anyws.Connection) -> None:
        nonlocal sent
        while True:
            await peer.send("x" * 10_000)
            sent += 1

    async with talking(play, max_queue=4, read_limit=2**16, compression=None) as talk:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk.run)
            await talk.stdout.take(10_001)
            for _ in range(50):
                await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        # What fits into the pipe, the queues and the buffers between; 50 turns would send more.
        assert sent < 100


async def test_terminal_gets_nothing_that_acts_on_it() -> None:
    async with talking() as talk:
        talk.stdin.put(b"\x1b[2J\n")
        await talk.run(terminal=True)
        assert talk.stdout.rest() == b"\\x1b[2J\n"
