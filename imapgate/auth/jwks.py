"""The keys that an issuer signs its tokens with: a JSON Web Key Set (RFC 7517), from a file or a URL.

Knows nothing of tokens but the name of the key (``kid``) that one says it was signed with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, KeySet, OKPKey, RSAKey
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from imapgate.auth.files import Watched
from imapgate.auth.verify import NotIdentified
from imapgate.errors import ConfigurationError
from imapgate.log import log
from imapgate.model.failure import Failure
from imapgate.web import Unanswered, get

FRESH = 3600.0
"""Seconds after which a set is fetched again."""

BETWEEN = 60.0
"""Seconds that lie at least between two fetches, however many unknown keys are named."""

AGAIN = 5.0
"""Seconds until a failed fetch is tried again."""

KEPT = 86_400.0
"""Seconds for which a set is believed while no new one can be had."""

_LARGEST = 1 << 20
_ASYMMETRIC = (RSAKey, ECKey, OKPKey)


class Keys(Protocol):
    """Where the keys are."""

    async def holding(self, kid: str | None) -> KeySet:
        """Return the set, looked for once more where it lacks ``kid``; raise :exc:`NotIdentified` if there is none."""


def parse(octets: bytes) -> KeySet:
    """Read a set; symmetric keys, those for encryption and those that are not understood are left out (RFC 7517 §5).

    :raise ConfigurationError: nothing is left, or it is no set.
    """
    try:
        listed = json.loads(octets)["keys"]
        keys = [key for key in map(_public_key, listed) if key is not None]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigurationError(["this is no JSON Web Key Set"]) from None
    if not keys:
        raise ConfigurationError(["no key in it can verify a token"])
    return KeySet(keys)


def _public_key(listed: object) -> Key | None:
    if not isinstance(listed, dict) or listed.get("use", "sig") != "sig":
        return None
    try:
        key = JWKRegistry.import_key(listed)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return key if isinstance(key, _ASYMMETRIC) else None


class FileKeys:
    """Keys in a file.

    :raise ConfigurationError: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._set = Watched("key set", path, parse)

    async def holding(self, kid: str | None) -> KeySet:
        """Return what the file holds now."""
        return self._set.current()


class UrlKeys:
    """Keys at a URL: fetched when the first token comes, kept, and fetched again for a key that is not among them."""

    def __init__(self, agent: IAgent, clock: IReactorTime, url: str, *, timeout: float = 5.0) -> None:
        self._agent = agent
        self._clock = clock
        self._url = url.encode("ascii")
        self._timeout = timeout
        self._set: KeySet | None = None
        self._since = 0.0  # when it was fetched
        self._not_before = 0.0  # when the next fetch may be
        self._waiting: list[Deferred[None]] = []  # those for whom a fetch is under way

    async def holding(self, kid: str | None) -> KeySet:
        """Return the set; raise :exc:`NotIdentified` where none can be had."""
        if self._lacks(kid) and (self._waiting or self._clock.seconds() >= self._not_before):
            fetched: Deferred[None] = Deferred()
            self._waiting.append(fetched)
            if len(self._waiting) == 1:  # on its own: a client that goes away does not end it
                Deferred.fromCoroutine(self._fetch())
            await fetched
        if self._set is None or self._clock.seconds() - self._since >= KEPT:
            raise NotIdentified(Failure.TEMPORARY, "the issuer's keys cannot be had")
        return self._set

    def _lacks(self, kid: str | None) -> bool:
        if self._set is None or self._clock.seconds() - self._since >= FRESH:
            return True
        return kid is not None and all(key.kid != kid for key in self._set)

    async def _fetch(self) -> None:
        pause = AGAIN
        try:
            answer = await get(self._agent, self._clock, self._url, Headers(), seconds=self._timeout, most=_LARGEST)
            if answer.status != 200:
                raise Unanswered(f"its HTTP status is {answer.status}")
            self._set, self._since, pause = parse(answer.body), self._clock.seconds(), BETWEEN
        except (Unanswered, ConfigurationError) as error:
            log.warn("key set {url}: {reason}", url=self._url.decode("ascii"), reason=str(error))
        finally:
            self._not_before = self._clock.seconds() + pause
            waiting, self._waiting = self._waiting, []
            for fetched in waiting:
                fetched.callback(None)
