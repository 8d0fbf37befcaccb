"""Sessions of one user at a gate that shares mailboxes, and the server behind it, which answers by itself."""

from __future__ import annotations

from collections import Counter

from twisted.internet.protocol import Protocol

from imapgate.limits import DEFAULTS, Limits
from imapgate.model.pool_mode import PoolMode, SharingTerms
from imapgate.net.chair import Chair
from imapgate.net.shares import Row, Shares
from imapgate.pooling.connection import Terms
from tests.net.sessions import UPSTREAM_GREETING, Session
from tests.net.wires import SHARING, TERMS, Bench, Wire, bench, drop
from tests.sharing.server import DOVECOT, Server, Store
from tests.sharing.store import Mailbox

CHUNK = 64 * 1024
"""What a server says is read in pieces of at most so much."""


class Upstream:
    """One upstream connection, logged in, and the server at its other end.

    :ivar held: the server does nothing for now
    :ivar heard: all that it was told
    """

    def __init__(self, protocol: Protocol, wire: Wire, store: Store) -> None:
        self.protocol = protocol
        self.wire = wire
        self.server = Server(store, DOVECOT)
        self.held = False
        self.heard = b""
        self._answers = b""

    def pump(self) -> bool:
        """Let the server take what it was told, and the gate what it answers; whether there was anything."""
        if self.held or not self.wire.connected:
            return False
        told = self.wire.read()
        self.heard += told
        self._answers += self.server.received(told)
        answers = b"" if self.wire.paused else self._answers[:CHUNK]
        if answers:
            self._answers = self._answers[CHUNK:]
            self.protocol.dataReceived(answers)
        if not self.wire.open:
            self.drops()
        return bool(told or answers)

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
        alone: bool = False,
        messages: int = 3,
    ) -> None:
        self.made: Bench = bench(limits, mode=PoolMode.SHARED, terms=terms, sharing=sharing, cache=cache, alone=alone)
        self.store = Store()
        self.silent = False
        self.upstreams: list[Upstream] = []
        for _ in range(messages):
            self.inbox.append()

    @property
    def inbox(self) -> Mailbox:
        """The mailbox that is there."""
        return self.store.mailboxes[b"INBOX"]

    @property
    def shares(self) -> Shares:
        """What is tested."""
        return self.made.gate.shares

    @property
    def counts(self) -> Counter[str]:
        """How often it did what."""
        return self.shares.counts

    def rows(self) -> list[Row]:
        """What the operator sees."""
        return self.shares.rows()

    @property
    def alive(self) -> list[Upstream]:
        """The connections that are there."""
        return [upstream for upstream in self.upstreams if upstream.wire.connected]

    def login(self, password: bytes = b"pw") -> Member:
        """A client that has logged in."""
        member = Member(self, password)
        assert b"\r\nl OK " in member.hears()
        return member

    def selected(self, command: bytes = b"SELECT INBOX") -> Member:
        """A client that has logged in, and selected the mailbox."""
        member = self.login()
        assert b"\r\ns OK " in member.tells(b"s " + command)
        return member

    @property
    def _waiting(self) -> list[int]:
        calls = self.made.endpoints[0].calls
        return [number for number, (_, answer) in enumerate(calls) if not answer.called]

    def dials(self) -> None:
        """A server answers who dialled first and was not answered, and logs it in."""
        protocol, wire = self.made.endpoints[0].opens(UPSTREAM_GREETING, self._waiting[0])
        wire.read()
        upstream = Upstream(protocol, wire, self.store)
        self.upstreams.append(upstream)
        protocol.dataReceived(b"g1 OK [CAPABILITY %b] in\r\n" % upstream.server.capabilities)

    def settle(self) -> None:
        """Let everybody answer, until nobody has anything to say."""
        said = True
        while said:
            if not self.silent and self._waiting:
                self.dials()
            said = False
            for upstream in self.upstreams:
                said |= upstream.pump()

    def ticks(self, seconds: float = 1.0) -> None:
        """Time passes, everything looks at it, and everybody answers."""
        self.made.clock.advance(seconds)
        self.made.pools.ticked()
        self.shares.ticked()
        self.settle()


class Member(Session):
    """One client of the gate."""

    def __init__(self, site: Site, password: bytes) -> None:
        super().__init__(made=site.made)
        self.site = site
        self.connected()
        self.gives(b"l LOGIN alice " + password)

    def gives(self, *commands: bytes) -> None:
        """The client gives commands."""
        self.protocol.dataReceived(b"".join(command + b"\r\n" for command in commands))

    def hears(self) -> bytes:
        """What it is told when everybody has answered."""
        self.site.settle()
        return self.wire.read()

    def tells(self, *commands: bytes) -> bytes:
        """The client gives commands; what is it told?"""
        self.gives(*commands)
        return self.hears()

    @property
    def chair(self) -> Chair:
        """What it has in a connection's place."""
        chair = self.protocol.lease
        assert isinstance(chair, Chair)
        return chair

    def leaves(self) -> list[str]:
        """The client goes; the lines that are logged."""
        lines = self.lost()
        self.site.settle()
        return lines
