"""A24: what plugins write is looked at before anybody acts on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imapgate.plugins.api import CONTINUE, Annotate, Answer, Continue, Disconnect, IPlugin, Reject, Replace
from imapgate.plugins.checking import Junk, checked, checked_capabilities, least_capabilities, refusal
from tests.plugins.asking import parse

HOOKS = sorted(
    set(IPlugin.names()) - {"interests", "threaded", "on_error", "on_timeout", "start", "stop", "capabilities"}
)


class Odd(NamedTuple):
    """No verdict, though it looks like one."""

    text: str = "x"


@pytest.mark.parametrize("hook", HOOKS)
def test_continue(hook: str) -> None:
    """Everything may pass, everywhere."""
    assert checked(hook, None, None) is CONTINUE
    assert checked(hook, Continue(), None) is CONTINUE


PLACES: Mapping[type, set[str]] = {
    Reject: set(HOOKS) - {"session_closed"},
    Disconnect: set(HOOKS) - {"session_closed"},
    Annotate: set(HOOKS) - {"session_closed"},
    Replace: {"command", "untagged"},
    Answer: {"command"},
}
VERDICTS = {one: one() for one in (Reject, Answer, Disconnect)} | {Replace: Replace(b"NOOP"), Annotate: Annotate({})}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("kind", PLACES)
def test_places(hook: str, kind: type) -> None:
    """Each verdict has its places; anywhere else it is junk."""
    if hook in PLACES[kind]:
        checked(hook, VERDICTS[kind], parse)
    else:
        with pytest.raises(Junk, match=f"^{kind.__name__} has no place in {hook}$"):
            checked(hook, VERDICTS[kind], parse)


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook != "session_closed"])
def test_what_cannot_be_refused(hook: str) -> None:
    """Where nothing is to be answered, or it has happened, a refusal ends the session; so does a plugin that fails."""
    ends = hook in ("session_opened", "tls_started", "mailbox_selected", "fetch_item", "completed")
    said = Reject("LIMIT", "Not today", "r1")
    assert checked(hook, said, None) == (Disconnect("Not today", "r1") if ends else said)
    assert refusal(hook, "error") == (Disconnect("Refused", "error") if ends else Reject("", "Refused", "error"))


EVIL_TEXTS: list[Any] = [
    "",
    "a\r\nb",
    "a\rb",
    "a\nb",
    "a\0b",
    "a\tb",
    "grün",
    "[CAPABILITY IMAP4rev1] x",
    "x {5}",
    "x {5+}",
    "x" * 401,
    b"bytes",
    None,
    7,
]
EVIL_CODES: list[Any] = [
    "A B",
    "A]",
    "A] x [B",
    "A\r\nB",
    "(A)",
    '"A"',
    "A\\",
    "{5}",
    "A*",
    "A%",
    "ü",
    "x" * 65,
    None,
    b"A",
]
EVIL_LINES: list[Any] = [
    b"",
    b"LIST\r\n* BYE",
    b"a\rb",
    b"a\nb",
    b"a\0b",
    b"gr\xc3\xbcn",
    b"X {5}",
    b"X ~{5+}",
    "text",
    None,
]
EVIL_RULES: list[Any] = [None, 1, "a\nb", "x" * 201]
EVIL = [
    *(Reject("", text) for text in EVIL_TEXTS),
    *(Disconnect(text) for text in EVIL_TEXTS),
    *(Answer((), "OK", "", text) for text in EVIL_TEXTS),
    *(Reject(code) for code in EVIL_CODES),
    *(Answer((), "OK", code) for code in EVIL_CODES if code != "A B"),
    *(Answer((b"LIST () / x", line)) for line in EVIL_LINES),
    *(Answer(lines) for lines in (None, b"LIST", {b"a"})),
    *(Answer((), completion) for completion in ("ok", "PREAUTH", "", None, "OK\r\n", ["OK"])),
    *(kind(rule=rule) for kind in (Reject, Disconnect) for rule in EVIL_RULES),
    *(Replace(b"NOOP", rule) for rule in EVIL_RULES),
]


@pytest.mark.parametrize("verdict", EVIL, ids=lambda verdict: ascii(verdict)[:80])
def test_a24_evil_texts(verdict: Any) -> None:
    """No text breaks its line, begins with a code of its own, or announces a literal; no error repeats one."""
    with pytest.raises(Junk) as caught:
        checked("command", verdict, parse)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "verdict",
    [
        Reject("LIMIT", "Too many [for now] {5} today", "r1"),
        Reject("X-MINE/2"),
        Disconnect("See you {later}"),
        Answer((b'LIST () "/" a\tb', b"3 EXISTS"), "NO", "COPYUID 1 2:3 4:5", "x" * 400),
        Answer([b"FLAGS (\\Seen)"], "BAD"),  # type: ignore[arg-type]
        Replace(b"EXAMINE INBOX", "r2"),
        Annotate({"risk.score": 3, "x": True, "subject": "Grüße\r\n", "least": -(2**63) + 1}),
    ],
)
def test_what_passes(verdict: Any) -> None:
    """What can be written as it is passes as it is."""
    assert checked("command", verdict, parse) is verdict


@given(st.text(), st.text(alphabet="A] [\r\n{5}", max_size=8))
@example("OK {1}", "")
def test_a24_one_line(text: str, code: str) -> None:
    """Whatever passes makes one line, with one code, and without a literal."""
    try:
        checked("command", Reject(code, text), None)
    except Junk:
        return
    line = f"a1 NO {f'[{code}] ' if code else ''}{text}".encode("ascii")
    assert re.fullmatch(rb"a1 NO (\[[^\] ]+\] )?[^\[\r\n\0][^\r\n\0]*", line)
    assert not re.search(rb"\{[0-9]+\+?\}\Z", line)


JUNK: list[Any] = [0, "", "NO", (), [], {}, True, Reject, Odd(), object(), b"x", NotImplemented, ("", "Refused", "")]


@pytest.mark.parametrize("answer", JUNK, ids=repr)
def test_f19_no_verdicts(answer: Any) -> None:
    """What is no verdict is junk, whatever it is equal to."""
    with pytest.raises(Junk, match=rf"^expected a verdict, or None; got {type(answer).__name__}$"):
        checked("command", answer, None)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("NOOP", "expected one line as bytes"),
        (b"", "expected one line as bytes"),
        (b"NOOP\r\n", "expected one line as bytes"),
        (b"NOOP\r\na2 LOGOUT", "expected one line as bytes"),
        (b"NOOP\na2 LOGOUT", "expected one line as bytes"),
        (b"NOOP\0", "expected one line as bytes"),
        (b"SELECT {5}", "expected one line as bytes"),
        (b"SELECT {5}\r\nINB", "expected one line as bytes"),
        (b"SELECT {5}\r\nINBOX\r\n", "expected one line as bytes"),
        (b"SELECT {5}\r\nINBOX\r\na2 LOGOUT", "expected one line as bytes"),
        (b"SELECT {99999999999999999999}\r\nx", "expected one line as bytes"),
        (b"FROBNICATE x", "Unknown command FROBNICATE"),
        (b"\xff", "Expected a command"),
    ],
)
def test_a24_replacements(line: Any, fault: str) -> None:
    """A command in another's place is one command, and one that can be read."""
    with pytest.raises(Junk, match=rf"^Replace\.line: .*{fault}"):
        checked("command", Replace(line), parse)


@pytest.mark.parametrize("line", [b"SELECT {5}\r\nINBOX", b"LOGIN {1+}\r\na ~{3}\r\n\r\n\0", b"SELECT {0}\r\n"])
def test_literals_in_replacements(line: bytes) -> None:
    """Literals stand in a line whole, with whatever is in them."""
    assert checked("command", Replace(line), lambda line: line) == Replace(line)


def test_nothing_to_replace() -> None:
    """Where nobody would read it, nothing can be put."""
    with pytest.raises(Junk, match="nothing can be replaced here"):
        checked("untagged", Replace(b"1 EXISTS"), None)


def test_a_bug_of_the_gate_is_no_junk() -> None:
    """What the one who reads raises besides the two expected kinds is not held against the plugin."""

    def parse(line: bytes) -> None:
        raise KeyError(line)

    with pytest.raises(KeyError):
        checked("command", Replace(b"NOOP"), parse)


NOTES: list[Any] = [
    None,
    ["x"],
    {"Upper": 1},
    {"a b": 1},
    {"": 1},
    {1: 1},
    {"x" * 65: 1},
    {"x": None},
    {"x": 1.5},
    {"x": b"x"},
    {"x": ["y"]},
    {"x": "y" * 1025},
    {"x": "\ud800"},
    {"x": 2**64},
]


@pytest.mark.parametrize("fields", NOTES, ids=lambda fields: ascii(fields)[:40])
def test_notes(fields: Any) -> None:
    """Notes that no record could hold are junk."""
    with pytest.raises(Junk, match=r"^Annotate\.fields: expected "):
        checked("command", Annotate(fields), None)


def test_capabilities() -> None:
    """Capabilities are atoms in a sequence; what is none is junk."""
    assert checked_capabilities(["IMAP4rev1", "AUTH=PLAIN", "X-A+B"]) == ("IMAP4rev1", "AUTH=PLAIN", "X-A+B")
    for answer in (None, "IMAP4rev1", b"IMAP4rev1", {"IMAP4rev1"}, ["A B"], ["A]"], ["A\r\n"], [b"A"], [""]):
        with pytest.raises(Junk):
            checked_capabilities(answer)


def test_least_capabilities() -> None:
    """The least that is shown is what a login needs."""
    shown = ("IMAP4rev1", "STARTTLS", "LOGINDISABLED", "AUTH=PLAIN", "SASL-IR", "LITERAL+")
    assert least_capabilities((*shown, "MOVE", "X-AUTH=Y", "IMAP4")) == shown
