"""Plays one case against one address and writes down what came back.

The transcript is a list of sections: each step as the dialogue has it, followed by the responses that arrived up to the
next wait, in their order, as they came (`normal.py` normalises them later).

A server without LITERAL+ or SASL-IR cannot be given `{5+}` or an initial response directly; the gate offers both.
So that such dialogues can be compared, the direct side is *translated*: the literal is announced as a synchronising one
and the response sent after the `+`, and that `+` is left out of the transcript.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field

from tests.integration.parity.dialogue import Case, HalfClose, Send, Step, Wait
from tests.integration.parity.templates import Values, fill
from tests.integration.wire import Wire, WireClosed, WireTimeout, connect

PATIENCE = 15.0
"""Seconds without an awaited response after which a transcript says so."""

_LITERAL = re.compile(rb"\{(\d+)\+\}\Z")
_ANY_LITERAL = re.compile(rb"\{(\d+)\+?\}\Z")
_INITIAL = re.compile(rb"(?i)^(\S+ AUTHENTICATE \S+) (\S+)\Z")
_VALIDITY = re.compile(rb"\[UIDVALIDITY (\d+)")
_MODSEQ = re.compile(rb"\[HIGHESTMODSEQ (\d+)")


@dataclass(frozen=True, slots=True)
class Account:
    """Where to play, and as whom."""

    host: str
    port: int
    user: str
    password: str
    prefix: str = ""
    separator: str = "/"
    translate: frozenset[str] = frozenset()
    """Which of LITERAL+ and SASL-IR this side lacks."""


@dataclass(slots=True)
class Transcript:
    """What was done and what came: `sections` alternates a shown step and the responses that followed it."""

    sections: list[tuple[str, list[bytes]]] = field(default_factory=list)
    timed_out: bool = False


@dataclass(slots=True)
class _Connection:
    """One connection of a case and what was read from it before anything waited for it."""

    wire: Wire
    values: Values
    early: list[bytes] = field(default_factory=list)
    plus: bool = False
    closed: bool = False
    done: set[bytes] = field(default_factory=set)
    """Tags completed and not used again: a later wait for one is met at once."""

    def next(self) -> bytes:
        """The next response, with what it teaches noted."""
        if self.early:
            return self.early.pop(0)
        return self.read()

    def read(self) -> bytes:
        """The next response from the wire."""
        response = self.wire.response()
        if found := _VALIDITY.search(response):
            self.values.uidvalidity = found[1].decode()
        if found := _MODSEQ.search(response):
            self.values.modseq = found[1].decode()
        if response.startswith(b"+ "):
            self.values.challenge = response[2:].strip()
        return response


def _meets(response: bytes, word: str) -> bool:
    if word == "+":
        return response.startswith(b"+")
    if word == "*":
        return response.startswith(b"* ")
    if word.startswith("~"):
        return word[1:].encode() in response
    return response.startswith(word.encode() + b" ")


class Player:
    """Plays `case` as `account`; `play` gives the transcript."""

    def __init__(self, case: Case, account: Account) -> None:
        self._case = case
        self._account = account
        self._connections: dict[int, _Connection] = {}
        self._transcript = Transcript()

    def play(self) -> Transcript:
        """The whole case, then a NOOP on each connection that is still open, to see what was left behind."""
        try:
            for step in self._case.steps:
                self._step(step)
            if not self._case.open:
                for number in sorted(self._connections):
                    if not self._connections[number].closed:
                        self._step(Send(number, ("zz NOOP<CR><LF>",)))
                        self._step(Wait(number, (("zz",),)))
            return self._transcript
        finally:
            for connection in self._connections.values():
                with contextlib.suppress(OSError):
                    connection.wire.send(b"zzz LOGOUT\r\n")
                connection.wire.close()

    def _connection(self, number: int) -> _Connection:
        if number not in self._connections:
            account = self._account
            wire = connect(account.host, account.port, greeting=not self._case.raw, timeout=PATIENCE)
            values = Values(account.user, account.password, account.prefix, account.separator)
            if not self._case.raw:
                wire.login(account.user, account.password)
            self._connections[number] = _Connection(wire, values)
        return self._connections[number]

    def _step(self, step: Step) -> None:
        connection = self._connection(step.connection)
        mark = "" if step.connection == 1 else str(step.connection)
        match step:
            case Send():
                if step.after_plus and not connection.plus:
                    return
                self._transcript.sections.append((f"{mark}C: {step.shown}", []))
                data = fill("".join(step.lines), connection.values)
                connection.done.difference_update(line.partition(b" ")[0] for line in data.split(b"\r\n"))
                with contextlib.suppress(OSError):
                    self._send(connection, data)
            case HalfClose():
                self._transcript.sections.append((f"{mark}C: half-close", []))
                with contextlib.suppress(OSError):
                    connection.wire.half_close()
            case Wait():
                shown = " ".join("|".join(either) for either in step.conditions)
                got: list[bytes] = []
                self._transcript.sections.append((f"{mark}S: until {shown}", got))
                self._wait(connection, step, got)

    def _wait(self, connection: _Connection, step: Wait, got: list[bytes]) -> None:
        to_the_end = ("EOF",) in step.conditions
        open_conditions = [
            either
            for either in step.conditions
            if either != ("EOF",) and connection.done.isdisjoint(word.encode() for word in either)
        ]
        connection.plus = False
        try:
            while (open_conditions or to_the_end) and not connection.closed:
                response = connection.next()
                got.append(response)
                if not response.startswith((b"+", b"*")):
                    connection.done.add(response.partition(b" ")[0])
                for either in open_conditions:
                    if any(_meets(response, word) for word in either):
                        open_conditions.remove(either)
                        connection.plus = response.startswith(b"+")
                        break
        except WireClosed:
            connection.closed = True
            if rest := connection.wire.eof():
                got.append(rest)
            got.append(b"<closed>")
        except WireTimeout:
            self._transcript.timed_out = True
            connection.closed = True
            got.append(b"<nothing more came>")

    # The direct side's translation

    def _send(self, connection: _Connection, data: bytes) -> None:
        if not self._account.translate:
            connection.wire.send(data)
            return
        with contextlib.suppress(WireClosed):
            while data:
                data = self._send_command(connection, data)

    def _send_command(self, connection: _Connection, data: bytes) -> bytes:
        """Send the first command of `data`, piece by piece where it needs a translation; returns the rest."""
        literals = "LITERAL+" in self._account.translate
        tag = data.split(b" ", 1)[0]
        out = b""
        while True:
            line, newline, data = data.partition(b"\r\n")
            if "SASL-IR" in self._account.translate and (initial := _INITIAL.match(line)):
                if self._asked(connection, tag, out + initial[1]):
                    connection.wire.send((b"" if initial[2] == b"=" else initial[2]) + b"\r\n")
                return data
            if not literals or not (found := _ANY_LITERAL.search(line)):
                connection.wire.send(out + line + newline)
                return data
            size = int(found[1])
            if not _LITERAL.search(line):
                connection.wire.send(out + line + newline)
                return data
            accepted = self._asked(connection, tag, out + line[: found.start()] + b"{%d}" % size)
            out, data = data[:size], data[size:]
            if not accepted:
                return self._after_command(data)

    def _asked(self, connection: _Connection, tag: bytes, line: bytes) -> bool:
        """Send `line`, wait for its ``+`` (True; not written down) or the command's completion."""
        connection.wire.send(line + b"\r\n")
        while True:
            response = connection.read()
            if response.startswith(b"+"):
                return True
            connection.early.append(response)
            if response.startswith(tag + b" "):
                return False

    def _after_command(self, data: bytes) -> bytes:
        """What follows the rest of a refused command, whose remaining literals are left out too."""
        while True:
            line, _, data = data.partition(b"\r\n")
            found = _LITERAL.search(line)
            if not found:
                return data
            data = data[int(found[1]) :]


def play(case: Case, account: Account) -> Transcript:
    """Play `case` as `account`."""
    return Player(case, account).play()
