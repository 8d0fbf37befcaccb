"""A channel: one upstream connection of a share, with one mailbox selected or none, and one command in flight.

What is done on it is written as scripts: generators that yield a command and are sent its completion.  Nothing is
pipelined, so what comes back belongs to the script that runs; what concerns everybody is learnt, and owed to the views.
While nothing is to be done and a session idles, the channel idles.  It must not know which other channels there are.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from imapgate.errors import UpstreamProtocolError
from imapgate.limits import MIB
from imapgate.model import capability
from imapgate.model.commands import Command
from imapgate.session.link import Link
from imapgate.session.responses import STATUS, capabilities, keyword
from imapgate.sharing.asked import Refusal, form
from imapgate.sharing.found import Found
from imapgate.sharing.numbered import Numbered, Wish
from imapgate.sharing.opening import Opening, announce, announces
from imapgate.sharing.task import Completed, Farewell, Idle, Job, Mailbox, Script, Task
from imapgate.sharing.truth import Truth
from imapgate.sharing.view import View
from imapgate.wire.scanner import LINE, LITERAL
from imapgate.wire.writer import segments

if TYPE_CHECKING:
    from imapgate.sharing.seat import Seat


_RESULT_MOST = 4 * MIB
_VAIN_MOST = 5
"""So often a message is asked for of which nothing comes."""
_FOUND = frozenset((b"SEARCH", b"SORT", b"THREAD", b"ESEARCH"))
HOLDS_EXPUNGES = frozenset((b"FETCH", b"STORE", b"SEARCH", b"SORT", b"THREAD"))
"""Commands that no EXPUNGE may come with (RFC 3501 §7.4.1, RFC 5256)."""
_FETCHING = frozenset((b"FETCH", b"STORE"))
_STATUS_ITEM = re.compile(rb"(UIDVALIDITY|UIDNEXT) ([0-9]+)", re.IGNORECASE)
_COURIER = b"ACL2=UNION"
"""Only Courier has this.  It never tells what others did to the flags of a message that it has copied since, and
nothing at all of a mailbox that was deleted."""
_STALE_KILLS = b"ANNOTATE-EXPERIMENT-1"
"""Only Cyrus has this, whose process dies of a FETCH without PEEK of a message that has gone untold."""
_IMPLIES_SEEN = re.compile(r"(?:BODY|BINARY)\[|RFC822\Z|RFC822\.TEXT\Z")


class Channel:
    """One upstream connection.

    :param send: writes to it; ``say``: hands a session what is for it; ``settled``: called when nothing is left to do
    :ivar link: the connection; ``None``: it is being opened
    :ivar mailbox: what is selected
    :ivar views: who looks at it there, by view
    :ivar lent: the session that has the connection for itself, for a while or for good
    :ivar closed: it is no more
    :ivar retired: nobody may join it any more
    :ivar spent: nor is anything to be selected there any more
    :ivar task: what is being done
    :ivar waiting: what is to be done then
    :ivar asked: when it was last asked whether the mailbox is still the same
    :ivar heard: the server has said something since this was last set to ``False``
    """

    __slots__ = (
        "_found", "_gathered", "_idles_not", "_job", "_lines", "_opening", "_passing", "_say", "_segments", "_send",
        "_settled", "_tag", "asked", "closed", "heard", "heard_at", "idle", "idle_since", "lent", "link", "mailbox",
        "numbered", "opening", "retired", "since", "spent", "task", "truth", "views", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        send: Callable[[Channel, bytes], None],
        say: Callable[[Seat, bytes], None],
        settled: Callable[[Channel], None],
    ) -> None:
        self._send, self._say, self._settled = send, say, settled
        self.link: Link | None = None
        self.mailbox: Mailbox | None = None
        self.views: dict[View, Seat] = {}
        self.lent: Seat | None = None
        self.closed = self.retired = self.spent = False
        self.idle = Idle.NONE
        self.idle_since = self.heard_at = self.since = self.asked = 0.0
        self.heard = False
        self.waiting: deque[Task] = deque()
        self.task: Task | None = None
        self._tag = b""  # of the command in flight
        self._segments: list[bytes] = []  # of it, for which the server has to ask
        self._job: Job | None = None  # whose it is
        self._found: Found | None = None  # how its results are mapped
        self._lines: list[bytes] | None = None  # lines that the script wants to see
        self._opening: Opening | None = None  # of the SELECT in flight
        self._gathered = b""  # of a result that is read whole
        self._idles_not = False  # the server has refused to, and nothing else was done since
        self._passing = False  # the rest of the current line goes to whoever asked
        self.opening = Opening()
        self._blank()

    def _blank(self) -> None:
        self.truth = Truth()
        self.numbered = Numbered(self.truth, self.views)

    def opened(self, link: Link) -> None:
        """It is connected and logged in."""
        self.link = link
        link.scanner.fine = True

    # --- how it stands --------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether it is open, and the share's to use."""
        return self.link is not None and self.lent is None and not self.closed

    @property
    def busy(self) -> bool:
        """Whether something is being done on it, or waits to be."""
        return self.task is not None or bool(self.waiting)

    @property
    def idlers(self) -> int:
        """How many sessions idle here."""
        return sum(seat.idling for seat in self.views.values())

    @property
    def job(self) -> Job | None:
        """The session's command that is in flight."""
        return self._job

    @property
    def vacant(self) -> bool:
        """Whether nobody needs it."""
        return self.ready and not self.busy and not self.views

    @property
    def names(self) -> frozenset[bytes]:
        """The server's capabilities."""
        assert self.link is not None
        return capability.parse(self.link.capabilities)

    @property
    def trusting(self) -> bool:
        """Whether the server does not tell that the mailbox is gone, and has to be asked now and then."""
        return bool(self.views) and self.ready and _COURIER in self.names

    @property
    def owes(self) -> bool:
        """Whether the server has to say something."""
        return bool(self._tag)

    # --- scripts --------------------------------------------------------------------------------------

    def run(self, task: Task) -> None:
        """Have something done, when all before it is."""
        self.waiting.append(task)
        self.go()

    def go(self) -> None:
        """Begin what there is to do."""
        while self.task is None and self.ready:
            if self.waiting:
                if self.idle is Idle.IDLING:
                    self._end_idle()
                if self.idle is not Idle.NONE:
                    return
                self.task = self.waiting.popleft()
                self._step(None)
            elif self.truth.filled < len(self.truth):
                self.waiting.append(Task(self.fill()))
            else:
                self._rest()
                return

    def _rest(self) -> None:
        """Nothing is to be done: tell those who idle, and idle where somebody does."""
        if self.idlers:
            for view, seat in self.views.items():
                if seat.idling:
                    self._tell(view, seat)
            idles = self.idle is Idle.NONE and self.mailbox is not None and not self._idles_not
            if idles and b"IDLE" in self.names:
                assert self.link is not None
                self._tag, self.idle = self.link.next_tag(), Idle.ASKED
                self._send(self, b"%b IDLE\r\n" % self._tag)
        elif self.idle is Idle.IDLING:
            self._end_idle()
        self._settled(self)

    def _tell(self, view: View, seat: Seat) -> None:
        said = view.flush(self.truth, expunges=True)
        if said:
            self._say(seat, said)

    def _end_idle(self) -> None:
        self.idle = Idle.ENDING
        self._send(self, b"DONE\r\n")

    def refresh(self) -> None:
        """Begin the IDLE that goes on anew, before the server takes it for an absence (RFC 2177)."""
        self._end_idle()

    def _step(self, completed: Completed | None) -> None:
        """Let the script go on."""
        task = self.task
        assert task is not None
        assert self.link is not None
        try:
            parts = next(task.script) if completed is None else task.script.send(completed)
        except StopIteration:
            self.task = None
            return
        self._tag = self.link.next_tag()
        pieces = segments((self._tag, b" ", *parts))
        self._segments = pieces[1:]
        self._send(self, pieces[0])

    # --- what the server says -------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Take what the server said.

        :raise UpstreamProtocolError: what no honest server sends, or what contradicts what was known
        """
        assert self.link is not None
        self.heard = True
        scanner, said = self.link.scanner, list[bytes]()
        for kind, piece in scanner.feed(data):
            whole = scanner.at_line_start
            if kind == LITERAL:
                self._literal(piece, whole, said)
            elif kind != LINE:
                self._text(piece, whole, said)
            elif piece.startswith(b"* "):
                self._untagged(piece, whole, said)
            elif piece.startswith(b"+"):
                self._continued()
            else:
                if said:
                    self._pass_on(said)
                self._completed(piece)
        if said:
            self._pass_on(said)
        if self.task is None:
            self.go()

    def _pass_on(self, said: list[bytes]) -> None:
        data = b"".join(said)
        said.clear()
        if data and self._job is not None:
            self._say(self._job.seat, data)

    def _literal(self, piece: bytes, whole: bool, said: list[bytes]) -> None:
        if self._gathered:
            self._gather(piece, whole, said)
        elif self._passing or self.numbered.shown:
            self._sink(said).append(piece)

    def _sink(self, said: list[bytes]) -> list[bytes]:
        """Where the rest of a line goes that is passed on."""
        return said if self._lines is None else self._lines

    def _text(self, piece: bytes, whole: bool, said: list[bytes]) -> None:
        if self._gathered or self._passing:  # its end, and perhaps more behind it
            end = piece.find(b"\n") + 1 or len(piece)
            ends = whole or end < len(piece)
            if self._gathered:
                self._gather(piece[:end], ends, said)
            else:
                self._sink(said).append(piece[:end])
                self._passing = not ends
            piece = piece[end:]
        if piece:
            if self._opening is not None:
                for line in piece.splitlines():
                    self._opening.numbered(line.rsplit(b" ", 1)[-1].upper())
            said.append(self.numbered.text(piece, whole))

    def _untagged(self, line: bytes, whole: bool, said: list[bytes]) -> None:
        word = keyword(line)
        if self._opening is not None:
            if word in (b"FLAGS", b"OK"):
                self._opening.line(line, self.truth)
                return
        elif announces(line):
            self._announced(line, said)
            return
        if word == b"BYE":
            raise Farewell(line)
        if word == b"CAPABILITY":
            assert self.link is not None
            self.link.capabilities = capabilities(line) or self.link.capabilities
        if self._lines is not None:
            self._lines.append(line)
            self._passing = not whole
        elif self._job is not None:
            if word in _FOUND and self._found is not None:
                self._gather(line, whole, said)
            else:
                said.append(line)
                self._passing = not whole

    def _announced(self, line: bytes, said: list[bytes]) -> None:
        """FLAGS or PERMANENTFLAGS: whoever asked is about to be told of new ones, all others are owed it."""
        announce(self.truth, line)
        view = None if self._job is None else self._job.seat.view
        if view is not None and view in self.views:
            said.append(line)
            view.announced = self.truth.announced

    def _gather(self, piece: bytes, whole: bool, said: list[bytes]) -> None:
        """Take more of a result, and map it when it is whole."""
        self._gathered += piece
        if len(self._gathered) > _RESULT_MOST:
            raise UpstreamProtocolError(f"a result of more than {_RESULT_MOST} octets")
        if whole:
            line, self._gathered = self._gathered, b""
            assert self._found is not None
            assert self._job is not None
            said.append(self._found.line(keyword(line), line, self._job.command.tag))

    def _continued(self) -> None:
        if self.idle is Idle.ASKED:
            self.idle = Idle.IDLING
        elif self._segments:
            self._send(self, self._segments.pop(0))
        else:
            raise UpstreamProtocolError("a continuation that nobody awaits")

    def _completed(self, line: bytes) -> None:
        status = STATUS.match(line)
        if status is None or status[1] != self._tag or not self._tag or status[2].upper() not in (b"OK", b"NO", b"BAD"):
            raise UpstreamProtocolError("a completion for no command")
        self._tag, self._segments = b"", []
        if self.idle is not Idle.NONE:
            self._idles_not = self.idle is Idle.ASKED
            self.idle = Idle.NONE
        else:
            self._idles_not = False
            self._step(Completed(status[2].upper(), line[len(status[1]) :]))

    # --- what is done ---------------------------------------------------------------------------------

    def fill(self) -> Script:
        """Ask for what is not known of new messages: by number, so that none can be gone meanwhile."""
        truth, vain = self.truth, 0
        while (before := truth.filled) < len(truth):
            yield (b"FETCH %d:%d (UID FLAGS)" % (before + 1, len(truth)),)
            vain = vain + 1 if truth.filled == before else 0
            if vain > _VAIN_MOST:
                raise UpstreamProtocolError("no UID and no flags of a message that is there")
            if vain:  # it is gone already, which has not been said
                yield (b"NOOP",)

    def perform(self, job: Job) -> Script:
        """A session's command on the mailbox that it has selected here."""
        seat, reading = job.seat, job.reading
        name = job.command.rule.verb.removeprefix(b"UID ")
        view = seat.view
        if view is None or view not in self.views:  # it has lost the channel while it waited
            seat.submit(job.command)
            return
        if name == b"FETCH" and _STALE_KILLS in self.names and any(map(_IMPLIES_SEEN.match, reading.items)):
            yield (b"NOOP",)
        yield from self.fill()
        if seat.gone:
            return
        sent = form(reading, view, self.truth)
        if isinstance(sent, Refusal):
            self._finish(job, Completed(sent.completion, b" %b %b\r\n" % sent))
            return
        uid = reading.uid or "UID" in reading.items
        fetching = name in _FETCHING
        self.numbered.wish = Wish(
            view, fetching, name == b"STORE" or "FLAGS" in reading.items, uid, sent.store, sent.named
        )
        self._found = Found(view, self.truth, by_uid=sent.by_uid, uids=reading.uid)
        self._job = job
        announced = view.announce(self.truth)
        if announced:
            seat.say(announced)
        completed = yield (sent.verb, *sent.parts)
        self._job = self._found = self.numbered.wish = None
        if name == b"COPY" and completed.ok and _COURIER in self.names:
            copied = sent.parts[1]
            assert isinstance(copied, bytes)
            yield (b"UID FETCH %b (FLAGS)" % copied.split(b" ", 1)[0],)
        yield from self.fill()
        self._finish(job, completed)
        if completed.ok and reading.destination:
            seat.put_into(reading.destination)

    def _finish(self, job: Job, completed: Completed) -> None:
        """Tell the session what it is owed, and how its command ended."""
        seat, verb = job.seat, job.command.rule.verb
        said = b""
        if seat.view is not None and seat.view in self.views:
            said = seat.view.flush(self.truth, expunges=verb not in HOLDS_EXPUNGES)
        seat.finish(said + job.command.tag + completed.rest)

    def errand(self, job: Job, beside: Callable[[Channel], bool], again: Callable[[], None]) -> Script:
        """A session's command that concerns no selected mailbox.

        :param beside: whether that can be done on this channel as it is; else it is done ``again``
        """
        if not beside(self):  # another mailbox was selected meanwhile
            again()
            return
        self._job = job
        completed = yield (job.command.rule.verb, *job.command.parts)
        self._job = None
        job.seat.answered(job.command, completed)

    def look(self, then: Callable[[], None] | None = None) -> Script:
        """See what has become of the mailbox."""
        yield (b"NOOP",)
        yield from self.fill()
        if then is not None:
            then()

    def close(self, seat: Seat, command: Command) -> Script:
        """CLOSE of a session that may write: EXPUNGE, of which it does not hear itself."""
        if seat.view not in self.views:
            seat.submit(command)
            return
        yield (b"EXPUNGE",)
        seat.leave_mailbox()
        seat.finish(command.tag + b" OK Close completed\r\n")

    def select(self, mailbox: Mailbox, then: Callable[[Completed], None]) -> Script:
        """Select a mailbox, and learn what is in it; ``then`` is told how the SELECT ended."""
        self._blank()
        self.mailbox = None
        self._opening = opening = Opening()
        verb = b"EXAMINE" if mailbox.read_only else b"SELECT"
        completed = yield (verb, b" ", *mailbox.argument)
        self._opening = None
        if completed.ok:
            self.mailbox, self.opening, opening.text = mailbox, opening, completed.rest
            if mailbox.read_only or b"[READ-ONLY]" in completed.rest.upper():
                opening.read_only = True
            yield from self.fill()
        then(completed)

    def check(self, mailbox: Mailbox, then: Callable[[Completed], None], again: Callable[[], None]) -> Script:
        """See whether this is still the mailbox of that name, and what has become of it: before a session joins.

        :param again: called instead where another one was selected meanwhile, or none
        """
        if self.mailbox != mailbox:
            again()
            return
        lines = list[bytes]()
        self._lines = lines
        yield (b"NOOP",)
        failing = any(keyword(line) == b"NO" for line in lines)  # as where one of that name was made meanwhile
        yield from self.fill()
        completed = yield (b"STATUS ", *mailbox.argument, b" (UIDVALIDITY UIDNEXT)")
        self._lines = None
        yield from self.fill()
        if failing:
            completed = Completed(b"NO", b" The server cannot say what has become of the mailbox\r\n")
        said = dict(_STATUS_ITEM.findall(b"".join(lines).upper())) if completed.ok else {}
        validity = said.get(b"UIDVALIDITY", self.truth.validity)
        if completed.ok and validity != self.truth.validity:
            completed = Completed(b"NO", b" The mailbox is another one now\r\n")
        if completed.ok and self.truth.uid_next and b"UIDNEXT" in said:
            self.truth.uid_next = max(self.truth.uid_next, int(said[b"UIDNEXT"]))
        then(completed)

    def deselect(self) -> Script:
        """Have nothing selected."""
        if b"UNSELECT" in self.names:
            yield (b"UNSELECT",)
        else:
            yield (b'SELECT ""',)
        self.mailbox = None
        self._blank()
