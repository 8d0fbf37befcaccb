"""A plugin that fails again and again is left alone for a while.  Pure: the time is passed in."""

from __future__ import annotations


class Breaker:
    """Opens after so many failures in a row; some time later it lets one question through, and its answer decides.

    :param failures: in a row, after which it opens
    :param pause: seconds for which it stays open
    :ivar row: failures in a row, so far
    :ivar open: the plugin is not to be asked, but for that one question
    """

    __slots__ = ("_failures", "_pause", "_trying", "_until", "open", "row")

    def __init__(self, failures: int, pause: float) -> None:
        self.row = 0
        self.open = False
        self._failures = failures
        self._pause = pause
        self._trying = False
        self._until = 0.0

    def admits(self, now: float) -> bool:
        """Whether this question, while it is open, is the one that goes through."""
        if self._trying or now < self._until:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        """The plugin has answered."""
        self.row = 0
        self.open = self._trying = False

    def failed(self, now: float) -> bool:
        """The plugin has failed; return whether it was that which opened it."""
        self.row += 1
        self._trying = False
        was_open = self.open
        if was_open or self.row >= self._failures:
            self.open = True
            self._until = now + self._pause
        return self.open and not was_open

    def given_up(self) -> None:
        """Nobody waits for the answer any more: it says nothing about the plugin."""
        self._trying = False

    @property
    def state(self) -> str:
        """One word for an operator."""
        return "trying" if self._trying else "open" if self.open else "closed"
