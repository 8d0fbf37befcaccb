"""Commands as the gate would make them of what a client sends, for plugins to judge."""

from __future__ import annotations

from imapgate.limits import Limits
from imapgate.model.commands import table
from imapgate.plugins.api import Command, Options, Session
from imapgate.session.intake import Complete, Intake, MessageBegins, Prompt


def command(text: str | bytes) -> Command:
    """Read one command without its tag and its last CRLF; it ends where a message would begin."""
    octets = text if isinstance(text, bytes) else text.encode("utf-8")
    intake = Intake(Limits(), table(["XEXTRA", "UID XEXTRA", "NOTIFY"]))
    intake.authenticated = intake.utf8 = True
    intake.feed(b"a1 " + octets + b"\r\n")
    while isinstance(event := intake.next(), Prompt):
        pass
    assert isinstance(event, Complete | MessageBegins), event
    return Command(event.command, message_size=event.size if isinstance(event, MessageBegins) else 0)


def session(user: str = "alice", address: str = "192.0.2.7", mailbox: str = "") -> Session:
    """Return the session of a user who is logged in."""
    found = Session("s1", address, "imaps")
    found.user, found.mailbox = user, mailbox
    return found


def options(**values: object) -> Options:
    """Return a plugin's options."""
    return Options(values)
