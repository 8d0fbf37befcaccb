"""STARTTLS at every offset, on both sides: what is in clear behind it never counts, credentials never leave (A1-A4)."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from tests.integration.bed import HOST, Bed, authority, bed_of, server_context, taken
from tests.integration.faults import Fault, FaultProxy
from tests.integration.scripted import Answer, Command, Conversation, Recorder, Script, always
from tests.integration.wire import Wire, connect, tls_context

PASSWORD = "canary-3141"
CANARIES = (PASSWORD.encode(), base64.b64encode(PASSWORD.encode()).rstrip(b"=")[:-1])
SHORT = {"tls_handshake": "1s", "connect_try": "1s", "connect_total": "2s", "upstream_first_byte": "1s"}


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """Give a gate that must use STARTTLS upstream, in front of one recorder."""
    with bed_of(
        script=Script(tls="starttls"),
        context=server_context("localhost"),
        upstream={"tls": "starttls", "ca": str(authority().certificate), "server_name": "localhost"},
        limits=SHORT,
    ) as bed:
        yield bed


@pytest.fixture(autouse=True)
def _usual_script(bed: Bed) -> Iterator[None]:
    """Put the recorder's usual behaviour back after each test."""
    yield
    bed.recorder.script = Script(tls="starttls")


def starttls(bed: Bed) -> Wire:
    """Connect to the listener with STARTTLS, in clear."""
    return connect(HOST, bed.gate.starttls_port, timeout=10)


# -- the client's side ----------------------------------------------------------------------------------------------

START = b"a STARTTLS\r\n"
BEHIND = b"b NOOP\r\n"


@pytest.mark.parametrize("offset", range(len(START + BEHIND) + 1))
def test_a1_client_sweep(bed: Bed, offset: int) -> None:
    """`b NOOP` in clear behind STARTTLS, cut at every byte, is never run and never answered."""
    stream = START + BEHIND
    with starttls(bed) as wire:
        port = wire.sock.getsockname()[1]
        wire.send(stream[:offset])
        taken(bed.gate.starttls_port, port)
        wire.send(stream[offset:])
        answer = wire.eof()
    assert b"b " not in answer.replace(b"a OK", b"")
    # The bytes were there when STARTTLS was read: no handshake is offered at all.
    if offset != len(START):
        assert b"a OK" not in answer or offset > len(START)


@pytest.mark.parametrize("behind", [BEHIND, b"\r\n", b"b", b" ", b"b LOGIN u p\r\n", b"\x16\x03\x01\x00\x05hello"])
def test_a1_no_handshake_with_bytes_behind(bed: Bed, behind: bytes) -> None:
    """Whatever stands behind STARTTLS in the same write: no OK, no handshake, the connection ends."""
    with starttls(bed) as wire:
        wire.send(START + behind)
        answer = wire.eof()
    assert b"a OK" not in answer
    assert b"b OK" not in answer


def test_a1_state_is_forgotten(bed: Bed) -> None:
    """After a clean STARTTLS the session starts anew: capabilities are others, and a login works."""
    user = bed.new_user()
    with starttls(bed) as wire:
        before = set(wire.capabilities())
        assert b"STARTTLS" in before
        wire.start_tls(tls_context(bed.gate.certificate))
        after = set(wire.capabilities())
        assert b"STARTTLS" not in after
        assert b"LOGINDISABLED" not in after
        assert b"AUTH=PLAIN" in after
        wire.login(user.decode(), PASSWORD)
        wire.ok(b"NOOP")
    bed.ended(user)
    (talk,) = bed.recorder.of(user)
    assert talk.passwords == [PASSWORD.encode()]
    assert not talk.violations


def test_a1_sliced_handshake(bed: Bed) -> None:
    """A handshake that comes octet by octet is one all the same."""
    with FaultProxy((HOST, bed.gate.starttls_port)) as proxy:
        proxy.plan(up=Fault(slice=1), down=Fault(slice=1))
        with connect(HOST, proxy.port, timeout=10) as wire:
            wire.start_tls(tls_context(bed.gate.certificate))
            wire.ok(b"NOOP")


def test_a4_second_starttls(bed: Bed) -> None:
    """A second STARTTLS, one with arguments, and one after login are refused, and the session goes on."""
    with starttls(bed) as wire:
        assert wire.command(b"STARTTLS now", tag=b"a")[-1].startswith(b"a BAD")
        wire.start_tls(tls_context(bed.gate.certificate))
        assert wire.command(b"STARTTLS", tag=b"b")[-1].startswith(b"b BAD")
        user = bed.new_user()
        wire.login(user.decode(), PASSWORD)
        assert wire.command(b"STARTTLS", tag=b"c")[-1].startswith(b"c BAD")
        assert b"STARTTLS" not in wire.capabilities()
        wire.ok(b"NOOP")
    with connect(HOST, bed.gate.port, timeout=10) as wire:
        assert b"STARTTLS" not in wire.capabilities()
        assert wire.command(b"STARTTLS", tag=b"a")[-1].startswith(b"a BAD")


@pytest.mark.parametrize("early", [b"a STARTTLS {6+}\r\nb NOOP\r\n", b"a STARTTLS\nb NOOP\r\n", b"a STARTTLS \r\n"])
def test_a1_malformed(bed: Bed, early: bytes) -> None:
    """A malformed STARTTLS starts nothing."""
    with starttls(bed) as wire:
        wire.send(early)
        wire.half_close()
        answer = wire.eof()
    assert b"a OK" not in answer
    assert b"b OK" not in answer


# -- upstream's side ------------------------------------------------------------------------------------------------

OK = b"%t OK begin\r\n"
INJECTED = b"* CAPABILITY IMAP4rev1 AUTH=X\r\n"


def raw_starttls(recorder: Recorder, stream: bytes, offset: int, handshake: bool) -> Answer:
    """Answer STARTTLS in two writes, then handshake or only record what arrives."""

    def answer(talk: Conversation, command: Command) -> None:
        data = stream.replace(b"%t", command.tag)
        cut = len(stream[:offset].replace(b"%t", command.tag))
        talk.send(data[:cut])
        taken(talk.peer_port, recorder.port)
        if data[cut:]:
            talk.send(data[cut:])
        if handshake:
            talk.start_tls()
            return
        while True:  # until the gate closes
            talk.exactly(1)

    return answer


def attempt(bed: Bed) -> list[Conversation]:
    """Log in through the gate, which must fail; give the conversations upstream when they are over."""
    before = len(bed.recorder.conversations)
    with bed.connect() as wire:
        answer = wire.command(b"LOGIN alice " + PASSWORD.encode(), tag=b"a")[-1]
    assert answer.startswith(b"a NO [UNAVAILABLE]"), answer
    talks = bed.recorder.conversations[before:]
    assert talks
    bed.recorder.wait(lambda: all(talk.ended for talk in talks))
    return talks


def check_secret(talks: list[Conversation]) -> None:
    """No credential byte in clear, nor anywhere: the login was never tried."""
    for talk in talks:
        assert not talk.passwords
        for canary in CANARIES:
            assert canary not in talk.clear
            assert canary not in talk.received
        # A handshake that the script does not take part in is no line.
        assert not talk.violations or b"\x16\x03" in talk.clear


@pytest.mark.parametrize(
    ("offset", "handshake"),
    [(offset, False) for offset in range(len(OK + INJECTED) + 1)]
    # At the OK's end the gate is in its handshake already, in which injected bytes can only be noise.
    + [(offset, True) for offset in range(len(OK + INJECTED) + 1) if offset != len(OK)],
)
def test_a2_upstream_sweep(bed: Bed, offset: int, handshake: bool) -> None:
    """A response injected behind upstream's OK, cut at every byte: that upstream is given up without a credential."""
    answer = raw_starttls(bed.recorder, OK + INJECTED, offset, handshake)
    bed.recorder.script = Script(tls="starttls", answers={b"STARTTLS": answer})
    check_secret(attempt(bed))


@pytest.mark.parametrize(
    "script",
    [
        Script(tls="starttls", greeting=b"* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] root\r\n"),
        Script(tls="none", greeting=b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] stripped\r\n"),
        Script(tls="none"),
        Script(tls="starttls", answers={b"STARTTLS": always(b"%t NO not now\r\n")}),
        Script(tls="starttls", answers={b"STARTTLS": always(b"%t BAD what\r\n")}),
        Script(tls="starttls", answers={b"STARTTLS": always(b"x OK begin\r\n")}),
        Script(tls="starttls", answers={b"STARTTLS": always(b"* OK begin\r\n")}),
        Script(tls="starttls", answers={b"STARTTLS": always(b"+ begin\r\n")}),
        Script(tls="starttls", answers={b"STARTTLS": always(b"* PREAUTH\r\n%t OK begin\r\n")}),
        Script(tls="starttls", answers={b"STARTTLS": always(b"%t OK begin\r\n* OK [CAPABILITY IMAP4rev1] clear\r\n")}),
        Script(tls="starttls", answers={b"STARTTLS": lambda talk, _: talk.close()}),
        Script(tls="starttls", answers={b"STARTTLS": lambda talk, _: None}),
        Script(tls="starttls", answers={b"CAPABILITY": always(b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n%t OK done\r\n"),
                                        b"STARTTLS": always(b"%t BAD what\r\n")}),
    ],
    ids=["preauth", "stripped", "no-starttls", "no", "bad", "other-tag", "untagged", "plus", "preauth-later",
         "goes-on-clear", "closes", "silent", "stripped-later"],
)  # fmt: skip
def test_a3_no_tls_no_credentials(bed: Bed, script: Script) -> None:
    """Where TLS is configured and upstream does not do it, however it says so, no credential byte ever leaves."""
    bed.recorder.script = script
    check_secret(attempt(bed))


def test_a2_capabilities_are_asked_again(bed: Bed) -> None:
    """What upstream claimed before TLS is forgotten: the capabilities are asked for inside it."""

    def start(talk: Conversation, command: Command) -> None:
        talk.send(command.tag + b" OK begin\r\n")
        talk.start_tls()
        talk.script = Script(tls="starttls", before=b"IMAP4rev1 AUTH=PLAIN", after=b"IMAP4rev1 UIDPLUS")

    bed.recorder.script = Script(
        tls="starttls",
        greeting=b"* OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=X AUTH=CRAM-MD5 LOGINDISABLED X-EARLY] hello\r\n",
        answers={b"STARTTLS": start},
    )
    wire, user = bed.login()
    with wire:
        assert b"UIDPLUS" in wire.capabilities()
    bed.ended(user)
    (talk,) = bed.recorder.of(user)
    verbs = [command.verb for command in talk.commands]
    assert verbs.index(b"CAPABILITY", verbs.index(b"STARTTLS")) < verbs.index(b"AUTHENTICATE")
    assert not talk.violations


def test_instrument_reads_separately(bed: Bed) -> None:
    """`taken` returns only when the gate has read what was sent (the sweep's own check)."""
    with starttls(bed) as wire:
        wire.send(b"a NOO")
        taken(bed.gate.starttls_port, wire.sock.getsockname()[1])
        assert wire.quiet(0.05)
        wire.send(b"P\r\n")
        assert wire.until_tagged(b"a")[-1].startswith(b"a OK")
