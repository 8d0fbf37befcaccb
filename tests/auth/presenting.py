"""What a client presents, and what becomes of it, without waiting."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from imapgate.auth.verify import Identified, NotIdentified, Presented
from imapgate.model.failure import Failure
from imapgate.model.secret import Credentials, Secret

CANARY = b"c4n4ry-p4ssw0rd"
"""A password that nothing may repeat."""

REACTOR: Any = reactor
"""The reactor, which has every interface."""


def presented(
    user: bytes = b"alice",
    password: bytes = CANARY,
    authorisation: bytes = b"",
    *,
    mechanism: bytes = b"PLAIN",
    address: str | None = "192.0.2.7",
    attempt: int = 1,
    secure: bool = False,
) -> Presented:
    """What a client presents."""
    credentials = Credentials(user, Secret(password), authorisation)
    return Presented(
        mechanism, credentials, address, "192.0.2.1", "0123456789ab", "public", "mail.example", attempt, secure
    )


class Outcome:
    """What became of a coroutine so far: a value, an error, or nothing yet."""

    def __init__(self, coroutine: Coroutine[Deferred[Any], Any, Any]) -> None:
        self.values: list[Any] = []
        self.errors: list[BaseException] = []
        self.deferred = Deferred.fromCoroutine(coroutine)
        self.deferred.addCallbacks(self.values.append, lambda reason: self.errors.append(reason.value))

    @property
    def pending(self) -> bool:
        """Whether it is still under way."""
        return not self.values and not self.errors

    @property
    def identified(self) -> Identified:
        """Who it is; it has to have come to that."""
        assert not self.errors, self.errors
        (value,) = self.values
        assert isinstance(value, Identified)
        return value

    @property
    def refusal(self) -> NotIdentified:
        """Why not; it has to have come to that."""
        (error,) = self.errors
        assert isinstance(error, NotIdentified), error
        assert CANARY.decode() not in error.text
        return error

    @property
    def refused(self) -> bool:
        """Whether it came to a verdict, which was no."""
        return self.refusal.failure is Failure.CREDENTIALS

    @property
    def temporary(self) -> bool:
        """Whether it came to no verdict."""
        return self.refusal.failure is Failure.TEMPORARY
