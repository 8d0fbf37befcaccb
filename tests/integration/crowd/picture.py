"""What one client believes of the mailbox that it has selected, strictly by what it was told.

It knows the rules of RFC 3501 §7.3 and §7.4 for numbers, UIDs and flags; it knows neither commands nor connections.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.integration.crowd.ledger import TOKEN, Ledger
from tests.integration.crowd.responses import Value, atoms, number
from tests.integration.crowd.violation import Violation, shown

Flags = frozenset[bytes]
SYSTEM = frozenset({b"\\seen", b"\\answered", b"\\flagged", b"\\draft", b"\\deleted"})
_RECENT = b"\\recent"


class Change(NamedTuple):
    """What a STORE does to flags: ``+``, ``-``, or (empty) puts others in their place."""

    sign: bytes
    flags: Flags

    def of(self, flags: Flags) -> Flags:
        """The flags afterwards."""
        if self.sign == b"+":
            return flags | self.flags
        return flags - self.flags if self.sign else self.flags


class Message:
    """One message as the client sees it.

    :ivar flags: what they may be; more than one possibility after a silent STORE at the time of another change,
        none as long as nothing was told.
    :ivar because: where the client has that from: what it was told last, and what it has silently stored since
    """

    __slots__ = ("because", "flags", "gone", "token", "uid")

    def __init__(self) -> None:
        self.uid: int | None = None
        self.flags: tuple[Flags, ...] = ()
        self.because: tuple[bytes, ...] = ()
        self.token: bytes | None = None
        self.gone = False


class Picture:
    """One client's picture of one mailbox, from its SELECT on.

    :ivar facts: by name, the numbers of SELECT's codes (UIDVALIDITY, UIDNEXT, UNSEEN)
    :ivar known: the flags that a FLAGS response has announced
    :ivar opened: whether SELECT is over
    """

    def __init__(self, mailbox: bytes, ledger: Ledger, *, grows_untold: bool = False) -> None:
        self.mailbox = mailbox
        self.messages: list[Message] = []
        self.facts: dict[bytes, int] = {}
        self.known: Flags = frozenset()
        self.permanent: Flags = frozenset()
        self.read_only = False
        self.opened = False
        self.told_exists = False
        self._ledger = ledger
        self._grows_untold = grows_untold

    def __len__(self) -> int:
        return len(self.messages)

    # -- what may be told ----------------------------------------------------------------------------------------

    def exists(self, count: int) -> None:
        """EXISTS: more than before, or as many."""
        self.told_exists = True
        if count < len(self.messages):
            raise Violation(f"EXISTS {count} where {len(self.messages)} are known")
        self.messages += [Message() for _ in range(count - len(self.messages))]

    def recent(self, count: int) -> None:
        """RECENT: never more than there are."""
        if count > len(self.messages):
            raise Violation(f"RECENT {count} of {len(self.messages)}")

    def expunge(self, count: int) -> None:
        """EXPUNGE of a number."""
        self._grow(count)
        self.at(count).gone = True
        del self.messages[count - 1]

    def _grow(self, count: int) -> None:
        """Where a server names messages before their EXISTS they are there all the same."""
        if self._grows_untold and count > len(self.messages):
            self.exists(count)

    def at(self, count: int) -> Message:
        """The message of a number."""
        if not 1 <= count <= len(self.messages):
            raise Violation(f"number {count} of {len(self.messages)}")
        return self.messages[count - 1]

    def by_uid(self, uid: int) -> Message | None:
        """The message that is known to have this UID."""
        return next((message for message in self.messages if message.uid == uid), None)

    def fetched(self, count: int, items: dict[bytes, Value], said: bytes) -> Message:
        """FETCH of a number, as it was ``said``: UID, FLAGS and content are held against what is known, and learnt."""
        self._grow(count)
        message = self.at(count)
        if b"UID" in items:
            self._learn_uid(count, number(items[b"UID"]))
        if b"FLAGS" in items:
            told = {flag.lower() for flag in atoms(items[b"FLAGS"])}
            if strange := told - self.known - SYSTEM - {_RECENT}:
                raise Violation(f"flags {strange} that no FLAGS has announced; announced: {set(self.known)}")
            message.flags = (frozenset(told - {_RECENT}),)
            message.because = (said,)
        for name, value in items.items():
            if name.startswith((b"BODY[", b"ENVELOPE")):
                self._learn_content(count, name, value)
        return message

    def _learn_uid(self, count: int, uid: int) -> None:
        message = self.messages[count - 1]
        if message.uid == uid:
            return
        if message.uid is not None:
            raise Violation(f"number {count} has UID {message.uid}, and is shown with UID {uid}")
        before = next((m.uid for m in reversed(self.messages[: count - 1]) if m.uid), 0)
        after = next((m.uid for m in self.messages[count:] if m.uid), uid + 1)
        if not before < uid < after:
            raise Violation(f"number {count} is shown with UID {uid} between {before} and {after}")
        message.uid = uid
        self._ledger.told_uid(self.mailbox, uid)
        if message.token:
            self._ledger.told_token(self.mailbox, uid, message.token)

    def _learn_content(self, count: int, name: bytes, value: Value) -> None:
        message = self.messages[count - 1]
        text = b"".join(_octets(value))
        tokens = set(TOKEN.findall(text))
        if not tokens:
            return  # of a message that is gone; whoever has asked for it looks at that
        if len(tokens) > 1:
            raise Violation(f"content of several messages: {tokens}")
        (token,) = tokens
        if name == b"BODY[]" and text != self._ledger.text.get(token):
            raise Violation(f"{token!r} was not sent as it was stored: {text!r}")
        known = message.token or (self._ledger.token_of(self.mailbox, message.uid) if message.uid else None)
        if known and known != token:
            raise Violation(f"number {count} (UID {message.uid}) is {known!r}, and was sent as {token!r}")
        message.token = token
        if message.uid:
            self._ledger.told_token(self.mailbox, message.uid, token)

    # -- in comparison -------------------------------------------------------------------------------------------

    def differences(self, truth: Picture, *, whole: bool = False, short: bool = False) -> list[str]:
        """Where this is not what a fresh connection was told.

        ``whole``: all UIDs and flags must be known; ``short``: it may end early.
        """
        if len(self) > len(truth) or (len(self) < len(truth) and not short):
            uids = [message.uid for message in self.messages], [message.uid for message in truth.messages]
            return [f"{len(self)} messages where there are {len(truth)}: UIDs {uids[0]} where there are {uids[1]}"]
        out = []
        for count, (mine, true) in enumerate(zip(self.messages, truth.messages, strict=False), 1):
            if mine.uid != true.uid and (whole or mine.uid):
                out.append(f"{count}: UID {mine.uid} where it is {true.uid}")
            if true.flags[0] not in mine.flags and (whole or mine.flags):
                told = " or ".join(_listed(flags) for flags in mine.flags) or "never told"
                why = ", ".join(map(shown, mine.because))
                out.append(f"{count}: flags {told} where they are {_listed(true.flags[0])} (UID {true.uid}; {why})")
            if mine.token and mine.token != true.token:
                out.append(f"{count}: {mine.token!r} where it is {true.token!r} (UID {true.uid})")
        return out

    def opening_differences(self, truth: Picture, *, short: bool = False) -> list[str]:
        """Where SELECT has told other than a fresh connection's SELECT."""
        out = self.differences(truth, short=short)
        for name in self.facts.keys() & truth.facts.keys():
            if self.facts[name] != truth.facts[name]:
                out.append(f"{name.decode()} {self.facts[name]} where it is {truth.facts[name]}")
        if missing := {b"UIDVALIDITY", *truth.facts} - self.facts.keys():
            out.append(f"nothing said of {missing}")
        for mine, true in ((self.known, truth.known), (self.permanent, truth.permanent)):
            # A connection that was there when a keyword was last used may still list it.
            if not (mine >= true or self.read_only):
                out.append(f"flags {_listed(mine)} where they are {_listed(true)}")
        return out


def _listed(flags: Flags) -> str:
    return "(" + b" ".join(sorted(flags)).decode() + ")"


def _octets(value: Value) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif value is not None:
        for item in value:
            yield from _octets(item)
