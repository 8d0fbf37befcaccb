"""All plugins of one configuration: started, stopped, counted, and a chain of them opened for each session.

Knows which plugins concern which user.  It knows no session but by its user's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.interfaces import IReactorTime

from imapgate.errors import ConfigurationError
from imapgate.model.verdict import Event
from imapgate.plugins.api import Session
from imapgate.plugins.chain import Chain, Judged
from imapgate.plugins.loading import Loaded
from imapgate.plugins.place import DeferToThread, Place, PluginFault
from imapgate.plugins.raised import described
from imapgate.plugins.table import Table, union

__all__ = ["Chain", "Judged", "PluginFault", "Plugins"]

_BEGINNINGS = frozenset([Event.OPENED, Event.TLS])


class Plugins:
    """The plugins of a configuration.

    :param loaded: in their order
    :param defer_to_thread: calls its first argument with all others in a thread, and returns a Deferred
    :param report: told whenever one of them fails
    :ivar interests: what any of them wants to be asked about
    """

    def __init__(
        self,
        loaded: Sequence[Loaded],
        clock: IReactorTime,
        *,
        defer_to_thread: DeferToThread,
        report: Callable[[PluginFault], None],
    ) -> None:
        self._places = [Place(number, one, clock, defer_to_thread, report) for number, one in enumerate(loaded)]
        self.interests = union(place.interests for place in self._places)
        for_everyone = [place for place in self._places if place.for_everyone]
        self._before = Table(self._places, capabilities=for_everyone, closing=self._places)
        self._after: dict[tuple[int, ...], Table] = {}

    def start(self) -> None:
        """Start them.

        :raise ConfigurationError: one of them does not; those before it are stopped.
        """
        started: list[Place] = []
        for place in self._places:
            try:
                place.start()
            except Exception as error:
                for one in reversed(started):
                    one.stop()
                why = described(error, type(place.plugin).__module__)
                raise ConfigurationError([f"the plugin {place.name} does not start: {why}"]) from None
            started.append(place)

    def stop(self) -> None:
        """Stop them, the last one first."""
        for place in reversed(self._places):
            place.stop()

    def open(self, session: Session) -> Chain | None:
        """Return the chain of a session; ``None``: there are no plugins."""
        return Chain(session, self._before, self._table) if self._places else None

    def rows(self) -> list[Mapping[str, str | int]]:
        """Return what an operator wants to know of each: what it was asked, and how it did."""
        return [place.row() for place in self._places]

    def _table(self, user: str) -> Table:
        """Return who is asked of a user who is logged in; those who were told of the beginning are told of the end."""
        places = [place for place in self._places if place.concerns([user])]
        key = tuple(place.number for place in places)
        if key not in self._after:
            closing = [one for one in self._places if one in places or one.interests.events & _BEGINNINGS]
            self._after[key] = Table(places, capabilities=places, closing=closing)
        return self._after[key]
