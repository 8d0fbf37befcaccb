"""An upstream that lies, floods, hangs or hangs up on a logged-in client (PROTOCOL.md §2 rule 8, §5)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.integration.bed import SHORT_TIMES, Bed, bed_of, last_line
from tests.integration.faults import Fault, FaultProxy
from tests.integration.scripted import MESSAGE, Command, Conversation, Script, always
from tests.integration.wire import Wire


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


FORGERIES = [
    b"x9 OK forged\r\n",
    b"g9999 OK forged\r\n",
    b"g1 OK forged\r\n",
    b"%c OK forged\r\n",
    b"+ OK forged\r\n",
    b"+\r\n",
    b"* OK forged\r\n%t0 OK forged\r\n",
    b"OK forged\r\n",
    b"\r\n",
    b"* \r\n",
    b"%t FORGED\r\n",
    b"%t\r\n",
]


@pytest.mark.parametrize("forged", FORGERIES)
def test_a22_forged_completion(bed: Bed, forged: bytes) -> None:
    """A completion for nothing outstanding, or a `+` nobody awaits, destroys that upstream connection."""
    bed.answer(CHECK=lambda talk, command: talk.send(forged.replace(b"%t", command.tag).replace(b"%c", b"cc")))
    wire, user = bed.login()
    with wire:
        wire.send(b"cc CHECK\r\n")
        answer = wire.eof()
    assert b"cc OK" not in answer
    assert b"\n+" not in b"\n" + answer
    assert last_line(answer).startswith(b"* BYE [UNAVAILABLE]")
    bed.ended(user)
    (talk,) = bed.recorder.of(user)
    assert [command.verb for command in talk.commands].count(b"LOGOUT") == 0


@pytest.mark.parametrize("forged", [b"x9 OK forged\r\n", b"+ idling\r\n", b"g1 NO again\r\n"])
def test_a22_forged_while_nothing_runs(bed: Bed, forged: bytes) -> None:
    """The same while no command is outstanding."""

    def answer(talk: Conversation, command: Command) -> None:
        talk.ok(command)
        talk.send(forged)

    bed.answer(CHECK=answer)
    wire, user = bed.login()
    with wire:
        wire.send(b"c CHECK\r\n")
        seen = wire.eof()
    assert b"forged" not in seen
    assert last_line(seen).startswith(b"* BYE [UNAVAILABLE]")
    bed.ended(user)


@pytest.mark.parametrize("line", [b"* CAPABILITY IMAP4rev1 ", b"* CAPABILITY ", b"* ENABLED "])
def test_a22_forged_in_a_literal(bed: Bed, line: bytes) -> None:
    """A literal in a line that the gate writes anew would leave its octets standing alone, as lines of their own."""
    bed.answer(CHECK=always(line + b"{14}\r\ncc OK forged\r\n\r\n%t OK done\r\n"))
    wire, _ = bed.login()
    with wire:
        wire.send(b"cc CHECK\r\n")
        answer = wire.eof()
    assert b"forged" not in answer
    assert last_line(answer).startswith(b"* BYE [UNAVAILABLE]")


def test_a22_double_completion(bed: Bed) -> None:
    """A second completion of the same command is a forgery too: each client tag is answered once."""
    bed.answer(CHECK=always(b"%t OK once\r\n%t OK twice\r\n"))
    wire, _ = bed.login()
    with wire:
        wire.send(b"c CHECK\r\n")
        answer = wire.eof()
    assert answer.count(b"c OK") == 1
    assert b"twice" not in answer


def test_a23_a_message_that_looks_like_protocol(bed: Bed) -> None:
    """A literal's octets are counted and never read, however they are cut."""
    wire, user = bed.login()
    with wire:
        wire.ok(b"SELECT INBOX")
        for size in (0, 1, 7):
            bed.next_upstream(down=Fault(slice=size))
            other, _ = bed.login()
            with other:
                other.ok(b"SELECT INBOX")
                fetched = other.ok(b"FETCH 1 BODY[]")
            assert fetched[0] == b"* 1 FETCH (UID 1 BODY[] {%d}\r\n%b FLAGS (\\Seen))\r\n" % (len(MESSAGE), MESSAGE)
    assert bed.recorder.of(user)


def test_rule_7_text_that_ends_like_a_literal(bed: Bed) -> None:
    """The human text of OK, NO, BAD and untagged OK never announces a literal (PROTOCOL.md §2, rule 7)."""
    bed.answer(
        STATUS=always(b"* OK about {3}\r\n* NO [ALERT] {999}\r\n%t NO no such mailbox: nobox {30}\r\n"),
        CHECK=always(b"%t OK {5}\r\n"),
    )
    wire, _ = bed.login()
    with wire:
        answer = wire.command(b"STATUS x (MESSAGES)", tag=b"s")
        assert answer[-1] == b"s NO no such mailbox: nobox {30}\r\n"
        assert answer[0] == b"* OK about {3}\r\n"
        assert wire.command(b"CHECK", tag=b"c")[-1] == b"c OK {5}\r\n"
        wire.ok(b"NOOP")


@pytest.mark.parametrize(
    "flood",
    [b"* OK ", b"* CAPABILITY A", b"%t OK ", b"* 1 FETCH (FLAGS (", b"", b"* LIST () ", b"+ "],
    ids=["ok", "capability", "tagged", "fetch", "nothing", "list", "plus"],
)
def test_a30_endless_line(bed: Bed, flood: bytes) -> None:
    """A line without end costs bounded memory, whatever it begins with: it is cut off or passed on in parts."""
    sent = []

    def answer(talk: Conversation, command: Command) -> None:
        talk.send(flood.replace(b"%t", command.tag))
        for _ in range(512):
            talk.send(b"x" * 65536)
            sent.append(65536)
        talk.send(b"\r\n")
        talk.close()

    bed.answer(CHECK=answer)
    wire, user = bed.login()
    before = bed.memory()
    with wire:
        wire.send(b"c CHECK\r\n")
        bed.ended(user)
        assert bed.memory() - before < 8 * 2**20
        assert b"c OK" not in wire.eof()[-2000:]


@pytest.mark.parametrize(
    "line",
    [
        b"* LIST " + b"(" * 60_000 + b"\r\n",
        b"* \x01\x02\xff\r\n",
        b"* 1 FETCH (BODY[] {-1}\r\n",
        b"* 99999999999999999999 EXISTS\r\n",
        b"* 1 FETCH\r\n",
        b"*\r\n",
    ],
    ids=["nesting", "octets", "negative", "huge", "empty-fetch", "star"],
)
def test_a30_junk(bed: Bed, line: bytes) -> None:
    """Deep lists and junk in responses are passed on or cut off: never an exception, and the gate lives."""
    bed.answer(CHECK=always(line + b"%t OK done\r\n"))
    wire, _ = bed.login()
    with wire:
        wire.send(b"c CHECK\r\n")
        seen = b""
        while b"c OK" not in seen and b"* BYE" not in seen:
            seen += wire.line()
    assert "Traceback" not in bed.gate.log()
    wire, _ = bed.login()
    with wire:
        wire.ok(b"NOOP")


@pytest.mark.parametrize("line", [b"* OK bare\nfeed\r\n", b"* 1 EXISTS\n* 2 EXISTS\r\n", b'* LIST () "/" a\n'])
def test_a30_bare_line_feed(bed: Bed, line: bytes) -> None:
    """A bare LF from upstream destroys that connection."""
    bed.answer(CHECK=always(line + b"%t OK done\r\n"))
    wire, _ = bed.login()
    with wire:
        wire.send(b"c CHECK\r\n")
        answer = wire.eof()
    assert b"c OK" not in answer


def test_capabilities_are_masked(bed: Bed) -> None:
    """What the gate does not know or cannot hold is not shown, in codes and untagged lines alike (PROTOCOL.md §3)."""
    bed.recorder.script = Script(
        after=b"IMAP4rev1 STARTTLS LOGINDISABLED AUTH=PLAIN AUTH=SCRAM-SHA-1-PLUS IDLE URLAUTH URL-PARTIAL "
        b"X-HIDDEN XCLIENT COMPRESS=DEFLATE LOGIN-REFERRALS MAILBOX-REFERRALS UNAUTHENTICATE LITERAL- UIDPLUS",
        answers={b"CHECK": always(b"* CAPABILITY IMAP4rev1 X-HIDDEN IDLE UIDPLUS\r\n%t OK done\r\n")},
    )
    wire, _ = bed.login()
    with wire:
        wire.ok(b"CHECK")
        shown = set(wire.capabilities())
        everything = bytes(wire.transcript).upper()
    assert {b"IMAP4rev1", b"IDLE", b"UIDPLUS", b"LITERAL+", b"ID"} <= shown
    for hidden in (
        b"STARTTLS",
        b"LOGINDISABLED",
        b"-PLUS",
        b"URLAUTH",
        b"HIDDEN",
        b"XCLIENT",
        b"COMPRESS",
        b"REFERRALS",
    ):
        assert hidden not in everything
    assert b"UNAUTHENTICATE" not in everything
    assert b"LITERAL-" not in everything


def test_completions_out_of_order(bed: Bed) -> None:
    """Completions are matched by tag and never first in, first out (Dovecot does this)."""
    held: list[Command] = []

    def hold(talk: Conversation, command: Command) -> None:
        held.append(command)

    def both(talk: Conversation, command: Command) -> None:
        talk.send(command.tag + b" OK second\r\n" + held[0].tag + b" NO first\r\n")

    bed.answer(STATUS=hold, LIST=both)
    wire, _ = bed.login()
    with wire:
        wire.send(b'a STATUS INBOX (MESSAGES)\r\nb LIST "" x\r\n')
        assert wire.response() == b"b OK second\r\n"
        assert wire.response() == b"a NO first\r\n"


def test_data_and_completions_before_a_continuation(bed: Bed) -> None:
    """Untagged data and another command's completion may come before the `+`, which stays awaited (PROTOCOL.md §1)."""
    earlier: list[Command] = []

    def literal(talk: Conversation, command: Command, size: int) -> bool:
        talk.send(b"* 3 EXISTS\r\n" + earlier[0].tag + b" OK late\r\n* 4 EXISTS\r\n+ now\r\n")
        return True

    bed.recorder.script = Script(answers={b"CHECK": lambda _, command: earlier.append(command)}, literal=literal)
    wire, user = bed.login()
    with wire:
        wire.send(b"a CHECK\r\nb APPEND INBOX {5}\r\n")
        before = [wire.response() for _ in range(4)]
        assert before[:3] == [b"* 3 EXISTS\r\n", b"a OK late\r\n", b"* 4 EXISTS\r\n"]
        assert before[3].startswith(b"+")
        wire.send(b"hello\r\n")
        assert wire.until_tagged(b"b")[-1].startswith(b"b OK")
    assert bed.recorder.of(user)[0].stored == [b"hello"]


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("word", [b"NO [OVERQUOTA]", b"BAD"])
def test_refused_literal(bed: Bed, word: bytes, direct: bool) -> None:
    """Upstream refuses a message literal: the client is told so, its octets go nowhere, the next command is one."""

    def literal(talk: Conversation, command: Command, size: int) -> bool:
        talk.send(command.tag + b" " + word + b" not that\r\n")
        return False

    bed.recorder.script = Script(literal=literal)
    wire, user = bed.login()
    with wire:
        body = b"q DELETE x\r\n" * 20
        if direct:
            wire.send(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(body), body))
        else:
            wire.send(b"a APPEND INBOX {%d}\r\n" % len(body))
        assert wire.until_tagged(b"a") == [b"a " + word + b" not that\r\n"]
        wire.ok(b"NOOP", tag=b"b")
    verbs = [command.verb for command in bed.after_login(user)]
    assert b"DELETE" not in verbs
    assert verbs[:2] == [b"APPEND", b"NOOP"]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_f3_crash_between_lines(bed: Bed, how: str) -> None:
    """Upstream dies at a line's boundary: `* BYE [UNAVAILABLE]`, no completion, the connection ends."""

    def die(talk: Conversation, command: Command) -> None:
        talk.send(b"* 1 EXISTS\r\n")
        if how == "reset":
            bed.recorder.wait(lambda: passed(b"EXISTS"))
            talk.reset()
        talk.close()

    wire_seen: list[Wire] = []

    def passed(text: bytes) -> bool:
        return bool(bed.far and text in bytes(bed.far.connections[-1].down.data))

    bed.answer(CHECK=die)
    wire, _ = bed.login()
    wire_seen.append(wire)
    with wire:
        wire.send(b"c CHECK\r\nd NOOP\r\n")
        answer = wire.eof()
    assert last_line(answer).startswith(b"* BYE [UNAVAILABLE]")
    assert b"\nc " not in answer
    assert b"\nd " not in answer


def test_f3_crash_inside_a_literal(bed: Bed) -> None:
    """Upstream dies inside a message: the client's connection is cut there, and nothing is made up."""

    def die(talk: Conversation, command: Command) -> None:
        talk.send(b"* 1 FETCH (BODY[] {1000}\r\n" + b"y" * 400)
        talk.close()

    bed.answer(FETCH=die)
    wire, _ = bed.login()
    with wire:
        wire.ok(b"SELECT INBOX")
        wire.send(b"f FETCH 1 BODY[]\r\n")
        # What was on its way may be lost with the connection; nothing may be made up.
        assert (b"* 1 FETCH (BODY[] {1000}\r\n" + b"y" * 400).startswith(wire.eof())


def test_f6_no_answer(bed: Bed) -> None:
    """A command that is never answered ends the session when the limit for the first byte is over."""
    bed.answer(CHECK=lambda talk, command: None)
    wire, user = bed.login()
    with wire:
        wire.send(b"c CHECK\r\n")
        answer = wire.eof()
    assert last_line(answer).startswith(b"* BYE [UNAVAILABLE]")
    bed.ended(user)


def test_f6_others_go_on(bed: Bed) -> None:
    """While one upstream connection hangs the others answer."""
    bed.answer(CHECK=lambda talk, command: None)
    stuck, _ = bed.login()
    with stuck:
        stuck.send(b"c CHECK\r\n")
        wire, _ = bed.login()
        with wire:
            for _ in range(20):
                wire.ok(b"NOOP")


def test_f7_upstream_half_close(bed: Bed) -> None:
    """Upstream closes its sending side after an answer: the answer arrives, then the session ends."""

    def answer(talk: Conversation, command: Command) -> None:
        talk.ok(command)
        talk.sock.shutdown(socket.SHUT_WR)

    bed.answer(CHECK=answer)
    wire, user = bed.login()
    with wire:
        wire.send(b"c CHECK\r\n")
        answer_bytes = wire.eof()
    assert answer_bytes.startswith(b"c OK done\r\n")
    assert last_line(answer_bytes).startswith(b"* BYE [UNAVAILABLE]")
    bed.ended(user)


def test_f8_bye_from_upstream(bed: Bed) -> None:
    """A BYE is passed on once, then the connection is closed."""

    def bye(talk: Conversation, command: Command) -> None:
        talk.send(b"* BYE shutting down\r\n")
        talk.close()

    bed.answer(CHECK=bye)
    wire, user = bed.login()
    with wire:
        wire.send(b"c CHECK\r\n")
        answer = wire.eof()
    assert answer.count(b"* BYE") == 1
    assert b"c OK" not in answer
    bed.ended(user)


def test_f8_bye_while_nothing_runs(bed: Bed) -> None:
    """The same unasked, and with the connection left open by upstream."""
    now = threading.Event()

    def later(talk: Conversation, command: Command) -> None:
        talk.ok(command)
        now.wait(10)
        talk.send(b"* BYE idle for too long\r\n")

    bed.answer(CHECK=later)
    wire, user = bed.login()
    with wire:
        wire.ok(b"CHECK")
        now.set()
        answer = wire.eof()
    assert answer.count(b"* BYE") == 1
    bed.ended(user)


def test_proxy_is_faithful(bed: Bed) -> None:
    """The proxy between gate and recorder changes nothing when it has no fault (the instrument's own check)."""
    assert isinstance(bed.far, FaultProxy)
    wire, user = bed.login()
    with wire:
        wire.ok(b"NOOP")
        (talk,) = bed.recorder.of(user)
        (connection,) = [c for c in bed.far.connections if c.far_port == talk.peer_port]
        # While all is answered and nobody leaves: what a server says to a gate that has closed is lost to both.
        bed.far.wait(lambda: connection.up.data == talk.received and connection.down.data == talk.sent)
    bed.ended(user)
