"""Searches that are kept up to date after their completion (RFC 5267): whose tag is whose."""

from __future__ import annotations

from imapgate.model.commands import Command, arguments
from imapgate.wire.writer import string

_MOST = 16  # of one session


class Contexts:
    """The searches of one session whose results go on coming.

    :ivar tags: the client's tag of each, by upstream's
    """

    __slots__ = ("tags",)

    def __init__(self) -> None:
        self.tags: dict[bytes, bytes] = {}

    def note(self, tag: bytes, command: Command) -> None:
        """Remember the tag of a search whose results go on coming."""
        tokens = command.tokens
        if not tokens or tokens[0].value.upper() != b"RETURN":
            return
        if b"UPDATE" in [token.value.upper() for token in tokens[:16]]:
            if len(self.tags) == _MOST:
                del self.tags[next(iter(self.tags))]
            self.tags[tag] = command.tag

    def cancelling(self, command: Command) -> Command:
        """CANCELUPDATE with the tags that upstream knows (RFC 5267 §4.3)."""
        tags = {tag: upstream for upstream, tag in self.tags.items()}
        parts = [part for tag in arguments(command.tokens) for part in (b" ", string(tags.get(tag, tag)))]
        return command._replace(parts=tuple(parts))
