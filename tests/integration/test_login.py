"""Logging in through the gate, every way there is: LOGIN, PLAIN, relayed mechanisms; what fails, and what is told."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.integration.bed import bed_of
from tests.integration.conftest import User
from tests.integration.faults import FaultProxy
from tests.integration.gate import Gate, gate_for
from tests.integration.sasl import FAILED, Scram, authenticate, bearer, cram_md5, encoded, given, relaying
from tests.integration.scripted import Command, Conversation, Script
from tests.integration.servers import CertificateAuthority, Dovecot, Server, wait_until
from tests.integration.wire import Wire, connect, quoted

NewUser = Callable[..., User]


@pytest.fixture(scope="module")
def front(start_server: Callable[[str], Server]) -> Iterator[Callable[[Server], Gate]]:
    """Give the gate before a server, plain on both sides, with a log of everything."""
    with ExitStack() as stack:

        @functools.cache
        def gate_before(name: str) -> Gate:
            gate = gate_for(start_server(name), environment={"IMAPGATE_LOG_LEVEL": "debug"})
            return relaying(stack.enter_context(gate))

        yield lambda server: gate_before(server.name)


def done(wire: Wire, server: Server, user: User) -> None:
    """See that the session is this user's: it works, and the server has counted one login."""
    wire.ok(b"SELECT INBOX")
    wire.logout()
    wait_until(lambda: server.login_count(user.name) == 1, "the server to count the login")


# -- LOGIN ----------------------------------------------------------------------------------------------------------


def _atoms(wire: Wire, user: User) -> None:
    wire.ok(f"LOGIN {user.name} {user.password}".encode())


def _quoted(wire: Wire, user: User) -> None:
    wire.ok(b"login " + quoted(user.name) + b" " + quoted(user.password))


def _literals(wire: Wire, user: User) -> None:
    answer = wire.command_with_literals(b"LOGIN", user.name.encode(), b" ", user.password.encode())
    assert b" OK " in answer[-1], answer


def _direct_literals(wire: Wire, user: User) -> None:
    name, password = user.name.encode(), user.password.encode()
    wire.send(b"x LOGIN {%d+}\r\n%b {%d+}\r\n%b\r\n" % (len(name), name, len(password), password))
    (answer,) = wire.until_tagged(b"x")
    assert answer.startswith(b"x OK "), answer


def _mixed(wire: Wire, user: User) -> None:
    answer = wire.command_with_literals(b"LOGIN " + user.name.encode(), user.password.encode())
    assert b" OK " in answer[-1], answer


def _plain(wire: Wire, user: User) -> None:
    assert authenticate(wire, "PLAIN", lambda _: encoded("", user.name, user.password)).startswith(b"OK ")


def _plain_initial(wire: Wire, user: User) -> None:
    assert authenticate(wire, "plain", initial=encoded("", user.name, user.password)).startswith(b"OK ")


def _plain_as_oneself(wire: Wire, user: User) -> None:
    assert authenticate(wire, "PLAIN", initial=encoded(user.name, user.name, user.password)).startswith(b"OK ")


def _sasl_login(wire: Wire, user: User) -> None:
    answers = (lambda _: encoded(user.name), lambda _: encoded(user.password))
    assert authenticate(wire, "LOGIN", *answers).startswith(b"OK ")


def _sasl_login_initial(wire: Wire, user: User) -> None:
    answer = authenticate(wire, "LOGIN", lambda _: encoded(user.password), initial=encoded(user.name))
    assert answer.startswith(b"OK ")


WAYS = {
    "atoms": (_atoms, "correct-horse"),
    "quoted": (_quoted, 'co"rr\\ect {5} horse'),
    "literals": (_literals, "correct {5+} hörse"),
    "direct-literals": (_direct_literals, "correct hörse)"),
    "mixed": (_mixed, "%s%n"),
    "plain": (_plain, "correct hörse"),
    "plain-initial": (_plain_initial, "correct hörse"),
    "plain-as-oneself": (_plain_as_oneself, "correct horse"),
    "sasl-login": (_sasl_login, "correct hörse"),
    "sasl-login-initial": (_sasl_login_initial, "correct horse"),
}


@pytest.mark.parametrize("way", WAYS)
def test_terminated_logins(server: Server, front: Callable[[Server], Gate], user: NewUser, way: str) -> None:
    """LOGIN and AUTHENTICATE PLAIN and LOGIN, in every form, log in on every server, once."""
    log_in, password = WAYS[way]
    someone = user(server, password=password)
    gate = front(server)
    with connect(gate.host, gate.port) as wire:
        log_in(wire, someone)
        done(wire, server, someone)
    name = re.escape(someone.name)
    gate.wait_log(
        rf'session ended: user="{name}" address=127.0.0.1 reason="logout" seconds=\S+ in=\d+ out=\d+ commands=3'
    )


def test_the_ok_tells_the_capabilities(server: Server, front: Callable[[Server], Gate], user: NewUser) -> None:
    """The OK of a login carries the list that holds from then on; who had asked before gets the line, too."""
    someone = user(server)
    gate = front(server)
    with connect(gate.host, gate.port) as wire:
        (answer,) = wire.login(someone.name, someone.password)
        found = re.search(rb" OK \[CAPABILITY ([^]]+)\]", answer)
        assert found
        assert found[1].split() == wire.capabilities()
        assert not {b"STARTTLS", b"LOGINDISABLED"} & set(found[1].split())
        assert b"AUTH=" not in found[1]
    with connect(gate.host, gate.port) as wire:
        before = wire.capabilities()
        assert {b"AUTH=PLAIN", b"AUTH=LOGIN", b"SASL-IR", b"LITERAL+"} <= set(before)
        answers = wire.login(someone.name, someone.password)
        assert [answer.split()[:2] for answer in answers[:-1]] == [[b"*", b"CAPABILITY"]]


def test_pipelined_behind_the_login(server: Server, front: Callable[[Server], Gate], user: NewUser) -> None:
    """What stands behind LOGIN in the same write is run after it, also where the server itself would lose it."""
    someone = user(server)
    gate = front(server)
    with connect(gate.host, gate.port) as wire:
        login = b"a LOGIN " + quoted(someone.name) + b" " + quoted(someone.password)
        wire.send(login + b"\r\nb SELECT INBOX\r\nc NOOP\r\nd LOGOUT\r\n")
        seen = wire.eof()
    for tag in (b"a", b"b", b"c", b"d"):
        assert seen.count(b"\r\n" + tag + b" OK ") + seen.startswith(tag + b" OK ") == 1, seen


SASL_IR = b"IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=LOGIN"
BEST = {
    "plain-initial": (SASL_IR, [rb"\S+ AUTHENTICATE PLAIN \S+\r\n"]),
    "plain": (b"IMAP4rev1 AUTH=LOGIN AUTH=PLAIN", [rb"\S+ AUTHENTICATE PLAIN\r\n"]),
    "login": (b"IMAP4rev1 SASL-IR AUTH=LOGIN", [rb"\S+ AUTHENTICATE LOGIN\r\n"]),
    "command": (b"IMAP4rev1 AUTH=GSSAPI", [rb"\S+ LOGIN \S+ \{\d+\}\r\n"]),
    "disabled": (b"IMAP4rev1 LOGINDISABLED", []),
}


@pytest.mark.parametrize("offer", BEST)
def test_the_best_way_upstream(offer: str) -> None:
    """The gate takes PLAIN before LOGIN before the LOGIN command, whatever the client used; none: UNAVAILABLE."""
    before, expected = BEST[offer]
    with bed_of(script=Script(before=before)) as bed:
        for log_in in (_direct_literals, _plain, _sasl_login):
            someone = User(None, bed.new_user().decode(), "pässword")  # type: ignore[arg-type]
            with bed.connect() as wire:
                if not expected:
                    answer = authenticate(wire, "PLAIN", initial=encoded("", someone.name, "x"))
                    assert answer.startswith(b"NO [UNAVAILABLE]")
                    continue
                log_in(wire, someone)
                wire.logout()
            (talk,) = bed.recorder.of(someone.name.encode())
            assert talk.passwords == ["pässword".encode()]
            logins = [command.raw for command in talk.commands if command.verb in (b"LOGIN", b"AUTHENTICATE")]
            assert len(logins) == 1
            assert re.match(expected[0], logins[0]), logins
        assert not bed.recorder.violations
        if not expected:
            assert {command.verb for talk in bed.recorder.conversations for command in talk.commands} == set()


# -- relayed mechanisms -----------------------------------------------------------------------------------------------


def test_relayed_cram_md5(server: Server, front: Callable[[Server], Gate], user: NewUser) -> None:
    """CRAM-MD5 is relayed to every server; the gate never sees a password, and logs no user name."""
    someone = user(server)
    gate = front(server)
    with connect(gate.host, gate.port) as wire:
        answer = authenticate(wire, "CRAM-MD5", cram_md5(someone.name, someone.password))
        assert answer.startswith(b"OK [CAPABILITY ")
        done(wire, server, someone)
    with connect(gate.host, gate.port) as wire:
        assert authenticate(wire, "CRAM-MD5", cram_md5(someone.name, "wrong")) == FAILED
        assert authenticate(wire, "CRAM-MD5", cram_md5(someone.name, someone.password)).startswith(b"OK ")
    gate.wait_log(r"login failed: user=- address=127.0.0.1 mechanism=CRAM-MD5 reason=credentials session=\w+\n")


@pytest.mark.parametrize("inline", [True, False])
def test_relayed_scram(dovecot: Dovecot, front: Callable[[Server], Gate], user: NewUser, inline: bool) -> None:
    """SCRAM-SHA-256, with and without an initial response; the server's own proof comes through, too."""
    someone = user(dovecot)
    gate = front(dovecot)
    scram = Scram(someone.name, someone.password)
    with connect(gate.host, gate.port) as wire:
        if inline:
            answer = authenticate(wire, "SCRAM-SHA-256", scram.final, scram.verify, initial=scram.first())
        else:
            answer = authenticate(wire, "SCRAM-SHA-256", given(scram.first()), scram.final, scram.verify)
        assert answer.startswith(b"OK ")
        assert scram.verified
        done(wire, dovecot, someone)
    wrong = Scram(someone.name, "wrong")
    with connect(gate.host, gate.port) as wire:
        assert authenticate(wire, "SCRAM-SHA-256", wrong.final, wrong.verify, initial=wrong.first()) == FAILED


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("inline", [True, False])
def test_relayed_token(
    dovecot: Dovecot, front: Callable[[Server], Gate], user: NewUser, mechanism: str, inline: bool
) -> None:
    """A token logs in; a bad one gets its error challenge, an answer, and the text that every failure has."""
    someone = user(dovecot)
    gate = front(dovecot)
    good, bad = (bearer(mechanism, someone.name, token) for token in (dovecot.token(someone.name), "not.a.token"))
    asked: list[bytes] = []

    def dismiss(challenge: bytes) -> bytes:
        asked.append(challenge)
        return b"" if mechanism == "XOAUTH2" else base64.b64encode(b"\1")

    with connect(gate.host, gate.port) as wire:
        if inline:
            assert authenticate(wire, mechanism, dismiss, initial=bad) == FAILED
            answer = authenticate(wire, mechanism, initial=good)
        else:
            assert authenticate(wire, mechanism, lambda _: bad, dismiss) == FAILED
            answer = authenticate(wire, mechanism, lambda _: good)
        assert answer.startswith(b"OK ")
        assert b"status" in asked[0]
        done(wire, dovecot, someone)
    assert dovecot.token(someone.name)[:20] not in gate.log()


def test_relayed_and_cancelled(server: Server, front: Callable[[Server], Gate], user: NewUser) -> None:
    """`*` ends the exchange with BAD, at once; it is no failed login, and the next one works."""
    someone = user(server)
    gate = front(server)
    with connect(gate.host, gate.port) as wire:
        logged = len(gate.log())
        for mechanism in ("CRAM-MD5", "PLAIN", "LOGIN"):
            assert authenticate(wire, mechanism, lambda _: b"*").startswith(b"BAD ")
        assert authenticate(wire, "LOGIN", lambda _: encoded(someone.name), lambda _: b"*").startswith(b"BAD ")
        _plain(wire, someone)
        done(wire, server, someone)
    assert "login failed" not in gate.log()[logged:]


def test_relayed_to_its_own_connection() -> None:
    """An exchange that is cancelled, broken or left ends its connection upstream; only base64 is passed on."""
    before = b"IMAP4rev1 SASL-IR AUTH=X-TEST AUTH=PLAIN"

    def answer(talk: Conversation, command: Command) -> None:
        talk.send(b"+ " + encoded("one") + b"\r\n")
        talk.user = talk.line()
        if talk.user != b"*":
            talk.send(b"+ " + encoded("two") + b"\r\n")
            talk.user = talk.line()
        talk.send(command.tag + b" BAD over\r\n")

    with bed_of(script=Script(before=before, answers={b"AUTHENTICATE": answer})) as bed:
        relaying(bed.gate, b"X-TEST")
        for last in (b"*", b"not base64!"):
            with bed.connect() as wire:
                assert authenticate(wire, "X-TEST", given(encoded("x")), given(last)).startswith(b"BAD ")
                wire.ok(b"NOOP")
        with bed.connect() as wire:
            wire.send(b"a AUTHENTICATE X-TEST\r\n")
            wire.expect_continuation()
        bed.recorder.wait(lambda: all(talk.ended for talk in bed.recorder.conversations))
        heard = [talk.user for talk in bed.recorder.conversations if talk.user is not None]
        assert heard == [b"*", b"*"]
        with bed.connect() as wire:
            assert authenticate(wire, "X-OTHER").startswith(b"NO [CANNOT]")


def test_initial_response_held_back(user: NewUser, authority: CertificateAuthority) -> None:
    """Where upstream lacks SASL-IR the client's initial response waits for upstream's challenge."""
    extra = "imap_capability = IMAP4rev1 LITERAL+ ID ENABLE IDLE UIDPLUS"
    with Dovecot(authority, extra=extra) as bare, FaultProxy((bare.host, bare.port), keep=True) as between:
        someone = user(bare)
        token = bearer("XOAUTH2", someone.name, bare.token(someone.name))
        scram = Scram(someone.name, someone.password)
        with gate_for(bare, upstream={"endpoints": [f"tcp:127.0.0.1:{between.port}"]}) as gate:
            relaying(gate)
            with connect(gate.host, gate.port) as wire:
                assert authenticate(wire, "XOAUTH2", initial=token).startswith(b"OK ")
                wire.ok(b"SELECT INBOX")
            with connect(gate.host, gate.port) as wire:
                answer = authenticate(wire, "SCRAM-SHA-256", scram.final, scram.verify, initial=scram.first())
                assert answer.startswith(b"OK ")
                wire.ok(b"SELECT INBOX")
            wait_until(lambda: bare.login_count(someone.name) == 2, "two logins")
            sent = [bytes(connection.up.data) for connection in between.connections]
        assert b"SASL-IR" not in bytes(between.connections[0].down.data)
    lines = [line for data in sent for line in data.split(b"\r\n") if b"AUTHENTICATE" in line]
    assert [line.split()[1:] for line in lines] == [[b"AUTHENTICATE", b"XOAUTH2"], [b"AUTHENTICATE", b"SCRAM-SHA-256"]]
    assert any(b"\r\n" + token + b"\r\n" in data for data in sent)


def test_initial_response_passed_on(dovecot: Dovecot, user: NewUser) -> None:
    """Where upstream has SASL-IR, it goes with the command: one round less."""
    someone = user(dovecot)
    token = bearer("XOAUTH2", someone.name, dovecot.token(someone.name))
    with FaultProxy((dovecot.host, dovecot.port), keep=True) as between:
        with gate_for(dovecot, upstream={"endpoints": [f"tcp:127.0.0.1:{between.port}"]}) as gate:
            relaying(gate)
            with connect(gate.host, gate.port) as wire:
                assert authenticate(wire, "XOAUTH2", initial=token).startswith(b"OK ")
        assert any(b" AUTHENTICATE XOAUTH2 " + token + b"\r\n" in bytes(c.up.data) for c in between.connections)
