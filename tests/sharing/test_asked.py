"""What a session asks for goes to the server so that it means there what it means to the session (SHARED, rules 7 to 9,
16, 18, 19).
"""

from __future__ import annotations

import pytest

from imapgate.model.reading import Store
from imapgate.sharing.asked import NOBODY, Form, Refusal, form
from imapgate.sharing.truth import Truth
from imapgate.sharing.view import View
from imapgate.wire.writer import segments
from tests.model.test_reading import reading
from tests.sharing.mailboxes import arrive, go, holding, looking


def agreed() -> tuple[View, Truth]:
    """A session that knows all there is: seven messages, 10 to 70."""
    truth = holding(10, 20, 30, 40, 50, 60, 70)
    return looking(truth), truth


def six_of_seven() -> tuple[View, Truth]:
    """A session that knows six of seven messages."""
    truth = holding(10, 20, 30, 40, 50, 60)
    view = looking(truth)
    arrive(truth, 70)
    return view, truth


def haunted() -> tuple[View, Truth]:
    """A session that knows seven messages, of which 3 and 4, UIDs 30 and 40, are gone."""
    truth = holding(10, 20, 30, 40, 50, 60, 70)
    view = looking(truth)
    go(truth, 30, view)
    go(truth, 40, view)
    return view, truth


def deserted() -> tuple[View, Truth]:
    """A session that knows three messages, all gone, where there is another now."""
    truth = holding(10, 20, 30)
    view = looking(truth)
    for uid in (10, 20, 30):
        go(truth, uid, view)
    arrive(truth, 40)
    return view, truth


def newcomer() -> tuple[View, Truth]:
    """A session that knows of no message, where there is one."""
    view = looking(Truth())
    return view, holding(10)


def sent(text: bytes, scene: tuple[View, Truth]) -> bytes:
    """A command as the server gets it, literals and all, or how it is answered at once."""
    asked = form(reading(text), *scene)
    if isinstance(asked, Refusal):
        return asked.completion + b" " + asked.text.split(b" ")[0]
    return b"".join(segments((asked.verb, *asked.parts))).removesuffix(b"\r\n")


GONE = b"NO [EXPUNGEISSUED]"
RANGE = b"BAD There"

SIX_OF_SEVEN = {
    b"FETCH 7 (FLAGS)": RANGE,
    b"FETCH 6:7 (FLAGS)": RANGE,
    b"FETCH 7:* (FLAGS)": RANGE,
    b"FETCH * (FLAGS)": b"UID FETCH 60 (FLAGS)",
    b"FETCH 5:* (FLAGS)": b"UID FETCH 50:60 (FLAGS)",
    b"FETCH *:5 (FLAGS)": b"UID FETCH 50:60 (FLAGS)",
    b"FETCH 4:2 BODY.PEEK[1.MIME]<0.9>": b"UID FETCH 20:40 BODY.PEEK[1.MIME]<0.9>",
    b"FETCH 4294967295 (FLAGS)": RANGE,
    b"FETCH 5:4294967295 (FLAGS)": b"UID FETCH 50:60 (FLAGS)",
    b"STORE 1:* +FLAGS (\\Deleted)": b"UID STORE 10:60 +FLAGS (\\Deleted)",
    b"STORE 1:* -FLAGS.SILENT (\\Deleted)": b"UID STORE 10:60 -FLAGS (\\Deleted)",
    b"STORE 7 FLAGS (x)": RANGE,
    b"COPY 1,*,3 box": b"UID COPY 10,60,30 box",
    b"MOVE 7 box": RANGE,
    b"UID FETCH 70 (FLAGS)": b"UID FETCH 70 (FLAGS)",
    b"UID FETCH 100:* (FLAGS)": b"UID FETCH 100:* (FLAGS)",
    b"UID STORE * +FLAGS (x)": b"UID STORE * +FLAGS (x)",
    b"UID COPY 1:* box": b"UID COPY 1:* box",
    b"UID EXPUNGE 1:*": b"UID EXPUNGE 1:*",
    b"EXPUNGE": b"EXPUNGE",
    b"CHECK": b"CHECK",
    b"SEARCH NOT *": b"UID SEARCH NOT UID 60 UID 1:60",
    b"SEARCH ALL": b"UID SEARCH ALL UID 1:60",
    b"SEARCH 7": b"UID SEARCH (NOT ALL) UID 1:60",
    b"SEARCH 6:9,2": b"UID SEARCH UID 60,20 UID 1:60",
    b"SEARCH NOT 7:*": b"UID SEARCH NOT UID 60 UID 1:60",
    b"SEARCH UID 70": b"UID SEARCH UID 70 UID 1:60",
    b"UID SEARCH NOT *": b"UID SEARCH NOT UID 60",
    b"UID SEARCH UID 70:*": b"UID SEARCH UID 70:*",
    b"FETCH $ (FLAGS)": RANGE,
    b"SEARCH $": b"UID SEARCH (NOT ALL) UID 1:60",
}


@pytest.mark.parametrize("text", SIX_OF_SEVEN)
def test_six_of_seven(text: bytes) -> None:
    """A number, ``*`` or NOT never reaches a message that the session does not know (rules 7 to 9)."""
    assert sent(text, six_of_seven()) == SIX_OF_SEVEN[text]


HAUNTED = {
    b"FETCH 3 (FLAGS)": GONE,
    b"FETCH 3:4 (FLAGS)": GONE,
    b"FETCH 1:4 (FLAGS)": b"UID FETCH 10:20 (FLAGS)",
    b"FETCH 1:* (FLAGS)": b"UID FETCH 10:70 (FLAGS)",
    b"FETCH 7,5 (FLAGS)": b"UID FETCH 70,50 (FLAGS)",
    b"FETCH 5:3,1:2,2,4:6 (FLAGS)": b"UID FETCH 50,10:20,20,50:60 (FLAGS)",
    b"FETCH 8 (FLAGS)": RANGE,
    b"FETCH 3,8 (FLAGS)": RANGE,
    b"FETCH 5 (BODY.PEEK[HEADER.FIELDS (DATE)])": b"UID FETCH 50 (BODY.PEEK[HEADER.FIELDS (DATE)])",
    b"FETCH 5 (BODY[HEADER.FIELDS ({4+}\nDate)])": b'UID FETCH 50 (BODY[HEADER.FIELDS ("Date")])',
    b"STORE 3 +FLAGS (x)": GONE,
    b"STORE 3:5 +FLAGS (x)": b"UID STORE 50 +FLAGS (x)",
    b"STORE 3 +FLAGS.SILENT (x)": GONE,
    b"STORE 8 FLAGS.SILENT x": RANGE,
    b"STORE 5:* FLAGS.SILENT \\seen $x": b"UID STORE 50:70 FLAGS \\seen $x",
    b"STORE 5 +FLAGS ({3+}\nfoo)": b'UID STORE 50 +FLAGS ("foo")',
    b"UID STORE 50 FLAGS.SILENT ()": b"UID STORE 50 FLAGS ()",
    b"COPY 3 box": GONE,
    b"COPY 3:* {3+}\nbox": b'UID COPY 50:70 "box"',
    b'COPY 5 "b\\"x"': b'UID COPY 50 "b\\"x"',
    b"COPY 5 {4+}\na\nb": b"UID COPY 50 {4}\r\na\r\nb",
    b"MOVE 4:5 box": b"UID MOVE 50 box",
    b"SEARCH 3": b"UID SEARCH (NOT ALL) UID 1:70",
    b"SEARCH NOT 3": b"UID SEARCH NOT (NOT ALL) UID 1:70",
    b"SEARCH 2:5 OR 6 3 UNSEEN": b"UID SEARCH UID 20:50 OR UID 60 (NOT ALL) UNSEEN UID 1:70",
    b"SEARCH OR (5 NOT 6) (OR 7 1)": b"UID SEARCH OR (UID 50 NOT UID 60) (OR UID 70 UID 10) UID 1:70",
    b"SEARCH ((5))": b"UID SEARCH ((UID 50)) UID 1:70",
    b"search seen": b"UID SEARCH SEEN UID 1:70",
    b"SEARCH KEYWORD 5 SUBJECT 6 7": b"UID SEARCH KEYWORD 5 SUBJECT 6 UID 70 UID 1:70",
    b'SEARCH HEADER "5" "6" 7': b'UID SEARCH HEADER "5" "6" UID 70 UID 1:70',
    b"SEARCH HEADER Message-ID <5@x> 7": b"UID SEARCH HEADER Message-ID <5@x> UID 70 UID 1:70",
    b"SEARCH HEADER {1+}\n5 {1+}\n6 7": b'UID SEARCH HEADER "5" "6" UID 70 UID 1:70',
    b'SEARCH TEXT "a \\" ) 3" 5': b'UID SEARCH TEXT "a \\" ) 3" UID 50 UID 1:70',
    b"SEARCH TEXT {4+}\n5\n6 5": b"UID SEARCH TEXT {4}\r\n5\r\n6 UID 50 UID 1:70",
    b'SEARCH TEXT ""': b'UID SEARCH TEXT "" UID 1:70',
    b"SEARCH LARGER 5 SMALLER 6 ON 5-May-2026 5": b"UID SEARCH LARGER 5 SMALLER 6 ON 5-May-2026 UID 50 UID 1:70",
    b"SEARCH YOUNGER 5 UID 5 5": b"UID SEARCH YOUNGER 5 UID 5 UID 50 UID 1:70",
    b"SEARCH CHARSET UTF-8 5": b"UID SEARCH CHARSET UTF-8 UID 50 UID 1:70",
    b'SEARCH charset "utf-8" 5': b'UID SEARCH charset "utf-8" UID 50 UID 1:70',
    b"SEARCH CHARSET": b"UID SEARCH CHARSET UID 1:70",
    b"SEARCH RETURN () 5": b"UID SEARCH RETURN () UID 50 UID 1:70",
    b"SEARCH RETURN (MIN MAX PARTIAL 1:5) 5": b"UID SEARCH RETURN (MIN MAX PARTIAL 1:5) UID 50 UID 1:70",
    b"SEARCH RETURN (COUNT) CHARSET US-ASCII NOT 5": (
        b"UID SEARCH RETURN (COUNT) CHARSET US-ASCII NOT UID 50 UID 1:70"
    ),
    b"SEARCH RETURN (ALL)": b"UID SEARCH RETURN (ALL) UID 1:70",
    b"SORT (REVERSE DATE) UTF-8 5": b"UID SORT (REVERSE DATE) UTF-8 UID 50 UID 1:70",
    b"SORT RETURN (ALL) (DATE) UTF-8 5": b"UID SORT RETURN (ALL) (DATE) UTF-8 UID 50 UID 1:70",
    b"SORT DATE UTF-8 5": b"UID SORT DATE UTF-8 UID 50 UID 1:70",
    b"SORT RETURN (ALL) UTF-8": b"UID SORT RETURN (ALL) UTF-8 UID 1:70",
    b"THREAD REFERENCES UTF-8 5": b"UID THREAD REFERENCES UTF-8 UID 50 UID 1:70",
    b"THREAD RETURN (THREAD) REFS UTF-8 5": b"UID THREAD RETURN (THREAD) REFS UTF-8 UID 50 UID 1:70",
    b"UID SEARCH 5 UID 1:*": b"UID SEARCH UID 50 UID 1:*",
    b"UID SORT (DATE) UTF-8 5": b"UID SORT (DATE) UTF-8 UID 50",
    b"UID THREAD REFERENCES UTF-8 NOT 3:4": b"UID THREAD REFERENCES UTF-8 NOT (NOT ALL)",
    b"SEARCH X-GM-RAW foo": GONE,
    b"SEARCH FILTER 5": GONE,
    b"SEARCH RETURN 5": GONE,
    b"UID SEARCH SUBJECT a XFOO 5": GONE,
    b"SEARCH {3+}\nfoo": GONE,
}


@pytest.mark.parametrize("text", HAUNTED)
def test_ghosts(text: bytes) -> None:
    """With ghosts in the middle every number is one of the session's; what is gone is left out (rules 8 and 18)."""
    assert sent(text, haunted()) == HAUNTED[text]


AGREED = {
    b"FETCH 1:* (FLAGS)": b"FETCH 1:* (FLAGS)",
    b"FETCH 8 (FLAGS)": b"FETCH 8 (FLAGS)",
    b"STORE 9 +FLAGS (x)": b"STORE 9 +FLAGS (x)",
    b"STORE *:6 +flags.silent ({3+}\nfoo \\seen)": b'UID STORE 60:70 +FLAGS ("foo" \\seen)',
    b"STORE 8 +FLAGS.SILENT (x)": RANGE,
    b"UID STORE 5:* FLAGS.SILENT x": b"UID STORE 5:* FLAGS x",
    b"STORE 2 (FOO 1) -FLAGS.SILENT (x)": b"UID STORE 20 (FOO 1) -FLAGS (x)",
    b"COPY 2:4 box": b"UID COPY 20:40 box",
    b"MOVE *:1 box": b"UID MOVE 10:70 box",
    b"COPY 8 box": RANGE,
    b"SEARCH NOT 1:* X-GM-RAW foo": b"SEARCH NOT 1:* X-GM-RAW foo",
    b'SEARCH SUBJECT "new"': b'SEARCH SUBJECT "new"',
    b"SEARCH SUBJECT new 3": b"SEARCH SUBJECT new 3",
    b"SEARCH X-GM-LABELS new 3": b"SEARCH X-GM-LABELS new 3",
    b"SORT (DATE) UTF-8 5:*": b"SORT (DATE) UTF-8 5:*",
}


@pytest.mark.parametrize("text", AGREED)
def test_agreed(text: bytes) -> None:
    """Where all numbers mean the same the server judges them; COPY and MOVE go by UID always (rules 7 and 10)."""
    assert sent(text, agreed()) == AGREED[text]


@pytest.mark.parametrize(
    "text", [b"STORE 1 +FLAGS.SILENT ({19+}\nx)\nT2 DELETE INBOX)", b'STORE 1 +FLAGS.SILENT ("x) {3}")']
)
def test_no_smuggling(text: bytes) -> None:
    """What stands in a flag's literal, or in quotes, never becomes a command or another flag (THREATS A12, A49)."""
    for scene in (agreed(), six_of_seven(), haunted()):
        asked = form(reading(text), *scene)
        assert isinstance(asked, Form)
        assert asked.verb == b"UID STORE"
        pieces = segments((b"T ", asked.verb, *asked.parts))
        if len(pieces) == 2:
            assert pieces == [b"T UID STORE 10 +FLAGS ({19}\r\n", b"x)\r\nT2 DELETE INBOX)\r\n"]
        else:
            assert pieces == [b'T UID STORE 10 +FLAGS ("x) {3}")\r\n']


def test_long_argument() -> None:
    """A quoted string that a server might choke on goes as a literal (rule 18)."""
    text = b"a" * 1100
    assert sent(b'SEARCH TEXT "%b" 5' % text, haunted()) == b"UID SEARCH TEXT {1100}\r\n%b UID 50 UID 1:70" % text


DESERTED = {
    b"FETCH 1:* (FLAGS)": GONE,
    b"FETCH 4 (FLAGS)": RANGE,
    b"SEARCH ALL": b"UID SEARCH ALL (NOT ALL)",
    b"SEARCH NOT 1:3": b"UID SEARCH NOT (NOT ALL) (NOT ALL)",
    b"UID SEARCH 1": b"UID SEARCH (NOT ALL)",
}
NEWCOMER = {
    b"FETCH * (FLAGS)": RANGE,
    b"FETCH 1 (FLAGS)": RANGE,
    b"STORE 1:* FLAGS.SILENT x": RANGE,
    b"COPY 1 box": RANGE,
    b"SEARCH *": b"UID SEARCH (NOT ALL) (NOT ALL)",
    b"SEARCH NOT 5": b"UID SEARCH NOT (NOT ALL) (NOT ALL)",
}


@pytest.mark.parametrize("text", DESERTED)
def test_deserted(text: bytes) -> None:
    """A session whose messages are all gone finds nothing, and never a message it does not know (rule 8)."""
    assert sent(text, deserted()) == DESERTED[text]


@pytest.mark.parametrize("text", NEWCOMER)
def test_newcomer(text: bytes) -> None:
    """In an empty mailbox no number and no ``*`` names anything, as in RFC 3501 (rule 8)."""
    assert sent(text, newcomer()) == NEWCOMER[text]


def test_forms() -> None:
    """Whether numbers became UIDs is known, and STORE says what the session does not want to hear of, of what."""
    nothing = Store("+", False, ("x",))
    assert isinstance(form(reading(b"FETCH 1 (FLAGS)"), *haunted()), Form)
    cases = {
        b"FETCH 1 (FLAGS)": (True, None, ()),
        b"UID FETCH 1 (FLAGS)": (False, None, ()),
        b"COPY 1 box": (True, None, ()),
        b"SEARCH 1": (True, None, ()),
        b"UID SEARCH 1": (False, None, ()),
        b"STORE 1 +FLAGS (x)": (True, None, ()),
        b"STORE 1,6:5,3 +FLAGS.SILENT (x)": (True, nothing._replace(silent=True), ((10, 10), (50, 60))),
        b"UID STORE 5:9,7:8,1,9:12,* +FLAGS.SILENT (x)": (
            False,
            nothing._replace(silent=True),
            ((1, 1), (5, 12), (70, 4294967295)),
        ),
        b"UID STORE 100:* +FLAGS.SILENT (x)": (False, nothing._replace(silent=True), ((70, 4294967295),)),
    }
    for text, expected in cases.items():
        asked = form(reading(text), *haunted())
        assert isinstance(asked, Form)
        assert (asked.by_uid, asked.store, asked.named) == expected, text
    saved = form(reading(b"UID STORE $ FLAGS.SILENT (x)"), *haunted())
    assert isinstance(saved, Form)
    assert saved.named == ()
    agree = form(reading(b"FETCH 1 (FLAGS)"), *agreed())
    assert isinstance(agree, Form)
    assert not agree.by_uid
    empty = form(reading(b"UID STORE * FLAGS.SILENT (x)"), View(read_only=False), Truth())
    assert isinstance(empty, Form)
    assert empty.named == ((0, 4294967295),)


def test_refusals() -> None:
    """A session whose messages are gone learns what to do (rule 8)."""
    assert form(reading(b"FETCH 3 (FLAGS)"), *haunted()) is NOBODY
    assert NOBODY.text.endswith(b"say NOOP to hear of it")
    unknown = form(reading(b"SEARCH X-GM-RAW foo"), *haunted())
    assert isinstance(unknown, Refusal)
    assert unknown.text.endswith(b"say NOOP, then search again")


def test_many_names() -> None:
    """A command that names all messages very often, some of them gone, costs no look at each of them (THREATS A15)."""
    truth = holding(*range(1, 5001))
    view = looking(truth)
    for uid in range(1, 5001, 2):
        go(truth, uid, view)
    often = [b"1:*"] * 9000
    assert sent(b"FETCH " + b",".join(often) + b" (FLAGS)", (view, truth)) == (
        b"UID FETCH " + b",".join([b"2:5000"] * 9000) + b" (FLAGS)"
    )
    assert sent(b"SEARCH " + b" ".join(often), (view, truth)) == (
        b"UID SEARCH " + b" ".join([b"UID 2:5000"] * 9000) + b" UID 1:5000"
    )


RECENTS = {
    b"SEARCH RECENT": b"SEARCH UID 20,40:41",
    b"SEARCH NOT NEW": b"SEARCH NOT (UID 20,40:41 UNSEEN)",
    b"SEARCH OR OLD 3": b"SEARCH OR NOT UID 20,40:41 3",
    b"SEARCH SUBJECT old 3 old": b"SEARCH SUBJECT old 3 NOT UID 20,40:41",
    b"UID SEARCH RECENT 1:*": b"UID SEARCH UID 20,40:41 1:*",
    b"SORT (DATE) UTF-8 RECENT": b"SORT (DATE) UTF-8 UID 20,40:41",
}
NO_RECENTS = {
    b"SEARCH RECENT": b"SEARCH (NOT ALL)",
    b"SEARCH NEW": b"SEARCH (NOT ALL)",
    b"SEARCH NOT OLD": b"SEARCH NOT ALL",
}


def test_recent() -> None:
    """RECENT, NEW and OLD are what is recent to this session, and to it alone (rule 19)."""
    truth = holding(10, 20, 40, 41)
    truth.recent = {20, 40, 41}
    view, other, reader = looking(truth), looking(truth), looking(truth, read_only=True)
    for text, expected in RECENTS.items():
        assert sent(text, (view, truth)) == expected
        assert sent(text, (reader, truth)) == text
    for text, expected in NO_RECENTS.items():
        assert sent(text, (other, truth)) == expected
    go(truth, 10, view, reader)
    assert sent(b"SEARCH NEW 2", (view, truth)) == b"UID SEARCH (UID 20,40:41 UNSEEN) UID 20 UID 1:41"
    assert sent(b"SEARCH NEW 2", (reader, truth)) == b"UID SEARCH NEW UID 20 UID 1:41"
