"""SELECT's lines are said again as things stand then, to whoever selects the same mailbox (SHARED, rules 19 and 20)."""

from __future__ import annotations

import pytest

from imapgate.sharing.opening import Opening, announces
from imapgate.sharing.truth import Truth
from imapgate.sharing.view import View
from tests.sharing.mailboxes import alter, arrive, go, holding

DOVECOT = [
    b"* OK [CLOSED] Previous mailbox closed.",
    b"* FLAGS (\\Answered \\Seen kw)",
    b"* OK [PERMANENTFLAGS (\\Answered \\Seen kw \\*)] Flags permitted.",
    b"* 3 EXISTS",
    b"* 1 RECENT",
    b"* OK [UNSEEN 2] First unseen.",
    b"* OK [UIDVALIDITY 17] UIDs valid",
    b"* OK [UIDNEXT 40] Predicted next UID",
    b"* OK [HIGHESTMODSEQ 9] Highest",
    b"* OK [NOMODSEQ] Sorry",
    b"* OK Hello",
]


def opened(lines: list[bytes], truth: Truth) -> Opening:
    """A SELECT that was answered by these lines."""
    opening = Opening()
    for line in lines:
        if line[2:3].isdigit():
            opening.numbered(line.rsplit(b" ", 1)[-1])
        else:
            opening.line(line + b"\r\n", truth)
    return opening


def mailbox() -> Truth:
    """Three messages, the first of them seen, the last of them recent."""
    truth = holding(10, 20, 30)
    truth.learn(0, 10, b"\\Seen")
    truth.recent.add(30)
    return truth


def said(opening: Opening, truth: Truth, view: View | None = None, *, fresh: bool = False) -> list[bytes]:
    """What a session that joins is told."""
    joins = View(read_only=False) if view is None else view
    return opening.said(joins, truth, fresh=fresh).split(b"\r\n")[:-1]


def test_fresh() -> None:
    """Who has it selected gets all lines in the server's order, but for what closed another mailbox (rule 20)."""
    truth = mailbox()
    view = View(read_only=False)
    assert said(opened(DOVECOT, truth), truth, view, fresh=True) == DOVECOT[1:]
    assert (truth.validity, truth.uid_next, view.recents, len(view)) == (b"17", 40, {30}, 3)
    assert view.announced == truth.announced == (DOVECOT[1] + b"\r\n", DOVECOT[2] + b"\r\n")
    assert view.agrees(truth)


def test_later() -> None:
    """Who joins later gets numbers and flags as they stand, and no code that was true of a moment (rule 20)."""
    truth = mailbox()
    opening = opened(DOVECOT, truth)
    said(opening, truth, fresh=True)
    go(truth, 10)
    alter(truth, 20, b"\\Seen")
    arrive(truth, 45, b"")
    opening_line = b"* FLAGS (\\Answered \\Seen kw new)"
    truth.announced = (truth.announced[1], opening_line + b"\r\n")
    assert said(opening, truth) == [
        DOVECOT[2],
        opening_line,
        b"* 3 EXISTS",
        b"* 0 RECENT",
        b"* OK [UNSEEN 2] First unseen.",
        b"* OK [UIDVALIDITY 17] UIDs valid",
        b"* OK [UIDNEXT 46] Predicted next UID",
        b"* OK [NOMODSEQ] Sorry",
        b"* OK Hello",
    ]


def test_recent_once() -> None:
    """Only the first that selects for writing has the recent messages; who only reads takes none (rule 19)."""
    truth = mailbox()
    opening = opened(DOVECOT, truth)
    views = [View(read_only=True), View(read_only=True), View(read_only=False), View(read_only=False)]
    counts = [said(opening, truth, view)[3] for view in views]
    assert counts == [b"* 1 RECENT", b"* 1 RECENT", b"* 1 RECENT", b"* 0 RECENT"]
    assert [view.recents for view in views] == [set(), set(), {30}, set()]


def test_unseen() -> None:
    """UNSEEN is left out where all is seen, and said where there is any again, if the server would (rule 20)."""
    truth = mailbox()
    opening = opened(DOVECOT, truth)
    for uid in (20, 30):
        alter(truth, uid, b"\\Seen")
    assert not any(b"UNSEEN" in line for line in said(opening, truth))
    seen = opened([line for line in DOVECOT if b"UNSEEN" not in line], truth)
    assert not any(b"UNSEEN" in line for line in said(seen, truth))
    alter(truth, 30, b"")
    assert said(seen, truth)[-1] == b"* OK [UNSEEN 3] First unseen"
    assert [line for line in said(opening, truth) if b"UNSEEN" in line] == [b"* OK [UNSEEN 3] First unseen."]


COURIER = [b"* FLAGS (\\Seen)", b"* 3 EXISTS", b"* 0 RECENT", b"* OK [UIDVALIDITY 5] Ok"]


def test_courier() -> None:
    """A server that says neither UNSEEN nor UIDNEXT is not made to (rule 20)."""
    truth = mailbox()
    truth.recent.clear()
    opening = opened(COURIER, truth)
    arrive(truth, 40)
    assert said(opening, truth) == [COURIER[0], b"* 4 EXISTS", *COURIER[2:]]
    assert truth.uid_next == 0


@pytest.mark.parametrize("line", [b"* OK [UIDNEXT] what", b"* OK [UIDNEXT x] what", b"* OK [UIDVALIDITY] what"])
def test_broken_codes(line: bytes) -> None:
    """A code without its number says nothing of the mailbox."""
    truth = mailbox()
    opened([line], truth)
    assert (truth.uid_next, truth.validity) == (0, b"" if b"VALIDITY" in line else b"7")


def test_uid_next_never_known() -> None:
    """UIDNEXT that was no number is not said again."""
    truth = mailbox()
    assert said(opened([b"* OK [UIDNEXT x] what"], truth), truth) == [b"* OK [UNSEEN 2] First unseen"]


def test_announced() -> None:
    """The latest FLAGS and PERMANENTFLAGS stand, each in the place of the one before (rule 17)."""
    truth = Truth()
    opening = opened(
        [b"* FLAGS (a)", b"* OK [PERMANENTFLAGS (a)] x", b"* FLAGS (a b)", b"* OK [permanentflags (a b)] y"], truth
    )
    assert truth.announced == (b"* FLAGS (a b)\r\n", b"* OK [permanentflags (a b)] y\r\n")
    assert said(opening, truth) == [b"* FLAGS (a b)", b"* OK [permanentflags (a b)] y"]


def test_announces() -> None:
    """Only FLAGS and PERMANENTFLAGS say which flags there are."""
    assert announces(b"* flags (a)\r\n")
    assert announces(b"* OK [PERMANENTFLAGS (a)] x\r\n")
    assert not announces(b"* OK [PERMANENTFLAGSX (a)] x\r\n")
    assert not announces(b"* 1 FETCH (FLAGS (a))\r\n")
    assert not announces(b"* OK FLAGS (a)\r\n")
