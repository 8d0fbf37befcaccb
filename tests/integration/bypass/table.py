"""The dialogues, as data: reads ``readonly.toml``, ``organise.toml`` and ``folder_acl.toml``.

Knows the form of these files, and nothing of servers.  A dialogue looks like this::

    [[dialogue]]
    name = "examine-then-store"
    works = "cyrus"
    steps = '''
    C: a1 EXAMINE INBOX
    S: a1
    C: a2 STORE 1 +FLAGS (\\Deleted)
    S: a2
    '''

``works`` names the servers on which it reaches its goal where no plugin is in the way: to change something, to take
something away, to show something of the hidden folders.  ``steps`` are in the notation of the parity suite
(``tests/integration/parity/dialogue.py``).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

from tests.integration.parity.dialogue import Case, DialogueError, parse

SERVERS = ("dovecot", "cyrus")
GOALS = ("readonly", "organise", "folder_acl")
"""Files, and what their dialogues try: to change anything, to take anything away, to read what is hidden."""
_KEYS = {"name", "works", "steps"}


class Dialogue(NamedTuple):
    """One attempt."""

    goal: str
    name: str
    works: frozenset[str]
    """The servers where it reaches its goal without plugins."""
    case: Case


def _dialogue(goal: str, entry: dict[str, str]) -> Dialogue:
    where = f"{goal}.toml: {entry.get('name', 'a dialogue without a name')}"
    if entry.keys() != _KEYS:
        raise DialogueError(f"{where}: expected the keys {', '.join(sorted(_KEYS))}, found {', '.join(entry)}")
    works = frozenset(entry["works"].split())
    if not works <= set(SERVERS):
        raise DialogueError(f"{where}: works: expected names among {' '.join(SERVERS)}, found {entry['works']!r}")
    (case,) = parse(f"# {entry['name']}\n{entry['steps']}", where)
    return Dialogue(goal, entry["name"], works, case)


def load(goal: str) -> list[Dialogue]:
    """The dialogues of one file; their names differ."""
    entries = tomllib.loads((Path(__file__).parent / f"{goal}.toml").read_text("utf-8"))["dialogue"]
    found = [_dialogue(goal, entry) for entry in entries]
    if len({dialogue.name for dialogue in found}) < len(found):
        raise DialogueError(f"{goal}.toml: two dialogues have one name")
    return found
