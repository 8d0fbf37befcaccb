"""A reload: another configuration, swapped whole, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address

from imapgate import service as module
from imapgate.assembly import Assembly
from imapgate.errors import ConfigurationError
from imapgate.net.journal import Tap
from imapgate.net.listen import ClientFactory, TurnedAway
from imapgate.net.proxy_protocol import TrustedProxies
from imapgate.pooling.connection import Key
from tests.net.wires import logged
from tests.serving import TOML, Certificates, Patron, Written, contained

CACHED = TOML + 'pool_keep = 2\n[auth]\ncredential_cache = "60s"\n'
SECOND = '[[listener]]\nendpoint = "tcp:2143:interface=127.0.0.1"\n'
THIRD = '[[listener]]\nendpoint = "tcp:3143:interface=127.0.0.1"\n'
OTHER = '[upstream.other]\nendpoints = ["tcp:127.0.0.1:10144"]\n[routing]\ndefault = "store"\n'


@pytest.fixture(autouse=True)
def nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither signals nor the process's limits nor sockets are touched."""
    with contained(monkeypatch):
        yield


def everything(running: Written) -> list[object]:
    """What a reload replaces."""
    service, pools = running.service, running.service.gate.pools
    return [
        service.gate,
        service.assembly,
        service.configuration,
        dict(service._factories),
        {port: listening.factory for port, listening in running.reactor.listening.items()},
        pools.book.most,
        pools.proofs.seconds,
        pools._limits,
        service.gate.census._limits,
        service.gate.penalties._delays,
    ]


# --- nothing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[listener", "not valid TOML"),
        (TOML.replace("endpoints", "endpoint"), "upstream.store.endpoint"),
        (TOML + '[[routing.rule]]\ntable = "absent"\n', "absent"),
        (TOML + "[limits]\nclients = -1\n", "limits.clients"),
    ],
)
def test_f15_a_bad_file_changes_nothing(tmp_path: Path, text: str, problem: str) -> None:
    """A file that cannot be used is said to be so, and all stays as it was."""
    running = Written(tmp_path)
    before = everything(running)
    with pytest.raises(ConfigurationError, match=problem):
        running.reloads(text)
    assert everything(running) == before


def test_f15_a_port_that_is_taken_changes_nothing(tmp_path: Path) -> None:
    """Where one new listener cannot be bound the others are closed again, and all stays as it was."""
    running = Written(tmp_path)
    before = everything(running)
    running.reactor.taken.add(3143)
    with pytest.raises(ConfigurationError, match=r"cannot listen on tcp:3143:interface=127\.0\.0\.1: "):
        running.reloads(SECOND + THIRD + TOML.replace("10143", "10144") + "[limits]\nclients = 7\n")
    assert everything(running) == before
    assert list(running.reactor.listening) == [1143]
    running.reactor.taken.clear()
    running.reloads(SECOND + THIRD + TOML)
    assert sorted(running.reactor.listening) == [1143, 2143, 3143]


def test_f15_a_bad_certificate_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a certificate cannot be used nothing is changed, and what was made of the new file is let go."""
    closed: list[Assembly] = []
    running = Written(tmp_path)
    before = everything(running)
    monkeypatch.setattr(Assembly, "close", lambda self: closed.append(self))
    monkeypatch.setattr(Certificates, "broken", True)
    monkeypatch.setattr(running.service, "_entrances", lambda *which: Certificates([]))
    with pytest.raises(ConfigurationError, match="no certificate"):
        running.reloads(TOML)
    assert everything(running) == before
    assert len(closed) == 1
    assert closed[0] is not running.service.assembly


def test_the_log_says_what_came_of_it(tmp_path: Path) -> None:
    """What came of a reload by a signal is one line."""
    running = Written(tmp_path)
    running.file.write_text("[[listener")
    with logged(module) as lines:
        running.service.reloaded()
        running.file.write_text(TOML)
        running.service.reloaded()
    assert lines[0].startswith("error: nothing is reloaded, all stays as it was: ")
    assert lines[1:] == ["info: configuration and certificates reloaded"]


def test_no_reload_while_it_stops(tmp_path: Path) -> None:
    """A gate that lets nobody in any more does not begin to listen again."""
    for ends in ("stop", "wait"):
        running = Written(tmp_path)
        Patron(running)
        if ends == "stop":
            running.stops()
        else:
            running.service.shut_down(wait=True)
            running.reactor.advance(0)
        assert running.reactor.listening == {}
        with pytest.raises(ConfigurationError, match="stopping"):
            running.service.reload()
        assert running.reactor.listening == {}


# --- upstreams --------------------------------------------------------------------------------------


def idle(running: Written, user: bytes = b"alice") -> Patron:
    """A client that has been there, and whose connection is idle."""
    patron = running.logged_in(user)
    patron.says(b"x LOGOUT\r\n")
    assert patron.upstream_wire.read() == b"g2 NOOP\r\n"
    patron.upstream.dataReceived(b"g2 OK done\r\n")
    return patron


def test_an_upstream_that_has_changed(tmp_path: Path) -> None:
    """It has another profile: idle connections go, those in use when they come back, new ones to the new place."""
    running = Written(tmp_path, CACHED)
    used, unused = running.logged_in(b"bob"), idle(running)
    before = running.service.upstreams["store"]
    running.reloads(CACHED.replace("10143", "10144"))
    after = running.service.upstreams["store"]
    assert after is not before
    assert after.profile == before.profile + 1
    assert unused.upstream_wire.read() == b"g3 LOGOUT\r\n"
    assert used.says(b"b NOOP\r\n") == b""
    used.upstream.dataReceived(b"g2 OK done\r\n")
    assert used.wire.read() == b"b OK done\r\n"
    used.upstream_wire.clear()
    used.says(b"c LOGOUT\r\n")
    assert used.upstream_wire.read() == b"g3 LOGOUT\r\n"
    again = Patron(running)
    assert again.says(b"a LOGIN alice pw\r\n") == b""
    assert running.reactor.tcpClients[-1][:2] == ("127.0.0.1", 10144)


def test_an_upstream_that_has_not_changed(tmp_path: Path) -> None:
    """It is the very same, with its idle connections and with what is known of its endpoints."""
    running = Written(tmp_path, CACHED)
    unused = idle(running)
    before = running.service.upstreams["store"]
    running.reloads(SECOND + CACHED + "[limits]\nclients = 7\n" + OTHER)
    assert running.service.upstreams["store"] is before
    assert list(running.service.upstreams) == ["store", "other"]
    assert unused.upstream_wire.read() == b""
    again = Patron(running)
    assert again.says(b"a LOGIN alice pw\r\n").startswith(b"a OK ")


@pytest.mark.parametrize(
    "text",
    [
        TOML,
        CACHED.replace("pool_keep = 2", "pool_keep = 1"),
        CACHED.replace("[auth]", "id_originating = true\n[auth]"),
        CACHED + '[limits]\npool_check = "7s"\n',
    ],
)
def test_what_makes_an_upstream_another(tmp_path: Path, text: str) -> None:
    """Whatever is different about how it is reached, or for how long its connections are kept, makes it another."""
    running = Written(tmp_path, CACHED)
    before = running.service.upstreams["store"]
    running.reloads(text)
    assert running.service.upstreams["store"].profile == before.profile + 1


def test_an_upstream_that_is_gone(tmp_path: Path) -> None:
    """Sessions there go on; nothing is kept there any more, and new logins go elsewhere."""
    running = Written(tmp_path, CACHED + OTHER)
    used, unused = running.logged_in(b"bob"), idle(running)
    running.reloads(OTHER.replace('default = "store"', 'default = "other"') + SECOND)
    assert unused.upstream_wire.read() == b"g3 LOGOUT\r\n"
    used.says(b"b NOOP\r\n")
    assert used.upstream_wire.read() == b"g2 NOOP\r\n"
    again = Patron(running, 2143)
    again.says(b"a LOGIN alice pw\r\n")
    assert running.reactor.tcpClients[-1][:2] == ("127.0.0.1", 10144)


def test_an_upstream_that_a_verifier_named(tmp_path: Path) -> None:
    """A connection elsewhere is as good as the upstream that it is like."""
    running = Written(tmp_path, CACHED)
    key = Key("store@192.0.2.9:143", 0, b"alice", 1)
    assert not running.service._is_outdated(key)
    running.reloads(CACHED.replace("10143", "10144"))
    assert running.service._is_outdated(key)
    assert running.service._is_outdated(key._replace(upstream="gone@192.0.2.9:143", profile=1))


# --- listeners --------------------------------------------------------------------------------------


def test_listeners_come_and_go(tmp_path: Path) -> None:
    """A new listener serves, one that is gone is closed, and its clients stay; one that stays is not bound again."""
    running = Written(tmp_path, SECOND + TOML)
    stays = running.reactor.listening[1143]
    there = running.logged_in(port=2143)
    running.reloads(THIRD + TOML)
    assert sorted(running.reactor.listening) == [1143, 3143]
    assert running.reactor.listening[1143] is stays
    there.says(b"b NOOP\r\n")
    assert there.upstream_wire.read() == b"g2 NOOP\r\n"
    assert there.protocol in running.service.sessions
    Patron(running, 3143)
    assert len(running.service.sessions) == 2
    there.leaves()
    assert len(running.service.sessions) == 1


def test_proxy_protocol_comes_and_goes(tmp_path: Path) -> None:
    """A listener that is put behind a balancer takes headers from the next client on, at the same port."""
    running = Written(tmp_path)
    port = running.reactor.listening[1143]
    proxied = TOML.replace("[upstream", 'proxy_protocol = true\ntrusted_proxies = ["127.0.0.0/8"]\n[upstream')
    running.reloads(proxied)
    assert isinstance(port.factory, TrustedProxies)
    running.reloads(TOML)
    assert isinstance(port.factory, ClientFactory)
    assert len(running.reactor.tcpServers) == 1


# --- limits, traces ---------------------------------------------------------------------------------


def test_limits(tmp_path: Path) -> None:
    """New limits are everybody's who comes from now on; those who are there keep theirs."""
    running = Written(tmp_path)
    early = Patron(running)
    running.reloads(
        TOML
        + '[limits]\nclients = 2\nlogin_time = "5s"\nfailed_login_delays = []\nupstream_connections = 3\n'
        + '[auth]\ncredential_cache = "7s"\n'
    )
    late = Patron(running)
    turned_away = running.reactor.listening[1143].factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 6))
    assert isinstance(turned_away, TurnedAway)
    gate = running.service.gate
    assert gate.pools.book.most == 3
    assert gate.pools.proofs.seconds == 7
    assert gate.penalties.failed(0.0, None, "alice") == 0.0
    running.reactor.advance(5)
    assert (early.wire.open, late.wire.open) == (True, False)


def test_extra_verbs(tmp_path: Path) -> None:
    """A verb that is new is known to new sessions."""
    running = Written(tmp_path)
    running.reloads('extra_verbs = ["XFOO"]\n' + TOML)
    assert b"Unknown" not in Patron(running).says(b"a XFOO\r\n")


def test_trace(tmp_path: Path) -> None:
    """A trace begins with the reload that brings it, for its time; one that stays is the same, and so are the taps."""
    running = Written(tmp_path)
    journal = running.service.gate.journal
    assert journal.trace is None
    tap = Tap(b"bob", lambda row: None)
    journal.taps.append(tap)
    running.reactor.advance(100)
    traced = TOML + '[trace]\nuser = "alice"\nfile = "alice.trace"\nuntil = "60s"\n'
    running.reloads(traced)
    trace = running.service.gate.journal.trace
    assert trace is not None
    running.reactor.advance(59)
    running.reloads(traced + "[limits]\nclients = 7\n")
    assert running.service.gate.journal.trace is trace
    assert running.service.gate.journal.wants_trace(b"alice")
    assert running.service.gate.journal.taps == [tap]
    running.reloads(traced.replace("60s", "90s"))
    running.reactor.advance(2)
    assert running.service.gate.journal.wants_trace(b"alice")
    running.reloads(TOML)
    assert running.service.gate.journal.trace is None
    assert running.service.gate.journal.wants_trace(b"bob")


# --- what is let go ---------------------------------------------------------------------------------


def test_f15_what_sessions_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier configuration had is let go when no session of it is left, and not before."""
    closed: list[Assembly] = []
    monkeypatch.setattr(Assembly, "close", lambda self: closed.append(self))
    running = Written(tmp_path)
    earlier = running.service.assembly
    early = Patron(running)
    running.reloads(TOML)
    running.reactor.advance(50)
    early.says(b"a LOGIN alice pw\r\n")
    assert early.protocol.gate.directory is earlier.directory
    running.reactor.advance(50)
    assert closed == []
    early.leaves()
    running.reactor.advance(1)
    assert closed == [earlier]


def test_the_command_lines_configuration(tmp_path: Path) -> None:
    """A configuration that came from no file is made anew as it is."""
    running = Written(tmp_path)
    before = everything(running)
    running.service.reload()
    assert everything(running)[2] == before[2]
    assert running.service.assembly is not before[1]
