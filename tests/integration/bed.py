"""A test bed: the scripted upstream, perhaps a fault proxy before it, and one gate process in front.

::

    with bed_of(limits={"login_time": "1s"}, far_proxy=True) as bed:
        wire, user = bed.login()
        ...
        assert bed.after_login(user) == [...]
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import re
import shutil
import ssl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.integration.faults import WIRE, Fault, FaultProxy
from tests.integration.gate import Gate
from tests.integration.scripted import Answer, Command, Recorder, Script
from tests.integration.servers.authority import CertificateAuthority
from tests.integration.servers.base import wait_until
from tests.integration.wire import Wire, connect

HOST = "127.0.0.1"
TIMEOUT = 10.0
SHORT_TIMES = {
    "connect_try": "400ms",
    "connect_total": "1s",
    "upstream_first_byte": "600ms",
    "upstream_first_byte_slow": "600ms",
    "half_close": "500ms",
}
"""Limits for tests that wait for one to pass."""
_numbers = itertools.count(1)


@functools.cache
def authority(name: str = "Test authority") -> CertificateAuthority:
    """Give the certificate authority that scripted upstreams have in common."""
    directory = Path(tempfile.mkdtemp(prefix="ig-authority-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return CertificateAuthority(directory, name)


@functools.cache
def server_context(*names: str, other: bool = False, **flaws: bool) -> ssl.SSLContext:
    """Make the TLS context of an upstream; ``flaws`` are `CertificateAuthority.issue`'s, ``other``: a stranger's."""
    issuer = authority("A stranger") if other else authority()
    certificate, key = issuer.issue(*names, **flaws)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


class Bed:
    """What `bed_of` gives."""

    def __init__(self, recorder: Recorder, gate: Gate, far: FaultProxy | None) -> None:
        self.recorder = recorder
        self.gate = gate
        self.far = far
        """The proxy between gate and recorder, which keeps what passes."""
        self.port = gate.port

    def connect(self, **options: Any) -> Wire:
        """Connect to the gate's plain listener and read the greeting."""
        return connect(HOST, self.port, **{"timeout": TIMEOUT, **options})

    def new_user(self) -> bytes:
        """Give a user name that was not used before."""
        return b"u%d-%d" % (os.getpid() % 1000, next(_numbers))

    def login(self, user: bytes | None = None) -> tuple[Wire, bytes]:
        """Connect and log in, as a new user unless one is given."""
        user = user or self.new_user()
        wire = self.connect()
        wire.login(user.decode(), "secret")
        return wire, user

    def answer(self, **answers: Answer) -> None:
        """Let upstream's next connections answer these verbs in a way of their own."""
        self.recorder.script = Script(answers={verb.encode(): answer for verb, answer in answers.items()})

    def ended(self, user: bytes) -> None:
        """Wait until every upstream connection of a user has ended."""
        self.recorder.wait(lambda: all(talk.ended for talk in self.recorder.of(user)))

    def after_login(self, user: bytes) -> list[Command]:
        """Wait for the end of a user's upstream connections; give the commands that came after the logins."""
        self.ended(user)
        commands = []
        for talk in self.recorder.of(user):
            logins = [i for i, command in enumerate(talk.commands) if command.verb in (b"LOGIN", b"AUTHENTICATE")]
            commands += talk.commands[logins[-1] + 1 :]
        return commands

    def next_upstream(self, *, up: Fault = WIRE, down: Fault = WIRE) -> None:
        """Give the gate's next connection upstream a fault."""
        assert self.far is not None, "made without far_proxy"
        self.far.plan(up=up, down=down)

    def memory(self) -> int:
        """Give the gate's resident memory, in octets."""
        return self.gate.memory()


def last_line(answer: bytes) -> bytes:
    """Give the last line of what a client was sent."""
    return answer.rstrip(b"\r\n").rpartition(b"\r\n")[2]


def unread(local: int, remote: int) -> int:
    """Give how many octets a loopback socket holds that its process has not read (by ports: its own, its peer's)."""
    pattern = rf"0100007F:{local:04X} 0100007F:{remote:04X} [0-9A-F]+ [0-9A-F]+:([0-9A-F]+) "
    found = re.search(pattern, Path("/proc/net/tcp").read_text())
    return int(found[1], 16) if found else 0


def taken(local: int, remote: int) -> None:
    """Wait until the process behind a loopback socket has read all that was sent to it.

    Two writes with this between them are two reads there, without any guess at times.
    """
    wait_until(lambda: not unread(local, remote), "a socket to be read")


@contextmanager
def bed_of(
    *,
    script: Script | None = None,
    recorder: Recorder | None = None,
    context: ssl.SSLContext | None = None,
    far_proxy: bool = False,
    ports: Sequence[int] = (),
    upstream: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    **gate: Any,
) -> Iterator[Bed]:
    """Start a recorder (unless one is given), perhaps a fault proxy, and a gate, whose keywords may follow.

    ``ports`` are the upstream's, instead of the recorder's; ``upstream`` is merged into its table.
    """
    with ExitStack() as stack:
        if recorder is None:
            recorder = stack.enter_context(Recorder(script, context=context))
        far = stack.enter_context(FaultProxy((HOST, recorder.port), keep=True)) if far_proxy else None
        where = ports or [far.port if far else recorder.port]
        table = {"endpoints": [f"tcp:{HOST}:{port}" for port in where], "tls": "none", **(upstream or {})}
        running = stack.enter_context(Gate({"main": table}, limits=limits, authority=authority(), **gate))
        yield Bed(recorder, running, far)
