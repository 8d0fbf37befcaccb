"""Any checker of twisted.cred that takes a user and a password, named by a strcred description."""

from __future__ import annotations

import hmac
from typing import cast

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import InvalidAuthType, makeChecker
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime

from imapgate.auth.verify import PASSWORDS, Identified, NotIdentified, Presented
from imapgate.errors import ConfigurationError
from imapgate.model.failure import Failure


class _Credentials(UsernamePassword):
    """As its base, but compares in constant time (THREATS A35)."""

    def checkPassword(self, password: bytes | str) -> bool:
        kept = password.encode() if isinstance(password, str) else password
        return hmac.compare_digest(self.password, kept)


def checker(description: str) -> ICredentialsChecker:
    """Make the checker that a description such as ``file:/etc/imapgate/passwd`` names.

    :raise ConfigurationError: there is none; the sentence leaves out what follows the first colon, which may be secret.
    """
    kind = description.partition(":")[0]
    try:
        made = cast(ICredentialsChecker, makeChecker(description))
        interfaces = list(made.credentialInterfaces)
    except InvalidAuthType:
        raise ConfigurationError([f"there is no checker {kind!r}; twistd has those that its plugins bring"]) from None
    except Exception as error:  # whatever a plugin raises over its argument
        raise ConfigurationError([f"the checker {kind!r} cannot be made ({type(error).__qualname__})"]) from None
    if not any(interface.isOrExtends(IUsernamePassword) for interface in interfaces):
        raise ConfigurationError([f"the checker {kind!r} takes no user and password"])
    return made


class Cred:
    """The verifier ``cred``: a verdict is what the checker gives or UnauthorizedLogin, all else an outage.

    :param timeout: seconds that the checker may take.
    """

    name = "cred"
    mechanisms = PASSWORDS

    def __init__(self, checker: ICredentialsChecker, clock: IReactorTime, timeout: float = 10.0) -> None:
        self._checker = checker
        self._clock = clock
        self._timeout = timeout

    async def identify(self, presented: Presented) -> Identified:
        """Say who it is, or raise :exc:`NotIdentified`."""
        shown = _Credentials(presented.credentials.user, presented.credentials.password.reveal())
        asked: Deferred[object] = maybeDeferred(self._checker.requestAvatarId, shown)
        try:
            avatar = await asked.addTimeout(self._timeout, self._clock)
        except UnauthorizedLogin:
            raise NotIdentified(Failure.CREDENTIALS, "the checker says no") from None
        except DeferredTimeoutError:
            raise NotIdentified(Failure.TEMPORARY, f"no verdict within {self._timeout:g} s") from None
        except CancelledError:
            raise
        except Exception as error:  # its text may hold the password (THREATS A40)
            raise NotIdentified(Failure.TEMPORARY, f"the checker fails ({type(error).__qualname__})") from None
        if isinstance(avatar, str):
            avatar = avatar.encode()
        if not isinstance(avatar, bytes) or not avatar:  # cred's ANONYMOUS is an empty tuple
            raise NotIdentified(Failure.TEMPORARY, "the checker names nobody")
        return Identified(avatar)
