"""A37: delays after failed logins, by address and by user."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.auth.penalties import AT_ONCE, FORGOTTEN_AFTER, Penalties, network

DELAYS = (2.0, 4.0, 8.0, 15.0)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("2001:db8:1:ffff::", "2001:db8:1::/48"),
        ("2001:db8:2::", "2001:db8:2::/48"),
        ("fe80::1%eth0", "fe80::/48"),
    ],
)
def test_a37_network(address: str, source: str) -> None:
    """One source is an IPv4 address, mapped or not, or the /48 of an IPv6 one."""
    assert network(address) == source


def test_a37_delays_grow() -> None:
    """Each failure costs more than the one before, up to the last delay, which is that of all that follow."""
    penalties = Penalties(DELAYS)
    now, held = 0.0, []
    for _ in range(6):
        now += penalties.admit(now, "192.0.2.1", "alice")
        held.append(penalties.failed(now, "192.0.2.1", "alice"))
        now += held[-1]
    assert held == [2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def test_first_attempt_waits_for_nothing() -> None:
    """Who has not failed neither waits nor is remembered."""
    penalties = Penalties(DELAYS)
    for _ in range(100):
        assert penalties.admit(5.0, "192.0.2.1", "alice") == 0.0
    assert len(penalties) == 0


@pytest.mark.parametrize(
    ("address", "user", "waits"),
    [
        ("192.0.2.1", "alice", 2.0),
        ("192.0.2.1", "bob", 2.0),
        ("192.0.2.9", "alice", 2.0),
        (None, "alice", 2.0),
        ("192.0.2.1", "", 2.0),
        ("192.0.2.9", "bob", 0.0),
        (None, "bob", 0.0),
        ("192.0.2.9", "", 0.0),
    ],
)
def test_a37_by_address_and_by_user(address: str | None, user: str, waits: float) -> None:
    """A failure is held against its address and against its user, and against nobody else."""
    penalties = Penalties(DELAYS)
    penalties.failed(10.0, "192.0.2.1", "alice")
    assert penalties.admit(10.0, address, user) == waits


def test_a37_parallel_attempts_queue() -> None:
    """Attempts on many connections at once get their turns one behind the other."""
    penalties = Penalties(DELAYS)
    penalties.failed(0.0, "192.0.2.1", "alice")
    waits = [penalties.admit(0.0, f"192.0.2.{number}", "alice") for number in range(2, 7)]
    assert waits == [2.0, 4.0, 6.0, 8.0, 10.0]


def test_a37_a_failure_never_shortens_a_wait() -> None:
    """An attempt that fails while others are waiting leaves their places where they are."""
    penalties = Penalties(DELAYS)
    penalties.failed(0.0, None, "alice")
    for _ in range(5):
        penalties.admit(0.0, None, "alice")
    penalties.failed(0.0, None, "alice")
    assert penalties.admit(0.0, None, "alice") == 12.0


def test_a37_a_burst_is_spaced() -> None:
    """Guesses at one user from everywhere at once are spaced before the first failure is known."""
    penalties = Penalties([2.0, 4.0])
    assert [penalties.enter("alice") for _ in range(AT_ONCE + 3)] == [0.0] * AT_ONCE + [2.0, 4.0, 6.0]
    assert penalties.enter("bob") == 0.0
    for _ in range(AT_ONCE + 3):
        penalties.leave("alice")
    assert penalties.enter("alice") == 0.0


def test_a_burst_of_nobody_known() -> None:
    """Attempts that hide their user, and gates without delays, are not spaced."""
    penalties, without = Penalties([2.0]), Penalties([])
    assert [penalties.enter("") for _ in range(AT_ONCE + 3)] == [0.0] * (AT_ONCE + 3)
    assert [without.enter("alice") for _ in range(AT_ONCE + 3)] == [0.0] * (AT_ONCE + 3)


def test_success_forgets() -> None:
    """A login that succeeds clears its user and its address, and nobody else."""
    penalties = Penalties(DELAYS)
    penalties.failed(0.0, "192.0.2.1", "alice")
    penalties.failed(0.0, "192.0.2.1", "bob")
    penalties.succeeded("192.0.2.1", "alice")
    assert penalties.admit(0.0, "192.0.2.1", "alice") == 0.0
    assert penalties.admit(0.0, "192.0.2.9", "bob") == 2.0
    penalties.succeeded(None, "nobody")
    assert len(penalties) == 1


def test_forgotten_in_time() -> None:
    """A while after the end of the last delay, a failure counts no more."""
    penalties = Penalties(DELAYS)
    penalties.failed(0.0, None, "alice")
    penalties.failed(0.0, None, "alice")
    assert penalties.failed(4.0 + FORGOTTEN_AFTER, None, "alice") == 8.0
    assert penalties.admit(12.1 + 2 * FORGOTTEN_AFTER, None, "alice") == 0.0
    assert penalties.failed(12.1 + 2 * FORGOTTEN_AFTER, None, "alice") == 2.0


def test_no_delays() -> None:
    """Without delays nothing is held back, and nothing is kept."""
    penalties = Penalties(())
    assert penalties.failed(0.0, "192.0.2.1", "alice") == 0.0
    assert penalties.admit(0.0, "192.0.2.1", "alice") == 0.0
    assert len(penalties) == 0


def test_a37_the_table_is_bounded() -> None:
    """The table keeps those that failed last; a failure moves its entry to the end."""
    penalties = Penalties(DELAYS, most=3)
    for user in ("a", "b", "c", "a", "d"):
        penalties.failed(0.0, None, user)
    assert len(penalties) == 3
    assert penalties.admit(0.0, None, "b") == 0.0
    assert penalties.admit(0.0, None, "a") == 4.0
    assert penalties.admit(0.0, None, "c") == 2.0


users = st.sampled_from(["a", "b", ""])
addresses = st.sampled_from(["192.0.2.1", "2001:db8::1", None])


@given(st.lists(st.tuples(st.booleans(), addresses, users, st.floats(0, 20)), max_size=40))
def test_a37_attempts_of_one_user_are_apart(attempts: list[tuple[bool, str | None, str, float]]) -> None:
    """However attempts and failures come, two attempts of one user who has failed are a delay apart at least."""
    penalties = Penalties(DELAYS)
    now = 0.0
    last: dict[str, float] = {}
    for fails, address, user, passed in attempts:
        now += passed
        if fails:
            assert penalties.failed(now, address, user) in (*DELAYS, 0.0)
            last.setdefault(user, now)
        else:
            start = now + penalties.admit(now, address, user)
            assert start >= now
            if user in last and user and now - last[user] < FORGOTTEN_AFTER:
                assert start - last[user] >= DELAYS[0] - 1e-6
                last[user] = start
            elif user in last:
                del last[user]
                penalties.succeeded(address, user)


def test_configure() -> None:
    """A reload changes the delays of the failures that follow, and forgets nobody."""
    penalties = Penalties([2.0])
    penalties.failed(0.0, None, "alice")
    penalties.configure([5.0, 9.0])
    assert penalties.admit(0.0, None, "alice") == 2.0
    assert penalties.failed(10.0, None, "alice") == 9.0
    penalties.configure([])
    assert penalties.failed(10.0, None, "alice") == 0.0


def test_no_delays_from_now_on() -> None:
    """A reload that takes the delays away forgives everybody, at once."""
    penalties = Penalties([2.0, 4.0])
    penalties.failed(0.0, "192.0.2.1", "alice")
    penalties.configure([])
    assert penalties.admit(0.0, "192.0.2.1", "alice") == 0.0
    assert penalties.failed(0.0, "192.0.2.1", "alice") == 0.0
    penalties.configure([3.0])
    assert penalties.failed(0.0, "192.0.2.1", "alice") == 3.0
