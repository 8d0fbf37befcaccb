"""Back-pressure: reasons for not reading, and sinks that give them."""

from __future__ import annotations

from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from imapgate.net.valve import Full, Sink, Valve
from tests.net.wires import Wire

LIMIT = 300.0


class Why(Enum):
    """Reasons of the core's."""

    A = "a"
    B = "b"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([Why.A, Why.B, Full.CLIENT])), max_size=20))
def test_valve(steps: list[tuple[bool, Enum]]) -> None:
    """The first reason in pauses, the last one out resumes, and neither is done twice."""

    class Source(Wire):
        changes = 0

        def pauseProducing(self) -> None:
            assert not self.paused
            self.changes += 1
            super().pauseProducing()

        def resumeProducing(self) -> None:
            assert self.paused
            self.changes += 1
            super().resumeProducing()

    source = Source()
    valve = Valve(source)
    reasons: set[Enum] = set()
    expected = 0
    for hold, reason in steps:
        before = bool(reasons)
        if hold:
            valve.hold(reason)
            reasons.add(reason)
        else:
            valve.free(reason)
            reasons.discard(reason)
        expected += bool(reasons) is not before
        assert set(valve.reasons) == reasons
        assert len(valve.reasons) == len(reasons)
        assert source.paused is bool(reasons)
    assert source.changes == expected


class Bed:
    """A sink, fed by one valve at first."""

    def __init__(self) -> None:
        self.source = Wire()
        self.valve = Valve(self.source)
        self.clock = Clock()
        self.stalls = 0
        self.sink = Sink(Full.CLIENT, self.clock, LIMIT, self.stalled)
        self.sink.feed(self.valve)

    def stalled(self) -> None:
        """Count."""
        self.stalls += 1


def test_interface() -> None:
    """A sink is a push producer."""
    assert verifyObject(IPushProducer, Bed().sink)


def test_full_holds_what_feeds() -> None:
    """A transport that is full holds everything that feeds it, what comes to feed it later too."""
    bed, late, early = Bed(), Wire(), Wire()
    bed.sink.feed(Valve(early))
    assert not early.paused
    bed.sink.pauseProducing()
    bed.sink.feed(Valve(late))
    assert bed.valve.reasons == (Full.CLIENT,)
    assert all(wire.paused for wire in (bed.source, early, late))
    bed.sink.resumeProducing()
    assert not any(wire.paused for wire in (bed.source, early, late))


def test_also() -> None:
    """What feeds the transport only now and then is held until there is room, and from then on like the rest."""
    bed, client = Bed(), Wire()
    valve = Valve(client)
    bed.sink.pauseProducing()
    assert not client.paused
    bed.sink.also(valve)
    bed.sink.also(valve)
    assert client.paused
    assert len(bed.sink._feeding) == 2
    bed.sink.resumeProducing()
    assert not client.paused
    assert valve.reasons == ()
    bed.sink.pauseProducing()
    assert client.paused


def test_full_is_one_reason_of_several() -> None:
    """A transport that has room again does not free what is held for another reason."""
    bed = Bed()
    bed.valve.hold(Why.A)
    bed.sink.pauseProducing()
    bed.sink.resumeProducing()
    assert bed.source.paused
    assert bed.valve.reasons == (Why.A,)


def test_a42_stalled() -> None:
    """A peer that takes nothing for as long as the limit says is reported once, and not before."""
    bed = Bed()
    bed.sink.pauseProducing()
    bed.clock.advance(LIMIT - 1)
    assert bed.stalls == 0
    bed.clock.advance(1)
    assert bed.stalls == 1
    bed.clock.advance(10 * LIMIT)
    assert bed.stalls == 1
    assert not bed.clock.getDelayedCalls()


def test_a42_moving_is_not_stalled() -> None:
    """A peer that takes something now and then is not stalled, however often it is full."""
    bed = Bed()
    for _ in range(10):
        bed.sink.pauseProducing()
        bed.clock.advance(LIMIT - 1)
        bed.sink.resumeProducing()
        bed.sink.pauseProducing()
        assert len(bed.clock.getDelayedCalls()) == 1
    assert bed.stalls == 0
    bed.clock.pump([LIMIT, LIMIT])
    assert bed.stalls == 1


def test_not_full_when_looked_at() -> None:
    """A transport that has room when it is looked at sets no more timers until it is full again."""
    bed = Bed()
    bed.sink.pauseProducing()
    bed.sink.resumeProducing()
    bed.clock.advance(LIMIT)
    assert bed.stalls == 0
    assert not bed.clock.getDelayedCalls()
    bed.sink.pauseProducing()
    assert len(bed.clock.getDelayedCalls()) == 1


@pytest.mark.parametrize("full", [False, True])
def test_stop(full: bool) -> None:
    """When the transport is gone its timer is, too."""
    bed = Bed()
    if full:
        bed.sink.pauseProducing()
    bed.sink.stopProducing()
    bed.sink.stopProducing()
    assert not bed.clock.getDelayedCalls()
