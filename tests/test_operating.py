"""What an operator sees of a running gate: every command that looks or watches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from twisted.logger import LogEvent

from imapgate import operating as module
from imapgate import service
from imapgate.admin.operator import COMMANDS, Row
from imapgate.config import load
from imapgate.config.types import Auth, Trace
from imapgate.model.pool_mode import PoolMode
from tests.desk import TWO, Desk, kept
from tests.net.wires import logged
from tests.serving import TOML, UPSTREAM, Patron, Running, Written, contained

CANARY = "canary-16180"


@pytest.fixture(autouse=True)
def nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither signals nor the process's limits nor sockets are touched."""
    with contained(monkeypatch):
        yield


def test_every_command() -> None:
    """Every command of the table is carried out by somebody."""
    changing = {name for name, command in COMMANDS.items() if command.changes and not command.streams}
    looking = {name for name, command in COMMANDS.items() if not command.changes}
    assert set(module._ACT) == changing
    assert set(module._SHOW) == looking
    assert {name for name, command in COMMANDS.items() if command.streams} == {"trace"}


# --- looking ----------------------------------------------------------------------------------------


def test_sessions() -> None:
    """Every client that is there, the one that came first before the others."""
    desk = Desk()
    assert desk.shows("sessions") == []
    alice = desk.running.logged_in()
    desk.running.reactor.advance(2.25)
    anonymous = Patron(desk.running)
    alice.says(b"b NOOP\r\n")
    first, second = desk.shows("sessions")
    assert first == {
        "session": alice.protocol.client.session,
        "user": "alice",
        "address": "127.0.0.1",
        "listener": "tcp:1143:interface=127.0.0.1",
        "upstream": "store",
        "pool_mode": "session",
        "state": "authenticated",
        "bound": "yes",
        "commands": 2,
        "octets_in": alice.protocol.octets_in,
        "octets_out": alice.protocol.octets_out,
        "age_seconds": 2.2,
    }
    assert second == {
        "session": anonymous.protocol.client.session,
        "user": "",
        "address": "127.0.0.1",
        "listener": "tcp:1143:interface=127.0.0.1",
        "upstream": None,
        "pool_mode": None,
        "state": "not authenticated",
        "bound": "no",
        "commands": 0,
        "octets_in": 0,
        "octets_out": anonymous.protocol.octets_out,
        "age_seconds": 0.0,
    }
    assert list(first) == list(second)


def test_pools() -> None:
    """One row for each user at each upstream, with a sum that is right."""
    desk = Desk()
    kept(desk)
    Patron(desk.running).says(b"a LOGIN alice pw\r\n")
    desk.running.logged_in(b"bob")
    rows = {str(row["user"]): row for row in desk.shows("pools")}
    assert rows["alice"] == {
        "upstream": "store", "user": "alice", "sessions": 1, "leased": 1, "idle": 0, "connecting": 0, "closing": 0,
        "total": 1, "waiting": 0,
    }  # fmt: skip
    assert rows["bob"]["leased"] == 1


def test_upstreams() -> None:
    """Every endpoint, with what is known of it."""
    desk = Desk()
    desk.running.logged_in()
    store, other = desk.shows("upstreams")
    assert store == {
        "upstream": "store",
        "endpoint": "unix:/run/store",
        "state": "up",
        "failures": 0,
        "ejected_seconds": None,
        "pool_mode": "session",
        "connections": 1,
    }
    assert (other["upstream"], other["pool_mode"], other["connections"]) == ("other", "mailbox", 0)
    desk.done("pause", upstream="store")
    assert [row["state"] for row in desk.shows("upstreams")] == ["paused", "up"]


def test_users() -> None:
    """Everybody who is there or has a connection, and where they were moved to."""
    desk = Desk()
    kept(desk, b"bob")
    desk.running.logged_in(b"carol")
    Patron(desk.running)
    desk.running.service.moves.end("bob", "other")
    assert desk.shows("users") == [
        {"user": "bob", "sessions": 0, "connections": 1, "moved_to": "other"},
        {"user": "carol", "sessions": 1, "connections": 1, "moved_to": None},
    ]


def test_pins() -> None:
    """Who holds a connection for itself, and why."""
    desk = Desk(attrs.evolve(TWO, auth=Auth()))
    patron = desk.running.logged_in()
    assert desk.shows("pins") == []
    patron.says(b"b SELECT x\r\n")
    patron.upstream.dataReceived(b"g2 BAD no\r\n")
    assert desk.shows("pins") == [
        {"session": patron.protocol.client.session, "user": "alice", "upstream": "store", "reason": "BAD to SELECT"}
    ]


SHARED = attrs.evolve(TWO, upstreams={"store": attrs.evolve(UPSTREAM, pool_mode=PoolMode.SHARED)}, auth=Auth())


def sharing() -> tuple[Desk, Patron]:
    """A session that has a mailbox selected on a channel."""
    desk = Desk(SHARED)
    patron = desk.running.logged_in()
    patron.says(b"b SELECT INBOX\r\n")
    patron.upstream.dataReceived(b"* 0 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\ng2 OK [READ-WRITE] done\r\n")
    assert patron.wire.read().endswith(b"b OK [READ-WRITE] done\r\n")
    return desk, patron


def test_channels() -> None:
    """What is selected where mailboxes are shared, and for how many; nothing of the other modes."""
    desk = Desk()
    desk.running.logged_in()
    assert desk.shows("channels") == []
    desk, patron = sharing()
    row = {
        "upstream": "store", "user": "alice", "mailbox": "INBOX", "read_only": "no", "state": "ready", "sessions": 1,
        "idling": 0, "waiting": 0,
    }  # fmt: skip
    assert desk.shows("channels") == [row]
    patron.says(b"c NOOP\r\n")
    assert desk.shows("channels") == [{**row, "state": "busy"}]


def test_a_shared_session() -> None:
    """It has a connection as long as its mailbox is looked at, or one is its own; why that is is shown and counted."""
    desk, patron = sharing()
    assert [row["bound"] for row in desk.shows("sessions")] == ["yes"]
    assert desk.shows("pins") == []
    for _ in range(2):
        desk.running.reactor.advance(200.0)
        desk.running.service._tick()
    assert [row["bound"] for row in desk.shows("sessions")] == ["no"]
    patron.says(b"c SEARCH RETURN (SAVE) ALL\r\n")
    patron.upstream.dataReceived(b"* 0 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\ng3 OK [READ-WRITE] done\r\n")
    session = patron.protocol.client.session
    assert desk.shows("pins") == [{"session": session, "user": "alice", "upstream": "store", "reason": "SEARCHRES"}]
    assert [row["bound"] for row in desk.shows("sessions")] == ["yes"]
    assert [row["state"] for row in desk.shows("channels")] == ["pinned"]
    figures = {str(row["name"]): row["value"] for row in desk.shows("stats")}
    shared = {name: value for name, value in figures.items() if name.startswith("shared_")}
    assert shared == {
        "shared_seated": 0, "shared_opened": 1, "shared_joined": 0, "shared_reattached": 0, "shared_parked": 1,
        "shared_polled": 0, "shared_stalled": 0, "shared_overflowed": 0, "shared_pinned": 1,
        "shared_pinned_SEARCHRES": 1,
    }  # fmt: skip


def test_stats() -> None:
    """Figures, of which those of the pools count from the start."""
    desk = Desk()
    kept(desk)
    desk.running.reactor.advance(3)
    again = Patron(desk.running)
    assert again.says(b"a LOGIN alice pw\r\n").startswith(b"a OK ")
    figures = {str(row["name"]): row["value"] for row in desk.shows("stats")}
    assert figures["clients"] == 1
    assert figures["running_seconds"] == 3.0
    assert figures["upstream_connections"] == 1
    assert figures["waiting"] == 0
    assert (figures["upstream_dialled"], figures["upstream_lent"], figures["upstream_reused"]) == (1, 2, 1)


def test_config(tmp_path: Path) -> None:
    """The configuration in force: where it came from, and every limit."""
    desk = Desk(running=Written(tmp_path, TOML + '[limits]\ndrain = "7s"\n'))
    values = {str(row["key"]): row["value"] for row in desk.shows("config")}
    assert values["file"] == str(tmp_path / "imapgate.toml")
    assert values["upstream.store.endpoints"] == "tcp:127.0.0.1:10143"
    assert values["limits.drain"] == "7.0"
    assert values["routing.default"] == "store"
    assert values["upstream.store.idle"] == "share"
    assert values["upstream.store.idle_poll"] == "60.0"
    assert values["upstream.store.idle_connections"] == "20"
    assert values["upstream.store.park_after"] == "300.0"
    assert values["upstream.store.share_stall"] == "2.0"
    assert Desk().shows("config")[0]["value"] == "command line"


SECRETS = f"""
[[listener]]
endpoint = "tcp:1143:interface=127.0.0.1"

[upstream.store]
endpoints = ["tcp:127.0.0.1:10143"]
[upstream.store.master]
method = "authorisation"
user = "gate"
password_file = "gate.secret"
[auth]
mode = "master"
[[auth.verifier]]
use = "http"
url = "http://127.0.0.1:9000/auth"
headers = {{ "X-Auth-Key" = "{CANARY}" }}
"""


def test_a40_no_row_holds_a_secret(tmp_path: Path) -> None:
    """Neither the configuration's secrets nor a client's are in anything that is shown."""
    secret = tmp_path / "gate.secret"
    secret.write_text(f"{CANARY}\n")
    secret.chmod(0o600)
    file = tmp_path / "imapgate.toml"
    file.write_text(SECRETS)
    file.chmod(0o600)
    for running in (Running(load(file)), Running(TWO)):
        desk = Desk(running=running)
        patron = Patron(running)
        patron.says(b"a LOGIN alice " + CANARY.encode() + b"\r\n")
        if running.reactor.unixClients:
            patron.upstream, patron.upstream_wire = running.opens()
            patron.upstream.dataReceived(b"g1 OK [CAPABILITY IMAP4rev1] in\r\n")
        for what in module._SHOW:
            assert CANARY not in repr(desk.shows(what)), what


# --- watching ---------------------------------------------------------------------------------------


def test_trace() -> None:
    """Each line of a user's sessions, of those that are there and those that come, until it is enough; no secret."""
    desk = Desk()
    here, bob = desk.running.logged_in(), desk.running.logged_in(b"bob")
    rows: list[Row] = []
    stop = desk.operator.trace("alice", None, rows.append)
    here.says(b"b NOOP\r\n")
    bob.says(b"b NOOP\r\n")
    here.upstream.dataReceived(b"g2 OK done\r\n")
    assert [(row["side"], row["line"]) for row in rows] == [("client", "b NOOP"), ("upstream", "g2 OK done")]
    assert {row["session"] for row in rows} == {here.protocol.client.session}
    rows.clear()
    late = desk.running.logged_in()
    late.says(b'c LIST "" *\r\n')
    assert [row["line"] for row in rows] == ['c LIST "" *']
    stop()
    here.says(b"d NOOP\r\n")
    late.says(b"d NOOP\r\n")
    assert len(rows) == 1
    assert "pw" not in repr(rows)


def test_two_who_watch(tmp_path: Path) -> None:
    """Two may watch one user, beside a trace to a file, and each stops for itself."""
    trace = Trace("alice", tmp_path / "trace", 600.0)
    desk = Desk(attrs.evolve(TWO, trace=trace))
    one: list[Row] = []
    two: list[Row] = []
    stop = desk.operator.trace("alice", None, one.append)
    desk.operator.trace("alice", 5, two.append)
    patron = desk.running.logged_in()
    patron.says(b"b NOOP\r\n")
    stop()
    patron.says(b"c NOOP\r\n")
    assert [len(one), len(two)] == [1, 2]
    assert len(trace.file.read_text().splitlines()) == 2


def test_a_trace_goes_on_after_a_reload() -> None:
    """Who watches when the configuration is read again goes on watching, and can still stop."""
    desk = Desk()
    rows: list[Row] = []
    stop = desk.operator.trace("alice", None, rows.append)
    with logged(service):
        desk.running.service.reload()
    patron = desk.running.logged_in()
    patron.says(b"b NOOP\r\n")
    assert len(rows) == 1
    stop()
    patron.says(b"c NOOP\r\n")
    assert len(rows) == 1


def test_nothing_critical(critical_events: list[LogEvent]) -> None:
    """A login for a user who was moved to an upstream that is gone goes where everybody goes."""
    desk = Desk()
    desk.running.service.moves.end("alice", "gone")
    desk.running.logged_in()
    assert critical_events == []
