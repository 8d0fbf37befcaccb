"""ResponseScanner: a server's bytes into lines that have to be read, and data."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.errors import UpstreamProtocolError
from imapgate.wire.scanner import LINE, LITERAL, TEXT, ResponseScanner
from tests.wire.reference import (
    Reading,
    broken,
    bytewise,
    contents,
    cut,
    cuts,
    lines,
    long_lines,
    read,
    streams,
)

LINE_MOST = 256 * 1024
FLOW = 64 * 1024


class Scan(NamedTuple):
    """What came out: offset and content of the careful pieces, how much passed in all, whether it broke."""

    careful: list[tuple[int, bytes]]
    passed: int
    broken: bool


def scan(chunks: list[bytes], reading: Reading | None = None, line_most: int = LINE_MOST) -> Scan:
    """Feed chunks; the pieces are the stream, in order, and what the scanner says of its state is so."""
    scanner = ResponseScanner(line_most)
    stream = b"".join(chunks)
    careful: list[tuple[int, bytes]] = []
    passed = fed = 0
    try:
        for chunk in chunks:
            fed += len(chunk)
            for attention, piece in scanner.feed(chunk):
                assert piece == stream[passed : passed + len(piece)]
                if attention:
                    careful.append((passed, piece))
                passed += len(piece)
            assert passed <= fed
            if reading is not None:
                assert scanner.at_line_start is (passed in reading.boundaries)
                assert scanner.clean is (passed == fed and passed in reading.boundaries)
    except UpstreamProtocolError:
        return Scan(careful, passed, True)
    return Scan(careful, passed, False)


@given(st.data())
def test_same_as_reference(data: st.DataObject) -> None:
    """However a stream is cut, the lines to be read are those of a slow reading, and all else passes as data."""
    stream = data.draw(streams(lines))
    stream = stream[: data.draw(st.integers(0, len(stream)))]
    reading = read(stream)
    for chunks in ([stream], bytewise(stream), data.draw(cuts(stream))):
        found = scan([chunk for chunk in chunks if chunk], reading)
        assert not found.broken
        assert found.careful == reading.careful
        assert found.passed >= max(reading.boundaries)


@given(st.data())
def test_a30_broken_streams(data: st.DataObject) -> None:
    """However a stream is cut, what is broken in it raises, and all lines before it were read."""
    stream = data.draw(streams(lines, 3)) + data.draw(broken) + data.draw(streams(lines, 3))
    reading = read(stream)
    assert reading.broken
    for chunks in ([stream], bytewise(stream), data.draw(cuts(stream))):
        found = scan(chunks)
        assert found.broken
        assert found.careful == reading.careful


@given(st.data())
def test_long_lines(data: st.DataObject) -> None:
    """A long untagged line may pass in parts: its head is careful, and its literals are found all the same."""
    stream = data.draw(st.tuples(streams(lines, 2), long_lines, streams(lines, 2)).map(b"".join))
    reading = read(stream)
    found = scan(data.draw(cuts(stream, 12)), reading)
    assert not found.broken
    assert [offset for offset, _ in found.careful] == [offset for offset, _ in reading.careful]
    for (_, piece), (_, line) in zip(found.careful, reading.careful, strict=True):
        assert piece == line or (len(piece) > FLOW - 64 and line.startswith(piece) and line.startswith(b"* "))


@given(st.data())
def test_any_octets(data: st.DataObject) -> None:
    """Whatever a server sends, at most an UpstreamProtocolError is raised, and the chunks make no difference."""
    alphabet = st.sampled_from(
        [b"* ", b"*", b"1", b" FETCH", b" OK", b"{2}", b"}", b"\r\n", b"\n", b"\r", b"+", b"g1 ", b"\0"]
    )
    stream = b"".join(data.draw(st.lists(alphabet, max_size=30)))
    whole = scan([stream] if stream else [])
    for chunks in (bytewise(stream), data.draw(cuts(stream))):
        found = scan(chunks)
        assert (found.careful, found.broken) == (whole.careful, whole.broken)


@given(contents, st.integers(0, 300))
def test_a23_literal_content_is_never_read(content: bytes, place: int) -> None:
    """A literal's content is data, wherever it is cut, even where it looks like a completion."""
    head, tail = b"* 1 FETCH (BODY[] {%d}\r\n" % len(content), b")\r\ng7 OK done\r\n"
    stream = head + content + tail
    found = scan(cut(stream, [place % len(stream)]))
    assert found.careful == [(len(head) + len(content) + 3, b"g7 OK done\r\n")]
    assert found.passed == len(stream)


def test_a23_body_with_a_completion_passes_whole() -> None:
    """A chunk that is nothing but FETCH data is handed on as the same object."""
    body = b"\r\ng5 OK done\r\n+ go\r\n* BYE\r\n"
    chunk = b"* 1 FETCH (UID 7 BODY[] {%d}\r\n%b)\r\n* 2 FETCH (FLAGS ())\r\n" % (len(body), body)
    pieces = list(ResponseScanner(LINE_MOST).feed(chunk))
    assert len(pieces) == 1
    assert pieces[0][0] == TEXT
    assert pieces[0][1] is chunk


def test_literal_chunks_pass_as_the_same_object() -> None:
    """A chunk in the middle of a literal is handed on as the same object, without a look."""
    scanner = ResponseScanner(LINE_MOST)
    list(scanner.feed(b"* 1 FETCH (BODY[] {1000000}\r\n"))
    chunk = b"g1 OK done\r\n" * 1000
    ((careful, piece),) = scanner.feed(chunk)
    assert not careful
    assert piece is chunk


@pytest.mark.parametrize("status", ["* OK", "* no", "* BAD", "* BYE", "* PREAUTH", "g4 OK", "g4 NO", "+"])
def test_status_text_announces_nothing(status: str) -> None:
    """PROTOCOL §2 rule 7: the text of a status line may end in what looks like a literal."""
    line = status.encode() + b" nobox {30}\r\n"
    assert scan([line + b"g5 OK done\r\n"]).careful == [(0, line), (len(line), b"g5 OK done\r\n")]


@pytest.mark.parametrize("verb", ["EXISTS", "EXPUNGE", "RECENT", " FETCH"])
def test_a30_literal_where_none_can_be(verb: str) -> None:
    """A numbered response other than FETCH holds no literal, long or short, in whatever chunks it comes."""
    for filling in (b"", b"x" * (FLOW + 5000)):
        stream = b"* 5 %b %b{4}\r\nabcd\r\n" % (verb.encode(), filling)
        for places in ([], [10], [FLOW + 3000], [len(stream) - 9], [len(stream) - 7]):
            assert scan(cut(stream, [min(place, len(stream) - 7) for place in places])).broken


@pytest.mark.parametrize("ending", [b"\r", b"}\r", b"\r\n\r", b"", b"\n"])
def test_a30_bare_lf_behind_a_literal(ending: bytes) -> None:
    """A bare LF behind a literal is one, even where the literal ends in CR and so seems to lend it."""
    content = b"ab" + ending
    stream = b"* 1 FETCH (X {%d}\r\n%b\n* 2 EXISTS\r\n" % (len(content), content)
    for chunks in ([stream], bytewise(stream), cut(stream, [stream.index(b"\n* 2")])):
        assert scan(chunks).broken


@pytest.mark.parametrize("head", [b"g1 OK ", b"* OK ", b"* CAPABILITY ", b"+ ", b"* 5 EXISTS "])
def test_a30_line_too_long(head: bytes) -> None:
    """A line that is only understood whole is held up to the limit, and refused beyond it, complete or not."""
    most = FLOW + 1000
    room = most - len(head) - 2
    fits = head + b"x" * room + b"\r\n"
    for places in ([], [50], [FLOW + 500], [most - 1]):
        found = scan(cut(fits, places), line_most=most)
        assert not found.broken
        assert found.passed == most
    over = head + b"x" * (room + 1)
    assert not scan([over[:50], over[50:]], line_most=most).broken
    assert scan([over[:50], over[50:] + b"x\r", b"\n"], line_most=most).broken
    if not head.startswith(b"* 5"):  # data is never measured in one piece
        assert scan([over + b"\r\n"], line_most=most).broken


def test_memory_of_a_long_data_line_is_bounded() -> None:
    """A data line without an end is passed on as it comes: no more than 64 KiB of it are ever kept."""
    scanner = ResponseScanner(LINE_MOST)
    fed = passed = 0
    for number in range(200):
        chunk = b"* 5 FETCH (X " if not number else b"y" * 16_000
        fed += len(chunk)
        passed += sum(len(piece) for _, piece in scanner.feed(chunk))
        assert fed - passed <= FLOW
    assert not scanner.clean


@pytest.mark.parametrize("split", range(1, 12))
def test_split_prefix(split: int) -> None:
    """An asterisk alone does not tell yet what a line is."""
    numbered, other = b"* 5 EXISTS\r\n", b"* SEARCH 1\r\n"
    assert scan(cut(numbered + other, [split])).careful == [(len(numbered), other)]
    assert scan(cut(other + numbered, [split])).careful == [(0, other)]


def test_literal_of_nineteen_digits() -> None:
    """The largest announcement is counted, not allocated."""
    scanner = ResponseScanner(LINE_MOST)
    list(scanner.feed(b"* 1 FETCH (X {9999999999999999999}\r\n"))
    assert list(scanner.feed(b"g1 OK\r\n")) == [(False, b"g1 OK\r\n")]
    assert not scanner.at_line_start


def fine(chunks: list[bytes]) -> list[tuple[int, bytes, bool]]:
    """What a scanner makes of chunks where literals are apart: pieces of one kind joined, line by line."""
    scanner = ResponseScanner(LINE_MOST)
    scanner.fine = True
    found: list[tuple[int, bytes, bool]] = []
    for chunk in chunks:
        for kind, piece in scanner.feed(chunk):
            for part in [piece] if kind == LITERAL else piece.splitlines(keepends=True):
                ends = part.endswith(b"\n") and kind != LITERAL
                if found and found[-1][0] == kind and not found[-1][2]:
                    part = found.pop()[1] + part
                found.append((kind, part, ends))
    return found


@given(st.data())
def test_literals_apart(data: st.DataObject) -> None:
    """A23: where it is fine, the content of literals is never TEXT, and text never goes beyond an announcement."""
    stream = data.draw(streams(lines))
    whole = fine([stream] if stream else [])
    assert b"".join(piece for _, piece, _ in whole) == stream
    for chunks in (bytewise(stream), data.draw(cuts(stream))):
        assert fine([chunk for chunk in chunks if chunk]) == whole
    reading = read(stream)
    assert [piece for kind, piece, _ in whole if kind == LINE] == [piece for _, piece in reading.careful]


def test_an_empty_literal_ends_the_text() -> None:
    """Text that follows an empty literal is a piece of its own, as behind any other."""
    scanner = ResponseScanner(LINE_MOST)
    scanner.fine = True
    stream = b"* 1 FETCH (X {0}\r\n Y {2}\r\nab Z {0}\r\n)\r\n* 2 EXISTS\r\n"
    assert list(scanner.feed(stream)) == [
        (TEXT, b"* 1 FETCH (X {0}\r\n"),
        (TEXT, b" Y {2}\r\n"),
        (LITERAL, b"ab"),
        (TEXT, b" Z {0}\r\n"),
        (TEXT, b")\r\n* 2 EXISTS\r\n"),
    ]


def test_a_literal_that_passes_whole() -> None:
    """A chunk inside a literal passes unread in either mode, and what is behind it is text."""
    for mode in (False, True):
        scanner = ResponseScanner(LINE_MOST)
        scanner.fine = mode
        assert list(scanner.feed(b"* 1 FETCH (X {4}\r\n")) == [(TEXT, b"* 1 FETCH (X {4}\r\n")]
        assert scanner.passes(b"ab")
        assert list(scanner.feed(b"c")) == [(LITERAL if mode else TEXT, b"c")]
        kinds = [LITERAL, TEXT] if mode else [TEXT]
        assert [kind for kind, _ in scanner.feed(b"d)\r\n")] == kinds
        assert scanner.clean
