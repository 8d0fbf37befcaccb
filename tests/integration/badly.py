"""Plugins that behave badly, for the tests: a gate loads them by dotted paths (``tests.integration.badly.Raiser``).

What they know of a password they say wherever they can.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import deferLater

from imapgate.plugins.api import (
    Annotate,
    Answer,
    Command,
    Completion,
    Credentials,
    Disconnect,
    Event,
    FetchItem,
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
)

FORGED = "x\r\nz9 OK forged"
"""A text that would be a line of its own."""

_STATUS = frozenset(["STATUS"])

JUNK: dict[str, Callable[[], object]] = {
    "a-number": lambda: 42,
    "a-class": lambda: Reject,
    "text": lambda: Reject("", FORGED),
    "text-of-octets": lambda: Reject("", b"x"),  # type: ignore[arg-type]
    "code": lambda: Reject("X] y\r\nz9 OK forged [", "no"),
    "rule": lambda: Reject("", "no", FORGED),
    "bye": lambda: Disconnect(FORGED),
    "untagged": lambda: Answer((b"STATUS x (MESSAGES 0)\r\nz9 OK forged",)),
    "announced": lambda: Answer((b"LIST () NIL {3}",)),
    "completion": lambda: Answer((), "OK forged\r\nz9 OK"),
    "answer-text": lambda: Answer((), "OK", "", FORGED),
    "replaced": lambda: Replace(b"NOOP\r\nz9 DELETE INBOX"),
    "no-command": lambda: Replace(b"NO SUCH COMMAND"),
    "replaced-rule": lambda: Replace(b"STATUS INBOX (MESSAGES)", FORGED),
    "notes": lambda: Annotate({"a\r\nb": 1}),
}
"""Answers that nobody can act on."""


class Faulty(Plugin):
    """Fails at a STATUS of the mailbox whose name is the option ``how``, as long as the file ``trouble`` is there."""

    interests = Interests(verbs=_STATUS)

    def __init__(self, options: Options) -> None:
        self._how = options.text("how")
        self._trouble: Path = options.path("trouble")

    def start(self, clock: Any) -> None:
        """Learn to wait."""
        self._clock = clock

    def command(self, session: Session, command: Command) -> Any:
        """Fail, if this is the moment."""
        if command.mailboxes != (self._how,) or not self._trouble.exists():
            return None
        if self._how in JUNK:
            return JUNK[self._how]()
        return getattr(self, self._how)()

    def raises(self) -> None:
        """Raise what would forge a line of the log."""
        raise RuntimeError(f"boom {FORGED}")

    def exits(self) -> None:
        """Raise what ends a program."""
        raise SystemExit(3)

    def fails(self) -> Deferred[None]:
        """Raise by a Deferred."""
        return fail(RuntimeError(f"boom {FORGED}"))

    async def raises_later(self) -> None:
        """Raise when nobody is on the stack any more."""
        await deferLater(self._clock, 0.001)
        raise RuntimeError(f"boom {FORGED}")

    def hangs(self) -> Deferred[None]:
        """Never answer."""
        return Deferred()

    async def late(self) -> Reject:
        """Answer when nobody waits any more, whatever is said to that."""
        for _ in range(2):
            try:
                await deferLater(self._clock, 0.6)
            except Exception:
                continue
        return Reject("", "far too late")

    def in_turn(self) -> Answer:
        """Misbehave not at all, so that a test sees what that looks like."""
        return Answer((), "OK", "", "in turn")


class Blocking(Faulty):
    """The same in a thread."""

    threaded = True

    def blocks(self) -> None:
        """Stay as long as there is trouble."""
        while self._trouble.exists():
            time.sleep(0.005)

    def coroutine(self) -> Any:
        """Return what has no place in a thread."""
        return self.late()


class Polite(Plugin):
    """Refuses CREATE, and annotates STATUS."""

    interests = Interests(verbs=frozenset(["CREATE", "STATUS"]))

    def command(self, session: Session, command: Command) -> Any:
        """Do what it is there for."""
        if command.verb == "CREATE":
            return Reject("NOPERM", "No new mailboxes", "create")
        return Annotate({"polite": "yes"})


LOGIN = ("credentials", "route_chosen", "authenticated")
"""The hooks of a login."""


class Raiser(Plugin):
    """Raises at the hook that the user's name begins with; at those of a login it says every password it has seen."""

    interests = Interests(
        verbs=None,
        completions=frozenset(["SELECT", "NOOP"]),
        responses=frozenset(["STATUS"]),
        fetch=True,
        message=1 << 20,
        events=frozenset(Event),
        capabilities=True,
    )

    def __init__(self, options: Options) -> None:
        self._hooks = options.texts("hooks", ())
        self._later = options.flag("later", False)
        self._seen = ["nothing"]

    def start(self, clock: Any) -> None:
        """Learn to wait."""
        self._clock = clock

    def _raises(self, hook: str, name: str, *arguments: object) -> Any:
        if not (name.startswith(hook) or hook in self._hooks):
            return None
        error = RuntimeError(hook, *arguments, *(self._seen if hook in LOGIN else ()))
        if self._later:
            return deferLater(self._clock, 0.001, self._raise, error)
        raise error

    def _raise(self, error: Exception) -> None:
        raise error

    def session_opened(self, session: Session) -> Any:
        """Raise, as all that follow may."""
        return self._raises("session_opened", session.user)

    def tls_started(self, session: Session) -> Any:
        """Raise."""
        return self._raises("tls_started", session.user)

    def capabilities(self, session: Session, names: Sequence[str]) -> Sequence[str]:
        """Raise."""
        if session.user.startswith("capabilities") or "capabilities" in self._hooks:
            raise RuntimeError(*names)
        return names

    def credentials(self, session: Session, credentials: Credentials) -> Any:
        """Raise, and remember what nobody should."""
        self._seen.append(credentials.password.reveal().decode("latin-1"))
        return self._raises("credentials", credentials.user.decode(), credentials)

    def route_chosen(self, session: Session, route: Route) -> Any:
        """Raise."""
        return self._raises("route_chosen", route.user, route)

    def authenticated(self, session: Session) -> Any:
        """Raise."""
        return self._raises("authenticated", session.user, session)

    def command(self, session: Session, command: Command) -> Any:
        """Raise."""
        return self._raises("command", session.user, command)

    def message_begins(self, session: Session, command: Command, message: Message) -> Any:
        """Raise."""
        return self._raises("message_begins", session.user)

    def message_chunk(self, session: Session, message: Message, data: bytes) -> Any:
        """Raise."""
        return self._raises("message_chunk", session.user, data)

    def message_ends(self, session: Session, message: Message) -> Any:
        """Raise."""
        return self._raises("message_ends", session.user)

    def mailbox_selected(self, session: Session, mailbox: Mailbox) -> Any:
        """Raise."""
        return self._raises("mailbox_selected", session.user)

    def untagged(self, session: Session, response: Response) -> Any:
        """Raise."""
        return self._raises("untagged", session.user)

    def fetch_item(self, session: Session, item: FetchItem) -> Any:
        """Raise."""
        return self._raises("fetch_item", session.user)

    def completed(self, session: Session, command: Command, completion: Completion) -> Any:
        """Raise."""
        return self._raises("completed", session.user)

    def session_closed(self, session: Session, reason: str) -> Any:
        """Raise."""
        return self._raises("session_closed", session.user)


class ThreadedRaiser(Raiser):
    """The same in a thread."""

    threaded = True


class Teller(Plugin):
    """Answers junk with the password in it; the option ``how`` says where."""

    interests = Interests(events=frozenset([Event.CREDENTIALS]))

    def __init__(self, options: Options) -> None:
        self._how = options.text("how")

    def credentials(self, session: Session, credentials: Credentials) -> Any:
        """Tell."""
        password = credentials.password.reveal().decode("latin-1")
        answers: dict[str, Callable[[], object]] = {
            "text": lambda: Reject("", f"{password}\r\n"),
            "code": lambda: Reject(f"{password} \n"),
            "rule": lambda: Reject("", "no", f"{password}\n"),
            "note": lambda: Annotate({f"{password} ": 1}),
            "untagged": lambda: Answer((password.encode(),)),
            "itself": lambda: password,
            "all": lambda: [credentials, password],
            "an-error": lambda: ValueError(password),
        }
        return answers[self._how]()


class Clinging(Plugin):
    """Never answers about credentials, and raises the password when it is told to stop."""

    interests = Interests(events=frozenset([Event.CREDENTIALS]))

    async def credentials(self, session: Session, credentials: Credentials) -> None:
        """Wait for ever."""
        try:
            await Deferred()
        except BaseException as error:
            raise RuntimeError(credentials.password.reveal()) from error


class Slow(Plugin):
    """Takes its time with everything: every question is answered after up to 5 ms, some at once."""

    interests = Interests(
        verbs=None,
        completions=frozenset(["STATUS", "NOOP", "STORE"]),
        responses=frozenset(["STATUS", "EXISTS", "LIST"]),
        message=1 << 20,
        fetch=True,
        events=frozenset([Event.SELECTED, Event.AUTHENTICATED]),
    )

    def __init__(self, options: Options) -> None:
        self._random = Random(options.number("seed", 1))

    def start(self, clock: Any) -> None:
        """Learn to wait."""
        self._clock = clock

    def command(self, session: Session, command: Command) -> Any:
        """Wait, as all that follow do."""
        return self._wait()

    def authenticated(self, session: Session) -> Any:
        """Wait."""
        return self._wait()

    def message_begins(self, session: Session, command: Command, message: Message) -> Any:
        """Wait."""
        return self._wait()

    def message_chunk(self, session: Session, message: Message, data: bytes) -> Any:
        """Wait."""
        return self._wait()

    def message_ends(self, session: Session, message: Message) -> Any:
        """Wait."""
        return self._wait()

    def mailbox_selected(self, session: Session, mailbox: Mailbox) -> Any:
        """Wait."""
        return self._wait()

    def untagged(self, session: Session, response: Response) -> Any:
        """Wait."""
        return self._wait()

    def fetch_item(self, session: Session, item: FetchItem) -> Any:
        """Wait."""
        return self._wait()

    def completed(self, session: Session, command: Command, completion: Completion) -> Any:
        """Wait."""
        return self._wait()

    def _wait(self) -> Any:
        seconds = self._random.uniform(-0.001, 0.005)
        return deferLater(self._clock, seconds) if seconds > 0 else None
