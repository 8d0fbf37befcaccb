"""Who a client is: as whom it may go upstream (A38), and what upstream is told of where it comes from (A44, A45)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.bed import bed_of
from tests.integration.conftest import User
from tests.integration.gate import Gate, gate_for
from tests.integration.sasl import FAILED, authenticate, encoded
from tests.integration.servers import Dovecot, Server, free_port, wait_until
from tests.integration.wire import Wire, connect, quoted

NewUser = Callable[..., User]


def proxied() -> dict[str, Any]:
    """The keywords of a gate with one plain listener that takes PROXY headers; plaintext is allowed from anywhere."""
    port = free_port()
    listener = {"endpoint": f"tcp:{port}:interface=127.0.0.1", "tls": "none", "allow_plaintext": True}
    proxies = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.0/8"]}
    return {"listeners": [listener | proxies], "ports": [port]}


def from_address(gate: Gate, address: str) -> Wire:
    """Connect as a client whose address a trusted proxy has told."""
    family, here = ("TCP6", "2001:db8::99") if ":" in address else ("TCP4", "192.0.2.99")
    header = f"PROXY {family} {address} {here} 40001 143\r\n".encode()
    return connect(gate.host, gate.ports[0], preamble=header)


# -- as whom ----------------------------------------------------------------------------------------------------------


def test_foreign_authorisation_identity(server: Server, user: NewUser) -> None:
    """A valid user who wants to act as another is refused by the gate, on every server, Courier included."""
    mallory, alice = user(server), user(server)
    with gate_for(server) as gate, connect(gate.host, gate.port) as wire:
        for victim in (alice.name, alice.name + "\n", mallory.name.upper(), "root", " "):
            answer = authenticate(wire, "PLAIN", initial=encoded(victim, mallory.name, mallory.password))
            assert answer == FAILED, victim
        assert authenticate(wire, "PLAIN", initial=encoded("", mallory.name, mallory.password)).startswith(b"OK ")
        wire.logout()
    wait_until(lambda: server.login_count(mallory.name) == 1, "one login")
    assert server.login_count(alice.name) == 0


GOOD_NAMES = [
    "alice",
    "o'brien+tag@example.org",
    "user%example.org",
    "DOMAIN\\user",
    "user*master",
    "jürgen@example.org",
    "アリス",
    "a" * 256,
]
BAD_NAMES = [
    b"",
    b" ",
    b"alice ",
    b"al ice",
    b"alice\r\nx",
    b"alice\n",
    b"alice\tx",
    b"ali\x7fce",
    b'al"ice',
    b"al(ice)",
    b"<alice>",
    b"alice;DROP",
    b"{5}",
    b"\xff\xfe",
    "alice\u202e".encode(),
    "alice\u00a0".encode(),
    b"a" * 257,
]


def test_a38_user_names_that_pass() -> None:
    """What user names are made of reaches upstream octet for octet, however it was sent."""
    with bed_of() as bed:
        for name in GOOD_NAMES:
            octets = name.encode()
            for log_in in (
                b"LOGIN {%d+}\r\n%b secret" % (len(octets), octets),
                b"AUTHENTICATE PLAIN " + encoded("", name, "secret"),
            ):
                with bed.connect() as wire:
                    wire.ok(log_in)
                    wire.logout()
            talks = bed.recorder.of(octets)
            assert [talk.passwords for talk in talks] == [[b"secret"]] * 2, name
        assert not bed.recorder.violations


def test_a38_user_names_that_do_not() -> None:
    """A name with anything else in it is refused in the words of every failure, and upstream hears nothing of it."""
    with bed_of() as bed:
        bed.recorder.wait(lambda: bed.recorder.conversations and all(talk.ended for talk in bed.recorder.conversations))
        before = len(bed.recorder.conversations)
        for name in BAD_NAMES:
            with bed.connect() as wire:
                assert authenticate(wire, "PLAIN", initial=encoded("", name, "secret")) == FAILED, name
            with bed.connect() as wire:
                answers = (lambda _, name=name: encoded(name), lambda _: encoded("secret"))
                assert authenticate(wire, "LOGIN", *answers) == FAILED, name
        assert len(bed.recorder.conversations) == before
        # One line each, and nothing that a name could forge (A39).
        wait_until(lambda: bed.gate.log().count("login failed: ") == 2 * len(BAD_NAMES), "the last line")
        lines = re.findall(r"^.*login failed: .*$", bed.gate.log(), re.MULTILINE)
        assert len(lines) == 2 * len(BAD_NAMES)
        for line in lines:
            assert re.search(
                r'login failed: user=(?:-|"(?:[^"\\]|\\.)*") address=127\.0\.0\.1 mechanism=\w+ reason=', line
            )


# -- from where -------------------------------------------------------------------------------------------------------


def test_a45_id_originating(dovecot: Dovecot, user: NewUser) -> None:
    """Upstream learns the client's address by the gate's own ID; what the client claims by x- fields goes nowhere."""
    someone = user(dovecot)
    with gate_for(dovecot, upstream={"id_originating": True}, **proxied()) as gate:
        with from_address(gate, "192.0.2.77") as wire:
            said = wire.ok(
                b'ID ("name" "test-agent" "x-originating-ip" "203.0.113.9" "X-Session-Id" "forged" "os" NIL)'
            )
            assert said[0].startswith(b'* ID ("name" "imapgate"')
            wire.login(someone.name, someone.password)
            wire.logout()
        with from_address(gate, "2001:db8::77") as wire:
            wire.login(someone.name, someone.password)
            wire.logout()
        wait_until(lambda: dovecot.login_count(someone.name) == 2, "two logins")
        lines = [line for line in dovecot.log().splitlines() if f"Login: user=<{someone.name}>" in line]
        assert ["rip=192.0.2.77," in lines[0], "rip=2001:db8::77," in lines[1]] == [True, True], lines
        session = re.search(rf'session ended: user="{someone.name}" address=192\.0\.2\.77 .*session=(\w+)', gate.log())
        assert session
        assert f"session=<{session[1]}>" in lines[0]
        log = dovecot.log()
        assert "test-agent" in log
        assert "203.0.113.9" not in log
        assert "forged" not in log


def test_a45_id_is_not_sent_unless_marked(dovecot: Dovecot, user: NewUser) -> None:
    """An upstream that is not marked sees the gate's own address, and no ID of anybody's."""
    someone = user(dovecot)
    with gate_for(dovecot, **proxied()) as gate, from_address(gate, "192.0.2.78") as wire:
        wire.ok(b'ID ("name" "other-agent" "x-originating-ip" "203.0.113.10")')
        wire.login(someone.name, someone.password)
        wire.ok(b'ID ("name" "later-agent" "x-originating-ip" "203.0.113.10")')
        wire.logout()
    wait_until(lambda: dovecot.login_count(someone.name) == 1, "the login")
    (line,) = [line for line in dovecot.log().splitlines() if f"Login: user=<{someone.name}>" in line]
    assert "rip=127.0.0.1," in line
    assert "203.0.113.10" not in dovecot.log()
    assert "192.0.2.78" not in dovecot.log()


@pytest.mark.parametrize("tls", ["none", "starttls"])
@pytest.mark.parametrize("address", ["192.0.2.79", "2001:db8::79"])
def test_proxy_header_upstream(dovecot: Dovecot, user: NewUser, tls: str, address: str) -> None:
    """PROXY v2, before any TLS, tells upstream the client's address."""
    someone = user(dovecot)
    upstream = {"endpoints": [f"tcp:127.0.0.1:{dovecot.haproxy_port}"], "proxy_protocol": True}
    with gate_for(dovecot, tls, upstream=upstream, **proxied()) as gate:
        with from_address(gate, address) as wire:
            wire.login(someone.name, someone.password)
            wire.logout()
        wait_until(lambda: dovecot.login_count(someone.name) == 1, "the login")
        (line,) = [line for line in dovecot.log().splitlines() if f"Login: user=<{someone.name}>" in line]
        assert f"rip={address}," in line
        assert (" TLS," in line) == (tls == "starttls")
        # The gate's own probe, which is no client's, gets through as well.
        assert "cannot be used" not in gate.log()


def test_names_are_quoted_in_the_log(dovecot: Dovecot) -> None:
    """A39: a user name stands in the log as one JSON string on one line."""
    with gate_for(dovecot) as gate:
        with connect(gate.host, gate.port) as wire:
            name = 'x" address=10.0.0.1 mechanism=PLAIN reason=credentials session=1\\'
            wire.command(b"LOGIN " + quoted(name) + b" wrong")
            wire.logout()
        gate.wait_log(
            r'login failed: user="x\\" address=10\.0\.0\.1 mechanism=PLAIN reason=credentials session=1\\\\" '
            r"address=127\.0\.0\.1 mechanism=LOGIN reason=credentials session=\w+\n"
        )
