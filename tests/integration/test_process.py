"""The process: privileges dropped, root refused, signals obeyed, and the exact form of what it logs."""

from __future__ import annotations

import os
import pwd
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.bed import bed_of
from tests.integration.conftest import User
from tests.integration.gate import Gate, gate_for, upstream_of
from tests.integration.servers import CertificateAuthority, Dovecot, free_port, wait_until
from tests.integration.servers.base import accepts
from tests.integration.wire import connect, tls_context
from tests.test_conf import banned

NewUser = Callable[..., User]


@pytest.fixture
def as_root() -> None:
    """Demand what a test of privileges needs."""
    assert os.geteuid() == 0, "this test drops privileges: run it as root"


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_privileges_are_dropped(
    as_root: None, dovecot: Dovecot, user: NewUser, authority: CertificateAuthority
) -> None:
    """`twistd --uid --gid`: ports are bound and keys read as root; then root, its groups and its rights are gone."""
    nobody = pwd.getpwnam("nobody")
    someone = user(dovecot)
    certificate, key = authority.issue()
    key.chmod(0o600)  # root's own
    port = next(port for port in range(600, 1000) if not accepts(port))  # one that only root may bind
    rows = [{"certificate": certificate, "private_key": key}]
    # Beyond loopback, as far as the gate can know, were it not for the interface.
    listeners = [{"endpoint": f"tcp:{port}:interface=127.0.0.1", "tls": "implicit", "certificates": rows}]
    options = ["--uid", str(nobody.pw_uid), "--gid", str(nobody.pw_gid)]
    gate = Gate(
        {"main": upstream_of(dovecot)}, authority=authority, listeners=listeners, ports=[port], twistd_options=options
    )
    gate.directory.chmod(0o755)
    with gate:
        with connect(gate.host, port, tls_context(gate.certificate)) as wire:
            wire.login(someone.name, someone.password)
            wire.ok(b"SELECT INBOX")
            status = _status(gate.pid)
            assert set(status["Uid"].split()) == {str(nobody.pw_uid)}
            assert set(status["Gid"].split()) == {str(nobody.pw_gid)}
            assert "0" not in status["Groups"].split()
            assert int(status["CapEff"], 16) == 0
            # Its key it cannot read any more: a reload says so, and the old one stays.
            gate.reload()
            gate.wait_log("nothing is reloaded, all stays as it was: .*Permission denied")
            wire.ok(b"NOOP")
        with connect(gate.host, port, tls_context(gate.certificate)) as wire:
            wire.ok(b"NOOP")


@pytest.mark.parametrize("endpoint", ["tcp:{}", "tcp:{}:interface=0.0.0.0", r"tcp:{}:interface=\:\:"])
def test_root_beyond_loopback_is_refused(as_root: None, authority: CertificateAuthority, endpoint: str) -> None:
    """Root is refused on all interfaces, with a sentence that says what to do, before anything is bound."""
    port = free_port()
    certificate, key = authority.issue()
    listeners = [
        {
            "endpoint": endpoint.format(port),
            "tls": "implicit",
            "certificates": [{"certificate": certificate, "private_key": key}],
        }
    ]
    gate = Gate({"main": {"endpoints": ["tcp:127.0.0.1:1"], "tls": "none"}}, listeners=listeners)
    try:
        process = gate.spawn()
        assert process.wait(20) == 1
        assert not accepts(port)
        said = gate.log()
        assert said.startswith("imapgate: imapgate would serve the network as root.")
        assert "--uid" in said
        assert "allow_root" in said
        assert "Traceback" not in said
        assert len(said.splitlines()) == 1
    finally:
        gate.kill()
        gate.remove()


@pytest.mark.parametrize("which", ["taken", "not handed on"])
def test_an_endpoint_that_cannot_be_had(dovecot: Dovecot, which: str) -> None:
    """A port that somebody else has, a socket that systemd has not handed on: one clear line, and the process ends."""
    endpoint = f"tcp:{dovecot.port}:interface=127.0.0.1" if which == "taken" else "systemd:domain=INET:index=0"
    listener = {"endpoint": endpoint, "tls": "none"} | ({} if which == "taken" else {"allow_plaintext": True})
    gate = Gate({"main": upstream_of(dovecot)}, listeners=[listener], allow_root=True)
    try:
        assert gate.spawn().wait(20) == 1
        assert f"imapgate: cannot listen on {endpoint}: " in gate.log()
        assert "Traceback" not in gate.log()
    finally:
        gate.kill()
        gate.remove()


def test_f16_sigterm(dovecot: Dovecot, user: NewUser) -> None:
    """SIGTERM: nobody new comes in, every client is told BYE, logged in or not, idling or not; then it ends, soon."""
    someone = user(dovecot)
    with gate_for(dovecot) as gate:
        fresh = connect(gate.host, gate.port)
        busy = connect(gate.host, gate.tls_port, tls_context(gate.certificate))
        busy.login(someone.name, someone.password)
        busy.ok(b"SELECT INBOX")
        idle = connect(gate.host, gate.port)
        idle.login(someone.name, someone.password)
        idle.ok(b"SELECT INBOX")
        idle.send(b"i IDLE\r\n")
        idle.expect_continuation()
        began = time.monotonic()
        gate.signal(signal.SIGTERM)
        for wire in (fresh, busy, idle):
            assert wire.eof() == b"* BYE [UNAVAILABLE] The mail gateway is shutting down\r\n"
        assert not accepts(gate.port)
        assert gate.process is not None
        assert gate.process.wait(10) == 0
        assert time.monotonic() - began < 10
        log = gate.log()
    assert len(re.findall(r'session ended: .* reason="stopped" ', log)) == 3
    assert "Traceback" not in log
    for wire in (fresh, busy, idle):
        wire.close()


def test_f16_sigterm_with_a_client_that_takes_nothing(dovecot: Dovecot, user: NewUser) -> None:
    """A client that reads nothing does not hold up the end for longer than `drain`."""
    someone = user(dovecot)
    with gate_for(dovecot, limits={"drain": "1s"}) as gate, connect(gate.host, gate.port) as wire:
        wire.login(someone.name, someone.password)
        assert b" OK " in wire.command_with_literals(b"APPEND INBOX", b"a: b\r\n\r\n" + b"x" * 20_000_000)[-1]
        wire.ok(b"SELECT INBOX")
        wire.send(b"f FETCH 1 BODY.PEEK[]\r\n")
        assert b"FETCH" in wire.line()
        gate.signal(signal.SIGTERM)
        assert gate.stop() == 0
        # It is cut off, never completed: what was said is no answer.
        assert b"f OK" not in wire.eof()


DATE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} "
ENDED = (
    DATE + r'\[imapgate#info\] session ended: user=(?:-|"(?:[^"\\]|\\.)*") address=127\.0\.0\.1 '
    r'reason="[a-z ]+" seconds=\d+\.\d in=\d+ out=\d+ commands=\d+ session=[0-9a-f]{12}'
)
FAILED = (
    DATE + r'\[imapgate#info\] login failed: user=(?:-|"(?:[^"\\]|\\.)*") address=127\.0\.0\.1 '
    r"mechanism=[A-Z0-9_-]+ reason=[a-z-]+ session=[0-9a-f]{12}"
)


def test_the_form_of_the_log(dovecot: Dovecot, user: NewUser) -> None:
    """One line for each session, at its end, and one for each failed login, as documented; no more."""
    someone = user(dovecot)
    with gate_for(dovecot) as gate:
        before = gate.log()
        with connect(gate.host, gate.port) as wire:
            wire.login(someone.name, someone.password)
            wire.ok(b"SELECT INBOX")
            wire.logout()
        with connect(gate.host, gate.port) as wire:
            wire.command(b'LOGIN "%b" wrong' % someone.name.encode())
            wire.command(b"AUTHENTICATE PLAIN AGEAYgA=")
            wire.command(b'LOGIN "a b" wrong')
        with connect(gate.host, gate.port) as wire:
            wire.ok(b"LOGOUT")

        def lines_since() -> list[str]:
            # Without those of whoever waited for the ports.
            return [line for line in gate.log()[len(before) :].splitlines() if " commands=0 " not in line]

        wait_until(lambda: "\n".join(lines_since()).count("session ended") == 3, "three lines")
        lines = lines_since()
    ended = [line for line in lines if "session ended" in line]
    failed = [line for line in lines if "login failed" in line]
    assert len(lines) == len(ended) + len(failed) == 5, lines
    for line in ended:
        assert re.fullmatch(ENDED, line), line
    for line in failed:
        assert re.fullmatch(FAILED, line), line
        assert banned(line) == "127.0.0.1"
    (mine,) = [line for line in ended if f'user="{someone.name}"' in line]
    assert 'reason="logout"' in mine
    assert " commands=3 " in mine
    assert all(banned(line) is None for line in ended)


def test_the_log_counts_octets(dovecot: Dovecot, user: NewUser) -> None:
    """`in` and `out` are what the client sent and was sent, to the octet."""
    someone = user(dovecot)
    with gate_for(dovecot) as gate:
        sent = 0
        with connect(gate.host, gate.port) as wire:
            for text in (b'a LOGIN "%b" "%b"\r\n' % (someone.name.encode(), someone.password.encode()), b"b NOOP\r\n"):
                wire.send(text)
                sent += len(text)
                wire.until_tagged(text[:1])
            wire.send(b"c LOGOUT\r\n")
            wire.eof()
            got = len(wire.transcript)
        line = gate.wait_log(rf'session ended: user="{someone.name}" .* in=(\d+) out=(\d+) commands=3 ')
        assert (int(line[1]), int(line[2])) == (sent + len(b"c LOGOUT\r\n"), got)


def test_an_upstream_that_is_down_bans_nobody() -> None:
    """Where upstream cannot be reached the line says so, and fail2ban leaves it alone."""
    with bed_of(ports=[free_port()]) as bed:
        with bed.connect() as wire:
            assert wire.command(b"LOGIN alice secret")[-1].split()[1] == b"NO"
        line = bed.gate.wait_log(r".*login failed: .* reason=refused session=\w+")[0]
        assert re.fullmatch(FAILED, line)
        assert banned(line) is None


# -- the trace --------------------------------------------------------------------------------------------------------


def test_trace(dovecot: Dovecot, user: NewUser, tmp_path: Path) -> None:
    """What one user's sessions say is written down, redacted, for the owner's eyes only; of others nothing."""
    watched, other = user(dovecot), user(dovecot)
    file = tmp_path / "trace"
    with gate_for(dovecot, trace={"user": watched.name, "file": str(file), "until": "1h"}) as gate:
        for someone in (other, watched):
            with connect(gate.host, gate.port) as wire:
                wire.login(someone.name, someone.password)
                body = b"Subject: private-" + someone.name.encode() + b"\r\n\r\nVery private.\r\n"
                assert b" OK " in wire.command_with_literals(b"APPEND INBOX", body)[-1]
                wire.ok(b"SELECT INBOX", tag=b"sel-" + someone.name.encode())
                wire.ok(b"FETCH 1 (FLAGS BODY.PEEK[])")
                wire.ok(b'SEARCH SUBJECT "private"')
                wire.logout()
        session = gate.wait_log(rf'session ended: user="{watched.name}" .* session=(\w+)')[1]
        text = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    lines = text.splitlines()
    form = rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{6}}\+00:00 {session} [CS]: .*"
    assert lines
    assert [line for line in lines if not re.fullmatch(form, line)] == []
    assert f"sel-{watched.name} SELECT" in text
    assert f"sel-{other.name}" not in text
    for secret in (watched.password, other.password, "Very private"):
        assert secret not in text


def test_trace_ends(dovecot: Dovecot, user: NewUser, tmp_path: Path) -> None:
    """After its end time nothing more is written, also of a session that goes on."""
    watched = user(dovecot)
    file = tmp_path / "trace"
    with gate_for(dovecot, trace={"user": watched.name, "file": str(file), "until": "1s"}) as gate:
        with connect(gate.host, gate.port) as wire:
            wire.login(watched.name, watched.password)
            wire.ok(b"NOOP", tag=b"early")
            wait_until(lambda: "early" in file.read_text(), "the trace")

            def over() -> bool:
                before = file.stat().st_size
                wire.ok(b"NOOP")  # a line of the trace is written before the answer is
                return file.stat().st_size == before

            wait_until(over, "the trace to end", 10)
            wire.ok(b"NOOP", tag=b"late")
        assert "late" not in file.read_text()
        with connect(gate.host, gate.port) as wire:
            wire.login(watched.name, watched.password)
            wire.ok(b"NOOP", tag=b"later")
        assert "later" not in file.read_text()


def test_trace_follows_no_link(dovecot: Dovecot, user: NewUser, tmp_path: Path) -> None:
    """A trace is never written through a symbolic link, and its failing disturbs no session."""
    watched = user(dovecot)
    (tmp_path / "target").write_text("")
    (tmp_path / "trace").symlink_to(tmp_path / "target")
    trace = {"user": watched.name, "file": str(tmp_path / "trace"), "until": "1h"}
    with gate_for(dovecot, trace=trace) as gate, connect(gate.host, gate.port) as wire:
        wire.login(watched.name, watched.password)
        wire.ok(b"NOOP")
        wire.logout()
    assert (tmp_path / "target").read_text() == ""
