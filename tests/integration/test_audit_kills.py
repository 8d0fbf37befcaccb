"""The gate is killed under load, and started anew on the same audit file: nothing acknowledged is missing (F14)."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.integration.audited import (
    Caller,
    Record,
    audit,
    files,
    invalid,
    of,
    records,
    trail_of,
    unrecorded,
    until_closed,
    whole,
)
from tests.integration.conftest import User
from tests.integration.gate import Gate, upstream_of
from tests.integration.servers import Dovecot, wait_until
from tests.integration.wire import Wire, WireClosed, connect

NewUser = Callable[..., User]

SAMPLE, SOAK = 10, 200
CLIENTS = 4
BODY = b"From: a@example.org\r\nSubject: load\r\n\r\n" + b"a line of text\r\n" * 60
ROUNDS = [
    (b"FETCH 1 (FLAGS BODY[])", b"UID FETCH 1:* FLAGS"),
    (b"FETCH 1:* ENVELOPE", b"NOOP", b"FETCH 1:* FAST", b"SEARCH SEEN"),
    (b"STORE 1:2 +FLAGS (\\Deleted)", b"EXPUNGE"),
    (b"UID STORE 1:* -FLAGS.SILENT (\\Seen)", b"STORE 1 FLAGS (\\Answered)"),
    (b"COPY 1 Copies", b"UID COPY 1:* Copies"),
    (b"STATUS Copies (MESSAGES)", b"EXAMINE Copies", b"FETCH 1:* BODY.PEEK[HEADER]", b"SELECT INBOX"),
]
"""What is sent in one write."""


class Life:
    """One process of the gate, and its clients, from their first command to its end."""

    def __init__(self, gate: Gate, users: list[User], number: int, random: Random) -> None:
        self.callers: list[Caller] = []
        self.failures: list[BaseException] = []
        self._threads = []
        for client in range(CLIENTS):
            caller = Caller(connect(gate.host, gate.port), b"k%dc%d" % (number, client))
            self.callers.append(caller)
            arguments = (caller, users[client % len(users)], Random(random.random()))
            self._threads.append(threading.Thread(target=self._work, args=arguments))

    def run(self, answers: int) -> None:
        """Let the clients work until they have seen so many completions."""
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.answers >= answers or self.failures, f"{answers} answers", 30)

    @property
    def answers(self) -> int:
        """How many completions all clients have seen."""
        return sum(caller.answered for caller in self.callers)

    def _work(self, caller: Caller, user: User, random: Random) -> None:
        try:
            caller.wire.login(user.name, user.password)
            caller.give(b"SELECT INBOX")
            until_closed(lambda: _round(caller, random))
        except WireClosed:
            """It was killed before that."""
        except BaseException as failure:
            self.failures.append(failure)

    def over(self) -> None:
        """The process is gone: take what the clients were told before, and look whether anything else went wrong."""
        for thread in self._threads:
            thread.join(30)
        for caller in self.callers:
            caller.hang_up()
        assert not self.failures, self.failures


def _round(caller: Caller, random: Random) -> None:
    if random.random() < 0.4:
        caller.append(b"INBOX", BODY, plus=random.random() < 0.5)
    else:
        caller.give(*random.choice(ROUNDS))


def _tear(path: Path) -> bytes:
    """Leave half a line behind the last one, as a machine does that loses its power."""
    half = path.read_bytes().splitlines()[-1][:99]
    with path.open("ab") as file:
        file.write(half)
    return half


def _kills(dovecot: Dovecot, user: NewUser, kills: int, seed: int) -> None:
    random = Random(seed)
    users = [user(dovecot) for _ in range(2)]
    for someone in users:
        with someone.wire() as wire:
            wire.ok(b"CREATE Copies")
            wire.command_with_literals(b"APPEND INBOX", BODY)
    lives: list[Life] = []
    torn: dict[int, bytes] = {}
    with Gate({"main": upstream_of(dovecot)}, authority=dovecot.authority, **audit("durable")) as gate:
        path = trail_of(gate)
        for number in range(kills):
            life = Life(gate, users, number, random)
            lives.append(life)
            life.run(random.randrange(2, 120))
            gate.kill()
            life.over()
            if number % 3 == 2:
                torn[number + 1] = _tear(path)
            gate.start()
        connect(gate.host, gate.port).close()  # it serves, and takes signals
        assert gate.stop() == 0
        assert "Traceback" not in gate.log()
        trail = records(path)
        aside = [each for each in files(path) if each != path]
        whole(path, *aside)
        assert sorted(each.read_bytes() for each in aside) == sorted(torn.values())
    _check_chains(trail, kills, torn)
    _check_clients(trail, lives)
    assert not invalid(trail)
    outcomes = Counter(record["event"] for record in trail)
    print(f"\n{kills} kills: {sum(life.answers for life in lives)} completions seen; {dict(outcomes)}")


def _check_chains(trail: list[Record], kills: int, torn: dict[int, bytes]) -> None:
    """One chain for each process, numbered from 1 without a hole; each but the first tells of the gap before it."""
    chains = [list(group) for _, group in itertools.groupby(trail, lambda record: record["chain"])]
    assert len(chains) == len({chain[0]["chain"] for chain in chains}) == kills + 1
    for number, chain in enumerate(chains):
        assert [record["seq"] for record in chain] == list(range(1, len(chain) + 1))
        gaps = of(chain, "audit.gap")
        assert len(gaps) == bool(number)
        for gap in gaps:
            assert gap["seq"] == 1
            assert gap["previous"] == chains[number - 1][-1]["hash"]
            assert ("torn" in gap["gap.reason"]) is (number in torn)
    assert chains[-1][-1]["reason"] == "stopped"


def _check_clients(trail: list[Record], lives: list[Life]) -> None:
    """Every OK that a client saw is in the trail, under its session: logins, too."""
    callers = [caller for life in lives for caller in life.callers]
    recorded = [caller for caller in callers if caller.acknowledged]
    missing = [
        each
        for each in unrecorded(callers, trail)
        if not each[1].startswith((b"NOOP", b"STATUS"))  # which are no events
    ]
    assert not missing, f"seen and not recorded: {missing[:10]}"
    logins = {record["client.port"] for record in of(trail, "auth.success")}
    assert {caller.port for caller in callers if _logged_in(caller.wire)} <= logins
    assert len(recorded) > len(lives)


def _logged_in(wire: Wire) -> bool:
    return b"\r\nw1 OK " in wire.transcript


def test_f14_ten_kills(dovecot: Dovecot, user: NewUser) -> None:
    """10 times kill -9 under load: every OK that a client saw is in the trail, and the trail is whole."""
    _kills(dovecot, user, SAMPLE, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 6))
def test_f14_two_hundred_kills(dovecot: Dovecot, user: NewUser, seed: int) -> None:
    """200 of them, on 4 files."""
    _kills(dovecot, user, SOAK // 4, seed)
