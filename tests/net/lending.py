"""Whoever wants upstream connections, without a session, and the servers that are reached."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from imapgate.model.failure import Failure
from imapgate.model.secret import Credentials, Secret
from imapgate.net.dial import Client
from imapgate.net.directory import Refusal
from imapgate.net.pools import Account, Lease
from imapgate.pooling.connection import Terms
from imapgate.session.effects import Challenge, Failed, Granted, Login
from tests.net.asking import CLIENT, GREETING
from tests.net.wires import TERMS, Bench, bench, drop

UNSELECT = b"g1 OK [CAPABILITY IMAP4rev1 IDLE UNSELECT] in\r\n"
PLAINLY = b"g1 OK [CAPABILITY IMAP4rev1 IDLE] in\r\n"


def login_of(user: bytes = b"alice", password: bytes = b"pw") -> Login:
    """A login with a password."""
    return Login(b"PLAIN", Credentials(user, Secret(password)))


def account_of(made: Bench, login: Login, client: Client = CLIENT) -> Account:
    """Whose session that login begins."""
    found: list[Account | Refusal] = []
    Deferred.fromCoroutine(made.gate.directory.account(client, login, 1)).addCallback(found.append)
    (account,) = found
    assert isinstance(account, Account)
    return account


class Borrower:
    """Somebody who wants an upstream connection."""

    def __init__(
        self, made: Bench, user: bytes = b"alice", password: bytes = b"pw", account: Account | None = None
    ) -> None:
        self.made = made
        self.account = account or account_of(made, login_of(user, password))
        self.answers: list[Granted | Failed] = []
        self.challenges: list[Challenge] = []
        self.lease = Lease(made.pools, self.account, CLIENT, self.challenges.append)
        self.lease.outcome.addCallbacks(self._told, lambda reason: reason.trap(CancelledError))

    def _told(self, answer: Granted | Failed) -> None:
        self.answers.append(answer)

    def asks(self) -> Borrower:
        """Ask."""
        self.made.pools.ask(self.lease)
        return self

    @property
    def granted(self) -> bool:
        """Whether it has a connection."""
        return len(self.answers) == 1 and isinstance(self.answers[0], Granted)

    @property
    def failure(self) -> Failure:
        """Why it has none, and that it was told so, once."""
        (answer,) = self.answers
        assert isinstance(answer, Failed)
        return answer.failure


class Server:
    """The server's end of the connection that was dialled last."""

    def __init__(self, made: Bench, completion: bytes | None = PLAINLY) -> None:
        self.protocol, self.wire = made.endpoints[0].opens(GREETING)
        self.wire.clear()
        if completion is not None:
            self.says(completion)

    def says(self, data: bytes) -> None:
        """Say this."""
        self.protocol.dataReceived(data)

    def drops(self) -> None:
        """End the connection."""
        drop(self.protocol, self.wire)

    @property
    def hears(self) -> bytes:
        """What the gate has said since the last look."""
        return self.wire.read()


def pooled(terms: Terms = TERMS) -> Bench:
    """A gate that keeps connections for a later login."""
    return bench(cache=3600.0, alone=True, terms=terms)


def dialled(made: Bench) -> int:
    """How often a connection was tried."""
    return len(made.endpoints[0].calls)


def lent(
    made: Bench, user: bytes = b"alice", password: bytes = b"pw", completion: bytes = PLAINLY
) -> tuple[Borrower, Server]:
    """Somebody who has a connection, a new one."""
    borrower = Borrower(made, user, password).asks()
    server = Server(made, completion)
    assert borrower.granted
    return borrower, server


def idle(made: Bench, user: bytes = b"alice", password: bytes = b"pw") -> Server:
    """A connection that is idle."""
    borrower, server = lent(made, user, password)
    borrower.lease.give_back(selected=False)
    assert server.hears == b"g2 NOOP\r\n"
    server.says(b"g2 OK done\r\n")
    assert "idle" in made.stages()
    return server
