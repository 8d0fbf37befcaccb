"""Whose login goes where, and as whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from imapgate.auth.identity import is_user
from imapgate.auth.proofs import Proofs
from imapgate.auth.upstream_identity import Authorisation, DovecotMaster, UpstreamIdentity
from imapgate.auth.verify import Chain, Identified, NotIdentified, Presented, Redirect
from imapgate.limits import DEFAULTS
from imapgate.model.failure import Failure
from imapgate.model.pool_mode import PoolMode
from imapgate.model.secret import Credentials, Secret
from imapgate.net import directory as module
from imapgate.net.dial import Client, Upstream
from imapgate.net.directory import Directory, Moves, Refusal
from imapgate.net.pools import Account
from imapgate.routing.lookup import Asked, Found, LookupFailed
from imapgate.routing.rules import Route, Router, Rule
from imapgate.session.effects import Failed, Login
from tests.net.asking import CLIENT, RELAYED
from tests.net.wires import InOrder, logged

PASSWORD = b"c4n4ry-p4ssw0rd"
GIVEN = Credentials(b"alice", Secret(PASSWORD))
ALICE = Login(b"PLAIN", GIVEN)
NOW = 1_000_000.0
"""Unix time when the clock stands at 0."""


class Verifier:
    """Says what it is told to, and remembers what it was shown."""

    name = "fake"
    mechanisms = (b"PLAIN", b"XOAUTH2")

    def __init__(self, answer: Identified | NotIdentified) -> None:
        self.answer = answer
        self.shown: list[Presented] = []

    async def identify(self, presented: Presented) -> Identified:
        """Say it."""
        self.shown.append(presented)
        if isinstance(self.answer, NotIdentified):
            raise self.answer
        return self.answer


class Lookup:
    """Finds what it is told to, at once or when it is."""

    def __init__(self, found: Found | Exception | None) -> None:
        self.found = found

    async def find(self, asked: Asked) -> Found | None:
        """Find it."""
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def upstream(name: str) -> Upstream:
    """An upstream without doors."""
    return Upstream(name, [], InOrder([]))


class Bed:
    """A directory of two upstreams."""

    def __init__(
        self,
        *rules: Rule,
        answer: Identified | NotIdentified | None = None,
        identities: dict[str, UpstreamIdentity] | None = None,
        relay: bool = False,
        cache: float = 60.0,
        moves: Moves | None = None,
        names: tuple[str, ...] = ("old", "new"),
    ) -> None:
        self.clock = Clock()
        self.proofs = Proofs(b"key", cache)
        self.moves = moves or Moves()
        self.upstreams = {name: upstream(name) for name in names}
        self.verifier = None if answer is None else Verifier(answer)
        self.directory = Directory(
            DEFAULTS,
            Router(rules, "old", frozenset(self.upstreams), lambda name: is_user(name.encode(), 256)),
            self.upstreams,
            self.proofs,
            self.moves,
            self.clock,
            lambda: NOW + self.clock.seconds(),
            chain=None if self.verifier is None else Chain([self.verifier], 256),
            identities=identities,
            relay=relay,
            elsewhere=self.elsewhere,
        )

    @staticmethod
    def elsewhere(like: Upstream, host: str, port: int) -> Upstream:
        """Another upstream like this one."""
        return upstream(f"{like.name}@{host}:{port}")

    def asks(self, login: Login = ALICE, client: Client = CLIENT) -> list[Any]:
        """Ask; the answer stands in the list when there is one."""
        answers: list[Any] = []
        self.asking = Deferred.fromCoroutine(self.directory.account(client, login, 3))
        self.asking.addBoth(answers.append)
        return answers

    def account(self, login: Login = ALICE, client: Client = CLIENT) -> Account:
        """Ask, and get an account at once."""
        (account,) = self.asks(login, client)
        assert isinstance(account, Account), account
        return account

    def refusal(self, login: Login = ALICE, client: Client = CLIENT) -> Refusal:
        """Ask, and get none, at once."""
        (refusal,) = self.asks(login, client)
        assert isinstance(refusal, Refusal), refusal
        return refusal


def credentials(account: Account) -> tuple[bytes, bytes, bytes]:
    """What upstream will be shown: user, password, authorisation identity."""
    shown = account.login.credentials
    assert shown is not None
    return shown.user, shown.password.reveal(), shown.authorisation


# --- mode pass --------------------------------------------------------------------------------------


def test_pass() -> None:
    """What the client gave goes upstream; who it is, upstream says, unless that was proved not long ago."""
    bed = Bed()
    account = bed.account()
    assert credentials(account) == (b"alice", PASSWORD, b"")
    assert account.upstream is bed.upstreams["old"]
    assert (account.place, account.generation, account.pinned) == (("old", b"alice"), None, "")
    assert (account.mode, account.verified) == (PoolMode.SESSION, False)
    assert account.digest
    generation = bed.proofs.proved(account.place, account.digest, 0.0)
    assert bed.account().generation == generation
    assert bed.account(Login(b"PLAIN", Credentials(b"alice", Secret(b"other")))).generation is None
    assert bed.account(Login(b"PLAIN", Credentials(b"bob", Secret(PASSWORD)))).generation is None
    bed.clock.advance(61)
    assert bed.account().generation is None


@pytest.mark.parametrize(
    "given",
    [
        Credentials(b"a\r\nb", Secret(b"pw")),
        Credentials(b"alice", Secret(b"pw"), b"bob"),
        Credentials(b"alice", Secret(b"")),
        Credentials(b"x" * 257, Secret(b"pw")),
    ],
)
def test_a38_inadmissible(given: Credentials) -> None:
    """What no user has, and a foreign authorisation identity, is a failed login, and nothing is looked up."""
    bed = Bed(Rule("rule", lookup=Lookup(AssertionError("asked"))))
    assert bed.refusal(Login(b"PLAIN", given)) == Refusal(Failed(Failure.CREDENTIALS))


def test_an_authorisation_identity_of_ones_own() -> None:
    """A client that says twice who it is says it once upstream."""
    account = Bed().account(Login(b"PLAIN", Credentials(b"alice", Secret(PASSWORD), b"alice")))
    assert credentials(account) == (b"alice", PASSWORD, b"")


def test_a33_one_digest_for_each_credential() -> None:
    """The same password elsewhere, or of another user, is another credential."""
    bed = Bed(Rule("new", user=("b*",), upstream="new"))
    first = bed.account()
    second = bed.account(Login(b"PLAIN", Credentials(b"bob", Secret(PASSWORD))))
    assert first.digest != second.digest
    bed.moves.end("alice", "new")
    assert bed.account().digest != first.digest
    assert bed.account().place == ("new", b"alice")


# --- mode relay, and mechanisms ---------------------------------------------------------------------


def test_relay() -> None:
    """In mode relay even a password is shown to its upstream and then forgotten: nothing is proved, nothing is kept."""
    account = Bed(relay=True).account()
    assert credentials(account) == (b"alice", PASSWORD, b"")
    assert (account.pinned, account.digest, account.generation) == ("relayed login", None, None)
    assert account.mode is PoolMode.SESSION


def test_a_relayed_mechanism() -> None:
    """A mechanism that hides the user goes where listener, SNI and network alone say, or nowhere."""
    bed = Bed(Rule("sni", server_name=("new.example",), upstream="new"), Rule("user", user=("a*",), upstream="new"))
    account = bed.account(RELAYED, CLIENT._replace(server_name="new.example"))
    assert (account.upstream.name, account.user, account.pinned) == ("new", b"", "relayed mechanism")
    assert account.login is RELAYED
    assert bed.refusal(RELAYED) == Refusal(Failed(Failure.NO_MECHANISM))


def test_mechanisms() -> None:
    """Offered is what ends at the gate, and what the one possible upstream was seen to offer."""
    bed = Bed(Rule("user", user=("a*",), upstream="new"))
    assert bed.directory.mechanisms(CLIENT) == ((b"PLAIN", b"LOGIN"), ())
    bed = Bed(Rule("listener", listener=("inside",), upstream="new"))
    bed.upstreams["new"].relayed = (b"CRAM-MD5",)
    assert bed.directory.mechanisms(CLIENT) == ((b"PLAIN", b"LOGIN"), ())
    assert bed.directory.mechanisms(CLIENT._replace(listener="inside")) == ((b"PLAIN", b"LOGIN"), (b"CRAM-MD5",))
    bed = Bed(answer=Identified(b"alice"))
    bed.upstreams["old"].relayed = (b"CRAM-MD5",)
    assert bed.directory.mechanisms(CLIENT) == ((b"PLAIN", b"XOAUTH2"), ())


# --- mode master ------------------------------------------------------------------------------------

MASTER = Authorisation(b"gate", Secret(b"master"))


def test_master() -> None:
    """Who was verified goes upstream by the gate's own credential, as the one canonical name."""
    bed = Bed(answer=Identified(b"alice@example.org"), identities={"old": MASTER})
    client = CLIENT._replace(listener="public", server_name="mail.example", secure=True)
    account = bed.account(client=client)
    assert credentials(account) == (b"gate", b"master", b"alice@example.org")
    assert account.place == ("old", b"alice@example.org")
    assert account.verified
    assert account.generation == bed.proofs.generation(account.place)
    assert bed.verifier is not None
    assert bed.verifier.shown == [
        Presented(
            b"PLAIN", GIVEN, "192.0.2.7", "192.0.2.1", "0123456789ab", "public",
            "mail.example", 3, secure=True,
        )
    ]  # fmt: skip


def test_master_by_a_unix_socket() -> None:
    """A client of a Unix socket has no address at either end."""
    bed = Bed(answer=Identified(b"alice"), identities={"old": MASTER})
    bed.account(client=Client(None, None, "x"))
    assert bed.verifier is not None
    assert bed.verifier.shown[0][2:4] == (None, None)


@pytest.mark.parametrize("failure", [Failure.CREDENTIALS, Failure.TEMPORARY])
def test_not_identified(failure: Failure) -> None:
    """Who is not identified is told after the time that the verifier wants."""
    bed = Bed(answer=NotIdentified(failure, "no", 7.0), identities={"old": MASTER})
    assert bed.refusal() == Refusal(Failed(failure), 7.0)


def test_no_way_upstream() -> None:
    """A user whom the gate cannot log in is told that there is no way, and the log says where it is missing."""
    for identities in ({}, {"new": MASTER}, {"old": DovecotMaster(b"gate", Secret(b"master"))}):
        bed = Bed(answer=Identified(b"a*b"), identities=dict(identities))
        with logged(module) as lines:
            assert bed.refusal() == Refusal(Failed(Failure.NO_MECHANISM))
        assert len(lines) == 1
        assert "upstream old" in lines[0]
        assert "master" in lines[0]


def test_a_password_of_the_verifiers() -> None:
    """Where the verifier says with what to go upstream, that goes before any master user."""
    answer = Identified(b"alice", Credentials(b"alice", Secret(b"inner")))
    assert credentials(Bed(answer=answer, identities={"old": MASTER}).account()) == (b"alice", b"inner", b"")


def test_a31_a_rewritten_user_is_the_user_that_is_logged_in() -> None:
    """The name that a pool has is the name that upstream is shown, whoever says with which password."""
    rule = Rule("rule", rewrite="{local}")
    for name in (b"alice@a.example", b"alice@b.example"):
        answer = Identified(name, Credentials(name, Secret(b"inner")))
        account = Bed(rule, answer=answer).account()
        assert account.place == ("old", b"alice")
        assert credentials(account) == (b"alice", b"inner", b"")
        account = Bed(rule, answer=Identified(name), identities={"old": MASTER}).account()
        assert account.place == ("old", b"alice")
        assert credentials(account) == (b"gate", b"master", b"alice")
    account = Bed(rule).account(Login(b"PLAIN", Credentials(b"alice@a.example", Secret(PASSWORD))))
    assert account.place == ("old", b"alice")
    assert credentials(account) == (b"alice", PASSWORD, b"")


def test_redirected() -> None:
    """A verifier that names a server sends its user there, and the gate logs in there as it does at home."""
    answer = Identified(b"alice", None, Redirect("192.0.2.9", 1143))
    account = Bed(answer=answer, identities={"old": MASTER}).account()
    assert account.upstream.name == "old@192.0.2.9:1143"
    assert account.place == ("old@192.0.2.9:1143", b"alice")
    assert credentials(account) == (b"gate", b"master", b"alice")


# --- routes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", PoolMode)
def test_route(mode: PoolMode) -> None:
    """A rule says where a user goes, how it is called there, and for how long a connection is its own."""
    bed = Bed(Rule("rule", domain=("example.org",), upstream="new", rewrite="{local}", pool_mode=mode))
    account = bed.account(Login(b"PLAIN", Credentials(b"bob@example.org", Secret(PASSWORD))))
    assert account.place == ("new", b"bob")
    assert account.mode is mode
    assert account.terms == bed.upstreams["new"].terms[mode]
    assert credentials(account) == (b"bob", PASSWORD, b"")


@pytest.mark.parametrize(
    ("found", "failure"), [(LookupFailed("down"), Failure.UNROUTABLE), (Found(upstream="gone"), Failure.UNROUTABLE)]
)
def test_unroutable(found: Found | Exception, failure: Failure) -> None:
    """Where it cannot be found out where a user is at home, the user is told so, and the log why."""
    bed = Bed(Rule("rule", lookup=Lookup(found)))
    with logged(module) as lines:
        assert bed.refusal() == Refusal(Failed(failure))
    (line,) = lines
    assert line.startswith("warn: no route for a login: rule: ")
    assert line.endswith("session=0123456789ab")


def test_a_name_that_cannot_be_rewritten() -> None:
    """A name that is none when it is rewritten is a failed login like any other (THREATS A36)."""
    bed = Bed(Rule("rule", rewrite="{domain}"))
    with logged(module):
        assert bed.refusal() == Refusal(Failed(Failure.CREDENTIALS))


def test_nologin() -> None:
    """A user who may not log in now is told the operator's reason."""
    bed = Bed(Rule("rule", nologin="Back at six"))
    assert bed.refusal() == Refusal(Failed(Failure.NO_LOGIN, b"Back at six"))


def test_delay_until() -> None:
    """A login that comes a little too early waits; one that comes much too early is refused."""
    bed = Bed(Rule("rule", delay_until=NOW + 20))
    answers = bed.asks()
    bed.clock.advance(19.9)
    assert answers == []
    bed.clock.advance(0.2)
    assert isinstance(answers[0], Account)
    assert isinstance(bed.account(), Account)
    assert not bed.clock.getDelayedCalls()
    assert Bed(Rule("rule", delay_until=NOW + 31)).refusal() == Refusal(Failed(Failure.NO_LOGIN))


def test_a51_gone_while_it_is_delayed() -> None:
    """A client that goes while its login is delayed leaves no timer."""
    bed = Bed(Rule("rule", delay_until=NOW + 20))
    answers = bed.asks()
    bed.asking.cancel()
    assert answers[0].check(CancelledError)
    assert not bed.clock.getDelayedCalls()


def test_a_route_elsewhere() -> None:
    """A route that names a host and a port goes there."""

    class Elsewhere(Router):
        async def route(self, asked: Asked) -> Route:
            return Route("old", redirect=("192.0.2.9", 143))

    bed = Bed()
    bed.directory._router = Elsewhere([Rule("rule")], "old", frozenset(["old"]), lambda name: True)
    assert bed.account().upstream.name == "old@192.0.2.9:143"


# --- moves ------------------------------------------------------------------------------------------


def test_a_user_that_is_being_moved_waits() -> None:
    """While a user is moved every login of theirs waits, and of nobody else's; then it goes where they are."""
    bed = Bed()
    bed.moves.begin("alice")
    bed.moves.begin("alice")
    first, second = bed.asks(), bed.asks()
    assert first == second == []
    assert bed.account(Login(b"PLAIN", Credentials(b"bob", Secret(PASSWORD)))).upstream.name == "old"
    bed.moves.end("alice", "new")
    assert [answer.upstream.name for answer in first + second] == ["new", "new"]
    assert bed.account().upstream.name == "new"
    assert bed.moves.upstream("alice") == "new"


def test_a_move_that_came_to_nothing() -> None:
    """Where a move is given up its user goes where they always went."""
    bed = Bed()
    bed.moves.begin("alice")
    answers = bed.asks()
    bed.moves.end("alice", None)
    assert answers[0].upstream.name == "old"
    assert bed.moves.upstream("alice") is None


def test_a51_gone_while_it_is_moved() -> None:
    """A client that goes while its user is moved is waited for by nobody."""
    bed = Bed()
    bed.moves.begin("alice")
    answers = bed.asks()
    bed.asking.cancel()
    assert answers[0].check(CancelledError)
    bed.moves.end("alice", "new")
    assert len(answers) == 1


def test_moved_before_redirected() -> None:
    """What the operator said last goes before what a verifier says."""
    answer = Identified(b"alice", Credentials(b"alice", Secret(b"inner")), Redirect("192.0.2.9", 1143))
    bed = Bed(answer=answer)
    bed.moves.end("alice", "new")
    assert bed.account().upstream.name == "new"


def test_moved_to_an_upstream_that_is_gone() -> None:
    """A user that was moved to an upstream which a reload took away goes where everybody goes."""
    moves = Moves()
    moves.end("alice", "new")
    assert Bed(moves=moves, names=("old",)).account().upstream.name == "old"


def test_a40_no_secret_is_shown() -> None:
    """Neither an account nor a refusal has a password in its repr."""
    shown: Callable[[object], str] = repr
    bed = Bed()
    account = bed.account()
    assert PASSWORD.decode() not in shown(account.login) + shown(account.key) + shown(account) + shown(account.place)
