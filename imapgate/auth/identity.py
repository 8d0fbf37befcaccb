"""Which names and credentials are looked at at all: in mode ``pass`` they go upstream as they are."""

from __future__ import annotations

import re

from imapgate.model.secret import Credentials

_USER = re.compile(r"[\w.\-@+=*%&'/!#$~^|:\\]+\Z")
"""THREATS A38: letters and digits of every script, and the signs that user names are made of."""

_PASSWORD_MOST = 4096


def is_user(name: bytes, longest: int) -> bool:
    """Tell whether this may be a user name: UTF-8, of at most ``longest`` octets, with nothing odd in it."""
    if len(name) > longest:
        return False
    try:
        return _USER.match(name.decode()) is not None
    except UnicodeDecodeError:
        return False


def admissible(credentials: Credentials, longest: int) -> bool:
    """Tell whether these credentials may be shown to an upstream server.

    A foreign authorisation identity never may (some servers accept it unchecked), nor a user name of
    more than ``longest`` octets or with characters that no user name has, nor a password that is empty
    (RFC 4616 §2; a directory may take it for an anonymous bind) or holds a NUL.
    """
    user, password, authorisation = credentials
    if authorisation not in (b"", user) or not is_user(user, longest):
        return False
    secret = password.reveal()
    return b"\0" not in secret and 0 < len(secret) <= _PASSWORD_MOST
