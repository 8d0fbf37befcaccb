"""For how long an upstream connection is one client's: the modes of a pool."""

from __future__ import annotations

from enum import StrEnum


class PoolMode(StrEnum):
    """What a client holds its upstream connection for."""

    SESSION = "session"
    """From login to logout."""
    MAILBOX = "mailbox"
    """While it has a mailbox selected or a command in flight."""
