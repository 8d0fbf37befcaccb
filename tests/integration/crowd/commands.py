"""The commands of the crowd, drawn by chance from what the client's picture allows.

A command knows what may come of it: which messages it means, which data must come, whether it may be refused.  Messages
are meant as objects of the picture, so that an EXPUNGE in between changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from tests.integration.crowd.ledger import Ledger
from tests.integration.crowd.picture import SYSTEM, Change, Message, Picture
from tests.integration.crowd.ways import Ways

KEYWORDS = (b"$crowd", b"blue", b"green")
FEW, MANY = 10, 30
"""Fewer messages than few: more are stored; more than many: more are deleted."""

ALWAYS = frozenset({b"OK"})
OK_OR_NO = frozenset({b"OK", b"NO"})


@dataclass(slots=True, eq=False)
class Command:
    """One command.

    :ivar line: all after the tag; what stands behind a literal's announcement is in ``literal``
    :ivar mailbox: the one it names
    :ivar targets: the messages that it means
    :ivar open_ended: it may mean others as well, which the client was not told of when it was sent
    :ivar loose: which message it means is for the server to say: those that it means may be others by then
    :ivar needs: the item that each of the targets must be answered with
    :ivar content: it may be answered with content, which nobody else may be sent
    :ivar change: what a STORE does
    :ivar finds: the token that a SEARCH is for
    :ivar may: the completions that need no reason
    :ivar dangerous: a Cyrus may die of it
    """

    verb: bytes
    line: bytes
    by_uid: bool = False
    literal: bytes | None = None
    token: bytes | None = None
    mailbox: bytes = b""
    targets: Sequence[Message] = ()
    open_ended: bool = False
    loose: bool = False
    needs: bytes = b""
    content: bool = False
    change: Change | None = None
    silent: bool = False
    finds: bytes | None = None
    may: frozenset[bytes] = ALWAYS
    dangerous: bool = False
    tag: bytes = b""
    status: bytes = b""
    code: bytes = b""
    responses: int = 0
    answered: set[int] = field(default_factory=set)

    @property
    def by_number(self) -> bool:
        """Whether no EXPUNGE may come while this is in flight (RFC 3501 §7.4.1; RFC 5256)."""
        return not self.by_uid and self.verb in (b"FETCH", b"STORE", b"SEARCH", b"SORT", b"THREAD")


class Chooser:
    """Draws one client's commands.

    :ivar mailboxes: their names; the first one is chosen more often
    :ivar capabilities: what the server offers
    """

    def __init__(self, random: Random, ledger: Ledger, mailboxes: Sequence[bytes], ways: Ways) -> None:
        self.random = random
        self.ledger = ledger
        self.mailboxes = mailboxes
        self.ways = ways
        self.capabilities: frozenset[bytes] = frozenset()

    def mailbox(self) -> bytes:
        """Some mailbox, the first one rather than the others."""
        return self.random.choice((self.mailboxes[0], *self.mailboxes))

    def _chance(self, share: float) -> bool:
        return self.random.random() < share

    # -- anywhere ------------------------------------------------------------------------------------------------

    def noop(self) -> Command:
        """NOOP."""
        return Command(b"NOOP", b"NOOP")

    def list_all(self) -> Command:
        """LIST of all."""
        return Command(b"LIST", b'LIST "" "*"')

    def status(self, mailbox: bytes | None = None) -> Command:
        """STATUS."""
        mailbox = mailbox or self.mailbox()
        return Command(b"STATUS", b"STATUS %b (MESSAGES UIDNEXT UIDVALIDITY UNSEEN)" % mailbox, mailbox=mailbox)

    def append(self, picture: Picture | None = None) -> Command:
        """APPEND of a new message, perhaps with flags; the picture is that of the mailbox that is selected."""
        mailbox, (token, text) = self.mailbox(), self.ledger.write(self.random)
        flags = b"(%b) " % b" ".join(self._flags(0.05)) if self._chance(0.5) else b""
        line, may = b"APPEND %b %b" % (mailbox, flags), self._may_store(mailbox, picture)
        return Command(b"APPEND", line, mailbox=mailbox, literal=text, token=token, may=may)

    def select(self, mailbox: bytes | None = None) -> Command:
        """SELECT, or EXAMINE."""
        verb, mailbox = self.random.choice((b"SELECT", b"SELECT", b"SELECT", b"EXAMINE")), mailbox or self.mailbox()
        return Command(verb, b"%b %b" % (verb, mailbox), mailbox=mailbox)

    # -- in a mailbox --------------------------------------------------------------------------------------------

    def check(self) -> Command:
        """CHECK."""
        return Command(b"CHECK", b"CHECK")

    def leave(self) -> Command:
        """CLOSE, or UNSELECT where that is offered."""
        verb = self.random.choice((b"CLOSE", b"UNSELECT")) if b"UNSELECT" in self.capabilities else b"CLOSE"
        return Command(verb, verb)

    def idle(self) -> Command:
        """IDLE."""
        return Command(b"IDLE", b"IDLE")

    def look_at(self, picture: Picture) -> Command:
        """FETCH of all UIDs and flags: what a client does after SELECT."""
        every = list(picture.messages)
        return Command(b"FETCH", b"FETCH 1:* (UID FLAGS)", targets=every, open_ended=True, needs=b"UID")

    def fetch(self, picture: Picture) -> Command:
        """FETCH or UID FETCH of flags, of content, of the envelope."""
        items, needs = self.random.choice(_ITEMS)
        dangerous = b"BODY[" in items  # not PEEK
        return self._with_messages(
            b"FETCH",
            picture,
            b" (%b)" % items,
            needs=needs,
            content=needs not in (b"FLAGS", b"UID"),
            dangerous=dangerous,
            most=3 if needs.startswith(b"BODY") else 99,
        )

    def store(self, picture: Picture) -> Command:
        """STORE or UID STORE, loud or silent."""
        change = Change(self.random.choice((b"+", b"+", b"-", b"")), frozenset(self._flags(self._hunger(picture))))
        silent = self._chance(0.5)
        rest = b" %bFLAGS%b (%b)" % (change.sign, b".SILENT" * silent, b" ".join(change.flags))
        return self._with_messages(
            b"STORE",
            picture,
            rest,
            change=change,
            silent=silent,
            most=4,
        )

    def copy(self, picture: Picture) -> Command:
        """COPY or UID COPY to some mailbox, the same one included."""
        mailbox = self.mailbox()
        may = self._may_store(mailbox, picture)
        return self._with_messages(b"COPY", picture, b" " + mailbox, mailbox=mailbox, dangerous=True, most=3, may=may)

    def move(self, picture: Picture) -> Command:
        """MOVE or UID MOVE to another mailbox."""
        mailbox = self.random.choice([name for name in self.mailboxes if name != picture.mailbox])
        return self._with_messages(b"MOVE", picture, b" " + mailbox, mailbox=mailbox, dangerous=True, most=3)

    def expunge(self, picture: Picture) -> Command:
        """EXPUNGE, or UID EXPUNGE of some."""
        if self._chance(0.5) and any(message.uid for message in picture.messages):
            return self._with_messages(b"EXPUNGE", picture, b"", by_uid=True)
        return Command(b"EXPUNGE", b"EXPUNGE")

    def search(self, picture: Picture) -> Command:
        """SEARCH, SORT or THREAD, or one of them by UID, over numbers, UIDs, flags or a token."""
        by_uid = self._chance(0.5)
        key, targets, open_ended, finds = self._key(picture)
        verb, way = b"SEARCH", b""
        if b"SORT" in self.capabilities and self._chance(0.15):
            verb, way = b"SORT", self.random.choice((b"(SUBJECT)", b"(ARRIVAL)", b"(REVERSE DATE FROM)")) + b" UTF-8 "
        elif b"THREAD=REFERENCES" in self.capabilities and self._chance(0.15):
            verb, way = b"THREAD", self.random.choice((b"REFERENCES", b"ORDEREDSUBJECT")) + b" UTF-8 "
        elif b"ESEARCH" in self.capabilities and self._chance(0.25):
            way = b"RETURN (MIN MAX COUNT ALL) "
        line = b"%b%b %b%b" % (b"UID " * by_uid, verb, way, key)
        return Command(verb, line, by_uid, targets=targets, open_ended=open_ended, finds=finds)

    def burst(self, picture: Picture) -> list[Command]:
        """Some commands that no EXPUNGE may come between, to be sent at once."""
        made: list[Command] = []
        makes = [self.fetch, self.search] if picture.read_only else [self.fetch, self.store, self.search]
        while len(made) < self.random.randint(2, 4):
            command = self.random.choice(makes)(picture)
            dear = any(other.verb == command.verb for other in made) and command.verb not in (b"FETCH", b"STORE")
            if command.by_number and not command.dangerous and not dear:
                made.append(command)
        return made

    # -- what they are made of -----------------------------------------------------------------------------------

    def _may_store(self, mailbox: bytes, picture: Picture | None) -> frozenset[bytes]:
        """How a server may answer what is to store messages in a mailbox."""
        examined = picture is not None and picture.read_only and picture.mailbox == mailbox
        return OK_OR_NO if examined and self.ways.guards_examined else ALWAYS

    def _hunger(self, picture: Picture) -> float:
        """How likely a flag is to be \\Deleted."""
        return 0.5 if len(picture) > MANY else 0.2 if len(picture) > FEW else 0.03

    def _flags(self, deleted: float) -> list[bytes]:
        if self._chance(deleted):
            return [b"\\deleted"]
        usual = sorted(SYSTEM - {b"\\deleted"}) + list(KEYWORDS)
        return self.random.sample(usual, self.random.choice((1, 1, 2, 3)))

    def _with_messages(
        self, verb: bytes, picture: Picture, rest: bytes, *, by_uid: bool | None = None, most: int = 99, **more: object
    ) -> Command:
        uids = [message for message in picture.messages if message.uid]
        if by_uid is None:
            by_uid = bool(uids) and self._chance(0.5)
        if not by_uid or verb in (b"COPY", b"MOVE", b"STORE"):
            most = min(most, len(picture))
        if by_uid:
            text, targets, open_ended = self._uid_set(picture, uids, most, verb)
        else:
            text, targets, open_ended = self._number_set(picture, most, verb)
        if by_uid and verb != b"FETCH":
            more["dangerous"] = False
        line = b"%b%b %b%b" % (b"UID " * by_uid, verb, text, rest)
        loose = text == b"*"
        return Command(verb, line, by_uid, targets=targets, open_ended=open_ended, loose=loose, **more)  # type: ignore[arg-type]

    def _number_set(self, picture: Picture, most: int, verb: bytes) -> tuple[bytes, list[Message], bool]:
        count = len(picture)
        if verb == b"FETCH" and self._chance(0.15):
            return self.random.choice((b"*", b"%d:*" % count)), picture.messages[-1:], True
        if most > count and self._chance(0.3):
            return b"1:%d" % count, list(picture.messages), False
        chosen, text = self._some(range(1, count + 1), most)
        return text, [picture.messages[number - 1] for number in chosen], False

    def _uid_set(
        self, picture: Picture, uids: list[Message], most: int, verb: bytes
    ) -> tuple[bytes, list[Message], bool]:
        by_uid = {message.uid: message for message in uids if message.uid}
        if verb == b"FETCH" and self._chance(0.15):
            least = self.random.choice(list(by_uid))
            return b"%d:*" % least, [message for message in uids if (message.uid or 0) >= least], True
        if len(uids) == len(picture) and self._chance(0.3):
            start = self.random.randrange(len(uids))
            targets = uids[start : start + self.random.randint(1, most)]
            return b"%d:%d" % (targets[0].uid or 0, targets[-1].uid or 0), targets, False
        chosen = self.random.sample(list(by_uid), min(len(by_uid), most, self.random.choice((1, 1, 2, 3, 6))))
        return b",".join(b"%d" % uid for uid in chosen), [by_uid[uid] for uid in chosen], False

    def _some(self, among: Sequence[int], most: int) -> tuple[list[int], bytes]:
        """Some of these numbers, and a set that says them."""
        size = min(len(among), most, self.random.choice((1, 1, 1, 2, 3, 6)))
        if size > 1 and self._chance(0.4):
            start = self.random.randrange(len(among) - size + 1)
            chosen = list(among[start : start + size])
            ends = (
                (chosen[0], chosen[-1])
                if self._chance(0.7) or not self.ways.reads_backwards
                else (chosen[-1], chosen[0])
            )
            return chosen, b"%d:%d" % ends
        chosen = self.random.sample(among, size)
        return chosen, b",".join(b"%d" % number for number in chosen)

    def _key(self, picture: Picture) -> tuple[bytes, list[Message], bool, bytes | None]:
        """A search key; which messages it means, where that is known; whether others as well; a token."""
        kind = self.random.randrange(5)
        tokens = [message for message in picture.messages if message.token]
        uids = [message for message in picture.messages if message.uid]
        if kind == 0:
            text, targets, _ = self._number_set(picture, 99, b"SEARCH")
            return text, targets, False, None
        if kind == 1 and uids:
            text, targets, _ = self._uid_set(picture, uids, 99, b"SEARCH")
            return b"UID " + text, targets, False, None
        if kind == 2 and tokens:
            chosen = self.random.choice(tokens)
            return b"SUBJECT %b" % (chosen.token or b""), [], True, chosen.token
        if kind == 3:
            return (
                self.random.choice((b"UNSEEN", b"DELETED", b"KEYWORD blue", b"NOT FLAGGED", b"*", b"NOT *")),
                [],
                True,
                None,
            )
        return b"ALL", [], True, None


_ITEMS = (
    (b"FLAGS", b"FLAGS"),
    (b"FLAGS", b"FLAGS"),
    (b"UID FLAGS", b"UID"),
    (b"UID", b"UID"),
    (b"UID BODY.PEEK[]", b"BODY[]"),
    (b"BODY.PEEK[]", b"BODY[]"),
    (b"FLAGS BODY[]", b"BODY[]"),
    (b"BODY[]", b"BODY[]"),
    (b"ENVELOPE", b"ENVELOPE"),
    (b"UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE", b"ENVELOPE"),
    (b"BODY.PEEK[TEXT]", b"BODY[TEXT]"),
    (b"BODY.PEEK[HEADER.FIELDS (SUBJECT)]", b"BODY[HEADER.FIELDS (SUBJECT)]"),
)
