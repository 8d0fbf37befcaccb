"""Failed logins: one text (A36), delays (A37), and no secret in any log (A40)."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.integration.bed import bed_of
from tests.integration.conftest import User
from tests.integration.gate import Gate, gate_for
from tests.integration.sasl import FAILED, Scram, authenticate, bearer, cram_md5, encoded, relaying
from tests.integration.scripted import Command, Conversation, Recorder, Script, always
from tests.integration.servers import Dovecot, Server
from tests.integration.test_login_identity import from_address, proxied
from tests.integration.wire import Wire, connect, quoted

NewUser = Callable[..., User]
CANARY = "canary-7f3a9-Qx"


def _login(wire: Wire, user: str, password: str) -> bytes:
    """Run LOGIN; give the completion without its tag."""
    wire.send(b"lo LOGIN " + quoted(user) + b" " + quoted(password) + b"\r\n")
    return wire.until_tagged(b"lo")[-1][3:]


def test_a36_one_text_for_every_failure(server: Server, user: NewUser) -> None:
    """Unknown users, wrong passwords, names and identities that are not allowed: the same octets, on every server."""
    someone = user(server)
    with gate_for(server) as gate:
        relaying(gate)
        answers = set()
        for name, password in (
            (someone.name, "wrong"),
            ("nobody-at-all", "wrong"),
            ("nobody at all", "wrong"),
            ("x" * 300, "wrong"),
            (someone.name, "w" * 3000),
        ):
            with connect(gate.host, gate.port) as wire:
                answers.add(_login(wire, name, password))
        with connect(gate.host, gate.port) as wire:
            answers.add(authenticate(wire, "PLAIN", initial=encoded("root", someone.name, someone.password)))
            answers.add(authenticate(wire, "CRAM-MD5", cram_md5(someone.name, "wrong")))
            answers.add(authenticate(wire, "CRAM-MD5", cram_md5("nobody-at-all", "wrong")))
            answers.add(authenticate(wire, "LOGIN", lambda _: encoded(someone.name), lambda _: encoded("wrong")))
            assert answers == {FAILED}
            # The connection goes on all the same.
            wire.login(someone.name, someone.password)


def test_a34_the_old_password_fails_at_once(server: Server, user: NewUser) -> None:
    """Every login is verified upstream: a password that was changed holds no more, though its session goes on."""
    someone = user(server)
    with gate_for(server) as gate, connect(gate.host, gate.port) as held, connect(gate.host, gate.port) as wire:
        held.login(someone.name, someone.password)
        server.set_password(someone.name, "another-one")
        assert _login(wire, someone.name, someone.password) == FAILED
        wire.login(someone.name, "another-one")
        held.ok(b"NOOP")


def test_a36_a_delay_whatever_the_reason(dovecot: Dovecot, user: NewUser) -> None:
    """Refused by the gate itself or by upstream, known or unknown: no answer comes before the delay has passed."""
    someone = user(dovecot)
    with gate_for(dovecot, limits={"failed_login_delays": ["400ms"]}, **proxied()) as gate:
        for number, (name, password) in enumerate(((someone.name, "x"), ("nobody-here", "x"), ("no body", "x"))):
            with from_address(gate, f"192.0.2.{number + 1}") as wire:
                began = time.monotonic()
                assert _login(wire, name, password) == FAILED
                assert time.monotonic() - began >= 0.4


def test_a37_others_log_in_meanwhile(dovecot: Dovecot, user: NewUser) -> None:
    """While an answer to a failed login is held back, another user from another address logs in and works."""
    victim, other = user(dovecot), user(dovecot)
    with (
        gate_for(dovecot, limits={"failed_login_delays": ["1500ms"]}, **proxied()) as gate,
        from_address(gate, "192.0.2.1") as bad,
        from_address(gate, "198.51.100.1") as good,
    ):
        bad.send(b"a LOGIN " + quoted(victim.name) + b" wrong\r\n")
        good.login(other.name, other.password)
        good.ok(b"SELECT INBOX")
        assert bad.quiet(0.05)
        assert bad.until_tagged(b"a")[-1][2:] == FAILED


def _times() -> tuple[list[tuple[float, bytes]], Script]:
    """Make an upstream that notes when each login came, and refuses every password but one."""
    seen: list[tuple[float, bytes]] = []

    def login(talk: Conversation, command: Command) -> None:
        user, password = base64.b64decode(command.words()[1]).split(b"\0")[1:]
        seen.append((time.monotonic(), user))
        talk.logged_in(command, user, password)

    return seen, Script(password=b"right", answers={b"AUTHENTICATE": login})


@pytest.mark.parametrize("spread", ["one user, many addresses", "one address, many users"])
def test_a37_parallel_connections_do_not_bypass(spread: str) -> None:
    """After a failure the attempts against that user, or from that address, go upstream one after another."""
    delay, most = 0.2, 5
    seen, script = _times()
    by_user = spread.startswith("one user")
    with Recorder(script) as recorder:
        upstream = {"endpoints": [f"tcp:127.0.0.1:{recorder.port}"], "tls": "none"}
        with Gate({"main": upstream}, limits={"failed_login_delays": [f"{delay}s"]}, **proxied()) as gate:
            wires = [from_address(gate, f"192.0.2.{number if by_user else 1}") for number in range(1, most + 1)]
            users = ["victim" if by_user else f"user{number}" for number in range(most)]
            began = time.monotonic()
            assert _login(wires[0], users[0], "wrong") == FAILED
            for wire, name in zip(wires, users, strict=True):
                wire.send(b"lo LOGIN " + quoted(name) + b" wrong\r\n")
            for wire in wires:
                assert wire.until_tagged(b"lo")[-1][3:] == FAILED
                wire.close()
    moments = [moment for moment, _ in seen]
    assert len(moments) == most + 1
    for number, moment in enumerate(moments):
        assert moment - began >= number * delay


def test_a37_delays_grow_and_are_forgiven() -> None:
    """Each failure costs more than the one before, the last delay holds for the rest, and a success forgets them."""
    delays = (0.1, 0.3, 0.5)
    seen, script = _times()
    limits = {"failed_login_delays": [f"{delay}s" for delay in delays]}
    with bed_of(script=script, limits=limits) as bed, bed.connect() as wire:
        for delay in (*delays, delays[-1]):
            began = time.monotonic()
            assert _login(wire, "someone", "wrong") == FAILED
            assert time.monotonic() - began >= delay
        assert _login(wire, "someone", "right").startswith(b"OK ")
        with bed.connect() as again:
            began = time.monotonic()
            assert _login(again, "someone", "wrong") == FAILED
            # The first delay again: the last one would have been longer.
            assert delays[0] <= time.monotonic() - began < delays[-1]
    assert len(seen) == len(delays) + 3


def test_a37_a_client_that_leaves_is_not_forgiven() -> None:
    """Whoever closes the connection instead of waiting for the answer finds the delay at the next one."""
    seen, script = _times()
    with bed_of(script=script, limits={"failed_login_delays": ["600ms"]}) as bed:
        began = time.monotonic()
        for asked in range(2):
            with bed.connect() as wire:
                wire.send(b"lo LOGIN someone wrong\r\n")
                bed.recorder.wait(partial(_asked, seen, asked + 1))
                # Upstream's refusal is there, and the delay runs.
                bed.recorder.wait(lambda: all(talk.ended for talk in bed.recorder.conversations))
    assert seen[1][0] - began >= 0.6


def _asked(seen: list[tuple[float, bytes]], count: int) -> bool:
    return len(seen) >= count


# -- secrets ----------------------------------------------------------------------------------------------------------


def _spill(gate: Gate, user: User) -> None:
    """Say the canary in every place where a client may say a password, and in some where it may not."""
    secret = CANARY.encode()
    token = bearer("XOAUTH2", user.name, CANARY + "-token")  # the password itself would do for Dovecot
    with connect(gate.host, gate.port) as wire:
        for line in (
            b"LOGIN %b %b more" % (user.name.encode(), secret),
            b"LOGIN %b" % secret,
        ):
            assert wire.command(line)[-1].split()[1] == b"BAD"
    with connect(gate.host, gate.port) as wire:
        assert _login(wire, user.name + "x", CANARY) == FAILED
        assert authenticate(wire, "PLAIN", initial=encoded("root", user.name, CANARY)) == FAILED
        assert authenticate(wire, "PLAIN", lambda _: encoded(user.name, CANARY)).startswith(b"BAD ")
        assert authenticate(wire, "PLAIN", lambda _: b"{" + encoded(CANARY)).startswith(b"BAD ")
        assert authenticate(wire, "XOAUTH2", lambda _: b"", initial=token) == FAILED
        assert authenticate(wire, "CRAM-MD5", cram_md5(user.name, "wrong")) == FAILED
    with connect(gate.host, gate.port) as wire:
        wire.send(b"a LOGIN %b {%d+}\r\n%b\r\n" % (user.name.encode(), len(secret), secret))
        assert wire.until_tagged(b"a")[-1].startswith(b"a OK ")
        wire.ok(b"SELECT INBOX")
        assert wire.command(b"LOGIN %b %b" % (user.name.encode(), secret))[-1].split()[1] == b"BAD"
        assert wire.command(b"AUTHENTICATE PLAIN " + encoded("", user.name, CANARY))[-1].split()[1] == b"BAD"
    with connect(gate.host, gate.port) as wire:
        scram = Scram(user.name, CANARY)
        answer = authenticate(wire, "SCRAM-SHA-256", scram.final, scram.verify, initial=scram.first())
        assert answer.startswith(b"OK ")
    with connect(gate.host, gate.port) as wire:  # the end comes in the middle of a password
        wire.send(b"a LOGIN %b {%d+}\r\n%b" % (user.name.encode(), len(secret) + 5, secret))
        wire.half_close()
        wire.eof()
    with connect(gate.host, gate.port) as wire:
        wire.send(b"a LOGIN %b %b\rb\r\n" % (user.name.encode(), secret))
        wire.eof()


def _traces_of_the_canary(text: str) -> list[str]:
    """The lines in which the canary, or a piece of it in base64 at any offset, can be read."""
    secret = CANARY.encode()
    forms = [CANARY]
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + secret).decode()
        forms.append(whole[4 if shift else 0 : -4])
    return [line for line in text.splitlines() if any(form in line for form in forms)]


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a40_no_secret_in_any_log(dovecot: Dovecot, user: NewUser, tmp_path: Path, level: str) -> None:
    """A canary password in every place: no log line and no trace line holds it, in clear or in base64."""
    someone = user(dovecot, password=CANARY)
    trace = tmp_path / "trace"
    with gate_for(
        dovecot,
        environment={"IMAPGATE_LOG_LEVEL": level},
        trace={"user": someone.name, "file": str(trace), "until": "1h"},
    ) as gate:
        relaying(gate)
        _spill(gate, someone)
        gate.wait_log(f'session ended: user="{someone.name}"')
        gate.stop()
        log = gate.log()
    assert "Traceback" not in log
    assert _traces_of_the_canary(log) == []
    assert _traces_of_the_canary(trace.read_text()) == []
    assert "SELECT" in trace.read_text()
    assert ("logged in: " in log) == (level == "debug")
    # The check itself sees what it must see.
    assert _traces_of_the_canary(f"x {base64.b64encode(f'a{CANARY}b'.encode()).decode()}")


def test_a40_not_from_upstream_either() -> None:
    """An upstream that repeats the password in its texts, or breaks down: neither client nor log sees it."""
    texts = (
        b"%t NO wrong password canary-7f3a9-Qx\r\n",
        b"* NO canary-7f3a9-Qx\r\n%t BAD canary-7f3a9-Qx\r\n",
        b"canary-7f3a9-Qx what OK\r\n",
        b"%t OK [CAPABILITY IMAP4rev1 canary-7f3a9-Qx] canary-7f3a9-Qx\r\n",
        b"+ canary-7f3a9-Qx\r\n",
        b"* BYE canary-7f3a9-Qx\r\n",
    )
    with bed_of(environment={"IMAPGATE_LOG_LEVEL": "debug"}, limits={"upstream_first_byte": "500ms"}) as bed:
        for text in texts:
            bed.recorder.script = Script(answers={b"AUTHENTICATE": always(text)})
            with bed.connect() as wire:
                _login(wire, "someone", CANARY)
                assert CANARY.encode() not in wire.transcript, text
        log = bed.gate.log()
    assert "Traceback" not in log
    assert _traces_of_the_canary(log) == []


def test_a37_many_at_once(dovecot: Dovecot, user: NewUser) -> None:
    """Thirty users with the right password log in at once from one address that has failed nothing: nobody waits."""
    users = [user(dovecot) for _ in range(30)]
    with gate_for(dovecot, limits={"failed_login_delays": ["30s"]}) as gate:
        outcomes: list[bytes] = []

        def one(someone: User) -> None:
            with connect(gate.host, gate.port) as wire:
                outcomes.append(_login(wire, someone.name, someone.password)[:3])

        threads = [threading.Thread(target=one, args=(someone,)) for someone in users]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(15)
        assert outcomes == [b"OK "] * 30
