"""Mode ``shared``: a mailbox that is deleted, renamed or made anew under the sessions that look at it.

Through the gate every one of them is told, on every server, by one BYE.  Behind its back they hear of it as the server
tells it; and nobody who comes later is ever shown what was there before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest

from tests.integration.conftest import User
from tests.integration.ctl import ctl
from tests.integration.servers import Server, wait_until
from tests.integration.shared import clients, counts, folder, sharing, store
from tests.integration.wire import Wire, WireClosed

NewUser = Callable[..., User]
OLD, NEW = b"Subject: old\r\n\r\nx\r\n", b"Subject: new\r\n\r\nx\r\n"
FETCH = b"FETCH 1:* BODY.PEEK[HEADER.FIELDS (SUBJECT)]"
WAYS = ["deleted", "renamed", "made anew"]


def done(wire: Wire, way: str, name: bytes, other: bytes) -> None:
    """Do that to a mailbox."""
    if way == "renamed":
        wire.ok(b"RENAME %b %b" % (name, other))
        return
    wire.ok(b"DELETE " + name)
    if way == "made anew":
        # UIDVALIDITY is the time, in seconds, where a server does not know what there was before.
        before = int(time.time())
        wait_until(lambda: int(time.time()) > before, "another second")
        wire.ok(b"CREATE " + name)
        for _ in range(2):
            assert b" OK " in wire.command_with_literals(b"APPEND " + name, NEW)[-1]


def farewell(wire: Wire) -> list[bytes]:
    """What a client is told until its connection is closed: it says NOOP and looks at messages as long as it can."""
    start = len(wire.transcript)
    with suppress(WireClosed, OSError):
        for _ in range(3):
            wire.command(b"NOOP")
            wire.command(FETCH)
    return bytes(wire.transcript[start:]).splitlines(keepends=True)


def is_told(wire: Wire) -> bool:
    """Whether it was told, once and last, that it is over, and shown nothing."""
    told = farewell(wire)
    return [line.startswith(b"* BYE ") for line in told].count(True) == 1 and told[-1].startswith(b"* BYE ")


@pytest.mark.parametrize("way", WAYS)
def test_through_the_gate(server: Server, user: NewUser, way: str) -> None:
    """Everybody there is told and goes, idling or not; who does it, and who looks elsewhere, stays."""
    someone, name, other = user(server), folder(server, b"gone"), folder(server, b"kept")
    with someone.wire() as direct:
        direct.ok(b"CREATE " + name)
    store(someone, OLD, OLD, mailbox=name)
    with sharing(server) as gate, ExitStack() as stack:
        first, second, idler = clients(stack, gate, someone, 3, b"SELECT " + name)
        idler.send(b"i IDLE\r\n")
        idler.expect_continuation()
        elsewhere, doer = clients(stack, gate, someone, 2, b"SELECT INBOX")
        done(doer, way, name, other)
        told = idler.eof().splitlines()
        assert [line.startswith(b"* BYE ") for line in told] == [False] * (len(told) - 1) + [True]
        assert is_told(first)
        assert is_told(second)
        elsewhere.ok(b"NOOP")
        if way == "deleted":
            assert doer.command(b"SELECT " + name)[-1].split()[1] == b"NO"
        else:
            doer.ok(b"SELECT " + (other if way == "renamed" else name))
            assert (NEW if way == "made anew" else OLD)[:12] in b"".join(doer.ok(FETCH))
        wait_until(lambda: len(ctl(gate, "sessions")) == 2, "the end of the three")


@pytest.mark.parametrize("way", WAYS)
def test_behind_its_back(server: Server, user: NewUser, way: str) -> None:
    """Sessions hear of it as the server tells it; who selects the mailbox then sees what is there."""
    someone, name, other = user(server), folder(server, b"gone"), folder(server, b"kept")
    with someone.wire() as direct:
        direct.ok(b"CREATE " + name)
    store(someone, OLD, OLD, mailbox=name)
    with sharing(server) as gate, ExitStack() as stack:
        first, second = clients(stack, gate, someone, 2, b"SELECT " + name)
        with someone.wire() as direct:
            done(direct, way, name, other)
        (late,) = clients(stack, gate, someone, 1)
        answer = late.command(b"SELECT " + name)
        if way == "made anew":
            assert answer[-1].split()[1] == b"OK"
            assert b"new" in b"".join(late.ok(FETCH))
            assert counts(gate)["opened"] == 2
        else:
            assert answer[-1].split()[1] == b"NO"
        for wire in (first, second):
            told = farewell(wire)
            assert not [line for line in told if line.startswith((b"Subject: old", b"Subject: new"))]
            assert [line for line in told if line.startswith(b"* BYE ")] == told[-1:]
        late.ok(b"NOOP")


def test_below_it(server: Server, user: NewUser) -> None:
    """With a mailbox that is renamed what is below it has another name, too, and nothing is shown under the old one."""
    someone, name, other = user(server), folder(server, b"a"), folder(server, b"b")
    below = b"." if server.name == "courier" else b"/"
    with someone.wire() as direct:
        direct.ok(b"CREATE " + name)
        direct.ok(b"CREATE %b%bchild" % (name, below))
    store(someone, OLD, mailbox=b"%b%bchild" % (name, below))
    with sharing(server) as gate, ExitStack() as stack:
        (there,) = clients(stack, gate, someone, 1, b"SELECT %b%bchild" % (name, below))
        (doer,) = clients(stack, gate, someone, 1)
        doer.ok(b"RENAME %b %b" % (name, other))
        assert is_told(there)
        doer.ok(b"SELECT %b%bchild" % (other, below))
        assert OLD[:12] in b"".join(doer.ok(FETCH))


def test_a_name_that_begins_alike(server: Server, user: NewUser) -> None:
    """A mailbox whose name only begins like that of the one that goes is left alone."""
    someone, name, other = user(server), folder(server, b"work"), folder(server, b"workshop")
    with someone.wire() as direct:
        direct.ok(b"CREATE " + name)
        direct.ok(b"CREATE " + other)
    with sharing(server) as gate, ExitStack() as stack:
        (there,) = clients(stack, gate, someone, 1, b"SELECT " + other)
        (doer,) = clients(stack, gate, someone, 1)
        doer.ok(b"DELETE " + name)
        there.ok(b"NOOP")
        assert counts(gate)["parked"] == 0
