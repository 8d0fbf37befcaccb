"""The load: many clients of many users, each doing what its seed says, every octet they are sent looked at.

::

    accounts = new_accounts(Random(1), 50, "canary")
    furnish(dovecot, accounts)
    ledger = Load(gate.port, accounts, seed=1, commands=3000).run()
    sweep(dovecot, accounts, ledger)

It stops at the first violation, and raises it with what was said on that connection.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from tests.integration.canary.accounts import AT_FIRST, LARGE, Account, new_mark
from tests.integration.canary.client import Client, Ended
from tests.integration.canary.session import Ledger, Session
from tests.integration.canary.trouble import Trouble
from tests.integration.canary.witness import Command, Need, Violation, Witness
from tests.integration.servers import Server

SESSION_SECONDS = 60.0
"""No session lasts as long: whoever waits for that has been forgotten."""
TROUBLE_EVERY = 40
"""Commands between two strikes at an upstream connection."""


class Load:
    """A load on the gate at a port of this machine.

    :param commands: how many to send, logins included; it ends earlier after ``seconds``
    :param actors: clients at a time
    :param trouble: strikes at upstream connections; with it the load is lenient towards failures
    :param sample: called at each ``sample_every`` commands and at the end, in a thread; what it raises ends the load
    """

    def __init__(
        self,
        port: int,
        accounts: Sequence[Account],
        *,
        seed: int,
        commands: int,
        seconds: float = 600.0,
        actors: int = 40,
        trouble: Trouble | None = None,
        sample: Callable[[], object] | None = None,
        sample_every: int = 500,
    ) -> None:
        self.ledger = Ledger()
        self._port = port
        self._accounts = accounts
        self._seed = seed
        self._commands = commands
        self._seconds = seconds
        self._actors = actors
        self._trouble = trouble
        self._sample = sample
        self._sample_every = sample_every
        self._over = False

    def run(self) -> Ledger:
        """Run it, in a loop of its own.

        :raise Violation: somebody was sent what is not theirs.
        """
        asyncio.run(self._run())
        return self.ledger

    async def _run(self) -> None:
        tasks = [asyncio.create_task(self._act(number)) for number in range(self._actors)]
        if self._trouble is not None:
            tasks.append(asyncio.create_task(self._regularly(self._trouble.strike, TROUBLE_EVERY)))
        if self._sample is not None:
            tasks.append(asyncio.create_task(self._regularly(self._sample, self._sample_every)))
        asyncio.get_running_loop().call_later(self._seconds, self._stop)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            self._stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._trouble is not None:
                self._trouble.end()
        if self._sample is not None:
            self._sample()

    def _stop(self) -> None:
        self._over = True

    async def _regularly(self, what: Callable[[], object], every: int) -> None:
        """Call it whenever so many more commands have been sent."""
        due = every
        while not self._over:
            if self.ledger.commands >= due:
                due += every
                await asyncio.to_thread(what)
            else:
                await asyncio.sleep(0.02)

    async def _act(self, actor: int) -> None:
        """One client after the other; often the same user again, at once: an heir of what the last one left behind."""
        chance = Random(f"{self._seed}/{actor}")
        account = chance.choice(self._accounts)
        number = 0
        while not self._over:
            number += 1
            if chance.random() < 0.3:
                account = chance.choice(self._accounts)
            try:
                await self._visit(account, Random(f"{self._seed}/{actor}/{number}"))
            except Violation as violation:
                violation.add_note(f"seed {self._seed}, actor {actor}, session {number}, user {account.name.decode()}")
                raise
            if self.ledger.commands >= self._commands:
                self._stop()

    async def _visit(self, account: Account, random: Random) -> None:
        own = new_mark(random)
        witness = Witness(own, lenient=self._trouble is not None)
        client = await Client.connect(self._port, witness, narrow=random.random() < 0.1)
        self.ledger.sessions += 1
        try:
            async with asyncio.timeout(SESSION_SECONDS):
                await Session(client, account, own, random, self.ledger).run()
        except Ended:
            pass
        except TimeoutError:
            raise witness.violation("somebody was forgotten: no answer, and no end") from None
        finally:
            client.end()


# --- before and after --------------------------------------------------------------------------------------


_tags = itertools.count(1)
_NUMBER = re.compile(rb"\r\nMessage-ID: <([^@>]+)@")


async def _ask(client: Client, account: Account, verb: bytes, line: bytes, *needs: Need) -> None:
    tag = b"%b.%d" % (account.mark, next(_tags))
    command = Command(tag, verb, line, needs=set(needs), mark=account.mark)
    await client.send(b"%b %b\r\n" % (tag, line), command)
    await client.answered(command)


async def _direct(server: Server, account: Account) -> Client:
    """A logged-in connection to the server itself."""
    client = await Client.connect(server.port, Witness(account.mark))
    await client.hear()
    await _ask(client, account, b"LOGIN", b"LOGIN %b %b" % (account.name, account.password))
    return client


async def _for_each(accounts: Sequence[Account], what: Callable[[Account], Awaitable[None]]) -> None:
    await asyncio.gather(*map(what, accounts))


def furnish(server: Server, accounts: Sequence[Account]) -> None:
    """Add the users, and give each of them two mailboxes with marked mail."""

    async def one(account: Account) -> None:
        client = await _direct(server, account)
        for box in account.mailboxes:
            await _ask(client, account, b"CREATE", b"CREATE " + box)
            messages = [account.message(b"first.%d" % number) for number in range(1, AT_FIRST)]
            messages.append(account.message(b"first.%d" % AT_FIRST, LARGE))
            literals = b" ".join(b"(%b) {%d+}\r\n%b" % (account.mark, len(each), each) for each in messages)
            await _ask(client, account, b"APPEND", b"APPEND %b %b" % (box, literals))
        client.end()

    for account in accounts:
        server.add_user(account.name.decode(), account.password.decode())
    asyncio.run(_for_each(accounts, one))


def sweep(server: Server, accounts: Sequence[Account], ledger: Ledger) -> None:
    """Look at the server itself: every mailbox holds its owner's mail only, and each acknowledged message once."""

    async def one(account: Account) -> None:
        client = await _direct(server, account)
        stored: Counter[bytes] = Counter()
        for box in account.mailboxes:
            text = client.kept = bytearray()
            await _ask(client, account, b"EXAMINE", b"EXAMINE " + box)
            await _ask(client, account, b"FETCH", b"FETCH 1:* (FLAGS BODY.PEEK[])", Need(b"FETCH", account.mark))
            numbers = _NUMBER.findall(text)
            assert text.count(b"X-Owner: " + account.mark) == len(numbers), f"strange mail in {box!r}"
            stored.update(number for number in numbers if not number.startswith(b"first."))
        client.end()
        twice = [number for number, times in stored.items() if times > 1]
        assert not twice, f"stored more than once: {twice}"
        missing = ledger.acknowledged[account.mark] - stored.keys()
        assert not missing, f"acknowledged and not stored: {missing}"

    asyncio.run(_for_each(accounts, one))
