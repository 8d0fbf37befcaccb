"""As whom a client goes upstream, in mode ``pass``: as itself, with what it gave, or not at all."""

from __future__ import annotations

import re

from imapgate.model.secret import Credentials

_USER = re.compile(r"[\w.\-@+=*%&'/!#$~^|:\\]+\Z")
"""THREATS A38: letters and digits of every script, and the signs that user names are made of."""

_PASSWORD_MOST = 4096


def admissible(credentials: Credentials, longest: int) -> bool:
    """Tell whether these credentials may be shown to an upstream server.

    A foreign authorisation identity never may (some servers accept it unchecked), nor a user name of
    more than ``longest`` octets or with characters that no user name has, nor a password that is empty
    (RFC 4616 §2; a directory may take it for an anonymous bind) or holds a NUL.
    """
    user, password, authorisation = credentials
    if len(user) > longest or authorisation not in (b"", user):
        return False
    try:
        name = user.decode()
    except UnicodeDecodeError:
        return False
    secret = password.reveal()
    return _USER.match(name) is not None and b"\0" not in secret and 0 < len(secret) <= _PASSWORD_MOST
