"""What FETCH responses deliver, read while they pass; and a UID that nobody asked for, taken out again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.model.passing import FetchItem
from imapgate.session.delivered import IDS_MOST, Access, Delivered, Delivery, access_of
from imapgate.wire.scanner import LINE, LITERAL, ResponseScanner
from tests.session.test_properties import CUTS, cut


class Passed(NamedTuple):
    """What came of a stream."""

    delivery: Delivery
    shown: bytes
    items: list[FetchItem]


def passed(
    chunks: Iterable[bytes], items: Sequence[str], *, added: bool = False, told: bool = False, subjects: bool = False
) -> Passed:
    """Let a stream pass as a session would."""
    scanner = ResponseScanner(256 * 1024)
    scanner.fine = True
    found: list[FetchItem] = []
    delivered = Delivered(tuple(items), added=added, subjects=subjects, told=found.append if told else None)
    shown = b""
    for chunk in chunks:
        for kind, piece in scanner.feed(chunk):
            if kind == LITERAL:
                delivered.literal(piece)
                shown += piece
            elif kind == LINE:
                shown += piece
            else:
                shown += delivered.text(piece, scanner.at_line_start)
    return Passed(delivered.delivery, shown, found)


def one(stream: bytes, *items: str, **how: bool) -> Passed:
    """The same in one chunk; octet by octet comes to the same."""
    found = passed([stream], items, **how)
    assert passed([stream[place : place + 1] for place in range(len(stream))], items, **how) == found
    return found


@pytest.mark.parametrize(
    ("items", "access"),
    [
        ([], Access.METADATA),
        (["FLAGS", "UID", "RFC822.SIZE", "INTERNALDATE", "BODYSTRUCTURE", "BODY", "MODSEQ", "BINARY.SIZE[1]"], 0),
        (["ENVELOPE"], Access.HEADERS),
        (["BODY.PEEK[HEADER.FIELDS (FROM)]"], Access.HEADERS),
        (["BODY[1.2.MIME]"], Access.HEADERS),
        (["RFC822.HEADER"], Access.HEADERS),
        (["BODY[HEADER]", "BODY[TEXT]"], Access.CONTENT),
        (["BODY[]<0.100>"], Access.CONTENT),
        (["BINARY.PEEK[1]"], Access.CONTENT),
        (["RFC822"], Access.CONTENT),
        (["RFC822.TEXT"], Access.CONTENT),
        (["PREVIEW"], Access.CONTENT),
        (["SNIPPET"], Access.CONTENT),
    ],
)
def test_access(items: list[str], access: Access) -> None:
    """How much of a message each item is: the most counts."""
    assert access_of(items) is Access(access)


def test_metadata_of_many() -> None:
    """Where no message data was asked for, the UIDs of a whole chunk are found at once."""
    stream = b"".join(b"* %d FETCH (UID %d FLAGS (\\Seen))\r\n" % (number, number + 10) for number in range(1, 200))
    found = one(stream, "UID", "FLAGS")
    assert found.shown == stream
    assert found.delivery == Delivery(Access.METADATA, list(range(11, 210)), 199, len(stream), (), ())


REAL = [
    # as Dovecot puts it, as Cyrus does, as Courier does (in the order asked, and at the end)
    (b"(UID 7 FLAGS (\\Seen))", b"(FLAGS (\\Seen))"),
    (b"(FLAGS (\\Seen) UID 7)", b"(FLAGS (\\Seen))"),
    (b"(FLAGS () UID 7 RFC822.SIZE 9)", b"(FLAGS () RFC822.SIZE 9)"),
    (b"(RFC822.SIZE 9 UID 7)", b"(RFC822.SIZE 9)"),
    (b"(UID 7 BODY[] {5}\r\nhello)", b"(BODY[] {5}\r\nhello)"),
    (b"(UID 7 BODY[] {0}\r\n)", b"(BODY[] {0}\r\n)"),
    (b"(FLAGS (a) UID 7 BODY[] {5}\r\nhello)", b"(FLAGS (a) BODY[] {5}\r\nhello)"),
    (b"(BODY[] {5}\r\nhello UID 7)", b"(BODY[] {5}\r\nhello)"),
    (b"(BODY[] {5}\r\nhello UID 7 FLAGS ())", b"(BODY[] {5}\r\nhello FLAGS ())"),
    (b"(BODY[] {0}\r\n UID 7)", b"(BODY[] {0}\r\n)"),
    (b'(ENVELOPE ("d" "UID 8 x" NIL NIL) UID 7)', b'(ENVELOPE ("d" "UID 8 x" NIL NIL))'),
    (b"(uid 7 flags ())", b"(flags ())"),
]


@pytest.mark.parametrize(("came", "shown"), REAL)
@pytest.mark.parametrize("items", [("FLAGS",), ("BODY[]",), ("ENVELOPE",)])
def test_an_added_uid_is_taken_out(came: bytes, shown: bytes, items: tuple[str, ...]) -> None:
    """The record has the UID, the client does not get what it did not ask for; the responses around are whole."""
    other = b"* 2 FETCH (UID 9 FLAGS ())\r\n"
    found = one(other + b"* 1 FETCH " + came + b"\r\n* 3 EXISTS\r\n" + other, *items, added=True)
    rest = b"* 2 FETCH (FLAGS ())\r\n"
    assert found.shown == rest + b"* 1 FETCH " + shown + b"\r\n* 3 EXISTS\r\n" + rest
    everything = one(other + b"* 1 FETCH " + came + b"\r\n", "FLAGS", added=True)
    assert sorted(everything.delivery.uids) == [7, 9]
    assert everything.delivery.messages == 2


def test_a_uid_that_is_not_the_gates_stays() -> None:
    """Where the client asked for the UID nothing is taken out."""
    for came, _ in REAL:
        stream = b"* 1 FETCH " + came + b"\r\n"
        assert one(stream, "FLAGS", "UID").shown == stream


def test_a_uid_inside_of_text_is_text() -> None:
    """What stands in quotes or literals is neither taken for a UID nor taken out."""
    line = b'* 1 FETCH (UID 5 BODY[TEXT] {21}\r\n UID 6)\r\n* 1 FETCH (X ENVELOPE ("(UID 7 )" "a \\" UID 8 "))\r\n'
    found = one(line, "BODY[TEXT]", added=True)
    assert found.delivery.uids == [5]
    assert found.shown == line.replace(b"UID 5 ", b"")
    found = one(b'* 1 FETCH (ENVELOPE ("(UID 7 )" UID) UID 5)\r\n', "ENVELOPE")
    assert found.delivery.uids == [5]


def test_a_header_that_looks_like_a_uid() -> None:
    """A49: a client may ask for a header of any name; it does not make the record name another message."""
    found = one(b"* 1 FETCH (BODY[HEADER.FIELDS (UID 1)] {2}\r\n\r\n UID 5)\r\n", "BODY[HEADER.FIELDS (UID 1)]")
    assert found.delivery.uids == [5]
    assert found.delivery.access is Access.HEADERS


def test_what_came_counts_and_not_what_was_asked() -> None:
    """NIL delivers nothing; the messages of the highest access are those that are named."""
    stream = (
        b"* 1 FETCH (UID 5 BODY[1] NIL)\r\n"
        b"* 2 FETCH (UID 6 BODY[1] {3}\r\nabc)\r\n"
        b"* 3 FETCH (FLAGS (\\Seen))\r\n"
        b'* 4 FETCH (BODY[1] "abc" UID 7)\r\n'
    )
    found = one(stream, "BODY[1]")
    assert found.delivery[:3] == (Access.CONTENT, [6, 7], 2)
    assert one(b"* 1 FETCH (UID 5 BODY[1] NIL)\r\n", "BODY[1]").delivery[:3] == (Access.METADATA, [5], 1)
    assert one(b"", "BODY[1]").delivery[:3] == (Access.CONTENT, [], 0)


def test_plugins_are_told_of_each_message() -> None:
    """Number, UID, what was delivered, and how many octets: each its own, also where several come in one chunk."""
    first = b"* 1 FETCH (UID 5 FLAGS (\\Seen) BODY[]<0> {3}\r\nabc)\r\n"
    between, second = b"* 3 EXISTS\r\n", b"* 2 FETCH (FLAGS ())\r\n"
    found = one(first + between + second, "FLAGS", "BODY.PEEK[]", told=True)
    assert found.items == [
        FetchItem(1, 5, ("UID", "FLAGS", "BODY[]<0>"), len(first)),
        FetchItem(2, 0, ("FLAGS",), len(second)),
    ]
    assert one(second, told=True).delivery[:3] == (Access.METADATA, [], 1)


HEADER = b"Subject: Lunch\r\nMessage-ID: <1@x>\r\n\r\nMessage-ID: <2@x>\r\nSubject: no\r\n"


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (b"BODY[]", True),
        (b"BODY[]<0>", True),
        (b"BODY[HEADER]", True),
        (b"BODY[HEADER.FIELDS (SUBJECT MESSAGE-ID)]", True),
        (b"RFC822", True),
        (b"RFC822.HEADER", True),
        (b"BODY[TEXT]", False),
        (b"BODY[1]", False),
        (b"BODY[2.HEADER]", False),
        (b"BODY[]<100>", False),
    ],
)
def test_ids_and_subjects_of_headers(item: bytes, found: bool) -> None:
    """They are read from a header of the message itself, and from nothing that only looks like one."""
    stream = b"* 1 FETCH (UID 5 %b {%d}\r\n%b)\r\n" % (item, len(HEADER), HEADER)
    delivery = one(stream, "BODY[]", subjects=True).delivery
    assert delivery.message_ids == (("<1@x>",) if found else ())
    assert delivery.subjects == (("Lunch",) if found else ())
    assert one(stream, "BODY[]").delivery.subjects == ()


def test_a_header_without_them() -> None:
    """A header that has neither is no fault."""
    delivery = one(b"* 1 FETCH (UID 5 BODY[] {6}\r\nX: y\r\n)\r\n", "BODY[]", subjects=True).delivery
    assert delivery.message_ids == delivery.subjects == ()


def test_ids_and_subjects_of_envelopes() -> None:
    """An ENVELOPE has both, whether each response is read by itself or not, and with a subject in a literal."""
    stream = (
        b'* 1 FETCH (UID 5 ENVELOPE ("date" "Lunch" NIL NIL NIL NIL NIL NIL NIL "<1@x>"))\r\n'
        b'* 2 FETCH (UID 6 ENVELOPE (NIL NIL NIL NIL NIL NIL NIL NIL "<0@x>" "<2@x>") FLAGS ())\r\n'
    )
    for items in (("ENVELOPE",), ("ENVELOPE", "BODY[TEXT]")):
        delivery = one(stream, *items, subjects=True).delivery
        assert delivery.access is Access.HEADERS
        assert delivery.uids == [5, 6]
        assert delivery.message_ids == ("<1@x>", "<2@x>")
        assert delivery.subjects == ("Lunch",)
    literal = b'* 1 FETCH (UID 5 ENVELOPE ("d" {7}\r\nSubject NIL NIL NIL NIL NIL NIL NIL "<1@x>"))\r\n'
    assert one(literal, "ENVELOPE").delivery.message_ids == ("<1@x>",)


def test_many_ids_are_none() -> None:
    """Of more messages than a record can name, none is named."""
    envelope = b'* 1 FETCH (UID 5 ENVELOPE (NIL "s" NIL NIL NIL NIL NIL NIL NIL "<%d@x>"))\r\n'
    header = b"* 1 FETCH (UID 5 BODY[HEADER] {27}\r\nSubject: s\r\nMessage-ID: <%d>)\r\n"
    for response, item in ((envelope, "ENVELOPE"), (header, "BODY[HEADER]")):
        lines = [response % (number % 10) for number in range(IDS_MOST)]
        few = passed(lines, [item], subjects=True).delivery
        assert len(few.message_ids) == 10
        assert few.subjects == ("s",)
        many = passed(lines * 2, [item], subjects=True).delivery
        assert many.message_ids == many.subjects == ()
        assert many.messages == 2 * IDS_MOST


def test_a_response_of_many_octets() -> None:
    """A line that is too long to be held passes as it comes, its UID with it if that stands at its end."""
    long = b"* 1 FETCH (BODYSTRUCTURE (%b) UID 5)\r\n" % (b'"x" ' * 50_000)
    chunks = list(cut(long, [30_000]))
    found = passed(chunks, ["BODYSTRUCTURE"], added=True)
    assert found.shown in (long, long.replace(b" UID 5", b""))
    assert found.delivery.messages == 1
    assert passed(chunks, ["BODYSTRUCTURE"]).shown == long


def test_a_long_literal_is_not_kept() -> None:
    """Of a body no more than a header's worth is looked at, however it comes."""
    late = b"X: %b\r\nMessage-ID: <1@x>\r\n\r\n" % (b"y" * 10_000)
    stream = b"* 1 FETCH (UID 5 BODY[] {%d}\r\n%b)\r\n" % (len(late), late)
    for size in (1, 5_000, 8_000, 100_000):
        assert passed(cut(stream, [size]), ["BODY[]"]).delivery.message_ids == ()


BODY = st.sampled_from(
    [b"", b"abc", b"* 5 FETCH (UID 9 FLAGS ())\r\n", b"(UID 6 )", b" UID 7)\r\n", b"Message-ID: <m@x>\r\n\r\n", b"{5}"]
) | st.binary(max_size=30)
STRING = BODY.map(lambda body: b"{%d}\r\n%b" % (len(body), body)) | st.sampled_from([b'"UID 5 \\" x"', b"NIL", b'""'])
ENVELOPE = st.lists(STRING, min_size=10, max_size=10).map(lambda strings: b"ENVELOPE (%b)" % b" ".join(strings))
ITEM = st.one_of(
    st.sampled_from([b"FLAGS (\\Seen)", b"FLAGS ()", b"RFC822.SIZE 9", b"MODSEQ (5)"]),
    BODY.map(lambda body: b"BODY[] {%d}\r\n%b" % (len(body), body)),
    BODY.map(lambda body: b"BODY[HEADER.FIELDS (UID 3)] {%d}\r\n%b" % (len(body), body)),
    ENVELOPE,
)
SERVERS = ("dovecot", "cyrus", "courier", "none")


def response(number: int, items: list[bytes], server: str) -> tuple[bytes, bytes]:
    """A FETCH response, with its UID where this server would put it, and without."""
    uid = b"UID %d" % (100 + number)
    first = server == "cyrus" and items[0].startswith(b"FLAGS")
    at = {"dovecot": 0, "cyrus": int(first), "courier": len(items)}.get(server)
    with_uid = items if at is None else [*items[:at], uid, *items[at:]]
    front = b"* %d FETCH (" % number
    return front + b" ".join(with_uid) + b")\r\n", front + b" ".join(items) + b")\r\n"


RESPONSE = st.builds(
    response, st.integers(1, 50), st.lists(ITEM, min_size=1, max_size=3), st.sampled_from(SERVERS)
) | st.sampled_from([(b"* 3 EXISTS\r\n",) * 2, (b"* OK [ALERT] UID 5\r\n",) * 2, (b"* LIST () NIL {1}\r\nx\r\n",) * 2])


@given(
    st.lists(RESPONSE, max_size=6),
    CUTS,
    st.sampled_from([("FLAGS",), ("ENVELOPE",), ("BODY[]",), ("BODY.PEEK[HEADER.FIELDS (UID 3)]",)]),
    st.booleans(),
)
def test_any_chunking(
    responses: list[tuple[bytes, bytes]], sizes: list[int], items: tuple[str, ...], told: bool
) -> None:
    """2: any chunking yields the same delivery, shown octets and items; what was added is not seen."""
    stream = b"".join(full for full, _ in responses)
    for added in (False, True):
        whole = passed([stream], items, added=added, told=told)
        assert passed(cut(stream, sizes), items, added=added, told=told) == whole
        assert whole.shown == (b"".join(bare for _, bare in responses) if added else stream)
        said = [int(uid) for full, bare in responses if full != bare for uid in re.findall(rb"UID (1[0-9][0-9])", full)]
        assert set(whole.delivery.uids) <= set(said)
