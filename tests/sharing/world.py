"""A share in a world of its own: sessions with pictures on one side, reference servers on the other, octets on the way.

Nothing is delivered before somebody says so, so that every order in which things can happen can be tried.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from imapgate.limits import DEFAULTS
from imapgate.model.commands import COMMANDS
from imapgate.model.failure import Failure
from imapgate.model.pool_mode import SharingTerms
from imapgate.session.effects import Failed
from imapgate.session.link import Link
from imapgate.sharing.channel import Channel
from imapgate.sharing.effects import Broken, Effect, End, GiveBack, Pinned, Polled, Say, Send, Want
from imapgate.sharing.seat import Seat
from imapgate.sharing.share import Share
from tests.sharing.picture import Picture, Violation
from tests.sharing.reading import Tree
from tests.sharing.server import Server, Store
from tests.sharing.told import Style

_TOKEN = re.compile(rb"token-\d+-\d+")


class Told(Picture):
    """A picture that looks at the messages, too: the text of each tells it from all others but its copies."""

    def __init__(self, store: Store, swaps: bool) -> None:
        super().__init__(swaps)
        self._store = store

    def _fetched(self, number: int, node: bytes | Tree) -> None:
        super()._fetched(number, node)
        mailbox = self._store.mailboxes.get(self.selected or b"")
        if mailbox is None or mailbox.uidvalidity != int(self.codes[b"UIDVALIDITY"]):
            return
        there = {message.uid: message.body for message in mailbox.messages}
        body = there.get(self.messages[number - 1].uid or 0)
        for token in _TOKEN.findall(repr(node).encode()):
            if body is not None and token not in body:
                raise Violation(f"{token!r} under the number of {self.messages[number - 1]}")


class Client:
    """One session of the user's."""

    def __init__(self, seat: Seat, store: Store, swaps: bool) -> None:
        self.seat = seat
        self.picture = Told(store, swaps)
        self.number = 0
        self.tag = b""  # of the command that is not answered yet
        self.done = False  # it has said DONE
        self.over: Failure | None = None

    @property
    def free(self) -> bool:
        """Whether it may give a command."""
        return self.over is None and self.picture.over is None and not self.tag

    @property
    def idling(self) -> bool:
        """Whether it idles, and has not said DONE."""
        return self.picture.idling and not self.done and not self.gone

    @property
    def gone(self) -> bool:
        """Whether its session is over."""
        return self.over is not None or self.picture.over is not None


class Line:
    """One upstream connection, and what is on its way on it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()


class World:
    """One user's share, and one store behind it.

    :ivar most: so many connections there have been at one time
    """

    def __init__(self, style: Style, terms: SharingTerms, *, hasty: bool = False, linger: float = 30.0) -> None:
        self.style = style
        self.hasty = hasty
        self.store = Store()
        self.share = Share(DEFAULTS, COMMANDS, terms, wait=10.0, linger=linger, alone=False, jitter=lambda: 0.5)
        self.clients: list[Client] = []
        self.lines: dict[Channel, Line] = {}
        self.wanted: list[Channel] = []
        self.pins: list[str] = []
        self.polls = 0
        self.most = 0
        self._now = 0.0

    # --- what happens -----------------------------------------------------------------------------------

    def sit(self) -> Client:
        """A session logs in, by a connection of its own."""
        client = Client(self.share.sit(), self.store, self.style.swaps)
        self.clients.append(client)
        link, server = self._connection()
        channel, effects = self.share.adopt(link)
        self._carries(channel, server)
        self.perform(effects)
        return client

    def says(self, client: Client, text: bytes) -> None:
        """A session gives a command, or says DONE; what it announces is sent when it is asked for."""
        client.done = text == b"DONE"
        if client.done:
            self.perform(self.share.said(client.seat, b"DONE\r\n"))
            return
        client.number += 1
        client.tag = b"c%d" % client.number
        client.picture.sends(client.tag, text)
        self.perform(self.share.said(client.seat, client.tag + b" " + text + b"\r\n"))

    def leaves(self, client: Client) -> None:
        """A session is over."""
        self.clients.remove(client)
        self.perform(self.share.leave(client.seat))

    def connects(self, which: int = 0, failed: Failed | None = None) -> None:
        """A connection that was wanted is there, or cannot be had."""
        channel = self.wanted.pop(which)
        if failed is None:
            link, server = self._connection()
            self._carries(channel, server)
            self.perform(self.share.opened(channel, link))
        else:
            self.perform(self.share.refused(channel, failed))

    def goes_up(self, line: Line) -> None:
        """A server hears what was sent first."""
        answer = line.server.received(line.up.popleft())
        if answer:
            line.down.append(answer)

    def goes_down(self, channel: Channel, most: int = 1 << 30) -> None:
        """The share hears what a server said first, or a part of it."""
        line = self.lines[channel]
        data = line.down.popleft()
        if len(data) > most:
            line.down.appendleft(data[most:])
            data = data[:most]
        self.perform(self.share.received(channel, data))
        if channel in self.lines and line.server.dead and not line.down:
            self.breaks(channel)

    def pushes(self, line: Line) -> None:
        """A server says what it has to say of its own accord."""
        data = line.server.pending()
        if data:
            line.down.append(data)

    def breaks(self, channel: Channel) -> None:
        """A connection is lost."""
        del self.lines[channel]
        self.perform(self.share.lost(channel))

    def passes(self, seconds: float) -> None:
        """Time passes."""
        self._now += seconds
        self.perform(self.share.ticked(self._now))
        if self.share.unwatched:
            self.perform(self.share.poll())

    def settles(self) -> None:
        """Let everything arrive."""
        for _ in range(10_000):
            if not self._steps():
                return
        raise AssertionError("it never comes to rest")

    def _steps(self) -> bool:
        moved = False
        while self.wanted:
            self.connects()
            moved = True
        for channel, line in list(self.lines.items()):
            if channel not in self.lines:
                continue
            if line.up:
                self.goes_up(line)
                moved = True
            self.pushes(line)
            if line.down:
                self.goes_down(channel)
                moved = True
            elif line.server.dead:
                self.breaks(channel)
                moved = True
        return moved

    # --- performing ---------------------------------------------------------------------------------------

    def _connection(self) -> tuple[Link, Server]:
        server = Server(self.store, self.style, hasty=self.hasty)
        link = Link(DEFAULTS)
        link.capabilities = server.capabilities
        return link, server

    def _carries(self, channel: Channel, server: Server) -> None:
        self.lines[channel] = Line(server)
        self.most = max(self.most, len(self.lines))

    def perform(self, effects: list[Effect]) -> None:
        """Do what the share wants done."""
        for effect in effects:
            _PERFORM[type(effect)](self, effect)

    def _say(self, effect: Say) -> None:
        client = next((each for each in self.clients if each.seat is effect.seat), None)
        if client is None:
            return
        picture = client.picture
        picture.received(effect.data)
        if client.tag and client.tag in picture.ended:
            client.tag = b""

    def _send(self, effect: Send) -> None:
        line = self.lines.get(effect.channel)
        if line is not None:
            line.up.append(effect.data)

    def _want(self, effect: Want) -> None:
        self.wanted.append(effect.channel)

    def _give_back(self, effect: GiveBack) -> None:
        line = self.lines.pop(effect.channel, None)
        if effect.clean and line is not None:
            assert [*line.up, *line.down] == []  # nothing is still on its way
        if effect.channel in self.wanted:
            self.wanted.remove(effect.channel)

    def _end(self, effect: End) -> None:
        for client in self.clients:
            if client.seat is effect.seat:
                client.over = effect.failure

    def _broken(self, effect: Broken) -> None:
        assert effect.why

    def _pinned(self, effect: Pinned) -> None:
        self.pins.append(effect.reason)

    def _polled(self, effect: Polled) -> None:
        self.polls += 1


_PERFORM: dict[type, Callable[..., None]] = {
    Say: World._say,
    Send: World._send,
    Want: World._want,
    GiveBack: World._give_back,
    End: World._end,
    Broken: World._broken,
    Pinned: World._pinned,
    Polled: World._polled,
}


def message(mailbox_number: int, uid: int) -> bytes:
    """A message whose text tells which one it is."""
    return b"Subject: token-%d-%d\r\n\r\ntoken-%d-%d\r\n" % (mailbox_number, uid, mailbox_number, uid)
