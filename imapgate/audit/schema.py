"""What a record may hold, as a JSON Schema (draft 2020-12) that is shipped with the package."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

VERSION = 1
"""Raised by each change after which a reader of older records might be wrong; fields may be added without."""


def schema() -> dict[str, Any]:
    """Return the schema of one record."""
    loaded: dict[str, Any] = json.loads(files("imapgate.audit").joinpath("schema.json").read_bytes())
    return loaded
