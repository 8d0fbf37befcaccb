"""Shared mailboxes, outside the core: chairs that sessions hold in a server's place, and lines that carry channels.

Moves bytes between them as a share says, holds a line whose reader is slow, and lets the others go on when that takes
too long.  Knows no IMAP.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure as TwistedFailure
from zope.interface import implementer

from imapgate.limits import Limits
from imapgate.log import log
from imapgate.model.commands import Table
from imapgate.model.failure import Failure
from imapgate.model.pool_mode import IdleMode, PoolMode
from imapgate.net.dial import Client
from imapgate.net.pools import Account, Lease, Pools
from imapgate.net.spool import Spool
from imapgate.net.upstream import UpstreamProtocol
from imapgate.net.valve import Valve
from imapgate.pooling.connection import Key
from imapgate.session.effects import Failed, Granted
from imapgate.session.link import Link
from imapgate.sharing.channel import Channel
from imapgate.sharing.effects import Effect, End, GiveBack, Pinned, Polled, Say, Send, Want
from imapgate.sharing.seat import Seat
from imapgate.sharing.share import Share

_CHUNK = 64 * 1024
_POLL_LINGER = 1.0


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
        self._spool = Spool(sharing.limits.share_spool_memory, sharing.limits.share_spool)

    # --- as a lease -------------------------------------------------------------------------------------

    def give_back(self, *, selected: bool) -> None:
        """The session is over."""
        self._leave()

    def destroy(self, *, abort: bool = False) -> None:
        """The session is over."""
        self._leave()

    def _leave(self) -> None:
        self.owner = None
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
        """It takes something again."""
        self._paused = False
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
            line.valve.hold(Slow.READER)
            if self._look is None:
                self._look = self._sharing.clock.callLater(self._sharing.stall, self._stalls)

    def _stalls(self) -> None:
        self._look = None
        line = self._line
        if line is None:
            return
        if line.channel.waiting:
            self._given_up = True
            self._sharing.counts["stalled"] += 1
            self._let_go()
        else:
            self._look = self._sharing.clock.callLater(self._sharing.stall, self._stalls)

    def _let_go(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.valve.free(Slow.READER)

    def _release(self) -> None:
        self._given_up = False
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self._let_go()


@implementer(IPushProducer)
class Line:
    """One upstream connection, and the channel that it carries."""

    def __init__(self, sharing: Sharing, channel: Channel, lease: Lease) -> None:
        self._sharing = sharing
        self.channel = channel
        self.lease = lease
        self._protocol: UpstreamProtocol | None = None

    @property
    def valve(self) -> Valve:
        """Reasons for not reading from it."""
        assert self._protocol is not None
        return self._protocol.valve

    def bind(self) -> None:
        """It is connected."""
        protocol = self._protocol = self.lease.protocol
        protocol.owner = self
        protocol.transport.registerProducer(self, True)

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


class Sharing:
    """One share, outside the core."""

    def __init__(self, shares: Shares, account: Account) -> None:
        upstream = account.upstream
        terms, sharing = upstream.terms[PoolMode.SHARED], upstream.sharing
        self._shares = shares
        self.upstream = upstream
        self.clock = shares.clock
        self.limits = shares.limits
        self.counts = shares.counts
        self.stall = sharing.share_stall
        linger = min(terms.idle, _POLL_LINGER) if sharing.idle is IdleMode.POLL else terms.idle
        self.share = Share(
            shares.limits, shares.table, sharing, linger=linger, alone=terms.alone, jitter=shares.jitter,
            counts=shares.counts,
        )  # fmt: skip
        self.share.now = shares.clock.seconds()
        self.chairs: dict[Seat, Chair] = {}
        self._lines: dict[Channel, Line] = {}
        self._effects: deque[Effect] = deque()
        self._performing = False
        self.next_poll: float | None = None
        self.polling = False

    # --- for chairs and lines -----------------------------------------------------------------------------

    def sit(self, lease: Lease, granted: Granted) -> tuple[Chair, Granted]:
        """A session has logged in by this connection; return what it has in its place."""
        chair = Chair(self, self.share.sit(), lease.account, lease.client)
        self.chairs[chair.seat] = chair
        link = Link(self.limits)
        link.capabilities = granted.link.capabilities
        channel, effects = self.share.adopt(granted.link)
        line = self._lines[channel] = Line(self, channel, lease)
        line.bind()
        self.perform(effects)
        return chair, granted._replace(link=link)

    def leave(self, chair: Chair) -> None:
        """A session is over."""
        if self.chairs.pop(chair.seat, None) is not None:
            self.perform(self.share.leave(chair.seat))

    def said(self, chair: Chair, data: bytes) -> None:
        """A session has written something."""
        self.perform(self.share.said(chair.seat, data))

    def received(self, channel: Channel, data: bytes) -> None:
        """A server has said something."""
        self.perform(self.share.received(channel, data))

    def lost(self, channel: Channel) -> None:
        """A connection is gone."""
        line = self._lines.pop(channel, None)
        if line is not None:
            line.close(clean=False, selected=False)
        self.perform(self.share.lost(channel))

    def line_of(self, seat: Seat) -> Line | None:
        """The line that a session's answer comes from; ``None``: none at present."""
        if seat.line is not None:
            return self._lines.get(seat.line)
        channel = seat.channel
        if channel is not None and channel.job is not None and channel.job.seat is seat:
            return self._lines.get(channel)
        return None

    def producer_of(self, seat: Seat | None) -> Any:
        """What sends to the connection that this session has for itself."""
        chair = None if seat is None else self.chairs.get(seat)
        return None if chair is None else chair.producer

    def ticked(self, now: float) -> None:
        """Time has passed."""
        for channel, line in list(self._lines.items()):
            connection = line.lease.connection
            if connection is not None and (connection.stale or now >= connection.expires):
                self.perform(self.share.retire(channel))
        self.perform(self.share.ticked(now))

    def close(self) -> None:
        """Give everything back that nobody needs."""
        self.perform(self.share.close())

    # --- performing ---------------------------------------------------------------------------------------

    def perform(self, effects: Sequence[Effect]) -> None:
        """Perform effects in order; what comes of one stands behind all that are there."""
        self._effects.extend(effects)
        if self._performing:
            return
        self._performing = True
        try:
            while self._effects:
                effect = self._effects.popleft()
                _PERFORM[type(effect)](self, effect)
        finally:
            self._performing = False
        if self.share.empty:
            self._shares.forget(self)

    def _say(self, effect: Say) -> None:
        chair = self.chairs.get(effect.seat)
        if chair is not None:
            chair.deliver(effect.data)

    def _send(self, effect: Send) -> None:
        line = self._lines.get(effect.channel)
        if line is not None:
            line.write(effect.data)

    def _want(self, effect: Want) -> None:
        channel, chair = effect.channel, self.chairs.get(effect.seat) or next(iter(self.chairs.values()), None)
        if chair is None:
            self.perform(self.share.refused(channel, Failed(Failure.CANCELLED)))
            return
        lease = Lease(self._shares.pools, chair.account, chair.client)
        self._lines[channel] = Line(self, channel, lease)
        lease.outcome.addCallbacks(self._wanted, _cancelled, callbackArgs=(channel,))
        self._shares.pools.ask(lease)

    def _wanted(self, outcome: Granted | Failed, channel: Channel) -> None:
        if isinstance(outcome, Failed):
            self._lines.pop(channel, None)
            self.perform(self.share.refused(channel, outcome))
        else:
            self._lines[channel].bind()
            self.perform(self.share.opened(channel, outcome.link))

    def _give_back(self, effect: GiveBack) -> None:
        line = self._lines.pop(effect.channel, None)
        if line is not None:
            line.close(clean=effect.clean, selected=effect.selected)

    def _end(self, effect: End) -> None:
        chair = self.chairs.pop(effect.seat, None)
        if chair is not None:
            chair.ended(effect.failure)

    def _pinned(self, effect: Pinned) -> None:
        self.counts["pinned"] += 1
        self._shares.pins[effect.reason] += 1
        chair = self.chairs.get(effect.seat)
        if chair is not None:
            chair.pinned = effect.reason

    def _polled(self, effect: Polled) -> None:
        self.polling = False


_PERFORM: dict[type, Callable[..., None]] = {
    Say: Sharing._say,
    Send: Sharing._send,
    Want: Sharing._want,
    GiveBack: Sharing._give_back,
    End: Sharing._end,
    Pinned: Sharing._pinned,
    Polled: Sharing._polled,
}


def _cancelled(reason: TwistedFailure) -> None:
    """Nobody waits for it any more."""
    reason.trap(CancelledError)


class Shares:
    """All shares of a gate.

    :ivar counts: what was done how often
    :ivar pins: how often sessions were given connections of their own, by reason
    """

    def __init__(
        self, pools: Pools, limits: Limits, table: Table, clock: IReactorTime, jitter: Callable[[], float]
    ) -> None:
        self.pools = pools
        self.limits = limits
        self.table = table
        self.clock = clock
        self.jitter = jitter
        self.counts: Counter[str] = Counter()
        self.pins: Counter[str] = Counter()
        self._shares: dict[Key, Sharing] = {}

    def configure(self, limits: Limits, table: Table) -> None:
        """Keep other limits, for whoever comes."""
        self.limits, self.table = limits, table

    def sit(self, lease: Lease, granted: Granted) -> tuple[Chair, Granted]:
        """A session has logged in where mailboxes are shared; return what it has in the place of a connection."""
        key = lease.account.key
        sharing = self._shares.get(key)
        if sharing is None:
            sharing = self._shares[key] = Sharing(self, lease.account)
        return sharing.sit(lease, granted)

    def forget(self, sharing: Sharing) -> None:
        """Nothing is left of it."""
        for key in [key for key, each in self._shares.items() if each is sharing]:
            del self._shares[key]

    def close(self) -> None:
        """Keep nothing for later."""
        for sharing in list(self._shares.values()):
            sharing.close()

    def ticked(self) -> None:
        """Some time has passed."""
        now = self.clock.seconds()
        polls = Counter(sharing.upstream.name for sharing in self._shares.values() if sharing.polling)
        for sharing in list(self._shares.values()):
            sharing.ticked(now)
            self._poll(sharing, now, polls)

    def _poll(self, sharing: Sharing, now: float, polls: Counter[str]) -> None:
        """Have the mailboxes looked at of those who idle, in turn, and not too many at once."""
        terms, upstream = sharing.share.terms, sharing.upstream.name
        if sharing.polling or not sharing.share.unwatched:
            return
        if sharing.next_poll is None:  # those that come together are not to be looked at together
            sharing.next_poll = now + terms.idle_poll * self.jitter()
        elif now >= sharing.next_poll and polls[upstream] < terms.idle_connections:
            sharing.next_poll = now + terms.idle_poll * (0.9 + 0.2 * self.jitter())
            sharing.polling = True
            polls[upstream] += 1
            self.counts["polled"] += 1
            sharing.perform(sharing.share.poll())

    def rows(self) -> list[Sharing]:
        """All of them, for the operator."""
        return list(self._shares.values())
