"""The pattern session50 of bench.py: rates, CPU, and every command that the backend is asked, counted."""

import contextlib
import json
import time

import bench

from shared import bed, tables
from shared.counting import Counter

MODES = ("session", "share")
PEERS = ("nginx", "imapproxy")
KEPT = {"pool_size": 1000, "pool_keep": 10}
"""For a pool of connections that sessions hold: as imapgate-pool of stack.py."""


@contextlib.contextmanager
def webmail_targets(o, port):
    """All that are measured, running, before this port."""
    with contextlib.ExitStack() as run:
        run.enter_context(bed.peers(PEERS, port))
        targets = [bench.Target("direct", port=port), *map(bench.Target, PEERS)]
        gates = [("session", "0s"), *((mode, "60s") for mode in o.modes or MODES)]
        for mode, cache in gates:
            gate = run.enter_context(bed.gate(mode, port, cache, **({} if mode in bed.SHARING else KEPT)))
            name = f"imapgate {mode}" + ("" if cache == "0s" else ", cache")
            targets.append(bench.Target(name, port=gate.port, pid=gate.process.pid))
        yield targets


def still(counter):
    """The counts, once nothing has been added for half a second."""
    counts, since, end = counter.now(), time.monotonic(), time.monotonic() + 15
    while time.monotonic() - since < 0.5 and time.monotonic() < end:
        time.sleep(0.05)
        if (now := counter.now()) != counts:
            counts, since = now, time.monotonic()
    return counts


def commands(target, counter, sessions):
    """Commands that the backend was asked for each session, by verb."""
    arguments = f"session -c 50 -U 200 -W 200 -T 30 -n {sessions}".split()
    loader = bench.Loader(arguments, target, False, bench.ALLCPUS)
    try:
        loader.line()
        before = still(counter)
        loader.go()
        done = json.loads(loader.line())["count"]
        after = still(counter)
        loader.go()
        loader.line()
    finally:
        loader.close()
    return {verb: n / done for verb, n in (after - before).most_common()}


def measure(o):
    with bed.backend() as port:
        with Counter(port) as counter, webmail_targets(o, counter.port) as targets:
            counted = {}
            for t in targets:
                counted[t.name] = commands(t, counter, o.sessions)
                print(f"commands {t.name}: {counted[t.name]}", flush=True)
        with webmail_targets(o, port) as targets:
            recs = bench.measure(targets, ["session50"], o, bench.results(o))
    rows, bounds = [], []
    for name in counted:
        every = [r for r in recs if r["target"] == name]
        failed = sum(r["errors"] + r["stuck"] + ("setup_error" in r) for r in every) + o.reps - len(every)
        if name.startswith("imapgate"):
            bounds.append(tables.Bound(f"webmail, {name}: errors", failed, 0))
        mine = {r["rep"]: r for r in recs if r["target"] == name and r.get("count")}
        bare = {r["rep"]: r for r in recs if r["target"] == "direct" and r.get("count")}
        of = list(mine.values())
        rows.append(
            [
                name,
                bench.med([r["rate"] for r in of]),
                bench.med([r["rate"] / bare[k]["rate"] for k, r in mine.items() if k in bare]),
                bench.med([r["p50_us"] / 1000 for r in of]),
                bench.med([r["p99_us"] / 1000 for r in of]),
                None if name == "direct" else bench.med([r["proxy_cpu_per"] for r in of]),
                bench.med([r["backend_cpu_per"] for r in of]),
                bench.med([r["backend_cpu_per"] / bare[k]["backend_cpu_per"] for k, r in mine.items() if k in bare]),
                sum(counted[name].values()),
                ", ".join(f"{verb} {n:.2f}" for verb, n in counted[name].items() if n >= 0.005),
                failed,
                sum(r["retries"] for r in every),
            ]
        )
    columns = (
        "Target",
        "Sessions/s",
        "to direct's",
        "p50 ms",
        "p99 ms",
        "Proxy CPU s/1,000",
        "Backend CPU s/1,000",
        "to direct's",
        "Backend commands per session",
        "of these",
        "Errors",
        "Reconnects",
    )
    return tables.Shown("Webmail: 50 at a time of 200 users", columns, rows, bounds)
