#!/usr/bin/env python3
"""Measure IMAP proxies side by side, interleaved, against the same backend.

  bench.py [--target NAME=HOST:PORT[,tls=PORT][,pid=PID|,pidfile=PATH]] ...
           [--targets a,b,...] [--metrics m,...] [--reps N] [--tls] [--out NAME]
           [--pin] [--max-foreign SHARE] [--retries N]
           [--report FILE.jsonl ...] [--subject NAME] [--check]

The backend and every listed peer must be running (stack.py start). A --target is
measured besides the listed peers; give its pid so that CPU and memory are counted.
Each repetition runs every target on one metric before the next metric, in rotated
order; ratios are taken within a repetition and the median of those is reported.
--check adds the project's speed targets (targets.py), needs imapgate, tw-bytes and nginx.
"""

import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import threading
import time

import stack

HERE = os.path.dirname(os.path.abspath(__file__))
LOADER = os.path.join(stack.ROOT, "imapload")
RESULTS = os.environ.get("BENCH_RESULTS", os.path.join(stack.ROOT, "results"))
LOGFILE = os.path.join(stack.ROOT, "direct", "info.log")
TICK = os.sysconf("SC_CLK_TCK")
SMALL = "UID FETCH 5 (UID FLAGS RFC822.SIZE)"

# name: (loader arguments, unit of the rate, what the CPU is divided by, pin all to one CPU)
# Pinned metrics put loader, proxy and backend on CPU 0: no cross-CPU wake-ups, which are
# slow and erratic in a virtual machine, so the spread is much smaller.
METRICS = {
    "session1": ("session -c 1 -U 50 -W 50 -T 1.5", "sessions/s", "k", True),
    "session1q": ("session -Q -c 1 -U 50 -W 50 -T 1.5", "sessions/s", "k", True),
    "session8q": ("session -Q -c 8 -U 200 -W 200 -T 2", "sessions/s", "k", False),
    "session50": ("session -c 50 -U 200 -W 200 -T 2.5", "sessions/s", "k", False),
    "noop1": ("cmd -c 1 -T 1.2 -C NOOP", "commands/s", "k", True),
    "uidfetch1": (["cmd", "-c", "1", "-T", "1.2", "-C", SMALL], "commands/s", "k", True),
    "noop50": ("cmd -c 50 -U 50 -b 4 -T 2 -C NOOP", "commands/s", "k", False),
    "uidfetch50": (["cmd", "-c", "50", "-U", "50", "-b", "4", "-T", "2", "-C", SMALL], "commands/s", "k", False),
    "fetchbig": (["cmd", "-u", "big", "-n", "12", "-T", "3", "-C", "UID FETCH 1 BODY.PEEK[]"], "MB/s", "GBin", False),
    "fetchmany": (
        ["cmd", "-u", "many", "-n", "8", "-T", "3", "-C", "FETCH 1:* (UID FLAGS ENVELOPE)"],
        "MB/s",
        "GBin",
        False,
    ),
    "appendsync": ("append -u app -n 12 -T 3 -s 25000000 -L sync", "MB/s", "GBout", False),
    "appendplus": ("append -u app -n 12 -T 3 -s 25000000 -L plus", "MB/s", "GBout", False),
    "idle": ("idle -c {idle} -U 200 -b 4", "sessions", None, False),
}
DEFAULT = [m for m in METRICS if m != "idle"]
ALLCPUS = os.sched_getaffinity(0)
PINNED = {int(os.environ.get("BENCH_CPU", min(ALLCPUS)))}


class Target:
    def __init__(self, name, host="127.0.0.1", port=None, tls=None, pid=None, pidfile=None):
        self.name, self.host, self.port, self.tls, self.pid, self.pidfile = name, host, port, tls, pid, pidfile
        self.managed = port is None
        if self.managed:
            self.port, self.tls = stack.PORTS[name]

    def roots(self):
        if self.pid:
            return [int(self.pid)]
        if self.pidfile:
            return [int(open(self.pidfile).read().split()[0])]
        return stack.pids(self.name) if self.managed else []


def cpu(roots):
    """CPU seconds of the trees: live processes, their ended threads and waited children.

    stat counts ended threads but drops up to 10 ms per process, which adds up over
    50 processes; schedstat counts nanoseconds but only of live threads. Take the larger.
    """
    total = 0.0
    for p in stack.tree(roots):
        try:
            with open(f"/proc/{p}/stat") as f:
                s = f.read()
            v = list(map(int, s[s.rindex(")") + 2 :].split()[11:15]))
            ns = 0
            for t in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{t}/schedstat") as f:
                    ns += int(f.read().split()[0])
        except OSError:
            continue
        total += max((v[0] + v[1]) / TICK, ns / 1e9) + (v[2] + v[3]) / TICK
    return total


def memory(roots):
    """(processes, RSS, PSS) in kB over the whole tree."""
    n = rss = pss = 0
    for p in stack.tree(roots):
        try:
            with open(f"/proc/{p}/smaps_rollup") as f:
                v = {a[0]: int(a[1]) for a in (line.split() for line in f) if a[0] in ("Rss:", "Pss:")}
        except (OSError, ValueError):
            continue
        n, rss, pss = n + 1, rss + v.get("Rss:", 0), pss + v.get("Pss:", 0)
    return n, rss, pss


def autogroup(pid, nice):
    """The kernel weighs whole terminal sessions first, where it groups them, and only then their processes."""
    try:
        with open(f"/proc/{pid}/autogroup", "w") as f:
            f.write(str(nice))
    except OSError:
        pass


def pin(targets, cpus, nice=0):
    """Set the CPU affinity and the priority of every thread of the backend and the targets."""
    roots = [r for t in targets for r in t.roots()] + stack.pids("direct")
    for p in [*roots, os.getpid()]:
        autogroup(p, nice)
    for p in stack.tree(roots):
        try:
            for t in os.listdir(f"/proc/{p}/task"):
                os.sched_setaffinity(int(t), cpus)
                os.setpriority(os.PRIO_PROCESS, int(t), nice)
        except OSError:
            pass


def busy():
    """CPU seconds used by the whole machine, steal included."""
    with open("/proc/stat") as f:
        v = list(map(int, f.readline().split()[1:9]))
    return (sum(v) - v[3] - v[4]) / TICK


class LoginCounter:
    """Counts Login lines since the last call, reading only what is new."""

    def __init__(self):
        self.pos = os.path.getsize(LOGFILE)

    def delta(self):
        time.sleep(0.1)
        with open(LOGFILE, "rb") as f:
            f.seek(self.pos)
            data = f.read()
        end = data.rfind(b"\n") + 1
        self.pos += end
        return data[:end].count(b": Login: user=")


def backend_conns():
    """Established TCP connections whose local port is the backend's.

    The kernel may list one twice where others come and go meanwhile.
    """
    want = {f":{stack.BACKEND:04X}", f":{stack.BACKEND_TLS:04X}"}
    with open("/proc/net/tcp") as f:
        return len({(a[1], a[2]) for line in f if (a := line.split())[3] == "01" and a[1][8:] in want})


class Loader:
    def __init__(self, args, target, tls, cpus, nice=0, seconds=180):
        cmd = [LOADER, args[0], "-h", target.host, "-p", str(target.tls if tls else target.port)]
        cmd += (["-S"] if tls else []) + args[1:]
        self.p = subprocess.Popen(
            cmd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: (os.sched_setaffinity(0, cpus), os.setpriority(os.PRIO_PROCESS, 0, nice)),
        )
        self.timer = threading.Timer(seconds, self.p.kill)
        self.timer.start()

    def line(self):
        s = self.p.stdout.readline()
        if not s:
            raise RuntimeError("loader died")
        return s

    def go(self):
        self.p.stdin.write("go\n")
        self.p.stdin.flush()

    def close(self):
        self.p.stdin.close()
        try:
            self.p.wait(30)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
        self.timer.cancel()


def run_one(metric, target, tls, rep, opts, counter):
    spec, unit, per, pinned = METRICS[metric]
    cpus = PINNED if pinned or opts.pin else ALLCPUS
    args = spec.format(idle=opts.idle).split() if isinstance(spec, str) else list(spec)
    if metric == "idle" and target.managed and target.name != "direct":
        stack.stop(target.name)
        stack.start(target.name)
        time.sleep(0.5)
    roots, back = target.roots(), stack.pids("direct")
    rec = {
        "metric": metric + ("+tls" if tls else ""),
        "target": target.name,
        "rep": rep,
        "unit": unit,
        "time": round(time.time(), 1),
    }
    if metric == "idle":
        rec["mem0"] = memory(roots)
        rec["conns0"] = backend_conns()
    counter.delta()
    ld = Loader(args, target, tls, cpus, opts.nice)
    try:
        ready = ld.line().split(None, 4)
        rec["setup"] = ready[1:4]
        if int(ready[2]):
            rec["setup_error"] = ready[4:]
        rec["setup_logins"] = counter.delta()
        if metric == "idle":
            time.sleep(1)
            rec["mem1"], rec["conns1"] = memory(roots), backend_conns()
        c0, b0, all0, t0 = cpu(roots), cpu(back), busy(), time.monotonic()
        ld.go()
        res = json.loads(ld.line())
        all1, c1, b1, t1 = busy(), cpu(roots), cpu(back), time.monotonic()
        if metric == "idle":
            time.sleep(1)
            rec["mem2"], rec["conns2"] = memory(roots), backend_conns()
            a = cpu(roots)
            time.sleep(5)
            rec["idle_cpu_5s"] = cpu(roots) - a
        ld.go()
        done = ld.line().split(None, 3)
        rec["done"] = done[1:]
    finally:
        ld.close()
        if metric == "idle":  # thousands of idle imap processes would slow every later login
            stack.stop("direct")
            stack.start("direct")
    rec.update(res)
    rec["logins"] = counter.delta()
    div = {"k": res["count"] / 1000, "GBin": res["bytes_in"] / 1e9, "GBout": res["bytes_out"] / 1e9}.get(per)
    rec["proxy_cpu"], rec["backend_cpu"] = round(c1 - c0, 3), round(b1 - b0, 3)
    rec["has_cpu"] = bool(roots)
    own = b1 - b0 + res["load_cpu"] + (c1 - c0 if target.name != "direct" else 0)
    rec["foreign"] = round(max(0, all1 - all0 - own) / (t1 - t0) / len(ALLCPUS), 3)
    if div:
        rec["proxy_cpu_per"], rec["backend_cpu_per"] = (c1 - c0) / div, (b1 - b0) / div
    if unit == "MB/s":
        rec["rate"] = (res["bytes_in"] if per == "GBin" else res["bytes_out"]) / 1e6 / max(res["elapsed"], 1e-6)
    return rec


def med(v):
    return statistics.median(v) if v else float("nan")


def fmt(x):
    if x != x:
        return "-"
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}" if abs(x) >= 0.1 else f"{x:.3f}"


def report(recs, subject=None):
    out = []
    names = list(dict.fromkeys(r["target"] for r in recs))
    metrics = [m + t for t in ("", "+tls") for m in METRICS]
    for m in metrics:
        rows = [r for r in recs if r["metric"] == m]
        if not rows:
            continue
        by = {n: {(r["run"], r["rep"]): r for r in rows if r["target"] == n} for n in names}
        by = {n: v for n, v in by.items() if v}
        if m.startswith("idle"):
            out.append(
                f"\n### {m}\n\n| target | sessions | procs | RSS MB | PSS MB | PSS kB/conn logged in | PSS kB/conn IDLE | backend conns logged in / IDLE | backend logins | CPU s in 5 s idle | errors |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
            )
            for n, v in by.items():
                r = list(v.values())
                k = [x["count"] or 1 for x in r]
                out.append(
                    "| "
                    + " | ".join(
                        [
                            n,
                            fmt(med([x["count"] for x in r])),
                            fmt(med([x["mem2"][0] for x in r])),
                            fmt(med([x["mem2"][1] / 1024 for x in r])),
                            fmt(med([x["mem2"][2] / 1024 for x in r])),
                            fmt(med([(x["mem1"][2] - x["mem0"][2]) / c for x, c in zip(r, k)])),
                            fmt(med([(x["mem2"][2] - x["mem0"][2]) / c for x, c in zip(r, k)])),
                            f"{fmt(med([x['conns1'] - x['conns0'] for x in r]))} / {fmt(med([x['conns2'] - x['conns0'] for x in r]))}",
                            fmt(med([x["setup_logins"] + x["logins"] for x in r])),
                            fmt(med([x["idle_cpu_5s"] for x in r])),
                            str(sum(x["errors"] + x["stuck"] + ("setup_error" in x) for x in r)),
                        ]
                    )
                    + " |"
                )
            continue
        r0 = rows[0]
        per = {"k": "1,000", "GBin": "GB", "GBout": "GB"}[METRICS[m.removesuffix("+tls")][2]]
        out.append(
            f"\n### {m} ({r0['unit']})\n\n| target | median | min | max | ratio to direct | p50 us | p99 us | proxy CPU s per {per} | backend CPU s per {per} | backend logins per session | load CPU share | foreign CPU share | reconnects | errors |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
        )
        for n, v in by.items():
            r = list(v.values())
            ratio = [
                x["rate"] / by["direct"][k]["rate"]
                for k, x in v.items()
                if k in by.get("direct", {}) and by["direct"][k]["rate"]
            ]
            lg = [x["logins"] / x["count"] for x in r if x["count"]] if m.startswith("session") else []
            own = [x["proxy_cpu_per"] for x in r if x["has_cpu"] and "proxy_cpu_per" in x] if n != "direct" else []
            out.append(
                "| "
                + " | ".join(
                    [
                        n,
                        fmt(med([x["rate"] for x in r])),
                        fmt(min(x["rate"] for x in r)),
                        fmt(max(x["rate"] for x in r)),
                        fmt(med(ratio)),
                        fmt(med([x["p50_us"] for x in r])),
                        fmt(med([x["p99_us"] for x in r])),
                        fmt(med(own)),
                        fmt(med([x["backend_cpu_per"] for x in r if "backend_cpu_per" in x])),
                        fmt(med(lg)),
                        fmt(med([x["load_cpu"] / x["elapsed"] for x in r])),
                        fmt(med([x["foreign"] for x in r if "foreign" in x])),
                        str(sum(x["retries"] for x in r)),
                        str(sum(x["errors"] + x["stuck"] + ("setup_error" in x) for x in r)),
                    ]
                )
                + " |"
            )
    if subject:
        out.append(
            f"\n### {subject} against each (ratio of rates, >1: {subject} faster; in brackets ratio of proxy CPU, <1: {subject} cheaper)\n"
        )
        others = [n for n in names if n != subject]
        out.append("| metric | " + " | ".join(others) + " |\n|---|" + "--:|" * len(others))
        for m in metrics:
            mine = {(r["run"], r["rep"]): r for r in recs if r["metric"] == m and r["target"] == subject}
            if not mine or m.startswith("idle"):
                continue
            cells = []
            for n in others:
                his = {(r["run"], r["rep"]): r for r in recs if r["metric"] == m and r["target"] == n}
                both = [k for k in mine if k in his and his[k]["rate"]]
                a = med([mine[k]["rate"] / his[k]["rate"] for k in both])
                c = [
                    mine[k]["proxy_cpu_per"] / his[k]["proxy_cpu_per"]
                    for k in both
                    if n != "direct" and mine[k].get("proxy_cpu_per") and his[k].get("proxy_cpu_per")
                ]
                cells.append(fmt(a) + (f" ({fmt(med(c))})" if c else ""))
            out.append(f"| {m} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def load(files):
    recs = []
    for f in files:
        for line in open(f):
            r = json.loads(line)
            r["run"] = os.path.basename(f)
            recs.append(r)
    return recs


def compile_loader():
    src = os.path.join(HERE, "imapload.c")
    if not os.path.exists(LOADER) or os.path.getmtime(LOADER) < os.path.getmtime(src):
        subprocess.run(["cc", "-O2", "-Wall", "-o", LOADER, src, "-lssl", "-lcrypto"], check=True)


def line(rep, r):
    return (
        f"rep {rep} {r['metric']:11} {r['target']:12} {r['rate']:10.1f} {r['unit']:10} p50 {r['p50_us']:9.1f} p99 {r['p99_us']:9.1f} "
        f"foreign {r['foreign']:.2f} cpu {r['proxy_cpu']:.2f} backend {r['backend_cpu']:.2f} logins {r['logins']}"
        f"{' ERR ' + r['lasterr'] if r['errors'] or r['stuck'] else ''}{' SETUP ' + str(r['setup_error']) if 'setup_error' in r else ''}"
    )


def measure(targets, metrics, o, path):
    """Run every target on every metric o.reps times; write the records to path and return them."""
    compile_loader()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    counter = LoginCounter()
    with open(path, "w") as f:
        for rep in range(o.reps):
            for m in metrics:
                k = rep % len(targets)
                pin(targets, PINNED if METRICS[m][3] or o.pin else ALLCPUS, o.nice)
                for t in targets[k:] + targets[:k]:
                    r = None
                    for _ in range(1 if m == "idle" else 1 + o.retries):
                        try:
                            again = run_one(m, t, o.tls, rep, o, counter)
                        except Exception as e:
                            print(f"rep {rep} {m} {t.name}: FAILED {e!r}", file=sys.stderr)
                            continue
                        if r is None or again["foreign"] < r["foreign"]:
                            r = again
                        if r["foreign"] <= o.max_foreign:
                            break
                    if r is None:
                        continue
                    f.write(json.dumps(r) + "\n")
                    f.flush()
                    print(line(rep, r), flush=True)
    if o.nice:
        pin(targets, ALLCPUS)
    return load([path])


def given(text):
    """The Target of a --target option."""
    name, _, where = text.partition("=")
    addr, *kv = where.split(",")
    host, _, port = addr.rpartition(":")
    kv = dict(x.split("=", 1) for x in kv)
    return Target(
        name, host or "127.0.0.1", int(port), int(kv["tls"]) if "tls" in kv else None, kv.get("pid"), kv.get("pidfile")
    )


def options(ap):
    """The options that measure() reads; targets.py has them too."""
    ap.add_argument("--reps", type=int, default=5)
    ap.add_argument("--pin", action="store_true", help="pin loader, proxy and backend to one CPU in every metric")
    ap.add_argument("--idle", type=int, default=2000)
    ap.add_argument("--tls", action="store_true")
    ap.add_argument("--out")
    ap.add_argument(
        "--max-foreign",
        type=float,
        default=0.12,
        help="repeat a run when other processes took more than this share of the machine",
    )
    ap.add_argument("--retries", type=int, default=2)
    ap.add_argument(
        "--nice",
        type=int,
        default=0,
        help="priority of loader, proxy and backend, such as -19 (root) where the machine is not idle",
    )


def results(o):
    """Where the records of this run go."""
    return os.path.join(RESULTS, (o.out or time.strftime("%Y%m%d-%H%M%S") + ("-tls" if o.tls else "")) + ".jsonl")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--target", action="append", default=[])
    ap.add_argument("--targets", default=",".join(stack.PORTS))
    ap.add_argument("--metrics", default=",".join(DEFAULT))
    options(ap)
    ap.add_argument("--report", nargs="+")
    ap.add_argument("--subject")
    ap.add_argument("--check", action="store_true")
    o = ap.parse_args()
    if o.report:
        recs = load([f for g in o.report for f in sorted(glob.glob(g))])
    else:
        targets = [Target(n) for n in o.targets.split(",") if n] + [given(t) for t in o.target]
        o.subject = o.subject or (o.target[0].partition("=")[0] if o.target else None)
        if o.tls:
            targets = [t for t in targets if t.tls]
        path = results(o)
        stack.alone()
        recs = measure(targets, [m for m in o.metrics.split(",") if m], o, path)
    text = report(recs, o.subject)
    if not o.report:
        with open(path.replace(".jsonl", ".md"), "w") as f:
            f.write(text + "\n")
    print(text)
    if o.check:
        import targets as checks

        sys.exit(checks.show(recs))


if __name__ == "__main__":
    main()
