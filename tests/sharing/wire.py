"""A channel's numbered responses as they come in octets, and two sessions who look at its mailbox."""

from __future__ import annotations

from imapgate.limits import MIB
from imapgate.model.reading import Store
from imapgate.sharing.numbered import Numbered, Wish
from imapgate.sharing.truth import Truth
from imapgate.wire.scanner import LITERAL, TEXT, ResponseScanner
from tests.sharing.mailboxes import go, holding, looking


class Wire:
    """A channel's numbered responses, two sessions who look at it, and what the first is shown."""

    def __init__(self, truth: Truth, *, read_only: bool = False) -> None:
        self.truth = truth
        self.view, self.other = looking(truth, read_only=read_only), looking(truth, read_only=read_only)
        self.numbered = Numbered(truth, [self.view, self.other])
        self._scanner = ResponseScanner(MIB)
        self._scanner.fine = True

    def wish(
        self,
        *,
        fetching: bool = True,
        flags: bool = False,
        uid: bool = False,
        store: Store | None = None,
        named: tuple[tuple[int, int], ...] = (),
    ) -> None:
        """The first session's command runs."""
        self.numbered.wish = Wish(self.view, fetching, flags, uid, store, named)

    def hears(self, data: bytes) -> bytes:
        """Octets come from the server, as a channel takes them."""
        said = []
        for kind, piece in self._scanner.feed(data):
            whole = self._scanner.at_line_start
            if kind == TEXT:
                said.append(self.numbered.text(piece, whole))
            else:
                assert kind == LITERAL
                if self.numbered.shown:
                    said.append(piece)
        return b"".join(said)

    def owed(self) -> tuple[bytes, bytes]:
        """What either session is owed."""
        first, second = (view.flush(self.truth, expunges=True) for view in (self.view, self.other))
        return first, second


def four(*, read_only: bool = False) -> Wire:
    """Messages 10 to 40, all with the flag kw."""
    return Wire(holding(10, 20, 30, 40, flags=b"kw"), read_only=read_only)


def haunted() -> Wire:
    """The same with 20 gone, of which neither session knows."""
    wire = four()
    go(wire.truth, 20, wire.view, wire.other)
    return wire
