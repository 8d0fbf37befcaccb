"""A client whose session is watched: whoever takes time, nothing is lost, doubled, told too early or left behind."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from imapgate.audit.trail import Durability
from imapgate.limits import DEFAULTS
from imapgate.model.verdict import Disconnect, Reject, Verdict
from imapgate.net import client as module
from imapgate.net.client import ClientProtocol
from imapgate.net.proxy_protocol import TrustedProxies
from imapgate.session.effects import Auditing, Free, Hold, Reason, Side
from tests.audit.trails import Bed
from tests.net.sessions import IMPLICIT, LOGIN, OK, PLAINTEXT, STARTTLS, UPSTREAM_GREETING, Session, mailbox
from tests.net.watching import COMMANDS, EVENTS, EVERYTHING, Disk, Oracle, Watched, watched
from tests.net.wires import Wire, bench, connect, drop

TLS = "TLSv1.3 TLS_AES_256_GCM_SHA384"
SLOW = [Reject(), None, Disconnect()]
BYE = b"* BYE [UNAVAILABLE] The audit trail cannot be written\r\n"


@pytest.fixture
def encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handshakes of these wires have come to this."""
    monkeypatch.setattr(module, "describe", lambda transport: TLS)
    monkeypatch.setattr(module, "server_name", lambda transport: "imap.example.org")


# --- the beginning ----------------------------------------------------------------------------------


def test_greeted_when_the_plugins_have_seen_it() -> None:
    """Nothing is said before; what the client says too early is kept, and it is not read from meanwhile."""
    oracle, disk = Oracle(EVENTS, "session_opened"), Disk(durable=False)
    session = Watched(oracle, disk=disk).connected()
    assert session.says(b"a CAPABILITY\r\n") == b""
    assert session.wire.paused
    assert session.says(b"b NO") == b""
    oracle.says()
    told = session.wire.read()
    assert told.startswith(b"* OK [CAPABILITY ")
    assert [line.split()[0] for line in told.splitlines()] == [b"*", b"*", b"a"]
    assert not session.wire.paused
    assert session.says(b"OP\r\n").startswith(b"b OK ")
    assert oracle.asked == ["session_opened"]
    assert disk.events == ["session.open ok"]


def test_sent_away_at_the_door() -> None:
    """A plugin that wants the client to go has its words said, and nothing that came is done."""
    oracle, disk = Oracle(EVENTS, "session_opened"), Disk(durable=False)
    session = Watched(oracle, disk=disk).connected()
    session.says(b"a CAPABILITY\r\n")
    oracle.says(Disconnect("Closed on Sundays", "sunday"))
    assert session.wire.read() == b"* BYE Closed on Sundays\r\n"
    assert not session.wire.open
    assert session.reason() == "stopped"
    assert disk.events == ["session.open ok", "policy.deny denied", "session.close ok"]
    assert disk.fields("policy.deny")["policy.rule"] == "sunday"
    session.at_rest()


def test_a51_gone_before_it_was_greeted() -> None:
    """A verdict on a client that has gone, or was told to go, is for nobody."""
    for stopped in (False, True):
        oracle = Oracle(EVENTS, "session_opened")
        session = Watched(oracle).connected()
        if stopped:
            session.protocol.stop(b"Going down")
            assert session.wire.read() == b"* BYE Going down\r\n"
            oracle.says()
            assert session.wire.read() == b""
            drop(session.protocol, session.wire)
        else:
            drop(session.protocol, session.wire)
            oracle.says()
        assert session.wire.read() == b""
        assert session.gone == [session.protocol]
        assert oracle.closed == ["stopped" if stopped else "client closed"]
        session.at_rest()


def test_half_closed_before_it_was_greeted() -> None:
    """What a client said before it closed its side is answered, and then it is over."""
    oracle = Oracle(EVENTS, "session_opened")
    session = Watched(oracle).connected()
    session.says(b"a NOOP\r\n")
    session.protocol.readConnectionLost()
    oracle.says()
    assert b"\r\na OK " in session.wire.read()
    assert not session.wire.open
    assert session.reason() == "client closed"


def test_f19_the_verdict_of_a_plugin_that_hangs() -> None:
    """A client is not left at the door for ever: the plugin's time-out is a verdict."""
    oracle = Oracle(EVENTS, "session_opened")
    session = Watched(oracle).connected()
    session.clock.advance(60.0)
    assert session.wire.read().startswith(b"* BYE ")
    assert [fault.kind for fault in session.faults] == ["timeout"]


@pytest.mark.usefixtures("encrypted")
def test_implicit_tls() -> None:
    """The session begins when TLS is up: both hooks are asked, in order, and the records say what it is."""
    oracle, disk = Oracle(EVENTS, "tls_started"), Disk(durable=False)
    session = Watched(oracle, disk=disk, door=IMPLICIT).connected()
    assert (oracle.asked, disk.events) == ([], [])
    session.protocol.handshakeCompleted()
    assert oracle.asked == ["session_opened", "tls_started"]
    assert session.wire.read() == b""
    oracle.says()
    assert session.wire.read().startswith(b"* OK ")
    fields = disk.fields("session.open")
    assert (fields["tls.protocol"], fields["tls.cipher"]) == ("TLSv1.3", "TLS_AES_256_GCM_SHA384")
    view = oracle.sessions[0]
    assert (view.tls, view.server_name, view.address, view.listener) == (TLS, "imap.example.org", "192.0.2.7", "public")


def test_a_handshake_that_fails_is_no_session() -> None:
    """What never began is not recorded as over; the plugins are told all the same that they can forget it."""
    oracle, disk = Oracle(EVENTS), Disk()
    session = Watched(oracle, disk=disk, door=IMPLICIT).connected()
    session.lost()
    assert (oracle.asked, oracle.closed, disk.events) == ([], ["client closed"], [])


@pytest.mark.usefixtures("encrypted")
@pytest.mark.parametrize("verdict", [None, Disconnect("No TLS today")])
def test_starttls(verdict: Verdict | None) -> None:
    """After STARTTLS only TLS is asked about; what the client says under TLS meanwhile is done after the verdict."""
    oracle, disk = Oracle(EVENTS, "tls_started"), Disk(durable=False)
    session = Watched(oracle, disk=disk, door=STARTTLS).connected()
    session.wire.clear()
    assert session.says(b"a STARTTLS\r\n").startswith(b"a OK ")
    session.protocol.handshakeCompleted()
    assert session.says(b"b CAPABILITY\r\n") == b""
    assert session.wire.paused
    oracle.says(verdict)
    told = session.wire.read()
    if verdict is None:
        assert told.startswith(b"* CAPABILITY ")
        assert b"AUTH=PLAIN" in told
        assert b"\r\nb OK " in told
        assert not session.wire.paused
    else:
        assert told == b"* BYE No TLS today\r\n"
    assert oracle.asked == ["session_opened", "tls_started"]
    session.lost()
    assert disk.events[0 :: len(disk.events) - 1] == ["session.open ok", "session.close ok"]
    assert "tls.protocol" not in disk.fields("session.open")
    assert disk.fields("session.close")["tls.protocol"] == "TLSv1.3"


@pytest.mark.parametrize(
    ("balancer", "via"),
    [(IPv4Address("TCP", "198.51.100.9", 4000), "198.51.100.9"), (UNIXAddress(None), None)],
)
def test_a44_who_it_came_by(balancer: IAddress, via: str | None) -> None:
    """Behind a balancer the client is whom the header names, and the balancer is whom it came by."""
    disk = Disk(durable=False)
    made = watched(bench(), disk=disk)

    class Door(Factory):
        def buildProtocol(self, addr: IAddress | None) -> ClientProtocol:
            return ClientProtocol(made.gate, PLAINTEXT, addr.host, "0123456789ab", lambda gone: None)  # type: ignore[union-attr]

    factory = TrustedProxies(Door(), [ip_network("0.0.0.0/0")], 5.0, made.clock, trust_unix=True)
    outside = factory.buildProtocol(balancer)
    assert outside is not None
    wire = connect(outside, Wire(balancer))
    outside.dataReceived(b"PROXY TCP4 203.0.113.5 192.0.2.1 40000 143\r\n")
    assert wire.read().startswith(b"* OK ")
    fields = disk.fields("session.open")
    assert (fields["client.address"], fields["client.port"]) == ("203.0.113.5", 40000)
    assert fields.get("client.via") == via
    drop(outside, wire)
    assert disk.events == ["session.open ok", "session.close ok"]


def test_a_unix_client_has_no_address() -> None:
    """Of a client on a Unix socket there is no address to record, and none to show."""
    oracle, disk = Oracle(EVENTS), Disk(durable=False)
    session = Watched(oracle, disk=disk, peer=UNIXAddress(None)).connected()
    assert not {"client.address", "client.port", "client.via"} & set(disk.fields("session.open"))
    assert oracle.sessions[0].address == ""
    session.lost()


# --- what is recorded -------------------------------------------------------------------------------


def test_a_whole_session() -> None:
    """From the opening to the close each record says whose session it is, as far as that was known."""
    disk = Disk(durable=False)
    session = Watched(disk=disk).connected()
    session.says(b'i ID ("name" "Mail \\"5\\"" "x-originating-ip" "6.6.6.6")\r\n')
    session.says(LOGIN)
    session.dials()
    session.clock.advance(2.5)
    session.upstream_wire.clear()
    session.wire.clear()
    octets = session.protocol.octets_in, session.protocol.octets_out
    session.lost()
    assert disk.events == ["session.open ok", "auth.success ok", "session.close ok"]
    opened, entered, closed = (fields for _, _, fields in disk.taken)
    assert opened == {
        "session.id": "0123456789ab", "listener": "public", "client.address": "192.0.2.7", "client.port": 50000,
    }  # fmt: skip
    known = {
        **opened, "client.asserted": {"name": 'Mail "5"'}, "user.name": "alice", "user.effective": "alice",
        "upstream": "mail",
    }  # fmt: skip
    assert entered == {**known, "auth.mechanism": "PLAIN"} or entered == {**known, "auth.mechanism": "LOGIN"}
    assert closed == {
        **known, "reason": "client closed", "session.commands": 2, "session.octets_in": octets[0],
        "session.octets_out": octets[1], "duration": 2.5,
    }  # fmt: skip


def test_logins_that_fail() -> None:
    """Each is recorded with why, and whose it was said to be; nothing of it stays with the session."""
    oracle, disk = Oracle(EVENTS), Disk(durable=False)
    session = Watched(oracle, disk=disk).connected()
    session.wire.clear()
    session.says(LOGIN)
    session.made.endpoints[0].refuses()
    assert session.wire.read().startswith(b"a NO [UNAVAILABLE] ")
    oracle.verdicts["authenticated"] = Reject("NOPERM", "Not you", "list")
    session.says(b"b LOGIN alice pw\r\n")
    session.dials()
    assert session.wire.read() == b"b NO [NOPERM] Not you\r\n"
    view = oracle.sessions[0]
    assert (view.user, view.upstream) == ("", "")
    drop(session.upstream, session.upstream_wire)
    oracle.verdicts.clear()
    session.says(b"c LOGIN alice pw\r\n")
    session.upstream, session.upstream_wire = session.made.endpoints[0].opens(UPSTREAM_GREETING)
    session.upstream.dataReceived(b"g1 NO no\r\n")
    session.clock.advance(60.0)
    assert session.wire.read().startswith(b"c NO [AUTHENTICATIONFAILED] ")
    assert disk.events[1:] == [
        "auth.failure error", "policy.deny denied", "auth.failure denied", "auth.failure no",
    ]  # fmt: skip
    assert [fields["reason"] for event, _, fields in disk.taken if event == "auth.failure"] == [
        "refused", "policy", "credentials",
    ]  # fmt: skip
    assert disk.fields("auth.failure")["user.name"] == "alice"
    session.lost()
    assert "user.effective" not in disk.fields("session.close")
    assert session.made.gate.census.log_in("192.0.2.7", b"alice")


def test_f14_no_login_is_granted_unrecorded() -> None:
    """While the trail cannot be written a login is refused before anybody is dialled."""
    disk = Disk()
    session = Watched(disk=disk).connected()
    disk.writes()
    session.wire.clear()
    disk.failing = "the disk is full"
    session.says(LOGIN)
    assert session.made.endpoints[0].calls == []
    assert b"a OK" not in session.wire.read()


def test_capabilities_are_shown_as_the_plugins_want_it() -> None:
    """In the greeting, after the login, and whenever they are asked for."""
    oracle = Oracle(EVERYTHING)
    oracle.hides = "AUTH=LOGIN"
    session = Watched(oracle).connected()
    assert b"AUTH=LOGIN" not in session.wire.read()
    oracle.hides = "IDLE"
    session.says(LOGIN)
    session.dials()
    told = session.wire.read()
    assert b"a OK [CAPABILITY IMAP4rev1 " in told
    assert b"IDLE" not in told


# --- judging ----------------------------------------------------------------------------------------


def test_a26_a_command_waits_for_its_verdict() -> None:
    """Upstream has not seen it; more of the client is taken once, and then it is held until the verdict."""
    oracle = Oracle(COMMANDS, "command NOOP")
    session = Watched(oracle).enters()
    assert session.says(b"b NOOP\r\n") == b""
    assert session.held == []
    session.says(b"c CHECK\r\n")
    assert session.held == ["answer awaited"]
    assert session.upstream_wire.read() == b""
    session.upstream.dataReceived(b"* 3 EXISTS\r\n")
    assert session.wire.read() == b"* 3 EXISTS\r\n"
    oracle.says()
    assert session.upstream_wire.read() == b"g2 NOOP\r\ng3 CHECK\r\n"
    assert session.held == []
    assert oracle.asked == ["command NOOP", "command CHECK"]


def test_refused_late() -> None:
    """A command that is refused is answered, upstream never sees it, and the next one is done."""
    oracle = Oracle(COMMANDS, "command NOOP")
    session = Watched(oracle).enters()
    session.says(b"b NOOP\r\nc CHECK\r\n")
    oracle.says(Reject("NOPERM", "No"))
    assert session.wire.read() == b"b NO [NOPERM] No\r\n"
    assert session.upstream_wire.read() == b"g2 CHECK\r\n"


@pytest.mark.parametrize("verdict", SLOW)
@pytest.mark.parametrize("way", ["goes", "stopped", "upstream lost"])
def test_a51_a_verdict_that_comes_too_late(verdict: Verdict | None, way: str) -> None:
    """Whatever it says, nothing is sent to anybody, and nothing is recorded, after the end."""
    oracle, disk = Oracle(EVERYTHING, "command NOOP"), Disk(durable=False)
    session = Watched(oracle, disk=disk).enters()
    session.says(b"b NOOP\r\n")
    if way == "stopped":
        session.protocol.stop(b"Going down")
        assert session.wire.read() == b"* BYE Going down\r\n"
    elif way == "upstream lost":
        drop(session.upstream, session.upstream_wire)
        assert session.wire.read().startswith(b"* BYE ")
    else:
        session.lost()
    sent = session.upstream_wire.read()
    oracle.says(verdict)
    assert session.wire.read() == b""
    assert sent in (b"", b"g2 LOGOUT\r\n")
    assert session.upstream_wire.read() == b""
    if way != "goes":
        session.lost()
    assert disk.events[-1] == "session.close ok"
    assert disk.events.count("session.close ok") == 1
    if session.upstream_wire.connected:
        drop(session.upstream, session.upstream_wire)
    assert session.made.stages() == []
    session.at_rest()


def test_a_response_waits_for_its_verdict() -> None:
    """What came with it stays behind it, upstream is held, and the order is kept when it goes on."""
    oracle = Oracle(EVERYTHING, "untagged EXISTS")
    session = Watched(oracle).enters()
    session.says(b"b CHECK\r\n")
    session.upstream.dataReceived(b"* 1 EXISTS\r\n* 2 RECENT\r\n")
    assert session.upstream_held == ["verdict awaited"]
    session.upstream.dataReceived(b"g2 OK done\r\n")
    assert session.upstream_held == ["verdict awaited"]
    assert session.wire.read() == b""
    oracle.says()
    assert session.wire.read() == b"* 1 EXISTS\r\n* 2 RECENT\r\nb OK done\r\n"
    assert session.upstream_held == []
    assert not session.upstream_wire.paused


def test_one_response_after_the_other() -> None:
    """A second question comes up with the verdict on the first: upstream is held until nothing is open."""
    oracle = Oracle(EVERYTHING, "untagged EXISTS")
    session = Watched(oracle).enters()
    session.upstream.dataReceived(b"* 1 EXISTS\r\n* 2 EXISTS\r\n")
    oracle.says()
    assert session.wire.read() == b"* 1 EXISTS\r\n"
    assert len(oracle.waiting) == 1
    oracle.says(Reject())
    session.upstream.dataReceived(b"* 4 RECENT\r\n")
    assert session.wire.read() == b"* 4 RECENT\r\n"
    assert session.upstream_held == []


def test_both_sides_are_judged() -> None:
    """A question stops its own side and no other; each verdict goes to the side that it is about."""
    oracle = Oracle(EVERYTHING, "command NOOP", "untagged EXISTS")
    session = Watched(oracle).enters()
    session.upstream.dataReceived(b"* 1 EXISTS\r\n")
    session.says(b"b NOOP\r\n")
    assert session.upstream_held == ["verdict awaited"]
    assert oracle.asked[-1] == "untagged EXISTS"
    oracle.says()
    assert session.wire.read() == b"* 1 EXISTS\r\n"
    assert session.upstream_held == []
    assert session.upstream_wire.read() == b""
    session.upstream.dataReceived(b"* 2 EXISTS\r\n")
    oracle.says(Reject("NOPERM", "No"))
    assert session.wire.read() == b"b NO [NOPERM] No\r\n"
    assert session.upstream_held == ["verdict awaited"]
    oracle.says()
    assert session.wire.read() == b"* 2 EXISTS\r\n"


@pytest.mark.parametrize("way", ["client", "upstream", "stopped"])
def test_a51_gone_while_a_response_is_judged(way: str) -> None:
    """Whoever goes first, nothing more is said of the response, and its connection is read from again."""
    oracle, disk = Oracle(EVERYTHING, "completed CREATE"), Disk(durable=False)
    session = Watched(oracle, disk=disk, made=mailbox()).enters()
    session.upstream.dataReceived(b"g2 OK done\r\n")
    session.says(b"b CREATE Box\r\n")
    session.upstream_wire.clear()
    session.upstream.dataReceived(b"g3 OK done\r\n")
    assert session.upstream_held == ["verdict awaited"]
    if way == "client":
        session.lost()
    elif way == "stopped":
        session.protocol.stop(b"Going down")
        assert session.wire.read() == b"* BYE Going down\r\n"
    else:
        drop(session.upstream, session.upstream_wire)
        assert session.wire.read().startswith(b"* BYE ")
    assert session.protocol.lease is None
    oracle.says()
    assert session.wire.read() == b""
    if way != "client":
        session.lost()
    if way != "upstream":  # which has said all that it owes: the connection may be given back
        assert session.upstream_wire.read() == b"g4 NOOP\r\n"
        assert session.upstream_held == []
        drop(session.upstream, session.upstream_wire)
    assert session.made.stages() == []
    assert disk.events[-1] == "session.close ok"
    session.at_rest()


def test_mailbox_mode_gives_back_after_the_verdict() -> None:
    """A connection is not given back while its last response is judged, and is free of the verdict then."""
    oracle = Oracle(EVERYTHING, "completed CREATE")
    session = Watched(oracle, made=mailbox()).enters()
    session.upstream.dataReceived(b"g2 OK done\r\n")
    session.says(b"b CREATE Box\r\n")
    session.upstream_wire.clear()
    session.upstream.dataReceived(b"g3 OK done\r\n")
    assert session.made.stages() == ["leased"]
    oracle.says()
    assert session.wire.read() == b"b OK done\r\n"
    assert session.upstream_held == []
    assert session.made.stages() == ["resetting"]
    session.upstream.dataReceived(b"g4 OK done\r\n")
    assert session.made.stages() == ["idle"]


def test_dismissed_while_it_logs_in() -> None:
    """A plugin that ends the session at the login has its words said, as the last ones."""
    oracle, disk = Oracle(EVENTS), Disk(durable=False)
    oracle.verdicts["credentials"] = Disconnect("Go away")
    session = Watched(oracle, disk=disk).connected()
    session.wire.clear()
    assert session.says(LOGIN) == b"* BYE Go away\r\n"
    assert not session.wire.open
    session.lost()
    assert disk.events == ["session.open ok", "policy.deny denied", "session.close ok"]
    session.at_rest()


def test_nothing_is_left_of_a_login_whose_client_goes() -> None:
    """A client that goes while a plugin thinks about its login leaves no connection, and no place in the census."""
    oracle, disk = Oracle(EVENTS, "authenticated"), Disk(durable=False)
    session = Watched(oracle, disk=disk).connected()
    session.says(LOGIN)
    session.dials()
    assert session.protocol.user == b"alice"
    session.lost()
    assert not session.upstream_wire.open
    drop(session.upstream, session.upstream_wire)
    oracle.says()
    assert session.made.stages() == []
    assert disk.events == ["session.open ok", "session.close ok"]
    session.at_rest()


# --- durable: the loop stands still -----------------------------------------------------------------


def durable(*plugins: Oracle, **more: object) -> tuple[Watched, Disk]:
    """A session that has logged in, at a gate that records durably; what it did so far is on disk."""
    disk = Disk()
    session = Watched(*plugins, disk=disk, **more).connected()  # type: ignore[arg-type]
    session.wire.clear()
    session.says(LOGIN)
    session.dials()
    assert session.wire.read() == b""
    disk.writes()
    assert session.wire.read().startswith(b"a OK ")
    session.upstream_wire.clear()
    return session, disk


def stored(session: Watched) -> None:
    """A command whose outcome is recorded, and which upstream has done."""
    session.says(b"b CREATE Box\r\n")
    assert session.upstream_wire.read() == b"g2 CREATE Box\r\n"
    session.upstream.dataReceived(b"g2 OK created\r\n")


def test_f14_nobody_is_told_before_it_is_on_disk() -> None:
    """A login is not answered, and nobody is heard, before its record is on disk."""
    disk = Disk()
    session = Watched(disk=disk).connected()
    session.wire.clear()
    session.says(LOGIN)
    session.dials()
    assert disk.events == ["session.open ok", "auth.success ok"]
    assert session.wire.read() == b""
    assert session.held == session.upstream_held == ["audit record awaited"]
    disk.writes()
    assert session.wire.read().startswith(b"a OK ")
    assert session.held == session.upstream_held == []
    assert not session.wire.paused
    assert not session.upstream_wire.paused


def test_f14_an_outcome_is_told_when_it_is_on_disk() -> None:
    """Of a command that is done nobody hears, and what comes meanwhile stays behind it, in order."""
    session, disk = durable()
    stored(session)
    assert disk.events[-1] == "mailbox.create ok"
    assert session.held == session.upstream_held == ["audit record awaited"]
    session.says(b"c NOOP\r\n")
    session.upstream.dataReceived(b"* 3 EXISTS\r\n")
    assert session.wire.read() == b""
    assert session.upstream_wire.read() == b""
    disk.writes()
    assert session.wire.read() == b"b OK created\r\n* 3 EXISTS\r\n"
    assert session.upstream_wire.read() == b"g3 NOOP\r\n"
    assert session.held == session.upstream_held == []


def test_what_needs_no_record_waits_for_nobody() -> None:
    """A command of which nothing is recorded is answered at once."""
    session, disk = durable()
    session.says(b"b NOOP\r\n")
    session.upstream.dataReceived(b"g2 OK done\r\n")
    assert session.wire.read() == b"b OK done\r\n"
    assert disk.waiting == []


def test_an_id_is_no_record() -> None:
    """What a client says it is waits for nothing, whoever else's records are not on disk."""
    session, disk = durable()
    disk.record("config.reload", "ok", {})
    assert b"b OK " in session.says(b'b ID ("name" "x")\r\n')
    assert disk.waiting == []


@pytest.mark.parametrize("at_once", [False, True])
def test_f14_what_cannot_be_recorded_is_not_told(at_once: bool) -> None:
    """The client hears no OK but why it has to go, upstream hears nothing more, and the connection is destroyed."""
    session, disk = durable()
    if at_once:  # the trail fails already when the record is to be waited for
        session.says(b"b CREATE Box\r\nc NOOP\r\n")
        assert session.upstream_wire.read() == b"g2 CREATE Box\r\ng3 NOOP\r\n"
        disk.failing = "the disk is full"
        session.upstream.dataReceived(b"g2 OK created\r\n")
    else:
        stored(session)
        session.says(b"c NOOP\r\n")
        disk.fails()
    assert session.wire.read() == BYE
    assert not session.wire.open
    assert session.upstream_wire.read() == b""
    assert not session.upstream_wire.open
    drop(session.upstream, session.upstream_wire)
    assert session.made.stages() == []
    assert session.reason() == "audit trail cannot be written"
    assert disk.events[-1] == "session.close ok"
    session.at_rest()


@pytest.mark.parametrize("at_once", [False, True])
def test_f14_others_are_in_flight_when_it_fails(at_once: bool) -> None:
    """The client is told once why it has to go, also where more was to be recorded: of what nobody knows the end."""
    session, disk = durable()
    session.says(b"b CREATE Box\r\nc DELETE Box\r\nd CREATE Other\r\n")
    session.upstream_wire.clear()
    if at_once:
        disk.failing = "the disk is full"
    session.upstream.dataReceived(b"g2 OK created\r\n")
    session.upstream.dataReceived(b"g3 OK deleted\r\n")
    disk.fails()
    assert session.wire.read() == BYE
    drop(session.upstream, session.upstream_wire)
    session.lost()
    expected = ["mailbox.create ok", "mailbox.delete ok", "mailbox.create unknown", "session.close ok"]
    if at_once:  # upstream was given up before it could say more
        expected[1] = "mailbox.delete unknown"
    assert disk.events[2:] == expected
    session.at_rest()


@pytest.mark.parametrize("next_one", [b"", b"* 2 FETCH (UID 6 BODY[] {60}\r\nx"])
@pytest.mark.parametrize("at_once", [False, True])
def test_f14_cut_off_inside_a_response(at_once: bool, next_one: bytes) -> None:
    """A client that has been sent a part of a message hears nothing more: it would look like the rest of it."""
    session, disk = durable()
    session.says(b"b SELECT INBOX\r\n")
    session.upstream.dataReceived(b"* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\ng2 OK [READ-WRITE] done\r\n")
    disk.writes()
    session.says(b"c UID FETCH 5 BODY[]\r\n")
    session.wire.clear()
    session.upstream.dataReceived(b"* 1 FETCH (UID 5 BODY[] {60}\r\n" + b"x" * 30)
    session.upstream.dataReceived(b"x" * 10)
    sent = session.wire.read()
    assert sent.endswith(b"x" * 40)
    if at_once:
        disk.failing = "the disk is full"
    session.upstream.dataReceived(b"x" * 20 + b")\r\ng3 OK done\r\n" + next_one)
    if not at_once:
        disk.fails()
    assert session.wire.read() == b""
    assert session.wire.disconnected
    drop(session.upstream, session.upstream_wire)
    session.lost()
    assert session.made.stages() == []
    session.at_rest()


@pytest.mark.parametrize("at_once", [False, True])
def test_f14_a_login_that_cannot_be_recorded(at_once: bool) -> None:
    """A login whose record fails is not granted, and its connection is nobody's."""
    disk = Disk()
    session = Watched(disk=disk).connected()
    session.wire.clear()
    session.says(LOGIN)
    if at_once:
        session.upstream, session.upstream_wire = session.made.endpoints[0].opens(UPSTREAM_GREETING)
        disk.failing = "the disk is full"
        session.upstream.dataReceived(OK)
    else:
        session.dials()
        disk.fails()
    assert session.wire.read() == BYE
    assert not session.wire.open
    assert not session.upstream_wire.open
    drop(session.upstream, session.upstream_wire)
    session.lost()
    assert session.made.stages() == []
    assert session.made.gate.census.log_in("192.0.2.7", b"alice")
    session.at_rest()


@pytest.mark.parametrize("late", ["writes", "fails"])
def test_a51_gone_while_the_disk_is_awaited(late: str) -> None:
    """Its connection is free at once, its close is its last record, and the disk's answer is for nobody."""
    session, disk = durable()
    stored(session)
    session.says(b"c DELETE Box\r\n")
    session.lost()
    assert session.protocol.lease is None
    assert session.upstream_held == []
    assert session.upstream_wire.read() == b""
    assert not session.upstream_wire.open
    drop(session.upstream, session.upstream_wire)
    assert session.made.stages() == []
    events = list(disk.events)
    assert events[-1] == "session.close ok"
    getattr(disk, late)()
    assert disk.events == events
    assert session.wire.read() == b""
    assert session.gone == [session.protocol]
    session.at_rest()


@pytest.mark.parametrize("late", ["writes", "fails"])
def test_a51_gone_while_the_record_of_its_login_is_awaited(late: str) -> None:
    """A login that nobody was told of leaves no place in the census, and no connection."""
    disk = Disk()
    session = Watched(disk=disk).connected()
    session.says(LOGIN)
    session.dials()
    session.lost()
    assert not session.upstream_wire.open
    drop(session.upstream, session.upstream_wire)
    getattr(disk, late)()
    assert disk.events == ["session.open ok", "auth.success ok", "session.close ok"]
    assert disk.fields("session.close")["user.name"] == "alice"
    assert session.made.stages() == []
    assert len(session.made.gate.census._users) == 0
    session.at_rest()


@pytest.mark.parametrize("fails", [False, True])
def test_ended_while_the_disk_is_awaited(fails: bool) -> None:
    """A session that is stopped then is told so behind what it waits for, or is closed without it."""
    session, disk = durable()
    stored(session)
    session.protocol.stop(b"Going down")
    assert session.wire.read() == b""
    assert session.wire.open
    if fails:
        disk.fails()
        assert session.wire.read() == b""
    else:
        disk.writes()
        assert session.wire.read() == b"b OK created\r\n* BYE Going down\r\n"
    assert not session.wire.open
    assert not session.upstream_wire.open
    drop(session.upstream, session.upstream_wire)
    session.lost()
    assert session.made.stages() == []
    session.at_rest()


def test_stopped_and_gone_while_the_disk_is_awaited() -> None:
    """What waited to be closed is closed once."""
    session, disk = durable()
    stored(session)
    session.protocol.stop(b"Going down")
    session.lost()
    disk.writes()
    drop(session.upstream, session.upstream_wire)
    assert session.made.stages() == []
    assert disk.events.count("session.close ok") == 1
    session.at_rest()


def test_upstream_dies_while_the_disk_is_awaited() -> None:
    """The connection leaves the book when it dies; the client hears what was done, and then that it is over."""
    session, disk = durable()
    stored(session)
    drop(session.upstream, session.upstream_wire)
    assert session.protocol.lease is None
    assert session.made.stages() == []
    assert session.wire.read() == b""
    disk.writes()
    assert session.made.stages() == []
    told = session.wire.read()
    assert told.startswith(b"b OK created\r\n* BYE [UNAVAILABLE] ")
    assert not session.wire.open
    session.lost()
    assert session.made.stages() == []
    session.at_rest()


def test_a_client_that_takes_nothing_while_the_disk_is_awaited() -> None:
    """It is given up as ever."""
    session, disk = durable()
    stored(session)
    session.wire.fills()
    session.clock.advance(DEFAULTS.client_stall)
    assert session.wire.disconnected
    session.lost()
    disk.writes()
    drop(session.upstream, session.upstream_wire)
    assert session.made.stages() == []
    session.at_rest()


def test_timers_go_on_while_the_disk_is_awaited() -> None:
    """A look at a time limit that comes then is followed by the next, when it goes on."""
    session, disk = durable()
    stored(session)
    session.clock.advance(DEFAULTS.client_idle / 8)
    assert session.wire.read() == b""
    disk.writes()
    assert session.wire.read() == b"b OK created\r\n"
    session.clock.pump([DEFAULTS.client_idle / 8] * 8)
    assert session.wire.read().startswith(b"* BYE ")


def test_mailbox_mode_gives_back_when_it_is_on_disk() -> None:
    """A connection goes back behind the answer, and with nothing left of the wait."""
    session, disk = durable(made=mailbox())
    session.upstream.dataReceived(b"g2 OK done\r\n")
    assert session.made.stages() == ["idle"]
    session.says(b"b CREATE Box\r\n")
    assert session.upstream_wire.read() == b"g3 CREATE Box\r\n"
    session.upstream.dataReceived(b"g3 OK created\r\n")
    assert session.made.stages() == ["leased"]
    disk.writes()
    assert session.wire.read() == b"b OK created\r\n"
    assert session.made.stages() == ["resetting"]
    assert session.upstream_held == []


def test_mailbox_mode_gone_while_the_disk_is_awaited() -> None:
    """A connection whose last command is done goes back as ever, though its client has gone."""
    session, disk = durable(made=mailbox())
    session.upstream.dataReceived(b"g2 OK done\r\n")
    session.says(b"b CREATE Box\r\n")
    session.upstream_wire.clear()
    session.upstream.dataReceived(b"g3 OK created\r\n")
    session.lost()
    assert session.made.stages() == ["resetting"]
    assert session.upstream_held == []
    assert session.upstream_wire.read() == b"g4 NOOP\r\n"
    session.upstream.dataReceived(b"g4 OK done\r\n")
    drop(session.upstream, session.upstream_wire)
    assert session.made.stages() == []
    disk.writes()
    assert disk.events[-2:] == ["mailbox.create ok", "session.close ok"]


def test_a_verdict_that_comes_while_the_disk_is_awaited() -> None:
    """What follows from it stands behind what waits."""
    oracle = Oracle(COMMANDS, "command NOOP")
    session, disk = durable(oracle)
    session.says(b"b CREATE Box\r\nc NOOP\r\n")
    session.upstream_wire.clear()
    session.upstream.dataReceived(b"g2 OK created\r\n")
    oracle.says()
    assert session.upstream_wire.read() == b""
    disk.writes()
    assert session.wire.read() == b"b OK created\r\n"
    assert session.upstream_wire.read() == b"g3 NOOP\r\n"


def test_a_refusal_is_told_when_it_is_on_disk() -> None:
    """A command that a plugin refuses is answered when that is recorded."""
    oracle = Oracle(COMMANDS)
    oracle.verdicts["command DELETE"] = Reject("NOPERM", "No", "rule")
    session, disk = durable(oracle)
    assert session.says(b"b DELETE Box\r\n") == b""
    assert disk.events[-1] == "policy.deny denied"
    disk.writes()
    assert session.wire.read() == b"b NO [NOPERM] No\r\n"
    assert session.upstream_wire.read() == b""


def test_mailbox_mode_has_no_upstream_to_hold() -> None:
    """Where the session is without a connection only its client is held."""
    oracle = Oracle(COMMANDS)
    oracle.verdicts["command DELETE"] = Reject("NOPERM", "No")
    session, disk = durable(oracle, made=mailbox())
    session.upstream.dataReceived(b"g2 OK done\r\n")
    assert session.protocol.lease is None
    assert session.says(b"b DELETE Box\r\n") == b""
    assert (session.held, session.upstream_held) == (["audit record awaited"], [])
    disk.writes()
    assert session.wire.read() == b"b NO [NOPERM] No\r\n"
    assert session.held == []


@pytest.mark.parametrize("reason", [Reason.PIPELINE, Reason.CONTINUATION, Reason.VERDICT, Reason.ANSWER])
def test_held_for_its_own_reason_and_no_other(reason: Reason) -> None:
    """What is freed is what was held: a client that may speak once more is held when it does, whatever is awaited."""
    session = Watched(Oracle(COMMANDS)).connected()
    session.protocol.perform([Hold(Side.CLIENT, reason)])
    soft = reason in (Reason.VERDICT, Reason.ANSWER)
    assert session.wire.paused is not soft
    session.says(b"a NOOP\r\n")
    assert session.wire.paused
    other = Reason.PIPELINE if soft else Reason.VERDICT
    session.protocol.perform([Free(Side.CLIENT, other)])
    assert session.wire.paused
    session.protocol.perform([Free(Side.CLIENT, reason)])
    assert not session.wire.paused
    session.says(b"b NOOP\r\n")
    assert not session.wire.paused


def test_f14_with_a_trail_of_its_own(tmp_path: Path) -> None:
    """What a client was told is in the file, and what is not in the file it was not told."""
    bed = Bed(tmp_path)
    trail = bed.trail(Durability.DURABLE)
    trail.start()
    made = bench()
    auditing = Auditing(True, made.clock.seconds, lambda: trail.failing, lambda criteria: {})
    session = Session(made=made._replace(gate=made.gate._replace(trail=trail, auditing=auditing))).connected()
    session.says(LOGIN)
    bed.threads.held = True
    session.wire.clear()
    session.upstream, session.upstream_wire = made.endpoints[0].opens(UPSTREAM_GREETING)
    session.upstream.dataReceived(OK)
    bed.passes(1.0)
    assert session.wire.read() == b""
    assert "auth.success" not in bed.path.read_text()
    bed.threads.release()
    bed.passes(0.1)
    assert session.wire.read().startswith(b"a OK ")
    assert "auth.success" in bed.path.read_text()
    session.lost()
    trail.stop()
    bed.passes(20.0)
    assert [event for event in bed.events() if not event.startswith("checkpoint")] == [
        "session.open", "auth.success", "session.close",
    ]  # fmt: skip


def test_of_no_interest() -> None:
    """Where the plugins want nothing of a user's commands the session is not slowed by them."""
    session = Watched(Oracle(EVENTS)).enters()
    assert session.says(b"b NOOP\r\n") == b""
    assert session.upstream_wire.read() == b"g2 NOOP\r\n"
