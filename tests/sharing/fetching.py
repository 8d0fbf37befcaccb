"""FETCH's items (RFC 3501 §6.4.5), as far as tests ask for them: what is asked, and each item as it is answered."""

from __future__ import annotations

import re

from tests.sharing.reading import Tree, Wrong, flat
from tests.sharing.store import Message

_MACROS = {b"FAST": [b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE"]}
_MACROS[b"ALL"] = [*_MACROS[b"FAST"], b"ENVELOPE"]
_SAME = {b"RFC822": b"BODY[]", b"RFC822.HEADER": b"BODY.PEEK[HEADER]", b"RFC822.TEXT": b"BODY[TEXT]"}
_PLAIN = (b"FLAGS", b"UID", b"RFC822.SIZE", b"INTERNALDATE", b"ENVELOPE", b"MODSEQ")
_SECTION = re.compile(rb"BODY(\.PEEK)?\[((?:HEADER|TEXT|HEADER\.FIELDS \([^)]*\))?)\](?:<(\d+)\.(\d+)>)?")


def items(node: bytes | Tree) -> list[bytes]:
    """What is asked for, in capitals, macros spelt out."""
    asked = [item.upper() for item in flat(node)]
    if len(asked) == 1:
        asked = _MACROS.get(asked[0], asked)
    for item in asked:
        if item not in _PLAIN and not _SECTION.fullmatch(_SAME.get(item, item)):
            raise Wrong(f"cannot fetch {item!r}")
    return asked


def reads(item: bytes) -> bool:
    """Whether an item is of the message itself, which must be there."""
    return item not in _PLAIN


def sets_seen(item: bytes) -> bool:
    """Whether an item sets \\Seen."""
    return reads(item) and b".PEEK" not in _SAME.get(item, item)


def answered(item: bytes, message: Message, flags: set[bytes], body: bytes | None) -> bytes:
    """An item with its value; without a body it is NIL."""
    if item == b"FLAGS":
        return b"FLAGS (%b)" % b" ".join(sorted(flags))
    if item == b"UID":
        return b"UID %d" % message.uid
    if item == b"MODSEQ":
        return b"MODSEQ (%d)" % message.modseq
    if item == b"RFC822.SIZE":
        return b"RFC822.SIZE %d" % len(message.body)
    if item == b"INTERNALDATE":
        return message.date.strftime('INTERNALDATE "%d-%b-%Y %H:%M:%S %z"').encode()
    if item == b"ENVELOPE":
        subject = re.search(rb"(?im)^subject: *([^\r\n\"\\]*)", message.body)
        return b'ENVELOPE (NIL "%b"%b)' % (subject[1] if subject else b"", b" NIL" * 8)
    section = _SECTION.fullmatch(_SAME.get(item, item))
    assert section is not None
    name = item if item in _SAME else b"BODY[%b]" % section[2]
    if section[3] is not None:
        name += b"<%b>" % section[3]
    if body is None:
        return name + b" NIL"
    head, _, text = body.partition(b"\r\n\r\n")
    content = {b"": body, b"TEXT": text}.get(section[2], head + b"\r\n\r\n")
    if section[2].startswith(b"HEADER.FIELDS"):
        wanted = section[2][15:-1].split()
        lines = [line + b"\r\n" for line in head.split(b"\r\n") if line.partition(b":")[0].upper() in wanted]
        content = b"".join(lines) + b"\r\n"
    if section[3] is not None:
        content = content[int(section[3]) :][: int(section[4])]
    return b"%b {%d}\r\n%b" % (name, len(content), content)
