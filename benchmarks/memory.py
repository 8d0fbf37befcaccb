#!/usr/bin/env python3
"""Memory of a running gate: stalled readers, announced literals, idle connections.

  memory.py [stalled_readers] [announcements] [idle_connection] [--count N]

Each function starts a scripted upstream (scripted.py) and a gate of its own, both as subprocesses
on 127.0.0.1, and ends them; tests import these functions:

  stalled_readers(count=500)    octets the gate grew by, at its peak, with so many clients that
                                asked for a 50 MB message and read nothing of it (at most 150 MiB)
  announcements(count=1000)     the same for so many literals of 999,999,999 octets announced, of
                                every form, before and after login (at most 64 MiB)
  idle_connection(count=1000)   octets of the gate per idle logged-in plain connection (at most 12 KiB)

The gate runs in the environment of the interpreter that runs this.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20
BODY = b"x" * (256 << 10)
HUGE = 999_999_999
BOUNDS = {"stalled_readers": 150 * MIB, "announcements": 64 * MIB, "idle_connection": 12 << 10}

# twistd, able to collect its garbage when told, so that garbage is not taken for use.
TWISTD = """
import gc, os, signal, sys
def collect(*_):
    gc.collect()
    os.write(1, b"collected\\n")
signal.signal(signal.SIGUSR2, collect)
from twisted.scripts.twistd import run
run()
"""

CONFIG = """
[[listener]]
endpoint = "tcp:{port}:interface=127.0.0.1:backlog=4096"
tls = "none"

[upstream.scripted]
endpoints = ["tcp:127.0.0.1:{upstream}"]
pool_size = 1000000
tls = "none"

[auth]
mode = "pass"

[limits]
connections_per_address = 100000
connections_per_user_address = 100000
"""


def twistd(folder, port, upstream, config=CONFIG):
    """The command of a gate that listens on port and goes to upstream; config has places for both."""
    path = os.path.join(folder, "imapgate.toml")
    with open(path, "w") as f:
        f.write(config.format(port=port, upstream=upstream))
    return [sys.executable, "-c", TWISTD, "-n", "--pidfile=", f"--logfile={folder}/log", "imapgate", "--config", path]


COMMAND = twistd


def until(what, condition, seconds=60.0):
    """Wait for a condition; what says for which in the error."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Upstream:
    """The scripted upstream's process."""

    def __init__(self, size):
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "scripted.py"), str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.process.stdout.readline())

    def told(self):
        """What it holds and has sent."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stop(self):
        self.process.stdin.close()
        ended(self.process)
        self.process.stdout.close()


class Gate:
    """The gate's process, and what it uses."""

    def __init__(self, folder, upstream, command=None):
        self.port = free_port()
        self.log = os.path.join(folder, "log")
        self.process = subprocess.Popen(
            (command or COMMAND)(folder, self.port, upstream),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            until("the gate to listen", self.listens, 30)
        except BaseException:
            self.stop()
            if os.path.exists(self.log):
                with open(self.log) as f:
                    print(f.read()[-4000:], file=sys.stderr)
            raise

    def listens(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the gate ended with {self.process.returncode}")
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def collect(self):
        self.process.send_signal(signal.SIGUSR2)
        while self.process.stdout.readline() not in (b"collected\n", b""):
            pass

    def rss(self):
        """Resident octets, its garbage collected before."""
        self.collect()
        with open(f"/proc/{self.process.pid}/smaps_rollup") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("Rss:")) << 10

    def forget_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as f:
            f.write("5")

    def peak(self):
        """The most resident octets since forget_peak()."""
        with open(f"/proc/{self.process.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmHWM:")) << 10

    def stop(self):
        self.process.terminate()
        ended(self.process)
        self.process.stdout.close()


def ended(process):
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def running(size=1000):
    """A gate before a scripted upstream, the descriptors to use them, and a place for the client's sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="imapgate-memory-"))
        upstream = Upstream(size)
        stack.callback(upstream.stop)
        gate = Gate(folder, upstream.port)
        stack.callback(gate.stop)
        clients = stack.enter_context(contextlib.ExitStack())
        yield gate, upstream, clients


class Client:
    """A connection to the gate, blocking, its greeting read."""

    def __init__(self, gate, clients, receive=None):
        self.socket = clients.enter_context(socket.socket())
        if receive:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", gate.port))
        self.unread = b""
        self.line()

    def line(self):
        while b"\n" not in self.unread:
            data = self.socket.recv(4096)
            if not data:
                raise ConnectionError(f"the gate closed after {self.unread!r}")
            self.unread += data
        line, _, self.unread = self.unread.partition(b"\n")
        return line + b"\n"

    def run(self, command):
        """Send a command with tag t; its tagged line."""
        self.socket.sendall(b"t " + command + b"\r\n")
        while not (line := self.line()).startswith(b"t "):
            pass
        return line

    def log_in(self, select=True):
        for command in (b"LOGIN user pw", b"SELECT INBOX")[: 1 + select]:
            answer = self.run(command)
            if not answer.startswith(b"t OK"):
                raise RuntimeError(f"{command!r} got {answer!r}")
        return self


def warm_up(gate, count=20):
    """What the first sessions leave behind for good is no growth."""
    with contextlib.ExitStack() as clients:
        for _ in range(count):
            Client(gate, clients).log_in().run(b"NOOP")


def stalled_readers(count=500, size=50_000_000):
    """Growth in octets, at its peak, with count clients that ask for a message and read nothing of it."""
    with running(size) as (gate, upstream, clients):
        warm_up(gate)
        readers = [Client(gate, clients, receive=4096).log_in() for _ in range(count)]
        gate.forget_peak()
        before = gate.rss()
        for reader in readers:
            reader.socket.sendall(b"f UID FETCH 1 BODY.PEEK[]\r\n")
        # All asked and nothing flows any more: the figure has stood still for ten looks of 0.1 s.
        still, last = 0, -1
        end = time.monotonic() + 120
        while still < 10:
            sent = upstream.told()["sent"]
            still = still + 1 if sent == last and sent >= count * 32768 else 0
            last = sent
            if time.monotonic() > end:
                raise TimeoutError(f"still flowing, or not begun, after 120 s: {sent} octets")
            time.sleep(0.1)
        if last >= count * size:
            raise RuntimeError("nobody was stalled: everything was sent")
        return gate.peak() - before


# (logged in, the command before the announcement)
ANNOUNCEMENTS = [
    (False, b"LOGIN "),
    (False, b"LOGIN user "),
    (False, b"ID ("),
    (False, b"APPEND INBOX "),
    (False, b"XBAD "),
    (False, b"NOOP "),
    (True, b"APPEND INBOX "),
    (True, b"APPEND INBOX (\\Seen) "),
    (True, b"APPEND "),
    (True, b"APPEND INBOX ~"),
    (True, b"SELECT "),
    (True, b"STATUS "),
    (True, b'LIST "" '),
    (True, b"UID SEARCH BODY "),
    (True, b"UID COPY 1 "),
    (True, b"RENAME INBOX "),
    (True, b"SETMETADATA INBOX (/private/comment "),
    (True, b"XBAD "),
    (True, b"NOOP "),
    (True, b"UID FETCH 1 BODY.PEEK["),
]


def announcements(count=1000):
    """Growth in octets, at its peak, with count literals of 999,999,999 octets announced, half of them with LITERAL+."""
    with running() as (gate, _upstream, clients):
        warm_up(gate)
        gate.forget_peak()
        before = gate.rss()
        for i in range(count):
            logged_in, start = ANNOUNCEMENTS[i // 2 % len(ANNOUNCEMENTS)]
            client = Client(gate, clients)
            if logged_in:
                client.log_in(select=not start.startswith(b"APPEND"))
            if i % 2:
                with contextlib.suppress(ConnectionError):  # it may close in the middle
                    client.socket.sendall(b"t %b{%d+}\r\n" % (start, HUGE) + BODY)
            else:
                answer = client.run(b"%b{%d}" % (start, HUGE))
                if not answer.startswith((b"t NO", b"t BAD")):
                    raise RuntimeError(f"{start!r} got {answer!r}")
        Client(gate, clients).log_in().run(b"NOOP")  # what came before has been read
        return gate.peak() - before


def idle_connection(count=1000, warm=200):
    """Octets of the gate for each of count idle logged-in plain connections, beyond the first warm ones."""
    with running() as (gate, upstream, clients):
        for _ in range(warm):
            Client(gate, clients).log_in()
        before = gate.rss()
        for _ in range(count):
            Client(gate, clients).log_in()
        if (held := upstream.told()["open"]) < warm + count:
            raise RuntimeError(f"only {held} connections upstream")
        return (gate.rss() - before) / count


FIGURES = {f.__name__: f for f in (stalled_readers, announcements, idle_connection)}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("figures", nargs="*", metavar="FIGURE")
    ap.add_argument("--count", type=int)
    o = ap.parse_args()
    if unknown := set(o.figures) - set(FIGURES):
        ap.error(f"no such figure: {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    short = 0
    for name in o.figures or FIGURES:
        value = FIGURES[name](**({"count": o.count} if o.count else {}))
        unit, size = ("KiB", 1024) if name == "idle_connection" else ("MiB", MIB)
        ok = value <= BOUNDS[name]
        short += not ok
        print(
            f"{name:16} {value / size:7.1f} {unit}, at most {BOUNDS[name] // size}: {'ok' if ok else 'SHORT'}",
            flush=True,
        )
    sys.exit(short > 0)


if __name__ == "__main__":
    main()
