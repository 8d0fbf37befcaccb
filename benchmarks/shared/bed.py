"""What share.py measures with: gates in each mode, servers, and a client that can idle.

Everything is on 127.0.0.1, and what is started here is ended here, by its process id.
"""

import contextlib
import functools
import json
import os
import selectors
import socket
import sys
import tempfile
import time

import memory
import stack

WAIT = 60.0
"""Seconds that any one answer may take."""

CONFIG = """
[[listener]]
endpoint = "tcp:{{port}}:interface=127.0.0.1:backlog=4096"
tls = "none"

[upstream.backend]
endpoints = ["tcp:127.0.0.1:{{upstream}}"]
tls = "none"
{keys}

[auth]
mode = "pass"
credential_cache = "{cache}"

[limits]
connections_per_address = 100000
connections_per_user_address = 100000

[admin]
control = "control"
"""

# Each way to have upstream connections; what is not written is as it is by default.
MODES = {
    "session": {"pool_mode": "session"},
    "mailbox": {"pool_mode": "mailbox"},
    "relay": {"pool_mode": "shared", "idle": "relay"},
    "share": {"pool_mode": "shared", "idle": "share"},
    "poll": {"pool_mode": "shared", "idle": "poll"},
}
SHARING = ("relay", "share", "poll")
"""Those in which sessions of one user share connections, and one that says nothing is parked."""
SERVERS = ("dovecot", "cyrus", "courier")


@contextlib.contextmanager
def gate(mode, upstream, cache="0s", **more):
    """A gate in one of the MODES before this port; more: further keys of its [upstream.backend]."""
    keys = "\n".join(f"{k} = {json.dumps(v)}" for k, v in {**MODES[mode], **more}.items())
    command = functools.partial(memory.twistd, config=CONFIG.format(keys=keys, cache=cache))
    with tempfile.TemporaryDirectory(prefix=f"gate-{mode}-", dir=stack.ROOT) as folder:
        running = memory.Gate(folder, upstream, command)
        try:
            running.control = os.path.join(folder, "control")
            memory.until("the gate's control socket", lambda: os.path.exists(running.control))
            yield running
        finally:
            running.stop()
            with open(running.log) as f:
                if "Traceback" in (log := f.read()):
                    print(f"the gate in mode {mode} met an error:\n{log[-4000:]}", file=sys.stderr)


def asked(gate, command):
    """The rows with which a gate answers a command of "imapgate ctl"."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(WAIT)
        s.connect(gate.control)
        s.sendall(json.dumps({"command": command, "arguments": {}}).encode() + b"\n")
        said = [json.loads(line) for line in s.makefile("rb")]
    if "done" not in said[-1]:
        raise RuntimeError(f"ctl {command}: {said[-1]}")
    return [m["row"] for m in said if "row" in m]


def connections(gate):
    """The gate's upstream connections: (held by sessions, all)."""
    rows = asked(gate, "pools")
    return sum(r["leased"] for r in rows), sum(r["total"] for r in rows)


class Client:
    """One blocking IMAP connection, logged in.  It reads no literals: ask for nothing that has any."""

    def __init__(self, port, user, password="pw"):
        self.socket = socket.create_connection(("127.0.0.1", port), WAIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unread = b""
        self.tags = 0
        self.line()
        self.run(f"LOGIN {user} {password}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def receive(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"closed after {self.unread!r}")
        self.unread += data

    def lines(self):
        """The whole lines that have arrived."""
        *whole, self.unread = self.unread.split(b"\n")
        return [line.rstrip(b"\r") for line in whole]

    def line(self):
        while b"\n" not in self.unread:
            self.receive()
        line, _, self.unread = self.unread.partition(b"\n")
        return line.rstrip(b"\r")

    def send(self, command):
        self.tags += 1
        self.socket.sendall(f"x{self.tags} {command}\r\n".encode())

    def answer(self, what=""):
        """The untagged lines before the command's OK."""
        untagged = []
        while not (line := self.line()).startswith(b"x%d " % self.tags):
            untagged.append(line)
        if not line.startswith(b"x%d OK" % self.tags):
            raise RuntimeError(f"{what} got {line!r}")
        return untagged

    def run(self, command):
        self.send(command)
        return self.answer(command)

    def timed(self, command):
        """(seconds until its OK, the untagged lines)."""
        start = time.perf_counter()
        untagged = self.run(command)
        return time.perf_counter() - start, untagged

    def idle(self):
        self.send("IDLE")
        while not self.line().startswith(b"+"):
            pass

    def done(self):
        self.socket.sendall(b"DONE\r\n")
        self.answer("IDLE")

    def append(self, message):
        """Announce a message, wait for leave and send it; its answer is still to be read."""
        self.send(f"APPEND INBOX {{{len(message)}}}")
        while not self.line().startswith(b"+"):
            pass
        self.socket.sendall(message + b"\r\n")

    def expunge(self, messages="UID STORE 1:*"):
        self.run(f"{messages} +FLAGS.SILENT (\\Deleted)")
        self.run("EXPUNGE")


def exists(lines):
    """The last EXISTS of these lines, or None."""
    counts = [int(line.split()[1]) for line in lines if line.endswith(b" EXISTS")]
    return counts[-1] if counts else None


def heard(clients, count):
    """When each of these idling clients was told that there are count messages (time.perf_counter)."""
    when = {}
    end = time.perf_counter() + WAIT
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
        while len(when) < len(clients):
            if time.perf_counter() > end:
                raise TimeoutError(f"{len(clients) - len(when)} of {len(clients)} idling clients were not told")
            for key, _ in selector.select(1):
                key.data.receive()
                if (exists(key.data.lines()) or 0) >= count:
                    when.setdefault(key.data, time.perf_counter())
    return [when[client] for client in clients]


@contextlib.contextmanager
def backend():
    """The benchmark's own Dovecot, started anew; its port."""
    stack.stop("direct")
    stack.start("direct")
    try:
        yield stack.BACKEND
    finally:
        stack.stop("direct")


@contextlib.contextmanager
def bed(name, user):
    """A server of the integration tests (unpacked by tests/peers/install) with this user; its port."""
    sys.path.insert(0, os.path.dirname(stack.HERE))
    from tests.integration import servers

    with servers.SERVERS[name]() as server:
        server.add_user(user, "pw")
        yield server.port


def server(name, user):
    return backend() if name == "dovecot" else bed(name, user)


def filled(client, count):
    """See to it that the INBOX has at least count small messages; how many it has.

    Names and identities are the server's own: those that stack.py gives its files collide in Dovecot's hash, which
    then takes twenty times as long for a SELECT.  Cyrus takes up to ten copies of one message.
    """
    have = exists(client.run("SELECT INBOX"))
    while have < count // 8:
        client.append(stack.msg(have + 1, 700))
        client.answer("APPEND")
        have += 1
    while have < count:
        client.run(f"COPY 1:{min(have, count - have)} INBOX")  # so each at most eight times
        have = exists(client.run("SELECT INBOX"))
    return have


@contextlib.contextmanager
def peers(names, upstream):
    """Other proxies of stack.py, going to this port."""
    usual, stack.BACKEND = stack.BACKEND, upstream
    try:
        for name in names:
            stack.stop(name)
            stack.start(name)
        stack.BACKEND = usual
        yield
    finally:
        stack.BACKEND = usual
        for name in names:
            stack.stop(name)
