"""The harness for authors of plugins: what the plugin says becomes of it what a gate would make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from imapgate.errors import ConfigurationError
from imapgate.plugins.api import (
    CONTINUE,
    Annotate,
    Answer,
    Command,
    Completion,
    Credentials,
    Disconnect,
    Event,
    Interests,
    Mailbox,
    Message,
    Options,
    Plugin,
    Reject,
    Replace,
    Response,
    Route,
    Session,
    Verdict,
)
from imapgate.testing import Harness


class NoDelete(Plugin):
    """The plugin of the documentation: it refuses DELETE."""

    interests = Interests(verbs=frozenset(["DELETE"]))

    def __init__(self, options: Options) -> None:
        self.domain = options.text("domain")

    def command(self, session: Session, command: Command) -> Verdict | None:
        """Refuse it."""
        if session.user.endswith("@" + self.domain):
            return Reject("NOPERM", f"Folders of {self.domain} stay", "domain")
        return None


def test_a_command_is_refused() -> None:
    """What is refused is answered, and the server never sees it; all else goes to and fro."""
    session = Harness(NoDelete, {"domain": "example.org"}, user="eve@example.org")
    assert session.client("a1 DELETE Trash") == "a1 NO [NOPERM] Folders of example.org stay"
    assert session.sent_upstream == ""
    assert session.client("a2 CREATE Box") == ""
    assert session.sent_upstream == "TAG CREATE Box"
    assert session.upstream("* 1 EXISTS", "TAG OK Done") == "* 1 EXISTS\na2 OK Done"
    assert session.faults == []
    assert session.over == ""
    assert Harness(NoDelete, {"domain": "example.org"}).client("a1 DELETE Trash") == ""


def test_whom_it_concerns() -> None:
    """A plugin of some users is not asked about others."""
    options = {"domain": "example.org", "users": ["e*@example.org"]}
    assert Harness(NoDelete, options, user="bob@example.org").client("a1 DELETE Trash") == ""
    assert Harness(NoDelete, options, user="eve@example.org").client("a1 DELETE Trash") != ""


@pytest.mark.parametrize("user", ["o'brien", "a b", 'qu"ote', "müller", "back\\slash", "x" * 60])
def test_any_user(user: str) -> None:
    """Whoever it is, is logged in, and is what the plugin sees."""
    session = Harness(NoDelete, {"domain": "example.org"}, user=user)
    assert session.session.user == user
    session.client("a1 NOOP")
    assert session.sent_upstream == "TAG NOOP"


def test_by_its_name() -> None:
    """A plugin may be named as the configuration would: bundled, or by its dotted path."""
    session = Harness("readonly", {"level": "none"})
    session.client("a1 SELECT INBOX")
    assert session.sent_upstream == "TAG EXAMINE INBOX"
    assert Harness("tests.test_testing.NoDelete", {"domain": "x"}).client("a1 DELETE y") == ""


@pytest.mark.parametrize(
    ("options", "said"), [({}, r"plugin\[0\]\.domain"), ({"domain": "x", "domian": "y"}, r"plugin\[0\]\.domian")]
)
def test_wrong_options(options: dict[str, str], said: str) -> None:
    """What would be wrong in the configuration is said."""
    with pytest.raises(ConfigurationError, match=said):
        Harness(NoDelete, options)


class Reads(Plugin):
    """A plugin that reads a file, relative to the configuration."""

    interests = Interests(verbs=frozenset(["NOOP"]))

    def __init__(self, options: Options) -> None:
        self.path = options.path("file")

    def command(self, session: Session, command: Command) -> Verdict | None:
        """Answer with it."""
        return Answer(text=self.path.read_text())


def test_relative_paths(tmp_path: Path) -> None:
    """A path is relative to whatever folder the test says."""
    (tmp_path / "words").write_text("Hello")
    assert Harness(Reads, {"file": "words"}, base=tmp_path).client("a NOOP") == "a OK Hello"


# --- logins -----------------------------------------------------------------------------------------


class Guard(Plugin):
    """A plugin that is asked about every step of a login, and says what it is told to."""

    interests = Interests(events=frozenset(Event))
    verdicts: dict[str, Any]

    def __init__(self, options: Options) -> None:
        self.seen: list[Any] = []
        asked.append(self)
        hook = options.text("hook", "")
        self.verdicts = {hook: Disconnect("Go") if options.flag("ends", False) else Reject("LIMIT", "No")}
        self.slow = options.flag("slow", False)

    def _say(self, session: Session, hook: str, *more: object) -> Any:
        self.seen.append((hook, session.user, session.upstream, *more))
        verdict = self.verdicts.get(hook)
        if not self.slow:
            return verdict
        return deferLater(self.clock, 1.0, lambda: verdict)

    def start(self, clock: Any) -> None:
        """Keep the clock."""
        self.clock = clock

    def session_opened(self, session: Session) -> Any:
        """See it."""
        return self._say(session, "session_opened", session.address, session.listener)

    def tls_started(self, session: Session) -> Any:
        """See it."""
        return self._say(session, "tls_started", session.tls)

    def credentials(self, session: Session, credentials: Credentials) -> Any:
        """See it."""
        return self._say(session, "credentials", credentials.user, credentials.password.reveal())

    def route_chosen(self, session: Session, route: Route) -> Any:
        """See it."""
        return self._say(session, "route_chosen", route)

    def authenticated(self, session: Session) -> Any:
        """See it."""
        return self._say(session, "authenticated", dict(session.client_id))

    def session_closed(self, session: Session, reason: str) -> None:
        """See it."""
        self.seen.append(("session_closed", reason))


asked: list[Guard] = []


@pytest.fixture(autouse=True)
def nobody_was_asked() -> None:
    """Each test has guards of its own."""
    asked.clear()


def test_a_login() -> None:
    """Each step is shown as a gate would show it, in order."""
    session = Harness(
        Guard, user="bob", password="pw", address="198.51.100.1", listener="imaps", client_id={"name": "Mail"}
    )
    assert asked[0].seen == [
        ("session_opened", "", "", "198.51.100.1", "imaps"),
        ("tls_started", "", "", "TLSv1.3 TLS_AES_256_GCM_SHA384"),
        ("credentials", "", "", b"bob", b"pw"),
        ("route_chosen", "", "", Route("main", "bob", "session")),
        ("authenticated", "bob", "main", {"name": "Mail"}),
    ]
    assert session.refusal is None
    session.close()
    assert asked[0].seen[-1] == ("session_closed", "client closed")
    assert session.over == "client closed"


def test_without_tls() -> None:
    """Where there is no TLS it is not asked about."""
    Harness(Guard, tls="")
    assert [seen[0] for seen in asked[0].seen] == ["session_opened", "credentials", "route_chosen", "authenticated"]


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("hook", ["credentials", "route_chosen", "authenticated"])
def test_a_login_is_refused(hook: str, ends: bool) -> None:
    """What it said is kept, nobody is asked any more, and nothing that the client says is answered."""
    session = Harness(Guard, {"hook": hook, "ends": ends})
    assert session.refusal == (Disconnect("Go") if ends else Reject("LIMIT", "No"))
    assert asked[0].seen[-1][0] == hook
    assert session.over == "refused"
    assert session.client("a1 NOOP") == ""
    assert session.upstream("* 1 EXISTS") == ""
    session.close()


def test_a_login_takes_time() -> None:
    """What a slow plugin has to say comes with the time, step by step; what the client says waits."""
    session = Harness(Guard, {"slow": True})
    assert session.client("a1 CAPABILITY") == ""
    for seconds in range(4):
        assert len(asked[0].seen) == seconds + 1
        assert session.advance(1.0) == ""
    told = session.advance(1.0)
    assert told.startswith("* CAPABILITY IMAP4rev1 ")
    assert "\na1 OK " in told
    assert "login OK" not in told


def test_closed_while_it_logs_in() -> None:
    """What comes too late is for nobody."""
    session = Harness(Guard, {"slow": True, "hook": "session_opened", "ends": True})
    session.close()
    session.close()
    assert session.advance(5.0) == ""
    assert session.refusal is None


# --- asking -----------------------------------------------------------------------------------------


class Slow(Plugin):
    """A plugin that thinks for some seconds, in a coroutine, of whatever comes."""

    interests = Interests(
        verbs=frozenset(["NOOP", "CHECK"]), completions=frozenset(["CHECK"]), responses=frozenset(["EXISTS"])
    )

    def __init__(self, options: Options) -> None:
        self.seconds = options.number("seconds", 2)
        self.cancelled: list[str] = []

    def start(self, clock: Any) -> None:
        """Keep the clock."""
        self.clock = clock

    async def command(self, session: Session, command: Command) -> Verdict | None:
        """Think, and refuse NOOP."""
        await deferLater(self.clock, self.seconds)
        return Reject(text="Too much") if command.verb == "NOOP" else None

    async def untagged(self, session: Session, response: Response) -> Verdict | None:
        """Think, and change it."""
        await deferLater(self.clock, self.seconds)
        return Replace(b"7 EXISTS")

    async def completed(self, session: Session, command: Command, completion: Completion) -> Verdict | None:
        """Think, and note it."""
        await deferLater(self.clock, self.seconds)
        return Annotate({"outcome": completion.outcome, "asked": session.mailbox})


def test_slow_plugins() -> None:
    """An answer comes with the time, and the order is kept."""
    session = Harness(Slow)
    assert session.client("a1 NOOP", "a2 CHECK") == ""
    assert session.advance(1.9) == ""
    assert session.advance(0.2) == "a1 NO Too much"
    assert session.sent_upstream == ""
    assert session.advance(2.0) == ""
    assert session.sent_upstream == "TAG CHECK"
    assert session.upstream("* 3 EXISTS", "TAG OK Done") == ""
    assert session.advance(2.0) == "* 7 EXISTS"
    assert session.advance(2.0) == "a2 OK Done"
    assert session.notes == [{"outcome": "OK", "asked": ""}]
    assert session.faults == []


def test_a_plugin_that_takes_too_long() -> None:
    """Its time-out is a fault, and what the policy says holds."""
    for policy, told in (("closed", "a1 NO Refused"), ("open", "")):
        session = Harness(Slow, {"seconds": 60, "timeout": "3s", "on_timeout": policy})
        session.client("a1 CHECK")
        assert session.advance(2.9) == ""
        assert session.advance(0.2) == told
        (fault,) = session.faults
        assert (fault.kind, fault.hook, fault.session_id) == ("timeout", "command", "test")
        assert session.advance(120.0) == ""


class Editor(Plugin):
    """A plugin that puts other responses in the place of those that come, and sees those of others."""

    interests = Interests(responses=frozenset(["EXISTS", "LIST", "FLAGS", "STATUS"]))

    def __init__(self, options: Options) -> None:
        self.line = options.text("line", "").encode().replace(b"|", b"\r\n")
        self.seen: list[Response] = []

    def untagged(self, session: Session, response: Response) -> Verdict | None:
        """Replace what it is about."""
        return Replace(self.line)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("7 EXISTS", "* 7 EXISTS"),
        ('LIST () "/" Box', '* LIST () "/" Box'),
        ("STATUS {3}|Box (MESSAGES 1)", "* STATUS {3}\nBox (MESSAGES 1)"),
        ("OK [ALERT] x", "* OK [ALERT] x"),
    ],
)
def test_responses_are_replaced(line: str, told: str) -> None:
    """What a plugin puts in a response's place is what the client gets."""
    session = Harness(Editor, {"line": line})
    assert session.upstream("* FLAGS (x)") == told
    assert session.faults == []


@pytest.mark.parametrize("line", ["", "+ go", "PREAUTH x", "(x) y", "* 7 EXISTS", "7", "x|y"])
def test_what_is_no_response(line: str) -> None:
    """What cannot be a response is a fault, and the policy holds: the client gets neither."""
    session = Harness(Editor, {"line": line} if line else {})
    assert session.upstream("* FLAGS (x)") == ""
    assert [fault.kind for fault in session.faults] == ["junk"]


class Faulty(Plugin):
    """A plugin that is wrong in every way."""

    interests = Interests(verbs=None)

    def __init__(self, options: Options) -> None:
        self.threaded = options.flag("threaded", False)

    def command(self, session: Session, command: Command) -> Any:
        """Be wrong."""
        if command.verb == "NOOP":
            raise ValueError("a bug")
        return {"CHECK": "yes", "CREATE": Reject(text="two\r\nlines"), "LIST": Replace(b"NONSENSE x")}.get(command.verb)


@pytest.mark.parametrize("threaded", [False, True])
def test_faults(threaded: bool) -> None:
    """What goes wrong in a plugin is kept for the test to see, and what it was asked about is refused."""
    session = Harness(Faulty, {"threaded": threaded, "failures": 100})
    for line, kind in (("NOOP", "error"), ("CHECK", "junk"), ("CREATE x", "junk"), ('LIST "" *', "junk")):
        assert session.client(f"a {line}") == "a NO Refused"
        assert session.faults[-1].kind == kind
    assert "a bug" in session.faults[0].text
    assert session.sent_upstream == ""
    session.client("a EXPUNGE")
    assert session.sent_upstream == "TAG EXPUNGE"


class Notes(Plugin):
    """A plugin that answers, notes, replaces and ends."""

    interests = Interests(
        verbs=frozenset(["SELECT", "NOOP", "CHECK", "EXPUNGE"]), events=frozenset([Event.SELECTED]), capabilities=True
    )

    def command(self, session: Session, command: Command) -> Verdict:
        """Say something of each."""
        if command.verb == "SELECT":
            return Replace(b"EXAMINE " + command.mailbox_raw)
        if command.verb == "CHECK":
            return Answer((b"OK [ALERT] Look at this",), "NO", "CANNOT", session.mailbox)
        if command.verb == "EXPUNGE":
            return Disconnect("No more", "rule")
        return Annotate({"read_only": session.read_only, "mailbox": session.mailbox})

    def mailbox_selected(self, session: Session, mailbox: Mailbox) -> Verdict:
        """Note its name."""
        return Annotate({"selected": mailbox.name})

    def capabilities(self, session: Session, names: Any) -> list[str]:
        """Hide one, and add one."""
        return [*(name for name in names if name != "IDLE"), "XNOTE"]


def test_every_verdict() -> None:
    """Each has the effect that it has in a gate, and the session is where the plugin thinks that it is."""
    session = Harness(Notes)
    told = session.client("c CAPABILITY")
    assert "XNOTE" in told
    assert "IDLE" not in told
    session.client("a1 SELECT Sent")
    assert session.sent_upstream == "TAG EXAMINE Sent"
    told = session.upstream("* 3 EXISTS", "* OK [UIDVALIDITY 7] UIDs", "TAG OK [READ-ONLY] Done")
    assert told == "* 3 EXISTS\n* OK [UIDVALIDITY 7] UIDs\na1 OK [READ-ONLY] Done"
    session.client("a2 NOOP")
    assert session.upstream("TAG OK Done") == "a2 OK Done"
    assert session.notes == [{"selected": "Sent"}, {"read_only": True, "mailbox": "Sent"}]
    assert (session.session.mailbox, session.session.read_only) == ("Sent", True)
    assert session.client("a3 CHECK") == "* OK [ALERT] Look at this\na3 NO [CANNOT] Sent"
    assert session.over == ""
    assert session.client("a4 EXPUNGE") == "* BYE No more"
    assert session.over == "dismissed"
    assert session.client("a5 NOOP") == ""
    session.close()


def test_capabilities_of_the_server() -> None:
    """What the server can do is the test's to say."""
    session = Harness(Notes, capabilities="IMAP4rev1 IDLE MOVE")
    told = session.client("c CAPABILITY").splitlines()[0].split()
    assert {"IMAP4rev1", "MOVE", "XNOTE"} <= set(told)
    assert "UIDPLUS" not in told


# --- messages ---------------------------------------------------------------------------------------


class Scanner(Plugin):
    """A plugin that looks at messages."""

    interests = Interests(message=1000)

    def __init__(self, options: Options) -> None:
        self.late = options.flag("late", False)
        self.answers: list[Deferred[Any]] = []
        scanners.append(self)

    def message_begins(self, session: Session, command: Command, message: Message) -> Verdict | None:
        """Refuse what is for Trash."""
        session.state(self)["seen"] = b""
        return Reject("CANNOT", "Not there") if command.destination == "Trash" else None

    def message_chunk(self, session: Session, message: Message, data: bytes) -> Any:
        """Look for a word."""
        session.state(self)["seen"] += data
        if self.late:
            self.answers.append(Deferred())
            return self.answers[-1]
        return Reject("CANNOT", "Virus") if b"virus" in session.state(self)["seen"] else CONTINUE

    def message_ends(self, session: Session, message: Message) -> Verdict | None:
        """Look at all of it."""
        return Reject("CANNOT", "Too dull") if session.state(self)["seen"] == b"dull" else None


scanners: list[Scanner] = []


def test_a_message_that_may_pass() -> None:
    """The server is asked first, and gets the octets when the plugin has seen them."""
    session = Harness(Scanner)
    assert session.client("a1 APPEND Sent {11}") == ""
    assert session.sent_upstream == "TAG APPEND Sent {11}"
    assert session.upstream("+ go on") == "+ go on"
    assert session.client_octets(b"hello ") == ""
    assert session.sent_upstream == "hello "
    assert session.client_octets(b"world\r\n") == ""
    assert session.sent_upstream == "world"
    assert session.upstream("TAG OK [APPENDUID 1 2] Stored") == "a1 OK [APPENDUID 1 2] Stored"


def test_a_message_that_is_not_asked_for() -> None:
    """A message that is refused as a whole is never asked for, and the server sees nothing of it."""
    session = Harness(Scanner)
    assert session.client("a1 APPEND Trash {5}") == "a1 NO [CANNOT] Not there"
    assert session.sent_upstream == ""


def test_a_message_that_is_cut_off() -> None:
    """What is refused in its middle goes no further, and the client is told when it has sent the rest."""
    session = Harness(Scanner)
    session.client("a1 APPEND Sent {20}")
    session.upstream("+ go on")
    assert session.client_octets(b"12345 virus") == ""
    assert "virus" not in session.sent_upstream
    told = session.client_octets(b" 12345678\r\n")
    assert told.startswith("a1 NO [CANNOT] Virus\n* BYE ")
    assert session.over != ""


def test_a_message_that_is_refused_at_its_end() -> None:
    """The last word is spoken before the server has the last octet."""
    session = Harness(Scanner)
    session.client("a1 APPEND Sent {4}")
    session.upstream("+ go on")
    told = session.client_octets(b"dull\r\n")
    assert "a1 NO [CANNOT] Too dull" in told
    assert "dull" not in session.sent_upstream.splitlines()[1:]


def test_a_message_that_waits() -> None:
    """Octets wait for the plugin, however long it takes."""
    scanners.clear()
    session = Harness(Scanner, {"late": True})
    session.client("a1 APPEND Sent {5}")
    session.upstream("+ go on")
    assert session.sent_upstream == "TAG APPEND Sent {5}"
    session.client_octets(b"hello\r\n")
    assert session.sent_upstream == ""
    scanners[0].answers.pop().callback(None)
    assert session.sent_upstream == "hello"


# --- lines ------------------------------------------------------------------------------------------


def test_lines() -> None:
    """Lines may be text or octets, one or several; CRLF is added, and is not to be seen in what comes back."""
    session = Harness(Slow, {"seconds": 0})
    session.client(b"a1 CREATE x", "a2 CREATE y\na3 CREATE z")
    assert session.sent_upstream == "TAG CREATE x\nTAG CREATE y\nTAG CREATE z"
    assert session.sent_upstream == ""
    assert session.upstream("TAG OK Done") == "a3 OK Done"
    assert session.upstream(b"* OK \xff\r\n* OK y") == "* OK \\xff\n* OK y"


def test_the_tag_is_that_of_the_last_command() -> None:
    """Also where several were sent at once."""
    session = Harness(NoDelete, {"domain": "x"})
    session.client_octets(b"a1 CREATE x\r\na2 CREATE y\r\n")
    assert session.sent_upstream == "TAG CREATE x\nTAG CREATE y"
    assert session.upstream("TAG OK Done") == "a2 OK Done"
