"""The reference server keeps to the table of what real servers do, a test for each row.

All that it says is read by a :class:`~tests.sharing.picture.Picture`, so that nothing here breaks the protocol unseen.
"""

from __future__ import annotations

import pytest

from tests.sharing.picture import Client, Violation
from tests.sharing.server import COURIER, CYRUS, DOVECOT, FALSE, STYLES, Server, Store
from tests.sharing.store import Mailbox
from tests.sharing.told import Style

each = pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
BODY = b"Subject: hi\r\n\r\nthere\r\n"


class Site:
    """A store whose INBOX has some messages, with UIDs that are no sequence numbers, and a client that selected it."""

    def __init__(self, style: Style, messages: int = 6, select: bytes = b"SELECT INBOX", hasty: bool = False) -> None:
        self.style = style
        self.store = Store()
        self.inbox: Mailbox = self.store[b"INBOX"]
        self.inbox.uidnext = 11
        for _ in range(messages):
            self.inbox.append(BODY)
        self.server = Server(self.store, style, hasty=hasty)
        self.client = Client(self.server.received, style.swaps)
        self.client.says(select)
        self.client.says(b"FETCH 1:* (UID FLAGS)")

    def says(self, text: bytes) -> list[bytes]:
        """What a command gets, without its completion."""
        lines = self.client.says(text)
        assert lines[-1].startswith(b"OK"), lines
        return lines[:-1]

    def ended(self, text: bytes) -> bytes:
        """How a command ends."""
        return self.client.says(text)[-1]

    def agrees(self) -> None:
        """After a NOOP the client's picture is the truth."""
        self.says(b"NOOP")
        assert self.client.picture.differences(self.inbox.messages) == []

    def changes(self) -> None:
        """Others change, take out and add a message."""
        self.inbox.store(12, b"+", [b"\\Flagged", b"kw"])
        self.inbox.expunge(13)
        self.inbox.expunge(15)
        self.inbox.append(BODY)


FLAGS = [b"FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft kw)"]
PERMANENT = [b"OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft kw \\*)] Limited"]
CHANGED = [b"2 FETCH (FLAGS (\\Flagged \\Recent kw))"]
ORDER = {
    DOVECOT: [*FLAGS, *PERMANENT, *CHANGED, b"5 EXPUNGE", b"3 EXPUNGE", b"5 EXISTS", b"5 RECENT"],
    CYRUS: [b"3 EXPUNGE", b"4 EXPUNGE", b"5 EXISTS", b"5 RECENT", *FLAGS, *PERMANENT, *CHANGED],
    COURIER: [b"3 EXPUNGE", b"4 EXPUNGE", *FLAGS, *PERMANENT, b"5 EXISTS", b"5 RECENT", *CHANGED],
}


@each
@pytest.mark.parametrize("command", [b"NOOP", b"CHECK"])
def test_order(style: Style, command: bytes) -> None:
    """At NOOP and CHECK everything is told, in the server's order."""
    site = Site(style)
    site.changes()
    assert site.says(command) == ORDER[style]
    assert site.says(command) == []
    site.agrees()


@each
def test_old_and_new_numbers(style: Style) -> None:
    """Flags of a message behind one that is expunged: Dovecot has its old number, the others the new one."""
    site = Site(style)
    site.inbox.store(16, b"+", [b"\\Seen"])
    site.inbox.expunge(11)
    number = 6 if style is DOVECOT else 5
    assert b"%d FETCH (FLAGS (\\Recent \\Seen))" % number in site.says(b"NOOP")
    site.agrees()


@each
def test_idle(style: Style) -> None:
    """While it idles, it pushes what NOOP would have told; Courier does not idle."""
    site = Site(style)
    if style is COURIER:
        assert site.ended(b"IDLE").startswith(b"BAD")
        return
    assert site.client.says(b"IDLE") == [b"+ idling"]
    assert site.client.hears(site.server.pending()) == []
    site.changes()
    assert site.client.hears(site.server.pending()) == ORDER[style]
    assert site.client.says(b"DONE") == [b"OK Idle completed"]
    assert site.server.pending() == b""


NEWS = [*FLAGS, *PERMANENT, *CHANGED, b"7 EXISTS", b"7 RECENT"]
NEWS_FIRST = [b"7 EXISTS", b"7 RECENT", *FLAGS, *PERMANENT, *CHANGED]
OWN = {
    b"FETCH 1 (FLAGS)": [b"1 FETCH (FLAGS (\\Recent))"],
    b"SEARCH FLAGGED": [b"SEARCH"],
    b"SEARCH DRAFT": [b"SEARCH"],
    b"SORT (ARRIVAL) UTF-8 1:2": [b"SORT 1 2"],
    b"THREAD REFERENCES UTF-8 1:2": [b"THREAD (1 2)"],
}


@each
@pytest.mark.parametrize("command", OWN)
def test_during_commands_with_numbers(style: Style, command: bytes) -> None:
    """During FETCH, SEARCH, SORT and THREAD: news behind the own data, in front of them, or none; never EXPUNGE."""
    site = Site(style)
    site.changes()
    own = OWN[command]
    if style is COURIER:
        stray = [FLAGS[0].replace(b" kw", b"")] if command[:1] in b"ST" and b"SEARCH" not in command else []
        assert site.says(command) == own + stray
    elif style is CYRUS:
        flagged = [b"SEARCH 2"] if command == b"SEARCH FLAGGED" else own
        assert site.says(command) == NEWS_FIRST + flagged
    else:
        assert site.says(command) == own + NEWS
    site.agrees()


@each
def test_during_store(style: Style) -> None:
    """During STORE, too; Cyrus tells its own changes with all others."""
    site = Site(style)
    site.changes()
    own = [b"1 FETCH (FLAGS (\\Draft \\Recent))"]
    news = {
        DOVECOT: [*FLAGS, *PERMANENT, *own, *CHANGED, b"7 EXISTS", b"7 RECENT"],
        COURIER: [*FLAGS, *PERMANENT, *own],
    }
    news[CYRUS] = [b"7 EXISTS", b"7 RECENT", *FLAGS, *PERMANENT, *own, *CHANGED]
    assert site.says(b"STORE 1 +FLAGS (\\Draft)") == news[style]
    site.agrees()


EXPUNGES = {
    b"UID FETCH 11 (FLAGS)": {DOVECOT, CYRUS},
    b"UID STORE 11 +FLAGS (\\Draft)": {DOVECOT, CYRUS},
    b"UID SEARCH 1": {DOVECOT},
    b"UID COPY 11 other": {DOVECOT, CYRUS},
    b"COPY 1 other": {DOVECOT},
    b"UID MOVE 11 other": {DOVECOT, CYRUS},
}


@each
@pytest.mark.parametrize("command", EXPUNGES)
def test_expunge_in_other_commands(style: Style, command: bytes) -> None:
    """EXPUNGE comes with UID commands, some of them."""
    site = Site(style)
    site.store.create(b"other")
    site.inbox.expunge(13)
    if b"MOVE" in command and style is COURIER:
        assert site.ended(command).startswith(b"BAD")
        return
    lines = site.says(command)
    assert (b"3 EXPUNGE" in lines) is (style in EXPUNGES[command])
    if style is CYRUS and b"EXPUNGE" in b"".join(lines):
        assert (lines[0] == b"3 EXPUNGE") is (b"FETCH" not in command)
    site.agrees()


@each
def test_uid_in_flags_that_were_not_asked_for(style: Style) -> None:
    """Whether it has the UID depends on the command in which it comes."""
    given = {}
    for command in (
        b"UID FETCH 11 (UID)",
        b"UID STORE 11 +FLAGS (\\Seen)",
        b"UID COPY 11 INBOX",
        b"NOOP",
        b"FETCH 1 (UID)",
    ):
        site = Site(style)
        site.inbox.store(14, b"+", [b"\\Flagged"])
        lines = [line for line in site.says(command) if line.startswith(b"4 FETCH")]
        given[command.rpartition(b" 1")[0].split(b" (")[0] or command] = [b"UID" in line for line in lines]
        site.agrees()
    nothing: dict[bytes, list[bool]] = {
        b"UID FETCH": [],
        b"UID STORE": [],
        b"UID COPY": [],
        b"NOOP": [False],
        b"FETCH": [],
    }
    expected = {
        DOVECOT: {
            b"UID FETCH": [False],
            b"UID STORE": [True],
            b"UID COPY": [False],
            b"NOOP": [False],
            b"FETCH": [False],
        },
        CYRUS: {b"UID FETCH": [True], b"UID STORE": [True], b"UID COPY": [True], b"NOOP": [False], b"FETCH": [False]},
        COURIER: nothing,
    }
    assert given == expected[style]


@each
def test_a_store_that_changes_nothing(style: Style) -> None:
    """Only Courier shows flags that a loud STORE did not change; they are shown where they were not known."""
    site = Site(style)
    echo = [b"1 FETCH (FLAGS (\\Recent \\Seen))"]
    assert site.says(b"STORE 1 +FLAGS (\\Seen)") == echo
    assert site.says(b"STORE 1 +FLAGS (\\Seen)") == (echo if style is COURIER else [])
    site.inbox.store(12, b"+", [b"\\Seen"])
    assert site.says(b"STORE 2 +FLAGS (\\Seen)") == [b"2 FETCH (FLAGS (\\Recent \\Seen))"]
    site.agrees()


@each
def test_own_flags(style: Style) -> None:
    """UID STORE's own come with the UID, STORE's without; flags may stand in no list."""
    site = Site(style)
    assert site.says(b"UID STORE 11 +FLAGS (\\Draft)") == [b"1 FETCH (UID 11 FLAGS (\\Draft \\Recent))"]
    assert site.says(b"STORE 1 FLAGS \\Seen \\Flagged") == [b"1 FETCH (FLAGS (\\Flagged \\Recent \\Seen))"]
    assert site.says(b"STORE 1 -FLAGS \\Seen") == [b"1 FETCH (FLAGS (\\Flagged \\Recent))"]
    site.agrees()


@each
def test_silent(style: Style) -> None:
    """Cyrus echoes .SILENT; Dovecot what another changed, Courier that at NOOP."""
    site = Site(style)
    echo = [b"1 FETCH (FLAGS (\\Recent \\Seen))"]
    assert site.says(b"STORE 1 +FLAGS.SILENT (\\Seen)") == (echo if style is CYRUS else [])
    site.inbox.store(12, b"+", [b"\\Flagged"])
    both = [b"2 FETCH (FLAGS (\\Flagged \\Recent \\Seen))"]
    assert site.says(b"STORE 2 +FLAGS.SILENT (\\Seen)") == ([] if style is COURIER else both)
    assert site.says(b"NOOP") == (both if style is COURIER else [])
    site.agrees()


@each
def test_own_and_foreign_change(style: Style) -> None:
    """A change of one's own and another's of one message: two FETCHes, one, or the other at NOOP."""
    site = Site(style)
    site.inbox.store(12, b"+", [b"\\Flagged"])
    own, both = b"2 FETCH (FLAGS (\\Recent \\Seen))", b"2 FETCH (FLAGS (\\Flagged \\Recent \\Seen))"
    lines = site.says(b"STORE 2 +FLAGS (\\Seen)")
    assert lines == {DOVECOT: [own, both], CYRUS: [both], COURIER: [own]}[style]
    assert site.says(b"NOOP") == ([both] if style is COURIER else [])


def test_ghosts_on_dovecot() -> None:
    """STORE works, FETCH of a body is NIL, COPY and MOVE are refused whole, UID or not."""
    site = Site(DOVECOT)
    site.store.create(b"other")
    site.inbox.expunge(12)
    assert site.client.says(b"FETCH 1:2 (BODY.PEEK[TEXT])") == [
        b"1 FETCH (BODY[TEXT] {7}\r\nthere\r\n)",
        b"2 FETCH (BODY[TEXT] NIL)",
        b"OK [EXPUNGEISSUED] Some messages were already expunged",
    ]
    assert site.client.says(b"FETCH 2 (FLAGS)") == [b"2 FETCH (FLAGS (\\Recent))", b"OK Done"]
    assert site.client.says(b"FETCH 1 (BODY.PEEK[])")[-1] == b"OK Done"
    assert site.says(b"SEARCH TEXT there 1:2") == [b"SEARCH 1"]
    assert site.says(b"STORE 2 +FLAGS (\\Seen)") == [b"2 FETCH (FLAGS (\\Recent \\Seen))"]
    refused = b"NO [EXPUNGEISSUED] Some of the requested messages no longer exist"
    assert site.client.says(b"COPY 1:3 other") == [b"2 EXPUNGE", b"5 RECENT", refused]
    for command in (b"MOVE 1:3 other", b"UID COPY 11:14 other", b"UID MOVE 11:15 other"):
        site.inbox.expunge(site.inbox.uids[1])
        assert site.client.says(command) == [b"2 EXPUNGE", b"%d RECENT" % len(site.inbox.messages), refused]
    assert site.store[b"other"].uids == []
    site.agrees()


@pytest.mark.parametrize("command", [b"FETCH 2 (BODY[TEXT])", b"COPY 1:3 other", b"MOVE 1:3 other"])
def test_cyrus_dies_of_a_ghost(command: bytes) -> None:
    """FETCH without PEEK, COPY and MOVE by number of a message whose end was not told; a NOOP makes them safe."""
    for safe in (False, True):
        site = Site(CYRUS)
        site.store.create(b"other")
        site.inbox.expunge(12)
        if safe:
            assert site.says(b"NOOP") == [b"2 EXPUNGE"]
        (*_, last) = site.client.says(command)
        assert site.server.dead is not safe
        assert last.startswith(b"OK" if safe else b"BYE Fatal error")
        assert site.server.received(b"x NOOP\r\n") == b"" or safe


def test_cyrus_survives_a_ghost() -> None:
    """PEEK leaves it out; UID COPY and UID MOVE take the rest; STORE is OK."""
    site = Site(CYRUS)
    site.store.create(b"other")
    site.inbox.expunge(12)
    assert site.says(b"FETCH 1:2 (BODY.PEEK[TEXT])") == [b"1 FETCH (BODY[TEXT] {7}\r\nthere\r\n)"]
    assert site.says(b"STORE 2 +FLAGS (\\Seen)") == []
    assert site.client.says(b"UID COPY 11:13 other") == [b"2 EXPUNGE", b"OK [COPYUID 1002 11,13 1:2] Done"]
    site.inbox.expunge(13)
    assert site.says(b"UID MOVE 11:14 other") == [
        b"2 EXPUNGE",
        b"OK [COPYUID 1002 11,14 3:4] Done",
        b"1 EXPUNGE",
        b"1 EXPUNGE",
    ]
    site.agrees()


def test_ghosts_on_courier() -> None:
    """A false body, and copies of the rest."""
    site = Site(COURIER)
    site.store.create(b"other")
    site.inbox.expunge(12)
    assert site.says(b"FETCH 2 (BODY.PEEK[])")[0] == b"2 FETCH (BODY[] {%d}\r\n%b)" % (len(FALSE), FALSE)
    assert site.says(b"STORE 2 +FLAGS (\\Seen)") == []
    assert site.says(b"SEARCH TEXT no") == [b"SEARCH 2"]
    assert site.client.says(b"COPY 1:3 other") == [b"OK [COPYUID 1002 11,13 1:2] Done"]
    site.agrees()


@each
def test_implicit_seen(style: Style) -> None:
    """In the same FETCH, or in a second; not with PEEK, not again, not in EXAMINE."""
    site = Site(style)
    stray = [b"FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)"] * (style is COURIER)
    text = b"BODY[TEXT] {7}\r\nthere\r\n"
    assert site.says(b"FETCH 1 (BODY.PEEK[TEXT])") == [b"1 FETCH (%b)" % text, *stray]
    seen = b"FLAGS (\\Recent \\Seen)"
    first = [b"1 FETCH (%b %b)" % (text, seen)]
    apart = [b"1 FETCH (%b)" % text, b"1 FETCH (%b)" % seen]
    assert site.says(b"FETCH 1 (BODY[TEXT])") == (apart if style is COURIER else first) + stray
    assert site.says(b"FETCH 1 (BODY[TEXT])") == [b"1 FETCH (%b)" % text, *stray]
    asked = site.says(b"FETCH 2 (FLAGS BODY[TEXT])")[0]
    assert asked.startswith(b"2 FETCH (FLAGS (\\Recent) " if style is COURIER else b"2 FETCH (FLAGS (\\Recent \\Seen) ")
    assert site.inbox[11].flags == site.inbox[12].flags == {b"\\Seen"}
    site.agrees()
    site = Site(style, select=b"EXAMINE INBOX")
    assert site.says(b"FETCH 1 (BODY[TEXT])") == [b"1 FETCH (%b)" % text, *stray]
    assert site.inbox[11].flags == set()


@each
def test_select(style: Style) -> None:
    """What SELECT and EXAMINE say, and in which order."""
    site = Site(style, 3)
    site.inbox.store(11, b"+", [b"\\Seen"])
    flags = [
        b"FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)",
        b"OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] Limited",
    ]
    counts = [b"3 EXISTS", b"0 RECENT"]  # the first SELECT has taken them
    codes = [b"OK [UNSEEN 2] Ok", b"OK [UIDVALIDITY 1001] Ok", b"OK [UIDNEXT 14] Ok"]
    closed = b"OK [CLOSED] Previous mailbox closed"
    expected = {DOVECOT: [closed, *flags, *counts, *codes], COURIER: [*flags, *counts, codes[1]]}
    expected[CYRUS] = [*counts, *flags, *codes, b"OK [HIGHESTMODSEQ 5] Ok"]
    assert site.client.says(b"SELECT INBOX") == [*expected[style], b"OK [READ-WRITE] Done"]
    lines = site.client.says(b"EXAMINE inbox")
    assert b"OK [PERMANENTFLAGS ()] Limited" in lines
    assert lines[-1] == b"OK [READ-ONLY] Done"
    assert site.client.says(b"SELECT none")[:-1] == [closed] * (style is DOVECOT)
    assert site.ended(b"SELECT none").startswith(b"NO")
    assert site.ended(b"FETCH 1 (FLAGS)").startswith(b"BAD")


@each
def test_keywords(style: Style) -> None:
    """A new keyword is announced first; on Courier the list shrinks, too."""
    site = Site(style)
    assert site.says(b"STORE 2 +FLAGS (kw)") == [*FLAGS, *PERMANENT, b"2 FETCH (FLAGS (\\Recent kw))"]
    lines = site.says(b"STORE 2 -FLAGS (kw)")
    assert (b"FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)" in lines) is (style is COURIER)
    site.agrees()
    site.says(b"STORE 2 +FLAGS (kw)")
    site.inbox.store(12, b"-", [b"kw"])  # which the client is not told of in the next command: it still has to know kw
    site.says(b"STORE 1 +FLAGS.SILENT (\\Seen)")
    site.says(b"FETCH 2 (FLAGS)")
    site.agrees()


@each
def test_status_of_the_selected_mailbox(style: Style) -> None:
    """Dovecot and Courier answer what they have told; Cyrus tells it first."""
    site = Site(style)
    site.changes()
    told = b"STATUS INBOX (MESSAGES 6 UNSEEN 6 RECENT 6 UIDNEXT 17 UIDVALIDITY 1001)"
    fresh = b"STATUS INBOX (MESSAGES 5 UNSEEN 5 RECENT 5 UIDNEXT 18 UIDVALIDITY 1001)"
    *lines, end = site.client.says(b"STATUS INBOX (MESSAGES UNSEEN RECENT UIDNEXT UIDVALIDITY)")
    assert lines == ([*ORDER[CYRUS], fresh] if style is CYRUS else [told])
    assert (b"[CLIENTBUG]" in end) is (style is DOVECOT)
    other = Client(Server(site.store, style).received)
    assert other.says(b"STATUS INBOX (MESSAGES UIDNEXT)")[0] == b"STATUS INBOX (MESSAGES 5 UIDNEXT 18)"
    site.agrees()


@each
def test_numbers_out_of_range(style: Style) -> None:
    """Of 6 messages, 5:9 and 7 are asked for."""
    site = Site(style)
    both = [b"5 FETCH (UID 15)", b"6 FETCH (UID 16)"]
    if style is DOVECOT:
        assert site.ended(b"FETCH 5:9 (UID)").startswith(b"BAD")
        assert site.ended(b"FETCH 7 (UID)").startswith(b"BAD")
    elif style is CYRUS:
        assert site.says(b"FETCH 5:9 (UID)") == both
        assert site.client.says(b"FETCH 7 (UID)") == [b"NO No matching messages"]
    else:
        assert site.says(b"FETCH 5:9 (UID)") == [b"NO Invalid message number", *both]
        assert site.client.says(b"FETCH 7 (UID)") == [b"OK Done"]
    assert site.says(b"SEARCH 5:9") == [b"SEARCH 5 6"]
    assert site.says(b"SEARCH 7") == [b"SEARCH"]


@each
def test_star_in_a_stale_view(style: Style) -> None:
    """``*`` is the last message that was told; Cyrus tells of the new one first."""
    site = Site(style)
    site.inbox.append(BODY)
    news = [b"7 EXISTS", b"7 RECENT"]
    last = {DOVECOT: [b"6 FETCH (UID 16)", *news], CYRUS: [*news, b"7 FETCH (UID 17)"], COURIER: [b"6 FETCH (UID 16)"]}
    assert site.says(b"FETCH * (UID)") == last[style]
    site.agrees()


@each
@pytest.mark.parametrize("keys", [b"*", b"*:5", b"4:2"])
def test_backward_ranges(style: Style, keys: bytes) -> None:
    """In SEARCH, Courier finds nothing by ``*`` and by ranges whose end comes first."""
    found = {b"*": b"SEARCH 6", b"*:5": b"SEARCH 5 6", b"4:2": b"SEARCH 2 3 4"}[keys]
    site = Site(style)
    assert site.says(b"SEARCH " + keys) == [b"SEARCH" if style is COURIER else found]
    assert site.says(b"SEARCH 5:*") == [b"SEARCH 5 6"]


@each
def test_an_empty_mailbox(style: Style) -> None:
    """``1:*`` is no error where there is nothing, but Cyrus says NO; anything else is on Dovecot."""
    store = Store()
    client = Client(Server(store, style).received, style.swaps)
    client.says(b"SELECT INBOX")
    assert client.says(b"FETCH 1:* (UID)")[-1][:2] == (b"NO" if style is CYRUS else b"OK")
    assert client.says(b"FETCH 1:5 (UID)")[-1][:2] == {DOVECOT: b"BA", CYRUS: b"NO", COURIER: b"OK"}[style]
    for command in (b"UID FETCH 1:* (UID)", b"SEARCH ALL", b"SEARCH *", b"UID STORE 1 FLAGS ()", b"EXPUNGE"):
        assert client.says(command)[-1].startswith(b"OK"), command
    store[b"INBOX"].append(BODY)
    client.says(b"NOOP")
    assert client.says(b"FETCH 1:* (UID)")[-2:] == [b"1 FETCH (UID 1)", b"OK Done"]
    assert client.says(b"FETCH 1:2 (UID)")[-1][:2] == (b"BA" if style is DOVECOT else b"OK")


@each
def test_uids_beyond_the_last(style: Style) -> None:
    """``100:*`` is the last message, on Courier none."""
    site = Site(style)
    assert site.says(b"UID FETCH 100:* (UID)") == ([] if style is COURIER else [b"6 FETCH (UID 16)"])
    assert site.says(b"UID FETCH 1:12 (RFC822.SIZE)") == [b"%d FETCH (UID 1%d RFC822.SIZE 22)" % (n, n) for n in (1, 2)]


@each
@pytest.mark.parametrize("command", [b"EXPUNGE", b"UID EXPUNGE 11:14"])
def test_expunge(style: Style, command: bytes) -> None:
    """Dovecot begins with the last; Courier says EXISTS and RECENT, too."""
    site = Site(style)
    site.says(b"STORE 2,4,6 +FLAGS.SILENT (\\Deleted)")
    if style is DOVECOT:
        lines = [b"6 EXPUNGE"] * (command == b"EXPUNGE") + [b"4 EXPUNGE", b"2 EXPUNGE"]
    else:
        lines = [b"2 EXPUNGE", b"3 EXPUNGE"] + [b"4 EXPUNGE"] * (command == b"EXPUNGE")
    left = 3 if command == b"EXPUNGE" else 4
    counts = {DOVECOT: [b"%d RECENT" % left], CYRUS: [], COURIER: [b"%d EXISTS" % left, b"%d RECENT" % left]}
    assert site.says(command) == lines + counts[style]
    assert len(site.inbox.messages) == left
    site.agrees()


@each
def test_deleted_under_us(style: Style) -> None:
    """BYE, an end without a word, or false bodies."""
    site = Site(style)
    site.store.delete(b"INBOX")
    lines = site.client.says(b"NOOP")
    if style is DOVECOT:
        assert lines == [b"BYE Selected mailbox was deleted, have to disconnect."]
    elif style is CYRUS:
        assert lines == []
    else:
        assert lines == [b"OK Done"]
        assert FALSE in site.says(b"FETCH 1 (BODY[])")[0]
    assert site.server.dead is (style is not COURIER)


@each
def test_deleted_and_made_again(style: Style) -> None:
    """Dovecot says BYE after NOOP's OK; Courier goes over to the other mailbox, whose UIDs begin anew."""
    site = Site(style, 3)
    site.store.delete(b"INBOX")
    site.store.create(b"INBOX").append(BODY)
    lines = site.client.says(b"NOOP")
    if style is DOVECOT:
        assert lines == [b"OK Done", b"BYE Selected mailbox was deleted, have to disconnect."]
    elif style is CYRUS:
        assert lines == []
    else:
        assert lines == [*[b"1 EXPUNGE"] * 3, b"1 EXISTS", b"1 RECENT", b"OK Done"]
        assert site.says(b"FETCH 1 (UID)") == [b"1 FETCH (UID 1)"]
        assert site.says(b"STATUS INBOX (UIDVALIDITY)") == [b"STATUS INBOX (UIDVALIDITY 1002)"]
        site.store.delete(b"INBOX")
        site.store.create(b"INBOX").append(BODY).recent = False
        assert site.says(b"NOOP") == [b"1 EXPUNGE", b"1 EXISTS", b"0 RECENT"]
    assert site.server.dead is (style is not COURIER)


@each
def test_renamed_under_us(style: Style) -> None:
    """BYE; all is expunged, and then NO; or nothing."""
    site = Site(style, 2)
    site.store.rename(b"INBOX", b"other")
    lines = site.client.says(b"NOOP")
    if style is DOVECOT:
        assert lines == [b"BYE Selected mailbox was deleted, have to disconnect."]
    elif style is CYRUS:
        assert lines == [b"1 EXPUNGE", b"1 EXPUNGE", b"NO Mailbox does not exist"]
        assert site.client.says(b"SEARCH ALL") == [b"NO Mailbox does not exist"]
    else:
        assert lines == [b"OK Done"]
        site.says(b"STORE 1 +FLAGS (\\Seen)")
    assert site.store[b"other"][11].flags == set()


@each
def test_gone_while_idling(style: Style) -> None:
    """What is pushed when the mailbox is deleted, or renamed."""
    if style is COURIER:
        return  # which does not idle
    for deleted in (True, False):
        site = Site(style, 2)
        site.client.says(b"IDLE")
        if deleted:
            site.store.delete(b"INBOX")
        else:
            site.store.rename(b"INBOX", b"other")
        pushed = site.client.hears(site.server.pending())
        bye = [b"BYE Selected mailbox was deleted, have to disconnect."]
        assert pushed == (bye if style is DOVECOT else [] if deleted else [b"1 EXPUNGE", b"1 EXPUNGE"])


@each
def test_read_only(style: Style) -> None:
    """EXAMINE is no protection: Dovecot moves, and Courier stores flags."""
    site = Site(style, select=b"EXAMINE INBOX")
    site.store.create(b"other")
    assert site.ended(b"STORE 1 +FLAGS (\\Deleted)").startswith(b"OK" if style is COURIER else b"NO")
    moved = site.ended(b"MOVE 2 other")
    assert moved[:2] == {DOVECOT: b"OK", CYRUS: b"NO", COURIER: b"BA"}[style]
    assert site.ended(b"EXPUNGE").startswith(b"NO")
    left = len(site.inbox.messages)
    site.says(b"CLOSE")
    assert len(site.inbox.messages) == left == 6 - (style is DOVECOT)


@each
def test_recent(style: Style) -> None:
    """The first read-write connection that is told of a message takes its \\Recent; EXAMINE takes none."""
    site = Site(style, 2, select=b"EXAMINE INBOX")
    second, third = Site(style, 0), Site(style, 0)
    for other in (second, third):
        other.store = site.store
        other.client = Client(Server(site.store, style).received)
    assert b"2 RECENT" in second.says(b"SELECT INBOX")
    assert b"0 RECENT" in third.says(b"SELECT INBOX")
    assert site.says(b"SEARCH RECENT") == [b"SEARCH 1 2"]
    site.inbox.append(BODY)
    site.says(b"NOOP")
    assert third.says(b"NOOP") == [b"3 EXISTS", b"1 RECENT"]
    assert second.says(b"NOOP") == [b"3 EXISTS", b"2 RECENT"]
    assert third.says(b"FETCH 3 (FLAGS)") == [b"3 FETCH (FLAGS (\\Recent))"]
    assert second.says(b"SEARCH NEW") == [b"SEARCH 1 2"]
    assert second.says(b"SEARCH OLD") == [b"SEARCH 3"]


@each
def test_close_and_unselect(style: Style) -> None:
    """CLOSE takes out what is deleted without a word; UNSELECT, where it is offered, takes out nothing."""
    site = Site(style)
    site.says(b"STORE 2 +FLAGS (\\Deleted)")
    if style is not COURIER:
        assert site.says(b"UNSELECT") == []
        assert len(site.inbox.messages) == 6
        site.says(b"SELECT INBOX")
    assert site.says(b"CLOSE") == []
    assert site.inbox.uids == [11, 13, 14, 15, 16]
    assert site.ended(b"CLOSE").startswith(b"BAD")


def test_move() -> None:
    """COPYUID comes before EXPUNGE, and flags and dates go along."""
    for style in (DOVECOT, CYRUS):
        site = Site(style)
        other = site.store.create(b"other")
        site.says(b"STORE 2 +FLAGS (\\Flagged)")
        date = site.inbox[12].date
        lines = site.says(b"MOVE 2,4 other")
        assert lines[0] == b"OK [COPYUID 1002 12,14 1:2] Done"
        assert lines[1:3] == ([b"4 EXPUNGE", b"2 EXPUNGE"] if style is DOVECOT else [b"2 EXPUNGE", b"3 EXPUNGE"])
        assert (other[1].flags, other[1].date) == ({b"\\Flagged"}, date)
        assert site.ended(b"MOVE 1 none").startswith(b"NO [TRYCREATE]")
        site.agrees()


@each
def test_append(style: Style) -> None:
    """A literal is asked for, unless there is no such mailbox; the selected mailbox's client is told at once."""
    site = Site(style, 1)
    server = site.server
    assert server.received(b"a APPEND none {5}\r\n") == b"a NO [TRYCREATE] Mailbox does not exist\r\n"
    assert server.received(b'b APPEND INBOX (\\Seen kw) "03-Feb-2026 04:05:06 +0000" {14}\r') == b""
    assert server.received(b"\n") == b"+ OK\r\n"
    assert server.received(b"Subject: y\r\n") == b""
    answer = server.received(b"\r\n\r\nc NOOP\r\n")
    assert b"* 2 EXISTS\r\n" in answer
    assert answer.endswith(b"b OK [APPENDUID 1001 12] Done\r\nc OK Done\r\n")
    assert server.pipelined == 1
    assert site.inbox[12].flags == {b"\\Seen", b"kw"}
    assert b'INTERNALDATE "03-Feb-2026 04:05:06 +0000"' in server.received(b"d UID FETCH 12 (INTERNALDATE)\r\n")
    unasked = server.received(b"e APPEND INBOX {1+}\r\nx\r\n")
    assert (b"e OK [APPENDUID 1001 13]" in unasked) is (style is not COURIER)


def test_pieces() -> None:
    """It does not matter in which pieces a command comes."""
    text = b'a SEARCH SUBJECT {2}\r\nhi TEXT "th"\r\nb UID FETCH 11 (BODY.PEEK[] ENVELOPE RFC822.SIZE)\r\n'
    one, other = Site(DOVECOT, 1).server, Site(DOVECOT, 1).server
    assert one.received(text) == b"".join(other.received(text[place : place + 1]) for place in range(len(text)))


SEARCHES = {
    b"ALL": [1, 2, 3, 4],
    b"2:3": [2, 3],
    b"UID 12,14": [2, 4],
    b"SEEN": [1],
    b"NOT SEEN": [2, 3, 4],
    b"OR SEEN FLAGGED": [1, 2],
    b"(SEEN) 1:2": [1],
    b"KEYWORD kw": [3],
    b"UNKEYWORD kw UNSEEN": [2, 4],
    b"SUBJECT other": [4],
    b"TEXT body": [4],
    b"BODY other": [],
    b"HEADER subject other": [4],
    b"LARGER 30": [4],
    b"SMALLER 30": [1, 2, 3],
    b"BEFORE 2-Jan-2026": [1, 2, 3, 4],
    b"SINCE 2-Jan-2026": [],
    b"ON 1-Jan-2026": [1, 2, 3, 4],
    b"CHARSET UTF-8 SEEN": [1],
}


@each
def test_search(style: Style) -> None:
    """All keys, with and without UIDs."""
    site = Site(style, 3)
    site.inbox.append(b"Subject: Other\r\n\r\nA body, and more of it\r\n")
    site.inbox.store(11, b"+", [b"\\seen"])
    site.inbox.store(12, b"+", [b"\\Flagged"])
    site.inbox.store(13, b"+", [b"kw"])
    site.agrees()
    for keys, found in SEARCHES.items():
        assert site.says(b"SEARCH " + keys) == [b"SEARCH" + b"".join(b" %d" % number for number in found)], keys
        assert site.says(b"UID SEARCH " + keys) == [b"SEARCH" + b"".join(b" %d" % (number + 10) for number in found)]
    for keys in (b"NONSENSE", b"", b"OR SEEN", b"(SEEN", b"0x"):
        assert site.ended(b"SEARCH " + keys).startswith(b"BAD"), keys


def test_esearch() -> None:
    """RETURN, with its tag and with UIDs."""
    site = Site(DOVECOT, 4)
    tag = b"c3"
    given = b'ESEARCH (TAG "%b") MIN 1 MAX 4 COUNT 3 ALL 1,3:4' % tag
    assert site.says(b"SEARCH RETURN (MIN MAX COUNT ALL) NOT 2") == [given]
    assert site.says(b"UID SEARCH RETURN () 2:*") == [b'ESEARCH (TAG "c4") UID ALL 12:14']
    assert site.says(b"UID SEARCH RETURN (MIN COUNT) SEEN") == [b'ESEARCH (TAG "c5") UID COUNT 0']
    assert Site(COURIER, 4).ended(b"SEARCH RETURN (MIN) ALL").startswith(b"BAD")


@each
def test_sort_and_thread(style: Style) -> None:
    """By what is asked; threads are of three."""
    site = Site(style, 2)
    site.inbox.append(b"Subject: a long one\r\n\r\n" + b"x" * 99, date=site.inbox[11].date.replace(year=2025))
    site.inbox.append(BODY)
    site.says(b"NOOP")
    assert site.says(b"SORT (ARRIVAL) UTF-8 ALL")[0] == b"SORT 3 1 2 4"
    assert site.says(b"UID SORT (REVERSE SIZE ARRIVAL) UTF-8 ALL")[0] == b"SORT 13 11 12 14"
    assert site.says(b"SORT (SUBJECT REVERSE ARRIVAL) UTF-8 ALL")[0] == b"SORT 3 4 2 1"
    assert site.says(b"THREAD REFERENCES UTF-8 ALL")[0] == b"THREAD (1 (2)(3))(4)"
    assert site.says(b"UID THREAD REFERENCES UTF-8 NOT 2")[0] == b"THREAD (11 (13)(14))"


@each
def test_items(style: Style) -> None:
    """Macros, parts of headers and of octets, and what stands for a message that has no subject."""
    site = Site(style, 1)
    site.inbox.append(b"From: x\r\nTo: y\r\nDate: z\r\n\r\ntext\r\n")
    site.says(b"NOOP")
    envelope = b'ENVELOPE (NIL "hi"%b)' % (b" NIL" * 8)
    fast = b'FLAGS (\\Recent) INTERNALDATE "01-Jan-2026 00:11:00 +0000" RFC822.SIZE 22'
    assert site.says(b"FETCH 1 FAST") == [b"1 FETCH (%b)" % fast]
    assert site.says(b"FETCH 1 ALL") == [b"1 FETCH (%b %b)" % (fast, envelope)]
    assert site.says(b"FETCH 2 ENVELOPE") == [b'2 FETCH (ENVELOPE (NIL ""%b))' % (b" NIL" * 8)]
    fields = b"BODY[HEADER.FIELDS (DATE FROM)] {20}\r\nFrom: x\r\nDate: z\r\n\r\n"
    assert site.says(b"FETCH 2 (BODY.PEEK[HEADER.FIELDS (DATE FROM)])")[0] == b"2 FETCH (%b)" % fields
    assert site.says(b"FETCH 2 BODY.PEEK[]<6.3>")[0] == b"2 FETCH (BODY[]<6> {3}\r\nx\r\n)"
    assert site.says(b"FETCH 1 RFC822.HEADER")[0] == b"1 FETCH (RFC822.HEADER {15}\r\nSubject: hi\r\n\r\n)"
    assert site.inbox[11].flags == set()
    assert b"RFC822 {22}\r\n" in site.says(b"FETCH 1 RFC822")[0]
    assert site.inbox[11].flags == {b"\\Seen"}


@each
def test_mailboxes(style: Style) -> None:
    """CREATE, RENAME with what lies below, LIST, DELETE."""
    site = Site(style)
    for command in (b"CREATE a", b"CREATE a/b", b'RENAME a "c d"'):
        assert site.says(command) == []
    assert site.says(b'LIST "" *') == [b'LIST () "/" INBOX', b'LIST () "/" "c d"', b'LIST () "/" "c d/b"']
    assert site.says(b'DELETE "c d"') == []
    for command in (b'DELETE "c d"', b"DELETE INBOX", b"RENAME x y", b"CREATE inbox", b"STATUS x (MESSAGES)"):
        assert site.ended(command).startswith(b"NO"), command
    for command in (
        b"NONSENSE",
        b"STATUS INBOX (NONSENSE)",
        b"UID NOOP",
        b"FETCH 1 (NONSENSE)",
        b"STORE 1 X (y)",
        b"FETCH 0 (UID)",
        b"LIST )",
        b"FETCH (1) UID",
        b"FETCH x UID",
    ):
        assert site.ended(command).startswith(b"BAD"), command
    site.says(b"CREATE z")
    site.says(b"SELECT z")
    assert site.says(b"DELETE z") == []
    assert site.ended(b"CHECK").startswith(b"BAD")
    assert site.says(b"NOOP") == []
    assert site.says(b"CAPABILITY") == [b"CAPABILITY " + style.capabilities]
    assert site.client.says(b"LOGOUT") == [b"BYE Logging out", b"OK Done"]
    assert site.server.dead


QRESYNC = pytest.mark.parametrize("style", [DOVECOT, CYRUS], ids=["dovecot", "cyrus"])


@QRESYNC
def test_qresync(style: Style) -> None:
    """Once it is enabled, flags have UID and MODSEQ, and VANISHED is said for EXPUNGE."""
    site = Site(style)
    assert site.says(b"ENABLE QRESYNC") == [b"ENABLED QRESYNC"]
    site.changes()
    lines = site.says(b"NOOP")
    assert b"2 FETCH (UID 12 FLAGS (\\Flagged \\Recent kw) MODSEQ (8))" in lines
    assert b"VANISHED 13,15" in lines
    site.says(b"STORE 2 +FLAGS (\\Deleted)")
    assert site.client.says(b"EXPUNGE")[-1] == b"OK [HIGHESTMODSEQ 13] Done"
    site.agrees()
    assert site.says(b"FETCH 1 (MODSEQ)") == [b"1 FETCH (MODSEQ (2))"]
    lines = site.client.says(b"SELECT INBOX (QRESYNC (1001 8))")
    assert lines[0] == b"OK [CLOSED] Previous mailbox closed"
    assert b"VANISHED (EARLIER) 12:13,15" in lines
    assert b"5 EXISTS" not in lines
    assert [line for line in lines if b"FETCH" in line] == [b"4 FETCH (UID 17 FLAGS () MODSEQ (11))"]
    assert b"VANISHED (EARLIER) 12:13,15" not in site.says(b"SELECT INBOX (QRESYNC (1001 13))")
    site.agrees()
    assert b"VANISHED" not in b"".join(site.says(b"SELECT INBOX (QRESYNC (1000 8))"))
    assert b"OK [HIGHESTMODSEQ 13] Ok" in site.says(b"SELECT INBOX (CONDSTORE)")
    other = Client(Server(site.store, style).received)
    assert other.says(b"SELECT INBOX (QRESYNC (1001 8))")[-1].startswith(b"BAD")
    assert other.says(b"SELECT INBOX (CONDSTORE)")[-1].startswith(b"OK")
    assert Site(COURIER).ended(b"SELECT INBOX (CONDSTORE)").startswith(b"BAD")


@QRESYNC
def test_condstore_by_status(style: Style) -> None:
    """Who asks for HIGHESTMODSEQ gets MODSEQ from then on."""
    site = Site(style)
    site.store.create(b"other")
    site.says(b"STATUS other (HIGHESTMODSEQ)")
    site.client.picture.condstore = True
    assert site.says(b"STORE 1 +FLAGS (\\Seen)") == [b"1 FETCH (FLAGS (\\Recent \\Seen) MODSEQ (8))"]
    site = Site(style)
    site.says(b"UID FETCH 11 (MODSEQ)")
    assert site.says(b"STORE 1 +FLAGS (\\Seen)") == [b"1 FETCH (FLAGS (\\Recent \\Seen) MODSEQ (8))"]


def test_hasty() -> None:
    """What Cyrus was seen to do: a message in FETCH that is announced only afterwards; a picture does not bear it."""
    site = Site(CYRUS, hasty=True)
    site.inbox.append(BODY)
    assert site.server.received(b"x FETCH 6:* (UID)\r\n") == (
        b"* 6 FETCH (UID 16)\r\n* 7 FETCH (UID 17)\r\n* 7 EXISTS\r\n* 7 RECENT\r\nx OK Done\r\n"
    )
    site.says(b"NOOP")
    site.client.hears(b"* 7 EXISTS\r\n")  # which the client has missed, above
    site.inbox.append(BODY)
    with pytest.raises(Violation, match="where there are 7"):
        site.client.says(b"FETCH 8 (UID)")
