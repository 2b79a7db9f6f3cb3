"""A timer that is a task, where there is no cheaper one.

Owns the task; who sets the timer says what it does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from anyio import CancelScope, Event, current_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup


class TaskTimer:
    """Calls back once at a deadline; its task runs only while there is one.

    Args:
        task_group: where to start the task.
    """

    def __init__(self, task_group: TaskGroup) -> None:
        self._task_group = task_group
        self._deadline = math.inf
        self._callback: Callable[[], None] | None = None
        self._running = False
        self._scope = CancelScope()

    def set(self, deadline: float, callback: Callable[[], None] | None) -> None:
        """Call `callback` at `deadline`, and not what was set before; never at math.inf."""
        self._deadline = deadline
        self._callback = callback
        if self._running:
            self._scope.deadline = -math.inf if deadline == math.inf else deadline
        elif deadline < math.inf:
            self._running = True
            self._task_group.start_soon(self._run, name="anyws timer")

    async def _run(self) -> None:
        while self._deadline < math.inf:
            with CancelScope(deadline=self._deadline, shield=True) as self._scope:
                # The deadline ends it, which the end of all takes away. On asyncio, sleep_forever()
                # would leave a timer behind, for a time that never comes.
                await Event().wait()
            if self._deadline <= current_time():
                self._deadline = math.inf
                assert self._callback is not None
                self._callback()
        self._running = False
