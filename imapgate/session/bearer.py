"""What a client says to log in by a bearer token: OAUTHBEARER (RFC 7628) and XOAUTH2."""

from __future__ import annotations

import base64
import re

from imapgate.model.secret import Credentials, Secret

_AUTH = re.compile(rb"(?:\A|\x01)auth=Bearer +([A-Za-z0-9._~+/-]+=*)(?:\x01|\Z)", re.IGNORECASE)
_OAUTHBEARER = re.compile(rb"[ny],(?:a=([^,\x01]*))?,\x01")
_XOAUTH2 = re.compile(rb"user=([^\x01]*)\x01")

REFUSED = base64.b64encode(b'{"status":"invalid_token"}')
"""What the server says before its NO (RFC 7628 §3.2.2), in base64; the client answers with anything."""


def _saslname(name: bytes) -> bytes:
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")


def oauthbearer(data: bytes) -> Credentials | None:
    """The user that is named, if any, and the token; ``None``: it is no such response."""
    head, token = _OAUTHBEARER.match(data), _AUTH.search(data)
    return None if head is None or token is None else Credentials(_saslname(head[1] or b""), Secret(token[1]))


def xoauth2(data: bytes) -> Credentials | None:
    """The same in Google's older form, which always names a user."""
    head, token = _XOAUTH2.match(data), _AUTH.search(data)
    return None if head is None or token is None else Credentials(head[1], Secret(token[1]))
