"""One record as a line: canonical JSON, and behind it the hash that ties it to the record before.

Knows octets only: no file, no clock, no key.

* Canonical JSON is an object with its keys sorted, ``,`` and ``:`` as separators, and ASCII alone.
* The hash is the SHA-256 of the hash before it (64 hexadecimal digits, as they stand in that record) followed by the
  record's canonical JSON; the first record of a chain has the SHA-256 of the chain's id before it.
* The line is the canonical JSON with ``"hash"`` added as its last member, and a newline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

import orjson

_canonical = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False, default=str
).encode

_CHAIN = re.compile(r"[0-9A-Za-z_.-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")
_SEALED = re.compile(rb'(\{.*),"hash":"([0-9a-f]{64})"\}\n', re.DOTALL)


class Read(NamedTuple):
    """A line that was read back.

    :ivar body: what the hash was made of, beside the hash before it
    """

    record: dict[str, object]
    body: bytes
    hash: str

    @property
    def chain(self) -> str:
        """Which chain it says it belongs to."""
        return str(self.record["chain"])

    @property
    def seq(self) -> int:
        """Its number there, from 1."""
        seq = self.record["seq"]
        assert isinstance(seq, int)
        return seq

    @property
    def previous(self) -> str:
        """The hash of another record that it says it follows; empty: it says nothing."""
        previous = str(self.record.get("previous", ""))
        return previous if _HASH.fullmatch(previous) else ""


def canonical(record: Mapping[str, object]) -> bytes:
    """Return the canonical JSON; a value that JSON does not know stands there as its text."""
    try:
        body = orjson.dumps(record, default=str, option=orjson.OPT_SORT_KEYS)  # in a sixth of the time
        if body.isascii() and b"null" not in body:  # which it writes for what is no number
            return body
    except TypeError:  # a number of more than 64 bits, or half a character
        pass
    try:
        return _canonical(record).encode("ascii")
    except ValueError:  # a number that is none, or infinite
        plain = {name: value if isinstance(value, int) else str(value) for name, value in record.items()}
        return _canonical(plain).encode("ascii")


def first_hash(chain: str) -> str:
    """Return what stands for the hash before the first record of a chain."""
    return sha256(chain.encode()).hexdigest()


def hashed(previous: str, body: bytes) -> str:
    """Return the hash of a record with this canonical JSON."""
    return sha256(previous.encode("ascii") + body).hexdigest()


def seal(record: Mapping[str, object], previous: str) -> tuple[bytes, str]:
    """Return the line of a record, and its hash."""
    body = canonical(record)
    digest = hashed(previous, body)
    return b'%b,"hash":"%b"}\n' % (body[:-1], digest.encode("ascii")), digest


def read(line: bytes) -> Read | None:
    """Return what a line says, ``None`` where it is no record; whether it is true is not looked at."""
    found = _SEALED.fullmatch(line)
    if found is None:
        return None
    body = found[1] + b"}"
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return None
    chain, seq = record.get("chain"), record.get("seq")
    if not isinstance(chain, str) or not _CHAIN.fullmatch(chain) or type(seq) is not int:
        return None
    return Read(record, body, found[2].decode("ascii"))
