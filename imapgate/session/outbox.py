"""What one call of the core has to say, collected: one write out for one chunk in."""

from __future__ import annotations

from imapgate.session.effects import Commit, Effect, Record, SendClient, SendUpstream


class Outbox:
    """Gathers writes to both sides, and effects, in order; writes to one side are joined.

    What is to be recorded comes before all else.

    :ivar durable: and before it is on disk nothing else is done
    :ivar whole: what is written to the client ends a response
    """

    __slots__ = ("_client", "_effects", "_records", "_taken_whole", "_upstream", "durable", "whole")

    def __init__(self) -> None:
        self._records: list[Effect] = []
        self.durable = False
        self.whole = self._taken_whole = True
        self._client: list[bytes] = []
        self._upstream: list[bytes] = []
        self._effects: list[Effect] = []

    def client(self, data: bytes) -> None:
        """Write to the client."""
        self._client.append(data)

    def upstream(self, data: bytes) -> None:
        """Write to upstream."""
        self._upstream.append(data)

    def effect(self, effect: Effect) -> None:
        """Add an effect, behind what was written so far."""
        self._flush()
        self._effects.append(effect)

    def record(self, record: Record) -> None:
        """Put an event into the audit trail."""
        self._records.append(record)

    def take(self) -> list[Effect]:
        """Return everything, in order, and be empty again."""
        self._flush()
        effects, self._effects = self._effects, []
        if self._records:
            records, self._records = self._records, []
            if self.durable:
                records.append(Commit(self._taken_whole))
            effects = records + effects
        self._taken_whole = self.whole
        return effects

    def _flush(self) -> None:
        if self._upstream:
            writes = self._upstream
            self._effects.append(SendUpstream(writes[0] if len(writes) == 1 else b"".join(writes)))
            self._upstream = []
        if self._client:
            writes = self._client
            self._effects.append(SendClient(writes[0] if len(writes) == 1 else b"".join(writes)))
            self._client = []
