"""What sessions hold where mailboxes are shared, chairs, and what carries their channels, lines: bytes in and out.

A line whose reader is slow is held; when that takes too long for the others it goes on, and what the slow one gets is
spooled.  Knows no IMAP.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.python.failure import Failure as TwistedFailure
from zope.interface import implementer

from imapgate.log import log
from imapgate.model.failure import Failure
from imapgate.net.dial import Client
from imapgate.net.pools import Account, Lease
from imapgate.net.spool import Spool
from imapgate.net.upstream import UpstreamProtocol
from imapgate.net.valve import Valve
from imapgate.sharing.channel import Channel
from imapgate.sharing.seat import Seat

if TYPE_CHECKING:
    from imapgate.net.shares import Sharing

_CHUNK = 64 * 1024


class Slow(Enum):
    """Why a line is not read from."""

    READER = "slow reader"


class Sitter(Protocol):
    """Whoever sits on a chair."""

    def upstream_received(self, data: bytes) -> None:
        """Its upstream has said something."""

    def upstream_ended(self, failure: Failure) -> None:
        """Its upstream is gone."""

    def stalled(self) -> None:
        """It takes nothing, and is not waited for any more."""


class Chair:
    """What one session has for a connection: lease, protocol and transport in one.

    :ivar account: whose session it is
    :ivar owner: the session
    :ivar valve: the session's reasons for being told nothing
    :ivar pinned: why it has a connection of its own
    """

    connected = True

    def __init__(self, sharing: Sharing, seat: Seat, account: Account, client: Client) -> None:
        self._sharing = sharing
        self.seat = seat
        self.account = account
        self.client = client
        self.connection = self.protocol = self.transport = self
        self.owner: Sitter | None = None
        self.valve = Valve(self)  # type: ignore[arg-type]  # of a transport it is only paused and resumed
        self.pinned = ""
        self.producer: Any = None
        self._paused = False
        self._line: Line | None = None  # that it holds
        self._given_up = False  # nobody waits for it any more
        self._look: IDelayedCall | None = None
        self._draining: IDelayedCall | None = None
        self._spool = Spool(sharing.limits.share_spool_memory, sharing.limits.share_spool)

    @property
    def bound(self) -> bool:
        """Whether its mailbox is looked at, or a connection is its own."""
        return self.seat.channel is not None or self.seat.line is not None

    # --- as a lease -------------------------------------------------------------------------------------

    def give_back(self, *, selected: bool) -> None:
        """The session is over."""
        self._leave()

    def destroy(self, *, abort: bool = False) -> None:
        """The session is over."""
        self._leave()

    def _leave(self) -> None:
        self.owner = None
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None
        self._release()
        self._spool.close()
        self._sharing.leave(self)

    # --- as a transport ---------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """The session says something."""
        self._sharing.said(self, data)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Name what is to be held while a line has too much to send."""
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Name nothing any more."""
        self.producer = None

    def pauseProducing(self) -> None:
        """The session takes nothing for now."""
        self._paused = True
        self._hold()

    def resumeProducing(self) -> None:
        """It takes something again; as from every transport, that comes when whoever says so is done."""
        self._paused = False
        if not self._spool:
            self._release()
        elif self._draining is None:
            self._draining = self._sharing.clock.callLater(0, self._drain)

    def _drain(self) -> None:
        self._draining = None
        while self._spool and not self._paused and self.owner is not None:
            self.owner.upstream_received(self._spool.take(_CHUNK))
        if not self._paused:
            self._release()

    # --- what it is told --------------------------------------------------------------------------------

    def deliver(self, data: bytes) -> None:
        """Tell the session something, now or when it takes it."""
        owner = self.owner
        if owner is None:
            return
        if not self._paused and not self._spool:
            owner.upstream_received(data)
        elif self._spool.put(data):
            self._hold()
        else:
            self._sharing.counts["overflowed"] += 1
            log.warn("a session takes nothing, and is ended: session={session}", session=self.client.session)
            owner.stalled()

    def ended(self, failure: Failure) -> None:
        """Tell the session that its upstream is gone."""
        if self.owner is not None:
            self.owner.upstream_ended(failure)

    def _hold(self) -> None:
        """Stop reading where the session's answer comes from, unless the others have waited for long enough."""
        line = None if self._given_up or self._line is not None else self._sharing.line_of(self.seat)
        if line is not None:
            self._line = line
            line.hold()
            self._look = self._sharing.clock.callLater(self._sharing.stall, self._stalls)

    def _stalls(self) -> None:
        line = self._line
        assert line is not None
        self._look = None
        if line.channel.waiting or line.channel.idlers:
            self._given_up = True
            self._sharing.counts["stalled"] += 1
            self._let_go()
        else:
            self._look = self._sharing.clock.callLater(self._sharing.stall, self._stalls)

    def _let_go(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.free()

    def _release(self) -> None:
        self._given_up = False
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self._let_go()


@implementer(IPushProducer)
class Line:
    """One upstream connection, and the channel that it carries.

    :ivar held: it is not read from, because whoever is answered there takes nothing
    """

    def __init__(self, sharing: Sharing, channel: Channel, lease: Lease) -> None:
        self._sharing = sharing
        self.channel = channel
        self.lease = lease
        self.held = False
        self._protocol: UpstreamProtocol | None = None

    def bind(self) -> None:
        """It is connected."""
        protocol = self._protocol = self.lease.protocol
        protocol.owner = self
        protocol.transport.registerProducer(self, True)

    def hold(self) -> None:
        """Do not read from it: whoever is answered there is slow."""
        if self._protocol is not None:
            self.held = True
            self._protocol.valve.hold(Slow.READER)

    def free(self) -> None:
        """Read from it again, if it is still there."""
        if self._protocol is not None:
            self.held = False
            self._protocol.valve.free(Slow.READER)

    def write(self, data: bytes) -> None:
        """Send."""
        assert self._protocol is not None
        self._protocol.transport.write(data)

    def close(self, *, clean: bool, selected: bool) -> None:
        """Return the connection, or the wish for one."""
        protocol, self._protocol = self._protocol, None
        if protocol is None:
            self.lease.outcome.cancel()
            return
        protocol.valve.free(Slow.READER)
        protocol.transport.unregisterProducer()
        if clean:
            self.lease.give_back(selected=selected)
        else:
            self.lease.destroy()

    # --- as a producer: whoever sends a message here waits while it has too much to send ------------------

    def pauseProducing(self) -> None:
        """The connection has too much to send."""
        producer = self._sender()
        if producer is not None:
            producer.pauseProducing()

    def resumeProducing(self) -> None:
        """It has sent everything."""
        producer = self._sender()
        if producer is not None:
            producer.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is gone, which its owner hears, too."""

    def _sender(self) -> Any:
        return self._sharing.producer_of(self.channel.lent)

    # --- what the connection says -------------------------------------------------------------------------

    def upstream_secured(self) -> None:
        """TLS is never begun on a connection that is logged in."""

    def upstream_received(self, data: bytes) -> None:
        """The server has said something."""
        self._sharing.received(self.channel, data)

    def upstream_lost(self, reason: TwistedFailure) -> None:
        """The connection is gone."""
        self._sharing.lost(self.channel)
