"""Tokens: a command's arguments, line by line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.wire.tokens import ATOM, CLOSE, LITERAL, OPEN, QUOTED, Announcement, Token, TokenError, Tokens
from imapgate.wire.writer import quoted

NESTING = 4
BEGIN, END = Token(OPEN, b"("), Token(CLOSE, b")")


def atoms(*values: bytes) -> list[Token]:
    """Atoms with these values."""
    return [Token(ATOM, value) for value in values]


def tokens(text: bytes, *, nesting: int = NESTING, utf8: bool = False) -> list[Token]:
    """The tokens of a command in one line."""
    taken = Tokens(nesting, utf8)
    assert taken.feed(text) is None
    return taken.items


SECTION = [*atoms(b"1", b"BODY.PEEK[HEADER.FIELDS"), BEGIN, *atoms(b"From", b"To"), END]
GOOD = {
    b"": [],
    b"INBOX": atoms(b"INBOX"),
    b"1:*,$ *": atoms(b"1:*,$", b"*"),
    b'"" "a b"': [Token(QUOTED, b""), Token(QUOTED, b"a b")],
    rb'"\"\\"': [Token(QUOTED, b'"\\')],
    b'"\t{9+}"': [Token(QUOTED, b"\t{9+}")],
    b"()": [BEGIN, END],
    b"(a (b) ())": [BEGIN, *atoms(b"a"), BEGIN, *atoms(b"b"), END, BEGIN, END, END],
    b'1 +FLAGS.SILENT (\\Deleted $x)': [*atoms(b"1", b"+FLAGS.SILENT"), BEGIN, *atoms(b"\\Deleted", b"$x"), END],
    b"a}b ~x % ~": atoms(b"a}b", b"~x", b"%", b"~"),
    b"1 BODY.PEEK[HEADER.FIELDS (From To)]": [*SECTION, *atoms(b"]")],
    b"1 BODY.PEEK[HEADER.FIELDS (From To)]<0.9>": [*SECTION, *atoms(b"]<0.9>")],
    b"BODY[1.HEADER.FIELDS.NOT (a)] b": [
        *atoms(b"BODY[1.HEADER.FIELDS.NOT"), BEGIN, *atoms(b"a"), END, *atoms(b"]", b"b"),
    ],
    b"(BINARY[1] BODY[] BODY[TEXT]<0.5>)": [BEGIN, *atoms(b"BINARY[1]", b"BODY[]", b"BODY[TEXT]<0.5>"), END],
    b"(BODY[HEADER.FIELDS (a)] FLAGS)": [
        BEGIN, *atoms(b"BODY[HEADER.FIELDS"), BEGIN, *atoms(b"a"), END, *atoms(b"]", b"FLAGS"), END,
    ],
}  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_good(text: bytes) -> None:
    """Well-formed arguments are these tokens."""
    assert tokens(text) == GOOD[text]


BAD = {
    b" ": "unexpected character at octet 1",
    b" a": "expected no space at octet 1",
    b"a  b": "unexpected character at octet 2",
    b"a ": "unexpected character at octet 2",
    b"a\tb": "unexpected character at octet 2",
    b"a\x7f": "unexpected character at octet 2",
    b"a\0": "unexpected character at octet 2",
    b"a\rb": "unexpected character at octet 2",
    b"\xc3\xa4": "unexpected character at octet 1",
    b'"\xc3\xa4"': "unexpected character at octet 1",
    b'"abc': "unexpected character at octet 1",
    rb'"a\b"': "unexpected character at octet 1",
    rb'"a\"': "unexpected character at octet 1",
    b'"a\nb"': "unexpected character at octet 1",
    b'"a""b"': "expected a space at octet 4",
    b'a"b"': "expected a space at octet 2",
    b"a(b)": "expected a space at octet 2",
    b"(a)b": "expected a space at octet 4",
    b"(a)(b)": "expected a space at octet 4",
    b"(a) b)": 'unexpected ")" at octet 6',
    b"( a)": "expected no space at octet 2",
    b"(a )": 'unexpected ")" at octet 4',
    b")": 'unexpected ")" at octet 1',
    b"(a": 'a "(" is never closed',
    b"(a)]": "expected a space at octet 4",
    b"BODY[HEADER.FIELDS (a)": 'expected "]" at the end',
    b"BODY[HEADER.FIELDS (a) ]": 'expected "]" at octet 23',
    b"BODY[HEADER.FIELDS (a)b]": 'expected "]" at octet 23',
    b"BODY[HEADER.FIELDS (a))": 'expected "]" at octet 23',
    b"BODY[HEADER.FIELDS (a])]": 'unexpected "]" before octet',
    b"(" * (NESTING + 1): f"nested more than {NESTING} deep",
}


@pytest.mark.parametrize("text", BAD)
def test_bad(text: bytes) -> None:
    """Anything else is refused, and the message says where and what was expected."""
    with pytest.raises(TokenError, match=re.escape(BAD[text])):
        tokens(text)


HEADERS = {
    b"{5}": Announcement(5, True, False),
    b"{5+}": Announcement(5, False, False),
    b"~{5}": Announcement(5, True, True),
    b"~{5+}": Announcement(5, False, True),
    b"{0}": Announcement(0, True, False),
    b"{0+}": Announcement(0, False, False),
    b"{4294967301+}": Announcement(4_294_967_301, False, False),
    b"{9999999999999999999}": Announcement(9_999_999_999_999_999_999, True, False),
}


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("before", [b"", b"a ", b'"a" ', b"(", b"(a (b) "])
def test_a13_literal_headers(before: bytes, header: bytes) -> None:
    """The exact forms of a literal's header are taken at a token's start, at the end of a line."""
    assert Tokens(NESTING).feed(before + header) == HEADERS[header]


NO_HEADERS = (
    b"{}", b"{+}", b"{+5}", b"{-5}", b"{05}", b"{05+}", b"{00}", b"{ 5}", b"{5 }", b"{5 +}", b"{5_0}", b"{5++}",
    b"{5-}", b"{0x5}", b"{5.0}", b"{5e1}", b"{five}", b"{5+}+", b"{{5}}", b"{5}}", b"{5", b"5}{", b"{5\0}", b"{5\t}",
    b"{18446744073709551621}", b"{99999999999999999999+}", b"{\xd9\xa5}", b"{5}\r", b"{5}\n", b"~~{5}", b"~{}",
    b"~{+5}",
)  # fmt: skip


@pytest.mark.parametrize("header", NO_HEADERS)
@pytest.mark.parametrize("before", [b"", b"a ", b"("])
def test_a13_no_literal_headers(before: bytes, header: bytes) -> None:
    """No other form is a header, and none of them is anything else either."""
    with pytest.raises(TokenError):
        Tokens(NESTING).feed(before + header)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("before", [b"x", b'"x', b'"x"', b"(a)", b"a}", b"\\", b"a~", b"{1}"])
def test_a13_headers_inside_a_token(before: bytes, header: bytes) -> None:
    """Inside an atom, inside an open quoted string or right behind a token there is no header."""
    with pytest.raises(TokenError):
        Tokens(NESTING).feed(before + header)


@pytest.mark.parametrize("header", HEADERS)
def test_a13_header_in_the_middle_of_a_line(header: bytes) -> None:
    """A header that does not end its line is an error."""
    with pytest.raises(TokenError):
        Tokens(NESTING).feed(header + b" x")


def test_line_by_line() -> None:
    """A literal ends a line and not the command; what follows it goes on like what follows any token."""
    taken = Tokens(NESTING)
    assert taken.feed(b"a ({3}") == Announcement(3, True, False)
    assert taken.depth == 1
    taken.literal(b"b\r\n")
    assert taken.feed(b" c {1+}") == Announcement(1, False, False)
    taken.literal(b"d")
    assert taken.feed(b") e") is None
    assert taken.items == [
        *atoms(b"a"), BEGIN, Token(LITERAL, b"b\r\n"), *atoms(b"c"), Token(LITERAL, b"d"), END, *atoms(b"e"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", [b"x", b"(x)", b'"x"', b"{1}", b") x)"])
def test_behind_a_literal(text: bytes) -> None:
    """Behind a literal a space or a closing parenthesis is expected, and no more are closed than were opened."""
    taken = Tokens(NESTING)
    taken.feed(b"({1}")
    taken.literal(b"y")
    with pytest.raises(TokenError):
        taken.feed(text)


def test_never_closed_behind_a_literal() -> None:
    """A list that a literal interrupts has to be closed all the same."""
    taken = Tokens(NESTING)
    taken.feed(b"({1}")
    taken.literal(b"y")
    with pytest.raises(TokenError, match="never closed"):
        taken.feed(b"")


@pytest.mark.parametrize("text", [b"ODY[X (a b)", b"x[ (MESSAGES)", b"a (b[ (c))"])
def test_an_open_bracket_before_a_list(text: bytes) -> None:
    """Some servers take any bracket for a section's: a list behind an open one is closed by its partner or refused."""
    with pytest.raises(TokenError, match="expected"):
        Tokens(9).feed(text)


def test_a_section_inside_a_section() -> None:
    """The names of one section hold no other: its closing bracket would hide that the first has none."""
    with pytest.raises(TokenError, match="section inside"):
        Tokens(9).feed(b"BODY[X (BODY[Y (a)] b)")


def test_section_with_literals() -> None:
    """The header names of a section may be literals; its bracket is expected all the same."""
    for rest, good in ((b")]", True), (b")]<0.1>", True), (b")", False), (b") a", False)):
        taken = Tokens(NESTING)
        assert taken.feed(b"1 BODY[HEADER.FIELDS ({4}") == Announcement(4, True, False)
        taken.literal(b"From")
        if good:
            assert taken.feed(rest) is None
            assert taken.items[-1].value.startswith(b"]")
        else:
            with pytest.raises(TokenError, match='expected "]"'):
                taken.feed(rest)


@pytest.mark.parametrize("nesting", [0, 1, 32])
def test_a17_nesting(nesting: int) -> None:
    """Lists nest as deep as allowed and no deeper; a bomb is refused at its first parenthesis too many."""
    assert len(tokens(b"(" * nesting + b")" * nesting, nesting=nesting)) == 2 * nesting
    taken = Tokens(nesting)
    with pytest.raises(TokenError, match=f"more than {nesting} deep"):
        taken.feed(b"(" * 60_000)
    assert len(taken.items) == nesting


def test_a19_utf8_in_quoted_strings_only_when_enabled() -> None:
    """Octets beyond ASCII stand in quoted strings after UTF8=ACCEPT, and in atoms never."""
    assert tokens('"Entwürfe"'.encode(), utf8=True) == [Token(QUOTED, "Entwürfe".encode())]
    with pytest.raises(TokenError):
        tokens('"Entwürfe"'.encode())
    with pytest.raises(TokenError):
        tokens("Entwürfe".encode(), utf8=True)
    with pytest.raises(TokenError):
        tokens(b'"\x7f"', utf8=True)


def written(items: list[Token]) -> tuple[list[bytes], list[bytes]]:
    """Write tokens: the lines of the command, and the content of the literals between them."""
    lines, contents = [b""], []
    before = OPEN
    for kind, value in items:
        bare = before == OPEN or kind == CLOSE or (before == CLOSE and kind == ATOM and value[:1] == b"]")
        lines[-1] += b"" if bare and (lines[-1] or before == OPEN or kind == CLOSE) else b" "
        if kind == LITERAL:
            lines[-1] += b"{%d}" % len(value)
            lines.append(b"")
            contents.append(value)
        else:
            lines[-1] += quoted(value) if kind == QUOTED else value
        before = kind
    return lines, contents


def reread(lines: list[bytes], contents: list[bytes], nesting: int = 60) -> list[Token]:
    """The tokens of a command with literals."""
    taken = Tokens(nesting)
    for line, content in zip(lines, contents, strict=False):
        assert taken.feed(line) == Announcement(len(content), True, False)
        taken.literal(content)
    assert taken.feed(lines[-1]) is None
    return taken.items


atom_characters = "".join(chr(code) for code in range(33, 127) if chr(code) not in '"(){]')
texts = st.text([chr(code) for code in range(32, 127)] + ["\t"], max_size=12).map(str.encode)
single = st.one_of(
    st.text(atom_characters, min_size=1, max_size=8)
    .map(str.encode)
    .filter(lambda value: b"[" not in value)
    .map(lambda value: [Token(ATOM, value)]),
    texts.map(lambda value: [Token(QUOTED, value)]),
    st.binary(max_size=12).map(lambda value: [Token(LITERAL, value)]),
)


def _joined(lists: list[list[Token]]) -> list[Token]:
    return [token for one in lists for token in one]


sections = st.lists(single, min_size=1, max_size=3).map(
    lambda names: [*atoms(b"BODY.PEEK[HEADER.FIELDS"), BEGIN, *_joined(names), END, *atoms(b"]<0.7>")]
)
arguments = st.lists(
    st.recursive(
        st.one_of(single, sections),
        lambda inner: st.lists(inner, max_size=4).map(lambda lists: [BEGIN, *_joined(lists), END]),
        max_leaves=12,
    ),
    max_size=5,
).map(_joined)


@given(arguments)
def test_tokens_written_are_read_again(items: list[Token]) -> None:
    """Whatever tokens are written, literals with any octets among them, are read as the same tokens."""
    assert reread(*written(items)) == items


@given(
    st.lists(
        st.sampled_from(
            [b"a", b"BODY[", b'"', b"\\", b"(", b")", b"{1}", b"~", b"+", b"]", b" ", b'"a"', b"}", b"\x80"]
        ),
        max_size=14,
    )
)
def test_accepted_lines_are_written_as_they_were(pieces: list[bytes]) -> None:
    """Any line is refused with a TokenError, or its tokens written again are the same bytes."""
    text = b"".join(pieces)
    taken = Tokens(NESTING)
    try:
        announced = taken.feed(text)
    except TokenError:
        return
    if announced is not None:
        assert text.endswith(b"{1}")
        taken.literal(b"x")
        text = text[: -4 if announced.binary else -3] + b"{1}"
        assert written(taken.items)[0][0] == text
    else:
        assert written(taken.items) == ([text], [])
