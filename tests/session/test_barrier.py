"""Between two sessions: what proves a connection clean, and what does not, in whatever chunks it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from imapgate.limits import DEFAULTS
from imapgate.session.barrier import Barrier, Finding
from imapgate.session.link import Link

UNDECIDED, CLEAN, BROKEN = Finding
UNSELECT = b"IMAP4rev1 UNSELECT"


def _barrier(capabilities: bytes = UNSELECT) -> Barrier:
    link = Link(replace(DEFAULTS, upstream_line=1000))
    link.capabilities = capabilities
    link.next_tag()  # its last session used some
    return Barrier(link)


def _selected() -> Barrier:
    barrier = _barrier()
    assert barrier.reset(selected=True) == b"g2 UNSELECT\r\n"
    return barrier


def _checked() -> Barrier:
    barrier = _barrier()
    assert barrier.check() == b"g2 NOOP\r\n"
    return barrier


def _ways(data: bytes) -> Iterator[list[bytes]]:
    """Whole, octet by octet, and cut in two at every octet."""
    yield [data]
    yield [data[place : place + 1] for place in range(len(data))]
    for place in range(1, len(data)):
        yield [data[:place], data[place:]]


def _finds(make: Callable[[], Barrier], data: bytes) -> set[Finding]:
    """What is found in the end, in each way of cutting; the shell asks no more once it is decided."""
    found = set()
    for chunks in _ways(data):
        barrier, finding = make(), UNDECIDED
        for chunk in chunks:
            finding = barrier.received(chunk)
            if finding is not UNDECIDED:
                break
        found.add(finding)
    return found


# --- what is asked --------------------------------------------------------------------------------------------


def test_what_is_asked() -> None:
    """UNSELECT where the server has it, else a SELECT that must fail; with nothing selected NOOP; no tag twice."""
    barrier = _barrier()
    assert barrier.reset(selected=False) == b"g2 NOOP\r\n"
    assert barrier.received(b"g2 OK done\r\n") is CLEAN
    assert barrier.check() == b"g3 NOOP\r\n"
    assert barrier.received(b"g3 OK done\r\n") is CLEAN
    assert barrier.leave() == b"g4 LOGOUT\r\n"
    assert barrier.link.next_tag() == b"g5"
    assert _barrier(b"IMAP4rev1").reset(selected=True) == b'g2 SELECT ""\r\n'
    assert _barrier(b"IMAP4rev1 unselect").reset(selected=True) == b"g2 UNSELECT\r\n"


# --- proofs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"g2 OK done\r\n",
        b"g2 ok\r\n",
        b"* 3 EXISTS\r\n* 1 RECENT\r\ng2 OK done\r\n",
        b"* OK [ALERT] g2 OK done\r\ng2 OK done\r\n",
        b"* 1 FETCH (BODY[] {14}\r\n\r\ng2 NO evil\r\n)\r\ng2 OK done\r\n",
        b"* LIST () {12}\r\ng2 OK done\r\n x\r\ng2 OK done\r\n",
        b'* LIST () "/" "g2 OK"\r\n* BAD what\r\n* NO what\r\ng2 OK [CLOSED] {3}\r\n',
        b"* LIST () " + b"x" * 70000 + b"\r\ng2 OK done\r\n",
    ],
    ids=range(8),
)
def test_proved(data: bytes) -> None:
    """The tagged OK proves it; untagged data before it, literals included, reaches nobody and forges nothing."""
    ways: list[list[bytes]] = [[data], [data[:70000], data[70000:]]] if len(data) > 1000 else list(_ways(data))
    for chunks in ways:
        for make in (_selected, _checked):
            barrier = make()
            found = [barrier.received(chunk) for chunk in chunks if chunk]
            assert found[-1] is CLEAN
            assert set(found[:-1]) <= {UNDECIDED}


def test_select_must_fail() -> None:
    """Without UNSELECT it is the NO that proves that nothing is selected."""

    def make() -> Barrier:
        barrier = _barrier(b"IMAP4rev1")
        barrier.reset(selected=True)
        return barrier

    assert _finds(make, b"g2 NO no such mailbox\r\n") == {CLEAN}
    assert _finds(make, b"g2 OK [READ-WRITE] you are in\r\n") == {BROKEN}
    assert _finds(make, b"g2 BAD empty name\r\n") == {BROKEN}


def test_capabilities_are_kept() -> None:
    """What the server says of its capabilities meanwhile is the next session's to know."""
    barrier = _selected()
    assert barrier.received(b"* CAPABILITY IMAP4rev1 MOVE\r\ng2 OK done\r\n") is CLEAN
    assert barrier.link.capabilities == b"IMAP4rev1 MOVE"
    assert barrier.received(b"* OK [CAPABILITY IMAP4rev1 SORT] x\r\n") is UNDECIDED
    assert barrier.link.capabilities == b"IMAP4rev1 SORT"


# --- no proofs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"g2 NO no\r\n",
        b"g2 BAD what\r\n",
        b"g2 BYE no\r\n",
        b"g2 PREAUTH x\r\n",
        b"g2 what\r\n",
        b"g1 OK late\r\n",
        b"g3 OK early\r\n",
        b"G2 OK done\r\n",
        b"G 2 OK done\r\n",
        b"+ go\r\n",
        b"+\r\n",
        b"\r\n",
        b"*\r\n",
        b"* BYE shutting down\r\n",
        b"* bye shutting down\r\ng2 OK done\r\n",
        b"* PREAUTH x\r\n",
        b"* 3 EXISTS\n",
        b"* 3 EXISTS {3}\r\n",
        b"g2 OK done\n",
        b"x" * 1002,
        b"* 1 FETCH (BODY[] {3}\r\nabc\n",
    ],
)
def test_broken(data: bytes) -> None:
    """Another status, tag, continuation, BYE, or what is no line at all: no proof, and none can come."""
    for make in (_selected, _checked):
        assert _finds(make, data) == {BROKEN}


@pytest.mark.parametrize("more", [b"*", b"* 3 EXI", b"* 1 FETCH (BODY[] {5}\r\nab", b"g", b"+ go\r\n", b"* BYE\r\n",
                                  b"g2 OK again\r\n", b"g3 OK x\r\n"])  # fmt: skip
def test_more_behind_the_proof(more: bytes) -> None:
    """What stands behind the answer in its chunk must be whole untagged lines, or it would be the next session's."""
    assert _selected().received(b"g2 OK done\r\n" + more) is BROKEN
    barrier = _selected()
    assert barrier.received(b"g2 OK done\r\n") is CLEAN
    assert barrier.received(more) is BROKEN


def test_whole_lines_behind_the_proof() -> None:
    """Whole untagged lines are swallowed, there and at rest."""
    lines = b"* 3 EXISTS\r\n* OK still here\r\n* 1 FETCH (BODY[] {3}\r\nabc)\r\n"
    assert _selected().received(b"g2 OK done\r\n" + lines) is CLEAN
    barrier = _selected()
    assert barrier.received(b"g2 OK done\r\n") is CLEAN
    assert barrier.received(lines) is UNDECIDED


def test_half_a_line_at_rest() -> None:
    """At rest nothing may be begun: the connection could be lent before the rest of it comes."""
    lines = b"* OK still here\r\n"
    for place in range(1, len(lines)):
        assert _barrier().received(lines[:place]) is BROKEN
    assert _barrier().received(lines) is UNDECIDED
    assert _barrier().received(b"g1 OK nobody asked\r\n") is BROKEN


def test_undecided_until_the_answer() -> None:
    """While the answer is awaited, anything may be half said."""
    barrier = _selected()
    for chunk in (b"* 3 EXI", b"STS\r\n", b"* 1 FETCH (BODY[] {5}\r\n", b"abc", b"de)\r\n", b"g2 O"):
        assert barrier.received(chunk) is UNDECIDED
    assert barrier.received(b"K done\r\n") is CLEAN


def test_only_the_last_question_counts() -> None:
    """The tag of a question that was overtaken proves nothing."""
    barrier = _selected()
    assert barrier.check() == b"g3 NOOP\r\n"
    assert barrier.received(b"g2 OK done\r\n") is BROKEN


def test_goodbye() -> None:
    """LOGOUT's BYE, or its OK, is the end either way."""
    barrier = _barrier()
    barrier.leave()
    assert barrier.received(b"* BYE see you\r\ng2 OK done\r\n") is BROKEN
