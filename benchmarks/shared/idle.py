"""Clients in IDLE, directly and behind a gate in each mode: what the backend holds for them, and what the gate."""

import contextlib
import json
import os
import subprocess
import sys
import time

import bench
import stack

from shared import bed, tables

MODES = ("session", "share", "poll")
POLLED = 20
"""The most connections of idle = "poll" (idle_connections)."""
LOOK = 10.0
"""Seconds that idling clients are watched."""
LONG_LOOK = {"poll": 70.0}
"""The same in mode poll: longer than idle_poll."""


def dovecot_logins():
    """The connections that Dovecot itself counts."""
    conf = os.path.join(stack.ROOT, "direct", "dovecot.conf")
    who = subprocess.run(["doveadm", "-c", conf, "who", "-1"], capture_output=True, text=True, check=True, timeout=60)
    return len(who.stdout.splitlines()) - 1


def imap_processes():
    count = 0
    for pid in stack.tree(stack.pids("direct")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as f:
            count += f.read() == "imap\n"
    return count


def settled(most, seconds):
    """Seconds until the backend has at most so many connections; None if it never did."""
    start = time.monotonic()
    while bench.backend_conns() > most:
        if time.monotonic() - start > seconds:
            return None
        time.sleep(0.05)
    return time.monotonic() - start


def watched(seconds, roots):
    """What so many seconds show: (most connections, their mean, CPU s a minute of these processes, and of the backend)."""
    back = stack.pids("direct")
    seen, mine, theirs, start = [], bench.cpu(roots), bench.cpu(back), time.monotonic()
    while (passed := time.monotonic() - start) < seconds:
        seen.append(bench.backend_conns())
        time.sleep(0.1)
    minutes = passed / 60
    return (
        max(seen),
        sum(seen) / len(seen),
        (bench.cpu(roots) - mine) / minutes,
        (bench.cpu(back) - theirs) / minutes,
    )


def idle_row(name, o, most):
    """One row of figures, and the most connections that were seen."""
    with contextlib.ExitStack() as run:
        port = run.enter_context(bed.backend())
        gate = None if name == "direct" else run.enter_context(bed.gate(name, port))
        roots = [gate.process.pid] if gate else []
        with bed.Client(gate.port if gate else port, "u1") as first:  # what a first session leaves is no growth
            first.run("SELECT INBOX")
            first.run("LOGOUT")
        if gate:
            gate.collect()
        before = bench.memory(roots)[2]
        target = bench.Target(name, port=gate.port if gate else port, pid=roots[0] if roots else None)
        loader = bench.Loader(
            ["idle", "-c", str(o.clients), "-U", str(o.users), "-b", "8"],
            target,
            False,
            bench.ALLCPUS,
            0,
            o.settle + 600,
        )
        run.callback(loader.close)
        ready = loader.line().split(None, 4)
        logged_in = bench.backend_conns()
        loader.go()
        idling = json.loads(loader.line())
        quiet = settled(most, o.settle)
        top, mean, own, theirs = watched(LONG_LOOK.get(name, LOOK), roots)
        if gate:
            gate.collect()
        grown = (bench.memory(roots)[2] - before) / max(1, idling["count"]) if gate else None
        processes, _, pss = bench.memory(stack.pids("direct"))
        row = [
            name,
            idling["count"],
            float(ready[3]),
            logged_in,
            None if quiet is None else f"{quiet:.0f}",
            top,
            mean,
            dovecot_logins(),
            imap_processes(),
            processes,
            pss / 1024,
            grown,
            own if gate else None,
            theirs,
        ]
        wrong = int(ready[2]) + idling["errors"] + idling["stuck"]
        if wrong:
            print(f"{name}: {wrong} clients did not get into IDLE: {ready[4:]} {idling['lasterr']}", file=sys.stderr)
        loader.go()
        loader.line()
        return row, None if wrong else top


def measure(o):
    most = {"share": o.users, "poll": POLLED}
    rows, bounds = [], []
    for name in ("direct", *(o.modes or MODES)):
        row, top = idle_row(name, o, most.get(name, o.clients))
        rows.append(row)
        print(f"idle {name}: {', '.join(tables.number(v) for v in row[1:])}", flush=True)
        if name in most:
            bounds.append(tables.Bound(f"idle, {name}: backend connections", top, most[name]))
    columns = (
        "Mode",
        "Clients in IDLE",
        "Logged in after s",
        "Connections then",
        "Settled after s",
        "Connections, most",
        "Connections, mean",
        "Logins, by Dovecot",
        "imap processes",
        "Backend processes",
        "Backend PSS MiB",
        "Gate KiB per client",
        "Gate CPU s/min",
        "Backend CPU s/min",
    )
    return tables.Shown(f"{o.clients:,} idle clients of {o.users} users", columns, rows, bounds)
