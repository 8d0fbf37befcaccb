"""Shared mailboxes, outside the core: chairs that sessions hold in a server's place, and lines that carry channels.

Moves bytes between them as a share says, holds a line whose reader is slow, and lets the others go on when that takes
too long.  Knows no IMAP.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure as TwistedFailure

from imapgate.limits import Limits
from imapgate.log import log
from imapgate.model.commands import Table
from imapgate.model.failure import Failure
from imapgate.model.pool_mode import IdleMode, PoolMode
from imapgate.net.chair import Chair, Line
from imapgate.net.pools import Account, Lease, Pools
from imapgate.pooling.connection import Key
from imapgate.session.effects import Failed, Granted
from imapgate.session.link import Link
from imapgate.sharing.channel import Channel
from imapgate.sharing.effects import Broken, Effect, End, GiveBack, Pinned, Polled, Say, Send, Want
from imapgate.sharing.seat import Seat
from imapgate.sharing.share import Share
from imapgate.sharing.task import Idle

_POLL_LINGER = 1.0
COUNTED = ("seated", "opened", "joined", "reattached", "parked", "polled", "stalled", "overflowed", "pinned")
"""What is counted of shares: logins that needed no connection of their own; mailboxes that were opened, and joined;
sessions that had a channel again, and that gave theirs up; looks for those who idle; slow readers for whom nobody
waited any more, and those who were ended; sessions that were given a connection of their own."""


class Row(NamedTuple):
    """One channel, for the operator.

    :ivar sessions: so many look at it; ``idling``: so many of them idle; ``waiting``: so many commands wait there
    """

    upstream: str
    user: bytes
    mailbox: str | None
    read_only: str | None
    state: str
    sessions: int
    idling: int
    waiting: int


class Sharing:
    """One share, outside the core.

    :ivar keys: whose logins belong to it
    """

    def __init__(self, shares: Shares, account: Account) -> None:
        upstream = account.upstream
        terms, sharing = upstream.terms[PoolMode.SHARED], upstream.sharing
        self._shares = shares
        self.upstream = upstream
        self.user = account.user
        self.keys: set[Key] = set()
        self.clock = shares.clock
        self.limits = shares.limits
        self.counts = shares.counts
        self.stall = sharing.share_stall
        linger = min(terms.idle, _POLL_LINGER) if sharing.idle is IdleMode.POLL else terms.idle
        self.share = Share(
            shares.limits, shares.table, sharing, wait=terms.wait, linger=linger, alone=terms.alone,
            jitter=shares.jitter, counts=shares.counts, now=shares.clock.seconds(),
        )  # fmt: skip
        self.chairs: dict[Seat, Chair] = {}
        self._lines: dict[Channel, Line] = {}
        self._effects: deque[Effect] = deque()
        self._performing = False
        self.next_poll: float | None = None
        self.polling = False

    # --- for chairs and lines -----------------------------------------------------------------------------

    def sit(self, lease: Lease, granted: Granted) -> tuple[Chair, Granted]:
        """A session has logged in, by this connection if there is one; return what it has in its place."""
        chair = Chair(self, self.share.sit(), lease.account, lease.client)
        self.chairs[chair.seat] = chair
        link = Link(self.limits)
        link.capabilities = granted.link.capabilities
        if lease.bound:
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
            channel.heard |= line.held  # it is not the server that is silent
            if connection is not None and (now >= connection.expires or (connection.stale and channel.vacant)):
                self.perform(self.share.retire(channel))
        self.perform(self.share.ticked(now))

    def relieve(self) -> None:
        """Others wait for connections: give back those that nobody needs."""
        self.perform(self.share.relieve())

    def close(self) -> None:
        """Give everything back that nobody needs."""
        self.perform(self.share.close())

    def rows(self) -> list[Row]:
        """Its channels."""
        return [
            Row(
                self.upstream.name,
                self.user,
                None if channel.mailbox is None else channel.mailbox.name,
                None if channel.mailbox is None else "yes" if channel.mailbox.read_only else "no",
                _state(channel),
                len(channel.views),
                channel.idlers,
                len(channel.waiting),
            )
            for channel in self.share.channels
        ]

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
            line = self._lines[channel]
            line.bind()
            self._shares.proved(self, line.lease.account.key)
            self.perform(self.share.opened(channel, outcome.link))

    def _give_back(self, effect: GiveBack) -> None:
        line = self._lines.pop(effect.channel, None)
        if line is not None:
            line.close(clean=effect.clean, selected=effect.selected)

    def _end(self, effect: End) -> None:
        chair = self.chairs.pop(effect.seat, None)
        if chair is not None:
            session = chair.client.session
            log.info("a session that shares a mailbox ends: {why}: session={session}", why=effect.why, session=session)
            chair.ended(effect.failure)

    def _broken(self, effect: Broken) -> None:
        mailbox = effect.channel.mailbox
        log.warn(
            "a shared connection to {upstream} is given up: {why}: mailbox={mailbox}",
            upstream=self.upstream.name, why=effect.why, mailbox=repr(None if mailbox is None else mailbox.name),
        )  # fmt: skip

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
    Broken: Sharing._broken,
    Pinned: Sharing._pinned,
    Polled: Sharing._polled,
}


def _state(channel: Channel) -> str:
    if channel.lent is not None:
        return "pinned" if channel.lent.pinned else "lent"
    if channel.link is None:
        return "connecting"
    if channel.busy:
        return "busy"
    if channel.idle is not Idle.NONE:
        return "idling"
    return "retired" if channel.retired else "ready"


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
            sharing = Sharing(self, lease.account)
            self.proved(sharing, key)
        return sharing.sit(lease, granted)

    def proved(self, sharing: Sharing, key: Key) -> None:
        """A share's credential is proved, perhaps once more: logins with it belong there."""
        if self._shares.setdefault(key, sharing) is sharing:
            sharing.keys.add(key)

    def seats(self, account: Account) -> Granted | None:
        """Grant a login that needs no connection: it is proved, and its user's channels are there."""
        sharing = self._shares.get(account.key)
        if account.mode is not PoolMode.SHARED or account.generation is None or sharing is None:
            return None
        link = sharing.share.link
        if link is None or self.pools.book.paused(account.upstream.name):
            return None
        self.counts["seated"] += 1
        return Granted(link)

    def forget(self, sharing: Sharing) -> None:
        """Nothing is left of it."""
        for key in sharing.keys:
            del self._shares[key]
        sharing.keys.clear()

    def close(self) -> None:
        """Keep nothing for later."""
        for sharing in self._each():
            sharing.close()

    def ticked(self) -> None:
        """Some time has passed."""
        now = self.clock.seconds()
        polls = Counter(sharing.upstream.name for sharing in self._each() if sharing.polling)
        for sharing in self._each():
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

    def rows(self) -> list[Row]:
        """All channels, for the operator."""
        return [row for sharing in self._each() for row in sharing.rows()]

    def _each(self) -> list[Sharing]:
        """All of them, each once."""
        return list(dict.fromkeys(self._shares.values()))
