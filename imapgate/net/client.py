"""The client's connection: its protocol, and what each of the core's effects means for it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure as TwistedFailure
from zope.interface import implementer

from imapgate.model.failure import Failure
from imapgate.model.pool_mode import PoolMode
from imapgate.model.verdict import Disconnect
from imapgate.net.attempt import Attempt
from imapgate.net.chair import Chair
from imapgate.net.dial import Client, Upstream, address_port
from imapgate.net.gate import Door, Gate, trustworthy
from imapgate.net.loop import Loop
from imapgate.net.pools import Account, Lease
from imapgate.net.timers import Timers
from imapgate.net.tls import describe, server_name
from imapgate.net.upstream import CLOSE_SECONDS, UpstreamProtocol
from imapgate.net.valve import Full, Sink, Transport, Valve
from imapgate.net.watch import Watch
from imapgate.session.effects import (
    Answer,
    Ask,
    CancelTimer,
    Close,
    Commit,
    Failed,
    Free,
    Granted,
    Hold,
    Judge,
    Judgement,
    LoggedIn,
    Login,
    Reason,
    Record,
    Release,
    Report,
    Respond,
    SendClient,
    SendUpstream,
    SetTimer,
    Side,
    StartTLS,
    Timer,
    Traced,
    Violation,
)
from imapgate.session.login import Terms
from imapgate.session.session import ClientSession

_SOFT = (Reason.ANSWER, Reason.VERDICT)
"""Reasons for which the client is heard once more before it is held: it may have gone."""


class Over(Enum):
    """Why the client is not read from any more."""

    HALF_CLOSED = "half-closed"


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class ClientProtocol(Protocol):
    """One client."""

    transport: Transport  # type: ignore[assignment]

    def __init__(
        self, gate: Gate, door: Door, address: str | None, session: str, left: Callable[[ClientProtocol], None]
    ) -> None:
        self.gate = gate
        self._door = door
        self.address = address
        self.client = Client(None, None, session)
        self._left = left
        self.session = ClientSession(gate.limits, gate.table)
        self.began = gate.clock.seconds()
        self.octets_in = 0
        self.octets_out = 0
        self._counted = False  # in the census, as a user
        self._valve: Valve  # both from connectionMade on
        self._sink: Sink
        self._upstream_sink: Sink  # as long as there is an upstream
        self._attempt: Attempt | None = None
        self._attempts = 0
        self._answer_awaited = False
        self._watch: Watch | None = None
        self._early: list[bytes] | None = None  # what came while it is not settled whether the client may be there
        self._judged_upstream = False  # what it said last is being judged
        self.account: Account | None = None
        """Whose session it is, once it has logged in."""
        self.lease: Lease | Chair | None = None
        """The upstream connection that it has, or waits for, after its login."""
        self._upstream: Transport | Chair | None = None  # the one that it has
        self._timers = Timers(gate.clock, self._ticked)
        self._closing: IDelayedCall | None = None  # a handshake or a close that must not take for ever
        self._loop = Loop(_PERFORM, self)
        self.perform = self._loop.perform

    @property
    def name(self) -> bytes:
        """The gate's one name for the user; empty before the login, and where SASL hides it."""
        return b"" if self.account is None else self.account.name

    @property
    def user(self) -> bytes:
        """Who it is, or is about to be."""
        return self.name if self._attempt is None else self._attempt.user

    @property
    def upstream(self) -> Upstream | None:
        """Where it is logged in, or is being logged in; who waits for a connection is nowhere yet."""
        if self.account is not None:
            return self.account.upstream
        return None if self._attempt is None else self._attempt.upstream

    @property
    def pinned(self) -> str:
        """Why it has an upstream connection that can be nobody else's; empty: it has none."""
        return self.lease.pinned if isinstance(self.lease, Chair) else self.session.pinned

    # --- what Twisted says ------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Set the socket up; greet, or begin TLS first."""
        transport, gate = self.transport, self.gate
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        peer, host = address_port(transport.getPeer()), address_port(transport.getHost())
        self.client = Client(peer, host, self.client.session, self._door.name)
        if gate.watches:
            self._watch = Watch(gate, self.client, getattr(transport, "proxy_peer", ""))
        self._valve = Valve(transport)
        self._sink = Sink(Full.CLIENT, gate.clock, gate.limits.client_stall, self.stalled)
        transport.registerProducer(self._sink, True)
        if self._door.implicit:
            self._start_tls()
        else:
            self._connected()

    def handshakeCompleted(self) -> None:
        """TLS is up."""
        if self.session.reason:  # it was ended while the handshake ran, and its close is under way
            return
        self._stop_closing()
        self.client = self.client._replace(secure=True, server_name=server_name(self.transport))
        self._connected()

    def dataReceived(self, data: bytes) -> None:
        """The client sent something."""
        self.octets_in += len(data)
        if self._sink.full:  # it asks for more than it takes
            self._sink.also(self._valve)
        if self._answer_awaited:  # enough was taken in advance
            self._valve.hold(Reason.ANSWER)
            if self._early is not None:
                self._early.append(data)
                return
        self.perform(self.session.client_received(data))

    def readConnectionLost(self) -> None:
        """The client has closed its sending side."""
        if Over.HALF_CLOSED not in self._valve.reasons:
            self._valve.hold(Over.HALF_CLOSED)
            self.perform(self.session.client_half_closed())

    def writeConnectionLost(self) -> None:
        """Our own sending side was closed; the rest follows."""

    def connectionLost(self, reason: TwistedFailure) -> None:  # type: ignore[override]
        """The client is gone."""
        self._stop_closing()
        self._sink.stopProducing()
        if self._watch is not None:
            self._watch.gone(self._loop)
        self.perform(self.session.client_lost())
        if self._counted:
            self.gate.census.log_out(self.client.address, self.name)
        if self.account is not None:
            self.gate.pools.leave(self.account)
        if self._watch is not None:
            octets = self.octets_in, self.octets_out
            self._watch.closed(self.session.reason, self.session.commands, octets)
        seconds = self.gate.clock.seconds() - self.began
        self.gate.journal.ended(self.client, self.name, self.session, seconds, (self.octets_in, self.octets_out))
        self._left(self)

    # --- what an upstream connection says ---------------------------------------------------------------

    def upstream_secured(self) -> None:
        """Upstream never begins TLS once it is granted."""

    def upstream_received(self, data: bytes) -> None:
        """Upstream sent something."""
        self.perform(self.session.upstream_received(data))
        if self._judged_upstream and self.lease is not None:
            self.lease.protocol.valve.hold(Reason.VERDICT)

    def upstream_lost(self, reason: TwistedFailure) -> None:
        """Upstream is gone: its connection is returned now, while the book still knows it."""
        self._close_upstream(abort=False)
        self.upstream_ended(Failure.LOST)

    def upstream_ended(self, failure: Failure) -> None:
        """There is no upstream any more."""
        self.perform(self.session.upstream_lost(failure))

    # --- performing -------------------------------------------------------------------------------------

    def stop(self, text: bytes) -> None:
        """End the session from outside."""
        self.perform(self.session.stop(text))

    def leave(self, text: bytes) -> None:
        """End the session from outside, at the next command boundary."""
        self.perform(self.session.leave(text))

    def abort(self) -> None:
        """Close the connection at once; whoever is there has been told."""
        self._stop_closing()
        self.transport.abortConnection()

    def _send_client(self, effect: SendClient) -> None:
        self.octets_out += len(effect.data)
        self.transport.write(effect.data)

    def _send_upstream(self, effect: SendUpstream) -> None:
        if self._upstream is not None:
            self._upstream.write(effect.data)

    def _do_start_tls(self, effect: StartTLS) -> None:
        self._start_tls()

    def _hold(self, effect: Hold) -> None:
        if effect.reason in _SOFT:  # read on: a client that has gone is to get no connection
            self._answer_awaited = True
        else:
            self._valve.hold(effect.reason)

    def _free(self, effect: Free) -> None:
        if effect.reason in _SOFT:
            self._answer_awaited = False
            self._valve.free(Reason.ANSWER)  # for which it was held if it said more meanwhile, whatever was awaited
        else:
            self._valve.free(effect.reason)

    def _set_timer(self, effect: SetTimer) -> None:
        self._timers.set(effect.timer, effect.seconds)

    def _cancel_timer(self, effect: CancelTimer) -> None:
        self._timers.cancel(effect.timer)

    def _ticked(self, timer: Timer) -> None:
        self.perform(self.session.ticked(timer))

    def _ask(self, effect: Ask) -> None:
        gate, question = self.gate, effect.question
        if isinstance(question, Login):
            self._attempts += 1
            self._attempt = Attempt(self.client, question, self._attempts, gate, self._answered, self._watch)
            self._attempt.start()
        elif isinstance(question, Judge):
            assert self._watch is not None
            self._judged_upstream |= question.side is Side.UPSTREAM
            self._watch.judge(question, self.session.place, self._judged)
        else:
            assert self.account is not None
            self.lease = Lease(gate.pools, self.account, self.client)
            self.lease.outcome.addCallbacks(self._leased, _cancelled)
            gate.pools.ask(self.lease)

    def _respond(self, effect: Respond) -> None:
        if self._attempt is not None:
            self._attempt.respond(effect.data)

    def _judged(self, judgement: Judgement) -> None:
        """The plugins have answered."""
        if judgement.side is Side.UPSTREAM:
            self._judged_upstream = False
            if self.lease is not None and self.lease.connection is not None:
                self.lease.protocol.valve.free(Reason.VERDICT)
        self.perform(self.session.answered(judgement))

    def _answered(self, answer: Answer | Disconnect) -> None:
        """A login has an answer."""
        attempt = self._attempt
        if isinstance(answer, Disconnect):
            self._attempt = None
            self.stop(answer.text.encode())
        elif isinstance(answer, Granted):
            assert attempt is not None
            self._attempt, self.lease = None, attempt.lease
            account = self.account = attempt.lease.account
            self.gate.pools.enter(account)
            if account.mode is PoolMode.SESSION:
                account.forget_login()
            elif account.mode is PoolMode.SHARED:
                self.lease, answer = self.gate.shares.sit(attempt.lease, answer)
            self._leased(answer)
        else:
            if isinstance(answer, Failed):
                self._attempt = None
            self.perform(self.session.answered(answer))

    def _leased(self, answer: Granted | Failed) -> None:
        """There is a connection, or there is none."""
        account, lease = self.account, self.lease
        assert account is not None
        assert lease is not None
        if isinstance(answer, Granted):
            self._bind(lease.protocol)
            traced = self.gate.journal.wants_trace(self.name)
            answer = answer._replace(traced=traced, mode=account.mode, pinned=account.pinned)
            if self._watch is not None:
                answer = self._watch.granted(answer)
        else:
            self.lease = None
        self.perform(self.session.answered(answer))

    def _bind(self, upstream: UpstreamProtocol | Chair) -> None:
        """Make the connection this client's own, each side paused while the other is full."""
        gate = self.gate
        upstream.owner = self
        self._upstream = upstream.transport
        self._sink.feed(upstream.valve)
        sink = Sink(Full.UPSTREAM, gate.clock, gate.limits.client_stall, self._upstream_stalled)
        sink.feed(self._valve)
        self._upstream.registerProducer(sink, True)
        self._upstream_sink = sink

    def _unbind(self) -> Lease | Chair | None:
        """Let go of the connection, or of the wish for one."""
        lease, self.lease = self.lease, None
        upstream, self._upstream = self._upstream, None
        if lease is not None and upstream is not None:
            self._judged_upstream = False
            lease.protocol.valve.free(Reason.VERDICT)
            self._sink.forget(lease.protocol.valve)
            self._upstream_sink.stopProducing()
            self._valve.free(Full.UPSTREAM)
            upstream.unregisterProducer()
        return lease

    def _release(self, effect: Release) -> None:
        lease = self._unbind()
        if lease is not None:
            lease.give_back(selected=effect.selected)

    def _report(self, effect: Report) -> None:
        event = effect.event
        if isinstance(event, LoggedIn):
            self._counted = bool(self.name)
        if self._watch is not None and not isinstance(event, Traced | Violation):
            self._watch.reported(event, self.account)
            if isinstance(event, LoggedIn):  # only an OK waits for the disk
                self._commit(Commit())
        self.gate.journal.report(self.client, event, self.name)

    def _record(self, effect: Record) -> None:
        assert self._watch is not None
        self._watch.record(*effect)

    def _commit(self, effect: Commit) -> None:
        """Do nothing more before all that was recorded is on disk."""
        assert self._watch is not None
        valves = [self._valve]
        if self._upstream is not None and self.lease is not None:
            valves.append(self.lease.protocol.valve)
        self._watch.commit(self._loop, valves, partial(self._unrecorded, effect.whole))

    def _unrecorded(self, whole: bool) -> None:
        self.perform(self.session.recording_failed(whole))

    def _close(self, effect: Close) -> None:
        if effect.side is Side.UPSTREAM:
            self._close_upstream(effect.abort)
        else:
            self._close_client(effect.abort)

    def _close_upstream(self, abort: bool) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        lease = self._unbind()
        if lease is not None and lease.connection is None:
            lease.outcome.cancel()
        elif lease is not None:
            lease.destroy(abort=abort)

    def _close_client(self, abort: bool) -> None:
        self._timers.cancel_all()
        transport = self.transport
        if not transport.connected:
            return
        transport.unregisterProducer()
        if abort:
            transport.abortConnection()
        else:
            self._stop_closing()
            self._closing = self.gate.clock.callLater(CLOSE_SECONDS, self._abort)
            transport.loseConnection()

    # --- the shell's own --------------------------------------------------------------------------------

    def _start_tls(self) -> None:
        self._closing = self.gate.clock.callLater(self.gate.limits.tls_handshake, self._abort)
        self.transport.startTLS(self._door.certificates)

    def _connected(self) -> None:
        door, secure = self._door, self.client.secure
        terminated, relayed = self.gate.directory.mechanisms(self.client)
        terms = Terms(
            starttls=door.certificates is not None and not secure,
            login=secure or door.plaintext or trustworthy(self.transport),
            relayed=relayed,
            terminated=terminated,
        )
        tls = describe(self.transport) if secure else None
        self.gate.journal.connected(self.client, tls)
        if self._watch is None:
            self.perform(self.session.client_connected(terms))
        else:
            terms = terms._replace(mask=self._watch.mask)
            self._answer_awaited, self._early = True, []
            self._watch.connected(self.client, tls, partial(self._admitted, terms))

    def _admitted(self, terms: Terms, last_words: bytes) -> None:
        """The plugins have seen the client, and may want it to go."""
        early, self._early, self._answer_awaited = self._early, None, False
        if last_words:
            self.stop(last_words)
            return
        self.perform(self.session.client_connected(terms))
        self._valve.free(Reason.ANSWER)
        if early:
            self.perform(self.session.client_received(b"".join(early)))

    def stalled(self) -> None:
        """The client takes nothing, and is not waited for any more."""
        self.perform(self.session.client_lost("client stalled"))
        self.abort()

    def _upstream_stalled(self) -> None:
        self.perform(self.session.upstream_lost(Failure.TIMED_OUT))

    def _abort(self) -> None:
        self._closing = None
        self.transport.abortConnection()

    def _stop_closing(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None


def _cancelled(reason: TwistedFailure) -> None:
    """Nobody waits for it any more."""
    reason.trap(CancelledError)


_PERFORM: dict[type, Callable[..., None]] = {
    SendClient: ClientProtocol._send_client,
    SendUpstream: ClientProtocol._send_upstream,
    StartTLS: ClientProtocol._do_start_tls,
    Hold: ClientProtocol._hold,
    Free: ClientProtocol._free,
    SetTimer: ClientProtocol._set_timer,
    CancelTimer: ClientProtocol._cancel_timer,
    Ask: ClientProtocol._ask,
    Release: ClientProtocol._release,
    Respond: ClientProtocol._respond,
    Report: ClientProtocol._report,
    Record: ClientProtocol._record,
    Commit: ClientProtocol._commit,
    Close: ClientProtocol._close,
}
