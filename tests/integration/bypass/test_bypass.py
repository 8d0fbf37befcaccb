"""No dialogue gets round a plugin, and most of them would reach their goal if there were none (THREATS A49)."""

from __future__ import annotations

import base64

import pytest

from tests.integration.bypass import mail, store
from tests.integration.bypass.attempts import Outcome
from tests.integration.bypass.conftest import AttemptsOn
from tests.integration.bypass.table import GOALS, SERVERS, Dialogue, load
from tests.integration.wire import Wire, connect, quoted

DIALOGUES = [dialogue for goal in GOALS for dialogue in load(goal)]
WORKING = [(name, dialogue) for name in SERVERS for dialogue in DIALOGUES if name in dialogue.works]
FEWEST = {"readonly": 35, "organise": 12, "folder_acl": 25}
FEWEST_WORKING = {"readonly": 30, "organise": 12, "folder_acl": 25}

each_server = pytest.mark.parametrize("server_name", SERVERS)


def _id(value: object) -> str:
    return f"{value.goal}-{value.name}" if isinstance(value, Dialogue) else str(value)


def _said(outcome: Outcome) -> str:
    return "\n".join((*outcome.reached[:20], outcome.transcript))


@each_server
@pytest.mark.parametrize("dialogue", DIALOGUES, ids=_id)
def test_no_dialogue_gets_round_the_plugins(guarded: AttemptsOn, server_name: str, dialogue: Dialogue) -> None:
    """Nothing is changed, nothing taken away, and nothing shown, not even by a refusal."""
    outcome = guarded(server_name).outcome(dialogue)
    assert outcome.ended, _said(outcome)
    assert outcome.reached == [], _said(outcome)
    if dialogue.goal == "folder_acl":
        assert mail.shows(outcome.answers) == "", _said(outcome)


@pytest.mark.parametrize(("server_name", "dialogue"), WORKING, ids=_id)
def test_without_plugins_they_reach_their_goal(unguarded: AttemptsOn, server_name: str, dialogue: Dialogue) -> None:
    """A dialogue that says it works does, so that it is the plugin that stops it, and the comparison that notices."""
    outcome = unguarded(server_name).outcome(dialogue)
    assert outcome.ended, _said(outcome)
    assert outcome.reached != [], _said(outcome)


@pytest.mark.parametrize("goal", GOALS)
def test_there_are_enough_dialogues(goal: str) -> None:
    """There are as many as the project asks for, and enough of them would work."""
    chosen = [dialogue for dialogue in DIALOGUES if dialogue.goal == goal]
    assert len(chosen) >= FEWEST[goal]
    assert len([dialogue for dialogue in chosen if dialogue.works]) >= FEWEST_WORKING[goal]


def _plain(authzid: str, user: str, password: str) -> bytes:
    return base64.b64encode("\0".join((authzid, user, password)).encode())


@each_server
@pytest.mark.parametrize("by", ["LOGIN", "PLAIN"])
@pytest.mark.parametrize("spelled", ["{}", "{} ", " {}", "\t{}", "UPPER", "Title"], ids=lambda spelled: repr(spelled))
def test_nobody_becomes_another_by_a_spelling(guarded: AttemptsOn, server_name: str, by: str, spelled: str) -> None:
    """However a server lets a user spell the name, the plugins that concern it do."""
    attempts = guarded(server_name)
    user, before = attempts.account("readonly")
    name = {"UPPER": user.name.upper(), "Title": user.name.title()}.get(spelled) or spelled.format(user.name)
    with connect(attempts.gate.host, attempts.gate.port) as wire:
        login = (
            b"LOGIN %b %b" % (quoted(name), quoted(user.password))
            if by == "LOGIN"
            else b"AUTHENTICATE PLAIN " + _plain("", name, user.password)
        )
        if b" OK " in wire.command(login)[-1]:
            wire.ok(b"SELECT INBOX")
            wire.command(b"STORE 1 +FLAGS (\\Flagged)")
        else:
            assert spelled != "{}"
        wire.logout()
    assert store.changed(before, store.read(user)) == []


def _wire(attempts_on: AttemptsOn, server_name: str, goal: str) -> Wire:
    attempts = attempts_on(server_name)
    user, _ = attempts.account(goal)
    return user.wire(attempts.gate.port)


@each_server
def test_reading_works_as_usual(guarded: AttemptsOn, server_name: str) -> None:
    """Under level `none` everything that only reads is done."""
    with _wire(guarded, server_name, "readonly") as wire:
        wire.ok(b"STATUS Work (MESSAGES)")
        assert b"[READ-ONLY]" in wire.ok(b"SELECT INBOX")[-1]
        assert b"meet at 3:30" in b"".join(wire.ok(b"FETCH 2 BODY[]"))
        assert b"* SEARCH 1 2 3 4\r\n" in wire.ok(b"UID SEARCH ALL")
        assert len([line for line in wire.ok(b'LIST "" *') if line.startswith(b"* LIST")]) > 4
        wire.ok(b"CLOSE")


@each_server
def test_mail_can_be_put_in_order(guarded: AttemptsOn, server_name: str) -> None:
    """Under level `organise` flags, copies, new messages and new folders are let pass."""
    with _wire(guarded, server_name, "organise") as wire:
        wire.ok(b"SELECT INBOX")
        wire.ok(b"STORE 1 +FLAGS (\\Flagged)")
        wire.ok(b"STORE 3 -FLAGS (\\Deleted)")
        wire.ok(b"CREATE New")
        wire.ok(b"COPY 1 New")
        wire.ok(b"APPEND New (\\Seen) {14+}\r\nSubject: new\r\n")
        assert any(b"MESSAGES 2" in line for line in wire.ok(b"STATUS New (MESSAGES)"))
        wire.ok(b"CLOSE")


@each_server
def test_what_is_not_hidden_is_seen(guarded: AttemptsOn, server_name: str) -> None:
    """Under `folder_acl` the other folders are listed, read and changed."""
    with _wire(guarded, server_name, "folder_acl") as wire:
        listed = b"".join(wire.ok(b'LIST "" *'))
        assert all(folder in listed for folder in (b"INBOX", b"Work/Sub", b"Attic"))
        wire.ok(b"SELECT Work/Sub")
        assert b"meet at 3:30" in b"".join(wire.ok(b"FETCH 1 BODY[]"))
        wire.ok(b"MOVE 1 Work")
        wire.ok(b"RENAME Empty Full")


@each_server
def test_the_gates_logs_hold_no_traceback(guarded: AttemptsOn, unguarded: AttemptsOn, server_name: str) -> None:
    """No dialogue brings about an exception in a gate."""
    for on in (guarded, unguarded):
        on(server_name).finish()
        log = on(server_name).gate.log()
        assert "imapgate" in log
        words = ("Traceback", "Unhandled", "critical")
        assert [line for line in log.splitlines() if any(word in line for word in words)] == [], log[-20_000:]
