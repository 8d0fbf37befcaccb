"""What a command has done, as events of the audit trail: from what it said and how it was answered.

One table from the verb to the event.  What is not in it touches nobody's mail and no mailbox, and is not
recorded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from imapgate.model.reading import Reading
from imapgate.session.delivered import BULK, Access, Delivery
from imapgate.session.effects import Auditing
from imapgate.wire.sequence import NUMBER, UIDS, compact, count

Fields = dict[str, object]
Deed = tuple[str, Fields]


class Place(NamedTuple):
    """A mailbox that is selected."""

    name: str
    raw: str
    uid_validity: int = 0
    read_only: bool = False


class Ended(NamedTuple):
    """A command that ended.

    :ivar place: what was selected when it began
    :ivar delivery: of FETCH and STORE: what came
    :ivar codes: the response codes that came with it, by name, with their arguments
    :ivar known: the UIDs that it concerns, where the gate had to ask for them; ``None``: it had not
    :ivar expunged: how many messages the server said were gone
    :ivar found: how many a search found
    :ivar size: octets of the messages that it stored
    :ivar messages: how many they were
    """

    reading: Reading
    ok: bool
    place: Place | None = None
    delivery: Delivery | None = None
    codes: Mapping[bytes, bytes] = {}
    known: tuple[int, ...] | None = None
    expunged: int = 0
    found: int = 0
    size: int = 0
    messages: int = 0


_COPYUID = re.compile(rb"(%b) (%b) (%b)\Z" % (NUMBER, UIDS, UIDS))
_APPENDUID = re.compile(rb"(%b) (%b)\Z" % (NUMBER, UIDS))
_NUMBER = re.compile(NUMBER)
_EXACT = re.compile(UIDS)


def deeds(ended: Ended, auditing: Auditing) -> list[Deed]:
    """The events of a command that ended, each with the fields that are its own."""
    tell = _DEEDS.get(ended.reading.command.rule.verb)
    return [] if tell is None else tell(ended, auditing)


def recorded(verb: bytes) -> bool:
    """Whether a command is ever an event."""
    return verb in _DEEDS


def _named(ended: Ended) -> Fields:
    """The mailbox that the command names."""
    reading = ended.reading
    names = reading.mailboxes
    return {"mailbox.name": names[0] if names else "", "mailbox.raw": text(reading.mailbox_raw)}


def _placed(ended: Ended) -> Fields:
    """The mailbox that is selected."""
    place = ended.place
    if place is None:
        return {}
    fields: Fields = {"mailbox.name": place.name, "mailbox.raw": place.raw}
    if place.uid_validity:
        fields["mailbox.uid_validity"] = place.uid_validity
    return fields


def text(raw: bytes) -> str:
    """Octets as the trail has them: ASCII, anything else escaped."""
    return raw.decode("ascii", "backslashreplace")


def number(text: bytes) -> int:
    """What a server says is a number; 0: it is none."""
    return int(text) if _NUMBER.fullmatch(text) else 0


def _messages(ended: Ended) -> Fields:
    """Which messages the command names: by UID where that is known, else as it named them."""
    if ended.known is not None:
        return {**_uids(ended.known), "message.count": len(ended.known)}
    sequence = ended.reading.sequence
    name = "message.uids" if ended.reading.uid and _EXACT.fullmatch(sequence) else "message.sequence"
    return {name: text(sequence)}


def _uids(uids: Sequence[int]) -> Fields:
    if len(uids) == 1:  # as nearly always
        return {"message.uids": str(uids[0])}
    return {"message.uids": compact(uids)} if uids else {}


def _select(ended: Ended, auditing: Auditing) -> list[Deed]:
    fields = _named(ended)
    validity = number(ended.codes.get(b"UIDVALIDITY", b""))
    if validity:
        fields["mailbox.uid_validity"] = validity
    fields["mailbox.read_only"] = ended.reading.verb == "EXAMINE" or b"READ-ONLY" in ended.codes
    return [("mailbox.select", fields)]


def _change(event: str) -> Callable[[Ended, Auditing], list[Deed]]:
    def tell(ended: Ended, auditing: Auditing) -> list[Deed]:
        fields = _named(ended)
        if ended.reading.destination:
            fields["destination.mailbox"] = ended.reading.destination
        return [(event, fields)]

    return tell


def _acl(ended: Ended, auditing: Auditing) -> list[Deed]:
    identifier, *rights = [text(token.value) for token in ended.reading.tokens[1:3]]
    fields = {**_named(ended), "acl.identifier": identifier}
    if rights:
        fields["acl.rights"] = rights[0]
    return [("mailbox.acl", fields)]


def _fetch(ended: Ended, auditing: Auditing) -> list[Deed]:
    delivery = ended.delivery
    fields = _placed(ended)
    assert delivery is not None
    bulk = delivery.access is Access.CONTENT and delivery.messages >= BULK
    fields["message.access"] = "bulk" if bulk else delivery.access.name.lower()
    fields |= _uids(delivery.uids)
    if len(delivery.uids) < delivery.messages and not (delivery.uids and ended.reading.uid):  # not all were said
        fields |= _messages(ended)
    fields["message.count"] = delivery.messages
    fields["message.octets"] = delivery.octets
    if delivery.message_ids:
        fields["message.ids"] = list(delivery.message_ids)
    if delivery.subjects:
        fields["message.subjects"] = list(delivery.subjects)
    return [("message.access", fields)]


def _store(ended: Ended, auditing: Auditing) -> list[Deed]:
    fields = {**_placed(ended), **_messages(ended)}
    store = ended.reading.store
    event = "message.flag"
    if store is not None:
        key = {"+": "flags.added", "-": "flags.removed"}.get(store.sign, "flags.set")
        fields[key] = list(store.flags)
        if store.sign != "-" and "\\deleted" in [flag.lower() for flag in store.flags]:
            event = "message.delete"
    return [(event, fields)]


def _copy(event: str) -> Callable[[Ended, Auditing], list[Deed]]:
    def tell(ended: Ended, auditing: Auditing) -> list[Deed]:
        fields = {**_placed(ended), **_messages(ended), "destination.mailbox": ended.reading.destination}
        found = _COPYUID.match(ended.codes.get(b"COPYUID", b""))
        if found is not None:  # what really was copied, not what was named
            fields.pop("message.sequence", None)
            fields["message.uids"] = text(found[2])
            fields["destination.uid_validity"] = int(found[1])
            fields["destination.uids"] = text(found[3])
        return [(event, fields)]

    return tell


def _append(ended: Ended, auditing: Auditing) -> list[Deed]:
    fields = _named(ended)
    fields["message.size"] = ended.size
    fields["message.count"] = ended.messages
    if ended.reading.flags:
        fields["flags.set"] = list(ended.reading.flags)
    _stored(ended, fields, "mailbox.uid_validity", "message.uids")
    return [("message.append", fields)]


def _stored(ended: Ended, fields: Fields, validity: str, uids: str) -> None:
    found = _APPENDUID.match(ended.codes.get(b"APPENDUID", b""))
    if found is not None:
        fields[validity] = int(found[1])
        fields[uids] = text(found[2])
        fields["message.count"] = count(found[2])


def _replace(ended: Ended, auditing: Auditing) -> list[Deed]:
    """REPLACE (RFC 8508) is an APPEND elsewhere and an EXPUNGE here."""
    fields: Fields = {"mailbox.name": ended.reading.destination, "message.size": ended.size, "message.count": 1}
    if ended.reading.flags:
        fields["flags.set"] = list(ended.reading.flags)
    _stored(ended, fields, "mailbox.uid_validity", "message.uids")
    return [("message.append", fields), ("message.expunge", {**_placed(ended), **_messages(ended)})]


def _expunge(ended: Ended, auditing: Auditing) -> list[Deed]:
    """EXPUNGE, UID EXPUNGE and CLOSE: the messages that were marked, and how many the server says are gone."""
    if ended.place is not None and ended.place.read_only and ended.reading.name == "CLOSE":
        return []
    fields = _placed(ended)
    known = ended.known or ()
    fields |= _uids(known)
    fields["message.count"] = len(known) if ended.reading.name == "CLOSE" else ended.expunged
    return [("message.expunge", fields)]


def _search(ended: Ended, auditing: Auditing) -> list[Deed]:
    fields = {**_placed(ended), **auditing.digest(ended.reading.criteria)}
    if ended.ok:
        fields["search.found"] = ended.found
    return [("search", fields)]


_BY_NAME: dict[str, Callable[[Ended, Auditing], list[Deed]]] = {
    "SELECT": _select,
    "EXAMINE": _select,
    "CREATE": _change("mailbox.create"),
    "DELETE": _change("mailbox.delete"),
    "RENAME": _change("mailbox.rename"),
    "SUBSCRIBE": _change("mailbox.subscribe"),
    "UNSUBSCRIBE": _change("mailbox.unsubscribe"),
    "SETACL": _acl,
    "DELETEACL": _acl,
    "FETCH": _fetch,
    "STORE": _store,
    "COPY": _copy("message.copy"),
    "MOVE": _copy("message.move"),
    "APPEND": _append,
    "REPLACE": _replace,
    "EXPUNGE": _expunge,
    "CLOSE": _expunge,
    "SEARCH": _search,
    "SORT": _search,
    "THREAD": _search,
    "ESEARCH": _search,
}
_DEEDS = {prefix + name.encode(): tell for name, tell in _BY_NAME.items() for prefix in (b"", b"UID ")}
