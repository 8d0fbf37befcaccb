"""The loop that performs what the core wants done, in order; what an effect causes stands behind it, never inside."""

from __future__ import annotations

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
        self._queue: list[Effect] = []

    def perform(self, effects: Sequence[Effect]) -> None:
        """Perform effects in order; those that come up meanwhile stand behind them."""
        if self._performing or self._suspended:
            self._queue += effects
            return
        table, owner = self._table, self._owner
        self._performing = True
        try:
            while effects:
                for done, effect in enumerate(effects, 1):
                    table[type(effect)](owner, effect)
                    if self._suspended:
                        self._queue[:0] = effects[done:]
                        return
                effects, self._queue = self._queue, []
        finally:
            self._performing = False

    def suspend(self) -> None:
        """Do nothing more until :meth:`resume`."""
        self._suspended = True

    def resume(self, without: tuple[type, ...] = ()) -> None:
        """Go on, without effects of these kinds."""
        self._suspended = False
        queue, self._queue = self._queue, []
        self.perform([effect for effect in queue if not isinstance(effect, without)] if without else queue)
