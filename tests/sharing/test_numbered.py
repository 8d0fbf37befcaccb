"""What a server says of messages is learnt, and told to those whom it concerns as it concerns them (SHARED, rules 3, 4
and 11 to 16, 19).
"""

from __future__ import annotations

import pytest

from imapgate.errors import UpstreamProtocolError
from imapgate.model.reading import Store
from imapgate.sharing.numbered import applied
from imapgate.sharing.truth import UNKNOWN
from tests.sharing.mailboxes import arrive
from tests.sharing.wire import Wire, four

SEEN = Store("+", True, ("\\Seen",))


# --- what is learnt -------------------------------------------------------------------------------------


def test_nobody_asks() -> None:
    """What comes unasked is shown to nobody at once, and owed to everybody (rules 3 and 12)."""
    wire = four()
    said = b"* 2 EXPUNGE\r\n* 4 EXISTS\r\n* 1 RECENT\r\n* 1 FETCH (FLAGS (a))\r\n* 4 FETCH (UID 50 FLAGS (b))\r\n"
    assert wire.hears(said) == b""
    owed = b"* 1 FETCH (FLAGS (a))\r\n* 2 EXPUNGE\r\n* 4 EXISTS\r\n* 0 RECENT\r\n"
    assert wire.owed() == (owed, owed)
    assert list(wire.truth.uids) == [10, 30, 40, 50]


def test_somebody_searches() -> None:
    """A session that asked for no FETCH is owed flags like the others, itself included (rule 13)."""
    wire = four()
    wire.wish(fetching=False)
    assert wire.hears(b"* 1 FETCH (FLAGS (a))\r\n* 2 FETCH (FLAGS (b) MODSEQ (5))\r\n") == b""
    owed = b"* 1 FETCH (FLAGS (a))\r\n* 2 FETCH (FLAGS (b))\r\n"
    assert wire.owed() == (owed, owed)


def test_unknown_words() -> None:
    """A response of which nothing is known goes to the session whose command runs, if there is one."""
    wire = four()
    assert wire.hears(b"* 3 XFOO bar\r\n") == b""
    wire.wish(fetching=False)
    assert wire.hears(b"* 3 XFOO bar\r\n") == b"* 3 XFOO bar\r\n"


def test_above_exists() -> None:
    """FETCH of a message that was not announced announces it, to the truth and to who asked (rules 4 and 11)."""
    wire = four()
    assert wire.hears(b"* 6 FETCH (FLAGS (a))\r\n") == b""
    assert (len(wire.truth), wire.truth.filled) == (6, 4)
    wire.wish(flags=True, uid=True)
    assert wire.hears(b"* 7 FETCH (UID 70 FLAGS (a))\r\n") == (
        b"* 7 EXISTS\r\n* 0 RECENT\r\n* 7 FETCH (UID 70 FLAGS (a))\r\n"
    )
    assert wire.hears(b"* 8 FETCH (UID 80 BODY[] {2}\r\nhi)\r\n") == (
        b"* 8 EXISTS\r\n* 0 RECENT\r\n* 8 FETCH (UID 80 BODY[] {2}\r\nhi)\r\n"
    )
    assert wire.hears(b"* 9 FETCH (X () UID 90 FLAGS ())\r\n") == (
        b"* 9 EXISTS\r\n* 0 RECENT\r\n* 9 FETCH (X () UID 90 FLAGS ())\r\n"
    )


@pytest.mark.parametrize(
    "said",
    [
        b"* 0 FETCH (FLAGS ())\r\n",
        b"* 0 FETCH (X 5)\r\n",
        b"* 3 EXISTS\r\n",
        b"* 0 EXPUNGE\r\n",
        b"* 2 FETCH (UID 25 FLAGS ())\r\n",
        b"* 2 FETCH (FLAGS () UID 25)\r\n",
        b"* 5 FETCH (UID 40)\r\n",
        b"* 2 FETCH (BODY[] {1}\r\nx UID 21)\r\n",
        b"* 4294967295 EXISTS\r\n",
        b"* 4294967295 FETCH (FLAGS ())\r\n",
    ],
)
def test_contradictions(said: bytes) -> None:
    """What contradicts what was known ends the channel, whoever asked (rule 3; THREATS A15)."""
    for fetching in (False, True):
        wire = four()
        if fetching:
            wire.wish(flags=True)
        with pytest.raises(UpstreamProtocolError):
            wire.hears(said)


def test_expunge_of_the_unknown() -> None:
    """A message of which a session was told, and nobody knows which it was, or where, ends the channel (rule 3)."""
    wire = four()
    assert wire.hears(b"* 6 EXISTS\r\n* 6 EXPUNGE\r\n* 5 EXPUNGE\r\n* 6 EXISTS\r\n") == b""
    wire.wish()
    assert wire.hears(b"* 6 FETCH (UID 60 X 1)\r\n") == b"* 6 EXISTS\r\n* 0 RECENT\r\n* 6 FETCH (X 1)\r\n"
    assert wire.hears(b"* 6 EXPUNGE\r\n") == b""
    assert wire.view.ghosts == [60]  # wherever the one before it stands, it stood behind that
    second = four()
    second.wish()
    second.hears(b"* 6 FETCH (X 1)\r\n")
    with pytest.raises(UpstreamProtocolError, match="nothing more was known"):
        second.hears(b"* 6 EXPUNGE\r\n")


def test_expunge_of_the_next() -> None:
    """Behind all that is known it is clear where a message stood, though its UID was never said (rule 6)."""
    wire = four()
    wire.wish()
    wire.hears(b"* 5 FETCH (X 1)\r\n* 6 EXISTS\r\n* 5 EXPUNGE\r\n")
    assert len(wire.view) == 5
    assert len(wire.view.ghosts) == 1
    wire.hears(b"* 5 FETCH (UID 60 FLAGS ())\r\n")
    arrived = b"* 5 EXISTS\r\n* 0 RECENT\r\n"
    assert wire.owed() == (b"* 5 EXPUNGE\r\n" + arrived, arrived)


def test_expunge_of_the_unannounced() -> None:
    """A message above the last that is gone was there: all before it are new (Cyrus, after MOVE; as rule 4)."""
    wire = four()
    assert wire.hears(b"* 6 EXPUNGE\r\n") == b""
    assert len(wire.truth) == 5
    with pytest.raises(UpstreamProtocolError):
        wire.hears(b"* 4294967295 EXPUNGE\r\n")


def test_expunge_of_several_unknown() -> None:
    """Each stands behind those that have gone before it, whose UIDs were known (rule 6)."""
    wire = four()
    wire.wish()
    wire.hears(b"* 5 FETCH (X 1)\r\n")
    wire.hears(b"* 1 EXPUNGE\r\n" * 5)
    assert wire.view.ghosts == sorted(wire.view.ghosts)
    assert wire.owed()[0] == b"".join(b"* %d EXPUNGE\r\n" % number for number in (5, 4, 3, 2, 1))


def test_expunge_of_the_half_known() -> None:
    """A message is a ghost like any other when its UID is known, and its flags are not (rule 6)."""
    wire = four()
    wire.wish(uid=True)
    wire.hears(b"* 5 FETCH (UID 50 X 1)\r\n")
    wire.hears(b"* 5 EXPUNGE\r\n")
    assert wire.view.ghosts == [50]
    assert wire.owed() == (b"* 5 EXPUNGE\r\n", b"")


def test_named_late() -> None:
    """Who saw a message before it had a UID is told its flags again then, which may be others (rule 12)."""
    wire = four()
    wire.wish(flags=True)
    assert wire.hears(b"* 5 FETCH (FLAGS (a))\r\n").endswith(b"* 5 FETCH (FLAGS (a))\r\n")
    wire.numbered.wish = None
    wire.hears(b"* 5 FETCH (FLAGS (b))\r\n* 5 FETCH (UID 50 FLAGS (b))\r\n")
    assert wire.owed() == (b"* 5 FETCH (FLAGS (b))\r\n", b"* 5 EXISTS\r\n* 0 RECENT\r\n")


# --- flags (rule 12) ------------------------------------------------------------------------------------


def test_flags_as_recorded() -> None:
    """Flags that are as they were go to who asked for them, and to nobody else (rule 12)."""
    wire = four()
    wire.wish(flags=True)
    every = b"".join(b"* %d FETCH (FLAGS (kw))\r\n" % number for number in range(1, 5))
    assert wire.hears(every) == every
    assert wire.owed() == (b"", b"")


def test_flags_that_changed() -> None:
    """Flags that have changed go to who asked for any FETCH, and are owed to the others alone (rules 12 and 13)."""
    for flags in (True, False):
        wire = four()
        wire.wish(flags=flags)
        assert wire.hears(b"* 2 FETCH (FLAGS (kw \\Seen))\r\n") == b"* 2 FETCH (FLAGS (kw \\Seen))\r\n"
        assert wire.owed() == (b"", b"* 2 FETCH (FLAGS (kw \\Seen))\r\n")


def test_flags_said_twice() -> None:
    """A second FETCH that says nothing new is dropped where flags were not asked for (rule 13)."""
    wire = four()
    wire.wish()
    assert wire.hears(b"* 2 FETCH (BODY[] {1}\r\nx FLAGS (\\Seen))\r\n") == (
        b"* 2 FETCH (BODY[] {1}\r\nx FLAGS (\\Seen))\r\n"
    )
    assert wire.hears(b"* 2 FETCH (FLAGS (\\Seen))\r\n") == b""
    assert wire.owed() == (b"", b"* 2 FETCH (FLAGS (\\Seen))\r\n")


def test_late_seen() -> None:
    """A second FETCH that says what reading has done, after one that did not, is shown (rule 12, Courier)."""
    wire = four()
    wire.wish()
    assert wire.hears(b"* 2 FETCH (FLAGS (kw) BODY[] {1}\r\nx)\r\n* 2 FETCH (FLAGS (kw \\Seen))\r\n") == (
        b"* 2 FETCH (FLAGS (kw) BODY[] {1}\r\nx)\r\n* 2 FETCH (FLAGS (kw \\Seen))\r\n"
    )
    assert wire.owed() == (b"", b"* 2 FETCH (FLAGS (kw \\Seen))\r\n")


def test_flags_that_are_owed() -> None:
    """Flags that a session is owed are its due when they come, asked for or not, and no longer owed then (rule 12)."""
    wire = four()
    wire.hears(b"* 2 FETCH (FLAGS (a))\r\n* 3 FETCH (FLAGS (a))\r\n* 4 FETCH (FLAGS (a))\r\n")
    wire.wish()
    assert wire.hears(b"* 2 FETCH (FLAGS (a))\r\n") == b"* 2 FETCH (FLAGS (a))\r\n"
    assert wire.hears(b"* 3 FETCH (FLAGS (a) X 1)\r\n") == b"* 3 FETCH (FLAGS (a) X 1)\r\n"
    assert wire.hears(b"* 4 FETCH (X 1 FLAGS (a))\r\n") == b"* 4 FETCH (X 1 FLAGS (a))\r\n"
    assert wire.owed()[0] == b""


def test_loud_store() -> None:
    """The echo of a loud STORE is shown also where it changed nothing (rule 12)."""
    wire = four()
    wire.wish(flags=True)
    assert wire.hears(b"* 1 FETCH (FLAGS (kw))\r\n") == b"* 1 FETCH (FLAGS (kw))\r\n"
    assert wire.owed() == (b"", b"")


def test_loud_store_of_what_is_owed() -> None:
    """A STORE that changes nothing and is not echoed leaves a queued change queued (rule 16)."""
    wire = four()
    wire.hears(b"* 1 FETCH (FLAGS (a))\r\n")
    wire.wish(flags=True)
    assert wire.hears(b"") == b""
    assert wire.owed()[0] == b"* 1 FETCH (FLAGS (a))\r\n"


# --- STORE .SILENT (rule 16) ----------------------------------------------------------------------------


def silent(store: Store = SEEN) -> Wire:
    """A session changes messages 10 to 20, and 40, silently."""
    wire = four()
    wire.wish(flags=True, store=store, named=((10, 20), (40, 40)))
    return wire


@pytest.mark.parametrize("said", [b"FLAGS (kw \\Seen)", b"UID 20 FLAGS (\\seen KW)", b"FLAGS (\\Seen kw) UID 20"])
def test_silent(said: bytes) -> None:
    """What a session did silently is shown to the others only (rule 16)."""
    wire = silent()
    assert wire.hears(b"* 2 FETCH (%b)\r\n" % said) == b""
    mine, others = wire.owed()
    assert mine == b""
    assert others.startswith(b"* 2 FETCH (FLAGS (")


def test_silent_and_foreign() -> None:
    """A foreign change that came with the echo is shown: the flags are not those that the session expects (rule 16)."""
    wire = silent()
    assert wire.hears(b"* 2 FETCH (UID 20 FLAGS (kw \\Seen x))\r\n") == b"* 2 FETCH (FLAGS (kw \\Seen x))\r\n"
    assert wire.hears(b"* 1 FETCH (FLAGS (\\Seen))\r\n") == b"* 1 FETCH (FLAGS (\\Seen))\r\n"
    assert wire.owed()[0] == b""


def test_silent_and_owed() -> None:
    """A change that the session was owed before is shown with the echo, which it could not expect (rule 16)."""
    wire = four()
    wire.hears(b"* 2 FETCH (FLAGS (kw x))\r\n")
    wire.wish(flags=True, store=SEEN, named=((20, 20),))
    assert wire.hears(b"* 2 FETCH (FLAGS (kw x \\Seen))\r\n") == b"* 2 FETCH (FLAGS (kw x \\Seen))\r\n"
    assert wire.owed() == (b"", b"* 2 FETCH (FLAGS (kw x \\Seen))\r\n")


def test_silent_elsewhere() -> None:
    """What another did to a message that is not in the set is shown, though it be the same (rules 12 and 16, Cyrus)."""
    wire = silent()
    assert wire.hears(b"* 3 FETCH (FLAGS (kw \\Seen))\r\n") == b"* 3 FETCH (FLAGS (kw \\Seen))\r\n"
    assert wire.hears(b"* 3 FETCH (FLAGS (kw \\Seen))\r\n") == b""
    assert wire.hears(b"* 4 FETCH (FLAGS (kw \\Seen))\r\n") == b""
    assert wire.owed()[0] == b""


def test_silent_not_done() -> None:
    """A server that did not do it, and says so, is heard (rule 16)."""
    wire = silent()
    assert wire.hears(b"* 2 FETCH (FLAGS (kw))\r\n") == b"* 2 FETCH (FLAGS (kw))\r\n"


def test_silent_on_the_unknown() -> None:
    """A silent change of a message that the session does not know, or nobody did, is as silent (rules 11 and 16)."""
    wire = four()
    arrive(wire.truth, 50)
    wire.wish(flags=True, store=SEEN, named=((10, 4294967295),))
    assert wire.hears(b"* 5 FETCH (UID 50 FLAGS (\\Seen))\r\n* 6 FETCH (UID 60 FLAGS (\\Seen))\r\n") == b""
    assert wire.view.told == 4
    assert wire.hears(b"* 6 FETCH (FLAGS (\\Seen x))\r\n") == (
        b"* 6 EXISTS\r\n* 0 RECENT\r\n* 6 FETCH (FLAGS (\\Seen x))\r\n"
    )


@pytest.mark.parametrize(
    ("before", "store", "after"),
    [
        (b"kw", Store("+", True, ("\\Seen", "KW")), b"kw \\Seen"),
        (b"\\seen kw", Store("-", True, ("\\Seen", "x")), b"kw"),
        (b"kw a", Store("", True, ("a", "\\Seen")), b"a \\Seen"),
        (b"kw", Store("", True, ()), b""),
        (UNKNOWN, Store("+", True, ("a",)), b"a"),
        (UNKNOWN, Store("-", True, ("a",)), b""),
    ],
)
def test_applied(before: bytes, store: Store, after: bytes) -> None:
    """What a session expects of its STORE is what it knew with the flags set, added or taken (rule 16)."""
    assert sorted(applied(before, store).split()) == sorted(after.split())
