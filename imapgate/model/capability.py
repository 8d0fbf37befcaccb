"""Capabilities: an allow-list, and what the gate shows in an upstream server's place.

Facts from PROTOCOL §3 of the project's notes: what the gate does itself is always replaced by its own,
what cannot hold across it is hidden, and what it does not know is not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_REMEMBERED = 64
"""Lists that are remembered: every session of a server has the same, and a server that varies it fills a few places."""

OWN = (b"LITERAL+", b"SASL-IR", b"ID")
"""What the gate adds whatever upstream has."""

TERMINATED = (b"PLAIN", b"LOGIN")
"""The SASL mechanisms that end at the gate, unless it verifies clients itself."""

_KNOWN = frozenset(
    b"""
    IMAP4 IMAP4rev1 ACL ANNOTATE-EXPERIMENT-1 ANNOTATEMORE APPENDLIMIT BINARY CATENATE CHILDREN CONDSTORE
    CONTEXT=SEARCH CONTEXT=SORT CREATE-SPECIAL-USE ENABLE ESEARCH ESORT FILTERS I18NLEVEL=1 IDLE INPROGRESS
    LIST-EXTENDED LIST-METADATA LIST-MYRIGHTS LIST-STATUS METADATA METADATA-SERVER MOVE MULTIAPPEND MULTISEARCH
    NAMESPACE NO_ATOMIC_RENAME OBJECTID PARTIAL PREVIEW PREVIEW=FUZZY QRESYNC QUOTA QUOTASET REPLACE SAVEDATE SCAN
    SEARCH=FUZZY SEARCHRES SNIPPET=FUZZY SORT SPECIAL-USE STATUS=SIZE UIDPLUS UNSELECT URL-PARTIAL UTF8=ACCEPT
    WITHIN XLIST
    """.split()
)
"""Names of RFCs and of real servers, whose commands are in the command table or that have none."""
_KNOWN_UPPER = frozenset(name.upper() for name in _KNOWN)
_FAMILIES = (
    b"ACL2=", b"APPENDLIMIT=", b"DIGEST=", b"MESSAGELIMIT=", b"QUOTA=", b"RIGHTS=", b"SAVELIMIT=", b"SORT=",
    b"THREAD=",
)  # fmt: skip
"""Capabilities with a value that needs nothing of the gate, whatever it is."""
_NAME = re.compile(rb"[A-Z0-9=._+:/-]{1,64}\Z")
_MECHANISM = re.compile(rb"AUTH=([A-Z0-9_-]{1,20})\Z")

ENABLEABLE = frozenset((b"CONDSTORE", b"QRESYNC", b"UTF8=ACCEPT"))
"""What a client may ENABLE through the gate, where upstream has it."""


@lru_cache(_REMEMBERED)
def parse(text: bytes) -> frozenset[bytes]:
    """The names in ``text`` (what follows ``CAPABILITY``), in upper case."""
    return frozenset(text.upper().split())


def known(name: bytes) -> bool:
    """Tell whether the gate may show this capability of an upstream server to its clients."""
    name = name.upper()
    return name in _KNOWN_UPPER or (name.startswith(_FAMILIES) and _NAME.match(name) is not None)


def mechanisms(capabilities: Iterable[bytes]) -> tuple[bytes, ...]:
    """The SASL mechanisms that may be relayed: all that are offered, save those that bind to the channel.

    Channel binding (``*-PLUS``) cannot hold where TLS ends at the gate (THREATS A10), and what the gate
    terminates is not relayed.
    """
    found = []
    for name in sorted(capabilities):
        match = _MECHANISM.match(name)
        if match and not match[1].endswith(b"-PLUS") and match[1] not in TERMINATED:
            found.append(match[1])
    return tuple(found)


@lru_cache(_REMEMBERED)
def before_login(*, starttls: bool, login: bool, mechanisms: tuple[bytes, ...], command: bool = True) -> bytes:
    """What follows ``CAPABILITY`` before a login.

    :param login: whether one is allowed on this connection; ``command``: by the LOGIN command, too
    """
    names = [b"IMAP4rev1", *OWN]
    if starttls:
        names.append(b"STARTTLS")
    if login:
        names += [b"AUTH=" + mechanism for mechanism in mechanisms]
    if not (login and command):
        names.append(b"LOGINDISABLED")
    return b" ".join(names)


@lru_cache(_REMEMBERED)
def after_login(upstream: bytes) -> bytes:
    """What follows ``CAPABILITY`` after a login, from what upstream said; the order is upstream's."""
    names = [name for name in dict.fromkeys(upstream.split()) if known(name)]
    return b" ".join((*names, *OWN))
