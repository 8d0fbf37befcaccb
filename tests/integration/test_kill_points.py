"""Connections cut at every byte of eight verbs' dialogues, on either side of the gate, in either direction.

Whatever the byte: the client never sees an OK that the upstream did not give, no command runs twice, a message that
arrived short is never followed by a completion, and nothing is padded (PROTOCOL.md §5, THREATS F3, F4, A51).
"""

from __future__ import annotations

import itertools
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import pytest

from tests.integration.bed import Bed, bed_of
from tests.integration.faults import WIRE, Connection, Fault, FaultProxy
from tests.integration.scripted import Script
from tests.integration.wire import Wire, WireClosed

BODY = b"".join(b"line %03d of a message, and then g%d OK done\r\n" % (n, n) for n in range(36))
"""About 1.6 KB, so that a dialogue has about 2 KB."""
Side = Literal["near", "far"]
Way = Literal["up", "down"]
VERBS = ["LOGIN", "SELECT", "FETCH", "APPEND", "STORE", "COPY", "MOVE", "IDLE"]
WAYS: list[tuple[Side, Way]] = [("near", "up"), ("near", "down"), ("far", "up"), ("far", "down")]


@dataclass
class Site:
    """A client, a fault proxy, the gate, a fault proxy, the recorder."""

    bed: Bed
    near: FaultProxy
    far: FaultProxy
    serial: Iterator[int] = field(default_factory=itertools.count)

    def plan(self, side: Side, way: Way, fault: Fault) -> None:
        """Give the next connection on a side a fault."""
        proxy = self.near if side == "near" else self.far
        proxy.plan(up=fault if way == "up" else WIRE, down=fault if way == "down" else WIRE)

    def far_of(self, user: bytes) -> list[Connection]:
        """Give the connections that carried a user's conversations upstream."""
        ports = {talk.peer_port for talk in self.bed.recorder.of(user)}
        return [connection for connection in self.far.connections if connection.far_port in ports]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Give one gate with a fault proxy on either side, for the whole module."""
    with ExitStack() as stack:
        bed = stack.enter_context(bed_of(script=Script(message=BODY), far_proxy=True))
        assert bed.far is not None
        near = stack.enter_context(FaultProxy(("127.0.0.1", bed.port), keep=True))
        yield Site(bed, near, bed.far)


class Outcome(NamedTuple):
    """What a run showed."""

    user: bytes
    transcript: bytes
    oks: list[bytes]
    """Tags the client saw answered OK."""
    near: Connection


def drive(site: Site, verb: str) -> Outcome:
    """Run the dialogue of one verb until it ends or is cut; each command waits for the one before."""
    user = b"kill%06d" % next(site.serial)
    oks: list[bytes] = []
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    with Wire(sock, 10) as wire:
        try:
            sock.connect(("127.0.0.1", site.near.port))
            wire.response()
            for tag, line in DIALOGUES[verb]:
                _command(wire, tag, line.replace(b"%u", user), oks)
        except WireClosed:
            pass
        except OSError:  # a reset, or a write to what is closed
            pass
        transcript = bytes(wire.transcript)
    site.near.wait(lambda: any(c.near_port == port for c in site.near.connections))
    near = next(c for c in site.near.connections if c.near_port == port)
    site.near.wait(lambda: near.closed)
    site.bed.ended(user)
    return Outcome(user, transcript, oks, near)


def _await_plus(wire: Wire) -> None:
    """Wait for a `+`; a BYE or a refusal in its place ends the dialogue."""
    answer = wire.response()
    if not answer.startswith(b"+"):
        raise WireClosed(f"no continuation: {answer!r}")


def _command(wire: Wire, tag: bytes, line: bytes, oks: list[bytes]) -> None:
    """Send one command; literals after their `+`, DONE after IDLE's."""
    first, *rest = re.split(rb"(?<=\}\r\n)", line)
    wire.send(tag + b" " + first)
    for piece in rest:
        _await_plus(wire)
        wire.send(piece)
    if line.upper().startswith(b"IDLE"):
        _await_plus(wire)
        while b"EXISTS" not in wire.response():
            pass
        wire.send(b"DONE\r\n")
    answer = wire.until_tagged(tag)[-1]
    if not answer.startswith(tag + b" OK"):
        raise WireClosed(f"refused: {answer!r}")
    assert answer.endswith(b"\r\n")
    oks.append(tag)


LOGIN = (b"l", b'LOGIN "%u" {6}\r\nsecret\r\n')
SELECT = (b"s", b"SELECT INBOX\r\n")
LOGOUT = (b"o", b"LOGOUT\r\n")
DIALOGUES: dict[str, list[tuple[bytes, bytes]]] = {
    "LOGIN": [LOGIN, (b"n", b"NOOP\r\n"), LOGOUT],
    "SELECT": [LOGIN, SELECT, LOGOUT],
    "FETCH": [LOGIN, SELECT, (b"f", b"FETCH 1 (UID BODY[])\r\n"), LOGOUT],
    "APPEND": [LOGIN, (b"a", b"APPEND INBOX (\\Seen) {%d}\r\n%b\r\n" % (len(BODY), BODY)), LOGOUT],
    "STORE": [LOGIN, SELECT, (b"t", b"STORE 1 +FLAGS (\\Deleted)\r\n"), LOGOUT],
    "COPY": [LOGIN, SELECT, (b"c", b"UID COPY 1 Trash\r\n"), LOGOUT],
    "MOVE": [LOGIN, SELECT, (b"m", b"UID MOVE 1 Trash\r\n"), (b"e", b"EXPUNGE\r\n"), LOGOUT],
    "IDLE": [LOGIN, SELECT, (b"i", b"IDLE\r\n"), LOGOUT],
}
UPSTREAM_VERB = {
    b"s": b"SELECT", b"f": b"FETCH", b"a": b"APPEND", b"t": b"STORE", b"c": b"UID COPY", b"m": b"UID MOVE",
    b"e": b"EXPUNGE", b"i": b"IDLE", b"n": b"NOOP",
}  # fmt: skip


def check(site: Site, verb: str, outcome: Outcome) -> None:
    """Hold what must be true wherever the cut was."""
    talks = site.bed.recorder.of(outcome.user)
    commands = [command for talk in talks for command in talk.commands]
    counts = Counter(command.verb for command in commands)
    counts.pop(b"CAPABILITY", None)
    assert all(count == 1 for count in counts.values()), f"ran twice: {counts}"
    completed = {command.verb for talk in talks for command in talk.completed}
    arrived = b"".join(bytes(connection.down.data) for connection in site.far_of(outcome.user))
    for tag in outcome.oks:
        if tag == b"l":
            assert any(talk.passwords == [b"secret"] for talk in talks), "a login without one upstream"
        elif tag in UPSTREAM_VERB:
            assert UPSTREAM_VERB[tag] in completed, f"an OK for {UPSTREAM_VERB[tag]!r} that upstream did not give"
            (command,) = (c for c in commands if c.verb == UPSTREAM_VERB[tag])
            assert re.search(rb"(?m)^%b OK [^\r\n]*\r\n" % re.escape(command.tag), arrived), (
                "an OK that had not arrived"
            )
    if verb == "FETCH":
        _check_body(outcome.transcript, b"f")
    if verb == "APPEND":
        stored = [message for talk in talks for message in talk.stored]
        assert stored in ([], [BODY])
        assert (b"a" not in outcome.oks) or stored == [BODY]
        for talk in talks:
            _, header, octets = bytes(talk.received).partition(b"{%d}\r\n" % len(BODY))
            assert BODY.startswith(octets) or octets.startswith(BODY + b"\r\n") or octets == BODY + b"\r", "padded"
            assert header or not talk.stored
    assert not [text for talk in talks for text in talk.violations]


def _check_body(transcript: bytes, tag: bytes) -> None:
    """A message that arrived short has nothing behind it; a completion has the whole message before it."""
    _, header, octets = transcript.partition(b"{%d}\r\n" % len(BODY))
    if len(octets) < len(BODY):
        assert BODY.startswith(octets), f"something stands inside the literal: {octets[-80:]!r}"
        assert not header or b"\r\n" + tag + b" " not in transcript.partition(header)[0]
    else:
        assert octets.startswith(BODY)


def lengths(site: Site, verb: str) -> dict[tuple[Side, Way], int]:
    """Run the dialogue once uncut; give the length of each of its four byte streams."""
    outcome = drive(site, verb)
    assert outcome.oks == [tag for tag, _ in DIALOGUES[verb]], outcome.transcript
    check(site, verb, outcome)
    (far,) = site.far_of(outcome.user)
    return {
        ("near", "up"): outcome.near.up.passed,
        ("near", "down"): outcome.near.down.passed,
        ("far", "up"): far.up.passed,
        ("far", "down"): far.down.passed,
    }


def kill(site: Site, verb: str, side: Side, way: Way, offset: int) -> None:
    """Cut one stream of a dialogue at an offset and check."""
    fault = Fault(cut_at=offset, cut="rst" if offset % 2 else "fin")
    site.plan(side, way, fault)
    outcome = drive(site, verb)
    try:
        check(site, verb, outcome)
    except AssertionError as error:
        raise AssertionError(f"{verb}, {side} {way} cut at {offset} ({fault.cut}): {error}") from error
    finally:
        site.near.forget()
        site.far.forget()
        site.bed.recorder.forget()


@pytest.mark.parametrize("verb", VERBS)
def test_f3_f4_kill_points(site: Site, verb: str) -> None:
    """About 25 offsets of each of the four streams, the ends of lines and literals among them."""
    for (side, way), length in lengths(site, verb).items():
        step = max(1, length // 24)
        for offset in sorted({*range(3, length, step), 0, length - 1, length - 2}):
            kill(site, verb, side, way, offset)


@pytest.mark.soak
@pytest.mark.parametrize(("side", "way"), WAYS)
@pytest.mark.parametrize("verb", VERBS)
def test_f3_f4_every_kill_point(site: Site, verb: str, side: Side, way: Way) -> None:
    """Every offset of every stream."""
    for offset in range(lengths(site, verb)[side, way]):
        kill(site, verb, side, way, offset)


def test_dialogues_are_long_enough(site: Site) -> None:
    """The dialogue with a message has about 2 KB in its longer direction."""
    assert lengths(site, "FETCH")["near", "down"] > 1900
    assert lengths(site, "APPEND")["far", "up"] > 1400
