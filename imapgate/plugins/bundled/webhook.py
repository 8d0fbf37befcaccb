"""A web service gives the verdict: a POST of JSON, and JSON for an answer (the extra ``webhook``: treq).

Knows how a hook is told and how a verdict is written.  It never tells a password or a message's content, keeps no
cookie and follows no redirection.  What a verdict means is the gate's affair, and so are the time an answer may
take and what becomes of none (``timeout``, ``on_timeout``, ``on_error``).

A question::

    {"hook": "command", "session": {"user": "alice", "address": "192.0.2.7", …},
     "command": {"verb": "UID MOVE", "mailboxes": ["Trash"], "sequence": "1:5", …}}

An answer is one of::

    {"verdict": "continue", "notes": {"ticket": 7}}
    {"verdict": "reject", "code": "NOPERM", "text": "Not today", "rule": "holidays"}
    {"verdict": "replace", "line": "EXAMINE INBOX", "rule": "…"}
    {"verdict": "answer", "untagged": ["STATUS x (MESSAGES 0)"], "completion": "OK", "code": "", "text": "Done"}
    {"verdict": "disconnect", "text": "Goodbye", "rule": "…"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from imapgate.plugins.api import (
    Annotate,
    Answer,
    Command,
    Completion,
    Disconnect,
    Event,
    Interests,
    Mailbox,
    Message,
    Options,
    Plugin,
    Reject,
    Replace,
    Route,
    Session,
    Verdict,
)
from imapgate.plugins.bundled._addresses import is_here
from imapgate.plugins.bundled._proof import Proof, certificates

_EVENTS = {
    "session_opened": Event.OPENED,
    "tls_started": Event.TLS,
    "route_chosen": Event.ROUTED,
    "authenticated": Event.AUTHENTICATED,
    "mailbox_selected": Event.SELECTED,
}
_HOOKS = (*_EVENTS, "command", "message_begins", "completed")
_ANSWER_MOST = 64 << 10
_FIELDS: Mapping[str, Mapping[str, type]] = {
    "continue": {"notes": dict},
    "reject": {"code": str, "text": str, "rule": str},
    "replace": {"line": str, "rule": str},
    "answer": {"untagged": list, "completion": str, "code": str, "text": str},
    "disconnect": {"text": str, "rule": str},
}


class HookFailed(Exception):
    """There is no answer, or it is none; the text repeats nothing of it."""


class Webhook(Plugin):
    """The plugin ``webhook``; options ``url``, ``hooks``, ``verbs``, ``ca`` and ``allow_plaintext``.

    ``hooks`` are what is asked about, else ``command``; ``verbs`` the commands, else all of them.

    :ivar client: asks the service; there from :meth:`start` on
    """

    def __init__(self, options: Options) -> None:
        self._url = _url(options)
        self._trusted = _trusted(options)
        self.interests = _interests(options)

    def start(self, clock: Any) -> None:
        """Learn what connects."""
        self._reactor = clock
        cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self.client = HTTPClient(Agent(clock, Proof(self._trusted)), cookies, _Question)  # type: ignore[arg-type]

    async def session_opened(self, session: Session) -> Verdict | None:
        """Ask, as all that follow do."""
        return await self._ask("session_opened", session)

    async def tls_started(self, session: Session) -> Verdict | None:
        """Ask."""
        return await self._ask("tls_started", session)

    async def route_chosen(self, session: Session, route: Route) -> Verdict | None:
        """Ask."""
        return await self._ask("route_chosen", session, route=route._asdict())

    async def authenticated(self, session: Session) -> Verdict | None:
        """Ask."""
        return await self._ask("authenticated", session)

    async def command(self, session: Session, command: Command) -> Verdict | None:
        """Ask."""
        return await self._ask("command", session, command=_command(command))

    async def message_begins(self, session: Session, command: Command, message: Message) -> Verdict | None:
        """Ask."""
        return await self._ask("message_begins", session, command=_command(command), message=message._asdict())

    async def mailbox_selected(self, session: Session, mailbox: Mailbox) -> Verdict | None:
        """Ask."""
        return await self._ask("mailbox_selected", session, mailbox=mailbox._asdict())

    async def completed(self, session: Session, command: Command, completion: Completion) -> Verdict | None:
        """Ask."""
        return await self._ask("completed", session, command=_command(command), completion=completion._asdict())

    async def _ask(self, hook: str, session: Session, **rest: Mapping[str, Any]) -> Verdict | None:
        question: dict[str, Any] = {"hook": hook, "session": _session(session), **rest}
        response = await self.client.request(
            "POST", self._url, json=question, allow_redirects=False, unbuffered=True, reactor=self._reactor
        )
        body = _Body()
        response.deliverBody(body)
        octets = await body.whole
        if response.code != 200:
            raise HookFailed(f"the HTTP status is {response.code}")
        try:
            said = json.loads(octets)
        except ValueError:
            raise HookFailed("the answer is no JSON") from None
        return _verdict(said)


@implementer(IBodyProducer)
class _Question:
    """The octets of a question, written at once."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.length = len(octets)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write all of it."""
        consumer.write(self._octets)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing is left to wait."""

    resumeProducing = stopProducing = pauseProducing


class _Body(Protocol):
    """Collects an answer; whoever gives it up closes the connection."""

    transport: Any

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred(lambda _: self.transport.loseConnection())
        self._octets = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Take a part, as long as it is not too much."""
        self._octets += data
        if len(self._octets) > _ANSWER_MOST and not self.whole.called:
            self.whole.errback(HookFailed(f"the answer is longer than {_ANSWER_MOST} octets"))
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is whole, or cut off."""
        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):  # the latter: ended by closing, as HTTP/1.0 does
            self.whole.callback(bytes(self._octets))
        else:
            self.whole.errback(HookFailed("the answer was cut off"))


# Questions -----------------------------------------------------------------------------------------------------------


def _session(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "address": session.address,
        "listener": session.listener,
        "server_name": session.server_name,
        "tls": session.tls,
        "user": session.user,
        "upstream": session.upstream,
        "client_id": dict(session.client_id),
        "mailbox": session.mailbox,
        "read_only": session.read_only,
    }


def _command(command: Command) -> dict[str, Any]:
    """What a command says, but for what is searched for and what is written."""
    return {
        "verb": command.verb,
        "mailboxes": command.mailboxes,
        "patterns": command.patterns,
        "destination": command.destination,
        "sequence": command.sequence.decode("ascii", "backslashreplace"),
        "items": command.items,
        "store": None if command.store is None else command.store._asdict(),
        "flags": command.flags,
        "message_size": command.message_size,
    }


# Answers -------------------------------------------------------------------------------------------------------------


def _verdict(said: object) -> Verdict | None:
    """What an answer means; of a value that is missing, the verdict's own default holds.

    :raise HookFailed: it is no verdict, or says what no verdict of its kind can.
    """
    if not isinstance(said, dict) or not isinstance(said.get("verdict"), str) or said["verdict"] not in _FIELDS:
        raise HookFailed(f"the answer is no verdict; expected one of {', '.join(_FIELDS)}")
    kind = said.pop("verdict")
    fields = _FIELDS[kind]
    for name, value in said.items():
        if name not in fields:
            raise HookFailed(f"the verdict {kind} has a field that it cannot have; expected {', '.join(fields)}")
        if not isinstance(value, fields[name]):
            raise HookFailed(f"{name} of the verdict {kind} is of another type; expected {fields[name].__name__}")
    match kind:
        case "continue":
            return _notes(said.get("notes", {}))
        case "reject":
            return Reject(**said)
        case "replace":
            if said.get("line"):
                return Replace(said.pop("line").encode(), **said)
            raise HookFailed("the verdict replace has no line")
        case "answer":
            lines = said.pop("untagged", [])
            if all(isinstance(line, str) for line in lines):
                return Answer(tuple(line.encode() for line in lines), **said)
            raise HookFailed("untagged of the verdict answer is of another type; expected strings")
    return Disconnect(**said)


def _notes(notes: Mapping[str, object]) -> Annotate | None:
    fields = {name: value for name, value in notes.items() if isinstance(value, str | int)}
    if len(fields) < len(notes):
        raise HookFailed("a note is of another type; expected a string, a whole number, true or false")
    return Annotate(fields) if fields else None


# Options -------------------------------------------------------------------------------------------------------------


def _url(options: Options) -> str:
    """Where to ask; what users do leaves this machine unencrypted only where that is said."""
    value = options.text("url")
    plaintext = options.flag("allow_plaintext", False)
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and parts.username is None
    except ValueError:
        usable = False
    if not usable or not value.isascii() or " " in value:
        raise options.fault("url", 'expected a URL such as "https://hooks.example.org/imap", without user and password')
    if parts.scheme == "http" and not plaintext and not is_here(parts.hostname or ""):
        raise options.fault(
            "url", "what users do would leave this machine unencrypted; if that is meant, set allow_plaintext = true"
        )
    return value


def _trusted(options: Options) -> list[Certificate]:
    """The certificates of a file; none: the system's are trusted."""
    path = options.path("ca", Path())
    if path == Path():
        return []
    try:
        return certificates(path.read_bytes())
    except (OSError, ValueError):
        raise options.fault("ca", "expected a file of PEM certificates that can be read") from None


def _interests(options: Options) -> Interests:
    hooks = frozenset(options.texts("hooks", ("command",)))
    if not hooks or hooks - frozenset(_HOOKS):
        raise options.fault("hooks", f"expected some of {', '.join(_HOOKS)}")
    named = frozenset(verb.upper() for verb in options.texts("verbs"))
    verbs = named if "verbs" in options else None
    if "completed" in hooks and not verbs:
        raise options.fault("verbs", "missing; expected the commands whose completion is asked about")
    return Interests(
        verbs=verbs if "command" in hooks else frozenset(),
        completions=(verbs or frozenset()) if "completed" in hooks else frozenset(),
        message=int("message_begins" in hooks),
        events=frozenset(event for hook, event in _EVENTS.items() if hook in hooks),
    )


PLUGIN = Webhook
