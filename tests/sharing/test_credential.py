"""A server that does not accept the login any more by which a user's sessions came: nobody tries it again and again."""

from __future__ import annotations

from imapgate.model.failure import Failure
from imapgate.session.effects import Failed
from tests.sharing.bench import Bench, begins, joins
from tests.sharing.conftest import Play


def _rejected(bench: Bench, number: str) -> None:
    bench._perform(bench.share.refused(bench.channels[number], Failed(Failure.CREDENTIALS)))


def test_who_waits_for_a_connection(play: Play) -> None:
    """Whose command needs one is told BYE, and so is who idles, and would have to try for ever (THREATS A34)."""
    bench = play()
    bench(f"""
        {begins()}
        B: sits
        {joins()}
        2: expires
        2: clean
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        1: lost
        3: wanted
        B> b1 NOOP
        """)
    _rejected(bench, "3")
    bench("""
        A: ends credentials
        B: ends credentials
        : 10
        """)
    assert bench.share.empty


def test_who_has_a_connection(play: Play) -> None:
    """Whose mailbox is looked at goes on."""
    bench = play()
    bench(f"""
        {begins()}
        B: sits
        2: expires
        2: clean
        B> b1 DELETE x
        3: wanted
        """)
    _rejected(bench, "3")
    bench("""
        B: ends credentials
        A> a1 NOOP
        1> ~ NOOP
        1< ~ OK Done
        A< a1 OK Done
        """)
