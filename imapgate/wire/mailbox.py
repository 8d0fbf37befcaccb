"""Mailbox names: modified UTF-7, and one spelling for what servers take for one name.

Knows how a name is written (RFC 3501 §5.1.3), and that INBOX is written anyhow (§5.1).  It must not know
which mailboxes there are, nor what separates the levels of a server's names.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64

_SHIFTED = re.compile(r"&([A-Za-z0-9+,]*)-")
_FOREIGN = re.compile(r"&|[^ -~]+")
_INBOX = re.compile(r"inbox(?=[/.]|\Z)", re.IGNORECASE | re.ASCII)


def decoded(raw: bytes) -> str:
    """The name that is written so in modified UTF-7 (RFC 3501 §5.1.3); it never fails.

    It takes more than it should, since some servers do: printable characters that are shifted, shifts that
    follow each other, bits left over.  Octets above 127 are UTF-8.  A shift that never ends, or says
    nothing, stays as it is, and what is no character becomes ``\\xd8``.
    """
    name = raw.decode("utf-8", "backslashreplace")
    return _SHIFTED.sub(_unshifted, name) if "&" in name else name


def _unshifted(shift: re.Match[str]) -> str:
    digits = shift[1]
    if not digits:
        return "&"
    units = len(digits) * 6 // 16 * 2  # octets of whole UTF-16 units
    octets = a2b_base64(digits.replace(",", "/").encode("ascii") + b"A" * (-len(digits) % 4))[:units]
    return octets.decode("utf-16-be", "backslashreplace") or shift[0]


def encoded(name: str) -> bytes:
    """The name in modified UTF-7 (RFC 3501 §5.1.3)."""
    return _FOREIGN.sub(_shifted, name).encode("ascii")


def _shifted(found: re.Match[str]) -> str:
    if found[0] == "&":
        return "&-"
    digits = b2a_base64(found[0].encode("utf-16-be", "surrogatepass"), newline=False).rstrip(b"=")
    return f"&{digits.decode('ascii').replace('/', ',')}-"


def canonical(raw: bytes) -> str:
    """The one spelling of a name: decoded, without separators at its end, INBOX in capitals.

    INBOX is in capitals where it is the whole name, or its first part before ``/`` or ``.``.
    """
    name = decoded(raw).rstrip("/.")
    return "INBOX" + name[5:] if _INBOX.match(name) else name
