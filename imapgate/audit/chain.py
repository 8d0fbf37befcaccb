"""One chain: the records of one process, numbered, each tied to the one before."""

from __future__ import annotations

from imapgate.audit.checkpoint import Signer
from imapgate.audit.record import first_hash, seal


class Chain:
    """Where a chain stands.

    :ivar name: its id, in every record of it
    :ivar seq: the number of its last record, 0 before the first
    :ivar hash: the hash of its last record
    """

    __slots__ = ("hash", "name", "seq")

    def __init__(self, name: str) -> None:
        self.name = name
        self.seq = 0
        self.hash = first_hash(name)

    def seal(self, record: dict[str, object], signer: Signer | None = None) -> bytes:
        """Number a record, sign it where it is to be signed, and return its line; the record gains what was added."""
        self.seq += 1
        record["chain"] = self.name
        record["seq"] = self.seq
        if signer is not None:
            signer.sign(record, self.hash)
        line, self.hash = seal(record, self.hash)
        return line
