"""The line at the bottom of the terminal: edited in a thread, which ends with the block."""

from __future__ import annotations

import io
import signal
import sys
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from traceback import walk_stack
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import anyio.to_thread
import pyte
import pytest
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from anyws._cli import _prompt
from anyws._cli._formatting import Palette
from anyws._cli._prompt import Prompt, open_prompt

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.anyio

# Seconds: on a machine that does much else, a thread waits for its turn.
LIMIT = 30
ENTER = "\r"
CTRL_C = "\x03"
CTRL_D = "\x04"
ALT_ENTER = "\x1b\r"


class Paper(io.StringIO):
    """A terminal that is written to, as an emulator shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.screen = pyte.Screen(40, 12)
        self._stream = pyte.Stream(self.screen)
        self.text = ""
        self._changed = threading.Condition()

    def write(self, text: str, /) -> int:
        with self._changed:
            self.text += text
            self._stream.feed(text)
            self._changed.notify_all()
        return len(text)

    def lines(self) -> list[str]:
        return [line for row in self.screen.display if (line := row.rstrip())]

    def wait_for(self, lines: list[str]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.lines() == lines, LIMIT)
        assert self.lines() == lines


def is_editing() -> bool:
    """Say whether any thread is in the prompt."""
    frames = [frame for top in sys._current_frames().values() for frame, _ in walk_stack(top)]
    return any(frame.f_code is Prompt._run.__code__ for frame in frames)


@dataclass
class Desk:
    keys: PipeInput
    paper: Paper
    interrupted: anyio.Event
    columns: int = 40
    prompt: Prompt = field(init=False)

    async def until_lines(self, *lines: str) -> None:
        """Wait until that is on the screen, and nothing else."""
        await anyio.to_thread.run_sync(self.paper.wait_for, list(lines))

    async def until_ended(self) -> None:
        """Wait until the thread has ended."""
        while is_editing():
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def desk(*, colours: bool = False) -> AsyncGenerator[Desk, None]:
    paper = Paper()
    interrupted = anyio.Event()
    output = Vt100_Output(paper, lambda: Size(rows=12, columns=here.columns), enable_cpr=False)
    with create_pipe_input() as keys, anyio.fail_after(LIMIT):
        here = Desk(keys, paper, interrupted)
        async with open_prompt(
            interrupted.set,
            Palette(enabled=colours),
            terminal_input=keys,
            terminal_output=output,
        ) as here.prompt:
            yield here
    assert not is_editing()


async def test_lines_are_read_until_ctrl_d() -> None:
    async with desk() as here:
        here.keys.send_text("hello" + ENTER + "one" + ALT_ENTER + "two" + ENTER + CTRL_D)
        assert [await here.prompt.read() for _ in range(3)] == ["hello", "one\ntwo", None]


async def test_paste_of_several_lines_is_one_text() -> None:
    async with desk() as here:
        here.keys.send_text("\x1b[200~one\r\ntwo\n\x1b[201~")
        here.keys.send_text("three" + ENTER)
        assert await here.prompt.read() == "one\ntwo\nthree"


async def test_line_before_comes_back_with_the_arrow() -> None:
    async with desk() as here:
        here.keys.send_text("hello" + ENTER)
        assert await here.prompt.read() == "hello"
        here.keys.send_text("\x1b[A!" + ENTER)
        assert await here.prompt.read() == "hello!"


async def test_ctrl_c_interrupts() -> None:
    async with desk() as here:
        here.keys.send_text("half" + CTRL_C)
        await here.interrupted.wait()


async def test_what_arrives_is_shown_above_what_is_typed() -> None:
    async with desk() as here:
        await here.until_lines(">")
        here.keys.send_text("half a li")
        await here.until_lines("> half a li")
        await here.prompt.show("< one\n  two")
        await here.until_lines("< one", "  two", "> half a li")
        await here.prompt.show("< three")
        here.keys.send_text("ne" + ENTER)
        assert await here.prompt.read() == "half a line"
        await here.until_lines("< one", "  two", "< three", "> half a line", ">")


async def test_end_keeps_what_is_half_typed_and_removes_an_empty_prompt() -> None:
    async with desk() as here:
        await here.until_lines(">")
        assert is_editing()
    assert here.paper.lines() == []
    async with desk() as here:
        here.keys.send_text("half")
        await here.until_lines("> half")
    assert here.paper.lines() == ["> half"]


async def test_what_is_shown_after_the_end_is_shown_at_once() -> None:
    async with desk() as here:
        here.keys.send_text(CTRL_D)
        assert await here.prompt.read() is None
        await here.until_ended()
        await here.prompt.show("< late")
        await here.until_lines(">", "< late")


async def test_what_is_shown_between_two_lines_needs_no_prompt() -> None:
    async with desk() as here:
        here.keys.send_text(CTRL_D)
        assert await here.prompt.read() is None
        await here.until_lines(">")
        here.prompt._waiting.append("< between")
        here.prompt._print_above()
        here.prompt._print_above()
        assert here.paper.lines() == [">", "< between"]


async def test_line_is_drawn_anew_when_the_terminal_has_another_size() -> None:
    async with desk() as here:
        here.keys.send_text("x" * 50)
        await here.until_lines("> " + "x" * 38, "x" * 12)
        here.columns = 20
        here.paper.screen.resize(columns=20)
        signal.raise_signal(signal.SIGWINCH)
        await here.until_lines("> " + "x" * 18, "x" * 20, "x" * 12)
        here.keys.send_text(CTRL_D)
        here.keys.send_text(ENTER + CTRL_D)
        assert await here.prompt.read() == "x" * 50
        assert await here.prompt.read() is None
        await here.until_lines("> " + "x" * 18, "x" * 20, "x" * 12, ">")
        here.prompt.redraw()
        here.prompt._redraw()


async def test_system_without_that_signal_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGWINCH")
    async with desk() as here:
        here.keys.send_text("hello" + ENTER)
        assert await here.prompt.read() == "hello"


async def test_flood_waits_for_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_prompt, "_MAX_WAITING", 4)
    async with desk() as here:
        await here.until_lines(">")
        for number in range(1000):
            await here.prompt.show(f"< {number}")
            assert len(here.prompt._waiting) <= 5
        await here.until_lines(*(f"< {number}" for number in range(989, 1000)), ">")


async def test_two_who_wait_for_the_terminal_both_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_prompt, "_MAX_WAITING", 4)
    shown = 0

    async def show(here: Desk) -> None:
        nonlocal shown
        for _ in range(500):
            await here.prompt.show("< a")
            shown += 1

    async with desk() as here:
        await here.until_lines(">")
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(show, here)
                tasks.start_soon(show, here)
    assert shown == 1000


async def test_block_that_is_left_at_once_leaves_no_thread() -> None:
    async with desk() as here:
        here.prompt.stop()
    assert here.paper.lines() == []


async def test_prompt_that_was_stopped_before_it_ran_shows_nothing() -> None:
    async with desk() as here:
        await here.until_lines(">")
        here.prompt.stop()
        await here.until_ended()
        await here.prompt.run()
    assert here.paper.lines() == []


async def test_block_that_is_cancelled_ends_the_thread() -> None:
    with anyio.CancelScope() as scope:
        async with desk() as here:
            await here.until_lines(">")
            scope.cancel()
            await here.prompt.read()


async def test_stopping_after_the_end_is_nothing() -> None:
    async with desk() as here:
        here.keys.send_text(CTRL_D)
        assert await here.prompt.read() is None
        here.prompt.stop()
        here.prompt._exit()


@pytest.mark.parametrize("colours", [True, False])
async def test_prompt_has_a_colour_where_they_are_wanted(
    colours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with desk(colours=colours) as here:
        await here.until_lines(">")
    assert ("\x1b[0;36m" in here.paper.text) is colours
