"""Any interleaving on a session that is watched: verdicts that come late, from either side, with losses in between.

All that holds for any other session holds for this one (see ``test_machine``), and besides: no side is asked about
anything before it has its last answer; a verdict that comes after the end is nothing; a question of the gate's own is
never the client's; and what is recorded is on disk before the client sees an OK.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from imapgate.model.passing import Message
from imapgate.model.pool_mode import PoolMode
from imapgate.model.reading import Reading
from imapgate.model.verdict import CONTINUE, Answer, Disconnect, Event, Interests, Reject, Verdict
from imapgate.session import effects as wants
from tests.session.peers import Seen
from tests.session.playbook import Watching, logged_in
from tests.session.test_machine import CONTENT, LIMITS, Conversation, Guarded

EVERYTHING = Interests(
    verbs=None,
    completions=frozenset(["CREATE", "SELECT", "APPEND", "FETCH"]),
    responses=frozenset(["LIST", "OK", "EXISTS"]),
    fetch=True,
    message=4,
    events=frozenset([Event.SELECTED]),
)
WATCHING = st.sampled_from(
    [
        Watching(EVERYTHING, auditing=True, durable=True),
        Watching(EVERYTHING),
        Watching(Interests(message=100), auditing=True),
        Watching(auditing=True, durable=True),
    ]
)
RECORDED = (b"CREATE", b"SELECT", b"EXAMINE", b"DELETE", b"RENAME", b"APPEND", b"FETCH", b"STORE", b"EXPUNGE")
OWN_QUESTIONS = (b"FETCH 1 (UID)", b"UID SEARCH DELETED")
OUTCOMES = {"ok", "no", "bad", "denied", "unknown"}


class WatchedConversation(Conversation):
    """A client, its session, its server, and those who watch them."""

    def __init__(self) -> None:
        super().__init__()
        self.watching = Watching()
        self.judging: dict[wants.Side, wants.Judge] = {}
        self.cut = False  # upstream was cut off in the middle of a message
        self.recorded: set[bytes] = set()  # tags of commands whose answers have to be recorded first
        self.on_disk: set[bytes] = set()

    @initialize(most=st.sampled_from([1, 2, 5]), mode=st.sampled_from(PoolMode), watching=WATCHING)
    def begin(self, most: int, mode: PoolMode, watching: Watching) -> None:
        """A client that has just logged in."""
        self.mode, self.watching = mode, watching
        link = Guarded()
        limits = replace(LIMITS, pipelined_commands=most)
        self.session = logged_in(limits, mode=mode, link=link, watching=watching)
        if mode is PoolMode.MAILBOX:
            link.released = True
        else:
            self.link = link

    # --- more commands --------------------------------------------------------------------------------------

    def command(self, *parts: bytes | tuple[bytes, bool], seen: bytes | None) -> None:
        """Send a command, and remember whether it is to be recorded."""
        super().command(*parts, seen=seen)
        if isinstance(parts[0], bytes) and parts[0].startswith(RECORDED):
            self.recorded.add(b"c%d" % self.number)

    @precondition(lambda self: self.may_send)
    @rule(text=st.sampled_from([b"FETCH 1 FLAGS", b"STORE 1 FLAGS (x)", b"EXPUNGE", b"SEARCH ALL"]))
    def messages(self, text: bytes) -> None:
        """Commands that concern messages."""
        self.command(text, seen=text)

    @precondition(lambda self: self.may_send)
    @rule(contents=st.lists(CONTENT, min_size=1, max_size=2), synchronising=st.booleans())
    def look_at(self, contents: list[bytes], synchronising: bool) -> None:
        """Messages that are looked at, with all that is under way before them answered."""
        self.proceed(30)
        if self.may_send:
            parts: list[bytes | tuple[bytes, bool]] = [b"APPEND x"]
            for content in contents:
                parts += [b" ", (content, synchronising)]
            seen = b"".join(b" {%d}%b" % (len(content), content) for content in contents)
            self.command(*parts, seen=b"APPEND x" + seen)

    @rule(most=st.integers(1, 30))
    def proceed(self, most: int) -> None:
        """So many steps forward, as at the end."""
        while most and not self.closed and self._go_on():
            most -= 1

    def meant(self, command: Seen) -> Seen | None:
        """A command without what the gate added; ``None``: it is a question of its own."""
        if command.text in OWN_QUESTIONS:
            assert self.watching.auditing
            return None
        return command._replace(text=command.text.replace(b"(UID FLAGS)", b"FLAGS"))

    # --- verdicts -------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:  # type: ignore[override]
        """Whether something that came from the server is held back."""
        return wants.Side.UPSTREAM in self.judging or self.cut

    def judge(self, side: wants.Side, verdict: Verdict) -> None:
        """A verdict comes."""
        question = self.judging.pop(side)
        notes = {"key": question.hook} if verdict is CONTINUE else {}
        self.perform(self.session.answered(wants.Judgement(side, verdict, "plugin", notes)))

    @precondition(lambda self: self.judging and not self.closed)
    @rule(first=st.booleans(), verdict=st.sampled_from([CONTINUE, CONTINUE, Reject("", "Refused"), Answer()]))
    def verdict(self, first: bool, verdict: Verdict) -> None:
        """One of the verdicts that are awaited comes; what cannot be refused any more is not."""
        side = list(self.judging)[0 if first else -1]
        hook = self.judging[side].hook
        if side is wants.Side.UPSTREAM or (isinstance(verdict, Answer) and hook != "command"):
            verdict = CONTINUE
        self.judge(side, verdict)

    @precondition(lambda self: self.judging and not self.closed and self.number > 12)
    @rule()
    def dismissed(self) -> None:
        """A plugin ends the session."""
        side = next(iter(self.judging))
        if not self.cut:
            self.judge(side, Disconnect("Goodbye"))

    @precondition(lambda self: self.closed)
    @rule(side=st.sampled_from(wants.Side))
    def late(self, side: wants.Side) -> None:
        """A verdict that comes after the end is nothing (A51)."""
        assert self.session.answered(wants.Judgement(side, Reject())) == []

    def _go_on(self) -> bool:
        if self.judging:
            self.judge(next(iter(self.judging)), CONTINUE)
            return True
        return super()._go_on()

    def teardown(self) -> None:
        """Nothing is asked that was not answered, unless the connection ended."""
        super().teardown()
        assert self.closed or not self.judging

    # --- performing -----------------------------------------------------------------------------------------

    def perform(self, effects: Sequence[wants.Effect]) -> None:
        """Do what the session wants; what is recorded comes first, and is on disk before the rest (F14)."""
        rest = [effect for effect in effects if not isinstance(effect, wants.Record)]
        records = effects[: len(effects) - len(rest)]
        for record in records:
            assert isinstance(record, wants.Record), "recorded behind what was done"
            assert record.outcome in OUTCOMES
            assert self.watching.auditing
        if self.watching.durable and records:
            assert isinstance(rest[0], wants.Commit)
        tags = [record.fields.get("command.tag") for record in records if isinstance(record, wants.Record)]
        self.on_disk |= {tag.encode() for tag in tags if isinstance(tag, str)}
        others = []
        for effect in rest:
            if isinstance(effect, wants.Ask) and isinstance(effect.question, wants.Judge):
                self.asked_about(effect.question)
            elif effect == wants.Close(wants.Side.UPSTREAM, abort=True):  # for the sake of a message
                self.cut, self.link = True, None
            elif not isinstance(effect, wants.Commit):
                others.append(effect)
        super().perform(others)

    def asked_about(self, question: wants.Judge) -> None:
        """The plugins are asked."""
        assert not self.closed, "asked after the end"
        assert question.side not in self.judging, "asked before the last answer"
        assert self.watching.interests is not None
        self.judging[question.side] = question
        for argument in question.arguments:
            if isinstance(argument, Message):
                assert self.watching.interests.message
            if isinstance(argument, Reading):
                assert argument.command.tag in self.tags

    @invariant()
    def an_ok_is_recorded_first(self) -> None:
        """F14: every OK that a client saw, of a command that is recorded, is in the trail."""
        if self.watching.auditing:
            words = [line.split(b" ", 2)[:2] for line in self.receiver.responses]
            answered = {word[0] for word in words if word[1:] == [b"OK"]} & self.recorded
            assert answered <= self.on_disk


TestWatchedConversation = WatchedConversation.TestCase
TestWatchedConversation.settings = settings(
    settings(), stateful_step_count=80, max_examples=2 * settings().max_examples
)
