"""Views and channels against a reference mailbox: thousands of interleavings, and at each NOOP a picture that is true.

Several sessions of one user share channels to a server with real servers' habits, while others change the mailboxes
from outside and connections are lost.  Each session's picture is replayed from the octets that it received.  It raises
where those break the protocol, and after a NOOP with everything delivered it must equal the plain list of the store.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from imapgate.model.failure import Failure
from imapgate.model.pool_mode import IdleMode, SharingTerms
from imapgate.session.effects import Failed
from tests.sharing.store import Mailbox
from tests.sharing.told import COURIER, STYLES
from tests.sharing.world import Client, Line, World, message

NAMES = (b"INBOX", b"Sent")
FLAGS = (b"\\Seen", b"\\Flagged", b"\\Deleted", b"$Label", b"Other")
MOST = 4
THOUSANDS = 5_000

index = st.integers(0, 1 << 16)
flag = st.sampled_from(FLAGS)
how = st.sampled_from((b"", b"+", b"-"))


class Sharing(RuleBasedStateMachine):
    """One user's sessions, one server."""

    world: World

    @initialize(
        style=st.sampled_from(sorted(STYLES)),
        size=st.sampled_from((1, 2, 3, 10)),
        idle=st.sampled_from(list(IdleMode)),
        hasty=st.booleans(),
    )
    def begin(self, style: str, size: int, idle: IdleMode, hasty: bool) -> None:
        """A store with some mail, and three sessions that look at it."""
        terms = SharingTerms(size=size, idle=idle, park_after=60.0)
        # A server that answers before it announces breaks the rules for who has a connection of its own.
        hasty = hasty and style == "cyrus" and idle is not IdleMode.RELAY
        self.world = World(STYLES[style], terms, hasty=hasty)
        self.world.store.create(b"Sent")
        for _ in range(5):
            self.arrives(0, b"\\Seen")
        for name in (b"INBOX", b"INBOX", b"Sent"):
            self.world.says(self.world.sit(), b"SELECT " + name)
        self.world.settles()

    # --- choosing -----------------------------------------------------------------------------------------

    def client(self, number: int, *, selected: bool = True) -> Client | None:
        """One that may give a command now, with a mailbox selected."""
        free = [each for each in self.world.clients if each.free and not each.picture.idling]
        free = [each for each in free if each.picture.selected is not None or not selected]
        return free[number % len(free)] if free else None

    def numbers(self, client: Client, first: int, last: int) -> bytes:
        """A set of numbers, mostly of messages that are there."""
        count = len(client.picture.messages)
        if not count:
            return b"1:*"
        low, high = first % count + 1, last % (count + 1) + 1
        if not self.world.style.swaps:  # what a range means whose end comes first, servers disagree on
            low, high = min(low, high), max(low, high)
        return b"%d:*" % low if high > count else b"%d:%d" % (low, high)

    def mailbox(self, number: int) -> tuple[bytes, Mailbox]:
        """One of those that are there."""
        names = sorted(self.world.store.mailboxes)
        name = names[number % len(names)]
        return name, self.world.store[name]

    # --- from outside -------------------------------------------------------------------------------------

    @rule(number=index, given=flag)
    def arrives(self, number: int, given: bytes) -> None:
        """Mail."""
        _, mailbox = self.mailbox(number)
        mailbox.append(message(mailbox.uidvalidity, mailbox.uidnext), [given])

    @rule(number=index, which=index, sign=how, given=flag)
    def is_flagged(self, number: int, which: int, sign: bytes, given: bytes) -> None:
        """Flags, changed by another connection."""
        _, mailbox = self.mailbox(number)
        if mailbox.uids:
            mailbox.store(mailbox.uids[which % len(mailbox.uids)], sign, [given])

    @rule(number=index, which=index, count=st.integers(1, 3))
    def is_expunged(self, number: int, which: int, count: int) -> None:
        """Messages, deleted by another connection."""
        _, mailbox = self.mailbox(number)
        begin = which % (len(mailbox.uids) or 1)
        mailbox.expunge(*mailbox.uids[begin : begin + count])

    @rule(number=index, again=st.booleans())
    def is_deleted(self, number: int, again: bool) -> None:
        """A mailbox, deleted by another connection; perhaps there is one of that name again."""
        if number % 5 == 0 and b"Sent" in self.world.store.mailboxes:
            self.world.store.delete(b"Sent")
            if again:
                self.world.store.create(b"Sent")
        elif b"Sent" not in self.world.store.mailboxes:
            self.world.store.create(b"Sent")

    # --- what sessions do ---------------------------------------------------------------------------------

    @rule()
    def logs_in(self) -> None:
        """One session more."""
        if len(self.world.clients) < MOST:
            self.world.sit()

    @rule(number=index)
    def leaves(self, number: int) -> None:
        """A session ends, wherever it stands."""
        if number % 4 == 0 and len(self.world.clients) > 1:
            self.world.leaves(self.world.clients[number % len(self.world.clients)])

    @rule(number=index, name=st.sampled_from(NAMES), verb=st.sampled_from((b"SELECT", b"SELECT", b"EXAMINE")))
    def selects(self, number: int, name: bytes, verb: bytes) -> None:
        """A mailbox."""
        client = self.client(number, selected=False)
        if client is not None:
            self.world.says(client, verb + b" " + name)

    @rule(
        number=index,
        text=st.sampled_from((b"NOOP", b"CHECK", b"EXPUNGE", b"CLOSE", b"UNSELECT", b"IDLE", b"STATUS Sent (MESSAGES)",
                              b"STATUS INBOX (UIDNEXT)", b'LIST "" *', b"UID EXPUNGE 1:*", b"SEARCH RECENT",
                              b"SEARCH NOT 1:2 UNSEEN", b"SEARCH *", b"SORT (REVERSE ARRIVAL) UTF-8 ALL",
                              b"THREAD REFERENCES UTF-8 ALL", b"SEARCH RETURN (MIN MAX COUNT ALL) 2:*",
                              b"UID SEARCH RETURN (ALL) NOT DELETED", b"UID SEARCH 1:3", b"ENABLE CONDSTORE")),
    )  # fmt: skip
    def commands(self, number: int, text: bytes) -> None:
        """Something without numbers of its own."""
        client = self.client(number)
        if client is None or (text == b"ENABLE CONDSTORE" and (number % 8 or self.world.hasty)):
            return
        offered = self.world.style.capabilities.split()
        wanted = {b"IDLE": b"IDLE", b"UNSELECT": b"UNSELECT", b"ENABLE": b"ENABLE"}.get(text.split()[0])
        if (wanted is None or wanted in offered) and (b"RETURN" not in text or b"ESEARCH" in offered):
            self.world.says(client, text)

    @rule(
        number=index, first=index, last=index, uid=st.booleans(),
        items=st.sampled_from((b"(FLAGS)", b"(UID FLAGS)", b"(UID BODY.PEEK[])", b"(BODY[])", b"(UID RFC822.SIZE)")),
    )  # fmt: skip
    def fetches(self, number: int, first: int, last: int, uid: bool, items: bytes) -> None:
        """Messages, by number or by UID."""
        client = self.client(number)
        if client is not None:
            wanted = self.numbers(client, first, last)
            self.world.says(client, b"UID FETCH 1:* " + items if uid else b"FETCH %b %b" % (wanted, items))

    @rule(number=index, first=index, last=index, sign=how, silent=st.booleans(), given=flag)
    def stores(self, number: int, first: int, last: int, sign: bytes, silent: bool, given: bytes) -> None:
        """Flags."""
        client = self.client(number)
        if client is not None and not (self.world.hasty and client.picture.read_only):  # it would be pinned
            item = sign + (b"FLAGS.SILENT" if silent else b"FLAGS")
            self.world.says(client, b"STORE %b %b (%b)" % (self.numbers(client, first, last), item, given))

    @rule(number=index, first=index, last=index, verb=st.sampled_from((b"COPY", b"MOVE")), name=st.sampled_from(NAMES))
    def puts(self, number: int, first: int, last: int, verb: bytes, name: bytes) -> None:
        """Messages into a mailbox."""
        client = self.client(number)
        if client is not None and (verb == b"COPY" or b"MOVE" in self.world.style.capabilities):
            self.world.says(client, b"%b %b %b" % (verb, self.numbers(client, first, last), name))

    @rule(number=index)
    def ends_idle(self, number: int) -> None:
        """DONE."""
        idling = [each for each in self.world.clients if each.idling]
        if idling:
            self.world.says(idling[number % len(idling)], b"DONE")

    # --- what is on its way -------------------------------------------------------------------------------

    def lines(self) -> list[Line]:
        """All that there are."""
        return list(self.world.lines.values())

    @rule(number=index, count=st.integers(1, 12))
    def go_on(self, number: int, count: int) -> None:
        """Some octets arrive, here and there."""
        for step in range(number, number + count):
            (self.goes_up if step % 2 else self.goes_down_whole)(step)

    def goes_down_whole(self, number: int) -> None:
        """The share hears something."""
        channels = [channel for channel, line in self.world.lines.items() if line.down]
        if channels:
            self.world.goes_down(channels[number % len(channels)])

    @rule(number=index)
    def goes_up(self, number: int) -> None:
        """A server hears something."""
        lines = [line for line in self.lines() if line.up]
        if lines:
            self.world.goes_up(lines[number % len(lines)])

    @rule(number=index, most=st.sampled_from((1 << 20, 1 << 20, 40, 7, 1)))
    def goes_down(self, number: int, most: int) -> None:
        """The share hears something, or a part of it."""
        channels = [channel for channel, line in self.world.lines.items() if line.down]
        if channels:
            self.world.goes_down(channels[number % len(channels)], most)

    @rule(number=index)
    def pushes(self, number: int) -> None:
        """A server speaks unasked."""
        lines = self.lines()
        if lines:
            self.world.pushes(lines[number % len(lines)])

    @rule(number=index, refused=st.booleans())
    def connects(self, number: int, refused: bool) -> None:
        """A connection that was wanted."""
        wanted = self.world.wanted
        if wanted:
            failed = Failed(Failure.BUSY) if refused and number % 4 == 0 else None
            self.world.connects(number % len(wanted), failed)

    @rule(number=index)
    def breaks(self, number: int) -> None:
        """A connection."""
        channels = list(self.world.lines)
        if channels and number % 3 == 0:
            self.world.breaks(channels[number % len(channels)])

    @rule(seconds=st.sampled_from((1.0, 30.0, 90.0)))
    def time_passes(self, seconds: float) -> None:
        """Time."""
        self.world.passes(seconds)

    # --- what must hold -----------------------------------------------------------------------------------

    def comes_to_rest(self) -> None:
        """Everything arrives, and who cannot have a connection is told so."""
        self.world.settles()
        if not all(each.free or each.gone or each.picture.idling for each in self.world.clients):
            self.world.passes(11.0)
            self.world.settles()

    @rule()
    def checkpoint(self) -> None:
        """With everything delivered, a NOOP makes each picture true."""
        world = self.world
        self.comes_to_rest()
        for client in [each for each in world.clients if each.idling]:
            world.says(client, b"DONE")
        self.comes_to_rest()
        own = [channel for channel in world.share.channels if channel.lent is None]
        assert len(own) <= world.share.terms.size
        for client in list(world.clients):
            if client.gone:
                world.leaves(client)
        for client in world.clients:
            assert client.free, (client.tag, client.picture.waiting)
            selected = client.picture.selected
            world.says(client, b"NOOP")
            self.comes_to_rest()
            if client.gone:
                continue
            assert client.free
            if selected is None:
                continue
            if client.picture.ended[b"c%d" % client.number].startswith(b"NO [UNAVAILABLE]"):
                assert world.pins  # what there may be is others' own
                continue
            mailbox = world.store.mailboxes.get(selected)
            if mailbox is None or mailbox.uidvalidity != int(client.picture.codes[b"UIDVALIDITY"]):
                # Courier's own clients are not told either, until somebody looks the mailbox up again.
                assert world.style is COURIER or client.seat.pinned
                continue
            found = client.picture.differences(mailbox.messages)
            assert found == [], found

    def teardown(self) -> None:
        """In the end everything is true, and nothing is kept for nobody."""
        if not hasattr(self, "world"):
            return
        self.checkpoint()
        for client in list(self.world.clients):
            self.world.leaves(client)
        self.world.settles()
        self.world.passes(1000.0)
        self.world.settles()
        assert self.world.share.empty


TestSharing = Sharing.TestCase
TestSharing.settings = settings(settings(), stateful_step_count=60, max_examples=10 * settings().max_examples)


@pytest.mark.soak
def test_thousands() -> None:
    """The same for long."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    long = settings(deadline=None, max_examples=THOUSANDS, stateful_step_count=100, suppress_health_check=checks)
    run_state_machine_as_test(Sharing, settings=long)  # type: ignore[no-untyped-call]
