"""CommandScanner: a client's bytes as lines, or as literal content, whichever is asked for."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.errors import ClientProtocolError
from imapgate.wire.scanner import CommandScanner
from tests.wire.reference import bytewise, cut, cuts

MOST = 40

line_texts = st.binary(max_size=MOST).map(lambda text: text.translate(None, b"\r\n\0"))
parts = st.lists(st.one_of(line_texts, st.binary(max_size=20).map(bytearray)), max_size=10)
"""What a client sends: bytes for a line, a bytearray for the content of a literal."""


def received(chunks: list[bytes], sizes: list[int | None], late: int = 1) -> list[bytes]:
    """Feed chunks and ask for a line (``None``) or for so many octets; only after every ``late``-th chunk."""
    scanner = CommandScanner()
    taken: list[bytes] = []
    wanted = list(sizes)
    content = b""
    for number, chunk in enumerate(chunks, 1):
        scanner.feed(chunk)
        while wanted and (number % late == 0 or number == len(chunks)):
            if wanted[0] is None:
                line = scanner.line(MOST)
                if line is None:
                    break
                taken.append(line)
            else:
                content += scanner.take(wanted[0] - len(content))
                if len(content) < wanted[0]:
                    break
                taken.append(content)
                content = b""
            wanted.pop(0)
    assert len(scanner) + len(content) == sum(map(len, chunks)) - sum(
        len(part) + (2 if size is None else 0) for part, size in zip(taken, sizes, strict=False)
    )
    return taken


@given(st.data(), parts)
def test_lines_and_literals(data: st.DataObject, sent: list[bytes | bytearray]) -> None:
    """However the bytes are cut, what was sent comes out: lines without CRLF, literals to the octet."""
    stream = b"".join(bytes(part) if isinstance(part, bytearray) else part + b"\r\n" for part in sent)
    sizes = [len(part) if isinstance(part, bytearray) else None for part in sent]
    for chunks in ([stream], bytewise(stream), data.draw(cuts(stream))):
        taken = received([*chunks, b""], sizes, data.draw(st.integers(1, 4)))  # a last literal may be empty
        assert taken == [bytes(part) for part in sent]


class Outcome(NamedTuple):
    """The lines that came out before the error, if there was one."""

    lines: list[bytes]
    error: ClientProtocolError | None


def outcome(chunks: list[bytes]) -> Outcome:
    """Feed chunks and take every line as soon as there is one."""
    scanner, lines = CommandScanner(), []
    try:
        for chunk in chunks:
            scanner.feed(chunk)
            while (line := scanner.line(MOST)) is not None:
                lines.append(line)
            assert len(scanner) <= MOST + 1
    except ClientProtocolError as error:
        return Outcome(lines, error)
    return Outcome(lines, None)


@given(st.data())
def test_any_octets(data: st.DataObject) -> None:
    """Whatever comes, at most a fatal ClientProtocolError is raised, and the chunks make no difference."""
    stream = b"".join(
        data.draw(st.lists(st.sampled_from([b"a", b"\r\n", b"\r", b"\n", b"\0", b"b" * MOST]), max_size=12))
    )

    whole = outcome([stream])
    for chunks in (bytewise(stream), data.draw(cuts(stream))):
        found = outcome(chunks)
        assert found.lines == whole.lines
        assert (found.error is None) is (whole.error is None)
        assert found.error is None or found.error.fatal
    for line in whole.lines:
        assert not set(line) & set(b"\r\n\0")
        assert len(line) <= MOST


@pytest.mark.parametrize(
    "line", [b"\n", b"a NOOP\n", b"a\rb\r\n", b"a\0b\r\n", b"\r\r\n", b"\0\r\n", b"a\n\r\n", b"a\r\n"[:1] + b"\n"]
)
@pytest.mark.parametrize("before", [b"", b"a NOOP\r\n"])
@pytest.mark.parametrize("behind", [b"", b"b NOOP\r\n"])
def test_a12_bare_cr_lf_nul(before: bytes, line: bytes, behind: bytes) -> None:
    """A bare CR, LF or NUL is fatal in whatever chunks it comes, at the first octet of one included."""
    stream = before + line + behind
    for chunks in ([stream], bytewise(stream), cut(stream, [len(before)])):
        lines, error = outcome(chunks)
        assert error is not None
        assert error.fatal
        assert "CRLF" in error.text
        assert lines == ([before[:-2]] if before else [])


@pytest.mark.parametrize("split", [None, 1, MOST - 1, MOST, MOST + 1])
@pytest.mark.parametrize("before", [b"", b"x\r\n"])
def test_length_of_a_line(before: bytes, split: int | None) -> None:
    """A line of just as many octets as are allowed passes in whatever chunks, one of more does not."""
    fits = before + b"x" * MOST + b"\r\n"
    places = [] if split is None else [len(before) + split]
    wanted: list[int | None] = [None, None] if before else [None]
    assert received(cut(fits, places), wanted)[-1] == b"x" * MOST
    with pytest.raises(ClientProtocolError, match=f"more than {MOST} octets") as caught:
        received(cut(before + b"x" * (MOST + 1) + b"\r\n", places), wanted)
    assert caught.value.fatal


def test_a41_a_line_without_an_end_is_not_kept() -> None:
    """A line that is too long already is refused before its end has come, so that no more of it is kept."""
    assert outcome([b"x"] * (MOST + 1)).error is None
    assert outcome([b"x"] * (MOST + 2)).error is not None


def test_take_whole_chunk() -> None:
    """A chunk that is asked for whole is handed on as the same object."""
    scanner = CommandScanner()
    chunk = b"x" * 5000
    scanner.feed(chunk)
    assert scanner.take(9000) is chunk
    assert len(scanner) == 0
    assert scanner.take(1) == b""


def test_literal_content_is_no_line() -> None:
    """What was taken as a literal's content is not looked at, and the line behind it is found."""
    scanner = CommandScanner()
    scanner.feed(b"a X {12}\r\nb LOGOUT\r\n\r\n)\r")
    assert scanner.line(MOST) == b"a X {12}"
    assert scanner.take(12) == b"b LOGOUT\r\n\r\n"
    assert scanner.line(MOST) is None
    scanner.feed(b"\n")
    assert scanner.line(MOST) == b")"
    assert len(scanner) == 0
