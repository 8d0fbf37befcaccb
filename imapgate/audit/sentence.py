"""A record in words, for people: what happened, in one line that a terminal can be trusted with.

Knows the names of the fields.  Knows no file, no sink and no format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Record = Mapping[str, object]


def printable(value: object) -> str:
    """A value with nothing in it that a terminal or a browser would obey, or that turns text around."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def text(record: Record, name: str) -> str:
    """A field as printable text; ``""``: it is not there."""
    value = record.get(name)
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(printable(item) for item in value)
    if isinstance(value, Mapping):
        return " ".join(f"{printable(key)}={printable(item)}" for key, item in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(value)


def number(record: Record, name: str) -> int:
    """A field that is a whole number; 0: it is not there, or is none."""
    value = record.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def octets(count: float) -> str:
    """A size as people write it: ``1.2 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _name(name: str) -> str:
    """A name that may hold spaces, or be empty."""
    return name if name and " " not in name else f'"{name}"'


def _where(record: Record, mailbox: str, uids: str) -> str:
    name, numbers = text(record, mailbox), text(record, uids)
    told = [_name(name)] if name else []
    if numbers:
        told.append(f"uid {numbers}")
    return " ".join(told)


def _messages(record: Record) -> list[str]:
    """Which messages, how many, and how much of them."""
    told = [text(record, "message.access"), _where(record, "mailbox.name", "message.uids")]
    if "message.uids" not in record and "message.sequence" in record:
        told.append(f"number {text(record, 'message.sequence')}")
    if "message.count" in record:
        told.append(_counted(number(record, "message.count"), "message"))
    if size := number(record, "message.octets") or number(record, "message.size"):
        told.append(octets(size))
    if where := _where(record, "destination.mailbox", "destination.uids"):
        told.append(f"to {where}")
    return told


def _flags(record: Record) -> list[str]:
    signs = (("+", "flags.added"), ("-", "flags.removed"), ("=", "flags.set"))
    return [f"{sign}({text(record, name)})" for sign, name in signs if name in record]


_REST: Sequence[tuple[str, str]] = (
    ("as {}", "user.effective"),
    ("{}", "command.verb"),
    ("instead of {}", "command.asked"),
    ("for {}", "acl.identifier"),
    ("rights {}", "acl.rights"),
    ("for {}", "search.criteria"),
    ("for sha256:{}", "search.criteria_sha256"),
    ("{} found", "search.found"),
    ("by {}", "policy.plugin"),
    ("rule {}", "policy.rule"),
    ("{}", "admin.command"),
    ("{}", "admin.arguments"),
    ("{}", "config.file"),
    ("{}", "error.kind"),
    ("({})", "gap.reason"),
    ("{} lost", "gap.lost"),
    ("({})", "reason"),
    ("from {}", "client.address"),
    ("via {}", "client.via"),
)
"""What follows the messages, in this order, each where its field is there."""


def sentence(record: Record) -> str:
    """What happened, without when and by whom: ``content INBOX uid 1:5 5 messages 1.2 MiB FETCH from 192.0.2.7``."""
    told = _messages(record) + _flags(record)
    for form, name in _REST:
        value = text(record, name)
        if value and not (name == "user.effective" and value == text(record, "user.name")):
            told.append(form.format(value))
    if text(record, "event").startswith(("session.", "auth.")) and (client := text(record, "client.asserted")):
        told.append(f"client {client}")
    told += [f"{printable(name)}={text(record, name)}" for name in record if name.startswith("note.")]
    return " ".join(part for part in told if part)
