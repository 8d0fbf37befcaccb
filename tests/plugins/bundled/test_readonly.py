"""The plugin readonly: every command of the table at each of its levels."""

from __future__ import annotations

import pytest

from imapgate.model.commands import COMMANDS
from imapgate.plugins.api import Interests, Message, OptionError, Reject, Replace, Verdict
from imapgate.plugins.bundled.readonly import PLUGIN
from tests.plugins.bundled.commanding import command, options, session

READING = [
    "CAPABILITY", "NOOP", "LOGOUT", "ID", "EXAMINE", "LIST", "LSUB", "XLIST", "SCAN", "STATUS", "NAMESPACE", "ENABLE",
    "IDLE", "GETQUOTA", "GETQUOTAROOT", "GETACL", "LISTRIGHTS", "MYRIGHTS", "GETMETADATA", "GETANNOTATION", "ESEARCH",
    "CANCELUPDATE", "CHECK", "UNSELECT", "SEARCH", "SORT", "THREAD", "FETCH", "UID_SEARCH", "UID_SORT", "UID_THREAD",
    "UID_FETCH",
]  # fmt: skip
ARGUMENTS = {
    "any": "(x)",
    "string": "x",
    "mailbox": "Work",
    "sequence": "1",
    "list": "(x)",
}
REFUSED = {
    "none": Reject("NOPERM", "Mail can only be read here", "none"),
    "organise": Reject("NOPERM", "Mail can be put in order here, not be taken away", "organise"),
}


def judged(level: str, text: str | bytes) -> Verdict | None:
    """Judge a command."""
    return PLUGIN(options(level=level)).command(session(), command(text))


def every_command() -> list[str]:
    """Return a command of every verb that may come after a login, and of two that the gate does not know."""
    texts = [
        " ".join([verb.decode(), *(ARGUMENTS[kind] for kind in rule.shape)])
        for verb, rule in COMMANDS.items()
        if rule.when.value != "not authenticated" and rule.message_after is None
    ]
    return [*texts, "APPEND Work {5}", "REPLACE 1 Work {5}", "UID REPLACE 1 Work {5}", "XEXTRA", "NOTIFY NONE"]


def verb_of(text: str) -> str:
    """Return a command's verb, with an underscore."""
    return text.replace("UID ", "UID_").split()[0]


@pytest.mark.parametrize("text", every_command())
def test_none_refuses_what_does_not_read(text: str) -> None:
    """Only the commands that read pass, and SELECT becomes EXAMINE; all others are refused."""
    verdict = judged("none", text)
    if text == "SELECT Work":
        assert verdict == Replace(b"EXAMINE Work", "none")
    else:
        assert verdict == (None if verb_of(text) in [*READING, "CLOSE"] else REFUSED["none"])


@pytest.mark.parametrize("text", every_command())
def test_organise_refuses_what_takes_away(text: str) -> None:
    """What reads passes, and what adds; all others are refused, and those that are not known."""
    adding = ["SELECT", "COPY", "UID_COPY", "CREATE", "SUBSCRIBE", "UNSUBSCRIBE", "APPEND"]
    verdict = judged("organise", text)
    if text == "CLOSE":
        assert verdict == Replace(b"UNSELECT", "organise")
    else:
        assert verdict == (None if verb_of(text) in READING + adding else REFUSED["organise"])


def test_full_asks_for_nothing() -> None:
    """The level that lets everything pass costs nothing."""
    assert PLUGIN(options(level="full")).interests == Interests()


@pytest.mark.parametrize("level", ["none", "organise"])
def test_it_wants_to_see_every_command(level: str) -> None:
    """A verb that only this installation knows is judged as well."""
    assert PLUGIN(options(level=level)).interests.verbs is None


def test_further_messages_are_asked_about() -> None:
    """The flags of a second message can only be seen when it begins."""
    assert PLUGIN(options(level="organise")).interests.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('SELECT "a b"', b'EXAMINE "a b"'),
        (b"SELECT {5+}\r\na\xc3\xa4\r\n", b"EXAMINE {5}\r\na\xc3\xa4\r\n"),
        ("select inbox (CONDSTORE)", b"EXAMINE inbox (CONDSTORE)"),
        ("SELECT INBOX (QRESYNC (1 2 1:5))", b"EXAMINE INBOX (QRESYNC (1 2 1:5))"),
    ],
)
def test_select_keeps_its_arguments(text: str | bytes, line: bytes) -> None:
    """EXAMINE has the arguments that SELECT had, literals and parameters included."""
    assert judged("none", text) == Replace(line, "none")


@pytest.mark.parametrize(
    "text",
    [
        r"STORE 1 FLAGS (\Seen)",
        r"UID STORE 1:* +FLAGS.SILENT (\Flagged $Label)",
        r"STORE 1 -FLAGS (\Deleted)",
        r"STORE 1 FLAGS ()",
        r"STORE 1 (UNCHANGEDSINCE 5) +FLAGS (\Seen)",
        r"APPEND Work (\Seen) {5}",
        r"APPEND \Deleted (\Seen) {5}",
    ],
)
def test_organise_lets_flags_change(text: str) -> None:
    """All flags but one may be set, and that one may be taken away."""
    assert judged("organise", text) is None


@pytest.mark.parametrize(
    "text",
    [
        r"STORE 1 FLAGS (\Deleted)",
        r"STORE 1 FLAGS (\Seen \deleted)",
        r"STORE 1 FLAGS \Deleted",
        r"STORE 1 FLAGS \Seen \Deleted",
        r"UID STORE 1 +FLAGS.SILENT (\DELETED)",
        r"STORE 1 (UNCHANGEDSINCE 5) +FLAGS (\Deleted)",
        r"STORE 1 +X-GM-LABELS (\Trash)",
        r"STORE 1 ANNOTATION (/comment (value.priv x))",
        r"APPEND Work (\Seen \Deleted) {5}",
        r"APPEND Work (\deleted) {5}",
        r"APPEND Work \Deleted {5}",
        r"APPEND Work UTF8 (\Deleted) {5}",
    ],
)
def test_organise_refuses_the_flag_that_deletes(text: str) -> None:
    r"""No form of a command sets \Deleted, and a STORE that changes something else is not understood."""
    assert judged("organise", text) == REFUSED["organise"]


def test_organise_looks_at_every_message() -> None:
    """A second message's flags are looked at when it begins."""
    plugin, message = PLUGIN(options(level="organise")), Message("Work", 5, 2)
    assert plugin.message_begins(session(), command(r"APPEND Work (\Seen) {5}"), message) is None
    assert plugin.message_begins(session(), command(r"APPEND Work (\Deleted) {5}"), message) == REFUSED["organise"]


def test_the_level() -> None:
    """Nothing may change, unless it is said what may; so ``--plugin readonly`` does what it says."""
    assert isinstance(PLUGIN(options()).command(session(), command("CREATE x")), Reject)
    with pytest.raises(OptionError, match='expected one of "none", "organise", "full"'):
        PLUGIN(options(level="some"))
