"""The tables, cell by cell: every one is reached by a conversation, and none is missing."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest

from imapgate.limits import DEFAULTS
from imapgate.model.failure import ANSWERS, Failure
from imapgate.model.pool_mode import PoolMode
from imapgate.session import intake, relay, session, states, uplink
from imapgate.session.login import Terms
from imapgate.session.states import CONNECTION, HEAD, SENDING, Connection, Sending
from tests.session import playbook
from tests.session.playbook import Way

Cell = tuple[Enum, Enum]
LINES = (Way.LINES,)
STARTTLS = Terms(starttls=True, login=True)


class Visited(dict[Cell, Any]):
    """A table that remembers which of its cells were looked up."""

    def __init__(self, table: dict[Any, Any], seen: set[Cell]) -> None:
        super().__init__(table)
        self._seen = seen

    def __getitem__(self, cell: Cell) -> Any:
        found = super().__getitem__(cell)
        self._seen.add(cell)
        return found


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[Cell]:
    """The cells that are looked up during a test."""
    found: set[Cell] = set()
    monkeypatch.setattr(uplink, "HEAD", Visited(HEAD, found))
    monkeypatch.setattr(intake, "SENDING", Visited(SENDING, found))
    for module in (relay, session):
        monkeypatch.setattr(module, "CONNECTION", Visited(CONNECTION, found))
    return found


RELEASED = "-> client lost\n<- release\n<- close client\n"
LIMIT = ANSWERS[Failure.LIMIT][2].decode()
CLOSED = "-> client lost\n<- close upstream\n<- close client\n"
ASKED = "C: a APPEND x {1}\nU> g1 APPEND x {1}\n"
FLOWING = f"{ASKED}U< +\nC> +\n"


def _in_turn(*steps: tuple[str, str]) -> str:
    """Commands given and answered one after the other."""
    return "".join(
        f"C: a {verb}\nU> g{number} {verb}\nU< g{number} {answer}\nC> a {answer}\n"
        for number, (verb, answer) in enumerate(steps, 1)
    )


REFRESHING = "C: a IDLE\nU> g1 IDLE\nU< +\nC> +\n-> tick IDLE refresh\nU> DONE\n"
REFRESHED = f"{REFRESHING}U< g1 OK\nU> g2 IDLE\n"

BEFORE = {
    "STARTTLS, cut in the handshake": f"C: a STARTTLS\nC> a OK Begin TLS now\n<- starttls client\n{CLOSED}",
    "STARTTLS, TLS": "C: a STARTTLS\nC> a OK Begin TLS now\n<- starttls client\n-> tls\n== not authenticated\n",
    "a login, and its end": f"""C: a AUTHENTICATE PLAIN AHUAcA==
        <- ask PLAIN u p
        -> granted IMAP4rev1
        C> a OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID] Logged in
        {RELEASED}""",
    "a SASL dialogue": "C: a AUTHENTICATE PLAIN\nC> +<SP>\nC: *\nC> a BAD Authentication cancelled\n",
    "a SASL dialogue that is cut": f"C: a AUTHENTICATE PLAIN\nC> +<SP>\n{CLOSED}",
    "a literal": "C: a LOGIN {1+}\nC: u p\n<- ask LOGIN u p\n",
    "a literal that is cut": f"C: a LOGIN {{5}}\nC> + OK\n{CLOSED}",
    "a swallowed literal": "C: a X {5+}\nC: 12345\nC> a BAD Unknown command X\n",
    "a swallowed literal that is cut": f"C: a X {{5+}}\n{CLOSED}",
}
AFTER = {
    "selecting": _in_turn(
        ("SELECT x", "OK"),
        ("EXAMINE x", "OK"),
        ("SELECT y", "NO"),
        ("SELECT y", "NO"),
        ("UNSELECT", "OK"),
        ("SELECT x", "OK"),
        ("CLOSE", "OK"),
        ("SELECT x", "OK"),
    )
    + f"== selected\n{RELEASED}".replace("release", "release selected"),
    "messages": f"{FLOWING}C: 1 {{1}}\nU> 1 {{1}}\nU< +\nC> +\nC: 2\nU> 2\n",
    "a message that is refused": f"{ASKED}U< g1 NO\nC> a NO\n",
    "a message that was sent unasked and is refused": f"{ASKED}U< g1 NO\nC> a NO\n".replace("1}", "1+}", 1),
    "a message answered while it flows": f"{FLOWING}U< g1 NO\nC> a NO\nC: 1\nU> 1\n",
    "a message, asked for, cut": ASKED + CLOSED,
    "a message, flowing, cut": FLOWING + CLOSED,
    "literals upstream": """C: a RENAME {1+}
        C: <xE4> {1+}
        C: <xE4>
        U> g1 RENAME {1}
        U< +
        U> <xE4> {1}
        U< +
        U> <xE4>
        """,
    "a literal upstream that is refused": "C: a SELECT {1+}\nC: <xE4>\nU> g1 SELECT {1}\nU< g1 NO\nC> a NO\n",
    "IDLE": "C: a IDLE\nU> g1 IDLE\nU< +\nC> +\nC: DONE\nU> DONE\nU< g1 OK\nC> a OK\n",
    "IDLE that is refused": "C: a IDLE\nU> g1 IDLE\nU< g1 NO\nC> a NO\n",
    "IDLE that upstream ends": "C: a IDLE\nU> g1 IDLE\nU< +\nC> +\nU< g1 NO\nC> a NO\n",
    "IDLE, begun anew": f"{REFRESHED}U< +\nC: DONE\nU> DONE\nU< g2 OK\nC> a OK\n",
    "IDLE, begun anew and refused": f"{REFRESHED}U< g2 NO\nC> a NO\n",
    "IDLE, ended to be begun anew, and no more": f"{REFRESHING}U< g1 NO\nC> a NO\n",
    "IDLE that is cut": f"C: a IDLE\nU> g1 IDLE\n{CLOSED}",
}
MAILBOX = {
    "a connection for one command": "C: a CREATE x\n<- ask lease\n-> granted IMAP4rev1\nU> g1 CREATE x\n"
    "U< g1 OK\nC> a OK\n<- release\n",
    "no connection": f"C: a CREATE x\n<- ask lease\n-> failed limit\nC> a NO [LIMIT] {LIMIT}\n",
}


def test_every_cell_is_visited(seen: set[Cell]) -> None:
    """Short conversations, all together, look up every cell of the three tables, and no other."""
    for text in BEFORE.values():
        playbook.play(text, terms=STARTTLS, ways=LINES)
    for text in AFTER.values():
        playbook.relay(text, ways=LINES)
    for text in MAILBOX.values():
        playbook.relay(text, mode=PoolMode.MAILBOX, ways=LINES)
    session.ClientSession(DEFAULTS).client_lost()
    assert seen == {*CONNECTION, *SENDING, *HEAD}


@pytest.mark.parametrize("conversation", [*BEFORE, *AFTER, *MAILBOX])
def test_conversations(conversation: str) -> None:
    """The same conversations in every other way of cutting their octets."""
    ways = (Way.CHUNKS, Way.OCTETS)
    if conversation in BEFORE:
        playbook.play(BEFORE[conversation], terms=STARTTLS, ways=ways)
    elif conversation in AFTER:
        playbook.relay(AFTER[conversation], ways=ways)
    else:
        playbook.relay(MAILBOX[conversation], mode=PoolMode.MAILBOX, ways=ways)


@pytest.mark.parametrize("table", [CONNECTION, SENDING, HEAD])
def test_tables_are_closed(table: dict[tuple[Enum, Enum], Enum]) -> None:
    """Every state is reached and, but for the last, left; every event is used."""
    kind = type(next(iter(table.values())))
    first = next(iter(kind))
    assert {first, *table.values()} == set(kind)
    last = {Connection.LOGOUT}
    assert {state for state, _ in table} == set(kind) - last
    events = type(next(iter(table))[1])
    assert {event for _, event in table} == set(events)


def test_stopped_is_stopped() -> None:
    """From NOTHING the client's octets mean nothing again, ever."""
    assert {after for (state, _), after in SENDING.items() if state is Sending.NOTHING} == {Sending.NOTHING}
    assert Connection.LOGOUT not in {state for state, _ in CONNECTION}


def test_members_are_their_own_hash() -> None:
    """Members of the tables' enums are equal, and hash, by identity; their values are told apart."""
    for kind in (states.Connection, states.Sending, states.Head):
        assert len({member: member.value for member in kind}) == len({member.value for member in kind})
