"""Why there is no upstream, or no login: one table from each failure to what the client is told."""

from __future__ import annotations

from enum import Enum


class Failure(Enum):
    """A failure of the upstream side; the value is the word the log has for it."""

    REFUSED = "refused"
    """Every endpoint refused the connection, or its name could not be found."""
    TIMED_OUT = "timed-out"
    """No endpoint could be connected, or had greeted, or answered a step of the login in time."""
    TLS = "tls"
    """The handshake or the verification of the certificate failed (THREATS A7)."""
    TLS_MISSING = "tls-missing"
    """STARTTLS is demanded and was not offered, was refused, or was preceded by PREAUTH (THREATS A3)."""
    PROTOCOL = "protocol"
    """Upstream broke the protocol (THREATS A22, A30)."""
    BYE = "bye"
    """Upstream greeted with BYE, or said it before a login."""
    LOST = "lost"
    """The connection ended without a word."""
    NO_MECHANISM = "no-mechanism"
    """Upstream offers no way to log in that the gate may use."""
    TEMPORARY = "temporary"
    """Upstream could not decide on the credentials, and said that this is no verdict on them."""
    CREDENTIALS = "credentials"
    """Upstream, or the gate itself, said no to the credentials."""
    CANCELLED = "cancelled"
    """The client cancelled the exchange with ``*``."""
    BUSY = "busy"
    """All upstream connections that this user may have are in use, and none came free in time."""
    UNROUTABLE = "unroutable"
    """It could not be found out which upstream the user belongs to."""
    NO_LOGIN = "no-login"
    """The operator lets this user in at another time."""
    POLICY = "policy"
    """A plugin refuses the login."""
    UNRECORDED = "unrecorded"
    """Nothing may be done that cannot be put into the audit trail, and it cannot be written."""
    LIMIT = "limit"
    """A limit of the gate's own, such as connections of one user."""


ANSWERS: dict[Failure, tuple[bytes, bytes, bytes]] = {
    Failure.REFUSED: (b"NO", b"UNAVAILABLE", b"The mail server cannot be reached; try again later"),
    Failure.TIMED_OUT: (b"NO", b"UNAVAILABLE", b"The mail server does not answer; try again later"),
    Failure.TLS: (b"NO", b"UNAVAILABLE", b"The mail server cannot be reached safely; try again later"),
    Failure.TLS_MISSING: (b"NO", b"UNAVAILABLE", b"The mail server cannot be reached safely; try again later"),
    Failure.PROTOCOL: (b"NO", b"UNAVAILABLE", b"The mail server gave an answer that makes no sense"),
    Failure.BYE: (b"NO", b"UNAVAILABLE", b"The mail server turned the connection away; try again later"),
    Failure.LOST: (b"NO", b"UNAVAILABLE", b"The mail server closed the connection; try again later"),
    Failure.NO_MECHANISM: (b"NO", b"UNAVAILABLE", b"The mail server offers no way to log in from here"),
    Failure.TEMPORARY: (b"NO", b"UNAVAILABLE", b"The mail server cannot log anybody in; try again later"),
    Failure.CREDENTIALS: (b"NO", b"AUTHENTICATIONFAILED", b"Authentication failed"),
    Failure.CANCELLED: (b"BAD", b"", b"Authentication cancelled"),
    Failure.BUSY: (b"NO", b"UNAVAILABLE", b"All connections to the mail server are in use; try again later"),
    Failure.UNROUTABLE: (b"NO", b"UNAVAILABLE", b"The mail server of this user cannot be found out; try again later"),
    Failure.NO_LOGIN: (b"NO", b"UNAVAILABLE", b"No login at this time; try again later"),
    Failure.POLICY: (b"NO", b"NOPERM", b"The login is refused"),
    Failure.UNRECORDED: (b"NO", b"UNAVAILABLE", b"No login at this time; try again later"),
    Failure.LIMIT: (b"NO", b"LIMIT", b"Too many connections of this user from this address"),
}
"""Completion, response code and text of the client's answer, where a login fails."""

LOST_SESSION: dict[Failure, bytes] = {
    failure: b"* BYE [UNAVAILABLE] " + text + b"\r\n"
    for failure, text in {
        Failure.LOST: b"The mail server closed the connection",
        Failure.TIMED_OUT: b"The mail server does not answer",
        Failure.PROTOCOL: b"The mail server gave an answer that makes no sense",
        Failure.CREDENTIALS: b"The mail server does not accept the login any more",
    }.items()
}
"""The last line a client gets where its upstream fails after the login."""
