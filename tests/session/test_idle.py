"""IDLE: DONE waits for upstream's +, whatever comes in between."""

from __future__ import annotations

import pytest

from tests.session.playbook import NOT_TRAILING, relay


def test_idle() -> None:
    """IDLE, its +, updates, DONE, its answer."""
    relay(
        """
        C: a1 idle
        U> g1 IDLE
        U< + idling
        C> + idling
        U< * 4 EXISTS
        C> * 4 EXISTS
        C: done
        U> DONE
        U< * 5 EXISTS
        U< g1 OK done
        C> * 5 EXISTS
        C> a1 OK done
        C: a2 NOOP
        U> g2 NOOP
        """
    )


def test_done_is_held() -> None:
    """DONE in one write with IDLE is held until the + (Cyrus stalls otherwise), and so is what follows."""
    relay(
        """
        C: a1 IDLE
        C: DONE
        C: a2 IDLE
        C: DONE
        C: a3 NOOP
        U> g1 IDLE
        <- hold continuation
        U< + one
        C> + one
        U> DONE
        U< g1 OK done
        C> a1 OK done
        U> g2 IDLE
        U< + two
        C> + two
        U> DONE
        <- free continuation
        U< g2 OK done
        C> a2 OK done
        U> g3 NOOP
        """
    )


def test_commands_behind_done_wait_for_the_answer() -> None:
    """A command behind DONE is written when IDLE has its answer."""
    relay(
        """
        C: a1 IDLE
        U> g1 IDLE
        U< +
        C> +
        C: DONE
        C: a2 NOOP
        C: a3 LOGOUT
        U> DONE
        U< g1 OK done
        C> a1 OK done
        U> g2 NOOP
        U< g2 OK done
        C> a2 OK done
        C> * BYE Logging out
        C> a3 OK Logged out
        <- release
        <- close client
        """,
        ways=NOT_TRAILING,
    )


@pytest.mark.parametrize("completion", ["NO not now", "BAD what"])
def test_refused(completion: str) -> None:
    """A refusal ends the waiting; the next line is a command."""
    relay(
        f"""
        C: a1 IDLE
        U> g1 IDLE
        U< g1 {completion}
        C> a1 {completion}
        C: a2 NOOP
        U> g2 NOOP
        """
    )
    relay(
        f"""
        C: a1 IDLE
        C: DONE
        C: a2 NOOP
        U> g1 IDLE
        <- hold continuation
        U< g1 {completion}
        C> a1 {completion}
        U> g2 NOOP
        <- free continuation
        """
    )


def test_ended_by_upstream() -> None:
    """A server may end IDLE by itself; DONE is then a line like any other."""
    relay(
        """
        C: a1 IDLE
        U> g1 IDLE
        U< +
        C> +
        U< g1 BAD too long
        C> a1 BAD too long
        C: DONE
        C> DONE BAD Expected a command after the tag
        C: a2 NOOP
        U> g2 NOOP
        """
    )


def test_not_offered() -> None:
    """Without IDLE upstream it is BAD, and nothing is awaited."""
    relay(
        "C: a1 IDLE\nC: a2 NOOP\nC> a1 BAD IDLE is not offered here\nU> g1 NOOP\n",
        capabilities="IMAP4rev1",
    )
    relay("C: a1 IDLE x\nC> a1 BAD IDLE: too many arguments\n")


@pytest.mark.parametrize("line", ["a2 NOOP", "", "DONE ", "DONE x"])
def test_a28_anything_but_done(line: str) -> None:
    """A28: BAD, BYE, close; upstream sees nothing of it."""
    session = relay(
        f"""
        C: a1 IDLE
        U> g1 IDLE
        U< +
        C> +
        C: {line.replace(" ", "<SP>")}
        C> * BAD Expected DONE while idling
        C> * BYE Closing
        <- report violation client Expected DONE while idling
        <- close upstream
        <- close client
        """
    )
    assert session.reason == "client protocol error"


def test_idle_behind_a_literal() -> None:
    """IDLE and DONE wait behind a command that is not wholly sent; DONE is not forgotten if that is refused."""
    for answer in ("U< +\nU> <xC3><xA4>", "U< g1 NO no\nC> a1 NO no"):
        relay(
            f"""
            C: a1 SELECT {{2+}}
            C: <xC3><xA4>
            C: a2 IDLE
            C: DONE
            U> g1 SELECT {{2}}
            {answer}
            U> g2 IDLE
            U< + idling
            C> + idling
            U> DONE
            U< g2 OK done
            C> a2 OK done
            """
        )


def test_idle_while_an_earlier_command_runs() -> None:
    """Completions of earlier commands come before the + and after it."""
    relay(
        """
        C: a1 NOOP
        C: a2 CHECK
        C: a3 IDLE
        U> g1 NOOP
        U> g2 CHECK
        U> g3 IDLE
        U< g1 OK one
        U< + idling
        U< g2 OK two
        C> a1 OK one
        C> + idling
        C> a2 OK two
        C: DONE
        U> DONE
        """
    )


def test_half_close_while_idling() -> None:
    """A client that closes its sending side in IDLE has left; what it asked before IDLE is answered first."""
    relay(
        """
        C: a1 IDLE
        U> g1 IDLE
        U< +
        C> +
        -> half-close
        <- close upstream
        <- close client
        """,
        ways=NOT_TRAILING,
    )
    relay(
        """
        C: a1 FETCH 1 FLAGS
        C: a2 IDLE
        U> g1 FETCH 1 FLAGS
        U> g2 IDLE
        U< +
        C> +
        -> half-close
        U< g1 OK done
        C> a1 OK done
        <- close upstream
        <- close client
        """,
        ways=NOT_TRAILING,
    )


REFRESHING = """
        C: a1 IDLE
        U> g1 IDLE
        U< +
        C> +
        <- set IDLE refresh 1620
        -> tick IDLE refresh
        U> DONE
        <- cancel IDLE refresh
"""


def test_f12_a_long_idle_is_begun_anew() -> None:
    """F12: before a server takes 30 silent minutes for an absence, IDLE ends and begins anew, unseen by the client."""
    relay(
        f"""{REFRESHING}
        U< * 2 EXISTS
        C> * 2 EXISTS
        U< g1 OK Idle completed
        U> g2 IDLE
        U< +
        <- set IDLE refresh 1620
        U< * 3 EXISTS
        C> * 3 EXISTS
        C: DONE
        U> DONE
        <- cancel IDLE refresh
        U< g2 OK Idle completed
        C> a1 OK Idle completed
        C: a2 NOOP
        U> g3 NOOP
        """,
        ways=NOT_TRAILING,
    )


def test_done_while_idle_is_begun_anew() -> None:
    """The client's DONE is never lost: it ends whichever IDLE stands upstream, once."""
    relay(
        f"""{REFRESHING}
        C: DONE
        U< g1 OK Idle completed
        C> a1 OK Idle completed
        """,
        ways=NOT_TRAILING,
    )
    relay(
        f"""{REFRESHING}
        U< g1 OK Idle completed
        U> g2 IDLE
        C: DONE
        U< +
        U> DONE
        <- cancel IDLE refresh
        U< g2 OK Idle completed
        C> a1 OK Idle completed
        """,
        ways=NOT_TRAILING,
    )


def test_idle_that_cannot_be_begun_anew() -> None:
    """A server that will not idle again ends the client's IDLE with its own words."""
    relay(f"{REFRESHING}U< g1 NO No more\nC> a1 NO No more\n", ways=NOT_TRAILING)
    relay(f"{REFRESHING}U< g1 OK x\nU> g2 IDLE\nU< g2 BAD No more\nC> a1 BAD No more\n", ways=NOT_TRAILING)


def test_a_late_refresh_is_nothing() -> None:
    """A timer that comes when nobody idles any more does nothing."""
    relay("-> tick IDLE refresh\nC: a1 NOOP\nU> g1 NOOP\n", ways=NOT_TRAILING)
