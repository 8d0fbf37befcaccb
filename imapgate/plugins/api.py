"""The public interface of plugins; everything a plugin needs is imported from here.

A plugin is a class.  It says what it wants to be asked about (:class:`Interests`), and has a method for
each of those things.  A method may be ``async``, or return a Deferred; it returns a verdict, or ``None``
for :data:`CONTINUE`.  What it is shown is immutable.  The plugins are asked in the order of the
configuration: the first that rejects, answers or disconnects has the last word; what one replaces, the
next one sees replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from zope.interface import Attribute, Interface, implementer

from imapgate.model.passing import Completion, FetchItem, Mailbox, Message, Response
from imapgate.model.reading import Reading
from imapgate.model.secret import Credentials, Secret
from imapgate.model.verdict import (
    CONTINUE,
    Annotate,
    Answer,
    Continue,
    Disconnect,
    Event,
    Interests,
    Reject,
    Replace,
    Verdict,
)
from imapgate.plugins.options import OptionError, Options

__all__ = [
    "CONTINUE",
    "Annotate",
    "Answer",
    "Command",
    "Completion",
    "Continue",
    "Credentials",
    "Disconnect",
    "Event",
    "FetchItem",
    "IPlugin",
    "Interests",
    "Mailbox",
    "Message",
    "OptionError",
    "Options",
    "Plugin",
    "Reject",
    "Replace",
    "Response",
    "Route",
    "Secret",
    "Session",
    "Verdict",
]

Command = Reading
"""A client's command: ``verb``, ``mailboxes``, ``tokens`` and more; see :class:`imapgate.model.reading.Reading`."""


class Session:
    """One client's session, as a plugin sees it.

    :ivar id: as in the log
    :ivar address: the client's; empty: a Unix socket
    :ivar listener: the name of the listener
    :ivar server_name: what the client called the gate in its TLS handshake; empty: nothing
    :ivar tls: version and cipher; empty: no TLS
    :ivar user: the authenticated user, the gate's one name for it; empty: not logged in
    :ivar upstream: the name of the upstream; empty: none yet
    :ivar client_id: what the client says of itself by ID, lower-case names
    :ivar mailbox: the selected mailbox, as in :attr:`Mailbox.name`; empty: none
    :ivar read_only: it was selected by EXAMINE, or is not to be changed
    """

    __slots__ = (
        "_states", "address", "client_id", "id", "listener", "mailbox", "read_only", "server_name", "tls", "upstream",
        "user",
    )  # fmt: skip

    def __init__(self, id: str, address: str = "", listener: str = "") -> None:
        self.id = id
        self.address = address
        self.listener = listener
        self.server_name = ""
        self.tls = ""
        self.user = ""
        self.upstream = ""
        self.client_id: Mapping[str, str] = {}
        self.mailbox = ""
        self.read_only = False
        self._states: dict[object, dict[str, Any]] = {}

    def state(self, plugin: object) -> dict[str, Any]:
        """What this plugin keeps of this session: a dictionary of its own."""
        return self._states.setdefault(plugin, {})


class Route(NamedTuple):
    """Where a user's session goes."""

    upstream: str
    user: str
    """The user's name there."""
    pool_mode: str


class IPlugin(Interface):
    """What a plugin must provide; :class:`Plugin` has everything, and does nothing."""

    interests = Attribute("An Interests; it is looked at once, when the plugin has its options.")
    threaded = Attribute("Whether the methods block: every question but that of capabilities is asked in a thread.")
    on_error = Attribute("'closed' or 'open': what becomes of what it was asked about when it fails.")
    on_timeout = Attribute("The same when it takes too long.")

    def start(clock: object) -> None:
        """The gate begins to serve; ``clock`` is an IReactorTime (a plugin never imports the reactor)."""

    def stop() -> None:
        """The gate stops, or a reload has replaced this plugin."""

    def session_opened(session: Session) -> Verdict | None:
        """A client has connected."""

    def tls_started(session: Session) -> Verdict | None:
        """TLS is up."""

    def capabilities(session: Session, names: Sequence[str]) -> Sequence[str]:
        """Return the capabilities that the client is to be shown; never asynchronous, and never in a thread."""

    def credentials(session: Session, credentials: Credentials) -> Verdict | None:
        """A client logs in, and nobody has seen what it gave."""

    def route_chosen(session: Session, route: Route) -> Verdict | None:
        """It is known where the client's session would go."""

    def authenticated(session: Session) -> Verdict | None:
        """The client is logged in, and has not been told so."""

    def command(session: Session, command: Command) -> Verdict | None:
        """A command has come; nothing of it has gone on, and a message of it was not asked for yet.

        Where more of it comes behind a message, such as the flags of a second one, it is asked about again, with all
        that has come; it can then be rejected, not replaced, and the session ends.
        """

    def message_begins(session: Session, command: Command, message: Message) -> Verdict | None:
        """A message is about to come."""

    def message_chunk(session: Session, message: Message, data: bytes) -> Verdict | None:
        """Octets of it have come, and wait."""

    def message_ends(session: Session, message: Message) -> Verdict | None:
        """All of it has come; its last octets wait."""

    def mailbox_selected(session: Session, mailbox: Mailbox) -> Verdict | None:
        """SELECT or EXAMINE has succeeded, and the client has not been told so: a Reject ends the session."""

    def untagged(session: Session, response: Response) -> Verdict | None:
        """An untagged response has come."""

    def fetch_item(session: Session, item: FetchItem) -> Verdict | None:
        """A FETCH response has passed; it can only be annotated, and a Reject ends the session."""

    def completed(session: Session, command: Command, completion: Completion) -> Verdict | None:
        """A command has ended, and the client has not been told so: a Reject ends the session."""

    def session_closed(session: Session, reason: str) -> None:
        """The client is gone; nobody waits for an answer."""


@implementer(IPlugin)
class Plugin:
    """A plugin that wants nothing and lets everything pass; derive yours from it.

    :param options: what the plugin's table in the configuration says; take each of them
    """

    interests = Interests()
    threaded = False
    on_error = "closed"
    on_timeout = "closed"

    def __init__(self, options: Options) -> None:
        """Take the options."""

    def start(self, clock: Any) -> None:
        """See :class:`IPlugin`, as for all that follow."""

    def stop(self) -> None:
        """Nothing is to be stopped."""

    def session_opened(self, session: Session) -> Any:
        """Let it pass."""

    def tls_started(self, session: Session) -> Any:
        """Let it pass."""

    def capabilities(self, session: Session, names: Sequence[str]) -> Sequence[str]:
        """Show them all."""
        return names

    def credentials(self, session: Session, credentials: Credentials) -> Any:
        """Let it pass."""

    def route_chosen(self, session: Session, route: Route) -> Any:
        """Let it pass."""

    def authenticated(self, session: Session) -> Any:
        """Let it pass."""

    def command(self, session: Session, command: Command) -> Any:
        """Let it pass."""

    def message_begins(self, session: Session, command: Command, message: Message) -> Any:
        """Let it pass."""

    def message_chunk(self, session: Session, message: Message, data: bytes) -> Any:
        """Let it pass."""

    def message_ends(self, session: Session, message: Message) -> Any:
        """Let it pass."""

    def mailbox_selected(self, session: Session, mailbox: Mailbox) -> Any:
        """Let it pass."""

    def untagged(self, session: Session, response: Response) -> Any:
        """Let it pass."""

    def fetch_item(self, session: Session, item: FetchItem) -> Any:
        """Let it pass."""

    def completed(self, session: Session, command: Command, completion: Completion) -> Any:
        """Let it pass."""

    def session_closed(self, session: Session, reason: str) -> None:
        """Let it go."""
