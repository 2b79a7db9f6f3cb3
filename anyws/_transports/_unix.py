"""The file of a UNIX socket that listens: it goes with the listener.

Owns the file; the socket, and accepting, are the business of the listener below.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio.abc import Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike

    from anyio.abc import TaskGroup


class UnixListener(Listener[Any]):
    """A listener that takes its file away when it is closed, unless another one's is there by then.

    Args:
        listener: listens; it is closed with this one.
        path: where it does.
    """

    def __init__(self, listener: Listener[Any], path: str | PathLike[str]) -> None:
        self.listener = listener
        """The one below."""
        self._path = Path(path).absolute()  # whatever the current folder is by then
        self._file = _identify(self._path)

    async def serve(
        self, handler: Callable[[Any], Any], task_group: TaskGroup | None = None
    ) -> None:
        """Start a task for each connection that comes, as the listener below does."""
        await self.listener.serve(handler, task_group)

    async def aclose(self) -> None:
        """Take the file away, and close the listener below."""
        # First: as long as the socket is open, no other file can have its number.
        self._remove_file()
        await self.listener.aclose()

    def _remove_file(self) -> None:
        if self._file is not None and _identify(self._path) == self._file:
            with suppress(OSError):  # somebody else was faster, or we may not
                self._path.unlink()
        self._file = None

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the listener below."""
        return self.listener.extra_attributes


def _identify(path: Path) -> tuple[int, int] | None:
    """Give what tells a file from all others; None if there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # an abstract address, which begins with a null character
        return None
    return status.st_dev, status.st_ino
