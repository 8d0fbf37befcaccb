"""What an operator does to a running gate: every command that changes something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imapgate import operating as module
from tests.desk import Desk, kept
from tests.net.wires import logged
from tests.serving import TOML, Patron, Written, contained


@pytest.fixture(autouse=True)
def nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither signals nor the process's limits nor sockets are touched."""
    with contained(monkeypatch):
        yield


# --- changing ---------------------------------------------------------------------------------------


def test_kick() -> None:
    """A user's sessions, or one session, are ended at once."""
    desk = Desk()
    first, second, other = (desk.running.logged_in(user) for user in (b"alice", b"alice", b"bob"))
    other.says(b"b NOOP\r\n")
    assert desk.done("kick", who="alice") == [{"kicked": 2}]
    told = b"* BYE [UNAVAILABLE] The operator has ended this session\r\n"
    assert first.wire.read() == second.wire.read() == told
    assert other.wire.open
    assert desk.done("kick", who=other.protocol.client.session) == [{"kicked": 1}]
    assert other.wire.read() == told
    assert "'carol'" in desk.refused("kick", who="carol")
    for who in ("ali*", "ali", "", "Alice"):
        assert desk.refused("kick", who=who)


def test_kick_does_not_take_those_who_have_no_name_yet() -> None:
    """A client that has not logged in is nobody of that name."""
    desk = Desk()
    Patron(desk.running).says(b"a LOGIN alice pw\r\n")
    assert desk.refused("kick", who="alice")


def test_pause_and_resume() -> None:
    """While an upstream is paused its logins wait, and the other's do not."""
    desk = Desk()
    kept(desk)
    assert desk.done("pause", upstream="store") == [{"upstream": "store", "connections": 1}]
    calls = desk.running.called
    patron = Patron(desk.running)
    assert patron.says(b"a LOGIN alice pw\r\n") == b""
    assert desk.running.called == calls
    assert desk.done("resume", upstream="store") == [{"upstream": "store", "state": "resumed"}]
    assert desk.running.called == calls + 1
    assert [row["upstream"] for row in desk.done("pause")] == ["store", "other"]
    assert [row["state"] for row in desk.shows("upstreams")] == ["paused", "paused"]
    assert [row["upstream"] for row in desk.done("resume")] == ["store", "other"]
    for command in ("pause", "resume", "drain"):
        assert desk.refused(command, upstream="stor") == "no upstream 'stor'; there is store, other"


def test_drain() -> None:
    """A drained upstream takes nobody new, and its sessions end at a command boundary, in bounded time."""
    desk = Desk()
    desk.running.service.moves.end("bob", "other")
    alice, bob = desk.running.logged_in(), desk.running.logged_in(b"bob")
    alice.says(b"b NOOP\r\n")
    told = desk.acts("drain", upstream="store")
    assert told == []
    assert alice.wire.open
    alice.upstream.dataReceived(b"g2 OK done\r\n")
    assert alice.wire.read() == b"b OK done\r\n* BYE [UNAVAILABLE] The mail server is being taken out of service\r\n"
    alice.leaves()
    desk.running.reactor.advance(0.1)
    assert told == [[{"upstream": "store", "connections": 1, "ended": 1}]]
    assert bob.wire.open
    assert [row["state"] for row in desk.shows("upstreams")] == ["paused", "up"]
    bob.leaves()
    assert [row["ended"] for row in desk.done("drain")] == [0, 0]


def test_drain_after_a_reload(tmp_path: Path) -> None:
    """Sessions that came before a reload changed the upstream are of that upstream, too."""
    desk = Desk(running=Written(tmp_path))
    patron = desk.running.logged_in()
    assert isinstance(desk.running, Written)
    desk.running.reloads(TOML.replace("10143", "10144"))
    told = desk.acts("drain")
    assert patron.wire.read().startswith(b"* BYE ")
    patron.leaves()
    desk.running.reactor.advance(0.1)
    assert told[0][0]["ended"] == 1


def test_move() -> None:
    """Who is moved is ended at a command boundary; a login meanwhile waits, and goes where they are then."""
    desk = Desk()
    alice, bob = desk.running.logged_in(), desk.running.logged_in(b"bob")
    alice.says(b"b NOOP\r\n")
    with logged(module) as lines:
        told = desk.acts("move", user="alice", upstream="other")
        calls = desk.running.called
        again = Patron(desk.running)
        assert again.says(b"a LOGIN alice pw\r\n") == b""
        assert desk.running.called == calls
        alice.upstream.dataReceived(b"g2 OK done\r\n")
        assert alice.wire.read() == b"b OK done\r\n* BYE [UNAVAILABLE] The mailbox is being moved; log in again\r\n"
        alice.leaves()
        desk.running.reactor.advance(0.1)
    assert told == [[{"user": "alice", "upstream": "other", "ended": 1}]]
    assert lines == ["info: user 'alice' is moved to other"]
    assert desk.running.called == calls + 1
    again.upstream, again.upstream_wire = desk.running.opens()
    again.upstream.dataReceived(b"g1 OK [CAPABILITY IMAP4rev1] in\r\n")
    assert again.wire.read().startswith(b"a OK ")
    assert {row["user"]: row["upstream"] for row in desk.shows("sessions")} == {"alice": "other", "bob": "store"}
    assert bob.wire.open
    assert desk.refused("move", user="alice", upstream="new") == "no upstream 'new'; there is store, other"


def test_move_of_somebody_who_is_not_there() -> None:
    """Who is not there is moved at once."""
    desk = Desk()
    assert desk.done("move", user="carol", upstream="other") == [{"user": "carol", "upstream": "other", "ended": 0}]
    carol = Patron(desk.running)
    carol.says(b"a LOGIN carol pw\r\n")
    assert [row["upstream"] for row in desk.shows("pools")] == ["other"]


def test_reload(tmp_path: Path) -> None:
    """A reload says what was read; a fault is told with every problem, and nothing is changed."""
    desk = Desk(running=Written(tmp_path))
    assert desk.done("reload") == [{"reloaded": str(tmp_path / "imapgate.toml")}]
    (tmp_path / "imapgate.toml").write_text("what = 1\n")
    told = desk.refused("reload")
    assert told.startswith("nothing is reloaded, all stays as it was:\n")
    assert "what" in told
    assert len(told.splitlines()) > 2
    assert Desk().done("reload") == [{"reloaded": "certificates"}]


def test_forget() -> None:
    """A user's proof is forgotten, and idle connections are given up; nobody else's."""
    desk = Desk()
    alice, bob = kept(desk), kept(desk, b"bob")
    assert desk.done("forget", user="alice") == [{"user": "alice", "forgotten": "yes"}]
    assert alice.upstream_wire.read() == b"g3 LOGOUT\r\n"
    assert bob.upstream_wire.read() == b""
    again = Patron(desk.running)
    assert again.says(b"a LOGIN alice pw\r\n") == b""
    other = Patron(desk.running)
    assert other.says(b"a LOGIN bob pw\r\n").startswith(b"a OK ")


def test_forget_where_a_verifier_sent_them() -> None:
    """Connections of a user at an upstream that only a verifier knew of are given up, too."""
    desk = Desk()
    assembly = desk.running.service.assembly
    like = assembly.upstreams["store"]
    assembly.upstreams["store"] = assembly._at(like, "192.0.2.9", 143)
    patron = Patron(desk.running)
    patron.says(b"a LOGIN alice pw\r\n")
    factory = desk.running.reactor.tcpClients[-1][2]
    patron.upstream = factory.buildProtocol(None)  # type: ignore[assignment]
    assembly.upstreams["store"] = like
    assert [row["upstream"] for row in desk.shows("pools")] == ["store@192.0.2.9:143"]
    before = desk.running.service.gate.pools.proofs.generation(("store@192.0.2.9:143", b"alice"))
    desk.done("forget", user="alice")
    assert desk.running.service.gate.pools.proofs.generation(("store@192.0.2.9:143", b"alice")) > before


@pytest.mark.parametrize("wait", [False, True])
def test_shutdown(wait: bool) -> None:
    """It returns before the gate stops, and says how many are there."""
    desk = Desk()
    patron = desk.running.logged_in()
    arguments = {"wait": ""} if wait else {}
    assert desk.done("shutdown", **arguments) == [{"sessions": 1}]
    assert desk.running.reactor.stopped == (not wait)
    assert patron.wire.open
    desk.running.reactor.advance(0)
    patron.leaves()
    desk.running.reactor.advance(0.1)
    assert desk.running.reactor.stopped == 1
