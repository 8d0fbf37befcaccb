"""One session of the crowd: it connects, works as its chance says, and begins anew where the server died of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random

from tests.integration.crowd.commands import Chooser, Command
from tests.integration.crowd.connection import Connection, Ended, Journal
from tests.integration.crowd.ledger import Ledger
from tests.integration.crowd.listener import Listener
from tests.integration.crowd.picture import Picture
from tests.integration.crowd.violation import Violation
from tests.integration.crowd.ways import Ways

CROWDED = 60
"""So many messages make a client delete some rather than store more."""


class Member:
    """One session.

    :ivar deaths: how often its server has died of it
    :ivar short: how often its picture lacked the last messages at a checkpoint, where that may be
    """

    def __init__(
        self,
        who: str,
        port: int,
        login: bytes,
        mailboxes: Sequence[bytes],
        ledger: Ledger,
        ways: Ways,
        journal: Journal,
        random: Random,
    ) -> None:
        self.who = who
        self.deaths = 0
        self.short = 0
        self.done: Counter[str] = Counter()
        self.random = random
        self._port = port
        self._login = login
        self._mailboxes = mailboxes
        self._ledger = ledger
        self.ways = ways
        self._journal = journal
        self._connection: Connection | None = None
        self._choose = Chooser(random, ledger, mailboxes, ways)

    @property
    def connection(self) -> Connection:
        """The connection that there is now."""
        assert self._connection is not None
        return self._connection

    @property
    def picture(self) -> Picture | None:
        """The picture of the mailbox that is selected."""
        return self.connection.listener.picture

    async def connect(self) -> None:
        """Connect and log in."""
        listener = Listener(self.who, self._ledger, self.ways)
        self._connection = await Connection.to(self._port, listener, self._journal)
        await self.give(Command(b"LOGIN", b"LOGIN " + self._login))
        await self.give(Command(b"CAPABILITY", b"CAPABILITY"))
        self._choose.capabilities = listener.capabilities

    def close(self) -> None:
        """Go, without a word."""
        if self._connection is not None:
            self._connection.close()

    async def give(self, *commands: Command) -> None:
        """Give commands and wait for their answers; where the server has died of them, connect again."""
        for command in commands:
            self.done[command.verb.decode()] += 1
        try:
            await self.connection.give(*commands)
        except Ended:
            self.deaths += 1
            await self.connect()

    # -- work ----------------------------------------------------------------------------------------------------

    async def work(self, steps: int) -> None:
        """Take so many steps."""
        for _ in range(steps):
            if self.picture is None:
                await self._outside()
            else:
                await self._inside(self.picture)

    async def _outside(self) -> None:
        choose = self._choose
        make = self.random.choice((choose.noop, choose.list_all, choose.status, choose.append, *[choose.select] * 8))
        await self.give(make())
        if self.picture is not None and len(self.picture) and self.random.random() < 0.6:
            await self.give(choose.look_at(self.picture))

    async def _inside(self, picture: Picture) -> None:
        step = self.random.choices(_STEPS, _WEIGHTS)[0]
        await step(self, picture)

    async def message_step(self, picture: Picture) -> None:
        """A command on messages, where there are any."""
        choose = self._choose
        if not len(picture):
            await self.give(choose.append(picture))
            return
        makes = [choose.fetch] * 8 + [choose.search] * 4 + [choose.copy] * (len(picture) < CROWDED)
        if not picture.read_only:  # what changes an EXAMINEd mailbox gets a gate's session a connection of its own
            makes += [choose.store] * 8 + [choose.expunge] * 2
            if b"MOVE" in choose.capabilities:
                makes += [choose.move] * 2
        await self.give(self.random.choice(makes)(picture))

    async def burst_step(self, picture: Picture) -> None:
        """Several commands at once."""
        if len(picture):
            await self.give(*self._choose.burst(picture))

    async def other_step(self, picture: Picture) -> None:
        """What has nothing to do with messages."""
        choose = self._choose
        make = self.random.choice((choose.noop, choose.noop, choose.check, choose.status, choose.list_all))
        await self.give(make())

    async def append_step(self, picture: Picture) -> None:
        """A new message."""
        if len(picture) < CROWDED:
            await self.give(self._choose.append(picture))

    async def look_step(self, picture: Picture) -> None:
        """All UIDs and flags."""
        if len(picture):
            await self.give(self._choose.look_at(picture))

    async def leave_step(self, picture: Picture) -> None:
        """Another mailbox, or none."""
        await self.give(self.random.choice((self._choose.leave, self._choose.select, self._choose.select))())

    async def idle_step(self, picture: Picture) -> None:
        """IDLE for a moment, where that is offered."""
        if self.can_idle and await self.begin_idle():
            await asyncio.sleep(self.random.choice((0, 0, 0.005, 0.03)))
            await self.connection.done()

    # -- at a checkpoint -----------------------------------------------------------------------------------------

    @property
    def can_idle(self) -> bool:
        """Whether the server offers IDLE."""
        return b"IDLE" in self._choose.capabilities

    async def begin_idle(self) -> bool:
        """Begin to idle."""
        self.done["IDLE"] += 1
        return await self.connection.begin_idle(self._choose.idle())

    async def look_again(self, truth: dict[bytes, Picture]) -> None:
        """NOOP, and the picture must be the truth; then the same after FETCH of all."""
        picture = self.picture
        await self.give(self._choose.noop())
        if picture is None:
            return
        self.short += len(picture) < len(truth[picture.mailbox])
        self.compare("after NOOP", picture.differences(truth[picture.mailbox], short=self.ways.forgets))
        if len(picture):
            await self.give(self._choose.look_at(picture))
            self.compare("after FETCH 1:*", picture.differences(truth[picture.mailbox], whole=True))

    async def look_around(self, truth: dict[bytes, Picture], *, select: bool) -> None:
        """STATUS of some mailbox must be the truth; so must what SELECT says of it."""
        mailbox = self._choose.mailbox()
        if self.picture is None or self.picture.mailbox != mailbox:
            await self.give(self._choose.status(mailbox))
            told = self.connection.listener.told_status[mailbox]
            true = truth[mailbox]
            expected = {b"MESSAGES": len(true), b"UNSEEN": sum(b"\\seen" not in m.flags[0] for m in true.messages)}
            expected |= {name: true.facts[name] for name in (b"UIDNEXT", b"UIDVALIDITY") if name in true.facts}
            wrong = [f"{k.decode()} {told[k]} where it is {v}" for k, v in expected.items() if told[k] != v]
            self.compare(f"STATUS of {mailbox!r}", wrong)
        if select:
            await self.give(self._choose.select(mailbox))
            assert self.picture is not None
            self.compare(
                f"SELECT of {mailbox!r}", self.picture.opening_differences(truth[mailbox], short=self.ways.forgets)
            )

    def compare(self, when: str, differences: list[str]) -> None:
        """Object to differences."""
        if differences:
            raise Violation(f"{self.who}, {when}: " + "; ".join(differences))


_STEPS = (
    Member.message_step,
    Member.burst_step,
    Member.other_step,
    Member.append_step,
    Member.look_step,
    Member.leave_step,
    Member.idle_step,
)
_WEIGHTS = (60, 6, 12, 8, 4, 7, 3)
