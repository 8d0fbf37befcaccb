"""The crowd as a whole: rounds of work, and after each of them a checkpoint.

::

    done = Crowd(server, user, gate.port, mode="shared", seed=1).run(3000)

At a checkpoint nobody has a command in flight.  What a fresh connection to the server is told is the truth then; the
picture of each client, after a NOOP, must be that.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable
from pathlib import Path
from random import Random
from typing import Any

from tests.integration.conftest import User
from tests.integration.crowd.commands import Command
from tests.integration.crowd.connection import Journal
from tests.integration.crowd.ledger import Ledger
from tests.integration.crowd.member import Member
from tests.integration.crowd.picture import Picture
from tests.integration.crowd.violation import Violation
from tests.integration.crowd.ways import Ways, ways_of
from tests.integration.wire import quoted

SESSIONS, DIRECT = 20, 2
AT_FIRST = 12
IDLERS = 3
IDLE_EVERY = 5
"""Rounds, after the last of which some clients idle into the checkpoint: they must be told all without asking."""
IDLE_PATIENCE = 15.0


class Crowd:
    """Sessions through a port, direct ones beside them, all of one user.

    :param port: where the sessions connect: a gate's, or the server's own
    :param mode: ``direct``, or the gate's pool mode
    """

    def __init__(
        self, user: User, port: int, *, mode: str, seed: int, sessions: int = SESSIONS, direct: int = DIRECT
    ) -> None:
        self.seed = seed
        self.checkpoints = 0
        self.journal = Journal()
        self._random = Random(seed)
        self._ledger = Ledger()
        self._user = user
        self._login = quoted(user.name) + b" " + quoted(user.password)
        self._direct_ways = ways_of(user.server.name, "direct")
        prefix = self._direct_ways.prefix
        self._mailboxes = [b"INBOX", *(prefix + name for name in (b"alpha", b"beta", b"gamma"))]
        ways = ways_of(user.server.name, mode)
        self.members = [self._member(f"client{number}", port, ways) for number in range(sessions)]
        self.members += [self._member(f"direct{n}", user.server.port, self._direct_ways) for n in range(direct)]

    def _member(self, who: str, port: int, ways: Ways) -> Member:
        random = Random(f"{self.seed}/{who}")
        return Member(who, port, self._login, self._mailboxes, self._ledger, ways, self.journal, random)

    @property
    def done(self) -> Counter[str]:
        """By verb, how many commands the clients have given."""
        return sum((member.done for member in self.members), Counter[str]())

    @property
    def deaths(self) -> int:
        """How many connections the server has ended by dying."""
        return sum(member.deaths for member in self.members)

    @property
    def short(self) -> int:
        """How often a picture lacked the last messages at a checkpoint, where that may be."""
        return sum(member.short for member in self.members)

    def run(self, commands: int, transcript: Path) -> None:
        """Work until so many commands were given.

        :param transcript: what to write all into that was said since the last checkpoint, if it comes to that
        :raise Violation: somebody was told what cannot be.
        """
        try:
            asyncio.run(self._run(commands))
        except Violation as violation:
            self.journal.write(transcript)
            who = str(violation).partition(":")[0].partition(",")[0]
            violation.add_note(f"seed {self.seed}, after {self.journal.commands} commands; all of it: {transcript}")
            violation.add_note(self.journal.last(who, 40))
            raise

    async def _run(self, commands: int) -> None:
        try:
            await self._furnish()
            await _all(member.connect() for member in self.members)
            while self.done.total() < commands:
                await _all(member.work(self._random.randint(5, 40)) for member in self.members)
                await self._checkpoint()
        finally:
            for member in self.members:
                member.close()

    async def _furnish(self) -> None:
        maker = self._member("maker", self._user.server.port, self._direct_ways)
        await maker.connect()
        for mailbox in self._mailboxes[1:]:
            await maker.give(Command(b"CREATE", b"CREATE " + mailbox))
        for mailbox in self._mailboxes:
            for _ in range(AT_FIRST):
                token, text = self._ledger.write(self._random)
                await maker.give(
                    Command(b"APPEND", b"APPEND %b " % mailbox, mailbox=mailbox, literal=text, token=token)
                )
        maker.close()

    async def _truth(self) -> dict[bytes, Picture]:
        """What a fresh connection is told of each mailbox."""
        member = self._member("truth", self._user.server.port, self._direct_ways)
        truth = {}
        await member.connect()
        for mailbox in self._mailboxes:
            await member.give(Command(b"SELECT", b"SELECT " + mailbox, mailbox=mailbox))
            picture = member.picture
            assert picture is not None
            if len(picture):
                items, needs = b"(UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])", b"BODY[HEADER.FIELDS (SUBJECT)]"
                command = Command(b"FETCH", b"FETCH 1:* " + items, needs=needs, content=True, open_ended=True)
                await member.give(command)
            assert all(message.uid and message.flags and message.token for message in picture.messages)
            self._ledger.settle(mailbox, {message.uid for message in picture.messages if message.uid})
            truth[mailbox] = picture
        member.close()
        return truth

    async def _checkpoint(self) -> None:
        self.checkpoints += 1
        idlers = await self._begin_idle() if self.checkpoints % IDLE_EVERY == 1 else []
        truth = await self._truth()
        await _all(self._wait(member, truth) for member in idlers)
        await _all(member.look_again(truth) for member in self.members)
        await _all(member.look_around(truth, select=self._random.random() < 0.2) for member in self.members)
        self.journal.clear()

    async def _begin_idle(self) -> list[Member]:
        able = [member for member in self.members if member.picture is not None and member.can_idle]
        idlers = self._random.sample(able, min(IDLERS, len(able)))
        return [member for member in idlers if await member.begin_idle()]

    async def _wait(self, member: Member, truth: dict[bytes, Picture]) -> None:
        """Wait until one who idles knows all; nobody asks any more."""
        picture = member.picture
        assert picture is not None
        true = truth[picture.mailbox]
        try:
            await member.connection.until(
                lambda: not picture.differences(true, short=member.ways.forgets), IDLE_PATIENCE
            )
        except Violation as violation:
            raise Violation(f"{violation}, while idling: {picture.differences(true)}") from None
        await member.connection.done()


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all at once; the first exception ends all."""
    tasks = [asyncio.create_task(one) for one in work]
    if not tasks:
        return
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
