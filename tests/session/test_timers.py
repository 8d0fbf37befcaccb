"""Time limits: the login, idle clients, silent upstreams; the core knows no clock."""

from __future__ import annotations

from dataclasses import replace

from imapgate.limits import DEFAULTS
from imapgate.session.session import LOOKS
from tests.session.playbook import NOT_TRAILING, play, relay

ENDED = """
        <- close upstream
        <- close client
        == logout
"""
LATE_CLIENT = f"C> * BYE Too long without a command\n{ENDED}"
LATE_FREE = LATE_CLIENT.replace("close upstream", "release")
LATE_UPSTREAM = f"C> * BYE [UNAVAILABLE] The mail server does not answer\n{ENDED}"


def test_a41_login_deadline() -> None:
    """A41: the time to log in is absolute; octets do not extend it, STARTTLS does not either."""
    session = play(
        f"C: a1 NOOP\nC> a1 OK Nothing done\nC. a\n-> tick login\nC> * BYE Too long without a login\n{ENDED}"
    )
    assert session.reason == "login timed out"
    play(
        "C: a1 LOGIN u p\n<- ask LOGIN u p\n-> tick login\n"
        f"C> * BYE Too long without a login\n{ENDED}-> granted IMAP4rev1\n"
    )


def _looks(timer: str, number: int, seconds: float) -> str:
    return f"-> tick {timer}\n<- set {timer} {seconds:g}\n" * number


def test_idle_client() -> None:
    """A client that says nothing for the whole time, looked at in parts, is sent away; any octet begins it anew."""
    session = relay(f"{_looks('idle', LOOKS, 240)}-> tick idle\n{LATE_FREE}", ways=NOT_TRAILING)
    assert session.reason == "idle"
    relay(f"{_looks('idle', 8, 240)}C. a\n{_looks('idle', LOOKS, 240)}-> tick idle\n{LATE_FREE}", ways=NOT_TRAILING)


def test_idle_client_in_idle() -> None:
    """IDLE is no excuse: the limit is the client's silence."""
    relay(
        f"""
        C: a1 IDLE
        U> g1 IDLE
        U< +
        C> +
        <- set IDLE refresh 1620
        {_looks("idle", LOOKS, 240)}
        U< * 1 EXISTS
        C> * 1 EXISTS
        -> tick idle
        {LATE_CLIENT}
        """,
        ways=NOT_TRAILING,
    )


def test_a_client_that_waits_is_not_idle() -> None:
    """A client that is owed an answer may be silent."""
    relay(f"C: a1 NOOP\nU> g1 NOOP\n{_looks('idle', 20, 240)}", ways=NOT_TRAILING)


def test_a_client_that_owes_its_message_is_idle() -> None:
    """A client that stops in the middle of a message waits for nobody: the limit holds."""
    relay(
        f"""
        C: a1 APPEND INBOX {{6}}
        U> g1 APPEND INBOX {{6}}
        U< +
        C> +
        C. abc
        U>. abc
        {_looks("idle", LOOKS, 240)}
        -> tick idle
        {LATE_CLIENT}
        """,
        ways=NOT_TRAILING,
    )


def test_f6_silent_upstream() -> None:
    """F6: no octet in the whole time while an answer is owed ends the session."""
    session = relay(
        f"C: a1 NOOP\nU> g1 NOOP\n{_looks('upstream', LOOKS, 7.5)}-> tick upstream\n{LATE_UPSTREAM}", ways=NOT_TRAILING
    )
    assert session.reason == "upstream timed-out"


def test_f6_any_octet_counts() -> None:
    """F6: an upstream that works on it says so, by anything."""
    some = "U< * OK working\nC> * OK working\n"
    relay(f"C: a1 NOOP\nU> g1 NOOP\n{(_looks('upstream', 7, 7.5) + some) * 3}", ways=NOT_TRAILING)


def test_f6_slow_commands() -> None:
    """F6: SEARCH, APPEND and their like are given longer."""
    relay(
        f"C: a1 SEARCH ALL\nU> g1 SEARCH ALL\n{_looks('upstream', 5 * LOOKS, 7.5)}-> tick upstream\n{LATE_UPSTREAM}",
        ways=NOT_TRAILING,
    )


def test_f6_nothing_owed() -> None:
    """F6: an upstream that owes nothing may be silent: nothing in flight, IDLE, or a message under way."""
    relay(_looks("upstream", 100, 7.5))
    relay(
        f"C: a1 IDLE\nU> g1 IDLE\nU< +\nC> +\n<- set IDLE refresh 1620\n{_looks('upstream', 100, 7.5)}",
        ways=NOT_TRAILING,
    )
    relay(
        f"C: a1 APPEND INBOX {{3}}\nU> g1 APPEND INBOX {{3}}\nU< +\nC> +\n{_looks('upstream', 100, 7.5)}",
        ways=NOT_TRAILING,
    )


def test_limits_set_the_times() -> None:
    """The times are the configuration's."""
    limits = replace(DEFAULTS, client_idle=80, upstream_first_byte=8, upstream_first_byte_slow=8, half_close=3)
    play(
        """
        C: a1 LOGIN u p
        <- ask LOGIN u p
        -> granted IMAP4rev1
        C> a1 OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID] Logged in
        <- cancel login
        <- set idle 10
        <- set upstream 1
        C: a2 NOOP
        U> g1 NOOP
        -> half-close
        <- set half-close 3
        """,
        limits=limits,
        ways=NOT_TRAILING,
    )
