"""Writing: canonical strings, and command lines cut where a literal must wait for its ``+``.

What leaves the gate towards an upstream server was put together here; raw client bytes are never
forwarded, save the content of literals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from imapgate.wire.tokens import unescaped

QUOTED_MOST = 1024
"""The longest string, in octets, that is sent quoted; real servers choke on much longer ones."""

_QUOTABLE = re.compile(rb"[ -~]*\Z")
_SPECIAL = re.compile(rb'["\\]')
_QUOTED = re.compile(rb'"(?:[^"\\]|\\["\\])*+"')


class Literal(NamedTuple):
    """An argument that came, or has to go, as a literal; ``binary``: as ``~{n}`` (RFC 3516)."""

    content: bytes
    binary: bool = False


Part = bytes | Literal


def quotable(value: bytes) -> bool:
    """Tell whether ``value`` may stand as a quoted string everywhere: printable ASCII, not long."""
    return len(value) <= QUOTED_MOST and _QUOTABLE.match(value) is not None


def quoted(value: bytes) -> bytes:
    """``value`` as a quoted string (RFC 3501 §4.3)."""
    if b'"' in value or b"\\" in value:
        value = _SPECIAL.sub(rb"\\\g<0>", value)
    return b'"%b"' % value


def string(value: bytes) -> Part:
    """``value`` as a string argument: quoted where that is safe, else a literal."""
    return quoted(value) if quotable(value) else Literal(value)


def parts_of(text: bytes) -> list[Part]:
    """Validated argument text as parts: itself, with any quoted string that is too long made a literal."""
    if len(text) <= QUOTED_MOST or b'"' not in text:
        return [text] if text else []
    parts: list[Part] = []
    done = 0
    for found in _QUOTED.finditer(text):
        value = unescaped(found[0][1:-1])
        if len(value) > QUOTED_MOST:
            parts += [text[done : found.start()], Literal(value)]
            done = found.end()
    parts.append(text[done:])
    return parts


def segments(parts: tuple[Part, ...] | list[Part]) -> list[bytes]:
    """Join the parts of a command into the pieces that may be sent at once.

    Every piece but the last ends in the announcement of a synchronising literal, and the next begins
    with its content: send it only when the server has asked for it by ``+``.
    """
    pieces: list[bytes] = []
    current: list[bytes] = []
    for part in parts:
        if not isinstance(part, Literal):
            current.append(part)
        elif not part.binary and quotable(part.content):
            current.append(quoted(part.content))
        else:
            current.append(b"%b{%d}\r\n" % (b"~" if part.binary else b"", len(part.content)))
            pieces.append(b"".join(current))
            current = [part.content]
    current.append(b"\r\n")
    pieces.append(b"".join(current))
    return pieces


def redacted(parts: Iterable[Part]) -> bytes:
    """A command's arguments with no literal's content, for a trace."""
    return b"".join(b"{%d}" % len(part.content) if isinstance(part, Literal) else part for part in parts)
