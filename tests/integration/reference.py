"""A second, strict reading of a client's command stream, written from RFC 3501 and PROTOCOL.md §2 alone.

It shares no code with imapgate.  Given the bytes a logged-in client sent, it says which sequences of commands an
upstream may have been asked to run: `allowed` finds whether what a recorder saw is a subsequence of a legal reading.

Where the outcome hangs on an answer (a synchronising literal may be accepted or refused) both readings are legal; a
non-synchronising literal has one: its octets are never a command.
"""

from __future__ import annotations

import re
from typing import NamedTuple

Token = tuple[str, bytes]
"""("a", atom), ("s", string value), ("(", b""), (")", b"")."""

HEADER = re.compile(rb"~?\{(0|[1-9][0-9]{0,18})(\+?)\}\Z")
TAG = re.compile(rb"[\x21-\x7e]{1,64}\Z")
TAG_NOT = re.compile(rb'[(){%*"\\+]')
QUOTED = re.compile(rb'"((?:[^"\\\r\n\x00\x80-\xff]|\\["\\])*)"')
# Wider than RFC 3501's atom: list wildcards, flags, fetch sections and partials are told apart by the grammar above.
ATOM = re.compile(rb'(?:[^\x00-\x20\x7f-\xff(){"\[\]]|\[[^\]\x00-\x1f\x7f-\xff]*\]|[\[\]])+')

NO_ARGUMENT = frozenset(b"NOOP CHECK CLOSE EXPUNGE UNSELECT IDLE LOGOUT CAPABILITY NAMESPACE".split())
ARGUMENTS = {
    b"SELECT": 1, b"EXAMINE": 1, b"CREATE": 1, b"DELETE": 1, b"RENAME": 2, b"SUBSCRIBE": 1, b"UNSUBSCRIBE": 1,
    b"LIST": 2, b"LSUB": 2, b"STATUS": 2, b"APPEND": 2, b"SEARCH": 1, b"FETCH": 2, b"STORE": 3, b"COPY": 2, b"MOVE": 2,
    b"ENABLE": 1, b"ID": 1, b"GETQUOTAROOT": 1, b"GETQUOTA": 1, b"GETACL": 1, b"MYRIGHTS": 1, b"SORT": 3, b"THREAD": 3,
    b"UID FETCH": 2, b"UID STORE": 3, b"UID COPY": 2, b"UID MOVE": 2, b"UID SEARCH": 1, b"UID EXPUNGE": 1,
    b"UID SORT": 3, b"UID THREAD": 3,
}  # fmt: skip
"""Verb: fewest arguments."""
OWN = frozenset(b"LOGIN AUTHENTICATE CAPABILITY STARTTLS LOGOUT ID".split())
"""Commands that a gate sends upstream in its own words."""


class Reading(NamedTuple):
    """One command line as read from a position: what it says, and where reading may go on."""

    verb: bytes
    tokens: tuple[Token, ...] | None
    """The arguments; None: not a legal command."""
    ends: tuple[int, ...]
    """Offsets at which the next command may start, the last being where this one ends; none: it must be closed."""


class _Line:
    """Tokens of one command, gathered piece by piece."""

    def __init__(self) -> None:
        self.tokens: list[Token] = []
        self.legal = True
        self.depth = 0
        self.after_literal = False

    def feed(self, piece: bytes) -> None:
        """Take the text of a piece, its literal header cut off."""
        at, size = 0, len(piece)
        # A literal is a token: what follows it is a space, a closing parenthesis or the end.
        gap = not self.after_literal
        while at < size and self.legal:
            char = piece[at : at + 1]
            if char == b" ":
                # One space between tokens; none at the start of a list or the end of anything.
                follow = piece[at + 1 : at + 2]
                self.legal = not gap and follow not in (b" ", b")")
                gap, at = True, at + 1
            elif char == b"(":
                self.legal = gap
                self.tokens.append(("(", b""))
                self.depth += 1
                gap, at = True, at + 1
            elif char == b")":
                self.depth -= 1
                self.legal = self.depth >= 0
                self.tokens.append((")", b""))
                gap, at = False, at + 1
            elif not gap:
                self.legal = False
            elif found := QUOTED.match(piece, at):
                self.tokens.append(("s", re.sub(rb'\\(["\\])', rb"\1", found[1])))
                gap, at = False, found.end()
            elif found := ATOM.match(piece, at):
                self.tokens.append(("a", found[0]))
                gap, at = False, found.end()
            else:
                self.legal = False
        self.open_gap = gap

    def literal(self, octets: bytes) -> None:
        """Take a literal's octets."""
        self.legal = self.legal and self.open_gap
        self.tokens.append(("s", octets))
        self.after_literal = True

    def arguments(self) -> int:
        """Count the arguments at the outermost level."""
        depth = count = 0
        for kind, _ in self.tokens:
            count += depth == 0 and kind != ")"
            depth += (kind == "(") - (kind == ")")
        return count


def read_command(stream: bytes, start: int, limit: int) -> Reading | None:
    """Read the command at ``start``; None when the stream ends within it.  ``limit``: largest argument literal."""
    line, verb, at, first = _Line(), b"", start, True
    refused: list[int] = []
    while True:
        end = stream.find(b"\r\n", at)
        text = stream[at:] if end < 0 else stream[at:end]
        if re.search(rb"[\r\n\x00]", text):
            # A trailing CR may still become a CRLF, but the stream ends here either way.
            return Reading(b"", None, tuple(refused))
        if end < 0:
            return Reading(b"", None, tuple(refused)) if refused else None
        header = HEADER.search(text)
        if header and header.start() and text[header.start() - 1 : header.start()] not in (b" ", b"("):
            header = None
        body = text[: header.start()] if header else text
        # Inside quotes, or right behind a literal, it is no token of its own: it may or may not be taken for a literal.
        doubtful = header is not None and (not body or len(re.findall(rb'(?<!\\)(?:\\\\)*"', body)) % 2 == 1)
        if first:
            verb, rest, legal = _head(body)
            line.legal = legal
            first = False
            if legal:
                line.feed(rest)
        elif line.legal:
            line.feed(body)
        at = end + 2
        if header is None:
            # A space stands between two tokens, and behind the last there is none.
            line.legal = line.legal and not text.endswith(b" ")
            return Reading(verb, _judge(verb, line), (*refused, at))
        size, direct = int(header[1]), bool(header[2])
        if doubtful or not direct:
            refused.append(at)
        if doubtful:
            line.legal = False
        if size > limit and verb != b"APPEND":
            line.legal = False
        if at + size > len(stream):
            return Reading(b"", None, tuple(refused)) if refused else None
        line.literal(stream[at : at + size])
        at += size


def _head(body: bytes) -> tuple[bytes, bytes, bool]:
    """Split tag, verb and arguments; the third value says whether tag and verb are legal."""
    tag, _, text = body.partition(b" ")
    verb, _, rest = text.partition(b" ")
    verb = verb.upper()
    if verb == b"UID":
        second, _, rest = rest.partition(b" ")
        verb += b" " + second.upper()
    legal = bool(TAG.match(tag)) and not TAG_NOT.search(tag)
    return verb, rest, legal


def _judge(verb: bytes, line: _Line) -> tuple[Token, ...] | None:
    """Give the tokens of a legal command, else None."""
    if not line.legal or line.depth:
        return None
    if verb in NO_ARGUMENT:
        return None if line.tokens else ()
    if verb not in ARGUMENTS or line.arguments() < ARGUMENTS[verb]:
        return None
    return tuple(line.tokens)


def same(seen: tuple[Token, ...], legal: tuple[Token, ...]) -> bool:
    """Whether two argument lists mean the same: atoms in any case, a string quoted, bare or as a literal."""
    if len(seen) != len(legal):
        return False
    for (kind, value), (other_kind, other) in zip(seen, legal, strict=True):
        if kind == other_kind == "s":
            # INBOX is one name however it is written (RFC 3501 §5.1).
            if value != other and not value.upper() == other.upper() == b"INBOX":
                return False
        elif {kind, other_kind} <= {"a", "s"}:
            if value.upper() != other.upper():
                return False
        elif kind != other_kind:
            return False
    return True


def tokens_of(raw: bytes) -> tuple[bytes, tuple[Token, ...] | None]:
    """Read one whole recorded command: its verb, and its arguments or None when it is not even legal."""
    reading = read_command(raw, 0, 1 << 62)
    if reading is None or len(raw) not in reading.ends:
        return b"", None
    return reading.verb, reading.tokens


def allowed(stream: bytes, recorded: list[bytes], limit: int = 65536) -> str:
    """Say why ``recorded`` (raw commands, in order) is no subsequence of a legal reading of ``stream``; empty: it is.

    Commands that the gate makes itself (`OWN`) are passed over, and ENABLE is compared by its verb alone.
    """
    wanted = []
    for raw in recorded:
        verb, tokens = tokens_of(raw)
        if verb in OWN:
            continue
        if tokens is None:
            return f"upstream was sent what is no legal command: {raw!r}"
        wanted.append((verb, tokens, raw))
    best = {0: 0}
    furthest = 0
    while best:
        at = min(best)
        done = best.pop(at)
        reading = read_command(stream, at, limit)
        if reading is None:
            furthest = max(furthest, done)
            continue
        ends: tuple[int, ...] = reading.ends
        for end in ends[:-1]:  # where the gate or the server refused a literal, the command was not run
            best[end] = max(best.get(end, 0), done)
        if reading.tokens is not None:
            if done < len(wanted):
                verb, tokens, _ = wanted[done]
                if verb == reading.verb and (verb == b"ENABLE" or same(tokens, reading.tokens)):
                    done += 1
            if reading.verb == b"LOGOUT":
                ends = ()
            elif reading.verb == b"IDLE":
                # What follows is DONE, or the connection ends.
                close = stream.find(b"\r\n", ends[-1])
                idle_over = close >= 0 and stream[ends[-1] : close].upper() == b"DONE"
                ends = (close + 2,) if idle_over else ()
        furthest = max(furthest, done)
        for end in ends[-1:]:
            best[end] = max(best.get(end, 0), done)
    if furthest < len(wanted):
        return f"upstream was sent {wanted[furthest][2]!r}, which the client's stream does not hold as a command"
    return ""
