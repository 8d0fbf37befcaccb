"""The parity suite's own notation and bookkeeping."""

from __future__ import annotations

import base64
import re
import tempfile
from pathlib import Path

import pytest

from tests.integration.parity.dialogue import Case, DialogueError, Send, Wait, parse
from tests.integration.parity.differences import Difference, compare, read
from tests.integration.parity.normal import lines
from tests.integration.parity.player import Account, Transcript
from tests.integration.parity.seeds import MESSAGES
from tests.integration.parity.templates import Values, fill

VALUES = Values("parity00001", "Secret-1", "INBOX.", ".", uidvalidity="7", modseq="9")


def test_a_block_becomes_a_case() -> None:
    """Options, steps and joined lines are read as written."""
    (case,) = parse(
        "# one\n@requires A|B C\n-- a comment\nC: a1 X {1}\nC| y\nS: a1 +|a2 EOF\n2S: ~has blanks\n", "file"
    )
    assert case.requires == (("A", "B"), ("C",))
    assert case.steps == [
        Send(1, ("a1 X {1}<CR><LF>", "y")),
        Wait(1, (("a1",), ("+", "a2"), ("EOF",))),
        Wait(2, (("~has blanks",),)),
    ]
    assert case.applies("any", frozenset({"B", "C"}))
    assert not case.applies("any", frozenset({"B"}))


@pytest.mark.parametrize("text", ["C: before any case", "# one\nX: what", "# one\n@nosuch"])
def test_what_is_no_notation_is_refused(text: str) -> None:
    """An error names file and line."""
    with pytest.raises(DialogueError, match=r"file:[12]: "):
        parse(text, "file")


@pytest.mark.parametrize(
    ("template", "octets"),
    [
        ("a1 LOGIN $user $pass", b"a1 LOGIN parity00001 Secret-1"),
        ("$(Work/Sub)$/ $p%", b"INBOX.Work.Sub. INBOX.%"),
        ("<CR><LF><NUL><xE9><3*ab>", b"\r\n\0\xe9ababab"),
        ("BODY[]<0.10>", b"BODY[]<0.10>"),
        ("{$len(short)}", b"{%d}" % len(MESSAGES["short"])),
        ("$msg(bare)", MESSAGES["bare"]),
        ("$b64(<NUL>$user<NUL>$pass)", base64.b64encode(b"\0parity00001\0Secret-1")),
        ("$uidvalidity $modseq", b"7 9"),
        ("FETCH $ ($Forwarded)", b"FETCH $ ($Forwarded)"),
    ],
)
def test_templates(template: str, octets: bytes) -> None:
    """Every word of the notation stands for its octets; IMAP's own dollar and angle brackets stay."""
    assert fill(template, VALUES) == octets


def _lines(*responses: bytes, case: Case | None = None) -> list[str]:
    transcript = Transcript([("S: until a1", list(responses))])
    return lines(transcript, Account("h", 1, "parity00001", "x"), case or Case("c", "s"))


def test_only_what_differs_by_nature_is_normalised() -> None:
    """Numbers that a client relies on, order and literals stay as they came."""
    assert _lines(
        b"* OK [UIDVALIDITY 12345] UIDs valid\r\n",
        b'* 2 FETCH (UID 4 INTERNALDATE "17-Jul-1996 02:44:25 -0700" BODY[] {3}\r\na\r\n)\r\n',
        b'* 3 FETCH (INTERNALDATE "24-Nov-2026 02:44:25 +0000" MODSEQ (17))\r\n',
        b"a1 OK [APPENDUID 12345 4] parity00001 done (0.001 + 0.000 secs).\r\n",
    ) == [
        "S: until a1",
        "    * OK [UIDVALIDITY <v>] UIDs valid",
        '    * 2 FETCH (UID 4 INTERNALDATE "17-Jul-1996 02:44:25 -0700" BODY[] {3}\\r\\na\\r\\n)',
        '    * 3 FETCH (INTERNALDATE "<now>" MODSEQ (<m>))',
        "    a1 OK [APPENDUID <v> 4] <user> done (<secs>).",
    ]


def test_a_lost_crlf_shows() -> None:
    """A response without its CRLF differs from one that has it."""
    assert _lines(b"a1 OK done\n")[1] != _lines(b"a1 OK done\r\n")[1]


def test_order_counts_unless_the_case_says_otherwise() -> None:
    """Two responses the other way round differ, save in an unordered case."""
    assert _lines(b"* 1 EXISTS\r\n", b"a1 OK\r\n") != _lines(b"a1 OK\r\n", b"* 1 EXISTS\r\n")
    free = Case("c", "s", unordered=True)
    assert _lines(b"* 1 EXISTS\r\n", b"a1 OK\r\n", case=free) == _lines(b"a1 OK\r\n", b"* 1 EXISTS\r\n", case=free)


def _difference(number: int, match: str, replace: str) -> Difference:
    return Difference(number, "*", "*", (re.compile(match),), replace, "a reason")


def _pair(direct: str, gate: str, replace: str) -> Difference:
    """A rule for both sides, read from a file as those of differences.toml are."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(f"[[difference]]\ndirect = '{direct}'\ngate = '{gate}'\nreplace = '{replace}'\nreason = 'x'\n")
        file.flush()
        return read(Path(file.name))[0]


def test_differences_are_needed_or_not() -> None:
    """Only the entries without which the transcripts differ count as needed."""
    entries = [_difference(1, "NO .*", "NO <text>"), _difference(2, "BAD .*", "BAD <text>")]
    found = compare(["C: x", "    a1 NO one"], ["C: x", "    a1 NO two"], entries)
    assert found.equal
    assert found.needed == {1}
    assert compare(["    a1 NO one"], ["    a1 NO one"], entries).needed == frozenset()
    assert not compare(["    a1 NO one"], ["    a1 OK one"], entries).equal


def test_a_line_rule_leaves_the_dialogue_alone() -> None:
    """What was sent is never changed."""
    assert _difference(1, "x", "y").apply(["C: x", "    x"], ["    x"]) == (["C: x", "    y"], ["    y"])


def test_a_rule_for_both_sides_needs_both() -> None:
    """It replaces only where both sides have what it names, and give the same by their groups."""
    entry = _pair(r"(\S+) BAD .*", r"(\S+) BAD Unknown .*", r"\1 BAD <unknown>")
    direct, gate = ["    a1 BAD one", "    a2 BAD two"], ["    a1 BAD Unknown X", "    a2 BAD two"]
    assert entry.apply(direct, gate) == (["    a1 BAD <unknown>", "    a2 BAD two"],) * 2
    for other in (["    a3 BAD Unknown X"], ["    a1 NO Unknown X"], ["C: a1 BAD Unknown X"], ["    a1 BAD Other"]):
        assert entry.apply(direct, other) == (direct, other)


def test_a_rule_for_both_sides_stays_behind_its_step() -> None:
    """Equal lines behind different steps of the dialogue are no pair."""
    entry = _pair(r"\+ .*", r"\+ OK", "+ <text>")
    direct, gate = ["C: x", "    + a", "C: y", "    + b"], ["C: x", "    + a", "C: y", "    + OK"]
    assert entry.apply(direct, gate) == (["C: x", "    + a", "C: y", "    + <text>"],) * 2


def test_a_rule_for_both_sides_may_span_lines() -> None:
    """A line too many on one side, and a step that only one side took."""
    entry = _pair("<closed>", r"\* BYE .*\n    <closed>", "<closed>")
    assert compare(["    <closed>"], ["    * BYE gone", "    <closed>"], [entry]).equal
    assert not compare(["    <closed>", "    * BYE gone"], ["    <closed>"], [entry]).equal
    step = _pair(r"a1 NO (.*)\nS: end", r"\+ OK\nC: x\nS: end\n    a1 NO (.*)", r"NO \1")
    assert compare(["    a1 NO no", "S: end"], ["    + OK", "C: x", "S: end", "    a1 NO no"], [step]).equal
    assert not compare(["    a1 NO no", "S: end"], ["    + OK", "C: x", "S: end", "    a1 NO yes"], [step]).equal


def test_entries_concern_cases_and_servers() -> None:
    """Shell patterns, several of them, with exceptions."""
    entry = Difference(1, "login-* id-* !login-twice", "dovecot cyrus", (re.compile("x"),), "y", "a reason")
    assert entry.concerns("login-atoms", "cyrus")
    assert not entry.concerns("login-twice", "cyrus")
    assert not entry.concerns("login-atoms", "courier")
