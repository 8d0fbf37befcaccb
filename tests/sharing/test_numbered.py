"""What a server says of messages is learnt, and told to those whom it concerns as it concerns them (SHARED, rules 3, 4
and 11 to 16, 19).
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.errors import UpstreamProtocolError
from imapgate.limits import MIB
from imapgate.model.reading import Store
from imapgate.sharing.numbered import Numbered, Wish, applied
from imapgate.sharing.truth import UNKNOWN, Truth
from imapgate.wire.scanner import LITERAL, TEXT, ResponseScanner
from tests.sharing.mailboxes import arrive, go, holding, looking

SEEN = Store("+", True, ("\\Seen",))


class Wire:
    """A channel's numbered responses, two sessions who look at it, and what the first is shown."""

    def __init__(self, truth: Truth, *, read_only: bool = False) -> None:
        self.truth = truth
        self.view, self.other = looking(truth, read_only=read_only), looking(truth, read_only=read_only)
        self.numbered = Numbered(truth, [self.view, self.other])
        self._scanner = ResponseScanner(MIB)
        self._scanner.fine = True

    def wish(
        self,
        *,
        fetching: bool = True,
        flags: bool = False,
        uid: bool = False,
        store: Store | None = None,
        named: tuple[tuple[int, int], ...] = (),
    ) -> None:
        """The first session's command runs."""
        self.numbered.wish = Wish(self.view, fetching, flags, uid, store, named)

    def hears(self, data: bytes) -> bytes:
        """Octets come from the server, as a channel takes them."""
        said = []
        for kind, piece in self._scanner.feed(data):
            whole = self._scanner.at_line_start
            if kind == TEXT:
                said.append(self.numbered.text(piece, whole))
            else:
                assert kind == LITERAL
                if self.numbered.shown:
                    said.append(piece)
        return b"".join(said)

    def owed(self) -> tuple[bytes, bytes]:
        """What either session is owed."""
        first, second = (view.flush(self.truth, expunges=True) for view in (self.view, self.other))
        return first, second


def four(*, read_only: bool = False) -> Wire:
    """Messages 10 to 40, all with the flag kw."""
    return Wire(holding(10, 20, 30, 40, flags=b"kw"), read_only=read_only)


def haunted() -> Wire:
    """The same with 20 gone, of which neither session knows."""
    wire = four()
    go(wire.truth, 20, wire.view, wire.other)
    return wire


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
        b"* 5 EXPUNGE\r\n",
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
    with pytest.raises(UpstreamProtocolError, match="nothing more was known"):
        wire.hears(b"* 6 EXPUNGE\r\n")
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


# --- many lines at once ---------------------------------------------------------------------------------

COUNT = 60


def crowd(flags: bytes = b"kw") -> bytes:
    """What fills a truth of so many messages."""
    return b"".join(b"* %d FETCH (UID %d FLAGS (%b))\r\n" % (n, n * 10, flags) for n in range(1, COUNT + 1))


def full(*, read_only: bool = False) -> Wire:
    """A mailbox of so many messages, whose session asks for UIDs and flags."""
    wire = Wire(holding(*range(10, COUNT * 10 + 1, 10), flags=b"kw"), read_only=read_only)
    wire.wish(flags=True, uid=True)
    return wire


def test_filled_at_once() -> None:
    """Many lines that fill the truth leave it as they do one by one, recent included (rules 5 and 19)."""
    said = crowd() + b"* 61 FETCH (FLAGS (\\Recent a) UID 620)\r\n"
    at_once, one_by_one = Wire(Truth()), Wire(Truth())
    for wire in (at_once, one_by_one):
        wire.hears(b"* 61 EXISTS\r\n")
        for piece in [said] if wire is at_once else said.splitlines(keepends=True):
            assert wire.hears(piece) == b""
    assert list(at_once.truth.uids) == list(one_by_one.truth.uids)
    assert at_once.truth.flags == one_by_one.truth.flags
    assert (at_once.truth.filled, at_once.truth.recent) == (61, {620})
    assert one_by_one.truth.recent == {620}


def test_filled_for_who_knows() -> None:
    """Who was told of messages before they were filled is owed their flags then, at once or one by one (rule 12)."""
    for cut in (1, COUNT):
        wire = Wire(Truth())
        wire.wish()
        wire.hears(b"* %d FETCH (X 1)\r\n" % COUNT)
        wire.numbered.wish = None
        lines = crowd().splitlines(keepends=True)
        for begin in range(0, COUNT, cut):
            wire.hears(b"".join(lines[begin : begin + cut]))
        assert len(wire.view.changed) == COUNT
        assert wire.other.changed == {}


def test_news_among_many() -> None:
    """Among many lines those that say something new are seen, by whoever they concern (rule 12)."""
    said = crowd() + b"* 7 FETCH (FLAGS (x))\r\n"
    wire = full()
    wire.numbered.wish = None
    assert wire.hears(said) == b""
    assert wire.owed() == (b"* 7 FETCH (FLAGS (x))\r\n",) * 2
    asked = full()
    assert asked.hears(said) == said
    assert asked.owed() == (b"", b"* 7 FETCH (FLAGS (x))\r\n")


def test_many_as_they_are() -> None:
    """Many lines that say nothing new go on in one piece (rule 12)."""
    wire = full()
    said = crowd()
    assert wire.hears(said) is said
    assert wire.owed() == (b"", b"")


def test_many_but() -> None:
    """Many lines are looked at one by one wherever a session may have to see something else in them."""
    said = crowd()
    stripped = b"".join(b"* %d FETCH (FLAGS (kw))\r\n" % n for n in range(1, COUNT + 1))
    wire = full()
    wire.wish(flags=True)
    assert wire.hears(said) == stripped
    wire = full()
    wire.wish(uid=True)
    assert wire.hears(said) == b""
    wire = full()
    wire.wish(flags=True, uid=True, store=Store("+", True, ("kw",)), named=((1, 9999),))
    assert wire.hears(said) == b""
    wire = full()
    wire.view.recents = {20}
    assert wire.hears(said) == said.replace(b"UID 20 FLAGS (kw)", b"UID 20 FLAGS (kw \\Recent)")
    wire = full()
    wire.view.changed = {20: None}
    assert wire.hears(said) == said
    assert wire.view.changed == {}
    wire = full(read_only=True)
    assert wire.hears(said) == said
    wire = full()
    wire.view.told -= 1
    assert wire.hears(said).startswith(b"* 1 FETCH")
    assert wire.view.agrees(wire.truth)
    wire = full()
    wire.truth.exists(COUNT + 1)
    wire.view.grow(wire.truth)
    assert wire.hears(said) == said
    wire = full()
    assert wire.hears(said.replace(b"UID 20 ", b"")) == said.replace(b"UID 20 ", b"")


@pytest.mark.parametrize("number", [0, 7000, 16777217])
def test_many_and_one_absurd(number: int) -> None:
    """A number in the middle of many lines is judged like any other (rules 3 and 4)."""
    said = crowd().replace(b"* 9 FETCH (UID 90 ", b"* %d FETCH (UID 90 " % number)
    wire = full()
    with pytest.raises(UpstreamProtocolError):
        wire.hears(said)


def test_many_with_a_text() -> None:
    """Many flat lines, and one with a literal behind them, are each understood."""
    wire = full()
    said = crowd() + b"* 3 FETCH (FLAGS (x) BODY[] {2}\r\nhi)\r\n"
    assert wire.hears(said) == said
    assert wire.truth.flags[2] == b"x"
    wire = full()
    long = b"* 3 FETCH (BODY[] {2}\r\nhi " + b"X 1 " * 400 + b"FLAGS (x))\r\n"
    assert wire.hears(long) == long
    assert wire.truth.flags[2] == b"x"


# --- chunks ---------------------------------------------------------------------------------------------

STREAM = (
    b"* 2 EXPUNGE\r\n* 4 EXISTS\r\n* 1 RECENT\r\n* 1 FETCH (FLAGS (a))\r\n"
    b'* 2 FETCH (UID 30 ENVELOPE ("FLAGS (x)" "\\"") FLAGS (b) BODY[HEADER.FIELDS (DATE)] {12}\r\n FLAGS (c)\r\n'
    b" BODY[TEXT] {0}\r\n UID 30)\r\n"
    b"* 4 FETCH (BODY[] {4}\r\n)\r\n* FLAGS (d \\Recent) UID 50)\r\n* 4 FETCH (UID 50)\r\n"
    b"* 3 FETCH (UID 40)\r\n* 5 FETCH (UID 60 X 1)\r\n* 3 FETCH (FLAGS (e) UID 40)\r\n"
)


def outcome(pieces: list[bytes], asks: bool) -> tuple[object, ...]:
    """What is said, learnt and owed."""
    wire = four()
    if asks:
        wire.wish(flags=True)
    said = b"".join(wire.hears(piece) for piece in pieces)
    known = list(wire.truth.uids), wire.truth.flags, wire.truth.recent, wire.truth.filled
    return said, known, wire.view.recents, wire.owed()


@pytest.mark.parametrize("asks", [True, False])
def test_cut_anywhere(asks: bool) -> None:
    """Responses that are cut between any two octets say, teach and owe the same (STYLE, property 1)."""
    whole = outcome([STREAM], asks)
    for cut in range(1, len(STREAM)):
        assert outcome([STREAM[:cut], STREAM[cut:]], asks) == whole, STREAM[:cut]
    assert outcome([STREAM[at : at + 1] for at in range(len(STREAM))], asks) == whole
    assert whole[0] == (
        b""
        if not asks
        else b"* 1 FETCH (FLAGS (a))\r\n"
        b'* 3 FETCH (ENVELOPE ("FLAGS (x)" "\\"") FLAGS (b) BODY[HEADER.FIELDS (DATE)] {12}\r\n FLAGS (c)\r\n'
        b" BODY[TEXT] {0}\r\n)\r\n"
        b"* 5 EXISTS\r\n* 0 RECENT\r\n* 5 FETCH (BODY[] {4}\r\n)\r\n* FLAGS (d))\r\n"
        b"* 6 EXISTS\r\n* 0 RECENT\r\n* 6 FETCH (X 1)\r\n* 4 FETCH (FLAGS (e))\r\n"
    )


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=12), asks=st.booleans())
def test_any_chunks(cuts: list[int], asks: bool) -> None:
    """Any chunks of the same responses say, teach and owe the same (STYLE, property 1)."""
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[begin:end] for begin, end in pairwise(places)]
    assert outcome(pieces, asks) == outcome([STREAM], asks)


def test_endless_line() -> None:
    """A line that does not end, where no line is as long, ends the channel (THREATS A15)."""
    wire = four()
    assert wire.numbered.text(b"* 1 FETCH (X ", False) == b""
    assert wire.numbered.text(b"a" * (MIB - 13), False) == b""
    with pytest.raises(UpstreamProtocolError, match="a line of more than"):
        wire.numbered.text(b"a", False)


FRAGMENTS = st.sampled_from(
    [
        *b"* ( ) FETCH FLAGS UID EXISTS EXPUNGE RECENT 0 1 2 4 5 9 10 40 50 [ ] {2} NIL".split(),
        b" ",
        b'"',
        b"\\",
        b"\r\n",
        b"(FLAGS (",
        b"* 1 FETCH (",
        b"* 2 FETCH (UID 20 FLAGS (a))\r\n",
        b"* 5 EXISTS\r\n",
        b"{3}\r\nabc",
        b"* 4 EXPUNGE\r\n",
        b"BODY[",
    ]
)


@given(fragments=st.lists(FRAGMENTS, max_size=25), asks=st.booleans())
def test_whatever_comes(fragments: list[bytes], asks: bool) -> None:
    """Whatever a server says is understood, or ends the channel; nothing else is raised (STYLE, property 5)."""
    wire = haunted()
    if asks:
        wire.wish(flags=True)
    try:
        wire.numbered.text(b"".join(fragments) + b"\r\n", True)
    except UpstreamProtocolError:
        return
    assert len(wire.view) >= wire.view.told
    wire.owed()
