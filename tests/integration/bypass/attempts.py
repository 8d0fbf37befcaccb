"""Plays the dialogues through one gate, several at a time, and says what each of them reached.

A dialogue finds an account as :mod:`mail` fills it.  One that left everything as it was leaves its account to the next.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import count
from typing import NamedTuple

from tests.integration.bypass import mail, store
from tests.integration.bypass.store import Store
from tests.integration.bypass.table import Dialogue
from tests.integration.conftest import User, new_user
from tests.integration.gate import Gate
from tests.integration.parity.player import Account, Transcript, play
from tests.integration.servers import Server

AT_ONCE = 4
_REFUSAL = re.compile(rb"[^*+ ]+ (?:NO|BAD) ")
_numbers = count(1)


class Outcome(NamedTuple):
    """What became of one dialogue."""

    reached: list[str]
    """What it changed, took away or was shown, as far as that was its goal."""
    ended: bool
    """Whether everything came that it waited for."""
    answers: bytes
    """All that the client was sent."""
    transcript: str


class Attempts:
    """The attempts on one server through one gate."""

    def __init__(self, server: Server, gate: Gate) -> None:
        self._server = server
        self.gate = gate
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=f"bypass-{server.name}")
        self._outcomes: dict[tuple[str, str], Future[Outcome]] = {}
        self._lock = threading.Lock()
        self._users: dict[str, list[User]] = defaultdict(list)
        self._accounts: dict[str, list[tuple[User, Store]]] = defaultdict(list)

    def close(self) -> None:
        """Wait for what is being played; drop what was not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self, dialogues: Iterable[Dialogue]) -> None:
        """Let the threads play these."""
        new = [dialogue for dialogue in dialogues if (dialogue.goal, dialogue.name) not in self._outcomes]
        for dialogue in new:  # before the threads log in anywhere, since servers do not expect both at once
            self._users[dialogue.goal].append(self._user(dialogue.goal))
        for dialogue in new:
            self._outcomes[dialogue.goal, dialogue.name] = self._pool.submit(self._outcome, dialogue)

    def finish(self) -> None:
        """Wait for everything that was begun."""
        wait(self._outcomes.values())

    def outcome(self, dialogue: Dialogue) -> Outcome:
        """What became of it; it is played now if it was not yet."""
        self.begin([dialogue])
        return self._outcomes[dialogue.goal, dialogue.name].result(timeout=120)

    def _outcome(self, dialogue: Dialogue) -> Outcome:
        user, before = self.account(dialogue.goal)
        transcript = play(dialogue.case, Account(self.gate.host, self.gate.port, user.name, user.password))
        after = store.read(user)
        if after == before:
            with self._lock:
                self._accounts[dialogue.goal].append((user, before))
        answers = [answer for _, told in transcript.sections for answer in told]
        reached = _reached(dialogue.goal, before, after, answers)
        return Outcome(reached, not transcript.timed_out, b"".join(answers), _text(transcript))

    def account(self, goal: str) -> tuple[User, Store]:
        """Take an account that nobody has changed, and what it holds."""
        with self._lock:
            if free := self._accounts[goal]:
                return free.pop()
            user = self._users[goal].pop() if self._users[goal] else self._user(goal)
        with user.wire() as wire:
            mail.seed(wire, hidden=goal == "folder_acl")
            wire.logout()
        return user, store.read(user)

    def _user(self, goal: str) -> User:
        """A new user, whose name says which plugin is for it."""
        return new_user(self._server, f"{goal}{next(_numbers)}")


def _reached(goal: str, before: Store, after: Store, answers: list[bytes]) -> list[str]:
    if goal == "readonly":
        return store.changed(before, after)
    if goal == "organise":
        return store.lost(before, after)
    hidden = [change for change in store.changed(before, after) if mail.shows(change.encode())]
    # A refusal repeats what the client has said.
    shown = mail.shows(b"".join(answer for answer in answers if not _REFUSAL.match(answer)))
    return [*hidden, f"shown: …{shown}…"] if shown else hidden


def _text(transcript: Transcript) -> str:
    lines = []
    for step, answers in transcript.sections:
        lines.append(step)
        lines += (f"    {answer.decode('utf-8', 'backslashreplace').rstrip()}" for answer in answers)
    return "\n".join(lines)
