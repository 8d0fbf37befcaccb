#!/usr/bin/env python3
"""What it costs to be watched: the audit trail, and a plugin whose verbs nobody uses; say which targets are met.

  watch.py [--subject NAME] [--targets imapgate,imapgate-durable,imapgate-plugin,...] [--metrics noop1,...]
           [--reps N] [--max-foreign SHARE] [--retries N] [--out NAME] [--no-stop] [--report FILE.jsonl ...]

Everything on one CPU, the default reactor.  The subject is the gate with an audit trail (durability "buffered"),
beside the same gate without one, with a durable one, and with a plugin.  What this started it stops again.
Exit status 0: every target is met.
"""

import bench
import targets

METRICS = "noop1,uidfetch1,fetchbig,fetchmany"
PEERS = "imapgate,imapgate-durable,imapgate-plugin"
RATIOS = {"fetchbig": 1.10, "fetchmany": 2.5}
ADDED = 25.0
"""Microseconds of CPU a command."""
NOISE = 0.05
"""What cannot be told from nothing in one run."""


def med(values):
    return bench.med(list(values))


def of(recs, metric, name):
    return {
        (r["run"], r["rep"]): r["proxy_cpu_per"]
        for r in recs
        if r["metric"] == metric and r["target"] == name and r.get("proxy_cpu_per")
    }


def rows(recs, subject, metrics):
    """(metric, target, what, figure, bound, met) for each pair; met is None where there is no bound."""
    for m in metrics:
        bare = of(recs, m, "imapgate")
        for name in (subject, *(n for n in PEERS.split(",") if n != "imapgate")):
            mine = of(recs, m, name)
            both = [k for k in mine if k in bare]
            if not both:
                continue
            ratio = med(mine[k] / bare[k] for k in both)
            added = med(mine[k] - bare[k] for k in both) * 1000  # CPU s per 1,000 commands: ms, and 1000 us
            if name == "imapgate-plugin":
                yield m, name, "CPU, to the bare gate's", ratio, f"at most {1 + NOISE:.2f}", ratio <= 1 + NOISE
            elif m in RATIOS:
                met = None if name != subject else ratio <= RATIOS[m]
                yield m, name, "CPU, to the bare gate's", ratio, "" if met is None else f"at most {RATIOS[m]:.2f}", met
            else:
                met = None if name != subject else added <= ADDED
                yield m, name, "CPU us added a command", added, "" if met is None else f"at most {ADDED:.0f}", met


def show(recs, subject, metrics):
    print("\nwhat watching costs (everything on one CPU; medians of what stands beside each other in a repetition)\n")
    found = list(rows(recs, subject, metrics))
    words = {True: "ok", False: "SHORT", None: "-"}
    for m, name, what, figure, bound, met in found:
        print(f"{m:10} {name:18} {what:24} {bench.fmt(figure):>7}  {bound:13} {words[met]}")
    print("\n.. list-table::\n   :header-rows: 1\n")
    for row in [
        ("Metric", "Gate", "Figure", "Measured", "Target", "Met"),
        *(
            (f"``{m}``", name, what, bench.fmt(figure), bound, {True: "yes", False: "no", None: ""}[met])
            for m, name, what, figure, bound, met in found
        ),
    ]:
        print("\n".join(f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row)))
    return 0 if found and all(row[-1] is not False for row in found) else 1


if __name__ == "__main__":
    targets.main(__doc__, "imapgate-audit", PEERS, METRICS, show)
