"""TLS towards clients and towards upstream, and what a listener grants to whom (A7-A9, A44, F15)."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.bed import SHORT_TIMES, bed_of, server_context, taken
from tests.integration.bed import authority as common_authority
from tests.integration.conftest import User
from tests.integration.gate import Gate, gate_for, upstream_of
from tests.integration.scripted import Recorder, Script
from tests.integration.servers import CertificateAuthority, Dovecot, Server, free_port, wait_until
from tests.integration.test_login_identity import from_address
from tests.integration.wire import Wire, connect, tls_context

NewUser = Callable[..., User]


@pytest.fixture(scope="module")
def gate(dovecot: Dovecot) -> Iterator[Gate]:
    """Give a gate with the usual three listeners, TLS on both sides."""
    with gate_for(dovecot, "starttls") as gate:
        yield gate


def pair(files: tuple[Path, Path]) -> dict[str, Path]:
    """A row of `certificates`."""
    return {"certificate": files[0], "private_key": files[1]}


def listening(tls: str, *certificates: tuple[Path, Path], **more: Any) -> dict[str, Any]:
    """The keywords of a gate with this one listener."""
    port = free_port()
    listener: dict[str, Any] = {"endpoint": f"tcp:{port}:interface=127.0.0.1", "tls": tls, **more}
    if certificates:
        listener["certificates"] = [pair(files) for files in certificates]
    return {"listeners": [listener], "ports": [port]}


def names(wire: Wire) -> set[str]:
    """The names in the certificate that the peer has shown."""
    assert isinstance(wire.sock, ssl.SSLSocket)
    shown = wire.sock.getpeercert()
    assert shown
    return {str(entry[1]) for entry in shown["subjectAltName"]}


def serial(gate: Gate) -> str:
    """The serial number of the certificate that the only listener shows now."""
    with connect(gate.host, gate.ports[0], tls_context(gate.certificate)) as wire:
        assert isinstance(wire.sock, ssl.SSLSocket)
        shown = wire.sock.getpeercert()
        assert shown
        return str(shown["serialNumber"])


# -- the client's side ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_a_session_through_tls(gate: Gate, dovecot: Dovecot, user: NewUser, tls: str) -> None:
    """Implicit TLS and STARTTLS, TLS 1.2 and 1.3, carry a whole session, upstream by STARTTLS."""
    someone = user(dovecot)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = tls_context(gate.certificate)
        context.minimum_version = context.maximum_version = version
        if tls == "implicit":
            wire = connect(gate.host, gate.tls_port, context)
        else:
            wire = connect(gate.host, gate.starttls_port)
            wire.start_tls(context)
        with wire:
            assert b"STARTTLS" not in wire.capabilities()
            wire.login(someone.name, someone.password)
            assert b" OK " in wire.command_with_literals(b"APPEND INBOX", b"a: b\r\n\r\n" + b"x" * 100_000)[-1]
            wire.ok(b"SELECT INBOX")
            assert b"x" * 100_000 in wire.ok(b"FETCH 1 BODY.PEEK[]")[0]
            wire.ok(b"STORE 1 +FLAGS (\\Deleted)")
            wire.ok(b"EXPUNGE")
            wire.logout()
    wait_until(lambda: dovecot.login_count(someone.name) == 2, "two logins")
    lines = [line for line in dovecot.log().splitlines() if f"Login: user=<{someone.name}>" in line]
    assert all(" TLS," in line for line in lines)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(gate: Gate, version: ssl.TLSVersion) -> None:
    """TLS 1.0 and 1.1 are not spoken."""
    context = tls_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(gate.host, gate.tls_port, context)


@pytest.mark.parametrize(("offered", "chosen"), [(["imap"], "imap"), (["h2", "imap"], "imap"), ([], None)])
def test_a9_alpn(gate: Gate, offered: list[str], chosen: str | None) -> None:
    """ALPN is `imap` where it is offered; a client that does not use it gets in as well."""
    context = tls_context(gate.certificate)
    if offered:
        context.set_alpn_protocols(offered)
    with connect(gate.host, gate.tls_port, context) as wire:
        assert isinstance(wire.sock, ssl.SSLSocket)
        assert wire.sock.selected_alpn_protocol() == chosen


def test_a9_alpn_of_another_protocol(gate: Gate) -> None:
    """A client that offers other protocols only is refused (ALPACA)."""
    context = tls_context(gate.certificate)
    context.set_alpn_protocols(["http/1.1", "h2"])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(gate.host, gate.tls_port, context)


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_certificates_by_name(dovecot: Dovecot, authority: CertificateAuthority, tls: str) -> None:
    """The name that a client asks for chooses the certificate; the first one is for all other names and for none."""
    first, second = authority.issue("localhost", "127.0.0.1"), authority.issue("mail.example.org", "*.example.net")
    wanted = {
        "localhost": {"localhost", "127.0.0.1"},
        "mail.example.org": {"mail.example.org", "*.example.net"},
        "MAIL.example.org": {"mail.example.org", "*.example.net"},
        "imap.example.net": {"mail.example.org", "*.example.net"},
        "other.example.com": {"localhost", "127.0.0.1"},
        None: {"localhost", "127.0.0.1"},
    }
    with gate_for(dovecot, authority=authority, **listening(tls, first, second)) as gate:
        for name, expected in wanted.items():
            context = tls_context(gate.certificate)
            context.check_hostname = False
            if tls == "implicit":
                wire = connect(gate.host, gate.ports[0], context, server_name=name)  # type: ignore[arg-type]
            else:
                wire = connect(gate.host, gate.ports[0])
                wire.start_tls(context, name)  # type: ignore[arg-type]
            with wire:
                assert names(wire) == expected, name


def test_f15_certificates_are_reloaded(dovecot: Dovecot, user: NewUser, tmp_path: Path) -> None:
    """SIGHUP: new connections get the new certificate, live ones go on; a bad file changes nothing, told once."""
    authority = CertificateAuthority(tmp_path)
    files = authority.issue()
    served = (tmp_path / "served.pem", tmp_path / "served.key")
    for source, target in zip(files, served, strict=True):
        shutil.copy(source, target)
    someone = user(dovecot)
    with gate_for(dovecot, authority=authority, **listening("implicit", served)) as gate:
        old = serial(gate)
        with connect(gate.host, gate.ports[0], tls_context(gate.certificate)) as live:
            live.login(someone.name, someone.password)
            for source, target in zip(authority.issue(), served, strict=True):
                shutil.copy(source, target)
            assert serial(gate) == old
            gate.reload()
            gate.wait_log("configuration and certificates reloaded")
            new = serial(gate)
            assert new != old
            live.ok(b"SELECT INBOX")

            bad = {
                "served.pem": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "served.key": authority.issue()[1].read_bytes(),
            }
            for count, (name, octets) in enumerate(bad.items(), 1):
                good = (tmp_path / name).read_bytes()
                (tmp_path / name).write_bytes(octets)
                gate.reload()
                told = f"(?s)(?:nothing is reloaded.*?){{{count}}}"
                gate.wait_log(told)
                (tmp_path / name).write_bytes(good)
                assert serial(gate) == new
            assert len(re.findall("nothing is reloaded", gate.log())) == len(bad)
            live.ok(b"NOOP")
            (tmp_path / "served.key").unlink()
            gate.reload()
            gate.wait_log("(?s)(?:nothing is reloaded.*?){3}")
            assert serial(gate) == new
            live.ok(b"NOOP")
            live.logout()
        assert "Traceback" not in gate.log()


# -- without TLS ------------------------------------------------------------------------------------------------------

PROXIES = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.0/8"]}


def test_no_login_without_tls(dovecot: Dovecot, user: NewUser, authority: CertificateAuthority) -> None:
    """From elsewhere: LOGINDISABLED, and a login in clear is really refused; upstream hears nothing before TLS."""
    someone = user(dovecot)
    more = listening("starttls", authority.issue(), **PROXIES)
    with gate_for(dovecot, authority=authority, **more) as gate:
        with from_address(gate, "192.0.2.7") as wire:
            assert b"LOGINDISABLED" in wire.greeting
            shown = wire.capabilities()
            assert b"STARTTLS" in shown
            assert not [name for name in shown if name.startswith(b"AUTH=")]
            login = b"LOGIN " + someone.name.encode() + b' "' + someone.password.encode() + b'"'
            assert wire.command(login, tag=b"a")[-1].startswith(b"a NO [PRIVACYREQUIRED]")
            for mechanism in (b"PLAIN", b"LOGIN", b"CRAM-MD5", b"PLAIN AHgAeQ=="):
                assert wire.command(b"AUTHENTICATE " + mechanism, tag=b"b")[-1].startswith(b"b NO ")
            assert dovecot.login_count(someone.name) == 0
            wire.start_tls(tls_context(gate.certificate))
            shown = wire.capabilities()
            assert b"LOGINDISABLED" not in shown
            assert b"AUTH=PLAIN" in shown
            wire.login(someone.name, someone.password)
            wire.logout()
        with from_address(gate, "127.0.0.1") as wire:
            # From this machine it is allowed.
            assert b"LOGINDISABLED" not in wire.greeting
            wire.login(someone.name, someone.password)
        gate.wait_log(rf'session ended: user="{someone.name}" address=192\.0\.2\.7 ')


def _v1(source: str) -> bytes:
    family, here = ("TCP6", "::1") if ":" in source else ("TCP4", "192.0.2.99")
    return f"PROXY {family} {source} {here} 4000 993\r\n".encode()


def _v2(source: str) -> bytes:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    addresses = socket.inet_pton(family, source) * 2 + b"\x10\x00\x03\xe1"
    kind = b"\x21" if family == socket.AF_INET6 else b"\x11"
    return b"\r\n\r\n\x00\r\nQUIT\n\x21" + kind + len(addresses).to_bytes(2, "big") + addresses


@pytest.fixture(scope="module")
def behind_a_proxy(dovecot: Dovecot) -> Iterator[Gate]:
    """Give a gate with one listener: PROXY header, then TLS."""
    authority = dovecot.authority
    with gate_for(dovecot, **listening("implicit", authority.issue(), **PROXIES)) as gate:
        yield gate


@pytest.mark.parametrize("source", ["192.0.2.44", "2001:db8::44"])
@pytest.mark.parametrize("header", [_v1, _v2])
@pytest.mark.parametrize("together", [True, False])
def test_a44_proxy_header(
    behind_a_proxy: Gate,
    dovecot: Dovecot,
    user: NewUser,
    header: Callable[[str], bytes],
    source: str,
    together: bool,
) -> None:
    """PROXY v1 and v2 from a trusted network stand before TLS, in one segment with it or not."""
    gate, someone = behind_a_proxy, user(dovecot)
    context = tls_context(gate.certificate)
    with connect(gate.host, gate.ports[0], greeting=False) as wire:
        if together:
            hello, outgoing = _client_hello(context)
            wire.send(header(source) + hello)
            _go_on(wire, outgoing)
        else:
            wire.send(header(source))
            taken(gate.ports[0], wire.sock.getsockname()[1])
            wire.wrap(context)
            assert wire.response().startswith(b"* OK ")
            wire.login(someone.name, someone.password)
            wire.logout()
            gate.wait_log(rf'session ended: user="{someone.name}" address={re.escape(source)} reason="logout"')


def _client_hello(context: ssl.SSLContext) -> tuple[bytes, tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]]:
    """Begin a handshake by hand; gives the first flight, and what goes on with it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read(), (session, incoming, outgoing)


def _go_on(wire: Wire, begun: tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]) -> None:
    """Finish the handshake, and read the greeting."""
    session, incoming, outgoing = begun
    greeting = b""
    while not greeting.endswith(b"\r\n"):
        try:
            if session.version() is None or not session.cipher():
                session.do_handshake()
            greeting += session.read(4096)
        except ssl.SSLWantReadError:
            if outgoing.pending:
                wire.sock.sendall(outgoing.read())
            data = wire.sock.recv(65536)
            assert data, "closed in the handshake"
            incoming.write(data)
    assert greeting.startswith(b"* OK ")


def test_a1_a44_clear_text_behind_the_header(behind_a_proxy: Gate) -> None:
    """Clear text in one segment with the header never becomes a command within the TLS that follows."""
    gate = behind_a_proxy
    with connect(gate.host, gate.ports[0], greeting=False) as wire:
        wire.send(_v1("192.0.2.44") + b"a CAPABILITY\r\nb NOOP\r\n")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            wire.wrap(tls_context(gate.certificate))


def test_a44_no_header(behind_a_proxy: Gate) -> None:
    """A connection that begins otherwise is closed, and nothing is said."""
    gate = behind_a_proxy
    with connect(gate.host, gate.ports[0], greeting=False) as wire:
        wire.send(b"a CAPABILITY\r\n")
        assert wire.eof() == b""


def test_a44_not_from_everywhere(dovecot: Dovecot) -> None:
    """A header from a peer that is not trusted is believed by no one: the connection is closed."""
    more = listening("none", proxy_protocol=True, trusted_proxies=["192.0.2.0/24"])
    with gate_for(dovecot, **more) as gate:
        with connect(gate.host, gate.ports[0], greeting=False, preamble=_v2("127.0.0.1")) as wire:
            assert wire.eof() == b""
        gate.wait_log(r"127\.0\.0\.1: not a trusted proxy: closed")


# -- upstream's side --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_upstream_tls(server: Server, user: NewUser, tls: str) -> None:
    """Verified TLS to each server, by a private authority, by name and by address."""
    someone = user(server)
    name = "localhost" if tls == "starttls" else "127.0.0.1"
    with gate_for(server, tls, upstream={"server_name": name}) as gate, connect(gate.host, gate.port) as wire:
        wire.login(someone.name, someone.password)
        wire.ok(b"SELECT INBOX")
        wire.logout()


WRONG: dict[str, dict[str, Any]] = {
    "another name": {"server_name": "mail.example.org"},
    "another authority": {},
    "the system's roots": {"ca": None},
}


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_a7_a_real_server_that_is_not_the_one(
    dovecot: Dovecot, user: NewUser, tmp_path: Path, tls: str, fault: str
) -> None:
    """Dovecot under the wrong name or from an unknown authority: NO [UNAVAILABLE], no login, and the log says why."""
    someone = user(dovecot)
    table = upstream_of(dovecot, tls, ca=CertificateAuthority(tmp_path).certificate)
    table |= {"ca": dovecot.certificate} if fault == "another name" else {}
    table = {key: value for key, value in (table | WRONG[fault]).items() if value is not None}
    with Gate({"main": table}) as gate, connect(gate.host, gate.port) as wire:
        login = b'LOGIN "%b" "%b"' % (someone.name.encode(), someone.password.encode())
        assert wire.command(login, tag=b"a")[-1].startswith(b"a NO [UNAVAILABLE]")
        gate.wait_log("TLS failed: ")
        wire.ok(b"NOOP")
    assert someone.name not in dovecot.log()


@pytest.mark.parametrize("flaw", ["expired", "self_signed", "common_name_only"])
@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_a7_no_credential_byte(tls: str, flaw: str) -> None:
    """An upstream with a certificate that proves nothing gets nothing but a handshake, and is not tried in clear."""
    context = server_context("localhost", **{flaw: True})
    script = Script(tls="implicit" if tls == "implicit" else "starttls")
    upstream = {"tls": tls, "ca": common_authority().certificate, "server_name": "localhost"}
    with bed_of(script=script, context=context, upstream=upstream, limits=SHORT_TIMES) as bed:
        with bed.connect() as wire:
            assert wire.command(b"LOGIN alice canary-2718", tag=b"a")[-1].startswith(b"a NO [UNAVAILABLE]")
        bed.recorder.wait(lambda: all(talk.ended for talk in bed.recorder.conversations))
        talks = bed.recorder.conversations
        assert talks
        for talk in talks:
            said = {command.verb for command in talk.commands}
            assert said <= ({b"STARTTLS"} if tls == "starttls" else set())
            assert not talk.passwords
            assert b"canary" not in talk.received
            assert b"alice" not in talk.received


def test_insecure_is_the_operators_choice(dovecot: Dovecot, user: NewUser) -> None:
    """`insecure = true` verifies nothing, and check-config says so."""
    someone = user(dovecot)
    table = {"endpoints": [f"tcp:{dovecot.host}:{dovecot.tls_port}"], "tls": "implicit", "insecure": True}
    with Gate({"main": table}) as gate:
        with connect(gate.host, gate.port) as wire:
            wire.login(someone.name, someone.password)
        checked = subprocess.run(
            [Path(sys.executable).parent / "imapgate", "check-config", gate.configuration_file],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "upstream.main.insecure: " in checked.stdout


def test_f1_endpoints_in_turn(dovecot: Dovecot, user: NewUser) -> None:
    """An endpoint that refuses, one that turns away, one with the wrong certificate: then the one that serves."""
    someone = user(dovecot)
    with ExitStack() as stack:
        wrong = stack.enter_context(Recorder(Script(tls="implicit"), context=server_context("mail.example.org")))
        vacant = free_port()
        endpoints = [f"tcp:127.0.0.1:{port}" for port in (vacant, wrong.port, dovecot.tls_port)]
        table = upstream_of(dovecot, "implicit", endpoints=endpoints)
        gate = stack.enter_context(Gate({"main": table}))
        for _ in range(3):
            with connect(gate.host, gate.port) as wire:
                wire.login(someone.name, someone.password)
                wire.logout()
        assert not any(talk.passwords for talk in wrong.conversations)
        assert wrong.conversations
    wait_until(lambda: dovecot.login_count(someone.name) == 3, "three logins")
