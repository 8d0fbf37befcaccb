"""The closed set of what the core asks the shell to do, of what it asks it, and of the answers.

The shell performs effects in the order in which they stand.  What an effect causes comes back to the
core later, never from inside.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from imapgate.model.failure import Failure
from imapgate.model.pool_mode import PoolMode
from imapgate.model.secret import Credentials, Secret
from imapgate.session.link import Link


class Side(Enum):
    """One of the two ends."""

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

    question: Login | Lease


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


class Granted(NamedTuple):
    """The client is logged in; the upstream connection behind ``link`` is its own from now on."""

    link: Link
    traced: bool = False
    """Whether the operator wants a trace of this session."""
    mode: PoolMode = PoolMode.SESSION
    """For how long the connection is the client's."""
    pinned: str = ""
    """Why the connection can never be anybody else's; empty: it may be given back."""


class Challenge(NamedTuple):
    """The server's challenge in a relayed mechanism, as it came (base64)."""

    data: bytes


class Failed(NamedTuple):
    """No login, or no connection."""

    failure: Failure
    text: bytes = b""
    """What the client is told in place of the usual text: the operator's words, printable ASCII."""


Answer = Granted | Challenge | Failed


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


Event = LoggedIn | LoginFailed | Violation | Traced
