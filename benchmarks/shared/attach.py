"""SELECT of a large mailbox: directly, by a first session, by a second one; and the NOOP of a session that was parked."""

import contextlib
from typing import NamedTuple

import bench
import memory
import stack

from shared import bed, tables

MODES = ("session", "share")
REATTACH = 250.0
"""Milliseconds."""
MESSAGE = stack.msg(0, 700)


def until(what, condition):
    memory.until(what, condition, 60.0)


class Changes:
    """Another client of the same mailbox, directly at the server: each time one flag and one message."""

    def __init__(self, port, user, count):
        self.client = bed.Client(port, user)
        self.count = count
        self.flagged = False
        self.client.run("SELECT INBOX")

    def make(self):
        self.flagged = not self.flagged
        self.client.run(f"STORE {self.count // 2} {'+' if self.flagged else '-'}FLAGS (\\Flagged)")
        self.client.append(MESSAGE)
        self.client.answer("APPEND")

    def told(self, lines):
        """Whether these lines say exactly that, to one who knew the mailbox as it was before."""
        changes = [line for line in lines if b" FETCH " in line]
        ours = [c for c in changes if c.startswith(b"* %d FETCH " % (self.count // 2))]
        return (
            bed.exists(lines) == self.count + 1
            and bool(ours)
            and (b"\\Flagged" in ours[-1]) == self.flagged
            and not any(line.endswith(b" EXPUNGE") for line in lines)
        )

    def undo(self):
        """The mailbox as large as before; whoever asks is told of an EXPUNGE."""
        self.client.run("NOOP")
        self.client.expunge(f"STORE {self.count + 1}")

    def close(self):
        self.client.socket.close()


def first_selects(gate, user, rounds):
    """SELECT by a session that finds no connection of its user: seconds each."""
    out = []
    for _ in range(rounds):
        until("the gate to close its connections", lambda: bed.connections(gate)[1] == 0)
        with bed.Client(gate.port, user) as client:
            out.append(client.timed("SELECT INBOX")[0])
            client.run("LOGOUT")
    return out


def later_selects(port, user, rounds, holder=None):
    """SELECT by new sessions, while the holder, if any, has the mailbox selected and is awake: seconds each."""
    out = []
    for _ in range(rounds):
        if holder:
            holder.run("NOOP")
        with bed.Client(port, user) as client:
            out.append(client.timed("SELECT INBOX")[0])
            client.run("LOGOUT")
    return out


def changed_selects(port, user, changes, rounds):
    """The same after changes, by sessions that were logged in before them."""
    out = []
    for _ in range(rounds):
        with bed.Client(port, user) as client:
            changes.make()
            out.append(client.timed("SELECT INBOX")[0])
            client.run("LOGOUT")
        changes.undo()
    return out


def noops(client, changes, rounds, parked):
    """A selected session's NOOP after changes, before which parked() waits: (seconds each, how many told wrongly)."""
    out, wrong = [], 0
    for _ in range(rounds):
        parked()
        changes.make()
        took, lines = client.timed("NOOP")
        out.append(took)
        wrong += not changes.told(lines)
        changes.undo()
        client.run("NOOP")
    return out, wrong


class Attaching(NamedTuple):
    """What one mode shows."""

    took: dict  # figure: seconds each
    wrong: int  # NOOPs behind the gate that told something else than the changes
    held: int  # connections that two sessions with the mailbox selected hold


def attaching(mode, port, user, count, rounds):
    took, wrong = {}, 0
    sharing = mode in bed.SHARING
    keys = {"park_after": "1s"} if sharing else {}

    def reattached(gate, client, left):
        def parked():
            if sharing:
                until("the session to be parked", lambda: left(*bed.connections(gate)))

        return noops(client, changes, rounds, parked)

    with contextlib.closing(Changes(port, user, count)) as changes:
        took["direct SELECT"] = later_selects(port, user, rounds)
        took["direct SELECT, changed"] = changed_selects(port, user, changes, rounds)
        with bed.Client(port, user) as direct:
            direct.run("SELECT INBOX")
            took["direct NOOP"], _ = noops(direct, changes, rounds, lambda: None)
        with bed.gate(mode, port, pool_idle="1s", **keys) as gate:  # a parked session's connection is soon closed
            took["first SELECT"] = first_selects(gate, user, rounds)
            with bed.Client(gate.port, user) as client:
                client.run("SELECT INBOX")
                took["NOOP, reconnected"], errors = reattached(gate, client, lambda held, total: total == 0)
                wrong += errors
        with bed.gate(mode, port, **keys) as gate:  # and here kept
            with bed.Client(gate.port, user) as client:
                client.run("SELECT INBOX")
                took["second SELECT"] = later_selects(gate.port, user, rounds, client)
                with bed.Client(gate.port, user) as other:
                    other.run("SELECT INBOX")
                    client.run("NOOP")
                    held = bed.connections(gate)[0]
                    other.run("LOGOUT")
                took["NOOP, re-attached"], errors = reattached(gate, client, lambda held, total: held == 0)
                wrong += errors
    return Attaching(took, wrong, held)


def measure(o):
    figures = (
        "direct SELECT",
        "direct SELECT, changed",
        "first SELECT",
        "second SELECT",
        "direct NOOP",
        "NOOP, re-attached",
        "NOOP, reconnected",
    )
    rows, bounds = [], []
    for server in o.servers or bed.SERVERS:
        with bed.server(server, "large1") as port:
            with bed.Client(port, "large1") as client:
                count = bed.filled(client, o.messages)
            for mode in o.modes or MODES:
                found = attaching(mode, port, "large1", count, o.rounds)
                ms = {name: (1000 * bench.med(took), 1000 * max(took)) for name, took in found.took.items()}
                rows.append(
                    [f"{server}, {mode}", count]
                    + [f"{tables.number(ms[f][0])} ({tables.number(ms[f][1])})" for f in figures]
                    + [found.held, found.wrong]
                )
                print(f"attach {', '.join(tables.number(v) for v in rows[-1])}", flush=True)
                if mode in bed.SHARING:
                    for name in ("NOOP, re-attached", "NOOP, reconnected"):
                        what = f"{server}, {mode}: {name}, worst"
                        bounds.append(tables.Bound(what, None if found.wrong else ms[name][1], REATTACH, "ms"))
    columns = ("Server, mode", "Messages", *(f"{f} ms" for f in figures), "Connections of two", "Told wrongly")
    return tables.Shown("A large mailbox: median (worst) of each", columns, rows, bounds)
