"""The loop that performs effects: in order, each of them once, however it is nested, suspended and resumed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.net.loop import Loop
from imapgate.session.effects import Effect, Release, SendClient, SendUpstream, Timer


class Does(NamedTuple):
    """An effect that, when it is performed, calls something."""

    name: str
    call: Callable[[Bench], None] = lambda bench: None


class Bench:
    """A loop, and what it has performed."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.loop = Loop(
            {Does: Bench._does, SendClient: Bench._data, SendUpstream: Bench._data, Release: Bench._other}, self
        )

    def _does(self, effect: Does) -> None:
        self.done.append(effect.name)
        effect.call(self)

    def _data(self, effect: SendClient) -> None:
        self.done.append(effect.data)

    def _other(self, effect: Effect) -> None:
        self.done.append("release")

    def perform(self, *effects: Any) -> list[Any]:
        """Perform these; what was done so far."""
        self.loop.perform(list(effects))
        return self.done


def suspends(bench: Bench) -> None:
    """Stand still."""
    bench.loop.suspend()


def test_in_order() -> None:
    """Effects are performed in their order, by what the table says for their kind, for the owner."""
    bench = Bench()
    assert bench.perform(SendClient(b"1"), Does("2"), SendUpstream(b"3")) == [b"1", "2", b"3"]
    assert bench.perform() == [b"1", "2", b"3"]
    with pytest.raises(KeyError):
        bench.perform(Timer.IDLE)


def test_what_comes_up_meanwhile_stands_behind() -> None:
    """Nothing is performed inside of anything else, and two that come up keep their order."""
    bench = Bench()
    inner = Does("b", lambda bench: bench.loop.perform([SendClient(b"d")]))
    outer = Does("a", lambda bench: (bench.loop.perform([inner]), bench.loop.perform([SendClient(b"c")]))[0])
    assert bench.perform(outer, SendClient(b"x")) == ["a", b"x", "b", b"c", b"d"]


def test_the_list_is_the_callers() -> None:
    """What is given to it is not changed, and what becomes of the list later changes nothing."""
    bench = Bench()
    effects: list[Any] = [Does("a", suspends), SendClient(b"b")]
    bench.loop.perform(effects)
    assert len(effects) == 2
    effects.append(SendClient(b"c"))
    bench.loop.resume()
    assert bench.done == ["a", b"b"]


def test_suspended_in_the_middle() -> None:
    """The rest waits, and what comes meanwhile stands behind it; each is done once, in order."""
    bench = Bench()
    grows = Does("a", lambda bench: bench.loop.perform([SendClient(b"c")]))
    assert bench.perform(grows, Does("stop", suspends), SendClient(b"b")) == ["a", "stop"]
    assert bench.perform(SendClient(b"d")) == ["a", "stop"]
    bench.loop.resume()
    assert bench.done == ["a", "stop", b"b", b"c", b"d"]
    assert bench.perform(SendClient(b"e"))[5:] == [b"e"]


def test_suspended_by_the_last() -> None:
    """An effect with nothing behind it suspends, too."""
    bench = Bench()
    bench.perform(Does("stop", suspends))
    assert bench.perform(SendClient(b"a")) == ["stop"]
    bench.loop.resume()
    assert bench.done == ["stop", b"a"]


def test_suspended_again_and_again() -> None:
    """Whatever waits may suspend it again."""
    bench = Bench()
    bench.perform(Does("1", suspends), Does("2", suspends), SendClient(b"3"))
    bench.loop.resume()
    assert bench.done == ["1", "2"]
    bench.perform(Does("4", suspends))
    bench.loop.resume()
    assert bench.done == ["1", "2", b"3", "4"]
    bench.loop.resume()
    assert bench.perform(SendClient(b"5"))[4:] == [b"5"]


def test_resumed_without_a_kind() -> None:
    """Of what waits, effects of those kinds are dropped; of what comes later, none."""
    bench = Bench()
    bench.perform(Does("stop", suspends), SendClient(b"a"), Release(False), SendUpstream(b"b"))
    bench.perform(SendClient(b"c"), Does("d"))
    bench.loop.resume((SendClient, SendUpstream))
    assert bench.done == ["stop", "release", "d"]
    assert bench.perform(SendClient(b"e"))[3:] == [b"e"]


def test_resumed_inside_of_the_effect_that_suspended_it() -> None:
    """It goes on with the rest of the list, without what is to be dropped; what came up meanwhile is behind."""

    def hesitates(bench: Bench) -> None:
        bench.loop.suspend()
        bench.loop.perform([Does("late")])
        bench.loop.resume()

    def gives_up(bench: Bench) -> None:
        bench.loop.suspend()
        bench.loop.resume((SendClient,))
        bench.loop.perform([SendClient(b"BYE")])

    bench = Bench()
    assert bench.perform(Does("a", hesitates), SendClient(b"b")) == ["a", b"b", "late"]
    bench = Bench()
    assert bench.perform(Does("a", gives_up), SendClient(b"OK"), Release(False)) == ["a", "release", b"BYE"]


def test_resumed_though_it_runs() -> None:
    """A loop that does not stand still goes on as it did, and drops nothing."""
    bench = Bench()
    resumes = Does("a", lambda bench: bench.loop.resume((SendClient,)))
    assert bench.perform(resumes, SendClient(b"b")) == ["a", b"b"]
    bench.loop.resume((SendClient,))
    assert bench.perform(SendClient(b"c"))[2:] == [b"c"]


def test_an_error_drops_nothing_but_what_raised_it() -> None:
    """What stood behind it is done next, before what comes then."""

    def breaks(bench: Bench) -> None:
        raise RuntimeError("a bug")

    bench = Bench()
    with pytest.raises(RuntimeError):
        bench.perform(Does("a"), Does("b", breaks), SendClient(b"c"))
    assert bench.perform(SendClient(b"d")) == ["a", "b", b"c", b"d"]


@given(st.lists(st.tuples(st.sampled_from(["plain", "suspend", "spawn", "sync"]), st.booleans()), max_size=30))
def test_nothing_is_dropped_or_doubled(plan: list[tuple[str, bool]]) -> None:
    """However effects suspend the loop and cause others, each is done once, and in the order in which it came."""
    bench = Bench()
    came: list[str] = []

    def effect(kind: str) -> Does:
        came.append(f"{len(came)} {kind}")
        return Does(came[-1], {"plain": lambda bench: None, "suspend": suspends, "spawn": spawns, "sync": sync}[kind])

    def spawns(bench: Bench) -> None:
        bench.loop.perform([effect("plain"), effect("suspend")])

    def sync(bench: Bench) -> None:
        bench.loop.suspend()
        bench.loop.resume()

    batch: list[Any] = []
    for kind, resumes in plan:
        batch.append(effect(kind))
        if resumes:
            bench.loop.perform(batch)
            batch = []
            bench.loop.resume()
    bench.loop.perform(batch)
    while len(bench.done) < len(came):
        before = len(bench.done)
        bench.loop.resume()
        assert len(bench.done) > before
    assert bench.done == came
    bench.loop.resume()
    assert len(bench.done) == len(came)
