"""SELECT of a large mailbox: directly, by a first session, by a second one; and the NOOP of a session that was parked."""

import contextlib
import time
from typing import NamedTuple

import bench
import memory
import stack

from shared import bed, tables

MODES = ("session", "share")
REATTACH = 250.0
"""Milliseconds."""
PARK_AFTER = 1
SILENCE = PARK_AFTER + 2.0
"""Seconds: the gate looks once a second for who is to be parked."""
MESSAGE = stack.msg(0, 700)
SPARE = 15.0
"""Seconds; the gate keeps a second channel for ten."""


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
        disconnected(gate)
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


def awake():
    """Nobody is parked."""


def silent():
    """A session is parked, and the channel it had is kept: nothing can be seen of that from outside."""
    time.sleep(SILENCE)


def disconnected(gate):
    """A session is parked, and the channel it had is closed."""
    memory.until("the gate to close its connections", lambda: bed.connections(gate)[1] == 0)


def holding(gate, clients, few):
    """The connections that these clients hold, once they are so few, or after the time for which a spare one is kept."""
    end = time.monotonic() + SPARE
    while (held := bed.connections(gate)[0]) > few and time.monotonic() < end:
        for client in clients:
            client.run("NOOP")  # so that nobody is parked
        time.sleep(0.1)
    return held


def attaching(mode, port, user, count, rounds):
    took, wrong = {}, 0
    sharing = mode in bed.SHARING
    keys = {"park_after": f"{PARK_AFTER}s"} if sharing else {}

    with contextlib.closing(Changes(port, user, count)) as changes:
        took["direct SELECT"] = later_selects(port, user, rounds)
        took["direct SELECT, changed"] = changed_selects(port, user, changes, rounds)
        with bed.Client(port, user) as direct:
            direct.run("SELECT INBOX")
            took["direct NOOP"], _ = noops(direct, changes, rounds, awake)
        with bed.gate(mode, port, pool_idle="1s", **keys) as gate:
            took["first SELECT"] = first_selects(gate, user, rounds)
            with bed.Client(gate.port, user) as client:
                client.run("SELECT INBOX")
                took["NOOP, reconnected"], errors = noops(
                    client, changes, rounds, (lambda: disconnected(gate)) if sharing else awake
                )
                wrong += errors
        with bed.gate(mode, port, **keys) as gate:
            with bed.Client(gate.port, user) as client:
                client.run("SELECT INBOX")
                took["second SELECT"] = later_selects(gate.port, user, rounds, client)
                with bed.Client(gate.port, user) as other:
                    other.run("SELECT INBOX")
                    held = holding(gate, (client, other), 1 if sharing else 2)
                    other.run("LOGOUT")
                took["NOOP, re-attached"], errors = noops(client, changes, rounds, silent if sharing else awake)
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
