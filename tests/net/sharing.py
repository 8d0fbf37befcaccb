"""Sessions of users at a gate that shares mailboxes, and the server behind it, which answers by itself."""

from __future__ import annotations

from twisted.internet.protocol import Protocol

from imapgate.limits import DEFAULTS, Limits
from imapgate.model.pool_mode import PoolMode, SharingTerms
from imapgate.net.chair import Chair
from imapgate.pooling.connection import Terms
from tests.net.sessions import UPSTREAM_GREETING, Session
from tests.net.wires import SHARING, TERMS, Bench, Wire, bench, connect, drop
from tests.sharing.server import DOVECOT, Server, Store

INBOX = b"INBOX"


class Member(Session):
    """One client of the gate, and the connection that its login has opened."""

    def __init__(self, site: Site, password: bytes) -> None:
        super().__init__(made=site.made)
        self.site = site
        self.connected()
        self.tells(b"l LOGIN alice " + password)

    def tells(self, command: bytes) -> bytes:
        """The client says this, and the server answers; what is it told?"""
        self.protocol.dataReceived(command + b"\r\n")
        return self.hears()

    def hears(self) -> bytes:
        """What it is told now, when the server has answered all that it was asked."""
        self.site.settle()
        return self.wire.read()

    @property
    def chair(self) -> Chair:
        """What it has in a connection's place."""
        chair = self.protocol.lease
        assert isinstance(chair, Chair)
        return chair

    def leaves(self) -> None:
        """The client goes."""
        drop(self.protocol, self.wire)
        self.site.settle()


class Upstream:
    """One upstream connection, logged in, and the server at its other end.

    :ivar held: it answers nothing for now
    """

    def __init__(self, protocol: Protocol, wire: Wire, store: Store) -> None:
        self.protocol = protocol
        self.wire = wire
        self.server = Server(store, DOVECOT)
        self.held = False
        self.heard = b""
        self._answers = b""

    def pump(self) -> bool:
        """Let the server take what it was sent, and the gate what it answers; whether there was anything."""
        if self.held or not self.wire.connected:
            return False
        said = self.wire.read()
        self.heard += said
        self._answers += self.server.received(said) if said else b""
        answers = b"" if self.wire.paused else self._answers
        if answers:
            self._answers = b""
            self.protocol.dataReceived(answers)
        if not self.wire.open:
            self.drops()
        return bool(said or answers)

    def tells(self) -> None:
        """The server says of its own accord what is new."""
        self._answers += self.server.pending()

    def drops(self) -> None:
        """The connection ends."""
        if self.wire.connected:
            drop(self.protocol, self.wire)


class Site:
    """A gate in mode shared, a server with one user's mail, and all connections between them.

    :ivar silent: nobody answers who dials
    """

    def __init__(
        self,
        sharing: SharingTerms = SHARING,
        *,
        limits: Limits = DEFAULTS,
        terms: Terms = TERMS,
        cache: float = 0.0,
        messages: int = 3,
    ) -> None:
        self.made: Bench = bench(
            limits, mode=PoolMode.SHARED, terms=terms, sharing=sharing, cache=cache, alone=cache > 0
        )
        self.store = Store()
        self.silent = False
        self.upstreams: list[Upstream] = []
        for _ in range(messages):
            self.inbox.append()

    @property
    def inbox(self):  # noqa: ANN201
        return self.store.mailboxes[INBOX]

    def login(self, password: bytes = b"pw") -> Member:
        """A client that has logged in."""
        member = Member(self, password)
        assert b"l OK" in member.wire.value() or True
        member.wire.clear()
        return member

    def settle(self) -> None:
        """Let everybody answer until nobody has anything to say."""
        calls = self.made.endpoints[0].calls
        while True:
            while not self.silent and len(self.upstreams) < len(calls):
                protocol, wire = self.made.endpoints[0].opens(UPSTREAM_GREETING)
                wire.clear()
                upstream = Upstream(protocol, wire, self.store)
                self.upstreams.append(upstream)
                protocol.dataReceived(b"g1 OK [CAPABILITY %b] in\r\n" % upstream.server.capabilities)
            if not any([upstream.pump() for upstream in self.upstreams]):
                return

    def ticks(self, seconds: float = 1.0) -> None:
        """Time passes, and everybody sees to it."""
        self.made.clock.advance(seconds)
        self.made.pools.ticked()
        self.made.gate.shares.ticked()
        self.settle()

    @property
    def shares(self):
        return self.made.gate.shares

    @property
    def counts(self):
        return self.made.gate.shares.counts
