"""A connection that is one session's alone, for one message or for good: relayed as in every other mode."""

from __future__ import annotations

from collections.abc import Callable

from imapgate.limits import Limits
from imapgate.model.commands import Table
from imapgate.session.effects import Granted, SendClient, SendUpstream
from imapgate.session.intake import Intake
from imapgate.session.link import Link
from imapgate.session.outbox import Outbox
from imapgate.session.relay import Relay
from imapgate.session.states import Connection

Answered = Callable[[bytes, bytes], None]


class Errand(Relay):
    """One session's commands on one connection.

    :param answered: called with the outcome and the line that completes a command; ``None``: the session is told itself
    :param selected: a mailbox is selected there
    """

    __slots__ = ("_answered", "_outbox")

    def __init__(
        self, link: Link, intake: Intake, limits: Limits, table: Table, *, selected: bool, answered: Answered | None
    ) -> None:
        self._outbox = Outbox()
        super().__init__(self._outbox, intake, limits, table, Granted(link))
        self._answered = answered
        if selected:
            self.connection = Connection.SELECTED

    def _answer(self, tag: bytes, outcome: bytes, line: bytes) -> None:
        if self._answered is None:
            super()._answer(tag, outcome, line)
        else:
            self._answered(outcome, line)

    @property
    def vacant(self) -> bool:
        """Whether nothing is under way."""
        return self._up.vacant

    def take_writes(self) -> list[SendClient | SendUpstream]:
        """What is to be written; the session above has the timers, and the log."""
        return [effect for effect in self._outbox.take() if isinstance(effect, SendClient | SendUpstream)]
