"""SELECT made into EXAMINE."""

from __future__ import annotations

from imapgate.plugins.api import Command, Replace


def examining(command: Command, rule: str) -> Replace:
    """Put EXAMINE in a SELECT's place, with the arguments that it has."""
    arguments = (
        part if isinstance(part, bytes) else b"{%d}\r\n%b" % (len(part.content), part.content)
        for part in command.command.parts
    )
    return Replace(b"EXAMINE" + b"".join(arguments), rule)
