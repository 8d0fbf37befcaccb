"""The closed set of what the core asks the shell to do, of what it asks it, and of the answers.

The shell performs effects in the order in which they stand.  What an effect causes comes back to the
core later, never from inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from imapgate.model import capability
from imapgate.model.failure import Failure
from imapgate.model.passing import Response
from imapgate.model.pool_mode import PoolMode
from imapgate.model.reading import Reading
from imapgate.model.secret import Credentials, Secret
from imapgate.model.verdict import Interests, Verdict
from imapgate.session.link import Link


class Side(Enum):
    """One of the two ends."""

    __hash__ = object.__hash__  # identity is enough, and costs no call in Python

    CLIENT = "client"
    UPSTREAM = "upstream"


class Timer(Enum):
    """The core's timers; it knows no clock, only that the time that it named has passed."""

    LOGIN = "login"
    IDLE = "idle"
    UPSTREAM = "upstream"
    HALF_CLOSE = "half-close"
    REFRESH = "IDLE refresh"


class Reason(Enum):
    """Why the core does not want to hear one side for now."""

    ANSWER = "answer awaited"
    VERDICT = "verdict awaited"
    PIPELINE = "pipeline full"
    CONTINUATION = "continuation awaited"
    LOGOUT = "logout"


# --- effects --------------------------------------------------------------------------------------


class SendClient(NamedTuple):
    """Write to the client."""

    data: bytes


class SendUpstream(NamedTuple):
    """Write to the upstream connection."""

    data: bytes


class StartTLS(NamedTuple):
    """Begin TLS on the connection to this side, after what was written before.

    The session of a client hears of it by ``client_connected``, an upstream login by ``connected``.
    """

    side: Side


class Hold(NamedTuple):
    """Stop reading from this side, for this reason."""

    side: Side
    reason: Reason


class Free(NamedTuple):
    """Take a reason for not reading away again."""

    side: Side
    reason: Reason


class SetTimer(NamedTuple):
    """Call ``ticked(timer)`` once, after so many seconds; setting it again moves it."""

    timer: Timer
    seconds: float


class CancelTimer(NamedTuple):
    """Forget a timer."""

    timer: Timer


class Ask(NamedTuple):
    """Put a question; the session waits for ``answered``."""

    question: Login | Lease | Judge


class Release(NamedTuple):
    """Give the upstream connection back to its pool: nothing is owed on it, and nothing is left unread.

    :ivar selected: a mailbox is selected there
    """

    selected: bool


class Respond(NamedTuple):
    """Hand the client's answer to a relayed SASL challenge to the upstream login (base64, or ``*``)."""

    data: Secret


class Report(NamedTuple):
    """Tell the operator's log."""

    event: Event


class Record(NamedTuple):
    """Put an event into the audit trail; who, where and when are for whoever writes it to say.

    :ivar outcome: ``ok``, ``no``, ``bad``, ``denied``, ``error`` or ``unknown``
    """

    event: str
    outcome: str
    fields: Mapping[str, object]


class Commit(NamedTuple):
    """Do nothing of what follows before all that was recorded is on disk.

    :ivar whole: what the client was sent before ends a response; else it can be told nothing if that fails
    """

    whole: bool = True


class Close(NamedTuple):
    """Close the connection to this side; ``abort``: at once, whatever is still unsent.

    With the client's connection all timers are over.
    """

    side: Side
    abort: bool = False


Effect = (
    SendClient
    | SendUpstream
    | StartTLS
    | Hold
    | Free
    | SetTimer
    | CancelTimer
    | Ask
    | Release
    | Respond
    | Report
    | Record
    | Commit
    | Close
)


# --- the questions, and their answers -------------------------------------------------------------


class Login(NamedTuple):
    """Log this client in upstream: with its ``credentials``, or by relaying a mechanism."""

    mechanism: bytes
    credentials: Credentials | None
    initial: Secret | None = None
    """The initial response of a relayed mechanism, in base64 as the client gave it."""
    client_id: tuple[tuple[bytes, bytes], ...] = ()
    """What the client said of itself by ID, without its ``x-`` fields (THREATS A45)."""
    ttl: int = 5
    """Through how many more gates it may go (THREATS A46): what ``x-proxy-ttl`` said, Dovecot's name and default."""


class Lease(NamedTuple):
    """Get this client, which is logged in, an upstream connection again."""


class Judge(NamedTuple):
    """Ask the plugins about what has come from one side.

    :ivar hook: what they are asked, as :class:`imapgate.plugins.api.IPlugin` names it
    :ivar parse: reads what they would put in the place of a command, or of a response
    """

    side: Side
    hook: str
    arguments: tuple[object, ...]
    parse: Callable[[bytes], Reading | Response] | None = None


class Auditing(NamedTuple):
    """How a session is recorded.

    :ivar durable: a command's outcome is on disk before the client sees it
    :ivar seconds: the time, for durations
    :ivar failing: why nothing can be recorded, and so nothing may be done; empty: it can
    :ivar digest: what is recorded of search criteria
    :ivar subjects: whether subjects are recorded
    """

    durable: bool
    seconds: Callable[[], float]
    failing: Callable[[], str]
    digest: Callable[[bytes], Mapping[str, str]]
    subjects: bool = False


class Granted(NamedTuple):
    """The client is logged in; the upstream connection behind ``link`` is its own from now on."""

    link: Link
    traced: bool = False
    """Whether the operator wants a trace of this session."""
    mode: PoolMode = PoolMode.SESSION
    """For how long the connection is the client's."""
    pinned: str = ""
    """Why the connection can never be anybody else's; empty: it may be given back."""
    interests: Interests | None = None
    """What the plugins want to be asked about; ``None``: nothing."""
    auditing: Auditing | None = None
    """How what it does is recorded; ``None``: not at all."""
    mask: Callable[[bytes], bytes] = capability.after_login
    """What the upstream's list of capabilities becomes before the client sees it."""


class Challenge(NamedTuple):
    """The server's challenge in a relayed mechanism, as it came (base64)."""

    data: bytes


class Failed(NamedTuple):
    """No login, or no connection."""

    failure: Failure
    text: bytes = b""
    """What the client is told in place of the usual text: the operator's words, printable ASCII."""
    code: bytes = b""
    """The response code in place of the usual one."""


class Judgement(NamedTuple):
    """What the plugins say.

    :ivar side: whose question it answers
    :ivar by: the plugin that had the last word
    :ivar notes: what they want to be recorded of the command
    """

    side: Side
    verdict: Verdict
    by: str = ""
    notes: Mapping[str, object] = MappingProxyType({})


Answer = Granted | Challenge | Failed | Judgement


# --- what the log is told -------------------------------------------------------------------------


class LoggedIn(NamedTuple):
    """A login succeeded."""

    user: bytes
    mechanism: bytes


class LoginFailed(NamedTuple):
    """A login failed; ``user`` is as the client gave it, unverified, empty where a relayed one hides it."""

    user: bytes
    mechanism: bytes
    failure: Failure


class Violation(NamedTuple):
    """A side broke the protocol in a way that ends its connection."""

    side: Side
    text: str


class Traced(NamedTuple):
    """One line of a redacted wire trace: who spoke, and what, literals as their size only."""

    side: Side
    text: bytes


class Identified(NamedTuple):
    """The client has said what it is (RFC 2971), and nobody has verified it."""

    fields: tuple[tuple[bytes, bytes], ...]


Event = LoggedIn | LoginFailed | Violation | Traced | Identified
