"""The arguments of a client's command, as tokens.

Knows the lexical grammar every command shares (RFC 3501 §9: atom, quoted, literal, parenthesised
list, ``BODY[section]<partial>``) and nothing of what any command means.  The tokeniser never
recurses, and takes a command in pieces, since a literal ends a line but not the command.
"""

from __future__ import annotations

import re
from typing import NamedTuple

ATOM, QUOTED, LITERAL, OPEN, CLOSE = range(5)


class Token(NamedTuple):
    """One token: ``kind`` is ATOM, QUOTED, LITERAL, OPEN or CLOSE; ``value`` is without quotes and escapes."""

    kind: int
    value: bytes


class Announcement(NamedTuple):
    """``{size}``, ``{size+}`` or ``~{size}`` at the end of a line (RFC 3501 §4.3, RFC 7888, RFC 3516)."""

    size: int
    synchronising: bool
    binary: bool


class TokenError(ValueError):
    """A line that is not made of tokens; the message says where and what was expected."""


# An atom is here any run of printable ASCII that opens no other token: flags, sequence sets, wildcards
# and both ends of "BODY[HEADER.FIELDS (…)]<0.9>" included.  Which of them an argument may be is for the
# command table to say.
_GRAMMAR = (
    rb"( ?)(?:"
    rb"((?!~\{)[!#-'*-z|}~]+)"
    rb'|"((?:[\t !#-\[\]-~]|\\["\\])*+)"'
    rb"|(\()|(\))"
    rb"|(~?)\{(0|[1-9][0-9]{0,18})(\+?)\}\Z)"
)
_TOKEN = re.compile(_GRAMMAR)
_TOKEN_UTF8 = re.compile(_GRAMMAR.replace(rb"\]-~]|", rb"\]-~\x80-\xff]|"))
_ATOM, _QUOTED, _OPEN, _CLOSE, _LITERAL = 2, 3, 4, 5, 8  # the groups that were matched last
_ESCAPE = re.compile(rb'\\(["\\])')

_SPACE, _BRACKET = b" ]"
_OPEN_TOKEN = Token(OPEN, b"(")
_CLOSE_TOKEN = Token(CLOSE, b")")


def unescaped(value: bytes) -> bytes:
    """What stands between the quotes of a quoted string, without its backslashes (RFC 3501 §9)."""
    return _ESCAPE.sub(rb"\1", value)


class Tokens:
    """The tokens of one command, taken in line by line.

    :ivar items: the tokens so far, in order, a flat list
    :ivar depth: how many lists are open
    """

    __slots__ = ("_first", "_nesting", "_pattern", "_section", "depth", "items")

    def __init__(self, nesting: int, utf8: bool = False) -> None:
        self.items: list[Token] = []
        self.depth = 0
        self._nesting = nesting
        self._pattern = _TOKEN_UTF8 if utf8 else _TOKEN
        self._first = True
        self._section = 0  # the depth of the list inside a section, while there is one

    def feed(self, text: bytes) -> Announcement | None:
        """Take the next line of the command, without its CRLF.

        :return: the literal announced at its end, or ``None``: the command is whole.
        :raise TokenError: it is no line of tokens, or its lists do not close or nest too deep.
        """
        position = 0
        items = self.items
        # A space stands before every token but the first, the first of a list, ")", and the end of a section.
        bare, ending, self._first = self._first, False, False
        for found in self._pattern.finditer(text):
            start, stop = found.span()
            if start != position:  # what stands between two tokens is none
                break
            group, position, spaced = found.lastindex, stop, text[start] == _SPACE
            if ending:
                if spaced or group != _ATOM or found[2][0] != _BRACKET:
                    raise TokenError(f'expected "]" at octet {start + 1} of the arguments')
            elif group == _CLOSE:
                if spaced or not self.depth:
                    raise TokenError(f'unexpected ")" at octet {position} of the arguments')
                if self.depth == self._section:
                    self._section, ending = 0, True
                self.depth -= 1
                items.append(_CLOSE_TOKEN)
                bare = False
                continue
            elif spaced is bare:
                wanted = "no space" if bare else "a space"
                raise TokenError(f"expected {wanted} at octet {start + 1} of the arguments")
            bare = ending = False
            if group == _ATOM:
                if self._section and b"]" in found[2]:  # servers disagree on where the section ends
                    raise TokenError(f'unexpected "]" before octet {position + 1} of the arguments')
                items.append(Token(ATOM, found[2]))
            elif group == _QUOTED:
                value = found[3]
                items.append(Token(QUOTED, unescaped(value) if b"\\" in value else value))
            elif group == _OPEN:
                self._open()
                bare = True
            else:
                return Announcement(int(found[7]), not found[8], bool(found[6]))
        if position != len(text):
            raise TokenError(f"unexpected character at octet {position + 1} of the arguments")
        if self.depth:
            raise TokenError('a "(" is never closed')
        if ending:
            raise TokenError('expected "]" at the end of the arguments')
        return None

    def _open(self) -> None:
        items = self.items
        self.depth += 1
        if self.depth > self._nesting:
            raise TokenError(f"lists nested more than {self._nesting} deep")
        last = items[-1].value if items and items[-1].kind == ATOM else b""
        if last.rfind(b"[") > last.rfind(b"]"):  # a section (RFC 3501 §9), or what some servers take for one
            if self._section:
                raise TokenError("a section inside the list of a section")
            self._section = self.depth
        items.append(_OPEN_TOKEN)

    def literal(self, content: bytes) -> None:
        """Add the content of the literal announced last."""
        self.items.append(Token(LITERAL, content))
