"""What a server has told is kept as it came, and what contradicts it ends the channel (SHARED, rules 3 to 5)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from imapgate.errors import UpstreamProtocolError
from imapgate.sharing.truth import UNKNOWN, Truth, plain_flags, same_flags
from tests.sharing.mailboxes import arrive, holding


def test_exists() -> None:
    """More messages than are known are unknown ones at the end, and as many are nothing new (rule 3)."""
    truth = holding(5, 6)
    truth.exists(4)
    assert (list(truth.uids), truth.flags[2:], truth.filled) == ([5, 6, 0, 0], [UNKNOWN, UNKNOWN], 2)
    truth.exists(4)
    assert len(truth) == 4


def test_fewer() -> None:
    """Fewer messages without EXPUNGE end the channel (rule 3)."""
    with pytest.raises(UpstreamProtocolError, match="fewer"):
        holding(5, 6).exists(1)


def test_too_many() -> None:
    """A server that speaks of billions of messages does not make the gate allocate for them (THREATS A15)."""
    truth = Truth()
    with pytest.raises(UpstreamProtocolError, match="more than 16777216 messages"):
        truth.exists((1 << 24) + 1)
    assert len(truth) == 0
    truth.exists(1 << 10)
    assert len(truth) == 1 << 10


def test_expunge() -> None:
    """A message that is gone is known by its UID, 0 if that never was; its recent goes with it (rule 3)."""
    truth = holding(5, 6, 7)
    truth.recent = {5, 6}
    truth.exists(4)
    assert truth.expunge(4) == 0
    assert truth.filled == 3
    assert truth.expunge(2) == 6
    assert (list(truth.uids), truth.filled, truth.recent, len(truth.flags)) == ([5, 7], 2, {5}, 2)


@pytest.mark.parametrize("number", [0, 3])
def test_expunge_of_nothing(number: int) -> None:
    """EXPUNGE of a message that is not there ends the channel, at either end (rule 3)."""
    with pytest.raises(UpstreamProtocolError, match="not there"):
        holding(5, 6).expunge(number)


def test_changes() -> None:
    """Flags have changed if they are others than before, whatever their order and case, and were known (rule 12)."""
    truth = holding(5, flags=b"\\Seen kw")
    assert not truth.learn(0, 5, b"KW \\SEEN")
    assert truth.flags == [b"KW \\SEEN"]
    assert not truth.learn(0, 5, None)
    assert truth.learn(0, 0, b"kw")
    assert truth.flags == [b"kw"]
    truth.exists(2)
    assert not truth.learn(1, 0, b"\\Seen")
    assert truth.learn(1, 0, b"")


@pytest.mark.parametrize(
    ("index", "uid"), [(0, 9), (0, 20), (1, 21), (3, 30), (3, 29), (3, 40), (3, 41), (5, 39), (6, 20), (6, 5)]
)
def test_contradictions(index: int, uid: int) -> None:
    """A UID that a message cannot have, after its neighbours or itself, ends the channel (rule 3)."""
    truth = holding(10, 20)
    truth.exists(7)
    truth.learn(2, 30, None)
    truth.learn(4, 40, None)
    with pytest.raises(UpstreamProtocolError, match="contradicts"):
        truth.learn(index, uid, b"")


def test_hole_that_closes() -> None:
    """UIDs that turn out not to ascend when what was between them is gone end the channel (rule 3)."""
    truth = Truth()
    truth.exists(3)
    truth.learn(0, 10, None)
    truth.learn(2, 9, b"")
    truth.expunge(2)
    with pytest.raises(UpstreamProtocolError, match="ascend"):
        truth.learn(0, 0, b"")


def test_filling() -> None:
    """So many are known as have UID and flags from the first on, in whatever order they are said (rule 5)."""
    truth = Truth()
    truth.exists(3)
    truth.learn(2, 30, b"")
    truth.learn(1, 20, None)
    truth.learn(0, 0, b"")
    assert truth.filled == 0
    truth.learn(0, 10, None)
    assert truth.filled == 1
    truth.learn(1, 0, b"kw")
    assert (truth.filled, list(truth.uids), truth.flags) == (3, [10, 20, 30], [b"", b"kw", b""])


def test_learning_all() -> None:
    """Many messages behind those that are known are learnt at once, like one after the other."""
    truth = holding(10)
    truth.uid_next = 12
    truth.exists(4)
    before = truth.snapshot()
    assert truth.learn_all(2, 3, [11, 20], [b"", b"kw"])
    assert (list(truth.uids), truth.flags, truth.filled) == ([10, 11, 20, 0], [b"", b"", b"kw", UNKNOWN], 3)
    assert truth.uid_next == 21
    assert truth.snapshot() is not before
    assert truth.learn_all(4, 4, [21], [b""])
    assert truth.uid_next == 22
    empty = Truth()
    empty.exists(1)
    assert empty.learn_all(1, 1, [7], [b""])
    assert (empty.uid_next, empty.index(7)) == (0, 0)


@pytest.mark.parametrize(
    ("first", "last", "uids"),
    [
        (1, 2, [11, 12]),
        (3, 4, [11, 12]),
        (2, 4, [11, 12]),
        (2, 5, [11, 12, 13, 14]),
        (2, 3, [12, 11]),
        (2, 3, [11, 11]),
        (2, 3, [10, 11]),
        (2, 3, [0, 11]),
        (2, 4, [11, 12, 14]),
    ],
)
def test_not_learning_all(first: int, last: int, uids: list[int]) -> None:
    """Messages that are known already, or others than said, or whose UIDs do not ascend, are not learnt at once."""
    truth = holding(10)
    truth.exists(4)
    truth.learn(3, 13, None)
    before = list(truth.uids)
    assert not truth.learn_all(first, last, uids, [b""] * len(uids))
    assert (list(truth.uids), truth.filled) == (before, 1)


def test_uid_next() -> None:
    """The next UID is above all that were seen, where the server says it at all (rule 20)."""
    truth = Truth()
    arrive(truth, 9)
    assert truth.uid_next == 0
    truth.uid_next = 10
    arrive(truth, 11)
    assert truth.uid_next == 12
    truth.uid_next = 20
    arrive(truth, 12)
    assert truth.uid_next == 20


def test_index() -> None:
    """A message is found by its UID; one that is not known whole is not there yet (rule 6)."""
    truth = holding(10, 20)
    truth.exists(3)
    truth.learn(2, 30, None)
    assert [truth.index(uid) for uid in (10, 20, 30, 15, 0)] == [0, 1, None, None, None]


def test_first_unseen() -> None:
    """The first message without the flag itself is the first unseen one, whatever the flag's case."""
    truth = holding(10, flags=b"kw \\SEEN")
    assert truth.first_unseen() == 0
    arrive(truth, 11, b"\\Seenx")
    arrive(truth, 12)
    assert truth.first_unseen() == 2


CHANGES: dict[str, Callable[[Truth], object]] = {
    "EXISTS": lambda truth: truth.exists(5),
    "EXPUNGE": lambda truth: truth.expunge(1),
    "flags": lambda truth: truth.learn(0, 1, b"kw"),
    "UID": lambda truth: truth.learn(3, 9, None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_snapshot(change: str) -> None:
    """A snapshot holds what was known, in runs; all who ask have the same one until something changes (rule 24)."""
    truth = holding(1, 2, 4)
    truth.learn(1, 2, b"")
    truth.exists(4)
    before = truth.snapshot()
    assert before.runs == ((1, 2, b""), (4, 4, b""))
    assert before.validity == b"7"
    assert before.messages() == {1: b"", 2: b"", 4: b""}
    truth.learn(0, 1, b"")
    truth.exists(4)
    assert truth.snapshot() is before
    CHANGES[change](truth)
    assert truth.snapshot() is not before


def test_snapshots() -> None:
    """Each change of flags ends a run, and an empty truth has none."""
    truth = holding(1, 2, 3)
    truth.learn(1, 2, b"kw")
    assert truth.snapshot().runs == ((1, 1, b""), (2, 2, b"kw"), (3, 3, b""))
    assert list(truth.snapshot().messages().items()) == [(1, b""), (2, b"kw"), (3, b"")]
    assert Truth().snapshot().runs == ()


def test_flags() -> None:
    """Recent is no flag like the others, in whatever case it is said (rule 19)."""
    assert plain_flags(b"\\Seen \\recent  kw") == (b"\\Seen kw", True)
    assert plain_flags(b"\\Recents") == (b"\\Recents", False)
    assert plain_flags(b"") == (b"", False)
    assert same_flags(b"a \\Seen", b"\\seen A")
    assert not same_flags(b"a", b"a b")
