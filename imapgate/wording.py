"""How an error tells a value that was given.  Knows nothing of what it was for."""

from __future__ import annotations

import json
from collections.abc import Mapping

_SHOWN = 60


def shown(value: object) -> str:
    """Return `value` as TOML would have it, short and without control characters."""
    match value:
        case str():
            # JSON's escapes keep a terminal, and a log, in one piece.
            text = json.dumps(value[:_SHOWN])
            return text if len(value) <= _SHOWN else f"{text}…"
        case bool():
            return "true" if value else "false"
        case int() if value.bit_length() > 64:  # beyond 4,300 digits Python refuses to print it
            return "a number of more than 64 bits"
        case Mapping():
            return "a table"
        case list():
            return "a list"
    return str(value)
