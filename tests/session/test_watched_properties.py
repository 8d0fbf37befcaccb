"""What holds for any octets on a session that is watched: it shows what any other does, and nothing breaks it.

The scripts are those of ``test_properties``; an honest server stands behind the conversations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from imapgate.errors import ClientProtocolError
from imapgate.limits import DEFAULTS
from imapgate.model.failure import LOST_SESSION, Failure
from imapgate.model.verdict import CONTINUE, Answer, Disconnect, Event, Interests, Reject, Replace, Verdict
from imapgate.session import effects as wants
from imapgate.session.session import ClientSession
from imapgate.session.states import Connection
from tests.session.peers import Seen, Server
from tests.session.playbook import Watching, logged_in, passing
from tests.session.test_properties import CAPABILITIES, CUTS, MUTATIONS, SCRIPT, cut, mutated, outcome

EVERYTHING = Interests(
    verbs=None,
    completions=frozenset(["UID FETCH", "FETCH", "SELECT", "APPEND", "NOOP"]),
    responses=frozenset(["LIST", "OK", "EXISTS", "EXPUNGE", "SEARCH", "STATUS"]),
    fetch=True,
    message=4,
    events=frozenset([Event.SELECTED]),
)
WATCHING = st.sampled_from(
    [
        Watching(EVERYTHING, passing, auditing=True),
        Watching(EVERYTHING, passing),
        Watching(None, None, auditing=True, durable=True, subjects=True),
    ]
)


class Played:
    """A session whose plugins answer at once.

    :ivar effects: what it wanted, the questions to them left out
    """

    def __init__(self, watching: Watching) -> None:
        self.session = logged_in(DEFAULTS, None, CAPABILITIES, watching=watching)
        self.judge = watching.judge
        self.effects: list[wants.Effect] = []

    def perform(self, effects: Sequence[wants.Effect]) -> list[wants.Effect]:
        """Do what it wants, and what follows from that."""
        found: list[wants.Effect] = []
        questions = []
        for effect in effects:
            if isinstance(effect, wants.Ask) and isinstance(effect.question, wants.Judge):
                questions.append(effect.question)
            else:
                found.append(effect)
        for question in questions:
            assert self.judge is not None
            found += self.perform(self.session.answered(self.judge(question)))
        return found

    def feed(self, side: str, data: bytes) -> list[wants.Effect]:
        """A chunk from a side."""
        call = self.session.client_received if side == "C" else self.session.upstream_received
        found = self.perform(call(data))
        self.effects += found
        return found

    @property
    def held(self) -> int:
        """Whether the client is not heard."""
        return sum(isinstance(effect, wants.Hold) - isinstance(effect, wants.Free) for effect in self.effects)


def run(
    script: Sequence[tuple[str, list[bytes]]], watching: Watching, sizes: Sequence[int] | None = None
) -> tuple[bytes, bytes, list[object], str]:
    """The same as for a session that nobody watches; records of commands have their place among the rest."""
    played = Played(watching)
    for side, fragments in script:
        whole = fragments if played.held and side == "U" else [b"".join(fragments)]
        for chunk in whole if sizes is None else [piece for data in whole for piece in cut(data, sizes)]:
            played.feed(side, chunk)
    client, upstream, rest = outcome(played.effects)
    return client, upstream, [effect for effect in rest if not isinstance(effect, wants.Commit)], played.session.reason


@given(SCRIPT, CUTS, WATCHING)
def test_any_chunking(script: list[tuple[str, list[bytes]]], sizes: list[int], watching: Watching) -> None:
    """1: any chunking gives the same octets on both sides, the same records, the same end."""
    whole, parts = run(script, watching), run(script, watching, sizes)
    if whole[3] == "upstream protocol":
        assert parts[3] == whole[3]
        assert parts[1].startswith(whole[1])
        spoken = [found[0].removesuffix(LOST_SESSION[Failure.PROTOCOL]) for found in (whole, parts)]
        assert spoken[1].startswith(spoken[0])
        return
    assert parts == whole


# --- the same as a session that nobody watches -------------------------------------------------------------

COMMANDS = st.sampled_from(
    [
        b"SELECT inbox",
        b"EXAMINE {5+}\r\nINBOX",
        b"CLOSE",
        b"UNSELECT",
        b"NOOP",
        b"FETCH 1:2 FLAGS",
        b"FETCH 1 (FLAGS BODY.PEEK[])",
        b"FETCH 2 ALL",
        b"FETCH 1 (UID BODY[HEADER.FIELDS (UID 5)])",
        b"UID FETCH 1:* (BODY[])",
        b"STORE 1 +FLAGS (\\Deleted)",
        b"UID STORE 1:* FLAGS ()",
        b"COPY 1:2 Trash",
        b"UID MOVE 5 Trash",
        b"EXPUNGE",
        b"UID EXPUNGE 5",
        b"SEARCH UNSEEN",
        b"UID SEARCH RETURN (COUNT) ALL",
        b'LIST "" *',
        b"STATUS {4+}\r\na)b( (MESSAGES)",
        b"APPEND x {5+}\r\nhello",
        b"APPEND x {0+}\r\n",
        b"APPEND x {5+}\r\n1 FET {6+}\r\n)\r\n\r\nb",
        b"REPLACE 1 x {5+}\r\nhello",
        b"IDLE\r\nDONE",
        b"CAPABILITY",
        b"XX",
        b"NOOP x",
    ]
)
GROUPS = st.lists(st.lists(COMMANDS, min_size=1, max_size=4), max_size=6)
BODY = b"Message-ID: <1@x>\r\n\r\n* 1 FETCH (UID 99)\r\ng1 OK done\r\n"


def responses(command: Seen) -> bytes:
    """What an honest server has to say to a command, before its completion."""
    verb, _, rest = command.text.partition(b" ")
    if verb == b"UID":
        verb, _, rest = rest.partition(b" ")
    uid = command.text.startswith(b"UID") or b"UID " in rest.partition(b"HEADER")[0] or b"(UID)" in rest
    if verb == b"FETCH":
        lines = []
        for number in (1, 2):
            items = [b"UID %d" % (number + 10)] if uid else []
            if b"FLAGS" in rest or b"ALL" in rest:
                items.append(b"FLAGS (\\Seen)")
            if b"ALL" in rest or b"ENVELOPE" in rest:
                items.append(b'ENVELOPE ("d" {7}\r\nsubject NIL NIL NIL NIL NIL NIL NIL "<1@x>")')
            if b"[]" in rest:
                items.append(b"BODY[] {%d}\r\n%b" % (len(BODY), BODY))
            if b"HEADER" in rest:
                items.append(b"BODY[HEADER.FIELDS (UID 5)] {0}\r\n")
            lines.append(b"* %d FETCH (%b)\r\n" % (number, b" ".join(items)))
        return b"".join(lines)
    return {
        b"SELECT": b"* 2 EXISTS\r\n* OK [UIDVALIDITY 3] v\r\n",
        b"EXAMINE": b"* 2 EXISTS\r\n* OK [UIDVALIDITY 3] v\r\n",
        b"STORE": b"" if b"SILENT" in rest else b"* 1 FETCH (FLAGS (\\Deleted))\r\n",
        b"MOVE": b"* OK [COPYUID 3 11 5] moved\r\n* 1 EXPUNGE\r\n",
        b"EXPUNGE": b"* 1 EXPUNGE\r\n",
        b"SEARCH": b"* ESEARCH UID COUNT 3\r\n" if b"RETURN" in rest else b"* SEARCH 11 12\r\n",
        b"LIST": b'* LIST () "/" {3}\r\na b\r\n* LIST () "/" inbox\r\n',
        b"STATUS": b'* STATUS "a)b(" (MESSAGES 3)\r\n',
        b"NOOP": b"* 3 EXISTS\r\n",
    }.get(verb, b"")


COMPLETIONS = (b"OK done", b"OK [READ-WRITE] done", b"NO no {3}", b"BAD [ALERT] bad")
ALL = b"(FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)"
ITEM = re.compile(rb"(FETCH \S+) ([A-Z]+)\Z")
WORD = re.compile(rb"\(UID ?")


class Conversation:
    """A client that pipelines, its session, and a server that answers in order."""

    def __init__(self, watching: Watching, sizes: Sequence[int], outcomes: Sequence[int]) -> None:
        self.played = Played(watching)
        self.server = Server()
        self.sizes = sizes
        self.outcomes = outcomes
        self.client = b""
        self.answered = 0

    def take(self, effects: Sequence[wants.Effect]) -> None:
        """What came of a chunk goes where it belongs."""
        client, upstream, _ = outcome(effects)
        self.client += client
        self.server.take(upstream)

    def group(self, text: bytes) -> None:
        """The client sends some commands, and the server answers all that it gets."""
        for chunk in cut(text, self.sizes):
            self.take(self.played.feed("C", chunk))
        server = self.server
        while server.asked or server.idle_asked or server.pending or server.out:
            if server.out:
                for chunk in cut(server.deliver(10_000), self.sizes):
                    self.take(self.played.feed("U", chunk))
            elif server.asked:
                server.ask()
            elif server.idle_asked:
                server.answer_idle(b"+ idling")
            else:
                self.complete()

    def complete(self) -> None:
        """The server answers its oldest command: the client's own with the next outcome, the gate's with OK."""
        server = self.server
        command = server.pending[0]
        server.out += responses(command)
        completion = b"OK done"
        if not own(command):
            completion = COMPLETIONS[self.outcomes[self.answered % len(self.outcomes)]]
            self.answered += 1
        server.complete(0, completion)

    @property
    def seen(self) -> list[bytes]:
        """The client's commands as the server saw them, without what the gate adds, in one way of writing."""
        texts = [ITEM.sub(rb"\1 (\2)", command.text) for command in self.server.seen if not own(command)]
        return [WORD.sub(b"(", text.replace(b"(ALL)", ALL)) for text in texts]


def own(command: Seen) -> bool:
    """Whether this is a question of the gate's own."""
    return re.fullmatch(rb"FETCH \S+ \(UID\)|UID SEARCH (UID \S+( DELETED)?|DELETED)", command.text) is not None


@given(GROUPS, CUTS, WATCHING, st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), min_size=1, max_size=5))
def test_the_same_as_an_unwatched_session(
    groups: list[list[bytes]], sizes: list[int], watching: Watching, outcomes: list[int]
) -> None:
    """2, 11: with plugins that let everything pass, and an audit, both sides see what they see without.

    Apart from questions of the gate's own and the UIDs that it adds; and a FETCH by number in a list of its own, where
    it was none, is the same to any server.
    """
    both = [Conversation(each, sizes, outcomes) for each in (Watching(), watching)]
    for number, group in enumerate(groups):
        for conversation in both:
            lines = [b"c%d.%d %b\r\n" % (number, place, command) for place, command in enumerate(group)]
            conversation.group(b"".join(lines))
    plain, watched = both
    assert watched.client == plain.client
    assert watched.seen == plain.seen
    assert watched.played.session.reason == plain.played.session.reason == ""
    assert watched.played.session.commands == plain.played.session.commands


# --- nothing escapes ---------------------------------------------------------------------------------------

VERDICTS: tuple[Callable[[], Verdict], ...] = (
    lambda: CONTINUE,
    lambda: CONTINUE,
    lambda: Reject("LIMIT", "Enough"),
    lambda: Answer((b"LIST () NIL x",), "OK", "", "Done"),
    lambda: Disconnect("Goodbye"),
    lambda: Replace(b"NOOP"),
)


@given(
    SCRIPT,
    MUTATIONS,
    CUTS,
    st.lists(st.integers(0, len(VERDICTS) - 1), min_size=1, max_size=6),
    st.booleans(),
    st.booleans(),
)
def test_nothing_escapes(
    script: list[tuple[str, list[bytes]]],
    mutations: list[tuple[int, bytes]],
    sizes: list[int],
    verdicts: list[int],
    audit: bool,
    late: bool,
) -> None:
    """5, A30, A51: broken input and any verdicts, at once or late, end a session at most; no exception leaves it."""
    session = logged_in(DEFAULTS, None, CAPABILITIES, watching=Watching(EVERYTHING, auditing=audit))
    waiting: list[wants.Judge] = []
    given_verdicts = 0

    def perform(effects: Sequence[wants.Effect]) -> None:
        assert {type(effect) for effect in effects} <= set(wants.Effect.__args__)
        questions = [effect.question for effect in effects if isinstance(effect, wants.Ask)]
        waiting.extend(question for question in questions if isinstance(question, wants.Judge))

    def answer() -> None:
        nonlocal given_verdicts
        question = waiting.pop(0)
        verdict = VERDICTS[verdicts[given_verdicts % len(verdicts)]]()
        given_verdicts += 1
        perform(session.answered(wants.Judgement(question.side, fitting(question, verdict), "p", {"key": 1})))

    for side, fragments in script:
        for chunk in cut(mutated(b"".join(fragments), mutations), sizes):
            perform(session.client_received(chunk) if side == "C" else session.upstream_received(chunk))
            while waiting and not late:
                answer()
        if waiting:
            answer()
    assert (session.state is Connection.LOGOUT) is bool(session.reason)
    session.upstream_lost(Failure.LOST)
    assert session.reason
    assert session.answered(wants.Judgement(wants.Side.UPSTREAM, CONTINUE)) == []


def fitting(question: wants.Judge, verdict: Verdict) -> Verdict:
    """A verdict that plugins may give where they are asked this: the chain lets no other pass."""
    if isinstance(verdict, Answer) and question.hook != "command":
        return CONTINUE
    if isinstance(verdict, Replace):
        if question.hook == "untagged":
            return Replace(b"OK replaced")
        readable = question.parse is not None and parses(question.parse, verdict.line)
        return verdict if readable else CONTINUE
    if isinstance(verdict, Reject) and question.hook in ("mailbox_selected", "fetch_item", "completed"):
        return Disconnect(verdict.text)
    return verdict


def parses(parse: Callable[[bytes], object], line: bytes) -> bool:
    """Whether this can stand in the command's place."""
    try:
        parse(line)
    except ClientProtocolError:
        return False
    return True


def test_a_session_of_each_kind() -> None:
    """What nobody watches is no watched session, and costs what it did."""
    assert type(logged_in()._relay).__name__ == "Relay"
    assert type(logged_in(watching=Watching(Interests()))._relay).__name__ == "WatchedRelay"
    assert isinstance(logged_in(), ClientSession)
