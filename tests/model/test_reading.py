"""What a command says, however it was written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imapgate.limits import Limits
from imapgate.model.commands import COMMANDS, Command, Rule, table
from imapgate.model.reading import Reading, Store
from imapgate.session.intake import Complete, Intake, MessageBegins, MessageTail, Refused
from imapgate.wire.tokens import ATOM, CLOSE, OPEN, QUOTED, Token, Tokens
from tests.model.test_commands import PLAIN, plain_arguments

EVERYTHING = [name for name, value in vars(Reading).items() if isinstance(value, property)]


def readings(text: bytes, *, utf8: bool = False) -> list[Reading]:
    """What is read of a command as it is when a message is announced, each time, and when it is whole.

    ``{n+}`` with a line break behind it announces a literal.
    """
    intake = Intake(Limits(), table(["XFOO"]))
    intake.authenticated, intake.utf8 = True, utf8
    intake.feed(b"a1 " + text.replace(b"\n", b"\r\n") + b"\r\n")
    found: list[Reading] = []
    while True:
        event = intake.next()
        assert event is not None, "the command has no end"
        if isinstance(event, Complete | MessageTail):
            return [*found, Reading(event.command, utf8=utf8)]
        if isinstance(event, MessageBegins):
            found.append(Reading(event.command, message_size=event.size, utf8=utf8))
            intake.accepted()
        elif isinstance(event, Refused):
            return []


def reading(text: bytes, *, utf8: bool = False) -> Reading:
    """What is read of a whole command."""
    return readings(text, utf8=utf8)[-1]


def said(read: Reading) -> dict[str, Any]:
    """Everything that is read of it, what is empty left out."""
    names = ("mailboxes", "mailbox_raw", "patterns", "destination", "sequence", "items", "store", "flags", "criteria")
    found = {name: getattr(read, name) for name in (*names, "urls")}
    return {name: value for name, value in found.items() if value}


VERBS = {
    b"UID FETCH 5 (FLAGS)": ("UID FETCH", "FETCH", True),
    b"fetch 5 (FLAGS)": ("FETCH", "FETCH", False),
    b"uid expunge 1:*": ("UID EXPUNGE", "EXPUNGE", True),
    b"Noop": ("NOOP", "NOOP", False),
}


@pytest.mark.parametrize("text", VERBS)
def test_verb(text: bytes) -> None:
    """The verb is in upper case, and its name is the same with and without UID."""
    read = reading(text)
    assert (read.verb, read.name, read.uid) == VERBS[text]
    assert read.command.rule.verb.decode() == read.verb


def test_tokens() -> None:
    """A plain command, which came without tokens, has them when they are asked for; others have what they came with."""
    plain, careful, bare = reading(b"UID FETCH 5 (FLAGS)"), reading(b'SELECT "a \\"b"'), reading(b"NOOP")
    assert plain.command.tokens == ()
    assert plain.tokens == (Token(ATOM, b"5"), Token(OPEN, b"("), Token(ATOM, b"FLAGS"), Token(CLOSE, b")"))
    assert plain.tokens is plain.tokens
    assert careful.tokens is careful.command.tokens
    assert careful.tokens == (Token(QUOTED, b'a "b'),)
    assert bare.tokens == ()


def test_nothing_can_be_changed() -> None:
    """A plugin cannot make a command say something else to those behind it."""
    read = reading(b"SELECT x")
    for name in [*EVERYTHING, "anything"]:
        with pytest.raises(AttributeError):
            setattr(read, name, ())
    assert read.mailboxes == ("x",)


def test_a40_repr() -> None:
    """It is shown as its command is: nothing of what is secret."""
    login = Command(b"a", COMMANDS[b"LOGIN"], (b" ", b"alice hunter2"), ())
    assert "hunter2" not in repr(Reading(login))
    assert repr(reading(b"SELECT x")) == "Reading(Command(b'a1', b'SELECT', (b' ', b'x')))"


NAMED = {
    # one name, many spellings
    b"SELECT INBOX": ("INBOX",),
    b"SELECT inbox": ("INBOX",),
    b'SELECT "inBox"': ("INBOX",),
    b"SELECT {5+}\ninbox": ("INBOX",),
    b"SELECT {6+}\ninbox/": ("INBOX",),
    b"SELECT &AGkAbgBiAG8AeA-": ("INBOX",),
    b'SELECT "in\\"box"': ('in"box',),
    b"EXAMINE Entw&APw-rfe": ("Entwürfe",),
    b"EXAMINE Entw&APw-rfe. (CONDSTORE)": ("Entwürfe",),
    b"EXAMINE &AEU-ntw&APw-&AHI-fe/": ("Entwürfe",),
    "EXAMINE {9+}\nEntwürfe".encode(): ("Entwürfe",),
    b"SELECT ]x": ("]x",),
    b'SELECT ""': ("",),
    # the commands that name one
    b'CREATE a (USE (\\Sent))': ("a",),
    b"DELETE a/": ("a",),
    b"SUBSCRIBE a": ("a",),
    b"UNSUBSCRIBE {1+}\na": ("a",),
    b"STATUS inbox (MESSAGES)": ("INBOX",),
    b'STATUS "a b" (MESSAGES)': ("a b",),
    b"GETQUOTAROOT a": ("a",),
    b"GETACL a": ("a",),
    b"SETACL a bob lrs": ("a",),
    b"DELETEACL a bob": ("a",),
    b"LISTRIGHTS a bob": ("a",),
    b"MYRIGHTS a": ("a",),
    b"SETMETADATA a (/private/comment x)": ("a",),
    b'SETANNOTATION a "/comment" ("value.priv" "x")': ("a",),
    b'GETANNOTATION "a" "/*" "value.priv"': ("a",),
    b'GETANNOTATION ("a" b) "/*" "value.priv"': ("a", "b"),
    # GETMETADATA, with options before or behind the mailbox, and Cyrus's list of mailboxes
    b"GETMETADATA a /shared/comment": ("a",),
    b'GETMETADATA "" (/shared/comment /shared/admin)': ("",),
    b"GETMETADATA (MAXSIZE 1024 depth infinity) a (/shared/comment)": ("a",),
    b"GETMETADATA (DEPTH 1) {1+}\na /shared/comment": ("a",),
    b"GETMETADATA a (MAXSIZE 1024) /shared/comment": ("a",),
    b'GETMETADATA ("a" inbox) /shared/comment': ("a", "INBOX"),
    b'GETMETADATA (DEPTH 1) ("a" b/) (/shared/comment)': ("a", "b"),
    b"GETMETADATA depth (MAXSIZE 1) /shared/comment": ("depth",),
    b"GETMETADATA (DEPTH a) /shared/comment": ("DEPTH", "a"),
    b"GETMETADATA () a /shared/comment": ("a",),
    b"GETMETADATA (COLOUR red) a /shared/comment": ("COLOUR", "red", "a"),
    # ESEARCH in many (RFC 7377)
    b'ESEARCH IN (mailboxes ("x" "y/") subtree Archive) RETURN (COUNT) UNSEEN': ("x", "y", "Archive"),
    b"esearch in (Subtree-One inbox personal MAILBOXES a) UNSEEN": ("INBOX", "a"),
    b"ESEARCH IN (mailboxes subtree subtree mailboxes) UNSEEN": ("subtree", "mailboxes"),
    b"ESEARCH IN (personal inboxes subscribed) UNSEEN": (),
    b"ESEARCH IN (mailboxes) UNSEEN": (),
    b"ESEARCH IN": (),
    b"ESEARCH SUBJECT mailboxes": (),
    b"ESEARCH (mailboxes a)": (),
    b"ESEARCH RETURN (mailboxes a) UNSEEN": (),
    # those that name none
    b"NOOP": (),
    b"LIST a b": (),
    b"SEARCH SUBJECT a": (),
    b"GETQUOTA a": (),
    b"UID EXPUNGE 1": (),
    b"XFOO a": (),
}  # fmt: skip


@pytest.mark.parametrize("text", NAMED)
def test_mailboxes(text: bytes) -> None:
    """A mailbox has one name, whichever command names it, and in whatever way."""
    read = reading(text)
    assert read.mailboxes == NAMED[text]
    assert read.destination == ""
    assert read.mailboxes is read.mailboxes


RAW = {
    b"SELECT inbox/": b"inbox/",
    b'SELECT "a \\"b"': b'a "b',
    b"SELECT {4+}\n\xc3\xbc/x": b"\xc3\xbc/x",
    b"RENAME &APw- b": b"&APw-",
    b"UID COPY 1:* Sent.": b"Sent.",
    b"GETMETADATA (DEPTH 1) inbox x": b"inbox",
    b"LIST a b": b"",
}


@pytest.mark.parametrize("text", RAW)
def test_mailbox_raw(text: bytes) -> None:
    """The first mailbox is there as it came, too."""
    assert reading(text).mailbox_raw == RAW[text]


def test_utf8() -> None:
    """A quoted name may be UTF-8 where that was enabled."""
    assert reading('SELECT "Entwürfe"'.encode(), utf8=True).mailboxes == ("Entwürfe",)


PATTERNS = {
    b'LIST "" *': ("*",),
    b'LIST "" "%"': ("%",),
    b'LIST "" ""': ("",),
    b'list a/ {1+}\n%': ("a/%",),
    b'LIST (SUBSCRIBED) "" ("a" "b%") RETURN (STATUS (MESSAGES))': ("a", "b%"),
    b"LIST (SUBSCRIBED RECURSIVEMATCH) x. (a {1+}\nb) RETURN (CHILDREN)": ("x.a", "x.b"),
    b'LIST () "" % RETURN (SPECIAL-USE)': ("%",),
    b'LIST "" (INBOX Sent/*)': ("INBOX", "Sent/*"),
    b'LIST "" Entw&APw-*': ("Entwü*",),
    b"LIST &AP w-*": ("ü*",),
    b'LIST (SUBSCRIBED) ""': (),
    b'LIST (SUBSCRIBED) (a b)': (),
    b'LSUB "a/" *': ("a/*",),
    b'XLIST "" %': ("%",),
    b'SCAN "x/" * needle': ("x/*",),
    b"STATUS a (MESSAGES)": (),
}  # fmt: skip


@pytest.mark.parametrize("text", PATTERNS)
def test_patterns(text: bytes) -> None:
    """What is listed, as the server matches it: behind the reference, each pattern of a list."""
    read = reading(text)
    assert read.patterns == PATTERNS[text]
    assert text.startswith(b"STATUS") or not read.mailboxes


def test_rename() -> None:
    """Both names are mailboxes, the second is the destination."""
    assert said(reading(b'RENAME "a/" inbox/x')) == {
        "mailboxes": ("a", "INBOX/x"),
        "mailbox_raw": b"a/",
        "destination": "INBOX/x",
    }


@pytest.mark.parametrize("verb", [b"COPY", b"UID COPY", b"move", b"UID Move"])
@pytest.mark.parametrize("name", [b"inbox", b'"Inbox"', b"{6+}\nINBOX/"])
def test_copy_and_move(verb: bytes, name: bytes) -> None:
    """They have messages, and one mailbox, which is the destination."""
    read = reading(verb + b" 1:*,7 " + name)
    assert (read.sequence, read.mailboxes, read.destination) == (b"1:*,7", ("INBOX",), "INBOX")


SEQUENCES = {
    b"FETCH 1:*,4 ALL": b"1:*,4",
    b"UID FETCH $ (FLAGS)": b"$",
    b'FETCH 5 BODY[HEADER.FIELDS ("a")]': b"5",
    b"STORE 2 FLAGS ()": b"2",
    b"UID EXPUNGE 3:4": b"3:4",
    b"SEARCH 1:5": b"",
    b"EXPUNGE": b"",
    b"SELECT 5": b"",
}


@pytest.mark.parametrize("text", SEQUENCES)
def test_sequence(text: bytes) -> None:
    """The messages of a command that names them in its first argument."""
    assert reading(text).sequence == SEQUENCES[text]


ITEMS = {
    b"(FLAGS)": ("FLAGS",),
    b"flags": ("FLAGS",),
    b"()": (),
    b"(UID Rfc822.Size BODY[])": ("UID", "RFC822.SIZE", "BODY[]"),
    b"ALL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"),
    b"fast": ("FLAGS", "INTERNALDATE", "RFC822.SIZE"),
    b"Full": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"),
    b"(UID FAST)": ("UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE"),
    b"RFC822": ("RFC822",),
    b"(RFC822.HEADER rfc822.text)": ("RFC822.HEADER", "RFC822.TEXT"),
    b"BODY.PEEK[1.2.mime]": ("BODY.PEEK[1.2.MIME]",),
    b"BODY[TEXT]<0.100>": ("BODY[TEXT]<0.100>",),
    b"(BINARY[1] BINARY.PEEK[2]<0.5> BINARY.SIZE[3])": ("BINARY[1]", "BINARY.PEEK[2]<0.5>", "BINARY.SIZE[3]"),
    b'BODY.PEEK[HEADER.FIELDS (FROM "to")]<0.100>': ("BODY.PEEK[HEADER.FIELDS (FROM TO)]<0.100>",),
    b"(FLAGS BODY[header.fields.not ({2+}\nto)] UID)": ("FLAGS", "BODY[HEADER.FIELDS.NOT (TO)]", "UID"),
    b"BODY[1.HEADER.FIELDS (a)] (CHANGEDSINCE 5)": ("BODY[1.HEADER.FIELDS (A)]",),
    b"(BODY[HEADER.FIELDS (a (b))] UID)": ("BODY[HEADER.FIELDS (A B)]", "UID"),
    b"(BODY[HEADER.FIELDS (a)] BODY[HEADER.FIELDS (b)])": ("BODY[HEADER.FIELDS (A)]", "BODY[HEADER.FIELDS (B)]"),
    b"(FLAGS) (CHANGEDSINCE 5)": ("FLAGS",),
    b"FLAGS (CHANGEDSINCE 5 VANISHED)": ("FLAGS",),
    b"() (CHANGEDSINCE 5)": (),
    b"(UID PREVIEW (LAZY))": ("UID", "PREVIEW", "LAZY"),
    # what no server should take is shown
    b"FLAGS BODY[]": ("FLAGS", "BODY[]"),
    b"(FLAGS (BODY[]))": ("FLAGS", "BODY[]"),
    b'("BODY[]")': ("BODY[]",),
    b"({6+}\nbody[])": ("BODY[]",),
    b'("BODY[" UID)': ("BODY[", "UID"),
    b'("BODY[" (UID))': ("BODY[", "UID"),
    b"BODY[": ("BODY[",),
    b"(BODY[ UID)": ("BODY[", "UID"),
    b"({1+}\n\xe9)": ("\\xe9",),
}


@pytest.mark.parametrize("text", ITEMS)
@pytest.mark.parametrize("verb", [b"FETCH", b"UID FETCH"])
def test_items(verb: bytes, text: bytes) -> None:
    """What is fetched is there in one spelling, and modifiers are not."""
    assert reading(verb + b" 1:* " + text).items == ITEMS[text]


STORES = {
    b"STORE 1:* +FLAGS.SILENT \\Deleted": Store("+", True, ("\\Deleted",)),
    b"STORE 1 +flags (\\deleted)": Store("+", False, ("\\Deleted",)),
    b"UID STORE 1 -FLAGS (\\SEEN $Junk)": Store("-", False, ("\\Seen", "$Junk")),
    b"STORE 1 FLAGS ()": Store("", False, ()),
    b"STORE 1 Flags.Silent \\Seen \\Answered x": Store("", True, ("\\Seen", "\\Answered", "x")),
    b"STORE 1 (UNCHANGEDSINCE 5) +FLAGS.SILENT (\\Deleted)": Store("+", True, ("\\Deleted",)),
    b"STORE 1 (UNCHANGEDSINCE 5) FLAGS \\Deleted": Store("", False, ("\\Deleted",)),
    b'STORE 1 "+FLAGS" ("\\\\deleted" {1+}\nx)': Store("+", False, ("\\Deleted", "x")),
    b'STORE 1 FLAGS (\\Seen) (\\Deleted)': Store("", False, ("\\Seen", "\\Deleted")),
    b"STORE 1 ANNOTATION (/comment (value.priv x))": None,
    b"STORE 1 ++FLAGS x": None,
    b"STORE 1 (UNCHANGEDSINCE 5) (FLAGS) x": None,
    b"FETCH 1 FLAGS": None,
}  # fmt: skip


@pytest.mark.parametrize("text", STORES)
def test_store(text: bytes) -> None:
    """What STORE does to which flags; another item of it is none that is known."""
    assert reading(text).store == STORES[text]


def appended(text: bytes) -> list[tuple[tuple[str, ...], tuple[str, ...], int]]:
    """Flags, URLs and size when each message is announced, and at the end."""
    return [(read.flags, read.urls, read.message_size) for read in readings(text)]


DATE = b'"14-Jul-1993 02:44:25 -0700"'
APPENDS = {
    b"APPEND x {3+}\nabc": [((), (), 3), ((), (), 0)],
    b"APPEND x () {3+}\nabc": [((), (), 3), ((), (), 0)],
    b"APPEND x (\\seen $a) " + DATE + b" {3+}\nabc": [(("\\Seen", "$a"), (), 3), (("\\Seen", "$a"), (), 0)],
    b"APPEND x (\\Seen) ~{3+}\nabc": [(("\\Seen",), (), 3), (("\\Seen",), (), 0)],
    b"APPEND x (a) {1+}\na (b) " + DATE + b" {2+}\nbc": [(("a",), (), 1), (("a", "b"), (), 2), (("a", "b"), (), 0)],
    b"APPEND x (a) UTF8 (~{2+}\n\xc3\xbc)": [(("a",), (), 2), (("a",), (), 0)],
    b'APPEND x (\\Seen) "date" CATENATE (URL "/INBOX;UID=20" TEXT {5+}\nabcde URL b)': [
        (("\\Seen",), ("/INBOX;UID=20",), 5),
        (("\\Seen",), ("/INBOX;UID=20", "b"), 0),
    ],
    b"APPEND x UTF8 (URL a)": [((), (), 0)],
    b'APPEND x "CATENATE" (a)': [(("a",), (), 0)],
    b'APPEND x catenate (url "/x/;UID=1")': [((), ("/x/;UID=1",), 0)],
    b"APPEND CATENATE (URL) CATENATE (URL ())": [(("URL",), (), 0)],
    b'APPEND URL (URL) "URL" CATENATE (TEXT {1+}\na)': [(("URL",), (), 1), (("URL",), (), 0)],
    b"UID REPLACE 5 x (\\Flagged) {3+}\nabc": [(("\\Flagged",), (), 3), (("\\Flagged",), (), 0)],
    b'REPLACE 5 x CATENATE (URL "u")': [((), ("u",), 0)],
    b"STORE 1 FLAGS (x)": [((), (), 0)],
}


@pytest.mark.parametrize("text", APPENDS)
def test_append_and_replace(text: bytes) -> None:
    """Flags and URLs are those that have come when a message is announced; the others are there in the end."""
    assert appended(text) == APPENDS[text]


@pytest.mark.parametrize("text", [b"APPEND inbox/ {1+}\na", b'APPEND "inBox" () {1+}\na', b"REPLACE 7 inbox {1+}\na"])
def test_destination_of_a_message(text: bytes) -> None:
    """Where a message goes is known before it is asked for."""
    for read in readings(text):
        assert (read.mailboxes, read.destination) == (("INBOX",), "INBOX")
        assert read.sequence == (b"7" if read.name == "REPLACE" else b"")


LONG = b"y" * 2000
CRITERIA = {
    b"SEARCH UNSEEN": b"UNSEEN",
    b'UID SEARCH RETURN (ALL) SUBJECT "a \\"b" (OR 1:* (SEEN))': b'RETURN (ALL) SUBJECT "a \\"b" (OR 1:* (SEEN))',
    b'SEARCH SUBJECT {3+}\na"b UNSEEN': b'SUBJECT "a\\"b" UNSEEN',
    b"SEARCH CHARSET UTF-8 TEXT {2+}\n\xc3\xbc SEEN": b"CHARSET UTF-8 TEXT {2}\xc3\xbc SEEN",
    b'SEARCH TEXT "' + LONG + b'"': b"TEXT {2000}" + LONG,
    b"SORT (REVERSE DATE) UTF-8 ALL": b"(REVERSE DATE) UTF-8 ALL",
    b"THREAD REFERENCES UTF-8 ALL": b"REFERENCES UTF-8 ALL",
    b"ESEARCH IN (personal) UNSEEN": b"IN (personal) UNSEEN",
    b'ESEARCH IN (mailboxes "a") UNSEEN': b'IN (mailboxes "a") UNSEEN',
    b"FETCH 1 ALL": b"",
}


@pytest.mark.parametrize("text", CRITERIA, ids=lambda text: ascii(text[:40]))
def test_criteria(text: bytes) -> None:
    """What was searched for is in one line, whether it came as literals or not."""
    assert reading(text).criteria == CRITERIA[text]


@settings(max_examples=100)
@given(case=st.sampled_from(PLAIN).flatmap(plain_arguments))
def test_plain_commands_say_what_careful_ones_do(case: tuple[Rule, bytes]) -> None:
    """Nothing that is read of a command depends on whether its tokens came with it."""
    rule, text = case
    parts = (b" ", text) if text else ()
    tokens = Tokens(1)
    assert tokens.feed(text) is None
    plain, careful = Reading(Command(b"a", rule, parts, ())), Reading(Command(b"a", rule, parts, tuple(tokens.items)))
    assert plain.tokens == careful.tokens
    assert said(plain) == said(careful)


WORDS = st.sampled_from(
    [
        *(b"a", b"1", b"IN", b"URL", b"CATENATE", b"+FLAGS", b"BODY[", b"]", b"BODY[]<0.1>", b"mailboxes", b"DEPTH"),
        *(b'""', b'"inbox"', b'"BODY["', b"{0+}\n", b"{2+}\n\xc3\xbc", b"~{1+}\n\0", b"BODY[X (a)]", b"&AOQ-", b"&"),
    ]
)


def in_list(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """A list of these."""
    return st.lists(inner, max_size=4).map(lambda some: b"(" + b" ".join(some) + b")")


ANYTHING = st.recursive(WORDS, in_list)
OF_KIND = {"mailbox": WORDS, "string": WORDS, "sequence": st.just(b"1:*"), "list": in_list(ANYTHING), "any": ANYTHING}


def commands(rule: Rule) -> st.SearchStrategy[bytes]:
    """A command with arguments of its row's shape, and perhaps more."""
    more = st.lists(ANYTHING, max_size=4 * rule.more)
    shape = st.tuples(*(OF_KIND[kind] for kind in rule.shape))
    return st.builds(lambda first, rest: b" ".join([rule.verb, *first, *rest]), shape, more)


@settings(max_examples=500)
@given(text=st.sampled_from(list(COMMANDS.values())).flatmap(commands))
def test_reading_never_fails(text: bytes) -> None:
    """Whatever the gate takes for a command can be read, whole or at a message."""
    for read in readings(text):
        for name in EVERYTHING:
            getattr(read, name)
