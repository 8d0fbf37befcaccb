"""Runs the cases on both sides of one server, several at a time, and keeps the outcomes.

Both sides of a case begin with a fresh user each, seeded directly in the same way.  Cases are independent of each
other, so they are played by a few threads; tests then ask for outcomes one by one.
"""

from __future__ import annotations

import difflib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Protocol

from tests.integration.parity.dialogue import Case, load
from tests.integration.parity.differences import Comparison, Difference, compare, read
from tests.integration.parity.normal import lines
from tests.integration.parity.player import Account, Transcript, play
from tests.integration.parity.seeds import SEEDS
from tests.integration.wire import Wire, connect

HERE = Path(__file__).parent
CASES = load(HERE / "dialogues")
DIFFERENCES = read(HERE / "differences.toml")
AT_ONCE = 6
"""Cases played at the same time on one server."""

_users = count(1)


Login = tuple[str, str]
"""A user's name and password."""
Played = tuple[Transcript, Account]
"""What came of a case, and as whom it was played."""


class Server(Protocol):
    """What the suite needs of a mail server."""

    name: str
    host: str
    port: int

    def add_user(self, user: str, password: str) -> None:
        """Make an account with an empty INBOX."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case on one server; `applies` is False where the server lacks what the case is about."""

    applies: bool
    direct: list[str] = field(default_factory=list)
    gate: list[str] = field(default_factory=list)
    timed_out: bool = False
    needed: frozenset[int] = frozenset()
    unlisted: str = ""

    @property
    def equal(self) -> bool:
        """Whether nothing differs but what is listed, and the direct dialogue went to its end."""
        return not self.unlisted and not self.timed_out


@dataclass(frozen=True, slots=True)
class Facts:
    """What was learned of a server by asking it directly."""

    capabilities: frozenset[str]
    before_login: frozenset[str]
    prefix: str
    separator: str

    @property
    def translate(self) -> frozenset[str]:
        """What the gate offers and this server lacks."""
        return frozenset({"LITERAL+", "SASL-IR"} - (self.before_login | self.capabilities))


def _namespace(wire: Wire) -> tuple[str, str]:
    for response in wire.ok(b"NAMESPACE"):
        if response.upper().startswith(b"* NAMESPACE (("):
            prefix, separator = response.split(b'"')[1], response.split(b'"')[3]
            return prefix.decode(), separator.decode()
    raise AssertionError("no personal namespace")


def learn(server: Server) -> Facts:
    """Ask the server directly what it offers."""
    user, password = new_user(server)
    wait_for_user(server, (user, password))
    with connect(server.host, server.port) as wire:
        before = {word.decode().upper() for word in wire.capabilities()}
        wire.login(user, password)
        after = {word.decode().upper() for word in wire.capabilities()}
        prefix, separator = _namespace(wire)
        wire.logout()
    return Facts(
        frozenset(after | {word for word in before if word.startswith("AUTH=")}), frozenset(before), prefix, separator
    )


def new_user(server: Server) -> Login:
    """A fresh account, its name always of one length."""
    user, password = f"parity{next(_users):05d}", "Secret-1"
    server.add_user(user, password)
    return user, password


def wait_for_user(server: Server, user: Login) -> None:
    """Wait until this user can log in: Dovecot looks at its file of users at most once a second."""
    for _ in range(100):
        with connect(server.host, server.port) as wire:
            if b" OK" in wire.command(f"LOGIN {user[0]} {user[1]}".encode())[-1]:
                wire.logout()
                return
        time.sleep(0.05)
    raise AssertionError(f"{user[0]} cannot log in")


class Suite:
    """All cases on one server, through the gate at `gate_host`:`gate_port`."""

    def __init__(self, server: Server, gate_host: str, gate_port: int, cases: list[Case] = CASES) -> None:
        self.server = server
        self.facts = learn(server)
        self.cases = {case.name: case for case in cases}
        self._gate = (gate_host, gate_port)
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=f"parity-{server.name}")
        self._outcomes: dict[str, Future[Outcome]] = {}

    def close(self) -> None:
        """Wait for the threads; drop what was not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self, names: list[str]) -> None:
        """Let the threads play these cases."""
        # Accounts are made here, since servers do not expect two threads to add users.
        users: dict[str, tuple[Login, Login]] = {}
        for name in names:
            if name in self._outcomes:
                continue
            if self.cases[name].applies(self.server.name, self.facts.capabilities):
                users[name] = new_user(self.server), new_user(self.server)
            else:
                self._outcomes[name] = Future()
                self._outcomes[name].set_result(Outcome(applies=False))
        if not users:
            return
        wait_for_user(self.server, users[next(reversed(users))][1])
        for name, pair in users.items():
            self._outcomes[name] = self._pool.submit(self._outcome, self.cases[name], *pair)

    def outcome(self, name: str) -> Outcome:
        """The outcome of one case, played now if it was not yet."""
        self.begin([name])
        return self._outcomes[name].result(timeout=300)

    def differences(self, name: str) -> list[Difference]:
        """The listed differences that concern this case here."""
        return [entry for entry in DIFFERENCES if entry.concerns(name, self.server.name)]

    def compared(self, case: Case, direct: Played, gate: Played) -> Comparison:
        """Both sides, as they are to be compared."""
        return compare(lines(*direct, case), lines(*gate, case), self.differences(case.name))

    def _play(self, case: Case, user: Login, host: str, port: int, translate: frozenset[str]) -> Played:
        account = Account(self.server.host, self.server.port, *user, self.facts.prefix, self.facts.separator)
        with connect(account.host, account.port) as wire:
            wire.login(*user)
            SEEDS[case.seed](wire, lambda name: self.facts.prefix + name.replace("/", self.facts.separator))
            wire.logout()
        account = replace(account, host=host, port=port, translate=translate)
        return play(case, account), account

    def _outcome(self, case: Case, user: Login, other_user: Login) -> Outcome:
        direct = self._play(case, user, self.server.host, self.server.port, self.facts.translate)
        is_gate = self._gate != (self.server.host, self.server.port)
        translate = frozenset[str]() if is_gate else self.facts.translate
        gate = self._play(case, other_user, *self._gate, translate)
        found = self.compared(case, direct, gate)
        diff = difflib.unified_diff(found.direct, found.gate, "direct", "gate", n=100, lineterm="")
        return Outcome(
            True, lines(*direct, case), lines(*gate, case), direct[0].timed_out, found.needed, "\n".join(diff)
        )
