"""The core's timers, on the reactor's clock."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from imapgate.session.effects import Timer


class Timers:
    """One session's timers; of each kind there is one.

    :param ticked: called with the timer whose time has passed
    """

    __slots__ = ("_calls", "_clock", "_ticked")

    def __init__(self, clock: IReactorTime, ticked: Callable[[Timer], None]) -> None:
        self._clock = clock
        self._ticked = ticked
        self._calls: list[tuple[Timer, IDelayedCall]] = []

    def set(self, timer: Timer, seconds: float) -> None:
        """Let it tick once, after so many seconds; setting it again moves it."""
        self.cancel(timer)
        self._calls.append((timer, self._clock.callLater(seconds, self._passed, timer)))

    def cancel(self, timer: Timer) -> None:
        """Forget it."""
        for entry in self._calls:
            if entry[0] is timer:
                self._calls.remove(entry)
                if entry[1].active():
                    entry[1].cancel()
                break

    def cancel_all(self) -> None:
        """Forget all of them."""
        calls, self._calls = self._calls, []
        for _, call in calls:
            call.cancel()

    def _passed(self, timer: Timer) -> None:
        self.cancel(timer)
        self._ticked(timer)
