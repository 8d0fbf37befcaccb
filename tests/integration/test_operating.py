"""What operators do to a running gate with clients in it: `imapgate ctl`, SIGHUP, SIGTERM, and what systemd is told.

Where the order of things matters upstream is scripted, and holds an answer back for as long as the test wants.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from imapgate.admin.operator import COMMANDS
from tests.integration.bed import HOST, bed_of
from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, Asked, CtlRefused, ctl, pool, stats
from tests.integration.gate import Gate, gate_for, toml, upstream_of
from tests.integration.scripted import MESSAGE, Command, Conversation, Recorder, Script
from tests.integration.servers import Cyrus, Dovecot, Server, free_port, wait_until
from tests.integration.servers.base import accepts
from tests.integration.wire import Wire, connect

NewUser = Callable[..., User]
SHUTTING_DOWN = b"* BYE [UNAVAILABLE] The mail gateway is shutting down\r\n"
KICKED = b"* BYE [UNAVAILABLE] The operator has ended this session\r\n"
MOVED = b"* BYE [UNAVAILABLE] The mailbox is being moved; log in again\r\n"
TAKEN_OUT = b"* BYE [UNAVAILABLE] The mail server is being taken out of service\r\n"
HALF = len(MESSAGE) // 2


class Held:
    """A FETCH that upstream answers by halves: the second when `release` is called."""

    def __init__(self) -> None:
        self._released = threading.Event()

    def __call__(self, talk: Conversation, command: Command) -> None:
        """Answer."""
        talk.send(b"* 1 FETCH (BODY[] {%d}\r\n" % len(MESSAGE) + MESSAGE[:HALF])
        talk.until(self._released.is_set, 30)
        talk.send(MESSAGE[HALF:] + b")\r\n" + command.tag + b" OK fetched\r\n")

    def release(self) -> None:
        """Let the second half come."""
        self._released.set()

    def ask(self, wire: Wire) -> None:
        """Ask for the message, and take its first half."""
        wire.ok(b"SELECT INBOX")
        wire.send(b"f FETCH 1 BODY[]\r\n")
        assert wire.line() == b"* 1 FETCH (BODY[] {%d}\r\n" % len(MESSAGE)
        assert wire.exactly(HALF) == MESSAGE[:HALF]

    def rest(self, wire: Wire) -> bytes:
        """Let the second half come, take it and the completion, and return what came behind it, up to the end."""
        self.release()
        assert wire.exactly(len(MESSAGE) - HALF) == MESSAGE[HALF:]
        assert (wire.line(), wire.line()) == (b")\r\n", b"f OK fetched\r\n")
        return wire.eof()


@contextmanager
def two(**tables: Any) -> Iterator[tuple[Recorder, Recorder, Gate]]:
    """Two scripted upstreams, `old` and `new`, and a gate that sends everybody to the first."""
    with Recorder() as old, Recorder() as new:
        upstreams = {
            name: {"endpoints": [f"tcp:{HOST}:{recorder.port}"], "tls": "none"}
            for name, recorder in (("old", old), ("new", new))
        }
        with Gate(upstreams, routing={"default": "old"}, admin=ADMIN, **tables) as gate:
            yield old, new, gate


def login(gate: Gate, user: str) -> Wire:
    """A client of a scripted upstream that has logged in."""
    wire = connect(HOST, gate.port)
    wire.login(user, "secret")
    return wire


def rows(gate: Gate, what: str, **wanted: object) -> list[dict[str, Any]]:
    """The rows of an answer that have these values."""
    return [row for row in ctl(gate, what) if all(row[name] == value for name, value in wanted.items())]


def ends(gate: Gate) -> int:
    """The process's exit status."""
    assert gate.process is not None
    return gate.process.wait(10)


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
        assert seen.keys() == {"sessions", "pools", "upstreams", "users", "pins", "stats", "config"}
        both = [(row["user"], row["state"], row["bound"], row["commands"]) for row in seen["sessions"]]
        assert both == [(someone.name, "selected", "yes", 2), (someone.name, "authenticated", "no", 2)]
        assert {row["pool_mode"] for row in seen["sessions"]} == {"mailbox"}
        (mine,) = seen["pools"]
        assert (mine["sessions"], mine["leased"], mine["idle"], mine["total"]) == (2, 1, 1, 2)
        (door,) = seen["upstreams"]
        assert (door["upstream"], door["connections"], door["failures"]) == ("dovecot", 2, 0)
        assert seen["users"] == [{"user": someone.name, "sessions": 2, "connections": 2, "moved_to": None}]
        assert seen["pins"] == []
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


# -- reload -----------------------------------------------------------------------------------------------------------


class Document:
    """The configuration of a gate before two scripted upstreams, to be changed and read again."""

    def __init__(self, gate: Gate, old: Recorder, new: Recorder) -> None:
        self.gate = gate
        self.recorders = {"old": old, "new": new}

    def write(self, name: str, *, port: int | None = None, limits: dict[str, Any] | None = None, **keys: Any) -> None:
        """Write it: one upstream, `main`, which is `old` or `new`; perhaps a second listener."""
        endpoint = f"tcp:{HOST}:{self.recorders[name].port}"
        ports = [self.gate.port] + ([port] if port else [])
        document = {
            "listener": [{"endpoint": f"tcp:{each}:interface={HOST}", "tls": "none"} for each in ports],
            "admin": ADMIN,
            "upstream": {"main": {"endpoints": [endpoint], "tls": "none", **keys}},
            "limits": {"failed_login_delays": [], **(limits or {})},
        }
        self.gate.configure(toml(document))


@contextmanager
def reloadable() -> Iterator[Document]:
    """A gate whose configuration a test writes anew; it begins with `old`."""
    with Recorder() as old, Recorder() as new:
        gate = Gate({}, admin=ADMIN, listeners=[])
        gate.ports = [gate.port]
        document = Document(gate, old, new)
        document.write("old")
        with gate:
            yield document


def test_f15_reload() -> None:
    """Another endpoint, pool mode, limit, listener: new sessions have it all, those there keep theirs (F15)."""
    with reloadable() as document:
        gate, old, new = document.gate, document.recorders["old"], document.recorders["new"]
        before, port = login(gate, "alice"), free_port()
        document.write("new", pool_mode="mailbox", port=port, limits={"bad_commands_after_login": 3})
        assert ctl(gate, "reload") == [{"reloaded": str(gate.configuration_file)}]
        configured = {row["key"]: row["value"] for row in ctl(gate, "config")}
        assert configured["upstream.main.pool_mode"] == "mailbox"
        assert configured["limits.bad_commands_after_login"] == "3"
        after = login(gate, "alice")
        by_new_port = connect(HOST, port)
        by_new_port.login("bob", "secret")
        assert [row["pool_mode"] for row in ctl(gate, "sessions")] == ["session", "mailbox", "mailbox"]
        assert (len(old.of(b"alice")), len(new.of(b"alice")), len(new.of(b"bob"))) == (1, 1, 1)
        for _ in range(3):
            assert before.command(b"NOSUCH")[-1].split()[1] == b"BAD"
        before.ok(b"SELECT INBOX")
        assert [command.verb for command in old.commands_of(b"alice")][-1] == b"SELECT"
        for _ in range(2):
            assert after.command(b"NOSUCH")[-1].split()[1] == b"BAD"
        after.send(b"n NOSUCH\r\n")
        assert b"* BYE " in after.eof()
        # And back, without the second listener: who came by it stays.
        document.write("old")
        ctl(gate, "reload")
        wait_until(lambda: not accepts(port), "the second listener to go")
        by_new_port.ok(b"SELECT INBOX")
        login(gate, "carol").logout()
        assert len(old.of(b"carol")) == 1
        for wire in (before, by_new_port):
            wire.logout()


def test_f15_reload_between_two_mailboxes() -> None:
    """In mode `mailbox` a session goes on where it is at home, and a later one of its user is given none of that."""
    with reloadable() as document:
        gate, old, new = document.gate, document.recorders["old"], document.recorders["new"]
        document.write("old", pool_mode="mailbox")
        ctl(gate, "reload")
        before = login(gate, "alice")
        before.ok(b'LIST "" INBOX')
        wait_until(lambda: pool(gate, "alice")["idle"] == 1, "an idle connection")
        document.write("new", pool_mode="mailbox")
        ctl(gate, "reload")
        wait_until(lambda: not pool(gate, "alice")["total"], "the idle one to go")
        before.ok(b"SELECT INBOX")
        before.ok(b"CLOSE")
        wait_until(lambda: pool(gate, "alice")["idle"] == 1, "an idle connection")
        after = login(gate, "alice")
        after.ok(b'LIST "" INBOX')
        after.ok(b"SELECT INBOX")
        before.ok(b'LIST "" INBOX')
        verbs = [[[each.verb for each in talk.commands[1:]] for talk in side.of(b"alice")] for side in (old, new)]
        assert [b"SELECT" in talk for talk in verbs[0]] == [False, True]
        assert any(b"SELECT" in talk for talk in verbs[1])
        for wire in (before, after):
            wire.logout()
        wait_until(lambda: not stats(gate)["upstream_connections"], "no connection")
        assert not old.violations + new.violations


@pytest.mark.parametrize("fault", ["no TOML", "an unknown key", "a port that is taken", "no file"])
def test_f15_a_bad_file_changes_nothing(fault: str) -> None:
    """What cannot be used is refused with its reasons, and everything stays as it was, also by SIGHUP (F15)."""
    with reloadable() as document:
        gate, old, new = document.gate, document.recorders["old"], document.recorders["new"]
        wire = login(gate, "alice")
        shown = ctl(gate, "config")
        if fault == "no TOML":
            gate.configure("[upstream\n")
            why = "not TOML|TOML"
        elif fault == "an unknown key":
            document.write("new", pool_sise=3)
            why = r"upstream\.main\.pool_sise"
        elif fault == "a port that is taken":
            document.write("new", port=new.port)
            why = "cannot listen on"
        else:
            gate.configuration_file.unlink()
            why = "imapgate.toml"
        with pytest.raises(CtlRefused, match="nothing is reloaded, all stays as it was:") as refused:
            ctl(gate, "reload")
        assert re.search(why, str(refused.value))
        gate.reload()
        gate.wait_log("nothing is reloaded, all stays as it was: ")
        assert ctl(gate, "config") == shown
        wire.ok(b"SELECT INBOX")
        login(gate, "bob").logout()
        assert (len(old.of(b"bob")), new.of(b"bob")) == (1, [])
        assert "Traceback" not in gate.log()


def test_f15_reloads_while_clients_work(dovecot: Dovecot, user: NewUser) -> None:
    """Twenty reloads, by both ways, between the commands of a session and the logins of others: no error (F15)."""
    someone = user(dovecot)
    with gate_for(dovecot, upstream={"pool_mode": "mailbox"}, admin=ADMIN) as gate:
        with someone.wire(gate.port) as wire:
            for number in range(10):
                ctl(gate, "reload")
                gate.reload()
                assert b" OK " in wire.command_with_literals(b"APPEND INBOX", MESSAGE)[-1]
                assert b"* %d EXISTS\r\n" % (number + 1) in wire.ok(b"SELECT INBOX")
                wire.ok(b"CLOSE")
                someone.wire(gate.port).logout()
            gate.wait_log("(?s)(?:configuration and certificates reloaded.*){20}")
            wire.logout()
        assert "[imapgate#error]" not in gate.log()


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
            late.ok(b'SEARCH SUBJECT "private"', tag=b"sea")
            seen = told(trace, "Search completed")
        sessions = {row["session"] for row in rows(gate, "sessions", user=someone.name)}
        assert {row["session"] for row in seen} == sessions
        text = json.dumps(before + seen)
        for tag in ("app APPEND", "sel SELECT", "fet FETCH", "sea SEARCH"):
            assert tag in text
        for secret in (someone.password, other.password, "Very private", other.name, "other"):
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


# -- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["shutdown", "SIGTERM", "SIGINT"])
def test_f16_stop(how: str) -> None:
    """Nobody is let in; who rests or idles is told BYE at once, who waits for an answer when it is there (F16)."""
    with bed_of(admin=ADMIN) as bed:
        gate, held = bed.gate, Held()
        bed.answer(FETCH=held)
        fetching, resting, idling = (bed.login()[0] for _ in range(3))
        held.ask(fetching)
        idling.ok(b"SELECT INBOX")
        idling.send(b"i IDLE\r\n")
        idling.expect_continuation()
        fresh = bed.connect()
        if how == "shutdown":
            assert ctl(gate, "shutdown") == [{"sessions": 4}]
        else:
            gate.signal(signal.Signals[how])
        for wire in (resting, idling, fresh):
            assert wire.eof().endswith(SHUTTING_DOWN)
        assert not any(map(accepts, gate.ports))
        assert held.rest(fetching) == SHUTTING_DOWN
        assert ends(gate) == 0
        assert not Path(gate.directory, "control").exists()
        assert "Traceback" not in gate.log()
        assert not bed.recorder.violations


@pytest.mark.parametrize("mode", ["session", "mailbox"])
def test_f16_a_message_on_its_way_is_stored_and_acknowledged(server: Server, user: NewUser, mode: str) -> None:
    """SIGTERM in the middle of an APPEND: the client sends the rest, is told OK, and then BYE; one is stored (F16)."""
    someone = user(server)
    with gate_for(server, upstream={"pool_mode": mode}, admin=ADMIN) as gate:
        wire, resting = someone.wire(gate.port), someone.wire(gate.port)
        wire.send(b"a APPEND INBOX {%d}\r\n" % len(MESSAGE))
        wire.expect_continuation()
        wire.send(MESSAGE[:HALF])
        gate.signal(signal.SIGTERM)
        assert resting.eof() == SHUTTING_DOWN
        assert not accepts(gate.port)
        wire.send(MESSAGE[HALF:] + b"\r\nb CREATE late\r\n")
        rest = wire.eof()
        assert re.fullmatch(rb"a OK [^\r\n]*\r\n" + re.escape(SHUTTING_DOWN), rest), rest
        assert ends(gate) == 0
        assert "Traceback" not in gate.log()
    with someone.wire() as wire:
        assert b"* 1 EXISTS\r\n" in wire.ok(b"SELECT INBOX")
        assert MESSAGE in b"".join(wire.ok(b"FETCH 1 BODY.PEEK[]"))
        assert b"late" not in b"".join(wire.ok(b'LIST "" "*"'))


def test_f16_an_acknowledgement_that_is_awaited() -> None:
    """SIGTERM while upstream has a whole command and has not answered: its answer is passed on, once (F16)."""
    answered = threading.Event()

    def stores(talk: Conversation, command: Command) -> None:
        talk.until(answered.is_set, 30)
        talk.stored.append(command.literals[-1])
        talk.ok(command, b"[APPENDUID 7 2] stored")

    with bed_of(admin=ADMIN) as bed:
        bed.answer(APPEND=stores)
        wire, name = bed.login()
        resting, _ = bed.login()
        wire.send(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(MESSAGE), MESSAGE))
        bed.recorder.wait(lambda: [each.verb for each in bed.recorder.commands_of(name)][-1] == b"APPEND")
        bed.gate.signal(signal.SIGTERM)
        assert resting.eof() == SHUTTING_DOWN
        answered.set()
        assert wire.eof() == b"a OK [APPENDUID 7 2] stored\r\n" + SHUTTING_DOWN
        assert ends(bed.gate) == 0
        assert [talk.stored for talk in bed.recorder.of(name)] == [[MESSAGE]]


@pytest.mark.parametrize("second", [True, False])
def test_f16_an_answer_that_never_comes(second: bool) -> None:
    """A second SIGTERM, or the time for draining, ends what would never end; no false completion is sent (F16)."""
    with bed_of(admin=ADMIN, limits={} if second else {"drain": "1s"}) as bed:
        held = Held()
        bed.answer(FETCH=held, STATUS=lambda talk, command: talk.until(lambda: talk.deaf, 60))
        fetching, (asking, name) = bed.login()[0], bed.login()
        held.ask(fetching)
        asking.send(b"s STATUS INBOX (MESSAGES)\r\n")
        bed.recorder.wait(lambda: [each.verb for each in bed.recorder.commands_of(name)][-1] == b"STATUS")
        resting = bed.login()[0]
        bed.gate.signal(signal.SIGTERM)
        assert resting.eof() == SHUTTING_DOWN
        if second:
            assert fetching.quiet()
            bed.gate.signal(signal.SIGTERM)
        assert asking.eof() == SHUTTING_DOWN
        assert fetching.eof() == b""  # inside the literal nothing can be said
        assert ends(bed.gate) == 0
        for talk in bed.recorder.conversations:
            talk.deaf = True
        held.release()


def test_shutdown_when_the_last_client_has_gone(dovecot: Dovecot, user: NewUser) -> None:
    """`shutdown --wait`: nobody new comes in, who is there works on for as long as it wants, then the gate ends."""
    someone = user(dovecot)
    with gate_for(dovecot, admin=ADMIN) as gate:
        first, second = someone.wire(gate.port), someone.wire(gate.port)
        assert ctl(gate, "shutdown", "--wait") == [{"sessions": 2}]
        wait_until(lambda: not accepts(gate.port), "the listeners to close")
        first.ok(b"SELECT INBOX")
        first.logout()
        second.ok(b"SELECT INBOX")
        assert [row["state"] for row in ctl(gate, "sessions")] == ["selected"]
        assert second.quiet()
        second.logout()
        assert ends(gate) == 0
        assert "Traceback" not in gate.log()


def test_f16_sigterm_while_it_waits_for_its_clients(dovecot: Dovecot, user: NewUser) -> None:
    """After `shutdown --wait` SIGTERM is the first signal: who is there is told BYE at a command's end (F16)."""
    someone = user(dovecot)
    with gate_for(dovecot, admin=ADMIN) as gate:
        wire = someone.wire(gate.port)
        ctl(gate, "shutdown", "--wait")
        wait_until(lambda: not accepts(gate.port), "the listeners to close")
        wire.send(b"a APPEND INBOX {%d}\r\n" % len(MESSAGE))
        wire.expect_continuation()
        gate.signal(signal.SIGTERM)
        assert wire.quiet()
        wire.send(MESSAGE + b"\r\n")
        assert wire.until_tagged(b"a")[-1].startswith(b"a OK")
        assert wire.eof() == SHUTTING_DOWN
        assert ends(gate) == 0


# -- what systemd is told ---------------------------------------------------------------------------------------------


def test_sd_notify(dovecot: Dovecot, user: NewUser, tmp_path: Path) -> None:
    """READY when it serves, RELOADING and READY around a reload, STOPPING before it drains, each in its place."""
    someone = user(dovecot)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)

        def told() -> list[str]:
            return systemd.recv(4096).decode().splitlines()

        with gate_for(dovecot, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}, admin=ADMIN) as gate:
            assert told()[0] == "READY=1"
            assert accepts(gate.port)
            with someone.wire(gate.port) as wire:
                gate.reload()
                reloading = told()
                assert reloading[0] == "RELOADING=1"
                assert re.fullmatch(r"MONOTONIC_USEC=\d+", reloading[1])
                assert told()[0] == "READY=1"
                wire.send(b"a APPEND INBOX {5}\r\n")
                wire.expect_continuation()
                gate.signal(signal.SIGTERM)
                assert told()[0] == "STOPPING=1"
                wire.send(b"a: b\n\r\n")
                assert b"a OK" in wire.eof()
            assert ends(gate) == 0
            systemd.setblocking(False)
            with pytest.raises(BlockingIOError):
                systemd.recv(4096)
