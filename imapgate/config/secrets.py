"""Secrets, which stand in files of their own or in the environment: a `Secret` from the moment they are read.

Knows where a secret may come from and what it may hold; must never say what it is, not even where it cannot be used.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from imapgate.config.files import Unusable, private_faults, read_file
from imapgate.config.table import Table, path_in
from imapgate.config.values import Unfit
from imapgate.model.secret import Secret

LONGEST = 4096
"""Octets; no password that the gate sends is longer."""
FORM = f"1 to {LONGEST} octets without control characters"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SECRET = re.compile(rb"[^\x00-\x1f\x7f]{1,%d}" % LONGEST)


def take_secret(table: Table, file_key: str, env_key: str, base: Path) -> Secret | None:
    """Take a secret that stands in the file `file_key` or in the variable `env_key`; None where there is none."""
    file = table.take(file_key, path_in(base), None)
    secret = table.take(env_key, _from_environment, None)
    if file_key in table and env_key in table:
        table.add(env_key, f"given with {file_key}; expected one of the two")
    elif file is not None:
        try:
            secret = _from_file(file)
        except Unusable as error:
            table.add(file_key, str(error))
    return secret


def checked(octets: bytes) -> Secret:
    """Return `octets` as a secret, or raise `Unfit`, which does not say what they were."""
    if not _SECRET.fullmatch(octets):
        raise Unfit(FORM, secret=True)
    return Secret(octets)


def _from_file(file: Path) -> Secret:
    """Read a secret that may have a newline behind it."""
    for fault in private_faults(file):
        raise Unusable(fault)
    octets = read_file(file).removesuffix(b"\n").removesuffix(b"\r")
    try:
        return checked(octets)
    except Unfit as unfit:
        raise Unusable(f"{file}: does not hold {unfit.expected}") from None


def _from_environment(name: object) -> Secret:
    # What is no name may be the secret itself, written in the wrong place.
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name not in os.environ:
        raise Unfit("the name of a variable that is set in the environment", secret=True)
    return checked(os.environb[name.encode()])
