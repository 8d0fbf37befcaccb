"""The configuration made into parts: upstreams, verifiers, routes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.protocol import Factory

from imapgate import assembly as module
from imapgate.assembly import Assembly, client_endpoint, upstream_of
from imapgate.auth.cred import Cred
from imapgate.auth.htpasswd import Htpasswd
from imapgate.auth.http import AuthHttp
from imapgate.auth.oauth import Bearer
from imapgate.auth.proofs import Proofs
from imapgate.auth.upstream_identity import Authorisation, DovecotMaster, PasswordMap
from imapgate.config.types import (
    Auth,
    AuthMode,
    ClientEndpoint,
    Configuration,
    CredVerifier,
    HtpasswdVerifier,
    HttpLookup,
    HttpVerifier,
    Lookup,
    Master,
    MasterMethod,
    OAuthVerifier,
    PluginEntry,
    Routing,
    RoutingRule,
    SqlLookup,
    TableLookup,
    Tls,
    Upstream,
)
from imapgate.errors import ConfigurationError
from imapgate.limits import Limits
from imapgate.model.commands import COMMANDS
from imapgate.model.pool_mode import IdleMode, PoolMode, SharingTerms
from imapgate.model.secret import Secret
from imapgate.net.directory import Moves
from imapgate.plugins.api import Command, Interests, Options, Plugin, Reject, Session
from imapgate.plugins.runner import Judged, PluginFault
from imapgate.pooling.connection import Terms
from imapgate.routing.http import HttpLookup as AskingHttp
from imapgate.routing.sql import SqlLookup as AskingSql
from imapgate.routing.table import Table
from imapgate.session.intake import parsed
from tests.serving import CONFIGURATION, STORE, UPSTREAM, Reactor, contained

NAMED = ClientEndpoint("tcp", "tcp:mail.example.org:143", "mail.example.org", 143)


@pytest.fixture(autouse=True)
def nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither signals nor the process's limits nor files nor sockets are touched."""
    with contained(monkeypatch):
        yield


# --- upstreams --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [
        (STORE, UNIXClientEndpoint),
        (ClientEndpoint("tcp", "tcp:192.0.2.1:143", "192.0.2.1", 143), TCP4ClientEndpoint),
        (ClientEndpoint("tcp", "tcp:[2001]:143", "2001:db8::1", 143, bind_address="2001:db8::2"), TCP6ClientEndpoint),
        (ClientEndpoint("tls", "tls:mail.example.org:993", "mail.example.org", 993), HostnameEndpoint),
    ],
)
def test_client_endpoint(endpoint: ClientEndpoint, kind: type) -> None:
    """An address is dialled as it is, a name is looked up, a path is a Unix socket."""
    assert type(client_endpoint(Reactor(), endpoint, 5.0)) is kind


def test_bind_address() -> None:
    """An endpoint is reached from the local address that is configured."""
    reactor = Reactor()
    endpoint = ClientEndpoint("tcp", "tcp:192.0.2.1:143", "192.0.2.1", 143, bind_address="192.0.2.9")
    client_endpoint(reactor, endpoint, 5.0).connect(Factory())
    ((host, port, _, seconds, bind),) = reactor.tcpClients
    assert [host, port, seconds, bind] == ["192.0.2.1", 143, 5.0, ("192.0.2.9", 0)]


@pytest.mark.parametrize("tls", Tls)
def test_upstream_of(tls: Tls) -> None:
    """Every endpoint is a door, in order, with the TLS that is configured."""
    endpoints = tuple(ClientEndpoint("tcp", f"tcp:{name}:143", name, 143) for name in ("a.example", "b.example"))
    configured = Upstream("store", endpoints, tls, id_originating=True, proxy_protocol=True)
    made = upstream_of(Reactor(), configured, Limits())
    assert [door.name for door in made.doors] == ["tcp:a.example:143", "tcp:b.example:143"]
    assert [door.starttls for door in made.doors] == [tls is Tls.STARTTLS] * 2
    assert [door.tls is None for door in made.doors] == [tls is Tls.NONE] * 2
    assert made.doors[0].tls is not made.doors[1].tls or tls is Tls.NONE
    assert (made.name, made.id_originating, made.proxy_protocol) == ("store", True, True)
    assert [row["name"] for row in made.endpoints.rows(0.0)] == ["tcp:a.example:143", "tcp:b.example:143"]


def test_terms() -> None:
    """A pool's bounds are those of its upstream; in mode session nothing is kept that no later login could have."""
    configured = Upstream(
        "store", (STORE,), Tls.NONE, pool_mode=PoolMode.MAILBOX, pool_size=7, pool_keep=3, pool_idle=11.0,
        pool_lifetime=13.0, pool_wait=17.0, max_connections=19,
    )  # fmt: skip
    limits = Limits(pool_check=23.0)
    alone = upstream_of(Reactor(), configured, limits, alone=True)
    kept = Terms(size=7, keep=3, alone=True, idle=11.0, lifetime=13.0, wait=17.0, most=19, check=23.0)
    assert alone.mode is PoolMode.MAILBOX
    shared = kept._replace(counted=True)
    assert alone.terms == {PoolMode.SESSION: kept, PoolMode.MAILBOX: kept, PoolMode.SHARED: shared}
    never = upstream_of(Reactor(), configured, limits)
    kept, shared = kept._replace(alone=False), shared._replace(alone=False)
    assert never.terms == {
        PoolMode.SESSION: kept._replace(keep=0),
        PoolMode.MAILBOX: kept,
        PoolMode.SHARED: shared,
    }


def test_sharing_terms() -> None:
    """So are the bounds of its shared mailboxes, each with the default that it has in the configuration."""
    usual = upstream_of(Reactor(), Upstream("store", (STORE,), Tls.NONE), Limits())
    assert usual.sharing == SharingTerms(size=9)  # one of the ten is left for the next login
    configured = Upstream(
        "store", (STORE,), Tls.NONE, pool_mode=PoolMode.SHARED, pool_size=7, idle=IdleMode.POLL, idle_poll=11.0,
        idle_connections=13, park_after=17.0, share_stall=19.0,
    )  # fmt: skip
    made = upstream_of(Reactor(), configured, Limits())
    assert made.mode is PoolMode.SHARED
    assert made.sharing == SharingTerms(
        size=6, idle=IdleMode.POLL, idle_poll=11.0, idle_connections=13, park_after=17.0, share_stall=19.0
    )


def assembled(configuration: Configuration = CONFIGURATION, earlier: Assembly | None = None) -> Assembly:
    """An assembly on a reactor of its own."""
    return Assembly(Reactor(), configuration, Proofs(b"key", 0.0), Moves(), earlier, report=lambda fault: None)


@pytest.mark.parametrize(
    ("auth", "alone"),
    [
        (Auth(), False),
        (Auth(AuthMode.RELAY), False),
        (Auth(credential_cache=1.0), True),
        (Auth(AuthMode.MASTER, verifiers=(CredVerifier("memory:a:b"),)), True),
    ],
)
def test_kept_only_where_it_can_serve(auth: Auth, alone: bool) -> None:
    """A connection is kept for a later login where that could be given it, and nowhere else."""
    made = assembled(attrs.evolve(CONFIGURATION, auth=auth))
    assert made.upstreams["store"].terms[PoolMode.SESSION].alone is alone


MASTERED = attrs.evolve(UPSTREAM, master=Master(MasterMethod.AUTHORISATION, "gate", Secret(b"one")))


@pytest.mark.parametrize(
    "after",
    [
        attrs.evolve(CONFIGURATION, upstreams={"store": attrs.evolve(UPSTREAM, pool_keep=0)}),
        attrs.evolve(CONFIGURATION, upstreams={"store": attrs.evolve(UPSTREAM, idle=IdleMode.RELAY)}),
        attrs.evolve(CONFIGURATION, upstreams={"store": attrs.evolve(UPSTREAM, park_after=7.0)}),
        attrs.evolve(CONFIGURATION, auth=Auth(AuthMode.RELAY)),
        attrs.evolve(CONFIGURATION, auth=Auth(credential_cache=5.0)),
        attrs.evolve(CONFIGURATION, limits=Limits(connect_try=3.0)),
        attrs.evolve(CONFIGURATION, limits=Limits(pool_check=3.0)),
    ],
)
def test_another_profile(after: Configuration) -> None:
    """What changes how an upstream is reached or kept makes it another, with a number that it never had."""
    first = assembled()
    second = assembled(after, first)
    third = assembled(CONFIGURATION, second)
    assert [each.upstreams["store"].profile for each in (first, second, third)] == [0, 1, 2]
    assert len({id(each.upstreams["store"]) for each in (first, second, third)}) == 3


def test_the_same_profile() -> None:
    """What has nothing to do with an upstream leaves it as it is: the very same."""
    first = assembled(attrs.evolve(CONFIGURATION, auth=Auth(credential_cache=5.0)))
    second = assembled(
        attrs.evolve(
            CONFIGURATION,
            auth=Auth(credential_cache=9.0),
            limits=Limits(clients=7),
            upstreams={"store": UPSTREAM, "new": UPSTREAM},
        ),
        first,
    )
    assert second.upstreams["store"] is first.upstreams["store"]


def test_another_password_of_the_master_user() -> None:
    """Another password of the master user's makes another upstream, and no password is in a repr for it (A40)."""
    verifiers = (CredVerifier("memory:a:b"),)
    before, after = (
        attrs.evolve(
            CONFIGURATION,
            auth=Auth(AuthMode.MASTER, verifiers=verifiers),
            upstreams={"store": attrs.evolve(MASTERED, master=attrs.evolve(MASTERED.master, password=Secret(octets)))},
        )
        for octets in (b"canary-16180", b"canary-16181")
    )
    first = assembled(before)
    assert assembled(after, first).upstreams["store"].profile == 1
    assert "canary" not in repr(before) + repr(first.upstreams["store"])


def test_another_ca_file(tmp_path: Path) -> None:
    """A CA file with other octets in it makes another upstream, though its path is the same."""
    ca = tmp_path / "ca.pem"
    ca.write_text("one")
    configuration = attrs.evolve(CONFIGURATION, upstreams={"store": attrs.evolve(UPSTREAM, ca=ca)})
    first = assembled(configuration)
    assert assembled(configuration, first).upstreams["store"] is first.upstreams["store"]
    ca.write_text("another")
    assert assembled(configuration, first).upstreams["store"].profile == 1


def test_an_upstream_that_comes_back() -> None:
    """An upstream that was gone for a while is another one than it was."""
    first = assembled(attrs.evolve(CONFIGURATION, upstreams={"store": UPSTREAM, "other": UPSTREAM}))
    second = assembled(CONFIGURATION, first)
    third = assembled(attrs.evolve(CONFIGURATION, upstreams={"store": UPSTREAM, "other": UPSTREAM}), second)
    assert third.upstreams["other"] is not first.upstreams["other"]
    assert third.upstreams["other"].profile != first.upstreams["other"].profile


def test_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a host and port that a verifier named an upstream is as at home, and the same each time; not too many."""
    configured = Upstream("store", (NAMED,), Tls.STARTTLS, proxy_protocol=True, pool_size=7)
    made = assembled(
        attrs.evolve(CONFIGURATION, upstreams={"store": configured}, auth=Auth(credential_cache=5.0)),
    )
    home = made.upstreams["store"]
    there = made._at(home, "192.0.2.9", 1143)
    assert there.name == "store@192.0.2.9:1143"
    assert [(door.name, door.starttls, door.tls is None) for door in there.doors] == [
        ("tcp:192.0.2.9:1143", True, False)
    ]
    assert (there.proxy_protocol, there.profile, there.mode, there.terms) == (True, 0, home.mode, home.terms)
    assert made._at(home, "192.0.2.9", 1143) is there
    assert made._at(home, "192.0.2.9", 1144) is not there
    monkeypatch.setattr(module, "_ELSEWHERE", 4)
    for port in range(1, module._ELSEWHERE):
        made._at(home, "192.0.2.8", port)
    assert len(made._elsewhere) == module._ELSEWHERE
    assert made._at(home, "192.0.2.9", 1143) is not there


# --- auth -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["htpasswd", "http", "oauth file", "oauth url", "cred"])
def test_verifiers(how: str, tmp_path: Path) -> None:
    """Each verifier of the configuration is the one that it says, and each has its mechanisms."""
    users = tmp_path / "users.htpasswd"
    users.write_text("alice:$2y$05$abcdefghijklmnopqrstuuWLSgRZk8OkzF4q1N9pQ1N9pQ1N9pQ1O\n")
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": [{"kty": "oct", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "kid": "x"}]}')
    configured, kind = {
        "htpasswd": (HtpasswdVerifier(users), Htpasswd),
        "http": (HttpVerifier("http://127.0.0.1:9000/auth", headers={"X-Key": Secret(b"canary-16180")}), AuthHttp),
        "oauth file": (OAuthVerifier("https://issuer.example", "imap", keys), Bearer),
        "oauth url": (OAuthVerifier("https://issuer.example", "imap", "https://issuer.example/keys"), Bearer),
        "cred": (CredVerifier("memory:a:canary-16180"), Cred),
    }[how]
    configuration = attrs.evolve(CONFIGURATION, auth=Auth(AuthMode.MASTER, verifiers=(configured,)))
    if how == "oauth file":
        with pytest.raises(ConfigurationError):
            assembled(configuration)  # a shared secret is no key of an issuer's
        return
    made = assembled(configuration)
    chain = made.directory._chain
    assert chain is not None
    assert [type(verifier) for verifier in chain._verifiers] == [kind]
    assert chain.mechanisms
    assert "canary" not in repr(configuration)
    made.close()


def test_no_chain_without_mode_master() -> None:
    """Where upstream verifies logins nobody else does."""
    for mode in (AuthMode.PASS, AuthMode.RELAY):
        made = assembled(attrs.evolve(CONFIGURATION, auth=Auth(mode)))
        assert made.directory._chain is None
        assert made.directory._identities == {}
        assert made.directory._relay is (mode is AuthMode.RELAY)


def test_identities(tmp_path: Path) -> None:
    """Each upstream has its own way to log its users in."""
    passwords = tmp_path / "passwords"
    passwords.write_text("alice:inner\n")
    passwords.chmod(0o600)
    masters = {
        "a": Master(MasterMethod.AUTHORISATION, "gate", Secret(b"pw")),
        "b": Master(MasterMethod.DOVECOT, "gate", Secret(b"pw"), separator="%"),
        "c": Master(MasterMethod.MAP, map=passwords),
    }
    configuration = attrs.evolve(
        CONFIGURATION,
        upstreams={name: attrs.evolve(UPSTREAM, name=name, master=master) for name, master in masters.items()}
        | {"store": UPSTREAM},
        auth=Auth(AuthMode.MASTER, verifiers=(CredVerifier("memory:a:b"),)),
    )
    identities = assembled(configuration).directory._identities
    assert {name: type(identity) for name, identity in identities.items()} == {
        "a": Authorisation,
        "b": DovecotMaster,
        "c": PasswordMap,
    }
    shown = [identity.upstream_credentials(b"alice") for identity in identities.values()]
    assert [None if each is None else (each.user, each.password.reveal(), each.authorisation) for each in shown] == [
        (b"gate", b"pw", b"alice"),
        (b"alice%gate", b"pw", b""),
        (b"alice", b"inner", b""),
    ]


# --- routing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["table", "sql", "http"])
def test_lookups(how: str, tmp_path: Path) -> None:
    """Each look-up of the configuration is the one that it says, and is let go with it."""
    users = tmp_path / "users.table"
    users.write_text("alice upstream=store\n")
    database = tmp_path / "users.db"
    sqlite3.connect(database).close()
    configured: Lookup
    configured, kind = {
        "table": (TableLookup(users), Table),
        "sql": (SqlLookup("sqlite3", str(database), "SELECT upstream FROM users WHERE name = ?"), AskingSql),
        "http": (HttpLookup("http://127.0.0.1:9000/where"), AskingHttp),
    }[how]
    rule = RoutingRule(
        listener=("public",), user=("a*",), lookup=configured, rewrite="{local}", pool_mode=PoolMode.MAILBOX,
        nologin="No", delay_until=7.0,
    )  # fmt: skip
    made = assembled(attrs.evolve(CONFIGURATION, routing=Routing("store", (rule,))))
    (built,) = made.directory._router._rules
    assert type(built.lookup) is kind
    assert (built.name, built.listener, built.user) == ("routing.rule[0]", ("public",), ("a*",))
    assert (built.rewrite, built.pool_mode, built.nologin, built.delay_until) == (
        "{local}",
        PoolMode.MAILBOX,
        "No",
        7.0,
    )
    assert len(made._closers) == (how != "table")
    made.close()
    made.close()
    assert made._closers == []


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    """A table that is not there is a fault of the configuration."""
    rule = RoutingRule(lookup=TableLookup(tmp_path / "absent"))
    with pytest.raises(ConfigurationError, match="absent"):
        assembled(attrs.evolve(CONFIGURATION, routing=Routing("store", (rule,))))


# --- plugins ----------------------------------------------------------------------------------------


class Watches(Plugin):
    """A plugin that notes what happens to it."""

    interests = Interests(verbs=frozenset(["NOOP"]))

    def __init__(self, options: Options) -> None:
        self.threaded = options.flag("threaded", False)

    def start(self, clock: object) -> None:
        """Note it."""
        happened.append("starts")

    def stop(self) -> None:
        """Note it."""
        happened.append("stops")

    def command(self, session: Session, command: Command) -> Reject:
        """Fail."""
        raise RuntimeError("a bug")


happened: list[str] = []


class Pool:
    """Threads that are none."""

    def __init__(self, least: int, most: int, name: str) -> None:
        assert (least, most) == (0, module.PLUGIN_THREADS)

    def start(self) -> None:
        """Note it."""
        happened.append("threads start")

    def stop(self) -> None:
        """Note it."""
        happened.append("threads stop")


def with_plugins(monkeypatch: pytest.MonkeyPatch, *, threaded: bool = False) -> tuple[Assembly, list[PluginFault]]:
    """What is made of a configuration with a plugin, and what is reported of it."""

    def in_thread(
        reactor: Reactor, pool: Pool, function: Callable[..., object], *arguments: object
    ) -> Deferred[object]:
        happened.append(f"{type(reactor).__name__} {type(pool).__name__}")
        return execute(function, *arguments)

    happened.clear()
    monkeypatch.setattr(module, "Threads", Pool)
    monkeypatch.setattr(module, "deferToThreadPool", in_thread)
    entry = PluginEntry("tests.test_assembly.Watches", "watches", {"threaded": threaded}, Path())
    configuration = attrs.evolve(CONFIGURATION, plugins=(entry,))
    faults: list[PluginFault] = []
    made = Assembly(Reactor(), configuration, Proofs(b"key", 0.0), Moves(), report=faults.append)
    return made, faults


def test_plugins_are_made_and_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """They start when they are told to, and what was not started is not stopped."""
    made, _ = with_plugins(monkeypatch)
    assert made.plugins is not None
    made.close()
    assert happened == []


def test_plugins_are_started_and_stopped_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stop before the threads that they may be in."""
    made, _ = with_plugins(monkeypatch)
    made.start()
    made.close()
    made.close()
    assert happened == ["threads start", "starts", "stops", "threads stop"]


@pytest.mark.parametrize("threaded", [False, True])
def test_plugins_that_block_have_threads_of_their_own(monkeypatch: pytest.MonkeyPatch, threaded: bool) -> None:
    """Only those that say so are asked in a thread; what goes wrong there is reported all the same."""
    made, faults = with_plugins(monkeypatch, threaded=threaded)
    made.start()
    assert made.plugins is not None
    session = Session("s")
    chain = made.plugins.open(session)
    assert chain is not None
    said: list[Judged] = []
    chain.judge("command", Command(parsed(b"a", b"NOOP", Limits(), COMMANDS, False).command), then=said.append)
    assert said[0].by == "watches"
    assert [fault.kind for fault in faults] == ["error"]
    assert happened[2:] == (["Reactor Pool"] if threaded else [])


def test_no_plugins() -> None:
    """Where none are configured there is nothing to start."""
    made = assembled()
    assert made.plugins is None
    made.start()
    made.close()


def test_plugins_that_cannot_be_used() -> None:
    """It is said where in the file."""
    entry = PluginEntry("no.such.Thing", "x", {}, Path())
    configuration = attrs.evolve(CONFIGURATION, plugins=(entry,), path=Path("imapgate.toml"))
    with pytest.raises(ConfigurationError, match=r'imapgate\.toml: plugin\[0\]\.use: there is no module "no"'):
        assembled(configuration)
