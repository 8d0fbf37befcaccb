"""What operators do to a running gate with clients in it, by `imapgate ctl`.

Where the order of things matters upstream is scripted, and holds an answer back for as long as the test wants.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from imapgate.admin.operator import COMMANDS
from tests.integration.bed import HOST, bed_of
from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, Asked, CtlRefused, ctl, pool, stats
from tests.integration.gate import Gate, gate_for, upstream_of
from tests.integration.operated import HALF, Held, login, rows, two
from tests.integration.scripted import MESSAGE, Command, Conversation, Script
from tests.integration.servers import Cyrus, Dovecot, Server, wait_until
from tests.integration.wire import connect

NewUser = Callable[..., User]
KICKED = b"* BYE [UNAVAILABLE] The operator has ended this session\r\n"
MOVED = b"* BYE [UNAVAILABLE] The mailbox is being moved; log in again\r\n"
TAKEN_OUT = b"* BYE [UNAVAILABLE] The mail server is being taken out of service\r\n"
LOOKING = {"sessions", "pools", "upstreams", "users", "pins", "channels", "stats", "config", "plugins", "audit"}


# -- looking ----------------------------------------------------------------------------------------------------------


def test_looking(dovecot: Dovecot, user: NewUser) -> None:
    """Every command that only looks shows what is there, on both sockets, and no secret (A40)."""
    someone = user(dovecot, password="canary-password-7f3a")
    with ExitStack() as stack:
        gate = stack.enter_context(gate_for(dovecot, upstream={"pool_mode": "mailbox"}, admin=ADMIN))
        selected, unselected = (stack.enter_context(someone.wire(gate.port)) for _ in range(2))
        selected.ok(b"SELECT INBOX")
        unselected.ok(b'LIST "" INBOX')
        wait_until(lambda: pool(gate, someone.name)["idle"] == 1, "an idle connection")
        seen = {name: ctl(gate, name) for name, command in COMMANDS.items() if not command.changes}
        assert seen.keys() == LOOKING
        both = [(row["user"], row["state"], row["bound"], row["commands"]) for row in seen["sessions"]]
        assert both == [(someone.name, "selected", "yes", 2), (someone.name, "authenticated", "no", 2)]
        assert {row["pool_mode"] for row in seen["sessions"]} == {"mailbox"}
        (mine,) = seen["pools"]
        assert (mine["sessions"], mine["leased"], mine["idle"], mine["total"]) == (2, 1, 1, 2)
        (door,) = seen["upstreams"]
        assert (door["upstream"], door["connections"], door["failures"]) == ("dovecot", 2, 0)
        assert seen["users"] == [{"user": someone.name, "sessions": 2, "connections": 2, "moved_to": None}]
        assert seen["pins"] == seen["channels"] == seen["plugins"] == seen["audit"] == []
        figures = {row["name"]: row["value"] for row in seen["stats"]}
        # One for each login, of which one was kept, and one more when that had gone to the first SELECT.
        assert (figures["clients"], figures["upstream_connections"], figures["upstream_dialled"]) == (2, 2, 3)
        configured = {row["key"]: row["value"] for row in seen["config"]}
        assert configured["upstream.dovecot.pool_mode"] == "mailbox"
        assert configured["file"] == str(gate.configuration_file)
        for name, before in seen.items():
            again = ctl(gate, name, by="control-read")
            assert [row.keys() for row in again] == [row.keys() for row in before]
            assert someone.password not in json.dumps(before)


def test_a47_only_the_full_socket_changes_anything(dovecot: Dovecot, user: NewUser) -> None:
    """The socket for reading refuses each command that changes something, and nothing happens (A47)."""
    someone = user(dovecot)
    words = {"kick": [someone.name], "move": [someone.name, "dovecot"], "forget": [someone.name]}
    words["trace"] = [someone.name]
    with gate_for(dovecot, admin=ADMIN) as gate, someone.wire(gate.port) as wire:
        assert Path(gate.directory, "control").stat().st_mode & 0o777 == 0o600
        assert Path(gate.directory, "control-read").stat().st_mode & 0o777 == 0o660
        for name, command in COMMANDS.items():
            if command.changes:
                with pytest.raises(CtlRefused, match=f"this socket is for reading and does not take {name}; "):
                    ctl(gate, name, *words.get(name, []), by="control-read")
        wire.ok(b"SELECT INBOX")
        with someone.wire(gate.port) as other:
            other.ok(b"SELECT INBOX")
        assert "command=" not in gate.log()


def test_the_command_line(dovecot: Dovecot, user: NewUser) -> None:
    """`imapgate ctl` as it is installed: a table, JSON, a refusal with status 1, and no gate there."""
    someone = user(dovecot)

    def run(gate: Gate, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "imapgate"), "ctl", "--control", f"{gate.directory}/control"]
        return subprocess.run([*command, *words], capture_output=True, text=True, timeout=30, check=False)

    with gate_for(dovecot, admin=ADMIN) as gate:
        with someone.wire(gate.port):
            ctl(gate, "stats")  # the socket is there
            told = run(gate, "sessions")
            assert told.returncode == 0
            assert told.stdout.splitlines()[0].split()[:3] == ["session", "user", "address"]
            assert f" {someone.name} " in told.stdout.splitlines()[1]
            told = run(gate, "--json", "users")
            assert json.loads(told.stdout)["user"] == someone.name
            told = run(gate, "move", someone.name, "nowhere")
            assert (told.returncode, told.stderr) == (1, "imapgate ctl: no upstream 'nowhere'; there is dovecot\n")
        assert gate.stop() == 0
        told = run(gate, "sessions")
        assert (told.returncode, told.stdout) == (1, "")
        assert "there is no such socket" in told.stderr


# -- kick -------------------------------------------------------------------------------------------------------------


def test_kick(dovecot: Dovecot, user: NewUser) -> None:
    """One session, or all of a user: each is told BYE, whatever it does; nobody else is, and all may come back."""
    someone, other = user(dovecot), user(dovecot)
    with gate_for(dovecot, admin=ADMIN) as gate:
        first, second, idling, others = (each.wire(gate.port) for each in (someone, someone, someone, other))
        for wire in (second, idling, others):
            wire.ok(b"SELECT INBOX")
        idling.send(b"i IDLE\r\n")
        idling.expect_continuation()
        oldest = rows(gate, "sessions", user=someone.name)[0]["session"]
        assert ctl(gate, "kick", oldest) == [{"kicked": 1}]
        assert first.eof() == KICKED
        second.ok(b"NOOP")
        assert ctl(gate, "kick", someone.name) == [{"kicked": 2}]
        assert second.eof() == KICKED
        assert idling.eof() == KICKED
        with pytest.raises(CtlRefused, match="no session and no user 'nobody' is there"):
            ctl(gate, "kick", "nobody")
        others.ok(b"NOOP")
        someone.wire(gate.port).logout()
        wait_until(lambda: len(ctl(gate, "sessions")) == 1, "the end of the others")
        assert gate.log().count('reason="stopped"') == 3
        others.logout()


def test_kick_in_the_middle_of_a_message() -> None:
    """A client that has half of a message is cut off: no BYE inside the literal, no completion."""
    with bed_of(admin=ADMIN) as bed:
        held = Held()
        bed.answer(FETCH=held)
        wire, name = bed.login()
        held.ask(wire)
        assert ctl(bed.gate, "kick", name.decode()) == [{"kicked": 1}]
        assert wire.eof() == b""
        held.release()


# -- pause, resume, drain ---------------------------------------------------------------------------------------------


def test_pause_and_resume_of_logins(dovecot: Dovecot, cyrus: Cyrus, user: NewUser) -> None:
    """Who has a connection goes on, who logs in waits until it goes on; the other upstream is not concerned."""
    someone, other = user(dovecot), user(cyrus)
    rule = {"user": [other.name], "upstream": "cyrus"}
    upstreams = {"dovecot": upstream_of(dovecot), "cyrus": upstream_of(cyrus)}
    with Gate(upstreams, routing={"default": "dovecot", "rule": [rule]}, admin=ADMIN) as gate:
        working = someone.wire(gate.port)
        (paused,) = ctl(gate, "pause", "dovecot")
        assert paused == {"upstream": "dovecot", "connections": 1}
        assert [row["state"] for row in ctl(gate, "upstreams")] == ["paused", "up"]
        waiting = connect(gate.host, gate.port)
        waiting.send(b"a LOGIN %b {%d+}\r\n" % (someone.name.encode(), len(someone.password)))
        waiting.send(someone.password.encode() + b"\r\nb SELECT INBOX\r\n")
        wait_until(lambda: pool(gate, someone.name)["waiting"] == 1, "a waiter")
        working.ok(b"SELECT INBOX")
        other.wire(gate.port).logout()
        assert waiting.quiet()
        assert ctl(gate, "resume") == [
            {"upstream": "dovecot", "state": "resumed"},
            {"upstream": "cyrus", "state": "resumed"},
        ]
        assert b"a OK" in waiting.until_tagged(b"a")[-1]
        assert b"b OK" in waiting.until_tagged(b"b")[-1]
        for wire in (working, waiting):
            wire.logout()


def test_pause_and_resume_of_commands(server: Server, user: NewUser) -> None:
    """In mode `mailbox` commands wait, in order, and none is lost; the idle connection was given up."""
    someone = user(server)
    with ExitStack() as stack:
        gate = stack.enter_context(gate_for(server, upstream={"pool_mode": "mailbox"}, admin=ADMIN))
        wire, selected = (stack.enter_context(someone.wire(gate.port)) for _ in range(2))
        selected.ok(b"SELECT INBOX")
        wire.ok(b'LIST "" INBOX')
        ctl(gate, "pause")
        wait_until(lambda: pool(gate, someone.name)["total"] == 1, "the idle one to go")
        wire.send(b"a STATUS INBOX (MESSAGES)\r\nb SELECT INBOX\r\nc CLOSE\r\n")
        wait_until(lambda: pool(gate, someone.name)["waiting"] == 1, "a waiter")
        selected.ok(b"NOOP")
        assert wire.quiet()
        ctl(gate, "resume")
        answers = b"".join(wire.until_tagged(b"c"))
        assert re.findall(rb"(?m)^([abc]) OK", answers) == [b"a", b"b", b"c"]


def test_drain() -> None:
    """Sessions of one upstream end at their command boundary, a FETCH in flight first; who logs in waits for resume."""
    with two() as (old, new, gate):
        held = Held()
        old.script = Script(answers={b"FETCH": held})
        fetching, resting, idling = (login(gate, name) for name in ("alice", "alice", "bob"))
        held.ask(fetching)
        idling.ok(b"SELECT INBOX")
        idling.send(b"i IDLE\r\n")
        idling.expect_continuation()
        with Asked(gate, "drain", "old") as drain:
            assert resting.eof() == TAKEN_OUT
            assert idling.eof().endswith(TAKEN_OUT)
            late = connect(HOST, gate.port)
            late.send(b"a LOGIN carol secret\r\n")
            wait_until(lambda: stats(gate)["waiting"] == 1, "a waiter")
            assert drain.quiet()
            assert held.rest(fetching) == TAKEN_OUT
            assert drain.rows() == [{"upstream": "old", "connections": 3, "ended": 3}]
        wait_until(lambda: not stats(gate)["upstream_connections"], "no connection")
        assert late.quiet()
        ctl(gate, "resume", "old")
        assert b"a OK" in late.until_tagged(b"a")[-1]
        late.logout()
        assert not old.violations
        assert not new.conversations[0].passwords  # it was only probed


# -- move -------------------------------------------------------------------------------------------------------------


def test_move() -> None:
    """New logins are held, sessions end at a command boundary, then the user is at home elsewhere; others stay."""
    with two() as (old, new, gate):
        held = Held()
        old.script = Script(answers={b"FETCH": held})
        fetching, resting, other = (login(gate, name) for name in ("alice", "alice", "bob"))
        held.ask(fetching)
        fetching.send(b"g NOOP\r\n")  # behind it, and not owed an answer by upstream yet
        with Asked(gate, "move", "alice", "new") as move:
            assert resting.eof() == MOVED
            late = connect(HOST, gate.port)
            late.send(b"a LOGIN alice secret\r\n")
            login(gate, "bob").logout()
            assert late.quiet()
            assert move.quiet()
            assert new.of(b"alice") == []
            held.release()
            rest = fetching.eof()
            assert rest.startswith(MESSAGE[HALF:] + b")\r\nf OK fetched\r\n")
            assert rest.endswith(MOVED)
            assert move.rows() == [{"user": "alice", "upstream": "new", "ended": 2}]
        assert b"a OK" in late.until_tagged(b"a")[-1]
        late.ok(b"SELECT INBOX")
        assert len(new.of(b"alice")) == 1
        assert len(old.of(b"alice")) == 2
        other.ok(b"SELECT INBOX")
        login(gate, "bob").logout()
        assert new.of(b"bob") == []
        assert [row["moved_to"] for row in ctl(gate, "users")] == ["new", None]
        assert rows(gate, "sessions", user="alice")[0]["upstream"] == "new"
        with pytest.raises(CtlRefused, match="no upstream 'nowhere'; there is old, new"):
            ctl(gate, "move", "alice", "nowhere")
        late.ok(b"NOOP")
        ctl(gate, "move", "alice", "old")
        assert late.eof() == MOVED
        login(gate, "alice").logout()
        assert (len(old.of(b"alice")), len(new.of(b"alice"))) == (3, 1)
        assert not old.violations + new.violations


@pytest.mark.parametrize("what", [["move", "alice", "new"], ["drain", "old"]])
def test_a_login_that_is_under_way(what: list[str]) -> None:
    """A login that has reached the old server already does not become a session there behind the operator's back."""
    answered = threading.Event()

    def logs_in(talk: Conversation, command: Command) -> None:
        talk.until(answered.is_set, 30)
        talk.logged_in(command, b"alice", b"secret")

    with two() as (old, new, gate):
        old.script = Script(answers={b"AUTHENTICATE": logs_in})
        wire = connect(HOST, gate.port)
        wire.send(b"a LOGIN alice secret\r\n")
        old.wait(lambda: b"AUTHENTICATE" in [each.verb for talk in old.conversations for each in talk.commands])
        assert ctl(gate, *what)
        answered.set()
        assert b"a OK" not in wire.eof()
        assert ctl(gate, "sessions") == []
        if what[0] == "move":
            login(gate, "alice").logout()
            assert len(new.of(b"alice")) == 1


def test_move_between_real_servers(dovecot: Dovecot, cyrus: Cyrus, user: NewUser) -> None:
    """From Dovecot to Cyrus while the user works: the next login is there, and finds what is there."""
    someone = user(dovecot)
    user(cyrus, name=someone.name, password=someone.password)
    upstreams = {"dovecot": upstream_of(dovecot), "cyrus": upstream_of(cyrus)}
    with Gate(upstreams, routing={"default": "dovecot"}, admin=ADMIN, auth={"credential_cache": "60s"}) as gate:
        with someone.wire(gate.port) as wire:
            assert b" OK " in wire.command_with_literals(b"APPEND INBOX", MESSAGE)[-1]
            ctl(gate, "move", someone.name, "cyrus")
            assert wire.eof() == MOVED
        with someone.wire(gate.port) as wire:
            assert b"* 0 EXISTS\r\n" in wire.ok(b"SELECT INBOX")
        ctl(gate, "move", someone.name, "dovecot")
        with someone.wire(gate.port) as wire:
            assert b"* 1 EXISTS\r\n" in wire.ok(b"SELECT INBOX")
            wire.logout()
    assert cyrus.login_count(someone.name) == 1


# -- trace ------------------------------------------------------------------------------------------------------------


def told(trace: Asked, last: str) -> list[dict[str, Any]]:
    """The rows of a trace, up to a line in which this stands."""
    seen: list[dict[str, Any]] = []
    while not seen or last not in seen[-1]["line"]:
        row = trace.row()
        assert row is not None
        seen.append(row)
    return seen


def test_a40_trace(dovecot: Dovecot, user: NewUser) -> None:
    """A user's sessions, old and new, are shown line by line as they go; no secret, no mail, nobody else's (A40)."""
    someone, other = user(dovecot), user(dovecot)
    with gate_for(dovecot, admin=ADMIN) as gate, someone.wire(gate.port) as there, other.wire(gate.port) as others:
        with Asked(gate, "trace", someone.name) as trace:
            wait_until(lambda: there.ok(b"NOOP") and not trace.quiet(0.05), "the first line")
            there.ok(b"NOOP", tag=b"last")
            before = told(trace, "last NOOP")
            others.command(b"NOOP", tag=b"other")
            late = someone.wire(gate.port)
            body = b"Subject: private\r\n\r\nVery private.\r\n"
            late.command_with_literals(b"APPEND INBOX", body, tag=b"app")
            late.ok(b"SELECT INBOX", tag=b"sel")
            late.ok(b"FETCH 1 BODY.PEEK[]", tag=b"fet")
            late.command_with_literals(b"SEARCH CHARSET UTF-8 SUBJECT", "vertraulich §".encode(), tag=b"sea")
            seen = told(trace, "Search completed")
        sessions = {row["session"] for row in rows(gate, "sessions", user=someone.name)}
        assert {row["session"] for row in seen} == sessions
        text = json.dumps(before + seen)
        for tag in ("app APPEND", "sel SELECT", "fet FETCH", "sea SEARCH"):
            assert tag in text
        for secret in (someone.password, other.password, "Very private", "vertraulich", other.name, "other"):
            assert secret not in text
        assert {row["side"] for row in seen} == {"client", "upstream"}
        there.ok(b"NOOP")  # nobody watches any more
        late.logout()


def test_trace_for_some_seconds(dovecot: Dovecot, user: NewUser) -> None:
    """It ends by itself, with the number of lines, and the session goes on."""
    someone = user(dovecot)
    with gate_for(dovecot, admin=ADMIN) as gate, someone.wire(gate.port) as wire:
        with Asked(gate, "trace", someone.name, "--seconds=1") as trace:
            wire.ok(b"NOOP")
            assert all(row["side"] in ("client", "upstream") for row in trace.rows())
        wire.ok(b"NOOP")
