"""The command table: what the gate knows of every verb, and the command as a value.

A verb that is not in the table is answered BAD by the gate; verbs are added here, or by the
``extra_verbs`` of the configuration, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from imapgate.wire.tokens import ATOM, CLOSE, OPEN, Token
from imapgate.wire.writer import Part


class When(Enum):
    """In which state of the connection a command has its place (RFC 3501 §6)."""

    ANY = "any"
    NOT_AUTHENTICATED = "not authenticated"
    AUTHENTICATED = "authenticated"
    SELECTED = "selected"


class Changes(Enum):
    """What a command that succeeds, or fails, does to the state of the connection."""

    NOTHING = "nothing"
    SELECTS = "selects"
    """OK selects a mailbox; NO leaves none selected (RFC 3501 §6.3.1)."""
    DESELECTS = "deselects"


class Rule(NamedTuple):
    """One row of the table.

    ``shape`` names the arguments by kind (see :data:`KINDS`), a last ``...`` standing for any more.
    ``message_after``: a literal behind that many arguments is a message, streamed and never gathered.
    """

    verb: bytes
    when: When
    shape: tuple[str, ...]
    more: bool
    changes: Changes = Changes.NOTHING
    slow: bool = False
    """Upstream may take its time over the first octet of an answer."""
    message_after: int | None = None
    secret: bool = False
    """The arguments are credentials and never shown."""
    pins: bool = False
    """It may change the connection for good, which then can be no other session's."""
    plain: re.Pattern[bytes] | None = None
    """Matches the most usual arguments, whole, as the tokeniser and the shape would: atoms and flat lists.

    It saves a command that nobody has to look at its tokens; rows whose tokens the gate reads have none.
    """


class Command(NamedTuple):
    """A client's command: its tag, its row, its arguments as parts to be written, and as tokens.

    The tokens of arguments that are plain (see :class:`Rule`) are not there: nobody needs them.
    """

    tag: bytes
    rule: Rule
    parts: tuple[Part, ...]
    tokens: tuple[Token, ...]

    def __repr__(self) -> str:
        return f"Command({self.tag!r}, {self.rule.verb!r}, {'…' if self.rule.secret else self.parts!r})"


_NUMBER = rb"(?:[1-9][0-9]{0,9}|\*)"
_RANGE = _NUMBER + rb"(?::" + _NUMBER + rb")?"
_SEQUENCE = re.compile(rb"(?:" + _RANGE + rb"(?:," + _RANGE + rb")*+|\$)\Z")

KINDS = {
    "mailbox": "a mailbox name",
    "string": "a string",
    "sequence": "a sequence set",
    "list": "a list in parentheses",
    "any": "an argument",
}
"""The kinds of argument, with the words for them in an error."""


def _fits(kind: str, token: Token) -> bool:
    """Whether an argument that begins with this token is of this kind."""
    if kind == "any":
        return True
    if token.kind == OPEN:
        return kind == "list"
    if token.kind == ATOM:
        if kind == "sequence":
            return _SEQUENCE.match(token.value) is not None
        # Wider than RFC 3501's astring: real servers take a wildcard or a backslash in a name or a
        # password for itself, and so did their clients.
        return kind != "list"
    return kind in ("mailbox", "string")


def fault(rule: Rule, tokens: Sequence[Token]) -> str | None:
    """Say what is wrong with the arguments of a command; ``None``: nothing that the table knows of."""
    position, end = 0, len(tokens)
    for kind in rule.shape:
        if position == end:
            return f"{rule.verb.decode()}: expected {KINDS[kind]}, found the end of the command"
        if not _fits(kind, tokens[position]):
            return f"{rule.verb.decode()}: expected {KINDS[kind]}"
        if tokens[position].kind == OPEN:
            depth = 1
            while depth and position + 1 < end:  # a message literal may stand inside a list
                position += 1
                depth += (tokens[position].kind == OPEN) - (tokens[position].kind == CLOSE)
        position += 1
    if position < end and not rule.more:
        return f"{rule.verb.decode()}: too many arguments"
    return None


_PLAIN_ATOM = rb"(?:[!#-'*-Z\\^-z|}]|\[[!#-'*-Z\\^-z|}]*+\])++"
_PLAIN_LIST = rb"\((?:" + _PLAIN_ATOM + rb"(?: " + _PLAIN_ATOM + rb")*+)?\)"
_PLAIN_ANY = rb"(?:" + _PLAIN_ATOM + rb"|" + _PLAIN_LIST + rb")"
_PLAIN = {
    "mailbox": _PLAIN_ATOM,
    "string": _PLAIN_ATOM,
    "sequence": _SEQUENCE.pattern.removesuffix(rb"\Z"),
    "list": _PLAIN_LIST,
    "any": _PLAIN_ANY,
}
_READ = frozenset(["ID", "ENABLE", "CANCELUPDATE", "SEARCH", "SORT", "THREAD"])
"""Verbs whose arguments the gate reads, besides those that log in or carry a message."""


def _row(verb: str, when: When, shape: str = "", **rest: object) -> Rule:
    kinds = shape.split()
    more = kinds[-1:] == ["..."]
    named = tuple(kinds[: len(kinds) - more])
    plain = None
    if not rest.keys() & {"secret", "message_after"} and verb.removeprefix("UID ") not in _READ:
        pattern = b" ".join(_PLAIN[kind] for kind in named)
        rest_of_it = rb"(?: " + _PLAIN_ANY + rb")*+" if more else b""
        plain = re.compile(pattern + rest_of_it if named or not more else rb"(?:" + _PLAIN_ANY + rest_of_it + rb")?")
    return Rule(verb.encode(), when, named, more, plain=plain, **rest)  # type: ignore[arg-type]


_ANY, _OUT, _IN, _SELECTED = When.ANY, When.NOT_AUTHENTICATED, When.AUTHENTICATED, When.SELECTED

_ROWS = (
    _row("CAPABILITY", _ANY),
    _row("NOOP", _ANY),
    _row("LOGOUT", _ANY),
    _row("ID", _ANY, "any"),
    _row("STARTTLS", _OUT),
    _row("LOGIN", _OUT, "string string", secret=True),
    _row("AUTHENTICATE", _OUT, "string ...", secret=True),
    _row("SELECT", _IN, "mailbox ...", changes=Changes.SELECTS),
    _row("EXAMINE", _IN, "mailbox ...", changes=Changes.SELECTS),
    _row("CREATE", _IN, "mailbox ..."),
    _row("DELETE", _IN, "mailbox"),
    _row("RENAME", _IN, "mailbox mailbox ..."),
    _row("SUBSCRIBE", _IN, "mailbox"),
    _row("UNSUBSCRIBE", _IN, "mailbox"),
    _row("LIST", _IN, "any any ..."),
    _row("LSUB", _IN, "mailbox any"),
    _row("XLIST", _IN, "mailbox any"),
    _row("SCAN", _IN, "mailbox any string", slow=True),
    _row("STATUS", _IN, "mailbox list"),
    _row("APPEND", _IN, "mailbox any ...", slow=True, message_after=1),
    _row("NAMESPACE", _IN),
    _row("ENABLE", _IN, "any ...", pins=True),
    _row("IDLE", _IN),
    _row("GETQUOTA", _IN, "string"),
    _row("SETQUOTA", _IN, "string list"),
    _row("GETQUOTAROOT", _IN, "mailbox"),
    _row("GETACL", _IN, "mailbox"),
    _row("SETACL", _IN, "mailbox string string"),
    _row("DELETEACL", _IN, "mailbox string"),
    _row("LISTRIGHTS", _IN, "mailbox string"),
    _row("MYRIGHTS", _IN, "mailbox"),
    _row("GETMETADATA", _IN, "any any ..."),
    _row("SETMETADATA", _IN, "mailbox list"),
    _row("GETANNOTATION", _IN, "any any any"),
    _row("SETANNOTATION", _IN, "any any list"),
    _row("ESEARCH", _IN, "any ...", slow=True),
    _row("CANCELUPDATE", _IN, "string ..."),
    _row("CHECK", _SELECTED),
    _row("CLOSE", _SELECTED, changes=Changes.DESELECTS),
    _row("UNSELECT", _SELECTED, changes=Changes.DESELECTS),
    _row("EXPUNGE", _SELECTED, slow=True),
    _row("SEARCH", _SELECTED, "any ...", slow=True),
    _row("SORT", _SELECTED, "any any any ...", slow=True),
    _row("THREAD", _SELECTED, "any any any ...", slow=True),
    _row("FETCH", _SELECTED, "sequence any ...", slow=True),
    _row("STORE", _SELECTED, "sequence any any ..."),
    _row("COPY", _SELECTED, "sequence mailbox", slow=True),
    _row("MOVE", _SELECTED, "sequence mailbox", slow=True),
    _row("REPLACE", _SELECTED, "sequence mailbox any ...", slow=True, message_after=2),
    _row("UID EXPUNGE", _SELECTED, "sequence", slow=True),
    _row("UID SEARCH", _SELECTED, "any ...", slow=True),
    _row("UID SORT", _SELECTED, "any any any ...", slow=True),
    _row("UID THREAD", _SELECTED, "any any any ...", slow=True),
    _row("UID FETCH", _SELECTED, "sequence any ...", slow=True),
    _row("UID STORE", _SELECTED, "sequence any any ..."),
    _row("UID COPY", _SELECTED, "sequence mailbox", slow=True),
    _row("UID MOVE", _SELECTED, "sequence mailbox", slow=True),
    _row("UID REPLACE", _SELECTED, "sequence mailbox any ...", slow=True, message_after=2),
)

Table = dict[bytes, Rule]
COMMANDS: Table = {row.verb: row for row in _ROWS}
"""The commands of RFC 3501 and of the extensions that the gate shows, by verb."""


def table(extra_verbs: Iterable[str] = ()) -> Table:
    """The command table with an operator's ``extra_verbs``: any arguments, passed on when logged in."""
    extra = [_row(verb.upper(), _IN, "...", pins=True) for verb in extra_verbs]
    return {**COMMANDS, **{row.verb: row for row in extra if row.verb not in COMMANDS}}


_PINNING = re.compile(rb"(CONDSTORE|QRESYNC|MODSEQ|CHANGEDSINCE)|RETURN \([^)]*\bUPDATE\b", re.IGNORECASE)
"""RFC 7162 §3.1: whoever names one of these has MODSEQ in all that follows, for as long as the connection lives.
RFC 5267 §4.3: what was searched with UPDATE goes on being told."""


def pins(command: Command) -> str:
    """Why no other session may have the connection after this command; empty: it may."""
    if command.rule.pins:
        return command.rule.verb.decode("ascii")
    for part in command.parts:
        found = _PINNING.search(part if isinstance(part, bytes) else part.content)
        if found is not None:
            return "CONDSTORE" if found[1] else "search context"
    return ""


def arguments(tokens: Sequence[Token]) -> list[bytes]:
    """The values of the arguments of a flat command such as LOGIN or ENABLE."""
    return [token.value for token in tokens if token.kind not in (OPEN, CLOSE)]
