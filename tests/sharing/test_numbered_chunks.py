"""Numbered responses mean the same in whatever pieces they come, many at once or octet by octet (STYLE, property 1)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.errors import UpstreamProtocolError
from imapgate.limits import MIB
from imapgate.model.reading import Store
from imapgate.sharing.truth import Truth
from tests.sharing.mailboxes import holding
from tests.sharing.wire import Wire, four, haunted

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
