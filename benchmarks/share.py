#!/usr/bin/env python3
"""Shared mailboxes: what idling clients, new mail, re-attaching and a webmail cost; say which bounds are met.

  share.py [--part idle,newmail,attach,webmail] [--modes session,share,poll,...] [--servers dovecot,cyrus,courier]
           [--clients N] [--users N] [--settle SECONDS] [--deliveries N] [--messages N] [--rounds N] [--reps N]
           [--max-foreign SHARE] [--retries N] [--out NAME] [--report FILE.json ...]

idle     clients in IDLE, directly and behind a gate in each mode: what the backend holds, and what the gate
newmail  how much later than a direct IDLE client one behind a gate learns of a message
attach   SELECT of a large mailbox: directly, by a first session, by a second one; and the NOOP of a parked session
webmail  the pattern session50 of bench.py: rates, CPU, and every command that the backend is asked, counted

Modes: those of bed.py; what was not chosen by --modes is each part's own list.  Each part starts a backend and gates
of its own, and stops them.  The end of the output is tables for docs/pooling.rst.  Exit status 0: every bound that
was measured is met.
"""

import argparse
import os
import resource
import signal
import sys
import time
import traceback

import bench
import stack

from shared import attach, bed, idle, newmail, tables, webmail

PARTS = {"idle": idle, "newmail": newmail, "attach": attach, "webmail": webmail}


def names(text):
    return tuple(n for n in text.split(",") if n)


def measured(o):
    """Measure the chosen parts one after another; each one's figures are also kept in a file."""
    o.out = o.out or time.strftime("%Y%m%d-%H%M%S") + "-share"
    o.tls = False  # the loader speaks plainly; so does the gate to the backend
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ.setdefault("IMAPGATE_LOG_LEVEL", "warn")  # like the other proxies, no line for each session
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is stopped then, too
    stack.alone()
    stack.prepare()
    bench.compile_loader()
    for name in o.part:
        try:
            part = PARTS[name].measure(o)
        except Exception as error:  # the other parts are worth having
            traceback.print_exc()
            yield tables.Shown(
                name, ["Failed"], [[repr(error)]], [tables.Bound(f"{name}: measured to its end", None, 0)]
            )
            continue
        path = bench.results(o).replace(".jsonl", f"-{name}.json")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        tables.save(part, path)
        print(f"figures: {path}", flush=True)
        yield part


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--part", type=names, default=tuple(PARTS))
    ap.add_argument("--modes", type=names, default=())
    ap.add_argument("--servers", type=names, default=())
    ap.add_argument("--clients", type=int, default=2000)
    ap.add_argument("--users", type=int, default=stack.NUSERS)
    ap.add_argument("--settle", type=float, default=150.0, help="seconds for the backend's connections to become few")
    ap.add_argument("--deliveries", type=int, default=25)
    ap.add_argument("--messages", type=int, default=stack.MANY)
    ap.add_argument("--rounds", type=int, default=9)
    ap.add_argument("--sessions", type=int, default=1000, help="sessions whose commands are counted")
    ap.add_argument("--report", nargs="+", help="show the figures of earlier runs")
    bench.options(ap)
    ap.set_defaults(reps=3, pin=True)
    o = ap.parse_args()
    for what, given, known in (
        ("part", o.part, PARTS),
        ("mode", o.modes, bed.MODES),
        ("server", o.servers, bed.SERVERS),
    ):
        if unknown := set(given) - set(known):
            ap.error(f"no such {what}: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    sys.exit(not tables.show([tables.load(path) for path in o.report] if o.report else list(measured(o))))


if __name__ == "__main__":
    main()
