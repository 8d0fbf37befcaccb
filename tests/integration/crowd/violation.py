"""The one way in which the crowd objects."""

from __future__ import annotations


class Violation(AssertionError):
    """A client was told what it cannot have been told, or its picture is not what the server holds."""


def shown(data: bytes) -> str:
    """Octets as text for a person; of long ones the begin and the end."""
    text = repr(data)[2:-1]
    return text if len(text) <= 500 else f"{text[:300]} … {text[-150:]}"
