"""The endpoints of one upstream: in which order a user's login tries them, and which are left alone for a while.

Pure: it knows names and outcomes, no socket and no clock; times are seconds of any clock that never goes back.

Every user has an order of endpoints of their own (rendezvous hashing), so that their sessions meet on one, and an
endpoint that goes away moves only those who were on it.

THREATS F10: after some failures in a row an endpoint is *ejected*, which puts it last, for longer each time.  When that
time is over, one attempt goes there as a *probe*, and its outcome decides.  The last one standing is never ejected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

EJECTED_AFTER = 5
"""Failures in a row."""
FIRST_EJECTION = 30.0
LONGEST_EJECTION = 300.0
SPREAD = 0.1
"""By which part an ejection may be longer or shorter, so that not all gates probe at once."""
PROBE_SECONDS = 30.0
"""A probe that came to nothing by then (its client may have gone) makes room for another."""


@dataclass(slots=True)
class _Endpoint:
    name: str
    failures: int = 0
    in_a_row: int = 0
    ejections: int = 0  # in a row, too
    until: float | None = None  # when the ejection ends; None: it is not ejected
    probed_until: float = 0.0  # before then, a probe is under way

    def state(self, now: float) -> str:
        if self.until is None:
            return "up"
        return "probing" if now < self.probed_until else "ejected"

    def awaits_probe(self, now: float) -> bool:
        return self.until is not None and now >= self.until and now >= self.probed_until


class Endpoints:
    """The endpoints of one upstream, by their index.

    :param jitter: gives numbers from 0 to 1.
    """

    def __init__(self, names: Sequence[str], jitter: Callable[[], float]) -> None:
        self._endpoints = [_Endpoint(name) for name in names]
        self._hashes = [blake2b(digest_size=8, key=blake2b(name.encode(), digest_size=32).digest()) for name in names]
        self._jitter = jitter

    def order(self, user: str, now: float) -> list[int]:
        """Return every endpoint's index, in the order in which this attempt is to try them: ejected ones last.

        Where the first of the user's own order awaits its probe, this attempt is it.  For a user who is not known
        anything serves that differs from session to session.
        """
        preferred = self._preferred(user)
        first = self._endpoints[preferred[0]]
        if first.awaits_probe(now):
            first.probed_until = now + PROBE_SECONDS
            return preferred[:1] + self._standing_first(preferred[1:])
        return self._standing_first(preferred)

    def failed(self, index: int, now: float) -> None:
        """An attempt failed there before there was a greeting."""
        endpoint = self._endpoints[index]
        endpoint.failures += 1
        endpoint.in_a_row += 1
        if endpoint.until is None:
            if endpoint.in_a_row >= EJECTED_AFTER and self._others_stand(endpoint):
                self._eject(endpoint, now)
        elif now >= endpoint.until:  # it was the probe; earlier, it is a straggler, and says nothing new
            self._eject(endpoint, now)

    def succeeded(self, index: int) -> None:
        """An endpoint has greeted: whatever was held against it is forgotten."""
        endpoint = self._endpoints[index]
        endpoint.in_a_row = endpoint.ejections = 0
        endpoint.until = None

    def seen(self, index: int, ok: bool, now: float) -> None:
        """An attempt, or a check without credentials, found the endpoint well, or not."""
        if ok:
            self.succeeded(index)
        else:
            self.failed(index, now)

    def rows(self, now: float) -> list[dict[str, str | int | float | None]]:
        """Return a row for each endpoint; ``ejected_for`` is the time until it is probed, None where it is up."""
        return [
            {
                "name": endpoint.name,
                "state": endpoint.state(now),
                "failures": endpoint.failures,
                "in_a_row": endpoint.in_a_row,
                "ejected_for": None if endpoint.until is None else max(endpoint.until - now, 0.0),
            }
            for endpoint in self._endpoints
        ]

    def _preferred(self, user: str) -> list[int]:
        """Every index, the one with the highest score for this user first."""
        key = user.encode()
        scores = []
        for hashed in self._hashes:
            score = hashed.copy()
            score.update(key)
            scores.append(score.digest())
        return sorted(range(len(scores)), key=scores.__getitem__, reverse=True)

    def _standing_first(self, indices: Sequence[int]) -> list[int]:
        return sorted(indices, key=lambda index: self._endpoints[index].until is not None)

    def _others_stand(self, endpoint: _Endpoint) -> bool:
        return any(other.until is None for other in self._endpoints if other is not endpoint)

    def _eject(self, endpoint: _Endpoint, now: float) -> None:
        seconds = min(FIRST_EJECTION * 2.0**endpoint.ejections, LONGEST_EJECTION)
        endpoint.ejections = min(endpoint.ejections + 1, 16)
        endpoint.until = now + seconds * (1 - SPREAD + 2 * SPREAD * self._jitter())
        endpoint.probed_until = 0.0
