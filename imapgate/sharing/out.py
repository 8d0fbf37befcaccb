"""What one call of a share has to say, collected in order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from imapgate.session.effects import SendClient, SendUpstream
from imapgate.sharing.effects import Effect, Say, Send

if TYPE_CHECKING:
    from imapgate.sharing.channel import Channel
    from imapgate.sharing.seat import Seat


class Out:
    """Gathers effects.

    :ivar now: the time, in seconds, as of the last tick
    """

    __slots__ = ("_effects", "now")

    def __init__(self, now: float) -> None:
        self._effects: list[Effect] = []
        self.now = now

    def say(self, seat: Seat, data: bytes) -> None:
        """Hand something to a session."""
        if not seat.gone:
            seat.spoken = self.now
            self._effects.append(Say(seat, data))

    def send(self, channel: Channel, data: bytes) -> None:
        """Write to a channel's connection."""
        self._effects.append(Send(channel, data))

    def effect(self, effect: Effect) -> None:
        """Add any other effect."""
        self._effects.append(effect)

    def writes(self, seat: Seat, line: Channel, writes: Iterable[SendClient | SendUpstream]) -> None:
        """Do what an errand wants to be written to its session, and to the connection that it has."""
        for write in writes:
            if isinstance(write, SendUpstream):
                self.send(line, write.data)
            else:
                self.say(seat, write.data)

    def take(self) -> list[Effect]:
        """Return everything, and be empty again; what one session is told in a row is joined."""
        effects, self._effects = self._effects, []
        taken: list[Effect] = []
        for effect in effects:
            last = taken[-1] if taken else None
            if isinstance(effect, Say) and isinstance(last, Say) and last.seat is effect.seat:
                taken[-1] = Say(effect.seat, last.data + effect.data)
            else:
                taken.append(effect)
        return taken
