"""What a server has found is told in the session's numbers, and names nothing that it does not know (SHARED, rules 4,
11, 13 and 18).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.errors import UpstreamProtocolError
from imapgate.sharing.found import Found
from imapgate.sharing.truth import Truth
from imapgate.sharing.view import View
from tests.sharing.mailboxes import arrive, go, holding, looking


def haunted() -> tuple[View, Truth]:
    """A session that knows seven messages of which 3 is gone, and of two more that are there nothing."""
    truth = holding(10, 20, 30, 40, 50, 60, 70)
    view = looking(truth)
    go(truth, 30, view)
    arrive(truth, 80)
    truth.exists(8)
    truth.learn(7, 90, None)
    return view, truth


def by_uid(line: bytes, scene: tuple[View, Truth] | None = None) -> bytes:
    """A result for a session that asked by number where the server was asked by UID."""
    view, truth = scene or haunted()
    word = line.split(b" ")[1].upper()
    return Found(view, truth, by_uid=True, uids=False).line(word, line + b"\r\n", b"c1").removesuffix(b"\r\n")


RESULTS = {
    b"* SEARCH": b"* SEARCH",
    b"* SEARCH 10 20 40 70": b"* SEARCH 1 2 4 7",
    b"* SEARCH 30 70 80 90 75 0": b"* SEARCH 7",
    b"* SORT 70 10 40": b"* SORT 7 1 4",
    b'* ESEARCH (TAG "g1") UID': b'* ESEARCH (TAG "c1")',
    b'* ESEARCH (TAG "g1") UID COUNT 0': b'* ESEARCH (TAG "c1") COUNT 0',
    b'* ESEARCH (TAG "g1") UID COUNT 3': b'* ESEARCH (TAG "c1") COUNT 3',
    b'* ESEARCH (TAG "g1") UID MIN 10 MAX 70 COUNT 6': b'* ESEARCH (TAG "c1") MIN 1 MAX 7 COUNT 6',
    b'* ESEARCH (TAG "g1") UID MIN 30 MAX 80': b'* ESEARCH (TAG "c1")',
    b'* ESEARCH (TAG "g1") UID ALL 10:70': b'* ESEARCH (TAG "c1") ALL 1:2,4:7',
    b'* ESEARCH (TAG "g1") UID COUNT 9 ALL 10:20,40:90': b'* ESEARCH (TAG "c1") COUNT 6 ALL 1:2,4:7',
    b'* ESEARCH (TAG "g1") UID ALL 5:9 COUNT 0': b'* ESEARCH (TAG "c1") COUNT 0',
    b'* ESEARCH (TAG "g1") UID COUNT 1 ALL 80': b'* ESEARCH (TAG "c1") COUNT 0',
    b'* esearch (tag "g1") uid all 20 count 1': b'* ESEARCH (TAG "c1") ALL 2 COUNT 1',
    b"* ESEARCH (TAG g1) UID ALL 20": b'* ESEARCH (TAG "c1") ALL 2',
    b"* ESEARCH UID ALL 20": b'* ESEARCH (TAG "c1") ALL 2',
    b'* ESEARCH (TAG "g1") UID PARTIAL (1:10 10,40:90)': b'* ESEARCH (TAG "c1") PARTIAL (1:10 1,4:7)',
    b'* ESEARCH (TAG "g1") UID PARTIAL (-1:-10 80) COUNT 1': b'* ESEARCH (TAG "c1") PARTIAL (-1:-10 NIL) COUNT 1',
    b'* ESEARCH (TAG "g1") UID PARTIAL (5:9 NIL)': b'* ESEARCH (TAG "c1") PARTIAL (5:9 NIL)',
    b'* ESEARCH (TAG "g1") UID ALL 70,10,20,40': b'* ESEARCH (TAG "c1") ALL 7,1:2,4',
    b'* ESEARCH (TAG "g1") UID ALL 60:40,10': b'* ESEARCH (TAG "c1") ALL 6,5,4,1',
    b'* ESEARCH (TAG "g1") UID ALL 10 MODSEQ 917162500': b'* ESEARCH (TAG "c1") ALL 1',
    b'* ESEARCH (TAG "g1") UID ALL 10 RELEVANCY (4 99)': b'* ESEARCH (TAG "c1") ALL 1',
}


@pytest.mark.parametrize("line", RESULTS)
def test_by_uid(line: bytes) -> None:
    """What the server found by UID is named by number; what the session does not know, or is gone, is left out, and
    COUNT follows; MODSEQ is nobody's; the order of SORT is kept (rules 14 and 18, RFC 4731, RFC 5267, RFC 9394).
    """
    view, truth = haunted()
    assert by_uid(line, (view, truth)) == RESULTS[line]
    assert len(view) == 7


THREADS = {
    b"* THREAD": b"* THREAD",
    b"* THREAD (10)(20 40 (50)(60 70))": b"* THREAD (1)(2 4 (5)(6 7))",
    b"* THREAD (80)": b"* THREAD",
    b"* THREAD (80)(10)": b"* THREAD (1)",
    b"* THREAD (10 80 20)": b"* THREAD (1 2)",
    b"* THREAD (80 10)": b"* THREAD (1)",
    b"* THREAD (80 (10)(20))": b"* THREAD ((1)(2))",
    b"* THREAD (10 (80)(20))": b"* THREAD (1 2)",
    b"* THREAD (10 (80 (40)(50))(20))": b"* THREAD (1 ((4)(5))(2))",
    b"* THREAD (10 (80)(20 40 (50)(60)))": b"* THREAD (1 2 4 (5)(6))",
    b"* THREAD ((80)(20))(70)": b"* THREAD (2)(7)",
    b"* THREAD ((80)(90))": b"* THREAD",
    b"* THREAD (10 (80 90)(90))": b"* THREAD (1)",
    b"* THREAD (10 (30 (20))(40 80 (50)(60)))(80)": b"* THREAD (1 (2)(4 (5)(6)))",
    b"* THREAD )(10)(80)": b"* THREAD (1)",
    b"* THREAD (10)(80": b"* THREAD (1)",
}


@pytest.mark.parametrize("line", THREADS)
def test_threads(line: bytes) -> None:
    """A thread from which a message fell out is a thread as RFC 5256 §5 has it: no empty list, none alone (rule 18)."""
    assert by_uid(line) == THREADS[line]


def test_deep_threads() -> None:
    """However deep the lists of a THREAD are, it takes no recursion and no more than a moment (THREATS A15)."""
    deep = 20_000
    line = b"* THREAD " + b"(10 (20)" * deep + b"(80)" + b")" * deep
    assert by_uid(line) == b"* THREAD " + b"(1 (2)" * (deep - 1) + b"(1 2)" + b")" * (deep - 1)


def test_unchanged() -> None:
    """Where all numbers mean the same, and where UIDs were asked for, a result goes on as it came, but for the tag."""
    truth = holding(10, 20)
    for line in (b"* SEARCH 1 2\r\n", b"* THREAD ((1)(2))\r\n", b"* SORT 2 1\r\n"):
        word = line.split(b" ")[1]
        assert Found(looking(truth), truth, by_uid=False, uids=False).line(word, line, b"c1") == line
        uids = line.replace(b"1", b"10").replace(b"2", b"20")
        assert Found(looking(truth), truth, by_uid=False, uids=True).line(word, uids, b"c1") == uids
    extended = b'* ESEARCH (TAG "g1") UID ALL 10,20 X (5)\r\n'
    found = Found(looking(truth), truth, by_uid=False, uids=True)
    assert found.line(b"ESEARCH", extended, b"c1") == extended.replace(b"g1", b"c1")
    assert Found(looking(truth), truth, by_uid=False, uids=False).line(
        b"ESEARCH", b'* ESEARCH (TAG "g1") ALL 2,1 MODSEQ 5\r\n', b"c1"
    ) == (b'* ESEARCH (TAG "c1") ALL 2,1 MODSEQ 5\r\n')


def test_grown_by_number() -> None:
    """A result beyond what was announced announces it, to the truth and to the session (rules 4 and 11)."""
    truth = holding(10, 20)
    view = looking(truth)
    found = Found(view, truth, by_uid=False, uids=False)
    assert found.line(b"SEARCH", b"* SEARCH 2\r\n", b"c1") == b"* SEARCH 2\r\n"
    assert found.line(b"SEARCH", b"* SEARCH 1 4\r\n", b"c1") == b"* 4 EXISTS\r\n* 0 RECENT\r\n* SEARCH 1 4\r\n"
    assert (len(truth), view.told) == (4, 4)
    arrive(truth, 30)
    assert found.line(b"SEARCH", b"* SEARCH 1 4\r\n", b"c1") == b"* SEARCH 1 4\r\n"
    line = b'* ESEARCH (TAG "g1") MAX 5 COUNT 9\r\n'
    assert found.line(b"ESEARCH", line, b"c1") == (
        b'* 5 EXISTS\r\n* 0 RECENT\r\n* ESEARCH (TAG "c1") MAX 5 COUNT 9\r\n'
    )


def test_not_grown_by_count() -> None:
    """COUNT is no message's number (rule 11)."""
    truth = holding(10)
    found = Found(looking(truth), truth, by_uid=False, uids=False)
    line = b'* ESEARCH (TAG "c1") COUNT 5\r\n'
    assert found.line(b"ESEARCH", line, b"c1") == line
    assert len(truth) == 1


def test_grown_by_uid() -> None:
    """A session that asked for UIDs is told of a message before its UID is shown, and only then (rule 11)."""
    truth = holding(10, 20)
    view = looking(truth)
    arrive(truth, 30)
    found = Found(view, truth, by_uid=False, uids=True)
    assert found.line(b"SEARCH", b"* SEARCH 10 20\r\n", b"c1") == b"* SEARCH 10 20\r\n"
    assert found.line(b"SEARCH", b"* SEARCH\r\n", b"c1") == b"* SEARCH\r\n"
    assert found.line(b"SEARCH", b"* SEARCH 30\r\n", b"c1") == b"* 3 EXISTS\r\n* 0 RECENT\r\n* SEARCH 30\r\n"
    assert found.line(b"SEARCH", b"* SEARCH 40\r\n", b"c1") == b"* SEARCH 40\r\n"


def test_first_of_all() -> None:
    """A session that knew of no message is told of the first one, UID 1, before it is shown (rule 11)."""
    truth = holding(1, 5)
    line = b'* ESEARCH (TAG "g1") UID MIN 1\r\n'
    assert Found(View(read_only=False), truth, by_uid=False, uids=True).line(b"ESEARCH", line, b"c1") == (
        b'* 2 EXISTS\r\n* 0 RECENT\r\n* ESEARCH (TAG "c1") UID MIN 1\r\n'
    )


def test_ghosts_by_number() -> None:
    """Results by number, among which a message has gone meanwhile, are mapped as well (rule 18)."""
    truth = holding(10, 20, 30)
    view = looking(truth)
    go(truth, 10, view)
    found = Found(view, truth, by_uid=False, uids=False)
    assert found.line(b"SEARCH", b"* SEARCH 0 1 2\r\n", b"c1") == b"* SEARCH 2 3\r\n"
    line = b'* ESEARCH (TAG "g1") MIN 1 ALL 1:2 PARTIAL (1:9 2:1)\r\n'
    assert found.line(b"ESEARCH", line, b"c1") == b'* ESEARCH (TAG "c1") MIN 2 ALL 2:3 PARTIAL (1:9 3,2)\r\n'


def test_half_known() -> None:
    """A message whose UID is not known yet has no place among results by UID (rule 18)."""
    truth = holding(10, 20)
    view = looking(truth)
    truth.exists(4)
    view.grow(truth)
    assert by_uid(b"* SEARCH 10 20 30", (view, truth)) == b"* SEARCH 1 2"
    assert by_uid(b'* ESEARCH (TAG "g1") UID ALL 1:4294967295', (view, truth)) == b'* ESEARCH (TAG "c1") ALL 1:2'


@pytest.mark.parametrize(
    "line",
    [
        b"* SEARCH " + b"9" * 5000,
        b'* ESEARCH (TAG "g1") ALL 1:4294967295',
        b"* SEARCH 4294967295",
        b'* ESEARCH (TAG "g1") ALL 1:2,1:2',
    ],
)
def test_absurd(line: bytes) -> None:
    """Results that no mailbox has end the channel, and take neither memory nor time (THREATS A15)."""
    truth = holding(10, 20, 30)
    view = looking(truth)
    go(truth, 10, view)
    found = Found(view, truth, by_uid=False, uids=False)
    with pytest.raises(UpstreamProtocolError):
        found.line(line.split(b" ")[1], line + b"\r\n", b"c1")


WORDS = st.sampled_from(
    [
        *b"MIN MAX COUNT ALL PARTIAL NIL UID 0 1 2 9 30 4294967295 1:2 2:1 1:* : , ,, 1,, -1".split(),
        *b"(TAG () ( ) ((1)(2))".split(),
        b'(TAG "g1")',
        b"PARTIAL (1:2 3,1)",
        b"9" * 11,
        b"9" * 4400,
    ]
)


@given(
    word=st.sampled_from([b"SEARCH", b"SORT", b"THREAD", b"ESEARCH"]),
    words=st.lists(WORDS, max_size=8),
    way=st.sampled_from([(True, False), (False, False), (False, True)]),
)
def test_whatever_comes(word: bytes, words: list[bytes], way: tuple[bool, bool]) -> None:
    """Whatever a server says, it is mapped, or it ends the channel; and it is one line behind what grows (STYLE, 5)."""
    view, truth = haunted()
    line = b" ".join([b"*", word, *words]) + b"\r\n"
    try:
        said = Found(view, truth, by_uid=way[0], uids=way[1]).line(word, line, b"c1")
    except UpstreamProtocolError:
        return
    *before, last = said.splitlines(keepends=True)
    assert last.startswith(b"* " + word)
    assert all(each.endswith((b"EXISTS\r\n", b"RECENT\r\n")) for each in before)


SETS = st.lists(st.integers(1, 30), unique=True, max_size=20)


@given(uids=SETS, gone=SETS, found=SETS, sort=st.booleans())
def test_against_a_list(uids: list[int], gone: list[int], found: list[int], sort: bool) -> None:
    """Results by UID are the places of those UIDs in the list that the session has in mind, in the order found."""
    truth = holding(*sorted(uids))
    view = looking(truth)
    known = sorted(uids)
    for uid in set(gone) & set(uids):
        go(truth, uid, view)
    alive = [uid for uid in (found if sort else sorted(found)) if uid in set(truth.uids)]
    expected = [known.index(uid) + 1 for uid in alive]
    line = b"* SORT" + b"".join(b" %d" % uid for uid in alive)
    assert by_uid(line, (view, truth)) == b"* SORT" + b"".join(b" %d" % number for number in expected)
    if alive:
        said = by_uid(b'* ESEARCH (TAG "g") UID ALL ' + b",".join(b"%d" % uid for uid in alive), (view, truth))
        numbers: list[int] = []
        for item in said.split(b" ")[-1].split(b","):
            first, _, last = item.partition(b":")
            numbers += range(int(first), int(last or first) + 1)
        assert numbers == expected
