"""The loop that performs what the core wants done, in order; what an effect causes stands behind it, never inside."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imapgate.session.effects import Effect


class Loop:
    """Performs one session's effects.

    :param table: what does it, by the kind of effect
    :param owner: whose method that is
    """

    __slots__ = ("_owner", "_performing", "_queue", "_suspended", "_table")

    def __init__(self, table: Mapping[type, Callable[..., None]], owner: object) -> None:
        self._table: Mapping[type, Callable[[Any, Any], None]] = table
        self._owner = owner
        self._performing = False
        self._suspended = False
        self._queue: deque[Effect] = deque()

    def perform(self, effects: Sequence[Effect]) -> None:
        """Perform effects in order; those that come up meanwhile stand behind them."""
        queue = self._queue
        queue.extend(effects)
        if self._performing:
            return
        table, owner = self._table, self._owner
        self._performing = True
        try:
            while queue and not self._suspended:
                effect = queue.popleft()
                table[type(effect)](owner, effect)
        finally:
            self._performing = False

    def suspend(self) -> None:
        """Do nothing more until :meth:`resume`."""
        self._suspended = True

    def resume(self, without: tuple[type, ...] = ()) -> None:
        """Go on, if it stands still, without effects of these kinds among those that wait."""
        if not self._suspended:
            return
        self._suspended = False
        kept = [effect for effect in self._queue if not isinstance(effect, without)]
        self._queue.clear()
        self.perform(kept)
