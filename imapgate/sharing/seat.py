"""A seat: what one session has for an upstream in a share; a small IMAP server that serves it out of the channels.

The session above has parsed, judged and recorded all that arrives here, and writes it as it would to a server: one
canonical command after the other.  The seat takes one at a time.  It must not know what is on a channel's wire.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from imapgate.limits import Limits
from imapgate.model.commands import Command, Table, pins
from imapgate.model.failure import ANSWERS
from imapgate.model.pool_mode import IdleMode
from imapgate.model.reading import Reading
from imapgate.session import intake as takes
from imapgate.session.effects import Failed
from imapgate.session.intake import Intake
from imapgate.session.login import PROMPT
from imapgate.session.states import SendingEvent
from imapgate.sharing.channel import Channel
from imapgate.sharing.errand import Errand
from imapgate.sharing.task import Completed, Mailbox
from imapgate.sharing.view import View

if TYPE_CHECKING:
    from imapgate.sharing.share import Share

_ON_MAILBOX = frozenset(
    b"""CHECK,EXPUNGE,UID EXPUNGE,FETCH,UID FETCH,STORE,UID STORE,COPY,UID COPY,MOVE,UID MOVE,SEARCH,UID SEARCH,
    SORT,UID SORT,THREAD,UID THREAD""".replace(b"\n", b"")
    .replace(b"    ", b"")
    .split(b",")
)
ERRANDS = frozenset(
    b"""CREATE DELETE RENAME SUBSCRIBE UNSUBSCRIBE LIST LSUB XLIST STATUS NAMESPACE GETQUOTA SETQUOTA GETQUOTAROOT
    GETACL SETACL DELETEACL LISTRIGHTS MYRIGHTS GETMETADATA SETMETADATA GETANNOTATION SETANNOTATION""".split()
)
_SAVES = re.compile(rb"RETURN \([^)]*\bSAVE\b", re.IGNORECASE)


class Seat:
    """One session's place in a share.

    :ivar view: what its session knows of the mailbox that it has selected; ``None``: it has none
    :ivar mailbox: which one that is
    :ivar channel: where that is looked at; ``None``: nowhere at present
    :ivar line: a channel that it has for itself, for its errand
    :ivar reviving: it waits for a channel while it idles
    :ivar revives: when it may want one again, ``delay`` seconds after there was none
    :ivar idling: its session idles
    :ivar pinned: why it has a connection of its own
    :ivar gone: its session is over
    :ivar since: when its session last said something
    :ivar spoken: when it was last told something
    :ivar patience: seconds after which it is to hear something while it idles
    """

    __slots__ = (
        "_idle_tag", "_intake", "_message", "_share", "busy", "channel", "delay", "errand", "gone", "idling", "line",
        "mailbox", "patience", "pinned", "revives", "reviving", "since", "spoken", "view",
    )  # fmt: skip

    def __init__(self, share: Share, limits: Limits, table: Table, patience: float) -> None:
        self._share = share
        self._intake = Intake(limits, table)
        self._intake.authenticated = True
        self._idle_tag = b""
        self._message: Command | None = None  # whose message is on its way
        self.view: View | None = None
        self.mailbox: Mailbox | None = None
        self.channel: Channel | None = None
        self.line: Channel | None = None
        self.errand: Errand | None = None
        self.busy = self.idling = self.gone = self.reviving = False
        self.patience = patience
        self.delay = self.revives = 0.0
        self.pinned = ""
        self.since = self.spoken = share.now

    @property
    def unwatched(self) -> bool:
        """Whether its session idles, and nobody looks at its mailbox."""
        return self.idling and self.view is not None and self.channel is None

    # --- what the session says ------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Take what the session wrote."""
        self.since = self._share.now
        if self._intake.passes(data):
            self._share.lending.octets(self, data)
            return
        self._intake.feed(data)
        self._share.turn(self)

    def advance(self) -> None:
        """Take what there is, as far as it goes: one command at a time."""
        while not self.gone:
            if self.errand is not None:
                if self.errand.waiting is not None or not (self.pinned or self.errand.receiving):
                    return
            elif self.busy:
                return
            event = self._intake.next()
            if event is None:
                return
            if self.errand is not None:
                self.errand.take(event)
                self._share.lending.write(self)
                self._share.lending.reclaim(self)
            else:
                self._take(event)

    def _take(self, event: takes.Event) -> None:
        if isinstance(event, takes.Complete):
            self.busy = True
            self._command(event.command)
        elif isinstance(event, takes.MessageBegins):
            self.busy = True
            self._begin_message(event)
        elif isinstance(event, takes.IdleLine):
            self._end_idle()
        elif isinstance(event, takes.Prompt):
            self.say(PROMPT)
        else:
            assert isinstance(event, takes.Refused)
            self.say(b"%b %b %b\r\n" % (event.tag, event.completion, event.text.encode()))

    def _command(self, command: Command) -> None:
        verb, share = command.rule.verb, self._share
        reason, selects = self._pins(command), verb in (b"SELECT", b"EXAMINE")
        if selects:
            if self.view is not None and share.tells_closed:
                self.say(b"* OK [CLOSED] Previous mailbox closed.\r\n")
            self.leave_mailbox()
        if reason:
            share.lending.pin(self, reason, takes.Complete(command))
        elif selects:
            name = Reading(command).mailboxes[0]
            self.mailbox = Mailbox(name, verb == b"EXAMINE", command.parts[1:])
            share.select(self, command.tag)
        elif verb in ERRANDS:
            share.run_errand(self, command)
        elif verb == b"IDLE":
            self._begin_idle(command)
        elif verb == b"NOOP" and self.view is None:
            self.finish(command.tag + b" OK Nothing done\r\n")
        elif verb == b"LOGOUT":
            self.busy = False
        elif self.view is None:
            self.finish(b"%b BAD %b: select a mailbox first\r\n" % (command.tag, verb))
        elif verb == b"UNSELECT" or (verb == b"CLOSE" and self.view.read_only):
            self.leave_mailbox()
            self.finish(b"%b OK %b completed\r\n" % (command.tag, verb.capitalize()))
        else:
            self.submit(command)

    def _pins(self, command: Command) -> str:
        """Why its session needs a connection of its own for this command; empty: it does not."""
        reason, verb = pins(command), command.rule.verb
        if reason:
            return reason
        if verb == b"IDLE":
            return "IDLE" if self._share.terms.idle is IdleMode.RELAY else ""
        if verb.endswith(b"STORE"):
            if Reading(command).store is None:
                return "STORE of what is no flag"
            return "STORE in EXAMINE" if self.view is not None and self.view.read_only else ""
        if verb.endswith((b"SEARCH", b"SORT", b"THREAD")) and verb != b"ESEARCH":
            saves = any(isinstance(part, bytes) and _SAVES.search(part) for part in command.parts)
            return "SEARCHRES" if saves else ""
        return "" if verb in _SERVED or verb in ERRANDS else verb.decode("ascii")

    def submit(self, command: Command) -> None:
        """Have a command done on the mailbox that is selected."""
        self._share.submit(self, command)

    # --- messages -------------------------------------------------------------------------------------

    def _begin_message(self, event: takes.MessageBegins) -> None:
        reason = pins(event.command) or ("" if event.command.rule.verb == b"APPEND" else "REPLACE")
        if reason:
            self._share.lending.pin(self, reason, event)
        else:
            self._message = event.command
            self._share.lending.store(self, event)

    def message_answered(self, outcome: bytes, line: bytes) -> None:
        """The server has said what became of the message."""
        command, self._message = self._message, None
        assert command is not None
        self.answered(command, Completed(outcome, line[len(command.tag) :]))

    def refused(self, event: takes.Complete | takes.MessageBegins, failed: Failed) -> None:
        """There is no connection for this."""
        completion, code, text = ANSWERS[failed.failure]
        if isinstance(event, takes.MessageBegins):
            self._intake.refused()
        self.finish(b"%b %b [%b] %b\r\n" % (event.command.tag, completion, code, failed.text or text))

    def lend(self, channel: Channel, *, for_good: bool, limits: Limits, table: Table) -> Errand:
        """Have a connection for itself."""
        assert channel.link is not None
        answered = None if for_good else self.message_answered
        selected = channel.mailbox is not None
        self.line = channel
        self.errand = Errand(channel.link, self._intake, limits, table, selected=selected, answered=answered)
        return self.errand

    # --- IDLE -----------------------------------------------------------------------------------------

    def _begin_idle(self, command: Command) -> None:
        self._intake.moved(SendingEvent.IDLE_STARTED)
        self._idle_tag, self.idling, self.busy = command.tag, True, False
        self.spoken = self.since
        self.say(b"+ idling\r\n")
        self._share.idles(self)

    def _end_idle(self) -> None:
        self._intake.moved(SendingEvent.DIALOGUE_ENDED)
        self._share.idles_no_more(self)
        said = b""
        if self.view is not None and self.channel is not None:
            said = self.view.flush(self.channel.truth, expunges=True)
        self.finish(said + self._idle_tag + b" OK Idle completed\r\n")

    # --- what it is told ------------------------------------------------------------------------------

    def say(self, data: bytes) -> None:
        """Tell the session."""
        self._share.say(self, data)

    def finish(self, data: bytes) -> None:
        """Complete the command that was taken last; the next one is taken."""
        self.say(data)
        self.busy = False
        self._share.turn(self)

    def answered(self, command: Command, completed: Completed) -> None:
        """A command that concerns no selected mailbox is done."""
        self._share.done(self, command, completed)

    def put_into(self, name: str) -> None:
        """Messages were put into this mailbox."""
        self._share.touched(self, name)

    def leave_mailbox(self) -> None:
        """Have nothing selected any more."""
        self._share.detach(self)
        self.view = self.mailbox = None


_SERVED = _ON_MAILBOX | {b"SELECT", b"EXAMINE", b"IDLE", b"NOOP", b"LOGOUT", b"UNSELECT", b"CLOSE"}
