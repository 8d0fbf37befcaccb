"""The plugin webhook, with the service below treq's own stub."""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from treq.testing import StubTreq
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from imapgate.net.tls import ServerCertificates
from imapgate.plugins.api import (
    Annotate,
    Answer,
    Completion,
    Disconnect,
    Event,
    Interests,
    Mailbox,
    Message,
    OptionError,
    Reject,
    Replace,
    Route,
)
from imapgate.plugins.bundled._proof import Proof, certificates
from imapgate.plugins.bundled.webhook import PLUGIN, HookFailed
from tests.auth.presenting import Outcome
from tests.net.test_tls import Issued, Meeting
from tests.plugins.bundled.commanding import command, options, session

URL = "https://hooks.example.org/imap"
MOVE = command("UID MOVE 1:5 Trash")
ALICE = session("alice", mailbox="INBOX")


class Service(Resource):
    """Keeps what it is asked, and gives one answer."""

    isLeaf = True

    def __init__(self, answer: bytes | None, status: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__()
        self.asked: list[Any] = []
        self.seen: list[Request] = []
        self._answer, self._status, self._headers = answer, status, headers or {}

    def render_POST(self, request: Any) -> bytes | int:
        """Answer, or leave it open."""
        self.asked.append(json.load(request.content))
        self.seen.append(request)
        request.setResponseCode(self._status)
        for name, value in self._headers.items():
            request.setHeader(name, value)
        return NOT_DONE_YET if self._answer is None else self._answer


class Hooked:
    """The plugin, asking a service that gives this answer."""

    def __init__(self, answer: object = None, *, raw: bytes | None = None, **others: Any) -> None:
        values = {"url": URL, **others.pop("options", {})}
        octets = json.dumps(answer).encode() if raw is None else raw
        self.service = Service(octets or None, **others)
        self.plugin = PLUGIN(options(**values))
        self.plugin.start(MemoryReactorClock())
        self.stub = StubTreq(self.service)
        self.plugin.client = self.stub  # type: ignore[assignment]

    def ask(self) -> Outcome:
        """Ask about a command."""
        outcome = Outcome(self.plugin.command(ALICE, MOVE))
        self.stub.flush()
        return outcome


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ({"verdict": "continue"}, None),
        ({"verdict": "continue", "notes": {}}, None),
        ({"verdict": "continue", "notes": {"ticket": 7, "by": "ops", "late": True}},
         Annotate({"ticket": 7, "by": "ops", "late": True})),
        ({"verdict": "reject"}, Reject()),
        ({"verdict": "reject", "code": "NOPERM", "text": "Not today", "rule": "holidays"},
         Reject("NOPERM", "Not today", "holidays")),
        ({"verdict": "replace", "line": 'COPY 1 "\u00e4"'}, Replace('COPY 1 "\u00e4"'.encode())),
        ({"verdict": "replace", "line": "NOOP", "rule": "x"}, Replace(b"NOOP", "x")),
        ({"verdict": "answer"}, Answer()),
        ({"verdict": "answer", "untagged": ["STATUS x ()"], "completion": "NO", "code": "LIMIT", "text": "x"},
         Answer((b"STATUS x ()",), "NO", "LIMIT", "x")),
        ({"verdict": "disconnect"}, Disconnect()),
        ({"verdict": "disconnect", "text": "Bye", "rule": "x"}, Disconnect("Bye", "x")),
    ],
)  # fmt: skip
def test_verdicts(answer: object, verdict: object) -> None:
    """Every verdict can be given; what is left out is as the verdict has it."""
    assert Hooked(answer).ask().values == [verdict]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"<html>", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "no verdict"),
        (b"{}", "no verdict"),
        (b'{"verdict": "allow"}', "no verdict"),
        (b'{"verdict": ["reject"]}', "no verdict"),
        (b'{"verdict": "reject", "txt": "x"}', "reject has a field that it cannot have; expected code, text, rule"),
        (b'{"verdict": "continue", "code": "x"}', "continue has a field"),
        (b'{"verdict": "reject", "text": 7}', "text of the verdict reject is of another type; expected str"),
        (b'{"verdict": "reject", "rule": null}', "rule of the verdict reject"),
        (b'{"verdict": "replace"}', "replace has no line"),
        (b'{"verdict": "replace", "line": ""}', "replace has no line"),
        (b'{"verdict": "answer", "untagged": "x"}', "untagged of the verdict answer is of another type; expected list"),
        (b'{"verdict": "answer", "untagged": [1]}', "untagged of the verdict answer is of another type; expected str"),
        (b'{"verdict": "continue", "notes": []}', "notes of the verdict continue"),
        (b'{"verdict": "continue", "notes": {"a": 1.5}}', "a note is of another type"),
        (b'{"verdict": "continue", "notes": {"a": null, "b": 1}}', "a note is of another type"),
        (b" " * 70_000, "longer than 65536 octets"),
    ],
)
def test_an_answer_that_is_no_verdict(raw: bytes, text: str) -> None:
    """It is a failure, and the policy holds."""
    (error,) = Hooked(raw=raw).ask().errors
    assert isinstance(error, HookFailed)
    assert text in str(error)


@pytest.mark.parametrize("status", [201, 204, 302, 404, 500])
def test_a_status_that_is_no_success(status: int) -> None:
    """What comes with it is no verdict, and a redirection is not followed."""
    hooked = Hooked({"verdict": "continue"}, status=status, headers={"location": "https://elsewhere.example.org/"})
    (error,) = hooked.ask().errors
    assert str(error) == f"the HTTP status is {status}"
    assert len(hooked.service.asked) == 1


def test_a_question() -> None:
    """It says who does what, in which mailbox, to which messages."""
    hooked = Hooked({"verdict": "continue"})
    hooked.ask()
    assert hooked.service.asked == [
        {
            "hook": "command",
            "session": {
                "id": "s1",
                "address": "192.0.2.7",
                "listener": "imaps",
                "server_name": "",
                "tls": "",
                "user": "alice",
                "upstream": "",
                "client_id": {},
                "mailbox": "INBOX",
                "read_only": False,
            },
            "command": {
                "verb": "UID MOVE",
                "mailboxes": ["Trash"],
                "patterns": [],
                "destination": "Trash",
                "sequence": "1:5",
                "items": [],
                "store": None,
                "flags": [],
                "message_size": 0,
            },
        }
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("STORE 1 +FLAGS.SILENT (\\Seen)", {"store": {"sign": "+", "silent": True, "flags": ["\\Seen"]}}),
        ("FETCH 1 (UID BODY[])", {"items": ["UID", "BODY[]"], "sequence": "1"}),
        ("APPEND INBOX (\\Seen) {77}", {"flags": ["\\Seen"], "message_size": 77}),
        ('LIST "" *', {"patterns": ["*"], "mailboxes": []}),
    ],
)
def test_what_a_command_says(text: str, told: dict[str, object]) -> None:
    """Each command has what belongs to it."""
    hooked = Hooked({"verdict": "continue"})
    Outcome(hooked.plugin.command(ALICE, command(text)))
    assert told.items() <= hooked.service.asked[0]["command"].items()


@pytest.mark.parametrize(
    "text", ["SEARCH TEXT canary", "SETMETADATA INBOX (/private/comment canary)", "ID (password canary)"]
)
def test_what_is_not_told(text: str) -> None:
    """What is searched for, and what is written, is nobody else's affair."""
    hooked = Hooked({"verdict": "continue"})
    Outcome(hooked.plugin.command(ALICE, command(text)))
    assert "canary" not in json.dumps(hooked.service.asked)


def test_every_hook() -> None:
    """Each hook asks, with what it is about."""
    hooked = Hooked({"verdict": "reject", "rule": "x"})
    plugin, append = hooked.plugin, command("APPEND INBOX {5}")
    outcomes = [
        Outcome(asked)
        for asked in (
            plugin.session_opened(ALICE),
            plugin.tls_started(ALICE),
            plugin.route_chosen(ALICE, Route("legacy", "a", "session")),
            plugin.authenticated(ALICE),
            plugin.command(ALICE, MOVE),
            plugin.message_begins(ALICE, append, Message("INBOX", 5, 1)),
            plugin.mailbox_selected(ALICE, Mailbox("INBOX", True, 7)),
            plugin.completed(ALICE, MOVE, Completion("NO", "LIMIT", "x")),
        )
    ]
    assert [outcome.values for outcome in outcomes] == [[Reject(rule="x")]] * 8
    common = {"hook", "session"}
    assert [(asked["hook"], sorted(asked.keys() - common)) for asked in hooked.service.asked] == [
        ("session_opened", []),
        ("tls_started", []),
        ("route_chosen", ["route"]),
        ("authenticated", []),
        ("command", ["command"]),
        ("message_begins", ["command", "message"]),
        ("mailbox_selected", ["mailbox"]),
        ("completed", ["command", "completion"]),
    ]
    assert hooked.service.asked[2]["route"] == {"upstream": "legacy", "user": "a", "pool_mode": "session"}
    assert hooked.service.asked[5]["message"] == {"mailbox": "INBOX", "size": 5, "number": 1}
    assert hooked.service.asked[6]["mailbox"] == {"name": "INBOX", "read_only": True, "uid_validity": 7}
    assert hooked.service.asked[7]["completion"] == {"outcome": "NO", "code": "LIMIT", "text": "x"}


class TestInterests:
    """Only what was chosen is asked about."""

    def test_default(self) -> None:
        """All commands, and nothing else."""
        interests = PLUGIN(options(url=URL)).interests
        assert interests.verbs is None
        assert (interests.completions, interests.message, interests.events) == (frozenset(), 0, frozenset())
        assert PLUGIN(options(url=URL, verbs=["MOVE"])).interests == Interests(verbs=frozenset(["MOVE"]))

    def test_chosen(self) -> None:
        """Some commands and their completions, some events, and messages."""
        hooks = ["command", "completed", "message_begins", "authenticated", "mailbox_selected"]
        interests = PLUGIN(options(url=URL, hooks=hooks, verbs=["move", "UID MOVE"])).interests
        assert interests.verbs == interests.completions == frozenset(["MOVE", "UID MOVE"])
        assert interests.message == 1
        assert interests.events == {Event.AUTHENTICATED, Event.SELECTED}

    def test_no_commands(self) -> None:
        """Commands are not asked about where only others were chosen."""
        interests = PLUGIN(options(url=URL, hooks=["session_opened", "tls_started", "route_chosen"])).interests
        assert interests.verbs == frozenset()
        assert interests.events == {Event.OPENED, Event.TLS, Event.ROUTED}


class TestConnections:
    """How the service is reached, without the stub."""

    def setup_method(self) -> None:
        """Begin to ask."""
        self.reactor = MemoryReactorClock()
        self.plugin = PLUGIN(options(url="http://127.0.0.1:8080/imap"))
        self.plugin.start(self.reactor)
        self.outcome = Outcome(self.plugin.command(ALICE, MOVE))
        self.transport = StringTransport()

    def connect(self) -> Any:
        """Let the connection come about, and return its protocol."""
        assert self.reactor.tcpClients[-1][:2] == ("127.0.0.1", 8080)
        protocol: Any = self.reactor.tcpClients[-1][2].buildProtocol(None)
        protocol.makeConnection(self.transport)
        return protocol

    def test_an_answer(self) -> None:
        """One POST, one answer, and the connection is closed."""
        protocol = self.connect()
        assert self.transport.value().startswith(b"POST /imap HTTP/1.1\r\n")
        protocol.dataReceived(b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"verdict": "reject"}')
        assert self.outcome.values == [Reject()]
        assert self.transport.disconnecting

    def test_no_cookie_is_kept(self) -> None:
        """Nothing of one answer goes into another question."""
        self.connect().dataReceived(
            b'HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 21\r\n\r\n{"verdict": "reject"}'
        )
        self.transport.clear()
        self.outcome = Outcome(self.plugin.command(ALICE, MOVE))
        self.connect()
        assert b"a=b" not in self.transport.value()

    def test_an_answer_that_is_cut_off(self) -> None:
        """Half a verdict is none."""
        protocol = self.connect()
        protocol.dataReceived(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"verdict": "continue"}')
        assert self.outcome.pending
        protocol.connectionLost(Failure(ConnectionRefusedError()))
        assert [str(error) for error in self.outcome.errors] == ["the answer was cut off"]

    def test_an_answer_ended_by_closing(self) -> None:
        """So old servers do."""
        protocol = self.connect()
        protocol.dataReceived(b'HTTP/1.0 200 OK\r\n\r\n{"verdict": "reject"}')
        protocol.connectionLost(Failure(ConnectionRefusedError()))
        assert self.outcome.values == [Reject()]

    def test_an_answer_without_end(self) -> None:
        """It is given up, and the connection closed."""
        protocol = self.connect()
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + b" " * 65_537)
        protocol.dataReceived(b" ")
        assert "longer than" in str(self.outcome.errors[0])
        assert self.transport.disconnecting
        protocol.connectionLost(Failure(ConnectionRefusedError()))

    @pytest.mark.parametrize("come", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"])
    def test_whoever_waits_gives_up(self, come: bytes) -> None:
        """The connection is closed, in whichever part of an answer."""
        protocol = self.connect()
        protocol.dataReceived(come)
        self.outcome.deferred.cancel()
        assert self.outcome.errors
        assert self.transport.disconnecting or self.transport.disconnected

    def test_no_connection(self) -> None:
        """Without a service there is no verdict: the policy holds."""
        factory: Any = self.reactor.tcpClients[-1][2]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.reactor.advance(1)  # until then, the name might have another address
        assert [type(error) for error in self.outcome.errors] == [ConnectionRefusedError]


class TestProof:
    """The service has to be who it should be."""

    @pytest.mark.parametrize(
        ("names", "addresses", "host", "proved"),
        [
            (("hooks.example.org",), (), "hooks.example.org", True),
            (("other.example.org",), (), "hooks.example.org", False),
            ((), (), "hooks.example.org", False),
            ((), ("127.0.0.1",), "127.0.0.1", True),
            (("127.0.0.1",), ("127.0.0.2",), "127.0.0.1", False),
        ],
    )
    def test_names(
        self, tmp_path: Path, names: tuple[str, ...], addresses: tuple[str, ...], host: str, proved: bool
    ) -> None:
        """Its certificate has to be for its name; one that is for none proves nothing."""
        root = Issued("root", authority=True)
        leaf = Issued("hooks.example.org", root, names=names, addresses=addresses)
        server = ServerCertificates([leaf.store(tmp_path, "leaf")])
        meeting = Meeting(server, Proof(certificates(root.pem())).creatorForNetloc(host.encode(), 443))
        assert meeting.complete is proved
        assert proved or b"LOGIN" not in meeting.server.received

    def test_chain(self, tmp_path: Path) -> None:
        """It has to be vouched for by those that are trusted."""
        leaf = Issued("x", Issued("root", authority=True), names=("hooks.example.org",))
        server = ServerCertificates([leaf.store(tmp_path, "leaf")])
        for trusted in (certificates(Issued("other", authority=True).pem()), []):
            meeting = Meeting(server, Proof(trusted).creatorForNetloc(b"hooks.example.org", 443))
            assert not meeting.complete
            assert meeting.server.received == b""

    def test_ca(self, tmp_path: Path) -> None:
        """A file may hold more than one certificate, and what stands around them."""
        first, second = Issued("first", authority=True), Issued("second", authority=True)
        (tmp_path / "ca.pem").write_bytes(b"# ours\n" + first.pem() + b"\n# theirs\n" + second.pem())
        leaf = Issued("x", second, names=("hooks.example.org",))
        plugin = PLUGIN(options(url=URL, ca=str(tmp_path / "ca.pem")))
        plugin.start(MemoryReactorClock())
        server = ServerCertificates([leaf.store(tmp_path, "leaf")])
        creator = Proof(plugin._trusted).creatorForNetloc(b"hooks.example.org", 443)
        assert Meeting(server, creator).complete


@pytest.mark.parametrize(
    ("values", "key", "text"),
    [
        ({}, "url", "missing"),
        ({"url": "ftp://hooks.example.org/"}, "url", "expected a URL"),
        ({"url": "https://"}, "url", "expected a URL"),
        ({"url": "https://u:p@hooks.example.org/"}, "url", "without user and password"),
        ({"url": "https://h\u00f6oks.example.org/"}, "url", "expected a URL"),
        ({"url": "https://hooks.example.org/a b"}, "url", "expected a URL"),
        ({"url": "https://hooks.example.org:x/"}, "url", "expected a URL"),
        ({"url": "https://hooks.example.org:0/"}, "url", "expected a URL"),
        ({"url": "http://hooks.example.org/"}, "url", "allow_plaintext"),
        ({"url": "http://192.0.2.1/"}, "url", "allow_plaintext"),
        ({"url": URL, "hooks": ["credentials"]}, "hooks", "expected some of"),
        ({"url": URL, "hooks": []}, "hooks", "expected some of"),
        ({"url": URL, "hooks": ["completed"]}, "verbs", "missing"),
        ({"url": URL, "ca": "/nowhere/ca.pem"}, "ca", "PEM"),
        ({"url": URL, "ca": __file__}, "ca", "PEM"),
    ],
)
def test_options(values: dict[str, object], key: str, text: str) -> None:
    """What cannot be used says where, and what was expected; an error repeats no password."""
    with pytest.raises(OptionError, match=text) as raised:
        PLUGIN(options(**values))
    assert raised.value.key == key
    assert "u:p" not in str(raised.value)


@pytest.mark.parametrize(
    "values",
    [
        {"url": "http://127.0.0.1:8080/"},
        {"url": "http://[::1]/"},
        {"url": "http://localhost/"},
        {"url": "http://hooks.example.org/", "allow_plaintext": True},
    ],
)
def test_plaintext(values: dict[str, object]) -> None:
    """It is for this machine, or for whoever says so."""
    PLUGIN(options(**values))


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    """What only looks like one is told."""
    path = tmp_path / "ca.pem"
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(OptionError, match="PEM"):
        PLUGIN(options(url=URL, ca=str(path)))
