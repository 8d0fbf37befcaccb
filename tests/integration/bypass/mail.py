"""What an account holds: mail to change, and mail to hide.

Everything that is hidden bears a mark: the folders' names, their messages, flags, rights and annotations, and how many
messages there are.  Dialogues say the names, but none of the other marks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tests.integration.wire import Wire

HIDDEN = ("Zf7Vault", "Zf7Vault/Zf7Deep", "Zf7Tr&AOk-sor", "Attic/Zf7Box")
PATTERNS = ["Zf7Vault", "Zf7Trésor", "Attic/Zf7Box"]
"""What hides these, and no other."""
_COUNT = 43
_MARKS = re.compile(rb"zf7|canary|\b%d\b" % _COUNT, re.IGNORECASE)


def _message(subject: str, body: str) -> bytes:
    lines = (
        "Date: Mon, 7 Feb 1994 21:52:25 -0800",
        "From: Fred Foobar <foobar@blurdybloop.example>",
        "To: mooch@owatagu.example",
        f"Subject: {subject}",
        f"Message-Id: <{subject.replace(' ', '.')}@owatagu.example>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        body,
    )
    return "\r\n".join((*lines, "")).encode()


_FIRST = _message("afternoon meeting", "Hello Joe, do you think we can meet at 3:30 tomorrow?")
_SECRETS = [_message(f"canary subject {number}", f"the canary sings {number}") for number in range(_COUNT)]
_DATE = b'"17-Jul-1996 02:44:25 -0700"'


def shows(answers: bytes) -> str:
    """What a client was told of the hidden folders; empty: nothing."""
    found = _MARKS.search(answers)
    return "" if found is None else answers[max(0, found.start() - 60) : found.end() + 60].decode("utf-8", "replace")


def ask(wire: Wire, commands: Sequence[bytes]) -> list[bytes]:
    """Send commands one after the other; give all untagged responses, and of what was refused the completion, too."""
    answers = []
    for command in commands:
        *untagged, completion = wire.command(command)
        answers += untagged if completion.split()[1] == b"OK" else [*untagged, completion]
    return answers


def _append(folder: str, flags: bytes, *messages: bytes) -> bytes:
    each = (b" (%b) %b {%d+}\r\n%b" % (flags, _DATE, len(message), message) for message in messages)
    return b'APPEND "%b"' % folder.encode() + b"".join(each)


def _create(*folders: str) -> list[bytes]:
    return [b'CREATE "%b"' % folder.encode() for folder in folders]


_SEEN = [
    *_create("Work", "Work/Sub", "Empty", "Fresh", "Attic"),
    b"SUBSCRIBE Work",
    b"SETACL Work a.friend lr",
    b'SETMETADATA Work (/private/comment "mine")',
    *(_append("INBOX", flags, _FIRST) for flags in (b"\\Seen", b"", b"\\Deleted", b"\\Flagged $Work")),
    *(_append(folder, b"", _FIRST) for folder in ("Work", "Work/Sub", "Fresh")),
    # No longer recent, so that to select a folder changes nothing there; but for Fresh.
    *(b'SELECT "%b"' % folder for folder in (b"INBOX", b"Work", b"Work/Sub")),
    b"UNSELECT",
]
_HIDDEN = [
    *_create(*HIDDEN),
    b"SUBSCRIBE Zf7Vault",
    b"SETACL Zf7Vault canary lr",
    *(b'SETMETADATA "%b" (/private/comment "canary")' % folder.encode() for folder in HIDDEN),
    _append("Zf7Vault", b"$canary", *_SECRETS),
    *(_append(folder, b"$canary", _SECRETS[0]) for folder in HIDDEN[1:]),
    _append(HIDDEN[1], b"", _FIRST),
]


def seed(wire: Wire, *, hidden: bool) -> None:
    """Fill an empty account, with the hidden folders or without."""
    refused = [answer for answer in ask(wire, _SEEN + _HIDDEN * hidden) if not answer.startswith(b"*")]
    assert refused == []
