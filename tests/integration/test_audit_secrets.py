"""A canary password through every way in which a login can fail: it is found nowhere behind the gate (A40)."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.integration.audited import audit, invalid, of, recorded, records, trail_of, whole
from tests.integration.badly import LOGIN
from tests.integration.bed import server_context
from tests.integration.conftest import User, new_user
from tests.integration.ctl import ADMIN, Asked, ctl
from tests.integration.gate import Gate, upstream_of
from tests.integration.sasl import authenticate, bearer, encoded, given, relaying
from tests.integration.scripted import BEFORE, Command, Conversation, Recorder, Script, always
from tests.integration.servers import Dovecot, free_port, wait_until
from tests.integration.test_login_failures import CANARY, _spill, _traces_of_the_canary
from tests.integration.wire import connect, quoted

HERE = "tests.integration.badly"
HOST = "127.0.0.1"
HOOKS = ["session_opened", "tls_started", "route_chosen", "authenticated", "command", "mailbox_selected", "completed"]

VERBS = ["SELECT", "FETCH", "APPEND", "SEARCH"]


class Outlets:
    """Everything outside the gate's own folder where its records and questions go, and what came there."""

    def __init__(self, folder: Path) -> None:
        self.heard = bytearray()
        """What came to the web service and to both sinks."""
        self._closing = ExitStack()
        outlets = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outlets.heard += self.requestline.encode() + bytes(self.headers) + body + b"\n"
                self.send_response(200)
                self.send_header("Content-Length", "23")
                self.end_headers()
                self.wfile.write(b'{"verdict": "continue"}')

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        web = ThreadingHTTPServer((HOST, 0), Handler)
        web.daemon_threads = True
        self.url = f"http://{HOST}:{web.server_port}/hook"
        self._serve(lambda: web.serve_forever(0.02), web.shutdown, web.server_close)
        self._datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._datagrams.bind(str(folder / "log"))
        self._stream = socket.socket(socket.AF_UNIX)
        self._stream.bind(str(folder / "lines"))
        self._stream.listen()
        for receiver in (self._datagrams, self._stream):
            self._serve(
                self._receive if receiver is self._datagrams else self._accept,
                lambda receiver=receiver: receiver.shutdown(socket.SHUT_RDWR),
                receiver.close,
            )
        self.sinks = [
            {"kind": "syslog", "address": f"unix:{folder / 'log'}"},
            {"kind": "unix", "address": f"unix:{folder / 'lines'}"},
        ]

    def _serve(self, run: Any, stop: Any, close: Any) -> None:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def end() -> None:
            with suppress(OSError):
                stop()
            thread.join(5)
            close()

        self._closing.callback(end)

    def _receive(self) -> None:
        while data := self._datagrams.recv(1 << 20):
            self.heard += data + b"\n"

    def _accept(self) -> None:
        with suppress(OSError):
            connection, _ = self._stream.accept()
            while data := connection.recv(1 << 16):
                self.heard += data

    def close(self) -> None:
        """Stop."""
        self._closing.close()


@contextmanager
def leaky(
    folder: Path, upstreams: dict[str, Any], *plugins: dict[str, Any], traced: str = "traced", **tables: Any
) -> Iterator[tuple[Gate, Outlets]]:
    """A gate that tells others all it may; afterwards it is looked for the canary in everything that it has told."""
    outlets = Outlets(folder)
    webhook = {"use": "webhook", "url": outlets.url, "hooks": HOOKS, "verbs": VERBS}
    given = {
        **audit("durable", sink=outlets.sinks, subjects=True, search_criteria="text"),
        "admin": ADMIN,
        "trace": {"user": traced, "file": "gate.trace", "until": "1h"},
        "plugin": [*plugins, webhook],
        "environment": {"IMAPGATE_LOG_LEVEL": "debug"},
        **tables,
    }
    try:
        with Gate(upstreams, **given) as gate:
            with Asked(gate, "trace", traced) as trace:
                yield gate, outlets
                shown = [*_everything_shown(gate)]
                assert gate.stop() == 0
                with suppress(AssertionError):
                    shown.append(str(trace.rows()))
            _check(gate, outlets, shown)
    finally:
        outlets.close()


def _everything_shown(gate: Gate) -> Iterator[str]:
    for what in ("sessions", "pools", "upstreams", "users", "pins", "channels", "stats", "config", "plugins", "audit"):
        yield str(ctl(gate, what))


def _check(gate: Gate, outlets: Outlets, shown: Sequence[str]) -> None:
    trail = trail_of(gate)
    whole(trail)
    assert not invalid(records(trail))
    page = gate.directory / "report.html"
    for words in (["report", str(trail), "--html", str(page)], ["show", str(trail)], ["verify", str(trail)]):
        ran = subprocess.run(
            [sys.executable, "-m", "imapgate", "audit", *words], cwd=gate.directory, capture_output=True, check=True,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "10000"},
        )  # fmt: skip
        shown = [*shown, ran.stdout.decode(), ran.stderr.decode()]
    last = f'"seq":{records(trail)[-1]["seq"]},'.encode()
    wait_until(lambda: last in outlets.heard, "the last record at a sink")
    texts = {str(path): path.read_bytes() for path in gate.directory.rglob("*") if path.is_file()}
    assert {trail.name, page.name, gate.log_file.name} <= {Path(name).name for name in texts}
    texts |= {"outlets": bytes(outlets.heard), "shown": "\n".join(shown).encode()}
    found = {name: _traces_of_the_canary(text.decode("latin-1")) for name, text in texts.items()}
    assert {name: lines for name, lines in found.items() if lines} == {}
    log = gate.log()
    assert "Traceback" not in log
    assert "Unhandled" not in log


def _login(gate: Gate, user: str, password: str = CANARY) -> bytes:
    """Log in; gives all that the client saw, the greeting apart."""
    with connect(gate.host, gate.port) as wire:
        answer = b"".join(wire.command(b"LOGIN " + quoted(user) + b" " + quoted(password)))
        assert CANARY.encode() not in answer
        return answer


# -- every way to log in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
def test_a40_every_login(dovecot: Dovecot, tmp_path: Path, later: bool) -> None:
    """Every mechanism, right, wrong, torn and cut off, while a plugin raises at every step of the login."""
    someone = new_user(dovecot, password=CANARY)
    raiser = {"use": f"{HERE}.Raiser", "hooks": [*LOGIN, "session_opened", "command", "completed"], "later": later}
    raiser |= {"on_error": "open", "failures": 1_000_000}
    upstreams = {"dovecot": upstream_of(dovecot)}
    with leaky(tmp_path, upstreams, raiser, traced=someone.name, authority=dovecot.authority) as (gate, outlets):
        relaying(gate)
        _spill(gate, someone)
        _bearers(gate, someone)
        _work(gate, someone)
        path = trail_of(gate)
        wait_until(lambda: len(of(records(path), "auth.success", user_name=someone.name)) > 1, "the logins")
        assert len(of(records(path), "auth.failure")) > 5
        assert {each["policy.hook"] for each in of(records(path), "plugin.error")} >= set(LOGIN)
        assert b'"hook":"authenticated"' in outlets.heard
    # What is looked for would be found.
    assert _traces_of_the_canary(base64.b64encode(b"\0" + someone.name.encode() + b"\0" + CANARY.encode()).decode())


def _bearers(gate: Gate, user: User) -> None:
    """The canary as a token, which nobody takes."""
    for mechanism in ("XOAUTH2", "OAUTHBEARER"):
        for direct in (True, False):
            with connect(gate.host, gate.port) as wire:
                first = bearer(mechanism, user.name, CANARY + "-token")  # Dovecot would take the password
                answers = [given(b"")] if direct else [given(first), given(b"")]
                answer = authenticate(wire, mechanism, *answers, initial=first if direct else None)
                assert answer.startswith(b"NO "), answer


def _work(gate: Gate, user: User) -> None:
    """Log in with the canary, and do what is recorded and traced."""
    with connect(gate.host, gate.port) as wire:
        wire.login(user.name, user.password)
        wire.command_with_literals(b"APPEND INBOX", b"Subject: hello\r\n\r\ntext")
        wire.ok(b"SELECT INBOX")
        wire.ok(b"FETCH 1 (ENVELOPE BODY[])")
        wire.ok(b"SEARCH SUBJECT hello")
        wire.command(b"LOGIN " + quoted(user.name) + b" " + quoted(CANARY))
        wire.command(b"AUTHENTICATE PLAIN " + encoded("", user.name, CANARY))
        wire.logout()


# -- what upstream does -----------------------------------------------------------------------------------------------

REPEATED = {
    "no": b"%t NO wrong password %b\r\n",
    "bad": b"* NO %b\r\n%t BAD %b\r\n",
    "junk": b"%b what OK\r\n",
    "code": b"%t NO [AUTHENTICATIONFAILED %b] %b\r\n",
    "plus": b"+ %b\r\n",
    "bye": b"* BYE %b\r\n",
    "ok": b"%t OK [CAPABILITY IMAP4rev1 %b] %b\r\n",
}
"""What an upstream answers that repeats what it was told."""


def _closes(talk: Conversation, command: Command) -> None:
    talk.close()


def test_a40_upstreams_in_trouble(tmp_path: Path) -> None:
    """Upstreams that are down, prove nothing, break down in a login, or repeat the password in every kind of answer."""
    scripts = {
        name: Script(answers={b"AUTHENTICATE": always(text.replace(b"%b", CANARY.encode()))})
        for name, text in REPEATED.items()
    }
    scripts["closes"] = Script(answers={b"AUTHENTICATE": _closes})
    scripts["silent"] = Script(answers={b"AUTHENTICATE": lambda talk, command: None})
    scripts["bearer"] = Script(before=BEFORE + b" AUTH=XOAUTH2 AUTH=OAUTHBEARER")
    scripts |= {name: Script() for name in ("clear", "stripped")}
    scripts["good"] = Script(password=CANARY.encode())
    with ExitStack() as stack:
        recorders = {name: stack.enter_context(Recorder(script)) for name, script in scripts.items()}
        recorders["stranger"] = stack.enter_context(
            Recorder(Script(tls="implicit"), context=server_context("localhost", other=True))
        )
        upstreams: dict[str, Any] = {
            name: {"endpoints": [f"tcp:{HOST}:{recorder.port}"], "tls": "none"} for name, recorder in recorders.items()
        }
        upstreams["stranger"] |= {"tls": "implicit", "server_name": "localhost"}
        upstreams["clear"] |= {"tls": "implicit"}
        upstreams["stripped"] |= {"tls": "starttls"}
        upstreams["down"] = {"endpoints": [f"tcp:{HOST}:{free_port()}"], "tls": "none"}
        rules = [{"domain": [f"{name}.example"], "upstream": name} for name in upstreams]
        tables: dict[str, Any] = {
            "routing": {"default": "good", "rule": rules},
            "limits": {"upstream_first_byte": "2s", "connect_try": "2s", "connect_total": "4s"},
        }
        with leaky(tmp_path, upstreams, traced="a@good.example", **tables) as (gate, _):
            for name in upstreams:
                answer = _login(gate, f"a@{name}.example")
                assert answer.startswith(b"w1 OK ") is (name in ("good", "bearer", "ok")), (name, answer)
            assert b" NO [AUTHENTICATIONFAILED]" in _login(gate, "a@good.example", "x" + CANARY)
            path = trail_of(gate)
            wanted = len(upstreams) - 2
            wait_until(lambda: len(of(records(path), "auth.failure")) >= wanted, "the failures")
            reasons = {str(each["reason"]) for each in of(records(path), "auth.failure")}
            assert reasons >= {"credentials", "refused", "tls", "tls-missing", "timed-out", "lost", "protocol"}
        assert CANARY.encode() in recorders["good"].conversations[-1].passwords[-1]
        for name in ("clear", "stripped", "stranger"):
            sent = b"".join(bytes(talk.received) for talk in recorders[name].conversations)
            assert not _traces_of_the_canary(sent.decode("latin-1")), name


# -- what plugins do --------------------------------------------------------------------------------------------------


PLUGINS: dict[str, dict[str, Any]] = {
    "raises": {"use": f"{HERE}.Raiser", "hooks": list(LOGIN)},
    "raises-later": {"use": f"{HERE}.Raiser", "hooks": list(LOGIN), "later": True},
    "threaded": {"use": f"{HERE}.ThreadedRaiser", "hooks": list(LOGIN)},
    "clinging": {"use": f"{HERE}.Clinging", "timeout": "200ms"},
    **{
        f"tells-{how}": {"use": f"{HERE}.Teller", "how": how}
        for how in ("text", "code", "rule", "note", "untagged", "itself", "all", "an-error")
    },
}


@pytest.mark.parametrize("policy", ["closed", "open"])
def test_a40_plugins(tmp_path: Path, policy: str) -> None:
    """Plugins that say the password in exceptions, in junk, at their time-out: the log and the trail do not."""
    common = {"on_error": policy, "on_timeout": policy, "failures": 1_000_000}
    plugins = [{**table, **common, "name": name, "users": [f"{name}@*"]} for name, table in PLUGINS.items()]
    with Recorder() as recorder:
        upstreams = {"main": {"endpoints": [f"tcp:{HOST}:{recorder.port}"], "tls": "none"}}
        with leaky(tmp_path, upstreams, *plugins) as (gate, _):
            for name in PLUGINS:
                answer = _login(gate, f"{name}@example.org")
                assert answer.startswith(b"w1 NO [NOPERM] Refused" if policy == "closed" else b"w1 OK "), (name, answer)
            last = list(PLUGINS)[-1]
            trail = recorded(trail_of(gate), lambda trail: of(trail, "plugin.error", policy_plugin=last))
            errors = of(trail, "plugin.error")
            assert {each["policy.plugin"] for each in errors} == set(PLUGINS)
            if policy == "open":
                raised = {(each["policy.plugin"], each["policy.hook"]) for each in errors}
                assert raised >= {(name, hook) for name in ("raises", "raises-later", "threaded") for hook in LOGIN}
        assert bool(recorder.of(b"clinging@example.org")) is (policy == "open")
