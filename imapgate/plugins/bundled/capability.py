"""What clients are told that the server can do: some of it hidden, something added.

Knows the names of capabilities and what a client says of itself; not what a capability means.  What is hidden can
be used all the same by a client that tries: ``command_acl`` refuses commands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from imapgate.plugins.api import Interests, Options, Plugin, Session

_NAME = re.compile(r"[A-Z0-9=._+:/-]{1,64}", re.ASCII | re.IGNORECASE)
_NEVER_HIDDEN = "IMAP4REV1"


class Capability(Plugin):
    """The plugin ``capability``; options ``hide`` (patterns), ``add``, ``clients`` and ``versions`` (patterns).

    Where ``clients`` or ``versions`` are given, it is for clients that say by ID that they are one of them.
    """

    interests = Interests(capabilities=True)

    def __init__(self, options: Options) -> None:
        self._hidden = [pattern.upper() for pattern in options.texts("hide")]
        self._added = options.texts("add")
        if wrong := [name for name in self._added if not _NAME.fullmatch(name)]:
            raise options.fault("add", f'expected names of capabilities such as "IDLE"; {wrong[0]!r} is none')
        if not self._hidden and not self._added:
            raise options.fault("hide", "there is nothing to do; expected hide or add")
        self._clients = [pattern.lower() for pattern in options.texts("clients")]
        self._versions = [pattern.lower() for pattern in options.texts("versions")]

    def capabilities(self, session: Session, names: Sequence[str]) -> Sequence[str]:
        """Take away and add; IMAP4rev1 is never taken away, since there would be no IMAP without it."""
        if not self._concerns(session):
            return names
        shown = [name for name in names if name.upper() == _NEVER_HIDDEN or not _fits(name.upper(), self._hidden)]
        present = {name.upper() for name in shown}
        return [*shown, *(name for name in self._added if name.upper() not in present)]

    def _concerns(self, session: Session) -> bool:
        client = session.client_id
        return all(
            not patterns or _fits(client.get(field, "").lower(), patterns)
            for field, patterns in (("name", self._clients), ("version", self._versions))
        )


def _fits(value: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)


PLUGIN = Capability
