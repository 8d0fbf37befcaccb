#!/usr/bin/env python3
"""Start the gate, its backend and the peers, measure the speed targets in one run, say which are met.

  targets.py [--subject NAME] [--targets direct,tw-bytes,nginx,...] [--metrics noop1,...] [--reps N]
             [--max-foreign SHARE] [--retries N] [--out NAME] [--no-stop] [--report FILE.jsonl ...]

Always with everything on one CPU (--pin) and the default reactor. What this started it stops
again; what already ran stays. The end of the output is a table for docs/performance.rst.
The exit status is 0 when every selected target is met.
"""

import argparse
import glob
import sys
from typing import NamedTuple

import bench
import stack


class Bound(NamedTuple):
    """One target: the subject's figure, divided by the reference's, against a bound."""

    metric: str
    figure: str  # a key of a record: "proxy_cpu_per" (lower is better) or "rate"
    reference: str
    bound: float

    @property
    def text(self):
        unit = {"k": "1,000 commands", "GBin": "GB", "GBout": "GB"}[bench.METRICS[self.metric][2]]
        return f"CPU s per {unit}" if self.figure == "proxy_cpu_per" else bench.METRICS[self.metric][1]


BOUNDS = [
    Bound("noop1", "proxy_cpu_per", "tw-bytes", 1.7),
    Bound("uidfetch1", "proxy_cpu_per", "tw-bytes", 1.7),
    Bound("fetchbig", "proxy_cpu_per", "tw-bytes", 1.2),
    Bound("appendsync", "proxy_cpu_per", "tw-bytes", 1.3),
    Bound("fetchmany", "proxy_cpu_per", "tw-bytes", 1.7),
    Bound("fetchbig", "rate", "nginx", 1.0),
]


class Verdict(NamedTuple):
    bound: Bound
    mine: float  # medians over the repetitions
    theirs: float
    ratio: float  # median of the ratios within a repetition
    low: float  # least and greatest of these ratios
    high: float
    errors: int
    runs: int

    @property
    def ok(self):
        if not self.runs or self.errors:
            return False
        return (
            self.ratio <= self.bound.bound if self.bound.figure == "proxy_cpu_per" else self.ratio >= self.bound.bound
        )


def verdicts(recs, subject="imapgate", metrics=None):
    """What the records say about each bound whose metric is selected."""
    out = []
    for b in BOUNDS:
        if metrics and b.metric not in metrics:
            continue
        mine, theirs = (
            {(r["run"], r["rep"]): r for r in recs if r["metric"] == b.metric and r["target"] == n and r.get(b.figure)}
            for n in (subject, b.reference)
        )
        both = [k for k in mine if k in theirs]
        ratios = [mine[k][b.figure] / theirs[k][b.figure] for k in both]
        failed = sum(
            r["errors"] + r["stuck"] + ("setup_error" in r)
            for r in recs
            if r["metric"] == b.metric and r["target"] == subject
        )
        out.append(
            Verdict(
                b,
                bench.med([mine[k][b.figure] for k in both]),
                bench.med([theirs[k][b.figure] for k in both]),
                bench.med(ratios),
                min(ratios, default=float("nan")),
                max(ratios, default=float("nan")),
                failed,
                len(both),
            )
        )
    return out


def verdict_text(v):
    sign = "at most" if v.bound.figure == "proxy_cpu_per" else "at least"
    word = "ok" if v.ok else "not measured" if not v.runs else f"{v.errors} errors" if v.errors else "SHORT"
    return f"{sign} {v.bound.bound:.1f}", word


def rst(found, subject):
    """A list-table for docs/performance.rst."""
    head = ("Metric", "Figure", subject, "Reference", "Ratio (least to greatest)", "Target", "Met")
    rows = [head]
    for v in found:
        bound, word = verdict_text(v)
        rows.append(
            (
                f"``{v.bound.metric}``",
                v.bound.text,
                bench.fmt(v.mine),
                f"{v.bound.reference}: {bench.fmt(v.theirs)}",
                f"{v.ratio:.2f} ({v.low:.2f} to {v.high:.2f})",
                bound,
                "yes" if word == "ok" else word,
            )
        )
    out = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        out += [("   * - " if i == 0 else "     - ") + cell for i, cell in enumerate(row)]
    return "\n".join(out)


def show(recs, subject="imapgate", metrics=None):
    """Print the verdicts and the table; 0 when every one is ok, else 1."""
    found = verdicts(recs, subject, metrics)
    print("\ntargets (everything on one CPU, medians; the ratio is the median of the ratios within a repetition)\n")
    for v in found:
        bound, word = verdict_text(v)
        print(
            f"{v.bound.metric:11} {v.bound.text:24} {subject} {bench.fmt(v.mine):>7}  {v.bound.reference:8} {bench.fmt(v.theirs):>7}  "
            f"ratio {v.ratio:5.2f} ({v.low:.2f}-{v.high:.2f}, {v.runs} runs)  {bound:12}  {word}"
        )
    print("\n" + rst(found, subject) + "\n")
    return 0 if found and all(v.ok for v in found) else 1


def main(doc=__doc__, subject="imapgate", targets="direct,tw-bytes,nginx", metrics=None, show=show):
    """Start what is needed, measure, stop it again, and judge by show(records, subject, metrics)."""
    ap = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--subject", default=subject)
    ap.add_argument("--targets", default=targets, help="peers to measure beside the subject")
    ap.add_argument("--metrics", default=metrics or ",".join(dict.fromkeys(b.metric for b in BOUNDS)))
    ap.add_argument("--no-stop", action="store_true", help="leave what was started running")
    ap.add_argument("--report", nargs="+", help="judge the records of earlier runs")
    bench.options(ap)
    o = ap.parse_args()
    chosen = [m for m in o.metrics.split(",") if m]
    if o.report:
        sys.exit(show(bench.load([f for g in o.report for f in sorted(glob.glob(g))]), o.subject, chosen))
    o.pin = True
    stack.alone()
    names = list(dict.fromkeys(["direct", o.subject, *(n for n in o.targets.split(",") if n)]))
    started = [n for n in names if not stack.pids(n)]
    try:
        stack.prepare()
        for n in started:
            stack.start(n)
        path = bench.results(o)
        recs = bench.measure(
            [bench.Target(n) for n in names if n in o.targets.split(",") or n == o.subject], chosen, o, path
        )
    finally:
        if not o.no_stop:
            for n in reversed(started):
                stack.stop(n)
    text = bench.report(recs, o.subject)
    with open(path.replace(".jsonl", ".md"), "w") as f:
        f.write(text + "\n")
    print(text)
    code = show(recs, o.subject, chosen)
    print(f"records: {path}")
    sys.exit(code)


if __name__ == "__main__":
    main()
