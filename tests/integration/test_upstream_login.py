"""The way into an upstream that refuses, hangs, talks too early or is not who it should be (A5-A7, A36, F1, F2)."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.integration.bed import SHORT_TIMES, Bed, authority, bed_of, server_context
from tests.integration.faults import Fault
from tests.integration.scripted import Command, Conversation, Recorder, Script, always


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """Give one gate with short time limits in front of one recorder."""
    with bed_of(limits=SHORT_TIMES, far_proxy=True) as bed:
        yield bed


@pytest.fixture(autouse=True)
def _usual_script(request: pytest.FixtureRequest) -> Iterator[None]:
    """Put the recorder's usual behaviour back after each test."""
    yield
    if "bed" in request.fixturenames:
        request.getfixturevalue("bed").recorder.script = Script()


def test_a5_nothing_of_upstream_before_login(bed: Bed) -> None:
    """Greeting text, alerts and untagged data from before the login never reach the client."""
    noise = b'* OK [ALERT] SECRET-ALERT\r\n* BAD SECRET\r\n* 5 EXISTS\r\n* LIST () "/" SECRET\r\n'

    def login(talk: Conversation, command: Command) -> None:
        talk.send(noise)
        talk.logged_in(command, *command.words())

    bed.recorder.script = Script(
        greeting=b"* OK [CAPABILITY IMAP4rev1] SECRET host ready\r\n" + noise,
        before=b"IMAP4rev1",
        answers={b"LOGIN": login},
    )
    wire, _ = bed.login()
    with wire:
        wire.ok(b"NOOP")
        assert b"SECRET" not in wire.transcript
        assert b"EXISTS" not in wire.transcript
        assert b"ALERT" not in wire.transcript


def test_a6_referrals(bed: Bed) -> None:
    """A referral is neither followed nor shown: its host gets no connection."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        where = b"[REFERRAL imap://alice@127.0.0.1:%d/]" % elsewhere.getsockname()[1]
        bed.answer(
            AUTHENTICATE=always(b"%t NO " + where + b" go there\r\n"),
            LOGIN=always(b"%t NO " + where + b" go there\r\n"),
        )
        with bed.connect() as wire:
            assert b"REFERRAL" not in b"".join(wire.command(b"LOGIN alice secret"))
        bed.answer(SELECT=always(b"* NO " + where + b" look\r\n%t NO " + where + b" go there\r\n"))
        wire, _ = bed.login()
        with wire:
            answer = b"".join(wire.command(b"SELECT INBOX", tag=b"s"))
            assert b"REFERRAL" not in answer
            assert b"s NO" in answer
        elsewhere.settimeout(0)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_f1_refused_then_back(bed: Bed) -> None:
    """Upstream refuses connections: NO [UNAVAILABLE], the client stays, and logs in when upstream is back."""
    assert bed.far is not None
    with bed.connect() as wire:
        bed.far.refuse()
        try:
            assert wire.command(b"LOGIN nobody secret", tag=b"a") == [wire.transcript.splitlines(True)[-1]]
            assert b"a NO [UNAVAILABLE]" in wire.transcript
        finally:
            bed.far.listen()
        user = bed.new_user()
        wire.login(user.decode(), "secret")
        wire.ok(b"NOOP")


def test_f1_silence_before_the_greeting(bed: Bed) -> None:
    """An upstream that accepts and says nothing is given up within the limit: NO [UNAVAILABLE]."""
    bed.next_upstream(down=Fault(black_hole_at=0))
    with bed.connect() as wire:
        assert wire.command(b"LOGIN nobody secret", tag=b"a")[-1].startswith(b"a NO [UNAVAILABLE]")


@pytest.mark.parametrize(
    "greeting",
    [
        b"* BYE not today\r\n",
        b"* BAD\r\n",
        b"220 mail ESMTP\r\n",
        b"+OK POP3\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"* PREAUTH you are root\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"* OK " + b"x" * 300_000,
        b"* OK a\n* OK b\r\n",
    ],
    ids=["bye", "bad", "smtp", "pop3", "http", "preauth", "tls", "endless", "bare-lf"],
)
def test_f1_not_an_imap_greeting(bed: Bed, greeting: bytes) -> None:
    """A server that greets otherwise than `* OK` is no upstream, and gets no credentials."""
    bed.recorder.script = Script(greeting=greeting)
    before = len(bed.recorder.conversations)
    with bed.connect() as wire:
        assert wire.command(b"LOGIN nobody secret", tag=b"a")[-1].startswith(b"a NO [UNAVAILABLE]")
        assert b"root" not in wire.transcript
    assert len(bed.recorder.conversations) > before
    for talk in bed.recorder.conversations[before:]:
        assert b"secret" not in talk.received
        assert not talk.passwords


def test_f1_one_of_three_endpoints_is_dead() -> None:
    """The next endpoint is tried at once: every login succeeds while one of three is dead."""
    with ExitStack() as stack:
        recorders = [stack.enter_context(Recorder()) for _ in range(2)]
        with socket.create_server(("127.0.0.1", 0)) as vacant:
            dead = vacant.getsockname()[1]
        bed = stack.enter_context(bed_of(recorder=recorders[0], ports=[dead, recorders[1].port, recorders[0].port]))
        begun = time.monotonic()
        for _ in range(30):
            wire, _ = bed.login()
            with wire:
                wire.ok(b"NOOP")
        assert sum(len(recorder.conversations) for recorder in recorders) >= 30
        # F1 allows 50 ms more a login; twice that leaves room for a slow machine, and none for waiting by a timer.
        assert time.monotonic() - begun < 30 * 0.1


@pytest.mark.parametrize(
    "text",
    [
        b"[AUTHENTICATIONFAILED] Authentication failed.",
        b"[UNAVAILABLE] user database down",
        b"no such user",
        b"[ALERT] account of nobody expired",
        b"LOGIN failed {5}",
    ],
)
def test_f2_a36_refused_login(bed: Bed, text: bytes) -> None:
    """A refusal is asked for once, is never tried elsewhere, and is told in words of the gate's own."""
    bed.answer(AUTHENTICATE=always(b"%t NO " + text + b"\r\n"), LOGIN=always(b"%t NO " + text + b"\r\n"))
    before = len(bed.recorder.conversations)
    with bed.connect() as wire:
        answer = wire.command(b"LOGIN nobody wrong", tag=b"a")[-1]
        assert answer.startswith(b"a NO [")
        assert text not in answer
    logins = [
        command
        for talk in bed.recorder.conversations[before:]
        for command in talk.commands
        if command.verb in (b"LOGIN", b"AUTHENTICATE")
    ]
    assert len(logins) == 1


def test_a36_one_text_for_every_refusal(bed: Bed) -> None:
    """Five different refusals upstream are the same bytes for the client."""
    texts = set()
    for text in (b"[AUTHENTICATIONFAILED] no", b"no such user", b"[EXPIRED] x", b"wrong password", b"[ALERT] locked"):
        bed.answer(AUTHENTICATE=always(b"%t NO " + text + b"\r\n"), LOGIN=always(b"%t NO " + text + b"\r\n"))
        with bed.connect() as wire:
            texts.add(wire.command(b"LOGIN nobody wrong", tag=b"a")[-1])
    assert len(texts) == 1


def _wrong(kind: str) -> ssl.SSLContext:
    """Make a server context whose certificate must not be accepted for ``localhost``."""
    issue: dict[str, Callable[[], ssl.SSLContext]] = {
        "wrong-host": lambda: server_context("mail.example.org"),
        "expired": lambda: server_context("localhost", expired=True),
        "not-yet-valid": lambda: server_context("localhost", not_yet_valid=True),
        "self-signed": lambda: server_context("localhost", self_signed=True),
        "common-name-only": lambda: server_context("localhost", common_name_only=True),
        "other-authority": lambda: server_context("localhost", other=True),
    }
    return issue[kind]()


@pytest.fixture(scope="module", params=["implicit", "starttls"])
def secure(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """Give a gate that goes upstream by TLS, of either kind, and trusts one authority and one name."""
    which = Script(tls="implicit" if request.param == "implicit" else "starttls")
    table = {"tls": request.param, "ca": str(authority().certificate), "server_name": "localhost"}
    context = server_context("localhost")  # the gate may look at its upstream before any test does
    with bed_of(script=which, context=context, upstream=table, limits=SHORT_TIMES) as bed:
        yield bed


@pytest.mark.parametrize(
    "kind", ["wrong-host", "expired", "not-yet-valid", "self-signed", "common-name-only", "other-authority"]
)
def test_a7_upstream_identity(secure: Bed, kind: str) -> None:
    """An upstream that cannot prove its name gets no credential byte, in clear or otherwise."""
    secure.recorder.context = _wrong(kind)
    before = len(secure.recorder.conversations)
    with secure.connect() as wire:
        assert wire.command(b"LOGIN alice canary", tag=b"a")[-1].startswith(b"a NO [UNAVAILABLE]")
    talks = secure.recorder.conversations[before:]
    assert talks
    for talk in talks:
        assert not talk.passwords
        assert b"canary" not in talk.received
        assert b"LOGIN" not in talk.received
        assert b"AUTHENTICATE" not in talk.received


def test_a7_the_right_upstream(secure: Bed) -> None:
    """The same with a good certificate logs in, through TLS and not before."""
    secure.recorder.context = server_context("localhost")
    wire, user = secure.login()
    with wire:
        wire.ok(b"NOOP")
    (talk,) = secure.recorder.of(user)
    assert talk.tls
    assert talk.passwords == [b"secret"]
    assert b"secret" not in talk.clear
    assert not talk.violations


def test_a7_clear_text_where_tls_is_expected() -> None:
    """An upstream that speaks clear text where TLS is configured gets nothing but a handshake."""
    mode: dict[str, str] = {"tls": "implicit", "ca": str(authority().certificate), "server_name": "localhost"}
    with bed_of(upstream=mode, limits=SHORT_TIMES) as bed:
        with bed.connect() as wire:
            assert wire.command(b"LOGIN alice canary", tag=b"a")[-1].startswith(b"a NO [UNAVAILABLE]")
        assert bed.recorder.conversations
        for talk in bed.recorder.conversations:
            assert b"canary" not in talk.received
            assert not talk.received or talk.received[:1] == b"\x16"
