"""Who may see which folder, and who may change it.

Knows the commands and responses that name folders, and under how many names a server may know one folder.  What
names a hidden folder, or cannot be understood, is refused.  It must not know which folders there are: it judges
names alone.

Rules are looked at in order, and the first whose users and folders fit decides.  Patterns are for decoded names;
``*`` stands for separators, too.  A rule that takes access away is strict: it also fits what lies below a folder
(but for INBOX), a name in another case, and the other names that servers have for one folder: with and without
``INBOX.`` or ``INBOX/`` in front, and behind ``user/…``, ``Other Users/…`` and the like.  A rule that gives access
fits the name as it is.  A folder in which a server shows the messages of others is a folder of its own: it needs a
rule, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from enum import IntEnum
from fnmatch import fnmatchcase, translate
from functools import lru_cache
from typing import NamedTuple

from imapgate.plugins.api import (
    Command,
    Completion,
    Interests,
    Message,
    Options,
    Plugin,
    Reject,
    Response,
    Session,
    Verdict,
)
from imapgate.plugins.bundled._examining import examining

_NAMING_NONE = frozenset([
    "CAPABILITY", "NOOP", "LOGOUT", "ID", "LIST", "LSUB", "XLIST", "NAMESPACE", "ENABLE", "IDLE", "CANCELUPDATE",
    "CHECK", "CLOSE", "UNSELECT", "SEARCH", "SORT", "THREAD", "FETCH",
])  # fmt: skip
"""Commands that name no folder and change none.  What LIST and its like answer is looked at, and CLOSE expunges
nothing where EXAMINE has opened the folder."""
_READING = frozenset([
    "SELECT", "EXAMINE", "STATUS", "SUBSCRIBE", "UNSUBSCRIBE", "GETQUOTA", "GETQUOTAROOT", "GETACL", "LISTRIGHTS",
    "MYRIGHTS", "GETMETADATA", "GETANNOTATION", "COPY", "ESEARCH",
])  # fmt: skip
_CHANGING = frozenset([
    "CREATE", "DELETE", "RENAME", "APPEND", "SETQUOTA", "SETACL", "DELETEACL", "SETMETADATA", "SETANNOTATION",
])  # fmt: skip
"""Commands that change the folders that they name."""
_CHANGING_SELECTED = frozenset(["STORE", "EXPUNGE", "MOVE", "REPLACE"])
_KNOWN = _READING | _CHANGING | _CHANGING_SELECTED
_NEW = frozenset(["CREATE", "RENAME"])
_RESPONSES = frozenset([
    "LIST", "LSUB", "XLIST", "SCAN", "STATUS", "ESEARCH", "METADATA", "ANNOTATION", "ACL", "MYRIGHTS", "LISTRIGHTS",
    "QUOTAROOT",
])  # fmt: skip
_HERE: tuple[list[bytes], ...] = ([], [b"IN", b"(", b"SELECTED", b")"], [b"IN", b"(", b"SELECTED-DELAYED", b")"])
"""How ESEARCH says that it searches the selected folder only."""
_ITEM = re.compile(
    r"UID|FLAGS|INTERNALDATE|SAVEDATE|MODSEQ|ENVELOPE|BODY.*|BINARY.*|RFC822.*|EMAILID|THREADID|PREVIEW|SNIPPET|LAZY|FUZZY"
    r"|ANNOTATION|/.*|(?:VALUE|SIZE)(?:\..*)?"
)
"""What FETCH may be asked for.  Others name folders: Cyrus's MAILBOXES, Gmail's X-GM-LABELS, Dovecot's X-MAILBOX."""

_PARTS_MOST = 64
_LENGTH_MOST = 1000
_ASKED_MOST = 200
_SEPARATOR = re.compile(r"[/.]")
_SEPARATORS = re.compile(r"([/.])[/.]+")
_ELSEWHERE = re.compile(r"(?:inbox|user|other users|shared|public|deleted)[/.]|[/~#.]")
"""How a name may begin that is another name of a folder."""
_INBOX = re.compile(r"inbox(?=[/.]|\Z)", re.IGNORECASE)
_WILDCARD = re.compile(r"[*?\[]")


class _Access(IntEnum):
    NONE = 0
    READ = 1
    FULL = 2


_ACCESSES = ("none", "read", "full")


class _Rule(NamedTuple):
    name: str
    users: tuple[str, ...]
    folders: tuple[str, ...]
    access: _Access
    exact: re.Pattern[str]
    """The folders, as they are written."""
    folded: re.Pattern[str]
    """The same for names in :func:`_folded`."""


class FolderAcl(Plugin):
    """The plugin ``folder_acl``; options ``rules`` (tables) and ``default``: ``full``, ``read`` or ``none``.

    A rule has ``users`` and ``folders``, patterns, and ``access``; ``name`` is for the audit trail.
    """

    def __init__(self, options: Options) -> None:
        self._rules = [_rule(number, table) for number, table in enumerate(options.tables("rules"), 1)]
        self._default = _Access(_ACCESSES.index(options.choice("default", _ACCESSES, "full")))
        self._access = lru_cache(4096)(self._decide)
        self._unrestricted = lru_cache(4096)(self._sees_everything)
        self.interests = Interests(
            verbs=None, responses=_RESPONSES, completions=frozenset(["SELECT", "EXAMINE"]), message=1
        )

    def command(self, session: Session, command: Command) -> Verdict | None:
        """Refuse what names a folder that its user may not see, or change, and what is not understood."""
        name = command.name
        if self._unrestricted(session.user):
            return None
        if name == "FETCH" and not all(_ITEM.fullmatch(item) for item in command.items):
            return Reject("NOPERM", "What is to be fetched is not known here", "not understood")
        if name in _NAMING_NONE:
            return None
        if name in _CHANGING_SELECTED and (refused := self._selected_refused(session)) is not None:
            return refused
        if name not in _KNOWN:
            return Reject("NOPERM", f"{command.verb} cannot be used here", "unknown command")
        if _names_unseen(command):
            return Reject("NOPERM", "Only the selected mailbox and plain messages can be used here", "not understood")
        if (refused := self._named_refused(session, command)) is not None:
            return refused
        return self._select(session, command) if name in ("SELECT", "EXAMINE") else None

    def message_begins(self, session: Session, command: Command, message: Message) -> Verdict | None:
        """Look at what stands between the messages of one command."""
        if not self._unrestricted(session.user) and _names_unseen(command):
            return Reject("NOPERM", "Only plain messages can be stored here", "not understood")
        return None

    def untagged(self, session: Session, response: Response) -> Verdict | None:
        """Withhold what speaks of a hidden folder, or of one whose name was not understood."""
        if self._unrestricted(session.user):
            return None
        if response.mailbox:
            access, rule = self._access(session.user, response.mailbox)
            return Reject(rule=rule) if access is _Access.NONE else None
        line = response.line
        understood = b" MAILBOX " not in line.upper() if response.keyword == "ESEARCH" else b'""' in line
        return None if understood else Reject(rule="not understood")

    def completed(self, session: Session, command: Command, completion: Completion) -> None:
        """A SELECT is over, and those that came before it."""
        asked: list[str] = session.state(self).setdefault("asked", [])
        if command.mailboxes[0] in asked:
            del asked[: asked.index(command.mailboxes[0]) + 1]

    def _select(self, session: Session, command: Command) -> Verdict | None:
        """Open a folder that may only be read for reading."""
        asked: list[str] = session.state(self).setdefault("asked", [])
        asked.append(command.mailboxes[0])
        del asked[:-_ASKED_MOST]
        access, rule = self._access(session.user, command.mailboxes[0])
        if command.name == "SELECT" and access is _Access.READ:
            return examining(command, rule)
        return None

    def _selected_refused(self, session: Session) -> Reject | None:
        """Refuse to change the selected folder where that, or one that is being selected, may only be read."""
        for name in (session.mailbox, *session.state(self).get("asked", ())):
            access, rule = self._access(session.user, name)
            if access is not _Access.FULL:
                return Reject("NOPERM", "This mailbox can only be read", rule)
        return None

    def _named_refused(self, session: Session, command: Command) -> Reject | None:
        for place, name in enumerate(_named(command)):
            access, rule = self._access(session.user, name)
            changed = command.name in _CHANGING or name == command.destination
            if access is _Access.NONE or "*" in name or "%" in name:
                if command.name in _NEW and name == command.mailboxes[-1]:
                    return Reject("NOPERM", "This name cannot be used here", rule)
                return Reject("NONEXISTENT", "No such mailbox", rule)
            if changed and access is _Access.READ:
                return Reject("NOPERM", "This mailbox can only be read", rule)
            if command.name == "RENAME" and place == 0 and (below := self._below(session.user, name)):
                return Reject("NOPERM", "This mailbox cannot be renamed here", below)
        return None

    def _sees_everything(self, user: str) -> bool:
        """Whether nothing is hidden from a user, or protected."""
        restricted = any(rule.access is not _Access.FULL and _fits(user, rule.users) for rule in self._rules)
        return self._default is _Access.FULL and not restricted

    def _decide(self, user: str, name: str) -> tuple[_Access, str]:
        """What a user may do with a folder, and the name of the rule that says so."""
        name = _SEPARATORS.sub(r"\1", name).rstrip("/.")
        if not name:  # what belongs to no folder
            return _Access.FULL, "default"
        if len(name) > _LENGTH_MOST or len(_SEPARATOR.findall(name)) > _PARTS_MOST:
            return _Access.NONE, "not understood"
        name = _INBOX.sub("INBOX", name, 1) if _INBOX.match(name) else name
        names = _names(name, user)
        most, limit = _Access.FULL, "default"
        for rule in self._rules:
            if not _fits(user, rule.users):
                continue
            if rule.exact.match(name):
                return min((most, limit), (rule.access, rule.name), key=lambda found: found[0])
            if rule.access < most and any(rule.folded.match(other) for other in names):
                most, limit = rule.access, rule.name
        return min((most, limit), (self._default, "default"), key=lambda found: found[0])

    def _below(self, user: str, name: str) -> str:
        """The name of the rule by which something below a folder may be hidden or protected; empty: none."""
        names = _same(name, user)
        for rule in self._rules:
            if not _fits(user, rule.users):
                continue
            if rule.access is _Access.FULL:
                if any(
                    pattern.endswith("*") and all(fnmatchcase(name + separator, pattern) for separator in "/.")
                    for pattern in rule.folders
                ):
                    return ""
            elif any(_reaches_below(pattern, other) for pattern in rule.folders for other in names):
                return rule.name
        return "" if self._default is _Access.FULL else "default"


def _rule(number: int, table: Options) -> _Rule:
    folders = table.texts("folders", ("*",))
    return _Rule(
        table.text("name", f"rule {number}"),
        tuple(pattern.casefold() for pattern in table.texts("users", ("*",))),
        folders,
        _Access(_ACCESSES.index(table.choice("access", _ACCESSES))),
        _any(folders),
        _any(_folded(pattern) for pattern in folders),
    )


def _any(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern) for pattern in patterns) or r"(?!)")


def _fits(user: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(user.casefold(), pattern) for pattern in patterns)


# Commands ------------------------------------------------------------------------------------------------------------


def _named(command: Command) -> tuple[str, ...]:
    """The folders that a command names, the roots of quotas among them."""
    if command.name in ("GETQUOTA", "SETQUOTA"):
        return (command.tokens[0].value.decode("utf-8", "backslashreplace"),)
    return command.mailboxes


def _names_unseen(command: Command) -> bool:
    """Whether a command may reach folders that :func:`_named` does not have.

    CATENATE is among them even where no URL is in sight: one may come behind the next literal.
    """
    words = [token.value.upper() for token in command.tokens]
    if command.name in ("APPEND", "REPLACE"):
        return b"CATENATE" in words[1 + (command.name == "REPLACE") :]
    if command.name == "ESEARCH":
        sources = words[: words.index(b")") + 1] if words[0] == b"IN" and b")" in words else []
        return sources not in _HERE or b"IN" in words[len(sources) :]
    return command.name in ("GETQUOTA", "SETQUOTA") and b"&" in words[0]


# Names ---------------------------------------------------------------------------------------------------------------


def _folded(name: str) -> str:
    """A name without what servers may not tell apart: case, and ways to write one character."""
    return unicodedata.normalize("NFKC", name).casefold()


def _same(name: str, user: str) -> set[str]:
    """The names, folded, by which a server may know the same folder."""
    name, user = _folded(name), _folded(user)
    found = {name, name.rpartition("@")[0] or name}
    for other in tuple(found):
        if _ELSEWHERE.match(other):
            found.update(other[separator.end() :] for separator in _SEPARATOR.finditer(other))
            found.add(other.lstrip("~#"))
    if len(found) > 1 and any(other.replace("^", ".") in (user, user.partition("@")[0]) for other in found):
        found.add("inbox")
    return found | {f"inbox{separator}{other}" for other in found if not _INBOX.match(other) for separator in "/."}


def _names(name: str, user: str) -> set[str]:
    """The same, with the folders above each; INBOX is above nothing, since servers put everything below it."""
    found = _same(name, user)
    return found.union(*(_above(other) for other in found))


def _above(name: str) -> Iterator[str]:
    above = (name[: separator.start()] for separator in _SEPARATOR.finditer(name))
    return (folder for folder in above if folder != "inbox")


def _reaches_below(pattern: str, name: str) -> bool:
    """Whether a pattern may fit something below a folder."""
    pattern = _folded(pattern)
    wildcard = _WILDCARD.search(pattern)
    fixed = pattern[: wildcard.start()] if wildcard else pattern
    return any(
        fixed.startswith(name + separator) or (wildcard is not None and (name + separator).startswith(fixed))
        for separator in "/."
    )


PLUGIN = FolderAcl
