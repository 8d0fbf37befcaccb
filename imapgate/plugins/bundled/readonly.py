"""Mail that can be read, or put in order, and not be lost.

Knows which commands read, which put in order, and which take something away.  What it does not know it
refuses.  It must not know who the user is: the option ``users``, which every plugin has, says for whom it is.

Levels:

``none``
    Nothing changes.  SELECT becomes EXAMINE, so that reading works as usual and sets no ``\\Seen``.  Since that
    alone protects nothing (one server executes MOVE in an EXAMINEd mailbox, another stores flags), every command
    that is not known to read is refused as well.  CLOSE passes: no server expunges an EXAMINEd mailbox.
``organise``
    Nothing is taken away: no message from its mailbox, and no mailbox from its place.  Flags may change but for
    ``\\Deleted``, which nobody may set; messages may be copied and stored, mailboxes created and subscribed to.
    CLOSE becomes UNSELECT, which never expunges.
``full``
    Everything passes; the level is there to be named.
"""

from __future__ import annotations

from imapgate.plugins.api import Command, Interests, Message, Options, Plugin, Reject, Replace, Session, Verdict
from imapgate.plugins.bundled._examining import examining

_READING = frozenset([
    "CAPABILITY", "NOOP", "LOGOUT", "ID", "EXAMINE", "LIST", "LSUB", "XLIST", "SCAN", "STATUS", "NAMESPACE", "ENABLE",
    "IDLE", "GETQUOTA", "GETQUOTAROOT", "GETACL", "LISTRIGHTS", "MYRIGHTS", "GETMETADATA", "GETANNOTATION", "ESEARCH",
    "CANCELUPDATE", "CHECK", "UNSELECT", "SEARCH", "SORT", "THREAD", "FETCH",
])  # fmt: skip
"""Commands, without UID, that change nothing in a mailbox that was opened by EXAMINE."""
_ORGANISING = _READING | {"SELECT", "COPY", "CREATE", "SUBSCRIBE", "UNSUBSCRIBE"}
"""Commands, without UID, that take nothing away."""
# Not among them, though they delete nothing at once: RENAME, which moves a mailbox out of its place (and of INBOX
# all messages), MOVE, and SETMETADATA and SETANNOTATION, by which one server can be told to expire messages.

_TEXTS = {"none": "Mail can only be read here", "organise": "Mail can be put in order here, not be taken away"}


class ReadOnly(Plugin):
    """The plugin ``readonly``; option ``level``: ``none``, ``organise`` or ``full``."""

    def __init__(self, options: Options) -> None:
        self._level = options.choice("level", ("none", "organise", "full"), "none")
        if self._level == "none":
            self.interests = Interests(verbs=None)
        elif self._level == "organise":
            self.interests = Interests(verbs=None, message=1)  # the flags of a second message come with it

    def command(self, session: Session, command: Command) -> Verdict | None:
        """Let pass what is known to do no harm."""
        if self._level == "none":
            if command.verb == "SELECT":
                return examining(command, self._level)
            return None if command.name in _READING or command.verb == "CLOSE" else self._refused
        if command.verb == "CLOSE":
            return Replace(b"UNSELECT", self._level)
        if command.name == "STORE":
            return None if _keeps_messages(command) else self._refused
        if command.verb == "APPEND":
            return self._refused if _appends_deleted(command) else None
        return None if command.name in _ORGANISING else self._refused

    def message_begins(self, session: Session, command: Command, message: Message) -> Verdict | None:
        """Look at the flags of a command's further messages."""
        return self._refused if _appends_deleted(command) else None

    @property
    def _refused(self) -> Reject:
        return Reject("NOPERM", _TEXTS[self._level], self._level)


def _keeps_messages(command: Command) -> bool:
    """Whether a STORE is understood, and sets no ``\\Deleted``; to take it away does no harm."""
    store = command.store
    return store is not None and (store.sign == "-" or not any(flag.lower() == "\\deleted" for flag in store.flags))


def _appends_deleted(command: Command) -> bool:
    """Whether anything behind the mailbox is the flag ``\\Deleted``, wherever it stands."""
    return any(token.value.lower() == b"\\deleted" for token in command.tokens[1:])


PLUGIN = ReadOnly
