"""The endpoints of one upstream: users kept together, and F10, the ejection of those that are dead."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from imapgate.routing.endpoints import EJECTED_AFTER, PROBE_SECONDS, Endpoints

NAMES = ("tcp:mail1.example.org:143", "tcp:mail2.example.org:143", "tcp:mail3.example.org:143")

users = st.text(min_size=1, max_size=30)
names = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=6, unique=True)


def endpoints(names: tuple[str, ...] | list[str] = NAMES, jitter: float = 0.5) -> Endpoints:
    """Some endpoints, whose ejections last exactly as long as they should with a jitter in the middle."""
    return Endpoints(names, lambda: jitter)


def user_of(index: int, of: Endpoints) -> str:
    """A user whose sessions go to an endpoint first."""
    return next(user for user in map(str, range(1000)) if of.order(user, 0.0)[0] == index)


def fail(of: Endpoints, index: int, now: float, times: int = EJECTED_AFTER) -> None:
    """Let attempts at an endpoint fail."""
    for _ in range(times):
        of.failed(index, now)


def state(of: Endpoints, index: int, now: float) -> object:
    """What `ctl upstreams` says of an endpoint."""
    return of.rows(now)[index]["state"]


# --- hashing ----------------------------------------------------------------------------------------------------------


@given(names, users)
def test_a_user_stays_where_they_are(names: list[str], user: str) -> None:
    """Every session of a user tries the endpoints in one order, in every process, and all of them."""
    order = endpoints(names).order(user, 0.0)
    assert sorted(order) == list(range(len(names)))
    assert endpoints(names).order(user, 99.0) == order


@given(names, users, st.data())
def test_an_endpoint_that_goes_moves_only_its_users(names: list[str], user: str, data: st.DataObject) -> None:
    """Without one endpoint, everybody's order is what it was with that one taken out, wherever the list has it."""
    gone = data.draw(st.sampled_from(names))
    left = data.draw(st.permutations([name for name in names if name != gone]))
    before = [names[index] for index in endpoints(names).order(user, 0.0)]
    assert [left[index] for index in (endpoints(left).order(user, 0.0) if left else [])] == [
        name for name in before if name != gone
    ]


@pytest.mark.parametrize("number", [2, 3, 5])
def test_balance(number: int) -> None:
    """Each endpoint gets its share of users, give or take an eighth; and so do those who inherit from a dead one."""
    of = endpoints([f"tcp:mail{index}.example.org:143" for index in range(number)])
    orders = [of.order(f"user{index}@example.org", 0.0) for index in range(2000 * number)]
    first = Counter(order[0] for order in orders)
    assert all(abs(first[index] - 2000) < 250 for index in range(number)), first
    heirs = Counter(order[1] for order in orders if order[0] == 0)
    share = first[0] / (number - 1)
    assert all(abs(heirs[index] - share) < share / 4 for index in range(1, number)), heirs


# --- F10 --------------------------------------------------------------------------------------------------------------


def test_f10_ejected_after_failures_in_a_row() -> None:
    """The fifth failure in a row ejects, a success in between does not let it come to that; an ejected one is last."""
    of = endpoints()
    user = user_of(1, of)
    usual = of.order(user, 0.0)
    fail(of, 1, 0.0, EJECTED_AFTER - 1)
    of.succeeded(1)
    fail(of, 1, 0.0, EJECTED_AFTER - 1)
    assert of.order(user, 0.0) == usual
    of.failed(1, 0.0)
    assert of.order(user, 0.0) == [*usual[1:], 1]
    assert of.order(user_of(0, of), 29.9)[-1] == 1


def test_f10_one_probe_at_a_time() -> None:
    """When its time is over, one attempt goes there, of a user who belongs there; all others see it ejected."""
    of = endpoints()
    here, elsewhere = user_of(1, of), user_of(0, of)
    fail(of, 1, 0.0)
    assert of.order(here, 29.9)[-1] == 1
    assert of.order(elsewhere, 30.0)[-1] == 1
    assert state(of, 1, 30.0) == "ejected"
    assert of.order(here, 30.0)[0] == 1
    assert state(of, 1, 30.0) == "probing"
    assert of.order(here, 30.1)[-1] == 1
    assert of.order(elsewhere, 30.1)[-1] == 1
    of.succeeded(1)
    assert of.order(here, 30.2)[0] == 1
    assert state(of, 1, 30.2) == "up"


def test_f10_a_probe_that_comes_to_nothing() -> None:
    """A probe whose client has gone makes room for another after a while."""
    of = endpoints()
    here = user_of(1, of)
    fail(of, 1, 0.0)
    assert of.order(here, 40.0)[0] == 1
    assert of.order(here, 40.0 + PROBE_SECONDS - 0.1)[-1] == 1
    assert of.order(here, 40.0 + PROBE_SECONDS)[0] == 1


def test_f10_backoff() -> None:
    """Each probe that fails doubles the time, up to 300 s; a success begins anew."""
    of = endpoints()
    here, now, waited = user_of(1, of), 0.0, []
    fail(of, 1, now)
    for _ in range(6):
        seconds = of.rows(now)[1]["ejected_for"]
        assert isinstance(seconds, float)
        waited.append(seconds)
        assert of.order(here, now + seconds - 0.1)[-1] == 1
        now += seconds
        assert of.order(here, now)[0] == 1
        of.failed(1, now)
    assert waited == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]
    of.succeeded(1)
    fail(of, 1, now)
    assert of.rows(now)[1]["ejected_for"] == 30.0


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 27.0), (0.5, 30.0), (1.0, 33.0)])
def test_f10_jitter(jitter: float, seconds: float) -> None:
    """An ejection is up to a tenth shorter or longer, so that gates that start together do not probe together."""
    of = endpoints(jitter=jitter)
    fail(of, 0, 5.0)
    assert of.rows(5.0)[0]["ejected_for"] == pytest.approx(seconds)


def test_f10_stragglers() -> None:
    """Attempts that began before the ejection and fail after it are counted, and make it no longer."""
    of = endpoints()
    fail(of, 0, 0.0, EJECTED_AFTER + 10)
    assert of.rows(1.0)[0] == {
        "name": NAMES[0],
        "state": "ejected",
        "failures": 15,
        "in_a_row": 15,
        "ejected_for": 29.0,
    }


def test_f10_the_last_one_stands() -> None:
    """However often it fails, the last one that is not ejected stays; when another is back, it may go."""
    of = endpoints()
    fail(of, 0, 0.0)
    fail(of, 1, 0.0)
    fail(of, 2, 0.0, 100)
    assert [state(of, index, 0.0) for index in range(3)] == ["ejected", "ejected", "up"]
    assert of.order("anybody", 0.0)[0] == 2
    of.succeeded(0)
    assert state(of, 2, 0.0) == "up"
    of.failed(2, 0.0)
    assert state(of, 2, 0.0) == "ejected"


def test_f10_the_only_one_stands() -> None:
    """An upstream's only endpoint is tried whatever happens."""
    of = endpoints(["tcp:mail.example.org:143"])
    fail(of, 0, 0.0, 1000)
    assert of.order("alice", 0.0) == [0]
    assert state(of, 0, 0.0) == "up"


def test_checks_without_credentials() -> None:
    """A check that succeeds brings an ejected endpoint back at once; one that fails is a failure as any other."""
    of = endpoints()
    for _ in range(EJECTED_AFTER):
        of.seen(2, False, 0.0)
    assert state(of, 2, 0.0) == "ejected"
    of.seen(2, False, 30.0)
    assert of.rows(30.0)[2]["ejected_for"] == 60.0
    of.seen(2, True, 31.0)
    assert of.rows(31.0)[2] == {
        "name": NAMES[2],
        "state": "up",
        "failures": 6,
        "in_a_row": 0,
        "ejected_for": None,
    }


class Life(RuleBasedStateMachine):
    """F10: whatever happens to three endpoints in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.of = endpoints()
        self.row = [0, 0, 0]  # failures since the last success
        self.probes: dict[int, float] = {}  # when each began

    @rule(seconds=st.sampled_from([0.1, 5.0, 31.0, 400.0]))
    def passes(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(user=st.sampled_from("abcdefgh"))
    def attempt(self, user: str) -> None:
        """A login asks for its order; only a lone probe makes an ejected endpoint the first."""
        before = [row["state"] for row in self.of.rows(self.now)]
        order = self.of.order(user, self.now)
        assert sorted(order) == [0, 1, 2]
        first = order[0]
        if before[first] != "up":
            assert before[first] == "ejected"
            assert self.now - self.probes.get(first, -PROBE_SECONDS) >= PROBE_SECONDS
            assert self.of.rows(self.now)[first]["ejected_for"] == 0.0
            self.probes[first] = self.now
            order = order[1:]
        ejected = [before[index] != "up" for index in order]
        assert ejected == sorted(ejected)

    @rule(index=st.sampled_from(range(3)), check=st.booleans())
    def fails(self, index: int, check: bool) -> None:
        """An attempt or a check fails."""
        if check:
            self.of.seen(index, False, self.now)
        else:
            self.of.failed(index, self.now)
        self.row[index] += 1
        if self.of.rows(self.now)[index]["ejected_for"]:
            self.probes.pop(index, None)

    @rule(index=st.sampled_from(range(3)), times=st.just(EJECTED_AFTER))
    def dies(self, index: int, times: int) -> None:
        """Many attempts fail."""
        for _ in range(times):
            self.fails(index, False)

    @rule(index=st.sampled_from(range(3)), check=st.booleans())
    def succeeds(self, index: int, check: bool) -> None:
        """An attempt or a check succeeds."""
        if check:
            self.of.seen(index, True, self.now)
        else:
            self.of.succeeded(index)
        self.row[index] = 0
        self.probes.pop(index, None)
        assert state(self.of, index, self.now) == "up"

    @precondition(lambda self: any(self.row))
    @rule()
    def heals(self) -> None:
        """Everything works again."""
        for index in range(3):
            self.succeeds(index, True)

    @invariant()
    def sound(self) -> None:
        """One endpoint stands at least; whoever is ejected has failed often enough, and not for too long a time."""
        rows = self.of.rows(self.now)
        assert any(row["state"] == "up" for row in rows)
        for row, failures in zip(rows, self.row, strict=True):
            assert row["in_a_row"] == failures
            assert (row["ejected_for"] is None) == (row["state"] == "up")
            if isinstance(row["ejected_for"], float):
                assert failures >= EJECTED_AFTER
                assert 0.0 <= row["ejected_for"] <= 300.0


TestF10Life = Life.TestCase
