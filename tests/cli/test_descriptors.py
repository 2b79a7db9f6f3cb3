"""Pipes, files and what is none of them are read and written, and that can be cancelled."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import anyio
import pytest

from anyws._cli import _descriptors
from anyws._cli._descriptors import Descriptor
from tests.cli.pipes import OpenPipe
from tests.sockets import LIMIT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_lines_come_without_their_ends() -> None:
    with OpenPipe() as pipe, anyio.fail_after(LIMIT):
        pipe.put(b"one\r\ntwo\n\nlast")
        descriptor = Descriptor(pipe.reader)
        lines = [await descriptor.read_line() for _ in range(6)]
    assert lines == [b"one", b"two", b"", b"last", None, None]


async def test_line_may_come_in_pieces() -> None:
    with OpenPipe() as pipe, anyio.fail_after(LIMIT):
        descriptor = Descriptor(pipe.reader)
        pipe.put(b"be", end=False)
        with anyio.move_on_after(0):
            await descriptor.read_line()
        async with anyio.create_task_group() as tasks:
            lines: list[bytes | None] = []

            async def read() -> None:
                lines.append(await descriptor.read_line())

            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            pipe.put(b"gin\n")
    assert lines == [b"begin"]


async def test_reading_is_cancelled_and_loses_nothing() -> None:
    with OpenPipe() as pipe, anyio.fail_after(LIMIT):
        descriptor = Descriptor(pipe.reader)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(descriptor.read_line)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        pipe.put(b"line\n")
        assert await descriptor.read_line() == b"line"


async def test_file_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    number = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        with anyio.fail_after(LIMIT):
            await Descriptor(number).write(b"a\nb\n")
            os.lseek(number, 0, os.SEEK_SET)
            descriptor = Descriptor(number)
            lines = [await descriptor.read_line() for _ in range(3)]
    finally:
        os.close(number)
    assert lines == [b"a", b"b", None]


async def test_slow_reader_makes_writing_wait_until_cancelled() -> None:
    with OpenPipe() as pipe, anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Descriptor(pipe.writer).write, bytes(2**21))
            first = await pipe.take(2**20)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        rest = pipe.rest()
    assert len(first) + len(rest) < 2**21


async def test_pipe_without_a_reader_is_broken() -> None:
    with OpenPipe() as pipe, anyio.fail_after(LIMIT):
        pipe.close_reader()
        with pytest.raises(BrokenPipeError):
            await Descriptor(pipe.writer).write(b"x")


async def test_terminal_that_has_gone_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int, size: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with OpenPipe() as pipe, anyio.fail_after(LIMIT):
        pipe.put(b"x")
        monkeypatch.setattr("anyws._cli._descriptors.os.read", fail)
        assert await Descriptor(pipe.reader).read() == b""
        monkeypatch.undo()


async def test_folder_cannot_be_read(tmp_path: Path) -> None:
    number = os.open(tmp_path, os.O_RDONLY)
    try:
        with anyio.fail_after(LIMIT), pytest.raises(IsADirectoryError):
            await Descriptor(number).read()
    finally:
        os.close(number)


async def test_line_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_descriptors, "_MAX_LINE_SIZE", 9)
    with OpenPipe() as pipe, anyio.fail_after(LIMIT):
        pipe.put(b"0123456789")
        with pytest.raises(ValueError, match="line of more than 9 bytes"):
            await Descriptor(pipe.reader).read_line()
