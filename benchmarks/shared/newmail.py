"""How much later than a direct IDLE client of the same server one behind a gate learns of a message."""

import contextlib
import random
import time

import bench
import stack

from shared import bed, tables

MODES = ("session", "share")
SERVERS = ("dovecot", "cyrus")
LATER = 200.0
"""Milliseconds by which it may be later."""
WATCHERS = 3
"""Clients that idle behind the gate; the last one to be told counts."""
KEYS = {"poll": {"idle_poll": "5s"}}


def delays(port, gate_port, user, deliveries):
    """For each delivery, milliseconds from its octets to the EXISTS: (at the direct client, at the last one behind the gate)."""
    out = []
    with contextlib.ExitStack() as clients:
        writer, direct = (clients.enter_context(bed.Client(port, user)) for _ in range(2))
        behind = [clients.enter_context(bed.Client(gate_port, user)) for _ in range(WATCHERS)]
        writer.run("SELECT INBOX")
        writer.expunge()
        for client in (direct, *behind):
            client.run("SELECT INBOX")
            client.idle()
        # The server's own delays have phases: the first delivery finds everybody told, the others come at any time.
        for count in range(1, deliveries + 1):
            time.sleep(random.uniform(0.2, 1.2))
            writer.append(stack.msg(count, 700))  # Cyrus takes one message ten times only
            sent = time.perf_counter()
            at = [1000 * (when - sent) for when in bed.heard([direct, *behind], count)]
            writer.answer("APPEND")
            out.append((at[0], max(at[1:])))
        for client in (direct, *behind):
            client.done()
        writer.run("NOOP")
        writer.expunge()
    return out


def measure(o):
    rows, bounds = [], []
    for server in o.servers or SERVERS:
        for mode in o.modes or MODES:
            with bed.server(server, "app1") as port, bed.gate(mode, port, **KEYS.get(mode, {})) as gate:
                found = delays(port, gate.port, "app1", o.deliveries)
            later = [b - a for a, b in found]
            rows.append(
                [
                    f"{server}, {mode}",
                    len(found),
                    *(f(v) for v in ([a for a, _ in found], [b for _, b in found], later) for f in (bench.med, max)),
                ]
            )
            print(f"newmail {server} {mode}: {', '.join(tables.number(v) for v in rows[-1][1:])}", flush=True)
            if mode == "share":
                what = f"new mail, {server}, share: later than a direct client"
                bounds.append(tables.Bound(f"{what}, median", bench.med(later), LATER, "ms"))
                bounds.append(tables.Bound(f"{what}, worst", max(later), LATER, "ms"))
    columns = (
        "Server, mode",
        "Deliveries",
        "Direct, median ms",
        "worst",
        "Gate, median ms",
        "worst",
        "Later, median ms",
        "worst",
    )
    title = f"APPEND to EXISTS: a direct IDLE client, and the last of {WATCHERS} behind the gate"
    return tables.Shown(title, columns, rows, bounds)
