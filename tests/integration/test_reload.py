"""SIGHUP while clients come and go: what is changed holds at once, a bad file changes nothing, nobody notices (F15)."""

from __future__ import annotations

import base64
import re
import shutil
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import User
from tests.integration.faults import FaultProxy
from tests.integration.gate import TEST_LIMITS, Gate, toml, upstream_of
from tests.integration.servers import CertificateAuthority, Dovecot, free_port, wait_until
from tests.integration.servers.base import accepts
from tests.integration.wire import Wire, connect, quoted, tls_context

NewUser = Callable[..., User]

RELOADS = 50
CLIENTS = 6
MOST_SESSIONS = 1000
"""Of one client of the load."""
RELOADED = "configuration and certificates reloaded"
REFUSED = "nothing is reloaded, all stays as it was"


class Site:
    """A gate whose configuration is written anew for each round, and two ways to its server.

    With each round the endpoint is the other one, `closed` may log in or not, there is a further listener or not, and
    the certificate is a new one.
    """

    def __init__(self, dovecot: Dovecot, proxies: list[FaultProxy], directory: Path, mode: str) -> None:
        self.dovecot = dovecot
        self.proxies = proxies
        self.authority = CertificateAuthority(directory)
        self.served = (directory / "served.pem", directory / "served.key")
        self.plain, self.secure, self.further = free_port(), free_port(), free_port()
        self.mode = mode
        self.serial = ""
        self.issue()
        self.gate = Gate({}, authority=self.authority, listeners=[], ports=[self.plain, self.secure], text=self.text(0))

    def issue(self) -> None:
        """Put a new certificate where the old one was."""
        for source, target in zip(self.authority.issue(), self.served, strict=True):
            shutil.copy(source, target)

    def document(self, number: int) -> dict[str, Any]:
        """The configuration of a round."""
        certificate, key = self.served
        pairs = [{"certificate": certificate, "private_key": key}]
        listeners: list[dict[str, Any]] = [
            {"endpoint": f"tcp:{self.plain}:interface=127.0.0.1", "tls": "none"},
            {"endpoint": f"tcp:{self.secure}:interface=127.0.0.1", "tls": "implicit", "certificates": pairs},
        ]
        if number % 2:
            listeners.append({"endpoint": f"tcp:{self.further}:interface=127.0.0.1", "tls": "none"})
        endpoint = f"tcp:127.0.0.1:{self.proxies[number % 2].port}"
        routing: dict[str, Any] = {"default": "main"}
        if number % 2:
            routing["rule"] = [{"user": ["closed"], "nologin": f"closed in round {number}"}]
        return {
            "auth": {"credential_cache": "60s"},
            "listener": listeners,
            "upstream": {"main": upstream_of(self.dovecot, endpoints=[endpoint], pool_mode=self.mode)},
            "routing": routing,
            "limits": dict(TEST_LIMITS),
        }

    def text(self, number: int) -> str:
        """The file of a round."""
        return toml(self.document(number))

    def reload(self, said: str) -> str:
        """Reload, and wait for what the log says of it; gives the log's line."""
        before = len(self.gate.log())
        self.gate.reload()
        wait_until(lambda: said in self.gate.log()[before:], f"{said!r} in the log", 20)
        return next(line for line in self.gate.log()[before:].splitlines() if said in line)

    def shown(self) -> str:
        """The serial number of the certificate that is shown now."""
        with connect("127.0.0.1", self.secure, tls_context(str(self.authority.certificate))) as wire:
            assert isinstance(wire.sock, ssl.SSLSocket)
            shown = wire.sock.getpeercert()
            assert shown
            return str(shown["serialNumber"])

    def carried(self, index: int, user: User) -> int:
        """How many logins of a user have gone by one of the endpoints."""
        token = base64.b64encode(f"\0{user.name}\0{user.password}".encode())
        return sum(token in connection.up.data for connection in self.proxies[index].connections)

    def holds(self, number: int, user: User, closed: User) -> None:
        """Hold that the configuration of this round is in force, the whole of it."""
        odd = number % 2
        before = self.carried(1 - odd, user)
        with connect("127.0.0.1", self.plain) as wire:
            wire.login(user.name, user.password)
        assert self.carried(1 - odd, user) == before
        assert self.carried(odd, user) > 0
        assert accepts(self.further) == bool(odd)
        with connect("127.0.0.1", self.plain) as wire:
            login = b"LOGIN " + quoted(closed.name) + b" " + quoted(closed.password)
            answer = wire.command(login, tag=b"a")[-1]
            assert (f"closed in round {number}".encode() in answer) == bool(odd), answer
            assert answer.startswith(b"a NO" if odd else b"a OK")


@pytest.fixture(params=["session", pytest.param("mailbox", marks=pytest.mark.soak)])
def site(request: pytest.FixtureRequest, dovecot: Dovecot, tmp_path: Path) -> Iterator[Site]:
    """A running gate, in either mode that pools."""
    with ExitStack() as stack:
        proxies = [stack.enter_context(FaultProxy((dovecot.host, dovecot.port), keep=True)) for _ in range(2)]
        site = Site(dovecot, proxies, tmp_path, request.param)
        stack.enter_context(site.gate)
        yield site


@contextmanager
def load(site: Site, users: list[User]) -> Iterator[list[int]]:
    """Let clients come and go, each of a user of its own; gives the number of sessions of each; raises what failed."""
    sessions = [0] * len(users)
    ended = threading.Event()
    failures: list[BaseException] = []
    context = tls_context(str(site.authority.certificate))

    def client(number: int, user: User) -> None:
        try:
            while sessions[number] < MOST_SESSIONS and not ended.is_set():
                secure = sessions[number] % 2
                with connect("127.0.0.1", site.secure if secure else site.plain, context if secure else None) as wire:
                    wire.login(user.name, user.password)
                    _work(wire)
                    wire.logout()
                sessions[number] += 1
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=client, args=each) for each in enumerate(users)]
    for thread in threads:
        thread.start()
    try:
        yield sessions
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)
    assert not failures, failures


def _work(wire: Wire) -> None:
    for command in (b"NOOP", b"SELECT INBOX", b"UID FETCH 1:* FLAGS", b"UNSELECT"):
        wire.ok(command)


def test_f15_fifty_reloads(site: Site, dovecot: Dovecot, user: NewUser) -> None:
    """50 reloads while 6 clients come and go: each holds as a whole, 0 clients are refused or cut off, old ones go on.

    (Its certificate, its endpoints, its rules and its listeners are other ones each time.)
    """
    users = [user(dovecot) for _ in range(CLIENTS)]
    someone, closed, resident = user(dovecot), user(dovecot, "closed"), user(dovecot)
    gate = site.gate
    serials = {site.shown()}
    began = time.monotonic()
    with resident.wire(site.plain) as selected, resident.wire(site.plain) as fresh, load(site, users) as sessions:
        selected.ok(b"SELECT INBOX")
        for number in range(1, RELOADS + 1):
            gate.configure(site.text(number))
            site.issue()
            site.reload(RELOADED)
            serials.add(site.shown())
            site.holds(number, someone, closed)
            selected.ok(b"UID FETCH 1:* FLAGS")
            fresh.ok(b"NOOP")
        done = sum(sessions)
        _work(fresh)
    assert len(serials) == RELOADS + 1
    assert gate.log().count(RELOADED) == RELOADS
    assert done > RELOADS
    for told in (REFUSED, "Traceback", "#error", "#critical"):
        assert told not in gate.log()
    print(f"\n{site.mode}: {RELOADS} reloads in {time.monotonic() - began:.1f} s, {done} sessions meanwhile, 0 errors")


def test_f15_a_bad_file_changes_nothing(site: Site, dovecot: Dovecot, user: NewUser) -> None:
    """Six bad files under load: the log says what is wrong with each, and not a part of any is in force."""
    users = [user(dovecot) for _ in range(CLIENTS)]
    someone, closed = user(dovecot), user(dovecot, "closed")
    gate = site.gate
    # Every bad one is the next round's, and would change everything.
    taken = site.document(1)
    taken["listener"].append({"endpoint": f"tcp:{dovecot.port}:interface=127.0.0.1", "tls": "none"})
    missing = site.document(1)
    missing["upstream"]["main"] |= {"tls": "starttls", "ca": "nowhere.pem"}
    texts = {
        "unknown": (site.text(1) + "\n[limit]\nclients = 1\n", "limit"),
        "syntax": (site.text(1) + "\n[limits\n", "line"),
        "type": (site.text(1).replace('"60s"', '"often"'), r"auth\.credential_cache"),
        "taken": (toml(taken), "cannot listen on"),
        "file": (toml(missing), r"nowhere\.pem"),
    }
    good = [path.read_bytes() for path in site.served]
    with load(site, users) as sessions:
        serial = site.shown()
        for text, why in texts.values():
            gate.configure(text)
            assert re.search(why, site.reload(REFUSED))
            site.holds(0, someone, closed)
            assert site.shown() == serial
        gate.configure(site.text(1))
        site.served[0].write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        assert re.search(re.escape(str(site.served[0])), site.reload(REFUSED))
        site.holds(0, someone, closed)
        assert site.shown() == serial
        for path, octets in zip(site.served, good, strict=True):
            path.write_bytes(octets)
        site.reload(RELOADED)  # what was wrong is mended, and nothing is left over
        site.holds(1, someone, closed)
        assert sum(sessions) > 0
    assert gate.log().count(REFUSED) == len(texts) + 1
    assert "Traceback" not in gate.log()
