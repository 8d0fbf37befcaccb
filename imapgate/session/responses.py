"""A server's lines, made fit for the client: capabilities masked, referrals dropped, tags mapped.

Pure functions from a line to a line.  They see only the lines that a scanner called careful.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from imapgate.model import capability
from imapgate.wire.mailbox import canonical
from imapgate.wire.tokens import unescaped

STATUS = re.compile(rb"(\S+) (OK|NO|BAD|BYE|PREAUTH)\b ?(?:\[([^ \]]+)(?: ([^\]]*))?\])?", re.IGNORECASE)
"""A line with a status: who (tag or ``*``), the status, and the response code with its argument."""

WORD = re.compile(rb"[A-Z0-9.=-]+\Z")
"""What :func:`keyword` finds in any line that a server may send."""

_ENABLED = re.compile(rb"\* ENABLED(?: .*)? UTF8=ACCEPT\b", re.IGNORECASE)
_ESEARCH_TAG = re.compile(rb'\* ESEARCH \(TAG (?:"([^"]+)"|([^ )]+))\)', re.IGNORECASE)
_INPROGRESS = re.compile(rb'\* (?:OK|NO) \[INPROGRESS \("([^"]+)"', re.IGNORECASE)
_CAPABILITY = re.compile(rb"\* CAPABILITY ([^\r\n]*)", re.IGNORECASE)


_NAME = rb'(?:"((?:[^"\\\r\n]|\\.)*)"|\{([0-9]{1,9})\}\r\n|([^ "()\r\n]+))'
_LISTED = re.compile(rb'\* \S+ \([^)]*\) (?:"(?:[^"\\]|\\.)*"|[^ "]+) ' + _NAME, re.IGNORECASE)
_FIRST = re.compile(rb"\* \S+ " + _NAME)
_MAILBOXES = {
    **dict.fromkeys((b"LIST", b"LSUB", b"XLIST"), _LISTED),
    **dict.fromkeys(
        (b"STATUS", b"ACL", b"LISTRIGHTS", b"MYRIGHTS", b"QUOTAROOT", b"METADATA", b"ANNOTATION", b"SCAN"), _FIRST
    ),
    b"ESEARCH": re.compile(rb"\* ESEARCH \([^)]*?MAILBOX " + _NAME, re.IGNORECASE),
}

_CAREFUL = frozenset((b"CAPABILITY", b"REFERRAL", b"INPROGRESS"))


def needs_care(status: re.Match[bytes] | None) -> bool:
    """Whether a line of this status has a response code that the gate has to look at."""
    return status is not None and status[3] is not None and status[3].upper() in _CAREFUL


def keyword(line: bytes) -> bytes:
    """The first word of an untagged line, in upper case."""
    return line[2:].split(b" ", 1)[0].rstrip(b"\r\n").upper()


def _capability_span(line: bytes) -> tuple[int, int] | None:
    found = _CAPABILITY.match(line)
    if found:
        return found.span(1)
    status = STATUS.match(line)
    if status and status[4] is not None and status[3].upper() == b"CAPABILITY":
        return status.span(4)
    return None


def capabilities(line: bytes) -> bytes | None:
    """What an untagged CAPABILITY line, or the code of a status line, says; ``None``: it says nothing of them."""
    span = _capability_span(line)
    return None if span is None else line[span[0] : span[1]]


def masked(line: bytes, shown: Callable[[bytes], bytes] = capability.after_login) -> bytes:
    """A CAPABILITY line, or a status line with its code, as the client may see it."""
    span = _capability_span(line)
    if span is None:
        return line
    return line[: span[0]] + shown(line[span[0] : span[1]]) + line[span[1] :]


def mailbox_of(word: bytes, line: bytes) -> str:
    """The mailbox that an untagged line of this first word speaks of; empty: none that the gate knows of."""
    pattern = _MAILBOXES.get(word)
    found = None if pattern is None else pattern.match(line)
    if found is None:
        return ""
    if found[1] is not None:
        return canonical(unescaped(found[1]))
    if found[2] is not None:
        begin = found.end()
        return canonical(line[begin : begin + int(found[2])])
    return canonical(found[3])


def without_referral(line: bytes) -> bytes:
    """A status line without a REFERRAL code, which would lead the client past the gate (THREATS A6)."""
    status = STATUS.match(line)
    if status and status[3] is not None and status[3].upper() == b"REFERRAL":
        return line[: status.end(2)] + line[status.end() :]
    return line


def enables_utf8(line: bytes) -> bool:
    """Whether this ENABLED line says that UTF8=ACCEPT is on (RFC 6855)."""
    return _ENABLED.match(line) is not None


def with_tag(line: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    """Map the upstream tag inside an ESEARCH line or an INPROGRESS code to the client's own.

    A tag that is not known is left alone: it means nothing to the client either way.
    """
    found = _ESEARCH_TAG.match(line) or _INPROGRESS.match(line)
    if found is None:
        return line
    group = 1 if found[1] is not None else 2
    tag = tags.get(found[group])
    if tag is None:
        return line
    return line[: found.start(group)] + tag + line[found.end(group) :]
