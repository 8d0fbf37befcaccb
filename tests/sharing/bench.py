"""A share in memory, played as a transcript: what sessions and servers say, and what the share makes of it.

Sessions have capital letters, upstream connections numbers, in the order of their coming.  The lines of a transcript:

==================  ==================================================================================
``A: sits``         a session logs in; the connection it did that by is the share's next one
``A> a1 NOOP``      a session writes this line
``1< * 3 EXISTS``   a server says this line; ``~``, first or in quotes, stands for the tag that was sent there last
``A: leaves``       a session is over
``2: opens``        a connection that was wanted is there
``2: refused``      or cannot be had
``2: lost``         a connection is no more
``2: expires``      a connection has got too old
``: 300``           so many seconds have passed since the beginning
``: poll``          look at the mailboxes of those who idle
``: close``         keep nothing for later
------------------  ----------------------------------------------------------------------------------
``A< a1 OK``        a session must be told this line
``1> ~ NOOP``       a server must be sent this line, with a tag that was never used there
``2: wanted``       a connection must be asked for
``2: clean``        one must be given back as good as new; ``2: selected``: with a mailbox selected; ``2: broken``
``A: ends lost``    a session must be ended
``A: pinned IDLE``  a session must have got a connection of its own
``: polled``        the look must be over
==================  ==================================================================================

A line that ends in ``\\`` has no CRLF.  Lines of one party in a row are one chunk, or come octet by octet.  Before
the next input, and at the end, all that was said must have stood there: in order for each party.

Effects are performed as outside: nothing is said to a session that is over, and nothing may be sent to a connection
that is not the share's.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from imapgate.limits import Limits
from imapgate.model.commands import table
from imapgate.model.failure import Failure
from imapgate.model.pool_mode import IdleMode, SharingTerms
from imapgate.session.effects import Failed
from imapgate.session.link import Link
from imapgate.sharing.channel import Channel
from imapgate.sharing.effects import Broken, Effect, End, GiveBack, Pinned, Polled, Say, Send, Want
from imapgate.sharing.seat import Seat
from imapgate.sharing.share import Share

DOVECOT = b"IMAP4rev1 LITERAL+ IDLE UIDPLUS MOVE ESEARCH SORT THREAD=REFERENCES UNSELECT ENABLE CONDSTORE QRESYNC"
CYRUS = DOVECOT + b" ANNOTATE-EXPERIMENT-1"
COURIER = b"IMAP4rev1 CHILDREN UIDPLUS SORT THREAD=REFERENCES"

_LINE = re.compile(r"([A-Z]|[0-9]+|)([<>:]) ?(.*)")
_ENDS = re.compile(r"wanted|clean|selected|broken|ends .*|pinned .*|polled")
_TAG = re.compile(rb"g[0-9]+ ")
_FLAGS = r"(\Answered \Flagged \Deleted \Seen \Draft)"

Line = tuple[str, str, bytes]
"""A party, a mark, and what was said."""


class Bench:
    """One share.

    :ivar counts: what it did how often
    :ivar why: a session was ended, or a connection given up
    """

    def __init__(
        self,
        *,
        octets: bool = False,
        capabilities: bytes = DOVECOT,
        wait: float = 30.0,
        linger: float = 60.0,
        alone: bool = False,
        size: int = 10,
        idle: IdleMode = IdleMode.SHARE,
        limits: Limits | None = None,
        extra_verbs: Iterable[str] = (),
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.share = Share(
            limits or Limits(), table(extra_verbs), SharingTerms(size=size, idle=idle), wait=wait,
            linger=linger, alone=alone, jitter=lambda: 0.5, counts=self.counts,
        )  # fmt: skip
        self._octets = octets
        self._capabilities = capabilities
        self._limits = limits or Limits()
        self.seats: dict[str, Seat] = {}
        self.channels: dict[str, Channel] = {}
        self.why: dict[str, str] = {}
        self._open: set[str] = set()  # connections that may be written to
        self._tags: dict[str, bytes] = {}  # sent last, by connection
        self._used: dict[str, set[bytes]] = {}
        self._said: list[Line] = []  # and not looked at yet

    def __call__(self, transcript: str) -> None:
        """Play a transcript."""
        expected: list[Line] = []
        chunk: Line | None = None
        for party, mark, text in _lines(transcript):
            comes = _is_input(party, mark, text)
            data = text.removesuffix("\\").encode("latin-1") + (b"" if mark == ":" or text.endswith("\\") else b"\r\n")
            if comes and chunk is not None and chunk[:2] == (party, mark) and mark != ":":
                chunk = (party, mark, chunk[2] + self._tagged(party, mark, data))
                continue
            if chunk is not None:
                self._give(*chunk)
                chunk = None
            if comes:
                self._compare(expected)
                expected = []
                chunk = (party, mark, self._tagged(party, mark, data))
            else:
                expected.append((party, mark, data))
        if chunk is not None:
            self._give(*chunk)
        self._compare(expected)

    def _tagged(self, party: str, mark: str, data: bytes) -> bytes:
        if mark == "<" and data.startswith(b"~ "):
            data = self._tags[party] + data[1:]
        return data.replace(b'"~"', b'"%b"' % self._tags[party]) if b'"~"' in data else data

    # --- what comes -------------------------------------------------------------------------------------------

    def _give(self, party: str, mark: str, data: bytes) -> None:
        if mark == ":":
            self._happens(party, data.decode())
            return
        for piece in (data[n : n + 1] for n in range(len(data))) if self._octets else [data]:
            if mark == ">":
                self._perform(self.share.said(self.seats[party], piece))
            else:
                self._perform(self.share.received(self.channels[party], piece))

    def _happens(self, party: str, what: str) -> None:
        share = self.share
        if what == "sits":
            self.seats[party] = share.sit()
            channel, effects = share.adopt(self._link())
            self._open.add(self._number(channel))
            self._perform(effects)
        elif what == "leaves":
            self._perform(share.leave(self.seats[party]))
        elif what == "opens":
            self._open.add(party)
            self._perform(share.opened(self.channels[party], self._link()))
        elif what == "refused":
            self._perform(share.refused(self.channels[party], Failed(Failure.REFUSED)))
        elif what == "lost":
            self._open.discard(party)
            self._perform(share.lost(self.channels[party]))
        elif what == "expires":
            self._perform(share.retire(self.channels[party]))
        elif what == "poll":
            self._perform(share.poll())
        elif what == "close":
            self._perform(share.close())
        else:
            self._perform(share.ticked(float(what)))

    def _link(self) -> Link:
        link = Link(self._limits)
        link.capabilities = self._capabilities
        return link

    def _number(self, channel: Channel) -> str:
        for number, known in self.channels.items():
            if known is channel:
                return number
        number = str(len(self.channels) + 1)
        self.channels[number] = channel
        return number

    # --- what comes of it -------------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Say):
                if effect.seat in self.seats.values():
                    self._said.append((self._letter(effect.seat), "<", effect.data))
            elif isinstance(effect, Send):
                number = self._number(effect.channel)
                assert number in self._open, f"sent to {number}, which is not there: {effect.data!r}"
                self._said.append((number, ">", self._sent(number, effect.data)))
            elif isinstance(effect, Want):
                assert not effect.seat.gone
                self._event(self._number(effect.channel), "wanted")
            elif isinstance(effect, GiveBack):
                number = self._number(effect.channel)
                self._open.discard(number)
                self._event(number, ("selected" if effect.selected else "clean") if effect.clean else "broken")
            elif isinstance(effect, End):
                letter = self._letter(effect.seat)
                del self.seats[letter]
                self.why[letter] = effect.why
                self._event(letter, f"ends {effect.failure.value}")
            elif isinstance(effect, Broken):
                self.why[self._number(effect.channel)] = effect.why
            elif isinstance(effect, Pinned):
                self._event(self._letter(effect.seat), f"pinned {effect.reason}")
            else:
                assert isinstance(effect, Polled)
                self._event("", "polled")

    def _sent(self, number: str, data: bytes) -> bytes:
        tag = _TAG.match(data)
        if tag is None:
            return data
        used = self._used.setdefault(number, set())
        assert tag[0] not in used
        used.add(tag[0])
        self._tags[number] = tag[0][:-1]
        return b"~ " + data[tag.end() :]

    def _letter(self, seat: Seat) -> str:
        return next(letter for letter, known in self.seats.items() if known is seat)

    def _event(self, party: str, what: str) -> None:
        self._said.append((party, ":", what.encode()))

    def _compare(self, expected: list[Line]) -> None:
        said, self._said = _shown(self._said), []
        wanted = _shown(expected)
        if said != wanted:
            raise AssertionError("expected, and said:\n" + "\n".join(difflib.ndiff(wanted, said)))


def _lines(transcript: str) -> Iterator[tuple[str, str, str]]:
    for line in transcript.splitlines():
        if line.strip() and not line.strip().startswith("--"):
            found = _LINE.fullmatch(line.strip())
            assert found is not None, f"not a line of a transcript: {line}"
            yield found[1], found[2], found[3]


def _is_input(party: str, mark: str, text: str) -> bool:
    if mark == ":":
        return _ENDS.fullmatch(text) is None
    return party.isalpha() == (mark == ">")


def _shown(said: Iterable[Line]) -> list[str]:
    """What each party has got, in order, as lines of a transcript."""
    joined: list[Line] = []
    for party, mark, data in sorted(said, key=lambda line: line[0]):
        if joined and mark != ":" and joined[-1][:2] == (party, mark):
            joined[-1] = (party, mark, joined[-1][2] + data)
        else:
            joined.append((party, mark, data))
    shown = []
    for party, mark, data in joined:
        *whole, rest = data.split(b"\r\n")
        for line in whole:
            shown.append(f"{party}{mark} {line.decode('latin-1')}")
        if rest:
            shown.append(f"{party}{mark} {rest.decode('latin-1')}{'' if mark == ':' else chr(92)}")
    return shown


# --- what is played again and again -----------------------------------------------------------------------


def selected(messages: int, party: str, *, recent: int = 0, unseen: int = 0) -> str:
    """What is said of INBOX when it is selected."""
    lines = [
        f"FLAGS {_FLAGS}",
        f"OK [PERMANENTFLAGS {_FLAGS}] Limited",
        f"{messages} EXISTS",
        f"{recent} RECENT",
        "OK [UIDVALIDITY 7] Ok",
        f"OK [UIDNEXT {11 + messages}] Ok",
    ]
    return "\n".join(f"{party}< * {line}" for line in lines)


def filled(uids: Iterable[int], on: str = "1", flags: str = r"\Seen") -> str:
    """All messages of a mailbox are asked for, and told."""
    lines = [f"{on}< * {number} FETCH (UID {uid} FLAGS ({flags}))" for number, uid in enumerate(uids, 1)]
    return "\n".join([f"{on}> ~ FETCH 1:{len(lines)} (UID FLAGS)", *lines, f"{on}< ~ OK Done"]) if lines else ""


def opened(messages: int = 3, on: str = "1", *, verb: str = "SELECT", name: str = "INBOX") -> str:
    """A server is to select a mailbox, and does: the UIDs of the messages are 11, 12 and so on."""
    access = "READ-WRITE" if verb == "SELECT" else "READ-ONLY"
    return f"""
        {on}> ~ {verb} {name}
        {selected(messages, on)}
        {on}< ~ OK [{access}] Done
        {filled(range(11, 11 + messages), on)}"""


def opens(messages: int = 3, who: str = "A", on: str = "1", *, verb: str = "SELECT", name: str = "INBOX") -> str:
    """A session selects a mailbox that is selected nowhere."""
    access = "READ-WRITE" if verb == "SELECT" else "READ-ONLY"
    return f"""
        {who}> s1 {verb} {name}
        {opened(messages, on, verb=verb, name=name)}
        {selected(messages, who)}
        {who}< s1 OK [{access}] Done"""


def begins(messages: int = 3) -> str:
    """A logs in, and opens INBOX on its connection, which is the first one."""
    return f"A: sits\n{opens(messages)}"


def looked(on: str = "1", name: str = "INBOX", *, validity: int = 7, following: int = 14) -> str:
    """The connection that a session is to join is looked at."""
    return f"""
        {on}> ~ NOOP
        {on}< ~ OK Done
        {on}> ~ STATUS {name} (UIDVALIDITY UIDNEXT)
        {on}< * STATUS {name} (UIDVALIDITY {validity} UIDNEXT {following})
        {on}< ~ OK Done"""


def joins(who: str = "B", messages: int = 3, on: str = "1") -> str:
    """Another session selects INBOX, where that is selected already."""
    return f"""
        {who}> s1 SELECT INBOX
        {looked(on, following=11 + messages)}
        {selected(messages, who)}
        {who}< s1 OK [READ-WRITE] Done"""


def both(messages: int = 3) -> str:
    """A and B have INBOX selected on the first connection; the second one is vacant."""
    return f"""
        {begins(messages)}
        B: sits
        {joins(messages=messages)}"""
