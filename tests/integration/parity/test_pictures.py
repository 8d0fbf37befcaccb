"""What a client knows of its mailbox by a transcript: order does not matter where it changes nothing, all else does."""

from __future__ import annotations

import pytest

from tests.integration.parity.pictures import pictured

_OPEN = """
C: a1 SELECT INBOX
S: until a1
    * FLAGS (\\Seen \\Deleted $New)
    * 3 EXISTS
    * 0 RECENT
    a1 OK done
"""


def _shown(text: str, *, late: bool = False, echoes: bool = False) -> list[str]:
    return pictured((_OPEN + text).strip("\n").split("\n"), late=late, echoes=echoes)


def _step(sent: str, *said: str) -> str:
    tag = sent.split()[0]
    return "\n".join([f"C: {sent}", f"S: until {tag}", *(f"    {line}" for line in said), f"    {tag} OK done", ""])


_NEWS = ("* 1 EXPUNGE", "* 2 EXPUNGE", "* 1 FETCH (FLAGS (\\Seen $New))", "* 2 EXISTS", "* 1 RECENT")


@pytest.mark.parametrize(
    ("direct", "gate"),
    [
        pytest.param(
            _step("a2 NOOP", *_NEWS),
            _step(
                "a2 NOOP", "* 2 FETCH (FLAGS ($New \\Seen))", "* 3 EXPUNGE", "* 1 EXPUNGE", "* 2 EXISTS", "* 1 RECENT"
            ),
            id="expunges-either-way-and-flags-before",
        ),
        pytest.param(
            _step("a2 FETCH 1 FLAGS", "* 1 FETCH (FLAGS ($New \\Seen))", "* 1 FETCH (FLAGS ($New \\Seen))"),
            _step("a2 FETCH 1 FLAGS", "* 1 FETCH (FLAGS (\\Seen $New))"),
            id="said-once-more",
        ),
        pytest.param(
            _step("a2 SEARCH ALL", "* 4 EXISTS", "* 0 RECENT", "* SEARCH 1 2 3"),
            _step("a2 SEARCH ALL", "* SEARCH 1 2 3", "* 4 EXISTS"),
            id="news-around-results",
        ),
        pytest.param(
            "C: a2 NOOP<CR><LF>a3 SEARCH ALL\nS: until a2 a3\n    * SEARCH 1\n    a3 OK x\n    a2 OK x\n",
            "C: a2 NOOP<CR><LF>a3 SEARCH ALL\nS: until a2 a3\n    a2 OK x\n    * SEARCH 1\n    a3 OK x\n",
            id="pipelined-answered-in-any-order",
        ),
    ],
)
def test_the_same_is_known(direct: str, gate: str) -> None:
    """Order, and what is said once more, makes no difference."""
    assert _shown(direct) == _shown(gate)


@pytest.mark.parametrize(
    "gate",
    [
        pytest.param(_step("a2 NOOP", *_NEWS[1:]), id="an-expunge-missing"),
        pytest.param(_step("a2 NOOP", "* 2 EXPUNGE", *_NEWS[1:]), id="another-number-expunged"),
        pytest.param(_step("a2 NOOP", *_NEWS[:2], *_NEWS[3:]), id="flags-missing"),
        pytest.param(_step("a2 NOOP", *_NEWS[:2], "* 1 FETCH (FLAGS (\\Seen))", *_NEWS[3:]), id="other-flags"),
        pytest.param(
            _step("a2 NOOP", "* 1 FETCH (FLAGS (\\Seen $New))", *_NEWS[:2], *_NEWS[3:]), id="flags-of-another"
        ),
        pytest.param(_step("a2 NOOP", *_NEWS[:3], "* 3 EXISTS", _NEWS[4]), id="another-number-of-messages"),
        pytest.param(_step("a2 NOOP", *_NEWS[:4]), id="recent-missing"),
        pytest.param(_step("a2 NOOP", *_NEWS, "* FLAGS (\\Seen)"), id="other-keywords"),
        pytest.param(_step("a2 NOOP", *_NEWS, "* 1 EXISTS"), id="fewer-messages"),
        pytest.param(_step("a2 NOOP", *_NEWS, "* 3 EXPUNGE"), id="an-expunge-of-nothing"),
        pytest.param(_step("a2 NOOP", *_NEWS, "* SEARCH 1"), id="something-else"),
        pytest.param(_step("a2 NOOP", *_NEWS).replace("a2 OK", "a2 NO"), id="another-completion"),
    ],
)
def test_what_is_wrong_shows(gate: str) -> None:
    """One number, flag or line that is wrong makes a difference, behind the very step."""
    assert _shown(gate) != _shown(_step("a2 NOOP", *_NEWS))


@pytest.mark.parametrize(
    ("direct", "gate"),
    [
        pytest.param(
            _step("a2 FETCH 1:2 FLAGS", "* 1 FETCH (FLAGS ())", "* 2 FETCH (FLAGS ())"),
            _step("a2 FETCH 1:2 FLAGS", "* 1 FETCH (FLAGS ())"),
            id="an-answer-missing",
        ),
        pytest.param(
            _step("a2 FETCH 1 UID", "* 1 FETCH (UID 5)"), _step("a2 FETCH 1 UID", "* 1 FETCH (UID 6)"), id="another-UID"
        ),
        pytest.param(_step("a2 SEARCH ALL"), _step("a2 SEARCH ALL", "* 1 EXPUNGE"), id="an-expunge-where-none-may-be"),
        pytest.param(
            _step("a2 STORE 2 +FLAGS.SILENT (\\Seen)"),
            _step("a2 STORE 2 +FLAGS.SILENT (\\Seen)", "* 2 FETCH (FLAGS ($New))"),
            id="a-silent-store-undone",
        ),
        pytest.param(
            _step("a2 STORE 2 +FLAGS.SILENT (\\Seen)"),
            _step("a2 STORE 2 +FLAGS.SILENT (\\Seen)", "* 3 FETCH (FLAGS (\\Seen))"),
            id="flags-of-a-message-not-stored",
        ),
    ],
)
def test_wrong_answers_show(direct: str, gate: str) -> None:
    """The same for what was asked for."""
    assert _shown(direct, echoes=True) != _shown(gate, echoes=True)


def test_a_picture_in_full() -> None:
    """What is known of each message stands behind its number; what is only known to have been done, by a sign."""
    shown = _shown(
        _step("a2 FETCH 2 (UID FLAGS)", "* 2 FETCH (UID 5 FLAGS (\\Seen \\Recent))")
        + _step("a3 STORE 1 -FLAGS.SILENT (\\Seen)")
        + _step("a4 UID STORE 5 +FLAGS.SILENT ($New)")
    )
    assert shown[-6:] == [
        "    a4 OK done",
        "    = 3 messages, FLAGS ($NEW \\DELETED \\SEEN)",
        "    = 0 recent",
        "    = 1: #1 -\\SEEN",
        "    = 2: #2 UID 5 ($NEW \\SEEN)",
        "    = 3: #3",
    ]


@pytest.mark.parametrize(("sign", "flags"), [("+", "\\Seen $New"), ("-", "$New"), ("", "\\Seen")])
def test_who_echoes_silent_stores(sign: str, flags: str) -> None:
    """What a client knows that it has done need not be told, and must not where nobody does so."""
    silent = _step(f"a2 STORE 2 {sign}FLAGS.SILENT (\\Seen)")
    echoed = _step(f"a2 STORE 2 {sign}FLAGS.SILENT (\\Seen)", f"* 2 FETCH (FLAGS ({flags}))")
    assert _shown(silent, echoes=True) == _shown(echoed, echoes=True)
    assert _shown(silent) != _shown(echoed)


def test_who_tells_late() -> None:
    """Behind a command that does not ask for news, nothing has to be known yet; behind NOOP, all."""
    early = _step("a2 FETCH 1 UID", "* 1 FETCH (UID 5)", "* 4 EXISTS") + _step("a3 NOOP")
    direct = _step("a2 FETCH 1 UID", "* 1 FETCH (UID 5)") + _step("a3 NOOP", "* 4 EXISTS")
    assert _shown(early, late=True) == _shown(direct, late=True)
    assert _shown(early) != _shown(direct)
    never = _step("a2 FETCH 1 UID", "* 1 FETCH (UID 5)") + _step("a3 NOOP")
    assert _shown(never, late=True) != _shown(direct, late=True)


def test_each_connection_has_its_own_picture() -> None:
    """What one client is told says nothing of what another one knows."""
    other = _OPEN.strip("\n") + "\nC: a2 NOOP\nS: until a2\n    * 1 EXPUNGE"
    shown = _shown(other.replace("C:", "2C:").replace("S:", "2S:"))
    assert [line for line in shown if "messages" in line] == [
        f"    = {count} messages, FLAGS ($NEW \\DELETED \\SEEN)" for count in (3, 3, 2)
    ]
