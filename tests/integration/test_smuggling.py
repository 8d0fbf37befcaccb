"""What the gate does not understand never reaches the upstream: PROTOCOL.md §2, A12-A14, and mutated streams."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.bed import Bed, bed_of
from tests.integration.reference import allowed

ARGUMENT_LITERAL = 65536


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """Give one gate in front of one recorder, for the whole module."""
    with bed_of(limits={"half_close": "300ms"}) as bed:
        yield bed


def answered_tags(answer: bytes) -> list[bytes]:
    """Give the tags of the completions in what a client was sent; literals are passed over."""
    tags, at = [], 0
    while (end := answer.find(b"\r\n", at)) >= 0:
        line = answer[at:end]
        at = end + 2
        literal = re.search(rb"\{([0-9]+)\}\Z", line) if line.startswith(b"* 1 FETCH") else None
        if literal:
            at = answer.find(b"\r\n", at + int(literal[1])) + 2
        elif line[:1] not in (b"*", b"+"):
            tags.append(line.split(b" ")[0])
    return tags


class Attack:
    """One connection that sends a stream blindly after login and then closes its sending side."""

    def __init__(self, bed: Bed, stream: bytes) -> None:
        self.stream = stream
        wire, self.user = bed.login()
        with wire:
            wire.send(stream)
            wire.half_close()
            self.answer = wire.eof()
        self.recorded = bed.after_login(self.user)
        self.reason = allowed(stream, [command.raw for command in self.recorded], ARGUMENT_LITERAL)
        self.violations = [text for talk in bed.recorder.of(self.user) for text in talk.violations]

    def check(self) -> None:
        """Hold what is true of every attack."""
        assert not self.reason, self.reason
        assert not self.violations
        for tag, count in Counter(answered_tags(self.answer)).items():
            assert count <= self.stream.count(tag), f"{tag!r} was answered too often: {self.answer!r}"

    @property
    def verbs(self) -> list[bytes]:
        """The verbs the upstream saw after the login, but for those the gate sends of itself."""
        return [command.verb for command in self.recorded if command.verb not in (b"LOGOUT", b"CAPABILITY", b"ID")]


# name, bytes, the verbs that upstream may see, what the client must and must not be told
TABLE: list[tuple[str, bytes, list[list[bytes]], bytes, bytes]] = [
    ("bare LF", b"p NOOP\nq NOOP\r\nz NOOP\r\n", [[]], b"* BYE", b"z OK"),
    ("bare LF first", b"\np NOOP\r\nz NOOP\r\n", [[]], b"* BYE", b"z OK"),
    ("bare LF alone", b"z NOOP\r\n\n", [[b"NOOP"], []], b"* BYE", b"z BAD"),
    ("bare CR", b"p NOOP\rq NOOP\r\nz NOOP\r\n", [[]], b"* BYE", b"z OK"),
    ("NUL", b"p NOOP\x00\r\nz NOOP\r\n", [[]], b"* BYE", b"z OK"),
    ("literal on an unknown command", b"p XBAD {8+}\r\nq NOOP a\r\nz NOOP\r\n", [[b"NOOP"]], b"z OK", b"q "),
    ("the same, as in the table", b"p XBAD {9+}\r\nq NOOP a\r\n", [[]], b" BAD ", b"q "),
    ("literal on a command without arguments", b"p NOOP {8+}\r\nq NOOP a\r\nz NOOP\r\n", [[b"NOOP"]], b"z OK", b"q "),
    ("the same, as in the table", b"p NOOP {9+}\r\nq NOOP a\r\n", [[]], b" BAD ", b"q "),
    ("literal of STATUS", b"p STATUS {5+}\r\nINBOX (MESSAGES)\r\nz NOOP\r\n", [[b"STATUS", b"NOOP"]], b"p OK", b"BAD"),
    ("no digits", b"p STATUS {}\r\nq NOOP\r\nz NOOP\r\n", [[], [b"NOOP", b"NOOP"]], b"BAD", b"+ "),
    ("leading zero", b"p STATUS {05+}\r\nINBOX (MESSAGES)\r\nz NOOP\r\n", [[], [b"NOOP"]], b"BAD", b"p OK"),
    ("inside an atom", b"p STATUS x{9+}\r\nz NOOP\r\n", [[], [b"NOOP"]], b"BAD", b"p OK"),
    ("open quote", b'p STATUS "x{9+}\r\nz NOOP\r\n', [[], [b"NOOP"]], b"BAD", b"p OK"),
    ("NUL in a quoted string", b'p STATUS "INBOX\x00x" (MESSAGES)\r\nz NOOP\r\n', [[]], b"* BYE", b"OK"),
    ("tag +", b"+ NOOP\r\nz NOOP\r\n", [[b"NOOP"]], b"z OK", b"+ "),
    ("2^32+5", b"p STATUS {4294967301+}\r\nINBOX (MESSAGES)\r\nz NOOP\r\n", [[]], b"BAD", b"OK"),
    ("sync 200000 outside APPEND", b"p STATUS {200000}\r\nz NOOP\r\n", [[b"NOOP"]], b"p NO [TOOBIG]", b"+ "),
    ("over the limit, swallowed", b"p STATUS {65537+}\r\n" + b"q NOOP\r\n" * 8193, [[]], b"p ", b"q "),
    ("NUL in a plain literal", b"p STATUS {5+}\r\nIN\x00OX (MESSAGES)\r\nz NOOP\r\n", [[], [b"NOOP"]], b"BAD", b"p OK"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stream", "verbs", "told", "untold"), [row[1:] for row in TABLE], ids=[row[0].replace(" ", "-") for row in TABLE]
)
def test_a12_a14_the_table(bed: Bed, stream: bytes, verbs: list[list[bytes]], told: bytes, untold: bytes) -> None:
    """Each row on which three servers disagree has one outcome at the gate (PROTOCOL.md §2)."""
    attack = Attack(bed, stream)
    attack.check()
    assert attack.verbs in verbs
    assert told in attack.answer
    assert untold not in attack.answer


FORMS = [
    b"{+5}", b"{-5}", b"{05}", b"{ 5}", b"{5 }", b"{5_0}", b"{0x5}", b"{5.0}", b"{5e0}", b"{}", b"{+}", b"{++}",
    b"{5++}", b"{5-}", b"{+5+}", b"{05+}", b"{ 5+}", b"{5 +}", b"{5_0+}", b"{00}", b"{4294967301}", b"{4294967301+}",
    b"{18446744073709551621}", b"{18446744073709551621+}", b"{5", b"5}", b"{5}}", b"{{5}", b"{5}x", b"{5} ", b"x{5}",
    b"{\xd9\xa5}", b"{\xef\xbc\x95}", b"{5\x00}", b"{\t5}", b"[5]", b"(5)", b"{5+}+", b"~{05}", b"~~{5}", b"{~5}",
    b"{5,}",
]  # fmt: skip
"""Everything that is not `{5}` or `{5+}` and that some server, or Python's int(), takes for it."""
WORDS = (b"5}", b"[5]", b"(5)")
"""Those that are arguments like any other."""


@pytest.mark.parametrize("form", FORMS)
def test_a13_literal_grammar(bed: Bed, form: bytes) -> None:
    """A header that is not exactly `{n}` or `{n+}` announces nothing: no `+`, and its command is never run."""
    for stream in (
        b"p STATUS " + form + b"\r\nINBOX (MESSAGES)\r\nz NOOP\r\n",
        b"p SEARCH SUBJECT " + form + b"\r\nINBOX\r\nz NOOP\r\n",
        b"p APPEND INBOX " + form + b"\r\nINBOX\r\nz NOOP\r\n",
        b"p APPEND INBOX (\\Seen) " + form + b"\r\nINBOX\r\nz NOOP\r\n",
    ):
        attack = Attack(bed, stream)
        attack.check()
        if form in WORDS and b"STATUS" not in stream:
            continue  # for these three no literal is in question: upstream's own grammar is enough
        assert attack.verbs in ([], [b"NOOP"])
        assert b"p OK" not in attack.answer
        assert b"\n+" not in b"\n" + attack.answer
        assert b"p BAD" in attack.answer or b"p NO" in attack.answer or b"* BYE" in attack.answer


@pytest.mark.parametrize("form", [b"{5}", b"{5+}"])
def test_a13_legal_forms(bed: Bed, form: bytes) -> None:
    """The two legal forms are literals, everywhere a string may stand."""
    stream = (
        b"p STATUS " + form + b"\r\nINBOX (MESSAGES)\r\nq APPEND " + form + b"\r\nINBOX " + form + b"\r\nz NOO\r\n"
        b"r LIST " + form + b"\r\na\r\nb\r " + form + b"\r\nfives\r\nz NOOP\r\n"
    )
    attack = Attack(bed, stream)
    attack.check()
    expected = [b"STATUS", b"APPEND", b"NOOP"]
    # CR and LF in a mailbox name are a matter of taste, never a matter of lines.
    assert [verb for verb in attack.verbs if verb != b"LIST"] == expected
    assert b"z OK" in attack.answer
    assert bed.recorder.of(attack.user)[0].stored == [b"z NOO"]


@pytest.mark.parametrize("form", [*FORMS, b"{5+}", b"{5}"])
def test_a13_before_login(bed: Bed, form: bytes) -> None:
    """Before login the same holds: no credentials but those of a legal LOGIN go upstream."""
    user = bed.new_user()[:5].ljust(5, b"x")
    before = len(bed.recorder.conversations)
    with bed.connect() as wire:
        wire.send(b"p LOGIN " + form + b"\r\n" + user + b" {6+}\r\nsecret\r\nz NOOP\r\n")
        wire.half_close()
        answer = wire.eof()
    assert (b"p OK" in answer) == (form in (b"{5}", b"{5+}"))
    for talk in bed.recorder.conversations[before:]:
        assert not talk.passwords or (talk.user, talk.passwords) == (user, [b"secret"])
        assert not talk.violations


@pytest.mark.parametrize(
    "stream",
    [
        b"z NOOP\r\n",
        b"p SELECT INBOX\r\n",
        b"p LOGIN {2+}\r\nu\n {1+}\r\np\r\nq SELECT INBOX\r\n",
        b"p LOGIN u\np secret\r\n",
        b"p AUTHENTICATE PLAIN {8+}\r\nAHUAcA==\r\n",
        b"p AUTHENTICATE PLAIN\r\nAHUA\ncA==\r\n",
        b"p AUTHENTICATE PLAIN not-base64!\r\n",
        b"p AUTHENTICATE PLAIN AHUA\r\n",
        b"p APPEND INBOX {8+}\r\nq LOGIN \r\n",
        b"p XBAD {15+}\r\nq LOGIN u hidden\r\n",
        b"p CAPABILITY {16+}\r\nq LOGIN u hidden\r\n",
    ],
)
def test_nothing_before_login(bed: Bed, stream: bytes) -> None:
    """What is not a legal login opens nothing upstream that runs a command (A14, A27, A38)."""
    before = len(bed.recorder.conversations)
    with bed.connect() as wire:
        wire.send(stream)
        wire.half_close()
        answer = wire.eof()
    assert b" OK " not in answer.replace(b"z OK ", b"")
    for talk in bed.recorder.conversations[before:]:
        assert not talk.passwords
        assert {command.verb for command in talk.commands} <= {b"CAPABILITY", b"LOGOUT", b"NOOP", b"ID"}


def test_pipelined_behind_login(bed: Bed) -> None:
    """What is pipelined behind LOGIN runs after it, and goes upstream only when the login is done (PROTOCOL.md §2)."""
    user = bed.new_user()
    with bed.connect() as wire:
        wire.send(b"a LOGIN " + user + b" secret\r\nb SELECT INBOX\r\nc FETCH 1 BODY[]\r\nd LOGOUT\r\n")
        answer = wire.eof()
    positions = [answer.find(tag + b" OK") for tag in (b"a", b"b", b"c", b"d")]
    assert positions == sorted(positions)
    assert -1 not in positions
    (talk,) = bed.recorder.of(user)
    assert not talk.violations


# -- mutated streams ------------------------------------------------------------------------------------------------

HIDDEN = b"x1 NOOP\r\nx2 DELETE {3+}\r\nabc\r\nx3 CLOSE\r\n"
PALETTE = [
    b"NOOP",
    b"SELECT INBOX",
    b'EXAMINE "INBOX"',
    b"STATUS INBOX (MESSAGES UIDNEXT)",
    b"STATUS {5+}\r\nINBOX (UIDNEXT)",
    b"FETCH 1 (FLAGS BODY.PEEK[HEADER.FIELDS (FROM TO)]<0.90>)",
    b"UID FETCH 1:* FLAGS",
    b'SEARCH SUBJECT "a \\"b\\" c"',
    b"SEARCH OR FROM {9+}\r\nx1 NOOP\r\n NOT (SUBJECT y 1:3)",
    b"STORE 1 +FLAGS (\\Deleted)",
    b"UID COPY 1:2,4 Trash",
    b'LIST "" *',
    b'LIST (SUBSCRIBED) "" (INBOX %) RETURN (CHILDREN)',
    b"CREATE {4}\r\nq\\ z",
    b'DELETE "two words"',
    b"RENAME {2+}\r\n() {3+}\r\na)b",
    b"APPEND INBOX (\\Seen) {%d+}\r\n%b" % (len(HIDDEN), HIDDEN),
    b"APPEND {5+}\r\nINBOX {%d}\r\n%b" % (len(HIDDEN), HIDDEN),
    b"APPEND INBOX {0+}\r\n",
    b"IDLE\r\nDONE",
    b"EXPUNGE",
    b"XBAD {8+}\r\nq NOOP a",
    b"CHECK {8+}\r\nq NOOP a",
    b"NAMESPACE",
    b"ENABLE CONDSTORE",
    b"UID EXPUNGE 1",
    b"CLOSE",
]
NASTY = [
    *(b"\r", b"\n", b"\r\n", b"\x00", b'"', b"\\", b"{", b"}", b"(", b")", b" ", b"+", b"\t", b"\x7f", b"\xff"),
    *(b"{5+}\r\n", b"{5}\r\n", b"{05+}\r\n", b"{-1+}\r\n", b"~{3+}\r\n", b" {9+}\r\n", b'" {4+}\r\n', b"{99999+}\r\n"),
    *(b"\r\nx NOOP\r\n", b"DONE\r\n"),
]

mutations = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete", "repeat"]),
        st.integers(0, 10_000),
        st.integers(1, 12),
        st.one_of(st.sampled_from(NASTY), st.binary(min_size=1, max_size=3)),
    ),
    max_size=4,
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Give a few legal commands, with bytes put in, taken out, repeated or replaced."""
    commands = draw(st.lists(st.sampled_from(PALETTE), min_size=1, max_size=5))
    stream = b"".join(b"t%d %b\r\n" % (number, command) for number, command in enumerate(commands))
    stream += b"z NOOP\r\n"
    for kind, where, length, data in draw(mutations):
        at = where % max(len(stream), 1)
        if kind == "insert":
            stream = stream[:at] + data + stream[at:]
        elif kind == "replace":
            stream = stream[:at] + data + stream[at + len(data) :]
        elif kind == "delete":
            stream = stream[:at] + stream[at + length :]
        else:
            stream = stream[: at + length] + stream[at:]
    return stream


slow = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)


@settings(slow, max_examples=250)
@given(stream=streams())
def test_mutated_streams(bed: Bed, stream: bytes) -> None:
    """Whatever the client sends, upstream sees nothing but commands that a strict reading of the stream holds."""
    Attack(bed, stream).check()


@pytest.mark.soak
@settings(slow, max_examples=20_000, derandomize=False)
@given(stream=streams())
def test_mutated_streams_long(bed: Bed, stream: bytes) -> None:
    """The same with many more streams, different at each run."""
    Attack(bed, stream).check()


@settings(slow, max_examples=60)
@given(stream=streams(), cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_chunks_do_not_matter(bed: Bed, stream: bytes, cuts: list[int]) -> None:
    """How the bytes are cut into writes changes nothing of what is approved."""
    whole = Attack(bed, stream)
    whole.check()
    wire, user = bed.login()
    with wire:
        marks = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
        for start, end in itertools.pairwise(marks):
            wire.send(stream[start:end])
        wire.half_close()
        answer = wire.eof()
    verbs = [command.verb for command in bed.after_login(user)]
    expected = [command.verb for command in whole.recorded]
    if b"* BYE" in answer:
        # The connection was ended for cause, perhaps before the upstream had been given what was approved.
        shared = min(len(verbs), len(expected))
        assert verbs[:shared] == expected[:shared]
    else:
        assert verbs == expected
