"""What was last proved of each user's credential at an upstream: which one, when, and its generation.

Pure: the time is passed in.  No credential is kept, only a keyed digest that dies with the process
(THREATS A33, A34).  The generation is raised when another credential is proved, when a login fails, and
when the operator says so: connections of an older one are never lent again.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

Place = tuple[str, bytes]
"""An upstream and a user."""


class _Proof(NamedTuple):
    digest: bytes
    generation: int
    at: float  # a failure leaves one that is too old for anything


_NEVER = float("-inf")


class Proofs:
    """The users' credentials, as far as upstreams have verified them.

    :param key: octets that nobody else knows, at most 64, other ones in each process
    :param seconds: for how long a proof is good for another login; 0: never
    :param most: entries in the table; the one that was looked at longest ago makes room
    """

    def __init__(self, key: bytes, seconds: float, most: int = 50_000) -> None:
        self.seconds = seconds
        self._key = key
        self._most = most
        self._table: OrderedDict[Place, _Proof] = OrderedDict()
        self._last = 0  # a generation is never used twice, not even after its entry was pushed out

    def __len__(self) -> int:
        return len(self._table)

    def digest(self, parts: Iterable[bytes]) -> bytes:
        """The keyed digest (RFC 7693) of a credential, each part with its length before it (THREATS A33)."""
        return blake2b(b"".join([b"%d:%b" % (len(part), part) for part in parts]), key=self._key).digest()

    def recent(self, place: Place, digest: bytes, now: float) -> int | None:
        """The generation, where this very credential was proved not long ago; else ``None``."""
        proof = self._table.get(place)
        if proof is None or now - proof.at > self.seconds or not self.seconds:
            return None
        return proof.generation if hmac.compare_digest(proof.digest, digest) else None

    def generation(self, place: Place) -> int:
        """The generation as it stands."""
        proof = self._table.get(place)
        return self._set(place, _Proof(b"", self._next(), _NEVER)) if proof is None else proof.generation

    def proved(self, place: Place, digest: bytes, now: float) -> int:
        """An upstream has verified this credential; return its generation, a new one where it is another."""
        proof = self._table.get(place)
        same = proof is not None and hmac.compare_digest(proof.digest or digest, digest)
        return self._set(place, _Proof(digest, proof.generation if proof and same else self._next(), now))

    def failed(self, place: Place) -> int:
        """A login failed, or the operator wants every proof forgotten; return the new generation."""
        return self._set(place, _Proof(b"", self._next(), _NEVER))

    def _next(self) -> int:
        self._last += 1
        return self._last

    def _set(self, place: Place, proof: _Proof) -> int:
        self._table[place] = proof
        self._table.move_to_end(place)
        if len(self._table) > self._most:
            self._table.popitem(last=False)
        return proof.generation
