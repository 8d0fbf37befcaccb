"""The verifier `http`: the dialogues of nginx's `auth_http` from end to end, as far as the wire shows them."""

from __future__ import annotations

import re
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.conftest import User
from tests.integration.gate import Gate, upstream_of
from tests.integration.sasl import FAILED, authenticate, encoded, given
from tests.integration.scripted import Recorder
from tests.integration.servers import Dovecot, wait_until
from tests.integration.test_login_failures import _login
from tests.integration.verifying import MASTER, MASTER_PASSWORD, as_master, mastering, private
from tests.integration.web import Question, Reply, Web
from tests.integration.wire import Wire, connect, tls_context

NewUser = Callable[..., User]
Dialogue = dict[str, Any]
UNAVAILABLE = b"NO [UNAVAILABLE] "
USER, PASSWORD = "alice", "c4n4ry-p4ssw0rd"
DEBUG = {"IMAPGATE_LOG_LEVEL": "debug"}
SECOND = 1
"""What every wait is cut to."""


def playable(dialogue: Dialogue) -> bool:
    """Whether it can be played from here, in a moment, and over a connection that is kept."""
    from_here = not {"address", "secure", "attempt"} & dialogue.get("presented", {}).keys()
    silent = any("silent" in answer or answer.get("raw") == "" for answer in dialogue["answers"])
    return from_here and not silent and len(dialogue.get("slept", ())) < 2 and dialogue.get("waits", 0) < 60


FILE = Path(__file__).parents[1] / "auth" / "auth_http.toml"
DIALOGUES = [dialogue for dialogue in tomllib.loads(FILE.read_text("utf-8"))["dialogue"] if playable(dialogue)]


class Stage(NamedTuple):
    """A script, two upstreams, and two gates: one has a master user, one goes on with what the client gave."""

    web: Web
    home: Recorder
    elsewhere: Recorder
    master: Gate
    own: Gate

    def logins(self) -> list[tuple[int, bytes, bytes]]:
        """Every login upstream: at which port, whose, and with which password."""
        return [
            (recorder.port, talk.user, talk.passwords[-1])
            for recorder in (self.home, self.elsewhere)
            for talk in recorder.conversations
            if talk.user is not None
        ]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: Any) -> Iterator[Stage]:
    """The gates ask one script."""
    folder = tmp_path_factory.mktemp("stage")
    with ExitStack() as stack:
        web = stack.enter_context(Web(lambda question: None))
        home, elsewhere = stack.enter_context(Recorder()), stack.enter_context(Recorder())
        headers = {"X-Auth-Key": {"file": private(folder / "key", "k3y")}}
        auth = mastering({"use": "http", "url": web.url("/auth?of=imap"), "headers": headers})
        upstream = {"endpoints": [f"tcp:127.0.0.1:{home.port}"], "tls": "none", "pool_keep": 0}
        gates = [
            stack.enter_context(Gate({"home": upstream | more}, auth=auth, environment=DEBUG))
            for more in ({"master": as_master(folder)}, {})
        ]
        yield Stage(web, home, elsewhere, *gates)


def _hurried(header: str, port: int) -> str:
    """A header, its wait cut short, its server and port our own."""
    if re.match(r"Auth-Wait: [0-9]", header):
        return f"Auth-Wait: {SECOND}"
    if re.fullmatch(r"Auth-Server: [a-z0-9.-]+[a-z]", header):
        return "Auth-Server: localhost"
    return {"Auth-Server: ": "Auth-Server: 127.0.0.1", "Auth-Port: ": f"Auth-Port: {port}"}.get(
        re.sub(r"[0-9a-f.:]+\Z", "", header), header
    )


def _reply(answer: dict[str, Any], port: int | None) -> Reply | bytes:
    if "raw" in answer:
        raw: str = answer["raw"]
        return raw.encode()
    headers = [header if port is None else _hurried(header, port) for header in answer.get("headers", ())]
    if octets := answer.get("header_octets"):
        headers.append("X-Long: " + "x" * octets)
    body = answer.get("body", "x" * answer.get("body_octets", 0))
    return Reply(answer.get("status", 200), headers, body.encode())


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue["name"].replace(" ", "_"))
def test_dialogue(stage: Stage, dialogue: Dialogue) -> None:
    """One dialogue: what the script is asked, what the client is told and when, and whose login goes where."""
    answers, expected = dialogue["answers"], dialogue.get("identified")
    # What makes no sense is left as it is.
    port = None if "temporary" in dialogue and "waits" not in dialogue else stage.elsewhere.port
    left = [_reply(answer, port) for answer in answers]
    presented, slept = dialogue.get("presented", {}), dialogue.get("slept", [])
    asked, before, logged = len(stage.web.questions), stage.logins(), len(stage.master.log())
    stage.web.answer = lambda question: left.pop(0)
    own = dialogue.get("options", {}).get("own_password", False)
    user, password = presented.get("user", USER), presented.get("password", PASSWORD)
    for _ in range(len(answers) - len(slept) or 1):
        said, took = _attempt(stage.own if own else stage.master, presented.get("mechanism", "PLAIN"), user, password)
        if expected is not None:
            assert said.startswith(b"OK ")
        elif "refused" in dialogue:
            assert said == FAILED
            assert re.search(f"nobody is identified: .*{re.escape(dialogue['refused'])}", stage.master.log()[logged:])
        else:
            assert said.startswith(UNAVAILABLE)
            assert f"verifier http cannot tell: {dialogue['temporary']}" in stage.master.log()[logged:]
        assert took >= min(dialogue.get("waits", 0) + sum(slept), SECOND)
    _compare(dialogue, stage.web.questions[asked:])
    logins = list(stage.logins())
    for known in before:
        logins.remove(known)
    if expected is None:
        assert logins == []
    else:
        where = stage.elsewhere.port if "server" in expected else stage.home.port
        name, given_password = expected["user"], expected.get("password")
        if given_password is None:
            name, given_password = f"{name}*{MASTER}", MASTER_PASSWORD
        assert logins == [(where, name.encode(), given_password.encode())]


def _attempt(gate: Gate, mechanism: str, user: str, password: str) -> tuple[bytes, float]:
    """Log in; give the completion, and the seconds it took."""
    with connect(gate.host, gate.port) as wire:
        began = time.monotonic()
        if mechanism == "LOGIN":
            said = authenticate(wire, "LOGIN", given(encoded(user)), given(encoded(password)))
        else:
            said = authenticate(wire, "PLAIN", initial=encoded("", user, password))
        return said, time.monotonic() - began


def _compare(dialogue: Dialogue, questions: list[Question]) -> None:
    """See that the script was asked what the dialogue says."""
    assert len(questions) == len(dialogue["answers"])
    for question in questions:
        assert (question.path, question.query) == ("/auth", {"of": "imap"})
        assert question.headers["X-Auth-Key"] == "k3y"
        for name, value in dialogue.get("question", {}).items():
            if name != "Client-IP":
                assert question.headers.get_all(name, []) == [value.encode().decode("latin-1")] * bool(value)
        assert question.headers["Client-IP"] == "127.0.0.1"


def test_attempts_and_tls(stage: Stage) -> None:
    """The script is told that the client came by TLS, and which of its attempts this is."""
    stage.web.answer = lambda question: Reply(
        headers=["Auth-Status: " + ("OK" if question.headers["Auth-Pass"] == "good" else "no")]
    )
    asked = len(stage.web.questions)
    gate = stage.master
    with connect(gate.host, gate.tls_port, tls_context(gate.certificate)) as wire:
        assert _login(wire, "alice", "bad") == FAILED
        assert _login(wire, "alice", "bad") == FAILED
        wire.login("alice", "good")
    questions = stage.web.questions[asked:]
    assert [question.headers["Auth-Login-Attempt"] for question in questions] == ["1", "2", "3"]
    assert {question.headers["Auth-SSL"] for question in questions} == {"on"}


def test_many_at_once(stage: Stage) -> None:
    """A script that is slow with one user's login holds up no other's."""
    release = threading.Event()

    def answer(question: Question) -> Reply:
        if question.headers["Auth-User"] == "slow":
            release.wait(20)
        return Reply(headers=["Auth-Status: OK"])

    stage.web.answer = answer
    with connect(stage.master.host, stage.master.port) as slow:
        slow.send(b"lo LOGIN slow secret\r\n")
        for number in range(10):
            with connect(stage.master.host, stage.master.port) as wire:
                wire.login(f"quick{number}", "secret")
        assert slow.quiet(0.01)
        release.set()
        assert slow.until_tagged(b"lo")[-1].startswith(b"lo OK ")


def test_a_kept_connection_that_has_gone(stage: Stage) -> None:
    """A script that closes after each answer, without saying so, costs no login."""
    stage.web.answer = lambda question: b"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n"
    for _ in range(5):
        with connect(stage.master.host, stage.master.port) as wire:
            wire.login("alice", "secret")


def test_silence(tmp_path: Path) -> None:
    """A script that says nothing is an outage after its time."""
    with Web(lambda question: None) as web, Recorder() as recorder:
        auth = mastering({"use": "http", "url": web.url(), "timeout": "300ms"})
        upstream = {"endpoints": [f"tcp:127.0.0.1:{recorder.port}"], "tls": "none"}
        with Gate({"home": upstream}, auth=auth) as gate, connect(gate.host, gate.port) as wire:
            assert _login(wire, "alice", "secret").startswith(UNAVAILABLE)
            gate.wait_log("verifier http cannot tell: no answer within 0.3 s")
            assert recorder.of(b"alice") == []


# -- with real servers ------------------------------------------------------------------------------------------------


def test_real_servers(dovecot: Dovecot, other_dovecot: Dovecot, user: NewUser) -> None:
    """Whoever the script says it is, wherever it says, with the password it says: on real Dovecots."""
    here, there = user(dovecot), user(other_dovecot, password="another's")
    at_there = [f"Auth-Server: {there.server.host}", f"Auth-Port: {there.server.port}"]
    as_there = [f"Auth-User: {there.name}", f"Auth-Pass: {there.password}"]
    said: dict[str, list[str]] = {
        here.name: [],
        "alias": [f"Auth-User: {here.name}"],
        "other-password": [f"Auth-User: {here.name}", f"Auth-Pass: {here.password}"],
        "both": [*at_there, *as_there],
        "misled": [*at_there, f"Auth-User: {here.name}"],
    }

    def script(question: Question) -> Reply:
        name = question.headers["Auth-User"]
        return Reply(headers=["Auth-Status: OK", *said[name]] if name in said else ["Auth-Status: no"])

    with Web(script) as web:
        auth = mastering({"use": "http", "url": web.url()})
        upstream = upstream_of(dovecot, "starttls", pool_keep=0)
        with Gate({"home": upstream}, auth=auth, authority=dovecot.authority) as gate:

            def attempt(name: str, password: str) -> bytes:
                with connect(gate.host, gate.port) as wire:
                    answer = _login(wire, name, password)
                    _works(wire, answer)
                    return answer[:20]

            assert attempt("nobody", here.password) == FAILED[:20]
            assert attempt(here.name, here.password).startswith(b"OK ")
            assert attempt("alias", here.password).startswith(b"OK ")
            assert attempt("other-password", "whatever").startswith(b"OK ")
            assert attempt("both", "whatever").startswith(b"OK ")
            assert attempt("misled", here.password).startswith(UNAVAILABLE)  # no such user there
    wait_until(lambda: dovecot.login_count(here.name) == 3, "three logins here")
    wait_until(lambda: other_dovecot.login_count(there.name) == 1, "one login there")
    assert other_dovecot.login_count(here.name) == 0


def _works(wire: Wire, answer: bytes) -> None:
    if answer.startswith(b"OK "):
        wire.ok(b"SELECT INBOX")
        wire.logout()
