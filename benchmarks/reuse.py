#!/usr/bin/env python3
"""Sessions that are given an earlier one's upstream connection: measure the targets in one run, say which are met.

  reuse.py [--subject NAME] [--targets direct,nginx,imapproxy,tw-pool,...] [--metrics session1q,session8q,session50]
           [--reps N] [--max-foreign SHARE] [--retries N] [--out NAME] [--no-stop] [--report FILE.jsonl ...]

Everything on one CPU.  The subject is the gate with credential_cache = "60s" (imapgate-pool); imapgate-pool-log is
the same with its log line for each session.  What this started it stops again.  Exit status 0: every target is met.
"""

import bench
import targets

METRICS = "session1q,session8q,session50"
PEERS = "direct,imapgate-pool-log,nginx,imapproxy,tw-pool"
FASTER = {"session1q": 1.15, "session8q": 1.30, "session50": 1.15}


def med(values):
    return bench.med(list(values))


def rows(recs, subject, metrics):
    """(metric, what, figure, bound, met) for each target."""
    for m in metrics:
        by = {
            n: {(r["run"], r["rep"]): r for r in recs if r["metric"] == m and r["target"] == n and r.get("count")}
            for n in (subject, "direct")
        }
        mine, bare = by[subject], by["direct"]
        both = [k for k in mine if k in bare]
        if not both:
            continue
        of = mine.values()
        rate = med(mine[k]["rate"] / bare[k]["rate"] for k in both)
        backend = med(mine[k]["backend_cpu_per"] / bare[k]["backend_cpu_per"] for k in both)
        logins = med(r["logins"] / r["count"] for r in of)
        own = med(r["proxy_cpu_per"] for r in of)
        failed = sum(r["errors"] + r["stuck"] for r in of)
        again = sum(r["retries"] for r in of)
        yield m, "sessions/s, to direct's", rate, f"at least {FASTER[m]:.2f}", rate >= FASTER[m]
        yield m, "proxy CPU s per 1,000", own, "at most 0.45", own <= 0.45
        yield m, "backend CPU, to direct's", backend, "at most 0.35", backend <= 0.35
        yield m, "backend logins per session", logins, "at most 0.02", logins <= 0.02
        yield m, "reconnects and errors", again + failed, "none", again + failed == 0


def show(recs, subject, metrics):
    print(
        f"\ntargets of {subject} (everything on one CPU, medians; a ratio is the median of those within a repetition)\n"
    )
    found = list(rows(recs, subject, metrics))
    for m, what, figure, bound, met in found:
        print(f"{m:10} {what:27} {bench.fmt(figure):>7}  {bound:14} {'ok' if met else 'SHORT'}")
    print("\n.. list-table::\n   :header-rows: 1\n")
    for row in [
        ("Metric", "Figure", subject, "Target", "Met"),
        *(
            (f"``{m}``", what, bench.fmt(figure), bound, "yes" if met else "no")
            for m, what, figure, bound, met in found
        ),
    ]:
        print("\n".join(f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row)))
    return 0 if found and all(row[-1] for row in found) else 1


if __name__ == "__main__":
    targets.main(__doc__, "imapgate-pool", PEERS, METRICS, show)
