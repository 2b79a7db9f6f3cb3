"""A line that is edited at the bottom of the terminal, by prompt_toolkit, in a thread of its own.

Owns that thread, and the passage of texts to it and from it. prompt_toolkit runs on asyncio alone,
so it has an event loop there: one way for all backends. The thread ends when `open_prompt` is left,
however that is; nothing else waits for a key.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from anyio import Event, create_task_group, from_thread, open_signal_receiver, to_thread
from anyio.lowlevel import current_token
from prompt_toolkit import PromptSession
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from prompt_toolkit.input import Input
    from prompt_toolkit.key_binding import KeyPressEvent
    from prompt_toolkit.output import Output

    from ._formatting import Palette

# Texts that wait for the terminal before `show` does: a few screens.
_MAX_WAITING = 100


@asynccontextmanager
async def open_prompt(
    interrupt: Callable[[], None],
    palette: Palette,
    *,
    terminal_input: Input | None = None,
    terminal_output: Output | None = None,
) -> AsyncGenerator[Prompt, None]:
    """Edit lines as long as the block runs.

    Args:
        interrupt: called in the event loop on Ctrl-C, which is a key here and no signal.
        palette: the colours.
        terminal_input: where keys come from; None takes the terminal of the process.
        terminal_output: where it is drawn; likewise.

    Cancellation: the line that is being typed is lost; the terminal is left as it was.
    """
    # Made here: prompt_toolkit asks which signals there are, and that is the main thread's to say.
    session = _make_session(palette, terminal_input, terminal_output)
    prompt = Prompt(session, interrupt)
    async with create_task_group() as tasks:
        tasks.start_soon(prompt.run)
        tasks.start_soon(_watch_size, prompt)
        try:
            yield prompt
        finally:
            prompt.stop()
            tasks.cancel_scope.cancel()


async def _watch_size(prompt: Prompt) -> None:
    """Redraw when the terminal has got another size, until cancelled.

    prompt_toolkit hears of it in the main thread only; elsewhere it asks twice a second, and misses
    what happens in the first half second of each line.
    """
    signum = getattr(signal, "SIGWINCH", None)
    if signum is not None:  # Windows has none
        with open_signal_receiver(signum) as signals:
            async for _ in signals:
                prompt.redraw()


class Prompt:
    """The screen with prompt_toolkit."""

    help = (
        "What is pasted is one message, sent with Enter, also with several lines; Alt-Enter begins"
        " a new line."
    )

    def __init__(self, session: PromptSession[str], interrupt: Callable[[], None]) -> None:
        self._session = session
        self._interrupt = interrupt
        self._token = current_token()
        # Of the event loop alone.
        self._typed: deque[str | None] = deque()
        self._changed = Event()
        self._printed = Event()
        # Of both threads; the lock guards whether the prompt's loop may be called, and order.
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False
        self._waiting: deque[str] = deque()

    async def run(self) -> None:
        """Edit lines until `stop()`, Ctrl-D or Ctrl-C.

        Cancellation: `stop()` ends it.
        """
        await to_thread.run_sync(self._run)

    def stop(self) -> None:
        """Have the thread end soon. Never waits."""
        with self._lock:
            self._stopped = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._exit)

    async def read(self) -> str | None:
        """Give what was typed next; None after Ctrl-D.

        Cancellation: nothing is lost.
        """
        while not self._typed:
            self._changed = Event()
            await self._changed.wait()
        return self._typed.popleft()

    async def show(self, text: str) -> None:
        """Show lines above what is being typed; wait while the terminal is far behind.

        Cancellation: they will be shown.
        """
        with self._lock:
            self._waiting.append(text)
            if self._loop is None:
                self._print(1)
            else:
                self._loop.call_soon_threadsafe(self._print_above)
        while len(self._waiting) > _MAX_WAITING:
            if self._printed.is_set():  # others may wait for it too
                self._printed = Event()
            await self._printed.wait()

    def redraw(self) -> None:
        """Draw the line anew, soon. Never waits."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._redraw)

    # In the thread.

    def _run(self) -> None:
        asyncio.run(self._edit())

    async def _edit(self) -> None:
        with self._lock:
            if not self._stopped:
                self._loop = asyncio.get_running_loop()
        try:
            while not self._stopped:
                # Not its own handler of exceptions, which waits for a key.
                text = await self._session.prompt_async(
                    set_exception_handler=False, handle_sigint=False
                )
                self._call(self._take, text)
        except EOFError:
            self._call(self._take, None)
        except KeyboardInterrupt:
            self._call(self._interrupt)
        finally:
            with self._lock:
                self._loop = None
                self._print(len(self._waiting))
            self._call(self._wake)

    def _call(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in the event loop, and wait for it: it waits for nothing."""
        # By the token: without it a cancellation of the task that waits for the thread would count.
        from_thread.run_sync(function, *args, token=self._token)

    def _exit(self) -> None:
        """End the prompt, if one is being shown."""
        app = self._session.app
        if app.is_running and not app.is_done:
            # What is half typed stays there to be read; an empty prompt would only be in the way.
            app.erase_when_done = not app.current_buffer.text
            app.exit(exception=EOFError())

    def _redraw(self) -> None:
        app = self._session.app
        if app.is_running:
            app.renderer.erase(leave_alternate_screen=False)
            app.invalidate()

    def _print_above(self) -> None:
        """Print what waits where the prompt stands, which is drawn anew below it.

        The terminal stays in raw mode all the while, so no key that is pressed now is echoed
        between the lines, as it would be with prompt_toolkit's `run_in_terminal`.
        """
        count = len(self._waiting)
        if not count:
            return  # an earlier call has printed it
        app = self._session.app
        if app.is_running:
            app.renderer.erase(leave_alternate_screen=False)
        self._print(count)
        app.invalidate()
        # Half of it: of what `show` saw waiting, a call before this one may have printed the rest.
        if count > _MAX_WAITING // 2:
            self._call(self._wake)

    def _print(self, count: int) -> None:
        output = self._session.output
        for _ in range(count):
            text = self._waiting.popleft()
            output.write_raw(text.replace("\n", "\r\n") + "\r\n")
        output.flush()

    # In the event loop, called by the thread.

    def _take(self, text: str | None) -> None:
        self._typed.append(text)
        self._changed.set()

    def _wake(self) -> None:
        self._printed.set()


def _make_session(
    palette: Palette, terminal_input: Input | None, terminal_output: Output | None
) -> PromptSession[str]:
    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return PromptSession(
        [("class:prompt", "> ")],
        style=Style.from_dict({"prompt": "ansicyan"}),
        color_depth=None if palette.enabled else ColorDepth.DEPTH_1_BIT,
        history=InMemoryHistory(),
        key_bindings=bindings,
        input=terminal_input,
        output=terminal_output,
    )
