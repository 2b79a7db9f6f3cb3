"""How long reading or writing stood still, for `Connection.stats`.

Owns the measuring; who waits says when.
"""

from time import monotonic


class Stalls:
    """Measures how long something stood still: the longest time of all.

    Several may wait at the same time; it stands still from the first of them to the last.
    """

    __slots__ = ("_longest", "_over", "_since", "_waiting")

    def __init__(self) -> None:
        self._longest = 0.0
        self._since = 0.0
        self._waiting = 0
        self._over = False

    def begin(self) -> None:
        """Take that one more waits."""
        if not self._waiting:
            # The event loop's own clock takes ten times as long; a full inbox comes and goes with
            # each chunk where many small messages come.
            self._since = monotonic()
        self._waiting += 1

    def end(self) -> None:
        """Take that one of them waits no longer."""
        self._waiting -= 1
        if not self._waiting and not self._over:
            stall = monotonic() - self._since
            if stall > self._longest:  # noqa: PLR1730  # a call takes four times as long
                self._longest = stall

    def stop(self) -> None:
        """Take that nothing is waited for any more: the longest time is what it is."""
        self._longest = self.longest
        self._over = True

    @property
    def longest(self) -> float:
        """Seconds; what goes on counts as far as it has come."""
        if not self._waiting or self._over:
            return self._longest
        return max(self._longest, monotonic() - self._since)
