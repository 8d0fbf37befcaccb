"""UID, FLAGS and recent are found wherever they stand in a FETCH response, nowhere else (SHARED, rules 13, 14, 19)."""

from __future__ import annotations

import pytest

from imapgate.sharing.truth import UNKNOWN, Truth
from tests.sharing.mailboxes import holding
from tests.sharing.wire import Wire, four, haunted

# --- UID and items (rules 13 and 14) --------------------------------------------------------------------

PLACES = {
    b"(UID 10 FLAGS (kw) X 5)": b"(FLAGS (kw) X 5)",
    b"(FLAGS (kw) UID 10 X 5)": b"(FLAGS (kw) X 5)",
    b"(X 5 UID 10)": b"(X 5)",
    b"(X 5 UID 10 Y 6)": b"(X 5 Y 6)",
    b"(uid 10 X 5)": b"(X 5)",
    b"(X (UID) UID 10)": b"(X (UID))",
    b"(BODY[] {3}\r\nabc UID 10)": b"(BODY[] {3}\r\nabc)",
    b"(UID 10 BODY[] {3}\r\nabc)": b"(BODY[] {3}\r\nabc)",
    b"(BODY[1] {1}\r\na UID 10 BODY[2] {0}\r\n)": b"(BODY[1] {1}\r\na BODY[2] {0}\r\n)",
    b"(BODY[1] ~{6}\r\nUID 10 UID 10)": b"(BODY[1] ~{6}\r\nUID 10)",
}


@pytest.mark.parametrize("said", PLACES)
def test_uid_in_every_place(said: bytes) -> None:
    """A UID is learnt, and taken out unless it was asked for, wherever it stands (rule 14)."""
    truth = Truth()
    truth.exists(1)
    wire = Wire(truth)
    wire.wish()
    assert wire.hears(b"* 1 FETCH %b\r\n" % said) == b"* 1 FETCH %b\r\n" % PLACES[said]
    assert list(truth.uids) == [10]
    wire.wish(uid=True)
    assert wire.hears(b"* 1 FETCH %b\r\n" % said) == b"* 1 FETCH %b\r\n" % said


def test_nothing_left() -> None:
    """A response of which nothing was asked is dropped (rule 14)."""
    wire = four()
    wire.wish()
    assert wire.hears(b"* 2 FETCH (UID 20)\r\n* 2 fetch (UID 20)\r\n") == b""
    wire.wish(uid=True)
    assert wire.hears(b"* 2 FETCH (UID 20)\r\n") == b"* 2 FETCH (UID 20)\r\n"


def test_nothing_left_of_news() -> None:
    """A message that only became known by a dropped response is announced all the same (rule 11)."""
    wire = four()
    wire.wish()
    assert wire.hears(b"* 5 FETCH (UID 50)\r\n") == b"* 5 EXISTS\r\n* 0 RECENT\r\n"


HIDDEN = [
    b'(ENVELOPE (NIL "FLAGS (x)" "a \\" FLAGS (x) UID 99 \\\\" "UID 99 "))',
    b'(X 1 PREVIEW " FLAGS (x)")',
    b"(BODY[HEADER.FIELDS (FLAGS UID)] NIL)",
    b'(BODY[HEADER.FIELDS (UID 99 FLAGS (x)] "FLAGS (x)")',
    b'(BODY[HEADER.FIELDS ("]" FLAGS (x) "a\\"]" UID 99 )] "")',
    b"(BODY[] {22}\r\n FLAGS (x)) UID 99 (\r\n)",
    b"(BODY[HEADER] {2}\r\n\r\n BODY[TEXT] {13}\r\n UID 99 FLAGS)",
    b"(XFLAGS (x) XUID 99 X-UID 99)",
    b"(UID-X 99 FLAGS(x))",
    b'(X "" Y "FLAGS (x)")',
    b"(X [ FLAGS (x) UID 99 ] Y 1)",
]


@pytest.mark.parametrize("said", HIDDEN)
def test_hidden(said: bytes) -> None:
    """FLAGS and UID in quotes, in a section, in a literal or in a longer word are no items (rule 13)."""
    for uid in (True, False):
        wire = four()
        wire.wish(uid=uid)
        assert wire.hears(b"* 2 FETCH %b\r\n" % said) == b"* 2 FETCH %b\r\n" % said
        assert wire.truth.flags[1] == b"kw"
        assert wire.owed() == (b"", b"")
    unasked = four()
    assert unasked.hears(b"* 2 FETCH %b\r\n" % said) == b""
    assert (unasked.truth.flags[1], unasked.truth.uids[1]) == (b"kw", 20)


FOUND = [
    b'(ENVELOPE ("FLAGS (y)") FLAGS (x) BODY[] "FLAGS (z)")',
    b"(BODY[] {3}\r\nabc FLAGS (x))",
    b"(FLAGS (x) BODY[] {3}\r\nabc)",
    b"(UID 20 flags (x) X 1)",
    b"(BODY[1] {1}\r\na FLAGS (x) BODY[2] {1}\r\nb UID 20)",
]


@pytest.mark.parametrize("said", FOUND)
def test_flags_among_others(said: bytes) -> None:
    """FLAGS that are an item are learnt wherever they stand, of whomever's answer they are a part (rules 12 and 13)."""
    wire = four()
    wire.wish(uid=True)
    assert wire.hears(b"* 2 FETCH %b\r\n" % said) == b"* 2 FETCH %b\r\n" % said
    assert wire.owed() == (b"", b"* 2 FETCH (FLAGS (x))\r\n")
    unasked = four()
    assert unasked.hears(b"* 2 FETCH %b\r\n" % said) == b""
    assert not unasked.numbered.shown
    assert unasked.owed() == (b"* 2 FETCH (FLAGS (x))\r\n",) * 2


def test_ghosts() -> None:
    """Every number that is shown is the session's, at the moment at which it is written (rule 17)."""
    wire = haunted()
    wire.wish(flags=True)
    assert wire.hears(b"* 1 FETCH (FLAGS (a))\r\n* 2 FETCH (UID 30 FLAGS (a))\r\n* 3 FETCH (BODY[] {1}\r\nx)\r\n") == (
        b"* 1 FETCH (FLAGS (a))\r\n* 3 FETCH (FLAGS (a))\r\n* 4 FETCH (BODY[] {1}\r\nx)\r\n"
    )
    assert wire.hears(b"* 1 EXPUNGE\r\n* 1 fetch (FLAGS (b) X 1)\r\n") == b"* 3 fetch (FLAGS (b) X 1)\r\n"
    assert wire.hears(b"* 3 FETCH (X 1)\r\n") == b"* 5 EXISTS\r\n* 0 RECENT\r\n* 5 FETCH (X 1)\r\n"
    assert wire.view.ghosts == [10, 20]


# --- \Recent (rule 19) ----------------------------------------------------------------------------------


def recents() -> Wire:
    """Messages 10 and 20 are recent to the first session, 30 to the second."""
    truth = holding(10, 20, 30)
    truth.recent = {10, 20}
    wire = Wire(truth)
    truth.recent = {30}
    wire.other.take(truth)
    return wire


def test_recent() -> None:
    """A session sees as recent what is recent to it, whatever the server says of the channel (rule 19)."""
    wire = recents()
    assert (wire.view.recents, wire.other.recents) == ({10, 20}, {30})
    wire.wish(flags=True)
    assert wire.hears(b"* 1 FETCH (FLAGS (a \\Recent))\r\n") == b"* 1 FETCH (FLAGS (a \\Recent))\r\n"
    assert wire.hears(b"* 2 FETCH (FLAGS (a))\r\n") == b"* 2 FETCH (FLAGS (a \\Recent))\r\n"
    assert wire.hears(b"* 2 FETCH (FLAGS ())\r\n") == b"* 2 FETCH (FLAGS (\\Recent))\r\n"
    assert wire.hears(b"* 3 FETCH (FLAGS (\\Recent a) X 1)\r\n") == b"* 3 FETCH (FLAGS (a) X 1)\r\n"
    assert wire.hears(b"* 3 FETCH (X 1 FLAGS (\\recent))\r\n") == b"* 3 FETCH (X 1 FLAGS ())\r\n"
    assert wire.hears(b"* 2 FETCH (UID 20 FLAGS () X 1)\r\n") == b"* 2 FETCH (FLAGS (\\Recent) X 1)\r\n"
    assert wire.truth.flags == [b"a", b"", b""]
    assert wire.truth.recent == set()


def test_recent_in_examine() -> None:
    """Who only reads sees the server's recent as it is, and it stays so for all (rule 19)."""
    wire = four(read_only=True)
    wire.wish(flags=True)
    assert wire.hears(b"* 1 FETCH (FLAGS (\\Recent))\r\n") == b"* 1 FETCH (FLAGS (\\Recent))\r\n"


NEWS = [
    b"* 1 FETCH (UID 10 FLAGS (\\Recent))\r\n",
    b"* 1 FETCH (FLAGS (\\Recent) UID 10)\r\n",
    b"* 1 FETCH (UID 10 FLAGS (\\Recent) X 1)\r\n",
    b"* 1 FETCH (X 1 UID 10 FLAGS (\\Recent))\r\n",
    b"* 1 FETCH (UID 10)\r\n* 1 FETCH (FLAGS (\\Recent))\r\n",
    b"* 1 FETCH (FLAGS (\\Recent))\r\n* 1 FETCH (UID 10 FLAGS (\\Recent))\r\n",
    b"* 1 FETCH (X 1 FLAGS (\\Recent) UID 10)\r\n* 1 FETCH (UID 10 FLAGS (\\Recent))\r\n",
]


@pytest.mark.parametrize("said", NEWS)
def test_recent_of_news(said: bytes) -> None:
    """A new message that the server calls recent is so to the first who is told of it (rule 19).

    Recent that is said before the UID is no message's: the message is asked for again.
    """
    truth = Truth()
    wire = Wire(truth)
    wire.hears(b"* 1 EXISTS\r\n* 1 RECENT\r\n" + said)
    assert (truth.recent, truth.filled) == ({10}, 1)
    assert wire.owed() == (b"* 1 EXISTS\r\n* 1 RECENT\r\n", b"* 1 EXISTS\r\n* 0 RECENT\r\n")
    assert (wire.view.recents, truth.recent) == ({10}, set())


def test_recent_asked_again() -> None:
    """Recent said of a message without a UID leaves it unknown, so that it is asked for (rules 5 and 19)."""
    truth = Truth()
    wire = Wire(truth)
    wire.hears(b"* 1 FETCH (FLAGS (\\Recent a))\r\n")
    assert truth.flags == [UNKNOWN]
    wire.hears(b"* 1 FETCH (UID 10)\r\n")
    assert truth.filled == 0


@pytest.mark.parametrize(
    "said", [b"(UID 10 FLAGS (\\Recent))", b"(UID 10 FLAGS (\\Recent) X 1)", b"(UID 10 X 1 FLAGS (\\Recent))"]
)
def test_recent_of_an_answer(said: bytes) -> None:
    """Who is told of a new message by an answer has it as recent in that answer already (rules 11 and 19)."""
    wire = Wire(Truth())
    wire.hears(b"* 1 EXISTS\r\n")
    wire.wish(flags=True, uid=True)
    assert wire.hears(b"* 1 FETCH %b\r\n" % said) == b"* 1 EXISTS\r\n* 1 RECENT\r\n* 1 FETCH %b\r\n" % said
    assert wire.view.recents == {10}


def test_recent_no_news() -> None:
    """A message that is known already does not become recent (rule 19)."""
    wire = four()
    wire.hears(b"* 1 FETCH (FLAGS (kw \\Recent))\r\n")
    assert wire.truth.recent == set()
    assert wire.owed() == (b"", b"")
