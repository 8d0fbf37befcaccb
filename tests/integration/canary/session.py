"""One connection of the load, from its greeting to one of the many ways in which it ends."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from random import Random

from tests.integration.canary import commands
from tests.integration.canary.accounts import SMALL, Account
from tests.integration.canary.client import Client
from tests.integration.canary.commands import Asker, Make
from tests.integration.canary.witness import Command

_runs = itertools.count(1)


class Ledger:
    """What one run of the load has done.

    :ivar acknowledged: by mark, the numbers of the messages whose APPEND was answered OK
    :ivar sent: by verb, how many commands were begun
    """

    def __init__(self) -> None:
        self.run = b"run%d" % next(_runs)
        self.sent: Counter[str] = Counter()
        self.commands = 0
        self.sessions = 0
        self.endings: Counter[str] = Counter()
        self.acknowledged: defaultdict[bytes, set[bytes]] = defaultdict(set)
        self._number = 0

    def begun(self, command: Command) -> None:
        """A command is being sent."""
        self.commands += 1
        self.sent[command.verb.decode()] += 1

    def next_number(self) -> bytes:
        """A number for a message, used once."""
        self._number += 1
        return b"%b.%d" % (self.run, self._number)


class Session:
    """What one connection does; everything is drawn from ``random``."""

    def __init__(self, client: Client, account: Account, own: bytes, random: Random, ledger: Ledger) -> None:
        self.client = client
        self.account = account
        self.own = own
        self.random = random
        self.ledger = ledger
        self._tags = 0

    async def run(self) -> None:
        """Greet, log in, work, and end.

        :raise Ended: the other side was first.
        """
        await self.client.hear()
        if self.random.random() < 0.03:
            await self.login(wrong=self.random.choice((b"wrong", self.account.name, self.account.mark)))
        if self.random.random() < 0.02:
            await self._end(cut_in_login)
            return
        if not await self.login():
            return
        for _ in range(self.random.randint(0, 20)):
            await self._step()
        await self._end(self.random.choice(ENDINGS))

    # --- what a step can use ----------------------------------------------------------------------------

    def asker(self) -> Asker:
        """Whoever makes the next command, with a tag of its own."""
        self._tags += 1
        return Asker(self.account, self.own, self.random, b"%b.%d" % (self.own, self._tags))

    async def begin(self, *made: Command, upto: int | None = None) -> None:
        """Send these commands in one write; ``upto``: only so many octets of them."""
        data = b"".join(b"%b %b\r\n" % (command.tag, command.line) for command in made)
        for command in made:
            self.ledger.begun(command)
        await self.client.send(data[:upto], *made)

    async def ask(self, *makes: Make) -> bool:
        """Send commands of one line, all at once, and wait for all answers; whether the last is OK."""
        made = [make(self.asker()) for make in makes]
        await self.begin(*made)
        await self.client.answered(*made)
        return self.client.witness.answers[made[-1].tag] == b"OK"

    async def login(self, wrong: bytes | None = None) -> bool:
        """Log in; whether that succeeded."""
        login = commands.login(self.asker(), wrong)
        await self.begin(login.command)
        for piece in login.pieces:
            if await self.client.prompted(login.command):
                await self.client.send(piece + b"\r\n")
        await self.client.answered(login.command)
        return self.client.witness.answers[login.command.tag] == b"OK"

    def message(self) -> tuple[bytes, bytes]:
        """A new message of this user, and its number."""
        number = self.ledger.next_number()
        return self.account.message(number, self.random.randint(1, SMALL)), number

    # --- steps ------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        if self.client.witness.selected:
            step = self.random.choices(_SELECTED_STEPS, _SELECTED_WEIGHTS)[0]
        else:
            step = self.random.choices(_STEPS, _WEIGHTS)[0]
        await step(self)

    async def _end(self, ending: Step) -> None:
        self.ledger.endings[ending.__name__] += 1
        await ending(self)


Step = Callable[[Session], Awaitable[None]]


async def one(session: Session) -> None:
    """One command, and its answer."""
    selected = session.client.witness.selected
    await session.ask(session.random.choice(commands.IN_A_MAILBOX if selected else commands.ANYWHERE))


async def several(session: Session) -> None:
    """Some commands in one write."""
    choice = commands.IN_A_MAILBOX if session.client.witness.selected else commands.ANYWHERE
    await session.ask(*session.random.choices(choice, k=session.random.randint(2, 8)))


async def select(session: Session) -> None:
    """Another mailbox."""
    await session.ask(commands.select)


async def select_unknown(session: Session) -> None:
    """A mailbox that is not there: afterwards none is selected."""
    await session.ask(commands.select_unknown)


async def leave(session: Session) -> None:
    """No mailbox any more; sometimes with the next command right behind."""
    leaving = session.random.choice((commands.close, commands.unselect))
    await session.ask(leaving, *session.random.choice(((), (commands.status,), (commands.noop,), (commands.select,))))


async def append(session: Session) -> None:
    """A message of one's own, in one write or after the ``+``."""
    message, number = session.message()
    synchronising = session.random.random() < 0.5
    command = commands.append(session.asker(), message, synchronising=synchronising)
    await session.begin(command)
    if synchronising and not await session.client.prompted(command):
        return
    cut = session.random.randrange(len(message))
    await session.client.send(message[:cut])
    await session.client.send(message[cut:] + b"\r\n")
    await session.client.answered(command)
    if session.client.witness.answers[command.tag] == b"OK":
        session.ledger.acknowledged[session.account.mark].add(number)


async def refused(session: Session) -> None:
    """An APPEND that is refused."""
    if session.random.random() < 0.5:
        await session.ask(commands.append_too_large)
        return
    message, _ = session.message()
    command = commands.append_nowhere(session.asker(), message)
    await session.begin(command)
    if await session.client.prompted(command):
        await session.client.send(message + b"\r\n")
        await session.client.answered(command)


async def idle(session: Session) -> None:
    """IDLE for a moment; DONE comes after the ``+``, or right behind the command."""
    command = commands.idle(session.asker())
    await session.begin(command)
    if session.random.random() < 0.7 and await session.client.prompted(command):
        await asyncio.sleep(session.random.choice((0, 0, 0.01, 0.05)))
    if command.tag in session.client.witness.in_flight:
        await session.client.send(b"DONE\r\n")
        await session.client.answered(command)


async def slow(session: Session) -> None:
    """More than one cares to read at once."""
    made = [commands.fetch_large(session.asker()) for _ in range(session.random.randint(1, 4))]
    await session.begin(*made)
    for _ in range(session.random.randint(1, 6)):
        await session.client.hear(session.random.choice((1, 100, 4096)))
        await asyncio.sleep(0.005)
    await session.client.answered(*made)


_STEPS, _WEIGHTS = (one, several, select, select_unknown, append, refused, idle), (30, 8, 40, 3, 8, 3, 4)
_SELECTED_STEPS = (one, several, select, select_unknown, append, refused, idle, leave, slow)
_SELECTED_WEIGHTS = (60, 14, 8, 2, 6, 1, 5, 8, 2)


# --- endings ----------------------------------------------------------------------------------------------


def _cut(session: Session) -> None:
    session.client.end(session.random.choice(("fin", "rst")))


def _any(session: Session) -> Make:
    choice = commands.IN_A_MAILBOX if session.client.witness.selected else commands.ANYWHERE
    return session.random.choice(choice)


async def logout(session: Session) -> None:
    """LOGOUT, perhaps right behind another command."""
    await session.ask(*([_any(session)] if session.random.random() < 0.3 else []), commands.logout)
    await session.client.until(lambda: False)


async def cut(session: Session) -> None:
    """Gone, with nothing under way."""
    _cut(session)


async def cut_in_login(session: Session) -> None:
    """Gone before the answer to the login."""
    await session.begin(commands.login(session.asker()).command)
    _cut(session)


async def cut_in_command(session: Session) -> None:
    """Gone in the middle of a command, whole ones before it."""
    made = [_any(session)(session.asker()) for _ in range(session.random.randint(1, 3))]
    await session.begin(*made, upto=-session.random.randint(1, 9))
    _cut(session)


async def cut_before_answer(session: Session) -> None:
    """Gone right after some commands, before the answers: they stay in flight."""
    makes = [_any(session) for _ in range(session.random.randint(1, 4))]
    if session.client.witness.selected:
        makes.append(commands.fetch_large)
    await session.begin(*(make(session.asker()) for make in makes))
    await asyncio.sleep(session.random.choice((0, 0, 0, 0.001, 0.003)))
    _cut(session)


async def cut_in_answer(session: Session) -> None:
    """Gone with most of the answer unread."""
    if not session.client.witness.selected and not await session.ask(commands.select):
        return
    await session.begin(*(commands.fetch_large(session.asker()) for _ in range(session.random.randint(1, 5))))
    await session.client.hear(session.random.choice((1, 500, 30_000)))
    _cut(session)


async def cut_in_literal(session: Session) -> None:
    """Gone in the middle of a message, or before its ``+``."""
    message, _ = session.message()
    synchronising = session.random.random() < 0.5
    command = commands.append(session.asker(), message, synchronising=synchronising)
    await session.begin(command)
    if not synchronising or (session.random.random() < 0.7 and await session.client.prompted(command)):
        await session.client.send(message[: session.random.randrange(len(message))])
    _cut(session)


async def cut_in_idle(session: Session) -> None:
    """Gone while idling, or on the way there."""
    command = commands.idle(session.asker())
    await session.begin(command)
    if session.random.random() < 0.7:
        await session.client.prompted(command)
    _cut(session)


async def half_close(session: Session) -> None:
    """The sending side is closed behind some commands; whatever still comes is heard."""
    await session.begin(*(_any(session)(session.asker()) for _ in range(session.random.randint(1, 4))))
    session.client.half_close()
    await session.client.until(lambda: False)


ENDINGS: tuple[Step, ...] = (
    logout,
    logout,
    logout,
    cut,
    cut_in_command,
    cut_before_answer,
    cut_before_answer,
    cut_in_answer,
    cut_in_literal,
    cut_in_idle,
    half_close,
)
