"""What a server keeps for a user, read behind the gate's back: by a connection of its own, and from the files.

Dovecot's Maildir tells flags by the names of its files.  Cyrus has its flags in an index, which only Cyrus reads, and
one file for each message.  What opening a folder for reading may rightly move, indexes and caches, is left out.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.integration.bypass.mail import ask
from tests.integration.conftest import User
from tests.integration.servers import Cyrus, Dovecot
from tests.integration.wire import Wire

Store = dict[str, str]
"""What there is -> how it is, such as ``Work/1 flags`` -> ``\\Seen``."""

_FOLDER = re.compile(rb'\* LIST \(([^)]*)\) "/" "?(.*?)"?\r\n')
_MARKED = re.compile(rb" ?\\(?:Un)?Marked", re.IGNORECASE)
"""Whether anything is new in a folder, as far as the server knows just now."""
_TOLD = re.compile(rb"\* OK \[(UIDVALIDITY|UIDNEXT) (\d+)\]")
_FETCH = re.compile(rb"\* \d+ FETCH ")
_UID = re.compile(rb"\bUID (\d+)")
_FLAGS = re.compile(rb"\bFLAGS \(([^)]*)\)")
_MAILBOXID = re.compile(rb"MAILBOXID \(([^)]+)\)")
_KEPT_FILES = frozenset(["subscriptions", "dovecot-acl", "dovecot-keywords", "attributes"])
"""Dovecot's files, besides those of messages, whose contents somebody would miss."""

_LASTING = (" message", " folder", " rights", " annotations")


def read(user: User) -> Store:
    """All that the server keeps for this user."""
    store: Store = {}
    with user.wire() as wire:
        answers = ask(wire, (b'LIST "" *', b'LSUB "" *', b'GETMETADATA "" (/private/comment)', b"GETQUOTAROOT INBOX"))
        folders = [found for answer in answers if (found := _FOLDER.match(answer))]
        store["the account"] = _text(sorted(answer for answer in answers if not _FOLDER.match(answer)))
        for attributes, folder in (found.groups() for found in folders):
            store[f"{folder.decode()} attributes"] = _MARKED.sub(b"", attributes).decode()
            store.update(_folder(wire, folder, is_cyrus=isinstance(user.server, Cyrus)))
            if isinstance(user.server, Cyrus):
                store.update(_cyrus_files(user.server, wire, folder))
    if isinstance(user.server, Dovecot):
        store.update(_dovecot_files(user.server.maildir(user.name).parent))
    return store


def _folder(wire: Wire, folder: bytes, *, is_cyrus: bool) -> Iterator[tuple[str, str]]:
    """Everything in one folder; of one that may not be looked at, who says so."""
    name = folder.decode()
    answers = ask(
        wire,
        (
            b'EXAMINE "%b"' % folder,
            b"UID FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[]%b)" % (b" ANNOTATION (/comment value)" * is_cyrus),
            b'GETMETADATA "%b" (/private/comment%b)' % (folder, b" /shared/vendor/cmu/cyrus-imapd/expire" * is_cyrus),
            b'GETACL "%b"' % folder,
        ),
    )
    told = dict(_TOLD.findall(b"".join(answers)))
    yield f"{name} folder", told.get(b"UIDVALIDITY", b"not opened").decode()
    yield f"{name} next", told.get(b"UIDNEXT", b"not opened").decode()
    yield f"{name} rights", _text(answer for answer in answers if answer.startswith(b"* ACL"))
    yield f"{name} annotations", _text(answer for answer in answers if answer.startswith(b"* METADATA"))
    messages = [answer for answer in answers if _FETCH.match(answer)]
    for response in messages:
        uid, flags = _UID.search(response), _FLAGS.search(response)
        assert uid is not None, response
        assert flags is not None, response
        message = f"{name}/{int(uid[1])}"
        yield f"{message} flags", b" ".join(sorted(flags[1].split())).decode()
        what_stays = _FLAGS.sub(b"", response, 1).split(b"(", 1)[1]
        yield f"{message} message", hashlib.sha256(what_stays).hexdigest()[:16]


def _text(lines: Iterable[bytes]) -> str:
    return b"".join(lines).decode("utf-8", "backslashreplace")


def _cyrus_files(server: Cyrus, wire: Wire, folder: bytes) -> Iterator[tuple[str, str]]:
    if found := _MAILBOXID.search(b"".join(ask(wire, [b'STATUS "%b" (MAILBOXID)' % folder]))):
        mailbox = found[1].decode()
        files = (server.directory / "mail" / "uuid" / mailbox[0] / mailbox[1] / mailbox).glob("*.")
        yield f"{folder.decode()} files", " ".join(sorted(path.name for path in files))


def _dovecot_files(home: Path) -> Iterator[tuple[str, str]]:
    for folder, _, names in os.walk(home):
        directory = Path(folder)
        where = directory.relative_to(home)
        if directory.name in ("cur", "new", "tmp"):
            yield f"{where} files", " ".join(sorted(names))
        for name in _KEPT_FILES.intersection(names):
            yield f"{where}/{name} contents", (directory / name).read_text("utf-8", "backslashreplace")


def changed(before: Store, after: Store) -> list[str]:
    """Everything that is not as it was."""
    return [
        f"{what}: {before.get(what)!r} became {after.get(what)!r}"
        for what in sorted(before.keys() | after.keys())
        if before.get(what) != after.get(what)
    ]


def lost(before: Store, after: Store) -> list[str]:
    """What was taken away: messages, also by marking any as deleted, folders, and what protects both."""
    kept = {what: how for what, how in before.items() if what.endswith(_LASTING)}
    marked = [
        f"{what}: {before.get(what)!r} became {how!r}"
        for what, how in after.items()
        if what.endswith(" flags") and "\\Deleted" in how and "\\Deleted" not in before.get(what, "")
    ]
    return changed(kept, {what: how for what, how in after.items() if what in kept}) + marked
