"""A picture believes what it is told, and breaks where the protocol is broken."""

from __future__ import annotations

import pytest

from tests.sharing.picture import Entry, Picture, Violation
from tests.sharing.reading import Wrong
from tests.sharing.store import Mailbox

OPENED = [
    b"+s SELECT INBOX",
    b"* FLAGS (\\Seen kw)",
    b"* 3 EXISTS",
    b"* 1 RECENT",
    b"* OK [UIDVALIDITY 7] Ok",
    b"* OK [UIDNEXT 20] Ok",
    b"s OK [READ-WRITE] Done",
]
KNOWN = [
    b"+k FETCH 1:* (UID FLAGS)",
    b"* 1 FETCH (UID 11 FLAGS (\\Recent))",
    b"* 2 FETCH (UID 12 FLAGS (\\Seen))",
    b"* 3 FETCH (FLAGS (kw) UID 13)",
    b"k OK Done",
]
ENABLED = [b"+q ENABLE QRESYNC", b"* ENABLED QRESYNC", b"q OK Done"]


def play(lines: list[bytes], picture: Picture | None = None) -> Picture:
    """What is sent (``+`` in front) and what is received."""
    picture = picture or Picture()
    for line in lines:
        if line.startswith(b"+") and line[1:2] != b" ":
            tag, _, text = line[1:].partition(b" ")
            picture.sends(tag, text)
        else:
            picture.received(line + b"\r\n")
    return picture


def flags(picture: Picture) -> list[set[bytes] | None]:
    """All flags that it holds."""
    return [entry.flags for entry in picture.messages]


def test_what_is_believed() -> None:
    """Numbers, UIDs, flags, and what SELECT said."""
    picture = play(OPENED + KNOWN)
    assert picture.messages == [Entry(11, set()), Entry(12, {b"\\Seen"}), Entry(13, {b"kw"})]
    assert (picture.selected, picture.read_only, picture.recent) == (b"INBOX", False, 1)
    assert (picture.codes[b"UIDVALIDITY"], picture.codes[b"UIDNEXT"]) == (b"7", b"20")
    assert picture.ended[b"k"] == b"OK Done"
    assert len(picture.lines[b"k"]) == 3
    play([b"+n NOOP", b"* 2 EXPUNGE", b"* 4 EXISTS", b"n OK Done"], picture)
    assert picture.messages == [Entry(11, set()), Entry(13, {b"kw"}), Entry(), Entry()]
    play([b"+c CLOSE", b"c OK Done"], picture)
    assert (picture.messages, picture.selected) == ([], None)


def test_any_pieces() -> None:
    """A literal in a FETCH, cut anywhere."""
    picture = play(OPENED)
    picture.sends(b"a", b"FETCH 1 (BODY[] FLAGS)")
    for octet in b"* 1 FETCH (BODY[] {13}\r\n* 1 EXPUNGE\r\n FLAGS (\\Seen))\r\na OK x {5}\r\n":
        picture.received(bytes([octet]))
    assert flags(picture) == [{b"\\Seen"}, None, None]
    assert picture.clean
    assert picture.waiting == []


def test_silent() -> None:
    """After .SILENT a client believes what it has asked for, unless it is told other."""
    store = b"+a STORE 1:* +FLAGS.SILENT (\\Flagged)"
    picture = play([*OPENED, *KNOWN, store, b"* 2 FETCH (FLAGS (\\Draft))", b"a OK Done"])
    assert flags(picture) == [{b"\\Flagged"}, {b"\\Draft"}, {b"kw", b"\\Flagged"}]
    assert flags(play([*OPENED, *KNOWN, store, b"a NO Done"])) == [None] * 3
    assert flags(play([*OPENED, store, b"a OK Done"])) == [None] * 3
    assert flags(play([*OPENED, b"+a STORE 2 FLAGS.SILENT \\Seen", b"a OK Done"])) == [None, {b"\\Seen"}, None]
    uid = play([*OPENED, *KNOWN, b"+a UID STORE 12:* -FLAGS.SILENT (kw \\Seen)", b"* 1 EXPUNGE", b"a OK Done"])
    assert flags(uid) == [set(), set()]
    assert flags(play([*OPENED, b"+a UID STORE 12 FLAGS.SILENT ()", b"a OK Done"])) == [None] * 3


def test_a_command_that_waits_is_looked_at_when_its_turn_comes() -> None:
    """Behind a NOOP that takes a message out, STORE's numbers are the new ones."""
    sent = [b"+a NOOP", b"+b STORE 1 FLAGS.SILENT (kw)", b"* 1 EXPUNGE", b"a OK Done", b"b OK Done"]
    assert play([*OPENED, *KNOWN, *sent]).messages == [Entry(12, {b"kw"}), Entry(13, {b"kw"})]


def test_vanished() -> None:
    """By UID, where it was enabled; a UID that is not known is between its neighbours."""
    picture = play([*OPENED, *KNOWN, *ENABLED, b"+n NOOP", b"* 5 EXISTS", b"* VANISHED 12,15", b"n OK Done"])
    assert picture.messages == [Entry(11, set()), Entry(13, {b"kw"}), Entry()]
    play([b"+r SELECT INBOX", *OPENED[1:-1], b"* VANISHED (EARLIER) 1:9", b"r OK [READ-WRITE] Done"], picture)
    assert picture.messages == [Entry()] * 3
    play([b"* 1 FETCH (FLAGS (kw))", b"* 3 FETCH (UID 30 FLAGS (kw))", b"+m NOOP", b"* VANISHED 12", b"m OK"], picture)
    assert picture.messages == [Entry(), Entry(30, {b"kw"})]  # it was the first or the second


def test_differences() -> None:
    """What is not known differs from nothing."""
    picture = play(OPENED + KNOWN)
    mailbox = Mailbox(7)
    assert len(picture.differences(mailbox.messages)) == 1
    mailbox.uidnext = 11
    for given in ((), (b"\\Seen",), (b"kw",)):
        mailbox.append(flags=given)
    assert picture.differences(mailbox.messages) == []
    mailbox.store(12, b"+", [b"\\Draft"])
    mailbox.messages[2].uid = 14
    assert len(picture.differences(mailbox.messages)) == 2
    assert play(OPENED).differences(mailbox.messages) == []


BREACHES = {
    "an end during FETCH": [b"+a FETCH 1 (FLAGS)", b"* 1 EXPUNGE"],
    "an end during STORE": [b"+a STORE 1 FLAGS ()", b"* 1 EXPUNGE"],
    "an end during SEARCH": [b"+a SEARCH ALL", b"* 1 EXPUNGE"],
    "an end during SORT": [b"+a SORT (ARRIVAL) UTF-8 ALL", b"* 1 EXPUNGE"],
    "an end during THREAD": [b"+a THREAD REFERENCES UTF-8 ALL", b"* 1 EXPUNGE"],
    "an end with no command": [b"* 1 EXPUNGE"],
    "an end after DONE's answer": [b"+a IDLE", b"+ idling", b"a OK Done", b"* 1 EXPUNGE"],
    "an end of none": [b"+a NOOP", b"* 4 EXPUNGE"],
    "an end of number 0": [b"+a NOOP", b"* 0 EXPUNGE"],
    "fewer messages": [b"* 2 EXISTS"],
    "too many recent": [b"* 4 RECENT"],
    "flags of none": [b"* 4 FETCH (FLAGS ())"],
    "another UID": [b"+a UID FETCH 1 (UID)", b"* 1 FETCH (UID 10)"],
    "a UID below its neighbour's": [b"* 4 EXISTS", b"+a UID FETCH 1 (UID)", b"* 4 FETCH (UID 13)"],
    "a UID that is not asked for": [b"+a NOOP", b"* 1 FETCH (UID 11 FLAGS ())"],
    "a UID with no command": [b"* 1 FETCH (UID 11 FLAGS ())"],
    "MODSEQ": [b"* 1 FETCH (FLAGS () MODSEQ (5))"],
    "HIGHESTMODSEQ": [b"+a EXPUNGE", b"a OK [HIGHESTMODSEQ 5] Done"],
    "VANISHED": [b"+a NOOP", b"* VANISHED 11"],
    "VANISHED during FETCH": [*ENABLED, b"+a FETCH 1 (FLAGS)", b"* VANISHED 11"],
    "VANISHED of none": [*ENABLED, b"+a NOOP", b"* VANISHED 10"],
    "an unknown keyword": [b"* 1 FETCH (FLAGS (other))"],
    "a result of none": [b"+a SEARCH ALL", b"* SEARCH 1 4"],
    "a result twice": [b"+a SEARCH ALL", b"* SEARCH 1 1"],
    "a UID of none": [b"+a UID SEARCH ALL", b"* SEARCH 11 14"],
    "a thread of none": [b"+a THREAD REFERENCES UTF-8 ALL", b"* THREAD (1 (2)(4))"],
    "a minimum of none": [b"+a SEARCH RETURN (MIN) ALL", b'* ESEARCH (TAG "a") MIN 4'],
    "another's results": [b"+a SEARCH RETURN (MIN) ALL", b'* ESEARCH (TAG "b") MIN 1'],
    "results without UID": [b"+a UID SEARCH RETURN (MIN) ALL", b'* ESEARCH (TAG "a") MIN 11'],
    "results that nobody asked for": [b"+a NOOP", b"* SEARCH 1"],
    "a completion of nothing": [b"x OK Done"],
    "a completion that is none": [b"+a NOOP", b"a DONE"],
    "a + for nobody": [b"+ go"],
    "a new UIDVALIDITY": [b"* OK [UIDVALIDITY 8] Ok"],
    "more after BYE": [b"* BYE over", b"* 4 EXISTS"],
    "numbers where nothing is selected": [b"+a CLOSE", b"a OK Done", b"* 4 EXISTS"],
    "SELECT without EXISTS": [b"+a SELECT x", b"* FLAGS ()", b"* OK [UIDVALIDITY 1] Ok", b"* 0 RECENT", b"a OK Done"],
    "EXAMINE, read-write": [b"+a EXAMINE x", *OPENED[1:-1], b"a OK [READ-WRITE] Done"],
    "nonsense": [b"* 1 NONSENSE"],
    "a FETCH of no list": [b"* 1 FETCH FLAGS"],
    "a FETCH of an odd list": [b"* 1 FETCH (FLAGS)"],
}


@pytest.mark.parametrize("lines", BREACHES.values(), ids=BREACHES)
def test_breaches(lines: list[bytes]) -> None:
    """Each is seen, at its last line."""
    picture = play([*OPENED, *KNOWN, *lines[:-1]])
    with pytest.raises(Violation):
        play(lines[-1:], picture)


def test_what_is_allowed() -> None:
    """EXPUNGE while idling, and in UID commands; counts and flags at any time."""
    picture = play([*OPENED, *KNOWN, b"+a IDLE", b"+ idling", b"* 1 EXPUNGE"])
    assert picture.idling
    play([b"* 1 EXPUNGE", b"a OK Done", b"* 2 EXISTS", b"* 1 FETCH (FLAGS ())"], picture)
    play([b"+u UID SEARCH ALL", b"* SEARCH 13", b"* 1 EXPUNGE", b"u OK Done"], picture)
    play([b"+e SEARCH RETURN (COUNT) ALL", b'* ESEARCH (TAG "e") COUNT 9', b"e OK Done", b"* 0 RECENT"], picture)
    assert not picture.idling
    play([b"+m FETCH 1 (MODSEQ)", b"* 1 FETCH (MODSEQ (5))", b"m OK Done", b"* 2 exists", b"* flags ()"], picture)
    play([b"+f SELECT none", b"* 3 EXISTS", b"f NO none"], picture)
    assert (picture.messages, picture.selected) == ([], None)
    play([b"+x EXAMINE x", *OPENED[1:-1], b"x OK [READ-ONLY] Done"], picture)
    assert (picture.selected, picture.read_only) == (b"x", True)


def test_nothing_is_selected() -> None:
    """At the beginning, and after a SELECT that fails, there is nothing that could be numbered."""
    for lines in ([], [*OPENED, b"+f SELECT none", b"f NO none"]):
        picture = play(lines)
        assert picture.waiting == []
        with pytest.raises(Violation, match="nothing is selected"):
            play([b"* 3 EXISTS"], picture)


def test_what_a_test_may_not_ask() -> None:
    """What becomes of ``*`` among UIDs that are not known, no picture can tell."""
    with pytest.raises(Wrong):
        play([*OPENED, b"+a UID STORE 12:* +FLAGS.SILENT (kw)"])
