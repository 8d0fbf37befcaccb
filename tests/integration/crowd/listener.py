"""Hears all that one client is told, keeps its picture, and objects to what it cannot be told.

It is given octets and the commands that are sent; it knows no socket and no clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tests.integration.crowd.commands import Command
from tests.integration.crowd.ledger import Ledger, Suspicion
from tests.integration.crowd.picture import Message, Picture
from tests.integration.crowd.responses import Cutter, Value, atoms, leaves, number, numbers, pairs, values
from tests.integration.crowd.violation import Violation, shown
from tests.integration.crowd.ways import Dies, Ways

_UNTAGGED = re.compile(rb"\* (?:([0-9]+) )?([A-Za-z]+)(?: |\r\n|(?=\())")
_CODE = re.compile(rb" \[([A-Za-z-]+)(?: ([^\]]*))?\]")
_TAGGED = re.compile(rb"([^ ]+) (OK|NO|BAD)\b", re.IGNORECASE)
_SELECTING = (b"SELECT", b"EXAMINE")
_FINDING = (b"SEARCH", b"SORT", b"THREAD")
_LEAVING = (b"CLOSE", b"UNSELECT")


class Listener:
    """What one client is told.

    :ivar picture: of the mailbox that is selected
    :ivar opening: of the one that a SELECT is in flight for
    :ivar ended: the server has said BYE
    :ivar continuations: how many ``+`` have come
    :ivar told_status: by mailbox, what the last STATUS has said
    """

    def __init__(self, who: str, ledger: Ledger, ways: Ways) -> None:
        self.who = who
        self.picture: Picture | None = None
        self.opening: Picture | None = None
        self.capabilities: frozenset[bytes] = frozenset()
        self.in_flight: dict[bytes, Command] = {}
        self.ended = False
        self.continuations = 0
        self.greeted = False
        self.told_status: dict[bytes, dict[bytes, int]] = {}
        self._ledger = ledger
        self._ways = ways
        self._cutter = Cutter()
        self._highest: dict[bytes, int] = {}

    def sent(self, command: Command) -> None:
        """The client sends this command."""
        self.in_flight[command.tag] = command
        if command.verb in _SELECTING:
            self.picture = None
            grows = self._ways.grows_untold
            self.opening = Picture(command.mailbox, self._ledger, grows_untold=grows)
            self.opening.read_only = command.verb == b"EXAMINE"
        if command.mailbox:
            self._highest[command.tag] = self._ledger.highest[command.mailbox]

    def received(self, data: bytes) -> None:
        """The client was sent this.

        :raise Violation: it cannot have been.
        """
        for response in self._cutter.feed(data):
            try:
                self._hear(response)
            except Violation as violation:
                raise Violation(f"{self.who}: {violation}, by {shown(response)}") from None
            except (IndexError, KeyError, ValueError) as error:
                raise Violation(f"{self.who}: {error!r} in reading {shown(response)}") from error

    # -- untagged ------------------------------------------------------------------------------------------------

    def _hear(self, response: bytes) -> None:
        if response.startswith(b"+"):
            if not any(command.literal or command.verb == b"IDLE" for command in self.in_flight.values()):
                raise Violation("a continuation that nothing has asked for")
            self.continuations += 1
        elif response.startswith(b"* "):
            self._untagged(response)
        else:
            self._tagged(response)

    def _untagged(self, response: bytes) -> None:
        found = _UNTAGGED.match(response)
        if found is None:
            raise Violation("no response")
        count, word = int(found[1] or 0), found[2].upper()
        if word in (b"OK", b"NO", b"PREAUTH"):
            self._text(response, found.end() - 1)
        elif word == b"BYE":
            self._bye(response)
        elif word == b"CAPABILITY":
            self.capabilities = frozenset(response.upper().split()[2:])
        elif word == b"FLAGS":
            self._place().known = frozenset(flag.lower() for flag in atoms(values(response, found.end() - 1)[0]))
        elif word == b"EXISTS":
            self._place().exists(count)
        elif word == b"RECENT":
            self._place().recent(count)
        elif word == b"EXPUNGE":
            self._expunge(count)
        elif word == b"FETCH":
            self._fetch(count, values(response, found.end()), response)
        elif word in (b"LIST", b"STATUS"):
            self._asked(word)
            if word == b"STATUS":
                mailbox, items = values(response, found.end())
                self._status(mailbox, items)
        elif word == b"ESEARCH":
            self._extended(values(response, found.end() - 1))
        elif word in _FINDING:
            told = values(response, found.end() - 1)
            self._found(self._asked(word), leaves(told))
        else:
            raise Violation("nothing that was asked for")

    def _place(self) -> Picture:
        place = self.picture if self.opening is None else self.opening
        if place is None:
            raise Violation("data of a mailbox where none is selected")
        return place

    def _any(self, *verbs: bytes) -> Command | None:
        return next((command for command in self.in_flight.values() if command.verb in verbs), None)

    def _asked(self, verb: bytes) -> Command:
        """The command that this data is for; it may be answered once, LIST as often as there are mailboxes."""
        command = self._any(verb)
        if command is None:
            raise Violation(f"{verb.decode()} data that nobody has asked for")
        command.responses += 1
        if command.responses > 1 and verb != b"LIST":
            raise Violation("a second answer to one command")
        return command

    def _bye(self, response: bytes) -> None:
        if not self.may_end:
            raise Violation("the session is ended")
        if b"makes no sense" in response:  # a gate's words: then it is not the server that has died
            raise Violation("the gate does not understand its server")
        self.ended = True

    @property
    def may_end(self) -> bool:
        """Whether the server may die of what is in flight."""
        dies, given = self._ways.dies, self.in_flight.values()
        if dies is Dies.OF_READING:
            return any(command.content or command.verb == b"COPY" for command in given)
        return dies is Dies.OF_CHANGING and any(command.dangerous for command in given)

    def _text(self, response: bytes, at: int) -> None:
        self.greeted = True
        code = _CODE.match(response, at)
        if code is None:
            return
        name, value = code[1].upper(), code[2] or b""
        if name == b"CAPABILITY":
            self.capabilities = frozenset(value.upper().split())
        elif name == b"COPYUID":
            command = self._any(b"MOVE")
            if command is None:
                raise Violation("COPYUID outside MOVE")
            self._copied(command, value)
        elif self.opening is not None:
            if name in (b"UIDVALIDITY", b"UIDNEXT", b"UNSEEN"):
                self.opening.facts[name] = number(value)
            elif name == b"PERMANENTFLAGS":
                self._permanent(self.opening, response, at)
        elif self.picture is not None and name == b"PERMANENTFLAGS":
            self._permanent(self.picture, response, at)

    def _permanent(self, picture: Picture, response: bytes, at: int) -> None:
        start, end = response.index(b"(", at), response.index(b")", at) + 1
        flags = atoms(values(response[start:end] + b"\r\n")[0])
        picture.permanent = frozenset(flag.lower() for flag in flags)

    def _expunge(self, count: int) -> None:
        if not self.in_flight:
            raise Violation("EXPUNGE with no command in progress")
        if forbidden := next((command for command in self.in_flight.values() if command.by_number), None):
            raise Violation(f"EXPUNGE during {forbidden.verb.decode()}")
        if self.opening is not None:
            raise Violation("EXPUNGE during SELECT")
        if self._any(b"CLOSE"):
            raise Violation("EXPUNGE during CLOSE")
        self._place().expunge(count)

    # -- FETCH ---------------------------------------------------------------------------------------------------

    def _fetch(self, count: int, told: list[Value], said: bytes) -> None:
        items = pairs(told[0] if isinstance(told[0], list) else [])
        if self.opening is not None:
            raise Violation("FETCH during SELECT")
        message = self._place().fetched(count, items, said)
        if b"MODSEQ" in items:
            raise Violation("MODSEQ, and nobody has asked for it")
        if items.keys() - {b"FLAGS", b"UID"}:
            self._content(message, items)
        for command in self.in_flight.values():
            if command.needs in items or (command.change and b"FLAGS" in items):
                command.answered.add(id(message))

    def _content(self, message: Message, items: dict[bytes, Value]) -> None:
        for command in self.in_flight.values():
            if command.content and command.needs in items and (command.open_ended or message in command.targets):
                break
        else:
            raise Violation(f"content that nobody has asked for: {b' '.join(items).decode()}")
        if command.by_uid and b"UID" not in items:
            raise Violation("no UID in the answer to UID FETCH")
        if not message.token and command.needs == b"BODY[]" and not self._ways.misses:
            self._gone([message], "content without a token")

    def _gone(self, messages: Iterable[Message], why: str) -> None:
        """Suspect that one of these is expunged, unless that was told meanwhile; all of their UIDs must be known."""
        picture, known = self.picture, list(messages)
        if picture is not None and all(message.uid and not message.gone for message in known):
            uids = frozenset(message.uid for message in known if message.uid)
            self._ledger.suspect(picture.mailbox, Suspicion(uids, self.who, why))

    # -- SEARCH, STATUS, COPYUID ---------------------------------------------------------------------------------

    def _found(self, command: Command, told: list[int]) -> None:
        picture = self.picture
        if picture is None:
            raise Violation("results of a search where no mailbox is selected")
        if len(set(told)) < len(told):
            raise Violation("a result that comes twice")
        if not command.by_uid:
            if self._ways.grows_untold and told and max(told) > len(picture):
                picture.exists(max(told))
            found = [picture.at(count) for count in told]
            self._only_targets(command, found)
        else:
            by_uid = {message.uid: message for message in (*picture.messages, *command.targets) if message.uid}
            found = [by_uid[uid] for uid in told if uid in by_uid]
            unknown = [message for message in picture.messages if not message.uid]
            if not unknown and all(message.uid for message in command.targets):
                self._only_targets(command, found)
                if not command.open_ended and len(found) < len(told):
                    raise Violation(f"UIDs {set(told) - by_uid.keys()} that were not meant")
        command.answered.update(map(id, found))

    def _only_targets(self, command: Command, found: list[Message]) -> None:
        for message in found:
            if not command.open_ended and message not in command.targets:
                raise Violation(f"UID {message.uid} ({message.token!r}) is found and was not meant")
            if command.finds and message.token and message.token != command.finds:
                raise Violation(f"{message.token!r} is found in a search for {command.finds!r}")

    def _extended(self, told: list[Value]) -> None:
        command = self._asked(b"SEARCH")
        if told and isinstance(told[0], list):
            if told.pop(0) != [b"TAG", command.tag]:
                raise Violation("ESEARCH for another tag")
        else:
            raise Violation("ESEARCH without a tag")
        by_uid = b"UID" in told[:1]
        if by_uid != command.by_uid:
            raise Violation("ESEARCH in the wrong kind of numbers")
        items = pairs(told[by_uid:])
        found = numbers(items[b"ALL"]) if b"ALL" in items else []
        if number(items[b"COUNT"]) != len(found):
            raise Violation("COUNT is not the count of ALL")
        if found and (number(items[b"MIN"]), number(items[b"MAX"])) != (min(found), max(found)):
            raise Violation("MIN and MAX are not those of ALL")
        self._found(command, found)

    def _status(self, mailbox: Value, items: Value) -> None:
        command = self._any(b"STATUS")
        if command is None or not isinstance(mailbox, bytes) or not isinstance(items, list):
            raise Violation("no STATUS")
        if mailbox != command.mailbox:
            raise Violation(f"STATUS of {mailbox!r} where {command.mailbox!r} was asked")
        told = {name: number(value) for name, value in pairs(items).items()}
        self._ledger.told_validity(mailbox, told[b"UIDVALIDITY"])
        selected = self.picture is not None and self.picture.mailbox == mailbox
        if not selected and told[b"UIDNEXT"] <= self._highest[command.tag]:
            raise Violation(f"UIDNEXT {told[b'UIDNEXT']} where UID {self._highest[command.tag]} was told before")
        self.told_status[mailbox] = told

    def _copied(self, command: Command, value: bytes) -> None:
        validity, *sets = value.split()
        sources, copies = map(numbers, sets)
        if len(sources) != len(copies):
            raise Violation("COPYUID with sets of different size")
        picture = self.picture
        if picture is None:
            raise Violation("COPYUID where no mailbox is selected")
        self._ledger.told_validity(command.mailbox, int(validity))
        meant = {message.uid for message in command.targets}
        if None not in meant and not command.open_ended and not meant.issuperset(sources):
            raise Violation(f"UIDs {set(sources) - meant} are copied and were not meant")
        for source, copy in zip(sources, copies, strict=True):
            self._ledger.told_uid(command.mailbox, copy)
            if token := self._ledger.token_of(picture.mailbox, source):
                self._ledger.told_token(command.mailbox, copy, token)

    # -- completions ---------------------------------------------------------------------------------------------

    def _tagged(self, response: bytes) -> None:
        found = _TAGGED.match(response)
        command = self.in_flight.pop(found[1], None) if found else None
        if found is None or command is None:
            raise Violation("an answer to no command that is in flight")
        code = _CODE.match(response, found.end())
        command.status, command.code = found[2].upper(), code[1].upper() if code else b""
        if command.status == b"BAD":
            raise Violation("BAD")
        if command.status == b"NO" and b"NO" not in command.may:
            if not command.targets:
                raise Violation("a refusal")
            self._gone(command.targets, f"NO to {shown(command.line)}")
        if command.change:
            self._changed(command)
        if self._ways.hides and (command.silent or command.verb == b"COPY"):
            for message in command.targets:
                message.flags = ()
        if command.verb in _SELECTING:
            self._opened(command)
        elif command.status == b"OK":
            self._done(command, code[2] or b"" if code else b"")

    def _done(self, command: Command, value: bytes) -> None:
        if command.code == b"CAPABILITY":
            self.capabilities = frozenset(value.upper().split())
        elif command.code == b"APPENDUID" and command.token:
            validity, uid = value.split()
            self._ledger.told_validity(command.mailbox, int(validity))
            self._ledger.told_token(command.mailbox, int(uid), command.token)
        elif command.code == b"COPYUID":
            self._copied(command, value)
        if command.verb in _LEAVING:
            self.picture = None
        if command.verb in (*_FINDING, b"STATUS") and command.responses != 1:
            raise Violation(f"{command.verb.decode()} without its data")
        unread = command.loose or (self._ways.misses and (command.content or command.verb in (b"SORT", b"THREAD")))
        if not unread and (command.needs or (command.verb in _FINDING and not command.open_ended)):
            for message in command.targets:
                if id(message) not in command.answered:
                    self._gone([message], f"no answer for it to {shown(command.line)}")

    def _opened(self, command: Command) -> None:
        self.picture, self.opening = self.opening, None
        picture = self.picture
        if picture is None or command.status != b"OK":
            raise Violation("a mailbox that cannot be selected")
        if command.code != (b"READ-ONLY" if picture.read_only else b"READ-WRITE"):
            raise Violation(f"{command.verb.decode()} is answered with [{command.code.decode()}]")
        if not picture.told_exists or not picture.known or b"UIDVALIDITY" not in picture.facts:
            raise Violation("a mailbox is selected, and not all is told of it")
        self._ledger.told_validity(command.mailbox, picture.facts[b"UIDVALIDITY"])
        if picture.facts.get(b"UIDNEXT", self._highest[command.tag] + 1) <= self._highest[command.tag]:
            raise Violation(f"UIDNEXT where UID {self._highest[command.tag]} was told before")
        if b"UNSEEN" in picture.facts:
            picture.at(picture.facts[b"UNSEEN"])
        picture.opened = True

    def _changed(self, command: Command) -> None:
        """A STORE is over: what its client takes the flags for from now on."""
        change = command.change
        if change is None:
            return
        sure = command.status == b"OK"
        for message in command.targets:
            told = id(message) in command.answered
            if not command.silent:
                unseen = message.flags and not told and sure
                if unseen and all(change.of(flags) != flags for flags in message.flags):
                    self._gone([message], f"nothing told of what {shown(command.line)} has changed")
            elif message.flags or (sure and not change.sign):
                after = {change.of(flags) for flags in message.flags or (frozenset(),)}
                if told or not sure:
                    after.update(message.flags)
                message.flags = tuple(after)
                message.because += (b"%b %b" % (command.tag, command.line),)
