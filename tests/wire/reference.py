"""A server's stream read slowly: an independent second opinion on ResponseScanner, and streams to ask it about.

It reads a whole stream line by line with string methods alone, and shares nothing with the scanner.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from hypothesis import strategies as st

STATUSES = (b"OK", b"NO", b"BAD", b"BYE", b"PREAUTH")


class Reading(NamedTuple):
    """What a stream is.

    :ivar careful: offset and content of every line that has to be read
    :ivar boundaries: the offsets at which a line is whole, the beginning included
    :ivar broken: whether it ends in something that no honest server sends
    """

    careful: list[tuple[int, bytes]]
    boundaries: set[int]
    broken: bool


def read(stream: bytes) -> Reading:
    """Read a stream that may break off anywhere."""
    careful: list[tuple[int, bytes]] = []
    boundaries = {0}
    position, fresh = 0, True
    while True:
        newline = stream.find(b"\n", position)
        if newline < 0:
            return Reading(careful, boundaries, False)
        line = stream[position : newline + 1]
        if not line.endswith(b"\r\n"):
            return Reading(careful, boundaries, True)
        size = _announced(line)
        if fresh:
            numbered = line[:2] == b"* " and line[2:3].isdigit()
            if size is not None and _only_text(line):
                size = None
            if size is not None and numbered and not _fetch(line):
                return Reading(careful, boundaries, True)
            if not numbered:
                careful.append((position, line))
        position = newline + 1
        fresh = size is None
        if size is None:
            boundaries.add(position)
        else:
            position += size


def _announced(line: bytes) -> int | None:
    text = line[:-2]
    if not text.endswith(b"}") or b"{" not in text:
        return None
    digits = text[text.rindex(b"{") + 1 : -1]
    return int(digits) if digits.isdigit() and len(digits) < 20 else None


def _only_text(line: bytes) -> bool:
    """Whether the line ends in human text, in which nothing is announced."""
    return line[:1] != b"*" or (line[:2] == b"* " and line[2:-2].split(b" ")[0].upper() in STATUSES)


def _fetch(line: bytes) -> bool:
    words = line[:-2].split(b" ")
    return len(words) < 3 or words[2].upper().startswith(b"FETCH")


# --- streams --------------------------------------------------------------------------------------

FORGED = (
    b"g5 OK done\r\n",
    b"+ go\r\n",
    b"* BYE\r\n",
    b"* 5 EXISTS\r\n",
    b"{3}\r\n",
    b"\n",
    b"}\r\n",
    b"\r",
    b"}",
    b"*",
    b"",
)

contents = st.one_of(
    st.binary(max_size=12),
    st.lists(st.sampled_from(FORGED), max_size=4).map(b"".join),
)
"""What a literal may hold; all that would be dangerous outside of one."""

numbers = st.integers(0, 4_294_967_295).map(lambda number: b"%d" % number)


def _with_literals(head: bytes, values: list[bytes]) -> bytes:
    return head + b" ".join(b"X {%d}\r\n%b" % (len(value), value) for value in values) + b")\r\n"


fetches = st.builds(
    lambda number, verb, values: _with_literals(b"* %b %b (" % (number, verb), values),
    numbers,
    st.sampled_from((b"FETCH", b"fetch")),
    st.lists(contents, max_size=3),
)
untagged_with_literals = st.builds(
    lambda verb, values: _with_literals(b"* %b (" % verb, values),
    st.sampled_from((b"LIST", b"METADATA", b"XLIST", b"STATUS")),
    st.lists(contents, min_size=1, max_size=2),
)
plain = st.sampled_from(
    (
        b"* 5 EXISTS\r\n",
        b"* 17 EXPUNGE\r\n",
        b"* 5 FETCH (FLAGS (\\Seen))\r\n",
        b"* 5 FETCH (a}\r\n",
        b"* 5 FETCH (\r\r\n",
        b"* SEARCH 1 2 3\r\n",
        b'* ESEARCH (TAG "g5") UID ALL 1:5\r\n',
        b"* CAPABILITY IMAP4rev1\r\n",
        b"* ENABLED CONDSTORE\r\n",
        b"* FLAGS (a b}\r\n",
        b'* LIST () "/" {3+}\r\n',
        b'* LIST () "/" {99999999999999999999}\r\n',
        b"+ go ahead {30}\r\n",
        b"+\r\n",
        b"\r\n",
    )
)
statuses = st.builds(
    lambda who, status, text: b"%b %b %b\r\n" % (who, status, text),
    st.sampled_from((b"*", b"g1", b"g4711")),
    st.sampled_from((b"OK", b"NO", b"BAD", b"BYE", b"PREAUTH", b"ok")),
    st.sampled_from((b"done", b"no such mailbox nobox {30}", b"[ALERT] {0}", b"~{5}", b"}")),
)
lines = st.one_of(plain, fetches, untagged_with_literals, statuses)
broken = st.sampled_from((b"* 5 EXISTS\n", b"g1 OK done\n", b"\n", b"* 5 EXPUNGE {4}\r\n", b"* 5 FETCH (X {2}\r\nab\n"))


def _long(head: bytes, octets: int, tail: bytes) -> bytes:
    return head + b"x" * octets + tail


long_lines = st.builds(
    _long,
    st.sampled_from((b"* 5 FETCH (X ", b"* SEARCH ", b"* LIST (", b"g1 OK ", b"* OK ", b"* CAPABILITY ")),
    st.integers(60_000, 140_000),
    st.sampled_from((b")\r\n", b" }\r\n", b" {6}\r\n)\r\n*1)\r\n", b" {3}\r\n\r\n*\r\n")),
).filter(lambda line: not (line.startswith((b"g1", b"* OK", b"* CAPABILITY")) and b"{" in line))
"""Lines about and beyond the 64 KiB from which on they are passed on in parts."""


def streams(line: st.SearchStrategy[bytes], most: int = 8) -> st.SearchStrategy[bytes]:
    """Streams of such lines."""
    return st.lists(line, max_size=most).map(b"".join)


def cuts(stream: bytes, most: int = 40) -> st.SearchStrategy[list[bytes]]:
    """Ways to cut a stream into chunks."""
    return st.lists(st.integers(0, len(stream)), max_size=most).map(lambda places: cut(stream, places))


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Cut a stream at these places; no chunk is empty."""
    edges = sorted({0, len(stream), *places})
    return [stream[a:b] for a, b in pairwise(edges)]


def bytewise(stream: bytes) -> list[bytes]:
    """Every octet a chunk of its own."""
    return [stream[at : at + 1] for at in range(len(stream))]
