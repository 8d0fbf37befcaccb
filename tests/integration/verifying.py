"""What a gate with `auth.mode = "master"` is configured with: verifiers, and the right to log in as anybody."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bcrypt

MASTER, MASTER_PASSWORD = "gate", "master's password"
"""The master user of the fixture `other_dovecot`."""


def private(path: Path, text: str) -> Path:
    """Write a file that only its owner can read."""
    path.touch(0o600)
    path.write_text(text)
    return path


def htpasswd(path: Path, passwords: Mapping[str, str], rounds: int = 4) -> dict[str, Any]:
    """Write a password file; give the verifier that reads it."""
    lines = [
        f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds)).decode()}\n"
        for user, password in passwords.items()
    ]
    path.write_text("".join(lines))
    return {"use": "htpasswd", "file": path}


def as_master(
    folder: Path, method: str = "dovecot", user: str = MASTER, password: str = MASTER_PASSWORD
) -> dict[str, Any]:
    """Give the `master` table of an upstream that knows this master user."""
    return {"method": method, "user": user, "password_file": private(folder / f"{user}.secret", password)}


def mastering(*verifiers: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Give the `auth` table with these verifiers, in order."""
    return {"mode": "master", "verifier": list(verifiers), **more}
