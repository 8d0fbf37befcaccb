"""Mode ``shared``: a client that takes nothing stops its mailbox's other clients for a moment only (A42)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from tests.integration.conftest import User
from tests.integration.servers import Dovecot, Server, wait_until
from tests.integration.shared import clients, counts, folder, selected, sharing, store
from tests.integration.wire import Wire

NewUser = Callable[..., User]
MIB = 1024 * 1024
BIG = b"From: a@example.org\r\nSubject: big\r\n\r\n" + b"0123456789abcdefghijklmnopqrstuvwxyz\r\n" * (20 * MIB // 38)


def begun(wire: Wire) -> None:
    """Ask for the large message, and take no octet of it."""
    wire.send(b"f FETCH 1 BODY.PEEK[]\r\n")


def test_a_slow_reader(server: Server, user: NewUser) -> None:
    """20 MiB for somebody who takes nothing: the others go on meanwhile, and every octet is there later."""
    someone = user(server)
    store(someone, BIG)
    with sharing(server, share_stall="200ms") as gate, ExitStack() as stack:
        reader, other, idler = clients(stack, gate, someone, 3, b"SELECT INBOX")
        begun(reader)
        other.ok(b"NOOP")
        assert b"* 1 FETCH " in b"".join(other.ok(b"FETCH 1 FLAGS"))
        idler.send(b"i IDLE\r\n")
        idler.expect_continuation()
        idler.send(b"DONE\r\n")
        idler.until_tagged(b"i")
        assert not reader.transcript.endswith(b"f OK")  # it has not read since
        seen = counts(gate)
        assert (seen["stalled"], seen["overflowed"]) == (1, 0)
        assert [row["sessions"] for row in selected(gate, someone)] == [3]
        told = reader.until_tagged(b"f")
        assert BIG in told[0]
        assert b"f OK" in told[-1]
        # It is waited for again, now that it has taken everything, and may be given up again.
        begun(reader)
        other.ok(b"NOOP")
        assert BIG in reader.until_tagged(b"f")[0]
        assert counts(gate)["stalled"] == 2


def test_nobody_else_waits(dovecot: Dovecot, user: NewUser) -> None:
    """As long as nobody waits for it, the server is not read from, and nothing is kept of what it says."""
    someone = user(dovecot)
    store(someone, BIG)
    dovecot_folder = folder(dovecot, b"elsewhere")
    with sharing(dovecot, share_stall="50ms") as gate, ExitStack() as stack:
        (reader,) = clients(stack, gate, someone, 1, b"SELECT INBOX")
        (other,) = clients(stack, gate, someone, 1, b"CREATE " + dovecot_folder, b"SELECT " + dovecot_folder)
        before = gate.memory()
        begun(reader)
        wait_until(lambda: any(row["state"] == "busy" for row in selected(gate, someone)), "the answer")
        for _ in range(50):
            other.ok(b"NOOP")
            other.ok(b"STATUS INBOX (MESSAGES)")
        assert BIG in reader.until_tagged(b"f")[0]
        assert (counts(gate)["stalled"], counts(gate)["overflowed"]) == (0, 0)
        assert gate.memory() - before < 8 * MIB


def test_beyond_the_bound(server: Server, user: NewUser) -> None:
    """Who does not take what is kept for it in the end is cut off; the others notice nothing, and it is counted."""
    someone = user(server)
    store(someone, BIG)
    limits = {"share_spool_memory": "64KiB", "share_spool": "1MiB"}
    with sharing(server, share_stall="100ms", limits=limits) as gate, ExitStack() as stack:
        reader, other = clients(stack, gate, someone, 2, b"SELECT INBOX")
        begun(reader)
        other.ok(b"NOOP")
        wait_until(lambda: counts(gate)["overflowed"] == 1, "the end of the slow one")
        assert counts(gate)["stalled"] == 1
        gate.wait_log('session ended: .*reason="client stalled"')
        assert b"f OK" not in reader.eof()
        assert BIG in b"".join(other.ok(b"FETCH 1 BODY.PEEK[]"))
        other.logout()
