"""Plays the dialogues through one gate, several at a time, and says what each of them reached.

A dialogue finds an account as :mod:`mail` fills it.  One that left everything as it was leaves its account to the next.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
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
_numbers = count(1)


class Outcome(NamedTuple):
    """What became of one dialogue."""

    reached: list[str]
    """What it changed, took away or was shown, as far as that was its goal."""
    ended: bool
    """Whether everything came that it waited for."""
    transcript: str


class Attempts:
    """The attempts on one server through one gate."""

    def __init__(self, server: Server, gate: Gate) -> None:
        self._server = server
        self._gate = gate
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=f"bypass-{server.name}")
        self._outcomes: dict[tuple[str, str], Future[Outcome]] = {}
        self._lock = threading.Lock()
        self._accounts: dict[str, list[tuple[User, Store]]] = {}

    def close(self) -> None:
        """Wait for what is being played; drop what was not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self, dialogues: Iterable[Dialogue]) -> None:
        """Let the threads play these."""
        for dialogue in dialogues:
            if (dialogue.goal, dialogue.name) not in self._outcomes:
                self._outcomes[dialogue.goal, dialogue.name] = self._pool.submit(self._outcome, dialogue)

    def outcome(self, dialogue: Dialogue) -> Outcome:
        """What became of it; it is played now if it was not yet."""
        self.begin([dialogue])
        return self._outcomes[dialogue.goal, dialogue.name].result(timeout=120)

    def _outcome(self, dialogue: Dialogue) -> Outcome:
        user, before = self._account(dialogue.goal)
        transcript = play(dialogue.case, Account(self._gate.host, self._gate.port, user.name, user.password))
        after = store.read(user)
        if after == before:
            with self._lock:
                self._accounts[dialogue.goal].append((user, before))
        return Outcome(_reached(dialogue.goal, before, after, transcript), not transcript.timed_out, _text(transcript))

    def _account(self, goal: str) -> tuple[User, Store]:
        """Take an account that nobody has changed; the plugins know whom they concern by its name."""
        with self._lock:
            if free := self._accounts.setdefault(goal, []):
                return free.pop()
            user = new_user(self._server, f"{goal}.{next(_numbers)}")
        with user.wire() as wire:
            mail.seed(wire, hidden=goal == "folder_acl")
            wire.logout()
        return user, store.read(user)


def _reached(goal: str, before: Store, after: Store, transcript: Transcript) -> list[str]:
    if goal == "readonly":
        return store.changed(before, after)
    if goal == "organise":
        return store.lost(before, after)
    hidden = [change for change in store.changed(before, after) if mail.shows(change.encode())]
    shown = mail.shows(b"".join(answer for _, answers in transcript.sections for answer in answers))
    return [*hidden, f"shown: …{shown}…"] if shown else hidden


def _text(transcript: Transcript) -> str:
    lines = []
    for step, answers in transcript.sections:
        lines.append(step)
        lines += (f"    {answer.decode('utf-8', 'backslashreplace').rstrip()}" for answer in answers)
    return "\n".join(lines)
