"""What a plugin may say of what passes, and what it wants to be asked: values that the core acts on.

The texts and lines in them are whatever a plugin wrote; who makes octets of them looks at each first.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple


class Continue(NamedTuple):
    """Let it pass; the next plugin is asked."""


class Reject(NamedTuple):
    """Refuse it: a command is answered ``NO [code] text``, a response is not shown.

    :ivar rule: which of the plugin's rules it was, for the audit trail
    """

    code: str = ""
    text: str = "Refused"
    rule: str = ""


class Replace(NamedTuple):
    """Put something else in its place, which is parsed as if the client, or the server, had said it.

    :ivar line: a verb with its arguments, without a tag (``b"EXAMINE INBOX"``); literals stand in it as
        ``{n}``, CRLF and their octets, whatever kind the client used.  Of an untagged response, what
        follows ``* ``.
    """

    line: bytes
    rule: str = ""


class Answer(NamedTuple):
    """Answer a command in the server's place, which never sees it.

    :ivar untagged: lines without ``* `` and without CRLF
    :ivar completion: ``OK``, ``NO`` or ``BAD``
    """

    untagged: tuple[bytes, ...] = ()
    completion: str = "OK"
    code: str = ""
    text: str = "Done"


class Disconnect(NamedTuple):
    """End the session: ``* BYE text``."""

    text: str = "Goodbye"
    rule: str = ""


class Annotate(NamedTuple):
    """Let it pass, and put these fields into the audit record of the command that it belongs to."""

    fields: Mapping[str, str | int | bool]


CONTINUE = Continue()
Verdict = Continue | Reject | Replace | Answer | Disconnect | Annotate


class Event(Enum):
    """What a plugin may want to be told of, verbs and responses apart."""

    OPENED = "session opened"
    TLS = "TLS"
    CREDENTIALS = "credentials"
    ROUTED = "route chosen"
    AUTHENTICATED = "authenticated"
    SELECTED = "mailbox selected"
    CLOSED = "session closed"


class Interests(NamedTuple):
    """What a plugin wants to be asked about; nothing else costs it, or the session, anything.

    :ivar verbs: the commands (upper case, such as ``UID FETCH``); ``None``: all of them.  LOGOUT and what
        comes before a login are never asked about.
    :ivar completions: the commands whose completion it wants to see
    :ivar responses: the first words of untagged responses (upper case; of ``* 3 EXISTS`` it is ``EXISTS``)
    :ivar fetch: it wants to know of every message that a FETCH response speaks of
    :ivar message: it wants to see so many octets of each message that is stored; 0: none of it
    :ivar events: the events
    :ivar capabilities: it changes the list of capabilities
    """

    verbs: frozenset[str] | None = frozenset()
    completions: frozenset[str] = frozenset()
    responses: frozenset[str] = frozenset()
    fetch: bool = False
    message: int = 0
    events: frozenset[Event] = frozenset()
    capabilities: bool = False
