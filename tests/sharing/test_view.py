"""A view knows what its session was told, and what it says means that (SHARED, rules 6 to 19 and 24)."""

from __future__ import annotations

import pytest

from imapgate.sharing.truth import Truth
from imapgate.sharing.view import View
from tests.sharing.mailboxes import alter, arrive, go, holding, looking


def test_agreement() -> None:
    """Numbers mean the same only while nothing is gone untold and nothing is there untold (rule 7)."""
    truth = holding(10, 20)
    view = looking(truth)
    assert view.agrees(truth)
    arrive(truth, 30)
    assert not view.agrees(truth)
    assert view.grow(truth) == b"* 3 EXISTS\r\n* 0 RECENT\r\n"
    assert view.agrees(truth)
    go(truth, 20, view)
    assert not view.agrees(truth)
    arrive(truth, 40)
    assert not view.agrees(truth)


def test_numbers() -> None:
    """Messages keep the numbers that the session knows, what is gone without its knowing counted (rule 6)."""
    truth = holding(10, 20, 30, 40, 50)
    view = looking(truth)
    assert [view.number(truth, index) for index in range(5)] == [1, 2, 3, 4, 5]
    go(truth, 20, view)
    go(truth, 40, view)
    truth.exists(4)
    assert len(view) == 5
    assert [view.number(truth, index) for index in range(4)] == [1, 3, 5, 6]
    assert (view.gone(truth), view.ghosts) == ([2, 4], [20, 40])


def test_unknown_comes_and_goes() -> None:
    """What comes and goes without a session's hearing of it leaves no ghost with it (rule 6)."""
    truth = holding(10)
    view = looking(truth)
    arrive(truth, 20)
    alter(truth, 20, b"kw", view)
    go(truth, 20, view)
    assert (view.told, view.ghosts, view.changed) == (1, [], {})
    assert view.flush(truth, expunges=True) == b""


def test_flush() -> None:
    """All that is owed is told in the order in which each number means what it says when it is read (rule 17)."""
    truth = holding(10, 20, 30, 40)
    view = looking(truth)
    alter(truth, 40, b"kw", view)
    alter(truth, 10, b"\\Seen", view)
    go(truth, 20, view)
    go(truth, 30, view)
    arrive(truth, 50, b"\\Flagged")
    truth.announced = (b"* FLAGS (kw)\r\n", b"* OK [PERMANENTFLAGS (kw)] ok\r\n")
    assert view.flush(truth, expunges=True) == (
        b"* FLAGS (kw)\r\n* OK [PERMANENTFLAGS (kw)] ok\r\n"
        b"* 4 FETCH (FLAGS (kw))\r\n* 1 FETCH (FLAGS (\\Seen))\r\n"
        b"* 3 EXPUNGE\r\n* 2 EXPUNGE\r\n* 3 EXISTS\r\n* 0 RECENT\r\n"
    )
    assert view.agrees(truth)
    assert view.flush(truth, expunges=True) == b""


def test_expunges_held_back() -> None:
    """Where no EXPUNGE may be told, all else is, in the old numbers (rule 17, RFC 3501 §7.4.1)."""
    truth = holding(10, 20, 30)
    view = looking(truth)
    go(truth, 10, view)
    alter(truth, 30, b"kw", view)
    arrive(truth, 40)
    assert view.flush(truth, expunges=False) == b"* 3 FETCH (FLAGS (kw))\r\n* 4 EXISTS\r\n* 0 RECENT\r\n"
    assert view.flush(truth, expunges=False) == b""
    assert view.flush(truth, expunges=True) == b"* 1 EXPUNGE\r\n"


def test_owed_of_the_gone() -> None:
    """Flags of a message that is gone are owed to nobody (rule 17)."""
    truth = holding(10, 20)
    view = looking(truth)
    alter(truth, 20, b"kw", view)
    go(truth, 20, view)
    assert view.flush(truth, expunges=False) == b""
    assert view.flush(truth, expunges=True) == b"* 2 EXPUNGE\r\n"


def test_flags_once() -> None:
    """Flags that change many times are told once, as they are then; those of untold messages are not owed (rule 12)."""
    truth = holding(10)
    view = looking(truth)
    arrive(truth, 20)
    for flags in (b"a", b"b", b"c"):
        alter(truth, 10, flags, view)
        alter(truth, 20, flags, view)
    assert view.flush(truth, expunges=True) == b"* 1 FETCH (FLAGS (c))\r\n* 2 EXISTS\r\n* 0 RECENT\r\n"


def test_half_known() -> None:
    """A message of which nothing more is known is told of when it is, unless an answer names it (rules 5 and 11)."""
    truth = holding(10)
    view = looking(truth)
    truth.exists(3)
    assert view.flush(truth, expunges=True) == b""
    truth.learn(1, 20, b"")
    assert view.flush(truth, expunges=True) == b"* 2 EXISTS\r\n* 0 RECENT\r\n"
    assert view.grow(truth) == b"* 3 EXISTS\r\n* 0 RECENT\r\n"
    assert view.grow(truth) == b""
    assert view.flush(truth, expunges=True) == b""


def test_named_but_not_filled() -> None:
    """What is gone keeps its place among messages whose flags are unknown, and what is owed is kept (rule 6)."""
    truth = holding(10, 20)
    view = looking(truth)
    truth.exists(6)
    truth.learn(2, 30, None)
    truth.learn(3, 40, b"")
    view.grow(truth)
    assert truth.learn(3, 0, b"kw")
    view.owe(truth, 3)
    truth.learn(4, 0, b"a")
    assert truth.learn(4, 0, b"b")
    view.owe(truth, 4)
    truth.expunge(3)
    view.expunged(truth, 2, 30)
    assert [view.number(truth, index) for index in range(5)] == [1, 2, 4, 5, 6]
    assert view.flush(truth, expunges=True) == b"* 3 EXPUNGE\r\n"
    truth.learn(2, 40, b"kw")
    assert truth.filled == 3
    assert view.flush(truth, expunges=True) == b"* 3 FETCH (FLAGS (kw))\r\n"


def test_recent_once() -> None:
    """The first session that may write and is told of a message has it as recent, and nobody else (rule 19)."""
    truth = holding(10)
    first, second, reader = looking(truth), looking(truth), looking(truth, read_only=True)
    arrive(truth, 20)
    truth.recent.add(20)
    assert reader.flush(truth, expunges=True) == b"* 2 EXISTS\r\n* 1 RECENT\r\n"
    assert reader.flags(truth, 1) == b"\\Recent"
    assert first.flush(truth, expunges=True) == b"* 2 EXISTS\r\n* 1 RECENT\r\n"
    assert second.flush(truth, expunges=True) == b"* 2 EXISTS\r\n* 0 RECENT\r\n"
    assert (first.recents, second.recents, truth.recent) == ({20}, set(), set())
    assert [view.flags(truth, 1) for view in (first, second, reader)] == [b"\\Recent", b"", b""]
    alter(truth, 20, b"kw", first, second)
    assert first.flush(truth, expunges=True) == b"* 2 FETCH (FLAGS (kw \\Recent))\r\n"
    assert second.flush(truth, expunges=True) == b"* 2 FETCH (FLAGS (kw))\r\n"


def test_recent_late() -> None:
    """A message that is found to be recent when it was told of already is so to whoever hears first (rule 19)."""
    truth = holding(10, 20)
    first, second, reader = looking(truth), looking(truth), looking(truth, read_only=True)
    truth.recent.add(20)
    assert reader.flush(truth, expunges=True) == b""
    assert second.flush(truth, expunges=False) == b"* 1 RECENT\r\n"
    assert first.flush(truth, expunges=True) == b""
    assert (first.recents, second.recents, truth.recent) == (set(), {20}, set())
    alter(truth, 20, b"kw", second)
    truth.recent.add(10)
    alter(truth, 10, b"kw", second)
    assert second.flush(truth, expunges=True) == (
        b"* 2 FETCH (FLAGS (kw \\Recent))\r\n* 1 FETCH (FLAGS (kw \\Recent))\r\n* 2 RECENT\r\n"
    )


def test_recent_gone() -> None:
    """The number of recent messages is told anew when one of them is told to be gone (rules 17 and 19)."""
    truth = holding(10, 20)
    truth.recent = {10, 20}
    view = looking(truth)
    go(truth, 10, view)
    assert view.flush(truth, expunges=False) == b""
    assert view.flush(truth, expunges=True) == b"* 1 EXPUNGE\r\n* 1 RECENT\r\n"
    assert view.recents == {20}


def test_announced() -> None:
    """Which flags there are is told when it has changed, and not when it was only said again (rule 17)."""
    truth = holding(10)
    truth.announced = (b"* FLAGS (a)\r\n",)
    view = looking(truth)
    truth.announced = (b"* FLAGS " + b"(a)\r\n",)
    assert view.flush(truth, expunges=True) == b""
    assert view.announced is truth.announced
    truth.announced = (b"* FLAGS (b)\r\n",)
    assert view.announce(truth) == b"* FLAGS (b)\r\n"
    assert view.announce(truth) == b""


# --- parking and going on elsewhere ---------------------------------------------------------------------


def parked(truth: Truth, view: View) -> View:
    """A view whose channel is given up."""
    assert view.park(truth)
    return view


def test_elsewhere() -> None:
    """A session that goes on elsewhere is owed the differences, in the numbers that it knows (rule 24)."""
    truth = holding(10, 20, 30, 40)
    view = looking(truth)
    alter(truth, 40, b"kw", view)
    go(truth, 20, view)
    parked(truth, view)
    other = holding(10, 40, 50)
    other.learn(0, 10, b"\\Seen")
    other.learn(1, 40, b"kw")
    assert view.rebase(other)
    assert (view.told, view.ghosts, sorted(view.changed), view.snapshot) == (2, [20, 30], [10, 40], None)
    assert view.flush(other, expunges=True) == (
        b"* 1 FETCH (FLAGS (\\Seen))\r\n* 4 FETCH (FLAGS (kw))\r\n"
        b"* 3 EXPUNGE\r\n* 2 EXPUNGE\r\n* 3 EXISTS\r\n* 0 RECENT\r\n"
    )


def test_elsewhere_the_same() -> None:
    """Where nothing has changed, nothing is owed: flags in another order are the same (rules 12 and 24)."""
    truth = holding(10, 20, flags=b"a \\Seen")
    view = parked(truth, looking(truth))
    assert view.rebase(holding(10, 20, flags=b"\\seen A"))
    assert (view.told, view.ghosts, view.changed) == (2, [], {})


def test_elsewhere_back() -> None:
    """A message that one channel has lost before another is there again, with its flags (rule 24)."""
    truth = holding(10, 20, 30)
    view = looking(truth)
    go(truth, 20, view)
    parked(truth, view)
    assert view.rebase(holding(10, 20, 30))
    assert (view.told, view.ghosts, list(view.changed)) == (3, [], [20])


def test_elsewhere_empty() -> None:
    """A session that knew of no message is told of all, and one whose messages are all gone of that (rule 24)."""
    view = parked(Truth(), View(read_only=False))
    other = holding(10, validity=b"")
    assert view.rebase(other)
    assert view.flush(other, expunges=True) == b"* 1 EXISTS\r\n* 0 RECENT\r\n"
    parked(other, view)
    empty = Truth()
    assert view.rebase(empty)
    assert view.flush(empty, expunges=True) == b"* 1 EXPUNGE\r\n"


@pytest.mark.parametrize("other", [holding(10, 20, validity=b"8"), holding(10, 15, 20), holding(15, 20)])
def test_elsewhere_another(other: Truth) -> None:
    """Another UIDVALIDITY, or a new UID among those that were there, is another mailbox (rule 24, surprise 4)."""
    truth = holding(10, 20)
    assert not parked(truth, looking(truth)).rebase(other)


def test_nowhere() -> None:
    """A session that was told of a message of which nothing more is known cannot go on elsewhere (rule 24)."""
    truth = holding(10)
    view = looking(truth)
    truth.exists(2)
    assert view.park(truth)
    view.grow(truth)
    assert not view.park(truth)
