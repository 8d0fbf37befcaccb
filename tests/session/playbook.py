"""Conversations as text: what goes into the core and what must come out of it, played in several ways.

A transcript is read from top to bottom.  Each line begins with one of these marks:

========  =========================================================================================
``C:``    the client sends this line (CRLF is added)
``C.``    the client sends this, without CRLF: the content of a literal
``C>``    the client must get this line; ``C>.`` without CRLF
``U<``    upstream sends this line; ``U<.`` without CRLF
``U>``    this line must be written upstream; ``U>.`` without CRLF
``->``    something else happens: ``-> granted IMAP4rev1`` (``-> granted mailbox …``: in that mode),
          ``-> failed credentials`` (the operator's words may follow), ``-> challenge cXV4``, ``-> tick login``,
          ``-> half-close``, ``-> client lost``, ``-> upstream lost``, ``-> stop Going down``,
          ``-> leave Going down``, ``-> tls`` (it is up), ``-> dial`` (the login asked for last is played against
          the ``U`` lines, too), ``-> unread * OK hi`` (comes with the connection that is granted next);
          of a watched session ``-> judged client reject [LIMIT] Enough`` (or ``continue``, ``annotate key=value``,
          ``replace NOOP``, ``answer OK Done``, ``disconnect Goodbye``; or ``upstream``), ``-> failing disk full``
          (nothing can be recorded), ``-> unrecorded`` (what was to be on disk is not)
``<-``    something else must be wanted: ``<- ask LOGIN user password``, ``<- ask lease``, ``<- release``,
          ``<- release selected``, ``<- hold answer``, ``<- free answer``, ``<- set idle 240``, ``<- cancel idle``,
          ``<- report …``, ``<- trace …``, ``<- starttls client``, ``<- close client``, ``<- abort client``,
          ``<- judge client command DELETE x``, ``<- record mailbox.delete ok mailbox.name=x``, ``<- commit``
``==``    the state of the connection: ``== selected``
``--``    a remark
========  =========================================================================================

``<CR>``, ``<LF>``, ``<CRLF>``, ``<NUL>``, ``<SP>``, ``<xFF>`` and ``<a*100>`` stand for octets that are hard to write.

What happens between two sets of expectations is one round.  Each round is compared as what the client got,
what upstream got, and what else was wanted, each in order.  Timers, holds, reports, traces, questions to the
plugins, records and commits are compared where the transcript speaks of that kind at all.  A record is written with
all its fields but those that say which command it was, how the mailbox was spelled, and how long it took.

Once a connection was released nothing may be written upstream until another one is granted.

Every transcript is played line by line, with the lines of one side in one chunk, octet by octet, and with
the beginning of another line behind the last one of each side (as h11 does it): the result is the same.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from imapgate.limits import DEFAULTS, Limits
from imapgate.model.commands import Table, table
from imapgate.model.failure import Failure
from imapgate.model.passing import Completion, FetchItem, Mailbox, Message, Response
from imapgate.model.pool_mode import PoolMode
from imapgate.model.reading import Reading
from imapgate.model.secret import Credentials, Secret
from imapgate.model.verdict import CONTINUE, Answer, Disconnect, Interests, Reject, Replace, Verdict
from imapgate.session import effects as wants
from imapgate.session.link import Link
from imapgate.session.login import Terms
from imapgate.session.session import ClientSession
from imapgate.session.upstream import Originating, UpstreamLogin
from imapgate.wire.scanner import LINE
from imapgate.wire.writer import redacted

OPEN = Terms(starttls=False, login=True)
"""A connection on which a login is allowed as it is."""

CAPABILITIES = "IMAP4rev1 IDLE ENABLE CONDSTORE QRESYNC UTF8=ACCEPT"
GREETING = "* OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN AUTH=LOGIN] imapgate ready"
LOGGED_IN = "[CAPABILITY {}] Logged in"


class Way(Enum):
    """In what chunks the bytes of a transcript arrive."""

    LINES = "line by line"
    CHUNKS = "in one chunk"
    OCTETS = "octet by octet"
    TRAILING = "with more behind"


WAYS = tuple(Way)
NOT_TRAILING = (Way.LINES, Way.CHUNKS, Way.OCTETS)

_LINE = re.compile(r"(C:|C\.|C>\.|C>|U<\.|U<|U>\.|U>|->|<-|==) ?(.*)\Z")
_OCTETS = re.compile(rb"<(CRLF|CR|LF|NUL|SP|x[0-9A-F]{2}|[^<>]\*[0-9]+)>")
_NAMED = {b"CRLF": b"\r\n", b"CR": b"\r", b"LF": b"\n", b"NUL": b"\0", b"SP": b" "}
_OPTIONAL = {
    **{"set": "timer", "cancel": "timer", "hold": "hold", "free": "hold", "report": "report", "trace": "trace"},
    **{"judge": "judge", "record": "record", "commit": "commit"},
}
_MORE = {"C": b"zz NOO", "U": b"* 99 EXI"}


class Step(NamedTuple):
    """One line of a transcript."""

    mark: str
    text: str

    @property
    def side(self) -> str:
        """``C`` or ``U``, empty for anything but octets."""
        return self.mark[0] if self.mark[0] in "CU" else ""

    @property
    def goes_in(self) -> bool:
        """Whether this is something that happens to the core."""
        return self.mark in ("C:", "C.", "U<", "U<.", "->")

    @property
    def data(self) -> bytes:
        """The octets that the line stands for."""
        octets = _OCTETS.sub(_octets, self.text.encode("utf-8"))
        return octets if self.mark.endswith(".") else octets + b"\r\n"


def _octets(found: re.Match[bytes]) -> bytes:
    name = found[1]
    if name in _NAMED:
        return _NAMED[name]
    if b"*" in name:
        return name[:1] * int(name[2:])
    return bytes([int(name[1:], 16)])


class Round(NamedTuple):
    """What happens, and what must come of it."""

    happens: list[Step]
    expected: list[Step]


def parse(text: str) -> list[Round]:
    """The rounds of a transcript."""
    rounds = [Round([], [])]
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("--"):
            continue
        found = _LINE.match(line)
        assert found is not None, f"no line of a transcript: {line}"
        step = Step(found[1], found[2])
        if step.goes_in and rounds[-1].expected:
            rounds.append(Round([], []))
        (rounds[-1].happens if step.goes_in else rounds[-1].expected).append(step)
    return rounds


class Got:
    """What came out of one round."""

    def __init__(self) -> None:
        self.octets = {"C": b"", "U": b""}
        self.wanted: list[str] = []
        self.state = ""

    def expect(self, steps: Iterable[Step]) -> None:
        """Fill in what a transcript expects."""
        for step in steps:
            if step.mark == "==":
                self.state = step.text
            elif step.side:
                self.octets[step.side] += step.data
            else:
                self.wanted.append(step.text)

    def lines(self) -> list[str]:
        """As a transcript, what the client got first."""
        lines = [f"{side}> {line!r}" for side in "CU" for line in self.octets[side].splitlines(keepends=True)]
        return lines + [f"<- {text}" for text in self.wanted] + ([f"== {self.state}"] if self.state else [])


def words(effect: wants.Effect | wants.Answer) -> str:
    """An effect, or a step of an upstream login, as a transcript has it; not for what is sent."""
    match effect:
        case wants.Hold(_, reason):
            return f"hold {reason.name.lower()}"
        case wants.Free(_, reason):
            return f"free {reason.name.lower()}"
        case wants.SetTimer(timer, seconds):
            return f"set {timer.value} {seconds:g}"
        case wants.CancelTimer(timer):
            return f"cancel {timer.value}"
        case wants.StartTLS(side):
            return f"starttls {side.value}"
        case wants.Close(side, abort):
            return f"{'abort' if abort else 'close'} {side.value}"
        case wants.Ask(wants.Lease()):
            return "ask lease"
        case wants.Ask(wants.Judge(side, hook, arguments)):
            return " ".join(["judge", side.value, hook, *map(_argument_words, arguments)])
        case wants.Record(event, outcome, fields):
            return " ".join(["record", event, outcome, *_field_words(fields)])
        case wants.Commit():
            return "commit"
        case wants.Ask(wants.Login() as login):
            return f"ask {_login_words(login)}"
        case wants.Release(selected):
            return "release selected" if selected else "release"
        case wants.Respond(data):
            return f"respond {data.reveal().decode()}".rstrip()
        case wants.Report(event):
            return _report_words(event)
        case wants.Granted(link):
            return f"granted {link.capabilities.decode()}".rstrip()
        case wants.Challenge(data):
            return f"challenge {data.decode()}".rstrip()
        case wants.Failed(failure):
            return f"failed {failure.value}"
    raise AssertionError(effect)


def _login_words(login: wants.Login) -> str:
    found = [login.mechanism]
    if login.credentials is not None:
        found += [login.credentials.user, login.credentials.password.reveal()]
        if login.credentials.authorisation:
            found += [b"as", login.credentials.authorisation]
    if login.initial is not None:
        found += [b"initial", login.initial.reveal()]
    found += [b"%b=%b" % pair for pair in login.client_id]
    return b" ".join(found).decode("utf-8", "backslashreplace")


def _argument_words(argument: object) -> str:
    """What plugins are shown."""
    match argument:
        case Reading():
            line = argument.verb.encode() + redacted(argument.command.parts)
            return line.decode("utf-8", "backslashreplace").rstrip()
        case bytes():
            return argument.decode("utf-8", "backslashreplace").replace("\r", "<CR>").replace("\n", "<LF>")
        case Response(_, line, mailbox):
            return _argument_words(line) + (f" of {mailbox}" if mailbox else "")
        case Message(mailbox, size, number):
            return f"{number} of {size} for {mailbox}"
        case Mailbox(name, read_only, validity):
            return f"{name} {'read-only' if read_only else 'read-write'} {validity}"
        case FetchItem(number, uid, items, octets):
            return f"{number} {uid} {','.join(items)} {octets}"
        case Completion(outcome, code, text):
            return f"{outcome} [{code}] {text}"
    raise AssertionError(argument)


_UNSAID = ("command.id", "command.tag", "command.verb", "mailbox.raw", "duration")


def _field_words(fields: Mapping[str, object]) -> list[str]:
    found = [(name, value) for name, value in fields.items() if name not in _UNSAID]
    return [f"{name}={','.join(value) if isinstance(value, list) else value}" for name, value in found]


class Watching(NamedTuple):
    """By whom a session is watched.

    :ivar interests: of the plugins; ``None``: there are none
    :ivar judge: answers their questions at once; ``None``: the transcript says when
    :ivar auditing: whether it is recorded
    """

    interests: Interests | None = None
    judge: Callable[[wants.Judge], wants.Judgement] | None = None
    auditing: bool = False
    durable: bool = False
    subjects: bool = False

    def granted(self, granted: wants.Granted, failing: Callable[[], str] = str) -> wants.Granted:
        """A connection for a session that is watched so."""
        auditing = wants.Auditing(self.durable, lambda: 0.0, failing, criteria_in_clear, self.subjects)
        return granted._replace(interests=self.interests, auditing=auditing if self.auditing else None)


def criteria_in_clear(criteria: bytes) -> Mapping[str, str]:
    """What is recorded of a search."""
    return {"search.criteria": criteria.decode("ascii", "backslashreplace")}


def passing(question: wants.Judge) -> wants.Judgement:
    """A judge who lets everything pass."""
    return wants.Judgement(question.side, CONTINUE)


def _report_words(event: wants.Event) -> str:
    match event:
        case wants.LoggedIn(user, mechanism):
            return f"report logged in {user.decode()} {mechanism.decode()}"
        case wants.LoginFailed(user, mechanism, failure):
            return f"report login failed {user.decode()} {mechanism.decode()} {failure.value}"
        case wants.Violation(side, text):
            return f"report violation {side.value} {text}"
        case wants.Identified(fields):
            said = b" ".join(b"%b=%b" % field for field in fields)
            return f"report identified {said.decode('ascii')}".rstrip()
        case wants.Traced(side, line):
            return f"trace {side.value} {line.decode()}".rstrip()


class Stage:
    """What a transcript is played on: a session, an upstream login, or one after the other.

    :ivar session: the session; ``None`` where only an upstream login is played
    :ivar upstream: the login, while it is under way
    """

    def __init__(
        self, session: ClientSession | None, upstream: UpstreamLogin | None, limits: Limits, terms: Terms
    ) -> None:
        self.session = session
        self.upstream = upstream
        self._limits = limits
        self._terms = terms
        self._asked: wants.Login | None = None
        self._unread: list[tuple[int, bytes]] = []  # of the next connection
        self._released = False  # nothing is bound
        self._watching = Watching()
        self.failing = ""
        self.got = Got()

    def log_in(self, watching: Watching, granted: wants.Granted) -> None:
        """The client has just logged in."""
        assert self.session is not None
        self._watching = watching
        self._released = granted.mode is PoolMode.MAILBOX and not granted.pinned
        self.session.answered(self._watched(granted))

    def _watched(self, granted: wants.Granted) -> wants.Granted:
        return self._watching.granted(granted, lambda: self.failing)

    def feed(self, side: str, data: bytes) -> None:
        """One chunk from a side."""
        if side == "C":
            assert self.session is not None
            self.perform(self.session.client_received(data))
        elif self.upstream is not None:
            self.perform(self.upstream.received(data))
        else:
            assert self.session is not None
            self.perform(self.session.upstream_received(data))

    def happen(self, text: str) -> None:
        """Anything else that happens; ``text`` is what stands behind ``->``."""
        word, _, rest = text.partition(" ")
        self.perform(_HAPPENS[word](self, rest))

    def perform(self, effects: Sequence[wants.Effect | wants.Answer]) -> None:
        """Note effects; what an upstream login on stage has to say goes to the session."""
        verdicts: list[wants.Judgement] = []
        for effect in effects:
            if isinstance(effect, wants.SendClient):
                self.got.octets["C"] += effect.data
            elif isinstance(effect, wants.SendUpstream):
                assert not self._released, f"written to a connection that was given back: {effect.data!r}"
                self.got.octets["U"] += effect.data
            elif isinstance(effect, wants.Granted | wants.Challenge | wants.Failed) and self.session is not None:
                if not isinstance(effect, wants.Challenge):
                    self.upstream = None
                self.perform(self.session.answered(effect))
            else:
                self._note(effect)
                judge = self._watching.judge
                if judge is not None and isinstance(effect, wants.Ask) and isinstance(effect.question, wants.Judge):
                    verdicts.append(judge(effect.question))
        for verdict in verdicts:
            assert self.session is not None
            self.perform(self.session.answered(verdict))

    def _note(self, effect: wants.Effect | wants.Answer) -> None:
        self.got.wanted.append(words(effect))
        if isinstance(effect, wants.Release):
            assert not self._released, "given back twice"
            self._released = True
        elif isinstance(effect, wants.Ask) and isinstance(effect.question, wants.Login):
            self._asked = effect.question
        elif isinstance(effect, wants.Respond) and self.upstream is not None:
            self.perform(self.upstream.respond(effect.data))

    def _tls(self, rest: str) -> Sequence[wants.Effect | wants.Answer]:
        if self.upstream is not None:
            return self.upstream.connected()
        assert self.session is not None
        return self.session.client_connected(self._terms._replace(starttls=False, login=True))

    def _dial(self, rest: str) -> Sequence[wants.Effect | wants.Answer]:
        assert self._asked is not None
        self.upstream = UpstreamLogin(self._limits, self._asked, starttls=rest == "starttls")
        return ()

    def _granted(self, rest: str) -> Sequence[wants.Effect | wants.Answer]:
        assert self.session is not None
        traced, mode = rest.startswith("traced "), PoolMode.SESSION
        rest = rest.removeprefix("traced ")
        if rest.startswith("mailbox "):
            mode, rest = PoolMode.MAILBOX, rest.removeprefix("mailbox ")
        link = Link(self._limits)
        link.capabilities = rest.encode()
        link.unread, self._unread = self._unread, []
        self._released = False
        return self.session.answered(self._watched(wants.Granted(link, traced, mode)))

    def _failed(self, rest: str) -> Sequence[wants.Effect]:
        failure, _, text = rest.partition(" ")
        return self._told(lambda session: session.answered(wants.Failed(Failure(failure), text.encode())))

    def _comes_unread(self, rest: str) -> Sequence[wants.Effect]:
        self._unread.append((LINE, rest.encode() + b"\r\n"))
        return ()

    def _client(self, rest: str) -> Sequence[wants.Effect | wants.Answer]:
        assert rest == "lost"
        assert self.session is not None
        return self.session.client_lost()

    def _upstream(self, rest: str) -> Sequence[wants.Effect | wants.Answer]:
        if self.upstream is not None:
            return self.upstream.lost()
        assert self.session is not None
        return self.session.upstream_lost(Failure(rest.removeprefix("lost").strip() or "lost"))

    def _respond(self, rest: str) -> Sequence[wants.Effect | wants.Answer]:
        assert self.upstream is not None
        return self.upstream.respond(Secret(rest.encode()))

    def _judged(self, rest: str) -> Sequence[wants.Effect]:
        side, _, rest = rest.partition(" ")
        verdict, notes = _verdict(rest)
        return self._told(lambda session: session.answered(wants.Judgement(wants.Side(side), verdict, "plugin", notes)))

    def _fails(self, rest: str) -> Sequence[wants.Effect]:
        self.failing = rest
        return ()

    def _told(self, call: Callable[[ClientSession], Sequence[wants.Effect]]) -> Sequence[wants.Effect]:
        assert self.session is not None
        return call(self.session)


def _verdict(text: str) -> tuple[Verdict, Mapping[str, object]]:
    """A verdict as a transcript has it; the rule is always ``rule``."""
    word, _, rest = text.partition(" ")
    code, said = rest[1:].split("] ", 1) if rest.startswith("[") else ("", rest)
    match word:
        case "continue":
            return CONTINUE, {}
        case "annotate":
            key, _, value = rest.partition("=")
            return CONTINUE, {key: value}
        case "reject":
            return Reject(code, said, "rule"), {}
        case "replace":
            return Replace(Step("U<.", rest).data, "rule"), {}
        case "answer":
            *untagged, last = rest.split("<CRLF>")
            completion, _, said = last.partition(" ")
            return Answer(tuple(line.encode() for line in untagged), completion, "", said), {}
        case "disconnect":
            return Disconnect(rest, "rule"), {}
    raise AssertionError(text)


_HAPPENS: dict[str, Callable[[Stage, str], Sequence[wants.Effect | wants.Answer]]] = {
    "tls": Stage._tls,
    "dial": Stage._dial,
    "granted": Stage._granted,
    "failed": Stage._failed,
    "challenge": lambda stage, rest: stage._told(lambda session: session.answered(wants.Challenge(rest.encode()))),
    "client": Stage._client,
    "upstream": Stage._upstream,
    "respond": Stage._respond,
    "tick": lambda stage, rest: stage._told(lambda session: session.ticked(wants.Timer(rest))),
    "half-close": lambda stage, rest: stage._told(ClientSession.client_half_closed),
    "unread": Stage._comes_unread,
    "judged": Stage._judged,
    "failing": Stage._fails,
    "unrecorded": lambda stage, rest: stage._told(ClientSession.recording_failed),
    "leave": lambda stage, rest: stage._told(lambda session: session.leave(rest.encode())),
    "stop": lambda stage, rest: stage._told(lambda session: session.stop(rest.encode())),
}


def _chunks(happens: list[Step], way: Way, last: dict[str, Step]) -> list[tuple[str, bytes | str]]:
    """What happens in a round, in order: a side and a chunk, or no side and the words."""
    chunks: list[tuple[str, bytes | str]] = []
    for step in happens:
        if not step.side:
            chunks.append(("", step.text))
            continue
        data = step.data
        if way is Way.TRAILING and last[step.side] is step:
            data += _MORE[step.side]
        if way is Way.OCTETS:
            chunks += [(step.side, data[place : place + 1]) for place in range(len(data))]
            continue
        if way is not Way.LINES and chunks and chunks[-1][0] == step.side:
            before = chunks.pop()[1]
            assert isinstance(before, bytes)
            data = before + data
        chunks.append((step.side, data))
    return chunks


def perform(rounds: list[Round], make: Callable[[], Stage], ways: Sequence[Way] = WAYS) -> Stage:
    """Play the rounds in all the ways, each on a stage of its own; return the last stage.

    :raise AssertionError: with the difference, at the first round that came out otherwise.
    """
    steps = [step for found in rounds for step in found.happens]
    last = {step.side: step for step in steps if step.side}
    spoken = {_OPTIONAL.get(step.text.split()[0]) for found in rounds for step in found.expected if step.mark == "<-"}
    stage = make()
    for way in ways:
        stage = make()
        for number, found in enumerate(rounds, 1):
            stage.got = got = Got()
            for side, what in _chunks(found.happens, way, last):
                if isinstance(what, bytes):
                    stage.feed(side, what)
                else:
                    stage.happen(what)
            expected = Got()
            expected.expect(found.expected)
            got.wanted = [text for text in got.wanted if _OPTIONAL.get(text.split()[0]) in {None, *spoken}]
            if expected.state and stage.session is not None:
                got.state = stage.session.state.value
            if expected.lines() != got.lines():
                happened = "".join(f"  {step.mark} {step.text[:200]}\n" for step in found.happens)
                difference = "\n".join(line[:300] for line in difflib.ndiff(expected.lines(), got.lines()))
                raise AssertionError(
                    f"round {number}, {way.value}: after\n{happened}expected (-), got (+):\n{difference}"
                )
    return stage


def play(
    text: str,
    *,
    limits: Limits = DEFAULTS,
    terms: Terms = OPEN,
    extra_verbs: Sequence[str] = (),
    ways: Sequence[Way] = WAYS,
) -> ClientSession:
    """Play a transcript on a session whose client has been greeted; return the session at the end."""
    commands: Table = table(extra_verbs)

    def make() -> Stage:
        session = ClientSession(limits, commands)
        session.client_connected(terms)
        return Stage(session, None, limits, terms)

    session = perform(parse(text), make, ways).session
    assert session is not None
    return session


def relay(
    text: str,
    *,
    capabilities: str = CAPABILITIES,
    limits: Limits = DEFAULTS,
    extra_verbs: Sequence[str] = (),
    traced: bool = False,
    mode: PoolMode = PoolMode.SESSION,
    pinned: str = "",
    watching: Watching | None = None,
    ways: Sequence[Way] = WAYS,
) -> ClientSession:
    """Play a transcript on a session whose client is logged in; upstream has these capabilities.

    In mode ``mailbox`` the connection of the login has been given back, unless it is ``pinned``.
    """
    commands: Table = table(extra_verbs)

    def make() -> Stage:
        session = ClientSession(limits, commands)
        session.client_connected(OPEN)
        session.client_received(b"l LOGIN user password\r\n")
        link = Link(limits)
        link.capabilities = capabilities.encode()
        stage = Stage(session, None, limits, OPEN)
        stage.log_in(watching or Watching(), wants.Granted(link, traced, mode, pinned))
        return stage

    session = perform(parse(text), make, ways).session
    assert session is not None
    return session


def watched(
    text: str,
    interests: Interests | None = None,
    *,
    judge: Callable[[wants.Judge], wants.Judgement] | None = None,
    audit: bool = False,
    durable: bool = False,
    subjects: bool = False,
    capabilities: str = CAPABILITIES,
    limits: Limits = DEFAULTS,
    traced: bool = False,
    mode: PoolMode = PoolMode.SESSION,
    ways: Sequence[Way] = NOT_TRAILING,
) -> ClientSession:
    """Play a transcript on a session that is watched; its client is logged in."""
    watching = Watching(interests, judge, audit, durable, subjects)
    return relay(text, capabilities=capabilities, limits=limits, traced=traced, mode=mode, watching=watching, ways=ways)


MAILBOX_CAPABILITIES = "IMAP4rev1 IDLE"


def mailbox(text: str, *, limits: Limits = DEFAULTS, ways: Sequence[Way] = NOT_TRAILING) -> ClientSession:
    """Play a transcript on a session in mode ``mailbox`` that has given its first connection back."""
    return relay(text, capabilities=MAILBOX_CAPABILITIES, limits=limits, mode=PoolMode.MAILBOX, ways=ways)


def logged_in(
    limits: Limits = DEFAULTS,
    commands: Table | None = None,
    capabilities: bytes = b"IMAP4rev1 IDLE",
    traced: bool = False,
    mode: PoolMode = PoolMode.SESSION,
    pinned: str = "",
    link: Link | None = None,
    watching: Watching | None = None,
) -> ClientSession:
    """A session whose client has just logged in, and got ``link``, or any."""
    session = ClientSession(limits, table() if commands is None else commands)
    session.client_connected(OPEN)
    session.client_received(b"l LOGIN user password\r\n")
    link = link or Link(limits)
    link.capabilities = capabilities
    session.answered((watching or Watching()).granted(wants.Granted(link, traced, mode, pinned)))
    return session


def login_of(user: str, password: str) -> wants.Login:
    """The question that a LOGIN command puts."""
    return wants.Login(b"LOGIN", Credentials(user.encode(), Secret(password.encode())))


def upstream(
    text: str,
    login: wants.Login | None,
    *,
    starttls: bool = False,
    originating: Originating = (),
    limits: Limits = DEFAULTS,
    ways: Sequence[Way] = WAYS,
) -> UpstreamLogin:
    """Play a transcript on an upstream login alone; return it at the end."""

    def make() -> Stage:
        core = UpstreamLogin(limits, login, starttls=starttls, originating=originating)
        return Stage(None, core, limits, OPEN)

    core = perform(parse(text), make, ways).upstream
    assert core is not None
    return core
