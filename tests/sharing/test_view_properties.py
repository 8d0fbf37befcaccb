"""A view against a plain list of what its client was told, whatever happens in whatever order (STYLE, property 9)."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from imapgate.sharing.asked import chosen
from imapgate.sharing.truth import Truth
from imapgate.sharing.view import View
from imapgate.wire.sequence import ranges
from tests.sharing.mailboxes import arrive, go, holding, looking

_TOLD = re.compile(rb"\* ([0-9]+) (EXISTS|EXPUNGE|RECENT|FETCH \(FLAGS \(([^)]*)\)\))\r\n")
FLAGS = st.sampled_from([b"", b"\\Seen", b"a", b"\\Seen a"])
INDEX = st.integers(0, 1000)


class Client:
    """Who reads what a view says, and believes it.

    :ivar messages: the UIDs and flags of what it was told; the UID is what the number meant when it was first said
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self.messages: list[tuple[int, bytes]] = []
        self.recent = 0

    def reads(self, said: bytes, truth: Truth) -> None:
        """Replay lines, each of which must be possible."""
        done = 0
        for found in _TOLD.finditer(said):
            assert found.start() == done, said
            done = found.end()
            number, word = int(found[1]), found[2].split(b" ")[0]
            if word == b"EXISTS":
                assert number >= len(self.messages)
                new = len(truth) - (number - len(self.messages))
                self.messages += zip(truth.uids[new:], truth.flags[new:], strict=True)
            elif word == b"RECENT":
                assert number <= len(self.messages)
                self.recent = number
            elif word == b"EXPUNGE":
                assert 0 < number <= len(self.messages)
                del self.messages[number - 1]
            else:
                assert 0 < number <= len(self.messages)
                flags = b" ".join(word for word in found[3].split() if word != b"\\Recent")
                self.messages[number - 1] = (self.messages[number - 1][0], flags)
        assert done == len(said), said

    @property
    def uids(self) -> list[int]:
        """What it knows, in its order."""
        return [uid for uid, _ in self.messages]


class Views(RuleBasedStateMachine):
    """Clients of one mailbox; one of them has given its channel up now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.truth = Truth()
        self.clients: list[Client] = []
        self.parked: Client | None = None
        self.next = 1

    @property
    def here(self) -> list[View]:
        """Who looks at the mailbox at present."""
        return [client.view for client in self.clients if client is not self.parked]

    @initialize(count=st.integers(0, 6), flags=FLAGS)
    def opened(self, count: int, flags: bytes) -> None:
        """Three sessions select a mailbox, of which one only reads."""
        self.truth.validity = b"1"
        for _ in range(count):
            self.arrives(1, flags)
        for read_only in (False, False, True):
            client = Client(looking(self.truth, read_only=read_only))
            client.messages = list(zip(self.truth.uids, self.truth.flags, strict=True))
            client.recent = client.view.recent(self.truth)
            self.clients.append(client)

    @rule(gap=st.integers(1, 3), flags=FLAGS, recent=st.booleans())
    def arrives(self, gap: int, flags: bytes, recent: bool = False) -> None:
        """New mail."""
        self.next += gap
        arrive(self.truth, self.next, flags)
        if recent:
            self.truth.recent.add(self.next)

    @precondition(lambda self: len(self.truth) > 0)
    @rule(index=INDEX)
    def goes(self, index: int) -> None:
        """A message is expunged."""
        go(self.truth, self.truth.uids[index % len(self.truth)], *self.here)

    @precondition(lambda self: len(self.truth) > 0)
    @rule(index=INDEX, flags=FLAGS)
    def alters(self, index: int, flags: bytes) -> None:
        """A message gets other flags."""
        index %= len(self.truth)
        if self.truth.learn(index, 0, flags):
            for view in self.here:
                view.owe(self.truth, index)

    @rule(which=st.integers(0, 2), expunges=st.booleans())
    def flushes(self, which: int, expunges: bool) -> None:
        """A command of a session ends."""
        client = self.clients[which]
        if client is self.parked:
            return
        client.reads(client.view.flush(self.truth, expunges=expunges), self.truth)
        known = dict(client.messages)
        assert all(known[uid] == flags for uid, flags in zip(self.truth.uids, self.truth.flags, strict=True))
        assert client.view.flush(self.truth, expunges=expunges) == b""
        if expunges:
            assert client.messages == list(zip(self.truth.uids, self.truth.flags, strict=True))
            assert client.view.agrees(self.truth)

    @rule(which=st.integers(0, 2))
    def grows(self, which: int) -> None:
        """An answer names a message that a session was not told of."""
        client = self.clients[which]
        if client is not self.parked:
            client.reads(client.view.grow(self.truth), self.truth)
            assert client.view.told == len(self.truth)

    @precondition(lambda self: self.parked is None)
    @rule(which=st.integers(0, 2))
    def parks(self, which: int) -> None:
        """A session gives its channel up."""
        assert self.clients[which].view.park(self.truth)
        self.parked = self.clients[which]

    @precondition(lambda self: self.parked is not None)
    @rule()
    def returns(self) -> None:
        """It goes on, on another channel, which knows the same mailbox as it is now."""
        client, self.parked = self.parked, None
        assert client is not None
        assert client.view.rebase(self.truth)

    @rule(which=st.integers(0, 2), first=st.integers(1, 12), last=st.integers(1, 12), star=st.booleans())
    def names(self, which: int, first: int, last: int, star: bool) -> None:
        """A session names messages by number: the UIDs are those that it means, and are there."""
        client = self.clients[which]
        if client is self.parked:
            return
        count = len(client.messages)
        end = count if star else last
        low, high = min(first, end), max(first, end)
        uids = chosen(b"%d:%b" % (first, b"*" if star else b"%d" % last), client.view, self.truth)
        if not count or high > count:
            assert not isinstance(uids, bytes)
            return
        meant = {uid for uid in client.uids[low - 1 : high] if uid in self.truth.uids}
        named = ranges(uids) if isinstance(uids, bytes) else []
        assert {uid for uid in self.truth.uids if any(low <= uid <= high for low, high in named)} == meant

    @invariant()
    def numbers_never_lie(self) -> None:
        """Each number means to the view what it means to its client."""
        for client in self.clients:
            if client is self.parked:
                continue
            view = client.view
            assert len(view) == len(client.messages)
            assert [client.uids[number - 1] for number in view.gone(self.truth)] == view.ghosts
            for index in range(view.told):
                assert client.uids[view.number(self.truth, index) - 1] == self.truth.uids[index]
            assert view.ghosts == [uid for uid in client.uids if uid not in self.truth.uids]

    @invariant()
    def recent_once(self) -> None:
        """No message is recent to two sessions that may write, or to one and still to whoever comes."""
        first, second = (client.view.recents for client in self.clients[:2]) if self.clients else (set(), set())
        assert not first & second
        assert not (first | second) & self.truth.recent


TestViews = Views.TestCase


UIDS = st.lists(st.integers(1, 40), unique=True, max_size=15).map(sorted)


@given(before=UIDS, told=st.integers(0, 15), after=UIDS)
def test_rebase(before: list[int], told: int, after: list[int]) -> None:
    """A view goes on elsewhere if and only if what is there holds no message that it should know and does not."""
    truth = holding(*before[:told])
    view = looking(truth)
    for uid in before[told:]:
        arrive(truth, uid)
    known = before[:told]
    assert view.park(truth)
    other = holding(*after)
    last = max(known, default=0)
    assert view.rebase(other) == all(uid in known for uid in after if uid <= last)
    if all(uid in known for uid in after if uid <= last):
        client = Client(view)
        client.messages = [(uid, b"") for uid in known]
        client.reads(view.flush(other, expunges=True), other)
        assert client.uids == after
