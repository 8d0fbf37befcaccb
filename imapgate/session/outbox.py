"""What one call of the core has to say, collected: one write out for one chunk in."""

from __future__ import annotations

from imapgate.session.effects import Effect, SendClient, SendUpstream


class Outbox:
    """Gathers writes to both sides, and effects, in order; writes to one side are joined."""

    __slots__ = ("_client", "_effects", "_upstream")

    def __init__(self) -> None:
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

    def take(self) -> list[Effect]:
        """Return everything, in order, and be empty again."""
        self._flush()
        effects, self._effects = self._effects, []
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
