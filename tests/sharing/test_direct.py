"""Clients that are connected to the reference server directly, in any interleaving.

Each has a picture; none breaks, and after a NOOP each is the truth.  So the server says enough for a careful client, in
each style, and a picture understands all that a server says: what differs behind a gate is the gate's doing.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.sharing.picture import Client
from tests.sharing.server import COURIER, CYRUS, STYLES, Server, Store

NUMBERS = st.lists(st.integers(1, 8), min_size=1, max_size=3)
FLAGS = st.lists(st.sampled_from([b"\\Seen", b"\\Deleted", b"\\Flagged", b"one", b"two"]), max_size=2)
HOW = st.sampled_from([b"", b"+", b"-"])
QUESTIONS = st.sampled_from(
    [
        b"SEARCH ALL",
        b"SEARCH NOT SEEN",
        b"SEARCH RECENT",
        b"SEARCH KEYWORD one",
        b"SEARCH TEXT hi",
        b"SORT (REVERSE ARRIVAL) UTF-8 ALL",
        b"THREAD REFERENCES UTF-8 UNDELETED",
    ]
)
ITEMS = st.sampled_from([b"FLAGS", b"UID", b"(UID FLAGS)", b"BODY[]", b"(BODY.PEEK[TEXT] FLAGS)", b"RFC822.SIZE"])


class Seat:
    """One client and its connection."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.client = Client(server.received, server.style.swaps)
        self.idling = False


class Direct(RuleBasedStateMachine):
    """Three clients of one user, and others who change mailboxes."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.seats: list[Seat] = []
        self.style = CYRUS

    @initialize(style=st.sampled_from([*STYLES.values()]), qresync=st.booleans(), messages=st.integers(0, 6))
    def begin(self, style, qresync, messages) -> None:  # type: ignore[no-untyped-def]
        """All select INBOX, the last read-only."""
        self.style = style
        self.store.create(b"other")
        self.inbox = self.store[b"INBOX"]
        for _ in range(messages):
            self.inbox.append()
        for number in range(3):
            self.seats.append(Seat(Server(self.store, style)))
            if qresync and number < 2 and style is not COURIER:
                self.say(number, b"ENABLE QRESYNC")
            self.say(number, b"EXAMINE INBOX" if number == 2 else b"SELECT INBOX")

    def say(self, who: int, text: bytes) -> None:
        """A client sends a command; one that idles stops it before, and one whose connection has ended begins anew."""
        seat = self.seats[who]
        if seat.idling:
            seat.client.says(b"DONE")
            seat.idling = False
        lines = seat.client.says(text)
        if seat.server.dead:
            assert lines == [] or lines[-1].startswith(b"BYE")
            assert self.style is CYRUS
            self.seats[who] = Seat(Server(self.store, self.style))
            self.say(who, b"SELECT INBOX")

    def numbers(self, who: int, numbers: list[int], uid: bool) -> bytes:
        """A set of what the client knows of, or, as UIDs, perhaps does not."""
        known = len(self.seats[who].client.picture.messages)
        return b",".join(b"%d" % (number if uid else 1 + number % max(known, 1)) for number in numbers)

    @rule(who=st.integers(0, 2))
    def looks(self, who: int) -> None:
        """NOOP, and nothing differs."""
        self.say(who, b"NOOP")
        self.agrees(who)

    def agrees(self, who: int) -> None:
        """A client's picture is the truth."""
        assert self.seats[who].client.picture.differences(self.inbox.messages) == []

    @rule(who=st.integers(0, 2))
    def learns(self, who: int) -> None:
        """All UIDs and flags."""
        self.say(who, b"FETCH 1:* (UID FLAGS)")

    @rule(who=st.integers(0, 2), numbers=NUMBERS, items=ITEMS, uid=st.booleans())
    def fetches(self, who: int, numbers: list[int], items: bytes, uid: bool) -> None:
        """Some items of some."""
        self.say(who, b"UID " * uid + b"FETCH %b %b" % (self.numbers(who, numbers, uid), items))

    @rule(who=st.integers(0, 2), numbers=NUMBERS, how=HOW, flags=FLAGS, silent=st.booleans(), uid=st.booleans())
    def stores(self, who: int, numbers: list[int], how: bytes, flags: list[bytes], silent: bool, uid: bool) -> None:
        """STORE, loud or silent."""
        item = how + b"FLAGS" + b".SILENT" * silent
        self.say(who, b"UID " * uid + b"STORE %b %b (%b)" % (self.numbers(who, numbers, uid), item, b" ".join(flags)))

    @rule(who=st.integers(0, 1), numbers=NUMBERS, uid=st.booleans(), moves=st.booleans(), back=st.booleans())
    def copies(self, who: int, numbers: list[int], uid: bool, moves: bool, back: bool) -> None:
        """COPY and MOVE, perhaps into the selected mailbox."""
        verb = b"MOVE" if moves else b"COPY"
        target = b"INBOX" if back else b"other"
        self.say(who, b"UID " * uid + b"%b %b %b" % (verb, self.numbers(who, numbers, uid), target))

    @rule(who=st.integers(0, 2), question=QUESTIONS, uid=st.booleans())
    def asks(self, who: int, question: bytes, uid: bool) -> None:
        """SEARCH, SORT, THREAD."""
        self.say(who, b"UID " * uid + question)

    @rule(
        who=st.integers(0, 1),
        command=st.sampled_from([b"EXPUNGE", b"UID EXPUNGE 1:4", b"CHECK", b"STATUS INBOX (UNSEEN)"]),
    )
    def others(self, who: int, command: bytes) -> None:
        """Commands that tell everything, or might."""
        self.say(who, command)

    @rule(
        who=st.integers(0, 2), command=st.sampled_from([b"CLOSE", b"SELECT INBOX", b"EXAMINE INBOX", b"SELECT other"])
    )
    def selects(self, who: int, command: bytes) -> None:
        """Another mailbox for a moment, or the same again."""
        self.say(who, command)
        if self.seats[who].client.picture.selected != b"INBOX":
            self.say(who, b"SELECT INBOX")
        self.agrees(who)

    @precondition(lambda self: self.style is not COURIER)
    @rule(who=st.integers(0, 2))
    def idles(self, who: int) -> None:
        """IDLE, and what is pushed; nothing differs."""
        seat = self.seats[who]
        if not seat.idling:
            self.say(who, b"IDLE")
            seat = self.seats[who]
            seat.idling = True
        seat.client.hears(seat.server.pending())
        self.agrees(who)

    @rule(flags=FLAGS)
    def arrives(self, flags: list[bytes]) -> None:
        """Another puts a message into INBOX."""
        self.inbox.append(flags=flags)

    @rule(which=st.integers(0, 20), how=HOW, flags=FLAGS)
    def changes(self, which: int, how: bytes, flags: list[bytes]) -> None:
        """Another changes flags."""
        if self.inbox.uids:
            self.inbox.store(self.inbox.uids[which % len(self.inbox.uids)], how, flags)

    @rule(which=st.integers(0, 20))
    def vanishes(self, which: int) -> None:
        """Another takes a message out."""
        if self.inbox.uids:
            self.inbox.expunge(self.inbox.uids[which % len(self.inbox.uids)])

    def teardown(self) -> None:
        """At the end all look."""
        for who in range(len(self.seats)):
            self.say(who, b"NOOP")
            self.agrees(who)


TestDirect = Direct.TestCase
