"""What a command says: its mailboxes, its messages, its flags, read from its tokens.

It is for those who judge and record commands, so it reads as the most lenient server would, and never fails: a
name is one name however it was written, and what no server should take is shown rather than left out.  It must
not know what the answer to a command is, nor which mailbox is selected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, update_wrapper
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from imapgate.model.commands import Command
from imapgate.wire.mailbox import canonical, decoded
from imapgate.wire.tokens import ATOM, CLOSE, OPEN, Token, Tokens
from imapgate.wire.writer import Literal, quotable, quoted

_V = TypeVar("_V")

_PATTERNS = frozenset(["LIST", "LSUB", "XLIST", "SCAN"])
_SEARCHES = frozenset(["SEARCH", "SORT", "THREAD", "ESEARCH"])
_STORES_MESSAGES = frozenset(["APPEND", "REPLACE"])
_HAVE_DESTINATION = frozenset(["COPY", "MOVE", "REPLACE", "APPEND", "RENAME"])
_ANNOTATIONS = frozenset(["GETANNOTATION", "SETANNOTATION"])
_OPTIONS = frozenset([b"MAXSIZE", b"DEPTH"])
"""What an option list of GETMETADATA is made of (RFC 5464 §4.2)."""
_SOURCES = frozenset([b"MAILBOXES", b"SUBTREE", b"SUBTREE-ONE"])
"""What a mailbox, or a list of them, stands behind in the sources of ESEARCH (RFC 7377 §2.2)."""
_STORE = re.compile(rb"([+-]?)FLAGS(\.SILENT)?", re.IGNORECASE)
_SIMPLE = re.compile(rb"[^ ]+ (\([^()]*\)|[^() ]+)")
"""The plain arguments of nearly every FETCH: the messages, and one item or one list."""
_FAST = ("FLAGS", "INTERNALDATE", "RFC822.SIZE")
_MACROS = {"FAST": _FAST, "ALL": (*_FAST, "ENVELOPE"), "FULL": (*_FAST, "ENVELOPE", "BODY")}
"""RFC 3501 §6.4.5."""


class Store(NamedTuple):
    """What STORE does to flags: ``sign`` is ``+``, ``-`` or empty; ``silent``: nobody wants to be told of it."""

    sign: str
    silent: bool
    flags: tuple[str, ...]


def _once(find: Callable[[Reading], _V]) -> Callable[[Reading], _V]:
    """Find it when it is first asked for, and keep it."""
    name = find.__name__

    def kept(reading: Reading) -> _V:
        found = reading._found
        if name not in found:
            found[name] = find(reading)
        value: _V = found[name]
        return value

    return update_wrapper(kept, find)


class Reading:
    """A client's command, and what it says; it cannot be changed, and each thing is read when it is asked for.

    :param message_size: octets of the message that is announced, 0: none
    :param utf8: quoted strings may be UTF-8 (RFC 6855)
    """

    __slots__ = ("_command", "_found", "_message_size", "_utf8")

    def __init__(self, command: Command, *, message_size: int = 0, utf8: bool = False) -> None:
        self._command = command
        self._message_size = message_size
        self._utf8 = utf8
        self._found: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Reading({self._command!r})"

    @property
    def command(self) -> Command:
        """The command itself: its tag, its row of the table, its parts."""
        return self._command

    @property
    def message_size(self) -> int:
        """Octets of the message that is announced, 0: none."""
        return self._message_size

    @property
    def verb(self) -> str:
        """The verb in upper case, such as ``UID FETCH``."""
        return self._command.rule.verb.decode("ascii")

    @property
    def name(self) -> str:
        """The verb without ``UID``, such as ``FETCH``."""
        return self._command.rule.verb.removeprefix(b"UID ").decode("ascii")

    @property
    def uid(self) -> bool:
        """Whether its numbers are UIDs."""
        return self._command.rule.verb.startswith(b"UID ")

    @property
    @_once
    def tokens(self) -> tuple[Token, ...]:
        """Its arguments as tokens; a message that stands among them is an empty literal."""
        command = self._command
        if command.tokens or not command.parts:
            return command.tokens
        tokens = Tokens(1, self._utf8)
        tokens.feed(_plain(command))
        return tuple(tokens.items)

    @property
    @_once
    def mailboxes(self) -> tuple[str, ...]:
        """The canonical names of the mailboxes that it names, but for patterns and URLs, in their order."""
        return tuple(canonical(raw) for raw in self._raw_mailboxes)

    @property
    def mailbox_raw(self) -> bytes:
        """The first of its mailboxes, as it came, without quotes; empty: it names none."""
        return self._raw_mailboxes[0] if self._raw_mailboxes else b""

    @property
    @_once
    def _raw_mailboxes(self) -> tuple[bytes, ...]:
        name, shape = self.name, self._command.rule.shape
        if name in _PATTERNS:
            return ()
        if name == "ESEARCH":
            return tuple(_sources(self.tokens))
        if name == "GETMETADATA":
            return tuple(_of_metadata(self._arguments[:-1]))
        if name in _ANNOTATIONS:
            return tuple(_values(self._arguments[0]))
        return tuple(_word(self._command, index) for index, kind in enumerate(shape) if kind == "mailbox")

    @property
    def _arguments(self) -> list[tuple[Token, ...]]:
        return list(_arguments(self.tokens))

    @property
    @_once
    def patterns(self) -> tuple[str, ...]:
        """Of LIST, LSUB, XLIST and SCAN: the reference with the pattern, or with each of the patterns, decoded."""
        if self.name not in _PATTERNS:
            return ()
        arguments = self._arguments
        if arguments[0][0].kind == OPEN:  # what to select by (RFC 5258 §3)
            del arguments[0]
        reference = arguments[0][0].value
        return tuple(decoded(reference + pattern) for argument in arguments[1:2] for pattern in _values(argument))

    @property
    def destination(self) -> str:
        """Where COPY, MOVE, REPLACE or APPEND puts messages, or what RENAME makes of a mailbox; empty: nowhere."""
        return self.mailboxes[-1] if self.name in _HAVE_DESTINATION else ""

    @property
    def sequence(self) -> bytes:
        """Which messages: its sequence set; empty: it has none."""
        command = self._command
        return _word(command, 0) if command.rule.shape[:1] == ("sequence",) else b""

    @property
    @_once
    def items(self) -> tuple[str, ...]:
        """What FETCH wants, in upper case, macros expanded, quotes and literals gone.

        Such as ``FLAGS``, ``BINARY[1]``, ``BODY.PEEK[HEADER.FIELDS (FROM TO)]<0.100>``.  What stands in a list
        of its own, as in ``PREVIEW (LAZY)``, stands for itself; modifiers are not among them.
        """
        if self.name != "FETCH":
            return ()
        simple = None if self._command.tokens else _SIMPLE.fullmatch(_plain(self._command))
        return _simple_items(simple[1]) if simple else _expanded(_items(self.tokens[1:]))

    @property
    @_once
    def store(self) -> Store | None:
        """What STORE does to flags; ``None``: it is none, or changes something else."""
        if self.name != "STORE":
            return None
        arguments = self._arguments[1:]
        if arguments[0][0].kind == OPEN:  # UNCHANGEDSINCE (RFC 7162 §3.1.3)
            del arguments[0]
        what = _STORE.fullmatch(arguments[0][0].value)
        if what is None:
            return None
        flags = (_flag(value) for argument in arguments[1:] for value in _values(argument))
        return Store(what[1].decode("ascii"), what[2] is not None, tuple(flags))

    @property
    @_once
    def flags(self) -> tuple[str, ...]:
        """The flags of the messages that APPEND or REPLACE stores, those of the system as ``\\Seen``."""
        lists = (argument for label, argument in self._behind_mailbox if not label)
        return tuple(_flag(value) for argument in lists for value in _values(argument))

    @property
    @_once
    def urls(self) -> tuple[str, ...]:
        """The URLs of the messages, or parts of them, that CATENATE puts together (RFC 4469)."""
        lists = (argument for label, argument in self._behind_mailbox if label == b"CATENATE")
        return tuple(
            value.decode("utf-8", "backslashreplace")
            for argument in lists
            for (_, keyword), (kind, value) in pairwise(argument)
            if keyword.upper() == b"URL" and kind not in (OPEN, CLOSE)
        )

    @property
    def _behind_mailbox(self) -> Iterator[tuple[bytes, tuple[Token, ...]]]:
        """The lists behind the mailbox of APPEND or REPLACE, with the word in front of each, upper case."""
        if self.name in _STORES_MESSAGES:
            label = b""
            for argument in self._arguments[self._command.rule.shape.index("mailbox") + 1 :]:
                if argument[0].kind == OPEN:
                    yield label, argument
                label = argument[0].value.upper() if argument[0].kind == ATOM else b""

    @property
    @_once
    def criteria(self) -> bytes:
        """The arguments of SEARCH, SORT, THREAD or ESEARCH in one line.

        Literals are quoted strings, or ``{n}`` and their octets where they cannot be.
        """
        if self.name not in _SEARCHES:
            return b""
        return b"".join(part if isinstance(part, bytes) else _in_line(part) for part in self._command.parts)[1:]


def _plain(command: Command) -> bytes:
    """The arguments of a plain command: its parts are a space, and them."""
    text = command.parts[1]
    assert isinstance(text, bytes)
    return text


def _word(command: Command, index: int) -> bytes:
    """The value of an argument that has no list in front of it."""
    return command.tokens[index].value if command.tokens else _plain(command).split(b" ", index + 1)[index]


def _arguments(tokens: tuple[Token, ...]) -> Iterator[tuple[Token, ...]]:
    """Cut tokens into arguments: one token, or a list with its parentheses."""
    start = depth = 0
    for position, token in enumerate(tokens, 1):
        depth += (token.kind == OPEN) - (token.kind == CLOSE)
        if not depth:
            yield tokens[start:position]
            start = position
    if depth:  # a message is announced in the middle of a list
        yield tokens[start:]


def _values(tokens: Sequence[Token]) -> Iterator[bytes]:
    """The values of tokens, lists opened."""
    return (token.value for token in tokens if token.kind not in (OPEN, CLOSE))


def _of_metadata(arguments: list[tuple[Token, ...]]) -> Iterator[bytes]:
    """The mailboxes of GETMETADATA; ``arguments`` are those in front of the entries.

    Options stand before or behind the mailbox (RFC 5464 and its errata), and Cyrus takes a list of mailboxes.
    """
    for argument in arguments:
        values = list(_values(argument))
        options = argument[0].kind == OPEN and {value.upper() for value in values[::2]} <= _OPTIONS
        if not options or len(arguments) == 1:
            yield from values


def _sources(tokens: tuple[Token, ...]) -> Iterator[bytes]:
    """The mailboxes in ``IN (…)`` of ESEARCH (RFC 7377 §2.2)."""
    arguments = list(_arguments(tokens))
    if arguments[0][0].value.upper() == b"IN" and len(arguments) > 1:
        inside = _arguments(arguments[1][1:-1])
        for argument in inside:
            if argument[0].value.upper() in _SOURCES:
                yield from _values(next(inside, ()))


def _items(tokens: tuple[Token, ...]) -> Iterator[bytes]:
    """The items of FETCH; ``tokens`` are those behind the sequence set."""
    wanted: list[Token] = []
    for argument in _arguments(tokens):
        if wanted and argument[0].kind == OPEN and not _opens_section(wanted[-1]):
            continue  # modifiers (RFC 4466 §2.4)
        wanted += argument
    position = 0
    while position < len(wanted):
        token = wanted[position]
        position += 1
        value = token.value
        if token.kind in (OPEN, CLOSE):
            continue
        if _opens_section(token) and position < len(wanted) and wanted[position].kind == OPEN:
            end = position
            while wanted[end].kind != ATOM or not wanted[end].value.startswith(b"]"):
                end += 1
            value = b"%b (%b)%b" % (value, b" ".join(_values(wanted[position:end])), wanted[end].value)
            position = end + 1
        yield value


@lru_cache(256)
def _simple_items(text: bytes) -> tuple[str, ...]:
    """The items of a flat list; clients ask for the same ones again and again."""
    return _expanded(text.strip(b"()").split())


def _expanded(items: Iterable[bytes]) -> tuple[str, ...]:
    names = [item.upper().decode("utf-8", "backslashreplace") for item in items]
    return tuple(expanded for name in names for expanded in _MACROS.get(name, (name,)))


def _opens_section(token: Token) -> bool:
    return token.kind == ATOM and token.value.rfind(b"[") > token.value.rfind(b"]")


def _flag(value: bytes) -> str:
    """A flag; system flags are written in any case (RFC 3501 §2.3.2)."""
    text = value.decode("utf-8", "backslashreplace")
    return "\\" + text[1:].capitalize() if text.startswith("\\") else text


def _in_line(literal: Literal) -> bytes:
    content = literal.content
    return quoted(content) if quotable(content) else b"{%d}%b" % (len(content), content)
