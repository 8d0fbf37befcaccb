"""Writing: canonical strings, and commands in the pieces that may be sent at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.wire.tokens import QUOTED, Token, Tokens
from imapgate.wire.writer import QUOTED_MOST, Literal, Part, parts_of, quotable, quoted, segments, string

LONG = b"x" * (QUOTED_MOST + 1)

STRINGS = {
    b"": b'""',
    b"INBOX": b'"INBOX"',
    b'a"b\\c': b'"a\\"b\\\\c"',
    b"{5+}": b'"{5+}"',
    b"x" * QUOTED_MOST: b'"' + b"x" * QUOTED_MOST + b'"',
    LONG: Literal(LONG),
    b"a\r\nb": Literal(b"a\r\nb"),
    b"a\n": Literal(b"a\n"),
    b"\0": Literal(b"\0"),
    b"\t": Literal(b"\t"),
    b"\x7f": Literal(b"\x7f"),
    "ü".encode(): Literal("ü".encode()),
}


@pytest.mark.parametrize("value", STRINGS, ids=lambda value: ascii(value[:12]))
def test_string(value: bytes) -> None:
    """A string argument is quoted where every server takes it so, else a literal."""
    assert string(value) == STRINGS[value]
    assert quotable(value) is isinstance(STRINGS[value], bytes)


@given(st.text([chr(code) for code in range(32, 127)]).map(str.encode))
def test_quoted_is_read_again(value: bytes) -> None:
    """What is quoted is read as the same value."""
    tokens = Tokens(0)
    assert tokens.feed(quoted(value)) is None
    assert tokens.items == [Token(QUOTED, value)]


SHORT = b'a "b" (c)'
PARTS: list[tuple[bytes, list[Part]]] = [
    (b"", []),
    (SHORT, [SHORT]),
    (LONG, [LONG]),
    (b'"b" ' + LONG, [b'"b" ' + LONG]),
    (b'a "' + LONG + b'" b', [b"a ", Literal(LONG), b" b"]),
    (b'"' + LONG + b'"', [b"", Literal(LONG), b""]),
    (b'("' + LONG + b'" "' + LONG + b'y" "z")', [b"(", Literal(LONG), b" ", Literal(LONG + b"y"), b' "z")']),
    (b'"\\"' + LONG + b'\\\\"', [b"", Literal(b'"' + LONG + b"\\"), b""]),
    (b'"' + b"\\\\" * QUOTED_MOST + b'"', [b'"' + b"\\\\" * QUOTED_MOST + b'"']),
]


@pytest.mark.parametrize(("text", "parts"), PARTS, ids=range(len(PARTS)))
def test_parts_of(text: bytes, parts: list[Part]) -> None:
    """Validated arguments stay as they are, save that quoted strings too long for real servers become literals."""
    assert parts_of(text) == parts


SEGMENTS: list[tuple[list[Part], list[bytes]]] = [
    ([], [b"\r\n"]),
    ([b"g1 NOOP"], [b"g1 NOOP\r\n"]),
    ([b"g1 SELECT ", Literal(b"a b")], [b'g1 SELECT "a b"\r\n']),
    ([b"g1 SELECT ", Literal(b"\xff")], [b"g1 SELECT {1}\r\n", b"\xff\r\n"]),
    ([b"g1 APPEND x ", Literal(b"", True)], [b"g1 APPEND x ~{0}\r\n", b"\r\n"]),
    (
        [b"g1 LOGIN ", Literal(b"\xe4"), b" ", Literal(b"p"), b" ", Literal(b"\r\ng2 NOOP\r\n"), b" ."],
        [b"g1 LOGIN {1}\r\n", b'\xe4 "p" {11}\r\n', b"\r\ng2 NOOP\r\n .\r\n"],
    ),
]


@pytest.mark.parametrize(("parts", "pieces"), SEGMENTS, ids=range(len(SEGMENTS)))
def test_segments(parts: list[Part], pieces: list[bytes]) -> None:
    """Every piece but the last ends in a synchronising announcement; the next begins with that literal."""
    assert segments(parts) == pieces
    assert segments(tuple(parts)) == pieces


@given(st.lists(st.builds(Literal, st.binary(max_size=30), st.booleans()), max_size=6))
def test_segments_are_read_again(literals: list[Literal]) -> None:
    """A server that asks for each literal gets every value, and no octet too many."""
    parts: list[Part] = [b"g1 X"]
    for literal in literals:
        parts += [b" ", literal]
    pieces = segments(parts)
    values: list[bytes] = []
    rest = pieces.pop(0).removeprefix(b"g1 X")
    while rest != b"\r\n":
        rest = rest.removeprefix(b" ")
        if rest.startswith(b'"'):
            end = rest.replace(b"\\\\", b"..").replace(b'\\"', b"..").index(b'"', 1)
            values.append(rest[1:end].replace(b'\\"', b'"').replace(b"\\\\", b"\\") if end > 1 else b"")
            rest = rest[end + 1 :]
        else:
            size = int(rest.removeprefix(b"~").removeprefix(b"{").removesuffix(b"}\r\n"))
            rest = pieces.pop(0)
            values.append(rest[:size])
            rest = rest[size:]
    assert values == [literal.content for literal in literals]
    assert not pieces
