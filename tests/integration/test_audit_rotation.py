"""The audit file is rotated as logrotate does it, and the gate is followed by another: all of it verifies."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imapgate.audit.checkpoint import make_key
from imapgate.audit.verify import verify
from tests.integration.audited import (
    Caller,
    audit,
    files,
    invalid,
    of,
    recorded,
    records,
    trail_of,
    unrecorded,
    until_closed,
    whole,
)
from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, ctl
from tests.integration.gate import Gate, gate_for
from tests.integration.servers import Dovecot, wait_until
from tests.integration.test_restart import SHUTTING_DOWN, Dynasty
from tests.integration.wire import connect

NewUser = Callable[..., User]

ROTATIONS = 5
CLIENTS = 3
BODY = b"Subject: rotated\r\n\r\n" + b"a line\r\n" * 400


@contextmanager
def load(gate: Gate, user: User) -> Iterator[list[Caller]]:
    """Let clients work meanwhile; gives them."""
    callers = [Caller(connect(gate.host, gate.port), b"r%d" % number) for number in range(CLIENTS)]
    stopped = threading.Event()

    def work(caller: Caller) -> None:
        caller.wire.login(user.name, user.password)
        caller.give(b"SELECT INBOX")
        until_closed(lambda: _round(caller, stopped))

    threads = [threading.Thread(target=work, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    try:
        yield callers
    finally:
        stopped.set()
        for thread in threads:
            thread.join(30)
        for caller in callers:
            caller.hang_up()


def _round(caller: Caller, stopped: threading.Event) -> None:
    if stopped.is_set():
        caller.wire.logout()
    else:
        caller.append(b"INBOX", BODY)
        caller.give(b"FETCH 1 BODY[]", b"STORE 1 FLAGS (\\Seen)", b"UID SEARCH ALL")


def _more(callers: list[Caller], answers: int) -> None:
    """Wait until so many more answers were seen."""
    wanted = sum(caller.answered for caller in callers) + answers
    wait_until(lambda: sum(caller.answered for caller in callers) >= wanted, "the clients' work", 30)


def _rotate(path: Path, number: int = 1) -> Path:
    """Rename the file as conf/logrotate has it; gives its new name."""
    rotated = path.with_name(f"{path.name}-20261102-{number}")
    path.rename(rotated)
    return rotated


def _compress(path: Path) -> None:
    """Compress a file, as some do later."""
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


@pytest.mark.parametrize("durability", ["durable", "buffered"])
def test_logrotate(dovecot: Dovecot, user: NewUser, durability: str) -> None:
    """Renamed, SIGHUP, and compressed later, 5 times under load: one chain through 6 files, every OK in it (A48)."""
    with gate_for(dovecot, **audit(durability)) as gate:
        path = trail_of(gate)
        with load(gate, user(dovecot)) as callers:
            for number in range(ROTATIONS):
                _more(callers, 20)
                rotated = _rotate(path, number)
                _more(callers, 5)  # between the two, the file that was renamed is written still
                gate.reload()
                wait_until(path.exists, f"the new file of rotation {number}")
                if number % 2:
                    _compress(rotated)
            _more(callers, 20)
        assert gate.stop() == 0
        assert "Traceback" not in gate.log()
        every = files(path)
        assert len(every) == ROTATIONS + 1
        verdict = whole(*every)
        assert not any("are not in these files" in note for note in verdict.notes)
        trail = records(*every)
        assert len({record["chain"] for record in trail}) == 1
        assert sorted(record["seq"] for record in trail) == list(range(1, len(trail) + 1))
        assert len(of(trail, "audit.checkpoint", reason="rotated")) == ROTATIONS
        assert not of(trail, "audit.gap")
        assert not unrecorded(callers, trail)
        assert not invalid(trail)
        # Whoever takes one of them away is found out, unless it is the first or the last.
        lacking = [verify([path for path in every if path != each]).intact for each in every]
        assert lacking == [True, True, *[False] * (ROTATIONS - 1)]


def test_rotated_twice_at_once(dovecot: Dovecot, user: NewUser) -> None:
    """SIGHUP without a renamed file goes on in the same file; several at once do no harm."""
    with gate_for(dovecot, **audit("durable")) as gate:
        path = trail_of(gate)
        with load(gate, user(dovecot)) as callers:
            for _ in range(5):
                gate.reload()
            _more(callers, 20)
        assert gate.stop() == 0
        assert files(path) == [path]
        whole(path)
        assert not unrecorded(callers, records(path))


def test_takeover(dovecot: Dovecot, user: NewUser) -> None:
    """Two processes at once have two files and two chains, each whole; the next but one has the first file again."""
    someone = user(dovecot)
    with gate_for(dovecot, admin=ADMIN, **audit("durable")) as gate:
        line = Dynasty(gate)
        path = trail_of(gate)
        callers = []
        try:
            for number in range(2):
                old = Caller(connect(gate.host, gate.port), b"o%d" % number)
                old.wire.login(someone.name, someone.password)
                old.give(b"SELECT INBOX")
                tag = old.begin(b"INBOX", BODY)
                before = line.follow()
                new = Caller(connect(gate.host, gate.port), b"w%d" % number)
                new.wire.login(someone.name, someone.password)
                new.append(b"INBOX", BODY)
                assert before.poll() is None
                old.finish(tag, BODY)
                assert old.wire.eof() == SHUTTING_DOWN
                assert before.wait(30) == 0
                new.give(b"SELECT INBOX", b"FETCH 1 BODY[]")
                new.wire.logout()
                callers += [old, new]
            (row, *_) = ctl(gate, "audit")
            assert row["name"] == str(path)
            assert gate.stop() == 0
        finally:
            line.end()
        own = [each for each in files(path) if each != path]
        assert len(own) == 1
        whole(path, *own)
        whole(path)
        whole(*own)
        trail = records(path, *own)
        (chain,) = {record["chain"] for record in records(*own)}
        assert own[0].name == f"audit-{chain}.jsonl"
        assert len({record["chain"] for record in records(path)}) == 2
        assert not of(trail, "audit.gap")
        assert not unrecorded(callers, trail)
        assert [len(of(records(path), "message.append")), len(of(records(*own), "message.append"))] == [2, 2]
        assert not invalid(trail)


def test_signed(dovecot: Dovecot, user: NewUser, tmp_path: Path) -> None:
    """Checkpoints are signed, across a rotation: the public half verifies them, and another key does not."""
    key = tmp_path / "audit.key"
    public, other = make_key(key), make_key(tmp_path / "other.key")
    with gate_for(dovecot, **audit("buffered", checkpoint_key=key)) as gate:
        path = trail_of(gate)
        with user(dovecot).wire(gate.port) as wire:
            wire.ok(b"SELECT INBOX")
            recorded(path, lambda trail: of(trail, "mailbox.select"))
            _rotate(path)
            gate.reload()
            wait_until(path.exists, "the new file")
            wire.logout()
        assert gate.stop() == 0
        assert verify(files(path), [public]).intact
        assert not verify(files(path), [other]).intact
