"""Upstream connections and servers killed while something is being changed, where connections are pooled (F3, F4, F8).

Whatever is killed, and when: nothing is done twice, what the client saw OK for is done, and every OK it saw is one
that the server gave.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any, NamedTuple

import pytest

from tests.integration.bed import Bed, bed_of
from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, ctl
from tests.integration.faults import Fault, FaultProxy
from tests.integration.gate import Gate, upstream_of
from tests.integration.scripted import Command, Conversation, Script
from tests.integration.servers import Dovecot, wait_until
from tests.integration.wire import Wire, WireClosed, connect

NewUser = Callable[..., User]

SAMPLE, SOAK = 50, 200
MODES = ["session", "mailbox"]
POOLED: dict[str, Any] = {"auth": {"credential_cache": "60s"}, "admin": ADMIN}
LATE = 0.02
"""Seconds in which a command is over, or is not."""
LINES = b"".join(b"line %03d of a message, and then g%d OK done\r\n" % (n, n) for n in range(40))


def message(mark: bytes) -> bytes:
    """A message of about 2 KB with this mark, which stands in it once."""
    return b"Subject: " + mark + b"\r\n\r\n" + LINES


# -- 200 kills (F3, F4) -----------------------------------------------------------------------------------------------


class Operation(NamedTuple):
    """Something that a client does to one message, named by its mark; `uid` is the message's, where it is there."""

    name: str
    verb: bytes
    """What its one command begins with upstream, `%d` being the UID."""
    pieces: Callable[[bytes, int], list[bytes]]
    """What is sent, without the tag; each piece but the first after a `+`."""
    into: bytes = b"INBOX"
    """Where the message is afterwards."""


OPERATIONS = [
    Operation("APPEND", b"APPEND INBOX", lambda mark, _: _appending(mark, b"{%d}\r\n")),
    Operation("APPEND +", b"APPEND INBOX", lambda mark, _: [b"".join(_appending(mark, b"{%d+}\r\n"))]),
    Operation("STORE", b"UID STORE %d ", lambda _, uid: [b"UID STORE %d +FLAGS (\\Flagged)\r\n" % uid]),
    Operation("COPY", b"UID COPY %d ", lambda _, uid: [b"UID COPY %d Copies\r\n" % uid], b"Copies"),
    Operation("MOVE", b"UID MOVE %d ", lambda _, uid: [b"UID MOVE %d Moved\r\n" % uid], b"Moved"),
    Operation("FETCH", b"UID FETCH %d ", lambda _, uid: [b"UID FETCH %d (FLAGS BODY.PEEK[])\r\n" % uid]),
]


def _appending(mark: bytes, header: bytes) -> list[bytes]:
    body = message(mark)
    return [b"APPEND INBOX (\\Seen) " + header % len(body), body + b"\r\n"]


class Done(NamedTuple):
    """One operation, and what its client saw."""

    operation: Operation
    mark: bytes
    uid: int
    seen: bytes
    """Everything since it was asked for."""

    @property
    def completion(self) -> bytes:
        """The completion without its tag; empty: the client does not know what became of it."""
        found = re.search(rb"(?m)^x (.*\r\n)", self.seen)
        return found[1] if found else b""


class Killer:
    """One user's clients before a gate, one after the other, each with one operation that is struck at.

    :ivar kills: operations during which a connection was cut or a process killed
    """

    def __init__(self, gate: Gate, proxy: FaultProxy, user: User, seed: int) -> None:
        self.gate = gate
        self.proxy = proxy
        self.user = user
        self.random = Random(seed)
        self.done: list[Done] = []
        self.kills = 0
        self._processes = 0
        assert isinstance(user.server, Dovecot)
        self.server = user.server
        self.direct = user.wire()
        wait_until(lambda: self.server.session_pids(user.name), "the log to tell of the direct connection")
        (self.own,) = self.server.session_pids(user.name)
        for mailbox in (b"Copies", b"Moved"):
            self.direct.ok(b"CREATE " + mailbox)

    def strike(self) -> None:
        """Do one operation, and strike."""
        operation = self.random.choice(OPERATIONS)
        mark = b"mark-%06d" % len(self.done)
        uid = 0 if operation.name.startswith("APPEND") else self._furnish(mark)
        with self._selected(needed=bool(uid)) as wire:
            before, blows = len(wire.transcript), self._blows()
            try:
                self._operate(wire, operation.pieces(mark, uid))
            except (WireClosed, OSError):
                wire.eof()
            self.done.append(Done(operation, mark, uid, bytes(wire.transcript[before:])))
            with suppress(WireClosed, OSError, AssertionError):
                if self.random.random() < 0.7:
                    wire.logout()
            self.kills += self._blows() > blows

    def _blows(self) -> int:
        return self._processes + sum(connection.cut for connection in self.proxy.connections)

    def _furnish(self, mark: bytes) -> int:
        answer = self.direct.command_with_literals(b"APPEND INBOX", message(mark))[-1]
        found = re.search(rb"OK \[APPENDUID [0-9]+ ([0-9]+)\]", answer)
        assert found, answer
        return int(found[1])

    @contextmanager
    def _selected(self, *, needed: bool) -> Iterator[Wire]:
        """A client that has logged in, and selected INBOX where that is needed; a blow meant for another may hit it."""
        for _ in range(10):
            with connect(self.gate.host, self.gate.port) as wire:
                try:
                    wire.login(self.user.name, self.user.password)
                    if needed or self.random.random() < 0.5:
                        wire.ok(b"SELECT INBOX")
                except (WireClosed, OSError):
                    wire.eof()  # what was said before the end may not be read yet
                    assert b"* BYE [UNAVAILABLE]" in wire.transcript or b"* BYE Server" in wire.transcript
                    continue
                yield wire
                return
        raise AssertionError("no session of ten was left alone")

    def _operate(self, wire: Wire, pieces: list[bytes]) -> None:
        """Send the pieces, and strike at some octet of theirs, or of what is answered, or a little later."""
        pieces = [b"x " + pieces[0], *pieces[1:]]
        total = sum(map(len, pieces))
        kind = self.random.choice(("up", "down", "middle", "late"))
        if kind == "up":
            self._cut("up", self.random.randrange(1, total + 40))
        elif kind == "down":
            self._cut("down", self.random.randrange(1, 400))
        at = self.random.randrange(total) if kind == "middle" else total
        for number, piece in enumerate(pieces):
            if number and not _asked(wire):
                return
            wire.send(piece[:at])
            if at < len(piece):
                self._kill()
                wire.send(piece[at:])
            at = max(0, at - len(piece)) if at >= len(piece) else total
        if kind == "late":
            time.sleep(self.random.random() * LATE)
            self._kill()
        while not wire.response().startswith(b"x "):
            pass

    def _cut(self, way: str, octets: int) -> None:
        """Cut every connection that is there after so many more octets."""
        for connection in self.proxy.connections:
            if not connection.closed:
                direction = getattr(connection, way)
                direction.fault = Fault(cut_at=direction.passed + octets, cut=self.random.choice(("fin", "rst")))

    def _kill(self) -> None:
        """Kill the process that serves this user through the gate: at once, or so that it can say BYE."""
        number = self.random.choice((signal.SIGKILL, signal.SIGTERM))
        for pid in self.server.session_pids(self.user.name):
            if pid != self.own:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                    self._processes += 1

    # -- afterwards -----------------------------------------------------------------------------------------------

    def at_rest(self) -> None:
        """Wait until no process serves this user but the direct connection's: what they do is done."""
        wait_until(lambda: self.server.session_pids(self.user.name) == [self.own], "the end of all processes")

    def found(self, mailbox: bytes) -> dict[bytes, list[bytes]]:
        """What is in a mailbox: by mark, the flags of each message that has it."""
        messages: dict[bytes, list[bytes]] = {}
        self.direct.ok(b"SELECT " + mailbox)
        for response in self.direct.ok(b"UID FETCH 1:* (FLAGS BODY.PEEK[])"):
            mark = re.search(rb"Subject: (mark-[0-9]+)", response)
            if mark:
                assert message(mark[1]) in response
                flags = re.search(rb"FLAGS \(([^)]*)\)", response)
                assert flags
                messages.setdefault(mark[1], []).append(flags[1])
        return messages

    def check(self) -> None:
        """Hold what must be true of every operation."""
        inbox, copies, moved = map(self.found, (b"INBOX", b"Copies", b"Moved"))
        where = {b"INBOX": inbox, b"Copies": copies, b"Moved": moved}
        up = b"".join(bytes(connection.up.data) for connection in self.proxy.connections)
        down = b"".join(bytes(connection.down.data) for connection in self.proxy.connections)
        for done in self.done:
            told = (done.operation.name, done.mark, done.seen[-300:])
            there = where[done.operation.into].get(done.mark, [])
            assert len(there) <= 1, f"a duplicate: {told}"
            if done.uid:
                assert len(re.findall(re.escape(done.operation.verb % done.uid), up)) <= 1, f"sent twice: {told}"
                assert done.mark in inbox or done.mark in moved, f"lost: {told}"
            else:
                assert up.count(b"Subject: " + done.mark) <= 1, f"sent twice: {told}"
            if done.completion.startswith(b"OK"):
                assert done.completion in down, f"an OK that the server did not give: {told}"
                assert there, f"acknowledged and not done: {told}"
                assert done.operation.name != "STORE" or b"\\Flagged" in there[0], f"acknowledged, not done: {told}"
                assert done.operation.name != "MOVE" or done.mark not in inbox, f"acknowledged, not done: {told}"
            if done.operation.name == "FETCH":
                self._check_body(done)
            assert done.seen.count(b"* BYE") <= 1, told

    def _check_body(self, done: Done) -> None:
        """A message that arrived short has nothing behind it (F3)."""
        body = message(done.mark)
        _, header, octets = done.seen.partition(b"{%d}\r\n" % len(body))
        if done.completion.startswith(b"OK"):
            assert octets.startswith(body)
        elif header:
            assert octets.startswith(body) or body.startswith(octets), f"something stands inside: {octets[-80:]!r}"


def _asked(wire: Wire) -> bool:
    """Wait for the `+`; False: the command is over without it."""
    while not (answer := wire.response()).startswith(b"+"):
        if answer.startswith(b"x "):
            return False
    return True


def _kill(dovecot: Dovecot, user: NewUser, mode: str, kills: int, seed: int) -> None:
    with FaultProxy((dovecot.host, dovecot.port), keep=True) as proxy:
        table = upstream_of(dovecot, endpoints=[f"tcp:127.0.0.1:{proxy.port}"], pool_mode=mode)
        with Gate({"main": table}, authority=dovecot.authority, **POOLED) as gate:
            killer = Killer(gate, proxy, user(dovecot), seed)
            for _ in range(5 * kills):
                if killer.kills >= kills:
                    break
                killer.strike()
            assert killer.kills >= kills
            logins = dovecot.login_count(killer.user.name)
            assert "Traceback" not in gate.log()
        killer.at_rest()
        killer.check()
    outcomes = Counter(
        (done.operation.name, done.completion.split(b" ")[0].decode() or "unknown") for done in killer.done
    )
    print(f"\n{mode}: {killer.kills} kills, {len(killer.done)} operations, {logins} logins upstream: {dict(outcomes)}")
    assert outcomes.total() == len(killer.done)
    assert {outcome for _, outcome in outcomes} >= {"OK", "unknown"}


@pytest.mark.parametrize("mode", MODES)
def test_f3_f4_kills(dovecot: Dovecot, user: NewUser, mode: str) -> None:
    """50 kills, of connections and of processes, during APPEND, STORE, COPY, MOVE and FETCH."""
    _kill(dovecot, user, mode, SAMPLE, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_f3_f4_two_hundred_kills(dovecot: Dovecot, user: NewUser, mode: str, seed: int) -> None:
    """200 of them: 0 duplicates, every acknowledged change is there, no OK is made up."""
    _kill(dovecot, user, mode, SOAK, seed)


# -- BYE (F8) ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=MODES)
def pooled(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """A gate that keeps connections, in each mode, before a scripted server."""
    limits = {"upstream_first_byte": "2s", "pool_check": "1ms"}
    with bed_of(upstream={"pool_mode": request.param}, limits=limits, **POOLED) as bed:
        yield bed


def _idle(bed: Bed) -> int:
    """How many connections lie idle in the pools."""
    return sum(row["idle"] for row in ctl(bed.gate, "pools"))


def _one_idle(bed: Bed) -> tuple[Wire, bytes, Conversation]:
    """A user whose one connection lies idle in the pool, and the client that used it; in `session` mode it has left."""
    wire, user = bed.login()
    if ctl(bed.gate, "upstreams")[0]["pool_mode"] == "session":
        wire.logout()
    wait_until(lambda: _idle(bed) == 1, "a connection in the pool")
    (talk,) = bed.recorder.of(user)
    return wire, user, talk


@pytest.mark.parametrize("how", ["bye", "bye and close", "close", "reset"])
def test_f8_an_idle_connection_ends(pooled: Bed, how: str) -> None:
    """A pooled connection that says BYE, or just ends, disturbs nobody: its user gets another, and hears nothing."""
    wire, user, talk = _one_idle(pooled)
    other, _ = pooled.login()
    other.ok(b"SELECT INBOX")
    if "bye" in how:
        talk.send(b"* BYE idle for too long\r\n")
    if how == "reset":
        talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        talk.sock.shutdown(socket.SHUT_RD)
    elif "close" in how:
        with suppress(OSError):  # behind a BYE the gate may have been faster
            talk.sock.shutdown(socket.SHUT_WR)
    wait_until(lambda: _idle(pooled) == 0, "the connection to be discarded")
    for _ in range(20):
        other.ok(b"NOOP")
    if wire.sock.fileno() < 0:
        wire, _ = pooled.login(user)
    for command in (b"NOOP", b"SELECT INBOX", b"FETCH 1 FLAGS"):
        wire.ok(command)
    for each in (wire, other):
        assert b"BYE" not in each.transcript
        each.logout()
    assert len(pooled.recorder.of(user)) == 2
    assert [len(talk.passwords) for talk in pooled.recorder.of(user)] == [1, 1]


def test_f8_bye_in_place_of_the_check(pooled: Bed) -> None:
    """A pooled connection that says BYE when it is looked at before its use: its user gets another one."""

    def noop(talk: Conversation, command: Command) -> None:
        if [each.verb for each in talk.commands].count(b"NOOP") == 1:
            talk.ok(command)  # the barrier
            return
        talk.send(b"* BYE idle for too long\r\n")
        talk.close()

    pooled.answer(NOOP=noop)
    wire, user, talk = _one_idle(pooled)
    time.sleep(0.01)  # for longer than `pool_check`
    if wire.sock.fileno() < 0:
        wire, _ = pooled.login(user)
    wire.ok(b"SELECT INBOX")
    assert b"BYE" not in wire.transcript
    wire.logout()
    first, second = pooled.recorder.of(user)
    assert first is talk
    assert [command.verb for command in first.commands][-2:] == [b"NOOP", b"NOOP"]
    assert [command.verb for command in second.commands].count(b"SELECT") == 1


@pytest.mark.parametrize("closes", [True, False])
def test_f8_a_leased_connection_ends(pooled: Bed, closes: bool) -> None:
    """A BYE on a connection in use is passed on once; the connection goes to nobody else."""

    def bye(talk: Conversation, command: Command) -> None:
        talk.send(b"* BYE shutting down\r\n")
        if closes:
            talk.close()

    _, user, _ = _one_idle(pooled)
    with pooled.login(user)[0] as wire:  # on the connection from the pool
        wire.ok(b"SELECT INBOX")
        (talk,) = pooled.recorder.of(user)
        talk.script = Script(answers={b"CHECK": bye})
        wire.send(b"c CHECK\r\nd NOOP\r\n")
        answer = wire.eof()
    assert answer.startswith(b"* BYE shutting down\r\n")
    assert answer.count(b"BYE") == 1
    assert b"\nc " not in answer
    pooled.recorder.wait(lambda: talk.ended)
    with pooled.login(user)[0] as wire:
        wire.ok(b"SELECT INBOX")
        assert b"BYE" not in wire.transcript
    assert len(pooled.recorder.of(user)) == 2
