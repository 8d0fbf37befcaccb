"""What holds for any octets on either side: chunking, literals, exceptions (STYLE, properties 1, 2, 4, 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from imapgate.limits import DEFAULTS
from imapgate.model.failure import LOST_SESSION, Failure
from imapgate.session import effects as wants
from imapgate.session.login import Terms
from imapgate.session.session import ClientSession
from imapgate.session.states import Connection
from imapgate.session.upstream import UpstreamLogin
from tests.session.peers import Server
from tests.session.playbook import logged_in, login_of

CLIENT = st.sampled_from(
    [
        b"a1 NOOP\r\n",
        b"a2 UID FETCH 5 (UID FLAGS)\r\n",
        b'b LIST "" *\r\n',
        b"c APPEND INBOX {5}\r\n",
        b"hello",
        b"\r\n",
        b"c APPEND INBOX (\\Seen) {5+}\r\nhello\r\n",
        b"c APPEND x {1+}\r\na {2+}\r\nbc\r\n",
        b"d IDLE\r\n",
        b"DONE\r\n",
        b"e SELECT {5}\r\n",
        b"INBOX",
        b"f LOGOUT\r\n",
        b"g XX y\r\n",
        b"h NOOP x\r\n",
        b"i CAPABILITY\r\n",
        b"j ID NIL\r\n",
        b"j UID SEARCH RETURN (UPDATE) ALL\r\n",
        b'k CANCELUPDATE "j"\r\n',
        b"l ENABLE CONDSTORE\r\n",
        b"n FETCH 1 ~{3}\r\n",
        b"s SELECT {2+}\r\n\xc3\xa4\r\n",
        b"t CLOSE\r\n",
        b"z XX {3+}\r\nabc\r\n",
        b"y APPEND x {0+}\r\n\r\n",
        b"* x\r\n",
        b"q\r\n",
    ]
)
UPSTREAM = st.sampled_from(
    [
        b"g1 OK done\r\n",
        b"g2 NO [REFERRAL imap://x/] no\r\n",
        b"g1 NO {5}\r\n",
        b"g3 OK [CAPABILITY IMAP4rev1 X] x\r\n",
        b"g2 BAD x\r\n",
        b"+ go\r\n",
        b"* 3 EXISTS\r\n",
        b"* 1 FETCH (BODY[] {5}\r\nab\r\nc)\r\n",
        b"* CAPABILITY A B IDLE\r\n",
        b'* ESEARCH (TAG "g1") ALL 1\r\n',
        b"* OK [ALERT] {3}\r\n",
        b"* LIST () NIL {0}\r\n\r\n",
        b"* ENABLED UTF8=ACCEPT\r\n",
        b"g4 OK x\r\n",
        b"g5 OK x\r\n",
        b"* BYE\r\n",
    ]
)
SCRIPT = st.lists(
    st.one_of(
        st.tuples(st.just("C"), st.lists(CLIENT, max_size=4)), st.tuples(st.just("U"), st.lists(UPSTREAM, max_size=3))
    ),
    max_size=8,
)
CUTS = st.lists(st.integers(1, 12), min_size=1, max_size=20)
TERMS = Terms(starttls=False, login=True, relayed=(b"CRAM-MD5",))
CAPABILITIES = b"IMAP4rev1 IDLE ENABLE CONDSTORE"


def cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """The data in chunks of these sizes, over and over."""
    place = turn = 0
    while place < len(data):
        size = sizes[turn % len(sizes)]
        yield data[place : place + size]
        place, turn = place + size, turn + 1


def run(
    script: Iterable[tuple[str, list[bytes]]], sizes: Sequence[int] | None = None
) -> tuple[bytes, bytes, list[object], str]:
    """What a session makes of a script: to the client, to upstream, the rest of its effects, why it ended.

    While the client is held, one response frees it, and what it gets in answer to what it sent meanwhile may stand
    before or behind the next: then responses come one by one.
    """
    session = logged_in(DEFAULTS, None, CAPABILITIES)
    effects: list[wants.Effect] = []
    for side, fragments in script:
        balance = sum(isinstance(effect, wants.Hold) - isinstance(effect, wants.Free) for effect in effects)
        whole = fragments if balance and side == "U" else [b"".join(fragments)]
        for chunk in whole if sizes is None else [piece for data in whole for piece in cut(data, sizes)]:
            effects += session.client_received(chunk) if side == "C" else session.upstream_received(chunk)
    return (*outcome(effects), session.reason)


def outcome(effects: Iterable[wants.Effect]) -> tuple[bytes, bytes, list[object]]:
    """Effects, joined by side; what only says when to read is left out."""
    client = b"".join(effect.data for effect in effects if isinstance(effect, wants.SendClient))
    upstream = b"".join(effect.data for effect in effects if isinstance(effect, wants.SendUpstream))
    when = (wants.SendClient, wants.SendUpstream, wants.Hold, wants.Free)
    return client, upstream, [effect for effect in effects if not isinstance(effect, when)]


@given(SCRIPT, CUTS)
def test_any_chunking(script: list[tuple[str, list[bytes]]], sizes: list[int]) -> None:
    """1: any chunking gives the same octets on both sides, the same effects, the same end.

    An upstream that breaks the protocol is cut off where that is noticed: what came before in the same chunk may
    have reached the client or not.
    """
    whole, parts = run(script), run(script, sizes)
    if whole[3] == "upstream protocol":
        assert parts[3] == whole[3]
        assert parts[1].startswith(whole[1])
        spoken = [found[0].removesuffix(LOST_SESSION[Failure.PROTOCOL]) for found in (whole, parts)]
        assert spoken[1].startswith(spoken[0])
        return
    assert parts == whole


@given(
    st.lists(
        st.one_of(
            CLIENT,
            st.sampled_from([b"x LOGIN {1+}\r\nu p\r\n", b"x AUTHENTICATE PLAIN\r\n", b"*\r\n", b"AHUAcA==\r\n"]),
        ),
        max_size=6,
    ),
    CUTS,
)
def test_any_chunking_before_the_login(fragments: list[bytes], sizes: list[int]) -> None:
    """1: the same before the login."""
    found = []
    for chunks in ([b"".join(fragments)], list(cut(b"".join(fragments), sizes))):
        session = ClientSession(DEFAULTS)
        effects = session.client_connected(TERMS)
        for chunk in chunks:
            effects += session.client_received(chunk)
        client, upstream, rest = outcome(effects)
        found.append((client, upstream, repr(rest), session.reason, session.commands))
    assert found[0] == found[1]


RESPONSES = st.lists(
    st.one_of(
        st.builds(
            lambda number, word: b"* %d %b\r\n" % (number, word),
            st.integers(0, 99),
            st.sampled_from([b"EXISTS", b"EXPUNGE"]),
        ),
        st.builds(
            lambda number, body, rest: b"* %d FETCH (BODY[] {%d}\r\n%b%b)\r\n" % (number, len(body), body, rest),
            st.integers(1, 99),
            st.binary(max_size=40),
            st.sampled_from([b"", b" FLAGS ()", b" X {3}\r\n\r\n)"]),
        ),
        st.builds(lambda name: b"* LIST () NIL {%d}\r\n%b\r\n" % (len(name), name), st.binary(max_size=20)),
        st.sampled_from(
            [b"* OK [UIDNEXT 5] {9}\r\n", b"* SEARCH 1 2\r\n", b"* FLAGS (\\Seen)\r\n", b"* NO [ALERT] x\r\n"]
        ),
    ),
    max_size=8,
).map(b"".join)


@given(RESPONSES, CUTS, st.sampled_from([b"OK done", b"NO no {3}", b"BAD [ALERT] x"]))
def test_nothing_is_changed(responses: bytes, sizes: list[int], completion: bytes) -> None:
    """2: what the client gets equals what upstream sent, apart from the tag."""
    session = logged_in(DEFAULTS, None, CAPABILITIES)
    session.client_received(b"my.tag FETCH 1 BODY[]\r\n")
    effects: list[wants.Effect] = []
    for chunk in cut(responses + b"g1 " + completion + b"\r\n", sizes):
        effects += session.upstream_received(chunk)
    assert outcome(effects) == (responses + b"my.tag " + completion + b"\r\n", b"", [])
    assert session.reason == ""


@given(
    st.binary(max_size=30) | st.sampled_from([b"a1 LOGOUT\r\n", b"\r\nx DELETE y\r\n", b"}\r\nx {3+}\r\n"]),
    st.booleans(),
    CUTS,
)
def test_a_literal_is_never_a_command(content: bytes, synchronising: bool, sizes: list[int]) -> None:
    """4: whatever a literal holds, and wherever it stands, the server sees at most the one command."""
    places = (
        b"SELECT ",
        b"SEARCH TEXT ",
        b"APPEND INBOX ",
        b"CANCELUPDATE ",
        b"XBAD ",
        b"NOOP ",
        b"FETCH ( ",
        b"ENABLE ",
    )
    for place in places:
        session, server = logged_in(DEFAULTS, None, CAPABILITIES), Server()
        announced = b"{%d}" % len(content) if synchronising else b"{%d+}" % len(content)
        chunks = list(cut(b"a %b%b\r\n" % (place, announced), sizes))
        if not synchronising:
            chunks = list(cut(b"a %b%b\r\n%b\r\nz NOOP\r\n" % (place, announced, content), sizes))
        answered = b""
        while chunks or server.asked or server.pending:
            effects: list[wants.Effect] = []
            if chunks:
                effects = session.client_received(chunks.pop(0))
            elif server.asked:
                server.ask()
                effects = session.upstream_received(server.deliver(1000))
            else:
                server.complete(0, b"OK")
                effects = session.upstream_received(server.deliver(1000))
            client, upstream, _ = outcome(effects)
            server.take(upstream)
            answered += client
            if synchronising and client.startswith(b"+"):
                chunks = list(cut(content + b"\r\nz NOOP\r\n", sizes))
        verbs, verb = [command.text.split(b" ")[0] for command in server.seen], place.split()[0]
        assert verbs in ([verb], [verb, b"NOOP"], [b"NOOP"], []), verbs
        assert answered.count(b"\r\na ") + answered.startswith(b"a ") <= 1
        assert session.reason == ""


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.sampled_from(
            [b"", b"\r", b"\n", b"\0", b"{", b"}", b"+", b"(", b'"', b" ", b"*", b"\xff", b"{9999999999}", b"g1 ", b"~"]
        ),
    ),
    min_size=1,
    max_size=4,
)


def mutated(data: bytes, mutations: Iterable[tuple[int, bytes]]) -> bytes:
    """The data with an octet replaced by something else, here and there."""
    for place, octets in mutations:
        place %= len(data) + 1
        data = data[:place] + octets + data[place + 1 :]
    return data


@given(SCRIPT, MUTATIONS, CUTS)
def test_nothing_escapes(
    script: list[tuple[str, list[bytes]]], mutations: list[tuple[int, bytes]], sizes: list[int]
) -> None:
    """5: broken input ends a session at most: no exception leaves it, and it says why it ended."""
    session = logged_in(DEFAULTS, None, CAPABILITIES)
    for side, fragments in script:
        for chunk in cut(mutated(b"".join(fragments), mutations), sizes):
            effects = session.client_received(chunk) if side == "C" else session.upstream_received(chunk)
            assert {type(effect) for effect in effects} <= set(wants.Effect.__args__)
    assert (session.state is Connection.LOGOUT) is bool(session.reason)
    session.upstream_lost(Failure.LOST)
    assert session.reason


GREETINGS = st.lists(
    st.sampled_from(
        [
            b"* OK hi\r\n",
            b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n",
            b"* CAPABILITY IMAP4rev1 SASL-IR AUTH=LOGIN\r\n",
            b"g1 OK x\r\n",
            b"g2 OK [CAPABILITY A] x\r\n",
            b"g3 NO x\r\n",
            b"g2 NO x\r\n",
            b"+ \r\n",
            b"* PREAUTH x\r\n",
            b"* BYE\r\n",
        ]
    ),
    max_size=8,
).map(b"".join)


@given(GREETINGS, MUTATIONS, CUTS, st.booleans(), st.booleans())
def test_nothing_escapes_an_upstream_login(
    data: bytes, mutations: list[tuple[int, bytes]], sizes: list[int], starttls: bool, relaying: bool
) -> None:
    """5: the same for a login: it ends in one outcome at most, whatever the server says."""
    login = wants.Login(b"CRAM-MD5", None) if relaying else login_of("user", "canary")
    core = UpstreamLogin(DEFAULTS, login, starttls=starttls)
    steps = [step for chunk in cut(mutated(data, mutations), sizes) for step in core.received(chunk)]
    steps += core.lost()
    outcomes = [step for step in steps if isinstance(step, wants.Granted | wants.Failed)]
    assert len(outcomes) == 1
    if starttls:
        sent = b"".join(step.data for step in steps if isinstance(step, wants.SendUpstream))
        assert sent in (b"", b"g1 STARTTLS\r\n")
