"""The core's timers: one of each kind, each ticks once, and what is forgotten never does."""

from __future__ import annotations

from twisted.internet.task import Clock

from imapgate.net.timers import Timers
from imapgate.session.effects import Timer


class Ticking:
    """Timers on a clock, and when they ticked."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.ticked: list[tuple[float, Timer]] = []
        self.again: dict[Timer, float] = {}
        self.timers = Timers(self.clock, self._ticked)

    def _ticked(self, timer: Timer) -> None:
        self.ticked.append((self.clock.seconds(), timer))
        if timer in self.again:
            self.timers.set(timer, self.again.pop(timer))

    def passes(self, seconds: int) -> list[tuple[float, Timer]]:
        """Let seconds pass, one by one; what has ticked by then."""
        self.clock.pump([1.0] * seconds)
        return self.ticked


def test_each_ticks_once() -> None:
    """Timers of different kinds are told apart, and tick at their time and never again."""
    ticking = Ticking()
    ticking.timers.set(Timer.IDLE, 5.0)
    ticking.timers.set(Timer.LOGIN, 2.0)
    assert ticking.passes(30) == [(2.0, Timer.LOGIN), (5.0, Timer.IDLE)]


def test_setting_it_again_moves_it() -> None:
    """There is one of each kind: the last word counts, and it can be set again while it ticks."""
    ticking = Ticking()
    ticking.timers.set(Timer.IDLE, 2.0)
    ticking.timers.set(Timer.UPSTREAM, 3.0)
    ticking.timers.set(Timer.IDLE, 6.0)
    assert len(ticking.clock.getDelayedCalls()) == 2
    ticking.again[Timer.IDLE] = 4.0
    assert ticking.passes(30) == [(3.0, Timer.UPSTREAM), (6.0, Timer.IDLE), (10.0, Timer.IDLE)]
    assert not ticking.clock.getDelayedCalls()


def test_a_timer_that_is_cancelled() -> None:
    """It never ticks, and the others do; to cancel what is not set, or has ticked, changes nothing."""
    ticking = Ticking()
    ticking.timers.cancel(Timer.IDLE)
    for timer in (Timer.LOGIN, Timer.IDLE, Timer.UPSTREAM):
        ticking.timers.set(timer, 3.0)
    ticking.timers.cancel(Timer.IDLE)
    ticking.timers.cancel(Timer.IDLE)
    assert ticking.passes(9) == [(3.0, Timer.LOGIN), (3.0, Timer.UPSTREAM)]
    ticking.timers.cancel(Timer.LOGIN)
    ticking.timers.set(Timer.IDLE, 1.0)
    assert ticking.passes(9)[2:] == [(10.0, Timer.IDLE)]


def test_all_are_cancelled() -> None:
    """None of them ticks, and nothing is left on the clock; they can be set again, and cancelled twice."""
    ticking = Ticking()
    for timer in Timer:
        ticking.timers.set(timer, 3.0)
    ticking.timers.cancel_all()
    ticking.timers.cancel_all()
    assert not ticking.clock.getDelayedCalls()
    ticking.timers.set(Timer.LOGIN, 1.0)
    assert ticking.passes(9) == [(1.0, Timer.LOGIN)]
    ticking.timers.cancel_all()
