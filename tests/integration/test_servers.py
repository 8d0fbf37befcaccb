"""The real servers do what the other tests rely on."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import User
from tests.integration.gate import Gate, toml, upstream_of
from tests.integration.servers import (
    CertificateAuthority,
    Courier,
    Cyrus,
    Dovecot,
    Server,
    ServerFailed,
    free_port,
    wait_until,
)
from tests.integration.servers.base import CLONE, accepts, family, processes
from tests.integration.wire import Wire, WireClosed, WireTimeout, connect, quoted, tls_context

MESSAGE = b"Subject: smoke\r\n\r\na5 OK done\r\n{30}\r\nlast line\r\n"

NewUser = Callable[..., User]


def fetched(wire: Wire) -> bytes:
    """The first message of the selected mailbox."""
    wire.ok(b"NOOP")  # only this makes Courier see what was appended
    responses = wire.ok(b"UID FETCH 1:* BODY.PEEK[]")
    _, _, rest = b"".join(responses).partition(b"{%d}\r\n" % len(MESSAGE))
    return rest[: len(MESSAGE)]


def test_append_and_fetch(server: Server, user: NewUser) -> None:
    """A message appended to a fresh, empty INBOX comes back byte for byte."""
    with user(server).wire() as wire:
        responses = wire.ok(b"SELECT INBOX")
        assert b"* 0 EXISTS\r\n" in responses
        assert b" OK" in wire.command_with_literals(b"APPEND INBOX (\\Seen)", MESSAGE)[-1]
        assert fetched(wire) == MESSAGE
        wire.logout()


def test_implicit_tls(server: Server, user: NewUser) -> None:
    """The TLS port's certificate holds for the name and for the address, and a login works there."""
    someone = user(server)
    context = tls_context(server.certificate)
    for name in ("localhost", "127.0.0.1"):
        with connect(server.host, server.tls_port, context, server_name=name) as wire:
            wire.login(someone.name, someone.password)
            wire.logout()


def test_starttls(server: Server, user: NewUser) -> None:
    """STARTTLS is offered in clear, works, and is not offered again."""
    someone = user(server)
    with connect(server.host, server.port) as wire:
        assert b"STARTTLS" in wire.capabilities()
        wire.start_tls(tls_context(server.certificate))
        assert b"STARTTLS" not in wire.capabilities()
        wire.login(someone.name, someone.password)
        wire.logout()


def test_set_password(server: Server, user: NewUser) -> None:
    """A changed password holds at once, and the old one no longer."""
    someone = user(server)
    someone.wire().logout()
    server.set_password(someone.name, 'new: "pass\\word"')
    with connect(server.host, server.port) as wire:
        refused = wire.command(b"LOGIN " + someone.name.encode() + b" " + quoted(someone.password))
        assert refused[-1].split()[1] == b"NO"
        wire.login(someone.name, 'new: "pass\\word"')


def test_mailbox_reset(server: Server, user: NewUser) -> None:
    """After a reset the user's INBOX is empty and no other mailbox is left."""
    someone = user(server)
    with someone.wire() as wire:
        prefix = b"INBOX." if server.name == "courier" else b""
        wire.ok(b"CREATE " + prefix + b"other")
        wire.command_with_literals(b"APPEND INBOX", MESSAGE)
        wire.logout()
    server.mailbox_reset(someone.name)
    with someone.wire() as wire:
        assert len([response for response in wire.ok(b'LIST "" *') if response.startswith(b"* LIST")]) == 1
        assert b"* 0 EXISTS\r\n" in wire.ok(b"SELECT INBOX")


def test_login_count(server: Server, user: NewUser) -> None:
    """The log tells how many logins of a user succeeded; a failed one does not count."""
    someone = user(server)
    assert server.login_count(someone.name) == 0
    for _ in range(3):
        someone.wire().logout()
    with connect(server.host, server.port) as wire:
        wire.command(b"LOGIN " + someone.name.encode() + b" wrong")
    wait_until(lambda: server.login_count(someone.name) >= 3, "three logins in the log")
    assert server.login_count(someone.name) == 3
    assert server.login_count() >= 3


@pytest.mark.parametrize("kind", [Dovecot, Cyrus, Courier])
def test_kill_and_restart(kind: type[Server], authority: CertificateAuthority) -> None:
    """A killed server leaves no process behind, and comes back on the same ports with its users and mail."""
    server = kind(authority)
    try:
        server.start()
        server.add_user("someone", "secret")
        with User(server, "someone", "secret").wire() as wire:
            wire.command_with_literals(b"APPEND INBOX", MESSAGE)
            before = server.pids()
            assert len(before) >= 3
            server.kill()
            assert b"OK" not in wire.eof()
        assert server.pids() == []
        assert not set(before) & set(processes())
        server.spawn()
        with User(server, "someone", "secret").wire() as wire:
            wire.ok(b"SELECT INBOX")
            assert fetched(wire) == MESSAGE
            server.stop()
            wire.eof()
        assert server.pids() == []
    finally:
        server.stop()
        server.remove()


def test_dovecot_believes_id_from_trusted_networks(dovecot: Dovecot, user: NewUser) -> None:
    """ID x-originating-ip from a trusted network is the address that Dovecot logs."""
    someone = user(dovecot)
    with connect(dovecot.host, dovecot.port) as wire:
        wire.ok(b'ID ("x-originating-ip" "192.0.2.55" "x-originating-port" "4711")')
        wire.login(someone.name, someone.password)
        wire.logout()
    wait_until(lambda: f"user=<{someone.name}>, method=PLAIN, rip=192.0.2.55," in dovecot.log(), "the address")


def test_dovecot_proxy_protocol(dovecot: Dovecot, user: NewUser) -> None:
    """The haproxy port takes a PROXY v2 header and logs the address in it."""
    someone = user(dovecot)
    header = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + (12).to_bytes(2, "big")
    header += socket.inet_aton("192.0.2.77") + socket.inet_aton("127.0.0.1") + b"\x12\x34\x00\x8f"
    with connect(dovecot.host, dovecot.haproxy_port, preamble=header) as wire:
        wire.login(someone.name, someone.password)
        wire.logout()
    wait_until(lambda: f"user=<{someone.name}>, method=PLAIN, rip=192.0.2.77," in dovecot.log(), "the address")


def test_dovecot_token(dovecot: Dovecot, user: NewUser) -> None:
    """XOAUTH2 and OAUTHBEARER accept the token that the fixture makes, and no other."""
    someone = user(dovecot)

    def exchange(mechanism: bytes, token: str) -> bytes:
        text = f"user={someone.name}\1auth=Bearer {token}\1\1"
        if mechanism == b"OAUTHBEARER":
            text = f"n,a={someone.name},\1auth=Bearer {token}\1\1"
        with connect(dovecot.host, dovecot.port) as wire:
            wire.send(b"t AUTHENTICATE " + mechanism + b" " + base64.b64encode(text.encode()) + b"\r\n")
            response = wire.response()
            if response.startswith(b"+"):
                wire.send(b"\r\n")
            while not response.startswith(b"t "):
                response = wire.response()
            return response.split()[1]

    for mechanism in (b"XOAUTH2", b"OAUTHBEARER"):
        assert exchange(mechanism, dovecot.token(someone.name)) == b"OK"
        assert exchange(mechanism, dovecot.token(someone.name, seconds=-100)) == b"NO"
        assert exchange(mechanism, dovecot.token(someone.name)[:-8] + "AAAAAAAA") == b"NO"


def test_dovecot_session_process(dovecot: Dovecot, user: NewUser) -> None:
    """A user's session is one process, which a test can kill without harm to the server."""
    someone = user(dovecot)
    with someone.wire() as wire:
        wait_until(lambda: dovecot.session_pids(someone.name), "the session's process")
        pids = dovecot.session_pids(someone.name)
        assert len(pids) == 1
        dovecot.signal(signal.SIGKILL, pids)
        wire.eof()
    someone.wire().logout()


def handshake(certificate: Path, key: Path, context: ssl.SSLContext, name: str) -> None:
    """A TLS handshake in memory; raises what the client finds wrong."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate, key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert client.version() is not None


def test_a7_certificates(tmp_path: Path) -> None:
    """The authority's good certificates are good, and each of its bad ones is refused for its own reason."""
    authority = CertificateAuthority(tmp_path)
    trusting = tls_context(str(authority.certificate))
    handshake(*authority.issue("mail.example.org", "192.0.2.1"), trusting, "mail.example.org")
    handshake(*authority.issue("mail.example.org", "192.0.2.1"), trusting, "192.0.2.1")
    bad = {
        "Hostname mismatch": authority.issue("other.example.org"),
        "certificate has expired": authority.issue("mail.example.org", expired=True),
        "certificate is not yet valid": authority.issue("mail.example.org", not_yet_valid=True),
        "Hostname mismatch, ": authority.issue("mail.example.org", common_name_only=True),
        "self-signed certificate": authority.issue("mail.example.org", self_signed=True),
        "unable to get local issuer": CertificateAuthority(tmp_path, "Other").issue("mail.example.org"),
    }
    for reason, pair in bad.items():
        with pytest.raises(ssl.SSLCertVerificationError, match=reason):
            handshake(*pair, trusting, "mail.example.org")


def test_wire_follows_literals_and_only_these() -> None:
    """The test client takes literals whole, also when they look like completions, and none in a status line."""
    ours, theirs = socket.socketpair()
    with Wire(ours, timeout=5) as wire, Wire(theirs, timeout=0.2) as peer:
        peer.send(
            b"* 1 FETCH (BODY[] {8}\r\nt OK x\r\n X {2}\r\nab)\r\n* NO no {30}\r\nt NO nobox {30}\r\n* 2 EXISTS\r\n"
        )
        assert wire.until_tagged(b"t") == [
            b"* 1 FETCH (BODY[] {8}\r\nt OK x\r\n X {2}\r\nab)\r\n",
            b"* NO no {30}\r\n",
            b"t NO nobox {30}\r\n",
        ]
        assert not wire.quiet(0.01)
        assert wire.line() == b"* 2 EXISTS\r\n"
        assert wire.quiet(0.01)
        with pytest.raises(WireTimeout):
            peer.line()
        wire.half_close()
        with pytest.raises(WireClosed):
            peer.line()
        peer.send(b"last")
        peer.close()
        assert wire.eof() == b"last"


def test_ports_differ() -> None:
    """No port is given twice, and none from the range of outgoing connections."""
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports) < low


def test_family_is_only_ours() -> None:
    """A process's family holds its children and not the test's own process."""
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True) as shell:
        try:
            wait_until(lambda: len(family(shell.pid)) == 2, "the shell's child")
            assert family(shell.pid)[0] == shell.pid
            assert os.getpid() not in family(shell.pid)
        finally:
            for pid in family(shell.pid):
                os.kill(pid, signal.SIGKILL)


def test_gate_configuration(dovecot: Dovecot) -> None:
    """The gate's configuration file says what the keyword arguments said."""
    gate = Gate(
        {"main": upstream_of(dovecot, "starttls", pool_mode="session")},
        authority=dovecot.authority,
        listener={"proxy_protocol": True, "trusted_proxies": ["127.0.0.1"]},
        limits={"tag": 32},
        extra_verbs=["XLIST"],
        auth={"mode": "pass"},
    )
    try:
        document = tomllib.loads(gate.configuration_file.read_text())
    finally:
        gate.remove()
    assert [listener["tls"] for listener in document["listener"]] == ["none", "starttls", "implicit"]
    assert all(listener["trusted_proxies"] == ["127.0.0.1"] for listener in document["listener"])
    assert document["upstream"]["main"] == {
        "endpoints": [f"tcp:127.0.0.1:{dovecot.port}"],
        "tls": "starttls",
        "ca": dovecot.certificate,
        "server_name": "localhost",
        "pool_mode": "session",
    }
    assert document["limits"]["tag"] == 32
    assert document["limits"]["failed_login_delays"] == []
    assert (document["extra_verbs"], document["auth"]) == (["XLIST"], {"mode": "pass"})


class Listening(Gate):
    """The gate's process with another program in it: it only listens, and says so."""

    def command(self) -> list[str]:
        """Listen on the gate's ports, the last one after the word "ready"."""
        script = (
            "import socket, sys, time\n"
            "first, *ports = map(int, sys.argv[1:])\n"
            "kept = [socket.create_server(('127.0.0.1', port)) for port in ports]\n"
            "print('ready', flush=True)\n"
            "kept.append(socket.create_server(('127.0.0.1', first)))\n"
            "time.sleep(60)\n"
        )
        return [sys.executable, "-c", script, *map(str, self.ports)]


def test_gate_process() -> None:
    """The gate's start waits for all its listeners; its log, memory and end can be seen; its folder goes."""
    with Listening({}) as gate:
        assert gate.wait_log("rea(dy)")[1] == "dy"
        assert all(map(accepts, (gate.port, gate.starttls_port, gate.tls_port)))
        assert 1_000_000 < gate.memory() < 200_000_000
        assert gate.cpu_seconds() < 10
        pid, directory = gate.pid, gate.directory
        assert pid in processes()
        assert gate.stop() == -signal.SIGTERM
        assert pid not in processes()
    assert not directory.exists()


def test_gate_that_does_not_start() -> None:
    """A gate that ends at once fails the start, which shows its log and its configuration; no process is left."""
    gate = Gate({}, text="colour = 'green'\n")
    try:
        with pytest.raises(ServerFailed, match=r"(?s)ended with status [1-9].*its configuration:\ncolour = 'green'"):
            gate.start()
        assert gate.log() != ""
        assert gate.process is None
        assert gate.stop() is None
    finally:
        gate.remove()


def test_toml_strings_survive() -> None:
    """Awkward strings and names come through the configuration text unchanged."""
    document = {"a b": {"t": 'q"\\\n\té\x7f', "list": ["x", 1, True, 2.5]}, "rows": [{"k": {"inner": "v"}}, {"k": {}}]}
    assert tomllib.loads(toml(document)) == document


def test_install_is_quick_when_done() -> None:
    """With everything there, tests/peers/install says nothing and succeeds."""
    done = subprocess.run([CLONE / "tests/peers/install"], capture_output=True, timeout=20, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
