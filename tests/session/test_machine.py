"""Any interleaving of octets, answers, losses and timers: a client, a session and a server under hypothesis.

What always holds: a client's tag is answered at most once; the server sees what the client asked for and nothing
else, each command once and in order; what the server says untagged arrives whole and in order; holds and frees
come in pairs; nothing comes after the end; neither of the two is said to have broken the protocol.

In mode ``mailbox`` there is one server after another: each is given back only when nothing is owed on it, on either
side, and from then on the session neither writes to it nor looks at it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from imapgate.limits import DEFAULTS
from imapgate.model.failure import Failure
from imapgate.model.pool_mode import PoolMode
from imapgate.session import effects as wants
from imapgate.session.link import Link
from imapgate.session.states import Connection
from tests.session.peers import Receiver, Seen, Server
from tests.session.playbook import logged_in

LIMITS = replace(DEFAULTS, bad_commands_after_login=1000)
COMPLETIONS = st.sampled_from([b"OK done", b"NO no {5}", b"BAD [ALERT] what", b"OK [READ-WRITE] x"])
CONTENT = st.sampled_from(
    [b"", b"abc", b"a1 LOGOUT\r\n", b"\r\ng1 OK done\r\n", b"\xc3\xa4", b"x DELETE evil\r\n", b"{5+}"]
)
OWN = (b"* CAPABILITY", b"* ID", b"* ENABLED", b"* BYE", b"* BAD", b"+")
LOSSES = (Failure.LOST, Failure.TIMED_OUT)


class Guarded(Link):
    """A connection that must not be touched once it was given back."""

    def __init__(self) -> None:
        super().__init__(LIMITS)
        self.capabilities = b"IMAP4rev1 IDLE"
        self.released = False

    def __getattribute__(self, name: str) -> object:
        assert name == "released" or not super().__getattribute__("released"), f"{name} of what was given back"
        return super().__getattribute__(name)


class Conversation(RuleBasedStateMachine):
    """A client that has logged in, its session, and its server."""

    def __init__(self) -> None:
        super().__init__()
        self.session = logged_in()
        self.server = Server()  # the one that the session is connected to, or will be
        self.link: Guarded | None = None  # none: the session is connected to none
        self.leasing = False
        self.mode = PoolMode.SESSION
        self.seen: list[Seen] = []  # by the servers before this one
        self.said: list[bytes] = []  # untagged by those, and delivered
        self.refreshed: list[Seen] = []  # each an IDLE that may be begun anew
        self.receiver = Receiver()
        self.wire = b""  # what the client has sent that is not yet delivered
        self.rest: list[tuple[bytes, bytes]] = []  # per literal that waits for a +: the content, and what follows
        self.tag = b""  # of the command that waits for it
        self.number = 0
        self.asked: list[bytes] = []  # verb and arguments of each command, as the server has to see it
        self.tags: set[bytes] = set()
        self.idle: bytes | None = None  # the tag of an IDLE without its DONE
        self.idles: list[bytes] = []  # the tags of all that have neither a + nor an answer
        self.held: wants.Reason | None = None
        self.timers = {wants.Timer.IDLE, wants.Timer.UPSTREAM}
        self.closed: list[wants.Close] = []
        self.parted: list[wants.Release | wants.Close] = []
        self.delivered = b""

    @initialize(most=st.sampled_from([1, 2, 5]), mode=st.sampled_from(PoolMode))
    def begin(self, most: int, mode: PoolMode) -> None:
        """A client that has just logged in."""
        self.mode = mode
        link = Guarded()
        self.session = logged_in(replace(LIMITS, pipelined_commands=most), mode=mode, link=link)
        if mode is PoolMode.MAILBOX:
            link.released = True
        else:
            self.link = link

    # --- the client's commands ------------------------------------------------------------------------------

    @property
    def may_send(self) -> bool:
        """Whether the client is free to begin a command."""
        return not self.closed and not self.rest and self.idle is None

    def command(self, *parts: bytes | tuple[bytes, bool], seen: bytes | None) -> None:
        """Send a command; literals are pairs of content and whether they are synchronising."""
        self.number += 1
        self.tag = b"c%d" % self.number
        self.tags.add(self.tag)
        if seen is not None:
            self.asked.append(seen)
        text = [b""]
        pieces: list[bytes] = []
        for part in (self.tag + b" ", *parts):
            if isinstance(part, bytes):
                text.append(part)
            elif part[1]:
                pieces.append(b"".join([*text, b"{%d}\r\n" % len(part[0])]))
                text = [part[0]]
            else:
                text.append(b"{%d+}\r\n%b" % (len(part[0]), part[0]))
        pieces.append(b"".join([*text, b"\r\n"]))
        self.wire += pieces[0]
        self.rest = [(self.tag, piece) for piece in pieces[1:]]

    @precondition(lambda self: self.may_send)
    @rule(how_many=st.integers(1, 3))
    def plain(self, how_many: int) -> None:
        """Commands without literals, each one of its kind, pipelined."""
        for _ in range(how_many):
            text = b"CREATE m%d" % self.number
            self.command(text, seen=text)

    @precondition(lambda self: self.may_send)
    @rule(verb=st.sampled_from([b"SELECT", b"EXAMINE", b"DELETE"]), content=CONTENT, synchronising=st.booleans())
    def mailbox(self, verb: bytes, content: bytes, synchronising: bool) -> None:
        """A command with a literal."""
        self.command(verb + b" ", (content, synchronising), seen=_written(verb, b" ", content))

    @precondition(lambda self: self.may_send)
    @rule()
    def close(self) -> None:
        """CLOSE, with a mailbox selected or none."""
        self.command(b"CLOSE", seen=b"CLOSE")

    @precondition(lambda self: self.may_send)
    @rule(first=CONTENT, second=CONTENT, one=st.booleans(), two=st.booleans())
    def rename(self, first: bytes, second: bytes, one: bool, two: bool) -> None:
        """A command with two literals."""
        seen = _written(b"RENAME", b" ", first, b" ", second)
        self.command(b"RENAME ", (first, one), b" ", (second, two), seen=seen)

    @precondition(lambda self: self.may_send)
    @rule(
        contents=st.lists(CONTENT, min_size=1, max_size=3),
        synchronising=st.lists(st.booleans(), min_size=3, max_size=3),
    )
    def append(self, contents: list[bytes], synchronising: list[bool]) -> None:
        """One message or several."""
        parts: list[bytes | tuple[bytes, bool]] = [b"APPEND INBOX"]
        seen = b"APPEND INBOX"
        for content, kind in zip(contents, synchronising, strict=False):
            parts += [b" ", (content, kind)]
            seen += b" {%d}%b" % (len(content), content)
        self.command(*parts, seen=seen)

    @precondition(lambda self: self.may_send)
    @rule(
        content=CONTENT, verb=st.sampled_from([b"XBAD ", b"NOOP ", b"FETCH (((", b"LOGIN ", b"STATUS INBOX ", b"IDLE "])
    )
    def refused(self, content: bytes, verb: bytes) -> None:
        """A command that the gate refuses, with a literal sent unasked."""
        self.command(verb, (content, False), seen=None)

    @precondition(lambda self: self.may_send)
    @rule(verb=st.sampled_from([b"CAPABILITY", b"ID NIL", b"XFOO", b"SELECT", b"ENABLE X", b"UID NOOP", b"NOOP {3}"]))
    def own(self, verb: bytes) -> None:
        """What the gate answers itself."""
        self.command(verb, seen=None)

    @precondition(lambda self: self.may_send)
    @rule(content=CONTENT, synchronising=st.booleans())
    def cancel_update(self, content: bytes, synchronising: bool) -> None:
        """CANCELUPDATE, whose arguments the gate writes anew."""
        self.command(b"CANCELUPDATE ", (content, synchronising), seen=_written(b"CANCELUPDATE", b" ", content))

    @precondition(lambda self: self.may_send)
    @rule()
    def begin_idle(self) -> None:
        """IDLE."""
        self.command(b"IDLE", seen=b"IDLE")
        self.idle = self.tag
        self.idles.append(self.tag)

    @precondition(lambda self: self.idle is not None and not self.closed)
    @rule()
    def done(self) -> None:
        """DONE; pipelined behind IDLE or not."""
        self.wire += b"DONE\r\n"
        self.idle = None

    @precondition(lambda self: self.may_send and self.number > 12)
    @rule()
    def logout(self) -> None:
        """LOGOUT; the client goes on sending all the same."""
        self.command(b"LOGOUT", seen=None)

    # --- the wires ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.wire and not self.closed)
    @rule(most=st.sampled_from([1, 20, 1000]))
    def client_octets(self, most: int) -> None:
        """Some of what the client sent arrives; a little more may come while it is held."""
        data, self.wire = self.wire[:most], self.wire[most:]
        self.perform(self.session.client_received(data))

    @precondition(lambda self: self.server.out and self.link and not self.closed)
    @rule(most=st.sampled_from([1, 20, 1000]))
    def upstream_octets(self, most: int) -> None:
        """Some of what the server said arrives."""
        data = self.server.deliver(most)
        self.delivered += data
        self.perform(self.session.upstream_received(data))

    @rule()
    def flow(self) -> None:
        """All that was sent arrives, on both sides."""
        while not self.closed and (self.wire or (self.server.out and self.link)):
            if self.wire:
                self.client_octets(1000)
            else:
                self.upstream_octets(1000)

    # --- the pool -------------------------------------------------------------------------------------------

    @precondition(lambda self: self.leasing and not self.closed)
    @rule(unread=st.booleans())
    def grant(self, unread: bool) -> None:
        """A connection is there, with what its server has said read already or not."""
        self.leasing, self.link = False, Guarded()
        if unread:
            data = self.server.deliver(1000)
            self.delivered += data
            self.link.unread = list(self.link.scanner.feed(data))
        self.perform(self.session.answered(wants.Granted(self.link, mode=self.mode)))

    @precondition(lambda self: self.leasing and not self.closed)
    @rule(failure=st.sampled_from([Failure.BUSY, Failure.REFUSED, Failure.TIMED_OUT]))
    def refuse(self, failure: Failure) -> None:
        """There is none; what waited for it is answered at once."""
        self.leasing = False
        self.perform(self.session.answered(wants.Failed(failure)))

    def released(self, selected: bool) -> None:
        """The session gives its connection back."""
        assert self.link is not None, "given back twice"
        assert not self.server.owes, "given back before its commands were answered"
        assert selected is self.server.selected
        assert self.link.scanner.clean
        rest, said = Receiver(), Receiver()
        rest.take(self.server.out)
        said.take(self.delivered)
        assert said.between, "given back in the middle of a response"
        assert all(line.startswith(b"* ") for line in rest.responses), "an answer would reach nobody"
        self.said += [line for line in said.responses if line.startswith(b"* ")]
        self.seen += self.server.seen
        self.link.released = True
        self.link, self.server, self.delivered = None, Server(), b""

    # --- the server -----------------------------------------------------------------------------------------

    @precondition(lambda self: self.server.pending)
    @rule(which=st.integers(0, 9), completion=COMPLETIONS)
    def complete(self, which: int, completion: bytes) -> None:
        """The server completes a command, in any order."""
        self.server.complete(which, completion)

    @precondition(lambda self: self.server.asked)
    @rule(refuse=st.booleans(), completion=st.sampled_from([b"NO no", b"BAD no {3}"]))
    def literal(self, refuse: bool, completion: bytes) -> None:
        """The server asks for a literal, or refuses it."""
        if refuse:
            self.server.refuse(completion)
        else:
            self.server.ask()

    @precondition(lambda self: self.server.reading)
    @rule()
    def abandon(self) -> None:
        """The server answers a command in the middle of its literal."""
        self.server.abandon(b"NO full")

    @precondition(lambda self: self.server.idle_asked)
    @rule(answer=st.sampled_from([b"+ idling", b"NO not now"]))
    def answer_idle(self, answer: bytes) -> None:
        """The server begins to idle, or does not."""
        self.server.answer_idle(answer)

    @rule(content=st.sampled_from([b"", b"abc", b"g1 OK done\r\n", b"+ x\r\n* BYE\r\n"]), kind=st.integers(0, 3))
    def unasked(self, content: bytes, kind: int) -> None:
        """The server says something untagged."""
        number = len(self.server.said)
        forms = (
            b"* %d EXISTS\r\n" % number,
            b"* %d FETCH (BODY[] {%d}\r\n%b)\r\n" % (number, len(content), content),
            b"* LIST () {%d}\r\n%b u%d\r\n" % (len(content), content, number),
            b"* OK [ALERT] u%d {7}\r\n" % number,
        )
        self.server.say(forms[kind])

    # --- time, and the ends ---------------------------------------------------------------------------------

    @precondition(lambda self: self.timers)
    @rule(which=st.integers(0, 3))
    def tick(self, which: int) -> None:
        """A timer that was set goes off."""
        timer = sorted(self.timers, key=lambda timer: timer.value)[which % len(self.timers)]
        self.timers.discard(timer)
        if timer is wants.Timer.REFRESH:
            self.refreshed += self.server.seen[-1:]
        self.perform(self.session.ticked(timer))

    @precondition(lambda self: self.number > 12)
    @rule(how=st.sampled_from(["half", "client", "upstream", "timed out", "stop", "leave", "credentials"]))
    def end(self, how: str) -> None:
        """The connection ends in one of the ways in which it can; later calls do nothing."""
        session = self.session
        if how == "half":
            self.perform(session.client_half_closed())
        elif how == "client":
            self.perform(session.client_lost())
        elif how == "stop":
            self.perform(session.stop(b"Going down"))
        elif how == "leave":
            self.perform(session.leave(b"Going down"))
        elif how == "credentials":
            self.leasing = False
            self.perform(session.answered(wants.Failed(Failure.CREDENTIALS)))
        elif self.link is not None:
            self.perform(session.upstream_lost(LOSSES[how == "timed out"]))

    def teardown(self) -> None:
        """All that was begun comes to its end: unless the connection ended, every tag was answered."""
        for _ in range(600):
            if self.closed or not self._go_on():
                break
        assert self.closed or {line.split(b" ", 1)[0] for line in self.receiver.responses} >= self.tags

    def _go_on(self) -> bool:
        """One step towards the end; whether there was one."""
        if self.idle is not None:
            self.done()
        if self.wire:
            self.client_octets(1000)
        elif self.leasing:
            self.grant(False)
        elif self.link is None:
            return False
        elif self.server.out:
            self.upstream_octets(1000)
        elif self.server.asked:
            self.server.ask()
        elif self.server.idle_asked:
            self.server.answer_idle(b"+ idling")
        elif self.server.pending:
            self.server.complete(0, b"OK done")
        else:
            return False
        return True

    # --- performing -----------------------------------------------------------------------------------------

    def perform(self, effects: Sequence[wants.Effect]) -> None:
        """Do what the session wants, as the shell would."""
        if not self.closed:
            self.parted = []
        for effect in effects:
            assert not self.closed or isinstance(effect, wants.Close), "something after the end"
            match effect:
                case wants.SendClient(data):
                    self.receiver.take(data)
                    self.client_reads()
                case wants.SendUpstream(data):
                    assert self.link is not None, "written to what was given back"
                    self.server.take(data)
                case wants.Hold(_, reason):
                    assert self.held is None, "held twice"
                    self.held = reason
                case wants.Free(_, reason):
                    assert self.held is reason, "freed what was not held"
                    self.held = None
                case wants.SetTimer(timer):
                    self.timers.add(timer)
                case wants.CancelTimer(timer):
                    self.timers.discard(timer)
                case wants.Ask(wants.Lease()):
                    assert self.link is None, "asked for a second connection"
                    assert not self.leasing, "asked twice"
                    self.leasing = True
                case wants.Release(selected):
                    self.parted.append(effect)
                    self.released(selected)
                case wants.Close():
                    self.parted.append(effect)
                    self.closed.append(effect)
                    if effect.side is wants.Side.CLIENT:  # which is the end of all timers
                        self.timers.clear()
                case wants.Report(wants.Identified()):
                    pass
                case wants.Report(event):
                    raise AssertionError(f"both are honest: {event}")
                case _:
                    raise AssertionError(effect)

    def client_reads(self) -> None:
        """The client goes on with its literal when it gets a ``+``, and gives it up when its tag is answered."""
        for response in self.receiver.responses[getattr(self, "read", 0) :]:
            word = response.split(b" ", 1)[0]
            if response.startswith(b"+") and self.idles:
                self.idles.pop(0)
            elif response.startswith(b"+") and self.rest:
                self.wire += self.rest.pop(0)[1]
            elif word == self.tag:
                self.rest = []
            if word in self.idles:
                self.idles.remove(word)
            if word == self.idle:
                self.idle = None
        self.read = len(self.receiver.responses)

    # --- what always holds ----------------------------------------------------------------------------------

    @invariant()
    def each_tag_once(self) -> None:
        """Every tag that is answered is the client's, and answered once."""
        words = [line.split(b" ", 1)[0] for line in self.receiver.responses]
        counts = Counter(word for word in words if word != b"*" and not word.startswith(b"+"))
        assert set(counts) <= self.tags | {b"DONE"}
        assert not [tag for tag, count in counts.items() if count > 1 and tag != b"DONE"]

    waits = False
    """Whether something that came from the server is held back."""

    def meant(self, command: Seen) -> Seen | None:
        """A command as the client gave it; ``None``: it is the gate's own."""
        return command

    @invariant()
    def nothing_is_added_upstream(self) -> None:
        """The server sees what was asked for, in order: nothing more, nothing twice."""
        wanted = iter(self.asked)
        seen = [command for each in self.seen + self.server.seen if (command := self.meant(each)) is not None]
        for before, command in zip([None, *seen], seen, strict=False):
            anew = command.text == b"IDLE" and any(before is each for each in self.refreshed)
            if command.text not in (b"LOGOUT", b"") and not anew:
                assert any(command.text == text for text in wanted), (command, self.asked)
        assert [command.text for command in seen].count(b"LOGOUT") <= 1
        assert len({command.tag for command in self.server.seen}) == len(self.server.seen)

    @invariant()
    def responses_arrive_whole_and_in_order(self) -> None:
        """What the server said untagged is what the client got."""
        got = [line for line in self.receiver.responses if line.startswith(b"* ") and not line.startswith(OWN)]
        assert got == (self.said + self.server.said)[: len(got)]
        if not self.closed and not self.waits:
            expected = Receiver()
            expected.take(self.delivered)
            assert got == self.said + [line for line in expected.responses if line.startswith(b"* ")]

    @invariant()
    def the_end_is_the_end(self) -> None:
        """Upstream is closed or given back, then the client is closed, once."""
        if self.closed:
            first, last = self.parted[-2:]
            assert first == wants.Close(wants.Side.UPSTREAM) or isinstance(first, wants.Release)
            assert isinstance(last, wants.Close)
            assert last.side is wants.Side.CLIENT
            assert len(self.closed) == 1 + isinstance(first, wants.Close)
            assert self.session.state is Connection.LOGOUT
            assert self.session.reason
        else:
            assert self.session.state is not Connection.LOGOUT


def _written(verb: bytes, *parts: bytes) -> bytes:
    """A command as the gate writes it: strings at every second place."""
    text = verb + parts[0]
    for place, part in enumerate(parts[1:]):
        if place % 2:
            text += part
        elif part.isascii() and part.decode().isprintable():
            text += b'"%b"' % part
        else:
            text += b"{%d}%b" % (len(part), part)
    return text


TestConversation = Conversation.TestCase
TestConversation.settings = settings(settings(), stateful_step_count=80, max_examples=2 * settings().max_examples)
