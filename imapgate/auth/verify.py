"""Who a client is, in mode ``master``: what a verifier is shown, what it says, and several of them in order.

Knows no verifier in particular.  What is said here of a failure is for the log; the client is told by
:data:`imapgate.model.failure.ANSWERS` alone, so that every refusal reads the same (THREATS A36).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from twisted.internet.defer import CancelledError

from imapgate.auth.identity import admissible, is_user
from imapgate.log import log
from imapgate.model.failure import Failure
from imapgate.model.secret import Credentials

PASSWORDS = (b"PLAIN", b"LOGIN")
"""The mechanisms that show a password; the LOGIN command counts as ``LOGIN``."""

TOKENS = (b"OAUTHBEARER", b"XOAUTH2")
"""The mechanisms that show a bearer token; it stands where a password would."""


class Presented(NamedTuple):
    """What a client presents to log in, and where it comes from.

    :ivar mechanism: one of :data:`PASSWORDS` or :data:`TOKENS`
    :ivar credentials: the user is empty for a token that comes with no name
    :ivar address: the client's; ``None``: a Unix socket
    :ivar local: the gate's own end
    :ivar session: as in the log
    :ivar listener: the listener's name
    :ivar server_name: what the client called the gate in its TLS handshake
    :ivar attempt: 1 for the first login on this connection
    :ivar secure: TLS protects the connection
    """

    mechanism: bytes
    credentials: Credentials
    address: str | None
    local: str | None
    session: str
    listener: str
    server_name: str | None
    attempt: int
    secure: bool = False


class Redirect(NamedTuple):
    """The server that a verifier has chosen for a user."""

    host: str
    port: int


class Identified(NamedTuple):
    """Who it is.

    :ivar user: the one canonical name, for pool, log and upstream
    :ivar credentials: what to log in upstream with, where the verifier has a say in it
    :ivar redirect: where to, where the verifier has a say in it
    """

    user: bytes
    credentials: Credentials | None = None
    redirect: Redirect | None = None


class NotIdentified(Exception):
    """No user; ``failure`` is CREDENTIALS (a verdict) or TEMPORARY (none could be had).

    ``text`` is for the log, and ``wait`` how many seconds the client's answer is to be held back.
    """

    def __init__(self, failure: Failure, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.failure = failure
        self.text = text
        self.wait = wait


class Verifier(Protocol):
    """Whoever can tell who a client is."""

    @property
    def name(self) -> str:
        """For the log."""

    @property
    def mechanisms(self) -> tuple[bytes, ...]:
        """Those that it can judge."""

    async def identify(self, presented: Presented) -> Identified:
        """Say who it is, or raise :exc:`NotIdentified`."""


class Chain:
    """Verifiers in order: the first that says yes wins; nobody falls through an outage to the next one.

    :param longest: octets of a user name.
    """

    def __init__(self, verifiers: Sequence[Verifier], longest: int) -> None:
        self._verifiers = tuple(verifiers)
        self._longest = longest
        known = {mechanism for verifier in verifiers for mechanism in verifier.mechanisms}
        self.mechanisms = tuple(mechanism for mechanism in PASSWORDS + TOKENS if mechanism in known)

    async def identify(self, presented: Presented) -> Identified:
        """Say who it is, or raise :exc:`NotIdentified`; no verifier is asked about what nobody may present."""
        if presented.credentials.authorisation not in (b"", presented.credentials.user):
            raise NotIdentified(Failure.CREDENTIALS, "a foreign authorisation identity")
        if not self._presentable(presented):
            raise NotIdentified(Failure.CREDENTIALS, "no user has such a name, or such a password")
        refusals = []
        for verifier in self._verifiers:
            if presented.mechanism in verifier.mechanisms:
                try:
                    return await self._ask(verifier, presented)
                except NotIdentified as said:
                    if said.failure is not Failure.CREDENTIALS:
                        log.warn(
                            "verifier {verifier} cannot tell: {text} session={session}",
                            verifier=verifier.name,
                            text=said.text,
                            session=presented.session,
                        )
                        raise
                    refusals.append(said)
        text = "; ".join(said.text for said in refusals)
        raise NotIdentified(Failure.CREDENTIALS, text, max((said.wait for said in refusals), default=0.0))

    def _presentable(self, presented: Presented) -> bool:
        user, token, _ = presented.credentials
        if presented.mechanism in PASSWORDS:
            return admissible(presented.credentials, self._longest)
        return bool(token.reveal()) and (not user or is_user(user, self._longest))

    async def _ask(self, verifier: Verifier, presented: Presented) -> Identified:
        """Ask one verifier; whatever else it raises, and a name that no user has, is an outage of its own."""
        try:
            identified = await verifier.identify(presented)
        except (NotIdentified, CancelledError):
            raise
        except Exception as error:  # its text may hold the password (THREATS A40)
            raise NotIdentified(Failure.TEMPORARY, f"an unexpected {type(error).__qualname__}") from None
        user, replaced, _ = identified
        if not is_user(user, self._longest) or (replaced is not None and not admissible(replaced, self._longest)):
            raise NotIdentified(Failure.TEMPORARY, "it names a user or a password that no user has")
        return identified
