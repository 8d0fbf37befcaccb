"""Three endpoints of one upstream, and one of them in trouble: every login succeeds all the same (F1, F2, F10)."""

from __future__ import annotations

import base64
import contextlib
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, Row, ctl
from tests.integration.faults import WIRE, Connection, Fault, FaultProxy
from tests.integration.gate import upstream_of
from tests.integration.hurried import HurriedGate
from tests.integration.servers import CertificateAuthority, Dovecot, wait_until
from tests.integration.wire import Wire, connect, quoted

NewUser = Callable[..., User]

EJECTION = "imapgate.routing.endpoints.FIRST_EJECTION"
PROBES = "imapgate.service.PROBE_SECONDS"
NEVER = 3600.0
CALM = {EJECTION: NEVER, PROBES: NEVER}
"""Whatever an endpoint is found to be, it is by logins, and so it stays."""
SILENT = Fault(black_hole_at=0)


def token(user: User, password: str | None = None) -> bytes:
    """What a login of this user is upstream: SASL PLAIN's one answer."""
    return base64.b64encode(f"\0{user.name}\0{password or user.password}".encode())


class Site:
    """A gate, three fault proxies, and the servers behind them.

    :ivar proxies: the endpoints of the one upstream, in order; they keep what passes
    """

    def __init__(self, gate: HurriedGate, proxies: Sequence[FaultProxy]) -> None:
        self.gate = gate
        self.proxies = proxies

    def endpoint(self, index: int) -> Row:
        """What the gate tells its operator of an endpoint."""
        return ctl(self.gate, "upstreams")[index]

    def states(self) -> list[str]:
        """The states of the three."""
        return [row["state"] for row in ctl(self.gate, "upstreams")]

    def connections(self, index: int) -> list[Connection]:
        """What has come to an endpoint so far, health checks included."""
        return list(self.proxies[index].connections)

    def login(self, user: User) -> Wire:
        """A client that has logged in."""
        wire = connect(self.gate.host, self.gate.port)
        wire.login(user.name, user.password)
        return wire

    def visit(self, user: User) -> float:
        """Log in, do something, and out; gives the seconds until the login was answered."""
        began = time.monotonic()
        wire = self.login(user)
        seconds = time.monotonic() - began
        wire.ok(b"NOOP")
        wire.logout()
        return seconds

    def tried(self, user: User, password: str | None = None) -> list[int]:
        """The endpoints that were shown this credential, once for each time, in the order of the endpoints."""
        said = token(user, password)
        return [
            index
            for index, proxy in enumerate(self.proxies)
            for connection in proxy.connections
            if said in connection.up.data
        ]

    def homes(self, users: Sequence[User]) -> dict[User, int]:
        """Let each user log in once, while all is well; gives the endpoint where each has landed."""
        for user in users:
            self.visit(user)
        homes = {}
        for user in users:
            (homes[user],) = self.tried(user)
        return homes


MakeSite = Callable[..., AbstractContextManager[Site]]


@pytest.fixture
def site_of(dovecot: Dovecot) -> MakeSite:
    """Make a site; `seconds` are the gate's fixed times."""

    @contextmanager
    def made(seconds: Mapping[str, float] = CALM, **limits: str) -> Iterator[Site]:
        with ExitStack() as stack:
            proxies = [stack.enter_context(FaultProxy((dovecot.host, dovecot.port), keep=True)) for _ in range(3)]
            table = upstream_of(dovecot, endpoints=[f"tcp:127.0.0.1:{proxy.port}" for proxy in proxies])
            gate = HurriedGate(
                seconds,
                {"main": table},
                authority=dovecot.authority,
                limits={"connect_try": "500ms", **limits},
                admin=ADMIN,
            )
            stack.enter_context(gate)
            for proxy in proxies:  # the gate looks at each once, at its start
                proxy.wait(lambda proxy=proxy: any(each.closed for each in proxy.connections))  # type: ignore[misc]
            yield Site(gate, proxies)

    return made


@pytest.fixture
def another(authority: CertificateAuthority, dovecot: Dovecot) -> Iterator[Dovecot]:
    """A Dovecot of the test's own, to be stopped and killed."""
    with Dovecot(authority) as server:
        yield server


def busiest(homes: Mapping[User, int]) -> int:
    """The endpoint where most are at home."""
    return Counter(homes.values()).most_common(1)[0][0]


# -- one of three (F1) ------------------------------------------------------------------------------------------------

Trouble = Callable[[FaultProxy], AbstractContextManager[None]]


@contextmanager
def refusing(proxy: FaultProxy) -> Iterator[None]:
    """Nobody listens there."""
    proxy.refuse()
    yield


@contextmanager
def black_holed(proxy: FaultProxy) -> Iterator[None]:
    """Nothing is answered there, not even to a SYN: the queue of a listener that accepts nothing is full."""
    proxy.refuse()
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", proxy.port))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", proxy.port))
        yield


@contextmanager
def silent(proxy: FaultProxy) -> Iterator[None]:
    """It accepts, and says nothing."""
    proxy.down = SILENT
    yield


@contextmanager
def turning_away(proxy: FaultProxy) -> Iterator[None]:
    """It accepts, and hangs up before it has greeted."""
    proxy.down = Fault(cut_at=0, cut="rst")
    yield


@pytest.mark.parametrize("trouble", [refusing, black_holed, silent, turning_away])
def test_f1_one_of_three(site_of: MakeSite, dovecot: Dovecot, user: NewUser, trouble: Trouble) -> None:
    """One of three refuses, swallows, is silent or hangs up: 48 of 48 logins succeed, 5 of them find out."""
    users = [user(dovecot) for _ in range(12)]
    with site_of() as site:
        homes = site.homes(users)
        dead = busiest(homes)
        before = sum(map(site.visit, users)) / len(users)
        with trouble(site.proxies[dead]):
            seconds = sorted(site.visit(someone) for _ in range(4) for someone in users)
            told = site.endpoint(dead)
        assert (told["state"], told["failures"]) == ("ejected", 5)
        for someone, home in homes.items():
            tried = site.tried(someone)
            assert len(tried) == 6  # each login reached one server, once
            assert home == dead or set(tried) == {home}, "who was not at home there does not move"
        assert len({home for someone in users for home in site.tried(someone)[2:]} | {dead}) == 3
    after = seconds[:-5]
    print(
        f"\n{trouble.__name__}: a login takes {1000 * before:.1f} ms with all three, "
        f"{1000 * sum(after) / len(after):.1f} ms without, the 5 that found out {1000 * seconds[-5]:.0f} ms and more"
    )


def test_f1_one_of_three_is_stopped(site_of: MakeSite, dovecot: Dovecot, another: Dovecot, user: NewUser) -> None:
    """A server that was stopped (SIGSTOP) accepts and is silent: 48 of 48 logins succeed; it comes back by itself."""
    users = [user(dovecot) for _ in range(12)]
    for someone in users:
        another.add_user(someone.name, someone.password)
    with site_of({EJECTION: 1.0, PROBES: NEVER}) as site:
        homes = site.homes(users)
        dead = busiest(homes)
        site.proxies[dead].target = (another.host, another.port)
        for someone in users:
            site.visit(someone)
        there = [someone for someone in users if homes[someone] == dead]
        wait_until(lambda: all(another.login_count(each.name) == 1 for each in there), "the logins there")
        another.signal(signal.SIGSTOP)
        try:
            for _ in range(4):
                for someone in users:
                    site.visit(someone)
            assert site.endpoint(dead)["failures"] >= 5
        finally:
            another.signal(signal.SIGCONT)

        def back() -> bool:
            for someone in there:
                site.visit(someone)
            return site.states()[dead] == "up"

        wait_until(back, "the stopped server to be used again", 20)
        before = another.login_count()
        for someone in users:
            site.visit(someone)
        wait_until(lambda: another.login_count() == before + len(there), "those who are at home there")


def test_f1_one_of_three_is_killed_under_load(
    site_of: MakeSite, dovecot: Dovecot, another: Dovecot, user: NewUser
) -> None:
    """Killed while 8 clients log in without pause: 200 of 200 get in.

    A login that the server had been asked for, and had not answered, is told NO [UNAVAILABLE] on a connection that
    stays, for credentials are shown once (F2); there are at most as many as had one under way, and each gets in at its
    second try.
    """
    users = [user(dovecot) for _ in range(24)]
    for someone in users:
        another.add_user(someone.name, someone.password)
    with site_of() as site:
        dead = busiest(site.homes(users))
        site.proxies[dead].target = (another.host, another.port)
        logins: list[int] = []
        failures: list[BaseException] = []
        half = threading.Event()

        def client(number: int) -> None:
            try:
                for turn in range(25):
                    logins.append(_insist(site, users[(number * 25 + turn) % len(users)]))
                    if len(logins) >= 100:
                        half.set()
            except BaseException as failure:
                failures.append(failure)
                half.set()

        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        assert half.wait(60)
        another.kill()
        for thread in threads:
            thread.join(60)
        assert not failures, failures
        assert len(logins) == 200
        told = Counter(logins)
        assert set(told) <= {1, 2}
        assert told[2] <= len(threads)
        assert site.endpoint(dead)["state"] == "ejected"
    print(f"\nkilled under load: {told[1]} logins at the first try, {told[2]} at the second")


def _insist(site: Site, user: User) -> int:
    """Log in on one connection, again where the server was unavailable; gives the number of tries."""
    login = b"LOGIN " + quoted(user.name) + b" " + quoted(user.password)
    with connect(site.gate.host, site.gate.port) as wire:
        for tries in range(1, 4):
            answer = wire.command(login, tag=b"l%d" % tries)[-1].split(b" ", 1)[1]
            if answer.startswith(b"OK"):
                return tries
            assert answer.startswith(b"NO [UNAVAILABLE]"), answer
    raise AssertionError("not logged in at the third try")


def test_f1_all_three(site_of: MakeSite, dovecot: Dovecot, user: NewUser) -> None:
    """With all three dead each login is told so, in bounded time, on a connection that stays; none is tried less."""
    someone = user(dovecot)
    with site_of(connect_total="1s") as site:
        for proxy in site.proxies:
            proxy.refuse()
        with connect(site.gate.host, site.gate.port) as wire:
            login = b"LOGIN " + quoted(someone.name) + b" " + quoted(someone.password)
            for number in range(20):
                assert wire.command(login, tag=b"%d" % number)[-1].startswith(b"%d NO [UNAVAILABLE]" % number)
            # The last one standing is never ejected (F10): whoever comes back is used at once.
            assert sorted(site.states()) == ["ejected", "ejected", "up"]
            site.proxies[0].listen()
            wire.ok(login)
            wire.ok(b"NOOP")
            wire.logout()
        for proxy in site.proxies:
            proxy.listen()
            proxy.down = SILENT
        with connect(site.gate.host, site.gate.port) as wire:
            began = time.monotonic()
            assert wire.command(login, tag=b"s")[-1].startswith(b"s NO [UNAVAILABLE]")
            print(f"\nall three silent: told after {time.monotonic() - began:.2f} s of 1")
            for proxy in site.proxies:
                proxy.down = WIRE
            wire.ok(login)


# -- a NO is a NO (F2) ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [None, refusing, silent])
def test_f2_a_wrong_password_is_tried_once(
    site_of: MakeSite, dovecot: Dovecot, user: NewUser, trouble: Trouble | None
) -> None:
    """Of three endpoints exactly one is shown a wrong password, exactly once, whatever the others are."""
    users = [user(dovecot) for _ in range(6)]
    with site_of() as site, ExitStack() as stack:
        if trouble is not None:
            stack.enter_context(trouble(site.proxies[0]))
        for someone in users:
            with connect(site.gate.host, site.gate.port) as wire:
                answer = wire.command(b"LOGIN " + quoted(someone.name) + b" wrong", tag=b"a")[-1]
                assert answer.startswith(b"a NO [AUTHENTICATIONFAILED]")
                assert len(site.tried(someone, "wrong")) == 1
                wire.login(someone.name, someone.password)
            assert len(site.tried(someone)) == 1
        logins = sum(connection.up.data.count(b"AUTHENTICATE") for i in range(3) for connection in site.connections(i))
        assert logins == 2 * len(users)


# -- a user's sessions (F10, rendezvous) ------------------------------------------------------------------------------


def test_sessions_of_a_user_meet_on_one_endpoint(site_of: MakeSite, dovecot: Dovecot, user: NewUser) -> None:
    """Five sessions of each of 12 users at the same time: one endpoint for each user, all three in use."""
    users = [user(dovecot) for _ in range(12)]
    with site_of() as site, ExitStack() as stack:
        for _ in range(5):
            for someone in users:
                stack.enter_context(site.login(someone))
        homes = {}
        for someone in users:
            tried = site.tried(someone)
            assert len(tried) == 5
            assert len(set(tried)) == 1
            homes[someone] = tried[0]
        assert len(set(homes.values())) > 1


# -- ejection, the probe, and the return (F10) ------------------------------------------------------------------------


def test_f10_one_probe_and_the_return(site_of: MakeSite, dovecot: Dovecot, user: NewUser) -> None:
    """Ejected after 5 failures; then nobody goes there; then one of ten does; when it is well again, all who did."""
    users = [user(dovecot) for _ in range(12)]
    with site_of({EJECTION: 1.0, PROBES: NEVER}) as site:
        homes = site.homes(users)
        sick = busiest(homes)
        there = [someone for someone in users if homes[someone] == sick]
        proxy = site.proxies[sick]
        proxy.down = SILENT
        before = len(proxy.connections)
        for number in range(5):
            assert site.endpoint(sick)["state"] == "up"
            site.visit(there[number % len(there)])
            assert len(proxy.connections) == before + number + 1
        row = site.endpoint(sick)
        assert (row["state"], row["failures"]) == ("ejected", 5)
        assert 0 < row["ejected_seconds"] <= 1.1

        def awaits_probe() -> bool:
            over: bool = site.endpoint(sick)["ejected_seconds"] == 0.0
            return over

        before = len(proxy.connections)
        while row["failures"] == 5 and row["ejected_seconds"] > 0.5:
            assert len(proxy.connections) == before, "a login went to an endpoint that is ejected"
            site.visit(there[0])
            row = site.endpoint(sick)
        wait_until(awaits_probe, "the ejection to end", 10)
        # Over: ten at once, one of them is the probe, and none waits for it.
        before, failures = len(proxy.connections), site.endpoint(sick)["failures"]
        threads = [threading.Thread(target=site.visit, args=(there[0],)) for _ in range(10)]
        logins = len(site.tried(there[0]))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(site.tried(there[0])) == logins + 10
        assert len(proxy.connections) == before + 1
        row = site.endpoint(sick)
        assert (row["state"], row["failures"]) == ("ejected", failures + 1)

        proxy.down = WIRE
        wait_until(awaits_probe, "the second ejection to end", 10)
        before = len(proxy.connections)
        for someone in users:
            site.visit(someone)
        assert site.states() == ["up"] * 3
        assert len(proxy.connections) == before + len(there)
        for someone, home in homes.items():
            assert home != sick or token(someone) in b"".join(
                bytes(each.up.data) for each in proxy.connections[before:]
            )


def test_f10_health_checks(site_of: MakeSite, dovecot: Dovecot, user: NewUser) -> None:
    """Checks without credentials eject an endpoint before anybody waits for it, and bring it back."""
    users = [user(dovecot) for _ in range(12)]
    with site_of({EJECTION: NEVER, PROBES: 0.1}) as site:
        homes = site.homes(users)
        sick = busiest(homes)
        proxy = site.proxies[sick]
        proxy.down = SILENT
        wait_until(lambda: site.endpoint(sick)["state"] == "ejected", "the ejection", 20)
        assert site.endpoint(sick)["failures"] == 5
        for someone in users:
            site.visit(someone)
        sick_logins = sum(token(each) in connection.up.data for each in users for connection in site.connections(sick))
        assert sick_logins == Counter(homes.values())[sick]  # those from before
        proxy.down = WIRE
        wait_until(lambda: site.states() == ["up"] * 3, "the return", 20)
        for someone in users:
            site.visit(someone)
            assert site.tried(someone).count(homes[someone]) >= 2
        # What is no login's is a check, and it says nothing but CAPABILITY or nothing at all.
        said = {
            bytes(each.up.data) for i in range(3) for each in site.connections(i) if b"AUTHENTICATE" not in each.up.data
        }
        assert all(not data or data.split()[1:] == [b"CAPABILITY"] for data in said), said


@pytest.mark.parametrize("greeting", [b"* BYE full\r\n", b"* PREAUTH hello\r\n", b"220 mail\r\n"])
def test_f10_a_check_that_is_answered_wrongly(site_of: MakeSite, dovecot: Dovecot, greeting: bytes) -> None:
    """An endpoint that answers, but not as a server that can be used, is not brought back by a check."""
    with site_of({EJECTION: NEVER, PROBES: 0.1}) as site, socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                near, _ = listener.accept()
                with near, contextlib.suppress(OSError):
                    near.sendall(greeting)
                    near.settimeout(5)
                    near.recv(100)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        site.proxies[1].target = listener.getsockname()
        wait_until(lambda: site.endpoint(1)["state"] == "ejected", "the ejection", 20)
        seen = len(site.connections(1))
        site.proxies[1].wait(lambda: len(site.connections(1)) > seen + 3)
        assert site.states() == ["up", "ejected", "up"]
        ended.set()
        socket.create_connection(listener.getsockname()).close()
        thread.join(5)
