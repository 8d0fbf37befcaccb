"""What a server keeps for a user, read behind the gate's back: by a connection of its own, and from the files.

Dovecot's Maildir tells flags by the names of its files.  Cyrus has its flags in an index, which only Cyrus reads, and one
file for each message.  What opening a folder for reading may rightly move, such as indexes and caches, is left out.
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
_TOLD = re.compile(rb"\* OK \[(UIDVALIDITY|UIDNEXT) (\d+)\]")
_UID = re.compile(rb"\bUID (\d+)")
_FLAGS = re.compile(rb"\bFLAGS \(([^)]*)\)")
_MAILBOXID = re.compile(rb"MAILBOXID \(([^)]+)\)")
_EXPIRE = b"/shared/vendor/cmu/cyrus-imapd/expire"
_KEPT_FILES = frozenset(["subscriptions", "dovecot-acl", "dovecot-keywords", "attributes"])
"""Dovecot's files, besides those of messages, whose contents somebody would miss."""

_LASTING = (" message", " folder", " rights", " annotations")


def read(user: User) -> Store:
    """All that the server keeps for this user."""
    is_cyrus = isinstance(user.server, Cyrus)
    store: Store = {}
    with user.wire() as wire:
        everywhere = (b'LIST "" *', b'LSUB "" *', b'GETMETADATA "" (/private/comment)', b"GETQUOTAROOT INBOX")
        folders, subscriptions, annotations, quota = ask(wire, everywhere)
        store["subscriptions"] = _text(sorted(subscriptions))
        store["server annotations"] = _text(annotations)
        store["quota"] = _text(quota)
        for line in folders:
            folder = _FOLDER.match(line)
            assert folder is not None, line
            store[f"{folder[2].decode()} attributes"] = folder[1].decode()
            if b"\\Noselect" not in folder[1]:
                store.update(_folder(wire, folder[2], annotations=is_cyrus))
                if isinstance(user.server, Cyrus):
                    store.update(_cyrus_files(user.server, wire, folder[2]))
    if isinstance(user.server, Dovecot):
        store.update(_dovecot_files(user.server.maildir(user.name).parent))
    return store


def _folder(wire: Wire, folder: bytes, *, annotations: bool) -> Iterator[tuple[str, str]]:
    name = folder.decode()
    items = b"FLAGS INTERNALDATE BODY.PEEK[]" + b" ANNOTATION (/comment value)" * annotations
    opened, messages, rights, entries = ask(
        wire,
        [
            b'EXAMINE "%b"' % folder,
            b"UID FETCH 1:* (UID %b)" % items,
            b'GETACL "%b"' % folder,
            b'GETMETADATA "%b" (/private/comment /shared/comment %b)' % (folder, _EXPIRE * annotations),
        ],
    )
    told = dict(_TOLD.findall(b"".join(opened)))
    yield f"{name} folder", told[b"UIDVALIDITY"].decode()
    yield f"{name} next", told[b"UIDNEXT"].decode()
    yield f"{name} rights", _text(rights)
    yield f"{name} annotations", _text(entries)
    for response in messages:
        uid, flags = _UID.search(response), _FLAGS.search(response)
        assert uid is not None and flags is not None, response
        message = f"{name}/{int(uid[1])}"
        yield f"{message} flags", b" ".join(sorted(flags[1].split())).decode()
        what_stays = _FLAGS.sub(b"", response, 1).split(b"(", 1)[1]
        yield f"{message} message", hashlib.sha256(what_stays).hexdigest()[:16]


def _text(lines: Iterable[bytes]) -> str:
    return b"".join(lines).decode("utf-8", "backslashreplace")


def _cyrus_files(server: Cyrus, wire: Wire, folder: bytes) -> Iterator[tuple[str, str]]:
    found = _MAILBOXID.search(b"".join(wire.ok(b'STATUS "%b" (MAILBOXID)' % folder)))
    assert found is not None, folder
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
